/*
 * codec_queue.c
 *	  The value of a queue, queue/<name>: what limits the runs of the jobs that are in it.
 *
 * The format stands in codec.c, with the others.  Members that this version does not know are kept
 * (json_extra.c), as those of a job's definition are.
 *
 * Failure as in codec.h: the text is refused, or would be.
 */
#include "core/codec.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"

static const char *const queue_fields[] = {
	"format", "name", "max_running", "rate_limit", "per", "scope", "change_id", "node",
};

#define QUEUE_FIELDS (sizeof(queue_fields) / sizeof(queue_fields[0]))

static bool
is_queue_field(const char *name)
{
	size_t i;

	for (i = 0; i < QUEUE_FIELDS; i++)
	{
		if (strcmp(name, queue_fields[i]) == 0)
			return true;
	}
	return false;
}

bool
codec_queue_check(const QueueDef *queue, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_text(&problem, "name", queue->name, 1, POLICY_MAX_QUEUE);
	json_check_range(&problem, "max_running", queue->max_running, 0, POLICY_MAX_RUNNING);
	json_check_range(&problem, "rate_limit", queue->rate_limit, 0, POLICY_MAX_RATE);
	if (queue->rate_limit != 0)
		json_check_range(&problem, "per", queue->per, POLICY_MIN_PER, POLICY_MAX_DURATION);
	else if (queue->per != 0)
		json_complain(&problem, "\"per\" is there without \"rate_limit\"");
	if (queue->max_running == 0 && queue->rate_limit == 0)
		json_complain(&problem, "neither \"max_running\" nor \"rate_limit\" is there");
	json_check_num(&problem, "change_id", queue->change_id);
	json_check_text(&problem, "node", queue->node, 1, CODEC_MAX_NAME);
	if (queue->extra != NULL && strlen(queue->extra) > CODEC_MAX_QUEUE_EXTRA)
		json_complain(&problem, "the unknown fields have more than %d bytes", CODEC_MAX_QUEUE_EXTRA);
	json_check_extra(&problem, queue->extra, is_queue_field, QUEUE_FIELDS);
	return !problem.found;
}

static bool
read_scope(const Reader *reader)
{
	char scope[sizeof("instance")] = "";

	json_read_array(reader, "scope", scope, sizeof(scope));
	if (strcmp(scope, "instance") != 0 && strcmp(scope, "cluster") != 0)
		json_complain_about(reader, "scope", "is neither \"instance\" nor \"cluster\"");
	return strcmp(scope, "cluster") == 0;
}

static void
read_queue(const Reader *reader, const Scanner *scan, void *arg)
{
	QueueDef *out = arg;

	json_read_format(reader);
	json_read_array(reader, "name", out->name, sizeof(out->name));
	if (json_has(reader, "max_running"))
		out->max_running = (int32_t) json_read_range(reader, "max_running", 1, POLICY_MAX_RUNNING);
	if (json_has(reader, "rate_limit"))
		out->rate_limit = (int32_t) json_read_range(reader, "rate_limit", 1, POLICY_MAX_RATE);
	if (json_has(reader, "per"))
		out->per = json_read_range(reader, "per", POLICY_MIN_PER, POLICY_MAX_DURATION);
	out->cluster = read_scope(reader);
	out->change_id = json_read_int(reader, "change_id");
	json_read_array(reader, "node", out->node, sizeof(out->node));
	out->extra = json_read_extra(reader->object, scan, is_queue_field, reader->problem);
}

bool
codec_queue_decode(const char *text, size_t len, QueueDef *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_queue, out, err, errlen) && codec_queue_check(out, err, errlen))
		return true;
	codec_queue_free(out);
	return false;
}

char *
codec_queue_encode(const QueueDef *queue, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_queue_check(queue, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "name", queue->name);
	if (queue->max_running != 0)
		json_put_int(&writer, "max_running", queue->max_running);
	if (queue->rate_limit != 0)
	{
		json_put_int(&writer, "rate_limit", queue->rate_limit);
		json_put_int(&writer, "per", queue->per);
	}
	json_put_text(&writer, "scope", queue->cluster ? "cluster" : "instance");
	json_put_int(&writer, "change_id", queue->change_id);
	json_put_text(&writer, "node", queue->node);
	json_put_extra(&writer, queue->extra);
	return json_put_tail(&writer, len);
}

void
codec_queue_free(QueueDef *queue)
{
	free(queue->extra);
	memset(queue, 0, sizeof(*queue));
}
