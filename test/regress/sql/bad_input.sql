-- Everything that is refused: a clear error each, and nothing stored.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
\set ECHO all
CALL go('2040-01-01 00:00:30');
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
SELECT dsched.alter_job('job', reset => '{max_runs,colour}');
:state
SELECT dsched.alter_job('job', reset => '{command}');
SELECT dsched.alter_job('job', max_runs => 3, reset => '{max_runs}');
SELECT dsched.alter_job('job', reset => '{NULL}');
SELECT dsched.schedule('job', '0 25 * * *', 'SELECT 2');
SELECT job_name, schedule, run_at, command, starts_at, expires_at, max_runs FROM dsched.jobs ORDER BY job_name;

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
