/*
 * loop.h
 *	  One event loop for a dsched background worker: latch, postmaster death, alarms, file descriptors.
 *
 * One WaitEventSet holds the process latch, postmaster death and one epoll descriptor; the epoll set
 * holds a CLOCK_REALTIME timerfd (slots; absolute, TFD_TIMER_CANCEL_ON_SET, so that a stepped clock wakes us),
 * a CLOCK_BOOTTIME timerfd (leases, back-off) and whatever descriptors were added (libcurl's sockets).
 * There is no tick: a loop with no alarm set sleeps until something happens.
 */
#ifndef DSCHED_LOOP_H
#define DSCHED_LOOP_H

#include "datatype/timestamp.h"

typedef struct DschedLoop DschedLoop;

/* Why loop_wait() returned; a mask, as several can be true at once. */
#define LOOP_LATCH			0x01	/* the process latch was set (already reset here) */
#define LOOP_WALL_ALARM		0x02	/* the wall-time alarm passed */
#define LOOP_BOOT_ALARM		0x04	/* the boot-time alarm passed */
#define LOOP_FD				0x08	/* at least one descriptor's handler was called */
#define LOOP_CLOCK_STEP		0x10	/* the wall clock was set discontinuously */
#define LOOP_POSTMASTER_DEATH 0x20	/* only if asked for at creation; else the process exits */

/* events: a mask of EPOLLIN / EPOLLOUT */
typedef void (*LoopHandler) (void *arg, int fd, uint32 events);

/* Creates the process's loop. exit_on_postmaster_death: else LOOP_POSTMASTER_DEATH is reported. */
extern DschedLoop *loop_create(bool exit_on_postmaster_death);

/* Sleeps until something happens, calls the handlers of ready descriptors, returns the reasons. */
extern int	loop_wait(DschedLoop *loop);

/*
 * Sets (or, with 0, clears) the alarms; each is one-shot and replaces the former one.  An alarm in the
 * past fires at once.  With dsched.test_clock the wall alarm is ignored (whoever moves the clock sets our latch).
 */
extern void loop_set_wall_alarm(DschedLoop *loop, TimestampTz at);
extern void loop_set_boot_alarm(DschedLoop *loop, int64 at);

/* Adds, changes (same fd again) or removes a descriptor. A handler may remove any descriptor, its own too. */
extern void loop_set_fd(DschedLoop *loop, int fd, uint32 events, LoopHandler handler, void *arg);
extern void loop_remove_fd(DschedLoop *loop, int fd);

/* Times that loop_wait() came back, since creation: what an idle process costs. */
extern uint64 loop_wakeups(const DschedLoop *loop);

#endif /* DSCHED_LOOP_H */
