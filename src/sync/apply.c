/*
 * apply.c
 *	  From etcd to dsched.job: row by row what the timetable already has.
 *
 * The timetable follows etcd without waiting for anybody; the table, in which people look and executors find
 * the command, follows behind it.  A row that somebody has locked is tried again later, and holds up nobody
 * else.  Until a version is in the table its job is not started (Job.applied), while its slots stay open.
 *
 * A row with changes that are not published is not overwritten: the publisher bases them on what is in etcd now
 * and publishes them, and what comes of that arrives here as the next version.
 *
 * Only the newest version of a name is queued.  A queued change keeps the value as it stands in etcd, not a
 * row: that is smaller, and is decoded again when its turn comes.
 *
 * Rows are found by their name, which is what the key in etcd says, and only then by their id: a job that was
 * unscheduled and scheduled again has another id under the same name; one that changed its role has another
 * name under the same id.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "sync/sync_internal.h"

/* A name of a job. Zeroed, as it is a hash key as a whole. */
typedef struct ChangeKey
{
	char		username[NAMEDATALEN];
	char		job_name[DSCHED_MAX_JOB_NAME + 1];
} ChangeKey;

typedef struct TableChange
{
	WorkItem	item;
	ChangeKey	key;
	bool		is_delete;
	bool		compared;		/* found by a full compare */
	bool		rewrite;		/* what the table has of this version was not verified */
	int64		revision;		/* mod_revision of the version, or of the deletion */
	int64		job_id;			/* of the version */
	char	   *value;			/* of the version; palloc'd */
	size_t		len;
} TableChange;

typedef struct ChangeEntry
{
	ChangeKey	key;			/* hash key */
	TableChange *change;
} ChangeEntry;

static WorkOutcome apply_change(WorkItem *item);
static void change_applied(WorkItem *item);

static WorkList changes = {"applying definitions", apply_change, change_applied};
static HTAB *by_name = NULL;
static MemoryContext change_context = NULL; /* the changes and their values */
static MemoryContext row_context = NULL;	/* reset for each row */
static int64 applied = 0;		/* what sync_applied_revision() said last */

void
sync_apply_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(ChangeKey);
	ctl.entrysize = sizeof(ChangeEntry);
	ctl.hcxt = scheduler.context;
	by_name = hash_create("dsched changes to apply", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	change_context = AllocSetContextCreate(scheduler.context, "dsched changes to apply", ALLOCSET_DEFAULT_SIZES);
	row_context = AllocSetContextCreate(scheduler.context, "dsched row to apply", ALLOCSET_DEFAULT_SIZES);
	sync_work_init(&changes);
	applied = scheduler.identity.applied_revision;
}

/* ---- the queue ---------------------------------------------------------------------------------- */

static void
make_key(const char *username, const char *job_name, ChangeKey *key)
{
	memset(key, 0, sizeof(*key));
	strlcpy(key->username, username, sizeof(key->username));
	strlcpy(key->job_name, job_name, sizeof(key->job_name));
}

static void
free_change(TableChange *change)
{
	if (change->value != NULL)
		pfree(change->value);
	pfree(change);
}

void
sync_apply_forget(const char *username, const char *job_name)
{
	ChangeKey	key;
	ChangeEntry *entry;

	make_key(username, job_name, &key);
	entry = hash_search(by_name, &key, HASH_FIND, NULL);
	if (entry == NULL)
		return;
	sync_work_remove(&entry->change->item);
	free_change(entry->change);
	hash_search(by_name, &key, HASH_REMOVE, NULL);
}

static TableChange *
queue_change(const char *username, const char *job_name, int64 revision, bool compared)
{
	TableChange *change;
	ChangeEntry *entry;

	sync_apply_forget(username, job_name);
	change = MemoryContextAllocZero(change_context, sizeof(TableChange));
	make_key(username, job_name, &change->key);
	change->revision = revision;
	change->compared = compared;
	change->rewrite = compared && !sync_verified();
	entry = hash_search(by_name, &change->key, HASH_ENTER, NULL);
	entry->change = change;
	sync_work_add(&changes, &change->item);
	return change;
}

void
sync_apply_put(const JobRow *row, const char *value, size_t len, bool compared)
{
	TableChange *change = queue_change(row->username, row->job_name, row->mod_revision, compared);

	change->job_id = row->job_id;
	change->value = MemoryContextAlloc(change_context, len + 1);
	memcpy(change->value, value, len + 1);
	change->len = len;
}

void
sync_apply_delete(const char *username, const char *job_name, int64 revision, bool compared)
{
	queue_change(username, job_name, revision, compared)->is_delete = true;
}

void
sync_apply_published(void)
{
	sync_work_release(&changes);
}

bool
sync_apply_idle(void)
{
	return sync_work_empty(&changes);
}

void
sync_apply_turn(void)
{
	sync_work_turn(&changes);
}

/*
 * What a full compare found is known by no revision: that a definition is gone least of all.  Until all of that
 * is applied a restart has to compare again.
 */
int64
sync_applied_revision(int64 delivered)
{
	HASH_SEQ_STATUS status;
	ChangeEntry *entry;
	int64		lowest = delivered + 1;
	bool		compared = false;

	hash_seq_init(&status, by_name);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		compared |= entry->change->compared;
		lowest = Min(lowest, entry->change->revision);
	}
	if (!compared)
		applied = lowest - 1;
	return applied;
}

/* ---- the table ---------------------------------------------------------------------------------- */

/*
 * Locks the row and reads it as it is then.  WORK_DONE: *found says whether it is there, with nothing
 * unpublished in it.
 */
static WorkOutcome
lock_row(int64 job_id, JobRow *row, bool *found)
{
	int			locked = job_try_lock(job_id);

	*found = false;
	if (locked < 0)
		return WORK_LOCKED;
	if (locked == 0 || !job_read(job_id, row))
		return WORK_DONE;
	if (row->changed != NIL)
		return WORK_WAITS;
	*found = true;
	return WORK_DONE;
}

/* Another job of the same name was replaced in etcd. */
static WorkOutcome
remove_namesake(const JobRow *row)
{
	JobRow		namesake;
	WorkOutcome outcome;
	bool		found;

	if (!job_read_by_name(row->username, row->job_name, false, &namesake) || namesake.job_id == row->job_id)
		return WORK_DONE;
	outcome = lock_row(namesake.job_id, &namesake, &found);
	if (outcome == WORK_DONE && found)
		job_delete(namesake.job_id);
	return outcome;
}

/*
 * Was it carried over from the former incarnation by an instance that did not know of its end?  We had all versions up to a
 * revision in this table, so this one too, and it is not there any more.  (1 is of an incarnation before that one.)
 */
static bool
was_deleted_before(const JobRow *row)
{
	JobRow		namesake;

	return row->former > 1 && row->former <= scheduler.identity.former_revision &&
		!job_read_by_name(row->username, row->job_name, false, &namesake);
}

/* Its deletion is published; until then it is in no table here. */
static void
delete_again(const JobRow *row)
{
	OutboxRow	out = {0};

	ereport(LOG,
			(errmsg("dsched: job \"%s\" of role \"%s\" is unscheduled again: it was before the cluster was recovered",
					row->job_name, row->username)));
	out.outbox_id = sync_random_id();
	out.is_delete = true;
	out.job_id = row->job_id;
	out.username = row->username;
	out.job_name = row->job_name;
	out.base_revision = row->mod_revision;
	out.requested_by = "dsched";
	out.created_at = scheduler.now;
	outbox_insert(&out);
	sync_publish_changes();
}

static WorkOutcome
apply_put(const TableChange *change)
{
	JobRow		row;
	JobRow		old;
	SlotRule	rule;
	WorkOutcome outcome;
	bool		found;
	char		problem[256];

	if (!sync_decode_row(change->value, change->len, change->revision, &row, problem, sizeof(problem)))
		elog(ERROR, "a definition that could be read cannot be read any more: %s", problem);
	outcome = lock_row(row.job_id, &old, &found);
	/* our own publication is in the table before it comes back */
	if (outcome != WORK_DONE ||
		(found && (old.mod_revision > row.mod_revision || (old.mod_revision == row.mod_revision && !change->rewrite))))
		return outcome;
	outcome = remove_namesake(&row);
	if (outcome != WORK_DONE)
		return outcome;

	if (!found && was_deleted_before(&row))
	{
		delete_again(&row);
		return WORK_DONE;
	}
	if (row.problem == NULL)
		(void) slot_rule_make(&row, &rule, &row.problem);
	if (found)
	{
		row.created_at = old.created_at;
		job_update(&row);
	}
	else
		job_insert(&row);
	return WORK_DONE;
}

static WorkOutcome
apply_delete(const TableChange *change)
{
	JobRow		row;
	WorkOutcome outcome;
	bool		found;

	if (!job_read_by_name(change->key.username, change->key.job_name, false, &row))
		return WORK_DONE;
	outcome = lock_row(row.job_id, &row, &found);
	if (outcome == WORK_DONE && found && row.mod_revision <= change->revision &&
		strcmp(row.username, change->key.username) == 0 && strcmp(row.job_name, change->key.job_name) == 0)
		job_delete(row.job_id);
	return outcome;
}

static WorkOutcome
apply_change(WorkItem *item)
{
	TableChange *change = (TableChange *) item;
	MemoryContext old = MemoryContextSwitchTo(row_context);
	WorkOutcome outcome;

	MemoryContextReset(row_context);
	outcome = change->is_delete ? apply_delete(change) : apply_put(change);
	MemoryContextSwitchTo(old);
	return outcome;
}

static void
change_applied(WorkItem *item)
{
	TableChange *change = (TableChange *) item;
	Job		   *job = change->is_delete ? NULL : timetable_find(change->job_id);

	/* a later version may have come into the timetable since */
	if (job != NULL && job->mod_revision == change->revision)
	{
		job->applied = true;
		/* a run of it that came due before this is in no heap yet */
		job_advance_later(job);
	}
	hash_search(by_name, &change->key, HASH_REMOVE, NULL);
	free_change(change);
}
