-- The times of schedules: calendars, intervals, zones and daylight saving, through dsched.preview().
\set ECHO none
\i clock.psql
\set ECHO all
CALL go('2040-01-01 00:00:30');

-- By default the next ten, in dsched.timezone.
SELECT * FROM dsched.preview('*/7 * * * *');
SELECT * FROM dsched.preview('@daily', count => 2);
SELECT * FROM dsched.preview('@daily', 'Europe/Berlin', count => 2);

-- "after" is exclusive; fractions of seconds are no trouble.
SELECT * FROM dsched.preview('* * * * *', after => '2040-01-01 00:05:00', count => 1);
SELECT * FROM dsched.preview('* * * * *', after => '2040-01-01 00:04:59.999999', count => 1);
SELECT * FROM dsched.preview('* * * * * *', after => '2040-01-01 00:04:59.5', count => 3);

-- Fields, names, lists, ranges, steps; day of month or day of week.
SELECT * FROM dsched.preview('30 2,14 * * *', after => '2040-01-01', count => 3);
SELECT * FROM dsched.preview('0 9-17/4 * * mon-fri', after => '2040-01-06', count => 4);
SELECT * FROM dsched.preview('0 0 29 feb *', after => '2040-01-01', count => 3);
SELECT * FROM dsched.preview('0 0 13 * FRI', after => '2040-01-01', count => 5);
SELECT * FROM dsched.preview('0 0 31 * *', after => '2040-01-01', count => 4);
SELECT * FROM dsched.preview('15,45 30 23 31 12 *', after => '2040-01-01', count => 3);
SELECT * FROM dsched.preview('0 0 * * 7', after => '2040-01-01', count => 2);
SELECT * FROM dsched.preview('5/20 0 1 1 *', after => '2040-01-01', count => 4);

-- Nicknames.
SELECT s, (SELECT array_agg(p) FROM dsched.preview(s, after => '2040-02-15', count => 2) p)
FROM unnest('{@yearly,@annually,@monthly,@weekly,@daily,@midnight,@hourly}'::text[]) s;

-- Intervals count from the definition, here from "after".
SELECT * FROM dsched.preview('90 minutes', after => '2040-01-01 00:00:30', count => 3);
SELECT * FROM dsched.preview('@every 1h0m5s', after => '2040-01-01', count => 3);
SELECT * FROM dsched.preview('30 seconds', after => '2040-01-01', count => 2);

-- Berlin leaps from 02:00 to 03:00 on 2040-03-25 and back from 03:00 to 02:00 on 2040-10-28.
SET timezone = 'Europe/Berlin';
-- A time in the gap runs once, right after it.
SELECT * FROM dsched.preview('30 2 * * *', 'Europe/Berlin', '2040-03-24 00:00', 3);
SELECT * FROM dsched.preview('0,15,30,45 2 25 3 *', 'Europe/Berlin', '2040-03-24 00:00', 2);
-- A time that comes twice runs at the first of the two.
SELECT * FROM dsched.preview('30 2 * * *', 'Europe/Berlin', '2040-10-27 00:00', 3);
-- Every hour is every hour of elapsed time.
SELECT * FROM dsched.preview('0 * * * *', 'Europe/Berlin', '2040-03-25 00:30', 3);
SELECT * FROM dsched.preview('0 * * * *', 'Europe/Berlin', '2040-10-28 01:30+02', 4);
SELECT * FROM dsched.preview('0 */2 * * *', 'Europe/Berlin', '2040-03-25 00:30', 2);
SELECT * FROM dsched.preview('1 hour', 'Europe/Berlin', '2040-10-28 01:30+02', 3);
-- Noon stays noon.
SELECT * FROM dsched.preview('0 12 * * *', 'Europe/Berlin', '2040-03-24 00:00', 2);
RESET timezone;
SET timezone = 'UTC';

-- Zones that shift by half an hour, skip a day, have no daylight saving, or are named in the schedule.
SELECT * FROM dsched.preview('15 2 * * *', 'Australia/Lord_Howe', '2040-10-06 00:00+11', 3);
SELECT * FROM dsched.preview('0 12 * * *', 'Pacific/Apia', '2011-12-29 00:00-10', 3);
SELECT * FROM dsched.preview('0 9 * * *', 'Asia/Kolkata', '2040-01-01', 1);
SELECT * FROM dsched.preview('TZ=America/New_York 0 9 * * *', after => '2040-07-01', count => 1);
SELECT * FROM dsched.preview('CRON_TZ=asia/tokyo 0 9 * * *', 'Asia/Tokyo', after => '2040-07-01', count => 1);

-- Days that depend on the month, and years.
SELECT * FROM dsched.preview('0 0 L * *', 'UTC', '2040-01-15', 3);
SELECT * FROM dsched.preview('0 0 L-1,$ * *', 'UTC', '2040-02-01', 3);
SELECT * FROM dsched.preview('0 0 LW * *', 'UTC', '2040-03-01', 3);
SELECT * FROM dsched.preview('0 0 15W * *', 'UTC', '2040-01-01', 3);
SELECT * FROM dsched.preview('30 2 * * FRI#L', 'Europe/Berlin', '2040-03-01', 3);
SELECT * FROM dsched.preview('0 0 13 * +FRI', 'UTC', '2040-01-01', 3);
SELECT * FROM dsched.preview('0 0 0 29 2 +MON 2096-2199', 'UTC', '2040-01-01', 5);

-- The far past and the end of the calendar.
SELECT * FROM dsched.preview('0 0 1 1 *', 'Europe/Berlin', '1850-06-01', 1);
SELECT * FROM dsched.preview('0 0 1 1 *', after => '4713-01-01 BC', count => 1);
SELECT * FROM dsched.preview('0 0 1 1 *', after => '2197-06-01', count => 10);
SELECT * FROM dsched.preview('0 0 1 1 *', after => '290000-01-01');
SELECT * FROM dsched.preview('0 12 * * *', 'Europe/Berlin', '2199-06-30', 1);

-- Only what is asked for is computed.
SELECT * FROM dsched.preview('* * * * *', count => 100000) LIMIT 1;
