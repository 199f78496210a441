/*
 * node.h
 *	  What an instance says of itself in its node key, and what is made of the others'.
 */
#ifndef DSCHED_CLUSTER_NODE_H
#define DSCHED_CLUSTER_NODE_H

#include "cluster/cluster.h"
#include "core/codec.h"

/* This instance, now, with its lease; static storage. */
extern NodeInfo *node_describe(int64 lease);

/*
 * Was that written from this data directory since this machine was booted?  Then PostgreSQL's own interlock
 * (no server starts in a data directory while a process of another one is attached to its shared memory) proves
 * that no process of an older server lives.
 */
extern bool node_is_here(const NodeInfo *other);

/* All of out but name and skew_ms. */
extern void node_to_member(const NodeInfo *info, int64 session, MemberInfo *out);

#endif /* DSCHED_CLUSTER_NODE_H */
