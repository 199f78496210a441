/*
 * identity.c
 *	  The extension in this database: its OIDs, its owner's rights, and which cluster the database belongs to.
 *
 * OIDs are cached for the process and looked up again when one of the relations is invalidated: the extension
 * can be dropped and created again, or moved, while a worker lives.  That it is absent is never cached.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "compat.h"

static CatalogOids cached;
static bool cache_valid = false;
static uint64 generation = 1;

static void relation_invalidated(Datum arg, Oid relid);
static bool look_up_extension(CatalogOids *oids);
static bool look_up_relations(CatalogOids *oids);

/* ---- OIDs -------------------------------------------------------------------------------------- */

const CatalogOids *
catalog_oids(void)
{
	static bool registered = false;
	uint64		before = generation;

	if (cache_valid)
		return &cached;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
		registered = true;
	}
	/* filled in place, so that an invalidation that comes while we look is noticed */
	memset(&cached, 0, sizeof(cached));
	if (!look_up_extension(&cached) || !look_up_relations(&cached))
		return NULL;
	cache_valid = generation == before;
	return &cached;
}

const CatalogOids *
catalog_require(void)
{
	const CatalogOids *oids = catalog_oids();

	if (oids == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"dsched\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION dsched.")));
	return oids;
}

uint64
catalog_generation(void)
{
	return generation;
}

static void
relation_invalidated(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cached.job || relid == cached.job_pkey || relid == cached.job_name_key ||
		relid == cached.job_changed ||
		relid == cached.run || relid == cached.run_pkey || relid == cached.outbox ||
		relid == cached.partition_state || relid == cached.identity || relid == cached.queue ||
		relid == cached.queue_pkey)
	{
		cache_valid = false;
		generation++;
	}
}

char *
catalog_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("dsched"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		version = isnull ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

static bool
look_up_extension(CatalogOids *oids)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("dsched"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension extension = (Form_pg_extension) GETSTRUCT(tuple);

		oids->extension = extension->oid;
		oids->owner = extension->extowner;
		oids->schema = extension->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (creating_extension && CurrentExtensionObject == oids->extension)
		return false;
	return OidIsValid(oids->extension);
}

static bool
look_up_relations(CatalogOids *oids)
{
	struct
	{
		const char *name;
		Oid		   *oid;
	}			relations[] = {
		{"job", &oids->job},
		{"job_pkey", &oids->job_pkey},
		{"job_job_name_username_key", &oids->job_name_key},
		{"job_changed", &oids->job_changed},
		{"run", &oids->run},
		{"run_pkey", &oids->run_pkey},
		{"outbox", &oids->outbox},
		{"partition_state", &oids->partition_state},
		{"identity", &oids->identity},
		{"queue", &oids->queue},
		{"queue_pkey", &oids->queue_pkey},
	};

	for (size_t i = 0; i < lengthof(relations); i++)
	{
		*relations[i].oid = get_relname_relid(relations[i].name, oids->schema);
		if (!OidIsValid(*relations[i].oid))
			return false;
	}
	return true;
}

/* ---- SPI with the owner's rights --------------------------------------------------------------- */

/*
 * Plans are kept for the life of the process.  One that was made while a table was small, with a sequential scan, would
 * go on scanning it when one transaction defines 100,000 jobs.  And no query of ours gains from being compiled.
 */
static void
plan_for_large_tables(void)
{
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * What begin changes (user, settings, SPI, snapshot) is put back by the abort of the (sub)transaction if an
 * error comes before finish.
 */
void
catalog_spi_begin(CatalogSpi *state)
{
	const CatalogOids *oids = catalog_require();

	GetUserIdAndSecContext(&state->userid, &state->secctx);
	SetUserIdAndSecContext(oids->owner, state->secctx | SECURITY_LOCAL_USERID_CHANGE);
	state->nestlevel = NewGUCNestLevel();
	compat_restrict_search_path();
	plan_for_large_tables();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	state->pushed_snapshot = !ActiveSnapshotSet();
	if (state->pushed_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
}

void
catalog_spi_finish(CatalogSpi *state)
{
	if (state->pushed_snapshot)
		PopActiveSnapshot();
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	AtEOXact_GUC(false, state->nestlevel);
	SetUserIdAndSecContext(state->userid, state->secctx);
}

/* ---- the identity row -------------------------------------------------------------------------- */

static void
copy_text(char *to, size_t size, HeapTuple tuple, TupleDesc desc, const char *column)
{
	char	   *value = SPI_getvalue(tuple, desc, SPI_fnumber(desc, column));

	strlcpy(to, value ? value : "", size);
}

static int64
get_int64(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(tuple, desc, SPI_fnumber(desc, column), &isnull));
}

void
identity_read(Identity *out)
{
	static CatalogQuery query = {
		"SELECT * FROM dsched.identity", SPI_OK_SELECT
	};
	CatalogSpi	spi;

	memset(out, 0, sizeof(*out));
	catalog_spi_begin(&spi);
	if (catalog_run(&query, NULL, NULL) > 0)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		out->found = true;
		out->system_identifier = (uint64) get_int64(tuple, desc, "system_identifier");
		out->database_oid =
			DatumGetObjectId(SPI_getbinval(tuple, desc, SPI_fnumber(desc, "database_oid"), &isnull));
		copy_text(out->database_name, sizeof(out->database_name), tuple, desc, "database_name");
		copy_text(out->cluster, sizeof(out->cluster), tuple, desc, "cluster");
		copy_text(out->incarnation, sizeof(out->incarnation), tuple, desc, "incarnation");
		out->max_revision = get_int64(tuple, desc, "max_revision");
		out->applied_revision = get_int64(tuple, desc, "applied_revision");
		out->former_revision = get_int64(tuple, desc, "former_revision");
		out->beat_revision = get_int64(tuple, desc, "beat_revision");
		copy_text(out->beat_node, sizeof(out->beat_node), tuple, desc, "beat_node");
		out->replaced = DatumGetBool(SPI_getbinval(tuple, desc, SPI_fnumber(desc, "replaced"), &isnull));
		copy_text(out->held, sizeof(out->held), tuple, desc, "held");
		copy_text(out->key_ids, sizeof(out->key_ids), tuple, desc, "key_ids");
	}
	catalog_spi_finish(&spi);
}

void
identity_write(const Identity *in)
{
	static CatalogQuery query = {
		"INSERT INTO dsched.identity (singleton, system_identifier, database_oid, database_name, cluster,"
		" incarnation, max_revision, applied_revision, held, former_revision, beat_revision, beat_node, replaced,"
		" key_ids)"
		" VALUES (true, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
		" ON CONFLICT (singleton) DO UPDATE SET"
		" (system_identifier, database_oid, database_name, cluster, incarnation, max_revision, applied_revision, held,"
		" former_revision, beat_revision, beat_node, replaced, key_ids)"
		" = ROW(EXCLUDED.system_identifier, EXCLUDED.database_oid, EXCLUDED.database_name, EXCLUDED.cluster,"
		" EXCLUDED.incarnation, EXCLUDED.max_revision, EXCLUDED.applied_revision, EXCLUDED.held, EXCLUDED.former_revision,"
		" EXCLUDED.beat_revision, EXCLUDED.beat_node, EXCLUDED.replaced, EXCLUDED.key_ids)",
		SPI_OK_INSERT, 13,
		{INT8OID, OIDOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID, TEXTOID, BOOLOID, TEXTOID}
	};
	CatalogSpi	spi;
	Datum		values[13];

	catalog_spi_begin(&spi);
	values[0] = Int64GetDatum((int64) in->system_identifier);
	values[1] = ObjectIdGetDatum(in->database_oid);
	values[2] = CStringGetTextDatum(in->database_name);
	values[3] = CStringGetTextDatum(in->cluster);
	values[4] = CStringGetTextDatum(in->incarnation);
	values[5] = Int64GetDatum(in->max_revision);
	values[6] = Int64GetDatum(in->applied_revision);
	values[7] = CStringGetTextDatum(in->held);
	values[8] = Int64GetDatum(in->former_revision);
	values[9] = Int64GetDatum(in->beat_revision);
	values[10] = CStringGetTextDatum(in->beat_node);
	values[11] = BoolGetDatum(in->replaced);
	values[12] = CStringGetTextDatum(in->key_ids);
	catalog_run(&query, values, in->held[0] == '\0' ? "       n     " : NULL);
	catalog_spi_finish(&spi);
}
