/*
 * hooks.c
 *	  Commands that concern dsched's workers: those that need a database empty, and DROP EXTENSION.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE and CREATE DATABASE (of its template) fail while
 * anybody is connected to the database, and persistent workers are.  So before such a command this
 * database's workers are told to leave, and they stay away until its transaction has ended, well or badly (a scheduler
 * that came back earlier would not see the new name).  Its running jobs are aborted and run again afterwards, if there
 * is still a database.
 *
 * DROP EXTENSION is seen by the object access hook and wakes the scheduler at commit, which then finds no
 * extension and leaves.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/memutils.h"

#include "compat.h"
#include "hooks.h"
#include "shared.h"

static ProcessUtility_hook_type prev_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static void utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc);
static void object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg);
static const char *database_to_empty(Node *statement);
static bool database_is_mine(Oid dboid);
static void at_end_of_transaction(XactEvent event, void *arg);

/* A database that this transaction needs empty; in TopMemoryContext. */
typedef struct ClearedDatabase
{
	Oid			dboid;
	bool		dropped;		/* if the transaction commits */
} ClearedDatabase;

static List *cleared = NIL;

void
dsched_install_hooks(void)
{
	RegisterXactCallback(at_end_of_transaction, NULL);
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}

/* The name of the database that a statement needs without connections, or NULL. */
static const char *
database_to_empty(Node *statement)
{
	ListCell   *lc;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst_node(DefElem, lc);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return NULL;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		default:
			return NULL;
	}
}

/*
 * May the caller do such a thing to this database?  Who may copy a template without owning it (datistemplate)
 * needs none of this: no scheduler lives in a template.
 */
static bool
database_is_mine(Oid dboid)
{
	return superuser() || compat_database_ownercheck(dboid, GetUserId());
}

/* Makes the workers of a database leave until the end of this transaction. */
static ClearedDatabase *
clear_database(Oid dboid)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ClearedDatabase *entry = palloc0(sizeof(ClearedDatabase));

	entry->dboid = dboid;
	cleared = lappend(cleared, entry);
	MemoryContextSwitchTo(old);
	dsched_clear_database(dboid);
	return entry;
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (cleared == NIL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	foreach(lc, cleared)
	{
		ClearedDatabase *entry = lfirst(lc);

		dsched_let_back(entry->dboid, entry->dropped && event == XACT_EVENT_COMMIT);
	}
	list_free_deep(cleared);
	cleared = NIL;
}

static void
utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = prev_utility ? prev_utility : standard_ProcessUtility;
	const char *dbname = dsched_shared ? database_to_empty(pstmt->utilityStmt) : NULL;
	Oid			dboid = dbname ? get_database_oid(dbname, true) : InvalidOid;
	bool		drops = IsA(pstmt->utilityStmt, DropdbStmt);
	ClearedDatabase *entry = NULL;

	if (dsched_shared && IsA(pstmt->utilityStmt, CreatedbStmt))
		dsched_scan_at_commit();

	/* whoever may not do this shall not disturb anybody: the command itself would say so too late */
	if (OidIsValid(dboid) && dboid != MyDatabaseId && database_is_mine(dboid))
		entry = clear_database(dboid);
	next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (entry != NULL)
		entry->dropped = drops;
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
	if (access == OAT_DROP && classId == ExtensionRelationId && dsched_shared != NULL &&
		objectId == get_extension_oid("dsched", true))
		dsched_wake_at_commit();
}
