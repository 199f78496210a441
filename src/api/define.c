/*
 * define.c
 *	  dsched.schedule(), schedule_once() and schedule_in(): definitions of jobs, and what follows from them.
 *
 * A definition is a row of dsched.job.  Writing it marks the columns that changed, for the scheduler to take
 * in or to publish, and wakes the scheduler when the transaction commits; a definition that is the same as
 * the one that stands is not written at all, so that deploy scripts may repeat themselves.
 *
 * A generation is one set of slots.  A new one begins exactly when the set changes: its slots lie after
 * slots_from, so that nothing that was due before the change runs because of it.  Slots of the generation
 * before that have not started are closed by the scheduler.
 *
 * max_runs counts slots and is turned into the last slot here, once, so that nobody keeps a counter.  The
 * bound expires_at plays no part in that, as it may be moved later.
 *
 * Two sessions that define one name at once: the second waits for the first, and then replaces its definition.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_schedule);
PG_FUNCTION_INFO_V1(dsched_schedule_unnamed);
PG_FUNCTION_INFO_V1(dsched_schedule_once);
PG_FUNCTION_INFO_V1(dsched_schedule_in);

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

/* The rule of a row whose schedule was checked before; its policy plays no part in which slots there are. */
static void
rule_of(const JobRow *row, SlotRule *rule)
{
	JobRow		plain = *row;
	char	   *problem;

	plain.policy = policy_default;
	plain.queue = plain.run_on = NULL;
	if (!slot_rule_make(&plain, rule, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg_internal("%s", problem)));
}

/* How many of the slots that max_runs allows are still to come?  Slots of a paused job count from the pause on. */
static int32
remaining_runs(const JobRow *row, TimestampTz now)
{
	SlotRule	rule;
	int32		least = 0;
	int32		most = row->max_runs;

	if (row->last_slot == 0)
		return row->max_runs;

	rule_of(row, &rule);
	rule.expires_at = 0;
	if (row->active && rule.slots_from < now)
		rule.slots_from = now;

	/* The largest n whose slot lies within the bounds. */
	while (least < most)
	{
		int32		middle = least + (most - least + 1) / 2;

		if (slot_nth(&rule, middle) != 0)
			least = middle;
		else
			most = middle - 1;
	}
	return least;
}

/* The last slot of a row with max_runs of which so many are left. */
static TimestampTz
last_slot_of(const JobRow *row, int32 runs)
{
	SlotRule	rule;

	/* All used up: no slot is at or before slots_from. */
	if (runs == 0)
		return row->slots_from;

	rule_of(row, &rule);
	rule.expires_at = 0;
	rule.last_slot = 0;
	return slot_nth(&rule, runs);
}

/* Intervals keep their beat through changes that are not about when they begin. */
static TimestampTz
anchor_of(const JobRow *row, const JobRow *old, TimestampTz now)
{
	if (row->starts_at != 0)
		return row->starts_at;
	if (old != NULL && old->starts_at == 0 && same_text(row->schedule, old->schedule))
		return old->anchor;
	return now - now % USECS_PER_SEC;
}

void
begin_generation(JobRow *row, const JobRow *old, bool keep_budget)
{
	TimestampTz now = dsched_wall_now();

	row->gen = random_id();
	row->gen_rev = 0;
	row->anchor = anchor_of(row, old, now);
	row->slots_from = now;
	row->last_slot = 0;
	if (row->max_runs != 0)
		row->last_slot = last_slot_of(row, keep_budget ? remaining_runs(old, now) : row->max_runs);
}

void
check_ever_runs(const JobRow *row)
{
	SlotRule	rule;

	rule_of(row, &rule);
	if (rule.one_shot || rule.cron->kind == CRON_REBOOT || slot_next(&rule, row->slots_from) != 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("job \"%s\" would never run", row->job_name),
			 errdetail("Its schedule \"%s\" has no time left within the bounds of the job.", row->schedule),
			 errhint("dsched.preview() shows the times of a schedule.")));
}

/* Adds the names of fields to the list of columns that are not published yet. */
static List *
mark_changed(List *changed, uint32 fields)
{
	if (fields == FIELDS_ALL)
	{
		/* that the place is another one has to be known even then */
		List	   *all = list_make1("all");
		ListCell   *cell;

		foreach(cell, changed)
			if (strcmp(lfirst(cell), job_field_name(FIELD_RUN_ON)) == 0)
				all = lappend(all, lfirst(cell));
		return all;
	}
	for (int field = 0; field < JOB_FIELDS; field++)
	{
		const char *name = job_field_name((JobField) field);
		bool		marked = false;
		ListCell   *cell;

		if ((fields & FIELD_BIT(field)) == 0)
			continue;
		foreach(cell, changed)
			marked |= (strcmp(lfirst(cell), "all") == 0 && field != FIELD_RUN_ON) || strcmp(lfirst(cell), name) == 0;
		if (!marked)
			changed = lappend(changed, unconstify(char *, name));
	}
	return changed;
}

static void
mark_row(JobRow *row, uint32 fields)
{
	row->changed = mark_changed(row->changed, fields);
	row->change_id = random_id();
	row->changed_at = dsched_wall_now();
	row->problem = NULL;		/* the scheduler looks again */
	dsched_wake_at_commit();
}

void
store_change(JobRow *row, uint32 fields)
{
	mark_row(row, fields);
	job_update(row);
}

/* Replaces what old says by row; nothing happens if it is the same. */
static int64
replace_job(JobRow *row, const JobRow *old)
{
	uint32		fields;

	/* The zone of a one-shot says nothing; a default that is another one today is no change. */
	if (row->schedule == NULL && old->schedule == NULL)
		row->time_zone = old->time_zone;

	fields = job_differences(row, old);
	if (fields == 0)
		return old->job_id;
	check_move(row, old);

	row->job_id = old->job_id;
	row->created_at = old->created_at;
	row->mod_revision = old->mod_revision;
	row->extra = old->extra;
	if (fields & job_fields_that(FIELD_BOUNDS_SLOTS))
	{
		begin_generation(row, old, false);
		check_ever_runs(row);
	}
	else
	{
		row->gen = old->gen;
		row->gen_rev = old->gen_rev;
		row->anchor = old->anchor;
		row->slots_from = old->slots_from;
		row->last_slot = old->last_slot;
	}
	row->changed = old->changed;
	if (fields & FIELD_BIT(FIELD_RUN_ON))
		row->changed = mark_changed(row->changed, FIELD_BIT(FIELD_RUN_ON));
	store_change(row, FIELDS_ALL);
	return row->job_id;
}

/* Stores a new job; false: another session has just made one of its name. */
static bool
create_job(JobRow *row)
{
	begin_generation(row, NULL, false);
	check_ever_runs(row);
	row->created_at = dsched_wall_now();
	mark_row(row, FIELDS_ALL);
	return job_insert_new(row);
}

/* Stores the definition that args and name (NULL: the job's id) come to; the job's id. */
static int64
define_job(const char *name, JobArgs *args)
{
	JobRow	   *row = &args->row;
	JobRow		old;

	if (row->username == NULL)
		row->username = caller_name();
	check_job_role(row->username);

	row->job_id = random_id();
	row->job_name = name ? pstrdup(name) : psprintf(INT64_FORMAT, row->job_id);
	check_job_name(row->job_name);
	if (row->time_zone == NULL)
		row->time_zone = pstrdup(default_time_zone());
	check_definition(row, args->given);

	/* Each turn waits for another session; the name can be free again after one. */
	for (;;)
	{
		if (job_read_by_name(row->username, row->job_name, true, &old))
			return replace_job(row, &old);
		if (create_job(row))
			return row->job_id;
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not define job \"%s\" due to concurrent definition", row->job_name)));
		CHECK_FOR_INTERRUPTS();
	}
}

static void
require_field(const JobArgs *args, JobField field)
{
	if ((args->given & FIELD_BIT(field)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", job_field_name(field))));
}

/* schedule(job_name, schedule, command, options) */
Datum
dsched_schedule(PG_FUNCTION_ARGS)
{
	static const JobField fields[] = {
		FIELD_SCHEDULE, FIELD_COMMAND, FIELD_TIME_ZONE, FIELD_STARTS_AT, FIELD_EXPIRES_AT, FIELD_MAX_RUNS,
		FIELD_USERNAME, FIELD_PAYLOAD, FIELD_METADATA, FIELD_ACTIVE, POLICY_PARAMETERS
	};
	const char *name;
	JobArgs		args;

	begin_change("dsched.schedule()");
	name = text_arg(fcinfo, 0, "job_name");
	job_args_read(fcinfo, 1, fields, lengthof(fields), &args);
	require_field(&args, FIELD_SCHEDULE);
	require_field(&args, FIELD_COMMAND);
	PG_RETURN_INT64(define_job(name, &args));
}

/* schedule(schedule, command): a job named after its id */
Datum
dsched_schedule_unnamed(PG_FUNCTION_ARGS)
{
	static const JobField fields[] = {FIELD_SCHEDULE, FIELD_COMMAND};
	JobArgs		args;

	begin_change("dsched.schedule()");
	job_args_read(fcinfo, 0, fields, lengthof(fields), &args);
	require_field(&args, FIELD_SCHEDULE);
	require_field(&args, FIELD_COMMAND);
	PG_RETURN_INT64(define_job(NULL, &args));
}

/* schedule_once(job_name, run_at, command, options) */
Datum
dsched_schedule_once(PG_FUNCTION_ARGS)
{
	static const JobField fields[] = {
		FIELD_RUN_AT, FIELD_COMMAND, FIELD_USERNAME, FIELD_PAYLOAD, FIELD_METADATA, FIELD_ACTIVE,
		ONE_SHOT_PARAMETERS
	};
	const char *name;
	JobArgs		args;

	begin_change("dsched.schedule_once()");
	name = text_arg(fcinfo, 0, "job_name");
	job_args_read(fcinfo, 1, fields, lengthof(fields), &args);
	require_field(&args, FIELD_RUN_AT);
	require_field(&args, FIELD_COMMAND);
	PG_RETURN_INT64(define_job(name, &args));
}

/* Now and the delay, which must lead into the future. */
static Datum
time_after_delay(Datum delay)
{
	TimestampTz now = dsched_wall_now();
	Datum		at = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), delay);

	if (DatumGetTimestampTz(at) < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay must not be negative")));
	return at;
}

/* schedule_in(job_name, delay, command, options) */
Datum
dsched_schedule_in(PG_FUNCTION_ARGS)
{
	static const JobField fields[] = {
		FIELD_RUN_AT, FIELD_COMMAND, FIELD_USERNAME, FIELD_PAYLOAD, FIELD_METADATA, FIELD_ACTIVE,
		ONE_SHOT_PARAMETERS
	};
	LOCAL_FCINFO(given, FUNC_MAX_ARGS);
	const char *name;
	JobArgs		args;

	begin_change("dsched.schedule_in()");
	name = text_arg(fcinfo, 0, "job_name");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("delay must not be null")));
	/* a copy: the arguments are the caller's, and a constant one is there for the next call, too */
	memcpy(given, fcinfo, SizeForFunctionCallInfo(fcinfo->nargs));
	given->args[1].value = time_after_delay(PG_GETARG_DATUM(1));
	job_args_read(given, 1, fields, lengthof(fields), &args);
	require_field(&args, FIELD_COMMAND);
	PG_RETURN_INT64(define_job(name, &args));
}
