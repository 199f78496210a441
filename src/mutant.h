/*
 * mutant.h
 *	  Faults that can be compiled in, to show that the tests would find them.  None is in a normal build.
 *
 * A test that has never failed has shown nothing.  So each check on which the promises rest can be taken out, one at a
 * time: compiled with -DDSCHED_MUTANT_NAME, MUTANT(NAME) is true, else it is a constant false and the compiler drops
 * what depends on it.  scripts/mutants ("make mutants") builds each of them into an installation of its own and runs the tests
 * that have to catch it.  A library that has such a fault says so at each start of the server.
 *
 * Each line here is used in one place, or in the few that make one check:
 *
 *	  NO_PRECOMMIT_CHECK	execute/guard.c		the token is not looked at before the commit, nor in PRE_COMMIT
 *	  NO_DEADLINE			shared.c			a token holds by session and epoch alone, whatever the time is
 *	  KEEPALIVE_PROVES		cluster/session.c	a keepalive extends the deadline without the put behind it
 *	  DEADLINE_FROM_ANSWER	cluster/session.c	the deadline counts from the answer of the keepalive, not from its sending
 *	  NO_EPOCH_COMPARE		schedule/		accounts and decisions do not compare the owner key
 *	  NO_STATE_REVISION		schedule/state_etcd.c	accounts do not compare the state's own revision
 *	  NO_JOBREV_WAIT		schedule/state_etcd.c	a take-over does not wait for the definitions
 *	  NO_FLUSH				schedule/state_etcd.c	runs are reported before their commits are on disk
 *	  CLAIM_ANYWAY			cluster/membership_claim.c	a claim compares neither session nor membership
 *	  NO_PREPARED_DECISION	execute/run.c		a prepared run (exactly_once) is committed without asking etcd
 *	  NO_CLAIM				execute/run.c		an attempt (at_most_once) is begun without asking etcd
 *	  EAGER_SETTLEMENT		schedule/settling.c	what has no decision is rolled back, though it can still come
 *	  PUBLISH_ANYWAY		sync/publish.c		a generation is published by a clock that is not to be trusted
 *	  NO_PREDECESSOR_WAIT	cluster/session_predecessor.c	a node key of our name is replaced, whoever holds it
 */
#ifndef DSCHED_MUTANT_H
#define DSCHED_MUTANT_H

#ifndef DSCHED_MUTANT_NO_PRECOMMIT_CHECK
#define DSCHED_MUTANT_NO_PRECOMMIT_CHECK 0
#endif
#ifndef DSCHED_MUTANT_NO_DEADLINE
#define DSCHED_MUTANT_NO_DEADLINE 0
#endif
#ifndef DSCHED_MUTANT_KEEPALIVE_PROVES
#define DSCHED_MUTANT_KEEPALIVE_PROVES 0
#endif
#ifndef DSCHED_MUTANT_DEADLINE_FROM_ANSWER
#define DSCHED_MUTANT_DEADLINE_FROM_ANSWER 0
#endif
#ifndef DSCHED_MUTANT_NO_EPOCH_COMPARE
#define DSCHED_MUTANT_NO_EPOCH_COMPARE 0
#endif
#ifndef DSCHED_MUTANT_NO_STATE_REVISION
#define DSCHED_MUTANT_NO_STATE_REVISION 0
#endif
#ifndef DSCHED_MUTANT_NO_JOBREV_WAIT
#define DSCHED_MUTANT_NO_JOBREV_WAIT 0
#endif
#ifndef DSCHED_MUTANT_NO_FLUSH
#define DSCHED_MUTANT_NO_FLUSH 0
#endif
#ifndef DSCHED_MUTANT_CLAIM_ANYWAY
#define DSCHED_MUTANT_CLAIM_ANYWAY 0
#endif
#ifndef DSCHED_MUTANT_NO_PREPARED_DECISION
#define DSCHED_MUTANT_NO_PREPARED_DECISION 0
#endif
#ifndef DSCHED_MUTANT_NO_CLAIM
#define DSCHED_MUTANT_NO_CLAIM 0
#endif
#ifndef DSCHED_MUTANT_EAGER_SETTLEMENT
#define DSCHED_MUTANT_EAGER_SETTLEMENT 0
#endif
#ifndef DSCHED_MUTANT_PUBLISH_ANYWAY
#define DSCHED_MUTANT_PUBLISH_ANYWAY 0
#endif
#ifndef DSCHED_MUTANT_NO_PREDECESSOR_WAIT
#define DSCHED_MUTANT_NO_PREDECESSOR_WAIT 0
#endif

#define MUTANT(name) (DSCHED_MUTANT_##name != 0)

/* Given by scripts/mutants beside the fault: its name, for the log. */
#ifdef DSCHED_MUTANT
#define MUTANT_STRING_OF(name) #name
#define MUTANT_STRING(name) MUTANT_STRING_OF(name)
#define MUTANT_NAME MUTANT_STRING(DSCHED_MUTANT)
#endif

#endif							/* DSCHED_MUTANT_H */
