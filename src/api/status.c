/*
 * status.c
 *	  dsched.status(): how this instance does, in rows that a person can read.
 *
 * Each row is about one component: what its state is (ok, waiting or problem), the facts, and where something is
 * wrong what to do about it.  Everybody may read it: it has no secrets, and names only jobs and roles that the
 * caller may see.  It never fails because something else did; on a server without the library in
 * shared_preload_libraries it says just that.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "catalog/upkeep.h"
#include "clock.h"
#include "settings.h"
#include "shared.h"

#define OK "ok"
#define WAITING "waiting"
#define PROBLEM "problem"

/* What did not happen for so long is no problem any more. */
#define RECENT_S 300

/* Names of broken jobs that one row lists. */
#define MAX_NAMES 10

PG_FUNCTION_INFO_V1(dsched_status);

/* What is said of this database, copied from shared memory. */
typedef struct DatabaseStatus
{
	bool		known;
	SchedulerState state;
	pid_t		pid;
	int			restarts;
	int			stay_away;
	char		problem[DSCHED_PROBLEM_LEN];
	char		hint[DSCHED_PROBLEM_LEN];
	int			unpublished;
	int			broken_jobs;
	int			unverified_jobs;
	char		key_ids[sizeof(((DatabaseSlot *) NULL)->key_ids)];
	char		key_problem[DSCHED_PROBLEM_LEN];
	bool		verified;
	int			open_runs;
	int			in_doubt;
	char		in_doubt_why[DSCHED_PROBLEM_LEN];
	char		in_doubt_hint[DSCHED_PROBLEM_LEN];
	int			decided_elsewhere;
	char		decided_by[DSCHED_MAX_NODE_NAME];
	int			owned;			/* partitions */
	int			active;
	PlaceSlot	places[DSCHED_MAX_PLACES];
	int			nowhere_jobs;
} DatabaseStatus;

/* What is said of the coordinator. */
typedef struct CoordinatorStatus
{
	pid_t		pid;
	SessionState session_state;
	uint64		session;
	int64		deadline;
	char		problem[DSCHED_PROBLEM_LEN];
	char		hint[DSCHED_PROBLEM_LEN];
	char		endpoint[256];
	int64		etcd_size;
	int64		etcd_size_in_use;
	int64		clock_skew_ms;
	bool		clock_suspect;
	int			lost_registrations;
	int64		lost_registration_at;
	int			nmembers;
} CoordinatorStatus;

/* ---- output ------------------------------------------------------------------------------------- */

/* Adds a row; detail and hint may be NULL or empty. */
static void
put(ReturnSetInfo *rsinfo, const char *component, const char *state, const char *detail, const char *hint)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(component);
	values[1] = CStringGetTextDatum(state);
	nulls[2] = detail == NULL || detail[0] == '\0';
	values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(detail);
	nulls[3] = hint == NULL || hint[0] == '\0';
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(hint);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* ---- the instance ------------------------------------------------------------------------------- */

static void
read_coordinator(CoordinatorStatus *out)
{
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	out->pid = dsched_shared->coordinator_pid;
	out->session_state = dsched_shared->session_state;
	strlcpy(out->problem, dsched_shared->problem, sizeof(out->problem));
	strlcpy(out->hint, dsched_shared->hint, sizeof(out->hint));
	strlcpy(out->endpoint, dsched_shared->endpoint, sizeof(out->endpoint));
	out->etcd_size = dsched_shared->etcd_size;
	out->etcd_size_in_use = dsched_shared->etcd_size_in_use;
	out->clock_skew_ms = dsched_shared->clock_skew_ms;
	out->lost_registrations = dsched_shared->lost_registrations;
	out->lost_registration_at = dsched_shared->lost_registration_at;
	out->nmembers = dsched_shared->nmembers;
	LWLockRelease(dsched_shared->control_lock);
	out->session = pg_atomic_read_u64(&dsched_shared->session);
	out->deadline = (int64) pg_atomic_read_u64(&dsched_shared->deadline);
	out->clock_suspect = pg_atomic_read_u32(&dsched_shared->clock_suspect) != 0;
}

static void
put_mode(ReturnSetInfo *rsinfo, const CoordinatorStatus *coordinator)
{
	if (!dsched_clustered())
		put(rsinfo, "mode", OK, psprintf("runs alone; this instance is \"%s\"", dsched_my_node()), NULL);
	else if (coordinator->nmembers == 0)
		put(rsinfo, "mode", OK,
			psprintf("cluster \"%s\"; this instance is \"%s\"", dsched_cluster_name, dsched_my_node()), NULL);
	else
		put(rsinfo, "mode", OK,
			psprintf("cluster \"%s\" of %d %s; this instance is \"%s\"", dsched_cluster_name,
					 coordinator->nmembers, coordinator->nmembers == 1 ? "instance" : "instances", dsched_my_node()),
			NULL);
}

static void
put_coordinator(ReturnSetInfo *rsinfo, const CoordinatorStatus *coordinator)
{
	if (RecoveryInProgress())
		put(rsinfo, "coordinator", WAITING, "the server is a standby; jobs run after its promotion", NULL);
	else if (coordinator->pid == 0)
		put(rsinfo, "coordinator", PROBLEM, "the coordinator does not run",
			"It is restarted by itself; if that takes longer than seconds, the server's log has the reason.");
	else if (!dsched_clustered() && coordinator->problem[0] != '\0')
		put(rsinfo, "coordinator", PROBLEM, coordinator->problem, coordinator->hint);
	else
		put(rsinfo, "coordinator", OK, psprintf("process %d", (int) coordinator->pid), NULL);
}

/* "; its database has ..." or "" */
static const char *
size_phrase(const CoordinatorStatus *coordinator)
{
	if (coordinator->etcd_size == 0)
		return "";
	return psprintf("; its database has %.1f MB, %.1f in use", coordinator->etcd_size / 1e6, coordinator->etcd_size_in_use / 1e6);
}

static const char *
session_sentence(const CoordinatorStatus *coordinator)
{
	double		left = (coordinator->deadline - dsched_boot_now()) / 1e6;

	if (coordinator->problem[0] != '\0')
		return coordinator->problem;
	switch (coordinator->session_state)
	{
		case SESSION_STANDALONE:
		case SESSION_NONE:
			return "no session yet";
		case SESSION_VALID:
			return psprintf("session " UINT64_FORMAT " through %s, valid for %.1f s more%s", coordinator->session,
							coordinator->endpoint, left > 0 ? left : 0.0, size_phrase(coordinator));
		case SESSION_LAPSED:
			return "etcd did not answer in time; no jobs are started";
		case SESSION_REFUSED:
			return "this instance stays out of the cluster";
	}
	return NULL;
}

static void
put_etcd(ReturnSetInfo *rsinfo, const CoordinatorStatus *coordinator)
{
	const char *state = PROBLEM;

	if (!dsched_clustered())
		return;
	if (coordinator->session_state == SESSION_VALID)
		state = coordinator->problem[0] == '\0' ? OK : PROBLEM;
	else if (coordinator->session_state == SESSION_NONE && coordinator->problem[0] == '\0')
		state = WAITING;
	put(rsinfo, "etcd", state, session_sentence(coordinator), coordinator->hint);
}

static void
put_clock(ReturnSetInfo *rsinfo, const CoordinatorStatus *coordinator)
{
	if (coordinator->clock_suspect)
		put(rsinfo, "clock", PROBLEM,
			psprintf("the clock is not to be trusted (" INT64_FORMAT " ms off etcd's); no jobs are started",
					 coordinator->clock_skew_ms),
			"Synchronize the clocks of this server and of etcd's, for example with chrony.");
	else if (dsched_test_clock)
		put(rsinfo, "clock", OK, "the test clock", NULL);
	else if (dsched_clustered())
		put(rsinfo, "clock", OK, psprintf(INT64_FORMAT " ms off etcd's", coordinator->clock_skew_ms), NULL);
	else
		put(rsinfo, "clock", OK, NULL, NULL);
}

/* ---- this database ------------------------------------------------------------------------------ */

static void
read_database(DatabaseStatus *out)
{
	int			db;

	memset(out, 0, sizeof(*out));
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];

		out->known = true;
		out->state = slot->state;
		out->pid = slot->scheduler_pid;
		out->restarts = slot->restarts;
		out->stay_away = slot->stay_away;
		strlcpy(out->problem, slot->problem, sizeof(out->problem));
		strlcpy(out->hint, slot->hint, sizeof(out->hint));
		out->unpublished = slot->unpublished;
		out->broken_jobs = slot->broken_jobs;
		out->unverified_jobs = slot->unverified_jobs;
		strlcpy(out->key_ids, slot->key_ids, sizeof(out->key_ids));
		strlcpy(out->key_problem, slot->key_problem, sizeof(out->key_problem));
		out->verified = slot->verified;
		out->open_runs = slot->open_runs;
		out->in_doubt = slot->in_doubt;
		strlcpy(out->in_doubt_why, slot->in_doubt_why, sizeof(out->in_doubt_why));
		strlcpy(out->in_doubt_hint, slot->in_doubt_hint, sizeof(out->in_doubt_hint));
		out->decided_elsewhere = slot->decided_elsewhere;
		strlcpy(out->decided_by, slot->decided_by, sizeof(out->decided_by));
		memcpy(out->places, slot->places, sizeof(out->places));
		out->nowhere_jobs = slot->nowhere_jobs;
		for (int i = 0; i < dsched_partitions; i++)
		{
			out->owned += slot->partitions[i].phase != PARTITION_NONE ? 1 : 0;
			out->active += slot->partitions[i].phase == PARTITION_ACTIVE ? 1 : 0;
		}
	}
	LWLockRelease(dsched_shared->control_lock);
}

/* Do the jobs belong here?  In their own words, as the scheduler may not have looked yet. */
static void
put_identity(ReturnSetInfo *rsinfo)
{
	const char *hint = "If the jobs are to run here, and nowhere else, call dsched.adopt().";
	Identity	stored;
	char	   *mismatch;

	identity_read(&stored);
	mismatch = identity_mismatch(&stored);
	if (mismatch != NULL)
		put(rsinfo, "database", PROBLEM, psprintf("its jobs sleep: %s", mismatch), hint);
	else if (stored.held[0] != '\0')
		put(rsinfo, "database", PROBLEM, psprintf("its jobs sleep: %s", stored.held), hint);
	else
		put(rsinfo, "database", OK, psprintf("\"%s\"", stored.database_name), NULL);
}

static void
put_scheduler(ReturnSetInfo *rsinfo, const DatabaseStatus *database)
{
	if (!database->known || database->state == SCHEDULER_NONE || database->state == SCHEDULER_ABSENT)
		put(rsinfo, "scheduler", RecoveryInProgress() ? WAITING : PROBLEM, "this database has no scheduler yet",
			RecoveryInProgress() ? NULL :
			psprintf("If this does not change within seconds, see the server's log, and dsched.max_databases (now %d).",
					 dsched_max_databases));
	else if (database->problem[0] != '\0')
		put(rsinfo, "scheduler", PROBLEM, database->problem, database->hint);
	else if (database->stay_away > 0)
		put(rsinfo, "scheduler", WAITING, "a command needs the database without other connections", NULL);
	else if (database->state == SCHEDULER_RUNNING)
		put(rsinfo, "scheduler", OK,
			psprintf("process %d; %d of %d partitions active here; %d runs due or running", (int) database->pid,
					 database->active, dsched_partitions, database->open_runs),
			NULL);
	else if (database->state == SCHEDULER_STOPPED)
		put(rsinfo, "scheduler", PROBLEM, psprintf("the scheduler ended %d times in a row", database->restarts),
			"It is restarted by itself; the server's log has the reason.");
	else
		put(rsinfo, "scheduler", WAITING, "the scheduler is starting", NULL);
}

/* Selectors that nobody matches, or that found no room; nothing is said where there are none. */
static void
put_places(ReturnSetInfo *rsinfo, const DatabaseStatus *database)
{
	StringInfoData said;
	int			used = 0;

	initStringInfo(&said);
	for (int i = 0; i < DSCHED_MAX_PLACES; i++)
	{
		const PlaceSlot *place = &database->places[i];

		if (place->selector[0] == '\0' || !place->wanted)
			continue;
		used++;
		if (place->known && place->matches == 0)
			appendStringInfo(&said, "%s\"%s\"", said.len > 0 ? ", " : "",
							 pg_any_to_server(place->selector, strlen(place->selector), PG_UTF8));
	}
	if (said.len > 0)
		put(rsinfo, "places", PROBLEM, psprintf("no living instance matches run_on %s", said.data),
			"Their jobs lose nothing: their slots follow the misfire policy when one comes. The view dsched.nodes shows labels.");
	if (database->nowhere_jobs > 0)
		put(rsinfo, "places", PROBLEM,
			psprintf("%d jobs are not run, as there are jobs with %d other selectors (run_on) already",
					 database->nowhere_jobs, DSCHED_MAX_PLACES),
			"Give the instances a label that several of these can share.");
	if (said.len == 0 && database->nowhere_jobs == 0 && used > 0)
		put(rsinfo, "places", OK, psprintf("%d %s of instances for jobs with run_on", used, used == 1 ? "set" : "sets"), NULL);
}

static void
put_definitions(ReturnSetInfo *rsinfo, const DatabaseStatus *database)
{
	if (database->known && database->broken_jobs > 0)
		put(rsinfo, "definitions", PROBLEM,
			psprintf("%d %s in etcd cannot be %s; %s held", database->broken_jobs,
					 database->broken_jobs == 1 ? "definition" : "definitions",
					 database->unverified_jobs == database->broken_jobs ? "verified" : "read or verified",
					 database->broken_jobs == 1 ? "its job is" : "their jobs are"),
			database->unverified_jobs == 0 ? "The server's log has the keys and the reasons." :
			"The server's log has the keys and the reasons. Instances with different keys in dsched.cluster_key_file do not "
			"trust each other; dsched.sign_definitions() signs what an instance has in its own table.");
	else if (!database->known || database->unpublished == 0)
		put(rsinfo, "definitions", OK, NULL, NULL);
	else
		put(rsinfo, "definitions", WAITING,
			psprintf("%d %s not yet published", database->unpublished,
					 database->unpublished == 1 ? "change is" : "changes are"),
			NULL);
}

/* Runs with delivery exactly_once of which the outcome is not known, here or elsewhere. */
static void
put_delivery(ReturnSetInfo *rsinfo, const DatabaseStatus *database)
{
	if (database->in_doubt > 0)
		put(rsinfo, "delivery", PROBLEM,
			psprintf("%d %s to be settled: %s", database->in_doubt,
					 database->in_doubt == 1 ? "prepared transaction waits" : "prepared transactions wait", database->in_doubt_why),
			database->in_doubt_hint[0] != '\0' ? database->in_doubt_hint : NULL);
	else if (database->decided_elsewhere > 0)
		put(rsinfo, "delivery", WAITING,
			psprintf("%d %s decided by an instance that has yet to say that it has committed: \"%s\"", database->decided_elsewhere,
					 database->decided_elsewhere == 1 ? "run was" : "runs were", database->decided_by),
			"They are not made again. Their rows are there, or will be there when it is back.");
	else
		put(rsinfo, "delivery", OK, NULL, NULL);
}

/* Which keys sign definitions; not where they are. */
static void
put_signatures(ReturnSetInfo *rsinfo, const DatabaseStatus *database)
{
	const char *second = strchr(database->key_ids, ' ');

	if (!dsched_clustered() || !database->known)
		return;
	if (!dsched_signed_cluster())
		put(rsinfo, "signatures", OK, "definitions are not signed",
			"Whoever can write to etcd can define jobs of every role that is no superuser; see dsched.cluster_key_file.");
	else if (database->key_problem[0] != '\0')
		put(rsinfo, "signatures", PROBLEM,
			psprintf("the file of dsched.cluster_key_file cannot be used: %s; %s", database->key_problem,
					 database->key_ids[0] != '\0' ? "the keys that were read before stay in force" :
					 "no definition in etcd counts"),
			"Correct the file, which must be readable by the server's user alone, and reload the configuration.");
	else if (database->key_ids[0] == '\0')
		put(rsinfo, "signatures", WAITING, "the keys are not read yet", NULL);
	else if (!database->verified)
		put(rsinfo, "signatures", WAITING, "the signatures of all definitions are being looked at", NULL);
	else if (second == NULL)
		put(rsinfo, "signatures", OK, psprintf("key %s signs", database->key_ids), NULL);
	else
		put(rsinfo, "signatures", OK,
			psprintf("key %.*s signs, %s is accepted", (int) (second - database->key_ids), database->key_ids, second + 1),
			NULL);
}

/* Counts all broken jobs, names those that the caller may see. */
static void
put_jobs(ReturnSetInfo *rsinfo)
{
	List	   *broken = job_read_broken();
	StringInfoData said;
	int			named = 0;
	ListCell   *cell;

	if (broken == NIL)
	{
		put(rsinfo, "jobs", OK, NULL, NULL);
		return;
	}
	initStringInfo(&said);
	appendStringInfo(&said, "%d cannot run", list_length(broken));
	foreach(cell, broken)
	{
		const JobRow *row = lfirst(cell);

		if (named == MAX_NAMES || !may_see(get_role_oid(row->username, true)))
			continue;
		appendStringInfo(&said, "%s \"%s\" of %s", named == 0 ? ":" : ",", row->job_name, row->username);
		named++;
	}
	put(rsinfo, "jobs", PROBLEM, said.data, "The column problem of dsched.jobs has the reasons.");
}

/* ---- workers ------------------------------------------------------------------------------------ */

/* Why executors of a lane of this database cannot start; NULL: none is known that the caller may see. */
static const char *
executor_error(void)
{
	char		error[sizeof(((Lane *) NULL)->last_error)];
	Oid			role = InvalidOid;

	for (int i = 0; i < dsched_shared->max_lanes; i++)
	{
		bool		failed;

		LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
		failed = dsched_shared->lanes[i].dboid == MyDatabaseId && dsched_shared->lanes[i].failed_starts > 0;
		role = dsched_shared->lanes[i].roleoid;
		strlcpy(error, dsched_shared->lanes[i].last_error, sizeof(error));
		LWLockRelease(dsched_shared->queue_lock);

		if (failed && may_see(role))
		{
			char	   *name = GetUserNameFromId(role, true);

			return psprintf("no executor can start for role \"%s\": %s", name ? name : "(dropped)", error);
		}
	}
	return NULL;
}

/* A role of this database that has as many executors as one may have, and more to do; NULL: none that the caller may see. */
static const char *
limited_role(void)
{
	Oid			role = InvalidOid;
	int			waiting = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
	{
		const Lane *lane = &dsched_shared->lanes[i];

		if (lane->dboid == MyDatabaseId && lane->busy >= dsched_executors_per_role() &&
			lane->busy < dsched_shared->max_executors && lane->queued > waiting)
		{
			role = lane->roleoid;
			waiting = lane->queued;
		}
	}
	LWLockRelease(dsched_shared->queue_lock);
	if (waiting == 0 || !may_see(role))
		return NULL;
	return psprintf("role \"%s\" has the %d that one role may have, and %d %s", GetUserNameFromId(role, true),
					dsched_executors_per_role(), waiting, waiting == 1 ? "run waits" : "runs wait");
}

static void
put_executors(ReturnSetInfo *rsinfo)
{
	int			count[EXECUTOR_BUSY + 1] = {0};
	const char *error = executor_error();
	const char *limited = limited_role();
	char	   *counts;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors; i++)
		count[dsched_shared->executors[i].state]++;
	LWLockRelease(dsched_shared->control_lock);

	counts = psprintf("%d busy, %d idle, %d starting, of at most %d", count[EXECUTOR_BUSY],
					  count[EXECUTOR_IDLE], count[EXECUTOR_STARTING], dsched_shared->max_executors);
	if (error != NULL)
		put(rsinfo, "executors", PROBLEM, psprintf("%s (%s)", error, counts), NULL);
	else if (limited != NULL)
		put(rsinfo, "executors", WAITING, psprintf("%s (%s)", limited, counts),
			psprintf("If this lasts, see dsched.max_executors (now %d) and dsched.max_executors_per_role (now %d).",
					 dsched_shared->max_executors, dsched_max_executors_per_role));
	else
		put(rsinfo, "executors", OK, counts, NULL);
}

static void
put_queue(ReturnSetInfo *rsinfo)
{
	int			db = dsched_find_database(MyDatabaseId);
	int			queued = 0;
	int			used = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		queued += dsched_shared->entries[i].state == ENTRY_QUEUED ? 1 : 0;
		used += dsched_shared->entries[i].state != ENTRY_FREE ? 1 : 0;
	}
	LWLockRelease(dsched_shared->queue_lock);

	if (used == dsched_shared->queue_size || (db >= 0 && !dsched_queue_has_room(db)))
		put(rsinfo, "queue", WAITING, psprintf("%d runs wait; the queue is full, more wait outside", queued),
			psprintf("If this lasts, raise dsched.max_executors (now %d) or dsched.queue_size (now %d).",
					 dsched_max_executors, dsched_queue_size));
	else
		put(rsinfo, "queue", OK, psprintf("%d %s", queued, queued == 1 ? "run waits" : "runs wait"), NULL);
}

/* Instances whose time zones differ can compute other slots for one job: after a take-over some run twice, or not at all. */
static void
put_time_zones(ReturnSetInfo *rsinfo)
{
	char		ours[sizeof(dsched_shared->members[0].tzdata)] = "";
	char		theirs[sizeof(ours)] = "";
	char		node[DSCHED_MAX_NODE_NAME] = "";

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->nmembers; i++)
		if (strcmp(dsched_shared->members[i].name, dsched_my_node()) == 0)
			strlcpy(ours, dsched_shared->members[i].tzdata, sizeof(ours));
	for (int i = 0; i < dsched_shared->nmembers && ours[0] != '\0' && node[0] == '\0'; i++)
	{
		const MemberInfo *member = &dsched_shared->members[i];

		if (member->tzdata[0] != '\0' && strcmp(member->tzdata, ours) != 0)
		{
			strlcpy(theirs, member->tzdata, sizeof(theirs));
			strlcpy(node, member->name, sizeof(node));
		}
	}
	LWLockRelease(dsched_shared->control_lock);
	if (node[0] != '\0')
		put(rsinfo, "time zones", PROBLEM,
			psprintf("this instance has release %s of the time zones, \"%s\" has %s; times of jobs can differ", ours, node, theirs),
			"Install the same release of tzdata on all instances, and restart the servers.");
	else if (ours[0] != '\0')
		put(rsinfo, "time zones", OK, psprintf("release %s", ours), NULL);
}

static void
put_worker_slots(ReturnSetInfo *rsinfo, const CoordinatorStatus *coordinator)
{
	double		ago = (dsched_boot_now() - coordinator->lost_registration_at) / 1e6;
	char	   *detail;
	char	   *hint;
	int			needed = dsched_workers_needed(&detail, &hint);

	if (coordinator->lost_registrations == 0 && hint != NULL)
		put(rsinfo, "worker slots", PROBLEM, detail, hint);
	else if (coordinator->lost_registrations == 0)
		put(rsinfo, "worker slots", OK,
			psprintf("up to %d of max_worker_processes = %d are needed", needed, max_worker_processes), NULL);
	else if (ago > RECENT_S)
		put(rsinfo, "worker slots", OK,
			psprintf("%d times there was no free slot for a background worker, the last time %.0f minutes ago",
					 coordinator->lost_registrations, ago / 60), NULL);
	else
		put(rsinfo, "worker slots", PROBLEM,
			psprintf("%d times there was no free slot for a background worker%s%s", coordinator->lost_registrations,
					 detail != NULL ? "; " : "", detail != NULL ? detail : ""),
			hint != NULL ? hint :
			psprintf("Raise max_worker_processes (now %d) and restart the server.", max_worker_processes));
}

/* ---- the whole ---------------------------------------------------------------------------------- */

/* status() */
Datum
dsched_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CoordinatorStatus coordinator;
	DatabaseStatus database;

	InitMaterializedSRF(fcinfo, 0);
	if (dsched_shared == NULL)
	{
		put(rsinfo, "library", PROBLEM, "the server was started without dsched; no jobs run",
			"Add dsched to shared_preload_libraries and restart the server.");
		PG_RETURN_NULL();
	}
	put(rsinfo, "library", OK, NULL, NULL);
	read_coordinator(&coordinator);
	read_database(&database);

	put_mode(rsinfo, &coordinator);
	put_coordinator(rsinfo, &coordinator);
	put_etcd(rsinfo, &coordinator);
	put_clock(rsinfo, &coordinator);
	put_time_zones(rsinfo);
	put_identity(rsinfo);
	put_scheduler(rsinfo, &database);
	put_places(rsinfo, &database);
	put_definitions(rsinfo, &database);
	put_delivery(rsinfo, &database);
	put_signatures(rsinfo, &database);
	put_jobs(rsinfo);
	put_executors(rsinfo);
	put_queue(rsinfo);
	put_worker_slots(rsinfo, &coordinator);
	PG_RETURN_NULL();
}
