/*
 * places.h
 *	  Places: the sets of instances that may run a job, and the partitions that each of them has.
 *
 * A database's partitions are numbered by one index, in shared memory and in each scheduler:
 *
 *	  0 .. dsched.partitions - 1	those of the place "any"
 *	  then 4 for each of 16 places	those of selectors; which selector has which place is up to the instance (PlaceSlot)
 *	  then one						that of "each": local, never in etcd, its account is in the table
 *	  then one						"nowhere": jobs whose selector found no place. Nobody ever owns it
 *
 * In etcd a partition is named by its place and by its number within that.
 */
#ifndef DSCHED_PLACES_H
#define DSCHED_PLACES_H

#include "core/keys.h"
#include "settings.h"
#include "shared.h"

#define PLACE_EACH "each"
/* No selector is without "=". */
#define PLACE_NONE "none"

/* What place_of() says of an index, beside the number of a selector's place. */
#define PLACE_IS_ANY (-1)
#define PLACE_IS_EACH DSCHED_MAX_PLACES
#define PLACE_IS_NOWHERE (DSCHED_MAX_PLACES + 1)

/* The first partition of a selector's place. */
static inline int
place_first(int place)
{
	return dsched_partitions + place * DSCHED_PLACE_PARTITIONS;
}

static inline int
place_each(void)
{
	return place_first(DSCHED_MAX_PLACES);
}

static inline int
place_nowhere(void)
{
	return place_each() + 1;
}

/* Indexes below this one are partitions that are in etcd, if there is one. */
static inline int
places_shared(void)
{
	return place_each();
}

/* All indexes are below this one. */
static inline int
places_all(void)
{
	return place_nowhere() + 1;
}

static inline int
place_of(int partition)
{
	if (partition < dsched_partitions)
		return PLACE_IS_ANY;
	if (partition < place_each())
		return (partition - dsched_partitions) / DSCHED_PLACE_PARTITIONS;
	return partition == place_each() ? PLACE_IS_EACH : PLACE_IS_NOWHERE;
}

/* Its number within its place. */
static inline int
place_number(int partition)
{
	if (partition < dsched_partitions)
		return partition;
	return partition < place_each() ? (partition - dsched_partitions) % DSCHED_PLACE_PARTITIONS : 0;
}

/* Is the account of this partition in the table alone, and its token without a lease? */
static inline bool
place_is_local(int partition)
{
	return !dsched_clustered() || partition >= place_each();
}

/* The place of a selector, or -1; "": one that is free.  Caller holds control_lock. */
extern int	place_find(const DatabaseSlot *slot, const char *selector);

/*
 * The place of a partition (SELECTOR_MAX + 1 bytes), and as it stands in the names of runs (KEYS_SHORT_PLACE bytes).  Both take
 * control_lock.  One that is free is PLACE_NONE; one that has been given to another selector meanwhile gives that one's name.  Either
 * way what is asked for under an epoch of before is refused, as it is none of the owner key's that goes by this name.
 */
extern void place_name(int db, int partition, char *out);
extern void place_short_name(int db, int partition, char *out);

/*
 * Slots of a job that moves to another place begin this long (microseconds) after the change is published: until then the
 * instances that had it before have heard of it, and by their clocks it is not later than that.
 */
extern int64 place_move_margin(void);

#endif							/* DSCHED_PLACES_H */
