/*
 * executor.c
 *	  The worker that makes runs.
 *
 * An executor is a background worker bound to one database and one role: its session user is the job's role,
 * so a command has nothing to escape to.  Started by a scheduler for a lane of the queue, it takes runs of
 * that lane until there was none for dsched.executor_idle_timeout, or it is asked to leave.
 *
 * What ends it:
 *	- before its main loop: any error (a role that may not log in).  The message goes into its lane, as nobody
 *	else
 *	  hears of it, and the scheduler fails the waiting runs with it;
 *	- an error outside a run, which would be a fault of ours;
 *	- a run that leaves in the session what cannot be cleaned;
 *	- settings or rights of its role that have changed: a new session has the new ones;
 *	- a run that is to end and does not (ending.c);
 *	- SIGTERM, also from a job that terminates itself; the run's entry gets the message, and goes back in the
 *	exit
 *	  callback (queue.c) after the transaction was aborted;
 *	- the death of the postmaster.
 * It is never restarted: whoever needs an executor starts a new one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"

#include "clock.h"
#include "compat.h"
#include "ending.h"
#include "executor.h"
#include "plans.h"
#include "record.h"
#include "run.h"
#include "session.h"
#include "settings.h"

static int	my_index = -1;
static int	my_lane = -1;
static emit_log_hook_type prev_emit_log = NULL;

static void connect_to_database(const ExecutorArgs *start);
static void main_loop(void);
static bool wait_for_work(int64 idle_since);
static void handle_interrupts(void);
static void note_last_words(ErrorData *edata);
static void note_in_lane(const ErrorData *edata);

void
dsched_executor_main(Datum main_arg)
{
	ExecutorArgs start;

	/* die, not the default for workers, which would ereport inside the handler */
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	my_index = DatumGetInt32(main_arg);
	dsched_executor_attach(my_index, start.generation);
	my_lane = dsched_shared->executors[my_index].lane;
	prev_emit_log = emit_log_hook;
	emit_log_hook = note_last_words;

	connect_to_database(&start);
	run_init(&dsched_shared->executors[my_index]);
	main_loop();
}

/* Background workers get no session_preload_libraries by themselves; auto_explain often comes that way. */
static void
connect_to_database(const ExecutorArgs *start)
{
	BackgroundWorkerInitializeConnectionByOid(start->dboid, start->roleoid, 0);
	StartTransactionCommand();
	process_session_preload_libraries();
	CommitTransactionCommand();
	executor_session_init();
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
main_loop(void)
{
	int64		idle_since = dsched_boot_now();

	for (;;)
	{
		int			e;

		handle_interrupts();
		if (dsched_executor_should_retire(my_index) || executor_session_outdated())
			break;
		e = dsched_queue_take(my_index);
		if (e >= 0)
		{
			bool		clean = run_make(&dsched_shared->entries[e]);

			dsched_queue_finish(my_index);
			(void) pgstat_report_stat(false);
			if (!clean)
				break;
			idle_since = dsched_boot_now();
		}
		else if (!wait_for_work(idle_since))
			break;
	}
}

/* False: there was none for too long. */
static bool
wait_for_work(int64 idle_since)
{
	int64		left = dsched_executor_idle_timeout - (dsched_boot_now() - idle_since) / 1000;
	long		linger = dsched_executor_linger(my_index);
	long		stats_due;
	int			rc;

	if (left <= 0)
		return false;
	executor_session_name_idle();
	/* statistics that were held back, not to flush too often, go out when we stay idle */
	stats_due = pgstat_report_stat(false);
	if (stats_due > 0)
		left = Min(left, stats_due);
	if (linger > 0)
		left = Min(left, linger);
	rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	if ((rc & WL_TIMEOUT) && stats_due > 0 && left == stats_due)
		(void) pgstat_report_stat(true);
	return true;
}

/* Between runs: there is nothing to cancel, and a cancel that was meant for the last run came too late. */
static void
handle_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		plans_forget();
	}
}

/* ---- last words -------------------------------------------------------------------------------- */

/*
 * emit_log_hook: keeps the message of what ends this process, as the log is all that hears of it otherwise.
 * That is FATAL at any time, and ERROR where nothing catches it.
 */
static void
note_last_words(ErrorData *edata)
{
	if (prev_emit_log)
		prev_emit_log(edata);

	if (edata->elevel != FATAL && (edata->elevel != ERROR || run_catches_errors()))
		return;
	if (edata->message == NULL || MyProc == NULL || proc_exit_inprogress)
		return;
	/* the entry is ours alone until the exit callback gives it back */
	if (run_current_entry() != NULL)
	{
		if (run_current_entry()->status == RUN_STATUS_NONE && ending_cause() != END_NONE)
			ending_note(run_current_entry());
		else if (run_current_entry()->status == RUN_STATUS_NONE)
			record_note(run_current_entry(), edata->sqlerrcode, edata->message);
	}
	else
		note_in_lane(edata);
}

static void
note_in_lane(const ErrorData *edata)
{
	Lane	   *lane = &dsched_shared->lanes[my_lane];
	bool		held = LWLockHeldByMe(dsched_shared->queue_lock);
	int			len = pg_mbcliplen(edata->message, strlen(edata->message), sizeof(lane->last_error) - 1);

	/* an error raised under the lock keeps it until the process exits */
	if (!held)
		LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	memcpy(lane->last_error, edata->message, len);
	lane->last_error[len] = '\0';
	strlcpy(lane->last_sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(lane->last_sqlstate));
	if (!held)
		LWLockRelease(dsched_shared->queue_lock);
}
