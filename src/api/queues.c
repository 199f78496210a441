/*
 * queues.c
 *	  dsched.create_queue(), alter_queue() and drop_queue(): what limits the runs of many jobs together.
 *
 * A queue is a row of dsched.queue, which every job may name.  Who may change it is a matter of EXECUTE on
 * these functions, as with anything that roles share; the table is written with the rights of the
 * extension's owner.
 *
 * Creating a queue that is there replaces its limits, as defining a job that is there replaces the job, and
 * does nothing if they are the same: scripts may repeat themselves.
 *
 * The row is locked before it is looked at, so two changes of one queue come one after the other, and no
 * job gets into a queue while it is dropped (see src/catalog/queues.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/int.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_create_queue);
PG_FUNCTION_INFO_V1(dsched_alter_queue);
PG_FUNCTION_INFO_V1(dsched_drop_queue);
PG_FUNCTION_INFO_V1(dsched_queue_written);

#define DEFAULT_PER USECS_PER_SEC

/* Jobs that the refusal to drop a queue names. */
#define MAX_NAMED_JOBS 5

/* ---- arguments ---------------------------------------------------------------------------------- */

static int32
read_limit(Datum value, const char *name, int32 most)
{
	int32		limit = DatumGetInt32(value);

	if (limit < 1 || limit > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 1 and %d", name, most),
				 errhint("Leave %s out for a queue without this limit.", name)));
	return limit;
}

static int64
read_per(Datum value)
{
	const Interval *per = DatumGetIntervalP(value);
	int64		us;

	if (per->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per must not contain months or years"),
				 errdetail("They differ in length."),
				 errhint("Give days or hours.")));
	if (pg_mul_s64_overflow(per->day, USECS_PER_DAY, &us) || pg_add_s64_overflow(us, per->time, &us) ||
		us < POLICY_MIN_PER || us > POLICY_MAX_DURATION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per must be between 1 millisecond and 366 days")));
	return us;
}

/* True: over the cluster. */
static bool
read_scope(Datum value)
{
	char	   *scope = TextDatumGetCString(value);

	if (strcmp(scope, "cluster") == 0)
		return true;
	if (strcmp(scope, "instance") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scope \"%s\" is not known", scope),
				 errhint("It is \"instance\" or \"cluster\".")));
	return false;
}

/* Lays arguments 1 to 4, those that are not NULL, over the limits of a row. */
static void
read_limits(FunctionCallInfo fcinfo, QueueRow *row)
{
	if (!PG_ARGISNULL(1))
		row->max_running = read_limit(PG_GETARG_DATUM(1), "max_running", POLICY_MAX_RUNNING);
	if (!PG_ARGISNULL(2))
		row->rate_limit = read_limit(PG_GETARG_DATUM(2), "rate_limit", POLICY_MAX_RATE);
	if (!PG_ARGISNULL(3))
		row->per = read_per(PG_GETARG_DATUM(3));
	if (!PG_ARGISNULL(4))
		row->cluster = read_scope(PG_GETARG_DATUM(4));
}

/* The limits as a whole; a row without a rate has no period either. */
static void
check_limits(QueueRow *row)
{
	if (row->max_running == 0 && row->rate_limit == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue \"%s\" would limit nothing", row->name),
				 errhint("Give max_running, the number of runs at a time, or rate_limit, the number of starts in each period.")));
	if (row->rate_limit == 0 && row->per != 0 && row->per != DEFAULT_PER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per does not apply to a queue without rate_limit")));
	if (row->rate_limit == 0)
		row->per = 0;
	else if (row->per == 0)
		row->per = DEFAULT_PER;
}

/* ---- changing ----------------------------------------------------------------------------------- */

static bool
same_limits(const QueueRow *a, const QueueRow *b)
{
	return a->max_running == b->max_running && a->rate_limit == b->rate_limit && a->per == b->per &&
		a->cluster == b->cluster;
}

/* Says that the row is as people want it from now on. */
static void
mark_changed(QueueRow *row, QueueChange change)
{
	row->changed = change;
	row->change_id = random_id();
	row->problem = NULL;
	row->changed_at = dsched_wall_now();
	dsched_wake_at_commit();
}

/* Puts the limits in the place of old's, which may be those of a queue that was dropped. */
static void
replace_queue(QueueRow *row, const QueueRow *old)
{
	bool		anew = old->changed == QUEUE_DROP;

	/* what is only offered counts from now on */
	if (!anew && old->changed != QUEUE_OFFER && same_limits(row, old))
		return;
	row->mod_revision = old->mod_revision;
	row->extra = anew ? NULL : old->extra;
	row->created_at = anew ? dsched_wall_now() : old->created_at;
	mark_changed(row, QUEUE_PUT);
	queue_write(row);
}

/* create_queue(name, max_running, rate_limit, per, scope) */
Datum
dsched_create_queue(PG_FUNCTION_ARGS)
{
	QueueRow	row = {{0}};
	QueueRow	old;
	char	   *name;

	begin_change("dsched.create_queue()");
	name = text_arg(fcinfo, 0, "name");
	check_queue_name(name);
	strlcpy(row.name, name, sizeof(row.name));
	read_limits(fcinfo, &row);
	check_limits(&row);

	/* Each turn waits for another session; the name can be free again after one. */
	for (;;)
	{
		if (queue_lock(name, &old))
		{
			replace_queue(&row, &old);
			break;
		}
		row.created_at = dsched_wall_now();
		mark_changed(&row, QUEUE_PUT);
		if (queue_insert_new(&row))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_VOID();
}

/* Locks and reads a queue that is there. */
static void
find_queue(const char *name, QueueRow *out)
{
	if (!queue_lock(name, out) || out->changed == QUEUE_DROP)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("queue \"%s\" does not exist", name)));
}

/* Is the argument given, while it is also to go back to its default? */
static void
refuse_given(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (!PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is both given and reset", name)));
}

static void
reset_option(FunctionCallInfo fcinfo, const char *name, QueueRow *row)
{
	if (strcmp(name, "max_running") == 0)
	{
		refuse_given(fcinfo, 1, name);
		row->max_running = 0;
	}
	else if (strcmp(name, "rate_limit") == 0)
	{
		refuse_given(fcinfo, 2, name);
		row->rate_limit = 0;
		row->per = 0;
	}
	else if (strcmp(name, "per") == 0)
	{
		refuse_given(fcinfo, 3, name);
		row->per = 0;
	}
	else if (strcmp(name, "scope") == 0)
	{
		refuse_given(fcinfo, 4, name);
		row->cluster = false;
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not an option that can be reset", name),
				 errhint("Options with a default are max_running, rate_limit, per and scope.")));
}

static void
reset_options(FunctionCallInfo fcinfo, Datum array, QueueRow *row)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("reset must not contain nulls")));
		reset_option(fcinfo, TextDatumGetCString(names[i]), row);
	}
}

/* alter_queue(name, max_running, rate_limit, per, scope, reset) */
Datum
dsched_alter_queue(PG_FUNCTION_ARGS)
{
	QueueRow	row;
	QueueRow	old;

	begin_change("dsched.alter_queue()");
	find_queue(text_arg(fcinfo, 0, "name"), &old);
	row = old;
	if (!PG_ARGISNULL(5))
		reset_options(fcinfo, PG_GETARG_DATUM(5), &row);
	read_limits(fcinfo, &row);
	check_limits(&row);
	if (!PG_ARGISNULL(3) && row.rate_limit == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per does not apply to a queue without rate_limit")));
	replace_queue(&row, &old);
	PG_RETURN_VOID();
}

/* ---- dropping ----------------------------------------------------------------------------------- */

static int
compare_names(const ListCell *a, const ListCell *b)
{
	const JobRow *x = lfirst(a);
	const JobRow *y = lfirst(b);
	int			order = strcmp(x->username, y->username);

	return order != 0 ? order : strcmp(x->job_name, y->job_name);
}

/* The jobs that use a queue: those that the caller may see by name, the others as a number. */
static char *
describe_jobs(List *jobs)
{
	StringInfoData said;
	int			named = 0;
	int			others;
	ListCell   *lc;

	initStringInfo(&said);
	list_sort(jobs, compare_names);
	foreach(lc, jobs)
	{
		const JobRow *job = lfirst(lc);

		if (named == MAX_NAMED_JOBS)
			break;
		if (!may_see(get_role_oid(job->username, true)))
			continue;
		appendStringInfo(&said, "%sjob \"%s\" of role \"%s\"", named > 0 ? ", " : "", job->job_name, job->username);
		named++;
	}
	others = list_length(jobs) - named;
	if (named == 0)
		appendStringInfo(&said, "%d %s", others, others == 1 ? "job" : "jobs");
	else if (others > 0)
		appendStringInfo(&said, " and %d %s", others, others == 1 ? "other" : "others");
	return said.data;
}

/* drop_queue(name) */
Datum
dsched_drop_queue(PG_FUNCTION_ARGS)
{
	QueueRow	row;
	List	   *jobs;

	begin_change("dsched.drop_queue()");
	find_queue(text_arg(fcinfo, 0, "name"), &row);
	jobs = queue_jobs(row.name);
	if (jobs != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop queue \"%s\" because jobs are in it", row.name),
				 errdetail("In it: %s.", describe_jobs(jobs)),
				 errhint("Take the jobs out of it with dsched.alter_job(), or delete them with dsched.unschedule().")));

	mark_changed(&row, QUEUE_DROP);
	/* a cluster has to be told, and perhaps cannot be reached now */
	if (dsched_clustered())
		queue_write(&row);
	else
		queue_delete(row.name);
	PG_RETURN_VOID();
}

/* ---- rows from elsewhere ------------------------------------------------------------------------ */

/*
 * _queue_written(): BEFORE INSERT OR UPDATE ON dsched.queue FOR EACH ROW.  A row from a dump is offered to
 * the cluster, in which others may have changed the queue since; one that was changed by hand counts.
 */
Datum
dsched_queue_written(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const CatalogOids *oids = catalog_oids();
	TupleDesc	desc;
	HeapTuple	tuple;
	bool		update;
	int			columns[4];
	Datum		values[4];
	bool		nulls[4] = {false};

	if (!CALLED_AS_TRIGGER(fcinfo) || oids == NULL || RelationGetRelid(trigger->tg_relation) != oids->queue)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is the trigger of dsched.queue")));
	update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	tuple = update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (catalog_writing)
		return PointerGetDatum(tuple);

	desc = RelationGetDescr(trigger->tg_relation);
	columns[0] = SPI_fnumber(desc, "changed");
	values[0] = CStringGetTextDatum(update ? "put" : "offer");
	columns[1] = SPI_fnumber(desc, "change_id");
	values[1] = Int64GetDatum(random_id());
	columns[2] = SPI_fnumber(desc, "problem");
	values[2] = (Datum) 0;
	nulls[2] = true;
	columns[3] = SPI_fnumber(desc, "mod_revision");
	values[3] = Int64GetDatum(0);
	if (dsched_shared != NULL)
		dsched_wake_at_commit();
	/* the revision that an update is based on is still that of this row */
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, desc, update ? 3 : 4, columns, values, nulls));
}
