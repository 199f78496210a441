-- What becomes of slots that come due while their job runs, or that are late, or whose runs fail: by the test clock.
-- instance: policies
\set ECHO none
\i clock.psql
\set ECHO all
CREATE TABLE gate (a int);
\set slow 'SELECT count(*) FROM gate; ' :logs

--
-- Overlap.  Each of the jobs is held up by the lock on its first slot while others come due.
--
CALL go('2040-05-01 00:00:30');
SELECT dsched.schedule('queues one', '* * * * *', :'slow', overlap => 'queue_one') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-05-01 00:01');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-05-01 00:02');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-05-01 00:03');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'skipped' $$);
SELECT clock_set('2040-05-01 00:04');
SELECT wait_until($$ SELECT sum(slots) = 2 FROM dsched.runs WHERE status = 'skipped' $$);
COMMIT;
CALL rest();
CALL go('2040-05-01 00:05');
SELECT * FROM outcomes ORDER BY scheduled_for;
CALL tidy();

CALL go('2040-05-01 00:10:30');
SELECT dsched.schedule('queues all', '* * * * *', :'slow', overlap => 'queue_all') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-05-01 00:11');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-05-01 00:12');
SELECT wait_until($$ SELECT sum(slots) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-05-01 00:13');
SELECT wait_until($$ SELECT sum(slots) = 2 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-05-01 00:14');
SELECT wait_until($$ SELECT sum(slots) = 3 FROM dsched.runs WHERE status = 'waiting' $$);
-- What waits is one row.
SELECT scheduled_for::time, last_slot::time, slots, reason, status, not_before FROM dsched.runs ORDER BY 1;
COMMIT;
CALL rest();
CALL go('2040-05-01 00:15');
SELECT * FROM outcomes ORDER BY scheduled_for;
-- In their order, one after the other.
SELECT string_agg(scheduled_for::time::text, ' ' ORDER BY n) FROM log;
CALL tidy();

CALL go('2040-05-01 00:20:30');
SELECT dsched.schedule('side by side', '* * * * *', :'slow', overlap => 'allow') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-05-01 00:21');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-05-01 00:22');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-05-01 00:23');
SELECT wait_until($$ SELECT count(*) = 3 FROM dsched.runs WHERE status = 'running' $$);
COMMIT;
CALL rest();
SELECT * FROM outcomes ORDER BY scheduled_for;
CALL tidy();

-- The newest counts: what runs is cancelled for it, what waits is skipped.
CALL go('2040-05-01 00:30:30');
SELECT dsched.schedule('newest', '* * * * *', :'slow', overlap => 'cancel_running', max_attempts => 3) > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-05-01 00:31');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-05-01 00:32');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'cancelled' $$);
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
COMMIT;
CALL rest();
SELECT * FROM outcomes ORDER BY scheduled_for;
SELECT scheduled_for, sqlstate, message FROM dsched.runs WHERE status = 'cancelled';
CALL tidy();

--
-- Misfire: slots that nobody could open in time.
--
CALL go('2040-05-02 00:00:30');
SELECT dsched.schedule('latest', '* * * * *', :'logs') > 0 AS defined;
SELECT dsched.schedule('all', '* * * * *', :'logs', misfire => 'all') > 0 AS defined;
SELECT dsched.schedule('skip', '* * * * *', :'logs', misfire => 'skip') > 0 AS defined;
SELECT dsched.schedule('patient', '* * * * *', :'logs', misfire => 'skip', misfire_grace => '1 hour') > 0 AS defined;
SELECT dsched.schedule('strict', '* * * * *', :'logs', misfire => 'skip', misfire_grace => '1 second') > 0 AS defined;
SELECT dsched.schedule('all at once', '* * * * *', :'logs', misfire => 'all', overlap => 'allow') > 0 AS defined;
CALL go('2040-05-02 00:06:10');
SELECT job_name, scheduled_for::time, attempt, reason, status, slots, last_slot::time, logged FROM outcomes ORDER BY job_name, scheduled_for;
-- Hours of it cost nothing but rows for what is run.
CALL go('2040-05-02 12:00:10');
SELECT job_name, reason, status, count(*), sum(slots) FROM outcomes WHERE scheduled_for > '2040-05-02 00:06:10+00' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
CALL tidy();
-- Nor do half a day of seconds.
CALL go('2040-05-03 00:00:00.5');
SELECT dsched.schedule('every second', '* * * * * *', :'logs') > 0 AS defined;
SELECT dsched.schedule('none of them', '* * * * * *', :'logs', misfire => 'skip') > 0 AS defined;
CALL go('2040-05-03 12:00:00.5');
SELECT job_name, scheduled_for, reason, status, slots, last_slot FROM outcomes WHERE status = 'missed' OR reason = 'catch_up' ORDER BY job_name, scheduled_for;
CALL tidy();

--
-- Retries: later and later, each a row of its own; in the end the slot has failed.
--
CALL go('2040-06-01 00:00:30');
SELECT dsched.schedule('fails', '0 * * * *', 'SELECT 1/0', max_attempts => 4, retry_delay => '1 minute', retry_max_delay => '3 minutes') > 0 AS defined;
CALL go('2040-06-01 01:00');
-- The next attempt is seen to wait, with its time.
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT attempt, reason, status, sqlstate, not_before BETWEEN '2040-06-01 01:00:30+00' AND '2040-06-01 01:01+00' AS in_time FROM dsched.runs ORDER BY attempt;
CALL go('2040-06-01 01:01');
SELECT attempt, reason, status FROM dsched.runs ORDER BY attempt;
CALL go('2040-06-01 01:03');
CALL go('2040-06-01 01:10');
SELECT attempt, reason, status, started_at::time FROM dsched.runs ORDER BY attempt;
-- Not before their time: each is spread over the second half of its delay.
CALL walk('2040-06-01 01:59:55', '2040-06-01 02:08:00', '5 seconds');
SELECT b.attempt, b.started_at - a.finished_at BETWEEN d / 2 AND d + interval '5 seconds' AS in_time
	FROM dsched.runs a JOIN dsched.runs b ON b.attempt = a.attempt + 1 AND b.scheduled_for = a.scheduled_for
	JOIN (VALUES (1, interval '1 minute'), (2, '2 minutes'), (3, '3 minutes')) v (n, d) ON v.n = a.attempt
	WHERE a.scheduled_for = '2040-06-01 02:00+00' ORDER BY 1;
CALL tidy();

-- What fails once is tried again.
CREATE SEQUENCE calls;
GRANT USAGE ON SEQUENCE calls TO PUBLIC;
SELECT dsched.schedule('third time', '0 * * * *', $$DO 'BEGIN IF nextval(''calls'') < 3 THEN RAISE ''not yet''; END IF; END'$$, max_attempts => 5, retry_delay => '10 seconds') > 0 AS defined;
CALL walk('2040-06-01 03:00', '2040-06-01 03:01', '10 seconds');
SELECT attempt, reason, status, message FROM dsched.runs ORDER BY attempt;
CALL tidy();

--
-- Failures in a row pause the job.
--
CALL go('2040-06-02 00:00:30');
SELECT dsched.schedule('three strikes', '* * * * *', $$DO 'BEGIN IF extract(minute FROM (dsched.current_run()).scheduled_for) <> 2 THEN RAISE ''no''; END IF; END'$$, max_failures => 3) > 0 AS defined;
CALL walk('2040-06-02 00:01', '2040-06-02 00:08', '1 minute');
SELECT scheduled_for::time, status FROM dsched.runs ORDER BY 1;
SELECT active, problem FROM dsched.jobs;
-- Resumed, it has three again.
SELECT dsched.resume('three strikes') > 0 AS resumed;
CALL rest();
CALL walk('2040-06-02 00:09', '2040-06-02 00:13', '1 minute');
SELECT scheduled_for::time, status FROM dsched.runs WHERE scheduled_for > '2040-06-02 00:08+00' ORDER BY 1;
SELECT active, problem FROM dsched.jobs;
CALL tidy();

--
-- Jitter: each slot has its delay, the same each time, and never so long that it meets the next slot.
--
CALL go('2040-06-03 00:00:30');
SELECT dsched.schedule('spread', '* * * * *', :'logs', jitter => '30 seconds') > 0 AS defined;
SELECT dsched.schedule('far spread', '*/10 * * * * *', :'logs', jitter => '1 hour') > 0 AS defined;
CALL walk('2040-06-03 00:00:31', '2040-06-03 00:05:30', '1 second');
SELECT job_name, count(*), min(started_at - scheduled_for) >= '0' AS not_early, max(started_at - scheduled_for) < '31 seconds' AS not_late,
	count(DISTINCT started_at - scheduled_for) > 1 AS differ FROM dsched.runs GROUP BY 1 ORDER BY 1;
CALL tidy();

--
-- Backfill: the slots of a past range, in order, under the overlap policy.
--
CALL go('2040-06-04 12:00:30');
SELECT dsched.schedule('daily', '0 3 * * *', :'logs') > 0 AS defined;
SELECT dsched.backfill('daily', '2040-05-01', '2040-05-10 23:59:59') ~ '^\d+:\*:\d+$' AS key;
CALL rest();
SELECT scheduled_for, trigger, attempt, reason, status, logged FROM outcomes ORDER BY scheduled_for;
SELECT string_agg(extract(day FROM scheduled_for)::text, ' ' ORDER BY n) FROM log;
SELECT count(*) AS requests FROM dsched.outbox;
CALL tidy();

-- The job's own slots go before what is left of it, and are not skipped on its account.
\set gated 'SELECT pg_advisory_xact_lock_shared(7); ' :logs
SELECT dsched.schedule('hourly', '0 * * * *', :'gated') > 0 AS defined;
CALL rest();
SELECT pg_advisory_lock(7);
SELECT dsched.backfill('hourly', '2040-05-01', '2040-05-01 03:00') AS key \gset
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-06-04 13:00');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT scheduled_for, last_slot, slots, reason, status FROM dsched.runs ORDER BY 1;
SELECT pg_advisory_unlock(7);
CALL rest();
SELECT string_agg(scheduled_for::date || ' ' || extract(hour FROM scheduled_for), ', ' ORDER BY n) FROM log;
CALL tidy();

-- A hundred slots, side by side; a failed one is tried again.
SELECT dsched.schedule('wide', '0 * * * *', :'logs', overlap => 'allow') > 0 AS defined;
SELECT dsched.backfill('wide', '2040-05-01', '2040-05-05 03:00') > '' AS asked;
CALL rest();
SELECT count(*), count(DISTINCT scheduled_for), min(scheduled_for), max(scheduled_for), min(status), max(status), sum(logged) FROM outcomes;
CALL tidy();

-- Another schedule ends it: what is left is said to be skipped.  Pausing the job does not, nor another command.
SELECT dsched.schedule('changed', '0 3 * * *', :'gated') > 0 AS defined;
CALL rest();
SELECT pg_advisory_lock(7);
SELECT dsched.backfill('changed', '2040-05-01', '2040-05-10') > '' AS asked;
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT dsched.pause('changed') > 0 AS paused;
SELECT dsched.resume('changed') > 0 AS resumed;
SELECT wait_until($$ SELECT sum(slots) = 8 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT dsched.alter_job('changed', schedule => '0 4 * * *') > 0 AS altered;
SELECT wait_until($$ SELECT sum(slots) = 8 FROM dsched.runs WHERE status = 'skipped' $$);
SELECT pg_advisory_unlock(7);
CALL rest();
SELECT scheduled_for, last_slot, trigger, reason, status, slots, logged FROM outcomes ORDER BY scheduled_for;
SELECT count(*) AS requests FROM dsched.outbox;
CALL tidy();

--
-- Cancel: what runs, what waits, what is to be tried again, what is left of a backfill.
--
SELECT dsched.schedule('job', '0 * * * *', :'gated', overlap => 'queue_all', max_attempts => 3) > 0 AS defined;
CALL rest();
SELECT pg_advisory_lock(7);
SELECT clock_set('2040-06-04 14:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-06-04 14:59:30');
SELECT clock_set('2040-06-04 15:00');
SELECT wait_until($$ SELECT sum(slots) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-06-04 16:00');
SELECT wait_until($$ SELECT sum(slots) = 2 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-06-04 17:00');
SELECT wait_until($$ SELECT sum(slots) = 3 FROM dsched.runs WHERE status = 'waiting' $$);
-- from the middle of those that wait, and the one that runs
SELECT job_id || ':' || (extract(epoch FROM timestamptz '2040-06-04 16:00+00') * 1000000)::bigint || ':0' AS key FROM dsched.jobs \gset
SELECT dsched.cancel(:'key');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'cancelled' $$);
SELECT dsched.cancel(run_key) FROM dsched.runs WHERE status = 'running';
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'cancelled' $$);
SELECT pg_advisory_unlock(7);
CALL rest();
SELECT scheduled_for, attempt, reason, status, logged FROM outcomes ORDER BY scheduled_for, attempt;
-- What is over is over.
\set VERBOSITY sqlstate
SELECT dsched.cancel(:'key');
\set VERBOSITY default
CALL tidy();
SELECT dsched.schedule('fails', '0 * * * *', 'SELECT 1/0', max_attempts => 3, retry_delay => '10 minutes') > 0 AS defined;
CALL rest();
CALL go('2040-06-04 18:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT dsched.cancel(run_key) FROM dsched.runs WHERE status = 'waiting';
CALL rest();
CALL go('2040-06-04 18:30');
SELECT scheduled_for, attempt, reason, status, logged FROM outcomes ORDER BY scheduled_for, attempt;
CALL tidy();
SELECT dsched.schedule('much', '0 * * * *', :'gated') > 0 AS defined;
CALL rest();
SELECT pg_advisory_lock(7);
SELECT dsched.backfill('much', '2040-05-01', '2040-06-01') AS key \gset
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT dsched.cancel(:'key');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'cancelled' $$);
SELECT pg_advisory_unlock(7);
CALL rest();
SELECT scheduled_for, last_slot, attempt, reason, status, slots, logged FROM outcomes ORDER BY scheduled_for, attempt;
SELECT count(*) AS requests FROM dsched.outbox;
CALL tidy();

--
-- Queues: so many at a time, so many in a time.
--
SELECT dsched.create_queue('two', max_running => 2);
SELECT dsched.schedule('q' || i, '0 * * * *', :'gated', queue => 'two') > 0 AS defined FROM generate_series(1, 5) i;
SELECT dsched.schedule('free', '0 * * * *', :'logs') > 0 AS defined;
CALL rest();
SELECT pg_advisory_lock(7);
SELECT clock_set('2040-06-04 19:00');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'running' $$);
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'succeeded' AND job_name = 'free' $$);
SELECT wait_until($$ SELECT count(*) = 3 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT status, count(*) FROM dsched.runs GROUP BY 1 ORDER BY 1;
-- a limit that is raised counts at once
SELECT dsched.alter_queue('two', max_running => 3);
SELECT wait_until($$ SELECT count(*) = 3 FROM dsched.runs WHERE status = 'running' $$);
SELECT pg_advisory_unlock(7);
CALL rest();
SELECT status, count(*) FROM dsched.runs GROUP BY 1 ORDER BY 1;
CALL tidy();
SELECT dsched.drop_queue('two');
SELECT dsched.create_queue('slow', rate_limit => 3, per => '1 minute');
SELECT dsched.schedule('r' || i, '0 * * * *', :'logs', queue => 'slow') > 0 AS defined FROM generate_series(1, 8) i;
CALL rest();
CALL go('2040-06-04 20:00');
SELECT count(*) FROM log;
CALL go('2040-06-04 20:00:59');
SELECT count(*) FROM log;
CALL go('2040-06-04 20:01');
SELECT count(*) FROM log;
CALL go('2040-06-04 20:02');
SELECT count(*) FROM log;
CALL tidy();
SELECT dsched.drop_queue('slow');
DROP TABLE gate;
DROP SEQUENCE calls;
