/*
 * gid.h
 *	  The names of the prepared transactions of exactly_once.
 */
#ifndef DSCHED_CORE_GID_H
#define DSCHED_CORE_GID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/keys.h"

/* With the NUL: GIDSIZE of PostgreSQL. */
#define GID_MAX 200
#define GID_PREFIX "dsched:"

typedef struct RunGid
{
	char incarnation[40]; /* of the cluster: where to look for the decision */
	RunName run;		  /* with the attempt */
	uint64_t epoch;		  /* under which the decision is asked for */
	uint64_t session;
	uint64_t seq; /* no two transactions of a session have the same */
} RunGid;

/* out: of GID_MAX bytes. False, with out set to "": a part is not valid, or it is too long (the place). */
extern bool gid_write(char *out, const RunGid *gid);

/* False: it is none that gid_write() makes. */
extern bool gid_read(const char *text, RunGid *out);

#endif /* DSCHED_CORE_GID_H */
