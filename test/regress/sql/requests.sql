-- What is asked of the owner of a job: runs of the past, the end of a run.  What is wrong is refused at once.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
\set ECHO all
CALL go('2046-03-01 00:00:30');
SELECT dsched.schedule('daily', '30 2 * * *', 'SELECT 1', time_zone => 'Europe/Berlin') AS daily_id \gset
SELECT dsched.schedule('hourly', '@every 1h', 'SELECT 1') AS hourly_id \gset
SELECT dsched.schedule('seconds', '* * * * * *', 'SELECT 1', active => false) AS seconds_id \gset
SELECT dsched.schedule('later', '30 2 * * *', 'SELECT 1', starts_at => '2050-01-01', max_runs => 3, jitter => '1 h') AS later_id \gset
SELECT dsched.schedule_once('once', '2047-01-01', 'SELECT 1') AS once_id \gset
SELECT dsched.schedule('boot', '@reboot', 'SELECT 1', active => false) AS boot_id \gset
CALL rest();

--
-- backfill: the request and the key by which it is ended.
--
BEGIN;
SELECT dsched.backfill('daily', '2046-01-01', '2046-01-31 23:59:59') AS key \gset
SELECT dsched.backfill(:daily_id, '2046-01-01 00:00+00', '2046-01-31 23:59:59+00') AS key_by_id \gset
SELECT :'key' ~ ('^' || :daily_id || ':\*:[1-9][0-9]*$') AS a_key, :'key' <> :'key_by_id' AS each_its_own;
SELECT kind, job_name, username = current_user AS mine, first_slot, last_slot, rule IS NOT NULL AS rule, scheduled_for, slot, target,
	outbox_id = split_part(:'key', ':', 3)::bigint AS by_name FROM dsched.outbox ORDER BY outbox_id <> split_part(:'key', ':', 3)::bigint;
SELECT dsched.cancel(:'key');
SELECT kind, job_name, first_slot, last_slot, rule, slot, target = split_part(:'key', ':', 3)::bigint AS of_the_backfill
	FROM dsched.outbox WHERE kind = 'cancel';
ROLLBACK;

-- The times are those of the pattern, whatever the bounds of the job are; both ends belong to the range.
CREATE FUNCTION has_slots(job bigint, first timestamptz, last timestamptz) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dsched.backfill(job, first, last);
	RAISE EXCEPTION 'some';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END $$;
\pset tuples_only on
SELECT has_slots(:later_id, '2046-01-01', '2046-01-02');
SELECT has_slots(:daily_id, '2046-01-01 01:30', '2046-01-01 01:30');
SELECT has_slots(:daily_id, '2046-01-01 01:30:00.000001', '2046-01-02 01:29:59.999999');
SELECT has_slots(:daily_id, '2045-03-26 01:00', '2045-03-26 01:00'); -- the clocks skip 02:30
SELECT has_slots(:daily_id, '2045-03-26 00:30', '2045-03-26 00:59:59');
-- an interval counts backwards from the definition, too
SELECT has_slots(:hourly_id, '2046-02-28 23:00:30', '2046-02-28 23:00:30');
SELECT has_slots(:hourly_id, '2046-02-28 23:00:31', '2046-03-01 00:00:29');
SELECT has_slots(:hourly_id, '2046-03-01 00:00:30', '2046-03-01 00:00:30');
SELECT has_slots(:hourly_id, '2001-09-09 01:00:30', '2001-09-09 01:00:30');
SELECT has_slots(:hourly_id, '2001-09-09 01:00:31', '2001-09-09 02:00:29.5');
SELECT has_slots(:hourly_id, '2000-01-01 00:00:00.000001', '2000-01-01 00:00:30');
-- a million is not too much
SELECT has_slots(:seconds_id, '2046-02-01 00:00:01', timestamptz '2046-02-01 00:00:00' + 1000000 * interval '1 second');
SELECT has_slots(:seconds_id, '2046-02-01 00:00:00', timestamptz '2046-02-01 00:00:00' + 1000000 * interval '1 second');
\pset tuples_only off

-- What was meant stays the same over a pause and a change of the bounds, and differs with the pattern.
CREATE FUNCTION pattern(name text, changed text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	hash bigint;
BEGIN
	IF changed <> '' THEN
		EXECUTE format('SELECT dsched.%s', changed);
	END IF;
	PERFORM dsched.backfill(name, '2045-01-01', '2045-12-31');
	SELECT rule INTO hash FROM dsched.outbox WHERE kind = 'backfill' AND job_name = name;
	DELETE FROM dsched.outbox;
	RETURN hash;
END $$;
BEGIN;
SELECT pattern('daily', '') AS d, pattern('hourly', '') AS h \gset
SELECT pattern('daily', c) = :d AS same, c AS changed FROM unnest(ARRAY['pause(''daily'')', 'resume(''daily'')',
	'alter_job(''daily'', expires_at => ''2060-01-01'')', 'alter_job(''daily'', jitter => ''1 h'', max_runs => 7)',
	'alter_job(''daily'', schedule => ''TZ=Europe/Berlin 30 2 */1 JAN-DEC *'')', 'alter_job(''daily'', command => ''SELECT 2'')',
	'alter_job(''daily'', schedule => ''30 3 * * *'')', 'alter_job(''daily'', schedule => ''30 2 * * *'', time_zone => ''UTC'')',
	'alter_job(''daily'', time_zone => ''Europe/Paris'')', 'alter_job(''daily'', schedule => ''30 2 * * 1-7'', time_zone => ''Europe/Berlin'')',
	'alter_job(''daily'', schedule => ''30 2 1 * *'')', 'alter_job(''daily'', schedule => ''@every 1d'')']) c;
SELECT pattern('hourly', c) = :h AS same, c AS changed FROM unnest(ARRAY['pause(''hourly'')', 'resume(''hourly'')',
	'alter_job(''hourly'', schedule => ''60 minutes'', starts_at => ''2046-02-01 05:00:30'')',
	'alter_job(''hourly'', starts_at => ''2046-02-01 05:00:31'')', 'alter_job(''hourly'', starts_at => ''2046-02-01 05:00:30'')',
	'alter_job(''hourly'', schedule => ''61 minutes'')']) c;
ROLLBACK;

-- What is refused.
SELECT dsched.backfill('daily', '2046-01-02', '2046-01-01');
:state
SELECT dsched.backfill('daily', '2046-01-02', '2046-03-01 00:00:30.000001');
SELECT dsched.backfill('daily', 'infinity', 'infinity');
SELECT dsched.backfill('daily', '2046-01-02', 'infinity');
SELECT dsched.backfill('daily', '-infinity', '2046-01-02');
SELECT dsched.backfill('daily', '2000-01-01 00:00+00', '2046-01-02');
SELECT dsched.backfill('daily', '4713-01-01 BC', '2046-01-02');
SELECT dsched.backfill('daily', NULL, '2046-01-02');
:state
SELECT dsched.backfill('daily', '2046-01-01', NULL);
SELECT dsched.backfill(NULL::text, '2046-01-01', '2046-01-02');
SELECT dsched.backfill(NULL::bigint, '2046-01-01', '2046-01-02');
SELECT dsched.backfill('daily', '2046-01-01 01:30:01', '2046-01-02 01:29:59');
:state
SELECT dsched.backfill('seconds', '2046-01-01', '2046-02-01');
:state
SELECT dsched.backfill('once', '2046-01-01', '2046-01-02');
:state
SELECT dsched.backfill(:boot_id, '2046-01-01', '2046-01-02');
SELECT dsched.backfill('no such job', '2046-01-01', '2046-01-02');
:state
SELECT dsched.backfill(1, '2046-01-01', '2046-01-02');
SELECT dsched.backfill('daily', '2046-01-01', '2046-01-02', username => 'nobody_of_that_name');
SET default_transaction_read_only = on;
SELECT dsched.backfill('daily', '2046-01-01', '2046-01-02');
SELECT dsched.cancel('1:2:3');
RESET default_transaction_read_only;
SELECT count(*) FROM dsched.outbox;

--
-- cancel: keys.
--
CREATE FUNCTION cancels(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dsched.cancel(key);
	RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT cancels(k) FROM unnest(ARRAY['', ' ', 'x', '1', '1:2', '1:2:3:4', '1:2:', ':2:3', '1::3', 'a:2:3', '1:b:3', '1:2:c', '1:*:', '1:*:0', '1:**:3',
	'0:2:3', '-1:2:3', '1:2:-3', '01:2:3', '1:02:3', '1:-0:3', '+1:2:3', ' 1:2:3', '1:2:3 ', '1:2.0:3', '1:2:3e0', '9007199254740992:2:3',
	'1:9007199254740992:3', '1:2:99999999999999999999999999', '1:-9007199254740992:3', repeat('ü', 100), E'1:2:3\n']) k;
SELECT dsched.cancel('report');
SELECT dsched.cancel(NULL);
:state
SELECT cancels(k) FROM unnest(ARRAY['1:2:3', '9007199254740991:-9007199254740991:0', '9007199254740991:*:9007199254740991']) k;
BEGIN;
SELECT dsched.cancel(dsched._run_key(:daily_id, '2046-03-01 01:30', 0));
SELECT kind, job_name, slot, target, first_slot, last_slot, rule FROM dsched.outbox;
ROLLBACK;
BEGIN;
SELECT dsched.cancel(dsched._run_key(:daily_id, '1969-12-31 23:59:59.999999+00', 9007199254740991));
SELECT kind, job_name, slot, target, first_slot, last_slot, rule FROM dsched.outbox;
ROLLBACK;

--
-- cancel: what is over, as far as is known here.
--
SELECT dsched.schedule('good', '0 0 1 1 *', :'logs') > 0 AS defined;
SELECT dsched.schedule('bad', '0 0 1 1 *', 'SELECT 1/0') > 0 AS defined;
SELECT dsched.run_now('good') AS good_key, dsched.run_now('bad') AS bad_key \gset
CALL rest();
SELECT job_name, status FROM dsched.runs ORDER BY job_name;
\set VERBOSITY terse
SELECT cancels(:'good_key') = '55000 run ' || :'good_key' || ' is over' AS refused;
SELECT cancels(:'bad_key') = '55000 run ' || :'bad_key' || ' is over' AS refused;
SELECT cancels(replace(:'good_key', split_part(:'good_key', ':', 3), '0')) AS another;
-- it may be tried again
SELECT dsched.alter_job('bad', max_attempts => 2) > 0 AS altered;
SELECT cancels(:'bad_key');
-- a job that is gone cannot be named
SELECT dsched.unschedule('bad') > 0 AS gone;
SELECT split_part(cancels(:'bad_key'), ' ', 1) AS sqlstate;
\set VERBOSITY default

CALL tidy();
DROP FUNCTION has_slots(bigint, timestamptz, timestamptz);
DROP FUNCTION pattern(text, text);
DROP FUNCTION cancels(text);
