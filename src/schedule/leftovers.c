/*
 * leftovers.c
 *	  Decisions of exactly_once that no owner takes away from run/, after a take-over.
 *
 * The owner of a partition moves the decisions that it has made itself (marks.c).  When it was lost before it could, its successor
 * finds them, closes the slots and leaves the keys: only their own instance knows that they are committed.  So
 *
 *	  - an instance that starts, or has lost partitions, looks for decisions of its own in those of others, and moves them;
 *	  - an owner that knows of decisions of others looks from time to time whether they are still there, for status().
 *
 * A key may go only if nobody can need it any more: if the account of the partition was written under an epoch that is younger than
 * the decision.  Its writer has owned first and read the keys then, so it has read this one, and its account has the slot closed.
 * The revision of the account is compared, too.
 *
 * Or if it was decided by a run that was handed over alive, and the account of the new owner lists that no more.  It is known by an
 * epoch of the decision older than the account's, which is older than the decision: that epoch was over when it was made, so the
 * session alone was compared, and the account began with this run in it.
 *
 * Something waits as long as there is a reason, and then looks again, later and later up to half a minute; else this costs nothing.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "core/backoff.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define REQUEST_TIMEOUT_MS 2000
#define RETRY_BASE_US INT64CONST(500000)
#define RETRY_MAX_US INT64CONST(30000000)
#define MOVES_PER_REQUEST 30

static bool wanted = true;		/* look for our own */
static bool in_flight = false;
static int64 retry_at = 0;
static int	tries = 0;

void
leftovers_wanted(void)
{
	wanted = true;
	tries = 0;
	retry_at = 0;
}

static void
later(void)
{
	tries++;
	retry_at = scheduler.boot + backoff_delay(tries, RETRY_BASE_US, RETRY_MAX_US, pg_prng_uint64(&pg_global_prng_state));
}

/* ---- moving our own ------------------------------------------------------------------------------ */

static void
moved(void *arg, const EtcdResponse *response)
{
	scheduler_refresh_time();
	in_flight = false;
	if (!response->ok && response->grpc_code == ETCD_CODE_NOT_FOUND)
		marks_lease_is_gone();
	/* what was refused, or has no answer, is found again */
	wanted = true;
	later();
	scheduler_wake_at(retry_at);
}

static bool
is_settled_by(const PartitionState *account, const TakenMark *left)
{
	TimestampTz slot = left->name.slot - CODEC_EPOCH_DIFF;

	if (account->epoch > left->create_revision)
		return true;
	/* of a full account, or of requests, what is not listed may be open */
	if (left->mark.epoch >= account->epoch || left->name.trigger_id != 0 || account->npending >= CODEC_MAX_ENTRIES)
		return false;
	for (int i = 0; i < account->npending; i++)
	{
		const PendingRun *pending = &account->pending[i];

		if (pending->job_id == left->name.job_id && pending->trigger_id == 0 && pending->slot <= slot && slot <= pending->slot_to)
			return false;
	}
	return true;
}

/* Does the account of this run's partition, in the answer, do without the key?  Then its own key and revision, too. */
static bool
find_account(const cJSON *states, const TakenMark *left, char *key, int64 *mod_revision)
{
	const RunName *run = &left->name;
	const cJSON *item;
	bool		settled = false;

	cJSON_ArrayForEach(item, etcd_kvs(states))
	{
		EtcdKv		kv;
		KeyParts	parts;
		PartitionState state;
		char		place[KEYS_SHORT_PLACE];

		if (!etcd_kv_read(item, &kv))
			continue;
		place[0] = '\0';
		if (keys_parse(dsched_cluster_name, kv.key, &parts) && parts.kind == KEY_STATE)
			keys_short_place(parts.place, place);
		if (strcmp(place, run->place) == 0 && parts.partition == run->partition &&
			codec_state_decode(kv.value, kv.value_len, &state, NULL, 0))
		{
			settled = is_settled_by(&state, left);
			*mod_revision = kv.mod_revision;
			strlcpy(key, kv.key, KEYS_MAX_LEN);
			codec_state_free(&state);
		}
		etcd_kv_free(&kv);
	}
	return settled;
}

typedef struct Lookup
{
	RunKey		key;
	RunStatus	status;
} Lookup;

static void
look_up(void *arg)
{
	Lookup	   *lookup = arg;

	lookup->status = run_lookup(&lookup->key);
}

/* Is it ours, committed, and needed by nobody?  Then its move goes into the transaction. */
static bool
add_move(EtcdTxn *txn, const TakenMark *left, const cJSON *states)
{
	Lookup		lookup = {{left->name.slot - CODEC_EPOCH_DIFF, left->name.job_id, left->name.trigger_id, left->mark.attempt}};
	DoneMark	done = {left->name, unconstify(RunMark *, &left->mark)};
	char		key[KEYS_MAX_LEN];
	char		state[KEYS_MAX_LEN];
	EtcdTxn    *nested;
	int64		mod_revision = 0;

	if (!find_account(states, left, state, &mod_revision) ||
		!scheduler_transaction(look_up, &lookup, "looking up a run") ||
		lookup.status == RUN_STATUS_NONE || lookup.status == RUN_RUNNING || !marks_can_move())
		return false;
	nested = etcd_txn_begin();
	keys_run(key, dsched_cluster_name, scheduler.dbname, &left->name);
	etcd_txn_if_mod(nested, key, left->mod_revision);
	etcd_txn_if_mod(nested, state, mod_revision);
	marks_move(nested, &done);
	etcd_txn_nest(txn, nested);
	return true;
}

/*
 * One in a partition of ours goes with its run, or went with the take-over.  But an executor that outlived the session before this
 * one may have committed it just after that: true, then, and it goes with the next account.
 */
static bool
is_done_with(Partition *partition, const TakenMark *left)
{
	Lookup		lookup = {{left->name.slot - CODEC_EPOCH_DIFF, left->name.job_id, left->name.trigger_id, left->mark.attempt}};
	ListCell   *lc;

	foreach(lc, partition->taken_marks)
	{
		const TakenMark *taken = lfirst(lc);

		if (taken->create_revision != left->create_revision)
			continue;
		if (!scheduler_transaction(look_up, &lookup, "looking up a run") || lookup.status == RUN_STATUS_NONE ||
			lookup.status == RUN_RUNNING)
			return false;
		marks_done_with(partition, &left->name, &left->mark);
		return true;
	}
	return true;
}

/* ---- looking ------------------------------------------------------------------------------------- */

/* Those of others that are gone meanwhile are known to be committed. */
static void
forget_gone(const cJSON *runs)
{
	for (int i = 0; i < places_shared(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];
		ListCell   *lc;

		foreach(lc, partition->taken_marks)
		{
			TakenMark  *taken = lfirst(lc);
			const cJSON *item;
			bool		there = false;

			cJSON_ArrayForEach(item, etcd_kvs(runs))
			{
				there |= etcd_json_int64(item, "create_revision") == taken->create_revision;
			}
			if (there || !taken->mark.decision)
				continue;
			pfree(taken);
			partition->taken_marks = foreach_delete_current(partition->taken_marks, lc);
		}
	}
	marks_publish();
}

static void
looked(void *arg, const EtcdResponse *response)
{
	const cJSON *runs = etcd_txn_response(response->body, 0);
	const cJSON *states = etcd_txn_response(response->body, 1);
	const cJSON *item;
	EtcdTxn    *txn;
	int			ours = 0;
	int			moves = 0;

	scheduler_refresh_time();
	in_flight = false;
	later();
	if (!response->ok)
	{
		scheduler_wake_at(retry_at);
		return;
	}
	forget_gone(runs);
	txn = etcd_txn_begin();
	cJSON_ArrayForEach(item, etcd_kvs(runs))
	{
		TakenMark	left;
		int			partition;

		if (!marks_read(item, &left) || !left.mark.decision || strcmp(left.mark.node, dsched_my_node()) != 0)
			continue;
		/* the place may be none any more: the run was that of its last job */
		partition = placement_partition(&left.name);
		if (partition >= 0 && scheduler.partitions[partition].step != STEP_NONE)
		{
			ours += !is_done_with(&scheduler.partitions[partition], &left);
			continue;
		}
		ours++;
		if (moves < MOVES_PER_REQUEST && add_move(txn, &left, states))
			moves++;
	}
	wanted = ours > 0;
	if (moves == 0)
		etcd_txn_free(txn);
	else
	{
		in_flight = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_WRITE, REQUEST_TIMEOUT_MS, moved, NULL) != NULL;
		if (!in_flight)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
}

void
leftovers_turn(void)
{
	EtcdTxn    *txn;
	char		key[KEYS_MAX_LEN];
	char		end[KEYS_MAX_LEN];

	if (scheduler.etcd == NULL || in_flight || !scheduler.ready || scheduler.held || scheduler.stopping ||
		(!wanted && scheduler.slot->decided_elsewhere == 0))
		return;
	if (retry_at > scheduler.boot)
	{
		scheduler_wake_at(retry_at);
		return;
	}
	txn = etcd_txn_begin();
	keys_run_prefix(key, dsched_cluster_name, scheduler.dbname);
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	keys_state_prefix(key, dsched_cluster_name, scheduler.dbname);
	keys_prefix_end(key, end);
	etcd_txn_get(txn, key, end);
	in_flight = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_READ, REQUEST_TIMEOUT_MS, looked, NULL) != NULL;
	if (!in_flight)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}
