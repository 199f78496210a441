/*
 * sync_internal.h
 *	  What the files of src/sync share: definitions between dsched.job, the timetable and etcd.
 *
 *	  sync.c	the scheduler's side: load, standalone mode, requests to pause, retire and the like
 *	  follow.c	following etcd: config, full compare, watch
 *	  intake.c	what is heard from etcd into the timetable
 *	  join.c	rows as new ones of a cluster, or carried over into its next incarnation
 *	  apply.c	etcd to dsched.job: row by row what follow.c has put into the timetable
 *	  publish.c	dsched.job and dsched.outbox to etcd
 *	  convert.c	rows to the values in etcd and back
 *	  sign.c	signatures of those values
 *	  queues.c	throttle queues: what the scheduler asks, what etcd says, dsched.queue
 *	  queues_publish.c	dsched.queue to etcd
 *	  work.c	lists of small works on the tables, for apply.c and sync.c
 *
 * All of it runs in the scheduler process, in its turns and in callbacks of the etcd client; nothing waits.
 */
#ifndef DSCHED_SYNC_INTERNAL_H
#define DSCHED_SYNC_INTERNAL_H

#include "etcd/watch.h"
#include "schedule/scheduler.h"

/* ---- work.c ------------------------------------------------------------------------------------- */

/* When something that failed is tried again. All zero: at once. */
typedef struct Retry
{
	int			failures;		/* in a row */
	int64		at;				/* boot time; 0: now */
} Retry;

/* After a failure: waits from about base up to max microseconds, longer with each failure in a row. */
extern void sync_retry_later(Retry *retry, int64 base, int64 max);
extern void sync_retry_reset(Retry *retry);

/* Is it time?  If not, sees to it that there is a turn when it is. */
extern bool sync_retry_due(const Retry *retry);

/* Random, 1 .. 2^53 - 1. */
extern int64 sync_random_id(void);

typedef enum WorkOutcome
{
	WORK_DONE,
	WORK_LOCKED,				/* somebody holds the row: again soon */
	WORK_WAITS					/* until sync_work_release() */
} WorkOutcome;

/* To be the first member of a larger structure. */
typedef struct WorkItem
{
	dlist_node	node;
	Retry		retry;
	WorkOutcome outcome;
} WorkItem;

typedef struct WorkList
{
	const char *what;			/* for the log */
	WorkOutcome (*perform) (WorkItem *item);	/* in a transaction, which others share; may fail */
	void		(*finished) (WorkItem *item);	/* it is committed; frees the item */
	dlist_head	ready;
	dlist_head	later;			/* until their retry.at */
	dlist_head	waiting;		/* until they are released */
	int64		later_at;		/* the earliest of later */
	int			alone;			/* so many are done in a transaction each, after one failed */
} WorkList;

extern void sync_work_init(WorkList *list);
extern void sync_work_add(WorkList *list, WorkItem *item);
extern void sync_work_remove(WorkItem *item);	/* takes it out; does not free it */
extern void sync_work_turn(WorkList *list);
extern void sync_work_release(WorkList *list);
extern bool sync_work_empty(const WorkList *list);

/* ---- convert.c ---------------------------------------------------------------------------------- */

/* Once, in a transaction. */
extern void sync_convert_init(void);

/* Between the server's encoding and UTF-8; NULL: cannot be. May give back what it was given. */

/* The value for etcd of a row, malloc'd; NULL: it cannot be published, and why. */
extern char *sync_encode_row(const JobRow *row, size_t *len, char *problem, size_t size);

/* A definition and its mod_revision as a published row, palloc'd; false: it cannot be one here, and why. */
extern bool sync_decode_row(const char *value, size_t len, int64 mod_revision, JobRow *row, char *problem, size_t size);

/* What a row of dsched.outbox asks for; its texts and the job are the caller's to set. */
extern void sync_describe_request(const OutboxRow *row, TriggerDef *def);

/* The key of a definition; out has KEYS_MAX_LEN bytes. False: its names cannot be in a key. */
extern bool sync_job_key(const char *username, const char *job_name, char *out, int *partition);

/* The columns of a row in which two definitions differ are those of its slots (generation), or of anything. */
extern bool sync_same_slots(const JobRow *a, const JobRow *b);
extern bool sync_same_definition(const JobRow *a, const JobRow *b);

/* Lays the column over another row; false: no column that is published has this name. */
extern bool sync_copy_column(JobRow *to, const JobRow *from, const char *column);

/*
 * In the place of a column: the row is a published version of the incarnation before this one, which is to be published as it
 * is (gen_rev < 0), unless there is a newer one.  KNOWN_BEFORE with it: and unless others know that it was deleted; so it is, if
 * etcd has none.
 */
#define CARRIED_OVER "former"
#define KNOWN_BEFORE "known"

/* Is this column, or "all", among the changed ones? */
extern bool sync_is_changed(const JobRow *row, const char *column);

/* A generation begins when it is published: moves slots_from to now, and last_slot so that max_runs holds. */
extern void sync_begin_generation(JobRow *row, TimestampTz now);

/* ---- sign.c -------------------------------------------------------------------------------------- */

/* In dsched.job.changed: nothing but the signature is to be made anew. */
#define SYNC_SIGNATURE_COLUMN "signature"

/* What a signature adds to a value, at most. */
#define SYNC_SIGNATURE_MAX 128

typedef struct Signature
{
	int64		after;			/* see sign.c */
	bool		current;		/* it is by the key that signs */
} Signature;

/* Reads the keys; false: the rows of dsched.job have to be verified by a full compare. */
extern bool sync_sign_start(void);

/* Are signatures needed, and can they be made? */
extern bool sync_sign_required(void);
extern bool sync_can_sign(void);

/* Is everything in the timetable that is usable verified?  A full compare has just seen to that. */
extern bool sync_verified(void);
extern void sync_now_verified(void);

/* For identity.key_ids, once the table has what the timetable has. */
extern void sync_verified_ids(char *out, size_t size);

/* The value to be sent under this key, palloc'd: signed if signatures are needed. */
extern char *sync_sign(const char *key, const char *value, int64 after, size_t *len);

/* True also if no signature is needed; false: why not. */
extern bool sync_verify(const char *key, size_t key_len, const char *value, size_t len, Signature *out, char *problem,
						size_t size);

/* ---- follow.c ----------------------------------------------------------------------------------- */

extern void sync_follow_start(bool compare);
extern void sync_follow_turn(void);

/* Is etcd the one that we know, as far as we know, and are we connected to it? */
extern bool sync_following(void);

extern void sync_follow_hold_again(void);

/* The value of the config key that every transaction that writes has to compare with. */
extern const char *sync_config_value(size_t *len);

/*
 * Every answer to a linearizable request: floor is what sync_highest_revision() was when it was sent.  False:
 * etcd went back; it is not followed any more.
 */
extern int64 sync_highest_revision(void);
extern bool sync_check_revision(int64 revision, int64 floor);

/* Look at config again before anything else is done: it is not what it was. */
extern void sync_follow_again(void);

/* The same, and then read all definitions anew. */
extern void sync_compare_again(void);

/* ---- join.c -------------------------------------------------------------------------------------- */

/* Marks the rows as new to the cluster of the config; true: all are, and so is the identity, in the table and in memory. */
extern bool sync_join(const ConfigInfo *config, int64 highest);

/*
 * The cluster was recovered: carries the rows over into its incarnation, some with each call.  former: what etcd says of this
 * database, or NULL.  True: all are; this process has to end, as what it knows is void.  *more: else, there is more to do at once.
 */
extern bool sync_carry_over(const ConfigInfo *config, const FormerInfo *former, int64 highest, bool *more);

/* Is this incarnation one that the cluster of the config had before? */
extern bool sync_is_former(const ConfigInfo *config, const char *incarnation);

/* Notes in the identity whether the etcd of our incarnation is in doubt, for whoever comes after us; false: not now. */
extern bool sync_note_doubt(bool doubt);

/* Tells others, once all that we carried over is published. */
extern void sync_join_turn(void);

/* ---- intake.c ----------------------------------------------------------------------------------- */

extern void sync_intake_init(void);

typedef enum TakeMode
{
	TAKE_EVENT,					/* from the watch */
	TAKE_EVENT_LAST,			/* the same, when all that came with it was taken */
	TAKE_LISTED					/* by a full compare */
} TakeMode;

/* Keys of the definition range.  False (TAKE_EVENT): to be given again with TAKE_EVENT_LAST. */
extern bool sync_definition_put(const EtcdKv *kv, TakeMode mode);
extern void sync_definition_deleted(const EtcdKv *kv);

/*
 * The revision that whoever has put this version of a definition, which may not have been heard of yet, must have known of;
 * PG_INT64_MAX: it was heard of, and is held.
 */
extern int64 sync_known_before(const char *key, int64 revision);

/* What came with one message of the watch. */
extern void sync_take_definitions(const EtcdEvent *events, int n);
extern void sync_take_queues(const EtcdEvent *events, int n);
extern bool sync_is_wiped(const EtcdEvent *events, int n);

/* A full compare: what is not put between these two is removed. */
extern void sync_compare_begins(void);
extern int	sync_compare_lost(void);
extern void sync_compare_ends(int64 revision);

/* May one more line about what cannot be read be logged? */
extern bool sync_may_complain(void);

/* The lowest revision of a definition that could not be read; PG_INT64_MAX: none. */
extern int64 sync_lowest_broken(void);

/* A key of the trigger range. */
extern void sync_trigger_put(const EtcdKv *kv);

/* The mod_revision of jobrev/<pp> as last heard of; and that it is at least this. */
extern int64 sync_jobrev(int partition);
extern void sync_note_jobrev(int partition, int64 revision);
extern bool sync_publications_heard(void);
extern bool sync_is_broken(const char *username, const char *job_name);

/* A request for a run; takes over what def points to (malloc'd). revision: of its key, 0 standalone. */
extern void sync_add_trigger(int partition, TriggerDef *def, int64 revision);
extern void sync_open_triggers(void);
extern bool sync_triggers_waiting(void);

/* ---- apply.c ------------------------------------------------------------------------------------ */

extern void sync_apply_init(void);

/*
 * Queues a version of a definition, or its end, for the table; replaces what is queued for that name.
 * compared: it was found by a full compare, not as an event.
 */
extern void sync_apply_put(const JobRow *row, const char *value, size_t len, bool compared);
extern void sync_apply_delete(const char *username, const char *job_name, int64 revision, bool compared);
extern void sync_apply_forget(const char *username, const char *job_name);
extern void sync_apply_turn(void);

/* Rows were published, so that what waited for that may go on. */
extern void sync_apply_published(void);
extern bool sync_apply_idle(void);

/* The revision up to which all is in the table, if all up to 'delivered' is in the timetable or the queue. */
extern int64 sync_applied_revision(int64 delivered);

/* ---- publish.c ---------------------------------------------------------------------------------- */

extern void sync_publish_init(void);
extern void sync_publish_changes(void);
extern void sync_publish_turn(void);
extern bool sync_publish_idle(void);

/* The watch has shown this trigger's key. */
extern void sync_trigger_seen(int64 trigger_id);

/* A new definition of ours stands, or stood, in etcd; it was not there at a revision. */
extern void sync_definition_stood(int64 change_id);
extern bool sync_has_stood(int64 change_id);
extern void sync_definition_absent(int64 change_id, int64 revision);

/* What is sent to etcd under one key. */
typedef enum ChangeKind
{
	CHANGE_DEFINITION,
	CHANGE_DELETION,
	CHANGE_TRIGGER
} ChangeKind;

/* What happened to an change's key. */
typedef enum ChangeAnswer
{
	ANSWER_DONE,				/* the comparison held */
	ANSWER_OTHER,				/* there is another version: old_value, old_revision */
	ANSWER_ABSENT				/* there is none */
} ChangeAnswer;

typedef struct Change
{
	ChangeKind	kind;
	int			partition;
	char	   *key;
	int64		base;			/* mod_revision compared with */
	TimestampTz at;				/* when it was asked for */
	JobRow	   *row;			/* definition: as sent */
	List	   *outbox;			/* of OutboxRow *: deletions of this key, or the trigger */
	struct Change *moved;		/* definition: the change of the key that the job had under another role */
	char	   *value;
	size_t		len;
	/* the answer */
	ChangeAnswer answer;
	char	   *old_value;
	size_t		old_len;
	int64		old_revision;
} Change;

/* What a round of publishing came to. */
typedef struct Settlement
{
	int64		revision;		/* of the transaction */
	bool		again;			/* something has to be sent again */
	bool		locked;			/* something could not be read or settled because of a lock */
} Settlement;

/* ---- settle.c ----------------------------------------------------------------------------------- */

/* In a transaction: notes what came of a change. */
extern void sync_settle(const Change *change, Settlement *out);

/* ERROR 55000 if the database is on hold by now: for transactions that have read rows of dsched.job. */
extern void sync_refuse_if_held(void);

/* Alone: are there changes in the table that the timetable may not have yet? */
extern bool sync_to_take_in(void);

/* ---- queues.c ----------------------------------------------------------------------------------- */

extern void sync_queues_init(void);
extern void sync_queues_load(List *rows);	/* of QueueRow *: the whole table */
extern void sync_queues_changed(void);	/* somebody has committed something */
extern void sync_queues_turn(void);
extern bool sync_queues_idle(void);

/* Keys of the queue range, listed or heard of. */
extern void sync_queue_put(const EtcdKv *kv);
extern void sync_queue_deleted(const EtcdKv *kv);

/* A listing: what is not put between these two is gone.  The end only when it is sure that this etcd is ours. */
extern void sync_queues_list_begins(void);
extern void sync_queues_list_ends(int64 revision);

/* The value of a queue's key (to be freed); false: it cannot be read, or has another name in it, and why. */
extern bool sync_decode_queue(const char *name, const char *value, size_t len, QueueDef *def, char *problem, size_t size);

/* The mod_revision of queuerev as last heard of; and that it is at least this. */
extern int64 sync_queuerev(void);
extern void sync_note_queuerev(int64 revision);

/* Rows were settled, so that what waited for that may be applied. */
extern void sync_queues_published(void);

/* ---- queues_publish.c --------------------------------------------------------------------------- */

extern void sync_queues_publish_init(void);
extern void sync_queues_publish(void);
extern void sync_queues_publish_turn(void);
extern bool sync_queues_publish_idle(void);

/*
 * Are queues about to be published, so that definitions, which may name them, had better wait for a moment?  Not if
 * something is in the way.
 */
extern bool sync_queues_first(void);

#endif							/* DSCHED_SYNC_INTERNAL_H */
