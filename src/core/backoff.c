/*
 * backoff.c
 *	  How long to wait before something that failed is tried again.
 *
 * The bound doubles with each failure in a row up to a maximum, so that what is down is not
 * kept down by those who wait for it.  The wait is a random one from the upper half of the
 * bound ("equal jitter"): the random half keeps instances that failed together from coming
 * back together, and the fixed half keeps the promise that a failing job is not tried again
 * at once, which "full jitter" would break.
 */
#include "core/backoff.h"

int64_t
backoff_delay(int attempt, int64_t base, int64_t max, uint64_t random)
{
	int64_t bound = base < 1 ? 1 : base;
	int64_t half;

	if (max < 1)
		max = 1;
	/* Doubling is compared before it is done, so that nothing overflows. */
	for (; attempt > 1 && bound < max; attempt--)
		bound = bound > max / 2 ? max : bound * 2;
	if (bound > max)
		bound = max;

	/* Rounded up, so that it is never 0. */
	half = bound - bound / 2;
	return half + (int64_t) (random % ((uint64_t) (bound - half) + 1));
}
