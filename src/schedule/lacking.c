/*
 * lacking.c
 *	  Roles that are missing on this instance: runs that another one could make.
 *
 * A run whose role does not exist here is not a failure as long as another member of the group may have the role: the run
 * is held, open and in the account, we say what we lack, and the coordinators move its partition to a member that has all
 * the roles of its jobs (cluster/membership_roles.c).  It is a failure when that has been looked into and there is
 * none; alone, and for jobs that run on each instance, at once.
 *
 * What is said: the roles that we lack (DatabaseSlot.lacks), and which partitions have jobs of the roles that any
 * member lacks (lacked[].used).  Both under control_lock, with versions, by which is known what an answer took into account.
 */
#include "postgres.h"

#include "utils/acl.h"
#include "utils/memutils.h"

#include "places.h"
#include "schedule/scheduler.h"

/* So often at most it is counted which partitions have jobs of roles that somebody lacks: that looks at all jobs. */
#define COUNT_INTERVAL_US INT64CONST(1000000)

static Lacks lacks;				/* as in shared memory, in UTF-8 */
static char local_names[DSCHED_MAX_LACKS][NAMEDATALEN]; /* the same in the server's encoding */
static uint64 checked = 0;		/* scheduler.roles_changed when they were last looked for */
static uint64 counted_for = 0;	/* lacked_version that was counted last */
static bool count_wanted = false;
static int64 count_at = 0;

typedef struct Counting
{
	int			n;
	char		names[DSCHED_MAX_LACKED][NAMEDATALEN];
	uint8		used[DSCHED_MAX_LACKED][DSCHED_PARTITION_BYTES];
} Counting;

static void
publish_lacks(void)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	scheduler.slot->lacks = lacks;
	scheduler.slot->lacks_version++;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_coordinator();
}

/* False: no more can be said. */
static bool
say_lacking(const char *role)
{
	char	   *name = sync_to_utf8(role);

	for (int i = 0; i < lacks.n; i++)
		if (strcmp(local_names[i], role) == 0)
			return true;
	if (name == NULL || strlen(name) >= NAMEDATALEN || lacks.n == DSCHED_MAX_LACKS)
		return false;
	strlcpy(local_names[lacks.n], role, NAMEDATALEN);
	strlcpy(lacks.roles[lacks.n++], name, NAMEDATALEN);
	publish_lacks();
	ereport(LOG,
			(errmsg("dsched: role \"%s\", which owns jobs of database \"%s\", does not exist here; they go to other instances, "
					"if one has it", role, scheduler.dbname)));
	return true;
}

/* What has been found out about a role and a partition. */
static bool
may_be_elsewhere(const char *role, int partition)
{
	const DatabaseSlot *slot = scheduler.slot;
	char	   *name = sync_to_utf8(role);
	bool		result = true;
	int			i = 0;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	if (slot->lacks_told == slot->lacks_version)
	{
		while (i < slot->nlacked && strcmp(slot->lacked[i].name, name) != 0)
			i++;
		if (i == slot->nlacked)
			result = false;		/* beyond what is kept of all members */
		else if (counted_for != slot->lacked_version ||
				 (slot->lacked[i].used[partition / 8] & (1 << (partition % 8))) == 0)
			count_wanted = true;
		else if (slot->used_told != 0 && slot->used_told == slot->used_version)
			result = slot->partitions[partition].role_elsewhere;
	}
	LWLockRelease(dsched_shared->control_lock);
	return result;
}

/* The role of this run does not exist here: is it to be held, as another instance may have it? */
bool
lacking_role(const OpenRun *run)
{
	if (partition_is_local(&scheduler.partitions[run->partition]) || run->job->partition != run->partition)
		return false;
	return say_lacking(run->job->username) && may_be_elsewhere(run->job->username, run->partition);
}

/* ---- each turn ------------------------------------------------------------------------------------ */

static void
look_for_roles(void *arg)
{
	bool	   *found = arg;

	for (int i = 0; i < lacks.n; i++)
		found[i] = OidIsValid(get_role_oid(local_names[i], true));
}

/* Roles may have been created, or have no job any more. */
static void
check_lacks(void)
{
	bool		gone[DSCHED_MAX_LACKS] = {false};
	uint64		as_of = scheduler.roles_changed;
	int			left = 0;

	if (lacks.n == 0 || checked == as_of || !scheduler_transaction(look_for_roles, gone, "looking for roles"))
		return;
	checked = as_of;
	for (int i = 0; i < lacks.n; i++)
	{
		if (gone[i] || !common_role_known(local_names[i]))
			continue;
		memmove(local_names[left], local_names[i], NAMEDATALEN);
		memmove(lacks.roles[left++], lacks.roles[i], NAMEDATALEN);
	}
	if (left == lacks.n)
		return;
	memset(lacks.roles[left], 0, (size_t) (lacks.n - left) * NAMEDATALEN);
	lacks.n = left;
	publish_lacks();
}

static void
count_job(Job *job, void *arg)
{
	Counting   *counting = arg;

	for (int i = 0; i < counting->n; i++)
		if (strcmp(job->username, counting->names[i]) == 0)
			counting->used[i][job->partition / 8] |= 1 << (job->partition % 8);
}

static void
count_jobs(void)
{
	Counting   *counting = palloc0(sizeof(Counting));
	DatabaseSlot *slot = scheduler.slot;
	uint64		version;

	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	version = slot->lacked_version;
	counting->n = slot->nlacked;
	for (int i = 0; i < counting->n; i++)
		strlcpy(counting->names[i], slot->lacked[i].name, NAMEDATALEN);
	LWLockRelease(dsched_shared->control_lock);
	for (int i = 0; i < counting->n; i++)
	{
		char	   *name = sync_from_utf8(counting->names[i]);

		strlcpy(counting->names[i], name != NULL ? name : "", NAMEDATALEN);
	}
	if (counting->n > 0)
		timetable_each(-1, count_job, counting);

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (slot->lacked_version == version)
	{
		for (int i = 0; i < counting->n; i++)
			memcpy(slot->lacked[i].used, counting->used[i], DSCHED_PARTITION_BYTES);
		slot->used_for = version;
		slot->used_version++;
		counted_for = version;
	}
	LWLockRelease(dsched_shared->control_lock);
	pfree(counting);
	dsched_wake_coordinator();
}

/* Definitions have changed: jobs of roles that somebody lacks may be in other partitions. */
void
lacking_definitions_changed(void)
{
	if (scheduler.slot->nlacked > 0)
		count_wanted = true;
}

/* What a scheduler before us has said still stands, until we have looked. */
static void
take_up(void)
{
	static bool done = false;

	if (done)
		return;
	done = true;
	LWLockAcquire(dsched_shared->control_lock, LW_SHARED);
	lacks = scheduler.slot->lacks;
	LWLockRelease(dsched_shared->control_lock);
	for (int i = 0; i < lacks.n; i++)
	{
		char	   *name = sync_from_utf8(lacks.roles[i]);

		strlcpy(local_names[i], name != NULL ? name : "", NAMEDATALEN);
	}
}

void
lacking_turn(void)
{
	if (scheduler.etcd == NULL || !scheduler.ready)
		return;
	take_up();
	check_lacks();
	if (counted_for != scheduler.slot->lacked_version)
		count_wanted = true;
	if (!count_wanted)
		return;
	if (count_at > scheduler.boot)
	{
		scheduler_wake_at(count_at);
		return;
	}
	count_wanted = false;
	count_at = scheduler.boot + COUNT_INTERVAL_US;
	count_jobs();
}
