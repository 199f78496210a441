/*
 * settle.c
 *	  What came of the changes that were sent to etcd, in dsched.job and dsched.outbox.
 *
 * For each change the answer says that it was made, or what its key has instead:
 *
 *	  made, or our own change id stands there		the row is published; a change made since stays, based on that version
 *	  another version of the job					the row's changed columns are laid over it, and it is sent again
 *	  another job of the name						a whole definition takes its id; a change of the former job is dropped
 *	  nothing, and the row was based on a version	a whole definition begins anew; a change is dropped with its row
 *	  nothing, and it was new						somebody else has touched the partition; it is sent again. But if it has stood there
 *													it was unscheduled, or run as the one-shot that it was, and its row goes
 *
 * A row that somebody has locked is left as it is: it is sent again later, and its change id is then
 * recognised.
 *
 * A generation belongs to a set of slots: where a rebase leaves the slots that are in etcd, their generation
 * stays, so that a change of the command repeats or loses no slot; else a new one begins when it is published.
 */
#include "postgres.h"

#include "compat.h"
#include "sync/sync_internal.h"

static void
delete_outbox(const Change *change)
{
	ListCell   *lc;

	foreach(lc, change->outbox)
		outbox_delete(((OutboxRow *) lfirst(lc))->outbox_id);
}

/* With those of the key that the job had before. */
static void
delete_outboxes(const Change *change)
{
	delete_outbox(change);
	if (change->moved != NULL && change->moved->kind == CHANGE_DELETION)
		delete_outbox(change->moved);
}

/* Was the job with this id deleted by the change's deletions? */
static bool
deletes_job(const Change *change, int64 job_id)
{
	ListCell   *lc;

	foreach(lc, change->outbox)
		if (((OutboxRow *) lfirst(lc))->job_id == job_id)
			return true;
	return false;
}

/*
 * The row's version is in etcd.  A change that was made since stays unpublished, and is based on that version.
 */
static void
confirm_row(JobRow *row, const JobRow *sent, int64 revision)
{
	row->mod_revision = revision;
	if (row->change_id == sent->change_id)
		row->changed = NIL;
	if (row->gen == sent->gen)
	{
		row->gen_rev = sent->gen_rev > 0 ? sent->gen_rev : revision;
		row->slots_from = sent->slots_from;
		row->last_slot = sent->last_slot;
	}
	job_update(row);
}

static void
report_dropped(const JobRow *row)
{
	ereport(LOG,
			(errmsg("dsched: a change of job \"%s\" of role \"%s\" is dropped: the job was unscheduled by another instance",
					row->job_name, row->username)));
}

/* The same definition as another job, as the id of the row is, or was, somebody else's. */
static void
renumber_row(const JobRow *row)
{
	JobRow		anew = *row;

	anew.job_id = sync_random_id();
	anew.mod_revision = 0;
	anew.gen = sync_random_id();
	anew.gen_rev = 0;
	job_delete(row->job_id);
	job_insert(&anew);
}

/* The job is gone from etcd, and what the row changes of it is pointless, or begins it anew. */
static void
settle_vanished(JobRow *row, Settlement *out)
{
	if (!sync_is_changed(row, "all"))
	{
		report_dropped(row);
		job_delete(row->job_id);
		return;
	}
	renumber_row(row);
	out->again = true;
}

/* Puts merged in the place of row, whose id it may not have. */
static void
replace_row(const JobRow *row, JobRow *merged, Settlement *out)
{
	merged->created_at = row->created_at;
	merged->changed_at = row->changed_at;
	if (merged->job_id == row->job_id)
	{
		job_update(merged);
		return;
	}
	/* a row that has this id already is the same job under another role, and about to go */
	if (job_try_lock(merged->job_id) != 0)
	{
		out->locked = true;
		return;
	}
	job_delete(row->job_id);
	job_insert(merged);
}

/* The last slot of a generation that is neither that of the row nor that of base. */
static TimestampTz
last_slot_of(const JobRow *row)
{
	SlotRule	rule;
	char	   *problem;

	if (row->max_runs == 0 || row->schedule == NULL || !slot_rule_make(row, &rule, &problem))
		return 0;
	rule.expires_at = rule.last_slot = 0;
	return slot_nth(&rule, row->max_runs);
}

/* The generation of a row whose columns were laid over base. */
static void
rebase_generation(JobRow *merged, const JobRow *base, const JobRow *row)
{
	bool		kept = sync_same_slots(merged, base);
	const JobRow *from = kept ? base : row;

	merged->gen = from->gen;
	merged->gen_rev = kept ? base->gen_rev : 0;
	merged->slots_from = from->slots_from;
	merged->anchor = from->anchor;
	merged->last_slot = from->last_slot;
	if (kept)
		return;
	/* a set of slots that neither of the two has */
	if (!sync_same_slots(merged, row))
	{
		if (!sync_is_changed(row, "schedule") && !sync_is_changed(row, "starts_at"))
			merged->anchor = base->anchor;
		merged->last_slot = last_slot_of(merged);
	}
	if (merged->gen == base->gen)
		merged->gen = sync_random_id();
}

/* Lays the row's unpublished changes over the version that is in etcd now, to be published in the next round. */
static void
rebase_row(const JobRow *row, const JobRow *base, Settlement *out)
{
	JobRow		merged = *base;
	bool		whole = sync_is_changed(row, "all");
	ListCell   *lc;

	if (sync_is_changed(row, CARRIED_OVER))
	{
		/* a version of the former incarnation, and nobody's change: the newer one counts */
		if (base->former == 0 || -row->gen_rev <= base->former)
		{
			replace_row(row, &merged, out);
			return;
		}
		whole = true;
	}
	if (row->job_id != base->job_id && !whole)
		report_dropped(row);
	else if (!sync_same_definition(row, base))
	{
		if (whole)
		{
			merged = *row;
			merged.job_id = base->job_id;
			merged.mod_revision = base->mod_revision;
			merged.extra = base->extra;
		}
		else
			foreach(lc, row->changed)
				(void) sync_copy_column(&merged, row, lfirst(lc));
		merged.changed = row->changed;
		merged.change_id = row->change_id;
		rebase_generation(&merged, base, row);
		if (merged.gen_rev == 0 && row->gen_rev < 0)
			merged.gen_rev = row->gen_rev;
		out->again = true;
	}
	/* else nothing is left to say */
	replace_row(row, &merged, out);
}

/* Is it a one-shot whose time has come?  sync_retire() deletes no other. */
static bool
is_done_with(const JobRow *row)
{
	return row->schedule == NULL && row->run_at <= scheduler.now;
}

/*
 * The version that has the change's key, if it can be read and is to be trusted: nothing is laid over, and signed with, what
 * somebody else has put there.
 */
static bool
read_other_version(const Change *change, JobRow *out)
{
	Signature	signature;
	char		problem[256];

	return sync_verify(change->key, strlen(change->key), change->old_value, change->old_len, &signature, problem,
					   sizeof(problem)) &&
		(!sync_sign_required() || signature.after >= sync_known_before(change->key, change->old_revision)) &&
		sync_decode_row(change->old_value, change->old_len, change->old_revision, out, problem, sizeof(problem));
}

/* Is what has the key of a deletion still the job that is to go?  out: that version, if it can be read. */
static bool
is_to_be_deleted(const Change *change, JobRow *other)
{
	const OutboxRow *row;

	if (change->answer != ANSWER_OTHER || change->outbox == NIL)
		return false;
	row = linitial(change->outbox);
	if (!read_other_version(change, other))
	{
		other->job_id = row->job_id;
		return true;
	}
	return deletes_job(change, other->job_id) && (row->requested_by[0] != '\0' || is_done_with(other));
}

/* A deletion is based on what its key has now. */
static void
rebase_deletion(const Change *change, const JobRow *other)
{
	OutboxRow	row = *(OutboxRow *) linitial(change->outbox);

	delete_outbox(change);
	row.job_id = other->job_id;
	row.base_revision = change->old_revision;
	outbox_insert(&row);
}

/* Another version is in etcd. */
static void
settle_other(const Change *change, JobRow *row, Settlement *out)
{
	JobRow		base;
	bool		readable = read_other_version(change, &base);

	if (readable && base.job_id == change->row->job_id && base.change_id == change->row->change_id)
	{
		/* our own, of a round whose answer was lost */
		confirm_row(row, &base, change->old_revision);
		delete_outboxes(change);
	}
	else if (is_to_be_deleted(change, &base))
	{
		/* another version of the job that this one comes in the place of */
		rebase_deletion(change, &base);
		out->again = true;
	}
	else if (!readable && sync_is_changed(row, CARRIED_OVER))
	{
		/* nobody's change: it gives way to what a newer version may have put, or somebody whom we have no key of; here as one before that */
		row->changed = NIL;
		row->mod_revision = change->old_revision - 1;
		row->problem = pstrdup("definition in etcd cannot be read or is not to be trusted");
		job_update(row);
	}
	else if (!readable)
	{
		/* to be replaced as a whole */
		row->mod_revision = change->old_revision;
		job_update(row);
		out->again = true;
	}
	else
	{
		rebase_row(row, &base, out);
		delete_outbox(change);
	}
}

/*
 * A job that got another role is not published under its new key, as its old one has not what was to be
 * deleted.  If that is another version of the job it goes all the same; if it is gone somebody else has
 * unscheduled or moved it, and what is here is another job.
 */
static void
settle_moved(const Change *change, const JobRow *row, Settlement *out)
{
	const Change *moved = change->moved;
	bool		to_be_deleted;
	JobRow		other;

	out->again = true;
	/* if another job was to be deleted from the new key, it is gone */
	delete_outbox(change);
	if (moved->answer == ANSWER_DONE ||
		(moved->answer == ANSWER_OTHER ? moved->old_revision == moved->base : moved->base == 0))
		return;					/* only jobrev has moved */

	to_be_deleted = is_to_be_deleted(moved, &other);
	if (!to_be_deleted)
		renumber_row(row);
	/* a definition is settled by itself */
	if (moved->kind != CHANGE_DELETION)
		return;
	if (to_be_deleted)
		rebase_deletion(moved, &other);
	else
		delete_outbox(moved);
}

static void
settle_definition(const Change *change, Settlement *out)
{
	JobRow		row;
	int			locked = job_try_lock(change->row->job_id);

	if (locked < 0)
		out->locked = true;
	if (locked <= 0 || !job_read(change->row->job_id, &row) || row.changed == NIL)
		return;
	if (change->answer == ANSWER_DONE)
	{
		confirm_row(&row, change->row, out->revision);
		delete_outboxes(change);
	}
	else if (change->answer == ANSWER_OTHER)
		settle_other(change, &row, out);
	else if (change->moved != NULL)
		settle_moved(change, &row, out);
	else if (change->base == 0 && sync_has_stood(change->row->change_id))
	{
		delete_outboxes(change);
		if (row.change_id == change->row->change_id)
			job_delete(row.job_id);
		else
			settle_vanished(&row, out);
	}
	else if (change->base == 0)
	{
		/* only jobrev has moved, or it was there and the watch has not told yet */
		sync_definition_absent(change->row->change_id, out->revision);
		out->again = true;
	}
	else if (row.mod_revision == 0)
	{
		/* the base was that of a deletion, which somebody else has made */
		delete_outbox(change);
		out->again = true;
	}
	else
		settle_vanished(&row, out);
}

/*
 * Deletes, unless it is done: then a row under another role that has the id, but was locked when it was sent,
 * is another job.
 */
static void
settle_deletion(const Change *change, Settlement *out)
{
	const OutboxRow *sent = linitial(change->outbox);
	JobRow		row;
	JobRow		other;
	int			locked;

	if (is_to_be_deleted(change, &other))
	{
		rebase_deletion(change, &other);
		out->again = true;
		return;
	}
	if (change->answer != ANSWER_DONE && (locked = job_try_lock(sent->job_id)) != 0)
	{
		if (locked < 0)
		{
			out->locked = true;
			return;
		}
		if (job_read(sent->job_id, &row) && row.mod_revision == 0 && sync_is_changed(&row, "all"))
			renumber_row(&row);
	}
	delete_outbox(change);
}

void
sync_settle(const Change *change, Settlement *out)
{
	switch (change->kind)
	{
		case CHANGE_DEFINITION:
			settle_definition(change, out);
			break;
		case CHANGE_DELETION:
			settle_deletion(change, out);
			break;
		case CHANGE_TRIGGER:
			delete_outbox(change);
			break;
	}
}
