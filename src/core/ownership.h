/*
 * ownership.h
 *	  Which member of a group should own which partition: advice that every instance computes alike.
 */
#ifndef DSCHED_CORE_OWNERSHIP_H
#define DSCHED_CORE_OWNERSHIP_H

/*
 * Sets owner[p], for p in 0..partitions-1, to the index in members of the one that should own
 * partition p, or to -1 if there is no member.  The result, as names, depends on the set of names
 * and the number of partitions only; no member gets more than ceil(partitions / nmembers).  Names
 * must differ.
 */
extern void ownership_assign(const char *const *members, int nmembers, int partitions, int *owner);

/*
 * The same for the partitions of a place: so that those of different places do not all go to the same members.  For
 * the place "any" it is ownership_assign().
 */
extern void ownership_assign_place(const char *place, const char *const *members, int nmembers, int partitions,
								   int *owner);

#endif /* DSCHED_CORE_OWNERSHIP_H */
