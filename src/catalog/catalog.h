/*
 * catalog.h
 *	  The tables of the extension, from C.  Only src/catalog touches them.
 *
 * Rules for all of it: the caller is in a transaction.  Functions switch to the extension's owner and to a
 * safe search_path themselves where they use SPI, and restore both on error.  Reads and writes
 * by the executors go straight to the table (no SPI, no triggers, no settings of the job can touch them).
 */
#ifndef DSCHED_CATALOG_H
#define DSCHED_CATALOG_H

#include "nodes/pg_list.h"
#include "core/codec.h"
#include "shared.h"

/* ---- identity.c: the extension and the database ----------------------------------------------- */

/* OIDs of the extension's relations in this database; looked up once, again after invalidation. */
typedef struct CatalogOids
{
	Oid			extension,
				owner,			/* of the extension */
				schema,
				job,
				job_pkey,
				job_name_key,
				job_changed,
				run,
				run_pkey,
				outbox,
				partition_state,
				identity,
				queue,
				queue_pkey;
} CatalogOids;

/* Of the objects that this library works with: see catalog_version(). */
#define CATALOG_VERSION "1.0"

/* The version of the extension's objects in this database, palloc'd; NULL: it is not there. In a transaction. */
extern char *catalog_version(void);

/* NULL if the extension is not in this database (or is only being created). In a transaction. */
extern const CatalogOids *catalog_oids(void);

/* SPI with the owner's rights and search_path = pg_catalog, pg_temp; ends with catalog_spi_finish(). */
typedef struct CatalogSpi
{
	Oid			userid;
	int			secctx;
	int			nestlevel;
	bool		pushed_snapshot;
} CatalogSpi;
extern void catalog_spi_begin(CatalogSpi *state);
extern void catalog_spi_finish(CatalogSpi *state);

typedef struct Identity
{
	bool		found;
	uint64		system_identifier;
	Oid			database_oid;
	char		database_name[NAMEDATALEN];
	char		cluster[256];
	char		incarnation[40];
	int64		max_revision;
	int64		applied_revision;
	int64		former_revision;	/* applied_revision in the former incarnation; 0: was not in it */
	int64		beat_revision;	/* of a heartbeat of this instance; 0: none */
	char		beat_node[DSCHED_MAX_NODE_NAME];	/* its name then */
	bool		replaced;		/* an older etcd was seen, and not the right one since */
	char		held[256];
	char		key_ids[24];	/* of the keys by which all rows of dsched.job were verified; "": they were not */
} Identity;

extern void identity_read(Identity *out);
/* Writes all fields of the one row. */
extern void identity_write(const Identity *in);

/* ---- jobs.c ------------------------------------------------------------------------------------ */

/* A row of dsched.job; text fields palloc'd in the caller's context, NULL where SQL has NULL. Times: 0 = NULL. */
typedef struct JobRow
{
	int64		job_id;
	char	   *username;
	char	   *job_name;
	char	   *schedule;
	TimestampTz run_at;
	char	   *command;
	char	   *time_zone;
	TimestampTz starts_at;
	TimestampTz expires_at;
	int32		max_runs;		/* 0: none */
	TimestampTz last_slot;
	JobPolicy	policy;
	char	   *queue;			/* NULL: none */
	char	   *run_on;			/* NULL: any; "each", or a selector */
	bool		active;
	char	   *payload;		/* jsonb as text */
	char	   *metadata;
	TimestampTz anchor;
	int64		gen;
	TimestampTz slots_from;
	int64		gen_rev;		/* < 0: to be carried over, from the former incarnation's revision -gen_rev */
	int64		mod_revision;
	int64		former;			/* of a value in etcd, that was carried over: its revision in the former incarnation; not in the table */
	int64		change_id;
	List	   *changed;		/* of char *; NIL: nothing unpublished */
	char	   *problem;
	char	   *extra;
	TimestampTz created_at;
	TimestampTz changed_at;
} JobRow;

/* Reads one row with the latest snapshot, by primary key; false if there is none. Direct access: for executors. */
extern bool job_read(int64 job_id, JobRow *out);

/* Reads one row by (username, job_name); SPI. lock: FOR UPDATE. */
extern bool job_read_by_name(const char *username, const char *job_name, bool lock, JobRow *out);

/* All rows; of a million of them this is a gigabyte. */
extern List *job_read_all(void);	/* of JobRow *, in id order */

/*
 * Calls back for each row, in no particular order, without its command, payload, metadata and extra.  What the row points to, and what
 * is palloc'd in between, goes when the callback returns.
 */
extern void job_scan(void (*callback) (const JobRow *row, void *arg), void *arg);

/*
 * Rows with changed IS NOT NULL that nobody else has locked, with ids after this one, up to max, in id order; they are then locked by
 * us.  whole: with all columns, else as job_scan().  *left: there are others, locked, just being changed, or beyond max.
 */
extern List *job_lock_changed(int64 after, int max, bool whole, bool *left);

/* Rows that are locked by us: nothing of them is to be published or taken in, and no cluster has seen them. */
extern void job_taken_in(List *rows);

/* Inserts or overwrites the whole row (by job_id). */
extern void job_insert(const JobRow *row);
extern void job_update(const JobRow *row);
extern bool job_delete(int64 job_id);

/* Inserts the row, or does nothing if there is one of its name (waits for who is inserting one): false. */
extern bool job_insert_new(const JobRow *row);

/* A row of dsched.job is being written by us; the trigger there takes all others for restored ones. */
extern bool catalog_writing;

/*
 * Locks the row NOWAIT for an update from outside: 1 locked, 0 not there, -1 somebody holds it (no error is
 * raised).
 */
extern int	job_try_lock(int64 job_id);

/* ---- outbox.c ---------------------------------------------------------------------------------- */

typedef struct OutboxRow
{
	int64		outbox_id;
	bool		is_delete;		/* else a trigger */
	TriggerKind kind;			/* of the trigger, with what goes with it: see codec.h */
	TimestampTz first;
	TimestampTz last;
	int64		rule;
	TimestampTz slot;
	int64		target;
	int64		job_id;
	char	   *username;
	char	   *job_name;
	int64		base_revision;
	bool		local;			/* a request that is carried out here and never published */
	TimestampTz scheduled_for;
	char	   *requested_by;
	TimestampTz created_at;
} OutboxRow;

extern void outbox_insert(const OutboxRow *row);
/* Of OutboxRow *, oldest first, FOR UPDATE SKIP LOCKED: those that are carried out here, those that are not, or all. */
typedef enum OutboxWhich
{
	OUTBOX_ALL,
	OUTBOX_LOCAL,
	OUTBOX_PUBLISHED
} OutboxWhich;

extern List *outbox_lock(OutboxWhich which, int max);
extern void outbox_delete(int64 outbox_id);

/* ---- runs.c ------------------------------------------------------------------------------------ */

/* A row of dsched.run. NULL pointers and zero times are SQL NULL. */
typedef struct RunRow
{
	RunKey		key;
	const char *job_name;
	const char *username;
	int64		gen;
	RunReason	reason;
	const char *reason_text;	/* instead of reason, where set: 'overlap', 'paused', ... */
	RunStatus	status;
	TimestampTz last_slot;
	int32		slots;			/* 1 */
	TimestampTz started_at;
	TimestampTz finished_at;
	const char *node;			/* NULL: this instance */
	int64		epoch;
	int			pid;			/* 0: NULL */
	int64		rows;			/* -1: NULL */
	const char *command_tag;
	const char *sqlstate;
	const char *message;
	const char *detail;
	const char *hint;
	const char *context;
} RunRow;

/*
 * Inserts by direct table access; needs no privileges and obeys no read-only mode.  ERROR 23505 if there is a
 * row with this key (unless if_absent: then returns false).
 */
extern bool run_insert(const RunRow *row, bool if_absent);

/* Overwrites the row with this key (a start row that ends); false if it is not there. Direct access. */
extern bool run_update(const RunRow *row);

/* Looks up one row: RUN_STATUS_NONE if there is none. Direct access, latest snapshot. */
extern RunStatus run_lookup(const RunKey *key);

/* What the rows say about one slot or request: its attempts. */
typedef struct RunHistory
{
	int32		attempt;		/* the latest; 0: none */
	RunStatus	status;			/* of that attempt */
	TimestampTz finished_at;	/* of that attempt; 0: none */
	TimestampTz last_slot;		/* of that attempt's row, if it stands for several slots; 0 */
	int32		failures;		/* attempts that failed, timed out or could not start */
	int32		lost;			/* that ended with their process */
} RunHistory;

/* Of all rows of key's slot and request, whatever its attempt is. Direct access, latest snapshot. */
extern void run_history(const RunKey *key, RunHistory *out);

/*
 * Is nothing to come after attempts that ended like this?  A failed one is made again as often as the policy says, a lost one always,
 * but not where delivery is at_most_once.
 */
extern bool run_history_is_final(const RunHistory *history, const JobPolicy *policy);

typedef struct RunSeen
{
	RunKey		key;
	TimestampTz last_slot;		/* 0: one slot */
	int64		gen;
	RunStatus	status;
	TimestampTz finished_at;	/* 0: none */
	bool		fenced;			/* RUN_LOST: by the loss of its partition, not of its process */
	/* run_read_started() only */
	char	   *job_name;
	char	   *username;
} RunSeen;

/* Adds a row to what is known; in the order of attempts. */
extern void run_history_add(RunHistory *history, const RunSeen *seen);

/* All rows with scheduled_for >= from, in key order, as an array palloc'd in the caller's context; *n rows. */
extern RunSeen *run_read_since(TimestampTz from, int *n);

/* All rows whose status is 'running' (start rows). */
extern RunSeen *run_read_started(int *n);

/* ---- prepared.c -------------------------------------------------------------------------------- */

/* The gids of the prepared transactions of this database that are ours: of that name, and of the extension's owner. */
extern List *prepared_list(void);	/* of char * */

/* PREPARE TRANSACTION of the open block as the extension's owner, whose it is then: no job's role can finish it. */
extern bool prepared_begin(const char *gid);
extern void prepared_end(void);

/* COMMIT or ROLLBACK PREPARED, in a transaction without a block. */
extern void prepared_finish(const char *gid, bool commit);

/* ---- purge.c ----------------------------------------------------------------------------------- */

typedef enum PurgeVerdict
{
	PURGE_KEEP,					/* the row, and go on */
	PURGE_DELETE,
	PURGE_STOP					/* by time only: none from this row on goes */
} PurgeVerdict;

/* What is to become of a row?  Asked within the transaction. */
typedef PurgeVerdict (*PurgeJudge) (const RunSeen *row, void *arg);

/* A way through the table, in steps.  Begins as zeroes, but for the first two. */
typedef struct PurgeWalk
{
	bool		by_job;			/* else by time */
	int64		keep;			/* by job: only rows beyond so many of a job are judged; at least 1 */
	bool		done;			/* nothing is left to look at, or it was told to stop */
	bool		begun;
	RunKey		last;			/* looked at last; by job, only the job and the time count */
	int64		rank;			/* by job: so many of its rows were seen */
	TimestampTz edge;			/* time of the last one that is kept for being among them */
	int64		rows;			/* by job: in the table, of what was walked through, less those deleted */
	int64		deleted;
} PurgeWalk;

/* Goes on until boot time 'until', and is never far beyond it.  False: the table is locked, nothing was done. */
extern bool run_purge_step(PurgeWalk *walk, int64 until, PurgeJudge judge, void *arg);

/* The latest scheduled time of which there is a row of the job. */
extern TimestampTz run_newest(int64 job_id);

/* ---- states.c ---------------------------------------------------------------------------------- */

/* Inserts or replaces; state is the JSON text. */
extern void state_write(const char *place, int partition, const char *state);
/* NULL if there is none; palloc'd. */
extern char *state_read(const char *place, int partition);

/* ---- queues.c ---------------------------------------------------------------------------------- */

/* What the row of a queue says that etcd (standalone: the scheduler) has yet to be told. */
typedef enum QueueChange
{
	QUEUE_KEPT,					/* nothing */
	QUEUE_PUT,					/* new limits */
	QUEUE_OFFER,				/* those of a queue from elsewhere: they count where there is none of the name */
	QUEUE_DROP					/* its end: for people the row is not there any more */
} QueueChange;

/* A row of dsched.queue. NULL pointers are SQL NULL. */
typedef struct QueueRow
{
	char		name[POLICY_MAX_QUEUE + 1];
	int32		max_running;	/* 0: NULL */
	int32		rate_limit;		/* 0: NULL, and so is ... */
	int64		per;			/* ... this, in microseconds */
	bool		cluster;		/* scope */
	int64		mod_revision;	/* of the version in etcd that this row holds or is based on; 0: none */
	int64		change_id;
	QueueChange changed;
	char	   *problem;
	char	   *extra;
	TimestampTz created_at;
	TimestampTz changed_at;
} QueueRow;

/*
 * Is there such a queue, for a job that is to be in it?  If so it cannot be dropped before our transaction ends (dsched.drop_queue()
 * waits, and then sees the job).
 */
extern bool queue_exists(const char *name);

/* One row, also of a queue that was dropped. */
extern bool queue_read(const char *name, QueueRow *out);

/* The same, and locks it, waiting for who has it. */
extern bool queue_lock(const char *name, QueueRow *out);

/* The same without waiting: 1 locked and read, 0 not there, -1 somebody holds it. to_delete: the row may go. */
extern int	queue_try_lock(const char *name, bool to_delete, QueueRow *out);

extern List *queue_read_all(void);	/* of QueueRow *, by name, those that were dropped too */

/* Rows with something to tell, and no problem with that, that nobody else has locked; they are locked then. */
extern List *queue_lock_changed(int max);

/* How many such rows are there, locked or not? */
extern int	queue_count_changed(void);

/* Inserts the row, or overwrites the one of its name. */
extern void queue_write(const QueueRow *row);

/* Inserts the row, or does nothing if there is one of its name (waits for who is inserting one): false. */
extern bool queue_insert_new(const QueueRow *row);

extern void queue_delete(const char *name);

/*
 * All queues as ones that no etcd has seen, to be offered; those that were dropped are forgotten.  False: somebody has locked
 * some of them, to be tried again.
 */
extern bool queue_offer_all(void);

/* The jobs of this database that are in the queue, as the latest snapshot has them; only username and job_name are set. */
extern List *queue_jobs(const char *name);	/* of JobRow * */

#endif /* DSCHED_CATALOG_H */
