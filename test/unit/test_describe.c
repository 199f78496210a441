/*
 * test_describe.c
 *	  Unit tests of the sentences about schedules (core/describe).
 *
 * A table says what sentence a text gets. That sentences are exact is tested with random sets: of
 * two schedules that have the same sentence it is calculated, day by day for months of every length
 * that begin on every weekday, whether they mean the same. The second of a pair is the first with a
 * bit or two changed, so that what a sentence leaves out is found.
 *
 * DSCHED_SEED repeats a run of the random tests; the seed of each run is printed.
 */
#include <stdlib.h>

#include "core/calendar.h"
#include "core/describe.h"
#include "random.h"
#include "tap.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define YEARS (CRON_LAST_YEAR - CRON_FIRST_YEAR + 1)

/* ---------------------------------------------------------------------------------------------
 * Sentences
 */

static const struct
{
	const char *text;
	const char *zone;
	const char *sentence;
} table[] = {
	/* Seconds and minutes that come evenly. */
	{"* * * * *", NULL, "Every minute"},
	{"*/1 * * * *", NULL, "Every minute"},
	{"*/5 * * * *", NULL, "Every 5 minutes"},
	{"0-59/20 * * * *", NULL, "Every 20 minutes"},
	{"0,15,30,45 * * * *", NULL, "Every 15 minutes"},
	{"* * * * * *", NULL, "Every second"},
	{"*/15 * * * * *", NULL, "Every 15 seconds"},
	{"*/30 * * * * *", NULL, "At second 0 and 30 of every minute"},
	{"30 * * * * *", NULL, "At second 30 of every minute"},
	{"0 * * * * *", NULL, "Every minute"},

	/* Those that don't. */
	{"0 * * * *", NULL, "At minute 0 of every hour"},
	{"*/30 * * * *", NULL, "At minute 0 and 30 of every hour"},
	{"5/15 * * * *", NULL, "At minute 5, 20, 35 and 50 of every hour"},
	{"*/7 * * * *", NULL, "At every 7th minute from 0 to 56 of every hour"},
	{"3-53/10 * * * *", NULL, "At every 10th minute from 3 to 53 of every hour"},
	{"0-29 * * * *", NULL, "At minute 0 to 29 of every hour"},
	{"1,2,4-6,9 * * * *", NULL, "At minute 1, 2, 4 to 6 and 9 of every hour"},
	{"*/11 * * * * *", NULL, "At every 11th second from 0 to 55 of every minute"},
	{"*/10 */20 * * * *", NULL, "Every 10 seconds of every 20th minute"},
	{"5,35 */5 * * * *", NULL, "At second 5 and 35 of every 5th minute"},
	{"*/15 5 * * * *", NULL, "Every 15 seconds of minute 5 of every hour"},
	{"* 0,30 * * * *", NULL, "Every second of minute 0 and 30 of every hour"},

	/* Hours of elapsed time. */
	{"0 */2 * * *", NULL, "At minute 0 of every 2nd hour"},
	{"*/10 */3 * * *", NULL, "Every 10 minutes of every 3rd hour"},
	{"0 */12 * * *", NULL, "At minute 0 of hours 0 and 12, every day"},
	{"0 */5 * * *", NULL, "At minute 0 of every 5th hour from 0 to 20, every day"},
	{"15 9-17/4 * * *", NULL, "At minute 15 of hours 9, 13 and 17, every day"},
	{"15 9-17/1 * * MON", NULL, "At minute 15 of hours 9 to 17, every Monday"},
	{"0 23/5 * * *", NULL, "At minute 0 of hour 23, every day"},
	{"0 0-23 * * *", NULL, "At minute 0 of every hour"},

	/* Times on the wall clock. */
	{"30 2 * * *", NULL, "At 02:30 every day"},
	{"0 0,12 * * *", NULL, "At 00:00 and 12:00 every day"},
	{"0 9,13,17 * * *", NULL, "At 09:00, 13:00 and 17:00 every day"},
	{"0 0,2,4,6,8,10,12,14,16,18,20,22 * * *", NULL,
	 "At 00:00, 02:00, 04:00, 06:00, 08:00, 10:00, 12:00, 14:00, 16:00, 18:00, 20:00 and 22:00 "
	 "every day"},
	{"*/15 9 * * *", NULL, "At 09:00, 09:15, 09:30 and 09:45 every day"},
	{"15,45 30 23 31 12 *", NULL, "At 23:30:15 and 23:30:45 on the 31st of December"},
	{"*/5 9 * * *", NULL, "Every 5 minutes from 09:00 to 09:59, every day"},
	{"* 9-11 * * *", NULL, "Every minute from 09:00 to 11:59, every day"},
	{"0,30 9-17 * * MON-FRI", NULL,
	 "At minute 0 and 30 of every hour from 09:00 to 17:59, Monday to Friday"},
	{"0 8-12,14-18 * * *", NULL,
	 "At minute 0 of every hour from 08:00 to 12:59 and from 14:00 to 18:59, every day"},
	{"0,30 0,4,8,12 * * *", NULL,
	 "At minute 0 and 30 of every hour from 00:00 to 00:59, from 04:00 to 04:59, from 08:00 to "
	 "08:59 and from 12:00 to 12:59, every day"},
	{"* 59 23 * * *", NULL, "Every second of minute 59 of every hour from 23:00 to 23:59, every day"},

	/* Days of the week. */
	{"0 9 * * MON-FRI", NULL, "At 09:00, Monday to Friday"},
	{"0 9 * * 5-7", NULL, "At 09:00, Friday to Sunday"},
	{"0 9 * * 0", NULL, "At 09:00 every Sunday"},
	{"0 9 * * 7", NULL, "At 09:00 every Sunday"},
	{"0 9 * * SAT,SUN", NULL, "At 09:00 every Saturday and Sunday"},
	{"0 9 * * 1,3,5", NULL, "At 09:00 every Monday, Wednesday and Friday"},
	{"0 9 * * 0,1,2", NULL, "At 09:00 every Monday, Tuesday and Sunday"},
	{"*/10 * * * FRI", NULL, "Every 10 minutes, every Friday"},
	{"*/10 * * 12 FRI", NULL, "Every 10 minutes, every Friday in December"},
	{"0 9 * * FRI#2", NULL, "At 09:00 on the 2nd Friday of every month"},
	{"0 9 * * TUE#2,TUE#4", NULL, "At 09:00 on the 2nd and 4th Tuesday of every month"},
	{"30 2 * * FRI#L", "Europe/Berlin",
	 "At 02:30 on the last Friday of every month, Europe/Berlin"},
	{"30 2 * * 5L", NULL, "At 02:30 on the last Friday of every month"},
	{"0 9 * * SUN#1,SUN#L,MON#1", NULL,
	 "At 09:00 on the 1st Monday and the 1st and last Sunday of every month"},
	{"0 9 * 3 MON,FRI#L", NULL,
	 "At 09:00 on the last Friday of March and on every Monday in that month"},
	{"0 9 * * FRI,FRI#L", NULL, "At 09:00 every Friday"},
	{"0 9 * * MON-FRI,SAT#1", NULL,
	 "At 09:00 on the 1st Saturday of every month and on every day from Monday to Friday"},

	/* Days of the month. */
	{"0 0 1 * *", NULL, "At 00:00 on the 1st of every month"},
	{"0 0 2,3,4,11,12,13,21,22,23,31 * *", NULL,
	 "At 00:00 on the 2nd to 4th, 11th to 13th, 21st to 23rd and 31st of every month"},
	{"0 0 1,2 * *", NULL, "At 00:00 on the 1st and 2nd of every month"},
	{"0 0 1-7 * *", NULL, "At 00:00 on the 1st to 7th of every month"},
	{"0 0 */10 * *", NULL, "At 00:00 on the 1st, 11th, 21st and 31st of every month"},
	{"0 0 */2 * *", NULL, "At 00:00 on every 2nd day from the 1st to the 31st of every month"},
	{"0 0 L * *", NULL, "At 00:00 on the last day of every month"},
	{"0 0 $ * *", NULL, "At 00:00 on the last day of every month"},
	{"0 0 L-1 * *", NULL, "At 00:00 on the day before the last day of every month"},
	{"0 0 L-3 * *", NULL, "At 00:00 on the 3rd day before the last day of every month"},
	{"0 0 L,L-1,L-2,15 * *", NULL,
	 "At 00:00 on the last day, the 1st and 2nd day before the last day and the 15th of every "
	 "month"},
	{"0 0 15W 1,7 *", NULL, "At 00:00 on the weekday nearest the 15th of January and July"},
	{"0 0 LW * *", NULL, "At 00:00 on the last weekday of every month"},
	{"*/20 * L * *", NULL, "Every 20 minutes on the last day of every month"},

	/* Both: either, or with + both. */
	{"0 0 13 * FRI", NULL, "At 00:00 on the 13th of every month and on every Friday"},
	{"0 0 13 1,7 FRI", NULL,
	 "At 00:00 on the 13th of January and July and on every Friday in these months"},
	{"0 0 13 * FRI#L", NULL, "At 00:00 on the last Friday and the 13th of every month"},
	{"0 0 L * MON-FRI", NULL,
	 "At 00:00 on the last day of every month and on every day from Monday to Friday"},
	{"0 0 13 * +FRI", NULL, "At 00:00 on the 13th of every month if it is a Friday"},
	{"0 0 1-7 * +MON,FRI", NULL,
	 "At 00:00 on the 1st to 7th of every month if it is a Monday or Friday"},
	{"0 0 L * +MON-FRI", NULL,
	 "At 00:00 on the last day of every month if it is one of Monday to Friday"},
	{"0 0 20-25 12 +FRI#L,MON", NULL,
	 "At 00:00 on the 20th to 25th of December if it is a Monday or the last Friday of the month"},
	{"0 0 */2 * MON", NULL,
	 "At 00:00 on every 2nd day from the 1st to the 31st of every month and on every Monday"},
	{"0 0 1-31 * FRI", NULL, "At 00:00 every day"},
	{"0 0 13 * 0-6", NULL, "At 00:00 every day"},
	{"0 0 * * +FRI", NULL, "At 00:00 every Friday"},

	/* Months and years. */
	{"0 0 * 1 *", NULL, "At 00:00 every day in January"},
	{"0 0 * 3-5,9 *", NULL, "At 00:00 every day in March to May and September"},
	{"0 0 1 */3 *", NULL, "At 00:00 on the 1st of January, April, July and October"},
	{"*/5 * * 1,7 *", NULL, "Every 5 minutes in January and July"},
	{"0 */2 * 6 *", NULL, "At minute 0 of every 2nd hour in June"},
	{"0 0 0 1 1 * 2027", NULL, "At 00:00 on the 1st of January, in 2027"},
	{"0 0 0 * * * 2026,2028-2030", NULL, "At 00:00 every day, in 2026 and 2028 to 2030"},
	{"0 0 0 29 2 * 2096-2199", NULL, "At 00:00 on the 29th of February, in 2096 to 2199"},
	{"0 0 0 1 1 * 2026/2", NULL,
	 "At 00:00 on the 1st of January, in every 2nd year from 2026 to 2198"},
	{"0 0 0 1 1 * *", NULL, "At 00:00 on the 1st of January"},
	{"* * * * * * 2030", "Asia/Tokyo", "Every second, in 2030, Asia/Tokyo"},

	/* Nicknames. */
	{"@yearly", NULL, "At 00:00 on the 1st of January"},
	{"@annually", NULL, "At 00:00 on the 1st of January"},
	{"@monthly", NULL, "At 00:00 on the 1st of every month"},
	{"@weekly", NULL, "At 00:00 every Sunday"},
	{"@daily", NULL, "At 00:00 every day"},
	{"@midnight", "UTC", "At 00:00 every day, UTC"},
	{"@hourly", NULL, "At minute 0 of every hour"},
	{"@reboot", "UTC", "When the server starts"},

	/* The zone, where it matters: there are offsets of a quarter of an hour. */
	{"* * * * * *", "Asia/Kathmandu", "Every second"},
	{"*/15 * * * *", "Asia/Kathmandu", "Every 15 minutes"},
	{"*/30 * * * * *", "Asia/Kathmandu", "At second 0 and 30 of every minute"},
	{"*/20 * * * *", "Asia/Kathmandu", "Every 20 minutes, Asia/Kathmandu"},
	{"0 * * * *", "Asia/Kathmandu", "At minute 0 of every hour, Asia/Kathmandu"},
	{"* * * * 0-6", "Asia/Kathmandu", "Every minute"},
	{"* * * * 1", "Asia/Kathmandu", "Every minute, every Monday, Asia/Kathmandu"},
	{"* * * 2 *", "Asia/Kathmandu", "Every minute in February, Asia/Kathmandu"},
	{"* 5 * * *", "Asia/Kathmandu", "Every minute from 05:00 to 05:59, every day, Asia/Kathmandu"},

	/* Intervals. */
	{"1 second", NULL, "Every second, counted from its definition"},
	{"30 seconds", "UTC", "Every 30 seconds, counted from its definition"},
	{"60 seconds", NULL, "Every minute, counted from its definition"},
	{"90 seconds", NULL, "Every 90 seconds, counted from its definition"},
	{"90 minutes", NULL, "Every 90 minutes, counted from its definition"},
	{"@every 1h30m", NULL, "Every 90 minutes, counted from its definition"},
	{"1 hour", NULL, "Every hour, counted from its definition"},
	{"36 hours", NULL, "Every 36 hours, counted from its definition"},
	{"1 day", NULL, "Every 24 hours, counted from its definition"},
	{"7 days", NULL, "Every 7 days, counted from its definition"},
	{"365 days", NULL, "Every 365 days, counted from its definition"},
	{"3605 seconds", NULL, "Every 1 hour and 5 seconds, counted from its definition"},
	{"@every 1d2h5s", NULL, "Every 1 day, 2 hours and 5 seconds, counted from its definition"},
	{"121 minutes", NULL, "Every 2 hours and 1 minute, counted from its definition"},
};

static const char *
describe(const CronSchedule *s, const char *zone)
{
	static char sentence[DESCRIBE_MAX];

	describe_schedule(s, zone, NULL, sentence, sizeof(sentence));
	return sentence;
}

static void
test_table(void)
{
	int i;

	for (i = 0; i < lengthof(table); i++)
	{
		CronSchedule s;
		CronError err;

		if (!cron_parse(table[i].text, &s, &err))
			ok(false, "%s: %s", table[i].text, err.message);
		else
			is_str(describe(&s, table[i].zone), table[i].sentence, "%s", table[i].text);
	}
}

static void
test_anchor(void)
{
	CronSchedule s = {.kind = CRON_INTERVAL, .interval_s = 5400};
	char out[100];

	describe_schedule(&s, NULL, "2027-01-01 00:00:00+00", out, sizeof(out));
	is_str(out, "Every 90 minutes, counted from 2027-01-01 00:00:00+00", "an anchor that is given");
}

/* ---------------------------------------------------------------------------------------------
 * What a schedule means, to compare
 */

static bool
bit(uint64_t set, int n)
{
	return (set >> n & 1) != 0;
}

/* Does a day match? length: of its month; first: the weekday of the 1st, Sunday is 0. */
static bool
day_matches(const CronSchedule *s, int length, int first, int day)
{
	int dow = (first + day - 1) % 7;
	bool dom = bit(s->doms, day) || bit(s->doms_from_end, length - day);
	bool week = bit(s->dows, dow) || bit(s->nth_dows[(day + 6) / 7], dow) ||
				(day + 7 > length && bit(s->last_dows, dow));
	int n;

	if (s->last_weekday && dow >= 1 && dow <= 5)
	{
		int later;

		for (later = day + 1; later <= length; later++)
		{
			int of_later = (first + later - 1) % 7;

			if (of_later >= 1 && of_later <= 5)
				break;
		}
		dom = dom || later > length;
	}
	for (n = 1; n <= length; n++)
	{
		int of_n = (first + n - 1) % 7;
		int nearest = n;

		if (!bit(s->nearest_weekdays, n))
			continue;
		if (of_n == 6)
			nearest = n > 1 ? n - 1 : n + 2;
		if (of_n == 0)
			nearest = n < length ? n + 1 : n - 2;
		dom = dom || nearest == day;
	}
	return s->dom_and_dow ? dom && week : dom || week;
}

/* The matching days of months of every length, beginning on every day. */
static void
all_days(const CronSchedule *s, uint32_t days[28])
{
	int length;
	int first;
	int day;

	for (length = 28; length <= 31; length++)
	{
		for (first = 0; first < 7; first++)
		{
			uint32_t set = 0;

			for (day = 1; day <= length; day++)
				set |= (uint32_t) day_matches(s, length, first, day) << day;
			days[(length - 28) * 7 + first] = set;
		}
	}
}

static bool
same_meaning(const CronSchedule *a, const CronSchedule *b)
{
	uint32_t days_a[28];
	uint32_t days_b[28];

	all_days(a, days_a);
	all_days(b, days_b);
	return memcmp(days_a, days_b, sizeof(days_a)) == 0 && a->seconds == b->seconds &&
		   a->minutes == b->minutes && a->hours == b->hours && a->months == b->months &&
		   memcmp(a->years, b->years, sizeof(a->years)) == 0 && a->wall_clock == b->wall_clock;
}

/* ---------------------------------------------------------------------------------------------
 * Random schedules
 */

/* Bits min .. max set in one of the ways in which people set them. */
static uint64_t
random_set(int min, int max)
{
	int low = (int) random_between(min, max);
	int high = (int) random_between(low, max);
	int step = (int) random_between(1, (max - min) / 2 + 1);
	uint64_t set = 0;
	int n;

	switch (random_between(0, 5))
	{
		case 0:
			return UINT64_C(1) << low;
		case 1:
			low = min;
			high = max;
			step = 1;
			break;
		case 2:
			step = 1;
			break;
		case 3:
			low = min;
			high = max;
			break;
		case 4:
			break;
		default:
			for (n = min; n <= max; n++)
				set |= (random_bits() & 1) << n;
			return set != 0 ? set : UINT64_C(1) << low;
	}
	for (n = low; n <= high; n += step)
		set |= UINT64_C(1) << n;
	return set;
}

static void
set_year(CronSchedule *s, int n)
{
	s->years[n / 64] |= UINT64_C(1) << (n % 64);
}

static void
random_years(CronSchedule *s)
{
	int low = (int) random_between(0, YEARS - 1);
	int high = (int) random_between(low, YEARS - 1);
	int step = (int) random_between(1, 10);
	int n;

	if (random_between(0, 2) > 0)
	{
		low = 0;
		high = YEARS - 1;
		step = 1;
	}
	for (n = low; n <= high; n += step)
	{
		if (step < 10 || n == low || (random_bits() & 1))
			set_year(s, n);
	}
}

static bool
one_in(int n)
{
	return random_between(1, n) == 1;
}

/* Of fields, with nothing empty, as the parser makes them. */
static void
random_schedule(CronSchedule *s)
{
	int n;

	memset(s, 0, sizeof(*s));
	s->kind = CRON_FIELDS;
	s->seconds = one_in(2) ? 1 : random_set(0, 59);
	s->minutes = random_set(0, 59);
	s->hours = (uint32_t) random_set(0, 23);
	s->months = (uint32_t) random_set(1, 12);
	random_years(s);
	s->doms = one_in(4) ? 0 : (uint32_t) random_set(1, 31);
	if (one_in(4))
		s->doms_from_end = (uint32_t) random_set(0, 30);
	if (one_in(6))
		s->nearest_weekdays = (uint32_t) random_set(1, 31);
	s->last_weekday = one_in(8);
	if (s->doms == 0 && s->doms_from_end == 0 && s->nearest_weekdays == 0)
		s->last_weekday = true;
	s->dows = one_in(3) ? 0 : (uint8_t) random_set(0, 6);
	for (n = 1; n <= 5; n++)
	{
		if (one_in(8))
			s->nth_dows[n] = (uint8_t) random_set(0, 6);
	}
	s->last_dows = s->dows == 0 || one_in(8) ? (uint8_t) random_set(0, 6) : 0;
	s->dom_and_dow = one_in(2);
	s->wall_clock = s->hours != (1 << 24) - 1 && one_in(2);
}

/* Change one member of one set, or a rule. */
static void
change(CronSchedule *s)
{
	int n;

	switch (random_between(0, 13))
	{
		case 0:
			s->seconds ^= UINT64_C(1) << random_between(0, 59);
			break;
		case 1:
			s->minutes ^= UINT64_C(1) << random_between(0, 59);
			break;
		case 2:
			s->hours ^= UINT32_C(1) << random_between(0, 23);
			break;
		case 3:
			s->months ^= UINT32_C(1) << random_between(1, 12);
			break;
		case 4:
			n = (int) random_between(0, YEARS - 1);
			s->years[n / 64] ^= UINT64_C(1) << (n % 64);
			break;
		case 5:
			s->doms ^= UINT32_C(1) << random_between(1, 31);
			break;
		case 6:
			s->doms_from_end ^= UINT32_C(1) << random_between(0, 30);
			break;
		case 7:
			s->nearest_weekdays ^= UINT32_C(1) << random_between(1, 31);
			break;
		case 8:
			s->last_weekday = !s->last_weekday;
			break;
		case 9:
			s->dows ^= 1 << random_between(0, 6);
			break;
		case 10:
			s->nth_dows[random_between(1, 5)] ^= 1 << random_between(0, 6);
			break;
		case 11:
			s->last_dows ^= 1 << random_between(0, 6);
			break;
		case 12:
			s->dom_and_dow = !s->dom_and_dow;
			break;
		default:
			s->wall_clock = !s->wall_clock;
	}
}

/* Something that the parser could have made? */
static bool
is_proper(const CronSchedule *s)
{
	static const uint64_t no_years[4];
	bool dom = s->doms != 0 || s->doms_from_end != 0 || s->nearest_weekdays != 0 || s->last_weekday;
	bool dow = s->dows != 0 || s->last_dows != 0;
	int n;

	for (n = 1; n <= 5; n++)
		dow = dow || s->nth_dows[n] != 0;
	return s->seconds != 0 && s->minutes != 0 && s->hours != 0 && s->months != 0 &&
		   memcmp(s->years, no_years, sizeof(no_years)) != 0 && dom && dow &&
		   !(s->wall_clock && s->hours == (1 << 24) - 1);
}

/* Is the sentence well-formed? */
static bool
is_clean(const char *sentence)
{
	size_t length = strlen(sentence);

	return length > 0 && length < DESCRIBE_MAX - 1 && sentence[0] >= 'A' && sentence[0] <= 'Z' &&
		   sentence[length - 1] != ' ' && sentence[length - 1] != ',' &&
		   strstr(sentence, "  ") == NULL && strstr(sentence, " ,") == NULL &&
		   strstr(sentence, ",,") == NULL && strstr(sentence, "and and") == NULL;
}

static void
test_exact(void)
{
	int wrong = 0;
	int unclean = 0;
	int compared = 0;
	int i;

	for (i = 0; i < 40000 && wrong + unclean < 5; i++)
	{
		CronSchedule a;
		CronSchedule b;
		char sentence[DESCRIBE_MAX];

		random_schedule(&a);
		b = a;
		change(&b);
		if (one_in(2))
			change(&b);
		if (!is_proper(&b))
			continue;
		compared++;
		describe_schedule(&a, NULL, NULL, sentence, sizeof(sentence));
		if (!is_clean(sentence))
		{
			unclean++;
			printf("# not clean: %s\n", sentence);
		}
		if (strcmp(sentence, describe(&b, NULL)) == 0 && !same_meaning(&a, &b))
		{
			wrong++;
			printf("# of two schedules: %s\n", sentence);
		}
	}
	is_int(wrong, 0, "of %d pairs that differ, none has the same sentence", compared);
	is_int(unclean, 0, "no sentence has stray spaces or commas");
}

/* Few sets, so that many schedules are nearly the same: does any of them have another's sentence? */
typedef struct Described
{
	CronSchedule s;
	char *sentence;
} Described;

static int
by_sentence(const void *a, const void *b)
{
	return strcmp(((const Described *) a)->sentence, ((const Described *) b)->sentence);
}

static void
simple_schedule(CronSchedule *s)
{
	int n;

	memset(s, 0, sizeof(*s));
	s->kind = CRON_FIELDS;
	s->seconds = 1;
	s->minutes = 1;
	s->hours = 1;
	s->wall_clock = true;
	s->months = one_in(2) ? 0x1ffe : 1 << random_between(1, 2);
	memset(s->years, 0, sizeof(s->years));
	for (n = 0; n < YEARS; n++)
		set_year(s, n);
	s->doms = one_in(4) ? 0xfffffffe : (uint32_t) random_between(0, 7) << 1;
	s->doms_from_end = one_in(2) ? 0 : (uint32_t) random_between(0, 7);
	s->nearest_weekdays = one_in(2) ? 0 : (uint32_t) random_between(0, 7) << 1;
	s->last_weekday = one_in(4);
	s->dows = one_in(4) ? 0x7f : (uint8_t) random_between(0, 7) << 1;
	s->nth_dows[1] = one_in(2) ? 0 : (uint8_t) random_between(0, 7) << 1;
	s->nth_dows[3] = one_in(2) ? 0 : (uint8_t) random_between(0, 7) << 1;
	s->last_dows = one_in(2) ? 0 : (uint8_t) random_between(0, 7) << 1;
	s->dom_and_dow = one_in(2);
}

static void
test_many(void)
{
	enum
	{
		COUNT = 20000
	};
	Described *all = malloc(COUNT * sizeof(Described));
	int wrong = 0;
	int n = 0;
	int i;

	while (n < COUNT)
	{
		simple_schedule(&all[n].s);
		if (is_proper(&all[n].s))
		{
			all[n].sentence = strdup(describe(&all[n].s, NULL));
			n++;
		}
	}
	qsort(all, n, sizeof(Described), by_sentence);
	for (i = 1; i < n; i++)
	{
		if (strcmp(all[i - 1].sentence, all[i].sentence) != 0 ||
			same_meaning(&all[i - 1].s, &all[i].s))
			continue;
		if (wrong++ < 5)
			printf("# of two schedules: %s\n", all[i].sentence);
	}
	is_int(wrong, 0, "of %d schedules of few days, none has another's sentence", n);
	for (i = 0; i < n; i++)
		free(all[i].sentence);
	free(all);
}

/* ---------------------------------------------------------------------------------------------
 * Intervals and zones
 */

/* The seconds that "Every 1 day, 2 hours and 5 seconds, counted from ..." says; -1: it says nothing. */
static int64_t
seconds_said(const char *sentence)
{
	static const struct
	{
		const char *name;
		int64_t seconds;
	} units[] = {{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}};
	char text[DESCRIBE_MAX];
	int64_t total = 0;
	int64_t count = 1; /* as in "Every minute" */
	char *word;

	if (sscanf(sentence, "Every %1000[^\n]", text) != 1 || strstr(text, ", counted from ") == NULL)
		return -1;
	*strstr(text, ", counted from ") = '\0';
	for (word = strtok(text, " ,"); word != NULL; word = strtok(NULL, " ,"))
	{
		int i;

		if (word[0] >= '0' && word[0] <= '9')
			count = strtoll(word, NULL, 10);
		for (i = 0; i < lengthof(units); i++)
		{
			if (strncmp(word, units[i].name, strlen(units[i].name)) == 0)
				total += count * units[i].seconds;
		}
	}
	return total;
}

static void
test_intervals(void)
{
	static const int64_t units[] = {1, 60, 3600, 86400, 90061};
	CronSchedule s = {.kind = CRON_INTERVAL};
	int wrong = 0;
	int i;

	for (i = 0; i < 30000 && wrong < 5; i++)
	{
		int64_t unit = units[random_between(0, lengthof(units) - 1)];

		s.interval_s = unit * random_between(1, one_in(2) ? 200 : CRON_MAX_INTERVAL / unit);
		if (seconds_said(describe(&s, NULL)) != s.interval_s || !is_clean(describe(&s, NULL)))
		{
			wrong++;
			printf("# of %" PRId64 " seconds: %s\n", s.interval_s, describe(&s, NULL));
		}
	}
	is_int(wrong, 0, "intervals say how long they are");
}

/* A zone that never changes. */
static int32_t
fixed_offset(void *arg, int64_t t, int64_t *until)
{
	*until = INT64_MAX;
	return *(int32_t *) arg;
}

static bool
same_slots(const CronSchedule *s, int32_t offset_a, int32_t offset_b, int64_t after)
{
	CalZone a = {&offset_a, fixed_offset};
	CalZone b = {&offset_b, fixed_offset};
	int64_t slot_a = after;
	int64_t slot_b = after;
	int i;

	for (i = 0; i < 50 && slot_a == slot_b; i++)
	{
		bool found_a = calendar_next(s, &a, 0, slot_a, &slot_a);
		bool found_b = calendar_next(s, &b, 0, slot_b, &slot_b);

		if (found_a != found_b)
			return false;
	}
	return slot_a == slot_b;
}

/* Where the sentence is silent about the zone, the slots must be the same in all of them. */
static void
test_zones(void)
{
	int silent = 0;
	int wrong = 0;
	int i;

	for (i = 0; i < 10000 && wrong < 5; i++)
	{
		int64_t after = random_between(0, INT64_C(4102444800));
		CronSchedule s;

		random_schedule(&s);
		if (one_in(2))
		{
			/* Only seconds and minutes: what is the same in all zones is among these. */
			s.hours = (1 << 24) - 1;
			s.wall_clock = false;
			s.months = 0x1ffe;
			s.doms = 0xfffffffe;
			s.dows = one_in(4) ? 1 : 0x7f;
			s.dom_and_dow = true;
			memset(s.years, 0xff, sizeof(s.years));
			s.years[3] = (UINT64_C(1) << (YEARS - 192)) - 1;
		}
		if (strstr(describe(&s, "Some/Zone"), ", Some/Zone") != NULL)
			continue;
		silent++;
		if (!same_slots(&s, 0, (int32_t) random_between(-48, 56) * 900, after))
		{
			wrong++;
			printf("# not the same in all zones: %s\n", describe(&s, NULL));
		}
	}
	ok(silent > 100, "%d schedules are silent about the zone", silent);
	is_int(wrong, 0, "and do not depend on it");
}

/* ---------------------------------------------------------------------------------------------
 * The buffer
 */

/* What makes a sentence long: members that are neither neighbours nor in steps. */
static void
longest_schedule(CronSchedule *s)
{
	uint64_t odd = UINT64_C(0x5555555555555553);
	int n;

	memset(s, 0, sizeof(*s));
	s->kind = CRON_FIELDS;
	s->seconds = odd & ((UINT64_C(1) << 60) - 1);
	s->minutes = s->seconds;
	s->hours = (uint32_t) odd & 0xffffff;
	s->wall_clock = true;
	s->months = 0x157e & ~0x8;
	for (n = 0; n < 4; n++)
		s->years[n] = odd;
	s->years[3] &= (UINT64_C(1) << (YEARS - 192)) - 1;
	s->doms = (uint32_t) odd & 0xfffffffe;
	s->doms_from_end = (uint32_t) odd & 0x7fffffff;
	s->nearest_weekdays = s->doms;
	s->last_weekday = true;
	for (n = 1; n <= 5; n++)
		s->nth_dows[n] = 0x7f;
	s->last_dows = 0x7f;
}

static void
test_size(void)
{
	CronSchedule s;
	char zone[256];
	char whole[DESCRIBE_MAX];
	size_t length;
	size_t size;
	int wrong = 0;
	int i;

	memset(zone, 'z', 255);
	zone[255] = '\0';
	longest_schedule(&s);
	length = describe_schedule(&s, zone, zone, whole, sizeof(whole));
	ok(length < DESCRIBE_MAX, "a sentence of %zu bytes is within the limit", length);
	is_int((int64_t) strlen(whole), (int64_t) length, "and is written whole");

	for (size = 0; size <= length + 1; size++)
	{
		/* Just as large, so that the sanitizer sees one byte too many. */
		char *out = malloc(size > 0 ? size : 1);
		size_t kept = size > length ? length : size - 1;

		if (describe_schedule(&s, zone, zone, out, size) != length ||
			(size > 0 && (strlen(out) != kept || strncmp(out, whole, kept) != 0)))
			wrong++;
		free(out);
	}
	is_int(wrong, 0, "buffers of every size get as much as they hold");

	wrong = 0;
	for (i = 0; i < 10000; i++)
	{
		random_schedule(&s);
		if (describe_schedule(&s, zone, zone, whole, sizeof(whole)) >= DESCRIBE_MAX)
			wrong++;
	}
	is_int(wrong, 0, "random sentences are within the limit");
}

int
main(void)
{
	random_begin();
	test_table();
	test_anchor();
	test_exact();
	test_many();
	test_intervals();
	test_zones();
	test_size();
	return done();
}
