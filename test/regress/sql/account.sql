-- The judge of slots itself: it finds each kind of thing that can be wrong, made by hand, and nothing where nothing is.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
CREATE FUNCTION wrong(options jsonb DEFAULT '{}') RETURNS TABLE (job text, at time, what text) LANGUAGE sql AS $$
	SELECT job_name, (slot AT TIME ZONE 'UTC')::time, replace(what, (SELECT min(node) FROM dsched.run), 'here') FROM account.violations(options)
$$;
-- Another row like one that is there, with other values.
CREATE PROCEDURE another(job text, at timestamptz, changes jsonb) LANGUAGE sql AS $$
	INSERT INTO dsched.run
	SELECT n.* FROM dsched.run r, jsonb_populate_record(r, changes) n WHERE r.job_name = job AND r.scheduled_for = at
	ORDER BY r.attempt LIMIT 1
$$;
\set ECHO all
CALL go('2040-01-01 00:00:30');
SELECT dsched.schedule('minutely', '* * * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('every', '90 seconds', 'SELECT 1', starts_at => '2040-01-01 00:00:45+00') > 0 AS defined;
SELECT dsched.schedule('bounded', '* * * * *', 'SELECT 1', max_runs => 2) > 0 AS defined;
SELECT dsched.schedule('changed', '* * * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('dropped', 'TZ=Europe/Berlin * * * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('asked', '0 0 1 1 *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule_once('once', '2040-01-01 00:02+00', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule_once('late', '2001-01-01 00:00+00', 'SELECT 1') > 0 AS defined;
CALL walk('2040-01-01 00:01', '2040-01-01 00:03', '30 seconds');
SELECT dsched.pause('changed') > 0 AS paused;
SELECT dsched.unschedule('dropped') > 0 AS gone;
SELECT dsched.run_now('asked') > '' AS asked;
CALL walk('2040-01-01 00:03:30', '2040-01-01 00:05', '30 seconds');
SELECT dsched.resume('changed') > 0 AS resumed;
CALL walk('2040-01-01 00:05:30', '2040-01-01 00:06', '30 seconds');
-- a range
CALL go('2040-01-01 00:10:10');
SELECT job_name, reason, status, count(*), sum(slots) FROM dsched.run GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT * FROM wrong('{"strict": true}');

-- A slot without an outcome: of a generation that is, of one that was, of a job that was; an interval's; a one-shot; what was asked for.
BEGIN;
DELETE FROM dsched.run WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00';
DELETE FROM dsched.run WHERE job_name = 'changed' AND scheduled_for IN ('2040-01-01 00:03+00', '2040-01-01 00:06+00');
DELETE FROM dsched.run WHERE job_name = 'dropped' AND scheduled_for = '2040-01-01 00:03+00';
DELETE FROM dsched.run WHERE job_name = 'every' AND scheduled_for = '2040-01-01 00:02:15+00';
DELETE FROM dsched.run WHERE job_name IN ('once', 'late', 'asked');
SELECT * FROM wrong();
-- ... at a time that does not count
SELECT * FROM wrong('{"excused": [{"from": "2040-01-01 00:02+00", "to": "2040-01-01 00:03+00"}, {"job": "^(late|asked)$", "from": "2000-01-01"}]}');
SELECT * FROM wrong('{"until": "2040-01-01 00:02+00"}');
-- ... so close to an end that it may be: of the dropped, of the paused one, but not of those that were done with
SELECT * FROM wrong('{"grace": "1 minute"}') WHERE job IN ('changed', 'dropped', 'once', 'late');
-- ... of jobs that the test has written to
SELECT account.forget('changed');
SELECT account.forget('asked');
SELECT * FROM wrong();
ROLLBACK;

-- The range is gone, too short, too long, or says too much or too little.
BEGIN;
DELETE FROM dsched.run WHERE job_name = 'minutely' AND status = 'missed';
SELECT * FROM wrong();
ROLLBACK;
BEGIN;
UPDATE dsched.run SET last_slot = last_slot - interval '1 minute' WHERE job_name = 'minutely' AND status = 'missed';
SELECT * FROM wrong();
ROLLBACK;
BEGIN;
UPDATE dsched.run SET last_slot = last_slot + interval '1 minute', slots = slots + 1 WHERE job_name = 'minutely' AND status = 'missed';
SELECT * FROM wrong();
ROLLBACK;
BEGIN;
UPDATE dsched.run SET slots = slots - 1 WHERE job_name = 'minutely' AND status = 'missed';
UPDATE dsched.run SET slots = 2 WHERE job_name = 'minutely' AND status = 'succeeded' AND scheduled_for = '2040-01-01 00:01+00';
SELECT * FROM wrong();
ROLLBACK;

-- Two outcomes: a second attempt after a success, by another instance, in two ranges.
SELECT scheduled_for AS asked_at FROM dsched.run WHERE job_name = 'asked' \gset
BEGIN;
CALL another('minutely', '2040-01-01 00:02+00', '{"attempt": 2, "status": "failed"}');
CALL another('asked', :'asked_at', '{"attempt": 2}');
SELECT * FROM wrong();
ROLLBACK;
BEGIN;
SELECT account.load(jsonb_build_object('run', (SELECT jsonb_agg(to_jsonb(r) || '{"node": "!there", "finished_at": "2040-01-01 00:02:20+00"}') FROM dsched.run r
	WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00')));
SELECT * FROM wrong();
-- ... which is allowed where it was cut off meanwhile
SELECT * FROM wrong('{"repeats": [{"node": "!there", "since": "2040-01-01 00:02:10+00", "until": "2040-01-01 00:03+00"}]}');
SELECT * FROM wrong('{"repeats": [{"node": "!there", "since": "2040-01-01 00:02:30+00"}]}');
SELECT * FROM wrong('{"repeats_ok": true}');
-- ... what was lost there has had its number twice
UPDATE account.loaded_run SET r = r || '{"status": "lost"}';
SELECT * FROM wrong();
SELECT * FROM wrong('{"holes": true}');
ROLLBACK;
BEGIN;
CALL another('minutely', '2040-01-01 00:07+00', '{"scheduled_for": "2040-01-01 00:06:00+00", "attempt": 2, "slots": 2, "last_slot": "2040-01-01 00:07:00+00"}');
SELECT * FROM wrong();
ROLLBACK;

-- Rows that there should not be: of no slot, from before its generation, of a pause, after its end, after max_runs, of another
-- generation or job, that nobody asked for.
BEGIN;
CALL another('minutely', '2040-01-01 00:02+00', '{"scheduled_for": "2040-01-01 00:02:10+00"}');
CALL another('minutely', '2040-01-01 00:02+00', '{"scheduled_for": "2040-01-01 00:00:00+00", "started_at": "2040-01-01 00:01:00+00"}');
CALL another('changed', '2040-01-01 00:02+00', '{"scheduled_for": "2040-01-01 00:05:00+00", "started_at": "2040-01-01 00:05:00+00", "finished_at": "2040-01-01 00:05:00+00"}');
CALL another('dropped', '2040-01-01 00:02+00', '{"scheduled_for": "2040-01-01 00:04:00+00", "started_at": "2040-01-01 00:04:00+00", "finished_at": "2040-01-01 00:04:00+00"}');
CALL another('bounded', '2040-01-01 00:02+00', '{"scheduled_for": "2040-01-01 00:03:00+00", "started_at": "2040-01-01 00:03:00+00", "finished_at": "2040-01-01 00:03:00+00"}');
CALL another('minutely', '2040-01-01 00:03+00', '{"scheduled_for": "2040-01-01 00:03:10+00", "gen": 1}');
CALL another('minutely', '2040-01-01 00:03+00', '{"job_id": 1}');
CALL another('minutely', '2040-01-01 00:03+00', '{"trigger_id": 1}');
SELECT * FROM wrong();
ROLLBACK;
BEGIN;
UPDATE dsched.run SET gen = (SELECT gen FROM account.version WHERE def->>'job_name' = 'changed' AND NOT (def->>'active')::bool LIMIT 1)
WHERE job_name = 'changed' AND scheduled_for = '2040-01-01 00:03+00';
SELECT * FROM wrong();
ROLLBACK;

-- Attempts: one is missing, one follows a cancelled one, they overlap, are in the wrong order, begin too early.
BEGIN;
UPDATE dsched.run SET attempt = 2 WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:01+00';
SELECT * FROM wrong();
SELECT * FROM wrong('{"holes": true}');
CALL another('minutely', '2040-01-01 00:02+00', '{"attempt": 4}');
UPDATE dsched.run SET status = 'cancelled' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00' AND attempt = 1;
CALL another('minutely', '2040-01-01 00:03+00', '{"attempt": 2}');
UPDATE dsched.run SET status = 'failed', finished_at = '2040-01-01 00:03:30+00' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:03+00' AND attempt = 1;
CALL another('minutely', '2040-01-01 00:04+00', '{"attempt": 2}');
UPDATE dsched.run SET status = 'lost', started_at = '2040-01-01 00:04:10+00', finished_at = '2040-01-01 00:04:10+00' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:04+00' AND attempt = 1;
UPDATE dsched.run SET started_at = '2040-01-01 00:04:50+00' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:05+00';
UPDATE dsched.run SET finished_at = '2040-01-01 00:05:50+00' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:06+00';
UPDATE dsched.run SET status = 'nonsense' WHERE job_name = 'changed' AND scheduled_for = '2040-01-01 00:01+00';
SELECT * FROM wrong();
ROLLBACK;
-- In order: lost, failed, timed out, succeeded.
BEGIN;
CALL another('minutely', '2040-01-01 00:02+00', '{"attempt": 4, "started_at": "2040-01-01 00:02:03+00", "finished_at": "2040-01-01 00:02:04+00"}');
CALL another('minutely', '2040-01-01 00:02+00', '{"attempt": 3, "status": "timed_out", "started_at": "2040-01-01 00:02:02+00", "finished_at": "2040-01-01 00:02:03+00"}');
CALL another('minutely', '2040-01-01 00:02+00', '{"attempt": 2, "status": "failed", "started_at": "2040-01-01 00:02:01+00", "finished_at": "2040-01-01 00:02:02+00"}');
UPDATE dsched.run SET status = 'lost', finished_at = '2040-01-01 00:05+00' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00' AND attempt = 1;
SELECT * FROM wrong('{"strict": true}');
-- ... and what comes after a success
UPDATE dsched.run SET status = 'succeeded' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00' AND attempt = 3;
SELECT * FROM wrong();
ROLLBACK;

-- Lost, and not made again: of a job that lives, of one that is gone.
BEGIN;
UPDATE dsched.run SET status = 'lost' WHERE job_name IN ('minutely', 'dropped', 'changed') AND scheduled_for = '2040-01-01 00:03+00';
SELECT * FROM wrong();
-- ... three times, before it was paused
CALL another('changed', '2040-01-01 00:03+00', '{"attempt": 2}');
CALL another('changed', '2040-01-01 00:03+00', '{"attempt": 3}');
SELECT * FROM wrong();
ROLLBACK;
-- Failed, with attempts left.
BEGIN;
UPDATE dsched.run SET status = 'failed' WHERE job_name IN ('minutely', 'changed') AND scheduled_for = '2040-01-01 00:02+00';
SELECT * FROM wrong();
UPDATE account.version SET def = def || '{"max_attempts": 3}';
SELECT * FROM wrong();
ROLLBACK;
-- Open.
BEGIN;
UPDATE dsched.run SET status = 'running', finished_at = NULL WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:10+00';
SELECT * FROM wrong();
SELECT * FROM wrong('{"strict": true}');
UPDATE dsched.run SET status = 'lost' WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:10+00';
SELECT * FROM wrong();
SELECT account.load(jsonb_build_object('open', jsonb_build_array(jsonb_build_object('job_id', job_id, 'slot', scheduled_for, 'trigger_id', 0))))
FROM dsched.run WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:10+00';
SELECT * FROM wrong();
ROLLBACK;
-- With a jitter, the last slot is perhaps not due yet. (The clock is at 00:10:10.)
BEGIN;
DELETE FROM dsched.run WHERE job_name = 'minutely' AND scheduled_for >= '2040-01-01 00:09+00';
UPDATE account.version SET def = def || '{"jitter": "00:00:11"}' WHERE def->>'job_name' = 'minutely';
SELECT * FROM wrong();
ROLLBACK;

-- A backfill: each slot of its range once.
BEGIN;
INSERT INTO account.request
SELECT node, clock_timestamp(), at, '0', job_id, 77, '{"kind": "trigger", "first": "2039-12-31 23:00+00", "last": "2039-12-31 23:05+00"}'
FROM account.version WHERE def->>'job_name' = 'minutely' LIMIT 1;
INSERT INTO dsched.run
SELECT n.* FROM generate_series(timestamptz '2039-12-31 23:00+00', '2039-12-31 23:05+00', '1 minute') slot, dsched.run r,
	jsonb_populate_record(r, jsonb_build_object('scheduled_for', slot, 'trigger_id', 77, 'reason', 'backfill')) n
WHERE r.job_name = 'minutely' AND r.scheduled_for = '2040-01-01 00:02+00';
SELECT * FROM wrong('{"strict": true}');
DELETE FROM dsched.run WHERE scheduled_for = '2039-12-31 23:00+00';
CALL another('minutely', '2039-12-31 23:01+00', '{"attempt": 2}');
CALL another('minutely', '2039-12-31 23:02+00', '{"scheduled_for": "2039-12-31 23:02:30+00"}');
CALL another('minutely', '2039-12-31 23:03+00', '{"scheduled_for": "2039-12-31 23:06:00+00"}');
CALL another('minutely', '2039-12-31 23:03+00', '{"trigger_id": 0}');
SELECT * FROM wrong();
ROLLBACK;

-- What it is all for: a judgement after each part of a test.
DELETE FROM dsched.run WHERE job_name = 'minutely' AND scheduled_for = '2040-01-01 00:02+00';
CALL tidy();
CALL tidy();

-- A change that waits for its transaction to end: till then the old definition is in force, and what it runs counts.
CALL go('2040-01-01 00:59:30');
SELECT dsched.schedule('slow change', '* * * * *', 'SELECT 1') > 0 AS defined;
CALL go('2040-01-01 01:00');
BEGIN;
SELECT dsched.alter_job('slow change', schedule => '*/2 * * * *') > 0 AS altered;
SELECT clock_set('2040-01-01 01:01');
SELECT wait_until($$ SELECT count(*) = 2 FROM dsched.runs WHERE status = 'succeeded' $$);
COMMIT;
CALL walk('2040-01-01 01:01:30', '2040-01-01 01:02', '30 seconds');
SELECT scheduled_for, status FROM dsched.run ORDER BY 1;
SELECT * FROM wrong('{"strict": true}');
CALL tidy();

-- Ten thousand slots, in one row and in a row each.
CALL go('2040-01-02 00:00');
SELECT dsched.schedule('often', '*/10 * * * * *', 'SELECT 1') > 0 AS defined;
CALL go('2040-01-03 04:00');
SELECT status, count(*), sum(slots) FROM dsched.run GROUP BY 1 ORDER BY 1;
SELECT clock_timestamp() AS begun \gset
SELECT * FROM wrong('{"strict": true}');
SELECT clock_timestamp() - :'begun' < '2 s' AS quick;
BEGIN;
WITH range AS (DELETE FROM dsched.run WHERE last_slot IS NOT NULL RETURNING *)
INSERT INTO dsched.run
SELECT n.* FROM range r, generate_series(r.scheduled_for, r.last_slot, '10 s') slot,
	jsonb_populate_record(NULL::dsched.run, to_jsonb(r) || jsonb_build_object('scheduled_for', slot, 'slots', 1, 'last_slot', NULL)) n;
SELECT clock_timestamp() AS begun \gset
SELECT * FROM wrong('{"strict": true}');
SELECT clock_timestamp() - :'begun' < '2 s' AS quick;
DELETE FROM dsched.run WHERE scheduled_for = '2040-01-02 01:23:40+00';
SELECT * FROM wrong('{"strict": true}');
ROLLBACK;
CALL tidy();
DROP FUNCTION wrong(jsonb);
DROP PROCEDURE another(text, timestamptz, jsonb);
