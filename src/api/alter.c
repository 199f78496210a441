/*
 * alter.c
 *	  dsched.alter_job(), pause(), resume() and unschedule(): changes of a job that exists.
 *
 * Each comes in two forms, by name and by id; both return the id.  A change
 * that alters the set of slots begins a new generation; the scheduler, once it sees that, closes the old
 * one's slots that have not started.  Runs under way go on.
 *
 * A change of the role is a change of the key under which a cluster knows the job: there the old key is
 * deleted through the outbox and the job published anew, with the id that it has.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/api.h"
#include "clock.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_alter_job_by_name);
PG_FUNCTION_INFO_V1(dsched_alter_job_by_id);
PG_FUNCTION_INFO_V1(dsched_pause_by_name);
PG_FUNCTION_INFO_V1(dsched_pause_by_id);
PG_FUNCTION_INFO_V1(dsched_resume_by_name);
PG_FUNCTION_INFO_V1(dsched_resume_by_id);
PG_FUNCTION_INFO_V1(dsched_unschedule_by_name);
PG_FUNCTION_INFO_V1(dsched_unschedule_by_id);

/* ---- alter_job ---------------------------------------------------------------------------------- */

static const JobField alter_fields[] = {
	FIELD_SCHEDULE, FIELD_COMMAND, FIELD_RUN_AT, FIELD_TIME_ZONE, FIELD_STARTS_AT, FIELD_EXPIRES_AT,
	FIELD_MAX_RUNS, FIELD_USERNAME, FIELD_PAYLOAD, FIELD_METADATA, FIELD_ACTIVE, POLICY_PARAMETERS
};

/* A one-shot has a time, others have a schedule and bounds. */
static void
check_fits_kind(const JobRow *row, const JobArgs *args)
{
	bool		one_shot = row->schedule == NULL;
	uint32		wrong = args->given & job_fields_that(one_shot ? FIELD_NOT_ONCE : FIELD_ONLY_ONCE);

	for (int field = 0; field < JOB_FIELDS; field++)
	{
		if ((wrong & FIELD_BIT(field)) == 0)
			continue;
		if (one_shot)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s does not apply to a job that runs once", job_field_name((JobField) field)),
					 errhint("Redefine the job with dsched.schedule().")));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s does not apply to a job with a schedule", job_field_name((JobField) field)),
				 errhint("Redefine the job with dsched.schedule_once().")));
	}
}

static void
apply_given(JobRow *row, const JobArgs *args)
{
	for (int field = 0; field < JOB_FIELDS; field++)
		if (args->given & FIELD_BIT(field))
			job_field_copy(row, &args->row, (JobField) field);
}

static void
apply_reset(JobRow *row, uint32 reset)
{
	JobRow		defaults;

	memset(&defaults, 0, sizeof(defaults));
	defaults.time_zone = pstrdup(default_time_zone());
	defaults.active = true;
	defaults.policy = policy_default;
	for (int field = 0; field < JOB_FIELDS; field++)
		if (reset & FIELD_BIT(field))
			job_field_copy(row, &defaults, (JobField) field);
}

/* Writes the outbox row that deletes what the cluster knows under the job's key. */
static void
publish_deletion(const JobRow *row)
{
	OutboxRow	out;

	memset(&out, 0, sizeof(out));
	out.outbox_id = random_id();
	out.is_delete = true;
	out.job_id = row->job_id;
	out.username = row->username;
	out.job_name = row->job_name;
	out.base_revision = row->mod_revision;
	out.requested_by = caller_name();
	out.created_at = dsched_wall_now();
	outbox_insert(&out);
}

/* The job gets another owner, whom the caller must be able to act for as well. */
static void
change_role(JobRow *row, const JobRow *old)
{
	JobRow		other;

	check_job_role(row->username);
	if (job_read_by_name(row->username, row->job_name, false, &other))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("role \"%s\" has a job \"%s\" already", row->username, row->job_name)));
	if (dsched_clustered())
		publish_deletion(old);
	row->mod_revision = 0;
}

/* Makes the change that args ask for, if it is one; the job's id. */
static int64
alter_job(const JobRow *old, const JobArgs *args)
{
	JobRow		row = *old;
	uint32		fields;

	check_fits_kind(old, args);
	apply_given(&row, args);
	apply_reset(&row, args->reset);
	check_definition(&row, args->given);

	fields = job_differences(&row, old);
	if (fields == 0)
		return old->job_id;
	check_move(&row, old);
	if (fields & FIELD_BIT(FIELD_USERNAME))
	{
		change_role(&row, old);
		fields = FIELDS_ALL;
	}
	if (fields & job_fields_that(FIELD_BOUNDS_SLOTS))
	{
		bool		new_budget = (args->given & FIELD_BIT(FIELD_MAX_RUNS)) != 0 || old->max_runs == 0;

		begin_generation(&row, old, !new_budget);
		check_ever_runs(&row);
	}
	store_change(&row, fields);
	return row.job_id;
}

static void
read_alter_args(FunctionCallInfo fcinfo, JobArgs *args)
{
	const int	reset = 1 + lengthof(alter_fields);

	job_args_read(fcinfo, 1, alter_fields, lengthof(alter_fields), args);
	if (!PG_ARGISNULL(reset))
		job_args_read_reset(PG_GETARG_DATUM(reset), args);
}

/* alter_job(job_name, options, reset); username is the new owner here, not part of the name */
Datum
dsched_alter_job_by_name(PG_FUNCTION_ARGS)
{
	char	   *name;
	JobRow		row;
	JobArgs		args;

	begin_change("dsched.alter_job()");
	name = text_arg(fcinfo, 0, "job_name");
	read_alter_args(fcinfo, &args);
	find_job_by_name(name, NULL, true, &row);
	PG_RETURN_INT64(alter_job(&row, &args));
}

Datum
dsched_alter_job_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;
	JobArgs		args;

	find_by_id_arg(fcinfo, "dsched.alter_job()", true, &row);
	read_alter_args(fcinfo, &args);
	PG_RETURN_INT64(alter_job(&row, &args));
}

/* ---- pause, resume ------------------------------------------------------------------------------ */

/*
 * Pauses or resumes.  A job that was resumed too late for any slot is told about, not refused: whoever resumes
 * many jobs in one transaction wants the others.
 */
static int64
set_active(const JobRow *old, bool active)
{
	JobRow		row = *old;
	SlotRule	rule;
	char	   *problem;

	if (old->active == active)
		return old->job_id;

	row.active = active;
	begin_generation(&row, old, true);
	store_change(&row, FIELD_BIT(FIELD_ACTIVE));

	if (active && row.schedule != NULL && slot_rule_make(&row, &rule, &problem) &&
		rule.cron->kind != CRON_REBOOT && slot_next(&rule, row.slots_from) == 0)
		ereport(NOTICE,
				(errmsg("job \"%s\" has no times left at which it would run", row.job_name)));
	return row.job_id;
}

Datum
dsched_pause_by_name(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_name_args(fcinfo, "dsched.pause()", 1, true, &row);
	PG_RETURN_INT64(set_active(&row, false));
}

Datum
dsched_pause_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_id_arg(fcinfo, "dsched.pause()", true, &row);
	PG_RETURN_INT64(set_active(&row, false));
}

Datum
dsched_resume_by_name(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_name_args(fcinfo, "dsched.resume()", 1, true, &row);
	PG_RETURN_INT64(set_active(&row, true));
}

Datum
dsched_resume_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_id_arg(fcinfo, "dsched.resume()", true, &row);
	PG_RETURN_INT64(set_active(&row, true));
}

/* ---- unschedule --------------------------------------------------------------------------------- */

static int64
unschedule(const JobRow *row)
{
	publish_deletion(row);
	job_delete(row->job_id);
	dsched_wake_at_commit();
	return row->job_id;
}

Datum
dsched_unschedule_by_name(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_name_args(fcinfo, "dsched.unschedule()", 1, true, &row);
	PG_RETURN_INT64(unschedule(&row));
}

Datum
dsched_unschedule_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_id_arg(fcinfo, "dsched.unschedule()", true, &row);
	PG_RETURN_INT64(unschedule(&row));
}
