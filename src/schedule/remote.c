/*
 * remote.c
 *	  The owner's side of a run that was handed over alive: another instance still makes it.
 *
 * A run that outlasts dsched.drain_timeout goes on where it is when its partition moves.  The former owner has bound it to its
 * session (create_revision of its node key), and the account that it left names both.  Whoever owns the partition, also
 * the next owner and the one after that, has an open run for it as for one of its own executors: slots that come due find the
 * job running.  It is ended by
 *
 *	  - its outcome: the first state under our epoch puts a command (cmd/), by which that instance (reports.c) knows whom
 *		it owes an answer; the answer is a key (outcome/) that the watch brings.  Its writer compares its own node key and
 *		the command, so none comes after its session is over, and none after we have deleted the command;
 *	  - the end of that session: one read, of the node keys and the outcome, shows that there is no such node key and no outcome.
 *		As an outcome cannot be written any more then, the attempt is lost; unless the key of an exactly_once run is there, which
 *		says that it is committed (delivery.h), and which, likewise, cannot be made any more.
 *
 * Both keys are deleted by the state that no longer lists the run, in one transaction with it: while an account lists it they
 * are there, or will be put by who takes that account over.
 *
 * A cancel is a member of the command.  Timeouts stay with the executor that makes the run.
 *
 * What can be missed: the put of an outcome while we have no watch, or before we had the run.  So after each connection, and
 * when the run is opened, it is looked for.  That a session has ended is first seen in the list of nodes that the coordinator keeps, which
 * is a hint only.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "delivery.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* Of each kind in one state: a transaction has room for 128 operations, over all levels. */
#define REMOTES_PER_WRITE 8
#define REQUEST_TIMEOUT_MS 2000
#define CHECK_AGAIN_US INT64CONST(1000000)
#define UNREADABLE_AGAIN_US INT64CONST(60000000)

typedef struct Check
{
	int			partition;
	uint64		epoch;
	int64		session;
	RunKey		key;
} Check;

void
remote_run_key(const RunName *name, RunKey *out)
{
	out->job_id = name->job_id;
	out->scheduled_for = name->slot - CODEC_EPOCH_DIFF;
	out->trigger_id = name->trigger_id;
	out->attempt = name->attempt;
}

/* ---- which runs ------------------------------------------------------------------------------------ */

bool
remote_open(OpenRun *run, const PendingRun *pending)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	if (pending->session == (int64) partition->session)
	{
		/* the partition has come back to whoever makes it: an executor of ours, or our rows, say what is to be known */
		remote_done(partition, &run->key);
		return false;
	}
	run_wait_nowhere(run);
	run->remote = pending->session;
	run->remote_check = scheduler.boot;
	run->backlog = run->reason == RUN_CATCH_UP || run->reason == RUN_RECOVERY || run->of_backfill;
	run->careful = false;
	/* its key is to go with it */
	run->claimed |= run->job != NULL && run->job->policy->delivery == DELIVERY_AT_MOST_ONCE;
	scheduler.nremote++;
	scheduler.waiting--;
	throttle_count(run, true);
	partition_touch(partition);
	return true;
}

void
remote_forget(OpenRun *run)
{
	if (run->remote == 0)
		return;
	run->remote = run->remote_check = 0;
	run->remote_asked = run->remote_cancelling = false;
	scheduler.nremote--;
	scheduler.waiting++;
	throttle_count(run, false);
}

void
remote_cancel(OpenRun *run)
{
	run->cancelled = true;
	if (run->remote_cancelling)
		return;
	run->remote_cancelling = true;
	run->remote_asked = false;
	run->remote_asked_in = 0;
	partition_touch(&scheduler.partitions[run->partition]);
}

static OpenRun *
find_remote(Partition *partition, const RunKey *key)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (run->remote != 0 && run_key_same(&run->key, key))
			return run;
	}
	return NULL;
}

/* ---- with the account ------------------------------------------------------------------------------ */

void
remote_done(Partition *partition, const RunKey *key)
{
	MemoryContext old;
	RunKey	   *copy;
	ListCell   *lc;

	foreach(lc, partition->done_remotes)
		if (run_key_same(lfirst(lc), key))
			return;
	old = MemoryContextSwitchTo(scheduler.context);
	copy = palloc(sizeof(RunKey));
	*copy = *key;
	partition->done_remotes = lappend(partition->done_remotes, copy);
	MemoryContextSwitchTo(old);
	partition_touch(partition);
}

static void
put_command(Partition *partition, const OpenRun *run, EtcdTxn *txn)
{
	CommandDef	command = {run->remote, run->remote_cancelling};
	char		key[KEYS_MAX_LEN];
	RunName		name;
	size_t		length;
	char	   *text = codec_command_encode(&command, &length);

	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	delivery_run_name(&run->key, scheduler.db, partition->number, &name);
	keys_command(key, dsched_cluster_name, scheduler.dbname, &name);
	etcd_txn_put(txn, key, text, length, 0);
	free(text);
}

int
remote_write(Partition *partition, EtcdTxn *txn)
{
	char		key[KEYS_MAX_LEN];
	RunName		name;
	ListCell   *lc;
	dlist_iter	iter;
	int			ndone = 0;
	int			nasked = 0;

	foreach(lc, partition->done_remotes)
	{
		if (ndone == REMOTES_PER_WRITE)
			break;
		delivery_run_name(lfirst(lc), scheduler.db, partition->number, &name);
		keys_command(key, dsched_cluster_name, scheduler.dbname, &name);
		etcd_txn_delete(txn, key);
		keys_outcome(key, dsched_cluster_name, scheduler.dbname, &name);
		etcd_txn_delete(txn, key);
		ndone++;
	}
	if (scheduler.nremote == 0)
		return ndone;
	dlist_foreach(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (run->remote == 0 || run->remote_asked || nasked == REMOTES_PER_WRITE)
			continue;
		put_command(partition, run, txn);
		run->remote_asked_in = partition->seq;
		nasked++;
	}
	return ndone;
}

void
remote_written(Partition *partition, int64 seq, int ndone)
{
	dlist_iter	iter;

	for (; ndone > 0; ndone--)
	{
		pfree(linitial(partition->done_remotes));
		partition->done_remotes = list_delete_first(partition->done_remotes);
	}
	if (scheduler.nremote == 0)
		return;
	dlist_foreach(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

		if (run->remote == 0 || run->remote_asked)
			continue;
		if (run->remote_asked_in == seq)
			run->remote_asked = true;
		else
			partition_touch(partition);
	}
}

/* ---- outcomes -------------------------------------------------------------------------------------- */

static bool
status_named(const char *name, RunStatus *status)
{
	if (strcmp(name, "not_made") == 0)
	{
		*status = RUN_STATUS_NONE;
		return true;
	}
	for (*status = RUN_SUCCEEDED; *status <= RUN_LOST; (*status)++)
		if (strcmp(run_status_name(*status), name) == 0)
			return true;
	return false;
}

/* False: a newer version wrote it, say.  Then the run stays as it is: guessing could repeat it. */
static bool
take_outcome(OpenRun *run, const EtcdKv *kv)
{
	Partition  *partition = &scheduler.partitions[run->partition];
	OutcomeDef	outcome;
	RunStatus	status;
	char		problem[256];
	char		shown[256];

	if (!codec_outcome_decode(kv->value, kv->value_len, &outcome, problem, sizeof(problem)))
		memset(&outcome, 0, sizeof(outcome));
	else if (outcome.session != run->remote)
		return true;
	else if (!status_named(outcome.status, &status))
	{
		snprintf(problem, sizeof(problem), "its status is not known");
		memset(&outcome, 0, sizeof(outcome));
	}
	if (outcome.session == 0)
	{
		etcd_clean_text(shown, sizeof(shown), kv->key, kv->key_len);
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("dsched: the outcome of a run that another instance made cannot be read: %s", problem),
				 errdetail("Its key is \"%s\". The run stays open until it can be read, or the key is deleted.", shown)));
		return false;
	}
	remote_done(partition, &run->key);
	end_remote_run(run, status, outcome.finished_at, outcome.sqlstate);
	return true;
}

void
remote_outcome_put(const EtcdKv *kv)
{
	KeyParts	parts;
	RunKey		key;
	OpenRun    *run;
	int			partition;

	if (scheduler.nremote == 0 || strlen(kv->key) != kv->key_len ||
		!keys_parse(dsched_cluster_name, kv->key, &parts) || parts.kind != KEY_OUTCOME)
		return;
	partition = placement_partition(&parts.run);
	if (partition < 0 || !partition_is_active(partition))
		return;
	remote_run_key(&parts.run, &key);
	run = find_remote(&scheduler.partitions[partition], &key);
	/* while its first state is on its way: it is looked for right after that */
	if (run != NULL && scheduler.partitions[partition].step == STEP_ACTIVE && !take_outcome(run, kv))
		run->remote_check = scheduler.boot + UNREADABLE_AGAIN_US;
}

/* ---- does its session live? ------------------------------------------------------------------------ */

static bool
session_is_listed(int64 session)
{
	bool		found = false;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->nmembers && !found; i++)
		found = dsched_shared->members[i].session == session;
	LWLockRelease(dsched_shared->control_lock);
	return found;
}

static bool
has_session(const cJSON *nodes, int64 session)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, etcd_kvs(nodes))
	{
		EtcdKv		kv;
		bool		found;

		/* what cannot be read may be it */
		if (!etcd_kv_read(item, &kv))
			return true;
		found = kv.create_revision == session;
		etcd_kv_free(&kv);
		if (found)
			return true;
	}
	return false;
}

static void
checked(void *arg, const EtcdResponse *response)
{
	Check		check = *(Check *) arg;
	Partition  *partition = &scheduler.partitions[check.partition];
	OpenRun    *run;
	EtcdKv		kv;

	pfree(arg);
	scheduler_refresh_time();
	if (partition->step != STEP_ACTIVE || partition->epoch != check.epoch)
		return;
	run = find_remote(partition, &check.key);
	/* not answered: it is asked again at remote_check */
	if (run == NULL || run->remote != check.session || !response->ok)
		return;
	if (etcd_kv_at(etcd_txn_response(response->body, 1), 0, &kv))
	{
		if (!take_outcome(run, &kv))
			run->remote_check = scheduler.boot + UNREADABLE_AGAIN_US;
		etcd_kv_free(&kv);
		return;
	}
	if (has_session(etcd_txn_response(response->body, 0), check.session))
	{
		run->remote_check = session_is_listed(check.session) ? 0 : scheduler.boot + CHECK_AGAIN_US;
		if (run->remote_check != 0)
			scheduler_wake_at(run->remote_check);
		return;
	}
	/* an answer in which we are not there either is no ground to decide on: we hear of that by other ways */
	if (!has_session(etcd_txn_response(response->body, 0), (int64) partition->session))
		return;
	remote_done(partition, &run->key);
	/* exactly_once: it is committed, whoever has to carry it out; unless somebody else's attempt is, by the same key */
	if (etcd_kv_count(etcd_txn_response(response->body, 2)) > 0)
	{
		end_remote_run(run, RUN_SUCCEEDED, 0, "");
		return;
	}
	remote_forget(run);
	lose_run(run, "57P01", "the instance that ran it ended, or lost its lease, before it reported an outcome", 0, 0);
}

/* One read of both, so that they are of one revision. */
static void
check_session(Partition *partition, OpenRun *run)
{
	EtcdTxn    *txn = etcd_txn_begin();
	Check	   *check = MemoryContextAlloc(scheduler.context, sizeof(Check));
	char		key[KEYS_MAX_LEN];
	char		end[KEYS_MAX_LEN];
	RunName		name;

	check->partition = partition->number;
	check->epoch = partition->epoch;
	check->session = run->remote;
	check->key = run->key;
	keys_node_prefix(key, dsched_cluster_name);
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	delivery_run_name(&run->key, scheduler.db, partition->number, &name);
	keys_outcome(key, dsched_cluster_name, scheduler.dbname, &name);
	etcd_txn_get(txn, key, NULL);
	name.attempt = 0;
	keys_run(key, dsched_cluster_name, scheduler.dbname, &name);
	etcd_txn_get(txn, key, NULL);
	run->remote_check = scheduler.boot + CHECK_AGAIN_US;
	scheduler_wake_at(run->remote_check);
	if (etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_READ, REQUEST_TIMEOUT_MS, checked, check) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

void
remotes_turn(void)
{
	if (scheduler.nremote == 0)
		return;
	for (int i = 0; i < places_shared(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];
		dlist_iter	iter;

		if (partition->step != STEP_ACTIVE)
			continue;
		dlist_foreach(iter, &partition->open)
		{
			OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

			if (run->remote == 0)
				continue;
			if (run->remote_check == 0 && !session_is_listed(run->remote))
				run->remote_check = scheduler.boot;
			if (run->remote_check == 0)
				continue;
			if (run->remote_check <= scheduler.boot)
				check_session(partition, run);
			else
				scheduler_wake_at(run->remote_check);
		}
	}
}

void
remotes_reconnected(void)
{
	for (int i = 0; i < places_shared() && scheduler.nremote > 0; i++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, &scheduler.partitions[i].open)
		{
			OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

			if (run->remote != 0)
				run->remote_check = scheduler.boot;
		}
	}
	scheduler_wake_at(scheduler.boot);
}
