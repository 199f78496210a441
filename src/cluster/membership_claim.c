/*
 * membership_claim.c
 *	  Our member and owner keys: creating, claiming and deleting them, and what becomes of the answers.
 *
 * A PARTITION, as this instance holds it (HoldState) and as its scheduler sees it (PartitionPhase, shared.h)
 *
 *	  NONE		NONE		 not ours; if advice says so and there is no owner key, it is claimed
 *	  CLAIMING	NONE		 the claim is on its way
 *	  OWNED		OWNED, ACTIVE, RELEASING, RELEASED
 *							 the key is ours; the epoch is its create_revision
 *	  FENCED	whatever	 epoch cleared, runs cancelled; the key goes when no commit is under way
 *	  DELETING	whatever	 the deletion is on its way; then NONE, NONE
 *
 * A claim compares that there is no owner key, our node key's create_revision (the session) and our member key's, so
 * one that is applied late does nothing once either is over.  If it is applied late while they are not, the watch
 * tells of an owner key with our lease that we do not count on: it is taken, or deleted again.
 *
 * From FENCED there is no way back to OWNED under the same epoch and session: a deletion that seemed lost can still be
 * applied.  The deletion compares the create_revision, so it cannot hurt a later claim, and the session, so it cannot
 * hurt one that goes on with the key after a crash (session_resume.c).
 *
 * THE REQUESTS
 *
 * One request per database is in flight at a time, the most urgent first: deletions, leaving, joining, claims.  Each is
 * conditional, so it can be repeated; one that failed is sent again after a growing delay if it is then still wanted.
 * If a claim's answer was lost everything is read again.  If one is refused although there is no owner key, our node or
 * member key is not what we think: the session is checked and everything is read again.
 *
 * The order in which a right is taken away before its key is deleted is that of fence.c.  Names of owners are published
 * for people, under control_lock.
 */
#include "postgres.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/membership_internal.h"
#include "core/codec.h"
#include "mutant.h"
#include "settings.h"

#define RETRY_MAX_US INT64CONST(2000000)

/* Re-read for claims that were refused for no visible reason: not in a tight loop. */
#define REFUSED_CLAIM_PAUSE_US INT64CONST(200000)

static void publish_owner_of(int db, int partition, const EtcdKv *kv);
static void publish_owner(int db, int partition, const char *name, int64 create_revision);

static void gained(int db, int partition, int64 epoch);
static void lost(int db, int partition);
static void deleted(int db, int partition);

static void send_request(int db, GroupRequest doing, EtcdTxn *txn, EtcdCallback callback);
static bool request_ended(int db, const EtcdResponse *r);
static void join_group(int db);
static void join_answered(void *arg, const EtcdResponse *r);
static void tell_group(int db);
static void tell_answered(void *arg, const EtcdResponse *r);
static void leave_group(int db);
static void leave_answered(void *arg, const EtcdResponse *r);
static bool claim(int db);
static void claim_answered(void *arg, const EtcdResponse *r);
static bool delete_owners(int db);
static void delete_answered(void *arg, const EtcdResponse *r);

/* All names in our keys have been bounded before they came here. */
bool
membership_need_key(bool built)
{
	if (!built)
		elog(ERROR, "dsched: a name does not fit into a key of etcd");
	return built;
}

static void
owner_key(char *out, const Group *g, int partition)
{
	int place = place_of(partition);

	membership_need_key(keys_owner(out, dsched_cluster_name, g->name,
								   place == PLACE_IS_ANY ? KEYS_PLACE_ANY : g->places[place],
								   place_number(partition)));
}

/* ---- owner keys ------------------------------------------------------------------------------ */

/* What the owner key of a partition is at a revision; kv NULL: there is none. */
void
membership_apply_owner(int db, int partition, const EtcdKv *kv, int64 revision)
{
	Group *g = &membership_groups[db];
	Hold *hold;
	bool ours = kv != NULL && kv->lease == session_lease();

	if (partition < 0 || partition >= places_shared())
		return;
	hold = &g->holds[partition];
	if (revision <= hold->known)
		return;
	hold->known = revision;
	hold->owner = kv != NULL ? kv->create_revision : 0;
	if (kv != NULL)
	{
		hold->vacant_since = 0;
		/* whoever has it writes its account anew, perhaps as we can read it */
		if (!ours)
			hold->declined_until = 0;
	}
	else if (hold->vacant_since == 0)
		hold->vacant_since = dsched_boot_now();
	if (kv != NULL)
		publish_owner_of(db, partition, kv);
	else
		publish_owner(db, partition, "", 0);

	switch (hold->state)
	{
		case HOLD_NONE:
		case HOLD_CLAIMING:
			/* a claim whose answer is late or lost */
			if (ours)
				gained(db, partition, kv->create_revision);
			break;
		case HOLD_OWNED:
			if (hold->owner != hold->epoch)
				lost(db, partition);
			break;
		case HOLD_FENCED:
			if (hold->owner != hold->epoch)
				deleted(db, partition);
			break;
		case HOLD_DELETING:
			break;
	}
}

/* For people. Who it is stands in the value; that a key is ours is judged by its lease. */
static void
publish_owner_of(int db, int partition, const EtcdKv *kv)
{
	cJSON *value = etcd_json_parse(kv->value, kv->value_len);
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(value, "node"));

	publish_owner(db, partition, name != NULL ? name : "?", kv->create_revision);
	cJSON_Delete(value);
}

static void
publish_owner(int db, int partition, const char *name, int64 create_revision)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(slot->owner, name, sizeof(slot->owner));
	slot->owner_epoch = (uint64) create_revision;
	LWLockRelease(dsched_shared->control_lock);
}

/* ---- what is held ---------------------------------------------------------------------------- */

static void
gained(int db, int partition, int64 epoch)
{
	Group *g = &membership_groups[db];
	Hold *hold = &g->holds[partition];

	hold->epoch = hold->owner = epoch;
	hold->asked = hold->doubted = false;
	hold->ask_again = 0;
	hold->vacant_since = 0;
	/* one that was claimed as its owner, before another member was known of, is handed over to that */
	hold->adopted = hold->adopting && !g->advised[partition];
	publish_owner(db, partition, dsched_my_node(), epoch);
	if (g->state == GROUP_IN || g->state == GROUP_JOINING)
	{
		hold->state = HOLD_OWNED;
		fence_grant(db, partition, epoch);
	}
	else
		membership_fence(db, partition);
}

/* The key has vanished without our doing. */
static void
lost(int db, int partition)
{
	Hold *hold = &membership_groups[db].holds[partition];

	fence_partition(db, partition);
	hold->state = HOLD_NONE;
	hold->epoch = 0;
	fence_forget(db, partition);
	/* people hear of it from the scheduler, once for all partitions */
	ereport(DEBUG1, (errmsg_internal("dsched: the owner key of partition %d of database \"%s\" has vanished",
									 partition, membership_groups[db].name)));
}

void
membership_fence(int db, int partition)
{
	membership_groups[db].holds[partition].state = HOLD_FENCED;
	fence_partition(db, partition);
}

/* After the key is gone for certain. */
static void
deleted(int db, int partition)
{
	Hold *hold = &membership_groups[db].holds[partition];

	hold->state = HOLD_NONE;
	hold->epoch = 0;
	fence_forget(db, partition);
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Starts what is most urgent; false: there is nothing to do. */
bool
membership_next_request(int db, Group *g)
{
	if (delete_owners(db))
		return true;
	if (g->state == GROUP_LEAVING && g->member != 0)
		leave_group(db);
	else if (g->state == GROUP_JOINING && membership_watching())
		join_group(db);
	else if (g->state == GROUP_IN && g->lacks_written != g->lacks_version)
		tell_group(db);
	else if (g->state == GROUP_IN && membership_watching())
		return claim(db);
	else
		return false;
	return true;
}

static void
send_request(int db, GroupRequest doing, EtcdTxn *txn, EtcdCallback callback)
{
	Group *g = &membership_groups[db];

	g->doing = doing;
	g->request = etcd_call(cluster_client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT,
						   cluster_timeout_ms(), callback, (void *) (intptr_t) db);
	cluster_need_memory(g->request);
}

/* What all answers have in common; false: it failed, and will be sent again if it is still wanted. */
static bool
request_ended(int db, const EtcdResponse *r)
{
	Group *g = &membership_groups[db];

	g->request = NULL;
	g->doing = REQUEST_NONE;
	if (r->ok)
	{
		g->failures = 0;
		g->retry_at = 0;
		session_saw_revision(r->revision);
		return true;
	}
	g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
	/* an unknown lease: the heartbeat will tell for certain */
	if (r->grpc_code == ETCD_CODE_NOT_FOUND)
		session_check();
	return false;
}

/* {"format":1,"node":"...","session":n}, malloc'd: the value of member and owner keys. member: with the roles that we lack. */
static char *
presence_value(const Group *member)
{
	cJSON *object = cJSON_CreateObject();
	char *text;

	cJSON_AddNumberToObject(object, "format", CODEC_FORMAT);
	cJSON_AddStringToObject(object, "node", dsched_my_node());
	cJSON_AddNumberToObject(object, "session", (double) session_id());
	if (member != NULL)
		membership_add_lacks(member, object);
	text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	cluster_need_memory(text);
	return text;
}

static void
join_group(int db)
{
	Group *g = &membership_groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	char *value = presence_value(g);
	EtcdTxn *txn = etcd_txn_begin();

	membership_need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	membership_need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	etcd_txn_if_create(txn, member, 0);
	etcd_txn_if_create(txn, node, session_id());
	etcd_txn_put(txn, member, value, strlen(value), session_lease());
	etcd_txn_else_get(txn, member, NULL);
	free(value);
	g->lacks_sent = g->lacks_version;
	send_request(db, REQUEST_JOIN, txn, join_answered);
}

static void
join_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &membership_groups[db];
	EtcdKv kv;

	if (!request_ended(db, r))
		return;
	if (etcd_txn_succeeded(r->body))
	{
		g->lacks_written = g->lacks_sent;
		membership_own_key_is(g, r->revision, r->revision);
		return;
	}
	if (etcd_kv_at(etcd_txn_response(r->body, 0), 0, &kv))
	{
		/* ours if an earlier try was applied; else it ends with the lease that it has */
		if (kv.lease == session_lease())
			membership_own_key_is(g, kv.create_revision, r->revision);
		else
			g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
		etcd_kv_free(&kv);
		return;
	}
	session_check();
	g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
}

/* Our member key with the roles that we lack now. */
static void
tell_group(int db)
{
	Group *g = &membership_groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	char *value = presence_value(g);
	EtcdTxn *txn = etcd_txn_begin();

	membership_need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	membership_need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	etcd_txn_if_create(txn, member, g->member);
	etcd_txn_if_create(txn, node, session_id());
	etcd_txn_put(txn, member, value, strlen(value), session_lease());
	etcd_txn_else_get(txn, member, NULL);
	free(value);
	g->lacks_sent = g->lacks_version;
	send_request(db, REQUEST_TELL, txn, tell_answered);
}

/* Lost answers are no matter: the same is told again. */
static void
tell_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &membership_groups[db];

	if (!request_ended(db, r))
		return;
	if (etcd_txn_succeeded(r->body))
	{
		g->lacks_written = g->lacks_sent;
		g->advice_due = true;
		return;
	}
	session_check();
	g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
}

static void
leave_group(int db)
{
	Group *g = &membership_groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	EtcdTxn *txn = etcd_txn_begin();

	membership_need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	membership_need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	etcd_txn_if_create(txn, member, g->member);
	etcd_txn_if_create(txn, node, session_id());
	etcd_txn_delete(txn, member);
	etcd_txn_else_get(txn, member, NULL);
	send_request(db, REQUEST_LEAVE, txn, leave_answered);
}

/* It is gone now, or has been before; if it is still there our session is over, or somebody has deleted it and it was made again. */
static void
leave_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &membership_groups[db];
	int64 member = 0;
	EtcdKv kv;

	if (!request_ended(db, r))
		return;
	if (!etcd_txn_succeeded(r->body) && etcd_kv_at(etcd_txn_response(r->body, 0), 0, &kv))
	{
		if (kv.lease == session_lease())
			member = kv.create_revision;
		etcd_kv_free(&kv);
	}
	if (member != 0)
	{
		session_check();
		g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
	}
	membership_own_key_is(g, member, r->revision);
}

/* Adds one claim, which stands or falls by itself. */
static void
add_claim(EtcdTxn *txn, Group *g, int partition, const char *node, const char *member, const char *value)
{
	EtcdTxn *nested = etcd_txn_begin();
	char owner[KEYS_MAX_LEN];

	owner_key(owner, g, partition);
	etcd_txn_if_create(nested, owner, 0);
	if (!MUTANT(CLAIM_ANYWAY))
	{
		etcd_txn_if_create(nested, node, session_id());
		etcd_txn_if_create(nested, member, g->member);
	}
	etcd_txn_put(nested, owner, value, strlen(value), session_lease());
	etcd_txn_else_get(nested, owner, NULL);
	etcd_txn_nest(txn, nested);
}

bool
membership_wants(const Group *g, int partition, int64 now, int64 *next)
{
	const Hold *hold = &g->holds[partition];
	int64 at = hold->declined_until;

	if (hold->state != HOLD_NONE || hold->owner != 0)
		return false;
	if (!g->advised[partition])
	{
		if (!g->may_adopt[partition] || hold->vacant_since == 0)
			return false;
		at = Max(at, hold->vacant_since + VACANT_LEASES * session_ttl_us());
	}
	if (at > now && next != NULL)
		*next = cluster_earlier(*next, at);
	return at <= now;
}

static bool
claim(int db)
{
	Group *g = &membership_groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	int64 now = dsched_boot_now();
	char *value;
	EtcdTxn *txn;
	int p;

	g->nbatch = 0;
	for (p = 0; p < places_shared() && g->nbatch < BATCH; p++)
		if (membership_wants(g, p, now, NULL))
			g->batch[g->nbatch++] = p;
	if (g->nbatch == 0)
		return false;

	membership_need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	membership_need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	value = presence_value(NULL);
	txn = etcd_txn_begin();
	for (p = 0; p < g->nbatch; p++)
	{
		add_claim(txn, g, g->batch[p], node, member, value);
		g->holds[g->batch[p]].state = HOLD_CLAIMING;
		g->holds[g->batch[p]].adopting = !g->advised[g->batch[p]];
	}
	free(value);
	send_request(db, REQUEST_CLAIM, txn, claim_answered);
	return true;
}

/* What became of one claim; false: it was refused although there is no owner. */
static bool
claim_settled(int db, int partition, const cJSON *nested, int64 revision)
{
	Hold *hold = &membership_groups[db].holds[partition];
	EtcdKv kv;

	if (etcd_txn_succeeded(nested))
	{
		/* The watch may have been faster, with the key itself or even with its deletion by somebody. */
		if (hold->state == HOLD_CLAIMING && revision > hold->known)
		{
			hold->known = revision;
			gained(db, partition, revision);
		}
		else if (hold->state == HOLD_CLAIMING)
			hold->state = HOLD_NONE;
		return true;
	}
	if (etcd_kv_at(etcd_txn_response(nested, 0), 0, &kv))
	{
		membership_apply_owner(db, partition, &kv, revision);
		etcd_kv_free(&kv);
	}
	if (hold->state == HOLD_CLAIMING)
		hold->state = HOLD_NONE;
	return hold->owner != 0;
}

static void
claim_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &membership_groups[db];
	bool clear = true;
	int i;

	if (!request_ended(db, r))
	{
		/* A claim that may have been applied is found by reading, or told by the watch. */
		for (i = 0; i < g->nbatch; i++)
			if (g->holds[g->batch[i]].state == HOLD_CLAIMING)
				g->holds[g->batch[i]].state = HOLD_NONE;
		if (r->ambiguous)
			membership_read_again();
		return;
	}
	for (i = 0; i < g->nbatch; i++)
		clear &= claim_settled(db, g->batch[i], etcd_txn_response(r->body, i), r->revision);
	if (!clear)
	{
		/* Our node or member key is not what we think. */
		session_check();
		membership_read_again();
		g->retry_at = dsched_boot_now() + REFUSED_CLAIM_PAUSE_US;
	}
}

/* Those whose commits have ended; for the others an executor will wake us. */
static bool
delete_owners(int db)
{
	Group *g = &membership_groups[db];
	char node[KEYS_MAX_LEN];
	char owner[KEYS_MAX_LEN];
	EtcdTxn *txn;
	int i;
	int p;

	g->nbatch = 0;
	for (p = 0; p < places_shared() && g->nbatch < BATCH; p++)
		if (g->holds[p].state == HOLD_FENCED && fence_quiet(db, p))
			g->batch[g->nbatch++] = p;
	if (g->nbatch == 0)
		return false;

	membership_need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	txn = etcd_txn_begin();
	for (i = 0; i < g->nbatch; i++)
	{
		EtcdTxn *nested = etcd_txn_begin();

		owner_key(owner, g, g->batch[i]);
		etcd_txn_if_create(nested, owner, g->holds[g->batch[i]].epoch);
		etcd_txn_if_create(nested, node, session_id());
		etcd_txn_delete(nested, owner);
		etcd_txn_else_get(nested, owner, NULL);
		etcd_txn_nest(txn, nested);
		g->holds[g->batch[i]].state = HOLD_DELETING;
	}
	send_request(db, REQUEST_DELETE, txn, delete_answered);
	return true;
}

static void
delete_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &membership_groups[db];
	bool done = request_ended(db, r);
	int i;

	for (i = 0; i < g->nbatch; i++)
	{
		int p = g->batch[i];
		Hold *hold = &g->holds[p];
		const cJSON *nested;
		EtcdKv kv;

		if (hold->state != HOLD_DELETING)
			continue;
		if (!done)
		{
			hold->state = HOLD_FENCED;
			continue;
		}
		deleted(db, p);
		nested = etcd_txn_response(r->body, i);
		if (!etcd_txn_succeeded(nested) && etcd_kv_at(etcd_txn_response(nested, 0), 0, &kv))
		{
			/* it is another's, or our session is over */
			if (kv.lease == session_lease())
				session_check();
			membership_apply_owner(db, p, &kv, r->revision);
			etcd_kv_free(&kv);
		}
		else
			membership_apply_owner(db, p, NULL, r->revision);
	}
}
