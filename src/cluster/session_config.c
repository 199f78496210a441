/*
 * session_config.c
 *	  Whose etcd is it?  The config of the cluster, its incarnation, and the history of revisions.
 *
 * The steps CONFIG, CREATE, HISTORY and SETTLE of a session (session.c), and what a heartbeat looks at to find out that etcd was
 * exchanged under a living session.
 *
 * An etcd that was wiped or restored can have the same ids, and then everything that is not there looks
 * deleted, and old work looks undone.  So config holds a random incarnation, and the databases remember it with the
 * highest revision that they saw.  No config although somebody remembers one, or a lower revision on
 * a linearizable answer: the instance stays out, deletes nothing, and looks again every few seconds (it may have
 * been a wrong address).  Where others use the same etcd its revision may have grown past ours again before we look,
 * so the node key is also asked for as of the revision of our last heartbeat, or of the last one that a database has noted: an etcd
 * that was restored has something else in that place of its history, as far as that is not compacted.  That an older etcd was
 * seen is noted by the databases, too, so that it is not taken for the right one after a restart, when it has grown.  A config of another incarnation than a database
 * remembers holds that database only, unless it names the one that the database remembers among its former ones: then the
 * cluster was recovered (recover.c), and the database follows by itself (sync/join.c).
 *
 * What this instance knows of it is in own_session: incarnation, seen_revision, floor_revision, beat_revision.  What
 * the databases know is in shared memory, under control_lock.
 *
 * A failed request is repeated by session_answered(); every other failure ends in session_refuse() or, when the config
 * of a living session has changed, in session_lost().
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/session_internal.h"
#include "core/codec.h"
#include "settings.h"

/* While it is waited for the end of former sessions. */
#define SETTLE_RECHECK_US INT64CONST(300000)

static void config_answered(void *arg, const EtcdResponse *r);
static void config_absent(void);
static void config_found(const EtcdKv *kv, const EtcdResponse *r);
static void find_witness(const char *incarnation);
static void refuse_older(const char *problem);
static void after_config(void);
static void settle_answered(void *arg, const EtcdResponse *r);
static void history_answered(void *arg, const EtcdResponse *r);
static void match_incarnation(const char *incarnation);
static void create_answered(void *arg, const EtcdResponse *r);

static const char replaced_hint[] =
	"If dsched.etcd_endpoints or dsched.cluster_name is wrong, correct it, or bring the former etcd back. If this etcd is to be used, "
	"call dsched.recover_cluster() on one instance. Nothing has been deleted.";

/* ---- config ---------------------------------------------------------------------------------- */

void
session_read_config(void)
{
	session_ask(ETCD_PATH_RANGE, etcd_range(session_config_key, NULL, 1, false), ETCD_READ, config_answered);
}

static void
config_answered(void *arg, const EtcdResponse *r)
{
	EtcdKv kv;

	if (!session_answered(r))
		return;
	if (etcd_kv_count(r->body) == 0)
	{
		config_absent();
		return;
	}
	if (!etcd_kv_at(r->body, 0, &kv))
	{
		session_refuse(STEP_CONFIG, PROBLEM_CONFIG, NULL, "etcd's answer for \"%s\" makes no sense",
					   session_config_key);
		return;
	}
	config_found(&kv, r);
	etcd_kv_free(&kv);
}

/*
 * Does a database of this instance remember this incarnation (NULL: any)?  And what is the highest revision
 * that it saw?
 */
bool
session_remembered(const char *incarnation, int64 *revision)
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
bool
session_databases_adopted(void)
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

static void
config_absent(void)
{
	int64 revision;

	if (own_session.incarnation[0] != '\0' || session_remembered(NULL, &revision))
	{
		session_refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint,
					   "etcd has been replaced or wiped: it does not know cluster \"%s\", which this instance was a member of",
					   dsched_cluster_name);
		return;
	}
	session_set_step(STEP_CREATE, 0);
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
		session_refuse(STEP_CONFIG, PROBLEM_CONFIG,
					   "It may have been written by a newer version of dsched: update this instance.",
					   "the configuration of cluster \"%s\" in etcd cannot be read: %s", dsched_cluster_name, err);
		return;
	}
	if (config.partitions != dsched_partitions)
	{
		snprintf(hint, sizeof(hint), "Set dsched.partitions = %d and restart the server. To change the number for the whole cluster, "
				 "set it on all instances, restart them all, and call dsched.recover_cluster(partitions => %d) on one.",
				 config.partitions, dsched_partitions);
		session_refuse(STEP_CONFIG, PROBLEM_CONFIG, hint,
					   "cluster \"%s\" has %d partitions, but dsched.partitions is %d here", dsched_cluster_name,
					   config.partitions, dsched_partitions);
		return;
	}

	own_session.recovered = config.nprevious > 0;
	own_session.number = config.number;
	(void) session_remembered(config.incarnation, &floor);
	if (strcmp(own_session.incarnation, config.incarnation) == 0)
		floor = Max(floor, own_session.floor_revision);
	if (r->revision < floor)
	{
		refuse_older(psprintf("etcd has been replaced or wiped: its revision is " INT64_FORMAT ", but has been " INT64_FORMAT,
							  r->revision, floor));
		return;
	}
	find_witness(config.incarnation);
	if (own_session.witness != 0)
	{
		if (strcmp(own_session.incarnation, config.incarnation) == 0)
			session_saw_revision(r->revision);
		strlcpy(own_session.found, config.incarnation, sizeof(own_session.found));
		session_set_step(STEP_HISTORY, 0);
		return;
	}
	if (own_session.in_doubt)
	{
		refuse_older("etcd has been replaced or wiped: it was older than it should be, and nothing proves that it is the former one");
		return;
	}
	match_incarnation(config.incarnation);
	session_saw_revision(r->revision);
	after_config();
}

/*
 * What has to be in this incarnation's history: our last heartbeat, or, for a process without one, the last that a database remembers.
 */
static void
find_witness(const char *incarnation)
{
	int db;

	own_session.witness = strcmp(own_session.incarnation, incarnation) == 0 ? own_session.beat_revision : 0;
	own_session.in_doubt = false;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];

		if (slot->state == SCHEDULER_NONE || slot->state == SCHEDULER_ABSENT || !slot->identity_known ||
			strcmp(slot->incarnation, incarnation) != 0)
			continue;
		own_session.witness = Max(own_session.witness, slot->beat_revision);
		own_session.in_doubt |= slot->doubts_etcd;
	}
	LWLockRelease(dsched_shared->control_lock);
}

/* It is the cluster's etcd, but an older one: the databases are to remember that, as its revisions grow. */
static void
refuse_older(const char *problem)
{
	session_refuse(STEP_CONFIG, PROBLEM_REPLACED, replaced_hint, "%s", problem);
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->replaced = true;
	LWLockRelease(dsched_shared->control_lock);
	session_wake_schedulers();
}

static void
after_config(void)
{
	session_set_step(own_session.recovered ? STEP_SETTLE : STEP_LOOK, 0);
}

/*
 * Sessions of the former incarnation cannot be proven any more, but one that was proven right before the recovery may hold
 * for the rest of its deadline, on an instance that cannot reach etcd.  The key has a lease that is longer.
 */
void
session_settle(void)
{
	char key[KEYS_MAX_LEN];

	keys_recovery(key, dsched_cluster_name);
	session_ask(ETCD_PATH_RANGE, etcd_range(key, NULL, 1, true), ETCD_READ, settle_answered);
}

static void
settle_answered(void *arg, const EtcdResponse *r)
{
	if (!session_answered(r))
		return;
	if (etcd_kv_count(r->body) > 0)
		session_set_step(STEP_SETTLE, dsched_boot_now() + SETTLE_RECHECK_US);
	else
		session_set_step(STEP_LOOK, 0);
}

void
session_read_history(void)
{
	session_ask(ETCD_PATH_RANGE, etcd_range_at(session_node_key, NULL, 1, true, own_session.witness),
				ETCD_READ, history_answered);
}

/* What was compacted cannot be asked for any more, and then the revisions alone have to do. */
static void
history_answered(void *arg, const EtcdResponse *r)
{
	bool ours = false;
	EtcdKv kv;

	if (!r->ok && r->grpc_code == ETCD_CODE_OUT_OF_RANGE)
	{
		own_session.request = NULL;
		ours = strstr(r->message, "compacted") != NULL && !own_session.in_doubt;
	}
	else if (!session_answered(r))
		return;
	else if (etcd_kv_at(r->body, 0, &kv))
	{
		ours = kv.mod_revision == own_session.witness;
		etcd_kv_free(&kv);
	}
	if (!ours)
	{
		refuse_older(psprintf("etcd has been replaced or wiped: its history has no revision " INT64_FORMAT " of this instance",
							  own_session.witness));
		return;
	}
	match_incarnation(own_session.found);
	session_saw_revision(r->revision);
	after_config();
}

/* It is the cluster that we know, or the first one; databases that know another one hold themselves. */
static void
match_incarnation(const char *incarnation)
{
	if (strcmp(own_session.incarnation, incarnation) != 0)
	{
		strlcpy(own_session.incarnation, incarnation, sizeof(own_session.incarnation));
		own_session.seen_revision = own_session.beat_revision = 0;
	}
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (strcmp(dsched_shared->incarnation, own_session.incarnation) != 0)
		dsched_shared->beat_revision = 0;
	strlcpy(dsched_shared->incarnation, own_session.incarnation, sizeof(dsched_shared->incarnation));
	dsched_shared->replaced = false;
	pg_atomic_write_u64(&dsched_shared->incarnation_number, (uint64) own_session.number);
	LWLockRelease(dsched_shared->control_lock);
	session_wake_schedulers();

	/* a refusal by the node name is judged by what comes next */
	if (cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_REPLACED ||
		cluster_problem_kind(PROBLEM_OF_SESSION) == PROBLEM_CONFIG)
	{
		cluster_no_problem(PROBLEM_OF_SESSION);
		session_set_state(SESSION_NONE);
	}
}

/* If another instance is faster, its config counts: it is read again in either case. */
void
session_create_config(void)
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
	cluster_need_memory(value);
	etcd_txn_if_create(txn, session_config_key, 0);
	etcd_txn_put(txn, session_config_key, value, len, 0);
	free(value);
	session_ask(ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, create_answered);
}

static void
create_answered(void *arg, const EtcdResponse *r)
{
	if (session_answered(r))
	{
		if (etcd_txn_succeeded(r->body))
			ereport(LOG, (errmsg("dsched: created cluster \"%s\" with %d partitions",
								 dsched_cluster_name, dsched_partitions)));
		own_session.retry_at = 0;
	}
	own_session.step = STEP_CONFIG;
}

/* ---- a heartbeat ----------------------------------------------------------------------------- */

/*
 * The answer came through the quorum, so a revision below one that was seen, or a node key from before our last put,
 * is no delay but an etcd that was restored, with our lease in it.
 */
bool
session_same_etcd(const EtcdResponse *r)
{
	int64 before = 0;
	EtcdKv kv;

	if (r->revision < own_session.floor_revision)
	{
		refuse_older(psprintf("etcd has been replaced or wiped: its revision is " INT64_FORMAT ", but has been " INT64_FORMAT,
							  r->revision, own_session.floor_revision));
		return false;
	}
	if (etcd_kv_at(etcd_txn_response(r->body, BEAT_BEFORE), 0, &kv))
	{
		before = kv.mod_revision;
		etcd_kv_free(&kv);
	}
	if (before < own_session.beat_revision)
	{
		refuse_older(psprintf("etcd has been replaced or wiped: it has forgotten revision " INT64_FORMAT " of this instance",
							  own_session.beat_revision));
		return false;
	}
	return true;
}

bool
session_same_config(const EtcdResponse *r)
{
	EtcdKv kv;
	ConfigInfo config;
	bool same = false;

	if (etcd_kv_at(etcd_txn_response(r->body, BEAT_CONFIG), 0, &kv))
	{
		same = codec_config_decode(kv.value, kv.value_len, &config, NULL, 0) &&
			   strcmp(config.incarnation, own_session.incarnation) == 0 &&
			   config.partitions == dsched_partitions;
		etcd_kv_free(&kv);
	}
	if (!same)
		session_lost("the configuration of the cluster has changed");
	return same;
}
