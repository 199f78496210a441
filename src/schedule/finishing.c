/*
 * finishing.c
 *	  What executors hand back: runs that are done, that are to be tried again, or whose outcome has to be found.
 *
 * An executor records its run itself; its entry tells the scheduler the status.  A run that succeeded, or failed for the last time,
 * is closed.  One that failed or timed out, and whose job has attempts left, stays open with the next attempt and the time of it, which
 * the account keeps; after a restart the same time is found from the row that failed, and after a take-over from the account.
 * One that ended with its process or its ownership ("lost") is made again at once; after max_lost deaths the job is
 * paused, as it may be what kills its server.  Attempts that were fenced are nobody's fault and do not count.
 *
 * An entry without a status was not recorded, or its executor died before it could say so: then the rows decide.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "schedule/scheduler.h"

#define FINISHED_BATCH 64
#define RETRY_SOON_US INT64CONST(50000)
#define RETRY_LATER_US INT64CONST(1000000)

static void finish_run(OpenRun *run, const RunEntry *entry);
static void settle_unrecorded(OpenRun *run, const RunEntry *entry);
static void after_loss(OpenRun *run, const ClosedSlot *closed);
static void fence_run(OpenRun *run);

/* ---- counting -------------------------------------------------------------------------------------- */

/* dsched itself pauses a job, and says so.  Until that has come back as a version of it no slot of it is started. */
static void
pause_job(Job *job, const char *problem)
{
	dlist_iter	iter;

	job->pausing = true;
	dlist_foreach(iter, &job->work->open)
		run_consider(dlist_container(OpenRun, in_job, iter.cur));
	sync_pause(job->job_id, problem);
	notify_paused(job->job_id, job->job_name, job->username, problem);
}

static int32
job_failures(const Job *job)
{
	return job->extra != NULL ? job->extra->failures : 0;
}

void
set_failures(Job *job, int32 failures)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	JobExtra   *extra;

	if (job_failures(job) == failures)
		return;
	extra = job_extra(job);
	partition->nfailing += (failures > 0) - (extra->failures > 0);
	if (extra->failures > 0)
		dlist_delete(&extra->in_failing);
	if (failures > 0)
		dlist_push_tail(&partition->failing, &extra->in_failing);
	extra->failures = failures;
	partition_touch(partition);
}

/* A run of the schedule had its last attempt. */
void
note_outcome(Job *job, RunStatus status)
{
	char	   *problem;

	if (status == RUN_SUCCEEDED)
		set_failures(job, 0);
	if (job->pausing || job->policy->max_failures == 0 || (status != RUN_FAILED && status != RUN_TIMED_OUT))
		return;
	set_failures(job, job_failures(job) + 1);
	if (job_failures(job) < job->policy->max_failures)
		return;
	problem = psprintf("paused: %d runs in a row failed (max_failures)", job_failures(job));
	pause_job(job, problem);
	pfree(problem);
}

/* ---- attempts -------------------------------------------------------------------------------------- */

bool
status_is_final(RunStatus status)
{
	return status != RUN_STATUS_NONE && status != RUN_RUNNING && status != RUN_LOST;
}

static bool
is_failure(RunStatus status)
{
	return status == RUN_FAILED || status == RUN_TIMED_OUT;
}

bool
history_is_final(const Job *job, const RunHistory *history)
{
	return run_history_is_final(history, job->policy);
}

/* Back to waiting, for the same attempt. */
void
requeue_run(OpenRun *run, int64 delay)
{
	run_is_not_queued(run);
	run->retry_at = delay == 0 ? 0 : scheduler.boot + delay;
	run_consider(run);
}

static void
next_attempt(OpenRun *run, RunReason reason)
{
	run->key.attempt++;
	if (!run->of_backfill)
		run->reason = reason;
	run->ranked = false;
	partition_touch(&scheduler.partitions[run->partition]);
}

/* Its failed attempt, the last of run->failures, ended at this time. */
static void
retry_run(OpenRun *run, TimestampTz finished_at)
{
	run_show(run);
	next_attempt(run, RUN_RETRY);
	run->not_before = finished_at +
		policy_retry_delay(run->job->policy, run->key.job_id, run->key.scheduled_for, run->failures);
	run_consider(run);
}

/* It was to end before it began, or before it was tried again. */
void
close_cancelled(OpenRun *run)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	describe_cancelled(&closed);
	closing_add(&closed);
	notify_run(&run->key, closed.job_name, closed.username, RUN_CANCELLED, false);
	close_run(run);
}

/* An attempt is over and recorded: the next one, or the end. */
static void
end_attempt(OpenRun *run, RunStatus status, TimestampTz finished_at)
{
	Job		   *job = run->job;
	bool		more = false;
	bool		retry;
	bool		of_schedule = job != NULL && run->key.trigger_id == 0 && run->gen == job->gen;

	if (is_failure(status))
	{
		run->failures++;
		more = job != NULL && run->failures < job->policy->max_attempts && (of_schedule || run->key.trigger_id != 0);
	}
	retry = more && !run->cancelled;
	notify_run(&run->key, job != NULL ? job->job_name : run->orphan->job_name,
			   job != NULL ? job->username : run->orphan->username, status, retry);
	if (retry)
	{
		retry_run(run, finished_at != 0 ? finished_at : scheduler.now);
		return;
	}
	if (more)
	{
		/* it failed just before it could be cancelled: its next attempt is, or the rows would say that there is to be one */
		next_attempt(run, RUN_RETRY);
		close_cancelled(run);
		return;
	}
	if (of_schedule)
		note_outcome(job, status);
	close_run(run);
}

/* Nobody knows how far it came, so with at_most_once there is no other attempt. */
static bool
is_last_loss(const OpenRun *run)
{
	return run->job != NULL && run->job->policy->delivery == DELIVERY_AT_MOST_ONCE;
}

/*
 * An attempt ended with its process.  A row says so, and the next attempt is opened; after max_lost the job is paused.
 */
void
lose_run(OpenRun *run, const char *sqlstate, const char *message, TimestampTz started_at, int pid)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	closed.status = run->cancelled ? RUN_CANCELLED : RUN_LOST;
	closed.started_at = started_at;
	closed.pid = pid;
	closed.replaces = true;
	strlcpy(closed.sqlstate, sqlstate && sqlstate[0] ? sqlstate : "57P01", sizeof(closed.sqlstate));
	strlcpy(closed.message, message && message[0] ? message : "the process that ran it ended before it committed",
			sizeof(closed.message));
	closing_add(&closed);
	after_loss(run, &closed);
}

/* It is recorded, by us or by the instance that made it: the next attempt, or the end. */
static void
after_loss(OpenRun *run, const ClosedSlot *closed)
{
	Job		   *job = run->job;
	char	   *problem;

	partition_touch(&scheduler.partitions[run->partition]);
	run->lost++;

	/* a server that is stopped ends what runs: that is no fault of the job */
	if (job == NULL || run->cancelled || is_last_loss(run) || (run->lost >= job->policy->max_lost && !scheduler.stopping))
	{
		if (job != NULL && !run->cancelled && run->lost >= job->policy->max_lost && !scheduler.stopping)
		{
			problem = psprintf("paused: a run of it ended %d times in a row with the death of its process (max_lost)",
							   run->lost);
			pause_job(job, problem);
			pfree(problem);
		}
		notify_run(&run->key, closed->job_name, closed->username, closed->status, false);
		run->gen = 0;
		close_run(run);
		return;
	}
	notify_run(&run->key, closed->job_name, closed->username, closed->status, true);
	next_attempt(run, RUN_RECOVERY);
	run->careful = true;
	run->backlog = true;
	run_consider(run);
}

void
end_remote_run(OpenRun *run, RunStatus status, TimestampTz finished_at, const char *sqlstate)
{
	ClosedSlot	closed;

	remote_forget(run);
	if (status == RUN_STATUS_NONE && run->cancelled)
		close_cancelled(run);
	else if (status == RUN_STATUS_NONE)
		run_consider(run);
	else if (status != RUN_LOST)
		end_attempt(run, status, finished_at);
	else if (strcmp(sqlstate, "40001") == 0)
		fence_run(run);
	else
	{
		describe_run(&closed, run);
		closed.status = run->cancelled ? RUN_CANCELLED : RUN_LOST;
		after_loss(run, &closed);
	}
}

/* Fenced: the executor has written its row; not a death of a process. */
static void
fence_run(OpenRun *run)
{
	if (run->job == NULL || is_last_loss(run))
	{
		close_run(run);
		return;
	}
	next_attempt(run, RUN_RECOVERY);
	if (run->cancelled)
	{
		close_cancelled(run);
		return;
	}
	run->backlog = true;
	run_consider(run);
}

bool
resume_run(OpenRun *run, const RunHistory *history, const char *by)
{
	char	   *message;
	bool		open;

	if (history->attempt == 0)
		return true;
	if (history_is_final(run->job, history))
	{
		close_run(run);
		return false;
	}
	run->key.attempt = history->attempt;
	run->failures = history->failures;
	run->lost = history->lost;
	if (is_failure(history->status))
		retry_run(run, history->finished_at);
	else if (history->status == RUN_RUNNING)
	{
		open = scheduler.stopping || run->lost + 1 < run->job->policy->max_lost;
		message = psprintf("%s ended before it committed", by);
		lose_run(run, "57P01", message, 0, 0);
		return open;
	}
	else if (run->lost >= run->job->policy->max_lost)
	{
		/* the server ended between the last row and the pause */
		pause_job(run->job, "paused: its runs ended with the death of their process (max_lost)");
		run->gen = 0;
		close_run(run);
		return false;
	}
	else
	{
		next_attempt(run, RUN_RECOVERY);
		run->careful = run->careful || run->lost > 0;
		run->backlog = true;
		run_consider(run);
	}
	return true;
}

/* ---- what comes back ------------------------------------------------------------------------------- */

/* Its process was ended because the run was too long, or was to be cancelled, and could not record it. */
static void
record_forced_end(OpenRun *run, const RunEntry *entry)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	closed.status = entry->timed_out ? RUN_TIMED_OUT : RUN_CANCELLED;
	closed.started_at = entry->started_at;
	closed.pid = entry->pid;
	closed.replaces = true;
	strlcpy(closed.sqlstate, "57014", sizeof(closed.sqlstate));
	strlcpy(closed.message, entry->message[0] ? entry->message :
			entry->timed_out ? "canceling job due to timeout" : "canceling job due to request", sizeof(closed.message));
	closing_add(&closed);
	end_attempt(run, closed.status, scheduler.now);
}

static void
settle_unrecorded(OpenRun *run, const RunEntry *entry)
{
	RunHistory	history;
	bool		recorded;

	if (!run_history_in_transaction(&entry->key, &history))
	{
		/* a lock on the table, say: the same attempt again, as a row that is there would stop it */
		requeue_run(run, RETRY_LATER_US);
		return;
	}
	recorded = history.attempt == entry->key.attempt;
	if (recorded && status_is_final(history.status))
	{
		run_is_not_queued(run);
		end_attempt(run, history.status, history.finished_at);
		return;
	}
	if (entry->timed_out || entry->cancelled || run->cancelled)
	{
		run_is_not_queued(run);
		record_forced_end(run, entry);
		return;
	}
	if (entry->started_at == 0 && !recorded && !entry->claimed)
	{
		requeue_run(run, RETRY_SOON_US);
		return;
	}
	/* rolled back, and the row could not be written for want of room: no fault of the job, and no death */
	if (!recorded && !entry->claimed && (strncmp(entry->sqlstate, "53", 2) == 0 || strncmp(entry->sqlstate, "58", 2) == 0))
	{
		requeue_run(run, RETRY_LATER_US);
		return;
	}
	run_is_not_queued(run);
	run->retry_at = scheduler.boot + RETRY_SOON_US;
	lose_run(run, entry->sqlstate, entry->message, entry->started_at, entry->pid);
}

void
fail_unstartable(OpenRun *run, const char *sqlstate, const char *message)
{
	ClosedSlot	closed;

	describe_run(&closed, run);
	closed.status = RUN_FAILED;
	closed.replaces = true;
	strlcpy(closed.sqlstate, sqlstate[0] ? sqlstate : "08000", sizeof(closed.sqlstate));
	strlcpy(closed.message, message[0] ? message : "no executor could be started for its role", sizeof(closed.message));
	closing_add(&closed);
	/* one without a role is marked already */
	if (run->job != NULL && !run->job->role_problem && !run->job->start_problem)
	{
		sync_problem(run->job->job_id, closed.message);
		run->job->start_problem = true;
	}
	end_attempt(run, RUN_FAILED, scheduler.now);
}

/* The slot has its one commit, by an attempt of which we did not know; the row is with that.  But a start row has to have its end. */
static void
close_committed_elsewhere(OpenRun *run, const RunEntry *entry)
{
	RunHistory	history;
	ClosedSlot	closed;

	ereport(LOG,
			(errmsg("dsched: a run of job " INT64_FORMAT " was rolled back: %s", run->key.job_id, entry->message)));
	if (run_history_in_transaction(&entry->key, &history) && history.attempt == entry->key.attempt &&
		history.status == RUN_RUNNING)
	{
		describe_run(&closed, run);
		closed.status = RUN_LOST;
		closed.replaces = true;
		closed.started_at = entry->started_at;
		closed.pid = entry->pid;
		strlcpy(closed.sqlstate, "40001", sizeof(closed.sqlstate));
		strlcpy(closed.message, entry->message, sizeof(closed.message));
		closing_add(&closed);
	}
	run_is_not_queued(run);
	close_run(run);
}

/* An executor had left it prepared; its row is there now, or will never be. */
void
finish_in_doubt(OpenRun *run)
{
	RunHistory	history;
	bool		recorded;

	if (!run_history_in_transaction(&run->key, &history))
	{
		settling_wanted();
		return;
	}
	recorded = history.attempt == run->key.attempt && status_is_final(history.status);
	run_is_not_queued(run);
	if (recorded)
		end_attempt(run, history.status, history.finished_at);
	else
	{
		run->lost--;			/* its process may live, and the command was no fault */
		lose_run(run, "40001", "it was prepared, but ownership of the partition was lost before it was committed", 0, 0);
	}
}

static void
finish_run(OpenRun *run, const RunEntry *entry)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	if (entry->started_at != 0 && run->job != NULL && run->job->start_problem)
	{
		sync_problem(run->job->job_id, NULL);
		run->job->start_problem = false;
	}
	marks_keep(run, entry);
	if (entry->prepared)
		run_is_in_doubt(run);
	else if (entry->decision == DECISION_TAKEN && entry->delivery == DELIVERY_EXACTLY_ONCE)
		close_committed_elsewhere(run, entry);
	else if (entry->cannot_start)
	{
		run_is_not_queued(run);
		fail_unstartable(run, entry->sqlstate, entry->message);
	}
	else if (entry->not_applicable)
	{
		/* the row is older or newer than our timetable: what brings them together wakes us too */
		requeue_run(run, RETRY_LATER_US);
		scheduler.slot->check_again = true;
	}
	else if (entry->status == RUN_STATUS_NONE)
		settle_unrecorded(run, entry);
	else if (entry->status == RUN_LOST)
	{
		run_is_not_queued(run);
		fence_run(run);
	}
	else
	{
		if (entry->commit_lsn > partition->flush_to)
			partition->flush_to = entry->commit_lsn;
		scheduler.recorded++;
		run_is_not_queued(run);
		end_attempt(run, entry->status, entry->finished_at);
	}
}

bool
dispatch_finished(void)
{
	static RunEntry *batch = NULL;
	int			index[FINISHED_BATCH];
	int			n;

	scheduler.refill_at = 0;
	if (scheduler.slot->finished_head < 0)
		return false;
	if (batch == NULL)
		batch = MemoryContextAlloc(scheduler.context, sizeof(RunEntry) * FINISHED_BATCH);
	do
	{
		n = dsched_queue_take_finished(scheduler.db, batch, index, FINISHED_BATCH);
		for (int i = 0; i < n; i++)
		{
			OpenRun    *run = run_of_entry(index[i], &batch[i].key);

			if (batch[i].prepared)
				settling_wanted();

			/* one that was started under a former epoch may end after its run was opened again */
			if (run != NULL && (run->bound || batch[i].token.epoch == scheduler.partitions[run->partition].epoch))
				finish_run(run, &batch[i]);
			else if (run == NULL && batch[i].session_bound)
				reports_run_ended(&batch[i]);
		}
	} while (n == FINISHED_BATCH);
	advance_jobs();
	return true;
}
