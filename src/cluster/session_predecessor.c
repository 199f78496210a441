/*
 * session_predecessor.c
 *	  A node key of our name that is not ours: whose is it, and how does it end?
 *
 * The steps LOOK, QUIET and REVOKE of a session (session.c).  Nothing of a new session exists in etcd before they are
 * through.
 *
 * A node key of our name can be that of our own past, of a clone, or of a cut-off primary.  Its session is ended only
 * if it was written from this data directory since this boot: then no old server can live, and the executors of
 * a coordinator before us are found through shared memory; it is waited until none of them is in a commit (fence.c).
 * Then we go on under its lease (session_resume.c), or, where that cannot be, revoke it.
 * Else it has to expire.  If it is renewed for two TTLs it is a living instance of the same name, and we stay out.
 *
 * A watch of the key is a help only: it may be lost, and then the key is read again every second.  A failed request is
 * repeated by session_answered().
 */
#include "postgres.h"

#include "access/xlog.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/node.h"
#include "cluster/session_internal.h"
#include "core/codec.h"
#include "mutant.h"
#include "settings.h"

#define HELD_RECHECK_US INT64CONST(1000000)

static void look_answered(void *arg, const EtcdResponse *r);
static void predecessor_found(const EtcdKv *kv, int64 revision);
static void predecessor_gone(void);
static void wait_for_predecessor(const EtcdKv *kv, const NodeInfo *info, int64 revision);
static void predecessor_events(void *arg, int range_index, const EtcdEvent *events, int n,
							   int64 header_revision);
static void predecessor_watch_lost(void *arg, EtcdWatchLoss why, const char *message);
static void revoke_answered(void *arg, const EtcdResponse *r);

static const EtcdWatchHandler predecessor_handler = {
	.events = predecessor_events,
	.lost = predecessor_watch_lost,
};

void
session_look(void)
{
	session_ask(ETCD_PATH_RANGE, etcd_range(session_node_key, NULL, 1, false), ETCD_READ, look_answered);
}

static void
look_answered(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;

	if (!session_answered(r))
		return;
	session_saw_revision(r->revision);
	if (etcd_kv_count(r->body) == 0)
	{
		predecessor_gone();
		session_set_step(STEP_GRANT, 0);
		return;
	}
	if (!etcd_kv_at(r->body, 0, &kv))
	{
		session_refuse(STEP_LOOK, PROBLEM_CONFIG, NULL, "etcd's answer for \"%s\" makes no sense", session_node_key);
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

	if (own_session.old.create_revision != kv->create_revision)
	{
		/* another session than the one before: somebody is alive, so go on counting from its first sight */
		if (own_session.old.create_revision == 0)
		{
			own_session.old.since = dsched_boot_now();
			own_session.old.mod_revision = kv->mod_revision;
		}
		own_session.old.create_revision = kv->create_revision;
		own_session.old.lease = kv->lease;
	}
	own_session.old.resumable = readable && kv->lease != 0 &&
								info.system_identifier == GetSystemIdentifier();

	if (readable && (MUTANT(NO_PREDECESSOR_WAIT) || node_is_here(&info)))
	{
		dsched_cancel_session_runs();
		session_set_step(STEP_QUIET, 0);
	}
	else
		wait_for_predecessor(kv, readable ? &info : NULL, revision);
	codec_node_free(&info);
}

static void
predecessor_gone(void)
{
	if (own_session.old.watch != NULL)
		etcd_watch_stop(own_session.old.watch);
	memset(&own_session.old, 0, sizeof(own_session.old));
	if (cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_NAME_HELD ||
		cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_NAME_IN_USE)
		cluster_no_problem(PROBLEM_OF_SESSION);
	if (own_session.state == SESSION_REFUSED)
		session_set_state(SESSION_NONE);
}

/* A watch tells of its end within milliseconds; the re-reading is for watches that are lost, and sees renewals. */
static void
wait_for_predecessor(const EtcdKv *kv, const NodeInfo *info, int64 revision)
{
	EtcdWatchRange range = {.key = session_node_key};
	int64 waited = dsched_boot_now() - own_session.old.since;
	char where[KEYS_MAX_NAME + 32];

	if (own_session.old.watch == NULL)
	{
		own_session.old.watch = etcd_watch_start(cluster_client, &range, 1, revision + 1,
												 &predecessor_handler, NULL);
		cluster_need_memory(own_session.old.watch);
	}

	if (info != NULL && info->host[0] != '\0')
		snprintf(where, sizeof(where), "at %s:%d", info->host, info->port);
	else
		strlcpy(where, "at an unknown place", sizeof(where));
	if (waited >= 2 * own_session.ttl_us && kv->mod_revision != own_session.old.mod_revision)
	{
		session_refuse(STEP_LOOK, PROBLEM_NAME_IN_USE,
					   "Give each instance of a cluster a dsched.node_name of its own.",
					   "node name \"%s\" is in use by another living instance, %s", dsched_my_node(), where);
		return;
	}
	if (own_session.state != SESSION_REFUSED)
		cluster_problem(PROBLEM_OF_SESSION, PROBLEM_NAME_HELD,
						"It ends by itself when its lease expires. If it does not, another instance has the same "
						"dsched.node_name.",
						"waiting for the end of an earlier session of node \"%s\", %s", dsched_my_node(),
						where);
	session_set_step(STEP_LOOK, dsched_boot_now() + HELD_RECHECK_US);
}

static void
predecessor_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision)
{
	/* Whatever it was: the last word is what is there now. */
	if (n > 0 && events[n - 1].is_delete && own_session.step == STEP_LOOK)
		own_session.retry_at = 0;
}

static void
predecessor_watch_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	own_session.old.watch = NULL;
}

/* Its executors are silent and will stay so: the session that they know is not the current one. */
void
session_revoke_predecessor(void)
{
	EtcdTxn *txn;

	if (own_session.old.lease != 0)
	{
		own_session.request = etcd_lease_revoke(cluster_client, own_session.old.lease, cluster_timeout_ms(),
												revoke_answered, NULL);
		cluster_need_memory(own_session.request);
		return;
	}
	/* A node key without a lease is not of our making, but it does say that it is ours. */
	txn = etcd_txn_begin();
	etcd_txn_if_create(txn, session_node_key, own_session.old.create_revision);
	etcd_txn_delete(txn, session_node_key);
	session_ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, revoke_answered);
}

static void
revoke_answered(void *arg, const EtcdResponse *r)
{
	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
		own_session.request = NULL;
	else if (!session_answered(r))
		return;
	session_set_step(STEP_LOOK, 0);
}
