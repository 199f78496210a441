/*
 * queue_internal.h
 *	  What queue.c (runs and lanes) and pool.c (executors) share.  The caller holds queue_lock.
 */
#ifndef DSCHED_QUEUE_INTERNAL_H
#define DSCHED_QUEUE_INTERNAL_H

#include "shared.h"

/* Does x go before y: a lower rank, or the same and pushed earlier? */
extern bool queue_goes_before(const RunEntry *x, const RunEntry *y);

/* The entry of a lane that is taken after 'skip' others, or NULL.  Costs O(skip log queued). */
extern const RunEntry *queue_peek(int lane, int skip);

/* The lanes of a role lie together: the first of its bucket, others by next_of_role; -1 ends. */
extern int	queue_role_bucket(Oid roleoid);

/* Takes the first entry out of a lane's heap; -1: it is empty. */
extern int	queue_pop(int lane);

/* Puts an entry into its database's finished list and wakes whom that concerns. */
extern void queue_finish_entry(int e);

/* Nothing waits in it and nobody is bound to it: it can be another's. */
extern void queue_free_lane_if_unused(int lane);

/* pool.c: an executor takes a run of its lane. */
extern void pool_note_take(const ExecutorSlot *executor);

/* The only way to change an executor's state: the counts of its lane follow. */
extern void queue_set_executor(ExecutorSlot *executor, ExecutorState state, bool called, bool retire);

#endif							/* DSCHED_QUEUE_INTERNAL_H */
