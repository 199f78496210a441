/*
 * follow.c
 *	  Following etcd: which etcd it is, full compares, the watch. What is heard is taken in by intake.c.
 *
 * THE STEPS
 *
 *	  WAITING -> CHECKING -> (JOINING) -> (LISTING -> LISTING_TRIGGERS) -> LISTING_QUEUES -> LISTING_COMMANDS -> CONFIRMING
 *			-> CONNECTING -> WATCHING
 *
 * and from anywhere back to WAITING when a request fails or the watch is lost, or to HELD, which is the end.
 *
 * CHECKING reads the key config.  JOINING marks every row of dsched.job as new to the cluster, once in the life
 * of a database in a cluster.  LISTING is a full compare: all definitions as of one revision, page by page; it
 * is made when there is no revision to resume from, when etcd has compacted the history since, or when rows
 * with unpublished changes hide what was published before them.  Else the watch goes on where the last one,
 * perhaps that of a former process, ended.  Queues are few: all of them are read each time (queues.c).  So are commands, what owners
 * of partitions ask about runs that were handed over to them alive (schedule/reports.c, remote.c).
 *
 * WHICH ETCD
 *
 * An etcd that was wiped, or restored from a backup, or is another one, must never make us delete or overwrite
 * anything.  Before each watch and each full compare the incarnation in config is compared with the one that
 * this database has joined, and the revision of each linearizable answer with the highest one that was known
 * when the question was sent.  What does not fit ends in HELD: nothing is followed, published or run until
 * somebody decides.  Rows that a full compare does not find are deleted only after config was read once more
 * behind it.
 *
 * A config that names our incarnation among its former ones is that of a cluster that was recovered
 * (cluster/recover.c): READING_FORMER and CARRYING carry the rows over into it (join.c), and the process begins anew.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "clock.h"
#include "compat.h"
#include "etcd/watch.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define REQUEST_TIMEOUT_MS 5000
#define RETRY_BASE_US INT64CONST(200000)
#define RETRY_MAX_US INT64CONST(2000000)
/* The coordinator has not come to etcd yet; it is asked in shared memory, which is cheap. */
#define COORDINATOR_BASE_US INT64CONST(50000)
#define COORDINATOR_MAX_US INT64CONST(1000000)
/* Without a word for so long the watch is taken for deaf; longer after each restart that did not help. */
#define DEAF_US INT64CONST(3000000)
#define DEAF_MAX_DOUBLINGS 5
#define SAVE_INTERVAL_US INT64CONST(5000000)
/* Rows that somebody has locked are carried over after a while. */
#define CARRY_AGAIN_US INT64CONST(20000)

/* Pages of a full compare: the number of keys follows their size. */
#define PAGE_FIRST 200
#define PAGE_MAX 5000
#define PAGE_BYTES (4 * 1024 * 1024)

typedef enum FollowStep
{
	FOLLOW_OFF,					/* standalone, or not started */
	FOLLOW_WAITING,				/* nothing is under way */
	FOLLOW_CHECKING,			/* config is being read */
	FOLLOW_JOINING,				/* rows are being marked as new to the cluster */
	FOLLOW_READING_FORMER,		/* what etcd says of this database before the cluster was recovered */
	FOLLOW_CARRYING,			/* rows are being carried over from there */
	FOLLOW_LISTING,				/* definitions are being read */
	FOLLOW_LISTING_TRIGGERS,
	FOLLOW_LISTING_QUEUES,
	FOLLOW_LISTING_COMMANDS,
	FOLLOW_CONFIRMING,			/* config is being read again */
	FOLLOW_CONNECTING,			/* a watch is being created */
	FOLLOW_WATCHING,
	FOLLOW_HELD					/* etcd is not the one that we know */
} FollowStep;

/* What the watch delivers. */
typedef enum WatchedRange
{
	RANGE_DEFINITIONS,
	RANGE_TRIGGERS,
	RANGE_QUEUES,
	RANGE_COMMANDS,
	RANGE_OUTCOMES,
	RANGE_NODE					/* only there to be heard */
} WatchedRange;

static struct
{
	FollowStep	step;
	Retry		retry;
	Retry		coordinator;
	EtcdRequest *request;
	EtcdWatch  *watch;
	bool		compare;		/* the next connection begins with a full compare */
	bool		complained;		/* of this outage */
	char	   *config;			/* value of the config key; malloc'd */
	int64		config_revision;	/* of the answer that had the config of a recovered cluster */
	ConfigInfo	next;			/* that config */
	bool		carried;		/* all rows are carried over, and this process ends: see keep_local_account() */
	bool		has_former;
	FormerInfo	former;			/* what is said of this database there */
	uint64		held_session;	/* HELD: the session then */
	char		judged[40];		/* HELD: the incarnation that the coordinator had found */
	size_t		config_len;
	int64		highest;		/* revision that etcd has certainly reached */
	int64		floor;			/* the same, when the request was sent */
	bool		went_back;		/* an answer was from before that */
	int64		revision;		/* all definitions up to it have been delivered */
	int64		trigger_next;	/* triggers are followed from here on */
	int64		queue_next;		/* queues are followed from here on */
	int64		expected;		/* a revision that somebody saw in jobrev */
	int64		expected_since;
	int			restarts;		/* because it was deaf, since it was last heard */
	int64		beat;			/* the heartbeat of this instance that was heard last, by its revision */
	int64		beat_expected;	/* that has to be heard */
	int64		beat_expected_since;
	int64		saved_highest;
	int64		saved_applied;
	int64		saved_beat;
	int64		saved_at;		/* revision when save_sometimes() did */
	Retry		saving;
	/* a full compare */
	int64		listing_at;		/* its revision; 0: not known yet */
	char	   *listed;			/* the key after which the next page begins; palloc'd in scheduler.context */
	int			page;			/* keys in a page */
	char		problem[DSCHED_PROBLEM_LEN];	/* HELD */
} follow;

static char config_key[KEYS_MAX_LEN];
static char definition_key[KEYS_MAX_LEN];
static char definition_end[KEYS_MAX_LEN];
static char trigger_key[KEYS_MAX_LEN];
static char trigger_end[KEYS_MAX_LEN];
static char queue_key[KEYS_MAX_LEN];
static char queue_end[KEYS_MAX_LEN];
static char node_key[KEYS_MAX_LEN];
static char command_key[KEYS_MAX_LEN];
static char command_end[KEYS_MAX_LEN];
static char outcome_key[KEYS_MAX_LEN];
static char outcome_end[KEYS_MAX_LEN];


static void disconnect(void);
static void try_again(const char *why);
static void hold(const char *problem);
static void hold_older(const char *problem);
static bool has_joined(void);
static void ask(cJSON *body, EtcdCallback callback);
static void config_read(void *arg, const EtcdResponse *response);
static void join(void);
static void proceed(void);
static void list_definitions(void);
static void definitions_listed(void *arg, const EtcdResponse *response);
static void list_triggers(void);
static void triggers_listed(void *arg, const EtcdResponse *response);
static void list_queues(void);
static void queues_listed(void *arg, const EtcdResponse *response);
static void list_commands(void);
static void commands_listed(void *arg, const EtcdResponse *response);
static void config_confirmed(void *arg, const EtcdResponse *response);
static void finish_compare(void);
static void begin_carrying(const ConfigInfo *config);
static bool coordinator_incarnation(char *incarnation, size_t size);
static void connect_watch(void);
static void watch_started(void *arg, int64 header_revision);
static void watch_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision);
static void watch_progress(void *arg, int64 header_revision);
static void give_up_watch(void);
static void watch_lost(void *arg, EtcdWatchLoss why, const char *message);

static const EtcdWatchHandler watch_handler = {watch_started, watch_events, watch_progress, watch_lost};

/* ---- asked by others ---------------------------------------------------------------------------- */

int64
sync_revision(void)
{
	return follow.revision;
}

int64
sync_table_revision(void)
{
	if (scheduler.etcd == NULL)
		return 0;
	if (follow.carried)
		return CODEC_MAX_INT;
	return Min(sync_applied_revision(follow.revision), sync_lowest_broken() - 1);
}

bool
sync_following(void)
{
	return follow.step == FOLLOW_WATCHING;
}

bool
sync_follow_held(void)
{
	return follow.step == FOLLOW_HELD;
}

const char *
sync_config_value(size_t *len)
{
	*len = follow.config_len;
	return follow.config;
}

int64
sync_highest_revision(void)
{
	return follow.highest;
}

bool
sync_check_revision(int64 revision, int64 floor)
{
	if (revision < floor)
	{
		/* is it still our cluster's?  Config tells, and that is remembered until then */
		follow.went_back = true;
		if (has_joined())
			sync_follow_again();
		else
			hold(psprintf("etcd was replaced or restored: it is at revision " INT64_FORMAT ", and was at " INT64_FORMAT " before",
						  revision, floor));
		return false;
	}
	follow.highest = Max(follow.highest, revision);
	return true;
}

void
sync_expect(int64 jobrev)
{
	if (jobrev <= follow.revision || jobrev <= follow.expected)
		return;
	if (follow.expected <= follow.revision)
		follow.expected_since = scheduler.boot;
	follow.expected = jobrev;
	scheduler_wake_at(follow.expected_since + DEAF_US);
}

/* The boot time at which a watch that is silent is taken for deaf. */
static int64
deaf_at(void)
{
	return follow.expected_since + (DEAF_US << Min(follow.restarts, DEAF_MAX_DOUBLINGS));
}

/* ---- starting, stopping, failing ---------------------------------------------------------------- */

void
sync_follow_start(bool compare)
{
	if (!keys_config(config_key, dsched_cluster_name) ||
		!keys_definition_range(definition_key, definition_end, dsched_cluster_name, scheduler.dbname) ||
		!keys_trigger_prefix(trigger_key, dsched_cluster_name, scheduler.dbname) ||
		!keys_prefix_end(trigger_key, trigger_end) ||
		!keys_queue_range(queue_key, queue_end, dsched_cluster_name, scheduler.dbname) ||
		!keys_node(node_key, dsched_cluster_name, dsched_my_node()) ||
		!keys_command_prefix(command_key, dsched_cluster_name, scheduler.dbname) ||
		!keys_prefix_end(command_key, command_end) ||
		!keys_outcome_prefix(outcome_key, dsched_cluster_name, scheduler.dbname) ||
		!keys_prefix_end(outcome_key, outcome_end))
		elog(ERROR, "the keys of database \"%s\" cannot be made", scheduler.dbname);

	follow.compare = compare;
	follow.highest = scheduler.identity.max_revision;
	follow.revision = scheduler.identity.applied_revision;
	follow.trigger_next = follow.revision + 1;
	follow.saved_highest = scheduler.identity.max_revision;
	follow.saved_applied = follow.saved_at = scheduler.identity.applied_revision;
	follow.page = PAGE_FIRST;
	follow.step = FOLLOW_WAITING;
	scheduler_wake_at(scheduler.boot);
}

/* Ends what is under way, and keeps where to go on from. */
static void
disconnect(void)
{
	if (follow.request != NULL)
		etcd_cancel(follow.request);
	follow.request = NULL;
	if (follow.watch == NULL)
		return;
	follow.trigger_next = Max(follow.trigger_next, etcd_watch_next_revision(follow.watch, RANGE_TRIGGERS));
	etcd_watch_stop(follow.watch);
	follow.watch = NULL;
}

static void
try_again(const char *why)
{
	if (!follow.complained)
		ereport(LOG,
				(errmsg("dsched: cannot follow the definitions of database \"%s\" in etcd: %s", scheduler.dbname, why)));
	follow.complained = true;
	disconnect();
	follow.step = FOLLOW_WAITING;
	sync_retry_later(&follow.retry, RETRY_BASE_US, RETRY_MAX_US);
}

void
sync_follow_again(void)
{
	if (follow.step == FOLLOW_HELD)
		return;
	disconnect();
	follow.step = FOLLOW_WAITING;
	scheduler_wake_at(scheduler.boot);
}

void
sync_compare_again(void)
{
	follow.compare = true;
	sync_follow_again();
}

static void
hold(const char *problem)
{
	if (follow.step == FOLLOW_HELD)
		return;
	strlcpy(follow.problem, problem, sizeof(follow.problem));
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("dsched: no job of database \"%s\" runs: %s", scheduler.dbname, follow.problem),
			 errdetail("Nothing is applied to this database or deleted from it.")));
	disconnect();
	follow.step = FOLLOW_HELD;
	follow.held_session = pg_atomic_read_u64(&dsched_shared->session);
	if (!coordinator_incarnation(follow.judged, sizeof(follow.judged)))
		follow.judged[0] = '\0';
	sync_follow_hold_again();
}

/* It has our incarnation, but is older: its revisions grow, so that must not be forgotten with this process. */
static void
hold_older(const char *problem)
{
	if (follow.step == FOLLOW_HELD)
		return;
	hold(problem);
	if (!sync_note_doubt(true))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", follow.problem)));
}

/*
 * What the coordinator has found since decides: another incarnation, or that the right etcd is back: it has looked at the history for
 * the session that it has now.
 */
bool
sync_follow_judge_again(void)
{
	char		incarnation[sizeof(dsched_shared->incarnation)];
	uint64		session = pg_atomic_read_u64(&dsched_shared->session);

	if (follow.step != FOLLOW_HELD || !coordinator_incarnation(incarnation, sizeof(incarnation)))
		return false;
	if (strcmp(incarnation, scheduler.identity.incarnation) == 0)
		return session != 0 && session != follow.held_session && !dsched_shared->replaced;
	return strcmp(incarnation, follow.judged) != 0;
}

void
sync_follow_hold_again(void)
{
	scheduler.held = true;
	dsched_set_problem(scheduler.db, follow.problem,
					   "Check dsched.etcd_endpoints and dsched.cluster_name. If this etcd is to be used, dsched.recover_cluster() on one instance begins anew with the jobs of all of them; "
					   "dsched.adopt() gives it those of this database alone.");
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->member_wanted = false;
	scheduler.slot->replaced = true;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_coordinator();
}

static void
ask(cJSON *body, EtcdCallback callback)
{
	follow.floor = follow.highest;
	follow.request = etcd_call(scheduler.etcd, ETCD_PATH_RANGE, body, ETCD_READ, REQUEST_TIMEOUT_MS, callback, NULL);
	if (follow.request == NULL)
		try_again("out of memory");
}

/* For the callbacks of ask(): is it an answer to go on with? */
static bool
is_answer(const EtcdResponse *response)
{
	scheduler_refresh_time();
	follow.request = NULL;
	if (!response->ok || response->revision <= 0)
	{
		try_again(response->ok ? "an answer without a revision" : response->message);
		return false;
	}
	return sync_check_revision(response->revision, follow.floor);
}

/* ---- config ------------------------------------------------------------------------------------- */

/* The incarnation that the coordinator has found to be ours; false: not yet. */
static bool
coordinator_incarnation(char *incarnation, size_t size)
{
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	strlcpy(incarnation, dsched_shared->incarnation, size);
	LWLockRelease(dsched_shared->control_lock);
	return incarnation[0] != '\0';
}

static void
check_config(void)
{
	char		incarnation[sizeof(dsched_shared->incarnation)];

	if (!coordinator_incarnation(incarnation, sizeof(incarnation)))
	{
		sync_retry_later(&follow.coordinator, COORDINATOR_BASE_US, COORDINATOR_MAX_US);
		return;
	}
	sync_retry_reset(&follow.coordinator);
	follow.step = FOLLOW_CHECKING;
	ask(etcd_range(config_key, NULL, 0, false), config_read);
}

static bool
has_joined(void)
{
	return scheduler.identity.incarnation[0] != '\0';
}

/* Is it, by an answer with config, not our cluster any more?  Then its revisions have nothing to do with those that we know. */
static bool
is_other(const EtcdResponse *response)
{
	ConfigInfo	config;
	EtcdKv		kv;
	bool		other;

	if (!response->ok || !has_joined())
		return false;
	if (!etcd_kv_at(response->body, 0, &kv))
		return true;
	other = codec_config_decode(kv.value, kv.value_len, &config, NULL, 0) &&
		strcmp(config.incarnation, scheduler.identity.incarnation) != 0;
	etcd_kv_free(&kv);
	return other;
}

/*
 * Judges the value of config, and keeps it if it is that of our cluster.  Else says why, and what to do has
 * been done.
 */
static bool
judge_config(const EtcdKv *kv)
{
	ConfigInfo	config;
	char		incarnation[sizeof(config.incarnation)];
	char		problem[256];
	char	   *copy;

	if (!codec_config_decode(kv->value, kv->value_len, &config, problem, sizeof(problem)))
		try_again(psprintf("the cluster's config cannot be read: %s", problem));
	else if (has_joined() && sync_is_former(&config, scheduler.identity.incarnation))
		begin_carrying(&config);
	else if (has_joined() && strcmp(config.incarnation, scheduler.identity.incarnation) != 0)
		hold(psprintf("etcd was replaced or restored: its cluster \"%s\" is another one than this database has joined",
					  dsched_cluster_name));
	else if (config.partitions != dsched_partitions)
		try_again(psprintf("the cluster has %d partitions, dsched.partitions is %d", config.partitions, dsched_partitions));
	else if (!coordinator_incarnation(incarnation, sizeof(incarnation)) || strcmp(incarnation, config.incarnation) != 0)
		try_again("the coordinator has not seen this config yet");
	else if ((copy = malloc(kv->value_len + 1)) == NULL)
		try_again("out of memory");
	else
	{
		memcpy(copy, kv->value, kv->value_len + 1);
		free(follow.config);
		follow.config = copy;
		follow.config_len = kv->value_len;
		return true;
	}
	return false;
}

/* The config key of an answer, judged. */
static bool
config_is_ours(const EtcdResponse *response)
{
	EtcdKv		kv;
	bool		ours;

	if (!etcd_kv_at(response->body, 0, &kv))
	{
		if (has_joined())
			hold(psprintf("etcd was replaced or restored: it has no cluster \"%s\" any more", dsched_cluster_name));
		else
			try_again("the cluster's config is not there yet");
		return false;
	}
	ours = judge_config(&kv);
	etcd_kv_free(&kv);
	return ours;
}

static void
config_read(void *arg, const EtcdResponse *response)
{
	if (is_other(response))
	{
		follow.floor = 0;
		follow.config_revision = response->revision;
	}
	else if (response->ok && has_joined() && (follow.went_back || response->revision < follow.floor))
	{
		follow.request = NULL;
		hold_older(psprintf("etcd was replaced or restored: it is at revision " INT64_FORMAT ", and has been at " INT64_FORMAT " before",
							response->revision, follow.highest));
		return;
	}
	if (!is_answer(response) || !config_is_ours(response))
		return;
	if (has_joined())
		proceed();
	else
	{
		follow.step = FOLLOW_JOINING;
		scheduler_wake_at(scheduler.boot);
	}
}

/* ---- joining a cluster -------------------------------------------------------------------------- */

static void
join(void)
{
	ConfigInfo	config;

	if (!codec_config_decode(follow.config, follow.config_len, &config, NULL, 0))
		elog(ERROR, "the cluster's config has changed in memory");
	if (!sync_join(&config, follow.highest))
	{
		sync_retry_later(&follow.retry, RETRY_BASE_US, RETRY_MAX_US);
		return;
	}
	follow.compare = true;
	follow.revision = follow.saved_applied = 0;
	follow.saved_highest = follow.highest;
	sync_retry_reset(&follow.retry);
	proceed();
}

/* ---- the cluster was recovered ------------------------------------------------------------------ */

static void
former_read(void *arg, const EtcdResponse *response)
{
	EtcdKv		kv;
	char		problem[256];

	/* the revisions of the former incarnation say nothing of this one */
	follow.floor = 0;
	if (!is_answer(response))
		return;
	follow.has_former = false;
	if (etcd_kv_at(response->body, 0, &kv))
	{
		follow.has_former = codec_former_decode(kv.value, kv.value_len, &follow.former, problem, sizeof(problem));
		if (!follow.has_former)
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("dsched: what etcd says of the former incarnation cannot be read: %s", problem)));
		etcd_kv_free(&kv);
	}
	follow.step = FOLLOW_CARRYING;
	scheduler_wake_at(scheduler.boot);
}

/* Whatever is known of etcd is of the former incarnation: when all rows are carried over, the process begins anew. */
static void
carry_over(void)
{
	bool		more;

	/* they would be signed here, and trusted everywhere, whoever had put them into the former etcd */
	if (!sync_verified())
	{
		hold("the cluster was recovered, but the definitions in this database were not verified by the keys that are in force (dsched.adopt() in it takes them as they are)");
		return;
	}
	if (sync_carry_over(&follow.next, follow.has_former ? &follow.former : NULL, follow.config_revision, &more))
		scheduler.stopping = follow.carried = true;
	else if (more)
	{
		sync_retry_reset(&follow.retry);
		scheduler_wake_at(scheduler.boot);
	}
	else
		sync_retry_later(&follow.retry, CARRY_AGAIN_US, RETRY_MAX_US);
}

static void
begin_carrying(const ConfigInfo *config)
{
	char		key[KEYS_MAX_LEN];

	follow.next = *config;
	if (config->partitions != dsched_partitions)
	{
		try_again(psprintf("the cluster has %d partitions, dsched.partitions is %d", config->partitions, dsched_partitions));
		return;
	}
	disconnect();
	follow.step = FOLLOW_READING_FORMER;
	scheduler.ready = false;
	keys_former(key, dsched_cluster_name, scheduler.dbname);
	ask(etcd_range(key, NULL, 0, false), former_read);
}

static void
proceed(void)
{
	if (follow.compare)
		list_definitions();
	else
	{
		follow.listing_at = 0;
		list_queues();
	}
}

/* ---- the full compare --------------------------------------------------------------------------- */

/* Where the next page begins: behind the last key that was read.  (No key of ours has a byte below '-'.) */
static void
remember_listed(const EtcdKv *kv)
{
	if (follow.listed != NULL)
		pfree(follow.listed);
	follow.listed = MemoryContextAlloc(scheduler.context, strlen(kv->key) + 2);
	strcpy(follow.listed, kv->key);
	strcat(follow.listed, "\001");
}

static void
forget_listed(void)
{
	if (follow.listed != NULL)
		pfree(follow.listed);
	follow.listed = NULL;
}

static void
ask_page(const char *key, const char *end, EtcdCallback callback)
{
	ask(etcd_range_at(follow.listed ? follow.listed : key, end, follow.page, false, follow.listing_at), callback);
}

static void
list_definitions(void)
{
	follow.step = FOLLOW_LISTING;
	follow.listing_at = 0;
	forget_listed();
	sync_compare_begins();
	ask_page(definition_key, definition_end, definitions_listed);
}

/* Takes in a page; true: there are more. */
static bool
take_page(const EtcdResponse *response, void (*take) (const EtcdKv *kv))
{
	const cJSON *item;
	int64		bytes = 0;
	int			n = 0;

	if (follow.listing_at == 0)
		follow.listing_at = response->revision;
	cJSON_ArrayForEach(item, etcd_kvs(response->body))
	{
		EtcdKv		kv;

		if (!etcd_kv_read(item, &kv))
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("a page of definitions is malformed, or out of memory")));
		take(&kv);
		remember_listed(&kv);
		bytes += kv.key_len + kv.value_len;
		n++;
		etcd_kv_free(&kv);
	}
	if (n > 0)
		follow.page = (int) Min(Max(PAGE_BYTES / (bytes / n + 100), 1), PAGE_MAX);
	return n > 0 && etcd_range_more(response->body);
}

/* An answer to a request for a page?  One that failed may have been too big. */
static bool
is_page(const EtcdResponse *response)
{
	if (is_answer(response))
		return true;
	follow.page = Max(follow.page / 4, 1);
	return false;
}

static void
take_listed_definition(const EtcdKv *kv)
{
	(void) sync_definition_put(kv, TAKE_LISTED);
}

static void
definitions_listed(void *arg, const EtcdResponse *response)
{
	if (!is_page(response))
		return;
	if (take_page(response, take_listed_definition))
		ask_page(definition_key, definition_end, definitions_listed);
	else
		list_triggers();
}

static void
list_triggers(void)
{
	follow.step = FOLLOW_LISTING_TRIGGERS;
	forget_listed();
	ask_page(trigger_key, trigger_end, triggers_listed);
}

static void
triggers_listed(void *arg, const EtcdResponse *response)
{
	if (!is_page(response))
		return;
	if (take_page(response, sync_trigger_put))
	{
		ask_page(trigger_key, trigger_end, triggers_listed);
		return;
	}
	list_queues();
}

/* As of the revision of the full compare, if one is under way. */
static void
list_queues(void)
{
	follow.step = FOLLOW_LISTING_QUEUES;
	forget_listed();
	sync_queues_list_begins();
	ask_page(queue_key, queue_end, queues_listed);
}

static void
queues_listed(void *arg, const EtcdResponse *response)
{
	if (!is_page(response))
		return;
	if (take_page(response, sync_queue_put))
	{
		ask_page(queue_key, queue_end, queues_listed);
		return;
	}
	list_commands();
}

/* Likewise. */
static void
list_commands(void)
{
	follow.step = FOLLOW_LISTING_COMMANDS;
	forget_listed();
	reports_list_begins();
	ask_page(command_key, command_end, commands_listed);
}

static void
commands_listed(void *arg, const EtcdResponse *response)
{
	if (!is_page(response))
		return;
	if (take_page(response, reports_command_put))
	{
		ask_page(command_key, command_end, commands_listed);
		return;
	}
	forget_listed();
	follow.step = FOLLOW_CONFIRMING;
	ask(etcd_range(config_key, NULL, 0, false), config_confirmed);
}

static void
config_confirmed(void *arg, const EtcdResponse *response)
{
	if (is_other(response))
	{
		follow.request = NULL;
		sync_follow_again();
		return;
	}
	if (!is_answer(response) || !config_is_ours(response))
		return;
	sync_queues_list_ends(follow.listing_at);
	follow.queue_next = follow.listing_at + 1;
	if (follow.compare)
		finish_compare();
	else
		connect_watch();
}

static void
finish_compare(void)
{
	int			lost = sync_compare_lost();

	if (lost > 0)
	{
		hold(psprintf("etcd has lost %d definitions of this database, which nobody has unscheduled", lost));
		return;
	}
	sync_compare_ends(follow.listing_at);
	sync_now_verified();
	follow.compare = false;
	follow.revision = follow.listing_at;
	follow.trigger_next = follow.listing_at + 1;
	ereport(LOG,
			(errmsg("dsched: read the definitions of database \"%s\" at revision " INT64_FORMAT ": %d jobs",
					scheduler.dbname, follow.revision, timetable_count())));
	state_etcd_definitions_arrived();
	sync_open_triggers();
	connect_watch();
}

/* ---- the watch ---------------------------------------------------------------------------------- */

static void
connect_watch(void)
{
	EtcdWatchRange ranges[] = {
		[RANGE_DEFINITIONS] = {definition_key, definition_end, follow.revision + 1},
		[RANGE_TRIGGERS] = {trigger_key, trigger_end, follow.trigger_next},
		[RANGE_QUEUES] = {queue_key, queue_end, follow.queue_next},
		[RANGE_COMMANDS] = {command_key, command_end, follow.queue_next},
		[RANGE_OUTCOMES] = {outcome_key, outcome_end, follow.queue_next},
		[RANGE_NODE] = {node_key, NULL, 0}
	};

	follow.step = FOLLOW_CONNECTING;
	follow.watch = etcd_watch_start(scheduler.etcd, ranges, lengthof(ranges), 0, &watch_handler, NULL);
	if (follow.watch == NULL)
		try_again("out of memory");
}

static void
watch_started(void *arg, int64 header_revision)
{
	scheduler_refresh_time();
	follow.step = FOLLOW_WATCHING;
	sync_retry_reset(&follow.retry);
	if (follow.complained || !scheduler.ready)
		ereport(LOG,
				(errmsg("dsched: following the definitions of database \"%s\" in etcd from revision " INT64_FORMAT,
						scheduler.dbname, follow.revision + 1)));
	follow.complained = false;
	scheduler.ready = true;
	remotes_reconnected();
	/* patience begins anew */
	follow.expected_since = scheduler.boot;
	follow.beat = header_revision;
}

/* All definitions up to this revision have been delivered. */
static void
advance(int64 revision)
{
	follow.highest = Max(follow.highest, revision);
	follow.expected_since = scheduler.boot;
	follow.restarts = 0;
	if (revision <= follow.revision)
		return;
	follow.revision = revision;
	state_etcd_definitions_arrived();
}

static void
take_triggers(const EtcdEvent *events, int n)
{
	for (int i = 0; i < n; i++)
		if (!events[i].is_delete)
			sync_trigger_put(&events[i].kv);
}

static void
take_commands(const EtcdEvent *events, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (events[i].is_delete)
			reports_command_deleted(&events[i].kv);
		else
			reports_command_put(&events[i].kv);
	}
}

static void
take_outcomes(const EtcdEvent *events, int n)
{
	for (int i = 0; i < n; i++)
		if (!events[i].is_delete)
			remote_outcome_put(&events[i].kv);
}

static void
watch_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision)
{
	if (range_index == RANGE_NODE)
	{
		follow.beat = Max(follow.beat, events[n - 1].kv.mod_revision);
		return;
	}
	scheduler_refresh_time();
	if ((range_index == RANGE_DEFINITIONS || range_index == RANGE_QUEUES) && sync_is_wiped(events, n))
	{
		sync_compare_again();
		return;
	}
	if (range_index == RANGE_DEFINITIONS)
		sync_take_definitions(events, n);
	else if (range_index == RANGE_TRIGGERS)
		take_triggers(events, n);
	else if (range_index == RANGE_QUEUES)
		sync_take_queues(events, n);
	else if (range_index == RANGE_COMMANDS)
		take_commands(events, n);
	else
		take_outcomes(events, n);
	if (range_index == RANGE_DEFINITIONS && n > 0)
		advance(events[n - 1].kv.mod_revision);
	sync_open_triggers();
}

static void
watch_progress(void *arg, int64 header_revision)
{
	scheduler_refresh_time();
	advance(header_revision);
	sync_open_triggers();
}

static void
watch_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	scheduler_refresh_time();
	follow.trigger_next = Max(follow.trigger_next, etcd_watch_next_revision(follow.watch, RANGE_TRIGGERS));
	follow.watch = NULL;		/* its handle is void */
	switch (why)
	{
		case ETCD_WATCH_COMPACTED:
		case ETCD_WATCH_TOO_BIG:
			ereport(LOG,
					(errmsg("dsched: reading all definitions of database \"%s\" anew: %s", scheduler.dbname, message)));
			follow.compare = true;
			sync_follow_again();
			break;
		case ETCD_WATCH_DISCONNECTED:
		case ETCD_WATCH_BEHIND: /* the revision of config's answer tells if etcd went back */
		case ETCD_WATCH_REFUSED:
		case ETCD_WATCH_PROTOCOL:
			try_again(message);
			break;
	}
}

/*
 * The heartbeats of this instance write its node key, which the watch hears as well.  One that is missed for long shows a watch that
 * is deaf although no definition of our partitions has changed.
 */
static void
check_heartbeats(void)
{
	int64		beat;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	beat = dsched_shared->heartbeat_revision;
	LWLockRelease(dsched_shared->control_lock);

	/* heard, or of an etcd that was replaced since */
	if (follow.beat_expected <= follow.beat || beat < follow.beat_expected)
	{
		follow.beat_expected = beat;
		follow.beat_expected_since = scheduler.boot;
	}
	if (follow.beat_expected <= follow.beat || follow.step != FOLLOW_WATCHING)
		return;
	if (scheduler.boot < follow.beat_expected_since + DEAF_US)
	{
		scheduler_wake_at(follow.beat_expected_since + DEAF_US);
		return;
	}
	ereport(LOG,
			(errmsg("dsched: the watch of the definitions of database \"%s\" has fallen silent and is started again",
					scheduler.dbname)));
	give_up_watch();
}

static void
give_up_watch(void)
{
	follow.trigger_next = Max(follow.trigger_next, etcd_watch_next_revision(follow.watch, RANGE_TRIGGERS));
	etcd_watch_give_up(follow.watch);
	follow.watch = NULL;
	sync_follow_again();
}

/*
 * A connection that somebody on the way has forgotten looks just like one on which nothing happens.  (And like
 * one on which a great deal is on its way, which patience helps.)
 */
static void
check_hearing(void)
{
	if (follow.expected <= follow.revision)
		return;
	if (scheduler.boot < deaf_at())
	{
		scheduler_wake_at(deaf_at());
		return;
	}
	if (follow.restarts++ == 0)
		ereport(LOG,
				(errmsg("dsched: the watch of the definitions of database \"%s\" has not delivered revision " INT64_FORMAT
						" and is started again", scheduler.dbname, follow.expected)));
	give_up_watch();
}

static void
save_revisions(void *arg)
{
	sync_save_revisions();
}

/* The local states, with which the revisions are saved too, may have nothing to write for a long time. */
static void
save_sometimes(void)
{
	if (follow.revision == follow.saved_at || !sync_apply_idle() || !sync_retry_due(&follow.saving))
		return;
	if (scheduler_transaction(save_revisions, NULL, "saving what is applied"))
		follow.saved_at = follow.revision;
	sync_retry_reset(&follow.saving);
	sync_retry_later(&follow.saving, SAVE_INTERVAL_US, SAVE_INTERVAL_US);
}

void
sync_follow_turn(void)
{
	char		incarnation[sizeof(dsched_shared->incarnation)];

	/* the coordinator asks its history, which says more than a revision */
	if (dsched_shared->replaced && has_joined() && coordinator_incarnation(incarnation, sizeof(incarnation)) &&
		strcmp(incarnation, scheduler.identity.incarnation) == 0)
	{
		hold_older("etcd was replaced or restored: it has not the history that this instance has seen");
		return;
	}
	switch (follow.step)
	{
		case FOLLOW_WAITING:
			/* the coordinator wakes us when it has found the cluster; the retry is for what it cannot tell */
			if (sync_retry_due(&follow.retry) &&
				(sync_retry_due(&follow.coordinator) || coordinator_incarnation(incarnation, sizeof(incarnation))))
				check_config();
			break;
		case FOLLOW_JOINING:
			if (sync_retry_due(&follow.retry))
				join();
			break;
		case FOLLOW_CARRYING:
			if (sync_retry_due(&follow.retry))
				carry_over();
			break;
		case FOLLOW_WATCHING:
			if (coordinator_incarnation(incarnation, sizeof(incarnation)) &&
				strcmp(incarnation, scheduler.identity.incarnation) != 0)
			{
				/* no partition of that one is for us before we have followed */
				scheduler.ready = false;
				sync_follow_again();
				break;
			}
			if (scheduler.identity.replaced && pg_atomic_read_u64(&dsched_shared->session) != 0)
				(void) sync_note_doubt(false);
			check_hearing();
			check_heartbeats();
			save_sometimes();
			break;
		default:
			break;
	}
	sync_open_triggers();
}

/* ---- what is remembered ------------------------------------------------------------------------- */

void
sync_save_revisions(void)
{
	Identity	identity;
	int64		applied;
	char		key_ids[sizeof(identity.key_ids)];
	int64		beat = 0;

	if (follow.step == FOLLOW_OFF || follow.step == FOLLOW_HELD || !has_joined())
		return;
	applied = Min(sync_applied_revision(follow.revision), sync_lowest_broken() - 1);
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	if (strcmp(dsched_shared->incarnation, scheduler.identity.incarnation) == 0)
		beat = dsched_shared->beat_revision;
	LWLockRelease(dsched_shared->control_lock);
	/* a row that could not be verified is in the table all the same, and known here alone */
	if (applied == follow.revision)
		sync_verified_ids(key_ids, sizeof(key_ids));
	else
		strlcpy(key_ids, sync_sign_required() && sync_verified() ? scheduler.identity.key_ids : "", sizeof(key_ids));
	if (applied == follow.saved_applied && follow.highest == follow.saved_highest &&
		beat == follow.saved_beat &&
		strcmp(key_ids, scheduler.identity.key_ids) == 0)
		return;
	identity_read(&identity);
	/* adopt() may have been here, and we do not know of it yet */
	if (!identity.found || strcmp(identity.incarnation, scheduler.identity.incarnation) != 0)
		return;
	identity.applied_revision = applied;
	identity.max_revision = Max(follow.highest, beat);
	if (beat != 0)
	{
		identity.beat_revision = beat;
		strlcpy(identity.beat_node, dsched_my_node(), sizeof(identity.beat_node));
	}
	strlcpy(identity.key_ids, key_ids, sizeof(identity.key_ids));
	identity_write(&identity);

	strlcpy(scheduler.identity.key_ids, key_ids, sizeof(scheduler.identity.key_ids));
	follow.saved_applied = applied;
	follow.saved_highest = follow.highest;
	follow.saved_beat = beat;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->max_revision = identity.max_revision;
	if (beat != 0)
		scheduler.slot->beat_revision = beat;
	LWLockRelease(dsched_shared->control_lock);
}
