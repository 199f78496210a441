/*
 * adopt.c
 *	  Whose jobs these are: the identity of a database, rows that came from elsewhere, dsched.adopt().
 *
 * The same definitions must not come alive in a second place by accident: in a restored dump, a copied
 * database, a cloned server, or because the setting that names etcd was lost.  So the row dsched.identity says
 * which server, database and cluster the jobs belong to; where it does not fit, or says that they are held,
 * the scheduler does nothing until somebody who owns the extension calls dsched.adopt().
 *
 * A dump does not contain that row.  It does contain dsched.job, and restoring it is seen by a trigger: every
 * row that was not written by this library's own functions is marked as new and puts the jobs on hold.  The trigger
 * fires always (logical replication writes such rows too).
 *
 * adopt() starts the accounts anew.  No slot of the past runs because of it, and so a job that was to run once, at
 * a time that has passed meanwhile, is paused: dsched.resume() runs it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "catalog/upkeep.h"
#include "clock.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_created);
PG_FUNCTION_INFO_V1(dsched_job_written);
PG_FUNCTION_INFO_V1(dsched_adopt);

/* _created(): the last statement of the extension's script */
Datum
dsched_created(PG_FUNCTION_ARGS)
{
	identity_create();

	/* Without the library in the server there is nobody to wake, and nothing wrong with that: a restore, say. */
	if (dsched_shared != NULL)
		dsched_wake_at_commit();
	PG_RETURN_VOID();
}

/* ---- rows from elsewhere ------------------------------------------------------------------------ */

/* The row as one that no cluster has seen. */
static HeapTuple
as_restored(Relation rel, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum		all = CStringGetTextDatum("all");
	int			columns[4];
	Datum		values[4];
	bool		nulls[4] = {false};

	columns[0] = SPI_fnumber(desc, "mod_revision");
	values[0] = Int64GetDatum(0);
	columns[1] = SPI_fnumber(desc, "gen_rev");
	values[1] = Int64GetDatum(0);
	columns[2] = SPI_fnumber(desc, "change_id");
	values[2] = Int64GetDatum(random_id());
	columns[3] = SPI_fnumber(desc, "changed");
	values[3] = PointerGetDatum(construct_array(&all, 1, TEXTOID, -1, false, TYPALIGN_INT));
	return heap_modify_tuple_by_cols(tuple, desc, lengthof(columns), columns, values, nulls);
}

/*
 * Puts the jobs on hold; once is enough for the rows that one subtransaction writes (a sub-subtransaction's hold can be
 * rolled back alone).
 */
static void
hold_jobs(void)
{
	static TransactionId held_by = InvalidTransactionId;
	static SubTransactionId held_in = InvalidSubTransactionId;
	TransactionId xid = GetTopTransactionId();

	if (TransactionIdEquals(held_by, xid) && held_in == GetCurrentSubTransactionId())
		return;
	identity_hold("jobs were restored, or written into dsched.job by hand");
	if (dsched_shared != NULL)
		dsched_wake_at_commit();
	held_by = xid;
	held_in = GetCurrentSubTransactionId();
}

/* _job_written(): BEFORE INSERT OR UPDATE ON dsched.job FOR EACH ROW */
Datum
dsched_job_written(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const CatalogOids *oids = catalog_oids();
	HeapTuple	tuple;

	if (!CALLED_AS_TRIGGER(fcinfo) || oids == NULL || RelationGetRelid(trigger->tg_relation) != oids->job)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is the trigger of dsched.job")));
	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (catalog_writing)
		return PointerGetDatum(tuple);

	hold_jobs();
	return PointerGetDatum(as_restored(trigger->tg_relation, tuple));
}

/* ---- adopt -------------------------------------------------------------------------------------- */

static void
check_may_adopt(void)
{
	const CatalogOids *oids = catalog_oids();

	if (oids != NULL && !has_privs_of_role(GetUserId(), oids->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to adopt the jobs of this database"),
				 errhint("Superusers and the owner of the extension may do that.")));
}

/* Does all fit already?  In a cluster this takes a session in the incarnation that the database knows. */
static bool
is_at_home(const Identity *stored)
{
	bool		joined;

	if (identity_mismatch(stored) != NULL || stored->held[0] != '\0')
		return false;
	if (!dsched_clustered())
		return true;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	joined = dsched_shared->session_state == SESSION_VALID &&
		(stored->incarnation[0] == '\0' || strcmp(stored->incarnation, dsched_shared->incarnation) == 0);
	LWLockRelease(dsched_shared->control_lock);
	return joined;
}

/* Begins a generation for a job of another place; true: it was paused, as its only time has passed. */
static bool
adopt_job(JobRow *row, TimestampTz now)
{
	bool		too_late = row->schedule == NULL && row->active && row->run_at <= now;

	if (too_late)
		row->active = false;
	row->gen = random_id();
	row->gen_rev = 0;
	row->slots_from = now;
	row->mod_revision = 0;
	row->changed = list_make1("all");
	row->change_id = random_id();
	row->changed_at = now;
	row->problem = NULL;
	job_update(row);
	return too_late;
}

/* Their limits count here unless the cluster has a queue of the name. */
static void
adopt_queues(void)
{
	if (!queue_offer_all())
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("a queue is being changed by another session"),
				 errhint("Try again when its transaction has ended.")));
}

static char *
adopt_jobs(void)
{
	TimestampTz now = dsched_wall_now();
	StringInfoData said;
	int			paused = 0;
	int			n = 0;
	ListCell   *cell;

	foreach(cell, job_read_all())
	{
		CHECK_FOR_INTERRUPTS();
		paused += adopt_job(lfirst(cell), now) ? 1 : 0;
		n++;
	}

	initStringInfo(&said);
	appendStringInfo(&said, "adopted %d %s", n, n == 1 ? "job" : "jobs");
	if (dsched_clustered())
		appendStringInfo(&said, " for cluster \"%s\"", dsched_cluster_name);
	if (paused > 0)
		appendStringInfo(&said, "; paused %d whose only time has passed", paused);
	return said.data;
}

/* adopt(): these jobs belong here */
Datum
dsched_adopt(PG_FUNCTION_ARGS)
{
	Identity	stored;
	Identity	here;
	char	   *said;

	begin_change("dsched.adopt()");
	check_may_adopt();
	identity_read(&stored);
	if (is_at_home(&stored))
		PG_RETURN_TEXT_P(cstring_to_text("nothing to adopt: the jobs belong here already"));

	said = adopt_jobs();
	adopt_queues();
	forget_accounts();
	identity_here(&here);
	identity_write(&here);
	dsched_wake_at_commit();
	PG_RETURN_TEXT_P(cstring_to_text(said));
}
