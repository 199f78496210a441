/*
 * shift_clock.c
 *	  A library to be preloaded (LD_PRELOAD) into a server, whose wall clock then goes a constant time ahead.
 *
 * The pg_cron of Debian 12 knows minutes only.  A bench that waited for the next full minute before every measurement would
 * take an hour.  So pg_cron's server gets a clock by which a minute begins when the bench is ready.  All that is measured there
 * is a difference of times by that same clock.  The cost is one addition a call.
 *
 * SHIFT_CLOCK is the number of seconds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_gettimeofday)(struct timeval *, void *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static time_t shift;

__attribute__((constructor)) static void
find_real_ones(void)
{
	const char *seconds = getenv("SHIFT_CLOCK");

	shift = seconds != NULL ? atol(seconds) : 0;
	real_gettimeofday = dlsym(RTLD_NEXT, "gettimeofday");
	real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	int result = real_gettimeofday(tv, tz);

	if (result == 0)
		tv->tv_sec += shift;
	return result;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int result = real_clock_gettime(clock, ts);

	if (result == 0 && clock == CLOCK_REALTIME)
		ts->tv_sec += shift;
	return result;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t != NULL)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
