/*
 * codec_job.c
 *	  The value of a definition, job/<pp>/<role>/<name>.
 *
 * The format stands in codec.c, with the others.  What is peculiar to definitions is that members which this version
 * does not know are kept as text and written back (JobDef.extra), so that a change made by an old version does not
 * lose the fields of a newer one.  extra may come from elsewhere than our own decoder, so it is checked like any text:
 * an object, within the bounds, without a name of ours.
 *
 * Failure as in codec.h: the text is refused, or would be.
 */
#include "core/codec.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/selector.h"

/* What the decoder of a definition knows, beside policy_fields; everything else goes to extra. */
static const char *const job_fields[] = {
	"format",  "job_id",	"username",	 "job_name",	  "schedule",  "run_at",
	"command", "time_zone", "starts_at", "expires_at",	  "last_slot", "max_runs",
	"queue",   "active",	"payload",	 "metadata",	  "anchor",	   "gen",
	"slots_from", "gen_rev", "change_id", "node",		  "closed_reason",
	"run_on",
	"after",   "mac", /* the signature, which is of a version and not kept: see sync/sign.c */
};

#define JOB_FIELDS (sizeof(job_fields) / sizeof(job_fields[0]) + POLICY_FIELDS)

static bool
is_job_field(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(job_fields) / sizeof(job_fields[0]); i++)
	{
		if (strcmp(name, job_fields[i]) == 0)
			return true;
	}
	for (i = 0; i < POLICY_FIELDS; i++)
	{
		if (strcmp(name, policy_fields[i].name) == 0)
			return true;
	}
	return false;
}

static void
check_job_times(Problem *problem, const JobDef *job)
{
	if (job->schedule == NULL)
		json_check_time(problem, "run_at", job->run_at);
	if (job->has_starts_at)
		json_check_time(problem, "starts_at", job->starts_at);
	if (job->has_expires_at)
		json_check_time(problem, "expires_at", job->expires_at);
	if (job->has_last_slot)
		json_check_time(problem, "last_slot", job->last_slot);
	json_check_time(problem, "anchor", job->anchor);
	json_check_time(problem, "slots_from", job->slots_from);
}

/* Only the one form of a selector is a place; "each" cannot end with one run. */
static void
check_job_place(Problem *problem, const JobDef *job)
{
	char normal[SELECTOR_MAX + 1];
	SelectorError error;

	if (job->run_on == NULL)
		return;
	if (strcmp(job->run_on, "each") == 0)
	{
		if (job->schedule == NULL)
			json_complain(problem, "run_on is \"each\" and the job runs once");
	}
	else if (!selector_normalise(job->run_on, normal, &error))
		json_complain(problem, "run_on is no selector: %s at byte %d", error.message, error.position);
	else if (strcmp(job->run_on, normal) != 0)
		json_complain(problem, "run_on is not in its one form");
}

static void
check_job_policy(Problem *problem, const JobDef *job)
{
	char why[100];

	if (!policy_check(&job->policy, why, sizeof(why)))
		json_complain(problem, "%s", why);
	json_check_text_or_null(problem, "queue", job->queue, 1, POLICY_MAX_QUEUE);
	check_job_place(problem, job);
}

bool
codec_job_check(const JobDef *job, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_id(&problem, "job_id", job->job_id);
	json_check_text(&problem, "username", job->username, 1, CODEC_MAX_ROLE);
	json_check_text(&problem, "job_name", job->job_name, 1, CODEC_MAX_NAME);
	json_check_text_or_null(&problem, "schedule", job->schedule, 1, CODEC_MAX_SCHEDULE);
	json_check_text(&problem, "command", job->command, 1, CODEC_MAX_COMMAND);
	json_check_text_or_null(&problem, "time_zone", job->time_zone, 1, CODEC_MAX_TEXT);
	check_job_times(&problem, job);
	json_check_range(&problem, "max_runs", job->max_runs, 0, INT32_MAX);
	check_job_policy(&problem, job);
	json_check_json(&problem, "payload", job->payload, CODEC_MAX_JSON, false);
	json_check_json(&problem, "metadata", job->metadata, CODEC_MAX_JSON, false);
	json_check_num(&problem, "gen", job->gen);
	json_check_range(&problem, "gen_rev", job->gen_rev, -CODEC_MAX_INT, CODEC_MAX_INT);
	json_check_num(&problem, "change_id", job->change_id);
	json_check_text(&problem, "node", job->node, 1, CODEC_MAX_NAME);
	json_check_text_or_null(&problem, "closed_reason", job->closed_reason, 0, CODEC_MAX_TEXT);
	json_check_extra(&problem, job->extra, is_job_field, JOB_FIELDS);
	return !problem.found;
}

/* Either a schedule or the time of a one-shot. */
static void
read_when(const Reader *reader, JobDef *out)
{
	out->schedule = json_read_text_or_null(reader, "schedule");
	if (out->schedule == NULL)
		out->run_at = json_read_time(reader, "run_at");
	else if (json_has(reader, "run_at"))
		json_complain(reader->problem, "both \"schedule\" and \"run_at\" are given");
}

static void
read_bounds(const Reader *reader, JobDef *out)
{
	out->has_starts_at = json_has(reader, "starts_at");
	if (out->has_starts_at)
		out->starts_at = json_read_time(reader, "starts_at");
	out->has_expires_at = json_has(reader, "expires_at");
	if (out->has_expires_at)
		out->expires_at = json_read_time(reader, "expires_at");
	out->has_last_slot = json_has(reader, "last_slot");
	if (out->has_last_slot)
		out->last_slot = json_read_time(reader, "last_slot");
	out->max_runs = json_read_int32_or_0(reader, "max_runs");
}

/* A name that is none is a policy of a newer version: the job cannot be run as it was meant. */
static int64_t
read_policy_name(const Reader *reader, PolicyField field)
{
	const char *name = policy_fields[field].name;
	char *text = json_read_text(reader, name);
	int value = text != NULL ? policy_value_parse(field, text) : 0;

	if (value < 0)
		json_complain_about(reader, name, "is not a policy that is known");
	free(text);
	return value < 0 ? 0 : value;
}

static void
read_policy(const Reader *reader, JobDef *out)
{
	int i;

	out->policy = policy_default;
	for (i = 0; i < POLICY_FIELDS; i++)
	{
		const PolicyInfo *info = &policy_fields[i];

		if (!json_has(reader, info->name))
			continue;
		policy_set(&out->policy, (PolicyField) i,
				   info->type == POLICY_IS_NAME ? read_policy_name(reader, (PolicyField) i)
												: json_read_range(reader, info->name, info->least, info->most));
	}
	out->queue = json_read_text_or_null(reader, "queue");
	out->run_on = json_read_text_or_null(reader, "run_on");
}

static void
read_job(const Reader *reader, const Scanner *scan, void *arg)
{
	JobDef *out = arg;

	json_read_format(reader);
	out->job_id = json_read_int(reader, "job_id");
	out->username = json_read_text(reader, "username");
	out->job_name = json_read_text(reader, "job_name");
	read_when(reader, out);
	out->command = json_read_text(reader, "command");
	out->time_zone = json_read_text_or_null(reader, "time_zone");
	read_bounds(reader, out);
	read_policy(reader, out);
	out->active = json_read_bool(reader, "active");
	out->payload = json_read_text_or_null(reader, "payload");
	out->metadata = json_read_text_or_null(reader, "metadata");
	out->anchor = json_read_time(reader, "anchor");
	out->gen = json_read_int(reader, "gen");
	out->slots_from = json_read_time(reader, "slots_from");
	out->gen_rev = json_read_int(reader, "gen_rev");
	out->change_id = json_read_int(reader, "change_id");
	out->node = json_read_text(reader, "node");
	out->closed_reason = json_read_text_or_null(reader, "closed_reason");
	out->extra = json_read_extra(reader->object, scan, is_job_field, reader->problem);
}

bool
codec_job_decode(const char *text, size_t len, JobDef *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_job, out, err, errlen) && codec_job_check(out, err, errlen))
		return true;
	codec_job_free(out);
	return false;
}

static void
put_job_when(Writer *writer, const JobDef *job)
{
	if (job->schedule != NULL)
		json_put_text(writer, "schedule", job->schedule);
	else
		json_put_time(writer, "run_at", job->run_at);
}

static void
put_job_bounds(Writer *writer, const JobDef *job)
{
	if (job->has_starts_at)
		json_put_time(writer, "starts_at", job->starts_at);
	if (job->has_expires_at)
		json_put_time(writer, "expires_at", job->expires_at);
	if (job->has_last_slot)
		json_put_time(writer, "last_slot", job->last_slot);
	if (job->max_runs != 0)
		json_put_int(writer, "max_runs", job->max_runs);
}

/* Only what is said: a default of today is not written down as a wish. */
static void
put_policy(Writer *writer, const JobDef *job)
{
	int i;

	for (i = 0; i < POLICY_FIELDS; i++)
	{
		int64_t value = policy_get(&job->policy, (PolicyField) i);

		if (value == policy_get(&policy_default, (PolicyField) i))
			continue;
		if (policy_fields[i].type == POLICY_IS_NAME)
			json_put_text(writer, policy_fields[i].name, policy_value_name((PolicyField) i, value));
		else
			json_put_int(writer, policy_fields[i].name, value);
	}
	json_put_text_unless_null(writer, "queue", job->queue);
	json_put_text_unless_null(writer, "run_on", job->run_on);
}

char *
codec_job_encode(const JobDef *job, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_job_check(job, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_int(&writer, "job_id", job->job_id);
	json_put_text(&writer, "username", job->username);
	json_put_text(&writer, "job_name", job->job_name);
	put_job_when(&writer, job);
	json_put_text(&writer, "command", job->command);
	json_put_text_unless_null(&writer, "time_zone", job->time_zone);
	put_job_bounds(&writer, job);
	put_policy(&writer, job);
	json_put_bool(&writer, "active", job->active);
	json_put_text_unless_null(&writer, "payload", job->payload);
	json_put_text_unless_null(&writer, "metadata", job->metadata);
	json_put_time(&writer, "anchor", job->anchor);
	json_put_int(&writer, "gen", job->gen);
	json_put_time(&writer, "slots_from", job->slots_from);
	json_put_int(&writer, "gen_rev", job->gen_rev);
	json_put_int(&writer, "change_id", job->change_id);
	json_put_text(&writer, "node", job->node);
	json_put_text_unless_null(&writer, "closed_reason", job->closed_reason);
	json_put_extra(&writer, job->extra);
	return json_put_tail(&writer, len);
}

void
codec_job_free(JobDef *job)
{
	free(job->username);
	free(job->job_name);
	free(job->schedule);
	free(job->command);
	free(job->time_zone);
	free(job->queue);
	free(job->run_on);
	free(job->payload);
	free(job->metadata);
	free(job->node);
	free(job->closed_reason);
	free(job->extra);
	memset(job, 0, sizeof(*job));
}
