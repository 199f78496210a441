/*
 * convert.c
 *	  Rows of dsched.job to the values in etcd and back, and what two versions of a definition have in common.
 *
 * A row has its text in the encoding of the database, a value in etcd is UTF-8, and so are the names in its key
 * and what the partition is computed from.  The two agree in nearly every database; in others a conversion can
 * fail (a name that the encoding has no characters for), and then the definition cannot be published, or cannot
 * run here. Nothing here raises an error because of what is in etcd.
 *
 * What etcd does not hold: problem (that of a paused job goes along as closed_reason), created_at and
 * changed_at.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "compat.h"
#include "settings.h"
#include "sync/sync_internal.h"

/*
 * The columns that people change one by one, beside policy_fields, by their names in dsched.job and in its column
 * changed.
 */
typedef enum JobColumn
{
	COLUMN_SCHEDULE,
	COLUMN_RUN_AT,
	COLUMN_COMMAND,
	COLUMN_TIME_ZONE,
	COLUMN_STARTS_AT,
	COLUMN_EXPIRES_AT,
	COLUMN_MAX_RUNS,
	COLUMN_QUEUE,
	COLUMN_RUN_ON,
	COLUMN_USERNAME,
	COLUMN_PAYLOAD,
	COLUMN_METADATA,
	COLUMN_ACTIVE
} JobColumn;

static const char *const column_names[] = {
	"schedule", "run_at", "command", "time_zone", "starts_at", "expires_at", "max_runs", "queue", "run_on",
	"username", "payload", "metadata", "active"
};

/* ---- encodings ---------------------------------------------------------------------------------- */

/*
 * The server's functions between its encoding and UTF-8, if these differ; looked up once, so that no catalog is
 * needed later.
 */
static FmgrInfo to_utf8;
static FmgrInfo from_utf8;

static void
find_conversion(int from, int to, FmgrInfo *out)
{
	Oid			proc = FindDefaultConversionProc(from, to);

	if (!OidIsValid(proc))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("there is no default conversion between encodings \"%s\" and \"%s\"",
						pg_encoding_to_char(from), pg_encoding_to_char(to))));
	fmgr_info_cxt(proc, out, scheduler.context);
}

void
sync_convert_init(void)
{
	int			encoding = GetDatabaseEncoding();

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return;
	find_conversion(encoding, PG_UTF8, &to_utf8);
	find_conversion(PG_UTF8, encoding, &from_utf8);
}

/* NULL: text is not valid in the one encoding, or has a character that the other lacks. */
static char *
convert(FmgrInfo *conversion, const char *text, int from, int to)
{
	size_t		len = strlen(text);
	char	   *result;
	int			converted;

	if (len > MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return NULL;
	/* of SQL_ASCII nothing is known; only that it is UTF-8 can be checked */
	if (conversion->fn_addr == NULL || len == 0)
		return pg_verify_mbstr(PG_UTF8, text, (int) len, true) ? unconstify(char *, text) : NULL;

	result = palloc(len * MAX_CONVERSION_GROWTH + 1);
	converted = DatumGetInt32(FunctionCall6(conversion, Int32GetDatum(from), Int32GetDatum(to), CStringGetDatum(text),
											CStringGetDatum(result), Int32GetDatum((int) len), BoolGetDatum(true)));
	if (converted == (int) len)
		return result;
	pfree(result);
	return NULL;
}

char *
sync_to_utf8(const char *text)
{
	return convert(&to_utf8, text, GetDatabaseEncoding(), PG_UTF8);
}

char *
sync_from_utf8(const char *text)
{
	return convert(&from_utf8, text, PG_UTF8, GetDatabaseEncoding());
}

int
sync_partition(const char *username, const char *job_name, int partitions)
{
	char	   *role = sync_to_utf8(username);
	char	   *name = sync_to_utf8(job_name);

	/* what cannot be published is nobody else's, and may be anywhere */
	return keys_partition(role ? role : username, name ? name : job_name, partitions);
}

bool
sync_job_key(const char *username, const char *job_name, char *out, int *partition)
{
	char	   *role = sync_to_utf8(username);
	char	   *name = sync_to_utf8(job_name);

	if (role == NULL || name == NULL)
		return false;
	*partition = keys_partition(role, name, dsched_partitions);
	return keys_job(out, dsched_cluster_name, scheduler.dbname, *partition, role, name);
}

/* ---- a row as a value --------------------------------------------------------------------------- */

/* Into *to; NULL stays NULL.  False: cannot be converted. */
static bool
text_to_def(const char *from, char **to)
{
	*to = from != NULL ? sync_to_utf8(from) : NULL;
	return from == NULL || *to != NULL;
}

/* Why a job is paused; short enough for its field. */
static char *
closed_reason(const JobRow *row)
{
	char	   *reason;

	if (row->active || row->problem == NULL || (reason = sync_to_utf8(row->problem)) == NULL)
		return NULL;
	return pnstrdup(reason, pg_encoding_mbcliplen(PG_UTF8, reason, (int) strlen(reason), CODEC_MAX_TEXT));
}

/* All strings are the row's, or palloc'd: not for codec_job_free(). */
static bool
row_to_def(const JobRow *row, JobDef *def)
{
	memset(def, 0, sizeof(*def));
	if (!text_to_def(row->username, &def->username) || !text_to_def(row->job_name, &def->job_name) ||
		!text_to_def(row->schedule, &def->schedule) || !text_to_def(row->command, &def->command) ||
		!text_to_def(row->time_zone, &def->time_zone) || !text_to_def(row->payload, &def->payload) ||
		!text_to_def(row->metadata, &def->metadata) || !text_to_def(row->extra, &def->extra) ||
		!text_to_def(row->queue, &def->queue) || !text_to_def(row->run_on, &def->run_on) ||
		!text_to_def(dsched_my_node(), &def->node))
		return false;
	def->job_id = row->job_id;
	def->run_at = row->run_at;
	def->has_starts_at = row->starts_at != 0;
	def->starts_at = row->starts_at;
	def->has_expires_at = row->expires_at != 0;
	def->expires_at = row->expires_at;
	def->has_last_slot = row->last_slot != 0;
	def->last_slot = row->last_slot;
	def->max_runs = row->max_runs;
	def->policy = row->policy;
	def->active = row->active;
	def->anchor = row->anchor;
	def->gen = row->gen;
	def->slots_from = row->slots_from;
	def->gen_rev = row->gen_rev;
	def->change_id = row->change_id;
	def->closed_reason = closed_reason(row);
	return true;
}

char *
sync_encode_row(const JobRow *row, size_t *len, char *problem, size_t size)
{
	JobDef		def;
	char	   *value;

	if (!row_to_def(row, &def))
	{
		strlcpy(problem, "it has text that cannot be converted to UTF-8", size);
		return NULL;
	}
	if (!codec_job_check(&def, problem, size))
		return NULL;
	value = codec_job_encode(&def, len);
	if (value != NULL && *len > CODEC_MAX_VALUE - SYNC_SIGNATURE_MAX)
	{
		free(value);
		value = NULL;
	}
	if (value == NULL)
		snprintf(problem, size, "as JSON it is longer than %d bytes", CODEC_MAX_VALUE - SYNC_SIGNATURE_MAX);
	return value;
}

/* ---- a value as a row --------------------------------------------------------------------------- */

/* Into *to, palloc'd; NULL stays NULL.  False: the encoding of this database cannot say it. */
static bool
text_from_def(const char *from, char **to)
{
	char	   *text = from != NULL ? sync_from_utf8(from) : NULL;

	/* what was not converted is the decoder's, which frees it */
	*to = text == from && text != NULL ? pstrdup(text) : text;
	return from == NULL || text != NULL;
}

/* 0 means "none" in a row, so the moment of that number stands a microsecond later there. */
static TimestampTz
optional_time(bool present, int64 time)
{
	if (!present)
		return 0;
	return time == 0 ? 1 : time;
}

static bool
row_from_def(const JobDef *def, int64 mod_revision, JobRow *row)
{
	memset(row, 0, sizeof(*row));
	if (!text_from_def(def->username, &row->username) || !text_from_def(def->job_name, &row->job_name) ||
		!text_from_def(def->schedule, &row->schedule) || !text_from_def(def->command, &row->command) ||
		!text_from_def(def->time_zone ? def->time_zone : "UTC", &row->time_zone) ||
		!text_from_def(def->payload, &row->payload) || !text_from_def(def->metadata, &row->metadata) ||
		!text_from_def(def->extra, &row->extra) || !text_from_def(def->queue, &row->queue) ||
		!text_from_def(def->run_on, &row->run_on) ||
		!text_from_def(def->active ? NULL : def->closed_reason, &row->problem))
		return false;
	row->job_id = def->job_id;
	row->run_at = optional_time(def->schedule == NULL, def->run_at);
	row->starts_at = optional_time(def->has_starts_at, def->starts_at);
	row->expires_at = optional_time(def->has_expires_at, def->expires_at);
	row->last_slot = optional_time(def->has_last_slot, def->last_slot);
	row->max_runs = def->max_runs;
	row->policy = def->policy;
	row->active = def->active;
	row->anchor = def->anchor;
	row->gen = def->gen;
	row->slots_from = def->slots_from;
	row->gen_rev = def->gen_rev > 0 ? def->gen_rev : mod_revision;
	row->former = def->gen_rev < 0 ? -def->gen_rev : 0;
	row->mod_revision = mod_revision;
	row->change_id = def->change_id;
	row->created_at = row->changed_at = scheduler.now;
	return strlen(row->username) < NAMEDATALEN && strlen(row->job_name) <= DSCHED_MAX_JOB_NAME &&
		(row->queue == NULL || strlen(row->queue) <= POLICY_MAX_QUEUE);
}

bool
sync_decode_row(const char *value, size_t len, int64 mod_revision, JobRow *row, char *problem, size_t size)
{
	JobDef		def;
	bool		converted;

	memset(row, 0, sizeof(*row));
	if (!codec_job_decode(value, len, &def, problem, size))
		return false;
	converted = row_from_def(&def, mod_revision, row);
	codec_job_free(&def);
	if (!converted)
		strlcpy(problem, "it has text that the encoding of this database cannot represent", size);
	return converted;
}

/* ---- requests ----------------------------------------------------------------------------------- */

void
sync_describe_request(const OutboxRow *row, TriggerDef *def)
{
	def->kind = row->kind;
	def->trigger_id = def->change_id = row->outbox_id;
	def->requested_at = row->kind == TRIGGER_RUN ? row->scheduled_for : row->created_at;
	def->first = row->first;
	def->last = row->last;
	def->rule = row->rule;
	def->slot = row->slot;
	def->target = row->target;
}

/* ---- comparing ---------------------------------------------------------------------------------- */

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

bool
sync_same_slots(const JobRow *a, const JobRow *b)
{
	return same_text(a->schedule, b->schedule) && a->run_at == b->run_at && same_text(a->time_zone, b->time_zone) &&
		a->starts_at == b->starts_at && a->expires_at == b->expires_at && a->max_runs == b->max_runs &&
		same_text(a->username, b->username) && same_text(a->run_on, b->run_on) && a->active == b->active && a->policy.jitter == b->policy.jitter;
}

bool
sync_same_definition(const JobRow *a, const JobRow *b)
{
	return sync_same_slots(a, b) && same_text(a->command, b->command) && same_text(a->payload, b->payload) &&
		same_text(a->metadata, b->metadata) && policy_same(&a->policy, &b->policy) && same_text(a->queue, b->queue);
}

bool
sync_is_changed(const JobRow *row, const char *column)
{
	ListCell   *lc;

	foreach(lc, row->changed)
		if (strcmp(lfirst(lc), column) == 0)
			return true;
	return false;
}

bool
sync_copy_column(JobRow *to, const JobRow *from, const char *column)
{
	int			n = 0;

	for (int i = 0; i < POLICY_FIELDS; i++)
	{
		if (strcmp(policy_fields[i].name, column) == 0)
		{
			policy_set(&to->policy, (PolicyField) i, policy_get(&from->policy, (PolicyField) i));
			return true;
		}
	}
	while (n < (int) lengthof(column_names) && strcmp(column_names[n], column) != 0)
		n++;
	switch ((JobColumn) n)
	{
		case COLUMN_SCHEDULE:
			to->schedule = from->schedule;
			return true;
		case COLUMN_RUN_AT:
			to->run_at = from->run_at;
			return true;
		case COLUMN_COMMAND:
			to->command = from->command;
			return true;
		case COLUMN_TIME_ZONE:
			to->time_zone = from->time_zone;
			return true;
		case COLUMN_STARTS_AT:
			to->starts_at = from->starts_at;
			return true;
		case COLUMN_EXPIRES_AT:
			to->expires_at = from->expires_at;
			return true;
		case COLUMN_MAX_RUNS:
			to->max_runs = from->max_runs;
			return true;
		case COLUMN_QUEUE:
			to->queue = from->queue;
			return true;
		case COLUMN_RUN_ON:
			to->run_on = from->run_on;
			return true;
		case COLUMN_USERNAME:
			to->username = from->username;
			return true;
		case COLUMN_PAYLOAD:
			to->payload = from->payload;
			return true;
		case COLUMN_METADATA:
			to->metadata = from->metadata;
			return true;
		case COLUMN_ACTIVE:
			to->active = from->active;
			to->problem = from->problem;
			return true;
	}
	return false;
}

/* ---- generations -------------------------------------------------------------------------------- */

/* How many slots does the rule have up to its last_slot?  At most 'most'. */
static int32
count_slots(const SlotRule *rule, int32 most)
{
	int32		least = 0;

	while (least < most)
	{
		int32		middle = least + (most - least + 1) / 2;

		if (slot_nth(rule, middle) != 0)
			least = middle;
		else
			most = middle - 1;
	}
	return least;
}

/*
 * max_runs was turned into last_slot when the change was made, with the slots that were then to come.  If some
 * of these came due before the change is published they do not exist, and as many move behind the others.
 */
void
sync_begin_generation(JobRow *row, TimestampTz now)
{
	SlotRule	rule;
	char	   *problem;
	TimestampTz next;
	int32		left;

	if (row->slots_from >= now)
		return;
	if (row->last_slot != 0 && row->max_runs != 0 && row->schedule != NULL && slot_rule_make(row, &rule, &problem))
	{
		rule.expires_at = 0;
		next = slot_next(&rule, rule.slots_from);
		if (next != 0 && next <= now)
		{
			left = count_slots(&rule, row->max_runs);
			rule.last_slot = 0;
			rule.slots_from = now;
			next = slot_nth(&rule, left);
			if (next != 0)
				row->last_slot = next;
		}
	}
	row->slots_from = now;
}
