/*
 * ranges.c
 *	  Slots that are due and wait, as a range: behind other runs of their job, or because a backfill asks for them.
 *
 * A job that is late, throttled or slow can have any number of slots that are due.  They are not opened one by one but kept as
 * "all slots of the rule from next to last", which costs one entry in memory and in the account whatever their number is; the
 * first is taken out and opened when the job has room for it.  A slot that is closed from the middle (skipped, cancelled)
 * splits a range or ends it, so that what a range holds is always all of its slots.
 *
 * After a restart or a take-over the first slots of a range may have rows already: those that were taken out after the last account.
 * They stand at its beginning, at most MAX_PARALLEL_RUNS apart, so that after so many slots without a row no
 * more is looked up (SlotRange.unsure).  A row that cannot be looked up now does no harm: the executor meets its key.
 *
 * Misfire.  With overlap skip a slot waits only behind a run that itself waits (for an executor, a limit, a session).  When that takes
 * longer than misfire_grace those slots follow the misfire policy as their turn comes, so that a job which cannot keep up does not fall
 * behind for ever.  The other overlap policies promise to run what waits.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "schedule/scheduler.h"

SlotRule
range_rule(const SlotRange *range)
{
	return range->rule != NULL ? *range->rule : job_rule(range->job);
}

static TimestampTz
next_slot(const SlotRange *range, TimestampTz after)
{
	SlotRule	rule = range_rule(range);

	return slot_next(&rule, after);
}

/* Adds a range to its job and partition; those of the schedule stand before backfills. */
SlotRange *
range_add(Job *job, const SlotRange *like)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	SlotRange  *range = MemoryContextAlloc(scheduler.context, sizeof(SlotRange));
	dlist_iter	iter;
	dlist_node *before = NULL;

	*range = *like;
	range->job = job;
	range->partition = job->partition;
	if (range->trigger_id == 0)
		dlist_foreach(iter, &job->work->ranges)
		{
			if (dlist_container(SlotRange, in_job, iter.cur)->trigger_id == 0)
				continue;
			before = iter.cur;
			break;
		}
	if (before != NULL)
		dlist_insert_before(before, &range->in_job);
	else
		dlist_push_tail(&job_work(job)->ranges, &range->in_job);
	dlist_push_tail(&partition->ranges, &range->in_partition);
	range->opened_in = throttle_opened(job);
	partition->nslots++;
	partition->nopen++;
	partition->nshown++;
	scheduler.nranges++;
	dlist_foreach(iter, &job->work->open)
		run_await(dlist_container(OpenRun, in_job, iter.cur));
	partition_touch(partition);
	return range;
}

SlotRange *
range_open(Job *job, TimestampTz first, TimestampTz last, RunReason reason, bool backlog)
{
	SlotRange	range = {0};

	range.gen = job->gen;
	range.reason = reason;
	range.next = first;
	range.last = last;
	range.backlog = backlog;
	return range_add(job, &range);
}

/* Nothing is left of it, or it is not ours any more. */
void
range_free(SlotRange *range)
{
	Partition  *partition = &scheduler.partitions[range->partition];

	dlist_delete(&range->in_job);
	job_advance_later(range->job);
	dlist_delete(&range->in_partition);
	throttle_closed(range->opened_in, range->partition);
	partition->nslots--;
	partition->nopen--;
	partition->nshown--;
	scheduler.nranges--;
	partition_touch(partition);
	if (range->rule != NULL)
		pfree(range->rule);
	pfree(range);
}

static bool
is_empty(const SlotRange *range)
{
	return range->next == 0 || range->next > range->last;
}

bool
range_covers(const SlotRange *range, TimestampTz slot)
{
	return slot >= range->next && slot <= range->last && next_slot(range, slot - 1) == slot;
}

/* Takes one slot out, which its caller closes; what is left of the range may be nothing: then it is gone. */
bool
range_exclude(SlotRange *range, TimestampTz slot)
{
	SlotRange	rest = *range;
	SlotRange  *half;

	if (!range_covers(range, slot))
		return false;
	rest.next = next_slot(range, slot);
	if (slot == range->next)
	{
		range->next = rest.next;
		if (is_empty(range))
			range_free(range);
		return true;
	}
	range->last = slot - 1;
	partition_touch(&scheduler.partitions[range->partition]);
	if (is_empty(&rest))
		return true;
	if (rest.rule != NULL)
		rest.rule = slot_rule_copy(scheduler.context, range->rule);
	half = range_add(range->job, &rest);
	dlist_delete(&half->in_job);
	dlist_insert_after(&range->in_job, &half->in_job);
	return true;
}

/* ---- looking up --------------------------------------------------------------------------------- */

static bool
is_open(const SlotRange *range, TimestampTz slot)
{
	dlist_iter	iter;

	dlist_foreach(iter, &range->job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id == range->trigger_id && run->key.scheduled_for == slot)
			return true;
	}
	return false;
}

/* What is known of the slot from its rows; true: it has its outcome, or is open. */
static bool
is_known(SlotRange *range, TimestampTz slot, RunHistory *history)
{
	RunKey		key = {slot, range->job->job_id, range->trigger_id, 1};

	memset(history, 0, sizeof(*history));
	if (range->unsure == 0)
		return false;
	if (is_open(range, slot))
		return true;
	if (!run_history_in_transaction(&key, history))
		return false;
	range->unsure = history->attempt != 0 ? MAX_PARALLEL_RUNS : range->unsure - 1;
	return history->attempt != 0 && history_is_final(range->job, history);
}

/* The row of the slot that was just taken out may stand for those after it, too. */
static void
pass_closed(SlotRange *range, const RunHistory *history)
{
	if (history->last_slot != 0 && range->next != 0 && range->next <= history->last_slot)
		range->next = next_slot(range, history->last_slot);
}

/* ---- closing ------------------------------------------------------------------------------------ */

/* One row for the slots from first to last, n of them. */
static void
close_slots(const SlotRange *range, TimestampTz first, TimestampTz last, int64 n, RunStatus status, const char *reason)
{
	ClosedSlot	closed;

	if (n == 0)
		return;
	describe_slot(&closed, range->job, first);
	closed.key.trigger_id = range->trigger_id;
	closed.gen = range->gen;
	closed.reason = range->reason;
	closed.reason_text = reason;
	closed.status = status;
	closed.slots = (int32) Min(n, PG_INT32_MAX);
	closed.last_slot = n > 1 ? last : 0;
	if (status == RUN_CANCELLED)
		describe_cancelled(&closed);
	closing_add(&closed);
	partition_touch(&scheduler.partitions[range->partition]);
}

/* From the first slot that has no row to the last before this one. */
static void
close_without_rows(const SlotRange *range, TimestampTz first, TimestampTz before, RunStatus status, const char *reason)
{
	SlotRule	rule = range_rule(range);
	TimestampTz newest;
	int64		n;

	if (first == 0)
		return;
	n = slot_count(&rule, first, before - 1, &newest, NULL);
	close_slots(range, first, newest, n, status, reason);
}

/* Those that may have rows are looked up one by one; those that have none go together, and with the rest of the range. */
static void
close_unsure(SlotRange *range, TimestampTz until, RunStatus status, const char *reason)
{
	TimestampTz without = 0;	/* the first of those right before next that have no row; 0: none */

	while (range->unsure > 0 && !is_empty(range) && range->next <= until)
	{
		TimestampTz slot = range->next;
		RunHistory	history;
		ClosedSlot	closed;
		bool		known = is_known(range, slot, &history);

		range->next = next_slot(range, slot);
		if (!known && history.attempt == 0)
		{
			if (without == 0)
				without = slot;
			continue;
		}
		close_without_rows(range, without, slot, status, reason);
		without = 0;
		if (known)
		{
			pass_closed(range, &history);
			continue;
		}
		describe_slot(&closed, range->job, slot);
		closed.key.trigger_id = range->trigger_id;
		closed.key.attempt = history.attempt + 1;
		closed.gen = range->gen;
		closed.reason = range->reason;
		closed.reason_text = reason;
		closed.status = status;
		if (status == RUN_CANCELLED)
			describe_cancelled(&closed);
		closing_add(&closed);
	}
	if (without != 0)
		range->next = without;
}

/* Ends the range: its slots up to 'until' get this outcome, those after it do not exist. */
void
range_close(SlotRange *range, TimestampTz until, RunStatus status, const char *reason)
{
	Partition  *partition = &scheduler.partitions[range->partition];
	int64		trigger_id = range->trigger_id;
	TimestampTz newest;
	int64		n;

	close_unsure(range, until, status, reason);
	if (!is_empty(range))
	{
		SlotRule	rule = range_rule(range);

		n = slot_count(&rule, range->next, Min(range->last, until), &newest, NULL);
		close_slots(range, range->next, newest, n, status, reason);
	}
	range_free(range);
	if (trigger_id != 0)
		backfill_may_be_done(partition, trigger_id);
}

/* ---- taking ------------------------------------------------------------------------------------- */

/*
 * Slots that have waited for too long, by the misfire policy.  True: the next one is the newest of those that were passed over.
 */
static bool
settle_late(SlotRange *range)
{
	const JobPolicy *policy = range->job->policy;
	SlotRule	rule = range_rule(range);
	TimestampTz end = Min(range->last, misfire_cutoff(range->job) - 1);
	TimestampTz newest,
				before;
	int64		n;

	if (policy->overlap != OVERLAP_SKIP || policy->misfire == MISFIRE_ALL || range->trigger_id != 0 ||
		range->job->one_shot || range->next > end)
		return false;
	n = slot_count(&rule, range->next, end, &newest, &before);
	if (policy->misfire == MISFIRE_SKIP)
	{
		close_slots(range, range->next, newest, n, RUN_MISSED, "late");
		range->next = next_slot(range, newest);
		return false;
	}
	close_slots(range, range->next, before, n - 1, RUN_MISSED, "late");
	range->next = newest;
	return n > 1;
}

/* A run of a slot that may have been started, or may have its outcome: then it is closed, false. */
static bool
settle_unsure(SlotRange *range, OpenRun *run)
{
	bool		taken_up = run_take_up(run);
	RunHistory	history;

	/* after that, so that what ends in between is seen */
	if (!run_history_in_transaction(&run->key, &history))
		return true;
	range->unsure = taken_up || history.attempt != 0 ? MAX_PARALLEL_RUNS : range->unsure - 1;
	if (taken_up)
	{
		run->failures = history.failures;
		run->lost = history.lost;
		return true;
	}
	pass_closed(range, &history);
	return resume_run(run, &history, "the process that ran it");
}

/* Has the next slot been started by somebody before us? */
static bool
next_is_known(const SlotRange *range)
{
	RunKey		key = {range->next, range->job->job_id, range->trigger_id, 1};
	RunHistory	history;

	if (is_open(range, range->next) || run_find_executor(&key, range->partition, NULL) >= 0)
		return true;
	/* after that, so that what ends in between is seen */
	return run_history_in_transaction(&key, &history) && history.attempt != 0;
}

/* Opens the next slot; false: there is none left, and the range is gone.  *run: NULL if none was opened this time. */
bool
range_take(SlotRange *range, OpenRun **run)
{
	Partition  *partition = &scheduler.partitions[range->partition];
	int64		trigger_id = range->trigger_id;
	bool		late;
	TimestampTz slot;
	RunKey		key = {0, range->job->job_id, trigger_id, 1};

	*run = NULL;
	/* one at a time: what has been started before stands at the beginning, without a gap */
	if (range->unsure > 0 && range->job->policy->overlap != OVERLAP_ALLOW && !is_empty(range) && !next_is_known(range))
		range->unsure = 0;
	late = range->unsure == 0 && settle_late(range);
	if (!is_empty(range))
	{
		slot = key.scheduled_for = range->next;
		range->next = next_slot(range, slot);
		partition_touch(partition);
		if (!is_open(range, slot))
		{
			*run = open_run(range->job, &key, late && range->reason == RUN_SCHEDULE ? RUN_CATCH_UP : range->reason);
			(*run)->gen = range->gen;
			(*run)->backlog |= range->backlog;
			if ((*run)->due > scheduler.now)
				(*run)->not_before = (*run)->due;
			run_consider(*run);
			if (range->unsure > 0 && !settle_unsure(range, *run))
				*run = NULL;
		}
	}
	if (!is_empty(range))
		return true;
	range_free(range);
	if (trigger_id != 0)
		backfill_may_be_done(partition, trigger_id);
	return false;
}
