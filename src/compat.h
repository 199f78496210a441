/*
 * compat.h
 *	  What differs between the PostgreSQL versions that dsched is built for (15 to 18).
 *
 * The rest of the source is written for the newest of them and has no test of PG_VERSION_NUM.
 */
#ifndef DSCHED_COMPAT_H
#define DSCHED_COMPAT_H

#include "catalog/pg_database.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "tcop/cmdtag.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#if PG_VERSION_NUM < 150000
#error "dsched needs PostgreSQL 15 or later"
#endif

/* 18 has pg_noreturn instead, which stands before a declaration where this stands after it. */
#ifndef pg_attribute_noreturn
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

/* Runs a portal to its end as a top-level statement. 18 took a parameter that was always true away. */
static inline bool
compat_portal_run(Portal portal, DestReceiver *receiver, QueryCompletion *qc)
{
#if PG_VERSION_NUM >= 180000
	return PortalRun(portal, FETCH_ALL, true, receiver, receiver, qc);
#else
	return PortalRun(portal, FETCH_ALL, true, true, receiver, receiver, qc);
#endif
}

/* "INSERT 0 5". In 15 only the protocol code could say it. */
static inline void
compat_completion_string(char tag[COMPLETION_TAG_BUFSIZE], const QueryCompletion *qc)
{
#if PG_VERSION_NUM >= 160000
	(void) BuildQueryCompletionString(tag, qc, false);
#else
	const char *name = GetCommandTagName(qc->commandTag);

	if (command_tag_display_rowcount(qc->commandTag))
		snprintf(tag, COMPLETION_TAG_BUFSIZE, qc->commandTag == CMDTAG_INSERT ? "%s 0 " UINT64_FORMAT : "%s " UINT64_FORMAT,
				 name, qc->nprocessed);
	else
		strlcpy(tag, name, COMPLETION_TAG_BUFSIZE);
#endif
}

/* May this role connect to this database? */
static inline bool
compat_may_connect(Oid dboid, Oid roleoid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, dboid, roleoid, ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(dboid, roleoid, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

/* A set for the life of the process. 17 gives sets to resource owners and takes NULL for none. */
static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* Does this role own this database? */
static inline bool
compat_database_ownercheck(Oid dboid, Oid roleoid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, dboid, roleoid);
#else
	return pg_database_ownercheck(dboid, roleoid);
#endif
}

/* May this role SET ROLE to that one? Since 16 a membership can be without that. */
static inline bool
compat_member_can_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/* Drops the temporary replication slots of this session. */
static inline void
compat_replication_slot_cleanup(void)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCleanup(false);
#else
	ReplicationSlotCleanup();
#endif
}

/* The search path of code that runs with the rights of the extension's owner; until the GUC nest level ends. */
static inline void
compat_restrict_search_path(void)
{
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

#endif /* DSCHED_COMPAT_H */
