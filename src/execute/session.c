/*
 * session.c
 *	  The executor's session: what a run may leave in it, and whether it is still what a new one would be.
 *
 * An executor makes many runs in one session, and each must find it as a new connection would be.  That is
 * DISCARD ALL but for the plans, which its parts here leave alone.  Not reset, as DISCARD ALL does not
 * either: connections of postgres_fdw and dblink, variables of procedural languages, loaded libraries.
 *
 * A session also ages.  ALTER ROLE and ALTER DATABASE count for new sessions only, and an executor with much
 * to do lives long; so it compares what made its session with what is in the catalogs now, and leaves if they
 * differ.  Settings of roles and databases (pg_db_role_setting) have no cache and no callback; but no catalog
 * changes without a message to all processes, so that the look can wait until some message came.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_db_role_setting.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/origin.h"
#include "storage/lock.h"
#include "storage/sinval.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "session.h"

#define N_SETTING_ROWS 4

/* All that a session takes over when it begins. */
typedef struct Origin
{
	char		rolname[NAMEDATALEN];
	char		datname[NAMEDATALEN];
	bool		may_be_here;
	/* rows of pg_db_role_setting that apply, by version */
	TransactionId xmin[N_SETTING_ROWS];
	ItemPointerData tid[N_SETTING_ROWS];
} Origin;

/* the four answers to "who am I" at the start */
static Oid	session_user;
static Oid	outer_user;
static Oid	set_role;
static Oid	effective_user;

static Origin origin;
static uint64 messages_seen = 0;

static char *first_name = NULL; /* application_name as the session began */

/* with a temporary schema: nothing was in it when the count of messages was this */
static uint64 messages_when_empty = 0;

static void look_at_origin(Origin *out);
static void look_at_settings(Origin *out);
static void set_name(const char *name);
static bool authorization_is_ours(void);
static bool may_have_temporary_objects(void);
static void reset_in_transaction(void);

void
executor_session_init(void)
{
	session_user = GetSessionUserId();
	outer_user = GetOuterUserId();
	set_role = GetCurrentRoleId();
	effective_user = GetUserId();
	first_name = MemoryContextStrdup(TopMemoryContext, application_name);

	StartTransactionCommand();
	messages_seen = SharedInvalidMessageCounter;
	look_at_origin(&origin);
	CommitTransactionCommand();
}

/* ---- between runs ------------------------------------------------------------------------------ */

/*
 * As the value that RESET goes back to: then there is nothing to take back after the run, and no list of
 * changed settings to go through at its commit.
 */
static void
set_name(const char *name)
{
	if (strcmp(name, application_name) != 0)
		(void) set_config_option("application_name", name, PGC_USERSET, PGC_S_OVERRIDE, GUC_ACTION_SET, true, 0, false);
}

void
executor_session_name_after(const char *job_name)
{
	char		name[NAMEDATALEN + 8];

	snprintf(name, sizeof(name), "dsched: %s", job_name);
	name[pg_mbcliplen(name, strlen(name), NAMEDATALEN - 1)] = '\0';
	set_name(name);
}

void
executor_session_name_idle(void)
{
	set_name(first_name);
}

/*
 * What DISCARD ALL does, with the settings first, so that the job's do not count for the rest.  A transaction
 * costs more than all that is in it where there is nothing to do, which is almost always; so there is one only
 * for what needs one and may be there.  (LISTEN cannot: background processes may not.)
 */
bool
executor_session_reset(bool settled)
{
	/* there is no way back from these that is worth its while; the end of the process ends a backup, too */
	if (replorigin_session_origin != InvalidRepOriginId || get_backup_status() != SESSION_BACKUP_NONE)
		return false;

	ResetAllOptions();
	if (!settled || !authorization_is_ours() || may_have_temporary_objects())
		reset_in_transaction();
	DropAllPreparedStatements();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetSequenceCaches();
	return true;
}

static void
reset_in_transaction(void)
{
	StartTransactionCommand();
	PortalHashTableDeleteAll();
	if (!authorization_is_ours())
	{
		SetPGVariable("session_authorization", NIL, false);
		SetPGVariable("role", NIL, false);
	}
	Async_UnlistenAll();
	ResetTempTableNamespace();
	CommitTransactionCommand();

	AcceptInvalidationMessages();
	messages_when_empty = SharedInvalidMessageCounter;
}

static bool
authorization_is_ours(void)
{
	return GetSessionUserId() == session_user && GetOuterUserId() == outer_user &&
		GetCurrentRoleId() == set_role && GetUserId() == effective_user;
}

/*
 * A session that once had a temporary object keeps its schema.  No object comes into it without a message,
 * which its own sender receives, too.
 */
static bool
may_have_temporary_objects(void)
{
	Oid			schema;
	Oid			toast_schema;

	GetTempNamespaceState(&schema, &toast_schema);
	if (!OidIsValid(schema))
		return false;
	AcceptInvalidationMessages();
	return SharedInvalidMessageCounter != messages_when_empty;
}

/* ---- ageing ------------------------------------------------------------------------------------ */

bool
executor_session_outdated(void)
{
	Origin		now;
	bool		outdated;

	/* as the start of a transaction does it, before there is one */
	AcceptInvalidationMessages();
	if (SharedInvalidMessageCounter == messages_seen)
		return false;

	StartTransactionCommand();
	messages_seen = SharedInvalidMessageCounter;
	look_at_origin(&now);
	outdated = memcmp(&now, &origin, sizeof(Origin)) != 0;
	CommitTransactionCommand();
	return outdated;
}

static void
look_at_origin(Origin *out)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(session_user));
	HeapTuple	database = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));

	/* compared byte by byte */
	memset(out, 0, sizeof(*out));
	if (HeapTupleIsValid(role) && HeapTupleIsValid(database))
	{
		Form_pg_authid authid = (Form_pg_authid) GETSTRUCT(role);
		Form_pg_database db = (Form_pg_database) GETSTRUCT(database);

		strlcpy(out->rolname, NameStr(authid->rolname), NAMEDATALEN);
		strlcpy(out->datname, NameStr(db->datname), NAMEDATALEN);
		out->may_be_here = authid->rolcanlogin && db->datallowconn && compat_may_connect(MyDatabaseId, session_user);
	}
	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	if (HeapTupleIsValid(database))
		ReleaseSysCache(database);
	look_at_settings(out);
}

static void
look_at_settings(Origin *out)
{
	const struct
	{
		Oid			database;
		Oid			role;
	}			rows[N_SETTING_ROWS] = {
		{MyDatabaseId, session_user}, {InvalidOid, session_user}, {MyDatabaseId, InvalidOid}, {InvalidOid, InvalidOid}
	};
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);

	for (int i = 0; i < N_SETTING_ROWS; i++)
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(rows[i].database));
		ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(rows[i].role));
		scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true, NULL, 2, keys);
		tuple = systable_getnext(scan);
		if (HeapTupleIsValid(tuple))
		{
			out->xmin[i] = HeapTupleHeaderGetRawXmin(tuple->t_data);
			out->tid[i] = tuple->t_self;
		}
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
}
