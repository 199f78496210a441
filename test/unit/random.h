/*
 * random.h
 *	  Random numbers for unit tests that can be had again: SplitMix64 from a seed that is printed.
 *
 * DSCHED_SEED in the environment repeats a run.
 */
#ifndef DSCHED_TEST_RANDOM_H
#define DSCHED_TEST_RANDOM_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t random_state;

static inline void
random_begin(void)
{
	const char *seed = getenv("DSCHED_SEED");

	random_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t) time(NULL);
	printf("# DSCHED_SEED=%" PRIu64 "\n", random_state);
}

static inline uint64_t
random_bits(void)
{
	uint64_t z = (random_state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* A number from min to max. */
static inline int64_t
random_between(int64_t min, int64_t max)
{
	uint64_t span = (uint64_t) max - (uint64_t) min + 1;
	uint64_t bits = random_bits();

	return (int64_t) ((uint64_t) min + (span == 0 ? bits : bits % span));
}

#endif /* DSCHED_TEST_RANDOM_H */
