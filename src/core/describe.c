/*
 * describe.c
 *	  Sentences about schedules.
 *
 * A sentence of fields has the parts
 *
 *	  when within the day	At 02:30; Every 5 minutes from 09:00 to 17:59; At minute 0 of every 2nd hour
 *	  on which days			every day; on the last Friday; on the 13th ... if it is a Friday
 *	  in which months		of every month; of January and July
 *	  in which years		, in 2026 and 2028 to 2030
 *	  where					, Europe/Berlin
 *
 * Each part picks the shortest of a few forms. What keeps the whole exact is that every form names
 * the members of its sets, as a step, as ranges or one by one, and that no two parts can be taken
 * for one another: the items that a month has ("the 13th", "the last Friday") come in one order, in
 * which none ends with a number where the next could go on with it.
 *
 * Nothing is allocated. The sets bound the length; a list is written twice, first into nothing, to
 * count its items for the commas.
 */
#include "core/describe.h"

#include <stdarg.h>
#include <stdio.h>

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define ALL_OF_60 ((UINT64_C(1) << 60) - 1)
#define ALL_HOURS ((UINT32_C(1) << 24) - 1)
#define ALL_MONTHS (((UINT32_C(1) << 12) - 1) << 1)
#define ALL_DOMS (((UINT64_C(1) << 31) - 1) << 1)
#define ALL_DOWS 0x7f
#define YEARS (CRON_LAST_YEAR - CRON_FIRST_YEAR + 1)

/* As many members in equal steps are told as steps, fewer one by one. */
#define MIN_STEPS 5

/* As many times of day are told one by one, whatever their pattern. */
#define MAX_TIMES 6

static const char *const month_names[] = {
	"",		"January", "February",	"March",   "April",	   "May",	  "June",
	"July", "August",  "September", "October", "November", "December"};

/* The week begins with Monday here, as people speak of it; 7 is Sunday. */
static const char *const dow_names[] = {"",			"Monday", "Tuesday",  "Wednesday",
										"Thursday", "Friday", "Saturday", "Sunday"};

/* ---------------------------------------------------------------------------------------------
 * Text and sets
 */

typedef struct Sentence
{
	char *out; /* NULL: only count */
	size_t size;
	size_t length; /* of the whole, whether it fits or not */
} Sentence;

/* A list being written: "a, b and c". */
typedef struct List
{
	const char *last; /* before the last item: "and", "or" */
	int total;		  /* 0: being counted */
	int n;			  /* items so far */
} List;

__attribute__((format(printf, 2, 3))) static void
put(Sentence *s, const char *fmt, ...)
{
	bool fits = s->out != NULL && s->length < s->size;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(fits ? s->out + s->length : NULL, fits ? s->size - s->length : 0, fmt, args);
	va_end(args);
	s->length += n > 0 ? (size_t) n : 0;
}

/* What goes before the next item of a list. */
static void
put_next(Sentence *s, List *list)
{
	if (list->n > 0)
	{
		if (list->n + 1 == list->total)
			put(s, " %s ", list->last);
		else
			put(s, ", ");
	}
	list->n++;
}

static bool
has(const uint64_t *set, int value)
{
	return (set[value / 64] >> (value % 64) & 1) != 0;
}

/* The first member of a set from 'from' to 'max', or max + 1. */
static int
next_member(const uint64_t *set, int from, int max)
{
	while (from <= max && !has(set, from))
		from++;
	return from;
}

/* Find the next run of neighbours; from 'at' on, which moves behind it. */
static bool
next_run(const uint64_t *set, int max, int *at, int *first, int *last)
{
	*first = next_member(set, *at, max);
	if (*first > max)
		return false;
	for (*last = *first; *last < max && has(set, *last + 1); (*last)++)
		;
	*at = *last + 1;
	return true;
}

static int
count_runs(const uint64_t *set, int max)
{
	int at = 0;
	int first;
	int last;
	int n = 0;

	while (next_run(set, max, &at, &first, &last))
		n++;
	return n;
}

/* The distance of the members if it is the same for all, at least 2, and they are many; else 0. */
static int
even_step(const uint64_t *set, int max, int *first, int *last)
{
	int step = 0;
	int n = 1;

	*first = *last = next_member(set, 0, max);
	for (;;)
	{
		int next = next_member(set, *last + 1, max);

		if (next > max)
			return n >= MIN_STEPS && step >= 2 ? step : 0;
		if (step != 0 && next - *last != step)
			return 0;
		step = next - *last;
		*last = next;
		n++;
	}
}

/* The step of a set that divides 0 .. size - 1 into three or more equal parts; else 0. */
static int
dividing_step(uint64_t set, int size)
{
	int step = next_member(&set, 1, size - 1);
	int value;

	if (!has(&set, 0) || step < 2 || size % step != 0 || size / step < 3)
		return 0;
	for (value = 0; value < size; value++)
	{
		if (has(&set, value) != (value % step == 0))
			return 0;
	}
	return step;
}

static const char *
suffix(int n)
{
	if (n / 10 % 10 == 1)
		return "th";
	return n % 10 == 1 ? "st" : n % 10 == 2 ? "nd" : n % 10 == 3 ? "rd" : "th";
}

/* How a value is written. */
typedef void (*PutValue)(Sentence *s, int value);

static void
put_number(Sentence *s, int value)
{
	put(s, "%d", value);
}

static void
put_ordinal(Sentence *s, int value)
{
	put(s, "%d%s", value, suffix(value));
}

static void
put_year(Sentence *s, int value)
{
	put(s, "%d", CRON_FIRST_YEAR + value);
}

static void
put_month(Sentence *s, int value)
{
	put(s, "%s", month_names[value]);
}

/* The members of a set as items of a list; three and more neighbours as a range. */
static void
put_items(Sentence *s, List *list, const uint64_t *set, int max, PutValue put_value)
{
	int at = 0;
	int first;
	int last;

	while (next_run(set, max, &at, &first, &last))
	{
		if (last - first < 2)
			last = first; /* two neighbours are two items */
		at = last + 1;
		put_next(s, list);
		put_value(s, first);
		if (last > first)
		{
			put(s, " to ");
			put_value(s, last);
		}
	}
}

/* A list of the members of a set. */
static void
put_members(Sentence *s, const char *last, const uint64_t *set, int max, PutValue put_value)
{
	Sentence nowhere = {NULL, 0, 0};
	List count = {last, 0, 0};
	List list = {last, 0, 0};

	put_items(&nowhere, &count, set, max, put_value);
	list.total = count.n;
	put_items(s, &list, set, max, put_value);
}

/* ---------------------------------------------------------------------------------------------
 * When within the day
 */

/* minute 0 and 30 | every 7th minute from 0 to 56 */
static void
put_values(Sentence *s, const char *singular, const char *plural, uint64_t set, int max)
{
	int first;
	int last;
	int step = even_step(&set, max, &first, &last);

	if (step != 0)
		put(s, "every %d%s %s from %d to %d", step, suffix(step), singular, first, last);
	else
	{
		put(s, "%s ", (set & (set - 1)) == 0 ? singular : plural);
		put_members(s, "and", &set, max, put_number);
	}
}

/* The seconds and minutes. True: they come evenly over all hours, so that no hour needs a word. */
static bool
put_beat(Sentence *s, const CronSchedule *c)
{
	bool every_minute = c->minutes == ALL_OF_60;
	int minute_step = dividing_step(c->minutes, 60);
	int second_step = dividing_step(c->seconds, 60);

	if (c->seconds == 1)
	{
		if (every_minute)
			put(s, "Every minute");
		else if (minute_step != 0)
			put(s, "Every %d minutes", minute_step);
		else
		{
			put(s, "At ");
			put_values(s, "minute", "minute", c->minutes, 59);
		}
		return every_minute || minute_step != 0;
	}

	if (c->seconds == ALL_OF_60)
		put(s, "Every second");
	else if (second_step != 0)
		put(s, "Every %d seconds", second_step);
	else
	{
		put(s, "At ");
		put_values(s, "second", "second", c->seconds, 59);
		if (every_minute)
			put(s, " of every minute");
	}
	if (every_minute)
		return true;
	put(s, " of ");
	if (minute_step != 0)
		put(s, "every %d%s minute", minute_step, suffix(minute_step));
	else
		put_values(s, "minute", "minute", c->minutes, 59);
	return minute_step != 0;
}

/* of every 2nd hour | of hours 9 to 17. True: they come evenly over the day. */
static bool
put_elapsed_hours(Sentence *s, const CronSchedule *c, bool even)
{
	int step = dividing_step(c->hours, 24);

	if (c->hours == ALL_HOURS)
	{
		if (!even)
			put(s, " of every hour");
		return true;
	}
	put(s, " of ");
	if (step != 0)
		put(s, "every %d%s hour", step, suffix(step));
	else
		put_values(s, "hour", "hours", c->hours, 23);
	return step != 0;
}

/* from 09:00 to 12:59 and from 14:00 to 17:59 */
static void
put_wall_clock_hours(Sentence *s, const CronSchedule *c, bool even)
{
	uint64_t hours = c->hours;
	List list = {"and", count_runs(&hours, 23), 0};
	int at = 0;
	int first;
	int last;

	put(s, even ? " " : " of every hour ");
	while (next_run(&hours, 23, &at, &first, &last))
	{
		put_next(s, &list);
		put(s, "from %02d:00 to %02d:59", first, last);
	}
}

/* Can the times be told one by one? */
static bool
few_times(const CronSchedule *c)
{
	uint64_t hours = c->hours;
	int hour_count = __builtin_popcountll(hours);
	int per_hour = __builtin_popcountll(c->minutes) * __builtin_popcountll(c->seconds);

	if (!c->wall_clock)
		return false;
	return hour_count * per_hour <= MAX_TIMES ||
		   (per_hour == 1 && count_runs(&hours, 23) == hour_count);
}

/* At 00:00 and 12:00 */
static void
put_times(Sentence *s, const CronSchedule *c)
{
	uint64_t hours = c->hours;
	List list = {"and",
				 __builtin_popcountll(hours) * __builtin_popcountll(c->minutes) *
					 __builtin_popcountll(c->seconds),
				 0};
	int h;
	int m;
	int sec;

	put(s, "At ");
	for (h = next_member(&hours, 0, 23); h < 24; h = next_member(&hours, h + 1, 23))
	{
		for (m = next_member(&c->minutes, 0, 59); m < 60; m = next_member(&c->minutes, m + 1, 59))
		{
			for (sec = next_member(&c->seconds, 0, 59); sec < 60;
				 sec = next_member(&c->seconds, sec + 1, 59))
			{
				put_next(s, &list);
				put(s, c->seconds == 1 ? "%02d:%02d" : "%02d:%02d:%02d", h, m, sec);
			}
		}
	}
}

/* What is put between the time and "every day": nothing is said at all after "Every 5 minutes". */
typedef enum
{
	DAY_AFTER_TIMES,  /* At 02:30 every day */
	DAY_AFTER_PHRASE, /* Every 5 minutes from 09:00 to 17:59, every day */
	DAY_UNDERSTOOD	  /* Every 5 minutes */
} DayForm;

static DayForm
put_time(Sentence *s, const CronSchedule *c)
{
	bool even;

	if (few_times(c))
	{
		put_times(s, c);
		return DAY_AFTER_TIMES;
	}
	even = put_beat(s, c);
	if (!c->wall_clock)
		return put_elapsed_hours(s, c, even) ? DAY_UNDERSTOOD : DAY_AFTER_PHRASE;
	put_wall_clock_hours(s, c, even);
	return DAY_AFTER_PHRASE;
}

/* ---------------------------------------------------------------------------------------------
 * On which days
 */

/* The days of a schedule without what the rest makes superfluous. */
typedef struct Days
{
	bool every;		/* all of them; the rest means nothing */
	bool both;		/* a day of the month and a day of the week */
	bool any_dom;	/* days of the month restrict nothing */
	uint64_t dows;	/* bits 1..7, each of the month */
	uint64_t nth[7 + 1]; /* [day of the week]: bits 1..5, its nth; bit 6: its last */
	bool any_nth;
} Days;

#define LAST_DOW 6

static void
read_days(const CronSchedule *c, Days *days)
{
	bool any_dow = (c->dows & ALL_DOWS) == ALL_DOWS;
	int dow;
	int n;

	days->any_dom = (c->doms & ALL_DOMS) == ALL_DOMS;
	days->every = c->dom_and_dow ? days->any_dom && any_dow : days->any_dom || any_dow;
	days->both = c->dom_and_dow && !days->any_dom && !any_dow;
	days->dows = 0;
	days->any_nth = false;
	for (dow = 1; dow <= 7; dow++)
	{
		int bit = dow % 7;

		days->nth[dow] = 0;
		if (any_dow)
			continue;
		if (c->dows >> bit & 1)
		{
			days->dows |= UINT64_C(1) << dow;
			continue;
		}
		for (n = 1; n <= 5; n++)
			days->nth[dow] |= (uint64_t) (c->nth_dows[n] >> bit & 1) << n;
		days->nth[dow] |= (uint64_t) (c->last_dows >> bit & 1) << LAST_DOW;
		days->any_nth |= days->nth[dow] != 0;
	}
}

/* 1st, 2nd .. 5th, last */
static void
put_nth(Sentence *s, int n)
{
	if (n == LAST_DOW)
		put(s, "last");
	else
		put_ordinal(s, n);
}

/* the 2nd and 4th Tuesday, the last Friday */
static void
put_nth_dows(Sentence *s, List *list, const Days *days, const char *last)
{
	int dow;

	for (dow = 1; dow <= 7; dow++)
	{
		List ns = {last, __builtin_popcountll(days->nth[dow]), 0};
		int n;

		if (days->nth[dow] == 0)
			continue;
		put_next(s, list);
		put(s, "the ");
		for (n = 1; n <= LAST_DOW; n++)
		{
			if (!has(&days->nth[dow], n))
				continue;
			put_next(s, &ns);
			put_nth(s, n);
		}
		put(s, " %s", dow_names[dow]);
	}
}

/* the last day, the 3rd day before the last day */
static void
put_from_end(Sentence *s, List *list, const CronSchedule *c)
{
	uint64_t before = c->doms_from_end & ~UINT32_C(1);

	if (c->doms_from_end & 1)
	{
		put_next(s, list);
		put(s, "the last day");
	}
	if (before == 0)
		return;
	put_next(s, list);
	if (before == 2)
		put(s, "the day before the last day");
	else
	{
		put(s, "the ");
		put_members(s, "and", &before, 31, put_ordinal);
		put(s, " day before the last day");
	}
}

/* the 1st, 15th; every 2nd day from the 1st to the 31st */
static void
put_dom_numbers(Sentence *s, List *list, const CronSchedule *c)
{
	uint64_t doms = c->doms & ALL_DOMS;
	int first;
	int last;
	int step = even_step(&doms, 31, &first, &last);
	int at = 0;
	bool begun = false;

	if (step != 0)
	{
		put_next(s, list);
		put(s, "every %d%s day from the %d%s to the %d%s", step, suffix(step), first, suffix(first),
			last, suffix(last));
		return;
	}
	while (next_run(&doms, 31, &at, &first, &last))
	{
		if (last - first < 2)
			last = first;
		at = last + 1;
		put_next(s, list);
		put(s, "%s%d%s", begun ? "" : "the ", first, suffix(first));
		if (last > first)
			put(s, " to %d%s", last, suffix(last));
		begun = true;
	}
}

/* Days that count from the month's beginning and end. */
static void
put_doms(Sentence *s, List *list, const CronSchedule *c)
{
	uint64_t nearest = c->nearest_weekdays;

	put_from_end(s, list, c);
	if (c->last_weekday)
	{
		put_next(s, list);
		put(s, "the last weekday");
	}
	put_dom_numbers(s, list, c);
	if (nearest == 0)
		return;
	put_next(s, list);
	put(s, "the weekday%s nearest the ", (nearest & (nearest - 1)) != 0 ? "s" : "");
	put_members(s, "and", &nearest, 31, put_ordinal);
}

/* Everything that a month has once: the last Friday, the last day, the 13th. The number of items. */
static int
put_days_of_month(Sentence *s, int total, const CronSchedule *c, const Days *days)
{
	List list = {"and", total, 0};

	if (!days->both)
		put_nth_dows(s, &list, days, "and");
	if (!days->any_dom)
		put_doms(s, &list, c);
	return list.n;
}

/* Is it one stretch of at least three days of the week? */
static bool
dow_range(uint64_t dows, int *first, int *last)
{
	int at = 0;

	return count_runs(&dows, 7) == 1 && next_run(&dows, 7, &at, first, last) && *last - *first >= 2;
}

/* The days of the week one by one; article: before the first. */
static void
put_dows(Sentence *s, List *list, uint64_t dows, const char *article)
{
	int dow;

	for (dow = 1; dow <= 7; dow++)
	{
		if (!has(&dows, dow))
			continue;
		put_next(s, list);
		put(s, "%s%s", article, dow_names[dow]);
		article = "";
	}
}

/* a Friday | a Monday or the last Friday of the month | one of Monday to Friday */
static int
put_alternatives(Sentence *s, int total, const Days *days)
{
	List list = {"or", total, 0};
	int first;
	int last;

	if (dow_range(days->dows, &first, &last))
	{
		put_next(s, &list);
		put(s, "one of %s to %s", dow_names[first], dow_names[last]);
	}
	else
		put_dows(s, &list, days->dows, "a ");
	put_nth_dows(s, &list, days, "or");
	if (days->any_nth)
		put(s, " of the month");
	return list.n;
}

static void
put_months(Sentence *s, const char *preposition, const CronSchedule *c)
{
	uint64_t months = c->months & ALL_MONTHS;

	put(s, " %s ", preposition);
	if (months == ALL_MONTHS)
		put(s, "every month");
	else
		put_members(s, "and", &months, 12, put_month);
}

/* every Monday and Thursday | Monday to Friday, and nothing else */
static void
put_week(Sentence *s, const Days *days, DayForm form)
{
	List list = {"and", __builtin_popcountll(days->dows), 0};
	int first;
	int last;

	if (dow_range(days->dows, &first, &last))
		put(s, ", %s to %s", dow_names[first], dow_names[last]);
	else
	{
		put(s, form == DAY_AFTER_TIMES ? " " : ", ");
		put_dows(s, &list, days->dows, "every ");
	}
}

/* and on every Friday, after days of the month */
static void
put_week_too(Sentence *s, const CronSchedule *c, const Days *days)
{
	List list = {"and", __builtin_popcountll(days->dows), 0};
	int first;
	int last;

	put(s, " and on every ");
	if (dow_range(days->dows, &first, &last))
		put(s, "day from %s to %s", dow_names[first], dow_names[last]);
	else
		put_dows(s, &list, days->dows, "");
	if (c->months != ALL_MONTHS)
		put(s, (c->months & (c->months - 1)) == 0 ? " in that month" : " in these months");
}

static void
put_days(Sentence *s, const CronSchedule *c, DayForm form)
{
	Sentence nowhere = {NULL, 0, 0};
	Days days;
	int n;

	read_days(c, &days);
	n = days.every ? 0 : put_days_of_month(&nowhere, 0, c, &days);
	if (n == 0)
	{
		if (!days.every)
			put_week(s, &days, form);
		else if (form != DAY_UNDERSTOOD)
			put(s, form == DAY_AFTER_TIMES ? " every day" : ", every day");
		if (c->months != ALL_MONTHS)
			put_months(s, "in", c);
		return;
	}
	put(s, " on ");
	put_days_of_month(s, n, c, &days);
	put_months(s, "of", c);
	if (days.both)
	{
		put(s, " if it is ");
		put_alternatives(s, put_alternatives(&nowhere, 0, &days), &days);
	}
	else if (days.dows != 0)
		put_week_too(s, c, &days);
}

/* ---------------------------------------------------------------------------------------------
 * The sentence
 */

static bool
all_years(const CronSchedule *c)
{
	int n;

	for (n = 0; n < YEARS && has(c->years, n); n++)
		;
	return n == YEARS;
}

static void
put_years(Sentence *s, const CronSchedule *c)
{
	int first;
	int last;
	int step = even_step(c->years, YEARS - 1, &first, &last);

	put(s, ", in ");
	if (step != 0)
		put(s, "every %d%s year from %d to %d", step, suffix(step), CRON_FIRST_YEAR + first,
			CRON_FIRST_YEAR + last);
	else
		put_members(s, "and", c->years, YEARS - 1, put_year);
}

/*
 * Does the zone matter? Not to what repeats itself every 15 minutes for ever: of that, or a
 * multiple, are the offsets of all zones since 1972.
 */
static bool
depends_on_zone(const CronSchedule *c)
{
	uint64_t quarter = c->minutes & 0x7fff;
	Days days;

	read_days(c, &days);
	return !days.every || c->hours != ALL_HOURS || c->months != ALL_MONTHS || !all_years(c) ||
		   c->minutes != (quarter | quarter << 15 | quarter << 30 | quarter << 45);
}

/* 90 minutes | 1 day, 2 hours and 5 seconds. Of one day as 24 hours: it is no day of the calendar. */
static void
put_duration(Sentence *s, int64_t seconds)
{
	static const struct
	{
		const char *name;
		int64_t seconds;
	} units[] = {{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}};
	List list = {"and", 0, 0};
	int64_t rest = seconds;
	int i;

	for (i = 0; i < lengthof(units); i++)
	{
		int64_t n = seconds / units[i].seconds;

		if (n == 0 || seconds % units[i].seconds != 0 || (i == 0 && n == 1))
			continue;
		if (n >= 120 && i > 0)
			break;
		if (n == 1)
			put(s, "%s", units[i].name);
		else
			put(s, "%lld %ss", (long long) n, units[i].name);
		return;
	}
	for (i = 0; i < lengthof(units); i++)
	{
		list.total += rest >= units[i].seconds ? 1 : 0;
		rest %= units[i].seconds;
	}
	for (i = 0; i < lengthof(units); i++)
	{
		long long n = (long long) (seconds / units[i].seconds);

		seconds %= units[i].seconds;
		if (n == 0)
			continue;
		put_next(s, &list);
		put(s, "%lld %s%s", n, units[i].name, n == 1 ? "" : "s");
	}
}

size_t
describe_schedule(const CronSchedule *c, const char *zone, const char *anchor, char *out,
				  size_t size)
{
	Sentence s = {out, size, 0};

	if (size > 0)
		out[0] = '\0';
	switch (c->kind)
	{
		case CRON_FIELDS:
			put_days(&s, c, put_time(&s, c));
			if (!all_years(c))
				put_years(&s, c);
			if (zone != NULL && depends_on_zone(c))
				put(&s, ", %s", zone);
			break;
		case CRON_INTERVAL:
			put(&s, "Every ");
			put_duration(&s, c->interval_s);
			put(&s, ", counted from %s", anchor != NULL ? anchor : "its definition");
			break;
		case CRON_REBOOT:
			put(&s, "When the server starts");
			break;
	}
	return s.length;
}
