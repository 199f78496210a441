-- What is rolled back never happened; what is the same changes nothing.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set ECHO all
CALL go('2046-01-01 00:00:30');

-- [schedule-rolled-back] Rolled back.
BEGIN;
SELECT dsched.schedule('gone', '* * * * *', 'SELECT 1') > 0 AS defined;
SELECT job_name, next_run FROM dsched.jobs;
ROLLBACK;
SELECT count(*) FROM dsched.jobs;

-- To a savepoint.
BEGIN;
SELECT dsched.schedule('kept', '0 3 * * *', 'SELECT 1') > 0 AS defined;
SAVEPOINT s;
SELECT dsched.schedule('kept', '0 4 * * *', 'SELECT 2') > 0 AS defined;
SELECT dsched.schedule('gone', '0 5 * * *', 'SELECT 3') > 0 AS defined;
ROLLBACK TO s;
SELECT dsched.schedule('kept too', '0 6 * * *', 'SELECT 4') > 0 AS defined;
COMMIT;
SELECT job_name, schedule FROM dsched.jobs ORDER BY job_name;

-- An error undoes the whole transaction.
BEGIN;
SELECT dsched.unschedule('kept') > 0 AS gone;
SELECT dsched.schedule('bad', 'no schedule', 'SELECT 1');
COMMIT;
SELECT job_name, schedule FROM dsched.jobs ORDER BY job_name;
SELECT count(*) FROM dsched.outbox;

-- In a block that catches the error only that part is undone.
DO $$
BEGIN
	PERFORM dsched.schedule('first', '0 1 * * *', 'SELECT 1');
	BEGIN
		PERFORM dsched.schedule('second', '0 2 * * *', 'SELECT 1');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught';
	END;
END $$;
SELECT job_name FROM dsched.jobs ORDER BY job_name;

-- Three together.
CALL tidy();
BEGIN;
SELECT dsched.schedule('a', '0 1 * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('b', '0 2 * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.schedule('c', '0 3 * * *', 'SELECT 1') > 0 AS defined;
\! psql -X -At -d regression -c "SELECT count(*) FROM dsched.jobs"
COMMIT;
\! psql -X -At -d regression -c "SELECT count(*) FROM dsched.jobs"

-- Delete and define in one transaction: another job of the same name.
SELECT job_id AS old_id FROM dsched.jobs WHERE job_name = 'a' \gset
BEGIN;
SELECT dsched.unschedule('a') = :old_id AS gone;
SELECT dsched.schedule('a', '0 1 * * *', 'SELECT 1') <> :old_id AS another;
SELECT kind, job_id = :old_id AS of_the_old, job_name FROM dsched.outbox;
COMMIT;
CALL rest();
SELECT count(*) FROM dsched.outbox;
SELECT job_name FROM dsched.jobs ORDER BY job_name;

-- Defined and deleted in one transaction: nothing is left.
BEGIN;
SELECT dsched.schedule('brief', '0 1 * * *', 'SELECT 1') > 0 AS defined;
SELECT dsched.unschedule('brief') > 0 AS gone;
COMMIT;
SELECT count(*) FROM dsched.jobs WHERE job_name = 'brief';

-- [defined-again-alike] The same definition again changes nothing, not even the row.
SELECT dsched.schedule('same', '0 3 * * *', 'SELECT 1', payload => '{"a": 1, "b": 2}', starts_at => '2047-01-01 00:00+00', max_runs => 5) AS same_id \gset
CALL rest();
SELECT xmin AS same_xmin, ctid AS same_ctid, gen AS same_gen FROM dsched.job WHERE job_id = :same_id \gset
SELECT dsched.schedule('same', '0 3 * * *', 'SELECT 1', payload => '{"b": 2, "a": 1}', starts_at => '2047-01-01 01:00+01', max_runs => 5) = :same_id AS same_id;
SELECT dsched.alter_job('same', schedule => '0 3 * * *', time_zone => 'utc', active => true, reset => '{metadata}') = :same_id AS same_id;
SELECT xmin = :'same_xmin' AND ctid = :'same_ctid' AS untouched, changed FROM dsched.job WHERE job_id = :same_id;
SELECT dsched.schedule_once('once', '2047-01-01 00:00+00', 'SELECT 1') AS once_id \gset
CALL rest();
SELECT xmin AS once_xmin, ctid AS once_ctid FROM dsched.job WHERE job_id = :once_id \gset
SELECT dsched.schedule_once('once', '2047-01-01 01:00+01', 'SELECT 1') = :once_id AS same_id;
SELECT xmin = :'once_xmin' AND ctid = :'once_ctid' AS untouched FROM dsched.job WHERE job_id = :once_id;

-- What is not about the slots keeps the generation, what is begins a new one.
-- (In a transaction, so that the scheduler has not taken the change in when we look.)
BEGIN;
SELECT dsched.alter_job('same', command => 'SELECT 2', payload => '{}', metadata => '{}') = :same_id AS altered;
SELECT gen = :same_gen AS same_generation, changed FROM dsched.job WHERE job_id = :same_id;
SELECT dsched.schedule('same', '0 3 * * *', 'SELECT 3', starts_at => '2047-01-01 00:00+00', max_runs => 5) = :same_id AS replaced;
SELECT gen = :same_gen AS same_generation, changed FROM dsched.job WHERE job_id = :same_id;
COMMIT;
CALL rest();
BEGIN;
SELECT dsched.alter_job('same', schedule => '0 4 * * *') = :same_id AS altered;
SELECT gen <> :same_gen AS new_generation, changed, slots_from, last_slot FROM dsched.job WHERE job_id = :same_id;
SELECT gen AS same_gen FROM dsched.job WHERE job_id = :same_id \gset
SELECT dsched.alter_job('same', command => 'SELECT 4') = :same_id AS altered;
SELECT gen = :same_gen AS same_generation, changed FROM dsched.job WHERE job_id = :same_id;
SELECT dsched.pause('same') = :same_id AS paused;
SELECT gen <> :same_gen AS new_generation, changed FROM dsched.job WHERE job_id = :same_id;
COMMIT;
CALL rest();
SELECT changed FROM dsched.job WHERE job_id = :same_id;

-- [schedule-prepared] Nobody would wake the scheduler at COMMIT PREPARED.
BEGIN;
SELECT dsched.schedule('prepared', '0 3 * * *', 'SELECT 1') > 0 AS defined;
PREPARE TRANSACTION 'p';
SELECT count(*) FROM pg_prepared_xacts;
SELECT count(*) FROM dsched.jobs WHERE job_name = 'prepared';
BEGIN;
SELECT dsched.schedule('same', '0 4 * * *', 'SELECT 4', starts_at => '2047-01-01 00:00+00', max_runs => 5, active => false) = :same_id AS same;
SELECT count(*) FROM dsched.jobs;
ROLLBACK;

-- Not where nothing can be written.
BEGIN READ ONLY;
SELECT dsched.schedule('x', '0 3 * * *', 'SELECT 1');
ROLLBACK;
BEGIN READ ONLY;
SELECT job_name FROM dsched.jobs ORDER BY job_name;
SELECT count(*) FROM dsched.preview('@daily');
COMMIT;

-- A thousand in one transaction.
SELECT count(dsched.schedule('bulk ' || i, '0 3 * * *', 'SELECT 1')) FROM generate_series(1, 1000) i;
CALL rest();
SELECT count(*) FROM dsched.jobs WHERE published AND job_name LIKE 'bulk %';
SELECT count(dsched.unschedule(job_id)) FROM dsched.jobs;
CALL rest();
SELECT count(*) FROM dsched.outbox;
SELECT count(*) FROM dsched.jobs;
CALL tidy();
