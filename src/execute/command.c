/*
 * command.c
 *	  A job's command: what its text consists of, and running it statement by statement.
 *
 * Statements run through portals at top level, as a client's do (exec_simple_query() is the model), not
 * through SPI: VACUUM, CREATE INDEX CONCURRENTLY and procedures that commit work only there.  So do the
 * settings and extensions that look at statements: statement_timeout, log_statement,
 * log_min_duration_statement, auto_explain.
 *
 * Parse trees and plans come from plans.c where it has them.
 *
 * Several plain statements are one transaction, in an implicit block as psql -c has it.  If one of them
 * cannot run in a block or controls transactions, each is its own transaction, as psql -f has it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "command.h"
#include "compat.h"
#include "plans.h"

static bool logged_by_setting(List *statements);
static bool cannot_run_in_block(const Node *stmt);
static bool detaches_concurrently(const AlterTableStmt *stmt);
static bool alters_tablespace(const AlterDatabaseStmt *stmt);
static bool may_control_transactions(const DoStmt *stmt);
static void refuse_client_copy(const RawStmt *statement);
static void start_timeout(void);
static void parse(Command *command);
static void define_portal(Portal portal, const Command *command, int n, CommandTag tag);
static void define_portal_anew(Portal portal, const Command *command, int n, CommandTag tag);
static void run_portal(Portal portal, CommandTag tag, CommandResult *result);

/* ---- what it is -------------------------------------------------------------------------------- */

void
command_parse(Command *command, const char *text)
{
	command->text = text;
	command->kept = plans_find(text);
	if (command->kept == NULL)
	{
		parse(command);
		command->kept = plans_add(text, command->statements, command->top_level);
	}
	if (command->kept != NULL)
	{
		command->statements = plans_statements(command->kept);
		command->top_level = plans_top_level(command->kept);
	}

	command->logged = logged_by_setting(command->statements);
	if (command->logged)
		ereport(LOG,
				(errmsg("statement: %s", text),
				 errhidestmt(true)));
}

static void
parse(Command *command)
{
	ListCell   *lc;

	command->statements = pg_parse_query(command->text);
	command->top_level = false;
	foreach(lc, command->statements)
	{
		if (statement_kind(lfirst_node(RawStmt, lc)) != STATEMENT_PLAIN)
			command->top_level = true;
	}
}

static bool
logged_by_setting(List *statements)
{
	ListCell   *lc;

	if (log_statement == LOGSTMT_NONE)
		return false;
	if (log_statement == LOGSTMT_ALL)
		return true;
	foreach(lc, statements)
	{
		if (GetCommandLogLevel((Node *) lfirst(lc)) <= (LogStmtLevel) log_statement)
			return true;
	}
	return false;
}

StatementKind
statement_kind(const RawStmt *statement)
{
	const Node *stmt = statement->stmt;

	if (IsA(stmt, TransactionStmt))
		return STATEMENT_TRANSACTION;
	if (IsA(stmt, CallStmt))
		return STATEMENT_PROCEDURE;
	if (IsA(stmt, DoStmt))
		return may_control_transactions((const DoStmt *) stmt) ? STATEMENT_PROCEDURE : STATEMENT_PLAIN;
	return cannot_run_in_block(stmt) ? STATEMENT_OUTSIDE : STATEMENT_PLAIN;
}

/*
 * REINDEX and CLUSTER of one table can run in a block if the table is not partitioned; they are not told
 * apart here, before names are looked up.  A statement that this list does not know works all the same where
 * it stands alone, only without a start row.
 */
static bool
cannot_run_in_block(const Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_VacuumStmt:
			return ((const VacuumStmt *) stmt)->is_vacuumcmd;
		case T_IndexStmt:
			return ((const IndexStmt *) stmt)->concurrent;
		case T_DropStmt:
			return ((const DropStmt *) stmt)->concurrent;
		case T_AlterTableStmt:
			return detaches_concurrently((const AlterTableStmt *) stmt);
		case T_AlterDatabaseStmt:
			return alters_tablespace((const AlterDatabaseStmt *) stmt);
		case T_DiscardStmt:
			return ((const DiscardStmt *) stmt)->target == DISCARD_ALL;
		case T_ReindexStmt:
		case T_ClusterStmt:
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_CreateTableSpaceStmt:
		case T_DropTableSpaceStmt:
		case T_AlterSystemStmt:
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
		case T_DropSubscriptionStmt:
			return true;
		default:
			return false;
	}
}

static bool
detaches_concurrently(const AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_DetachPartition && ((PartitionCmd *) cmd->def)->concurrent)
			return true;
	}
	return false;
}

static bool
alters_tablespace(const AlterDatabaseStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
			return true;
	}
	return false;
}

/*
 * A DO block cannot commit without saying so, in whatever language, or calling a procedure that does.  A
 * false alarm costs a start row, and the one transaction for all where there are several statements.
 */
static bool
may_control_transactions(const DoStmt *stmt)
{
	static const char *const words[] = {"commit", "rollback", "call"};
	ListCell   *lc;

	foreach(lc, stmt->args)
	{
		DefElem    *arg = lfirst_node(DefElem, lc);
		const char *body;

		if (strcmp(arg->defname, "as") != 0)
			continue;
		body = strVal(arg->arg);
		for (const char *c = body; *c != '\0'; c++)
			for (size_t i = 0; i < lengthof(words); i++)
				if (pg_strncasecmp(c, words[i], strlen(words[i])) == 0)
					return true;
	}
	return false;
}

bool
statement_ends_block(const RawStmt *statement)
{
	const TransactionStmt *stmt = (const TransactionStmt *) statement->stmt;

	return IsA(stmt, TransactionStmt) && stmt->kind == TRANS_STMT_COMMIT && !stmt->chain;
}

/* There is no client: the server would read its own standard input. */
static void
refuse_client_copy(const RawStmt *statement)
{
	if (IsA(statement->stmt, CopyStmt) && ((const CopyStmt *) statement->stmt)->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a job cannot COPY from STDIN or to STDOUT"),
				 errhint("Use a file or a program of the server.")));
}

/* ---- running it -------------------------------------------------------------------------------- */

void
command_run_statement(const Command *command, int n, CommandResult *result)
{
	RawStmt    *statement = list_nth_node(RawStmt, command->statements, n);
	CommandTag	tag = CreateCommandTag(statement->stmt);
	MemoryContext context;
	Portal		portal;

	pgstat_report_query_id(0, true);
	set_ps_display(GetCommandTagName(tag));
	start_timeout();
	refuse_client_copy(statement);
	CHECK_FOR_INTERRUPTS();

	/* not in the transaction's context, as the statement may end the transaction */
	context = AllocSetContextCreate(MessageContext, "dsched statement", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	portal = CreatePortal("", true, true);
	portal->visible = false;
	define_portal(portal, command, n, tag);
	CHECK_FOR_INTERRUPTS();
	run_portal(portal, tag, result);

	MemoryContextDelete(context);
}

/* Gives the portal its plans, ours or kept ones; those it holds until it is dropped. */
static void
define_portal(Portal portal, const Command *command, int n, CommandTag tag)
{
	if (command->kept != NULL && plans_source(command->kept, n) != NULL)
	{
		CachedPlan *plan = plans_get(command->kept, n);

		PortalDefineQuery(portal, NULL, command->text, tag, plan->stmt_list, plan);
	}
	else
		define_portal_anew(portal, command, n, tag);
}

static void
define_portal_anew(Portal portal, const Command *command, int n, CommandTag tag)
{
	RawStmt    *statement = list_nth_node(RawStmt, command->statements, n);
	bool		snapshot_set = analyze_requires_snapshot(statement);
	List	   *queries;

	if (command->kept != NULL)
		statement = copyObject(statement);
	if (snapshot_set)
		PushActiveSnapshot(GetTransactionSnapshot());
	queries = pg_analyze_and_rewrite_fixedparams(statement, command->text, NULL, 0, NULL);
	if (command->kept != NULL && plans_keep(command->kept, n, queries) != NULL)
	{
		CachedPlan *plan = plans_get(command->kept, n);

		PortalDefineQuery(portal, NULL, command->text, tag, plan->stmt_list, plan);
	}
	else
	{
		List	   *plans = pg_plan_queries(queries, command->text, CURSOR_OPT_PARALLEL_OK, NULL);

		PortalDefineQuery(portal, NULL, command->text, tag, plans, NULL);
	}
	/* Execution takes a later one, after the tables are locked. */
	if (snapshot_set)
		PopActiveSnapshot();
}

static void
run_portal(Portal portal, CommandTag tag, CommandResult *result)
{
	QueryCompletion completion;

	PortalStart(portal, NULL, 0, InvalidSnapshot);
	InitializeQueryCompletion(&completion);
	/* PortalRun() follows if another transaction, with another context, is current at its end */
	MemoryContextSwitchTo(TopTransactionContext);
	(void) compat_portal_run(portal, None_Receiver, &completion);
	PortalDrop(portal, false);

	if (completion.commandTag == CMDTAG_UNKNOWN)
		SetQueryCompletion(&completion, tag, 0);
	compat_completion_string(result->tag, &completion);
	result->rows = command_tag_display_rowcount(completion.commandTag) ? (int64) completion.nprocessed : -1;
}

/*
 * Deferred constraints and triggers belong to the run, as does what they take; and nothing of the job shall
 * come after its row.  Cursors go first: those WITH HOLD would be run to their end at commit, for nobody. A
 * deferred trigger may open more.
 */
void
command_settle(void)
{
	ConstraintsSetStmt *set_all_immediate = makeNode(ConstraintsSetStmt);

	PortalHashTableDeleteAll();
	AfterTriggerSetState(set_all_immediate);
	PortalHashTableDeleteAll();
	command_stop_timeout();
}

/* ---- time -------------------------------------------------------------------------------------- */

/* Each statement has the time for itself, as in the simple query protocol. */
static void
start_timeout(void)
{
	command_stop_timeout();
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
}

void
command_stop_timeout(void)
{
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
}

void
command_log_duration(const Command *command)
{
	char		msec[32];

	switch (check_log_duration(msec, command->logged))
	{
		case 1:
			ereport(LOG,
					(errmsg("duration: %s ms", msec),
					 errhidestmt(true)));
			break;
		case 2:
			ereport(LOG,
					(errmsg("duration: %s ms  statement: %s", msec, command->text),
					 errhidestmt(true)));
			break;
		default:
			break;
	}
}
