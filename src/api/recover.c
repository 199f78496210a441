/*
 * recover.c
 *	  dsched.recover_cluster(): a new incarnation of the cluster, after its etcd was wiped, restored or exchanged, or with
 *	  another number of partitions.
 *
 * The coordinator does it (cluster/recover.c); here it is asked for, in shared memory, and waited for.  What it does is done at
 * once, for all databases of all instances, whatever becomes of the caller's transaction.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"
#include "catalog/upkeep.h"
#include "clock.h"
#include "settings.h"
#include "shared.h"

/* The coordinator gives up before that, if it lives. */
#define WAIT_MS 60000

PG_FUNCTION_INFO_V1(dsched_recover_cluster);

static void
check_may_recover(void)
{
	const CatalogOids *oids = catalog_oids();

	if (oids != NULL && !has_privs_of_role(GetUserId(), oids->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to recover the cluster"),
				 errhint("Superusers and the owner of the extension may do that.")));
}

/* The database's word for the incarnation that it has joined; ERROR if its jobs do not belong here. */
static void
check_database(Identity *stored)
{
	char	   *mismatch;

	if (!dsched_clustered())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this instance is in no cluster"),
				 errhint("Set dsched.etcd_endpoints.")));
	identity_read(stored);
	mismatch = identity_mismatch(stored);
	if (mismatch != NULL || stored->held[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the jobs of this database sleep: %s", mismatch != NULL ? mismatch : stored->held),
				 errhint("dsched.adopt() is for that.")));
	if (stored->incarnation[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has not joined a cluster yet, so it knows of nothing to recover"),
				 errhint("Call it in a database whose jobs ran in the cluster.")));
}

static void
read_arguments(FunctionCallInfo fcinfo, RecoverRequest *request)
{
	TimestampTz now = dsched_wall_now();

	if (!PG_ARGISNULL(0) && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"resume_from\" and \"partitions\" exclude each other"),
				 errdetail("A change of the number of partitions goes on exactly where the cluster was left.")));
	request->resume_from = PG_ARGISNULL(0) ? now : PG_GETARG_TIMESTAMPTZ(0);
	request->partitions = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	if (TIMESTAMP_NOT_FINITE(request->resume_from) || request->resume_from > now ||
		request->resume_from < CODEC_MIN_TIME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"resume_from\" must be a time that has passed")));
	if (!PG_ARGISNULL(1) && (request->partitions < 1 || request->partitions > DSCHED_MAX_PARTITIONS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"partitions\" must be between 1 and %d", DSCHED_MAX_PARTITIONS)));
}

/* Hands the request over; its number. */
static uint64
ask_coordinator(const RecoverRequest *request)
{
	RecoverRequest *shared = &dsched_shared->recover;
	uint64		number;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	if (shared->phase == RECOVER_ASKED || shared->phase == RECOVER_UNDER_WAY)
	{
		LWLockRelease(dsched_shared->control_lock);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session is recovering the cluster")));
	}
	number = shared->number + 1;
	*shared = *request;
	shared->number = number;
	shared->phase = RECOVER_ASKED;
	LWLockRelease(dsched_shared->control_lock);
	dsched_wake_coordinator();
	return number;
}

/* Has it been answered? If nobody is at it any more, it is taken back. */
static bool
is_answered(uint64 number, bool give_up, RecoverRequest *answer)
{
	bool		answered;

	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	*answer = dsched_shared->recover;
	answered = answer->number != number || answer->phase == RECOVER_DONE || answer->phase == RECOVER_FAILED;
	if (give_up && answer->number == number && answer->phase == RECOVER_ASKED)
		dsched_shared->recover.phase = RECOVER_NONE;
	LWLockRelease(dsched_shared->control_lock);
	return answered;
}

static void
wait_for_answer(uint64 number, RecoverRequest *answer)
{
	int64		until = dsched_boot_now() + WAIT_MS * INT64CONST(1000);
	bool		answered;

	ConditionVariablePrepareToSleep(&dsched_shared->changed);
	while (!(answered = is_answered(number, dsched_boot_now() >= until, answer)) && dsched_boot_now() < until)
		(void) ConditionVariableTimedSleep(&dsched_shared->changed, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	if (!answered || answer->number != number)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the coordinator has not answered"),
				 errhint("dsched.status() says how this instance does.")));
}

/* recover_cluster(resume_from, partitions) */
Datum
dsched_recover_cluster(PG_FUNCTION_ARGS)
{
	RecoverRequest request = {0};
	RecoverRequest answer;
	Identity	stored;

	begin_change("dsched.recover_cluster()");
	check_may_recover();
	read_arguments(fcinfo, &request);
	check_database(&stored);
	strlcpy(request.known, stored.incarnation, sizeof(request.known));

	wait_for_answer(ask_coordinator(&request), &answer);
	if (answer.phase == RECOVER_FAILED)
		ereport(ERROR,
				(errcode(answer.sqlstate),
				 errmsg("%s", answer.message),
				 answer.hint[0] != '\0' ? errhint("%s", answer.hint) : 0));
	/* of an etcd that was wiped nothing says where it was left */
	if (answer.resume_from == CODEC_MIN_TIME)
		PG_RETURN_TEXT_P(cstring_to_text(psprintf("cluster \"%s\" begins anew with %d partitions, where it was left",
												  dsched_cluster_name, request.partitions)));
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("cluster \"%s\" begins anew; slots after %s are open", dsched_cluster_name,
											  timestamptz_to_str(request.resume_from))));
}
