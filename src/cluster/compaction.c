/*
 * compaction.c
 *	  etcd's history is discarded after a while, and the size of its database is looked at.
 *
 * etcd keeps every value that a key ever had, until somebody tells it up to which revision that is no longer
 * needed.  With accounts written several times a second it would reach its quota within a day, and take no
 * more writes.  So of the instances of a cluster the one with the lowest name compacts: up to the revision
 * that etcd had dsched.etcd_compaction ago.  Every instance notes revisions with their times, from its own
 * heartbeats, so that whichever becomes the lowest can go on.  An instance that has not run for as long does
 * not know such a revision, and leaves the history alone.
 *
 * There is no tick for it: what is due is done after a heartbeat.  Nothing depends on it: a compaction that
 * fails is tried again with the next revision noted.  Who follows keys with a watch and was away for longer
 * than the history reaches reads them anew.  Two instances that both believe to have the lowest name do no
 * harm.
 *
 * Runs in the coordinator.  What is published (the size) is under control_lock.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "clock.h"
#include "cluster/cluster.h"
#include "settings.h"

/* Revisions noted for one life of the history. */
#define NOTES 12
#define MIN_INTERVAL_US INT64CONST(1000000)
#define MAX_LOOK_INTERVAL_US INT64CONST(300000000)
#define CALL_TIMEOUT_MS 10000

typedef struct Note
{
	int64 at; /* boot time */
	int64 revision;
} Note;

static Note notes[NOTES + 2]; /* the oldest first */
static int nnotes = 0;
static int64 compacted = 0; /* up to there, by us or others */
static int64 asked = 0;		/* the revision of the request under way */
static bool complained = false;
static EtcdRequest *compaction = NULL;
static EtcdRequest *look = NULL;
static int64 looked_at = 0;

static void compaction_answered(void *arg, const EtcdResponse *r);
static void look_answered(void *arg, const EtcdResponse *r);

static int64
note_interval(void)
{
	return Max((int64) dsched_etcd_compaction * USECS_PER_SEC / NOTES, MIN_INTERVAL_US);
}

/* A revision below the last one noted is of another history. */
static void
take_note(int64 now, int64 revision)
{
	if (nnotes > 0 && revision < notes[nnotes - 1].revision)
		nnotes = 0;
	if (nnotes > 0 && now - notes[nnotes - 1].at < note_interval())
		return;
	if (nnotes == lengthof(notes))
		memmove(notes, notes + 1, sizeof(Note) * --nnotes);
	notes[nnotes].at = now;
	notes[nnotes++].revision = revision;
}

/* The newest revision that is old enough; 0: none is known. */
static int64
old_revision(int64 now)
{
	int64 before = now - (int64) dsched_etcd_compaction * USECS_PER_SEC;
	int i;

	for (i = nnotes - 1; i >= 0; i--)
		if (notes[i].at <= before)
			return notes[i].revision;
	return 0;
}

static void
compact(int64 now)
{
	int64 revision = old_revision(now);

	if (compaction != NULL || revision <= compacted || revision <= asked || !membership_is_lowest())
		return;
	asked = revision;
	compaction = etcd_call(cluster_client, ETCD_PATH_COMPACTION, etcd_compaction(revision), ETCD_IDEMPOTENT,
						   CALL_TIMEOUT_MS, compaction_answered, NULL);
	cluster_need_memory(compaction);
}

/* One that fails is not repeated: the next revision will be asked for. */
static void
compaction_answered(void *arg, const EtcdResponse *r)
{
	compaction = NULL;
	if (r->ok)
		ereport(DEBUG1, (errmsg_internal("dsched: compacted etcd's history up to revision " INT64_FORMAT, asked)));
	if (r->ok || r->grpc_code == ETCD_CODE_OUT_OF_RANGE)
	{
		compacted = asked;
		complained = false;
		return;
	}
	if (!complained)
		ereport(LOG, (errmsg("dsched: could not compact etcd's history: %s", r->message),
					  errhint("If dsched is not to do that, set dsched.etcd_compaction to 0, and see to it otherwise, for example "
							  "by etcd's --auto-compaction-retention.")));
	complained = true;
}

static void
look_at_size(int64 now)
{
	int64 interval = Min(note_interval(), MAX_LOOK_INTERVAL_US);

	if (look != NULL || (looked_at != 0 && now - looked_at < interval))
		return;
	looked_at = now;
	look = etcd_call(cluster_client, ETCD_PATH_STATUS, cJSON_CreateObject(), ETCD_READ, cluster_timeout_ms(),
					 look_answered, NULL);
	cluster_need_memory(look);
}

/* Of one member, but they all have nearly the same. What is not told stays unknown. */
static void
look_answered(void *arg, const EtcdResponse *r)
{
	look = NULL;
	if (!r->ok)
		return;
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	dsched_shared->etcd_size = etcd_json_int64(r->body, "dbSize");
	dsched_shared->etcd_size_in_use = etcd_json_int64(r->body, "dbSizeInUse");
	LWLockRelease(dsched_shared->control_lock);
}

void
compaction_heartbeat(int64 now, int64 revision)
{
	look_at_size(now);
	if (dsched_etcd_compaction == 0)
	{
		nnotes = 0;
		return;
	}
	take_note(now, revision);
	compact(now);
}

void
compaction_stop(void)
{
	if (compaction != NULL)
		etcd_cancel(compaction);
	if (look != NULL)
		etcd_cancel(look);
	compaction = look = NULL;
}
