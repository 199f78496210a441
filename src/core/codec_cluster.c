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

bool
codec_config_decode(const char *text, size_t len, ConfigInfo *out, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = json_parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = json_reader_begin(root, &problem);

		json_read_format(&reader);
		out->format = CODEC_FORMAT;
		out->partitions = (int) json_read_range(&reader, "partitions", 1, KEYS_MAX_PARTITIONS);
		json_read_array(&reader, "incarnation", out->incarnation, sizeof(out->incarnation));
		read_previous(&reader, out);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_config_check(out, err, errlen))
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
	return !problem.found;
}

static void
read_watermarks(const Reader *reader, FormerInfo *out)
{
	const cJSON *places = json_find(reader, "watermarks");
	const cJSON *list = places != NULL ? cJSON_GetObjectItemCaseSensitive(places, "any") : NULL;
	const cJSON *item;

	if (places == NULL)
		return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 1 || cJSON_GetArraySize(list) > KEYS_MAX_PARTITIONS)
	{
		json_complain_about(reader, "watermarks", "has no list of them");
		return;
	}
	cJSON_ArrayForEach(item, list)
	{
		double number = cJSON_IsNumber(item) ? item->valuedouble : 0.5;

		/* the range first: a number beyond it cannot be converted */
		if (!(number >= -(double) CODEC_MAX_INT && number <= (double) CODEC_MAX_INT) || number != (double) (int64_t) number)
		{
			json_complain_about(reader, "watermarks", "has something else than times");
			return;
		}
		out->watermarks[out->npartitions++] = (int64_t) number - CODEC_EPOCH_DIFF;
	}
}

bool
codec_former_decode(const char *text, size_t len, FormerInfo *out, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = json_parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = json_reader_begin(root, &problem);

		json_read_format(&reader);
		json_read_array(&reader, "incarnation", out->incarnation, sizeof(out->incarnation));
		out->revision = json_read_range(&reader, "revision", 0, CODEC_MAX_INT);
		read_watermarks(&reader, out);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_former_check(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_former_encode(const FormerInfo *former, size_t *len)
{
	Writer writer = json_writer_begin();
	int i;

	if (!codec_former_check(former, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "incarnation", former->incarnation);
	json_put_int(&writer, "revision", former->revision);
	if (former->npartitions > 0)
	{
		json_put_name(&writer, "watermarks");
		json_put(&writer, "{\"any\":[");
		for (i = 0; i < former->npartitions; i++)
		{
			char number[32];

			snprintf(number, sizeof(number), "%s%" PRId64, i > 0 ? "," : "", former->watermarks[i] + CODEC_EPOCH_DIFF);
			json_put(&writer, number);
		}
		json_put(&writer, "]}");
	}
	return json_put_tail(&writer, len);
}
