/*
 * marks.c
 *	  The keys of runs in etcd (run/): read at a take-over, deleted when the account knows better.
 *
 * A claim of at_most_once is needed until the slot is closed by the account: it is deleted in the transaction that writes that.
 *
 * A decision of exactly_once is needed by whoever takes the partition over, until the account says so; that transaction
 * moves it to decided/.  There it is needed for those that may still have the transaction prepared: a standby that was promoted
 * and has not heard of the COMMIT PREPARED.  So it goes there only when its own instance has committed and flushed, with a lease of
 * dsched.decision_retention, and nobody has to delete it.  Nobody but that instance moves it: while that is away the key stays, the
 * slot is closed all the same, and status() says whose word is missing.
 *
 * Of what is found at a take-over under our own name everything has been settled (settling.c goes first), so our rows have the
 * outcome, or there is none.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "delivery.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* In one state: etcd takes 128 operations, counted along the deepest nesting, of which a batch of states may use 32. */
#define MARKS_PER_WRITE 36
#define LEASE_TIMEOUT_MS 2000
/* Less than that is no use of a lease: etcd knows no shorter ones than an election. */
#define LEASE_MIN_S 60

static int64 lease = 0;			/* for decided/ keys that are put until ... */
static int64 lease_until = 0;	/* boot time */
static bool lease_asked = false;
static int64 lease_retry_at = 0;

/* ---- reading ------------------------------------------------------------------------------------- */

bool
marks_read(const cJSON *item, TakenMark *out)
{
	EtcdKv		kv;
	KeyParts	parts;
	char		problem[256];
	bool		ours;

	memset(out, 0, sizeof(*out));
	if (!etcd_kv_read(item, &kv))
		return false;
	ours = keys_parse(dsched_cluster_name, kv.key, &parts) && parts.kind == KEY_RUN;
	if (ours)
	{
		out->name = parts.run;
		out->create_revision = kv.create_revision;
		out->mod_revision = kv.mod_revision;
	}
	/* whatever it says, somebody has begun this run, or is done with it */
	if (ours && !codec_mark_decode(kv.value, kv.value_len, &out->mark, problem, sizeof(problem)))
	{
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the key of a run in etcd cannot be read: %s", problem),
				 errdetail("Its key is \"%s\". The run is not made again.", kv.key)));
		out->mark.decision = parts.run.attempt == 0;
		out->mark.attempt = Max(parts.run.attempt, 1);
	}
	etcd_kv_free(&kv);
	return ours;
}

void
marks_take(Partition *partition, const cJSON *range)
{
	const cJSON *item;
	MemoryContext old;

	list_free_deep(partition->taken_marks);
	partition->taken_marks = NIL;
	old = MemoryContextSwitchTo(scheduler.context);
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		TakenMark	taken;
		TakenMark  *copy;

		if (!marks_read(item, &taken))
			continue;
		copy = palloc(sizeof(TakenMark));
		*copy = taken;
		partition->taken_marks = lappend(partition->taken_marks, copy);
	}
	MemoryContextSwitchTo(old);
}

void
marks_free(Partition *partition)
{
	ListCell   *lc;

	list_free_deep(partition->taken_marks);
	partition->taken_marks = NIL;
	foreach(lc, partition->done_marks)
	{
		DoneMark   *done = lfirst(lc);

		if (done->mark != NULL)
			pfree(done->mark);
	}
	list_free_deep(partition->done_marks);
	partition->done_marks = NIL;
	marks_publish();
}

/* ---- at a take-over ------------------------------------------------------------------------------ */

static void
key_of(const TakenMark *taken, RunKey *key)
{
	key->scheduled_for = taken->name.slot - CODEC_EPOCH_DIFF;
	key->job_id = taken->name.job_id;
	key->trigger_id = taken->name.trigger_id;
	key->attempt = taken->mark.attempt;
}

static bool
is_ours(const TakenMark *taken)
{
	return strcmp(taken->mark.node, dsched_my_node()) == 0;
}

/* Did it end, by the account, with a failure that was recorded, so that a later attempt is open? */
static bool
has_ended(const Partition *partition, const TakenMark *taken, const RunKey *key)
{
	for (int i = 0; i < partition->taken.npending; i++)
	{
		const PendingRun *pending = &partition->taken.pending[i];

		if (pending->job_id == key->job_id && pending->slot == key->scheduled_for && pending->trigger_id == key->trigger_id &&
			pending->attempt > key->attempt)
			return true;
	}
	return false;
}

/* Is it under way, by the account, on an instance that goes on with it? */
static bool
was_handed_over(const Partition *partition, const RunKey *key)
{
	for (int i = 0; i < partition->taken.npending; i++)
	{
		const PendingRun *pending = &partition->taken.pending[i];

		if (pending->handed_over && pending->job_id == key->job_id && pending->slot == key->scheduled_for &&
			pending->trigger_id == key->trigger_id && pending->attempt == key->attempt)
			return true;
	}
	return false;
}

/* Nobody will ever know more of it than this. */
static void
record_lost(const Partition *partition, const TakenMark *taken, const RunKey *key)
{
	Job		   *job = timetable_find(key->job_id);
	ClosedSlot	closed = {0};

	if (job == NULL)
		return;
	describe_slot(&closed, job, key->scheduled_for);
	closed.key = *key;
	closed.status = RUN_LOST;
	closed.replaces = true;
	closed.was_open = true;
	strlcpy(closed.sqlstate, "57P01", sizeof(closed.sqlstate));
	if (taken->mark.decision)
		snprintf(closed.message, sizeof(closed.message),
				 "it was committed, but this server does not have it any more: "
				 "it is a standby that was promoted, or was restored");
	else
		snprintf(closed.message, sizeof(closed.message), "instance \"%s\" had begun it, and was lost", taken->mark.node);
	closing_add(&closed);
	notify_run(key, job->job_name, job->username, RUN_LOST, false);
}

void
marks_done_with(Partition *partition, const RunName *name, const RunMark *mark)
{
	MemoryContext old;
	DoneMark   *done;
	ListCell   *lc;

	/* one key must not be put twice in one transaction */
	foreach(lc, partition->done_marks)
	{
		done = lfirst(lc);
		if (done->name.job_id == name->job_id && done->name.slot == name->slot && done->name.trigger_id == name->trigger_id &&
			done->name.attempt == name->attempt && (done->mark == NULL) == (mark == NULL))
			return;
	}
	old = MemoryContextSwitchTo(scheduler.context);
	done = palloc0(sizeof(DoneMark));

	done->name = *name;
	if (mark != NULL)
	{
		done->mark = palloc(sizeof(RunMark));
		*done->mark = *mark;
	}
	partition->done_marks = lappend(partition->done_marks, done);
	MemoryContextSwitchTo(old);
	partition_touch(partition);
}

/* Has the row of this attempt an outcome? */
static bool
is_recorded(const RunKey *key)
{
	RunStatus	status = run_lookup(key);

	return status != RUN_STATUS_NONE && status != RUN_RUNNING;
}

/* What to make of each; those that stay count as rows from here on.  In a transaction. */
void
marks_open(Partition *partition)
{
	ListCell   *lc;

	foreach(lc, partition->taken_marks)
	{
		TakenMark  *taken = lfirst(lc);
		RunKey		key;
		bool		recorded;

		key_of(taken, &key);
		recorded = is_recorded(&key);
		if (!taken->mark.decision && (has_ended(partition, taken, &key) || was_handed_over(partition, &key) ||
									  run_find_executor(&key, partition->number, NULL) >= 0))
		{
			/* it is that run's, which takes it away at its end */
			pfree(taken);
			partition->taken_marks = foreach_delete_current(partition->taken_marks, lc);
			continue;
		}
		/* an executor of a session before this one is about to commit it: leftovers.c will see */
		if (taken->mark.decision && is_ours(taken) && delivery_has_executor(scheduler.db, taken->mark.id))
			continue;
		if (!recorded && (!taken->mark.decision || is_ours(taken)))
			record_lost(partition, taken, &key);
		if (!taken->mark.decision)
			marks_done_with(partition, &taken->name, NULL);
		else if (is_ours(taken))
			marks_done_with(partition, &taken->name, &taken->mark);
	}
	marks_publish();
}

void
marks_add_history(const RunKey *key, RunHistory *history)
{
	for (int i = 0; i < places_shared(); i++)
	{
		ListCell   *lc;

		foreach(lc, scheduler.partitions[i].taken_marks)
		{
			const TakenMark *taken = lfirst(lc);
			RunKey		of;

			key_of(taken, &of);
			if (of.job_id != key->job_id || of.scheduled_for != key->scheduled_for || of.trigger_id != key->trigger_id)
				continue;
			if (history->attempt > of.attempt || (history->attempt == of.attempt && history->status != RUN_RUNNING))
				continue;
			history->attempt = of.attempt;
			history->status = taken->mark.decision ? RUN_SUCCEEDED : RUN_LOST;
			history->lost += !taken->mark.decision;
		}
	}
}

/* For status(): which instance has yet to say that it has committed. */
void
marks_publish(void)
{
	const TakenMark *first = NULL;
	int			n = 0;

	for (int i = 0; i < places_shared(); i++)
	{
		ListCell   *lc;

		foreach(lc, scheduler.partitions[i].taken_marks)
		{
			const TakenMark *taken = lfirst(lc);

			if (!taken->mark.decision || is_ours(taken))
				continue;
			if (n++ == 0)
				first = taken;
		}
	}
	if (n == scheduler.slot->decided_elsewhere)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->decided_elsewhere = n;
	strlcpy(scheduler.slot->decided_by, first != NULL ? first->mark.node : "", sizeof(scheduler.slot->decided_by));
	LWLockRelease(dsched_shared->control_lock);
}

/* ---- what is done with --------------------------------------------------------------------------- */

void
marks_keep(OpenRun *run, const RunEntry *entry)
{
	if (!delivery_is_shared(run->partition) || entry->delivery == DELIVERY_AT_LEAST_ONCE)
		return;
	run->claimed |= entry->claimed;
	if (entry->delivery != DELIVERY_EXACTLY_ONCE || entry->status != RUN_SUCCEEDED)
		return;
	if (run->mark == NULL)
		run->mark = MemoryContextAllocZero(scheduler.context, sizeof(RunMark));
	run->mark->decision = true;
	strlcpy(run->mark->node, dsched_my_node(), sizeof(run->mark->node));
	run->mark->session = (int64) entry->token.session;
	run->mark->epoch = (int64) entry->token.epoch;
	run->mark->attempt = entry->key.attempt;
	run->mark->at = entry->finished_at;
	(void) delivery_id(entry, run->mark->id);
}

void
marks_close(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];
	bool		claims = run->claimed ||
		(run->job != NULL && run->job->policy->delivery == DELIVERY_AT_MOST_ONCE && run->key.attempt > 1);
	RunName		name;

	if (!delivery_is_shared(run->partition) || (!claims && run->mark == NULL))
		return;
	delivery_run_name(&run->key, scheduler.db, run->partition, &name);
	name.attempt = 0;
	marks_done_with(partition, &name, run->mark);
	if (run->mark != NULL)
		pfree(run->mark);
	run->mark = NULL;
}

/* ---- leases of decided/ -------------------------------------------------------------------------- */

/* How long one is used, beyond which its keys would live much longer than asked for. */
static int64
lease_use_us(void)
{
	return Max(dsched_decision_retention / 8, LEASE_MIN_S) * USECS_PER_SEC;
}

static void
lease_granted(void *arg, const EtcdResponse *response)
{
	scheduler_refresh_time();
	lease_asked = false;
	lease = response->ok ? etcd_json_int64(response->body, "ID") : 0;
	if (lease != 0)
		lease_until = response->sent_at + lease_use_us();
	else
		lease_retry_at = scheduler.boot + USECS_PER_SEC;
	scheduler_wake_at(lease != 0 ? scheduler.boot : lease_retry_at);
	for (int i = 0; i < places_shared(); i++)
		if (scheduler.partitions[i].step != STEP_NONE && scheduler.partitions[i].done_marks != NIL)
			partition_touch(&scheduler.partitions[i]);
}

/* Is there one, or none needed?  If not, one is asked for. */
bool
marks_can_move(void)
{
	if (dsched_decision_retention == 0 || (lease != 0 && scheduler.boot < lease_until))
		return true;
	if (lease_asked)
		return false;
	if (lease_retry_at > scheduler.boot)
	{
		scheduler_wake_at(lease_retry_at);
		return false;
	}
	lease_asked = etcd_lease_grant(scheduler.etcd, dsched_decision_retention + lease_use_us() / USECS_PER_SEC + LEASE_MIN_S,
								   LEASE_TIMEOUT_MS, lease_granted, NULL) != NULL;
	return false;
}

void
marks_lease_is_gone(void)
{
	lease = 0;
}

/* ---- writing ------------------------------------------------------------------------------------- */

void
marks_move(EtcdTxn *txn, const DoneMark *done)
{
	char		key[KEYS_MAX_LEN];
	char	   *text;
	size_t		length;

	keys_run(key, dsched_cluster_name, scheduler.dbname, &done->name);
	etcd_txn_delete(txn, key);
	if (dsched_decision_retention == 0)
		return;
	text = codec_mark_encode(done->mark, &length);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not encode the key of a run")));
	keys_decided(key, dsched_cluster_name, scheduler.dbname, &done->name);
	etcd_txn_put(txn, key, text, length, lease);
	free(text);
}

int
marks_write(Partition *partition, EtcdTxn *txn)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, partition->done_marks)
	{
		const DoneMark *done = lfirst(lc);

		if (n == MARKS_PER_WRITE || (done->mark != NULL && !marks_can_move()))
			break;
		if (done->mark != NULL)
			marks_move(txn, done);
		else if (done->name.attempt > 0)
		{
			char		key[KEYS_MAX_LEN];

			/* found at the take-over: the slot may be open, and its next attempt have a claim by now */
			keys_run(key, dsched_cluster_name, scheduler.dbname, &done->name);
			etcd_txn_delete(txn, key);
		}
		else
		{
			char		prefix[KEYS_MAX_LEN];
			char		end[KEYS_MAX_LEN];

			keys_run_attempts_prefix(prefix, dsched_cluster_name, scheduler.dbname, &done->name);
			keys_prefix_end(prefix, end);
			etcd_txn_delete_range(txn, prefix, end);
		}
		n++;
	}
	return n;
}

static void
forget_taken(Partition *partition, const RunName *name)
{
	ListCell   *lc;

	foreach(lc, partition->taken_marks)
	{
		TakenMark  *taken = lfirst(lc);

		if (taken->name.job_id != name->job_id || taken->name.slot != name->slot || taken->name.trigger_id != name->trigger_id)
			continue;
		pfree(taken);
		partition->taken_marks = foreach_delete_current(partition->taken_marks, lc);
	}
}

void
marks_written(Partition *partition, int n)
{
	for (; n > 0; n--)
	{
		DoneMark   *done = linitial(partition->done_marks);

		forget_taken(partition, &done->name);
		if (done->mark != NULL)
			pfree(done->mark);
		pfree(done);
		partition->done_marks = list_delete_first(partition->done_marks);
	}
}
