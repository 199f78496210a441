/*
 * current_run.c
 *	  dsched.current_run(): what a command may know about the run that it is part of.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "execute/executor.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_current_run);

/* current_run(); NULL outside a job */
Datum
dsched_current_run(PG_FUNCTION_ARGS)
{
	const CurrentRun *run;
	TupleDesc	desc;
	RunKey		key;
	Datum		values[8];
	bool		nulls[8] = {false};
	int			i = 0;

	dsched_require_preload();
	run = executor_current_run();
	if (run == NULL)
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	memset(&key, 0, sizeof(key));
	key.job_id = run->job_id;
	key.scheduled_for = run->scheduled_for;
	key.trigger_id = run->trigger_id;

	values[i++] = CStringGetTextDatum(run_key_text(&key));
	values[i++] = Int64GetDatum(run->job_id);
	values[i++] = CStringGetTextDatum(run->job_name);
	values[i++] = TimestampTzGetDatum(run->scheduled_for);
	values[i++] = Int64GetDatum(run->trigger_id);
	values[i++] = Int32GetDatum(run->attempt);
	values[i++] = CStringGetTextDatum(run_reason_name(run->reason));
	nulls[i] = run->payload == NULL;
	values[i++] = run->payload == NULL ? (Datum) 0 :
		DirectFunctionCall1(jsonb_in, CStringGetDatum(run->payload));
	Assert(i == lengthof(values));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
