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
place_short_name(int db, int partition, char *out)
{
	int			place = place_of(partition);
	char		selector[SELECTOR_MAX + 1];

	if (place < 0 || place >= DSCHED_MAX_PLACES)
	{
		/* local ones are in no name */
		keys_short_place(place == PLACE_IS_ANY ? KEYS_PLACE_ANY : PLACE_EACH, out);
		return;
	}
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	strlcpy(selector, dsched_shared->databases[db].places[place].selector, sizeof(selector));
	LWLockRelease(dsched_shared->control_lock);
	keys_short_place(selector, out);
}

int64
place_move_margin(void)
{
	return dsched_max_clock_skew * INT64CONST(1000) + HEARING_US;
}
