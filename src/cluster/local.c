/*
 * local.c
 *	  Partitions that need no etcd: all of them standalone, in a cluster the one of jobs that run on each instance.
 *
 * Runs in the coordinator.  They are given to the database's scheduler under a token that never expires, as soon as it
 * asks for them, and taken back when it is gone or does not want them any more: fenced, and forgotten when no executor
 * is inside a commit of theirs, so that the next scheduler begins with their ends.  What a coordinator before us has
 * left was fenced by fence_reset().  Where etcd says that we may be a copy of another instance none is given.
 *
 * Standalone the partitions of a selector are given only while this instance matches it.  When it does not any more
 * (dsched.node_labels has changed) they are drained in order, as for a hand-over.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "cluster/cluster.h"
#include "core/selector.h"
#include "places.h"
#include "settings.h"

/* What a database has been given. */
typedef struct Local
{
	bool given;		 /* its partitions are */
	bool ending;	 /* fenced, commits may be under way */
	pid_t scheduler; /* to whom */
} Local;

static Local *locals = NULL;

static void local_database(int db);
static bool commits(int db);
static bool is_given(int partition);
static void give(int db, int partition);
static void give_all(int db, pid_t scheduler);
static void take_all(int db);
static void follow_places(int db);
static void follow_place(int db, int place);

/*
 * In a cluster not before etcd has said who we are, or is away: a copy of a data directory knows the definitions, but must
 * not run them beside its original, whose name is in use, or beside another etcd.
 */
static bool
may_begin(void)
{
	return !dsched_clustered() || session_id() != 0 || cluster_problem_kind(PROBLEM_OF_SESSION) != PROBLEM_NONE;
}

static bool
must_end(void)
{
	ProblemKind kind = cluster_problem_kind(PROBLEM_OF_SESSION);

	return dsched_clustered() && session_id() == 0 &&
		(kind == PROBLEM_NAME_HELD || kind == PROBLEM_NAME_IN_USE || kind == PROBLEM_REPLACED);
}

/* Partitions that a coordinator before us gave have been fenced: begin with their ends. */
void
local_init(void)
{
	int db;

	locals = MemoryContextAllocZero(TopMemoryContext, sizeof(Local) * dsched_shared->max_databases);
	for (db = 0; db < dsched_shared->max_databases; db++)
		locals[db].ending = true;
}

/* True: it waits for commits, and is to be called again soon. */
bool
local_turn(void)
{
	bool waits = false;
	int db;

	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		local_database(db);
		waits |= locals[db].ending;
	}
	return waits;
}

static void
local_database(int db)
{
	const DatabaseSlot *slot = &dsched_shared->databases[db];
	Local *mine = &locals[db];
	pid_t scheduler;
	bool wanted;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	scheduler = slot->scheduler_pid;
	wanted = slot->state == SCHEDULER_RUNNING && scheduler != 0 && slot->local_wanted;
	/* the scheduler finds that etcd is another one, too, but perhaps later than we */
	if (dsched_clustered() && slot->incarnation[0] != '\0' && dsched_shared->incarnation[0] != '\0')
		wanted = wanted && strcmp(slot->incarnation, dsched_shared->incarnation) == 0;
	LWLockRelease(dsched_shared->control_lock);
	wanted = wanted && !must_end() && (mine->given || may_begin());

	if (mine->given && (!wanted || scheduler != mine->scheduler))
		take_all(db);
	if (mine->ending && !commits(db))
	{
		int p;

		for (p = 0; p < places_all(); p++)
			if (place_is_local(p))
				fence_forget(db, p);
		mine->ending = false;
	}
	if (!mine->given && !mine->ending && wanted)
		give_all(db, scheduler);
	if (mine->given && !dsched_clustered())
		follow_places(db);
}

static bool
commits(int db)
{
	return !fence_quiet(db, dsched_clustered() ? place_each() : -1);
}

/* Is it given whatever the labels are? */
static bool
is_given(int partition)
{
	return partition == place_each() || (!dsched_clustered() && partition < dsched_partitions);
}

static void
give(int db, int partition)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(slot->owner, dsched_my_node(), sizeof(slot->owner));
	slot->owner_epoch = DSCHED_STANDALONE_TOKEN;
	LWLockRelease(dsched_shared->control_lock);
	fence_grant(db, partition, DSCHED_STANDALONE_TOKEN);
}

static void
give_all(int db, pid_t scheduler)
{
	int p;

	for (p = 0; p < places_all(); p++)
		if (is_given(p))
			give(db, p);
	locals[db].given = true;
	locals[db].scheduler = scheduler;
}

static void
take_all(int db)
{
	int p;

	for (p = 0; p < places_all(); p++)
		if (place_is_local(p))
			fence_partition(db, p);
	locals[db].given = false;
	locals[db].ending = true;
}

/* ---- selectors, standalone --------------------------------------------------------------------- */

static void
follow_places(int db)
{
	int place;

	for (place = 0; place < DSCHED_MAX_PLACES; place++)
		follow_place(db, place);
}

static void
follow_place(int db, int place)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	PlaceSlot *mine = &slot->places[place];
	PartitionPhase phases[DSCHED_PLACE_PARTITIONS];
	bool used = false;
	bool ours;
	int i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (mine->selector[0] == '\0')
	{
		LWLockRelease(dsched_shared->control_lock);
		return;
	}
	mine->matches = selector_matches(mine->selector, dsched_node_labels, dsched_my_node()) ? 1 : 0;
	mine->known = true;
	ours = mine->wanted && mine->matches > 0;
	for (i = 0; i < DSCHED_PLACE_PARTITIONS; i++)
	{
		PartitionSlot *partition = &slot->partitions[place_first(place) + i];

		if (!ours && (partition->phase == PARTITION_OWNED || partition->phase == PARTITION_ACTIVE))
			partition->phase = PARTITION_RELEASING;
		phases[i] = partition->phase;
		used |= phases[i] != PARTITION_NONE;
	}
	if (!mine->wanted && !used)
		memset(mine, 0, sizeof(PlaceSlot));
	LWLockRelease(dsched_shared->control_lock);

	for (i = 0; i < DSCHED_PLACE_PARTITIONS; i++)
	{
		if (phases[i] == PARTITION_RELEASED)
		{
			LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
			slot->partitions[place_first(place) + i].owner[0] = '\0';
			slot->partitions[place_first(place) + i].owner_epoch = 0;
			LWLockRelease(dsched_shared->control_lock);
			fence_forget(db, place_first(place) + i);
			/* when all of them are, the place may be free */
			dsched_wake_coordinator();
		}
		else if (phases[i] == PARTITION_NONE && ours)
			give(db, place_first(place) + i);
	}
	if (used && !ours)
		dsched_wake_scheduler(db);
}
