/*
 * closing.c
 *	  Rows of dsched.run for slots that end without an executor: skipped, missed, lost, impossible to start.
 *
 * They are collected during a turn and written together at its end, before any state that counts on them: a
 * watermark that says "accounted for" must not reach the disk, or etcd, before the row that accounts for it.
 * If they cannot be written (a full disk) they stay here and the states wait.
 *
 * That a slot is skipped or missed is a verdict, which only the owner of its partition may pass.  An instance that stood
 * still for longer than its lease finds slots late that another has run meanwhile.  So verdicts are written before the deadline
 * of the session only.  After it they wait, until the session is proven again, or are dropped with the partition; what
 * is recorded of attempts that were made here is not held back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "schedule/scheduler.h"

#define RETRY_WRITE_US INT64CONST(1000000)

static List *closed_slots = NIL;
static int64 retry_at = 0;

static void write_rows(void *arg);
static bool extend_last(const ClosedSlot *slot);
static void lookup(void *arg);

typedef struct Lookup
{
	RunKey		key;
	RunHistory	history;
} Lookup;

/*
 * Is it the slot after those of the last row?  Only then do the two make one: a row speaks for all slots from its first to its
 * last.  Not where runs were open: each of them is looked up by its own key when the account that lists it is read again.
 */
static bool
goes_on(const ClosedSlot *last, const ClosedSlot *slot)
{
	Job		   *job = timetable_find(slot->key.job_id);
	SlotRule	rule;

	if (last->was_open || slot->was_open || job == NULL || !job->usable || job->gen != slot->gen || slot->key.trigger_id != 0)
		return false;
	rule = job_rule(job);
	return slot_next(&rule, last->last_slot != 0 ? last->last_slot : last->key.scheduled_for) == slot->key.scheduled_for;
}

/* A row for several slots of one job: the last one added goes on where this one begins. */
static bool
extend_last(const ClosedSlot *slot)
{
	ClosedSlot *last = closed_slots == NIL ? NULL : llast(closed_slots);

	if (last == NULL || slot->status != last->status || slot->status != RUN_SKIPPED ||
		last->key.job_id != slot->key.job_id || last->gen != slot->gen || last->reason_text != slot->reason_text ||
		last->reason != slot->reason || last->epoch != slot->epoch || last->key.trigger_id != slot->key.trigger_id ||
		last->key.attempt != 1 || slot->key.attempt != 1 || !goes_on(last, slot))
		return false;
	last->last_slot = slot->last_slot != 0 ? slot->last_slot : slot->key.scheduled_for;
	last->slots += slot->slots;
	return true;
}

void
closing_add(const ClosedSlot *slot)
{
	Job		   *job = timetable_find(slot->key.job_id);
	MemoryContext old;
	ClosedSlot *copy;

	if (job != NULL)
		purge_slot_closed(&scheduler.partitions[job->partition], slot->key.scheduled_for);
	if (extend_last(slot))
		return;
	scheduler.recorded++;
	old = MemoryContextSwitchTo(scheduler.context);
	copy = palloc(sizeof(ClosedSlot));
	*copy = *slot;
	closed_slots = lappend(closed_slots, copy);
	MemoryContextSwitchTo(old);
}

bool
closing_empty(void)
{
	return closed_slots == NIL;
}

static bool
is_verdict(const ClosedSlot *slot)
{
	return slot->status == RUN_SKIPPED || slot->status == RUN_MISSED;
}

/* Is it past the deadline, so that another may have what was ours?  (No session: the partitions are gone, or being left in order.) */
static bool
has_session_lapsed(void)
{
	int64		deadline = (int64) pg_atomic_read_u64(&dsched_shared->deadline);

	return scheduler.etcd != NULL && deadline != 0 && dsched_boot_now() >= deadline;
}

/* Verdicts of an ownership that has ended since: whoever has the partition now decides. */
static void
drop_void_verdicts(void)
{
	ListCell   *lc;

	if (scheduler.etcd == NULL)
		return;
	foreach(lc, closed_slots)
	{
		ClosedSlot *slot = lfirst(lc);

		if (!is_verdict(slot) || slot->epoch == 0 || timetable_find(slot->key.job_id) == NULL ||
			scheduler.partitions[slot->partition].epoch == slot->epoch)
			continue;
		closed_slots = foreach_delete_current(closed_slots, lc);
		pfree(slot);
	}
}

/* Moves the verdicts to a list of their own; the others stay. */
static List *
set_verdicts_aside(void)
{
	List	   *aside = NIL;
	ListCell   *lc;
	MemoryContext old = MemoryContextSwitchTo(scheduler.context);

	foreach(lc, closed_slots)
	{
		if (!is_verdict(lfirst(lc)))
			continue;
		aside = lappend(aside, lfirst(lc));
		closed_slots = foreach_delete_current(closed_slots, lc);
	}
	MemoryContextSwitchTo(old);
	return aside;
}

static void
write_rows(void *arg)
{
	ListCell   *lc;

	foreach(lc, closed_slots)
	{
		ClosedSlot *slot = lfirst(lc);
		RunRow		row = {0};

		row.key = slot->key;
		row.job_name = slot->job_name;
		row.username = slot->username;
		row.gen = slot->gen;
		row.reason = slot->reason;
		row.reason_text = slot->reason_text;
		row.status = slot->status;
		row.last_slot = slot->last_slot;
		row.slots = slot->slots;
		row.started_at = slot->started_at;
		row.finished_at = dsched_wall_now();
		row.epoch = (int64) slot->epoch;
		row.pid = slot->pid;
		row.rows = -1;
		row.sqlstate = slot->sqlstate[0] ? slot->sqlstate : NULL;
		row.message = slot->message[0] ? slot->message : NULL;
		/* a start row becomes this; one that was written before a crash is the same statement about the same slot */
		if (slot->replaces && run_lookup(&row.key) == RUN_RUNNING && run_update(&row))
			continue;
		(void) run_insert(&row, true);
		CommandCounterIncrement();
	}
}

static bool
write_closed_slots(void)
{
	if (closed_slots == NIL)
		return true;
	if (!scheduler_transaction(write_rows, NULL, "recording slots"))
		return false;
	list_free_deep(closed_slots);
	closed_slots = NIL;
	return true;
}

bool
closing_flush(void)
{
	List	   *aside = NIL;
	MemoryContext old;

	drop_void_verdicts();
	if (closed_slots == NIL)
		return true;
	if (retry_at > scheduler.boot)
		return false;
	if (has_session_lapsed())
		aside = set_verdicts_aside();
	if (write_closed_slots() && aside == NIL)
	{
		retry_at = 0;
		return true;
	}
	/* of an empty list it makes a new one, which has to outlive this turn */
	old = MemoryContextSwitchTo(scheduler.context);
	closed_slots = list_concat(closed_slots, aside);
	list_free(aside);
	MemoryContextSwitchTo(old);
	retry_at = scheduler.boot + RETRY_WRITE_US;
	scheduler_wake_at(retry_at);
	return false;
}

static void
lookup(void *arg)
{
	Lookup	   *question = arg;

	run_history(&question->key, &question->history);
}

bool
run_history_in_transaction(const RunKey *key, RunHistory *history)
{
	Lookup		question = {*key};

	memset(history, 0, sizeof(*history));
	if (IsTransactionState())
		lookup(&question);
	else if (!scheduler_transaction(lookup, &question, "looking up a run"))
		return false;
	*history = question.history;
	marks_add_history(key, history);
	return true;
}
