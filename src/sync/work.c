/*
 * work.c
 *	  Lists of small works on the tables, done in few transactions, and when to try again what failed.
 *
 * A work is a change of one row that nobody waits for.  Up to WORK_BATCH of them share a transaction, one
 * transaction is made a turn, so that the scheduler stays quick.  A work must never wait for a lock: it looks
 * whether the row can be had (job_try_lock()) and says WORK_LOCKED if not; it is tried again later while the
 * others go on.
 *
 * If a transaction fails (a full disk, a value that the table refuses), its works are done again one by one,
 * and one that fails alone waits longer and longer.  So what is wrong with one row is no trouble of another.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "clock.h"
#include "core/backoff.h"
#include "sync/sync_internal.h"

#define WORK_BATCH 200

#define LOCKED_BASE_US INT64CONST(50000)
#define LOCKED_MAX_US INT64CONST(2000000)
#define FAILED_BASE_US INT64CONST(1000000)
#define FAILED_MAX_US INT64CONST(60000000)

/* What one transaction does. */
typedef struct WorkBatch
{
	WorkList   *list;
	WorkItem   *items[WORK_BATCH];
	int			n;
} WorkBatch;

/* ---- trying again ------------------------------------------------------------------------------- */

void
sync_retry_later(Retry *retry, int64 base, int64 max)
{
	retry->failures++;
	retry->at = scheduler.boot + backoff_delay(retry->failures, base, max, pg_prng_uint64(&pg_global_prng_state));
	scheduler_wake_at(retry->at);
}

void
sync_retry_reset(Retry *retry)
{
	retry->failures = 0;
	retry->at = 0;
}

bool
sync_retry_due(const Retry *retry)
{
	if (retry->at <= scheduler.boot)
		return true;
	scheduler_wake_at(retry->at);
	return false;
}

int64
sync_random_id(void)
{
	uint64		random;

	do
	{
		if (!pg_strong_random(&random, sizeof(random)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number")));
		random &= CODEC_MAX_INT;
	} while (random == 0);
	return (int64) random;
}

/* ---- lists -------------------------------------------------------------------------------------- */

void
sync_work_init(WorkList *list)
{
	dlist_init(&list->ready);
	dlist_init(&list->later);
	dlist_init(&list->waiting);
	list->later_at = 0;
	list->alone = 0;
}

void
sync_work_add(WorkList *list, WorkItem *item)
{
	sync_retry_reset(&item->retry);
	dlist_push_tail(&list->ready, &item->node);
	scheduler_wake_at(scheduler.boot);
}

void
sync_work_remove(WorkItem *item)
{
	dlist_delete(&item->node);
}

bool
sync_work_empty(const WorkList *list)
{
	return dlist_is_empty(unconstify(dlist_head *, &list->ready)) &&
		dlist_is_empty(unconstify(dlist_head *, &list->later)) &&
		dlist_is_empty(unconstify(dlist_head *, &list->waiting));
}

void
sync_work_release(WorkList *list)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &list->waiting)
	{
		dlist_delete(iter.cur);
		dlist_push_tail(&list->ready, iter.cur);
		scheduler_wake_at(scheduler.boot);
	}
}

/* Moves what is due from later to ready. */
static void
collect_due(WorkList *list)
{
	dlist_mutable_iter iter;

	if (dlist_is_empty(&list->later))
		return;
	if (list->later_at > scheduler.boot)
	{
		scheduler_wake_at(list->later_at);
		return;
	}
	list->later_at = PG_INT64_MAX;
	dlist_foreach_modify(iter, &list->later)
	{
		WorkItem   *item = dlist_container(WorkItem, node, iter.cur);

		if (item->retry.at <= scheduler.boot)
		{
			dlist_delete(&item->node);
			dlist_push_tail(&list->ready, &item->node);
		}
		else
			list->later_at = Min(list->later_at, item->retry.at);
	}
	if (!dlist_is_empty(&list->later))
		scheduler_wake_at(list->later_at);
}

static void
put_off(WorkList *list, WorkItem *item, int64 base, int64 max)
{
	sync_retry_later(&item->retry, base, max);
	if (dlist_is_empty(&list->later) || item->retry.at < list->later_at)
		list->later_at = item->retry.at;
	dlist_push_tail(&list->later, &item->node);
}

static void
perform_batch(void *arg)
{
	WorkBatch  *batch = arg;

	for (int i = 0; i < batch->n; i++)
		batch->items[i]->outcome = batch->list->perform(batch->items[i]);
}

static void
batch_committed(WorkBatch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		WorkItem   *item = batch->items[i];

		switch (item->outcome)
		{
			case WORK_DONE:
				batch->list->finished(item);
				break;
			case WORK_LOCKED:
				put_off(batch->list, item, LOCKED_BASE_US, LOCKED_MAX_US);
				break;
			case WORK_WAITS:
				dlist_push_tail(&batch->list->waiting, &item->node);
				break;
		}
	}
}

static void
batch_failed(WorkBatch *batch)
{
	if (batch->n == 1)
	{
		put_off(batch->list, batch->items[0], FAILED_BASE_US, FAILED_MAX_US);
		return;
	}
	batch->list->alone = batch->n;
	for (int i = batch->n - 1; i >= 0; i--)
		dlist_push_head(&batch->list->ready, &batch->items[i]->node);
}

void
sync_work_turn(WorkList *list)
{
	WorkBatch	batch = {list};
	int			max = list->alone > 0 ? 1 : WORK_BATCH;

	collect_due(list);
	while (batch.n < max && !dlist_is_empty(&list->ready))
		batch.items[batch.n++] = dlist_container(WorkItem, node, dlist_pop_head_node(&list->ready));
	if (batch.n == 0)
		return;
	if (list->alone > 0)
		list->alone--;

	if (scheduler_transaction(perform_batch, &batch, list->what))
		batch_committed(&batch);
	else
		batch_failed(&batch);
	if (!dlist_is_empty(&list->ready))
		scheduler_wake_at(scheduler.boot);
}
