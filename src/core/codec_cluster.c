/*
 * codec_cluster.c
 *	  What etcd knows of the cluster as a whole: config, and what its databases were before it was recovered.
 *
 * The formats stand in codec.c, how a field is read and written in json.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"
#include "core/json.h"
#include "core/keys.h"

static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

/* ---- config ---------------------------------------------------------------------------------- */

static void
check_incarnation(Problem *problem, const char *name, const char *incarnation)
{
	json_check_text(problem, name, incarnation, 1, sizeof(((ConfigInfo *) NULL)->incarnation) - 1);
	json_check_word(problem, name, incarnation, word);
}

bool
codec_config_check(const ConfigInfo *config, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);
	int i;

	json_check_range(&problem, "partitions", config->partitions, 1, KEYS_MAX_PARTITIONS);
	check_incarnation(&problem, "incarnation", config->incarnation);
	json_check_range(&problem, "previous", config->nprevious, 0, CODEC_MAX_PREVIOUS);
	if (problem.found || config->nprevious == 0)
		return !problem.found;
	for (i = 0; i < config->nprevious; i++)
		check_incarnation(&problem, "previous", config->previous[i]);
	json_check_range(&problem, "number", config->number, 1, CODEC_MAX_NUMBER_OF_INCARNATION);
	json_check_time(&problem, "resume_from", config->resume_from);
	json_check_time(&problem, "recovered_at", config->recovered_at);
	return !problem.found;
}

static void
read_previous(const Reader *reader, ConfigInfo *out)
{
	const cJSON *list = json_find(reader, "previous");
	const cJSON *item;

	if (list == NULL)
		return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 1 || cJSON_GetArraySize(list) > CODEC_MAX_PREVIOUS)
	{
		json_complain_about(reader, "previous", "is no list of a few names");
		return;
	}
	cJSON_ArrayForEach(item, list)
	{
		const char *text = cJSON_GetStringValue(item);

		if (text == NULL || strlen(text) >= sizeof(out->previous[0]))
		{
			json_complain_about(reader, "previous", "has something else than names");
			return;
		}
		strcpy(out->previous[out->nprevious++], text);
	}
	out->number = json_read_range(reader, "number", 1, CODEC_MAX_NUMBER_OF_INCARNATION);
	out->resume_from = json_read_time(reader, "resume_from");
	out->recovered_at = json_read_time(reader, "recovered_at");
}

static void
read_config(const Reader *reader, const Scanner *scan, void *arg)
{
	ConfigInfo *out = arg;

	json_read_format(reader);
	out->format = CODEC_FORMAT;
	out->partitions = (int) json_read_range(reader, "partitions", 1, KEYS_MAX_PARTITIONS);
	json_read_array(reader, "incarnation", out->incarnation, sizeof(out->incarnation));
	read_previous(reader, out);
}

bool
codec_config_decode(const char *text, size_t len, ConfigInfo *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_config, out, err, errlen) && codec_config_check(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_config_encode(const ConfigInfo *config, size_t *len)
{
	Writer writer = json_writer_begin();
	int i;

	if (!codec_config_check(config, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_int(&writer, "partitions", config->partitions);
	json_put_text(&writer, "incarnation", config->incarnation);
	if (config->nprevious > 0)
	{
		json_put_name(&writer, "previous");
		for (i = 0; i < config->nprevious; i++)
		{
			/* words, so there is nothing to escape */
			json_put(&writer, i == 0 ? "[\"" : ",\"");
			json_put(&writer, config->previous[i]);
			json_put(&writer, "\"");
		}
		json_put(&writer, "]");
		json_put_int(&writer, "number", config->number);
		json_put_time(&writer, "resume_from", config->resume_from);
		json_put_time(&writer, "recovered_at", config->recovered_at);
	}
	return json_put_tail(&writer, len);
}

/* ---- former ---------------------------------------------------------------------------------- */

bool
codec_former_check(const FormerInfo *former, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);
	int i;

	check_incarnation(&problem, "incarnation", former->incarnation);
	json_check_range(&problem, "revision", former->revision, 0, CODEC_MAX_INT);
	json_check_range(&problem, "watermarks", former->npartitions, 0, KEYS_MAX_PARTITIONS);
	for (i = 0; !problem.found && i < former->npartitions; i++)
		json_check_time(&problem, "watermarks", former->watermarks[i]);
	json_check_range(&problem, "places", former->nplaces, 0, CODEC_MAX_FORMER_PLACES);
	for (i = 0; !problem.found && i < former->nplaces; i++)
	{
		const FormerPlace *place = &former->places[i];
		int k;

		json_check_text(&problem, "place", place->place, 1, SELECTOR_MAX);
		for (k = 0; k < CODEC_PLACE_PARTITIONS; k++)
			json_check_time(&problem, "watermarks", place->watermarks[k]);
	}
	return !problem.found;
}

/* A list of up to max times; their number, 0 if it is anything else. */
static int
read_times(const cJSON *list, int64_t *out, int max)
{
	const cJSON *item;
	int n = 0;

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > max)
		return 0;
	cJSON_ArrayForEach(item, list)
	{
		double number = cJSON_IsNumber(item) ? item->valuedouble : 0.5;

		if (!(number >= -(double) CODEC_MAX_INT && number <= (double) CODEC_MAX_INT) || number != (double) (int64_t) number)
			return 0;
		out[n++] = (int64_t) number - CODEC_EPOCH_DIFF;
	}
	return n;
}

static void
read_watermarks(const Reader *reader, FormerInfo *out)
{
	const cJSON *places = json_find(reader, "watermarks");

	if (places == NULL)
		return;
	out->npartitions = read_times(cJSON_GetObjectItemCaseSensitive(places, "any"), out->watermarks, KEYS_MAX_PARTITIONS);
	if (out->npartitions == 0)
		json_complain_about(reader, "watermarks", "has no list of times");
}

static void
read_places(const Reader *reader, FormerInfo *out)
{
	const cJSON *list = json_find(reader, "places");
	const cJSON *item;

	if (list == NULL)
		return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > CODEC_MAX_FORMER_PLACES)
	{
		json_complain_about(reader, "places", "is no list of places, or too long");
		return;
	}
	cJSON_ArrayForEach(item, list)
	{
		FormerPlace *place = &out->places[out->nplaces++];
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "place"));

		if (name == NULL || strlen(name) > SELECTOR_MAX ||
			read_times(cJSON_GetObjectItemCaseSensitive(item, "watermarks"), place->watermarks, CODEC_PLACE_PARTITIONS) !=
				CODEC_PLACE_PARTITIONS)
		{
			json_complain_about(reader, "places", "has something else than places");
			return;
		}
		strcpy(place->place, name);
	}
}

static void
read_former(const Reader *reader, const Scanner *scan, void *arg)
{
	FormerInfo *out = arg;

	json_read_format(reader);
	json_read_array(reader, "incarnation", out->incarnation, sizeof(out->incarnation));
	out->revision = json_read_range(reader, "revision", 0, CODEC_MAX_INT);
	read_watermarks(reader, out);
	read_places(reader, out);
}

bool
codec_former_decode(const char *text, size_t len, FormerInfo *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_former, out, err, errlen) && codec_former_check(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

static void
put_times(Writer *writer, const int64_t *times, int n)
{
	int i;

	json_put(writer, "[");
	for (i = 0; i < n; i++)
	{
		char number[32];

		snprintf(number, sizeof(number), "%s%" PRId64, i > 0 ? "," : "", times[i] + CODEC_EPOCH_DIFF);
		json_put(writer, number);
	}
	json_put(writer, "]");
}

static void
put_places(Writer *writer, const FormerInfo *former)
{
	int i;

	json_put_name(writer, "places");
	json_put(writer, "[");
	for (i = 0; i < former->nplaces; i++)
	{
		json_put_separator(writer);
		json_put(writer, "{");
		json_put_text(writer, "place", former->places[i].place);
		json_put_name(writer, "watermarks");
		put_times(writer, former->places[i].watermarks, CODEC_PLACE_PARTITIONS);
		json_put(writer, "}");
	}
	json_put(writer, "]");
}

char *
codec_former_encode(const FormerInfo *former, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_former_check(former, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "incarnation", former->incarnation);
	json_put_int(&writer, "revision", former->revision);
	if (former->npartitions > 0)
	{
		json_put_name(&writer, "watermarks");
		json_put(&writer, "{\"any\":");
		put_times(&writer, former->watermarks, former->npartitions);
		json_put(&writer, "}");
	}
	if (former->nplaces > 0)
		put_places(&writer, former);
	return json_put_tail(&writer, len);
}
