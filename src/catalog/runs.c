/*
 * runs.c
 *	  The table dsched.run: one row for each run that this instance made or slot that it closed without one.
 *
 * Rows are written beneath SQL (access.c), most of them by executors at the end of the job's own transaction.
 * The primary key decides between two that write the same run: the later one gets a unique violation.  Reads
 * by key take the latest snapshot.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "access.h"
#include "compat.h"
#include "settings.h"

typedef enum RunColumn
{
	COL_SCHEDULED_FOR,			/* the four of the key first */
	COL_JOB_ID,
	COL_TRIGGER_ID,
	COL_ATTEMPT,
	COL_JOB_NAME,
	COL_USERNAME,
	COL_GEN,
	COL_REASON,
	COL_STATUS,
	COL_LAST_SLOT,
	COL_SLOTS,
	COL_STARTED_AT,
	COL_FINISHED_AT,
	COL_NODE,
	COL_EPOCH,
	COL_PID,
	COL_ROWS,
	COL_COMMAND_TAG,
	COL_SQLSTATE,
	COL_MESSAGE,
	COL_DETAIL,
	COL_HINT,
	COL_CONTEXT,
	N_RUN_COLUMNS
} RunColumn;

#define N_KEY_COLUMNS 4

static const char *const run_columns[] = {
	"scheduled_for", "job_id", "trigger_id", "attempt", "job_name", "username", "gen", "reason", "status", "last_slot",
	"slots", "started_at", "finished_at", "node", "epoch", "pid", "rows", "command_tag", "sqlstate", "message",
	"detail", "hint", "context"
};

StaticAssertDecl(lengthof(run_columns) == N_RUN_COLUMNS, "names and numbers of the columns of dsched.run differ");

static ColumnMap table_map = {run_columns, N_RUN_COLUMNS};

static SysScanDesc begin_key_scan(Relation rel, const RunKey *key);
static void put_row(const RunRow *row, Datum *values, bool *nulls);
static RunStatus status_of(HeapTuple tuple, TupleDesc desc);
static void add_seen(RunSeen **array, int *n, int *room, const RunSeen *seen);

/* ---- by key ------------------------------------------------------------------------------------ */

static Relation
open_run_table(LOCKMODE lockmode)
{
	Relation	rel = table_open(catalog_require()->run, lockmode);

	column_map_for(&table_map, rel);
	return rel;
}

/* A scan by the first columns of the key. */
static SysScanDesc
begin_part_scan(Relation rel, const RunKey *key, int ncolumns)
{
	ScanKeyData keys[N_KEY_COLUMNS];

	ScanKeyInit(&keys[0], table_map.attno[COL_SCHEDULED_FOR], BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				TimestampTzGetDatum(key->scheduled_for));
	ScanKeyInit(&keys[1], table_map.attno[COL_JOB_ID], BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(key->job_id));
	ScanKeyInit(&keys[2], table_map.attno[COL_TRIGGER_ID], BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(key->trigger_id));
	ScanKeyInit(&keys[3], table_map.attno[COL_ATTEMPT], BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(key->attempt));
	return systable_beginscan(rel, catalog_require()->run_pkey, true, NULL, ncolumns, keys);
}

static SysScanDesc
begin_key_scan(Relation rel, const RunKey *key)
{
	return begin_part_scan(rel, key, N_KEY_COLUMNS);
}

RunStatus
run_lookup(const RunKey *key)
{
	Relation	rel = open_run_table(AccessShareLock);
	SysScanDesc scan = begin_key_scan(rel, key);
	HeapTuple	tuple = systable_getnext(scan);
	RunStatus	status = RUN_STATUS_NONE;

	if (HeapTupleIsValid(tuple))
		status = status_of(tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return status;
}

bool
run_insert(const RunRow *row, bool if_absent)
{
	Relation	rel;
	int			natts;
	Datum	   *values;
	bool	   *nulls;
	Oid			userid;
	int			secctx;

	if (if_absent && run_lookup(&row->key) != RUN_STATUS_NONE)
		return false;

	rel = open_run_table(RowExclusiveLock);
	natts = RelationGetDescr(rel)->natts;
	values = palloc0(natts * sizeof(Datum));
	nulls = palloc(natts * sizeof(bool));
	memset(nulls, true, natts * sizeof(bool));
	put_row(row, values, nulls);

	GetUserIdAndSecContext(&userid, &secctx);
	SetUserIdAndSecContext(catalog_require()->owner, secctx | SECURITY_LOCAL_USERID_CHANGE);
	catalog_insert(rel, values, nulls);
	SetUserIdAndSecContext(userid, secctx);

	table_close(rel, NoLock);
	CommandCounterIncrement();
	return true;
}

bool
run_update(const RunRow *row)
{
	Relation	rel = open_run_table(RowExclusiveLock);
	SysScanDesc scan = begin_key_scan(rel, &row->key);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);

	/* the scan stays open while we write: its snapshot lets the old row's toasted values be deleted */
	if (found)
	{
		int			natts = RelationGetDescr(rel)->natts;
		Datum	   *values = palloc(natts * sizeof(Datum));
		bool	   *nulls = palloc(natts * sizeof(bool));
		Oid			userid;
		int			secctx;

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		put_row(row, values, nulls);
		GetUserIdAndSecContext(&userid, &secctx);
		SetUserIdAndSecContext(catalog_require()->owner, secctx | SECURITY_LOCAL_USERID_CHANGE);
		catalog_update(rel, &tuple->t_self, values, nulls);
		SetUserIdAndSecContext(userid, secctx);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	if (found)
		CommandCounterIncrement();
	return found;
}

/* ---- a row of values --------------------------------------------------------------------------- */

/* What run.c records of a run that lost its partition, as against 57P01 of one that lost its process. */
#define FENCED_SQLSTATE "40001"

typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
} Row;

static void
put(Row *r, RunColumn column, bool present, Datum value)
{
	AttrNumber	attno = table_map.attno[column];

	if (attno == 0)
		return;
	r->nulls[attno - 1] = !present;
	r->values[attno - 1] = present ? value : (Datum) 0;
}

static void
put_text(Row *r, RunColumn column, const char *text)
{
	put(r, column, text != NULL, text ? CStringGetTextDatum(text) : (Datum) 0);
}

static void
put_row(const RunRow *row, Datum *values, bool *nulls)
{
	Row			r = {values, nulls};

	put(&r, COL_SCHEDULED_FOR, true, TimestampTzGetDatum(row->key.scheduled_for));
	put(&r, COL_JOB_ID, true, Int64GetDatum(row->key.job_id));
	put(&r, COL_TRIGGER_ID, true, Int64GetDatum(row->key.trigger_id));
	put(&r, COL_ATTEMPT, true, Int32GetDatum(row->key.attempt));
	put_text(&r, COL_JOB_NAME, row->job_name);
	put_text(&r, COL_USERNAME, row->username);
	put(&r, COL_GEN, true, Int64GetDatum(row->gen));
	put_text(&r, COL_REASON, row->reason_text ? row->reason_text : run_reason_name(row->reason));
	put_text(&r, COL_STATUS, run_status_name(row->status));
	put(&r, COL_LAST_SLOT, row->last_slot != 0, TimestampTzGetDatum(row->last_slot));
	put(&r, COL_SLOTS, true, Int32GetDatum(row->slots));
	put(&r, COL_STARTED_AT, row->started_at != 0, TimestampTzGetDatum(row->started_at));
	put(&r, COL_FINISHED_AT, row->finished_at != 0, TimestampTzGetDatum(row->finished_at));
	put_text(&r, COL_NODE, row->node ? row->node : dsched_my_node());
	put(&r, COL_EPOCH, true, Int64GetDatum(dsched_shown_epoch(row->epoch)));
	put(&r, COL_PID, row->pid != 0, Int32GetDatum(row->pid));
	put(&r, COL_ROWS, row->rows >= 0, Int64GetDatum(row->rows));
	put_text(&r, COL_COMMAND_TAG, row->command_tag);
	put_text(&r, COL_SQLSTATE, row->sqlstate);
	put_text(&r, COL_MESSAGE, row->message);
	put_text(&r, COL_DETAIL, row->detail);
	put_text(&r, COL_HINT, row->hint);
	put_text(&r, COL_CONTEXT, row->context);
}

/* ---- many -------------------------------------------------------------------------------------- */

static Datum
get(HeapTuple tuple, TupleDesc desc, RunColumn column, bool *isnull)
{
	*isnull = true;
	if (table_map.attno[column] == 0)
		return (Datum) 0;
	return heap_getattr(tuple, table_map.attno[column], desc, isnull);
}

/* A status that only a newer version knows counts as not recorded. */
static RunStatus
status_of(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = get(tuple, desc, COL_STATUS, &isnull);
	char	   *name;

	if (isnull)
		return RUN_STATUS_NONE;
	name = TextDatumGetCString(value);
	for (RunStatus status = RUN_RUNNING; status <= RUN_MISSED; status++)
	{
		if (strcmp(name, run_status_name(status)) == 0)
		{
			pfree(name);
			return status;
		}
	}
	pfree(name);
	return RUN_STATUS_NONE;
}

bool
run_seen_from_tuple(HeapTuple tuple, Relation rel, RunSeen *out)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		isnull;
	Datum		last_slot;
	Datum		value;

	column_map_for(&table_map, rel);
	out->key.scheduled_for = DatumGetTimestampTz(get(tuple, desc, COL_SCHEDULED_FOR, &isnull));
	out->key.job_id = DatumGetInt64(get(tuple, desc, COL_JOB_ID, &isnull));
	out->key.trigger_id = DatumGetInt64(get(tuple, desc, COL_TRIGGER_ID, &isnull));
	out->key.attempt = DatumGetInt32(get(tuple, desc, COL_ATTEMPT, &isnull));
	out->gen = DatumGetInt64(get(tuple, desc, COL_GEN, &isnull));
	last_slot = get(tuple, desc, COL_LAST_SLOT, &isnull);
	out->last_slot = isnull ? 0 : DatumGetTimestampTz(last_slot);
	out->status = status_of(tuple, desc);
	value = get(tuple, desc, COL_FINISHED_AT, &isnull);
	out->finished_at = isnull ? 0 : DatumGetTimestampTz(value);
	out->fenced = false;
	if (out->status == RUN_LOST)
	{
		value = get(tuple, desc, COL_SQLSTATE, &isnull);
		if (!isnull)
		{
			char	   *sqlstate = TextDatumGetCString(value);

			out->fenced = strcmp(sqlstate, FENCED_SQLSTATE) == 0;
			pfree(sqlstate);
		}
	}
	return out->status != RUN_STATUS_NONE;
}

static void
add_seen(RunSeen **array, int *n, int *room, const RunSeen *seen)
{
	if (*n == *room)
	{
		*room *= 2;
		*array = repalloc_huge(*array, *room * sizeof(RunSeen));
	}
	(*array)[(*n)++] = *seen;
}

void
run_history_add(RunHistory *history, const RunSeen *seen)
{
	if (seen->status == RUN_FAILED || seen->status == RUN_TIMED_OUT)
		history->failures++;
	else if (seen->status == RUN_LOST && !seen->fenced)
		history->lost++;
	if (seen->key.attempt > history->attempt)
	{
		history->attempt = seen->key.attempt;
		history->status = seen->status;
		history->finished_at = seen->finished_at;
		history->last_slot = seen->last_slot;
	}
}

void
run_history(const RunKey *key, RunHistory *out)
{
	Relation	rel = open_run_table(AccessShareLock);
	SysScanDesc scan = begin_part_scan(rel, key, N_KEY_COLUMNS - 1);
	HeapTuple	tuple;
	RunSeen		seen = {0};

	memset(out, 0, sizeof(*out));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		if (run_seen_from_tuple(tuple, rel, &seen))
			run_history_add(out, &seen);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

bool
run_history_is_final(const RunHistory *history, const JobPolicy *policy)
{
	switch (history->status)
	{
		case RUN_SUCCEEDED:
		case RUN_CANCELLED:
		case RUN_SKIPPED:
		case RUN_MISSED:
			return true;
		case RUN_FAILED:
		case RUN_TIMED_OUT:
			return history->failures >= policy->max_attempts;
		case RUN_LOST:
			return policy->delivery == DELIVERY_AT_MOST_ONCE;
		case RUN_STATUS_NONE:
		case RUN_RUNNING:
			break;
	}
	return false;
}

RunSeen *
run_read_since(TimestampTz from, int *n)
{
	Relation	rel = open_run_table(AccessShareLock);
	Relation	index = index_open(catalog_require()->run_pkey, AccessShareLock);
	int			room = 64;
	RunSeen    *array = palloc(room * sizeof(RunSeen));
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	RunSeen		seen = {0};

	*n = 0;
	ScanKeyInit(&key, table_map.attno[COL_SCHEDULED_FOR], BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	scan = systable_beginscan_ordered(rel, index, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		CHECK_FOR_INTERRUPTS();
		if (run_seen_from_tuple(tuple, rel, &seen))
			add_seen(&array, n, &room, &seen);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return array;
}

RunSeen *
run_read_started(int *n)
{
	static CatalogQuery query = {
		"SELECT scheduled_for, job_id, trigger_id, attempt, gen, job_name, username FROM dsched.run"
		" WHERE status OPERATOR(pg_catalog.=) 'running' ORDER BY scheduled_for, job_id, trigger_id, attempt",
		SPI_OK_SELECT
	};
	MemoryContext caller = CurrentMemoryContext;
	CatalogSpi	spi;
	RunSeen    *array;

	catalog_spi_begin(&spi);
	*n = (int) catalog_run(&query, NULL, NULL);
	array = MemoryContextAllocZero(caller, Max(*n, 1) * sizeof(RunSeen));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		array[i].key.scheduled_for = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 1, &isnull));
		array[i].key.job_id = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		array[i].key.trigger_id = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		array[i].key.attempt = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
		array[i].gen = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
		array[i].status = RUN_RUNNING;
		array[i].job_name =
			MemoryContextStrdup(caller, TextDatumGetCString(SPI_getbinval(tuple, desc, 6, &isnull)));
		array[i].username =
			MemoryContextStrdup(caller, TextDatumGetCString(SPI_getbinval(tuple, desc, 7, &isnull)));
	}
	catalog_spi_finish(&spi);
	return array;
}
