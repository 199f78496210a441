/*
 * session_clock.c
 *	  Is the wall clock of this instance right?
 *
 * Slots are wall time.  Each answer of etcd carries the time of its server in whole seconds.  A clock that
 * was set by more than dsched.max_clock_skew, or is off by more than that and that second, in two heartbeats in a row, is suspect:
 * nothing is started until an answer agrees.  If that lasts, the partitions are given away (membership.c).
 *
 * The verdict for other processes is dsched_shared->clock_suspect, an atomic; the skew, for people, is under
 * control_lock.  How far the clock was from boot time when it was right is in dsched_shared->wall_offset: until an answer has confirmed
 * a clock that was set, all go by that (clock.c).  A clock that the tests move is never judged.  Without answers nothing is judged either: then the
 * session lapses, which is a matter of session.c.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "cluster/session_internal.h"
#include "settings.h"

#define DATE_RESOLUTION_US USECS_PER_SEC
#define CLOCK_PATIENCE_US INT64CONST(30000000)

#define UNIX_EPOCH_OFFSET_S INT64CONST(946684800)

/* What is known of our wall clock. */
typedef struct ClockWatch
{
	bool confirmed;		 /* an answer has agreed once */
	int off;			 /* answers in a row that did not */
	int64 suspect_since; /* boot time; 0: trusted */
} ClockWatch;

static ClockWatch wall;

static void suspect_clock(ProblemKind kind, int64 skew_us);
static void trust_clock(void);

void
session_clock_start(void)
{
	memset(&wall, 0, sizeof(wall));
	/* it may have been set while there was no coordinator */
	if (!dsched_test_clock && pg_atomic_read_u64(&dsched_shared->wall_offset) != 0 && !dsched_wall_agrees())
		suspect_clock(PROBLEM_CLOCK_STEP, 0);
	else
		pg_atomic_write_u32(&dsched_shared->clock_suspect, 0);
}

/* When session_clock_untrusted() may become true. */
int64
session_clock_advance(int64 now)
{
	if (wall.suspect_since != 0 && now < wall.suspect_since + CLOCK_PATIENCE_US)
		return wall.suspect_since + CLOCK_PATIENCE_US;
	return DSCHED_NEVER;
}

void
session_judge_clock(const EtcdResponse *r)
{
	int64 tolerance = dsched_max_clock_skew * INT64CONST(1000) + DATE_RESOLUTION_US;
	int64 half_trip = (r->received_at - r->sent_at) / 2;
	TimestampTz ours;
	TimestampTz theirs;
	int64 skew;

	/* a clock that the tests move has no true time */
	if (dsched_test_clock || r->server_date == 0)
		return;
	/* Our time in the middle of the round trip against the middle of the second that the header names. */
	ours = dsched_wall_shown() - (dsched_boot_now() - r->received_at) - half_trip;
	theirs = (r->server_date - UNIX_EPOCH_OFFSET_S) * USECS_PER_SEC + DATE_RESOLUTION_US / 2;
	skew = ours - theirs;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->clock_skew_ms = skew / 1000;
	LWLockRelease(dsched_shared->control_lock);

	if (skew <= tolerance + half_trip && skew >= -(tolerance + half_trip))
	{
		wall.off = 0;
		wall.confirmed = true;
		dsched_wall_confirm();
		trust_clock();
		return;
	}
	wall.off++;
	/* One answer alone may have been held up; but a clock that was never right gets no credit. */
	if (wall.off >= 2 || !wall.confirmed || wall.suspect_since != 0)
		suspect_clock(PROBLEM_CLOCK_SKEW, skew);
}

static void
suspect_clock(ProblemKind kind, int64 skew_us)
{
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 1);
	if (wall.suspect_since == 0)
		wall.suspect_since = dsched_boot_now();
	if (kind == PROBLEM_CLOCK_STEP)
		cluster_problem(PROBLEM_OF_CLOCK, kind, "Nothing is started until etcd's clock has confirmed the new time.",
						"the clock of this server was set");
	else
		cluster_problem(PROBLEM_OF_CLOCK, kind,
						"Nothing is started on this instance. Synchronize the clocks of this server and of etcd's, "
						"or see dsched.max_clock_skew.",
						"the clock of this server differs from etcd's by %.1f s", skew_us / 1000000.0);
}

static void
trust_clock(void)
{
	if (wall.suspect_since == 0)
		return;
	wall.suspect_since = 0;
	pg_atomic_write_u32(&dsched_shared->clock_suspect, 0);
	cluster_no_problem(PROBLEM_OF_CLOCK);
	session_wake_schedulers();
}

void
session_clock_stepped(void)
{
	if (dsched_test_clock || own_session.stopped)
		return;
	/*
	 * By no more than it may be off: nothing to wait for, perhaps for an etcd that is away.  Steps do not add up, as they are all
	 * compared with what was confirmed.
	 */
	if (wall.suspect_since == 0 && dsched_wall_agrees())
	{
		session_check();
		return;
	}
	suspect_clock(PROBLEM_CLOCK_STEP, 0);
	session_check();
}

bool
session_clock_untrusted(int64 now)
{
	return wall.suspect_since != 0 && now >= wall.suspect_since + CLOCK_PATIENCE_US;
}
