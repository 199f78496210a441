/*
 * fence.c
 *	  The shared-memory side of ownership: granting it, and taking it away in the right order.
 *
 * Runs in the coordinator.  A run may commit if its session and its partition's epoch are the current ones
 * and the deadline lies ahead; an executor checks that between setting and clearing its "committing" flag
 * (shared.h).  Whoever takes a right away that others could get next (by the deletion of an owner key, or of the
 * lease) does it in this order:
 *
 *	  1. epoch (or session) := 0, full barrier		  no check after this succeeds
 *	  2. cancel the runs							  so that they notice before they try to commit
 *	  3. wait until no executor is "committing"		  checks before (1) have become commits
 *	  4. tell etcd									  others may begin
 *
 * Step 3 is not a loop: fence_quiet() looks, and if it has to say no it raises fence_waiters, upon which executors
 * set our latch when they clear their flag, or exit.  It is raised before the flags are read, so no wake-up is lost.
 *
 * A right that ends by the deadline alone needs none of this: the lease is alive until after the deadline, by a
 * margin that covers the time between the check and the end of the commit.  It is the one window that remains,
 * as nothing can bound how long a commit takes.
 *
 * Epochs, session and deadline are atomic; phases are under control_lock.  When the postmaster is dead, locks
 * may be held by processes that we kill, so what is done then (fence_session(), fence_kill_executors()) takes none.
 */
#include "postgres.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "miscadmin.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "places.h"
#include "settings.h"

/* Is our share in fence_waiters? */
static bool waiting = false;

static void expect_commits(void);
static int open_process(pid_t pid);
static bool wait_for_process(int fd, pid_t pid, int64 until);
static pid_t kill_executor(const volatile ExecutorSlot *executor, int *fd);

/* Whatever a coordinator before us has left: a right that nobody keeps up is none. */
void
fence_reset(void)
{
	fence_session();
	fence_forget_all();
	dsched_cancel_runs(-1, -1);
}

/* ---- granting -------------------------------------------------------------------------------- */

void
fence_grant(int db, int partition, int64 epoch)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&slot->epoch, (uint64) epoch);
	slot->phase = PARTITION_OWNED;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_scheduler(db);
}

/* ---- taking away ----------------------------------------------------------------------------- */

void
fence_partition(int db, int partition)
{
	pg_atomic_write_u64(&dsched_shared->databases[db].partitions[partition].epoch, 0);
	pg_memory_barrier();
	dsched_cancel_runs(db, partition);
}

/* Everything at once.  Takes no lock; cancelling the runs is the caller's. */
void
fence_session(void)
{
	pg_atomic_write_u64(&dsched_shared->session, 0);
	pg_atomic_write_u64(&dsched_shared->deadline, 0);
	pg_memory_barrier();
}

void
fence_forget(int db, int partition)
{
	PartitionSlot *slot = &dsched_shared->databases[db].partitions[partition];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&slot->epoch, 0);
	slot->phase = PARTITION_NONE;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_scheduler(db);
}

static void
forget_below(int partitions)
{
	int db;
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	for (db = 0; db < dsched_shared->max_databases; db++)
	{
		DatabaseSlot *slot = &dsched_shared->databases[db];

		for (p = 0; p < partitions; p++)
		{
			pg_atomic_write_u64(&slot->partitions[p].epoch, 0);
			slot->partitions[p].phase = PARTITION_NONE;
			slot->partitions[p].owner[0] = '\0';
			slot->partitions[p].owner_epoch = 0;
		}
		slot->member = false;
		dsched_wake_scheduler(db);
	}
	LWLockRelease(dsched_shared->control_lock);
}

void
fence_forget_shared(void)
{
	forget_below(places_shared());
}

void
fence_forget_all(void)
{
	forget_below(places_all());
}

/* ---- waiting for commits --------------------------------------------------------------------- */

static void
expect_commits(void)
{
	if (waiting)
		return;
	waiting = true;
	pg_atomic_fetch_add_u32(&dsched_shared->fence_waiters, 1);
	pg_memory_barrier();
}

bool
fence_quiet(int db, int partition)
{
	expect_commits();
	return !dsched_committing(db, partition);
}

void
fence_settled(void)
{
	if (!waiting)
		return;
	waiting = false;
	pg_atomic_fetch_sub_u32(&dsched_shared->fence_waiters, 1);
}

/* ---- after the postmaster's death ------------------------------------------------------------ */

/* A descriptor that becomes readable when the process ends; -1: no such process, or an old kernel. */
static int
open_process(pid_t pid)
{
#ifdef SYS_pidfd_open
	return (int) syscall(SYS_pidfd_open, pid, 0);
#else
	errno = ENOSYS;
	return -1;
#endif
}

/* kill(pid, 0) alone would take a zombie that nobody reaps for a living process. */
static bool
wait_for_process(int fd, pid_t pid, int64 until)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int64 left;

	while ((left = until - dsched_boot_now()) > 0)
	{
		if (fd < 0 && kill(pid, 0) != 0)
			return true;
		/* without a descriptor this is a short sleep */
		if (poll(&pfd, fd < 0 ? 0 : 1, fd < 0 ? 5 : (int) (left / 1000) + 1) > 0)
			return true;
	}
	return false;
}

/*
 * There is no postmaster left that would restart the server for it, and backends flush their WAL themselves: an
 * executor that computes does not notice that it is an orphan, and could still commit.
 */
bool
fence_kill_executors(int timeout_ms)
{
	int64 until = dsched_boot_now() + timeout_ms * INT64CONST(1000);
	pid_t *pids = palloc0(sizeof(pid_t) * dsched_shared->max_executors);
	int *fds = palloc0(sizeof(int) * dsched_shared->max_executors);
	bool gone = true;
	int i;

	/* all at once, so that they end side by side */
	for (i = 0; i < dsched_shared->max_executors; i++)
		pids[i] = kill_executor(&dsched_shared->executors[i], &fds[i]);
	for (i = 0; i < dsched_shared->max_executors; i++)
	{
		if (pids[i] == 0)
			continue;
		gone = wait_for_process(fds[i], pids[i], until) && gone;
		if (fds[i] >= 0)
			(void) close(fds[i]);
	}
	return gone;
}

/* The process that was killed, and a descriptor of it, or 0. */
static pid_t
kill_executor(const volatile ExecutorSlot *executor, int *fd)
{
	pid_t pid = executor->pid;

	if (executor->state == EXECUTOR_FREE || pid <= 0 || pid == MyProcPid)
		return 0;
	*fd = open_process(pid);
	/* The slot is freed before the process ends: if it is still taken, the pid is still this process's. */
	pg_memory_barrier();
	if (executor->state != EXECUTOR_FREE && executor->pid == pid && kill(pid, SIGKILL) == 0)
		return pid;
	if (*fd >= 0)
		(void) close(*fd);
	return 0;
}
