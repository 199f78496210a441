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

/* Wall time, microseconds since 2000-01-01 00:00 UTC; in a cluster as it was confirmed last. */
extern TimestampTz dsched_wall_now(void);

/* The same, but of a clock that was set also before anybody has confirmed it. For those who judge it. */
extern TimestampTz dsched_wall_shown(void);

/* Does the clock show what was confirmed, but for dsched.max_clock_skew?  Not if nothing was confirmed. */
extern bool dsched_wall_agrees(void);

/* What the clock shows now is the time; from now on it is not known whether it is. */
extern void dsched_wall_confirm(void);
extern void dsched_wall_unconfirmed(void);

/* CLOCK_BOOTTIME in microseconds; never steps, includes suspend. */
extern int64 dsched_boot_now(void);

#endif /* DSCHED_CLOCK_H */
