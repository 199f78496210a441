/*
 * test_calendar_random.c
 *	  Random patterns against an oracle (core/calendar).
 *
 * The oracle knows nothing of fields, months and spans: it steps through every minute (or second)
 * around a change of a zone's offset and keeps a mark for each local time that the clock has shown.
 *
 * DSCHED_SEED repeats a run; the seed of each run is printed.
 */
#include <stdlib.h>
#include <time.h>

#include "core/calendar.h"
#include "core/cron.h"
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
	test_random_days();
	test_random_windows(3000);
	return done();
}
