/*
 * test_codec_cluster.c
 *	  config, with and without former incarnations, and what etcd says of a database in the incarnation before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"
#include "tap.h"

static FormerInfo former;
static FormerInfo former_again;

static void
refuses_config(const char *text, const char *what)
{
	ConfigInfo config;
	char err[256] = "";

	ok(!codec_config_decode(text, strlen(text), &config, err, sizeof(err)) && err[0] != '\0' && config.partitions == 0,
	   "config with %s is refused", what);
}

static void
refuses_former(const char *text, const char *what)
{
	char err[256] = "";

	ok(!codec_former_decode(text, strlen(text), &former, err, sizeof(err)) && err[0] != '\0' && former.npartitions == 0,
	   "former with %s is refused", what);
}

static void
test_config(void)
{
	static const char first[] = "{\"format\":1,\"partitions\":64,\"incarnation\":\"ab-1\"}";
	ConfigInfo config = {0};
	ConfigInfo again;
	size_t len;
	char *text;
	int i;

	ok(codec_config_decode(first, strlen(first), &config, NULL, 0) && config.nprevious == 0, "the first incarnation");
	text = codec_config_encode(&config, &len);
	is_str(text, first, "says nothing of former ones");
	free(text);

	for (i = 0; i < CODEC_MAX_PREVIOUS; i++)
		sprintf(config.previous[config.nprevious++], "former-%d", i);
	config.number = CODEC_MAX_NUMBER_OF_INCARNATION;
	config.resume_from = -5;
	config.recovered_at = CODEC_MAX_TIME;
	text = codec_config_encode(&config, &len);
	ok(text != NULL && codec_config_decode(text, len, &again, NULL, 0), "as many former ones as there may be");
	is_int(again.nprevious, CODEC_MAX_PREVIOUS, "all of them");
	is_str(again.previous[CODEC_MAX_PREVIOUS - 1], "former-7", "the last");
	is_int(again.number, CODEC_MAX_NUMBER_OF_INCARNATION, "its number");
	is_int(again.resume_from, -5, "resume_from");
	ok(again.recovered_at == CODEC_MAX_TIME, "recovered_at");
	free(text);

	config.previous[0][0] = '"';
	ok(codec_config_encode(&config, &len) == NULL, "what would have to be escaped is not written");
	config.previous[0][0] = 'f';
	config.nprevious++;
	ok(codec_config_encode(&config, &len) == NULL, "nor are too many");
	config.nprevious--;
	config.number = 0;
	ok(codec_config_encode(&config, &len) == NULL, "nor one without a number");

	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":[]}", "an empty list");
	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":\"b\"}", "no list");
	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":[1],\"number\":1,\"resume_from\":0,\"recovered_at\":0}", "a number in the list");
	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":[\"b\"],\"number\":1,\"resume_from\":0}", "a time missing");
	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":[\"0123456789012345678901234567890123456789\"],\"number\":1,\"resume_from\":0,\"recovered_at\":0}",
				   "a name that is too long");
	refuses_config("{\"format\":1,\"partitions\":64,\"incarnation\":\"a\",\"previous\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"],\"number\":1,\"resume_from\":0,\"recovered_at\":0}",
				   "too many names");
}

static void
test_former(void)
{
	size_t len;
	char *text;
	int i;

	memset(&former, 0, sizeof(former));
	strcpy(former.incarnation, "ab");
	former.revision = CODEC_MAX_INT;
	text = codec_former_encode(&former, &len);
	is_str(text, "{\"format\":1,\"incarnation\":\"ab\",\"revision\":9007199254740991}", "without watermarks");
	free(text);

	former.npartitions = KEYS_MAX_PARTITIONS;
	for (i = 0; i < former.npartitions; i++)
		former.watermarks[i] = i == 0 ? CODEC_MIN_TIME : i == 1 ? CODEC_MAX_TIME : i - 500;
	text = codec_former_encode(&former, &len);
	ok(text != NULL && codec_former_decode(text, len, &former_again, NULL, 0), "with as many as there may be");
	ok(memcmp(&former, &former_again, sizeof(former)) == 0, "they are the same");
	free(text);

	former.npartitions = 1;
	former.nplaces = 1;
	strcpy(former.places[0].place, "dc=\"a");
	for (i = 0; i < CODEC_PLACE_PARTITIONS; i++)
		former.places[0].watermarks[i] = i - CODEC_EPOCH_DIFF;
	former.watermarks[0] = -CODEC_EPOCH_DIFF;
	text = codec_former_encode(&former, &len);
	is_str(text, "{\"format\":1,\"incarnation\":\"ab\",\"revision\":9007199254740991,\"watermarks\":{\"any\":[0]},"
		   "\"places\":[{\"place\":\"dc=\\\"a\",\"watermarks\":[0,1,2,3]}]}", "with those of a selector");
	ok(codec_former_decode(text, len, &former_again, NULL, 0) && former_again.nplaces == 1 &&
		   strcmp(former_again.places[0].place, "dc=\"a") == 0 && former_again.places[0].watermarks[3] == 3 - CODEC_EPOCH_DIFF,
	   "they are read");
	free(text);
	former.nplaces = CODEC_MAX_FORMER_PLACES;
	for (i = 0; i < former.nplaces; i++)
	{
		memset(former.places[i].place, 'a' + i % 26, SELECTOR_MAX);
		former.places[i].place[SELECTOR_MAX] = '\0';
	}
	text = codec_former_encode(&former, &len);
	ok(text != NULL && codec_former_decode(text, len, &former_again, NULL, 0) && former_again.nplaces == former.nplaces,
	   "as many as there may be");
	free(text);

	former.npartitions = 8;
	former.watermarks[7] = CODEC_MIN_TIME - 1;
	ok(codec_former_encode(&former, &len) == NULL, "no time that cannot be");

	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":-1}", "a negative revision");
	refuses_former("{\"format\":1,\"incarnation\":\"\",\"revision\":1}", "no incarnation");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"watermarks\":[1]}", "watermarks of no place");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"watermarks\":{\"any\":[]}}", "an empty list");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"watermarks\":{\"any\":[1,\"2\"]}}", "a text in the list");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"watermarks\":{\"any\":[1.5]}}", "half a microsecond");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"watermarks\":{\"any\":[1e300]}}", "a time beyond all");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"places\":{}}", "no list of places");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"places\":[1]}", "a place that is none");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"places\":[{\"place\":\"a=b\",\"watermarks\":[1,2,3]}]}", "too few times");
	refuses_former("{\"format\":1,\"incarnation\":\"ab\",\"revision\":1,\"places\":[{\"watermarks\":[1,2,3,4]}]}", "a place without a name");
	refuses_former("{\"format\":2,\"incarnation\":\"ab\",\"revision\":1}", "another format");
}

int
main(void)
{
	test_config();
	test_former();
	return done();
}
