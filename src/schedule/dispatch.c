/*
 * dispatch.c
 *	  From a slot that is due to a run that is accounted for.
 *
 * A slot that comes due becomes an open run, or is closed at once (skipped because its job is running, missed
 * because it is too late).  Open runs of one job run one after another, oldest first; the first of them goes into the
 * shared queue.  An executor's finished entry closes its open run, or opens it again with the
 * next attempt when the attempt was lost.
 *
 * Overlap.  A slot that comes due while a run of its job is running is skipped.  Three things are not "running":
 * a run that still waits in the queue (the new slot waits behind it); a run that is finished but not yet
 * collected; and a run of a backlog, one that was opened late because nobody was there to open it in time, or could not be
 * started then because the session had lapsed: what comes due
 * while a backlog is worked off is run after it, so that a take-over loses nothing.
 *
 * Lateness.  Of the slots that are opened later than MISFIRE_GRACE_US the newest is run (reason catch_up) and the
 * others are closed by one row with status missed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define FINISHED_BATCH 64
#define RETRY_SOON_US INT64CONST(50000)
#define RETRY_LATER_US INT64CONST(1000000)
#define LATE_OPENING_US INT64CONST(1000000)
/* How long a recovered run is alone: what kills a server does it soon, and long runs must not hold up the others. */
#define CAREFUL_ALONE_US INT64CONST(500000)

static bool job_is_running(Job *job);
static bool has_lapsed(int number);
static void open_slot(Job *job, TimestampTz slot);
static void close_skipped(Job *job, TimestampTz slot, const char *reason);
static void close_missed(Job *job, TimestampTz first, TimestampTz last, int32 n);
static bool already_open(Job *job, TimestampTz slot);
static int	running_trigger(Partition *partition, int64 trigger_id);
static void describe_run(ClosedSlot *closed, const OpenRun *run);
static OpenRun *find_open_run(const RunEntry *entry);
static void finish_run(OpenRun *run, const RunEntry *entry);
static void settle_unrecorded(OpenRun *run, const RunEntry *entry);
static void requeue(OpenRun *run, int64 delay);
static bool may_dispatch(OpenRun *run);
static bool is_of_next(const OpenRun *run, TimestampTz until, TimestampTz run_at);
static bool is_void(const OpenRun *run);
static void close_void(OpenRun *run);
static bool look_up_role(Job *job);
static bool resolve_role(Job *job);
static void push_run(OpenRun *run);

/* ---- opening --------------------------------------------------------------------------------- */

bool
run_is_running(const OpenRun *run)
{
	const RunEntry *entry;
	bool		running;

	if (!run->queued || run->entry < 0)
		return false;
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	entry = &dsched_shared->entries[run->entry];
	running = entry->state == ENTRY_RUNNING && entry->key.job_id == run->key.job_id &&
		entry->key.scheduled_for == run->key.scheduled_for;
	LWLockRelease(dsched_shared->queue_lock);
	return running;
}

/* Only the first of a job's open runs can be with an executor. */
static bool
job_is_running(Job *job)
{
	OpenRun    *first;

	if (dlist_is_empty(&job->open))
		return false;
	first = dlist_head_element(OpenRun, in_job, &job->open);
	return !first->backlog && run_is_running(first);
}

OpenRun *
open_run(Job *job, const RunKey *key, RunReason reason)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	OpenRun    *run = MemoryContextAllocZero(scheduler.context, sizeof(OpenRun));

	run->job = job;
	run->partition = job->partition;
	run->key = *key;
	run->gen = job->gen;
	run->reason = reason;
	run->entry = -1;
	dlist_push_tail(&job->open, &run->in_job);
	dlist_push_tail(&partition->open, &run->in_partition);
	partition->nopen++;
	scheduler.waiting++;
	partition_touch(partition);
	return run;
}

static void
free_run(OpenRun *run)
{
	if (run->orphan != NULL)
		pfree(run->orphan);
	pfree(run);
}

/* Its request can go. */
static void
trigger_done(Partition *partition, int64 trigger_id)
{
	MemoryContext old;
	int64	   *id;

	if (scheduler.etcd == NULL)
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

void
close_run(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	if (!run->queued)
		scheduler.waiting--;
	else if (run->careful)
		scheduler.careful_running--;
	if (run->key.trigger_id != 0)
		trigger_done(partition, run->key.trigger_id);
	else if (run->job != NULL && run->job->rule.one_shot && run->gen == run->job->gen)
		sync_retire(run->key.job_id);
	if (run->job != NULL)
		dlist_delete(&run->in_job);
	dlist_delete(&run->in_partition);
	partition->nopen--;
	partition_touch(partition);
	free_run(run);
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
		if (!run->queued)
			scheduler.waiting--;
		else if (run->careful)
			scheduler.careful_running--;
		if (run->job != NULL)
			dlist_delete(&run->in_job);
		dlist_delete(&run->in_partition);
		free_run(run);
	}
	partition->nopen = 0;
}

static void
describe_slot(ClosedSlot *closed, Job *job, TimestampTz slot)
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
}

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
close_missed(Job *job, TimestampTz first, TimestampTz last, int32 n)
{
	ClosedSlot	closed;

	describe_slot(&closed, job, first);
	closed.status = RUN_MISSED;
	closed.reason_text = "late";
	closed.slots = n;
	closed.last_slot = n > 1 ? last : 0;
	closing_add(&closed);
	partition_touch(&scheduler.partitions[job->partition]);
}

static bool
already_open(Job *job, TimestampTz slot)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id == 0 && run->key.scheduled_for == slot && run->gen == job->gen)
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

static void
open_slot(Job *job, TimestampTz slot)
{
	RunKey		key = {slot, job->job_id, 0, 1};
	OpenRun    *run;

	if (job_is_running(job))
	{
		close_skipped(job, slot, "overlap");
		if (job->rule.one_shot)
			sync_retire(job->job_id);
		return;
	}
	run = open_run(job, &key, RUN_SCHEDULE);
	run->backlog = scheduler.now - slot > LATE_OPENING_US || has_lapsed(job->partition);
	if (slot > scheduler.now)
		run->not_before = slot;
}

/*
 * Opens or closes the job's slots from 'slot' up to 'limit', and plans the next.  closed(), if given, knows which of
 * them have their outcome already (recovery).
 */
void
dispatch_job_until(Job *job, TimestampTz slot, TimestampTz limit, bool (*closed) (Job *job, TimestampTz slot))
{
	TimestampTz cutoff = scheduler.now - MISFIRE_GRACE_US;
	TimestampTz first = 0,
				last = 0,
				before_last = 0;
	int32		n = 0;

	/* a one-shot is never too late: it was promised once */
	for (; slot != 0 && slot <= limit && slot < cutoff && !job->rule.one_shot; slot = slot_next(&job->rule, slot))
	{
		if (already_open(job, slot) || (closed && closed(job, slot)))
			continue;
		if (n++ == 0)
			first = slot;
		before_last = last;
		last = slot;
	}
	if (n > 1)
		close_missed(job, first, before_last, n - 1);
	if (n > 0)
	{
		RunKey		key = {last, job->job_id, 0, 1};

		open_run(job, &key, RUN_CATCH_UP)->backlog = true;
	}
	for (; slot != 0 && slot <= limit; slot = slot_next(&job->rule, slot))
	{
		/* below a watermark that is ahead of our clock there can be any number: see dispatch_due_slots() */
		if (slot > scheduler.now && scheduler.partitions[job->partition].nopen >= MAX_OPEN_RUNS)
			break;
		if (!already_open(job, slot) && !(closed && closed(job, slot)))
			open_slot(job, slot);
	}

	if (slot == 0)
		minheap_remove(timetable_heap(), &job->next);
	else
		minheap_update(timetable_heap(), &job->next, slot, job->job_id);
}

/* The partition holds as many open runs as it may: its later slots stay closed up until some are done. */
static void
suspend_opening(Partition *partition, const HeapNode *first_unopened)
{
	if (!partition->full)
	{
		partition->full = true;
		partition->watermark = first_unopened->time;
		partition->watermark_job = first_unopened->id - 1;
		partition_touch(partition);
	}
}

static bool
is_after_watermark(const Partition *partition, const HeapNode *node)
{
	return node->time > partition->watermark ||
		(node->time == partition->watermark && node->id > partition->watermark_job);
}

static void
plan_after_watermark(Job *job, void *arg)
{
	Partition  *partition = arg;

	if (job->next.index < 0)
		timetable_plan(job, job->job_id <= partition->watermark_job ? partition->watermark : partition->watermark - 1);
}

static void
resume_opening(void)
{
	for (int i = 0; i < dsched_partitions; i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (!partition->full || partition->nopen > MAX_OPEN_RUNS / 2 || partition->step != STEP_ACTIVE)
			continue;
		partition->full = false;
		timetable_each(i, plan_after_watermark, partition);
	}
}

void
dispatch_due_slots(void)
{
	HeapNode   *node;
	bool		opened[DSCHED_MAX_PARTITIONS] = {false};

	if (pg_atomic_read_u32(&dsched_shared->clock_suspect) != 0)
		return;
	resume_opening();
	while ((node = minheap_peek(timetable_heap())) != NULL)
	{
		Job		   *job = (Job *) ((char *) node - offsetof(Job, next));
		Partition  *partition = &scheduler.partitions[job->partition];
		TimestampTz limit = scheduler.now;

		/* a clock that is behind the former owner's: its watermark says that these slots are accounted for */
		if (!partition->full && partition->watermark > limit)
			limit = partition->watermark;
		if (node->time > limit || (node->time > scheduler.now && partition->nopen >= MAX_OPEN_RUNS))
			break;
		/* what came late, below the watermark, is in no account until it is open */
		if ((partition->full || partition->nopen >= MAX_OPEN_RUNS) && is_after_watermark(partition, node))
		{
			suspend_opening(partition, node);
			minheap_remove(timetable_heap(), node);
			continue;
		}
		dispatch_job_until(job, node->time, limit, NULL);
		opened[job->partition] = true;
		partition_touch(partition);
	}
	/* not before all of them are open: till then the watermark says which of them are in no account yet */
	for (int i = 0; i < dsched_partitions; i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (opened[i] && !partition->full && partition->watermark < scheduler.now)
		{
			partition->watermark = scheduler.now;
			partition->watermark_job = KEYS_MAX_ID;
		}
	}
}

/* The entry of this trigger's run if an executor is making it under the partition's epoch (its scheduler died), or -1. */
static int
running_trigger(Partition *partition, int64 trigger_id)
{
	int			found = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors && found < 0; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];
		const RunEntry *entry;

		if (executor->state != EXECUTOR_BUSY || executor->entry < 0)
			continue;
		entry = &dsched_shared->entries[executor->entry];
		if (entry->token.db == scheduler.db && entry->key.trigger_id == trigger_id &&
			entry->token.epoch == partition->epoch)
			found = executor->entry;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

void
open_trigger(Partition *partition, const TriggerDef *trigger)
{
	RunKey		key = {trigger->requested_at, trigger->job_id, trigger->trigger_id, 1};
	Job		   *job = timetable_find(trigger->job_id);
	dlist_iter	iter;
	RunStatus	status = RUN_STATUS_NONE;
	OpenRun    *run;
	int			entry;

	if (trigger->kind != TRIGGER_RUN)
	{
		trigger_done(partition, trigger->trigger_id);
		return;
	}
	dlist_foreach(iter, &partition->open)
		if (dlist_container(OpenRun, in_partition, iter.cur)->key.trigger_id == trigger->trigger_id)
			return;
	if (job == NULL)
	{
		ClosedSlot	closed = {0};

		closed.key = key;
		closed.slots = 1;
		strlcpy(closed.job_name, trigger->job_name, sizeof(closed.job_name));
		strlcpy(closed.username, trigger->username, sizeof(closed.username));
		closed.reason = RUN_MANUAL;
		closed.reason_text = "unscheduled";
		closed.status = RUN_SKIPPED;
		closed.epoch = partition->epoch;
		closing_add(&closed);
		trigger_done(partition, trigger->trigger_id);
		return;
	}
	/* the latest attempt that this instance made of it decides */
	entry = running_trigger(partition, trigger->trigger_id);
	while (run_lookup_in_transaction(&key, &status) && status == RUN_LOST)
	{
		status = RUN_STATUS_NONE;
		key.attempt++;
	}
	run = open_run(job, &key, key.attempt > 1 ? RUN_RECOVERY : RUN_MANUAL);
	/* with a start row, so that one that takes the server down is counted */
	run->careful = key.attempt > 1 || scheduler.unclean;
	if (entry >= 0)
	{
		run->key.attempt = dsched_shared->entries[entry].key.attempt;
		run->careful = false;
		run->queued = true;
		run->entry = entry;
		scheduler.waiting--;
	}
	else if (status == RUN_RUNNING)
		lose_run(run, "57P01", NULL, 0, 0);
	else if (status != RUN_STATUS_NONE)
		close_run(run);
}

/*
 * Is this slot one that the generation after it has, or that never belonged to its own?  Then it has no outcome by it.
 */
static bool
is_of_next(const OpenRun *run, TimestampTz until, TimestampTz run_at)
{
	return run->key.scheduled_for > until || run->key.scheduled_for == run_at;
}

void
end_generation(Job *job, TimestampTz until, TimestampTz run_at, const char *reason)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);
		ClosedSlot	closed;

		/* a request to run it now does not depend on the schedule, unless the job is gone */
		if (run->key.trigger_id != 0 && strcmp(reason, "unscheduled") != 0)
			continue;
		if (run->queued && !dsched_queue_withdraw_entry(scheduler.db, run->entry, &run->key))
			continue;			/* started: it goes on */
		if (run->key.trigger_id == 0 && is_of_next(run, until, run_at))
		{
			run->gen = 0;
			close_run(run);
			continue;
		}
		describe_slot(&closed, job, run->key.scheduled_for);
		closed.key = run->key;
		closed.gen = run->gen;
		closed.status = RUN_SKIPPED;
		closed.reason_text = reason;
		closing_add(&closed);
		run->gen = 0;			/* a one-shot that was replaced is not done with */
		close_run(run);
	}
}

/* ---- finished runs --------------------------------------------------------------------------- */

static OpenRun *
find_open_run(const RunEntry *entry)
{
	Partition  *partition = &scheduler.partitions[entry->token.partition];
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		/* one that was started under a former epoch may end after its run was opened again */
		if (run->queued && entry->token.epoch == partition->epoch && run->key.job_id == entry->key.job_id &&
			run->key.scheduled_for == entry->key.scheduled_for &&
			run->key.trigger_id == entry->key.trigger_id && run->key.attempt == entry->key.attempt)
			return run;
	}
	return NULL;
}

/* Begins a row about this attempt; its job may be gone. */
static void
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
}

/* Back to waiting, for the same attempt. */
static void
requeue(OpenRun *run, int64 delay)
{
	run->queued = false;
	run->entry = -1;
	scheduler.waiting++;
	if (run->careful)
		scheduler.careful_running--;
	run->retry_at = delay == 0 ? 0 : scheduler.boot + delay;
	if (run->retry_at != 0)
		scheduler_wake_at(run->retry_at);
}

/*
 * An attempt ended with its process or its ownership.  A row says so, and the next attempt is opened; after
 * MAX_LOST the job is paused, as it may be what kills its server.
 */
void
lose_run(OpenRun *run, const char *sqlstate, const char *message, TimestampTz started_at, int pid)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	closed.status = RUN_LOST;
	closed.started_at = started_at;
	closed.pid = pid;
	closed.replaces = true;
	strlcpy(closed.sqlstate, sqlstate && sqlstate[0] ? sqlstate : "57P01", sizeof(closed.sqlstate));
	strlcpy(closed.message, message && message[0] ? message : "the process that ran it ended before it committed",
			sizeof(closed.message));
	closing_add(&closed);
	partition_touch(&scheduler.partitions[run->partition]);

	/* a server that is stopped ends what runs: that is no fault of the job */
	if (run->job == NULL || (run->key.attempt >= MAX_LOST && !scheduler.stopping))
	{
		if (run->job != NULL)
			sync_pause(run->job->job_id,
					   "paused: its runs ended three times in a row with the death of their process");
		run->gen = 0;
		close_run(run);
		return;
	}
	run->key.attempt++;
	run->reason = RUN_RECOVERY;
	run->careful = true;
	run->backlog = true;
}

static void
settle_unrecorded(OpenRun *run, const RunEntry *entry)
{
	RunStatus	status;

	if (!run_lookup_in_transaction(&entry->key, &status))
	{
		/* a lock on the table, say: the same attempt again, as a row that is there would stop it */
		requeue(run, RETRY_LATER_US);
		return;
	}
	if (status != RUN_STATUS_NONE && status != RUN_RUNNING && status != RUN_LOST)
	{
		close_run(run);
		return;
	}
	if (entry->started_at == 0 && status == RUN_STATUS_NONE)
	{
		requeue(run, RETRY_SOON_US);
		return;
	}
	/* rolled back, and the row could not be written for want of room: no fault of the job, and no death */
	if (status == RUN_STATUS_NONE && (strncmp(entry->sqlstate, "53", 2) == 0 || strncmp(entry->sqlstate, "58", 2) == 0))
	{
		requeue(run, RETRY_LATER_US);
		return;
	}
	requeue(run, RETRY_SOON_US);
	lose_run(run, entry->sqlstate, entry->message, entry->started_at, entry->pid);
}

static void
fail_unstartable(OpenRun *run, const RunEntry *entry)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	closed.status = RUN_FAILED;
	closed.replaces = true;
	strlcpy(closed.sqlstate, entry->sqlstate[0] ? entry->sqlstate : "08000", sizeof(closed.sqlstate));
	strlcpy(closed.message, entry->message[0] ? entry->message : "no executor could be started for its role",
			sizeof(closed.message));
	closing_add(&closed);
	/* one without a role is marked already */
	if (run->job != NULL && !run->job->role_problem && !run->job->start_problem)
	{
		sync_problem(run->job->job_id, closed.message);
		run->job->start_problem = true;
	}
	close_run(run);
}

static void
finish_run(OpenRun *run, const RunEntry *entry)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	if (entry->started_at != 0 && run->job != NULL && run->job->start_problem)
	{
		sync_problem(run->job->job_id, NULL);
		run->job->start_problem = false;
	}
	if (entry->cannot_start)
		fail_unstartable(run, entry);
	else if (entry->not_applicable)
	{
		/* the row is older or newer than our timetable: what brings them together wakes us too */
		requeue(run, RETRY_LATER_US);
		scheduler.slot->check_again = true;
	}
	else if (entry->status == RUN_STATUS_NONE)
		settle_unrecorded(run, entry);
	else if (entry->status == RUN_LOST)
	{
		requeue(run, 0);
		if (run->job == NULL)
			close_run(run);
		else
		{
			/* fenced: the executor has written its row; not a death of a process */
			run->key.attempt++;
			run->reason = RUN_RECOVERY;
			run->backlog = true;
		}
	}
	else
	{
		if (entry->commit_lsn > partition->flush_to)
			partition->flush_to = entry->commit_lsn;
		scheduler.ran = true;
		close_run(run);
	}
}

void
dispatch_finished(void)
{
	static RunEntry *batch = NULL;
	int			n;

	if (scheduler.slot->finished_head < 0)
		return;
	if (batch == NULL)
		batch = MemoryContextAlloc(scheduler.context, sizeof(RunEntry) * FINISHED_BATCH);
	do
	{
		n = dsched_queue_take_finished(scheduler.db, batch, FINISHED_BATCH);
		for (int i = 0; i < n; i++)
		{
			OpenRun    *run = find_open_run(&batch[i]);

			if (run != NULL)
				finish_run(run, &batch[i]);
		}
	} while (n == FINISHED_BATCH);
}

/* ---- queueing -------------------------------------------------------------------------------- */

/* Finds the OID of the job's role, again after any change of roles.  False: there is none. */
static void
lookup_role(void *arg)
{
	Job		   *job = arg;

	job->roleoid = get_role_oid(job->username, true);
}

/* False: cannot be told now (a lock on pg_authid), which is no fault of the job. */
static bool
look_up_role(Job *job)
{
	return job->role_checked == scheduler.roles_changed ||
		scheduler_transaction(lookup_role, job, "looking up a role");
}

static bool
resolve_role(Job *job)
{
	char	   *problem;

	if (job->role_checked == scheduler.roles_changed)
		return OidIsValid(job->roleoid);
	if (OidIsValid(job->roleoid))
	{
		job->role_checked = scheduler.roles_changed;
		if (job->role_problem)
			sync_problem(job->job_id, NULL);
		job->role_problem = false;
		return true;
	}
	if (!job->role_problem)
	{
		problem = psprintf("role \"%s\" does not exist", job->username);
		sync_problem(job->job_id, problem);
		pfree(problem);
	}
	job->role_problem = true;
	return false;
}

/*
 * Its executor had it, but could not make it, when its job was removed or got another generation: end_generation() took it for
 * started.  It never will be.
 */
static bool
is_void(const OpenRun *run)
{
	return !run->queued && (run->job == NULL || (run->key.trigger_id == 0 && run->gen != run->job->gen));
}

static void
close_void(OpenRun *run)
{
	ClosedSlot	closed;

	if (run->job != NULL && run->key.trigger_id == 0 &&
		is_of_next(run, run->job->rule.slots_from, run->job->rule.one_shot ? run->job->rule.run_at : 0))
	{
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

static bool
may_dispatch(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	if (run->queued || run->job == NULL || partition->step != STEP_ACTIVE)
		return false;
	if (&run->in_job != dlist_head_node(&run->job->open))
		return false;
	if (run->retry_at > scheduler.boot)
	{
		scheduler_wake_at(run->retry_at);
		return false;
	}
	if (run->not_before > scheduler.now)
	{
		scheduler_wake_at(scheduler.boot + (run->not_before - scheduler.now));
		return false;
	}
	if (!run->job->applied)
		return false;
	if (run->careful && scheduler.unclean && scheduler.careful_running > 0 &&
		scheduler.careful_until > scheduler.boot)
	{
		scheduler_wake_at(scheduler.careful_until);
		return false;
	}
	return true;
}

/* Another run has its place in the full queue: it waits with us, with the rank that it has. */
static void
take_back(const RunKey *key)
{
	Job		   *job = timetable_find(key->job_id);
	dlist_iter	iter;

	if (job == NULL)
		return;
	dlist_foreach(iter, &job->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->queued && run->key.scheduled_for == key->scheduled_for && run->key.trigger_id == key->trigger_id &&
			run->key.attempt == key->attempt)
			requeue(run, 0);
	}
}

static void
push_run(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];
	RunEntry	entry = {0};
	RunKey		displaced;

	entry.key = run->key;
	entry.token.session = partition->session;
	entry.token.epoch = partition->epoch;
	entry.token.db = scheduler.db;
	entry.token.partition = run->partition;
	entry.gen = run->gen;
	entry.reason = run->reason;
	entry.start_row = run->careful;
	entry.queued_at = scheduler.now;
	if (run->rank == 0)
		run->rank = order_rank(run->job, &run->key, Max(run->key.scheduled_for, run->not_before));
	entry.rank = run->rank;
	if (!dsched_token_holds(&entry.token))
	{
		run->backlog = true;
		return;
	}
	run->entry = dsched_queue_push(&entry, scheduler.dboid, run->job->roleoid, &displaced);
	if (displaced.attempt != 0)
		take_back(&displaced);
	if (run->entry < 0)
	{
		/* the places may all be other databases', whose ends do not wake us */
		scheduler_wake_at(scheduler.boot + RETRY_LATER_US);
		return;
	}
	run->queued = true;
	scheduler.waiting--;
	if (run->careful)
	{
		scheduler.careful_running++;
		scheduler.careful_until = scheduler.boot + CAREFUL_ALONE_US;
	}
}

void
dispatch_waiting(void)
{
	if (scheduler.waiting > 0 && pg_atomic_read_u32(&dsched_shared->clock_suspect) == 0)
	{
		/* of roles that were changed or dropped we hear by way of scheduler.roles_changed */
		AcceptInvalidationMessages();
		for (int i = 0; i < dsched_partitions; i++)
		{
			Partition  *partition = &scheduler.partitions[i];
			dlist_mutable_iter iter;

			if (partition->step != STEP_ACTIVE)
				continue;
			dlist_foreach_modify(iter, &partition->open)
			{
				OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);
				RunEntry	nobody = {0};

				if (is_void(run))
				{
					close_void(run);
					continue;
				}
				if (!may_dispatch(run))
					continue;
				if (!look_up_role(run->job))
				{
					run->retry_at = scheduler.boot + RETRY_LATER_US;
					scheduler_wake_at(run->retry_at);
					continue;
				}
				if (resolve_role(run->job))
				{
					push_run(run);
					continue;
				}
				strlcpy(nobody.sqlstate, "42704", sizeof(nobody.sqlstate));
				snprintf(nobody.message, sizeof(nobody.message), "role \"%s\" does not exist", run->job->username);
				fail_unstartable(run, &nobody);
			}
		}
	}
	scheduler.slot->wake_on_finish = scheduler.waiting > 0 || scheduler.stopping;
}

/* Is nothing open but what waits for the clock (it is behind the watermark)? */
bool
dispatch_is_quiet(void)
{
	for (int i = 0; i < dsched_partitions; i++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, &scheduler.partitions[i].open)
		{
			OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

			if (run->queued || run->not_before <= scheduler.now)
				return false;
		}
	}
	return true;
}

int
dispatch_open_runs(void)
{
	int			n = 0;

	for (int i = 0; i < dsched_partitions; i++)
		n += scheduler.partitions[i].nopen;
	return n;
}
