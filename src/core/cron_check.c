/*
 * cron_check.c
 *	  Can a pattern ever fire?
 *
 * Its times of day always exist, so that the question is whether any of its years and months has a
 * day of its. A year's days depend on its length and on the weekday that it begins with only, so that
 * at most 14 years have to be looked at, whatever the pattern.
 */
#include "core/cron_parser.h"

#include <string.h>

#include "core/cron_days.h"

static bool
is_leap_year(int64_t year)
{
	return cron_days_from_date(year + 1, 1, 1) - cron_days_from_date(year, 1, 1) == 366;
}

/* Has any month of the year a day? */
static bool
year_has_day(const CronSchedule *s, int64_t year)
{
	int month;

	for (month = 1; month <= 12; month++)
	{
		if ((s->months >> month & 1) != 0 &&
			cron_days_of_month(s, year, month, cron_days_from_date(year, month, 1)) != 0)
			return true;
	}
	return false;
}

static bool
ever_has_day(const CronSchedule *s)
{
	uint32_t seen = 0; /* kinds of years, as bits */
	int64_t year = CRON_FIRST_YEAR;

	for (; cron_next_year(s, &year); year++)
	{
		int64_t weekday = cron_days_from_date(year, 1, 1) % 7;
		uint32_t kind = UINT32_C(1) << (weekday * 2 + (is_leap_year(year) ? 1 : 0));

		if ((seen & kind) != 0)
			continue;
		if (year_has_day(s, year))
			return true;
		seen |= kind;
	}
	return false;
}

/* Record the error at a field, and which one it is. */
static void
blame(Parser *p, FieldIndex index)
{
	p->field = &cron_field_rules[index];
	p->field_number = index + (p->nwords == 5 ? 0 : 1);
}

static bool
fail_year(Parser *p)
{
	Word year = p->words[YEAR];

	blame(p, YEAR);
	cron_fail(p, year.start, "schedule never runs: year \"%s\" has none of its days",
			  cron_shown(p, year));
	return cron_hint(p, "February 29 is in leap years only (2096 and 2104, not 2100); the weekday "
					 "of a date differs from year to year.");
}

static bool
fail_dom(Parser *p)
{
	int dom = p->nwords == 5 ? 2 : 3;

	blame(p, DOM);
	cron_fail(p, p->words[dom].start,
			  "schedule never runs: day of month \"%s\" does not occur in month \"%s\"",
			  cron_shown(p, p->words[dom]), cron_shown(p, p->words[dom + 1]));
	return cron_hint(p, "February has 29 days at most; April, June, September and November have "
					 "30.");
}

static bool
fail_dow(Parser *p)
{
	int dow = p->nwords == 5 ? 4 : 5;

	blame(p, DOW);
	cron_fail(p, p->words[dow].start,
			  "schedule never runs: day of month \"%s\" is never day of week \"%s\"",
			  cron_shown(p, p->words[dow - 2]), cron_shown(p, p->words[dow]));
	return cron_hint(p, "With \"+\" a day must match both; without it, either.");
}

/* Refuse a pattern that names no day, and say for which of its fields. */
bool
cron_check_days(Parser *p, const CronSchedule *s)
{
	CronSchedule wider = *s;

	if (ever_has_day(s))
		return true;
	memset(wider.years, 0xff, sizeof(wider.years));
	if (ever_has_day(&wider))
		return fail_year(p);
	wider.dows = 0x7f;
	wider.dom_and_dow = true;
	if (ever_has_day(&wider))
		return fail_dow(p);
	return fail_dom(p);
}
