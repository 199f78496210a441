/*
 * publish.c
 *	  From dsched.job and dsched.outbox to etcd.
 *
 * WHAT IS SENT
 *
 * A round reads the rows with unpublished changes and the outbox in one short transaction, makes one etcd
 * transaction of them, sends it with no database transaction open, and settles what came of it in others.  One
 * round is under way at a time. What one user's transaction has committed is visible to a round as a whole, and
 * goes into one etcd transaction unless it is beyond etcd's bounds, or somebody holds a lock on one of the
 * rows.
 *
 * The etcd transaction is this:
 *
 *	  if config has the value that we know					(else nothing at all: it is another etcd)
 *		  for each definition:	if its key has the mod_revision that it is based on, put it, else read it
 *		  for each deletion:	if its key has that mod_revision, delete it, else read it
 *		  for each trigger:		if its key is not there, put it
 *		  for each partition that is touched:	put jobrev/<pp>
 *
 * in two levels of nested transactions, as etcd bounds the operations of each level.  A deletion and a
 * definition under the same key (unschedule() and schedule() in one transaction) are one put.
 *
 * WHEN SOMEBODY WAS FASTER
 *
 * The change is laid over what is in etcd now, column by column as dsched.job.changed names them, and sent
 * again.  A whole definition ("all") replaces the other, but keeps its id.  A change of a job that was
 * unscheduled elsewhere is dropped.
 *
 * WHEN THE ANSWER IS LOST
 *
 * The transaction may have been applied, or be applied later.  It is just sent again: each version carries a
 * change id, and a version of ours that stands in etcd already is recognised by it.  Three things need more:
 *
 *	- A definition that is new is based on an absent key.  Were it unscheduled while its first put is lost on the way, the
 *	  deletion would find nothing, and the put, arriving later, would bring the job back.  So a new definition also compares
 *	  jobrev/<pp> with its last known revision, and every deletion puts jobrev/<pp>.
 *	- A definition that is new may have been applied, seen and unscheduled, or run as the one-shot that it was, before we look again: the key is
 *	  absent as it was at first. Put again it would come back from the dead, and run once more. So it is remembered which new definitions have
 *	  stood in etcd, by the answer or by the watch; and one in doubt is not put before the watch has shown all that was there when it was
 *	  last looked for. What has stood there and is gone is gone here, too.
 *	- A trigger's key is deleted when its run is accounted for.  One that was applied and run before it is sent again would run
 *	  twice; so what the watch has shown is not sent again.
 *
 * GENERATIONS
 *
 * A generation that is not published begins when it is: slots_from is the time of sending, and gen_rev is 0 in
 * the value, which reads as the revision of that version itself.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "mutant.h"
#include "places.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define REQUEST_TIMEOUT_MS 5000
#define RETRY_BASE_US INT64CONST(200000)
#define RETRY_MAX_US INT64CONST(2000000)
#define COUNT_INTERVAL_US INT64CONST(500000)
#define CONFLICT_BASE_US INT64CONST(2000)
#define CONFLICT_MAX_US INT64CONST(500000)
#define LOCKED_BASE_US INT64CONST(100000)
#define LOCKED_MAX_US INT64CONST(5000000)

/* Rows that are read at least, where it is known that fewer than before will do. */
#define MIN_ROWS 64

/* What no key has. */
#define NO_REVISION PG_INT64_MAX

/* Changes that are settled in one turn. */
#define SETTLE_BATCH 200

/*
 * Two levels of nesting below the outermost, with what a change needs at most on the innermost: see
 * ETCD_TXN_MAX_OPS.
 */
#define CHANGE_OPS 3
#define GROUP_SIZE ((ETCD_TXN_MAX_OPS - CHANGE_OPS) / 2)
#define MAX_LEAVES (GROUP_SIZE * GROUP_SIZE)
#define MAX_BYTES (ETCD_TXN_MAX_BYTES - 64 * 1024)
#define MAX_JSON (ETCD_MAX_REQUEST - 256 * 1024)

/* What is added to a transaction for each mention of a key, as etcd counts and as JSON, at most. */
#define KEY_BYTES 64
#define KEY_JSON 96
#define CHANGE_KEYS 5
#define MOVED_KEYS 3

/* A change that is known not to be publishable as it is. */
typedef struct Refused
{
	int64		change_id;		/* hash key; of a trigger its id */
} Refused;

typedef struct SentTrigger
{
	int64		trigger_id;		/* hash key */
	bool		seen;			/* by the watch */
} SentTrigger;

/* A new definition of which not everything is settled. */
typedef struct SentDefinition
{
	int64		change_id;		/* hash key */
	bool		stood;			/* it has stood in etcd */
	int64		absent_at;		/* the revision at which it was not there; 0 */
} SentDefinition;

static struct
{
	bool		wanted;			/* there may be something to publish */
	MemoryContext context;		/* of the round; reset at its end */
	List	   *changes;		/* of Change *, in the order in which they were sent */
	EtcdRequest *request;
	int64		floor;			/* see sync_check_revision() */
	bool		answered;		/* changes are being settled */
	int			settled;		/* so many are */
	Settlement	outcome;
	bool		deferred;		/* some triggers wait for their definitions */
	bool		recount;		/* slot->unpublished is old */
	bool		complained;
	Retry		retry;			/* etcd does not answer */
	Retry		conflicts;
	Retry		locks;
	Retry		counting;
	int			max_rows;		/* read in a round; less after that has failed, or was too many to send */
	int			max_changes;	/* sent in a transaction; these are less after etcd has refused one */
	size_t		max_bytes;
	HTAB	   *refused;
	HTAB	   *sent_triggers;
	HTAB	   *sent_definitions;
} publish;

/* What a round reads. */
typedef struct Collected
{
	List	   *rows;			/* of JobRow * */
	List	   *outbox;			/* of OutboxRow * */
	List	   *changes;
	int			max_rows;		/* the bound of each of them */
	int			unpublished;
	int			changed;
} Collected;

static void begin_round(void);
static void round_failed(void);
static void forget_what_was_sent(void);
static void collect(void *arg);
static void send_changes(void);
static void answered(void *arg, const EtcdResponse *response);
static void settle(void);
static void end_round(void);

static HTAB *
make_id_table(const char *name, Size entrysize)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = entrysize;
	ctl.hcxt = scheduler.context;
	return hash_create(name, 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
sync_publish_init(void)
{
	publish.context = AllocSetContextCreate(scheduler.context, "dsched publishing", ALLOCSET_DEFAULT_SIZES);
	publish.refused = make_id_table("dsched refused changes", sizeof(Refused));
	publish.sent_triggers = make_id_table("dsched sent triggers", sizeof(SentTrigger));
	publish.sent_definitions = make_id_table("dsched sent definitions", sizeof(SentDefinition));
	publish.max_rows = MAX_LEAVES;
	publish.max_changes = MAX_LEAVES;
	publish.max_bytes = MAX_BYTES;
}

void
sync_publish_changes(void)
{
	publish.wanted = publish.recount = true;
	sync_retry_reset(&publish.locks);
	scheduler_wake_at(scheduler.boot);
}

bool
sync_publish_idle(void)
{
	return !publish.wanted && publish.changes == NIL;
}

void
sync_trigger_seen(int64 trigger_id)
{
	SentTrigger *sent = hash_search(publish.sent_triggers, &trigger_id, HASH_FIND, NULL);

	if (sent != NULL)
		sent->seen = true;
}

static SentDefinition *
sent_definition(int64 change_id)
{
	bool		known;
	SentDefinition *sent = hash_search(publish.sent_definitions, &change_id, HASH_ENTER, &known);

	if (!known)
	{
		sent->stood = false;
		sent->absent_at = 0;
	}
	return sent;
}

/* Seen in etcd. Only what was sent from here is of interest. */
void
sync_definition_stood(int64 change_id)
{
	SentDefinition *sent = hash_search(publish.sent_definitions, &change_id, HASH_FIND, NULL);

	if (sent != NULL)
		sent->stood = true;
}

bool
sync_has_stood(int64 change_id)
{
	SentDefinition *sent = hash_search(publish.sent_definitions, &change_id, HASH_FIND, NULL);

	return sent != NULL && sent->stood;
}

void
sync_definition_absent(int64 change_id, int64 revision)
{
	sent_definition(change_id)->absent_at = revision;
}

/* May it be put where nothing is?  Else it is only looked for. */
static bool
may_be_new(int64 change_id)
{
	SentDefinition *sent = hash_search(publish.sent_definitions, &change_id, HASH_FIND, NULL);

	return sent == NULL || (!sent->stood && sent->absent_at <= sync_revision());
}

/* How many changes wait, and how many of them are rows of dsched.job. */
static void
count_unpublished(int *unpublished, int *changed)
{
	CatalogSpi	spi;
	bool		isnull;

	catalog_spi_begin(&spi);
	if (SPI_execute("SELECT (SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL)::int,"
					" (SELECT count(*) FROM dsched.outbox WHERE NOT local)::int + (SELECT count(*) FROM dsched.queue WHERE changed IS NOT NULL)::int", false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not count unpublished changes");
	*changed = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*unpublished = *changed + DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	catalog_spi_finish(&spi);
}

static void
recount(void *arg)
{
	int			changed;

	count_unpublished(&scheduler.slot->unpublished, &changed);
}

/* While etcd does not answer people want to see what waits for it. */
static void
show_unpublished(void)
{
	if (!publish.recount || !sync_retry_due(&publish.counting))
		return;
	if (scheduler_transaction(recount, NULL, "counting unpublished changes"))
		publish.recount = false;
	sync_retry_reset(&publish.counting);
	sync_retry_later(&publish.counting, COUNT_INTERVAL_US, COUNT_INTERVAL_US);
}

void
sync_publish_turn(void)
{
	if (publish.answered)
	{
		if (sync_retry_due(&publish.retry))
			settle();
		return;
	}
	/* a generation begins at the time of its publication, which has to be that of the others, too */
	if (publish.request != NULL || !sync_following() || !sync_can_sign() ||
		(pg_atomic_read_u32(&dsched_shared->clock_suspect) != 0 && !MUTANT(PUBLISH_ANYWAY)))
	{
		show_unpublished();
		return;
	}
	if (!publish.wanted || sync_queues_first())
		return;
	/* each of them asks for a turn when its time comes */
	if (sync_retry_due(&publish.retry) && sync_retry_due(&publish.conflicts) && sync_retry_due(&publish.locks))
		begin_round();
}

/* ---- reading what there is to publish ------------------------------------------------------------ */

static void
begin_round(void)
{
	Collected	collected = {0};
	int			nrows;

	memset(&publish.outcome, 0, sizeof(publish.outcome));
	publish.deferred = false;
	publish.wanted = publish.recount = false;
	if (!scheduler_transaction(collect, &collected, "reading unpublished changes"))
	{
		/* perhaps there was too much of it */
		publish.max_rows = Max(publish.max_rows / 2, 1);
		round_failed();
		return;
	}
	/* some may have lost their mark */
	sync_apply_published();
	if (!publish.wanted)
		publish.max_rows = Min(publish.max_rows * 2, MAX_LEAVES);
	scheduler.slot->unpublished = collected.unpublished;
	publish.changes = collected.changes;
	nrows = list_length(collected.rows);
	if (collected.unpublished == 0)
		forget_what_was_sent();

	if (nrows >= collected.max_rows || list_length(collected.outbox) >= collected.max_rows ||
		(publish.deferred && publish.changes != NIL))
		publish.wanted = true;
	else if (collected.changed > nrows || publish.deferred)
		publish.outcome.locked = true;	/* somebody has the others, and need not wake us when he lets them go */
	if (publish.changes != NIL)
		send_changes();
	else
		end_round();
}

/* When nothing is left to publish nothing is in doubt. */
static void
forget_what_was_sent(void)
{
	if (hash_get_num_entries(publish.sent_triggers) != 0)
	{
		hash_destroy(publish.sent_triggers);
		publish.sent_triggers = make_id_table("dsched sent triggers", sizeof(SentTrigger));
	}
	if (hash_get_num_entries(publish.sent_definitions) != 0)
	{
		hash_destroy(publish.sent_definitions);
		publish.sent_definitions = make_id_table("dsched sent definitions", sizeof(SentDefinition));
	}
}

static bool
is_refused(int64 change_id)
{
	return hash_search(publish.refused, &change_id, HASH_FIND, NULL) != NULL;
}

static void
refuse(int64 change_id)
{
	(void) hash_search(publish.refused, &change_id, HASH_ENTER, NULL);
}

/* The row cannot be published as it is.  People see that until they change it. */
static void
refuse_row(const JobRow *row, const char *problem)
{
	refuse(row->change_id);
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("dsched: the definition of job \"%s\" of role \"%s\" cannot be published: %s", row->job_name,
					row->username, problem)));
	sync_problem(row->job_id, psprintf("the last change is not published: %s", problem));
}

static Change *
make_change(ChangeKind kind, const char *username, const char *job_name, TimestampTz at)
{
	Change	   *change = palloc0(sizeof(Change));
	char		key[KEYS_MAX_LEN];

	change->kind = kind;
	change->at = at;
	if (!sync_job_key(username, job_name, key, &change->partition))
		return NULL;
	change->key = pstrdup(key);
	return change;
}

/* Takes over what an encoder has made, so that no error can lose it. */
static void
set_value(Change *change, char *value, size_t len)
{
	change->value = palloc(len + 1);
	memcpy(change->value, value, len + 1);
	change->len = len;
	free(value);
}

/*
 * Is it to be published only to be signed (sign_definitions()), and is signed as it should be?  What the timetable has is
 * what was verified last.
 */
static bool
is_signed(const JobRow *row)
{
	Job		   *job;

	if (list_length(row->changed) != 1 || !sync_is_changed(row, SYNC_SIGNATURE_COLUMN))
		return false;
	job = timetable_find(row->job_id);
	return !sync_sign_required() ||
		(job != NULL && job->usable && job->signed_anew && job->mod_revision == row->mod_revision);
}

static void
nothing_to_sign(JobRow *row)
{
	row->changed = NIL;
	job_update(row);
}

/*
 * Of a former incarnation's definition that somebody else must have carried over, if it was still there: etcd has none, so it was
 * deleted while this instance was away.  One that is there and cannot be read, or not be trusted, is no reason.
 */
static bool
is_gone(const JobRow *row)
{
	if (!sync_is_changed(row, KNOWN_BEFORE) || timetable_find_name(row->username, row->job_name) != NULL ||
		sync_is_broken(row->username, row->job_name))
		return false;
	ereport(LOG,
			(errmsg("dsched: job \"%s\" of role \"%s\" is dropped: it was unscheduled by another instance before the cluster was recovered",
					row->job_name, row->username)));
	job_delete(row->job_id);
	return true;
}

/* Does the job go to another place by this?  One that no instance has run can begin anywhere at once. */
static bool
is_moved(const JobRow *row)
{
	return row->mod_revision != 0 && sync_is_changed(row, "run_on");
}

static Change *
definition_change(JobRow *row)
{
	Change	   *change;
	char	   *value;
	size_t		len;
	char		problem[256] = "its name cannot be a key in etcd";

	if (is_refused(row->change_id) || is_gone(row))
		return NULL;
	if (is_signed(row))
	{
		nothing_to_sign(row);
		return NULL;
	}
	change = make_change(CHANGE_DEFINITION, row->username, row->job_name, row->changed_at);
	if (change != NULL)
	{
		change->row = row;
		change->base = row->mod_revision;
		if (row->gen_rev == 0)
			sync_begin_generation(row, dsched_wall_now() + (is_moved(row) ? place_move_margin() : 0));
		if (is_moved(row) && row->schedule == NULL && row->active && row->run_at <= row->slots_from)
		{
			refuse_row(row, "its time came before the change of run_on could be made known to the instances that may be running it");
			return NULL;
		}
		value = sync_encode_row(row, &len, problem, sizeof(problem));
		if (value != NULL)
		{
			set_value(change, value, len);
			return change;
		}
	}
	refuse_row(row, problem);
	return NULL;
}

static Change *
deletion_change(OutboxRow *row)
{
	Change	   *change = make_change(CHANGE_DELETION, row->username, row->job_name, row->created_at);

	/* what can have no key in etcd is not there */
	if (change == NULL)
	{
		outbox_delete(row->outbox_id);
		return NULL;
	}
	change->base = row->base_revision;
	change->outbox = list_make1(row);
	return change;
}

/*
 * The job that a trigger is for: by its id, or, if the id was given up for that of an older job of the name, by
 * its name.  False: it is not published yet, so the trigger has to wait.
 */
static bool
resolve_trigger(const OutboxRow *row, TriggerDef *def)
{
	JobRow		job;

	def->job_id = row->job_id;
	if (!job_read(row->job_id, &job))
	{
		if (!job_read_by_name(row->username, row->job_name, false, &job))
			return true;		/* unscheduled: whoever opens the trigger says so */
		def->job_id = job.job_id;
	}
	return job.mod_revision != 0 || is_refused(job.change_id);
}

static Change *
trigger_change(OutboxRow *row)
{
	Change	   *change = make_change(CHANGE_TRIGGER, row->username, row->job_name, row->created_at);
	TriggerDef	def = {0};
	char	   *value;
	size_t		len;
	char		key[KEYS_MAX_LEN];

	sync_describe_request(row, &def);
	def.username = sync_to_utf8(row->username);
	def.job_name = sync_to_utf8(row->job_name);
	def.requested_by = sync_to_utf8(row->requested_by);
	if (!resolve_trigger(row, &def))
	{
		publish.deferred = true;
		return NULL;
	}
	value = change != NULL ? codec_trigger_encode(&def, &len) : NULL;
	if (value == NULL)
	{
		refuse(row->outbox_id);
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dsched: a request for job \"%s\" of role \"%s\" cannot be published",
						row->job_name, row->username)));
		return NULL;
	}
	set_value(change, value, len);
	keys_trigger(key, dsched_cluster_name, scheduler.dbname, change->partition, row->outbox_id);
	change->key = pstrdup(key);
	change->outbox = list_make1(row);
	return change;
}

/* Deletes the row of a trigger that was sent in a round without an answer, and has arrived. */
static bool
has_arrived(const OutboxRow *row)
{
	SentTrigger *sent = hash_search(publish.sent_triggers, &row->outbox_id, HASH_FIND, NULL);

	if (sent == NULL || !sent->seen)
		return false;
	outbox_delete(row->outbox_id);
	return true;
}

static Change *
outbox_change(OutboxRow *row)
{
	if (row->is_delete)
		return deletion_change(row);
	if (is_refused(row->outbox_id) || has_arrived(row))
		return NULL;
	return trigger_change(row);
}

static List *
add_change(List *changes, Change *change)
{
	return change != NULL ? lappend(changes, change) : changes;
}

static int
compare_by_key(const ListCell *a, const ListCell *b)
{
	const Change *x = lfirst(a);
	const Change *y = lfirst(b);
	int			order = strcmp(x->key, y->key);

	/* a definition before the deletions of its key */
	return order != 0 ? order : (int) x->kind - (int) y->kind;
}

static int
compare_by_time(const ListCell *a, const ListCell *b)
{
	const Change *x = lfirst(a);
	const Change *y = lfirst(b);

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* Changes of one key become one: etcd takes one operation for a key in a transaction. */
static List *
merge_changes(List *changes)
{
	List	   *merged = NIL;
	Change	   *last = NULL;
	ListCell   *lc;

	list_sort(changes, compare_by_key);
	foreach(lc, changes)
	{
		Change	   *change = lfirst(lc);

		if (last != NULL && strcmp(last->key, change->key) == 0)
		{
			/* a definition that is new comes in the place of what was deleted */
			last->outbox = list_concat(last->outbox, change->outbox);
			last->base = Max(last->base, change->base);
			last->at = Min(last->at, change->at);
			continue;
		}
		merged = lappend(merged, change);
		last = change;
	}
	list_sort(merged, compare_by_time);
	return merged;
}

/* The change that takes a job away from its key, to be found by the job's id. */
typedef struct Departure
{
	int64		job_id;			/* hash key */
	Change	   *change;
} Departure;

static void
note_departures(HTAB *departures, Change *change)
{
	ListCell   *lc;

	if (change->kind == CHANGE_TRIGGER)
		return;
	foreach(lc, change->outbox)
	{
		Departure  *departure;
		bool		found;

		departure = hash_search(departures, &((OutboxRow *) lfirst(lc))->job_id, HASH_ENTER, &found);
		/* of several keys that it had, the one that was published */
		if (!found || departure->change->base < change->base)
			departure->change = change;
	}
}

/* The changes without the deletions that go with a definition. */
static List *
without_moved(List *changes)
{
	List	   *moved = NIL;
	ListCell   *lc;

	foreach(lc, changes)
	{
		Change	   *change = ((Change *) lfirst(lc))->moved;

		if (change != NULL && change->kind == CHANGE_DELETION)
			moved = lappend(moved, change);
	}
	return moved == NIL ? changes : list_difference_ptr(changes, moved);
}

/*
 * A job that got another role has another key.  Its id may stand in etcd once only, so the new key is put only
 * if the job leaves the old one with that, and was not unscheduled or moved elsewhere by somebody.  It leaves
 * by a deletion, which then goes with the put, or because another job is put there.
 */
static List *
link_moves(List *changes)
{
	HTAB	   *departures = make_id_table("dsched departures", sizeof(Departure));
	ListCell   *lc;

	foreach(lc, changes)
		note_departures(departures, lfirst(lc));
	foreach(lc, changes)
	{
		Change	   *change = lfirst(lc);
		Departure  *departure;

		if (change->kind != CHANGE_DEFINITION || change->row->mod_revision != 0)
			continue;
		departure = hash_search(departures, &change->row->job_id, HASH_FIND, NULL);
		if (departure != NULL && departure->change != change)
			change->moved = departure->change;
	}
	hash_destroy(departures);
	return without_moved(changes);
}

/* How much of a transaction is used. */
typedef struct TxnSize
{
	int			leaves;
	size_t		bytes;			/* as etcd counts them */
	size_t		json;
	bool		touched[DSCHED_MAX_PARTITIONS];
} TxnSize;

static void
add_keys(TxnSize *size, const Change *change, int mentions)
{
	size_t		bytes = mentions * strlen(change->key);

	size->bytes += bytes + mentions * KEY_BYTES;
	size->json += bytes * 4 / 3 + mentions * KEY_JSON;
}

/* One more partition is touched, unless it was before. */
static void
add_partition(TxnSize *size, const Change *change)
{
	if (size->touched[change->partition])
		return;
	size->touched[change->partition] = true;
	size->leaves++;
	add_keys(size, change, 2);
}

static void
add_size_of(TxnSize *size, const Change *change)
{
	size_t		len = change->len + (change->value != NULL ? SYNC_SIGNATURE_MAX : 0);

	size->leaves++;
	size->bytes += len;
	size->json += len * 4 / 3;
	add_keys(size, change, CHANGE_KEYS);
	add_partition(size, change);
	if (change->moved != NULL)
	{
		add_keys(size, change->moved, MOVED_KEYS);
		add_partition(size, change->moved);
	}
}

/* As many of the changes as one transaction takes, the oldest first; but one in any case. */
static List *
cut_to_bounds(List *changes)
{
	TxnSize		size = {0};
	int			n = 0;
	ListCell   *lc;

	foreach(lc, changes)
	{
		add_size_of(&size, lfirst(lc));
		if (n > 0 && (size.leaves > MAX_LEAVES || n >= publish.max_changes || size.bytes > publish.max_bytes ||
					  size.json > MAX_JSON))
			break;
		n++;
	}
	if (n == list_length(changes))
		return changes;
	/* what is not sent was read in vain */
	publish.max_rows = Min(publish.max_rows, n + n / 4 + MIN_ROWS);
	publish.wanted = true;
	return list_truncate(changes, n);
}

static void
collect(void *arg)
{
	Collected  *collected = arg;
	MemoryContext old = MemoryContextSwitchTo(publish.context);
	List	   *changes = NIL;
	bool		left;
	ListCell   *lc;

	collected->max_rows = publish.max_rows;
	collected->rows = job_lock_changed(PG_INT64_MIN, publish.max_rows, true, &left);
	collected->outbox = outbox_lock(OUTBOX_PUBLISHED, publish.max_rows);
	if (collected->rows != NIL)
		sync_refuse_if_held();
	foreach(lc, collected->rows)
		changes = add_change(changes, definition_change(lfirst(lc)));
	foreach(lc, collected->outbox)
		changes = add_change(changes, outbox_change(lfirst(lc)));
	collected->changes = cut_to_bounds(link_moves(merge_changes(changes)));
	MemoryContextSwitchTo(old);
	count_unpublished(&collected->unpublished, &collected->changed);
}

/* ---- sending ------------------------------------------------------------------------------------- */

/* The value is signed only now, as only now it is certain what it comes after. */
static void
put_signed(EtcdTxn *txn, const Change *change, int64 after)
{
	size_t		len;
	char	   *value = sync_sign(change->key, change->value, after, &len);

	etcd_txn_put(txn, change->key, value, len, 0);
	pfree(value);
}

static EtcdTxn *
definition_txn(const Change *change)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		jobrev[KEYS_MAX_LEN];

	keys_jobrev(jobrev, dsched_cluster_name, scheduler.dbname, change->partition);
	etcd_txn_if_mod(txn, change->key, change->base);
	if (change->base == 0)
	{
		(void) sent_definition(change->row->change_id);
		etcd_txn_if_mod(txn, jobrev, may_be_new(change->row->change_id) ? sync_jobrev(change->partition) : NO_REVISION);
	}
	if (change->moved != NULL)
	{
		/* its event comes first, so that nobody sees the job twice */
		etcd_txn_if_mod(txn, change->moved->key, change->moved->base);
		if (change->moved->base != 0 && change->moved->kind == CHANGE_DELETION)
			etcd_txn_delete(txn, change->moved->key);
	}
	put_signed(txn, change, change->base != 0 ? change->base : sync_jobrev(change->partition));
	etcd_txn_else_get(txn, change->key, NULL);
	etcd_txn_else_get(txn, jobrev, NULL);
	if (change->moved != NULL)
		etcd_txn_else_get(txn, change->moved->key, NULL);
	return txn;
}

static EtcdTxn *
deletion_txn(const Change *change)
{
	EtcdTxn    *txn = etcd_txn_begin();

	etcd_txn_if_mod(txn, change->key, change->base);
	if (change->base != 0)
		etcd_txn_delete(txn, change->key);
	else
		etcd_txn_get(txn, change->key, NULL);
	etcd_txn_else_get(txn, change->key, NULL);
	return txn;
}

static EtcdTxn *
trigger_txn(const Change *change)
{
	EtcdTxn    *txn = etcd_txn_begin();

	etcd_txn_if_create(txn, change->key, 0);
	put_signed(txn, change, 0);
	etcd_txn_else_get(txn, change->key, NULL);
	return txn;
}

static EtcdTxn *
change_txn(const Change *change)
{
	switch (change->kind)
	{
		case CHANGE_DEFINITION:
			return definition_txn(change);
		case CHANGE_DELETION:
			return deletion_txn(change);
		case CHANGE_TRIGGER:
			return trigger_txn(change);
	}
	return NULL;
}

/* A transaction that collects up to GROUP_SIZE others, and is nested in the outermost one. */
typedef struct Grouping
{
	EtcdTxn    *txn;
	EtcdTxn    *group;
	int			n;				/* operations in group */
} Grouping;

static void
end_group(Grouping *grouping)
{
	if (grouping->group != NULL)
		etcd_txn_nest(grouping->txn, grouping->group);
	grouping->group = NULL;
	grouping->n = 0;
}

/* The group that takes the next operation. */
static EtcdTxn *
next_place(Grouping *grouping)
{
	if (grouping->n == GROUP_SIZE)
		end_group(grouping);
	if (grouping->group == NULL)
		grouping->group = etcd_txn_begin();
	grouping->n++;
	return grouping->group;
}

static void
touch_partition(Grouping *grouping, bool *touched, int partition, const char *value)
{
	char		key[KEYS_MAX_LEN];

	if (touched[partition])
		return;
	touched[partition] = true;
	keys_jobrev(key, dsched_cluster_name, scheduler.dbname, partition);
	etcd_txn_put(next_place(grouping), key, value, strlen(value), 0);
}

/* What stands in jobrev/<pp> is for people; what counts is its revision. */
static void
touch_partitions(Grouping *grouping)
{
	bool		touched[DSCHED_MAX_PARTITIONS] = {false};
	char		value[64];
	ListCell   *lc;

	snprintf(value, sizeof(value), "{\"format\":%d,\"change\":" INT64_FORMAT "}", CODEC_FORMAT, sync_random_id());
	foreach(lc, publish.changes)
	{
		Change	   *change = lfirst(lc);

		touch_partition(grouping, touched, change->partition, value);
		if (change->moved != NULL)
			touch_partition(grouping, touched, change->moved->partition, value);
	}
}

static void
note_trigger(const Change *change, bool seen)
{
	int64		trigger_id = ((OutboxRow *) linitial(change->outbox))->outbox_id;
	SentTrigger *sent;
	bool		found;

	sent = hash_search(publish.sent_triggers, &trigger_id, HASH_ENTER, &found);
	sent->seen = (found && sent->seen) || seen;
}

static void
send_changes(void)
{
	Grouping	grouping = {etcd_txn_begin()};
	EtcdKind	kind = ETCD_IDEMPOTENT; /* as all of it compares */
	char		config[KEYS_MAX_LEN];
	const char *value;
	size_t		len;
	ListCell   *lc;

	keys_config(config, dsched_cluster_name);
	value = sync_config_value(&len);
	etcd_txn_if_value(grouping.txn, config, value, len);
	etcd_txn_else_get(grouping.txn, config, NULL);
	foreach(lc, publish.changes)
	{
		Change	   *change = lfirst(lc);

		etcd_txn_nest(next_place(&grouping), change_txn(change));
		if (change->kind == CHANGE_TRIGGER)
		{
			/* whether it has arrived is to be looked at before it is sent a second time */
			note_trigger(change, false);
			kind = ETCD_WRITE;
		}
	}
	touch_partitions(&grouping);
	end_group(&grouping);

	publish.floor = sync_highest_revision();
	publish.request = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(grouping.txn), kind, REQUEST_TIMEOUT_MS,
								answered, NULL);
	if (publish.request == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
}

/* ---- the answer ---------------------------------------------------------------------------------- */

/* All of it is sent again, later. */
static void
round_failed(void)
{
	publish.answered = false;
	publish.changes = NIL;
	MemoryContextReset(publish.context);
	publish.wanted = true;
	sync_retry_later(&publish.retry, RETRY_BASE_US, RETRY_MAX_US);
}

/* etcd does not take a transaction like this: smaller ones, or, if it was one change, none at all. */
static void
too_much(const EtcdResponse *response)
{
	if (list_length(publish.changes) > 1)
	{
		publish.max_changes = Max(list_length(publish.changes) / 2, 1);
		publish.max_bytes = Max(publish.max_bytes / 2, 64 * 1024);
	}
	else if (response->grpc_code == ETCD_CODE_INVALID_ARGUMENT)
	{
		Change	   *change = linitial(publish.changes);

		if (change->kind == CHANGE_DEFINITION)
			refuse_row(change->row, response->message);
		else if (change->kind == CHANGE_TRIGGER)
			refuse(((OutboxRow *) linitial(change->outbox))->outbox_id);
	}
}

/* Notes what a change's key has instead of what was compared; range: the answer to reading it. */
static void
read_key(Change *change, const cJSON *range)
{
	EtcdKv		kv;

	change->answer = ANSWER_ABSENT;
	if (!etcd_kv_at(range, 0, &kv))
		return;
	change->answer = ANSWER_OTHER;
	change->old_value = MemoryContextAlloc(publish.context, kv.value_len + 1);
	memcpy(change->old_value, kv.value, kv.value_len + 1);
	change->old_len = kv.value_len;
	change->old_revision = kv.mod_revision;
	etcd_kv_free(&kv);
}

static void
read_other(Change *change, const cJSON *nested)
{
	EtcdKv		kv;

	read_key(change, etcd_txn_response(nested, 0));
	if (change->kind == CHANGE_DEFINITION && etcd_kv_at(etcd_txn_response(nested, 1), 0, &kv))
	{
		sync_note_jobrev(change->partition, kv.mod_revision);
		etcd_kv_free(&kv);
	}
	/* one that is a definition has an answer of its own */
	if (change->moved != NULL && change->moved->kind == CHANGE_DELETION)
		read_key(change->moved, etcd_txn_response(nested, 2));
}

static void
read_answers(const cJSON *body)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, publish.changes)
	{
		Change	   *change = lfirst(lc);
		const cJSON *nested = etcd_txn_response(etcd_txn_response(body, n / GROUP_SIZE), n % GROUP_SIZE);

		if (etcd_txn_succeeded(nested))
		{
			change->answer = ANSWER_DONE;
			if (change->kind == CHANGE_DEFINITION && change->base == 0)
				sync_definition_stood(change->row->change_id);
		}
		else
			read_other(change, nested);
		if (change->kind == CHANGE_TRIGGER)
			note_trigger(change, true);
		n++;
	}
	/* this transaction's own puts */
	foreach(lc, publish.changes)
	{
		Change	   *change = lfirst(lc);

		sync_note_jobrev(change->partition, publish.outcome.revision);
		if (change->moved != NULL)
			sync_note_jobrev(change->moved->partition, publish.outcome.revision);
	}
}

static void
answered(void *arg, const EtcdResponse *response)
{
	scheduler_refresh_time();
	publish.request = NULL;
	if (!response->ok)
	{
		if (!publish.complained)
			ereport(LOG,
					(errmsg("dsched: could not publish changes of database \"%s\" to etcd: %s", scheduler.dbname,
							response->message)));
		publish.complained = true;
		/* a missing user is an invalid argument, too, and no fault of what was sent */
		if (response->fault != ETCD_FAULT_AUTH &&
			(response->grpc_code == ETCD_CODE_INVALID_ARGUMENT ||
			 (response->grpc_code == ETCD_CODE_EXHAUSTED && strstr(response->message, "larger than") != NULL)))
			too_much(response);
		round_failed();
		return;
	}
	if (!sync_check_revision(response->revision, publish.floor))
	{
		round_failed();
		return;
	}
	if (!etcd_txn_succeeded(response->body))
	{
		sync_follow_again();
		round_failed();
		return;
	}
	if (publish.complained)
		ereport(LOG, (errmsg("dsched: changes of database \"%s\" are published again", scheduler.dbname)));
	publish.complained = false;
	sync_retry_reset(&publish.retry);
	publish.outcome.revision = response->revision;
	read_answers(response->body);
	publish.answered = true;
	publish.settled = 0;
}

/* ---- settling ------------------------------------------------------------------------------------ */

/* The outcome of a slice of changes, in a transaction. */
static void
settle_slice(void *arg)
{
	int			end = *(int *) arg;
	MemoryContext old = MemoryContextSwitchTo(publish.context);
	int			changed;

	for (int i = publish.settled; i < end; i++)
		sync_settle(list_nth(publish.changes, i), &publish.outcome);
	MemoryContextSwitchTo(old);
	if (end == list_length(publish.changes))
		count_unpublished(&scheduler.slot->unpublished, &changed);
}

static void
settle(void)
{
	int			end = Min(publish.settled + SETTLE_BATCH, list_length(publish.changes));

	if (!scheduler_transaction(settle_slice, &end, "noting what was published"))
	{
		/* the answer is known, and stays: whatever is in the way (a full disk) may be gone later */
		sync_retry_later(&publish.retry, RETRY_BASE_US, RETRY_MAX_US);
		sync_apply_published();
		return;
	}
	sync_retry_reset(&publish.retry);
	publish.settled = end;
	sync_apply_published();
	if (publish.settled < list_length(publish.changes))
		scheduler_wake_at(scheduler.boot);
	else
		end_round();
}

static void
end_round(void)
{
	publish.answered = false;
	publish.changes = NIL;
	MemoryContextReset(publish.context);
	publish.wanted |= publish.outcome.again || publish.outcome.locked;

	if (publish.outcome.again)
		sync_retry_later(&publish.conflicts, CONFLICT_BASE_US, CONFLICT_MAX_US);
	else
		sync_retry_reset(&publish.conflicts);
	if (publish.outcome.locked)
		sync_retry_later(&publish.locks, LOCKED_BASE_US, LOCKED_MAX_US);
	else
		sync_retry_reset(&publish.locks);
	/* what was cut off, or came meanwhile */
	if (publish.wanted && !publish.outcome.locked && !publish.outcome.again)
		scheduler_wake_at(scheduler.boot);
}
