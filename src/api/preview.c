/*
 * preview.c
 *	  dsched.preview(): the times at which a schedule would run.
 *
 * The same checks and the same calendar as for a job's definition, so that what is shown is what runs.  An
 * interval is shown as it would be for a job defined at 'after'.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "shared.h"

#define PREVIEW_DEFAULT_COUNT 10
#define PREVIEW_MAX_COUNT 100000

PG_FUNCTION_INFO_V1(dsched_preview);

typedef struct PreviewState
{
	SlotRule	rule;
	TimestampTz after;
	int			left;
} PreviewState;

static int
count_arg(FunctionCallInfo fcinfo, int arg)
{
	int			count = PG_ARGISNULL(arg) ? PREVIEW_DEFAULT_COUNT : PG_GETARG_INT32(arg);

	if (count < 1 || count > PREVIEW_MAX_COUNT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("count must be between 1 and %d", PREVIEW_MAX_COUNT)));
	return count;
}

static TimestampTz
after_arg(FunctionCallInfo fcinfo, int arg)
{
	TimestampTz after = PG_ARGISNULL(arg) ? dsched_wall_now() : PG_GETARG_TIMESTAMPTZ(arg);

	if (TIMESTAMP_NOT_FINITE(after))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after must not be infinite")));
	return after;
}

/* The rule of a job with this schedule and nothing else, defined at 'after'. */
static void
make_rule(const char *schedule, const char *zone, bool zone_given, TimestampTz after, SlotRule *rule)
{
	CronSchedule *cron = palloc(sizeof(CronSchedule));

	memset(rule, 0, sizeof(*rule));
	check_schedule(schedule, &zone, zone_given, cron);
	rule->cron = cron;
	if (cron->kind == CRON_REBOOT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("@reboot has no times to show"),
				 errdetail("It runs when the server starts.")));
	rule->tz = pg_tzset(zone);
	rule->anchor = after;
	rule->slots_from = after;
}

static PreviewState *
begin_preview(FunctionCallInfo fcinfo)
{
	PreviewState *state = palloc(sizeof(PreviewState));
	char	   *schedule = text_arg(fcinfo, 0, "schedule");
	bool		zone_given = !PG_ARGISNULL(1);

	state->after = after_arg(fcinfo, 2);
	state->left = count_arg(fcinfo, 3);
	make_rule(schedule, zone_given ? text_to_cstring(PG_GETARG_TEXT_PP(1)) : default_time_zone(),
			  zone_given, state->after, &state->rule);
	return state;
}

/* preview(schedule, time_zone, after, count) */
Datum
dsched_preview(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	PreviewState *state;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		dsched_require_preload();
		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		context->user_fctx = begin_preview(fcinfo);
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	state = context->user_fctx;

	CHECK_FOR_INTERRUPTS();
	if (state->left > 0)
	{
		TimestampTz slot = slot_next(&state->rule, state->after);

		if (slot != 0)
		{
			state->after = slot;
			state->left--;
			SRF_RETURN_NEXT(context, TimestampTzGetDatum(slot));
		}
	}
	SRF_RETURN_DONE(context);
}
