/*
 * arguments.c
 *	  From the arguments of SQL functions to C values.
 *
 * The functions are not STRICT: NULL stands for "not given", so that options can be passed by name with
 * whatever a deploy script has.  Arguments that are needed are asked for by name.
 *
 * JobRow has 0 for a time that is not set, so the one moment with that value (2000-01-01 00:00 UTC) is
 * stored a microsecond later.
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
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "core/codec.h"
#include "settings.h"
#include "shared.h"

/* In the order of JobField. */
static const char *const field_names[JOB_FIELDS] = {
	"schedule", "run_at", "command", "time_zone", "starts_at", "expires_at", "max_runs", "username",
	"payload", "metadata", "active"
};

/* The fields that have a default to go back to. */
#define FIELDS_WITH_DEFAULT \
	(FIELD_BIT(FIELD_TIME_ZONE) | FIELD_BIT(FIELD_STARTS_AT) | FIELD_BIT(FIELD_EXPIRES_AT) | \
	 FIELD_BIT(FIELD_MAX_RUNS) | FIELD_BIT(FIELD_PAYLOAD) | FIELD_BIT(FIELD_METADATA) | \
	 FIELD_BIT(FIELD_ACTIVE))

const char *
job_field_name(JobField field)
{
	return field_names[field];
}

static TimestampTz
read_time(Datum value, JobField field)
{
	TimestampTz at = DatumGetTimestampTz(value);

	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be infinite", field_names[field]),
				 field == FIELD_RUN_AT ? 0 :
				 errhint("Leave %s out for a job without this bound.", field_names[field])));
	if (at < CODEC_MIN_TIME || at > CODEC_MAX_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", field_names[field]),
				 errdetail("Times must lie between the years 1684 and 2255."),
				 field == FIELD_RUN_AT ? 0 :
				 errhint("Leave %s out for a job without this bound.", field_names[field])));
	return at == 0 ? 1 : at;
}

static char *
read_jsonb(Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

static int32
read_max_runs(Datum value)
{
	int32		max_runs = DatumGetInt32(value);

	if (max_runs < 1 || max_runs > 1000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_runs must be between 1 and 1000000"),
				 errhint("Leave max_runs out for a job that runs for ever.")));
	return max_runs;
}

static void
read_field(Datum value, JobField field, JobRow *row)
{
	switch (field)
	{
		case FIELD_SCHEDULE:
			row->schedule = TextDatumGetCString(value);
			break;
		case FIELD_RUN_AT:
			row->run_at = read_time(value, field);
			break;
		case FIELD_COMMAND:
			row->command = TextDatumGetCString(value);
			break;
		case FIELD_TIME_ZONE:
			row->time_zone = TextDatumGetCString(value);
			break;
		case FIELD_STARTS_AT:
			row->starts_at = read_time(value, field);
			break;
		case FIELD_EXPIRES_AT:
			row->expires_at = read_time(value, field);
			break;
		case FIELD_MAX_RUNS:
			row->max_runs = read_max_runs(value);
			break;
		case FIELD_USERNAME:
			row->username = TextDatumGetCString(value);
			break;
		case FIELD_PAYLOAD:
			row->payload = read_jsonb(value);
			break;
		case FIELD_METADATA:
			row->metadata = read_jsonb(value);
			break;
		case FIELD_ACTIVE:
			row->active = DatumGetBool(value);
			break;
	}
}

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
		read_field(PG_GETARG_DATUM(first + i), fields[i], &out->row);
		out->given |= FIELD_BIT(fields[i]);
	}
}

/* Which field goes back to its default? */
static JobField
resettable_field(const char *name)
{
	for (int field = 0; field < JOB_FIELDS; field++)
	{
		if ((FIELDS_WITH_DEFAULT & FIELD_BIT(field)) != 0 && strcmp(field_names[field], name) == 0)
			return (JobField) field;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not an option that can be reset", name),
			 errhint("Options with a default are time_zone, starts_at, expires_at, max_runs, payload, metadata and active.")));
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
					 errmsg("%s is both given and reset", field_names[field])));
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
