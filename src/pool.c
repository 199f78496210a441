/*
 * pool.c
 *	  The pool of executors: which lane has how many of them.
 *
 * The pool belongs to nobody.  Schedulers start executors for the lanes of their database that have more
 * work than hands.  Where the pool is full, or the server has no worker left, they ask idle executors of
 * other lanes to leave, and a busy one leaves by itself when its run has ended if its place is for another
 * lane.
 *
 * Shares.  What a database, and within it a lane, holds is its executors that start, are called or make a
 * run: a long run holds a place as long as it takes.  Of those that could use one more the next is
 *
 *	  1. that which holds the fewest (so all get the same, or what they can use if that is less);
 *	  2. of equals, that which has had the least executor time, counted in steps of QUANTUM_US;
 *	  3. of equals again, that whose first run ranks first (schedule/order.c).
 *
 * first among the databases, then among the lanes of that one.  Executor time is charged to lane and
 * database as runs end (served).  It is the virtual time of start-time fair queueing: who begins to wait
 * begins at the clock, which is what the one has had that took the last run, and has no claim to what it
 * did not use before.  So however much work one has, another that comes gets its share at once, and the
 * order of a single policy holds between roles where none has had more than another.
 *
 * A change of lane costs the start of a process, some milliseconds.  So an executor whose lane has work
 * leaves for another only if that holds two fewer; or one fewer, and has had less by more than QUANTUM_US
 * (and some times what this start took) or its first run ranks before by more than PLACE_MARGIN_US.  One without work leaves at once for a lane
 * that holds none, else after LINGER_US, as a lane that has little to do has it often.  Where more runs wait
 * than the queue has places, its lane may have work that is not in there yet: it waits REFILL_US for that.  And a lane gets at
 * most as many at a time as are up: often the first has done the work before a second would be there.
 *
 * Nobody can take a place back from a run that has begun.  So dsched.max_executors_per_role keeps one role
 * from holding all, and dsched.max_executors_per_database one database.
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
#include "replication/logicallauncher.h"
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
/* After that delay others come first for so long, and then no more: it may have been no fault of the lane. */
#define FAILED_START_LAST_US INT64CONST(800000)
#define REGISTRATION_DELAY_US INT64CONST(500000)
/* Until the postmaster has noticed that a worker is gone. */
#define EXIT_DELAY_US INT64CONST(20000)
#define SLOW_START_US INT64CONST(1000000)
#define START_TIMEOUT_US INT64CONST(60000000)
#define QUANTUM_US INT64CONST(100000)
/* On a busy machine a start takes longer; it is to pay, within bounds. */
#define QUANTUM_MAX_US INT64CONST(500000)
#define START_WORTH 4
#define LINGER_US INT64CONST(50000)
#define PLACE_MARGIN_US INT64CONST(50000)
#define REFILL_US INT64CONST(10000)
/* So long ago a run found the queue full: it is full. */
#define FULL_US INT64CONST(100000)
/* No executor leaves for a rank sooner after its start. */
#define STAY_US INT64CONST(20000)
/* An executor with work looks around once in so long: with many lanes a look costs more than a short run. */
#define LOOK_US INT64CONST(1000)
/* Lost registrations after so long a pause are reported again. */
#define REPORT_PAUSE_US INT64CONST(300000000)
#define PLACE_KEPT_US INT64CONST(1000000)

/* Handles of the executors that this process started, by slot; valid while the generations agree. */
typedef struct StartedExecutor
{
	BackgroundWorkerHandle *handle;
	uint64		generation;
} StartedExecutor;

static StartedExecutor *started = NULL;

static bool report_lost_registration = false;

static void executor_exit(int code, Datum arg);
static void ask_again(int64 *again, int64 at);
static void reap_failed_starts(int64 now);
static bool start_executor(int lane);
static bool give_up_on_lane(int lane);
static void fail_lane(int lane);
static void take_stock(int64 now);
static int	shortage(int lane, int64 now, const ExecutorSlot *leaving);
static bool goes_first_in_database(int a, int b, int64 now);
static bool database_goes_first(int a, int b);
static bool role_place_is_for_others(int lane, int64 now);
static bool may_take_place(int db, int64 now, int64 *again);
static void make_room(int db, int64 now, int64 *again);
static bool outranks(int other, const ExecutorSlot *slot, const RunEntry *own, int64 now);
static bool place_is_for_others(ExecutorSlot *slot, int64 now);

/* ---- limits ------------------------------------------------------------------------------------- */

/* Of three executors or more one is for the others, unless it is set otherwise. */
int
dsched_executors_per_role(void)
{
	if (dsched_max_executors_per_role < 0)
		return dsched_max_executors > 2 ? dsched_max_executors - 1 : dsched_max_executors;
	if (dsched_max_executors_per_role == 0)
		return dsched_max_executors;
	return Min(dsched_max_executors_per_role, dsched_max_executors);
}

int
dsched_executors_per_database(void)
{
	if (dsched_max_executors_per_database == 0)
		return dsched_max_executors;
	return Min(dsched_max_executors_per_database, dsched_max_executors);
}

int
dsched_workers_needed(char **detail, char **hint)
{
	int			schedulers = 0;
	int			others = max_logical_replication_workers > 0 ? 1 : 0;
	int			needed;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_databases; i++)
		schedulers += dsched_shared->databases[i].state != SCHEDULER_NONE &&
			dsched_shared->databases[i].state != SCHEDULER_ABSENT;
	LWLockRelease(dsched_shared->control_lock);
	needed = 1 + schedulers + dsched_shared->max_executors + others;
	*detail = *hint = NULL;
	if (needed > max_worker_processes)
	{
		*detail = psprintf("up to %d background workers are needed: the coordinator, %d %s, %d %s%s", needed,
						   schedulers, schedulers == 1 ? "scheduler" : "schedulers",
						   dsched_shared->max_executors, dsched_shared->max_executors == 1 ? "executor" : "executors",
						   others > 0 ? ", and the server's own for logical replication" : "");
		*hint = psprintf("Raise max_worker_processes (now %d) to at least %d, or lower dsched.max_executors (now %d), "
						 "and restart the server.", max_worker_processes, needed, dsched_shared->max_executors);
	}
	return needed;
}

static int
held_by_lane(const Lane *lane)
{
	return lane->coming + lane->busy;
}

/* Executors of a role in all databases; idle: with those that have nothing to do. */
static int
held_by_role(Oid roleoid, bool idle)
{
	int			n = 0;

	for (int i = queue_role_bucket(roleoid); i >= 0; i = dsched_shared->lanes[i].next_of_role)
		if (dsched_shared->lanes[i].roleoid == roleoid)
			n += idle ? dsched_shared->lanes[i].executors : held_by_lane(&dsched_shared->lanes[i]);
	return n;
}

static bool
role_is_full(const Lane *lane)
{
	return held_by_role(lane->roleoid, true) >= dsched_executors_per_role();
}

/* May there be more for an executor without work than is in the queue? */
static bool
awaits_refill(const ExecutorSlot *executor, int64 now)
{
	int64		full_at = dsched_shared->databases[dsched_shared->lanes[executor->lane].db].full_at;

	return full_at != 0 && now - full_at < FULL_US &&
		(executor->state != EXECUTOR_IDLE || now < executor->idle_since + REFILL_US);
}

/* After take_stock(). */
static bool
database_is_full(const Lane *lane)
{
	return dsched_shared->databases[lane->db].executors >= dsched_executors_per_database();
}

/* The earliest of the times at which somebody has to look again; 0: none yet. */
static void
ask_again(int64 *again, int64 at)
{
	*again = *again == 0 ? at : Min(*again, at);
}

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
	if (executor == NULL || role_is_full(l) || database_is_full(l))
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
			int64		now = dsched_boot_now();

			started[i].handle = NULL;
			report_lost_registration = dsched_shared->lost_registrations++ == 0 ||
				now - dsched_shared->lost_registration_at > REPORT_PAUSE_US;
			dsched_shared->lost_registration_at = now;
			dsched_shared->no_worker_until = now + REGISTRATION_DELAY_US;
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
	executor->started_at = executor->charged_until = dsched_boot_now();
	executor->looked_at = 0;
	l->started_at = executor->started_at;
	pg_atomic_write_u32(&executor->committing, 0);
	queue_set_executor(executor, EXECUTOR_STARTING, false, false);
	l->executors++;
	return true;
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
 * How many executors a lane could use now besides those that it has; if this one were to leave (NULL: none).  After the
 * count of take_stock().
 */
static int
shortage(int lane, int64 now, const ExecutorSlot *leaving)
{
	const Lane *l = &dsched_shared->lanes[lane];
	int			up = l->executors - l->starting;
	int			of_role = held_by_role(l->roleoid, false);
	int			of_database = dsched_shared->databases[l->db].held;

	if (leaving != NULL && (leaving->state != EXECUTOR_IDLE || leaving->called))
	{
		of_role -= leaving->roleoid == l->roleoid;
		of_database -= dsched_shared->lanes[leaving->lane].db == l->db;
	}
	if (l->queued <= l->coming || l->retry_at > now)
		return 0;
	/* only a hint, as it is read without its lock: nobody is there who would start one */
	if (dsched_shared->databases[l->db].scheduler_proc == NULL)
		return 0;
	if (of_role >= dsched_executors_per_role() || of_database >= dsched_executors_per_database())
		return 0;
	/* one that hangs in its start is not waited for */
	if (now > l->started_at + SLOW_START_US)
		return l->queued - l->coming;
	return Max(0, Min(l->queued - l->coming, Max(up, 1) - l->starting));
}

/* It could use an executor, but one of its has just failed to start. */
static bool
comes_last(const Lane *lane, int64 now)
{
	return lane->failed_starts > 0 && now < lane->retry_at + FAILED_START_LAST_US;
}

/* Of two lanes of a database that could use an executor: does a get it? */
static bool
goes_first_in_database(int a, int b, int64 now)
{
	const Lane *x = &dsched_shared->lanes[a];
	const Lane *y = &dsched_shared->lanes[b];

	if (comes_last(x, now) != comes_last(y, now))
		return comes_last(y, now);
	if (held_by_lane(x) != held_by_lane(y))
		return held_by_lane(x) < held_by_lane(y);
	if (x->served / QUANTUM_US != y->served / QUANTUM_US)
		return x->served < y->served;
	return queue_goes_before(queue_peek(a, 0), queue_peek(b, 0));
}

/* The same of two databases. */
static bool
database_goes_first(int a, int b)
{
	const DatabaseSlot *x = &dsched_shared->databases[a];
	const DatabaseSlot *y = &dsched_shared->databases[b];

	if (x->held != y->held)
		return x->held < y->held;
	if (x->served / QUANTUM_US != y->served / QUANTUM_US)
		return x->served < y->served;
	return queue_goes_before(queue_peek(x->claimant, 0), queue_peek(y->claimant, 0));
}

/* Counts what each database holds and could use, and finds which of its lanes is next. */
static void
take_stock(int64 now)
{
	for (int i = 0; i < dsched_shared->max_databases; i++)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		db->executors = db->held = db->wanted = 0;
		db->claimant = -1;
	}
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		const ExecutorSlot *executor = &dsched_shared->executors[i];
		DatabaseSlot *db;

		if (executor->state == EXECUTOR_FREE)
			continue;
		db = &dsched_shared->databases[dsched_shared->lanes[executor->lane].db];
		db->executors++;
		db->held += executor->state != EXECUTOR_IDLE || executor->called;
	}
	if (dsched_shared->lanes_waiting == 0)
		return;
	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		DatabaseSlot *db = &dsched_shared->databases[dsched_shared->lanes[i].db];
		int			n = shortage(i, now, NULL);

		db->wanted += n;
		if (n > 0 && (db->claimant < 0 || goes_first_in_database(i, db->claimant, now)))
			db->claimant = i;
	}
}

/*
 * Of two lanes of a role that has as many executors as it may have, in different databases: which gets the next?  What else their
 * databases hold does not matter, as that is not what they wait for.
 */
static bool
goes_first_of_role(int a, int b)
{
	int			held_a = held_by_lane(&dsched_shared->lanes[a]);
	int			held_b = held_by_lane(&dsched_shared->lanes[b]);

	return held_a != held_b ? held_a < held_b : queue_goes_before(queue_peek(a, 0), queue_peek(b, 0));
}

/* Are the places that the role of this lane may still have for its lanes in other databases? */
static bool
role_place_is_for_others(int lane, int64 now)
{
	Oid			roleoid = dsched_shared->lanes[lane].roleoid;
	int			room = dsched_executors_per_role() - held_by_role(roleoid, true);

	for (int i = queue_role_bucket(roleoid); i >= 0 && room > 0; i = dsched_shared->lanes[i].next_of_role)
	{
		const Lane *other = &dsched_shared->lanes[i];

		if (i != lane && other->roleoid == roleoid && !comes_last(other, now) && shortage(i, now, NULL) > 0 &&
			goes_first_of_role(i, lane))
			room--;
	}
	return room <= 0;
}

/*
 * Is there a free place for this database?  Those that are to have it before us come first: their
 * schedulers may not have woken up yet.  *again: when to ask again if not.
 */
static bool
may_take_place(int db, int64 now, int64 *again)
{
	const DatabaseSlot *us = &dsched_shared->databases[db];
	int64		kept_until = dsched_shared->vacated_at + PLACE_KEPT_US;
	int			claims = 0;
	int			room = 0;

	for (int i = 0; i < dsched_shared->max_executors; i++)
		room += dsched_shared->executors[i].state == EXECUTOR_FREE;
	if (room == 0)
		return false;
	for (int i = 0; i < dsched_shared->max_databases; i++)
	{
		const DatabaseSlot *other = &dsched_shared->databases[i];

		/* so many until they hold what we hold */
		if (i != db && other->claimant >= 0 && !comes_last(&dsched_shared->lanes[other->claimant], now) &&
			database_goes_first(i, db))
			claims += Min(other->wanted, Max(us->held - other->held, 1));
	}
	if (kept_until <= now)
		return true;
	if ((claims == 0 || (room > claims && !no_worker_left(now))) && !role_place_is_for_others(us->claimant, now))
		return true;
	ask_again(again, kept_until);
	return false;
}

/*
 * Asks idle executors to leave for the claimant of a database that finds no place, those that were idle
 * longest first, until as many leave as the database could use.  Where a limit is in its way, only those
 * that count towards it.  *again: when one will have been idle for long enough.
 */
static void
make_room(int db, int64 now, int64 *again)
{
	const DatabaseSlot *us = &dsched_shared->databases[db];
	const Lane *claimant = &dsched_shared->lanes[us->claimant];
	int			wanted = us->wanted;

	for (int i = 0; i < dsched_shared->max_executors; i++)
		wanted -= dsched_shared->executors[i].state != EXECUTOR_FREE && dsched_shared->executors[i].retire;
	for (; wanted > 0; wanted--)
	{
		ExecutorSlot *longest = NULL;

		for (int i = 0; i < dsched_shared->max_executors; i++)
		{
			ExecutorSlot *executor = &dsched_shared->executors[i];
			const Lane *lane = &dsched_shared->lanes[executor->lane];
			int64		may_go;

			if (executor->state != EXECUTOR_IDLE || executor->called || executor->retire || lane == claimant)
				continue;
			if ((role_is_full(claimant) && executor->roleoid != claimant->roleoid) ||
				(database_is_full(claimant) && lane->db != db))
				continue;
			may_go = executor->idle_since;
			if (held_by_lane(claimant) > 0)
				may_go += LINGER_US;
			else if (awaits_refill(executor, now))
				may_go += REFILL_US;
			if (now < may_go)
			{
				ask_again(again, may_go);
				continue;
			}
			if (longest == NULL || executor->idle_since < longest->idle_since)
				longest = executor;
		}
		if (longest == NULL)
			return;
		queue_set_executor(longest, EXECUTOR_IDLE, false, true);
		SetLatch(&longest->proc->procLatch);
	}
}

/* Registrations fail in rows: the first is said.  Outside the lock. */
static void
report_lost(void)
{
	if (!report_lost_registration)
		return;
	report_lost_registration = false;
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("dsched could not start an executor: no free background worker slot"),
			 errdetail("Runs are delayed until there is one."),
			 errhint("Raise max_worker_processes (now %d), or lower dsched.max_executors (now %d).",
					 max_worker_processes, dsched_max_executors)));
}

int64
dsched_pool_manage(int db)
{
	DatabaseSlot *us = &dsched_shared->databases[db];
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
		if (l->db != db)
			continue;
		if (l->queued == 0 || give_up_on_lane(lane))
			queue_free_lane_if_unused(lane);
		else if (l->retry_at > now)
			ask_again(&again, l->retry_at);
		else if (l->starting > 0 && l->queued > l->coming && l->started_at + SLOW_START_US >= now)
			ask_again(&again, l->started_at + SLOW_START_US + 1);
	}
	while (us->queued > 0)
	{
		take_stock(now);
		if (us->claimant < 0)
			break;
		if (!no_worker_left(now) && may_take_place(db, now, &again) && start_executor(us->claimant))
			continue;
		/* no room: an idle one of another lane gives way, and its exit wakes us */
		make_room(db, now, &again);
		if (no_worker_left(now))
			ask_again(&again, dsched_shared->no_worker_until);
		break;
	}
	LWLockRelease(dsched_shared->queue_lock);
	report_lost();
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

/* Time that its run took is charged to lane and database. */
static void
charge(ExecutorSlot *slot, int64 now)
{
	Lane	   *lane = &dsched_shared->lanes[slot->lane];

	if (slot->state == EXECUTOR_STARTING)
		slot->start_took = now - slot->started_at;
	if (slot->state == EXECUTOR_BUSY && now > slot->charged_until)
	{
		lane->served += now - slot->charged_until;
		dsched_shared->databases[lane->db].served += now - slot->charged_until;
	}
	slot->charged_until = now;
}

void
pool_note_take(const ExecutorSlot *executor)
{
	const Lane *lane = &dsched_shared->lanes[executor->lane];
	DatabaseSlot *db = &dsched_shared->databases[lane->db];

	db->served_clock = Max(db->served_clock, lane->served);
	dsched_shared->served_clock = Max(dsched_shared->served_clock, db->served);
}

/* Is the place of this executor, whose lane has more to do (own: what is first), for another lane? */
static bool
outranks(int other, const ExecutorSlot *slot, const RunEntry *own, int64 now)
{
	const Lane *x = &dsched_shared->lanes[slot->lane];
	const Lane *y = &dsched_shared->lanes[other];
	const DatabaseSlot *xdb = &dsched_shared->databases[x->db];
	const DatabaseSlot *ydb = &dsched_shared->databases[y->db];
	bool		same = x->db == y->db;
	bool		of_role = !same && x->roleoid == y->roleoid && role_is_full(y);
	int			fewer = same || of_role ? held_by_lane(x) - held_by_lane(y) : xdb->held - ydb->held;
	int64		had_x = same ? x->served : xdb->served;
	int64		had_y = same ? y->served : ydb->served;

	if (fewer != 1)
		return fewer > 1;
	if (!of_role && had_x - had_y > Max(QUANTUM_US, Min(START_WORTH * slot->start_took, QUANTUM_MAX_US)))
		return true;
	/* the place would be its own lane's again, to be left again */
	if (!of_role && had_x / QUANTUM_US < had_y / QUANTUM_US)
		return false;
	return now - slot->started_at - slot->start_took > Max(STAY_US, slot->start_took) &&
		queue_peek(other, 0)->rank + PLACE_MARGIN_US < own->rank;
}

/*
 * Are there more lanes for which this executor is to leave than there are places free or about to be?  A
 * lane that a limit keeps from those places waits for one of its own role or database.
 */
static bool
place_is_for_others(ExecutorSlot *slot, int64 now)
{
	const Lane *lane = &dsched_shared->lanes[slot->lane];
	bool		has_work = lane->queued > lane->coming - (slot->state == EXECUTOR_IDLE && slot->called);
	const RunEntry *own = has_work ? queue_peek(slot->lane, 0) : NULL;
	bool		lingers = slot->state != EXECUTOR_IDLE || now < slot->idle_since + LINGER_US;
	int			claims = 0;
	int			room = 0;
	int			limited_claims = 0;
	int			limited_room = 0;

	if (!has_work && awaits_refill(slot, now))
		return false;
	if (dsched_shared->lanes_waiting == (lane->queued > 0) || (has_work && now < slot->looked_at + LOOK_US))
		return false;
	slot->looked_at = now;
	take_stock(now);
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		const ExecutorSlot *executor = &dsched_shared->executors[i];

		room += executor->state == EXECUTOR_FREE ? !no_worker_left(now) : executor->retire;
		limited_room += executor->state != EXECUTOR_FREE && executor->retire &&
			(executor->roleoid == slot->roleoid || dsched_shared->lanes[executor->lane].db == lane->db);
	}
	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		const Lane *other = &dsched_shared->lanes[i];

		if (i == slot->lane || shortage(i, now, slot) == 0 || (has_work && comes_last(other, now)))
			continue;
		if (has_work ? !outranks(i, slot, own, now) : (lingers && held_by_lane(other) > 0))
			continue;
		if (!role_is_full(other) && !database_is_full(other))
			claims++;
		else if ((!role_is_full(other) || other->roleoid == lane->roleoid) &&
				 (!database_is_full(other) || other->db == lane->db))
			limited_claims++;
	}
	return claims > room || limited_claims > limited_room;
}

/* After a reload there may be more of its role, or database, than there are to be. */
static bool
is_too_many(const ExecutorSlot *slot)
{
	int			of_role = 0;
	int			of_database = 0;

	if (held_by_role(slot->roleoid, true) <= dsched_executors_per_role() && dsched_max_executors_per_database == 0)
		return false;
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		const ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state == EXECUTOR_FREE || executor->retire)
			continue;
		of_role += executor->roleoid == slot->roleoid;
		of_database += executor->dboid == slot->dboid;
	}
	return of_role > dsched_executors_per_role() || of_database > dsched_executors_per_database();
}

bool
dsched_executor_should_retire(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	int64		now = dsched_boot_now();
	bool		leave;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	charge(slot, now);
	leave = slot->retire;
	/* one that was just started makes a run before it thinks of others: it counts as a failed start else */
	if (!leave && slot->state != EXECUTOR_STARTING && (is_too_many(slot) || place_is_for_others(slot, now)))
	{
		queue_set_executor(slot, slot->state, false, true);
		leave = true;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return leave;
}

long
dsched_executor_linger(int executor)
{
	const ExecutorSlot *slot = &dsched_shared->executors[executor];
	int64		now = dsched_boot_now();
	int64		left;

	/* a hint, read without the lock: who begins to wait after this looks after it himself */
	if (dsched_shared->lanes_waiting == 0)
		return 0;
	left = slot->idle_since + (awaits_refill(slot, now) ? REFILL_US : LINGER_US) - now;
	left = left / 1000 + 1;
	return left > 0 && left <= LINGER_US / 1000 ? (long) left : 0;
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
	if (dsched_shared->no_worker_until > dsched_shared->vacated_at + EXIT_DELAY_US)
		dsched_shared->no_worker_until = dsched_shared->vacated_at + EXIT_DELAY_US;
	/* others may wait for this place */
	for (int i = 0; i < dsched_shared->max_databases; i++)
		if (dsched_shared->databases[i].queued > 0)
			dsched_wake_scheduler(i);
	queue_free_lane_if_unused(slot->lane);
	slot->lane = -1;
	LWLockRelease(dsched_shared->queue_lock);
	if (pg_atomic_read_u32(&dsched_shared->fence_waiters) > 0)
		dsched_wake_coordinator();
	ConditionVariableBroadcast(&dsched_shared->changed);
}
