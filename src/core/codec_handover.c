/*
 * codec_handover.c
 *	  The values of cmd/ and outcome/: what the owner of a partition asks of the instance that still makes a run
 *	  of it, and what that answers.
 *
 * The format stands in codec.c, with the others.
 *
 * Failure as in codec.h: the text is refused, or would be.
 */
#include "core/codec.h"

#include <string.h>

#include "core/json.h"

#define WORD "abcdefghijklmnopqrstuvwxyz_"
#define SQLSTATE "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static void
check_session(Problem *problem, int64_t session)
{
	if (session < 1)
		json_complain(problem, "there is no session");
}

static bool
command_is_good(const CommandDef *command, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	check_session(&problem, command->session);
	return !problem.found;
}

static bool
outcome_is_good(const OutcomeDef *outcome, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	check_session(&problem, outcome->session);
	json_check_word(&problem, "status", outcome->status, WORD);
	if (outcome->status[0] == '\0')
		json_complain(&problem, "the status is empty");
	json_check_time(&problem, "finished_at", outcome->finished_at);
	json_check_word(&problem, "sqlstate", outcome->sqlstate, SQLSTATE);
	return !problem.found;
}

static void
read_command(const Reader *reader, const Scanner *scan, void *arg)
{
	CommandDef *out = arg;

	json_read_format(reader);
	out->session = json_read_decimal(reader, "session");
	out->cancel = json_has(reader, "cancel") && json_read_bool(reader, "cancel");
}

bool
codec_command_decode(const char *text, size_t len, CommandDef *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_command, out, err, errlen) && command_is_good(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_command_encode(const CommandDef *command, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!command_is_good(command, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_decimal(&writer, "session", command->session);
	if (command->cancel)
		json_put_bool(&writer, "cancel", true);
	return json_put_tail(&writer, len);
}

static void
read_outcome(const Reader *reader, const Scanner *scan, void *arg)
{
	OutcomeDef *out = arg;

	json_read_format(reader);
	out->session = json_read_decimal(reader, "session");
	json_read_array(reader, "status", out->status, sizeof(out->status));
	out->finished_at = json_has(reader, "finished_at") ? json_read_time(reader, "finished_at") : 0;
	json_read_array_or_empty(reader, "sqlstate", out->sqlstate, sizeof(out->sqlstate));
}

bool
codec_outcome_decode(const char *text, size_t len, OutcomeDef *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_outcome, out, err, errlen) && outcome_is_good(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_outcome_encode(const OutcomeDef *outcome, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!outcome_is_good(outcome, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_decimal(&writer, "session", outcome->session);
	json_put_text(&writer, "status", outcome->status);
	if (outcome->finished_at != 0)
		json_put_time(&writer, "finished_at", outcome->finished_at);
	if (outcome->sqlstate[0] != '\0')
		json_put_text(&writer, "sqlstate", outcome->sqlstate);
	return json_put_tail(&writer, len);
}
