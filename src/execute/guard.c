/*
 * guard.c
 *	  The executor's side of the fencing protocol of shared.h.
 *
 * A commit sets "committing", checks the token behind a full barrier, commits, and clears it.  Whoever takes
 * ownership away clears epoch or session first and then waits for "committing", so a commit either sees the
 * fence or is waited for.
 *
 * The check is made twice.  Right before CommitTransactionCommand(), as callbacks of other extensions run
 * before ours and can commit elsewhere (postgres_fdw).  And in the PRE_COMMIT callback, after deferred
 * triggers and the like have had their time, and for the commits that a procedure makes by itself.  The
 * callback acts only while a commit of the run is expected: it must not prevent the recording of a failure
 * after the fence, nor leave an invalid index behind a CREATE INDEX CONCURRENTLY.
 *
 * A transaction that is prepared is checked in the same way, in PRE_PREPARE.
 *
 * The ABORT callback clears "committing", whatever the error was; if the process dies, its exit callback
 * does.  It leaves the guard armed: a procedure may roll back and commit after that.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/elog.h"

#include "catalog/catalog.h"
#include "compat.h"
#include "ending.h"
#include "guard.h"
#include "mutant.h"

static ExecutorSlot *slot = NULL;
static const RunToken *token = NULL;	/* of the run under way */
static bool armed = false;
static bool checking = false;	/* false: in guard_commit_unchecked() */
static bool tripped = false;

static void at_transaction_event(XactEvent event, void *arg);
static void enter_commit(void);
static void leave_commit(void);

void
guard_init(ExecutorSlot *my_slot)
{
	slot = my_slot;
	RegisterXactCallback(at_transaction_event, NULL);
}

void
guard_begin(const RunToken *run_token)
{
	token = run_token;
	armed = false;
	checking = true;
	tripped = false;
}

void
guard_end(void)
{
	armed = false;
	leave_commit();
	token = NULL;
}

bool
guard_tripped(void)
{
	return tripped;
}

/* The right can be back by now (a session renewed right after its deadline): the run was ended all the same. */
bool
guard_was_fenced(void)
{
	return slot->fenced;
}

void
guard_arm(bool on)
{
	armed = on;
}

void
guard_disarm(void)
{
	armed = false;
	checking = true;
}

void
guard_check(void)
{
	if (MUTANT(NO_PRECOMMIT_CHECK) || dsched_token_holds(token))
	{
		ending_check();
		return;
	}
	guard_trip();
}

void
guard_trip(void)
{
	tripped = true;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("ownership of the partition was lost before the commit"),
			 errdetail("What the run had not committed before was rolled back.")));
}

void
guard_commit(void)
{
	armed = true;
	enter_commit();
	CommitTransactionCommand();
	armed = false;
	leave_commit();				/* inside BEGIN ... COMMIT nothing was committed, and no callback called */
}

void
guard_commit_unchecked(void)
{
	checking = false;
	armed = true;
	enter_commit();
	CommitTransactionCommand();
	armed = false;
	checking = true;
	leave_commit();
}

/*
 * A fencer waits for a prepare, too, but what it waits for commits nothing: whether it is committed is decided in etcd, under a
 * comparison with what the fencer is about to delete.
 */
void
guard_prepare(const char *gid)
{
	armed = true;
	enter_commit();
	HOLD_INTERRUPTS();
	if (!prepared_begin(gid))
		elog(ERROR, "there is no transaction block to prepare");
	CommitTransactionCommand();
	prepared_end();
	RESUME_INTERRUPTS();
	armed = false;
	leave_commit();
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			ending_enter_commit();
			if (armed && token != NULL)
				enter_commit();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			leave_commit();
			ending_leave_commit(event != XACT_EVENT_ABORT);
			break;
		default:
			break;
	}
}

static void
enter_commit(void)
{
	pg_atomic_write_u32(&slot->committing, 1);
	pg_memory_barrier();
	if (checking)
		guard_check();
}

static void
leave_commit(void)
{
	if (pg_atomic_read_u32(&slot->committing) == 0)
		return;
	pg_memory_barrier();
	pg_atomic_write_u32(&slot->committing, 0);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&dsched_shared->fence_waiters) > 0)
		dsched_wake_coordinator();
}
