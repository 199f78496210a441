-- Jobs run, by the test clock: every slot once, recorded with what happened.
\set ECHO none
\i clock.psql
\set ECHO all
CREATE ROLE runner LOGIN;
GRANT CREATE ON SCHEMA public TO runner;
CALL go('2043-01-01 00:00:30');

-- Every minute for five minutes: each slot has one row and one effect.
SELECT dsched.schedule('minutely', '* * * * *', :'logs', username => 'runner') > 0 AS defined;
CALL walk('2043-01-01 00:01', '2043-01-01 00:05', '1 minute');
SELECT * FROM outcomes ORDER BY scheduled_for;
SELECT scheduled_for, attempt, reason FROM log ORDER BY n;
SELECT job_name, next_run, last_run, last_status, last_finished IS NOT NULL AS finished FROM dsched.jobs;
-- Time passes, but no slot does.
CALL walk('2043-01-01 00:05:10', '2043-01-01 00:05:50', '20 seconds');
SELECT count(*) FROM log;

-- What a run leaves.
SELECT job_name, username, scheduled_for, trigger_id, attempt, reason, status, last_slot, slots,
	started_at IS NOT NULL AS started, finished_at >= started_at AS finished, node = (SELECT node FROM dsched.nodes) AS here,
	epoch, pid > 0 AS pid, rows, command_tag, sqlstate, message, detail, hint, context
FROM dsched.runs ORDER BY scheduled_for LIMIT 1 \gx
SELECT run_key = format('%s:%s:0', job_id, (extract(epoch FROM scheduled_for) * 1000000)::bigint) AS run_key FROM dsched.runs LIMIT 1;
CALL tidy();

-- Failures say why.
SELECT dsched.schedule('fails', '* * * * *', $$DO 'BEGIN RAISE EXCEPTION ''oh no'' USING ERRCODE = ''DS001'', DETAIL = ''a detail'', HINT = ''a hint''; END'$$) > 0 AS defined;
SELECT dsched.schedule('no table', '* * * * *', 'INSERT INTO log (job_name) VALUES (''half''); SELECT * FROM no_such_table') > 0 AS defined;
SELECT dsched.schedule('deferred', '* * * * *', 'CREATE TEMP TABLE d (a int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (1), (1)') > 0 AS defined;
CALL go('2043-01-01 00:06');
SELECT job_name, status, rows, command_tag, sqlstate, message, detail, hint, context FROM dsched.runs ORDER BY job_name;
SELECT count(*) AS half FROM log WHERE job_name = 'half';
SELECT job_name, last_run, last_status, next_run FROM dsched.jobs ORDER BY job_name;
CALL tidy();

-- All kinds of commands.
CREATE TABLE kinds (a int);
SELECT dsched.schedule('several', '* * * * *', 'INSERT INTO kinds VALUES (1), (2); UPDATE kinds SET a = a + 1; SELECT 1') > 0 AS defined;
SELECT dsched.schedule('vacuum', '* * * * *', 'VACUUM kinds') > 0 AS defined;
SELECT dsched.schedule('index', '* * * * *', 'CREATE INDEX CONCURRENTLY kinds_a ON kinds (a)') > 0 AS defined;
CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log (job_name) VALUES ('first');
	COMMIT;
	INSERT INTO log (job_name) VALUES ('second');
	ROLLBACK;
	INSERT INTO log (job_name) VALUES ('third');
	COMMIT;
END $$;
SELECT dsched.schedule('commits', '* * * * *', 'CALL twice()') > 0 AS defined;
SELECT dsched.schedule('ddl', '* * * * *', 'CREATE TABLE made_by_job (a int); DROP TABLE made_by_job') > 0 AS defined;
SELECT dsched.schedule('read only', '* * * * *', 'SET TRANSACTION READ ONLY; SELECT 1') > 0 AS defined;
SELECT dsched.schedule('search path', '* * * * *', 'SET search_path = pg_temp; CREATE TEMP TABLE run (a int); SELECT 1') > 0 AS defined;
CALL go('2043-01-01 00:07');
SELECT job_name, status, rows, command_tag, sqlstate, message FROM dsched.runs ORDER BY job_name;
SELECT job_name FROM log ORDER BY n;
SELECT count(*) FROM kinds;
SELECT indisvalid FROM pg_index WHERE indexrelid = 'kinds_a'::regclass;
CALL tidy();

-- A run is made as its role, from its session on, and knows which run it is.
SELECT dsched.schedule('who', '* * * * *', 'CREATE TABLE who AS SELECT current_user::text AS c, session_user::text AS s, current_setting(''application_name'') AS a, r.* FROM dsched.current_run() r',
	username => 'runner', payload => '{"n": 1}') AS who_id \gset
CALL go('2043-01-01 00:08');
SELECT c, s, a, job_id = :who_id AS job_id, job_name, scheduled_for, trigger_id, attempt, reason, payload FROM who;
SELECT w.run_key = r.run_key AS run_key, r.status, r.username FROM who w, dsched.runs r;
SELECT dsched.schedule('forbidden', '* * * * *', 'DELETE FROM dsched.run', username => 'runner') > 0 AS defined;
SELECT dsched.schedule('no way back', '* * * * *', 'RESET SESSION AUTHORIZATION; RESET ROLE; SELECT pg_read_file(''PG_VERSION'')', username => 'runner') > 0 AS defined;
CALL go('2043-01-01 00:09');
SELECT job_name, status, sqlstate, message FROM dsched.runs WHERE job_name <> 'who' ORDER BY job_name;
DROP TABLE who;
CALL tidy();

-- Jobs define jobs.
SELECT dsched.schedule_once('parent', '2043-01-01 00:10+00', $$SELECT dsched.schedule('child', '* * * * *', 'SELECT 1')$$) > 0 AS defined;
CALL walk('2043-01-01 00:10', '2043-01-01 00:11', '1 minute');
SELECT job_name, scheduled_for, status, command_tag, rows FROM dsched.runs ORDER BY scheduled_for, job_name;
CALL tidy();

-- A role that may not log in any more, or is gone, costs its own job alone.
CREATE ROLE runner2 LOGIN;
SELECT dsched.schedule('locked out', '* * * * *', 'SELECT 1', username => 'runner2') > 0 AS defined;
SELECT dsched.schedule('fine', '* * * * *', 'SELECT 1', username => 'runner') > 0 AS defined;
ALTER ROLE runner2 NOLOGIN;
CALL go('2043-01-01 00:12');
SELECT job_name, scheduled_for, status, sqlstate, message FROM dsched.runs ORDER BY scheduled_for, job_name;
ALTER ROLE runner2 LOGIN;
CALL go('2043-01-01 00:13');
SELECT job_name, scheduled_for, status, sqlstate, message FROM dsched.runs WHERE scheduled_for = '2043-01-01 00:13+00' ORDER BY job_name;
DROP ROLE runner2;
CALL go('2043-01-01 00:14');
SELECT job_name, scheduled_for, status, sqlstate, message FROM dsched.runs WHERE scheduled_for = '2043-01-01 00:14+00' ORDER BY job_name;
SELECT job_name, problem FROM dsched.jobs ORDER BY job_name;
SELECT component, state, detail FROM dsched.status() WHERE component = 'jobs';
CALL tidy();

DROP TABLE kinds;
DROP PROCEDURE twice();
REVOKE CREATE ON SCHEMA public FROM runner;
DROP ROLE runner;
