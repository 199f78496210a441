-- instance: clustered
-- A member of a cluster that cannot reach etcd: PostgreSQL serves, definitions wait, status says why nothing runs.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set ECHO all
CREATE ROLE member LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;

-- In a cluster nobody's job runs as a superuser unless it is allowed.
SET SESSION AUTHORIZATION boss;
SHOW dsched.allow_superuser_jobs;
SELECT dsched.schedule('x', '* * * * *', 'SELECT 1');
SELECT dsched.schedule('x', '* * * * *', 'SELECT 1', username => 'member') > 0 AS defined;
SELECT dsched.alter_job(job_id, username => 'boss') FROM dsched.jobs;
SELECT dsched.unschedule('x', username => 'member') > 0 AS gone;

-- "When the server starts" has no meaning in a cluster.
SET SESSION AUTHORIZATION member;
SELECT dsched.schedule('x', '@reboot', 'SELECT 1');

-- Changes wait.
SELECT dsched.schedule('waits', '* * * * *', 'SELECT 1') > 0 AS defined;
SELECT job_name, published FROM dsched.jobs;
SELECT dsched.alter_job('waits', command => 'SELECT 2') > 0 AS altered;
SELECT dsched.run_now('waits') LIKE '%:%:%' AS asked;
SELECT count(*) FROM dsched.runs WHERE status <> 'queued';

-- Another owner is another key: the old one is deleted, the job published anew.
RESET SESSION AUTHORIZATION;
CREATE ROLE other LOGIN;
SELECT dsched.alter_job(job_id, username => 'other') = job_id AS same_id FROM dsched.jobs;
SELECT kind, username, job_name FROM dsched.outbox ORDER BY kind, job_name;
SELECT username, job_name, mod_revision, changed FROM dsched.job;

SELECT wait_until($$ SELECT state = 'problem' FROM dsched.status() WHERE component = 'etcd' $$);
SELECT component, state FROM dsched.status() WHERE component IN ('library', 'mode', 'coordinator', 'etcd', 'database', 'worker slots');
SELECT detail FROM dsched.status() WHERE component = 'mode';
SELECT cluster, incarnation, held FROM dsched.identity;
SELECT count(*) FROM dsched.partitions WHERE owner_node IS NOT NULL;

SELECT count(dsched.unschedule(job_id)) FROM dsched.jobs;
DROP ROLE member, boss, other;
