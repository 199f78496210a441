/*
 * queue.c
 *	  The run queue, in shared memory: runs between "decided" and "accounted for".
 *
 * A scheduler pushes runs, each into the lane of its database and role.  An executor is bound to one lane
 * for its life, takes the run in it that ranks first, and hands it back finished; the scheduler collects
 * finished runs when it next accounts for them.  So a run costs no round trip through the scheduler, which
 * is woken only for what it has to act on at once: see queue_finish_entry().
 *
 * A lane is a pairing heap by rank, which the scheduler gave to the run (schedule/order.c) and which does
 * not change.  The nodes lie in the entries and the lane has the root; a heap as lib/pairingheap.h wants
 * it, with a pointer to the function that compares, is put around the root for each operation, as
 * functions may lie elsewhere in another process.
 *
 * The queue is of fixed size.  What keeps a flood from blocking others: when it is full, a run takes the
 * place of one of the lane of its database that has most in it, or of one of its own lane that ranks behind
 * it; and the last places are only for databases that have few.
 *
 * Everything here is under queue_lock.  What is lost with a process: an executor that dies gives its
 * slot, and its run with status NONE, back in its exit callback (pool.c); a scheduler's entries stay and
 * are found by its successor (the queued ones are withdrawn, the running ones waited for).
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "clock.h"
#include "queue_internal.h"
#include "settings.h"
#include "shared.h"

static const char *const reason_names[] = {"schedule", "catch_up", "manual", "recovery", "retry", "backfill"};
static const char *const status_names[] = {
	"unknown", "running", "succeeded", "failed", "timed_out", "cancelled", "lost", "skipped", "missed"
};

static int	compare_entries(const pairingheap_node *a, const pairingheap_node *b, void *arg);
static pairingheap heap_of(const Lane *lane);
static int	find_lane(int db, Oid dboid, Oid roleoid);
static int	known_lane(Oid dboid, Oid roleoid);
static void add_to_lane(int lane, int e);
static void remove_from_lane(int e);
static void call_idle_executor(int lane);
static bool has_room(const DatabaseSlot *db);
static bool displace_for(const RunEntry *run, int own, RunKey *displaced);
static void release_entry(int e);
static bool add_finished(int e);

const char *
run_reason_name(RunReason reason)
{
	return reason_names[reason];
}

const char *
run_status_name(RunStatus status)
{
	return status_names[status];
}

/* ---- lanes ---------------------------------------------------------------------------------- */

bool
queue_goes_before(const RunEntry *x, const RunEntry *y)
{
	return x->rank != y->rank ? x->rank < y->rank : x->seq < y->seq;
}

/* What goes first is the greater one: the server's heaps have the greatest at the top. */
static int
compare_entries(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	return queue_goes_before(pairingheap_const_container(RunEntry, waiting, a),
							 pairingheap_const_container(RunEntry, waiting, b)) ? 1 : -1;
}

static pairingheap
heap_of(const Lane *lane)
{
	pairingheap heap = {compare_entries, NULL, lane->waiting};

	return heap;
}

static int *
bucket_of(Oid roleoid)
{
	return &dsched_shared->lane_buckets[murmurhash32(roleoid) % dsched_shared->nbuckets];
}

int
queue_role_bucket(Oid roleoid)
{
	return *bucket_of(roleoid);
}

static int
known_lane(Oid dboid, Oid roleoid)
{
	int			i;

	for (i = *bucket_of(roleoid); i >= 0; i = dsched_shared->lanes[i].next_of_role)
		if (dsched_shared->lanes[i].dboid == dboid && dsched_shared->lanes[i].roleoid == roleoid)
			break;
	return i;
}

/*
 * The lane of a database and role; a new one if there is none. There are enough for all entries and
 * executors.
 */
static int
find_lane(int db, Oid dboid, Oid roleoid)
{
	Lane	   *lane;
	int			found = known_lane(dboid, roleoid);

	if (found >= 0)
	{
		dsched_shared->lanes[found].db = db;
		return found;
	}
	found = dsched_shared->lanes_free;
	if (found < 0)
		elog(ERROR, "dsched has no free lane");
	lane = &dsched_shared->lanes[found];
	dsched_shared->lanes_free = lane->next;
	memset(lane, 0, sizeof(*lane));
	lane->dboid = dboid;
	lane->roleoid = roleoid;
	lane->db = db;
	lane->worst_rank = PG_INT64_MIN;
	lane->next_of_role = *bucket_of(roleoid);
	*bucket_of(roleoid) = found;
	lane->prev = -1;
	lane->next = dsched_shared->lanes_used;
	if (lane->next >= 0)
		dsched_shared->lanes[lane->next].prev = found;
	dsched_shared->lanes_used = found;
	return found;
}

void
queue_free_lane_if_unused(int lane)
{
	Lane	   *l = &dsched_shared->lanes[lane];

	int		   *link;

	if (l->dboid == InvalidOid || l->queued > 0 || l->executors > 0)
		return;
	for (link = bucket_of(l->roleoid); *link != lane; link = &dsched_shared->lanes[*link].next_of_role)
		 /* search */ ;
	*link = l->next_of_role;
	if (l->prev >= 0)
		dsched_shared->lanes[l->prev].next = l->next;
	else
		dsched_shared->lanes_used = l->next;
	if (l->next >= 0)
		dsched_shared->lanes[l->next].prev = l->prev;
	l->dboid = InvalidOid;
	l->next = dsched_shared->lanes_free;
	dsched_shared->lanes_free = lane;
}

static void
add_to_lane(int lane, int e)
{
	Lane	   *l = &dsched_shared->lanes[lane];
	DatabaseSlot *db = &dsched_shared->databases[l->db];
	pairingheap heap = heap_of(l);

	pairingheap_add(&heap, &dsched_shared->entries[e].waiting);
	l->waiting = heap.ph_root;
	l->worst_rank = Max(l->worst_rank, dsched_shared->entries[e].rank);
	/* whoever did not wait has no claim to what it did not use */
	if (db->queued++ == 0)
		db->served = Max(db->served, dsched_shared->served_clock);
	if (l->queued++ == 0)
	{
		l->served = Max(l->served, db->served_clock);
		dsched_shared->lanes_waiting++;
	}
}

static void
remove_from_lane(int e)
{
	RunEntry   *entry = &dsched_shared->entries[e];
	Lane	   *l = &dsched_shared->lanes[entry->lane];
	pairingheap heap = heap_of(l);

	Assert(entry->state == ENTRY_QUEUED && l->queued > 0);
	pairingheap_remove(&heap, &entry->waiting);
	l->waiting = heap.ph_root;
	dsched_shared->databases[entry->token.db].queued--;
	if (--l->queued == 0)
	{
		l->worst_rank = PG_INT64_MIN;
		dsched_shared->lanes_waiting--;
	}
}

int
queue_pop(int lane)
{
	Lane	   *l = &dsched_shared->lanes[lane];
	int			e;

	if (l->waiting == NULL)
		return -1;
	e = pairingheap_container(RunEntry, waiting, l->waiting) - dsched_shared->entries;
	remove_from_lane(e);
	return e;
}

const RunEntry *
queue_peek(int lane, int skip)
{
	Lane	   *l = &dsched_shared->lanes[lane];
	pairingheap heap = heap_of(l);
	const RunEntry *found = NULL;
	int			out = -1;

	if (skip >= l->queued)
		return NULL;
	while (skip-- > 0)
	{
		RunEntry   *entry = pairingheap_container(RunEntry, waiting, pairingheap_remove_first(&heap));

		entry->next = out;
		out = entry - dsched_shared->entries;
	}
	found = pairingheap_container(RunEntry, waiting, pairingheap_first(&heap));
	for (; out >= 0; out = dsched_shared->entries[out].next)
		pairingheap_add(&heap, &dsched_shared->entries[out].waiting);
	l->waiting = heap.ph_root;
	return found;
}

/* The count of its lane that an executor is part of, or NULL. */
static int *
counted_in(const ExecutorSlot *executor)
{
	Lane	   *lane = &dsched_shared->lanes[executor->lane];

	if (executor->state == EXECUTOR_STARTING)
		return &lane->coming;
	if (executor->state == EXECUTOR_IDLE && !executor->retire)
		return executor->called ? &lane->coming : &lane->idle;
	if (executor->state == EXECUTOR_BUSY)
		return &lane->busy;
	return NULL;
}

void
queue_set_executor(ExecutorSlot *executor, ExecutorState state, bool called, bool retire)
{
	int		   *count;

	if ((count = counted_in(executor)) != NULL)
		(*count)--;
	if (executor->state == EXECUTOR_STARTING)
		dsched_shared->lanes[executor->lane].starting--;
	executor->state = state;
	executor->called = called;
	executor->retire = retire;
	if ((count = counted_in(executor)) != NULL)
		(*count)++;
	if (state == EXECUTOR_STARTING)
		dsched_shared->lanes[executor->lane].starting++;
}

static void
call_idle_executor(int lane)
{
	for (int i = 0; i < dsched_shared->max_executors; i++)
	{
		ExecutorSlot *executor = &dsched_shared->executors[i];

		if (executor->state == EXECUTOR_IDLE && executor->lane == lane && !executor->called && !executor->retire)
		{
			queue_set_executor(executor, EXECUTOR_IDLE, true, false);
			SetLatch(&executor->proc->procLatch);
			return;
		}
	}
}

/* ---- the scheduler's side -------------------------------------------------------------------- */

/* The last sixteenth of the places is for databases that have fewer than so many. */
static bool
has_room(const DatabaseSlot *db)
{
	int			kept = dsched_shared->queue_size / 16;

	return dsched_shared->free_entries > kept || (dsched_shared->free_entries > 0 && db->entries < kept);
}

bool
dsched_queue_has_room(int db)
{
	bool		room;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	room = has_room(&dsched_shared->databases[db]);
	LWLockRelease(dsched_shared->queue_lock);
	return room;
}

/* The lane of a database in which most wait. */
static int
fullest_lane(int db)
{
	int			found = -1;

	for (int i = dsched_shared->lanes_used; i >= 0; i = dsched_shared->lanes[i].next)
		if (dsched_shared->lanes[i].db == db &&
			(found < 0 || dsched_shared->lanes[i].queued > dsched_shared->lanes[found].queued))
			found = i;
	return found;
}

/*
 * Takes an entry out of the full queue for this run: the one that ranks last in the lane that has most, if
 * the run's own has less (own: its lane, or -1), else the last of its own lane, if the run goes before it.
 * It is searched among all entries, but not for a run that goes behind the last one of its lane that is
 * known: worst_rank is never too low.
 */
static bool
displace_for(const RunEntry *run, int own, RunKey *displaced)
{
	int			own_queued = own >= 0 ? dsched_shared->lanes[own].queued : 0;
	int			from = displaced != NULL ? fullest_lane(run->token.db) : -1;
	RunEntry   *worst = NULL;
	int64		last_but_one = PG_INT64_MIN;

	if (from < 0)
		return false;
	if (dsched_shared->lanes[from].queued <= own_queued + 1)
	{
		from = own;
		if (own < 0 || run->rank >= dsched_shared->lanes[own].worst_rank)
			return false;
	}
	for (int i = 0; i < dsched_shared->queue_size; i++)
	{
		RunEntry   *entry = &dsched_shared->entries[i];

		if (entry->state != ENTRY_QUEUED || entry->lane != from)
			continue;
		if (worst == NULL || queue_goes_before(worst, entry))
		{
			if (worst != NULL)
				last_but_one = worst->rank;
			worst = entry;
		}
		else
			last_but_one = Max(last_but_one, entry->rank);
	}
	if (worst == NULL || (from == own && worst->rank <= run->rank))
	{
		if (from == own)
			dsched_shared->lanes[own].worst_rank = worst != NULL ? worst->rank : PG_INT64_MIN;
		return false;
	}
	*displaced = worst->key;
	remove_from_lane(worst - dsched_shared->entries);
	dsched_shared->lanes[from].worst_rank = last_but_one;
	release_entry(worst - dsched_shared->entries);
	queue_free_lane_if_unused(from);
	return true;
}

int
dsched_queue_push(const RunEntry *run, Oid dboid, Oid roleoid, RunKey *displaced)
{
	DatabaseSlot *db = &dsched_shared->databases[run->token.db];
	RunEntry   *entry;
	int			lane;
	int			e;

	if (displaced != NULL)
		memset(displaced, 0, sizeof(*displaced));
	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (!has_room(db) && !displace_for(run, known_lane(dboid, roleoid), displaced))
	{
		db->full_at = dsched_boot_now();
		LWLockRelease(dsched_shared->queue_lock);
		return -1;
	}
	lane = find_lane(run->token.db, dboid, roleoid);
	e = dsched_shared->free_head;
	entry = &dsched_shared->entries[e];
	dsched_shared->free_head = entry->next;
	dsched_shared->free_entries--;
	*entry = *run;
	entry->state = ENTRY_QUEUED;
	entry->lane = lane;
	entry->executor = -1;
	entry->seq = ++dsched_shared->last_seq;
	db->entries++;
	add_to_lane(lane, e);
	if (dsched_shared->lanes[lane].idle > 0)
		call_idle_executor(lane);
	LWLockRelease(dsched_shared->queue_lock);
	return e;
}

static void
release_entry(int e)
{
	RunEntry   *entry = &dsched_shared->entries[e];

	dsched_shared->databases[entry->token.db].entries--;
	entry->state = ENTRY_FREE;
	entry->next = dsched_shared->free_head;
	dsched_shared->free_head = e;
	dsched_shared->free_entries++;
}

int
dsched_queue_take_finished(int db, RunEntry *out, int *index, int max)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	int			n = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	while (n < max && slot->finished_head >= 0)
	{
		int			e = slot->finished_head;

		slot->finished_head = dsched_shared->entries[e].next;
		index[n] = e;
		out[n++] = dsched_shared->entries[e];
		release_entry(e);
	}
	slot->nfinished -= n;
	if (slot->finished_head < 0)
		slot->collect = false;
	LWLockRelease(dsched_shared->queue_lock);
	return n;
}

void
dsched_queue_await(int db, int entry)
{
	RunEntry   *e = &dsched_shared->entries[entry];

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (e->token.db == db)
	{
		e->awaited = true;
		if (e->state == ENTRY_FINISHED)
			dsched_shared->databases[db].collect = true;
	}
	LWLockRelease(dsched_shared->queue_lock);
}

/* Caller holds queue_lock. */
static bool
withdraw_if_queued(int db, int e, const RunKey *key)
{
	RunEntry   *entry = &dsched_shared->entries[e];

	if (entry->state != ENTRY_QUEUED || entry->token.db != db || !run_key_same(&entry->key, key))
		return false;
	remove_from_lane(e);
	queue_free_lane_if_unused(entry->lane);
	release_entry(e);
	return true;
}

bool
dsched_queue_withdraw_entry(int db, int entry, const RunKey *key)
{
	bool		found;

	if (entry < 0)
		return false;
	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	found = withdraw_if_queued(db, entry, key);
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

int64
dsched_queue_virtual_time(TimestampTz now, bool begin, uint64 *period)
{
	int64		time;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	/* one turn of a scheduler ranks many runs before it pushes the first: a moment begins one period only */
	if (begin || dsched_shared->fair_period == 0 ||
		(dsched_shared->free_entries == dsched_shared->queue_size && now != dsched_shared->fair_began))
	{
		dsched_shared->fair_period++;
		dsched_shared->fair_began = now;
		dsched_shared->fair_time = now;
	}
	*period = dsched_shared->fair_period;
	time = dsched_shared->fair_time;
	LWLockRelease(dsched_shared->queue_lock);
	return time;
}

/* ---- the executor's side --------------------------------------------------------------------- */

int
dsched_queue_take(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	Lane	   *lane = &dsched_shared->lanes[slot->lane];
	bool		came_up;
	bool		wake = false;
	int			e = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	came_up = slot->state == EXECUTOR_STARTING;
	if (came_up)
	{
		lane->failed_starts = 0;
		lane->last_error[0] = lane->last_sqlstate[0] = '\0';
	}
	if (!slot->retire)
		e = queue_pop(slot->lane);
	if (e >= 0)
	{
		RunEntry   *entry = &dsched_shared->entries[e];

		entry->state = ENTRY_RUNNING;
		entry->executor = executor;
		entry->pid = MyProcPid;
		slot->entry = e;
		slot->fenced = slot->cancelled = false;
		dsched_shared->fair_time = Max(dsched_shared->fair_time, entry->rank);
		pool_note_take(slot);
		queue_set_executor(slot, EXECUTOR_BUSY, false, false);
	}
	else
	{
		DatabaseSlot *db = &dsched_shared->databases[lane->db];

		if (slot->state != EXECUTOR_IDLE)
			slot->idle_since = slot->charged_until;
		queue_set_executor(slot, EXECUTOR_IDLE, false, slot->retire);
		wake = db->wants_room && db->finished_head >= 0;
		if (wake)
			db->collect = true;
	}
	/* the next executors are started when the first is up */
	if (came_up && lane->queued > lane->coming)
		wake = true;
	LWLockRelease(dsched_shared->queue_lock);
	if (wake)
		dsched_wake_scheduler(lane->db);
	return e;
}

/*
 * Adds an entry to the finished ones, and says whether the scheduler is to be told.
 *
 * It looks by itself at its next checkpoint, so a run that succeeded is no reason to wake it, unless something can go
 * on by its end: another run of its job or of its queue (awaited), or, where runs wait for places in the queue
 * or in the account, many of those.  Waking it for each of these would cost more than the runs: it comes when an eighth of
 * the queue can be filled again, when an executor has nothing to do, or after a moment, by its own alarm.
 */
static bool
add_finished(int e)
{
	RunEntry   *entry = &dsched_shared->entries[e];
	DatabaseSlot *db = &dsched_shared->databases[entry->token.db];
	bool		first = db->finished_head < 0;

	entry->state = ENTRY_FINISHED;
	if (entry->decision == DECISION_ASKED)
	{
		entry->decision = DECISION_NONE;
		db->asking--;
	}
	entry->next = db->finished_head;
	db->finished_head = e;
	db->nfinished++;
	/* with another status there may be another attempt to make */
	if (entry->awaited || entry->status != RUN_SUCCEEDED || db->nfinished >= dsched_queue_batch())
		db->collect = true;
	/* the scheduler asks for wake-ups, then looks for what has ended, without the lock: one of us sees what the other did */
	pg_memory_barrier();
	if (db->wake_on_finish)
		db->collect = true;
	return db->collect || (first && db->wake_on_first) || dsched_test_clock;
}

void
queue_finish_entry(int e)
{
	if (add_finished(e))
		dsched_wake_scheduler(dsched_shared->entries[e].token.db);
}

void
dsched_queue_finish(int executor)
{
	ExecutorSlot *slot = &dsched_shared->executors[executor];
	int			db = -1;

	LWLockAcquire(dsched_shared->queue_lock, LW_EXCLUSIVE);
	if (slot->entry >= 0 && add_finished(slot->entry))
		db = dsched_shared->entries[slot->entry].token.db;
	slot->entry = -1;
	LWLockRelease(dsched_shared->queue_lock);
	/* not under the lock, which the scheduler would wait for at once */
	if (db >= 0)
		dsched_wake_scheduler(db);
}
