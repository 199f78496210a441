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
 *	  nothing, and it was new						somebody else has touched the partition; it is sent again
 *
 * A row that somebody has locked is left as it is: it is sent again later, and its change id is then recognised.
 *
 * A generation belongs to a set of slots: where a rebase leaves the slots that are in etcd, their generation stays, so that a change of
 * the command repeats or loses no slot; else a new one begins when it is published.
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
		row->gen_rev = sent->gen_rev != 0 ? sent->gen_rev : revision;
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
	row->mod_revision = 0;
	row->gen = sync_random_id();
	row->gen_rev = 0;
	job_update(row);
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
		out->again = true;
	}
	/* else nothing is left to say */
	replace_row(row, &merged, out);
}

/* Another version is in etcd. */
static void
settle_other(const Change *change, JobRow *row, Settlement *out)
{
	JobRow		base;
	char		problem[256];
	bool		readable = sync_decode_row(change->old_value, change->old_len, change->old_revision, &base, problem, sizeof(problem));

	if (readable && base.job_id == change->row->job_id && base.change_id == change->row->change_id)
	{
		/* our own, of a round whose answer was lost */
		confirm_row(row, &base, change->old_revision);
		delete_outbox(change);
	}
	else if (!readable || deletes_job(change, base.job_id))
	{
		/* to be replaced as a whole */
		row->mod_revision = change->old_revision;
		job_update(row);
		delete_outbox(change);
		out->again = true;
	}
	else
	{
		rebase_row(row, &base, out);
		delete_outbox(change);
	}
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
		delete_outbox(change);
	}
	else if (change->answer == ANSWER_OTHER)
		settle_other(change, &row, out);
	else if (change->base == 0)
		out->again = true;	/* only jobrev has moved */
	else if (row.mod_revision == 0)
	{
		/* the base was that of a deletion, which somebody else has made */
		delete_outbox(change);
		out->again = true;
	}
	else
		settle_vanished(&row, out);
}

/* Is it a one-shot whose time has come?  sync_retire() deletes no other. */
static bool
is_done_with(const JobRow *row)
{
	return row->schedule == NULL && row->run_at <= scheduler.now;
}

static void
settle_deletion(const Change *change, Settlement *out)
{
	OutboxRow	again = *(OutboxRow *) linitial(change->outbox);
	JobRow		other;
	char		problem[256];
	bool		readable = false;

	delete_outbox(change);
	if (change->answer != ANSWER_OTHER)
		return;
	readable = sync_decode_row(change->old_value, change->old_len, change->old_revision, &other, problem, sizeof(problem));
	if (readable && !deletes_job(change, other.job_id))
		return;
	if (readable && again.requested_by[0] == '\0' && !is_done_with(&other))
		return;

	/* it was changed meanwhile, and is to go all the same */
	if (readable)
		again.job_id = other.job_id;
	again.base_revision = change->old_revision;
	outbox_insert(&again);
	out->again = true;
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
