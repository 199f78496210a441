/*
 * plans.c
 *	  What an executor keeps of the commands that it has run: parse trees and plans.
 *
 * Commands are found by their text, as many jobs have the same.  Of each we keep the parse trees, and for the
 * statements for which that is right a source of plans of the server (utils/plancache.h), made when it is
 * first their turn: a statement can need what the one before it makes.
 *
 * A run must not differ from one whose command is parsed and analysed for it.  That is more than is asked of
 * a prepared statement, so it takes more than the server's invalidation:
 *
 *	- Settings.  A run begins with those of a new session, which are the same each time: another setting of the
 *	  role or database ends the executor (session.c), and a reload of the configuration empties the cache.
 *	  What a statement finds changed by those before it is compared (AnalysisSettings; search_path and
 *	  row_security by the server).
 *	- Catalogs.  The server hears of changes to what a plan depends on, but not of a new table that hides one
 *	  of the same name, a better matching function, a granted membership that changes which policies apply.
 *	  Any message about relations, and about what else names resolve to, makes us analyse again.  Messages are
 *	  taken in at the start of the run's transaction, so a change that was committed before is seen.
 *	- Literals that mean another time at another time: see steady.c.
 *	- Sizes of tables, which a plan depends on and no message tells of.  A plan is used for a minute; what runs
 *	  less often is planned at every run, as the session of a client would.  It also bounds whatever is not
 *	  thought of here.
 *
 * There are no parameters, so the server always takes the generic plan.
 *
 * The bound, dsched.plan_cache_size, is kept between runs: during one, nothing that it uses goes away, whatever
 * fails. Nothing is entered before it is complete, so an error leaves nothing half made.  DISCARD PLANS, in a
 * job, makes the server analyse again; the parse trees stay, as no statement can change what they depend on.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "plans.h"
#include "settings.h"
#include "steady.h"

#define MAX_AGE (60 * USECS_PER_SEC)	/* of an analysis */
#define MAX_SHARE 4				/* no command may have more of the limit than one of so many parts */

/* KeptStatement.generation beside the numbers of the server, which begin with 1 */
#define NOT_PLANNED 0
#define NOT_LOOKED_AT (-1)

typedef struct KeptStatement
{
	RawStmt    *parsed;
	bool		never;			/* its text says that it has to be analysed each time */
	bool		refused;		/* so did its analysis at refused_at */
	uint64		refused_at;
	CachedPlanSource *source;	/* NULL: none yet, or it was dropped */
	int			generation;		/* of the source when steady.c looked at it; another one is not to be used again */
	uint64		catalogs;		/* catalog_changes before the analysis */
	int64		made_at;		/* boot time */
	AnalysisSettings settings;
} KeptStatement;

struct KeptCommand
{
	char	   *text;
	MemoryContext context;		/* has all of it but the sources, which the server has */
	dlist_node	use;			/* in by_use */
	List	   *statements;		/* of RawStmt */
	bool		top_level;
	bool		resized;		/* bytes is to be counted again */
	Size		bytes;			/* as in total */
	int			n;
	KeptStatement statement[FLEXIBLE_ARRAY_MEMBER];
};

/* In the hash table. */
typedef struct TableEntry
{
	const char *text;			/* the key */
	KeptCommand *command;
} TableEntry;

static MemoryContext plans_context = NULL;
static HTAB *table = NULL;
static dlist_head by_use = DLIST_STATIC_INIT(by_use);	/* last used first */
static Size total = 0;
static uint64 catalog_changes = 0;

static uint32 hash_text(const void *key, Size size);
static int	compare_texts(const void *a, const void *b, Size size);
static void relation_changed(Datum arg, Oid relid);
static void catalog_changed(Datum arg, int cache, uint32 hash);
static Size limit(void);
static bool source_is_good(const KeptStatement *statement);
static void drop_source(KeptStatement *statement);
static void drop_command(KeptCommand *command);
static void count_bytes(KeptCommand *command);

void
plans_init(void)
{
	/* by which names are looked up, rights that change what a query is rewritten to, what folded constants come from */
	static const int caches[] = {
		AUTHMEMROLEMEM, AUTHOID, CASTSOURCETARGET, COLLOID, DATABASEOID, ENUMOID, NAMESPACEOID, OPEROID, PROCOID,
		TSCONFIGMAP, TSCONFIGOID, TSDICTOID, TYPEOID, USERMAPPINGOID
	};
	HASHCTL		ctl = {0};

	plans_context = AllocSetContextCreate(TopMemoryContext, "dsched plans", ALLOCSET_SMALL_SIZES);
	ctl.keysize = sizeof(const char *);
	ctl.entrysize = sizeof(TableEntry);
	ctl.hash = hash_text;
	ctl.match = compare_texts;
	ctl.hcxt = plans_context;
	table = hash_create("dsched plans", 64, &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);

	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], catalog_changed, (Datum) 0);
}

static uint32
hash_text(const void *key, Size size)
{
	const char *text = *(const char *const *) key;

	return hash_bytes((const unsigned char *) text, (int) strlen(text));
}

static int
compare_texts(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static void
relation_changed(Datum arg, Oid relid)
{
	catalog_changes++;
}

static void
catalog_changed(Datum arg, int cache, uint32 hash)
{
	catalog_changes++;
}

/* ---- commands ---------------------------------------------------------------------------------- */

static Size
limit(void)
{
	return (Size) dsched_plan_cache_size * 1024;
}

KeptCommand *
plans_find(const char *text)
{
	TableEntry *entry;

	if (dlist_is_empty(&by_use))
		return NULL;
	entry = hash_search(table, &text, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	dlist_move_head(&by_use, &entry->command->use);
	return entry->command;
}

KeptCommand *
plans_add(const char *text, List *statements, bool top_level)
{
	int			n = list_length(statements);
	MemoryContext context;
	MemoryContext caller;
	KeptCommand *command;
	TableEntry *entry;
	bool		found;

	if (n == 0 || strlen(text) > limit() / MAX_SHARE)
		return NULL;

	context = AllocSetContextCreate(CurrentMemoryContext, "dsched command", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	command = palloc0(offsetof(KeptCommand, statement) + n * sizeof(KeptStatement));
	command->text = pstrdup(text);
	command->context = context;
	command->statements = copyObject(statements);
	command->top_level = top_level;
	command->resized = true;
	command->n = n;
	for (int i = 0; i < n; i++)
	{
		command->statement[i].parsed = list_nth_node(RawStmt, command->statements, i);
		command->statement[i].never = !steady_statement(command->statement[i].parsed);
	}
	MemoryContextSwitchTo(caller);

	entry = hash_search(table, &command->text, HASH_ENTER, &found);
	Assert(!found);
	entry->command = command;
	MemoryContextSetParent(context, plans_context);
	dlist_push_head(&by_use, &command->use);
	return command;
}

List *
plans_statements(const KeptCommand *command)
{
	return command->statements;
}

bool
plans_top_level(const KeptCommand *command)
{
	return command->top_level;
}

/* ---- statements -------------------------------------------------------------------------------- */

CachedPlanSource *
plans_source(KeptCommand *command, int n)
{
	KeptStatement *statement = &command->statement[n];

	if (statement->source != NULL)
	{
		if (source_is_good(statement))
			return statement->source;
		drop_source(statement);
		command->resized = true;
	}
	/* for plans_keep(): before the analysis, as messages can come during it */
	statement->catalogs = catalog_changes;
	return NULL;
}

static bool
source_is_good(const KeptStatement *statement)
{
	AnalysisSettings now;

	if (statement->catalogs != catalog_changes || !statement->source->is_valid ||
		statement->generation != statement->source->generation ||
		dsched_boot_now() - statement->made_at > MAX_AGE)
		return false;
	steady_settings(&now);
	return steady_settings_same(&now, &statement->settings);
}

CachedPlanSource *
plans_keep(KeptCommand *command, int n, List *queries)
{
	KeptStatement *statement = &command->statement[n];
	CachedPlanSource *source;

	if (statement->never || (statement->refused && statement->refused_at == statement->catalogs))
		return NULL;
	if (!steady_queries(queries))
	{
		statement->refused = true;
		statement->refused_at = statement->catalogs;
		return NULL;
	}

	/* in the caller's context until it is complete; a result of other columns than before is no error */
	source = CreateCachedPlan(statement->parsed, command->text, CreateCommandTag(statement->parsed->stmt));
	CompleteCachedPlan(source, queries, NULL, NULL, 0, NULL, NULL, CURSOR_OPT_PARALLEL_OK, false);
	SaveCachedPlan(source);
	statement->source = source;
	statement->generation = NOT_PLANNED;
	statement->made_at = dsched_boot_now();
	steady_settings(&statement->settings);
	command->resized = true;
	return source;
}

CachedPlan *
plans_get(KeptCommand *command, int n)
{
	KeptStatement *statement = &command->statement[n];
	int			looked_at = statement->generation;
	CachedPlan *plan;

	/* the server may analyse again: what comes of that, or of an error in it, is not for the next run */
	statement->generation = NOT_LOOKED_AT;
	plan = GetCachedPlan(statement->source, NULL, NULL, NULL);
	if (looked_at == NOT_PLANNED)
		looked_at = statement->source->generation;
	statement->generation = looked_at;
	if (looked_at != statement->source->generation)
		command->resized = true;
	return plan;
}

static void
drop_source(KeptStatement *statement)
{
	CachedPlanSource *source = statement->source;

	statement->source = NULL;
	DropCachedPlan(source);
}

/* ---- memory ------------------------------------------------------------------------------------ */

void
plans_trim(KeptCommand *command)
{
	if (command != NULL && command->resized)
	{
		count_bytes(command);
		if (command->bytes > limit() / MAX_SHARE)
			drop_command(command);
	}
	while (total > limit() && !dlist_is_empty(&by_use))
		drop_command(dlist_tail_element(KeptCommand, use, &by_use));
}

void
plans_forget(void)
{
	while (!dlist_is_empty(&by_use))
		drop_command(dlist_head_element(KeptCommand, use, &by_use));
}

static void
drop_command(KeptCommand *command)
{
	for (int i = 0; i < command->n; i++)
	{
		if (command->statement[i].source != NULL)
			drop_source(&command->statement[i]);
	}
	(void) hash_search(table, &command->text, HASH_REMOVE, NULL);
	dlist_delete(&command->use);
	total -= command->bytes;
	MemoryContextDelete(command->context);
}

static void
count_bytes(KeptCommand *command)
{
	Size		bytes = MemoryContextMemAllocated(command->context, true);

	for (int i = 0; i < command->n; i++)
	{
		const CachedPlanSource *source = command->statement[i].source;

		if (source == NULL)
			continue;
		bytes += MemoryContextMemAllocated(source->context, true);
		if (source->gplan != NULL)
			bytes += MemoryContextMemAllocated(source->gplan->context, true);
	}
	total += bytes - command->bytes;
	command->bytes = bytes;
	command->resized = false;
}
