/*
 * views.c
 *	  What the views jobs, runs, nodes and partitions need beyond the tables.
 *
 * The views are security barriers and read the tables with their owner's rights; the table of runs is read with
 * the caller's, under a policy.  In both, who may see a row is asked of may_see().  The set-returning functions
 * read shared memory, copy what they need under the lock and
 * build rows afterwards.  As everybody may call them, they leave out what the caller may not see.
 *
 * Without shared memory (the library was not preloaded) the sets are empty, not an error, so that a view can
 * still be read in a database that was restored on such a server.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "clock.h"
#include "core/keys.h"
#include "places.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_visible);
PG_FUNCTION_INFO_V1(dsched_run_key);
PG_FUNCTION_INFO_V1(dsched_next_run);
PG_FUNCTION_INFO_V1(dsched_owner_node);
PG_FUNCTION_INFO_V1(dsched_place_problem);
PG_FUNCTION_INFO_V1(dsched_active_runs);
PG_FUNCTION_INFO_V1(dsched_now);
PG_FUNCTION_INFO_V1(dsched_members);
PG_FUNCTION_INFO_V1(dsched_partition_list);

/* What _active_runs() shows of an entry of the queue. */
typedef struct ActiveRun
{
	RunEntry	entry;
	Oid			role;
} ActiveRun;

/* What _partitions() shows of a partition. */
typedef struct PartitionInfo
{
	char		owner[DSCHED_MAX_NODE_NAME];
	uint64		owner_epoch;
	PartitionPhase phase;
} PartitionInfo;

/*
 * _visible() is asked of each row of a scan, of few roles again and again.  So a query remembers what it was told: by the hash of the
 * name, the last one that came wins.
 */
#define VISIBLE_CACHED 64

typedef struct VisibleCache
{
	Oid			userid;			/* who asked; a function that runs as somebody else begins anew */
	struct
	{
		int			len;		/* 0: unused */
		bool		visible;
		char		name[NAMEDATALEN];
	}			entries[VISIBLE_CACHED];
} VisibleCache;

static VisibleCache *
visible_cache(FmgrInfo *flinfo)
{
	VisibleCache *cache = flinfo->fn_extra;

	if (cache == NULL)
		cache = flinfo->fn_extra = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(VisibleCache));
	if (cache->userid != GetUserId())
	{
		memset(cache, 0, sizeof(*cache));
		cache->userid = GetUserId();
	}
	return cache;
}

/* _visible(username): may the caller see this role's jobs? */
Datum
dsched_visible(PG_FUNCTION_ARGS)
{
	text	   *username = PG_GETARG_TEXT_PP(0);
	const char *name = VARDATA_ANY(username);
	int			len = VARSIZE_ANY_EXHDR(username);
	VisibleCache *cache = visible_cache(fcinfo->flinfo);
	int			i;

	/* no role is named like this; if anybody may see it, it is for the same reason as one that was dropped */
	if (len == 0 || len >= NAMEDATALEN)
		PG_RETURN_BOOL(may_see(InvalidOid));
	i = hash_bytes((const unsigned char *) name, len) % VISIBLE_CACHED;
	if (cache->entries[i].len != len || memcmp(cache->entries[i].name, name, len) != 0)
	{
		cache->entries[i].len = 0;
		cache->entries[i].visible = may_see(get_role_oid(text_to_cstring(username), true));
		memcpy(cache->entries[i].name, name, len);
		cache->entries[i].len = len;
	}
	PG_RETURN_BOOL(cache->entries[i].visible);
}

/* _run_key(job_id, scheduled_for, trigger_id) */
Datum
dsched_run_key(PG_FUNCTION_ARGS)
{
	RunKey		key;

	memset(&key, 0, sizeof(key));
	key.job_id = PG_GETARG_INT64(0);
	key.scheduled_for = PG_GETARG_TIMESTAMPTZ(1);
	key.trigger_id = PG_GETARG_INT64(2);
	PG_RETURN_TEXT_P(cstring_to_text(run_key_text(&key)));
}

/* ---- jobs --------------------------------------------------------------------------------------- */

static char *
text_column(HeapTupleHeader tuple, const char *name)
{
	bool		isnull;
	Datum		value = GetAttributeByName(tuple, name, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static TimestampTz
time_column(HeapTupleHeader tuple, const char *name)
{
	bool		isnull;
	Datum		value = GetAttributeByName(tuple, name, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* _next_run(a row of dsched.job): when it comes due next; NULL: not again, not while paused, or not known */
Datum
dsched_next_run(PG_FUNCTION_ARGS)
{
	HeapTupleHeader tuple = PG_GETARG_HEAPTUPLEHEADER(0);
	bool		isnull;
	JobRow		row;
	SlotRule	rule;
	char	   *problem;
	TimestampTz next;

	if (dsched_shared == NULL || !DatumGetBool(GetAttributeByName(tuple, "active", &isnull)) || isnull)
		PG_RETURN_NULL();

	memset(&row, 0, sizeof(row));
	row.policy = policy_default;
	row.schedule = text_column(tuple, "schedule");
	row.run_at = time_column(tuple, "run_at");
	row.time_zone = text_column(tuple, "time_zone");
	row.starts_at = time_column(tuple, "starts_at");
	row.expires_at = time_column(tuple, "expires_at");
	row.last_slot = time_column(tuple, "last_slot");
	row.anchor = time_column(tuple, "anchor");
	row.slots_from = time_column(tuple, "slots_from");
	if ((row.schedule != NULL && row.time_zone == NULL) || !slot_rule_make(&row, &rule, &problem))
		PG_RETURN_NULL();

	/* A one-shot whose time has passed is due at once. */
	next = rule.one_shot ? rule.run_at : slot_next(&rule, dsched_wall_now());
	if (next == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/* The owner of a partition of this database; false: nobody, as far as is known here. */
static bool
read_owner(const char *run_on, const char *username, const char *job_name, char *owner)
{
	int			db;

	owner[0] = '\0';
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
	{
		const DatabaseSlot *slot = &dsched_shared->databases[db];
		int			place = run_on != NULL ? place_find(slot, run_on) : PLACE_IS_ANY;
		int			partition = -1;

		if (run_on == NULL)
			partition = keys_partition(username, job_name, dsched_partitions);
		else if (place >= 0)
			partition = place_first(place) + keys_partition(username, job_name, DSCHED_PLACE_PARTITIONS);
		if (partition >= 0)
			strlcpy(owner, slot->partitions[partition].owner, DSCHED_MAX_NODE_NAME);
	}
	LWLockRelease(dsched_shared->control_lock);
	return owner[0] != '\0';
}

static Datum
node_name_datum(const char *name)
{
	return CStringGetTextDatum(pg_any_to_server(name, strlen(name), PG_UTF8));
}

/* _owner_node(username, job_name, run_on): the instance that runs the job; NULL: none does, or each */
Datum
dsched_owner_node(PG_FUNCTION_ARGS)
{
	char		owner[DSCHED_MAX_NODE_NAME];
	char	   *run_on;

	if (dsched_shared == NULL || PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	run_on = PG_ARGISNULL(2) ? NULL : to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (!read_owner(run_on, to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(0))),
					to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(1))), owner))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(node_name_datum(owner));
}

/* _place_problem(run_on): why nobody runs jobs with this selector, as far as this instance knows; else NULL */
Datum
dsched_place_problem(PG_FUNCTION_ARGS)
{
	char	   *run_on = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		nobody = false;
	int			db;

	if (dsched_shared == NULL || strchr(run_on, '=') == NULL)
		PG_RETURN_NULL();
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
	{
		int			place = place_find(&dsched_shared->databases[db], to_utf8(run_on));

		nobody = place >= 0 && dsched_shared->databases[db].places[place].known &&
			dsched_shared->databases[db].places[place].matches == 0;
	}
	LWLockRelease(dsched_shared->control_lock);
	if (!nobody)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("no living instance matches run_on \"%s\"", run_on)));
}

/* ---- runs --------------------------------------------------------------------------------------- */

static bool
is_active_here(const RunEntry *entry)
{
	return (entry->state == ENTRY_QUEUED || entry->state == ENTRY_RUNNING) &&
		dsched_shared->lanes[entry->lane].dboid == MyDatabaseId;
}

bool
is_run_active(const RunKey *run)
{
	bool		found = false;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->queue_size && !found; i++)
	{
		const RunEntry *entry = &dsched_shared->entries[i];

		found = is_active_here(entry) && entry->key.job_id == run->job_id &&
			entry->key.scheduled_for == run->scheduled_for && entry->key.trigger_id == run->trigger_id;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return found;
}

/* Copies this database's queued and running entries; n of them. */
static ActiveRun *
copy_active_runs(int *n)
{
	ActiveRun  *runs;
	int			count = 0;

	LWLockAcquire(dsched_shared->queue_lock, LW_SHARED);
	for (int i = 0; i < dsched_shared->queue_size; i++)
		count += is_active_here(&dsched_shared->entries[i]) ? 1 : 0;
	runs = MemoryContextAllocHuge(CurrentMemoryContext, (count + 1) * sizeof(ActiveRun));
	*n = 0;
	for (int i = 0; i < dsched_shared->queue_size && *n < count; i++)
	{
		const RunEntry *entry = &dsched_shared->entries[i];

		if (!is_active_here(entry))
			continue;
		runs[*n].entry = *entry;
		runs[*n].role = dsched_shared->lanes[entry->lane].roleoid;
		(*n)++;
	}
	LWLockRelease(dsched_shared->queue_lock);
	return runs;
}

static void
put_active_run(ReturnSetInfo *rsinfo, const ActiveRun *run, const char *username)
{
	const RunEntry *entry = &run->entry;
	bool		running = entry->state == ENTRY_RUNNING;
	Datum		values[11];
	bool		nulls[11] = {false};
	int			i = 0;

	values[i++] = Int64GetDatum(entry->key.job_id);
	values[i++] = CStringGetTextDatum(username);
	values[i++] = TimestampTzGetDatum(entry->key.scheduled_for);
	values[i++] = Int64GetDatum(entry->key.trigger_id);
	values[i++] = Int32GetDatum(entry->key.attempt);
	values[i++] = Int64GetDatum(entry->gen);
	values[i++] = CStringGetTextDatum(running ? "running" : "queued");
	values[i++] = CStringGetTextDatum(run_reason_name(entry->reason));
	nulls[i] = !running || entry->started_at == 0;
	values[i++] = TimestampTzGetDatum(entry->started_at);
	values[i++] = Int64GetDatum(dsched_shown_epoch(entry->token.epoch));
	nulls[i] = !running || entry->pid == 0;
	values[i++] = Int32GetDatum(entry->pid);
	Assert(i == lengthof(values));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* _now(): the wall clock, or the test clock */
Datum
dsched_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(dsched_wall_now());
}

/* _active_runs(): what is queued and running in this database, of roles whose jobs the caller may see */
Datum
dsched_active_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ActiveRun  *runs;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (dsched_shared == NULL)
		PG_RETURN_NULL();

	runs = copy_active_runs(&n);
	for (int i = 0; i < n; i++)
	{
		char	   *username = GetUserNameFromId(runs[i].role, true);

		if (may_see(username ? runs[i].role : InvalidOid))
			put_active_run(rsinfo, &runs[i], username ? username : "");
	}
	PG_RETURN_NULL();
}

/* ---- nodes -------------------------------------------------------------------------------------- */

static MemberInfo *
copy_members(int *n)
{
	MemberInfo *members = palloc(sizeof(MemberInfo) * DSCHED_MAX_NODES);

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	*n = dsched_shared->nmembers;
	memcpy(members, dsched_shared->members, sizeof(MemberInfo) * *n);
	LWLockRelease(dsched_shared->control_lock);
	return members;
}

/* An instance without etcd is the only member that there is. */
static MemberInfo *
only_member(int *n)
{
	MemberInfo *member = palloc0(sizeof(MemberInfo));

	strlcpy(member->name, dsched_my_node(), sizeof(member->name));
	strlcpy(member->labels, dsched_node_labels ? dsched_node_labels : "", sizeof(member->labels));
	member->port = PostPortNumber;
	member->session = DSCHED_STANDALONE_TOKEN;
	*n = 1;
	return member;
}

static void
put_member(ReturnSetInfo *rsinfo, const MemberInfo *member)
{
	Datum		values[9];
	bool		nulls[9] = {false};
	int			i = 0;

	values[i++] = node_name_datum(member->name);
	values[i++] = BoolGetDatum(strcmp(member->name, dsched_my_node()) == 0);
	nulls[i] = member->host[0] == '\0';
	values[i++] = node_name_datum(member->host);
	values[i++] = Int32GetDatum(member->port);
	nulls[i] = member->labels[0] == '\0';
	values[i++] = node_name_datum(member->labels);
	nulls[i] = member->version[0] == '\0';
	values[i++] = node_name_datum(member->version);
	values[i++] = Int64GetDatum(member->session);
	nulls[i] = member->joined_wall == 0;
	values[i++] = TimestampTzGetDatum(member->joined_wall);
	values[i++] = Int64GetDatum(member->skew_ms);
	Assert(i == lengthof(values));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* _members(): the instances of the cluster */
Datum
dsched_members(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemberInfo *members;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (dsched_shared == NULL)
		PG_RETURN_NULL();

	members = dsched_clustered() ? copy_members(&n) : only_member(&n);
	for (int i = 0; i < n; i++)
		put_member(rsinfo, &members[i]);
	PG_RETURN_NULL();
}

/* ---- partitions --------------------------------------------------------------------------------- */

/* Copies the partitions of this database; false if the instance knows nothing of them. */
static bool
copy_partitions(PartitionInfo *out, DatabaseSlot *places)
{
	int			db;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	db = dsched_find_database(MyDatabaseId);
	if (db >= 0)
	{
		memcpy(places->places, dsched_shared->databases[db].places, sizeof(places->places));
		places->each_jobs = dsched_shared->databases[db].each_jobs;
	}
	for (int i = 0; db >= 0 && i < places_all(); i++)
	{
		const PartitionSlot *slot = &dsched_shared->databases[db].partitions[i];

		strlcpy(out[i].owner, slot->owner, sizeof(out[i].owner));
		out[i].owner_epoch = slot->owner_epoch;
		out[i].phase = slot->phase;
	}
	LWLockRelease(dsched_shared->control_lock);
	return db >= 0;
}

static const char *
phase_name(PartitionPhase phase)
{
	switch (phase)
	{
		case PARTITION_NONE:
			break;
		case PARTITION_OWNED:
			return "taking over";
		case PARTITION_ACTIVE:
			return "active";
		case PARTITION_RELEASING:
			return "draining";
		case PARTITION_RELEASED:
			return "released";
	}
	return NULL;
}

static void
put_partition(ReturnSetInfo *rsinfo, const char *place, int number, const PartitionInfo *partition)
{
	const char *phase = phase_name(partition->phase);
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = node_name_datum(place);
	values[1] = Int32GetDatum(number);
	nulls[2] = partition->owner[0] == '\0';
	values[2] = node_name_datum(partition->owner);
	nulls[3] = partition->owner_epoch == 0;
	values[3] = Int64GetDatum(dsched_shown_epoch(partition->owner_epoch));
	nulls[4] = phase == NULL;
	values[4] = CStringGetTextDatum(phase ? phase : "");
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The place of a partition, if it has jobs or may have some: that of "any" always; NULL. */
static const char *
shown_place(const DatabaseSlot *places, int partition)
{
	int			place = place_of(partition);

	if (place == PLACE_IS_ANY)
		return KEYS_PLACE_ANY;
	if (place == PLACE_IS_EACH)
		return places->each_jobs > 0 ? PLACE_EACH : NULL;
	if (place == PLACE_IS_NOWHERE || places->places[place].selector[0] == '\0')
		return NULL;
	return places->places[place].selector;
}

/* _partitions(): who owns which partition of this database's jobs */
Datum
dsched_partition_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PartitionInfo *partitions;
	DatabaseSlot *places;

	InitMaterializedSRF(fcinfo, 0);
	if (dsched_shared == NULL)
		PG_RETURN_NULL();

	partitions = palloc0(sizeof(PartitionInfo) * DSCHED_MAX_PARTITIONS);
	places = palloc0(sizeof(DatabaseSlot));
	if (copy_partitions(partitions, places))
	{
		for (int i = 0; i < places_all(); i++)
		{
			const char *place = shown_place(places, i);

			if (place != NULL)
				put_partition(rsinfo, place, place_number(i), &partitions[i]);
		}
	}
	PG_RETURN_NULL();
}
