/*
 * queue.c
 *	  The run queue and the pool of executors, in shared memory.
 *
 * A scheduler pushes runs, each into the lane of its database and role.  An executor is bound to one lane
 * for its life, takes its oldest run, and hands it back finished; the scheduler collects finished runs when
 * it next accounts for them.  So a run costs no round trip through the scheduler, and a burst of completions
 * wakes it once: only the first entry of an empty finished list sets its latch.
 *
 * The pool belongs to nobody: schedulers start executors for lanes that have more work than hands, and where the pool
 * is full, or the server has no worker left, they ask idle executors of other lanes to leave.  A busy one leaves by itself when its run ends if another
 * lane without any executor has waited longer than its own.
 *
 * Everything here is under queue_lock.  What is lost with a process: an executor that dies gives its slot,
 * and its run with status NONE, back in its exit callback; a scheduler's entries stay and are found by its
 * successor (the queued ones are withdrawn, the running ones waited for).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "execute/executor.h"
#include "settings.h"
#include "shared.h"

#define MAX_FAILED_STARTS 3
#define FAILED_START_DELAY_US INT64CONST(200000)
#define REGISTRATION_DELAY_US INT64CONST(500000)
/* Until the postmaster has noticed that a worker is gone. */
#define EXIT_DELAY_US INT64CONST(20000)
#define START_TIMEOUT_US INT64CONST(60000000)

/* Handles of the executors that this process started, by slot; valid while the generations agree. */
typedef struct StartedExecutor
{
	BackgroundWorkerHandle *handle;
	uint64		generation;
} StartedExecutor;

static StartedExecutor *started = NULL;

static const char *const reason_names[] = {"schedule", "catch_up", "manual", "recovery", "retry", "backfill"};
static const char *const status_names[] = {
	"unknown", "running", "succeeded", "failed", "timed_out", "cancelled", "lost", "skipped", "missed"
};

static int	find_lane(Oid dboid, Oid roleoid);
static void free_lane_if_unused(int lane);
static void append_to_lane(int lane, int e);
static int	pop_lane(int lane);
static void call_idle_executor(int lane);
static void release_entry(int e);
static void finish_entry(int e);
static void executor_exit(int code, Datum arg);
static void reap_failed_starts(int64 now);
static int	starting_or_called(int lane);
static bool start_executor(int lane);
static bool retire_idle_executor(int except_lane);
static bool may_start_another(int lane, int64 now);
static int	longest_waiting_lane(int db, int64 now);
static void fail_lane(int lane);

const char *
run_reason_name(RunReason reason)
{
	return reason_names[reason];
}

const char *
run_status_name(RunStatus status)
{
	return status_names[status];
}

/* ---- lanes ---------------------------------------------------------------------------------- */

static int
find_lane(Oid dboid, Oid roleoid)
{
	int			unused = -1;

	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		Lane	   *lane = &dsched_shared->lanes[i];

		if (lane->dboid == dboid && lane->roleoid == roleoid)
			return i;
		if (unused < 0 && lane->dboid == InvalidOid)
			unused = i;
	}
	if (unused >= 0)
	{
		Lane	   *lane = &dsched_shared->lanes[unused];

		memset(lane, 0, sizeof(*lane));
		lane->dboid = dboid;
		lane->roleoid = roleoid;
		lane->head = lane->tail = -1;
	}
	return unused;
}

static void
free_lane_if_unused(int lane)
{
	Lane	   *l = &dsched_shared->lanes[lane];

	if (l->queued == 0 && l->executors == 0)
		l->dboid = InvalidOid;
}

static void
append_to_lane(int lane, int e)
{
	Lane	   *l = &dsched_shared->lanes[lane];

	dsched_shared->entries[e].next = -1;
	if (l->tail < 0)
		l->head = e;
	else
		dsched_shared->entries[l->tail].next = e;
	l->tail = e;
	l->queued++;
}

static int
pop_lane(int lane)
{
	Lane	   *l = &dsched_shared->lanes[lane];
	int			e = l->head;

	if (e < 0)
		return -1;
	l->head = dsched_shared->entries[e].next;
	if (l->head < 0)
		l->tail = -1;
	l->queued--;
	return e;
}

static void
call_idle_executor(int lane)
{
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state == EXECUTOR_IDLE && executor->lane == lane && !executor->called && !executor->retire)
		{
			executor->called = true;
			dsched_shared->lanes[lane].idle--;
			SetLatch(&executor->proc->procLatch);
			return;
		}
	}
}

/* ---- the scheduler's side -------------------------------------------------------------------- */

int
dsched_queue_push(const RunEntry *run, Oid dboid, Oid roleoid)
{
	int			e;
	int			lane;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	e = dsched_shared->free_head;
	lane = e < 0 ? -1 : find_lane(dboid, roleoid);
	if (lane < 0)
	{
		dsched_shared->databases[run->token.db].wake_on_finish = true;
		LWLockRelease(dsched_shared->queue_lock);
		return -1;
	}
	dsched_shared->free_head = dsched_shared->entries[e].next;
	dsched_shared->entries[e] = *run;
	dsched_shared->entries[e].state = ENTRY_QUEUED;
	dsched_shared->entries[e].lane = lane;
	dsched_shared->entries[e].executor = -1;
	dsched_shared->lanes[lane].db = run->token.db;
	append_to_lane(lane, e);
	if (dsched_shared->lanes[lane].idle > 0)
		call_idle_executor(lane);
	LWLockRelease(dsched_shared->queue_lock);
	return e;
}

static void
release_entry(int e)
{
	dsched_shared->entries[e].state = ENTRY_FREE;
	dsched_shared->entries[e].next = dsched_shared->free_head;
	dsched_shared->free_head = e;
}

int
dsched_queue_take_finished(int db, RunEntry *out, int max)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	int			n = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	while (n < max && slot->finished_head >= 0)
	{
		int			e = slot->finished_head;

		slot->finished_head = dsched_shared->entries[e].next;
		out[n++] = dsched_shared->entries[e];
		release_entry(e);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return n;
}

static bool
same_run(const RunKey *a, const RunKey *b)
{
	return a->job_id == b->job_id && a->scheduled_for == b->scheduled_for &&
		a->trigger_id == b->trigger_id && a->attempt == b->attempt;
}

bool
dsched_queue_withdraw(int db, const RunKey *key)
{
	bool		found = false;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dsched_shared->queue_size && !found; i++)
	{
		Lane	   *lane = &dsched_shared->lanes[i];
		int			before = -1;

		if (lane->dboid == InvalidOid || lane->db != db)
			continue;
		for (int e = lane->head; e >= 0; before = e, e = dsched_shared->entries[e].next)
		{
			if (!same_run(&dsched_shared->entries[e].key, key))
				continue;
			if (before < 0)
				lane->head = dsched_shared->entries[e].next;
			else
				dsched_shared->entries[before].next = dsched_shared->entries[e].next;
			if (lane->tail == e)
				lane->tail = before;
			lane->queued--;
			release_entry(e);
			free_lane_if_unused(i);
			found = true;
			break;
		}
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

/* ---- the pool -------------------------------------------------------------------------------- */

/*
 * Executors that were registered by this process but never came up: the postmaster had no room to fork, or a
 * scheduler before this one registered them and died.
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
		executor->state = EXECUTOR_FREE;
		dsched_shared->lanes[executor->lane].executors--;
		dsched_shared->lanes[executor->lane].retry_at = now + FAILED_START_DELAY_US;
	}
}

static int
starting_or_called(int lane)
{
	int			n = 0;

	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->lane == lane && (executor->state == EXECUTOR_STARTING ||
									   (executor->state == EXECUTOR_IDLE && executor->called)))
			n++;
	}
	return n;
}

/* Reserves a slot and registers an executor for a lane; false if there is no slot in the pool or the server. */
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
	executor->state = EXECUTOR_STARTING;
	executor->generation = start.generation;
	executor->called = executor->retire = false;
	executor->pid = 0;
	executor->proc = NULL;
	executor->lane = lane;
	executor->dboid = l->dboid;
	executor->roleoid = l->roleoid;
	executor->entry = -1;
	executor->started_at = dsched_boot_now();
	pg_atomic_write_u32(&executor->committing, 0);
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
			executor->retire = true;
			dsched_shared->lanes[executor->lane].idle--;
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

	while ((e = pop_lane(lane)) >= 0)
	{
		RunEntry   *entry = &dsched_shared->entries[e];

		entry->status = RUN_STATUS_NONE;
		entry->cannot_start = true;
		strlcpy(entry->sqlstate, l->last_sqlstate, sizeof(entry->sqlstate));
		strlcpy(entry->message, l->last_error, sizeof(entry->message));
		finish_entry(e);
	}
	l->failed_starts = 0;
}

/* Has it work, and nobody at all to do it? */
static bool
has_no_hands(const Lane *lane, int64 now)
{
	return lane->dboid != InvalidOid && lane->queued > 0 && lane->executors == 0 &&
		(lane->retry_at <= now || dsched_shared->no_worker_until > now);
}

/* A second executor for a lane, or a tenth, is started where there is room left besides for the first ones of others. */
static bool
may_start_another(int lane, int64 now)
{
	int			room = 0;

	if (dsched_shared->lanes[lane].executors == 0)
		return true;
	for (int i = 0; i < dsched_shared->max_executors; i++)
		room += dsched_shared->executors[i].state == EXECUTOR_FREE;
	for (int i = 0; i < dsched_shared->queue_size && room > 0; i++)
		if (has_no_hands(&dsched_shared->lanes[i], now))
			room = dsched_shared->no_worker_until > now ? 0 : room - 1;
	return room > 0;
}

/* Of the lanes of this database that have nobody and could start somebody, the one whose run is the oldest; -1: none. */
static int
longest_waiting_lane(int db, int64 now)
{
	int			found = -1;

	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		const Lane *lane = &dsched_shared->lanes[i];

		if (lane->db == db && has_no_hands(lane, now) && lane->retry_at <= now && lane->failed_starts == 0 &&
			(found < 0 || dsched_shared->entries[lane->head].queued_at <
			 dsched_shared->entries[dsched_shared->lanes[found].head].queued_at))
			found = i;
	}
	return found;
}

int64
dsched_pool_manage(int db)
{
	int64		now = dsched_boot_now();
	int64		again = 0;
	int			first;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	reap_failed_starts(now);
	/* a place that somebody has left for a lane without any executor is not for the lane that it came from */
	while ((first = longest_waiting_lane(db, now)) >= 0 && start_executor(first))
		 /* the next one */ ;
	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		Lane	   *lane = &dsched_shared->lanes[i];
		int			deficit;

		if (lane->dboid == InvalidOid || lane->db != db)
			continue;
		if (lane->queued == 0)
		{
			free_lane_if_unused(i);
			continue;
		}
		if (lane->failed_starts >= MAX_FAILED_STARTS || (lane->failed_starts > 0 && role_refused(lane)))
		{
			fail_lane(i);
			free_lane_if_unused(i);
			continue;
		}
		if (lane->retry_at > now)
		{
			again = again == 0 ? lane->retry_at : Min(again, lane->retry_at);
			continue;
		}
		deficit = lane->queued - starting_or_called(i);
		while (deficit > 0 && may_start_another(i, now) && start_executor(i))
			deficit--;
		/* no room: an idle one of another lane gives way, and its exit wakes us */
		if (deficit > 0 && (lane->retry_at <= now || dsched_shared->no_worker_until > now))
			(void) retire_idle_executor(i);
		if (lane->retry_at > now)
			again = again == 0 ? lane->retry_at : Min(again, lane->retry_at);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return again;
}

/* ---- the executor's side --------------------------------------------------------------------- */

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

int
dsched_queue_take(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	Lane	   *lane = &dsched_shared->lanes[slot->lane];
	bool		was_counted_idle;
	int			e = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	was_counted_idle = slot->state == EXECUTOR_IDLE && !slot->called && !slot->retire;
	if (slot->state == EXECUTOR_STARTING)
	{
		lane->failed_starts = 0;
		lane->last_error[0] = lane->last_sqlstate[0] = '\0';
	}
	if (!slot->retire)
		e = pop_lane(slot->lane);
	if (e >= 0)
	{
		RunEntry   *entry = &dsched_shared->entries[e];

		entry->state = ENTRY_RUNNING;
		entry->executor = executor;
		entry->pid = MyProcPid;
		slot->entry = e;
		slot->state = EXECUTOR_BUSY;
		slot->called = false;
		slot->fenced = slot->cancelled = false;
		if (was_counted_idle)
			lane->idle--;
	}
	else
	{
		slot->state = EXECUTOR_IDLE;
		slot->called = false;
		if (!was_counted_idle && !slot->retire)
			lane->idle++;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return e;
}

/* Puts an entry into its database's finished list.  Caller holds queue_lock. */
static void
finish_entry(int e)
{
	RunEntry   *entry = &dsched_shared->entries[e];
	DatabaseSlot *db = &dsched_shared->databases[entry->token.db];

	entry->state = ENTRY_FINISHED;
	if (db->finished_head < 0 || db->wake_on_finish || dsched_test_clock)
		dsched_wake_scheduler(entry->token.db);
	entry->next = db->finished_head;
	db->finished_head = e;
}

void
dsched_queue_finish(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (slot->entry >= 0)
		finish_entry(slot->entry);
	slot->entry = -1;
	LWLockRelease(dsched_shared->queue_lock);
}

bool
dsched_executor_should_retire(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	TimestampTz mine = PG_INT64_MAX;
	int64		now = dsched_boot_now();
	bool		leave;
	bool		no_worker;
	bool		room = false;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	leave = slot->retire;
	no_worker = dsched_shared->no_worker_until > now;
	/* one that was just started makes a run before it thinks of others: it counts as a failed start else */
	if (!leave && slot->state != EXECUTOR_STARTING)
	{
		int			head = dsched_shared->lanes[slot->lane].head;

		if (head >= 0)
			mine = dsched_shared->entries[head].queued_at;
		for (int i = 0; i < dsched_shared->max_executors && !room && !no_worker; i++)
			room = dsched_shared->executors[i].state == EXECUTOR_FREE;
		for (int i = 0; i < dsched_shared->queue_size && !leave && !room; i++)
		{
			Lane	   *other = &dsched_shared->lanes[i];

			leave = i != slot->lane && other->dboid != InvalidOid && other->queued > 0 && other->executors == 0 &&
				(other->retry_at <= now || no_worker) && dsched_shared->entries[other->head].queued_at < mine;
		}
	}
	LWLockRelease(dsched_shared->queue_lock);
	return leave;
}

/*
 * An executor leaves, by itself or killed.  Runs after the abort of its transaction (registered before the
 * connection to the database was made), so whoever looks up the row of its run sees the final truth.
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
	else if (slot->state == EXECUTOR_IDLE && !slot->called && !slot->retire)
		lane->idle--;
	if (slot->entry >= 0)
		finish_entry(slot->entry);
	slot->entry = -1;
	slot->state = EXECUTOR_FREE;
	slot->pid = 0;
	slot->proc = NULL;
	lane->executors--;
	/* others may wait for this place */
	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		Lane	   *other = &dsched_shared->lanes[i];

		if (other->dboid == InvalidOid || other->queued == 0)
			continue;
		if (other->retry_at != 0 && other->retry_at == dsched_shared->no_worker_until)
			other->retry_at = dsched_boot_now() + EXIT_DELAY_US;
		dsched_wake_scheduler(other->db);
	}
	free_lane_if_unused(slot->lane);
	slot->lane = -1;
	LWLockRelease(dsched_shared->queue_lock);
	if (pg_atomic_read_u32(&dsched_shared->fence_waiters) > 0)
		dsched_wake_coordinator();
	ConditionVariableBroadcast(&dsched_shared->changed);
}
