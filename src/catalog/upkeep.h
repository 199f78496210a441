/*
 * upkeep.h
 *	  Rare work on all of the tables at once: for CREATE EXTENSION, dsched.adopt() and dsched.status().
 */
#ifndef DSCHED_UPKEEP_H
#define DSCHED_UPKEEP_H

#include "catalog/catalog.h"

/* The identity that a database has here and now: this server, this database, this mode, nothing of a cluster yet. */
extern void identity_here(Identity *out);

/* What of a stored identity does not fit; NULL: nothing. A palloc'd sentence. */
extern char *identity_mismatch(const Identity *stored);

/* Writes the first identity row, from the extension's script: with the rights of whoever runs that. */
extern void identity_create(void);

/* Says in the identity row that the jobs sleep until dsched.adopt(), and why. */
extern void identity_hold(const char *why);

/* Empties dsched.outbox and dsched.partition_state. */
extern void forget_accounts(void);

/*
 * Marks all jobs as changed in this alone, but for those that have something unpublished anyway (and all that is published is
 * signed); how many.
 */
extern uint64 job_mark_all(const char *what);

/* Empties dsched.partition_state alone, but for one place. */
extern void forget_states(const char *but);

/* Jobs with a problem, by name; only job_id, username, job_name and problem are set. */
extern List *job_read_broken(void); /* of JobRow * */

#endif							/* DSCHED_UPKEEP_H */
