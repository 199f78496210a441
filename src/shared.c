/*
 * shared.c
 *	  The shared memory of dsched: set-up, wake-ups, the table of databases, fencing, the test clock.
 *
 * The layout and the locking rules stand in shared.h; the run queue is in queue.c.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "clock.h"
#include "compat.h"
#include "mutant.h"
#include "places.h"
#include "settings.h"
#include "shared.h"

#define CLEAR_DATABASE_TIMEOUT_MS 10000

DschedShared *dsched_shared = NULL;

static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;

/* what the current transaction wants at its commit */
static bool wake_pending = false;
static bool scan_pending = false;
static char wake_dbname[NAMEDATALEN];

static Size shared_size(void);
static void request_shared(void);
static void start_shared(void);
static void init_arrays(DschedShared *shared);
static void at_end_of_transaction(XactEvent event, void *arg);
static void wake_this_database(void);

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(DschedShared));

	size = add_size(size, MAXALIGN(mul_size(dsched_max_databases, sizeof(DatabaseSlot))));
	size = add_size(size, MAXALIGN(mul_size(dsched_max_executors, sizeof(ExecutorSlot))));
	size = add_size(size, MAXALIGN(mul_size(dsched_queue_size + dsched_max_executors, sizeof(Lane))));
	size = add_size(size, MAXALIGN(mul_size(dsched_queue_size + dsched_max_executors, sizeof(int))));
	size = add_size(size, MAXALIGN(mul_size(dsched_queue_size, sizeof(RunEntry))));
	return size;
}

static void
request_shared(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("dsched", 2);
}

static void
start_shared(void)
{
	bool		found;

	if (prev_shmem_startup)
		prev_shmem_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dsched_shared = ShmemInitStruct("dsched", shared_size(), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche("dsched");

		memset(dsched_shared, 0, shared_size());
		dsched_shared->control_lock = &locks[0].lock;
		dsched_shared->queue_lock = &locks[1].lock;
		pg_atomic_init_u64(&dsched_shared->session, 0);
		pg_atomic_init_u64(&dsched_shared->deadline, 0);
		pg_atomic_init_u32(&dsched_shared->fence_waiters, 0);
		pg_atomic_init_u64(&dsched_shared->wall_offset, 0);
		pg_atomic_init_u32(&dsched_shared->clock_suspect, 0);
		pg_atomic_init_u64(&dsched_shared->incarnation_number, 0);
		pg_atomic_init_u64(&dsched_shared->test_clock, (uint64) GetCurrentTimestamp());	/* clock-ok: its first value */
		pg_atomic_init_u64(&dsched_shared->test_serial, 1);
		pg_atomic_init_u64(&dsched_shared->generation, 0);
		ConditionVariableInit(&dsched_shared->changed);
		dsched_shared->session_state = SESSION_NONE;
		init_arrays(dsched_shared);
	}
	LWLockRelease(AddinShmemInitLock);
}

static void
init_arrays(DschedShared *shared)
{
	char	   *next = (char *) shared + MAXALIGN(sizeof(DschedShared));

	shared->max_databases = dsched_max_databases;
	shared->max_executors = dsched_max_executors;
	shared->queue_size = dsched_queue_size;
	shared->max_lanes = dsched_queue_size + dsched_max_executors;
	shared->nbuckets = shared->max_lanes;

	shared->databases = (DatabaseSlot *) next;
	next += MAXALIGN(sizeof(DatabaseSlot) * shared->max_databases);
	shared->executors = (ExecutorSlot *) next;
	next += MAXALIGN(sizeof(ExecutorSlot) * shared->max_executors);
	shared->lane_buckets = (int *) next;
	next += MAXALIGN(sizeof(int) * shared->nbuckets);
	shared->lanes = (Lane *) next;
	next += MAXALIGN(sizeof(Lane) * shared->max_lanes);
	shared->entries = (RunEntry *) next;

	for (int i = 0; i < shared->max_databases; i++)
	{
		DatabaseSlot *db = &shared->databases[i];

		db->finished_head = -1;
		pg_atomic_init_u32(&db->asked, 0);
		pg_atomic_init_u32(&db->answered, 0);
		for (int p = 0; p < DSCHED_MAX_PARTITIONS; p++)
			pg_atomic_init_u64(&db->partitions[p].epoch, 0);
	}
	for (int i = 0; i < shared->max_executors; i++)
	{
		shared->executors[i].entry = -1;
		shared->executors[i].lane = -1;
		pg_atomic_init_u32(&shared->executors[i].committing, 0);
	}
	for (int i = 0; i < shared->queue_size; i++)
		shared->entries[i].next = i + 1 < shared->queue_size ? i + 1 : -1;
	shared->free_head = 0;
	shared->free_entries = shared->queue_size;
	for (int i = 0; i < shared->max_lanes; i++)
		shared->lanes[i].next = i + 1 < shared->max_lanes ? i + 1 : -1;
	shared->lanes_free = 0;
	shared->lanes_used = -1;
	for (int i = 0; i < shared->nbuckets; i++)
		shared->lane_buckets[i] = -1;
}

void
dsched_shared_init(void)
{
	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = start_shared;
	RegisterXactCallback(at_end_of_transaction, NULL);
}

void
dsched_require_preload(void)
{
	if (dsched_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dsched must be loaded by shared_preload_libraries"),
				 errhint("Add \"dsched\" to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/* ---- wake-ups ------------------------------------------------------------------------------- */

void
dsched_wake_coordinator(void)
{
	PGPROC	   *proc = dsched_shared->coordinator_proc;

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
dsched_wake_scheduler(int db)
{
	PGPROC	   *proc = dsched_shared->databases[db].scheduler_proc;

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
dsched_wake_at_commit(void)
{
	char	   *name;

	if (dsched_shared == NULL || wake_pending)
		return;
	name = get_database_name(MyDatabaseId);
	strlcpy(wake_dbname, name ? name : "", sizeof(wake_dbname));
	wake_pending = true;
}

void
dsched_scan_at_commit(void)
{
	if (dsched_shared != NULL)
		scan_pending = true;
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (wake_pending)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed dsched jobs"),
						 errdetail("Nothing would tell the scheduler of the change when it is committed.")));
			break;
		case XACT_EVENT_COMMIT:
			if (wake_pending)
				wake_this_database();
			if (scan_pending)
			{
				dsched_shared->scan_wanted = true;
				dsched_wake_coordinator();
			}
			wake_pending = scan_pending = false;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			wake_pending = scan_pending = false;
			break;
		default:
			break;
	}
}

static void
wake_this_database(void)
{
	int			db;
	bool		running = false;

	pg_atomic_fetch_add_u64(&dsched_shared->test_serial, 1);
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
	{
		DatabaseSlot *slot = &dsched_shared->databases[db];

		slot->check_again = true;
		running = slot->state == SCHEDULER_RUNNING;
		if (running)
			dsched_wake_scheduler(db);
	}
	LWLockRelease(dsched_shared->control_lock);
	if (!running && dsched_want_scheduler(MyDatabaseId, wake_dbname) < 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("jobs of database \"%s\" do not run: no room for another scheduler", wake_dbname),
				 errhint("Raise dsched.max_databases and restart the server.")));
}

/* ---- databases ------------------------------------------------------------------------------ */

int
dsched_find_database(Oid dboid)
{
	for (int i = 0; i < dsched_shared->max_databases; i++)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		if (db->state != SCHEDULER_NONE && db->dboid == dboid)
			return i;
	}
	return -1;
}

static int
free_database_slot(void)
{
	for (int i = 0; i < dsched_shared->max_databases; i++)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		if (db->state == SCHEDULER_NONE || (db->state == SCHEDULER_ABSENT && db->stay_away == 0))
			return i;
	}
	return -1;
}

static void
init_database_slot(DatabaseSlot *db, Oid dboid, const char *dbname)
{
	db->dboid = dboid;
	strlcpy(db->dbname, dbname, sizeof(db->dbname));
	db->generation = pg_atomic_add_fetch_u64(&dsched_shared->generation, 1);
	db->scheduler_pid = 0;
	db->scheduler_proc = NULL;
	db->restart_at = 0;
	db->restarts = 0;
	db->stay_away = 0;
	db->check_again = false;
	db->member_wanted = false;
	db->identity_known = false;
	db->incarnation[0] = '\0';
	db->max_revision = 0;
	db->beat_revision = 0;
	db->replaced = db->doubts_etcd = false;
	db->others = 0;
	db->in_doubt = db->decided_elsewhere = 0;
	db->in_doubt_why[0] = db->in_doubt_hint[0] = db->decided_by[0] = '\0';
	db->bound_session = 0;
	db->problem[0] = db->hint[0] = '\0';
	db->unpublished = db->broken_jobs = db->unverified_jobs = db->open_runs = 0;
	db->key_ids[0] = db->key_problem[0] = '\0';
	db->verified = false;
	db->processed_until = 0;
	db->idle_serial = 0;
	memset(db->places, 0, sizeof(db->places));
	db->local_wanted = false;
	db->each_jobs = db->nowhere_jobs = 0;
	memset(&db->lacks, 0, sizeof(db->lacks));
	memset(db->lacked, 0, sizeof(db->lacked));
	db->nlacked = 0;
	/* versions are not those of another database */
	db->lacks_version++;
	db->lacked_version++;
	db->used_version++;
	db->lacks_told = db->used_told = db->used_for = 0;
}

int
dsched_want_scheduler(Oid dboid, const char *dbname)
{
	int			i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	i = dsched_find_database(dboid);
	if (i < 0)
	{
		i = free_database_slot();
		if (i >= 0)
			init_database_slot(&dsched_shared->databases[i], dboid, dbname);
	}
	if (i >= 0)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		strlcpy(db->dbname, dbname, sizeof(db->dbname));
		db->check_again = true;
		if (db->state == SCHEDULER_NONE || db->state == SCHEDULER_ABSENT || db->state == SCHEDULER_STOPPED)
		{
			db->state = SCHEDULER_WANTED;
			db->restart_at = 0;
			db->restarts = 0;
		}
		dsched_wake_coordinator();
	}
	else
		dsched_shared->room_refused = true;
	LWLockRelease(dsched_shared->control_lock);
	return i;
}

void
dsched_room_left(void)
{
	if (!dsched_shared->room_refused)
		return;
	dsched_shared->room_refused = false;
	dsched_shared->scan_wanted = true;
}

void
dsched_set_problem(int db, const char *problem, const char *hint)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(slot->problem, problem ? problem : "", sizeof(slot->problem));
	strlcpy(slot->hint, hint ? hint : "", sizeof(slot->hint));
	LWLockRelease(dsched_shared->control_lock);
}

/* Tells the workers of a database to leave; true if none is left. */
static bool
send_workers_away(Oid dboid)
{
	bool		gone = true;
	int			i;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	i = dsched_find_database(dboid);
	if (i >= 0)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		if (db->scheduler_pid != 0)
		{
			kill(db->scheduler_pid, SIGTERM);
			gone = false;
		}
		if (db->state == SCHEDULER_STARTING)
			gone = false;
	}
	LWLockRelease(dsched_shared->control_lock);

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state == EXECUTOR_FREE || executor->dboid != dboid)
			continue;
		gone = false;
		if (executor->pid != 0)
			kill(executor->pid, SIGTERM);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return gone;
}

void
dsched_clear_database(Oid dboid)
{
	int64		give_up = dsched_boot_now() + CLEAR_DATABASE_TIMEOUT_MS * INT64CONST(1000);
	int			i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	i = dsched_find_database(dboid);
	if (i >= 0)
		dsched_shared->databases[i].stay_away++;
	LWLockRelease(dsched_shared->control_lock);

	/* executors may have outlived the scheduler that started them (DROP EXTENSION) */
	ConditionVariablePrepareToSleep(&dsched_shared->changed);
	while (!send_workers_away(dboid) && dsched_boot_now() < give_up)
		(void) ConditionVariableTimedSleep(&dsched_shared->changed, 200, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

void
dsched_let_back(Oid dboid, bool dropped)
{
	int			i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	i = dsched_find_database(dboid);
	if (i >= 0 && dsched_shared->databases[i].stay_away > 0)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		db->stay_away--;
		if (dropped && (db->state == SCHEDULER_WANTED || db->state == SCHEDULER_STOPPED))
		{
			db->state = SCHEDULER_ABSENT;
			db->check_again = false;
			dsched_room_left();
		}
		else if (db->state == SCHEDULER_STOPPED)
		{
			db->state = SCHEDULER_WANTED;
			db->restart_at = 0;
		}
	}
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_coordinator();
}

/* ---- fencing -------------------------------------------------------------------------------- */

static bool
is_session_bound(const RunToken *token)
{
	uintptr_t	address = (uintptr_t) token;
	const volatile RunEntry *entry;

	if (address < (uintptr_t) dsched_shared->entries ||
		address >= (uintptr_t) (dsched_shared->entries + dsched_shared->queue_size))
		return false;
	entry = (const RunEntry *) (address - offsetof(RunEntry, token));
	return entry->session_bound;
}

bool
dsched_token_holds(const RunToken *token)
{
	DatabaseSlot *db = &dsched_shared->databases[token->db];

	/* a local partition of a clustered instance needs no session */
	if (dsched_clustered() && place_is_local(token->partition))
		return token->epoch != 0 && pg_atomic_read_u64(&db->partitions[token->partition].epoch) == token->epoch;
	if (token->session == 0 || pg_atomic_read_u64(&dsched_shared->session) != token->session)
		return false;
	if (token->epoch == 0)
		return false;
	if (pg_atomic_read_u64(&db->partitions[token->partition].epoch) != token->epoch)
	{
		/* whoever clears the epoch of a run that goes on has bound it before */
		pg_read_barrier();
		if (!is_session_bound(token))
			return false;
	}
	return MUTANT(NO_DEADLINE) || dsched_boot_now() < (int64) pg_atomic_read_u64(&dsched_shared->deadline);
}

/* Has this executor a run of (db, partition)?  Caller holds queue_lock. */
static bool
executor_concerns(const ExecutorSlot *executor, int db, int partition)
{
	const RunEntry *entry;

	if (executor->state != EXECUTOR_BUSY || executor->entry < 0)
		return false;
	entry = &dsched_shared->entries[executor->entry];
	return (db < 0 || entry->token.db == db) &&
		(partition < 0 || (entry->token.partition == partition && !entry->session_bound));
}

bool
dsched_committing(int db, int partition)
{
	bool		found = false;

	pg_memory_barrier();
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors && !found; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		found = pg_atomic_read_u32(&executor->committing) != 0 && executor_concerns(executor, db, partition);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

static void
cancel_runs(int db, int partition, bool local)
{
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->pid != 0 && executor_concerns(executor, db, partition) &&
			(local || !place_is_local(dsched_shared->entries[executor->entry].token.partition)))
		{
			executor->fenced = true;
			pg_memory_barrier();
			kill(executor->pid, SIGINT);
		}
	}
	LWLockRelease(dsched_shared->queue_lock);
}

void
dsched_bind_runs(int db, int partition, uint64 epoch)
{
	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dsched_shared->max_executors; i++)
		if (executor_concerns(&dsched_shared->executors[i], db, partition))
		{
			RunEntry   *entry = &dsched_shared->entries[dsched_shared->executors[i].entry];

			entry->session_bound |= entry->token.epoch == epoch;
		}
	LWLockRelease(dsched_shared->queue_lock);
	pg_memory_barrier();
}

int
dsched_unbind_runs(int db)
{
	int			n = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];
		RunEntry   *entry;

		if (!executor_concerns(executor, db, -1))
			continue;
		entry = &dsched_shared->entries[executor->entry];
		if (!entry->session_bound)
			continue;
		n++;
		if (executor->fenced)
			continue;
		/* the epoch of its token, which is over, decides again; session_bound stays, to know it by */
		entry->token.session = 0;
		executor->fenced = true;
		pg_memory_barrier();
		if (executor->pid != 0)
			kill(executor->pid, SIGINT);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return n;
}

void
dsched_cancel_runs(int db, int partition)
{
	cancel_runs(db, partition, true);
}

void
dsched_cancel_session_runs(void)
{
	cancel_runs(-1, -1, false);
}

bool
dsched_cancel_run(int e, const RunKey *key)
{
	const RunEntry *entry = &dsched_shared->entries[e];
	bool		running;

	if (e < 0)
		return false;
	/* the executor cannot hand it back, nor take another run, while we hold the lock: the signal is for this one */
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	running = entry->state == ENTRY_RUNNING && run_key_same(&entry->key, key);
	if (running)
	{
		ExecutorSlot *executor = &dsched_shared->executors[entry->executor];

		executor->cancelled = true;
		pg_memory_barrier();
		kill(executor->pid, SIGINT);
	}
	LWLockRelease(dsched_shared->queue_lock);
	return running;
}

/* ---- the test clock ------------------------------------------------------------------------- */

TimestampTz
dsched_test_clock_read(void)
{
	return (TimestampTz) pg_atomic_read_u64(&dsched_shared->test_clock);
}

void
dsched_test_clock_move(TimestampTz to)
{
	pg_atomic_write_u64(&dsched_shared->test_clock, (uint64) to);
	pg_atomic_fetch_add_u64(&dsched_shared->test_serial, 1);
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_databases; i++)
		dsched_wake_scheduler(i);
	LWLockRelease(dsched_shared->control_lock);
}

/* Has every scheduler seen the move numbered 'serial', with nothing under way? */
static bool
quiet_since(uint64 serial)
{
	bool		quiet = dsched_shared->launcher_done;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_databases && quiet; i++)
	{
		DatabaseSlot *db = &dsched_shared->databases[i];

		if (db->state == SCHEDULER_NONE || db->state == SCHEDULER_ABSENT)
			continue;
		if (db->state != SCHEDULER_RUNNING || db->idle_serial < serial)
			quiet = false;
	}
	LWLockRelease(dsched_shared->control_lock);
	return quiet;
}

bool
dsched_test_quiesce_wait(int timeout_ms)
{
	uint64		serial = pg_atomic_read_u64(&dsched_shared->test_serial);
	int64		give_up = dsched_boot_now() + timeout_ms * INT64CONST(1000);
	bool		quiet;

	ConditionVariablePrepareToSleep(&dsched_shared->changed);
	while (!(quiet = quiet_since(serial)) && dsched_boot_now() < give_up)
		(void) ConditionVariableTimedSleep(&dsched_shared->changed, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	return quiet;
}
