/*
 * placement.c
 *	  Which partition a job is in: its place, by run_on, and the partitions of places.
 *
 * places.h has the index.  A selector gets one of the database's places with the first job that has it, by an entry in
 * shared memory, upon which the coordinator of each instance that matches begins to claim its partitions; with its last
 * job it is not wanted any more, and the coordinator frees it when nothing of it is ours.  A selector that finds no
 * place puts its jobs nowhere: they are not run, say so, and lose nothing, as nobody accounts for their slots; they move
 * when a place becomes free.
 *
 * A job of a selector is in one of four partitions by the hash of its names, as all jobs are in one of those of "any".
 * That hash is not the one in the keys of definitions and requests, which stay what they are, wherever the job is.
 *
 * Entries are under control_lock.  As long as we have jobs in a place its entry is ours alone, so what is remembered here
 * of it needs no lock.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "places.h"
#include "schedule/scheduler.h"

typedef struct Place
{
	char		selector[SELECTOR_MAX + 1];
	int			jobs;
	bool		wanted;			/* as the entry says */
} Place;

/* Where the key of a request is, of a partition that is not of "any". */
typedef struct RequestKey
{
	int64		trigger_id;		/* hash key */
	int			partition;
} RequestKey;

static Place places[DSCHED_MAX_PLACES];
static int	each_jobs = 0;
static int	nowhere_jobs = 0;
static bool changed = false;
static HTAB *request_keys = NULL;

/* ---- names of partitions ------------------------------------------------------------------------ */

const char *
partition_place(int partition)
{
	int			place = place_of(partition);

	if (place == PLACE_IS_ANY)
		return KEYS_PLACE_ANY;
	return place < DSCHED_MAX_PLACES ? places[place].selector : PLACE_EACH;
}

/* The partition that a name of a run means here; -1: none that we know. */
int
placement_partition(const RunName *name)
{
	char		place[KEYS_SHORT_PLACE];

	if (strcmp(name->place, KEYS_PLACE_ANY) == 0)
		return name->partition < dsched_partitions ? name->partition : -1;
	if (name->partition >= DSCHED_PLACE_PARTITIONS)
		return -1;
	for (int i = 0; i < DSCHED_MAX_PLACES; i++)
	{
		if (places[i].jobs == 0)
			continue;
		keys_short_place(places[i].selector, place);
		if (strcmp(place, name->place) == 0)
			return place_first(i) + name->partition;
	}
	return -1;
}

bool
partition_is_local(const Partition *partition)
{
	return scheduler.etcd == NULL || place_is_local(partition->number);
}

/* ---- jobs ---------------------------------------------------------------------------------------- */

static int
our_place(const char *selector)
{
	for (int i = 0; i < DSCHED_MAX_PLACES; i++)
		if (places[i].jobs > 0 && strcmp(places[i].selector, selector) == 0)
			return i;
	return -1;
}

/* The place of a selector of which we have no job yet; -1: all are taken. */
static int
enter_place(const char *selector)
{
	int			place;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	place = place_find(scheduler.slot, selector);
	if (place < 0)
		place = place_find(scheduler.slot, "");
	if (place >= 0)
	{
		PlaceSlot  *entry = &scheduler.slot->places[place];

		strlcpy(entry->selector, selector, sizeof(entry->selector));
		entry->wanted = true;
	}
	LWLockRelease(dsched_shared->control_lock);
	if (place >= 0)
	{
		strlcpy(places[place].selector, selector, sizeof(places[place].selector));
		places[place].wanted = true;
		dsched_wake_coordinator();
	}
	return place;
}

int
placement_enter(const char *run_on, const char *username, const char *job_name)
{
	char	   *selector;
	int			place;

	changed = true;
	if (run_on == NULL)
		return sync_partition(username, job_name, dsched_partitions);
	if (strcmp(run_on, PLACE_EACH) == 0)
	{
		each_jobs++;
		return place_each();
	}
	selector = sync_to_utf8(run_on);
	place = selector != NULL && strlen(selector) <= SELECTOR_MAX ? our_place(selector) : -1;
	if (place < 0 && selector != NULL && strlen(selector) <= SELECTOR_MAX && strchr(selector, '=') != NULL)
		place = enter_place(selector);
	if (place < 0)
	{
		nowhere_jobs++;
		return place_nowhere();
	}
	places[place].jobs++;
	return place_first(place) + sync_partition(username, job_name, DSCHED_PLACE_PARTITIONS);
}

void
placement_leave(int partition)
{
	int			place = place_of(partition);

	changed = true;
	if (place == PLACE_IS_EACH)
		each_jobs--;
	else if (place == PLACE_IS_NOWHERE)
		nowhere_jobs--;
	else if (place != PLACE_IS_ANY)
		places[place].jobs--;
}

char *
placement_problem(void)
{
	return psprintf("there are jobs with %d other selectors (run_on) already; it is not run before one of these is free",
					DSCHED_MAX_PLACES);
}

/* A place is free, perhaps: the jobs that found none try again. */
static void
try_again(Job *job, void *arg)
{
	timetable_replace(job);
}

void
placement_turn(void)
{
	static int	nowhere_seen = 0;
	bool		room;

	/* before all jobs are known nothing is given up */
	if (!sync_loaded())
		return;
	if (nowhere_jobs > 0)
	{
		LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
		room = place_find(scheduler.slot, "") >= 0;
		LWLockRelease(dsched_shared->control_lock);
		/* or one of their selectors has got one by another job */
		if (room || changed)
			timetable_each(place_nowhere(), try_again, NULL);
	}
	if (!changed && nowhere_seen == nowhere_jobs)
		return;
	changed = false;
	lacking_definitions_changed();
	nowhere_seen = nowhere_jobs;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->each_jobs = each_jobs;
	scheduler.slot->nowhere_jobs = nowhere_jobs;
	for (int i = 0; i < DSCHED_MAX_PLACES; i++)
	{
		PlaceSlot  *entry = &scheduler.slot->places[i];

		if (places[i].jobs > 0 || entry->selector[0] == '\0' || !entry->wanted)
			continue;
		/* also one that a scheduler before us has left */
		entry->wanted = places[i].wanted = false;
		dsched_wake_coordinator();
	}
	LWLockRelease(dsched_shared->control_lock);
}

/* ---- requests -------------------------------------------------------------------------------------- */

void
placement_note_request(int64 trigger_id, int key_partition)
{
	RequestKey *entry;

	if (request_keys == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int64);
		ctl.entrysize = sizeof(RequestKey);
		ctl.hcxt = scheduler.context;
		request_keys = hash_create("dsched request keys", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(request_keys, &trigger_id, HASH_ENTER, NULL);
	entry->partition = key_partition;
}

/* The partition in the key of a request that is done with. */
int
placement_request_key(const Partition *partition, int64 trigger_id)
{
	RequestKey *entry = request_keys != NULL ? hash_search(request_keys, &trigger_id, HASH_FIND, NULL) : NULL;

	return entry != NULL ? entry->partition : place_number(partition->number);
}

void
placement_forget_request(int64 trigger_id)
{
	if (request_keys != NULL)
		(void) hash_search(request_keys, &trigger_id, HASH_REMOVE, NULL);
}
