/*
 * sign.c
 *	  dsched.sign_definitions(): has the definitions of this database published anew, signed with the first key.
 *
 * For when dsched.cluster_key_file comes into use, and when its first key has become another one.  What is signed is what this
 * instance has in dsched.job.  Here the rows are only marked: the scheduler publishes those that it does not know to be signed
 * with that key, as it publishes any change, so that nothing is forgotten if the server goes down meanwhile.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "api/api.h"
#include "catalog/upkeep.h"
#include "settings.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(dsched_sign_definitions);

/* Its caller vouches for what is in the table, also of superusers. */
static void
check_may_sign(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to sign the definitions of this database"),
				 errhint("Superusers may do that.")));
	if (!dsched_signed_cluster())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("definitions are not signed on this instance"),
				 errhint("dsched.cluster_key_file names the file with the keys, for a cluster.")));
}

/* sign_definitions(): how many definitions are looked at */
Datum
dsched_sign_definitions(PG_FUNCTION_ARGS)
{
	uint64		n;

	begin_change("dsched.sign_definitions()");
	check_may_sign();
	n = job_mark_all("signature");
	dsched_wake_at_commit();
	PG_RETURN_INT64((int64) n);
}
