/*
 * recover.c
 *	  A new incarnation of the cluster, when dsched.recover_cluster() asks for it.
 *
 * Runs in the coordinator, besides the session, with requests of its own.  SQL asks and waits in shared memory
 * (dsched_shared->recover).  Two occasions:
 *
 *	  etcd was wiped, restored, or is another one		the instances' own tables are what is known of the jobs
 *	  another number of partitions is wanted			all instances have left in order, so the states in etcd are complete
 *
 * Both end in one transaction of etcd, which compares that config is what was read (so of two administrators one wins):
 *
 *	  put config		a random incarnation, the former ones, the time from which slots are open
 *	  put recovery		with a lease that outlives whatever session of the former incarnation may still hold
 *	  put former/...	another number of partitions: per database, up to where each former partition was accounted for
 *	  delete node/ and db/	owners, members, states, triggers, definitions of the former incarnation
 *
 * WHY IT IS SAFE
 *
 * With its node and owner keys gone, and config another one, nothing that the former incarnation sends can be applied any
 * more: each of its writes compares one of these.  No heartbeat can prove one of its sessions, so all of them are over,
 * by their own deadlines, one lease's life later.  Until then no session of the new one begins (session_settle()).
 * Definitions are deleted, as those of a restored etcd are old, and those of another number of partitions stand under wrong keys.  All
 * instances have them in their tables, and publish them (sync/join.c); that the keys go is no reason for anybody to delete a
 * row (sync/follow.c).
 *
 * WHO DIES
 *
 * Before the transaction nothing has changed, after it everything follows from config.  A transaction whose answer is lost
 * is looked for in config.
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/session_internal.h"
#include "core/codec.h"
#include "core/keys.h"
#include "settings.h"

/* How long all of it may take, and how long one request. */
#define RECOVER_TIME_US INT64CONST(30000000)
#define REQUEST_TIMEOUT_MS 5000
#define WRITE_TIMEOUT_MS 2500

/* What is sent is applied before that, or not at all. */
#define WRITE_DELAY_US INT64CONST(5000000)
#define RETRY_MAX_US INT64CONST(1000000)

/* The recovery's lease outlives the sessions by so much, which is also how long its transaction may be on its way. */
#define RECOVERY_TTL_EXTRA_S 3

/* 2025-01-01 UTC */
#define NUMBERS_FROM (INT64CONST(9132) * USECS_PER_DAY)

/* With a put for each, and what goes besides, they fit into a transaction. */
#define MAX_DATABASES 100

typedef enum RecoverStep
{
	RECOVER_IDLE,
	RECOVER_CONFIG,	  /* read config: is there anything to recover? */
	RECOVER_NODES,	  /* another number of partitions: has everybody left? */
	RECOVER_DATABASE, /* find the next database, */
	RECOVER_STATES,	  /* read its states, */
	RECOVER_TRIGGERS, /* and see that no request is open, */
	RECOVER_RUNS,	  /* and no decision that its instance has not carried out */
	RECOVER_GRANT,	  /* the lease of the key recovery */
	RECOVER_WRITE,
	RECOVER_VERIFY, /* was it written? */
	RECOVER_KEEP	/* the lease's full time from the transaction on */
} RecoverStep;

typedef struct FormerDatabase
{
	char name[KEYS_MAX_NAME + 1];
	FormerInfo info;
} FormerDatabase;

static struct
{
	RecoverStep step;
	EtcdRequest *request;
	int64 retry_at;
	int64 give_up_at;
	int failures;
	RecoverRequest asked;
	bool present; /* there is a config */
	ConfigInfo found;
	int64 found_mod;
	bool drained; /* it is about the number of partitions */
	ConfigInfo next;
	int64 lease;
	/* the former states */
	int64 revision; /* that all of them are read at */
	char cursor[KEYS_MAX_LEN];
	int ndatabases;
	FormerDatabase *databases; /* MAX_DATABASES of them, malloc'd */
} work;

static void begin(void);
static void ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback);
static bool answered(const EtcdResponse *r);
static void deny(int sqlstate, const char *hint, const char *fmt, ...) pg_attribute_printf(3, 4);
static void finish(RecoverPhase phase);
static void config_read(void *arg, const EtcdResponse *r);
static bool judge(const EtcdResponse *r);
static bool judge_partitions(void);
static void next_config(void);
static void read_nodes(void);
static void nodes_read(void *arg, const EtcdResponse *r);
static void next_database(void);
static void database_found(void *arg, const EtcdResponse *r);
static void read_states(void);
static void states_read(void *arg, const EtcdResponse *r);
static void read_triggers(void);
static void triggers_read(void *arg, const EtcdResponse *r);
static void read_runs(void);
static void runs_read(void *arg, const EtcdResponse *r);
static void grant(void);
static void granted(void *arg, const EtcdResponse *r);
static void write_config(void);
static void written(void *arg, const EtcdResponse *r);
static void verified(void *arg, const EtcdResponse *r);
static void keep(void);
static void kept(void *arg, const EtcdResponse *r);

/* ---- the request ------------------------------------------------------------------------------ */

/* A coordinator before us may have died over a request. */
void
recover_start(void)
{
	memset(&work, 0, sizeof(work));
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	work.asked = dsched_shared->recover;
	LWLockRelease(dsched_shared->control_lock);
	if (work.asked.phase == RECOVER_UNDER_WAY)
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			 "dsched.status() says how this instance does. If it still stands still, call dsched.recover_cluster() again.",
			 "the process that was recovering the cluster ended meanwhile");
}

int64
recover_advance(int64 now)
{
	if (work.step == RECOVER_IDLE)
	{
		LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
		if (dsched_shared->recover.phase == RECOVER_ASKED && dsched_shared->launcher_done)
		{
			dsched_shared->recover.phase = RECOVER_UNDER_WAY;
			work.asked = dsched_shared->recover;
			work.step = RECOVER_CONFIG;
		}
		LWLockRelease(dsched_shared->control_lock);
		if (work.step == RECOVER_IDLE)
			return DSCHED_NEVER;
		begin();
	}
	if (work.request != NULL)
		return DSCHED_NEVER;
	if (now < work.retry_at)
		return work.retry_at;
	switch (work.step)
	{
		case RECOVER_IDLE:
			break;
		case RECOVER_CONFIG:
			ask(ETCD_PATH_RANGE, etcd_range(session_config_key, NULL, 1, false), ETCD_READ, config_read);
			break;
		case RECOVER_NODES:
			read_nodes();
			break;
		case RECOVER_DATABASE:
			next_database();
			break;
		case RECOVER_STATES:
			read_states();
			break;
		case RECOVER_TRIGGERS:
			read_triggers();
			break;
		case RECOVER_RUNS:
			read_runs();
			break;
		case RECOVER_GRANT:
			grant();
			break;
		case RECOVER_WRITE:
			write_config();
			break;
		case RECOVER_VERIFY:
			ask(ETCD_PATH_RANGE, etcd_range(session_config_key, NULL, 1, false), ETCD_READ, verified);
			break;
		case RECOVER_KEEP:
			keep();
			break;
	}
	return DSCHED_NEVER;
}

static void
begin(void)
{
	work.retry_at = 0;
	work.failures = 0;
	work.give_up_at = dsched_boot_now() + RECOVER_TIME_US;
	work.ndatabases = 0;
	work.revision = 0;
	work.lease = 0;
	work.drained = false;
	keys_databases_prefix(work.cursor, dsched_cluster_name);
}

static void
ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback)
{
	int timeout_ms = kind == ETCD_READ ? REQUEST_TIMEOUT_MS : WRITE_TIMEOUT_MS;

	work.request = etcd_call(cluster_client, path, body, kind, timeout_ms, callback, NULL);
	cluster_need_memory(work.request);
}

/* For each callback first; false: the step is tried again, or all of it was given up. */
static bool
answered(const EtcdResponse *r)
{
	work.request = NULL;
	if (r->ok)
	{
		work.failures = 0;
		return true;
	}
	work.failures++;
	work.retry_at = cluster_retry_at(work.failures, RETRY_MAX_US);
	if (work.retry_at > work.give_up_at)
		deny(ERRCODE_CONNECTION_FAILURE,
			 "If its last request was carried out all the same, dsched.status() will say that all is well. Else call it again.",
			 "etcd gives no usable answer: %s", r->message);
	return false;
}

static void
deny(int sqlstate, const char *hint, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(work.asked.message, sizeof(work.asked.message), fmt, args);
	va_end(args);
	strlcpy(work.asked.hint, hint != NULL ? hint : "", sizeof(work.asked.hint));
	work.asked.sqlstate = sqlstate;
	finish(RECOVER_FAILED);
}

static void
finish(RecoverPhase phase)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (dsched_shared->recover.number == work.asked.number)
	{
		dsched_shared->recover = work.asked;
		dsched_shared->recover.phase = phase;
	}
	LWLockRelease(dsched_shared->control_lock);
	ConditionVariableBroadcast(&dsched_shared->changed);
	work.step = RECOVER_IDLE;
	free(work.databases);
	work.databases = NULL;
	session_look_at_config();
}

/* ---- is there anything to recover? ------------------------------------------------------------- */

static void
config_read(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;
	char err[256];
	bool good = true;

	if (!answered(r))
		return;
	work.present = etcd_kv_at(r->body, 0, &kv);
	if (work.present)
	{
		good = codec_config_decode(kv.value, kv.value_len, &work.found, err, sizeof(err));
		work.found_mod = kv.mod_revision;
		etcd_kv_free(&kv);
	}
	if (!good)
		deny(ERRCODE_DATA_CORRUPTED, "It may have been written by a newer version of dsched: update this instance.",
			 "the configuration of cluster \"%s\" in etcd cannot be read: %s", dsched_cluster_name, err);
	else if (judge(r))
	{
		next_config();
		work.step = work.drained ? RECOVER_NODES : RECOVER_GRANT;
	}
}

static bool
was_recovered(void)
{
	int i;

	for (i = 0; i < work.found.nprevious; i++)
		if (strcmp(work.found.previous[i], work.asked.known) == 0)
			return true;
	return false;
}

/* Has a database found etcd to be another one, or older than it knows? */
static bool
databases_say_replaced(void)
{
	bool replaced = false;
	int db;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
		replaced |= dsched_shared->databases[db].state != SCHEDULER_NONE && dsched_shared->databases[db].replaced;
	LWLockRelease(dsched_shared->control_lock);
	return replaced;
}

static bool
judge(const EtcdResponse *r)
{
	char hint[DSCHED_PROBLEM_LEN];
	int64 floor;

	if (work.present && strcmp(work.found.incarnation, work.asked.known) != 0 && was_recovered())
	{
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "All instances follow by themselves; dsched.status() says how far this one is.",
			 "the cluster has been recovered already");
		return false;
	}
	(void) session_remembered(work.asked.known, &floor);
	if (work.present && strcmp(work.found.incarnation, work.asked.known) == 0 && r->revision >= floor &&
		cluster_problem_kind(PROBLEM_OF_SESSION) != PROBLEM_REPLACED && !databases_say_replaced())
		return judge_partitions();
	if (work.asked.partitions != 0 && work.asked.partitions != dsched_partitions)
		return judge_partitions();
	if (work.present && work.found.partitions != dsched_partitions && work.asked.partitions == 0)
	{
		snprintf(hint, sizeof(hint), "Set dsched.partitions = %d on all instances and restart them, or call dsched.recover_cluster(partitions => %d).",
				 work.found.partitions, dsched_partitions);
		deny(ERRCODE_INVALID_PARAMETER_VALUE, hint, "the cluster had %d partitions, but dsched.partitions is %d here",
			 work.found.partitions, dsched_partitions);
		return false;
	}
	return true;
}

/* etcd is the one that we know, so it can only be about the number of partitions. */
static bool
judge_partitions(void)
{
	char hint[DSCHED_PROBLEM_LEN];

	if (work.asked.partitions != 0 && work.asked.partitions != dsched_partitions)
	{
		snprintf(hint, sizeof(hint), "Set dsched.partitions = %d on all instances and restart them first.", work.asked.partitions);
		deny(ERRCODE_INVALID_PARAMETER_VALUE, hint, "dsched.partitions is %d on this instance", dsched_partitions);
	}
	else if (work.asked.partitions != 0 && work.found.partitions == work.asked.partitions)
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, NULL, "the cluster has %d partitions already", work.found.partitions);
	else if (work.asked.partitions != 0)
	{
		work.drained = true;
		return true;
	}
	else if (work.found.partitions != dsched_partitions)
	{
		snprintf(hint, sizeof(hint), "To change the number call dsched.recover_cluster(partitions => %d), when all instances have that setting.",
				 dsched_partitions);
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, hint, "nothing is lost: the cluster has %d partitions, but dsched.partitions is %d here",
			 work.found.partitions, dsched_partitions);
	}
	else
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			 "It is for an etcd that was wiped, restored or exchanged, and for another number of partitions. See dsched.status().",
			 "there is nothing to recover: etcd has all that this instance knows of");
	return false;
}

static void
add_previous(const char *incarnation)
{
	int i;

	if (incarnation[0] == '\0' || work.next.nprevious == CODEC_MAX_PREVIOUS)
		return;
	for (i = 0; i < work.next.nprevious; i++)
		if (strcmp(work.next.previous[i], incarnation) == 0)
			return;
	strlcpy(work.next.previous[work.next.nprevious++], incarnation, sizeof(work.next.previous[0]));
}

/*
 * Greater than that of any incarnation before, of which etcd, if it was wiped, says nothing any more: quarters of an hour since 2025,
 * or one more than what is known.
 */
static int64
next_number(void)
{
	int64 number = (dsched_wall_now() - NUMBERS_FROM) / (15 * USECS_PER_MINUTE);

	number = Max(number, (int64) pg_atomic_read_u64(&dsched_shared->incarnation_number) + 1);
	if (work.present)
		number = Max(number, work.found.number + 1);
	return Min(Max(number, 1), CODEC_MAX_NUMBER_OF_INCARNATION);
}

/* The first of the former incarnations is the caller's: by its revisions it is said which of two versions is newer. */
static void
next_config(void)
{
	uint8 random[16];
	int i;

	memset(&work.next, 0, sizeof(work.next));
	work.next.partitions = dsched_partitions;
	work.next.number = next_number();
	work.next.resume_from = work.asked.resume_from = work.drained ? CODEC_MIN_TIME : work.asked.resume_from;
	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not generate the incarnation of a cluster")));
	for (i = 0; i < (int) sizeof(random); i++)
		sprintf(work.next.incarnation + 2 * i, "%02x", random[i]);

	add_previous(work.asked.known);
	if (work.present)
		add_previous(work.found.incarnation);
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (i = 0; i < dsched_shared->max_databases; i++)
		if (dsched_shared->databases[i].state != SCHEDULER_NONE && dsched_shared->databases[i].identity_known)
			add_previous(dsched_shared->databases[i].incarnation);
	LWLockRelease(dsched_shared->control_lock);
	for (i = 0; work.present && i < work.found.nprevious; i++)
		add_previous(work.found.previous[i]);
}

/* ---- the former states -------------------------------------------------------------------------- */

static void
read_nodes(void)
{
	char prefix[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	keys_node_prefix(prefix, dsched_cluster_name);
	keys_prefix_end(prefix, end);
	ask(ETCD_PATH_RANGE, etcd_range(prefix, end, 1, true), ETCD_READ, nodes_read);
}

/* An instance is in the cluster, if there is one in this range. */
static bool
deny_node(const cJSON *range)
{
	char name[DSCHED_MAX_NODE_NAME];
	KeyParts parts;
	EtcdKv kv;

	if (!etcd_kv_at(range, 0, &kv))
		return false;
	if (strlen(kv.key) == kv.key_len && keys_parse(dsched_cluster_name, kv.key, &parts))
		strlcpy(name, parts.node, sizeof(name));
	else
		etcd_clean_text(name, sizeof(name), kv.key, kv.key_len);
	etcd_kv_free(&kv);
	deny(ERRCODE_OBJECT_IN_USE, "All instances must have the new setting of dsched.partitions, and have been restarted with it.",
		 "an instance is in the cluster: \"%s\"", name);
	return true;
}

static void
nodes_read(void *arg, const EtcdResponse *r)
{
	if (answered(r) && !deny_node(r->body))
		work.step = RECOVER_DATABASE;
}

/* All of etcd's databases, one after the other: the first key at or after the cursor names the next. */
static void
next_database(void)
{
	char prefix[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	keys_databases_prefix(prefix, dsched_cluster_name);
	keys_prefix_end(prefix, end);
	ask(ETCD_PATH_RANGE, etcd_range_at(work.cursor, end, 1, true, work.revision), ETCD_READ, database_found);
}

static bool
take_database(const char *key)
{
	char prefix[KEYS_MAX_LEN];
	char encoded[KEYS_MAX_LEN];
	FormerDatabase *database;
	char *slash;
	int i;

	keys_databases_prefix(prefix, dsched_cluster_name);
	if (strncmp(key, prefix, strlen(prefix)) != 0 || strlen(key) >= sizeof(encoded))
		return false;
	strlcpy(encoded, key + strlen(prefix), sizeof(encoded));
	slash = strchr(encoded, '/');
	if (slash == NULL || work.ndatabases == MAX_DATABASES)
		return false;
	*slash = '\0';
	if (work.databases == NULL)
		work.databases = calloc(MAX_DATABASES, sizeof(FormerDatabase));
	cluster_need_memory(work.databases);
	database = &work.databases[work.ndatabases];
	memset(database, 0, sizeof(*database));
	if (!keys_decode(encoded, database->name, sizeof(database->name)))
		return false;
	strlcpy(database->info.incarnation, work.found.incarnation, sizeof(database->info.incarnation));
	database->info.npartitions = work.found.partitions;
	for (i = 0; i < work.found.partitions; i++)
		database->info.watermarks[i] = CODEC_MIN_TIME;
	work.ndatabases++;
	/* behind its last key */
	snprintf(work.cursor, sizeof(work.cursor), "%s%s0", prefix, encoded);
	return true;
}

static void
database_found(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;
	bool good;

	if (!answered(r))
		return;
	if (work.revision == 0)
		work.revision = r->revision;
	if (!etcd_kv_at(r->body, 0, &kv))
	{
		work.step = RECOVER_GRANT;
		return;
	}
	good = strlen(kv.key) == kv.key_len && take_database(kv.key);
	etcd_kv_free(&kv);
	if (good)
		work.step = RECOVER_STATES;
	else
		deny(ERRCODE_DATA_CORRUPTED, NULL, "the databases of cluster \"%s\" in etcd cannot be read", dsched_cluster_name);
}

static void
read_states(void)
{
	char prefix[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	keys_state_prefix(prefix, dsched_cluster_name, work.databases[work.ndatabases - 1].name);
	keys_prefix_end(prefix, end);
	ask(ETCD_PATH_RANGE, etcd_range_at(prefix, end, 0, false, work.revision), ETCD_READ, states_read);
}

/* Where to note the watermark of a partition; NULL: it is none that there can be. */
static int64_t *
watermark_of(FormerInfo *info, const KeyParts *parts)
{
	FormerPlace *place;
	int i;

	if (strcmp(parts->place, KEYS_PLACE_ANY) == 0)
		return parts->partition < info->npartitions ? &info->watermarks[parts->partition] : NULL;
	if (parts->partition >= CODEC_PLACE_PARTITIONS || strlen(parts->place) > SELECTOR_MAX || strchr(parts->place, '=') == NULL)
		return NULL;
	for (i = 0; i < info->nplaces; i++)
		if (strcmp(info->places[i].place, parts->place) == 0)
			return &info->places[i].watermarks[parts->partition];
	if (info->nplaces == CODEC_MAX_FORMER_PLACES)
		return NULL;
	place = &info->places[info->nplaces++];
	strlcpy(place->place, parts->place, sizeof(place->place));
	for (i = 0; i < CODEC_PLACE_PARTITIONS; i++)
		place->watermarks[i] = CODEC_MIN_TIME;
	return &place->watermarks[parts->partition];
}

/* What of a partition is not accounted for, in words; NULL: nothing, and its watermark is noted. */
static const char *
take_state(const EtcdKv *kv, FormerInfo *info, int *open)
{
	KeyParts parts;
	PartitionState state;
	int64_t *watermark = NULL;
	const char *problem = NULL;

	if (strlen(kv->key) == kv->key_len && keys_parse(dsched_cluster_name, kv->key, &parts) && parts.kind == KEY_STATE)
		watermark = watermark_of(info, &parts);
	if (watermark == NULL || !codec_state_decode(kv->value, kv->value_len, &state, NULL, 0))
		return "the account of a partition cannot be read";
	if (!state.clean)
		problem = "an instance did not leave in order";
	else if (state.npending > 0 || state.ndone > 0 || state.watermark_job != KEYS_MAX_ID)
	{
		*open += Max(state.npending + state.ndone, 1);
		problem = "runs are not finished";
	}
	else
		*watermark = state.watermark;
	codec_state_free(&state);
	return problem;
}

static void
not_drained(const char *problem, int open)
{
	char hint[DSCHED_PROBLEM_LEN];
	char count[64] = "";

	if (open > 0)
		snprintf(count, sizeof(count), " (%d)", open);
	snprintf(hint, sizeof(hint),
			 "Set dsched.partitions = %d again on one instance, restart it, wait until dsched.runs has no run of any of its databases that is queued or running, and stop it in order.",
			 work.found.partitions);
	deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, hint, "the cluster is not drained: in database \"%s\" %s%s",
		 work.databases[work.ndatabases - 1].name, problem, count);
}

static void
states_read(void *arg, const EtcdResponse *r)
{
	const char *problem = NULL;
	const cJSON *item;
	int open = 0;

	if (!answered(r))
		return;
	cJSON_ArrayForEach(item, etcd_kvs(r->body))
	{
		const char *one = "the account of a partition cannot be read";
		EtcdKv kv;

		if (etcd_kv_read(item, &kv))
		{
			one = take_state(&kv, &work.databases[work.ndatabases - 1].info, &open);
			etcd_kv_free(&kv);
		}
		if (one != NULL)
			problem = one;
	}
	if (problem != NULL)
		not_drained(problem, open);
	else
		work.step = RECOVER_TRIGGERS;
}

static void
read_triggers(void)
{
	char prefix[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	keys_trigger_prefix(prefix, dsched_cluster_name, work.databases[work.ndatabases - 1].name);
	keys_prefix_end(prefix, end);
	ask(ETCD_PATH_RANGE, etcd_range_at(prefix, end, 1, true, work.revision), ETCD_READ, triggers_read);
}

static void
triggers_read(void *arg, const EtcdResponse *r)
{
	if (!answered(r))
		return;
	if (etcd_kv_count(r->body) > 0)
		not_drained("requests for runs are open", 0);
	else
		work.step = RECOVER_RUNS;
}

static void
read_runs(void)
{
	char prefix[KEYS_MAX_LEN];
	char end[KEYS_MAX_LEN];

	keys_run_prefix(prefix, dsched_cluster_name, work.databases[work.ndatabases - 1].name);
	keys_prefix_end(prefix, end);
	ask(ETCD_PATH_RANGE, etcd_range_at(prefix, end, 0, false, work.revision), ETCD_READ, runs_read);
}

/*
 * A decision stays until the instance that has the prepared transaction says that it is committed.  The account has the slot closed all
 * the same, and with the decision gone nobody could commit it.
 */
static void
runs_read(void *arg, const EtcdResponse *r)
{
	const cJSON *item;
	RunMark mark;
	char problem[DSCHED_PROBLEM_LEN];
	int open = 0;

	if (!answered(r))
		return;
	cJSON_ArrayForEach(item, etcd_kvs(r->body))
	{
		EtcdKv kv;

		if (!etcd_kv_read(item, &kv))
			continue;
		if (codec_mark_decode(kv.value, kv.value_len, &mark, NULL, 0) && mark.decision)
		{
			open++;
			snprintf(problem, sizeof(problem), "instance \"%s\" has not committed prepared transactions", mark.node);
		}
		etcd_kv_free(&kv);
	}
	if (open > 0)
		not_drained(problem, open);
	else
		work.step = RECOVER_DATABASE;
}

/* ---- the transaction ----------------------------------------------------------------------------- */

static void
grant(void)
{
	int64 ttl = Max(dsched_lease_ttl, (int) (session_ttl_us() / USECS_PER_SEC)) + RECOVERY_TTL_EXTRA_S;

	work.request = etcd_lease_grant(cluster_client, ttl, REQUEST_TIMEOUT_MS, granted, NULL);
	cluster_need_memory(work.request);
}

static void
granted(void *arg, const EtcdResponse *r)
{
	if (!answered(r))
		return;
	work.lease = etcd_json_int64(r->body, "ID");
	if (work.lease == 0)
		deny(ERRCODE_CONNECTION_FAILURE, NULL, "etcd has granted a lease without an id");
	else
		work.step = RECOVER_WRITE;
}

static void
delete_all(EtcdTxn *txn, const char *prefix)
{
	char end[KEYS_MAX_LEN];

	keys_prefix_end(prefix, end);
	etcd_txn_delete_range(txn, prefix, end);
}

static void
put_former(EtcdTxn *txn)
{
	char key[KEYS_MAX_LEN];
	int i;

	for (i = 0; i < work.ndatabases; i++)
	{
		size_t len;
		char *value = codec_former_encode(&work.databases[i].info, &len);

		cluster_need_memory(value);
		keys_former(key, dsched_cluster_name, work.databases[i].name);
		etcd_txn_put(txn, key, value, len, 0);
		free(value);
	}
}

static void
write_config(void)
{
	EtcdTxn *txn = etcd_txn_begin();
	char nodes[KEYS_MAX_LEN];
	char nodes_end[KEYS_MAX_LEN];
	char key[KEYS_MAX_LEN];
	size_t len;
	char *value;

	work.next.recovered_at = dsched_wall_now() + dsched_max_clock_skew * INT64CONST(1000) + WRITE_DELAY_US;
	value = codec_config_encode(&work.next, &len);
	cluster_need_memory(value);
	keys_node_prefix(nodes, dsched_cluster_name);
	keys_prefix_end(nodes, nodes_end);
	if (work.present)
		etcd_txn_if_mod(txn, session_config_key, work.found_mod);
	else
		etcd_txn_if_create(txn, session_config_key, 0);
	if (work.drained)
		etcd_txn_if_none(txn, nodes, nodes_end);
	etcd_txn_put(txn, session_config_key, value, len, 0);
	free(value);
	keys_recovery(key, dsched_cluster_name);
	etcd_txn_put(txn, key, "{\"format\":1}", strlen("{\"format\":1}"), work.lease);
	put_former(txn);
	delete_all(txn, nodes);
	keys_databases_prefix(key, dsched_cluster_name);
	delete_all(txn, key);
	etcd_txn_else_get(txn, nodes, nodes_end);
	ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_WRITE, written);
}

static void
written(void *arg, const EtcdResponse *r)
{
	if (!r->ok)
	{
		/* it may have been applied, or be on its way: the next look says */
		if (answered(r))
			return;
		if (work.step != RECOVER_IDLE)
			work.step = r->grpc_code == ETCD_CODE_NOT_FOUND ? RECOVER_GRANT : RECOVER_VERIFY;
		return;
	}
	(void) answered(r);
	if (etcd_txn_succeeded(r->body))
		work.step = RECOVER_KEEP;
	else if (!work.drained || !deny_node(etcd_txn_response(r->body, 0)))
		work.step = RECOVER_VERIFY;
}

static void
verified(void *arg, const EtcdResponse *r)
{
	ConfigInfo config;
	EtcdKv kv;
	bool present;
	bool ours = false;
	bool same;

	if (!answered(r))
		return;
	present = etcd_kv_at(r->body, 0, &kv);
	same = present == work.present;
	if (present)
	{
		ours = codec_config_decode(kv.value, kv.value_len, &config, NULL, 0) &&
			   strcmp(config.incarnation, work.next.incarnation) == 0;
		same = same && kv.mod_revision == work.found_mod;
		etcd_kv_free(&kv);
	}
	if (ours)
		work.step = RECOVER_KEEP;
	else if (same)
		work.step = RECOVER_GRANT;
	else
		deny(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "All instances follow by themselves; dsched.status() says how far this one is.",
			 "another instance has recovered the cluster meanwhile");
}

static void
keep(void)
{
	work.request = etcd_lease_keepalive(cluster_client, work.lease, REQUEST_TIMEOUT_MS, kept, NULL);
	cluster_need_memory(work.request);
}

/* It was long enough without this, unless the transaction took seconds. */
static void
kept(void *arg, const EtcdResponse *r)
{
	work.request = NULL;
	strlcpy(work.asked.incarnation, work.next.incarnation, sizeof(work.asked.incarnation));
	ereport(LOG, (errmsg("dsched: cluster \"%s\" was recovered, with %d partitions: its incarnation is %s",
						 dsched_cluster_name, work.next.partitions, work.next.incarnation)));
	finish(RECOVER_DONE);
}
