/*
 * fields.c
 *	  The parts of a definition, one by one: what can be said of a job, of which jobs, and with what consequences.
 *
 * All that is done with each of the parts alike (reading, comparing, changing, resetting) goes through the
 * table here, which is continued by policy_fields.  A new option is a line in one of them, a column and a parameter.
 *
 * JobRow has 0 for a time that is not set, so the one moment with that value (2000-01-01 00:00 UTC) is
 * stored a microsecond later.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "core/codec.h"

#define MAX_RUNS 1000000

typedef enum FieldType
{
	FIELD_IS_TEXT,				/* char * */
	FIELD_IS_JSON,				/* char * */
	FIELD_IS_TIME,				/* TimestampTz */
	FIELD_IS_COUNT,				/* int32 */
	FIELD_IS_FLAG				/* bool */
} FieldType;

typedef struct FieldInfo
{
	const char *name;
	FieldType	type;
	size_t		offset;			/* in JobRow */
	int			properties;
} FieldInfo;

#define FIELD(name, type, properties) {#name, type, offsetof(JobRow, name), properties}

/* In the order of JobField. */
static const FieldInfo infos[FIELD_POLICY] = {
	FIELD(schedule, FIELD_IS_TEXT, FIELD_BOUNDS_SLOTS | FIELD_NOT_ONCE),
	FIELD(run_at, FIELD_IS_TIME, FIELD_BOUNDS_SLOTS | FIELD_ONLY_ONCE),
	FIELD(command, FIELD_IS_TEXT, 0),
	FIELD(time_zone, FIELD_IS_TEXT, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS | FIELD_NOT_ONCE),
	FIELD(starts_at, FIELD_IS_TIME, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS | FIELD_NOT_ONCE),
	FIELD(expires_at, FIELD_IS_TIME, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS | FIELD_NOT_ONCE),
	FIELD(max_runs, FIELD_IS_COUNT, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS | FIELD_NOT_ONCE),
	FIELD(username, FIELD_IS_TEXT, FIELD_BOUNDS_SLOTS),
	FIELD(payload, FIELD_IS_JSON, FIELD_HAS_DEFAULT),
	FIELD(metadata, FIELD_IS_JSON, FIELD_HAS_DEFAULT),
	FIELD(active, FIELD_IS_FLAG, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS),
	FIELD(queue, FIELD_IS_TEXT, FIELD_HAS_DEFAULT),
	FIELD(run_on, FIELD_IS_TEXT, FIELD_HAS_DEFAULT | FIELD_BOUNDS_SLOTS),
};

static bool
is_of_policy(JobField field)
{
	return field >= FIELD_POLICY;
}

static PolicyField
policy_field(JobField field)
{
	return (PolicyField) (field - FIELD_POLICY);
}

const char *
job_field_name(JobField field)
{
	return is_of_policy(field) ? policy_fields[policy_field(field)].name : infos[field].name;
}

static int
properties(JobField field)
{
	if (!is_of_policy(field))
		return infos[field].properties;
	return FIELD_HAS_DEFAULT |
		(policy_field(field) == POLICY_JITTER ? FIELD_BOUNDS_SLOTS : 0) |
		(policy_fields[policy_field(field)].once ? 0 : FIELD_NOT_ONCE);
}

uint32
job_fields_that(int property)
{
	uint32		fields = 0;

	for (int field = 0; field < JOB_FIELDS; field++)
		if (properties((JobField) field) & property)
			fields |= FIELD_BIT(field);
	return fields;
}

char *
job_field_names(uint32 fields)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int field = 0; field < JOB_FIELDS; field++)
		if (fields & FIELD_BIT(field))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", job_field_name((JobField) field));
	return names.data;
}

/* ---- comparing, copying ------------------------------------------------------------------------- */

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

bool
job_field_same(const JobRow *a, const JobRow *b, JobField field)
{
	const char *x;
	const char *y;

	if (is_of_policy(field))
		return policy_get(&a->policy, policy_field(field)) == policy_get(&b->policy, policy_field(field));
	x = (const char *) a + infos[field].offset;
	y = (const char *) b + infos[field].offset;
	switch (infos[field].type)
	{
		case FIELD_IS_TEXT:
		case FIELD_IS_JSON:
			return same_text(*(char *const *) x, *(char *const *) y);
		case FIELD_IS_TIME:
			return *(const TimestampTz *) x == *(const TimestampTz *) y;
		case FIELD_IS_COUNT:
			return *(const int32 *) x == *(const int32 *) y;
		case FIELD_IS_FLAG:
			return *(const bool *) x == *(const bool *) y;
	}
	return false;
}

void
job_field_copy(JobRow *to, const JobRow *from, JobField field)
{
	char	   *x;
	const char *y;

	if (is_of_policy(field))
	{
		policy_set(&to->policy, policy_field(field), policy_get(&from->policy, policy_field(field)));
		return;
	}
	x = (char *) to + infos[field].offset;
	y = (const char *) from + infos[field].offset;
	switch (infos[field].type)
	{
		case FIELD_IS_TEXT:
		case FIELD_IS_JSON:
			*(char **) x = *(char *const *) y;
			break;
		case FIELD_IS_TIME:
			*(TimestampTz *) x = *(const TimestampTz *) y;
			break;
		case FIELD_IS_COUNT:
			*(int32 *) x = *(const int32 *) y;
			break;
		case FIELD_IS_FLAG:
			*(bool *) x = *(const bool *) y;
			break;
	}
}

uint32
job_differences(const JobRow *a, const JobRow *b)
{
	uint32		fields = 0;

	for (int field = 0; field < JOB_FIELDS; field++)
		if (!job_field_same(a, b, (JobField) field))
			fields |= FIELD_BIT(field);
	return fields;
}

/* ---- reading ------------------------------------------------------------------------------------ */

static TimestampTz
read_time(Datum value, JobField field)
{
	TimestampTz at = DatumGetTimestampTz(value);
	const char *name = job_field_name(field);

	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be infinite", name),
				 field == FIELD_RUN_AT ? 0 :
				 errhint("Leave %s out for a job without this bound.", name)));
	if (at < CODEC_MIN_TIME || at > CODEC_MAX_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", name),
				 errdetail("Times must lie between the years 1684 and 2255."),
				 field == FIELD_RUN_AT ? 0 :
				 errhint("Leave %s out for a job without this bound.", name)));
	return at == 0 ? 1 : at;
}

static char *
read_jsonb(Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

/* max_runs is the only one. */
static int32
read_count(Datum value)
{
	int32		max_runs = DatumGetInt32(value);

	if (max_runs < 1 || max_runs > MAX_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_runs must be between 1 and %d", MAX_RUNS),
				 errhint("Leave max_runs out for a job that runs for ever.")));
	return max_runs;
}

void
job_field_read(Datum value, JobField field, JobRow *row)
{
	char	   *at;

	if (is_of_policy(field))
	{
		policy_set(&row->policy, policy_field(field), policy_arg(value, policy_field(field)));
		return;
	}
	at = (char *) row + infos[field].offset;
	switch (infos[field].type)
	{
		case FIELD_IS_TEXT:
			*(char **) at = TextDatumGetCString(value);
			break;
		case FIELD_IS_JSON:
			*(char **) at = read_jsonb(value);
			break;
		case FIELD_IS_TIME:
			*(TimestampTz *) at = read_time(value, field);
			break;
		case FIELD_IS_COUNT:
			*(int32 *) at = read_count(value);
			break;
		case FIELD_IS_FLAG:
			*(bool *) at = DatumGetBool(value);
			break;
	}
}
