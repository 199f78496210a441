/*
 * test_clock.c
 *	  Moving the test clock, waiting until everything that follows has happened, and cancelling what runs.
 *
 * Not part of the extension: the tests create these functions with CREATE FUNCTION.  They do nothing
 * on a server that was not started with dsched.test_clock (but say what time it is).
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "settings.h"
#include "shared.h"

#define QUIESCE_TIMEOUT_MS 60000

PG_FUNCTION_INFO_V1(dsched_test_clock_get);
PG_FUNCTION_INFO_V1(dsched_test_clock_set);
PG_FUNCTION_INFO_V1(dsched_test_quiesce);
PG_FUNCTION_INFO_V1(dsched_test_cancel);

static void
require_test_clock(void)
{
	dsched_require_preload();
	if (!dsched_test_clock)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server runs by the real time"),
				 errhint("Start it with dsched.test_clock = on.")));
}

/* dsched_test_clock_get(): the time that dsched goes by, also on a server without a test clock */
Datum
dsched_test_clock_get(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(dsched_wall_now());
}

/* dsched_test_clock_set(timestamptz); NULL: to what it is, which makes the schedulers look again */
Datum
dsched_test_clock_set(PG_FUNCTION_ARGS)
{
	TimestampTz to;

	require_test_clock();
	to = PG_ARGISNULL(0) ? dsched_test_clock_read() : PG_GETARG_TIMESTAMPTZ(0);
	if (TIMESTAMP_NOT_FINITE(to))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the time must not be infinite")));
	dsched_test_clock_move(to);
	PG_RETURN_VOID();
}

/*
 * dsched_test_quiesce(): waits until the schedulers have seen the time and all changes committed so far, and all that
 * was due has run.
 *
 * dsched_test_quiesce(ms): waits so long at most for what follows from the last dsched_test_clock_set(), and says
 * whether it has happened.  For callers that must not sit on a snapshot: CREATE INDEX CONCURRENTLY in a job would
 * wait for it.
 */
Datum
dsched_test_quiesce(PG_FUNCTION_ARGS)
{
	require_test_clock();
	if (PG_NARGS() > 0)
		PG_RETURN_BOOL(dsched_test_quiesce_wait(PG_GETARG_INT32(0)));

	dsched_test_clock_move(dsched_test_clock_read());
	if (!dsched_test_quiesce_wait(QUIESCE_TIMEOUT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the scheduler did not come to rest within %d s", QUIESCE_TIMEOUT_MS / 1000)));
	PG_RETURN_VOID();
}

/* dsched_test_cancel(job_id bigint): cancels the run of the job that an executor is making here; false: there is none. */
Datum
dsched_test_cancel(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	RunKey		key;
	int			found = -1;

	require_test_clock();
	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->queue_size && found < 0; i++)
	{
		const RunEntry *entry = &dsched_shared->entries[i];

		if (entry->state == ENTRY_RUNNING && entry->key.job_id == job_id)
		{
			key = entry->key;
			found = i;
		}
	}
	LWLockRelease(dsched_shared->queue_lock);
	PG_RETURN_BOOL(found >= 0 && dsched_cancel_run(found, &key));
}
