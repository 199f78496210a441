/*
 * test_delivery.c
 *	  What strict delivery writes down: keys of runs, their values, names of prepared transactions; and damaged ones.
 */
#include "core/codec.h"
#include "core/gid.h"
#include "core/keys.h"
#include "random.h"
#include "tap.h"

#include <stdlib.h>

static const RunName run_1 = {"any", 7, 5, INT64_C(1795241309000000), 0, 2};

static void
test_keys(void)
{
	char key[KEYS_MAX_LEN];
	RunName run = run_1;

	ok(keys_run(key, "main", "shop", &run), "a key of an attempt");
	is_str(key, "/dsched/main/db/shop/run/any/007/5/1795241309000000/0/2", "as it stands");
	run.attempt = 0;
	run.trigger_id = 9;
	run.slot = -1;
	ok(keys_run(key, "main", "shop", &run), "a key of all attempts, before 1970, of a request");
	is_str(key, "/dsched/main/db/shop/run/any/007/5/-1/9", "as it stands");
	ok(keys_decided(key, "main", "shop", &run), "a decision");
	is_str(key, "/dsched/main/db/shop/decided/any/007/5/-1/9", "as it stands");
	ok(keys_run_attempts_prefix(key, "main", "shop", &run), "the prefix of the attempts");
	is_str(key, "/dsched/main/db/shop/run/any/007/5/-1/9/", "as it stands");
	ok(keys_run_partition_prefix(key, "main", "shop", "a/b", 3), "the prefix of a partition of another place");
	is_str(key, "/dsched/main/db/shop/run/a%2Fb/003/", "as it stands");
	run.job_id = 0;
	ok(!keys_run(key, "main", "shop", &run), "no key without a job");
	run = run_1;
	run.trigger_id = -1;
	ok(!keys_run(key, "main", "shop", &run), "nor of a request that cannot be");
	run = run_1;
	run.partition = KEYS_MAX_PARTITIONS;
	ok(!keys_run(key, "main", "shop", &run), "nor of a partition that cannot be");
}

static void
test_hostile_keys(void)
{
	static const char *const keys[] = {
		"/dsched/main/db/shop/run/any/007/5/1/0/", "/dsched/main/db/shop/run/any/007/5/1", "/dsched/main/db/shop/run/any/07/5/1/0",
		"/dsched/main/db/shop/run/any/007/05/1/0", "/dsched/main/db/shop/run/any/007/5/-0/0", "/dsched/main/db/shop/run/any/007/5/01/0",
		"/dsched/main/db/shop/run/any/007/5/1/-1", "/dsched/main/db/shop/run/any/007/5/1/0/0", "/dsched/main/db/shop/run//007/5/1/0",
		"/dsched/main/db/shop/run/any/007/5/1/0/9007199254740992", "/dsched/main/db/shop/run/any/007/5/1/0/3000000000",
		"/dsched/main/db/shop/decided/any/007/5/1/0/1", "/dsched/main/db/shop/run/any/007/5/9007199254740992/0",
	};
	KeyParts parts;
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		ok(!keys_parse("main", keys[i], &parts), "no key: %s", keys[i]);
}

static int64_t
random_number(void)
{
	return (int64_t) (random_bits() % (UINT64_C(1) << random_between(1, 53)));
}

static void
random_run(RunName *run)
{
	memset(run, 0, sizeof(*run));
	snprintf(run->place, sizeof(run->place), "%s", random_between(0, 1) ? "any" : "region=eu,rack=7");
	run->partition = (int) random_between(0, 999);
	run->job_id = random_number() + 1 > KEYS_MAX_ID ? 1 : random_number() % KEYS_MAX_ID + 1;
	run->slot = random_number() * (random_between(0, 9) ? 1 : -1);
	run->trigger_id = random_between(0, 1) ? 0 : random_number();
	run->attempt = (int) random_between(0, 100);
}

static bool
same_run(const RunName *a, const RunName *b)
{
	return strcmp(a->place, b->place) == 0 && a->partition == b->partition && a->job_id == b->job_id &&
		   a->slot == b->slot && a->trigger_id == b->trigger_id && a->attempt == b->attempt;
}

static void
test_key_round_trips(void)
{
	int failures = 0;
	int believed = 0;
	int i;

	for (i = 0; i < 5000; i++)
	{
		char key[KEYS_MAX_LEN], again[KEYS_MAX_LEN];
		KeyParts parts;
		RunName run;

		random_run(&run);
		if (!keys_run(key, "main", "shop", &run) || !keys_parse("main", key, &parts) || parts.kind != KEY_RUN ||
			!same_run(&parts.run, &run))
			failures++;
		key[random_bits() % strlen(key)] = (char) random_between(1, 255);
		if (!keys_parse("main", key, &parts) || parts.kind != KEY_RUN)
			continue;
		believed++;
		if (!keys_run(again, "main", parts.database, &parts.run) || strcmp(key, again) != 0)
			failures++;
	}
	is_int(failures, 0, "5000 keys round trip; %d were still keys with a byte changed", believed);
}

static void
test_gids(void)
{
	RunGid gid = {"df1dd3ed275ea3b7b3c2ed6122e900cc", run_1, 6, 3, 41};
	RunGid again;
	char text[GID_MAX];
	int failures = 0;
	int believed = 0;
	int i;

	ok(gid_write(text, &gid), "a name");
	is_str(text, "dsched:df1dd3ed275ea3b7b3c2ed6122e900cc:any:007:5:1795241309000000:0:2:6:3:41", "as it stands");
	ok(gid_read(text, &again) && same_run(&again.run, &run_1) && again.epoch == 6 && again.session == 3 && again.seq == 41 &&
		   strcmp(again.incarnation, gid.incarnation) == 0,
	   "and back");
	gid.run.job_id = gid.run.trigger_id = KEYS_MAX_ID;
	gid.run.slot = -KEYS_MAX_ID;
	gid.run.attempt = INT32_MAX;
	gid.epoch = gid.session = gid.seq = UINT64_MAX;
	ok(gid_write(text, &gid), "the largest numbers fit");
	memset(gid.run.place, 'p', 200);
	ok(!gid_write(text, &gid) && text[0] == '\0', "a place that is too long does not");
	gid.run.place[0] = '\0';
	ok(!gid_write(text, &gid), "nor does none");
	gid.run = run_1;
	gid.incarnation[3] = ':';
	ok(!gid_write(text, &gid), "nor an incarnation that is none");
	ok(!gid_read("dsched:", &again) && !gid_read("", &again) && !gid_read("dsched:mine", &again), "names of others are not read");
	ok(!gid_read("dsched:a:any:007:5:1:0:2:6:3:41:", &again) && !gid_read("dsched:a:any:007:5: 1:0:2:6:3:41", &again) &&
		   !gid_read("dsched:a:any:007:5:+1:0:2:6:3:41", &again) && !gid_read("dsched:a:any:7:5:1:0:2:6:3:41", &again) &&
		   !gid_read("dsched:a:any:007:5:1:0:2:6:3:-1", &again) && !gid_read("dsched:a:any:007:5:1:0:2:6:3:99999999999999999999", &again),
	   "nor what only looks alike");

	for (i = 0; i < 5000; i++)
	{
		char other[GID_MAX];

		memcpy(gid.incarnation, "df1dd3ed275ea3b7b3c2ed6122e900cc", 33);
		random_run(&gid.run);
		gid.run.attempt++;
		gid.epoch = random_bits();
		gid.session = (uint64_t) random_number();
		gid.seq = (uint64_t) random_number();
		if (!gid_write(text, &gid) || !gid_read(text, &again) || !same_run(&gid.run, &again.run) || gid.epoch != again.epoch ||
			gid.session != again.session || gid.seq != again.seq)
			failures++;
		text[random_bits() % strlen(text)] = (char) random_between(1, 255);
		if (!gid_read(text, &again))
			continue;
		believed++;
		if (!gid_write(other, &again) || strcmp(text, other) != 0)
			failures++;
	}
	is_int(failures, 0, "5000 names round trip; %d were still names with a byte changed", believed);
}

static void
test_marks(void)
{
	static const char good[] =
		"{\"format\":1,\"mode\":\"exactly_once\",\"node\":\"n1\",\"session\":3,\"epoch\":6,\"attempt\":2,\"id\":\"dsched:x\",\"at\":1795241309000000}";
	static const char *const bad[] = {
		"", "{}", "[]", "{\"format\":2}",
		"{\"format\":1,\"mode\":\"twice\",\"node\":\"n1\",\"session\":3,\"epoch\":6,\"attempt\":2,\"id\":\"x\",\"at\":0}",
		"{\"format\":1,\"mode\":\"exactly_once\",\"node\":\"\",\"session\":3,\"epoch\":6,\"attempt\":2,\"id\":\"x\",\"at\":0}",
		"{\"format\":1,\"mode\":\"exactly_once\",\"node\":\"n1\",\"session\":3,\"epoch\":6,\"attempt\":0,\"id\":\"x\",\"at\":0}",
		"{\"format\":1,\"mode\":\"exactly_once\",\"node\":\"n1\",\"session\":3,\"epoch\":6,\"attempt\":2,\"id\":\"\",\"at\":0}",
		"{\"format\":1,\"mode\":\"exactly_once\",\"node\":\"n1\",\"session\":\"3\",\"epoch\":6,\"attempt\":2,\"id\":\"x\",\"at\":0}",
	};
	RunMark mark;
	char problem[256];
	char *text;
	size_t length;
	size_t i;

	ok(codec_mark_decode(good, strlen(good), &mark, problem, sizeof(problem)), "a value");
	ok(mark.decision && strcmp(mark.node, "n1") == 0 && mark.session == 3 && mark.epoch == 6 && mark.attempt == 2 &&
		   strcmp(mark.id, "dsched:x") == 0 && mark.at == INT64_C(1795241309000000) - CODEC_EPOCH_DIFF,
	   "and what it says");
	text = codec_mark_encode(&mark, &length);
	is_str(text, good, "written again it is the same");
	free(text);
	mark.decision = false;
	text = codec_mark_encode(&mark, &length);
	ok(text != NULL && strstr(text, "\"at_most_once\"") != NULL, "a claim");
	free(text);
	mark.id[0] = '\0';
	ok(codec_mark_encode(&mark, &length) == NULL, "one without an id is not written");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!codec_mark_decode(bad[i], strlen(bad[i]), &mark, problem, sizeof(problem)) && problem[0] != '\0', "not believed: %s", bad[i]);
	for (i = 0; i < strlen(good); i++)
	{
		char cut[sizeof(good)];

		memcpy(cut, good, i);
		cut[i] = '\0';
		if (codec_mark_decode(cut, i, &mark, NULL, 0))
			break;
	}
	is_int((int64_t) i, (int64_t) strlen(good), "nor is any beginning of it");
}

int
main(void)
{
	random_begin();
	test_keys();
	test_hostile_keys();
	test_key_round_trips();
	test_gids();
	test_marks();
	return done();
}
