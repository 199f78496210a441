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
#include "schedule/scheduler.h"
#include "settings.h"

typedef struct NameEntry
{
	uint64		hash;			/* of role, NUL, name: 64 bits do not collide by chance */
	int64		job_id;
} NameEntry;

static HTAB *jobs = NULL;
static HTAB *names = NULL;
static Heap heap;

static void *grow_heap(void *old, size_t bytes);
static uint64 name_hash(const char *username, const char *job_name);
static void set_definition(Job *job, const JobRow *row, bool applied);
static void forget_name(const Job *job);

void
timetable_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(Job);
	ctl.hcxt = scheduler.context;
	jobs = hash_create("dsched jobs", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(NameEntry);
	ctl.hcxt = scheduler.context;
	names = hash_create("dsched job names", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	minheap_init(&heap, grow_heap);
}

static void *
grow_heap(void *old, size_t bytes)
{
	if (old == NULL)
		return MemoryContextAllocHuge(scheduler.context, bytes);
	return repalloc_huge(old, bytes);
}

static uint64
name_hash(const char *username, const char *job_name)
{
	return keys_hash(job_name, strlen(job_name), keys_hash(username, strlen(username), 0));
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
	uint64		hash = name_hash(username, job_name);
	NameEntry  *entry = hash_search(names, &hash, HASH_FIND, NULL);

	return entry ? timetable_find(entry->job_id) : NULL;
}

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
	uint64		hash = name_hash(job->username, job->job_name);
	NameEntry  *entry = hash_search(names, &hash, HASH_FIND, NULL);

	if (entry != NULL && entry->job_id == job->job_id)
		hash_search(names, &hash, HASH_REMOVE, NULL);
}

/* Copies what the row says into the job, and sets its name and partition. */
static void
set_definition(Job *job, const JobRow *row, bool applied)
{
	char	   *problem = NULL;
	NameEntry  *entry;
	uint64		hash;

	strlcpy(job->username, row->username, sizeof(job->username));
	strlcpy(job->job_name, row->job_name, sizeof(job->job_name));
	hash = name_hash(job->username, job->job_name);
	entry = hash_search(names, &hash, HASH_ENTER, NULL);
	entry->job_id = job->job_id;

	job->partition = sync_partition(job->username, job->job_name);
	dlist_push_tail(&scheduler.partitions[job->partition].jobs, &job->in_partition);
	job->gen = row->gen;
	job->gen_rev = row->gen_rev != 0 ? row->gen_rev : row->mod_revision;
	job->mod_revision = row->mod_revision;
	job->policy = row->policy;
	strlcpy(job->queue, row->queue ? row->queue : "", sizeof(job->queue));
	job->active = row->active;
	job->applied = applied;
	job->pausing = false;
	job->role_checked = 0;
	job->usable = slot_rule_make(row, &job->rule, &problem);
	/* one that can run again loses the mark when it does; why a job was paused stays */
	job->role_problem = row->problem != NULL && job->usable && job->active;
	job->start_problem = false;
	if (!job->usable)
		sync_problem(job->job_id, problem);
}

Job *
timetable_put(const JobRow *row, bool applied)
{
	Job		   *job = timetable_find(row->job_id);
	Job		   *namesake = timetable_find_name(row->username, row->job_name);
	bool		new_generation = true;

	if (namesake != NULL && namesake->job_id != row->job_id)
		timetable_remove(namesake->job_id);

	if (job == NULL)
	{
		job = hash_search(jobs, &row->job_id, HASH_ENTER, NULL);
		memset((char *) job + sizeof(int64), 0, sizeof(Job) - sizeof(int64));
		minheap_node_init(&job->next);
		dlist_init(&job->open);
		dlist_init(&job->ranges);
	}
	else
	{
		new_generation = job->gen != row->gen;
		if (new_generation)
		{
			/* what came due until the new one begins belongs to the old generation */
			TimestampTz until = Min(row->slots_from, dsched_wall_now());

			if (job->next.index >= 0)
				dispatch_job_until(job, job->next_slot, until, NULL);
			set_failures(job, 0);
			job_not_ahead(job);
			job->opened = 0;
			end_generation(job, until, row->schedule == NULL ? row->run_at : 0, row->active ? "redefined" : "paused");
		}
		forget_name(job);
		dlist_delete(&job->in_partition);
	}

	{
		bool		was_usable = job->usable;
		TimestampTz held_since = job->held_since;

		set_definition(job, row, applied);
		if (!job->usable || !job->active)
		{
			timetable_unplan(job);
			if (was_usable && !job->usable)
				job->held_since = scheduler.now;
		}
		else if (new_generation)
			timetable_plan(job, PG_INT64_MIN);
		else if (!was_usable && held_since != 0)
			timetable_plan(job, held_since);
		if (job->usable)
			job->held_since = 0;
	}
	/* in another queue, perhaps, which has room */
	if (job->blocked != NULL)
		timetable_plan_slot(job, job->next_slot);
	backfills_redefined(job);
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
	dlist_foreach(iter, &job->open)
	{
		OpenRun    *run = dlist_container(OpenRun, in_job, iter.cur);

		run->job = NULL;
		run->orphan = MemoryContextAlloc(scheduler.context, sizeof(Orphan));
		strlcpy(run->orphan->username, job->username, sizeof(run->orphan->username));
		strlcpy(run->orphan->job_name, job->job_name, sizeof(run->orphan->job_name));
	}
	set_failures(job, 0);
	if (job->advancing)
		dlist_delete(&job->to_advance);
	forget_name(job);
	dlist_delete(&job->in_partition);
	hash_search(jobs, &job_id, HASH_REMOVE, NULL);
}

void
timetable_unplan(Job *job)
{
	if (job->blocked != NULL)
		throttle_unblock(job);
	minheap_remove(&heap, &job->next);
}

void
timetable_plan_slot(Job *job, TimestampTz slot)
{
	if (job->blocked != NULL)
		throttle_unblock(job);
	job->next_slot = slot;
	if (slot == 0)
		minheap_remove(&heap, &job->next);
	else
		minheap_update(&heap, &job->next, slot_due(&job->rule, slot), job->job_id);
}

void
timetable_plan(Job *job, TimestampTz after)
{
	TimestampTz slot = 0;

	if (job->active && job->usable && partition_is_active(job->partition))
		slot = slot_next_due(&job->rule, after);
	timetable_plan_slot(job, slot);
}

void
timetable_each(int partition, void (*callback) (Job *job, void *arg), void *arg)
{
	for (int i = 0; i < dsched_partitions; i++)
	{
		dlist_mutable_iter iter;

		if (partition >= 0 && partition != i)
			continue;
		dlist_foreach_modify(iter, &scheduler.partitions[i].jobs)
			callback(dlist_container(Job, in_partition, iter.cur), arg);
	}
}
