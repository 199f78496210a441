/*
 * ending.h
 *	  What ends a run before its command does: its timeout, and a request to cancel it.
 */
#ifndef DSCHED_ENDING_H
#define DSCHED_ENDING_H

#include "shared.h"

typedef enum EndCause
{
	END_NONE,
	END_TIMED_OUT,
	END_CANCELLED				/* this run, by dsched: not by pg_cancel_backend(), and not fenced */
} EndCause;

/* Once per process, before the first run; SIGINT is handled here from then on. */
extern void ending_init(ExecutorSlot *my_slot);

/* From here to ending_over() a cancel of the slot's run is one of this entry. */
extern void ending_begin(RunEntry *entry);

/* The command begins now and may take so long (microseconds; 0: no limit). */
extern void ending_start_timer(int64 timeout);

/* The outcome is known: what comes now comes too late. */
extern void ending_over(void);

/* Is the run to end, and why?  Keeps its answer until the next run begins. */
extern EndCause ending_cause(void);

/* ERROR if the run is to end. */
extern void ending_check(void);

/* Around the part of a commit that cannot be taken back: what comes meanwhile is put off until after it. */
extern void ending_enter_commit(void);
extern void ending_leave_commit(bool committed);

/* The cause in words, for the log and for the row. There is one. */
extern const char *ending_message(void);
extern char *ending_detail(void);

/* No row can say it: the entry does, for the scheduler. */
extern void ending_note(RunEntry *entry);

#endif							/* DSCHED_ENDING_H */
