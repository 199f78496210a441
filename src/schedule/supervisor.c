/*
 * supervisor.c
 *	  Starts a scheduler in each database that has the extension, and again when it died.
 *
 * Runs inside the coordinator, which has no database.  Which databases there are is found by a short-lived
 * worker, the launcher, that sees the shared catalogs only; whether one has the extension can be seen only from
 * inside, so the launcher asks for a candidate in each, one at a time, and a candidate that finds no
 * extension leaves with its slot marked ABSENT.  CREATE EXTENSION asks for one at its commit.
 *
 * The truth about each worker is its DatabaseSlot: a scheduler claims it when it comes up and marks it
 * STOPPED in its exit callback.  Handles are kept only to notice workers that never came up, so a coordinator that
 * was restarted goes on with what it finds.  Workers are never restarted by the postmaster (after a
 * crash it would start them with arguments that point into an older shared memory).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "compat.h"
#include "core/backoff.h"
#include "schedule/supervisor.h"
#include "settings.h"
#include "shared.h"

#define RESTART_BASE_US INT64CONST(100000)
#define RESTART_MAX_US INT64CONST(30000000)
#define CANDIDATE_TIMEOUT_US INT64CONST(30000000)

typedef struct StartedWorker
{
	BackgroundWorkerHandle *handle;
	uint64		generation;
} StartedWorker;

static StartedWorker *schedulers = NULL;
static BackgroundWorkerHandle *launcher = NULL;
static int64 launcher_retry_at = 0;
static int	launcher_failures = 0;

static bool register_worker(BackgroundWorker *worker, const char *function, const char *name,
							BackgroundWorkerHandle **handle);
static void check_started(int i);
static void start_scheduler(int i);
static int64 supervise_launcher(int64 now);
static List *list_databases(void);
static bool wait_for_candidate(int slot, Oid dboid);

typedef struct DatabaseName
{
	Oid			oid;
	char		name[NAMEDATALEN];
} DatabaseName;

static bool
register_worker(BackgroundWorker *worker, const char *function, const char *name, BackgroundWorkerHandle **handle)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		done;

	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_notify_pid = MyProcPid;
	strlcpy(worker->bgw_library_name, "dsched", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, name, sizeof(worker->bgw_name));
	strlcpy(worker->bgw_type, name, sizeof(worker->bgw_type));
	done = RegisterDynamicBackgroundWorker(worker, handle);
	MemoryContextSwitchTo(old);
	if (!done)
	{
		*handle = NULL;
		dsched_shared->lost_registration_at = dsched_boot_now();
		if (dsched_shared->lost_registrations++ == 0)
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not start %s: no free background worker slot", name),
					 errhint("Raise max_worker_processes; dsched needs two, one for each database with jobs, "
							 "and dsched.max_executors.")));
	}
	return done;
}

static int64
restart_delay(int failures)
{
	if (failures <= 1)
		return 0;
	return backoff_delay(failures - 1, RESTART_BASE_US, RESTART_MAX_US, pg_prng_uint64(&pg_global_prng_state));
}

/* A worker that we registered and that ended without having claimed its slot. */
static void
check_started(int i)
{
	DatabaseSlot *db = &dsched_shared->databases[i];
	pid_t		pid;

	if (db->state != SCHEDULER_STARTING || db->scheduler_pid != 0 || schedulers[i].handle == NULL ||
		schedulers[i].generation != db->generation)
		return;
	if (GetBackgroundWorkerPid(schedulers[i].handle, &pid) != BGWH_STOPPED)
		return;
	db->state = SCHEDULER_STOPPED;
	db->restarts++;
	db->restart_at = dsched_boot_now() + restart_delay(db->restarts + 1);
}

/* Caller holds control_lock. */
static void
start_scheduler(int i)
{
	DatabaseSlot *db = &dsched_shared->databases[i];
	BackgroundWorker worker = {0};
	SchedulerStart start;
	char		name[BGW_MAXLEN];

	db->generation = pg_atomic_add_fetch_u64(&dsched_shared->generation, 1);
	start.generation = db->generation;
	start.dboid = db->dboid;
	memcpy(worker.bgw_extra, &start, sizeof(start));
	worker.bgw_main_arg = Int32GetDatum(i);
	snprintf(name, sizeof(name), "dsched scheduler for %s", db->dbname);
	if (schedulers[i].handle != NULL)
		pfree(schedulers[i].handle);
	schedulers[i].handle = NULL;
	schedulers[i].generation = db->generation;
	db->check_again = false;
	if (register_worker(&worker, "dsched_scheduler_main", name, &schedulers[i].handle))
		db->state = SCHEDULER_STARTING;
	else
	{
		db->state = SCHEDULER_STOPPED;
		db->restarts++;
		db->restart_at = dsched_boot_now() + restart_delay(db->restarts + 1);
	}
}

int64
supervise_schedulers(void)
{
	int64		now = dsched_boot_now();
	int64		again = supervise_launcher(now);

	if (schedulers == NULL)
		schedulers = MemoryContextAllocZero(TopMemoryContext, sizeof(StartedWorker) * dsched_shared->max_databases);

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dsched_shared->max_databases; i++)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		check_started(i);
		if (db->stay_away > 0)
			continue;
		if (db->state == SCHEDULER_WANTED || (db->state == SCHEDULER_STOPPED && db->restart_at <= now) ||
			(db->state == SCHEDULER_ABSENT && db->check_again))
			start_scheduler(i);
		if (db->state == SCHEDULER_STOPPED)
			again = again == 0 ? db->restart_at : Min(again, db->restart_at);
	}
	LWLockRelease(dsched_shared->control_lock);
	return again;
}

/* ---- the launcher ---------------------------------------------------------------------------- */

static int64
supervise_launcher(int64 now)
{
	BackgroundWorker worker = {0};
	pid_t		pid;

	if (launcher != NULL)
	{
		if (GetBackgroundWorkerPid(launcher, &pid) != BGWH_STOPPED)
			return 0;
		pfree(launcher);
		launcher = NULL;
		if (!dsched_shared->launcher_done)
			launcher_retry_at = now + restart_delay(++launcher_failures + 1);
	}
	if (dsched_shared->launcher_done && !dsched_shared->scan_wanted)
		return 0;
	if (launcher_retry_at > now)
		return launcher_retry_at;
	if (!register_worker(&worker, "dsched_launcher_main", "dsched launcher", &launcher))
	{
		launcher_retry_at = now + restart_delay(++launcher_failures + 1);
		return launcher_retry_at;
	}
	return 0;
}

/* All databases that a job could live in.  Opens a transaction of its own. */
static List *
list_databases(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;
		DatabaseName *database;

		if (!form->datallowconn || form->datistemplate || database_is_invalid_form(form))
			continue;
		old = MemoryContextSwitchTo(caller);
		database = palloc(sizeof(DatabaseName));
		database->oid = form->oid;
		strlcpy(database->name, NameStr(form->datname), NAMEDATALEN);
		result = lappend(result, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return result;
}

/* Has the candidate of this slot come up or left again?  Waits for it, bounded. */
static bool
wait_for_candidate(int slot, Oid dboid)
{
	DatabaseSlot *db = &dsched_shared->databases[slot];
	int64		give_up = dsched_boot_now() + CANDIDATE_TIMEOUT_US;
	bool		settled = false;

	ConditionVariablePrepareToSleep(&dsched_shared->changed);
	while (!settled && dsched_boot_now() < give_up)
	{
		LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
		settled = db->dboid != dboid || db->state == SCHEDULER_RUNNING || db->state == SCHEDULER_ABSENT ||
			db->state == SCHEDULER_NONE || db->stay_away > 0 || (db->state == SCHEDULER_STOPPED && db->restarts > 1);
		LWLockRelease(dsched_shared->control_lock);
		if (!settled)
			(void) ConditionVariableTimedSleep(&dsched_shared->changed, 1000, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return settled;
}

void
dsched_launcher_main(Datum arg)
{
	char	   *detail;
	char	   *hint;
	ListCell   *lc;
	List	   *databases;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	dsched_shared->scan_wanted = false;
	databases = list_databases();
	foreach(lc, databases)
	{
		DatabaseName *database = lfirst(lc);
		int			slot = dsched_want_scheduler(database->oid, database->name);

		if (slot < 0)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("dsched: if database \"%s\" has jobs they do not run: no room for another scheduler",
							database->name),
					 errhint("Raise dsched.max_databases and restart the server.")));
		else if (!wait_for_candidate(slot, database->oid))
			ereport(LOG,
					(errmsg("dsched: the scheduler of database \"%s\" does not come up", database->name)));
	}
	if (!dsched_shared->launcher_done && dsched_workers_needed(&detail, &hint) > max_worker_processes)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("dsched: there are too few background workers for the configured executors"),
				 errdetail("%c%s.", pg_toupper((unsigned char) detail[0]), detail + 1),
				 errhint("%s", hint)));
	dsched_shared->launcher_done = true;
	ConditionVariableBroadcast(&dsched_shared->changed);
	dsched_wake_coordinator();
	proc_exit(0);
}
