/*
 * scheduler.h
 *	  Inside a scheduler process: its jobs, its partitions, its open runs.
 *
 * One scheduler serves one database.  All of this is private memory of that process and needs no lock; what
 * it shares with others is in shared.h.  It is rebuilt from the tables and from etcd at each start.
 *
 *	  timetable.c	jobs by id, and a heap of their next slots
 *	  placement.c	which partition a job is in
 *	  lacking.c		roles that are missing here
 *	  partition.c	a partition's life: take over, account, hand over
 *	  recovery.c	which slots are open when a partition is taken over
 *	  opening.c		due slots to open runs or ranges that wait: the overlap and misfire policies
 *	  ranges.c		slots that wait behind others, and backfills: from a range to open runs
 *	  runs.c		the life of an open run, and what is written about it
 *	  waiting.c		open runs to the shared queue, in their order and within the limits of their queues
 *	  finishing.c	what executors hand back: done, to be tried again, lost
 *	  requests.c	run_now(), backfill(), cancel()
 *	  remote.c		runs of our partitions that another instance still makes
 *	  reports.c		runs that we still make of partitions that were handed over
 *	  order.c		what goes first
 *	  closing.c		rows for slots that end without an executor: skipped, missed, lost
 *	  notify.c		NOTIFY of outcomes, for those who listen
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

/*
 * Open runs and ranges of a partition beyond which no more slots are opened until some are closed: of one throttle queue (the jobs
 * of a role without one have their own), of all together; and jobs that may be ahead of the watermark meanwhile.  An account holds
 * CODEC_MAX_ENTRIES of either kind.
 */
#define MAX_OPEN_RUNS 500
#define MAX_OPEN_RUNS_IN_ALL 1500
#define MAX_LISTED_RUNS 1900 /* with those that are taken out of ranges */
#define MAX_JOBS_AHEAD 1500
/* Open runs of one job that may run side by side (overlap = allow); what else is due waits as a range. */
#define MAX_PARALLEL_RUNS 50

/* ---- jobs ------------------------------------------------------------------------------------ */

typedef struct ThrottleQueue ThrottleQueue; /* waiting.c */

/* Of all jobs of a role. */
typedef struct JobRole
{
	char		name[NAMEDATALEN];	/* hash key */
	Oid			oid;			/* as of 'checked'; InvalidOid: there is none */
	uint64		checked;		/* scheduler.roles_changed at that time; 0 never */
	int			users;
} JobRole;

/* Which times a schedule names, in its zone; of all jobs that name these. */
typedef struct PatternKey
{
	CronSchedule cron;
	pg_tz	   *tz;
} PatternKey;

typedef struct JobPattern
{
	PatternKey	key;			/* hash key */
	int			users;
} JobPattern;

/* Bounds of a schedule, as in SlotRule. */
typedef struct JobBounds
{
	TimestampTz starts_at;
	TimestampTz expires_at;
	TimestampTz last_slot;
} JobBounds;

typedef struct Job Job;

/* What is open of a job: there only while something is. */
typedef struct JobWork
{
	Job		   *job;
	dlist_head	open;			/* its OpenRuns, in the order in which they are to run */
	int			nopen;
	dlist_head	ranges;			/* its SlotRanges: of the schedule, in order, then backfills */
	bool		advancing;		/* in scheduler.advancing */
	dlist_node	to_advance;
} JobWork;

/* What few jobs have; all zero: nothing. */
typedef struct JobExtra
{
	TimestampTz held_since;		/* not usable since: where to go on from, same generation; 0 */
	int32		failures;		/* runs in a row that failed; counted if the policy asks for it */
	Job		   *job;
	dlist_node	in_failing;		/* of Partition.failing, while there are failures */
	char	   *run_on;			/* while it is nowhere: its selector; NULL */
	int64		period;			/* order.c: shortest distance of its slots; -1: it has none; 0: not yet known */
	int64		period_gen;		/* of this generation */
	int64		fair_tag;		/* order.c: its last rank by round robin */
	uint64		fair_period;	/* in this busy period */
} JobExtra;

/*
 * There may be a million of them, and almost all of these wait for a time that is far away.  So a job has what it needs for that and no
 * more: values that many jobs share are pointed to (common.c), and what belongs to open runs or is rarely there has its own memory.
 */
struct Job
{
	union
	{
		int64		job_id;		/* hash key */
		HeapNode	next;		/* begins with the id; when its next slot is due, in the heap: not in it if there is none, or it is
								 * paused, broken, not ours; or in its queue's heap of blocked jobs */
	};
	TimestampTz next_slot;		/* that slot, while it is in one of the heaps */
	TimestampTz opened;			/* when the last slot that was opened, or closed at once, was due; 0: none yet */
	const char *username;		/* common_role() */
	const char *job_name;
	const JobPolicy *policy;	/* common_policy() */
	ThrottleQueue *queue;		/* by its name, or that of the role */
	const JobPattern *pattern;	/* common_pattern(); NULL: a one-shot, or not usable */
	const JobBounds *bounds;	/* NULL: none */
	TimestampTz base;			/* the only slot of a one-shot; else what an interval counts from */
	TimestampTz slots_from;
	int64		gen;
	int64		gen_rev;		/* revision that began gen; 0 standalone */
	int64		mod_revision;	/* of the version that this is; 0 standalone */
	dlist_node	in_partition;	/* of Partition.jobs */
	JobWork    *work;			/* never NULL; to be changed only after job_work() */
	JobExtra   *extra;			/* NULL: all zero */
	uint32		ahead;			/* Partition.ahead_round if it is counted in its nahead */
	int16		partition;
	bool		one_shot:1;
	bool		active:1;
	bool		usable:1;		/* its rule could be made */
	bool		applied:1;		/* dsched.job holds this version; else it is not started */
	bool		seen:1;			/* mark of a full compare */
	bool		blocked:1;		/* it is in the heap of blocked jobs of its queue */
	bool		role_problem:1; /* its row says that the role is missing */
	bool		start_problem:1;	/* its row says that no executor can start for the role */
	bool		pausing:1;		/* paused by us, which its row does not say yet */
	bool		signed_anew:1;	/* this version in etcd is signed with the key that signs */
};

/* common.c */
extern void common_init(void);
extern const char *common_role(const char *username);
extern void common_role_free(const char *username);
extern bool common_role_known(const char *username);	/* has it any job? */
extern JobRole *job_role(const Job *job);
extern const JobPolicy *common_policy(const JobPolicy *policy);
extern void common_policy_free(const JobPolicy *policy);
extern const JobPattern *common_pattern(const SlotRule *rule);
extern void common_pattern_free(const JobPattern *pattern);

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

/* Puts the job's first slot that is due after 'after' into the heap, if it is to run at all; or this slot (0: none). */
extern void timetable_plan(Job *job, TimestampTz after);
extern void timetable_plan_slot(Job *job, TimestampTz slot);
extern void timetable_unplan(Job *job);

/* Its rule; good as long as its definition is. */
extern SlotRule job_rule(const Job *job);

/* Its work, to add something to it.  It goes again in job_advance(), when nothing is left of it. */
extern JobWork *job_work(Job *job);
extern void job_work_done(Job *job);

/* What few jobs have, to change it. */
extern JobExtra *job_extra(Job *job);

/* Calls back for every job (of one partition, or of all: -1). The callback may remove that job. */
extern void timetable_each(int partition, void (*callback) (Job *job, void *arg), void *arg);

/* It was nowhere, as its selector found no place: finds it one, if there is one now. */
extern void timetable_replace(Job *job);

/* ---- open runs and partitions ------------------------------------------------------------------ */

/* What a run still needs of a job that is gone. */
typedef struct Orphan
{
	char		username[NAMEDATALEN];
	char		job_name[DSCHED_MAX_JOB_NAME + 1];
} Orphan;

/* A slot (or request) that came due and is not yet accounted for. */
typedef struct OpenRun
{
	dlist_node	in_job;
	dlist_node	in_partition;
	HeapNode	wait;			/* in one of the heaps of waiting.c, or in none */
	Heap	   *waits_in;		/* that heap */
	Job		   *job;			/* NULL: its job was removed while it ran */
	Orphan	   *orphan;			/* then: whose it was */
	int			partition;
	RunKey		key;
	int64		gen;
	RunReason	reason;
	TimestampTz due;			/* slot and jitter, or when it was asked for */
	int64		rank;			/* see order.c; of this attempt */
	bool		ranked;
	bool		queued;			/* in the shared queue, or with an executor */
	int			entry;			/* index there, while queued */
	ThrottleQueue *counted;		/* whose limit it counts towards, while queued; or NULL */
	dlist_node	in_queue;		/* then: of its runs */
	ThrottleQueue *opened_in;	/* among whose open runs of the partition it is; NULL: a request, which is among none */
	bool		backlog;		/* opened late, or asked for: a slot that comes due meanwhile waits for it */
	bool		careful;		/* after a crash: with a start row, one at a time */
	bool		of_backfill;	/* its trigger_id is that of a backfill */
	bool		shown;			/* counted in nshown: it could not start at once, or waits for its next attempt */
	bool		in_doubt;		/* prepared, and left to be settled: queued, but without an entry */
	bool		claimed;		/* attempts of it have keys in etcd, to be deleted when it is closed */
	RunMark    *mark;			/* the decision that committed it, to be moved then */
	bool		cancelled;		/* it is to end as cancelled, whatever comes of this attempt but success */
	int64		cancel_id;		/* the request to cancel it, done when it is closed; 0 */
	int32		failures;		/* attempts that failed */
	int32		lost;			/* attempts that ended with their process */
	TimestampTz not_before;		/* wall time; 0 */
	int64		retry_at;		/* boot time before which it is not queued again; 0 */
	bool		bound;			/* queued, and its entry is session_bound: handed over, and the partition came back */
	/* remote.c: the session of another instance that makes it, as it was handed over alive; 0. It is not queued then */
	int64		remote;
	int64		remote_check;	/* boot time at which to see whether that session lives; 0: when we hear of its end */
	bool		remote_cancelling;	/* its command is to say so */
	bool		remote_asked;	/* its command is in etcd as it should be */
	int64		remote_asked_in;	/* or in the account that is being written, by its seq */
} OpenRun;

/*
 * Slots that are due and wait until others of their job have ended, or that a backfill asks for: however many they are, they
 * cost one entry.  All slots of the rule from next to last are open.
 */
typedef struct SlotRange
{
	dlist_node	in_job;
	dlist_node	in_partition;
	Job		   *job;
	int			partition;
	ThrottleQueue *opened_in;	/* as in OpenRun */
	SlotRule   *rule;			/* of a backfill; NULL: the job's */
	int64		trigger_id;		/* of a backfill; 0 */
	int64		gen;
	RunReason	reason;
	TimestampTz next;			/* a slot */
	TimestampTz last;			/* inclusive; not necessarily a slot */
	bool		backlog;
	int			unsure;			/* so many of the next slots may have rows already */
	uint64		rule_hash;		/* of a backfill: of the schedule that was meant */
} SlotRange;

typedef enum PartitionStep
{
	STEP_NONE,					/* not ours */
	STEP_READING,				/* asked etcd for state, jobrev and triggers */
	STEP_BEHIND,				/* waiting until the definitions up to jobrev have arrived */
	STEP_CLAIMING,				/* first state under the new epoch is being written */
	STEP_ACTIVE,				/* slots are opened and dispatched */
	STEP_DRAINING,				/* no new starts; waiting for its running jobs */
	STEP_HANDING,				/* the state that names those that go on is being written; they may still commit */
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
	TimestampTz since;			/* the watermark at which we have taken it over */
	TimestampTz local_watermark;	/* as last written to the table */
	/* for the purge: what the account says that was last written, to etcd or, alone, to the table */
	TimestampTz written_watermark;	/* its watermark */
	TimestampTz taken_watermark;	/* of the one that is being written */
	TimestampTz closed_from;	/* of the slots closed since an account was last taken: the earliest scheduled time */
	TimestampTz closed_before;	/* of those closed before that, but after the written one was taken; PG_INT64_MAX: none */
	bool		local_dirty;	/* the table's copy is older than the account */
	int			nshown;			/* what waits, for people who look for it in the table's copy of the account */
	bool		shown;			/* there are some in that copy */
	dlist_head	jobs;			/* all jobs that hash to it, owned or not */
	dlist_head	open;			/* OpenRuns */
	dlist_head	ranges;			/* SlotRanges */
	int			nopen;			/* of both */
	int			nslots;			/* of these, those that count towards MAX_OPEN_RUNS_IN_ALL: all but requests */
	bool		crowded;		/* ranges wait until less is open */
	int			nblocked;		/* jobs whose next slot has to wait until there is room */
	bool		behind;			/* the watermark is: slots before now are not opened, or were not when it was last moved */
	int			nahead;			/* jobs of which slots after the watermark are accounted for, while it is behind */
	uint32		ahead_round;	/* counts the counts of them; from 1 */
	dlist_head	failing;		/* JobExtras of jobs with failures in a row */
	int			nfailing;
	bool		dirty;			/* state differs from what was written */
	const void *request;		/* the batch in flight that it is part of: the last one that was sent */
	bool		stateless;		/* local, in a cluster: there is no state, so that it can begin only with all definitions */
	bool		writing;		/* a state transaction is in flight */
	int64		retry_at;		/* boot time; 0 */
	int64		drain_until;	/* boot time */
	bool		declined;		/* what was read last of it was of a newer format */
	int64		held_since;		/* boot time since when a prepared transaction keeps us from taking it over; 0 */
	bool		cancelling;		/* draining, as the server stops: its runs were told to end */
	XLogRecPtr	flush_to;		/* what must be on disk before the next state says it is done */
	List	   *done_triggers;	/* int64 *: trigger keys to delete with the next state */
	List	   *done_remotes;	/* RunKey *: command and outcome keys to delete with it */
	PartitionState taken;		/* what was read at take-over, until it is applied */
	PartitionState history;		/* the account as our own history has it, if what was read is of one that we have lost; else node is "" */
	bool		history_is_since;	/* of that only the watermark is known */
	List	   *taken_triggers; /* TriggerDef * read at take-over */
	List	   *known_requests;	/* PendingRun *: what the state read knows of requests that are yet to come */
	List	   *taken_marks;	/* TakenMark * read at take-over: runs that others, or we before, have begun or committed */
	List	   *done_marks;		/* DoneMark *: keys to delete, or move, with the next state */
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
	MemoryContext runs;			/* OpenRuns, */
	MemoryContext works;		/* and JobWorks: what a burst has taken goes back to the system after it */
	Identity	identity;
	bool		held;			/* identity does not fit: nothing runs */
	bool		ready;			/* definitions are loaded; partitions may be taken over */
	bool		stopping;
	bool		unclean;		/* this server's last end was a crash: recovered runs start one at a time */
	TimestampTz now;			/* wall time of this turn */
	int64		boot;			/* boot time of this turn */
	int64		alarm;			/* boot time at which somebody wants another turn; 0 */
	int64		checkpoint_at;	/* boot time of the next state write; 0: nothing to write */
	int			careful_running;
	int64		careful_until;	/* the last careful run is alone until then */
	int			waiting;		/* open runs that are not in the queue */
	int64		refill_at;		/* boot time at which to collect what has ended, as something waits for room; 0 */
	int			nblocked;		/* jobs of all partitions that wait for room in the account */
	int			in_doubt;		/* open runs that are */
	bool		draining;		/* a partition waits for the end of its runs */
	int			nremote;		/* open runs that another instance makes */
	int			nranges;
	dlist_head	advancing;		/* JobWorks whose ranges may have room to go on */
	uint64		roles_changed;	/* counts changes of pg_authid; from 1 */
	int64		recorded;		/* rows that were written, by executors and by us; for the purge */
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

/* placement.c */

/* The partition of a job with this run_on, which has one job more thereby; and one less. */
extern int	placement_enter(const char *run_on, const char *username, const char *job_name);
extern void placement_leave(int partition);
extern char *placement_problem(void);	/* of a job that is nowhere */
extern void placement_turn(void);
extern const char *partition_place(int partition);
extern int	placement_partition(const RunName *name);
extern bool partition_is_local(const Partition *partition); /* its account is in the table alone */

/* lacking.c */

/* The role of this run does not exist here: is the run to be held, as another instance may have it? */
extern bool lacking_role(const OpenRun *run);
extern void lacking_definitions_changed(void);
extern void lacking_turn(void);

/* placement.c. Requests: the partition that is in the key of one. */
extern void placement_note_request(int64 trigger_id, int key_partition);
extern int	placement_request_key(const Partition *partition, int64 trigger_id);
extern void placement_forget_request(int64 trigger_id);

/* partition.c */
extern void partitions_init(void);
extern void partitions_turn(void);	/* follows the coordinator's phases */
extern void partitions_checkpoint(bool now);	/* writes what is dirty, if it is time */
extern bool partitions_idle(void);	/* nothing dirty, being written or in between */
extern void partition_activate(Partition *partition);	/* take-over is complete: dispatch begins */
extern void partition_decline(Partition *partition, int64 format);	/* its account is of a newer format: it is for others */
extern void partition_lost(Partition *partition, const char *why);	/* ownership is over, at once */
extern bool partition_is_active(int number);
extern void partition_handed_over(Partition *partition);	/* the state that names its living runs is written */
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
 * recovery.c: was the state that was read written by the server that this one was a standby of?  Then what our own history has of it
 * counts (Partition.history).  False: cannot be told now.
 */
extern bool recovery_compare_histories(Partition **partitions, int n);

/*
 * Opens what is open by the state read (partition->taken) and the rows, when partitions are taken over.
 * In a transaction of its own; false: try again later.
 */
extern bool recovery_open(Partition **partitions, int n);
extern void recovery_end_rows(void);

/* runs.c */
extern OpenRun *open_run(Job *job, const RunKey *key, RunReason reason);
extern void close_run(OpenRun *run);	/* it is accounted for: what is to be written has been */
extern void run_is_queued(OpenRun *run, int entry);
extern void run_is_not_queued(OpenRun *run);
extern bool run_withdraw(OpenRun *run);	/* out of the queue; false: an executor has it, or it was not there */
extern bool run_is_running(const OpenRun *run);
extern OpenRun *run_of_entry(int entry, const RunKey *key);	/* NULL: none of ours is, or was, there */
extern void run_await(OpenRun *run);	/* something waits for its end, of which we are to hear at once */
extern int	run_find_executor(const RunKey *key, int partition, int32 *attempt);
extern bool run_take_up(OpenRun *run);	/* an executor is making it; false: none is */
extern bool run_is_void(const OpenRun *run);
extern void run_close_void(OpenRun *run);
extern void drop_runs(Partition *partition);	/* forgets runs and ranges: not ours any more */
extern int	open_runs_of_all(void);
extern void request_done(Partition *partition, int64 trigger_id);	/* its key, or its row, can go */
extern void backfill_may_be_done(Partition *partition, int64 trigger_id);

/* remote.c: runs of ours that another instance makes, as they were handed over alive */
extern bool remote_open(OpenRun *run, const PendingRun *pending);	/* false: nobody makes it, or we do */
extern void remote_forget(OpenRun *run);	/* it is none any more */
extern void remote_cancel(OpenRun *run);	/* tell that instance to end it */
extern void remote_done(Partition *partition, const RunKey *key);	/* nothing about it is left to be in etcd */
extern int	remote_write(Partition *partition, EtcdTxn *txn);	/* adds to a state; returns how many of done_remotes */
extern void remote_written(Partition *partition, int64 seq, int ndone);
extern void remotes_turn(void);
extern void remotes_reconnected(void);	/* outcomes may have come that nobody heard of */
extern void remote_outcome_put(const EtcdKv *kv);
extern void remote_run_key(const RunName *name, RunKey *out);

/* reports.c: runs that we still make of partitions that are another instance's now */
extern void reports_handed_over(Partition *partition);	/* its runs go on, and its state says so */
extern void reports_run_ended(const RunEntry *entry);	/* a bound run ended */
extern void reports_turn(void);
extern bool reports_stop(void);	/* ends them all; true when nothing is left to do */
extern void reports_command_put(const EtcdKv *kv);
extern void reports_command_deleted(const EtcdKv *kv);
extern void reports_list_begins(void);
extern bool reports_know(const RunKey *key);	/* was it handed over, and does our session live? */

extern void run_is_in_doubt(OpenRun *run);

/* marks.c: the keys of runs (run/) that are read at a take-over, and those that are done with */
typedef struct TakenMark
{
	RunName		name;			/* attempt 0: of exactly_once */
	RunMark		mark;
	int64		create_revision;
	int64		mod_revision;
} TakenMark;

typedef struct DoneMark
{
	RunName		name;
	RunMark    *mark;			/* a decision, to be moved; NULL: claims, to be deleted */
} DoneMark;

extern bool marks_read(const cJSON *item, TakenMark *out);	/* false: it is none */
extern void marks_take(Partition *partition, const cJSON *range);	/* what was read at a take-over */
extern void marks_free(Partition *partition);
extern void marks_open(Partition *partition);	/* at a take-over, before slots are opened: says what is lost */
extern void marks_add_history(const RunKey *key, RunHistory *history);
extern void marks_close(OpenRun *run);	/* it is closed: what it has is done with */
extern int	marks_write(Partition *partition, EtcdTxn *txn);	/* into the state's transaction; how many */
extern void marks_written(Partition *partition, int n);
extern void marks_lease_is_gone(void);	/* a write said so */
extern bool marks_can_move(void);
extern void marks_move(EtcdTxn *txn, const DoneMark *done); /* if marks_can_move() */
extern void marks_publish(void);
extern void marks_done_with(Partition *partition, const RunName *name, const RunMark *mark);

/* leftovers.c: those that no owner takes away */
extern void leftovers_turn(void);
extern void leftovers_wanted(void);
extern void marks_keep(OpenRun *run, const RunEntry *entry);	/* what an executor's run has left in etcd */

/* decisions.c: what executors ask of etcd */
extern void decisions_init(void);
extern void decisions_turn(void);
extern EtcdTxn *decision_txn(const RunName *name, const RunMark *mark, int partition);

/* settling.c: prepared transactions whose executors are gone */
extern void settling_turn(void);
extern void settling_wanted(void);
extern bool settling_has(const RunKey *key);	/* or may have */
extern bool settling_waits(const RunKey *key);	/* a prepared transaction that was found, and is still there */
extern bool settling_allows(int partition);	/* may it be taken over? */
extern bool settling_holds(int partition);	/* is it not for what etcd has said, so that only time or a person can end it? */
extern bool settling_idle(void);

/* purge.c: deletes old rows, between turns */
extern void purge_turn(void);
extern bool purge_idle(void);
/* What was closed, and which account knows it. */
extern void purge_slot_closed(Partition *partition, TimestampTz slot);
extern void purge_account_taken(Partition *partition);
extern void purge_account_written(Partition *partition);
extern void purge_account_unknown(Partition *partition);

/* opening.c */
extern void dispatch_due_slots(void);

/*
 * Opens or closes the job's slots from 'slot' that are due up to 'limit', and plans the next.  closed(), if given, knows which
 * have their outcome already: it gives the last slot of those, from 'slot' on, or 0.
 */
extern void dispatch_job_until(Job *job, TimestampTz slot, TimestampTz limit,
							   TimestampTz (*closed) (Job *job, TimestampTz slot));
/*
 * The generation has no slots after 'until': skipped rows for those before it that have not started, none for the others,
 * nor for that of a one-shot (run_at; 0: it is none) that the next generation has again.
 */
extern void end_generation(Job *job, TimestampTz until, TimestampTz run_at, const char *reason);

/* The job goes to another partition: requests for it that have not started end here, as skipped. */
extern void end_requests(Job *job);
extern bool job_is_running(Job *job);
extern TimestampTz misfire_cutoff(const Job *job);

/* Opens the next slots of the job's ranges if it has room for them; or wants to, at the end of the turn. */
extern void job_advance(Job *job);
extern void job_advance_later(Job *job);
extern void advance_jobs(void);

/* ranges.c */
extern SlotRange *range_open(Job *job, TimestampTz first, TimestampTz last, RunReason reason, bool backlog);
extern SlotRange *range_add(Job *job, const SlotRange *like);
extern void range_free(SlotRange *range);
extern bool range_covers(const SlotRange *range, TimestampTz slot);
extern bool range_exclude(SlotRange *range, TimestampTz slot);	/* false: it is not in it */
extern void range_close(SlotRange *range, TimestampTz until, RunStatus status, const char *reason);
extern SlotRule range_rule(const SlotRange *range);
extern bool range_take(SlotRange *range, OpenRun **run);	/* false: it is at its end */

/* waiting.c */
extern void waiting_init(void);
extern void run_show(OpenRun *run); /* people may look for it: it waits */
extern void run_consider(OpenRun *run);	/* something changed that its start depends on */
extern void run_wait_nowhere(OpenRun *run);
extern void job_consider(Job *job);
extern void partition_consider(Partition *partition);
extern void dispatch_waiting(void);
extern bool dispatch_is_quiet(void);
extern bool dispatch_wants_room(void);	/* does something wait for the ends of runs, whichever? */
extern void throttle_count(OpenRun *run, bool queued);

/* The queue of this name, known to dsched.queue or not; "" or NULL: that of the role's jobs without one. */
extern ThrottleQueue *throttle_find(const char *name, const char *username);

/* Counts an open run or range of the job's partition, for throttle_may_open(); and takes it back. */
extern ThrottleQueue *throttle_opened(const Job *job);
extern void throttle_closed(ThrottleQueue *queue, int partition);

/* Is there room for another one of this job? */
extern bool throttle_may_open(const Job *job);

/* The job's next slot, due then, has to wait for room, with all after it.  throttle_resume() plans it again. */
extern void throttle_block(Job *job, TimestampTz due);
extern void throttle_unblock(Job *job);
extern void throttle_resume(Partition *partition);

/* The first of the partition's blocked slots; NULL: there is none. */
extern HeapNode *throttle_first_blocked(const Partition *partition);

/* finishing.c */
extern void finish_in_doubt(OpenRun *run);	/* it was settled: the rows tell how */
extern bool dispatch_finished(void);	/* false: there was nothing */
extern void lose_run(OpenRun *run, const char *sqlstate, const char *message, TimestampTz started_at, int pid);
extern void fail_unstartable(OpenRun *run, const char *sqlstate, const char *message);
extern void close_cancelled(OpenRun *run);
extern void requeue_run(OpenRun *run, int64 delay);
/* The instance that made it says how it ended; NONE: the attempt was not made. */
extern void end_remote_run(OpenRun *run, RunStatus status, TimestampTz finished_at, const char *sqlstate);
extern void note_outcome(Job *job, RunStatus status);	/* counts failures in a row */
extern void set_failures(Job *job, int32 failures);
/* Goes on where the rows say that earlier attempts have ended. False: they have the slot's outcome. */
extern bool resume_run(OpenRun *run, const RunHistory *history, const char *by);
/* An attempt with this status is over, and was not lost. */
extern bool status_is_final(RunStatus status);
extern bool history_is_final(const Job *job, const RunHistory *history);

/* requests.c */
extern void open_trigger(Partition *partition, const TriggerDef *trigger);
extern void backfills_redefined(Job *job);
extern void remember_request(Partition *partition, const PendingRun *pending);

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
	int			partition;		/* whose epoch that is; the job may be in another by now */
	int			pid;
	char		sqlstate[6];
	char		message[256];
	bool		replaces;		/* a start row with this key may be there: overwrite it */
	bool		was_open;		/* it is about an open run */
} ClosedSlot;

/* run_history() in a transaction of its own, if there is none; false if the table cannot be read now. */
extern bool run_history_in_transaction(const RunKey *key, RunHistory *history);

/* Begin a row about a slot of a job, and about an attempt whose job may be gone. */
extern void describe_slot(ClosedSlot *closed, const Job *job, TimestampTz slot);
extern void describe_run(ClosedSlot *closed, const OpenRun *run);
extern void describe_cancelled(ClosedSlot *closed);	/* sets its outcome */

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

/* Sends what was collected, in a transaction of its own; false: could not, and has asked for another turn. Once a turn. */
extern bool notify_flush(void);

/* Is there nothing to be sent? */
extern bool notify_idle(void);

/* ---- ../sync ------------------------------------------------------------------------------------- */

/* Between the server's encoding and UTF-8; NULL: cannot be. May give back what it was given. */
extern char *sync_to_utf8(const char *text);
extern char *sync_from_utf8(const char *text);

/* A hash of a job's names in UTF-8, the same on every instance whatever its encoding is: a number below 'partitions'. */
extern int	sync_partition(const char *username, const char *job_name, int partitions);

/* Loads dsched.job into the timetable, in a transaction; then, clustered, starts to follow etcd. */
extern void sync_start(void);

/* After a commit that changed definitions (and at start): takes them in, or publishes them. Never waits. */
extern void sync_changes(void);

/* Each turn: retries, applies to the table what the watch delivered. */
extern void sync_turn(void);

/* Has etcd been found to be another one?  Nothing runs then; and has the coordinator found yet another since? */
extern bool sync_follow_held(void);
extern bool sync_follow_judge_again(void);

/* Definitions up to this revision are in the timetable, and in the table; 0 standalone. */
extern int64 sync_revision(void);
extern int64 sync_table_revision(void);

/* The state transaction saw jobrev at this revision: if the watch does not come to it soon, it is deaf. */
extern void sync_expect(int64 jobrev);

/* Standalone: the run of a trigger is accounted for, its request can go. */
extern void sync_trigger_done(int64 trigger_id);

/* Standalone: a request that was taken in and is still in the table. */
extern bool sync_has_request(int64 trigger_id);

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

/* Are all definitions of the table in the timetable?  And would the local partition go on with them, without etcd? */
extern bool sync_loaded(void);
extern bool sync_may_run_locally(void);

/* Nothing to publish, apply or take in. */
extern bool sync_idle(void);

/* A one-shot is done: deletes its definition, as unschedule() would. */
extern void sync_retire(int64 job_id);

/* Pauses a job for a reason that people read in dsched.jobs.problem, as pause() would. */
extern void sync_pause(int64 job_id, const char *problem);

/* After a reload: are there other keys to sign with? */
extern void sync_sign_reload(void);

/*
 * A key of the trigger range: takes it apart and verifies it.  False: it is none of ours, or it cannot be read, stands under
 * another key or is not signed, which was logged.
 */
extern bool sync_trigger_read(const EtcdKv *kv, int *partition, TriggerDef *def);

/* Sets or clears (NULL) dsched.job.problem here, without publishing. */
extern void sync_problem(int64 job_id, const char *problem);

/* This is what dsched.job.problem says of a definition that was just read: what is yet to be written there was about an older one. */
extern void sync_problem_is(int64 job_id, const char *problem);

/* Saves the revision applied and the highest seen; called with local states. In a transaction. */
extern void sync_save_revisions(void);

#endif /* DSCHED_SCHEDULER_H */
