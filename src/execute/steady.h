/*
 * steady.h
 *	  Would a statement, analysed again later, come to the same?
 */
#ifndef DSCHED_STEADY_H
#define DSCHED_STEADY_H

#include "nodes/parsenodes.h"
#include "pgtime.h"

/* What analysis and rewriting go by beside the catalogs, which send messages when they change. */
typedef struct AnalysisSettings
{
	Oid			userid;
	int			date_order;
	int			interval_style;
	bool		array_nulls;
	bool		transform_null_equals;
	pg_tz	   *time_zone;
} AnalysisSettings;

extern void steady_settings(AnalysisSettings *out);
extern bool steady_settings_same(const AnalysisSettings *a, const AnalysisSettings *b);

/* By its text alone. False: it never is. */
extern bool steady_statement(const RawStmt *statement);

/* By what it came to just now: a list of rewritten Query. In a transaction. */
extern bool steady_queries(List *queries);

#endif							/* DSCHED_STEADY_H */
