-- Nights on which the clocks are changed, and ends of months: run through by the test clock, not only previewed.
-- instance: policies
\set ECHO none
\i clock.psql
\set ECHO all
-- What ran, by the clock on the wall.
CREATE VIEW by_the_wall AS
	SELECT job_name, scheduled_for, to_char(scheduled_for AT TIME ZONE 'Europe/Berlin', 'Dy DD HH24:MI') AS berlin, status, slots, logged
	FROM outcomes;

--
-- [dst-spring] Spring: at 02:00 it is 03:00.  A time that the clock passes over runs at the first moment after it, once.
--
CALL go('2039-03-26 20:00:30');
SELECT dsched.schedule(name, schedule, :'logs', time_zone => 'Europe/Berlin') > 0 AS defined FROM (VALUES
	('nightly', '30 2 * * *'), ('twice', '15,45 2 * * *'), ('hourly', '30 * * * *'), ('half hours', '*/30 1-3 * * *'),
	('every 40', '40 minutes')) v (name, schedule);
CALL walk('2039-03-26 23:00', '2039-03-27 04:00', '5 minutes');
SELECT * FROM by_the_wall WHERE scheduled_for >= '2039-03-26 23:00+00' AND job_name <> 'every 40' ORDER BY 1, 2;
SELECT count(*), max(scheduled_for - before) AS longest, min(scheduled_for - before) AS shortest FROM (
	SELECT scheduled_for, lag(scheduled_for) OVER (ORDER BY scheduled_for) AS before FROM outcomes WHERE job_name = 'every 40' AND scheduled_for > '2039-03-26 23:00+00') o;
CALL tidy();

--
-- [dst-autumn] Autumn: at 03:00 it is 02:00 again.  A time that comes twice runs at the first of the two; those that follow time itself run in both hours.
--
CALL go('2039-10-29 21:00:30');
SELECT dsched.schedule(name, schedule, :'logs', time_zone => 'Europe/Berlin') > 0 AS defined FROM (VALUES
	('nightly', '30 2 * * *'), ('hourly', '30 * * * *'), ('half hours', '*/30 1-3 * * *')) v (name, schedule);
CALL walk('2039-10-29 23:00', '2039-10-30 03:00', '5 minutes');
SELECT * FROM by_the_wall WHERE scheduled_for >= '2039-10-29 23:00+00' ORDER BY 1, 2;
CALL tidy();

--
-- The whole night in one step, as after a stop: the same slots, by the misfire policy.
--
CALL go('2039-10-30 22:00:30');
SELECT dsched.schedule('nightly', '30 2 * * *', :'logs', time_zone => 'Australia/Lord_Howe', misfire => 'all') > 0 AS defined;
SELECT dsched.schedule('last', '0 12 L * *', :'logs', time_zone => 'Europe/Berlin', misfire => 'all') > 0 AS defined;
SELECT dsched.schedule('last friday', '0 12 * * FRI#L', :'logs', time_zone => 'Europe/Berlin', misfire => 'all') > 0 AS defined;
SELECT dsched.schedule('workday', '0 12 15W * *', :'logs', time_zone => 'Europe/Berlin', misfire => 'all') > 0 AS defined;
SELECT dsched.schedule('leap day', '0 12 29 2 *', :'logs', time_zone => 'Europe/Berlin', misfire => 'all') > 0 AS defined;
CALL go('2040-04-01 00:00:30');
SELECT to_char(scheduled_for AT TIME ZONE 'Australia/Lord_Howe', 'HH24:MI') AS howe, count(*), min(status), max(status) FROM outcomes
	WHERE job_name = 'nightly' GROUP BY 1 ORDER BY 1;
SELECT job_name, string_agg(to_char(scheduled_for AT TIME ZONE 'Europe/Berlin', 'Dy DD.MM.'), ', ' ORDER BY scheduled_for) FROM outcomes
	WHERE job_name <> 'nightly' GROUP BY 1 ORDER BY 1;
CALL tidy();
DROP VIEW by_the_wall;
