/*
 * settings.c
 *	  The configuration settings of dsched.
 *
 * One variable each, with what it means above its definition call, in the order of their names.  Those that
 * size shared memory or decide what is registered at server start are PGC_POSTMASTER and can be defined only
 * while shared_preload_libraries is processed; a library loaded later (pg_upgrade, pg_restore) defines none.
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/guc.h"

#include "compat.h"
#include "core/selector.h"
#include "etcd/client.h"
#include "settings.h"
#include "shared.h"

int			dsched_allow_superuser_jobs = SUPERUSER_JOBS_AUTO;
int			dsched_cancel_grace = 10000;
int			dsched_checkpoint_interval = 250;
char	   *dsched_cluster_key_file = NULL;
char	   *dsched_cluster_name = NULL;
int			dsched_decision_retention = 7 * 24 * 3600;
int			dsched_dispatch_policy = DISPATCH_PRIORITY;
int			dsched_drain_timeout = 30000;
char	   *dsched_etcd_ca_file = NULL;
char	   *dsched_etcd_cert_file = NULL;
int			dsched_etcd_compaction = 3600;
char	   *dsched_etcd_endpoints = NULL;
char	   *dsched_etcd_key_file = NULL;
char	   *dsched_etcd_password_file = NULL;
char	   *dsched_etcd_user = NULL;
int			dsched_executor_idle_timeout = 60000;
int			dsched_lease_ttl = 10;
int			dsched_max_clock_skew = 2000;
int			dsched_max_databases = 16;
int			dsched_max_executors = 4;
int			dsched_max_executors_per_database = 0;
int			dsched_max_executors_per_role = -1;
char	   *dsched_node_labels = NULL;
char	   *dsched_node_name = NULL;
int			dsched_notify = NOTIFY_FAILURES;
int			dsched_partitions = 64;
int			dsched_plan_cache_size = 4096;
int			dsched_priority_ageing = 10000;
int			dsched_queue_size = 1024;
int			dsched_run_retention = 7 * 24 * 3600;
int			dsched_run_retention_per_job = 100000;
int			dsched_run_retention_total = 10000000;
bool		dsched_test_clock = false;
char	   *dsched_test_stop_at = NULL;
char	   *dsched_timezone = NULL;

static const struct config_enum_entry superuser_jobs_options[] = {
	{"auto", SUPERUSER_JOBS_AUTO, false},
	{"on", SUPERUSER_JOBS_ON, false},
	{"off", SUPERUSER_JOBS_OFF, false},
	{NULL, 0, false}
};

static const struct config_enum_entry notify_options[] = {
	{"off", NOTIFY_OFF, false},
	{"failures", NOTIFY_FAILURES, false},
	{"all", NOTIFY_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry dispatch_policy_options[] = {
	{"priority", DISPATCH_PRIORITY, false},
	{"fifo", DISPATCH_FIFO, false},
	{"earliest_deadline", DISPATCH_EARLIEST_DEADLINE, false},
	{"rate_monotonic", DISPATCH_RATE_MONOTONIC, false},
	{"round_robin", DISPATCH_ROUND_ROBIN, false},
	{NULL, 0, false}
};

static bool check_endpoints(char **newval, void **extra, GucSource source);
static bool check_name(char **newval, void **extra, GucSource source);
static bool check_labels(char **newval, void **extra, GucSource source);
static bool check_cluster_name(char **newval, void **extra, GucSource source);
static bool check_timezone_name(char **newval, void **extra, GucSource source);
static void define_cluster_settings(void);
static void define_execution_settings(void);
static void define_schedule_settings(void);

void
dsched_define_settings(void)
{
	define_cluster_settings();
	define_execution_settings();
	define_schedule_settings();
	MarkGUCPrefixReserved("dsched");
}

/* Who this instance is and where the others are. */
static void
define_cluster_settings(void)
{
	/* One file on all instances of a cluster; see key_file.c for what is in it.  Only the name is ever shown. */
	DefineCustomStringVariable("dsched.cluster_key_file",
							   "File with the keys that sign definitions in etcd; empty: they are not signed.",
							   NULL,
							   &dsched_cluster_key_file,
							   "",
							   PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	/* Instances with one name and one etcd share their jobs.  Part of every key in etcd. */
	DefineCustomStringVariable("dsched.cluster_name",
							   "Name of the cluster of instances that share jobs through etcd.",
							   NULL,
							   &dsched_cluster_name,
							   "main",
							   PGC_POSTMASTER,
							   0,
							   check_cluster_name, NULL, NULL);

	/* Longer than a standby may lag that is promoted; 0: there are none.  Kept in etcd, by its leases. */
	DefineCustomIntVariable("dsched.decision_retention",
							"Time that etcd keeps the decisions of runs with delivery exactly_once.",
							NULL,
							&dsched_decision_retention,
							7 * 24 * 3600, 0, 366 * 24 * 3600,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	/* How long a hand-over waits for the runs of a partition before these are handed over alive. */
	DefineCustomIntVariable("dsched.drain_timeout",
							"Time that a hand-over of a partition waits for its running jobs.",
							NULL,
							&dsched_drain_timeout,
							30000, 0, 3600000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* Whom to believe that he is etcd; files are read at the start and at a reload. */
	DefineCustomStringVariable("dsched.etcd_ca_file",
							   "File of the certificate authorities that may have signed etcd's certificates; empty for the system's.",
							   NULL,
							   &dsched_etcd_ca_file,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("dsched.etcd_cert_file",
							   "File of the certificate that this instance shows to etcd.",
							   NULL,
							   &dsched_etcd_cert_file,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	/* etcd keeps all former values until somebody does this; at its quota it takes no more writes. */
	DefineCustomIntVariable("dsched.etcd_compaction",
							"Age at which the history of etcd's keys is discarded; 0 leaves that to others.",
							NULL,
							&dsched_etcd_compaction,
							3600, 0, 31 * 24 * 3600,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	/*
	 * "http://host:port" or https, several separated by commas; empty: standalone.  A reload takes over another list; the
	 * background workers restart themselves for it.
	 */
	DefineCustomStringVariable("dsched.etcd_endpoints",
							   "Addresses of etcd's members; empty for an instance that runs alone.",
							   NULL,
							   &dsched_etcd_endpoints,
							   "",
							   PGC_SIGHUP,
							   0,
							   check_endpoints, NULL, NULL);

	DefineCustomStringVariable("dsched.etcd_key_file",
							   "File of the private key of dsched.etcd_cert_file.",
							   NULL,
							   &dsched_etcd_key_file,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	/* Never the password itself, which SHOW would show. */
	DefineCustomStringVariable("dsched.etcd_password_file",
							   "File whose first line is the password of dsched.etcd_user.",
							   NULL,
							   &dsched_etcd_password_file,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("dsched.etcd_user",
							   "Name by which this instance logs in to etcd; empty for an etcd without users.",
							   NULL,
							   &dsched_etcd_user,
							   "",
							   PGC_SIGHUP,
							   0,
							   NULL, NULL, NULL);

	/*
	 * An instance that is lost without a goodbye is replaced this long after its last sign of life.  etcd counts in
	 * whole seconds, and raises it to 1.5 times its election timeout: 2 s by default.
	 */
	DefineCustomIntVariable("dsched.lease_ttl",
							"Time after which an instance that gives no sign of life loses its partitions.",
							NULL,
							&dsched_lease_ttl,
							10, 1, 3600,
							PGC_POSTMASTER,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	/* A clock that is further off than this starts nothing. */
	DefineCustomIntVariable("dsched.max_clock_skew",
							"Largest difference to etcd's clock at which jobs are still started.",
							NULL,
							&dsched_max_clock_skew,
							2000, 100, 3600000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* By these selectors (run_on) choose: "key=value,key=value". All members see them, a reload changes them. */
	DefineCustomStringVariable("dsched.node_labels",
							   "Labels of this instance, by which jobs choose where they run.",
							   NULL,
							   &dsched_node_labels,
							   "",
							   PGC_SIGHUP,
							   0,
							   check_labels, NULL, NULL);

	/* Must differ between the instances of a cluster. */
	DefineCustomStringVariable("dsched.node_name",
							   "Name of this instance in its cluster; empty for host name and port.",
							   NULL,
							   &dsched_node_name,
							   "",
							   PGC_POSTMASTER,
							   0,
							   check_name, NULL, NULL);

	/* The first instance of a cluster writes it into etcd; all must agree. */
	DefineCustomIntVariable("dsched.partitions",
							"Number of partitions that the jobs of a database group are divided into.",
							NULL,
							&dsched_partitions,
							64, 1, DSCHED_MAX_ANY,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);
}

/* The workers that run jobs. */
static void
define_execution_settings(void)
{
	/*
	 * Whoever can write to etcd can write definitions, so a cluster in which they are not signed runs no superuser's
	 * job unless it is told to.
	 */
	DefineCustomEnumVariable("dsched.allow_superuser_jobs",
							 "Whether jobs of superusers run: auto means not in a cluster without dsched.cluster_key_file.",
							 NULL,
							 &dsched_allow_superuser_jobs,
							 SUPERUSER_JOBS_AUTO,
							 superuser_jobs_options,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	/* A command may catch the cancel of its query, or be where none is heard. */
	DefineCustomIntVariable("dsched.cancel_grace",
							"Time after which a run that was cancelled, or is over its timeout, loses its process.",
							NULL,
							&dsched_cancel_grace,
							10000, 0, 3600000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* Runs that wait at a reload keep the place that they have. */
	DefineCustomEnumVariable("dsched.dispatch_policy",
							 "Which of the runs that wait for an executor is next.",
							 NULL,
							 &dsched_dispatch_policy,
							 DISPATCH_PRIORITY,
							 dispatch_policy_options,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	/* A process start costs milliseconds, so executors wait for more work. */
	DefineCustomIntVariable("dsched.executor_idle_timeout",
							"Time after which an executor without work leaves.",
							NULL,
							&dsched_executor_idle_timeout,
							60000, 0, 86400000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("dsched.max_databases",
							"Largest number of databases of this instance that have jobs.",
							NULL,
							&dsched_max_databases,
							16, 1, 1024,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	/* Each is a background worker: see max_worker_processes. */
	DefineCustomIntVariable("dsched.max_executors",
							"Largest number of jobs that run at the same time on this instance.",
							NULL,
							&dsched_max_executors,
							4, 1, 256,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	/* Parse trees and plans of the commands that it ran last.  A small command takes some 10 kB. */
	DefineCustomIntVariable("dsched.plan_cache_size",
							"Memory in which each executor keeps the plans of commands; 0 keeps none.",
							NULL,
							&dsched_plan_cache_size,
							4096, 0, MAX_KILOBYTES,
							PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);

	/* Where databases belong to different people. */
	DefineCustomIntVariable("dsched.max_executors_per_database",
							"Largest number of jobs of one database that run at the same time; 0 is no limit.",
							NULL,
							&dsched_max_executors_per_database,
							0, 0, 256,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	/* Shares count what runs, and nobody can take a place back from a long run: so one is left to the others. */
	DefineCustomIntVariable("dsched.max_executors_per_role",
							"Largest number of jobs of one role that run at the same time; 0 is no limit, -1 all but one of three or more.",
							NULL,
							&dsched_max_executors_per_role,
							-1, -1, 256,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	/* So that no stream of runs of high priority keeps the others out; also weighs periods in rate_monotonic. */
	DefineCustomIntVariable("dsched.priority_ageing",
							"Time that a run has to wait to be preferred like one of the next higher priority.",
							NULL,
							&dsched_priority_ageing,
							10000, 1, 86400000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* Runs beyond it wait in their scheduler's memory. */
	DefineCustomIntVariable("dsched.queue_size",
							"Number of runs in shared memory, waiting or running.",
							NULL,
							&dsched_queue_size,
							1024, 16, 1048576,
							PGC_POSTMASTER,
							0,
							NULL, NULL, NULL);

	/* Rows of dsched.run older than this go; the newest row of each job stays. */
	DefineCustomIntVariable("dsched.run_retention",
							"Time that the rows of finished runs are kept; -1 keeps them for ever.",
							NULL,
							&dsched_run_retention,
							7 * 24 * 3600, -1, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);

	/* A job that runs each second has the last day with the default; the newest row stays in any case. */
	DefineCustomIntVariable("dsched.run_retention_per_job",
							"Number of rows of finished runs that are kept of one job; -1: any number.",
							NULL,
							&dsched_run_retention_per_job,
							100000, -1, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);

	/* So that no rate of runs fills the disk: some 4 GB with the default. */
	DefineCustomIntVariable("dsched.run_retention_total",
							"Number of rows of finished runs that are kept in each database; -1: any number.",
							NULL,
							&dsched_run_retention_total,
							10000000, -1, INT_MAX,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);
}

/* When jobs run, and how that is remembered. */
static void
define_schedule_settings(void)
{
	/* Also the longest time in which a run that was committed could be repeated elsewhere after a crash. */
	DefineCustomIntVariable("dsched.checkpoint_interval",
							"Shortest time between two reports of a partition's state to etcd.",
							NULL,
							&dsched_checkpoint_interval,
							250, 10, 60000,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	/* Of what is sent, anybody who may connect can hear: names and outcomes, no messages and no SQL. */
	DefineCustomEnumVariable("dsched.notify",
							 "Which outcomes of runs are sent as NOTIFY on the channel \"dsched\".",
							 NULL,
							 &dsched_notify,
							 NOTIFY_FAILURES,
							 notify_options,
							 PGC_SIGHUP,
							 0,
							 NULL, NULL, NULL);

	/* For the tests of dsched: wall time stands still and is moved by SQL. */
	DefineCustomBoolVariable("dsched.test_clock",
							 "Takes the wall time from shared memory; for tests only.",
							 NULL,
							 &dsched_test_clock,
							 false,
							 PGC_POSTMASTER,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);

	/* For the tests of dsched: executors stop themselves (SIGSTOP) where they come to one of these points; see delivery.h. */
	DefineCustomStringVariable("dsched.test_stop_at",
							   "Points at which executors stop; for tests only.",
							   NULL,
							   &dsched_test_stop_at,
							   "",
							   PGC_SIGHUP,
							   GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);

	/* Frozen into a job when it is defined: a later change does not move its slots. */
	DefineCustomStringVariable("dsched.timezone",
							   "Time zone of jobs defined without one; empty for the server's TimeZone.",
							   NULL,
							   &dsched_timezone,
							   "",
							   PGC_SIGHUP,
							   0,
							   check_timezone_name, NULL, NULL);
}

static bool
check_endpoints(char **newval, void **extra, GucSource source)
{
	char		reason[256];

	if (etcd_endpoints_valid(*newval, reason, sizeof(reason)))
		return true;
	GUC_check_errdetail("%s", reason);
	GUC_check_errhint("Use a list such as \"https://10.0.0.1:2379,https://10.0.0.2:2379\".");
	return false;
}

static bool
check_name(char **newval, void **extra, GucSource source)
{
	for (const char *p = *newval; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7F)
		{
			GUC_check_errdetail("The name contains a control character.");
			return false;
		}
	}
	if (strlen(*newval) >= DSCHED_MAX_NODE_NAME)
	{
		GUC_check_errdetail("The name is longer than %d bytes.", DSCHED_MAX_NODE_NAME - 1);
		return false;
	}
	return true;
}

/* In their one form, so that all instances see the same. */
static bool
check_labels(char **newval, void **extra, GucSource source)
{
	char		normal[LABELS_MAX + 1];
	SelectorError error;

	if (!labels_normalise(*newval, normal, &error))
	{
		GUC_check_errmsg("invalid labels \"%s\"", *newval);
		GUC_check_errdetail("At byte %d: %s.", error.position, error.message);
		GUC_check_errhint("%s", error.hint);
		return false;
	}
	/* never longer than what was given */
	strcpy(*newval, normal);
	return true;
}

static bool
check_cluster_name(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
	{
		GUC_check_errdetail("The name must not be empty.");
		return false;
	}
	return check_name(newval, extra, source);
}

static bool
check_timezone_name(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0' || pg_tzset(*newval) != NULL)
		return true;
	GUC_check_errdetail("Time zone \"%s\" is not known.", *newval);
	return false;
}

void
dsched_etcd_security(EtcdSecurity *security)
{
	security->ca_file = dsched_etcd_ca_file;
	security->cert_file = dsched_etcd_cert_file;
	security->key_file = dsched_etcd_key_file;
	security->user = dsched_etcd_user;
	security->password_file = dsched_etcd_password_file;
}

bool
dsched_clustered(void)
{
	return dsched_etcd_endpoints != NULL &&
		dsched_etcd_endpoints[strspn(dsched_etcd_endpoints, " \t\n")] != '\0';
}

const char *
dsched_my_node(void)
{
	static char name[DSCHED_MAX_NODE_NAME];
	char		host[DSCHED_MAX_NODE_NAME - 8];

	if (dsched_node_name != NULL && dsched_node_name[0] != '\0')
		return dsched_node_name;
	if (name[0] == '\0')
	{
		if (gethostname(host, sizeof(host)) != 0)
			strlcpy(host, "localhost", sizeof(host));
		host[sizeof(host) - 1] = '\0';
		snprintf(name, sizeof(name), "%s:%d", host, PostPortNumber);
	}
	return name;
}

bool
dsched_signed_cluster(void)
{
	return dsched_clustered() && dsched_cluster_key_file != NULL && dsched_cluster_key_file[0] != '\0';
}

bool
dsched_superuser_jobs_allowed(void)
{
	if (dsched_allow_superuser_jobs == SUPERUSER_JOBS_AUTO)
		return !dsched_clustered() || dsched_signed_cluster();
	return dsched_allow_superuser_jobs == SUPERUSER_JOBS_ON;
}
