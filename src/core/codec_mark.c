/*
 * codec_mark.c
 *	  The value of a run's key: who has begun an attempt (at_most_once), or has decided that it is committed (exactly_once).
 *
 *	  {"format":1,"mode":"exactly_once","node":"n1","session":3,"epoch":6,"attempt":1,"id":"dsched:...","at":1795241309000000}
 *
 * Written once, never changed.  "id" tells it from every other: whoever is not sure whether the key that is there is its own
 * compares that.
 *
 * Failure as in codec.h: the text is refused, or would be.
 */
#include "core/codec.h"

#include <string.h>

#include "core/json.h"

static const char *const modes[] = {"at_most_once", "exactly_once"};

bool
codec_mark_check(const RunMark *mark, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_text(&problem, "node", mark->node, 1, CODEC_MAX_NAME);
	json_check_num(&problem, "session", mark->session);
	json_check_num(&problem, "epoch", mark->epoch);
	json_check_range(&problem, "attempt", mark->attempt, 1, INT32_MAX);
	json_check_text(&problem, "id", mark->id, 1, sizeof(mark->id) - 1);
	json_check_time(&problem, "at", mark->at);
	return !problem.found;
}

static void
read_mark(const Reader *reader, const Scanner *scan, void *arg)
{
	RunMark *out = arg;
	char mode[sizeof("exactly_once")] = "";

	json_read_format(reader);
	json_read_array(reader, "mode", mode, sizeof(mode));
	out->decision = strcmp(mode, modes[true]) == 0;
	if (!out->decision && strcmp(mode, modes[false]) != 0)
		json_complain_about(reader, "mode", "is neither \"at_most_once\" nor \"exactly_once\"");
	json_read_array(reader, "node", out->node, sizeof(out->node));
	out->session = json_read_int(reader, "session");
	out->epoch = json_read_int(reader, "epoch");
	out->attempt = (int32_t) json_read_range(reader, "attempt", 1, INT32_MAX);
	json_read_array(reader, "id", out->id, sizeof(out->id));
	out->at = json_read_time(reader, "at");
}

bool
codec_mark_decode(const char *text, size_t len, RunMark *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_mark, out, err, errlen) && codec_mark_check(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_mark_encode(const RunMark *mark, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_mark_check(mark, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "mode", modes[mark->decision]);
	json_put_text(&writer, "node", mark->node);
	json_put_int(&writer, "session", mark->session);
	json_put_int(&writer, "epoch", mark->epoch);
	json_put_int(&writer, "attempt", mark->attempt);
	json_put_text(&writer, "id", mark->id);
	json_put_time(&writer, "at", mark->at);
	return json_put_tail(&writer, len);
}
