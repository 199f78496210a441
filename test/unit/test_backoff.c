/*
 * test_backoff.c
 *	  Back-off: bounds, growth, and arguments at the edges.
 */
#include "core/backoff.h"
#include "random.h"
#include "tap.h"

static void
test_growth(void)
{
	is_int(backoff_delay(1, 100, 10000, 0), 50, "first, least");
	is_int(backoff_delay(1, 100, 10000, 50), 100, "first, most");
	is_int(backoff_delay(2, 100, 10000, 0), 100, "second, least");
	is_int(backoff_delay(4, 100, 10000, 0), 400, "fourth, least");
	is_int(backoff_delay(8, 100, 10000, 0), 5000, "eighth is at the maximum");
	is_int(backoff_delay(INT32_MAX, 100, 10000, 0), 5000, "and stays there");
	is_int(backoff_delay(3, 500, 300, 150), 300, "a base above the maximum");
	is_int(backoff_delay(1, 3, 100, 1), 3, "odd bounds: most");
	is_int(backoff_delay(1, 3, 100, 0), 2, "odd bounds: least is rounded up");
}

static void
test_edges(void)
{
	is_int(backoff_delay(0, 100, 10000, 0), 50, "attempt 0 is like 1");
	is_int(backoff_delay(INT32_MIN, 100, 10000, 0), 50, "attempts below 0, too");
	is_int(backoff_delay(1, 0, 0, 7), 1, "no base, no maximum: never 0");
	is_int(backoff_delay(5, -9, -9, 7), 1, "negative ones: never 0");
	is_int(backoff_delay(1000, 0, 64, 0), 32, "a base of 0 grows as well");
	ok(backoff_delay(1000, INT64_MAX, INT64_MAX, UINT64_MAX) > 0, "the largest do not overflow");
	ok(backoff_delay(1000, 3, INT64_MAX, UINT64_MAX) > INT64_MAX / 2, "nor does doubling");
}

static void
test_random(void)
{
	int outside = 0;
	int i;

	for (i = 0; i < 100000; i++)
	{
		int attempt = (int) random_between(1, 70);
		int64_t base = random_between(1, INT64_C(1) << random_between(0, 62));
		int64_t max = random_between(base, INT64_MAX);
		int64_t delay = backoff_delay(attempt, base, max, random_bits());

		/* __int128 as an oracle that cannot overflow */
		__extension__ __int128 bound = (__int128) base << (attempt - 1 > 63 ? 63 : attempt - 1);

		if (bound > max)
			bound = max;
		if (delay > bound || delay < bound / 2 || delay < 1)
			outside++;
	}
	is_int(outside, 0, "100000 random delays lie between half of the bound and the bound");
}

int
main(void)
{
	random_begin();
	test_growth();
	test_edges();
	test_random();
	return done();
}
