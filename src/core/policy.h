/*
 * policy.h
 *	  What a job's definition says about its runs, beside when they are due.
 *
 * All durations are in microseconds.  The same policy gives the same answers on every instance: nothing here asks
 * for the time or for a random number that is not derived from the slot.
 */
#ifndef DSCHED_POLICY_H
#define DSCHED_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_MAX_DURATION (INT64_C(366) * 86400 * 1000000)
#define POLICY_MAX_ATTEMPTS 100
#define POLICY_MAX_COUNT 1000000 /* max_failures, max_lost */
#define POLICY_MAX_PRIORITY 100	 /* and the least is its negative */
#define POLICY_MAX_QUEUE 63		 /* bytes of a queue's name */
#define POLICY_MAX_RUNNING 10000 /* of a queue: max_running, */
#define POLICY_MAX_RATE 1000000	 /* rate_limit, */
#define POLICY_MIN_PER 1000		 /* and its period, at most POLICY_MAX_DURATION */

/* A slot comes due while a run of its job is open. */
typedef enum OverlapPolicy
{
	OVERLAP_SKIP,
	OVERLAP_QUEUE_ONE,
	OVERLAP_QUEUE_ALL,
	OVERLAP_ALLOW,
	OVERLAP_CANCEL_RUNNING
} OverlapPolicy;

/* Slots come to be opened later than misfire_grace. */
typedef enum MisfirePolicy
{
	MISFIRE_LATEST,
	MISFIRE_ALL,
	MISFIRE_SKIP
} MisfirePolicy;

/* How often a slot may take effect, at the price of what: docs/delivery.md. */
typedef enum DeliveryMode
{
	DELIVERY_AT_LEAST_ONCE,
	DELIVERY_AT_MOST_ONCE,
	DELIVERY_EXACTLY_ONCE
} DeliveryMode;

typedef struct JobPolicy
{
	OverlapPolicy overlap;
	MisfirePolicy misfire;
	int64_t misfire_grace;	 /* 0 .. */
	int32_t max_attempts;	 /* 1: no retry */
	int64_t retry_delay;	 /* before the second attempt; doubles with each further one */
	int64_t retry_max_delay; /* at least retry_delay */
	int64_t timeout;		 /* 0: none */
	int32_t priority;		 /* higher first */
	int64_t deadline;		 /* after the due time, for dsched.dispatch_policy = earliest_deadline; 0: none */
	int32_t max_failures;	 /* in a row, before the job is paused; 0: never */
	int32_t max_lost;		 /* attempts of one slot that end with the death of their process, before it is */
	int64_t jitter;			 /* slots are due up to so much later; 0: none. Part of the generation */
	DeliveryMode delivery;
} JobPolicy;

/* The members one by one, for those who do the same with each of them. */
typedef enum PolicyField
{
	POLICY_OVERLAP,
	POLICY_MISFIRE,
	POLICY_MISFIRE_GRACE,
	POLICY_ATTEMPTS,
	POLICY_RETRY_DELAY,
	POLICY_RETRY_MAX_DELAY,
	POLICY_TIMEOUT,
	POLICY_PRIORITY,
	POLICY_DEADLINE,
	POLICY_FAILURES,
	POLICY_LOST,
	POLICY_JITTER,
	POLICY_DELIVERY
} PolicyField;

#define POLICY_FIELDS (POLICY_DELIVERY + 1)

typedef enum PolicyType
{
	POLICY_IS_NAME,	   /* of an OverlapPolicy, a MisfirePolicy or a DeliveryMode */
	POLICY_IS_NUMBER,  /* int32_t */
	POLICY_IS_DURATION /* int64_t */
} PolicyType;

typedef struct PolicyInfo
{
	const char *name; /* in SQL, in the table and in JSON */
	PolicyType type;
	size_t offset;
	int64_t least;
	int64_t most;
	bool optional;	/* 0: none, which is NULL in SQL */
	bool once;		/* means something for a job that runs once, too */
} PolicyInfo;

extern const PolicyInfo policy_fields[POLICY_FIELDS];

/* A member by its number; names as the values of their enumeration. */
extern int64_t policy_get(const JobPolicy *policy, PolicyField field);
extern void policy_set(JobPolicy *policy, PolicyField field, int64_t value);

/* What the value of a field that has names is called; NULL: there is none such.  And back: -1. */
extern const char *policy_value_name(PolicyField field, int64_t value);
extern int policy_value_parse(PolicyField field, const char *name);

/* What a definition that says nothing has. */
extern const JobPolicy policy_default;

/* Names as in SQL and JSON, NULL for what is no value; parsing is exact, false: no such one. */
extern const char *policy_overlap_name(OverlapPolicy overlap);
extern bool policy_overlap_parse(const char *name, OverlapPolicy *out);
extern const char *policy_misfire_name(MisfirePolicy misfire);
extern bool policy_misfire_parse(const char *name, MisfirePolicy *out);

/* Is every member within its range?  False: err says which is not and what is allowed. */
extern bool policy_check(const JobPolicy *policy, char *err, size_t errlen);

/* Are the same things said? */
extern bool policy_same(const JobPolicy *a, const JobPolicy *b);

/*
 * How long after its failed attempt number 'failures' (from 1) a slot is tried again: retry_delay * 2^(failures - 1), at most
 * retry_max_delay, of which a part between half and all is taken, decided by the slot.
 */
extern int64_t
policy_retry_delay(const JobPolicy *policy, int64_t job_id, int64_t slot, int32_t failures);

/* The slot's delay by jitter: 0 <= delay < bound (0 if bound is 0), evenly spread over slots and jobs. */
extern int64_t policy_jitter(int64_t job_id, int64_t slot, int64_t bound);

#endif /* DSCHED_POLICY_H */
