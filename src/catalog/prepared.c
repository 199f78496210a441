/*
 * prepared.c
 *	  The prepared transactions of exactly_once: made by executors, finished by them or, if they died, by the scheduler.
 *
 * They belong to the owner of the extension, who is a superuser.  PostgreSQL lets only that role and superusers finish them, so the
 * role of the job, as which everything before was done, cannot.  The name alone would prove nothing: every role can
 * prepare a transaction under any name.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "access.h"
#include "catalog.h"
#include "core/gid.h"

static Oid	user_before;
static int	context_before;

List *
prepared_list(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {TEXTOID, OIDOID};
	Datum		values[2];
	List	   *gids = NIL;

	values[0] = CStringGetTextDatum(GID_PREFIX);
	values[1] = ObjectIdGetDatum(catalog_require()->owner);
	SPI_connect();
	if (SPI_execute_with_args("SELECT gid FROM pg_catalog.pg_prepared_xacts"
							  " WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
							  " AND pg_catalog.starts_with(gid, $1)"
							  " AND owner OPERATOR(pg_catalog.=) pg_catalog.pg_get_userbyid($2)"
							  " ORDER BY prepared",
							  2, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *gid = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		gids = lappend(gids, pstrdup(gid));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return gids;
}

/*
 * The block becomes one that the next CommitTransactionCommand() prepares; prepared_end() must follow that.  After an error
 * the abort of the transaction gives the user back.
 */
bool
prepared_begin(const char *gid)
{
	Oid			owner = catalog_require()->owner;

	GetUserIdAndSecContext(&user_before, &context_before);
	if (!PrepareTransactionBlock(gid))
		return false;
	SetUserIdAndSecContext(owner, context_before | SECURITY_LOCAL_USERID_CHANGE);
	return true;
}

void
prepared_end(void)
{
	SetUserIdAndSecContext(user_before, context_before);
}

void
prepared_finish(const char *gid, bool commit)
{
	GetUserIdAndSecContext(&user_before, &context_before);
	SetUserIdAndSecContext(catalog_require()->owner, context_before | SECURITY_LOCAL_USERID_CHANGE);
	FinishPreparedTransaction(gid, commit);
	SetUserIdAndSecContext(user_before, context_before);
}
