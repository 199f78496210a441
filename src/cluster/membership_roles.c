/*
 * membership_roles.c
 *	  Roles that a member lacks: who is passed over for a partition because of them.
 *
 * A role that owns jobs may be missing on one of the instances.  Its scheduler finds that when a run of such a job is to
 * start, and says so in shared memory (schedule/lacking.c).  From there it goes into our member key, as "lacks", so
 * that all members know it.  Each of them lists the roles that anybody lacks; its scheduler says which partitions have jobs
 * of them; and a member that lacks a role of a partition is no candidate for it while there is one that lacks none.  All
 * compute this from the same keys and definitions, so they agree, as with all advice, after a moment.
 *
 * If nobody has all the roles of a partition, it stays where it would be, and the run fails there.
 *
 * Everything is bounded: what is beyond the bounds is as if it were not lacking.
 */
#include "postgres.h"

#include "cluster/cluster.h"
#include "cluster/membership_internal.h"
#include "core/ownership.h"

typedef struct Roles
{
	int n;
	char names[DSCHED_MAX_LACKED][NAMEDATALEN];
} Roles;

/* The roles in a member key that its node lacks; what is no such list is none. */
void
membership_read_lacks(const EtcdKv *kv, Lacks *out)
{
	cJSON *value = etcd_json_parse(kv->value, kv->value_len);
	const cJSON *item;

	memset(out, 0, sizeof(*out));
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(value, "lacks"))
	{
		const char *name = cJSON_GetStringValue(item);

		if (name != NULL && name[0] != '\0' && strlen(name) < NAMEDATALEN && out->n < DSCHED_MAX_LACKS)
			strlcpy(out->roles[out->n++], name, NAMEDATALEN);
	}
	cJSON_Delete(value);
}

void
membership_add_lacks(const Group *g, cJSON *object)
{
	cJSON *list;
	int i;

	if (g->lacks.n == 0)
		return;
	list = cJSON_AddArrayToObject(object, "lacks");
	for (i = 0; i < g->lacks.n; i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(g->lacks.roles[i]));
}

/* ---- what anybody lacks ---------------------------------------------------------------------- */

static void
add_roles(Roles *all, const Lacks *lacks)
{
	int i;
	int k;

	for (i = 0; i < lacks->n; i++)
	{
		for (k = 0; k < all->n && strcmp(all->names[k], lacks->roles[i]) != 0; k++)
			;
		if (k == all->n && all->n < DSCHED_MAX_LACKED)
			strlcpy(all->names[all->n++], lacks->roles[i], NAMEDATALEN);
	}
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Takes in what our scheduler says, and tells it what all members lack. */
void
membership_follow_roles(int db, Group *g)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	Roles all = {0};
	bool same;
	int i;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (slot->lacks_version != g->lacks_version)
	{
		g->lacks_version = slot->lacks_version;
		g->lacks = slot->lacks;
		g->advice_due = true;
	}
	if (slot->used_version != g->used_version)
	{
		g->used_version = slot->used_version;
		g->advice_due = true;
	}
	for (i = 0; i < g->nothers; i++)
		add_roles(&all, &g->others_lack[i]);
	add_roles(&all, &g->lacks);
	qsort(all.names, all.n, NAMEDATALEN, compare_names);
	same = all.n == slot->nlacked;
	for (i = 0; i < all.n && same; i++)
		same = strcmp(all.names[i], slot->lacked[i].name) == 0;
	if (!same)
	{
		memset(slot->lacked, 0, sizeof(slot->lacked));
		for (i = 0; i < all.n; i++)
			strlcpy(slot->lacked[i].name, all.names[i], NAMEDATALEN);
		slot->nlacked = all.n;
		slot->lacked_version++;
		g->advice_due = true;
	}
	LWLockRelease(dsched_shared->control_lock);
	if (!same)
		dsched_wake_scheduler(db);
}

/* ---- advice ---------------------------------------------------------------------------------- */

static bool
lacks_role(const Lacks *lacks, const char *role)
{
	int i;

	for (i = 0; i < lacks->n; i++)
		if (strcmp(lacks->roles[i], role) == 0)
			return true;
	return false;
}

/* Has this member all the roles of the jobs of a partition? */
static bool
fits(const Group *g, const DatabaseSlot *slot, const char *name, int partition)
{
	const Lacks *lacks = &g->lacks;
	int i;

	if (strcmp(name, dsched_my_node()) != 0)
	{
		for (i = 0; i < g->nothers && strcmp(g->others[i], name) != 0; i++)
			;
		if (i == g->nothers)
			return true;
		lacks = &g->others_lack[i];
	}
	if (lacks->n == 0)
		return true;
	for (i = 0; i < slot->nlacked; i++)
		if ((slot->lacked[i].used[partition / 8] & (1 << (partition % 8))) != 0 &&
			lacks_role(lacks, slot->lacked[i].name))
			return false;
	return true;
}

/*
 * Passes over those of the members who lack a role: owner[] is as ownership_assign_place() has it for n partitions from
 * 'first' on.  Whom a partition goes to instead is what that says of the members that fit alone.  Notes for our
 * scheduler where somebody fits.
 */
void
membership_pass_over(int db, Group *g, const char *place, const char *const *names, int nnames, int first, int n,
					 int *owner)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];
	const char *fitting[DSCHED_MAX_NODES];
	int index[DSCHED_MAX_NODES];
	int among[DSCHED_MAX_ANY];
	int p;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	for (p = 0; p < n; p++)
	{
		int nfitting = 0;
		int m;

		slot->partitions[first + p].role_elsewhere = g->unfit[first + p] = false;
		if (slot->nlacked == 0)
			continue;
		for (m = 0; m < nnames; m++)
			if (fits(g, slot, names[m], first + p))
			{
				slot->partitions[first + p].role_elsewhere |= strcmp(names[m], dsched_my_node()) != 0;
				index[nfitting] = m;
				fitting[nfitting++] = names[m];
			}
		g->unfit[first + p] =
			slot->partitions[first + p].role_elsewhere && !fits(g, slot, dsched_my_node(), first + p);
		if (nfitting == 0 || owner[p] < 0 || fits(g, slot, names[owner[p]], first + p))
			continue;
		ownership_assign_place(place, fitting, nfitting, n, among);
		owner[p] = index[among[p]];
	}
	LWLockRelease(dsched_shared->control_lock);
}

/* The advice was computed with what the member key says, and with what the scheduler has said of partitions. */
void
membership_roles_advised(int db, const Group *g)
{
	DatabaseSlot *slot = &dsched_shared->databases[db];

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	slot->others = g->nothers;
	slot->lacks_told = g->lacks_written;
	slot->used_told = slot->used_version == g->used_version && slot->used_for == slot->lacked_version ? g->used_version : 0;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_scheduler(db);
}
