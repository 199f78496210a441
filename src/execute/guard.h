/*
 * guard.h
 *	  Commits that happen only while the run's ownership holds.
 */
#ifndef DSCHED_GUARD_H
#define DSCHED_GUARD_H

#include "shared.h"

/* Once per process, before the first run. */
extern void guard_init(ExecutorSlot *my_slot);

/* From here to guard_end(), commits are made for this run's token. */
extern void guard_begin(const RunToken *token);
extern void guard_end(void);

/* ERROR if ownership is lost, or the run is to end (ending.h). */
extern void guard_check(void);

/* Do commits inside the statement that runs now (of a procedure, of COMMIT) check ownership? */
extern void guard_arm(bool armed);

/* After an error: what is committed from here on is the record of it. */
extern void guard_disarm(void);

/* CommitTransactionCommand(); ERROR, and nothing committed, if guard_check() would raise one. */
extern void guard_commit(void);

/* The same without the check, but so that a fencer waits for it: for what cannot be taken back any more. */
extern void guard_commit_unchecked(void);

/* Prepares the open block's transaction under this name, as the extension's owner; ERROR as in guard_commit(). */
extern void guard_prepare(const char *gid);

/* ERROR as if the check had failed. */
extern void guard_trip(void) pg_attribute_noreturn();

/* Has a check failed since guard_begin()? */
extern bool guard_tripped(void);

/* Was the run cancelled because its right was taken away? */
extern bool guard_was_fenced(void);

#endif /* DSCHED_GUARD_H */
