/*
 * backoff.h
 *	  How long to wait before something that failed is tried again.
 */
#ifndef DSCHED_CORE_BACKOFF_H
#define DSCHED_CORE_BACKOFF_H

#include <stdint.h>

/*
 * The wait after the attempt-th failure in a row (1 is the first), in the unit of base and max:
 * between half of d and d, where d = min(max, base * 2^(attempt - 1)), chosen by random (64 random
 * bits). Never less than 1, so that no mistake in a setting makes a loop spin.
 */
extern int64_t backoff_delay(int attempt, int64_t base, int64_t max, uint64_t random);

#endif /* DSCHED_CORE_BACKOFF_H */
