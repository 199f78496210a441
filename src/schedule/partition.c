/*
 * partition.c
 *	  The life of a partition in its owner's scheduler.
 *
 *	  NONE --OWNED--> READING --> (BEHIND) --> CLAIMING --> ACTIVE --RELEASING--> DRAINING --> FINAL or HANDING --> NONE
 *	  standalone: NONE --OWNED--> ACTIVE, and DRAINING --> FINAL only when the server stops
 *
 * The coordinator moves the phases in shared memory (OWNED, RELEASING, NONE), this file answers with ACTIVE and
 * RELEASED.  Ownership that ends without asking (a lost lease, a failed comparison) goes straight to NONE:
 * everything known about the partition is forgotten, its queued runs are withdrawn, and its running ones cannot
 * commit because their epoch is void.
 *
 * A hand-over stops opening and starting, lets running jobs end for dsched.drain_timeout, clears the epoch so
 * that nothing can commit any more, and only then writes the last state (FINAL).  Runs that last longer are handed over alive
 * (HANDING): the state that says so is written while their epoch still holds; when it is, they are bound to the session, and
 * the epoch is cleared.  What becomes of them then is in remote.c and reports.c.  When the server stops, running jobs
 * are cancelled instead.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define LOCAL_STATE_INTERVAL_US INT64CONST(5000000)
/* Between two writes of the table's copy it rests for so many times as long as the last one took. */
#define LOCAL_STATE_REST 30
#define RETRY_TAKE_OVER_US INT64CONST(1000000)
/*
 * A quiet partition's watermark is written along with others when it is older than this: see checkpoint_etcd().  Whoever takes
 * it over reads all of its own rows since then, which an instance that is busy with others has made by the thousand each second.
 */
#define QUIET_WATERMARK_US INT64CONST(20000000)
/* Settling a prepared transaction takes less, unless it cannot be done now. */
#define LEAVE_HELD_US INT64CONST(10000000)

static int64 local_state_at = 0;

static void set_phase(Partition *partition, PartitionPhase phase);
static void forget(Partition *partition);
static void begin_drain(Partition *partition);
static void continue_drain(Partition *partition);
static void write_last_state(Partition *partition);
static void follow_phases(const PartitionPhase *phases, const uint64 *epochs);
static void take_over(Partition **partitions, int n);
static bool checkpoint_local(bool now);
static void checkpoint_etcd(void);

void
partitions_init(void)
{
	for (int i = 0; i < DSCHED_MAX_PARTITIONS; i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		memset(partition, 0, sizeof(*partition));
		partition->number = i;
		partition->ahead_round = 1;
		purge_account_unknown(partition);
		dlist_init(&partition->open);
		dlist_init(&partition->ranges);
		dlist_init(&partition->jobs);
		dlist_init(&partition->failing);
	}
}

bool
partition_is_active(int number)
{
	PartitionStep step = scheduler.partitions[number].step;

	return step == STEP_ACTIVE || step == STEP_CLAIMING;
}

void
partition_touch(Partition *partition)
{
	int64		at;

	partition->dirty = true;
	partition->local_dirty = true;
	if (scheduler.checkpoint_at == 0)
		scheduler.checkpoint_at = scheduler.boot + dsched_checkpoint_interval * INT64CONST(1000);
	/* what waits is shown by the table's copy: soon, then, and again when it does not any more */
	at = scheduler.boot + (partition->nshown > 0 || partition->shown ?
						   dsched_checkpoint_interval * INT64CONST(1000) : LOCAL_STATE_INTERVAL_US);
	if (local_state_at == 0 || at < local_state_at)
		local_state_at = at;
}

/*
 * Answers the coordinator.  It may have moved on meanwhile, to another epoch or to none: then the answer is to a question
 * that is void.
 */
static void
set_phase(Partition *partition, PartitionPhase phase)
{
	PartitionSlot *slot = &scheduler.slot->partitions[partition->number];
	uint64		epoch;
	bool		answers;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	epoch = pg_atomic_read_u64(&slot->epoch);
	if (phase == PARTITION_ACTIVE)
		answers = slot->phase == PARTITION_RELEASING && epoch == partition->epoch;
	else
		answers = slot->phase != PARTITION_NONE && epoch == 0;
	if (answers)
		slot->phase = phase;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_coordinator();
}

static void
unplan(Job *job, void *arg)
{
	timetable_unplan(job);
}

void
partition_unplan(Partition *partition)
{
	timetable_each(partition->number, unplan, NULL);
}

void
partition_free_triggers(Partition *partition)
{
	ListCell   *lc;

	foreach(lc, partition->taken_triggers)
		codec_trigger_free(lfirst(lc));
	list_free_deep(partition->taken_triggers);
	partition->taken_triggers = NIL;
}

static void
forget(Partition *partition)
{
	partition->step = STEP_NONE;
	partition_unplan(partition);
	drop_runs(partition);
	codec_state_free(&partition->taken);
	codec_state_free(&partition->history);
	partition_free_triggers(partition);
	list_free_deep(partition->done_triggers);
	list_free_deep(partition->done_remotes);
	partition->done_triggers = partition->done_remotes = NIL;
	leftovers_wanted();
	marks_free(partition);
	partition->dirty = partition->writing = partition->behind = partition->crowded = false;
	partition->request = NULL;
	partition->epoch = 0;
	partition->seq = partition->state_mod = partition->jobrev = 0;
	partition->retry_at = 0;
	partition->flush_to = 0;
	purge_account_unknown(partition);
}

void
partition_lost(Partition *partition, const char *why)
{
	PartitionSlot *slot = &scheduler.slot->partitions[partition->number];

	if (partition->step == STEP_NONE)
		return;
	ereport(DEBUG1,
			(errmsg_internal("dsched: partition %d of database \"%s\" is not ours any more: %s",
							 partition->number, scheduler.dbname, why)));
	/* clear the epoch only if the coordinator has not got a new one meanwhile; of a local one they are all the same */
	if (!partition_is_local(partition))
	{
		uint64		expected = partition->epoch;

		if (pg_atomic_compare_exchange_u64(&slot->epoch, &expected, 0))
		{
			pg_memory_barrier();
			dsched_cancel_runs(scheduler.db, partition->number);
			set_phase(partition, PARTITION_NONE);
		}
	}
	forget(partition);
}

/* The owner key goes, and the coordinator claims it no more for a while. */
static void
leave_to_others(Partition *partition)
{
	PartitionSlot *slot = &scheduler.slot->partitions[partition->number];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	slot->declined = true;
	LWLockRelease(dsched_shared->control_lock);
	pg_atomic_write_u64(&slot->epoch, 0);
	pg_memory_barrier();
	partition_released(partition);
}

/*
 * A newer version has written its account.  This one must not own it: what it cannot read it cannot go on from, nor pass on.  The owner
 * key goes, for those who can; the coordinator claims it no more for a while.
 */
void
partition_decline(Partition *partition, int64 format)
{
	if (!partition->declined)
		ereport(WARNING,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("dsched: partition %d of database \"%s\" is left to other instances", partition->number, scheduler.dbname),
				 errdetail("Its account has format " INT64_FORMAT ", which a newer version has written; this one reads format %d.",
						   format, CODEC_FORMAT),
				 errhint("Upgrade dsched on this server.")));
	partition->declined = true;
	leave_to_others(partition);
}

static bool
is_alone(void)
{
	bool		alone;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	alone = dsched_shared->nmembers < 2;
	LWLockRelease(dsched_shared->control_lock);
	return alone;
}

/*
 * A prepared transaction that cannot be settled holds the partition up here, and only here: whoever else has it needs nothing of
 * ours, as what is not decided by a key in etcd when it is taken over never will be.
 */
static void
leave_held(Partition *partition)
{
	if (partition->held_since == 0 || is_alone())
		partition->held_since = scheduler.boot;
	if (scheduler.boot < partition->held_since + LEAVE_HELD_US)
	{
		scheduler_wake_at(partition->held_since + LEAVE_HELD_US);
		return;
	}
	partition->held_since = 0;
	ereport(LOG,
			(errmsg("dsched: partition %d of database \"%s\" is left to other instances", partition->number, scheduler.dbname),
			 errdetail("A prepared transaction of one of its runs waits to be settled here.")));
	leave_to_others(partition);
}

/* Says it in status() as long as nobody has taken them. */
static void
show_declined(void)
{
	static bool shown = false;
	int			n = 0;
	int			first = -1;

	for (int i = 0; i < places_shared(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		/* the name is a hint: a torn one is another name */
		if (partition->declined && scheduler.slot->partitions[i].owner[0] != '\0' &&
			strcmp(scheduler.slot->partitions[i].owner, dsched_my_node()) != 0)
			partition->declined = false;
		if (partition->declined && n++ == 0)
			first = i;
	}
	if (n > 0 && scheduler.slot->problem[0] == '\0')
	{
		char	   *text = psprintf("%d partitions, among them number %d, have an account that a newer version has written, and no owner",
									n, first);

		dsched_set_problem(scheduler.db, text, "Upgrade dsched on this server, or start one that has the newer version; their slots stay open.");
		pfree(text);
		shown = true;
	}
	else if (n == 0 && shown)
	{
		dsched_set_problem(scheduler.db, NULL, NULL);
		shown = false;
	}
}

/* ---- taking over ------------------------------------------------------------------------------ */

/* Those whose accounts are in the table: read, and active at once. */
static void
take_over_locally(Partition **partitions, int n)
{
	bool		read = true;

	for (int i = 0; i < n && read; i++)
		read = state_local_take_over(partitions[i]);
	if (read && recovery_open(partitions, n))
	{
		for (int i = 0; i < n; i++)
			partition_activate(partitions[i]);
		/* before the first run begins it is on disk that the next end was none in order, unless it says so itself */
		if (closing_flush())
			(void) state_local_write(false, true);
	}
	else
		for (int i = 0; i < n; i++)
		{
			forget(partitions[i]);
			if (partitions[i]->stateless)
				continue;		/* tried again as soon as there is something new */
			partitions[i]->retry_at = scheduler.boot + RETRY_TAKE_OVER_US;
			scheduler_wake_at(partitions[i]->retry_at);
		}
}

static void
take_over(Partition **partitions, int n)
{
	Partition  *in_etcd[DSCHED_MAX_PARTITIONS];
	Partition  *local[DSCHED_MAX_PARTITIONS];
	int			nin_etcd = 0;
	int			nlocal = 0;

	for (int i = 0; i < n; i++)
	{
		if (partition_is_local(partitions[i]))
			local[nlocal++] = partitions[i];
		else
			in_etcd[nin_etcd++] = partitions[i];
	}
	if (nin_etcd > 0)
		state_etcd_take_over(in_etcd, nin_etcd);
	if (nlocal > 0)
		take_over_locally(local, nlocal);
}

void
partition_activate(Partition *partition)
{
	partition->step = STEP_ACTIVE;
	partition->declined = false;
	partition_consider(partition);
	codec_state_free(&partition->taken);
	codec_state_free(&partition->history);
	partition_free_triggers(partition);
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (scheduler.slot->partitions[partition->number].phase == PARTITION_OWNED)
		scheduler.slot->partitions[partition->number].phase = PARTITION_ACTIVE;
	LWLockRelease(dsched_shared->control_lock);
	partition_touch(partition);
	scheduler_wake_at(scheduler.boot);
}

/* ---- handing over ----------------------------------------------------------------------------- */

static void
withdraw_queued(Partition *partition)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
		(void) run_withdraw(dlist_container(OpenRun, in_partition, iter.cur));
}

static void
begin_drain(Partition *partition)
{
	int64		patience = scheduler.stopping ? INT64CONST(2000000) : dsched_drain_timeout * INT64CONST(1000);

	partition->step = STEP_DRAINING;
	partition->drain_until = scheduler.boot + patience;
	partition->cancelling = scheduler.stopping;
	if (!partition->behind && watermark_may_move())
	{
		partition->watermark = Max(partition->watermark, scheduler.now);
		partition->watermark_job = KEYS_MAX_ID;
	}
	timetable_each(partition->number, unplan, NULL);
	withdraw_queued(partition);
	if (scheduler.stopping)
	{
		/* fenced first, so that they end as lost, to be made again, and not as cancelled by somebody */
		pg_atomic_write_u64(&scheduler.slot->partitions[partition->number].epoch, 0);
		pg_memory_barrier();
		dsched_cancel_runs(scheduler.db, partition->number);
	}
}

static bool
has_queued_runs(Partition *partition)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
		if (dlist_container(OpenRun, in_partition, iter.cur)->queued)
			return true;
	return false;
}

static void
continue_drain(Partition *partition)
{
	scheduler.draining = true;
	if (has_queued_runs(partition))
	{
		if (scheduler.boot < partition->drain_until)
		{
			scheduler_wake_at(partition->drain_until);
			return;
		}
		if (!scheduler.stopping)
		{
			partition->step = STEP_HANDING;
			partition->dirty = true;
			return;
		}
	}
	/* from here on nothing of this partition can commit on this instance */
	pg_atomic_write_u64(&scheduler.slot->partitions[partition->number].epoch, 0);
	pg_memory_barrier();
	if (dsched_committing(scheduler.db, partition->number))
	{
		scheduler_wake_at(scheduler.boot + 1000);
		return;
	}
	dispatch_finished();
	partition->step = STEP_FINAL;
	partition->dirty = true;
}

/*
 * The state says of each run that is under way that it goes on.  Until now the epoch was its right, so that whatever had become of us
 * the state in etcd and the right of the run would have agreed; from here on the session is, and whoever owns the partition next asks us
 * for the outcome.  One that has ended meanwhile is asked for, too: its row tells.
 */
void
partition_handed_over(Partition *partition)
{
	dsched_bind_runs(scheduler.db, partition->number, partition->epoch);
	pg_atomic_write_u64(&scheduler.slot->partitions[partition->number].epoch, 0);
	pg_memory_barrier();
	reports_handed_over(partition);
	partition_released(partition);
}

/* The last state is safe, or cannot be written. */
void
partition_released(Partition *partition)
{
	forget(partition);
	set_phase(partition, PARTITION_RELEASED);
}

static void
write_last_state(Partition *partition)
{
	if (partition->writing)
		return;
	/* when the server stops, the states of local ones are written together, at the very end */
	if (partition_is_local(partition))
	{
		if (!scheduler.stopping && closing_flush() && state_local_write(false, true))
			partition_released(partition);
		return;
	}
	/* while it hands over alive it does not give up: what the runs would end as hangs on this state */
	if (partition->step == STEP_HANDING)
		partition->dirty = true;
	else if (!partition->dirty || scheduler.boot > partition->drain_until + INT64CONST(5000000))
	{
		partition_released(partition);
		return;
	}
	if (partition->retry_at > scheduler.boot)
	{
		scheduler_wake_at(partition->retry_at);
		return;
	}
	if (closing_flush())
		state_etcd_write(&partition, 1, true);
}

/* ---- each turn --------------------------------------------------------------------------------- */

static void
follow_phases(const PartitionPhase *phases, const uint64 *epochs)
{
	Partition  *taken[DSCHED_MAX_PARTITIONS];
	int			n = 0;
	int			lost = 0;
	uint64		session = pg_atomic_read_u64(&dsched_shared->session);

	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];
		bool		ours = phases[i] == PARTITION_OWNED || phases[i] == PARTITION_ACTIVE;
		/* standalone nobody else gets it: whoever stops keeps the account until it is written */
		bool		keep = scheduler.stopping && partition_is_local(partition);
		bool		ready = scheduler.ready;

		if (partition->number == place_each())
			ready = (ready || !partition->stateless) && sync_may_run_locally();

		if (partition->step != STEP_NONE && partition->step != STEP_FINAL && partition->step != STEP_DRAINING &&
			partition->step != STEP_HANDING && !keep && (phases[i] == PARTITION_NONE || epochs[i] != partition->epoch))
		{
			partition_lost(partition, "its lease or its owner key ended");
			lost++;
		}
		else if (partition->step == STEP_ACTIVE && !partition_is_local(partition) && session != 0 &&
				 session != partition->session)
		{
			/* a coordinator after another goes on with the owner key, under a session of its own: taken over anew */
			forget(partition);
			lost++;
		}
		else if ((partition->step == STEP_FINAL || partition->step == STEP_DRAINING || partition->step == STEP_HANDING) &&
				 !keep && phases[i] == PARTITION_NONE)
			forget(partition);

		if (partition->step != STEP_NONE || !ours || !settling_holds(i))
			partition->held_since = 0;
		else if (epochs[i] != 0 && !scheduler.stopping && ready && !partition_is_local(partition))
			leave_held(partition);
		if (partition->step == STEP_NONE && ours && epochs[i] != 0 && !scheduler.stopping && ready &&
			partition->retry_at <= scheduler.boot && settling_allows(i))
		{
			partition->held_since = 0;
			partition->epoch = epochs[i];
			partition->session = partition_is_local(partition) ? DSCHED_STANDALONE_TOKEN : session;
			partition->step = STEP_READING;
			taken[n++] = partition;
		}
		if (partition->step == STEP_NONE && phases[i] == PARTITION_RELEASING)
		{
			pg_atomic_write_u64(&scheduler.slot->partitions[i].epoch, 0);
			set_phase(partition, PARTITION_RELEASED);
		}
		if (scheduler.stopping || phases[i] == PARTITION_RELEASING)
		{
			/* one that is being handed over does not wait any longer when the server stops */
			if (partition->step == STEP_ACTIVE ||
				(scheduler.stopping && !partition->cancelling &&
				 (partition->step == STEP_DRAINING || partition->step == STEP_HANDING)))
				begin_drain(partition);
			else if (partition->step == STEP_READING || partition->step == STEP_BEHIND ||
					 partition->step == STEP_CLAIMING)
			{
				/* what is in etcd is still the former owner's account, and right */
				pg_atomic_write_u64(&scheduler.slot->partitions[i].epoch, 0);
				partition_released(partition);
			}
		}
		if (partition->step == STEP_DRAINING)
			continue_drain(partition);
		if (partition->step == STEP_FINAL || partition->step == STEP_HANDING)
			write_last_state(partition);
	}
	if (lost > 0)
		ereport(LOG,
				(errmsg("dsched: %d partitions of database \"%s\" are not ours any more", lost, scheduler.dbname)));
	if (n > 0)
		take_over(taken, n);
	show_declined();
}

void
partitions_turn(void)
{
	PartitionPhase phases[DSCHED_MAX_PARTITIONS];
	uint64		epochs[DSCHED_MAX_PARTITIONS];

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < places_all(); i++)
	{
		phases[i] = scheduler.slot->partitions[i].phase;
		epochs[i] = pg_atomic_read_u64(&scheduler.slot->partitions[i].epoch);
	}
	LWLockRelease(dsched_shared->control_lock);
	follow_phases(phases, epochs);
}

bool
partitions_idle(void)
{
	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (partition->step == STEP_NONE)
			continue;
		if (partition->step != STEP_ACTIVE || partition->writing || (!partition_is_local(partition) && partition->dirty))
			return false;
	}
	return true;
}

/* ---- the account -------------------------------------------------------------------------------- */

static void
describe_range(SlotRange *range, PartitionState *out)
{
	PendingRun *pending = &out->pending[out->npending];
	SlotRule	rule = range_rule(range);
	TimestampTz newest;

	if (out->npending >= CODEC_MAX_ENTRIES)
		return;
	memset(pending, 0, sizeof(*pending));
	pending->job_id = range->job->job_id;
	pending->gen = range->gen;
	pending->slot = range->next;
	pending->slots = (int32) Min(slot_count(&rule, range->next, range->last, &newest, NULL), PG_INT32_MAX);
	pending->slot_to = Max(newest, range->next);
	pending->trigger_id = range->trigger_id;
	strlcpy(pending->reason, run_reason_name(range->reason), sizeof(pending->reason));
	out->npending++;
}

static void
describe_open_run(OpenRun *run, PartitionState *out)
{
	PendingRun *pending = &out->pending[out->npending];

	if (out->npending >= CODEC_MAX_ENTRIES)
		return;
	memset(pending, 0, sizeof(*pending));
	pending->job_id = run->key.job_id;
	pending->gen = run->gen;
	pending->slot = pending->slot_to = run->key.scheduled_for;
	pending->slots = 1;
	pending->trigger_id = run->key.trigger_id;
	pending->attempt = run->key.attempt;
	pending->failures = run->failures;
	pending->lost = run->lost;
	pending->not_before = run->not_before;
	if (run->remote != 0)
		pending->session = run->remote;
	else if (run_is_running(run))
		pending->session = (int64) scheduler.partitions[run->partition].session;
	pending->handed_over = pending->session != 0 &&
		(run->remote != 0 || run->bound || scheduler.partitions[run->partition].step == STEP_HANDING);
	strlcpy(pending->reason, run_reason_name(run->reason), sizeof(pending->reason));
	out->npending++;
}

/* How far those jobs are that are ahead of the watermark, as others are blocked; fewer than before, perhaps, as it has moved. */
static void
describe_ahead(Partition *partition, PartitionState *out)
{
	dlist_iter	iter;

	out->done = palloc(sizeof(PendingRun) * CODEC_MAX_ENTRIES);
	partition->nahead = 0;
	partition->ahead_round++;
	dlist_foreach(iter, &partition->jobs)
	{
		Job		   *job = dlist_container(Job, in_partition, iter.cur);
		PendingRun *done = &out->done[out->ndone];

		if (job->opened < partition->watermark || out->ndone >= CODEC_MAX_ENTRIES ||
			(job->opened == partition->watermark && job->job_id <= partition->watermark_job))
			continue;
		job->ahead = partition->ahead_round;
		partition->nahead++;
		memset(done, 0, sizeof(*done));
		done->job_id = job->job_id;
		done->gen = job->gen;
		done->slot = partition->watermark;
		done->slot_to = job->opened;
		done->slots = 1;
		out->ndone++;
	}
}

static void
describe_failures(Partition *partition, PartitionState *out)
{
	dlist_iter	iter;

	if (partition->nfailing == 0)
		return;
	out->failing = palloc(sizeof(FailingJob) * partition->nfailing);
	dlist_foreach(iter, &partition->failing)
	{
		JobExtra   *extra = dlist_container(JobExtra, in_failing, iter.cur);

		if (out->nfailing >= Min(partition->nfailing, CODEC_MAX_ENTRIES))
			break;
		out->failing[out->nfailing].job_id = extra->job->job_id;
		out->failing[out->nfailing++].failures = extra->failures;
	}
}

void
partition_describe(Partition *partition, bool clean, PartitionState *out)
{
	dlist_iter	iter;

	memset(out, 0, sizeof(*out));
	strlcpy(out->node, dsched_my_node(), sizeof(out->node));
	out->epoch = (int64) partition->epoch;
	out->seq = partition->seq;
	out->jobrev = partition->jobrev;
	out->watermark = partition->watermark;
	out->watermark_job = partition->watermark_job;
	if (scheduler.etcd != NULL)
	{
		out->system_identifier = GetSystemIdentifier();
		out->timeline = GetWALInsertionTimeLine();
		out->since = partition->since;
	}
	out->clean = clean;
	out->pending = palloc(sizeof(PendingRun) * Min(partition->nopen + 1, CODEC_MAX_ENTRIES));
	if (partition->behind)
		describe_ahead(partition, out);
	dlist_foreach(iter, &partition->ranges)
		describe_range(dlist_container(SlotRange, in_partition, iter.cur), out);
	/* a request to run it now has its own key, which opens it again: it must not take a slot's place */
	for (int requests = 0; requests < 2; requests++)
		dlist_foreach(iter, &partition->open)
		{
			OpenRun    *run = dlist_container(OpenRun, in_partition, iter.cur);

			if ((run->key.trigger_id != 0 && !run->of_backfill) == (requests == 1))
				describe_open_run(run, out);
		}
	describe_failures(partition, out);
}

/* Writes the table's copy when it is due. */
static bool
checkpoint_local(bool now)
{
	static int64 not_before = 0;
	int64		began;
	bool		written;

	if (local_state_at == 0 || (!now && Max(local_state_at, not_before) > scheduler.boot))
	{
		if (local_state_at != 0)
			scheduler_wake_at(Max(local_state_at, not_before));
		return true;
	}
	began = dsched_boot_now();
	written = state_local_write(now && scheduler.stopping, now && scheduler.stopping);
	/* the more waits the longer it takes, and the less often it is done: a small part of our time in any case */
	not_before = scheduler.boot + Min((dsched_boot_now() - began) * LOCAL_STATE_REST, LOCAL_STATE_INTERVAL_US);
	local_state_at = written ? 0 : scheduler.boot + LOCAL_STATE_INTERVAL_US;
	if (local_state_at != 0)
		scheduler_wake_at(local_state_at);
	return written;
}

/* Were all slots up to now looked at in this turn? */
bool
watermark_may_move(void)
{
	return !scheduler.held && pg_atomic_read_u32(&dsched_shared->clock_suspect) == 0;
}

/*
 * Writes what changed.  Partitions in which nothing came due for long go along with it: a recent watermark means that
 * little has to be looked back at when they are taken over.
 */
static void
checkpoint_etcd(void)
{
	Partition  *dirty[DSCHED_MAX_PARTITIONS];
	int			n = 0;

	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if (partition->step == STEP_ACTIVE && !partition_is_local(partition) && !partition->behind &&
			!partition->dirty && watermark_may_move() && scheduler.now - partition->watermark > QUIET_WATERMARK_US)
		{
			partition->watermark = scheduler.now;
			partition->watermark_job = KEYS_MAX_ID;
			partition->dirty = true;
		}
	}

	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];

		if ((partition->step != STEP_ACTIVE && partition->step != STEP_DRAINING && partition->step != STEP_CLAIMING) ||
			partition_is_local(partition) || !partition->dirty ||
			partition->writing)
			continue;
		if (partition->retry_at > scheduler.boot)
		{
			/* nothing else may come that asks for a checkpoint */
			if (scheduler.checkpoint_at == 0 || partition->retry_at < scheduler.checkpoint_at)
				scheduler.checkpoint_at = partition->retry_at;
			scheduler_wake_at(partition->retry_at);
			continue;
		}
		dirty[n++] = partition;
	}
	if (n > 0)
		state_etcd_write(dirty, n, false);
}

void
partitions_checkpoint(bool now)
{
	bool		due = now || (scheduler.checkpoint_at != 0 && scheduler.checkpoint_at <= scheduler.boot);

	/* rows first: a state must not know more than the table */
	if (!closing_flush())
		return;
	(void) checkpoint_local(now);
	if (due)
	{
		scheduler.checkpoint_at = 0;
		if (scheduler.etcd != NULL)
			checkpoint_etcd();
	}
	else if (scheduler.checkpoint_at != 0)
		scheduler_wake_at(scheduler.checkpoint_at);
}
