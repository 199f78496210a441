/*
 * scheduler.c
 *	  The scheduler process: one for each database that has the extension.
 *
 * Each turn of its loop does, in this order: collect finished runs; take in changed definitions; open the slots that
 * are due; follow the coordinator's wishes about partitions; queue what may run; see to the pool of executors; write
 * rows and states; and then sleeps until the next slot, a retry, an answer or a wake-up.  Nothing in it waits
 * for anybody: transactions are short and give up on a lock after OWN_LOCK_TIMEOUT, etcd is spoken to asynchronously.
 *
 * An error in a turn ends the process with the error in the log; the coordinator starts another, which
 * rebuilds everything from the tables and etcd.  Runs that executors are making go on meanwhile.
 *
 * Where the identity of the database does not fit (a copy, a clone, a restored dump, another cluster) the process
 * stays, holds no partition, and looks again when it is woken by dsched.adopt().
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "schedule/supervisor.h"
#include "settings.h"

#define OWN_LOCK_TIMEOUT "500ms"
/* How long room that came free may stay unused, as long as every executor has work: it is filled again for many runs at once. */
#define REFILL_US INT64CONST(20000)
/* After ALTER EXTENSION nobody wakes us. */
#define VERSION_LOOK_US INT64CONST(2000000)
#define STOP_TIMEOUT_US INT64CONST(4000000)
#define RESTART_DELAY_US INT64CONST(200000)
/* Runs wait for so long and no executor is up: others are to make them; and how long until it is tried again. */
#define STARVED_US INT64CONST(10000000)
#define STARVED_PAUSE_US INT64CONST(60000000)
#define STARVED_PAUSE_MAX_US INT64CONST(600000000)
#define RESTART_MAX_US INT64CONST(30000000)
/* A scheduler that lived this long did not die of what it found at its start. */
#define GOOD_LIFE_US INT64CONST(60000000)

Scheduler	scheduler;

static bool extension_absent = false;
static Oid	extension_seen = InvalidOid;
static bool extension_replaced = false;	/* absent was ours: there is another one */
static char other_version[64];	/* of the extension's objects, if it is not that of this library; "" */
static bool finished_in_order = false;
static int64 stop_until = 0;
static int64 born = 0;

PGDLLEXPORT void dsched_scheduler_main(Datum arg);

static void handle_cancel(SIGNAL_ARGS);
static void secure_client(void);
static void claim_slot(int db, const SchedulerStart *start);
static void leave(int code, Datum arg);
static void secure_settings(void);
static void roles_changed(Datum arg, int cacheid, uint32 hashvalue);
static void learn_name(void *arg);
static void look_at_extension(void *arg);
static void publish_identity(void);
static void check_identity(void);
static const char *identity_problem(const Identity *identity, const char **hint);
static void take_in_changes(void);
static void collect_finished(void);
static void ask_for_wakeups(void);
static void turn(void);
static void set_alarms(void);
static void publish_state(void);
static bool all_quiet(void);
static void withdraw_leftovers(void);
static bool stop_in_order(void);

/* ---- the process ---------------------------------------------------------------------------------- */

void
dsched_scheduler_main(Datum arg)
{
	SchedulerStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, handle_cancel);
	BackgroundWorkerUnblockSignals();

	claim_slot(DatumGetInt32(arg), &start);
	BackgroundWorkerInitializeConnectionByOid(start.dboid, InvalidOid, 0);
	secure_settings();

	scheduler.context = AllocSetContextCreate(TopMemoryContext, "dsched scheduler", ALLOCSET_DEFAULT_SIZES);
	scheduler.turn = AllocSetContextCreate(TopMemoryContext, "dsched turn", ALLOCSET_DEFAULT_SIZES);
	scheduler.roles_changed = 1;
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
	common_init();
	timetable_init();
	partitions_init();
	waiting_init();
	scheduler.loop = loop_create(true);
	if (dsched_clustered())
	{
		scheduler.etcd = etcd_client_create(scheduler.loop, dsched_etcd_endpoints);
		secure_client();
	}
	scheduler_refresh_time();

	if (!scheduler_transaction(learn_name, NULL, "looking up the database's name") ||
		!scheduler_transaction(look_at_extension, NULL, "looking for the extension"))
		proc_exit(1);
	if (extension_absent)
		proc_exit(0);

	withdraw_leftovers();
	decisions_init();
	/* before it counts as running: the coordinator decides by it whether etcd is the right one */
	publish_identity();
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->state = SCHEDULER_RUNNING;
	LWLockRelease(dsched_shared->control_lock);
	ConditionVariableBroadcast(&dsched_shared->changed);
	dsched_wake_coordinator();
	ereport(LOG, (errmsg("dsched: scheduler for database \"%s\" started", scheduler.dbname)));

	/* the first turn looks at everything */
	scheduler.slot->check_again = true;
	for (;;)
	{
		turn();
		if (scheduler.stopping && stop_in_order())
			break;
		set_alarms();
		(void) loop_wait(scheduler.loop);
		/* others wait for us to take note of their barriers (DROP DATABASE, DROP TABLESPACE) */
		CHECK_FOR_INTERRUPTS();
		scheduler.slot->wakeups++;
	}
	finished_in_order = true;
	proc_exit(extension_absent ? 0 : 1);
}

/* What cannot be used is reported by the coordinator, which has the same settings. */
static void
secure_client(void)
{
	EtcdSecurity security;
	char		reason[256];

	dsched_etcd_security(&security);
	if (scheduler.etcd != NULL)
		(void) etcd_client_secure(scheduler.etcd, &security, reason, sizeof(reason));
}

/* The server's lock timeout sends itself this signal.  Nobody else has anything to cancel here. */
static void
handle_cancel(SIGNAL_ARGS)
{
	if (get_timeout_indicator(LOCK_TIMEOUT, false))
		StatementCancelHandler(postgres_signal_arg);
}

static void
claim_slot(int db, const SchedulerStart *start)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (slot->state != SCHEDULER_STARTING || slot->generation != start->generation || slot->scheduler_pid != 0)
	{
		LWLockRelease(dsched_shared->control_lock);
		proc_exit(0);
	}
	slot->scheduler_pid = MyProcPid;
	slot->scheduler_proc = MyProc;
	pg_atomic_write_u32(&slot->answered, pg_atomic_read_u32(&slot->asked));
	scheduler.db = db;
	scheduler.slot = slot;
	scheduler.dboid = start->dboid;
	strlcpy(scheduler.dbname, slot->dbname, sizeof(scheduler.dbname));
	LWLockRelease(dsched_shared->control_lock);
	born = dsched_boot_now();
	before_shmem_exit(leave, (Datum) 0);
}

static void
leave(int code, Datum arg)
{
	DatabaseSlot *slot = scheduler.slot;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	slot->scheduler_pid = 0;
	slot->scheduler_proc = NULL;
	slot->member_wanted = slot->local_wanted = false;
	if (extension_absent && !extension_replaced)
	{
		slot->state = SCHEDULER_ABSENT;
		dsched_room_left();
	}
	else
	{
		int64		delay = finished_in_order ? RESTART_DELAY_US : RESTART_DELAY_US << Min(slot->restarts, 10);

		if (dsched_boot_now() - born > GOOD_LIFE_US)
			slot->restarts = 0;
		slot->restarts++;
		slot->state = SCHEDULER_STOPPED;
		slot->restart_at = dsched_boot_now() + Min(delay, RESTART_MAX_US);
	}
	LWLockRelease(dsched_shared->control_lock);
	ConditionVariableBroadcast(&dsched_shared->changed);
	dsched_wake_coordinator();
}

/* Whatever ALTER DATABASE or ALTER ROLE has set: the scheduler's own transactions are not to be disturbed by it. */
static void
secure_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"lock_timeout", OWN_LOCK_TIMEOUT},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"session_replication_role", "origin"},
		{"row_security", "off"},
		{"synchronous_commit", "local"},
		{"application_name", "dsched scheduler"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
roles_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	scheduler.roles_changed++;
}

void
scheduler_refresh_time(void)
{
	scheduler.now = dsched_wall_now();
	scheduler.boot = dsched_boot_now();
}

void
scheduler_wake_at(int64 boot)
{
	if (scheduler.alarm == 0 || boot < scheduler.alarm)
		scheduler.alarm = Max(boot, 1);
}

bool
scheduler_transaction(void (*callback) (void *arg), void *arg, const char *what)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		callback(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		/* a user's lock is no trouble of ours: we come again */
		ereport(error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? DEBUG1 : WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("dsched: %s in database \"%s\" failed and is tried again: %s", what, scheduler.dbname,
						error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return done;
}

/* ---- identity -------------------------------------------------------------------------------------- */

/* Who asked for us may have known it by an older name.  It cannot change while we are connected. */
static void
learn_name(void *arg)
{
	char	   *name = get_database_name(MyDatabaseId);

	if (name == NULL)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(scheduler.dbname, name, sizeof(scheduler.dbname));
	strlcpy(scheduler.slot->dbname, name, sizeof(scheduler.slot->dbname));
	LWLockRelease(dsched_shared->control_lock);
}

/* Is the extension (still) there?  Reads the identity with it. */
static void
look_at_extension(void *arg)
{
	const CatalogOids *oids;
	char	   *version = catalog_version();

	/* between a restart with another library and ALTER EXTENSION: the tables are not what we take them for */
	other_version[0] = '\0';
	if (version != NULL && strcmp(version, CATALOG_VERSION) != 0)
	{
		strlcpy(other_version, version, sizeof(other_version));
		extension_absent = false;
		return;
	}
	oids = catalog_oids();
	extension_absent = oids == NULL;
	if (extension_absent)
		return;
	/* dropped and created again: nothing that we know is in its tables, and none of it may get there */
	extension_absent = extension_replaced = OidIsValid(extension_seen) && oids->extension != extension_seen;
	if (extension_absent)
		return;
	extension_seen = oids->extension;
	identity_read(&scheduler.identity);
}

/* Why the jobs of this database must not run here, or NULL. */
static const char *
identity_problem(const Identity *identity, const char **hint)
{
	if (other_version[0] != '\0')
	{
		*hint = "Run ALTER EXTENSION dsched UPDATE in this database, or install the library of that version.";
		return psprintf("the objects of the extension have version %s, and the library has " CATALOG_VERSION, other_version);
	}
	*hint = "If the jobs are meant to run in this database, call dsched.adopt() in it.";
	if (!identity->found)
		return "the identity of this database is not recorded";
	if (identity->held[0] != '\0')
		return identity->held;
	if (identity->system_identifier != GetSystemIdentifier())
		return "this database comes from another server";
	if (identity->database_oid != MyDatabaseId)
		return "this database is a copy of another one";
	if (strcmp(identity->database_name, scheduler.dbname) != 0)
		return psprintf("this database was renamed; its jobs belong to the group \"%s\"", identity->database_name);
	if (!dsched_clustered())
	{
		if (identity->cluster[0] == '\0')
			return NULL;
		*hint = "Set dsched.etcd_endpoints, or call dsched.adopt() to take the jobs out of the cluster.";
		return psprintf("this database belongs to the cluster \"%s\", but dsched.etcd_endpoints is empty",
						identity->cluster);
	}
	if (identity->cluster[0] != '\0' && strcmp(identity->cluster, dsched_cluster_name) != 0)
		return psprintf("this database belongs to the cluster \"%s\"", identity->cluster);
	/* whether etcd is the one that the database has joined is found out by sync/follow.c */
	return NULL;
}

static void
publish_identity(void)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(scheduler.slot->incarnation, scheduler.identity.incarnation, sizeof(scheduler.slot->incarnation));
	scheduler.slot->max_revision = scheduler.identity.max_revision;
	scheduler.slot->identity_known = true;
	scheduler.slot->replaced = sync_follow_held();
	scheduler.slot->beat_revision = strcmp(scheduler.identity.beat_node, dsched_my_node()) == 0 ? scheduler.identity.beat_revision : 0;
	scheduler.slot->doubts_etcd = scheduler.identity.replaced;
	LWLockRelease(dsched_shared->control_lock);
}

static void
check_identity(void)
{
	const char *hint;
	const char *problem = identity_problem(&scheduler.identity, &hint);
	bool		was_held = scheduler.held;

	publish_identity();
	scheduler.held = problem != NULL;
	if (problem != NULL)
	{
		if (strcmp(scheduler.slot->problem, problem) != 0)
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("dsched: no job of database \"%s\" runs: %s", scheduler.dbname, problem),
					 errhint("%s", hint)));
		dsched_set_problem(scheduler.db, problem, hint);
		/* what was loaded under another identity is void */
		if (scheduler.ready)
			scheduler.stopping = true;
	}
	else if (was_held || scheduler.slot->problem[0] != '\0')
		dsched_set_problem(scheduler.db, NULL, NULL);
	dsched_wake_coordinator();
}

/* Somebody committed a change, or dropped the extension, or adopted the database. */
static void
take_in_changes(void)
{
	static bool looked = false;
	static bool started = false;
	Identity	before = scheduler.identity;

	/* held, as etcd was another one, and now there is yet another: begin anew, and look whether it is ours */
	if (sync_follow_judge_again())
	{
		scheduler.stopping = true;
		return;
	}
	if (scheduler.slot->check_again || !looked)
	{
		scheduler.slot->check_again = false;
		looked = true;
		/* with test_serial read before: see all_quiet() */
		if (!scheduler_transaction(look_at_extension, NULL, "looking for the extension"))
		{
			scheduler.slot->check_again = true;
			scheduler_wake_at(scheduler.boot + RESTART_DELAY_US);
			return;
		}
		if (extension_absent)
		{
			scheduler.stopping = true;
			return;
		}
		check_identity();
		if (other_version[0] != '\0')
		{
			scheduler.slot->check_again = true;
			scheduler_wake_at(scheduler.boot + VERSION_LOOK_US);
		}
		/* adopted while running: begin anew with what is in the tables */
		if (started && before.found && strcmp(before.incarnation, scheduler.identity.incarnation) != 0 &&
			scheduler.identity.incarnation[0] == '\0')
			scheduler.stopping = true;
		if (scheduler.held || scheduler.stopping)
			return;
		if (!started)
		{
			started = true;
			sync_start();
		}
		sync_changes();
	}
	else if (!started && !scheduler.held && scheduler.etcd != NULL)
	{
		/* the coordinator may have found the cluster meanwhile */
		check_identity();
	}
	if (started && !scheduler.held)
		sync_turn();
}

/* ---- one turn -------------------------------------------------------------------------------------- */

/* Entries of a scheduler before us: what has not started is opened again by us; what ended is in the rows. */
static void
withdraw_leftovers(void)
{
	RunEntry	entry;
	int			index;

	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		RunKey		key;

		LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
		key = dsched_shared->entries[i].key;
		LWLockRelease(dsched_shared->queue_lock);
		(void) dsched_queue_withdraw_entry(scheduler.db, i, &key);
	}
	/* its row tells, also whoever is asked for the outcome of one that was handed over */
	while (dsched_queue_take_finished(scheduler.db, &entry, &index, 1) > 0)
		 /* nothing */ ;
}

/*
 * Completions are collected together: for the next checkpoint, unless something waits for one of them.  A slot that comes due
 * looks for what has ended by itself (opening.c).
 */
static void
collect_finished(void)
{
	DatabaseSlot *slot = scheduler.slot;

	if (slot->collect || slot->wake_on_finish || scheduler.stopping || dsched_test_clock ||
		(scheduler.checkpoint_at != 0 && scheduler.checkpoint_at <= scheduler.boot) ||
		(scheduler.refill_at != 0 && scheduler.refill_at <= scheduler.boot))
		(void) dispatch_finished();
}

/*
 * Says for the ends of which runs executors are to wake us.  What has ended before that could be read has woken nobody, so it
 * is looked at after that.
 */
static void
ask_for_wakeups(void)
{
	DatabaseSlot *slot = scheduler.slot;

	slot->wake_on_finish = scheduler.stopping || scheduler.draining;
	slot->wants_room = dispatch_wants_room();
	slot->wake_on_first = slot->wants_room || scheduler.checkpoint_at == 0;
	if (scheduler.checkpoint_at != 0)
		scheduler_wake_at(scheduler.checkpoint_at);
	pg_memory_barrier();
	if (slot->finished_head < 0)
		return;
	if (slot->collect || slot->wake_on_finish)
		scheduler_wake_at(scheduler.boot);
	if (slot->wants_room)
	{
		if (scheduler.refill_at == 0)
			scheduler.refill_at = scheduler.boot + REFILL_US;
		scheduler_wake_at(scheduler.refill_at);
	}
	if (scheduler.checkpoint_at == 0)
	{
		scheduler.checkpoint_at = scheduler.boot + dsched_checkpoint_interval * INT64CONST(1000);
		scheduler_wake_at(scheduler.checkpoint_at);
	}
}

static void
turn(void)
{
	uint64		serial = pg_atomic_read_u64(&dsched_shared->test_serial);

	scheduler.alarm = 0;
	scheduler_refresh_time();
	MemoryContextSwitchTo(scheduler.turn);
	pg_atomic_write_u32(&scheduler.slot->answered, pg_atomic_read_u32(&scheduler.slot->asked));

	if (ShutdownRequestPending)
		scheduler.stopping = true;
	if (ConfigReloadPending)
	{
		char	   *endpoints = pstrdup(dsched_etcd_endpoints);

		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (strcmp(endpoints, dsched_etcd_endpoints) != 0)
			scheduler.stopping = true;
		else
			sync_sign_reload();
		secure_client();
	}

	collect_finished();
	if (!scheduler.stopping)
		take_in_changes();
	/* when stopping, too: the last account says that all slots up to now were opened */
	if (!extension_absent && !scheduler.held)
		dispatch_due_slots();
	scheduler.draining = false;
	if (!extension_absent)
		settling_turn();
	placement_turn();
	lacking_turn();
	partitions_turn();
	decisions_turn();
	leftovers_turn();
	/* what has come to wait may wait for a run that has ended */
	collect_finished();
	remotes_turn();
	reports_turn();
	if (!scheduler.stopping)
		dispatch_waiting();
	if (!extension_absent)
		partitions_checkpoint(false);
	if (!extension_absent)
		(void) notify_flush();
	{
		int64		again = dsched_pool_manage(scheduler.db);

		if (again != 0)
			scheduler_wake_at(again);
	}
	purge_turn();
	ask_for_wakeups();
	publish_state();
	if (all_quiet())
	{
		scheduler.slot->idle_serial = serial;
		ConditionVariableBroadcast(&dsched_shared->changed);
	}
	MemoryContextReset(scheduler.turn);
	pgstat_report_stat(false);
}

/* Standalone: all but those of selectors that have no job, or do not match. */
static bool
is_to_be_ours(int partition)
{
	int			place = place_of(partition);
	bool		ours;

	if (place == PLACE_IS_ANY || place == PLACE_IS_EACH || place == PLACE_IS_NOWHERE)
		return place != PLACE_IS_NOWHERE;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	ours = scheduler.slot->places[place].wanted &&
		(!scheduler.slot->places[place].known || scheduler.slot->places[place].matches > 0);
	LWLockRelease(dsched_shared->control_lock);
	return ours;
}

/* For the tests: everything that was committed or came due before this turn has its outcome. */
static bool
all_quiet(void)
{
	HeapNode   *next = minheap_peek(timetable_heap());

	if (!dsched_test_clock || scheduler.slot->check_again)
		return false;
	if (scheduler.held)
		return true;
	if (!scheduler.ready || !sync_idle() || !closing_empty() || !notify_idle() || !partitions_idle() || !dispatch_is_quiet() || !settling_idle() ||
		!purge_idle())
		return false;
	/* partitions that the coordinator has yet to give us */
	if (scheduler.etcd == NULL)
		for (int i = 0; i < places_all(); i++)
			if (scheduler.partitions[i].step != STEP_ACTIVE && is_to_be_ours(i))
				return false;
	return next == NULL || next->time > scheduler.now;
}

/*
 * An instance whose server has no worker left for executors would keep its share of the jobs from others that could run them.  After
 * a while in which runs wait and no executor is up it leaves them to these, and tries again later and later.  Alone it keeps them:
 * they would run nowhere until then, whatever becomes free meanwhile.
 */
static bool
cannot_run(void)
{
	static int64 since = 0;
	static int64 until = 0;
	static int64 pause = STARVED_PAUSE_US;
	int			up = 0;
	bool		alone;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	alone = scheduler.slot->others == 0;
	LWLockRelease(dsched_shared->control_lock);
	if (alone)
		until = 0;
	if (until > scheduler.boot)
	{
		scheduler_wake_at(until);
		return true;
	}
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors; i++)
		up += dsched_shared->executors[i].state == EXECUTOR_IDLE || dsched_shared->executors[i].state == EXECUTOR_BUSY;
	LWLockRelease(dsched_shared->queue_lock);
	if (up > 0)
		pause = STARVED_PAUSE_US;
	if (scheduler.etcd == NULL || alone || up > 0 || scheduler.slot->queued == 0)
	{
		since = 0;
		return false;
	}
	if (since == 0)
		since = scheduler.boot;
	if (scheduler.boot - since < STARVED_US)
	{
		scheduler_wake_at(since + STARVED_US);
		return false;
	}
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("dsched: no executor could be started for %d seconds, the jobs of database \"%s\" are left to other instances",
					(int) (STARVED_US / USECS_PER_SEC), scheduler.dbname),
			 errdetail("It is tried again in %d seconds.", (int) (pause / USECS_PER_SEC)),
			 errhint("See dsched.status(); raise max_worker_processes.")));
	since = 0;
	until = scheduler.boot + pause;
	pause = Min(pause * 2, STARVED_PAUSE_MAX_US);
	scheduler_wake_at(until);
	return true;
}

static void
publish_state(void)
{
	DatabaseSlot *slot = scheduler.slot;
	bool		wanted = scheduler.ready && !scheduler.held && !scheduler.stopping && !cannot_run();
	bool		local = !scheduler.held && !scheduler.stopping && (scheduler.ready || sync_may_run_locally());

	slot->open_runs = open_runs_of_all();
	slot->processed_until = scheduler.now;
	if (slot->member_wanted != wanted || slot->local_wanted != local)
	{
		slot->member_wanted = wanted;
		slot->local_wanted = local;
		dsched_wake_coordinator();
	}
}

static void
set_alarms(void)
{
	HeapNode   *next = minheap_peek(timetable_heap());

	loop_set_wall_alarm(scheduler.loop, next != NULL && !scheduler.stopping &&
						pg_atomic_read_u32(&dsched_shared->clock_suspect) == 0 ? next->time : 0);
	loop_set_boot_alarm(scheduler.loop, scheduler.alarm);
}

/* ---- stopping -------------------------------------------------------------------------------------- */

/* True when nothing is left to do: every partition is handed back and the last states are written. */
static bool
stop_in_order(void)
{
	bool		done = true;

	if (stop_until == 0)
		stop_until = scheduler.boot + STOP_TIMEOUT_US;
	scheduler_wake_at(stop_until);
	for (int i = 0; i < places_all(); i++)
	{
		PartitionStep step = scheduler.partitions[i].step;

		if (step != STEP_NONE && !(step == STEP_FINAL && partition_is_local(&scheduler.partitions[i])))
			done = false;
	}
	if (!extension_absent && scheduler.etcd != NULL && !reports_stop())
		done = false;
	if (!done && scheduler.boot < stop_until)
		return false;
	if (!extension_absent && (scheduler.ready || scheduler.partitions[place_each()].step == STEP_FINAL))
		partitions_checkpoint(true);
	for (int i = 0; i < places_all(); i++)
		if (scheduler.partitions[i].step == STEP_FINAL)
			partition_released(&scheduler.partitions[i]);
	return true;
}
