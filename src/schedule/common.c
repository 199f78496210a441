/*
 * common.c
 *	  What many jobs have in common, kept once: roles, policies, schedules.
 *
 * A million jobs belong to few roles, have few policies and name few sets of times.  Each such value is an entry of a hash table
 * that counts its users and goes with the last of them.  Entries are compared as a whole, never by a hash alone: nobody's
 * definition can be made to stand for another's.
 *
 * A role's entry also knows its OID, so that this is looked up once for all of its jobs.
 *
 * Private memory of the scheduler; an entry does not move while it has users.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "schedule/scheduler.h"

typedef struct CommonPolicy
{
	JobPolicy	policy;			/* hash key; padding is zero */
	int			users;
} CommonPolicy;

static HTAB *roles = NULL;
static HTAB *policies = NULL;
static HTAB *patterns = NULL;

static HTAB *
make_table(const char *name, Size keysize, Size entrysize, int how)
{
	HASHCTL		ctl = {0};

	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = scheduler.context;
	return hash_create(name, 16, &ctl, HASH_ELEM | HASH_CONTEXT | how);
}

void
common_init(void)
{
	StaticAssertStmt(offsetof(JobRole, name) == 0 && offsetof(CommonPolicy, policy) == 0 && offsetof(JobPattern, key) == 0,
					 "a hash key stands first");
	roles = make_table("dsched roles", sizeof(((JobRole *) NULL)->name), sizeof(JobRole), HASH_STRINGS);
	policies = make_table("dsched policies", sizeof(JobPolicy), sizeof(CommonPolicy), HASH_BLOBS);
	patterns = make_table("dsched patterns", sizeof(PatternKey), sizeof(JobPattern), HASH_BLOBS);
}

/* ---- roles ------------------------------------------------------------------------------------------ */

const char *
common_role(const char *username)
{
	char		name[NAMEDATALEN] = {0};
	bool		found;
	JobRole    *role;

	strlcpy(name, username, sizeof(name));
	role = hash_search(roles, name, HASH_ENTER, &found);
	if (!found)
	{
		role->oid = InvalidOid;
		role->checked = 0;
		role->users = 0;
	}
	role->users++;
	return role->name;
}

JobRole *
job_role(const Job *job)
{
	/* its name is its first member */
	return (JobRole *) unconstify(char *, job->username);
}

bool
common_role_known(const char *username)
{
	char		name[NAMEDATALEN] = {0};

	strlcpy(name, username, sizeof(name));
	return hash_search(roles, name, HASH_FIND, NULL) != NULL;
}

void
common_role_free(const char *username)
{
	JobRole    *role = (JobRole *) unconstify(char *, username);

	if (--role->users == 0)
		hash_search(roles, role->name, HASH_REMOVE, NULL);
}

/* ---- policies --------------------------------------------------------------------------------------- */

const JobPolicy *
common_policy(const JobPolicy *policy)
{
	JobPolicy	key;
	CommonPolicy *entry;
	bool		found;

	memset(&key, 0, sizeof(key));
	for (int i = 0; i < POLICY_FIELDS; i++)
		policy_set(&key, (PolicyField) i, policy_get(policy, (PolicyField) i));
	entry = hash_search(policies, &key, HASH_ENTER, &found);
	entry->users = found ? entry->users + 1 : 1;
	return &entry->policy;
}

void
common_policy_free(const JobPolicy *policy)
{
	CommonPolicy *entry = (CommonPolicy *) unconstify(JobPolicy *, policy);

	if (--entry->users == 0)
		hash_search(policies, &entry->policy, HASH_REMOVE, NULL);
}

/* ---- schedules -------------------------------------------------------------------------------------- */

const JobPattern *
common_pattern(const SlotRule *rule)
{
	PatternKey	key;
	JobPattern *pattern;
	bool		found;

	memset(&key, 0, sizeof(key));
	/* cron_parse() leaves no byte of it unset */
	memcpy(&key.cron, rule->cron, sizeof(CronSchedule));
	/* the zone counts, not how it was given */
	memset(key.cron.zone, 0, sizeof(key.cron.zone));
	key.tz = rule->tz;
	pattern = hash_search(patterns, &key, HASH_ENTER, &found);
	pattern->users = found ? pattern->users + 1 : 1;
	return pattern;
}

void
common_pattern_free(const JobPattern *pattern)
{
	JobPattern *entry = unconstify(JobPattern *, pattern);

	if (--entry->users == 0)
		hash_search(patterns, &entry->key, HASH_REMOVE, NULL);
}
