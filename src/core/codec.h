/*
 * codec.h
 *	  The JSON values that dsched keeps in etcd (and, for states, in its tables too).
 *
 * The formats, byte for byte, stand in codec.c.  In C every time is in microseconds since
 * 2000-01-01 UTC, as PostgreSQL counts; in JSON it is in microseconds since 1970-01-01 UTC.
 *
 * Strings in these structs are UTF-8 without NUL, whatever the database's encoding is:
 * callers convert.  What the decoders allocate is malloc'd, and the *_free functions free it.
 * The encoders' result is malloc'd, NUL-terminated (*len does not count that) and freed with
 * free().
 *
 * Decoders: false means that the text was refused; then err says why, in English, for a log,
 * and *out is empty (freeing it does no harm).  They never believe anything about the text.
 * err may be NULL.
 *
 * Encoders: NULL means that the decoder would refuse what was to be written, and then the
 * *_check functions say why; or, if these find nothing, that the whole is longer than
 * CODEC_MAX_VALUE (escaped, a command or a payload can be twice as long, or more) or that
 * there is no memory.
 */
#ifndef DSCHED_CORE_CODEC_H
#define DSCHED_CORE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/keys.h"
#include "core/policy.h"
#include "core/selector.h"

/* The only format that this version writes and reads. */
#define CODEC_FORMAT 1

/* Largest integer that all users of JSON agree on: integers in JSON are within +-this. */
#define CODEC_MAX_INT ((INT64_C(1) << 53) - 1)

/* Bounds of what is read and written, in bytes where nothing else is said. */
#define CODEC_MAX_VALUE (1024 * 1024) /* a whole value */
#define CODEC_MAX_COMMAND (256 * 1024)
#define CODEC_MAX_JSON (256 * 1024) /* payload, metadata: each */
#define CODEC_MAX_ROLE 63
#define CODEC_MAX_NAME 255 /* jobs, nodes, hosts */
#define CODEC_MAX_SCHEDULE 4096
#define CODEC_MAX_TEXT 1024 /* time zone, closed_reason */
#define CODEC_MAX_LABELS 4096
#define CODEC_MAX_ENTRIES 2000 /* pending, done: entries in each */
#define CODEC_MAX_DEPTH 64	   /* levels of nesting */
#define CODEC_MAX_ITEMS 65536  /* JSON values in a value: bounds the memory of the parser */
#define CODEC_MAX_NUMBER 63	   /* digits and all; what every version of cJSON reads */
#define CODEC_MAX_QUEUE_EXTRA 16384 /* of a queue: fields that we do not know */
#define CODEC_MAX_PREVIOUS 8	   /* former incarnations that config remembers */
#define CODEC_MAX_FORMER_PLACES 64 /* selectors whose accounts are carried over */
#define CODEC_PLACE_PARTITIONS 4   /* partitions of a selector */
#define CODEC_MAX_NUMBER_OF_INCARNATION ((1 << 23) - 1)
#define CODEC_MAX_MEMBERS 128  /* members of an object that we interpret */

/* The least and the greatest time that can be written; infinity is not among them. */
#define CODEC_EPOCH_DIFF INT64_C(946684800000000) /* 1970-01-01 to 2000-01-01 */
#define CODEC_MIN_TIME (-CODEC_MAX_INT - CODEC_EPOCH_DIFF)
#define CODEC_MAX_TIME (CODEC_MAX_INT - CODEC_EPOCH_DIFF)

/* job/<pp>/<role>/<name>: a definition */
typedef struct JobDef
{
	int64_t job_id;
	char *username;
	char *job_name;
	char *schedule; /* NULL: a one-shot */
	int64_t run_at; /* a one-shot's time; else neither written nor read */
	char *command;
	char *time_zone; /* or NULL */
	bool has_starts_at;
	bool has_expires_at;
	bool has_last_slot;
	int64_t starts_at;
	int64_t expires_at;
	int64_t last_slot;
	int32_t max_runs; /* 0: no bound */
	JobPolicy policy;
	char *queue; /* NULL: none */
	char *run_on; /* NULL: any instance; "each", or a selector in its one form */
	bool active;
	char *payload;		 /* JSON text or NULL */
	char *metadata;		 /* JSON text or NULL */
	int64_t anchor;		 /* what an interval counts from */
	int64_t gen;		 /* the generation */
	int64_t slots_from;	 /* slots at or before it do not exist */
	int64_t gen_rev;	 /* revision that began the generation; 0: this very version did; < 0: so did this one, which was carried over from
						  * the former incarnation, where its revision was -gen_rev */
	int64_t change_id;	 /* by which the publisher knows its own write again */
	char *node;			 /* who published it */
	char *closed_reason; /* why it is not active, or NULL */
	char *extra;		 /* JSON object of the fields that we do not know, or NULL */
} JobDef;

/* An entry of pending or done; in done only job_id, gen, slot, slot_to and trigger_id matter. */
typedef struct PendingRun
{
	int64_t job_id;
	int64_t gen;
	int64_t slot;
	int64_t slot_to; /* equal to slot, unless the entry is a range of slots */
	int64_t trigger_id;
	int32_t slots;		/* how many, of a range */
	int32_t attempt;	/* 0: of a range, whose slots have not been opened one by one */
	int32_t failures;	/* attempts that failed */
	int32_t lost;		/* attempts that died with their process */
	int64_t not_before; /* 0: none */
	int64_t session;	/* under which it was started: create_revision of the node key; 0: not started */
	bool handed_over;	/* it goes on as long as that session lives, whoever owns the partition */
	char reason[16];	/* lower-case letters, digits, '_' and '-', or "" */
} PendingRun;

/* Runs of a job that failed in a row; only of jobs whose policy counts them. */
typedef struct FailingJob
{
	int64_t job_id;
	int32_t failures;
} FailingJob;

/* state/any/<pp>: the account of a partition */
typedef struct PartitionState
{
	int64_t format; /* set by decoding; encoding writes CODEC_FORMAT whatever is here */
	char node[CODEC_MAX_NAME + 1];
	int64_t epoch;
	int64_t seq;
	int64_t jobrev;
	int64_t watermark;	   /* a due time ... */
	int64_t watermark_job; /* ... and the last job id at it that counts, 0..CODEC_MAX_INT */
	int npending;
	PendingRun *pending;
	int ndone;
	PendingRun *done;
	int nfailing;
	FailingJob *failing;
	uint64_t system_identifier; /* of whoever wrote it, with its timeline; 0: not known, and neither are these two */
	int64_t timeline;
	int64_t since; /* the watermark at which its writer has taken it over */
	bool clean; /* whoever wrote it left in order */
} PartitionState;

/* node/<node>: one session of an instance.  (The key's create_revision is not known inside.) */
typedef struct NodeInfo
{
	char node[CODEC_MAX_NAME + 1];
	char host[CODEC_MAX_NAME + 1]; /* "": not known */
	int port;					   /* 0: not known */
	char *labels;				   /* JSON object or NULL */
	char version[32];			   /* of dsched */
	int server_version_num;		   /* of PostgreSQL; 0: not known */
	int64_t lease;				   /* the session's lease, any value but 0 */
	uint64_t system_identifier;
	int64_t timeline;
	char boot_id[40];
	uint64_t data_dev; /* device and inode of the data directory */
	uint64_t data_ino;
	int64_t wall_clock; /* when this was written, by the instance's clock */
	char tzdata[32];
} NodeInfo;

/* config */
typedef struct ConfigInfo
{
	int64_t format; /* as in PartitionState */
	int partitions;
	char incarnation[40]; /* letters, digits and '-' */
	/* of a cluster that was recovered; the rest means nothing without a previous one */
	int nprevious;
	char previous[CODEC_MAX_PREVIOUS][40]; /* its former incarnations, the latest first */
	int64_t resume_from;				   /* no slot up to this time is open */
	int64_t number;						   /* grows with each incarnation: above the revisions in an epoch, as people see it */
	int64_t recovered_at;				   /* by any clock, the former incarnation decides nothing any more */
} ConfigInfo;

/* A selector in the incarnation before this one, and how far each of its partitions was accounted for. */
typedef struct FormerPlace
{
	char place[SELECTOR_MAX + 1];
	int64_t watermarks[CODEC_PLACE_PARTITIONS];
} FormerPlace;

/* former/<database>: what is known of a database in the incarnation before this one */
typedef struct FormerInfo
{
	char incarnation[40];
	int64_t revision; /* whatever was published up to it has been carried over, or was deleted; 0: nobody says so */
	int npartitions;  /* 0: no watermarks */
	int64_t watermarks[KEYS_MAX_PARTITIONS]; /* of "any": all slots up to these are accounted for */
	int nplaces;
	FormerPlace places[CODEC_MAX_FORMER_PLACES];
} FormerInfo;

/* What is asked of the owner of a job. */
typedef enum TriggerKind
{
	TRIGGER_RUN,	  /* one run now */
	TRIGGER_BACKFILL, /* the slots of a past range */
	TRIGGER_CANCEL	  /* the end of a run, or of what is left of a backfill */
} TriggerKind;

#define TRIGGER_ALL INT64_MIN /* TriggerDef.slot: all slots of a backfill */

/* trigger/<pp>/<id>: a request that the owner of the job's partition carries out */
typedef struct TriggerDef
{
	TriggerKind kind;
	int64_t trigger_id;
	int64_t job_id;
	char *username;
	char *job_name;
	int64_t requested_at; /* TRIGGER_RUN: the run's scheduled_for */
	char *requested_by;	  /* the role that asked */
	int64_t change_id;
	int64_t first;		  /* TRIGGER_BACKFILL: the first and the last slot, both inclusive */
	int64_t last;
	int64_t rule;		  /* TRIGGER_BACKFILL: hash of the schedule that was meant; another one ends it */
	int64_t slot;		  /* TRIGGER_CANCEL: the run's scheduled_for, or TRIGGER_ALL */
	int64_t target;		  /* TRIGGER_CANCEL: the run's trigger_id; 0: of the schedule */
} TriggerDef;

/* queue/<name>: what limits the runs of the jobs that are in it */
typedef struct QueueDef
{
	char name[POLICY_MAX_QUEUE + 1];
	int32_t max_running; /* 0: no limit */
	int32_t rate_limit;	 /* starts in ... 0: no limit */
	int64_t per;		 /* ... so many microseconds; 0 without a rate_limit */
	bool cluster;		 /* over all instances together, else on each */
	int64_t change_id;	 /* as in JobDef, and so are these two */
	char node[CODEC_MAX_NAME + 1];
	char *extra;
} QueueDef;

/* cmd/any/<pp>/<run>: the owner of the partition asks the session that makes a run for its outcome */
typedef struct CommandDef
{
	int64_t session;
	bool cancel; /* and tells it to end the run */
} CommandDef;

/* outcome/any/<pp>/<run>: the answer */
typedef struct OutcomeDef
{
	int64_t session;
	char status[16];	 /* as in dsched.run, or "not_made": nothing of it was kept, and nothing is recorded */
	int64_t finished_at; /* 0: not known */
	char sqlstate[6];	 /* of one that was lost; "" */
} OutcomeDef;

extern bool codec_command_decode(const char *text, size_t len, CommandDef *out, char *err, size_t errlen);
extern char *codec_command_encode(const CommandDef *command, size_t *len);
extern bool codec_outcome_decode(const char *text, size_t len, OutcomeDef *out, char *err, size_t errlen);
extern char *codec_outcome_encode(const OutcomeDef *outcome, size_t *len);

/* run/... and decided/...: an attempt that was begun (at_most_once), or is committed (exactly_once) */
typedef struct RunMark
{
	bool decision; /* of exactly_once, else a claim of at_most_once */
	char node[CODEC_MAX_NAME + 1];
	int64_t session;
	int64_t epoch;
	int32_t attempt;
	char id[200]; /* gid of the prepared transaction, or what tells this claim from all others */
	int64_t at;	  /* by the clock of that instance */
} RunMark;

extern bool codec_job_check(const JobDef *job, char *err, size_t errlen);
extern bool codec_job_decode(const char *text, size_t len, JobDef *out, char *err, size_t errlen);
extern char *codec_job_encode(const JobDef *job, size_t *len);
extern void codec_job_free(JobDef *job);

/* The format that a value says it has; 0: it does not say.  For values that a decoder has refused. */
extern int64_t codec_format(const char *text, size_t len);

extern bool codec_state_check(const PartitionState *state, char *err, size_t errlen);
extern bool
codec_state_decode(const char *text, size_t len, PartitionState *out, char *err, size_t errlen);
extern char *codec_state_encode(const PartitionState *state, size_t *len);
extern void codec_state_free(PartitionState *state);

extern bool codec_node_check(const NodeInfo *node, char *err, size_t errlen);
extern bool
codec_node_decode(const char *text, size_t len, NodeInfo *out, char *err, size_t errlen);
extern char *codec_node_encode(const NodeInfo *node, size_t *len);
extern void codec_node_free(NodeInfo *node);

extern bool codec_config_check(const ConfigInfo *config, char *err, size_t errlen);
extern bool
codec_config_decode(const char *text, size_t len, ConfigInfo *out, char *err, size_t errlen);
extern char *codec_config_encode(const ConfigInfo *config, size_t *len);

extern bool codec_former_check(const FormerInfo *former, char *err, size_t errlen);
extern bool
codec_former_decode(const char *text, size_t len, FormerInfo *out, char *err, size_t errlen);
extern char *codec_former_encode(const FormerInfo *former, size_t *len);

extern bool codec_trigger_check(const TriggerDef *trigger, char *err, size_t errlen);
extern bool
codec_trigger_decode(const char *text, size_t len, TriggerDef *out, char *err, size_t errlen);
extern char *codec_trigger_encode(const TriggerDef *trigger, size_t *len);
extern void codec_trigger_free(TriggerDef *trigger);

extern bool codec_queue_check(const QueueDef *queue, char *err, size_t errlen);
extern bool
codec_queue_decode(const char *text, size_t len, QueueDef *out, char *err, size_t errlen);
extern char *codec_queue_encode(const QueueDef *queue, size_t *len);
extern void codec_queue_free(QueueDef *queue);

extern bool codec_mark_check(const RunMark *mark, char *err, size_t errlen);
extern bool codec_mark_decode(const char *text, size_t len, RunMark *out, char *err, size_t errlen);
extern char *codec_mark_encode(const RunMark *mark, size_t *len);

#endif /* DSCHED_CORE_CODEC_H */
