/*
 * scheduler.h
 *	  Inside a scheduler process: its jobs, its partitions, its open runs.
 *
 * One scheduler serves one database.  All of this is private memory of that process and needs no lock; what
 * it shares with others is in shared.h.  It is rebuilt from the tables and from etcd at each start.
 *
 *	  timetable.c	jobs by id, and a heap of their next slots
 *	  partition.c	a partition's life: take over, account, hand over
 *	  recovery.c	which slots are open when a partition is taken over
 *	  dispatch.c	due slots to open runs, open runs to the queue, finished runs to the account
 *	  closing.c		rows for slots that end without an executor: skipped, missed, lost
 *	  state_local.c, state_etcd.c	where the account of a partition is kept
 *	  ../sync		definitions: the tables <-> the timetable <-> etcd
 *
 * A turn of the loop in scheduler.c calls them in a fixed order; none of them waits.
 */
#ifndef DSCHED_SCHEDULER_H
#define DSCHED_SCHEDULER_H

#include "lib/ilist.h"

#include "catalog/catalog.h"
#include "core/codec.h"
#include "core/heap.h"
#include "core/keys.h"
#include "etcd/client.h"
#include "loop.h"
#include "schedule/slots.h"
#include "shared.h"

/* A slot that enters the queue later than this is missed, but the newest (one minute). */
#define MISFIRE_GRACE_US INT64CONST(60000000)
/* Attempts of a slot that end with the death of their process before the job is paused. */
#define MAX_LOST 3
/* Open runs of a partition beyond which no more slots are opened until some are closed. */
#define MAX_OPEN_RUNS 500

/* ---- jobs ------------------------------------------------------------------------------------ */

typedef struct Job
{
	int64		job_id;			/* hash key */
	HeapNode	next;			/* next slot, in the heap; not in it: none, paused, broken, not ours */
	char		username[NAMEDATALEN];
	char		job_name[DSCHED_MAX_JOB_NAME + 1];
	int			partition;
	int64		gen;
	int64		gen_rev;		/* revision that began gen; 0 standalone */
	int64		mod_revision;	/* of the version that this is; 0 standalone */
	bool		active;
	bool		usable;			/* its rule could be made */
	bool		applied;		/* dsched.job holds this version; else it is not started */
	bool		seen;			/* mark of a full compare */
	dlist_node	in_partition;	/* of Partition.jobs */
	SlotRule	rule;
	JobPolicy	policy;
	char		queue[POLICY_MAX_QUEUE + 1];	/* "": none */
	TimestampTz held_since;		/* not usable since: where to go on from, same generation; 0 */
	Oid			roleoid;		/* of username, as of role_checked */
	uint64		role_checked;	/* scheduler.roles_changed at that time; 0 never */
	bool		role_problem;	/* its row says that the role is missing */
	bool		start_problem;	/* its row says that no executor can start for the role */
	dlist_head	open;			/* its OpenRuns, in the order in which they are to run */
	int64		period;			/* order.c: shortest distance of its slots; -1: it has none; 0: not yet known */
	int64		period_gen;		/* of this generation */
	int64		fair_tag;		/* order.c: its last rank by round robin */
	uint64		fair_period;	/* in this busy period */
} Job;

/* timetable.c */
extern void timetable_init(void);
extern Job *timetable_find(int64 job_id);
extern Job *timetable_find_name(const char *username, const char *job_name);
extern int	timetable_count(void);
extern Heap *timetable_heap(void);

/*
 * Takes in a version of a definition: makes or replaces the job, ends open runs of a generation that is over,
 * finds its next slot if its partition is active.  row's strings are copied.
 */
extern Job *timetable_put(const JobRow *row, bool applied);

/* The definition is gone: unstarted runs end as skipped ("unscheduled"), the running one goes on. */
extern void timetable_remove(int64 job_id);

/* The same, where it is known since when: later slots never existed. */
extern void timetable_remove_as_of(int64 job_id, TimestampTz until);

/* Puts the job's first slot after 'after' into the heap, if it is to run at all. */
extern void timetable_plan(Job *job, TimestampTz after);

/* Calls back for every job (of one partition, or of all: -1). The callback may remove that job. */
extern void timetable_each(int partition, void (*callback) (Job *job, void *arg), void *arg);

/* ---- open runs and partitions ------------------------------------------------------------------ */

/* What a run still needs of a job that is gone. */
typedef struct Orphan
{
	char		username[NAMEDATALEN];
	char		job_name[DSCHED_MAX_JOB_NAME + 1];
} Orphan;

/* A slot (or trigger) that came due and is not yet accounted for. */
typedef struct OpenRun
{
	dlist_node	in_job;
	dlist_node	in_partition;
	Job		   *job;			/* NULL: its job was removed while it ran */
	Orphan	   *orphan;			/* then: whose it was */
	int			partition;
	RunKey		key;
	int64		gen;
	RunReason	reason;
	bool		queued;			/* in the shared queue, or with an executor */
	int			entry;			/* index there, while queued */
	int64		rank;			/* by order_rank(), when it became ready; 0: not yet, or to be ranked anew */
	bool		backlog;		/* opened late, by recovery: a slot that comes due meanwhile waits for it */
	bool		careful;		/* after a crash: with a start row, one at a time */
	TimestampTz not_before;		/* wall time; 0 */
	int64		retry_at;		/* boot time before which it is not queued again; 0 */
} OpenRun;

typedef enum PartitionStep
{
	STEP_NONE,					/* not ours */
	STEP_READING,				/* asked etcd for state, jobrev and triggers */
	STEP_BEHIND,				/* waiting until the definitions up to jobrev have arrived */
	STEP_CLAIMING,				/* first state under the new epoch is being written */
	STEP_ACTIVE,				/* slots are opened and dispatched */
	STEP_DRAINING,				/* no new starts; waiting for its running jobs */
	STEP_FINAL					/* last state is being written */
} PartitionStep;

typedef struct Partition
{
	int			number;
	PartitionStep step;
	uint64		epoch;
	uint64		session;
	int64		seq;			/* of the last state written or being written */
	int64		state_mod;		/* mod_revision of the state in etcd as last known */
	int64		jobrev;			/* R: definitions up to this revision are accounted for */
	TimestampTz watermark;		/* every slot up to (watermark, watermark_job) is closed or in open */
	int64		watermark_job;
	TimestampTz local_watermark;	/* as last written to the table */
	bool		local_dirty;	/* the table's copy is older than the account */
	dlist_head	jobs;			/* all jobs that hash to it, owned or not */
	dlist_head	open;			/* OpenRuns */
	int			nopen;
	bool		dirty;			/* state differs from what was written */
	bool		full;			/* MAX_OPEN_RUNS: opening is suspended */
	bool		writing;		/* a state transaction is in flight */
	int64		retry_at;		/* boot time; 0 */
	int64		drain_until;	/* boot time */
	XLogRecPtr	flush_to;		/* what must be on disk before the next state says it is done */
	List	   *done_triggers;	/* int64 *: trigger keys to delete with the next state */
	PartitionState taken;		/* what was read at take-over, until it is applied */
	List	   *taken_triggers; /* TriggerDef * read at take-over */
	int64		taken_revision; /* of etcd when they were read: all that had been put by then are among them, or done with */
} Partition;

typedef struct Scheduler
{
	int			db;				/* index of our DatabaseSlot */
	DatabaseSlot *slot;
	Oid			dboid;
	char		dbname[NAMEDATALEN];
	DschedLoop *loop;
	EtcdClient *etcd;			/* NULL standalone */
	MemoryContext context;		/* lives as long as the process */
	MemoryContext turn;			/* reset each turn */
	Identity	identity;
	bool		held;			/* identity does not fit: nothing runs */
	bool		ready;			/* definitions are loaded; partitions may be taken over */
	bool		stopping;
	bool		unclean;		/* this server's last end was a crash: recovered runs start one at a time */
	TimestampTz now;			/* wall time of this turn */
	int64		boot;			/* boot time of this turn */
	int64		alarm;			/* boot time at which somebody wants another turn; 0 */
	int64		checkpoint_at;	/* boot time of the next state write; 0: nothing to write */
	int64		purge_at;
	int			careful_running;
	int64		careful_until;	/* the last careful run is alone until then */
	int			waiting;		/* open runs that are not in the queue */
	uint64		roles_changed;	/* counts changes of pg_authid; from 1 */
	bool		ran;			/* something was recorded since the last purge */
	Partition	partitions[DSCHED_MAX_PARTITIONS];
} Scheduler;

extern Scheduler scheduler;

/* Reads the clocks into scheduler.now and scheduler.boot: at each turn, and in callbacks from the loop. */
extern void scheduler_refresh_time(void);

/* Asks for another turn at this boot time at the latest. */
extern void scheduler_wake_at(int64 boot);

/* Runs callback(arg) in a transaction of its own; on ERROR logs it, aborts, returns false. */
extern bool scheduler_transaction(void (*callback) (void *arg), void *arg, const char *what);

/* Says that the partition's account changed; it is written at the next checkpoint. */
extern void partition_touch(Partition *partition);

/* partition.c */
extern void partitions_init(void);
extern void partitions_turn(void);	/* follows the coordinator's phases */
extern void partitions_checkpoint(bool now);	/* writes what is dirty, if it is time */
extern bool partitions_idle(void);	/* nothing dirty, being written or in between */
extern void partition_activate(Partition *partition);	/* take-over is complete: dispatch begins */
extern void partition_lost(Partition *partition, const char *why);	/* ownership is over, at once */
extern bool partition_is_active(int number);
extern void partition_released(Partition *partition);	/* its last state is written */
extern void partition_unplan(Partition *partition);	/* takes its jobs out of the heap */
extern void partition_free_triggers(Partition *partition);	/* those read at take-over */

/* Have all slots up to scheduler.now been opened in this turn, so that a watermark may be set to it? */
extern bool watermark_may_move(void);

/* The account as it is to be written; what it points to lives in the current memory context. */
extern void partition_describe(Partition *partition, bool clean, PartitionState *out);

/* state_local.c */
extern bool state_local_take_over(Partition *partition);	/* false: cannot be read now */
/* All dirty partitions, in one transaction.  durable: wait for the disk. */
extern bool state_local_write(bool clean, bool durable);

/* state_etcd.c */
extern void state_etcd_take_over(Partition **partitions, int n);
extern void state_etcd_write(Partition **partitions, int n, bool final);
extern void state_etcd_definitions_arrived(void);	/* some in STEP_BEHIND may go on */

/*
 * recovery.c: opens what is open by the state read (partition->taken) and the rows, when partitions are taken over.
 * In a transaction of its own; false: try again later.
 */
extern bool recovery_open(Partition **partitions, int n);

/* dispatch.c */
extern OpenRun *open_run(Job *job, const RunKey *key, RunReason reason);
extern void close_run(OpenRun *run);
extern void drop_runs(Partition *partition);	/* forgets them: not ours any more */
extern void open_trigger(Partition *partition, const TriggerDef *trigger);
/*
 * The generation has no slots after 'until': skipped rows for those before it that have not started, none for the others,
 * nor for that of a one-shot (run_at; 0: it is none) that the next generation has again.
 */
extern void end_generation(Job *job, TimestampTz until, TimestampTz run_at, const char *reason);
extern void dispatch_due_slots(void);
extern void dispatch_job_until(Job *job, TimestampTz slot, TimestampTz limit, bool (*closed) (Job *job, TimestampTz slot));
extern void dispatch_finished(void);
extern void dispatch_waiting(void);
extern bool run_is_running(const OpenRun *run);
extern int	dispatch_open_runs(void);
extern bool dispatch_is_quiet(void);
extern void lose_run(OpenRun *run, const char *sqlstate, const char *message, TimestampTz started_at, int pid);

/* closing.c */
typedef struct ClosedSlot
{
	RunKey		key;
	TimestampTz last_slot;		/* 0: one slot */
	int32		slots;
	char		job_name[DSCHED_MAX_JOB_NAME + 1];
	char		username[NAMEDATALEN];
	int64		gen;
	RunReason	reason;
	const char *reason_text;	/* a constant, or NULL */
	RunStatus	status;
	TimestampTz started_at;		/* 0 */
	uint64		epoch;
	int			pid;
	char		sqlstate[6];
	char		message[256];
	bool		replaces;		/* a start row with this key may be there: overwrite it */
} ClosedSlot;

/* run_lookup() in a transaction of its own, if there is none; false if the table cannot be read now. */
extern bool run_lookup_in_transaction(const RunKey *key, RunStatus *status);

extern void closing_add(const ClosedSlot *slot);
extern bool closing_flush(void);	/* false: could not be written, try again */
extern bool closing_empty(void);

/* ---- order.c: what goes first ------------------------------------------------------------------- */

/*
 * The rank of a run that may start now, by dsched.dispatch_policy: of those that wait for an executor the lowest goes first.
 * It never changes while the run waits, and grows with time for those that come later, so that nothing starves.
 * due: slot + jitter, or when it was asked for, or when its retry is.
 */
extern int64 order_rank(Job *job, const RunKey *key, TimestampTz due);

/* ---- notify.c: NOTIFY dsched -------------------------------------------------------------------- */

/* A run ended, for good or to be tried again (dsched.notify says which are of interest). Collected until the end of the turn. */
extern void notify_run(const RunKey *key, const char *job_name, const char *username, RunStatus status, bool retried);

/* A job was paused by dsched itself, and why. */
extern void notify_paused(int64 job_id, const char *job_name, const char *username, const char *problem);

/* Sends what was collected, in a transaction of its own; false: could not, try again. Once a turn. */
extern bool notify_flush(void);

/* ---- ../sync ------------------------------------------------------------------------------------- */

/* The partition of a job: a hash of its names in UTF-8, the same on every instance whatever its encoding is. */
extern int	sync_partition(const char *username, const char *job_name);

/* Loads dsched.job into the timetable, in a transaction; then, clustered, starts to follow etcd. */
extern void sync_start(void);

/* After a commit that changed definitions (and at start): takes them in, or publishes them. Never waits. */
extern void sync_changes(void);

/* Each turn: retries, applies to the table what the watch delivered. */
extern void sync_turn(void);

/* Definitions up to this revision are in the timetable; 0 standalone. */
extern int64 sync_revision(void);

/* The state transaction saw jobrev at this revision: if the watch does not come to it soon, it is deaf. */
extern void sync_expect(int64 jobrev);

/* Standalone: the run of a trigger is accounted for, its request can go. */
extern void sync_trigger_done(int64 trigger_id);

/* What limits the runs of the jobs in a queue (dsched.queue). */
typedef struct QueueLimits
{
	char		name[POLICY_MAX_QUEUE + 1];
	int32		max_running;	/* 0: no limit */
	int32		rate_limit;		/* starts in ... 0: no limit */
	int64		per;			/* ... so many microseconds */
	bool		cluster;		/* over all instances together, else on each */
} QueueLimits;

/* By name; NULL: there is none.  Valid until sync_queues_version() is another. */
extern const QueueLimits *sync_queue(const char *name);

/* Counts changes of the queues; from 1. */
extern uint64 sync_queues_version(void);

/* Nothing to publish, apply or take in. */
extern bool sync_idle(void);

/* A one-shot is done: deletes its definition, as unschedule() would. */
extern void sync_retire(int64 job_id);

/* Pauses a job for a reason that people read in dsched.jobs.problem, as pause() would. */
extern void sync_pause(int64 job_id, const char *problem);

/* Sets or clears (NULL) dsched.job.problem here, without publishing. */
extern void sync_problem(int64 job_id, const char *problem);

/* Saves the revision applied and the highest seen; called with local states. In a transaction. */
extern void sync_save_revisions(void);

#endif /* DSCHED_SCHEDULER_H */
