/*
 * access.c
 *	  Access to the tables of the extension beneath SQL, and queries with kept plans.
 *
 * Executors write their rows in the transaction of somebody else's commands.  What those left behind must not
 * touch our row: no trigger, rule, default, privilege, search path or read-only mode counts here, as nothing
 * is parsed, planned or looked up by name.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "utils/rel.h"

#include "access.h"
#include "compat.h"

/* ---- columns ----------------------------------------------------------------------------------- */

void
column_map_build(ColumnMap *map, TupleDesc desc)
{
	Assert(map->n <= CATALOG_MAX_COLUMNS);

	memset(map->attno, 0, sizeof(map->attno));
	for (int i = 0; i < map->n; i++)
	{
		for (int a = 0; a < desc->natts; a++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, a);

			if (!att->attisdropped && strcmp(NameStr(att->attname), map->names[i]) == 0)
				map->attno[i] = a + 1;
		}
	}
}

void
column_map_for(ColumnMap *map, Relation rel)
{
	if (map->relid == RelationGetRelid(rel) && map->generation == catalog_generation())
		return;
	column_map_build(map, RelationGetDescr(rel));
	map->relid = RelationGetRelid(rel);
	map->generation = catalog_generation();
}

/* ---- rows -------------------------------------------------------------------------------------- */

static ResultRelInfo *
open_result_relation(Relation rel)
{
	ResultRelInfo *result = makeNode(ResultRelInfo);

	InitResultRelInfo(result, rel, 0, NULL, 0);
	result->ri_TrigDesc = NULL;
	ExecOpenIndices(result, false);
	return result;
}

static TupleTableSlot *
slot_of_values(EState *estate, Relation rel, const Datum *values, const bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(rel);
	TupleTableSlot *slot = ExecInitExtraTupleSlot(estate, desc, &TTSOpsVirtual);

	memcpy(slot->tts_values, values, desc->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, desc->natts * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

static void
close_result_relation(EState *estate, ResultRelInfo *result)
{
	ExecCloseIndices(result);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

void
catalog_insert(Relation rel, const Datum *values, const bool *nulls)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext caller = MemoryContextSwitchTo(estate->es_query_cxt);
	ResultRelInfo *result = open_result_relation(rel);

	ExecSimpleRelationInsert(result, estate, slot_of_values(estate, rel, values, nulls));
	MemoryContextSwitchTo(caller);
	close_result_relation(estate, result);
}

void
catalog_update(Relation rel, ItemPointer tid, const Datum *values, const bool *nulls)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext caller = MemoryContextSwitchTo(estate->es_query_cxt);
	ResultRelInfo *result = open_result_relation(rel);
	TupleTableSlot *old = ExecInitExtraTupleSlot(estate, RelationGetDescr(rel), &TTSOpsVirtual);

	/* without triggers, all that is asked of the old row is where it is */
	ItemPointerCopy(tid, &old->tts_tid);
	ExecSimpleRelationUpdate(result, estate, NULL, old, slot_of_values(estate, rel, values, nulls));
	MemoryContextSwitchTo(caller);
	close_result_relation(estate, result);
}

/* ---- queries ----------------------------------------------------------------------------------- */

uint64
catalog_run(CatalogQuery *query, const Datum *values, const char *nulls)
{
	int			result;

	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->sql, query->nargs, query->argtypes);

		if (plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", query->sql, SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep the plan of \"%s\"", query->sql);
		query->plan = plan;
	}
	result = SPI_execute_plan(query->plan, unconstify(Datum *, values), nulls, false, 0);
	if (result != query->expected)
		elog(ERROR, "could not execute \"%s\": %s", query->sql, SPI_result_code_string(result));
	return SPI_processed;
}
