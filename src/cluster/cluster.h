/*
 * cluster.h
 *	  What the parts of the coordinator know of each other.
 *
 * All of it lives in one process and needs no locking among itself; what is published is in shared memory
 * (shared.h).  Nothing here waits: each part is a state machine whose *_advance() function is called after every
 * wake-up, does what can be done now, and returns the boot time at which it wants to be called again without
 * having been woken (DSCHED_NEVER: not at all).  Answers of etcd arrive between two calls, from within
 * loop_wait(); their callbacks note what they say, and the next call acts on it.
 *
 *	  coordinator.c	 the process: loop, signals, standalone mode, leaving in order
 *	  session.c				 the session's steps, lease, node key, heartbeat, deadline
 *	  session_config.c		 whose etcd it is: config, incarnation, revisions
 *	  recover.c				 a new incarnation, when somebody asks for it
 *	  session_predecessor.c	 a node key of our name that is not ours
 *	  session_resume.c		 going on under the lease of a former session
 *	  session_clock.c		 is the wall clock right?
 *	  membership.c			 which databases take part, and who should own which partition
 *	  membership_watch.c	 what nodes, members and owners there are
 *	  membership_claim.c	 our member and owner keys
 *	  compaction.c			 etcd's history and its size
 *	  membership_roles.c	 roles that a member lacks
 *	  local.c				 partitions that need no etcd
 *	  fence.c				 the shared-memory side of ownership: granting and taking away
 *	  node.c				 what an instance says of itself in its node key
 */
#ifndef DSCHED_CLUSTER_H
#define DSCHED_CLUSTER_H

#include "etcd/client.h"
#include "loop.h"
#include "shared.h"

/* ---- coordinator.c --------------------------------------------------------------------------- */

extern DschedLoop *cluster_loop;
extern EtcdClient *cluster_client; /* NULL in standalone mode */

extern PGDLLEXPORT void dsched_coordinator_main(Datum arg);

/* Where a problem of the instance comes from; people see the first of these that has one. */
typedef enum ProblemSource
{
	PROBLEM_OF_SESSION,
	PROBLEM_OF_SPACE,
	PROBLEM_OF_CLOCK,
	PROBLEM_OF_WATCH,
	PROBLEM_SOURCES
} ProblemSource;

/* What it is: a text may change with each try, but only another kind is written to the log. */
typedef enum ProblemKind
{
	PROBLEM_NONE,
	PROBLEM_UNREACHABLE, /* these six: etcd cannot be used, see cluster_access_problem() */
	PROBLEM_TLS,
	PROBLEM_SECURITY,
	PROBLEM_AUTH,
	PROBLEM_PERMISSION,
	PROBLEM_NO_SPACE,
	PROBLEM_REPLACED,
	PROBLEM_CONFIG,
	PROBLEM_NODE_INVALID,
	PROBLEM_NAME_HELD,
	PROBLEM_NAME_IN_USE,
	PROBLEM_CLOCK_SKEW,
	PROBLEM_CLOCK_STEP,
	PROBLEM_WATCH,
	PROBLEM_TOO_MANY_MEMBERS
} ProblemKind;

extern void cluster_problem(ProblemSource source, ProblemKind kind, const char *hint, const char *fmt,
							...) pg_attribute_printf(4, 5);
extern void cluster_no_problem(ProblemSource source);

/* What a call that failed says about the way to etcd, with a hint for it; and whether a problem is such a one. */
extern ProblemKind cluster_access_problem(const EtcdResponse *r, char *hint, size_t size);
extern bool cluster_is_access_problem(ProblemKind kind);
extern ProblemKind cluster_problem_kind(ProblemSource source);

/* When to try again after so many failures in a row: backed off up to max, with jitter. */
extern int64 cluster_retry_at(int failures, int64 max_us);

/* The time that one call to etcd may take, over all endpoints; several fit into the lease's life. */
extern int cluster_timeout_ms(void);

/* The process that has no memory exits and is started again. */
extern void cluster_need_memory(const void *pointer);

/* The earlier of two boot times. */
static inline int64
cluster_earlier(int64 a, int64 b)
{
	return a < b ? a : b;
}

/* ---- session.c ------------------------------------------------------------------------------- */

extern void session_start(void);
extern int64 session_advance(int64 now);

/* Proven and not lapsed: may ask for more than it has. */
extern bool session_usable(void);
extern int64 session_id(void);	  /* 0: none */
extern int64 session_lease(void); /* 0: none */
extern int64 session_ttl_us(void);

/* The session is over: fences everything at once and begins anew. */
extern void session_lost(const char *why);

/* Something hints at the session's end: ask etcd now. */
extern void session_check(void);

/* It has another config now, or may have. */
extern void session_look_at_config(void);

/* A revision that etcd has certainly reached. */
extern void session_saw_revision(int64 revision);

/* Does it wait for the commits of a former session? */
extern bool session_is_fencing(void);

/* For leaving: no more calls but these.  A revocation has ended when session_revoking() says no. */
extern void session_stop(void);
extern void session_keep_alive(void);
extern void session_revoke(void);
extern bool session_revoking(void);

/* ---- session_clock.c ------------------------------------------------------------------------- */

/* The wall clock was set. */
extern void session_clock_stepped(void);

/* Has the clock been in doubt so long that the partitions are better off elsewhere? */
extern bool session_clock_untrusted(int64 now);

/* ---- recover.c ------------------------------------------------------------------------------- */

extern void recover_start(void);
extern int64 recover_advance(int64 now);

/* ---- membership.c ---------------------------------------------------------------------------- */

extern void membership_init(void);

/* A session begins; it is over (or the process leaves) and nothing is ours any more. */
extern void membership_begin(void);
extern void membership_end(void);

/*
 * Before a session begins: the database of this name goes on with the member and owner keys that are there, under the
 * lease that will be the session's; false: it has no scheduler here.  Or none does.
 */
extern bool membership_keep(const char *database);
extern void membership_keep_none(void);

/* For leaving: no more calls; what is in shared memory stays. */
extern void membership_stop(void);
extern int64 membership_advance(int64 now);

/* Does it wait for commits of partitions that are to be given up? */
extern bool membership_is_fencing(void);

/* After a proven heartbeat, whose transaction was this revision (0: it wrote nothing): asks the schedulers for a sign of life. */
extern void membership_heartbeat(int64 now, int64 revision);

/* ---- membership_watch.c ---------------------------------------------------------------------- */

/*
 * For the re-validation after a lapse: adds reads of all owner keys to a transaction, and drops what is not ours any
 * more by its answer, the first of these reads being its operation number 'first'.  False: the answer makes no sense.
 */
extern void membership_add_reads(EtcdTxn *txn);
extern bool membership_validate(const cJSON *body, int first, int64 revision);

/* By all that is known, has this instance the lowest name of those in the cluster? */
extern bool membership_is_lowest(void);

/* ---- compaction.c ---------------------------------------------------------------------------- */

/* After a proven heartbeat, when etcd was at this revision. */
extern void compaction_heartbeat(int64 now, int64 revision);
extern void compaction_stop(void);

/* ---- local.c --------------------------------------------------------------------------------- */

extern void local_init(void);
extern bool local_turn(void);

/* ---- fence.c --------------------------------------------------------------------------------- */

extern void fence_reset(void);

/* Hands a partition to its database's scheduler, or offers it again to a new one. */
extern void fence_grant(int db, int partition, int64 epoch);

/* Takes the right away, then the runs.  Whoever may give the key away has to wait for fence_quiet(). */
extern void fence_partition(int db, int partition);
extern void fence_session(void);

/* Ends the ownership in shared memory: epoch 0, phase NONE; of all that is in etcd; of all. */
extern void fence_forget(int db, int partition);
extern void fence_forget_shared(void);
extern void fence_forget_all(void);

/* Is no executor inside the commit of such a run (partition, db: -1 is any)?  If not, our latch will be set. */
extern bool fence_quiet(int db, int partition);

/* Nothing is waited for any more. */
extern void fence_settled(void);

/* After the postmaster's death: kills all executors and waits until they are gone; no locks. */
extern bool fence_kill_executors(int timeout_ms);

#endif /* DSCHED_CLUSTER_H */
