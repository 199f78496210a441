/*
 * fuzz_codec.c
 *	  Any bytes as each of the JSON values in etcd: what is refused leaves nothing and says why; what is accepted can be written, and what is
 *	  written is read as the same.
 *
 * An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/codec*.c src/core/json*.c src/core/keys.c src/core/policy.c src/core/selector.c src/core/cron*.c src/core/calendar*.c */
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
 * Are these two the same?  What they point to is compared and taken out, the rest are plain bytes: the decoders begin with a structure of
 * zeros, and a pointer that is forgotten here makes the two differ.
 */
static void
take_text(char **a, char **b)
{
	CHECK((*a == NULL) == (*b == NULL) && (*a == NULL || strcmp(*a, *b) == 0));
	*a = *b = NULL;
}

#define TAKE_ARRAY(a, b, n) \
	do \
	{ \
		CHECK((n) == 0 || memcmp(a, b, sizeof(*(a)) * (size_t) (n)) == 0); \
		(a) = (b) = NULL; \
	} while (0)

static void
take_job(JobDef *a, JobDef *b)
{
	take_text(&a->username, &b->username);
	take_text(&a->job_name, &b->job_name);
	take_text(&a->schedule, &b->schedule);
	take_text(&a->command, &b->command);
	take_text(&a->time_zone, &b->time_zone);
	take_text(&a->queue, &b->queue);
	take_text(&a->run_on, &b->run_on);
	take_text(&a->payload, &b->payload);
	take_text(&a->metadata, &b->metadata);
	take_text(&a->node, &b->node);
	take_text(&a->closed_reason, &b->closed_reason);
	take_text(&a->extra, &b->extra);
}

static void
take_state(PartitionState *a, PartitionState *b)
{
	CHECK(a->npending == b->npending && a->ndone == b->ndone && a->nfailing == b->nfailing);
	TAKE_ARRAY(a->pending, b->pending, a->npending);
	TAKE_ARRAY(a->done, b->done, a->ndone);
	TAKE_ARRAY(a->failing, b->failing, a->nfailing);
}

static void
take_node(NodeInfo *a, NodeInfo *b)
{
	take_text(&a->labels, &b->labels);
}

static void
take_trigger(TriggerDef *a, TriggerDef *b)
{
	take_text(&a->username, &b->username);
	take_text(&a->job_name, &b->job_name);
	take_text(&a->requested_by, &b->requested_by);
}

static void
take_queue(QueueDef *a, QueueDef *b)
{
	take_text(&a->extra, &b->extra);
}

#define take_nothing(a, b) ((void) 0)

/* Escapes can make a text longer than a value may be, but not one of the few bytes that a fuzzer gives. */
#define ROUND_TRIP(type, name, free_value, take) \
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
			{ \
				type a, b; \
 \
				memcpy(&a, &value, sizeof(type)); /* with what lies between the fields */ \
				memcpy(&b, &again, sizeof(type)); \
				take(&a, &b); \
				CHECK(memcmp(&a, &b, sizeof(type)) == 0); \
			} \
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
	ROUND_TRIP(JobDef, job, codec_job_free, take_job);
	ROUND_TRIP(PartitionState, state, codec_state_free, take_state);
	ROUND_TRIP(NodeInfo, node, codec_node_free, take_node);
	ROUND_TRIP(ConfigInfo, config, NOTHING, take_nothing);
	ROUND_TRIP(TriggerDef, trigger, codec_trigger_free, take_trigger);
	ROUND_TRIP(QueueDef, queue, codec_queue_free, take_queue);
	ROUND_TRIP(FormerInfo, former, NOTHING, take_nothing);
	ROUND_TRIP(CommandDef, command, NOTHING, take_nothing);
	ROUND_TRIP(OutcomeDef, outcome, NOTHING, take_nothing);
	ROUND_TRIP(RunMark, mark, NOTHING, take_nothing);
	return 0;
}
