/*
 * policy.c
 *	  What a job's definition says about its runs: names, ranges, retries, jitter.
 *
 * Retries and jitter are spread by a hash of job and slot, not by chance, so that after a restart or a take-over the same slot has
 * the same times.
 */
#include "core/policy.h"

#include <stdio.h>
#include <string.h>

#include "core/keys.h"

const JobPolicy policy_default = {
	.overlap = OVERLAP_SKIP,
	.misfire = MISFIRE_LATEST,
	.misfire_grace = INT64_C(60000000),
	.max_attempts = 1,
	.retry_delay = INT64_C(1000000),
	.retry_max_delay = INT64_C(600000000),
	.max_lost = 3,
};

static const char *const overlap_names[] = {"skip", "queue_one", "queue_all", "allow", "cancel_running"};
static const char *const misfire_names[] = {"latest", "all", "skip"};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static int
find_name(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
	{
		if (strcmp(names[i], name) == 0)
			return (int) i;
	}
	return -1;
}

const char *
policy_overlap_name(OverlapPolicy overlap)
{
	return overlap_names[overlap];
}

bool
policy_overlap_parse(const char *name, OverlapPolicy *out)
{
	int found = find_name(overlap_names, LENGTH(overlap_names), name);

	if (found >= 0)
		*out = (OverlapPolicy) found;
	return found >= 0;
}

const char *
policy_misfire_name(MisfirePolicy misfire)
{
	return misfire_names[misfire];
}

bool
policy_misfire_parse(const char *name, MisfirePolicy *out)
{
	int found = find_name(misfire_names, LENGTH(misfire_names), name);

	if (found >= 0)
		*out = (MisfirePolicy) found;
	return found >= 0;
}

static bool
in_range(const char *name, int64_t value, int64_t least, int64_t most, char *err, size_t errlen)
{
	if (value >= least && value <= most)
		return true;
	if (errlen > 0)
		snprintf(err, errlen, "%s must be between %lld and %lld", name, (long long) least, (long long) most);
	return false;
}

bool
policy_check(const JobPolicy *p, char *err, size_t errlen)
{
	if ((unsigned) p->overlap >= LENGTH(overlap_names) || (unsigned) p->misfire >= LENGTH(misfire_names))
	{
		if (errlen > 0)
			snprintf(err, errlen, "overlap or misfire is none of the known policies");
		return false;
	}
	return in_range("misfire_grace", p->misfire_grace, 0, POLICY_MAX_DURATION, err, errlen) &&
		   in_range("max_attempts", p->max_attempts, 1, POLICY_MAX_ATTEMPTS, err, errlen) &&
		   in_range("retry_delay", p->retry_delay, 0, POLICY_MAX_DURATION, err, errlen) &&
		   in_range("retry_max_delay", p->retry_max_delay, p->retry_delay, POLICY_MAX_DURATION, err, errlen) &&
		   in_range("timeout", p->timeout, 0, POLICY_MAX_DURATION, err, errlen) &&
		   in_range("priority", p->priority, -POLICY_MAX_PRIORITY, POLICY_MAX_PRIORITY, err, errlen) &&
		   in_range("deadline", p->deadline, 0, POLICY_MAX_DURATION, err, errlen) &&
		   in_range("max_failures", p->max_failures, 0, POLICY_MAX_COUNT, err, errlen) &&
		   in_range("max_lost", p->max_lost, 1, POLICY_MAX_COUNT, err, errlen) &&
		   in_range("jitter", p->jitter, 0, POLICY_MAX_DURATION, err, errlen);
}

bool
policy_same(const JobPolicy *a, const JobPolicy *b)
{
	return a->overlap == b->overlap && a->misfire == b->misfire && a->misfire_grace == b->misfire_grace &&
		   a->max_attempts == b->max_attempts && a->retry_delay == b->retry_delay &&
		   a->retry_max_delay == b->retry_max_delay && a->timeout == b->timeout &&
		   a->priority == b->priority && a->deadline == b->deadline && a->max_failures == b->max_failures &&
		   a->max_lost == b->max_lost && a->jitter == b->jitter;
}

/* A number in [0, bound) that depends on nothing but the three. */
static int64_t
spread(int64_t job_id, int64_t slot, int32_t salt, int64_t bound)
{
	uint64_t of[3] = {(uint64_t) job_id, (uint64_t) slot, (uint64_t) salt};
	unsigned char bytes[sizeof(of)];

	/* the same on machines of either byte order */
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char) (of[i / 8] >> (i % 8 * 8));
	return bound <= 0 ? 0 : (int64_t) (keys_hash(bytes, sizeof(bytes), 0) % (uint64_t) bound);
}

int64_t
policy_retry_delay(const JobPolicy *policy, int64_t job_id, int64_t slot, int32_t failures)
{
	int64_t delay = policy->retry_delay;

	for (int32_t i = 1; i < failures && delay < policy->retry_max_delay; i++)
		delay *= 2;
	if (delay > policy->retry_max_delay)
		delay = policy->retry_max_delay;
	return delay - spread(job_id, slot, failures, delay / 2 + 1);
}

int64_t
policy_jitter(int64_t job_id, int64_t slot, int64_t bound)
{
	return spread(job_id, slot, 0, bound);
}
