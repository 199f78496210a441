/*
 * roles.c
 *	  Who may see, change and own which job.
 *
 * A job belongs to the role that it runs as.  Whoever can become that role (SET ROLE) may change its
 * jobs; its members and pg_monitor may see them.  A job's role is kept by name and may be gone: then only
 * superusers may change the job, and only they and pg_monitor see it.
 *
 * A job that the caller may not see is reported as one that does not exist.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "api/api.h"
#include "compat.h"
#include "settings.h"

char *
caller_name(void)
{
	return GetUserNameFromId(GetUserId(), false);
}

bool
may_act_as(Oid role)
{
	if (!OidIsValid(role))
		return superuser();
	return compat_member_can_set_role(GetUserId(), role);
}

bool
may_see(Oid role)
{
	if (has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		return true;
	return OidIsValid(role) ? is_member_of_role(GetUserId(), role) : superuser();
}

static bool
can_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return result;
}

void
check_job_role(const char *username)
{
	Oid			role = get_role_oid(username, true);

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", username)));
	if (!may_act_as(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to schedule jobs for role \"%s\"", username),
				 errhint("Superusers and roles that can SET ROLE to \"%s\" may do that.", username)));
	if (!can_log_in(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" is not permitted to log in, so no job can run as it", username),
				 errhint("Give it the LOGIN attribute, or name another role with username.")));
	if (superuser_arg(role) && !dsched_superuser_jobs_allowed())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("jobs of superusers are not allowed here"),
				 errdetail("Role \"%s\" is a superuser.", username),
				 errhint("Name a role that is none with username, let definitions be signed with dsched.cluster_key_file, or set dsched.allow_superuser_jobs to on.")));
}

static void
no_job_with_name(const char *job_name, const char *username)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("role \"%s\" has no job \"%s\"", username, job_name),
			 errhint("Jobs of other roles are named by their id, or with username. The view dsched.jobs shows them.")));
}

void
find_job_by_name(const char *job_name, const char *username, bool lock, JobRow *out)
{
	if (username == NULL)
		username = caller_name();
	else if (!may_act_as(get_role_oid(username, true)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for jobs of role \"%s\"", username)));

	if (!job_read_by_name(username, job_name, lock, out))
		no_job_with_name(job_name, username);
}

static void
no_job_with_id(int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("job " INT64_FORMAT " does not exist", job_id)));
}

void
find_job_by_id(int64 job_id, bool lock, JobRow *out)
{
	JobRow		seen;
	Oid			role;

	if (!job_read(job_id, &seen))
		no_job_with_id(job_id);
	role = get_role_oid(seen.username, true);
	if (!may_act_as(role))
	{
		if (!may_see(role))
			no_job_with_id(job_id);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for job " INT64_FORMAT " of role \"%s\"", job_id, seen.username)));
	}

	/* Only this read can lock the row; it may have become another job's since. */
	if (!job_read_by_name(seen.username, seen.job_name, lock, out) || out->job_id != job_id)
		no_job_with_id(job_id);
}

void
find_by_name_args(FunctionCallInfo fcinfo, const char *function, int username, bool lock, JobRow *out)
{
	char	   *name;

	begin_change(function);
	name = text_arg(fcinfo, 0, "job_name");
	find_job_by_name(name, PG_ARGISNULL(username) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(username)), lock, out);
}

void
find_by_id_arg(FunctionCallInfo fcinfo, const char *function, bool lock, JobRow *out)
{
	begin_change(function);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("job_id must not be null")));
	find_job_by_id(PG_GETARG_INT64(0), lock, out);
}
