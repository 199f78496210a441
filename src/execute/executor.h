/*
 * executor.h
 *	  The worker that makes runs, and what code inside a run may ask about it.
 */
#ifndef DSCHED_EXECUTOR_H
#define DSCHED_EXECUTOR_H

#include "postgres_ext.h"

#include "shared.h"

/* Handed to a new executor in bgw_extra; main_arg is the index of its slot. */
typedef struct ExecutorArgs
{
	uint64		generation;		/* of the slot's use; an executor that comes too late leaves */
	Oid			dboid;
	Oid			roleoid;
} ExecutorArgs;

/* What dsched.current_run() shows. */
typedef struct CurrentRun
{
	int64		job_id;
	const char *job_name;
	TimestampTz scheduled_for;
	int32		attempt;
	int64		trigger_id;
	RunReason	reason;
	const char *payload;		/* jsonb as text, or NULL */
} CurrentRun;

/* The run that this process is making; NULL outside a run. Valid until the run ends. */
extern const CurrentRun *executor_current_run(void);

/* Entry point of the background worker. */
extern PGDLLEXPORT void dsched_executor_main(Datum main_arg);

#endif /* DSCHED_EXECUTOR_H */
