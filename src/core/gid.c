/*
 * gid.c
 *	  The names of the prepared transactions of exactly_once.
 *
 *	  dsched:<incarnation>:<place>:<pp>:<job>:<slot>:<trigger>:<attempt>:<epoch>:<session>:<seq>
 *
 * All that has to be known to settle such a transaction is in its name, as nothing else survives a crash together with it: the key
 * in etcd under which its decision stands, and the epoch and session without which that can not be made any more.
 * The place is percent-encoded as in keys; numbers are decimal.
 */
#include "core/gid.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 11

static bool
is_incarnation(const char *text)
{
	static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";

	return text[0] != '\0' && strspn(text, allowed) == strlen(text);
}

bool
gid_write(char *out, const RunGid *gid)
{
	char place[GID_MAX];
	const RunName *run = &gid->run;
	int n;

	out[0] = '\0';
	if (!is_incarnation(gid->incarnation) || !keys_encode(run->place, place, sizeof(place)))
		return false;
	if (place[0] == '\0' || run->partition < 0 || run->partition >= KEYS_MAX_PARTITIONS)
		return false;
	n = snprintf(out, GID_MAX,
				 GID_PREFIX "%s:%s:%03d:%" PRId64 ":%" PRId64 ":%" PRId64 ":%d:%" PRIu64 ":%" PRIu64
							":%" PRIu64,
				 gid->incarnation, place, run->partition, run->job_id, run->slot, run->trigger_id,
				 (int) run->attempt, gid->epoch, gid->session, gid->seq);
	if (n > 0 && n < GID_MAX)
		return true;
	out[0] = '\0';
	return false;
}

/* A decimal number that is written as we write it; strtoll() alone takes spaces, signs and zeroes before it. */
static bool
read_number(const char *text, int64_t least, int64_t *out)
{
	char again[24];

	*out = strtoll(text, NULL, 10);
	snprintf(again, sizeof(again), "%" PRId64, *out);
	return strcmp(again, text) == 0 && *out >= least;
}

static bool
read_unsigned(const char *text, uint64_t *out)
{
	char again[24];

	*out = strtoull(text, NULL, 10);
	snprintf(again, sizeof(again), "%" PRIu64, *out);
	return strcmp(again, text) == 0;
}

bool
gid_read(const char *text, RunGid *out)
{
	char copy[GID_MAX];
	char again[GID_MAX];
	char *part[PARTS];
	int64_t partition;
	int64_t attempt;
	int n = 0;

	memset(out, 0, sizeof(*out));
	if (strlen(text) >= sizeof(copy))
		return false;
	memcpy(copy, text, strlen(text) + 1);
	part[n++] = copy;
	for (char *c = copy; *c != '\0'; c++)
	{
		if (*c != ':')
			continue;
		if (n == PARTS)
			return false;
		*c = '\0';
		part[n++] = c + 1;
	}
	if (n != PARTS || strlen(part[1]) >= sizeof(out->incarnation))
		return false;
	memcpy(out->incarnation, part[1], strlen(part[1]) + 1);
	partition = strtoll(part[3], NULL, 10);
	if (partition < 0 || partition >= KEYS_MAX_PARTITIONS)
		return false;
	out->run.partition = (int) partition;
	if (!keys_decode(part[2], out->run.place, sizeof(out->run.place)) ||
		!read_number(part[4], 1, &out->run.job_id) ||
		!read_number(part[5], INT64_MIN, &out->run.slot) ||
		!read_number(part[6], 0, &out->run.trigger_id) || !read_number(part[7], 1, &attempt) ||
		attempt > INT32_MAX || !read_unsigned(part[8], &out->epoch) ||
		!read_unsigned(part[9], &out->session) || !read_unsigned(part[10], &out->seq))
		return false;
	out->run.attempt = (int32_t) attempt;
	/* exactly what we would have written */
	return gid_write(again, out) && strcmp(again, text) == 0;
}
