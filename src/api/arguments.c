/*
 * arguments.c
 *	  From the arguments of SQL functions to C values.
 *
 * The functions are not STRICT: NULL stands for "not given", so that options can be passed by name with
 * whatever a deploy script has.  Arguments that are needed are asked for by name.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "core/codec.h"
#include "settings.h"
#include "shared.h"

void
job_args_read(FunctionCallInfo fcinfo, int first, const JobField *fields, int n, JobArgs *out)
{
	memset(out, 0, sizeof(*out));
	out->row.active = true;
	out->row.policy = policy_default;
	for (int i = 0; i < n; i++)
	{
		if (PG_ARGISNULL(first + i))
			continue;
		job_field_read(PG_GETARG_DATUM(first + i), fields[i], &out->row);
		out->given |= FIELD_BIT(fields[i]);
	}
}

/* Which field goes back to its default? */
static JobField
resettable_field(const char *name)
{
	uint32		resettable = job_fields_that(FIELD_HAS_DEFAULT);

	for (int field = 0; field < JOB_FIELDS; field++)
	{
		if ((resettable & FIELD_BIT(field)) != 0 && strcmp(job_field_name((JobField) field), name) == 0)
			return (JobField) field;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not an option that can be reset", name),
			 errhint("Options with a default are %s.", job_field_names(resettable))));
}

void
job_args_read_reset(Datum array, JobArgs *out)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		JobField	field;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("reset must not contain nulls")));
		field = resettable_field(TextDatumGetCString(names[i]));
		if (out->given & FIELD_BIT(field))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is both given and reset", job_field_name(field))));
		out->reset |= FIELD_BIT(field);
	}
}

char *
text_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

void
begin_change(const char *function)
{
	dsched_require_preload();
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
}

const char *
default_time_zone(void)
{
	char		server[sizeof(dsched_shared->time_zone)];

	if (dsched_timezone != NULL && dsched_timezone[0] != '\0')
		return dsched_timezone;

	/*
	 * Not the session's, which many clients set to their own and which is about display: the same script must define the
	 * same job from wherever it is run.
	 */
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	strlcpy(server, dsched_shared->time_zone, sizeof(server));
	LWLockRelease(dsched_shared->control_lock);
	return server[0] != '\0' ? pstrdup(server) : GetConfigOptionResetString("TimeZone");
}

int64
random_id(void)
{
	uint64		random;

	do
	{
		if (!pg_strong_random(&random, sizeof(random)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number")));
		random &= CODEC_MAX_INT;
	} while (random == 0);
	return (int64) random;
}

char *
to_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

char *
run_key_text(const RunKey *key)
{
	return psprintf(INT64_FORMAT ":" INT64_FORMAT ":" INT64_FORMAT, key->job_id,
					key->scheduled_for + CODEC_EPOCH_DIFF, key->trigger_id);
}
