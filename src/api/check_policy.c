/*
 * check_policy.c
 *	  Is this a policy that a job can have?
 *
 * Values out of range are refused as they are read, contradictions when the whole is known.  A contradiction is only
 * what can have no sensible meaning; and it is told to whoever says one of its parts, not to somebody who changes
 * something else about the job.  What looks like one, and is none:
 *
 *	  overlap => 'queue_all' with max_runs		max_runs counts slots, and this is how each of them comes to run
 *	  jitter beyond the period					a delay never reaches the next slot
 *	  timeout beyond the period					slots need not be evenly spaced, and the next one may be skipped
 *	  overlap, misfire with @reboot				a retry may be open when the server starts again, or the jobs asleep
 *
 * A duration has no months: how long they are depends on when they begin.  Days count 24 hours.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "execute/command.h"
#include "settings.h"

/* The least misfire_grace with which "skip" does not skip what is as punctual as can be. */
#define MIN_GRACE_OF_SKIP USECS_PER_SEC

/* ---- values ------------------------------------------------------------------------------------- */

/* The names that a field can have, as a list for people. */
static char *
known_names(PolicyField field)
{
	StringInfoData names;
	const char *name;

	initStringInfo(&names);
	for (int i = 0; (name = policy_value_name(field, i)) != NULL; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : policy_value_name(field, i + 1) == NULL ? " and " : ", ", name);
	return names.data;
}

static int64
name_arg(Datum value, PolicyField field)
{
	char	   *name = TextDatumGetCString(value);
	int			found = policy_value_parse(field, name);

	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not known: \"%s\"", policy_fields[field].name, name),
				 errhint("Known are %s.", known_names(field))));
	return found;
}

static int
leave_out_hint(const PolicyInfo *info)
{
	return info->optional ? errhint("Leave %s out, or reset it, for a job without one.", info->name) : 0;
}

static int64
number_arg(Datum value, PolicyField field)
{
	const PolicyInfo *info = &policy_fields[field];
	int32		number = DatumGetInt32(value);
	int64		least = info->optional ? Max(info->least, 1) : info->least;

	if (number < least || number > info->most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range: %d", info->name, number),
				 errdetail("It must be between " INT64_FORMAT " and " INT64_FORMAT ".", least, info->most),
				 leave_out_hint(info)));
	return number;
}

/* An interval as microseconds; false: there are too many of them. */
static bool
microseconds(const Interval *interval, int64 *out)
{
	int64		days;

	return !pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &days) &&
		!pg_add_s64_overflow(days, interval->time, out);
}

static int64
duration_arg(Datum value, PolicyField field)
{
	const PolicyInfo *info = &policy_fields[field];
	const Interval *interval = DatumGetIntervalP(value);
	char	   *shown = DatumGetCString(DirectFunctionCall1(interval_out, value));
	int			days = (int) (info->most / USECS_PER_DAY);
	int64		duration;

	/* an infinite one (of newer servers) has months, too, and means the same error to people */
	if (interval->month != 0 && interval->month != PG_INT32_MAX && interval->month != PG_INT32_MIN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not contain months or years: %s", info->name, shown),
				 errdetail("They are of no fixed length."),
				 errhint("Give it in days, hours, minutes or seconds.")));
	if (interval->month != 0 || !microseconds(interval, &duration) || duration < info->least ||
		duration > info->most || (duration == 0 && info->optional))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range: %s", info->name, shown),
				 info->optional ? errdetail("It must be more than 0 and at most %d days.", days) :
				 errdetail("It must be between 0 and %d days.", days),
				 leave_out_hint(info)));
	return duration;
}

int64
policy_arg(Datum value, PolicyField field)
{
	switch (policy_fields[field].type)
	{
		case POLICY_IS_NAME:
			return name_arg(value, field);
		case POLICY_IS_NUMBER:
			return number_arg(value, field);
		case POLICY_IS_DURATION:
			return duration_arg(value, field);
	}
	return 0;
}

void
check_queue_name(const char *name)
{
	size_t		length = strlen(to_utf8(name));

	/* also in this server's encoding, in which the scheduler keeps it */
	length = Max(length, strlen(name));
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("queue name must not be empty"),
				 errhint("Leave queue out, or reset it, for a job in no queue.")));
	if (length > POLICY_MAX_QUEUE)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("queue name is too long"),
				 errdetail("It has %zu bytes; the limit is %d bytes.", length, POLICY_MAX_QUEUE)));
	check_has_no_control_character(name, "queue name");
}

/* ---- contradictions ----------------------------------------------------------------------------- */

static char *
duration_text(int64 duration)
{
	Interval	interval = {0};

	interval.time = duration;
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval)));
}

/* Was the field said in this call, with another value than that of who says nothing? */
static bool
is_said(const JobRow *row, uint32 given, PolicyField field)
{
	return (given & FIELD_BIT(FIELD_OF_POLICY(field))) != 0 &&
		policy_get(&row->policy, field) != policy_get(&policy_default, field);
}

/* Somebody who says how to wait for a retry means that there are retries. */
static void
check_retries(const JobRow *row, uint32 given)
{
	const JobPolicy *policy = &row->policy;
	PolicyField said = is_said(row, given, POLICY_RETRY_DELAY) ? POLICY_RETRY_DELAY : POLICY_RETRY_MAX_DELAY;

	if (policy->max_attempts == 1 && is_said(row, given, said))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s means nothing without a retry", policy_fields[said].name),
				 errdetail("max_attempts is 1, so a run that fails is not tried again."),
				 errhint("Give max_attempts, too.")));
	if (policy->retry_max_delay < policy->retry_delay)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retry_max_delay must not be less than retry_delay"),
				 errdetail("retry_delay is %s, retry_max_delay is %s.", duration_text(policy->retry_delay),
						   duration_text(policy->retry_max_delay)),
				 errhint("Give both.")));
}

#define FIELDS_OF_MISFIRE \
	(FIELD_BIT(FIELD_OF_POLICY(POLICY_MISFIRE)) | FIELD_BIT(FIELD_OF_POLICY(POLICY_MISFIRE_GRACE)))

/* Every run begins a little after its time, so with no grace to speak of none would begin, or by luck. */
static void
check_skipped(const JobRow *row, uint32 given)
{
	if ((given & FIELDS_OF_MISFIRE) == 0 || row->policy.misfire != MISFIRE_SKIP ||
		row->policy.misfire_grace >= MIN_GRACE_OF_SKIP)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("misfire_grace must be at least %s with misfire \"skip\"", duration_text(MIN_GRACE_OF_SKIP)),
			 errdetail("It is %s. A run begins a little after its time, and would be skipped for that.",
					   duration_text(row->policy.misfire_grace))));
}

/* Nothing can be late as long as the job lasts: "all" then says nothing. */
static void
check_misfire(const JobRow *row, uint32 given)
{
	const uint32 parts = FIELDS_OF_MISFIRE | FIELD_BIT(FIELD_STARTS_AT) | FIELD_BIT(FIELD_EXPIRES_AT);
	const JobPolicy *policy = &row->policy;

	if ((given & parts) == 0 || policy->misfire != MISFIRE_ALL || row->starts_at == 0 || row->expires_at == 0 ||
		policy->misfire_grace == policy_default.misfire_grace ||
		policy->misfire_grace < row->expires_at - row->starts_at)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("misfire_grace must be shorter than the time between starts_at and expires_at"),
			 errdetail("With misfire \"all\" and a grace of %s no time of the job can be late while the job lasts, which is %s.",
					   duration_text(policy->misfire_grace), duration_text(row->expires_at - row->starts_at))));
}

void
check_policy(const JobRow *row, uint32 given)
{
	check_retries(row, given);
	check_skipped(row, given);
	check_misfire(row, given);
	if (row->queue == NULL || (given & FIELD_BIT(FIELD_QUEUE)) == 0)
		return;
	check_queue_name(row->queue);
	if (!queue_exists(row->queue))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("queue \"%s\" does not exist", row->queue),
				 errhint("The view dsched.queues lists the queues; dsched.create_queue() makes one.")));
}

/* ---- delivery ----------------------------------------------------------------------------------- */

/*
 * Alone the row commits with the effects, and nothing has to be prepared; the same job in a cluster needs it, if not each
 * instance has its own runs.
 */
static void
check_can_prepare(const JobRow *row)
{
	if (max_prepared_xacts > 0 || runs_on_each(row))
		return;
	ereport(dsched_clustered() ? ERROR : NOTICE,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("delivery \"exactly_once\" needs prepared transactions, which this server does not allow"),
			 dsched_clustered() ? errdetail("max_prepared_transactions is 0.") :
			 errdetail("max_prepared_transactions is 0. Without etcd the job runs all the same; in a cluster its runs would fail."),
			 errhint("Set max_prepared_transactions to at least dsched.max_executors (now %d) on every instance, and restart it.",
					 dsched_max_executors)));
}

void
check_delivery(const JobRow *row, List *statements, uint32 given)
{
	const uint32 parts = FIELD_BIT(FIELD_OF_POLICY(POLICY_DELIVERY)) | FIELD_BIT(FIELD_COMMAND) | FIELD_BIT(FIELD_RUN_ON);
	ListCell   *lc;

	if (row->policy.delivery != DELIVERY_EXACTLY_ONCE || (given & parts) == 0)
		return;
	foreach(lc, statements)
		statement_require_preparable(lfirst_node(RawStmt, lc));
	check_can_prepare(row);
}
