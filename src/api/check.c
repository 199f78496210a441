/*
 * check.c
 *	  Is this a definition that can be stored, published and run?
 *
 * Everything is refused here, in the user's own transaction, that would otherwise only be found later, by a
 * scheduler or by another instance.  The limits are the same with and without etcd, so that an instance can
 * join a cluster with the jobs that it has.  Sizes are those of the text in UTF-8.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "core/codec.h"
#include "settings.h"

/* Bytes of a bad schedule that a message shows. */
#define MAX_SHOWN_SCHEDULE 100

void
check_has_no_control_character(const char *name, const char *what)
{
	for (const char *at = name; *at != '\0'; at += pg_mblen(at))
	{
		if ((unsigned char) *at < 0x20 || *at == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("%s contains a control character", what),
					 errdetail("The character at position %d is 0x%02x.",
							   pg_mbstrlen_with_len(name, at - name) + 1, (unsigned char) *at)));
	}
}

void
check_job_name(const char *name)
{
	size_t		length = strlen(to_utf8(name));

	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("job name must not be empty")));
	if (length > DSCHED_MAX_JOB_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("job name is too long"),
				 errdetail("It has %zu bytes; the limit is %d bytes.", length, DSCHED_MAX_JOB_NAME)));
	check_has_no_control_character(name, "job name");
}

/* Gives a syntax error in a command the command's text as its context, and not the calling statement's. */
static void
command_error_callback(void *arg)
{
	const char *command = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(command);
	}
	errcontext("command of the job");
}

static void
check_size(const char *text, const char *what)
{
	size_t		length;

	if (text == NULL)
		return;
	length = strlen(to_utf8(text));
	if (length > DSCHED_MAX_COMMAND)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s is too long", what),
				 errdetail("It has %zu bytes; the limit is %d bytes.", length, DSCHED_MAX_COMMAND)));
}

/* The objects that a command needs may come later, but its grammar can be checked now. */
static List *
check_command(const char *command)
{
	ErrorContextCallback callback;
	List	   *statements;

	check_size(command, "command");

	callback.callback = command_error_callback;
	callback.arg = unconstify(char *, command);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	statements = pg_parse_query(command);
	error_context_stack = callback.previous;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("command is empty"),
				 errhint("Give one or more SQL statements.")));
	return statements;
}

static void
refuse_schedule(const char *schedule, const CronError *error)
{
	/* The position is in bytes there, in characters here. */
	int			position = pg_mbstrlen_with_len(schedule, error->position - 1) + 1;
	int			length = strlen(schedule);
	int			shown = pg_mbcliplen(schedule, length, MAX_SHOWN_SCHEDULE);

	if (shown < length)
		schedule = psprintf("%.*s...", shown, schedule);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule: %s", error->message),
			 error->field > 0 ?
			 errdetail("Field %d (%s), at position %d of \"%s\".", error->field, error->field_name, position,
					   schedule) :
			 errdetail("At position %d of \"%s\".", position, schedule),
			 error->hint[0] != '\0' ? errhint("%s", error->hint) : 0));
}

/* The server's own name of a zone. */
static const char *
check_time_zone(const char *name)
{
	pg_tz	   *tz = pg_tzset(name);

	if (tz == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known", name),
				 errhint("The view pg_timezone_names lists the names that are.")));
	if (!pg_tz_acceptable(tz))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" uses leap seconds", name),
				 errdetail("PostgreSQL does not support leap seconds.")));
	return pg_get_timezone_name(tz);
}

void
check_schedule(const char *schedule, const char **time_zone, bool zone_given, CronSchedule *out)
{
	CronError	error;
	const char *prefix;

	if (!cron_parse(schedule, out, &error))
		refuse_schedule(schedule, &error);

	*time_zone = check_time_zone(*time_zone);
	if (out->zone[0] == '\0')
		return;
	prefix = check_time_zone(out->zone);
	if (zone_given && strcmp(prefix, *time_zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone is given twice"),
				 errdetail("The schedule begins with \"%s\", time_zone is \"%s\".", prefix, *time_zone)));
	*time_zone = prefix;
}

static void
check_bounds(const JobRow *row, const CronSchedule *cron, uint32 given)
{
	if (row->starts_at != 0 && row->expires_at != 0 && row->expires_at <= row->starts_at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at must be later than starts_at"),
				 errdetail("starts_at is %s, expires_at is %s.",
						   pstrdup(timestamptz_to_str(row->starts_at)),
						   pstrdup(timestamptz_to_str(row->expires_at)))));
	if ((given & FIELD_BIT(FIELD_EXPIRES_AT)) != 0 && row->expires_at <= dsched_wall_now())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at lies in the past"),
				 errdetail("expires_at is %s, the job would never run.", timestamptz_to_str(row->expires_at)),
				 errhint("To stop a job, use dsched.pause() or dsched.unschedule().")));
	if (row->max_runs != 0 && cron->kind == CRON_REBOOT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("max_runs cannot be used with @reboot")));
}

/* In a cluster "when the server starts" says neither which server nor how often. */
static void
check_reboot(const JobRow *row, const CronSchedule *cron)
{
	if (cron->kind == CRON_REBOOT && dsched_clustered() && !runs_on_each(row))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("@reboot is not supported in a cluster"),
				 errhint("With run_on => 'each' every instance runs it when it starts.")));
}

/* The row as it goes to etcd. */
static void
job_to_utf8(const JobRow *row, JobDef *out)
{
	memset(out, 0, sizeof(*out));
	out->job_id = row->job_id;
	out->username = to_utf8(row->username);
	out->job_name = to_utf8(row->job_name);
	out->schedule = row->schedule ? to_utf8(row->schedule) : NULL;
	out->run_at = row->run_at;
	out->command = to_utf8(row->command);
	out->time_zone = to_utf8(row->time_zone);
	out->payload = row->payload ? to_utf8(row->payload) : NULL;
	out->metadata = row->metadata ? to_utf8(row->metadata) : NULL;
	out->starts_at = row->starts_at;
	out->expires_at = row->expires_at;
	out->has_starts_at = row->starts_at != 0;
	out->has_expires_at = row->expires_at != 0;
	out->max_runs = row->max_runs;
	out->policy = row->policy;
	out->queue = row->queue ? to_utf8(row->queue) : NULL;
	out->run_on = row->run_on ? to_utf8(row->run_on) : NULL;
	out->gen = 1;
	out->change_id = 1;
	out->node = unconstify(char *, dsched_my_node());
}

/* Would other instances take this definition?  What they refuse beyond the checks before: depth, the size of it all. */
static void
check_publishable(const JobRow *row)
{
	JobDef		job;
	char		reason[256];
	char	   *encoded;
	size_t		length;

	job_to_utf8(row, &job);
	if (!codec_job_check(&job, reason, sizeof(reason)))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("definition of job \"%s\" is not accepted", row->job_name),
				 errdetail_internal("%s", reason)));
	encoded = codec_job_encode(&job, &length);
	if (encoded == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("definition of job \"%s\" is too long", row->job_name),
				 errdetail("Command, payload and metadata together, as JSON, exceed %d bytes.", CODEC_MAX_VALUE)));
	free(encoded);
}

void
check_definition(JobRow *row, uint32 given)
{
	CronSchedule cron;
	const char *zone = row->time_zone;
	List	   *statements;

	statements = check_command(row->command);
	check_place(row, given);
	check_size(row->payload, "payload");
	check_size(row->metadata, "metadata");
	if (row->schedule != NULL)
	{
		check_schedule(row->schedule, &zone, (given & FIELD_BIT(FIELD_TIME_ZONE)) != 0, &cron);
		check_reboot(row, &cron);
		check_bounds(row, &cron, given);
	}
	else
		zone = check_time_zone(zone);
	row->time_zone = pstrdup(zone);
	check_policy(row, given);
	check_delivery(row, statements, given);
	check_publishable(row);
}
