/*
 * ownership.c
 *	  Which member of a group should own which partition: advice that every instance computes alike.
 *
 * Rendezvous hashing: each member has a weight for each partition, a hash of both, and the
 * partition belongs to the member with the highest (D. G. Thaler, C. V. Ravishankar,
 * "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking
 * 6(1), 1998).  Who joins or leaves thereby moves only what it gains or loses.  As chance
 * alone would give some members twice the share of others, no member takes more than
 * ceil(partitions / members); what does not fit goes on to the member with the next highest
 * weight (after V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded
 * Loads", 2016, with the bound as tight as it gets).
 *
 * Who goes on must depend neither on the order of the members nor on that of the partitions,
 * or one arrival would shift many.  So a full member keeps the partitions for which its
 * weight is highest: every partition asks members in the order of falling weight, and a
 * member that is asked beyond its bound lets go of the one with its lowest weight, which asks
 * on (D. Gale, L. S. Shapley, "College Admissions and the Stability of Marriage", 1962).
 * As both sides order by one and the same weight there is exactly one stable outcome,
 * whatever the order of asking was.  It needs no memory but the result.
 *
 * All this is only advice.  Instances see members come and go at different moments, and then
 * disagree for a while; what makes an owner is the owner key in etcd alone.  Disagreement
 * costs a delay or a needless hand-over, never safety.
 */
#include "core/ownership.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/keys.h"

/*
 * While partitions still ask, owner[p] also remembers whom a partition without an owner has asked
 * last: NOBODY, or LET_GO(m) after member m.
 */
#define NOBODY (-1)
#define LET_GO(member) (-2 - (member))
#define ASKED_LAST(owner) (-2 - (owner))

/* A partition is known here by a seed: its number, mixed with a hash of its place (0 for "any"). */
static uint64_t
weight(const char *member, uint64_t seed)
{
	return keys_hash(member, strlen(member), seed);
}

/* Does a partition ask member a before b?  Names, then places, decide between equal weights. */
static bool
asks_before(const char *const *members, uint64_t seed, int a, int b)
{
	uint64_t weight_a = weight(members[a], seed);
	uint64_t weight_b = weight(members[b], seed);
	int order;

	if (weight_a != weight_b)
		return weight_a > weight_b;
	order = strcmp(members[a], members[b]);
	return order != 0 ? order < 0 : a < b;
}

/* The member that a partition asks first, or next after the one that let it go. */
static int
next_choice(const char *const *members, int nmembers, uint64_t seed, int last)
{
	int best = NOBODY;
	int m;

	for (m = 0; m < nmembers; m++)
	{
		if (last != NOBODY && !asks_before(members, seed, last, m))
			continue;
		if (best == NOBODY || asks_before(members, seed, m, best))
			best = m;
	}
	return best;
}

/* The number of partitions that member m has, and the one for which its weight is lowest. */
static int
count_load(const char *name, int m, uint64_t salt, int partitions, const int *owner, int *weakest)
{
	uint64_t lowest = 0;
	int load = 0;
	int p;

	*weakest = -1;
	for (p = 0; p < partitions; p++)
	{
		uint64_t here;

		if (owner[p] != m)
			continue;
		here = weight(name, salt ^ (uint64_t) p);
		if (load == 0 || here <= lowest)
		{
			lowest = here;
			*weakest = p;
		}
		load++;
	}
	return load;
}

/* Finds an owner for a partition; returns the partition that is without one thereby, or -1. */
static int
place(const char *const *members, int nmembers, uint64_t salt, int partitions, int bound, int *owner, int p)
{
	int last = owner[p] == NOBODY ? NOBODY : ASKED_LAST(owner[p]);
	int m = next_choice(members, nmembers, salt ^ (uint64_t) p, last);
	int weakest;

	/* m is a member: only full ones let go, and they cannot all be full while p has no place. */
	owner[p] = m;
	if (count_load(members[m], m, salt, partitions, owner, &weakest) <= bound)
		return -1;
	owner[weakest] = LET_GO(m);
	return weakest;
}

static void
assign(const char *const *members, int nmembers, uint64_t salt, int partitions, int *owner)
{
	int bound;
	int p;

	for (p = 0; p < partitions; p++)
		owner[p] = NOBODY;
	if (nmembers <= 0 || partitions <= 0)
		return;

	bound = (partitions - 1) / nmembers + 1;
	for (p = 0; p < partitions; p++)
	{
		int asking = p;

		while (asking >= 0)
			asking = place(members, nmembers, salt, partitions, bound, owner, asking);
	}
}

void
ownership_assign(const char *const *members, int nmembers, int partitions, int *owner)
{
	assign(members, nmembers, 0, partitions, owner);
}

void
ownership_assign_place(const char *place, const char *const *members, int nmembers, int partitions, int *owner)
{
	uint64_t salt = strcmp(place, KEYS_PLACE_ANY) == 0 ? 0 : keys_hash(place, strlen(place), 0);

	assign(members, nmembers, salt, partitions, owner);
}
