/*
 * waiting.c
 *	  Open runs on their way into the shared queue: in their order, at their time, within the limits of their queues.
 *
 * An open run that could be started is in one of these heaps:
 *
 *	  later_wall	until a wall time: a retry, a slot of a clock that is ahead of ours
 *	  later_boot	until a time of the clock that never steps: something failed and is tried again
 *	  careful		one of those that are started one at a time after a crash
 *	  ready			of its throttle queue, by rank (order.c); the jobs of a role without a queue have one without limits
 *
 * and in none while it waits for something of which run_consider() is told: a run of its job before it, its job's definition, its
 * partition.  So a turn costs by what moves, not by what waits.
 *
 * Of the queues that may start a run, that goes on which has the fewest with executors or on the way to them; so when the shared queue
 * is full, all of them have an equal part of it, and a flood of one role or queue keeps no other waiting.
 *
 * Throttle queues (dsched.create_queue).  max_running bounds the runs of its jobs that this instance has handed to executors and
 * not got back; rate_limit their starts in any window of length "per", exactly, by the times of the last rate_limit starts (a process
 * that has just begun knows of none).  With scope cluster each owner has a share.  Of max_running n the owner that is number k of m by name has
 * n * (k + 1) / m - n * k / m, so that the shares differ by one at most and add up to n; but one at least, or its jobs would never run, so
 * with fewer permits than owners there are as many as owners.  Of a rate each has as much as it has of the partitions.  When owners come or go,
 * what runs already runs on, and for the moment until all have heard of it the shares may add up to more.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "delivery.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

#define RETRY_LATER_US INT64CONST(1000000)
/* Before the name of a role; no queue's name has it in it. */
#define OWN_QUEUE '\001'
#define QUEUE_KEY_LEN (Max(POLICY_MAX_QUEUE, NAMEDATALEN) + 1)
/* So many are started of one queue before the others are looked at again. */
#define START_BATCH 16
/* How long a recovered run is alone: what kills a server does it soon, and long runs must not hold up the others. */
#define CAREFUL_ALONE_US INT64CONST(500000)

struct ThrottleQueue
{
	char		name[QUEUE_KEY_LEN];	/* hash key; with OWN_QUEUE before it that of a role, for its jobs without a queue */
	Heap		ready;
	int			running;		/* handed to executors */
	dlist_head	handed;			/* those */
	bool		awaited;		/* the end of each of those is, as another run has to wait for one */
	bool		limited;
	int32		max_running;	/* our share; 0: no limit */
	int32		rate_limit;
	int64		per;
	TimestampTz *starts;		/* ring of the last rate_limit starts */
	int			nstarts;
	int			next_start;
	int		   *open;			/* by partition: runs and ranges */
	Heap	   *blocked;		/* by partition: jobs (Job.next) that wait for room in it */
};

static Heap later_wall;
static Heap later_boot;
static Heap careful;
static Heap rightless;			/* the session has lapsed; runs of local partitions go on meanwhile */
static HTAB *queues = NULL;
static uint64 queues_version = 0;
/* when the shares were computed */
static int	owned_partitions = -1;
static int	owners = 1;
static int	owners_before = 0;
static bool no_room = false;	/* runs wait that found the shared queue full */
static int64 sequence = 0;		/* of runs that became ready, for equal ranks */

static void *
grow_heap(void *old, size_t bytes)
{
	if (old == NULL)
		return MemoryContextAllocHuge(scheduler.context, bytes);
	return repalloc_huge(old, bytes);
}

void
waiting_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(((ThrottleQueue *) NULL)->name);
	ctl.entrysize = sizeof(ThrottleQueue);
	ctl.hcxt = scheduler.context;
	queues = hash_create("dsched queues", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	minheap_init(&later_wall, grow_heap);
	minheap_init(&later_boot, grow_heap);
	minheap_init(&careful, grow_heap);
	minheap_init(&rightless, grow_heap);
	dlist_init(&scheduler.advancing);
}

static OpenRun *
run_at_top(const Heap *heap)
{
	HeapNode   *node = minheap_peek(heap);

	return node != NULL ? (OpenRun *) ((char *) node - offsetof(OpenRun, wait)) : NULL;
}

/* ---- throttle queues ------------------------------------------------------------------------------ */

static int
count_owned_partitions(void)
{
	int			n = 0;

	for (int i = 0; i < dsched_partitions; i++)
		n += scheduler.partitions[i].step == STEP_ACTIVE;
	return n;
}

/* How many own partitions, and how many of these are before us by name. */
static void
count_owners(int *count, int *before_us)
{
	const char *us = dsched_my_node();
	const char *names[DSCHED_MAX_PARTITIONS];
	int			n = 0;

	*count = 1;
	*before_us = 0;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (int i = 0; i < places_shared(); i++)
	{
		const char *owner = scheduler.slot->partitions[i].owner;
		int			k = 0;

		if (owner[0] == '\0' || strcmp(owner, us) == 0)
			continue;
		while (k < n && strcmp(names[k], owner) != 0)
			k++;
		if (k < n)
			continue;
		names[n++] = owner;
		*before_us += strcmp(owner, us) < 0;
	}
	LWLockRelease(dsched_shared->control_lock);
	*count += n;
}

/* Our part of a limit of the whole cluster. */
static int32
share_of_permits(int32 permits)
{
	int32		share = (int32) ((int64) permits * (owners_before + 1) / owners - (int64) permits * owners_before / owners);

	return Max(share, 1);
}

/* The ring of starts for another limit, with the latest of those that are known. */
static void
resize_starts(ThrottleQueue *queue, int32 rate_limit)
{
	TimestampTz *starts;
	int			kept = Min(queue->nstarts, rate_limit);

	if (rate_limit == queue->rate_limit)
		return;
	starts = rate_limit > 0 ? MemoryContextAllocHuge(scheduler.context, sizeof(TimestampTz) * rate_limit) : NULL;
	for (int i = 0; i < kept; i++)
		starts[i] = queue->starts[(queue->next_start + queue->rate_limit - kept + i) % queue->rate_limit];
	if (queue->starts != NULL)
		pfree(queue->starts);
	queue->starts = starts;
	queue->rate_limit = rate_limit;
	queue->nstarts = kept;
	queue->next_start = rate_limit > 0 ? kept % rate_limit : 0;
}

static void
set_limits(ThrottleQueue *queue)
{
	const QueueLimits *limits = queue->name[0] != OWN_QUEUE ? sync_queue(queue->name) : NULL;
	int32		rate_limit = limits != NULL ? limits->rate_limit : 0;
	int64		per = limits != NULL ? limits->per : 0;

	queue->max_running = limits != NULL ? limits->max_running : 0;
	if (limits != NULL && limits->cluster && scheduler.etcd != NULL)
	{
		if (queue->max_running > 0)
			queue->max_running = share_of_permits(queue->max_running);
		if (rate_limit > 0)
		{
			/* a part of a start is a start in a longer time */
			int64		starts = (int64) rate_limit * Max(owned_partitions, 1);

			if (starts < dsched_partitions)
				per = per * dsched_partitions / starts;
			rate_limit = Max((int32) (starts / dsched_partitions), 1);
		}
	}
	queue->limited = queue->max_running > 0 || rate_limit > 0;
	queue->per = per;
	resize_starts(queue, rate_limit);
}

static ThrottleQueue *
find_queue(const char *key)
{
	bool		found;
	ThrottleQueue *queue = hash_search(queues, key, HASH_ENTER, &found);

	if (!found)
	{
		memset((char *) queue + sizeof(queue->name), 0, sizeof(*queue) - sizeof(queue->name));
		minheap_init(&queue->ready, grow_heap);
		dlist_init(&queue->handed);
		queue->open = MemoryContextAllocZero(scheduler.context, sizeof(int) * places_all());
		queue->blocked = MemoryContextAlloc(scheduler.context, sizeof(Heap) * places_all());
		for (int i = 0; i < places_all(); i++)
			minheap_init(&queue->blocked[i], grow_heap);
		set_limits(queue);
	}
	return queue;
}

ThrottleQueue *
throttle_find(const char *name, const char *username)
{
	char		key[QUEUE_KEY_LEN];

	if (name != NULL && name[0] != '\0')
		return find_queue(name);
	snprintf(key, sizeof(key), "%c%s", OWN_QUEUE, username);
	return find_queue(key);
}

/* That of runs without a job. */
static ThrottleQueue *
queue_of_none(void)
{
	return find_queue((const char[]) {OWN_QUEUE, '\0'});
}

/* The limits and our share of them, where these may have changed. */
static void
look_at_limits(void)
{
	HASH_SEQ_STATUS status;
	ThrottleQueue *queue;
	int			owned = count_owned_partitions();
	int			count = 1;
	int			before = 0;

	if (scheduler.etcd != NULL)
		count_owners(&count, &before);
	if (queues_version == sync_queues_version() &&
		((owned == owned_partitions && count == owners && before == owners_before) || scheduler.etcd == NULL))
		return;
	queues_version = sync_queues_version();
	owned_partitions = owned;
	owners = count;
	owners_before = before;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
		set_limits(queue);
}

/* When may the next run of the queue start?  0: now; PG_INT64_MAX: when one of those that run has ended. */
static TimestampTz
next_start(const ThrottleQueue *queue)
{
	TimestampTz oldest;

	if (!queue->limited)
		return 0;
	if (queue->max_running > 0 && queue->running >= queue->max_running)
		return PG_INT64_MAX;
	if (queue->rate_limit == 0 || queue->nstarts < queue->rate_limit)
		return 0;
	oldest = queue->starts[queue->next_start];
	/* a clock that was set back must not stop it for long */
	if (oldest > scheduler.now || oldest + queue->per <= scheduler.now)
		return 0;
	return oldest + queue->per;
}

static void
note_start(ThrottleQueue *queue)
{
	if (queue->rate_limit == 0)
		return;
	queue->starts[queue->next_start] = scheduler.now;
	queue->next_start = (queue->next_start + 1) % queue->rate_limit;
	queue->nstarts = Min(queue->nstarts + 1, queue->rate_limit);
}

void
throttle_count(OpenRun *run, bool queued)
{
	if (!queued)
	{
		if (run->counted != NULL)
		{
			dlist_delete(&run->in_queue);
			if (--run->counted->running == 0)
				run->counted->awaited = false;
		}
		run->counted = NULL;
		return;
	}
	run->counted = run->job != NULL ? run->job->queue : NULL;
	if (run->counted != NULL)
	{
		run->counted->running++;
		dlist_push_tail(&run->counted->handed, &run->in_queue);
	}
}

/* ---- room in the account ---------------------------------------------------------------------------- */

ThrottleQueue *
throttle_opened(const Job *job)
{
	ThrottleQueue *queue = job->queue;

	queue->open[job->partition]++;
	return queue;
}

void
throttle_closed(ThrottleQueue *queue, int partition)
{
	queue->open[partition]--;
}

bool
throttle_may_open(const Job *job)
{
	const Partition *partition = &scheduler.partitions[job->partition];

	return partition->nslots < MAX_OPEN_RUNS_IN_ALL &&
		(!partition->behind || partition->nahead < MAX_JOBS_AHEAD) &&
		job->queue->open[job->partition] < MAX_OPEN_RUNS;
}

void
throttle_block(Job *job, TimestampTz due)
{
	Partition  *partition = &scheduler.partitions[job->partition];
	TimestampTz slot = job->next_slot;

	timetable_unplan(job);
	job->next_slot = slot;
	job->blocked = true;
	if (!minheap_insert(&job->queue->blocked[job->partition], &job->next, due, job->job_id))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	scheduler.nblocked++;
	partition->nblocked++;
	if (partition->behind)
		return;
	/* from now on it is counted who goes on */
	partition->behind = true;
	partition->nahead = 0;
	partition->ahead_round++;
}

void
throttle_unblock(Job *job)
{
	minheap_remove(&job->queue->blocked[job->partition], &job->next);
	job->blocked = false;
	scheduler.nblocked--;
	scheduler.partitions[job->partition].nblocked--;
}

/* As many of each queue as there is room for, when half of its room is free: not one by one, as that would cost a look each. */
void
throttle_resume(Partition *partition)
{
	HASH_SEQ_STATUS status;
	ThrottleQueue *queue;
	int			waiting = 0;
	int			share;

	if (partition->nslots > MAX_OPEN_RUNS_IN_ALL * 3 / 4)
		return;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
		waiting += queue->blocked[partition->number].count > 0;
	share = Max((MAX_OPEN_RUNS_IN_ALL - partition->nslots) / Max(waiting, 1), 1);
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
	{
		Heap	   *blocked = &queue->blocked[partition->number];
		int			room = MAX_OPEN_RUNS - queue->open[partition->number];
		HeapNode   *node;

		if (room < MAX_OPEN_RUNS / 2)
			continue;
		for (room = Min(room, share); room > 0 && (node = minheap_peek(blocked)) != NULL; room--)
		{
			Job		   *job = (Job *) ((char *) node - offsetof(Job, next));

			timetable_plan_slot(job, job->next_slot);
		}
	}
	if (partition->nblocked == 0)
		partition_touch(partition);
}

HeapNode *
throttle_first_blocked(const Partition *partition)
{
	HASH_SEQ_STATUS status;
	ThrottleQueue *queue;
	HeapNode   *first = NULL;

	if (partition->nblocked == 0)
		return NULL;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
	{
		HeapNode   *node = minheap_peek(&queue->blocked[partition->number]);

		if (node != NULL && (first == NULL || node->time < first->time || (node->time == first->time && node->id < first->id)))
			first = node;
	}
	return first;
}

/* ---- where a run waits ------------------------------------------------------------------------------ */

void
run_wait_nowhere(OpenRun *run)
{
	if (run->waits_in != NULL)
		minheap_remove(run->waits_in, &run->wait);
	run->waits_in = NULL;
}

static void
wait_in(OpenRun *run, Heap *heap, int64 key)
{
	if (!minheap_insert(heap, &run->wait, key, ++sequence))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	run->waits_in = heap;
}

static bool
is_its_turn(const OpenRun *run)
{
	return run->job->policy->overlap == OVERLAP_ALLOW || &run->in_job == dlist_head_node(&run->job->work->open);
}

void
run_show(OpenRun *run)
{
	if (run->shown)
		return;
	run->shown = true;
	scheduler.partitions[run->partition].nshown++;
	partition_touch(&scheduler.partitions[run->partition]);
}

/* It may start, if it is the first of its queue and that has room. */
static void
wait_in_queue(OpenRun *run)
{
	ThrottleQueue *queue = run->job->queue;

	if (queue->ready.count > 0 || next_start(queue) != 0)
		run_show(run);
	wait_in(run, &queue->ready, run->rank);
}

/* Puts a run where it has to wait now. */
void
run_consider(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];

	run_wait_nowhere(run);
	if (run->queued || run->remote != 0 || partition->step != STEP_ACTIVE)
		return;
	if (run_is_void(run))
	{
		/* to be closed, by whoever comes to it */
		wait_in(run, &queue_of_none()->ready, PG_INT64_MIN);
		return;
	}
	if (!is_its_turn(run))
	{
		run_show(run);
		run_await(dlist_head_element(OpenRun, in_job, &run->job->work->open));
	}
	if (!is_its_turn(run) || !run->job->applied || (run->job->pausing && run->key.trigger_id == 0))
		return;
	if (run->retry_at > scheduler.boot)
		wait_in(run, &later_boot, run->retry_at);
	else if (run->not_before > scheduler.now)
		wait_in(run, &later_wall, run->not_before);
	else
	{
		if (!run->ranked)
			run->rank = order_rank(run->job, &run->key, run->not_before != 0 ? run->not_before : run->due);
		run->ranked = true;
		if (run->careful && scheduler.unclean)
			wait_in(run, &careful, run->rank);
		else
			wait_in_queue(run);
	}
}

void
job_consider(Job *job)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->work->open)
	{
		run_consider(dlist_container(OpenRun, in_job, iter.cur));
		if (job->policy->overlap != OVERLAP_ALLOW)
			break;
	}
}

void
partition_consider(Partition *partition)
{
	dlist_iter	iter;

	dlist_foreach(iter, &partition->open)
		run_consider(dlist_container(OpenRun, in_partition, iter.cur));
	dlist_foreach(iter, &partition->ranges)
		job_advance_later(dlist_container(SlotRange, in_partition, iter.cur)->job);
}

/* ---- roles ------------------------------------------------------------------------------------------ */

/* Finds the OID of a role, again after any change of roles.  InvalidOid: there is none. */
static void
lookup_role(void *arg)
{
	JobRole    *role = arg;
	uint64		as_of = scheduler.roles_changed;

	role->oid = get_role_oid(role->name, true);
	role->checked = as_of;
}

/* False: cannot be told now (a lock on pg_authid), which is no fault of the job. */
static bool
look_up_role(Job *job)
{
	JobRole    *role = job_role(job);

	return (role->checked == scheduler.roles_changed && OidIsValid(role->oid)) ||
		scheduler_transaction(lookup_role, role, "looking up a role");
}

static bool
resolve_role(Job *job)
{
	char	   *problem;

	if (OidIsValid(job_role(job)->oid))
	{
		if (job->role_problem)
			sync_problem(job->job_id, NULL);
		job->role_problem = false;
		return true;
	}
	if (!job->role_problem)
	{
		problem = psprintf("role \"%s\" does not exist", job->username);
		sync_problem(job->job_id, problem);
		pfree(problem);
	}
	job->role_problem = true;
	return false;
}

/* ---- into the shared queue -------------------------------------------------------------------------- */

typedef enum PushOutcome
{
	PUSH_DONE,
	PUSH_NO_ROOM,
	PUSH_NO_RIGHT				/* the session has lapsed: when it is renewed we are woken, see release_rightless() */
} PushOutcome;

/* Another run has its place in the full queue: it waits with us, with the rank that it has. */
static void
take_back(int entry, const RunKey *key)
{
	OpenRun    *run = run_of_entry(entry, key);

	if (run != NULL)
		requeue_run(run, 0);
}

/* Can something start by its end of which we know already?  What comes later asks by run_await(). */
static bool
is_awaited(const OpenRun *run)
{
	Job		   *job = run->job;
	const ThrottleQueue *queue = job->queue;

	return run->careful || !dlist_is_empty(&job->work->ranges) ||
		(job->policy->overlap != OVERLAP_ALLOW && job->work->nopen > 1) ||
		(queue->max_running > 0 && (queue->awaited || queue->ready.count > 1));
}

static PushOutcome
push_run(OpenRun *run)
{
	Partition  *partition = &scheduler.partitions[run->partition];
	RunEntry	entry = {0};
	RunKey		displaced;
	int			index;

	entry.key = run->key;
	entry.token.session = partition->session;
	entry.token.epoch = partition->epoch;
	entry.token.db = scheduler.db;
	entry.token.partition = run->partition;
	entry.gen = run->gen;
	entry.reason = run->reason;
	entry.rank = run->rank;
	entry.delivery = run->job->policy->delivery;
	if (entry.delivery != DELIVERY_AT_LEAST_ONCE)
		place_short_name(scheduler.db, run->partition, entry.place);
	/* alone a committed row does what a key in etcd does in a cluster */
	entry.start_row = run->careful || (entry.delivery == DELIVERY_AT_MOST_ONCE && !delivery_is_shared(run->partition));
	entry.awaited = is_awaited(run);
	entry.queued_at = scheduler.now;
	if (!dsched_token_holds(&entry.token))
	{
		run->backlog = true;
		return PUSH_NO_RIGHT;
	}
	index = dsched_queue_push(&entry, scheduler.dboid, job_role(run->job)->oid, &displaced);
	if (displaced.attempt != 0)
		take_back(index, &displaced);
	if (index < 0)
		return PUSH_NO_ROOM;
	run_wait_nowhere(run);
	run_is_queued(run, index);
	note_start(run->counted);
	if (run->careful)
		scheduler.careful_until = scheduler.boot + CAREFUL_ALONE_US;
	return PUSH_DONE;
}

/* Starts the run, or finds that it cannot be. */
static PushOutcome
start_run(OpenRun *run)
{
	char		message[NAMEDATALEN + 64];

	if (run_is_void(run))
	{
		run_close_void(run);
		return PUSH_DONE;
	}
	if (run->cancelled)
	{
		close_cancelled(run);
		return PUSH_DONE;
	}
	if (!look_up_role(run->job))
	{
		run->retry_at = scheduler.boot + RETRY_LATER_US;
		run_consider(run);
		return PUSH_DONE;
	}
	if (!OidIsValid(job_role(run->job)->oid) && lacking_role(run))
	{
		run->retry_at = scheduler.boot + RETRY_LATER_US;
		run_show(run);
		run_consider(run);
		return PUSH_DONE;
	}
	if (resolve_role(run->job))
		return push_run(run);
	snprintf(message, sizeof(message), "role \"%s\" does not exist", run->job->username);
	fail_unstartable(run, "42704", message);
	return PUSH_DONE;
}

/* Runs whose time has come. */
static void
release_later(void)
{
	OpenRun    *run;

	while ((run = run_at_top(&later_boot)) != NULL && run->wait.time <= scheduler.boot)
		run_consider(run);
	if (run != NULL)
		scheduler_wake_at(run->wait.time);
	while ((run = run_at_top(&later_wall)) != NULL && run->wait.time <= scheduler.now)
		run_consider(run);
	if (run != NULL)
		scheduler_wake_at(scheduler.boot + (run->wait.time - scheduler.now));
}

/* The session may hold again. */
static void
release_rightless(void)
{
	int			n = rightless.count;
	OpenRun    *run;

	if (n == 0 || pg_atomic_read_u64(&dsched_shared->session) == 0 ||
		dsched_boot_now() >= (int64) pg_atomic_read_u64(&dsched_shared->deadline))
		return;
	/* each once: one whose partition is being taken from us comes back here */
	while (n-- > 0 && (run = run_at_top(&rightless)) != NULL)
		run_consider(run);
}

static bool
release_careful(void)
{
	OpenRun    *run = run_at_top(&careful);

	if (run == NULL)
		return false;
	if (scheduler.careful_running > 0 && scheduler.careful_until > scheduler.boot)
	{
		scheduler_wake_at(scheduler.careful_until);
		return false;
	}
	run_wait_nowhere(run);
	wait_in(run, &(run->job != NULL ? run->job->queue : queue_of_none())->ready, run->rank);
	return true;
}

/* Its next run can start when one of those that run has ended, nobody knows which.  Those that follow are told at the push. */
static void
await_end(ThrottleQueue *queue)
{
	dlist_iter	iter;

	if (queue->awaited)
		return;
	queue->awaited = true;
	dlist_foreach(iter, &queue->handed)
		run_await(dlist_container(OpenRun, in_queue, iter.cur));
}

/*
 * The queue of the run that is to start next, of those that may start now: that with the fewest started, of equals that
 * whose first run ranks first; or by_rank alone.  NULL: there is none.
 */
static ThrottleQueue *
next_queue(bool by_rank)
{
	static int	batch = 0;
	static ThrottleQueue *first = NULL;
	HASH_SEQ_STATUS status;
	ThrottleQueue *queue;

	if (first != NULL && --batch > 0 && !by_rank && first->ready.count > 0 && next_start(first) == 0)
		return first;
	first = NULL;
	batch = START_BATCH;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
	{
		HeapNode   *node = minheap_peek(&queue->ready);
		TimestampTz start;

		if (node == NULL)
			continue;
		start = next_start(queue);
		if (start == PG_INT64_MAX)
			await_end(queue);
		if (start != 0)
		{
			if (start != PG_INT64_MAX)
				scheduler_wake_at(scheduler.boot + (start - scheduler.now));
			continue;
		}
		if (first == NULL || (!by_rank && queue->running != first->running ? queue->running < first->running :
							  node->time < minheap_peek(&first->ready)->time))
			first = queue;
	}
	return first;
}

/* Starts what may start; false: there is no more room for it. */
static bool
start_runs(void)
{
	ThrottleQueue *queue;
	bool		full = false;
	bool		collected = false;

	no_room = false;
	while ((queue = next_queue(full)) != NULL)
	{
		switch (start_run(run_at_top(&queue->ready)))
		{
			case PUSH_DONE:
				break;
			case PUSH_NO_ROOM:
				/* not one by one, and only once: else we would be at it for as long as runs end */
				if (!collected && scheduler.slot->nfinished >= dsched_queue_batch() && dispatch_finished())
				{
					collected = true;
					break;
				}
				/* one that ranks before another of its role may still find a place */
				if (!full)
				{
					full = true;
					break;
				}
				no_room = true;
				/* the places may all be other databases', whose ends do not wake us */
				scheduler_wake_at(scheduler.boot + RETRY_LATER_US);
				return false;
			case PUSH_NO_RIGHT:
				{
					OpenRun    *run = run_at_top(&queue->ready);

					run_wait_nowhere(run);
					wait_in(run, &rightless, run->rank);
				}
				break;
		}
		advance_jobs();
	}
	return true;
}

void
dispatch_waiting(void)
{
	if ((scheduler.waiting > 0 || !dlist_is_empty(&scheduler.advancing)) &&
		pg_atomic_read_u32(&dsched_shared->clock_suspect) == 0)
	{
		/* of roles that were changed or dropped we hear by way of scheduler.roles_changed */
		AcceptInvalidationMessages();
		advance_jobs();
		look_at_limits();
		release_later();
		release_rightless();
		while (start_runs() && release_careful())
			 /* the next one */ ;
	}
	else
		no_room = false;
}

bool
dispatch_wants_room(void)
{
	if (no_room || scheduler.nblocked > 0)
		return true;
	for (int i = 0; i < places_all() && scheduler.nranges > 0; i++)
		if (scheduler.partitions[i].crowded)
			return true;
	return false;
}

/* Is nothing open but what waits for the clock? */
bool
dispatch_is_quiet(void)
{
	int			waits = later_wall.count;
	HASH_SEQ_STATUS status;
	ThrottleQueue *queue;

	for (int i = 0; i < places_all(); i++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, &scheduler.partitions[i].open)
			if (dlist_container(OpenRun, in_partition, iter.cur)->queued)
				return false;
	}
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
	{
		if (queue->ready.count == 0)
			continue;
		if (next_start(queue) == 0 || next_start(queue) == PG_INT64_MAX)
		{
			hash_seq_term(&status);
			return false;
		}
		waits += queue->ready.count;
	}
	/* what is in no heap waits for a run before it */
	return later_boot.count == 0 && careful.count == 0 && rightless.count == 0 && dlist_is_empty(&scheduler.advancing) && (waits > 0 || scheduler.waiting == 0);
}
