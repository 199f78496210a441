/*
 * clock.c
 *	  The only two questions about the time that dsched asks.
 *
 * With the test setting the wall time stands in shared memory, where SQL moves it; boot time is always the
 * kernel's, as leases and deadlines are agreed on with processes elsewhere.
 */
#include "postgres.h"

#include <time.h>

#include "clock.h"
#include "settings.h"
#include "shared.h"
#include "utils/timestamp.h"

TimestampTz
dsched_wall_now(void)
{
	if (dsched_test_clock)
		return dsched_test_clock_read();
	return GetCurrentTimestamp();
}

int64
dsched_boot_now(void)
{
	struct timespec now;

	/* Cannot fail with a clock that the kernel has, and every kernel that we run on has this one. */
	(void) clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}
