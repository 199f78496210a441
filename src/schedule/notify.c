/*
 * notify.c
 *	  NOTIFY dsched: outcomes of runs and pauses of jobs, for whoever listens.
 *
 * Events are collected as finished payloads in the scheduler's memory and sent in one transaction at the
 * end of the turn: never in that of a run, as a notification takes a lock that is one for the whole server,
 * from before the commit until after it.
 *
 * They are a courtesy and not an account: dsched.run is.  An event is lost with the scheduler's process, and
 * can come twice.  Nothing here may hinder the scheduler:
 *	- at most MAX_EVENTS are kept; of the rest their number is sent;
 *	- a lock that somebody else holds (a backend in its commit, which may wait for a synchronous standby): a
 *	  short wait, then another try in a while;
 *	- any other error, and that is mostly a full notification queue, as some session listens and sits in a
 *	  transaction: what was collected is dropped, and the log says so once until sending succeeds again.
 * The server does not tell whether anybody listens.  If nobody does, it throws its queue away by itself, and
 * the cost is a commit that waits for no disk.
 *
 * Every role may listen in every database that it may connect to, so the payload has the names, times and
 * outcomes that are needed to look further, and never a message or a command.  JSON, in the encoding of the
 * database, below the server's limit of 8,000 bytes: names have at most 255 bytes, each of which may become
 * six ("\u0001").
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "compat.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define CHANNEL "dsched"
#define MAX_EVENTS 1000
#define MAX_PROBLEM 500			/* bytes, before escaping */
#define LOCK_TIMEOUT_OF_SENDING "50ms"
#define SEND_AGAIN_US INT64CONST(1000000)

static MemoryContext event_context = NULL;
static List *events = NIL;		/* of char *, payloads in event_context */
static int64 dropped = 0;		/* events beyond MAX_EVENTS */
static int64 send_again_at = 0;	/* boot time; 0: at once */
static bool failing = false;	/* the last sending failed, and the log says so */

static bool of_interest(RunStatus status);
static void begin_event(StringInfo buf, const char *event);
static void add_string(StringInfo buf, const char *name, const char *value);
static void add_job(StringInfo buf, int64 job_id, const char *job_name, const char *username);
static void add_time(StringInfo buf, const char *name, TimestampTz time);
static void end_event(StringInfo buf);
static bool room_for_event(void);
static void send_events(void);
static void set_locally(const char *name, const char *value);
static bool sending_failed(const ErrorData *error);
static void forget_events(void);

/* ---- collecting ------------------------------------------------------------------------------- */

void
notify_run(const RunKey *key, const char *job_name, const char *username, RunStatus status, bool retried)
{
	StringInfoData buf;

	if (!of_interest(status) || !room_for_event())
		return;
	begin_event(&buf, "run");
	add_job(&buf, key->job_id, job_name, username);
	/* as dsched.runs has it: Unix microseconds */
	appendStringInfo(&buf, ",\"run_key\":\"" INT64_FORMAT ":" INT64_FORMAT ":" INT64_FORMAT "\"", key->job_id,
					 key->scheduled_for + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY, key->trigger_id);
	add_time(&buf, "scheduled_for", key->scheduled_for);
	appendStringInfo(&buf, ",\"attempt\":%d", key->attempt);
	add_string(&buf, "status", run_status_name(status));
	appendStringInfo(&buf, ",\"will_retry\":%s", retried ? "true" : "false");
	end_event(&buf);
}

void
notify_paused(int64 job_id, const char *job_name, const char *username, const char *problem)
{
	StringInfoData buf;
	char	   *cut;

	if (dsched_notify == NOTIFY_OFF || !room_for_event())
		return;
	cut = pnstrdup(problem, pg_mbcliplen(problem, strlen(problem), MAX_PROBLEM));
	begin_event(&buf, "paused");
	add_job(&buf, job_id, job_name, username);
	add_string(&buf, "problem", cut);
	end_event(&buf);
	pfree(cut);
}

static bool
of_interest(RunStatus status)
{
	if (dsched_notify == NOTIFY_FAILURES)
		return status == RUN_FAILED || status == RUN_TIMED_OUT || status == RUN_LOST;
	return dsched_notify == NOTIFY_ALL;
}

static bool
room_for_event(void)
{
	if (list_length(events) < MAX_EVENTS)
		return true;
	dropped++;
	return false;
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static void
begin_event(StringInfo buf, const char *event)
{
	initStringInfo(buf);
	appendStringInfo(buf, "{\"event\":\"%s\"", event);
}

/* name is one of ours and needs no escaping */
static void
add_string(StringInfo buf, const char *name, const char *value)
{
	appendStringInfo(buf, ",\"%s\":", name);
	escape_json(buf, value);
}

static void
add_job(StringInfo buf, int64 job_id, const char *job_name, const char *username)
{
	add_string(buf, "job", job_name);
	appendStringInfo(buf, ",\"job_id\":" INT64_FORMAT, job_id);
	add_string(buf, "username", username);
}

/* ISO 8601, in UTC whatever the time zone is */
static void
add_time(StringInfo buf, const char *name, TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		return;
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_XSD_DATES, text);
	appendStringInfo(buf, ",\"%s\":\"%sZ\"", name, text);
}

static void
end_event(StringInfo buf)
{
	MemoryContext old;

	add_string(buf, "node", dsched_my_node());
	appendStringInfoChar(buf, '}');

	if (event_context == NULL)
		event_context = AllocSetContextCreate(scheduler.context, "dsched events", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(event_context);
	events = lappend(events, pstrdup(buf->data));
	MemoryContextSwitchTo(old);
	pfree(buf->data);
}

/* ---- sending ----------------------------------------------------------------------------------- */

bool
notify_idle(void)
{
	return events == NIL;
}

bool
notify_flush(void)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool done = true;

	if (events == NIL)
		return true;
	if (send_again_at > scheduler.boot)
	{
		scheduler_wake_at(send_again_at);
		return false;
	}
	PG_TRY();
	{
		send_events();
		failing = false;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		done = sending_failed(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (done)
		forget_events();
	else
	{
		send_again_at = scheduler.boot + SEND_AGAIN_US;
		scheduler_wake_at(send_again_at);
	}
	return done;
}

static void
send_events(void)
{
	ListCell   *lc;

	StartTransactionCommand();
	/* what it tells of is on disk already, or is told again */
	set_locally("synchronous_commit", "off");
	set_locally("lock_timeout", LOCK_TIMEOUT_OF_SENDING);
	foreach(lc, events)
		Async_Notify(CHANNEL, (char *) lfirst(lc));
	if (dropped > 0)
	{
		StringInfoData buf;

		begin_event(&buf, "overflow");
		appendStringInfo(&buf, ",\"dropped\":" INT64_FORMAT, dropped);
		add_string(&buf, "node", dsched_my_node());
		appendStringInfoChar(&buf, '}');
		Async_Notify(CHANNEL, buf.data);
	}
	CommitTransactionCommand();
}

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* True: the events are to be forgotten. */
static bool
sending_failed(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	if (!failing)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("dsched: notifications of runs in database \"%s\" are dropped: %s", scheduler.dbname,
						error->message),
				 error->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED ?
				 errhint("A session that listens, to whatever channel, and stays in a transaction fills the queue.") : 0));
	failing = true;
	return true;
}

static void
forget_events(void)
{
	MemoryContextReset(event_context);
	events = NIL;
	dropped = 0;
}
