-- Throttle queues as objects: what can be said of them, what is refused, who may, what a dump has.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set state '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
\set ECHO all
CALL go('2043-01-01 00:00:30');
CREATE ROLE queue_dba LOGIN;
CREATE ROLE queue_user LOGIN;
CREATE ROLE queue_other LOGIN;
GRANT EXECUTE ON FUNCTION dsched.create_queue, dsched.alter_queue, dsched.drop_queue TO queue_dba;

SELECT dsched.create_queue('mail', max_running => 3);
SELECT dsched.create_queue('api', rate_limit => 10);
SELECT dsched.create_queue('both', 5, 100, '1 day 30 minutes', 'cluster');
SELECT dsched.create_queue('least', 1, 1, '1 millisecond', 'instance');
SELECT dsched.create_queue('most', 10000, 1000000, '366 days', NULL);
SELECT dsched.create_queue(rpad('long', 63, 'x'), 1);
SELECT dsched.create_queue('Grüße, 50 % "of" all/of it', 1);
SELECT dsched.create_queue('no period', 1, per => NULL);
CALL rest();
SELECT * FROM dsched.queues ORDER BY name COLLATE "C";

-- The same again: nothing happens. Others: they are replaced, as a job would be.
SELECT xmin AS before, change_id AS change FROM dsched.queue WHERE name = 'mail' \gset
SELECT dsched.create_queue('mail', 3);
SELECT xmin = :before AS "not written", change_id = :change AS "the same version" FROM dsched.queue WHERE name = 'mail';
SELECT dsched.create_queue('mail', rate_limit => 7, scope => 'cluster');
SELECT max_running, rate_limit, per, scope FROM dsched.queues WHERE name = 'mail';

-- Alter: what is given, and what goes back to its default.
SELECT dsched.alter_queue('mail', max_running => 2);
SELECT dsched.alter_queue('mail', per => '1 hour', scope => 'instance');
SELECT max_running, rate_limit, per, scope FROM dsched.queues WHERE name = 'mail';
SELECT dsched.alter_queue('mail', rate_limit => 8, reset => '{per, max_running}');
SELECT max_running, rate_limit, per, scope FROM dsched.queues WHERE name = 'mail';
SELECT dsched.alter_queue('mail', max_running => 1, scope => 'cluster', reset => '{rate_limit}');
SELECT max_running, rate_limit, per, scope FROM dsched.queues WHERE name = 'mail';
SELECT dsched.alter_queue('mail', reset => '{scope}');
SELECT dsched.alter_queue('mail');
SELECT dsched.alter_queue('api', max_running => 4);
SELECT name, max_running, rate_limit, per, scope FROM dsched.queues WHERE name IN ('mail', 'api') ORDER BY name;
SELECT dsched.drop_queue('least');
SELECT dsched.create_queue('least', 9);
CALL rest();
SELECT name, max_running, rate_limit, published, problem FROM dsched.queues WHERE name = 'least';

--
-- Refused, and nothing stored.
--
SELECT md5(string_agg(q::text, ',' ORDER BY name)) AS before FROM dsched.queue q \gset
SELECT dsched.create_queue(NULL, 1);
:state
SELECT dsched.create_queue('', 1);
:state
SELECT dsched.create_queue(repeat('x', 64), 1);
:state
SELECT dsched.create_queue(repeat('ü', 32), 1);
SELECT dsched.create_queue(E'ü\tx', 1);
:state
SELECT dsched.create_queue(E'x\x7f', 1);
SELECT dsched.create_queue('x');
:state
SELECT dsched.create_queue('x', per => '1 minute');
SELECT dsched.create_queue('x', 0);
:state
SELECT dsched.create_queue('x', -1);
SELECT dsched.create_queue('x', 10001);
SELECT dsched.create_queue('x', rate_limit => 0);
SELECT dsched.create_queue('x', rate_limit => -5);
SELECT dsched.create_queue('x', rate_limit => 1000001);
SELECT dsched.create_queue('x', rate_limit => 1, per => '0');
:state
SELECT dsched.create_queue('x', rate_limit => 1, per => '999 microseconds');
SELECT dsched.create_queue('x', rate_limit => 1, per => '-1 second');
SELECT dsched.create_queue('x', rate_limit => 1, per => '366 days 1 microsecond');
SELECT dsched.create_queue('x', rate_limit => 1, per => '2147483647 days');
SELECT dsched.create_queue('x', rate_limit => 1, per => '-2147483648 days 2562047788 hours');
SELECT dsched.create_queue('x', rate_limit => 1, per => '2562047788 hours');
SELECT dsched.create_queue('x', rate_limit => 1, per => '1 month');
:state
SELECT dsched.create_queue('x', rate_limit => 1, per => '-1 year 366 days');
SELECT dsched.create_queue('x', 1, per => '1 minute');
:state
SELECT dsched.create_queue('x', 1, scope => 'Cluster');
:state
SELECT dsched.create_queue('x', 1, scope => '');
SELECT dsched.alter_queue('x', 1);
:state
SELECT dsched.alter_queue(NULL, 1);
SELECT dsched.alter_queue('mail', 0);
SELECT dsched.alter_queue('mail', per => '1 minute');
SELECT dsched.alter_queue('mail', per => '1 second');
:state
SELECT dsched.alter_queue('mail', reset => '{max_running}');
:state
SELECT dsched.alter_queue('api', reset => '{max_running, rate_limit}');
SELECT dsched.alter_queue('api', 7, reset => '{max_running}');
:state
SELECT dsched.alter_queue('api', per => '1 minute', reset => '{rate_limit}');
SELECT dsched.alter_queue('api', reset => '{name}');
:state
SELECT dsched.alter_queue('api', reset => ARRAY[NULL]);
:state
SELECT dsched.drop_queue('x');
:state
SELECT dsched.drop_queue(NULL);
:state
BEGIN READ ONLY;
SELECT dsched.create_queue('x', 1);
ROLLBACK;
SELECT md5(string_agg(q::text, ',' ORDER BY name)) = :'before' AS "nothing stored" FROM dsched.queue q;

-- What is rolled back has never been.
BEGIN;
SELECT dsched.create_queue('x', 1), dsched.alter_queue('api', 1);
SELECT name, max_running FROM dsched.queues WHERE name IN ('x', 'api') ORDER BY name;
ROLLBACK;
SELECT name, max_running FROM dsched.queues WHERE name IN ('x', 'api') ORDER BY name;

-- Not while jobs are in it. (The rows are written by hand, so the jobs are held: it is rolled back.)
SET SESSION AUTHORIZATION queue_user;
SELECT count(dsched.schedule('q' || i, '0 3 * * *', 'SELECT 1')) FROM generate_series(1, 7) i;
SET SESSION AUTHORIZATION queue_other;
SELECT count(dsched.schedule('q1', '0 3 * * *', 'SELECT 1'));
RESET SESSION AUTHORIZATION;
BEGIN;
UPDATE dsched.job SET queue = 'mail' WHERE job_name ~ '^q';
UPDATE dsched.job SET queue = 'api' WHERE job_name = 'q7';
UPDATE dsched.job SET queue = 'nowhere' WHERE job_name = 'q6';
SELECT name, jobs, running FROM dsched.queues WHERE jobs > 0 ORDER BY name;
SAVEPOINT s;
SELECT dsched.drop_queue('mail');
:state
ROLLBACK TO s;
SELECT dsched.drop_queue('api');
ROLLBACK TO s;
UPDATE dsched.job SET queue = NULL WHERE queue = 'mail';
SELECT dsched.drop_queue('mail');
ROLLBACK;
SELECT name, jobs FROM dsched.queues WHERE name = 'mail';

--
-- Privileges.
--
SET SESSION AUTHORIZATION queue_user;
SELECT dsched.create_queue('mine', 1);
:state
SELECT dsched.alter_queue('mail', 1);
SELECT dsched.drop_queue('mail');
SELECT * FROM dsched.queue;
INSERT INTO dsched.queue (name, max_running) VALUES ('x', 1);
DELETE FROM dsched.queue;
UPDATE dsched.queues SET max_running = 1;
SELECT name, max_running FROM dsched.queues WHERE name = 'mail';
-- EXECUTE can be granted
SET SESSION AUTHORIZATION queue_dba;
SELECT dsched.create_queue('mine', 1), dsched.alter_queue('mine', 2);
SELECT name, max_running FROM dsched.queues WHERE name = 'mine';
SELECT dsched.drop_queue('mine');
UPDATE dsched.queue SET max_running = 1;
RESET SESSION AUTHORIZATION;

-- Whoever may drop a queue need not see the jobs in it.
BEGIN;
UPDATE dsched.job SET queue = 'mail' WHERE username = 'queue_user';
SET LOCAL ROLE queue_dba;
SELECT dsched.drop_queue('mail');
ROLLBACK;
BEGIN;
UPDATE dsched.job SET queue = 'mail' WHERE username = 'queue_other';
GRANT queue_other TO queue_dba;
SET LOCAL ROLE queue_dba;
SELECT dsched.drop_queue('mail');
ROLLBACK;

--
-- A row that was not written by these functions is one from a dump, or was changed by hand; it needs no hold.
--
BEGIN;
INSERT INTO dsched.queue (name, max_running, mod_revision, change_id, problem) VALUES ('by hand', 1, 77, 5, 'some');
SELECT name, changed, mod_revision, change_id <> 5 AS "another version", problem FROM dsched.queue WHERE name = 'by hand';
COMMIT;
UPDATE dsched.queue SET max_running = 2 WHERE name = 'by hand';
SELECT held FROM dsched.identity;
CALL rest();
SELECT name, max_running, published FROM dsched.queues WHERE name = 'by hand';
\set VERBOSITY terse
INSERT INTO dsched.queue (name) VALUES ('limits nothing');
INSERT INTO dsched.queue (name, rate_limit) VALUES ('no period', 1);
INSERT INTO dsched.queue (name, max_running) VALUES ('', 1);
INSERT INTO dsched.queue (name, max_running, scope) VALUES ('x', 1, 'all');
\set VERBOSITY default

-- The way through a dump.
\! createdb queues_restored
\! pg_dump -d regression -e dsched | psql -X -q -d queues_restored 2>&1 | grep ERROR
SELECT md5(string_agg(q::text, ',' ORDER BY name)) AS before FROM dsched.queues q \gset
\c queues_restored
SELECT md5(string_agg(q::text, ',' ORDER BY name)) = :'before' AS "all is there" FROM (
	SELECT name, max_running, rate_limit, per, scope, jobs, running, true AS published, problem FROM dsched.queues) q;
\c regression
\! dropdb queues_restored

\set ECHO none
\i clock.psql
SELECT count(dsched.drop_queue(name)) AS dropped FROM dsched.queues;
CALL tidy();
SELECT count(*) FROM dsched.queue;
DROP OWNED BY queue_dba, queue_user, queue_other;
DROP ROLE queue_dba, queue_user, queue_other;
