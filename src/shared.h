/*
 * shared.h
 *	  What the processes of dsched share: sessions, ownership, the run queue, executors, members.
 *
 * All of it lies in one structure of fixed size in the main shared memory segment, sized by settings that
 * need a restart.  It is lost with a crash-restart and rebuilt from the catalogs and etcd.
 *
 * Locking.  There are two LWLocks:
 *	  control_lock	 databases[], members[], strings of the coordinator
 *	  queue_lock	 entries[], lanes[], executors[], and the lists and heaps that link them
 * control_lock before queue_lock when both are needed.  Neither is held across I/O, catalog access or a wait.
 *
 * Ownership (session, deadline, each partition's epoch) is atomic and read without a lock, so that the
 * check before a commit costs nothing.  The protocol, as an executor and a fencer see it:
 *
 *	  executor: committing := 1; full barrier; check session, epoch, deadline; commit; committing := 0;
 *				and sets the coordinator's latch if fence_waiters > 0
 *	  fencer:	epoch (or session) := 0; full barrier; wait until no executor with committing = 1 has a run
 *				of what was fenced; only then delete the owner key or revoke the lease
 *
 * One of the two sees the other's write.  In standalone mode session is 1, every epoch is 1 and the
 * deadline is never.
 */
#ifndef DSCHED_SHARED_H
#define DSCHED_SHARED_H

#include "core/policy.h"
#include "datatype/timestamp.h"
#include "lib/pairingheap.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "core/keys.h"
#include "core/selector.h"

#define DSCHED_MAX_ANY 256		/* dsched.partitions at most */
#define DSCHED_MAX_PLACES 16	/* selectors of the jobs of a database */
#define DSCHED_PLACE_PARTITIONS 4	/* partitions of each of them */
#define DSCHED_MAX_PARTITIONS (DSCHED_MAX_ANY + DSCHED_MAX_PLACES * DSCHED_PLACE_PARTITIONS + 2)	/* see places.h */
#define DSCHED_MAX_NODES 64
#define DSCHED_MAX_NODE_NAME 128	/* bytes, with the NUL */
#define DSCHED_MAX_JOB_NAME 255 /* bytes, without a NUL */
#define DSCHED_MAX_COMMAND (256 * 1024) /* bytes; payload and metadata too */
#define DSCHED_PROBLEM_LEN 512
#define DSCHED_STANDALONE_TOKEN 1	/* session and epochs in standalone mode */
#define DSCHED_NEVER PG_INT64_MAX

/* ---- runs and the queue ------------------------------------------------------------------- */

typedef enum RunReason
{
	RUN_SCHEDULE,				/* its slot came due */
	RUN_CATCH_UP,				/* the newest of the slots that were missed */
	RUN_MANUAL,					/* run_now() */
	RUN_RECOVERY,				/* an attempt before it was lost */
	RUN_RETRY,					/* an attempt before it failed */
	RUN_BACKFILL				/* backfill() */
} RunReason;

typedef enum RunStatus
{
	RUN_STATUS_NONE,			/* not over, or its row was not written */
	RUN_RUNNING,				/* only in start rows */
	RUN_SUCCEEDED,
	RUN_FAILED,
	RUN_TIMED_OUT,
	RUN_CANCELLED,
	RUN_LOST,
	RUN_SKIPPED,
	RUN_MISSED
} RunStatus;

extern const char *run_reason_name(RunReason reason);
extern const char *run_status_name(RunStatus status);

/* The primary key of dsched.run. */
typedef struct RunKey
{
	TimestampTz scheduled_for;
	int64		job_id;
	int64		trigger_id;		/* 0: the schedule itself */
	int32		attempt;		/* from 1 */
} RunKey;

static inline bool
run_key_same(const RunKey *a, const RunKey *b)
{
	return a->job_id == b->job_id && a->scheduled_for == b->scheduled_for &&
		a->trigger_id == b->trigger_id && a->attempt == b->attempt;
}

/* The right under which a run was started; all three must still hold when it commits (but see RunEntry.session_bound). */
typedef struct RunToken
{
	uint64		session;
	uint64		epoch;
	int			db;				/* index into databases[] */
	int			partition;
} RunToken;

typedef enum EntryState
{
	ENTRY_FREE,					/* in the free list */
	ENTRY_QUEUED,				/* in its lane's heap */
	ENTRY_RUNNING,				/* an executor has it */
	ENTRY_FINISHED				/* in its database's finished list, for the scheduler to take */
} EntryState;

/*
 * What an executor asks of etcd, by way of its scheduler: to begin (at_most_once), to commit (exactly_once).  Under queue_lock.
 * See delivery.h.
 */
typedef enum Decision
{
	DECISION_NONE,				/* not asked, or taken back in time */
	DECISION_ASKED,				/* E: nobody but us knows of it */
	DECISION_SENT,				/* S: etcd may have been told, or will be */
	DECISION_GRANTED,			/* S: the key is there, and ours */
	DECISION_REFUSED,			/* S: the key is not there, and can never be: ownership was lost */
	DECISION_TAKEN				/* S: the key is there, and another's */
} Decision;

/*
 * One run between "decided" and "accounted for".  The scheduler fills an entry and takes it back; an
 * executor that has it RUNNING alone writes the fields of the outcome.  State and links change under
 * queue_lock.
 */
typedef struct RunEntry
{
	EntryState	state;
	int			next;			/* FREE, FINISHED: index of the next in that list; -1 ends */
	int			lane;
	pairingheap_node waiting;	/* QUEUED: its place in the lane's heap */
	int64		seq;			/* counts pushes: of equal ranks the first pushed is taken first */
	/* set by the scheduler */
	RunKey		key;
	RunToken	token;
	int64		gen;
	RunReason	reason;
	int64		rank;			/* lower is taken first: see schedule/order.c */
	bool		start_row;		/* commit a row with status running before it starts (recovery) */
	DeliveryMode delivery;		/* as its job had it when it was pushed */
	char		place[KEYS_SHORT_PLACE];	/* of its partition, as in names of runs: another selector may get the partition's index */
	bool		awaited;		/* something can start when it has ended: wake the scheduler at once. Under queue_lock */
	bool		session_bound;	/* handed over alive: its right is the session's alone, whoever owns the partition.
								 * Set under queue_lock, before the epoch is cleared */
	TimestampTz queued_at;
	/* set by the executor */
	int			executor;		/* index into executors[]; -1. Under queue_lock */
	int			pid;
	TimestampTz started_at;		/* 0: not started */
	RunStatus	status;			/* NONE: not recorded, the scheduler must look for the row */
	bool		not_applicable; /* the table's row has another generation, or none: not started, try later */
	TimestampTz finished_at;	/* with a status */
	XLogRecPtr	commit_lsn;		/* end of the recording commit; report only what is flushed */
	Decision	decision;
	bool		claimed;		/* at_most_once: its key is there, or may be */
	bool		prepared;		/* exactly_once: its prepared transaction is left to be settled */
	bool		timed_out;		/* no row says so: its process was ended because the run was too long */
	bool		cancelled;		/* it was to end, and there is no row that says so; or its process was ended for that */
	bool		cannot_start;	/* no executor comes up for its role; sqlstate and message say why */
	char		sqlstate[6];	/* of an outcome that could not be recorded by the executor */
	char		message[256];
} RunEntry;

/* The queue of one (database, role): what executors bound to it take from. */
typedef struct Lane
{
	Oid			dboid;			/* InvalidOid: free */
	Oid			roleoid;
	int			db;
	int			prev,
				next;			/* in the list of lanes in use; next also in that of free ones; -1 ends */
	int			next_of_role;	/* in its bucket of lane_buckets, where lanes are found by role; -1 ends */
	pairingheap_node *waiting;	/* root of the heap of its entries, lowest rank first; NULL */
	int			queued;			/* entries in the heap */
	int64		worst_rank;		/* none of them has a higher one */
	int			executors;		/* bound to it, whatever they are doing */
	int			idle;			/* of those, waiting for work, and not told of any */
	int			coming;			/* of those, starting or called: about to take an entry */
	int			starting;		/* of those that are coming, the ones that are not up yet */
	int64		started_at;		/* boot time at which the last of them was registered */
	int			busy;			/* of its executors, making a run */
	int64		served;			/* executor time that it has had, on the clock of its database: see pool.c */
	int			failed_starts;	/* in a row; reset by an executor that comes up */
	int64		retry_at;		/* boot time before which no new executor is started for it */
	char		last_error[256];	/* why the last executor could not start; "" */
	char		last_sqlstate[6];
} Lane;

/* ---- executors ---------------------------------------------------------------------------- */

typedef enum ExecutorState
{
	EXECUTOR_FREE,
	EXECUTOR_STARTING,			/* registered, not yet in its main loop */
	EXECUTOR_IDLE,
	EXECUTOR_BUSY
} ExecutorState;

typedef struct ExecutorSlot
{
	ExecutorState state;
	bool		called;			/* IDLE, but told that there is work */
	uint64		generation;		/* of this use of the slot; passed to the worker, checked by it */
	pid_t		pid;
	PGPROC	   *proc;			/* for its latch; NULL before it is up */
	int			lane;
	Oid			dboid,
				roleoid;
	int			entry;			/* what it runs; -1 */
	int64		started_at;		/* boot time of registration: a start that hangs is noticed */
	int64		start_took;		/* from its registration until it was up */
	int64		charged_until;	/* boot time up to which its lane was charged */
	int64		idle_since;		/* IDLE: boot time */
	int64		looked_at;		/* boot time at which it last looked whether its place is for others */
	bool		retire;			/* asked to leave when its run ends */
	bool		fenced;			/* its run was cancelled by us: the attempt is lost, nobody wanted it to end */
	bool		cancelled;		/* its run is to end because somebody asked, or its next slot came due */
	pg_atomic_uint32 committing;	/* between its last check and the end of its commit */
} ExecutorSlot;

/* ---- databases, partitions ---------------------------------------------------------------- */

typedef enum SchedulerState
{
	SCHEDULER_NONE,				/* slot free */
	SCHEDULER_WANTED,			/* the coordinator is to start one */
	SCHEDULER_STARTING,
	SCHEDULER_RUNNING,
	SCHEDULER_STOPPED,			/* died; the coordinator restarts it at restart_at */
	SCHEDULER_ABSENT			/* looked: no extension in that database; the slot may be reused */
} SchedulerState;

/* Who moves a partition: C the coordinator, S the database's scheduler; under control_lock. */
typedef enum PartitionPhase
{
	PARTITION_NONE,				/* not ours */
	PARTITION_OWNED,			/* C: owner key is ours; S is to take over (or begin, standalone) */
	PARTITION_ACTIVE,			/* S: taken over, slots are dispatched */
	PARTITION_RELEASING,		/* C: S is to drain it and write its last state */
	PARTITION_RELEASED			/* S: drained, epoch already cleared; C deletes the owner key */
} PartitionPhase;

typedef struct PartitionSlot
{
	PartitionPhase phase;
	pg_atomic_uint64 epoch;		/* 0: not ours; C sets, whoever fences clears */
	char		owner[DSCHED_MAX_NODE_NAME];	/* who has the owner key, as the watch says; for people, and for shares of queues */
	uint64		owner_epoch;
	bool		declined;		/* S, with RELEASED: a newer version has written its account, it is for others; C takes note */
	bool		role_elsewhere; /* C: another member has all the roles of its jobs */
} PartitionSlot;

/*
 * A selector of jobs, and with it partitions; under control_lock.  S makes one, and says whether there are jobs with it; C frees
 * one that has none when its partitions are nobody's here.
 */
typedef struct PlaceSlot
{
	char		selector[SELECTOR_MAX + 1]; /* "": free */
	bool		wanted;			/* S: there are jobs with it */
	bool		known;			/* C: matches is computed */
	int			matches;		/* C: how many living members may run it */
} PlaceSlot;

#define DSCHED_MAX_LACKS 8		/* roles that an instance says it lacks */
#define DSCHED_MAX_LACKED 16	/* roles that any member does */
#define DSCHED_PARTITION_BYTES ((DSCHED_MAX_PARTITIONS + 7) / 8)

/* Roles of jobs that do not exist on an instance; in UTF-8. */
typedef struct Lacks
{
	int			n;
	char		roles[DSCHED_MAX_LACKS][NAMEDATALEN];
} Lacks;

/* A role that some member lacks: C says which, S which partitions have jobs of it. */
typedef struct LackedRole
{
	char		name[NAMEDATALEN];
	uint8		used[DSCHED_PARTITION_BYTES];
} LackedRole;

typedef struct DatabaseSlot
{
	SchedulerState state;
	Oid			dboid;
	char		dbname[NAMEDATALEN];
	uint64		generation;		/* of this use of the slot */
	pid_t		scheduler_pid;
	PGPROC	   *scheduler_proc; /* for its latch; NULL: not up */
	int64		restart_at;		/* boot time */
	int			restarts;		/* deaths in a row, for the back-off */
	int			stay_away;		/* commands under way that need the database empty */
	bool		check_again;	/* an extension may have appeared while the last candidate looked */
	bool		member_wanted;	/* S: loaded and healthy, would take partitions */
	bool		member;			/* C: its member key is in etcd */
	int			others;			/* C: other members, as of the last advice */
	/* S: what to wake it for when a run has ended; see queue_finish_entry() */
	bool		wake_on_finish; /* any run */
	bool		wake_on_first;	/* the first since it looked: no alarm of its own will make it look */
	bool		wants_room;		/* an executor without work: others may wait for a place */
	int			finished_head;	/* entries that ended, for the scheduler to take; queue_lock */
	int			nfinished;		/* how many; queue_lock */
	bool		collect;		/* it is to take them now; queue_lock */
	int			entries;		/* in the queue, whatever their state; queue_lock */
	int			queued;			/* of those, the ones that wait; queue_lock */
	int64		full_at;		/* boot time at which a run of ours found no place; 0; queue_lock */
	/* what the pool knows of it: see pool.c; queue_lock */
	int64		served;			/* executor time that it has had, on served_clock of all */
	int64		served_clock;	/* of its lanes: what the one has had that took the last run */
	int			executors;		/* last count: bound to its lanes */
	int			held;			/* of those, starting, called or busy */
	int			wanted;			/* last count: executors that its lanes could use besides */
	int			claimant;		/* of these lanes, the one that is next; -1 */
	/* coordinator asks, scheduler answers: a scheduler that hangs is found */
	pg_atomic_uint32 asked;
	pg_atomic_uint32 answered;
	/* what the identity row says; empty before a scheduler looked */
	bool		identity_known;
	char		incarnation[40];	/* "" standalone or none yet */
	int64		max_revision;	/* highest etcd revision that this database has seen */
	bool		replaced;		/* S: its etcd was found to be another one, or an older one */
	int64		beat_revision;	/* of a heartbeat of this instance that it remembers; 0: none */
	bool		doubts_etcd;	/* it has seen an older etcd, and since then no proof of the right one */
	/* for people and tests */
	char		problem[DSCHED_PROBLEM_LEN];	/* "" when all is well */
	char		hint[DSCHED_PROBLEM_LEN];
	int			asking;			/* entries that are DECISION_ASKED; queue_lock */
	uint64		bound_session;	/* S: a question that compares the session alone was sent under this one; 0 */
	int			in_doubt;		/* prepared transactions of ours that wait to be settled, */
	char		in_doubt_why[DSCHED_PROBLEM_LEN];	/* for what the first of them does, */
	char		in_doubt_hint[DSCHED_PROBLEM_LEN];	/* and what can be done */
	int			decided_elsewhere;	/* runs of our partitions of which another instance has yet to say that they are committed */
	char		decided_by[DSCHED_MAX_NODE_NAME];	/* the first of these */
	int			unpublished;	/* changes waiting for etcd */
	int			broken_jobs;	/* definitions in etcd that cannot be read or verified */
	int			unverified_jobs;	/* of those, the ones that a key of ours has not signed */
	char		key_ids[24];	/* S: of the keys that sign definitions, as sign.c writes them; "" none */
	char		key_problem[DSCHED_PROBLEM_LEN];	/* S: why the key file cannot be used; "" */
	bool		verified;		/* S: no row of dsched.job was taken from etcd without a signature; set without a lock */
	int			open_runs;		/* slots that came due and are not accounted for */
	TimestampTz processed_until;	/* all slots up to this time were looked at */
	uint64		idle_serial;	/* test clock: the scheduler's last complete look, see shared.c */
	uint64		wakeups;
	/* places: see places.h */
	PlaceSlot	places[DSCHED_MAX_PLACES];
	bool		local_wanted;	/* S: would take the local partition, whether etcd answers or not */
	int			each_jobs;		/* S: jobs that run on each instance */
	int			nowhere_jobs;	/* S: jobs whose selector found no place */
	/* roles that members lack: see schedule/lacking.c; under control_lock */
	Lacks		lacks;			/* S: we */
	uint64		lacks_version;	/* S: of that */
	uint64		lacks_told;		/* C: which of them is in our member key, and in the advice */
	LackedRole	lacked[DSCHED_MAX_LACKED];	/* any member */
	int			nlacked;
	uint64		lacked_version; /* C: of that list */
	uint64		used_for;		/* S: of which list its members 'used' are */
	uint64		used_version;	/* S: of these */
	uint64		used_told;		/* C: which of them is in the advice; 0: none */
	PartitionSlot partitions[DSCHED_MAX_PARTITIONS];
} DatabaseSlot;

/* ---- the coordinator ---------------------------------------------------------------------- */

typedef enum SessionState
{
	SESSION_STANDALONE,
	SESSION_NONE,				/* no lease: connecting, or waiting for an old one to end */
	SESSION_VALID,				/* proven; deadline says until when */
	SESSION_LAPSED,				/* the deadline passed; the lease may live, to be validated */
	SESSION_REFUSED				/* wrong partition count, replaced etcd, name in use: stays out */
} SessionState;

typedef struct MemberInfo
{
	char		name[DSCHED_MAX_NODE_NAME];
	char		host[DSCHED_MAX_NODE_NAME];
	int			port;
	char		labels[256];
	char		version[32];
	char		tzdata[32];		/* release of its time zones; "": not known */
	int64		session;		/* create_revision of its node key */
	TimestampTz joined_wall;	/* its wall clock when it last said so */
	int64		skew_ms;		/* its wall clock against ours, when last heard; 0 unknown */
} MemberInfo;

/*
 * What dsched.recover_cluster() asks of the coordinator, and what came of it; control_lock.  One at a time; an answer stays until
 * the next request.
 */
typedef enum RecoverPhase
{
	RECOVER_NONE,
	RECOVER_ASKED,
	RECOVER_UNDER_WAY,
	RECOVER_DONE,
	RECOVER_FAILED
} RecoverPhase;

typedef struct RecoverRequest
{
	RecoverPhase phase;
	uint64		number;			/* counts requests: an answer to a later one is not ours */
	char		known[40];		/* the incarnation that the caller's database has joined */
	TimestampTz resume_from;
	int			partitions;		/* asked for; 0: as they are */
	/* the answer */
	char		incarnation[40];
	int			sqlstate;
	char		message[DSCHED_PROBLEM_LEN];
	char		hint[DSCHED_PROBLEM_LEN];
} RecoverRequest;

typedef struct DschedShared
{
	LWLock	   *control_lock;
	LWLock	   *queue_lock;

	/* ownership; written by the coordinator */
	pg_atomic_uint64 session;	/* 0: none. The create_revision of the node key */
	pg_atomic_uint64 deadline;	/* boot time in us; DSCHED_NEVER standalone */
	pg_atomic_uint32 fence_waiters;
	ConditionVariable changed;	/* a worker came, went or finished a round; for those who wait for that */
	pg_atomic_uint64 incarnation_number; /* of the cluster that we are in; 0: its first, or alone */
	pg_atomic_uint64 wall_offset;	/* wall time less boot time, as an answer of etcd confirmed it last; 0: none, or standalone */
	pg_atomic_uint32 clock_suspect; /* 1: wall time is not to be trusted, start nothing */

	/* coordinator; control_lock */
	pid_t		coordinator_pid;
	PGPROC	   *coordinator_proc;
	SessionState session_state;
	int64		lease_id;
	char		incarnation[40];	/* of the cluster we are in; "" none or standalone */
	char		problem[DSCHED_PROBLEM_LEN];
	char		hint[DSCHED_PROBLEM_LEN];
	char		endpoint[256];	/* that answered last */
	int64		etcd_size;		/* bytes of its database, as it said a while ago; 0: unknown */
	int64		etcd_size_in_use;	/* of them, what a defragmentation would leave */
	int64		last_heartbeat; /* boot time of the last proven one; 0 */
	int64		heartbeat_revision; /* that it, or one before it, gave the node key */
	int64		clock_skew_ms;	/* ours against etcd's Date; 0 unknown */
	int64		max_revision;	/* highest seen */
	int64		beat_revision;	/* of the last heartbeat in that incarnation; 0: none */
	bool		replaced;		/* etcd is older than it was; what schedulers note */
	RecoverRequest recover;
	bool		launcher_done;	/* all databases were looked at once since the start */
	bool		scan_wanted;	/* look through pg_database again */
	bool		room_refused;	/* a database got no slot: look again when one becomes free */
	int			lost_registrations; /* workers that could not be registered; max_worker_processes */
	int64		lost_registration_at;	/* boot time of the last */
	uint64		coordinator_wakeups;
	int			nmembers;
	MemberInfo	members[DSCHED_MAX_NODES];

	/* the test clock */
	pg_atomic_uint64 test_clock;	/* TimestampTz */
	pg_atomic_uint64 test_serial;	/* of the last move */

	pg_atomic_uint64 generation;	/* source of generations of slots */
	char		time_zone[64];	/* the server's TimeZone, whatever a session's is; control_lock */
	/* the queue; queue_lock */
	int			free_head;		/* free entries */
	int			free_entries;	/* how many */
	int64		last_seq;
	int			lanes_used,
				lanes_free;		/* heads of the lists of lanes; -1 */
	int			lanes_waiting;	/* lanes in which a run waits */
	int			nbuckets;
	int64		served_clock;	/* of databases: what the one has had that took the last run */
	int64		no_worker_until;	/* boot time until which the server is taken to have none for us */
	int64		vacated_at;		/* boot time at which the last executor left */
	int64		fair_time;		/* round robin: highest rank that was taken; see schedule/order.c */
	uint64		fair_period;	/* round robin: number of the busy period */
	TimestampTz fair_began;		/* round robin: when it began */

	int			max_databases,
				max_executors,
				queue_size,
				max_lanes;
	/* arrays follow in the same segment */
	DatabaseSlot *databases;
	ExecutorSlot *executors;
	int		   *lane_buckets;	/* nbuckets: first lane of those with roles of this hash; -1 */
	Lane	   *lanes;			/* max_lanes: each entry and each executor can have one of its own */
	RunEntry   *entries;
} DschedShared;

extern DschedShared *dsched_shared; /* NULL: not preloaded */

/* ---- set-up --------------------------------------------------------------------------------- */

extern void dsched_shared_init(void);	/* from _PG_init: hooks for size and start-up */

/* ERROR 55000 with a hint if dsched is not in shared_preload_libraries. */
extern void dsched_require_preload(void);

/*
 * An epoch as people see it: those of a later incarnation are greater, though etcd's revisions may have begun anew.  etcd itself,
 * and whatever is compared with it, has the revision alone.
 */
#define DSCHED_EPOCH_BITS 40

static inline int64
dsched_shown_epoch(uint64 epoch)
{
	return (int64) (epoch + (pg_atomic_read_u64(&dsched_shared->incarnation_number) << DSCHED_EPOCH_BITS));
}

/* ---- wake-ups ------------------------------------------------------------------------------- */

extern void dsched_wake_coordinator(void);
extern void dsched_wake_scheduler(int db);

/*
 * For backends: at commit of the current transaction wake this database's scheduler (starting one if
 * there is none).  ERROR 0A000 if the transaction is then prepared instead (nobody would wake).
 */
extern void dsched_wake_at_commit(void);

/* For backends: at commit look through the databases again (CREATE DATABASE). */
extern void dsched_scan_at_commit(void);

/* ---- databases ------------------------------------------------------------------------------ */

/* Index of the slot of a database, or -1. Caller holds control_lock or lives in that database. */
extern int	dsched_find_database(Oid dboid);

/* Finds or makes a slot and marks it WANTED; -1 if all are taken (dsched.max_databases). Takes control_lock. */
extern int	dsched_want_scheduler(Oid dboid, const char *dbname);

/* A slot can be taken by another database now. Caller holds control_lock. */
extern void dsched_room_left(void);

/* Says what is wrong in a database, for status(); NULL: nothing. Takes control_lock. */
extern void dsched_set_problem(int db, const char *problem, const char *hint);

/*
 * Makes the workers of a database leave and stay away until it is let back; waits, bounded, until they are gone.
 * dropped: there is no such database any more.
 */
extern void dsched_clear_database(Oid dboid);
extern void dsched_let_back(Oid dboid, bool dropped);

/* ---- fencing -------------------------------------------------------------------------------- */

/* May a run with this token, that of an entry or another one, go on (start, commit)? No lock. */
extern bool dsched_token_holds(const RunToken *token);

/*
 * Is any executor inside a commit of a run of this partition (partition -1: of this database; db -1: at all)? Runs that were handed
 * over alive belong to no partition any more: here, and for dsched_cancel_runs().
 */
extern bool dsched_committing(int db, int partition);

/* Sends a query cancel to executors with runs of this partition (-1: of the database; db -1: all). */
extern void dsched_cancel_runs(int db, int partition);

/* Scheduler: binds the runs of this partition that executors are making to the session alone; the epoch may be cleared then. */
extern void dsched_bind_runs(int db, int partition, uint64 epoch);

/* Scheduler: takes that back for all runs of the database, and cancels them: they end as lost.  Returns how many there are. */
extern int	dsched_unbind_runs(int db);

/* The same for all runs whose right ends with the session: those of the local partitions go on. */
extern void dsched_cancel_session_runs(void);

/* Ends the run of this entry, if an executor is still making it: it is recorded as cancelled.  False: it is not. */
extern bool dsched_cancel_run(int entry, const RunKey *key);

/* ---- the queue ------------------------------------------------------------------------------ */

/*
 * Scheduler: queues a run and calls an idle executor of its lane.  Returns the index of its entry, or -1 if the queue is
 * full.
 *
 * Full, it makes room for a run whose lane has less in it than another of its database, or that ranks before the last of
 * its own lane that waits: that other's last one, or its own, is taken out, and *displaced is its key, for the scheduler to wait with
 * it as with one that was never pushed; its attempt is 0 if none was.  The entry that it had is the one returned.  So a flood holds up
 * nobody else.  displaced may be NULL: full is full, then.
 */
extern int	dsched_queue_push(const RunEntry *run, Oid dboid, Oid roleoid, RunKey *displaced);

/* Scheduler: would a push for this database find a free entry now?  A part is kept for databases that have few in it. */
extern bool dsched_queue_has_room(int db);

/*
 * Scheduler: takes finished entries of its database, copies up to max into out, and which entry each was into index; frees
 * them; returns how many.
 */
extern int	dsched_queue_take_finished(int db, RunEntry *out, int *index, int max);

/* So many runs that have ended are worth a wake-up: their places in the queue can be filled again. */
static inline int
dsched_queue_batch(void)
{
	return Max(dsched_shared->queue_size / 8, 1);
}

/* Scheduler: the run of this entry is awaited from now on. It may have ended already: then DatabaseSlot.collect is set. */
extern void dsched_queue_await(int db, int entry);

/* Scheduler: takes back a queued entry that no executor has yet; entry is what the push returned. False: it is running, finished or gone. */
extern bool dsched_queue_withdraw_entry(int db, int entry, const RunKey *key);

/*
 * Scheduler: the virtual time of round robin: the highest rank of a run that went to an executor in this busy period.  One
 * begins, with the time as it is, when the queue is empty and nothing runs.  begin: now, whatever there is.
 */
extern int64 dsched_queue_virtual_time(TimestampTz now, bool begin, uint64 *period);

/*
 * Scheduler: starts executors for lanes of this database that have more work than hands and less than their share, asks
 * idle ones of other lanes to retire when the pool is full, fails runs whose executors cannot start.  Returns the boot time at which it wants to be
 * called again, or 0.
 */
extern int64 dsched_pool_manage(int db);

/* Executor: takes the run of its lane that ranks first; -1: none. Marks it RUNNING. */
extern int	dsched_queue_take(int executor);

/* Executor: hands a run back as finished and wakes its scheduler if that waits for it. */
extern void dsched_queue_finish(int executor);

/* Executor, between two runs: should it leave, because it was asked to or its place is for others? If so it must. */
extern bool dsched_executor_should_retire(int executor);

/* Executor without work: ms after which it is to ask that again, as others may wait for its place; 0: not by itself. */
extern long dsched_executor_linger(int executor);

/*
 * The background workers that this instance may need, and what is said to people if the server has not so many:
 * detail with the numbers, hint with the setting (both psprintf'd; NULL if it has).  Takes control_lock.
 */
extern int	dsched_workers_needed(char **detail, char **hint);

/* Executors that one role, or one database, can have at most: dsched.max_executors_per_role, ..._per_database. */
extern int	dsched_executors_per_role(void);
extern int	dsched_executors_per_database(void);

/* Executor: claims the slot that it was started for, or exits quietly. Registers the exit callback. */
extern void dsched_executor_attach(int executor, uint64 generation);

/* ---- the test clock ------------------------------------------------------------------------- */

extern TimestampTz dsched_test_clock_read(void);

/* Moves it and wakes everybody. */
extern void dsched_test_clock_move(TimestampTz to);

/* Waits until all schedulers have looked at all that was committed before and nothing is queued or running. */
extern bool dsched_test_quiesce_wait(int timeout_ms);

#endif /* DSCHED_SHARED_H */
