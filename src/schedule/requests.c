/*
 * requests.c
 *	  What users ask of the owner of a job: one run now, the slots of a past range, the end of a run.
 *
 * A request is a row of dsched.outbox standalone and a key in etcd in a cluster, and stays until it is carried out: a
 * scheduler that dies, or a partition that moves, meets it again.  So each of them may be taken in several times:
 *
 *	  run now	the latest attempt in the rows decides whether it is done; an executor that is still at it is found
 *	  backfill	the account says how far it has come (a pending range with its id) and which of its runs are open; rows that are newer
 *				than the account are looked up (SlotRange.unsure)
 *	  cancel	is done when the run has ended; until then it holds for each new attempt
 *
 * A backfill means the schedule as it was when it was asked for: if another one is defined meanwhile, what is left is closed as
 * skipped ("redefined").
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"

static void run_now(Partition *partition, Job *job, const TriggerDef *trigger);
static void backfill(Partition *partition, Job *job, const TriggerDef *trigger);
static void cancel(Partition *partition, Job *job, const TriggerDef *trigger);

/* The request of a job that is gone. */
static void
close_orphan(Partition *partition, const TriggerDef *trigger)
{
	ClosedSlot	closed = {0};

	closed.key.scheduled_for = trigger->requested_at;
	closed.key.job_id = trigger->job_id;
	closed.key.trigger_id = trigger->trigger_id;
	closed.key.attempt = 1;
	closed.slots = 1;
	strlcpy(closed.job_name, trigger->job_name, sizeof(closed.job_name));
	strlcpy(closed.username, trigger->username, sizeof(closed.username));
	closed.reason = RUN_MANUAL;
	closed.reason_text = "unscheduled";
	closed.status = RUN_SKIPPED;
	closed.epoch = partition->epoch;
	closed.partition = partition->number;
	if (trigger->kind == TRIGGER_RUN)
		closing_add(&closed);
	request_done(partition, trigger->trigger_id);
}

/* It was for a job that ran on each instance, and does not any more. */
static void
close_moved(Partition *partition, const TriggerDef *trigger)
{
	ClosedSlot	closed;

	if (trigger->kind == TRIGGER_RUN)
	{
		describe_slot(&closed, timetable_find(trigger->job_id), trigger->requested_at);
		closed.key.trigger_id = trigger->trigger_id;
		closed.reason = RUN_MANUAL;
		closed.reason_text = "redefined";
		closed.status = RUN_SKIPPED;
		closed.epoch = partition->epoch;
		closed.partition = partition->number;
		closing_add(&closed);
	}
	request_done(partition, trigger->trigger_id);
}

void
open_trigger(Partition *partition, const TriggerDef *trigger)
{
	Job		   *job = timetable_find(trigger->job_id);

	if (job == NULL)
	{
		/* the one that its key is in sees to it that it has an end */
		if (place_of(partition->number) == PLACE_IS_ANY || partition_is_local(partition))
			close_orphan(partition, trigger);
		return;
	}
	if (job->partition != partition->number)
	{
		/* that of a job elsewhere; where it was asked for it has to end here, if the job has moved since */
		if (partition_is_local(partition))
			close_moved(partition, trigger);
		return;
	}
	switch (trigger->kind)
	{
		case TRIGGER_RUN:
			run_now(partition, job, trigger);
			break;
		case TRIGGER_BACKFILL:
			backfill(partition, job, trigger);
			break;
		case TRIGGER_CANCEL:
			cancel(partition, job, trigger);
			break;
	}
	job_advance_later(job);
}

/* ---- what was known before ------------------------------------------------------------------------ */

/* What a state that was read says of a request, kept until that is taken in. */
void
remember_request(Partition *partition, const PendingRun *pending)
{
	MemoryContext old = MemoryContextSwitchTo(scheduler.context);
	PendingRun *copy = palloc(sizeof(PendingRun));

	*copy = *pending;
	partition->known_requests = lappend(partition->known_requests, copy);
	MemoryContextSwitchTo(old);
}

static bool
is_taken_in(Partition *partition, int64 trigger_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->ranges)
		if (dlist_container(SlotRange, in_partition, iter.cur)->trigger_id == trigger_id)
			return true;
	dlist_foreach(iter, &partition->open)
		if (dlist_container(OpenRun, in_partition, iter.cur)->key.trigger_id == trigger_id)
			return true;
	return false;
}

/* One entry of what the state that was read says of a request; false: there is none, or no more. */
static bool
take_known(Partition *partition, int64 trigger_id, PendingRun *out)
{
	ListCell   *lc;

	foreach(lc, partition->known_requests)
	{
		PendingRun *pending = lfirst(lc);

		if (pending->trigger_id != trigger_id)
			continue;
		*out = *pending;
		partition->known_requests = foreach_delete_current(partition->known_requests, lc);
		pfree(pending);
		return true;
	}
	return false;
}

/* ---- run now -------------------------------------------------------------------------------------- */

/* Opens the run of a request where it stands by the account and the rows. */
static void
open_requested(Partition *partition, Job *job, const RunKey *key, RunReason reason, const PendingRun *known)
{
	RunHistory	history = {0};
	OpenRun    *run = open_run(job, key, reason);
	bool		known_remote = false;
	bool		taken_up;

	/* with a start row, so that one that takes the server down is counted */
	run->careful = scheduler.unclean;
	if (known != NULL)
	{
		run->key.attempt = known->attempt;
		run->failures = known->failures;
		run->lost = known->lost;
		run->not_before = known->not_before;
		if (run->not_before != 0)
			run_show(run);
		if (known->handed_over)
			known_remote = remote_open(run, known);
	}
	if (known_remote)
		return;
	taken_up = run_take_up(run);
	/* after that, so that what ends in between is seen; a table that cannot be read now does no harm: the executor meets the row */
	(void) run_history_in_transaction(key, &history);
	if (taken_up)
	{
		run->failures = Max(run->failures, history.failures);
		run->lost = Max(run->lost, history.lost);
		return;
	}
	if (history.attempt >= run->key.attempt)
		(void) resume_run(run, &history, "the process that ran it");
	else
	{
		if (known != NULL && known->session != 0)
			lose_run(run, "57P01", "the instance that ran it ended before it committed", 0, 0);
		else
			run_consider(run);
	}
}

static void
run_now(Partition *partition, Job *job, const TriggerDef *trigger)
{
	RunKey		key = {trigger->requested_at, trigger->job_id, trigger->trigger_id, 1};
	PendingRun	known = {0};

	if (is_taken_in(partition, trigger->trigger_id))
		return;
	if (take_known(partition, trigger->trigger_id, &known) && known.attempt > 0)
		key.attempt = known.attempt;
	open_requested(partition, job, &key, RUN_MANUAL, known.attempt > 0 ? &known : NULL);
}

/* ---- backfill --------------------------------------------------------------------------------------- */

/* What was left of it: there are several such ranges if a slot between them was cancelled. */
static void
add_rest(Job *job, const SlotRange *whole, TimestampTz first, TimestampTz last)
{
	SlotRange	range = *whole;

	range.next = first;
	range.last = last;
	range.rule = slot_rule_copy(scheduler.context, whole->rule);
	(void) range_add(job, &range);
}

static void
backfill(Partition *partition, Job *job, const TriggerDef *trigger)
{
	SlotRange	range = {0};
	SlotRange  *waiting;
	SlotRule	rule;
	bool		known = false;
	PendingRun	pending;

	if (is_taken_in(partition, trigger->trigger_id))
		return;
	range.trigger_id = trigger->trigger_id;
	range.gen = job->gen;
	range.reason = RUN_BACKFILL;
	range.backlog = true;
	range.unsure = MAX_PARALLEL_RUNS;
	range.rule_hash = trigger->rule;
	range.last = trigger->last;
	rule = job_rule(job);
	range.rule = slot_rule_copy(scheduler.context, &rule);
	slot_rule_narrow(range.rule, trigger->first, trigger->last);
	range.next = slot_next(range.rule, trigger->first - 1);

	/* while this one is there it is not done with, whatever becomes of its runs */
	waiting = range_add(job, &range);
	while (take_known(partition, trigger->trigger_id, &pending))
	{
		RunKey		key = {pending.slot, pending.job_id, pending.trigger_id, pending.attempt};

		known = true;
		if (pending.attempt > 0)
			open_requested(partition, job, &key, RUN_BACKFILL, &pending);
		else
			add_rest(job, waiting, pending.slot, pending.slot_to);
	}
	if (known)
		range_close(waiting, waiting->next - 1, RUN_SKIPPED, NULL);
	else if (waiting->next == 0)
		range_close(waiting, PG_INT64_MAX, RUN_SKIPPED, NULL);
	backfills_redefined(job);
}

/* The job has another definition: what is left of backfills of another schedule is not run by it. */
void
backfills_redefined(Job *job)
{
	dlist_mutable_iter iter;
	SlotRule	rule;

	if (dlist_is_empty(&job->work->ranges) || !job->usable)
		return;
	rule = job_rule(job);
	dlist_foreach_modify(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);

		if (range->trigger_id != 0 && range->rule_hash != slot_rule_hash(&rule))
			range_close(range, PG_INT64_MAX, RUN_SKIPPED, "redefined");
	}
}

/* ---- cancel ----------------------------------------------------------------------------------------- */

/* request: its id, done when the run has ended; 0: it goes with another one. */
static void
cancel_run(OpenRun *run, int64 request)
{
	run->cancelled = true;
	if (run->cancel_id == 0)
		run->cancel_id = request;
	else if (request != 0)
		request_done(&scheduler.partitions[run->partition], request);
	if (run->remote != 0)
		remote_cancel(run);
	else if (run->queued && !run_withdraw(run))
		(void) dsched_cancel_run(run->entry, &run->key);
	else
		close_cancelled(run);
}

/* A slot that waits in a range, or all that do. */
static void
cancel_waiting(Job *job, const TriggerDef *trigger)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->work->ranges)
	{
		SlotRange  *range = dlist_container(SlotRange, in_job, iter.cur);
		ClosedSlot	closed;

		if (range->trigger_id != trigger->target)
			continue;
		if (trigger->slot == TRIGGER_ALL)
		{
			range_close(range, PG_INT64_MAX, RUN_CANCELLED, NULL);
			continue;
		}
		describe_slot(&closed, job, trigger->slot);
		closed.key.trigger_id = range->trigger_id;
		closed.gen = range->gen;
		closed.reason = range->reason;
		describe_cancelled(&closed);
		if (range_exclude(range, trigger->slot))
		{
			closing_add(&closed);
			if (trigger->target != 0)
				backfill_may_be_done(&scheduler.partitions[job->partition], trigger->target);
			return;
		}
	}
}

static void
cancel(Partition *partition, Job *job, const TriggerDef *trigger)
{
	dlist_mutable_iter iter;
	bool		waits = false;

	dlist_foreach_modify(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id != trigger->target ||
			(trigger->slot != TRIGGER_ALL && run->key.scheduled_for != trigger->slot))
			continue;
		/* the request goes with the first of them that is still running */
		if (waits)
		{
			cancel_run(run, 0);
			continue;
		}
		cancel_run(run, trigger->trigger_id);
		waits = true;
	}
	cancel_waiting(job, trigger);
	if (!waits)
		request_done(partition, trigger->trigger_id);
}
