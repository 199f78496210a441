-- instance: one_executor
-- Which run is next, by each policy: one executor, held by one run while others come due. The log says in what order they ran.
\set ECHO none
\i clock.psql
CREATE TABLE gate ();

-- Moves the clock, and waits until so many runs wait for the executor: one that comes due later has been queued later.
CREATE PROCEDURE come_due(t timestamptz, waiting integer) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM clock_set(t);
	PERFORM wait_until(format('SELECT count(*) = %s FROM dsched.runs WHERE status = ''queued''', waiting));
END $$;
CREATE VIEW ran AS
	SELECT row_number() OVER (ORDER BY n) AS nth, job_name, to_char(scheduled_for, 'HH24:MI:SS') AS slot FROM log;
\set ECHO all
SHOW dsched.dispatch_policy;
SHOW dsched.priority_ageing;
CALL go('2044-01-01 00:59:30');

--
-- priority: ten seconds of waiting are worth one step.
--
SELECT dsched.schedule('blocker', '0 0 1 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('low', '10 0 1 1 1 *', :'logs', priority => -1) > 0 AS defined;
SELECT dsched.schedule('middle', '15 0 1 1 1 *', :'logs') > 0 AS defined;
SELECT dsched.schedule('high', '24 0 1 1 1 *', :'logs', priority => 1) > 0 AS defined;
SELECT dsched.schedule('high, too late', '26 0 1 1 1 *', :'logs', priority => 1) > 0 AS defined;
SELECT dsched.schedule('highest', '40 0 1 1 1 *', :'logs', priority => 100) > 0 AS defined;
CALL rest();
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 01:00:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
CALL come_due('2044-01-01 01:00:10', 1);
CALL come_due('2044-01-01 01:00:15', 2);
CALL come_due('2044-01-01 01:00:24', 3);
CALL come_due('2044-01-01 01:00:26', 4);
CALL come_due('2044-01-01 01:00:40', 5);
COMMIT;
CALL rest();
SELECT * FROM ran;
CALL tidy();

-- Nothing starves: one of low priority among many of high priority, one every five seconds, has its turn when it has waited a minute.
SELECT dsched.schedule('blocker', '0 0 2 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('low', '1 0 2 1 1 *', :'logs', priority => -3) > 0 AS defined;
SELECT count(dsched.schedule_once('high ' || i, timestamptz '2044-01-01 02:00:01+00' + i * interval '5 s', :'logs', priority => 3)) FROM generate_series(1, 30) i;
CALL go('2044-01-01 01:59:59');
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 02:00:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
CALL come_due('2044-01-01 02:00:01', 1);
DO $$
BEGIN
	FOR i IN 1..30 LOOP
		CALL come_due(timestamptz '2044-01-01 02:00:01+00' + i * interval '5 s', 1 + i);
	END LOOP;
END $$;
COMMIT;
CALL rest();
SELECT * FROM ran WHERE nth IN (1, 30, 31) OR job_name IN ('low', 'high 11', 'high 12', 'high 13') ORDER BY nth;
CALL tidy();

--
-- fifo: in the order in which they came due, whatever their priority.
--
\set policy fifo
\i policy.psql
SELECT dsched.schedule('blocker', '0 0 3 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('low', '10 0 3 1 1 *', :'logs', priority => -100) > 0 AS defined;
SELECT dsched.schedule('middle', '11 0 3 1 1 *', :'logs') > 0 AS defined;
SELECT dsched.schedule('high', '12 0 3 1 1 *', :'logs', priority => 100) > 0 AS defined;
CALL go('2044-01-01 02:59:59');
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 03:00:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
CALL come_due('2044-01-01 03:00:10', 1);
CALL come_due('2044-01-01 03:00:11', 2);
CALL come_due('2044-01-01 03:00:12', 3);
COMMIT;
CALL rest();
SELECT * FROM ran;
CALL tidy();

-- Of several roles those go first that have had less of the executors. Their own runs keep their order.
CREATE ROLE regress_one LOGIN;
CREATE ROLE regress_two LOGIN;
SELECT dsched.schedule('blocker', '30 0 3 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('one 1', '31 0 3 1 1 *', :'logs', username => 'regress_one') > 0 AS defined;
SELECT dsched.schedule('one 2', '33 0 3 1 1 *', :'logs', username => 'regress_one') > 0 AS defined;
SELECT dsched.schedule('two 1', '32 0 3 1 1 *', :'logs', username => 'regress_two') > 0 AS defined;
SELECT dsched.schedule('two 2', '34 0 3 1 1 *', :'logs', username => 'regress_two') > 0 AS defined;
SELECT dsched.schedule('mine', '35 0 3 1 1 *', :'logs') > 0 AS defined;
CALL rest();
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 03:00:30');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_timestamp() AS blocked_at \gset
CALL come_due('2044-01-01 03:00:35', 5);
SELECT wait_until(format($$ SELECT clock_timestamp() > %L::timestamptz + interval '0.6 s' $$, :'blocked_at'));
COMMIT;
CALL rest();
SELECT string_agg(job_name, ', ' ORDER BY nth) FILTER (WHERE job_name ~ 'one') AS one, string_agg(job_name, ', ' ORDER BY nth) FILTER (WHERE job_name ~ 'two') AS two,
	min(nth) FILTER (WHERE job_name = 'mine') AS mine FROM ran;
CALL tidy();
DROP ROLE regress_one;
DROP ROLE regress_two;

--
-- earliest_deadline: counted from when they came due; without one, an hour.
--
\set policy earliest_deadline
\i policy.psql
SELECT dsched.schedule('blocker', '0 0 4 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('in two hours', '10 0 4 1 1 *', :'logs', deadline => '2 hours') > 0 AS defined;
SELECT dsched.schedule('no deadline', '11 0 4 1 1 *', :'logs', priority => 100) > 0 AS defined;
SELECT dsched.schedule('in an hour', '12 0 4 1 1 *', :'logs', deadline => '1 hour') > 0 AS defined;
SELECT dsched.schedule('in a minute', '20 0 4 1 1 *', :'logs', deadline => '1 minute') > 0 AS defined;
SELECT dsched.schedule('in ten seconds', '40 0 4 1 1 *', :'logs', deadline => '10 s') > 0 AS defined;
SELECT dsched.schedule('in ten seconds, but later', '20 1 4 1 1 *', :'logs', deadline => '10 s') > 0 AS defined;
CALL go('2044-01-01 03:59:59');
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 04:00:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
CALL come_due('2044-01-01 04:00:10', 1);
CALL come_due('2044-01-01 04:00:11', 2);
CALL come_due('2044-01-01 04:00:12', 3);
CALL come_due('2044-01-01 04:00:20', 4);
CALL come_due('2044-01-01 04:00:40', 5);
CALL come_due('2044-01-01 04:01:20', 6);
COMMIT;
CALL rest();
SELECT * FROM ran;
CALL tidy();

--
-- rate_monotonic: the shorter period first; each doubling of it is a step of ageing. One-shots count as hourly.
--
\set policy rate_monotonic
\i policy.psql
SELECT dsched.schedule('blocker', '30 56 4 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('yearly', '0 0 5 1 1 *', :'logs') > 0 AS defined;
SELECT dsched.schedule('daily', '0 5 * * *', :'logs') > 0 AS defined;
-- ten and a half steps after the minutely one, and so before it if it came due 106 seconds earlier
SELECT dsched.schedule('daily, earlier', '14 58 4 * * *', :'logs') > 0 AS defined;
SELECT dsched.schedule('daily, not early enough', '16 58 4 * * *', :'logs') > 0 AS defined;
-- what is not every day has its shortest distance
SELECT dsched.schedule('two hours on working days', '0 1,3,5,7 * * 1-5', :'logs') > 0 AS defined;
SELECT dsched.schedule_once('one-shot', '2044-01-01 05:00:01+00', :'logs') > 0 AS defined;
SELECT dsched.schedule('hourly', '0 * * * *', :'logs') > 0 AS defined;
SELECT dsched.schedule('minutely', '* * * * *', :'logs', starts_at => '2044-01-01 04:59:30+00') > 0 AS defined;
SELECT dsched.schedule('ten seconds', '*/10 * * * * *', :'logs', starts_at => '2044-01-01 04:59:55+00') > 0 AS defined;
SELECT job_name, next_run FROM dsched.jobs WHERE job_name = 'two hours on working days';
CALL go('2044-01-01 04:56:29');
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 04:56:30');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
CALL come_due('2044-01-01 04:58:14', 1);
CALL come_due('2044-01-01 04:58:16', 2);
CALL come_due('2044-01-01 05:00:00', 8);
CALL come_due('2044-01-01 05:00:01', 9);
COMMIT;
CALL rest();
SELECT * FROM ran;
CALL tidy();

--
-- round_robin: jobs take turns, whenever their runs were asked for.
--
\set policy round_robin
\i policy.psql
-- Each run waits until it is let go, so that by then the next run of the job before it waits in the queue.
CREATE SEQUENCE turn;
\set waits_its_turn 'SELECT pg_advisory_xact_lock(nextval(''turn'')); ' :logs
CREATE PROCEDURE let_go(nth integer, waiting integer) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM wait_until(format('SELECT count(*) = 1 FROM pg_locks WHERE locktype = ''advisory'' AND objid = %s AND NOT granted', nth));
	PERFORM wait_until(format('SELECT count(*) = %s FROM dsched.runs WHERE status = ''queued''', waiting));
	PERFORM pg_advisory_unlock(nth);
END $$;
SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 11) i;
SELECT count(dsched.schedule(name, '0 0 1 1 *', :'waits_its_turn')) FROM unnest('{many,some,one,late}'::text[]) name;
CALL go('2044-01-01 06:00');
SELECT count(dsched.run_now('many')) FROM generate_series(1, 6);
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2044-01-01 06:00:10');
SELECT count(dsched.run_now('some')) FROM generate_series(1, 3);
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'queued' $$);
SELECT clock_set('2044-01-01 06:00:20');
SELECT dsched.run_now('one') > '' AS asked;
CALL let_go(1, 2);
CALL let_go(2, 2);
CALL let_go(3, 2);
CALL let_go(4, 1);
SELECT wait_until($$ SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 5 AND NOT granted $$);
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'queued' $$);
-- A run of many waits, and another job comes: it has had no turn yet, so it is next, ten minutes later as it is.
SELECT clock_set('2044-01-01 06:10:00');
SELECT dsched.run_now('late') > '' AS asked;
CALL let_go(5, 2);
CALL let_go(6, 2);
CALL let_go(7, 1);
CALL let_go(8, 1);
CALL let_go(9, 0);
CALL let_go(10, 0);
CALL let_go(11, 0);
CALL rest();
SELECT nth, job_name FROM ran;
CALL tidy();

-- A job of which many runs may be made at once does not keep the others waiting for all of them: they take turns.
SELECT dsched.schedule('blocker', '0 0 7 1 1 *', 'TABLE gate') > 0 AS defined;
SELECT dsched.schedule('wide', '0 0 1 1 *', :'logs', overlap => 'allow') > 0 AS defined;
SELECT count(dsched.schedule(name, '10 0 7 1 1 *', :'logs')) FROM unnest('{a,b,c}'::text[]) name;
CALL rest();
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2044-01-01 07:00:00');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
\! psql -X -qAt -d regression -c "SELECT dsched.backfill('wide', '2036-06-01', '2043-06-01') > '' AS asked"
SELECT wait_until($$ SELECT count(*) = 7 FROM dsched.runs WHERE status = 'queued' $$);
CALL come_due('2044-01-01 07:00:10', 10);
COMMIT;
CALL rest();
SELECT min(nth) AS first, max(nth) AS last, count(*) FROM ran WHERE job_name = 'wide';
SELECT max(nth) <= 5 AS "the others were among the first" FROM ran WHERE job_name IN ('a', 'b', 'c');
CALL tidy();

-- Bad values, and who may set it.
ALTER SYSTEM RESET dsched.dispatch_policy;
SELECT pg_reload_conf();
SET dsched.dispatch_policy = 'fifo';
ALTER SYSTEM SET dsched.dispatch_policy = 'random';
ALTER SYSTEM SET dsched.priority_ageing = 0;

DROP SEQUENCE turn;
DROP VIEW ran;
DROP PROCEDURE come_due, let_go;
DROP TABLE gate;
