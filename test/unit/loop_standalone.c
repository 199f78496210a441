/*
 * loop_standalone.c
 *	  The event loop of src/loop.h outside a server, for unit tests: epoll and one timer, no latch.
 *
 * Also what else src/etcd/ takes from the server: the boot clock, and the few functions that the server's headers
 * put in the place of the C library's.
 */
#include "postgres.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "loop.h"

#undef vsnprintf
#undef strerror

#define MAX_FDS 1024

typedef struct LoopEntry
{
	LoopHandler handler;
	void *arg;
	uint32 generation;
} LoopEntry;

struct DschedLoop
{
	int epoll_fd;
	int boot_fd;
	uint32 generation;
	uint64 wakeups;
	LoopEntry entries[MAX_FDS];
};

static void
fatal(const char *what)
{
	perror(what);
	exit(2);
}

DschedLoop *
loop_create(bool exit_on_postmaster_death)
{
	DschedLoop *loop = calloc(1, sizeof(DschedLoop));
	struct epoll_event event = {.events = EPOLLIN};

	(void) exit_on_postmaster_death;
	if (loop == NULL)
		fatal("calloc");
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->boot_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	event.data.u64 = (uint64) loop->boot_fd;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->boot_fd, &event) != 0)
		fatal("epoll_ctl");
	return loop;
}

void
loop_set_boot_alarm(DschedLoop *loop, int64 at)
{
	struct itimerspec spec = {{0, 0}, {at / USECS_PER_SEC, at % USECS_PER_SEC * 1000}};

	if (timerfd_settime(loop->boot_fd, TFD_TIMER_ABSTIME, &spec, NULL) != 0)
		fatal("timerfd_settime");
}

void
loop_set_fd(DschedLoop *loop, int fd, uint32 events, LoopHandler handler, void *arg)
{
	struct epoll_event event = {.events = events};
	LoopEntry *entry = &loop->entries[fd];

	if (fd >= MAX_FDS)
		abort();
	if (entry->handler == NULL)
		entry->generation = ++loop->generation;
	entry->handler = handler;
	entry->arg = arg;
	event.data.u64 = (uint64) entry->generation << 32 | (uint32) fd;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
		return;
	if (errno != ENOENT || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		fatal("epoll_ctl");
}

void
loop_remove_fd(DschedLoop *loop, int fd)
{
	if (loop->entries[fd].handler == NULL)
		return;
	loop->entries[fd].handler = NULL;
	(void) epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int
loop_wait(DschedLoop *loop)
{
	struct epoll_event events[16];
	int reasons = 0;
	int n = epoll_wait(loop->epoll_fd, events, 16, -1);
	int i;

	loop->wakeups++;
	for (i = 0; i < n; i++)
	{
		int fd = (int) (uint32) events[i].data.u64;
		LoopEntry *entry = &loop->entries[fd];
		uint64 expirations;

		if (fd == loop->boot_fd)
		{
			if (read(fd, &expirations, sizeof(expirations)) > 0)
				reasons |= LOOP_BOOT_ALARM;
		}
		else if (entry->handler != NULL && entry->generation == events[i].data.u64 >> 32)
		{
			reasons |= LOOP_FD;
			entry->handler(entry->arg, fd, events[i].events);
		}
	}
	return reasons;
}

uint64
loop_wakeups(const DschedLoop *loop)
{
	return loop->wakeups;
}

int64
dsched_boot_now(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

/* The server's own, by the C library's. */
int
pg_snprintf(char *str, size_t count, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(str, count, fmt, args);
	va_end(args);
	return n;
}

char *
pg_strerror(int errnum)
{
	return strerror(errnum);
}

#if !HAVE_DECL_STRLCPY
size_t
strlcpy(char *dst, const char *src, size_t siz)
{
	size_t len = strlen(src);

	if (siz > 0)
	{
		size_t n = len < siz ? len : siz - 1;

		memcpy(dst, src, n);
		dst[n] = '\0';
	}
	return len;
}
#endif
