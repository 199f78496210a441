/*
 * steady.c
 *	  Would a statement, analysed again later, come to the same?
 *
 * A job's command means what it would mean if it were parsed anew at every run.  Analysis depends on the
 * catalogs, which send messages when they change (plans.c hears of all that matter), on a few settings, and,
 * unlike execution, on the time: a literal becomes a constant in analysis, by the input function of its
 * type.  date 'today' is the day of the analysis.  A prepared statement keeps that day; a job must not.
 *
 * So a statement is steady only if each constant in it is of a type whose input function gives the same for
 * the same text and settings, and no literal has one of the words in it that stand for a time.  All literals
 * are looked at, whatever their type turns out to be: the word may be part of a range, an array, a row.
 *
 * The body of a function in the language SQL can be put into the statement when it is planned, literals and
 * all.  What calls one of a user's is not steady.  (Where it is not put in, it is planned at every call up to
 * PostgreSQL 17, which costs more than the statement around it.)  Nor is what calls a function of a user's that is
 * said to be immutable: planning makes a constant of it, and often it reads a table, or the time, all the same.
 * We believe those that are written in C.
 *
 * Each of these errs to the side of looking again, which costs time only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_expr.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "steady.h"

static bool names_a_time(Node *node, void *context);
static bool has_unsteady_part(Node *node, void *context);
static bool calls_unsteady(Oid function, void *context);
static bool type_is_steady(Oid type);

/* ---- settings ---------------------------------------------------------------------------------- */

void
steady_settings(AnalysisSettings *out)
{
	out->userid = GetUserId();
	out->date_order = DateOrder;
	out->interval_style = IntervalStyle;
	out->array_nulls = Array_nulls;
	out->transform_null_equals = Transform_null_equals;
	out->time_zone = session_timezone;
}

bool
steady_settings_same(const AnalysisSettings *a, const AnalysisSettings *b)
{
	return a->userid == b->userid && a->date_order == b->date_order && a->interval_style == b->interval_style &&
		a->array_nulls == b->array_nulls && a->transform_null_equals == b->transform_null_equals &&
		a->time_zone == b->time_zone;
}

/* ---- the text ---------------------------------------------------------------------------------- */

/* Other statements than these are hardly analysed at all, and often do something to the tree that they are. */
bool
steady_statement(const RawStmt *statement)
{
	switch (nodeTag(statement->stmt))
	{
		case T_SelectStmt:
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
			return !names_a_time(statement->stmt, NULL);
		default:
			return false;
	}
}

static bool
names_a_time(Node *node, void *context)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};

	if (node == NULL)
		return false;
	if (IsA(node, A_Const))
	{
		A_Const    *constant = (A_Const *) node;

		if (constant->isnull || !IsA(&constant->val, String))
			return false;
		for (const char *c = strVal(&constant->val); *c != '\0'; c++)
			for (size_t i = 0; i < lengthof(words); i++)
				if (pg_strncasecmp(c, words[i], strlen(words[i])) == 0)
					return true;
		return false;
	}
	/* the walker passes its literals by */
	if (IsA(node, CommonTableExpr) && ((CommonTableExpr *) node)->cycle_clause != NULL)
		return true;
	return raw_expression_tree_walker(node, names_a_time, context);
}

/* ---- the analysis ------------------------------------------------------------------------------ */

bool
steady_queries(List *queries)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		Query	   *query = lfirst_node(Query, lc);

		/* SELECT INTO, and what rules make of other statements */
		if (query->commandType == CMD_UTILITY)
			return false;
		if (query_tree_walker(query, has_unsteady_part, NULL, 0))
			return false;
	}
	return true;
}

static bool
has_unsteady_part(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_unsteady_part, context, 0);
	if (IsA(node, Const) && !((Const *) node)->constisnull && !type_is_steady(((Const *) node)->consttype))
		return true;
	if (check_functions_in_node(node, calls_unsteady, context))
		return true;
	return expression_tree_walker(node, has_unsteady_part, context);
}

static bool
calls_unsteady(Oid function, void *context)
{
	HeapTuple	tuple;
	Form_pg_proc proc;
	bool		result;

	if (function < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	result = proc->prolang == SQLlanguageId ||
		(proc->provolatile == PROVOLATILE_IMMUTABLE && proc->prolang != ClanguageId && proc->prolang != INTERNALlanguageId);
	ReleaseSysCache(tuple);
	return result;
}

/* Does its input function make the same of the same text, with the same settings and no word for a time in it? */
static bool
type_is_steady(Oid type)
{
	Oid			element = get_element_type(type);
	Oid			input;
	Oid			ioparam;

	if (OidIsValid(element))
		return type_is_steady(element);

	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			return type_is_steady(getBaseType(type));
		case TYPTYPE_RANGE:
			return type_is_steady(get_range_subtype(type));
		case TYPTYPE_MULTIRANGE:
			return type_is_steady(get_multirange_range(type));
		case TYPTYPE_ENUM:
			return true;
		case TYPTYPE_PSEUDO:
			return type == UNKNOWNOID || type == CSTRINGOID;
		case TYPTYPE_BASE:
			break;
		default:
			return false;
	}

	/* a zone's offset today; lc_monetary; xmloption */
	if (type == TIMETZOID || type == CASHOID || type == XMLOID)
		return false;
	if (type < FirstNormalObjectId)
		return true;
	getTypeInputInfo(type, &input, &ioparam);
	return func_volatile(input) == PROVOLATILE_IMMUTABLE;
}
