-- Every function with every option, and the views that show what came of it.  The clock stands; nothing runs.
\set ECHO none
\i clock.psql
\set ECHO all
CALL go('2045-01-01 00:00:30');

-- Who may what is in privileges.sql; this is done by a plain role.
CREATE ROLE surface LOGIN;
SET SESSION AUTHORIZATION surface;

-- The definition of a job, with everything by default.
SELECT dsched.schedule('plain', '0 3 * * *', 'SELECT 1') AS plain_id \gset
SELECT job_id = :plain_id AS its_id, job_name, username, schedule, time_zone, run_at, command, active FROM dsched.jobs;
SELECT starts_at, expires_at, max_runs, payload, metadata, next_run, last_run, last_status, last_finished, problem FROM dsched.jobs;

-- With everything given, by name.
SELECT dsched.schedule(
	job_name => 'full', schedule => '*/5 8-17 * * MON-FRI', command => 'SELECT 1; SELECT 2',
	time_zone => 'america/new_york', starts_at => '2045-02-01 00:00+00', expires_at => '2046-01-01 00:00+00',
	max_runs => 3, username => 'surface', payload => '{"b": [1, 2], "a": "ü"}', metadata => '{"team": "x"}',
	active => true) > 0 AS defined;
\x on
SELECT job_name, username, schedule, time_zone, run_at, command, active, starts_at, expires_at, max_runs, payload, metadata, next_run
FROM dsched.jobs WHERE job_name = 'full';
\x off

-- Without a name it is named after its id; each time it is another job.
SELECT dsched.schedule('30 seconds', 'SELECT 1') AS unnamed_id \gset
SELECT job_name = :'unnamed_id' AS named_after_id, schedule, next_run FROM dsched.jobs WHERE job_id = :unnamed_id;
SELECT dsched.schedule('30 seconds', 'SELECT 1') <> :unnamed_id AS another;
SELECT count(dsched.unschedule(job_id)) FROM dsched.jobs WHERE schedule = '30 seconds';

-- Once, at a time and after a delay.
SELECT dsched.schedule_once('once', '2045-01-01 12:00+00', 'SELECT 1', payload => '1', metadata => '2') > 0 AS defined;
SELECT dsched.schedule_in('soon', '90 minutes', 'SELECT 1') > 0 AS defined;
SELECT job_name, schedule, run_at, payload, metadata, next_run FROM dsched.jobs WHERE run_at IS NOT NULL ORDER BY job_name;

-- Intervals count from the definition or from starts_at; the zone can stand in the schedule.
SELECT dsched.schedule('interval', '@every 1h30m', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('later', '1 hour', 'SELECT 1', starts_at => '2045-01-01 10:15+00') > 0 AS defined;
SELECT dsched.schedule('zoned', 'CRON_TZ=Asia/Kolkata 0 9 * * *', 'SELECT 1') > 0 AS defined;
SELECT job_name, time_zone, next_run FROM dsched.jobs WHERE job_name IN ('interval', 'later', 'zoned') ORDER BY job_name;

-- max_runs is the number of scheduled times.
SELECT dsched.schedule('thrice', '0 0 * * *', 'SELECT 1', max_runs => 3) > 0 AS defined;
RESET SESSION AUTHORIZATION;
SELECT job_name, max_runs, last_slot FROM dsched.job WHERE max_runs IS NOT NULL ORDER BY job_name;
SET SESSION AUTHORIZATION surface;

-- The same name again replaces the definition; what is not given goes back to its default.
SELECT dsched.schedule('full', '*/5 8-17 * * MON-FRI', 'SELECT 3') > 0 AS defined;
SELECT time_zone, starts_at, expires_at, max_runs, payload, metadata, command FROM dsched.jobs WHERE job_name = 'full';

-- alter_job changes what is given, by name and by id.
SELECT dsched.alter_job('plain', schedule => '0 4 * * *') = :plain_id AS same_id;
SELECT dsched.alter_job('plain', command => 'SELECT 2', time_zone => 'Europe/Berlin', starts_at => '2045-03-01 00:00+00',
	expires_at => '2050-01-01 00:00+00', max_runs => 10, payload => '[]', metadata => '{}', active => false) = :plain_id AS same_id;
SELECT schedule, command, time_zone, starts_at, expires_at, max_runs, payload, metadata, active, next_run FROM dsched.jobs WHERE job_name = 'plain';
SELECT dsched.alter_job(:plain_id, active => true) = :plain_id AS same_id;
SELECT schedule, command, time_zone, max_runs, active, next_run FROM dsched.jobs WHERE job_name = 'plain';
SELECT dsched.alter_job(:plain_id, reset => '{time_zone,starts_at,expires_at,max_runs,payload,metadata,active}') = :plain_id AS same_id;
SELECT schedule, command, time_zone, starts_at, expires_at, max_runs, payload, metadata, active, next_run FROM dsched.jobs WHERE job_name = 'plain';
SELECT dsched.alter_job('once', run_at => '2045-01-02 12:00+00') > 0 AS altered;
SELECT schedule, run_at, next_run FROM dsched.jobs WHERE job_name = 'once';
SELECT dsched.alter_job('plain', schedule => '0 4 * * *') = :plain_id AS nothing_changed;

-- pause and resume, by name and by id; twice is as good as once.
SELECT dsched.pause('plain') = :plain_id AS paused, dsched.pause('plain') = :plain_id AS again;
SELECT active, next_run FROM dsched.jobs WHERE job_name = 'plain';
SELECT dsched.resume(:plain_id) = :plain_id AS resumed, dsched.resume(:plain_id) = :plain_id AS again;
SELECT active, next_run FROM dsched.jobs WHERE job_name = 'plain';
SELECT dsched.pause(:plain_id) = :plain_id AS paused, dsched.resume('plain', username => 'surface') = :plain_id AS resumed;

-- unschedule, by name and by id.
SELECT dsched.unschedule('once') > 0 AS gone;
SELECT dsched.unschedule(:plain_id) = :plain_id AS gone;
SELECT dsched.unschedule('soon', username => 'surface') > 0 AS gone;
SELECT job_name FROM dsched.jobs ORDER BY job_name;

-- Outside a job there is no current run.
SELECT * FROM dsched.current_run();

-- The scheduler takes changes in.
RESET SESSION AUTHORIZATION;
CALL rest();
SELECT count(*) AS not_taken_in FROM dsched.jobs WHERE NOT published;
SELECT count(*) FROM dsched.outbox;

-- Who is there, who owns what.
SELECT count(*), bool_and(this_instance) FROM dsched.nodes;
SELECT count(*), count(DISTINCT owner_node), min(epoch), max(epoch), min(state), max(state) FROM dsched.partitions;
SELECT count(*) FROM dsched.jobs j JOIN dsched.nodes n ON n.node = j.owner_node;

-- All is well, and everybody can see that.
SET SESSION AUTHORIZATION surface;
SELECT component, state, hint FROM dsched.status();
SELECT detail FROM dsched.status() WHERE component = 'database';

-- The names of arguments are part of the interface.
RESET SESSION AUTHORIZATION;
\a
SELECT p.oid::regprocedure AS function, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM pg_proc p WHERE pronamespace = 'dsched'::regnamespace AND proname NOT LIKE '\_%' ORDER BY p.oid::regprocedure::text COLLATE "C";
\a
SELECT table_name, string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE table_schema = 'dsched' AND table_name IN ('jobs', 'runs', 'nodes', 'partitions')
GROUP BY table_name ORDER BY table_name;

CALL tidy();
DROP ROLE surface;
