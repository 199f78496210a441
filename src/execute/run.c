/*
 * run.c
 *	  One run, from its start to its outcome.
 *
 * A plain command is one transaction: read the job, run the statements, write the row, check ownership,
 * commit. Nothing is written before, so if the process dies the run never happened.
 *
 * A command that cannot be one transaction, or a run that the scheduler is afraid of (one that an earlier
 * crash may have been due to), commits a row with status running before it starts and overwrites it at the
 * end; in the last transaction of the command where that is possible, so that a procedure that does not
 * commit is atomic with its row after all.
 *
 * With delivery at_most_once nothing starts before a key in etcd says so (standalone: a start row), and the key makes it the only
 * start of this attempt.  With exactly_once the command and its row are a transaction block that is prepared; then etcd is asked
 * for the decision, and the transaction committed or rolled back accordingly (delivery.h).  A process that ends in between, or
 * cannot wait, leaves it to the scheduler (schedule/settling.c).
 *
 * After an error: abort, clean the session, and write the failed row in a transaction of its own.  If that
 * fails too (a full disk), the entry goes back with status NONE and the reason; the scheduler decides.  The
 * order matters: nothing that the command left behind may stand when the row is written.
 *
 *	  outcome		  row written
 *	  succeeded		  with the effects; separately only after what must commit at once (CREATE DATABASE), or
 *					  after a ROLLBACK at the end
 *	  failed, timed_out, cancelled
 *					  separately; not at all if the process has to end for it (ending.c): then the entry says it
 *	  lost			  separately: ownership went away before the commit, and the effects with it
 *	  (NONE)		  not started: the job changed, ownership went away earlier, a start row was there
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "catalog/catalog.h"
#include "clock.h"
#include "command.h"
#include "compat.h"
#include "delivery.h"
#include "ending.h"
#include "executor.h"
#include "guard.h"
#include "mutant.h"
#include "plans.h"
#include "record.h"
#include "run.h"
#include "session.h"
#include "settings.h"

typedef struct Run
{
	RunEntry   *entry;
	JobRow		job;
	Command		command;
	CommandResult result;
	RunRow		row;
	bool		start_row;		/* one is committed */
	bool		writing_row;	/* what fails now fails in our own row */
	bool		settled;		/* it was one transaction, which committed, after command_settle() */
	bool		row_written;	/* in the open transaction; true at its commit */
	bool		to_record;		/* the outcome in row is still to be written, separately */
	bool		look_up;		/* somebody recorded this run before us */
} Run;

/* Static, so that they keep their values when an error jumps out of where they are set. */
static Run	run;
static CurrentRun shown;
static bool showing = false;
static bool catching = false;
static MemoryContext run_context = NULL;

static void perform(void);
static bool begin(void);
static bool job_applies(void);
static void check_superuser(void);
static bool commit_start_row(void);
static bool is_to_end(void);
static bool claim(void);
static void run_as_block(void);
static void decide(const char *gid);
static void leave_in_doubt(const char *message);
static bool finish_prepared(const char *gid, bool commit);
static void run_in_one_transaction(void);
static void run_at_top_level(void);
static void run_top_level_statement(int n, bool last);
static void finish_transaction(bool checked);
static void write_row(void);
static void set_success(void);
static void succeeded(void);
static void name_cause(void);
static ErrorData *after_error(void);
static void abort_everything(void);
static void judge_error(const ErrorData *edata);
static void ended_early(RunRow *row);
static bool is_statement_timeout(const ErrorData *edata);
static bool clean_session(void);
static void record_separately(void);
static void write_separately(void);
static void adopt_outcome(RunStatus recorded);

/* ---- the frame --------------------------------------------------------------------------------- */

void
run_init(ExecutorSlot *my_slot)
{
	run_context = AllocSetContextCreate(TopMemoryContext, "dsched run", ALLOCSET_DEFAULT_SIZES);
	MessageContext = run_context;	/* where the server's own code for clients expects the like */
	plans_init();
	guard_init(my_slot);
	ending_init(my_slot);
}

RunEntry *
run_current_entry(void)
{
	return run.entry;
}

bool
run_catches_errors(void)
{
	return catching;
}

const CurrentRun *
executor_current_run(void)
{
	return showing ? &shown : NULL;
}

bool
run_make(RunEntry *entry)
{
	bool		clean;

	memset(&run, 0, sizeof(run));
	run.entry = entry;
	catching = true;
	guard_begin(&entry->token);
	ending_begin(entry);

	PG_TRY();
	{
		perform();
	}
	PG_CATCH();
	{
		name_cause();
		judge_error(after_error());
	}
	PG_END_TRY();

	showing = false;
	debug_query_string = NULL;
	/* a cancel that comes now comes too late: the outcome is known */
	ending_over();
	HOLD_CANCEL_INTERRUPTS();
	clean = clean_session();
	if (run.to_record)
		record_separately();
	plans_trim(run.command.kept);
	RESUME_CANCEL_INTERRUPTS();
	/* not started, or the row could not be written: what was asked for holds all the same */
	if (entry->status == RUN_STATUS_NONE && ending_cause() != END_NONE)
		ending_note(entry);

	guard_end();
	pgstat_report_activity(STATE_IDLE, NULL);
	set_ps_display("idle");
	catching = false;
	run.entry = NULL;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(run_context);
	return clean;
}

/* ---- the command ------------------------------------------------------------------------------- */

static void
perform(void)
{
	RunEntry   *entry = run.entry;

	if (!dsched_token_holds(&entry->token))
	{
		record_note(entry, ERRCODE_T_R_SERIALIZATION_FAILURE, "ownership of the partition was lost before the start");
		return;
	}
	if (entry->delivery == DELIVERY_AT_MOST_ONCE && delivery_is_shared(entry->token.partition) && !claim())
		return;
	if (!begin())
		return;
	if (entry->delivery == DELIVERY_EXACTLY_ONCE)
		command_require_preparable(&run.command);
	if (run.command.top_level || entry->start_row)
	{
		if (!commit_start_row())
			return;
	}
	if (run.command.top_level)
		run_at_top_level();
	else if (entry->delivery == DELIVERY_EXACTLY_ONCE)
		run_as_block();
	else
		run_in_one_transaction();
	command_log_duration(&run.command);
}

/* Leaves a transaction open in which the command can run; false: it is not to run, and none is open. */
static bool
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(run_context);
	if (!job_applies())
	{
		run.entry->not_applicable = true;
		CommitTransactionCommand();
		return false;
	}
	/* from here on it has started, and whatever goes wrong is its outcome */
	run.entry->started_at = dsched_wall_now();
	record_begin(&run.row, run.entry, run.job.job_name, run.job.username);
	run.to_record = true;
	ending_start_timer(run.job.policy.timeout);

	shown.job_id = run.job.job_id;
	shown.job_name = run.job.job_name;
	shown.scheduled_for = run.entry->key.scheduled_for;
	shown.attempt = run.entry->key.attempt;
	shown.trigger_id = run.entry->key.trigger_id;
	shown.reason = run.entry->reason;
	shown.payload = run.job.payload;
	showing = true;

	debug_query_string = run.job.command;
	pgstat_report_activity(STATE_RUNNING, run.job.command);
	executor_session_name_after(run.job.job_name);
	check_superuser();
	command_parse(&run.command, run.job.command);
	return true;
}

/*
 * The scheduler decided by what it had loaded; the table may be older (a change from another instance not yet
 * applied) or newer.  A run asked for by hand takes the job as it is.
 */
static bool
job_applies(void)
{
	int			nestlevel = NewGUCNestLevel();
	bool		found;
	char	   *username;

	record_ignore_lock_timeout();
	found = job_read(run.entry->key.job_id, &run.job);
	AtEOXact_GUC(false, nestlevel);
	if (!found)
		return false;
	username = GetUserNameFromId(GetSessionUserId(), true);
	if (username == NULL || strcmp(username, run.job.username) != 0)
		return false;
	/* it decides what was done before this, and what is done with the run if it is lost */
	if (run.job.policy.delivery != run.entry->delivery)
		return false;
	return run.job.gen == run.entry->gen || run.entry->reason == RUN_MANUAL || run.entry->key.trigger_id != 0;
}

/* Where signatures are what allows it, they must have been looked at: keys may just have come into force. */
static bool
superuser_allowed(void)
{
	if (dsched_allow_superuser_jobs == SUPERUSER_JOBS_AUTO && dsched_signed_cluster())
		return dsched_shared->databases[run.entry->token.db].verified;
	return dsched_superuser_jobs_allowed();
}

static void
check_superuser(void)
{
	if (superuser_arg(GetSessionUserId()) && !superuser_allowed())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("jobs of superusers are not allowed to run on this instance"),
				 errhint("Schedule the job for another role, let definitions be signed with dsched.cluster_key_file, or set dsched.allow_superuser_jobs to \"on\".")));
}

/* In the open transaction, which ends; a new one begins unless the run is over. */
static bool
commit_start_row(void)
{
	RunStatus	before;

	record_ignore_lock_timeout();
	before = run_lookup(&run.row.key);
	if (before != RUN_STATUS_NONE)
	{
		run.to_record = false;
		adopt_outcome(before);
		return false;
	}
	(void) run_insert(&run.row, false);
	/* it is there to be found after a crash */
	ForceSyncCommit();
	guard_commit();
	run.start_row = true;
	if (!run.command.top_level)
		StartTransactionCommand();
	return true;
}

static void
run_in_one_transaction(void)
{
	int			n = list_length(run.command.statements);
	bool		several = n > 1;

	for (int i = 0; i < n; i++)
	{
		ending_check();
		if (several)
			BeginImplicitTransactionBlock();
		command_run_statement(&run.command, i, &run.result);
		CommandCounterIncrement();
	}
	if (several)
		EndImplicitTransactionBlock();
	finish_transaction(true);
	run.settled = run.row_written;
}

/* ---- the strict modes -------------------------------------------------------------------------- */

static bool
is_to_end(void)
{
	return ProcDiePending || QueryCancelPending || guard_was_fenced() || ending_cause() != END_NONE;
}

/*
 * at_most_once: the key of this attempt, before it starts.  The job is looked at before that, as an attempt with a key cannot be
 * put off any more.  False: it is not to start.
 */
static bool
claim(void)
{
	RunEntry   *entry = run.entry;
	Decision	decision;

	StartTransactionCommand();
	MemoryContextSwitchTo(run_context);
	entry->not_applicable = !job_applies();
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	if (entry->not_applicable)
		return false;
	decision = MUTANT(NO_CLAIM) ? DECISION_GRANTED : delivery_ask(entry, is_to_end);
	delivery_test_point("claimed");
	if (decision == DECISION_GRANTED && dsched_token_holds(&entry->token))
		return true;
	if (decision == DECISION_GRANTED)
		record_note(entry, ERRCODE_T_R_SERIALIZATION_FAILURE, "ownership of the partition was lost before the start");
	else if (decision == DECISION_TAKEN)
		record_note(entry, ERRCODE_OBJECT_IN_USE, "this attempt was begun before");
	else if (decision == DECISION_SENT)
		record_note(entry, ERRCODE_CONNECTION_FAILURE, "etcd did not answer whether this attempt may start");
	else
		record_note(entry, ERRCODE_T_R_SERIALIZATION_FAILURE, "ownership of the partition was lost before the start");
	return false;
}

/*
 * exactly_once: a block, in which procedures cannot commit either.  Without etcd it commits as it is, and the row with it; nobody
 * else has to know.
 */
static void
run_as_block(void)
{
	int			n = list_length(run.command.statements);
	char		gid[GID_MAX];

	BeginTransactionBlock();
	CommitTransactionCommand();
	StartTransactionCommand();
	for (int i = 0; i < n; i++)
	{
		ending_check();
		command_run_statement(&run.command, i, &run.result);
		CommandCounterIncrement();
	}
	if (!delivery_is_shared(run.entry->token.partition))
	{
		(void) EndTransactionBlock(false);
		finish_transaction(true);
		run.settled = run.row_written;
		return;
	}
	if (!delivery_id(run.entry, gid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the transaction of this run cannot be named")));
	command_settle();
	write_row();
	delivery_test_point("before prepare");
	guard_prepare(gid);
	run.entry->prepared = true;
	run.settled = true;
	decide(gid);
}

/* It is prepared, and no transaction is open. */
static void
decide(const char *gid)
{
	Decision	decision;

	delivery_test_point("prepared");
	decision = MUTANT(NO_PREPARED_DECISION) ? DECISION_GRANTED : delivery_ask(run.entry, is_to_end);
	delivery_test_point("answered");
	if (decision == DECISION_SENT)
	{
		leave_in_doubt("etcd did not answer in time whether this run is committed");
		return;
	}
	if (!finish_prepared(gid, decision == DECISION_GRANTED))
		return;
	delivery_test_point("finished");
	run.entry->prepared = false;
	run.row_written = false;
	if (decision == DECISION_GRANTED)
	{
		succeeded();
		return;
	}
	if (decision == DECISION_TAKEN)
	{
		/* whoever has it is the one that counts, and has the row */
		run.to_record = false;
		record_note(run.entry, ERRCODE_OBJECT_IN_USE, "another attempt at this run was committed before");
		return;
	}
	CHECK_FOR_INTERRUPTS();
	guard_check();
	/* the right can be back, under another epoch or session */
	guard_trip();
}

/* The scheduler will find out, and until then nobody runs it again. */
static void
leave_in_doubt(const char *message)
{
	run.to_record = false;
	record_note(run.entry, ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN, message);
}

/* False: it failed, and the scheduler has to do it. */
static bool
finish_prepared(const char *gid, bool commit)
{
	volatile bool done = false;

	PG_TRY();
	{
		HOLD_INTERRUPTS();
		ending_enter_commit();
		StartTransactionCommand();
		prepared_finish(gid, commit);
		CommitTransactionCommand();
		RESUME_INTERRUPTS();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata = after_error();

		leave_in_doubt(edata->message ? edata->message : "");
	}
	PG_END_TRY();
	MemoryContextSwitchTo(run_context);
	return done;
}

static void
run_at_top_level(void)
{
	int			n = list_length(run.command.statements);

	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			SetCurrentStatementStartTimestamp();
		run_top_level_statement(i, i == n - 1);
	}

	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the command ended inside a transaction block"),
				 errdetail("What the open block did was rolled back."),
				 errhint("End it with COMMIT or ROLLBACK.")));
	if (run.row_written)
		succeeded();
	else
		set_success();
}

static void
run_top_level_statement(int n, bool last)
{
	const RawStmt *statement = list_nth_node(RawStmt, run.command.statements, n);
	StatementKind kind = statement_kind(statement);

	guard_check();
	StartTransactionCommand();
	if (last && IsTransactionBlock() && statement_ends_block(statement))
	{
		/* so that BEGIN ... COMMIT is atomic with its row */
		command_settle();
		strlcpy(run.result.tag, GetCommandTagName(CMDTAG_COMMIT), sizeof(run.result.tag));
		run.result.rows = -1;
		write_row();
	}

	guard_arm(kind == STATEMENT_PROCEDURE || kind == STATEMENT_TRANSACTION);
	command_run_statement(&run.command, n, &run.result);
	guard_arm(false);

	if (last && kind != STATEMENT_TRANSACTION && !IsTransactionBlock())
		finish_transaction(kind != STATEMENT_OUTSIDE);
	else
	{
		command_stop_timeout();
		if (kind == STATEMENT_OUTSIDE)
			guard_commit_unchecked();
		else
			guard_commit();
	}
}


/* ---- the end ----------------------------------------------------------------------------------- */

/*
 * What cannot run in a block has done its work when it comes here: an error now would leave an invalid index
 * or stray files, so ownership is not asked for any more, and no cancel is heard.  Some of it (CREATE DATABASE) must even be
 * committed before anything else can fail.
 */
static void
finish_transaction(bool checked)
{
	if (!checked)
		ending_over();
	if (MyXactFlags & XACT_FLAGS_NEEDIMMEDIATECOMMIT)
	{
		command_stop_timeout();
		guard_commit_unchecked();
		set_success();
		return;
	}
	command_settle();
	write_row();
	if (checked)
		guard_commit();
	else
		guard_commit_unchecked();
	succeeded();
}

static void
set_success(void)
{
	run.row.status = RUN_SUCCEEDED;
	run.row.finished_at = dsched_wall_now();
	run.row.command_tag = run.command.statements != NIL ? run.result.tag : NULL;
	run.row.rows = run.command.statements != NIL ? run.result.rows : -1;
}

static void
write_row(void)
{
	set_success();
	run.writing_row = true;
	record_write(&run.row, run.start_row);
	run.writing_row = false;
	run.row_written = true;
}

/* Right after the commit that has the row. */
static void
succeeded(void)
{
	run.entry->status = RUN_SUCCEEDED;
	run.entry->finished_at = run.row.finished_at;
	run.entry->commit_lsn = XactLastCommitEnd;
	run.to_record = false;
	ending_over();
}

/* ---- errors ------------------------------------------------------------------------------------ */

/* The error that is being handled says that the statement was cancelled: it becomes why. In PG_CATCH. */
static void
name_cause(void)
{
	if (geterrcode() == ERRCODE_QUERY_CANCELED && ending_cause() != END_NONE && !guard_was_fenced())
	{
		errmsg_internal("%s", ending_message());
		errdetail_internal("%s", ending_detail());
	}
}

/* What PostgresMain() does after an error. In PG_CATCH; returns the error, in run_context. */
static ErrorData *
after_error(void)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(run_context);
	edata = CopyErrorData();
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	guard_disarm();

	if (run.writing_row && record_exists_error(edata))
		run.look_up = true;
	else
	{
		/* for the log only: the row says it by itself */
		if (showing)
			errcontext("run of job \"%s\" scheduled for %s", shown.job_name, timestamptz_to_str(shown.scheduled_for));
		EmitErrorReport();
	}
	FlushErrorState();
	abort_everything();
	RESUME_INTERRUPTS();
	return edata;
}

static void
abort_everything(void)
{
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	PortalErrorCleanup();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
	compat_replication_slot_cleanup();
	jit_reset_after_error();
	MemoryContextSwitchTo(run_context);
}

/* Decides what an error means for the run. */
static void
judge_error(const ErrorData *edata)
{
	RunRow	   *row = &run.row;
	bool		ending = ending_cause() != END_NONE;
	bool		cancelled = edata->sqlerrcode == ERRCODE_QUERY_CANCELED || ending;

	if (!run.to_record)
	{
		/* not even the job could be read */
		record_note(run.entry, edata->sqlerrcode, edata->message ? edata->message : "");
		return;
	}

	row->finished_at = dsched_wall_now();
	row->command_tag = NULL;
	row->rows = -1;
	record_error(row, edata, run.job.command);
	/* told to end: whatever the command complains of may come of that (a program that it called was told, too) */
	if (guard_tripped() || (ProcDiePending && !ending))
		row->status = RUN_LOST;
	else if (cancelled && (guard_was_fenced() || !dsched_token_holds(&run.entry->token)))
	{
		row->status = RUN_LOST;
		row->sqlstate = "40001";
		row->message = "ownership of the partition was lost during the run";
	}
	else if (ending)
		ended_early(row);
	else if (cancelled)
		row->status = is_statement_timeout(edata) ? RUN_TIMED_OUT : RUN_CANCELLED;
	else
		row->status = RUN_FAILED;
}

/* Whatever the command made of its being cancelled, this is why it ended. */
static void
ended_early(RunRow *row)
{
	row->status = ending_cause() == END_TIMED_OUT ? RUN_TIMED_OUT : RUN_CANCELLED;
	if (strcmp(row->sqlstate, unpack_sql_state(ERRCODE_QUERY_CANCELED)) == 0)
		return;
	row->detail = psprintf("%s Then the command failed: %s", ending_detail(), row->message);
	row->sqlstate = pstrdup(unpack_sql_state(ERRCODE_QUERY_CANCELED));
	row->message = pstrdup(ending_message());
}

/* Both have one SQLSTATE; message_id is the text before translation. */
static bool
is_statement_timeout(const ErrorData *edata)
{
	return edata->message_id != NULL && strcmp(edata->message_id, "canceling statement due to statement timeout") == 0;
}

/* ---- afterwards -------------------------------------------------------------------------------- */

/* An error resets the count of HOLD_CANCEL_INTERRUPTS(): these two take it up again. */

static bool
clean_session(void)
{
	volatile bool clean = false;

	PG_TRY();
	{
		clean = executor_session_reset(run.settled);
	}
	PG_CATCH();
	{
		(void) after_error();
		HOLD_CANCEL_INTERRUPTS();
	}
	PG_END_TRY();
	return clean;
}

static void
record_separately(void)
{
	PG_TRY();
	{
		write_separately();
	}
	PG_CATCH();
	{
		ErrorData  *edata = after_error();

		HOLD_CANCEL_INTERRUPTS();
		run.entry->status = RUN_STATUS_NONE;
		record_note(run.entry, edata->sqlerrcode, edata->message ? edata->message : "");
	}
	PG_END_TRY();
}

static void
write_separately(void)
{
	StartTransactionCommand();
	record_ignore_lock_timeout();
	if (!run.look_up && ((run.start_row && run_update(&run.row)) || run_insert(&run.row, true)))
	{
		CommitTransactionCommand();
		run.entry->status = run.row.status;
		run.entry->finished_at = run.row.finished_at;
		run.entry->commit_lsn = XactLastCommitEnd;
	}
	else
		adopt_outcome(run_lookup(&run.row.key));
}

/* There was a row for this run already: what it says counts.  Ends the open transaction. */
static void
adopt_outcome(RunStatus recorded)
{
	/* whoever wrote it may not have flushed it: a commit of our own does */
	(void) GetTopTransactionId();
	ForceSyncCommit();
	CommitTransactionCommand();

	if (recorded == RUN_RUNNING || recorded == RUN_STATUS_NONE)
		record_note(run.entry, ERRCODE_OBJECT_IN_USE, "an earlier start of this run is recorded, and no end");
	else
	{
		run.entry->status = recorded;
		run.entry->commit_lsn = XactLastCommitEnd;
	}
}
