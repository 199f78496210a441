/*
 * membership.c
 *	  Which databases of this instance take part in the cluster, and which partitions they should have.
 *
 * Runs in the coordinator, between membership_begin() and membership_end() of one session.  This file decides; what
 * the others do is read in membership_watch.c, and what is decided is written to etcd in membership_claim.c.
 *
 * WHO SHOULD OWN WHAT
 *
 * ownership_assign() over the names of the members, for the partitions of a selector of those whose labels match;
 * every instance computes the same.  It is advice, evaluated whenever members, their labels or owner keys change.  What
 * makes an owner is its key alone.
 *
 * RELEASING
 *
 * An owned partition that advice gives to another member is handed over: RELEASING asks the scheduler to let its
 * runs end and to write the last state, RELEASED says that it has; then the key is deleted and the other claims it.
 * A scheduler that cannot drain it in dsched.drain_timeout goes back to ACTIVE and is asked again after that time.
 *
 * A DATABASE (Group) takes part (member key) while its scheduler is up, healthy, and not held by its identity.  A
 * scheduler that is restarted within a few seconds finds its partitions again, as OWNED under the same epochs, so
 * that it takes them over.  When it stays away, does not answer for two TTLs, or the clock cannot be trusted, the
 * database leaves: first the member key goes, so that advice counts without us, then the partitions, drained
 * where somebody is there to drain them, fenced else.
 *
 * Nothing here waits or fails: what could not be done in this turn is done in a later one.  What schedulers see
 * (phases, member) and say of themselves is under control_lock.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/membership_internal.h"
#include "core/ownership.h"
#include "settings.h"

#define RESTART_GRACE_US INT64CONST(5000000)
#define DRAIN_SLACK_US INT64CONST(1000000)
#define STAY_AWAY_DRAIN_US INT64CONST(5000000)
#define DOUBT_PAUSE_US INT64CONST(1000000)
/* A scheduler that is busy for so long is not wedged yet, however short the lease. */
#define MIN_WEDGED_US INT64CONST(4000000)

/* What a turn sees of a DatabaseSlot. */
typedef struct SlotView
{
	bool present; /* the database that the group is about */
	bool running;
	bool wanted;
	pid_t pid;
	int stay_away;
	PartitionPhase phases[DSCHED_MAX_PARTITIONS];
	PlaceSlot places[DSCHED_MAX_PLACES];
} SlotView;

Group *membership_groups = NULL;
bool membership_active = false;

static const char wedged_problem[] = "the scheduler of this database does not answer";

static void follow(int db);
static void forget_group(Group *g);
static void look(int db, const Group *g, SlotView *view);
static int64 group_advance(int db, int64 now);
static int64 decide(int db, Group *g, const SlotView *view, int64 now);
static void leave(int db, Group *g, int64 drain_until);
static void publish_membership(int db, bool member);
static void offer_again(int db, Group *g, const SlotView *view);
static int64 hand_over(int db, Group *g, const SlotView *view, int64 now);
static int64 leave_partitions(int db, Group *g, const SlotView *view, int64 now);
static void ask_release(int db, Group *g, int partition);
static void take_advice(int db, Group *g);
static void follow_places(int db, Group *g, const SlotView *view);

/* ---- life ------------------------------------------------------------------------------------ */

void
membership_init(void)
{
	membership_groups = MemoryContextAllocExtended(TopMemoryContext, sizeof(Group) * dsched_shared->max_databases,
												   MCXT_ALLOC_ZERO | MCXT_ALLOC_HUGE);
	membership_watch_init();
	membership_active = false;
}

void
membership_begin(void)
{
	int db;

	Assert(!membership_active);
	membership_active = true;
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (!membership_groups[db].kept)
			memset(&membership_groups[db], 0, sizeof(Group));
	membership_watch_begin();
}

/* Followed from the beginning, so that its partitions are given up in order if its scheduler does not come back. */
bool
membership_keep(const char *database)
{
	bool found = false;
	int db;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	for (db = 0; db < dsched_shared->max_databases && !found; db++)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];
		Group *g = &membership_groups[db];

		if (slot->state == SCHEDULER_NONE || slot->state == SCHEDULER_ABSENT || strcmp(slot->dbname, database) != 0)
			continue;
		found = true;
		memset(g, 0, sizeof(Group));
		g->used = g->kept = true;
		g->dboid = slot->dboid;
		strlcpy(g->name, slot->dbname, sizeof(g->name));
	}
	LWLockRelease(dsched_shared->control_lock);
	return found;
}

void
membership_keep_none(void)
{
	int db;

	Assert(!membership_active);
	for (db = 0; db < dsched_shared->max_databases; db++)
		memset(&membership_groups[db], 0, sizeof(Group));
}

/* The rights were taken by fence_session() already: this is the rest. */
void
membership_end(void)
{
	int db;

	membership_active = false;
	membership_watch_stop();
	for (db = 0; membership_groups != NULL && db < dsched_shared->max_databases; db++)
	{
		if (membership_groups[db].wedged)
			dsched_set_problem(db, NULL, NULL);
		forget_group(&membership_groups[db]);
	}
	fence_forget_shared();
	membership_watch_end();
}

void
membership_stop(void)
{
	int db;

	membership_active = false;
	membership_watch_stop();
	for (db = 0; db < dsched_shared->max_databases; db++)
		forget_group(&membership_groups[db]);
}

int64
membership_advance(int64 now)
{
	int64 next = DSCHED_NEVER;
	int db;

	if (!membership_active)
		return next;
	for (db = 0; db < dsched_shared->max_databases; db++)
		follow(db);
	next = membership_watch_advance(now);
	for (db = 0; db < dsched_shared->max_databases; db++)
		if (membership_groups[db].used)
			next = cluster_earlier(next, group_advance(db, now));
	membership_publish_nodes();
	return next;
}

bool
membership_is_fencing(void)
{
	int db;
	int p;

	/* while etcd is away nothing can be deleted anyway */
	if (!membership_active || !session_usable())
		return false;
	for (db = 0; db < dsched_shared->max_databases; db++)
		for (p = 0; membership_groups[db].used && p < places_shared(); p++)
			if (membership_groups[db].holds[p].state == HOLD_FENCED)
				return true;
	return false;
}

/* An idle scheduler makes no progress that could be seen, so it is asked. */
void
membership_heartbeat(int64 now, int64 revision)
{
	int db;

	membership_watch_heartbeat(revision);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		DatabaseSlot *slot = &dsched_shared->databases[db];
		Group *g = &membership_groups[db];

		if (!g->used || g->scheduler == 0)
			continue;
		if (pg_atomic_read_u32(&slot->answered) == pg_atomic_read_u32(&slot->asked))
		{
			g->asked_at = now;
			pg_atomic_fetch_add_u32(&slot->asked, 1);
			if (g->wedged)
				dsched_set_problem(db, NULL, NULL);
			g->wedged = false;
		}
		else if (!g->wedged && now - g->asked_at > Max(2 * session_ttl_us(), MIN_WEDGED_US))
		{
			g->wedged = true;
			dsched_set_problem(db, wedged_problem,
							   "Its partitions go to other instances until it does. See what it waits for in "
							   "pg_stat_activity; terminating it starts another one.");
			ereport(LOG, (errmsg("dsched: the scheduler of database \"%s\" does not answer, its partitions are "
								 "given up",
								 g->name)));
		}
		dsched_wake_scheduler(db);
	}
}

/* ---- a database ------------------------------------------------------------------------------ */

/* Begins to follow a database whose scheduler is up. */
static void
follow(int db)
{
	const DatabaseSlot *slot = &dsched_shared->databases[db];
	Group *g = &membership_groups[db];

	if (g->used)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	if (slot->state == SCHEDULER_RUNNING)
	{
		memset(g, 0, sizeof(Group));
		g->used = true;
		g->dboid = slot->dboid;
		strlcpy(g->name, slot->dbname, sizeof(g->name));
	}
	LWLockRelease(dsched_shared->control_lock);
	if (g->used)
		membership_read_again();
}

static void
forget_group(Group *g)
{
	if (g->request != NULL)
		etcd_cancel(g->request);
	memset(g, 0, sizeof(Group));
}

static void
look(int db, const Group *g, SlotView *view)
{
	const DatabaseSlot *slot = &dsched_shared->databases[db];
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	view->present = slot->state != SCHEDULER_NONE && slot->state != SCHEDULER_ABSENT &&
					slot->dboid == g->dboid && strcmp(slot->dbname, g->name) == 0;
	view->running = view->present && slot->state == SCHEDULER_RUNNING && slot->scheduler_pid != 0;
	view->pid = view->running ? slot->scheduler_pid : 0;
	view->wanted = view->running && slot->member_wanted &&
				   (slot->incarnation[0] == '\0' ||
					strcmp(slot->incarnation, dsched_shared->incarnation) == 0);
	view->stay_away = slot->stay_away;
	for (p = 0; p < places_shared(); p++)
		view->phases[p] = slot->partitions[p].phase;
	memcpy(view->places, slot->places, sizeof(view->places));
	LWLockRelease(dsched_shared->control_lock);
}

static int64
group_advance(int db, int64 now)
{
	Group *g = &membership_groups[db];
	SlotView view;
	int64 next;

	look(db, g, &view);
	next = decide(db, g, &view, now);
	if (!g->used)
		return next;
	if (g->scheduler != view.pid)
	{
		/* after a gap without a scheduler they were offered when it began */
		if (g->scheduler != 0)
		{
			offer_again(db, g, &view);
			look(db, g, &view);
		}
		g->asked_at = now;
		g->scheduler = view.pid;
	}
	follow_places(db, g, &view);
	membership_follow_roles(db, g);
	if (g->advice_due)
		take_advice(db, g);
	if (g->state == GROUP_LEAVING)
		next = cluster_earlier(next, leave_partitions(db, g, &view, now));
	else
		next = cluster_earlier(next, hand_over(db, g, &view, now));

	if (g->request == NULL && session_usable())
	{
		if (now < g->retry_at)
			next = cluster_earlier(next, g->retry_at);
		else if (!membership_next_request(db, g) && g->state == GROUP_IN && membership_watching())
			for (int p = 0; p < places_shared(); p++)
				(void) membership_wants(g, p, now, &next);
	}
	return next;
}

static bool
holds_any(const Group *g)
{
	int p;

	for (p = 0; p < places_shared(); p++)
		if (g->holds[p].state != HOLD_NONE)
			return true;
	return false;
}

/* Takes part or not. */
static int64
decide(int db, Group *g, const SlotView *view, int64 now)
{
	bool untrusted = session_clock_untrusted(now);

	switch (g->state)
	{
		case GROUP_OUT:
			if (!view->present)
			{
				/* not before what a former session has left is gone */
				if (!g->kept && !holds_any(g))
					forget_group(g);
			}
			else if (view->wanted && !g->wedged && !untrusted && view->stay_away == 0)
			{
				g->state = GROUP_JOINING;
				g->unwanted_since = 0;
			}
			break;

		case GROUP_JOINING:
		case GROUP_IN:
			if (!view->present || g->wedged)
				leave(db, g, 0);
			else if (view->stay_away > 0)
				leave(db, g, now + STAY_AWAY_DRAIN_US);
			else if (untrusted)
				leave(db, g, now + dsched_drain_timeout * INT64CONST(1000) + DRAIN_SLACK_US);
			else if (view->wanted)
				g->unwanted_since = 0;
			else if (g->unwanted_since == 0)
			{
				g->unwanted_since = now;
				return now + RESTART_GRACE_US;
			}
			else if (now < g->unwanted_since + RESTART_GRACE_US)
				return g->unwanted_since + RESTART_GRACE_US;
			else
				leave(db, g,
					  view->running ? now + dsched_drain_timeout * INT64CONST(1000) + DRAIN_SLACK_US : 0);
			break;

		case GROUP_LEAVING:
			if (!view->present || g->wedged)
				g->drain_until = 0;
			if (g->request == NULL && g->member == 0 && !holds_any(g))
				g->state = GROUP_OUT;
			if (g->state == GROUP_OUT)
				return now;
			break;
	}
	return DSCHED_NEVER;
}

static void
leave(int db, Group *g, int64 drain_until)
{
	g->state = GROUP_LEAVING;
	g->drain_until = drain_until;
	g->unwanted_since = 0;
}

/*
 * The scheduler is another process than the one that the partitions were given to (or none: then they wait for the
 * next). It knows nothing of them and has to take them over.  What the former one has drained is drained.
 */
static void
offer_again(int db, Group *g, const SlotView *view)
{
	int p;

	for (p = 0; p < places_shared(); p++)
	{
		Hold *hold = &g->holds[p];

		if (hold->state != HOLD_OWNED || view->phases[p] == PARTITION_RELEASED)
			continue;
		hold->asked = false;
		hold->ask_again = 0;
		fence_grant(db, p, hold->epoch);
	}
}

/* ---- places ---------------------------------------------------------------------------------- */

int
membership_partition(const Group *g, const char *place, int number)
{
	int k;

	if (strcmp(place, KEYS_PLACE_ANY) == 0)
		return number < dsched_partitions ? number : -1;
	for (k = 0; k < DSCHED_MAX_PLACES; k++)
		if (strcmp(g->places[k], place) == 0)
			return number < DSCHED_PLACE_PARTITIONS ? place_first(k) + number : -1;
	return -1;
}

void
membership_labels_changed(void)
{
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
		membership_groups[db].advice_due = true;
}

/* Is nothing of the place ours, or on its way to be or not to be? */
static bool
place_is_idle(const Group *g, const SlotView *view, int place)
{
	int p;

	for (p = place_first(place); p < place_first(place + 1); p++)
		if (g->holds[p].state != HOLD_NONE || view->phases[p] != PARTITION_NONE)
			return false;
	return true;
}

/* Frees a place that no job has any more.  A scheduler that has just found one says so under the lock. */
static void
free_place(int db, Group *g, int place)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (!slot->places[place].wanted)
	{
		memset(&slot->places[place], 0, sizeof(PlaceSlot));
		g->places[place][0] = '\0';
		for (p = place_first(place); p < place_first(place + 1); p++)
		{
			slot->partitions[p].owner[0] = '\0';
			slot->partitions[p].owner_epoch = 0;
		}
	}
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_scheduler(db);
}

/*
 * Takes note of selectors that the scheduler has met, or has no jobs with any more.  Who owns the partitions of a new one
 * nobody has told us: what was heard of them was of no use then.
 */
static void
follow_places(int db, Group *g, const SlotView *view)
{
	int k;
	int p;

	for (k = 0; k < DSCHED_MAX_PLACES; k++)
	{
		const PlaceSlot *place = &view->places[k];

		if (!view->present)
			continue;
		if (strcmp(place->selector, g->places[k]) != 0)
		{
			strlcpy(g->places[k], place->selector, sizeof(g->places[k]));
			for (p = place_first(k); p < place_first(k + 1); p++)
				memset(&g->holds[p], 0, sizeof(Hold));
			membership_read_again();
			g->advice_due = true;
		}
		if (place->selector[0] == '\0' || place->wanted)
			continue;
		for (p = place_first(k); p < place_first(k + 1); p++)
			g->advised[p] = g->may_adopt[p] = false;
		if (place_is_idle(g, view, k))
			free_place(db, g, k);
	}
}

/* The members that may run what has this selector, our own index among them (or -1); how many. */
static int
matching_members(const Group *g, const char *selector, const char **names, int *own)
{
	int n = 0;
	int i;

	*own = -1;
	for (i = 0; i < g->nothers; i++)
	{
		const char *labels = membership_labels(g->others[i]);

		if (labels != NULL && selector_matches(selector, labels, g->others[i]))
			names[n++] = g->others[i];
	}
	if (g->member != 0)
	{
		const char *labels = membership_labels(dsched_my_node());

		if (labels != NULL && selector_matches(selector, labels, dsched_my_node()))
		{
			*own = n;
			names[n++] = dsched_my_node();
		}
	}
	return n;
}

static uint64
name_hash(const char *name)
{
	return keys_hash(name, strlen(name), 0);
}

/* Are those who may have the partitions of a place (DSCHED_MAX_PLACES: "any") others than before? */
static bool
members_changed(Group *g, int place, const char *const *names, int n)
{
	uint64 former = g->among[place];
	int i;

	g->among[place] = 0;
	for (i = 0; i < n; i++)
		g->among[place] ^= name_hash(names[i]);
	return g->among[place] != former;
}

/*
 * Notes to whom a partition is advised.  What was adopted is given back only for a reason: whoever should have it may be another
 * now, or able to take it.  If it was given back whenever advice is looked at it would lie idle for some leases each time.
 */
static void
note_advice(Hold *hold, const char *name, bool changed)
{
	uint64 to = name != NULL ? name_hash(name) : 0;

	if (changed || to != hold->advised_to)
		hold->adopted = hold->adopting = false;
	hold->advised_to = to;
}

static void
advise_place(int db, Group *g, int place)
{
	PlaceSlot *slot = &dsched_shared->databases[db].places[place];
	const char *names[DSCHED_MAX_NODES];
	int owner[DSCHED_PLACE_PARTITIONS];
	int own;
	int n = matching_members(g, g->places[place], names, &own);
	bool changed = members_changed(g, place, names, n);
	bool wanted;
	int i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	slot->matches = n;
	slot->known = true;
	wanted = slot->wanted;
	LWLockRelease(dsched_shared->control_lock);
	ownership_assign_place(g->places[place], names, n, DSCHED_PLACE_PARTITIONS, owner);
	membership_pass_over(db, g, g->places[place], names, n, place_first(place), DSCHED_PLACE_PARTITIONS, owner);
	for (i = 0; i < DSCHED_PLACE_PARTITIONS; i++)
	{
		int p = place_first(place) + i;

		g->advised[p] = wanted && own >= 0 && owner[i] == own;
		g->may_adopt[p] = wanted && own >= 0 && !g->unfit[p];
		note_advice(&g->holds[p], owner[i] >= 0 ? names[owner[i]] : NULL, changed || g->unfit[p]);
	}
}

static void
take_advice(int db, Group *g)
{
	const char *names[DSCHED_MAX_NODES];
	int owner[DSCHED_MAX_ANY];
	int n = 0;
	bool changed;
	int p;

	g->advice_due = false;
	for (; n < g->nothers; n++)
		names[n] = g->others[n];
	if (g->member != 0)
		names[n++] = dsched_my_node();
	changed = members_changed(g, DSCHED_MAX_PLACES, names, n);
	ownership_assign(names, n, dsched_partitions, owner);
	membership_pass_over(db, g, KEYS_PLACE_ANY, names, n, 0, dsched_partitions, owner);
	for (p = 0; p < dsched_partitions; p++)
	{
		g->advised[p] = g->member != 0 && owner[p] == n - 1;
		g->may_adopt[p] = g->member != 0 && !g->unfit[p];
		note_advice(&g->holds[p], owner[p] >= 0 ? names[owner[p]] : NULL, changed || g->unfit[p]);
	}
	for (p = 0; p < DSCHED_MAX_PLACES; p++)
		if (g->places[p][0] != '\0')
			advise_place(db, g, p);
	membership_roles_advised(db, g);
}

/* ---- giving away ----------------------------------------------------------------------------- */

static void
ask_release(int db, Group *g, int partition)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (slot->phase == PARTITION_OWNED || slot->phase == PARTITION_ACTIVE)
		slot->phase = PARTITION_RELEASING;
	LWLockRelease(dsched_shared->control_lock);
	g->holds[partition].asked = true;
	dsched_wake_scheduler(db);
}

/*
 * The scheduler has given the partition up, as etcd refused its writes: if a new reading shows that the key is still
 * ours, it is offered again.
 */
static int64
settle_doubt(int db, int partition, int64 now)
{
	Hold *hold = &membership_groups[db].holds[partition];

	if (!hold->doubted)
	{
		if (now < hold->ask_again)
			return hold->ask_again;
		hold->doubted = true;
		membership_read_again();
		return now;
	}
	if (membership_watching())
	{
		hold->doubted = false;
		hold->ask_again = now + DOUBT_PAUSE_US;
		fence_grant(db, partition, hold->epoch);
	}
	return DSCHED_NEVER;
}

/* Follows the advice for one owned partition; what is to be fenced is. */
static int64
move_partition(int db, Group *g, int partition, PartitionPhase phase, bool away, int64 now)
{
	Hold *hold = &g->holds[partition];

	if (phase == PARTITION_RELEASED)
	{
		PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

		if (slot->declined)
			hold->declined_until = now + DECLINED_US;
		slot->declined = false;
		membership_fence(db, partition);
		return DSCHED_NEVER;
	}
	if (phase == PARTITION_RELEASING)
		return DSCHED_NEVER;
	if (phase == PARTITION_NONE)
		return settle_doubt(db, partition, now);
	if (hold->asked)
	{
		/* it could not drain it in time */
		hold->asked = false;
		hold->ask_again = now + dsched_drain_timeout * INT64CONST(1000);
	}
	if (!away)
		return DSCHED_NEVER;
	if (now < hold->ask_again)
		return hold->ask_again;
	ask_release(db, g, partition);
	return DSCHED_NEVER;
}

/* Without a member key of ours, or while what is known may be old, nothing is given away. */
static int64
hand_over(int db, Group *g, const SlotView *view, int64 now)
{
	bool advice = g->state == GROUP_IN && membership_watching();
	int64 next = DSCHED_NEVER;
	int p;

	for (p = 0; p < places_shared(); p++)
		if (g->holds[p].state == HOLD_OWNED)
			next = cluster_earlier(
				next, move_partition(db, g, p, view->phases[p], advice && !g->advised[p] && !g->holds[p].adopted, now));
	return next;
}

static int64
leave_partitions(int db, Group *g, const SlotView *view, int64 now)
{
	bool drain = view->running && now < g->drain_until;
	int64 next = DSCHED_NEVER;
	int p;

	for (p = 0; p < places_shared(); p++)
	{
		if (g->holds[p].state != HOLD_OWNED)
			continue;
		if (!drain)
			membership_fence(db, p);
		else
		{
			next = cluster_earlier(next, g->drain_until);
			next = cluster_earlier(next, move_partition(db, g, p, view->phases[p], true, now));
		}
	}
	return next;
}

/* If somebody has deleted it, it is made again; the partitions are not touched by that. */
void
membership_own_key_is(Group *g, int64 create_revision, int64 revision)
{
	if (revision <= g->member_known)
		return;
	g->member_known = revision;
	/* the member key of the session before: its scheduler has as long to come as after any restart */
	if (g->kept && g->state == GROUP_OUT && create_revision != 0)
		g->state = GROUP_JOINING;
	g->kept = false;
	if (g->member == create_revision)
		return;
	g->member = create_revision;
	g->advice_due = true;
	publish_membership(g - membership_groups, create_revision != 0);
	if (g->state == GROUP_IN && create_revision == 0)
		g->state = GROUP_JOINING;
	else if (g->state == GROUP_JOINING && create_revision != 0)
		g->state = GROUP_IN;
}

static void
publish_membership(int db, bool member)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->databases[db].member = member;
	LWLockRelease(dsched_shared->control_lock);
}
