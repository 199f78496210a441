/*
 * fresh_schema.c
 *	  The first thing that the extension's script does: is the schema that it is installed into nobody else's?
 *
 * CREATE EXTENSION takes a schema that is there already.  If somebody who may create schemas in the database has made it
 * before, it is his: he may drop what is in it, and may have put an operator there that matches better than the server's
 * own where a view of ours is defined, to be run with the rights of whoever reads that view.  So the schema must belong to
 * the role that installs, or to a superuser, and must be empty.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "api/api.h"

PG_FUNCTION_INFO_V1(dsched_fresh_schema);

static Oid
owner_of_schema(Oid schema)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for namespace %u", schema);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Everything in a schema depends on it. */
static bool
has_objects(Oid schema, Oid but_function)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, keys);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		/* the extension itself is in no schema, but is to be dropped with this one */
		found = depend->classid != ExtensionRelationId &&
			!(depend->classid == ProcedureRelationId && depend->objid == but_function);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* _fresh_schema(): from the extension's script, when there is nothing but itself */
Datum
dsched_fresh_schema(PG_FUNCTION_ARGS)
{
	Oid			schema = get_func_namespace(fcinfo->flinfo->fn_oid);
	Oid			owner = owner_of_schema(schema);

	if (owner != GetUserId() && !superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"%s\" belongs to role \"%s\"", get_namespace_name(schema), GetUserNameFromId(owner, false)),
				 errdetail("Its owner could change and drop what is in it."),
				 errhint("Drop the schema, or give it to a superuser.")));
	if (has_objects(schema, fcinfo->flinfo->fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"%s\" is not empty", get_namespace_name(schema)),
				 errdetail("What is in it could be taken for something else by the extension's views."),
				 errhint("Drop the schema, or what is in it.")));
	PG_RETURN_VOID();
}
