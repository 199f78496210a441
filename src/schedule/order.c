/*
 * order.c
 *	  What goes first: the rank of a run.
 *
 * A run gets its rank when it may start, and keeps it while it waits for an executor; of those that wait the lowest rank is taken
 * first.  By all policies of dsched.dispatch_policy it is a moment, in microseconds like a TimestampTz: when the run came due, moved
 * back or forth by what the policy prefers.  Three things follow.  A run that comes later has a higher rank than one of the
 * same kind that waits, so whatever waits is first at some time and nothing starves.  Ageing costs nothing: two runs of different
 * priority gain by waiting at the same pace, so their order never changes, and no rank has to be
 * computed again.  And ranks of several databases, or of two policies after a reload, can be compared.
 *
 *	  priority				due - priority * ageing
 *	  fifo					due
 *	  earliest_deadline		due + deadline - an hour				(none: an hour)
 *	  rate_monotonic		due + ageing * log2(period / an hour)	(none: an hour)
 *	  round_robin			a tag of start-time fair queueing, see below
 *
 * The hour is what a job counts with that has no deadline or no period, a one-shot, say; so that its rank is that of fifo, and the
 * ranks of all policies are about the present.
 *
 * Lateness counts in full up to ORDER_LATE_US only.  A backlog (after a stop, a take-over, a backfill) would go before all that
 * comes due while it is worked off, however urgent that is; so what is later is taken for that late, and among itself it stays in the
 * order of due times.
 *
 * Rate monotonic order is a fixed priority by the period (Liu and Layland 1973, as are earliest deadlines); with the logarithm of
 * the period instead of its rank among the jobs no job has to know of the others, and with ageing the longest
 * period has its turn under overload too: a run has to wait one step of ageing more for each doubling of its job's period.
 *
 * Round robin is over jobs, not runs: start-time fair queueing (Goyal, Vin and Cheng 1996) with the same length for every run.
 * A run's tag is the virtual time, or a unit after the last tag of its job if that is later; the
 * virtual time is the tag of the run that was last taken.  So of a thousand runs of one job each waits a round more than the one before, and
 * the first of another job waits for none of them.  Tags are spaced by FAIR_UNIT_US, a fifth of what makes an executor leave
 * for another lane: roles alternate after some runs each and not, at the price of a process, after every one.  When nothing
 * waits or runs, the virtual time is set to the time as it is and tags of before are void; likewise when the policy becomes round_robin.
 * The virtual time lies in shared memory, as the databases share the executors; tags of jobs in the scheduler's.
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
			return from - job->policy.priority * ageing;
		case DISPATCH_EARLIEST_DEADLINE:
			return from + (job->policy.deadline > 0 ? job->policy.deadline : ORDER_HOUR_US) - ORDER_HOUR_US;
		case DISPATCH_RATE_MONOTONIC:
			return from + (int64) rint(ageing * log2((double) job_period(job, due) / ORDER_HOUR_US));
		default:
			return from;
	}
}

/* When it came due, but not too long ago: of what is over, a microsecond is left of a second, which keeps the order. */
static TimestampTz
counted_from(TimestampTz due)
{
	int64		late = scheduler.now - due;

	return late <= ORDER_LATE_US ? due : scheduler.now - ORDER_LATE_US - (late - ORDER_LATE_US) / USECS_PER_SEC;
}

/*
 * The shortest distance of the next few slots from 'due' on.  Looked for once in a generation: it is a property of the schedule, and the
 * few slots that do not show it (the last before expires_at) are not worth more.
 */
static int64
job_period(Job *job, TimestampTz due)
{
	if (job->period == 0 || job->period_gen != job->gen)
	{
		TimestampTz slot = job->usable && !job->rule.one_shot ? slot_next(&job->rule, due - 1) : 0;

		job->period_gen = job->gen;
		job->period = -1;
		for (int i = 1; i < PERIOD_SLOTS && slot != 0; i++)
		{
			TimestampTz next = slot_next(&job->rule, slot);

			if (next != 0 && (job->period < 0 || next - slot < job->period))
				job->period = next - slot;
			slot = next;
		}
	}
	return job->period > 0 ? job->period : ORDER_HOUR_US;
}

static int64
fair_tag(Job *job)
{
	uint64		period;
	int64		tag = dsched_queue_virtual_time(scheduler.now, !fair_goes_on, &period);

	fair_goes_on = true;
	if (job->fair_period == period)
		tag = Max(tag, job->fair_tag + FAIR_UNIT_US);
	job->fair_period = period;
	job->fair_tag = tag;
	return tag;
}
