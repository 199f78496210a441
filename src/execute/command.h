/*
 * command.h
 *	  A job's command: what its text consists of, and running it statement by statement.
 */
#ifndef DSCHED_COMMAND_H
#define DSCHED_COMMAND_H

#include "nodes/parsenodes.h"
#include "tcop/cmdtag.h"
#include "tcop/dest.h"

typedef enum StatementKind
{
	STATEMENT_PLAIN,			/* runs in a transaction that others may share */
	STATEMENT_PROCEDURE,		/* CALL, or a DO that looks like it: may commit by itself */
	STATEMENT_OUTSIDE,			/* cannot run in a transaction block: VACUUM, CREATE INDEX CONCURRENTLY, ... */
	STATEMENT_TRANSACTION		/* BEGIN, COMMIT, SAVEPOINT, ... */
} StatementKind;

typedef struct Command
{
	const char *text;
	struct KeptCommand *kept;	/* where its plans are kept (plans.h), or NULL */
	List	   *statements;		/* of RawStmt; read only if it is kept */
	bool		top_level;		/* each statement in a transaction of its own; else all in one */
	bool		logged;			/* by log_statement */
} Command;

/* What the last statement came to. */
typedef struct CommandResult
{
	char		tag[COMPLETION_TAG_BUFSIZE];	/* "" if there was no statement */
	int64		rows;			/* -1: not a statement that counts rows */
} CommandResult;

/*
 * Fills command from text, in the current memory context or from what is kept; a syntax error is an ERROR.  In a
 * transaction.
 */
extern void command_parse(Command *command, const char *text);

extern StatementKind statement_kind(const RawStmt *statement);

/* ERROR if it can be seen that the statement cannot be part of a transaction that is prepared: see preparable.c. */
extern void statement_require_preparable(const RawStmt *statement);

/* The whole command as one transaction that is prepared: ERROR if it cannot be. */
extern void command_require_preparable(Command *command);

/* Is it a COMMIT after which no transaction block is open? */
extern bool statement_ends_block(const RawStmt *statement);

/*
 * Runs statement n (from 0) to its end in the current transaction, with statement_timeout on.  Comes back in
 * the memory context of the transaction that is then current, which may be another.
 */
extern void command_run_statement(const Command *command, int n, CommandResult *result);

/* What would come up at commit, now, while the statement_timeout is still on: then turns it off. */
extern void command_settle(void);

extern void command_stop_timeout(void);

/* log_duration, log_min_duration_statement and their like. */
extern void command_log_duration(const Command *command);

#endif /* DSCHED_COMMAND_H */
