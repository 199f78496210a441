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

static OutboxRow *outbox_from_tuple(HeapTuple tuple, TupleDesc desc);

void
outbox_insert(const OutboxRow *row)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.outbox (outbox_id, kind, job_id, username, job_name, base_revision, scheduled_for,"
		" requested_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		SPI_OK_INSERT, 9,
		{INT8OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID}
	};
	CatalogSpi	spi;
	Datum		values[9];

	catalog_spi_begin(&spi);
	values[0] = Int64GetDatum(row->outbox_id);
	values[1] = CStringGetTextDatum(row->is_delete ? "delete" : "trigger");
	values[2] = Int64GetDatum(row->job_id);
	values[3] = CStringGetTextDatum(row->username);
	values[4] = CStringGetTextDatum(row->job_name);
	values[5] = Int64GetDatum(row->base_revision);
	values[6] = TimestampTzGetDatum(row->scheduled_for);
	values[7] = CStringGetTextDatum(row->requested_by);
	values[8] = TimestampTzGetDatum(row->created_at);
	catalog_run(&query, values, row->scheduled_for == 0 ? "      n  " : NULL);
	catalog_spi_finish(&spi);
}

List *
outbox_lock_all(int max)
{
	static CatalogQuery query = {
		"SELECT outbox_id, kind, job_id, username, job_name, base_revision, scheduled_for, requested_by, created_at"
		" FROM dsched.outbox ORDER BY created_at, outbox_id LIMIT $1 FOR UPDATE SKIP LOCKED",
		SPI_OK_SELECT, 1, {INT8OID}
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi_context;
	CatalogSpi	spi;
	Datum		limit = Int64GetDatum(max);
	List	   *rows = NIL;

	catalog_spi_begin(&spi);
	catalog_run(&query, &limit, NULL);
	spi_context = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		rows = lappend(rows, outbox_from_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
	MemoryContextSwitchTo(spi_context);
	catalog_spi_finish(&spi);
	return rows;
}

static OutboxRow *
outbox_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	OutboxRow  *row = palloc(sizeof(OutboxRow));
	bool		isnull;

	row->outbox_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	row->is_delete = strcmp(TextDatumGetCString(SPI_getbinval(tuple, desc, 2, &isnull)), "delete") == 0;
	row->job_id = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
	row->username = TextDatumGetCString(SPI_getbinval(tuple, desc, 4, &isnull));
	row->job_name = TextDatumGetCString(SPI_getbinval(tuple, desc, 5, &isnull));
	row->base_revision = DatumGetInt64(SPI_getbinval(tuple, desc, 6, &isnull));
	row->scheduled_for = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 7, &isnull));
	if (isnull)
		row->scheduled_for = 0;
	row->requested_by = TextDatumGetCString(SPI_getbinval(tuple, desc, 8, &isnull));
	row->created_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 9, &isnull));
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
