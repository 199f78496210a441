/*
 * delivery.h
 *	  How an executor comes to a key in etcd: it asks, its scheduler, which has the connection, sends and answers.
 *
 * The question is in the entry of the run (RunEntry.decision, under queue_lock):
 *
 *	  NONE --executor--> ASKED --scheduler--> SENT --scheduler--> GRANTED, REFUSED, TAKEN
 *
 * What is ASKED can be taken back; of what is SENT nobody knows whether etcd has it, or will, so only an answer ends it.  An
 * executor that cannot wait for that leaves the run in doubt.  A scheduler that starts sends again what a former one has
 * SENT, which does no harm, as a key says whose it is.
 */
#ifndef DSCHED_DELIVERY_H
#define DSCHED_DELIVERY_H

#include "core/gid.h"
#include "core/keys.h"
#include "shared.h"

/* The run as keys name it. */
extern void delivery_run_name(const RunKey *key, int db, int partition, RunName *out);

/* The run of an entry, in the place that its partition was of when it was queued. */
extern void delivery_entry_name(const RunEntry *entry, RunName *out);

/* Is it etcd that says whether runs of this partition may begin, or commit? Else the rows of this instance do. */
extern bool delivery_is_shared(int partition);

/*
 * What tells this attempt, under this right, from all others: the gid of its prepared transaction (exactly_once), or the id of its
 * claim (at_most_once).  False: it cannot be named (no cluster yet).  id: of GID_MAX bytes.
 */
extern bool delivery_id(const RunEntry *entry, char *id);

/* Executor: asks, and waits; also returns NONE, taken back as the run is to end, or SENT, in doubt. */
extern Decision delivery_ask(RunEntry *entry, bool (*to_end) (void));

/*
 * Scheduler: copies of what was asked, now SENT, and the indexes of the entries; or, at its start, of what a former one had sent
 * (again).
 */
extern int	delivery_take(int db, RunEntry *out, int *index, int max, bool again);

/* Scheduler: does the executor of this entry still wait for an answer?  *session_bound: as it is now. And the answer. */
extern bool delivery_is_waited_for(int index, const RunKey *key, bool *session_bound);
extern void delivery_answer(int index, const RunKey *key, Decision decision);

/* Scheduler: is an executor of this database at the run whose prepared transaction this is? */
extern bool delivery_has_executor(int db, const char *gid);

/*
 * Executor, for the tests: stops here, as if the machine had, if dsched.test_stop_at names the point.  A debugger would do, but the
 * instants between two calls of the server have to be hit each time.
 */
extern void delivery_test_point(const char *point);

#endif							/* DSCHED_DELIVERY_H */
