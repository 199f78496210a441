-- Every time zone of the server: the slots around the changes of its offset from 1990 to 2037, and in the years about
-- 2100 where only a rule is left of the zone's file, compared with those that are found by looking at the wall clock
-- every quarter of an hour and at the change, by PostgreSQL's own AT TIME ZONE.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET jit = off;
SET work_mem = '64MB';

-- When the offset changed, to the second: found by looking every ten days, and then in ever smaller steps.
CREATE FUNCTION change_between(zone text, before timestamptz, after timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
	first_offset interval := before AT TIME ZONE zone - before AT TIME ZONE 'UTC';
	middle timestamptz;
BEGIN
	WHILE after - before > interval '1 second' LOOP
		middle := to_timestamp(floor(extract(epoch FROM before + (after - before) / 2)));
		IF middle AT TIME ZONE zone - middle AT TIME ZONE 'UTC' = first_offset THEN
			before := middle;
		ELSE
			after := middle;
		END IF;
	END LOOP;
	RETURN after;
END $$;

CREATE TEMP TABLE change AS
	SELECT zone, change_between(zone, t - interval '10 days', t) AS at
	FROM (SELECT name AS zone, t, t AT TIME ZONE name - t AT TIME ZONE 'UTC' AS utc_offset,
				lag(t AT TIME ZONE name - t AT TIME ZONE 'UTC') OVER (PARTITION BY name, first ORDER BY t) AS last_offset
			FROM pg_timezone_names, (VALUES (timestamptz '1990-01-01', timestamptz '2038-01-01'), ('2098-01-01', '2101-01-01')) era (first, last),
				generate_series(first, last, '10 days') t) looks
	WHERE utc_offset <> last_offset;

-- Many names are one zone: for each name two changes are looked at, and for each zone twenty, and all that are not by an
-- hour. A zone that never changed has one moment all the same.
CREATE TEMP TABLE moment AS
	WITH history AS (
		SELECT name AS zone, array_agg(at || ' ' || at AT TIME ZONE name ORDER BY at)::text AS changes
		FROM pg_timezone_names LEFT JOIN change ON name = zone GROUP BY name),
	example AS (
		SELECT min(zone) AS zone FROM history GROUP BY changes)
	SELECT zone, at, clock, clock_before
	FROM (SELECT *, extract(epoch FROM clock - clock_before) AS shift, row_number() OVER (PARTITION BY zone ORDER BY md5(zone || at)) AS n
			FROM change, LATERAL (SELECT at AT TIME ZONE zone AS clock,
				(at - interval '1 second') AT TIME ZONE zone + interval '1 second' AS clock_before) clocks) c
	WHERE n <= 2 OR zone IN (SELECT zone FROM example) AND (n <= 20 OR abs(shift) <> 3600)
	UNION ALL
	SELECT name, t, t AT TIME ZONE name, t AT TIME ZONE name
	FROM pg_timezone_names, (VALUES (timestamptz '2040-03-01 00:00')) v(t)
	WHERE name NOT IN (SELECT zone FROM change);

-- What is tried there: times in the middle of what the clock skips or shows twice, at its ends, near it; by the wall clock
-- and by elapsed time. "day" is the only local date that matches, if there is one.
CREATE TEMP TABLE trial AS
	SELECT m.zone, m.at, date_bin('15 minutes', m.at, 'epoch') - interval '3 hours' AS first, m.at + interval '6 hours' AS last, p.*
	FROM moment m,
		LATERAL (SELECT to_timestamp(round(extract(epoch FROM clock_before + (clock - clock_before) / 2) / 900) * 900) AT TIME ZONE 'UTC' AS x) middle,
		LATERAL (SELECT extract(minute FROM x)::int AS mi, extract(hour FROM x)::int AS h, extract(day FROM x)::int AS d,
				extract(month FROM x)::int AS mo, extract(year FROM x)::int AS y, extract(hour FROM clock)::int AS h1) f,
		LATERAL (VALUES
			(format('%s %s * * *', mi, h), true, ARRAY[mi], ARRAY[h], NULL::date),
			(format('*/15 %s,%s,%s * * *', (h + 23) % 24, h, h1), true, '{0,15,30,45}', ARRAY[(h + 23) % 24, h, h1], NULL),
			(format('0 %s %s %s %s ? %s', mi, h, d, mo, y), true, ARRAY[mi], ARRAY[h], x::date),
			(format('0 0 %s,%s * * %s', h, h1, extract(dow FROM x)), true, '{0}', ARRAY[h, h1], x::date),
			('*/15 * * * *', false, '{0,15,30,45}', ARRAY(SELECT generate_series(0, 23)), NULL),
			(format('%s */2 * * *', mi), false, ARRAY[mi], ARRAY(SELECT generate_series(0, 22, 2)), NULL)
		) p (schedule, wall_clock, minutes, hours, day);

CREATE FUNCTION matches(x timestamp, minutes int[], hours int[], day date) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT extract(minute FROM x) = ANY (minutes) AND extract(hour FROM x) = ANY (hours) AND (day IS NULL OR x::date = day)
$$;

-- By the wall clock, a slot is where the clock first shows a time of the schedule or more; otherwise it is
-- wherever it shows one.
CREATE TEMP TABLE outcome AS
	SELECT *, ARRAY(SELECT s FROM dsched.preview(schedule, zone, first, greatest(cardinality(wanted), 1) + 1) s WHERE s <= last) AS got
	FROM (
		SELECT *, ARRAY(
			SELECT t
			FROM (SELECT t, t AT TIME ZONE zone AS clock,
						max(t AT TIME ZONE zone) OVER (ORDER BY t ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS shown
					FROM (SELECT generate_series(first, last, '15 minutes') AS t UNION SELECT at) s) g
			WHERE t > first AND
				CASE WHEN NOT wall_clock OR clock - shown = '15 minutes' THEN matches(clock, minutes, hours, day)
					ELSE EXISTS (SELECT FROM generate_series(date_bin('15 minutes', shown, 'epoch') + interval '15 minutes', clock, '15 minutes') x
						WHERE matches(x, minutes, hours, day)) END
			ORDER BY t) AS wanted
		FROM trial) w;

-- None that differs, from every zone, and most of them with slots.
SELECT zone, schedule, first, wanted, got FROM outcome WHERE got <> wanted ORDER BY zone, first, schedule LIMIT 20;
SELECT count(DISTINCT zone) >= 300 AS many_zones, count(DISTINCT zone) = (SELECT count(*) FROM pg_timezone_names) AS all_zones,
	count(DISTINCT (zone, first)) >= 2000 AS many_changes, avg((wanted <> '{}')::int) > 0.5 AS with_slots
FROM outcome;

DROP FUNCTION change_between, matches;
