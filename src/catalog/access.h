/*
 * access.h
 *	  What the files of src/catalog share: direct access to the tables, and queries with kept plans.
 */
#ifndef DSCHED_ACCESS_H
#define DSCHED_ACCESS_H

#include "access/htup.h"
#include "executor/spi.h"
#include "utils/relcache.h"

#include "catalog.h"

#define CATALOG_MAX_COLUMNS 48

/* ---- identity.c -------------------------------------------------------------------------------- */

/* Moves whenever something cached about the extension's relations may be stale. */
extern uint64 catalog_generation(void);

/* catalog_oids(), or ERROR 42704. */
extern const CatalogOids *catalog_require(void);

/* ---- access.c ---------------------------------------------------------------------------------- */

/*
 * Where the columns of a table are, by name: the library may be newer than the installed script, whose table
 * then lacks a column (0), and the other way round.
 */
typedef struct ColumnMap
{
	const char *const *names;
	int			n;
	/* filled by column_map_for() */
	Oid			relid;
	uint64		generation;
	AttrNumber	attno[CATALOG_MAX_COLUMNS];
} ColumnMap;

extern void column_map_build(ColumnMap *map, TupleDesc desc);
extern void column_map_for(ColumnMap *map, Relation rel);

/*
 * Inserts a row with its index entries; fires no trigger.  Works with whatever indexes the table has, also
 * such as the owner added.
 */
extern void catalog_insert(Relation rel, const Datum *values, const bool *nulls);

/* Replaces the row at tid likewise.  A snapshot is registered or active (old toast values are deleted). */
extern void catalog_update(Relation rel, ItemPointer tid, const Datum *values, const bool *nulls);

/* ---- runs.c ------------------------------------------------------------------------------------ */

/* The columns of a row of dsched.run; false if its status is one that only a newer version knows. */
extern bool run_seen_from_tuple(HeapTuple tuple, Relation rel, RunSeen *out);

/* ---- access.c, queries ------------------------------------------------------------------------- */

/* A query of ours, its plan kept for the life of the process. */
typedef struct CatalogQuery
{
	const char *sql;
	int			expected;		/* SPI_OK_... */
	int			nargs;
	Oid			argtypes[CATALOG_MAX_COLUMNS];
	SPIPlanPtr	plan;
} CatalogQuery;

/* Runs it between catalog_spi_begin() and _finish(); rows stand in SPI_tuptable. nulls: NULL, or as SPI has it. */
extern uint64 catalog_run(CatalogQuery *query, const Datum *values, const char *nulls);

#endif /* DSCHED_ACCESS_H */
