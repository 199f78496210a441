-- instance: not_preloaded
-- The library was not preloaded: it loads, and its functions say what is missing.  pg_restore and pg_upgrade rely on it.
\set SHOW_CONTEXT never
LOAD 'dsched';
SELECT extversion FROM pg_extension WHERE extname = 'dsched';
SELECT dsched.schedule('x', '* * * * *', 'SELECT 1');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT dsched.schedule('* * * * *', 'SELECT 1');
SELECT dsched.schedule_once('x', now(), 'SELECT 1');
SELECT dsched.schedule_in('x', '1 hour', 'SELECT 1');
SELECT dsched.alter_job('x', max_runs => 1);
SELECT dsched.alter_job(1);
SELECT dsched.unschedule('x');
SELECT dsched.pause('x');
SELECT dsched.resume(1);
SELECT dsched.run_now('x');
SELECT dsched.adopt();
SELECT dsched.preview('* * * * *');
SELECT dsched.describe('* * * * *');
SELECT dsched.current_run();
SELECT * FROM dsched.status();
SELECT count(*) FROM dsched.jobs;
SELECT count(*) FROM dsched.runs;
SELECT count(*) FROM dsched.nodes;
SELECT count(*) FROM dsched.partitions;
SELECT database_name = current_database() AS here, cluster, held FROM dsched.identity;

-- A restore onto such a server is noticed all the same.
INSERT INTO dsched.job (job_id, username, job_name, schedule, command, time_zone, anchor, gen, slots_from, mod_revision, created_at, changed_at)
VALUES (1, 'somebody', 'restored', '* * * * *', 'SELECT 1', 'UTC', now(), 1, now(), 5, now(), now());
SELECT job_name, next_run, description, published FROM dsched.jobs;
SELECT mod_revision, changed FROM dsched.job;
SELECT held FROM dsched.identity;
DROP EXTENSION dsched;
CREATE EXTENSION dsched;
SELECT count(*) FROM dsched.jobs;
