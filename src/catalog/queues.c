/*
 * queues.c
 *	  The table dsched.queue: what limits the runs of the jobs that name a queue.
 *
 * All through SPI with the owner's rights: there are few queues, and no executor asks.
 *
 * A JOB AND THE QUEUE THAT IT NAMES
 *
 * There is no foreign key, as a definition that comes from etcd may name a queue that is not known here
 * (yet).  For what users define it is as with one: whoever puts a job into a queue locks the queue's row
 * FOR KEY SHARE, whoever drops it FOR UPDATE, and then looks for jobs with the latest snapshot, whatever
 * the isolation level is.
 *
 * A dropped queue stays as a row with changed = 'drop' until etcd has been told; nobody but the publisher
 * sees it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "access.h"
#include "clock.h"
#include "compat.h"

/* In this order they are the columns of what is read, and the parameters of what is written. */
#define QUEUE_COLUMNS \
	"name, max_running, rate_limit, per, scope, mod_revision, change_id, changed, problem, extra, created_at, changed_at"
#define N_QUEUE_COLUMNS 12
#define QUEUE_TYPES \
	{TEXTOID, INT4OID, INT4OID, INT8OID, TEXTOID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, \
	 TIMESTAMPTZOID}
#define QUEUE_INSERT \
	"INSERT INTO dsched.queue (" QUEUE_COLUMNS ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
#define SELECT_QUEUE "SELECT " QUEUE_COLUMNS " FROM dsched.queue"
#define BY_NAME " WHERE name OPERATOR(pg_catalog.=) $1"

/* In the order of QueueChange. */
static const char *const change_names[] = {NULL, "put", "offer", "drop"};

/* ---- rows --------------------------------------------------------------------------------------- */

static QueueChange
change_of_name(const char *name)
{
	for (int i = QUEUE_PUT; i <= QUEUE_DROP; i++)
		if (name != NULL && strcmp(name, change_names[i]) == 0)
			return (QueueChange) i;
	return QUEUE_KEPT;
}

static int64
number(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column, &isnull);

	if (isnull)
		return 0;
	return SPI_gettypeid(desc, column) == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

static QueueRow *
queue_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	QueueRow   *row = palloc0(sizeof(QueueRow));

	strlcpy(row->name, SPI_getvalue(tuple, desc, 1), sizeof(row->name));
	row->max_running = (int32) number(tuple, desc, 2);
	row->rate_limit = (int32) number(tuple, desc, 3);
	row->per = number(tuple, desc, 4);
	row->cluster = strcmp(SPI_getvalue(tuple, desc, 5), "cluster") == 0;
	row->mod_revision = number(tuple, desc, 6);
	row->change_id = number(tuple, desc, 7);
	row->changed = change_of_name(SPI_getvalue(tuple, desc, 8));
	row->problem = SPI_getvalue(tuple, desc, 9);
	row->extra = SPI_getvalue(tuple, desc, 10);
	row->created_at = number(tuple, desc, 11);
	row->changed_at = number(tuple, desc, 12);
	return row;
}

/* What the query gives, in the caller's context. */
static List *
read_rows(CatalogQuery *query, const Datum *values)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi_context;
	CatalogSpi	spi;
	List	   *rows = NIL;

	catalog_spi_begin(&spi);
	catalog_run(query, values, NULL);
	spi_context = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		rows = lappend(rows, queue_from_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
	MemoryContextSwitchTo(spi_context);
	catalog_spi_finish(&spi);
	return rows;
}

static bool
read_by_name(CatalogQuery *query, const char *name, QueueRow *out)
{
	Datum		value = CStringGetTextDatum(name);
	List	   *rows = read_rows(query, &value);

	if (rows == NIL)
		return false;
	if (out != NULL)
		*out = *(QueueRow *) linitial(rows);
	return true;
}

/* ---- reading ------------------------------------------------------------------------------------ */

bool
queue_exists(const char *name)
{
	static CatalogQuery query = {
		SELECT_QUEUE BY_NAME " AND changed IS DISTINCT FROM 'drop' FOR KEY SHARE", SPI_OK_SELECT, 1, {TEXTOID}
	};

	return read_by_name(&query, name, NULL);
}

bool
queue_read(const char *name, QueueRow *out)
{
	static CatalogQuery query = {SELECT_QUEUE BY_NAME, SPI_OK_SELECT, 1, {TEXTOID}};

	return read_by_name(&query, name, out);
}

bool
queue_lock(const char *name, QueueRow *out)
{
	static CatalogQuery query = {SELECT_QUEUE BY_NAME " FOR UPDATE", SPI_OK_SELECT, 1, {TEXTOID}};

	return read_by_name(&query, name, out);
}

/* As job_try_lock() does it. */
int
queue_try_lock(const char *name, bool to_delete, QueueRow *out)
{
	static CatalogQuery for_update = {
		SELECT_QUEUE BY_NAME " FOR UPDATE SKIP LOCKED", SPI_OK_SELECT, 1, {TEXTOID}
	};
	static CatalogQuery for_no_key_update = {
		SELECT_QUEUE BY_NAME " FOR NO KEY UPDATE SKIP LOCKED", SPI_OK_SELECT, 1, {TEXTOID}
	};
	QueueRow	seen;

	if (read_by_name(to_delete ? &for_update : &for_no_key_update, name, out))
		return 1;
	return queue_read(name, &seen) ? -1 : 0;
}

List *
queue_read_all(void)
{
	static CatalogQuery query = {SELECT_QUEUE " ORDER BY name", SPI_OK_SELECT};

	return read_rows(&query, NULL);
}

/* A lock that those do not hold up who put jobs into the queue. */
List *
queue_lock_changed(int max)
{
	static CatalogQuery query = {
		SELECT_QUEUE " WHERE changed IS NOT NULL AND problem IS NULL ORDER BY name LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
		SPI_OK_SELECT, 1, {INT8OID}
	};
	Datum		limit = Int64GetDatum(max);

	return read_rows(&query, &limit);
}

int
queue_count_changed(void)
{
	static CatalogQuery query = {"SELECT FROM dsched.queue WHERE changed IS NOT NULL AND problem IS NULL", SPI_OK_SELECT};
	CatalogSpi	spi;
	uint64		n;

	catalog_spi_begin(&spi);
	n = catalog_run(&query, NULL, NULL);
	catalog_spi_finish(&spi);
	return (int) n;
}

/* ---- writing ------------------------------------------------------------------------------------ */

static void
put_text(Datum *values, char *nulls, int column, const char *text)
{
	nulls[column] = text != NULL ? ' ' : 'n';
	values[column] = text != NULL ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
put_int64(Datum *values, char *nulls, int column, bool present, int64 value)
{
	nulls[column] = present ? ' ' : 'n';
	values[column] = Int64GetDatum(value);
}

/* Runs a statement that writes, so that the table's trigger takes it for ours. */
static uint64
run_writing(CatalogQuery *query, const Datum *values, const char *nulls)
{
	volatile uint64 n = 0;

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
	return n;
}

static uint64
write_row(CatalogQuery *query, const QueueRow *row)
{
	CatalogSpi	spi;
	Datum		values[N_QUEUE_COLUMNS];
	char		nulls[N_QUEUE_COLUMNS];
	uint64		n;

	catalog_spi_begin(&spi);
	put_text(values, nulls, 0, row->name);
	nulls[1] = row->max_running != 0 ? ' ' : 'n';
	values[1] = Int32GetDatum(row->max_running);
	nulls[2] = row->rate_limit != 0 ? ' ' : 'n';
	values[2] = Int32GetDatum(row->rate_limit);
	put_int64(values, nulls, 3, row->rate_limit != 0, row->per);
	put_text(values, nulls, 4, row->cluster ? "cluster" : "instance");
	put_int64(values, nulls, 5, true, row->mod_revision);
	put_int64(values, nulls, 6, true, row->change_id);
	put_text(values, nulls, 7, change_names[row->changed]);
	put_text(values, nulls, 8, row->problem);
	put_text(values, nulls, 9, row->extra);
	put_int64(values, nulls, 10, true, row->created_at);
	put_int64(values, nulls, 11, true, row->changed_at);
	n = run_writing(query, values, nulls);
	catalog_spi_finish(&spi);
	return n;
}

void
queue_write(const QueueRow *row)
{
	static CatalogQuery query = {
		QUEUE_INSERT " ON CONFLICT (name) DO UPDATE SET"
		" (max_running, rate_limit, per, scope, mod_revision, change_id, changed, problem, extra, changed_at) ="
		" ROW(EXCLUDED.max_running, EXCLUDED.rate_limit, EXCLUDED.per, EXCLUDED.scope, EXCLUDED.mod_revision,"
		" EXCLUDED.change_id, EXCLUDED.changed, EXCLUDED.problem, EXCLUDED.extra, EXCLUDED.changed_at)",
		SPI_OK_INSERT, N_QUEUE_COLUMNS, QUEUE_TYPES
	};

	(void) write_row(&query, row);
}

bool
queue_insert_new(const QueueRow *row)
{
	static CatalogQuery query = {
		QUEUE_INSERT " ON CONFLICT (name) DO NOTHING", SPI_OK_INSERT, N_QUEUE_COLUMNS, QUEUE_TYPES
	};

	return write_row(&query, row) == 1;
}

void
queue_delete(const char *name)
{
	static CatalogQuery query = {"DELETE FROM dsched.queue" BY_NAME, SPI_OK_DELETE, 1, {TEXTOID}};
	CatalogSpi	spi;
	Datum		value;

	catalog_spi_begin(&spi);
	value = CStringGetTextDatum(name);
	catalog_run(&query, &value, NULL);
	catalog_spi_finish(&spi);
}

/* Its change id stays: whoever offers the same version of the queue says the same. */
static bool
offer(QueueRow *row)
{
	int			locked;

	if (row->changed == QUEUE_OFFER && row->mod_revision == 0)
		return true;
	locked = queue_try_lock(row->name, true, row);
	if (locked <= 0)
		return locked == 0;
	if (row->changed == QUEUE_DROP)
	{
		queue_delete(row->name);
		return true;
	}
	row->changed = QUEUE_OFFER;
	row->mod_revision = 0;
	row->problem = NULL;
	queue_write(row);
	return true;
}

bool
queue_offer_all(void)
{
	bool		complete = true;
	ListCell   *lc;

	foreach(lc, queue_read_all())
		complete &= offer(lfirst(lc));
	return complete;
}

/* ---- who is in it ------------------------------------------------------------------------------- */

typedef enum MemberColumn
{
	COL_USERNAME,
	COL_JOB_NAME,
	COL_QUEUE
} MemberColumn;

static const char *const member_columns[] = {"username", "job_name", "queue"};
static ColumnMap member_map = {member_columns, lengthof(member_columns)};

static char *
member_text(HeapTuple tuple, TupleDesc desc, MemberColumn column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, member_map.attno[column], desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

List *
queue_jobs(const char *name)
{
	const CatalogOids *oids = catalog_require();
	Relation	rel = table_open(oids->job, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *jobs = NIL;
	HeapTuple	tuple;

	column_map_for(&member_map, rel);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *queue = member_text(tuple, RelationGetDescr(rel), COL_QUEUE);

		CHECK_FOR_INTERRUPTS();
		if (queue == NULL)
			continue;
		if (strcmp(queue, name) == 0)
		{
			JobRow	   *row = palloc0(sizeof(JobRow));

			row->username = member_text(tuple, RelationGetDescr(rel), COL_USERNAME);
			row->job_name = member_text(tuple, RelationGetDescr(rel), COL_JOB_NAME);
			jobs = lappend(jobs, row);
		}
		pfree(queue);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return jobs;
}
