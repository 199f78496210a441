/*
 * api.h
 *	  What the SQL-callable functions share: arguments, roles, checks, changes of definitions.
 *
 * The functions are thin: they read and check arguments, work out the row of dsched.job that follows from
 * them, and leave tables to src/catalog and everything else to the scheduler, which they wake at commit.
 */
#ifndef DSCHED_API_H
#define DSCHED_API_H

#include "fmgr.h"
#include "catalog/catalog.h"
#include "schedule/slots.h"

/*
 * The parts of a definition that a caller can set; named as the columns of dsched.job are.  The last are the fields of
 * the policy, in the order of policy_fields.
 */
typedef enum JobField
{
	FIELD_SCHEDULE,
	FIELD_RUN_AT,
	FIELD_COMMAND,
	FIELD_TIME_ZONE,
	FIELD_STARTS_AT,
	FIELD_EXPIRES_AT,
	FIELD_MAX_RUNS,
	FIELD_USERNAME,
	FIELD_PAYLOAD,
	FIELD_METADATA,
	FIELD_ACTIVE,
	FIELD_QUEUE,
	FIELD_RUN_ON,
	FIELD_POLICY
} JobField;

#define JOB_FIELDS (FIELD_POLICY + POLICY_FIELDS)
#define FIELD_OF_POLICY(field) ((JobField) (FIELD_POLICY + (field)))

/* What follows the other options in the parameters of schedule() and alter_job(), and in those for jobs that run once. */
#define POLICY_PARAMETERS \
	FIELD_OF_POLICY(POLICY_OVERLAP), FIELD_OF_POLICY(POLICY_MISFIRE), FIELD_OF_POLICY(POLICY_MISFIRE_GRACE), \
	FIELD_OF_POLICY(POLICY_ATTEMPTS), FIELD_OF_POLICY(POLICY_RETRY_DELAY), FIELD_OF_POLICY(POLICY_RETRY_MAX_DELAY), \
	FIELD_OF_POLICY(POLICY_TIMEOUT), FIELD_OF_POLICY(POLICY_PRIORITY), FIELD_OF_POLICY(POLICY_DEADLINE), \
	FIELD_OF_POLICY(POLICY_FAILURES), FIELD_OF_POLICY(POLICY_LOST), FIELD_OF_POLICY(POLICY_JITTER), FIELD_QUEUE, FIELD_RUN_ON, \
	FIELD_OF_POLICY(POLICY_DELIVERY)
#define ONE_SHOT_PARAMETERS \
	FIELD_OF_POLICY(POLICY_ATTEMPTS), FIELD_OF_POLICY(POLICY_RETRY_DELAY), FIELD_OF_POLICY(POLICY_RETRY_MAX_DELAY), \
	FIELD_OF_POLICY(POLICY_TIMEOUT), FIELD_OF_POLICY(POLICY_PRIORITY), FIELD_OF_POLICY(POLICY_DEADLINE), \
	FIELD_OF_POLICY(POLICY_LOST), FIELD_QUEUE, FIELD_RUN_ON, FIELD_OF_POLICY(POLICY_DELIVERY)

/* Sets of fields. */
#define FIELD_BIT(field) (1U << (field))
#define FIELDS_ALL ((1U << JOB_FIELDS) - 1)

/* What a caller said; only the fields in the set 'given' mean something. */
typedef struct JobArgs
{
	uint32		given;			/* set of fields that were not NULL */
	uint32		reset;			/* set of fields that go back to their defaults */
	JobRow		row;
} JobArgs;

/* ---- fields.c --------------------------------------------------------------------------------- */

/* Properties of fields. */
#define FIELD_HAS_DEFAULT	0x1 /* can be reset */
#define FIELD_BOUNDS_SLOTS	0x2 /* a change of it changes the set of slots, or who runs them: begins a generation */
#define FIELD_NOT_ONCE		0x4 /* says nothing of a job that runs once */
#define FIELD_ONLY_ONCE		0x8 /* says nothing of a job with a schedule */

extern const char *job_field_name(JobField field);

/* All fields with this property, as a set. */
extern uint32 job_fields_that(int property);

/* Their names, separated by commas. */
extern char *job_field_names(uint32 fields);

extern bool job_field_same(const JobRow *a, const JobRow *b, JobField field);
extern void job_field_copy(JobRow *to, const JobRow *from, JobField field);

/* The fields in which two definitions differ. */
extern uint32 job_differences(const JobRow *a, const JobRow *b);

/* Reads an argument that is not NULL into the row; ERROR for what no field can have. */
extern void job_field_read(Datum value, JobField field, JobRow *row);

/* ---- arguments.c ------------------------------------------------------------------------------ */

/* Reads arguments first, first + 1, ... of a call as the fields listed; NULL ones are not given. */
extern void job_args_read(FunctionCallInfo fcinfo, int first, const JobField *fields, int n, JobArgs *out);

/* Reads an array of field names into out->reset; ERROR for what has no default or is given too. */
extern void job_args_read_reset(Datum array, JobArgs *out);

/* First thing in a function that changes something: ERROR where that cannot be. function: its name, with "()". */
extern void begin_change(const char *function);

/* ERROR 22004 naming the argument if it is NULL; else its text. */
extern char *text_arg(FunctionCallInfo fcinfo, int arg, const char *name);

/* Time zone of a definition that names none. */
extern const char *default_time_zone(void);

/* Random, 1 .. 2^53 - 1: exact in JSON. */
extern int64 random_id(void);

/* In the encoding of etcd and of the limits, UTF-8; may be the same pointer. */
extern char *to_utf8(const char *text);

/* '<job id>:<Unix microseconds>:<trigger id>' */
extern char *run_key_text(const RunKey *key);

/* ---- roles.c ---------------------------------------------------------------------------------- */

/* Name of the role that the caller acts as. */
extern char *caller_name(void);

/* May the caller act for the role (InvalidOid: of a role that is gone)? */
extern bool may_act_as(Oid role);

/* May the caller see the jobs of the role? */
extern bool may_see(Oid role);

/* ERROR unless the role exists, the caller may act for it and jobs may run as it. */
extern void check_job_role(const char *username);

/*
 * Finds a job that the caller wants to act on, by name among those of username (NULL: the caller) or by id; lock: for a
 * change of its row.
 * ERROR 42704 if there is none (or none that the caller may know of), 42501 if it is not the caller's.
 */
extern void find_job_by_name(const char *job_name, const char *username, bool lock, JobRow *out);
extern void find_job_by_id(int64 job_id, bool lock, JobRow *out);

/* The job that f(job_name, ...) names, with its role in the argument number 'username'; or f(job_id, ...). */
extern void find_by_name_args(FunctionCallInfo fcinfo, const char *function, int username, bool lock, JobRow *out);
extern void find_by_id_arg(FunctionCallInfo fcinfo, const char *function, bool lock, JobRow *out);

/* ---- views.c ---------------------------------------------------------------------------------- */

/* Is an attempt of the run queued or running on this instance? */
extern bool is_run_active(const RunKey *run);

/* ---- check.c ---------------------------------------------------------------------------------- */

extern void check_job_name(const char *name);

/* ERROR 42602 if a name of what contains a control character. */
extern void check_has_no_control_character(const char *name, const char *what);

/* Checks a whole definition but for its role; given: what the caller said in this call. */
extern void check_definition(JobRow *row, uint32 given);

/*
 * Parses a schedule; sets *time_zone to the zone in which it counts, in the server's spelling.  zone_given: the caller
 * named *time_zone in this call.
 */
extern void check_schedule(const char *schedule, const char **time_zone, bool zone_given, CronSchedule *out);

/* ---- check_place.c ---------------------------------------------------------------------------- */

/* Brings run_on into its one form; ERROR if it has none, or it is given and there is no room. */
extern void check_place(JobRow *row, uint32 given);

/* ERROR if the job can go to another place no more. */
extern void check_move(const JobRow *row, const JobRow *old);

extern bool runs_on_each(const JobRow *row);

/* ---- check_policy.c --------------------------------------------------------------------------- */

/* The value of an argument for a field of the policy; ERROR if it is out of range. */
extern int64 policy_arg(Datum value, PolicyField field);

/* ERROR for a policy that contradicts itself or the job. */
extern void check_policy(const JobRow *row, uint32 given);

/* ERROR if the command, parsed, cannot be delivered as the policy says; given: as above. */
extern void check_delivery(const JobRow *row, List *statements, uint32 given);

extern void check_queue_name(const char *name);

/* ---- define.c --------------------------------------------------------------------------------- */

/*
 * Begins a new generation of the slots of row.  old: the definition before, or NULL; keep_budget: max_runs goes on
 * counting where old had got to.
 */
extern void begin_generation(JobRow *row, const JobRow *old, bool keep_budget);

/* ERROR 22023 if row has no slot at all. */
extern void check_ever_runs(const JobRow *row);

/* Writes a changed row, marks what is to be published and wakes the scheduler at commit. */
extern void store_change(JobRow *row, uint32 fields);

#endif							/* DSCHED_API_H */
