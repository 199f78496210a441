/*
 * state_etcd.c
 *	  The account of the partitions in etcd: read at a take-over, written at checkpoints.
 *
 * Fencing.  Every transaction compares the create_revision of the partition's owner key with our epoch, so whoever
 * lost the partition can write nothing; and the mod_revision of the state with the one that we last read or wrote, so a
 * write of ours that was delayed on the way cannot come after a later one and roll the watermark back.
 * At most one write is in flight for a partition.
 *
 * Ambiguity.  A write whose answer is lost may have been applied, or be applied later.  We only write again: if the first
 * one was applied in between, the comparison fails, and the state that is read back carries our epoch and a
 * lower seq: ours.  Its revision is taken and the newer account written.
 *
 * Many partitions go in one request, each in a transaction nested in it with its own comparisons, so that one lost
 * partition does not fail the others.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "core/backoff.h"
#include "mutant.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* Half of the partitions is what one of two instances leaves to the other: one read and one write, so that rows are read once. */
#define TAKE_OVER_BATCH 32
#define WRITE_BATCH 32
#define WRITE_BYTES (1024 * 1024)
#define TRIGGERS_PER_WRITE 16
#define REQUEST_TIMEOUT_MS 2000
#define RETRY_BASE_US INT64CONST(100000)
#define RETRY_MAX_US INT64CONST(2000000)
#define HELD_RETRY_US INT64CONST(5000000)

/* What a request was about; palloc'd in scheduler.context, freed by its callback. */
typedef struct Batch
{
	int			n;
	int			numbers[WRITE_BATCH];
	uint64		epochs[WRITE_BATCH];
	int64		seqs[WRITE_BATCH];
	int			triggers[WRITE_BATCH];	/* done_triggers that it deletes */
	int			remotes[WRITE_BATCH];	/* done_remotes, likewise */
	int			marks[WRITE_BATCH]; /* done_marks that it deletes or moves */
} Batch;

static int	failures = 0;		/* requests in a row, for the back-off */

static Partition *still_ours(const Batch *batch, int i);
static void retry_later(Partition *partition, int64 delay);
static int64 backoff(void);
static EtcdTxn *read_one(Partition *partition);
static void taken(void *arg, const EtcdResponse *response);
static bool take_state(Partition *partition, const cJSON *nested);
static void take_triggers(Partition *partition, const cJSON *range);
static void claim(Partition **partitions, int n);
static EtcdTxn *write_one(Partition *partition, bool final, Batch *batch);
static void written(void *arg, const EtcdResponse *response);
static void write_succeeded(Partition *partition, const Batch *batch, int i, const cJSON *nested, int64 revision);
static void write_refused(Partition *partition, const Batch *batch, int i, const cJSON *nested);

/*
 * Ownership can end and be taken over anew under the same epoch, while a request is under way: its answer is not that to the
 * request of now.  The pointer tells, as a batch lives until it is answered.
 */
static Partition *
still_ours(const Batch *batch, int i)
{
	Partition  *partition = &scheduler.partitions[batch->numbers[i]];

	return partition->step != STEP_NONE && partition->epoch == batch->epochs[i] && partition->request == batch ? partition : NULL;
}

static int64
backoff(void)
{
	return backoff_delay(failures, RETRY_BASE_US, RETRY_MAX_US, pg_prng_uint64(&pg_global_prng_state));
}

/* ---- taking over ------------------------------------------------------------------------------- */

/* Back to the beginning of a take-over, after a while. */
static void
retry_later(Partition *partition, int64 delay)
{
	codec_state_free(&partition->taken);
	partition_free_triggers(partition);
	partition->step = STEP_NONE;
	partition->retry_at = scheduler.boot + delay;
	scheduler_wake_at(partition->retry_at);
}

static void
owner_key(const Partition *partition, char *out)
{
	keys_owner(out, dsched_cluster_name, scheduler.dbname, partition_place(partition->number),
			   place_number(partition->number));
}

static void
state_key(const Partition *partition, char *out)
{
	keys_state(out, dsched_cluster_name, scheduler.dbname, partition_place(partition->number),
			   place_number(partition->number));
}

/*
 * Adds a read of the last revision of the definitions of a partition's jobs.  Those of a selector have their definitions under
 * the keys of many: the last of all of them is late enough, as one watch brings them in their order.
 */
static void
add_jobrev(EtcdTxn *txn, const Partition *partition)
{
	char		key[KEYS_MAX_LEN];
	char		end[KEYS_MAX_LEN];

	if (place_of(partition->number) == PLACE_IS_ANY)
	{
		keys_jobrev(key, dsched_cluster_name, scheduler.dbname, partition->number);
		etcd_txn_get(txn, key, NULL);
		return;
	}
	keys_jobrev_prefix(key, dsched_cluster_name, scheduler.dbname);
	keys_prefix_end(key, end);
	etcd_txn_get_newest(txn, key, end);
}

static EtcdTxn *
read_one(Partition *partition)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		key[KEYS_MAX_LEN];
	char		end[KEYS_MAX_LEN];
	char		place[KEYS_SHORT_PLACE];

	owner_key(partition, key);
	if (!MUTANT(NO_EPOCH_COMPARE))
		etcd_txn_if_create(txn, key, (int64) partition->epoch);
	state_key(partition, key);
	etcd_txn_get(txn, key, NULL);
	add_jobrev(txn, partition);
	if (place_of(partition->number) == PLACE_IS_ANY)
		keys_trigger_partition_prefix(key, dsched_cluster_name, scheduler.dbname, partition->number);
	else
		keys_trigger_prefix(key, dsched_cluster_name, scheduler.dbname);
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	/* what is not there can not be made any more: whoever makes one compares the owner key, which is ours */
	place_short_name(scheduler.db, partition->number, place);
	keys_run_partition_prefix(key, dsched_cluster_name, scheduler.dbname, place, place_number(partition->number));
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	return txn;
}

void
state_etcd_take_over(Partition **partitions, int n)
{
	for (int first = 0; first < n; first += TAKE_OVER_BATCH)
	{
		EtcdTxn    *txn = etcd_txn_begin();
		Batch	   *batch = MemoryContextAllocZero(scheduler.context, sizeof(Batch));

		for (int i = first; i < Min(n, first + TAKE_OVER_BATCH); i++)
		{
			etcd_txn_nest(txn, read_one(partitions[i]));
			batch->numbers[batch->n] = partitions[i]->number;
			batch->epochs[batch->n++] = partitions[i]->epoch;
			partitions[i]->request = batch;
		}
		if (etcd_call(scheduler.etcd, "/v3/kv/txn", etcd_txn_end(txn), ETCD_READ, REQUEST_TIMEOUT_MS, taken,
					  batch) == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
}

static void
take_triggers(Partition *partition, const cJSON *range)
{
	const cJSON *item;
	MemoryContext old;

	partition_free_triggers(partition);
	old = MemoryContextSwitchTo(scheduler.context);
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		TriggerDef *trigger;
		EtcdKv		kv;
		int			number;

		if (!etcd_kv_read(item, &kv))
			continue;
		trigger = palloc0(sizeof(TriggerDef));
		if (sync_trigger_read(&kv, &number, trigger))
		{
			placement_note_request(trigger->trigger_id,
								   keys_partition(trigger->username, trigger->job_name, dsched_partitions));
			partition->taken_triggers = lappend(partition->taken_triggers, trigger);
		}
		else
			pfree(trigger);
		etcd_kv_free(&kv);
	}
	MemoryContextSwitchTo(old);
}

/* Takes in what was read about one partition; false: not now. */
static bool
take_state(Partition *partition, const cJSON *nested)
{
	EtcdKv		kv;
	char		problem[256];

	memset(&partition->taken, 0, sizeof(partition->taken));
	partition->taken.watermark = CODEC_MIN_TIME;
	partition->state_mod = 0;
	if (etcd_kv_at(etcd_txn_response(nested, 0), 0, &kv))
	{
		bool		good = codec_state_decode(kv.value, kv.value_len, &partition->taken, problem, sizeof(problem));

		int64		format = good ? CODEC_FORMAT : codec_format(kv.value, kv.value_len);

		partition->state_mod = kv.mod_revision;
		etcd_kv_free(&kv);
		if (!good && format > CODEC_FORMAT)
		{
			partition_decline(partition, format);
			return false;
		}
		if (!good)
		{
			char	   *text = psprintf("the state of partition %d in etcd cannot be read: %s", partition->number,
										problem);

			if (scheduler.slot->problem[0] == '\0')
				ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("%s", text)));
			dsched_set_problem(scheduler.db, text, "Upgrade dsched, if a newer version wrote it; its slots stay open.");
			pfree(text);
			return false;
		}
	}
	partition->jobrev = 0;
	if (etcd_kv_at(etcd_txn_response(nested, 1), 0, &kv))
	{
		partition->jobrev = kv.mod_revision;
		etcd_kv_free(&kv);
	}
	take_triggers(partition, etcd_txn_response(nested, 2));
	marks_take(partition, etcd_txn_response(nested, 3));
	partition->seq = (uint64) partition->taken.epoch == partition->epoch ? partition->taken.seq : 0;
	return true;
}

static void
taken(void *arg, const EtcdResponse *response)
{
	Batch	   *batch = arg;
	Partition  *ready[TAKE_OVER_BATCH];
	int			nready = 0;

	scheduler_refresh_time();
	failures = response->ok ? 0 : failures + 1;
	for (int i = 0; i < batch->n; i++)
	{
		Partition  *partition = still_ours(batch, i);
		const cJSON *nested = etcd_txn_response(response->body, i);

		if (partition == NULL || partition->step != STEP_READING)
			continue;
		partition->taken_revision = response->revision;
		if (!response->ok)
			retry_later(partition, backoff());
		else if (!etcd_txn_succeeded(nested))
			partition_lost(partition, "its owner key in etcd is another one");
		else if (!take_state(partition, nested))
		{
			if (partition->step != STEP_NONE)
				retry_later(partition, HELD_RETRY_US);
		}
		else if (partition->jobrev > sync_revision() && !MUTANT(NO_JOBREV_WAIT))
		{
			partition->step = STEP_BEHIND;
			sync_expect(partition->jobrev);
		}
		else
			ready[nready++] = partition;
	}
	pfree(batch);
	if (nready > 0)
		claim(ready, nready);
}

void
state_etcd_definitions_arrived(void)
{
	Partition  *ready[DSCHED_MAX_PARTITIONS];
	int			n = 0;

	for (int i = 0; i < places_all(); i++)
		if (scheduler.partitions[i].step == STEP_BEHIND && scheduler.partitions[i].jobrev <= sync_revision())
			ready[n++] = &scheduler.partitions[i];
	if (n > 0)
		claim(ready, n);
}

/* All is known: opens what is open and writes the first account under the new epoch. */
static void
claim(Partition **partitions, int n)
{
	scheduler_refresh_time();
	for (int i = 0; i < n; i++)
	{
		partitions[i]->step = STEP_CLAIMING;
		if (!partitions[i]->taken.clean && strcmp(partitions[i]->taken.node, dsched_my_node()) == 0)
			scheduler.unclean = true;
	}
	if (!recovery_compare_histories(partitions, n) || !recovery_open(partitions, n) || !closing_flush())
	{
		for (int i = 0; i < n; i++)
		{
			partition_unplan(partitions[i]);
			drop_runs(partitions[i]);
			list_free_deep(partitions[i]->done_remotes);
			partitions[i]->done_remotes = NIL;
			retry_later(partitions[i], RETRY_MAX_US);
		}
		return;
	}
	state_etcd_write(partitions, n, false);
}

/* ---- writing ------------------------------------------------------------------------------------ */

static EtcdTxn *
write_one(Partition *partition, bool final, Batch *batch)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		owner[KEYS_MAX_LEN];
	char		key[KEYS_MAX_LEN];
	PartitionState state;
	char	   *text;
	size_t		length;
	ListCell   *lc;

	partition->seq++;
	partition->jobrev = sync_revision();
	partition_describe(partition, final, &state);
	purge_account_taken(partition);
	text = codec_state_encode(&state, &length);
	pfree(state.pending);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not encode a partition's state")));

	owner_key(partition, owner);
	if (!MUTANT(NO_EPOCH_COMPARE))
		etcd_txn_if_create(txn, owner, (int64) partition->epoch);
	state_key(partition, key);
	if (!MUTANT(NO_STATE_REVISION))
		etcd_txn_if_mod(txn, key, partition->state_mod);
	etcd_txn_put(txn, key, text, length, 0);
	free(text);
	etcd_txn_else_get(txn, owner, NULL);
	etcd_txn_else_get(txn, key, NULL);
	add_jobrev(txn, partition);

	batch->triggers[batch->n] = 0;
	foreach(lc, partition->done_triggers)
	{
		if (batch->triggers[batch->n] == TRIGGERS_PER_WRITE)
			break;
		keys_trigger(key, dsched_cluster_name, scheduler.dbname, placement_request_key(partition, *(int64 *) lfirst(lc)),
					 *(int64 *) lfirst(lc));
		etcd_txn_delete(txn, key);
		batch->triggers[batch->n]++;
	}
	batch->remotes[batch->n] = remote_write(partition, txn);
	batch->marks[batch->n] = marks_write(partition, txn);
	batch->numbers[batch->n] = partition->number;
	batch->epochs[batch->n] = partition->epoch;
	batch->seqs[batch->n] = partition->seq;
	batch->n++;
	partition->writing = true;
	partition->request = batch;
	partition->dirty = false;
	return txn;
}

void
state_etcd_write(Partition **partitions, int n, bool final)
{
	int			next = 0;

	while (next < n)
	{
		EtcdTxn    *txn = etcd_txn_begin();
		Batch	   *batch = MemoryContextAllocZero(scheduler.context, sizeof(Batch));

		for (; next < n && batch->n < WRITE_BATCH && etcd_txn_bytes(txn) < WRITE_BYTES; next++)
		{
			/* what is reported as done must survive a loss of power here */
			if (partitions[next]->flush_to != InvalidXLogRecPtr && !MUTANT(NO_FLUSH))
				XLogFlush(partitions[next]->flush_to);
			partitions[next]->flush_to = InvalidXLogRecPtr;
			etcd_txn_nest(txn, write_one(partitions[next], final, batch));
		}
		if (etcd_call(scheduler.etcd, "/v3/kv/txn", etcd_txn_end(txn), ETCD_WRITE, REQUEST_TIMEOUT_MS, written,
					  batch) == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
}

static void
write_succeeded(Partition *partition, const Batch *batch, int i, const cJSON *nested, int64 revision)
{
	EtcdKv		jobrev;

	partition->state_mod = revision;
	partition->retry_at = 0;
	purge_account_written(partition);
	for (int k = 0; k < batch->triggers[i]; k++)
	{
		placement_forget_request(*(int64 *) linitial(partition->done_triggers));
		pfree(linitial(partition->done_triggers));
		partition->done_triggers = list_delete_first(partition->done_triggers);
	}
	remote_written(partition, batch->seqs[i], batch->remotes[i]);
	marks_written(partition, batch->marks[i]);
	if (partition->done_triggers != NIL || partition->done_remotes != NIL || partition->done_marks != NIL)
		partition_touch(partition);
	/* the answers to the put and the get stand in the order of the operations */
	if (nested != NULL && etcd_kv_at(etcd_txn_response(nested, 1), 0, &jobrev))
	{
		sync_expect(jobrev.mod_revision);
		etcd_kv_free(&jobrev);
	}
	if (partition->step == STEP_CLAIMING)
		partition_activate(partition);
	else if (partition->step == STEP_HANDING)
		partition_handed_over(partition);
	else if (partition->step == STEP_FINAL && !partition->dirty)
		partition_released(partition);
}

/* The comparison failed: not the owner any more, or an earlier write of ours was applied after all. */
static void
write_refused(Partition *partition, const Batch *batch, int i, const cJSON *nested)
{
	EtcdKv		owner = {0};
	EtcdKv		kv = {0};
	PartitionState state;
	char		problem[256];

	if (!etcd_kv_at(etcd_txn_response(nested, 0), 0, &owner) || owner.create_revision != (int64) partition->epoch)
	{
		etcd_kv_free(&owner);
		partition_lost(partition, "its owner key in etcd is another one");
		return;
	}
	etcd_kv_free(&owner);
	partition_touch(partition);
	if (!etcd_kv_at(etcd_txn_response(nested, 1), 0, &kv))
	{
		partition->state_mod = 0;	/* somebody deleted it; the account here is whole */
		return;
	}
	if (!codec_state_decode(kv.value, kv.value_len, &state, problem, sizeof(problem)))
		partition_lost(partition, "its state in etcd was overwritten by something unreadable");
	else
	{
		if (state.epoch > (int64) partition->epoch ||
			(state.epoch == (int64) partition->epoch && state.seq > batch->seqs[i]))
			partition_lost(partition, "its state in etcd was written by a later owner");
		else
			partition->state_mod = kv.mod_revision;
		codec_state_free(&state);
	}
	etcd_kv_free(&kv);
}

static void
written(void *arg, const EtcdResponse *response)
{
	Batch	   *batch = arg;

	scheduler_refresh_time();
	if (!response->ok && failures == 0)
		ereport(LOG, (errmsg("dsched: could not write partition states to etcd: %s", response->message)));
	failures = response->ok ? 0 : failures + 1;
	if (!response->ok && response->grpc_code == ETCD_CODE_NOT_FOUND)
		marks_lease_is_gone();
	for (int i = 0; i < batch->n; i++)
	{
		Partition  *partition = still_ours(batch, i);
		const cJSON *nested = etcd_txn_response(response->body, i);

		if (partition == NULL || !partition->writing)
			continue;
		partition->writing = false;
		if (response->ok && etcd_txn_succeeded(nested))
			write_succeeded(partition, batch, i, nested, response->revision);
		else if (response->ok)
			write_refused(partition, batch, i, nested);
		else
		{
			partition->retry_at = scheduler.boot + backoff();
			partition_touch(partition);
			scheduler_wake_at(partition->retry_at);
		}
		/* what changed while the request was under way found no checkpoint that could write it */
		if (partition->dirty && partition->step != STEP_NONE)
			partition_touch(partition);
	}
	pfree(batch);
}
