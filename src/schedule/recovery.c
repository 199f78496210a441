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
 * one that takes the server down is found and in the end paused (max_lost) rather than run for ever.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* What the rows say about one slot. */
typedef struct SlotKey
{
	TimestampTz scheduled_for;
	int64		job_id;
	int64		trigger_id;
} SlotKey;

typedef struct SlotRows
{
	SlotKey		key;
	RunHistory	history;
	int64		gen;			/* of its last row */
} SlotRows;

typedef struct RunningEntry
{
	int			index;
	RunEntry	entry;
} RunningEntry;

typedef struct JobDone
{
	int64		job_id;			/* hash key */
	int64		gen;
	TimestampTz until;			/* all its slots that are due up to then are accounted for */
} JobDone;

typedef struct Reading
{
	TimestampTz from;
	Partition **partitions;
	int			n;
} Reading;

static HTAB *rows = NULL;
static RunSeen *found = NULL;	/* rows since the oldest watermark, in key order */
static int	nfound = 0;
static RunSeen *ranges = NULL;	/* those that stand for several slots */
static int	nranges = 0;
static RunSeen *started = NULL; /* start rows without an end */
static int	nstarted = 0;
static RunningEntry *running = NULL;
static int	nrunning = 0;
static TimestampTz rows_from;	/* the scheduled time from which they were read */
static Partition *current;		/* for the callbacks */
static HTAB *done = NULL;		/* of current->taken.done, by job */

static SlotRows *find_rows(const RunKey *key);
static const PartitionState *account_of(const Job *job);
static bool is_of_history(const PendingRun *pending);

/*
 * Pending runs are looked up one by one, so that an old one does not make us read all rows since.  But of a job whose failures are
 * counted we have to see what has become of the slots of a range that was pending.
 */
static TimestampTz
look_back(Partition **partitions, int n)
{
	TimestampTz from = scheduler.now;

	for (int i = 0; i < n; i++)
	{
		PartitionState *state = &partitions[i]->taken;

		from = Min(from, state->watermark);
		if (partitions[i]->history.node[0] != '\0')
			from = Min(from, partitions[i]->history.watermark);
		for (int k = 0; k < state->npending; k++)
		{
			PendingRun *pending = &state->pending[k];
			Job		   *job = pending->attempt == 0 && pending->trigger_id == 0 ? timetable_find(pending->job_id) : NULL;

			if (job != NULL && job->policy->max_failures > 0)
				from = Min(from, pending->slot);
		}
	}
	return from;
}

static SlotRows *
enter_rows(const RunKey *of)
{
	SlotKey		key;
	SlotRows   *seen;
	bool		known;

	memset(&key, 0, sizeof(key));
	key.scheduled_for = of->scheduled_for;
	key.job_id = of->job_id;
	key.trigger_id = of->trigger_id;
	seen = hash_search(rows, &key, HASH_ENTER, &known);
	if (!known)
	{
		memset(&seen->history, 0, sizeof(seen->history));
		seen->gen = 0;
	}
	return seen;
}

static void
note_row(const RunSeen *row)
{
	SlotRows   *seen;

	if (row->last_slot != 0)
	{
		ranges[nranges++] = *row;
		return;
	}
	seen = enter_rows(&row->key);
	run_history_add(&seen->history, row);
	seen->gen = row->gen;
}

/* Runs that the rows of this instance do not know, or not yet, and etcd does. */
static void
note_marks(const Partition *partition)
{
	ListCell   *lc;

	foreach(lc, partition->taken_marks)
	{
		const TakenMark *taken = lfirst(lc);
		RunKey		key = {taken->name.slot - CODEC_EPOCH_DIFF, taken->name.job_id, taken->name.trigger_id, taken->mark.attempt};
		Job		   *job = timetable_find(key.job_id);
		SlotRows   *seen = find_rows(&key);

		if (seen == NULL)
		{
			seen = enter_rows(&key);
			run_history(&key, &seen->history);
			seen->gen = job != NULL ? job->gen : 0;
		}
		marks_add_history(&key, &seen->history);
	}
}

/* Those of a slot that is older than the rows that were read. */
static void
note_slot(const RunKey *key, int64 gen)
{
	SlotRows   *seen;

	if (find_rows(key) != NULL)
		return;
	seen = enter_rows(key);
	run_history(key, &seen->history);
	seen->gen = gen;
}

/*
 * The rows by which the first slots of a range that waited were closed together, after the account was written: such a row begins
 * before the rows that are read, and may go beyond the watermark.
 */
static void
note_closed_range(const PendingRun *pending)
{
	Job		   *job = timetable_find(pending->job_id);
	TimestampTz slot = pending->slot;
	SlotRule	rule;

	if (job == NULL || !job->usable || job->gen != pending->gen)
		return;
	rule = job_rule(job);
	for (int without = 0; slot != 0 && slot <= pending->slot_to && without < 2; slot = slot_next(&rule, slot))
	{
		RunSeen		row = {{slot, pending->job_id, 0, 1}};
		RunHistory	history;

		run_history(&row.key, &history);
		without += history.attempt == 0;
		if (history.last_slot == 0)
			continue;
		row.gen = pending->gen;
		row.status = history.status;
		row.last_slot = history.last_slot;
		ranges[nranges++] = row;
		break;
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

/* Rows of jobs whose partitions are not being taken over decide nothing, and can be many. */
static void
leave_out_others(Partition **partitions, int n)
{
	bool		wanted[DSCHED_MAX_PARTITIONS] = {false};
	int			left = 0;

	for (int i = 0; i < n; i++)
		wanted[partitions[i]->number] = true;
	for (int i = 0; i < nfound; i++)
	{
		Job		   *job = timetable_find(found[i].key.job_id);

		if (job == NULL || wanted[job->partition])
			found[left++] = found[i];
	}
	nfound = left;
}

static void
read_everything(void *arg)
{
	Reading    *reading = arg;
	HASHCTL		ctl = {0};
	int			nwaiting = 0;

	MemoryContextSwitchTo(scheduler.turn);
	list_running();				/* before the rows: what ends in between is then seen in one of them */
	ctl.keysize = sizeof(SlotKey);
	ctl.entrysize = sizeof(SlotRows);
	ctl.hcxt = scheduler.turn;
	rows = hash_create("dsched recovery", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	rows_from = reading->from;
	found = run_read_since(rows_from, &nfound);
	leave_out_others(reading->partitions, reading->n);
	for (int i = 0; i < reading->n; i++)
		nwaiting += reading->partitions[i]->taken.npending;
	ranges = palloc(sizeof(RunSeen) * Max(nfound + nwaiting, 1));
	nranges = 0;
	for (int i = 0; i < nfound; i++)
		note_row(&found[i]);
	started = run_read_started(&nstarted);
	for (int i = 0; i < nstarted; i++)
		note_slot(&started[i].key, started[i].gen);
	for (int i = 0; i < reading->n; i++)
	{
		PartitionState *state = &reading->partitions[i]->taken;

		for (int k = 0; k < state->npending; k++)
		{
			PendingRun *pending = &state->pending[k];
			RunKey		key = {pending->slot, pending->job_id, pending->trigger_id, pending->attempt};

			if (pending->attempt > 0)
				note_slot(&key, pending->gen);
			else if (pending->trigger_id == 0)
				note_closed_range(pending);
		}
		state = &reading->partitions[i]->history;
		for (int k = 0; k < state->npending; k++)
		{
			PendingRun *pending = &state->pending[k];
			RunKey		key = {pending->slot, pending->job_id, pending->trigger_id, pending->attempt};

			if (pending->attempt > 0)
				note_slot(&key, pending->gen);
		}
		marks_open(reading->partitions[i]);
		note_marks(reading->partitions[i]);
	}
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

/* The last of the slots, from this one on, that have their outcome in our rows; 0: this one has none. */
static TimestampTz
slot_is_closed(Job *job, TimestampTz slot)
{
	RunKey		key = {slot, job->job_id, 0, 1};
	SlotRows   *seen = find_rows(&key);

	if (seen != NULL && history_is_final(job, &seen->history))
		return slot;
	for (int i = 0; i < nranges; i++)
		if (ranges[i].key.job_id == job->job_id && ranges[i].key.trigger_id == 0 &&
			ranges[i].key.scheduled_for <= slot && slot <= ranges[i].last_slot &&
			ranges[i].gen == job->gen && status_is_final(ranges[i].status))
			return ranges[i].last_slot;
	return 0;
}

/* If an executor of ours is at it: it goes on, and its end closes this run. */
static bool
take_up(OpenRun *run)
{
	for (int i = 0; i < nrunning; i++)
	{
		RunEntry   *entry = &running[i].entry;

		if (entry->key.job_id != run->key.job_id || entry->key.scheduled_for != run->key.scheduled_for ||
			entry->key.trigger_id != run->key.trigger_id ||
			(entry->session_bound ? entry->token.session != current->session : entry->token.epoch != current->epoch))
			continue;
		run->key.attempt = entry->key.attempt;
		run->careful = false;
		run_wait_nowhere(run);
		run_is_queued(run, running[i].index);
		run->bound = entry->session_bound;
		return true;
	}
	return false;
}

static bool
is_open(const Job *job, TimestampTz slot)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		if (run->key.trigger_id == 0 && run->key.scheduled_for == slot)
			return true;
	}
	return false;
}

static RunReason
reason_named(const char *name)
{
	for (RunReason reason = RUN_SCHEDULE; reason <= RUN_BACKFILL; reason++)
		if (strcmp(run_reason_name(reason), name) == 0)
			return reason;
	return RUN_SCHEDULE;
}

/*
 * Opens a slot that the state (pending), a row or an executor knows of.  by: who is gone, if it was started, for the row.
 */
static void
open_recovered(Job *job, const RunKey *key, const PendingRun *pending, const char *by)
{
	SlotRows   *seen = find_rows(key);
	OpenRun    *run;

	/* by our rows an attempt that was handed over has been settled, and what followed it is ours */
	if (pending != NULL && pending->handed_over && seen != NULL && seen->history.attempt >= key->attempt)
		remote_done(current, key);
	if (seen != NULL && history_is_final(job, &seen->history))
	{
		/* the account had it pending, so nobody has come to this */
		if (job->one_shot && key->trigger_id == 0)
			sync_retire(job->job_id);
		return;
	}
	if (is_open(job, key->scheduled_for))
		return;
	run = open_run(job, key, pending != NULL ? reason_named(pending->reason) : RUN_SCHEDULE);
	run->backlog = true;
	if (pending != NULL)
	{
		run->failures = pending->failures;
		run->lost = pending->lost;
		run->not_before = pending->not_before;
		if (run->not_before != 0)
			run_show(run);
	}
	if (pending != NULL && pending->handed_over)
	{
		/* of a generation that is over, perhaps */
		run->gen = pending->gen;
		if ((seen == NULL || seen->history.attempt < key->attempt) && remote_open(run, pending))
			return;
	}
	/* the clock was set back meanwhile */
	if (run->due > scheduler.now)
		run->not_before = Max(run->not_before, run->due);
	run->careful = run->lost > 0 || scheduler.unclean;
	if (take_up(run))
	{
		if (seen != NULL)
		{
			run->failures = Max(run->failures, seen->history.failures);
			run->lost = Max(run->lost, seen->history.lost);
		}
	}
	else if (seen != NULL && seen->history.attempt >= key->attempt)
		(void) resume_run(run, &seen->history, by);
	else if (pending != NULL && pending->session != 0)
		lose_run(run, "57P01", psprintf("%s ended before it committed", by), 0, 0);
}

/* What an executor of ours is making; before anything else, as it comes first. */
static void
open_running(void)
{
	for (int i = 0; i < nrunning; i++)
	{
		const RunEntry *entry = &running[i].entry;
		Job		   *job = timetable_find(entry->key.job_id);

		if (job != NULL && job->partition == current->number && entry->key.trigger_id == 0 &&
			entry->token.epoch == current->epoch && entry->gen == job->gen)
			open_recovered(job, &entry->key, NULL, "");
	}
}

/*
 * How many of the slots of a pending run or range are before its generation's end; *last is the last of them.  Others there are only below
 * a watermark that is ahead of our clock: they are those of the generation after it, and a row would say that they have been dealt
 * with.  (The rule of the former generation is not known any more; it is counted by that of the job.)
 */
static int64
slots_before_end(const PendingRun *pending, const Job *job, TimestampTz *last)
{
	TimestampTz end = job != NULL ? job->slots_from : scheduler.now;
	SlotRule	rule;
	int64		n = 0;

	*last = pending->slot_to;
	if (pending->slot > end)
		return 0;
	if (pending->slots <= 1 || pending->slot_to <= end)
		return Max(pending->slots, 1);
	if (job != NULL && job->usable && !job->one_shot)
	{
		rule = job_rule(job);
		rule.slots_from = CODEC_MIN_TIME;
		n = slot_count(&rule, pending->slot, end, last, NULL);
	}
	return Max(n, 1);
}

/* The generation of a pending run or range is over. */
static void
close_pending(const PendingRun *pending, const Job *job)
{
	ClosedSlot	closed = {0};
	TimestampTz last;
	int64		n = slots_before_end(pending, job, &last);

	if (n == 0)
		return;
	closed.key.scheduled_for = pending->slot;
	closed.key.job_id = pending->job_id;
	closed.key.trigger_id = pending->trigger_id;
	closed.key.attempt = Max(pending->attempt, 1);
	closed.slots = (int32) Min(n, PG_INT32_MAX);
	closed.last_slot = n > 1 ? last : 0;
	if (job != NULL)
	{
		strlcpy(closed.job_name, job->job_name, sizeof(closed.job_name));
		strlcpy(closed.username, job->username, sizeof(closed.username));
	}
	closed.gen = pending->gen;
	closed.status = RUN_SKIPPED;
	closed.reason_text = job == NULL ? "unscheduled" : "redefined";
	closed.epoch = current->epoch;
	closed.partition = current->number;
	closing_add(&closed);
}

static void
open_pending(const PendingRun *pending)
{
	RunKey		key = {pending->slot, pending->job_id, pending->trigger_id, pending->attempt};
	Job		   *job = timetable_find(pending->job_id);
	SlotRange  *range;

	if (pending->trigger_id != 0)
	{
		/* its request is still there and opens it, or it is done */
		remember_request(current, pending);
		return;
	}
	if (pending->handed_over)
	{
		/* it has begun, and goes on whatever has become of its definition; without one nothing follows it */
		if (job != NULL)
			open_recovered(job, &key, pending, "the instance that ran it");
		else
			remote_done(current, &key);
	}
	else if (job == NULL || job->gen != pending->gen)
		close_pending(pending, job);
	else if (pending->attempt == 0)
	{
		range = range_open(job, pending->slot, pending->slot_to, reason_named(pending->reason), true);
		range->unsure = MAX_PARALLEL_RUNS;
	}
	else
		open_recovered(job, &key, pending, psprintf("instance \"%s\", which ran it,", current->taken.node));
}

/* ---- beyond the watermark ----------------------------------------------------------------------- */

static void
note_done(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(JobDone);
	ctl.hcxt = scheduler.turn;
	if (done != NULL)
		hash_destroy(done);
	done = hash_create("dsched done", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < current->taken.ndone; i++)
	{
		const PendingRun *entry = &current->taken.done[i];
		JobDone    *known = hash_search(done, &entry->job_id, HASH_ENTER, NULL);

		known->gen = entry->gen;
		known->until = entry->slot_to;
	}
}

/* Up to when the job's slots are accounted for although the watermark is behind; PG_INT64_MIN: it is not ahead. */
static TimestampTz
done_until(const Job *job)
{
	JobDone    *known = hash_search(done, &job->job_id, HASH_FIND, NULL);

	/* our rows say it all */
	if (account_of(job) != &current->taken)
		return PG_INT64_MIN;
	return known != NULL && known->gen == job->gen ? known->until : PG_INT64_MIN;
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

/*
 * The attempt died with its process, and there is none after it.  The row of one whose transaction is still prepared is locked, perhaps for
 * long: recovery_end_rows() comes to it when that is settled.
 */
static void
end_started_row(const RunSeen *row)
{
	ClosedSlot	closed = {0};

	if (settling_waits(&row->key))
		return;
	closed.key = row->key;
	closed.slots = 1;
	strlcpy(closed.job_name, row->job_name, sizeof(closed.job_name));
	strlcpy(closed.username, row->username, sizeof(closed.username));
	closed.gen = row->gen;
	closed.reason = row->key.trigger_id != 0 ? RUN_MANUAL : row->key.attempt > 1 ? RUN_RECOVERY : RUN_SCHEDULE;
	closed.status = RUN_LOST;
	closed.epoch = current->epoch;
	closed.partition = current->number;
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
	const PartitionState *state = account_of(job);

	return !partition_is_local(current) && job->gen_rev <= state->jobrev &&
		(slot < state->watermark || (slot == state->watermark && job->job_id <= state->watermark_job) ||
		 slot <= done_until(job));
}

/* Another instance has given this attempt up and come to a later one, which is pending.  It could not write to our row. */
static bool
is_overtaken(const RunSeen *row, const Job *job)
{
	const PartitionState *state = row->key.trigger_id != 0 ? &current->taken : account_of(job);

	for (int i = 0; i < state->npending; i++)
	{
		const PendingRun *pending = &state->pending[i];

		if (pending->job_id == row->key.job_id && pending->trigger_id == row->key.trigger_id &&
			pending->slot == row->key.scheduled_for && pending->attempt > row->key.attempt)
			return true;
	}
	return false;
}

/* Start rows of this instance for which the state has no pending entry, or that of a later attempt. */
static void
open_started_rows(void)
{
	for (int i = 0; i < nstarted; i++)
	{
		const RunSeen *row = &started[i];
		Job		   *job = timetable_find(row->key.job_id);

		if (row->key.trigger_id != 0 || job == NULL || job->partition != current->number ||
			(is_open(job, row->key.scheduled_for) && !is_overtaken(row, job)))
			continue;
		if (row->gen == job->gen && !is_overtaken(row, job) && !is_accounted_for(job, row->key.scheduled_for))
			open_recovered(job, &row->key, NULL, "the process that ran it");
		else if (!is_being_made(&row->key))
			end_started_row(row);
	}
}

/* Slots whose attempts so far have failed or were lost, which the state does not know yet. */
static void
open_unfinished_rows(void)
{
	for (int i = 0; i < nfound; i++)
	{
		const RunSeen *row = &found[i];
		Job		   *job = timetable_find(row->key.job_id);
		SlotRows   *seen;

		if (row->key.trigger_id != 0 || row->last_slot != 0 || job == NULL || job->partition != current->number ||
			!job->active || row->gen != job->gen || is_accounted_for(job, row->key.scheduled_for))
			continue;
		seen = find_rows(&row->key);
		if (seen != NULL && !history_is_final(job, &seen->history))
			open_recovered(job, &row->key, NULL, "the process that ran it");
	}
}

static bool
was_pending(const RunSeen *row)
{
	for (int i = 0; i < current->taken.npending; i++)
		if (current->taken.pending[i].job_id == row->key.job_id && current->taken.pending[i].trigger_id == 0 &&
			current->taken.pending[i].slot <= row->key.scheduled_for &&
			row->key.scheduled_for <= current->taken.pending[i].slot_to)
			return true;
	return false;
}

/* Failures in a row: as the state has them, and what the rows say of the slots that were open by it. */
static void
recount_failures(void)
{
	PartitionState *state = &current->taken;

	for (int i = 0; i < state->nfailing; i++)
	{
		Job		   *job = timetable_find(state->failing[i].job_id);

		if (job != NULL && job->partition == current->number)
			set_failures(job, state->failing[i].failures);
	}
	/* slots that were open by the state, and are older than the rows that were read */
	for (int i = 0; i < state->npending; i++)
	{
		const PendingRun *pending = &state->pending[i];
		RunKey		key = {pending->slot, pending->job_id, pending->trigger_id, pending->attempt};
		Job		   *job = timetable_find(pending->job_id);
		SlotRows   *seen = find_rows(&key);

		if (job != NULL && job->policy->max_failures > 0 && job->active && job->gen == pending->gen &&
			pending->attempt > 0 && pending->trigger_id == 0 && pending->slot < rows_from &&
			seen != NULL && history_is_final(job, &seen->history))
			note_outcome(job, seen->history.status);
	}
	for (int i = 0; i < nfound; i++)
	{
		const RunSeen *row = &found[i];
		Job		   *job = timetable_find(row->key.job_id);
		SlotRows   *seen;

		if (job == NULL || job->partition != current->number || job->policy->max_failures == 0 || !job->active ||
			row->key.trigger_id != 0 || row->last_slot != 0 || row->gen != job->gen)
			continue;
		seen = find_rows(&row->key);
		if (seen == NULL || seen->history.attempt != row->key.attempt || !history_is_final(job, &seen->history))
			continue;
		if (row->key.scheduled_for > Max(state->watermark, done_until(job)) || was_pending(row))
			note_outcome(job, row->status);
	}
}

/*
 * Those of triggers that are gone from etcd: another instance has made them, or has come to a later attempt.  (Alone, a request stays until
 * it is accounted for.)
 */
static void
end_triggered_rows(void)
{
	for (int i = 0; i < nstarted && !partition_is_local(current); i++)
	{
		const RunSeen *row = &started[i];
		Job		   *job = timetable_find(row->key.job_id);
		dlist_iter	iter;
		bool		known = row->key.trigger_id == 0 || job == NULL || job->partition != current->number;

		dlist_foreach(iter, &current->open)
			known |= dlist_container(OpenRun, in_partition, iter.cur)->key.trigger_id == row->key.trigger_id;
		if (row->key.trigger_id != 0 && job != NULL && job->partition == current->number && is_overtaken(row, job))
			known = false;
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

/* Has another instance the partition, as the watch says? */
static bool
is_elsewhere(int partition)
{
	const char *owner = scheduler.slot->partitions[partition].owner;
	bool		elsewhere;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	elsewhere = owner[0] != '\0' && strcmp(owner, dsched_my_node()) != 0;
	LWLockRelease(dsched_shared->control_lock);
	return elsewhere && scheduler.partitions[partition].step == STEP_NONE;
}

/*
 * Those of partitions that another instance has taken over meanwhile.  It sees to their slots, but not to rows of ours,
 * which would say for ever that something runs.  Nothing of these partitions can begin here, and what ended since the
 * living runs were listed is among these.
 */
static void
end_rows_of_others(void)
{
	for (int i = 0; i < nstarted && scheduler.etcd != NULL; i++)
	{
		Job		   *job = timetable_find(started[i].key.job_id);

		if (job != NULL && is_elsewhere(job->partition) && !is_being_made(&started[i].key))
			end_started_row(&started[i]);
	}
}

static void
read_started(void *arg)
{
	MemoryContextSwitchTo(scheduler.turn);
	list_running();
	started = run_read_started(&nstarted);
}

/* Prepared transactions were settled: start rows that nobody comes to, as their partition is not ours, nor is about to be. */
void
recovery_end_rows(void)
{
	/* the first partition that is taken over sees to them */
	if (current == NULL || !scheduler_transaction(read_started, NULL, "reading start rows"))
		return;
	end_orphaned_rows();
	end_rows_of_others();
}

/* A slot that the state did not know yet: nobody was there in time, however short that was (see opening.c on overlap). */
static void
continue_run(OpenRun *run)
{
	if (run->queued || run->remote != 0 || run->gen == 0)
		return;
	run->backlog = true;
	if (scheduler.unclean)
		run->careful = true;
}

static void
open_later_slots(Job *job, void *arg)
{
	const PartitionState *account = account_of(job);
	SlotRule	rule = job_rule(job);
	TimestampTz after = PG_INT64_MIN;
	TimestampTz slot;
	TimestampTz due;
	dlist_iter	iter;

	if (!job->usable || !job->active)
		return;
	if (scheduler.etcd == NULL ? !job->one_shot : job->gen_rev <= account->jobrev)
		after = job->job_id <= account->watermark_job ? account->watermark : account->watermark - 1;
	job->opened = 0;
	/* alone, a one-shot that is still there has to be looked for */
	if (done_until(job) > after && !(job->one_shot && scheduler.etcd == NULL))
		job->opened = after = done_until(job);
	slot = slot_next_due(&rule, after);
	if (slot == 0)
	{
		/* the account has its one slot closed, but whoever wrote that did not live to delete the definition */
		if (job->one_shot && after != PG_INT64_MIN && job->work->nopen == 0 && dlist_is_empty(&job->work->ranges))
			sync_retire(job->job_id);
		return;
	}
	due = slot_due(&rule, slot);
	/* a one-shot older than the rows that were read: look for its own */
	if (job->one_shot && slot < scheduler.now)
	{
		RunKey		key = {slot, job->job_id, 0, 1};
		RunHistory	history;

		if (run_history_in_transaction(&key, &history) && history.attempt > 0 && history_is_final(job, &history))
		{
			sync_retire(job->job_id);
			return;
		}
	}
	/* an account holds so many and no more: the rest stays above the watermark until there is room */
	if (!throttle_may_open(job) && due <= scheduler.now &&
		(due > current->taken.watermark ||
		 (due == current->taken.watermark && job->job_id > current->taken.watermark_job)))
	{
		job->next_slot = slot;
		throttle_block(job, due);
	}
	else
		dispatch_job_until(job, slot, scheduler.now, slot_is_closed);
	dlist_foreach(iter, &job->work->open)
		continue_run(dlist_container(OpenRun, in_job, iter.cur));
}

/* ---- a history that was lost ---------------------------------------------------------------------- */

/*
 * A standby that is promoted goes on where it had come to.  What its primary has done after that, and reported to etcd, is no part of
 * any history any more, its effects are gone.  So where the last account is that of our own lower timeline, jobs with at_least_once
 * go by what our history says instead: the copy of the account in our table, with which the rows agree, as both came in the order of the
 * log.  If that copy is of an earlier ownership, the last one began after it, at "since": nothing before that was the
 * primary's to do, but for what it had found open, which the account still lists if it had not ended.
 *
 * Of the strict modes the account in etcd is the truth: what was begun is not begun again, what was decided is not repeated.  Requests
 * go by their keys.  Runs that were handed over, and that another instance makes, are part of no history.
 *
 * None of this is for a former primary that lives on beside us, under a name of its own: what it does has its effects there.  It is known by an
 * account that is younger than our timeline.
 */
static const PartitionState *
account_of(const Job *job)
{
	return current->history.node[0] != '\0' && job->policy->delivery == DELIVERY_AT_LEAST_ONCE ?
		&current->history : &current->taken;
}

static bool
is_of_history(const PendingRun *pending)
{
	Job		   *job = timetable_find(pending->job_id);

	return job != NULL && pending->trigger_id == 0 && !pending->handed_over && account_of(job) == &current->history &&
		!current->history_is_since;
}

/* When our timeline began, by the file that was written then; without it (it was removed) never. */
static TimestampTz
promoted_at(TimeLineID timeline)
{
	char		path[MAXPGPATH];
	struct stat st;

	TLHistoryFilePath(path, timeline);
	if (timeline <= 1 || stat(path, &st) != 0)
		return PG_INT64_MIN;
	return time_t_to_timestamptz(st.st_mtime + 1);
}

static void
read_histories(void *arg)
{
	Reading    *reading = arg;
	TimeLineID	timeline = GetWALInsertionTimeLine();

	for (int i = 0; i < reading->n; i++)
	{
		Partition  *partition = reading->partitions[i];
		PartitionState *history = &partition->history;
		char	   *text;

		codec_state_free(history);
		partition->history_is_since = false;
		if (partition->taken.system_identifier != GetSystemIdentifier() ||
			partition->taken.timeline >= (int64) timeline || partition->taken.watermark >= promoted_at(timeline))
			continue;
		text = state_read(partition_place(partition->number), place_number(partition->number));
		if (text == NULL || !codec_state_decode(text, strlen(text), history, NULL, 0) ||
			history->epoch != partition->taken.epoch)
		{
			codec_state_free(history);
			strlcpy(history->node, dsched_my_node(), sizeof(history->node));
			history->jobrev = partition->taken.jobrev;
			history->watermark = Min(partition->taken.since, partition->taken.watermark);
			history->watermark_job = KEYS_MAX_ID;
			partition->history_is_since = true;
		}
		if (reading->from == 0 || history->watermark < reading->from)
			reading->from = history->watermark;
	}
}

bool
recovery_compare_histories(Partition **partitions, int n)
{
	Reading		reading = {0, partitions, n};

	if (!scheduler_transaction(read_histories, &reading, "reading the accounts of this server's history"))
		return false;
	if (reading.from != 0)
		ereport(LOG,
				(errmsg("dsched: partitions of database \"%s\" were last owned by the server that this one was a standby of",
						scheduler.dbname),
				 errdetail("Times from %s on of which this server has no record are run again.",
						   timestamptz_to_str(reading.from))));
	return true;
}

bool
recovery_open(Partition **partitions, int n)
{
	Reading		reading = {look_back(partitions, n), partitions, n};
	HeapNode   *blocked;
	ListCell   *lc;

	if (!scheduler_transaction(read_everything, &reading, "reading recent runs"))
		return false;
	for (int i = 0; i < n; i++)
	{
		current = partitions[i];
		note_done();
		recount_failures();
		open_running();
		current->since = current->history.node[0] != '\0' ? current->history.watermark : current->taken.watermark;
		for (int k = 0; k < current->taken.npending; k++)
			if (!is_of_history(&current->taken.pending[k]))
				open_pending(&current->taken.pending[k]);
		for (int k = 0; k < current->history.npending; k++)
			if (is_of_history(&current->history.pending[k]))
				open_pending(&current->history.pending[k]);
		open_started_rows();
		open_unfinished_rows();
		timetable_each(current->number, open_later_slots, NULL);
		foreach(lc, current->taken_triggers)
			open_trigger(current, lfirst(lc));
		end_triggered_rows();
		blocked = throttle_first_blocked(current);
		current->watermark = blocked != NULL ? blocked->time : Max(scheduler.now, current->taken.watermark);
		current->watermark_job = blocked != NULL ? blocked->id - 1 : KEYS_MAX_ID;
		partition_touch(current);
	}
	end_orphaned_rows();
	end_rows_of_others();
	hash_destroy(rows);
	rows = NULL;
	if (done != NULL)
		hash_destroy(done);
	done = NULL;
	return true;
}
