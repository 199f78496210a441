/* sql/dsched--1.0.sql */

-- complain if the script is sourced in psql, rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION dsched" to load this file. \quit

-- First: a schema that was there before must be nobody else's, and empty, as names are looked for in it.
CREATE FUNCTION dsched._fresh_schema() RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_fresh_schema' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched._fresh_schema() FROM PUBLIC;
SELECT dsched._fresh_schema();

-- The schema is made by CREATE EXTENSION (schema = dsched in the control file).  No table but dsched.run, which
-- has a policy, gives PUBLIC any privilege: functions change them, views show each role its own.

-- Every job of the database group.
CREATE TABLE dsched.job (
	job_id			bigint PRIMARY KEY,
	username		text NOT NULL,				-- runs as this role and belongs to it
	job_name		text NOT NULL,
	schedule		text,						-- NULL: a one-shot
	run_at			timestamptz,				-- the only slot of a one-shot
	command			text NOT NULL,
	time_zone		text NOT NULL,
	starts_at		timestamptz,
	expires_at		timestamptz,				-- no slot at or after it
	max_runs		integer,
	last_slot		timestamptz,				-- what max_runs comes to, counted from slots_from
	overlap			text NOT NULL DEFAULT 'skip'
		CHECK (overlap IN ('skip', 'queue_one', 'queue_all', 'allow', 'cancel_running')),
	misfire			text NOT NULL DEFAULT 'latest' CHECK (misfire IN ('latest', 'all', 'skip')),
	misfire_grace	interval NOT NULL DEFAULT '1 minute',
	max_attempts	integer NOT NULL DEFAULT 1,
	retry_delay		interval NOT NULL DEFAULT '1 second',
	retry_max_delay	interval NOT NULL DEFAULT '10 minutes',
	timeout			interval,
	priority		integer NOT NULL DEFAULT 0,
	deadline		interval,					-- after the scheduled time
	max_failures	integer,
	max_lost		integer NOT NULL DEFAULT 3,
	jitter			interval,					-- part of the generation
	delivery		text NOT NULL DEFAULT 'at_least_once'
		CHECK (delivery IN ('at_least_once', 'at_most_once', 'exactly_once')),
	queue			text,						-- one of dsched.queue, or not known here (yet); NULL: none
	run_on			text,						-- NULL: any instance; 'each', or a selector; part of the generation
	active			boolean NOT NULL DEFAULT true,
	payload			jsonb,
	metadata		jsonb,
	anchor			timestamptz NOT NULL,		-- intervals count from here
	gen				bigint NOT NULL,			-- generation of slots; random
	slots_from		timestamptz NOT NULL,		-- slots of this generation at or before it do not exist
	gen_rev			bigint NOT NULL DEFAULT 0,	-- etcd revision at which the generation began
	mod_revision	bigint NOT NULL DEFAULT 0,	-- of the version in etcd that this row holds or is based on; 0: none
	change_id		bigint NOT NULL DEFAULT 0,	-- of the last local change; random
	changed			text[],						-- columns changed here and not yet published; NULL: none
	problem			text,						-- why it does not run (a dropped role, a definition that does not parse)
	extra			text,						-- fields of newer versions, kept
	created_at		timestamptz NOT NULL,
	changed_at		timestamptz NOT NULL,
	UNIQUE (job_name, username),				-- in this order people look for one
	CHECK ((schedule IS NULL) <> (run_at IS NULL))
);
-- what the scheduler has to publish (in a cluster) or to take in (standalone)
CREATE INDEX job_changed ON dsched.job (job_id) WHERE changed IS NOT NULL;
-- what status() and the view queues look for among all jobs
CREATE INDEX job_problem ON dsched.job (job_id) WHERE problem IS NOT NULL;
CREATE INDEX job_queue ON dsched.job (queue) WHERE queue IS NOT NULL;
CREATE INDEX job_run_on ON dsched.job (run_on) WHERE run_on IS NOT NULL;

-- Every run that this instance made, and every slot that it closed without a run.
CREATE TABLE dsched.run (
	scheduled_for	timestamptz NOT NULL,
	job_id			bigint NOT NULL,
	trigger_id		bigint NOT NULL,			-- 0: the schedule itself
	attempt			integer NOT NULL,
	job_name		text NOT NULL,
	username		text NOT NULL,
	gen				bigint NOT NULL,
	reason			text NOT NULL,
	status			text NOT NULL,
	last_slot		timestamptz,				-- a row that stands for several slots: the last of them
	slots			integer NOT NULL,			-- how many; 1
	started_at		timestamptz,
	finished_at		timestamptz,
	node			text NOT NULL,
	epoch			bigint NOT NULL,
	pid				integer,
	rows			bigint,
	command_tag		text,
	sqlstate		text,
	message			text,
	detail			text,
	hint			text,
	context			text,
	PRIMARY KEY (scheduled_for, job_id, trigger_id, attempt)
) WITH (
	-- Rows come at one end and go at the other.  Vacuumed often, their space is used again, and reading by index alone is possible.
	autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05,
	-- To give space back to the system it would have to lock out those who record; what was needed once is needed again.
	vacuum_truncate = off
);
CREATE INDEX run_job ON dsched.run (job_id, scheduled_for);
-- start rows without an end, which a scheduler looks for when it takes over
CREATE INDEX run_started ON dsched.run (scheduled_for) WHERE status = 'running';

-- Deletions and triggers committed here and not yet published (or, standalone, not yet taken in).
CREATE TABLE dsched.outbox (
	outbox_id		bigint PRIMARY KEY,			-- random
	kind			text NOT NULL CHECK (kind IN ('delete', 'run', 'backfill', 'cancel')),
	job_id			bigint NOT NULL,
	username		text NOT NULL,
	job_name		text NOT NULL,
	base_revision	bigint NOT NULL,			-- delete: mod_revision of what was deleted
	scheduled_for	timestamptz,				-- run
	first_slot		timestamptz,				-- backfill: the range, both inclusive
	last_slot		timestamptz,
	rule			bigint,						-- backfill: hash of the schedule that was meant
	slot			timestamptz,				-- cancel: of the run; NULL: all that is left of a backfill
	target			bigint,						-- cancel: trigger_id of the run, 0 for the schedule, or the backfill
	local			boolean NOT NULL DEFAULT false, -- of a job that runs on each instance: carried out here, not published
	requested_by	text NOT NULL,
	created_at		timestamptz NOT NULL
);
-- the order in which they are taken
CREATE INDEX outbox_order ON dsched.outbox (created_at, outbox_id);

-- The account of each partition: the truth standalone, a copy of etcd's in a cluster (format: docs/etcd-keys.md).
CREATE TABLE dsched.partition_state (
	place			text NOT NULL,
	partition		integer NOT NULL,
	state			text NOT NULL,
	updated_at		timestamptz NOT NULL,
	PRIMARY KEY (place, partition)
);

-- Which database this is and which cluster it belongs to; a mismatch keeps its jobs asleep until dsched.adopt().
CREATE TABLE dsched.identity (
	singleton			boolean PRIMARY KEY CHECK (singleton),
	system_identifier	bigint NOT NULL,
	database_oid		oid NOT NULL,
	database_name		text NOT NULL,
	cluster				text NOT NULL,			-- dsched.cluster_name; '' standalone
	incarnation			text NOT NULL,			-- of the cluster; '' standalone, or never joined
	max_revision		bigint NOT NULL,		-- highest etcd revision seen
	applied_revision	bigint NOT NULL,		-- all definitions up to it are in dsched.job
	former_revision		bigint NOT NULL DEFAULT 0, -- the same in the incarnation before this one; 0: it was not in that
	beat_revision		bigint NOT NULL DEFAULT 0, -- of a heartbeat of this instance: an etcd that was restored has something else there
	beat_node			text NOT NULL DEFAULT '', -- the instance's name then
	replaced			boolean NOT NULL DEFAULT false, -- an older etcd was seen, and since then not the right one
	held				text,					-- why the jobs sleep although all matches (restored rows); NULL
	key_ids				text NOT NULL DEFAULT ''	-- of the keys by which all rows of dsched.job were verified
);

-- Every throttle queue of the database group.
CREATE TABLE dsched.queue (
	name			text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 63),
	max_running		integer CHECK (max_running BETWEEN 1 AND 10000),
	rate_limit		integer CHECK (rate_limit BETWEEN 1 AND 1000000),
	per				bigint CHECK (per BETWEEN 1000 AND 31622400000000), -- of rate_limit; microseconds
	scope			text NOT NULL DEFAULT 'instance' CHECK (scope IN ('instance', 'cluster')),
	mod_revision	bigint NOT NULL DEFAULT 0,	-- of the version in etcd that this row holds or is based on; 0: none
	change_id		bigint NOT NULL DEFAULT 0,	-- of the last change; random
	changed			text CHECK (changed IN ('put', 'offer', 'drop')), -- what etcd has yet to be told; NULL: nothing
	problem			text,						-- why it could not be told, or what it says cannot be read
	extra			text,						-- fields of newer versions, kept
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	changed_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CHECK (max_running IS NOT NULL OR rate_limit IS NOT NULL),
	CHECK ((rate_limit IS NULL) = (per IS NULL))
);

SELECT pg_catalog.pg_extension_config_dump('dsched.job', '');
-- Limits start nothing, so restored ones need no hold.
SELECT pg_catalog.pg_extension_config_dump('dsched.queue', $$WHERE changed IS DISTINCT FROM 'drop'$$);

-- A row that was not written by the functions below comes from a dump, or was made by hand: its jobs are put on hold.
-- It fires for rows of logical replication too.
CREATE FUNCTION dsched._job_written() RETURNS trigger
	AS 'MODULE_PATHNAME', 'dsched_job_written' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched._job_written() FROM PUBLIC;
CREATE TRIGGER job_written BEFORE INSERT OR UPDATE ON dsched.job
	FOR EACH ROW EXECUTE FUNCTION dsched._job_written();
ALTER TABLE dsched.job ENABLE ALWAYS TRIGGER job_written;

-- A queue that was not written by the functions below: etcd has yet to be told.
CREATE FUNCTION dsched._queue_written() RETURNS trigger
	AS 'MODULE_PATHNAME', 'dsched_queue_written' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched._queue_written() FROM PUBLIC;
CREATE TRIGGER queue_written BEFORE INSERT OR UPDATE ON dsched.queue
	FOR EACH ROW EXECUTE FUNCTION dsched._queue_written();
ALTER TABLE dsched.queue ENABLE ALWAYS TRIGGER queue_written;


-- Definitions.  NULL stands for "not given", so none of these is STRICT; each checks what its caller may do, so that
-- everybody who has USAGE on the schema may call them.

CREATE FUNCTION dsched.schedule(
	job_name text, schedule text, command text,
	time_zone text DEFAULT NULL, starts_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
	max_runs integer DEFAULT NULL, username text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, active boolean DEFAULT true,
	overlap text DEFAULT NULL, misfire text DEFAULT NULL, misfire_grace interval DEFAULT NULL,
	max_attempts integer DEFAULT NULL, retry_delay interval DEFAULT NULL, retry_max_delay interval DEFAULT NULL,
	timeout interval DEFAULT NULL, priority integer DEFAULT NULL, deadline interval DEFAULT NULL,
	max_failures integer DEFAULT NULL, max_lost integer DEFAULT NULL, jitter interval DEFAULT NULL,
	queue text DEFAULT NULL, run_on text DEFAULT NULL, delivery text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_schedule' LANGUAGE C;

CREATE FUNCTION dsched.schedule(schedule text, command text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_schedule_unnamed' LANGUAGE C;

CREATE FUNCTION dsched.schedule_once(
	job_name text, run_at timestamptz, command text,
	username text DEFAULT NULL, payload jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, active boolean DEFAULT true,
	max_attempts integer DEFAULT NULL, retry_delay interval DEFAULT NULL, retry_max_delay interval DEFAULT NULL,
	timeout interval DEFAULT NULL, priority integer DEFAULT NULL, deadline interval DEFAULT NULL,
	max_lost integer DEFAULT NULL, queue text DEFAULT NULL, run_on text DEFAULT NULL, delivery text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_schedule_once' LANGUAGE C;

CREATE FUNCTION dsched.schedule_in(
	job_name text, delay interval, command text,
	username text DEFAULT NULL, payload jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, active boolean DEFAULT true,
	max_attempts integer DEFAULT NULL, retry_delay interval DEFAULT NULL, retry_max_delay interval DEFAULT NULL,
	timeout interval DEFAULT NULL, priority integer DEFAULT NULL, deadline interval DEFAULT NULL,
	max_lost integer DEFAULT NULL, queue text DEFAULT NULL, run_on text DEFAULT NULL, delivery text DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_schedule_in' LANGUAGE C;

CREATE FUNCTION dsched.alter_job(
	job_name text,
	schedule text DEFAULT NULL, command text DEFAULT NULL, run_at timestamptz DEFAULT NULL,
	time_zone text DEFAULT NULL, starts_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
	max_runs integer DEFAULT NULL, username text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, active boolean DEFAULT NULL,
	overlap text DEFAULT NULL, misfire text DEFAULT NULL, misfire_grace interval DEFAULT NULL,
	max_attempts integer DEFAULT NULL, retry_delay interval DEFAULT NULL, retry_max_delay interval DEFAULT NULL,
	timeout interval DEFAULT NULL, priority integer DEFAULT NULL, deadline interval DEFAULT NULL,
	max_failures integer DEFAULT NULL, max_lost integer DEFAULT NULL, jitter interval DEFAULT NULL,
	queue text DEFAULT NULL, run_on text DEFAULT NULL, delivery text DEFAULT NULL, reset text[] DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_alter_job_by_name' LANGUAGE C;

CREATE FUNCTION dsched.alter_job(
	job_id bigint,
	schedule text DEFAULT NULL, command text DEFAULT NULL, run_at timestamptz DEFAULT NULL,
	time_zone text DEFAULT NULL, starts_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
	max_runs integer DEFAULT NULL, username text DEFAULT NULL, payload jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, active boolean DEFAULT NULL,
	overlap text DEFAULT NULL, misfire text DEFAULT NULL, misfire_grace interval DEFAULT NULL,
	max_attempts integer DEFAULT NULL, retry_delay interval DEFAULT NULL, retry_max_delay interval DEFAULT NULL,
	timeout interval DEFAULT NULL, priority integer DEFAULT NULL, deadline interval DEFAULT NULL,
	max_failures integer DEFAULT NULL, max_lost integer DEFAULT NULL, jitter interval DEFAULT NULL,
	queue text DEFAULT NULL, run_on text DEFAULT NULL, delivery text DEFAULT NULL, reset text[] DEFAULT NULL)
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_alter_job_by_id' LANGUAGE C;

CREATE FUNCTION dsched.unschedule(job_name text, username text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_unschedule_by_name' LANGUAGE C;
CREATE FUNCTION dsched.unschedule(job_id bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_unschedule_by_id' LANGUAGE C;

CREATE FUNCTION dsched.pause(job_name text, username text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_pause_by_name' LANGUAGE C;
CREATE FUNCTION dsched.pause(job_id bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_pause_by_id' LANGUAGE C;

CREATE FUNCTION dsched.resume(job_name text, username text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_resume_by_name' LANGUAGE C;
CREATE FUNCTION dsched.resume(job_id bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_resume_by_id' LANGUAGE C;

CREATE FUNCTION dsched.run_now(job_name text, username text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_run_now_by_name' LANGUAGE C;
CREATE FUNCTION dsched.run_now(job_id bigint) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_run_now_by_id' LANGUAGE C;

CREATE FUNCTION dsched.backfill(
	job_name text, first timestamptz, last timestamptz, username text DEFAULT NULL)
	RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_backfill_by_name' LANGUAGE C;
CREATE FUNCTION dsched.backfill(job_id bigint, first timestamptz, last timestamptz) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_backfill_by_id' LANGUAGE C;

CREATE FUNCTION dsched.cancel(run_key text) RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_cancel' LANGUAGE C;

CREATE FUNCTION dsched.adopt() RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_adopt' LANGUAGE C;

-- Checks for itself that its caller is a superuser.
CREATE FUNCTION dsched.sign_definitions() RETURNS bigint
	AS 'MODULE_PATHNAME', 'dsched_sign_definitions' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched.sign_definitions() FROM PUBLIC;

-- Begins a new incarnation of the cluster; takes effect at once, whatever becomes of the transaction.
CREATE FUNCTION dsched.recover_cluster(resume_from timestamptz DEFAULT NULL, partitions integer DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_recover_cluster' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched.recover_cluster(timestamptz, integer) FROM PUBLIC;

-- Throttle queues.  They are shared by all roles, so changing them is for those to whom EXECUTE was granted.
CREATE FUNCTION dsched.create_queue(
	name text, max_running integer DEFAULT NULL, rate_limit integer DEFAULT NULL, per interval DEFAULT '1 second',
	scope text DEFAULT 'instance')
	RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_create_queue' LANGUAGE C;

CREATE FUNCTION dsched.alter_queue(
	name text, max_running integer DEFAULT NULL, rate_limit integer DEFAULT NULL, per interval DEFAULT NULL,
	scope text DEFAULT NULL, reset text[] DEFAULT NULL)
	RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_alter_queue' LANGUAGE C;

CREATE FUNCTION dsched.drop_queue(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_drop_queue' LANGUAGE C;

REVOKE ALL ON FUNCTION dsched.create_queue(text, integer, integer, interval, text),
	dsched.alter_queue(text, integer, integer, interval, text, text[]), dsched.drop_queue(text) FROM PUBLIC;


-- Questions.

CREATE FUNCTION dsched.preview(
	schedule text, time_zone text DEFAULT NULL, after timestamptz DEFAULT NULL, count integer DEFAULT 10)
	RETURNS SETOF timestamptz
	AS 'MODULE_PATHNAME', 'dsched_preview' LANGUAGE C PARALLEL RESTRICTED ROWS 10;

CREATE FUNCTION dsched.describe(schedule text, time_zone text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_describe' LANGUAGE C STABLE PARALLEL SAFE;

CREATE FUNCTION dsched.current_run(
	OUT run_key text, OUT job_id bigint, OUT job_name text, OUT scheduled_for timestamptz, OUT trigger_id bigint,
	OUT attempt integer, OUT reason text, OUT payload jsonb)
	AS 'MODULE_PATHNAME', 'dsched_current_run' LANGUAGE C PARALLEL RESTRICTED;

CREATE FUNCTION dsched.status(OUT component text, OUT state text, OUT detail text, OUT hint text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'dsched_status' LANGUAGE C PARALLEL RESTRICTED ROWS 13;


-- What the views are made of.  They show only what the caller may see.

-- Is the caller a member of the role (or does it have the rights of pg_monitor)?
CREATE FUNCTION dsched._visible(username text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'dsched_visible' LANGUAGE C STRICT STABLE PARALLEL SAFE;

CREATE FUNCTION dsched._run_key(job_id bigint, scheduled_for timestamptz, trigger_id bigint) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_run_key' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;

CREATE FUNCTION dsched._next_run(job dsched.job) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'dsched_next_run' LANGUAGE C STRICT VOLATILE PARALLEL SAFE COST 100;

CREATE FUNCTION dsched._describe(job dsched.job) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_describe_job' LANGUAGE C STRICT STABLE PARALLEL SAFE;

CREATE FUNCTION dsched._owner_node(username text, job_name text, run_on text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_owner_node' LANGUAGE C VOLATILE PARALLEL SAFE;

CREATE FUNCTION dsched._place_problem(run_on text) RETURNS text
	AS 'MODULE_PATHNAME', 'dsched_place_problem' LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

-- The time that slots go by.
CREATE FUNCTION dsched._now() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'dsched_now' LANGUAGE C STRICT VOLATILE PARALLEL SAFE;

CREATE FUNCTION dsched._active_runs(
	OUT job_id bigint, OUT username text, OUT scheduled_for timestamptz, OUT trigger_id bigint, OUT attempt integer,
	OUT gen bigint, OUT status text, OUT reason text, OUT started_at timestamptz, OUT epoch bigint, OUT pid integer)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'dsched_active_runs' LANGUAGE C PARALLEL RESTRICTED ROWS 20;

CREATE FUNCTION dsched._members(
	OUT node text, OUT this_instance boolean, OUT host text, OUT port integer, OUT labels text, OUT version text,
	OUT session bigint, OUT last_seen timestamptz, OUT clock_skew_ms bigint)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'dsched_members' LANGUAGE C PARALLEL RESTRICTED ROWS 5;

CREATE FUNCTION dsched._partitions(
	OUT place text, OUT partition integer, OUT owner_node text, OUT epoch bigint, OUT state text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'dsched_partition_list' LANGUAGE C PARALLEL RESTRICTED ROWS 64;

-- The only table that callers read themselves, in dsched.runs: its rows are for those who may see them.
ALTER TABLE dsched.run ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON dsched.run FOR SELECT USING (dsched._visible(username));

CREATE VIEW dsched.jobs WITH (security_barrier) AS
	SELECT j.job_id, j.job_name, j.username, j.schedule, j.time_zone, j.run_at, j.command, j.active,
		j.starts_at, j.expires_at, j.max_runs, j.payload, j.metadata,
		j.overlap, j.misfire, j.misfire_grace, j.max_attempts, j.retry_delay, j.retry_max_delay, j.timeout,
		j.priority, j.deadline, j.max_failures, j.max_lost, j.jitter, j.queue, coalesce(j.run_on, 'any') AS run_on, j.delivery,
		CASE
			WHEN j.run_at IS NULL
			OR NOT EXISTS (
				SELECT FROM dsched.run d
				WHERE d.scheduled_for = j.run_at AND d.job_id = j.job_id AND d.trigger_id = 0 AND d.gen = j.gen)
			THEN dsched._next_run(j)
		END AS next_run,
		r.scheduled_for AS last_run,
		r.status AS last_status,
		r.finished_at AS last_finished,
		dsched._describe(j) AS description,
		dsched._owner_node(j.username, j.job_name, j.run_on) AS owner_node,
		j.changed IS NULL AS published,
		coalesce(j.problem, dsched._place_problem(j.run_on)) AS problem
	FROM dsched.job j
	-- The latest time first, alone: asked for the latest row, the planner may go back through the runs of all jobs.
	LEFT JOIN LATERAL (
		SELECT l.scheduled_for, l.status, l.finished_at
		FROM dsched.run l
		WHERE l.job_id = j.job_id
		AND l.scheduled_for = (SELECT max(m.scheduled_for) FROM dsched.run m WHERE m.job_id = j.job_id)
		ORDER BY l.trigger_id DESC, l.attempt DESC
		LIMIT 1) r ON true
	WHERE dsched._visible(j.username);

-- What has come due and is not with an executor: from the accounts of the partitions that this instance owns, as they were last
-- written here.  A range of slots is one row.
CREATE VIEW dsched._waiting_runs AS
	SELECT j.job_id, j.job_name, j.username,
		timestamptz 'epoch' + p.s * interval '1 microsecond' AS scheduled_for, coalesce(p.t, 0) AS trigger_id,
		greatest(p.a, 1) AS attempt, p.g AS gen, p.r AS reason,
		timestamptz 'epoch' + p.e * interval '1 microsecond' AS last_slot, coalesce(p.c, 1) AS slots,
		timestamptz 'epoch' + p.n * interval '1 microsecond' AS not_before, o.epoch
	FROM dsched._partitions() o
	JOIN dsched.partition_state s ON s.place = o.place AND s.partition = o.partition,
	LATERAL (SELECT s.state::jsonb AS account) v,
	LATERAL jsonb_to_recordset(v.account -> 'pending')
		AS p (j bigint, g bigint, s bigint, e bigint, c integer, t bigint, a integer, n bigint, r text)
	JOIN dsched.job j ON j.job_id = p.j AND (j.gen = p.g OR p.t IS NOT NULL)
	-- in etcd it is the revision alone
	WHERE (v.account ->> 'epoch')::bigint = o.epoch & ((bigint '1' << 40) - 1)
	-- not what is open only because another instance's clock was ahead of ours
	AND timestamptz 'epoch' + p.s * interval '1 microsecond' <= dsched._now();

-- What is not over yet: with an executor, queued or waiting.  A run that is in the table too (it commits a row before it starts) is
-- shown once, and so is one that waited until just now.  Who may see what is asked around the union: the planner takes a
-- UNION ALL at the top of a view apart, and with it the barrier.
CREATE VIEW dsched._open_runs WITH (security_barrier) AS
	SELECT u.job_id, u.job_name, u.username, u.scheduled_for, u.trigger_id, u.attempt, u.gen, u.reason, u.status,
		u.last_slot, u.slots, u.not_before, u.started_at, m.node, u.epoch, u.pid
	FROM (
		SELECT a.job_id, coalesce(j.job_name, a.job_id::text) AS job_name, a.username, a.scheduled_for, a.trigger_id,
			a.attempt, a.gen, a.reason, a.status, NULL::timestamptz AS last_slot, 1 AS slots,
			NULL::timestamptz AS not_before, a.started_at, a.epoch, a.pid
		FROM dsched._active_runs() a
		LEFT JOIN dsched.job j ON j.job_id = a.job_id
		WHERE NOT EXISTS (
			SELECT FROM dsched.run r
			WHERE r.scheduled_for = a.scheduled_for AND r.job_id = a.job_id AND r.trigger_id = a.trigger_id
			AND r.attempt = a.attempt)
		UNION ALL
		SELECT w.job_id, w.job_name, w.username, w.scheduled_for, w.trigger_id,
			w.attempt, w.gen, w.reason, 'waiting', w.last_slot, w.slots,
			w.not_before, NULL, w.epoch, NULL
		FROM dsched._waiting_runs w
		WHERE NOT EXISTS (
			SELECT FROM dsched.run r
			WHERE r.scheduled_for = w.scheduled_for AND r.job_id = w.job_id AND r.trigger_id = w.trigger_id
			AND r.attempt >= w.attempt)
		AND NOT EXISTS (
			SELECT FROM dsched._active_runs() a
			WHERE a.scheduled_for = w.scheduled_for AND a.job_id = w.job_id AND a.trigger_id = w.trigger_id
			AND a.attempt >= w.attempt)) u
	LEFT JOIN dsched._members() m ON m.this_instance
	WHERE dsched._visible(u.username);

-- No barrier: the planner could not see through it that the newest 20 of ten million rows are at the end of an index.  Instead the
-- table is read with the caller's rights, under its policy, and the rest is behind a barrier of its own.
CREATE VIEW dsched.runs WITH (security_invoker) AS
	SELECT dsched._run_key(r.job_id, r.scheduled_for, r.trigger_id) AS run_key,
		r.job_id, r.job_name, r.username, r.scheduled_for, r.trigger_id, r.attempt, r.gen, r.reason, r.status,
		r.last_slot, r.slots, NULL::timestamptz AS not_before, r.started_at, r.finished_at, r.node, r.epoch, r.pid,
		r.rows, r.command_tag, r.sqlstate, r.message, r.detail, r.hint, r.context
	FROM dsched.run r
	UNION ALL
	SELECT dsched._run_key(o.job_id, o.scheduled_for, o.trigger_id),
		o.job_id, o.job_name, o.username, o.scheduled_for, o.trigger_id, o.attempt, o.gen, o.reason, o.status,
		o.last_slot, o.slots, o.not_before, o.started_at, NULL, o.node, o.epoch, o.pid,
		NULL, NULL, NULL, NULL, NULL, NULL, NULL
	FROM dsched._open_runs o;

CREATE VIEW dsched.nodes WITH (security_barrier) AS
	SELECT node, this_instance, host, port, labels, version, session, last_seen, clock_skew_ms
	FROM dsched._members();

CREATE VIEW dsched.partitions WITH (security_barrier) AS
	SELECT place, partition, owner_node, epoch, state
	FROM dsched._partitions();

CREATE VIEW dsched.queues WITH (security_barrier) AS
	SELECT q.name, q.max_running, q.rate_limit,
		pg_catalog.justify_hours(q.per * interval '1 microsecond') AS per,
		q.scope,
		coalesce(j.jobs, 0) AS jobs,
		coalesce(a.running, 0) AS running,
		q.changed IS NULL AS published,
		q.problem
	FROM dsched.queue q
	LEFT JOIN (
		SELECT d.queue, count(*) AS jobs
		FROM dsched.job d
		WHERE d.queue IS NOT NULL
		GROUP BY d.queue) j ON j.queue = q.name
	LEFT JOIN (
		SELECT d.queue, count(*) AS running
		FROM dsched._active_runs() r
		JOIN dsched.job d ON d.job_id = r.job_id
		WHERE r.status = 'running' AND d.queue IS NOT NULL
		GROUP BY d.queue) a ON a.queue = q.name
	WHERE q.changed IS DISTINCT FROM 'drop';


-- Privileges.  Whatever default privileges there are: nobody but the owner touches the tables, everybody may ask the
-- views, which know who asks, and read dsched.run, which does too.  USAGE on the schema is for the administrator to grant.
REVOKE ALL ON dsched.job, dsched.run, dsched.outbox, dsched.partition_state, dsched.identity, dsched.queue,
	dsched._waiting_runs
	FROM PUBLIC;
GRANT SELECT ON dsched.jobs, dsched.runs, dsched.run, dsched._open_runs, dsched.nodes, dsched.partitions, dsched.queues TO PUBLIC;

-- Last: says which server and database this is, and wakes the coordinator when it is committed.
CREATE FUNCTION dsched._created() RETURNS void
	AS 'MODULE_PATHNAME', 'dsched_created' LANGUAGE C;
REVOKE ALL ON FUNCTION dsched._created() FROM PUBLIC;
SELECT dsched._created();
