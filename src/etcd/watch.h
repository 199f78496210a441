/*
 * watch.h
 *	  Following ranges of etcd's keys: one connection for a set of ranges.
 *
 * Where to go on after a watch was lost: the revision in an answer's header says what etcd has, not what it has
 * delivered (a watch that catches up gets thousands of revisions in several answers, each with the newest
 * revision in its header, and each range for itself).  etcd_watch_next_revision() tells the revision from which
 * a range has to be followed to miss nothing; for the ranges of one watch it can differ.
 */
#ifndef DSCHED_ETCD_WATCH_H
#define DSCHED_ETCD_WATCH_H

#include "etcd/client.h"

typedef struct EtcdWatch EtcdWatch;

typedef struct EtcdWatchRange
{
	const char *key;
	const char *range_end;	/* NULL: the one key */
	int64 start_revision;	/* 0: the watch's */
} EtcdWatchRange;

typedef struct EtcdEvent
{
	bool is_delete;
	EtcdKv kv;	/* of a deletion only key and mod_revision */
} EtcdEvent;

/* Why a watch ended. */
typedef enum EtcdWatchLoss
{
	ETCD_WATCH_DISCONNECTED, /* connection, member or quorum lost, or none had: start again after a back-off */
	ETCD_WATCH_COMPACTED,	 /* the start revision is gone from etcd's history: read the range anew */
	ETCD_WATCH_BEHIND,		 /* the member's revision is below the start: it lags, or etcd was restored; judge
							  * by a linearizable read */
	ETCD_WATCH_REFUSED,		 /* etcd refuses it: no permission, or not a valid range */
	ETCD_WATCH_TOO_BIG,		 /* an answer beyond the bound: as compacted */
	ETCD_WATCH_PROTOCOL		 /* an answer that makes no sense, or out of memory */
} EtcdWatchLoss;

/*
 * What is heard of a watch; any may be NULL.  The calls come from within loop_wait(), under the same rules as
 * an EtcdCallback; all but lost() may stop the watch.
 *
 * started: all ranges are followed from here on; etcd was at header_revision.  (Earlier events may still come.)
 * events: those of one answer, in order, never part of a revision for that range; valid in the call only.
 * progress: of every range all events up to that revision have been delivered.
 * lost: the watch has ended and its handle is void after the call (etcd_watch_next_revision() still works in it).
 */
typedef struct EtcdWatchHandler
{
	void (*started) (void *arg, int64 header_revision);
	void (*events) (void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision);
	void (*progress) (void *arg, int64 header_revision);
	void (*lost) (void *arg, EtcdWatchLoss why, const char *message);
} EtcdWatchHandler;

/*
 * Starts a watch over n ranges, from a revision on (0: from now on).  *handler must stay. NULL: out of memory, and
 * there will be no call.  Whatever else fails is told by lost(), never from within etcd_watch_start().
 */
extern EtcdWatch *etcd_watch_start(EtcdClient *client, const EtcdWatchRange *ranges, int n,
								   int64 start_revision, const EtcdWatchHandler *handler, void *arg);

/* No more calls; the handle is void. */
extern void etcd_watch_stop(EtcdWatch *watch);

/* The same for one that has been found deaf: another member is asked next. */
extern void etcd_watch_give_up(EtcdWatch *watch);

/* The start_revision with which a range can be followed on without a gap; 0: nothing known yet. */
extern int64 etcd_watch_next_revision(const EtcdWatch *watch, int range_index);

#endif /* DSCHED_ETCD_WATCH_H */
