-- Which slots run, which are skipped or missed, and that the rows say so; by the test clock.
\set ECHO none
\i clock.psql
\set ECHO all
CALL go('2044-01-01 00:00:30');

--
-- [server-was-down] Missed: a slot that is over a minute late when it is seen is not run, but the newest of them.
--
SELECT dsched.schedule('missed', '* * * * *', :'logs') > 0 AS defined;
CALL go('2044-01-01 00:01');
CALL go('2044-01-01 00:10:10');
SELECT * FROM outcomes ORDER BY scheduled_for, slots;
-- Less late than a minute is not missed.
CALL go('2044-01-01 00:11:50');
CALL go('2044-01-01 00:12:59');
SELECT * FROM outcomes WHERE scheduled_for > '2044-01-01 00:10+00' ORDER BY scheduled_for;
-- Two slots less late than a minute both run: nothing is passed over within the grace.
SELECT dsched.schedule('missed', '*/20 * * * * *', :'logs') > 0 AS defined;
CALL rest();
CALL go('2044-01-01 00:13:45');
SELECT * FROM outcomes WHERE scheduled_for > '2044-01-01 00:12:59+00' ORDER BY scheduled_for;
CALL tidy();

--
-- Overlap: a slot that comes due while the job runs is skipped.
--
CREATE TABLE gate (a int);
CALL go('2044-01-01 00:59:30');
SELECT dsched.schedule('slow', '* * * * *', 'SELECT count(*) FROM gate; ' || :'logs') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
-- The job waits for the lock, so nothing can come to rest here: the clock is moved alone.
SELECT clock_set('2044-01-01 01:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT job_name, scheduled_for, attempt, reason, status, started_at IS NOT NULL AS started, finished_at, pid > 0 AS pid FROM dsched.runs;
SELECT clock_set('2044-01-01 01:01');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'skipped' $$);
SELECT clock_set('2044-01-01 01:02');
SELECT wait_until($$ SELECT sum(slots) = 2 FROM dsched.runs WHERE status = 'skipped' $$);
COMMIT;
CALL rest();
CALL go('2044-01-01 01:03');
SELECT * FROM outcomes ORDER BY scheduled_for;
CALL tidy();

--
-- One-shots: at their time, once; the past is due at once; done, the definition goes.
--
SELECT dsched.schedule_once('at two', '2044-01-01 02:00+00', :'logs') > 0 AS defined;
SELECT dsched.schedule_once('long ago', '2001-01-01 00:00+00', :'logs') > 0 AS defined;
SELECT dsched.schedule_in('in ten minutes', '10 minutes', :'logs') > 0 AS defined;
SELECT dsched.schedule_in('at once', '0', :'logs') > 0 AS defined;
SELECT dsched.schedule_once('paused', '2044-01-01 01:05+00', :'logs', active => false) > 0 AS defined;
CALL rest();
SELECT * FROM outcomes ORDER BY scheduled_for;
SELECT job_name, run_at, next_run FROM dsched.jobs ORDER BY job_name;
CALL walk('2044-01-01 01:10', '2044-01-01 02:30', '10 minutes');
SELECT * FROM outcomes ORDER BY scheduled_for;
SELECT job_name, run_at, active, next_run FROM dsched.jobs ORDER BY job_name;
-- One that was paused over its time runs when it is resumed.
SELECT dsched.resume('paused') > 0 AS resumed;
CALL rest();
SELECT * FROM outcomes WHERE job_name = 'paused';
-- A failed one is done as well.
SELECT dsched.schedule_in('fails', '1 minute', 'SELECT 1/0') > 0 AS defined;
CALL go('2044-01-01 02:31');
SELECT job_name, scheduled_for, status, sqlstate FROM dsched.runs WHERE job_name = 'fails';
SELECT count(*) FROM dsched.jobs;
CALL tidy();

--
-- Pause and resume: what comes due in between does not exist, and does not come back.
--
CALL go('2044-01-01 02:59:30');
SELECT dsched.schedule('paused', '* * * * *', :'logs') > 0 AS defined;
CALL go('2044-01-01 03:00');
SELECT dsched.pause('paused') > 0 AS paused;
CALL rest();
CALL walk('2044-01-01 03:01', '2044-01-01 03:03', '1 minute');
SELECT dsched.resume('paused') > 0 AS resumed;
CALL rest();
CALL walk('2044-01-01 03:03:30', '2044-01-01 03:05', '30 seconds');
SELECT * FROM outcomes ORDER BY scheduled_for;
-- Paused and resumed in the same minute: the slot that had not come yet comes.
BEGIN;
SELECT dsched.pause('paused') > 0 AS paused;
SELECT dsched.resume('paused') > 0 AS resumed;
COMMIT;
CALL rest();
CALL go('2044-01-01 03:06');
SELECT * FROM outcomes WHERE scheduled_for = '2044-01-01 03:06+00';
CALL tidy();

--
-- Bounds: starts_at is the first possible slot, expires_at is none any more, max_runs counts slots.
--
SELECT dsched.schedule('bounded', '* * * * *', :'logs', starts_at => '2044-01-01 04:02+00', expires_at => '2044-01-01 04:05+00') > 0 AS defined;
SELECT dsched.schedule('counted', '* * * * *', :'logs', max_runs => 2) > 0 AS defined;
SELECT dsched.schedule('every', '90 seconds', :'logs', starts_at => '2044-01-01 04:00+00') > 0 AS defined;
CALL walk('2044-01-01 03:07', '2044-01-01 03:10', '1 minute');
CALL walk('2044-01-01 04:00', '2044-01-01 04:07', '30 seconds');
SELECT job_name, scheduled_for, reason, status, slots, last_slot, logged FROM outcomes ORDER BY job_name, scheduled_for;
SELECT job_name, next_run, last_run, last_status FROM dsched.jobs ORDER BY job_name;
-- A paused job has its runs left.
SELECT dsched.alter_job('counted', max_runs => 3) > 0 AS altered;
CALL rest();
CALL walk('2044-01-01 04:08', '2044-01-01 04:09', '1 minute');
SELECT dsched.pause('counted') > 0 AS paused;
CALL rest();
CALL walk('2044-01-01 04:10', '2044-01-01 04:15', '1 minute');
SELECT dsched.resume('counted') > 0 AS resumed;
CALL rest();
CALL walk('2044-01-01 04:16', '2044-01-01 04:20', '1 minute');
SELECT scheduled_for, status, logged FROM outcomes WHERE job_name = 'counted' ORDER BY scheduled_for;
SELECT dsched.pause('counted') > 0 AS paused;
SELECT dsched.resume('counted') > 0 AS resumed;
CALL tidy();

--
-- run_now: outside the schedule, also of a paused job; the key is the run's.
--
SELECT dsched.schedule('manual', '0 0 1 1 *', :'logs', active => false, payload => '{"p": 1}') > 0 AS defined;
SELECT dsched.run_now('manual') AS key \gset
CALL rest();
SELECT run_key = :'key' AS same_key, job_name, scheduled_for, attempt, reason, status FROM dsched.runs;
SELECT job_name, scheduled_for, reason, payload FROM log;
-- Twice at one moment are two runs.
SELECT dsched.run_now('manual') <> dsched.run_now('manual') AS two_keys;
CALL rest();
SELECT count(*), count(DISTINCT run_key), min(status), max(status) FROM dsched.runs;
-- It does not count as a slot.
SELECT dsched.schedule('manual', '* * * * *', :'logs', max_runs => 1) > 0 AS defined;
SELECT dsched.run_now('manual') > '' AS asked;
CALL rest();
CALL walk('2044-01-01 04:21', '2044-01-01 04:23', '1 minute');
SELECT * FROM outcomes ORDER BY scheduled_for, trigger;
SELECT active, next_run FROM dsched.jobs;
CALL tidy();

--
-- A change ends the slots that have not started; those that have go on.
--
CALL go('2044-01-01 04:59:30');
SELECT dsched.schedule('changed', '* * * * *', 'SELECT count(*) FROM gate; ' || :'logs') > 0 AS defined;
SELECT dsched.schedule('holder', '* * * * *', 'SELECT count(*) FROM gate; ' || :'logs') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 05:00');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'running' $$);
\! psql -X -At -d regression -c "SELECT dsched.alter_job('changed', schedule => '30 * * * *') > 0"
\! psql -X -At -d regression -c "SELECT dsched.unschedule('holder') > 0"
COMMIT;
CALL go('2044-01-01 05:01');
SELECT * FROM outcomes ORDER BY job_name, scheduled_for;
CALL go('2044-01-01 05:30');
SELECT * FROM outcomes WHERE scheduled_for > '2044-01-01 05:00+00' ORDER BY job_name, scheduled_for;
CALL tidy();

-- Slots that wait for an executor (there are four) end with their generation.
SELECT count(dsched.schedule('holder ' || i, '0 6 1 1 *', 'SELECT count(*) FROM gate')) FROM generate_series(1, 4) i;
CALL rest();
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 06:00');
SELECT wait_until($$ SELECT count(*) = 4 FROM dsched.runs WHERE status = 'running' $$);
\! psql -X -At -d regression -c "SELECT dsched.schedule_once('altered', '2044-01-01 06:00+00', 'SELECT 1') > 0, dsched.schedule_once('paused', '2044-01-01 06:00+00', 'SELECT 1') > 0, dsched.schedule_once('deleted', '2044-01-01 06:00+00', 'SELECT 1') > 0"
SELECT wait_until($$ SELECT count(*) = 3 FROM dsched.runs WHERE status = 'queued' $$);
SELECT job_name, scheduled_for, status, started_at FROM dsched.runs WHERE status = 'queued' ORDER BY job_name;
\! psql -X -At -d regression -c "SELECT dsched.alter_job('altered', run_at => '2044-01-01 06:10+00') > 0, dsched.pause('paused') > 0, dsched.unschedule('deleted') > 0"
-- A paused one-shot has its time still before it: no outcome yet.
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'skipped' $$);
SELECT wait_until($$ SELECT count(*) = 0 FROM dsched.runs WHERE status = 'queued' $$);
COMMIT;
CALL rest();
SELECT * FROM outcomes ORDER BY job_name, scheduled_for;
CALL go('2044-01-01 06:10');
SELECT * FROM outcomes WHERE job_name = 'altered' ORDER BY scheduled_for;
SELECT dsched.resume('paused') > 0 AS resumed;
CALL rest();
SELECT * FROM outcomes WHERE job_name = 'paused' ORDER BY scheduled_for;
CALL tidy();

-- A generation ends where the next one begins, however late that is heard of: the slot after it is the next one's.
SELECT count(dsched.schedule('holder ' || i, '59 6 1 1 *', 'SELECT count(*) FROM gate')) FROM generate_series(1, 4) i;
SELECT dsched.schedule('moved', '0 7 1 1 *', 'SELECT 1') > 0 AS defined;
CALL rest();
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 06:59');
SELECT wait_until($$ SELECT count(*) = 4 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2044-01-01 06:59:50');
SELECT dsched.schedule('moved', '0 * * * *', :'logs') > 0 AS redefined;
SELECT clock_set('2044-01-01 07:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'queued' $$);
COMMIT;
CALL rest();
SELECT * FROM outcomes WHERE job_name = 'moved' ORDER BY scheduled_for;
CALL tidy();

--
-- [clock-set-back] The clock goes back: nothing runs again, and time goes on where it was.
--
CALL go('2044-01-01 06:59:30');
SELECT dsched.schedule('back', '* * * * *', :'logs') > 0 AS defined;
CALL walk('2044-01-01 07:00', '2044-01-01 07:03', '1 minute');
CALL walk('2044-01-01 06:58', '2044-01-01 07:05', '1 minute');
SELECT * FROM outcomes ORDER BY scheduled_for;
-- [clock-set-back] A job defined while the clock is back has its slots.
CALL go('2044-01-01 07:00:30');
SELECT dsched.schedule('defined back then', '* * * * *', :'logs') > 0 AS defined;
CALL walk('2044-01-01 07:01', '2044-01-01 07:02', '1 minute');
SELECT * FROM outcomes WHERE job_name = 'defined back then' ORDER BY scheduled_for;
CALL go('2044-01-01 07:05:30');
CALL tidy();

--
-- Daylight saving, for real: 02:30 is skipped by the clocks on one day and comes twice on another.
--
SELECT dsched.schedule('dst', '30 2 * * *', :'logs', time_zone => 'Europe/Berlin') > 0 AS defined;
CALL go('2044-03-26 23:59');
DELETE FROM dsched.run;
SELECT account.forget('dst');
DELETE FROM log;
CALL walk('2044-03-27 00:00', '2044-03-28 04:00', '30 minutes');
SELECT scheduled_for, scheduled_for AT TIME ZONE 'Europe/Berlin' AS local, reason, status, logged FROM outcomes ORDER BY scheduled_for;
SELECT dsched.pause('dst') > 0 AS paused;
CALL rest();
CALL go('2044-10-29 21:00');
SELECT dsched.resume('dst') > 0 AS resumed;
CALL rest();
DELETE FROM dsched.run;
SELECT account.forget('dst');
DELETE FROM log;
CALL walk('2044-10-29 22:00', '2044-10-31 04:00', '30 minutes');
SELECT scheduled_for, scheduled_for AT TIME ZONE 'Europe/Berlin' AS local, reason, status, logged FROM outcomes ORDER BY scheduled_for;
CALL tidy();

DROP TABLE gate;
