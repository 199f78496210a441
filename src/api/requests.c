/*
 * requests.c
 *	  dsched.run_now(), backfill() and cancel(): what is asked of the instance that owns a job.
 *
 * A request is a row of dsched.outbox.  It is carried out after the transaction commits, by the owner of the job's
 * partition, which may be another instance; so these functions check what can be known here and return at once.
 * run_now() and backfill() return the key by which people find, or cancel, what comes of it.
 *
 * A backfill names the pattern that it means by a hash: if the job has another one when the owner comes to it,
 * its slots are not those that were counted here, and it ends.
 */
#include "postgres.h"

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "core/codec.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_run_now_by_name);
PG_FUNCTION_INFO_V1(dsched_run_now_by_id);
PG_FUNCTION_INFO_V1(dsched_backfill_by_name);
PG_FUNCTION_INFO_V1(dsched_backfill_by_id);
PG_FUNCTION_INFO_V1(dsched_cancel);

#define MAX_BACKFILL 1000000

/* Bytes of a bad key that a message shows. */
#define MAX_SHOWN_KEY 100

/* A request about the job, to be completed. */
static void
make_request(const JobRow *row, TriggerKind kind, OutboxRow *out)
{
	memset(out, 0, sizeof(*out));
	out->outbox_id = random_id();
	out->kind = kind;
	out->job_id = row->job_id;
	out->username = row->username;
	out->job_name = row->job_name;
	out->base_revision = row->mod_revision;
	out->local = dsched_clustered() && runs_on_each(row);
	out->requested_by = caller_name();
	out->created_at = dsched_wall_now();
}

static void
store_request(const OutboxRow *request)
{
	outbox_insert(request);
	dsched_wake_at_commit();
}

/* ---- run_now ------------------------------------------------------------------------------------ */

/* Asks for one run outside the schedule; the key that it will have. */
static text *
run_now(const JobRow *row)
{
	OutboxRow	request;
	RunKey		key;

	make_request(row, TRIGGER_RUN, &request);
	request.scheduled_for = request.created_at;
	store_request(&request);

	memset(&key, 0, sizeof(key));
	key.job_id = row->job_id;
	key.scheduled_for = request.scheduled_for;
	key.trigger_id = request.outbox_id;
	return cstring_to_text(run_key_text(&key));
}

Datum
dsched_run_now_by_name(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_name_args(fcinfo, "dsched.run_now()", 1, false, &row);
	PG_RETURN_TEXT_P(run_now(&row));
}

Datum
dsched_run_now_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_id_arg(fcinfo, "dsched.run_now()", false, &row);
	PG_RETURN_TEXT_P(run_now(&row));
}

/* ---- backfill ----------------------------------------------------------------------------------- */

/* An end of the range.  Slots are told from "none" by not being 0, so ranges begin after that moment. */
static TimestampTz
range_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	TimestampTz at;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	at = PG_GETARG_TIMESTAMPTZ(arg);
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be infinite", name)));
	if (at <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", name),
				 errdetail("A backfill can go back to the year 2000: %s must be later than %s.", name,
						   timestamptz_to_str(0))));
	return at;
}

static void
check_range(TimestampTz first, TimestampTz last)
{
	if (first > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("first must not be later than last"),
				 errdetail("first is %s, last is %s.", pstrdup(timestamptz_to_str(first)),
						   pstrdup(timestamptz_to_str(last)))));
	if (last > dsched_wall_now())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("last must not be later than now"),
				 errdetail("last is %s.", timestamptz_to_str(last)),
				 errhint("Times to come are run by the schedule.")));
}

/* ERROR unless there is something to do, and not too much of it. */
static void
check_slots(const JobRow *row, const SlotRule *rule)
{
	if (slot_nth(rule, 1) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job \"%s\" has no time between first and last", row->job_name),
				 errdetail("Its schedule is \"%s\", time zone %s.", row->schedule, row->time_zone),
				 errhint("dsched.preview() shows the times of a schedule.")));
	if (slot_nth(rule, MAX_BACKFILL + 1) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("job \"%s\" has more than %d times between first and last", row->job_name, MAX_BACKFILL),
				 errdetail("The first %d of them end at %s.", MAX_BACKFILL,
						   timestamptz_to_str(slot_nth(rule, MAX_BACKFILL))),
				 errhint("Run them in several steps.")));
}

static void
backfill_rule(const JobRow *row, TimestampTz first, TimestampTz last, SlotRule *rule)
{
	char	   *problem;

	if (slot_rule_for_range(row, first, last, rule, &problem))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("job \"%s\" cannot be backfilled: %s", row->job_name, problem),
			 errhint("dsched.run_now() runs a job outside its schedule.")));
}

/* backfill(job, first, last): arguments 1 and 2 are the range. */
static text *
backfill(FunctionCallInfo fcinfo, const JobRow *row)
{
	TimestampTz first = range_arg(fcinfo, 1, "first");
	TimestampTz last = range_arg(fcinfo, 2, "last");
	SlotRule	rule;
	OutboxRow	request;

	check_range(first, last);
	backfill_rule(row, first, last, &rule);
	check_slots(row, &rule);

	make_request(row, TRIGGER_BACKFILL, &request);
	request.first = first;
	request.last = last;
	request.rule = (int64) slot_rule_hash(&rule);
	store_request(&request);
	return cstring_to_text(psprintf(INT64_FORMAT ":*:" INT64_FORMAT, row->job_id, request.outbox_id));
}

Datum
dsched_backfill_by_name(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_name_args(fcinfo, "dsched.backfill()", 3, false, &row);
	PG_RETURN_TEXT_P(backfill(fcinfo, &row));
}

Datum
dsched_backfill_by_id(PG_FUNCTION_ARGS)
{
	JobRow		row;

	find_by_id_arg(fcinfo, "dsched.backfill()", false, &row);
	PG_RETURN_TEXT_P(backfill(fcinfo, &row));
}

/* ---- cancel ------------------------------------------------------------------------------------- */

/*
 * A number within +-CODEC_MAX_INT as we write them ourselves, up to 'end', and moves *text behind that; false: it is
 * something else.
 */
static bool
read_number(const char **text, char end, int64 *out)
{
	const char *at = *text;
	bool		negative = *at == '-';
	const char *digits = negative ? ++at : at;
	int64		number = 0;

	for (; *at >= '0' && *at <= '9' && number <= CODEC_MAX_INT; at++)
		number = number * 10 + (*at - '0');
	if (at == digits || *at != end || number > CODEC_MAX_INT || (*digits == '0' && (at > digits + 1 || negative)))
		return false;
	*out = negative ? -number : number;
	*text = end != '\0' ? at + 1 : at;
	return true;
}

/* job:slot:trigger, or job:*:trigger, whose slot is TRIGGER_ALL. */
static bool
parse_run_key(const char *text, RunKey *key)
{
	int64		unix_time = 0;
	bool		all;

	memset(key, 0, sizeof(*key));
	if (!read_number(&text, ':', &key->job_id) || key->job_id < 1)
		return false;
	all = strncmp(text, "*:", 2) == 0;
	if (all)
		text += 2;
	else if (!read_number(&text, ':', &unix_time))
		return false;
	if (!read_number(&text, '\0', &key->trigger_id) || key->trigger_id < (all ? 1 : 0))
		return false;
	key->scheduled_for = all ? TRIGGER_ALL : unix_time - CODEC_EPOCH_DIFF;
	return true;
}

static void
refuse_run_key(const char *text)
{
	int			length = strlen(text);
	int			shown = pg_mbcliplen(text, length, MAX_SHOWN_KEY);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%.*s%s\" is not the key of a run", shown, text, shown < length ? "..." : ""),
			 errhint("Keys are job_id:scheduled_for:trigger_id, as dsched.runs shows them and dsched.run_now() returns them, or job_id:*:trigger_id, as dsched.backfill() returns them.")));
}

/* What this instance knows to be over; another may know more, then the request finds nothing to do there. */
static void
check_not_over(const JobRow *row, const RunKey *key, const char *text)
{
	RunHistory	history;

	run_history(key, &history);
	if (!run_history_is_final(&history, &row->policy) || is_run_active(key))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("run %s is over", text),
			 errdetail("Its status is \"%s\".", run_status_name(history.status))));
}

/* cancel(run_key): the end of a run, queued or running, wherever it is, or of what is left of a backfill */
Datum
dsched_cancel(PG_FUNCTION_ARGS)
{
	char	   *text;
	RunKey		key;
	JobRow		row;
	OutboxRow	request;

	begin_change("dsched.cancel()");
	text = text_arg(fcinfo, 0, "run_key");
	if (!parse_run_key(text, &key))
		refuse_run_key(text);
	find_job_by_id(key.job_id, false, &row);
	if (key.scheduled_for != TRIGGER_ALL)
		check_not_over(&row, &key, text);

	make_request(&row, TRIGGER_CANCEL, &request);
	request.slot = key.scheduled_for;
	request.target = key.trigger_id;
	store_request(&request);
	PG_RETURN_VOID();
}
