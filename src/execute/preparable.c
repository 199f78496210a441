/*
 * preparable.c
 *	  Can a statement be part of a transaction that is to be prepared (delivery exactly_once)?
 *
 * This is what the grammar shows.  What only shows when it runs (a function that touches a temporary table, a procedure that
 * commits) fails then, and with it the run: PREPARE TRANSACTION refuses it, and procedures are called inside a
 * transaction block, where they cannot commit.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

#include "command.h"
#include "compat.h"

static bool
is_temporary(const RangeVar *relation)
{
	return relation != NULL &&
		(relation->relpersistence == RELPERSISTENCE_TEMP ||
		 (relation->schemaname != NULL && strcmp(relation->schemaname, "pg_temp") == 0));
}

static const RangeVar *
made_by_select(const SelectStmt *select)
{
	/* INTO stands in the first of the selects that UNION and the like put together */
	while (select->op != SETOP_NONE)
		select = select->larg;
	return select->intoClause != NULL ? select->intoClause->rel : NULL;
}

static bool
makes_temporary(const Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
			return is_temporary(((const CreateStmt *) stmt)->relation);
		case T_CreateTableAsStmt:
			return is_temporary(((const CreateTableAsStmt *) stmt)->into->rel);
		case T_SelectStmt:
			return is_temporary(made_by_select((const SelectStmt *) stmt));
		case T_ViewStmt:
			return is_temporary(((const ViewStmt *) stmt)->view);
		case T_CreateSeqStmt:
			return is_temporary(((const CreateSeqStmt *) stmt)->sequence);
		default:
			return false;
	}
}

/* Why it cannot be, as the rest of a sentence; NULL: nothing speaks against it. */
static const char *
obstacle(const RawStmt *statement)
{
	const Node *stmt = statement->stmt;

	switch (statement_kind(statement))
	{
		case STATEMENT_TRANSACTION:
			return "controls transactions";
		case STATEMENT_OUTSIDE:
			return "cannot run inside a transaction block";
		case STATEMENT_PLAIN:
		case STATEMENT_PROCEDURE:
			break;
	}
	if (IsA(stmt, ListenStmt) || IsA(stmt, UnlistenStmt) || IsA(stmt, NotifyStmt))
		return "cannot be part of a prepared transaction";
	if (makes_temporary(stmt))
		return "makes a temporary object";
	if (IsA(stmt, DeclareCursorStmt) && (((const DeclareCursorStmt *) stmt)->options & CURSOR_OPT_HOLD) != 0)
		return "makes a cursor that outlives its transaction";
	return NULL;
}

void
statement_require_preparable(const RawStmt *statement)
{
	const char *why = obstacle(statement);

	if (why == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a command with %s cannot be delivered exactly once", GetCommandTagName(CreateCommandTag((Node *) statement))),
			 errdetail("The statement %s, and the whole command has to be one transaction that can be prepared.", why),
			 errhint("Leave it out, or use delivery \"at_least_once\" or \"at_most_once\".")));
}

void
command_require_preparable(Command *command)
{
	ListCell   *lc;

	foreach(lc, command->statements)
		statement_require_preparable(lfirst_node(RawStmt, lc));
	command->top_level = false;
}
