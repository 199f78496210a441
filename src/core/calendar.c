/*
 * calendar.c
 *	  Calculation of slots, field by field.
 *
 * A zone cuts time into spans in which local time runs evenly. Within one span the problem is a
 * calendar without time zones: local times in [lo, hi) whose fields match. There, days are found
 * month by month with a bit set of the days that match, and neither the days of a month nor the
 * times of a day are walked: the times are the product of three sets, so that the n-th one, and the
 * number of them before a given time, are arithmetic.
 *
 * Asking a zone is what costs most, and zones have up to two changes a year and more. So days come
 * first: where no day matches for a while, time goes on to shortly before the next one that does, and
 * the spans between are never asked for. Years and months that are not in the schedule's sets are
 * skipped as a whole. So also schedules as rare as February 29th on a Monday take microseconds.
 *
 * What happens at the seams between spans is the rule of calendar.h. For wall-clock schedules it is
 * kept in one number, the highest local time that the clock has shown so far: local times below it
 * have had their slot, and where a span begins above it, the times between are the ones that the
 * clock skipped.
 */
#include "core/calendar.h"

#include <stddef.h>

#include "core/cron_days.h"

#define DAY_S 86400

/*
 * How far before 'after' the wall clock is watched, to know the highest time that it has shown.
 * Offsets in time zone files lie between -25 and +26 hours, so that nothing earlier than two days
 * and three hours can have shown a later time than the clock shows now.
 */
#define LOOK_BACK_S (3 * DAY_S)

/* More than any offset, east or west. */
#define MAX_OFFSET_S (27 * 3600)

/* The last day that a schedule can match: 2199-12-31. */
#define LAST_DAY (CALENDAR_END / DAY_S - 3)

/* Bits 1..12. */
#define ALL_MONTHS 0x1ffe

/* Walks the months that have matching days, from a day on. */
typedef struct MonthWalk
{
	int64_t year; /* where to go on: this date */
	int month;
	int dom;
	int64_t first_day; /* of the month found, since 1970-01-01 */
	uint32_t days;	   /* its matching days, bits 1..31 */
} MonthWalk;

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

static void
walk_from(MonthWalk *walk, int64_t day)
{
	cron_date_from_days(day, &walk->year, &walk->month, &walk->dom);
}

/* Find the next month that has matching days up to 'last', and these. */
static bool
walk_next(MonthWalk *walk, const CronSchedule *s, int64_t last)
{
	for (;;)
	{
		int64_t year = walk->year;
		uint32_t later_months;
		int month;

		if (!cron_next_year(s, &year))
			return false;
		if (year > walk->year)
			walk->month = walk->dom = 1;
		walk->year = year;
		later_months = s->months & ALL_MONTHS & (UINT32_MAX << walk->month);
		if (later_months == 0)
		{
			walk->year++;
			walk->month = walk->dom = 1;
			continue;
		}
		month = lowest_bit(later_months);
		if (month > walk->month)
			walk->dom = 1;
		walk->first_day = cron_days_from_date(year, month, 1);
		if (walk->first_day > last)
			return false;
		walk->days = cron_days_of_month(s, year, month, walk->first_day) & (UINT32_MAX << walk->dom);
		if (last - walk->first_day < 30)
			walk->days &= UINT32_MAX >> (30 - (last - walk->first_day));
		walk->month = month + 1;
		walk->dom = 1;
		if (walk->days != 0)
			return true;
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
 * The n-th matching time of the days of one month, as walk_next() left them, that is in [lo, hi). If
 * there are fewer, returns false with *n lowered by their number.
 */
static bool
nth_in_month(const CronSchedule *s, const MonthWalk *walk, int64_t lo, int64_t hi, int64_t *n,
			 int64_t *found)
{
	int64_t per_day = times_before(s, DAY_S);
	uint32_t days = walk->days;

	while (days != 0)
	{
		int dom = lowest_bit(days);
		int64_t midnight = (walk->first_day + dom - 1) * DAY_S;
		int64_t whole_end = floor_div(hi, DAY_S) - walk->first_day; /* the last day that may be whole */
		uint32_t taken = UINT32_C(1) << dom;
		int64_t before = 0;
		int64_t here = per_day;

		if (lo <= midnight && dom <= whole_end)
		{
			/* All whole days at once: there is nothing between them. */
			taken = whole_end < 31 ? days & (UINT32_MAX >> (31 - whole_end)) : days;
			here = bit_count(taken) * per_day;
		}
		else
		{
			before = times_before(s, lo > midnight ? lo - midnight : 0);
			here = times_before(s, hi < midnight + DAY_S ? hi - midnight : DAY_S) - before;
		}
		if (*n <= here)
		{
			int64_t nth = before + *n - 1;

			*found = (walk->first_day + nth_bit(taken, nth / per_day) - 1) * DAY_S +
					 nth_time(s, nth % per_day);
			return true;
		}
		*n -= here;
		days &= ~taken;
	}
	return false;
}

/* The same for a stretch without seams. */
static bool
nth_in_span(const CronSchedule *s, int64_t lo, int64_t hi, int64_t *n, int64_t *found)
{
	int64_t last = floor_div(hi - 1, DAY_S);
	MonthWalk walk;

	if (lo >= hi)
		return false;
	walk_from(&walk, floor_div(lo, DAY_S));
	while (walk_next(&walk, s, last))
	{
		if (nth_in_month(s, &walk, lo, hi, n, found))
			return true;
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

/* The parser makes no empty set. Without a day nothing is found; without a time nothing is sought. */
static bool
has_no_time(const CronSchedule *s)
{
	return s->seconds == 0 || s->minutes == 0 || s->hours == 0;
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

/*
 * Move *after on to before the next matching day, wherever on earth it is that day; false if there is
 * none. No slot is passed over: whether its local time is shown or skipped by the clock, it is away
 * from that time in UTC by no more than an offset.
 */
static bool
skip_to_days(const CronSchedule *s, int64_t *after)
{
	MonthWalk walk;
	int64_t before_day;

	walk_from(&walk, floor_div(*after - MAX_OFFSET_S, DAY_S));
	if (!walk_next(&walk, s, LAST_DAY))
		return false;
	before_day = (walk.first_day + lowest_bit(walk.days) - 1) * DAY_S - MAX_OFFSET_S;
	if (before_day > *after)
		*after = before_day;
	return true;
}

/*
 * Look for the n-th slot after *after and before 'end', span by span. If it is not found, returns false
 * with *n lowered by the number of those passed, and *after moved on to where to look further: that is
 * the end, or, where no day matches for a while, before the next that does.
 */
static bool
walk_spans(const CronSchedule *s, const CalZone *z, int64_t *after, int64_t end, int64_t *n,
		   int64_t *slot)
{
	int64_t t = s->wall_clock ? *after - LOOK_BACK_S : *after + 1;
	int64_t until;
	int64_t offset = offset_until(z, t, &until);
	int64_t shown = t + offset; /* the highest local time shown before t, plus one */

	while (t < end && until > t)
	{
		int64_t lo = t + offset;
		int64_t hi = (until < end ? until : end) + offset;
		int64_t next_after = until - 1;
		int64_t found;

		if (s->wall_clock && lo > shown && t > *after && any_in_span(s, shown, lo))
		{
			if (--*n == 0)
			{
				*slot = t;
				return true;
			}
			lo++; /* if t's own local time matches too, it is the same slot */
		}
		if (s->wall_clock && lo < shown)
			lo = shown;
		if (lo < *after + 1 + offset)
			lo = *after + 1 + offset;
		if (nth_in_span(s, lo, hi, n, &found))
		{
			*slot = found - offset;
			return true;
		}
		if (shown < hi)
			shown = hi;
		if (until > *after && (!skip_to_days(s, &next_after) || next_after > until + LOOK_BACK_S))
		{
			*after = next_after >= until ? next_after : end;
			return false;
		}
		t = until;
		offset = offset_until(z, t, &until);
	}
	*after = end;
	return false;
}

/*
 * The n-th slot after 'after' and before 'end'. If there are fewer, returns false with *n lowered by
 * their number.
 */
static bool
fields_nth(const CronSchedule *s, const CalZone *z, int64_t after, int64_t end, int64_t *n,
		   int64_t *slot)
{
	if (has_no_time(s))
		return false;
	while (after < end && skip_to_days(s, &after) && after < end)
	{
		if (walk_spans(s, z, &after, end, n, slot))
			return true;
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

/* How many slots of an interval are in (after, until]. */
static int64_t
interval_count(const CronSchedule *s, int64_t anchor, int64_t after, int64_t until)
{
	if (s->interval_s < 1 || s->interval_s > CRON_MAX_INTERVAL || anchor < CALENDAR_BEGIN ||
		anchor >= CALENDAR_END)
		return 0;
	if (after < anchor)
		after = anchor;
	if (until <= after)
		return 0;
	return (until - anchor) / s->interval_s - (after - anchor) / s->interval_s;
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
			return fields_nth(s, z, after, CALENDAR_END, &n, slot);
		case CRON_INTERVAL:
			return interval_nth(s, anchor, after, n, slot);
		case CRON_REBOOT:
			break;
	}
	return false;
}

int64_t
calendar_count(const CronSchedule *s, const CalZone *z, int64_t anchor, int64_t after, int64_t until,
			   int64_t limit)
{
	int64_t left = limit;
	int64_t count;
	int64_t slot;

	if (after < CALENDAR_BEGIN)
		after = CALENDAR_BEGIN;
	if (until >= CALENDAR_END)
		until = CALENDAR_END - 1;
	if (limit < 1 || until <= after)
		return 0;
	switch (s->kind)
	{
		case CRON_FIELDS:
			return fields_nth(s, z, after, until + 1, &left, &slot) ? limit : limit - left;
		case CRON_INTERVAL:
			count = interval_count(s, anchor, after, until);
			return count < limit ? count : limit;
		case CRON_REBOOT:
			break;
	}
	return 0;
}
