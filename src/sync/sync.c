/*
 * sync.c
 *	  Definitions in the scheduler: loading them, taking in what users change, and changes of its own.
 *
 * STANDALONE
 *
 * dsched.job is the truth.  A change is committed with the column changed set, the scheduler is woken, takes
 * the row in and clears the column.  The timetable gets only what is committed: the rows are collected in one
 * transaction, and put after its commit.  Rows that somebody has locked are left, and tried again later.  A
 * request for a run stays in dsched.outbox until its run is accounted for: that is what opens it again after a
 * crash.
 *
 * CLUSTER
 *
 * etcd is the truth.  The timetable has what etcd has: at the start, the rows without unpublished changes,
 * which are versions that were in etcd; then what follow.c brings.  publish.c sends what users change, and
 * apply.c brings the table after the timetable.
 *
 * CHANGES OF OUR OWN
 *
 * Jobs that are done with, jobs that are to be paused, problems that people should see, triggers that are done
 * with: each is a small change of one row, queued here and made in a later turn, so that it can be asked for
 * from anywhere, and waits for no lock. One that is lost with the process is found necessary again by whoever
 * asked for it.
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "sync/sync_internal.h"

#define LOAD_BASE_US INT64CONST(500000)
#define LOAD_MAX_US INT64CONST(10000000)
#define LOCKED_BASE_US INT64CONST(100000)
#define LOCKED_MAX_US INT64CONST(5000000)

/*
 * Rows that are taken in in one turn: what comes due meanwhile waits so long, some milliseconds, if somebody defines or drops a
 * hundred thousand jobs at once.
 */
#define TAKE_IN_BATCH 100

typedef enum OwnChangeKind
{
	OWN_RETIRE,
	OWN_PAUSE,
	OWN_PROBLEM,
	OWN_TRIGGER_DONE
} OwnChangeKind;

typedef struct OwnChange
{
	WorkItem	item;
	OwnChangeKind kind;
	int64		id;				/* of the job, or of the trigger */
	int64		gen;			/* of the job, when it was asked for */
	char	   *problem;		/* palloc'd; NULL: none */
	bool		made;			/* something was changed */
} OwnChange;

/* The problem of a job that is queued: only the last one counts. */
typedef struct QueuedProblem
{
	int64		job_id;			/* hash key */
	OwnChange  *change;
} QueuedProblem;

/* Standalone: what one transaction reads. */
typedef struct TakenIn
{
	List	   *rows;			/* of JobRow * */
	List	   *outbox;			/* of OutboxRow * */
	int			max_outbox;
	int64		after;			/* rows with ids after this one */
	bool		left;			/* there are changed rows that are not among these */
} TakenIn;

static WorkOutcome make_own_change(WorkItem *item);
static void own_change_made(WorkItem *item);
static void load(void);
static void take_in(void);
static void take_in_local_requests(void);

static WorkList own_changes = {"changing a job", make_own_change, own_change_made};
static HTAB *queued_problems = NULL;

static bool started = false;
static bool loaded = false;
static bool carrying = false;	/* definitions of the former incarnation are not published yet, or have not come back */
static Retry load_retry;

/* standalone */
static bool take_in_wanted = false;
/* not from the beginning with each batch, where the old versions of those before it are still found while somebody has an old snapshot */
static int64 take_in_after = PG_INT64_MIN;
static Retry take_in_retry;
static HTAB *opened_triggers = NULL;	/* ids of rows of dsched.outbox */

/* ---- start -------------------------------------------------------------------------------------- */

static HTAB *
make_id_table(const char *name, Size entrysize)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = entrysize;
	ctl.hcxt = scheduler.context;
	return hash_create(name, 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
sync_start(void)
{
	sync_work_init(&own_changes);
	queued_problems = make_id_table("dsched problems", sizeof(QueuedProblem));
	opened_triggers = make_id_table("dsched triggers", sizeof(int64));
	sync_intake_init();
	sync_apply_init();
	sync_publish_init();
	sync_queues_init();
	started = true;
	load();
}

/*
 * Rows that are restored put the database on hold in their own transaction.  That may be after the scheduler
 * looked and before it reads the rows; so whoever has read rows looks again, in the same transaction, before
 * anything comes of them.
 */
void
sync_refuse_if_held(void)
{
	Identity	now;

	identity_read(&now);
	if (now.found && now.held[0] == '\0')
		return;
	scheduler.slot->check_again = true;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s", now.found ? now.held : "the identity of this database is not recorded")));
}

typedef struct Loading
{
	MemoryContext context;
	List	   *queues;
	bool		unknown;		/* of some definitions it cannot be said whether etcd has them */
	bool		carried;		/* some were carried over, and are not published yet */
	bool		putting;		/* a definition is on its way into the timetable */
} Loading;

static void
load_row(const JobRow *row, void *arg)
{
	Loading    *loading = arg;
	JobRow		alone;

	loading->putting = true;
	if (scheduler.etcd == NULL)
	{
		/* without revisions of a cluster that this database was in */
		alone = *row;
		alone.gen_rev = alone.mod_revision = 0;
		timetable_put(&alone, true);
	}
	else if (row->mod_revision == 0 && row->gen_rev < 0)
		loading->carried = true;
	else if (row->mod_revision != 0 && scheduler.identity.incarnation[0] != '\0')
	{
		if (row->changed == NIL)
			timetable_put(row, true);	/* it is what etcd has, or had */
		else
			loading->unknown = true;
	}
	loading->putting = false;
}

/* One after the other into the timetable, as all of them at once might be a gigabyte.  No partition is ours yet: nothing comes of it. */
static void
read_rows(void *arg)
{
	Loading    *loading = arg;
	MemoryContext old = MemoryContextSwitchTo(loading->context);

	sync_convert_init();
	loading->unknown = scheduler.etcd != NULL && scheduler.identity.incarnation[0] == '\0';
	loading->carried = false;
	loading->queues = queue_read_all();
	job_scan(load_row, loading);
	sync_refuse_if_held();
	MemoryContextSwitchTo(old);
}

static void
unload(Job *job, void *arg)
{
	timetable_remove(job->job_id);
}

static void
load(void)
{
	Loading		loading = {AllocSetContextCreate(scheduler.context, "dsched load", ALLOCSET_DEFAULT_SIZES)};

	if (!scheduler_transaction(read_rows, &loading, "reading the jobs"))
	{
		/* out of memory, say: of a job that is in there by half nothing can be taken back */
		if (loading.putting)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("dsched: the jobs of database \"%s\" could not be loaded", scheduler.dbname)));
		timetable_each(-1, unload, NULL);
		MemoryContextDelete(loading.context);
		sync_retry_later(&load_retry, LOAD_BASE_US, LOAD_MAX_US);
		return;
	}
	loaded = true;
	sync_queues_load(loading.queues);
	if (scheduler.etcd == NULL)
		scheduler.ready = true;
	else
	{
		bool		verified = sync_sign_start();

		carrying = loading.carried;
		sync_follow_start(loading.unknown || scheduler.identity.applied_revision == 0 || !verified);
	}
	MemoryContextDelete(loading.context);
}

/* ---- each turn ---------------------------------------------------------------------------------- */

void
sync_changes(void)
{
	/* whoever calls has looked at the identity alone, and may have let us go */
	if (sync_follow_held())
		sync_follow_hold_again();
	else if (scheduler.etcd != NULL)
	{
		sync_queues_changed();
		sync_publish_changes();
		take_in_wanted = true;
		sync_retry_reset(&take_in_retry);
	}
	else
	{
		sync_queues_changed();
		take_in_wanted = true;
		sync_retry_reset(&take_in_retry);
	}
}

void
sync_turn(void)
{
	if (!started)
		return;
	if (sync_follow_held())
	{
		sync_follow_hold_again();
		return;
	}
	if (!loaded && sync_retry_due(&load_retry))
		load();
	if (!loaded)
		return;

	/* before the definitions, which may name them */
	if (scheduler.etcd == NULL)
		sync_queues_turn();
	if (scheduler.etcd != NULL)
	{
		sync_follow_turn();
		sync_queues_turn();
		sync_publish_turn();
		sync_apply_turn();
		sync_join_turn();
		if (take_in_wanted && sync_retry_due(&take_in_retry))
			take_in_local_requests();
	}
	else if (take_in_wanted && sync_retry_due(&take_in_retry))
		take_in();
	sync_work_turn(&own_changes);
	sync_open_triggers();
}

bool
sync_loaded(void)
{
	return loaded;
}

/*
 * A database that has joined its cluster knows the definitions by its table, and that they are its own.  After a recovery of the cluster
 * it does not, before the rows that were carried over have come back from etcd: whoever came later would find the slots of
 * the time before accounted for, or open all of them.
 */
bool
sync_may_run_locally(void)
{
	if (scheduler.etcd == NULL)
		return scheduler.ready;
	if (carrying && loaded && sync_following() && sync_publish_idle() && sync_publications_heard())
		carrying = false;
	return !carrying && loaded && scheduler.identity.incarnation[0] != '\0' && !sync_follow_held();
}

bool
sync_to_take_in(void)
{
	return take_in_wanted;
}

bool
sync_idle(void)
{
	if (!loaded || !sync_work_empty(&own_changes) || sync_triggers_waiting() || !sync_queues_idle())
		return false;
	if (scheduler.etcd == NULL)
		return !take_in_wanted;
	return !take_in_wanted && sync_following() && sync_publish_idle() && sync_apply_idle();
}

/* ---- standalone: taking in ---------------------------------------------------------------------- */

/* Need not be on disk: what is marked again after a crash is taken in again, which changes nothing. */
static void
read_changes(void *arg)
{
	TakenIn    *taken = arg;
	MemoryContext old = MemoryContextSwitchTo(scheduler.turn);
	ListCell   *lc;

	(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	taken->outbox = outbox_lock(OUTBOX_ALL, taken->max_outbox);
	foreach(lc, taken->outbox)
	{
		OutboxRow  *row = lfirst(lc);

		if (row->is_delete)
			outbox_delete(row->outbox_id);
	}
	taken->rows = job_lock_changed(taken->after, TAKE_IN_BATCH, false, &taken->left);
	if (taken->rows != NIL)
	{
		sync_refuse_if_held();
		job_taken_in(taken->rows);
	}
	foreach(lc, taken->rows)
		((JobRow *) lfirst(lc))->gen_rev = ((JobRow *) lfirst(lc))->mod_revision = 0;
	MemoryContextSwitchTo(old);
}

/* A row of dsched.outbox as what would be in etcd; malloc'd, but not converted. */
static void
add_local_trigger(const OutboxRow *row)
{
	TriggerDef	def = {0};
	Job		   *job = timetable_find(row->job_id);
	bool		found;

	(void) hash_search(opened_triggers, &row->outbox_id, HASH_ENTER, &found);
	if (found)
		return;
	sync_describe_request(row, &def);
	def.job_id = row->job_id;
	def.username = strdup(row->username);
	def.job_name = strdup(row->job_name);
	def.requested_by = strdup(row->requested_by);
	if (def.username == NULL || def.job_name == NULL || def.requested_by == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	sync_add_trigger(job != NULL ? job->partition : scheduler.etcd != NULL ? place_each() :
					 sync_partition(row->username, row->job_name, dsched_partitions), &def, 0);
}

/* In a cluster: requests for jobs that run on each instance are carried out where they were made. */
static void
read_local_requests(void *arg)
{
	TakenIn    *taken = arg;
	MemoryContext old = MemoryContextSwitchTo(scheduler.turn);

	taken->outbox = outbox_lock(OUTBOX_LOCAL, taken->max_outbox);
	MemoryContextSwitchTo(old);
}

static void
take_in_local_requests(void)
{
	TakenIn		taken = {0};
	ListCell   *lc;

	taken.max_outbox = TAKE_IN_BATCH + (int) hash_get_num_entries(opened_triggers);
	if (!scheduler_transaction(read_local_requests, &taken, "taking in requests"))
	{
		sync_retry_later(&take_in_retry, LOCKED_BASE_US, LOCKED_MAX_US);
		return;
	}
	foreach(lc, taken.outbox)
		add_local_trigger(lfirst(lc));
	if (list_length(taken.outbox) == taken.max_outbox)
		scheduler_wake_at(scheduler.boot);
	else
		take_in_wanted = false;
	sync_retry_reset(&take_in_retry);
}

static void
take_in(void)
{
	TakenIn		taken = {0};
	ListCell   *lc;

	/* the triggers that are open stand before whatever is new */
	taken.after = take_in_after;
	taken.max_outbox = TAKE_IN_BATCH + (int) hash_get_num_entries(opened_triggers);
	if (!scheduler_transaction(read_changes, &taken, "taking in changed jobs"))
	{
		sync_retry_later(&take_in_retry, LOCKED_BASE_US, LOCKED_MAX_US);
		return;
	}
	foreach(lc, taken.outbox)
		if (((OutboxRow *) lfirst(lc))->is_delete)
			timetable_remove_as_of(((OutboxRow *) lfirst(lc))->job_id, ((OutboxRow *) lfirst(lc))->created_at);
	foreach(lc, taken.rows)
		timetable_put(lfirst(lc), true);
	foreach(lc, taken.outbox)
		if (!((OutboxRow *) lfirst(lc))->is_delete)
			add_local_trigger(lfirst(lc));

	if (list_length(taken.rows) == TAKE_IN_BATCH || list_length(taken.outbox) == taken.max_outbox)
	{
		/* what comes due meanwhile goes first */
		if (taken.rows != NIL)
			take_in_after = ((JobRow *) llast(taken.rows))->job_id;
		scheduler_wake_at(scheduler.boot);
	}
	else if (take_in_after != PG_INT64_MIN)
	{
		/* those before it that were changed meanwhile */
		take_in_after = PG_INT64_MIN;
		scheduler_wake_at(scheduler.boot);
	}
	else if (taken.left)
		sync_retry_later(&take_in_retry, LOCKED_BASE_US, LOCKED_MAX_US);
	else
	{
		take_in_wanted = false;
		sync_retry_reset(&take_in_retry);
	}
}

/* ---- changes of our own ------------------------------------------------------------------------- */

static OwnChange *
queue_own_change(OwnChangeKind kind, int64 id, const char *problem)
{
	OwnChange  *change = MemoryContextAllocZero(scheduler.context, sizeof(OwnChange));

	change->kind = kind;
	change->id = id;
	change->problem = problem != NULL ? MemoryContextStrdup(scheduler.context, problem) : NULL;
	sync_work_add(&own_changes, &change->item);
	return change;
}

static void
queue_for_job(OwnChangeKind kind, int64 job_id, const char *problem)
{
	OwnChange  *change = queue_own_change(kind, job_id, problem);
	Job		   *job = timetable_find(job_id);

	if (job != NULL)
		change->gen = job->gen;
}

void
sync_retire(int64 job_id)
{
	queue_for_job(OWN_RETIRE, job_id, NULL);
}

void
sync_pause(int64 job_id, const char *problem)
{
	queue_for_job(OWN_PAUSE, job_id, problem);
}

void
sync_problem(int64 job_id, const char *problem)
{
	QueuedProblem *queued;
	bool		found;

	queued = hash_search(queued_problems, &job_id, HASH_ENTER, &found);
	if (!found)
	{
		queued->change = queue_own_change(OWN_PROBLEM, job_id, problem);
		return;
	}
	if (queued->change->problem != NULL)
		pfree(queued->change->problem);
	queued->change->problem = problem != NULL ? MemoryContextStrdup(scheduler.context, problem) : NULL;
}

void
sync_problem_is(int64 job_id, const char *problem)
{
	if (hash_get_num_entries(queued_problems) > 0 && hash_search(queued_problems, &job_id, HASH_FIND, NULL) != NULL)
		sync_problem(job_id, problem);
}

void
sync_trigger_done(int64 trigger_id)
{
	(void) queue_own_change(OWN_TRIGGER_DONE, trigger_id, NULL);
}

bool
sync_has_request(int64 trigger_id)
{
	return hash_search(opened_triggers, &trigger_id, HASH_FIND, NULL) != NULL;
}

/*
 * Deletes the definition of a job that is done with, unless a user has changed it since.  An outbox row that
 * nobody asked for (requested_by is empty) is dropped by the publisher if the job was given another time
 * elsewhere.
 */
static void
retire(OwnChange *change, const JobRow *row)
{
	OutboxRow	out = {0};

	if (row->gen != change->gen || (scheduler.etcd != NULL && row->changed != NIL))
		return;
	if (scheduler.etcd != NULL)
	{
		out.outbox_id = sync_random_id();
		out.is_delete = true;
		out.job_id = row->job_id;
		out.username = row->username;
		out.job_name = row->job_name;
		out.base_revision = row->mod_revision;
		out.requested_by = "";
		out.created_at = scheduler.now;
		outbox_insert(&out);
	}
	job_delete(row->job_id);
	change->made = true;
}

/* As pause() does: a new generation, without slots. What max_runs has left is counted when it is resumed. */
static void
pause_job(OwnChange *change, JobRow *row)
{
	if (row->gen != change->gen || !row->active)
		return;
	row->active = false;
	row->problem = change->problem;
	row->gen = sync_random_id();
	row->gen_rev = 0;
	row->slots_from = scheduler.now;
	if (!sync_is_changed(row, "all") && !sync_is_changed(row, "active"))
		row->changed = lappend(row->changed, pstrdup("active"));
	row->change_id = sync_random_id();
	row->changed_at = scheduler.now;
	job_update(row);
	change->made = true;
}

static void
set_problem(OwnChange *change, JobRow *row)
{
	/* of a definition that is over: what is to be said of the one after it is found when that is taken in */
	if (scheduler.etcd == NULL && row->changed != NIL)
		return;
	if (row->problem == NULL ? change->problem == NULL :
		change->problem != NULL && strcmp(row->problem, change->problem) == 0)
		return;
	row->problem = change->problem;
	job_update(row);
}

static WorkOutcome
make_own_change(WorkItem *item)
{
	OwnChange  *change = (OwnChange *) item;
	JobRow		row;
	int			locked;

	change->made = false;
	if (change->kind == OWN_TRIGGER_DONE)
	{
		outbox_delete(change->id);
		return WORK_DONE;
	}
	locked = job_try_lock(change->id);
	if (locked < 0)
		return WORK_LOCKED;
	if (locked == 0 || !job_read(change->id, &row))
		return WORK_DONE;
	if (change->kind == OWN_RETIRE)
		retire(change, &row);
	else if (change->kind == OWN_PAUSE)
		pause_job(change, &row);
	else
		set_problem(change, &row);
	return WORK_DONE;
}

static void
own_change_made(WorkItem *item)
{
	OwnChange  *change = (OwnChange *) item;

	if (change->kind == OWN_PROBLEM)
		(void) hash_search(queued_problems, &change->id, HASH_REMOVE, NULL);
	else if (change->kind == OWN_TRIGGER_DONE)
		(void) hash_search(opened_triggers, &change->id, HASH_REMOVE, NULL);
	else if (change->made && change->kind == OWN_RETIRE && scheduler.etcd == NULL)
		timetable_remove(change->id);
	else if (change->made)
		sync_changes();
	if (change->problem != NULL)
		pfree(change->problem);
	pfree(change);
}
