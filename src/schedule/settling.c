/*
 * settling.c
 *	  Prepared transactions of exactly_once whose executors are gone: committed or rolled back as etcd says.
 *
 * They are looked for when the scheduler starts and whenever an executor has left one, and before a partition is taken over (its
 * slots are opened by the rows, and the row of such a run is in the transaction).
 *
 * The verdict comes from one read of etcd, at one revision, of the run's key, the owner key and all node keys:
 *
 *	  the key is there, under run/ or decided/, with our gid	COMMIT PREPARED
 *	  it is there with another one								ROLLBACK PREPARED: a run has one key, ever
 *	  it is not there, and the session under which the decision would be made, or its epoch, is gone
 *																ROLLBACK PREPARED
 *	  it is not there, and both live							it can still come
 *
 * In the third case no request that is still on its way can make the key any more, as it compares both keys, and no create_revision
 * ever comes back.  So it needs no lock and no record of the abort, and the read may even be an old one, as long as it is not
 * older than the session and the epoch themselves.  (Of a session that has asked about runs that were handed over alive the end of
 * the epoch says nothing.)  In the fourth case, if session and epoch are ours (an executor could not wait
 * for the answer), we ask for the decision in its place; else somebody has copied this server, and the original decides.
 *
 * Nothing is touched whose cluster is not the one that we are in: an instance without etcd, a wiped or replaced one.  Such a
 * transaction waits for a person; status() shows it, and its partition is not taken over here, but left to the other instances
 * (partition.c).
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "core/backoff.h"
#include "delivery.h"
#include "mutant.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* Each needs three reads, and all together two more: etcd takes 128 operations. */
#define DOUBTS_PER_REQUEST 40
#define REQUEST_TIMEOUT_MS 2000
#define RETRY_BASE_US INT64CONST(100000)
#define RETRY_MAX_US INT64CONST(5000000)
#define SETTLED_BY_THEMSELVES "They are settled by themselves when that ends."

typedef enum Verdict
{
	VERDICT_NONE,				/* not yet */
	VERDICT_COMMIT,
	VERDICT_ROLLBACK,
	VERDICT_ASK					/* it is ours to ask for */
} Verdict;

typedef struct Doubt
{
	char		text[GID_MAX];
	RunGid		gid;
	bool		readable;		/* else the name is not one of ours after all */
	Verdict		verdict;
	bool		bound;			/* was handed over alive */
	RunMark		mark;			/* of VERDICT_COMMIT */
} Doubt;

static Doubt *doubts = NULL;		/* in scheduler.context */
static int	ndoubts = 0;
static bool looked = false;		/* the list is that of the server */
static bool etcd_spoke = false; /* the last time that it was asked */
static bool in_flight = false;
static int64 retry_at = 0;
static int	failures = 0;

static bool is_listed(const RunKey *key);
static void look(void);
static void read_verdicts(void);
static void verdicts_answered(void *arg, const EtcdResponse *response);
static void carry_out(void);

void
settling_wanted(void)
{
	looked = false;
	retry_at = 0;
	scheduler_wake_at(scheduler.boot);
}

/* Is there one of this partition? */
static bool
is_concerned(int partition)
{
	for (int i = 0; i < ndoubts; i++)
		if (!doubts[i].readable || placement_partition(&doubts[i].gid.run) == partition)
			return true;
	return false;
}

bool
settling_allows(int partition)
{
	return looked && !is_concerned(partition);
}

bool
settling_holds(int partition)
{
	return looked && etcd_spoke && is_concerned(partition);
}

bool
settling_idle(void)
{
	return looked && !in_flight && scheduler.in_doubt == 0;
}

/* ---- saying so ----------------------------------------------------------------------------------- */

/* For status(); why: of the first that waits. */
static void
publish(const char *why, const char *hint)
{
	DatabaseSlot *slot = scheduler.slot;

	if (ndoubts == slot->in_doubt && (ndoubts == 0 || strcmp(slot->in_doubt_why, why) == 0))
		return;
	if (ndoubts > 0 && strcmp(slot->in_doubt_why, why) != 0)
		ereport(LOG,
				(errmsg("dsched: %d prepared transactions of database \"%s\" wait to be settled: %s", ndoubts, scheduler.dbname, why)));
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	slot->in_doubt = ndoubts;
	strlcpy(slot->in_doubt_why, why, sizeof(slot->in_doubt_why));
	strlcpy(slot->in_doubt_hint, hint, sizeof(slot->in_doubt_hint));
	LWLockRelease(dsched_shared->control_lock);
}

static void
wait_for_a_person(const char *why)
{
	publish(why,
			"Look up in dsched.run of the other instances whether the run was made, then use COMMIT PREPARED or ROLLBACK PREPARED;"
			" the view pg_prepared_xacts has the names.");
}

static void
try_later(void)
{
	failures++;
	retry_at = scheduler.boot + backoff_delay(failures, RETRY_BASE_US, RETRY_MAX_US, pg_prng_uint64(&pg_global_prng_state));
	scheduler_wake_at(retry_at);
}

/* ---- finding them -------------------------------------------------------------------------------- */

static void
read_list(void *arg)
{
	MemoryContext old = CurrentMemoryContext;
	List	   *gids = prepared_list();
	ListCell   *lc;

	MemoryContextSwitchTo(scheduler.context);
	if (doubts != NULL)
		pfree(doubts);
	doubts = palloc0(sizeof(Doubt) * Max(list_length(gids), 1));
	ndoubts = 0;
	foreach(lc, gids)
	{
		Doubt	   *doubt = &doubts[ndoubts];
		const char *gid = lfirst(lc);

		/* somebody is at it */
		if (delivery_has_executor(scheduler.db, gid))
			continue;
		strlcpy(doubt->text, gid, sizeof(doubt->text));
		doubt->readable = gid_read(gid, &doubt->gid);
		ndoubts++;
	}
	MemoryContextSwitchTo(old);
}

bool
settling_has(const RunKey *key)
{
	return !looked || is_listed(key);
}

bool
settling_waits(const RunKey *key)
{
	return is_listed(key);
}

static bool
is_listed(const RunKey *key)
{
	for (int i = 0; i < ndoubts; i++)
		if (doubts[i].readable && doubts[i].gid.run.job_id == key->job_id && doubts[i].gid.run.trigger_id == key->trigger_id &&
			doubts[i].gid.run.slot - CODEC_EPOCH_DIFF == key->scheduled_for && doubts[i].gid.run.attempt == key->attempt)
			return true;
	return false;
}

/* Open runs that are in doubt no more: their transactions are finished, by us or by somebody. */
static void
close_settled(void)
{
	for (int i = 0; i < places_shared() && scheduler.in_doubt > 0; i++)
	{
		dlist_mutable_iter iter;

		dlist_foreach_modify(iter, &scheduler.partitions[i].open)
		{
			OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

			if (run->in_doubt && !is_listed(&run->key))
				finish_in_doubt(run);
		}
	}
	advance_jobs();
}

static void
look(void)
{
	bool		before = looked;
	int			had = ndoubts;

	looked = scheduler_transaction(read_list, NULL, "looking for prepared transactions");
	if (!looked)
	{
		try_later();
		return;
	}
	close_settled();
	if (ndoubts < had)
		recovery_end_rows();
	if (ndoubts == 0)
	{
		failures = 0;
		retry_at = 0;
		publish("", "");
	}
	/* partitions may have waited for it */
	if (!before)
		scheduler_wake_at(scheduler.boot);
}

/* ---- etcd's word --------------------------------------------------------------------------------- */

static bool
can_be_asked(void)
{
	if (scheduler.etcd == NULL)
		wait_for_a_person("this instance runs without etcd, where the decision is");
	else if (scheduler.held)
		wait_for_a_person("the jobs of this database do not run here");
	else if (scheduler.identity.incarnation[0] == '\0')
		publish("this database has not joined the cluster yet", SETTLED_BY_THEMSELVES);
	else
		return true;
	return false;
}

static void
read_verdicts(void)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		key[KEYS_MAX_LEN];
	char		end[KEYS_MAX_LEN];

	keys_config(key, dsched_cluster_name);
	etcd_txn_get(txn, key, NULL);
	keys_node_prefix(key, dsched_cluster_name);
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	for (int i = 0; i < Min(ndoubts, DOUBTS_PER_REQUEST); i++)
	{
		RunName		name = doubts[i].gid.run;

		/* one that is not readable has these, too, for the count */
		if (!doubts[i].readable)
			delivery_run_name(&(RunKey) {.job_id = 1}, scheduler.db, 0, &name);
		name.attempt = 0;
		keys_run(key, dsched_cluster_name, scheduler.dbname, &name);
		etcd_txn_get(txn, key, NULL);
		keys_decided(key, dsched_cluster_name, scheduler.dbname, &name);
		etcd_txn_get(txn, key, NULL);
		/* which selector it was is not in the name */
		if (strcmp(name.place, KEYS_PLACE_ANY) == 0)
		{
			keys_owner(key, dsched_cluster_name, scheduler.dbname, name.place, name.partition);
			etcd_txn_get(txn, key, NULL);
		}
		else
		{
			keys_owner_prefix(key, dsched_cluster_name, scheduler.dbname);
			keys_prefix_end(key, end);
			etcd_txn_get(txn, key, end);
		}
	}
	in_flight = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_READ, REQUEST_TIMEOUT_MS,
						  verdicts_answered, NULL) != NULL;
	if (!in_flight)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

static bool
same_incarnation(const cJSON *range, const Doubt *doubt)
{
	ConfigInfo	config;
	EtcdKv		kv;
	bool		same;

	if (!etcd_kv_at(range, 0, &kv))
		return false;
	same = codec_config_decode(kv.value, kv.value_len, &config, NULL, 0) &&
		strcmp(config.incarnation, doubt->gid.incarnation) == 0 &&
		strcmp(scheduler.identity.incarnation, doubt->gid.incarnation) == 0;
	etcd_kv_free(&kv);
	return same;
}

/* Is there a key in the answer that was created at this revision? */
static bool
has_key_of(const cJSON *range, uint64 create_revision)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		if (etcd_json_uint64(item, "create_revision") == create_revision)
			return true;
	}
	return false;
}

/* Is the epoch of this transaction still that of its partition? */
static bool
epoch_is_owner(const cJSON *range, const RunGid *gid)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		KeyParts	parts;
		EtcdKv		kv;
		char		place[KEYS_SHORT_PLACE];
		bool		is_it;

		/* what cannot be read may be it */
		if (!etcd_kv_read(item, &kv))
			return true;
		is_it = (uint64) kv.create_revision == gid->epoch;
		if (is_it && keys_parse(dsched_cluster_name, kv.key, &parts) && parts.kind == KEY_OWNER)
		{
			keys_short_place(parts.place, place);
			is_it = strcmp(place, gid->run.place) == 0 && parts.partition == gid->run.partition;
		}
		etcd_kv_free(&kv);
		if (is_it)
			return true;
	}
	return false;
}

/* Does the key of the run, in either place, say something? */
static bool
read_mark(const cJSON *range, Doubt *doubt)
{
	EtcdKv		kv;

	if (!etcd_kv_at(range, 0, &kv))
		return false;
	doubt->verdict = VERDICT_NONE;
	if (codec_mark_decode(kv.value, kv.value_len, &doubt->mark, NULL, 0))
		doubt->verdict = strcmp(doubt->mark.id, doubt->text) == 0 ? VERDICT_COMMIT : VERDICT_ROLLBACK;
	etcd_kv_free(&kv);
	return true;
}

/* Has its partition come back meanwhile, with the run in it?  The account goes on saying that it is bound. */
static bool
came_back(const Doubt *doubt, const RunKey *key)
{
	int			partition = placement_partition(&doubt->gid.run);
	dlist_iter	iter;

	if (partition < 0)
		return false;
	dlist_foreach(iter, &scheduler.partitions[partition].open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (run->in_doubt && run->bound && run_key_same(&run->key, key))
			return true;
	}
	return false;
}

static bool
is_bound(const Doubt *doubt)
{
	RunKey		key;

	remote_run_key(&doubt->gid.run, &key);
	return reports_know(&key) || came_back(doubt, &key);
}

/* Why it has to wait, or NULL.  *for_a_person: nothing that we can expect will end that. */
static const char *
judge(Doubt *doubt, const cJSON *body, int first, const EtcdResponse *response, bool *for_a_person)
{
	bool		session_lives;
	bool		epoch_lives;

	doubt->verdict = VERDICT_NONE;
	*for_a_person = true;
	if (!doubt->readable)
		return "its name cannot be read";
	if (!same_incarnation(etcd_txn_response(body, 0), doubt))
		return "it belongs to another cluster, or to one whose etcd was replaced";
	if (read_mark(etcd_txn_response(body, first), doubt) || read_mark(etcd_txn_response(body, first + 1), doubt))
		return doubt->verdict == VERDICT_NONE ? "its decision in etcd cannot be read" : NULL;
	*for_a_person = false;
	if ((uint64) response->revision < doubt->gid.epoch || (uint64) response->revision < doubt->gid.session)
		return "etcd has answered from before it was begun";
	session_lives = has_key_of(etcd_txn_response(body, 1), doubt->gid.session);
	epoch_lives = epoch_is_owner(etcd_txn_response(body, first + 2), &doubt->gid);
	/* one that was handed over alive is decided under its session alone, which can still be */
	doubt->bound = session_lives && is_bound(doubt);
	/* or may be on its way */
	if (session_lives && !epoch_lives && !doubt->bound && scheduler.slot->bound_session == doubt->gid.session)
		return "the session under which it was prepared is not over";
	if (!session_lives || (!epoch_lives && !doubt->bound) || MUTANT(EAGER_SETTLEMENT))
	{
		doubt->verdict = VERDICT_ROLLBACK;
		return NULL;
	}
	if (doubt->gid.session != pg_atomic_read_u64(&dsched_shared->session))
		return "the session under which it was prepared is not over";
	doubt->verdict = VERDICT_ASK;
	return NULL;
}

static void
verdicts_answered(void *arg, const EtcdResponse *response)
{
	const char *why = NULL;
	bool		person = false;

	scheduler_refresh_time();
	in_flight = false;
	etcd_spoke = response->ok;
	if (!response->ok)
	{
		publish(psprintf("etcd does not answer: %s", response->message), SETTLED_BY_THEMSELVES);
		try_later();
		return;
	}
	if (!looked)
		return;
	for (int i = 0; i < Min(ndoubts, DOUBTS_PER_REQUEST); i++)
	{
		bool		for_a_person;
		const char *reason = judge(&doubts[i], response->body, 2 + 3 * i, response, &for_a_person);

		if (reason == NULL || (why != NULL && (person || !for_a_person)))
			continue;
		why = reason;
		person = for_a_person;
	}
	if (person)
		wait_for_a_person(why);
	else if (why != NULL)
		publish(why, SETTLED_BY_THEMSELVES);
	carry_out();
}

/* ---- doing it ------------------------------------------------------------------------------------ */

static void
finish(void *arg)
{
	const Doubt *doubt = arg;

	/* no snapshot may be held, and nothing of ours is to commit with it */
	prepared_finish(doubt->text, doubt->verdict == VERDICT_COMMIT);
}

static void
asked(void *arg, const EtcdResponse *response)
{
	scheduler_refresh_time();
	in_flight = false;
	/* whatever came of it is to be read */
	if (response->ok)
		settling_wanted();
	else
		try_later();
}

/* What its executor would have asked, had it waited. */
static void
ask_for(const Doubt *doubt)
{
	EtcdTxn    *txn = etcd_txn_begin();
	RunName		name = doubt->gid.run;
	RunMark		mark = {0};
	int			partition = doubt->bound ? -1 : placement_partition(&name);

	/* its place is being given up: soon its epoch will be over */
	if (!doubt->bound && partition < 0)
	{
		etcd_txn_free(txn);
		try_later();
		return;
	}
	name.attempt = 0;
	mark.decision = true;
	strlcpy(mark.node, dsched_my_node(), sizeof(mark.node));
	mark.session = (int64) doubt->gid.session;
	mark.epoch = (int64) doubt->gid.epoch;
	mark.attempt = doubt->gid.run.attempt;
	mark.at = scheduler.now;
	strlcpy(mark.id, doubt->text, sizeof(mark.id));
	/* a scheduler after us does not know that it was handed over, but has to know that the key can still come */
	if (doubt->bound)
		scheduler.slot->bound_session = doubt->gid.session;
	etcd_txn_nest(txn, decision_txn(&name, &mark, partition));
	in_flight = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REQUEST_TIMEOUT_MS, asked,
						  NULL) != NULL;
}

static void
note_decision(const Doubt *doubt)
{
	int			partition = placement_partition(&doubt->gid.run);
	dlist_iter	iter;

	if (partition < 0)
		return;
	dlist_foreach(iter, &scheduler.partitions[partition].open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (!run->in_doubt || run->key.job_id != doubt->gid.run.job_id || run->key.trigger_id != doubt->gid.run.trigger_id ||
			run->key.scheduled_for != doubt->gid.run.slot - CODEC_EPOCH_DIFF || run->mark != NULL)
			continue;
		run->mark = MemoryContextAlloc(scheduler.context, sizeof(RunMark));
		*run->mark = doubt->mark;
	}
}

static void
carry_out(void)
{
	bool		progress = false;

	for (int i = 0; i < Min(ndoubts, DOUBTS_PER_REQUEST); i++)
	{
		Doubt	   *doubt = &doubts[i];

		if (doubt->verdict == VERDICT_ASK && !in_flight)
			ask_for(doubt);
		if (doubt->verdict != VERDICT_COMMIT && doubt->verdict != VERDICT_ROLLBACK)
			continue;
		if (!scheduler_transaction(finish, doubt, "settling a prepared transaction"))
			continue;
		ereport(LOG,
				(errmsg("dsched: %s prepared transaction \"%s\"", doubt->verdict == VERDICT_COMMIT ? "committed" : "rolled back",
						doubt->text)));
		if (doubt->verdict == VERDICT_COMMIT)
			note_decision(doubt);
		progress = true;
	}
	if (progress)
	{
		failures = 0;
		settling_wanted();
	}
	else if (!in_flight)
		try_later();
}

void
settling_turn(void)
{
	if (looked && ndoubts == 0)
		return;
	if (in_flight)
		return;
	if (retry_at > scheduler.boot)
	{
		scheduler_wake_at(retry_at);
		return;
	}
	/* each time anew: a person may have finished them */
	look();
	if (!looked || ndoubts == 0)
		return;
	if (can_be_asked())
		read_verdicts();
	else
		try_later();
}
