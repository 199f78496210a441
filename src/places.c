/*
 * places.c
 *	  Places: the sets of instances that may run a job, and the partitions that each of them has.
 */
#include "postgres.h"

#include "places.h"

#define HEARING_US INT64CONST(1000000)

int
place_find(const DatabaseSlot *slot, const char *selector)
{
	for (int i = 0; i < DSCHED_MAX_PLACES; i++)
		if (strcmp(slot->places[i].selector, selector) == 0)
			return i;
	return -1;
}

void
place_name(int db, int partition, char *out)
{
	int			place = place_of(partition);

	if (place < 0 || place >= DSCHED_MAX_PLACES)
	{
		/* local ones are in no name */
		strlcpy(out, place == PLACE_IS_ANY ? KEYS_PLACE_ANY : PLACE_EACH, SELECTOR_MAX + 1);
		return;
	}
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	strlcpy(out, dsched_shared->databases[db].places[place].selector, SELECTOR_MAX + 1);
	LWLockRelease(dsched_shared->control_lock);
	if (out[0] == '\0')
		strlcpy(out, PLACE_NONE, SELECTOR_MAX + 1);
}

void
place_short_name(int db, int partition, char *out)
{
	char		place[SELECTOR_MAX + 1];

	place_name(db, partition, place);
	keys_short_place(place, out);
}

int64
place_move_margin(void)
{
	return dsched_max_clock_skew * INT64CONST(1000) + HEARING_US;
}
