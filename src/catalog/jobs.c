/*
 * jobs.c
 *	  The table dsched.job.
 *
 * Executors and the scheduler's load read it directly, without SPI; whatever locks or writes goes through SPI
 * with the owner's rights, so that concurrent changes by users meet the usual row locks and follow-up rules.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "compat.h"

typedef enum JobColumn
{
	COL_JOB_ID,
	COL_USERNAME,
	COL_JOB_NAME,
	COL_SCHEDULE,
	COL_RUN_AT,
	COL_COMMAND,
	COL_TIME_ZONE,
	COL_STARTS_AT,
	COL_EXPIRES_AT,
	COL_MAX_RUNS,
	COL_LAST_SLOT,
	COL_POLICY,					/* the first of as many as policy_fields has, in its order */
	COL_QUEUE = COL_POLICY + POLICY_FIELDS,
	COL_RUN_ON,
	COL_ACTIVE,
	COL_PAYLOAD,
	COL_METADATA,
	COL_ANCHOR,
	COL_GEN,
	COL_SLOTS_FROM,
	COL_GEN_REV,
	COL_MOD_REVISION,
	COL_CHANGE_ID,
	COL_CHANGED,
	COL_PROBLEM,
	COL_EXTRA,
	COL_CREATED_AT,
	COL_CHANGED_AT,
	N_JOB_COLUMNS
} JobColumn;

/* In the order of JobColumn, which is also that of the parameters of the statements that write. */
#define JOB_COLUMN_LIST \
	"job_id, username, job_name, schedule, run_at, command, time_zone, starts_at, expires_at, max_runs, last_slot," \
	" overlap, misfire, misfire_grace, max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline," \
	" max_failures, max_lost, jitter, delivery, queue, run_on, active, payload, metadata, anchor, gen, slots_from, gen_rev," \
	" mod_revision, change_id, changed, problem, extra, created_at, changed_at"
#define JOB_PARAMETER_LIST \
	"$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24," \
	" $25, $26, $27, $28::jsonb, $29::jsonb, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40"
#define JOB_PARAMETER_TYPES \
	{INT8OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, \
	 TIMESTAMPTZOID, TEXTOID, TEXTOID, INTERVALOID, INT4OID, INTERVALOID, INTERVALOID, INTERVALOID, INT4OID, \
	 INTERVALOID, INT4OID, INT4OID, INTERVALOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID, \
	 TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}

static const char *const job_columns[] = {
	"job_id", "username", "job_name", "schedule", "run_at", "command", "time_zone", "starts_at", "expires_at",
	"max_runs", "last_slot", "overlap", "misfire", "misfire_grace", "max_attempts", "retry_delay",
	"retry_max_delay", "timeout", "priority", "deadline", "max_failures", "max_lost", "jitter", "delivery", "queue", "run_on", "active",
	"payload", "metadata", "anchor", "gen", "slots_from", "gen_rev", "mod_revision", "change_id", "changed",
	"problem", "extra", "created_at", "changed_at"
};

/* What a policy has for a column that says nothing meaningful: out of every range, so that the job is not run. */
#define NO_VALUE (-POLICY_MAX_PRIORITY - 1)

StaticAssertDecl(lengthof(job_columns) == N_JOB_COLUMNS, "names and numbers of the columns of dsched.job differ");

bool		catalog_writing = false;

static ColumnMap table_map = {job_columns, N_JOB_COLUMNS};

/*
 * Where job_read() found rows, so that it need not search for them again: an executor reads few jobs, but each
 * at every run.  Of jobs that fall on one place the last one read has it.
 */
#define KNOWN_PLACES 1024

typedef struct KnownPlace
{
	int64		job_id;
	ItemPointerData tid;
} KnownPlace;

static KnownPlace known_places[KNOWN_PLACES];

static bool read_at_known_place(Relation rel, int64 job_id, JobRow *out);
static void note_place(int64 job_id, const ItemPointerData *tid);
static void job_from_tuple(const ColumnMap *map, HeapTuple tuple, TupleDesc desc, bool whole, JobRow *out);
static List *jobs_from_spi(MemoryContext context);
static void job_to_parameters(const JobRow *row, Datum *values, char *nulls);
static int	compare_job_ids(const ListCell *a, const ListCell *b);

/* ---- tuples ------------------------------------------------------------------------------------ */

/* One row, taken apart. */
typedef struct Fields
{
	const ColumnMap *map;
	Datum	   *values;
	bool	   *nulls;
} Fields;

static bool
has(const Fields *f, JobColumn column)
{
	AttrNumber	attno = f->map->attno[column];

	return attno > 0 && !f->nulls[attno - 1];
}

static Datum
field(const Fields *f, JobColumn column)
{
	return f->values[f->map->attno[column] - 1];
}

static char *
text_field(const Fields *f, JobColumn column)
{
	return has(f, column) ? TextDatumGetCString(field(f, column)) : NULL;
}

static int64
int64_field(const Fields *f, JobColumn column)
{
	return has(f, column) ? DatumGetInt64(field(f, column)) : 0;
}

/* Of a column that may be NULL, which is 0 here; the time zero itself (2000-01-01 UTC) moves by a microsecond. */
static TimestampTz
optional_time_field(const Fields *f, JobColumn column)
{
	TimestampTz time;

	if (!has(f, column))
		return 0;
	time = DatumGetTimestampTz(field(f, column));
	return time == 0 ? 1 : time;
}

static TimestampTz
time_field(const Fields *f, JobColumn column)
{
	return has(f, column) ? DatumGetTimestampTz(field(f, column)) : 0;
}

static char *
jsonb_field(const Fields *f, JobColumn column)
{
	Jsonb	   *value;

	if (!has(f, column))
		return NULL;
	value = DatumGetJsonbP(field(f, column));
	return JsonbToCString(NULL, &value->root, VARSIZE(value));
}

static List *
text_array_field(const Fields *f, JobColumn column)
{
	List	   *result = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (!has(f, column))
		return NIL;
	deconstruct_array(DatumGetArrayTypeP(field(f, column)), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			result = lappend(result, TextDatumGetCString(elements[i]));
	return result;
}

/*
 * Days count 24 hours.  What is no duration (months, or more than can be counted) is none that a policy allows, as
 * are names that are not known: a row may have been written by hand.
 */
static int64
duration_field(const Fields *f, JobColumn column)
{
	const Interval *interval = DatumGetIntervalP(field(f, column));
	int64		days;
	int64		sum;

	if (interval->month != 0 || pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(interval->time, days, &sum))
		return NO_VALUE;
	return sum;
}

static int64
policy_value_field(const Fields *f, PolicyField i)
{
	JobColumn	column = (JobColumn) (COL_POLICY + i);

	if (!has(f, column))
		return policy_get(&policy_default, i);
	switch (policy_fields[i].type)
	{
		case POLICY_IS_NAME:
			return policy_value_parse(i, text_field(f, column));
		case POLICY_IS_NUMBER:
			return DatumGetInt32(field(f, column));
		case POLICY_IS_DURATION:
			return duration_field(f, column);
	}
	return NO_VALUE;
}

static void
job_from_tuple(const ColumnMap *map, HeapTuple tuple, TupleDesc desc, bool whole, JobRow *out)
{
	Fields		f;

	f.map = map;
	f.values = palloc(desc->natts * sizeof(Datum));
	f.nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, f.values, f.nulls);

	out->job_id = int64_field(&f, COL_JOB_ID);
	out->username = text_field(&f, COL_USERNAME);
	out->job_name = text_field(&f, COL_JOB_NAME);
	out->schedule = text_field(&f, COL_SCHEDULE);
	out->run_at = optional_time_field(&f, COL_RUN_AT);
	out->command = whole ? text_field(&f, COL_COMMAND) : NULL;
	out->time_zone = text_field(&f, COL_TIME_ZONE);
	out->starts_at = optional_time_field(&f, COL_STARTS_AT);
	out->expires_at = optional_time_field(&f, COL_EXPIRES_AT);
	out->max_runs = has(&f, COL_MAX_RUNS) ? DatumGetInt32(field(&f, COL_MAX_RUNS)) : 0;
	out->last_slot = optional_time_field(&f, COL_LAST_SLOT);
	for (int i = 0; i < POLICY_FIELDS; i++)
		policy_set(&out->policy, (PolicyField) i, policy_value_field(&f, (PolicyField) i));
	out->queue = text_field(&f, COL_QUEUE);
	out->run_on = text_field(&f, COL_RUN_ON);
	out->active = has(&f, COL_ACTIVE) && DatumGetBool(field(&f, COL_ACTIVE));
	out->payload = whole ? jsonb_field(&f, COL_PAYLOAD) : NULL;
	out->metadata = whole ? jsonb_field(&f, COL_METADATA) : NULL;
	out->anchor = time_field(&f, COL_ANCHOR);
	out->gen = int64_field(&f, COL_GEN);
	out->slots_from = time_field(&f, COL_SLOTS_FROM);
	out->gen_rev = int64_field(&f, COL_GEN_REV);
	out->mod_revision = int64_field(&f, COL_MOD_REVISION);
	out->change_id = int64_field(&f, COL_CHANGE_ID);
	out->changed = text_array_field(&f, COL_CHANGED);
	out->problem = text_field(&f, COL_PROBLEM);
	out->extra = whole ? text_field(&f, COL_EXTRA) : NULL;
	out->created_at = time_field(&f, COL_CREATED_AT);
	out->changed_at = time_field(&f, COL_CHANGED_AT);

	pfree(f.values);
	pfree(f.nulls);
}

/* ---- direct reads ------------------------------------------------------------------------------ */

/*
 * The snapshot is the catalog's: the latest, and unlike the transaction's own it leaves the job's command
 * free to begin with SET TRANSACTION.
 */
bool
job_read(int64 job_id, JobRow *out)
{
	const CatalogOids *oids = catalog_oids();
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found;

	if (oids == NULL)
		return false;
	rel = table_open(oids->job, AccessShareLock);
	column_map_for(&table_map, rel);
	if (read_at_known_place(rel, job_id, out))
	{
		table_close(rel, AccessShareLock);
		return true;
	}
	ScanKeyInit(&key, table_map.attno[COL_JOB_ID], BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(job_id));
	scan = systable_beginscan(rel, oids->job_pkey, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		note_place(job_id, &tuple->t_self);
	if (found)
		job_from_tuple(&table_map, tuple, RelationGetDescr(rel), true, out);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * A visible row with this id is the current one, wherever it came from: ids are unique, and an older version
 * is not visible.  If none is there, nothing is known.
 */
static bool
read_at_known_place(Relation rel, int64 job_id, JobRow *out)
{
	KnownPlace *place = &known_places[(uint64) job_id % KNOWN_PLACES];
	TupleTableSlot *slot;
	Snapshot	snapshot;
	bool		found = false;

	/* the table may have become shorter, but does not while it is locked */
	if (place->job_id != job_id || !ItemPointerIsValid(&place->tid) ||
		ItemPointerGetBlockNumber(&place->tid) >= RelationGetNumberOfBlocks(rel))
		return false;

	slot = table_slot_create(rel, NULL);
	snapshot = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(rel)));
	if (table_tuple_fetch_row_version(rel, &place->tid, snapshot, slot))
	{
		bool		isnull;
		Datum		id = slot_getattr(slot, table_map.attno[COL_JOB_ID], &isnull);

		if (!isnull && DatumGetInt64(id) == job_id)
		{
			job_from_tuple(&table_map, ExecFetchSlotHeapTuple(slot, false, NULL), RelationGetDescr(rel), true, out);
			found = true;
		}
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

static void
note_place(int64 job_id, const ItemPointerData *tid)
{
	KnownPlace *place = &known_places[(uint64) job_id % KNOWN_PLACES];

	place->job_id = job_id;
	place->tid = *tid;
}

List *
job_read_all(void)
{
	const CatalogOids *oids = catalog_require();
	Relation	rel = table_open(oids->job, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	column_map_for(&table_map, rel);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		JobRow	   *row = palloc(sizeof(JobRow));

		CHECK_FOR_INTERRUPTS();
		job_from_tuple(&table_map, tuple, RelationGetDescr(rel), true, row);
		result = lappend(result, row);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(result, compare_job_ids);
	return result;
}

void
job_scan(void (*callback) (const JobRow *row, void *arg), void *arg)
{
	const CatalogOids *oids = catalog_require();
	Relation	rel = table_open(oids->job, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext, "dsched job row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(each);
	HeapTuple	tuple;

	column_map_for(&table_map, rel);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		JobRow		row;

		CHECK_FOR_INTERRUPTS();
		job_from_tuple(&table_map, tuple, RelationGetDescr(rel), false, &row);
		callback(&row, arg);
		MemoryContextReset(each);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(each);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static int
compare_job_ids(const ListCell *a, const ListCell *b)
{
	int64		x = ((JobRow *) lfirst(a))->job_id;
	int64		y = ((JobRow *) lfirst(b))->job_id;

	return (x > y) - (x < y);
}

/* ---- reads through SPI ------------------------------------------------------------------------- */

/* The rows of SPI_tuptable, in the caller's context. */
static List *
jobs_from_spi(MemoryContext context)
{
	MemoryContext spi_context = MemoryContextSwitchTo(context);
	ColumnMap	map = {job_columns, N_JOB_COLUMNS};
	List	   *result = NIL;

	column_map_build(&map, SPI_tuptable->tupdesc);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		JobRow	   *row = palloc(sizeof(JobRow));

		job_from_tuple(&map, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, true, row);
		result = lappend(result, row);
	}
	MemoryContextSwitchTo(spi_context);
	return result;
}

bool
job_read_by_name(const char *username, const char *job_name, bool lock, JobRow *out)
{
	static CatalogQuery read_query = {
		"SELECT * FROM dsched.job WHERE username OPERATOR(pg_catalog.=) $1 AND job_name OPERATOR(pg_catalog.=) $2",
		SPI_OK_SELECT, 2, {TEXTOID, TEXTOID}
	};
	static CatalogQuery lock_query = {
		"SELECT * FROM dsched.job WHERE username OPERATOR(pg_catalog.=) $1 AND job_name OPERATOR(pg_catalog.=) $2"
		" FOR UPDATE",
		SPI_OK_SELECT, 2, {TEXTOID, TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	CatalogSpi	spi;
	Datum		values[2];
	List	   *rows;

	catalog_spi_begin(&spi);
	values[0] = CStringGetTextDatum(username);
	values[1] = CStringGetTextDatum(job_name);
	catalog_run(lock ? &lock_query : &read_query, values, NULL);
	rows = jobs_from_spi(caller);
	catalog_spi_finish(&spi);

	if (rows == NIL)
		return false;
	*out = *(JobRow *) linitial(rows);
	return true;
}

/* True: the row in the slot is locked, as it was seen. */
static bool
lock_seen(Relation rel, TupleTableSlot *seen, Snapshot snapshot, TupleTableSlot *locked)
{
	TM_FailureData failure;

	return table_tuple_lock(rel, &seen->tts_tid, snapshot, locked, GetCurrentCommandId(true), LockTupleExclusive,
							LockWaitSkip, 0, &failure) == TM_Ok;
}

/*
 * By the partial index itself, not by a query: how many rows are changed differs by orders of magnitude from one minute to the next,
 * and a plan made by statistics of the wrong minute reads the whole table.
 */
List *
job_lock_changed(int64 after, int max, bool whole, bool *left)
{
	const CatalogOids *oids = catalog_require();
	Relation	rel = table_open(oids->job, RowShareLock);
	Relation	index = index_open(oids->job_changed, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *seen = table_slot_create(rel, NULL);
	TupleTableSlot *locked = table_slot_create(rel, NULL);
	IndexScanDesc scan = index_beginscan(rel, index, snapshot, 1, 0);
	ScanKeyData key;
	List	   *rows = NIL;

	column_map_for(&table_map, rel);
	*left = false;
	/* the index's only column */
	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, seen))
	{
		CHECK_FOR_INTERRUPTS();
		if (list_length(rows) >= max)
		{
			*left = true;
			break;
		}
		if (lock_seen(rel, seen, snapshot, locked))
		{
			JobRow	   *row = palloc(sizeof(JobRow));
			bool		copied;
			HeapTuple	tuple = ExecFetchSlotHeapTuple(locked, false, &copied);

			job_from_tuple(&table_map, tuple, RelationGetDescr(rel), whole, row);
			rows = lappend(rows, row);
			if (copied)
				heap_freetuple(tuple);
		}
		else
			*left = true;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(seen);
	ExecDropSingleTupleTableSlot(locked);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, NoLock);
	return rows;
}

void
job_taken_in(List *rows)
{
	static CatalogQuery query = {
		"UPDATE dsched.job SET changed = NULL, gen_rev = 0, mod_revision = 0"
		" WHERE job_id OPERATOR(pg_catalog.=) ANY ($1)",
		SPI_OK_UPDATE, 1, {INT8ARRAYOID}
	};
	Datum	   *ids = palloc(list_length(rows) * sizeof(Datum));
	int			n = 0;
	CatalogSpi	spi;
	Datum		array;
	ListCell   *lc;

	foreach(lc, rows)
		ids[n++] = Int64GetDatum(((JobRow *) lfirst(lc))->job_id);
	catalog_spi_begin(&spi);
	array = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	PG_TRY();
	{
		catalog_writing = true;
		catalog_run(&query, &array, NULL);
	}
	PG_FINALLY();
	{
		catalog_writing = false;
	}
	PG_END_TRY();
	catalog_spi_finish(&spi);
	pfree(ids);
}

/*
 * SKIP LOCKED tells a locked row from an absent one only by a second look, and a row that appears or goes
 * between the two is as good as later or earlier.
 */
int
job_try_lock(int64 job_id)
{
	static CatalogQuery lock_query = {
		"SELECT FROM dsched.job WHERE job_id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
		SPI_OK_SELECT, 1, {INT8OID}
	};
	static CatalogQuery look_query = {
		"SELECT FROM dsched.job WHERE job_id OPERATOR(pg_catalog.=) $1",
		SPI_OK_SELECT, 1, {INT8OID}
	};
	CatalogSpi	spi;
	Datum		id = Int64GetDatum(job_id);
	int			result;

	catalog_spi_begin(&spi);
	if (catalog_run(&lock_query, &id, NULL) > 0)
		result = 1;
	else
		result = catalog_run(&look_query, &id, NULL) > 0 ? -1 : 0;
	catalog_spi_finish(&spi);
	return result;
}

/* ---- writes ------------------------------------------------------------------------------------ */

static void
put(Datum *values, char *nulls, JobColumn column, bool present, Datum value)
{
	nulls[column] = present ? ' ' : 'n';
	values[column] = present ? value : (Datum) 0;
}

static void
put_text(Datum *values, char *nulls, JobColumn column, const char *text)
{
	put(values, nulls, column, text != NULL, text ? CStringGetTextDatum(text) : (Datum) 0);
}

static void
put_time(Datum *values, char *nulls, JobColumn column, TimestampTz time)
{
	put(values, nulls, column, true, TimestampTzGetDatum(time));
}

static void
put_optional_time(Datum *values, char *nulls, JobColumn column, TimestampTz time)
{
	put(values, nulls, column, time != 0, TimestampTzGetDatum(time));
}

static void
put_int64(Datum *values, char *nulls, JobColumn column, int64 number)
{
	put(values, nulls, column, true, Int64GetDatum(number));
}

static Datum
text_array(List *strings)
{
	Datum	   *elements = palloc(list_length(strings) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, strings)
		elements[n++] = CStringGetTextDatum((char *) lfirst(lc));
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Durations have only a time part, so that no session's time zone or calendar plays a part in them. */
static Datum
duration_datum(int64 duration)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = duration;
	return IntervalPGetDatum(interval);
}

static void
put_policy_value(Datum *values, char *nulls, PolicyField i, int64 value)
{
	JobColumn	column = (JobColumn) (COL_POLICY + i);
	bool		present = value != 0 || !policy_fields[i].optional;

	switch (policy_fields[i].type)
	{
		case POLICY_IS_NAME:
			put_text(values, nulls, column, policy_value_name(i, value));
			break;
		case POLICY_IS_NUMBER:
			put(values, nulls, column, present, Int32GetDatum((int32) value));
			break;
		case POLICY_IS_DURATION:
			put(values, nulls, column, present, duration_datum(value));
			break;
	}
}

static void
job_to_parameters(const JobRow *row, Datum *values, char *nulls)
{
	put_int64(values, nulls, COL_JOB_ID, row->job_id);
	put_text(values, nulls, COL_USERNAME, row->username);
	put_text(values, nulls, COL_JOB_NAME, row->job_name);
	put_text(values, nulls, COL_SCHEDULE, row->schedule);
	put_optional_time(values, nulls, COL_RUN_AT, row->run_at);
	put_text(values, nulls, COL_COMMAND, row->command);
	put_text(values, nulls, COL_TIME_ZONE, row->time_zone);
	put_optional_time(values, nulls, COL_STARTS_AT, row->starts_at);
	put_optional_time(values, nulls, COL_EXPIRES_AT, row->expires_at);
	put(values, nulls, COL_MAX_RUNS, row->max_runs != 0, Int32GetDatum(row->max_runs));
	put_optional_time(values, nulls, COL_LAST_SLOT, row->last_slot);
	for (int i = 0; i < POLICY_FIELDS; i++)
		put_policy_value(values, nulls, (PolicyField) i, policy_get(&row->policy, (PolicyField) i));
	put_text(values, nulls, COL_QUEUE, row->queue);
	put_text(values, nulls, COL_RUN_ON, row->run_on);
	put(values, nulls, COL_ACTIVE, true, BoolGetDatum(row->active));
	put_text(values, nulls, COL_PAYLOAD, row->payload);
	put_text(values, nulls, COL_METADATA, row->metadata);
	put_time(values, nulls, COL_ANCHOR, row->anchor);
	put_int64(values, nulls, COL_GEN, row->gen);
	put_time(values, nulls, COL_SLOTS_FROM, row->slots_from);
	put_int64(values, nulls, COL_GEN_REV, row->gen_rev);
	put_int64(values, nulls, COL_MOD_REVISION, row->mod_revision);
	put_int64(values, nulls, COL_CHANGE_ID, row->change_id);
	put(values, nulls, COL_CHANGED, row->changed != NIL, row->changed != NIL ? text_array(row->changed) : (Datum) 0);
	put_text(values, nulls, COL_PROBLEM, row->problem);
	put_text(values, nulls, COL_EXTRA, row->extra);
	put_time(values, nulls, COL_CREATED_AT, row->created_at);
	put_time(values, nulls, COL_CHANGED_AT, row->changed_at);
}

static uint64
write_job(CatalogQuery *query, const JobRow *row)
{
	CatalogSpi	spi;
	Datum		values[N_JOB_COLUMNS];
	char		nulls[N_JOB_COLUMNS];
	volatile uint64 n = 0;

	catalog_spi_begin(&spi);
	job_to_parameters(row, values, nulls);
	PG_TRY();
	{
		catalog_writing = true;
		n = catalog_run(query, values, nulls);
	}
	PG_FINALLY();
	{
		catalog_writing = false;
	}
	PG_END_TRY();
	catalog_spi_finish(&spi);
	return n;
}

void
job_insert(const JobRow *row)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.job (" JOB_COLUMN_LIST ") VALUES (" JOB_PARAMETER_LIST ")",
		SPI_OK_INSERT, N_JOB_COLUMNS, JOB_PARAMETER_TYPES
	};

	(void) write_job(&query, row);
}

bool
job_insert_new(const JobRow *row)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.job (" JOB_COLUMN_LIST ") VALUES (" JOB_PARAMETER_LIST ")"
		" ON CONFLICT (username, job_name) DO NOTHING",
		SPI_OK_INSERT, N_JOB_COLUMNS, JOB_PARAMETER_TYPES
	};

	return write_job(&query, row) == 1;
}

void
job_update(const JobRow *row)
{
	static CatalogQuery query = {
		"UPDATE dsched.job SET (" JOB_COLUMN_LIST ") = ROW(" JOB_PARAMETER_LIST ")"
		" WHERE job_id OPERATOR(pg_catalog.=) $1",
		SPI_OK_UPDATE, N_JOB_COLUMNS, JOB_PARAMETER_TYPES
	};

	if (write_job(&query, row) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job \"%s\" does not exist any more", row->job_name)));
}

bool
job_delete(int64 job_id)
{
	static CatalogQuery query = {
		"DELETE FROM dsched.job WHERE job_id OPERATOR(pg_catalog.=) $1",
		SPI_OK_DELETE, 1, {INT8OID}
	};
	CatalogSpi	spi;
	Datum		id = Int64GetDatum(job_id);
	bool		deleted;

	catalog_spi_begin(&spi);
	deleted = catalog_run(&query, &id, NULL) > 0;
	catalog_spi_finish(&spi);
	return deleted;
}
