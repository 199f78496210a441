/*
 * policy.c
 *	  What a job's definition says about its runs: names, ranges, retries, jitter.
 *
 * Retries and jitter are spread by a hash of job and slot, not by chance, so that after a restart or a take-over the
 * same slot has the same times.
 *
 * policy_fields is the one list of what a policy has: whoever does the same with each field goes through it.
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
static const char *const delivery_names[] = {"at_least_once", "at_most_once", "exactly_once"};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#define NAMES(name, names, once) {#name, POLICY_IS_NAME, offsetof(JobPolicy, name), 0, LENGTH(names) - 1, false, once}
#define NUMBER(name, least, most, optional, once) \
	{#name, POLICY_IS_NUMBER, offsetof(JobPolicy, name), least, most, optional, once}
#define DURATION(name, optional, once) \
	{#name, POLICY_IS_DURATION, offsetof(JobPolicy, name), 0, POLICY_MAX_DURATION, optional, once}

/* In the order of PolicyField. */
const PolicyInfo policy_fields[POLICY_FIELDS] = {
	NAMES(overlap, overlap_names, false),
	NAMES(misfire, misfire_names, false),
	DURATION(misfire_grace, false, false),
	NUMBER(max_attempts, 1, POLICY_MAX_ATTEMPTS, false, true),
	DURATION(retry_delay, false, true),
	DURATION(retry_max_delay, false, true),
	DURATION(timeout, true, true),
	NUMBER(priority, -POLICY_MAX_PRIORITY, POLICY_MAX_PRIORITY, false, true),
	DURATION(deadline, true, true),
	NUMBER(max_failures, 0, POLICY_MAX_COUNT, true, false),
	NUMBER(max_lost, 1, POLICY_MAX_COUNT, false, true),
	DURATION(jitter, true, false),
	NAMES(delivery, delivery_names, true),
};

int64_t
policy_get(const JobPolicy *policy, PolicyField field)
{
	const char *at = (const char *) policy + policy_fields[field].offset;

	if (field == POLICY_OVERLAP)
		return (int64_t) policy->overlap;
	if (field == POLICY_MISFIRE)
		return (int64_t) policy->misfire;
	if (field == POLICY_DELIVERY)
		return (int64_t) policy->delivery;
	if (policy_fields[field].type == POLICY_IS_NUMBER)
		return *(const int32_t *) at;
	return *(const int64_t *) at;
}

void
policy_set(JobPolicy *policy, PolicyField field, int64_t value)
{
	char *at = (char *) policy + policy_fields[field].offset;

	if (field == POLICY_OVERLAP)
		policy->overlap = (OverlapPolicy) value;
	else if (field == POLICY_MISFIRE)
		policy->misfire = (MisfirePolicy) value;
	else if (field == POLICY_DELIVERY)
		policy->delivery = (DeliveryMode) value;
	else if (policy_fields[field].type == POLICY_IS_NUMBER)
		*(int32_t *) at = (int32_t) value;
	else
		*(int64_t *) at = value;
}

static const char *const *
names_of(PolicyField field)
{
	if (field == POLICY_DELIVERY)
		return delivery_names;
	return field == POLICY_OVERLAP ? overlap_names : misfire_names;
}

const char *
policy_value_name(PolicyField field, int64_t value)
{
	return value >= 0 && value <= policy_fields[field].most ? names_of(field)[value] : NULL;
}

int
policy_value_parse(PolicyField field, const char *name)
{
	for (int i = 0; i <= policy_fields[field].most; i++)
	{
		if (strcmp(names_of(field)[i], name) == 0)
			return i;
	}
	return -1;
}

const char *
policy_overlap_name(OverlapPolicy overlap)
{
	return policy_value_name(POLICY_OVERLAP, (int64_t) overlap);
}

bool
policy_overlap_parse(const char *name, OverlapPolicy *out)
{
	int found = policy_value_parse(POLICY_OVERLAP, name);

	if (found >= 0)
		*out = (OverlapPolicy) found;
	return found >= 0;
}

const char *
policy_misfire_name(MisfirePolicy misfire)
{
	return policy_value_name(POLICY_MISFIRE, (int64_t) misfire);
}

bool
policy_misfire_parse(const char *name, MisfirePolicy *out)
{
	int found = policy_value_parse(POLICY_MISFIRE, name);

	if (found >= 0)
		*out = (MisfirePolicy) found;
	return found >= 0;
}

static void
describe_range(const PolicyInfo *info, char *err, size_t errlen)
{
	if (errlen == 0)
		return;
	if (info->type == POLICY_IS_NAME)
		snprintf(err, errlen, "%s is none of the known policies", info->name);
	else if (info->type == POLICY_IS_NUMBER)
		snprintf(err, errlen, "%s must be between %lld and %lld", info->name, (long long) info->least,
				 (long long) info->most);
	else
		snprintf(err, errlen, "%s must be between 0 and %lld days", info->name,
				 (long long) (info->most / (INT64_C(86400) * 1000000)));
}

bool
policy_check(const JobPolicy *p, char *err, size_t errlen)
{
	for (int i = 0; i < POLICY_FIELDS; i++)
	{
		int64_t value = policy_get(p, (PolicyField) i);

		if (value < policy_fields[i].least || value > policy_fields[i].most)
		{
			describe_range(&policy_fields[i], err, errlen);
			return false;
		}
	}
	if (p->retry_max_delay < p->retry_delay)
	{
		if (errlen > 0)
			snprintf(err, errlen, "retry_max_delay must not be less than retry_delay");
		return false;
	}
	return true;
}

bool
policy_same(const JobPolicy *a, const JobPolicy *b)
{
	for (int i = 0; i < POLICY_FIELDS; i++)
	{
		if (policy_get(a, (PolicyField) i) != policy_get(b, (PolicyField) i))
			return false;
	}
	return true;
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
