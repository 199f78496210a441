/*
 * test_ownership.c
 *	  Who should own what: the bound, independence of order, and how little moves.
 */
#include "core/ownership.h"
#include "random.h"
#include "tap.h"

#define MAX_MEMBERS 40
#define MAX_PARTITIONS 256

typedef struct Group
{
	char names[MAX_MEMBERS][32];
	const char *members[MAX_MEMBERS];
	int count;
} Group;

static void
random_group(Group *group, int count)
{
	int i;

	group->count = count;
	for (i = 0; i < count; i++)
	{
		/* as people name servers: alike but for a number; the number makes them differ */
		snprintf(group->names[i], sizeof(group->names[i]), "%s%d",
				 random_bits() % 2 ? "db-" : "node", (int) random_between(0, 99) * 100 + i);
		group->members[i] = group->names[i];
	}
}

static void
shuffle(const char **members, int count)
{
	int i;

	for (i = count - 1; i > 0; i--)
	{
		int j = (int) random_between(0, i);
		const char *swap = members[i];

		members[i] = members[j];
		members[j] = swap;
	}
}

static bool
within_bound(int count, int partitions, const int *owner)
{
	int load[MAX_MEMBERS] = {0};
	int p;

	for (p = 0; p < partitions; p++)
	{
		if (owner[p] < 0 || owner[p] >= count ||
			++load[owner[p]] > (partitions + count - 1) / count)
			return false;
	}
	return true;
}

static void
test_edges(void)
{
	static const char *const one[] = {"a"};
	static const char *const alike[] = {"a", "a", "a"};
	int owner[4] = {9, 9, 9, 9};
	int p;

	ownership_assign(one, 0, 4, owner);
	ok(owner[0] == -1 && owner[3] == -1, "without members nobody owns");
	ownership_assign(one, 1, 4, owner);
	for (p = 0; p < 4; p++)
		is_int(owner[p], 0, "a single member owns partition %d", p);
	ownership_assign(NULL, 0, 0, NULL);
	ownership_assign(one, 1, 0, NULL);
	ok(true, "no partitions");
	ownership_assign(alike, 3, 4, owner);
	ok(within_bound(3, 4, owner), "equal names are a mistake, but end well");
}

/* Pinned, as instances of different versions must agree to be at peace. */
static void
test_pinned(void)
{
	static const char *const members[] = {"pg1", "pg2", "pg3"};
	static const char expected[] =
		"3223113313123131312223112222123111322331123113222333123321312212";
	int owner[64];
	char got[65];
	int p;

	ownership_assign(members, 3, 64, owner);
	for (p = 0; p < 64; p++)
		got[p] = (char) ('1' + owner[p]);
	got[64] = '\0';
	is_str(got, expected, "the shares of pg1, pg2, pg3");
}

/* The four partitions of each of many places: spread over the members, not all alike. */
static void
test_places(void)
{
	static const char *const members[] = {"pg1", "pg2", "pg3", "pg4"};
	int count[4] = {0};
	int first[4] = {0};
	int owner[64];
	int again[64];
	int p;
	int i;

	ownership_assign(members, 4, 64, owner);
	ownership_assign_place("any", members, 4, 64, again);
	ok(memcmp(owner, again, sizeof(owner)) == 0, "the place any is as ever");
	for (i = 0; i < 200; i++)
	{
		char place[32];

		snprintf(place, sizeof(place), "rack=%d", i);
		ownership_assign_place(place, members, 4, 4, owner);
		for (p = 0; p < 4; p++)
			count[owner[p]]++;
		first[owner[0]]++;
	}
	for (i = 0; i < 4; i++)
	{
		is_int(count[i], 200, "%s has one partition of each place", members[i]);
		ok(first[i] > 20, "and the first of some");
	}
}

static void
test_bound_and_order(void)
{
	int bound_broken = 0;
	int order_matters = 0;
	int i;

	for (i = 0; i < 2000; i++)
	{
		Group group;
		const char *shuffled[MAX_MEMBERS];
		int partitions = (int) random_between(1, 100);
		int owner[MAX_PARTITIONS];
		int again[MAX_PARTITIONS];
		int p;

		random_group(&group, (int) random_between(1, MAX_MEMBERS));
		ownership_assign(group.members, group.count, partitions, owner);
		if (!within_bound(group.count, partitions, owner))
			bound_broken++;
		memcpy(shuffled, group.members, sizeof(shuffled));
		shuffle(shuffled, group.count);
		ownership_assign(shuffled, group.count, partitions, again);
		for (p = 0; p < partitions; p++)
		{
			if (strcmp(group.members[owner[p]], shuffled[again[p]]) != 0)
				order_matters++;
		}
	}
	is_int(bound_broken, 0, "the bound holds for 2000 random groups");
	is_int(order_matters, 0, "the order of members makes no difference");
}

/* What moves when the last member of a group comes or goes, beyond what it owns itself. */
static int
count_moves(const Group *group, int partitions, int *own)
{
	int with[MAX_PARTITIONS];
	int without[MAX_PARTITIONS];
	int others = 0;
	int p;

	ownership_assign(group->members, group->count, partitions, with);
	ownership_assign(group->members, group->count - 1, partitions, without);
	*own = 0;
	for (p = 0; p < partitions; p++)
	{
		if (with[p] == group->count - 1)
			(*own)++;
		else if (with[p] != without[p])
			others++;
	}
	return others;
}

static void
test_movement(void)
{
	static const int counts[] = {2, 3, 4, 5, 8, 16, 33};
	size_t c;

	for (c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
	{
		int total_own = 0;
		int total_others = 0;
		int most_others = 0;
		int i;

		for (i = 0; i < 300; i++)
		{
			Group group;
			int own;
			int others;

			random_group(&group, counts[c]);
			others = count_moves(&group, 64, &own);
			total_own += own;
			total_others += others;
			most_others = others > most_others ? others : most_others;
		}
		printf("# %d members: own share %.1f, others move %.1f (at most %d) of 64\n", counts[c],
			   total_own / 300.0, total_others / 300.0, most_others);
		if (counts[c] == 2)
			is_int(total_others, 0, "of two members nothing else can move");
		else
			ok(total_others <= 300 * 12, "%d members: on average at most 12 of 64 move besides",
			   counts[c]);
	}
}

/* Both ends of the scale in sensible time. */
static void
test_large(void)
{
	static char names[300][16];
	static const char *members[300];
	static int owner[1000];
	int load[300] = {0};
	int most = 0;
	int i;

	for (i = 0; i < 300; i++)
	{
		snprintf(names[i], sizeof(names[i]), "n%d", i);
		members[i] = names[i];
	}
	ownership_assign(members, 300, 1000, owner);
	for (i = 0; i < 1000; i++)
	{
		load[owner[i]]++;
		most = load[owner[i]] > most ? load[owner[i]] : most;
	}
	is_int(most, 4, "1000 partitions over 300 members");
}

int
main(void)
{
	random_begin();
	test_edges();
	test_pinned();
	test_places();
	test_bound_and_order();
	test_movement();
	test_large();
	return done();
}
