/*
 * session.h
 *	  The executor's session: what a run may leave in it, and whether it is still what a new one would be.
 */
#ifndef DSCHED_SESSION_H
#define DSCHED_SESSION_H

/* Once, after the connection to the database was made. */
extern void executor_session_init(void);

/* application_name during a run, also after RESET; and when there is none to make. */
extern void executor_session_name_after(const char *job_name);
extern void executor_session_name_idle(void);

/*
 * Makes the session as good as new, in a transaction of its own if need be; outside a transaction.  settled:
 * the run was one transaction, which committed after command_settle().  False: it cannot be, the
 * process must end.
 */
extern bool executor_session_reset(bool settled);

/*
 * Would a new session of this role differ: other settings (ALTER ROLE ... SET), another name, no right to be
 * here?  Outside a transaction.
 */
extern bool executor_session_outdated(void);

#endif /* DSCHED_SESSION_H */
