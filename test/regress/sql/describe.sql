-- dsched.describe() and the column "description" of the view jobs.  What sentence a schedule gets is tested in
-- test/unit/test_describe.c.
\set ECHO none
\i clock.psql
\set ECHO all
CALL go('2041-01-01 00:00:30');

-- The zone: that of the schedule, the one given, else dsched.timezone; where it matters.
SELECT dsched.describe('30 2 * * MON-FRI');
SELECT dsched.describe('30 2 * * MON-FRI', 'europe/berlin');
SELECT dsched.describe('30 2 * * MON-FRI', time_zone => NULL);
SELECT dsched.describe('TZ=Asia/Kolkata 30 2 * * MON-FRI');
SELECT dsched.describe('CRON_TZ=asia/tokyo 0 9 * * *', 'Asia/Tokyo');
SELECT dsched.describe('*/5 * * * *', 'Europe/Berlin');
SELECT dsched.describe('90 minutes', 'Europe/Berlin');
SELECT dsched.describe('@reboot', 'Europe/Berlin');

-- The session's zone has nothing to do with it.
SET timezone = 'Europe/Berlin';
SELECT dsched.describe('@daily');
SET timezone = 'UTC';

-- What a definition would refuse is refused, in the same words.
SELECT dsched.describe(NULL);
SELECT dsched.describe('');
SELECT dsched.describe('0 24 * * *');
SELECT dsched.describe('0 0 30 2 *');
SELECT dsched.describe('@daily', 'Europe/Atlantis');
SELECT dsched.describe('TZ=Europe/Paris @daily', 'Europe/Berlin');
SELECT provolatile, proparallel FROM pg_proc WHERE oid = 'dsched.describe'::regproc;

-- Everybody may ask.
CREATE ROLE describer;
SET ROLE describer;
SELECT dsched.describe('@daily');
RESET ROLE;
DROP ROLE describer;

-- Jobs of all kinds.
SELECT dsched.schedule('fields', '30 2 * * *', 'SELECT 1', time_zone => 'Europe/Berlin') > 0 AS defined;
SELECT dsched.schedule('zoned', 'TZ=Asia/Kolkata 0 9 1,15 * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('interval', '90 minutes', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('anchored', '90 minutes', 'SELECT 1', starts_at => '2041-02-01 00:10+00') > 0 AS defined;
SELECT dsched.schedule('paused', '@hourly', 'SELECT 1', active => false) > 0 AS defined;
SELECT dsched.schedule('reboot', '@reboot', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule_once('once', '2041-06-01 12:00+00', 'SELECT 1') > 0 AS defined;
SELECT job_name, description FROM dsched.jobs ORDER BY job_name;
-- Times are in the session's zone, and in ISO format whatever the session's is, as in errors.
SET timezone = 'Europe/Berlin';
SET datestyle = 'German';
SELECT job_name, description FROM dsched.jobs WHERE job_name IN ('anchored', 'once') ORDER BY job_name;
RESET datestyle;
SET timezone = 'UTC';

-- A definition that cannot be read has no description, and does no harm to the others.
BEGIN;
UPDATE dsched.job SET schedule = '61 * * * *' WHERE job_name = 'fields';
UPDATE dsched.job SET time_zone = 'Europe/Atlantis' WHERE job_name = 'zoned';
UPDATE dsched.job SET schedule = repeat('1,', 600) WHERE job_name = 'paused';
SELECT job_name, description FROM dsched.jobs ORDER BY job_name;
ROLLBACK;

CALL tidy();
