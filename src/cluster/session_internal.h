/*
 * session_internal.h
 *	  What the files session*.c share: the session's own memory, and the parts of its state machine.
 *
 * All of it belongs to the coordinator and lives in that process alone.
 */
#ifndef DSCHED_CLUSTER_SESSION_INTERNAL_H
#define DSCHED_CLUSTER_SESSION_INTERNAL_H

#include "cluster/cluster.h"
#include "core/keys.h"
#include "etcd/watch.h"

/* ---- session.c ------------------------------------------------------------------------------- */

typedef enum SessionStep
{
	STEP_DATABASES,
	STEP_CONFIG,
	STEP_CREATE,
	STEP_HISTORY,
	STEP_SETTLE,
	STEP_LOOK,
	STEP_QUIET,
	STEP_UNNAME,
	STEP_KEYS,
	STEP_REVOKE,
	STEP_GRANT,
	STEP_NODE,
	STEP_LIVE
} SessionStep;

/* A node key of our name that is not ours, while we wait for its end. */
typedef struct Predecessor
{
	int64 create_revision; /* 0: none */
	int64 mod_revision;	   /* when first seen */
	int64 lease;
	bool resumable; /* written from this data directory, by this very system */
	uint64 term;	/* raft term in which its node key was deleted */
	int64 since; /* boot time when first seen */
	EtcdWatch *watch;
} Predecessor;

typedef struct Session
{
	SessionStep step;
	SessionState state;	  /* as published */
	EtcdRequest *request; /* in flight, or NULL */
	int64 retry_at;		  /* boot time of the next request */
	int failures;		  /* in a row */
	int endings;		  /* sessions that ended, in a row, before they had lasted a TTL */
	bool stopped;
	bool revoking;

	char incarnation[40];	/* of the cluster that we have matched; "" none yet */
	int64 number;			/* of that incarnation; 0: the first */
	bool recovered;			/* it is not the first one of its cluster */
	int64 seen_revision;	/* the highest of that incarnation */
	int64 floor_revision;	/* what an answer must reach: the highest when it was asked for */
	int64 beat_revision;	/* of the last heartbeat's put; 0: none of this incarnation */
	char found[40];			/* incarnation of the config that was read; taken when its history is looked at */
	int64 witness;			/* revision of a heartbeat that has to be in it */
	bool in_doubt;			/* and if that is compacted, it is not believed */
	Predecessor old;

	int64 lease;
	int64 ttl_us;
	int64 id;		/* create_revision of the node key; 0: none */
	int64 began_at; /* boot time */
	int64 deadline; /* boot time; 0: not proven yet */
	bool lapsed;

	/* the heartbeat under way */
	int64 beat_sent;
	int64 beat_ttl_us;
	uint64 beat_term;
	bool beat_validates;
	bool beat_puts; /* its transaction writes the node key */
} Session;

extern Session own_session;

/* Names of keys. */
extern char session_config_key[KEYS_MAX_LEN];
extern char session_node_key[KEYS_MAX_LEN];

/* The operations of the heartbeat's transaction: the node key as it was, its put (or a deletion of nothing), config, owner keys. */
#define BEAT_BEFORE 0
#define BEAT_CONFIG 2
#define BEAT_OWNERS 3

/* The next step, and the boot time before which it is not taken. */
extern void session_set_step(SessionStep step, int64 at);

/* What others see. */
extern void session_set_state(SessionState state);

/* Stays out, and looks again after a while from that step on. */
extern void session_refuse(SessionStep again, ProblemKind kind, const char *hint, const char *fmt, ...)
	pg_attribute_printf(4, 5);

extern void session_wake_schedulers(void);

/* Sends the step's request; no memory is an ERROR. */
extern void session_ask(const char *path, cJSON *body, EtcdKind kind, EtcdCallback callback);

/* To be asked first by each callback; false: the step is to be tried again, and is arranged to be. */
extern bool session_answered(const EtcdResponse *r);

/* ---- session_config.c ------------------------------------------------------------------------ */

/* The steps CONFIG, CREATE, HISTORY and SETTLE. */
extern void session_read_config(void);
extern void session_create_config(void);
extern void session_read_history(void);
extern void session_settle(void);

/* The highest revision that the databases that remember this incarnation (NULL: any) have seen; false: none does. */
extern bool session_remembered(const char *incarnation, int64 *revision);

/* Were the jobs of all databases here adopted since, so that none of them remembers a cluster? */
extern bool session_databases_adopted(void);

/* Does a heartbeat's answer come from the etcd, and the cluster, of this session?  If not, the session has ended. */
extern bool session_same_etcd(const EtcdResponse *r);
extern bool session_same_config(const EtcdResponse *r);

/* ---- session_predecessor.c ------------------------------------------------------------------- */

/* The steps LOOK and REVOKE; between them is QUIET, which waits for fence_quiet(). */
extern void session_look(void);
extern void session_revoke_predecessor(void);

/* ---- session_resume.c ------------------------------------------------------------------------ */

/* The steps UNNAME and KEYS, after QUIET, for a predecessor whose lease may be kept. */
extern void session_unname(void);
extern void session_ask_keys(void);

/* ---- session_clock.c ------------------------------------------------------------------------- */

extern void session_clock_start(void);
extern int64 session_clock_advance(int64 now);

/* Compares our clock with that of an answer. */
extern void session_judge_clock(const EtcdResponse *r);

#endif /* DSCHED_CLUSTER_SESSION_INTERNAL_H */
