/*
 * pool.c
 *	  The pool of executors: which lane has how many of them.
 *
 * The pool belongs to nobody.  Schedulers start executors for the lanes of their database that have more
 * work than hands, the lane whose next run ranks first before the others.  Where the pool is full, or the
 * server has no worker left, they ask idle executors of other lanes to leave, and a busy one leaves by
 * itself when its run has ended if its place is for another lane.
 *
 * What counts of a lane is the run that one more executor would take: the first, or the one after those
 * that executors which start or were called are about to take.  A change of lane costs the start of a
 * process, some milliseconds, so an executor leaves for another lane only if that run ranks before its
 * own lane's by more than PLACE_MARGIN_US.  As ranks are times, and those of later runs are higher, no
 * lane keeps its places for ever, however much work it has, and none waits for the end of its own long
 * run while others go on.
 *
 * A place that was left is kept for the best of the lanes, whose scheduler may be another than the first
 * to wake up; but for PLACE_KEPT_US at most, as that scheduler may hang.
 *
 * Everything here is under queue_lock.  An executor that dies gives its place and its run back in its
 * exit callback.  One that never comes up is noticed by who started it, or by anybody after
 * START_TIMEOUT_US.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "execute/executor.h"
#include "queue_internal.h"
#include "settings.h"
#include "shared.h"

#define MAX_FAILED_STARTS 3
#define FAILED_START_DELAY_US INT64CONST(200000)
#define REGISTRATION_DELAY_US INT64CONST(500000)
/* Until the postmaster has noticed that a worker is gone. */
#define EXIT_DELAY_US INT64CONST(20000)
#define START_TIMEOUT_US INT64CONST(60000000)
#define PLACE_MARGIN_US INT64CONST(50000)
#define PLACE_KEPT_US INT64CONST(1000000)

/* Handles of the executors that this process started, by slot; valid while the generations agree. */
typedef struct StartedExecutor
{
	BackgroundWorkerHandle *handle;
	uint64		generation;
} StartedExecutor;

static StartedExecutor *started = NULL;

static void executor_exit(int code, Datum arg);
static void reap_failed_starts(int64 now);
static const RunEntry *unserved_run(int lane, int64 now);
static int	claims_before(int lane, const RunEntry *own, int64 now);
static bool may_take_place(int lane, int64 now, int64 *again);
static int	best_lane(int db, int64 now);
static bool start_executor(int lane);
static bool retire_idle_executor(int except_lane);
static bool give_up_on_lane(int lane);
static void fail_lane(int lane);
static bool place_is_for_others(const ExecutorSlot *slot, int64 now);

/* ---- starting ---------------------------------------------------------------------------------- */

/*
 * Executors that were registered by this process but never came up: the postmaster had no room to fork,
 * or a scheduler before this one registered them and died.
 */
static void
reap_failed_starts(int64 now)
{
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];
		bool		ours = started != NULL && started[i].handle != NULL &&
			started[i].generation == executor->generation;
		pid_t		pid;

		if (executor->state != EXECUTOR_STARTING || executor->pid != 0)
			continue;
		if (ours ? GetBackgroundWorkerPid(started[i].handle, &pid) != BGWH_STOPPED
			: now < executor->started_at + START_TIMEOUT_US)
			continue;
		queue_set_executor(executor, EXECUTOR_FREE, false, false);
		dsched_shared->lanes[executor->lane].executors--;
		dsched_shared->lanes[executor->lane].retry_at = now + FAILED_START_DELAY_US;
	}
}

/*
 * Reserves a slot and registers an executor for a lane; false if there is no slot in the pool or the
 * server.
 */
static bool
start_executor(int lane)
{
	BackgroundWorker worker = {0};
	ExecutorArgs start;
	ExecutorSlot *executor = NULL;
	Lane	   *l = &dsched_shared->lanes[lane];
	int			i;

	for (i = 0; i < dsched_shared->max_executors; i++)
		if (dsched_shared->executors[i].state == EXECUTOR_FREE)
		{
			executor = &dsched_shared->executors[i];
			break;
		}
	if (executor == NULL)
		return false;

	start.generation = pg_atomic_add_fetch_u64(&dsched_shared->generation, 1);
	start.dboid = l->dboid;
	start.roleoid = l->roleoid;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(i);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "dsched", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dsched_executor_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "dsched executor", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "dsched executor", sizeof(worker.bgw_type));
	memcpy(worker.bgw_extra, &start, sizeof(start));

	if (started == NULL)
		started = MemoryContextAllocZero(TopMemoryContext, sizeof(StartedExecutor) * dsched_shared->max_executors);
	if (started[i].handle != NULL)
		pfree(started[i].handle);
	started[i].handle = NULL;
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		bool		registered = RegisterDynamicBackgroundWorker(&worker, &started[i].handle);

		MemoryContextSwitchTo(old);
		if (!registered)
		{
			started[i].handle = NULL;
			dsched_shared->lost_registrations++;
			dsched_shared->lost_registration_at = dsched_boot_now();
			l->retry_at = dsched_shared->no_worker_until = dsched_boot_now() + REGISTRATION_DELAY_US;
			return false;
		}
	}
	started[i].generation = start.generation;
	executor->generation = start.generation;
	executor->pid = 0;
	executor->proc = NULL;
	executor->lane = lane;
	executor->dboid = l->dboid;
	executor->roleoid = l->roleoid;
	executor->entry = -1;
	executor->started_at = dsched_boot_now();
	pg_atomic_write_u32(&executor->committing, 0);
	queue_set_executor(executor, EXECUTOR_STARTING, false, false);
	l->executors++;
	return true;
}

static bool
retire_idle_executor(int except_lane)
{
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state != EXECUTOR_IDLE || executor->called || executor->lane == except_lane)
			continue;
		if (!executor->retire)
		{
			queue_set_executor(executor, EXECUTOR_IDLE, false, true);
			SetLatch(&executor->proc->procLatch);
		}
		return true;
	}
	return false;
}

/* A role that may not log in or connect: classes 28 and 42.  Trying again soon would not help. */
static bool
role_refused(const Lane *lane)
{
	return strncmp(lane->last_sqlstate, "28", 2) == 0 || strncmp(lane->last_sqlstate, "42", 2) == 0;
}

/* Hands all queued runs of a lane back as impossible to start. */
static void
fail_lane(int lane)
{
	Lane	   *l = &dsched_shared->lanes[lane];
	int			e;

	while ((e = queue_pop(lane)) >= 0)
	{
		RunEntry   *entry = &dsched_shared->entries[e];

		entry->status = RUN_STATUS_NONE;
		entry->cannot_start = true;
		strlcpy(entry->sqlstate, l->last_sqlstate, sizeof(entry->sqlstate));
		strlcpy(entry->message, l->last_error, sizeof(entry->message));
		queue_finish_entry(e);
	}
	l->failed_starts = 0;
}

/* Nobody comes up for it, and trying again soon would not help. */
static bool
give_up_on_lane(int lane)
{
	const Lane *l = &dsched_shared->lanes[lane];

	if (l->failed_starts < MAX_FAILED_STARTS && (l->failed_starts == 0 || !role_refused(l)))
		return false;
	fail_lane(lane);
	return true;
}

/* ---- whose place -------------------------------------------------------------------------------- */

static bool
no_worker_left(int64 now)
{
	return dsched_shared->no_worker_until > now;
}

/*
 * The run of a lane that waits for an executor more, if one could be started for it (but for want of
 * workers); or NULL.
 */
static const RunEntry *
unserved_run(int lane, int64 now)
{
	const Lane *l = &dsched_shared->lanes[lane];

	if (l->queued <= l->coming || (l->retry_at > now && !no_worker_left(now)))
		return NULL;
	/* only a hint, as it is read without its lock: nobody is there who would start one */
	if (dsched_shared->databases[l->db].scheduler_proc == NULL)
		return NULL;
	return queue_peek(lane, l->coming);
}

/* How many other lanes have an unserved run that goes before this one. */
static int
claims_before(int lane, const RunEntry *own, int64 now)
{
	int			n = 0;

	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		const RunEntry *run = i == lane ? NULL : unserved_run(i, now);

		n += run != NULL && dsched_shared->lanes[i].failed_starts == 0 && queue_goes_before(run, own);
	}
	return n;
}

/*
 * Is there a free place for this lane?  Those before it come first: lanes of other databases, whose
 * schedulers may not have woken up yet, and where workers are short those of this one that have tried in
 * vain.  *again: when to ask again if not.
 */
static bool
may_take_place(int lane, int64 now, int64 *again)
{
	int64		kept_until = dsched_shared->vacated_at + PLACE_KEPT_US;
	int			claims;
	int			room = 0;

	for (int i = 0; i < dsched_shared->max_executors; i++)
		room += dsched_shared->executors[i].state == EXECUTOR_FREE;
	if (room == 0)
		return false;
	claims = claims_before(lane, unserved_run(lane, now), now);
	if (claims == 0 || (room > claims && !no_worker_left(now)) || kept_until <= now)
		return true;
	*again = *again == 0 ? kept_until : Min(*again, kept_until);
	return false;
}

/*
 * The lane of this database that is to get the next executor: its run ranks first; those that failed to
 * start come last. -1: none.
 */
static int
best_lane(int db, int64 now)
{
	const RunEntry *best = NULL;
	bool		best_failed = false;
	int			found = -1;

	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		const Lane *lane = &dsched_shared->lanes[i];
		bool		failed = lane->failed_starts > 0;
		const RunEntry *run;

		if (lane->db != db || lane->retry_at > now || (run = unserved_run(i, now)) == NULL)
			continue;
		if (found < 0 || (failed != best_failed ? best_failed : queue_goes_before(run, best)))
		{
			best = run;
			best_failed = failed;
			found = i;
		}
	}
	return found;
}

int64
dsched_pool_manage(int db)
{
	int64		now = dsched_boot_now();
	int64		again = 0;
	int			lane,
				next;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	reap_failed_starts(now);
	for (lane = dsched_shared->lanes_used; lane >= 0; lane = next)
	{
		Lane	   *l = &dsched_shared->lanes[lane];

		next = l->next;
		if (l->db == db && (l->queued == 0 || give_up_on_lane(lane)))
			queue_free_lane_if_unused(lane);
	}
	while ((lane = best_lane(db, now)) >= 0)
	{
		if (may_take_place(lane, now, &again) && start_executor(lane))
			continue;
		/* no room: an idle one of another lane gives way, and its exit wakes us */
		(void) retire_idle_executor(lane);
		break;
	}
	for (lane = dsched_shared->lanes_used; lane >= 0; lane = dsched_shared->lanes[lane].next)
	{
		Lane	   *l = &dsched_shared->lanes[lane];

		if (l->db == db && l->queued > 0 && l->retry_at > now)
			again = again == 0 ? l->retry_at : Min(again, l->retry_at);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return again;
}

/* ---- the executor's side ------------------------------------------------------------------------ */

void
dsched_executor_attach(int executor, uint64 generation)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (slot->state != EXECUTOR_STARTING || slot->generation != generation || slot->pid != 0)
	{
		LWLockRelease(dsched_shared->queue_lock);
		proc_exit(0);
	}
	slot->pid = MyProcPid;
	slot->proc = MyProc;
	LWLockRelease(dsched_shared->queue_lock);
	before_shmem_exit(executor_exit, Int32GetDatum(executor));
}

/*
 * Do more lanes rank before the executor's own than there are places free or about to be?  Its own lane
 * needs no margin where it has nothing to do.
 */
static bool
place_is_for_others(const ExecutorSlot *slot, int64 now)
{
	const Lane *lane = &dsched_shared->lanes[slot->lane];
	const RunEntry *own = queue_peek(slot->lane, lane->coming - (slot->state == EXECUTOR_IDLE && slot->called));
	int			claims = 0;
	int			room = 0;

	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		const ExecutorSlot *executor = &dsched_shared->executors[i];

		room += executor->state == EXECUTOR_FREE ? !no_worker_left(now) : executor->retire;
	}
	for (int i = dsched_shared->lanes_used; i >= 0 && claims <= room; i = dsched_shared->lanes[i].next)
	{
		const RunEntry *run = i == slot->lane ? NULL : unserved_run(i, now);

		claims += run != NULL && (own == NULL || run->rank + PLACE_MARGIN_US < own->rank);
	}
	return claims > room;
}

bool
dsched_executor_should_retire(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	int64		now = dsched_boot_now();
	bool		leave;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	leave = slot->retire;
	/* one that was just started makes a run before it thinks of others: it counts as a failed start else */
	if (!leave && slot->state != EXECUTOR_STARTING && place_is_for_others(slot, now))
	{
		queue_set_executor(slot, slot->state, false, true);
		leave = true;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return leave;
}

/*
 * An executor leaves, by itself or killed.  Runs after the abort of its transaction (registered before
 * the connection to the database was made), so whoever looks up the row of its run sees the final truth.
 */
static void
executor_exit(int code, Datum arg)
{
	ExecutorSlot *slot = &dsched_shared->executors[DatumGetInt32(arg)];
	Lane	   *lane = &dsched_shared->lanes[slot->lane];

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&slot->committing, 0);
	if (slot->state == EXECUTOR_STARTING)
	{
		lane->failed_starts++;
		lane->retry_at = dsched_boot_now() + FAILED_START_DELAY_US;
	}
	if (slot->entry >= 0)
		queue_finish_entry(slot->entry);
	slot->entry = -1;
	queue_set_executor(slot, EXECUTOR_FREE, false, false);
	slot->pid = 0;
	slot->proc = NULL;
	lane->executors--;
	dsched_shared->vacated_at = dsched_boot_now();
	/* others may wait for this place */
	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		Lane	   *other = &dsched_shared->lanes[i];

		if (other->queued == 0)
			continue;
		if (other->retry_at != 0 && other->retry_at == dsched_shared->no_worker_until)
			other->retry_at = dsched_boot_now() + EXIT_DELAY_US;
		dsched_wake_scheduler(other->db);
	}
	queue_free_lane_if_unused(slot->lane);
	slot->lane = -1;
	LWLockRelease(dsched_shared->queue_lock);
	if (pg_atomic_read_u32(&dsched_shared->fence_waiters) > 0)
		dsched_wake_coordinator();
	ConditionVariableBroadcast(&dsched_shared->changed);
}
