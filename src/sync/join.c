/*
 * join.c
 *	  The rows of dsched.job as new ones of a cluster, or carried over into its next incarnation.
 *
 * JOINING marks each row as one that no cluster has seen, once in the life of a database in a cluster.
 *
 * CARRYING OVER
 *
 * A cluster that was recovered has a new incarnation, and etcd has nothing of the former one.  What the jobs are stands in the
 * tables of all instances: each of them publishes all of its rows, if etcd has none of the name or an older one.  Older or newer is
 * said by the former incarnation's revisions: a row that was published in it is marked with gen_rev = -mod_revision, and so
 * is the value in etcd.  1 is for rows of an incarnation before that.  Equal versions have equal change ids, as for a publication
 * whose answer was lost.  Changes that were not published are laid over what etcd has.
 *
 * The slots stay those of their generation, but none up to a moment is open: resume_from; or, in another number of
 * partitions, what the account of the job's former partition said, so that no slot is lost or made twice.  A job that runs once,
 * at a time not after that moment, is paused: nobody can say if it has run.  Jobs that run on each instance have their account in its
 * table, which stays; their partition is not taken over before they are all back from etcd.
 *
 * WHAT WAS DELETED
 *
 * must not come back from an instance that did not hear of it.
 *
 *	- An instance that has carried over all of its rows notes in former/<database> up to which revision it had known
 *	  everything.  Whoever comes later marks rows up to that revision as KNOWN_BEFORE: if etcd has none of the name, the row goes.
 *	- Before that key is there, an instance that has no row of a version that it must have known deletes it again (apply.c).
 *
 * Who dies in the midst of it goes on: marked rows are recognised, and the identity is written with the last of them.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"

#include "clock.h"
#include "catalog/upkeep.h"
#include "compat.h"
#include "places.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define REQUEST_TIMEOUT_MS 5000
#define RETRY_BASE_US INT64CONST(500000)
#define RETRY_MAX_US INT64CONST(10000000)

/* Rows that are carried over in one transaction. */
#define CARRY_BATCH 1000

/* ---- joining ------------------------------------------------------------------------------------- */

/* A row as one that no cluster has seen; its slots of the past stay in the past. */
static void
mark_new(JobRow *row)
{
	row->mod_revision = 0;
	row->gen_rev = 0;
	row->slots_from = Max(row->slots_from, scheduler.now);
	row->changed = list_make1("all");
	row->change_id = sync_random_id();
	job_update(row);
}

typedef struct Joining
{
	const ConfigInfo *config;
	int64		highest;
	bool		complete;
} Joining;

static void
enter(Identity *identity, const Joining *joining)
{
	strlcpy(identity->cluster, dsched_cluster_name, sizeof(identity->cluster));
	strlcpy(identity->incarnation, joining->config->incarnation, sizeof(identity->incarnation));
	identity->max_revision = joining->highest;
	identity->applied_revision = 0;
	identity->beat_revision = 0;
	identity->replaced = false;
}

/*
 * Marks all rows.  Those that somebody has locked are left for the next time, and so is the identity, which
 * says that all are marked.
 */
static void
join_rows(void *arg)
{
	Joining    *joining = arg;
	Identity	identity;
	ListCell   *lc;

	joining->complete = queue_offer_all();
	foreach(lc, job_read_all())
	{
		JobRow	   *row = lfirst(lc);
		int			locked;

		CHECK_FOR_INTERRUPTS();
		if (row->mod_revision == 0 && row->gen_rev == 0 && sync_is_changed(row, "all"))
			continue;
		locked = job_try_lock(row->job_id);
		if (locked > 0 && job_read(row->job_id, row))
			mark_new(row);
		else if (locked < 0)
			joining->complete = false;
	}
	if (!joining->complete)
		return;

	identity_read(&identity);
	enter(&identity, joining);
	identity.former_revision = 0;
	identity_write(&identity);
}

bool
sync_join(const ConfigInfo *config, int64 highest)
{
	Joining		joining = {config, highest};

	if (!scheduler_transaction(join_rows, &joining, "joining the cluster") || !joining.complete)
		return false;
	enter(&scheduler.identity, &joining);
	scheduler.identity.former_revision = 0;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	strlcpy(scheduler.slot->incarnation, config->incarnation, sizeof(scheduler.slot->incarnation));
	scheduler.slot->max_revision = highest;
	LWLockRelease(dsched_shared->control_lock);
	ereport(LOG,
			(errmsg("dsched: database \"%s\" has joined the cluster \"%s\"", scheduler.dbname, dsched_cluster_name)));
	return true;
}

/* ---- carrying over ------------------------------------------------------------------------------- */

typedef struct Carrying
{
	Joining		joining;
	const FormerInfo *former;
	bool		is_latest;		/* our incarnation is the one right before this */
	int			done;			/* rows of carried that were looked at */
	int			paused;
} Carrying;

/* Ids of the rows that are to be looked at, from one look through the table; palloc'd in scheduler.context. */
static struct
{
	int64	   *ids;
	int			n;
	int			max;
	int			next;			/* the first that was not looked at */
} carried;

bool
sync_is_former(const ConfigInfo *config, const char *incarnation)
{
	for (int i = 0; i < config->nprevious; i++)
		if (strcmp(config->previous[i], incarnation) == 0)
			return true;
	return false;
}

/* Slots of the job up to this time are not open. */
static TimestampTz
accounted_until(const Carrying *carrying, const JobRow *row)
{
	const ConfigInfo *config = carrying->joining.config;
	const FormerInfo *former = carrying->former;
	char	   *role;
	char	   *name;

	if (former == NULL || former->npartitions == 0)
	{
		/* what was made of it under the former incarnation is not known any more, and nothing may be made twice */
		if (row->policy.delivery != DELIVERY_AT_LEAST_ONCE)
			return Max(config->resume_from, config->recovered_at);
		return config->resume_from;
	}
	role = sync_to_utf8(row->username);
	name = sync_to_utf8(row->job_name);
	if (role == NULL || name == NULL)
		return CODEC_MIN_TIME;
	if (row->run_on == NULL)
		return former->watermarks[keys_partition(role, name, former->npartitions)];
	for (int i = 0; i < former->nplaces; i++)
		if (strcmp(former->places[i].place, sync_to_utf8(row->run_on)) == 0)
			return former->places[i].watermarks[keys_partition(role, name, CODEC_PLACE_PARTITIONS)];
	return CODEC_MIN_TIME;		/* nobody has had it */
}

/* A row that was published in a former incarnation. */
static void
mark_carried(JobRow *row, Carrying *carrying)
{
	/* of a job of "each" every instance has its own account, in its table, and goes on from that */
	bool		each = row->run_on != NULL && strcmp(row->run_on, PLACE_EACH) == 0;
	TimestampTz until = each ? CODEC_MIN_TIME : accounted_until(carrying, row);
	int64		version = carrying->is_latest ? row->mod_revision : 1;
	bool		begins = row->gen_rev == 0; /* its generation is not published */

	if (!begins)
	{
		row->gen_rev = -version;
		row->slots_from = Max(row->slots_from, until);
	}
	if (row->changed == NIL)
		row->changed = list_make1(CARRIED_OVER);
	if (carrying->former != NULL && version <= carrying->former->revision && !begins)
		row->changed = lappend(row->changed, KNOWN_BEFORE);
	if (row->schedule == NULL && row->active && row->run_at <= until && !begins)
	{
		row->active = false;
		carrying->paused++;
	}
	row->mod_revision = 0;
	job_update(row);
}

static void
note_id(const JobRow *row, void *arg)
{
	if (row->mod_revision == 0)
		return;
	if (carried.n == carried.max)
	{
		carried.max = Max(carried.max * 2, CARRY_BATCH);
		carried.ids = carried.ids == NULL ? MemoryContextAllocHuge(scheduler.context, sizeof(int64) * carried.max)
			: repalloc_huge(carried.ids, sizeof(int64) * carried.max);
	}
	carried.ids[carried.n++] = row->job_id;
}

/*
 * The account of "each" goes on.  All generations that are carried over are among those that it knows, though their revisions are of the
 * new incarnation: until they are there the partition is not taken over (sync_may_run_locally()).
 */
static void
keep_local_account(void)
{
	char	   *text = state_read(PLACE_EACH, 0);
	PartitionState state;
	size_t		len;

	if (text == NULL || !codec_state_decode(text, strlen(text), &state, NULL, 0))
		return;
	state.jobrev = CODEC_MAX_INT;
	text = codec_state_encode(&state, &len);
	codec_state_free(&state);
	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not encode a partition's state")));
	state_write(PLACE_EACH, 0, text);
	free(text);
}

static void
end_carrying(const Carrying *carrying)
{
	Identity	identity;

	forget_states(PLACE_EACH);
	keep_local_account();
	identity_read(&identity);
	identity.former_revision = carrying->is_latest ? identity.applied_revision : 0;
	enter(&identity, &carrying->joining);
	identity_write(&identity);
}

/* The next rows that have not been marked; the identity when there is none. */
static void
carry_rows(void *arg)
{
	Carrying   *carrying = arg;
	Identity	identity;
	int			end;

	identity_read(&identity);
	if (strcmp(identity.incarnation, scheduler.identity.incarnation) != 0 || identity.held[0] != '\0')
		return;					/* adopt() was faster, or the jobs are held */
	if (carried.next == carried.n)
	{
		carried.next = carried.n = 0;
		job_scan(note_id, NULL);
		if (carried.n == 0 && queue_offer_all())
		{
			end_carrying(carrying);
			carrying->joining.complete = true;
		}
		return;
	}
	end = Min(carried.next + CARRY_BATCH, carried.n);
	for (int i = carried.next; i < end; i++)
	{
		JobRow		row;

		CHECK_FOR_INTERRUPTS();
		/* one that somebody has locked is found again by the next look through the table */
		if (job_try_lock(carried.ids[i]) > 0 && job_read(carried.ids[i], &row) && row.mod_revision != 0)
			mark_carried(&row, carrying);
	}
	carrying->done = end;
}

bool
sync_carry_over(const ConfigInfo *config, const FormerInfo *former, int64 highest, bool *more)
{
	Carrying	carrying = {{config, highest}};

	carrying.is_latest = strcmp(config->previous[0], scheduler.identity.incarnation) == 0;
	/* what is said there is of the incarnation before this one: older rows are in it as well */
	if (former != NULL && strcmp(former->incarnation, config->previous[0]) == 0)
		carrying.former = former;
	*more = false;
	if (!scheduler_transaction(carry_rows, &carrying, "following the recovered cluster"))
		return false;
	if (carrying.done > 0)
		carried.next = carrying.done;
	*more = carried.next < carried.n;
	if (carrying.paused > 0)
		ereport(LOG,
				(errmsg("dsched: paused %d jobs of database \"%s\" whose only time has passed", carrying.paused, scheduler.dbname),
				 errdetail("The cluster was recovered, and it is not known whether they have run. dsched.resume() runs them.")));
	if (!carrying.joining.complete)
		return false;
	ereport(LOG,
			(errmsg("dsched: database \"%s\" has followed the recovered cluster \"%s\"", scheduler.dbname, dsched_cluster_name)));
	return true;
}

/* ---- an older etcd -------------------------------------------------------------------------------- */

static void
note_replaced(void *arg)
{
	Identity	identity;

	identity_read(&identity);
	if (!identity.found || strcmp(identity.incarnation, scheduler.identity.incarnation) != 0)
		return;
	identity.replaced = *(bool *) arg;
	identity_write(&identity);
}

/* Notes whether the etcd of our incarnation is in doubt, for whoever comes after us. */
bool
sync_note_doubt(bool doubt)
{
	if (scheduler.identity.replaced == doubt)
		return true;
	if (!scheduler_transaction(note_replaced, &doubt, "noting what etcd is"))
		return false;
	scheduler.identity.replaced = doubt;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->doubts_etcd = doubt;
	LWLockRelease(dsched_shared->control_lock);
	return true;
}

/* ---- telling others ------------------------------------------------------------------------------- */

static struct
{
	bool		done;			/* etcd says of us, or of somebody who knew more */
	bool		looked;			/* value and revision of the key are known */
	EtcdRequest *request;
	Retry		retry;
	FormerInfo	former;
	int64		mod_revision;
} telling;

static void
try_telling_again(void)
{
	telling.looked = false;
	sync_retry_later(&telling.retry, RETRY_BASE_US, RETRY_MAX_US);
}

static bool
former_incarnation(char *out, size_t size)
{
	size_t		len;
	const char *value = sync_config_value(&len);
	ConfigInfo	config;

	if (value == NULL || !codec_config_decode(value, len, &config, NULL, 0) || config.nprevious == 0)
		return false;
	strlcpy(out, config.previous[0], size);
	return true;
}

static void
former_looked_at(void *arg, const EtcdResponse *response)
{
	char		incarnation[sizeof(telling.former.incarnation)];
	EtcdKv		kv;

	telling.request = NULL;
	scheduler_refresh_time();
	if (!response->ok || !former_incarnation(incarnation, sizeof(incarnation)))
	{
		try_telling_again();
		return;
	}
	memset(&telling.former, 0, sizeof(telling.former));
	telling.mod_revision = 0;
	if (etcd_kv_at(response->body, 0, &kv))
	{
		telling.mod_revision = kv.mod_revision;
		if (!codec_former_decode(kv.value, kv.value_len, &telling.former, NULL, 0) ||
			strcmp(telling.former.incarnation, incarnation) != 0)
			memset(&telling.former, 0, sizeof(telling.former));
		etcd_kv_free(&kv);
	}
	strlcpy(telling.former.incarnation, incarnation, sizeof(telling.former.incarnation));
	telling.done = telling.former.revision >= scheduler.identity.former_revision;
	telling.looked = true;
	scheduler_wake_at(scheduler.boot);
}

static void
told(void *arg, const EtcdResponse *response)
{
	telling.request = NULL;
	scheduler_refresh_time();
	if (response->ok && etcd_txn_succeeded(response->body))
		telling.done = true;
	else
		try_telling_again();
}

typedef struct Counting
{
	int			carried;		/* rows that are not published yet */
} Counting;

static void
count_carried(void *arg)
{
	CatalogSpi	spi;
	bool		isnull;

	catalog_spi_begin(&spi);
	if (SPI_execute("SELECT count(*)::int FROM dsched.job WHERE changed IS NOT NULL AND gen_rev < 0", true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not count the jobs that were carried over");
	((Counting *) arg)->carried = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	catalog_spi_finish(&spi);
}

static void
tell(void)
{
	EtcdTxn    *txn;
	char		key[KEYS_MAX_LEN];
	char		config[KEYS_MAX_LEN];
	const char *config_value;
	char	   *value;
	size_t		len;

	keys_former(key, dsched_cluster_name, scheduler.dbname);
	if (!telling.looked)
	{
		telling.request = etcd_call(scheduler.etcd, ETCD_PATH_RANGE, etcd_range(key, NULL, 0, false), ETCD_READ,
									REQUEST_TIMEOUT_MS, former_looked_at, NULL);
		return;
	}
	txn = etcd_txn_begin();
	keys_config(config, dsched_cluster_name);
	config_value = sync_config_value(&len);
	etcd_txn_if_value(txn, config, config_value, len);
	etcd_txn_if_mod(txn, key, telling.mod_revision);
	telling.former.revision = scheduler.identity.former_revision;
	value = codec_former_encode(&telling.former, &len);
	if (value == NULL)
	{
		etcd_txn_free(txn);
		telling.done = true;
		return;
	}
	etcd_txn_put(txn, key, value, len, 0);
	free(value);
	telling.request = etcd_call(scheduler.etcd, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_IDEMPOTENT, REQUEST_TIMEOUT_MS, told, NULL);
}

void
sync_join_turn(void)
{
	Counting	counting = {0};

	if (telling.done || scheduler.identity.former_revision == 0 || telling.request != NULL || !sync_following() ||
		!sync_publish_idle() || !sync_retry_due(&telling.retry))
		return;
	if (!scheduler_transaction(count_carried, &counting, "counting what was carried over") || counting.carried > 0)
	{
		try_telling_again();
		return;
	}
	tell();
	if (telling.request == NULL && !telling.done)
		try_telling_again();
}
