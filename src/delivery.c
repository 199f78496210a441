/*
 * delivery.c
 *	  The channel between executors that need a key in etcd and their scheduler; see delivery.h.
 *
 * An executor that waits hears everything that can end its run: a cancel, its timeout, the fence, SIGTERM, and the loss of its right
 * (by the deadline, too).  As long as its question was not sent it then takes it back.  After that it gives the answer
 * PATIENCE_MS more, as an answer in time leaves nothing in doubt.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "clock.h"
#include "compat.h"
#include "core/codec.h"
#include "delivery.h"
#include "places.h"
#include "settings.h"

#define PATIENCE_MS 2000
/* The deadline passes without a signal. */
#define LOOK_AGAIN_MS 500

void
delivery_run_name(const RunKey *key, int db, int partition, RunName *out)
{
	memset(out, 0, sizeof(*out));
	place_short_name(db, partition, out->place);
	out->partition = place_number(partition);
	out->job_id = key->job_id;
	out->slot = key->scheduled_for + CODEC_EPOCH_DIFF;
	out->trigger_id = key->trigger_id;
	out->attempt = key->attempt;
}

void
delivery_entry_name(const RunEntry *entry, RunName *out)
{
	delivery_run_name(&entry->key, entry->token.db, entry->token.partition, out);
	strlcpy(out->place, entry->place, sizeof(out->place));
}

bool
delivery_is_shared(int partition)
{
	return !place_is_local(partition);
}

bool
delivery_id(const RunEntry *entry, char *id)
{
	RunGid		gid = {0};

	if (entry->delivery != DELIVERY_EXACTLY_ONCE)
	{
		snprintf(id, GID_MAX, UINT64_FORMAT ":" INT64_FORMAT, entry->token.session, entry->seq);
		return true;
	}
	delivery_entry_name(entry, &gid.run);
	gid.epoch = entry->token.epoch;
	gid.session = entry->token.session;
	gid.seq = entry->seq;
	/* it changes only while nothing runs, and never from one cluster's to another's under a session */
	strlcpy(gid.incarnation, dsched_shared->databases[entry->token.db].incarnation, sizeof(gid.incarnation));
	return gid_write(id, &gid);
}

/* ---- the executor's side ------------------------------------------------------------------------ */

static void
put_question(RunEntry *entry)
{
	DatabaseSlot *db = &dsched_shared->databases[entry->token.db];
	bool		first;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	entry->decision = DECISION_ASKED;
	first = db->asking++ == 0;
	LWLockRelease(dsched_shared->queue_lock);
	if (first)
		dsched_wake_scheduler(entry->token.db);
}

static Decision
read_answer(RunEntry *entry)
{
	Decision	decision;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	decision = entry->decision;
	LWLockRelease(dsched_shared->queue_lock);
	return decision;
}

static bool
take_back(RunEntry *entry)
{
	bool		in_time;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	in_time = entry->decision == DECISION_ASKED;
	if (in_time)
	{
		entry->decision = DECISION_NONE;
		dsched_shared->databases[entry->token.db].asking--;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return in_time;
}

Decision
delivery_ask(RunEntry *entry, bool (*to_end) (void))
{
	int64		until = 0;

	put_question(entry);
	for (;;)
	{
		Decision	decision;
		long		timeout = LOOK_AGAIN_MS;

		ResetLatch(MyLatch);
		decision = read_answer(entry);
		if (decision != DECISION_ASKED && decision != DECISION_SENT)
			return decision;
		if (to_end())
		{
			int64		now = dsched_boot_now();

			if (take_back(entry))
				return DECISION_NONE;
			if (until == 0)
				until = now + PATIENCE_MS * INT64CONST(1000);
			if (now >= until)
				return read_answer(entry);
			timeout = Min(timeout, (until - now) / 1000 + 1);
		}
		else if (decision == DECISION_ASKED && !dsched_token_holds(&entry->token) && take_back(entry))
			return DECISION_NONE;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, PG_WAIT_EXTENSION);
	}
}

/* ---- the scheduler's side ------------------------------------------------------------------------ */

/* The entry that an executor of this database is at; NULL: none. Caller holds queue_lock. */
static RunEntry *
entry_of(int executor, int db)
{
	const ExecutorSlot *slot = &dsched_shared->executors[executor];
	RunEntry   *entry;

	if (slot->state != EXECUTOR_BUSY || slot->entry < 0)
		return NULL;
	entry = &dsched_shared->entries[slot->entry];
	return entry->state == ENTRY_RUNNING && entry->token.db == db ? entry : NULL;
}

int
delivery_take(int db, RunEntry *out, int *index, int max, bool again)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	int			n = 0;

	if (slot->asking == 0 && !again)
		return 0;
	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dsched_shared->max_executors && n < max; i++)
	{
		RunEntry   *entry = entry_of(i, db);

		if (entry == NULL || entry->decision != (again ? DECISION_SENT : DECISION_ASKED))
			continue;
		entry->decision = DECISION_SENT;
		entry->claimed = entry->delivery == DELIVERY_AT_MOST_ONCE;
		slot->asking -= !again;
		index[n] = entry - dsched_shared->entries;
		out[n++] = *entry;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return n;
}

static bool
is_waiting(const RunEntry *entry, const RunKey *key)
{
	return entry->state == ENTRY_RUNNING && entry->decision == DECISION_SENT && run_key_same(&entry->key, key);
}

bool
delivery_is_waited_for(int index, const RunKey *key, bool *session_bound)
{
	bool		waiting;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	waiting = is_waiting(&dsched_shared->entries[index], key);
	*session_bound = dsched_shared->entries[index].session_bound;
	LWLockRelease(dsched_shared->queue_lock);
	return waiting;
}

void
delivery_answer(int index, const RunKey *key, Decision decision)
{
	RunEntry   *entry = &dsched_shared->entries[index];

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (is_waiting(entry, key))
	{
		entry->decision = decision;
		if (decision == DECISION_REFUSED)
			entry->claimed = false;
		SetLatch(&dsched_shared->executors[entry->executor].proc->procLatch);
	}
	LWLockRelease(dsched_shared->queue_lock);
}

/* The session is gone from the token of a run that is told to end as the server stops (dsched_unbind_runs()). */
static bool
is_named(const RunEntry *entry, const RunGid *gid)
{
	return gid->seq == (uint64) entry->seq && gid->epoch == entry->token.epoch &&
		(gid->session == entry->token.session || entry->token.session == 0) &&
		gid->run.job_id == entry->key.job_id && gid->run.trigger_id == entry->key.trigger_id &&
		gid->run.slot == entry->key.scheduled_for + CODEC_EPOCH_DIFF && gid->run.attempt == entry->key.attempt;
}

bool
delivery_has_executor(int db, const char *gid)
{
	RunGid		named;
	bool		found = false;

	if (!gid_read(gid, &named))
		return false;
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors && !found; i++)
	{
		const RunEntry *entry = entry_of(i, db);

		found = entry != NULL && entry->delivery == DELIVERY_EXACTLY_ONCE && is_named(entry, &named);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

/* ---- tests --------------------------------------------------------------------------------------- */

void
delivery_test_point(const char *point)
{
	if (dsched_test_stop_at[0] == '\0' || strstr(dsched_test_stop_at, point) == NULL)
		return;
	ereport(LOG, (errmsg("dsched: stopped at \"%s\"", point)));
	(void) kill(MyProcPid, SIGSTOP);
}
