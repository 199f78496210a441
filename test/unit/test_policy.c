/*
 * test_policy.c
 *	  Policies: the table of their fields, names, ranges; retries and jitter, which are the same everywhere.
 */
/* links: src/core/policy.c src/core/keys.c */
#include "core/policy.h"

#include <string.h>

#include "random.h"
#include "tap.h"

#define SECOND INT64_C(1000000)

static char err[100];

static void
test_fields(void)
{
	JobPolicy policy;
	int i;
	int j;

	for (i = 0; i < POLICY_FIELDS; i++)
	{
		const PolicyInfo *info = &policy_fields[i];
		int64_t other = info->most - 1;
		int changed = 0;

		policy = policy_default;
		policy_set(&policy, (PolicyField) i, other);
		is_int(policy_get(&policy, (PolicyField) i), other, "%s is what was set", info->name);
		ok(!policy_same(&policy, &policy_default), "another %s is another policy", info->name);
		for (j = 0; j < POLICY_FIELDS; j++)
			changed += policy_get(&policy, (PolicyField) j) != policy_get(&policy_default, (PolicyField) j);
		is_int(changed, 1, "and nothing else is");
		ok(info->optional == (info->least == 0 && info->type != POLICY_IS_NAME &&
							  policy_get(&policy_default, (PolicyField) i) == 0),
		   "0 is \"none\" of %s just where that is the default", info->name);
	}
	ok(policy_same(&policy_default, &policy_default), "a policy is the same as itself");
	is_str(policy_fields[POLICY_OVERLAP].name, "overlap", "the first name");
	is_str(policy_fields[POLICY_JITTER].name, "jitter", "the last name");
}

/* Each field at its bounds, and just beyond. */
static void
test_ranges(void)
{
	int i;

	ok(policy_check(&policy_default, err, sizeof(err)), "the default is a policy");
	for (i = 0; i < POLICY_FIELDS; i++)
	{
		const PolicyInfo *info = &policy_fields[i];
		JobPolicy policy = policy_default;

		if (i == POLICY_RETRY_DELAY)
			policy.retry_max_delay = POLICY_MAX_DURATION;
		else if (i == POLICY_RETRY_MAX_DELAY)
			policy.retry_delay = 0;
		policy_set(&policy, (PolicyField) i, info->least);
		ok(policy_check(&policy, err, sizeof(err)), "the least %s", info->name);
		policy_set(&policy, (PolicyField) i, info->most);
		ok(policy_check(&policy, err, sizeof(err)), "the greatest %s", info->name);
		policy_set(&policy, (PolicyField) i, info->least - 1);
		ok(!policy_check(&policy, err, sizeof(err)) && strstr(err, info->name) == err, "less: %s", err);
		policy_set(&policy, (PolicyField) i, info->most + 1);
		ok(!policy_check(&policy, err, sizeof(err)) && strstr(err, info->name) == err, "more: %s", err);
		ok(!policy_check(&policy, err, 0) && !policy_check(&policy, err, 1) && err[0] == '\0',
		   "without room for the reason");
	}
}

static void
test_retry_bounds(void)
{
	JobPolicy policy = policy_default;

	policy.retry_delay = policy.retry_max_delay;
	ok(policy_check(&policy, err, sizeof(err)), "one and the same delay for all retries");
	policy.retry_max_delay--;
	ok(!policy_check(&policy, err, sizeof(err)) && strstr(err, "retry_max_delay") == err, "%s", err);
}

static void
test_names(void)
{
	static const char *const bad[] = {"", "Skip", " skip", "skip ", "queue", "queue_one_", "none"};
	OverlapPolicy overlap = OVERLAP_ALLOW;
	MisfirePolicy misfire = MISFIRE_ALL;
	size_t i;

	for (i = OVERLAP_SKIP; i <= OVERLAP_CANCEL_RUNNING; i++)
		ok(policy_overlap_parse(policy_overlap_name((OverlapPolicy) i), &overlap) && overlap == i,
		   "overlap %s", policy_overlap_name((OverlapPolicy) i));
	for (i = MISFIRE_LATEST; i <= MISFIRE_SKIP; i++)
		ok(policy_misfire_parse(policy_misfire_name((MisfirePolicy) i), &misfire) && misfire == i,
		   "misfire %s", policy_misfire_name((MisfirePolicy) i));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(!policy_overlap_parse(bad[i], &overlap) && !policy_misfire_parse(bad[i], &misfire) &&
			   policy_value_parse(POLICY_OVERLAP, bad[i]) == -1,
		   "no policy: \"%s\"", bad[i]);
	ok(overlap == OVERLAP_CANCEL_RUNNING && misfire == MISFIRE_SKIP, "what was there is left alone");
	ok(!policy_overlap_parse("latest", &overlap) && !policy_misfire_parse("allow", &misfire),
	   "a name of the other");
	ok(policy_overlap_name((OverlapPolicy) 5) == NULL && policy_overlap_name((OverlapPolicy) -1) == NULL &&
		   policy_misfire_name((MisfirePolicy) 3) == NULL,
	   "no name for what is no value");
}

/* Between half and all of the delay, doubled with each failure up to the greatest. */
static void
test_retry_delay(void)
{
	JobPolicy policy = policy_default;
	int64_t whole = SECOND;
	int wrong = 0;
	int32_t failures;
	int i;

	policy.retry_delay = SECOND;
	policy.retry_max_delay = 60 * SECOND;
	for (failures = 1; failures <= POLICY_MAX_ATTEMPTS; failures++)
	{
		for (i = 0; i < 200; i++)
		{
			int64_t job = random_between(1, INT64_C(1) << 52);
			int64_t slot = random_between(-SECOND * 1000000, SECOND * 1000000);
			int64_t delay = policy_retry_delay(&policy, job, slot, failures);

			wrong += delay > whole || delay < whole / 2;
			wrong += delay != policy_retry_delay(&policy, job, slot, failures);
		}
		whole = whole * 2 < policy.retry_max_delay ? whole * 2 : policy.retry_max_delay;
	}
	is_int(wrong, 0, "every delay is within its bounds, and the same when asked again");

	policy.retry_delay = policy.retry_max_delay = POLICY_MAX_DURATION;
	ok(policy_retry_delay(&policy, 1, 1, POLICY_MAX_ATTEMPTS) >= POLICY_MAX_DURATION / 2, "the longest");
	policy.retry_delay = POLICY_MAX_DURATION - 1;
	ok(policy_retry_delay(&policy, 1, 1, INT32_MAX) <= POLICY_MAX_DURATION, "doubled beyond the longest");
	policy.retry_delay = policy.retry_max_delay = 0;
	is_int(policy_retry_delay(&policy, 1, 1, 3), 0, "none");
	policy.retry_max_delay = SECOND;
	is_int(policy_retry_delay(&policy, 1, 1, INT32_MAX), 0, "none, doubled for ever");
}

/* Spread evenly: in each tenth of the bound about a tenth of the slots. */
static void
test_jitter(void)
{
	static const int64_t bounds[] = {1, 2, 10, 1000, SECOND, 3600 * SECOND, POLICY_MAX_DURATION};
	int counts[10] = {0};
	int64_t job = random_between(1, INT64_C(1) << 52);
	int wrong = 0;
	int uneven = 0;
	size_t b;
	int i;

	for (b = 0; b < sizeof(bounds) / sizeof(bounds[0]); b++)
	{
		for (i = 0; i < 1000; i++)
		{
			int64_t delay = policy_jitter(job, i * 60 * SECOND, bounds[b]);

			wrong += delay < 0 || delay >= bounds[b];
		}
	}
	is_int(wrong, 0, "every delay is less than its bound");
	is_int(policy_jitter(job, 5, 0), 0, "no bound, no delay");
	is_int(policy_jitter(job, 5, -1), 0, "nor below");

	for (i = 0; i < 10000; i++)
		counts[policy_jitter(job, i * 60 * SECOND, 1000 * SECOND) / (100 * SECOND)]++;
	for (i = 0; i < 10; i++)
		uneven += counts[i] < 850 || counts[i] > 1150;
	is_int(uneven, 0, "the slots of a job are spread evenly");
	memset(counts, 0, sizeof(counts));
	for (i = 0; i < 10000; i++)
		counts[policy_jitter(i + 1, job, 1000 * SECOND) / (100 * SECOND)]++;
	uneven = 0;
	for (i = 0; i < 10; i++)
		uneven += counts[i] < 850 || counts[i] > 1150;
	is_int(uneven, 0, "so are the jobs of a slot");
}

/* Fixed for ever: instances of different versions and machines must agree. */
static void
test_fixed_values(void)
{
	JobPolicy policy = policy_default;

	is_int(policy_jitter(17, INT64_C(846556508000000), 30 * SECOND), 84789, "a jitter");
	is_int(policy_retry_delay(&policy, 17, INT64_C(846556508000000), 1), 662454, "a delay before a retry");
}

int
main(void)
{
	random_begin();
	test_fields();
	test_ranges();
	test_retry_bounds();
	test_names();
	test_retry_delay();
	test_jitter();
	test_fixed_values();
	return done();
}
