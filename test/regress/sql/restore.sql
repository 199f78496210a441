-- Definitions that come from elsewhere sleep until somebody says that they belong here.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set ECHO all
CALL go('2042-01-01 00:00:30');
SELECT dsched.schedule('cron', '* * * * *', :'logs', payload => '{"a": 1}') > 0 AS defined;
SELECT dsched.schedule('paused', '* * * * *', :'logs', active => false, overlap => 'allow', misfire => 'all', misfire_grace => '1 day',
	max_attempts => 3, retry_delay => '2 s', retry_max_delay => '3 min', timeout => '4 h', priority => 5, deadline => '6 s', max_failures => 7,
	max_lost => 8, jitter => '9 s') > 0 AS defined;
SELECT dsched.schedule_once('was due', '2042-01-01 00:05+00', :'logs') > 0 AS defined;
SELECT dsched.schedule_once('is to come', '2042-01-01 02:00+00', :'logs') > 0 AS defined;
CALL go('2042-01-01 00:01');
SELECT * FROM outcomes ORDER BY scheduled_for;

-- A dump has the definitions, and nothing of what this server did with them.
\! pg_dump -d regression | grep -E '^(COPY|CREATE TABLE|INSERT INTO) dsched' | sed 's/(.*//'
\copy dsched.job TO 'results/job.copy'
SELECT count(dsched.unschedule(job_id)) FROM dsched.jobs;
CALL rest();

-- Restored an hour later: nothing runs.
SELECT held FROM dsched.identity;
\copy dsched.job FROM 'results/job.copy'
SELECT held FROM dsched.identity;
SELECT job_name, mod_revision, gen_rev, changed FROM dsched.job ORDER BY job_name;
CALL go('2042-01-01 01:00:30');
CALL go('2042-01-01 01:01');
SELECT count(*) FROM log WHERE scheduled_for > '2042-01-01 00:01+00';
SELECT component, state, detail, hint FROM dsched.status() WHERE component = 'database';
SELECT component, state FROM dsched.status() WHERE state <> 'ok' ORDER BY component;
-- One can look at them, and define others, which sleep too.
SELECT job_name, active, run_at, published FROM dsched.jobs ORDER BY job_name;
SELECT overlap, misfire, misfire_grace, max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline, max_failures, max_lost, jitter
	FROM dsched.jobs WHERE job_name = 'paused';
SELECT dsched.schedule('another', '* * * * *', :'logs') > 0 AS defined;
SELECT dsched.run_now('another') > '' AS asked;
CALL go('2042-01-01 01:02');
SELECT count(*) FROM log WHERE scheduled_for > '2042-01-01 00:01+00';

-- Adopted: they run from now on; what was due meanwhile does not, nor what was asked for.
SELECT dsched.adopt();
-- (What came due while they slept has no row.)
SELECT account.forget();
SELECT held FROM dsched.identity;
CALL walk('2042-01-01 01:02:30', '2042-01-01 01:04', '30 seconds');
SELECT * FROM outcomes WHERE scheduled_for > '2042-01-01 00:01+00' ORDER BY scheduled_for, job_name;
SELECT job_name, active, next_run, published FROM dsched.jobs ORDER BY job_name;
SELECT count(DISTINCT (overlap, misfire, misfire_grace, max_attempts, timeout, jitter)) FROM dsched.jobs;
SELECT state FROM dsched.status() WHERE component = 'database';
SELECT dsched.resume('was due') > 0 AS resumed;
CALL walk('2042-01-01 02:00', '2042-01-01 02:00:30', '30 seconds');
SELECT job_name, scheduled_for, status, logged FROM outcomes WHERE job_name IN ('was due', 'is to come') ORDER BY job_name;
SELECT dsched.adopt();

-- Rows written by hand are rows from elsewhere.
UPDATE dsched.job SET command = 'SELECT 2' WHERE job_name = 'cron';
SELECT held FROM dsched.identity;
SELECT dsched.adopt();
BEGIN;
UPDATE dsched.job SET command = 'SELECT 3' WHERE job_name = 'cron';
SELECT held FROM dsched.identity;
ROLLBACK;
SELECT held FROM dsched.identity;
-- What a savepoint rolled back is forgotten, what comes after it is not.
BEGIN;
SAVEPOINT s;
UPDATE dsched.job SET command = 'SELECT 3' WHERE job_name = 'cron';
ROLLBACK TO s;
SELECT held FROM dsched.identity;
UPDATE dsched.job SET command = 'SELECT 4' WHERE job_name = 'cron';
SELECT held FROM dsched.identity;
COMMIT;
-- An error in one of our functions does not make the next row ours.
SELECT dsched.adopt();
DO $$
BEGIN
	PERFORM dsched.alter_job('cron', schedule => 'bad');
EXCEPTION WHEN invalid_parameter_value THEN
	UPDATE dsched.job SET command = 'SELECT 5' WHERE job_name = 'cron';
END $$;
SELECT held FROM dsched.identity;
-- Replicated rows too.
SELECT dsched.adopt();
SET session_replication_role = replica;
UPDATE dsched.job SET command = 'SELECT 6' WHERE job_name = 'cron';
RESET session_replication_role;
SELECT held FROM dsched.identity;
SELECT dsched.adopt();

-- The whole way: pg_dump, into another database.
\! createdb restored
\! pg_dump -d regression -e dsched | psql -X -q -d restored 2>&1 | grep -v '^ *$' | grep ERROR
\! psql -X -At -d restored -c "SELECT held FROM dsched.identity" -c "SELECT job_name, published FROM dsched.jobs ORDER BY job_name" -c "SELECT state FROM dsched.status() WHERE component = 'database'"
CALL walk('2042-01-01 02:01', '2042-01-01 02:02', '1 minute');
\! psql -X -At -d restored -c "SELECT count(*) FROM dsched.runs" -c "SELECT dsched.adopt()" -c "SELECT active, count(*) FROM dsched.jobs GROUP BY active ORDER BY active"
CALL walk('2042-01-01 02:03', '2042-01-01 02:04', '1 minute');
\! psql -X -At -d restored -c "SET timezone = 'UTC'; SET datestyle = 'ISO'" -c "SELECT job_name, scheduled_for, status, sqlstate FROM dsched.runs ORDER BY scheduled_for, job_name"
\! dropdb restored

CALL tidy();
