/*
 * decisions.c
 *	  What executors ask of etcd: may this attempt begin (at_most_once), is this one committed (exactly_once)?
 *
 * Either is a put of a run's key that must not be there yet, in a transaction that compares the epoch of the partition (a run
 * that has outlived a hand-over: not that) and the session.  So
 *
 *	  - of all who ask about one run, or attempt, one gets it;
 *	  - whoever has taken the partition over, and then reads the keys, has read all that will ever be made by those before:
 *		the owner key that they compare is another one;
 *	  - likewise for a session: what a process of before a crash has sent and is still on its way finds another node key
 *		when the next session has begun, even if that goes on with the same owner keys (cluster/session_resume.c).
 *
 * An answer that does not come is no answer.  The question is sent again until one comes, as it can do no harm: the value says
 * who has put it, and is read back when the comparison fails.
 *
 * Many questions go in one request, each in a transaction of its own nested in it.  While one request is under way the next
 * questions gather, so the more there are the more go together, and nobody waits for a timer.
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

/* Three comparisons, or three reads, in each: etcd takes 128 operations. */
#define ASKS_PER_REQUEST 60
#define REQUEST_TIMEOUT_MS 2000
#define RETRY_BASE_US INT64CONST(50000)
#define RETRY_MAX_US INT64CONST(1000000)

typedef struct Ask
{
	int			index;			/* of the entry */
	RunEntry	entry;
} Ask;

static Ask *asks = NULL;		/* sent, and not answered; in the order in which they were asked */
static int	nasks = 0;
static int	nsent = 0;			/* of these, in the request that is under way */
static int64 retry_at = 0;
static int	failures = 0;

static void answered(void *arg, const EtcdResponse *response);

void
decisions_init(void)
{
	int			max = dsched_shared->max_executors;
	RunEntry   *entries;
	int		   *index;

	asks = MemoryContextAllocHuge(scheduler.context, sizeof(Ask) * max);
	entries = palloc(sizeof(RunEntry) * max);
	index = palloc(sizeof(int) * max);
	nasks = delivery_take(scheduler.db, entries, index, max, true);
	for (int i = 0; i < nasks; i++)
	{
		asks[i].index = index[i];
		asks[i].entry = entries[i];
	}
	pfree(entries);
	pfree(index);
}

/* ---- asking -------------------------------------------------------------------------------------- */

/*
 * partition: whose owner key is compared; -1: none, the right is the session's alone.  It is given, not looked for by the name: the
 * last job of a selector may be gone while its run is under way, and that is the end of the place, but not of the run.
 */
EtcdTxn *
decision_txn(const RunName *name, const RunMark *mark, int partition)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		key[KEYS_MAX_LEN];
	char	   *text;
	size_t		length;

	/* names of which no key can be made were refused long before */
	if (!keys_run(key, dsched_cluster_name, scheduler.dbname, name))
		elog(ERROR, "no key for a run of job " INT64_FORMAT, name->job_id);
	text = codec_mark_encode(mark, &length);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not encode the key of a run")));
	etcd_txn_if_create(txn, key, 0);
	etcd_txn_put(txn, key, text, length, 0);
	free(text);
	etcd_txn_else_get(txn, key, NULL);
	keys_node(key, dsched_cluster_name, mark->node);
	etcd_txn_if_create(txn, key, mark->session);
	if (partition >= 0 && !MUTANT(NO_EPOCH_COMPARE))
	{
		char		place[SELECTOR_MAX + 1];

		place_name(scheduler.db, partition, place);
		keys_owner(key, dsched_cluster_name, scheduler.dbname, place, name->partition);
		etcd_txn_if_create(txn, key, mark->epoch);
	}
	return txn;
}

static void
describe(const RunEntry *entry, RunName *name, RunMark *mark)
{
	memset(mark, 0, sizeof(*mark));
	delivery_entry_name(entry, name);
	mark->decision = entry->delivery == DELIVERY_EXACTLY_ONCE;
	if (mark->decision)
		name->attempt = 0;
	strlcpy(mark->node, dsched_my_node(), sizeof(mark->node));
	mark->session = (int64) entry->token.session;
	mark->epoch = (int64) entry->token.epoch;
	mark->attempt = entry->key.attempt;
	mark->at = scheduler.now;
	(void) delivery_id(entry, mark->id);
}

/* New questions, behind those that have to be sent again and are still waited for. */
static void
gather(void)
{
	static RunEntry *entries = NULL;
	static int *index = NULL;
	int			max = dsched_shared->max_executors;
	int			kept = 0;
	int			n;

	for (int i = 0; i < nasks; i++)
		if (delivery_is_waited_for(asks[i].index, &asks[i].entry.key, &asks[i].entry.session_bound))
			asks[kept++] = asks[i];
	nasks = kept;
	if (entries == NULL)
	{
		entries = MemoryContextAllocHuge(scheduler.context, sizeof(RunEntry) * max);
		index = MemoryContextAlloc(scheduler.context, sizeof(int) * max);
	}
	n = delivery_take(scheduler.db, entries, index, max - nasks, false);
	for (int i = 0; i < n; i++)
	{
		asks[nasks].index = index[i];
		asks[nasks++].entry = entries[i];
	}
}

static void
send_asks(void)
{
	EtcdTxn    *txn = etcd_txn_begin();

	for (nsent = 0; nsent < Min(nasks, ASKS_PER_REQUEST); nsent++)
	{
		RunName		name;
		RunMark		mark;

		describe(&asks[nsent].entry, &name, &mark);
		/* its partition may have been handed over since it asked; an entry that is another run's by now is not waited for */
		asks[nsent].entry.session_bound = dsched_shared->entries[asks[nsent].index].session_bound;
		if (asks[nsent].entry.session_bound)
			scheduler.slot->bound_session = asks[nsent].entry.token.session;
		etcd_txn_nest(txn, decision_txn(&name, &mark, asks[nsent].entry.session_bound ? -1 : asks[nsent].entry.token.partition));
	}
	/* as good as idempotent: who finds its own key there has got it */
	if (etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REQUEST_TIMEOUT_MS, answered,
				  NULL) == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

void
decisions_turn(void)
{
	if (scheduler.etcd == NULL || nsent > 0 || (nasks == 0 && scheduler.slot->asking == 0))
		return;
	if (retry_at > scheduler.boot)
	{
		scheduler_wake_at(retry_at);
		return;
	}
	gather();
	if (nasks > 0)
		send_asks();
}

/* ---- answers ------------------------------------------------------------------------------------- */

static Decision
read_decision(const RunEntry *entry, const cJSON *nested)
{
	EtcdKv		kv;
	RunMark		mark;
	RunName		name;
	RunMark		ours;
	bool		same;

	if (etcd_txn_succeeded(nested))
		return DECISION_GRANTED;
	if (!etcd_kv_at(etcd_txn_response(nested, 0), 0, &kv))
		return DECISION_REFUSED;
	describe(entry, &name, &ours);
	same = codec_mark_decode(kv.value, kv.value_len, &mark, NULL, 0) && strcmp(mark.id, ours.id) == 0;
	etcd_kv_free(&kv);
	return same ? DECISION_GRANTED : DECISION_TAKEN;
}

/* Refused for its epoch, which does not count any more: it was handed over alive while it was asked about. */
static bool
is_to_be_asked_again(const Ask *ask, const cJSON *nested)
{
	bool		session_bound = false;

	return read_decision(&ask->entry, nested) == DECISION_REFUSED && !ask->entry.session_bound &&
		delivery_is_waited_for(ask->index, &ask->entry.key, &session_bound) && session_bound;
}

static void
answered(void *arg, const EtcdResponse *response)
{
	int			kept = 0;

	scheduler_refresh_time();
	if (!response->ok)
	{
		if (failures++ == 0)
			ereport(LOG, (errmsg("dsched: could not ask etcd for the decision about %d runs: %s", nsent, response->message)));
		nsent = 0;
		retry_at = scheduler.boot +
			backoff_delay(failures, RETRY_BASE_US, RETRY_MAX_US, pg_prng_uint64(&pg_global_prng_state));
		scheduler_wake_at(retry_at);
		return;
	}
	failures = 0;
	retry_at = 0;
	for (int i = 0; i < nasks; i++)
	{
		const cJSON *nested = i < nsent ? etcd_txn_response(response->body, i) : NULL;

		if (i >= nsent || is_to_be_asked_again(&asks[i], nested))
			asks[kept++] = asks[i];
		else
			delivery_answer(asks[i].index, &asks[i].entry.key, read_decision(&asks[i].entry, nested));
	}
	nasks = kept;
	nsent = 0;
	if (nasks > 0)
		scheduler_wake_at(scheduler.boot);
}
