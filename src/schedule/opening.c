/*
 * opening.c
 *	  From a slot that is due to an open run, a range that waits, or a row that says why it is not run.
 *
 * Lateness (misfire).  Of the slots that are opened later than the job's misfire_grace, after a stop, a take-over, a jump of the
 * clock, the newest is run (latest), all are (all), or none is (skip); the others are closed by one row with status missed.
 * Slots less late than that are opened one by one.  With jitter the grace counts from the end of the jitter's window.
 *
 * Overlap.  What a slot that comes due finds of its job decides:
 *
 *	  skip				while a run of it is running the slot is skipped; while one only waits, the slot waits behind it
 *	  queue_one			one slot waits behind what runs; a further one is skipped
 *	  queue_all			it waits
 *	  allow				it runs beside the others, up to MAX_PARALLEL_RUNS
 *	  cancel_running	what runs is cancelled, what waits is skipped, and it runs as soon as that has ended
 *
 * "Running" includes a run that failed and waits for its next attempt: the slot before is not done with.  It
 * does not include a run of a backlog, one that was opened late because nobody was there to open it in time or could not
 * be started because the session had lapsed, nor one of a backfill: what comes due while a backlog is
 * worked off is run after it, so that a take-over loses nothing.  Requests (run_now, backfill) are neither skipped nor
 * cancelled by slots.
 *
 * Slots are opened in the order of their due times within a partition, up to now, so that the watermark of its
 * account can say which of them are open.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define LATE_OPENING_US INT64CONST(1000000)
/* Late slots that are looked at one by one before it is left to calculation. */
#define MAX_STEPS 1000

static bool has_lapsed(int number);
static void supersede(Job *job);

/* ---- closing ------------------------------------------------------------------------------------ */

static void
close_skipped(Job *job, TimestampTz slot, const char *reason)
{
	ClosedSlot	closed;

	describe_slot(&closed, job, slot);
	closed.status = RUN_SKIPPED;
	closed.reason_text = reason;
	closing_add(&closed);
	partition_touch(&scheduler.partitions[job->partition]);
}

static void
close_missed(Job *job, TimestampTz first, TimestampTz last, int64 n)
{
	ClosedSlot	closed;

	if (n == 0)
		return;
	describe_slot(&closed, job, first);
	closed.status = RUN_MISSED;
	closed.reason_text = "late";
	closed.slots = (int32) Min(n, PG_INT32_MAX);
	closed.last_slot = n > 1 ? last : 0;
	closing_add(&closed);
	partition_touch(&scheduler.partitions[job->partition]);
}

/* ---- what a slot finds -------------------------------------------------------------------------- */

static bool
is_at_work(const OpenRun *run)
{
	return !run->backlog && (run->failures > 0 || run->cancelled || run_is_running(run));
}

bool
job_is_running(Job *job)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->open)
		if (is_at_work(dlist_container(OpenRun, in_job, iter.cur)))
			return true;
	return false;
}

/* Does a slot that came due in time wait already? */
static bool
one_waits(Job *job)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id == 0 && !range->backlog)
			return true;
	}
	dlist_foreach(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id == 0 && !run->backlog && !is_at_work(run))
			return true;
	}
	return false;
}

static bool
already_open(Job *job, TimestampTz slot)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id == 0 && run->key.scheduled_for == slot && run->gen == job->gen)
			return true;
	}
	dlist_foreach(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id == 0 && range->gen == job->gen && slot >= range->next && slot <= range->last)
			return true;
	}
	return false;
}

/* Is the partition ours, but nothing can be started in it until the session was renewed? */
static bool
has_lapsed(int number)
{
	Partition  *partition = &scheduler.partitions[number];
	RunToken	token = {partition->session, partition->epoch, scheduler.db, number};

	return !dsched_token_holds(&token);
}

static bool
has_waiting_slots(const Job *job)
{
	return !dlist_is_empty(&job->work->ranges) &&
		dlist_container(SlotRange, in_job, dlist_head_node(&job->work->ranges))->trigger_id == 0;
}

static bool
has_room(const Job *job)
{
	if (job->policy->overlap == OVERLAP_ALLOW)
		return job->work->nopen < MAX_PARALLEL_RUNS;
	return job->work->nopen == 0;
}

/* ---- opening ------------------------------------------------------------------------------------ */

/*
 * The slot waits behind what its job has: with the slots before it, where these are of its kind and none lies between them that is
 * open or closed already.
 */
static void
wait_behind(Job *job, TimestampTz slot, RunReason reason, bool backlog)
{
	SlotRule	rule = job_rule(job);
	SlotRange  *last = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id == 0)
			last = range;
	}
	if (last == NULL || last->gen != job->gen || last->reason != reason || last->backlog != backlog ||
		slot_next(&rule, last->last) != slot)
		(void) range_open(job, slot, slot, reason, backlog);
	else
	{
		last->last = slot;
		partition_touch(&scheduler.partitions[job->partition]);
	}
}

static void
open_slot(Job *job, TimestampTz slot, TimestampTz due, RunReason reason)
{
	RunKey		key = {slot, job->job_id, 0, 1};
	/* what is not due yet is opened now only because another clock was ahead of ours */
	bool		late = scheduler.now - due > LATE_OPENING_US || due > scheduler.now || has_lapsed(job->partition);
	OpenRun    *run;

	if (job->policy->overlap == OVERLAP_CANCEL_RUNNING && !job->one_shot && !late)
		supersede(job);
	if (has_room(job) && !has_waiting_slots(job))
	{
		run = open_run(job, &key, reason);
		run->backlog |= late;
		if (due > scheduler.now)
		{
			run->not_before = due;
			run_consider(run);
		}
		return;
	}
	if (!job->one_shot && !late &&
		((job->policy->overlap == OVERLAP_SKIP && job_is_running(job)) ||
		 (job->policy->overlap == OVERLAP_QUEUE_ONE && one_waits(job))))
	{
		close_skipped(job, slot, "overlap");
		return;
	}
	wait_behind(job, slot, reason, late);
}

/* A newer slot takes the place of those of its job that are open: what runs is told to end, what waits is skipped. */
static void
supersede(Job *job)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);
		ClosedSlot	closed;

		if (run->key.trigger_id != 0)
			continue;
		if (run->remote != 0)
		{
			remote_cancel(run);
			continue;
		}
		if (run->queued && !run_withdraw(run))
		{
			if (!run->cancelled)
				(void) dsched_cancel_run(run->entry, &run->key);
			run->cancelled = true;
			continue;
		}
		describe_run(&closed, run);
		closed.status = run->key.attempt > 1 ? RUN_CANCELLED : RUN_SKIPPED;
		closed.reason_text = "overlap";
		closing_add(&closed);
		close_run(run);
	}
	dlist_foreach_modify(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id == 0)
			range_close(range, PG_INT64_MAX, RUN_SKIPPED, "overlap");
	}
}

/* ---- late slots --------------------------------------------------------------------------------- */

/* Slots before this are late by more than the job's grace. */
TimestampTz
misfire_cutoff(const Job *job)
{
	return scheduler.now - job->policy->misfire_grace - job->policy->jitter;
}

/*
 * The job's slots from 'slot' to 'end', all late, by the misfire policy.  Those that are open or closed already stand, if
 * anywhere, among the first, as what is behind them has not been looked at.
 */
static void
open_late(Job *job, TimestampTz slot, TimestampTz end, TimestampTz (*closed) (Job *job, TimestampTz slot))
{
	const SlotRule whole = job_rule(job);
	const SlotRule *rule = &whole;
	TimestampTz first = 0,
				newest = 0,
				before = 0;
	int64		n = 0;

	for (int steps = 0; slot != 0 && slot <= end && steps < MAX_STEPS; steps++)
	{
		TimestampTz known = already_open(job, slot) ? slot : closed ? closed(job, slot) : 0;

		if (known == 0)
		{
			if (job->policy->misfire == MISFIRE_ALL)
				wait_behind(job, slot, RUN_CATCH_UP, true);
			if (n++ == 0)
				first = slot;
			before = newest;
			newest = slot;
		}
		slot = slot_next(rule, Max(known, slot));
	}
	if (slot != 0 && slot <= end)
	{
		TimestampTz rest_newest,
					rest_before;
		int64		rest = slot_count(rule, slot, end, &rest_newest, &rest_before);

		if (job->policy->misfire == MISFIRE_ALL)
		{
			SlotRange  *range = range_open(job, slot, end, RUN_CATCH_UP, true);

			range->unsure = closed != NULL ? MAX_PARALLEL_RUNS : 0;
		}
		if (n == 0)
			first = slot;
		before = rest > 1 ? rest_before : newest;
		newest = rest_newest;
		n += rest;
	}
	if (n == 0)
		return;
	if (job->policy->misfire == MISFIRE_SKIP)
		close_missed(job, first, newest, n);
	else if (job->policy->misfire == MISFIRE_LATEST)
	{
		close_missed(job, first, before, n - 1);
		wait_behind(job, newest, RUN_CATCH_UP, true);
	}
	job_advance(job);
}

void
dispatch_job_until(Job *job, TimestampTz slot, TimestampTz limit, TimestampTz (*closed) (Job *job, TimestampTz slot))
{
	const SlotRule whole = job_rule(job);
	const SlotRule *rule = &whole;
	TimestampTz cutoff = misfire_cutoff(job);
	TimestampTz due;

	/* a one-shot is never too late: it was promised once */
	if (slot != 0 && slot < cutoff && slot_due(rule, slot) <= limit && !rule->one_shot)
	{
		TimestampTz end = Min(cutoff - 1, limit);
		TimestampTz newest;

		/* the limit can lie before the cutoff, and with jitter between the last slot and when that is due */
		if (rule->jitter > 0 && limit < cutoff && slot_count(rule, slot, end, &newest, NULL) > 0 &&
			slot_due(rule, newest) > limit)
			end = newest - 1;
		open_late(job, slot, end, closed);
		slot = slot_next(rule, end);
		/* and with it all that is due by then, when this is over */
		job->opened = Max(job->opened, Min(limit, end + rule->jitter));
	}
	for (; slot != 0 && (due = slot_due(rule, slot)) <= limit; slot = slot_next(rule, slot))
	{
		TimestampTz known;

		CHECK_FOR_INTERRUPTS();
		/* below a watermark that is ahead of our clock there can be any number: see dispatch_due_slots() */
		if (due > scheduler.now && !throttle_may_open(job))
			break;
		job->opened = Max(job->opened, due);
		if (already_open(job, slot))
			continue;
		known = closed ? closed(job, slot) : 0;
		if (known == 0)
			open_slot(job, slot, due, RUN_SCHEDULE);
		else
			slot = known;
	}
	timetable_plan_slot(job, slot);
}

/* ---- what is due -------------------------------------------------------------------------------- */

/*
 * Room.  A partition's account lists what is open, so only so much may be, of each throttle queue and in all.  A job whose slot finds no
 * room is blocked: the slot, and those after it, stay unopened, and the watermark stays right before the first such slot of
 * the partition.  Other jobs go on; of those the account says how far beyond the watermark they are ("done").  So a flood of
 * one queue holds up nobody else.
 */
static bool
is_after_watermark(const Partition *partition, const HeapNode *node)
{
	return node->time > partition->watermark ||
		(node->time == partition->watermark && node->id > partition->watermark_job);
}

/* Notes that the job is accounted for beyond the watermark, which needs an entry while others are blocked. */
static void
note_ahead(Job *job)
{
	Partition  *partition = &scheduler.partitions[job->partition];

	if (job->ahead == partition->ahead_round || !partition->behind)
		return;
	job->ahead = partition->ahead_round;
	partition->nahead++;
}

/* To now, or to the first slot that is not opened. */
static void
move_watermark(Partition *partition)
{
	HeapNode   *blocked = throttle_first_blocked(partition);

	if (blocked == NULL)
	{
		partition->behind = false;
		if (partition->watermark >= scheduler.now)
			return;
		partition->watermark = scheduler.now;
		partition->watermark_job = KEYS_MAX_ID;
	}
	else if (is_after_watermark(partition, blocked))
	{
		partition->watermark = blocked->time;
		partition->watermark_job = blocked->id - 1;
	}
}

void
dispatch_due_slots(void)
{
	HeapNode   *node;
	bool		opened[DSCHED_MAX_PARTITIONS] = {false};

	if (pg_atomic_read_u32(&dsched_shared->clock_suspect) != 0)
		return;
	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (partition->step != STEP_ACTIVE)
			continue;
		if (partition->nblocked > 0)
			throttle_resume(partition);
		if (partition->crowded && partition->nslots < MAX_OPEN_RUNS_IN_ALL)
		{
			partition->crowded = false;
			partition_consider(partition);
		}
	}
	while ((node = minheap_peek(timetable_heap())) != NULL)
	{
		Job		   *job = (Job *) ((char *) node - offsetof(Job, next));
		Partition  *partition = &scheduler.partitions[job->partition];
		TimestampTz limit = scheduler.now;

		/* a clock that is behind the former owner's: its watermark says that these slots are accounted for */
		if (!partition->behind && partition->watermark > limit)
			limit = partition->watermark;
		if (node->time > limit || (node->time > scheduler.now && !throttle_may_open(job)))
			break;
		/* what is in its way may have ended */
		if ((job->work->nopen > 0 || !throttle_may_open(job)) && dispatch_finished())
			continue;
		opened[job->partition] = true;
		partition_touch(partition);
		/* what came late, below the watermark, is in no account until it is open */
		if (!throttle_may_open(job) && is_after_watermark(partition, node))
			throttle_block(job, node->time);
		else
		{
			dispatch_job_until(job, job->next_slot, limit, NULL);
			note_ahead(job);
		}
	}
	/* not before all of them are open: till then the watermark says which of them are in no account yet */
	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (opened[i] || (partition->behind && partition->nblocked == 0 && partition->step == STEP_ACTIVE))
			move_watermark(partition);
	}
}

/* ---- going on ------------------------------------------------------------------------------------ */

void
job_advance(Job *job)
{
	OpenRun    *run;

	if (job->work->advancing)
	{
		dlist_delete(&job->work->to_advance);
		job->work->advancing = false;
	}
	if (!partition_is_active(job->partition))
	{
		job_work_done(job);
		return;
	}
	while (!dlist_is_empty(&job->work->ranges) && has_room(job))
	{
		/* what is open and in no account would be lost with us */
		if (scheduler.partitions[job->partition].nslots >= MAX_LISTED_RUNS)
		{
			scheduler.partitions[job->partition].crowded = true;
			break;
		}
		CHECK_FOR_INTERRUPTS();
		(void) range_take(dlist_head_element(SlotRange, in_job, &job->work->ranges), &run);
	}
	job_consider(job);
	job_work_done(job);
}

/* For where lists are being walked: a job's next slots are opened when that is over. */
void
job_advance_later(Job *job)
{
	/* nothing is open, and nothing was */
	if (job->work->job == NULL || job->work->advancing)
		return;
	job->work->advancing = true;
	dlist_push_tail(&scheduler.advancing, &job->work->to_advance);
}

void
advance_jobs(void)
{
	while (!dlist_is_empty(&scheduler.advancing))
		job_advance(dlist_head_element(JobWork, to_advance, &scheduler.advancing)->job);
}

/* ---- the end of a generation ---------------------------------------------------------------------- */

void
end_requests(Job *job)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);
		ClosedSlot	closed;

		if (run->key.trigger_id == 0 || (run->queued && !run_withdraw(run)))
			continue;
		describe_run(&closed, run);
		closed.status = RUN_SKIPPED;
		closed.reason_text = "redefined";
		closing_add(&closed);
		close_run(run);
	}
	dlist_foreach_modify(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id != 0)
			range_close(range, PG_INT64_MAX, RUN_SKIPPED, "redefined");
	}
}

void
end_generation(Job *job, TimestampTz until, TimestampTz run_at, const char *reason)
{
	bool		unscheduled = strcmp(reason, "unscheduled") == 0;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);
		ClosedSlot	closed;

		/* a request to run it does not depend on the schedule, unless the job is gone */
		if (run->key.trigger_id != 0 && !unscheduled)
			continue;
		if (run->remote != 0 || (run->queued && !run_withdraw(run)))
			continue;			/* started: it goes on */
		if (run->key.trigger_id != 0 || (run->key.scheduled_for <= until && run->key.scheduled_for != run_at))
		{
			describe_run(&closed, run);
			closed.status = RUN_SKIPPED;
			closed.reason_text = reason;
			closing_add(&closed);
		}
		/* else the generation after it has this slot, or it never belonged to its own */
		run->gen = 0;			/* a one-shot that was replaced is not done with */
		close_run(run);
	}
	dlist_foreach_modify(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id == 0)
			range_close(range, until, RUN_SKIPPED, reason);
		else if (unscheduled)
			range_close(range, PG_INT64_MAX, RUN_SKIPPED, reason);
	}
}
