-- Every option of a policy: said, changed, left alone, taken back.
\set ECHO none
\i clock.psql
\set SHOW_CONTEXT never
\set ECHO all
CALL go('2040-01-01 00:00:30');
SELECT dsched.create_queue(q, 1) FROM unnest(ARRAY['reports & <ü>', 'ten', 'eleven', 'seven', 'q']) q;
CREATE FUNCTION policy(name text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', 'overlap', overlap, 'misfire', misfire, misfire_grace, 'attempts', max_attempts, retry_delay,
		retry_max_delay, 'timeout', coalesce(timeout::text, 'none'), 'priority', priority, 'deadline', coalesce(deadline::text, 'none'),
		'failures', coalesce(max_failures::text, 'none'), 'lost', max_lost, 'jitter', coalesce(jitter::text, 'none'),
		'queue', coalesce(queue, 'none'))
	FROM dsched.jobs WHERE job_name = name
$$;

-- What a definition that says nothing has.
SELECT dsched.schedule('plain', '0 3 * * *', 'SELECT 1') > 0 AS defined;
SELECT policy('plain');

-- All of it.
SELECT dsched.schedule('full', '0 3 * * *', 'SELECT 1', overlap => 'queue_one', misfire => 'all', misfire_grace => '1 day 02:00',
	max_attempts => 5, retry_delay => '1.5 seconds', retry_max_delay => '90 minutes', timeout => '2 hours', priority => -7,
	deadline => '10 minutes', max_failures => 3, max_lost => 2, jitter => '30 seconds', queue => 'reports & <ü>') AS full_id \gset
SELECT policy('full');

-- The same again is no change; without the options they are gone.
CALL rest();
SELECT xmin AS was FROM dsched.job WHERE job_name = 'full' \gset
SELECT dsched.schedule('full', '0 3 * * *', 'SELECT 1', overlap => 'queue_one', misfire => 'all', misfire_grace => '26 hours',
	max_attempts => 5, retry_delay => '1.5 seconds', retry_max_delay => '1.5 hours', timeout => '120 minutes', priority => -7,
	deadline => '600 seconds', max_failures => 3, max_lost => 2, jitter => '0.5 minutes', queue => 'reports & <ü>') = :full_id AS same;
SELECT xmin = :was AS untouched FROM dsched.job WHERE job_name = 'full';
SELECT dsched.schedule('full', '0 3 * * *', 'SELECT 1') = :full_id AS same;
SELECT policy('full') = policy('plain') AS as_plain;

-- One by one: only that one changes, and only jitter begins a new set of times.
CREATE PROCEDURE alter_each(job bigint) LANGUAGE plpgsql AS $$
DECLARE
	option text;
	old_gen bigint;
	new_gen bigint;
	before jsonb;
	after jsonb;
BEGIN
	FOREACH option IN ARRAY ARRAY['overlap => ''queue_all''', 'overlap => ''allow''', 'overlap => ''cancel_running''', 'misfire => ''skip''',
		'misfire => ''all''', 'misfire_grace => ''5 s''', 'max_attempts => 4', 'retry_delay => ''2 s''', 'retry_max_delay => ''3 s''',
		'timeout => ''4 s''', 'priority => 5', 'deadline => ''6 s''', 'max_failures => 7', 'max_lost => 8', 'jitter => ''9 s''',
		'queue => ''ten''']
	LOOP
		SELECT gen, to_jsonb(j) - '{gen,slots_from,change_id,changed_at,changed,mod_revision,gen_rev}'::text[]
			INTO old_gen, before FROM dsched.job j WHERE job_id = job;
		EXECUTE format('SELECT dsched.alter_job(%L::bigint, %s)', job, option);
		SELECT gen, to_jsonb(j) - '{gen,slots_from,change_id,changed_at,changed,mod_revision,gen_rev}'::text[]
			INTO new_gen, after FROM dsched.job j WHERE job_id = job;
		RAISE WARNING '%: %; new times: %', option,
			(SELECT string_agg(format('%s from %s to %s', a.key, before->a.key, a.value), ', ')
			 FROM jsonb_each(after) a WHERE a.value IS DISTINCT FROM before->a.key), old_gen <> new_gen;
	END LOOP;
END $$;
CALL alter_each(:full_id);
SELECT policy('full');
SELECT dsched.alter_job('full', overlap => 'skip', priority => 0, queue => 'eleven', command => 'SELECT 2') = :full_id AS altered;
SELECT policy('full');
SELECT dsched.alter_job('full', reset => '{misfire,misfire_grace,retry_max_delay,timeout,deadline,max_failures,max_lost,jitter,queue}') = :full_id AS altered;
SELECT policy('full');
SELECT dsched.alter_job('full', reset => '{overlap,max_attempts,retry_delay,priority}') = :full_id AS altered;
SELECT policy('full') = policy('plain') AS as_plain;

-- What is said of the one part stands with what was said of the other.
SELECT dsched.alter_job('full', max_attempts => 3, retry_delay => '20 minutes', retry_max_delay => '1 hour') = :full_id AS altered;
SELECT dsched.alter_job('full', reset => '{retry_max_delay}');
SELECT dsched.alter_job('full', retry_max_delay => '19 minutes');
SELECT dsched.alter_job('full', retry_delay => '61 minutes');
SELECT dsched.alter_job('full', max_attempts => 1) = :full_id AS altered;
SELECT dsched.alter_job('full', retry_delay => '21 minutes');
SELECT policy('full');

-- What looks like a contradiction and is none.
SELECT dsched.schedule('all of ten', '@every 1h', 'SELECT 1', overlap => 'queue_all', max_runs => 10) > 0 AS defined;
SELECT dsched.schedule('spread', '* * * * *', 'SELECT 1', jitter => '1 day', active => false) > 0 AS defined;
SELECT dsched.schedule('cut off', '0 3 * * *', 'SELECT 1', timeout => '10 days', overlap => 'cancel_running') > 0 AS defined;
SELECT dsched.schedule('boot', '@reboot', 'SELECT 1', overlap => 'queue_one', misfire => 'skip', active => false) > 0 AS defined;
SELECT dsched.schedule('short', '0 3 * * *', 'SELECT 1', misfire => 'all', misfire_grace => '1 h',
	starts_at => '2040-02-01', expires_at => '2040-02-02') > 0 AS defined;
SELECT dsched.schedule('defaults', '0 3 * * *', 'SELECT 1', overlap => 'skip', misfire => 'latest', misfire_grace => '1 minute', max_attempts => 1,
	retry_delay => '1 second', retry_max_delay => '10 minutes', timeout => NULL, priority => 0, deadline => NULL, max_failures => NULL,
	max_lost => 3, jitter => NULL, queue => NULL) > 0 AS defined;
SELECT policy('defaults') = policy('plain') AS as_plain;

-- Jobs that run once.
SELECT dsched.schedule_once('once', '2040-06-01 00:00+00', 'SELECT 1', max_attempts => 2, retry_delay => '1 min', retry_max_delay => '2 min',
	timeout => '3 min', priority => 4, deadline => '5 min', max_lost => 6, queue => 'seven') > 0 AS defined;
SELECT policy('once');
SELECT dsched.schedule_in('soon', '1 hour', 'SELECT 1', max_attempts => 2, retry_delay => '1 min', retry_max_delay => '2 min',
	timeout => '3 min', priority => 4, deadline => '5 min', max_lost => 6, queue => 'seven') > 0 AS defined;
SELECT policy('soon') = policy('once') AS as_once;
SELECT dsched.alter_job('once', max_attempts => 9, reset => '{timeout,queue}') > 0 AS altered;
SELECT policy('once');

-- Intervals in any style of the session are the same durations.
SET intervalstyle = 'sql_standard';
SET timezone = 'America/St_Johns';
SELECT dsched.alter_job('plain', timeout => '1 12:00:00') > 0 AS altered;
RESET intervalstyle;
SET timezone = 'UTC';
SELECT timeout FROM dsched.jobs WHERE job_name = 'plain';

-- Rows that were written by hand may say anything: the job does not run, says why, and can be mended.
UPDATE dsched.job SET timeout = '-1 s' WHERE job_name = 'plain';
UPDATE dsched.job SET jitter = '1 month' WHERE job_name = 'all of ten';
UPDATE dsched.job SET max_attempts = -2147483648, active = true WHERE job_name = 'spread';
UPDATE dsched.job SET retry_delay = '2147483647 days' WHERE job_name = 'cut off';
UPDATE dsched.job SET queue = repeat('q', 64) WHERE job_name = 'short';
UPDATE dsched.job SET misfire_grace = '1 day', deadline = '1 day 1 hour' WHERE job_name = 'defaults';
\set VERBOSITY terse
UPDATE dsched.job SET overlap = 'sometimes' WHERE job_name = 'defaults';
UPDATE dsched.job SET misfire = 'never' WHERE job_name = 'defaults';
UPDATE dsched.job SET misfire = NULL WHERE job_name = 'defaults';
\set VERBOSITY default
SELECT dsched.adopt();
CALL rest();
SELECT job_name, problem FROM dsched.jobs WHERE problem IS NOT NULL ORDER BY job_name;
SELECT misfire_grace, deadline FROM dsched.jobs WHERE job_name = 'defaults';
SELECT dsched.pause('all of ten') > 0 AS paused;
SELECT dsched.alter_job('all of ten', command => 'SELECT 2');
SELECT dsched.alter_job('all of ten', jitter => '1 h') > 0 AS altered;
SELECT dsched.alter_job('plain', reset => '{timeout}') > 0 AS altered;
SELECT dsched.alter_job('spread', max_attempts => 2) > 0 AS altered;
SELECT dsched.alter_job('cut off', reset => '{retry_delay}') > 0 AS altered;
SELECT dsched.alter_job('short', queue => 'q') > 0 AS altered;
CALL rest();
SELECT job_name, problem FROM dsched.jobs WHERE problem IS NOT NULL ORDER BY job_name;

CALL tidy();
DROP FUNCTION policy(text);
DROP PROCEDURE alter_each(bigint);
SELECT dsched.drop_queue(name) FROM dsched.queues;
