/*
 * cron_days.c
 *	  Dates of the Gregorian calendar, and the days of a month that a schedule names.
 *
 * A month is 31 bits, day d being bit d, and what a schedule says of days becomes such a set; the
 * rarer kinds of days cost only the schedules that name them.
 */
#include "core/cron_days.h"

/* Weekday of 1970-01-01, with Sunday as 0. */
#define EPOCH_WEEKDAY 4

#define SUNDAY 0
#define SATURDAY 6

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

static uint32_t
day_bit(int dom)
{
	return UINT32_C(1) << dom;
}

/* Years are taken to begin in March, so that the leap day is the last one; months need no table. */
int64_t
cron_days_from_date(int64_t year, int month, int dom)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = floor_div(y, 400);
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + dom - 1;
	int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

	return era * 146097 + day_of_era - 719468;
}

void
cron_date_from_days(int64_t days, int64_t *year, int *month, int *dom)
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

bool
cron_next_year(const CronSchedule *s, int64_t *year)
{
	int64_t n = *year > CRON_FIRST_YEAR ? *year - CRON_FIRST_YEAR : 0;

	while (n <= CRON_LAST_YEAR - CRON_FIRST_YEAR)
	{
		uint64_t later = s->years[n / 64] >> n % 64;

		if (later != 0)
		{
			*year = CRON_FIRST_YEAR + n + __builtin_ctzll(later);
			return *year <= CRON_LAST_YEAR;
		}
		n = (n / 64 + 1) * 64;
	}
	return false;
}

/* The days of a month that are one of a set of weekdays. */
static uint32_t
days_of_weekdays(uint8_t dows, int first_weekday)
{
	uint64_t twice = (uint64_t) dows | (uint64_t) dows << 7;
	uint64_t week = (twice >> first_weekday) & 0x7f;

	return (uint32_t) ((week | week << 7 | week << 14 | week << 21 | week << 28) << 1);
}

/* The weekday nearest to a day, in the same month. */
static int
nearest_weekday(int dom, int length, int first_weekday)
{
	int weekday = (first_weekday + dom - 1) % 7;

	if (weekday == SATURDAY)
		return dom > 1 ? dom - 1 : dom + 2;
	if (weekday == SUNDAY)
		return dom < length ? dom + 1 : dom - 2;
	return dom;
}

static int
last_weekday(int length, int first_weekday)
{
	int weekday = (first_weekday + length - 1) % 7;

	return length - (weekday == SUNDAY ? 2 : weekday == SATURDAY ? 1 : 0);
}

/* The days that the kinds of days of the month name that depend on the month. */
static uint32_t
moving_doms(const CronSchedule *s, int length, int first_weekday)
{
	uint32_t days = 0;
	int i;

	for (i = 0; i < length; i++)
	{
		if (s->doms_from_end & day_bit(i))
			days |= day_bit(length - i);
	}
	for (i = 1; i <= length; i++)
	{
		if (s->nearest_weekdays & day_bit(i))
			days |= day_bit(nearest_weekday(i, length, first_weekday));
	}
	if (s->last_weekday)
		days |= day_bit(last_weekday(length, first_weekday));
	return days;
}

/* The same for days of the week. The n-th one is in the n-th seven days, the last one in the last. */
static uint32_t
moving_dows(const CronSchedule *s, int length, int first_weekday)
{
	uint32_t seven = 0x7f;
	uint32_t days = days_of_weekdays(s->last_dows, first_weekday) & (seven << (length - 6));
	int n;

	for (n = 1; n <= 5; n++)
		days |= days_of_weekdays(s->nth_dows[n], first_weekday) & (seven << ((n - 1) * 7 + 1));
	return days;
}

uint32_t
cron_days_of_month(const CronSchedule *s, int64_t year, int month, int64_t first_day)
{
	int length = days_in_month(year, month);
	int first_weekday = (int) (first_day - floor_div(first_day, 7) * 7 + EPOCH_WEEKDAY) % 7;
	uint32_t in_month = (uint32_t) ((UINT64_C(1) << (length + 1)) - 2);
	uint32_t by_dom = s->doms;
	uint32_t by_dow = days_of_weekdays(s->dows, first_weekday);
	uint8_t nth = s->nth_dows[1] | s->nth_dows[2] | s->nth_dows[3] | s->nth_dows[4] | s->nth_dows[5];

	if ((s->doms_from_end | s->nearest_weekdays) != 0 || s->last_weekday)
		by_dom |= moving_doms(s, length, first_weekday);
	if ((nth | s->last_dows) != 0)
		by_dow |= moving_dows(s, length, first_weekday);
	return (s->dom_and_dow ? (by_dom & by_dow) : (by_dom | by_dow)) & in_month;
}
