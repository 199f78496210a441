/*
 * ending.c
 *	  What ends a run before its command does: its timeout, and a request to cancel it.
 *
 * All of it comes as SIGINT: from a timer of our own, from the scheduler (dsched_cancel_run(), which sets
 * the slot's flag first), from a fence, from pg_cancel_backend().  The handler finds out which it was by
 * looking: is the deadline over, is the flag set.  So signals may be merged or come late, nothing is lost.
 *
 * Why not a timeout of the server (utils/timeout.h): those go by the wall clock, so that a clock that is set
 * back by an hour gives a run an hour more; and the grace period of a cancel has to be started in the signal
 * handler, where they cannot be, and timer_settime() can.  The timer goes by boot time: a process that was
 * stopped, or slept with its machine, gets its signal as soon as it goes on.
 *
 * Escalation.  First the query is cancelled, once.  A command may catch that (EXCEPTION WHEN
 * query_canceled); it gets no further than its next commit or top-level statement, where ending_check() is.
 * If the run has not ended after dsched.cancel_grace, the process is told to end as by
 * pg_terminate_backend(), and the entry says why, as no row will.  The signals go to the process group, too,
 * as those of statement_timeout do: a program that the command called (COPY ... TO PROGRAM) ends with it.
 *
 * Commits.  A commit that has passed the last check is not disturbed, not even while it waits for a
 * synchronous standby (the server would give up that wait on a cancel, and a VACUUM would go on after it).
 * What comes meanwhile takes effect right after it, if the run is not over then.
 *
 * The variables are written by the handler, and by the process itself only where the handler does nothing
 * with them (not active), or in a single store.
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"

#include "clock.h"
#include "ending.h"
#include "record.h"
#include "settings.h"

static ExecutorSlot *slot = NULL;
static timer_t timer;
static int64 allowed = 0;		/* the timeout of the run, for the message */

static volatile sig_atomic_t active = false;
static volatile sig_atomic_t cause = END_NONE;
static volatile sig_atomic_t timed = false; /* deadline is set */
static volatile sig_atomic_t in_commit = false;
static volatile sig_atomic_t deferred = false;	/* a cancel came in a commit */
static volatile int64 deadline;
static volatile int64 escalate_at;
static RunEntry *volatile entry = NULL;

static void handle_interrupt(SIGNAL_ARGS);
static void begin_to_end(EndCause why, int64 now);
static void escalate(int64 now);
static void set_timer(int64 boot);
static void signal_group(int signo);

void
ending_init(ExecutorSlot *my_slot)
{
	struct sigevent event = {0};

	slot = my_slot;
	event.sigev_notify = SIGEV_SIGNAL;
	event.sigev_signo = SIGINT;
	if (timer_create(CLOCK_BOOTTIME, &event, &timer) != 0)
		ereport(FATAL,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create a timer: %m")));
	pqsignal(SIGINT, handle_interrupt);
}

/* ---- a run ------------------------------------------------------------------------------------- */

void
ending_begin(RunEntry *run_entry)
{
	cause = END_NONE;
	timed = in_commit = deferred = false;
	entry = run_entry;
	active = true;
	/* it came between the moment when the run became ours and now */
	if (slot->cancelled)
		(void) kill(MyProcPid, SIGINT);
}

void
ending_start_timer(int64 timeout)
{
	if (timeout <= 0)
		return;
	allowed = timeout;
	deadline = dsched_boot_now() + timeout;
	timed = true;
	set_timer(deadline);
	/* a cancel came first, or in between: its grace period is what the timer is for now */
	if (cause != END_NONE)
		set_timer(escalate_at);
}

void
ending_over(void)
{
	active = false;
	QueryCancelPending = false;
	if (timed || cause != END_NONE)
		set_timer(0);
}

/* ---- questions --------------------------------------------------------------------------------- */

EndCause
ending_cause(void)
{
	if (cause == END_NONE && slot->cancelled)
		return END_CANCELLED;
	return (EndCause) cause;
}

void
ending_check(void)
{
	if (ending_cause() == END_NONE)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg_internal("%s", ending_message()),
			 errdetail_internal("%s", ending_detail())));
}

const char *
ending_message(void)
{
	return ending_cause() == END_TIMED_OUT ? "canceling job due to timeout" : "canceling job due to request";
}

char *
ending_detail(void)
{
	if (ending_cause() != END_TIMED_OUT)
		return pstrdup("dsched was asked to end this run.");
	if (allowed % USECS_PER_SEC == 0)
		return psprintf("The job's timeout is " INT64_FORMAT " s.", allowed / USECS_PER_SEC);
	return psprintf("The job's timeout is " INT64_FORMAT ".%03d s.", allowed / USECS_PER_SEC,
					(int) (allowed % USECS_PER_SEC / 1000));
}

void
ending_note(RunEntry *of)
{
	if (ending_cause() == END_TIMED_OUT)
		of->timed_out = true;
	else
		of->cancelled = true;
	record_note(of, ERRCODE_QUERY_CANCELED, ending_message());
}

/* ---- commits ----------------------------------------------------------------------------------- */

void
ending_enter_commit(void)
{
	if (active)
		in_commit = true;
}

void
ending_leave_commit(bool committed)
{
	in_commit = false;
	if (active && deferred && committed)
		InterruptPending = QueryCancelPending = true;
	deferred = false;
}

/* ---- signals ----------------------------------------------------------------------------------- */

static void
handle_interrupt(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (active)
	{
		int64		now = dsched_boot_now();

		if (cause != END_NONE)
		{
			if (now >= escalate_at)
				escalate(now);
		}
		else if (timed && now >= deadline)
			begin_to_end(END_TIMED_OUT, now);
		else if (slot->cancelled)
			begin_to_end(END_CANCELLED, now);
	}

	if (slot->fenced)
		StatementCancelHandler(postgres_signal_arg);
	else if (in_commit && cause != END_NONE)
		deferred = true;
	else if (!active && slot->cancelled)
		 /* too late; or too early, then ending_begin() asks for it again */ ;
	else
		StatementCancelHandler(postgres_signal_arg);
	errno = save_errno;
}

static void
begin_to_end(EndCause why, int64 now)
{
	cause = why;
	escalate_at = now + dsched_cancel_grace * INT64CONST(1000);
	set_timer(escalate_at);
	signal_group(SIGINT);
}

/* Again and again, for what catches a signal once; but no commit is cut short. */
static void
escalate(int64 now)
{
	escalate_at = now + Max(dsched_cancel_grace, 1000) * INT64CONST(1000);
	set_timer(escalate_at);
	if (in_commit)
		return;
	if (cause == END_TIMED_OUT)
		entry->timed_out = true;
	else
		entry->cancelled = true;
	signal_group(SIGTERM);
}

/* At this boot time; 0: not at all. */
static void
set_timer(int64 boot)
{
	struct itimerspec when = {0};

	when.it_value.tv_sec = boot / USECS_PER_SEC;
	when.it_value.tv_nsec = boot % USECS_PER_SEC * 1000;
	(void) timer_settime(timer, TIMER_ABSTIME, &when, NULL);
}

/* We are of the group; where there is none (no setsid), at least us. */
static void
signal_group(int signo)
{
	if (kill(-MyProcPid, signo) != 0)
		(void) kill(MyProcPid, signo);
}
