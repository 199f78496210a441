/*
 * membership_watch.c
 *	  What is known of the others: nodes, members and owners, read from etcd and followed by a watch.
 *
 * One transaction reads all node keys and, for each database here, its member and owner keys; one
 * watch follows them from the next revision on.  When the watch is lost, or another database is to be followed, or an
 * answer was lost, all is read again.  A watch can also be deaf without an error: our own heartbeats write
 * below a watched prefix, and if it has not told of the last one by the next, it is started anew.
 *
 * Watch, reads, and the answers to our own transactions tell of the same keys in any order.  So each owner key has
 * a revision up to which it is known, and whatever speaks of an earlier time is ignored (membership_apply_owner()); the
 * same holds for our member keys.
 *
 * Until the watch runs (membership_watching()) what is known may be old: no member key is created, nothing is claimed, and
 * nothing is handed over.  What we own stays owned; that is a matter of the lease.
 *
 * Any of it can end the session, and with it membership, from within a callback: membership_active says so.
 *
 * The list of nodes is published for people, under control_lock.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/membership_internal.h"
#include "cluster/node.h"
#include "core/codec.h"
#include "etcd/watch.h"
#include "settings.h"

/* Databases whose keys are read in one nested transaction, two ranges each. */
#define READ_GROUPS 30

#define WATCH_RETRY_MAX_US INT64CONST(5000000)

typedef enum FeedState
{
	FEED_NEEDED,
	FEED_READING,
	FEED_WATCHING
} FeedState;

/* Which database a range of the watch is about; the first range is that of the node keys. */
typedef struct WatchedRange
{
	int db; /* -1: node keys */
	Oid dboid;
	bool owners; /* else members */
} WatchedRange;

typedef struct Feed
{
	FeedState state;
	EtcdRequest *request;
	EtcdWatch *watch;
	int failures;
	int64 retry_at;
	int64 heard;	/* highest revision in an answer of the watch */
	int64 expected; /* of the last heartbeat, which the watch should have told of by the next */
	int nranges;
	WatchedRange *ranges;
} Feed;

static Feed feed;
static WatchedRange *validated = NULL; /* the databases whose owner keys the heartbeat reads */
static int nvalidated = 0;
static MemberInfo nodes[DSCHED_MAX_NODES];
static int nnodes = 0;
static bool nodes_changed = false;

static void watch_events(void *arg, int range_index, const EtcdEvent *events, int n,
						 int64 header_revision);
static void watch_progress(void *arg, int64 header_revision);
static void watch_lost(void *arg, EtcdWatchLoss why, const char *message);

static void start_reading(void);
static void add_group_reads(EtcdTxn *txn, bool members);
static void read_answered(void *arg, const EtcdResponse *r);
static void start_watching(int64 revision);
static const cJSON *group_reads(const cJSON *body, int first, int nth);

static void apply_nodes(const cJSON *range, int64 revision);
static void apply_node(const EtcdKv *kv, bool live);
static void remove_node(const char *name);
static void apply_members(Group *g, const cJSON *range, int64 revision);
static void apply_member(Group *g, const char *name, const EtcdKv *kv, int64 revision);
static bool apply_owners(int db, const cJSON *range, int64 revision);

static const EtcdWatchHandler watch_handler = {
	.events = watch_events,
	.progress = watch_progress,
	.lost = watch_lost,
};

/* ---- life ------------------------------------------------------------------------------------ */

void
membership_watch_init(void)
{
	feed.ranges = MemoryContextAllocZero(TopMemoryContext,
										 sizeof(WatchedRange) * (2 * dsched_shared->max_databases + 1));
	validated = MemoryContextAllocZero(TopMemoryContext, sizeof(WatchedRange) * dsched_shared->max_databases);
}

void
membership_watch_begin(void)
{
	nnodes = 0;
	nodes_changed = true;
	membership_read_again();
	feed.failures = 0;
	feed.retry_at = 0;
}

/* After membership_watch_stop(). */
void
membership_watch_end(void)
{
	cluster_no_problem(PROBLEM_OF_WATCH);
	nnodes = 0;
	nodes_changed = true;
	membership_publish_nodes();
}

bool
membership_is_lowest(void)
{
	int i;

	if (feed.state != FEED_WATCHING)
		return false;
	for (i = 0; i < nnodes; i++)
		if (strcmp(nodes[i].name, dsched_my_node()) < 0)
			return false;
	return true;
}

bool
membership_watching(void)
{
	return feed.state == FEED_WATCHING;
}

void
membership_watch_heartbeat(int64 revision)
{
	if (feed.state == FEED_WATCHING && feed.heard < feed.expected)
	{
		ereport(LOG, (errmsg("dsched: etcd's watch has fallen silent, starting it again")));
		etcd_watch_give_up(feed.watch);
		feed.watch = NULL;
		membership_read_again();
	}
	feed.expected = feed.state == FEED_WATCHING ? revision : 0;
}

/* ---- reading and watching -------------------------------------------------------------------- */

void
membership_watch_stop(void)
{
	if (feed.request != NULL)
		etcd_cancel(feed.request);
	feed.request = NULL;
	if (feed.watch != NULL)
		etcd_watch_stop(feed.watch);
	feed.watch = NULL;
	feed.state = FEED_NEEDED;
}

/* What is known may be out of date: nothing new is claimed before all was read again. */
void
membership_read_again(void)
{
	membership_watch_stop();
	feed.expected = 0;
}

int64
membership_watch_advance(int64 now)
{
	if (feed.state != FEED_NEEDED || !session_usable())
		return DSCHED_NEVER;
	if (now < feed.retry_at)
		return feed.retry_at;
	start_reading();
	return DSCHED_NEVER;
}

/*
 * Adds the reads of all databases, as nested transactions of READ_GROUPS databases each; with the member keys, or
 * the owner keys alone.  group_reads() finds the answers again by the same count.
 */
static void
add_group_reads(EtcdTxn *txn, bool members)
{
	char key[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];
	EtcdTxn *nested = NULL;
	int n = 0;
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		if (!membership_groups[db].used)
			continue;
		if (nested == NULL)
			nested = etcd_txn_begin();
		if (members)
		{
			membership_need_key(keys_member_prefix(key, dsched_cluster_name, membership_groups[db].name));
			membership_need_key(keys_prefix_end(key, end));
			etcd_txn_get(nested, key, end);
		}
		membership_need_key(keys_owner_prefix(key, dsched_cluster_name, membership_groups[db].name));
		membership_need_key(keys_prefix_end(key, end));
		etcd_txn_get(nested, key, end);
		if (++n % READ_GROUPS == 0)
		{
			etcd_txn_nest(txn, nested);
			nested = NULL;
		}
	}
	if (nested != NULL)
		etcd_txn_nest(txn, nested);
}

/* The nested answer that holds the reads of the n-th database. */
static const cJSON *
group_reads(const cJSON *body, int first, int nth)
{
	return etcd_txn_response(body, first + nth / READ_GROUPS);
}

static void
start_reading(void)
{
	char key[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];
	EtcdTxn *txn = etcd_txn_begin();
	int db;

	membership_need_key(keys_node_prefix(key, dsched_cluster_name));
	membership_need_key(keys_prefix_end(key, end));
	etcd_txn_get(txn, key, end);
	add_group_reads(txn, true);

	/* what is read now is what will be watched, whatever comes in between */
	feed.nranges = 1;
	feed.ranges[0].db = -1;
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (membership_groups[db].used)
		{
			WatchedRange *range = &feed.ranges[feed.nranges];

			range[0].db = range[1].db = db;
			range[0].dboid = range[1].dboid = membership_groups[db].dboid;
			range[0].owners = false;
			range[1].owners = true;
			feed.nranges += 2;
		}

	feed.state = FEED_READING;
	feed.request = etcd_call(cluster_client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_READ,
							 cluster_timeout_ms(), read_answered, NULL);
	cluster_need_memory(feed.request);
}

/* The database that a watched range is about, if it is still the same; else NULL. */
static Group *
range_group(int index)
{
	const WatchedRange *range = &feed.ranges[index];
	Group *g;

	if (range->db < 0)
		return NULL;
	g = &membership_groups[range->db];
	return g->used && g->dboid == range->dboid ? g : NULL;
}

static void
read_answered(void *arg, const EtcdResponse *r)
{
	int i;

	feed.request = NULL;
	feed.state = FEED_NEEDED;
	if (!r->ok)
	{
		feed.retry_at = cluster_retry_at(++feed.failures, WATCH_RETRY_MAX_US);
		return;
	}
	session_saw_revision(r->revision);
	apply_nodes(etcd_txn_response(r->body, 0), r->revision);
	for (i = 1; membership_active && i < feed.nranges; i += 2)
	{
		int nth = (i - 1) / 2;
		const cJSON *reads = group_reads(r->body, 1, nth);
		Group *g = range_group(i);
		int at = nth % READ_GROUPS * 2;

		if (g == NULL)
			continue;
		apply_members(g, etcd_txn_response(reads, at), r->revision);
		if (!apply_owners(feed.ranges[i].db, etcd_txn_response(reads, at + 1), r->revision))
		{
			feed.retry_at = cluster_retry_at(++feed.failures, WATCH_RETRY_MAX_US);
			return;
		}
	}
	if (membership_active)
		start_watching(r->revision);
}

static void
start_watching(int64 revision)
{
	EtcdWatchRange *ranges = palloc0(sizeof(EtcdWatchRange) * feed.nranges);
	char *keys = palloc(2 * KEYS_MAX_LEN * feed.nranges);
	int i;

	for (i = 0; i < feed.nranges; i++)
	{
		char *key = keys + 2 * i * KEYS_MAX_LEN;
		char *end = key + KEYS_MAX_LEN;
		const WatchedRange *range = &feed.ranges[i];

		if (range->db < 0)
			membership_need_key(keys_node_prefix(key, dsched_cluster_name));
		else if (range->owners)
			membership_need_key(keys_owner_prefix(key, dsched_cluster_name, membership_groups[range->db].name));
		else
			membership_need_key(keys_member_prefix(key, dsched_cluster_name, membership_groups[range->db].name));
		membership_need_key(keys_prefix_end(key, end));
		ranges[i].key = key;
		ranges[i].range_end = end;
	}
	feed.watch = etcd_watch_start(cluster_client, ranges, feed.nranges, revision + 1, &watch_handler, NULL);
	cluster_need_memory(feed.watch);
	feed.state = FEED_WATCHING;
	feed.heard = revision;
	feed.expected = 0;
	pfree(keys);
	pfree(ranges);
}

/* A healthy watch hears our own heartbeats, so this is also how it is found out to be deaf. */
static void
heard_revision(int64 revision)
{
	feed.heard = Max(feed.heard, revision);
	session_saw_revision(revision);
	feed.failures = 0;
	cluster_no_problem(PROBLEM_OF_WATCH);
}

static void
watch_progress(void *arg, int64 header_revision)
{
	heard_revision(header_revision);
}

static void
watch_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision)
{
	Group *g = range_group(range_index);
	int i;

	if (feed.watch == NULL)
		return;
	heard_revision(header_revision);
	for (i = 0; membership_active && i < n; i++)
	{
		const EtcdEvent *event = &events[i];
		const EtcdKv *kv = event->is_delete ? NULL : &event->kv;
		KeyParts parts;

		if (!keys_parse(dsched_cluster_name, event->kv.key, &parts))
			continue;
		if (parts.kind == KEY_NODE && range_index == 0)
		{
			if (kv != NULL)
				apply_node(kv, true);
			else if (strcmp(parts.node, dsched_my_node()) == 0 && event->kv.mod_revision > session_id())
				session_lost("its node key has been deleted");
			else
				remove_node(parts.node);
		}
		else if (parts.kind == KEY_MEMBER && g != NULL)
			apply_member(g, parts.node, kv, event->kv.mod_revision);
		else if (parts.kind == KEY_OWNER && g != NULL)
			membership_apply_owner(feed.ranges[range_index].db, membership_partition(g, parts.place, parts.partition), kv,
								   event->kv.mod_revision);
	}
}

/* Losing a watch costs delay only. The first time in a row it is not worth a word. */
static void
watch_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	feed.watch = NULL;
	feed.state = FEED_NEEDED;
	feed.expected = 0;
	feed.failures++;
	feed.retry_at = feed.failures > 1 ? cluster_retry_at(feed.failures - 1, WATCH_RETRY_MAX_US) : 0;
	if (feed.failures > 2)
		cluster_problem(PROBLEM_OF_WATCH, PROBLEM_WATCH,
						"Partitions are not moved until it can. dsched tries again by itself.",
						"etcd's keys cannot be watched: %s", message ? message : "connection lost");
}

/* A database may come or go before the answer, so what was asked is remembered. */
void
membership_add_reads(EtcdTxn *txn)
{
	int db;

	nvalidated = 0;
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (membership_groups[db].used)
		{
			validated[nvalidated].db = db;
			validated[nvalidated++].dboid = membership_groups[db].dboid;
		}
	add_group_reads(txn, false);
}

bool
membership_validate(const cJSON *body, int first, int64 revision)
{
	int i;

	for (i = 0; membership_active && i < nvalidated; i++)
	{
		const cJSON *range = etcd_txn_response(group_reads(body, first, i), i % READ_GROUPS);
		Group *g = &membership_groups[validated[i].db];

		if (g->used && g->dboid == validated[i].dboid && !apply_owners(validated[i].db, range, revision))
			return false;
	}
	return true;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void
apply_nodes(const cJSON *range, int64 revision)
{
	const cJSON *item;
	EtcdKv kv;

	nnodes = 0;
	nodes_changed = true;
	membership_labels_changed();
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		if (!etcd_kv_read(item, &kv))
			continue;
		apply_node(&kv, false);
		etcd_kv_free(&kv);
	}
}

static MemberInfo *
find_node(const char *name, bool create)
{
	int i;

	for (i = 0; i < nnodes; i++)
		if (strcmp(nodes[i].name, name) == 0)
			return &nodes[i];
	if (!create || nnodes == DSCHED_MAX_NODES || strlen(name) >= DSCHED_MAX_NODE_NAME)
		return NULL;
	memset(&nodes[nnodes], 0, sizeof(MemberInfo));
	strlcpy(nodes[nnodes].name, name, DSCHED_MAX_NODE_NAME);
	return &nodes[nnodes++];
}

/* live: it has just been written, so its clock can be compared with ours. */
static void
apply_node(const EtcdKv *kv, bool live)
{
	KeyParts parts;
	NodeInfo info;
	MemberInfo *node;

	if (!keys_parse(dsched_cluster_name, kv->key, &parts) || parts.kind != KEY_NODE)
		return;
	node = find_node(parts.node, true);
	if (node == NULL)
		return;
	if (codec_node_decode(kv->value, kv->value_len, &info, NULL, 0))
	{
		char labels[sizeof(node->labels)];

		strlcpy(labels, node->labels, sizeof(labels));
		if (node->session == 0)
			membership_labels_changed();
		node_to_member(&info, kv->create_revision, node);
		if (strcmp(labels, node->labels) != 0)
			membership_labels_changed();
		if (live)
			node->skew_ms = (info.wall_clock - dsched_wall_now()) / 1000;
	}
	codec_node_free(&info);
	nodes_changed = true;
}

static void
remove_node(const char *name)
{
	MemberInfo *node = find_node(name, false);

	if (node == NULL)
		return;
	*node = nodes[--nnodes];
	nodes_changed = true;
	membership_labels_changed();
}

const char *
membership_labels(const char *node)
{
	const MemberInfo *info = find_node(node, false);

	return info != NULL && info->session != 0 ? info->labels : NULL;
}

void
membership_publish_nodes(void)
{
	if (!nodes_changed)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	memcpy(dsched_shared->members, nodes, sizeof(MemberInfo) * nnodes);
	dsched_shared->nmembers = nnodes;
	LWLockRelease(dsched_shared->control_lock);
	nodes_changed = false;
}

/* ---- members --------------------------------------------------------------------------------- */

static void
apply_members(Group *g, const cJSON *range, int64 revision)
{
	const cJSON *item;
	bool own_there = false;
	KeyParts parts;
	EtcdKv kv;

	g->nothers = 0;
	g->advice_due = true;
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		if (!etcd_kv_read(item, &kv))
			continue;
		if (keys_parse(dsched_cluster_name, kv.key, &parts) && parts.kind == KEY_MEMBER)
		{
			own_there |= strcmp(parts.node, dsched_my_node()) == 0;
			apply_member(g, parts.node, &kv, revision);
		}
		etcd_kv_free(&kv);
	}
	if (!own_there)
		membership_own_key_is(g, 0, revision);
}

/* kv NULL: it has been deleted. */
static void
apply_member(Group *g, const char *name, const EtcdKv *kv, int64 revision)
{
	int i;

	if (strcmp(name, dsched_my_node()) == 0)
	{
		membership_own_key_is(g, kv != NULL && kv->lease == session_lease() ? kv->create_revision : 0, revision);
		return;
	}
	if (strlen(name) >= DSCHED_MAX_NODE_NAME)
		return;
	/* every member has a lease; a key that somebody has put without one would stand for partitions that nobody takes */
	if (kv != NULL && kv->lease == 0)
		kv = NULL;
	for (i = 0; i < g->nothers && strcmp(g->others[i], name) != 0; i++)
		;
	if (kv != NULL && i == g->nothers)
	{
		/* one place is for ourselves */
		if (g->nothers == DSCHED_MAX_NODES - 1)
		{
			cluster_problem(PROBLEM_OF_WATCH, PROBLEM_TOO_MANY_MEMBERS, NULL,
							"database \"%s\" has more than %d members", g->name, DSCHED_MAX_NODES);
			return;
		}
		strlcpy(g->others[g->nothers], name, DSCHED_MAX_NODE_NAME);
		membership_read_lacks(kv, &g->others_lack[g->nothers++]);
	}
	else if (kv == NULL && i < g->nothers)
	{
		g->nothers--;
		if (i < g->nothers)
		{
			strlcpy(g->others[i], g->others[g->nothers], DSCHED_MAX_NODE_NAME);
			g->others_lack[i] = g->others_lack[g->nothers];
		}
	}
	else if (kv != NULL)
		membership_read_lacks(kv, &g->others_lack[i]);
	else
		return;
	g->advice_due = true;
}

/* ---- owners ---------------------------------------------------------------------------------- */

/* A whole range: what is not there does not exist at that revision.  False: it is no answer at all. */
static bool
apply_owners(int db, const cJSON *range, int64 revision)
{
	bool there[DSCHED_MAX_PARTITIONS] = {false};
	const Group *g = &membership_groups[db];
	const cJSON *item;
	KeyParts parts;
	EtcdKv kv;
	int p;

	if (!cJSON_IsObject(range))
		return false;
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		if (!etcd_kv_read(item, &kv))
			return false;
		if (keys_parse(dsched_cluster_name, kv.key, &parts) && parts.kind == KEY_OWNER &&
			(p = membership_partition(g, parts.place, parts.partition)) >= 0)
		{
			there[p] = true;
			membership_apply_owner(db, p, &kv, revision);
		}
		etcd_kv_free(&kv);
	}
	for (p = 0; p < places_shared(); p++)
		if (!there[p])
			membership_apply_owner(db, p, NULL, revision);
	return true;
}
