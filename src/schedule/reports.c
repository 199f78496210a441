/*
 * reports.c
 *	  The maker's side of a run that was handed over alive: we still make it, another instance owns its partition.
 *
 * The run is bound to our session (RunEntry.session_bound) and records itself as any run does.  The owner wants to know how it
 * ended: it has put a command (cmd/), which names the session and may ask for the run's end.  The answer is a key (outcome/), put
 *
 *		if create_revision(node) = session and create_revision(cmd) is that of the command,
 *
 * so that none is put after the session is over, when the owner takes the attempt for lost, nor after the owner has taken
 * the answer, when nobody would delete it.  With it goes a put of jobrev/, by which a watch of the owner's that has fallen silent is
 * found out.
 *
 * What the answer is: while an executor has the run there is none.  After that its row says; the row, and all that the
 * run did, is on disk before the answer is sent.  Where there is no row that ends it, the attempt is lost, and gets one; or it was never
 * made, of which we know as long as we have it in memory.  So nothing has to be kept over a restart of this process: the commands are
 * read with each connection, and the rows tell.
 *
 * A stop in order ends such runs, and answers before the session is given up.  The new owner may not have come to ask by then; in its
 * place the state that we left is compared (mod_revision): if it is still the last one, nobody has taken over, and whoever does will
 * find the answer.
 *
 * If the session ends otherwise, there is no answer: the owner sees it by the node key.  A run that was committed but not reported is then
 * made again, as any run with at_least_once whose instance is lost.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "delivery.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define REQUEST_TIMEOUT_MS 2000
#define RETRY_US INT64CONST(300000)

/* A run that is, or was, ours to make for somebody else: asked for, or handed over by this process, or both. */
typedef struct Report
{
	dlist_node	node;
	RunKey		key;
	int			partition;
	int64		session;
	int64		command;		/* create_revision of the command; 0: nobody has asked yet */
	int64		state_mod;		/* mod_revision of the state that handed it over; 0: it was not us */
	bool		cancel;			/* it is to end */
	bool		cancelled;		/* and was told so */
	bool		not_made;		/* came back from its executor without having begun, or without a trace */
	bool		answered;		/* the outcome is in etcd, or nobody wants it */
	EtcdRequest *request;
	int64		retry_at;		/* boot time */
} Report;

typedef struct Verdict
{
	RunKey		key;
	RunStatus	status;
	TimestampTz finished_at;
	bool		death;			/* of LOST: not by a fence */
} Verdict;

static dlist_head reports = DLIST_STATIC_INIT(reports);

static void answered(void *arg, const EtcdResponse *response);

/* ---- the list -------------------------------------------------------------------------------------- */

static Report *
find_report(const RunKey *key)
{
	dlist_iter	iter;

	dlist_foreach(iter, &reports)
	{
		Report	   *report = dlist_container(Report, node, iter.cur);

		if (run_key_same(&report->key, key))
			return report;
	}
	return NULL;
}

static Report *
make_report(const RunKey *key, int partition)
{
	Report	   *report = find_report(key);

	if (report == NULL)
	{
		report = MemoryContextAllocZero(scheduler.context, sizeof(Report));
		report->key = *key;
		dlist_push_tail(&reports, &report->node);
	}
	report->partition = partition;
	return report;
}

static void
drop_report(Report *report)
{
	if (report->request != NULL)
		etcd_cancel(report->request);
	/* the owner is done with it, and the decision that it made, if any, is ours to move */
	leftovers_wanted();
	dlist_delete(&report->node);
	pfree(report);
}

void
reports_handed_over(Partition *partition)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);
		Report	   *report;

		if (!run->queued)
			continue;
		report = make_report(&run->key, partition->number);
		report->session = (int64) partition->session;
		report->state_mod = partition->state_mod;
		report->command = 0;
		report->answered = report->not_made = false;
	}
}

/* ---- commands -------------------------------------------------------------------------------------- */

/* What was asked before a connection was lost may have been taken back since. */
void
reports_list_begins(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &reports)
	{
		Report	   *report = dlist_container(Report, node, iter.cur);

		report->command = 0;
		if (report->state_mod == 0)
			drop_report(report);
	}
}

static bool
parse_command(const EtcdKv *kv, KeyParts *parts)
{
	return strlen(kv->key) == kv->key_len && keys_parse(dsched_cluster_name, kv->key, parts) &&
		parts->kind == KEY_COMMAND && placement_partition(&parts->run) >= 0;
}

void
reports_command_put(const EtcdKv *kv)
{
	KeyParts	parts;
	CommandDef	command;
	Report	   *report;
	RunKey		key;
	char		problem[256];
	char		shown[256];

	if (!parse_command(kv, &parts))
		return;
	if (!codec_command_decode(kv->value, kv->value_len, &command, problem, sizeof(problem)))
	{
		etcd_clean_text(shown, sizeof(shown), kv->key, kv->key_len);
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("dsched: a command in etcd cannot be read and is left alone: %s", problem),
				 errdetail("Its key is \"%s\".", shown)));
		return;
	}
	/* those to other instances are none of ours; to a former session of ours nothing can be said any more */
	if ((uint64) command.session != pg_atomic_read_u64(&dsched_shared->session))
		return;
	remote_run_key(&parts.run, &key);
	report = make_report(&key, placement_partition(&parts.run));
	report->session = command.session;
	if (report->command != kv->create_revision)
		report->answered = false;
	report->command = kv->create_revision;
	report->cancel = command.cancel;
	report->retry_at = 0;
	scheduler_wake_at(scheduler.boot);
}

/* The owner has taken the answer in, or has found out otherwise. */
void
reports_command_deleted(const EtcdKv *kv)
{
	KeyParts	parts;
	Report	   *report;
	RunKey		key;

	if (!parse_command(kv, &parts))
		return;
	remote_run_key(&parts.run, &key);
	report = find_report(&key);
	if (report != NULL)
		drop_report(report);
}

bool
reports_know(const RunKey *key)
{
	Report	   *report = find_report(key);

	return report != NULL && (uint64) report->session == pg_atomic_read_u64(&dsched_shared->session);
}

/* ---- what became of it ----------------------------------------------------------------------------- */

/* The entry with which an executor makes it; -1: none does. */
static int
find_entry(const RunKey *key)
{
	int			found = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->max_executors && found < 0; i++)
	{
		const ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state == EXECUTOR_BUSY && executor->entry >= 0 &&
			dsched_shared->entries[executor->entry].token.db == scheduler.db &&
			run_key_same(&dsched_shared->entries[executor->entry].key, key))
			found = executor->entry;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

/* With a commit that is flushed, and so all before it is, whoever wrote it. */
static void
look_up(void *arg)
{
	Verdict    *verdict = arg;
	RunHistory	history;

	(void) GetTopTransactionId();
	ForceSyncCommit();
	run_history(&verdict->key, &history);
	verdict->status = history.status;
	verdict->finished_at = history.finished_at;
	verdict->death = history.lost > 0;
	if (history.attempt == verdict->key.attempt)
		return;
	verdict->status = history.attempt > 0 ? run_lookup(&verdict->key) : RUN_STATUS_NONE;
	verdict->finished_at = 0;
}

/* It left no row that ends it. */
static void
close_without_row(const RunKey *key, const RunEntry *entry, RunStatus status)
{
	Job		   *job = timetable_find(key->job_id);
	ClosedSlot	closed = {0};

	closed.key = *key;
	closed.slots = 1;
	if (job != NULL)
	{
		strlcpy(closed.job_name, job->job_name, sizeof(closed.job_name));
		strlcpy(closed.username, job->username, sizeof(closed.username));
		closed.gen = job->gen;
	}
	if (entry != NULL)
	{
		closed.gen = entry->gen;
		closed.reason = entry->reason;
		closed.epoch = entry->token.epoch;
		closed.started_at = entry->started_at;
		closed.pid = entry->pid;
		strlcpy(closed.sqlstate, entry->sqlstate, sizeof(closed.sqlstate));
		strlcpy(closed.message, entry->message, sizeof(closed.message));
	}
	closed.status = status;
	closed.replaces = true;
	if (closed.sqlstate[0] == '\0')
		strlcpy(closed.sqlstate, status == RUN_LOST ? "57P01" : "57014", sizeof(closed.sqlstate));
	if (closed.message[0] == '\0')
		strlcpy(closed.message, status == RUN_LOST ? "the process that ran it ended before it committed" :
				status == RUN_TIMED_OUT ? "canceling job due to timeout" : "canceling job due to request",
				sizeof(closed.message));
	closing_add(&closed);
}

/* As settle_unrecorded() does for runs of our own partitions. */
void
reports_run_ended(const RunEntry *entry)
{
	Verdict		verdict = {entry->key};
	Report	   *report = find_report(&entry->key);

	scheduler.recorded++;
	if (report != NULL)
		report->retry_at = 0;
	/* if it is left prepared, or the table cannot be read now: whoever answers looks again */
	if (entry->prepared || entry->status != RUN_STATUS_NONE || !scheduler_transaction(look_up, &verdict, "looking up a run") ||
		(verdict.status != RUN_STATUS_NONE && verdict.status != RUN_RUNNING))
		return;
	if (entry->timed_out || entry->cancelled)
		close_without_row(&entry->key, entry, entry->timed_out ? RUN_TIMED_OUT : RUN_CANCELLED);
	else if (verdict.status == RUN_STATUS_NONE && !entry->claimed &&
			 (entry->started_at == 0 || strncmp(entry->sqlstate, "53", 2) == 0 || strncmp(entry->sqlstate, "58", 2) == 0))
	{
		report = make_report(&entry->key, entry->token.partition);
		report->session = (int64) pg_atomic_read_u64(&dsched_shared->session);
		report->not_made = true;
	}
	else
		close_without_row(&entry->key, entry, RUN_LOST);
}

/* False: not now. */
static bool
judge(const Report *report, OutcomeDef *outcome)
{
	Verdict		verdict = {report->key};

	memset(outcome, 0, sizeof(*outcome));
	/* whether it is committed is for settling.c to find out */
	if (settling_has(&report->key))
		return false;
	/* what was closed without a row has one after this */
	if (!closing_flush() || !scheduler_transaction(look_up, &verdict, "looking up a run"))
		return false;
	outcome->session = report->session;
	if (verdict.status == RUN_STATUS_NONE && report->not_made)
	{
		strlcpy(outcome->status, "not_made", sizeof(outcome->status));
		return true;
	}
	if (verdict.status == RUN_STATUS_NONE || verdict.status == RUN_RUNNING)
	{
		close_without_row(&report->key, NULL, RUN_LOST);
		if (!closing_flush())
			return false;
		verdict.status = RUN_LOST;
		verdict.death = true;
	}
	strlcpy(outcome->status, run_status_name(verdict.status), sizeof(outcome->status));
	outcome->finished_at = verdict.finished_at;
	if (verdict.status == RUN_LOST)
		strlcpy(outcome->sqlstate, verdict.death ? "57P01" : "40001", sizeof(outcome->sqlstate));
	return true;
}

/* ---- answers --------------------------------------------------------------------------------------- */

static void
send_answer(Report *report)
{
	EtcdTxn    *txn = etcd_txn_begin();
	OutcomeDef	outcome;
	char		node[KEYS_MAX_LEN];
	char		command[KEYS_MAX_LEN];
	char		key[KEYS_MAX_LEN];
	char		jobrev[64];
	RunName		name;
	RunKey	   *about;
	size_t		length;
	char	   *text;

	report->retry_at = scheduler.boot + RETRY_US;
	scheduler_wake_at(report->retry_at);
	if (!judge(report, &outcome))
	{
		etcd_txn_free(txn);
		return;
	}
	text = codec_outcome_encode(&outcome, &length);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	delivery_run_name(&report->key, scheduler.db, report->partition, &name);
	keys_node(node, dsched_cluster_name, dsched_my_node());
	keys_command(command, dsched_cluster_name, scheduler.dbname, &name);
	etcd_txn_if_create(txn, node, report->session);
	if (report->command != 0)
		etcd_txn_if_create(txn, command, report->command);
	else
	{
		keys_state(key, dsched_cluster_name, scheduler.dbname, partition_place(report->partition), name.partition);
		etcd_txn_if_mod(txn, key, report->state_mod);
	}
	keys_outcome(key, dsched_cluster_name, scheduler.dbname, &name);
	etcd_txn_put(txn, key, text, length, 0);
	free(text);
	snprintf(jobrev, sizeof(jobrev), "{\"format\":%d,\"change\":" INT64_FORMAT "}", CODEC_FORMAT, sync_random_id());
	/* the owners of a selector's partitions read the newest of all */
	keys_jobrev(key, dsched_cluster_name, scheduler.dbname, name.partition % dsched_partitions);
	etcd_txn_put(txn, key, jobrev, strlen(jobrev), 0);
	etcd_txn_else_get(txn, node, NULL);
	etcd_txn_else_get(txn, command, NULL);
	about = MemoryContextAlloc(scheduler.context, sizeof(RunKey));
	*about = report->key;
	report->request = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REQUEST_TIMEOUT_MS,
								answered, about);
	if (report->request == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

static void
answered(void *arg, const EtcdResponse *response)
{
	Report	   *report = find_report(arg);
	EtcdKv		kv;

	pfree(arg);
	scheduler_refresh_time();
	if (report == NULL)
		return;
	report->request = NULL;
	if (!response->ok)
		return;
	scheduler_wake_at(scheduler.boot);
	report->answered = true;
	if (etcd_txn_succeeded(response->body))
		return;
	/* the session is over, or was when it was sent */
	if (!etcd_kv_at(etcd_txn_response(response->body, 0), 0, &kv))
		return;
	report->answered = kv.create_revision != report->session;
	etcd_kv_free(&kv);
	if (report->answered)
		return;
	if (etcd_kv_at(etcd_txn_response(response->body, 1), 0, &kv))
	{
		/* somebody has asked meanwhile, or anew */
		reports_command_put(&kv);
		etcd_kv_free(&kv);
	}
	else
		report->answered = true;	/* it is settled */
}

/* ---- each turn ------------------------------------------------------------------------------------- */

/* Is it ours to answer, now?  unasked: also if nobody has asked. */
static bool
is_due(const Report *report, bool unasked)
{
	return !report->answered && report->request == NULL && (report->command != 0 || (unasked && report->state_mod != 0)) &&
		scheduler.partitions[report->partition].step == STEP_NONE;
}

static void
see_to(Report *report)
{
	int			entry;

	if (scheduler.slot->finished_head >= 0)
		(void) dispatch_finished();
	entry = find_entry(&report->key);
	if (entry < 0)
	{
		/* it may have ended just now, and not have been taken back yet: that comes first, as it may know more than the row */
		if (scheduler.slot->finished_head >= 0)
			(void) dispatch_finished();
		send_answer(report);
		return;
	}
	if (report->cancel && !report->cancelled)
		report->cancelled = dsched_cancel_run(entry, &report->key);
	dsched_queue_await(scheduler.db, entry);
}

static void
look_at(bool unasked)
{
	uint64		session = pg_atomic_read_u64(&dsched_shared->session);
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &reports)
	{
		Report	   *report = dlist_container(Report, node, iter.cur);

		/* after a lapse the same session can come back */
		if (session != 0 && (uint64) report->session != session)
		{
			drop_report(report);
			continue;
		}
		if (!is_due(report, unasked))
			continue;
		if (report->retry_at > scheduler.boot)
			scheduler_wake_at(report->retry_at);
		else
			see_to(report);
	}
}

void
reports_turn(void)
{
	if (!dlist_is_empty(&reports))
		look_at(false);
}

bool
reports_stop(void)
{
	int			running = dsched_unbind_runs(scheduler.db);
	dlist_iter	iter;

	/* their ends wake us */
	if (running > 0)
		return false;
	look_at(true);
	dlist_foreach(iter, &reports)
	{
		Report	   *report = dlist_container(Report, node, iter.cur);

		if (report->request != NULL || is_due(report, true))
			return false;
	}
	return true;
}
