/*
 * record.c
 *	  The row that a run leaves in dsched.run.
 *
 * Texts are bounded: an error can quote a value of any size, and a row for each run adds up.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "clock.h"
#include "compat.h"
#include "record.h"

#define MAX_TEXT 8192			/* bytes of a message, detail, hint or context */
#define MAX_LINE 200			/* bytes of a quoted line of the command */

static char *bounded(const char *text, int max);
static char *error_context(const ErrorData *edata, const char *command);
static void append_position(StringInfo buf, const char *text, int position);

void
record_begin(RunRow *row, const RunEntry *entry, const char *job_name, const char *username)
{
	memset(row, 0, sizeof(*row));
	row->key = entry->key;
	row->job_name = job_name;
	row->username = username;
	row->gen = entry->gen;
	row->reason = entry->reason;
	row->status = RUN_RUNNING;
	row->slots = 1;
	row->started_at = entry->started_at;
	row->epoch = (int64) entry->token.epoch;
	row->pid = MyProcPid;
	row->rows = -1;
}

void
record_write(const RunRow *row, bool start_row)
{
	record_ignore_lock_timeout();
	if (!start_row || !run_update(row))
		(void) run_insert(row, false);
}

/* What the job set for its own locks is not for ours; until the transaction ends. */
void
record_ignore_lock_timeout(void)
{
	if (LockTimeout != 0)
		(void) set_config_option("lock_timeout", "0", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

bool
record_exists_error(const ErrorData *edata)
{
	return edata->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		edata->constraint_name != NULL && strcmp(edata->constraint_name, "run_pkey") == 0 &&
		edata->schema_name != NULL && strcmp(edata->schema_name, "dsched") == 0;
}

void
record_note(RunEntry *entry, int sqlerrcode, const char *message)
{
	int			len = pg_mbcliplen(message, strlen(message), sizeof(entry->message) - 1);

	memcpy(entry->message, message, len);
	entry->message[len] = '\0';
	strlcpy(entry->sqlstate, unpack_sql_state(sqlerrcode), sizeof(entry->sqlstate));
}

/* ---- errors ------------------------------------------------------------------------------------ */

void
record_error(RunRow *row, const ErrorData *edata, const char *command)
{
	row->sqlstate = pstrdup(unpack_sql_state(edata->sqlerrcode));
	row->message = bounded(edata->message ? edata->message : "missing error text", MAX_TEXT);
	row->detail = bounded(edata->detail, MAX_TEXT);
	row->hint = bounded(edata->hint, MAX_TEXT);
	row->context = error_context(edata, command);
}

static char *
bounded(const char *text, int max)
{
	int			len;

	if (text == NULL)
		return NULL;
	len = strlen(text);
	return len <= max ? pstrdup(text) : pnstrdup(text, pg_mbcliplen(text, len, max));
}

/* Where the error came from, as psql would show it: the call stack, and the place in the query. */
static char *
error_context(const ErrorData *edata, const char *command)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (edata->context != NULL)
		appendStringInfoString(&buf, bounded(edata->context, MAX_TEXT));
	if (edata->internalquery != NULL)
	{
		appendStringInfo(&buf, "%sQUERY: %s", buf.len > 0 ? "\n" : "", bounded(edata->internalquery, MAX_TEXT));
		append_position(&buf, edata->internalquery, edata->internalpos);
	}
	else if (command != NULL)
		append_position(&buf, command, edata->cursorpos);
	return buf.len > 0 ? buf.data : NULL;
}

/* position: in characters, from 1; 0 if it is not known */
static void
append_position(StringInfo buf, const char *text, int position)
{
	const char *line = text;
	const char *end;
	int			line_number = 1;
	int			column = 1;

	if (position <= 0)
		return;
	for (const char *c = text; *c != '\0' && --position > 0; c += pg_mblen(c))
	{
		column++;
		if (*c == '\n')
		{
			line = c + 1;
			line_number++;
			column = 1;
		}
	}
	end = line + strcspn(line, "\r\n");
	appendStringInfo(buf, "%sLINE %d, CHARACTER %d: %s", buf->len > 0 ? "\n" : "", line_number, column,
					 bounded(pnstrdup(line, end - line), MAX_LINE));
}
