/*
 * codec.c
 *	  The JSON values that dsched keeps in etcd (and, for states, in its tables too).
 *
 * THE FORMATS
 *
 * Each value is one JSON object (RFC 8259) in UTF-8, written without white space, members in
 * the order given here.  [ ] marks what is left out when it has its default; on reading, null
 * is the same as absent, and the order is free.
 *
 *	int		a JSON number, an integer within +-(2^53 - 1), without fraction and exponent
 *	id		an int from 1 up
 *	num		an int from 0 up
 *	time	an int: microseconds since 1970-01-01 00:00 UTC
 *	dec		a string: an integer of 64 bits in decimal, without '+' or leading zeros
 *
 * A definition, job/<pp>/<role>/<name>:
 *
 *	{"format":1,"job_id":id,"username":"...","job_name":"...",
 *	 ["schedule":"..."|"run_at":time],"command":"...",["time_zone":"..."],
 *	 ["starts_at":time],["expires_at":time],["last_slot":time],["max_runs":num],
 *	 ["overlap":"..."],["misfire":"..."],["misfire_grace":num],["max_attempts":id],
 *	 ["retry_delay":num],["retry_max_delay":num],["timeout":num],["priority":int],
 *	 ["deadline":num],["max_failures":num],["max_lost":id],["jitter":num],["queue":"..."],
 *	 "active":bool,["payload":"<json>"],["metadata":"<json>"],"anchor":time,"gen":num,
 *	 "slots_from":time,"gen_rev":[-]num,"change_id":num,"node":"...",
 *	 ["closed_reason":"..."],<others>,["after":num,"mac":"..."]}
 *
 * The policy, from overlap to jitter, is left out where it is policy_default; its durations are in
 * microseconds.  An overlap, misfire or delivery that this version does not know makes the definition unreadable.
 *
 * Either schedule or run_at is there.  payload and metadata are strings that hold JSON text,
 * so that their numbers keep every digit.  <others> are the members that this version does
 * not know: they are kept as text, byte by byte, and written back, so that an old version's
 * change of a job does not lose a newer version's fields.  after and mac are a signature (sync/sign.c), which is
 * added to the encoded value, looked at before it is decoded, and neither kept nor written here; a trigger may have one too.
 *
 * The state of a partition, state/any/<pp> (other members are ignored, here and in all that
 * follow):
 *
 *	{"format":1,"node":"...","epoch":num,"seq":num,"jobrev":num,"watermark":time,
 *	 "watermark_job":num,"pending":[run,...],"done":[run,...],["failing":[failing,...]],
 *	 ["system_identifier":dec,"timeline":num,"since":time],"clean":bool}
 *
 * and each run in it:
 *
 *	{"j":id,"g":num,"s":time,["e":time],["c":num],["t":id],["a":num],["f":num],["x":num],["n":time],
 *	 ["l":dec],["h":true],["r":"..."]}
 *
 *	j	job_id
 *	g	gen
 *	s	slot
 *	e	slot_to, the end of a range of slots (s)
 *	c	slots, how many there are from s to e (1)
 *	t	trigger_id (0)
 *	a	attempt (0: a range whose slots have not been opened)
 *	f	failures, attempts that failed (0)
 *	x	lost, attempts that died with their process (0)
 *	n	not_before (none)
 *	l	session under which it was started: the create_revision of the owner's node key (none)
 *	h	handed over: it goes on while that session lives, whoever owns the partition (false)
 *	r	reason ("")
 *
 * and each failing job:
 *
 *	{"j":id,"n":num}
 *
 *	j	job_id
 *	n	its runs that failed in a row
 *
 * An instance, node/<node>:
 *
 *	{"format":1,"node":"...","host":"...","port":num,["labels":{...}],"version":"...",
 *	 "server_version_num":num,"lease":dec,"system_identifier":dec,"timeline":num,
 *	 "boot_id":"...","data_dev":dec,"data_ino":dec,"wall_clock":time,"tzdata":"..."}
 *
 * The cluster, config:
 *
 *	{"format":1,"partitions":id,"incarnation":"...",["previous":["...",...],"number":num,"resume_from":time,"recovered_at":time]}
 *
 * The last three are there if the cluster was recovered.  What a database was in the incarnation before, former/<database>:
 *
 *	{"format":1,"incarnation":"...","revision":num,["watermarks":{"any":[time,...]}]}
 *
 * in the order of the former partitions; the least time is that of a partition without a state.
 *
 * A trigger, trigger/<pp>/<id>:
 *
 *	{"format":1,"trigger_id":id,"job_id":id,"username":"...","job_name":"...",
 *	 "requested_at":time,"requested_by":"...","change_id":num,
 *	 ["kind":"backfill","first":time,"last":time,"rule":dec|"kind":"cancel",["slot":time],["target":id]]}
 *
 * Without a kind it asks for a run.  A kind that this version does not know makes it unreadable.  A cancel without
 * a slot is for all that is left of a backfill, its target.
 *
 * A queue, queue/<name> (<others> are kept, as in a definition of a job):
 *
 *	{"format":1,"name":"...",["max_running":id],["rate_limit":id,"per":id],
 *	 "scope":"instance"|"cluster","change_id":num,"node":"...",<others>}
 *
 * max_running or rate_limit is there, or both; per is in microseconds, and there with rate_limit only.
 *
 * The formats are all above.  The code below is that for instances and triggers; codec_job.c has that
 * for definitions, codec_cluster.c that for the cluster, codec_state.c that for states, codec_queue.c that for queues.  It only names the fields: how a value is read, so that
 * nothing in it is believed, and how it is written stands in json.h.  The bounds of the fields are in codec.h.
 *
 * What can go wrong is that a text is refused (decoding) or would be (encoding); then nothing is returned, and what
 * had been allocated is freed.
 */
#include "core/codec.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/keys.h"

/*
 * INSTANCES
 */

bool
codec_node_check(const NodeInfo *node, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_text(&problem, "node", node->node, 1, CODEC_MAX_NAME);
	json_check_text(&problem, "host", node->host, 0, CODEC_MAX_NAME);
	json_check_range(&problem, "port", node->port, 0, 65535);
	json_check_json(&problem, "labels", node->labels, CODEC_MAX_LABELS, true);
	json_check_text(&problem, "version", node->version, 0, sizeof(node->version) - 1);
	json_check_range(&problem, "server_version_num", node->server_version_num, 0, INT32_MAX);
	if (node->lease == 0)
		json_complain(&problem, "\"lease\" is 0");
	json_check_num(&problem, "timeline", node->timeline);
	json_check_text(&problem, "boot_id", node->boot_id, 1, sizeof(node->boot_id) - 1);
	json_check_time(&problem, "wall_clock", node->wall_clock);
	json_check_text(&problem, "tzdata", node->tzdata, 0, sizeof(node->tzdata) - 1);
	return !problem.found;
}

/* The text of the member labels, which json_check_json() finds to be an object or not. */
static char *
read_labels(const Reader *reader, const Scanner *scan)
{
	const Member *member = scan->members;
	const cJSON *labels = json_find(reader, "labels");
	const cJSON *item;

	if (labels == NULL)
		return NULL;
	for (item = reader->object->child; item != labels; item = item->next)
		member++;
	return json_copy_bytes(member->value, member->end - member->value, reader->problem);
}

static void
read_node(const Reader *reader, const Scanner *scan, void *arg)
{
	NodeInfo *out = arg;

	json_read_format(reader);
	json_read_array(reader, "node", out->node, sizeof(out->node));
	json_read_array_or_empty(reader, "host", out->host, sizeof(out->host));
	out->port = json_read_int32_or_0(reader, "port");
	json_read_array_or_empty(reader, "version", out->version, sizeof(out->version));
	out->server_version_num = json_read_int32_or_0(reader, "server_version_num");
	out->lease = json_read_decimal(reader, "lease");
	out->system_identifier = json_read_unsigned_decimal(reader, "system_identifier");
	out->timeline = json_read_int(reader, "timeline");
	json_read_array(reader, "boot_id", out->boot_id, sizeof(out->boot_id));
	out->data_dev = json_read_unsigned_decimal(reader, "data_dev");
	out->data_ino = json_read_unsigned_decimal(reader, "data_ino");
	out->wall_clock = json_read_time(reader, "wall_clock");
	json_read_array_or_empty(reader, "tzdata", out->tzdata, sizeof(out->tzdata));
	out->labels = read_labels(reader, scan);
}

bool
codec_node_decode(const char *text, size_t len, NodeInfo *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_node, out, err, errlen) && codec_node_check(out, err, errlen))
		return true;
	codec_node_free(out);
	return false;
}

char *
codec_node_encode(const NodeInfo *node, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_node_check(node, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_text(&writer, "node", node->node);
	json_put_text(&writer, "host", node->host);
	json_put_int(&writer, "port", node->port);
	if (node->labels != NULL)
	{
		json_put_name(&writer, "labels");
		json_put(&writer, node->labels);
	}
	json_put_text(&writer, "version", node->version);
	json_put_int(&writer, "server_version_num", node->server_version_num);
	json_put_decimal(&writer, "lease", node->lease);
	json_put_unsigned_decimal(&writer, "system_identifier", node->system_identifier);
	json_put_int(&writer, "timeline", node->timeline);
	json_put_text(&writer, "boot_id", node->boot_id);
	json_put_unsigned_decimal(&writer, "data_dev", node->data_dev);
	json_put_unsigned_decimal(&writer, "data_ino", node->data_ino);
	json_put_time(&writer, "wall_clock", node->wall_clock);
	json_put_text(&writer, "tzdata", node->tzdata);
	return json_put_tail(&writer, len);
}

void
codec_node_free(NodeInfo *node)
{
	free(node->labels);
	memset(node, 0, sizeof(*node));
}

/*
 * TRIGGERS
 */

static void
check_backfill(Problem *problem, const TriggerDef *trigger)
{
	json_check_time(problem, "first", trigger->first);
	json_check_time(problem, "last", trigger->last);
	if (trigger->last < trigger->first)
		json_complain(problem, "a range of slots ends before it begins");
}

static void
check_cancel(Problem *problem, const TriggerDef *trigger)
{
	json_check_num(problem, "target", trigger->target);
	if (trigger->slot != TRIGGER_ALL)
		json_check_time(problem, "slot", trigger->slot);
	else if (trigger->target == 0)
		json_complain(problem, "neither \"slot\" nor \"target\" is given");
}

bool
codec_trigger_check(const TriggerDef *trigger, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);

	json_check_id(&problem, "trigger_id", trigger->trigger_id);
	json_check_id(&problem, "job_id", trigger->job_id);
	json_check_text(&problem, "username", trigger->username, 1, CODEC_MAX_ROLE);
	json_check_text(&problem, "job_name", trigger->job_name, 1, CODEC_MAX_NAME);
	json_check_time(&problem, "requested_at", trigger->requested_at);
	json_check_text(&problem, "requested_by", trigger->requested_by, 1, CODEC_MAX_ROLE);
	json_check_num(&problem, "change_id", trigger->change_id);
	if (trigger->kind == TRIGGER_BACKFILL)
		check_backfill(&problem, trigger);
	else if (trigger->kind == TRIGGER_CANCEL)
		check_cancel(&problem, trigger);
	else if (trigger->kind != TRIGGER_RUN)
		json_complain(&problem, "\"kind\" is out of range");
	return !problem.found;
}

static void
read_kind(const Reader *reader, TriggerDef *out)
{
	char *kind = json_read_text_or_null(reader, "kind");

	if (kind != NULL && strcmp(kind, "backfill") == 0)
	{
		out->kind = TRIGGER_BACKFILL;
		out->first = json_read_time(reader, "first");
		out->last = json_read_time(reader, "last");
		out->rule = json_read_decimal(reader, "rule");
	}
	else if (kind != NULL && strcmp(kind, "cancel") == 0)
	{
		out->kind = TRIGGER_CANCEL;
		out->slot = json_has(reader, "slot") ? json_read_time(reader, "slot") : TRIGGER_ALL;
		out->target = json_has(reader, "target") ? json_read_int(reader, "target") : 0;
	}
	else if (kind != NULL)
		json_complain_about(reader, "kind", "is not one that is known");
	free(kind);
}

static void
read_trigger(const Reader *reader, const Scanner *scan, void *arg)
{
	TriggerDef *out = arg;

	json_read_format(reader);
	out->trigger_id = json_read_int(reader, "trigger_id");
	out->job_id = json_read_int(reader, "job_id");
	out->username = json_read_text(reader, "username");
	out->job_name = json_read_text(reader, "job_name");
	out->requested_at = json_read_time(reader, "requested_at");
	out->requested_by = json_read_text(reader, "requested_by");
	out->change_id = json_read_int(reader, "change_id");
	read_kind(reader, out);
}

bool
codec_trigger_decode(const char *text, size_t len, TriggerDef *out, char *err, size_t errlen)
{
	memset(out, 0, sizeof(*out));
	if (json_decode(text, len, read_trigger, out, err, errlen) && codec_trigger_check(out, err, errlen))
		return true;
	codec_trigger_free(out);
	return false;
}

static void
put_kind(Writer *writer, const TriggerDef *trigger)
{
	if (trigger->kind == TRIGGER_BACKFILL)
	{
		json_put_text(writer, "kind", "backfill");
		json_put_time(writer, "first", trigger->first);
		json_put_time(writer, "last", trigger->last);
		json_put_decimal(writer, "rule", trigger->rule);
	}
	else if (trigger->kind == TRIGGER_CANCEL)
	{
		json_put_text(writer, "kind", "cancel");
		if (trigger->slot != TRIGGER_ALL)
			json_put_time(writer, "slot", trigger->slot);
		if (trigger->target != 0)
			json_put_int(writer, "target", trigger->target);
	}
}

char *
codec_trigger_encode(const TriggerDef *trigger, size_t *len)
{
	Writer writer = json_writer_begin();

	if (!codec_trigger_check(trigger, NULL, 0))
		return json_refuse(len);
	json_put_head(&writer);
	json_put_int(&writer, "trigger_id", trigger->trigger_id);
	json_put_int(&writer, "job_id", trigger->job_id);
	json_put_text(&writer, "username", trigger->username);
	json_put_text(&writer, "job_name", trigger->job_name);
	json_put_time(&writer, "requested_at", trigger->requested_at);
	json_put_text(&writer, "requested_by", trigger->requested_by);
	json_put_int(&writer, "change_id", trigger->change_id);
	put_kind(&writer, trigger);
	return json_put_tail(&writer, len);
}

void
codec_trigger_free(TriggerDef *trigger)
{
	free(trigger->username);
	free(trigger->job_name);
	free(trigger->requested_by);
	memset(trigger, 0, sizeof(*trigger));
}

/*
 * WHATEVER IT IS
 */

int64_t
codec_format(const char *text, size_t len)
{
	Problem problem = json_problem_begin(NULL, 0);
	Scanner scan;
	cJSON *root = json_parse_object(text, len, &scan, &problem);
	int64_t format = 0;

	if (root != NULL)
	{
		Reader reader = json_reader_begin(root, &problem);

		format = json_read_int(&reader, "format");
		cJSON_Delete(root);
	}
	return problem.found || format < 0 ? 0 : format;
}
