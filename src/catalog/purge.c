/*
 * purge.c
 *	  Deleting old rows of dsched.run, a little at a time.
 *
 * There are two ways through the table.  By time: along the primary key, the oldest first.  By job: along the index
 * run_job, backwards, so of each job the newest first, which counts them on the way; it is read by index alone where vacuum has
 * been.  A walk can be left at any row and gone on with in another transaction: it begins behind the row that it looked at last,
 * and so does not wade again through what it has deleted and vacuum has not yet removed.
 *
 * Nobody waits for a purge, and it waits for nobody: the table's lock is taken only if it is free, and is the one that recording
 * takes; a row that somebody has locked stays until the next time.  Rows are deleted beneath SQL, as they are
 * written (access.c); what was toasted goes with them.
 *
 * Which rows may go is the caller's business.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "clock.h"
#include "compat.h"

/* One part of a walk, for the length of one step. */
typedef struct Step
{
	PurgeWalk  *walk;
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	int64		until;			/* boot time */
	PurgeJudge	judge;
	void	   *arg;
} Step;

/* The clock is read once for so many rows. */
#define ROWS_PER_LOOK 8

static Oid
run_job_index(void)
{
	Oid			index = get_relname_relid("run_job", catalog_require()->schema);

	if (!OidIsValid(index))
		elog(ERROR, "index \"run_job\" is missing");
	return index;
}

/* Deletes the row in the slot, unless somebody has locked or changed it. */
static bool
delete_row(Step *step)
{
	TM_FailureData failure;

	return table_tuple_delete(step->rel, &step->slot->tts_tid, GetCurrentCommandId(true), GetActiveSnapshot(),
							  InvalidSnapshot, false, &failure, false) == TM_Ok;
}

/* What the row in the slot says; false: of what only a newer version knows. */
static bool
read_row(Step *step, RunSeen *out)
{
	bool		shouldfree;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(step->slot, false, &shouldfree);
	bool		known = run_seen_from_tuple(tuple, step->rel, out);

	if (shouldfree)
		heap_freetuple(tuple);
	return known;
}

/* False: the walk is to end before this row. */
static bool
look_at_row(Step *step, const RunSeen *row)
{
	PurgeVerdict verdict = step->judge(row, step->arg);

	if (verdict == PURGE_STOP)
		return false;
	if (verdict == PURGE_DELETE && delete_row(step))
	{
		step->walk->deleted++;
		step->walk->rows--;
	}
	return true;
}

/* ---- by time ------------------------------------------------------------------------------------ */

/* Was it looked at by an earlier step?  Of rows of one time and job. */
static bool
was_seen(const PurgeWalk *walk, const RunKey *key)
{
	const RunKey *last = &walk->last;

	if (!walk->begun || key->scheduled_for != last->scheduled_for || key->job_id != last->job_id)
		return false;
	return key->trigger_id < last->trigger_id ||
		(key->trigger_id == last->trigger_id && key->attempt <= last->attempt);
}

/* False: that was all for now. */
static bool
walk_by_time(Step *step, ScanKey keys, int nkeys)
{
	PurgeWalk  *walk = step->walk;
	IndexScanDesc scan = index_beginscan(step->rel, step->index, GetActiveSnapshot(), nkeys, 0);
	bool		more = true;

	index_rescan(scan, keys, nkeys, NULL, 0);
	for (uint64 n = 1; more && index_getnext_slot(scan, ForwardScanDirection, step->slot); n++)
	{
		RunSeen		row = {0};
		bool		known = read_row(step, &row);

		CHECK_FOR_INTERRUPTS();
		if (was_seen(walk, &row.key))
			continue;
		if (known && !look_at_row(step, &row))
		{
			walk->done = true;
			more = false;
			break;
		}
		walk->last = row.key;
		walk->begun = true;
		if (n % ROWS_PER_LOOK == 0 && dsched_boot_now() >= step->until)
			more = false;
	}
	ExecClearTuple(step->slot);
	index_endscan(scan);
	return more;
}

/* The rest of the rows of the time at which the last step ended, then those of later times. */
static bool
step_by_time(Step *step)
{
	PurgeWalk  *walk = step->walk;
	RunKey		last = walk->last;
	ScanKeyData keys[2];

	if (!walk->begun)
		return walk_by_time(step, keys, 0);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ, TimestampTzGetDatum(last.scheduled_for));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(last.job_id));
	if (!walk_by_time(step, keys, 2))
		return false;
	ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT, TimestampTzGetDatum(last.scheduled_for));
	return walk_by_time(step, keys, 1);
}

/* ---- by job ------------------------------------------------------------------------------------- */

static Datum
indexed(IndexScanDesc scan, int column)
{
	bool		isnull;

	return index_getattr(scan->xs_itup, column, scan->xs_itupdesc, &isnull);
}

/*
 * Counts the row of a job.  True: it is beyond those that are kept.  The attempts of one scheduled time stay together, as the index does
 * not know their order.
 */
static bool
count_row(PurgeWalk *walk, const RunKey *key)
{
	if (!walk->begun || walk->last.job_id != key->job_id)
		walk->rank = 0;
	walk->rank++;
	walk->rows++;
	if (walk->rank == walk->keep)
		walk->edge = key->scheduled_for;
	return walk->rank > walk->keep && key->scheduled_for != walk->edge;
}

static bool
walk_by_job(Step *step, ScanKey keys, int nkeys)
{
	PurgeWalk  *walk = step->walk;
	IndexScanDesc scan = index_beginscan(step->rel, step->index, GetActiveSnapshot(), nkeys, 0);
	Buffer		vmbuffer = InvalidBuffer;
	bool		more = true;
	ItemPointer tid;

	scan->xs_want_itup = true;
	index_rescan(scan, keys, nkeys, NULL, 0);
	for (uint64 n = 1; (tid = index_getnext_tid(scan, BackwardScanDirection)) != NULL; n++)
	{
		bool		fetched = false;
		RunKey		key = {0};
		RunSeen		row = {0};

		CHECK_FOR_INTERRUPTS();
		key.job_id = DatumGetInt64(indexed(scan, 1));
		key.scheduled_for = DatumGetTimestampTz(indexed(scan, 2));
		/* by the index alone the next step could not tell which of several attempts it has seen */
		if (n > ROWS_PER_LOOK && walk->begun && dsched_boot_now() >= step->until &&
			(key.job_id != walk->last.job_id || key.scheduled_for != walk->last.scheduled_for))
		{
			more = false;
			break;
		}
		if (!VM_ALL_VISIBLE(step->rel, ItemPointerGetBlockNumber(tid), &vmbuffer))
		{
			if (!index_fetch_heap(scan, step->slot))
				continue;
			fetched = true;
		}
		if (count_row(walk, &key) && (fetched || index_fetch_heap(scan, step->slot)) && read_row(step, &row))
			(void) look_at_row(step, &row);
		walk->last = key;
		walk->begun = true;
		ExecClearTuple(step->slot);
	}
	ExecClearTuple(step->slot);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	index_endscan(scan);
	return more;
}

static bool
step_by_job(Step *step)
{
	PurgeWalk  *walk = step->walk;
	RunKey		last = walk->last;
	ScanKeyData keys[2];

	if (!walk->begun)
		return walk_by_job(step, keys, 0);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(last.job_id));
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_TIMESTAMPTZ_LT, TimestampTzGetDatum(last.scheduled_for));
	if (!walk_by_job(step, keys, 2))
		return false;
	ScanKeyInit(&keys[0], 1, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(last.job_id));
	return walk_by_job(step, keys, 1);
}

/* ---- steps -------------------------------------------------------------------------------------- */

bool
run_purge_step(PurgeWalk *walk, int64 until, PurgeJudge judge, void *arg)
{
	Oid			relid = catalog_require()->run;
	Step		step = {walk, NULL, NULL, NULL, until, judge, arg};

	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	step.rel = table_open(relid, NoLock);
	step.index = index_open(walk->by_job ? run_job_index() : catalog_require()->run_pkey, AccessShareLock);
	step.slot = table_slot_create(step.rel, NULL);
	if (walk->by_job ? step_by_job(&step) : step_by_time(&step))
		walk->done = true;
	ExecDropSingleTupleTableSlot(step.slot);
	index_close(step.index, AccessShareLock);
	table_close(step.rel, NoLock);
	return true;
}

TimestampTz
run_newest(int64 job_id)
{
	Relation	rel = table_open(catalog_require()->run, AccessShareLock);
	Relation	index = index_open(run_job_index(), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_beginscan(rel, index, GetActiveSnapshot(), 1, 0);
	TimestampTz newest = PG_INT64_MIN;
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(job_id));
	scan->xs_want_itup = true;
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_tid(scan, BackwardScanDirection) != NULL)
	{
		if (!index_fetch_heap(scan, slot))
			continue;
		newest = DatumGetTimestampTz(indexed(scan, 2));
		break;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return newest;
}
