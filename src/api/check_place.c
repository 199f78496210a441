/*
 * check_place.c
 *	  The option run_on: which instances may run a job.
 *
 * A row has NULL for any instance, "each", or a selector in its one form, so that two that mean the same are the same.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "core/selector.h"
#include "places.h"
#include "settings.h"
#include "shared.h"

bool
runs_on_each(const JobRow *row)
{
	return row->run_on != NULL && strcmp(row->run_on, PLACE_EACH) == 0;
}

static void
refuse_selector(const char *run_on, const SelectorError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("run_on \"%s\" is not \"any\", \"each\" or a selector", run_on),
			 errdetail("At byte %d: %s.", error->position, error->message),
			 errhint("%s", error->hint)));
}

/* As far as this instance knows; what is published at the same moment elsewhere is shown as a problem of its job. */
static void
check_room(const char *selector)
{
	bool		room = true;
	int			db;

	if (dsched_shared == NULL)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
		room = place_find(&dsched_shared->databases[db], selector) >= 0 ||
			place_find(&dsched_shared->databases[db], "") >= 0;
	LWLockRelease(dsched_shared->control_lock);
	if (!room)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there are jobs with %d different selectors already", DSCHED_MAX_PLACES),
				 errdetail("The jobs of a database can have so many different values of run_on, beside \"any\" and \"each\"."),
				 errhint("Give the instances a label that several of these can share.")));
}

/* Room is asked for by whoever says where the job runs: one that waits for room can be changed in other ways. */
void
check_place(JobRow *row, uint32 given)
{
	SelectorError error;
	char	   *normal;

	if (row->run_on == NULL)
		return;
	if (strcmp(row->run_on, KEYS_PLACE_ANY) == 0)
	{
		row->run_on = NULL;
		return;
	}
	if (strcmp(row->run_on, PLACE_EACH) == 0)
	{
		if (row->schedule == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("run_on \"each\" does not apply to a job that runs once"),
					 errdetail("Its definition goes when it has run, wherever that was."),
					 errhint("Schedule it for one instance each: run_on => 'node=<name>'.")));
		return;
	}
	normal = palloc(SELECTOR_MAX + 1);
	if (!selector_normalise(to_utf8(row->run_on), normal, &error))
		refuse_selector(row->run_on, &error);
	row->run_on = pg_any_to_server(normal, strlen(normal), PG_UTF8);
	if ((given & FIELD_BIT(FIELD_RUN_ON)) != 0)
		check_room(normal);
}

/*
 * A job that runs once keeps its time when it moves: once that has come nobody could tell in time whether the instances that
 * had it before are at it.
 */
void
check_move(const JobRow *row, const JobRow *old)
{
	if (old->schedule != NULL || row->schedule != NULL || !dsched_clustered() ||
		job_field_same(row, old, FIELD_RUN_ON) || !old->active || row->run_at > dsched_wall_now() + place_move_margin())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("run_on of job \"%s\" cannot be changed any more", row->job_name),
			 errdetail("The job runs once, at %s; it may be running by now.", timestamptz_to_str(row->run_at)),
			 errhint("Give it a later run_at, or unschedule it and schedule another one.")));
}
