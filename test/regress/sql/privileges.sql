-- Who may see and do what.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set ECHO all
CALL go('2041-01-01 00:00:30');
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE carol LOGIN IN ROLE alice;
CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
CREATE ROLE boss LOGIN SUPERUSER;
CREATE ROLE nologin NOLOGIN;

-- Nobody touches the tables, and of runs everybody sees their own.
SET SESSION AUTHORIZATION alice;
SELECT * FROM dsched.job;
SELECT count(*) FROM dsched.run;
SELECT * FROM dsched.outbox;
SELECT * FROM dsched.partition_state;
SELECT * FROM dsched.identity;
INSERT INTO dsched.outbox VALUES (1);
DELETE FROM dsched.run;
UPDATE dsched.run SET status = 'succeeded';
INSERT INTO dsched.run SELECT * FROM dsched.run;
SELECT FROM dsched.run FOR UPDATE;
TRUNCATE dsched.run;
INSERT INTO dsched.jobs (job_name) VALUES ('x');
DELETE FROM dsched.runs;

-- Jobs belong to whoever defines them; names are each role's own.
SELECT dsched.schedule('report', '0 3 * * *', 'SELECT 1 /* alice */') AS alice_id \gset
SET SESSION AUTHORIZATION bob;
SELECT dsched.schedule('report', '0 3 * * *', 'SELECT 1 /* bob */') AS bob_id \gset
SELECT username, job_name, command FROM dsched.jobs ORDER BY username;
SELECT :alice_id <> :bob_id AS two_jobs;

-- What a role may not see does not exist.
SELECT dsched.unschedule(1) AS "no such job";
\set VERBOSITY sqlstate
SELECT dsched.alter_job(:alice_id, command => 'SELECT 2');
SELECT dsched.unschedule(:alice_id);
SELECT dsched.pause(:alice_id);
SELECT dsched.resume(:alice_id);
SELECT dsched.run_now(:alice_id);
SELECT dsched.backfill(:alice_id, '2040-12-01', '2040-12-31');
SELECT dsched.cancel(:'alice_id' || ':0:0');
SELECT dsched.cancel(:'alice_id' || ':*:1');
\set VERBOSITY default
SELECT dsched.unschedule('report', username => 'alice');
SELECT dsched.pause('report', 'alice');
SELECT dsched.run_now('report', username => 'alice');
SELECT dsched.backfill('report', '2040-12-01', '2040-12-31', username => 'alice');
SELECT dsched.schedule('mine', '0 3 * * *', 'SELECT 1', username => 'alice');
SELECT dsched.alter_job('report', username => 'alice');

-- A member may do everything for the role that it is a member of.
SET SESSION AUTHORIZATION carol;
SELECT username, job_name, command FROM dsched.jobs ORDER BY username;
SELECT dsched.pause('report');
SELECT dsched.pause('report', username => 'alice') = :alice_id AS paused;
SELECT dsched.resume(:alice_id) = :alice_id AS resumed;
SELECT dsched.alter_job(:alice_id, command => 'SELECT 1 /* carol for alice */') = :alice_id AS altered;
BEGIN;
SELECT dsched.backfill('report', '2040-12-01', '2040-12-31', username => 'alice') AS key \gset
SELECT dsched.backfill(:alice_id, '2040-12-01', '2040-12-31') LIKE :'alice_id' || ':*:%' AS asked;
SELECT dsched.cancel(:'key');
SELECT dsched.cancel(:'alice_id' || ':0:0');
ROLLBACK;
SELECT dsched.schedule('from carol', '0 4 * * *', 'SELECT 1', username => 'alice') > 0 AS defined;
SELECT dsched.schedule('report', '0 5 * * *', 'SELECT 1 /* carol */') > 0 AS defined;
SELECT username, job_name, command FROM dsched.jobs ORDER BY username, job_name;

-- The other way round it may not.
SET SESSION AUTHORIZATION alice;
SELECT username, job_name FROM dsched.jobs ORDER BY username, job_name;
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => 'carol');

-- SET ROLE counts.
SET SESSION AUTHORIZATION carol;
SET ROLE alice;
SELECT dsched.schedule('as alice', '0 6 * * *', 'SELECT 1') > 0 AS defined;
SELECT username FROM dsched.jobs WHERE job_name = 'as alice';
RESET ROLE;

-- pg_monitor sees all and changes nothing.
SET SESSION AUTHORIZATION watcher;
SELECT username, job_name FROM dsched.jobs ORDER BY username, job_name;
\set VERBOSITY sqlstate
SELECT dsched.pause(:alice_id);
SELECT dsched.unschedule(:bob_id);
SELECT dsched.run_now(:bob_id);
SELECT dsched.backfill(:bob_id, '2040-12-01', '2040-12-31');
SELECT dsched.cancel(:'bob_id' || ':0:0');
\set VERBOSITY default
SELECT dsched.alter_job('report', max_runs => 1);

-- A superuser may do all, for roles that can log in.
SET SESSION AUTHORIZATION boss;
SELECT count(*) FROM dsched.jobs;
SELECT dsched.alter_job(:bob_id, command => 'SELECT 1 /* boss for bob */') = :bob_id AS altered;
SELECT dsched.schedule('from boss', '0 3 * * *', 'SELECT 1', username => 'bob') > 0 AS defined;
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => 'nologin');
SET ROLE nologin;
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1');
RESET ROLE;

-- A job can be handed to another role; its id stays, its name must be free.
SELECT dsched.alter_job(:bob_id, username => 'carol');
SELECT dsched.alter_job(:bob_id, username => 'boss') = :bob_id AS altered;
SELECT username, job_name, command FROM dsched.jobs WHERE job_id = :bob_id;
SET SESSION AUTHORIZATION bob;
SELECT username, job_name FROM dsched.jobs ORDER BY username, job_name;

-- A role that is gone leaves its jobs to superusers and the monitor; nobody's view breaks.
RESET SESSION AUTHORIZATION;
SELECT dsched.alter_job(:alice_id, command => 'SELECT 1 /* left behind */') = :alice_id AS altered;
SELECT dsched.unschedule(job_id) > 0 AS gone FROM dsched.jobs WHERE username = 'alice' AND job_id <> :alice_id;
DROP ROLE alice;
SET SESSION AUTHORIZATION carol;
SELECT username, job_name FROM dsched.jobs ORDER BY username, job_name;
\set VERBOSITY sqlstate
SELECT dsched.unschedule(:alice_id);
\set VERBOSITY default
SET SESSION AUTHORIZATION watcher;
SELECT username, job_name FROM dsched.jobs WHERE username = 'alice';
SET SESSION AUTHORIZATION boss;
SELECT dsched.unschedule('report', username => 'alice') = :alice_id AS gone;

-- The views let nobody look past their filter.  One run of boss failed, its retry waits.
SELECT dsched.schedule('secret', '0 3 * * *', 'SELECT 1/0', max_attempts => 2, retry_delay => '1 min') AS secret_id \gset
SELECT dsched.run_now(:secret_id) > '' AS asked;
SELECT wait_until($$SELECT count(*) = 2 FROM dsched.runs WHERE job_name = 'secret'$$);
SELECT job_name, status FROM dsched.runs WHERE job_name = 'secret' ORDER BY attempt;
SET SESSION AUTHORIZATION bob;
CREATE FUNCTION pg_temp.leak(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
	$$ BEGIN RAISE NOTICE 'saw % of %', $1, $2; RETURN true; END $$;
SELECT count(*) FROM dsched.jobs WHERE pg_temp.leak(job_name, username);
SELECT count(*) FROM dsched.runs WHERE pg_temp.leak(job_name, username);
-- (Of rows in the table it is always NULL, which is said once and of none of them.)
SELECT count(*) FROM dsched.runs WHERE pg_temp.leak(not_before::text, '');
SELECT count(*) FROM dsched.run WHERE pg_temp.leak(job_name, username);
SELECT count(*) FROM dsched._open_runs WHERE pg_temp.leak(job_name, username);
SELECT count(*) FROM dsched.runs r JOIN dsched.run USING (job_id) WHERE pg_temp.leak(r.message, r.status);
SELECT count(*) FROM (SELECT job_name, username FROM dsched.runs ORDER BY scheduled_for DESC LIMIT 20) r WHERE pg_temp.leak(job_name, username);
-- The policy cannot be left out.
SET row_security = off;
SELECT count(*) FROM dsched.runs;
SELECT count(*) FROM dsched.run;
RESET row_security;

DROP FUNCTION pg_temp.leak(text, text);

-- Only the extension's owner adopts jobs.
SELECT dsched.adopt();

RESET SESSION AUTHORIZATION;
CALL tidy();

-- Default privileges that somebody has set give nobody more.
BEGIN;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
DROP EXTENSION dsched CASCADE;
CREATE EXTENSION dsched;
SELECT relname FROM pg_class
	WHERE relnamespace = 'dsched'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege('bob', oid, 'SELECT') ORDER BY relname;
SELECT proname FROM pg_proc
	WHERE pronamespace = 'dsched'::regnamespace AND NOT has_function_privilege('bob', oid, 'EXECUTE') ORDER BY proname;
ROLLBACK;
DROP ROLE bob, carol, watcher, boss, nologin;
