-- instance: purge
-- Old rows go: by age (2 hours), by number of a job's (5) and of all (20); by the test clock, which brings a round of the purge
-- when it is moved by an hour.
\set ECHO none
\i clock.psql
-- Rows as they would be after runs; n of them, the newest first.
CREATE FUNCTION made(job text, newest timestamptz, n integer, step interval, state text DEFAULT 'succeeded',
	took interval DEFAULT '1 second') RETURNS void LANGUAGE sql AS $$
	INSERT INTO dsched.run (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, started_at,
			finished_at, node, epoch)
		SELECT t, j.job_id, 0, 1, j.job_name, j.username, j.gen, 'schedule', state, 1, t, t + took, 'n', 1
		FROM dsched.job j, generate_series(0, n - 1) i, LATERAL (SELECT newest - i * step AS t) s
		WHERE j.job_name = job
$$;
CREATE VIEW kept AS
	SELECT job_name, count(*), min(scheduled_for), max(scheduled_for) FROM dsched.run WHERE job_name <> 'tick' GROUP BY 1 ORDER BY 1;
-- Time passes, and something is recorded.
CREATE PROCEDURE purge_at(t timestamptz) LANGUAGE plpgsql AS $$
BEGIN
	CALL go(t);
	PERFORM dsched.run_now('tick');
	COMMIT;
	CALL rest();
END $$;
\set ECHO all
CALL go('2050-06-01 00:00');
SELECT count(dsched.schedule(j, '0 0 1 1 *', 'SELECT 1')) FROM unnest('{tick,aged,single,long,slow,odd,many,tried,gone}'::text[]) j;
CALL purge_at('2050-06-01 01:00');

-- By age: what is older than two hours by its slot and by its end; each job's latest time stays, and what has not ended or is of a
-- kind that only a newer version knows.
SELECT made('aged', '2050-06-01 11:30', 4, '30 minutes');
SELECT made('single', '2050-05-01 00:00', 1, '1 day');
SELECT made('long', '2050-06-01 09:01', 2, '1 hour', 'succeeded', '3 hours');
SELECT made('slow', '2050-06-01 03:00', 2, '1 hour', 'running');
SELECT made('odd', '2050-06-01 03:00', 2, '1 hour', 'paused');
SELECT made('gone', '2050-06-01 11:59', 3, '1 hour');
SELECT dsched.unschedule('gone') > 0 AS gone;
SELECT * FROM kept;
CALL purge_at('2050-06-01 12:00');
SELECT * FROM kept;
-- Each round looks at all that was kept again.
CALL purge_at('2050-06-01 14:00');
SELECT * FROM kept;
-- One that was the latest is not any more.
SELECT made('single', '2050-06-01 14:00', 1, '1 day');
CALL purge_at('2050-06-01 15:00');
SELECT * FROM kept;
SELECT account.forget();
DELETE FROM dsched.run;

-- Of one job no more than five, the newest.  Attempts of one time stay together, and are counted one by one.
SELECT made('many', '2050-06-01 15:59', 8, '1 minute');
SELECT made('aged', '2050-06-01 15:59', 5, '1 minute');
SELECT made('tried', '2050-06-01 15:59', 4, '1 minute');
INSERT INTO dsched.run (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, finished_at, node, epoch)
	SELECT '2050-06-01 15:55', job_id, 0, a, job_name, username, gen, 'schedule', 'failed', 1, '2050-06-01 15:55', 'n', 1
	FROM dsched.job, generate_series(1, 3) a WHERE job_name = 'tried';
INSERT INTO dsched.run (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, finished_at, node, epoch)
	SELECT '2050-06-01 15:54', job_id, 0, a, job_name, username, gen, 'schedule', 'failed', 1, '2050-06-01 15:54', 'n', 1
	FROM dsched.job, generate_series(1, 3) a WHERE job_name = 'tried';
CALL purge_at('2050-06-01 16:00');
SELECT * FROM kept;
DELETE FROM dsched.run;

-- Of all no more than twenty: the oldest go, but for each job's latest.
SELECT made('single', '2050-06-01 15:30', 2, '1 minute');
SELECT made('aged', '2050-06-01 16:10', 5, '1 minute');
SELECT made('many', '2050-06-01 16:20', 5, '1 minute');
SELECT made('long', '2050-06-01 16:30', 5, '1 minute');
SELECT made('tried', '2050-06-01 16:40', 5, '1 minute');
SELECT count(*) FROM dsched.run;
CALL purge_at('2050-06-01 17:00');
SELECT * FROM kept;
SELECT count(*) FROM dsched.run;
DELETE FROM dsched.run;

-- What has still to be known stays, although it is old and not the latest: the attempts of a slot that waits for another.
SELECT account.forget();
SELECT dsched.schedule('again', '0 0 1 1 *', 'SELECT 1/0', max_attempts => 2, retry_delay => '1 day', retry_max_delay => '1 day') > 0 AS defined;
SELECT dsched.run_now('again') > '' AS asked;
CALL go('2050-06-01 17:01');
SELECT made('again', '2050-06-01 20:59', 1, '1 day');
CALL purge_at('2050-06-01 21:00');
CALL purge_at('2050-06-02 01:00');
SELECT attempt, status FROM dsched.runs WHERE job_name = 'again' ORDER BY scheduled_for, attempt;
CALL go('2050-06-02 17:02');
SELECT attempt, status FROM dsched.runs WHERE job_name = 'again' ORDER BY scheduled_for, attempt;
CALL purge_at('2050-06-02 19:30');
SELECT attempt, status FROM dsched.runs WHERE job_name = 'again' ORDER BY scheduled_for, attempt;

-- The account is right.
SELECT account.forget();
CALL tidy();
DROP PROCEDURE purge_at;
DROP VIEW kept;
DROP FUNCTION made;
