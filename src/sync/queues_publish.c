/*
 * queues_publish.c
 *	  Throttle queues from dsched.queue to etcd.
 *
 * A round sends the changed rows in one etcd transaction, and settles what came of it in one of the database:
 *
 *	  if config has the value that we know					(else nothing at all: it is another etcd)
 *		  for each put:		if its key has the mod_revision that it is based on, put it, else read it
 *							(based on none: and if queuerev has the mod_revision that is known)
 *		  for each drop:	if its key has that mod_revision, delete it, else read it
 *		  if there is a drop:	put queuerev
 *
 * Whoever finds another version there takes it for the base and sends his own again: the last writer wins,
 * also if the other had dropped the queue.  But an offer (a queue that was here when the database joined,
 * or that was restored) counts only where there is none of the name, and else takes etcd's limits.
 *
 * If the answer is lost the rows are sent again.  A version of ours that stands there is recognised by its
 * change id.  A first put that is lost on the way while its queue is dropped again must not arrive later
 * and bring it back: hence queuerev, which each drop puts.
 *
 * Rows that somebody has locked are left, and tried again later.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define REQUEST_TIMEOUT_MS 5000
#define RETRY_BASE_US INT64CONST(200000)
#define RETRY_MAX_US INT64CONST(2000000)
#define CONFLICT_BASE_US INT64CONST(2000)
#define CONFLICT_MAX_US INT64CONST(500000)
#define LOCKED_BASE_US INT64CONST(100000)
#define LOCKED_MAX_US INT64CONST(5000000)

/* Rows in a round: well within the bounds of a transaction, whatever fields they have. */
#define ROUND_ROWS 32

/* Conflicts in a row for which definitions wait. */
#define MAX_PATIENCE 5

/* A row that was sent, and what became of it. */
typedef struct SentQueue
{
	QueueRow   *row;
	char	   *key;
	char	   *value;
	size_t		len;
	ChangeAnswer answer;
	int64		revision;		/* of what was made, or of what is there */
	bool		readable;		/* what is there can be read: */
	QueueDef	other;
	char		problem[128];	/* else why it cannot */
} SentQueue;

static struct
{
	bool		wanted;			/* there may be something to publish */
	MemoryContext context;		/* of the round; reset at its end */
	List	   *sent;			/* of SentQueue * */
	EtcdRequest *request;
	int64		floor;			/* see sync_check_revision() */
	bool		answered;		/* to be settled */
	bool		again;			/* something has to be sent again */
	bool		locked;			/* something could not be read or settled because of a lock */
	bool		complained;
	Retry		retry;			/* etcd does not answer */
	Retry		conflicts;
	Retry		locks;
} publish;

static void answered(void *arg, const EtcdResponse *response);

/* ---- reading what there is to publish ----------------------------------------------------------- */

/* The value, palloc'd; NULL: it cannot be published, and why. */
static char *
encode_row(const QueueRow *row, size_t *len, char *problem, size_t size)
{
	QueueDef	def;
	char	   *name = sync_to_utf8(row->name);
	char	   *node = sync_to_utf8(dsched_my_node());
	char	   *value;
	char	   *copy;

	memset(&def, 0, sizeof(def));
	def.extra = row->extra != NULL ? sync_to_utf8(row->extra) : NULL;
	if (name == NULL || node == NULL || strlen(name) > POLICY_MAX_QUEUE || (row->extra != NULL && def.extra == NULL))
	{
		strlcpy(problem, "it has text that cannot be converted to UTF-8, or is too long there", size);
		return NULL;
	}
	strlcpy(def.name, name, sizeof(def.name));
	strlcpy(def.node, node, sizeof(def.node));
	def.max_running = row->max_running;
	def.rate_limit = row->rate_limit;
	def.per = row->per;
	def.cluster = row->cluster;
	def.change_id = row->change_id;
	if (!codec_queue_check(&def, problem, size))
		return NULL;
	value = codec_queue_encode(&def, len);
	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	copy = pnstrdup(value, *len);
	free(value);
	return copy;
}

/* The key of a queue, palloc'd, or NULL. */
static char *
key_of(const char *name)
{
	char	   *converted = sync_to_utf8(name);
	char		key[KEYS_MAX_LEN];

	if (converted == NULL || !keys_queue(key, dsched_cluster_name, scheduler.dbname, converted))
		return NULL;
	return pstrdup(key);
}

/* The row cannot be published as it is; people see that until they change it. */
static void
refuse(QueueRow *row, const char *problem)
{
	ereport(WARNING,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("dsched: queue \"%s\" of database \"%s\" cannot be published: %s", row->name, scheduler.dbname, problem)));
	row->problem = psprintf("the last change is not published: %s", problem);
	queue_write(row);
}

static SentQueue *
prepare(QueueRow *row)
{
	SentQueue  *sent = palloc0(sizeof(SentQueue));
	char		problem[200] = "its name cannot be a key in etcd";

	sent->row = row;
	sent->key = key_of(row->name);
	if (sent->key != NULL && row->changed != QUEUE_DROP)
		sent->value = encode_row(row, &sent->len, problem, sizeof(problem));
	if (sent->key != NULL && (sent->value != NULL || row->changed == QUEUE_DROP))
		return sent;
	refuse(row, problem);
	return NULL;
}

static void
collect(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(publish.context);
	List	   *rows = queue_lock_changed(ROUND_ROWS);
	List	   *sent = NIL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		SentQueue  *one = prepare(lfirst(lc));

		if (one != NULL)
			sent = lappend(sent, one);
	}
	MemoryContextSwitchTo(old);
	/*
	 * somebody has the others, and need not wake us when he lets them go; or there are more than go into a
	 * round
	 */
	if (list_length(rows) < ROUND_ROWS)
		publish.locked = queue_count_changed() > list_length(sent);
	else
		publish.wanted = true;
	publish.sent = sent;
}

/* ---- sending ------------------------------------------------------------------------------------ */

static EtcdTxn *
queue_txn(const SentQueue *sent, const char *rev_key)
{
	EtcdTxn    *txn = etcd_txn_begin();

	etcd_txn_if_mod(txn, sent->key, sent->row->mod_revision);
	if (sent->value != NULL)
	{
		if (sent->row->mod_revision == 0)
			etcd_txn_if_mod(txn, rev_key, sync_queuerev());
		etcd_txn_put(txn, sent->key, sent->value, sent->len, 0);
	}
	else if (sent->row->mod_revision != 0)
		etcd_txn_delete(txn, sent->key);
	else
		etcd_txn_get(txn, sent->key, NULL);
	etcd_txn_else_get(txn, sent->key, NULL);
	etcd_txn_else_get(txn, rev_key, NULL);
	return txn;
}

static void
send_round(void)
{
	EtcdTxn    *txn = etcd_txn_begin();
	char		config[KEYS_MAX_LEN];
	char		rev_key[KEYS_MAX_LEN];
	char		rev_value[64];
	const char *value;
	size_t		len;
	bool		drops = false;
	ListCell   *lc;

	keys_config(config, dsched_cluster_name);
	keys_queuerev(rev_key, dsched_cluster_name, scheduler.dbname);
	value = sync_config_value(&len);
	etcd_txn_if_value(txn, config, value, len);
	etcd_txn_else_get(txn, config, NULL);
	foreach(lc, publish.sent)
	{
		const SentQueue *sent = lfirst(lc);

		etcd_txn_nest(txn, queue_txn(sent, rev_key));
		drops |= sent->value == NULL;
	}
	/* what stands in it is for people; what counts is its revision */
	snprintf(rev_value, sizeof(rev_value), "{\"format\":%d,\"change\":" INT64_FORMAT "}", CODEC_FORMAT, sync_random_id());
	if (drops)
		etcd_txn_put(txn, rev_key, rev_value, strlen(rev_value), 0);

	publish.floor = sync_highest_revision();
	publish.request = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REQUEST_TIMEOUT_MS,
								answered, NULL);
	if (publish.request == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
}

/* ---- the answer --------------------------------------------------------------------------------- */

static void
forget_round(void)
{
	ListCell   *lc;

	/* these are malloc'd */
	foreach(lc, publish.sent)
		if (((SentQueue *) lfirst(lc))->readable)
			codec_queue_free(&((SentQueue *) lfirst(lc))->other);
	publish.answered = false;
	publish.sent = NIL;
	MemoryContextReset(publish.context);
}

/* All of it is sent again, later. */
static void
round_failed(void)
{
	forget_round();
	publish.wanted = true;
	sync_retry_later(&publish.retry, RETRY_BASE_US, RETRY_MAX_US);
}

/* Notes what the key has instead of what was compared. */
static void
read_other(SentQueue *sent, const cJSON *nested)
{
	EtcdKv		kv;

	if (etcd_kv_at(etcd_txn_response(nested, 1), 0, &kv))
	{
		sync_note_queuerev(kv.mod_revision);
		etcd_kv_free(&kv);
	}
	sent->answer = ANSWER_ABSENT;
	if (!etcd_kv_at(etcd_txn_response(nested, 0), 0, &kv))
		return;
	sent->answer = ANSWER_OTHER;
	sent->revision = kv.mod_revision;
	sent->readable = sync_decode_queue(sent->row->name, kv.value, kv.value_len, &sent->other, sent->problem, sizeof(sent->problem));
	etcd_kv_free(&kv);
}

static void
read_answers(const EtcdResponse *response)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, publish.sent)
	{
		SentQueue  *sent = lfirst(lc);
		const cJSON *nested = etcd_txn_response(response->body, n++);

		if (etcd_txn_succeeded(nested))
		{
			sent->answer = ANSWER_DONE;
			sent->revision = response->revision;
		}
		else
			read_other(sent, nested);
		if (sent->value == NULL)
			sync_note_queuerev(response->revision);
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
					(errmsg("dsched: could not publish queues of database \"%s\" to etcd: %s", scheduler.dbname,
							response->message)));
		publish.complained = true;
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
	publish.complained = false;
	sync_retry_reset(&publish.retry);
	read_answers(response);
	publish.answered = true;
}

/* ---- settling ----------------------------------------------------------------------------------- */

/* Our version is in etcd.  A change that was made since is based on it. */
static void
confirm(QueueRow *row, const SentQueue *sent)
{
	row->mod_revision = sent->revision;
	if (row->change_id == sent->row->change_id)
		row->changed = QUEUE_KEPT;
	queue_write(row);
}

/* What was offered is in etcd already, with limits of its own. */
static void
give_way(QueueRow *row, const SentQueue *sent)
{
	const QueueDef *other = &sent->other;
	const char *extra;

	row->mod_revision = sent->revision;
	row->changed = QUEUE_KEPT;
	if (sent->readable)
	{
		extra = other->extra != NULL ? sync_from_utf8(other->extra) : NULL;
		row->max_running = other->max_running;
		row->rate_limit = other->rate_limit;
		row->per = other->per;
		row->cluster = other->cluster;
		row->change_id = other->change_id;
		row->extra = unconstify(char *, extra);
	}
	else
		row->problem = psprintf("its limits in etcd cannot be read: %s", sent->problem);
	row->changed_at = scheduler.now;
	queue_write(row);
}

/* To be sent again, based on what is there. */
static void
rebase(QueueRow *row, const SentQueue *sent)
{
	row->mod_revision = sent->answer == ANSWER_OTHER ? sent->revision : 0;
	/* the fields that only newer versions know are theirs to change */
	if (sent->answer == ANSWER_OTHER && sent->readable && row->changed != QUEUE_DROP)
		row->extra = sent->other.extra != NULL ? sync_from_utf8(sent->other.extra) : NULL;
	queue_write(row);
	publish.again = true;
}

static void
settle_put(QueueRow *row, const SentQueue *sent)
{
	if (sent->answer == ANSWER_DONE ||
		(sent->answer == ANSWER_OTHER && sent->readable && sent->other.change_id == sent->row->change_id))
		confirm(row, sent);
	else if (sent->answer == ANSWER_OTHER && row->changed == QUEUE_OFFER && row->change_id == sent->row->change_id)
		give_way(row, sent);
	else
		rebase(row, sent);
}

static void
settle_drop(QueueRow *row, const SentQueue *sent)
{
	if (sent->answer == ANSWER_OTHER)
		rebase(row, sent);
	else if (row->change_id == sent->row->change_id)
		queue_delete(row->name);
	else
	{
		/* created again meanwhile */
		row->mod_revision = 0;
		queue_write(row);
		publish.again = true;
	}
}

static void
settle_one(const SentQueue *sent)
{
	bool		drop = sent->value == NULL;
	QueueRow	row;
	int			locked = queue_try_lock(sent->row->name, drop, &row);

	if (locked < 0)
		publish.locked = true;
	if (locked <= 0 || row.changed == QUEUE_KEPT)
		return;
	if (drop)
		settle_drop(&row, sent);
	else
		settle_put(&row, sent);
}

static void
settle_rows(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(publish.context);
	ListCell   *lc;

	foreach(lc, publish.sent)
		settle_one(lfirst(lc));
	MemoryContextSwitchTo(old);
}

static void
end_round(void)
{
	forget_round();
	sync_queues_published();
	publish.wanted |= publish.again || publish.locked;
	if (publish.again)
		sync_retry_later(&publish.conflicts, CONFLICT_BASE_US, CONFLICT_MAX_US);
	else
		sync_retry_reset(&publish.conflicts);
	if (publish.locked)
		sync_retry_later(&publish.locks, LOCKED_BASE_US, LOCKED_MAX_US);
	else
		sync_retry_reset(&publish.locks);
	/* what did not go into this round, or came meanwhile */
	if (publish.wanted && !publish.again && !publish.locked)
		scheduler_wake_at(scheduler.boot);
}

static void
settle(void)
{
	if (!scheduler_transaction(settle_rows, NULL, "noting which queues were published"))
	{
		round_failed();
		return;
	}
	/* they count with the changes that wait for etcd */
	sync_publish_changes();
	end_round();
}

static void
begin_round(void)
{
	publish.wanted = publish.again = publish.locked = false;
	if (!scheduler_transaction(collect, NULL, "reading changed queues"))
		round_failed();
	else if (publish.sent != NIL)
		send_round();
	else
		end_round();
}

/* ---- each turn ---------------------------------------------------------------------------------- */

void
sync_queues_publish_init(void)
{
	publish.context = AllocSetContextCreate(scheduler.context, "dsched publishing queues", ALLOCSET_DEFAULT_SIZES);
}

void
sync_queues_publish(void)
{
	publish.wanted = true;
	sync_retry_reset(&publish.locks);
	scheduler_wake_at(scheduler.boot);
}

void
sync_queues_publish_turn(void)
{
	bool		due;

	if (publish.answered)
		settle();
	if (!publish.wanted || publish.request != NULL || !sync_following())
		return;
	/* each of them asks for a turn when its time comes */
	due = sync_retry_due(&publish.retry);
	due &= sync_retry_due(&publish.conflicts);
	due &= sync_retry_due(&publish.locks);
	if (due)
		begin_round();
}

bool
sync_queues_first(void)
{
	if (publish.retry.failures > 0 || publish.locks.failures > 0 || publish.conflicts.failures > MAX_PATIENCE)
		return false;
	return publish.wanted || publish.request != NULL || publish.answered;
}

bool
sync_queues_publish_idle(void)
{
	return !publish.wanted && publish.sent == NIL;
}
