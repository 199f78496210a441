/*
 * test_keys.c
 *	  Keys: the pinned hash, encoding, building, parsing, and keys that nobody should believe.
 */
#include "core/keys.h"
#include "random.h"
#include "tap.h"

static void
test_hash(void)
{
	unsigned char bytes[256];
	char role[64];
	char name[256];
	int i;

	for (i = 0; i < 256; i++)
		bytes[i] = (unsigned char) i;
	memset(role, 'r', 63);
	role[63] = '\0';
	memset(name, 'n', 255);
	name[255] = '\0';

	/* Never change these: they are where the jobs of existing clusters live. */
	ok(keys_hash("", 0, 0) == UINT64_C(0xefd01f60ba992926), "hash of nothing");
	ok(keys_hash("a", 1, 0) == UINT64_C(0x82a2a958a9bece5b), "hash of a");
	ok(keys_hash("foobar", 6, 0) == UINT64_C(0x2c22194922d1672b), "hash of foobar");
	ok(keys_hash("foobar", 6, 1) == UINT64_C(0xc14c15fff00885ff), "hash with a seed");
	ok(keys_hash(bytes, 256, 0xdeadbeef) == UINT64_C(0x15ef9ad9bbb3cf8e), "hash of all bytes");
	is_int(keys_partition("postgres", "vacuum", 64), 57, "partition of postgres, vacuum");
	is_int(keys_partition("postgres", "vacuum", 1000), 561, "the same of 1000");
	is_int(keys_partition("postgres", "vacuum", 1), 0, "the same of 1");
	is_int(keys_partition("a", "bc", 64), 7, "partition of a, bc");
	is_int(keys_partition("ab", "c", 64), 29, "partition of ab, c");
	is_int(keys_partition("app",
						  "F\xc3\xbc\xc3\x9f"
						  "e/t\xc3\xa4glich",
						  64),
		   6, "partition of a UTF-8 name");
	is_int(keys_partition("etl", "nightly 100%", 64), 42, "partition of a name with blank and %%");
	is_int(keys_partition(role, name, 64), 30, "partition of the longest names");
}

static void
test_spread(void)
{
	int count[64] = {0};
	int least = 10000;
	int most = 0;
	int i;

	for (i = 0; i < 6400; i++)
	{
		char name[32];

		snprintf(name, sizeof(name), "job_%d", i);
		count[keys_partition("postgres", name, 64)]++;
	}
	for (i = 0; i < 64; i++)
	{
		least = count[i] < least ? count[i] : least;
		most = count[i] > most ? count[i] : most;
	}
	ok(least > 60 && most < 140, "6400 similar names over 64 partitions: %d to %d", least, most);
}

static void
test_encode(void)
{
	char out[KEYS_MAX_LEN];
	char small[7];

	ok(keys_encode("AZaz09-_.~", out, sizeof(out)), "unreserved bytes");
	is_str(out, "AZaz09-_.~", "stand for themselves");
	ok(keys_encode("a/b %\xc3\xbc\x01\x7f+", out, sizeof(out)), "other bytes");
	is_str(out, "a%2Fb%20%25%C3%BC%01%7F%2B", "are escaped");
	ok(keys_encode("..", out, sizeof(out)) && strcmp(out, "..") == 0, "dots are not special");
	ok(keys_encode("", out, sizeof(out)) && out[0] == '\0', "nothing");
	ok(keys_encode("/abc", small, sizeof(small)), "what just fits");
	ok(!keys_encode("//a", small, sizeof(small)) && small[0] == '\0', "one byte too many");
	ok(!keys_encode("", small, 0), "no room at all");
}

static void
test_decode(void)
{
	static const char *const bad[] = {"%",	  "%4",	  "%4g", "%zz",		 "a%2", "%2f", "%41",
									  "%7E",  "%00",  "a b", "\xc3\xbc", "a+",	"a/b", "%%25",
									  "%2F%", "\x01", "a%0", "%-1",		 "% 1", "a\n"};
	char out[8];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!keys_decode(bad[i], out, sizeof(out)) && out[0] == '\0', "refused: case %zu", i);
	ok(keys_decode("a%2Fb%C3%BC", out, sizeof(out)), "a good one");
	is_str(out, "a/b\xc3\xbc", "comes out");
	ok(keys_decode("%2F%2Fabcde", out, sizeof(out)), "what just fits");
	ok(!keys_decode("%2F%2Fabcdef", out, sizeof(out)), "one byte too many");
	ok(!keys_decode("", out, 0), "no room at all");
}

static void
random_name(char *name)
{
	int len = (int) random_between(1, KEYS_MAX_NAME);
	int i;

	/* a third are as long as possible, a third are plain text */
	if (random_bits() % 3 == 0)
		len = KEYS_MAX_NAME;
	if (random_bits() % 3 == 0)
	{
		for (i = 0; i < len; i++)
			name[i] = "abcxyz019-_.~/% "[random_bits() % 16];
	}
	else
	{
		for (i = 0; i < len; i++)
			name[i] = (char) random_between(1, 255);
	}
	name[len] = '\0';
}

static void
test_round_trips(void)
{
	int failures = 0;
	int i;

	for (i = 0; i < 20000; i++)
	{
		char name[KEYS_MAX_NAME + 1];
		char encoded[KEYS_MAX_ENCODED + 1];
		char decoded[KEYS_MAX_NAME + 1];

		random_name(name);
		if (!keys_encode(name, encoded, sizeof(encoded)) || strchr(encoded, '/') != NULL ||
			!keys_decode(encoded, decoded, sizeof(decoded)) || strcmp(name, decoded) != 0)
			failures++;
	}
	is_int(failures, 0, "20000 random names round trip");
}

static void
test_builders(void)
{
	char key[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	ok(keys_config(key, "c/1"), "config");
	is_str(key, "/dsched/c%2F1/config", "config");
	ok(keys_recovery(key, "c/1"), "recovery");
	is_str(key, "/dsched/c%2F1/recovery", "recovery");
	ok(keys_former(key, "c/1", "d/1"), "former");
	is_str(key, "/dsched/c%2F1/former/d%2F1", "former");
	ok(keys_node(key, "c", "pg 1"), "node");
	is_str(key, "/dsched/c/node/pg%201", "node");
	ok(keys_member(key, "c", "d", "n"), "member");
	is_str(key, "/dsched/c/db/d/member/n", "member");
	ok(keys_job(key, "c", "d", 7, "r/1", "n%"), "job");
	is_str(key, "/dsched/c/db/d/job/007/r%2F1/n%25", "job");
	ok(keys_jobrev(key, "c", "d", 0), "jobrev");
	is_str(key, "/dsched/c/db/d/jobrev/000", "jobrev");
	ok(keys_trigger(key, "c", "d", 63, KEYS_MAX_ID), "trigger");
	is_str(key, "/dsched/c/db/d/trigger/063/9007199254740991", "trigger");
	ok(keys_owner(key, "c", "d", "any", 999), "owner");
	is_str(key, "/dsched/c/db/d/owner/any/999", "owner");
	ok(keys_state(key, "c", "d", "any", 12), "state");
	is_str(key, "/dsched/c/db/d/state/any/012", "state");
	ok(keys_state(key, "c", "d", "disk!=hdd,region=eu", 3), "state of a selector's partition");
	is_str(key, "/dsched/c/db/d/state/disk%21%3Dhdd%2Cregion%3Deu/003", "state of a selector's partition");
	ok(!keys_owner(key, "c", "d", "", 3) && key[0] == '\0', "no place");
	ok(keys_queue(key, "c", "d", "mail/1"), "queue");
	is_str(key, "/dsched/c/db/d/queue/mail%2F1", "queue");
	ok(keys_queuerev(key, "c", "d"), "queuerev");
	is_str(key, "/dsched/c/db/d/queuerev", "queuerev");

	{
		RunName run = {"any", 5, 17, 1795241309000000, 0, 1};

		ok(keys_command(key, "c", "d", &run), "command");
		is_str(key, "/dsched/c/db/d/cmd/any/005/17/1795241309000000/0/1", "command");
		run.slot = -1;
		run.trigger_id = KEYS_MAX_ID;
		run.attempt = INT32_MAX;
		ok(keys_outcome(key, "c", "d", &run), "outcome");
		is_str(key, "/dsched/c/db/d/outcome/any/005/17/-1/9007199254740991/2147483647", "outcome");
		run.trigger_id = -1;
		ok(!keys_outcome(key, "c", "d", &run) && key[0] == '\0', "a trigger below 0");
		run.trigger_id = 0;
		run.attempt = 0;
		ok(!keys_outcome(key, "c", "d", &run), "attempt 0");
		run.attempt = 1;
		run.slot = -KEYS_MAX_ID - 1;
		ok(!keys_command(key, "c", "d", &run), "a slot too early");
	}

	ok(keys_node_prefix(key, "c"), "node prefix");
	is_str(key, "/dsched/c/node/", "node prefix");
	ok(keys_member_prefix(key, "c", "d"), "member prefix");
	is_str(key, "/dsched/c/db/d/member/", "member prefix");
	ok(keys_job_prefix(key, "c", "d"), "job prefix");
	is_str(key, "/dsched/c/db/d/job/", "job prefix");
	ok(keys_job_partition_prefix(key, "c", "d", 5), "job partition prefix");
	is_str(key, "/dsched/c/db/d/job/005/", "job partition prefix");
	ok(keys_trigger_prefix(key, "c", "d"), "trigger prefix");
	is_str(key, "/dsched/c/db/d/trigger/", "trigger prefix");
	ok(keys_trigger_partition_prefix(key, "c", "d", 5), "trigger partition prefix");
	is_str(key, "/dsched/c/db/d/trigger/005/", "trigger partition prefix");
	ok(keys_owner_prefix(key, "c", "d"), "owner prefix");
	is_str(key, "/dsched/c/db/d/owner/", "owner prefix");
	ok(keys_state_prefix(key, "c", "d"), "state prefix");
	is_str(key, "/dsched/c/db/d/state/", "state prefix");

	ok(keys_prefix_end("/dsched/c/node/", end), "end of a prefix");
	is_str(end, "/dsched/c/node0", "end of a prefix");
	ok(keys_prefix_end("a\xff\xff", end) && strcmp(end, "b") == 0, "bytes without a successor");
	ok(!keys_prefix_end("\xff", end), "no end");
	ok(!keys_prefix_end("", end), "no prefix");
}

static void
test_definition_range(void)
{
	char start[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];
	char key[KEYS_MAX_LEN];

	ok(keys_definition_range(start, end, "c", "d"), "definition range");
	is_str(start, "/dsched/c/db/d/job/", "its start");
	is_str(end, "/dsched/c/db/d/jobrev0", "its end");
	keys_job(key, "c", "d", 0, "\x01", "\x01");
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has the first job");
	keys_job(key, "c", "d", 999, "~~", "~~");
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has the last job");
	keys_jobrev(key, "c", "d", 999);
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has the last jobrev");
	keys_member(key, "c", "d", "n");
	ok(!(strcmp(key, start) >= 0 && strcmp(key, end) < 0), "has no member");
	keys_owner(key, "c", "d", "any", 0);
	ok(!(strcmp(key, start) >= 0 && strcmp(key, end) < 0), "has no owner");

	ok(keys_queue_range(start, end, "c", "d"), "queue range");
	is_str(start, "/dsched/c/db/d/queue/", "its start");
	keys_queue(key, "c", "d", "\x01");
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has the first queue");
	keys_queue(key, "c", "d", "~~");
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has the last queue");
	keys_queuerev(key, "c", "d");
	ok(strcmp(key, start) >= 0 && strcmp(key, end) < 0, "has queuerev");
	keys_owner(key, "c", "d", "any", 999);
	ok(!(strcmp(key, start) >= 0 && strcmp(key, end) < 0), "has no owner");
	keys_state(key, "c", "d", "any", 0);
	ok(!(strcmp(key, start) >= 0 && strcmp(key, end) < 0), "has no state");
}

static void
test_builders_refuse(void)
{
	char key[KEYS_MAX_LEN];
	char longest[KEYS_MAX_NAME + 1];
	char too_long[KEYS_MAX_NAME + 2];

	memset(longest, '/', KEYS_MAX_NAME);
	longest[KEYS_MAX_NAME] = '\0';
	memset(too_long, 'x', KEYS_MAX_NAME + 1);
	too_long[KEYS_MAX_NAME + 1] = '\0';

	ok(keys_job(key, longest, longest, 999, longest, longest), "the longest key");
	is_int((int64_t) strlen(key) + 1, KEYS_MAX_LEN, "fills the buffer exactly");
	ok(!keys_job(key, "c", "d", 1, "r", too_long) && key[0] == '\0', "a name too long");
	ok(!keys_job(key, "c", "d", 1, "", "n") && key[0] == '\0', "an empty role");
	ok(!keys_config(key, "") && key[0] == '\0', "an empty cluster");
	ok(!keys_member_prefix(key, "c", "") && key[0] == '\0', "an empty database");
	ok(!keys_queue(key, "c", "d", "") && key[0] == '\0', "an empty queue");
	ok(!keys_queue(key, "c", "d", too_long) && key[0] == '\0', "a queue's name too long");
	ok(!keys_owner(key, "c", "d", "any", -1) && key[0] == '\0', "a partition below 0");
	ok(!keys_owner(key, "c", "d", "any", 1000) && key[0] == '\0', "a partition of four digits");
	ok(!keys_trigger(key, "c", "d", 1, 0) && key[0] == '\0', "id 0");
	ok(!keys_trigger(key, "c", "d", 1, KEYS_MAX_ID + 1) && key[0] == '\0', "an id too large");
}

static void
test_parse(void)
{
	KeyParts parts;

	ok(keys_parse("c/1", "/dsched/c%2F1/config", &parts) && parts.kind == KEY_CONFIG, "config");
	ok(keys_parse("c/1", "/dsched/c%2F1/recovery", &parts) && parts.kind == KEY_RECOVERY, "recovery");
	ok(keys_parse("c/1", "/dsched/c%2F1/former/d%2F1", &parts) && parts.kind == KEY_FORMER, "former");
	is_str(parts.database, "d/1", "its database");
	ok(!keys_parse("c/1", "/dsched/c%2F1/former/", &parts), "former without a database");
	ok(keys_parse("c", "/dsched/c/node/pg%201", &parts) && parts.kind == KEY_NODE, "node");
	is_str(parts.node, "pg 1", "its node");
	is_int(parts.partition, -1, "no partition");
	ok(keys_parse("c", "/dsched/c/db/d/member/n", &parts) && parts.kind == KEY_MEMBER, "member");
	is_str(parts.database, "d", "its database");
	is_str(parts.node, "n", "its node");
	ok(keys_parse("c", "/dsched/c/db/d/job/007/r%2F1/n%25", &parts) && parts.kind == KEY_JOB,
	   "job");
	is_str(parts.role, "r/1", "its role");
	is_str(parts.name, "n%", "its name");
	is_int(parts.partition, 7, "its partition");
	ok(keys_parse("c", "/dsched/c/db/d/jobrev/000", &parts) && parts.kind == KEY_JOBREV, "jobrev");
	ok(keys_parse("c", "/dsched/c/db/d/trigger/063/9007199254740991", &parts) &&
		   parts.kind == KEY_TRIGGER,
	   "trigger");
	is_int(parts.id, KEYS_MAX_ID, "its id");
	ok(keys_parse("c", "/dsched/c/db/d/owner/any/999", &parts) && parts.kind == KEY_OWNER, "owner");
	is_int(parts.partition, 999, "its partition");
	is_str(parts.place, "any", "its place");
	ok(keys_parse("c", "/dsched/c/db/d/state/any/012", &parts) && parts.kind == KEY_STATE, "state");
	ok(keys_parse("c", "/dsched/c/db/d/owner/disk%21%3Dhdd%2Cregion%3Deu/003", &parts) && parts.kind == KEY_OWNER,
	   "owner of a selector's partition");
	is_str(parts.place, "disk!=hdd,region=eu", "its place");
	is_int(parts.partition, 3, "its partition");
	ok(keys_parse("c", "/dsched/c/db/d/queue/mail%2F1", &parts) && parts.kind == KEY_QUEUE, "queue");
	is_str(parts.name, "mail/1", "its name");
	ok(keys_parse("c", "/dsched/c/db/d/queuerev", &parts) && parts.kind == KEY_QUEUEREV, "queuerev");
	ok(keys_parse("c", "/dsched/c/db/d/cmd/any/005/17/1795241309000000/0/1", &parts) && parts.kind == KEY_COMMAND,
	   "command");
	ok(parts.run.partition == 5 && parts.run.job_id == 17 && parts.run.slot == 1795241309000000 &&
		   parts.run.trigger_id == 0 && parts.run.attempt == 1,
	   "its parts");
	ok(keys_parse("c", "/dsched/c/db/d/outcome/any/005/17/-1/9/2147483647", &parts) && parts.kind == KEY_OUTCOME,
	   "outcome");
	ok(parts.run.slot == -1 && parts.run.trigger_id == 9 && parts.run.attempt == INT32_MAX, "its parts");
}

static void
test_parse_hostile(void)
{
	static const char *const bad[] = {"",
									  "/",
									  "dsched/c/config",
									  "/dsched",
									  "/dsched/",
									  "/dsched//config",
									  "/dsched/c",
									  "/dsched/c/",
									  "/dsched/c/confi",
									  "/dsched/c/config/",
									  "/dsched/c/configs",
									  "/dsched/C/config",
									  "/dsched/c2/config",
									  "/dsched/%63/config",
									  "/dsched/c/node",
									  "/dsched/c/node/",
									  "/dsched/c/node/a/",
									  "/dsched/c/node/a/b",
									  "/dsched/c/node/a b",
									  "/dsched/c/node/%2f",
									  "/dsched/c/node/%00",
									  "/dsched/c/node/a%00b",
									  "/dsched/c/node/%",
									  "/dsched/c/db",
									  "/dsched/c/db/",
									  "/dsched/c/db/d",
									  "/dsched/c/db/d/",
									  "/dsched/c/db//member/n",
									  "/dsched/c/db/d/member/n/cmd/1",
									  "/dsched/c/db/d/job/7/r/n",
									  "/dsched/c/db/d/job/0007/r/n",
									  "/dsched/c/db/d/job/07/r/n",
									  "/dsched/c/db/d/job/-07/r/n",
									  "/dsched/c/db/d/job/ 07/r/n",
									  "/dsched/c/db/d/job/00a/r/n",
									  "/dsched/c/db/d/job/007",
									  "/dsched/c/db/d/job/007/",
									  "/dsched/c/db/d/job/007/r",
									  "/dsched/c/db/d/job/007/r/",
									  "/dsched/c/db/d/job/007//n",
									  "/dsched/c/db/d/job/007/r/n/",
									  "/dsched/c/db/d/job/007/r/n/x",
									  "/dsched/c/db/d/jobrev/",
									  "/dsched/c/db/d/jobrev/00",
									  "/dsched/c/db/d/jobrev/000/",
									  "/dsched/c/db/d/jobrev0",
									  "/dsched/c/db/d/trigger/063/",
									  "/dsched/c/db/d/trigger/063/0",
									  "/dsched/c/db/d/trigger/063/01",
									  "/dsched/c/db/d/trigger/063/-1",
									  "/dsched/c/db/d/trigger/063/+1",
									  "/dsched/c/db/d/trigger/063/1a",
									  "/dsched/c/db/d/trigger/063/9007199254740992",
									  "/dsched/c/db/d/trigger/063/99999999999999999999999999999",
									  "/dsched/c/db/d/cmd/any/005/17/1/0",
									  "/dsched/c/db/d/cmd/any/005/0/1/0/1",
									  "/dsched/c/db/d/cmd/any/005/17/-0/0/1",
									  "/dsched/c/db/d/cmd/any/005/17/1/-1/1",
									  "/dsched/c/db/d/cmd/any/005/17/1/0/0",
									  "/dsched/c/db/d/cmd/any/005/17/1/0/2147483648",
									  "/dsched/c/db/d/outcome/any/005/17/1/00/1",
									  "/dsched/c/db/d/outcome/any/005/17/1/0/1/",
									  "/dsched/c/db/d/owner/001",
									  "/dsched/c/db/d/owner//001",
									  "/dsched/c/db/d/owner/a=b/001",
									  "/dsched/c/db/d/owner/a%3db/001",
									  "/dsched/c/db/d/owner/any/",
									  "/dsched/c/db/d/owner/any/0001",
									  "/dsched/c/db/d/state/any/01",
									  "/dsched/c/db/d/queue",
									  "/dsched/c/db/d/queue/",
									  "/dsched/c/db/d/queue/a/b",
									  "/dsched/c/db/d/queue/mail%2f1",
									  "/dsched/c/db/d/queuerev/",
									  "/dsched/c/db/d/queuerev0",
									  "/dsched/c/db/d/run/000/1",
									  "/dsched/c/db/d/last/000/r/n",
									  "/dsched/c/DB/d/jobrev/000"};
	char key[2000];
	KeyParts parts;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!keys_parse("c", bad[i], &parts) && parts.database[0] == '\0' && parts.partition == -1,
		   "not ours: %s", bad[i]);

	/* names of 256 bytes, plain and escaped */
	strcpy(key, "/dsched/c/node/");
	memset(key + 15, 'x', 256);
	key[15 + 256] = '\0';
	ok(!keys_parse("c", key, &parts), "a name of 256 bytes");
	key[15 + 255] = '\0';
	ok(keys_parse("c", key, &parts), "a name of 255 bytes");
	memset(key + 15, 'x', 1800);
	key[1815] = '\0';
	ok(!keys_parse("c", key, &parts), "a name of 1800 bytes");
	ok(!keys_parse("", "/dsched//config", &parts), "an empty cluster");
}

/* What is built is parsed back to what it was built from; whatever is parsed builds itself. */
static void
test_parse_round_trips(void)
{
	int failures = 0;
	int believed = 0;
	int i;

	for (i = 0; i < 5000; i++)
	{
		char cluster[256], database[256], role[256], name[256];
		char key[KEYS_MAX_LEN], again[KEYS_MAX_LEN];
		int partition = (int) random_between(0, 999);
		KeyParts parts;

		random_name(cluster);
		random_name(database);
		random_name(role);
		random_name(name);
		if (!keys_job(key, cluster, database, partition, role, name) ||
			!keys_parse(cluster, key, &parts) || parts.kind != KEY_JOB ||
			strcmp(parts.database, database) != 0 || strcmp(parts.role, role) != 0 ||
			strcmp(parts.name, name) != 0 || parts.partition != partition)
			failures++;

		/* damage one byte */
		key[random_bits() % strlen(key)] = (char) random_between(1, 255);
		if (!keys_parse(cluster, key, &parts))
			continue;
		believed++;
		if (parts.kind == KEY_JOB &&
			(!keys_job(again, cluster, parts.database, parts.partition, parts.role, parts.name) ||
			 strcmp(key, again) != 0))
			failures++;
	}
	is_int(failures, 0, "5000 random keys round trip; %d were still keys with a byte changed",
		   believed);
}

int
main(void)
{
	random_begin();
	test_hash();
	test_spread();
	test_encode();
	test_decode();
	test_round_trips();
	test_builders();
	test_definition_range();
	test_builders_refuse();
	test_parse();
	test_parse_hostile();
	test_parse_round_trips();
	return done();
}
