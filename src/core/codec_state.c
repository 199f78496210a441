/*
 * codec_state.c
 *	  The value of a partition's account, state/any/<pp>; standalone it is in dsched.partition_state.
 *
 * The format stands in codec.c, with the others.  The runs in it have names of one letter, as there can be
 * 2 * CODEC_MAX_ENTRIES of them.
 *
 * Failure as in codec.h: the text is refused, or would be.
 */
#include "core/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static void
check_run(Problem *problem, const PendingRun *run)
{
	json_check_id(problem, "job_id", run->job_id);
	json_check_num(problem, "gen", run->gen);
	json_check_time(problem, "slot", run->slot);
	json_check_time(problem, "slot_to", run->slot_to);
	if (run->slot_to < run->slot)
		json_complain(problem, "a range of slots ends before it begins");
	json_check_num(problem, "trigger_id", run->trigger_id);
	json_check_range(problem, "slots", run->slots, 0, INT32_MAX);
	json_check_range(problem, "attempt", run->attempt, 0, INT32_MAX);
	json_check_range(problem, "failures", run->failures, 0, INT32_MAX);
	json_check_range(problem, "lost", run->lost, 0, INT32_MAX);
	json_check_time(problem, "not_before", run->not_before);
	if (run->handed_over && run->session == 0)
		json_complain(problem, "a run that was handed over has no session");
	json_check_word(problem, "reason", run->reason, "abcdefghijklmnopqrstuvwxyz0123456789_-");
}

static void
check_runs(Problem *problem, const char *name, const PendingRun *runs, int count)
{
	int i;

	json_check_range(problem, name, count, 0, CODEC_MAX_ENTRIES);
	for (i = 0; !problem->found && i < count; i++)
		check_run(problem, &runs[i]);
}

static void
check_failing(Problem *problem, const FailingJob *failing, int count)
{
	int i;

	json_check_range(problem, "failing", count, 0, CODEC_MAX_ENTRIES);
	for (i = 0; !problem->found && i < count; i++)
	{
		json_check_id(problem, "job_id", failing[i].job_id);
		json_check_range(problem, "failures", failing[i].failures, 0, INT32_MAX);
	}
}

bool
codec_state_check(const PartitionState *state, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_text(&problem, "node", state->node, 1, CODEC_MAX_NAME);
	json_check_num(&problem, "epoch", state->epoch);
	json_check_num(&problem, "seq", state->seq);
	json_check_num(&problem, "jobrev", state->jobrev);
	json_check_time(&problem, "watermark", state->watermark);
	json_check_num(&problem, "watermark_job", state->watermark_job);
	check_runs(&problem, "pending", state->pending, state->npending);
	check_runs(&problem, "done", state->done, state->ndone);
	check_failing(&problem, state->failing, state->nfailing);
	json_check_num(&problem, "timeline", state->timeline);
	json_check_time(&problem, "since", state->since);
	return !problem.found;
}

static void
read_run(const Reader *reader, PendingRun *out)
{
	out->job_id = json_read_int(reader, "j");
	out->gen = json_read_int(reader, "g");
	out->slot = json_read_time(reader, "s");
	out->slot_to = json_has(reader, "e") ? json_read_time(reader, "e") : out->slot;
	out->trigger_id = json_has(reader, "t") ? json_read_int(reader, "t") : 0;
	out->slots = json_has(reader, "c") ? json_read_int32_or_0(reader, "c") : 1;
	out->attempt = json_read_int32_or_0(reader, "a");
	out->failures = json_read_int32_or_0(reader, "f");
	out->lost = json_read_int32_or_0(reader, "x");
	out->not_before = json_has(reader, "n") ? json_read_time(reader, "n") : 0;
	out->session = json_has(reader, "l") ? json_read_decimal(reader, "l") : 0;
	out->handed_over = json_has(reader, "h") && json_read_bool(reader, "h");
	json_read_array_or_empty(reader, "r", out->reason, sizeof(out->reason));
}

static void
read_failing(const Reader *reader, FailingJob *out)
{
	out->job_id = json_read_int(reader, "j");
	out->failures = (int32_t) json_read_range(reader, "n", 0, INT32_MAX);
}

/* As many entries as the list has, all zero, of so many bytes each; NULL if there are none, or after a complaint. */
static void *
make_entries(const Reader *reader, const char *name, const cJSON *list, size_t size)
{
	void *entries;

	if (list == NULL)
		return NULL;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > CODEC_MAX_ENTRIES)
	{
		json_complain_about(reader, name, "is not an array, or too long a one");
		return NULL;
	}
	if (list->child == NULL)
		return NULL;
	entries = calloc(cJSON_GetArraySize(list), size);
	if (entries == NULL)
		json_complain(reader->problem, "out of memory");
	return entries;
}

/* The entry number n (from 0) of a list; after a complaint it is not to be read. */
static Reader
begin_entry(const Reader *reader, const char *name, const cJSON *item, int n)
{
	Reader entry = json_reader_begin(item, reader->problem);

	snprintf(entry.where, sizeof(entry.where), "%s[%d]: ", name, n);
	if (!cJSON_IsObject(item) || !json_names_differ(item))
		json_complain(reader->problem, "%snot an object, or one with a name twice", entry.where);
	return entry;
}

/* The entries of pending or done. */
static PendingRun *
read_runs(const Reader *reader, const char *name, int *count)
{
	const cJSON *list = json_need(reader, name);
	PendingRun *runs = make_entries(reader, name, list, sizeof(PendingRun));
	const cJSON *item;

	*count = 0;
	if (runs == NULL)
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		Reader entry = begin_entry(reader, name, item, *count);

		if (!reader->problem->found)
			read_run(&entry, &runs[*count]);
		(*count)++;
	}
	return runs;
}

static FailingJob *
read_failing_jobs(const Reader *reader, int *count)
{
	const cJSON *list = json_find(reader, "failing");
	FailingJob *failing = make_entries(reader, "failing", list, sizeof(FailingJob));
	const cJSON *item;

	*count = 0;
	if (failing == NULL)
		return NULL;
	cJSON_ArrayForEach(item, list)
	{
		Reader entry = begin_entry(reader, "failing", item, *count);

		if (!reader->problem->found)
			read_failing(&entry, &failing[*count]);
		(*count)++;
	}
	return failing;
}

static void
read_state(const Reader *reader, const Scanner *scan, void *arg)
{
	PartitionState *out = arg;

	json_read_format(reader);
	out->format = CODEC_FORMAT;
	json_read_array(reader, "node", out->node, sizeof(out->node));
	out->epoch = json_read_int(reader, "epoch");
	out->seq = json_read_int(reader, "seq");
	out->jobrev = json_read_int(reader, "jobrev");
	out->watermark = json_read_time(reader, "watermark");
	out->watermark_job = json_read_int(reader, "watermark_job");
	out->pending = read_runs(reader, "pending", &out->npending);
	out->done = read_runs(reader, "done", &out->ndone);
	out->failing = read_failing_jobs(reader, &out->nfailing);
	if (json_has(reader, "system_identifier"))
	{
		out->system_identifier = json_read_unsigned_decimal(reader, "system_identifier");
		out->timeline = json_read_int(reader, "timeline");
		out->since = json_read_time(reader, "since");
	}
	out->clean = json_read_bool(reader, "clean");
}

bool
codec_state_decode(const char *text, size_t len, PartitionState *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_state, out, err, errlen) && codec_state_check(out, err, errlen))
		return true;
	codec_state_free(out);
	return false;
}

static void
put_run(Writer *writer, const PendingRun *run)
{
	json_put_separator(writer);
	json_put(writer, "{");
	json_put_int(writer, "j", run->job_id);
	json_put_int(writer, "g", run->gen);
	json_put_time(writer, "s", run->slot);
	if (run->slot_to != run->slot)
		json_put_time(writer, "e", run->slot_to);
	if (run->trigger_id != 0)
		json_put_int(writer, "t", run->trigger_id);
	if (run->slots != 1)
		json_put_int(writer, "c", run->slots);
	if (run->attempt != 0)
		json_put_int(writer, "a", run->attempt);
	if (run->failures != 0)
		json_put_int(writer, "f", run->failures);
	if (run->lost != 0)
		json_put_int(writer, "x", run->lost);
	if (run->not_before != 0)
		json_put_time(writer, "n", run->not_before);
	if (run->session != 0)
		json_put_decimal(writer, "l", run->session);
	if (run->handed_over)
		json_put_bool(writer, "h", true);
	if (run->reason[0] != '\0')
		json_put_text(writer, "r", run->reason);
	json_put(writer, "}");
}

static void
put_runs(Writer *writer, const char *name, const PendingRun *runs, int count)
{
	int i;

	json_put_name(writer, name);
	json_put(writer, "[");
	for (i = 0; i < count; i++)
		put_run(writer, &runs[i]);
	json_put(writer, "]");
}

static void
put_failing(Writer *writer, const FailingJob *failing, int count)
{
	int i;

	if (count == 0)
		return;
	json_put_name(writer, "failing");
	json_put(writer, "[");
	for (i = 0; i < count; i++)
	{
		json_put_separator(writer);
		json_put(writer, "{");
		json_put_int(writer, "j", failing[i].job_id);
		json_put_int(writer, "n", failing[i].failures);
		json_put(writer, "}");
	}
	json_put(writer, "]");
}

char *
codec_state_encode(const PartitionState *state, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_state_check(state, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "node", state->node);
	json_put_int(&writer, "epoch", state->epoch);
	json_put_int(&writer, "seq", state->seq);
	json_put_int(&writer, "jobrev", state->jobrev);
	json_put_time(&writer, "watermark", state->watermark);
	json_put_int(&writer, "watermark_job", state->watermark_job);
	put_runs(&writer, "pending", state->pending, state->npending);
	put_runs(&writer, "done", state->done, state->ndone);
	put_failing(&writer, state->failing, state->nfailing);
	if (state->system_identifier != 0)
	{
		json_put_unsigned_decimal(&writer, "system_identifier", state->system_identifier);
		json_put_int(&writer, "timeline", state->timeline);
		json_put_time(&writer, "since", state->since);
	}
	json_put_bool(&writer, "clean", state->clean);
	return json_put_tail(&writer, len);
}

void
codec_state_free(PartitionState *state)
{
	free(state->pending);
	free(state->done);
	free(state->failing);
	memset(state, 0, sizeof(*state));
}
