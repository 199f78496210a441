/*
 * keys.h
 *	  The keys that dsched uses in etcd, and the hash that puts jobs into partitions.
 *
 * The scheme, and who may be sure of what, is described in keys.c.  Names are handed over and given
 * back as they are; the percent-encoding happens here and nowhere else.
 */
#ifndef DSCHED_CORE_KEYS_H
#define DSCHED_CORE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest name (cluster, database, node, role, job) in a key, before and after encoding. */
#define KEYS_MAX_NAME 255
#define KEYS_MAX_ENCODED (3 * KEYS_MAX_NAME)

/* Holds every key and its NUL: the longest has four names, /dsched/C/db/D/job/ppp/R/N. */
#define KEYS_MAX_LEN (4 * KEYS_MAX_ENCODED + (int) sizeof("/dsched//db//job/ppp//"))

/* <pp> has three digits. */
#define KEYS_MAX_PARTITIONS 1000

/* Ids in keys are decimal and at most this, as everywhere else where JSON carries them. */
#define KEYS_MAX_ID ((INT64_C(1) << 53) - 1)

typedef enum KeyKind
{
	KEY_CONFIG,	 /* /dsched/<cluster>/config */
	KEY_RECOVERY, /* /dsched/<cluster>/recovery */
	KEY_FORMER,	 /* /dsched/<cluster>/former/<database> */
	KEY_NODE,	 /* /dsched/<cluster>/node/<node> */
	KEY_MEMBER,	 /* /dsched/<cluster>/db/<database>/member/<node> */
	KEY_JOB,	 /* /dsched/<cluster>/db/<database>/job/<pp>/<role>/<name> */
	KEY_JOBREV,	 /* /dsched/<cluster>/db/<database>/jobrev/<pp> */
	KEY_TRIGGER, /* /dsched/<cluster>/db/<database>/trigger/<pp>/<id> */
	KEY_OWNER,	 /* /dsched/<cluster>/db/<database>/owner/<place>/<pp> */
	KEY_STATE,	 /* /dsched/<cluster>/db/<database>/state/<place>/<pp> */
	KEY_QUEUE,	 /* /dsched/<cluster>/db/<database>/queue/<name> */
	KEY_QUEUEREV, /* /dsched/<cluster>/db/<database>/queuerev */
	KEY_COMMAND, /* /dsched/<cluster>/db/<database>/cmd/<place>/<pp>/<job>/<slot>/<trigger>/<attempt> */
	KEY_OUTCOME, /* /dsched/<cluster>/db/<database>/outcome/<place>/<pp>/<job>/<slot>/<trigger>/<attempt> */
	KEY_RUN,	 /* /dsched/<cluster>/db/<database>/run/<place>/<pp>/<job>/<slot>/<trigger>[/<attempt>] */
	KEY_DECIDED	 /* /dsched/<cluster>/db/<database>/decided/<place>/<pp>/<job>/<slot>/<trigger> */
} KeyKind;

/* The place of all instances, of which each may own any partition. */
#define KEYS_PLACE_ANY "any"

/* A place as it stands in the names of runs: "any" as it is, a selector as a hash, as it can be long. */
#define KEYS_SHORT_PLACE 24
extern void keys_short_place(const char *place, char *out);

/* The run that a key is about.  The place is a short one.  Its slot is in microseconds since 1970, as it stands in the key. */
typedef struct RunName
{
	char place[KEYS_MAX_NAME + 1];
	int partition;
	int64_t job_id;
	int64_t slot;
	int64_t trigger_id; /* 0: the schedule itself */
	int32_t attempt;	/* 0: of all of its attempts */
} RunName;

/* What keys_parse() finds; what a kind does not have is "", -1 (partition) or 0 (id). */
typedef struct KeyParts
{
	KeyKind kind;
	char database[KEYS_MAX_NAME + 1];
	char node[KEYS_MAX_NAME + 1];
	char role[KEYS_MAX_NAME + 1];
	char name[KEYS_MAX_NAME + 1];
	char place[KEYS_MAX_NAME + 1];
	int partition;
	int64_t id;
	RunName run; /* of KEY_RUN, KEY_DECIDED, KEY_COMMAND and KEY_OUTCOME */
} KeyParts;

/* hashing: fixed for ever, see keys.c */
extern uint64_t keys_hash(const void *data, size_t len, uint64_t seed);
extern int keys_partition(const char *role, const char *name, int partitions);

/* Has a name no control character, neither of ASCII nor, in UTF-8, U+0080 to U+009F?  Instances with others are none of ours. */
extern bool keys_is_shown(const char *name);

/*
 * Percent-encoding.  False, with out set to "", if out is too small; keys_decode also if in is not
 * exactly what keys_encode would have made of some string.
 */
extern bool keys_encode(const char *in, char *out, size_t outlen);
extern bool keys_decode(const char *in, char *out, size_t outlen);

/*
 * Builders: write a key into out, a buffer of KEYS_MAX_LEN bytes.  False, with out set to "", if a
 * name is empty or longer than KEYS_MAX_NAME or a number is out of range.
 */
extern bool keys_config(char *out, const char *cluster);
extern bool keys_recovery(char *out, const char *cluster);
extern bool keys_former(char *out, const char *cluster, const char *database);
extern bool keys_node(char *out, const char *cluster, const char *node);
extern bool keys_member(char *out, const char *cluster, const char *database, const char *node);
extern bool keys_job(char *out, const char *cluster, const char *database, int partition,
					 const char *role, const char *name);
extern bool keys_jobrev(char *out, const char *cluster, const char *database, int partition);
extern bool
keys_trigger(char *out, const char *cluster, const char *database, int partition, int64_t id);
extern bool keys_owner(char *out, const char *cluster, const char *database, const char *place, int partition);
extern bool keys_state(char *out, const char *cluster, const char *database, const char *place, int partition);
extern bool keys_command(char *out, const char *cluster, const char *database, const RunName *run);
extern bool keys_outcome(char *out, const char *cluster, const char *database, const RunName *run);
extern bool keys_queue(char *out, const char *cluster, const char *database, const char *name);
extern bool keys_queuerev(char *out, const char *cluster, const char *database);

extern bool keys_run(char *out, const char *cluster, const char *database, const RunName *run);
extern bool keys_decided(char *out, const char *cluster, const char *database, const RunName *run);

/* Prefixes, all of them ending in '/'; keys_prefix_end() makes the range_end that goes with one. */
extern bool keys_databases_prefix(char *out, const char *cluster);
extern bool keys_node_prefix(char *out, const char *cluster);
extern bool keys_member_prefix(char *out, const char *cluster, const char *database);
extern bool keys_jobrev_prefix(char *out, const char *cluster, const char *database);
extern bool keys_job_prefix(char *out, const char *cluster, const char *database);
extern bool
keys_job_partition_prefix(char *out, const char *cluster, const char *database, int partition);
extern bool keys_trigger_prefix(char *out, const char *cluster, const char *database);
extern bool
keys_trigger_partition_prefix(char *out, const char *cluster, const char *database, int partition);
extern bool keys_owner_prefix(char *out, const char *cluster, const char *database);
extern bool keys_state_prefix(char *out, const char *cluster, const char *database);
extern bool keys_command_prefix(char *out, const char *cluster, const char *database);
extern bool keys_outcome_prefix(char *out, const char *cluster, const char *database);
extern bool keys_run_prefix(char *out, const char *cluster, const char *database);
extern bool keys_run_partition_prefix(char *out, const char *cluster, const char *database,
									  const char *place, int partition);
/* Of the keys of the attempts at one run; run->attempt does not count. */
extern bool
keys_run_attempts_prefix(char *out, const char *cluster, const char *database, const RunName *run);

/* end, of KEYS_MAX_LEN bytes, becomes the first key after all those that start with prefix. */
extern bool keys_prefix_end(const char *prefix, char *end);

/* [start, end) holds every job/ and every jobrev/ key of a group and nothing else of ours. */
extern bool
keys_definition_range(char *start, char *end, const char *cluster, const char *database);

/* Likewise every queue/ key and the key queuerev. */
extern bool keys_queue_range(char *start, char *end, const char *cluster, const char *database);

/*
 * Takes a key of this cluster apart.  False, with out cleared, for what is not exactly a key that
 * one of the builders makes for this cluster: keys of others, of later versions, and hostile ones.
 */
extern bool keys_parse(const char *cluster, const char *key, KeyParts *out);

#endif /* DSCHED_CORE_KEYS_H */
