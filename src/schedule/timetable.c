/*
 * timetable.c
 *	  The jobs of a scheduler in memory: by id, by name, and in a heap of their next slots.
 *
 * A job is in the heap only while its partition is active, it is not paused and its definition can be
 * understood; so the heap's top is the next thing to happen and nothing is looked at before it is due.
 *
 * A version of a definition with the same generation changes nothing about the slots.  A new generation ends the old
 * one: its slots up to now are opened first, then what has not started is closed as skipped, so
 * that every slot of the old generation has its outcome.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define SLAB_BLOCK (64 * 1024)

static MemoryContext name_texts;
static HTAB *jobs = NULL;		/* of Job */
static HTAB *names = NULL;		/* of Job *, by the names of what it points to */
static Heap heap;
static JobWork no_work;			/* of all jobs of which nothing is open; its job is NULL */

static void *grow_heap(void *old, size_t bytes);
static uint32 name_hash(const void *key, Size keysize);
static int	name_match(const void *a, const void *b, Size keysize);
static void set_definition(Job *job, const JobRow *row, bool applied);
static void free_definition(Job *job);
static void forget_name(const Job *job);

/* A piece that is never freed keeps the first block, which else would come and go with each run. */
static MemoryContext
make_slab(const char *name, Size size)
{
	MemoryContext slab = SlabContextCreate(scheduler.context, name, SLAB_BLOCK, MAXALIGN(size));

	(void) MemoryContextAlloc(slab, MAXALIGN(size));
	return slab;
}

void
timetable_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Job);
	ctl.hcxt = scheduler.context;
	jobs = hash_create("dsched jobs", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Job *);
	ctl.entrysize = sizeof(Job *);
	ctl.hash = name_hash;
	ctl.match = name_match;
	ctl.hcxt = scheduler.context;
	names = hash_create("dsched job names", 256, &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	name_texts = AllocSetContextCreate(scheduler.context, "dsched name texts", ALLOCSET_DEFAULT_SIZES);

	scheduler.runs = make_slab("dsched open runs", sizeof(OpenRun));
	scheduler.works = make_slab("dsched works", sizeof(JobWork));

	minheap_init(&heap, grow_heap);
	dlist_init(&no_work.open);
	dlist_init(&no_work.ranges);
	StaticAssertStmt(offsetof(Job, job_id) == 0 && offsetof(HeapNode, id) == 0, "a job is hashed by its node's id");
	StaticAssertStmt(DSCHED_MAX_PARTITIONS <= PG_INT16_MAX, "partitions are numbered by an int16");
}

static void *
grow_heap(void *old, size_t bytes)
{
	if (old == NULL)
		return MemoryContextAllocHuge(scheduler.context, bytes);
	return repalloc_huge(old, bytes);
}

static uint32
name_hash(const void *key, Size keysize)
{
	const Job  *job = *(Job *const *) key;

	return (uint32) keys_hash(job->job_name, strlen(job->job_name), keys_hash(job->username, strlen(job->username), 0));
}

static int
name_match(const void *a, const void *b, Size keysize)
{
	const Job  *x = *(Job *const *) a;
	const Job  *y = *(Job *const *) b;

	return strcmp(x->job_name, y->job_name) != 0 || strcmp(x->username, y->username) != 0;
}

Heap *
timetable_heap(void)
{
	return &heap;
}

int
timetable_count(void)
{
	return (int) hash_get_num_entries(jobs);
}

Job *
timetable_find(int64 job_id)
{
	return hash_search(jobs, &job_id, HASH_FIND, NULL);
}

Job *
timetable_find_name(const char *username, const char *job_name)
{
	Job			like = {.username = username, .job_name = job_name};
	const Job  *key = &like;
	Job		  **entry = hash_search(names, &key, HASH_FIND, NULL);

	return entry != NULL ? *entry : NULL;
}

/* ---- what belongs to a job --------------------------------------------------------------------------- */

SlotRule
job_rule(const Job *job)
{
	/* of a definition that cannot be understood: it has no times */
	static const CronSchedule nothing;
	SlotRule	rule = {.one_shot = job->one_shot};

	if (job->one_shot)
		rule.run_at = job->base;
	else
	{
		rule.cron = job->pattern != NULL ? &job->pattern->key.cron : &nothing;
		rule.tz = job->pattern != NULL ? job->pattern->key.tz : NULL;
		rule.anchor = job->base;
	}
	rule.slots_from = job->slots_from;
	if (job->bounds != NULL)
	{
		rule.starts_at = job->bounds->starts_at;
		rule.expires_at = job->bounds->expires_at;
		rule.last_slot = job->bounds->last_slot;
	}
	rule.job_id = job->job_id;
	rule.jitter = job->policy->jitter;
	return rule;
}

JobWork *
job_work(Job *job)
{
	JobWork    *work = job->work;

	if (work != &no_work)
		return work;
	work = job->work = MemoryContextAllocZero(scheduler.works, MAXALIGN(sizeof(JobWork)));
	work->job = job;
	dlist_init(&work->open);
	dlist_init(&work->ranges);
	return work;
}

/* Not where its lists are being walked. */
void
job_work_done(Job *job)
{
	JobWork    *work = job->work;

	if (work == &no_work || work->advancing || !dlist_is_empty(&work->open) || !dlist_is_empty(&work->ranges))
		return;
	job->work = &no_work;
	pfree(work);
}

JobExtra *
job_extra(Job *job)
{
	if (job->extra == NULL)
	{
		job->extra = MemoryContextAllocZero(scheduler.context, sizeof(JobExtra));
		job->extra->job = job;
	}
	return job->extra;
}

/* ---- definitions ------------------------------------------------------------------------------------- */

/* It is no job of its partition any more, or begins anew. */
static void
job_not_ahead(Job *job)
{
	Partition  *partition = &scheduler.partitions[job->partition];

	if (job->ahead == partition->ahead_round)
		partition->nahead--;
	job->ahead = 0;
}

static void
forget_name(const Job *job)
{
	Job		  **entry = hash_search(names, &job, HASH_FIND, NULL);

	if (entry != NULL && *entry == job)
		hash_search(names, &job, HASH_REMOVE, NULL);
}

/* Whoever has had the name is not there any more. */
static void
enter_name(Job *job)
{
	bool		found;
	Job		  **entry = hash_search(names, &job, HASH_ENTER, &found);

	if (found && *entry != job)
	{
		timetable_remove((*entry)->job_id);
		entry = hash_search(names, &job, HASH_ENTER, NULL);
	}
	*entry = job;
}

/* What the definition has taken: for another, or for none. */
static void
free_definition(Job *job)
{
	forget_name(job);
	common_role_free(job->username);
	pfree(unconstify(char *, job->job_name));
	common_policy_free(job->policy);
	if (job->pattern != NULL)
		common_pattern_free(job->pattern);
	if (job->bounds != NULL)
		pfree(unconstify(JobBounds *, job->bounds));
	job->pattern = NULL;
	job->bounds = NULL;
	placement_leave(job->partition);
	if (job->extra != NULL && job->extra->run_on != NULL)
	{
		pfree(job->extra->run_on);
		job->extra->run_on = NULL;
	}
	dlist_delete(&job->in_partition);
}

static void
set_bounds(Job *job, const JobRow *row)
{
	JobBounds  *bounds;

	if (row->starts_at == 0 && row->expires_at == 0 && row->last_slot == 0)
		return;
	bounds = MemoryContextAlloc(scheduler.context, sizeof(JobBounds));
	bounds->starts_at = row->starts_at;
	bounds->expires_at = row->expires_at;
	bounds->last_slot = row->last_slot;
	job->bounds = bounds;
}

/* Copies what the row says into the job, and sets its name and partition. */
static void
set_definition(Job *job, const JobRow *row, bool applied)
{
	char	   *problem = NULL;
	char		name[DSCHED_MAX_JOB_NAME + 1];
	SlotRule	rule;

	job->username = common_role(row->username);
	strlcpy(name, row->job_name, sizeof(name));
	job->job_name = MemoryContextStrdup(name_texts, name);
	enter_name(job);

	job->partition = placement_enter(row->run_on, job->username, job->job_name);
	if (job->partition == place_nowhere())
		job_extra(job)->run_on = MemoryContextStrdup(scheduler.context, row->run_on);
	dlist_push_tail(&scheduler.partitions[job->partition].jobs, &job->in_partition);
	job->gen = row->gen;
	job->gen_rev = row->gen_rev > 0 ? row->gen_rev : row->mod_revision;
	job->mod_revision = row->mod_revision;
	job->policy = common_policy(&row->policy);
	job->queue = throttle_find(row->queue, job->username);
	job->active = row->active;
	job->applied = applied;
	job->pausing = false;
	job->usable = slot_rule_make(row, &rule, &problem);
	job->one_shot = rule.one_shot;
	job->base = rule.one_shot ? rule.run_at : rule.anchor;
	job->slots_from = rule.slots_from;
	set_bounds(job, row);
	if (job->usable && !rule.one_shot)
	{
		job->pattern = common_pattern(&rule);
		pfree(unconstify(CronSchedule *, rule.cron));
	}
	/* one that can run again loses the mark when it does; why a job was paused stays */
	job->role_problem = row->problem != NULL && job->usable && job->active;
	job->start_problem = false;
	if (!job->usable)
		sync_problem(job->job_id, problem);
	else if (job->partition == place_nowhere())
	{
		if (row->problem == NULL || strcmp(row->problem, placement_problem()) != 0)
			sync_problem(job->job_id, placement_problem());
	}
	else
		sync_problem_is(job->job_id, row->problem);
}

/* Is what the row says another place than where the job is? */
static bool
is_moved(const Job *job, const JobRow *row)
{
	int			partition = placement_enter(row->run_on, row->username, row->job_name);

	placement_leave(partition);
	return partition != job->partition;
}

void
timetable_replace(Job *job)
{
	char	   *run_on = job->extra->run_on;
	int			partition = placement_enter(run_on, job->username, job->job_name);

	if (partition == place_nowhere())
	{
		placement_leave(partition);
		return;
	}
	placement_leave(job->partition);
	dlist_delete(&job->in_partition);
	job->partition = partition;
	dlist_push_tail(&scheduler.partitions[partition].jobs, &job->in_partition);
	pfree(run_on);
	job->extra->run_on = NULL;
	if (job->usable)
		sync_problem(job->job_id, NULL);
	timetable_plan(job, PG_INT64_MIN);
}

Job *
timetable_put(const JobRow *row, bool applied)
{
	bool		known;
	Job		   *job = hash_search(jobs, &row->job_id, HASH_ENTER, &known);
	bool		new_generation = true;
	TimestampTz blocked_slot = 0;
	dlist_iter	iter;

	if (!known)
	{
		memset(job, 0, sizeof(Job));
		minheap_node_init(&job->next);
		job->job_id = row->job_id;
		job->work = &no_work;
	}
	else
	{
		new_generation = job->gen != row->gen;
		if (new_generation)
		{
			/* what came due until the new one begins belongs to the old generation */
			TimestampTz until = Min(row->slots_from, dsched_wall_now());
			bool		moved = is_moved(job, row);

			/* a job that moves does so at a moment that is still to come, so that we have heard of it by then */
			if (moved && scheduler.etcd != NULL)
				until = Min(row->slots_from, dsched_wall_now() + 2 * place_move_margin());

			if (job->next.index >= 0)
				dispatch_job_until(job, job->next_slot, Min(until, dsched_wall_now()), NULL);
			if (job->next.index >= 0 && moved && !job->one_shot && job->next_slot <= until)
				(void) range_open(job, job->next_slot, until, RUN_SCHEDULE, false);
			set_failures(job, 0);
			job_not_ahead(job);
			job->opened = 0;
			end_generation(job, until, row->schedule == NULL && !moved ? row->run_at : 0, row->active ? "redefined" : "paused");
			if (moved)
				end_requests(job);
		}
		/* it may get another queue, which has room */
		if (job->blocked)
		{
			blocked_slot = job->next_slot;
			timetable_unplan(job);
		}
		free_definition(job);
	}

	{
		bool		was_usable = job->usable;
		TimestampTz held_since = job->extra != NULL ? job->extra->held_since : 0;

		set_definition(job, row, applied);
		if (!job->usable || !job->active)
		{
			timetable_unplan(job);
			if (was_usable && !job->usable)
				job_extra(job)->held_since = scheduler.now;
		}
		else if (new_generation)
			timetable_plan(job, PG_INT64_MIN);
		else if (!was_usable && held_since != 0)
			timetable_plan(job, held_since);
		else if (blocked_slot != 0)
			timetable_plan_slot(job, blocked_slot);
		if (job->usable && held_since != 0)
			job->extra->held_since = 0;
	}
	backfills_redefined(job);
	/* runs that may have been ready side by side, and in another queue, wait by what it says now */
	dlist_foreach(iter, &job->work->open)
		run_consider(dlist_container(OpenRun, in_job, iter.cur));
	job_advance_later(job);
	return job;
}

void
timetable_remove(int64 job_id)
{
	timetable_remove_as_of(job_id, dsched_wall_now());
}

void
timetable_remove_as_of(int64 job_id, TimestampTz until)
{
	Job		   *job = timetable_find(job_id);
	dlist_iter	iter;

	if (job == NULL)
		return;
	if (job->next.index >= 0)
		dispatch_job_until(job, job->next_slot, Min(until, dsched_wall_now()), NULL);
	end_generation(job, until, 0, "unscheduled");
	timetable_unplan(job);
	job_not_ahead(job);

	/* what is left runs on without its job */
	dlist_foreach(iter, &job->work->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		run->job = NULL;
		run->orphan = MemoryContextAlloc(scheduler.context, sizeof(Orphan));
		strlcpy(run->orphan->username, job->username, sizeof(run->orphan->username));
		strlcpy(run->orphan->job_name, job->job_name, sizeof(run->orphan->job_name));
	}
	set_failures(job, 0);
	if (job->work->advancing)
		dlist_delete(&job->work->to_advance);
	if (job->work != &no_work)
		pfree(job->work);
	free_definition(job);
	if (job->extra != NULL)
		pfree(job->extra);
	hash_search(jobs, &job_id, HASH_REMOVE, NULL);
}

void
timetable_unplan(Job *job)
{
	if (job->blocked)
		throttle_unblock(job);
	minheap_remove(&heap, &job->next);
}

void
timetable_plan_slot(Job *job, TimestampTz slot)
{
	if (job->blocked)
		throttle_unblock(job);
	job->next_slot = slot;
	if (slot == 0)
		minheap_remove(&heap, &job->next);
	else
	{
		SlotRule	rule = job_rule(job);

		minheap_update(&heap, &job->next, slot_due(&rule, slot), job->job_id);
	}
}

void
timetable_plan(Job *job, TimestampTz after)
{
	TimestampTz slot = 0;

	if (job->active && job->usable && partition_is_active(job->partition))
	{
		SlotRule	rule = job_rule(job);

		slot = slot_next_due(&rule, after);
	}
	timetable_plan_slot(job, slot);
}

void
timetable_each(int partition, void (*callback) (Job *job, void *arg), void *arg)
{
	for (int i = 0; i < places_all(); i++)
	{
		dlist_mutable_iter iter;

		if (partition >= 0 && partition != i)
			continue;
		dlist_foreach_modify(iter, &scheduler.partitions[i].jobs)
			callback(dlist_container(Job, in_partition, iter.cur), arg);
	}
}
