/*
 * calendar.c
 *	  Calculation of slots, field by field.
 *
 * A zone cuts time into spans in which local time runs evenly. Within one span the problem is a
 * calendar without time zones: local times in [lo, hi) whose fields match. There, days are found
 * month by month with a bit set of the days that match, and the times of a day are never walked at
 * all: they are the product of three sets, so that the n-th one, and the number of them before a
 * given time, are arithmetic. The work is bounded by the months and the rule changes up to
 * CALENDAR_END, also for schedules as rare as February 29th on certain weekdays.
 *
 * What happens at the seams between spans is the rule of calendar.h. For wall-clock schedules it is
 * kept in one number, the highest local time that the clock has shown so far: local times below it
 * have had their slot, and where a span begins above it, the times between are the ones that the
 * clock skipped.
 */
#include "core/calendar.h"

#include <stddef.h>

#define DAY_S 86400

/*
 * How far before 'after' the wall clock is watched, to know the highest time that it has shown.
 * Offsets in time zone files lie between -25 and +26 hours, so that nothing earlier than two days
 * and three hours can have shown a later time than the clock shows now.
 */
#define LOOK_BACK_S (3 * DAY_S)

/* Weekday of 1970-01-01, with Sunday as 0. */
#define EPOCH_WEEKDAY 4

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

static int
bit_count(uint64_t set)
{
	return __builtin_popcountll(set);
}

static int
lowest_bit(uint64_t set)
{
	return __builtin_ctzll(set);
}

/* The n-th member of a set, counted from 0; the set has one. */
static int
nth_bit(uint64_t set, int64_t n)
{
	while (n-- > 0)
		set &= set - 1;
	return lowest_bit(set);
}

/* How many members of a set are below 'value'. */
static int
bits_below(uint64_t set, int value)
{
	return bit_count(set & ((UINT64_C(1) << value) - 1));
}

static bool
has_bit(uint64_t set, int value)
{
	return (set >> value & 1) != 0;
}

/*
 * Days since 1970-01-01 of a date of the Gregorian calendar. Years are taken to begin in March, so
 * that the leap day is the last one and months need no table.
 */
static int64_t
days_from_date(int64_t year, int month, int dom)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = floor_div(y, 400);
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + dom - 1;
	int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + day_of_era - 719468;
}

/* The reverse of days_from_date. */
static void
date_from_days(int64_t days, int64_t *year, int *month, int *dom)
{
	int64_t shifted = days + 719468;
	int64_t era = floor_div(shifted, 146097);
	int64_t day_of_era = shifted - era * 146097;
	int64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t march_month = (5 * day_of_year + 2) / 153;

	*dom = (int) (day_of_year - (153 * march_month + 2) / 5 + 1);
	*month = (int) (march_month < 10 ? march_month + 3 : march_month - 9);
	*year = year_of_era + era * 400 + (*month <= 2 ? 1 : 0);
}

static int
days_in_month(int64_t year, int month)
{
	if (month == 2)
		return (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) ? 29 : 28;
	return 30 + ((month + month / 8) & 1);
}

/* The days 1..31 of a month that match day of month and day of week, as a set. */
static uint32_t
matching_days(const CronSchedule *s, int64_t year, int month, int64_t first_day)
{
	uint64_t in_month = (UINT64_C(1) << (days_in_month(year, month) + 1)) - 2;
	int shift = (int) ((first_day - floor_div(first_day, 7) * 7 + EPOCH_WEEKDAY) % 7);
	uint64_t week = (((uint64_t) s->dows >> shift) | ((uint64_t) s->dows << (7 - shift))) & 0x7f;
	uint64_t by_dow = (week | week << 7 | week << 14 | week << 21 | week << 28) << 1;
	uint64_t either = s->dom_and_dow ? (s->doms & by_dow) : (s->doms | by_dow);

	return (uint32_t) (either & in_month);
}

/* Move *day to the first matching day in *day .. last; false if there is none. */
static bool
next_day(const CronSchedule *s, int64_t *day, int64_t last)
{
	int64_t year;
	int month;
	int dom;

	date_from_days(*day, &year, &month, &dom);
	for (;;)
	{
		int64_t first_day = days_from_date(year, month, 1);
		uint32_t later_months = s->months & (UINT32_MAX << (month + 1));

		if (first_day > last)
			return false;
		if (has_bit(s->months, month))
		{
			uint32_t days = matching_days(s, year, month, first_day) & (UINT32_MAX << dom);

			if (days != 0)
			{
				*day = first_day + lowest_bit(days) - 1;
				return *day <= last;
			}
		}
		if (later_months == 0)
			year++;
		month = lowest_bit(later_months != 0 ? later_months : s->months);
		dom = 1;
	}
}

/* How many matching times of day lie before 'time' (seconds since midnight, up to DAY_S). */
static int64_t
times_before(const CronSchedule *s, int64_t time)
{
	int hour = (int) (time / 3600);
	int minute = (int) (time / 60 % 60);
	int64_t per_minute = bit_count(s->seconds);
	int64_t per_hour = bit_count(s->minutes) * per_minute;
	int64_t count = bits_below(s->hours, hour) * per_hour;

	if (!has_bit(s->hours, hour))
		return count;
	count += bits_below(s->minutes, minute) * per_minute;
	if (!has_bit(s->minutes, minute))
		return count;
	return count + bits_below(s->seconds, (int) (time % 60));
}

/* The n-th matching time of day, counted from 0. */
static int64_t
nth_time(const CronSchedule *s, int64_t n)
{
	int64_t per_minute = bit_count(s->seconds);
	int64_t per_hour = bit_count(s->minutes) * per_minute;

	return nth_bit(s->hours, n / per_hour) * 3600 +
		   nth_bit(s->minutes, n % per_hour / per_minute) * 60 +
		   nth_bit(s->seconds, n % per_minute);
}

/*
 * The n-th matching local time in [lo, hi), a stretch without seams. If there are fewer, returns
 * false with *n lowered by their number.
 */
static bool
nth_in_span(const CronSchedule *s, int64_t lo, int64_t hi, int64_t *n, int64_t *found)
{
	int64_t day = floor_div(lo, DAY_S);
	int64_t last = floor_div(hi - 1, DAY_S);

	for (; lo < hi && next_day(s, &day, last); day++)
	{
		int64_t midnight = day * DAY_S;
		int64_t from = lo > midnight ? lo - midnight : 0;
		int64_t to = hi < midnight + DAY_S ? hi - midnight : DAY_S;
		int64_t before = times_before(s, from);
		int64_t here = times_before(s, to) - before;

		if (*n <= here)
		{
			*found = midnight + nth_time(s, before + *n - 1);
			return true;
		}
		*n -= here;
	}
	return false;
}

static bool
any_in_span(const CronSchedule *s, int64_t lo, int64_t hi)
{
	int64_t n = 1;
	int64_t found;

	return nth_in_span(s, lo, hi, &n, &found);
}

/* The parser makes no empty set, but a loop without end is no answer to one. */
static bool
has_empty_set(const CronSchedule *s)
{
	bool days = s->dom_and_dow ? (s->doms != 0 && s->dows != 0) : (s->doms != 0 || s->dows != 0);

	return s->seconds == 0 || s->minutes == 0 || s->hours == 0 || s->months == 0 || !days;
}

/* offset_at(), with 'until' no later than the end of the calendar. */
static int32_t
offset_until(const CalZone *z, int64_t t, int64_t *until)
{
	int32_t offset = z->offset_at(z->arg, t, until);

	if (*until > CALENDAR_END)
		*until = CALENDAR_END;
	return offset;
}

static bool
fields_nth(const CronSchedule *s, const CalZone *z, int64_t after, int64_t n, int64_t *slot)
{
	int64_t t = s->wall_clock ? after - LOOK_BACK_S : after + 1;
	int64_t until;
	int64_t offset = offset_until(z, t, &until);
	int64_t shown = t + offset; /* the highest local time shown before t, plus one */

	while (t < CALENDAR_END && until > t)
	{
		int64_t lo = t + offset;
		int64_t hi = until + offset;
		int64_t found;

		if (s->wall_clock && lo > shown && t > after && any_in_span(s, shown, lo))
		{
			if (--n == 0)
			{
				*slot = t;
				return true;
			}
			lo++; /* if t's own local time matches too, it is the same slot */
		}
		if (s->wall_clock && lo < shown)
			lo = shown;
		if (lo < after + 1 + offset)
			lo = after + 1 + offset;
		if (nth_in_span(s, lo, hi, &n, &found))
		{
			*slot = found - offset;
			return true;
		}
		if (shown < hi)
			shown = hi;
		t = until;
		offset = offset_until(z, t, &until);
	}
	return false;
}

static bool
interval_nth(const CronSchedule *s, int64_t anchor, int64_t after, int64_t n, int64_t *slot)
{
	int64_t first;

	if (s->interval_s < 1 || s->interval_s > CRON_MAX_INTERVAL || anchor < CALENDAR_BEGIN ||
		anchor >= CALENDAR_END)
		return false;
	if (after < anchor)
		after = anchor;
	first = after + s->interval_s - (after - anchor) % s->interval_s;
	if (first >= CALENDAR_END || n - 1 > (CALENDAR_END - 1 - first) / s->interval_s)
		return false;
	*slot = first + (n - 1) * s->interval_s;
	return true;
}

bool
calendar_next(const CronSchedule *s, const CalZone *z, int64_t anchor, int64_t after, int64_t *slot)
{
	return calendar_nth(s, z, anchor, after, 1, slot);
}

bool
calendar_nth(const CronSchedule *s, const CalZone *z, int64_t anchor, int64_t after, int64_t n,
			 int64_t *slot)
{
	if (n < 1 || after >= CALENDAR_END - 1)
		return false;
	if (after < CALENDAR_BEGIN)
		after = CALENDAR_BEGIN;
	switch (s->kind)
	{
		case CRON_FIELDS:
			return !has_empty_set(s) && fields_nth(s, z, after, n, slot);
		case CRON_INTERVAL:
			return interval_nth(s, anchor, after, n, slot);
		case CRON_REBOOT:
			break;
	}
	return false;
}
