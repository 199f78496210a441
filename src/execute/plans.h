/*
 * plans.h
 *	  What an executor keeps of the commands that it has run: parse trees and plans.
 */
#ifndef DSCHED_PLANS_H
#define DSCHED_PLANS_H

#include "nodes/parsenodes.h"
#include "utils/plancache.h"

typedef struct KeptCommand KeptCommand;

/* Once per process. */
extern void plans_init(void);

/* The command with this text, or NULL.  Valid until plans_trim() or plans_forget(), as is all that is in it. */
extern KeptCommand *plans_find(const char *text);

/* Keeps a command that was just parsed; NULL: it is not to be kept.  Copies what it is given. */
extern KeptCommand *plans_add(const char *text, List *statements, bool top_level);

/* To be read only: who runs a statement without a plan from here takes a copy of it. */
extern List *plans_statements(const KeptCommand *command);
extern bool plans_top_level(const KeptCommand *command);

/* The source of plans for statement n if it can be used now, or NULL: it has to be analysed.  In a transaction. */
extern CachedPlanSource *plans_source(KeptCommand *command, int n);

/* Takes up the analysis of statement n, made right after plans_source() had none; NULL: it is not to be kept. */
extern CachedPlanSource *plans_keep(KeptCommand *command, int n, List *queries);

/* GetCachedPlan().  Hand the plan over to a portal at once, before anything can fail. */
extern CachedPlan *plans_get(KeptCommand *command, int n);

/* After a run: gives memory back down to the limit.  command: what was run, or NULL. */
extern void plans_trim(KeptCommand *command);

/* Settings have changed that parsing and planning may depend on. Outside a run. */
extern void plans_forget(void);

#endif							/* DSCHED_PLANS_H */
