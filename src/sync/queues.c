/*
 * queues.c
 *	  Throttle queues in the scheduler: what it asks, what etcd says, dsched.queue.
 *
 * WHAT THE SCHEDULER ASKS
 *
 * A registry in memory, by name.  Standalone it holds what the table says, read anew after each commit that
 * may have changed it.  In a cluster it holds what etcd says, like the timetable: a change made here counts
 * when it has come back through the watch.  Queues are few, so each connection begins with reading all of
 * them (follow.c), and nothing is missed.
 *
 * THE TABLE
 *
 * It follows the registry row by row, without waiting for a lock.  A row with something unpublished is left
 * alone until queues_publish.c has settled that.
 *
 * A value in etcd that cannot be read leaves the limits as they were, and says so in the row.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define LOCKED_BASE_US INT64CONST(100000)
#define LOCKED_MAX_US INT64CONST(5000000)

/* A queue as etcd (standalone: the table) has it. */
typedef struct QueueEntry
{
	char		name[POLICY_MAX_QUEUE + 1]; /* hash key */
	QueueLimits limits;
	bool		known;			/* limits mean something */
	bool		present;		/* false: only until the table has heard of its end */
	bool		listed;			/* mark of a listing */
	int64		revision;		/* of this version, or of the end */
	int64		change_id;
	char	   *extra;			/* palloc'd, or NULL */
	char		problem[128];	/* the version of that revision cannot be read; the limits are older */
	struct QueueWork *work;		/* the table has to be brought after it */
} QueueEntry;

typedef struct QueueWork
{
	WorkItem	item;
	QueueEntry *entry;
} QueueWork;

static WorkOutcome apply_queue(WorkItem *item);
static void queue_applied(WorkItem *item);

static WorkList work = {"applying queues", apply_queue, queue_applied};
static HTAB *entries = NULL;
static uint64 version = 1;
static int64 queuerev = 0;		/* mod_revision of the key, as last heard of */

/* standalone */
static bool take_in_wanted = false;
static Retry take_in_retry;

/* ---- the registry ------------------------------------------------------------------------------- */

const QueueLimits *
sync_queue(const char *name)
{
	QueueEntry *entry = NULL;
	char		key[POLICY_MAX_QUEUE + 1] = {0};

	if (entries != NULL && strlen(name) < sizeof(key))
	{
		strcpy(key, name);
		entry = hash_search(entries, key, HASH_FIND, NULL);
	}
	return entry != NULL && entry->known ? &entry->limits : NULL;
}

uint64
sync_queues_version(void)
{
	return version;
}

void
sync_queues_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = POLICY_MAX_QUEUE + 1;
	ctl.entrysize = sizeof(QueueEntry);
	ctl.hcxt = scheduler.context;
	entries = hash_create("dsched queues", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sync_work_init(&work);
	sync_queues_publish_init();
}

/* Its entry, made if there is none. */
static QueueEntry *
enter(const char *name)
{
	char		key[POLICY_MAX_QUEUE + 1] = {0};
	QueueEntry *entry;
	bool		found;

	strlcpy(key, name, sizeof(key));
	entry = hash_search(entries, key, HASH_ENTER, &found);
	if (!found)
	{
		memset(entry, 0, sizeof(*entry));
		memcpy(entry->name, key, sizeof(key));
	}
	return entry;
}

static QueueLimits
limits_of(const char *name, int32 max_running, int32 rate_limit, int64 per, bool cluster)
{
	QueueLimits limits;

	memset(&limits, 0, sizeof(limits));
	strlcpy(limits.name, name, sizeof(limits.name));
	limits.max_running = max_running;
	limits.rate_limit = rate_limit;
	limits.per = per;
	limits.cluster = cluster;
	return limits;
}

/* Both are zeroed between their members. */
static void
set_limits(QueueEntry *entry, QueueLimits limits)
{
	entry->present = true;
	if (entry->known && memcmp(&entry->limits, &limits, sizeof(limits)) == 0)
		return;
	entry->limits = limits;
	entry->known = true;
	version++;
	ereport(DEBUG1,
			(errmsg_internal("dsched: queue \"%s\" of database \"%s\" now has max_running %d, rate_limit %d per " INT64_FORMAT
							 " us, scope %s", limits.name, scheduler.dbname, limits.max_running, limits.rate_limit,
							 limits.per, limits.cluster ? "cluster" : "instance")));
}

static void
forget_limits(QueueEntry *entry)
{
	entry->present = false;
	if (!entry->known)
		return;
	entry->known = false;
	version++;
	ereport(DEBUG1,
			(errmsg_internal("dsched: queue \"%s\" of database \"%s\" is gone", entry->name, scheduler.dbname)));
}

static void
take_row(const QueueRow *row)
{
	QueueEntry *entry = enter(row->name);

	set_limits(entry, limits_of(row->name, row->max_running, row->rate_limit, row->per, row->cluster));
	entry->listed = true;
	entry->revision = row->mod_revision;
	entry->change_id = row->change_id;
}

/* Clustered, only what is certain to have been in etcd counts before etcd was asked. */
void
sync_queues_load(List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		const QueueRow *row = lfirst(lc);

		if (scheduler.etcd == NULL ? row->changed != QUEUE_DROP :
			row->changed == QUEUE_KEPT && row->mod_revision != 0 && scheduler.identity.incarnation[0] != '\0')
			take_row(row);
	}
}

/* ---- what etcd says ----------------------------------------------------------------------------- */

/* The table has to hear of the entry. */
static void
queue_work(QueueEntry *entry)
{
	if (entry->work != NULL)
		sync_work_remove(&entry->work->item);
	else
	{
		entry->work = MemoryContextAllocZero(scheduler.context, sizeof(QueueWork));
		entry->work->entry = entry;
	}
	sync_work_add(&work, &entry->work->item);
}

int64
sync_queuerev(void)
{
	return queuerev;
}

void
sync_note_queuerev(int64 revision)
{
	queuerev = Max(queuerev, revision);
}

/* Its name as this database has it; NULL: not a queue that can be one here. */
static char *
name_of_key(const EtcdKv *kv)
{
	KeyParts	parts;
	char	   *name = NULL;

	if (strlen(kv->key) != kv->key_len || !keys_parse(dsched_cluster_name, kv->key, &parts))
		return NULL;
	if (parts.kind == KEY_QUEUEREV)
		sync_note_queuerev(kv->mod_revision);
	else if (parts.kind == KEY_QUEUE && strlen(parts.name) <= POLICY_MAX_QUEUE)
	{
		name = sync_from_utf8(parts.name);
		/* parts goes out of scope */
		name = name != NULL && strlen(name) <= POLICY_MAX_QUEUE ? pstrdup(name) : NULL;
	}
	if (name == NULL && parts.kind == KEY_QUEUE)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dsched: a queue in etcd is ignored: database \"%s\" cannot have one of its name", scheduler.dbname)));
	return name;
}

bool
sync_decode_queue(const char *name, const char *value, size_t len, QueueDef *def, char *problem, size_t size)
{
	char	   *named;

	if (!codec_queue_decode(value, len, def, problem, size))
		return false;
	named = sync_from_utf8(def->name);
	if (named != NULL && strcmp(named, name) == 0)
		return true;
	codec_queue_free(def);
	strlcpy(problem, "it has another name than its key", size);
	return false;
}

static void
set_extra(QueueEntry *entry, const char *extra)
{
	const char *converted = extra != NULL ? sync_from_utf8(extra) : NULL;

	if (entry->extra != NULL)
		pfree(entry->extra);
	entry->extra = converted != NULL ? MemoryContextStrdup(scheduler.context, converted) : NULL;
}

/* A version that cannot be read: the limits stay as they were. */
static void
take_unreadable(QueueEntry *entry, const char *problem)
{
	snprintf(entry->problem, sizeof(entry->problem), "its limits in etcd cannot be read: %s", problem);
	entry->present = true;
	if (!sync_may_complain())
		return;
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("dsched: queue \"%s\" of database \"%s\" cannot be read from etcd: %s", entry->name, scheduler.dbname,
					problem),
			 entry->known ? errdetail("It keeps the limits that it had.") : errdetail("It limits nothing.")));
}

static void
take_version(QueueEntry *entry, const EtcdKv *kv)
{
	QueueDef	def;
	char		problem[80];

	entry->revision = kv->mod_revision;
	if (!sync_decode_queue(entry->name, kv->value, kv->value_len, &def, problem, sizeof(problem)))
	{
		take_unreadable(entry, problem);
		return;
	}
	entry->problem[0] = '\0';
	entry->change_id = def.change_id;
	set_extra(entry, def.extra);
	set_limits(entry, limits_of(entry->name, def.max_running, def.rate_limit, def.per, def.cluster));
	codec_queue_free(&def);
}

void
sync_queue_put(const EtcdKv *kv)
{
	char	   *name = name_of_key(kv);
	QueueEntry *entry;

	if (name == NULL)
		return;
	entry = enter(name);
	entry->listed = true;
	if (kv->mod_revision > entry->revision)
	{
		take_version(entry, kv);
		queue_work(entry);
	}
	pfree(name);
}

static void
take_end(QueueEntry *entry, int64 revision)
{
	forget_limits(entry);
	entry->revision = revision;
	entry->problem[0] = '\0';
	queue_work(entry);
}

void
sync_queue_deleted(const EtcdKv *kv)
{
	char	   *name = name_of_key(kv);
	char		key[POLICY_MAX_QUEUE + 1] = {0};
	QueueEntry *entry;

	if (name == NULL)
		return;
	strlcpy(key, name, sizeof(key));
	pfree(name);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	if (entry != NULL && kv->mod_revision > entry->revision)
		take_end(entry, kv->mod_revision);
}

void
sync_queues_list_begins(void)
{
	HASH_SEQ_STATUS status;
	QueueEntry *entry;

	hash_seq_init(&status, entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->listed = false;
}

void
sync_queues_list_ends(int64 revision)
{
	HASH_SEQ_STATUS status;
	QueueEntry *entry;

	hash_seq_init(&status, entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!entry->listed && entry->present && entry->revision <= revision)
			take_end(entry, revision);
}

/* ---- the table ---------------------------------------------------------------------------------- */

static void
row_of_entry(const QueueEntry *entry, QueueRow *row)
{
	row->max_running = entry->limits.max_running;
	row->rate_limit = entry->limits.rate_limit;
	row->per = entry->limits.per;
	row->cluster = entry->limits.cluster;
	row->mod_revision = entry->revision;
	row->change_id = entry->change_id;
	row->changed = QUEUE_KEPT;
	row->extra = entry->extra;
	row->problem = NULL;
	row->changed_at = scheduler.now;
}

static WorkOutcome
apply_version(const QueueEntry *entry, QueueRow *row, bool found)
{
	if (found && row->mod_revision >= entry->revision)
		return WORK_DONE;
	if (entry->problem[0] != '\0')
	{
		/* what it had last stays, in the table too */
		if (!found)
			return WORK_DONE;
		row->problem = pstrdup(entry->problem);
	}
	else
	{
		row_of_entry(entry, row);
		if (!found)
			row->created_at = scheduler.now;
	}
	queue_write(row);
	return WORK_DONE;
}

static WorkOutcome
apply_queue(WorkItem *item)
{
	const QueueEntry *entry = ((QueueWork *) item)->entry;
	QueueRow	row = {{0}};
	int			locked = queue_try_lock(entry->name, !entry->present, &row);

	if (locked < 0)
		return WORK_LOCKED;
	if (locked > 0 && row.changed != QUEUE_KEPT && row.problem == NULL)
		return WORK_WAITS;
	strlcpy(row.name, entry->name, sizeof(row.name));
	if (entry->present)
		return apply_version(entry, &row, locked > 0);
	if (locked > 0 && row.mod_revision <= entry->revision)
		queue_delete(entry->name);
	return WORK_DONE;
}

static void
queue_applied(WorkItem *item)
{
	QueueEntry *entry = ((QueueWork *) item)->entry;

	pfree(entry->work);
	entry->work = NULL;
	if (entry->present)
		return;
	set_extra(entry, NULL);
	(void) hash_search(entries, entry->name, HASH_REMOVE, NULL);
}

/* ---- standalone: taking in ---------------------------------------------------------------------- */

typedef struct TakenQueues
{
	List	   *rows;			/* of QueueRow *, all there are */
	int			left;			/* changes that somebody has locked */
} TakenQueues;

static void
take_in_rows(void *arg)
{
	TakenQueues *taken = arg;
	MemoryContext old = MemoryContextSwitchTo(scheduler.turn);
	ListCell   *lc;

	foreach(lc, queue_lock_changed(INT_MAX))
	{
		QueueRow   *row = lfirst(lc);

		/* what was dropped in a cluster that this database was in */
		if (row->changed == QUEUE_DROP)
		{
			if (queue_try_lock(row->name, true, row) > 0)
				queue_delete(row->name);
			continue;
		}
		row->changed = QUEUE_KEPT;
		row->mod_revision = 0;
		queue_write(row);
	}
	taken->left = queue_count_changed();
	taken->rows = queue_read_all();
	MemoryContextSwitchTo(old);
}

/* What the table does not have any more. */
static void
remove_unlisted(void)
{
	HASH_SEQ_STATUS status;
	QueueEntry *entry;

	hash_seq_init(&status, entries);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->listed)
			continue;
		forget_limits(entry);
		/* the one that the scan is at may be removed */
		(void) hash_search(entries, entry->name, HASH_REMOVE, NULL);
	}
}

static void
take_in(void)
{
	TakenQueues taken = {0};

	if (!scheduler_transaction(take_in_rows, &taken, "taking in queues"))
	{
		sync_retry_later(&take_in_retry, LOCKED_BASE_US, LOCKED_MAX_US);
		return;
	}
	sync_queues_list_begins();
	sync_queues_load(taken.rows);
	remove_unlisted();
	take_in_wanted = taken.left > 0;
	if (take_in_wanted)
		sync_retry_later(&take_in_retry, LOCKED_BASE_US, LOCKED_MAX_US);
	else
		sync_retry_reset(&take_in_retry);
}

/* ---- each turn ---------------------------------------------------------------------------------- */

void
sync_queues_changed(void)
{
	if (scheduler.etcd != NULL)
		sync_queues_publish();
	else
	{
		take_in_wanted = true;
		sync_retry_reset(&take_in_retry);
		scheduler_wake_at(scheduler.boot);
	}
}

void
sync_queues_turn(void)
{
	if (scheduler.etcd != NULL)
	{
		sync_queues_publish_turn();
		sync_work_turn(&work);
	}
	else if (take_in_wanted && sync_retry_due(&take_in_retry))
		take_in();
}

void
sync_queues_published(void)
{
	sync_work_release(&work);
}

bool
sync_queues_idle(void)
{
	return !take_in_wanted && sync_queues_publish_idle() && sync_work_empty(&work);
}
