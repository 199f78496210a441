/*
 * slots.h
 *	  The slots of a job: the calendar of src/core joined to the server's time zones and a job's bounds.
 */
#ifndef DSCHED_SLOTS_H
#define DSCHED_SLOTS_H

#include "core/cron.h"
#include "pgtime.h"
#include "catalog/catalog.h"

/* All that decides which slots a job has.  A pure value: same rule, same slots, on every instance. */
typedef struct SlotRule
{
	bool		one_shot;
	TimestampTz run_at;			/* one_shot */
	const CronSchedule *cron;	/* else; not part of the rule's memory */
	pg_tz	   *tz;
	TimestampTz anchor;			/* what an interval counts from */
	TimestampTz slots_from;		/* slots at or before it do not exist (but a one-shot's, which is due on arrival) */
	TimestampTz starts_at;		/* first possible slot; 0: none */
	TimestampTz expires_at;		/* slots before it only; 0: none */
	TimestampTz last_slot;		/* slots at or before it only; 0: none */
	int64		job_id;			/* with jitter: by what its delays are spread */
	int64		jitter;			/* 0: none */
} SlotRule;

/*
 * Parses what a row says; rule->cron is palloc'd.  False: *problem is a palloc'd sentence (a definition of a newer version, or a
 * zone that this server does not have).  A zone prefix in the schedule (TZ=...) wins over the row's time_zone.
 */
extern bool slot_rule_make(const JobRow *row, SlotRule *rule, char **problem);

/* A copy that needs nothing of the original; one piece of memory. */
extern SlotRule *slot_rule_copy(MemoryContext context, const SlotRule *rule);

/*
 * The rule of the same pattern for a range of time, both ends inclusive: its slots are all that the pattern has there,
 * whatever the bounds of the job are, and none has a delay.  An interval counts backwards from its anchor, too.
 * last is not before first.  slot_rule_for_range() is for a row, and false also for a job that has no pattern.
 */
extern void slot_rule_narrow(SlotRule *rule, TimestampTz first, TimestampTz last);
extern bool slot_rule_for_range(const JobRow *row, TimestampTz first, TimestampTz last, SlotRule *out, char **problem);

/*
 * Of the pattern alone (fields and zone, or interval and its phase): the same for schedules that name the same sets, on every
 * instance; bounds and pauses do not change it.
 */
extern uint64 slot_rule_hash(const SlotRule *rule);

/* The first slot after 'after' that exists by the rule; 0 if there is none. @reboot: PgStartTime if later than both. */
extern TimestampTz slot_next(const SlotRule *rule, TimestampTz after);

/* The slot number n (from 1) after slots_from, within the bounds; 0 if there are fewer. For max_runs. */
extern TimestampTz slot_nth(const SlotRule *rule, int32 n);

/* When a slot of the rule is due: by jitter up to rule->jitter later, but before the slot after it. */
extern TimestampTz slot_due(const SlotRule *rule, TimestampTz slot);

/* The first slot that is due after 'after'; 0 if there is none. */
extern TimestampTz slot_next_due(const SlotRule *rule, TimestampTz after);

/*
 * How many slots there are from first to last, both inclusive; *newest is the last of them, *before (if not NULL) the one before it; 0
 * where there is none.  By calculation: the number of slots does not matter.
 */
extern int64 slot_count(const SlotRule *rule, TimestampTz first, TimestampTz last, TimestampTz *newest,
						TimestampTz *before);

#endif /* DSCHED_SLOTS_H */
