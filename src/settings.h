/*
 * settings.h
 *	  The configuration settings of dsched; each is described where it is defined, in settings.c.
 */
#ifndef DSCHED_SETTINGS_H
#define DSCHED_SETTINGS_H

/* values of dsched.allow_superuser_jobs */
typedef enum SuperuserJobs
{
	SUPERUSER_JOBS_AUTO,		/* in a cluster: only with signatures */
	SUPERUSER_JOBS_ON,
	SUPERUSER_JOBS_OFF
} SuperuserJobs;

/* values of dsched.notify */
typedef enum NotifyWhat
{
	NOTIFY_OFF,
	NOTIFY_FAILURES,			/* what ended badly, and jobs that were paused for it */
	NOTIFY_ALL					/* every outcome */
} NotifyWhat;

/* values of dsched.dispatch_policy: see schedule/order.c */
typedef enum DispatchPolicy
{
	DISPATCH_PRIORITY,
	DISPATCH_FIFO,
	DISPATCH_EARLIEST_DEADLINE,
	DISPATCH_RATE_MONOTONIC,
	DISPATCH_ROUND_ROBIN
} DispatchPolicy;

extern int	dsched_allow_superuser_jobs;	/* a SuperuserJobs */
extern int	dsched_cancel_grace;	/* ms */
extern int	dsched_checkpoint_interval; /* ms */
extern char *dsched_cluster_key_file;	/* "": definitions are not signed */
extern char *dsched_cluster_name;
extern int	dsched_decision_retention;	/* s */
extern int	dsched_dispatch_policy; /* a DispatchPolicy */
extern int	dsched_drain_timeout;	/* ms */
extern char *dsched_etcd_ca_file;	/* this and the next: "" is none */
extern char *dsched_etcd_cert_file;
extern int	dsched_etcd_compaction; /* s, 0: never */
extern char *dsched_etcd_endpoints; /* "" is standalone mode */
extern char *dsched_etcd_key_file;
extern char *dsched_etcd_password_file;
extern char *dsched_etcd_user;
extern int	dsched_executor_idle_timeout;	/* ms */
extern int	dsched_lease_ttl;	/* s */
extern int	dsched_max_clock_skew;	/* ms */
extern int	dsched_max_databases;
extern int	dsched_max_executors;
extern int	dsched_max_executors_per_database;	/* 0: no limit; see pool.c */
extern int	dsched_max_executors_per_role;	/* 0: no limit, -1: all but one */
extern char *dsched_node_labels;
extern char *dsched_node_name;	/* "" means <host name>:<port>; see dsched_my_node() */
extern int	dsched_notify;	/* a NotifyWhat */
extern int	dsched_partitions;
extern int	dsched_plan_cache_size; /* kB */
extern int	dsched_priority_ageing; /* ms */
extern int	dsched_queue_size;
extern int	dsched_run_retention;	/* s, -1 keeps all; and so do the next two, which are numbers of rows */
extern int	dsched_run_retention_per_job;
extern int	dsched_run_retention_total;
extern bool dsched_test_clock;
extern char *dsched_test_stop_at;
extern char *dsched_timezone;

extern void dsched_define_settings(void);

/* Is an etcd cluster configured? */
extern bool dsched_clustered(void);

/* What a client of etcd is to be secured with; the texts are those of the settings, which a reload may free. */
struct EtcdSecurity;
extern void dsched_etcd_security(struct EtcdSecurity *security);

/* The name of this instance: dsched.node_name, else "<host name>:<port>". */
extern const char *dsched_my_node(void);

/* Are definitions signed, and only those that are taken from etcd? */
extern bool dsched_signed_cluster(void);

/* May jobs of superusers run, by dsched.allow_superuser_jobs and the mode? */
extern bool dsched_superuser_jobs_allowed(void);

#endif /* DSCHED_SETTINGS_H */
