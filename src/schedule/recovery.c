/*
 * recovery.c
 *	  Which slots are open when a partition is taken over, after whatever happened to its former owner.
 *
 * What is known: the last state (a watermark, and the runs that were pending), the definitions, and this
 * instance's own rows.  Open are
 *
 *	  - the pending runs of the state whose generation still lives,
 *	  - every slot after the watermark (of a generation that the state does not know: every slot at all) up to now,
 *	  - triggers that are still there,
 *
 * less what has a final row here.  A run that a living executor of this server is still making (its scheduler
 * died, not the server) is taken up as it is.  A start row without an end, and a pending run that was started by a
 * session that is gone, was an attempt that died: it is recorded as lost and the next attempt opens.
 *
 * After a crash of this server the recovered runs carry a committed start row and run one at a time, so that
 * one that takes the server down is found and in the end paused (MAX_LOST) rather than run for ever.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* What the rows say about one slot or trigger. */
typedef struct SlotKey
{
	TimestampTz scheduled_for;
	int64		job_id;
	int64		trigger_id;
} SlotKey;

typedef struct SlotRows
{
	SlotKey		key;
	int32		attempt;		/* the highest */
	RunStatus	status;			/* of that attempt */
} SlotRows;

typedef struct RunningEntry
{
	int			index;
	RunEntry	entry;
} RunningEntry;

static HTAB *rows = NULL;
static RunSeen *ranges = NULL;	/* rows that stand for several slots */
static int	nranges = 0;
static RunSeen *started = NULL; /* start rows without an end */
static int	nstarted = 0;
static RunningEntry *running = NULL;
static int	nrunning = 0;
static Partition *current;		/* for the callbacks */
static TimestampTz unopened_slot;	/* the first of its slots that is not opened, as it is full; 0: none */
static int64 unopened_job;

static void read_everything(void *arg);
static TimestampTz look_back(Partition **partitions, int n);
static void note_row(const RunSeen *row);
static void list_running(void);
static SlotRows *find_rows(const RunKey *key);
static bool is_final(RunStatus status);
static bool slot_is_closed(Job *job, TimestampTz slot);
static bool take_up(OpenRun *run);
static void open_recovered(Job *job, const RunKey *key, RunReason reason, bool was_started, const char *by);
static void open_pending(const PendingRun *pending);
static void open_later_slots(Job *job, void *arg);

static bool
is_final(RunStatus status)
{
	return status != RUN_STATUS_NONE && status != RUN_RUNNING && status != RUN_LOST;
}

static TimestampTz
look_back(Partition **partitions, int n)
{
	TimestampTz from = scheduler.now;

	for (int i = 0; i < n; i++)
	{
		PartitionState *state = &partitions[i]->taken;

		from = Min(from, state->watermark);
		for (int k = 0; k < state->npending; k++)
			from = Min(from, state->pending[k].slot);
	}
	return from;
}

static void
note_row(const RunSeen *row)
{
	SlotKey		key;
	SlotRows   *seen;
	bool		found;

	if (row->last_slot != 0)
	{
		ranges[nranges++] = *row;
		return;
	}
	memset(&key, 0, sizeof(key));
	key.scheduled_for = row->key.scheduled_for;
	key.job_id = row->key.job_id;
	key.trigger_id = row->key.trigger_id;
	seen = hash_search(rows, &key, HASH_ENTER, &found);
	if (!found || row->key.attempt > seen->attempt)
	{
		seen->attempt = row->key.attempt;
		seen->status = row->status;
	}
}

/* The runs that executors of this server are making for our database. */
static void
list_running(void)
{
	nrunning = 0;
	running = palloc(sizeof(RunningEntry) * dsched_shared->max_executors);
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state != EXECUTOR_BUSY || executor->entry < 0 ||
			dsched_shared->entries[executor->entry].token.db != scheduler.db)
			continue;
		running[nrunning].index = executor->entry;
		running[nrunning].entry = dsched_shared->entries[executor->entry];
		nrunning++;
	}
	LWLockRelease(dsched_shared->queue_lock);
}

static void
read_everything(void *arg)
{
	TimestampTz from = *(TimestampTz *) arg;
	HASHCTL		ctl = {0};
	RunSeen    *found;
	int			n;

	MemoryContextSwitchTo(scheduler.turn);
	list_running();				/* before the rows: what ends in between is then seen in one of them */
	ctl.keysize = sizeof(SlotKey);
	ctl.entrysize = sizeof(SlotRows);
	ctl.hcxt = scheduler.turn;
	rows = hash_create("dsched recovery", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	found = run_read_since(from, &n);
	ranges = palloc(sizeof(RunSeen) * Max(n, 1));
	nranges = 0;
	for (int i = 0; i < n; i++)
		note_row(&found[i]);
	started = run_read_started(&nstarted);
	for (int i = 0; i < nstarted; i++)
		note_row(&started[i]);
}

static SlotRows *
find_rows(const RunKey *key)
{
	SlotKey		slot;

	memset(&slot, 0, sizeof(slot));
	slot.scheduled_for = key->scheduled_for;
	slot.job_id = key->job_id;
	slot.trigger_id = key->trigger_id;
	return hash_search(rows, &slot, HASH_FIND, NULL);
}

/* Has this slot an outcome in our rows?  Or is it about to be opened from its pending entry or start row? */
static bool
slot_is_closed(Job *job, TimestampTz slot)
{
	RunKey		key = {slot, job->job_id, 0, 1};
	SlotRows   *seen = find_rows(&key);

	if (seen != NULL && is_final(seen->status))
		return true;
	for (int i = 0; i < nranges; i++)
		if (ranges[i].key.job_id == job->job_id && ranges[i].key.scheduled_for <= slot && slot <= ranges[i].last_slot &&
			ranges[i].gen == job->gen && is_final(ranges[i].status))
			return true;
	return false;
}

/* If an executor of ours is at it: it goes on, and its end closes this run. */
static bool
take_up(OpenRun *run)
{
	for (int i = 0; i < nrunning; i++)
	{
		RunEntry   *entry = &running[i].entry;

		if (entry->key.job_id != run->key.job_id || entry->key.scheduled_for != run->key.scheduled_for ||
			entry->key.trigger_id != run->key.trigger_id || entry->token.epoch != current->epoch)
			continue;
		run->key.attempt = entry->key.attempt;
		run->careful = false;
		run->queued = true;
		run->entry = running[i].index;
		scheduler.waiting--;
		return true;
	}
	return false;
}

/*
 * Opens a run that the state or a row knows of.  was_started: by somebody ('by', for the row) who is gone.
 */
static void
open_recovered(Job *job, const RunKey *known, RunReason reason, bool was_started, const char *by)
{
	RunKey		key = *known;
	SlotRows   *seen = find_rows(&key);
	OpenRun    *run;

	if (seen != NULL && is_final(seen->status))
	{
		if (key.trigger_id != 0)
			close_run(open_run(job, &key, reason));
		return;
	}
	if (seen != NULL && seen->attempt >= key.attempt)
	{
		key.attempt = seen->attempt;
		was_started = seen->status == RUN_RUNNING;
		if (seen->status == RUN_LOST)
			key.attempt++;
	}
	run = open_run(job, &key, key.attempt > 1 ? RUN_RECOVERY : reason);
	run->backlog = true;
	run->careful = key.attempt > 1 || scheduler.unclean;
	if (!take_up(run) && was_started)
		lose_run(run, "57P01", psprintf("%s ended before it committed", by), 0, 0);
}

static void
open_pending(const PendingRun *pending)
{
	RunKey		key = {pending->slot, pending->job_id, pending->trigger_id, pending->attempt};
	Job		   *job = timetable_find(pending->job_id);
	char	   *by;

	if (pending->trigger_id != 0)
		return;					/* its trigger is still there and opens it, or it is done */
	if (job == NULL || job->gen != pending->gen)
	{
		ClosedSlot	closed = {0};

		closed.key = key;
		closed.slots = 1;
		if (job != NULL)
		{
			strlcpy(closed.job_name, job->job_name, sizeof(closed.job_name));
			strlcpy(closed.username, job->username, sizeof(closed.username));
		}
		closed.gen = pending->gen;
		closed.status = RUN_SKIPPED;
		closed.reason_text = job == NULL ? "unscheduled" : "redefined";
		closed.epoch = current->epoch;
		closing_add(&closed);
		return;
	}
	by = psprintf("instance \"%s\", which ran it,", current->taken.node);
	open_recovered(job, &key, RUN_SCHEDULE, pending->session != 0, by);
}

static bool
is_being_made(const RunKey *key)
{
	for (int i = 0; i < nrunning; i++)
	{
		const RunKey *made = &running[i].entry.key;

		if (made->job_id == key->job_id && made->scheduled_for == key->scheduled_for &&
			made->trigger_id == key->trigger_id && made->attempt == key->attempt)
			return true;
	}
	return false;
}

/* The attempt died with its process, and there is none after it. */
static void
end_started_row(const RunSeen *row)
{
	ClosedSlot	closed = {0};

	closed.key = row->key;
	closed.slots = 1;
	strlcpy(closed.job_name, row->job_name, sizeof(closed.job_name));
	strlcpy(closed.username, row->username, sizeof(closed.username));
	closed.gen = row->gen;
	closed.reason = row->key.trigger_id != 0 ? RUN_MANUAL : row->key.attempt > 1 ? RUN_RECOVERY : RUN_SCHEDULE;
	closed.status = RUN_LOST;
	closed.epoch = current->epoch;
	closed.replaces = true;
	strlcpy(closed.sqlstate, "57P01", sizeof(closed.sqlstate));
	strlcpy(closed.message, "the process that ran it ended before it committed", sizeof(closed.message));
	closing_add(&closed);
}

/*
 * Does the state say that the slot, which is not pending, has its outcome?  Another instance has made it then.  (Alone, the
 * state in the table may be older than the row, or have been lost with it.)
 */
static bool
is_accounted_for(const Job *job, TimestampTz slot)
{
	const PartitionState *state = &current->taken;

	return scheduler.etcd != NULL && job->gen_rev <= state->jobrev &&
		(slot < state->watermark || (slot == state->watermark && job->job_id <= state->watermark_job));
}

/* Start rows of this instance for which the state has no pending entry. */
static void
open_started_rows(void)
{
	for (int i = 0; i < nstarted; i++)
	{
		const RunSeen *row = &started[i];
		Job		   *job = timetable_find(row->key.job_id);
		dlist_iter	iter;
		bool		known = false;

		if (row->key.trigger_id != 0 || job == NULL || job->partition != current->number)
			continue;
		dlist_foreach(iter, &job->open)
			known |= dlist_container(OpenRun, in_job, iter.cur)->key.scheduled_for == row->key.scheduled_for;
		if (known)
			continue;
		if (row->gen == job->gen && !is_accounted_for(job, row->key.scheduled_for))
			open_recovered(job, &row->key, RUN_RECOVERY, true, "the process that ran it");
		else if (!is_being_made(&row->key))
			end_started_row(row);
	}
}

/* Those of triggers that are gone from etcd: another instance has made them.  (Alone, a request stays until it is accounted for.) */
static void
end_triggered_rows(void)
{
	for (int i = 0; i < nstarted && scheduler.etcd != NULL; i++)
	{
		const RunSeen *row = &started[i];
		Job		   *job = timetable_find(row->key.job_id);
		dlist_iter	iter;
		bool		known = row->key.trigger_id == 0 || job == NULL || job->partition != current->number;

		dlist_foreach(iter, &current->open)
			known |= dlist_container(OpenRun, in_partition, iter.cur)->key.trigger_id == row->key.trigger_id;
		if (!known && !is_being_made(&row->key))
			end_started_row(row);
	}
}

/* Those of jobs that are gone. */
static void
end_orphaned_rows(void)
{
	for (int i = 0; i < nstarted; i++)
		if (timetable_find(started[i].key.job_id) == NULL && !is_being_made(&started[i].key))
			end_started_row(&started[i]);
}

/*
 * A slot that the state did not know yet: an executor may be at it all the same, and attempts at it may have been
 * lost (more than their number are the scheduler's to decide, see lose_run()).
 */
static void
continue_run(OpenRun *run)
{
	SlotRows   *seen = find_rows(&run->key);

	if (run->queued || run->gen == 0)
		return;
	/* nobody was there in time, however short that was: see dispatch.c on overlap */
	run->backlog = true;
	if (scheduler.unclean)
		run->careful = true;
	if (seen != NULL && seen->status == RUN_LOST && seen->attempt >= run->key.attempt)
	{
		run->key.attempt = seen->attempt + 1;
		run->reason = RUN_RECOVERY;
		run->careful = true;
	}
	(void) take_up(run);
}

static void
open_later_slots(Job *job, void *arg)
{
	TimestampTz after = PG_INT64_MIN;
	TimestampTz slot;
	dlist_iter	iter;

	if (!job->usable || !job->active)
		return;
	if (scheduler.etcd == NULL ? !job->rule.one_shot : job->gen_rev <= current->taken.jobrev)
		after = job->job_id <= current->taken.watermark_job ? current->taken.watermark : current->taken.watermark - 1;
	slot = slot_next(&job->rule, after);
	if (slot == 0)
		return;
	/* a one-shot older than the rows that were read: look for its own */
	if (job->rule.one_shot && slot < scheduler.now)
	{
		RunKey		key = {slot, job->job_id, 0, 1};
		RunStatus	status;

		if (run_lookup_in_transaction(&key, &status) && is_final(status))
		{
			sync_retire(job->job_id);
			return;
		}
	}
	/* an account holds so many and no more: the rest stays above the watermark until there is room */
	if (current->nopen >= MAX_OPEN_RUNS && slot <= scheduler.now &&
		(slot > current->taken.watermark ||
		 (slot == current->taken.watermark && job->job_id > current->taken.watermark_job)))
	{
		if (unopened_slot == 0 || slot < unopened_slot || (slot == unopened_slot && job->job_id < unopened_job))
		{
			unopened_slot = slot;
			unopened_job = job->job_id;
		}
	}
	else
		dispatch_job_until(job, slot, scheduler.now, slot_is_closed);
	dlist_foreach(iter, &job->open)
		continue_run(dlist_container(OpenRun, in_job, iter.cur));
}

bool
recovery_open(Partition **partitions, int n)
{
	TimestampTz from = look_back(partitions, n);
	ListCell   *lc;

	if (!scheduler_transaction(read_everything, &from, "reading recent runs"))
		return false;
	for (int i = 0; i < n; i++)
	{
		current = partitions[i];
		unopened_slot = 0;
		for (int k = 0; k < current->taken.npending; k++)
			open_pending(&current->taken.pending[k]);
		open_started_rows();
		timetable_each(current->number, open_later_slots, NULL);
		foreach(lc, current->taken_triggers)
			open_trigger(current, lfirst(lc));
		end_triggered_rows();
		current->full = unopened_slot != 0;
		current->watermark = current->full ? unopened_slot : Max(scheduler.now, current->taken.watermark);
		current->watermark_job = current->full ? unopened_job - 1 : KEYS_MAX_ID;
		partition_touch(current);
	}
	end_orphaned_rows();
	hash_destroy(rows);
	rows = NULL;
	return true;
}
