/*
 * runs.c
 *	  The life of an open run, and what is written about it.
 *
 * An open run is a slot or a request between "due" and "accounted for".  It is a member of its job's list, as long as that
 * job is there, and of its partition's, which is what the partition's account lists.  Where it is in
 * between (in a heap of waiting.c, in the shared queue, with an executor) is known to waiting.c and queue.c.
 *
 * Private memory of the scheduler.  Nothing here writes: rows are left to closing.c, accounts to partition.c.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

static OpenRun **runs_by_entry = NULL;	/* who has each entry of the shared queue; NULL: none of ours */

static TimestampTz
job_due(const Job *job, TimestampTz slot)
{
	SlotRule	rule = job_rule(job);

	return slot_due(&rule, slot);
}

OpenRun *
open_run(Job *job, const RunKey *key, RunReason reason)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	OpenRun    *run = MemoryContextAllocZero(scheduler.runs, MAXALIGN(sizeof(OpenRun)));

	minheap_node_init(&run->wait);
	run->job = job;
	run->partition = job->partition;
	run->key = *key;
	run->gen = job->gen;
	run->reason = reason;
	run->of_backfill = run->backlog = reason == RUN_BACKFILL;
	run->due = run->of_backfill ? scheduler.now :
		key->trigger_id != 0 ? key->scheduled_for : job_due(job, key->scheduled_for);
	run->entry = -1;
	dlist_push_tail(&job_work(job)->open, &run->in_job);
	job->work->nopen++;
	dlist_push_tail(&partition->open, &run->in_partition);
	partition->nopen++;
	if (key->trigger_id == 0)
		run->opened_in = throttle_opened(job);
	if (key->trigger_id == 0 || run->of_backfill)
		partition->nslots++;
	scheduler.waiting++;
	partition_touch(partition);
	/* what else is to be known of it follows in this turn, before anything is queued */
	run_consider(run);
	return run;
}

static void
forget_run(OpenRun *run)
{
	Job		   *job = run->job;

	run_wait_nowhere(run);
	if (run->queued)
		run_is_not_queued(run);
	if (run->remote != 0)
		remote_forget(run);
	scheduler.waiting--;
	if (job != NULL)
	{
		dlist_delete(&run->in_job);
		job->work->nopen--;
		job_advance_later(job);
	}
	dlist_delete(&run->in_partition);
	scheduler.partitions[run->partition].nopen--;
	if (run->opened_in != NULL)
		throttle_closed(run->opened_in, run->partition);
	if (run->key.trigger_id == 0 || run->of_backfill)
		scheduler.partitions[run->partition].nslots--;
	scheduler.partitions[run->partition].nshown -= run->shown;
	if (run->mark != NULL)
		pfree(run->mark);
	if (run->orphan != NULL)
		pfree(run->orphan);
	pfree(run);
}

void
run_is_queued(OpenRun *run, int entry)
{
	if (runs_by_entry == NULL)
		runs_by_entry = MemoryContextAllocExtended(scheduler.context, sizeof(OpenRun *) * dsched_shared->queue_size,
												   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	runs_by_entry[entry] = run;
	run->queued = true;
	run->entry = entry;
	scheduler.waiting--;
	if (run->careful)
		scheduler.careful_running++;
	throttle_count(run, true);
}

void
run_is_not_queued(OpenRun *run)
{
	if (run->in_doubt)
	{
		run->in_doubt = false;
		scheduler.in_doubt--;
	}
	else if (runs_by_entry[run->entry] == run)
		runs_by_entry[run->entry] = NULL;
	run->queued = run->bound = false;
	run->entry = -1;
	scheduler.waiting++;
	if (run->careful)
		scheduler.careful_running--;
	throttle_count(run, false);
}

/*
 * Its executor has left it prepared, and the entry is gone: it goes on counting as one that runs, so that nothing takes its place, is
 * no longer to be withdrawn or cancelled, and ends when it is settled.
 */
void
run_is_in_doubt(OpenRun *run)
{
	runs_by_entry[run->entry] = NULL;
	run->entry = -1;
	run->in_doubt = true;
	scheduler.in_doubt++;
}

/*
 * Until its entry is taken back nobody else gets it, so the index alone would do.  But an entry may be that of a scheduler before
 * us, or of a run that we have dropped with its partition.
 */
OpenRun *
run_of_entry(int entry, const RunKey *key)
{
	OpenRun    *run = runs_by_entry != NULL ? runs_by_entry[entry] : NULL;

	return run != NULL && run_key_same(&run->key, key) ? run : NULL;
}

void
run_await(OpenRun *run)
{
	if (run->queued && !run->in_doubt)
		dsched_queue_await(scheduler.db, run->entry);
}

bool
run_withdraw(OpenRun *run)
{
	if (!run->queued || !dsched_queue_withdraw_entry(scheduler.db, run->entry, &run->key))
		return false;
	run_is_not_queued(run);
	return true;
}

/* Its request can go. */
void
request_done(Partition *partition, int64 trigger_id)
{
	MemoryContext old;
	int64	   *id;

	if (partition_is_local(partition))
	{
		sync_trigger_done(trigger_id);
		return;
	}
	old = MemoryContextSwitchTo(scheduler.context);
	id = palloc(sizeof(int64));
	*id = trigger_id;
	partition->done_triggers = lappend(partition->done_triggers, id);
	MemoryContextSwitchTo(old);
	partition_touch(partition);
}

/* A backfill is done with when the last of its runs is, and nothing is left of its range. */
void
backfill_may_be_done(Partition *partition, int64 trigger_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->ranges)
		if (dlist_container(SlotRange, in_partition, iter.cur)->trigger_id == trigger_id)
			return;
	dlist_foreach(iter, &partition->open)
		if (dlist_container(OpenRun, in_partition, iter.cur)->key.trigger_id == trigger_id)
			return;
	request_done(partition, trigger_id);
}

void
close_run(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];
	Job		   *job = run->job;
	int64		trigger_id = run->key.trigger_id;
	bool		of_backfill = run->of_backfill;

	marks_close(run);
	if (trigger_id == 0 && job != NULL && job->one_shot && run->gen == job->gen)
		sync_retire(run->key.job_id);
	if (run->cancel_id != 0)
		request_done(partition, run->cancel_id);
	purge_slot_closed(partition, run->key.scheduled_for);
	partition_touch(partition);
	forget_run(run);
	if (of_backfill)
		backfill_may_be_done(partition, trigger_id);
	else if (trigger_id != 0)
		request_done(partition, trigger_id);
	if (job != NULL)
		job_advance_later(job);
}

void
drop_runs(Partition *partition)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (run->queued)
			(void) dsched_queue_withdraw_entry(scheduler.db, run->entry, &run->key);
		forget_run(run);
	}
	dlist_foreach_modify(iter, &partition->ranges)
		range_free(dlist_container(SlotRange, in_partition, iter.cur));
	list_free_deep(partition->known_requests);
	partition->known_requests = NIL;
}

bool
run_is_running(const OpenRun *run)
{
	const RunEntry *entry;
	bool		running;

	if (run->remote != 0 || run->in_doubt)
		return true;
	if (!run->queued || run->entry < 0)
		return false;
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	entry = &dsched_shared->entries[run->entry];
	running = entry->state == ENTRY_RUNNING && entry->key.job_id == run->key.job_id &&
		entry->key.scheduled_for == run->key.scheduled_for;
	LWLockRelease(dsched_shared->queue_lock);
	return running;
}

/*
 * The entry of a run, whatever its attempt is (*attempt), that an executor is making under the partition's epoch, or under our session
 * alone since it was handed over; -1: none is.
 */
int
run_find_executor(const RunKey *key, int partition, int32 *attempt)
{
	uint64		epoch = scheduler.partitions[partition].epoch;
	int			found = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors && found < 0; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];
		const RunEntry *entry;

		if (executor->state != EXECUTOR_BUSY || executor->entry < 0)
			continue;
		entry = &dsched_shared->entries[executor->entry];
		if (entry->token.db != scheduler.db || (entry->token.epoch != epoch && !entry->session_bound) ||
			entry->token.partition != partition || entry->token.session != scheduler.partitions[partition].session ||
			entry->key.job_id != key->job_id ||
			entry->key.scheduled_for != key->scheduled_for || entry->key.trigger_id != key->trigger_id)
			continue;
		found = executor->entry;
		if (attempt != NULL)
			*attempt = entry->key.attempt;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

/* Takes up a run that an executor is still making, as its scheduler died; false: none is. */
bool
run_take_up(OpenRun *run)
{
	int			entry = run_find_executor(&run->key, run->partition, &run->key.attempt);

	if (entry < 0)
		return false;
	run->careful = false;
	run_wait_nowhere(run);
	run_is_queued(run, entry);
	run->bound = dsched_shared->entries[entry].session_bound;
	run_await(run);
	return true;
}

int
open_runs_of_all(void)
{
	int			n = 0;

	for (int i = 0; i < places_all(); i++)
		n += scheduler.partitions[i].nopen;
	return n;
}

/* ---- what is written --------------------------------------------------------------------------- */

void
describe_slot(ClosedSlot *closed, const Job *job, TimestampTz slot)
{
	memset(closed, 0, sizeof(*closed));
	closed->key.scheduled_for = slot;
	closed->key.job_id = job->job_id;
	closed->key.attempt = 1;
	closed->slots = 1;
	strlcpy(closed->job_name, job->job_name, sizeof(closed->job_name));
	strlcpy(closed->username, job->username, sizeof(closed->username));
	closed->gen = job->gen;
	closed->reason = RUN_SCHEDULE;
	closed->epoch = scheduler.partitions[job->partition].epoch;
	closed->partition = job->partition;
}

void
describe_run(ClosedSlot *closed, const OpenRun *run)
{
	const char *job_name = run->job != NULL ? run->job->job_name : run->orphan != NULL ? run->orphan->job_name : "";
	const char *username = run->job != NULL ? run->job->username : run->orphan != NULL ? run->orphan->username : "";

	memset(closed, 0, sizeof(*closed));
	closed->key = run->key;
	closed->slots = 1;
	strlcpy(closed->job_name, job_name, sizeof(closed->job_name));
	strlcpy(closed->username, username, sizeof(closed->username));
	closed->gen = run->gen;
	closed->reason = run->reason;
	closed->epoch = scheduler.partitions[run->partition].epoch;
	closed->partition = run->partition;
	closed->was_open = true;
}

void
describe_cancelled(ClosedSlot *closed)
{
	closed->status = RUN_CANCELLED;
	strlcpy(closed->sqlstate, "57014", sizeof(closed->sqlstate));
	strlcpy(closed->message, "canceling job due to request", sizeof(closed->message));
}

/* ---- runs whose generation is over --------------------------------------------------------------- */

/*
 * Its executor had it, but could not make it, when its job was removed or got another generation: end_generation() took it for
 * started.  It never will be.
 */
bool
run_is_void(const OpenRun *run)
{
	return !run->queued && run->remote == 0 && (run->job == NULL || (run->key.trigger_id == 0 && run->gen != run->job->gen));
}

void
run_close_void(OpenRun *run)
{
	ClosedSlot	closed;

	if (run->job != NULL && run->key.trigger_id == 0 &&
		(run->key.scheduled_for > run->job->slots_from ||
		 (run->job->one_shot && run->key.scheduled_for == run->job->base)))
	{
		/* the generation after it has this slot */
		run->gen = 0;
		close_run(run);
		return;
	}
	describe_run(&closed, run);
	closed.reason_text = run->job == NULL ? "unscheduled" : run->job->active ? "redefined" : "paused";
	closed.status = RUN_SKIPPED;
	closing_add(&closed);
	run->gen = 0;
	close_run(run);
}
