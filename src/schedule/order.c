/*
 * order.c
 *	  What goes first: the rank of a run.
 *
 * A run gets its rank when it may start and keeps it while it waits for an executor; of those that wait,
 * the lowest rank is taken first.  By all policies of dsched.dispatch_policy it is a moment, in
 * microseconds as a TimestampTz: when the run came due, moved back or forth by what the policy prefers.
 *
 *	  priority				due - priority * ageing
 *	  fifo					due
 *	  earliest_deadline		due + deadline - an hour				(none: an hour)
 *	  rate_monotonic		due + ageing * log2(period / an hour)	(none: an hour)
 *	  round_robin			a tag of start-time fair queueing, see below
 *
 * Three things follow.  A run that comes later has a higher rank than one of the same kind that waits, so
 * whatever waits is first at some time and nothing starves.  Ageing costs nothing: two runs of different
 * priority gain by waiting at the same pace, so their order never changes and no rank is computed twice.
 * And ranks of several databases, or of two policies after a reload, can be compared.  The hour is what a
 * job counts with that has no deadline, or no period as a one-shot; so its rank is that of fifo.
 *
 * Lateness counts in full up to ORDER_LATE_US only.  A backlog (after a stop, a take-over, a backfill)
 * would else go before all that comes due while it is worked off, however urgent.  What is later is taken
 * for that late, and stays in the order of due times among itself.
 *
 * Earliest deadline and rate monotonic are Liu's and Layland's (1973).  Rate monotonic order is a fixed
 * priority by the period.  It is taken from the logarithm of the period, not from the period's place
 * among those of the other jobs, so that no job has to know of the others; and as everything ages, the
 * longest period has its turn under overload too: each doubling of the period is one step of ageing.
 *
 * Round robin is over jobs, not runs: start-time fair queueing (Goyal, Vin and Cheng 1996) with one
 * length for all runs.  A run's tag is the virtual time, or a unit after the last tag of its job if that
 * is later; the virtual time is the tag of the run that was taken last.  So of a thousand runs of one job
 * each waits a round longer than the one before, and the first of another job waits for none of them.
 * Tags are spaced by FAIR_UNIT_US, a fifth of what makes an executor leave for another lane (pool.c):
 * roles alternate after some runs each, not after every one at the price of a process.  When nothing
 * waits or runs, the virtual time is set to the time as it is and tags from before are void; likewise
 * when the policy becomes round_robin.  It lies in shared memory, as the databases share the executors;
 * the tags of jobs are their scheduler's.
 */
#include "postgres.h"

#include <math.h>

#include "schedule/scheduler.h"
#include "settings.h"

#define ORDER_HOUR_US INT64CONST(3600000000)
#define ORDER_LATE_US INT64CONST(60000000)
#define FAIR_UNIT_US INT64CONST(10000)
/* Slots that are looked at for the period: a weekday's job has one shorter than a weekend. */
#define PERIOD_SLOTS 4

/* Has this process not ranked by another policy since it ranked by round robin? */
static bool fair_goes_on = true;

static TimestampTz counted_from(TimestampTz due);
static int64 job_period(Job *job, TimestampTz due);
static int64 fair_tag(Job *job);

int64
order_rank(Job *job, const RunKey *key, TimestampTz due)
{
	int64		ageing = dsched_priority_ageing * INT64CONST(1000);
	TimestampTz from = counted_from(due);

	if (dsched_dispatch_policy == DISPATCH_ROUND_ROBIN)
		return fair_tag(job);
	fair_goes_on = false;
	switch (dsched_dispatch_policy)
	{
		case DISPATCH_PRIORITY:
			return from - job->policy->priority * ageing;
		case DISPATCH_EARLIEST_DEADLINE:
			return from + (job->policy->deadline > 0 ? job->policy->deadline : ORDER_HOUR_US) - ORDER_HOUR_US;
		case DISPATCH_RATE_MONOTONIC:
			return from + (int64) rint(ageing * log2((double) job_period(job, due) / ORDER_HOUR_US));
		default:
			return from;
	}
}

/* When it came due, but not too long ago: of each second beyond, a microsecond is left, to keep the order. */
static TimestampTz
counted_from(TimestampTz due)
{
	int64		late = scheduler.now - due;

	if (late <= ORDER_LATE_US)
		return due;
	return scheduler.now - ORDER_LATE_US - Min((late - ORDER_LATE_US) / USECS_PER_SEC, ORDER_LATE_US);
}

/*
 * The shortest distance of the next few slots from 'due' on: what the theory takes for the period of a
 * task that is not strictly periodic.  Looked for once in a generation.
 */
static int64
job_period(Job *job, TimestampTz due)
{
	JobExtra   *extra = job_extra(job);

	if (extra->period == 0 || extra->period_gen != job->gen)
	{
		SlotRule	rule = job_rule(job);
		TimestampTz slot = job->usable && !job->one_shot ? slot_next(&rule, due - 1) : 0;

		extra->period_gen = job->gen;
		extra->period = -1;
		for (int i = 1; i < PERIOD_SLOTS && slot != 0; i++)
		{
			TimestampTz next = slot_next(&rule, slot);

			if (next != 0 && (extra->period < 0 || next - slot < extra->period))
				extra->period = next - slot;
			slot = next;
		}
	}
	return extra->period > 0 ? extra->period : ORDER_HOUR_US;
}

static int64
fair_tag(Job *job)
{
	uint64		period;
	int64		tag = dsched_queue_virtual_time(scheduler.now, !fair_goes_on, &period);
	JobExtra   *extra = job_extra(job);

	fair_goes_on = true;
	if (extra->fair_period == period)
		tag = Max(tag, extra->fair_tag + FAIR_UNIT_US);
	extra->fair_period = period;
	extra->fair_tag = tag;
	return tag;
}
