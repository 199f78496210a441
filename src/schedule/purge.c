/*
 * purge.c
 *	  Which old rows of dsched.run go, and when.
 *
 * There are three limits: on the age of a row (dsched.run_retention), on the number of rows of one job
 * (dsched.run_retention_per_job) and on that of all (dsched.run_retention_total).  A round first walks through the table by job,
 * which counts it and applies the second limit, then by time, from the oldest row on, for the other two.  A whole round is made
 * each hour, and earlier when the table has grown by a quarter; in between the walk by time goes on from where it
 * ended, with the number of rows that there are by now.  Nothing is done while nothing is recorded.
 *
 * All this is done by the scheduler between its turns, in steps of half a millisecond with pauses of four times that, so that
 * it never holds up what is due.  catalog/purge.c makes the steps, and waits for nobody.
 *
 * What stays, whatever the limits say:
 *
 *	  - the row, or rows, of the latest time of a job that exists, and the slot's own row of a one-shot that exists: there the row
 *		tells that it is done with;
 *	  - rows of runs that have not ended;
 *	  - rows that decide what is open when the account that was last written is read again, after a crash or by the next owner.
 *		That account knows that a slot is closed if the slot is before its watermark and not pending in it.  So the rows stay of
 *		slots that are beyond that watermark, that are open in memory, and that were closed since the account was taken
 *		(Partition.closed_from).  A request is taken in again for as long as it is there: so do the rows of its runs.
 *	  - all rows of partitions that we are about to take over or to give away, or that nobody has: we may be the next to read their
 *		account, however old it is by then.
 *	  - of partitions that another instance has, what is younger than a day.  Their account is with their owner, who has taken
 *		note of our rows, or made the runs again, long before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/guc.h"
#include "utils/hsearch.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define FIRST_ROUND_US INT64CONST(60000000)
#define ROUND_INTERVAL_US INT64CONST(3600000000)
#define SHORT_INTERVAL_US INT64CONST(10000000)
#define STEP_US INT64CONST(500)
#define PAUSE_US INT64CONST(2000)
/* The table is locked: look again so much later. */
#define LOCKED_PAUSE_US INT64CONST(1000000)
/* Counting a table costs a little for each row; it is worth it when so many came, and a quarter of what there is. */
#define GROWTH_MIN 100000
#define FOREIGN_AGE_US USECS_PER_DAY
/* Of runs that are younger than this the account has hardly taken note; the walk by time does not pass them by. */
#define SETTLING_US INT64CONST(15000000)
/* Jobs of which the newest row is remembered; with more, all are forgotten now and then. */
#define MAX_NEWEST 16384

typedef enum Stage
{
	RESTING,
	WALKING_BY_JOB,
	WALKING_BY_TIME
} Stage;

typedef struct NewestRow
{
	int64		job_id;			/* hash key */
	TimestampTz scheduled_for;
} NewestRow;

static Stage stage = RESTING;
static PurgeWalk by_job;
static PurgeWalk by_time;
static int64 rows = -1;			/* in the table when they were last counted, less those purged since; -1: not known */
static int64 recorded_then;		/* scheduler.recorded at that time */
static int64 recorded_seen = 0; /* scheduler.recorded at the last walk by time */
static int64 excess;			/* so many rows go, however old they are */
static int64 round_at = 0;		/* when the next whole round is made, as round_time() has it */
static int64 short_at = 0;		/* boot time of the next walk by time */
static int64 pause_until = 0;	/* boot time */
static TimestampTz older_than;	/* the age limit of this walk; PG_INT64_MIN: none */
static HTAB *newest = NULL;		/* during a walk */

/* ---- what the account knows ---------------------------------------------------------------------- */

void
purge_slot_closed(Partition *partition, TimestampTz slot)
{
	partition->closed_from = Min(partition->closed_from, slot);
}

void
purge_account_taken(Partition *partition)
{
	partition->taken_watermark = partition->watermark;
	partition->closed_before = Min(partition->closed_before, partition->closed_from);
	partition->closed_from = PG_INT64_MAX;
}

void
purge_account_written(Partition *partition)
{
	partition->written_watermark = partition->taken_watermark;
	partition->closed_before = PG_INT64_MAX;
}

/* Nothing is known of what is written: nothing goes. */
void
purge_account_unknown(Partition *partition)
{
	partition->written_watermark = partition->taken_watermark = PG_INT64_MIN;
	partition->closed_from = partition->closed_before = PG_INT64_MIN;
}

/* ---- which rows may go --------------------------------------------------------------------------- */

static bool
is_open_since(const Job *job, TimestampTz last)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->open)
		if (dlist_container(OpenRun, in_job, iter.cur)->key.scheduled_for <= last)
			return true;
	dlist_foreach(iter, &job->work->ranges)
		if (dlist_container(SlotRange, in_job, iter.cur)->next <= last)
			return true;
	return false;
}

/* Alone, a partition is without an owner for as long as its account cannot be read. */
static bool
is_with_another(const Partition *partition)
{
	const PartitionSlot *slot = &scheduler.slot->partitions[partition->number];
	bool		result;

	if (partition_is_local(partition) || partition->step != STEP_NONE)
		return false;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	result = slot->phase == PARTITION_NONE && slot->owner[0] != '\0';
	LWLockRelease(dsched_shared->control_lock);
	return result;
}

/* Of a request: could it be taken in again? */
static bool
is_requested(const Partition *partition, int64 trigger_id)
{
	ListCell   *lc;

	if (partition_is_local(partition))
		return sync_has_request(trigger_id);
	foreach(lc, partition->done_triggers)
		if (*(int64 *) lfirst(lc) == trigger_id)
			return true;
	return false;
}

static TimestampTz
due_time(const Job *job, TimestampTz slot)
{
	SlotRule	rule;

	if (!job->usable)
		return slot;
	rule = job_rule(job);
	return slot_due(&rule, slot);
}

/* Could the row be needed to tell that its slots are not open? */
static bool
is_needed(const Job *job, const RunSeen *row)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	TimestampTz last = Max(row->key.scheduled_for, row->last_slot);

	if (job->one_shot && row->key.trigger_id == 0)
		return true;
	if (partition->step != STEP_ACTIVE)
		return !is_with_another(partition) || Max(last, row->finished_at) > scheduler.now - FOREIGN_AGE_US;
	if (row->key.trigger_id != 0 && is_requested(partition, row->key.trigger_id))
		return true;
	/* which slots there are, when it runs again, is then found out from here on */
	if (!job->usable && job->extra != NULL && job->extra->held_since != 0 && last >= job->extra->held_since)
		return true;
	if (last >= partition->closed_from || last >= partition->closed_before ||
		due_time(job, last) >= partition->written_watermark)
		return true;
	return is_open_since(job, last);
}

static TimestampTz
newest_of(int64 job_id)
{
	NewestRow  *known;
	bool		found;

	if (newest != NULL && hash_get_num_entries(newest) >= MAX_NEWEST)
	{
		hash_destroy(newest);
		newest = NULL;
	}
	if (newest == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int64);
		ctl.entrysize = sizeof(NewestRow);
		ctl.hcxt = scheduler.context;
		newest = hash_create("dsched newest runs", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	known = hash_search(newest, &job_id, HASH_FIND, NULL);
	if (known == NULL)
	{
		TimestampTz scheduled_for = run_newest(job_id);

		known = hash_search(newest, &job_id, HASH_ENTER, &found);
		known->scheduled_for = scheduled_for;
	}
	return known->scheduled_for;
}

/* Not: do the limits want it to go. */
static bool
may_go(const RunSeen *row)
{
	Job		   *job = timetable_find(row->key.job_id);

	if (row->status == RUN_RUNNING)
		return false;
	return job == NULL || (!is_needed(job, row) && row->key.scheduled_for < newest_of(job->job_id));
}

static PurgeVerdict
judge_of_job(const RunSeen *row, void *arg)
{
	return may_go(row) ? PURGE_DELETE : PURGE_KEEP;
}

/* Old by both its slot and its end: a run of a backfill is as young as its end. */
static PurgeVerdict
judge_by_time(const RunSeen *row, void *arg)
{
	bool		old = row->key.scheduled_for < older_than;

	if ((!old && excess <= 0) || row->key.scheduled_for > scheduler.now - SETTLING_US)
		return PURGE_STOP;
	if (excess <= 0 && Max(row->finished_at, row->last_slot) >= older_than)
		/* one that is about to be old is not passed by either */
		return row->key.scheduled_for >= older_than - SETTLING_US ? PURGE_STOP : PURGE_KEEP;
	if (!may_go(row))
		return PURGE_KEEP;
	excess--;
	return PURGE_DELETE;
}

/* ---- rounds -------------------------------------------------------------------------------------- */

/* By the test clock rounds come when it is moved. */
static int64
round_time(void)
{
	return dsched_test_clock ? scheduler.now : scheduler.boot;
}

static bool
limits_are_set(void)
{
	return dsched_run_retention >= 0 || dsched_run_retention_per_job >= 0 || dsched_run_retention_total >= 0;
}

static int64
recorded_since_count(void)
{
	return scheduler.recorded - recorded_then;
}

static bool
round_is_due(void)
{
	if (round_at == 0)
		round_at = round_time() + (dsched_test_clock ? ROUND_INTERVAL_US : FIRST_ROUND_US);
	if (scheduler.recorded == recorded_seen)
		return false;
	return round_time() >= round_at || (rows >= 0 && recorded_since_count() > Max(rows / 4, GROWTH_MIN));
}

static void
begin_walk_by_time(void)
{
	stage = WALKING_BY_TIME;
	by_time.done = false;
	by_time.deleted = 0;
	older_than = dsched_run_retention < 0 ? PG_INT64_MIN : scheduler.now - dsched_run_retention * USECS_PER_SEC;
	excess = dsched_run_retention_total < 0 || rows < 0 ? 0 :
		rows + recorded_since_count() - dsched_run_retention_total;
	recorded_seen = scheduler.recorded;
}

static void
begin_round(void)
{
	round_at = round_time() + ROUND_INTERVAL_US;
	memset(&by_job, 0, sizeof(by_job));
	memset(&by_time, 0, sizeof(by_time));
	by_job.by_job = true;
	by_job.keep = dsched_run_retention_per_job < 0 ? PG_INT64_MAX : Max(dsched_run_retention_per_job, 1);
	rows = -1;
	/* alone the account may be written at any time; what it knows can go.  Rows first: it must not know more than the table. */
	if ((scheduler.etcd == NULL || partition_is_active(place_each())) && closing_empty())
		(void) state_local_write(false, false);
	if (dsched_run_retention_per_job < 0 && dsched_run_retention_total < 0)
		begin_walk_by_time();
	else
		stage = WALKING_BY_JOB;
}

static void
rest(void)
{
	stage = RESTING;
	short_at = scheduler.boot + SHORT_INTERVAL_US;
	if (newest != NULL)
		hash_destroy(newest);
	newest = NULL;
}

static void
end_walk(void)
{
	if (stage == WALKING_BY_TIME)
	{
		if (rows >= 0)
			rows -= by_time.deleted;
		if (by_time.deleted > 0)
			ereport(DEBUG1,
					(errmsg_internal("dsched: purged " INT64_FORMAT " old runs in database \"%s\"", by_time.deleted,
									 scheduler.dbname)));
		rest();
		return;
	}
	rows = by_job.rows;
	recorded_then = scheduler.recorded;
	if (by_job.deleted > 0)
		ereport(DEBUG1,
				(errmsg_internal("dsched: purged " INT64_FORMAT " runs beyond those kept of a job in database \"%s\"",
								 by_job.deleted, scheduler.dbname)));
	begin_walk_by_time();
}

/* Nothing is lost with a purge that a crash undoes: its commit does not wait for the disk. */
static void
make_step(void *arg)
{
	(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	*(bool *) arg = stage == WALKING_BY_JOB ?
		run_purge_step(&by_job, dsched_boot_now() + STEP_US, judge_of_job, NULL) :
		run_purge_step(&by_time, dsched_boot_now() + STEP_US, judge_by_time, NULL);
}

static void
step(void)
{
	PurgeWalk  *walk = stage == WALKING_BY_JOB ? &by_job : &by_time;
	PurgeWalk	before = *walk;
	int64		excess_before = excess;
	bool		went = false;

	if (!scheduler_transaction(make_step, &went, "purging old runs") || !went)
	{
		*walk = before;
		excess = excess_before;
		pause_until = dsched_boot_now() + LOCKED_PAUSE_US;
		return;
	}
	pause_until = dsched_boot_now() + PAUSE_US;
	if (walk->done)
		end_walk();
}

void
purge_turn(void)
{
	if (scheduler.held || scheduler.stopping || !scheduler.ready || !limits_are_set())
	{
		if (stage != RESTING)
			rest();
		return;
	}
	if (stage == RESTING)
	{
		if (scheduler.recorded == recorded_seen)
			return;
		if (round_is_due())
			begin_round();
		else if (!dsched_test_clock && scheduler.boot >= short_at && short_at != 0)
			begin_walk_by_time();
		else
		{
			if (!dsched_test_clock)
				scheduler_wake_at(short_at == 0 ? round_at : Min(round_at, short_at));
			return;
		}
	}
	if (pause_until <= scheduler.boot)
		step();
	if (stage != RESTING)
		scheduler_wake_at(pause_until);
}

bool
purge_idle(void)
{
	return stage == RESTING && (scheduler.held || !scheduler.ready || !limits_are_set() || !round_is_due());
}
