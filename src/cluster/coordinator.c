/*
 * coordinator.c
 *	  The background worker that keeps this instance's place in the cluster.
 *
 * One static worker per instance, connected to no database, so that it never waits for a lock, a table or a job:
 * it sleeps on its latch, its sockets and one alarm, and the lease depends on nothing else.  Each time something
 * happens it makes one turn: signals, then the workers of the databases (schedule/supervisor.c), then the cluster's
 * state machines (session.c, membership.c) or, without etcd, the standalone rule below.
 *
 * STANDALONE
 *
 * Session and epochs are DSCHED_STANDALONE_TOKEN, the deadline is never.  A database whose scheduler is up has all
 * partitions.  When the scheduler goes or does not want them, they are fenced, and given to the next scheduler when
 * no commit of a run is under way.
 *
 * LEAVING IN ORDER
 *
 * At SIGTERM (the server stops, or somebody terminated us) and when a reload names another etcd: session 0, cancel
 * the runs, ask the schedulers to write their last states while the owner keys still exist (those states compare
 * them), wait for both, bounded, then revoke the lease, so that others take over at once.  If a commit is still under
 * way the lease is left to expire.
 *
 * The death of the postmaster is seen here and not only by exiting: the executors would go on, so they
 * are killed first, and then the lease can be revoked.  Locks may be held by the killed, so none is taken from there
 * on, and the process leaves by _exit().
 *
 * An error ends the process, by the usual way out; the postmaster starts it again after a second.  The exit callback
 * fences everything, as nobody extends the deadline any more, and the next coordinator finds the old session's node
 * key and ends that session (session.c).
 *
 * What is published for people (problem, hint, states) is under control_lock.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "cluster/cluster.h"
#include "core/backoff.h"
#include "schedule/supervisor.h"
#include "places.h"
#include "settings.h"

#define RETRY_BASE_US INT64CONST(100000)
#define FENCE_RECHECK_US INT64CONST(250000)
#define MIN_TIMEOUT_MS 300
#define MAX_TIMEOUT_MS 3000

/* leaving */
#define RELEASE_WAIT_US INT64CONST(3000000)
#define COMMIT_WAIT_US INT64CONST(5000000)
#define REVOKE_WAIT_US INT64CONST(1000000)
#define ORPHAN_WAIT_US INT64CONST(500000)
#define EXECUTOR_KILL_TIMEOUT_MS 2000

DschedLoop *cluster_loop = NULL;
EtcdClient *cluster_client = NULL;

static MemoryContext turn_context = NULL;
static char *endpoints = NULL; /* of dsched.etcd_endpoints, as this process uses it */

static struct
{
	ProblemKind kind;
	char text[DSCHED_PROBLEM_LEN];
	char hint[DSCHED_PROBLEM_LEN];
} problems[PROBLEM_SOURCES];

static void claim_instance(void);
static void coordinator_exit(int code, Datum arg);
static void publish_time_zone(void);
static void start_cluster(void);
static void secure_client(bool reload);
static void run(void);
static void handle_signals(void);
static int64 cluster_turn(int64 now);
static void publish_problem(void);

static void standalone_init(void);
static int64 standalone_turn(int64 now);

static void leave(bool restart_schedulers) pg_attribute_noreturn();
static void ask_for_last_states(void);
static bool last_states_written(void);
static bool wait_until(bool (*condition) (void), int64 until);
static bool no_commits(void);
static bool revoked(void);
static void stop_schedulers(void);
static void postmaster_died(void) pg_attribute_noreturn();
static bool schedulers_gone(void);

/* ---- the process ----------------------------------------------------------------------------- */

void
dsched_coordinator_main(Datum arg)
{
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	claim_instance();
	before_shmem_exit(coordinator_exit, (Datum) 0);
	turn_context = AllocSetContextCreate(TopMemoryContext, "dsched coordinator", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn_context);

	/* we have to put things in order after the postmaster's death */
	cluster_loop = loop_create(false);
	endpoints = MemoryContextStrdup(TopMemoryContext, dsched_etcd_endpoints);
	fence_reset();
	publish_problem();
	if (dsched_clustered())
		start_cluster();
	else
		standalone_init();
	run();
}

/* There is one coordinator.  Another can only be one that is just leaving: try again a second later. */
static void
claim_instance(void)
{
	pid_t other;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	other = dsched_shared->coordinator_pid;
	if (other == 0 || kill(other, 0) != 0)
	{
		other = 0;
		dsched_shared->coordinator_pid = MyProcPid;
		dsched_shared->coordinator_proc = MyProc;
	}
	LWLockRelease(dsched_shared->control_lock);
	publish_time_zone();
	if (other != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("dsched: another coordinator is running with PID %d", (int) other)));
}

/* Nobody extends the deadline from here on, so nothing may rely on it.  May be called with locks held. */
static void
coordinator_exit(int code, Datum arg)
{
	fence_session();
	LWLockReleaseAll();
	fence_forget_all();
	fence_settled();
	dsched_cancel_runs(-1, -1);

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->session_state = SESSION_NONE;
	dsched_shared->coordinator_pid = 0;
	dsched_shared->coordinator_proc = NULL;
	LWLockRelease(dsched_shared->control_lock);
}

/* Jobs defined without a zone get the server's, which a session that has one of its own cannot tell. */
static void
publish_time_zone(void)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(dsched_shared->time_zone, pg_get_timezone_name(session_timezone), sizeof(dsched_shared->time_zone));
	LWLockRelease(dsched_shared->control_lock);
}

static void
start_cluster(void)
{
	cluster_client = etcd_client_create(cluster_loop, endpoints);
	if (cluster_client == NULL)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
						errmsg("could not create a client for etcd at \"%s\": %m", endpoints)));
	secure_client(false);
	if (dsched_etcd_user[0] != '\0' && strstr(endpoints, "http://") != NULL)
		ereport(WARNING, (errmsg("dsched: the password of dsched.etcd_user is sent unencrypted"),
						  errhint("Use \"https://\" in dsched.etcd_endpoints.")));
	membership_init();
	local_init();
	session_start();
	recover_start();
}

/* At a reload what cannot be used leaves the former certificates and password in use; else the session's problem says so. */
static void
secure_client(bool reload)
{
	EtcdSecurity security;
	char reason[256];

	dsched_etcd_security(&security);
	if (!etcd_client_secure(cluster_client, &security, reason, sizeof(reason)) && reload)
		ereport(WARNING, (errcode(ERRCODE_CONFIG_FILE_ERROR),
						  errmsg("dsched: could not take over the settings for etcd: %s", reason),
						  errdetail("What was in use before stays in use.")));
}

static void
run(void)
{
	for (;;)
	{
		int64 now;
		int64 next;
		int64 supervised;
		int reasons;

		MemoryContextReset(turn_context);
		handle_signals();
		now = dsched_boot_now();
		supervised = supervise_schedulers();
		next = cluster_client != NULL ? cluster_turn(now) : standalone_turn(now);
		if (supervised != 0)
			next = cluster_earlier(next, supervised);

		/* 0 would mean none; whatever is over fires at once */
		loop_set_boot_alarm(cluster_loop, next == DSCHED_NEVER ? 0 : Max(next, 1));
		reasons = loop_wait(cluster_loop);
		dsched_shared->coordinator_wakeups++;
		if (reasons & LOOP_POSTMASTER_DEATH)
			postmaster_died();
		if ((reasons & LOOP_CLOCK_STEP) && cluster_client != NULL)
			session_clock_stepped();
	}
}

static void
handle_signals(void)
{
	char *labels;

	if (ShutdownRequestPending)
		leave(false);
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	labels = pstrdup(dsched_node_labels);
	ProcessConfigFile(PGC_SIGHUP);
	publish_time_zone();
	/* the others see them in the node key, which a heartbeat writes anew */
	if (cluster_client != NULL && strcmp(labels, dsched_node_labels) != 0)
		session_check();
	if (strcmp(endpoints, dsched_etcd_endpoints) != 0)
	{
		ereport(LOG, (errmsg("dsched: dsched.etcd_endpoints has changed, starting anew")));
		leave(true);
	}
	if (cluster_client != NULL)
		secure_client(true);
}

static int64
cluster_turn(int64 now)
{
	int64 next = session_advance(now);
	bool local;

	next = cluster_earlier(next, membership_advance(now));
	next = cluster_earlier(next, recover_advance(now));
	local = local_turn();
	/* An executor whose commit is waited for sets our latch; the alarm is for one that cannot any more. */
	if (session_is_fencing() || membership_is_fencing() || local)
		next = cluster_earlier(next, now + FENCE_RECHECK_US);
	else
		fence_settled();
	return next;
}

/* ---- what the others use --------------------------------------------------------------------- */

int64
cluster_retry_at(int failures, int64 max_us)
{
	return dsched_boot_now() + backoff_delay(Max(failures, 1), Min(RETRY_BASE_US, max_us), max_us,
											 pg_prng_uint64(&pg_global_prng_state));
}

/* A fifth of the lease's life: a heartbeat is two calls, sent after a third of it, and one try may fail. */
int
cluster_timeout_ms(void)
{
	return Min(Max(dsched_lease_ttl * 1000 / 5, MIN_TIMEOUT_MS), MAX_TIMEOUT_MS);
}

/* The process that has no memory exits and is started again. */
void
cluster_need_memory(const void *pointer)
{
	if (pointer == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("Failed on a request to etcd.")));
}

ProblemKind
cluster_problem_kind(ProblemSource source)
{
	return problems[source].kind;
}

static int
problem_sqlstate(ProblemKind kind)
{
	switch (kind)
	{
		case PROBLEM_UNREACHABLE:
		case PROBLEM_WATCH:
			return ERRCODE_CONNECTION_FAILURE;
		case PROBLEM_TLS:
		case PROBLEM_SECURITY:
		case PROBLEM_CONFIG:
		case PROBLEM_NODE_INVALID:
		case PROBLEM_NAME_IN_USE:
			return ERRCODE_CONFIG_FILE_ERROR;
		case PROBLEM_AUTH:
			return ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		case PROBLEM_PERMISSION:
			return ERRCODE_INSUFFICIENT_PRIVILEGE;
		case PROBLEM_NO_SPACE:
			return ERRCODE_INSUFFICIENT_RESOURCES;
		default:
			return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	}
}

bool
cluster_is_access_problem(ProblemKind kind)
{
	return kind >= PROBLEM_UNREACHABLE && kind <= PROBLEM_NO_SPACE;
}

ProblemKind
cluster_access_problem(const EtcdResponse *r, char *hint, size_t size)
{
	switch (r->fault)
	{
		case ETCD_FAULT_TLS:
			strlcpy(hint,
					"See the certificates of etcd and dsched.etcd_ca_file, dsched.etcd_cert_file, dsched.etcd_key_file, and whether "
					"the addresses in dsched.etcd_endpoints begin with https. Reload the server after a change of these files.",
					size);
			return PROBLEM_TLS;
		case ETCD_FAULT_SETTINGS:
			strlcpy(hint,
					"A key and a password must be the server's user's alone (chmod 0600); a certificate without a common name is "
					"needed where etcd has users. Reload the server after a change.",
					size);
			return PROBLEM_SECURITY;
		case ETCD_FAULT_AUTH:
			strlcpy(hint,
					"Set dsched.etcd_user, and the first line of dsched.etcd_password_file to its password in etcd. The file is read "
					"again for each try.",
					size);
			return PROBLEM_AUTH;
		case ETCD_FAULT_PERMISSION:
			snprintf(hint, size,
					 "Give the role of user \"%.60s\" read and write permission on the prefix \"/dsched/%.60s/\": "
					 "etcdctl role grant-permission ROLE --prefix=true readwrite /dsched/%.60s/",
					 dsched_etcd_user, dsched_cluster_name, dsched_cluster_name);
			return PROBLEM_PERMISSION;
		case ETCD_FAULT_SPACE:
			strlcpy(hint,
					"Compact and defragment etcd, or raise its --quota-backend-bytes, then run \"etcdctl alarm disarm\". What the "
					"instances of the cluster have goes on; no instance can join until then.",
					size);
			return PROBLEM_NO_SPACE;
		default:
			snprintf(hint, size,
					 "Check that etcd runs at \"%s\" (dsched.etcd_endpoints) and has a leader. dsched tries again by itself.",
					 dsched_etcd_endpoints);
			return PROBLEM_UNREACHABLE;
	}
}

void
cluster_problem(ProblemSource source, ProblemKind kind, const char *hint, const char *fmt, ...)
{
	bool news = problems[source].kind != kind;
	va_list args;

	va_start(args, fmt);
	vsnprintf(problems[source].text, sizeof(problems[source].text), fmt, args);
	va_end(args);
	strlcpy(problems[source].hint, hint ? hint : "", sizeof(problems[source].hint));
	problems[source].kind = kind;
	publish_problem();
	if (news)
		ereport(WARNING, (errcode(problem_sqlstate(kind)), errmsg("dsched: %s", problems[source].text),
						  hint ? errhint("%s", hint) : 0));
}

void
cluster_no_problem(ProblemSource source)
{
	if (problems[source].kind == PROBLEM_NONE)
		return;
	ereport(LOG, (errmsg("dsched: no longer a problem: %s", problems[source].text)));
	problems[source].kind = PROBLEM_NONE;
	publish_problem();
}

/* People see the first. */
static void
publish_problem(void)
{
	int i = 0;

	while (i < PROBLEM_SOURCES - 1 && problems[i].kind == PROBLEM_NONE)
		i++;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (problems[i].kind == PROBLEM_NONE)
		dsched_shared->problem[0] = dsched_shared->hint[0] = '\0';
	else
	{
		strlcpy(dsched_shared->problem, problems[i].text, sizeof(dsched_shared->problem));
		strlcpy(dsched_shared->hint, problems[i].hint, sizeof(dsched_shared->hint));
	}
	LWLockRelease(dsched_shared->control_lock);
}

/* ---- standalone ------------------------------------------------------------------------------ */

static void
standalone_init(void)
{
	local_init();
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->session_state = SESSION_STANDALONE;
	dsched_shared->incarnation[0] = '\0';
	dsched_shared->lease_id = 0;
	dsched_shared->max_revision = 0;
	dsched_shared->nmembers = 0;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wall_unconfirmed();
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 0);
	pg_atomic_write_u64(&dsched_shared->deadline, (uint64) DSCHED_NEVER);
	pg_memory_barrier();
	pg_atomic_write_u64(&dsched_shared->session, DSCHED_STANDALONE_TOKEN);
}

static int64
standalone_turn(int64 now)
{
	if (local_turn())
		return now + FENCE_RECHECK_US;
	fence_settled();
	return DSCHED_NEVER;
}

/* ---- leaving in order ------------------------------------------------------------------------ */

static void
leave(bool restart_schedulers)
{
	int64 now = dsched_boot_now();
	bool quiet;

	fence_session();
	dsched_cancel_runs(-1, -1);
	if (cluster_client != NULL)
	{
		bool usable = session_usable();

		session_stop();
		membership_stop();
		if (usable)
		{
			ask_for_last_states();
			(void) wait_until(last_states_written, now + RELEASE_WAIT_US);
		}
	}
	quiet = wait_until(no_commits, now + COMMIT_WAIT_US);
	if (!quiet)
		ereport(LOG, (errmsg("dsched: a run is still being committed, leaving the lease to expire")));
	else if (cluster_client != NULL)
	{
		session_revoke();
		(void) wait_until(revoked, dsched_boot_now() + REVOKE_WAIT_US);
	}
	if (restart_schedulers)
		stop_schedulers();
	proc_exit(1);
}

/* What has no scheduler in that moment has no state to be written. */
static void
ask_for_last_states(void)
{
	int db;
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		for (p = 0; p < places_shared(); p++)
		{
			PartitionSlot *slot = &dsched_shared->databases[db].partitions[p];

			if (slot->phase == PARTITION_OWNED || slot->phase == PARTITION_ACTIVE)
				slot->phase = PARTITION_RELEASING;
		}
		dsched_wake_scheduler(db);
	}
	LWLockRelease(dsched_shared->control_lock);
}

static bool
last_states_written(void)
{
	bool written = true;
	int db;
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];

		if (slot->state != SCHEDULER_RUNNING || slot->scheduler_pid == 0 ||
			kill(slot->scheduler_pid, 0) != 0)
			continue;
		for (p = 0; p < places_shared(); p++)
			if (slot->partitions[p].phase != PARTITION_NONE &&
				slot->partitions[p].phase != PARTITION_RELEASED)
				written = false;
	}
	LWLockRelease(dsched_shared->control_lock);
	return written;
}

static bool
no_commits(void)
{
	return fence_quiet(-1, -1);
}

static bool
revoked(void)
{
	return !session_revoking();
}

/*
 * Waits for a condition, with the loop running.  Latches tell of most changes; others (a process that died) are found
 * by looking again, as does the lease, which nobody else keeps alive now.
 */
static bool
wait_until(bool (*condition) (void), int64 until)
{
	int64 keep_alive_at = 0;

	for (;;)
	{
		int64 now = dsched_boot_now();

		if (condition())
			return true;
		if (now >= until)
			return false;
		if (cluster_client != NULL && condition != revoked && now >= keep_alive_at)
		{
			session_keep_alive();
			keep_alive_at = now + session_ttl_us() / 3;
		}
		loop_set_boot_alarm(cluster_loop, cluster_earlier(until, now + FENCE_RECHECK_US));
		if (loop_wait(cluster_loop) & LOOP_POSTMASTER_DEATH)
			postmaster_died();
	}
}

static void
stop_schedulers(void)
{
	int db;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (dsched_shared->databases[db].scheduler_pid != 0)
			kill(dsched_shared->databases[db].scheduler_pid, SIGTERM);
	LWLockRelease(dsched_shared->control_lock);
}

/* No locks from here on: see the top. */
static void
postmaster_died(void)
{
	bool gone;

	fence_session();
	gone = fence_kill_executors(EXECUTOR_KILL_TIMEOUT_MS);
	if (cluster_client != NULL)
	{
		session_stop();
		membership_stop();
		/* they leave by themselves, and may be writing a state */
		(void) wait_until(schedulers_gone, dsched_boot_now() + ORPHAN_WAIT_US);
		if (gone)
		{
			session_revoke();
			(void) wait_until(revoked, dsched_boot_now() + REVOKE_WAIT_US);
		}
	}
	_exit(1);
}

static bool
schedulers_gone(void)
{
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		pid_t pid = *(volatile pid_t *) &dsched_shared->databases[db].scheduler_pid;

		if (pid != 0 && kill(pid, 0) == 0)
			return false;
	}
	return true;
}
