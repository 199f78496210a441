/*
 * outbox.c
 *	  The table dsched.outbox: deletions and triggers that wait to be published or taken in.
 *
 * Rows are deleted one by one as they were seen, never up to a high-water mark: a row with a lower number may
 * commit later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "access.h"
#include "compat.h"

typedef enum OutboxColumn
{
	COL_OUTBOX_ID,
	COL_KIND,
	COL_JOB_ID,
	COL_USERNAME,
	COL_JOB_NAME,
	COL_BASE_REVISION,
	COL_SCHEDULED_FOR,
	COL_FIRST_SLOT,
	COL_LAST_SLOT,
	COL_RULE,
	COL_SLOT,
	COL_TARGET,
	COL_LOCAL,
	COL_REQUESTED_BY,
	COL_CREATED_AT,
	N_OUTBOX_COLUMNS
} OutboxColumn;

/* In the order of OutboxColumn. */
#define OUTBOX_COLUMN_LIST \
	"outbox_id, kind, job_id, username, job_name, base_revision, scheduled_for, first_slot, last_slot, rule, slot," \
	" target, local, requested_by, created_at"

/* By TriggerKind. */
static const char *const trigger_kinds[] = {"run", "backfill", "cancel"};

static OutboxRow *outbox_from_tuple(HeapTuple tuple, TupleDesc desc);

static void
put(Datum *values, char *nulls, OutboxColumn column, bool present, Datum value)
{
	nulls[column] = present ? ' ' : 'n';
	values[column] = present ? value : (Datum) 0;
}

void
outbox_insert(const OutboxRow *row)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.outbox (" OUTBOX_COLUMN_LIST ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
		" $13, $14, $15)",
		SPI_OK_INSERT, N_OUTBOX_COLUMNS,
		{INT8OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
		TIMESTAMPTZOID, INT8OID, BOOLOID, TEXTOID, TIMESTAMPTZOID}
	};
	bool		backfill = !row->is_delete && row->kind == TRIGGER_BACKFILL;
	bool		cancel = !row->is_delete && row->kind == TRIGGER_CANCEL;
	CatalogSpi	spi;
	Datum		values[N_OUTBOX_COLUMNS];
	char		nulls[N_OUTBOX_COLUMNS];

	catalog_spi_begin(&spi);
	put(values, nulls, COL_OUTBOX_ID, true, Int64GetDatum(row->outbox_id));
	put(values, nulls, COL_KIND, true, CStringGetTextDatum(row->is_delete ? "delete" : trigger_kinds[row->kind]));
	put(values, nulls, COL_JOB_ID, true, Int64GetDatum(row->job_id));
	put(values, nulls, COL_USERNAME, true, CStringGetTextDatum(row->username));
	put(values, nulls, COL_JOB_NAME, true, CStringGetTextDatum(row->job_name));
	put(values, nulls, COL_BASE_REVISION, true, Int64GetDatum(row->base_revision));
	put(values, nulls, COL_SCHEDULED_FOR, row->scheduled_for != 0, TimestampTzGetDatum(row->scheduled_for));
	put(values, nulls, COL_FIRST_SLOT, backfill, TimestampTzGetDatum(row->first));
	put(values, nulls, COL_LAST_SLOT, backfill, TimestampTzGetDatum(row->last));
	put(values, nulls, COL_RULE, backfill, Int64GetDatum(row->rule));
	put(values, nulls, COL_SLOT, cancel && row->slot != TRIGGER_ALL, TimestampTzGetDatum(row->slot));
	put(values, nulls, COL_TARGET, cancel, Int64GetDatum(row->target));
	put(values, nulls, COL_LOCAL, true, BoolGetDatum(row->local));
	put(values, nulls, COL_REQUESTED_BY, true, CStringGetTextDatum(row->requested_by));
	put(values, nulls, COL_CREATED_AT, true, TimestampTzGetDatum(row->created_at));
	catalog_run(&query, values, nulls);
	catalog_spi_finish(&spi);
}

List *
outbox_lock(OutboxWhich which, int max)
{
	static CatalogQuery query = {
		"SELECT " OUTBOX_COLUMN_LIST
		" FROM dsched.outbox WHERE $2 IS NULL OR local OPERATOR(pg_catalog.=) $2"
		" ORDER BY created_at, outbox_id LIMIT $1 FOR UPDATE SKIP LOCKED",
		SPI_OK_SELECT, 2, {INT8OID, BOOLOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi_context;
	CatalogSpi	spi;
	Datum		values[2] = {Int64GetDatum(max), BoolGetDatum(which == OUTBOX_LOCAL)};
	char		nulls[2] = {' ', which == OUTBOX_ALL ? 'n' : ' '};
	List	   *rows = NIL;

	catalog_spi_begin(&spi);
	catalog_run(&query, values, nulls);
	spi_context = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		rows = lappend(rows, outbox_from_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
	MemoryContextSwitchTo(spi_context);
	catalog_spi_finish(&spi);
	return rows;
}

static int64
int64_column(HeapTuple tuple, TupleDesc desc, OutboxColumn column, int64 otherwise)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column + 1, &isnull);

	return isnull ? otherwise : DatumGetInt64(value);
}

/* Times are read as the numbers that they are. */
static OutboxRow *
outbox_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	OutboxRow  *row = palloc0(sizeof(OutboxRow));
	char	   *kind = SPI_getvalue(tuple, desc, COL_KIND + 1);

	row->is_delete = strcmp(kind, "delete") == 0;
	for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
		if (strcmp(kind, trigger_kinds[i]) == 0)
			row->kind = (TriggerKind) i;
	row->outbox_id = int64_column(tuple, desc, COL_OUTBOX_ID, 0);
	row->job_id = int64_column(tuple, desc, COL_JOB_ID, 0);
	row->username = SPI_getvalue(tuple, desc, COL_USERNAME + 1);
	row->job_name = SPI_getvalue(tuple, desc, COL_JOB_NAME + 1);
	row->base_revision = int64_column(tuple, desc, COL_BASE_REVISION, 0);
	row->scheduled_for = int64_column(tuple, desc, COL_SCHEDULED_FOR, 0);
	row->first = int64_column(tuple, desc, COL_FIRST_SLOT, 0);
	row->last = int64_column(tuple, desc, COL_LAST_SLOT, 0);
	row->rule = int64_column(tuple, desc, COL_RULE, 0);
	row->slot = int64_column(tuple, desc, COL_SLOT, TRIGGER_ALL);
	row->target = int64_column(tuple, desc, COL_TARGET, 0);
	row->local = strcmp(SPI_getvalue(tuple, desc, COL_LOCAL + 1), "t") == 0;
	row->requested_by = SPI_getvalue(tuple, desc, COL_REQUESTED_BY + 1);
	row->created_at = int64_column(tuple, desc, COL_CREATED_AT, 0);
	return row;
}

void
outbox_delete(int64 outbox_id)
{
	static CatalogQuery query = {
		"DELETE FROM dsched.outbox WHERE outbox_id OPERATOR(pg_catalog.=) $1",
		SPI_OK_DELETE, 1, {INT8OID}
	};
	CatalogSpi	spi;
	Datum		id = Int64GetDatum(outbox_id);

	catalog_spi_begin(&spi);
	catalog_run(&query, &id, NULL);
	catalog_spi_finish(&spi);
}
