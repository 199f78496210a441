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

int64
place_move_margin(void)
{
	return dsched_max_clock_skew * INT64CONST(1000) + HEARING_US;
}
