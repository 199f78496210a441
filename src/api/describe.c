/*
 * describe.c
 *	  dsched.describe(): a schedule as a sentence; the column "description" of the view jobs.
 *
 * describe() checks as a definition does, so that a sentence is given only for what schedule() would take.
 * The column takes each row as it is: what cannot be read has no description, and never fails the view.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "core/describe.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_describe);
PG_FUNCTION_INFO_V1(dsched_describe_job);

static text *
describe(const CronSchedule *schedule, const char *zone, const char *anchor)
{
	char		sentence[DESCRIBE_MAX];

	describe_schedule(schedule, zone, anchor, sentence, sizeof(sentence));
	return cstring_to_text(sentence);
}

/* describe(schedule, time_zone) */
Datum
dsched_describe(PG_FUNCTION_ARGS)
{
	char	   *schedule = text_arg(fcinfo, 0, "schedule");
	bool		zone_given = !PG_ARGISNULL(1);
	const char *zone;
	CronSchedule cron;

	dsched_require_preload();
	zone = zone_given ? text_to_cstring(PG_GETARG_TEXT_PP(1)) : default_time_zone();
	check_schedule(schedule, &zone, zone_given, &cron);
	PG_RETURN_TEXT_P(describe(&cron, zone, NULL));
}

/* _describe(a row of dsched.job); NULL: it cannot be read */
Datum
dsched_describe_job(PG_FUNCTION_ARGS)
{
	HeapTupleHeader job = PG_GETARG_HEAPTUPLEHEADER(0);
	char	   *zone = NULL;
	char	   *anchor = NULL;
	CronSchedule cron;
	CronError	error;
	bool		isnull;
	Datum		value;

	value = GetAttributeByName(job, "run_at", &isnull);
	if (!isnull)
		PG_RETURN_TEXT_P(cstring_to_text(psprintf("Once, at %s", timestamptz_to_str(DatumGetTimestampTz(value)))));
	value = GetAttributeByName(job, "schedule", &isnull);
	if (isnull || !cron_parse(TextDatumGetCString(value), &cron, &error))
		PG_RETURN_NULL();
	value = GetAttributeByName(job, "time_zone", &isnull);
	if (!isnull)
		zone = TextDatumGetCString(value);
	if (zone == NULL || pg_tzset(zone) == NULL)
		PG_RETURN_NULL();
	value = GetAttributeByName(job, "starts_at", &isnull);
	if (!isnull)
		anchor = pstrdup(timestamptz_to_str(DatumGetTimestampTz(value)));
	PG_RETURN_TEXT_P(describe(&cron, zone, anchor));
}
