-- Where policies meet each other, or a cancelled slot: by the test clock.
-- instance: policies
\set ECHO none
\i clock.psql
\set ECHO all
CREATE TABLE gate (a int);
\set slow 'SELECT count(*) FROM gate; ' :logs
-- The key of a slot, or of one of a backfill.
CREATE FUNCTION slot_key(job text, slot timestamptz, trigger text DEFAULT '0') RETURNS text LANGUAGE sql
	RETURN (SELECT job_id FROM dsched.jobs WHERE job_name = job) || ':' || (extract(epoch FROM slot) * 1000000)::bigint || ':' || trigger;
-- What was missed while others wait is not run with them later.
CALL go('2040-04-11 00:00:30');
SELECT dsched.schedule('behind', '* * * * *', :'slow', overlap => 'queue_all', misfire => 'skip') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-04-11 00:01');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-04-11 00:02:10');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'waiting' $$);
SELECT clock_set('2040-04-11 00:10:10');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'missed' $$);
COMMIT;
CALL rest();
SELECT scheduled_for::time, last_slot::time, slots, reason, status, logged FROM outcomes ORDER BY 1;
CALL tidy();

-- Two slots that are cancelled at once are two rows where another one lies between them.
CALL go('2040-04-12 00:00:30');
SELECT dsched.schedule('two of three', '* * * * *', :'slow', overlap => 'queue_all') > 0 AS defined;
BEGIN;
LOCK TABLE gate;
SELECT clock_set('2040-04-12 00:01');
SELECT wait_until($$ SELECT count(*) = 1 FROM dsched.runs WHERE status = 'running' $$);
SELECT clock_set('2040-04-12 00:04');
SELECT wait_until($$ SELECT sum(slots) = 3 FROM dsched.runs WHERE status = 'waiting' $$);
\! psql -X -q -d regression -c "SELECT dsched.cancel(slot_key('two of three', t)) FROM (VALUES (timestamptz '2040-04-12 00:02Z'), ('2040-04-12 00:04Z')) v(t)" -o /dev/null
SELECT wait_until($$ SELECT sum(slots) = 2 FROM dsched.runs WHERE status = 'cancelled' $$);
COMMIT;
CALL rest();
SELECT scheduled_for::time, last_slot::time, slots, status, logged FROM outcomes ORDER BY 1;
CALL tidy();
DROP TABLE gate;
