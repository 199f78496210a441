/*
 * fuzz_codec.c
 *	  Any bytes as each of the JSON values in etcd: what is refused leaves nothing and says why; what is accepted can be written, and what is
 *	  written is read as the same.
 *
 * An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/codec*.c src/core/json*.c src/core/keys.c src/core/policy.c src/core/cron*.c src/core/calendar*.c */
/* libs: -lcjson */
#include <stdbool.h>
#include <string.h>

#include "check.h"

#include "core/codec.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The text once more in memory of its own, so that reading beyond its end is seen. */
static char *
copy_of(const void *data, size_t size)
{
	char *copy = malloc(size > 0 ? size : 1);

	if (copy != NULL && size > 0)
		memcpy(copy, data, size);
	return copy;
}

/*
 * Values have no equality but that of their encoding: decoded, encoded, decoded, encoded must come to the same text.  Escapes can make a
 * text longer than a value may be, but not one of the few bytes that a fuzzer gives.
 */
#define ROUND_TRIP(type, name, free_value) \
	do \
	{ \
		type value, again; \
		char err[200], *text = copy_of(data, size), *first, *second; \
		size_t first_len, second_len; \
 \
		memset(&value, 0x5a, sizeof(value)); \
		memset(err, 'x', sizeof(err)); \
		if (codec_##name##_decode(text, size, &value, err, sizeof(err))) \
		{ \
			CHECK(codec_##name##_check(&value, err, sizeof(err))); \
			first = codec_##name##_encode(&value, &first_len); \
			CHECK(first != NULL && strlen(first) == first_len); \
			CHECK(codec_##name##_decode(first, first_len, &again, err, sizeof(err))); \
			second = codec_##name##_encode(&again, &second_len); \
			CHECK(second != NULL && second_len == first_len && memcmp(first, second, first_len) == 0); \
			free(first); \
			free(second); \
			free_value(&again); \
		} \
		else \
			CHECK(memchr(err, '\0', sizeof(err)) != NULL && err[0] != '\0'); \
		free_value(&value); \
		free(text); \
		CHECK(!codec_##name##_decode("", 0, &value, NULL, 0)); \
		free_value(&value); \
	} while (0)

#define NOTHING(value) ((void) (value))

/* Those without a check of their own. */
#define codec_command_check(value, err, len) ((void) (value), true)
#define codec_outcome_check(value, err, len) ((void) (value), true)

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ROUND_TRIP(JobDef, job, codec_job_free);
	ROUND_TRIP(PartitionState, state, codec_state_free);
	ROUND_TRIP(NodeInfo, node, codec_node_free);
	ROUND_TRIP(ConfigInfo, config, NOTHING);
	ROUND_TRIP(TriggerDef, trigger, codec_trigger_free);
	ROUND_TRIP(QueueDef, queue, codec_queue_free);
	ROUND_TRIP(FormerInfo, former, NOTHING);
	ROUND_TRIP(CommandDef, command, NOTHING);
	ROUND_TRIP(OutcomeDef, outcome, NOTHING);
	ROUND_TRIP(RunMark, mark, NOTHING);
	return 0;
}
