/*
 * session_resume.c
 *	  Going on under the lease of a former session of this very data directory.
 *
 * The steps UNNAME and KEYS of a session (session.c), between QUIET and NODE.  PostgreSQL has restarted after the crash
 * of a process, or the coordinator has failed: the lease, the member keys and the owner keys are still there, nobody
 * else owns anything of ours, and nobody needs to.  A revocation would give all partitions to others, which would have
 * to hand them back: two moves, of which the second waits for runs to end.
 *
 * WHY IT IS SAFE
 *
 * QUIET has seen to it that no process of this data directory can commit under the former session.  The owner keys
 * were ours all the while, as the lease has not ended, so the epochs hold.  What must not hold is the session:
 *
 *	  UNNAME	deletes the node key, comparing its create_revision.  From here on nothing that the former session has
 *				sent and that is still on its way can be applied: all that it does to member and owner keys compares that
 *				key, and a revocation of the lease is sent only when there is none (session_revoke())
 *	  KEYS		asks etcd for the keys of the lease.  Each must be a member or owner key of a database that has a
 *				scheduler here, and of a partition that there is, as nobody would give up another; else the lease is
 *				revoked after all
 *	  NODE		creates the node key anew, under the old lease: another create_revision, so another session
 *
 * The keys are those that the leader's memory has, so the answer has to come from a leader not older than the one that
 * deleted the node key.  Whoever dies between UNNAME and NODE leaves a lease that nothing names: it ends by itself.
 * The first heartbeat proves the lease as for any session, and before it nothing is published.
 *
 * A lease of another duration than dsched.lease_ttl (it was changed, or etcd had raised it) is revoked.
 */
#include "postgres.h"

#include "cluster/cluster.h"
#include "cluster/session_internal.h"
#include "core/base64.h"
#include "settings.h"

static void unnamed(void *arg, const EtcdResponse *r);
static void keys_answered(void *arg, const EtcdResponse *r);
static bool keep_key(const char *encoded);
static bool keep_keys(const cJSON *keys);

void
session_unname(void)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_if_create(txn, session_node_key, own_session.old.create_revision);
	etcd_txn_delete(txn, session_node_key);
	etcd_txn_else_get(txn, session_node_key, NULL);
	session_ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, unnamed);
}

/* If there is no key, an earlier try was applied, or the lease has ended, which the next step tells. */
static void
unnamed(void *arg, const EtcdResponse *r)
{
	if (!session_answered(r))
		return;
	session_saw_revision(r->revision);
	own_session.old.term = r->raft_term;
	if (!etcd_txn_succeeded(r->body) && etcd_kv_count(etcd_txn_response(r->body, 0)) > 0)
		session_set_step(STEP_LOOK, 0);
	else
		session_set_step(STEP_KEYS, 0);
}

void
session_ask_keys(void)
{
	own_session.request = etcd_lease_keys(cluster_client, own_session.old.lease, cluster_timeout_ms(), keys_answered, NULL);
	cluster_need_memory(own_session.request);
}

static void
keys_answered(void *arg, const EtcdResponse *r)
{
	int64 ttl;

	membership_keep_none();
	if (!r->ok && r->grpc_code == ETCD_CODE_NOT_FOUND)
	{
		own_session.request = NULL;
		session_set_step(STEP_LOOK, 0);
		return;
	}
	if (!session_answered(r))
		return;
	ttl = etcd_json_int64(r->body, "TTL");
	if (ttl < 0)
	{
		/* it has ended, and its keys with it */
		session_set_step(STEP_LOOK, 0);
		return;
	}
	if (r->raft_term < own_session.old.term || etcd_json_int64(r->body, "grantedTTL") != dsched_lease_ttl ||
		!keep_keys(cJSON_GetObjectItemCaseSensitive(r->body, "keys")))
	{
		membership_keep_none();
		session_set_step(STEP_REVOKE, 0);
		return;
	}
	own_session.lease = own_session.old.lease;
	own_session.ttl_us = dsched_lease_ttl * USECS_PER_SEC;
	memset(&own_session.old, 0, sizeof(own_session.old));
	ereport(LOG, (errmsg("dsched: node \"%s\" goes on with the lease of its former session", dsched_my_node())));
	session_set_step(STEP_NODE, 0);
}

/* Is this key, as etcd writes it, one that we can go on with? */
static bool
keep_key(const char *encoded)
{
	char key[KEYS_MAX_LEN + 3];
	size_t len = encoded != NULL ? strlen(encoded) : 0;
	KeyParts parts;

	if (len == 0 || BASE64_DECODED_MAX(len) >= sizeof(key) || !base64_decode(encoded, len, key, &len))
		return false;
	key[len] = '\0';
	if (strlen(key) != len || !keys_parse(dsched_cluster_name, key, &parts))
		return false;
	if (parts.kind == KEY_OWNER && strcmp(parts.place, KEYS_PLACE_ANY) == 0 && parts.partition >= dsched_partitions)
		return false;
	if (parts.kind != KEY_OWNER && (parts.kind != KEY_MEMBER || strcmp(parts.node, dsched_my_node()) != 0))
		return false;
	return membership_keep(parts.database);
}

static bool
keep_keys(const cJSON *keys)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, keys)
	{
		if (!keep_key(cJSON_GetStringValue(item)))
			return false;
	}
	return true;
}
