/*
 * membership.c
 *	  Who is in the cluster, who should own which partition, and how this instance claims and releases.
 *
 * Runs in the coordinator, between membership_begin() and membership_end() of one session.
 *
 * WHAT IS KNOWN
 *
 * One transaction reads all node keys and, for each database here, its member and owner keys; one
 * watch follows them from the next revision on.  When the watch is lost, or another database is to be followed, or an
 * answer was lost, all is read again.  A watch can also be deaf without an error: our own heartbeats write
 * below a watched prefix, and if it has not told of the last one by the next, it is started anew.
 *
 * Watch, reads, and the answers to our own transactions tell of the same keys in any order.  So each owner key has
 * a revision up to which it is known, and whatever speaks of an earlier time is ignored.
 *
 * WHO SHOULD OWN WHAT
 *
 * ownership_assign() over the names of the members; every instance computes the same.  It is advice, evaluated
 * whenever members or owner keys change.  What makes an owner is its key alone.
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
 * From FENCED there is no way back to OWNED under the same epoch: a deletion that seemed lost can still be applied.
 * The deletion compares the create_revision, so it cannot hurt a later claim.
 *
 * RELEASING
 *
 * An owned partition that advice gives to another member is handed over: RELEASING asks the scheduler to let its
 * runs end and to write the last state, RELEASED says that it has; then the key is deleted and the other claims it.
 * A scheduler that cannot drain it in dsched.drain_timeout goes back to ACTIVE and is asked again after that time.
 *
 * A DATABASE (Group) takes part (member key) while its scheduler is up, healthy, and not held by its identity.  A
 * scheduler that is restarted within a few seconds finds its partitions again, as OWNED under the same epochs, so
 * that it takes them over.  When it stays away, does not answer for two TTLs, or the clock cannot be trusted, the
 * database leaves: first the member key goes, so that advice counts without us, then the partitions, drained
 * where somebody is there to drain them, fenced else.
 *
 * One request per database is in flight at a time.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/node.h"
#include "core/codec.h"
#include "core/keys.h"
#include "core/ownership.h"
#include "etcd/watch.h"
#include "settings.h"

/* Claims or deletions in one transaction: etcd takes 128 operations over all levels of nesting. */
#define BATCH 64

/* Databases whose keys are read in one nested transaction, two ranges each. */
#define READ_GROUPS 30

#define RESTART_GRACE_US INT64CONST(5000000)
#define DRAIN_SLACK_US INT64CONST(1000000)
#define STAY_AWAY_DRAIN_US INT64CONST(5000000)
#define RETRY_MAX_US INT64CONST(2000000)
#define WATCH_RETRY_MAX_US INT64CONST(5000000)

/* Re-read for claims that were refused for no visible reason: not in a tight loop. */
#define REFUSED_CLAIM_PAUSE_US INT64CONST(200000)
#define DOUBT_PAUSE_US INT64CONST(1000000)

typedef enum HoldState
{
	HOLD_NONE,
	HOLD_CLAIMING,
	HOLD_OWNED,
	HOLD_FENCED,
	HOLD_DELETING
} HoldState;

typedef struct Hold
{
	HoldState state;
	int64 epoch;	/* create_revision of our owner key, from OWNED to DELETING */
	int64 owner;	/* create_revision of the owner key, whoever has it; 0: none */
	int64 known;	/* revision up to which we know */
	bool asked;		/* the scheduler was asked to release it */
	bool doubted;	/* the scheduler has given it up; reading again */
	int64 ask_again; /* boot time before which it is not asked again */
} Hold;

typedef enum GroupState
{
	GROUP_OUT,	   /* no member key; only followed */
	GROUP_JOINING, /* to create the member key; partitions may be held */
	GROUP_IN,
	GROUP_LEAVING
} GroupState;

/* What is done by the request in flight. */
typedef enum GroupRequest
{
	REQUEST_NONE,
	REQUEST_JOIN,
	REQUEST_LEAVE,
	REQUEST_CLAIM,
	REQUEST_DELETE
} GroupRequest;

/* A database of this instance; its index is that of its DatabaseSlot. */
typedef struct Group
{
	bool used;
	Oid dboid;
	char name[NAMEDATALEN];
	GroupState state;
	pid_t scheduler; /* the process that the partitions were given to; 0: it is gone */

	int64 unwanted_since; /* boot time; 0: wanted */
	int64 drain_until;	  /* LEAVING: boot time until which partitions may drain */

	bool wedged;
	int64 asked_at; /* boot time since which an answer is due */

	int64 member;		/* create_revision of our member key; 0: none */
	int64 member_known; /* revision up to which we know that */
	int nothers;
	char others[DSCHED_MAX_NODES][DSCHED_MAX_NODE_NAME]; /* the other members */
	bool advice_due;
	bool advised[DSCHED_MAX_PARTITIONS]; /* to us */

	EtcdRequest *request;
	GroupRequest doing;
	int nbatch;
	int batch[BATCH]; /* the partitions that the request is about */
	int failures;
	int64 retry_at;
	Hold holds[DSCHED_MAX_PARTITIONS];
} Group;

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

/* What a turn sees of a DatabaseSlot. */
typedef struct SlotView
{
	bool present; /* the database that the group is about */
	bool running;
	bool wanted;
	pid_t pid;
	int stay_away;
	PartitionPhase phases[DSCHED_MAX_PARTITIONS];
} SlotView;

static Group *groups = NULL; /* dsched.max_databases of them */
static Feed feed;
static WatchedRange *validated = NULL; /* the databases whose owner keys the heartbeat reads */
static int nvalidated = 0;
static bool active = false;
static MemberInfo nodes[DSCHED_MAX_NODES];
static int nnodes = 0;
static bool nodes_changed = false;

static const char wedged_problem[] = "the scheduler of this database does not answer";

static void watch_events(void *arg, int range_index, const EtcdEvent *events, int n,
						 int64 header_revision);
static void watch_progress(void *arg, int64 header_revision);
static void watch_lost(void *arg, EtcdWatchLoss why, const char *message);

static const EtcdWatchHandler watch_handler = {
	.events = watch_events,
	.progress = watch_progress,
	.lost = watch_lost,
};

static void need_memory(const void *pointer);
static bool need_key(bool built);

static int64 feed_advance(int64 now);
static void feed_again(void);
static void feed_stop(void);
static void start_reading(void);
static void add_group_reads(EtcdTxn *txn, bool members);
static void read_answered(void *arg, const EtcdResponse *r);
static void start_watching(int64 revision);
static const cJSON *group_reads(const cJSON *body, int first, int nth);

static void apply_nodes(const cJSON *range, int64 revision);
static void apply_node(const EtcdKv *kv, bool live);
static void remove_node(const char *name);
static void publish_nodes(void);
static void apply_members(Group *g, const cJSON *range, int64 revision);
static void apply_member(Group *g, const char *name, const EtcdKv *kv, int64 revision);
static void own_member_is(Group *g, int64 create_revision, int64 revision);
static bool apply_owners(int db, const cJSON *range, int64 revision);
static void apply_owner(int db, int partition, const EtcdKv *kv, int64 revision);
static void publish_owner_of(int db, int partition, const EtcdKv *kv);
static void publish_owner(int db, int partition, const char *name, int64 create_revision);

static void follow(int db);
static void forget_group(Group *g);
static void look(int db, const Group *g, SlotView *view);
static int64 group_advance(int db, int64 now);
static int64 decide(int db, Group *g, const SlotView *view, int64 now);
static void leave(int db, Group *g, int64 drain_until);
static void publish_membership(int db, bool member);
static void offer_again(int db, Group *g, const SlotView *view);
static int64 hand_over(int db, Group *g, const SlotView *view, int64 now);
static int64 leave_partitions(int db, Group *g, const SlotView *view, int64 now);
static void ask_release(int db, Group *g, int partition);
static void take_advice(Group *g);

static void gained(int db, int partition, int64 epoch);
static void lost(int db, int partition);
static void fence_hold(int db, int partition);
static void deleted(int db, int partition);

static bool next_request(int db, Group *g);
static void send_request(int db, GroupRequest doing, EtcdTxn *txn, EtcdCallback callback);
static bool request_ended(int db, const EtcdResponse *r);
static void join_group(int db);
static void join_answered(void *arg, const EtcdResponse *r);
static void leave_group(int db);
static void leave_answered(void *arg, const EtcdResponse *r);
static bool claim(int db);
static void claim_answered(void *arg, const EtcdResponse *r);
static bool delete_owners(int db);
static void delete_answered(void *arg, const EtcdResponse *r);

/* ---- life ------------------------------------------------------------------------------------ */

static void
need_memory(const void *pointer)
{
	if (pointer == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						errdetail("Failed on a request to etcd.")));
}

/* All names in our keys have been bounded before they came here. */
static bool
need_key(bool built)
{
	if (!built)
		elog(ERROR, "dsched: a name does not fit into a key of etcd");
	return built;
}

void
membership_init(void)
{
	groups = MemoryContextAllocExtended(TopMemoryContext, sizeof(Group) * dsched_shared->max_databases,
										MCXT_ALLOC_ZERO | MCXT_ALLOC_HUGE);
	feed.ranges = MemoryContextAllocZero(TopMemoryContext,
										 sizeof(WatchedRange) * (2 * dsched_shared->max_databases + 1));
	validated = MemoryContextAllocZero(TopMemoryContext, sizeof(WatchedRange) * dsched_shared->max_databases);
	active = false;
}

void
membership_begin(void)
{
	int db;

	Assert(!active);
	active = true;
	for (db = 0; db < dsched_shared->max_databases; db++)
		memset(&groups[db], 0, sizeof(Group));
	nnodes = 0;
	nodes_changed = true;
	feed_again();
	feed.failures = 0;
	feed.retry_at = 0;
}

/* The rights were taken by fence_session() already: this is the rest. */
void
membership_end(void)
{
	int db;

	active = false;
	feed_stop();
	for (db = 0; groups != NULL && db < dsched_shared->max_databases; db++)
	{
		if (groups[db].wedged)
			dsched_set_problem(db, NULL, NULL);
		forget_group(&groups[db]);
	}
	fence_forget_all();
	cluster_no_problem(PROBLEM_OF_WATCH);
	nnodes = 0;
	publish_nodes();
}

void
membership_stop(void)
{
	int db;

	active = false;
	feed_stop();
	for (db = 0; db < dsched_shared->max_databases; db++)
		forget_group(&groups[db]);
}

int64
membership_advance(int64 now)
{
	int64 next = DSCHED_NEVER;
	int db;

	if (!active)
		return next;
	for (db = 0; db < dsched_shared->max_databases; db++)
		follow(db);
	next = feed_advance(now);
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (groups[db].used)
			next = cluster_earlier(next, group_advance(db, now));
	if (nodes_changed)
		publish_nodes();
	return next;
}

bool
membership_is_fencing(void)
{
	int db;
	int p;

	/* while etcd is away nothing can be deleted anyway */
	if (!active || !session_usable())
		return false;
	for (db = 0; db < dsched_shared->max_databases; db++)
		for (p = 0; groups[db].used && p < dsched_partitions; p++)
			if (groups[db].holds[p].state == HOLD_FENCED)
				return true;
	return false;
}

/* An idle scheduler makes no progress that could be seen, so it is asked. */
void
membership_heartbeat(int64 now, int64 revision)
{
	int db;

	if (feed.state == FEED_WATCHING && feed.heard < feed.expected)
	{
		ereport(LOG, (errmsg("dsched: etcd's watch has fallen silent, starting it again")));
		feed_again();
	}
	feed.expected = feed.state == FEED_WATCHING ? revision : 0;

	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		DatabaseSlot *slot = &dsched_shared->databases[db];
		Group *g = &groups[db];

		if (!g->used || g->scheduler == 0)
			continue;
		if (pg_atomic_read_u32(&slot->answered) == pg_atomic_read_u32(&slot->asked))
		{
			g->asked_at = now;
			pg_atomic_fetch_add_u32(&slot->asked, 1);
			if (g->wedged)
				dsched_set_problem(db, NULL, NULL);
			g->wedged = false;
		}
		else if (!g->wedged && now - g->asked_at > 2 * session_ttl_us())
		{
			g->wedged = true;
			dsched_set_problem(db, wedged_problem,
							   "Its partitions go to other instances until it does. See what it waits for in "
							   "pg_stat_activity; terminating it starts another one.");
			ereport(LOG, (errmsg("dsched: the scheduler of database \"%s\" does not answer, its partitions are "
								 "given up",
								 g->name)));
		}
		dsched_wake_scheduler(db);
	}
}

/* ---- reading and watching -------------------------------------------------------------------- */

static void
feed_stop(void)
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
static void
feed_again(void)
{
	feed_stop();
	feed.expected = 0;
}

static int64
feed_advance(int64 now)
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
		if (!groups[db].used)
			continue;
		if (nested == NULL)
			nested = etcd_txn_begin();
		if (members)
		{
			need_key(keys_member_prefix(key, dsched_cluster_name, groups[db].name));
			need_key(keys_prefix_end(key, end));
			etcd_txn_get(nested, key, end);
		}
		need_key(keys_owner_prefix(key, dsched_cluster_name, groups[db].name));
		need_key(keys_prefix_end(key, end));
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

	need_key(keys_node_prefix(key, dsched_cluster_name));
	need_key(keys_prefix_end(key, end));
	etcd_txn_get(txn, key, end);
	add_group_reads(txn, true);

	/* what is read now is what will be watched, whatever comes in between */
	feed.nranges = 1;
	feed.ranges[0].db = -1;
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (groups[db].used)
		{
			WatchedRange *range = &feed.ranges[feed.nranges];

			range[0].db = range[1].db = db;
			range[0].dboid = range[1].dboid = groups[db].dboid;
			range[0].owners = false;
			range[1].owners = true;
			feed.nranges += 2;
		}

	feed.state = FEED_READING;
	feed.request = etcd_call(cluster_client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_READ,
							 cluster_timeout_ms(), read_answered, NULL);
	need_memory(feed.request);
}

/* The database that a watched range is about, if it is still the same; else NULL. */
static Group *
range_group(int index)
{
	const WatchedRange *range = &feed.ranges[index];
	Group *g;

	if (range->db < 0)
		return NULL;
	g = &groups[range->db];
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
	for (i = 1; active && i < feed.nranges; i += 2)
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
	if (active)
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
			need_key(keys_node_prefix(key, dsched_cluster_name));
		else if (range->owners)
			need_key(keys_owner_prefix(key, dsched_cluster_name, groups[range->db].name));
		else
			need_key(keys_member_prefix(key, dsched_cluster_name, groups[range->db].name));
		need_key(keys_prefix_end(key, end));
		ranges[i].key = key;
		ranges[i].range_end = end;
	}
	feed.watch = etcd_watch_start(cluster_client, ranges, feed.nranges, revision + 1, &watch_handler, NULL);
	need_memory(feed.watch);
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
	for (i = 0; active && i < n; i++)
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
			apply_owner(feed.ranges[range_index].db, parts.partition, kv, event->kv.mod_revision);
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
		if (groups[db].used)
		{
			validated[nvalidated].db = db;
			validated[nvalidated++].dboid = groups[db].dboid;
		}
	add_group_reads(txn, false);
}

bool
membership_validate(const cJSON *body, int first, int64 revision)
{
	int i;

	for (i = 0; active && i < nvalidated; i++)
	{
		const cJSON *range = etcd_txn_response(group_reads(body, first, i), i % READ_GROUPS);
		Group *g = &groups[validated[i].db];

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
		node_to_member(&info, kv->create_revision, node);
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
}

static void
publish_nodes(void)
{
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
		own_member_is(g, 0, revision);
}

/* kv NULL: it has been deleted. */
static void
apply_member(Group *g, const char *name, const EtcdKv *kv, int64 revision)
{
	int i;

	if (strcmp(name, dsched_my_node()) == 0)
	{
		own_member_is(g, kv != NULL && kv->lease == session_lease() ? kv->create_revision : 0, revision);
		return;
	}
	if (strlen(name) >= DSCHED_MAX_NODE_NAME)
		return;
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
		strlcpy(g->others[g->nothers++], name, DSCHED_MAX_NODE_NAME);
	}
	else if (kv == NULL && i < g->nothers)
	{
		g->nothers--;
		if (i < g->nothers)
			strlcpy(g->others[i], g->others[g->nothers], DSCHED_MAX_NODE_NAME);
	}
	else
		return;
	g->advice_due = true;
}

/* If somebody has deleted it, it is made again; the partitions are not touched by that. */
static void
own_member_is(Group *g, int64 create_revision, int64 revision)
{
	if (revision <= g->member_known)
		return;
	g->member_known = revision;
	if (g->member == create_revision)
		return;
	g->member = create_revision;
	g->advice_due = true;
	publish_membership(g - groups, create_revision != 0);
	if (g->state == GROUP_IN && create_revision == 0)
		g->state = GROUP_JOINING;
	else if (g->state == GROUP_JOINING && create_revision != 0)
		g->state = GROUP_IN;
}

static void
publish_membership(int db, bool member)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->databases[db].member = member;
	LWLockRelease(dsched_shared->control_lock);
}

/* ---- owners ---------------------------------------------------------------------------------- */

/* A whole range: what is not there does not exist at that revision.  False: it is no answer at all. */
static bool
apply_owners(int db, const cJSON *range, int64 revision)
{
	bool there[DSCHED_MAX_PARTITIONS] = {false};
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
			parts.partition < dsched_partitions)
		{
			there[parts.partition] = true;
			apply_owner(db, parts.partition, &kv, revision);
		}
		etcd_kv_free(&kv);
	}
	for (p = 0; p < dsched_partitions; p++)
		if (!there[p])
			apply_owner(db, p, NULL, revision);
	return true;
}

/* What the owner key of a partition is at a revision; kv NULL: there is none. */
static void
apply_owner(int db, int partition, const EtcdKv *kv, int64 revision)
{
	Group *g = &groups[db];
	Hold *hold;
	bool ours = kv != NULL && kv->lease == session_lease();

	if (partition < 0 || partition >= dsched_partitions)
		return;
	hold = &g->holds[partition];
	if (revision <= hold->known)
		return;
	hold->known = revision;
	hold->owner = kv != NULL ? kv->create_revision : 0;
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
	Group *g = &groups[db];
	Hold *hold = &g->holds[partition];

	hold->epoch = hold->owner = epoch;
	hold->asked = hold->doubted = false;
	hold->ask_again = 0;
	publish_owner(db, partition, dsched_my_node(), epoch);
	if (g->state == GROUP_IN || g->state == GROUP_JOINING)
	{
		hold->state = HOLD_OWNED;
		fence_grant(db, partition, epoch);
	}
	else
		fence_hold(db, partition);
}

/* The key has vanished without our doing. */
static void
lost(int db, int partition)
{
	Hold *hold = &groups[db].holds[partition];

	fence_partition(db, partition);
	hold->state = HOLD_NONE;
	hold->epoch = 0;
	fence_forget(db, partition);
	/* people hear of it from the scheduler, once for all partitions */
	ereport(DEBUG1, (errmsg_internal("dsched: the owner key of partition %d of database \"%s\" has vanished",
									 partition, groups[db].name)));
}

static void
fence_hold(int db, int partition)
{
	groups[db].holds[partition].state = HOLD_FENCED;
	fence_partition(db, partition);
}

/* After the key is gone for certain. */
static void
deleted(int db, int partition)
{
	Hold *hold = &groups[db].holds[partition];

	hold->state = HOLD_NONE;
	hold->epoch = 0;
	fence_forget(db, partition);
}

/* ---- a database ------------------------------------------------------------------------------ */

/* Begins to follow a database whose scheduler is up. */
static void
follow(int db)
{
	const DatabaseSlot *slot = &dsched_shared->databases[db];
	Group *g = &groups[db];

	if (g->used)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	if (slot->state == SCHEDULER_RUNNING)
	{
		memset(g, 0, sizeof(Group));
		g->used = true;
		g->dboid = slot->dboid;
		strlcpy(g->name, slot->dbname, sizeof(g->name));
	}
	LWLockRelease(dsched_shared->control_lock);
	if (g->used)
		feed_again();
}

static void
forget_group(Group *g)
{
	if (g->request != NULL)
		etcd_cancel(g->request);
	memset(g, 0, sizeof(Group));
}

static void
look(int db, const Group *g, SlotView *view)
{
	const DatabaseSlot *slot = &dsched_shared->databases[db];
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	view->present = slot->state != SCHEDULER_NONE && slot->state != SCHEDULER_ABSENT &&
					slot->dboid == g->dboid && strcmp(slot->dbname, g->name) == 0;
	view->running = view->present && slot->state == SCHEDULER_RUNNING && slot->scheduler_pid != 0;
	view->pid = view->running ? slot->scheduler_pid : 0;
	view->wanted = view->running && slot->member_wanted &&
				   (slot->incarnation[0] == '\0' ||
					strcmp(slot->incarnation, dsched_shared->incarnation) == 0);
	view->stay_away = slot->stay_away;
	for (p = 0; p < dsched_partitions; p++)
		view->phases[p] = slot->partitions[p].phase;
	LWLockRelease(dsched_shared->control_lock);
}

static int64
group_advance(int db, int64 now)
{
	Group *g = &groups[db];
	SlotView view;
	int64 next;

	look(db, g, &view);
	next = decide(db, g, &view, now);
	if (!g->used)
		return next;
	if (g->scheduler != view.pid)
	{
		/* after a gap without a scheduler they were offered when it began */
		if (g->scheduler != 0)
		{
			offer_again(db, g, &view);
			look(db, g, &view);
		}
		g->asked_at = now;
		g->scheduler = view.pid;
	}
	if (g->advice_due)
		take_advice(g);
	if (g->state == GROUP_LEAVING)
		next = cluster_earlier(next, leave_partitions(db, g, &view, now));
	else
		next = cluster_earlier(next, hand_over(db, g, &view, now));

	if (g->request == NULL && session_usable())
	{
		if (now < g->retry_at)
			next = cluster_earlier(next, g->retry_at);
		else
			(void) next_request(db, g);
	}
	return next;
}

static bool
holds_any(const Group *g)
{
	int p;

	for (p = 0; p < dsched_partitions; p++)
		if (g->holds[p].state != HOLD_NONE)
			return true;
	return false;
}

/* Takes part or not. */
static int64
decide(int db, Group *g, const SlotView *view, int64 now)
{
	bool untrusted = session_clock_untrusted(now);

	switch (g->state)
	{
		case GROUP_OUT:
			if (!view->present)
				forget_group(g);
			else if (view->wanted && !g->wedged && !untrusted && view->stay_away == 0)
			{
				g->state = GROUP_JOINING;
				g->unwanted_since = 0;
			}
			break;

		case GROUP_JOINING:
		case GROUP_IN:
			if (!view->present || g->wedged)
				leave(db, g, 0);
			else if (view->stay_away > 0)
				leave(db, g, now + STAY_AWAY_DRAIN_US);
			else if (untrusted)
				leave(db, g, now + dsched_drain_timeout * INT64CONST(1000) + DRAIN_SLACK_US);
			else if (view->wanted)
				g->unwanted_since = 0;
			else if (g->unwanted_since == 0)
			{
				g->unwanted_since = now;
				return now + RESTART_GRACE_US;
			}
			else if (now < g->unwanted_since + RESTART_GRACE_US)
				return g->unwanted_since + RESTART_GRACE_US;
			else
				leave(db, g,
					  view->running ? now + dsched_drain_timeout * INT64CONST(1000) + DRAIN_SLACK_US : 0);
			break;

		case GROUP_LEAVING:
			if (!view->present || g->wedged)
				g->drain_until = 0;
			if (g->request == NULL && g->member == 0 && !holds_any(g))
				g->state = GROUP_OUT;
			if (g->state == GROUP_OUT)
				return now;
			break;
	}
	return DSCHED_NEVER;
}

static void
leave(int db, Group *g, int64 drain_until)
{
	g->state = GROUP_LEAVING;
	g->drain_until = drain_until;
	g->unwanted_since = 0;
}

/*
 * The scheduler is another process than the one that the partitions were given to (or none: then they wait for the
 * next). It knows nothing of them and has to take them over.  What the former one has drained is drained.
 */
static void
offer_again(int db, Group *g, const SlotView *view)
{
	int p;

	for (p = 0; p < dsched_partitions; p++)
	{
		Hold *hold = &g->holds[p];

		if (hold->state != HOLD_OWNED || view->phases[p] == PARTITION_RELEASED)
			continue;
		hold->asked = false;
		hold->ask_again = 0;
		fence_grant(db, p, hold->epoch);
	}
}

static void
take_advice(Group *g)
{
	const char *names[DSCHED_MAX_NODES];
	int owner[DSCHED_MAX_PARTITIONS];
	int n = 0;
	int p;

	g->advice_due = false;
	for (; n < g->nothers; n++)
		names[n] = g->others[n];
	if (g->member != 0)
		names[n++] = dsched_my_node();
	ownership_assign(names, n, dsched_partitions, owner);
	for (p = 0; p < dsched_partitions; p++)
		g->advised[p] = g->member != 0 && owner[p] == n - 1;
}

static void
ask_release(int db, Group *g, int partition)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (slot->phase == PARTITION_OWNED || slot->phase == PARTITION_ACTIVE)
		slot->phase = PARTITION_RELEASING;
	LWLockRelease(dsched_shared->control_lock);
	g->holds[partition].asked = true;
	dsched_wake_scheduler(db);
}

/*
 * The scheduler has given the partition up, as etcd refused its writes: if a new reading shows that the key is still
 * ours, it is offered again.
 */
static int64
settle_doubt(int db, int partition, int64 now)
{
	Hold *hold = &groups[db].holds[partition];

	if (!hold->doubted)
	{
		if (now < hold->ask_again)
			return hold->ask_again;
		hold->doubted = true;
		feed_again();
		return now;
	}
	if (feed.state == FEED_WATCHING)
	{
		hold->doubted = false;
		hold->ask_again = now + DOUBT_PAUSE_US;
		fence_grant(db, partition, hold->epoch);
	}
	return DSCHED_NEVER;
}

/* Follows the advice for one owned partition; what is to be fenced is. */
static int64
move_partition(int db, Group *g, int partition, PartitionPhase phase, bool away, int64 now)
{
	Hold *hold = &g->holds[partition];

	if (phase == PARTITION_RELEASED)
	{
		fence_hold(db, partition);
		return DSCHED_NEVER;
	}
	if (phase == PARTITION_RELEASING)
		return DSCHED_NEVER;
	if (phase == PARTITION_NONE)
		return settle_doubt(db, partition, now);
	if (hold->asked)
	{
		/* it could not drain it in time */
		hold->asked = false;
		hold->ask_again = now + dsched_drain_timeout * INT64CONST(1000);
	}
	if (!away)
		return DSCHED_NEVER;
	if (now < hold->ask_again)
		return hold->ask_again;
	ask_release(db, g, partition);
	return DSCHED_NEVER;
}

/* Without a member key of ours, or while what is known may be old, nothing is given away. */
static int64
hand_over(int db, Group *g, const SlotView *view, int64 now)
{
	bool advice = g->state == GROUP_IN && feed.state == FEED_WATCHING;
	int64 next = DSCHED_NEVER;
	int p;

	for (p = 0; p < dsched_partitions; p++)
		if (g->holds[p].state == HOLD_OWNED)
			next = cluster_earlier(
				next, move_partition(db, g, p, view->phases[p], advice && !g->advised[p], now));
	return next;
}

static int64
leave_partitions(int db, Group *g, const SlotView *view, int64 now)
{
	bool drain = view->running && now < g->drain_until;
	int64 next = DSCHED_NEVER;
	int p;

	for (p = 0; p < dsched_partitions; p++)
	{
		if (g->holds[p].state != HOLD_OWNED)
			continue;
		if (!drain)
			fence_hold(db, p);
		else
		{
			next = cluster_earlier(next, g->drain_until);
			next = cluster_earlier(next, move_partition(db, g, p, view->phases[p], true, now));
		}
	}
	return next;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Starts what is most urgent; false: there is nothing to do. */
static bool
next_request(int db, Group *g)
{
	if (delete_owners(db))
		return true;
	if (g->state == GROUP_LEAVING && g->member != 0)
		leave_group(db);
	else if (g->state == GROUP_JOINING && feed.state == FEED_WATCHING)
		join_group(db);
	else if (g->state == GROUP_IN && feed.state == FEED_WATCHING)
		return claim(db);
	else
		return false;
	return true;
}

static void
send_request(int db, GroupRequest doing, EtcdTxn *txn, EtcdCallback callback)
{
	Group *g = &groups[db];

	g->doing = doing;
	g->request = etcd_call(cluster_client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT,
						   cluster_timeout_ms(), callback, (void *) (intptr_t) db);
	need_memory(g->request);
}

/* What all answers have in common; false: it failed, and will be sent again if it is still wanted. */
static bool
request_ended(int db, const EtcdResponse *r)
{
	Group *g = &groups[db];

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

/* {"format":1,"node":"...","session":n}, malloc'd: the value of member and owner keys. */
static char *
presence_value(void)
{
	cJSON *object = cJSON_CreateObject();
	char *text;

	cJSON_AddNumberToObject(object, "format", CODEC_FORMAT);
	cJSON_AddStringToObject(object, "node", dsched_my_node());
	cJSON_AddNumberToObject(object, "session", (double) session_id());
	text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	need_memory(text);
	return text;
}

static void
join_group(int db)
{
	Group *g = &groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	char *value = presence_value();
	EtcdTxn *txn = etcd_txn_begin();

	need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	etcd_txn_if_create(txn, member, 0);
	etcd_txn_if_create(txn, node, session_id());
	etcd_txn_put(txn, member, value, strlen(value), session_lease());
	etcd_txn_else_get(txn, member, NULL);
	free(value);
	send_request(db, REQUEST_JOIN, txn, join_answered);
}

static void
join_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;
	Group *g = &groups[db];
	EtcdKv kv;

	if (!request_ended(db, r))
		return;
	if (etcd_txn_succeeded(r->body))
	{
		own_member_is(g, r->revision, r->revision);
		return;
	}
	if (etcd_kv_at(etcd_txn_response(r->body, 0), 0, &kv))
	{
		/* ours if an earlier try was applied; else it ends with the lease that it has */
		if (kv.lease == session_lease())
			own_member_is(g, kv.create_revision, r->revision);
		else
			g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
		etcd_kv_free(&kv);
		return;
	}
	session_check();
	g->retry_at = cluster_retry_at(++g->failures, RETRY_MAX_US);
}

static void
leave_group(int db)
{
	Group *g = &groups[db];
	char member[KEYS_MAX_LEN];
	EtcdTxn *txn = etcd_txn_begin();

	need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	etcd_txn_if_create(txn, member, g->member);
	etcd_txn_delete(txn, member);
	send_request(db, REQUEST_LEAVE, txn, leave_answered);
}

/* Whether it was deleted now or earlier, the key that we made is gone. */
static void
leave_answered(void *arg, const EtcdResponse *r)
{
	int db = (int) (intptr_t) arg;

	if (request_ended(db, r))
		own_member_is(&groups[db], 0, r->revision);
}

/* Adds one claim, which stands or falls by itself. */
static void
add_claim(EtcdTxn *txn, Group *g, int partition, const char *node, const char *member, const char *value)
{
	EtcdTxn *nested = etcd_txn_begin();
	char owner[KEYS_MAX_LEN];

	need_key(keys_owner(owner, dsched_cluster_name, g->name, partition));
	etcd_txn_if_create(nested, owner, 0);
	etcd_txn_if_create(nested, node, session_id());
	etcd_txn_if_create(nested, member, g->member);
	etcd_txn_put(nested, owner, value, strlen(value), session_lease());
	etcd_txn_else_get(nested, owner, NULL);
	etcd_txn_nest(txn, nested);
}

static bool
claim(int db)
{
	Group *g = &groups[db];
	char node[KEYS_MAX_LEN];
	char member[KEYS_MAX_LEN];
	char *value;
	EtcdTxn *txn;
	int p;

	g->nbatch = 0;
	for (p = 0; p < dsched_partitions && g->nbatch < BATCH; p++)
		if (g->holds[p].state == HOLD_NONE && g->holds[p].owner == 0 && g->advised[p])
			g->batch[g->nbatch++] = p;
	if (g->nbatch == 0)
		return false;

	need_key(keys_node(node, dsched_cluster_name, dsched_my_node()));
	need_key(keys_member(member, dsched_cluster_name, g->name, dsched_my_node()));
	value = presence_value();
	txn = etcd_txn_begin();
	for (p = 0; p < g->nbatch; p++)
	{
		add_claim(txn, g, g->batch[p], node, member, value);
		g->holds[g->batch[p]].state = HOLD_CLAIMING;
	}
	free(value);
	send_request(db, REQUEST_CLAIM, txn, claim_answered);
	return true;
}

/* What became of one claim; false: it was refused although there is no owner. */
static bool
claim_settled(int db, int partition, const cJSON *nested, int64 revision)
{
	Hold *hold = &groups[db].holds[partition];
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
		apply_owner(db, partition, &kv, revision);
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
	Group *g = &groups[db];
	bool clear = true;
	int i;

	if (!request_ended(db, r))
	{
		/* A claim that may have been applied is found by reading, or told by the watch. */
		for (i = 0; i < g->nbatch; i++)
			if (g->holds[g->batch[i]].state == HOLD_CLAIMING)
				g->holds[g->batch[i]].state = HOLD_NONE;
		if (r->ambiguous)
			feed_again();
		return;
	}
	for (i = 0; i < g->nbatch; i++)
		clear &= claim_settled(db, g->batch[i], etcd_txn_response(r->body, i), r->revision);
	if (!clear)
	{
		/* Our node or member key is not what we think. */
		session_check();
		feed_again();
		g->retry_at = dsched_boot_now() + REFUSED_CLAIM_PAUSE_US;
	}
}

/* Those whose commits have ended; for the others an executor will wake us. */
static bool
delete_owners(int db)
{
	Group *g = &groups[db];
	char owner[KEYS_MAX_LEN];
	EtcdTxn *txn;
	int i;
	int p;

	g->nbatch = 0;
	for (p = 0; p < dsched_partitions && g->nbatch < BATCH; p++)
		if (g->holds[p].state == HOLD_FENCED && fence_quiet(db, p))
			g->batch[g->nbatch++] = p;
	if (g->nbatch == 0)
		return false;

	txn = etcd_txn_begin();
	for (i = 0; i < g->nbatch; i++)
	{
		EtcdTxn *nested = etcd_txn_begin();

		need_key(keys_owner(owner, dsched_cluster_name, g->name, g->batch[i]));
		etcd_txn_if_create(nested, owner, g->holds[g->batch[i]].epoch);
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
	Group *g = &groups[db];
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
			apply_owner(db, p, &kv, r->revision);
			etcd_kv_free(&kv);
		}
		else
			apply_owner(db, p, NULL, r->revision);
	}
}
