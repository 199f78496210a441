/*
 * session.c
 *	  The session of this instance with etcd: config, lease, node key, heartbeat, deadline, clock.
 *
 * Runs in the coordinator of an instance that is in a cluster.  One request is in flight at a time.
 *
 * THE STEPS
 *
 *	  DATABASES	 wait until every database was looked at: what they remember of the cluster decides the next
 *	  CONFIG	 read the cluster's config; is it the cluster that we know?
 *	  CREATE	 there is none, and nobody here remembers one: write it
 *	  HISTORY	 is our last heartbeat in its history, where we remember one?
 *	  LOOK		 is there a node key of this name?  If it is a living other's, wait for it
 *	  QUIET		 it was written from this very data directory: wait for the commits of its executors
 *	  REVOKE	 end the lease of that former session
 *	  GRANT		 get a lease
 *	  NODE		 create the node key.  Its create_revision is the session
 *	  LIVE		 heartbeats
 *
 * Any failure is tried again with growing delays; whatever makes an answer ambiguous, the same conditional
 * request is sent again and its failure branch tells what became of the first.
 *
 * WHOSE ETCD IS IT
 *
 * An etcd that was wiped or restored can have the same ids, and then everything that is not there looks
 * deleted, and old work looks undone.  So config holds a random incarnation, and the databases remember it with the
 * highest revision that they saw.  No config although somebody remembers one, or a lower revision on
 * a linearizable answer: the instance stays out, deletes nothing, and looks again every few seconds (it may have
 * been a wrong address).  Where others use the same etcd its revision may have grown past ours again before we look,
 * so a process that had a session also asks for its node key as of its last heartbeat's revision: an etcd that was
 * restored has something else in that place of its history.  A config of another incarnation than a database
 * remembers holds that database only.
 *
 * PROOF AND DEADLINE
 *
 * A keepalive proves nothing by itself: on etcd 3.4 a leader that was deposed without knowing it still
 * answers.  A heartbeat is a keepalive and, after its answer, a transaction with a put on the node key that compares
 * its create_revision.  The put needs the quorum.  If both answers carry the same raft term, then the leader that
 * renewed the lease was still leader when the put was committed, and every later leader gives all leases their
 * full time again, so nobody can see the lease end before
 *
 *	  deadline = (when the keepalive was sent) + TTL - margin
 *
 * in boot time.  The margin, max(200 ms, TTL / 10), covers the drift of the clocks and the time between the last
 * check of a run and the end of its commit.  A transaction without a put would not do: etcd may answer it
 * from the stale data of one member.
 *
 * When the deadline passes without a proof the session has lapsed: no run can commit any more, by the deadline alone.
 * The lease may live on in etcd (without a quorum no lease ends), so heartbeats go on.  The one that succeeds after a
 * lapse reads all owner keys in the same transaction, and what is not ours any more is dropped before the deadline
 * is moved.  If the lease or the node key is gone the session is over and a new one begins; its number is
 * another, so no run of the old one can commit under it.
 *
 * A FORMER SESSION
 *
 * A node key of our name can be that of our own past, of a clone, or of a cut-off primary.  Its lease is revoked only
 * if it was written from this data directory since this boot: then no old server can live, and the executors of
 * a coordinator before us are found through shared memory.  Else it has to expire.  If it is renewed for two TTLs it
 * is a living instance of the same name, and we stay out.
 *
 * THE CLOCK
 *
 * Slots are wall time.  Each answer of etcd carries the time of its server in whole seconds.  A clock that
 * was set, or is off by more than dsched.max_clock_skew and that second, in two heartbeats in a row, is suspect:
 * nothing is started until an answer agrees.  If that lasts, the partitions are given away (membership.c).
 */
#include "postgres.h"

#include "common/string.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/node.h"
#include "core/codec.h"
#include "core/keys.h"
#include "etcd/watch.h"
#include "settings.h"

#define REFUSED_RECHECK_US INT64CONST(5000000)
#define HELD_RECHECK_US INT64CONST(1000000)
#define RETRY_MAX_US INT64CONST(5000000)
#define LAPSED_RETRY_MAX_US INT64CONST(1000000)
#define MIN_MARGIN_US INT64CONST(200000)
#define DATE_RESOLUTION_US USECS_PER_SEC
#define CLOCK_PATIENCE_US INT64CONST(30000000)
#define REVOKE_TIMEOUT_MS 1000

#define UNIX_EPOCH_OFFSET_S INT64CONST(946684800)

/* The operations of the heartbeat's transaction: the node key as it was, its put, config, owner keys. */
#define BEAT_BEFORE 0
#define BEAT_CONFIG 2
#define BEAT_OWNERS 3

typedef enum SessionStep
{
	STEP_DATABASES,
	STEP_CONFIG,
	STEP_CREATE,
	STEP_HISTORY,
	STEP_LOOK,
	STEP_QUIET,
	STEP_REVOKE,
	STEP_GRANT,
	STEP_NODE,
	STEP_LIVE
} SessionStep;

/* A node key of our name that is not ours, while we wait for its end. */
typedef struct Predecessor
{
	int64 create_revision; /* 0: none */
	int64 mod_revision;	   /* when first seen */
	int64 lease;
	int64 since; /* boot time when first seen */
	EtcdWatch *watch;
} Predecessor;

typedef struct Session
{
	SessionStep step;
	SessionState state;	  /* as published */
	EtcdRequest *request; /* in flight, or NULL */
	int64 retry_at;		  /* boot time of the next request */
	int failures;		  /* in a row */
	int endings;		  /* sessions that ended, in a row, before they had lasted a TTL */
	bool stopped;
	bool revoking;

	char incarnation[40];	/* of the cluster that we have matched; "" none yet */
	int64 seen_revision;	/* the highest of that incarnation */
	int64 floor_revision;	/* what an answer must reach: the highest when it was asked for */
	int64 beat_revision;	/* of the last heartbeat's put; 0: none of this incarnation */
	Predecessor old;

	int64 lease;
	int64 ttl_us;
	int64 id;		/* create_revision of the node key; 0: none */
	int64 began_at; /* boot time */
	int64 deadline; /* boot time; 0: not proven yet */
	bool lapsed;

	/* the heartbeat under way */
	int64 beat_sent;
	int64 beat_ttl_us;
	uint64 beat_term;
	bool beat_validates;
} Session;

/* What is known of our wall clock. */
typedef struct ClockWatch
{
	bool confirmed;		 /* an answer has agreed once */
	int off;			 /* answers in a row that did not */
	int64 suspect_since; /* boot time; 0: trusted */
} ClockWatch;

static Session own;
static ClockWatch wall;

static char config_key[KEYS_MAX_LEN];
static char node_key[KEYS_MAX_LEN];

static void set_step(SessionStep step, int64 at);
static void set_state(SessionState state);
static void refuse(SessionStep again, ProblemKind kind, const char *hint, const char *fmt, ...)
	pg_attribute_printf(4, 5);
static void wake_schedulers(void);
static void ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback);
static void need_memory(const void *pointer);
static bool answered(const EtcdResponse *r);

static bool take_step(int64 now);
static void config_answered(void *arg, const EtcdResponse *r);
static void config_absent(void);
static void config_found(const EtcdKv *kv, const EtcdResponse *r);
static bool databases_remember(const char *incarnation, int64 *revision);
static bool databases_adopted(void);
static void match_incarnation(const char *incarnation);
static void create_config(void);
static void create_answered(void *arg, const EtcdResponse *r);

static void history_answered(void *arg, const EtcdResponse *r);

static void look_answered(void *arg, const EtcdResponse *r);
static void predecessor_found(const EtcdKv *kv, int64 revision);
static void predecessor_gone(void);
static void wait_for_predecessor(const EtcdKv *kv, const NodeInfo *info, int64 revision);
static void predecessor_events(void *arg, int range_index, const EtcdEvent *events, int n,
							   int64 header_revision);
static void predecessor_watch_lost(void *arg, EtcdWatchLoss why, const char *message);
static void revoke_predecessor(void);
static void revoke_answered(void *arg, const EtcdResponse *r);

static void ask_lease(void);
static void grant_answered(void *arg, const EtcdResponse *r);
static bool put_node(EtcdTxn *txn);
static void create_node(void);
static void node_answered(void *arg, const EtcdResponse *r);
static void begin_session(int64 id);

static int64 check_deadline(int64 now);
static void lapse(void);
static void start_heartbeat(void);
static void keepalive_answered(void *arg, const EtcdResponse *r);
static void prove(void);
static void proof_answered(void *arg, const EtcdResponse *r);
static bool same_etcd(const EtcdResponse *r);
static bool same_config(const EtcdResponse *r);
static void extend_deadline(int64 deadline, const EtcdResponse *r);
static void heartbeat_failed(const EtcdResponse *r);

static void judge_clock(const EtcdResponse *r);
static void suspect_clock(ProblemKind kind, int64 skew_us);
static void trust_clock(void);

static const EtcdWatchHandler predecessor_handler = {
	.events = predecessor_events,
	.lost = predecessor_watch_lost,
};

/* ---- life ------------------------------------------------------------------------------------ */

void
session_start(void)
{
	memset(&own, 0, sizeof(own));
	memset(&wall, 0, sizeof(wall));
	own.state = SESSION_NONE;
	own.ttl_us = dsched_lease_ttl * USECS_PER_SEC;
	if (!keys_config(config_key, dsched_cluster_name) ||
		!keys_node(node_key, dsched_cluster_name, dsched_my_node()))
		elog(ERROR, "dsched: no key for cluster \"%s\", node \"%s\"", dsched_cluster_name,
			 dsched_my_node());

	/* What a coordinator before us has seen still holds: etcd does not go back. */
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(own.incarnation, dsched_shared->incarnation, sizeof(own.incarnation));
	own.seen_revision = own.incarnation[0] != '\0' ? dsched_shared->max_revision : 0;
	dsched_shared->session_state = own.state;
	dsched_shared->lease_id = 0;
	dsched_shared->last_heartbeat = 0;
	LWLockRelease(dsched_shared->control_lock);
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 0);
}

static void
set_step(SessionStep step, int64 at)
{
	own.step = step;
	own.retry_at = at;
}

static void
set_state(SessionState state)
{
	own.state = state;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->session_state = state;
	dsched_shared->lease_id = own.lease;
	LWLockRelease(dsched_shared->control_lock);
}

/* Stays out, and looks again after a while from that step on. */
static void
refuse(SessionStep again, ProblemKind kind, const char *hint, const char *fmt, ...)
{
	char text[DSCHED_PROBLEM_LEN];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);

	if (own.id != 0)
		session_lost(text);
	cluster_problem(PROBLEM_OF_SESSION, kind, hint, "%s", text);
	if (own.state != SESSION_REFUSED)
		set_state(SESSION_REFUSED);
	set_step(again, dsched_boot_now() + REFUSED_RECHECK_US);
}

static void
wake_schedulers(void)
{
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
		dsched_wake_scheduler(db);
}

int64
session_advance(int64 now)
{
	int64 next = DSCHED_NEVER;

	if (own.stopped)
		return next;
	if (own.step == STEP_LIVE)
		next = check_deadline(now);
	if (own.state == SESSION_REFUSED && cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_REPLACED &&
		own.incarnation[0] != '\0' && databases_adopted())
	{
		own.incarnation[0] = '\0';
		own.seen_revision = own.floor_revision = 0;
		own.retry_at = 0;
	}
	if (wall.suspect_since != 0 && now < wall.suspect_since + CLOCK_PATIENCE_US)
		next = cluster_earlier(next, wall.suspect_since + CLOCK_PATIENCE_US);

	while (own.request == NULL)
	{
		if (now < own.retry_at)
			return cluster_earlier(next, own.retry_at);
		if (!take_step(now))
			break;
	}
	return next;
}

/* Takes the next step; false: it waits, for an answer or for others. */
static bool
take_step(int64 now)
{
	switch (own.step)
	{
		case STEP_DATABASES:
			if (!dsched_shared->launcher_done)
				return false;
			set_step(STEP_CONFIG, 0);
			return true;
		case STEP_CONFIG:
			ask(ETCD_PATH_RANGE, etcd_range(config_key, NULL, 1, false), ETCD_READ, config_answered);
			return false;
		case STEP_CREATE:
			create_config();
			return false;
		case STEP_HISTORY:
			ask(ETCD_PATH_RANGE, etcd_range_at(node_key, NULL, 1, true, own.beat_revision), ETCD_READ,
				history_answered);
			return false;
		case STEP_LOOK:
			ask(ETCD_PATH_RANGE, etcd_range(node_key, NULL, 1, false), ETCD_READ, look_answered);
			return false;
		case STEP_QUIET:
			if (!fence_quiet(-1, -1))
				return false;
			set_step(STEP_REVOKE, 0);
			return true;
		case STEP_REVOKE:
			revoke_predecessor();
			return false;
		case STEP_GRANT:
			ask_lease();
			return false;
		case STEP_NODE:
			create_node();
			return false;
		case STEP_LIVE:
			start_heartbeat();
			return false;
	}
	return false;
}

bool
session_usable(void)
{
	return own.id != 0 && own.deadline != 0 && !own.lapsed && !own.stopped;
}

int64
session_id(void)
{
	return own.id;
}

int64
session_lease(void)
{
	return own.lease;
}

int64
session_ttl_us(void)
{
	return own.ttl_us;
}

bool
session_is_fencing(void)
{
	return own.step == STEP_QUIET;
}

void
session_saw_revision(int64 revision)
{
	if (own.incarnation[0] != '\0' && revision > own.seen_revision)
		own.seen_revision = revision;
}

void
session_check(void)
{
	if (own.step == STEP_LIVE)
		own.retry_at = 0;
}

/*
 * Others may own everything of ours by now, so what is in shared memory goes first and at once.  Nothing is revoked
 * or deleted: there is nothing of ours left, or it will expire.
 */
void
session_lost(const char *why)
{
	bool short_lived = dsched_boot_now() - own.began_at < own.ttl_us;

	if (own.id == 0)
		return;
	fence_session();
	if (own.request != NULL)
		etcd_cancel(own.request);
	own.request = NULL;
	own.id = own.lease = own.deadline = 0;
	own.lapsed = false;
	membership_end();
	dsched_cancel_runs(-1, -1);
	set_state(SESSION_NONE);
	ereport(LOG, (errmsg("dsched: session with etcd has ended: %s", why)));

	own.endings = short_lived ? own.endings + 1 : 0;
	set_step(STEP_CONFIG, own.endings == 0 ? 0 : cluster_retry_at(own.endings, RETRY_MAX_US));
}

/* ---- requests -------------------------------------------------------------------------------- */

/* The process that has no memory exits and is started again. */
static void
need_memory(const void *pointer)
{
	if (pointer == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("Failed on a request to etcd.")));
}

static void
ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback)
{
	own.floor_revision = own.seen_revision;
	own.request =
		etcd_call(cluster_client, path, body, kind, cluster_timeout_ms(), callback, NULL);
	need_memory(own.request);
}

/*
 * What all answers have in common; false: the step is to be tried again, and is arranged to be.  An error text alone
 * does not make a problem for people while the session is good and the first retry may mend it.
 */
static bool
answered(const EtcdResponse *r)
{
	char hint[DSCHED_PROBLEM_LEN];

	own.request = NULL;
	if (r->ok)
	{
		own.failures = 0;
		if (cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_UNREACHABLE)
			cluster_no_problem(PROBLEM_OF_SESSION);
		return true;
	}

	own.failures++;
	own.retry_at = cluster_retry_at(own.failures, RETRY_MAX_US);
	if (own.step == STEP_LIVE && !own.lapsed && own.failures < 2)
		return false;
	if (own.state == SESSION_REFUSED)
		return false;
	snprintf(hint, sizeof(hint),
			 "Check that etcd runs at \"%s\" (dsched.etcd_endpoints) and has a leader. dsched tries again by itself.",
			 dsched_etcd_endpoints);
	cluster_problem(PROBLEM_OF_SESSION, PROBLEM_UNREACHABLE, hint, "no usable answer from etcd: %s",
					r->message);
	return false;
}

/* ---- config ---------------------------------------------------------------------------------- */

static void
config_answered(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;

	if (!answered(r))
		return;
	if (etcd_kv_count(r->body) == 0)
	{
		config_absent();
		return;
	}
	if (!etcd_kv_at(r->body, 0, &kv))
	{
		refuse(STEP_CONFIG, PROBLEM_CONFIG, NULL, "etcd's answer for \"%s\" makes no sense", config_key);
		return;
	}
	config_found(&kv, r);
	etcd_kv_free(&kv);
}

/*
 * Does a database of this instance remember this incarnation (NULL: any)?  And what is the highest revision
 * that it saw?
 */
static bool
databases_remember(const char *incarnation, int64 *revision)
{
	bool found = false;
	int db;

	*revision = 0;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];

		if (slot->state == SCHEDULER_NONE || slot->state == SCHEDULER_ABSENT ||
			!slot->identity_known || slot->incarnation[0] == '\0' ||
			(incarnation != NULL && strcmp(slot->incarnation, incarnation) != 0))
			continue;
		found = true;
		*revision = Max(*revision, slot->max_revision);
	}
	LWLockRelease(dsched_shared->control_lock);
	return found;
}

/* Were the jobs of all databases here adopted since, so that none of them remembers a cluster? */
static bool
databases_adopted(void)
{
	bool found = false;
	bool remembered = false;
	int db;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];

		if (slot->state == SCHEDULER_NONE || slot->state == SCHEDULER_ABSENT)
			continue;
		found = true;
		remembered |= !slot->identity_known || slot->incarnation[0] != '\0';
	}
	LWLockRelease(dsched_shared->control_lock);
	return found && !remembered;
}

static const char replaced_hint[] =
	"If dsched.etcd_endpoints or dsched.cluster_name is wrong, correct it. If this etcd is to be used, call "
	"dsched.adopt() in each database with jobs, on one instance after the other. Nothing has been deleted.";

static void
config_absent(void)
{
	int64 revision;

	if (own.incarnation[0] != '\0' || databases_remember(NULL, &revision))
	{
		refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
			   "etcd has been replaced or wiped: it does not know cluster \"%s\", which this instance was a member of",
			   dsched_cluster_name);
		return;
	}
	set_step(STEP_CREATE, 0);
}

static void
config_found(const EtcdKv *kv, const EtcdResponse *r)
{
	ConfigInfo config;
	char err[256];
	char hint[DSCHED_PROBLEM_LEN];
	int64 floor;

	if (!codec_config_decode(kv->value, kv->value_len, &config, err, sizeof(err)))
	{
		refuse(STEP_CONFIG, PROBLEM_CONFIG,
			   "It may have been written by a newer version of dsched: update this instance.",
			   "the configuration of cluster \"%s\" in etcd cannot be read: %s", dsched_cluster_name, err);
		return;
	}
	if (config.partitions != dsched_partitions)
	{
		snprintf(hint, sizeof(hint), "Set dsched.partitions = %d and restart the server.",
				 config.partitions);
		refuse(STEP_CONFIG, PROBLEM_CONFIG, hint,
			   "cluster \"%s\" has %d partitions, but dsched.partitions is %d here", dsched_cluster_name,
			   config.partitions, dsched_partitions);
		return;
	}

	(void) databases_remember(config.incarnation, &floor);
	if (strcmp(own.incarnation, config.incarnation) == 0)
		floor = Max(floor, own.floor_revision);
	if (r->revision < floor)
	{
		refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
			   "etcd has been replaced or wiped: its revision is " INT64_FORMAT ", but has been " INT64_FORMAT,
			   r->revision, floor);
		return;
	}
	if (strcmp(own.incarnation, config.incarnation) == 0 && own.beat_revision != 0)
	{
		session_saw_revision(r->revision);
		set_step(STEP_HISTORY, 0);
		return;
	}
	match_incarnation(config.incarnation);
	session_saw_revision(r->revision);
	set_step(STEP_LOOK, 0);
}

/* What was compacted cannot be asked for any more, and then the revisions alone have to do. */
static void
history_answered(void *arg, const EtcdResponse *r)
{
	bool ours = false;
	EtcdKv kv;

	if (!r->ok && r->grpc_code == ETCD_CODE_OUT_OF_RANGE)
	{
		own.request = NULL;
		ours = strstr(r->message, "compacted") != NULL;
	}
	else if (!answered(r))
		return;
	else if (etcd_kv_at(r->body, 0, &kv))
	{
		ours = kv.mod_revision == own.beat_revision;
		etcd_kv_free(&kv);
	}
	if (!ours)
	{
		refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
			   "etcd has been replaced or wiped: its history has no revision " INT64_FORMAT " of this instance",
			   own.beat_revision);
		return;
	}
	match_incarnation(own.incarnation);
	set_step(STEP_LOOK, 0);
}

/* It is the cluster that we know, or the first one; databases that know another one hold themselves. */
static void
match_incarnation(const char *incarnation)
{
	if (strcmp(own.incarnation, incarnation) != 0)
	{
		strlcpy(own.incarnation, incarnation, sizeof(own.incarnation));
		own.seen_revision = own.beat_revision = 0;
	}
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(dsched_shared->incarnation, own.incarnation, sizeof(dsched_shared->incarnation));
	LWLockRelease(dsched_shared->control_lock);
	wake_schedulers();

	/* a refusal by the node name is judged by what comes next */
	if (cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_REPLACED ||
		cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_CONFIG)
	{
		cluster_no_problem(PROBLEM_OF_SESSION);
		set_state(SESSION_NONE);
	}
}

/* If another instance is faster, its config counts: it is read again in either case. */
static void
create_config(void)
{
	ConfigInfo config = {.format = CODEC_FORMAT, .partitions = dsched_partitions};
	uint8 random[16];
	EtcdTxn *txn = etcd_txn_begin();
	char *value;
	size_t len;
	int i;

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not generate the incarnation of a cluster")));
	for (i = 0; i < (int) sizeof(random); i++)
		sprintf(config.incarnation + 2 * i, "%02x", random[i]);

	value = codec_config_encode(&config, &len);
	need_memory(value);
	etcd_txn_if_create(txn, config_key, 0);
	etcd_txn_put(txn, config_key, value, len, 0);
	free(value);
	ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, create_answered);
}

static void
create_answered(void *arg, const EtcdResponse *r)
{
	if (answered(r))
	{
		if (etcd_txn_succeeded(r->body))
			ereport(LOG, (errmsg("dsched: created cluster \"%s\" with %d partitions",
								 dsched_cluster_name, dsched_partitions)));
		own.retry_at = 0;
	}
	own.step = STEP_CONFIG;
}

/* ---- a former session ------------------------------------------------------------------------ */

static void
look_answered(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;

	if (!answered(r))
		return;
	session_saw_revision(r->revision);
	if (etcd_kv_count(r->body) == 0)
	{
		predecessor_gone();
		set_step(STEP_GRANT, 0);
		return;
	}
	if (!etcd_kv_at(r->body, 0, &kv))
	{
		refuse(STEP_LOOK, PROBLEM_CONFIG, NULL, "etcd's answer for \"%s\" makes no sense", node_key);
		return;
	}
	predecessor_found(&kv, r->revision);
	etcd_kv_free(&kv);
}

static void
predecessor_found(const EtcdKv *kv, int64 revision)
{
	NodeInfo info;
	bool readable = codec_node_decode(kv->value, kv->value_len, &info, NULL, 0);

	if (own.old.create_revision != kv->create_revision)
	{
		/* another session than the one before: somebody is alive, so go on counting from its first sight */
		if (own.old.create_revision == 0)
		{
			own.old.since = dsched_boot_now();
			own.old.mod_revision = kv->mod_revision;
		}
		own.old.create_revision = kv->create_revision;
		own.old.lease = kv->lease;
	}

	if (readable && node_is_here(&info))
	{
		dsched_cancel_runs(-1, -1);
		set_step(STEP_QUIET, 0);
	}
	else
		wait_for_predecessor(kv, readable ? &info : NULL, revision);
	codec_node_free(&info);
}

static void
predecessor_gone(void)
{
	if (own.old.watch != NULL)
		etcd_watch_stop(own.old.watch);
	memset(&own.old, 0, sizeof(own.old));
	if (cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_NAME_HELD ||
		cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_NAME_IN_USE)
		cluster_no_problem(PROBLEM_OF_SESSION);
	if (own.state == SESSION_REFUSED)
		set_state(SESSION_NONE);
}

/* A watch tells of its end within milliseconds; the re-reading is for watches that are lost, and sees renewals. */
static void
wait_for_predecessor(const EtcdKv *kv, const NodeInfo *info, int64 revision)
{
	EtcdWatchRange range = {.key = node_key};
	int64 waited = dsched_boot_now() - own.old.since;
	char where[KEYS_MAX_NAME + 32];

	if (own.old.watch == NULL)
	{
		own.old.watch = etcd_watch_start(cluster_client, &range, 1, revision + 1,
										 &predecessor_handler, NULL);
		need_memory(own.old.watch);
	}

	if (info != NULL && info->host[0] != '\0')
		snprintf(where, sizeof(where), "at %s:%d", info->host, info->port);
	else
		strlcpy(where, "at an unknown place", sizeof(where));
	if (waited >= 2 * own.ttl_us && kv->mod_revision != own.old.mod_revision)
	{
		refuse(STEP_LOOK, PROBLEM_NAME_IN_USE,
			   "Give each instance of a cluster a dsched.node_name of its own.",
			   "node name \"%s\" is in use by another living instance, %s", dsched_my_node(), where);
		return;
	}
	if (own.state != SESSION_REFUSED)
		cluster_problem(PROBLEM_OF_SESSION, PROBLEM_NAME_HELD,
						"It ends by itself when its lease expires. If it does not, another instance has the same "
						"dsched.node_name.",
						"waiting for the end of an earlier session of node \"%s\", %s", dsched_my_node(),
						where);
	set_step(STEP_LOOK, dsched_boot_now() + HELD_RECHECK_US);
}

static void
predecessor_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision)
{
	/* Whatever it was: the last word is what is there now. */
	if (n > 0 && events[n - 1].is_delete && own.step == STEP_LOOK)
		own.retry_at = 0;
}

static void
predecessor_watch_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	own.old.watch = NULL;
}

/* Its executors are silent and will stay so: the session that they know is not the current one. */
static void
revoke_predecessor(void)
{
	EtcdTxn *txn;

	if (own.old.lease != 0)
	{
		own.request = etcd_lease_revoke(cluster_client, own.old.lease, cluster_timeout_ms(),
										revoke_answered, NULL);
		need_memory(own.request);
		return;
	}
	/* A node key without a lease is not of our making, but it does say that it is ours. */
	txn = etcd_txn_begin();
	etcd_txn_if_create(txn, node_key, own.old.create_revision);
	etcd_txn_delete(txn, node_key);
	ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, revoke_answered);
}

static void
revoke_answered(void *arg, const EtcdResponse *r)
{
	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
		own.request = NULL;
	else if (!answered(r))
		return;
	set_step(STEP_LOOK, 0);
}

/* ---- lease and node key ---------------------------------------------------------------------- */

static void
ask_lease(void)
{
	own.request = etcd_lease_grant(cluster_client, dsched_lease_ttl, cluster_timeout_ms(),
								   grant_answered, NULL);
	need_memory(own.request);
}

/* A lease whose grant was not heard of runs out by itself. */
static void
grant_answered(void *arg, const EtcdResponse *r)
{
	if (!answered(r))
		return;
	own.lease = etcd_json_int64(r->body, "ID");
	own.ttl_us = etcd_json_int64(r->body, "TTL") * USECS_PER_SEC;
	if (own.lease == 0 || own.ttl_us <= 0)
	{
		own.lease = 0;
		refuse(STEP_LOOK, PROBLEM_CONFIG, NULL, "etcd has granted a lease without an id or a duration");
		return;
	}
	set_step(STEP_NODE, 0);
}

/* Adds a put of the node key, with our clock of now; false: this instance cannot be described. */
static bool
put_node(EtcdTxn *txn)
{
	NodeInfo *info = node_describe(own.lease);
	char err[256];
	char *value;
	size_t len;

	value = codec_node_encode(info, &len);
	if (value == NULL)
	{
		if (codec_node_check(info, err, sizeof(err)))
			need_memory(value);
		refuse(STEP_LOOK, PROBLEM_NODE_INVALID,
			   "dsched.node_name and dsched.node_labels must be valid UTF-8, and not too long.",
			   "this instance cannot be described to others: %s", err);
		return false;
	}
	etcd_txn_put(txn, node_key, value, len, own.lease);
	free(value);
	return true;
}

static void
create_node(void)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_if_create(txn, node_key, 0);
	etcd_txn_else_get(txn, node_key, NULL);
	if (!put_node(txn))
	{
		etcd_txn_free(txn);
		return;
	}
	ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, node_answered);
}

/* A key with our lease is ours, made by a request whose answer was lost. */
static void
node_answered(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;
	int64 ours = 0;

	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
	{
		/* the lease has run out while we tried */
		own.request = NULL;
		own.lease = 0;
		set_step(STEP_LOOK, 0);
		return;
	}
	if (!answered(r))
		return;
	session_saw_revision(r->revision);
	if (etcd_txn_succeeded(r->body))
		ours = r->revision;
	else if (etcd_kv_at(etcd_txn_response(r->body, 0), 0, &kv))
	{
		if (kv.lease == own.lease)
			ours = kv.create_revision;
		etcd_kv_free(&kv);
	}
	if (ours != 0)
		begin_session(ours);
	else
		set_step(STEP_LOOK, 0);
}

/* Nothing is published before the first heartbeat has proved it. */
static void
begin_session(int64 id)
{
	own.id = id;
	own.began_at = dsched_boot_now();
	own.deadline = 0;
	own.lapsed = false;
	own.failures = 0;
	own.beat_revision = id;
	set_step(STEP_LIVE, 0);
}

/* ---- heartbeat ------------------------------------------------------------------------------- */

static int64
check_deadline(int64 now)
{
	if (own.deadline == 0 || own.lapsed)
		return DSCHED_NEVER;
	if (now < own.deadline)
		return own.deadline;
	lapse();
	return DSCHED_NEVER;
}

/* The tokens do not hold any more, by the deadline itself; the runs need not go on in vain. */
static void
lapse(void)
{
	own.lapsed = true;
	set_state(SESSION_LAPSED);
	dsched_cancel_runs(-1, -1);
	wake_schedulers();
	ereport(LOG, (errmsg("dsched: the session with etcd could not be renewed in time, nothing is run until it is")));
}

static void
start_heartbeat(void)
{
	own.request = etcd_lease_keepalive(cluster_client, own.lease, cluster_timeout_ms(),
									   keepalive_answered, NULL);
	need_memory(own.request);
}

static void
keepalive_answered(void *arg, const EtcdResponse *r)
{
	int64 ttl;

	if (!answered(r))
	{
		heartbeat_failed(r);
		return;
	}
	ttl = etcd_json_int64(r->body, "TTL");
	if (ttl <= 0)
	{
		session_lost("its lease has expired or was revoked");
		return;
	}
	own.beat_sent = r->sent_at;
	own.beat_ttl_us = ttl * USECS_PER_SEC;
	own.beat_term = r->raft_term;
	prove();
}

/* The put that needs the quorum, and with it what else has to be looked at from time to time. */
static void
prove(void)
{
	EtcdTxn *txn = etcd_txn_begin();

	own.beat_validates = own.lapsed;
	etcd_txn_if_create(txn, node_key, own.id);
	etcd_txn_get(txn, node_key, NULL);
	if (!put_node(txn))
	{
		etcd_txn_free(txn);
		return;
	}
	etcd_txn_get(txn, config_key, NULL);
	if (own.beat_validates)
		membership_add_reads(txn);
	ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, proof_answered);
}

static void
proof_answered(void *arg, const EtcdResponse *r)
{
	int64 now = dsched_boot_now();
	int64 margin = Max(MIN_MARGIN_US, own.beat_ttl_us / 10);
	int64 deadline = own.beat_sent + own.beat_ttl_us - margin;

	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
	{
		own.request = NULL;
		session_lost("its lease has expired or was revoked");
		return;
	}
	if (!answered(r))
	{
		heartbeat_failed(r);
		return;
	}
	if (!etcd_txn_succeeded(r->body))
	{
		session_lost("its node key has been deleted or replaced");
		return;
	}
	if (!same_etcd(r) || !same_config(r))
		return;
	session_saw_revision(r->revision);
	own.beat_revision = r->revision;
	judge_clock(r);

	/* A leader changed in between, the proof took too long, or it does not cover a lapse: once more, soon. */
	if (r->raft_term == 0 || r->raft_term != own.beat_term || deadline <= now ||
		((own.lapsed || (own.deadline != 0 && now >= own.deadline)) && !own.beat_validates))
	{
		(void) check_deadline(now);
		own.retry_at = cluster_retry_at(1, own.ttl_us / 6);
		return;
	}
	if (own.beat_validates && !membership_validate(r->body, BEAT_OWNERS, r->revision))
	{
		session_lost("etcd's answer about the owner keys makes no sense");
		return;
	}
	extend_deadline(deadline, r);
	own.retry_at = own.beat_sent + own.ttl_us / 3;
	membership_heartbeat(now, r->revision);
}

/*
 * The answer came through the quorum, so a revision below one that was seen, or a node key from before our last put,
 * is no delay but an etcd that was restored, with our lease in it.
 */
static bool
same_etcd(const EtcdResponse *r)
{
	int64 before = 0;
	EtcdKv kv;

	if (r->revision < own.floor_revision)
	{
		refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
			   "etcd has been replaced or wiped: its revision is " INT64_FORMAT ", but has been " INT64_FORMAT,
			   r->revision, own.floor_revision);
		return false;
	}
	if (etcd_kv_at(etcd_txn_response(r->body, BEAT_BEFORE), 0, &kv))
	{
		before = kv.mod_revision;
		etcd_kv_free(&kv);
	}
	if (before < own.beat_revision)
	{
		refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
			   "etcd has been replaced or wiped: it has forgotten revision " INT64_FORMAT " of this instance",
			   own.beat_revision);
		return false;
	}
	return true;
}

static bool
same_config(const EtcdResponse *r)
{
	EtcdKv kv;
	ConfigInfo config;
	bool same = false;

	if (etcd_kv_at(etcd_txn_response(r->body, BEAT_CONFIG), 0, &kv))
	{
		same = codec_config_decode(kv.value, kv.value_len, &config, NULL, 0) &&
			   strcmp(config.incarnation, own.incarnation) == 0 &&
			   config.partitions == dsched_partitions;
		etcd_kv_free(&kv);
	}
	if (!same)
		session_lost("the configuration of the cluster has changed");
	return same;
}

/* The deadline before the session: a token must not hold by the deadline of a former one. */
static void
extend_deadline(int64 deadline, const EtcdResponse *r)
{
	bool first = own.deadline == 0;
	bool was_lapsed = own.lapsed;

	own.deadline = deadline;
	own.lapsed = false;
	own.ttl_us = own.beat_ttl_us;
	pg_atomic_write_u64(&dsched_shared->deadline, (uint64) deadline);
	pg_memory_barrier();
	pg_atomic_write_u64(&dsched_shared->session, (uint64) own.id);

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->last_heartbeat = own.beat_sent;
	dsched_shared->max_revision = own.seen_revision;
	strlcpy(dsched_shared->endpoint, r->endpoint ? r->endpoint : "", sizeof(dsched_shared->endpoint));
	LWLockRelease(dsched_shared->control_lock);

	if (first || was_lapsed)
	{
		set_state(SESSION_VALID);
		cluster_no_problem(PROBLEM_OF_SESSION);
		wake_schedulers();
		ereport(LOG, (errmsg(first ? "dsched: node \"%s\" has joined cluster \"%s\", session " INT64_FORMAT
								   : "dsched: node \"%s\" of cluster \"%s\" has renewed its session " INT64_FORMAT,
							 dsched_my_node(), dsched_cluster_name, own.id)));
	}
	if (first)
		membership_begin();
}

/* answered() has arranged a retry; while the lease may live it has to come soon. */
static void
heartbeat_failed(const EtcdResponse *r)
{
	own.retry_at =
		cluster_retry_at(own.failures, own.lapsed ? LAPSED_RETRY_MAX_US : own.ttl_us / 6);
}

/* ---- the clock ------------------------------------------------------------------------------- */

static void
judge_clock(const EtcdResponse *r)
{
	int64 tolerance = dsched_max_clock_skew * INT64CONST(1000) + DATE_RESOLUTION_US;
	int64 half_trip = (r->received_at - r->sent_at) / 2;
	TimestampTz ours;
	TimestampTz theirs;
	int64 skew;

	/* a clock that the tests move has no true time */
	if (dsched_test_clock || r->server_date == 0)
		return;
	/* Our time in the middle of the round trip against the middle of the second that the header names. */
	ours = dsched_wall_now() - (dsched_boot_now() - r->received_at) - half_trip;
	theirs = (r->server_date - UNIX_EPOCH_OFFSET_S) * USECS_PER_SEC + DATE_RESOLUTION_US / 2;
	skew = ours - theirs;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->clock_skew_ms = skew / 1000;
	LWLockRelease(dsched_shared->control_lock);

	if (skew <= tolerance + half_trip && skew >= -(tolerance + half_trip))
	{
		wall.off = 0;
		wall.confirmed = true;
		trust_clock();
		return;
	}
	wall.off++;
	/* One answer alone may have been held up; but a clock that was never right gets no credit. */
	if (wall.off >= 2 || !wall.confirmed || wall.suspect_since != 0)
		suspect_clock(PROBLEM_CLOCK_SKEW, skew);
}

static void
suspect_clock(ProblemKind kind, int64 skew_us)
{
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 1);
	if (wall.suspect_since == 0)
		wall.suspect_since = dsched_boot_now();
	if (kind == PROBLEM_CLOCK_STEP)
		cluster_problem(PROBLEM_OF_CLOCK, kind, "Nothing is started until etcd's clock has confirmed the new time.",
						"the clock of this server was set");
	else
		cluster_problem(PROBLEM_OF_CLOCK, kind,
						"Nothing is started on this instance. Synchronize the clocks of this server and of etcd's, "
						"or see dsched.max_clock_skew.",
						"the clock of this server differs from etcd's by %.1f s", skew_us / 1000000.0);
}

static void
trust_clock(void)
{
	if (wall.suspect_since == 0)
		return;
	wall.suspect_since = 0;
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 0);
	cluster_no_problem(PROBLEM_OF_CLOCK);
	wake_schedulers();
}

void
session_clock_stepped(void)
{
	if (dsched_test_clock || own.stopped)
		return;
	suspect_clock(PROBLEM_CLOCK_STEP, 0);
	session_check();
}

bool
session_clock_untrusted(int64 now)
{
	return wall.suspect_since != 0 && now >= wall.suspect_since + CLOCK_PATIENCE_US;
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void
ignore_answer(void *arg, const EtcdResponse *r)
{
}

void
session_stop(void)
{
	if (own.request != NULL)
		etcd_cancel(own.request);
	own.request = NULL;
	if (own.old.watch != NULL)
		etcd_watch_stop(own.old.watch);
	own.old.watch = NULL;
	own.stopped = true;
}

/* Final states are written under owner keys, which live as long as the lease. */
void
session_keep_alive(void)
{
	if (own.lease != 0)
		(void) etcd_lease_keepalive(cluster_client, own.lease, cluster_timeout_ms(), ignore_answer, NULL);
}

static void
own_revocation_answered(void *arg, const EtcdResponse *r)
{
	own.request = NULL;
	own.revoking = false;
	if (!r->ok && r->grpc_code != ETCD_CODE_NOT_FOUND)
		ereport(LOG, (errmsg("dsched: could not revoke the lease of this instance: %s", r->message),
					  errdetail("Its partitions are free when the lease has expired.")));
}

void
session_revoke(void)
{
	if (own.lease == 0)
		return;
	own.request = etcd_lease_revoke(cluster_client, own.lease, REVOKE_TIMEOUT_MS,
									own_revocation_answered, NULL);
	own.revoking = own.request != NULL;
}

bool
session_revoking(void)
{
	return own.revoking;
}
