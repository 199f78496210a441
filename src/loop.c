/*
 * loop.c
 *	  One event loop for a dsched background worker: latch, postmaster death, alarms, file descriptors.
 *
 * The server's WaitEventSet waits for the latch and the postmaster's death as nothing else can, but up to
 * PostgreSQL 15 it cannot give up a socket again, and its timeouts are whole milliseconds.  So it holds
 * one epoll descriptor of ours as its only "socket", and everything that comes and goes is in there: the
 * descriptors of others, and two timerfds, which fire to the microsecond.
 *
 * The wall-clock timer is always armed, if need be for a time that never comes: with
 * TFD_TIMER_CANCEL_ON_SET an armed timer is how the kernel tells that the clock was set.
 *
 * Handlers may leave by ereport().  Nothing is lost by that: descriptors are level-triggered, the latch is
 * reset only after the handlers ran, and reasons that were found and not yet returned are kept for the
 * next loop_wait().
 *
 * The death of the postmaster, where it does not end the process, is reported once.  Its descriptor would stay
 * readable for ever and the worker, which has things to put in order, would spin.
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "compat.h"
#include "loop.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* Seconds since 1970 in the year 2255, near the end of what the kernel's timers can hold. */
#define NEVER_SECONDS INT64CONST(9000000000)

#define UNIX_TO_POSTGRES_DAYS (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

#define EVENTS_AT_ONCE 64

/* A descriptor of somebody else; handler NULL: not in the loop. */
typedef struct LoopEntry
{
	LoopHandler handler;
	void *arg;
	uint32 events;
	uint32 generation; /* of this use, so that an event of a former one is not taken for its own */
} LoopEntry;

struct DschedLoop
{
	WaitEventSet *set;
	int epoll_fd;
	int wall_fd;
	int boot_fd;
	TimestampTz wall_at; /* 0: no alarm */
	int64 boot_at;		 /* 0: no alarm */
	bool wall_armed;	 /* the wall timer runs, for the alarm or for never */
	int pending;		 /* reasons not yet returned */
	uint32 generation;
	uint64 wakeups;
	int nentries;
	LoopEntry *entries; /* by descriptor */
};

/* ---- creation ------------------------------------------------------------------------------- */

/* postmaster_event: WL_POSTMASTER_DEATH, WL_EXIT_ON_PM_DEATH, or 0 for neither. */
static WaitEventSet *
create_wait_set(int epoll_fd, int postmaster_event)
{
	WaitEventSet *set = compat_create_wait_event_set(3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, epoll_fd, NULL, NULL);
	if (postmaster_event != 0)
		AddWaitEventToSet(set, postmaster_event, PGINVALID_SOCKET, NULL, NULL);
	return set;
}

/* Counts one descriptor with the server, which else might use up the process's limit. */
static void
account_fd(void)
{
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create an event loop: too many open files"),
				 errhint("You may need to raise the open-files limit of the server's user, or "
						 "\"max_files_per_process\".")));
}

static void
watch_timer(int epoll_fd, int timer_fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64) timer_fd};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) != 0)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
						errmsg("could not add a timer to the event loop: %m")));
}

static int
create_timer(int epoll_fd, clockid_t clock)
{
	int fd;

	account_fd();
	fd = timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not create a timer: %m")));
	watch_timer(epoll_fd, fd);
	return fd;
}

DschedLoop *
loop_create(bool exit_on_postmaster_death)
{
	DschedLoop *loop = MemoryContextAllocZero(TopMemoryContext, sizeof(DschedLoop));

	account_fd();
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not create an event loop: %m")));
	loop->wall_fd = create_timer(loop->epoll_fd, CLOCK_REALTIME);
	loop->boot_fd = create_timer(loop->epoll_fd, CLOCK_BOOTTIME);
	loop->set = create_wait_set(loop->epoll_fd, exit_on_postmaster_death ? WL_EXIT_ON_PM_DEATH
																		 : WL_POSTMASTER_DEATH);
	return loop;
}

/* ---- alarms --------------------------------------------------------------------------------- */

/* An absolute time for a timer, from microseconds; a time that is over becomes one that fires at once. */
static struct itimerspec
timer_spec(int64 seconds, int64 microseconds)
{
	struct itimerspec spec = {{0, 0}, {0, 0}};

	if (microseconds < 0)
	{
		microseconds += USECS_PER_SEC;
		seconds--;
	}
	if (seconds >= NEVER_SECONDS)
		spec.it_value.tv_sec = NEVER_SECONDS;
	else if (seconds < 0 || (seconds == 0 && microseconds <= 0))
		spec.it_value.tv_nsec = 1; /* zero would disarm it */
	else
	{
		spec.it_value.tv_sec = seconds;
		spec.it_value.tv_nsec = microseconds * 1000;
	}
	return spec;
}

/* Arms the wall timer for the alarm, or for never. */
static void
arm_wall_timer(DschedLoop *loop)
{
	struct itimerspec spec;

	if (loop->wall_at != 0)
		spec =
			timer_spec(loop->wall_at / USECS_PER_SEC + (int64) UNIX_TO_POSTGRES_DAYS * SECS_PER_DAY,
					   loop->wall_at % USECS_PER_SEC);
	else
		spec = timer_spec(NEVER_SECONDS, 0);

	if (timerfd_settime(loop->wall_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &spec, NULL) !=
		0)
	{
		/* The clock was set since we last looked; the timer is armed all the same. */
		if (errno == ECANCELED)
			loop->pending |= dsched_test_clock ? 0 : LOOP_CLOCK_STEP;
		else
			ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not set a timer: %m")));
	}
	loop->wall_armed = true;
}

void
loop_set_wall_alarm(DschedLoop *loop, TimestampTz at)
{
	if (dsched_test_clock)
		at = 0;
	loop->pending &= ~LOOP_WALL_ALARM;
	if (loop->wall_armed && loop->wall_at == at)
		return;
	loop->wall_at = at;
	loop->wall_armed = false; /* loop_wait() arms it, once for however many calls */
}

void
loop_set_boot_alarm(DschedLoop *loop, int64 at)
{
	struct itimerspec spec = {{0, 0}, {0, 0}};

	loop->pending &= ~LOOP_BOOT_ALARM;
	if (loop->boot_at == at)
		return;
	if (at != 0)
		spec = timer_spec(at / USECS_PER_SEC, at % USECS_PER_SEC);
	if (timerfd_settime(loop->boot_fd, TFD_TIMER_ABSTIME, &spec, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not set a timer: %m")));
	loop->boot_at = at;
}

static void
wall_timer_ready(DschedLoop *loop)
{
	uint64 expirations;
	ssize_t r = read(loop->wall_fd, &expirations, sizeof(expirations));

	if (r == sizeof(expirations))
	{
		if (loop->wall_at != 0 && loop->wall_armed)
		{
			loop->pending |= LOOP_WALL_ALARM;
			loop->wall_at = 0;
		}
		loop->wall_armed = false;
	}
	else if (r < 0 && errno == ECANCELED)
	{
		/* An expiration can be swallowed by this, so the alarm is set anew. */
		loop->pending |= dsched_test_clock ? 0 : LOOP_CLOCK_STEP;
		loop->wall_armed = false;
	}
}

static void
boot_timer_ready(DschedLoop *loop)
{
	uint64 expirations;

	if (read(loop->boot_fd, &expirations, sizeof(expirations)) == sizeof(expirations) &&
		loop->boot_at != 0)
	{
		loop->pending |= LOOP_BOOT_ALARM;
		loop->boot_at = 0;
	}
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static void
grow_entries(DschedLoop *loop, int fd)
{
	int n = Max(fd + 1, Max(64, loop->nentries * 2));
	Size size = n * sizeof(LoopEntry);

	if (loop->entries == NULL)
		loop->entries = MemoryContextAlloc(TopMemoryContext, size);
	else
		loop->entries = repalloc(loop->entries, size);
	memset(loop->entries + loop->nentries, 0, (n - loop->nentries) * sizeof(LoopEntry));
	loop->nentries = n;
}

void
loop_set_fd(DschedLoop *loop, int fd, uint32 events, LoopHandler handler, void *arg)
{
	struct epoll_event event = {.events = events};
	LoopEntry *entry;
	int r;

	Assert(fd >= 0 && handler != NULL);
	if (fd >= loop->nentries)
		grow_entries(loop, fd);
	entry = &loop->entries[fd];
	if (entry->handler == NULL)
	{
		entry->generation = ++loop->generation;
		entry->events = 0;
		ReserveExternalFD();
	}
	entry->handler = handler;
	entry->arg = arg;

	event.data.u64 = (uint64) entry->generation << 32 | (uint32) fd;
	r = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	/* It may be new, or have been closed and opened again behind our back. */
	if (r != 0 && errno == ENOENT)
		r = epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	if (r != 0)
	{
		int save_errno = errno;

		loop_remove_fd(loop, fd);
		errno = save_errno;
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
						errmsg("could not add a file descriptor to the event loop: %m")));
	}
	entry->events = events;
}

/* Never an error: it is called from within libraries that cannot be left by one. */
void
loop_remove_fd(DschedLoop *loop, int fd)
{
	if (fd < 0 || fd >= loop->nentries || loop->entries[fd].handler == NULL)
		return;
	loop->entries[fd].handler = NULL;
	ReleaseExternalFD();
	/* If it is closed already, it left the set by that. */
	(void) epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Calls the handler that an event is for, unless it is gone. */
static void
dispatch(DschedLoop *loop, const struct epoll_event *event)
{
	int fd = (int) (uint32) event->data.u64;
	uint32 generation = (uint32) (event->data.u64 >> 32);
	LoopEntry *entry;

	if (fd == loop->wall_fd)
		wall_timer_ready(loop);
	else if (fd == loop->boot_fd)
		boot_timer_ready(loop);
	else if (fd < loop->nentries)
	{
		entry = &loop->entries[fd];
		if (entry->handler == NULL || entry->generation != generation)
			return;
		loop->pending |= LOOP_FD;
		entry->handler(entry->arg, fd, event->events);
	}
}

static void
dispatch_ready(DschedLoop *loop)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int n = epoll_wait(loop->epoll_fd, events, EVENTS_AT_ONCE, 0);
	int i;

	for (i = 0; i < n; i++)
		dispatch(loop, &events[i]);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void
postmaster_died(DschedLoop *loop)
{
	WaitEventSet *old = loop->set;

	loop->pending |= LOOP_POSTMASTER_DEATH;
	loop->set = create_wait_set(loop->epoll_fd, 0);
	FreeWaitEventSet(old);
}

int
loop_wait(DschedLoop *loop)
{
	WaitEvent events[3];
	bool latch_set = false;
	bool ready = false;
	int reasons;
	int n;
	int i;

	if (!loop->wall_armed)
		arm_wall_timer(loop);

	/* Reasons that an error kept us from returning are returned with whatever else is true by now. */
	n = WaitEventSetWait(loop->set, loop->pending != 0 ? 0 : -1, events, lengthof(events),
						 PG_WAIT_EXTENSION);
	loop->wakeups++;
	for (i = 0; i < n; i++)
	{
		latch_set |= (events[i].events & WL_LATCH_SET) != 0;
		ready |= (events[i].events & WL_SOCKET_READABLE) != 0;
		if (events[i].events & WL_POSTMASTER_DEATH)
			postmaster_died(loop);
	}
	if (ready)
		dispatch_ready(loop);
	if (latch_set)
	{
		ResetLatch(MyLatch);
		loop->pending |= LOOP_LATCH;
	}

	reasons = loop->pending;
	loop->pending = 0;
	return reasons;
}

uint64
loop_wakeups(const DschedLoop *loop)
{
	return loop->wakeups;
}
