/*
 * supervisor.h
 *	  Starting and restarting the workers that belong to databases; called by the coordinator.
 */
#ifndef DSCHED_SUPERVISOR_H
#define DSCHED_SUPERVISOR_H

#include "postgres.h"

/* What a scheduler is told at its start (bgw_extra). */
typedef struct SchedulerStart
{
	uint64		generation;
	Oid			dboid;
} SchedulerStart;

/*
 * Starts the launcher and the schedulers that are wanted, restarts those that died.  Returns the boot time at
 * which it wants to be called again, or 0.  Never waits.
 */
extern int64 supervise_schedulers(void);

/* Background worker that looks through pg_database once. */
extern PGDLLEXPORT void dsched_launcher_main(Datum arg);

#endif /* DSCHED_SUPERVISOR_H */
