/*
 * clock.c
 *	  The only two questions about the time that dsched asks.
 *
 * In a cluster the wall time goes by what was confirmed last: how far the wall clock is ahead of boot time, which does not
 * step, when an answer of etcd agreed with it (cluster/session_clock.c).  A clock that is set by more than dsched.max_clock_skew is
 * not followed before another answer has confirmed it, so no process takes it for the time in between, however soon
 * it looks: a slot that is opened an hour early, or a retry that is put off by an hour, could not be called back.
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

static TimestampTz
confirmed(TimestampTz shown)
{
	int64		offset = dsched_shared != NULL ? (int64) pg_atomic_read_u64(&dsched_shared->wall_offset) : 0;
	TimestampTz expected;

	if (offset == 0)
		return shown;
	expected = dsched_boot_now() + offset;
	return Abs(shown - expected) <= dsched_max_clock_skew * INT64CONST(1000) ? shown : expected;
}

TimestampTz
dsched_wall_now(void)
{
	if (dsched_test_clock)
		return dsched_test_clock_read();
	return confirmed(GetCurrentTimestamp());
}

/* What the clock shows, confirmed or not. */
TimestampTz
dsched_wall_shown(void)
{
	return dsched_test_clock ? dsched_test_clock_read() : GetCurrentTimestamp();
}

/* Is what the clock shows what was confirmed, but for the difference that is allowed?  Not if nothing was confirmed. */
bool
dsched_wall_agrees(void)
{
	TimestampTz shown = GetCurrentTimestamp();

	return pg_atomic_read_u64(&dsched_shared->wall_offset) != 0 && confirmed(shown) == shown;
}

/* The clock is right as it is now. */
void
dsched_wall_confirm(void)
{
	pg_atomic_write_u64(&dsched_shared->wall_offset, (uint64) (GetCurrentTimestamp() - dsched_boot_now()));
}

/* Nobody confirms the clock any more: it is taken as it is. */
void
dsched_wall_unconfirmed(void)
{
	pg_atomic_write_u64(&dsched_shared->wall_offset, 0);
}

int64
dsched_boot_now(void)
{
	struct timespec now;

	/* Cannot fail with a clock that the kernel has, and every kernel that we run on has this one. */
	(void) clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}
