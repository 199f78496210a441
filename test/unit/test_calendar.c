/*
 * test_calendar.c
 *	  Unit tests of the slots of schedules (core/calendar).
 *
 * Tables say which slots follow a moment; they were written by hand, from the history of the zones.
 * The days that depend on the month are compared with a walk through each month of the calendar.
 * Random patterns are compared with an oracle that knows nothing of fields, months and spans: it
 * steps through every minute (or second) around a change of a zone's offset and keeps a mark for each
 * local time that the clock has shown.
 *
 * DSCHED_SEED repeats a run of the random tests; the seed of each run is printed. What slots cost is
 * printed too.
 */
#include <stdlib.h>
#include <time.h>

#include "core/calendar.h"
#include "core/cron.h"
#include "core/cron_days.h"
#include "random.h"
#include "tap.h"
#include "zones.h"

static bool
one_in(int n)
{
	return random_between(1, n) == 1;
}

static int64_t
milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------------------------------------
 * Slots, from tables. All times are UTC.
 */

static const struct
{
	const char *what;
	const char *schedule;
	const char *zone;
	const char *after;
	const char *slots; /* "none": and no more */
} slot_tests[] = {
	{"strictly after", "0 0 * * *", "UTC", "2024-01-01T00:00", "2024-01-02T00:00 2024-01-03T00:00"},
	{"a second before", "0 0 * * *", "UTC", "2023-12-31T23:59:59", "2024-01-01T00:00"},
	{"seconds", "*/20 * * * * *", "UTC", "2024-01-01T00:00:05",
	 "2024-01-01T00:00:20 2024-01-01T00:00:40 2024-01-01T00:01"},
	{"carry over everything", "59 59 23 31 12 *", "UTC", "2024-12-31T23:59:59",
	 "2025-12-31T23:59:59"},
	{"short months are skipped", "0 0 31 * *", "UTC", "2024-01-31T00:00",
	 "2024-03-31T00:00 2024-05-31T00:00 2024-07-31T00:00 2024-08-31T00:00"},
	{"either day of month or weekday", "0 0 13 * FRI", "UTC", "2024-09-01T00:00",
	 "2024-09-06T00:00 2024-09-13T00:00 2024-09-20T00:00 2024-09-27T00:00 2024-10-04T00:00 "
	 "2024-10-11T00:00 2024-10-13T00:00"},
	{"both, by a plus", "0 0 13 * +FRI,SUN", "UTC", "2024-09-01T00:00",
	 "2024-09-13T00:00 2024-10-13T00:00 2024-12-13T00:00"},
	{"leap days", "0 0 29 2 *", "UTC", "2024-02-29T00:00", "2028-02-29T00:00 2032-02-29T00:00"},
	{"no leap day in 2100", "0 0 29 2 *", "UTC", "2096-02-29T00:00", "2104-02-29T00:00"},
	{"the last of February", "0 0 L 2 *", "UTC", "2096-01-01T00:00",
	 "2096-02-29T00:00 2097-02-28T00:00 2098-02-28T00:00 2099-02-28T00:00 2100-02-28T00:00 "
	 "2101-02-28T00:00"},
	{"a fifth Monday of February", "0 0 * 2 MON#5", "UTC", "2024-03-01T00:00",
	 "2044-02-29T00:00 2072-02-29T00:00 2112-02-29T00:00"},
	{"a leap day on a Monday late in the calendar", "0 0 0 29 2 +MON#5 2096-2199", "Europe/Berlin",
	 "2024-01-01T00:00",
	 "2112-02-28T23:00 2140-02-28T23:00 2168-02-28T23:00 2196-02-28T23:00 none"},
	{"a leap day or a fifth Monday", "0 0 0 29 2 MON#5 2096-2104", "UTC", "2024-01-01T00:00",
	 "2096-02-29T00:00 2104-02-29T00:00 none"},
	{"one date only", "0 30 12 24 12 ? 2087", "America/New_York", "1990-01-01T00:00",
	 "2087-12-24T17:30 none"},
	{"odd years", "0 0 0 1 1 * 1971-2199/2", "UTC", "2025-01-01T00:00",
	 "2027-01-01T00:00 2029-01-01T00:00"},
	{"years over a gap in them", "0 0 12 31 12 * 2030,2199", "UTC", "2026-01-01T00:00",
	 "2030-12-31T12:00 2199-12-31T12:00 none"},
	{"a leap day in 2000", "0 0 29 2 *", "UTC", "1996-02-29T00:00", "2000-02-29T00:00"},
	{"leap days on Sunday: 28 and 40 years", "0 0 29 2 +SUN", "UTC", "2024-02-29T00:00",
	 "2032-02-29T00:00 2060-02-29T00:00 2088-02-29T00:00 2128-02-29T00:00 2156-02-29T00:00 "
	 "2184-02-29T00:00 none"},
	{"leap days on Sunday, with daylight saving", "0 0 29 2 +SUN", "Europe/Berlin",
	 "2088-03-01T00:00", "2128-02-28T23:00"},
	{"the calendar ends", "0 0 1 1 *", "UTC", "2197-06-01T00:00",
	 "2198-01-01T00:00 2199-01-01T00:00 none"},
	{"the calendar begins", "0 12 1 3 *", "UTC", "1895-06-01T00:00",
	 "1970-03-01T12:00 1971-03-01T12:00 1972-03-01T12:00"},
	{"the calendar begins in the east", "0 0 * * *", "Asia/Kathmandu", "1895-06-01T00:00",
	 "1969-12-31T18:30 1970-01-01T18:30"},
	{"the calendar begins in the west", "0 0 * * *", "America/New_York", "1895-06-01T00:00",
	 "1970-01-01T05:00 1970-01-02T05:00"},
	{"the calendar ends in the west", "0 0 20 31 12 * 2199", "America/New_York", "2026-01-01T00:00",
	 "2200-01-01T01:00 none"},
	{"the calendar ends in the east", "0 20 * * *", "Asia/Kathmandu", "2199-12-30T00:00",
	 "2199-12-30T14:15 2199-12-31T14:15 none"},
	{"an odd offset", "0 9 * * 1-5", "Asia/Kathmandu", "2024-01-05T12:00",
	 "2024-01-08T03:15 2024-01-09T03:15"},

	{"gap", "30 2 * * *", "Europe/Berlin", "2024-03-30T00:00",
	 "2024-03-30T01:30 2024-03-31T01:00 2024-04-01T00:30"},
	{"gap, from its last second", "30 2 * * *", "Europe/Berlin", "2024-03-31T00:59:59",
	 "2024-03-31T01:00 2024-04-01T00:30"},
	{"gap, from its end", "30 2 * * *", "Europe/Berlin", "2024-03-31T01:00", "2024-04-01T00:30"},
	{"gap: several slots are one", "0,15,30 2 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-04-01T00:00 2024-04-01T00:15"},
	{"gap: one with a slot at its end", "0,30 2,3 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-03-31T01:30 2024-04-01T00:00"},
	{"gap: a slot at its end only", "0 3 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-04-01T01:00"},
	{"gap: not on this date", "30 2 1 * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-04-01T00:30"},
	{"gap, elapsed: every hour", "30 * * * *", "Europe/Berlin", "2024-03-31T00:00",
	 "2024-03-31T00:30 2024-03-31T01:30 2024-03-31T02:30"},
	{"gap, elapsed: every other hour", "0 */2 * * *", "Europe/Berlin", "2024-03-30T22:30",
	 "2024-03-30T23:00 2024-03-31T02:00 2024-03-31T04:00"},
	{"overlap", "30 2 * * *", "Europe/Berlin", "2024-10-26T12:00",
	 "2024-10-27T00:30 2024-10-28T01:30"},
	{"overlap, between the two", "30 2 * * *", "Europe/Berlin", "2024-10-27T00:45",
	 "2024-10-28T01:30"},
	{"overlap, from its start", "0 2,3 * * *", "Europe/Berlin", "2024-10-26T12:00",
	 "2024-10-27T00:00 2024-10-27T02:00 2024-10-28T01:00"},
	{"overlap, elapsed: every hour", "30 * * * *", "Europe/Berlin", "2024-10-27T00:00",
	 "2024-10-27T00:30 2024-10-27T01:30 2024-10-27T02:30"},
	{"overlap, elapsed: every other hour", "0 */2 * * *", "Europe/Berlin", "2024-10-26T22:30",
	 "2024-10-27T00:00 2024-10-27T01:00 2024-10-27T03:00"},
	{"overlap, elapsed: all hours as a range", "30 0-23 * * *", "Europe/Berlin", "2024-10-27T00:00",
	 "2024-10-27T00:30 2024-10-27T01:30"},

	{"half an hour's gap", "15 2 * * *", "Australia/Lord_Howe", "2024-10-05T00:00",
	 "2024-10-05T15:30 2024-10-06T15:15"},
	{"half an hour's overlap", "45 1 * * *", "Australia/Lord_Howe", "2024-04-06T00:00",
	 "2024-04-06T14:45 2024-04-07T15:15"},
	{"half an hour's overlap, elapsed", "45 * * * *", "Australia/Lord_Howe", "2024-04-06T14:00",
	 "2024-04-06T14:45 2024-04-06T15:15 2024-04-06T16:15"},
	{"midnight in a gap", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00",
	 "2018-11-04T03:00 2018-11-05T02:00"},
	{"midnight in a gap, @daily", "@daily", "Asia/Beirut", "2024-03-30T12:00",
	 "2024-03-30T22:00 2024-03-31T21:00"},
	{"midnight in a gap, by weekday", "30 0 * * SUN", "America/Sao_Paulo", "2018-11-03T12:00",
	 "2018-11-04T03:00 2018-11-11T02:30"},
	{"midnight ends an overlap", "0 0 * * *", "America/Sao_Paulo", "2018-02-17T12:00",
	 "2018-02-18T03:00 2018-02-19T03:00"},
	{"the hour before midnight twice", "30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00",
	 "2018-02-18T01:30 2018-02-19T02:30"},
	{"a day skipped", "0 10 * * *", "Pacific/Apia", "2011-12-29T00:00",
	 "2011-12-29T20:00 2011-12-30T10:00 2011-12-30T20:00 2011-12-31T20:00"},
	{"a day skipped, that date only", "0 10 30 12 *", "Pacific/Apia", "2011-12-01T00:00",
	 "2011-12-30T10:00 2012-12-29T20:00"},
	{"a day skipped, elapsed", "0 */6 30 12 *", "Pacific/Apia", "2011-12-01T00:00",
	 "2012-12-29T10:00 2012-12-29T16:00"},
	{"a day skipped, Kwajalein", "0 12 * * *", "Pacific/Kwajalein", "1993-08-19T12:00",
	 "1993-08-20T00:00 1993-08-21T00:00 1993-08-21T12:00 1993-08-22T00:00"},
	{"a day skipped, last but one of its month", "0 10 L-1 12 *", "Pacific/Apia", "2011-12-01T00:00",
	 "2011-12-30T10:00 2012-12-29T20:00"},
	{"a day skipped, last Friday of its month", "0 10 * 12 FRI#L", "Pacific/Apia",
	 "2011-12-01T00:00", "2011-12-30T10:00 2012-12-27T20:00"},
	{"a day skipped, of that year only", "0 0 10 30 12 * 2011", "Pacific/Apia", "2011-12-01T00:00",
	 "2011-12-30T10:00 none"},
	{"a day skipped, elapsed, of that year only", "0 0 */6 30 12 * 2011", "Pacific/Apia",
	 "2011-12-01T00:00", "none"},
	{"first Sunday, its midnight in a gap", "0 0 * 11 SUN#1", "America/Sao_Paulo",
	 "2018-10-01T00:00", "2018-11-04T03:00 2019-11-03T03:00"},
	{"last of the month, its midnight in a gap", "0 0 L 3 *", "Asia/Beirut", "2024-03-01T00:00",
	 "2024-03-30T22:00 2025-03-30T21:00"},
	{"last of the month, in a gap", "30 2 L * *", "Europe/Berlin", "2024-03-01T00:00",
	 "2024-03-31T01:00 2024-04-30T00:30"},
	{"last of the month, in an overlap", "30 2 $ * *", "Europe/Berlin", "2027-10-01T00:00",
	 "2027-10-31T00:30 2027-11-30T01:30"},
	{"last of the month, of 25 hours", "0 0 L 10,11 *", "Europe/Berlin", "2027-10-01T00:00",
	 "2027-10-30T22:00 2027-11-29T23:00"},
	{"last of the month, of 25 hours, elapsed", "30 */2 L 10 *", "Europe/Berlin",
	 "2027-10-30T21:59", "2027-10-30T22:30 2027-10-31T00:30 2027-10-31T01:30 2027-10-31T03:30"},
	{"daylight saving that is negative, back", "30 2 * * *", "Africa/Casablanca",
	 "2024-03-09T12:00", "2024-03-10T01:30 2024-03-11T02:30"},
	{"daylight saving that is negative, forward", "30 2 * * *", "Africa/El_Aaiun",
	 "2024-04-13T12:00", "2024-04-14T02:00 2024-04-15T01:30"},
	{"winter time that is daylight saving, forward", "30 1 * * *", "Europe/Dublin",
	 "2024-03-30T12:00", "2024-03-31T01:00 2024-04-01T00:30"},
	{"winter time that is daylight saving, back", "30 1 * * *", "Europe/Dublin",
	 "2024-10-26T12:00", "2024-10-27T00:30 2024-10-28T01:30"},
	{"two hours' gap", "15,45 1,2 * * *", "Antarctica/Troll", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-03-31T23:15"},
	{"two hours' overlap", "30 1,2 * * *", "Antarctica/Troll", "2024-10-26T12:00",
	 "2024-10-26T23:30 2024-10-27T00:30 2024-10-28T01:30"},
	{"an offset goes up for good", "45 23 * * *", "Asia/Pyongyang", "2018-05-04T00:00",
	 "2018-05-04T15:00 2018-05-05T14:45"},
	{"an offset goes down for good", "45 23 * * *", "Asia/Pyongyang", "2015-08-14T00:00",
	 "2015-08-14T14:45 2015-08-15T15:15"},
	{"Caracas 2016", "45 2 * * *", "America/Caracas", "2016-05-01T00:00",
	 "2016-05-01T07:00 2016-05-02T06:45"},
	{"from local mean time", "0 0 * * *", "Africa/Monrovia", "1972-01-06T00:00",
	 "1972-01-06T00:44:30 1972-01-07T00:44:30 1972-01-08T00:00"},
};

static void
test_slots(void)
{
	int i;

	for (i = 0; i < lengthof(slot_tests); i++)
	{
		Zone *zone = find_zone(slot_tests[i].zone);
		CalZone z = cal_zone(zone);
		int64_t t = from_iso(slot_tests[i].after);
		size_t want_len = strlen(slot_tests[i].slots);
		char got[512] = "";
		CronSchedule s;
		CronError err;

		if (!cron_parse(slot_tests[i].schedule, &s, &err))
			snprintf(got, sizeof(got), "%s", err.message);
		while (strlen(got) < want_len)
		{
			if (!calendar_next(&s, &z, 0, t, &t))
			{
				strcat(got, got[0] ? " none" : "none");
				break;
			}
			append_iso(got, sizeof(got), t);
		}
		is_str(got, slot_tests[i].slots, "%s: \"%s\" in %s", slot_tests[i].what,
			   slot_tests[i].schedule, zone->name);
	}
}

/* The slots up to 'end', relative to 'base', in minutes. */
static void
minutes_of_slots(const char *schedule, Zone *zone, int64_t base, int64_t after, int64_t end,
				 char *buf, size_t size)
{
	CalZone z = cal_zone(zone);
	CronSchedule s;
	CronError err;
	int64_t t = after;

	buf[0] = '\0';
	if (!cron_parse(schedule, &s, &err))
		return;
	while (strlen(buf) + 32 < size && calendar_next(&s, &z, 0, t, &t) && t <= end)
	{
		size_t len = strlen(buf);

		snprintf(buf + len, size - len, "%s%" PRId64, len > 0 ? " " : "", (t - base) / 60);
	}
}

/* Zones as no government has made them yet. */
static void
test_odd_zones(void)
{
	int64_t base = utc(2030, 1, 10);
	static Zone zone;
	char got[512];

	/* Back an hour from 01:00, ten minutes later forward two, to 02:10. */
	zone.name = "odd";
	zone.first_offset = 3600;
	add_change(&zone, base, 0);
	add_change(&zone, base + 600, 7200);
	minutes_of_slots("0,5,30 0-2 * * *", &zone, base, base - 3601, base + 7200, got, sizeof(got));
	is_str(got, "-60 -55 -30 10 30", "an overlap that ends in a gap, wall clock");
	minutes_of_slots("0,5,30 * * * *", &zone, base, base - 3601, base + 3600, got, sizeof(got));
	is_str(got, "-60 -55 -30 0 5 30 60", "an overlap that ends in a gap, elapsed");

	/* Back an hour twice within it: 01:00 to 00:00, and 00:30 to 23:30. */
	zone.nchanges = 0;
	add_change(&zone, base, 0);
	add_change(&zone, base + 1800, -3600);
	minutes_of_slots("0,45 0,1,23 * * *", &zone, base, base - 3600, base + 9000, got, sizeof(got));
	is_str(got, "-15 120", "an overlap within an overlap");

	/* Back from the largest offset that a file can have to nearly the smallest: two days. */
	zone.nchanges = 0;
	zone.first_offset = 93540;
	add_change(&zone, base, -89940);
	minutes_of_slots("30 1 * * *", &zone, base, base + 50 * 3600, base + 80 * 3600, got,
					 sizeof(got));
	is_str(got, "4469", "an overlap of two days");
	zone.first_offset = 3600;

	/* Changes that change nothing. */
	zone.nchanges = 0;
	add_change(&zone, base, 3600);
	add_change(&zone, base + 60, 3600);
	minutes_of_slots("*/30 0-2 * * *", &zone, base, base - 1, base + 3600, got, sizeof(got));
	is_str(got, "0 30 60", "changes of rule without a change of offset");
}

/* A zone that breaks its promise must not hang the server. */
static int32_t
broken_offset_at(void *arg, int64_t t, int64_t *until)
{
	(void) arg;
	*until = t;
	return 0;
}

static void
test_bounds(void)
{
	CalZone broken = {NULL, broken_offset_at};
	Zone *berlin = find_zone("Europe/Berlin");
	CalZone z = cal_zone(berlin);
	CronSchedule s;
	CronError err;
	int64_t slot;

	cron_parse("0 0 * * *", &s, &err);
	ok(!calendar_next(&s, &broken, 0, 0, &slot), "a zone whose rules never end");
	ok(!calendar_next(&s, &z, 0, INT64_MAX, &slot), "nothing after the end of time");
	ok(!calendar_next(&s, &z, 0, CALENDAR_END - 1, &slot), "nothing after the end of the calendar");
	ok(calendar_next(&s, &z, 0, INT64_MIN, &slot) && slot >= CALENDAR_BEGIN, "the first slot ever");
	ok(!calendar_nth(&s, &z, 0, 0, 0, &slot), "there is no slot number 0");
	ok(!calendar_nth(&s, &z, 0, 0, INT64_MAX, &slot), "nor one number INT64_MAX");

	cron_parse("0 0 29 2 +SUN", &s, &err);
	berlin->calls = 0;
	ok(calendar_next(&s, &z, 0, from_iso("2088-03-01T00:00"), &slot) && berlin->calls <= 100,
	   "40 years ask for the offset %d times", berlin->calls);
	memset(&s, 0, sizeof(s));
	ok(!calendar_next(&s, &z, 0, 0, &slot), "no slot of empty sets");
	cron_parse("@reboot", &s, &err);
	ok(!calendar_next(&s, &z, 0, 0, &slot), "no slot for @reboot");
}

static void
test_intervals(void)
{
	CronSchedule s;
	CronError err;
	int64_t slot = 0;

	cron_parse("30 seconds", &s, &err);
	ok(calendar_next(&s, NULL, 1000, 0, &slot), "an interval before its anchor");
	is_int(slot, 1030, "begins one interval after the anchor");
	ok(calendar_next(&s, NULL, 1000, 1000, &slot), "an interval at its anchor");
	is_int(slot, 1030, "begins one interval after it");
	calendar_next(&s, NULL, 1000, 1029, &slot);
	is_int(slot, 1030, "a second before");
	calendar_next(&s, NULL, 1000, 1030, &slot);
	is_int(slot, 1060, "strictly after");
	calendar_next(&s, NULL, -1000, -985, &slot);
	is_int(slot, -970, "before 1970");
	calendar_nth(&s, NULL, 1000, 1031, 1000000, &slot);
	is_int(slot, 1030 + 30000000, "the millionth");
	ok(!calendar_nth(&s, NULL, 1000, 1031, INT64_MAX, &slot), "there is a last one");
	ok(!calendar_next(&s, NULL, INT64_MIN, 0, &slot), "an anchor before all time");
	ok(!calendar_next(&s, NULL, INT64_MAX, 0, &slot), "an anchor after all time");
	ok(calendar_next(&s, NULL, 0, CALENDAR_END - 31, &slot), "the last slot of the calendar");
	is_int(slot, CALENDAR_END - 30, "is before its end");
	ok(!calendar_next(&s, NULL, 0, CALENDAR_END - 30, &slot), "and is the last");
}

static int64_t
count_of(const char *schedule, const char *zone, int64_t anchor, const char *after,
		 const char *until, int64_t limit)
{
	CalZone z = cal_zone(find_zone(zone));
	CronSchedule s;
	CronError err;

	if (!cron_parse(schedule, &s, &err))
		return -1;
	return calendar_count(&s, &z, anchor, from_iso(after), from_iso(until), limit);
}

static void
test_counts(void)
{
	const char *day = "2024-03-30T23:00";
	const char *next_day = "2024-03-31T22:00";
	CalZone broken = {NULL, broken_offset_at};
	CronSchedule s;
	CronError err;

	is_int(count_of("* * * * *", "Europe/Berlin", 0, day, next_day, 100000), 23 * 60,
		   "minutes of a day with a gap");
	is_int(count_of("* * * * * *", "Europe/Berlin", 0, "2024-10-26T22:00", "2024-10-27T23:00", 100000),
		   25 * 3600, "seconds of a day with an overlap");
	is_int(count_of("* 0-22 * * *", "Europe/Berlin", 0, "2024-10-26T21:59", "2024-10-27T22:59", 100000),
		   23 * 60, "minutes of the wall clock are there once");
	is_int(count_of("30 2 * * *", "Europe/Berlin", 0, day, next_day, 10), 1, "one in a gap");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-01T00:00", "2024-01-31T00:00", 1000), 30,
		   "the first moment does not count, the last does");
	is_int(count_of("0 0 * * *", "UTC", 0, "2023-12-31T23:59:59", "2024-01-30T23:59:59", 1000), 30,
		   "a second earlier it is the other way round");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-01T00:00", "2024-01-31T00:00", 30), 30,
		   "a limit that is reached");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-01T00:00", "2024-01-31T00:00", 29), 29,
		   "a limit that is exceeded");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-01T00:00", "2024-01-31T00:00", 0), 0, "limit 0");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-31T00:00", "2024-01-31T00:00", 9), 0, "no time");
	is_int(count_of("0 0 * * *", "UTC", 0, "2024-01-31T00:00", "2024-01-01T00:00", 9), 0,
		   "less than none");
	is_int(count_of("* * * * * *", "UTC", 0, "1970-01-01T00:00", "2199-12-31T23:59:59", INT64_MAX),
		   utc(2200, 1, 1) - 1, "all seconds of the calendar but the first");
	is_int(count_of("* * * * * *", "UTC", 0, "1900-01-01T00:00", "2300-01-01T00:00", INT64_MAX),
		   utc(2200, 1, 1), "and no more than these");
	is_int(count_of("0 0 29 2 *", "America/New_York", 0, "1970-01-01T00:00", "2199-12-31T00:00", 999),
		   56, "leap days of the calendar");
	is_int(count_of("0 0 29 2 +MON", "America/New_York", 0, "1970-01-01T00:00", "2199-12-31T00:00",
					999), 8, "leap days on a Monday");

	is_int(count_of("30 seconds", "UTC", 15, "1970-01-01T00:00", "1970-01-01T00:01:15", 9), 2,
		   "an interval has none at its anchor");
	is_int(count_of("30 seconds", "UTC", 15, "1970-01-01T00:00:45", "1970-01-01T00:01:45", 9), 2,
		   "an interval: after the one, up to the other");
	is_int(count_of("30 seconds", "UTC", 15, "1970-01-01T00:00", "2100-01-01T00:00", 9), 9,
		   "an interval with a limit");
	is_int(count_of("1 day", "UTC", from_iso("2030-01-01T00:00"), "1970-01-01T00:00",
					"2029-12-31T00:00", 9), 0, "an interval before its anchor");
	is_int(count_of("@reboot", "UTC", 0, "1970-01-01T00:00", "2199-12-31T00:00", 9), 0, "@reboot");

	cron_parse("1 second", &s, &err);
	is_int(calendar_count(&s, NULL, 0, INT64_MIN, INT64_MAX, INT64_MAX), CALENDAR_END - 1,
		   "an interval over all time");
	is_int(calendar_count(&s, NULL, INT64_MIN, INT64_MIN, INT64_MAX, 9), 0, "a wrong anchor");
	cron_parse("0 0 * * *", &s, &err);
	is_int(calendar_count(&s, &broken, 0, 0, INT64_MAX, 9), 0, "a zone whose rules never end");
}

static void
test_far_slots(void)
{
	int64_t start = from_iso("2024-01-01T00:00");
	CalZone z = cal_zone(find_zone("Europe/Berlin"));
	CronSchedule s;
	CronError err;
	int64_t slot = 0;
	int64_t t = start;
	int64_t began = milliseconds();
	int i;

	cron_parse("* * * * * *", &s, &err);
	ok(calendar_nth(&s, &z, 0, start, INT64_C(5000000000), &slot),
	   "slot 5000000000 of every second");
	is_int(slot, start + INT64_C(5000000000), "is that many seconds away, over all changes");
	ok(milliseconds() - began < 1000, "and was not counted one by one");

	cron_parse("0,30 2,3 * * *", &s, &err);
	for (i = 1; i <= 2000 && calendar_next(&s, &z, 0, t, &t); i++)
	{
		if (!calendar_nth(&s, &z, 0, start, i, &slot) || slot != t)
			break;
	}
	is_int(i, 2001, "the n-th slot is n times the next");
}

/* ---------------------------------------------------------------------------------------------
 * Days that depend on the month, for all months of the calendar
 */

/* A month, from the C library. */
typedef struct Month
{
	int year;
	int month;
	int length;
	int weekdays[32]; /* of days 1..length */
} Month;

static Month
month_of(int year, int month)
{
	Month m = {year, month, 0, {0}};
	int64_t t;

	for (t = utc(year, month, 1);; t += DAY)
	{
		time_t time = (time_t) t;
		struct tm tm;

		gmtime_r(&time, &tm);
		if (tm.tm_mon != month - 1)
			return m;
		m.weekdays[++m.length] = tm.tm_wday;
	}
}

static bool
is_working_day(const Month *m, int dom)
{
	return m->weekdays[dom] >= 1 && m->weekdays[dom] <= 5;
}

/* Search outwards, and on a tie (which there is not) backwards. */
static int
naive_nearest_weekday(const Month *m, int dom)
{
	int distance;

	for (distance = 0; dom <= m->length; distance++)
	{
		if (dom - distance >= 1 && is_working_day(m, dom - distance))
			return dom - distance;
		if (dom + distance <= m->length && is_working_day(m, dom + distance))
			return dom + distance;
	}
	return 0;
}

/* Of what is written, the day in this month, or 0. */
static int
naive_day(const Month *m, char kind, int n, int dow)
{
	int found = 0;
	int seen = 0;
	int dom;

	if (kind == 'L')
		return m->length - n >= 1 ? m->length - n : 0;
	if (kind == 'W')
		return naive_nearest_weekday(m, n);
	for (dom = 1; dom <= m->length; dom++)
	{
		bool counts = kind == 'w' ? is_working_day(m, dom) : m->weekdays[dom] == dow;

		if (!counts)
			continue;
		seen++;
		if (kind != '#' || seen == n)
			found = dom; /* of "LW" and "#L" the last */
	}
	return found;
}

/* Compare what a pattern's days are with the one that is expected, in all months. */
static void
all_months(char kind, int n, int dow, const char *pattern)
{
	CronSchedule s;
	CronError err;
	bool same = cron_parse(pattern, &s, &err);
	int year;
	int month;

	for (year = CRON_FIRST_YEAR; same && year <= CRON_LAST_YEAR; year++)
	{
		for (month = 1; same && month <= 12; month++)
		{
			Month m = month_of(year, month);
			int day = naive_day(&m, kind, n, dow);
			uint32_t days = cron_days_of_month(&s, year, month, utc(year, month, 1) / DAY);

			same = days == (day > 0 ? UINT32_C(1) << day : 0);
			if (!same)
				printf("# %d-%02d: got 0x%x, want day %d\n", year, month, days, day);
		}
	}
	ok(same, "\"%s\" in all months", pattern);
}

static void
test_months(void)
{
	char pattern[64];
	int dow;
	int n;

	for (n = 0; n <= 30; n++)
	{
		snprintf(pattern, sizeof(pattern), "0 0 L-%d * *", n);
		all_months('L', n, 0, pattern);
		snprintf(pattern, sizeof(pattern), "0 0 %dW * ?", n + 1);
		all_months('W', n + 1, 0, pattern);
	}
	all_months('L', 0, 0, "0 0 L * *");
	all_months('L', 0, 0, "0 0 $ * *");
	all_months('w', 0, 0, "0 0 LW * *");
	for (dow = 0; dow < 7; dow++)
	{
		for (n = 1; n <= 5; n++)
		{
			snprintf(pattern, sizeof(pattern), "0 0 * * %d#%d", n % 2 == 0 && dow == 0 ? 7 : dow, n);
			all_months('#', n, dow, pattern);
		}
		snprintf(pattern, sizeof(pattern), "0 0 * * %dL", dow);
		all_months('l', 0, dow, pattern);
		snprintf(pattern, sizeof(pattern), "0 0 1-31 * +%d#L", dow);
		all_months('l', 0, dow, pattern);
	}
}

/* ---------------------------------------------------------------------------------------------
 * What slots cost, as a comment: nothing here can fail
 */

static int64_t
nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void
show_costs(void)
{
	static const char *const patterns[] = {
		"* * * * *",	"0 3 * * *",	   "0 0 L * *",		 "0 0 29 2 *",
		"0 0 29 2 +MON", "0 0 0 29 2 MON#5 2096-2199", "0 0 0 29 2 +MON#5 2096-2199",
		"0 */2 31 12 +FRI", "0 0 0 31 12 ? 2199"};
	int64_t start = from_iso("2026-01-01T00:00");
	Zone *zone = find_zone("Europe/Berlin");
	CalZone z = cal_zone(zone);
	int i;

	for (i = 0; i < lengthof(patterns); i++)
	{
		CronSchedule s;
		CronError err;
		int64_t parsed = nanoseconds();
		int64_t began;
		int64_t slot = start;
		int64_t worst = 0;
		int slots = 0;

		cron_parse(patterns[i], &s, &err);
		began = nanoseconds();
		zone->calls = 0;
		while (slots < 1000)
		{
			int64_t call = nanoseconds();

			if (!calendar_next(&s, &z, 0, slots == 0 ? start : slot, &slot))
				break;
			slots++;
			call = nanoseconds() - call;
			worst = call > worst ? call : worst;
		}
		printf("# \"%s\": parsed in %.1f us, a slot in %.2f us (at most %.1f) with %.1f questions to the "
			   "zone\n", patterns[i], (double) (began - parsed) / 1000,
			   (double) (nanoseconds() - began) / 1000 / (slots + 1), (double) worst / 1000,
			   (double) zone->calls / (slots + 1));
	}
}

/* ---------------------------------------------------------------------------------------------
 * Random patterns and the oracle
 */

/* A pattern made at random: its text, and what it allows, known from the making. */
typedef struct Pattern
{
	char text[512];
	bool allowed[6][64];
	bool starred[6]; /* "*" or "?" alone */
	bool stepped[6];
	bool with_seconds;
} Pattern;

static const int field_min[6] = {0, 0, 0, 1, 1, 0};
static const int field_max[6] = {59, 59, 23, 31, 12, 6};

static void
append_value(char *text, int field, int value)
{
	static const char *const months[] = {"Jan", "feb", "MAR", "apr", "MAY", "jun",
										 "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
	static const char *const dows[] = {"SUN", "mon", "TUE", "Wed", "THU", "FRI", "sat"};

	if (field == 4 && one_in(2))
		strcat(text, months[value - 1]);
	else if (field == 5 && one_in(2))
		strcat(text, dows[value]);
	else
		sprintf(text + strlen(text), "%d", value);
}

/* Add "*", a, a-b, "*" "/n", a/n or a-b/n. */
static void
random_item(Pattern *p, int field)
{
	int min = field_min[field];
	int max = field_max[field];
	int low = (int) random_between(min, max);
	int high = (int) random_between(low, max);
	int step = 1;
	int form = (int) random_between(0, 9);
	int value;

	/* Hours about midnight are where the changes are. */
	if (field == 2 && one_in(2))
		low = (int) random_between(0, 3), high = (int) random_between(low, 4);
	if (form == 0)
	{
		strcat(p->text, (field == 3 || field == 5) && one_in(2) ? "?" : "*");
		p->stepped[field] = true;
		low = min;
		high = max;
	}
	else
	{
		append_value(p->text, field, low);
		if (form <= 5)
			high = low;
		else if (form <= 7)
		{
			strcat(p->text, "-");
			append_value(p->text, field, high);
		}
		else
			high = max;
	}
	if (form >= 8 || (form != 1 && form <= 5 ? form == 0 && one_in(2) : one_in(4) && form > 5))
	{
		step = (int) random_between(1, max);
		sprintf(p->text + strlen(p->text), "/%d", step);
		p->stepped[field] = true;
	}
	for (value = low; value <= high; value += step)
		p->allowed[field][value] = true;
}

static void
random_field(Pattern *p, int field, int star_of_ten)
{
	int items = one_in(2) ? 1 : (int) random_between(1, 4);
	const char *last;
	int i;

	if (p->text[0] != '\0')
		strcat(p->text, " ");
	if (random_between(1, 10) <= star_of_ten)
	{
		strcat(p->text, "*");
		p->starred[field] = p->stepped[field] = true;
		memset(p->allowed[field], true, sizeof(p->allowed[field]));
		return;
	}
	for (i = 0; i < items; i++)
	{
		if (i > 0)
			strcat(p->text, ",");
		random_item(p, field);
	}
	last = strrchr(p->text, ' ');
	last = last != NULL ? last + 1 : p->text;
	p->starred[field] = strcmp(last, "*") == 0 || strcmp(last, "?") == 0;
}

static void
random_pattern(Pattern *p, bool with_seconds, bool any_day)
{
	memset(p, 0, sizeof(*p));
	p->with_seconds = with_seconds;
	if (with_seconds)
		random_field(p, 0, 1);
	else
		p->allowed[0][0] = true;
	random_field(p, 1, 3);
	random_field(p, 2, 3);
	random_field(p, 3, any_day ? 9 : 4);
	random_field(p, 4, any_day ? 10 : 4);
	random_field(p, 5, any_day ? 8 : 4);
}

static bool
day_matches(const Pattern *p, int dom, int month, int dow)
{
	bool by_dom = p->allowed[3][dom];
	bool by_dow = p->allowed[5][dow];

	if (!p->allowed[4][month])
		return false;
	if (p->starred[3] || p->starred[5])
		return by_dom && by_dow;
	return by_dom || by_dow;
}

static bool
local_matches(const Pattern *p, int64_t local)
{
	time_t time = (time_t) local;
	struct tm tm;

	int64_t second = (local % 60 + 60) % 60;
	int64_t minute = ((local - second) / 60 % 60 + 60) % 60;

	if (!p->allowed[0][second] || !p->allowed[1][minute])
		return false;
	gmtime_r(&time, &tm);
	return p->allowed[2][tm.tm_hour] && day_matches(p, tm.tm_mday, tm.tm_mon + 1, tm.tm_wday);
}

static bool
names_wall_clock(const Pattern *p)
{
	int hours = 0;
	int i;

	for (i = 0; i < 24; i++)
		hours += p->allowed[2][i];
	return !p->stepped[2] && hours < 24;
}

#define WARM_UP (4 * DAY)	  /* what the oracle watches before it answers */
#define WINDOW (60 * 3600)	  /* what it answers for */
#define SLACK (2 * 26 * 3600) /* how far offsets can move local time in between */
#define MAX_SLOTS (WINDOW + 1)

static int64_t oracle_slots[MAX_SLOTS];

/*
 * All slots in start .. start + WINDOW - 1, by walking there. 'seen' has a mark for each local time
 * that the wall clock has shown, or has skipped and made up for.
 */
static int
oracle(const Pattern *p, Zone *zone, int64_t start, int step)
{
	static bool seen[WARM_UP + WINDOW + 2 * SLACK];
	bool wall_clock = names_wall_clock(p);
	int64_t first = start - WARM_UP;
	int64_t before = first - step + offset_of(zone, first - step);
	int64_t t;
	int64_t x;
	int count = 0;

	memset(seen, 0, sizeof(seen));
	for (t = first; t < start + WINDOW; t += step)
	{
		int64_t local = t + offset_of(zone, t);
		bool fires = false;

		for (x = wall_clock && before + step < local ? before + step : local; x <= local; x += step)
		{
			bool *mark = &seen[x - first + SLACK];

			if (t >= start && !fires && !(wall_clock && *mark))
				fires = local_matches(p, x);
			*mark = true;
		}
		if (fires)
			oracle_slots[count++] = t;
		before = local;
	}
	return count;
}

/* May the oracle step by minutes here? */
static bool
whole_minutes(Zone *zone, int64_t from, int64_t to)
{
	int64_t t = from;
	int64_t until;

	while (t < to)
	{
		if (zone_offset_at(zone, t, &until) % 60 != 0 || (until < to && until % 60 != 0))
			return false;
		t = until;
	}
	return true;
}

static bool
complain(const Pattern *p, Zone *zone, int64_t after, const char *what, int64_t got, int64_t want)
{
	char text[256] = "";

	append_iso(text, sizeof(text), after);
	append_iso(text, sizeof(text), got);
	append_iso(text, sizeof(text), want);
	printf("# \"%s\" in %s, %s: after, got, want: %s\n", p->text, zone->name, what, text);
	return false;
}

/* Compare the slots of a window with the oracle's: one after another, from anywhere, and the n-th.
 */
static bool
compare_window(const Pattern *p, const CronSchedule *s, Zone *zone, int64_t start, int count)
{
	CalZone z = cal_zone(zone);
	int64_t end = start + WINDOW;
	int64_t t = start - 1;
	int64_t slot;
	int i;

	for (i = 0; i <= count && i < 3000; i++)
	{
		int64_t want = i < count ? oracle_slots[i] : end;

		if (!calendar_next(s, &z, 0, t, &slot) || slot > end)
			slot = end;
		if (slot != want)
			return complain(p, zone, t, "next", slot, want);
		t = slot;
	}
	for (i = 0; i < 10 && count > 0; i++)
	{
		int n = (int) random_between(1, count);
		int64_t low = n == 1 ? start - 1 : oracle_slots[n - 2];
		int64_t after = random_between(low, oracle_slots[n - 1] - 1);

		if (!calendar_next(s, &z, 0, after, &slot) || slot != oracle_slots[n - 1])
			return complain(p, zone, after, "next from within", slot, oracle_slots[n - 1]);
		if (!calendar_nth(s, &z, 0, start - 1, n, &slot) || slot != oracle_slots[n - 1])
			return complain(p, zone, start - 1, "n-th", slot, oracle_slots[n - 1]);
		slot = calendar_count(s, &z, 0, after, oracle_slots[count - 1], MAX_SLOTS);
		if (slot != count - n + 1)
			return complain(p, zone, after, "count", slot, count - n + 1);
	}
	slot = calendar_count(s, &z, 0, start - 1, end - 1, MAX_SLOTS);
	if (slot != count)
		return complain(p, zone, start - 1, "count of all", slot, count);
	return true;
}

static bool
same_sets(const Pattern *p, const CronSchedule *s)
{
	uint64_t sets[6] = {s->seconds, s->minutes, s->hours, s->doms, s->months, s->dows};
	int field;
	int value;

	for (field = 0; field < 6; field++)
	{
		for (value = field_min[field]; value <= field_max[field]; value++)
		{
			if ((sets[field] >> value & 1) != p->allowed[field][value])
				return false;
		}
	}
	return s->dom_and_dow == (p->starred[3] || p->starred[5]) &&
		   s->wall_clock == names_wall_clock(p);
}

/* Parse a pattern and compare the sets with those it was made from. */
static bool
parse_pattern(const Pattern *p, CronSchedule *s)
{
	CronError err;

	if (!cron_parse(p->text, s, &err))
		printf("# \"%s\": %s\n", p->text, err.message);
	else if (!same_sets(p, s))
		printf("# \"%s\" was read differently\n", p->text);
	else
		return true;
	return false;
}

/* A random pattern around a random change of a random zone. */
static bool
random_window(void)
{
	Zone *zone = &zones[random_between(0, lengthof(zones) - 1)];
	int64_t middle = random_between(utc(1970, 1, 10), utc(2195, 1, 1));
	int64_t start;
	bool with_seconds = one_in(50);
	int step;
	Pattern p;
	CronSchedule s;

	if (zone->nchanges > 0 && !one_in(10))
		middle = zone->changes[random_between(0, zone->nchanges - 1)].at;
	if (middle < utc(1970, 1, 10) || middle > utc(2199, 1, 1))
		return true;
	start = middle - random_between(0, WINDOW);
	start -= (start % 60 + 60) % 60;
	random_pattern(&p, with_seconds, true);
	if (!parse_pattern(&p, &s))
		return false;
	step = !with_seconds && whole_minutes(zone, start - WARM_UP - 60, start + WINDOW) ? 60 : 1;
	return compare_window(&p, &s, zone, start, oracle(&p, zone, start, step));
}

static void
test_random_windows(int64_t for_ms)
{
	int64_t began = milliseconds();
	int windows = 0;
	bool same = true;

	while (same && milliseconds() - began < for_ms)
	{
		same = random_window();
		windows++;
	}
	ok(same, "random patterns around changes of offset agree with the oracle");
	printf("# %d windows\n", windows);
}

/* A random pattern of days over decades: each day is asked. */
static bool
random_days(void)
{
	CalZone z = cal_zone(find_zone("UTC"));
	int64_t day = utc((int) random_between(1970, 2140), 1, 1) / DAY + random_between(0, 365);
	int64_t last = day + 20000;
	int64_t after = day * DAY - 1;
	int64_t slot;
	Pattern p;
	CronSchedule s;
	CronError err;

	random_pattern(&p, false, false);
	if (!cron_parse(p.text, &s, &err))
		return strstr(err.message, "never runs") != NULL;
	s.minutes = s.hours = 1;
	for (; day < last; day++)
	{
		time_t time = (time_t) (day * DAY);
		struct tm tm;

		gmtime_r(&time, &tm);
		if (!day_matches(&p, tm.tm_mday, tm.tm_mon + 1, tm.tm_wday))
			continue;
		if (!calendar_next(&s, &z, 0, after, &slot) || slot != day * DAY)
			return complain(&p, &zones[0], after, "days", slot, day * DAY);
		after = slot;
	}
	return true;
}

static void
test_random_days(void)
{
	bool same = true;
	int i;

	for (i = 0; same && i < 60; i++)
		same = random_days();
	ok(same, "random patterns of days agree with asking each day");
}

/* ---------------------------------------------------------------------------------------------
 * The whole
 */

/* Is our reading of the zone files that of the C library? */
static void
test_zone_reader(void)
{
	int i;
	int j;

	for (i = 0; i < lengthof(zones); i++)
	{
		bool same = true;

		setenv("TZ", zone_names[i], 1);
		tzset();
		for (j = 0; same && j < 300; j++)
		{
			time_t t = (time_t) random_between(utc(1901, 12, 15), utc(2195, 1, 1));
			struct tm tm;

			if (zones[i].nchanges > 0 && one_in(2))
				t = (time_t) zones[i].changes[random_between(0, zones[i].nchanges - 1)].at +
					random_between(-2, 2);
			if (t < utc(1901, 12, 15))
				continue;
			localtime_r(&t, &tm);
			same = tm.tm_gmtoff == offset_of(&zones[i], t);
		}
		ok(same, "offsets of %s are the C library's", zone_names[i]);
	}
	unsetenv("TZ");
	tzset();
}

int
main(void)
{
	random_begin();
	if (!load_zones())
		return 1;
	test_zone_reader();
	test_slots();
	test_odd_zones();
	test_bounds();
	test_intervals();
	test_counts();
	test_far_slots();
	test_months();
	test_random_days();
	test_random_windows(3000);
	show_costs();
	return done();
}
