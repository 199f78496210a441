/*
 * session.c
 *	  The session of this instance with etcd: its steps, lease, node key, heartbeat, deadline.
 *
 * Runs in the coordinator of an instance that is in a cluster.  One request is in flight at a time.
 *
 * THE STEPS
 *
 *	  DATABASES	 wait until every database was looked at: what they remember of the cluster decides the next
 *	  CONFIG	 read the cluster's config; is it the cluster that we know?
 *	  CREATE	 there is none, and nobody here remembers one: write it
 *	  HISTORY	 is our last heartbeat in its history, where we remember one?
 *	  SETTLE	 the cluster was recovered: may sessions of its former incarnation still hold?  Wait for their end
 *	  LOOK		 is there a node key of this name?  If it is a living other's, wait for it
 *	  QUIET		 it was written from this very data directory: wait for the commits of its executors
 *	  UNNAME	 delete the node key of that former session
 *	  KEYS		 what hangs on its lease?  We go on under it if all of that is still ours to keep: NODE
 *	  REVOKE	 end the lease of that former session
 *	  GRANT		 get a lease
 *	  NODE		 create the node key.  Its create_revision is the session
 *	  LIVE		 heartbeats
 *
 * CONFIG, CREATE, HISTORY and SETTLE are in session_config.c, LOOK and REVOKE in session_predecessor.c, UNNAME and KEYS in
 * session_resume.c.  The clock is judged in session_clock.c.
 *
 * Any failure is tried again with growing delays; whatever makes an answer ambiguous, the same conditional
 * request is sent again and its failure branch tells what became of the first.
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
 * check of a run and the end of its commit.  A transaction that only reads would not do: etcd may answer it
 * from the stale data of one member.
 *
 * An etcd whose database has reached its quota (the alarm NOSPACE) refuses puts, while leases go on.  Then the transaction
 * deletes a key that never exists instead, which needs the quorum as well and no space: sessions and ownership go on.  Each
 * heartbeat tries the put first, so this ends when the alarm does.  No lease is granted meanwhile, so nobody can join.  (Accounts, claims and
 * definitions are written in nested transactions, whose puts the etcds that we know do not count; if one did, they would wait.)
 *
 * When the deadline passes without a proof the session has lapsed: no run can commit any more, by the deadline alone.
 * The lease may live on in etcd (without a quorum no lease ends), so heartbeats go on.  The one that succeeds after a
 * lapse reads all owner keys in the same transaction, and what is not ours any more is dropped before the deadline
 * is moved.  If the lease or the node key is gone the session is over and a new one begins; its number is
 * another, so no run of the old one can commit under it.
 *
 * Session and deadline in shared memory are atomic; what is published for people is under control_lock.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/node.h"
#include "cluster/session_internal.h"
#include "core/codec.h"
#include "core/keys.h"
#include "etcd/watch.h"
#include "mutant.h"
#include "settings.h"

#define REFUSED_RECHECK_US INT64CONST(5000000)
#define RETRY_MAX_US INT64CONST(5000000)
#define LAPSED_RETRY_MAX_US INT64CONST(1000000)
#define MIN_MARGIN_US INT64CONST(200000)
#define REVOKE_TIMEOUT_MS 1000

Session own_session;

char session_config_key[KEYS_MAX_LEN];
char session_node_key[KEYS_MAX_LEN];

static bool take_step(int64 now);

static void ask_lease(void);
static void grant_answered(void *arg, const EtcdResponse *r);
static void say_longer(void);
static bool put_node(EtcdTxn *txn);
static void create_node(void);
static void node_answered(void *arg, const EtcdResponse *r);
static void begin_session(int64 id);

static int64 check_deadline(int64 now);
static void lapse(void);
static void start_heartbeat(void);
static void keepalive_answered(void *arg, const EtcdResponse *r);
static void prove(bool puts);
static void out_of_space(const EtcdResponse *r);
static void proof_answered(void *arg, const EtcdResponse *r);
static void extend_deadline(int64 deadline, const EtcdResponse *r);
static void heartbeat_failed(const EtcdResponse *r);

/* ---- life ------------------------------------------------------------------------------------ */

void
session_start(void)
{
	memset(&own_session, 0, sizeof(own_session));
	own_session.state = SESSION_NONE;
	own_session.ttl_us = dsched_lease_ttl * USECS_PER_SEC;
	if (!keys_config(session_config_key, dsched_cluster_name) ||
		!keys_node(session_node_key, dsched_cluster_name, dsched_my_node()))
		elog(ERROR, "dsched: no key for cluster \"%s\", node \"%s\"", dsched_cluster_name,
			 dsched_my_node());

	/* What a coordinator before us has seen still holds: etcd does not go back. */
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(own_session.incarnation, dsched_shared->incarnation, sizeof(own_session.incarnation));
	own_session.seen_revision = own_session.incarnation[0] != '\0' ? dsched_shared->max_revision : 0;
	dsched_shared->session_state = own_session.state;
	dsched_shared->lease_id = 0;
	dsched_shared->last_heartbeat = 0;
	LWLockRelease(dsched_shared->control_lock);
	session_clock_start();
}

void
session_set_step(SessionStep step, int64 at)
{
	own_session.step = step;
	own_session.retry_at = at;
}

void
session_set_state(SessionState state)
{
	own_session.state = state;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->session_state = state;
	dsched_shared->lease_id = own_session.lease;
	LWLockRelease(dsched_shared->control_lock);
}

/* Stays out, and looks again after a while from that step on. */
void
session_refuse(SessionStep again, ProblemKind kind, const char *hint, const char *fmt, ...)
{
	char text[DSCHED_PROBLEM_LEN];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);

	if (own_session.id != 0)
		session_lost(text);
	cluster_problem(PROBLEM_OF_SESSION, kind, hint, "%s", text);
	if (own_session.state != SESSION_REFUSED)
		session_set_state(SESSION_REFUSED);
	session_set_step(again, dsched_boot_now() + REFUSED_RECHECK_US);
}

void
session_wake_schedulers(void)
{
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
		dsched_wake_scheduler(db);
}

int64
session_advance(int64 now)
{
	int64 next = DSCHED_NEVER;

	if (own_session.stopped)
		return next;
	if (own_session.step == STEP_LIVE)
		next = check_deadline(now);
	if (own_session.state == SESSION_REFUSED && cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_REPLACED &&
		own_session.incarnation[0] != '\0' && session_databases_adopted())
	{
		own_session.incarnation[0] = '\0';
		own_session.seen_revision = own_session.floor_revision = 0;
		own_session.retry_at = 0;
	}
	next = cluster_earlier(next, session_clock_advance(now));

	while (own_session.request == NULL)
	{
		if (now < own_session.retry_at)
			return cluster_earlier(next, own_session.retry_at);
		if (!take_step(now))
			break;
	}
	return next;
}

/* Takes the next step; false: it waits, for an answer or for others. */
static bool
take_step(int64 now)
{
	switch (own_session.step)
	{
		case STEP_DATABASES:
			if (!dsched_shared->launcher_done)
				return false;
			session_set_step(STEP_CONFIG, 0);
			return true;
		case STEP_CONFIG:
			session_read_config();
			return false;
		case STEP_CREATE:
			session_create_config();
			return false;
		case STEP_HISTORY:
			session_read_history();
			return false;
		case STEP_SETTLE:
			session_settle();
			return false;
		case STEP_LOOK:
			session_look();
			return false;
		case STEP_QUIET:
			if (!fence_quiet(-1, -1))
				return false;
			session_set_step(own_session.old.resumable ? STEP_UNNAME : STEP_REVOKE, 0);
			return true;
		case STEP_UNNAME:
			session_unname();
			return false;
		case STEP_KEYS:
			session_ask_keys();
			return false;
		case STEP_REVOKE:
			session_revoke_predecessor();
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
	return own_session.id != 0 && own_session.deadline != 0 && !own_session.lapsed && !own_session.stopped;
}

int64
session_id(void)
{
	return own_session.id;
}

int64
session_lease(void)
{
	return own_session.lease;
}

int64
session_ttl_us(void)
{
	return own_session.ttl_us;
}

bool
session_is_fencing(void)
{
	return own_session.step == STEP_QUIET;
}

void
session_saw_revision(int64 revision)
{
	if (own_session.incarnation[0] != '\0' && revision > own_session.seen_revision)
		own_session.seen_revision = revision;
}

void
session_check(void)
{
	if (own_session.step == STEP_LIVE)
		own_session.retry_at = 0;
}

void
session_look_at_config(void)
{
	if (own_session.step == STEP_LIVE || own_session.step == STEP_CONFIG)
		own_session.retry_at = 0;
}

/*
 * Others may own everything of ours by now, so what is in shared memory goes first and at once.  Nothing is revoked
 * or deleted: there is nothing of ours left, or it will expire.
 */
void
session_lost(const char *why)
{
	bool short_lived = dsched_boot_now() - own_session.began_at < own_session.ttl_us;

	if (own_session.id == 0)
		return;
	fence_session();
	if (own_session.request != NULL)
		etcd_cancel(own_session.request);
	own_session.request = NULL;
	own_session.id = own_session.lease = own_session.deadline = 0;
	own_session.lapsed = false;
	membership_end();
	dsched_cancel_session_runs();
	session_set_state(SESSION_NONE);
	ereport(LOG, (errmsg("dsched: session with etcd has ended: %s", why)));

	own_session.endings = short_lived ? own_session.endings + 1 : 0;
	session_set_step(STEP_CONFIG,
					 own_session.endings == 0 ? 0 : cluster_retry_at(own_session.endings, RETRY_MAX_US));
}

/* ---- requests -------------------------------------------------------------------------------- */

void
session_ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback)
{
	own_session.floor_revision = own_session.seen_revision;
	own_session.request =
		etcd_call(cluster_client, path, body, kind, cluster_timeout_ms(), callback, NULL);
	cluster_need_memory(own_session.request);
}

/*
 * What all answers have in common; false: the step is to be tried again, and is arranged to be.  An error text alone
 * does not make a problem for people while the session is good and the first retry may mend it.
 */
bool
session_answered(const EtcdResponse *r)
{
	char hint[DSCHED_PROBLEM_LEN];
	ProblemKind kind;

	own_session.request = NULL;
	if (r->ok)
	{
		own_session.failures = 0;
		kind = cluster_problem_kind(PROBLEM_OF_SESSION);
		if (kind == PROBLEM_UNREACHABLE || kind == PROBLEM_TLS || kind == PROBLEM_SECURITY)
			cluster_no_problem(PROBLEM_OF_SESSION);
		return true;
	}

	own_session.failures++;
	own_session.retry_at = cluster_retry_at(own_session.failures, RETRY_MAX_US);
	if (own_session.step == STEP_LIVE && !own_session.lapsed && own_session.failures < 2)
		return false;
	if (own_session.state == SESSION_REFUSED)
		return false;
	kind = cluster_access_problem(r, hint, sizeof(hint));
	cluster_problem(PROBLEM_OF_SESSION, kind, hint, "no usable answer from etcd: %s", r->message);
	return false;
}

/* ---- lease and node key ---------------------------------------------------------------------- */

static void
ask_lease(void)
{
	membership_keep_none();
	own_session.request = etcd_lease_grant(cluster_client, dsched_lease_ttl, cluster_timeout_ms(),
										   grant_answered, NULL);
	cluster_need_memory(own_session.request);
}

/* A lease whose grant was not heard of runs out by itself. */
static void
grant_answered(void *arg, const EtcdResponse *r)
{
	if (!session_answered(r))
		return;
	own_session.lease = etcd_json_int64(r->body, "ID");
	own_session.ttl_us = etcd_json_int64(r->body, "TTL") * USECS_PER_SEC;
	if (own_session.lease == 0 || own_session.ttl_us <= 0)
	{
		own_session.lease = 0;
		session_refuse(STEP_LOOK, PROBLEM_CONFIG, NULL, "etcd has granted a lease without an id or a duration");
		return;
	}
	if (own_session.ttl_us > dsched_lease_ttl * USECS_PER_SEC)
		say_longer();
	session_set_step(STEP_NODE, 0);
}

/* Once in the life of the process. */
static void
say_longer(void)
{
	static bool said = false;

	if (!said)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("dsched: etcd grants no lease of %d s, as dsched.lease_ttl asks for, but one of %d s", dsched_lease_ttl,
						(int) (own_session.ttl_us / USECS_PER_SEC)),
				 errhint("The shortest is 1.5 times etcd's election timeout. Raise dsched.lease_ttl, or start etcd with a shorter "
						 "one (--election-timeout, and --heartbeat-interval of a tenth of it).")));
	said = true;
}

/* Adds a put of the node key, with our clock of now; false: this instance cannot be described. */
static bool
put_node(EtcdTxn *txn)
{
	NodeInfo *info = node_describe(own_session.lease);
	char err[256];
	char *value;
	size_t len;

	value = codec_node_encode(info, &len);
	if (value == NULL)
	{
		if (codec_node_check(info, err, sizeof(err)))
			cluster_need_memory(value);
		session_refuse(STEP_LOOK, PROBLEM_NODE_INVALID,
					   "dsched.node_name and dsched.node_labels must be valid UTF-8, and not too long.",
					   "this instance cannot be described to others: %s", err);
		return false;
	}
	etcd_txn_put(txn, session_node_key, value, len, own_session.lease);
	free(value);
	return true;
}

static void
create_node(void)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_if_create(txn, session_node_key, 0);
	etcd_txn_else_get(txn, session_node_key, NULL);
	if (!put_node(txn))
	{
		etcd_txn_free(txn);
		return;
	}
	session_ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, node_answered);
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
		own_session.request = NULL;
		own_session.lease = 0;
		session_set_step(STEP_LOOK, 0);
		return;
	}
	if (!session_answered(r))
		return;
	session_saw_revision(r->revision);
	if (etcd_txn_succeeded(r->body))
		ours = r->revision;
	else if (etcd_kv_at(etcd_txn_response(r->body, 0), 0, &kv))
	{
		if (kv.lease == own_session.lease)
			ours = kv.create_revision;
		etcd_kv_free(&kv);
	}
	if (ours != 0)
		begin_session(ours);
	else
		session_set_step(STEP_LOOK, 0);
}

/* Nothing is published before the first heartbeat has proved it. */
static void
begin_session(int64 id)
{
	own_session.id = id;
	own_session.began_at = dsched_boot_now();
	own_session.deadline = 0;
	own_session.lapsed = false;
	own_session.failures = 0;
	own_session.beat_revision = id;
	session_set_step(STEP_LIVE, 0);
}

/* ---- heartbeat ------------------------------------------------------------------------------- */

static int64
check_deadline(int64 now)
{
	if (own_session.deadline == 0 || own_session.lapsed)
		return DSCHED_NEVER;
	if (now < own_session.deadline)
		return own_session.deadline;
	lapse();
	return DSCHED_NEVER;
}

/* The tokens do not hold any more, by the deadline itself; the runs need not go on in vain. */
static void
lapse(void)
{
	own_session.lapsed = true;
	session_set_state(SESSION_LAPSED);
	dsched_cancel_session_runs();
	session_wake_schedulers();
	ereport(LOG, (errmsg("dsched: the session with etcd could not be renewed in time, nothing is run until it is")));
}

static void
start_heartbeat(void)
{
	own_session.request = etcd_lease_keepalive(cluster_client, own_session.lease, cluster_timeout_ms(),
											   keepalive_answered, NULL);
	cluster_need_memory(own_session.request);
}

static void
keepalive_answered(void *arg, const EtcdResponse *r)
{
	int64 ttl;

	if (!session_answered(r))
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
	own_session.beat_sent = MUTANT(DEADLINE_FROM_ANSWER) ? r->received_at : r->sent_at;
	own_session.beat_ttl_us = ttl * USECS_PER_SEC;
	own_session.beat_term = r->raft_term;
	if (MUTANT(KEEPALIVE_PROVES) && own_session.deadline != 0)
		extend_deadline(r->sent_at + own_session.beat_ttl_us - MIN_MARGIN_US, r);
	prove(true);
}

/* The write that needs the quorum, and with it what else has to be looked at from time to time. */
static void
prove(bool puts)
{
	EtcdTxn *txn = etcd_txn_begin();

	own_session.beat_puts = puts;
	own_session.beat_validates = own_session.lapsed;
	etcd_txn_if_create(txn, session_node_key, own_session.id);
	etcd_txn_get(txn, session_node_key, NULL);
	if (!puts)
	{
		char nothing[KEYS_MAX_LEN + 2];

		/* keys of nodes have no slash in their names */
		snprintf(nothing, sizeof(nothing), "%s/", session_node_key);
		etcd_txn_delete(txn, nothing);
	}
	else if (!put_node(txn))
	{
		etcd_txn_free(txn);
		return;
	}
	etcd_txn_get(txn, session_config_key, NULL);
	if (own_session.beat_validates)
		membership_add_reads(txn);
	session_ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, proof_answered);
}

/* The heartbeat goes on without a put. */
static void
out_of_space(const EtcdResponse *r)
{
	char hint[DSCHED_PROBLEM_LEN];
	ProblemKind kind = cluster_access_problem(r, hint, sizeof(hint));

	own_session.request = NULL;
	cluster_problem(PROBLEM_OF_SPACE, kind, hint, "etcd takes no more writes: %s", r->message);
	prove(false);
}

static void
proof_answered(void *arg, const EtcdResponse *r)
{
	int64 now = dsched_boot_now();
	int64 margin = Max(MIN_MARGIN_US, own_session.beat_ttl_us / 10);
	int64 deadline = own_session.beat_sent + own_session.beat_ttl_us - margin;

	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
	{
		own_session.request = NULL;
		session_lost("its lease has expired or was revoked");
		return;
	}
	if (!r->ok && r->fault == ETCD_FAULT_SPACE && own_session.beat_puts)
	{
		out_of_space(r);
		return;
	}
	if (!session_answered(r))
	{
		heartbeat_failed(r);
		return;
	}
	if (own_session.beat_puts)
		cluster_no_problem(PROBLEM_OF_SPACE);
	if (!etcd_txn_succeeded(r->body))
	{
		session_lost("its node key has been deleted or replaced");
		return;
	}
	if (!session_same_etcd(r) || !session_same_config(r))
		return;
	session_saw_revision(r->revision);
	if (own_session.beat_puts)
		own_session.beat_revision = r->revision;
	session_judge_clock(r);

	/* A leader changed in between, the proof took too long, or it does not cover a lapse: once more, soon. */
	if (r->raft_term == 0 || r->raft_term != own_session.beat_term || deadline <= now ||
		((own_session.lapsed || (own_session.deadline != 0 && now >= own_session.deadline)) &&
		 !own_session.beat_validates))
	{
		(void) check_deadline(now);
		own_session.retry_at = cluster_retry_at(1, own_session.ttl_us / 6);
		return;
	}
	if (own_session.beat_validates && !membership_validate(r->body, BEAT_OWNERS, r->revision))
	{
		session_lost("etcd's answer about the owner keys makes no sense");
		return;
	}
	extend_deadline(deadline, r);
	own_session.retry_at = own_session.beat_sent + own_session.ttl_us / 3;
	/* a watch has nothing to hear of a heartbeat without a put */
	membership_heartbeat(now, own_session.beat_puts ? r->revision : 0);
	compaction_heartbeat(now, r->revision);
}

/* The deadline before the session: a token must not hold by the deadline of a former one. */
static void
extend_deadline(int64 deadline, const EtcdResponse *r)
{
	bool first = own_session.deadline == 0;
	bool was_lapsed = own_session.lapsed;

	own_session.deadline = deadline;
	own_session.lapsed = false;
	own_session.ttl_us = own_session.beat_ttl_us;
	pg_atomic_write_u64(&dsched_shared->deadline, (uint64) deadline);
	pg_memory_barrier();
	pg_atomic_write_u64(&dsched_shared->session, (uint64) own_session.id);

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->last_heartbeat = own_session.beat_sent;
	if (own_session.beat_puts)
		dsched_shared->heartbeat_revision = own_session.beat_revision;
	dsched_shared->max_revision = own_session.seen_revision;
	dsched_shared->beat_revision = own_session.beat_revision;
	strlcpy(dsched_shared->endpoint, r->endpoint ? r->endpoint : "", sizeof(dsched_shared->endpoint));
	LWLockRelease(dsched_shared->control_lock);

	/* a keepalive needs no permission, so its answer has not ended such a problem */
	if (cluster_is_access_problem(cluster_problem_kind(PROBLEM_OF_SESSION)))
		cluster_no_problem(PROBLEM_OF_SESSION);
	if (first || was_lapsed)
	{
		session_set_state(SESSION_VALID);
		cluster_no_problem(PROBLEM_OF_SESSION);
		session_wake_schedulers();
		ereport(LOG, (errmsg(first ? "dsched: node \"%s\" has joined cluster \"%s\", session " INT64_FORMAT
								   : "dsched: node \"%s\" of cluster \"%s\" has renewed its session " INT64_FORMAT,
							 dsched_my_node(), dsched_cluster_name, own_session.id)));
	}
	if (first)
		membership_begin();
}

/* session_answered() has arranged a retry; while the lease may live it has to come soon. */
static void
heartbeat_failed(const EtcdResponse *r)
{
	own_session.retry_at =
		cluster_retry_at(own_session.failures, own_session.lapsed ? LAPSED_RETRY_MAX_US : own_session.ttl_us / 6);
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void
ignore_answer(void *arg, const EtcdResponse *r)
{
}

void
session_stop(void)
{
	if (own_session.request != NULL)
		etcd_cancel(own_session.request);
	own_session.request = NULL;
	if (own_session.old.watch != NULL)
		etcd_watch_stop(own_session.old.watch);
	own_session.old.watch = NULL;
	compaction_stop();
	own_session.stopped = true;
}

/* Final states are written under owner keys, which live as long as the lease. */
void
session_keep_alive(void)
{
	if (own_session.lease != 0)
		(void) etcd_lease_keepalive(cluster_client, own_session.lease, cluster_timeout_ms(), ignore_answer, NULL);
}

static void
own_revocation_answered(void *arg, const EtcdResponse *r)
{
	own_session.request = NULL;
	own_session.revoking = false;
	if (!r->ok && r->grpc_code != ETCD_CODE_NOT_FOUND)
		ereport(LOG, (errmsg("dsched: could not revoke the lease of this instance: %s", r->message),
					  errdetail("Its partitions are free when the lease has expired.")));
}

static void
own_node_deleted(void *arg, const EtcdResponse *r)
{
	if (!r->ok)
	{
		own_revocation_answered(arg, r);
		return;
	}
	/* if the comparison failed it has been deleted before */
	own_session.request = etcd_lease_revoke(cluster_client, own_session.lease, REVOKE_TIMEOUT_MS,
											own_revocation_answered, NULL);
	own_session.revoking = own_session.request != NULL;
}

/*
 * The node key goes first.  A revocation cannot compare anything: one whose answer is not waited for could be applied when our
 * successor has gone on under the lease (session_resume.c), and would give away what that one runs.  It goes on only
 * under a lease that a node key names.  Without a session (the answer about its node key is not there) the lease expires.
 */
void
session_revoke(void)
{
	EtcdTxn *txn;

	if (own_session.id == 0 || own_session.lease == 0)
		return;
	txn = etcd_txn_begin();
	etcd_txn_if_create(txn, session_node_key, own_session.id);
	etcd_txn_delete(txn, session_node_key);
	own_session.request = etcd_call(cluster_client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REVOKE_TIMEOUT_MS,
									own_node_deleted, NULL);
	own_session.revoking = own_session.request != NULL;
}

bool
session_revoking(void)
{
	return own_session.revoking;
}
