/*
 * test_due.c
 *	  When a slot of a job with jitter is due, for those who measure how late its runs begin.
 *
 * Not part of the extension: benches and tests create this function with CREATE FUNCTION.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "core/policy.h"

PG_FUNCTION_INFO_V1(dsched_test_due);

/*
 * dsched_test_due(job_id bigint, slot timestamptz, jitter interval): the slot and its delay.  For jitters up to the
 * distance of the job's slots; a longer one is cut to that.
 */
Datum
dsched_test_due(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	TimestampTz slot = PG_GETARG_TIMESTAMPTZ(1);
	Interval   *jitter = PG_GETARG_INTERVAL_P(2);

	if (jitter->month != 0 || jitter->day != 0 || jitter->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("jitter must be given in hours, minutes and seconds, and not be negative")));
	PG_RETURN_TIMESTAMPTZ(slot + policy_jitter(job_id, slot, jitter->time));
}
