/*
 * record.h
 *	  The row that a run leaves in dsched.run.
 */
#ifndef DSCHED_RECORD_H
#define DSCHED_RECORD_H

#include "catalog/catalog.h"
#include "shared.h"

/* Fills in what is known at the start; the names must outlive row. */
extern void record_begin(RunRow *row, const RunEntry *entry, const char *job_name, const char *username);

/* What became of it, from an error. Strings are palloc'd in the current context. */
extern void record_error(RunRow *row, const ErrorData *edata, const char *command);

/* For what follows in this transaction (or GUC nest level) the job's lock_timeout does not count: the locks are ours. */
extern void record_ignore_lock_timeout(void);

/* Writes the row in the current transaction; over the start row, if one is there. */
extern void record_write(const RunRow *row, bool start_row);

/* Is it the violation of the key of dsched.run, that is: was this run recorded already? */
extern bool record_exists_error(const ErrorData *edata);

/* Notes an outcome that no row tells of in the entry. */
extern void record_note(RunEntry *entry, int sqlerrcode, const char *message);

#endif /* DSCHED_RECORD_H */
