/*
 * test_codec.c
 *	  The JSON values: exact formats, round trips, and texts that nobody should believe.
 */
#include "core/codec.h"
#include "core/selector.h"
#include "random.h"
#include "tap.h"

#define MAX_INT_TEXT "9007199254740991"

static char err[256];

/* 2000-01-01 as JSON has it, and one second before 1970 and a day in 2200 as C has it */
#define JSON_2000 "946684800000000"
#define TIME_1969 (-CODEC_EPOCH_DIFF - 1000000)
#define TIME_2200 (INT64_C(7258118400000000) - CODEC_EPOCH_DIFF)

/* A copy without a NUL behind it, so that the sanitizer sees who reads too far. */
static char *
exact_copy(const char *text, size_t len)
{
	char *copy = malloc(len > 0 ? len : 1);

	memcpy(copy, text, len);
	return copy;
}

static bool
all_zero(const void *data, size_t len)
{
	const unsigned char *p = data;
	size_t i;

	for (i = 0; i < len; i++)
	{
		if (p[i] != 0)
			return false;
	}
	return true;
}

typedef enum Kind
{
	JOB,
	STATE,
	NODE,
	CONFIG,
	TRIGGER,
	QUEUE,
	COMMAND,
	OUTCOME,
	KINDS
} Kind;

typedef union Any
{
	JobDef job;
	PartitionState state;
	NodeInfo node;
	ConfigInfo config;
	TriggerDef trigger;
	QueueDef queue;
	CommandDef command;
	OutcomeDef outcome;
} Any;

static bool
decode(Kind kind, const char *text, size_t len, Any *out)
{
	char *copy = exact_copy(text, len);
	bool good = false;

	memset(out, 0xAA, sizeof(*out));
	memset(err, 'x', sizeof(err));
	switch (kind)
	{
		case JOB:
			good = codec_job_decode(copy, len, &out->job, err, sizeof(err));
			break;
		case STATE:
			good = codec_state_decode(copy, len, &out->state, err, sizeof(err));
			break;
		case NODE:
			good = codec_node_decode(copy, len, &out->node, err, sizeof(err));
			break;
		case CONFIG:
			good = codec_config_decode(copy, len, &out->config, err, sizeof(err));
			break;
		case QUEUE:
			good = codec_queue_decode(copy, len, &out->queue, err, sizeof(err));
			break;
		case COMMAND:
			good = codec_command_decode(copy, len, &out->command, err, sizeof(err));
			break;
		case OUTCOME:
			good = codec_outcome_decode(copy, len, &out->outcome, err, sizeof(err));
			break;
		default:
			good = codec_trigger_decode(copy, len, &out->trigger, err, sizeof(err));
	}
	free(copy);
	return good;
}

static char *
encode(Kind kind, const Any *any, size_t *len)
{
	switch (kind)
	{
		case JOB:
			return codec_job_encode(&any->job, len);
		case STATE:
			return codec_state_encode(&any->state, len);
		case NODE:
			return codec_node_encode(&any->node, len);
		case CONFIG:
			return codec_config_encode(&any->config, len);
		case QUEUE:
			return codec_queue_encode(&any->queue, len);
		case COMMAND:
			return codec_command_encode(&any->command, len);
		case OUTCOME:
			return codec_outcome_encode(&any->outcome, len);
		default:
			return codec_trigger_encode(&any->trigger, len);
	}
}

static void
release(Kind kind, Any *any)
{
	if (kind == JOB)
		codec_job_free(&any->job);
	else if (kind == STATE)
		codec_state_free(&any->state);
	else if (kind == NODE)
		codec_node_free(&any->node);
	else if (kind == TRIGGER)
		codec_trigger_free(&any->trigger);
	else if (kind == QUEUE)
		codec_queue_free(&any->queue);
}

static size_t
size_of(Kind kind)
{
	static const size_t sizes[] = {sizeof(JobDef), sizeof(PartitionState), sizeof(NodeInfo),
								   sizeof(ConfigInfo), sizeof(TriggerDef), sizeof(QueueDef),
								   sizeof(CommandDef), sizeof(OutcomeDef)};

	return sizes[kind];
}

/* Refused properly: false, an error text of one line, nothing left behind. */
static bool
refuses(Kind kind, const char *text, size_t len)
{
	Any any;

	if (decode(kind, text, len, &any))
	{
		release(kind, &any);
		return false;
	}
	return err[0] != '\0' && memchr(err, '\0', sizeof(err)) != NULL && strchr(err, '\n') == NULL &&
		   all_zero(&any, size_of(kind));
}

/*
 * BYTE-EXACT FORMATS
 */

/* Every kind with all its fields; what these say is decoded and encoded again to the same bytes. */
static const char *const full[KINDS] = {
	"{\"format\":1,\"job_id\":" MAX_INT_TEXT
	",\"username\":\"app\",\"job_name\":\"a/\xc3\xbc \\\"b\\\"\","
	"\"schedule\":\"*/5 * * * *\",\"command\":\"select 1;\\n\\tselect "
	"'\\\\'\",\"time_zone\":\"Europe/Berlin\","
	"\"starts_at\":" JSON_2000
	",\"expires_at\":7258118400000000,\"last_slot\":-1000000,\"max_runs\":2147483647,"
	"\"overlap\":\"queue_one\",\"misfire\":\"all\",\"misfire_grace\":0,\"max_attempts\":100,"
	"\"retry_delay\":5000000,\"retry_max_delay\":31622400000000,\"timeout\":1,\"priority\":-100,"
	"\"deadline\":60000000,\"max_failures\":1000000,\"max_lost\":1,\"jitter\":30000000,"
	"\"queue\":\"b\xc3\xbc \\\"q\\\"\",\"run_on\":\"disk!=hdd,region=eu\","
	"\"active\":true,\"payload\":\"{\\\"n\\\": 12345678901234567890.123}\",\"metadata\":\"null\","
	"\"anchor\":0,\"gen\":7,\"slots_from\":1,\"gen_rev\":0,\"change_id\":" MAX_INT_TEXT
	",\"node\":\"pg1\","
	"\"closed_reason\":\"paused\\u0001\",\"new\":[1.50,9007199254740993,{\"a\" : "
	"null}],\"\\u006fther\":\"x\"}",

	"{\"format\":1,\"node\":\"pg1\",\"epoch\":5,\"seq\":6,\"jobrev\":7,\"watermark\":"
	"1700000000000001,"
	"\"watermark_job\":" MAX_INT_TEXT
	",\"pending\":[{\"j\":1,\"g\":2,\"s\":3,\"e\":4,\"t\":5,\"a\":6,\"f\":2,\"x\":2147483647,"
	"\"n\":7,"
	"\"l\":\"-9223372036854775808\",\"h\":true,\"r\":\"retry\"},{\"j\":1,\"g\":0,\"s\":-1}],"
	"\"done\":[{\"j\":2,\"g\":1,\"s\":3}],"
	"\"failing\":[{\"j\":1,\"n\":3},{\"j\":9007199254740991,\"n\":0}],"
	"\"system_identifier\":\"18446744073709551615\",\"timeline\":4294967295,\"since\":-1,\"clean\":true}",

	"{\"format\":1,\"node\":\"pg1\",\"host\":\"10.0.0.1\",\"port\":5432,\"labels\":{\"zone\":\"a\"}"
	","
	"\"version\":\"1.0\",\"server_version_num\":150020,\"lease\":\"7587886543210987654\","
	"\"system_identifier\":\"18446744073709551615\",\"timeline\":4294967295,"
	"\"boot_id\":\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\",\"data_dev\":\"66305\",\"data_ino\":"
	"\"0\","
	"\"wall_clock\":1700000000000001,\"tzdata\":\"2024a\"}",

	"{\"format\":1,\"partitions\":64,\"incarnation\":\"0f3c-9A\"}",

	"{\"format\":1,\"trigger_id\":1,\"job_id\":2,\"username\":\"app\",\"job_name\":\"n\","
	"\"requested_at\":1700000000000001,\"requested_by\":\"boss\",\"change_id\":3,"
	"\"kind\":\"backfill\",\"first\":-5,\"last\":1700000000000001,"
	"\"rule\":\"-9223372036854775808\"}",


	"{\"format\":1,\"name\":\"mail/\xc3\xbc\",\"max_running\":10000,\"rate_limit\":1000000,"
	"\"per\":31622400000000,\"scope\":\"cluster\",\"change_id\":" MAX_INT_TEXT
	",\"node\":\"pg1\",\"burst\":[1.50,{\"a\" : null}]}",

	"{\"format\":1,\"session\":\"9223372036854775807\",\"cancel\":true}",

	"{\"format\":1,\"session\":\"9223372036854775807\",\"status\":\"timed_out\","
	"\"finished_at\":1700000000000001,\"sqlstate\":\"57P01\"}"};

static const char *const least[KINDS] = {"{\"format\":1,\"job_id\":1,\"username\":\"r\",\"job_"
										 "name\":\"n\",\"run_at\":5,\"command\":\"c\","
										 "\"active\":false,\"anchor\":0,\"gen\":0,\"slots_from\":0,"
										 "\"gen_rev\":0,\"change_id\":0,\"node\":\"n\"}",
										 "{\"format\":1,\"node\":\"n\",\"epoch\":0,\"seq\":0,"
										 "\"jobrev\":0,\"watermark\":0,\"watermark_job\":0,"
										 "\"pending\":[],\"done\":[],\"clean\":false}",
										 "{\"format\":1,\"node\":\"n\",\"host\":\"\",\"port\":0,"
										 "\"version\":\"\",\"server_version_num\":0,"
										 "\"lease\":\"1\",\"system_identifier\":\"0\",\"timeline\":"
										 "0,\"boot_id\":\"b\",\"data_dev\":\"0\","
										 "\"data_ino\":\"0\",\"wall_clock\":0,\"tzdata\":\"\"}",
										 "{\"format\":1,\"partitions\":1,\"incarnation\":\"x\"}",
										 "{\"format\":1,\"trigger_id\":1,\"job_id\":1,\"username\":"
										 "\"r\",\"job_name\":\"n\",\"requested_at\":0,"
										 "\"requested_by\":\"r\",\"change_id\":0}",
										 "{\"format\":1,\"name\":\"q\",\"max_running\":1,"
										 "\"scope\":\"instance\",\"change_id\":0,"
										 "\"node\":\"n\"}",
										 "{\"format\":1,\"session\":\"1\"}",
										 "{\"format\":1,\"session\":\"1\",\"status\":\"lost\"}"};

static void
same_again(Kind kind, const char *text)
{
	Any any;
	char *again;
	size_t len;

	if (!ok(decode(kind, text, strlen(text), &any), "kind %d is decoded", kind))
	{
		printf("# %s\n", err);
		return;
	}
	again = encode(kind, &any, &len);
	is_str(again, text, "kind %d is encoded to the same bytes", kind);
	is_int((int64_t) len, again != NULL ? (int64_t) strlen(again) : -1, "of that length");
	free(again);
	release(kind, &any);
}

static void
test_exact_formats(void)
{
	int kind;

	for (kind = 0; kind < KINDS; kind++)
	{
		same_again(kind, full[kind]);
		same_again(kind, least[kind]);
	}
}

static void
test_job_values(void)
{
	Any any;

	ok(decode(JOB, full[JOB], strlen(full[JOB]), &any), "a definition");
	is_int(any.job.job_id, CODEC_MAX_INT, "job_id");
	is_str(any.job.job_name, "a/\xc3\xbc \"b\"", "job_name");
	is_str(any.job.command, "select 1;\n\tselect '\\'", "command");
	is_int(any.job.starts_at, 0, "starts_at");
	is_int(any.job.expires_at, TIME_2200, "expires_at");
	is_int(any.job.last_slot, TIME_1969, "last_slot");
	is_int(any.job.max_runs, INT32_MAX, "max_runs");
	is_int(any.job.policy.overlap, OVERLAP_QUEUE_ONE, "overlap");
	is_int(any.job.policy.misfire, MISFIRE_ALL, "misfire");
	is_int(any.job.policy.misfire_grace, 0, "misfire_grace");
	is_int(any.job.policy.max_attempts, POLICY_MAX_ATTEMPTS, "max_attempts");
	is_int(any.job.policy.retry_delay, 5000000, "retry_delay");
	is_int(any.job.policy.retry_max_delay, POLICY_MAX_DURATION, "retry_max_delay");
	is_int(any.job.policy.timeout, 1, "timeout");
	is_int(any.job.policy.priority, -POLICY_MAX_PRIORITY, "priority");
	is_int(any.job.policy.deadline, 60000000, "deadline");
	is_int(any.job.policy.max_failures, POLICY_MAX_COUNT, "max_failures");
	is_int(any.job.policy.max_lost, 1, "max_lost");
	is_int(any.job.policy.jitter, 30000000, "jitter");
	is_str(any.job.queue, "b\xc3\xbc \"q\"", "queue");
	is_str(any.job.run_on, "disk!=hdd,region=eu", "run_on");
	is_int(any.job.anchor, -CODEC_EPOCH_DIFF, "anchor");
	is_str(any.job.payload, "{\"n\": 12345678901234567890.123}", "payload");
	is_str(any.job.metadata, "null", "metadata");
	is_str(any.job.extra, "{\"new\":[1.50,9007199254740993,{\"a\" : null}],\"\\u006fther\":\"x\"}",
		   "extra");
	ok(any.job.has_starts_at && any.job.has_expires_at && any.job.has_last_slot,
	   "bounds are there");
	ok(any.job.active, "active");
	codec_job_free(&any.job);

	ok(decode(JOB, least[JOB], strlen(least[JOB]), &any), "the least definition");
	ok(any.job.schedule == NULL && any.job.time_zone == NULL && any.job.payload == NULL &&
		   any.job.metadata == NULL && any.job.closed_reason == NULL && any.job.extra == NULL,
	   "has nothing more");
	is_int(any.job.run_at, 5 - CODEC_EPOCH_DIFF, "run_at");
	ok(policy_same(&any.job.policy, &policy_default) && any.job.queue == NULL, "the default policy");
	codec_job_free(&any.job);
	codec_job_free(&any.job);
	ok(true, "freeing twice does no harm");
}

static void
test_other_values(void)
{
	Any any;

	ok(decode(STATE, full[STATE], strlen(full[STATE]), &any), "a state");
	is_int(any.state.format, 1, "format");
	is_int(any.state.npending, 2, "npending");
	is_int(any.state.pending[0].session, INT64_MIN, "session");
	is_int(any.state.pending[0].slot_to, 4 - CODEC_EPOCH_DIFF, "slot_to");
	is_int(any.state.pending[0].not_before, 7 - CODEC_EPOCH_DIFF, "not_before");
	is_int(any.state.pending[0].trigger_id, 5, "trigger_id");
	is_int(any.state.pending[0].attempt, 6, "attempt");
	is_str(any.state.pending[0].reason, "retry", "reason");
	is_int(any.state.pending[0].failures, 2, "failures");
	is_int(any.state.pending[0].lost, INT32_MAX, "lost");
	is_int(any.state.pending[1].failures + any.state.pending[1].lost, 0, "none by default");
	is_int(any.state.nfailing, 2, "nfailing");
	is_int(any.state.failing[0].failures, 3, "failures in a row");
	is_int(any.state.failing[1].job_id, CODEC_MAX_INT, "of the job");
	is_int(any.state.pending[1].slot_to, any.state.pending[1].slot, "slot_to is slot by default");
	is_int(any.state.ndone, 1, "ndone");
	codec_state_free(&any.state);

	ok(decode(STATE, least[STATE], strlen(least[STATE]), &any), "the least state");
	ok(any.state.failing == NULL && any.state.nfailing == 0, "no job fails");
	codec_state_free(&any.state);

	ok(decode(TRIGGER, full[TRIGGER], strlen(full[TRIGGER]), &any), "a backfill");
	ok(any.trigger.kind == TRIGGER_BACKFILL, "kind");
	is_int(any.trigger.first, -5 - CODEC_EPOCH_DIFF, "first");
	is_int(any.trigger.last, INT64_C(1700000000000001) - CODEC_EPOCH_DIFF, "last");
	is_int(any.trigger.rule, INT64_MIN, "rule");
	codec_trigger_free(&any.trigger);
	ok(decode(TRIGGER, least[TRIGGER], strlen(least[TRIGGER]), &any), "the least trigger");
	ok(any.trigger.kind == TRIGGER_RUN, "asks for a run");
	codec_trigger_free(&any.trigger);

	ok(decode(NODE, full[NODE], strlen(full[NODE]), &any), "an instance");
	is_int(any.node.lease, INT64_C(7587886543210987654), "lease");
	ok(any.node.system_identifier == UINT64_MAX, "system_identifier");
	is_str(any.node.labels, "{\"zone\":\"a\"}", "labels");
	codec_node_free(&any.node);
}

#define TRIGGER_HEAD                                                                               \
	"{\"format\":1,\"trigger_id\":1,\"job_id\":1,\"username\":\"r\",\"job_name\":\"n\","              \
	"\"requested_at\":0,\"requested_by\":\"r\",\"change_id\":0"

static void
test_trigger_kinds(void)
{
	static const char *const good[] = {
		",\"kind\":\"cancel\",\"slot\":0,\"target\":9007199254740991}",
		",\"kind\":\"cancel\",\"slot\":-1}",
		",\"kind\":\"cancel\",\"target\":1}",
		",\"kind\":\"backfill\",\"first\":7,\"last\":7,\"rule\":\"0\"}",
	};
	static const char *const bad[] = {
		",\"kind\":\"\"}",
		",\"kind\":\"run\"}",
		",\"kind\":\"Cancel\",\"target\":1}",
		",\"kind\":\"pause\"}",
		",\"kind\":1}",
		",\"kind\":[\"cancel\"],\"target\":1}",
		",\"kind\":\"cancel\"}",
		",\"kind\":\"cancel\",\"target\":0}",
		",\"kind\":\"cancel\",\"target\":-1}",
		",\"kind\":\"cancel\",\"slot\":\"x\"}",
		",\"kind\":\"cancel\",\"slot\":9007199254740992}",
		",\"kind\":\"cancel\",\"slot\":1,\"target\":9007199254740992}",
		",\"kind\":\"backfill\"}",
		",\"kind\":\"backfill\",\"first\":1,\"last\":2}",
		",\"kind\":\"backfill\",\"first\":1,\"last\":2,\"rule\":3}",
		",\"kind\":\"backfill\",\"first\":2,\"last\":1,\"rule\":\"3\"}",
		",\"kind\":\"backfill\",\"first\":1,\"rule\":\"3\"}",
		",\"kind\":\"backfill\",\"first\":null,\"last\":2,\"rule\":\"3\"}",
		",\"kind\":\"backfill\",\"first\":1,\"last\":9007199254740992,\"rule\":\"3\"}",
	};
	Any any;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
	{
		char text[512];

		snprintf(text, sizeof(text), "%s%s", TRIGGER_HEAD, good[i]);
		same_again(TRIGGER, text);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		char text[512];

		snprintf(text, sizeof(text), "%s%s", TRIGGER_HEAD, bad[i]);
		ok(refuses(TRIGGER, text, strlen(text)), "refused: %s (%s)", bad[i], err);
	}
	ok(decode(TRIGGER, TRIGGER_HEAD ",\"kind\":null,\"slot\":7}",
			  strlen(TRIGGER_HEAD ",\"kind\":null,\"slot\":7}"), &any),
	   "no kind");
	ok(any.trigger.kind == TRIGGER_RUN && any.trigger.slot == 0, "is a run, whatever else is there");
	any.trigger.kind = (TriggerKind) 3;
	ok(encode(TRIGGER, &any, NULL) == NULL, "a kind that is none is not written");
	any.trigger.kind = TRIGGER_CANCEL;
	any.trigger.slot = TRIGGER_ALL;
	ok(encode(TRIGGER, &any, NULL) == NULL, "nor the end of all slots of the schedule");
	any.trigger.kind = TRIGGER_BACKFILL;
	any.trigger.first = 2;
	any.trigger.last = 1;
	ok(encode(TRIGGER, &any, NULL) == NULL, "nor a range that ends before it begins");
	codec_trigger_free(&any.trigger);
}

/* Readers take any order, white space, null for absent, and fields that they do not know. */
static void
test_lenient(void)
{
	static const char *const odd =
		" {\n\"incarnation\" : \"x\" "
		",\t\"later\":{\"a\":[1,{}]},\"partitions\":6.4e1,\"format\":1.0}\r\n ";
	static const char *const nulls =
		"{\"format\":1,\"job_id\":1,\"username\":\"r\",\"job_name\":\"n\",\"schedule\":null,\"run_"
		"at\":5,"
		"\"command\":\"c\",\"payload\":null,\"starts_at\":null,\"max_runs\":null,\"active\":false,"
		"\"anchor\":0,\"gen\":0,\"slots_from\":0,\"gen_rev\":0,\"change_id\":0,\"node\":\"n\","
		"\"x\":null}";
	static const char *const entry =
		"{\"format\":1,\"node\":\"n\",\"epoch\":0,\"seq\":0,\"jobrev\":0,\"watermark\":0,"
		"\"watermark_job\":0,\"pending\":[{\"zz\":{},\"s\":3,\"g\":2,\"j\":1,\"e\":null}],\"done\":"
		"[],"
		"\"clean\":false}";
	Any any;

	ok(decode(CONFIG, odd, strlen(odd), &any), "another order");
	is_int(any.config.partitions, 64, "partitions");
	ok(decode(JOB, nulls, strlen(nulls), &any), "null is absent");
	ok(any.job.schedule == NULL && any.job.payload == NULL && !any.job.has_starts_at, "indeed");
	is_str(any.job.extra, "{\"x\":null}", "but not in what is not ours");
	codec_job_free(&any.job);
	ok(decode(STATE, entry, strlen(entry), &any), "an entry with an unknown field");
	codec_state_free(&any.state);
	ok(codec_config_decode(least[CONFIG], strlen(least[CONFIG]), &any.config, NULL, 0),
	   "no room for an error");
	ok(!codec_config_decode("{}", 2, &any.config, NULL, 0), "not even with an error");
	ok(!codec_config_decode("{}", 2, &any.config, err, 1) && err[0] == '\0', "room for NUL only");
}

/*
 * ROUND TRIPS
 */

static int64_t
random_id(void)
{
	return random_bits() % 4 == 0 ? CODEC_MAX_INT - (int64_t) (random_bits() % 3)
								  : random_between(1, CODEC_MAX_INT);
}

static int64_t
random_num(void)
{
	return random_bits() % 4 == 0 ? 0 : random_id();
}

static int64_t
random_time(void)
{
	switch (random_bits() % 6)
	{
		case 0:
			return random_between(-3, 3);
		case 1:
			return TIME_1969 + random_between(-2000000, 2000000);
		case 2:
			return TIME_2200 + random_between(-3, 3);
		case 3:
			return random_bits() % 2 ? CODEC_MIN_TIME : CODEC_MAX_TIME;
		default:
			return random_between(CODEC_MIN_TIME, CODEC_MAX_TIME);
	}
}

static int64_t
random_lease(void)
{
	int64_t lease =
		random_bits() % 4 == 0 ? random_between(INT64_MIN, INT64_MIN + 2) : (int64_t) random_bits();

	return lease != 0 ? lease : -1;
}

/* UTF-8 of at most max bytes (min 1), with what JSON escapes, into text of max + 1 bytes. */
static void
random_utf8(char *text, size_t max)
{
	static const char *const pieces[] = {"a",
										 "Z",
										 "0",
										 " ",
										 "\"",
										 "\\",
										 "/",
										 "\n",
										 "\t",
										 "\r",
										 "\x01",
										 "\x1f",
										 "\x7f",
										 "\b",
										 "\f",
										 "\xc3\xbc",
										 "\xc2\x80",
										 "\xdf\xbf",
										 "\xe0\xa0\x80",
										 "\xe2\x82\xac",
										 "\xed\x9f\xbf",
										 "\xee\x80\x80",
										 "\xef\xbf\xbf",
										 "\xf0\x90\x80\x80",
										 "\xf0\x9f\x98\x80",
										 "\xf4\x8f\xbf\xbf"};
	size_t want = (size_t) random_between(1, (int64_t) max);
	size_t used = 0;

	while (used < want)
	{
		const char *piece = pieces[random_bits() % (sizeof(pieces) / sizeof(pieces[0]))];

		if (used + strlen(piece) > max)
			break;
		strcpy(text + used, piece);
		used += strlen(piece);
	}
	if (used == 0)
		strcpy(text, "x");
}

static char *
random_text(size_t max)
{
	char *text = malloc(max + 1);

	random_utf8(text, max);
	return text;
}

static char *
maybe_text(size_t max)
{
	return random_bits() % 2 ? random_text(max) : NULL;
}

static char *
maybe_json(void)
{
	static const char *const samples[] = {
		"null", "1e400", "[[],{}]", " {\"a\" : \"\\u00fc\"} ", "\"text\"", "12345678901234567890"};

	return random_bits() % 2 ? strdup(samples[random_bits() % 6]) : NULL;
}

static void
random_policy(JobPolicy *policy)
{
	int i;

	*policy = policy_default;
	for (i = 0; i < POLICY_FIELDS; i++)
	{
		const PolicyInfo *info = &policy_fields[i];

		if (random_bits() % 2)
			continue;
		policy_set(policy, (PolicyField) i,
				   random_bits() % 4 == 0 ? (random_bits() % 2 ? info->least : info->most)
										  : random_between(info->least, info->most));
	}
	if (policy->retry_max_delay < policy->retry_delay)
		policy->retry_max_delay = policy->retry_delay;
}

/* Malloc'd, or NULL. */
static char *
random_place(bool recurring)
{
	char text[100];
	char normal[SELECTOR_MAX + 1];

	switch (random_bits() % 3)
	{
		case 0:
			return NULL;
		case 1:
			if (recurring)
				return strdup("each");
			break;
		default:
			break;
	}
	snprintf(text, sizeof(text), "rack=%d, disk!=%d", (int) random_between(0, 99), (int) random_between(0, 99));
	return selector_normalise(text, normal, NULL) ? strdup(normal) : NULL;
}

static void
random_job(JobDef *job)
{
	memset(job, 0, sizeof(*job));
	job->job_id = random_id();
	job->username = random_text(CODEC_MAX_ROLE);
	job->job_name = random_text(CODEC_MAX_NAME);
	job->schedule = maybe_text(100);
	job->run_at = job->schedule == NULL ? random_time() : 0;
	job->command = random_text(2000);
	job->time_zone = maybe_text(40);
	job->has_starts_at = random_bits() % 2;
	job->starts_at = job->has_starts_at ? random_time() : 0;
	job->has_expires_at = random_bits() % 2;
	job->expires_at = job->has_expires_at ? random_time() : 0;
	job->has_last_slot = random_bits() % 2;
	job->last_slot = job->has_last_slot ? random_time() : 0;
	job->max_runs = (int32_t) random_between(0, INT32_MAX);
	random_policy(&job->policy);
	job->queue = maybe_text(POLICY_MAX_QUEUE);
	job->run_on = random_place(job->schedule != NULL);
	job->active = random_bits() % 2;
	job->payload = maybe_json();
	job->metadata = maybe_json();
	job->anchor = random_time();
	job->gen = random_num();
	job->slots_from = random_time();
	job->gen_rev = random_bits() % 2 ? random_num() : -random_num();
	job->change_id = random_num();
	job->node = random_text(CODEC_MAX_NAME);
	job->closed_reason = maybe_text(100);
	job->extra = random_bits() % 2 ? strdup("{\"x\":0.10,\"y\":[ ]}") : NULL;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_job(const JobDef *a, const JobDef *b)
{
	return a->job_id == b->job_id && same_text(a->username, b->username) &&
		   same_text(a->job_name, b->job_name) && same_text(a->schedule, b->schedule) &&
		   a->run_at == b->run_at && same_text(a->command, b->command) &&
		   same_text(a->time_zone, b->time_zone) && a->has_starts_at == b->has_starts_at &&
		   a->has_expires_at == b->has_expires_at && a->has_last_slot == b->has_last_slot &&
		   a->starts_at == b->starts_at && a->expires_at == b->expires_at &&
		   a->last_slot == b->last_slot && a->max_runs == b->max_runs && a->active == b->active &&
		   policy_same(&a->policy, &b->policy) && same_text(a->queue, b->queue) && same_text(a->run_on, b->run_on) &&
		   same_text(a->payload, b->payload) && same_text(a->metadata, b->metadata) &&
		   a->anchor == b->anchor && a->gen == b->gen && a->slots_from == b->slots_from &&
		   a->gen_rev == b->gen_rev && a->change_id == b->change_id &&
		   same_text(a->node, b->node) && same_text(a->closed_reason, b->closed_reason) &&
		   same_text(a->extra, b->extra);
}

static void
random_run(PendingRun *run)
{
	memset(run, 0, sizeof(*run));
	run->job_id = random_id();
	run->gen = random_num();
	run->slot = random_time();
	run->slot_to = random_bits() % 2 ? run->slot : random_between(run->slot, CODEC_MAX_TIME);
	run->trigger_id = random_num();
	run->attempt = (int32_t) random_between(0, INT32_MAX);
	run->failures = random_bits() % 2 ? (int32_t) random_between(0, INT32_MAX) : 0;
	run->lost = random_bits() % 2 ? (int32_t) random_between(0, INT32_MAX) : 0;
	run->not_before = random_bits() % 2 ? random_time() : 0;
	run->session = random_bits() % 2 ? random_lease() : 0;
	run->handed_over = run->session != 0 && random_bits() % 2;
	if (random_bits() % 2)
		strcpy(run->reason, "run_now-90abcde");
}

static void
random_state_of(PartitionState *state, int npending, int ndone, int nfailing)
{
	int i;

	memset(state, 0, sizeof(*state));
	state->format = CODEC_FORMAT;
	random_utf8(state->node, CODEC_MAX_NAME);
	state->epoch = random_num();
	state->seq = random_num();
	state->jobrev = random_num();
	state->watermark = random_time();
	state->watermark_job = random_num();
	state->clean = random_bits() % 2;
	if (random_bits() % 2)
	{
		state->system_identifier = random_bits() | 1;
		state->timeline = random_num();
		state->since = random_time();
	}
	state->npending = npending;
	state->ndone = ndone;
	state->pending = npending > 0 ? calloc(npending, sizeof(PendingRun)) : NULL;
	state->done = ndone > 0 ? calloc(ndone, sizeof(PendingRun)) : NULL;
	for (i = 0; i < npending; i++)
		random_run(&state->pending[i]);
	for (i = 0; i < ndone; i++)
		random_run(&state->done[i]);
	state->nfailing = nfailing;
	state->failing = nfailing > 0 ? calloc(nfailing, sizeof(FailingJob)) : NULL;
	for (i = 0; i < nfailing; i++)
	{
		state->failing[i].job_id = random_id();
		state->failing[i].failures = (int32_t) random_between(0, INT32_MAX);
	}
}

static bool
same_runs(const PendingRun *a, const PendingRun *b, int count)
{
	int i;

	for (i = 0; i < count; i++)
	{
		if (a[i].job_id != b[i].job_id || a[i].gen != b[i].gen || a[i].slot != b[i].slot ||
			a[i].slot_to != b[i].slot_to || a[i].trigger_id != b[i].trigger_id ||
			a[i].attempt != b[i].attempt || a[i].failures != b[i].failures ||
			a[i].lost != b[i].lost || a[i].not_before != b[i].not_before ||
			a[i].session != b[i].session || a[i].handed_over != b[i].handed_over || strcmp(a[i].reason, b[i].reason) != 0)
			return false;
	}
	return true;
}

static bool
same_failing(const FailingJob *a, const FailingJob *b, int count)
{
	int i;

	for (i = 0; i < count; i++)
	{
		if (a[i].job_id != b[i].job_id || a[i].failures != b[i].failures)
			return false;
	}
	return true;
}

static bool
same_state(const PartitionState *a, const PartitionState *b)
{
	return a->format == b->format && strcmp(a->node, b->node) == 0 && a->epoch == b->epoch &&
		   a->seq == b->seq && a->jobrev == b->jobrev && a->watermark == b->watermark &&
		   a->watermark_job == b->watermark_job && a->clean == b->clean &&
		   a->system_identifier == b->system_identifier && a->timeline == b->timeline && a->since == b->since &&
		   a->npending == b->npending && a->ndone == b->ndone &&
		   a->nfailing == b->nfailing && same_runs(a->pending, b->pending, a->npending) &&
		   same_runs(a->done, b->done, a->ndone) && same_failing(a->failing, b->failing, a->nfailing);
}

static void
random_node(NodeInfo *node)
{
	memset(node, 0, sizeof(*node));
	random_utf8(node->node, CODEC_MAX_NAME);
	random_utf8(node->host, CODEC_MAX_NAME);
	node->port = (int) random_between(0, 65535);
	node->labels = random_bits() % 2 ? strdup("{\"disk\": \"ssd\"}") : NULL;
	random_utf8(node->version, sizeof(node->version) - 1);
	node->server_version_num = (int) random_between(0, 200000);
	node->lease = random_lease();
	node->system_identifier = random_bits();
	node->timeline = random_between(0, UINT32_MAX);
	random_utf8(node->boot_id, sizeof(node->boot_id) - 1);
	node->data_dev = random_bits();
	node->data_ino = random_bits();
	node->wall_clock = random_time();
	random_utf8(node->tzdata, sizeof(node->tzdata) - 1);
}

static bool
same_node(const NodeInfo *a, const NodeInfo *b)
{
	return strcmp(a->node, b->node) == 0 && strcmp(a->host, b->host) == 0 && a->port == b->port &&
		   same_text(a->labels, b->labels) && strcmp(a->version, b->version) == 0 &&
		   a->server_version_num == b->server_version_num && a->lease == b->lease &&
		   a->system_identifier == b->system_identifier && a->timeline == b->timeline &&
		   strcmp(a->boot_id, b->boot_id) == 0 && a->data_dev == b->data_dev &&
		   a->data_ino == b->data_ino && a->wall_clock == b->wall_clock &&
		   strcmp(a->tzdata, b->tzdata) == 0;
}

static void
random_trigger(TriggerDef *trigger)
{
	trigger->trigger_id = random_id();
	trigger->job_id = random_id();
	trigger->username = random_text(CODEC_MAX_ROLE);
	trigger->job_name = random_text(CODEC_MAX_NAME);
	trigger->requested_at = random_time();
	trigger->requested_by = random_text(CODEC_MAX_ROLE);
	trigger->change_id = random_num();
	trigger->kind = (TriggerKind) random_between(TRIGGER_RUN, TRIGGER_CANCEL);
	trigger->first = trigger->last = trigger->rule = trigger->slot = trigger->target = 0;
	if (trigger->kind == TRIGGER_BACKFILL)
	{
		trigger->first = random_time();
		trigger->last = random_between(trigger->first, CODEC_MAX_TIME);
		trigger->rule = (int64_t) random_bits();
	}
	else if (trigger->kind == TRIGGER_CANCEL)
	{
		trigger->slot = random_bits() % 2 ? random_time() : TRIGGER_ALL;
		trigger->target = trigger->slot == TRIGGER_ALL ? random_id() : random_num();
	}
}

static bool
same_trigger(const TriggerDef *a, const TriggerDef *b)
{
	return a->trigger_id == b->trigger_id && a->job_id == b->job_id &&
		   strcmp(a->username, b->username) == 0 && strcmp(a->job_name, b->job_name) == 0 &&
		   a->requested_at == b->requested_at && strcmp(a->requested_by, b->requested_by) == 0 &&
		   a->change_id == b->change_id && a->kind == b->kind && a->first == b->first &&
		   a->last == b->last && a->rule == b->rule && a->slot == b->slot && a->target == b->target;
}

static void
random_queue(QueueDef *queue)
{
	memset(queue, 0, sizeof(*queue));
	random_utf8(queue->name, POLICY_MAX_QUEUE);
	if (random_bits() % 2)
		queue->max_running = (int32_t) random_between(1, POLICY_MAX_RUNNING);
	if (queue->max_running == 0 || random_bits() % 2)
	{
		queue->rate_limit = (int32_t) random_between(1, POLICY_MAX_RATE);
		queue->per = random_between(POLICY_MIN_PER, POLICY_MAX_DURATION);
	}
	queue->cluster = random_bits() % 2;
	queue->change_id = random_num();
	random_utf8(queue->node, CODEC_MAX_NAME);
	queue->extra = random_bits() % 2 ? strdup("{\"burst\": 7}") : NULL;
}

static bool
same_queue(const QueueDef *a, const QueueDef *b)
{
	return strcmp(a->name, b->name) == 0 && a->max_running == b->max_running &&
		   a->rate_limit == b->rate_limit && a->per == b->per && a->cluster == b->cluster &&
		   a->change_id == b->change_id && strcmp(a->node, b->node) == 0 &&
		   same_text(a->extra, b->extra);
}

static void
random_any(Kind kind, Any *any)
{
	if (kind == JOB)
		random_job(&any->job);
	else if (kind == STATE)
		random_state_of(&any->state, (int) random_between(0, 5), (int) random_between(0, 5),
						(int) random_between(0, 5));
	else if (kind == NODE)
		random_node(&any->node);
	else if (kind == QUEUE)
		random_queue(&any->queue);
	else
		random_trigger(&any->trigger);
}

static bool
same_any(Kind kind, const Any *a, const Any *b)
{
	if (kind == JOB)
		return same_job(&a->job, &b->job);
	if (kind == STATE)
		return same_state(&a->state, &b->state);
	if (kind == NODE)
		return same_node(&a->node, &b->node);
	if (kind == QUEUE)
		return same_queue(&a->queue, &b->queue);
	return same_trigger(&a->trigger, &b->trigger);
}

static bool
round_trips(Kind kind, const Any *any)
{
	Any again;
	size_t len;
	char *text = encode(kind, any, &len);
	bool same;

	if (text == NULL)
		return false;
	if (!decode(kind, text, len, &again))
	{
		printf("# %s: %s\n", err, text);
		free(text);
		return false;
	}
	free(text);
	same = same_any(kind, any, &again);
	release(kind, &again);
	return same;
}

static void
test_round_trips(void)
{
	static const Kind kinds[] = {JOB, STATE, NODE, TRIGGER, QUEUE};
	size_t k;
	int i;

	for (k = 0; k < 5; k++)
	{
		int failures = 0;

		for (i = 0; i < 2000; i++)
		{
			Any any;

			random_any(kinds[k], &any);
			failures += !round_trips(kinds[k], &any);
			release(kinds[k], &any);
		}
		is_int(failures, 0, "2000 random values of kind %d round trip", kinds[k]);
	}
}

static void
test_full_state(void)
{
	Any any;

	random_state_of(&any.state, CODEC_MAX_ENTRIES, CODEC_MAX_ENTRIES, CODEC_MAX_ENTRIES);
	ok(round_trips(STATE, &any), "a state with all lists full fits and round trips");
	codec_state_free(&any.state);
}

/*
 * WHAT ENCODERS REFUSE
 */

/* Changes a good definition, expects a refusal, and puts it right again. */
#define refuses_job(change, undo, about)                                                           \
	do                                                                                             \
	{                                                                                              \
		change;                                                                                    \
		ok(codec_job_encode(&any.job, NULL) == NULL &&                                             \
			   !codec_job_check(&any.job, err, sizeof(err)) && strstr(err, about) != NULL,         \
		   "not encoded: %s", #change);                                                            \
		undo;                                                                                      \
	} while (0)

static void
test_encode_refuses_job(void)
{
	static char command[CODEC_MAX_COMMAND + 2];
	static char name[300];
	Any any;
	char *keep;

	memset(command, 'x', sizeof(command) - 1);
	memset(name, 'x', sizeof(name) - 1);
	decode(JOB, least[JOB], strlen(least[JOB]), &any);

	refuses_job(any.job.job_id = 0, any.job.job_id = 1, "job_id");
	refuses_job(any.job.run_on = "any", any.job.run_on = NULL, "run_on");
	refuses_job(any.job.run_on = "b=1,a=1", any.job.run_on = NULL, "run_on");
	refuses_job(any.job.run_on = "a=1,", any.job.run_on = NULL, "run_on");
	refuses_job(any.job.run_on = "", any.job.run_on = NULL, "run_on");
	refuses_job(any.job.run_on = "each", any.job.run_on = NULL, "run_on");
	refuses_job(any.job.job_id = CODEC_MAX_INT + 1, any.job.job_id = 1, "job_id");
	refuses_job(any.job.gen = -1, any.job.gen = 1, "gen");
	refuses_job(any.job.gen_rev = INT64_MIN, any.job.gen_rev = 1, "gen_rev");
	refuses_job(any.job.run_at = INT64_MAX, any.job.run_at = 1, "run_at");
	refuses_job(any.job.anchor = INT64_MIN, any.job.anchor = 1, "anchor");
	refuses_job(any.job.slots_from = CODEC_MAX_TIME + 1, any.job.slots_from = 1, "slots_from");
	refuses_job(any.job.slots_from = CODEC_MIN_TIME - 1, any.job.slots_from = 1, "slots_from");
	refuses_job(any.job.max_runs = -1, any.job.max_runs = 0, "max_runs");
	refuses_job(any.job.policy.overlap = (OverlapPolicy) 5, any.job.policy.overlap = OVERLAP_SKIP,
				"overlap");
	refuses_job(any.job.policy.misfire = (MisfirePolicy) -1, any.job.policy.misfire = MISFIRE_LATEST,
				"misfire");
	refuses_job(any.job.policy.misfire_grace = -1, any.job.policy.misfire_grace = 0, "misfire_grace");
	refuses_job(any.job.policy.max_attempts = 0, any.job.policy.max_attempts = 1, "max_attempts");
	refuses_job(any.job.policy.max_attempts = POLICY_MAX_ATTEMPTS + 1, any.job.policy.max_attempts = 1,
				"max_attempts");
	refuses_job(any.job.policy.retry_delay = INT64_MIN, any.job.policy.retry_delay = 0, "retry_delay");
	refuses_job(any.job.policy.retry_delay = 600000001, any.job.policy.retry_delay = 0,
				"retry_max_delay");
	refuses_job(any.job.policy.retry_max_delay = POLICY_MAX_DURATION + 1,
				any.job.policy.retry_max_delay = 0, "retry_max_delay");
	refuses_job(any.job.policy.timeout = -1, any.job.policy.timeout = 0, "timeout");
	refuses_job(any.job.policy.priority = 101, any.job.policy.priority = 0, "priority");
	refuses_job(any.job.policy.deadline = INT64_MAX, any.job.policy.deadline = 0, "deadline");
	refuses_job(any.job.policy.max_failures = -1, any.job.policy.max_failures = 0, "max_failures");
	refuses_job(any.job.policy.max_lost = 0, any.job.policy.max_lost = 3, "max_lost");
	refuses_job(any.job.policy.jitter = POLICY_MAX_DURATION + 1, any.job.policy.jitter = 0, "jitter");
	refuses_job(any.job.queue = (char *) "", any.job.queue = NULL, "queue");
	refuses_job(any.job.queue = name + 299 - 64, any.job.queue = NULL, "queue");
	refuses_job(any.job.extra = (char *) "{\"timeout\":1}", any.job.extra = NULL, "known");
	refuses_job(any.job.extra = (char *) "{\"queue\":\"q\"}", any.job.extra = NULL, "known");
	keep = any.job.command;
	refuses_job(any.job.command = command, any.job.command = keep, "command");
	refuses_job(any.job.command = (char *) "", any.job.command = keep, "command");
	refuses_job(any.job.command = NULL, any.job.command = keep, "command");
	refuses_job(any.job.command = (char *) "\xff", any.job.command = keep, "UTF-8");
	refuses_job(any.job.command = (char *) "\xed\xa0\x80", any.job.command = keep, "UTF-8");
	refuses_job(any.job.command = (char *) "\xc0\x80", any.job.command = keep, "UTF-8");
	refuses_job(any.job.command = (char *) "a\xe2\x82", any.job.command = keep, "UTF-8");
	keep = any.job.username;
	refuses_job(any.job.username = name + 299 - 64, any.job.username = keep, "username");
	keep = any.job.job_name;
	refuses_job(any.job.job_name = name + 299 - 256, any.job.job_name = keep, "job_name");
	refuses_job(any.job.payload = (char *) "{", any.job.payload = NULL, "payload");
	refuses_job(any.job.payload = (char *) "", any.job.payload = NULL, "payload");
	refuses_job(any.job.metadata = (char *) "\"\\u0000\"", any.job.metadata = NULL, "metadata");
	refuses_job(any.job.extra = (char *) "[]", any.job.extra = NULL, "object");
	refuses_job(any.job.extra = (char *) "{\"x\":1}}", any.job.extra = NULL, "JSON");
	refuses_job(any.job.extra = (char *) "{\"x\":1,\"x\":2}", any.job.extra = NULL, "same name");
	refuses_job(any.job.extra = (char *) "{\"job\\u005fid\":1}", any.job.extra = NULL, "known");

	command[CODEC_MAX_COMMAND] = '\0';
	keep = any.job.command;
	any.job.command = command;
	ok(round_trips(JOB, &any), "a command of 256 KiB round trips");
	memset(command, '\n', CODEC_MAX_COMMAND);
	ok(round_trips(JOB, &any), "and one of as many newlines");
	memset(command, '\x01', CODEC_MAX_COMMAND);
	ok(codec_job_check(&any.job, NULL, 0) && codec_job_encode(&any.job, NULL) == NULL,
	   "escaped to six times the length it is too long as a whole");
	any.job.command = keep;
	any.job.extra = (char *) " { } ";
	ok(codec_job_check(&any.job, NULL, 0), "an empty extra");
	keep = codec_job_encode(&any.job, NULL);
	ok(keep != NULL && strstr(keep, "\"node\":\"n\"}") != NULL, "adds nothing");
	free(keep);
	any.job.extra = NULL;
	codec_job_free(&any.job);
}

static void
test_encode_refuses_others(void)
{
	Any any;
	PendingRun run;
	FailingJob failing = {0, 1};

	decode(STATE, least[STATE], strlen(least[STATE]), &any);
	random_run(&run);
	run.slot = 5;
	run.slot_to = 4;
	any.state.pending = &run;
	any.state.npending = 1;
	ok(encode(STATE, &any, NULL) == NULL, "a range that ends before it begins");
	run.slot_to = 5;
	strcpy(run.reason, "a\"b");
	ok(encode(STATE, &any, NULL) == NULL, "a reason with a quote");
	run.reason[0] = '\0';
	run.not_before = INT64_MAX;
	ok(encode(STATE, &any, NULL) == NULL, "never, as not_before");
	run.not_before = 0;
	run.failures = -1;
	ok(encode(STATE, &any, NULL) == NULL, "fewer failures than none");
	run.failures = 0;
	run.lost = -1;
	ok(encode(STATE, &any, NULL) == NULL, "fewer lost attempts than none");
	run.lost = 0;
	any.state.failing = &failing;
	any.state.nfailing = 1;
	ok(encode(STATE, &any, NULL) == NULL, "a failing job of no id");
	failing.job_id = 1;
	failing.failures = -1;
	ok(encode(STATE, &any, NULL) == NULL, "a job that failed less than never");
	failing.failures = 1;
	any.state.nfailing = CODEC_MAX_ENTRIES + 1;
	ok(encode(STATE, &any, NULL) == NULL, "too many failing jobs");
	any.state.nfailing = 0;
	any.state.failing = NULL;
	any.state.watermark = INT64_MIN;
	ok(encode(STATE, &any, NULL) == NULL, "a watermark of -infinity");
	any.state.watermark = 0;
	any.state.npending = CODEC_MAX_ENTRIES + 1;
	ok(encode(STATE, &any, NULL) == NULL, "too many entries");
	any.state.npending = -1;
	ok(encode(STATE, &any, NULL) == NULL, "fewer than none");

	decode(NODE, least[NODE], strlen(least[NODE]), &any);
	any.node.lease = 0;
	ok(encode(NODE, &any, NULL) == NULL, "no lease");
	any.node.lease = 1;
	any.node.labels = (char *) "[1]";
	ok(encode(NODE, &any, NULL) == NULL, "labels that are no object");

	decode(CONFIG, least[CONFIG], strlen(least[CONFIG]), &any);
	any.config.partitions = 1001;
	ok(encode(CONFIG, &any, NULL) == NULL, "too many partitions");
}

/*
 * HOSTILE TEXTS
 */

static void
test_encode_refuses_queue(void)
{
	static const char *const extras[] = {"[]", "{", "{\"per\":1}", "{\"a\":1,\"a\":2}", "{} {}"};
	Any any;
	size_t i;

	ok(decode(QUEUE, full[QUEUE], strlen(full[QUEUE]), &any), "a queue");
	is_str(any.queue.extra, "{\"burst\":[1.50,{\"a\" : null}]}", "what is not known of it is kept");
	is_int(any.queue.per, POLICY_MAX_DURATION, "its period");
	codec_queue_free(&any.queue);

	ok(decode(QUEUE, least[QUEUE], strlen(least[QUEUE]), &any), "the least queue");
	ok(!any.queue.cluster && any.queue.rate_limit == 0 && any.queue.per == 0 && any.queue.extra == NULL,
	   "has nothing more");
	any.queue.per = 1000;
	ok(codec_queue_encode(&any.queue, NULL) == NULL, "a period without a rate");
	any.queue.per = any.queue.max_running = 0;
	ok(codec_queue_encode(&any.queue, NULL) == NULL, "no limit at all");
	any.queue.max_running = 1;
	for (i = 0; i < sizeof(extras) / sizeof(extras[0]); i++)
	{
		any.queue.extra = (char *) extras[i];
		ok(codec_queue_encode(&any.queue, NULL) == NULL && !codec_queue_check(&any.queue, err, sizeof(err)),
		   "extra fields %s: %s", extras[i], err);
	}
}

static void
test_not_json(void)
{
	static const char *const bad[] = {"",
									  " ",
									  "{",
									  "}",
									  "[",
									  "]",
									  "{]",
									  "[}",
									  "{}{}",
									  "{} x",
									  "null",
									  "true",
									  "1",
									  "\"x\"",
									  "[]",
									  "{}",
									  "nul",
									  "{\"a\"}",
									  "{\"a\":}",
									  "{\"a\":1,}",
									  "{,}",
									  "{a:1}",
									  "{'a':1}",
									  "{\"a\" 1}",
									  "{\"a\":01}",
									  "{\"a\":+1}",
									  "{\"a\":.5}",
									  "{\"a\":1.}",
									  "{\"a\":1e}",
									  "{\"a\":-}",
									  "{\"a\":0x10}",
									  "{\"a\":NaN}",
									  "{\"a\":Infinity}",
									  "{\"a\":1 2}",
									  "{\"a\":[1,]}",
									  "{\"a\":\"\t\"}",
									  "{\"a\":\"\\x\"}",
									  "{\"a\":\"\\u12\"}",
									  "{\"a\":\"\\u0000\"}",
									  "{\"a\":\"\\ud800\"}",
									  "{\"a\":\"\\ud800\\u0041\"}",
									  "{\"a\":\"\\udc00\"}",
									  "{\"a\":\"\\ud800\\ud800\"}",
									  "{\"a\":\"\x80\"}",
									  "{\"a\":\"\xc0\xaf\"}",
									  "{\"a\":\"\xe0\x80\x80\"}",
									  "{\"a\":\"\xed\xa0\x80\"}",
									  "{\"a\":\"\xf4\x90\x80\x80\"}",
									  "{\"a\":\"\xf8\x88\x80\x80\x80\"}",
									  "{\"a\":\"\xe2\x82\"}",
									  "\xef\xbb\xbf{}",
									  "{\"\\u0000\":1}",
									  "/**/{}",
									  "{\"a\":tru}",
									  "{\"a\":truex}",
									  "{\"format\":1}"};
	static const char behind[] = "{\"format\":1,\"partitions\":1,\"incarnation\":\"x\"}";
	static const char inside[] = "{\"format\":1,\"partitions\":1,\"incarnation\":\"\0\"}";
	size_t i;
	int kind;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		bool all = true;

		for (kind = 0; kind < KINDS; kind++)
			all = all && refuses(kind, bad[i], strlen(bad[i]));
		ok(all, "no kind takes case %zu: %s", i, err);
	}
	ok(refuses(CONFIG, behind, sizeof(behind)) && strstr(err, "end") != NULL, "a NUL behind: %s",
	   err);
	ok(refuses(CONFIG, inside, sizeof(inside) - 1) && strstr(err, "control") != NULL,
	   "a NUL inside: %s", err);
}

/* A member of a good text is replaced by something else. */
static bool
refuses_member(Kind kind, const char *name, const char *value)
{
	char text[4096];
	char quoted[64];
	const char *start;
	const char *end;
	int depth = 0;
	bool in_string = false;

	snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	start = strstr(full[kind], quoted);
	if (start == NULL)
		return false;
	start += strlen(quoted);
	for (end = start; in_string || depth > 0 || (*end != ',' && *end != '}'); end++)
	{
		if (*end == '\\')
			end++;
		else if (*end == '"')
			in_string = !in_string;
		else if (!in_string && (*end == '[' || *end == '{'))
			depth++;
		else if (!in_string && (*end == ']' || *end == '}'))
			depth--;
	}
	snprintf(text, sizeof(text), "%.*s%s%s", (int) (start - full[kind]), full[kind], value, end);
	return refuses(kind, text, strlen(text));
}

static void
test_wrong_members(void)
{
	static const struct
	{
		Kind kind;
		const char *name;
		const char *values[12];
	} cases[] = {
		{JOB, "format", {"0", "2", "\"1\"", "null", "1.5", "true", "[1]", "-1", "1e300"}},
		{JOB,
		 "job_id",
		 {"0", "-1", "9007199254740992", "9007199254740993", "1.5", "1e999", "-1e999", "\"1\"",
		  "null", "true", "{}", "99999999999999999999999999999999999999"}},
		{JOB, "username", {"\"\"", "1", "null", "[\"a\"]"}},
		{JOB, "job_name", {"\"\"", "1", "null", "{}"}},
		{JOB, "schedule", {"\"\"", "1", "false", "null"}},
		{JOB, "command", {"\"\"", "1", "null"}},
		{JOB, "time_zone", {"\"\"", "1"}},
		{JOB,
		 "starts_at",
		 {"\"2020-01-01\"", "1.5", "9007199254740992", "-9007199254740992", "1e300"}},
		{JOB, "max_runs", {"-1", "2147483648", "\"1\""}},
		{JOB, "overlap", {"\"\"", "\"Skip\"", "\"latest\"", "\"queue\"", "1", "[]", "true"}},
		{JOB, "misfire", {"\"\"", "\"ALL\"", "\"queue_one\"", "0", "{}"}},
		{JOB, "misfire_grace", {"-1", "31622400000001", "\"1\"", "1.5", "1e300"}},
		{JOB, "max_attempts", {"0", "101", "-1", "\"1\"", "9007199254740991"}},
		{JOB, "retry_delay", {"-1", "31622400000001", "false"}},
		{JOB, "retry_max_delay", {"-1", "4999999", "31622400000001"}},
		{JOB, "timeout", {"-1", "31622400000001", "[1]"}},
		{JOB, "priority", {"-101", "101", "\"1\"", "0.5"}},
		{JOB, "deadline", {"-1", "1e17"}},
		{JOB, "max_failures", {"-1", "1000001"}},
		{JOB, "max_lost", {"0", "-1", "1000001"}},
		{JOB, "jitter", {"-1", "31622400000001"}},
		{JOB, "queue", {"\"\"", "1", "\"\\u0000\"", "[\"a\"]"}},
		{JOB, "active", {"1", "\"true\"", "null"}},
		{JOB, "payload", {"{\"a\":1}", "\"{\"", "\"\"", "1"}},
		{JOB, "metadata", {"\"nul\"", "\"[1,]\"", "\"\\\"\\\\u0000\\\"\""}},
		{JOB, "anchor", {"null", "\"0\"", "9007199254740992"}},
		{JOB, "gen", {"null", "-1"}},
		{JOB, "slots_from", {"null", "true"}},
		{JOB, "gen_rev", {"null", "0.5"}},
		{JOB, "change_id", {"null", "-1", "9007199254740992"}},
		{JOB, "node", {"null", "\"\"", "1"}},
		{JOB, "closed_reason", {"1", "false"}},
		{STATE, "node", {"\"\"", "null", "7"}},
		{STATE, "epoch", {"-1", "\"5\"", "null"}},
		{STATE, "watermark", {"null", "\"-infinity\"", "1e17"}},
		{STATE, "watermark_job", {"null", "-1", "9007199254740992"}},
		{STATE,
		 "pending",
		 {"null", "{}", "1", "[1]", "[null]", "[[]]", "[{}]", "[{\"j\":1,\"g\":1}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"j\":1}]", "[{\"j\":1,\"g\":1,\"s\":\"1\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":2,\"e\":1}]", "[{\"j\":1,\"g\":1,\"s\":1,\"l\":7}]"}},
		{STATE,
		 "done",
		 {"null", "\"\"", "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\"x\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\"\"}]", "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\" 1\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\"+1\"}]", "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\"01\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"l\":\"9223372036854775808\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"r\":\"aaaaaaaaaaaaaaaa\"}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"r\":\"A\"}]", "[{\"j\":1,\"g\":1,\"s\":1,\"a\":-1}]",
		  "[{\"j\":1,\"g\":1,\"s\":1,\"t\":-1}]"}},
		{STATE,
		 "failing",
		 {"{}", "1", "[1]", "[null]", "[{}]", "[{\"j\":1}]", "[{\"n\":1}]", "[{\"j\":0,\"n\":1}]",
		  "[{\"j\":1,\"n\":-1}]", "[{\"j\":1,\"n\":2147483648}]", "[{\"j\":1,\"n\":1,\"n\":1}]",
		  "[{\"j\":1,\"n\":\"1\"}]"}},
		{STATE, "clean", {"null", "1"}},
		{NODE, "port", {"65536", "-1", "\"5432\""}},
		{NODE, "labels", {"[]", "\"a\"", "1"}},
		{NODE, "version", {"\"12345678901234567890123456789012\"", "1"}},
		{NODE, "lease", {"\"0\"", "1", "null", "\"0x1\"", "\"1 \""}},
		{NODE, "system_identifier", {"\"-1\"", "\"18446744073709551616\"", "1", "null"}},
		{NODE, "boot_id", {"\"\"", "null"}},
		{NODE, "wall_clock", {"null", "1e16"}},
		{CONFIG, "partitions", {"0", "1001", "64.5", "\"64\"", "null", "-64"}},
		{CONFIG,
		 "incarnation",
		 {"\"\"", "\"a b\"", "null", "\"1234567890123456789012345678901234567890\""}},
		{TRIGGER, "trigger_id", {"0", "null"}},
		{TRIGGER, "requested_by", {"\"\"", "null"}},
		{TRIGGER, "requested_at", {"null", "\"now\""}},
		{QUEUE, "format", {"0", "2", "null"}},
		{QUEUE,
		 "name",
		 {"\"\"", "1", "null", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""}},
		{QUEUE, "max_running", {"0", "-1", "10001", "1.5", "\"1\"", "true"}},
		{QUEUE, "rate_limit", {"null", "0", "-1", "1000001", "\"1\"", "1e300"}},
		{QUEUE, "per", {"null", "0", "-1", "999", "31622400000001", "\"1 second\""}},
		{QUEUE, "scope", {"null", "\"\"", "\"Cluster\"", "\"instances\"", "1"}},
		{QUEUE, "change_id", {"null", "-1", "9007199254740992"}},
		{QUEUE, "node", {"null", "\"\"", "1"}}};
	size_t i;
	size_t v;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		for (v = 0; v < 12 && cases[i].values[v] != NULL; v++)
			ok(refuses_member(cases[i].kind, cases[i].name, cases[i].values[v]),
			   "refused: %s %s (%s)", cases[i].name, cases[i].values[v], err);
	}
	ok(refuses_member(STATE, "pending", "[{\"j\":1,\"g\":1,\"s\":1,\"f\":-1}]"), "fewer failures than none");
	ok(refuses_member(STATE, "pending", "[{\"j\":1,\"g\":1,\"s\":1,\"x\":2147483648}]"), "too many lost attempts");
	ok(refuses_member(STATE, "pending", "[{\"j\":1,\"g\":1,\"s\":1,\"h\":true}]"), "handed over by nobody");
	ok(refuses_member(COMMAND, "session", "\"0\""), "a command to nobody");
	ok(refuses_member(OUTCOME, "session", "\"-1\""), "an outcome of nobody");
	ok(refuses_member(OUTCOME, "status", "\"\""), "an outcome without a status");
	ok(refuses_member(OUTCOME, "status", "\"Lost\""), "one that is no word");
	ok(refuses_member(OUTCOME, "sqlstate", "\"57P012\""), "a long SQLSTATE");
	ok(refuses_member(JOB, "schedule", "\"x\",\"run_at\":1"), "a schedule and a time");
	ok(refuses_member(JOB, "gen", "1,\"gen\":1"), "a known field twice");
	ok(refuses_member(JOB, "new", "1,\"\\u006eew\":1"), "an unknown field twice, once escaped");
}

/* Cut at every byte; and every byte changed. */
static void
test_damaged(void)
{
	int kind;

	for (kind = 0; kind < KINDS; kind++)
	{
		size_t len = strlen(full[kind]);
		int believed = 0;
		int survived = 0;
		size_t i;
		int n;

		for (i = 0; i < len; i++)
			believed += !refuses(kind, full[kind], i);
		is_int(believed, 0, "kind %d: refused when cut at any of %zu bytes", kind, len);

		for (n = 0; n < 20000; n++)
		{
			char *text = exact_copy(full[kind], len);
			int changes = (int) random_between(1, 3);
			Any any;

			while (changes-- > 0)
				text[random_bits() % len] = random_bits() % 2
												? (char) random_bits()
												: "{}[]\",:0eE-.\\ul"[random_bits() % 15];
			if (decode(kind, text, len, &any))
			{
				char *again = encode(kind, &any, NULL);

				/* whatever is believed can be written */
				survived += again == NULL;
				free(again);
				release(kind, &any);
			}
			free(text);
		}
		is_int(survived, 0, "kind %d: what is believed of 20000 damaged texts can be written",
			   kind);
	}
}

/* A definition with a member "x" made of count times a piece between two ends. */
static char *
job_with(const char *begin, const char *piece, size_t count, const char *end, size_t *len)
{
	size_t piece_len = strlen(piece);
	char *text = malloc(strlen(least[JOB]) + strlen(begin) + count * piece_len + strlen(end) + 3);
	char *p = text;
	size_t i;

	p += sprintf(p, "%.*s,%s", (int) strlen(least[JOB]) - 1, least[JOB], begin);
	for (i = 0; i < count; i++, p += piece_len)
		memcpy(p, piece, piece_len);
	p += sprintf(p, "%s}", end);
	*len = (size_t) (p - text);
	return text;
}

static void
check_large(const char *begin, const char *piece, size_t count, const char *end, bool good,
			const char *what)
{
	size_t len;
	char *text = job_with(begin, piece, count, end, &len);
	Any any;

	if (good)
	{
		ok(decode(JOB, text, len, &any), "accepted: %s", what);
		codec_job_free(&any.job);
	}
	else
		ok(refuses(JOB, text, len), "refused: %s (%s)", what, err);
	free(text);
}

static void
test_large(void)
{
	char deep[CODEC_MAX_DEPTH + 1];

	check_large("\"x\":\"", "a", 1000000, "\"", true, "a megabyte");
	check_large("\"x\":\"", "a", 2000000, "\"", false, "two megabytes");
	check_large("\"x\":", "[", 500000, "", false, "half a million brackets");
	check_large("\"x\":", "{\"a\":", 100000, "", false, "100000 braces");
	check_large("\"x\":[1", ",1", 65000, "]", true, "65000 items");
	check_large("\"x\":[1", ",1", 66000, "]", false, "66000 items");
	check_large("\"x\":[[]", ",[]", 300000, "]", false, "300000 empty arrays");
	check_large("\"x\":1", ",\"y\":1", 200, "", false, "200 members");
	check_large("\"x\":{\"y\":1", ",\"y\":1", 200, "}", true,
				"200 members inside what is not ours");
	check_large("\"x\":", "1", 64, "", false, "a number of 64 digits");
	check_large("\"x\":", "1", 63, "", true, "a number of 63 digits");
	check_large(" ", " ", 900000, "\"x\":1", true, "a lot of white space");

	memset(deep, ']', sizeof(deep));
	deep[CODEC_MAX_DEPTH - 1] = '\0';
	check_large("\"x\":", "[", CODEC_MAX_DEPTH - 1, deep, true, "64 levels");
	deep[CODEC_MAX_DEPTH - 1] = ']';
	deep[CODEC_MAX_DEPTH] = '\0';
	check_large("\"x\":", "[", CODEC_MAX_DEPTH, deep, false, "65 levels");
}

static void
test_large_state(void)
{
	static const char begin[] =
		"{\"format\":1,\"node\":\"n\",\"epoch\":0,\"seq\":0,\"jobrev\":0,\"watermark\":0,"
		"\"watermark_job\":0,\"clean\":true,\"done\":[],\"pending\":[";
	char *text = malloc(200000);
	int count;

	for (count = CODEC_MAX_ENTRIES; count <= CODEC_MAX_ENTRIES + 1; count++)
	{
		char *p = text + sprintf(text, "%s", begin);
		Any any;
		int i;

		for (i = 0; i < count; i++)
			p += sprintf(p, "%s{\"j\":1,\"g\":1,\"s\":%d}", i > 0 ? "," : "", i);
		p += sprintf(p, "]}");
		if (count == CODEC_MAX_ENTRIES)
		{
			ok(decode(STATE, text, (size_t) (p - text), &any), "a list of %d entries", count);
			codec_state_free(&any.state);
		}
		else
			ok(refuses(STATE, text, (size_t) (p - text)), "a list of %d entries (%s)", count, err);
	}
	free(text);
}

static void
test_large_failing(void)
{
	static const char begin[] =
		"{\"format\":1,\"node\":\"n\",\"epoch\":0,\"seq\":0,\"jobrev\":0,\"watermark\":0,"
		"\"watermark_job\":0,\"clean\":true,\"done\":[],\"pending\":[],\"failing\":[";
	char *text = malloc(200000);
	int count;

	for (count = CODEC_MAX_ENTRIES; count <= CODEC_MAX_ENTRIES + 1; count++)
	{
		char *p = text + sprintf(text, "%s", begin);
		Any any;
		int i;

		for (i = 0; i < count; i++)
			p += sprintf(p, "%s{\"j\":%d,\"n\":1}", i > 0 ? "," : "", i + 1);
		p += sprintf(p, "]}");
		if (count == CODEC_MAX_ENTRIES)
		{
			ok(decode(STATE, text, (size_t) (p - text), &any), "%d failing jobs", count);
			is_int(any.state.nfailing, count, "all are there");
			codec_state_free(&any.state);
		}
		else
			ok(refuses(STATE, text, (size_t) (p - text)), "%d failing jobs (%s)", count, err);
	}
	free(text);
}

int
main(void)
{
	random_begin();
	test_exact_formats();
	test_job_values();
	test_other_values();
	test_trigger_kinds();
	test_lenient();
	test_round_trips();
	test_full_state();
	test_encode_refuses_job();
	test_encode_refuses_others();
	test_encode_refuses_queue();
	test_not_json();
	test_wrong_members();
	test_damaged();
	test_large();
	test_large_state();
	test_large_failing();
	return done();
}
