/*
 * membership_internal.h
 *	  What the files membership*.c share: the databases of this instance as members of the cluster.
 *
 *	  membership.c			 which databases take part, which partitions they should have: decides
 *	  membership_watch.c	 nodes, members and owners: reads
 *	  membership_claim.c	 member and owner keys: writes, and what is held
 *	  membership_roles.c	 roles that a member lacks
 *
 * All of it belongs to the coordinator and lives in that process alone.
 */
#ifndef DSCHED_CLUSTER_MEMBERSHIP_INTERNAL_H
#define DSCHED_CLUSTER_MEMBERSHIP_INTERNAL_H

#include "cluster/cluster.h"
#include "core/keys.h"
#include "core/selector.h"
#include "places.h"

/* Claims or deletions in one transaction: etcd takes 128 operations over all levels of nesting. */
#define BATCH 64

/* A partition; the states are explained in membership_claim.c. */
typedef enum HoldState
{
	HOLD_NONE,
	HOLD_CLAIMING,
	HOLD_OWNED,
	HOLD_FENCED,
	HOLD_DELETING
} HoldState;

typedef struct Hold
{
	HoldState state;
	int64 epoch;	/* create_revision of our owner key, from OWNED to DELETING */
	int64 owner;	/* create_revision of the owner key, whoever has it; 0: none */
	int64 known;	/* revision up to which we know */
	bool asked;		/* the scheduler was asked to release it */
	bool doubted;	/* the scheduler has given it up; reading again */
	int64 ask_again; /* boot time before which it is not asked again */
	int64 declined_until; /* boot time before which it is not claimed: our scheduler cannot read its account */
	int64 vacant_since;	  /* boot time since which it has no owner; 0: it has one */
	bool adopted;		  /* ours although others should have it, who do not take it */
	bool adopting;		  /* the last claim was sent for that; what is known of members has not changed since */
	uint64 advised_to;	  /* hash of the name of who should have it; 0: nobody */
} Hold;

typedef enum GroupState
{
	GROUP_OUT,	   /* no member key; only followed */
	GROUP_JOINING, /* to create the member key; partitions may be held */
	GROUP_IN,
	GROUP_LEAVING
} GroupState;

/* What is done by the request in flight. */
typedef enum GroupRequest
{
	REQUEST_NONE,
	REQUEST_JOIN,
	REQUEST_LEAVE,
	REQUEST_TELL,
	REQUEST_CLAIM,
	REQUEST_DELETE
} GroupRequest;

/* A database of this instance; its index is that of its DatabaseSlot. */
typedef struct Group
{
	bool used;
	Oid dboid;
	char name[NAMEDATALEN];
	GroupState state;
	bool kept; /* had by a former session under our lease; nothing was read yet */
	pid_t scheduler; /* the process that the partitions were given to; 0: it is gone */

	int64 unwanted_since; /* boot time; 0: wanted */
	int64 drain_until;	  /* LEAVING: boot time until which partitions may drain */

	bool wedged;
	int64 asked_at; /* boot time since which an answer is due */

	int64 member;		/* create_revision of our member key; 0: none */
	int64 member_known; /* revision up to which we know that */
	int nothers;
	char others[DSCHED_MAX_NODES][DSCHED_MAX_NODE_NAME]; /* the other members */
	Lacks others_lack[DSCHED_MAX_NODES]; /* roles that they lack */
	Lacks lacks;		   /* roles that we lack */
	uint64 lacks_version;  /* of these, as of the scheduler */
	uint64 lacks_written;  /* which are in our member key */
	uint64 lacks_sent;	   /* which are in the request in flight */
	uint64 used_version;   /* of the partitions that have jobs of such roles */
	bool advice_due;
	bool advised[DSCHED_MAX_PARTITIONS]; /* to us */
	uint64 among[DSCHED_MAX_PLACES + 1]; /* hash of the names of those who may have the partitions of each place, "any" last */
	bool may_adopt[DSCHED_MAX_PARTITIONS]; /* we can run its jobs, if those to whom it is advised do not take it */
	bool unfit[DSCHED_MAX_PARTITIONS]; /* we lack a role of its jobs, and another member has them all */
	char places[DSCHED_MAX_PLACES][SELECTOR_MAX + 1]; /* as in the DatabaseSlot; "": free */

	EtcdRequest *request;
	GroupRequest doing;
	int nbatch;
	int batch[BATCH]; /* the partitions that the request is about */
	int failures;
	int64 retry_at;
	Hold holds[DSCHED_MAX_PARTITIONS];
} Group;

/* ---- membership.c ---------------------------------------------------------------------------- */

extern Group *membership_groups; /* dsched.max_databases of them */
extern bool membership_active;	 /* between membership_begin() and membership_end() */

/* Nodes or labels have changed: who should own the partitions of selectors has to be computed again. */
extern void membership_labels_changed(void);

/* The partition of a key; -1: of a place that is not known here. */
extern int membership_partition(const Group *g, const char *place, int number);

/* What our own member key is at a revision; 0: there is none. */
extern void membership_own_key_is(Group *g, int64 create_revision, int64 revision);

/* ---- membership_watch.c ---------------------------------------------------------------------- */

extern void membership_watch_init(void);
extern void membership_watch_begin(void);
extern void membership_watch_stop(void);
extern void membership_watch_end(void);
extern int64 membership_watch_advance(int64 now);

/* Is all that is known up to date, as far as one can know? */
extern bool membership_watching(void);

/* What is known may be out of date: nothing new is claimed before all was read again. */
extern void membership_read_again(void);

/* After a heartbeat that wrote at this revision: has the watch told of the one before? */
extern void membership_watch_heartbeat(int64 revision);

/* The labels of a node, as its node key says; NULL: there is none. */
extern const char *membership_labels(const char *node);

/* Shows people the list of nodes, if it has changed. */
extern void membership_publish_nodes(void);

/* ---- membership_roles.c ---------------------------------------------------------------------- */

/* "lacks" in the value of a member key: from another's, and into our own. */
extern void membership_read_lacks(const EtcdKv *kv, Lacks *out);
extern void membership_add_lacks(const Group *g, cJSON *object);

/* Each turn: what our scheduler says, and what it is to know. */
extern void membership_follow_roles(int db, Group *g);

/* Advice: those who lack a role of a partition are passed over; and that this has been done. */
extern void membership_pass_over(int db, Group *g, const char *place, const char *const *names, int nnames, int first,
								 int n, int *owner);
extern void membership_roles_advised(int db, const Group *g);

/* ---- membership_claim.c ---------------------------------------------------------------------- */

/* All names in our keys have been bounded before they came here: false from keys.c is an ERROR. */
extern bool membership_need_key(bool built);

/* What the owner key of a partition is at a revision; kv NULL: there is none. */
extern void membership_apply_owner(int db, int partition, const EtcdKv *kv, int64 revision);

/* So many leases a partition is without an owner before a member takes it that should not have it. */
#define VACANT_LEASES 3
/* What our scheduler cannot read is left alone for so long. */
#define DECLINED_US INT64CONST(300000000)

/* Is it to be claimed? *next: when to ask again, if that is all that it takes. */
extern bool membership_wants(const Group *g, int partition, int64 now, int64 *next);

/* Takes the right away; the key is deleted when no commit is under way. */
extern void membership_fence(int db, int partition);

/* Starts what is most urgent; false: there is nothing to do. */
extern bool membership_next_request(int db, Group *g);

#endif /* DSCHED_CLUSTER_MEMBERSHIP_INTERNAL_H */
