/*
 * clock.h
 *	  The only two questions about the time that dsched asks.
 *
 * Wall time decides which slots are due; boot time (which counts a suspended machine's sleep) decides
 * leases and deadlines.  Nothing else in src/ reads a clock.  With the test setting dsched.test_clock
 * the wall time stands in shared memory and is moved by SQL.
 */
#ifndef DSCHED_CLOCK_H
#define DSCHED_CLOCK_H

#include "datatype/timestamp.h"

/* Wall time, microseconds since 2000-01-01 00:00 UTC. */
extern TimestampTz dsched_wall_now(void);

/* CLOCK_BOOTTIME in microseconds; never steps, includes suspend. */
extern int64 dsched_boot_now(void);

#endif /* DSCHED_CLOCK_H */
