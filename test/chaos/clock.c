/*
 * clock.c
 *	  A wall clock that steps, for the processes of one instance: LD_PRELOAD=clock.so CHAOS_CLOCK=file.
 *
 * The file has two 64-bit numbers: by how many nanoseconds this clock is ahead of the system's, and how often it was stepped.
 * They are mapped, so that all processes see a step at once.  CLOCK_REALTIME in all its forms follows; the other clocks are the
 * system's, as they are when a real clock is set.
 *
 * timerfds of CLOCK_REALTIME go by the stepped clock, too, and, as with TFD_TIMER_CANCEL_ON_SET, one that is armed becomes readable at a
 * step and its read fails with ECANCELED.  The kernel does not know of our steps, so a timer ticks at least ten times a second beneath, and
 * epoll_wait() looks for steps before and after it waits.  A tick that means nothing is a read that fails with EAGAIN.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 4096
#define TICK_NS INT64_C(100000000)
#define NS INT64_C(1000000000)

typedef struct Stepped
{
	volatile int64_t ahead;
	volatile int64_t steps;
} Stepped;

typedef struct WallTimer
{
	bool		ours;
	bool		armed;
	int64_t		target;			/* by the stepped clock */
	int64_t		steps;			/* when it was armed */
} WallTimer;

static Stepped nothing;
static Stepped *stepped = &nothing;
static WallTimer timers[MAX_FD];
static int	highest = -1;

__attribute__((constructor)) static void
map_clock(void)
{
	const char *path = getenv("CHAOS_CLOCK");
	int			fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(Stepped), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		stepped = map;
}

static int64_t
system_now(void)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts);
	return ts.tv_sec * NS + ts.tv_nsec;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = (int) syscall(SYS_clock_gettime, clock, ts);

	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
	{
		int64_t		now = ts->tv_sec * NS + ts->tv_nsec + stepped->ahead;

		ts->tv_sec = now / NS;
		ts->tv_nsec = now % NS;
	}
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	int64_t		now = system_now() + stepped->ahead;

	(void) zone;
	tv->tv_sec = now / NS;
	tv->tv_usec = now % NS / 1000;
	return 0;
}

time_t
time(time_t *out)
{
	time_t		now = (system_now() + stepped->ahead) / NS;

	if (out != NULL)
		*out = now;
	return now;
}

static int
real_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old)
{
	return (int) syscall(SYS_timerfd_settime, fd, flags, spec, old);
}

/* At the target or the next tick, whichever is first; and from then on with each tick. */
static int
arm(int fd, int64_t first)
{
	struct itimerspec spec = {{0, TICK_NS}, {first / NS, first % NS}};

	return real_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

int
timerfd_create(int clock, int flags)
{
	int			fd = (int) syscall(SYS_timerfd_create, clock, flags);

	if (fd >= 0 && fd < MAX_FD)
	{
		timers[fd] = (WallTimer) {.ours = clock == CLOCK_REALTIME};
		if (timers[fd].ours && fd > highest)
			highest = fd;
	}
	return fd;
}

int
timerfd_settime(int fd, int flags, const struct itimerspec *spec, struct itimerspec *old)
{
	WallTimer  *timer = fd >= 0 && fd < MAX_FD ? &timers[fd] : NULL;
	int64_t		target = spec->it_value.tv_sec * NS + spec->it_value.tv_nsec;
	int64_t		now = system_now();
	int64_t		first;

	if (timer == NULL || !timer->ours || !(flags & TFD_TIMER_ABSTIME))
		return real_settime(fd, flags, spec, old);
	/* a time that never comes would overflow */
	timer->target = spec->it_value.tv_sec > INT64_MAX / NS / 2 ? INT64_MAX / 2 : target;
	timer->armed = timer->target != 0;
	timer->steps = stepped->steps;
	if (!timer->armed)
		return real_settime(fd, flags, spec, old);
	first = timer->target - stepped->ahead;
	if (first > now + TICK_NS)
		first = now + TICK_NS;
	return arm(fd, first > 1 ? first : 1);
}

ssize_t
read(int fd, void *buffer, size_t length)
{
	ssize_t		result = syscall(SYS_read, fd, buffer, length);
	WallTimer  *timer = fd >= 0 && fd < MAX_FD ? &timers[fd] : NULL;

	if (timer == NULL || !timer->ours || result != sizeof(uint64_t) || !timer->armed)
		return result;
	if (timer->steps != stepped->steps)
	{
		timer->steps = stepped->steps;
		errno = ECANCELED;
		return -1;
	}
	if (system_now() + stepped->ahead < timer->target)
	{
		errno = EAGAIN;
		return -1;
	}
	timer->armed = false;
	*(uint64_t *) buffer = 1;
	real_settime(fd, 0, &(struct itimerspec) {{0, 0}, {0, 0}}, NULL);
	return result;
}

int
close(int fd)
{
	if (fd >= 0 && fd < MAX_FD)
		timers[fd].ours = false;
	return (int) syscall(SYS_close, fd);
}

/* Was the clock stepped?  Then the timers become readable. */
static bool
tell_of_steps(void)
{
	bool		told = false;

	for (int fd = 0; fd <= highest; fd++)
		if (timers[fd].ours && timers[fd].armed && timers[fd].steps != stepped->steps)
		{
			arm(fd, 1);
			told = true;
		}
	return told;
}

static int
real_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	static int	(*next) (int, struct epoll_event *, int, int) = NULL;

	if (next == NULL)
		next = (int (*) (int, struct epoll_event *, int, int)) dlsym(RTLD_NEXT, "epoll_wait");
	return next(epoll, events, most, timeout);
}

int
epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	int			n;

	tell_of_steps();
	n = real_epoll_wait(epoll, events, most, timeout);
	if (n >= 0 && tell_of_steps())
	{
		int			again = real_epoll_wait(epoll, events, most, 0);

		return again > 0 ? again : n;
	}
	return n;
}
