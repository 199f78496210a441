-- Everything that is refused: a clear error each, and nothing stored.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
\set ECHO all
CALL go('2040-01-01 00:00:30');
SELECT dsched.create_queue(repeat('ü', 31) || 'q', 1);
CREATE ROLE bad_input LOGIN;
CREATE ROLE bad_input_group NOLOGIN;
CREATE ROLE bad_input_other LOGIN;
GRANT bad_input_group TO bad_input;
SET SESSION AUTHORIZATION bad_input;

--
-- Schedules: the field, the position, what to do.
--
SELECT dsched.schedule('x', '60 * * * *', 'SELECT 1');
:state
SELECT dsched.schedule('x', '* 24 * * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 0 * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 * 13 *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 * * 8', 'SELECT 1');
SELECT dsched.schedule('x', '60 0 0 * * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 * * MONDAY', 'SELECT 1');
SELECT dsched.schedule('x', '5-1 * * * *', 'SELECT 1');
SELECT dsched.schedule('x', '*/0 * * * *', 'SELECT 1');
SELECT dsched.schedule('x', '1,,2 * * * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 30 2 *', 'SELECT 1');
SELECT dsched.schedule('x', '* * * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 0 1 1 * 2241', 'SELECT 1');
SELECT dsched.schedule('x', '0 3 * * * and more', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 0 29 2 * 2100', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 1-7 * +MON#2', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 1,15W * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 * * FRI#6', 'SELECT 1');
SELECT dsched.schedule('x', 'cron(0 12 * * ? *)', 'SELECT 1');
SELECT dsched.schedule('x', 'Mon *-*-* 00:00', 'SELECT 1');
SELECT dsched.schedule('x', E'0 3 * * *\n', 'SELECT 1');
SELECT dsched.schedule('x', '', 'SELECT 1');
SELECT dsched.schedule('x', '   ', 'SELECT 1');
SELECT dsched.schedule('x', '@dayly', 'SELECT 1');
SELECT dsched.schedule('x', '@every', 'SELECT 1');
SELECT dsched.schedule('x', '@every 5', 'SELECT 1');
SELECT dsched.schedule('x', '0 seconds', 'SELECT 1');
SELECT dsched.schedule('x', '5 fortnights', 'SELECT 1');
SELECT dsched.schedule('x', 'every day', 'SELECT 1');
SELECT dsched.schedule('x', 'ü * * * *', 'SELECT 1');
SELECT dsched.schedule('x', '0 0 * ü *', 'SELECT 1');
SELECT dsched.schedule('x', repeat('*', 2000), 'SELECT 1');
SELECT dsched.schedule('0 25 * * *', 'SELECT 1');

--
-- Time zones.
--
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', time_zone => 'Europe/Nowhere');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', time_zone => '');
SELECT dsched.schedule('x', 'TZ=Mars/Olympus 0 3 * * *', 'SELECT 1');
SELECT dsched.schedule('x', 'TZ=Asia/Tokyo 0 3 * * *', 'SELECT 1', time_zone => 'Europe/Berlin');
:state
SELECT dsched.preview('0 3 * * *', 'Europe/Nowhere');

--
-- Commands.
--
SELECT dsched.schedule('x', '0 3 * * *', '');
:state
SELECT dsched.schedule('x', '0 3 * * *', E' \n\t ');
SELECT dsched.schedule('x', '0 3 * * *', '-- only a comment');
SELECT dsched.schedule('x', '0 3 * * *', ';;');
SELECT dsched.schedule('x', '0 3 * * *', 'SELEC 1');
:state
SELECT dsched.schedule('x', '0 3 * * *', E'SELECT 1;\nINSERT INTO t VALUES (1');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT ' || repeat('1', 262144));
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', payload => to_jsonb(repeat('x', 262144)));
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', metadata => to_jsonb(repeat('x', 262144)));
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', payload => (repeat('[', 100) || repeat(']', 100))::jsonb);
:state
-- Each within its limit, but all together, as JSON, are too long for etcd.
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1 --' || repeat('"', 262133), payload => to_jsonb(repeat('x', 262142)), metadata => to_jsonb(repeat('x', 262142)));

--
-- Bounds.
--
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', starts_at => '2041-01-01', expires_at => '2040-06-01');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', starts_at => '2041-01-01', expires_at => '2041-01-01');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', expires_at => '2039-01-01');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', expires_at => '2040-01-01 03:00');
:state
SELECT dsched.schedule('x', '0 3 29 2 *', 'SELECT 1', starts_at => '2041-01-01', expires_at => '2042-01-01');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', starts_at => 'infinity');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', expires_at => '-infinity');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', expires_at => '9999-12-31');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', starts_at => '2240-01-01');
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', max_runs => 0);
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', max_runs => -1);
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', max_runs => 1000001);
SELECT dsched.schedule('x', '@reboot', 'SELECT 1', max_runs => 2);
SELECT dsched.schedule_once('x', 'infinity', 'SELECT 1');
:state
SELECT dsched.schedule_in('x', '-1 second', 'SELECT 1');
:state

--
-- Names.
--
SELECT dsched.schedule('', '0 3 * * *', 'SELECT 1');
:state
SELECT dsched.schedule(repeat('n', 256), '0 3 * * *', 'SELECT 1');
:state
SELECT dsched.schedule(repeat('ü', 128), '0 3 * * *', 'SELECT 1');
SELECT dsched.schedule(E'new\nline', '0 3 * * *', 'SELECT 1');
:state
SELECT dsched.schedule_once(repeat('n', 256), '2040-06-01', 'SELECT 1');
SELECT dsched.schedule_in('', '1 hour', 'SELECT 1');

--
-- Roles.
--
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => 'nobody_of_that_name');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => 'bad_input_other');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => 'bad_input_group');
:state
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1', username => '');

--
-- Policies: what is out of range, with what is allowed.
--
CREATE FUNCTION pg_temp.refused(options text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	said text; detail text; hint text;
BEGIN
	EXECUTE format('SELECT dsched.schedule(''x'', ''0 3 * * *'', ''SELECT 1'', %s)', options);
	RETURN NEXT 'not refused: ' || options;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN NEXT concat_ws(' | ', SQLSTATE, said, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.refused(o) FROM unnest(ARRAY[
	'overlap => ''''', 'overlap => ''Skip''', 'overlap => ''latest''', 'overlap => ''queue_one ''',
	'misfire => ''queue_one''', 'misfire => ''ALL''']) o;
SELECT pg_temp.refused(o) FROM unnest(ARRAY[
	'max_attempts => 0', 'max_attempts => -1', 'max_attempts => 101', 'priority => 101', 'priority => -101',
	'max_failures => 0', 'max_failures => 1000001', 'max_failures => -2147483648', 'max_lost => 0', 'max_lost => 1000001']) o;
SELECT pg_temp.refused(format('%s => %L', o, v))
	FROM unnest(ARRAY['misfire_grace', 'retry_delay', 'retry_max_delay', 'timeout', 'deadline', 'jitter']) o,
		unnest(ARRAY['-1 microsecond', '366 days 00:00:00.000001', '1 month', '-1 day 23:59:59']) v;
SELECT pg_temp.refused(o) FROM unnest(ARRAY['timeout => ''0''', 'deadline => ''0''', 'jitter => ''0''']) o;
-- days and hours that cancel out are 0; what cannot be counted in 64 bits is too much, also in days
SELECT pg_temp.refused(o) FROM unnest(ARRAY[
	'timeout => ''1 day -24:00''', 'timeout => ''106751992 days''', 'timeout => ''2147483647 days''',
	'timeout => ''-2147483648 days''', 'timeout => ''2562047788:00:54.775807''', 'timeout => ''1 year''',
	'timeout => ''-1 month''', 'timeout => ''1 month -30 days''', 'misfire_grace => ''106751991 days 04:00:54.775808''']) o;
SELECT pg_temp.refused(o) FROM unnest(ARRAY[
	'queue => ''''', 'queue => repeat(''q'', 64)', 'queue => repeat(''ü'', 32)', 'queue => E''a\tb''']) o;

--
-- Policies: contradictions.
--
SELECT pg_temp.refused(o) FROM unnest(ARRAY[
	'retry_delay => ''5 s''', 'retry_max_delay => ''1 h''', 'retry_delay => ''5 s'', max_attempts => 1',
	'max_attempts => 2, retry_delay => ''11 min''', 'max_attempts => 2, retry_delay => ''2 s'', retry_max_delay => ''1.9 s''',
	'max_attempts => 2, retry_max_delay => ''0''', 'misfire => ''skip'', misfire_grace => ''0''',
	'misfire => ''skip'', misfire_grace => ''0.999999 s''',
	'misfire => ''all'', misfire_grace => ''1 day'', starts_at => ''2040-02-01'', expires_at => ''2040-02-02''',
	'misfire => ''all'', misfire_grace => ''366 days'', starts_at => ''2040-02-01 00:00'', expires_at => ''2040-02-02''']) o;
\pset tuples_only off
\pset format aligned
DROP FUNCTION pg_temp.refused(text);
SELECT dsched.schedule_once('x', '2040-06-01', 'SELECT 1', retry_delay => '5 s');
SELECT dsched.schedule_in('x', '1 hour', 'SELECT 1', max_lost => 0);

--
-- What is needed is asked for.
--
SELECT dsched.schedule(NULL, '0 3 * * *', 'SELECT 1');
:state
SELECT dsched.schedule('x', NULL, 'SELECT 1');
SELECT dsched.schedule('x', '0 3 * * *', NULL);
SELECT dsched.schedule(NULL, 'SELECT 1');
SELECT dsched.schedule('0 3 * * *', NULL);
SELECT dsched.schedule_once('x', NULL, 'SELECT 1');
SELECT dsched.schedule_in('x', NULL, 'SELECT 1');
SELECT dsched.alter_job(NULL::text);
SELECT dsched.alter_job(NULL::bigint);
SELECT dsched.unschedule(NULL::text);
SELECT dsched.unschedule(NULL::bigint);
SELECT dsched.pause(NULL::text);
SELECT dsched.run_now(NULL::bigint);
SELECT dsched.preview(NULL);

--
-- Jobs that are not there.
--
SELECT dsched.alter_job('x', max_runs => 1);
:state
SELECT dsched.unschedule('x');
SELECT dsched.pause(1234567);
:state
SELECT dsched.resume('x');
SELECT dsched.run_now('x');
SELECT dsched.run_now('x', username => 'bad_input_other');
:state

--
-- Changes that do not fit.
--
RESET SESSION AUTHORIZATION;
SELECT count(*) FROM dsched.job;
SELECT count(*) FROM dsched.outbox;
SET SESSION AUTHORIZATION bad_input;
SELECT dsched.schedule('job', '0 3 * * *', 'SELECT 1', expires_at => '2041-01-01') > 0 AS defined;
SELECT dsched.schedule_once('once', '2040-06-01 00:00+00', 'SELECT 1') > 0 AS defined;
SELECT dsched.alter_job('job', schedule => '0 3 * *');
:state
SELECT dsched.alter_job('job', command => '');
SELECT dsched.alter_job('job', time_zone => 'Europe/Nowhere');
SELECT dsched.alter_job('job', starts_at => '2042-01-01');
SELECT dsched.alter_job('job', expires_at => '2039-01-01');
SELECT dsched.alter_job('job', max_runs => 0);
SELECT dsched.alter_job('job', username => 'bad_input_other');
SELECT dsched.alter_job('job', run_at => '2040-06-01');
:state
SELECT dsched.alter_job('once', schedule => '0 3 * * *');
SELECT dsched.alter_job('once', max_runs => 3);
SELECT dsched.alter_job('once', overlap => 'allow');
:state
SELECT dsched.alter_job('once', misfire => 'skip');
SELECT dsched.alter_job('once', misfire_grace => '1 h');
SELECT dsched.alter_job('once', max_failures => 3);
SELECT dsched.alter_job('once', jitter => '1 min');
SELECT dsched.alter_job('job', retry_delay => '5 s');
SELECT dsched.alter_job('job', timeout => '1 month');
SELECT dsched.alter_job('job', misfire => 'all', misfire_grace => '100 days', starts_at => '2040-12-01');
SELECT dsched.alter_job('job', timeout => '1 h', reset => '{timeout}');
SELECT dsched.alter_job('job', queue => '');
:state
SELECT dsched.alter_job('job', reset => '{max_runs,colour}');
:state
SELECT dsched.alter_job('job', reset => '{command}');
SELECT dsched.alter_job('job', max_runs => 3, reset => '{max_runs}');
SELECT dsched.alter_job('job', reset => '{NULL}');
SELECT dsched.schedule('job', '0 25 * * *', 'SELECT 2');
SELECT job_name, schedule, run_at, command, starts_at, expires_at, max_runs FROM dsched.jobs ORDER BY job_name;
SELECT DISTINCT overlap, misfire, misfire_grace, max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline,
	max_failures, max_lost, jitter, queue FROM dsched.jobs;

--
-- preview is bounded, and as strict as a definition.
--
SELECT dsched.preview('* * * * *', count => 0);
:state
SELECT dsched.preview('* * * * *', count => 100001);
SELECT dsched.preview('* * * * *', after => 'infinity');
SELECT dsched.preview('61 * * * *');
SELECT dsched.preview('@reboot');

--
-- At the limits all is well.
--
SELECT dsched.schedule(repeat('n', 255), '0 3 * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('long', '0 3 * * *', 'SELECT ' || repeat('1', 262144 - 7)) > 0 AS defined;
SELECT dsched.schedule('many', '* * * * *', 'SELECT 1', max_runs => 1000000) > 0 AS defined;
SELECT dsched.schedule_once('in the past', '1999-12-31 23:59+00', 'SELECT 1', active => false) > 0 AS defined;
SELECT dsched.schedule_once('the year 2000', '2000-01-01 00:00+00', 'SELECT 1', active => false) > 0 AS defined;
SELECT dsched.schedule_in('at once', '0', 'SELECT 1', active => false) > 0 AS defined;
SELECT dsched.schedule('needs a table that is not there', '0 3 * * *', 'SELECT * FROM no_such_table') > 0 AS defined;
SELECT count(*) FROM dsched.preview('* * * * * *', count => 100000);
SELECT dsched.schedule('punctual', '0 3 * * *', 'SELECT 1', misfire => 'skip', misfire_grace => '1 s') > 0 AS defined;
SELECT dsched.alter_job('punctual', misfire_grace => '0.9 s');
SELECT dsched.alter_job('punctual', misfire_grace => '0', misfire => 'all') > 0 AS altered;
SELECT dsched.alter_job('punctual', misfire => 'skip');
SELECT dsched.schedule('least', '0 3 * * *', 'SELECT 1', misfire_grace => '0', max_attempts => 2, retry_delay => '0',
	retry_max_delay => '0', timeout => '1 us', priority => -100, deadline => '1 us', max_failures => 1, max_lost => 1,
	jitter => '1 us') > 0 AS defined;
SELECT dsched.schedule('most', '0 3 * * *', 'SELECT 1', misfire_grace => '366 days', max_attempts => 100, retry_delay => '366 days',
	retry_max_delay => '366 days', timeout => '366 days', priority => 100, deadline => '365 days 24:00', max_failures => 1000000,
	max_lost => 1000000, jitter => '8784:00', queue => repeat('ü', 31) || 'q') > 0 AS defined;
SELECT misfire_grace, max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline, max_failures, max_lost, jitter
	FROM dsched.jobs WHERE job_name IN ('least', 'most') ORDER BY job_name;

-- The trigger of dsched.job is that and nothing else.
CREATE TABLE pg_temp.t (a integer);
CREATE TRIGGER t BEFORE INSERT ON pg_temp.t FOR EACH ROW EXECUTE FUNCTION dsched._job_written();
SELECT dsched._created();

RESET SESSION AUTHORIZATION;
CREATE TABLE pg_temp.t2 (a integer);
CREATE TRIGGER t BEFORE INSERT ON pg_temp.t2 FOR EACH ROW EXECUTE FUNCTION dsched._job_written();
INSERT INTO pg_temp.t2 VALUES (1);
:state

CALL tidy();
DROP TABLE pg_temp.t;
DROP ROLE bad_input, bad_input_group, bad_input_other;
SELECT dsched.drop_queue(name) FROM dsched.queues;
