/*
 * run.h
 *	  One run, from its start to its outcome.
 */
#ifndef DSCHED_RUN_H
#define DSCHED_RUN_H

#include "shared.h"

/* Once per process. */
extern void run_init(ExecutorSlot *my_slot);

/*
 * Makes the run and notes its outcome in entry; raises no error. False: the process must end afterwards, as
 * the run left something behind in the session.
 */
extern bool run_make(RunEntry *entry);

/* The entry of the run under way, for the message of what kills us; NULL outside. */
extern RunEntry *run_current_entry(void);

/* Are errors caught at the moment, or do they end the process? */
extern bool run_catches_errors(void);

#endif /* DSCHED_RUN_H */
