/*
 * upkeep.c
 *	  Rare work on all of the tables at once: for CREATE EXTENSION, dsched.adopt(), a recovered cluster and dsched.status().
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "access.h"
#include "settings.h"
#include "upkeep.h"

/* ---- identity ----------------------------------------------------------------------------------- */

void
identity_here(Identity *out)
{
	char	   *dbname = get_database_name(MyDatabaseId);

	memset(out, 0, sizeof(*out));
	out->found = true;
	out->system_identifier = GetSystemIdentifier();
	out->database_oid = MyDatabaseId;
	strlcpy(out->database_name, dbname ? dbname : "", sizeof(out->database_name));
	if (dsched_clustered())
		strlcpy(out->cluster, dsched_cluster_name, sizeof(out->cluster));
}

static const char *
mode_name(const char *cluster)
{
	return cluster[0] == '\0' ? "an instance that runs alone" : psprintf("cluster \"%s\"", cluster);
}

char *
identity_mismatch(const Identity *stored)
{
	Identity	here;

	identity_here(&here);
	if (!stored->found)
		return pstrdup("the database's identity is not recorded");
	if (stored->system_identifier != here.system_identifier)
		return pstrdup("the database comes from another server");
	if (stored->database_oid != here.database_oid)
		return psprintf("the database is a copy of database \"%s\"", stored->database_name);
	if (strcmp(stored->database_name, here.database_name) != 0)
		return psprintf("the database was named \"%s\"", stored->database_name);
	if (strcmp(stored->cluster, here.cluster) != 0)
		return psprintf("the jobs belong to %s, the server is set up as %s",
						mode_name(stored->cluster), mode_name(here.cluster));
	return NULL;
}

/* Nothing of the extension can be looked up while its script runs, so this is plain SPI. */
void
identity_create(void)
{
	Identity	here;
	Oid			types[] = {INT8OID, OIDOID, TEXTOID, TEXTOID};
	Datum		values[4];

	identity_here(&here);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	values[0] = Int64GetDatum((int64) here.system_identifier);
	values[1] = ObjectIdGetDatum(here.database_oid);
	values[2] = CStringGetTextDatum(here.database_name);
	values[3] = CStringGetTextDatum(here.cluster);
	if (SPI_execute_with_args("INSERT INTO dsched.identity (singleton, system_identifier, database_oid, database_name,"
							  " cluster, incarnation, max_revision, applied_revision)"
							  " VALUES (true, $1, $2, $3, $4, '', 0, 0)",
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write the identity of the database");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

void
identity_hold(const char *why)
{
	static CatalogQuery query = {
		"UPDATE dsched.identity SET held = $1 WHERE held IS DISTINCT FROM $1",
		SPI_OK_UPDATE, 1, {TEXTOID}
	};
	CatalogSpi	spi;
	Datum		value;

	catalog_spi_begin(&spi);
	value = CStringGetTextDatum(why);
	catalog_run(&query, &value, NULL);
	catalog_spi_finish(&spi);
}

/* ---- everything --------------------------------------------------------------------------------- */

void
forget_accounts(void)
{
	static CatalogQuery forget_outbox = {"DELETE FROM dsched.outbox", SPI_OK_DELETE, 0};
	static CatalogQuery forget_states = {"DELETE FROM dsched.partition_state", SPI_OK_DELETE, 0};
	CatalogSpi	spi;

	catalog_spi_begin(&spi);
	catalog_run(&forget_outbox, NULL, NULL);
	catalog_run(&forget_states, NULL, NULL);
	catalog_spi_finish(&spi);
}

uint64
job_mark_all(const char *what)
{
	static CatalogQuery query = {
		"UPDATE dsched.job SET changed = ARRAY[$1], change_id = 1 + floor(random() * 9007199254740990)::bigint"
		" WHERE changed IS NULL",
		SPI_OK_UPDATE, 1, {TEXTOID}
	};
	CatalogSpi	spi;
	Datum		value;
	uint64		n = 0;

	catalog_spi_begin(&spi);
	value = CStringGetTextDatum(what);
	PG_TRY();
	{
		catalog_writing = true;
		n = catalog_run(&query, &value, NULL);
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
forget_states(const char *but)
{
	static CatalogQuery query = {
		"DELETE FROM dsched.partition_state WHERE place OPERATOR(pg_catalog.<>) $1",
		SPI_OK_DELETE, 1, {TEXTOID}
	};
	CatalogSpi	spi;
	Datum		value;

	catalog_spi_begin(&spi);
	value = CStringGetTextDatum(but);
	catalog_run(&query, &value, NULL);
	catalog_spi_finish(&spi);
}

List *
job_read_broken(void)
{
	static CatalogQuery query = {
		"SELECT job_id, username, job_name, problem FROM dsched.job WHERE problem IS NOT NULL"
		" ORDER BY username, job_name",
		SPI_OK_SELECT, 0
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi_context;
	CatalogSpi	spi;
	List	   *rows = NIL;

	catalog_spi_begin(&spi);
	catalog_run(&query, NULL, NULL);
	spi_context = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		JobRow	   *row = palloc0(sizeof(JobRow));
		bool		isnull;

		row->job_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		row->username = SPI_getvalue(tuple, desc, 2);
		row->job_name = SPI_getvalue(tuple, desc, 3);
		row->problem = SPI_getvalue(tuple, desc, 4);
		rows = lappend(rows, row);
	}
	MemoryContextSwitchTo(spi_context);
	catalog_spi_finish(&spi);
	return rows;
}
