/*
 * test_schedule_oracle.c
 *	  Parser and calendar against an oracle that looks at every second, over random schedules, zones
 *	  and moments.
 *
 * The oracle (below, with pattern.h and zoneinfo.h) knows only the definitions: what an item of a
 * pattern means, and the rule for changes of a zone's offset at the top of core/calendar.h. It goes
 * through time second by second; all it leaves out are the rest of a day, an hour or a minute of
 * the wall clock in which nothing can match and in which the offset does not change.
 *
 * DSCHED_ROUNDS (8000) is the number of schedules.
 */
#include "core/calendar.h"
#include "pattern.h"
#include "tap.h"

#define MAX_ZONES 1500
#define MAX_SLOTS 12
#define MAX_STEPS 300000 /* of the oracle for one schedule */
#define MAX_REPORTS 10

/* Apia skipped 2011-12-30; the others are where calendars go wrong. */
#define APIA_LEAP INT64_C(1325239200)

static char zones[MAX_ZONES][64];
static int zone_count;
static int reports;

/*
 * The oracle
 */

typedef struct Walk
{
	const Pattern *pattern;
	Zone *zone;
	bool wall_clock;
	int64_t now;	 /* the next second to look at */
	int64_t shown;	 /* the most that the wall clock has shown before it */
	int32_t offset;	 /* from UTC, now .. */
	int64_t until;	 /* .. to here */
	int64_t steps;
	Day day;
	bool day_matches;
} Walk;

/*
 * How many seconds from local time x on are settled: 0 if x matches, else those up to the end of
 * its day, hour, minute or second, whichever cannot match.
 */
static int64_t
seconds_without(Walk *walk, int64_t x)
{
	int64_t day = floor_div(x, ZONE_DAY);
	int second = (int) (x - day * ZONE_DAY);

	walk->steps++;
	if (walk->day.number != day)
	{
		walk->day = day_of(day);
		walk->day_matches = pattern_has_day(walk->pattern, &walk->day);
	}
	if (!walk->day_matches)
		return ZONE_DAY - second;
	if (!field_has_value(walk->pattern, HOUR, second / 3600))
		return 3600 - second % 3600;
	if (!field_has_value(walk->pattern, MINUTE, second / 60 % 60))
		return 60 - second % 60;
	return field_has_value(walk->pattern, SECOND, second % 60) ? 0 : 1;
}

static bool
any_matches(Walk *walk, int64_t first, int64_t last)
{
	while (first <= last)
	{
		int64_t skip = seconds_without(walk, first);

		if (skip == 0)
			return true;
		first += skip;
	}
	return false;
}

static void
walk_begin(Walk *walk, const Pattern *pattern, Zone *zone, int64_t after)
{
	int64_t t = after - 3 * ZONE_DAY; /* no zone was ever set back by more */

	memset(walk, 0, sizeof(*walk));
	walk->pattern = pattern;
	walk->zone = zone;
	walk->wall_clock = names_wall_clock(pattern);
	walk->now = after + 1;
	walk->shown = INT64_MIN;
	walk->day.number = INT64_MIN;
	while (t <= after)
	{
		int64_t until, last;

		walk->offset = zone_offset_at(zone, t, &until);
		last = until > after ? after : until - 1;
		if (last + walk->offset > walk->shown)
			walk->shown = last + walk->offset;
		t = last + 1;
	}
	walk->offset = zone_offset_at(zone, walk->now, &walk->until);
}

/*
 * The next slot, up to 'limit' and with no more than MAX_STEPS in all. If there is none, walk->now
 * is the first second that was not looked at.
 */
static bool
walk_next(Walk *walk, int64_t limit, int64_t *slot)
{
	while (walk->now <= limit && walk->steps < MAX_STEPS)
	{
		int64_t now = walk->now, local, pass;
		bool hit;

		if (now >= walk->until)
			walk->offset = zone_offset_at(walk->zone, now, &walk->until);
		local = now + walk->offset;
		pass = seconds_without(walk, local);
		if (walk->wall_clock)
			hit = local > walk->shown && any_matches(walk, walk->shown + 1, local);
		else
			hit = pass == 0;
		if (hit || pass == 0)
			pass = 1;
		walk->now = now + pass < walk->until ? now + pass : walk->until;
		if (walk->now - 1 + walk->offset > walk->shown)
			walk->shown = walk->now - 1 + walk->offset;
		if (hit)
		{
			*slot = now;
			return true;
		}
	}
	return false;
}

/*
 * Zones and moments
 */

/* By how much a clock may be moved: usual steps, odd ones, and a day. */
static int32_t
choose_shift(void)
{
	static const int32_t shifts[] = {1, 60, 900, 1200, 1800, 3600, 3600, 5400, 7200, 10800, 86400};
	int32_t shift = shifts[random_between(0, sizeof(shifts) / sizeof(shifts[0]) - 1)];

	if (chance(15))
		shift = (int32_t) random_between(1, 86400);
	return chance(50) ? shift : -shift;
}

/* A zone that no government would make: changes by minutes and by a day, some but an hour apart. */
static void
make_synthetic_zone(Zone *zone)
{
	int64_t t = random_between(0, INT64_C(7200000000));
	int i;

	memset(zone, 0, sizeof(*zone));
	strcpy(zone->name, "synthetic");
	zone->changes = (int) random_between(1, 200);
	zone->offset[0] = (int32_t) random_between(-48, 56) * 900;
	for (i = 0; i < zone->changes; i++)
	{
		int32_t offset = zone->offset[i] + choose_shift();

		/* Those of the world: within 16 hours. */
		zone->offset[i + 1] = offset < -57600 || offset > 57600 ? 0 : offset;
		zone->at[i] = t;
		t += chance(30) ? random_between(1, 20) * 900 : random_between(1, 96) * 3600;
		if (chance(10))
			t += random_between(1, 20000000);
	}
	zone->rule_std = zone->offset[zone->changes];
}

static void
choose_zone(Zone *zone)
{
	if (chance(5))
		zone_load(zone, "Australia/Lord_Howe"); /* half an hour of daylight saving */
	else if (chance(75))
		zone_load(zone, zones[random_between(0, zone_count - 1)]);
	else
		make_synthetic_zone(zone);
	if (chance(20)) /* the server's zones tell of changes that are none */
		zone->chop = random_between(1, 60) * ZONE_DAY / 2;
}

static int64_t
at_midnight(int64_t year, int month, int dom)
{
	int64_t day = days_before_year(year);
	int m;

	for (m = 1; m < month; m++)
		day += days_in_month(year, m);
	return (day + dom - 1) * ZONE_DAY;
}

static int64_t
near_change_of(Zone *zone)
{
	int64_t t = chance(80) ? random_between(at_midnight(1960, 1, 1), at_midnight(2040, 1, 1))
						   : random_between(at_midnight(1850, 1, 1), at_midnight(2199, 1, 1));
	int64_t until, here;
	int32_t offset = zone_offset_at(zone, t, &until);
	int i;

	if (zone->changes > 0 && chance(30))
		return zone->at[random_between(0, zone->changes - 1)];
	for (i = 0; i < 50 && until != INT64_MAX && until < CALENDAR_END; i++)
	{
		here = until;
		if (zone_offset_at(zone, here, &until) != offset)
			return here;
	}
	return t;
}

static int64_t
choose_moment(Zone *zone)
{
	int64_t year = random_between(1970, 2199), t;
	int month = (int) random_between(1, 12);

	switch (random_between(1, 10))
	{
		case 1:
		case 2:
		case 3:
		case 4:
			t = near_change_of(zone);
			if (t < at_midnight(1850, 1, 1))
				t = at_midnight(1970, 1, 1);
			break;
		case 5:
			t = at_midnight(year, month, days_in_month(year, month)) + ZONE_DAY;
			break;
		case 6:
			t = at_midnight(year / 4 * 4, 2, 28) + ZONE_DAY;
			break;
		case 7:
			t = APIA_LEAP;
			break;
		case 8:
			t = at_midnight(chance(50) ? 2100 : year, chance(50) ? 3 : 1, 1);
			break;
		case 9:
			t = chance(50) ? at_midnight(1970, 1, 1) : at_midnight(2199, 12, 31);
			break;
		default:
			t = random_between(at_midnight(1850, 1, 1), at_midnight(2199, 12, 1));
	}
	switch (random_between(1, 4))
	{
		case 1:
			return t + random_between(-2, 2);
		case 2:
			return t + random_between(-8, 8) * 1800;
		default:
			return t + random_between(-2 * ZONE_DAY, ZONE_DAY);
	}
}

/*
 * Checks. Each returns whether all is well, and says what is not.
 */

static void
print_time(const char *what, Zone *zone, bool known, int64_t t)
{
	int64_t until, local, day;
	int32_t offset;
	Day date;

	if (!known)
	{
		printf("#   %-10s none\n", what);
		return;
	}
	offset = zone_offset_at(zone, t, &until);
	local = t + offset;
	day = floor_div(local, ZONE_DAY);
	date = day_of(day);
	local -= day * ZONE_DAY;
	printf("#   %-10s %" PRId64 " (%04d-%02d-%02d %02d:%02d:%02d %+d)\n", what, t, (int) date.year,
		   date.month, date.dom, (int) local / 3600, (int) local / 60 % 60, (int) local % 60, offset);
}

/* The first line of a report of something wrong; false when there have been enough of them. */
static bool
report(const char *what, const Pattern *p, const Zone *zone)
{
	if (++reports > MAX_REPORTS)
		return false;
	printf("# %s: \"%s\" %s\n", what, p->text, zone != NULL ? zone->name : "");
	return true;
}

static bool
same_slot(const char *what, const Pattern *p, Zone *zone, int64_t after, bool want_any, int64_t want,
		  bool got_any, int64_t got)
{
	if (want_any == got_any && (!got_any || want == got))
		return true;
	if (report(what, p, zone))
	{
		print_time("after", zone, true, after);
		print_time("got", zone, got_any, got);
		print_time("want", zone, want_any, want);
	}
	return false;
}

typedef struct Case
{
	Pattern pattern;
	CronSchedule schedule;
	Zone zone;
	CalZone calendar;
	int64_t after;
} Case;

static bool
check_count(Case *c, int64_t until, int64_t limit, int64_t want)
{
	int64_t got = calendar_count(&c->schedule, &c->calendar, 0, c->after, until, limit);

	if (want > limit)
		want = limit;
	if (got != want && report("count", &c->pattern, &c->zone))
	{
		print_time("after", &c->zone, true, c->after);
		print_time("until", &c->zone, true, until);
		printf("#   got %" PRId64 ", want %" PRId64 "\n", got, want);
	}
	return got == want;
}

/* The n-th slot and the count, for those that the oracle found; there may be more if not "complete". */
static bool
check_jumps(Case *c, const int64_t *slots, int found, bool complete)
{
	int64_t n = random_between(1, found + complete), got = 0, until, want = 0;
	bool any = calendar_nth(&c->schedule, &c->calendar, 0, c->after, n, &got);
	int i;

	if (!same_slot("nth", &c->pattern, &c->zone, c->after, n <= found, n <= found ? slots[n - 1] : 0,
				   any, got))
		return false;

	until = found == 0 ? c->after + 1 : slots[random_between(0, found - 1)] + random_between(-1, 1);
	if (found > 0 && !complete && until > slots[found - 1])
		until = slots[found - 1];
	for (i = 0; i < found; i++)
		want += slots[i] <= until;
	return check_count(c, until, random_between(1, MAX_SLOTS + 1), want);
}

/* The slots after a moment, one by one. */
static bool
check_slots(Case *c)
{
	int64_t slots[MAX_SLOTS], want = 0, got = 0, after = c->after;
	int found = 0, wanted = (int) random_between(1, MAX_SLOTS);
	bool complete = false;
	Walk walk;

	walk_begin(&walk, &c->pattern, &c->zone, after);
	while (found < wanted)
	{
		bool any = walk_next(&walk, CALENDAR_END - 1, &want);
		bool got_any = calendar_next(&c->schedule, &c->calendar, 0, after, &got);

		if (any || walk.now >= CALENDAR_END)
		{
			if (!same_slot("next", &c->pattern, &c->zone, after, any, want, got_any, got))
				return false;
		}
		else if (got_any && got < walk.now) /* the oracle gave up before the next one */
			return same_slot("next", &c->pattern, &c->zone, after, false, 0, got_any, got);
		if (!any)
		{
			complete = walk.now >= CALENDAR_END;
			break;
		}
		slots[found++] = after = want;
	}
	return found + complete == 0 || check_jumps(c, slots, found, complete);
}

/* How many slots of an interval there are up to t. */
static int64_t
interval_slots(int64_t anchor, int64_t step, int64_t t)
{
	if (t >= CALENDAR_END)
		t = CALENDAR_END - 1;
	return t < anchor ? 0 : (t - anchor) / step;
}

static bool
check_interval(Case *c)
{
	int64_t step = c->pattern.interval, n = random_between(1, chance(50) ? 20 : 1000000);
	int64_t anchor, want, got = 0, until, limit;
	const CalZone *zone = chance(50) ? &c->calendar : NULL;
	bool any;

	anchor = c->after + random_between(-200, 20) * (chance(50) ? step : 1) + random_between(-3, 3);
	want = anchor + step;
	while (want <= c->after)
		want += step;
	any = calendar_next(&c->schedule, zone, anchor, c->after, &got);
	if (!same_slot("interval", &c->pattern, &c->zone, c->after, want < CALENDAR_END, want, any, got))
		return false;
	want += (n - 1) * step;
	any = calendar_nth(&c->schedule, zone, anchor, c->after, n, &got);
	if (!same_slot("interval nth", &c->pattern, &c->zone, c->after, want < CALENDAR_END, want, any,
				   got))
		return false;

	until = c->after + random_between(0, 2000) * (chance(50) ? step : 1) + random_between(-3, 3);
	limit = random_between(1, 2000);
	want = interval_slots(anchor, step, until) - interval_slots(anchor, step, c->after);
	want = want < 0 ? 0 : want > limit ? limit : want;
	got = calendar_count(&c->schedule, zone, anchor, c->after, until, limit);
	if (got != want && report("interval count", &c->pattern, NULL))
		printf("#   after %" PRId64 " until %" PRId64 " limit %" PRId64 " anchor %" PRId64
			   ": got %" PRId64 ", want %" PRId64 "\n", c->after, until, limit, anchor, got, want);
	return got == want;
}

/* calendar_nth over long distances against calendar_next, that was checked by the oracle. */
static bool
check_far(Case *c)
{
	int64_t n = random_between(1, 3000), at = c->after, got = 0;
	bool any = true, got_any;
	int64_t i;

	for (i = 0; i < n && any; i++)
		any = calendar_next(&c->schedule, &c->calendar, 0, at, &at);
	got_any = calendar_nth(&c->schedule, &c->calendar, 0, c->after, n, &got);
	if (!same_slot("far nth", &c->pattern, &c->zone, c->after, any, at, got_any, got))
		return false;
	return !any || check_count(c, at, chance(50) ? n + 1 : random_between(1, n), n);
}

/* What a good text is taken for. */
static bool
check_accepted(const Pattern *p, const CronSchedule *s)
{
	CronKind kind = p->kind == INTERVAL ? CRON_INTERVAL : CRON_FIELDS;

	const char *wrong = NULL;

	if (s->kind != kind)
		wrong = "kind";
	else if (strcmp(s->zone, p->zone != NULL ? p->zone : "") != 0)
		wrong = "zone";
	else if (kind == CRON_INTERVAL && s->interval_s != p->interval)
		wrong = "interval";
	else if (kind == CRON_FIELDS && s->wall_clock != names_wall_clock(p))
		wrong = s->wall_clock ? "wall clock" : "no wall clock";
	if (wrong != NULL)
		report(wrong, p, NULL);
	return wrong == NULL;
}

static bool
is_sane_error(const char *text, const CronError *error)
{
	return error->position >= 1 && error->position <= (int) strlen(text) + 1 && error->field >= 0 &&
		   error->field <= FIELDS && memchr(error->message, '\0', sizeof(error->message)) != NULL &&
		   memchr(error->hint, '\0', sizeof(error->hint)) != NULL && error->message[0] != '\0';
}

/*
 * Rounds
 */

static void
choose_case(Case *c)
{
	int64_t until, local;

	memset(c, 0, sizeof(*c));
	choose_zone(&c->zone);
	c->calendar.arg = &c->zone;
	c->calendar.offset_at = zone_offset_at;
	c->after = choose_moment(&c->zone);

	/* Half of the patterns are for about that time, so that they often hit what is special there. */
	local = c->after + zone_offset_at(&c->zone, c->after, &until);
	aimed = chance(50);
	aim_at(local);
	if (aimed)
		c->after -= chance(50) ? random_between(0, 7200) : random_between(0, 2 * ZONE_DAY);
	make_pattern(&c->pattern, chance(5) ? zones[random_between(0, zone_count - 1)] : NULL);
}

typedef struct Tally
{
	int accepted, refused, wrong_texts, wrong_slots, wrong_far;
} Tally;

static void
play_round(Tally *tally)
{
	static Case c;
	CronError error;
	bool fires, accepted;

	choose_case(&c);
	fires = c.pattern.kind == INTERVAL || can_fire(&c.pattern);
	accepted = cron_parse(c.pattern.text, &c.schedule, &error);
	if (accepted != fires)
	{
		tally->wrong_texts++;
		if (report(accepted ? "accepted, but never fires" : "refused, but fires", &c.pattern, NULL) &&
			!accepted)
			printf("#   %s\n", error.message);
		return;
	}
	if (!accepted)
	{
		tally->refused++;
		if (!is_sane_error(c.pattern.text, &error))
			tally->wrong_texts++;
		return;
	}
	tally->accepted++;
	if (!check_accepted(&c.pattern, &c.schedule))
		tally->wrong_texts++;
	else if (c.pattern.kind == INTERVAL ? !check_interval(&c) : !check_slots(&c))
		tally->wrong_slots++;
	else if (c.pattern.kind != INTERVAL && chance(10) && !check_far(&c))
		tally->wrong_far++;
}

static int
rounds(void)
{
	const char *given = getenv("DSCHED_ROUNDS");

	return given != NULL ? atoi(given) : 8000;
}

static void
test_schedules(void)
{
	Tally tally = {0};
	int i, count = rounds();

	for (i = 0; i < count && reports < MAX_REPORTS; i++)
	{
		uint64_t seed = random_state;
		int before = reports;

		play_round(&tally);
		if (reports > before)
			printf("#   again: DSCHED_SEED=%" PRIu64 " DSCHED_ROUNDS=1\n", seed);
	}
	printf("# %d schedules accepted, %d refused that never fire\n", tally.accepted, tally.refused);
	ok(count < 1000 || tally.accepted > count / 2, "most schedules can fire");
	ok(count < 1000 || tally.refused > 0, "some cannot");
	is_int(tally.wrong_texts, 0, "what can fire is accepted for what it says, what cannot is refused");
	is_int(tally.wrong_slots, 0, "the slots are those of the oracle");
	is_int(tally.wrong_far, 0, "the n-th slot and the count agree with going slot by slot");
}

/*
 * What is wrong in a field is refused, and the error points there.
 */

#define IN(field) (1 << (field))
#define ANYWHERE (IN(FIELDS) - 1)
#define BUT(fields) (ANYWHERE & ~(fields))

static const struct
{
	const char *text;
	int fields;
} mistakes[] = {
	{"*/0", ANYWHERE}, {"/5", ANYWHERE}, {"*/", ANYWHERE}, {"*/2/3", ANYWHERE}, {"*/-1", ANYWHERE},
	{"**", ANYWHERE}, {"*5", ANYWHERE}, {"5*", ANYWHERE}, {",5", ANYWHERE}, {"5,", ANYWHERE},
	{"5,,6", ANYWHERE}, {"-5", ANYWHERE}, {"5-", ANYWHERE}, {"*-5", ANYWHERE}, {"5-*", ANYWHERE},
	{"1-5-7", ANYWHERE}, {"5.5", ANYWHERE}, {"5;6", ANYWHERE}, {"0x5", ANYWHERE},
	{"five", ANYWHERE}, {"99999999999999999999", ANYWHERE}, {"4294967297", ANYWHERE},
	{"*/4294967297", ANYWHERE}, {"5/99999999999999999999", ANYWHERE}, {"\xc3\xa4", ANYWHERE},
	{"!", ANYWHERE}, {"5-1", ANYWHERE}, {"5-0", ANYWHERE}, {"5-1/2", ANYWHERE},
	{"*/60", BUT(IN(YEAR))}, {"*/230", ANYWHERE}, {"0", IN(DOM) | IN(MONTH) | IN(YEAR)},
	{"0-5", IN(DOM) | IN(MONTH)}, {"1969", IN(YEAR)}, {"2200", IN(YEAR)}, {"2199-2200", IN(YEAR)},
	{"?", BUT(IN(DOM) | IN(DOW))}, {"+5", BUT(IN(DOW))}, {"1,+5", ANYWHERE}, {"++5", ANYWHERE},
	{"5+", ANYWHERE}, {"+", ANYWHERE}, {"FRI-MON", ANYWHERE}, {"SAT-MON", ANYWHERE},
	{"DEC-JAN", ANYWHERE}, {"MONDAY", ANYWHERE}, {"MO", ANYWHERE}, {"JANUARY", ANYWHERE},
	{"MON", BUT(IN(DOW))}, {"JAN", BUT(IN(MONTH))}, {"L", BUT(IN(DOM))}, {"l", ANYWHERE},
	{"L-31", ANYWHERE}, {"L-", ANYWHERE}, {"-L", ANYWHERE}, {"L5", ANYWHERE}, {"L/2", ANYWHERE},
	{"W", ANYWHERE}, {"LW", BUT(IN(DOM))}, {"WL", ANYWHERE}, {"lW", ANYWHERE}, {"Lw", ANYWHERE},
	{"15w", ANYWHERE}, {"15W", BUT(IN(DOM))}, {"0W", ANYWHERE}, {"32W", ANYWHERE},
	{"1-15W", ANYWHERE}, {"1W-15", ANYWHERE}, {"15W/2", ANYWHERE}, {"15W,20", ANYWHERE},
	{"20,15W", ANYWHERE}, {"1W,15W", ANYWHERE}, {"LW,1", ANYWHERE}, {"$", BUT(IN(DOM))},
	{"$$", ANYWHERE}, {"5#2", BUT(IN(DOW))}, {"5#0", ANYWHERE}, {"5#6", ANYWHERE},
	{"1,5#0", ANYWHERE}, {"5#", ANYWHERE}, {"#2", ANYWHERE}, {"8#1", ANYWHERE}, {"8L", ANYWHERE},
	{"5#2#3", ANYWHERE}, {"1-5#2", ANYWHERE}, {"5#2-3", ANYWHERE}, {"5#l", ANYWHERE},
	{"5l", ANYWHERE}, {"5#L", BUT(IN(DOW))}, {"5L", BUT(IN(DOW))}, {"5#2/2", ANYWHERE},
	{"1-5L", ANYWHERE}, {"*#2", ANYWHERE}, {"*L", ANYWHERE}, {"*W", ANYWHERE}, {"5LW", ANYWHERE},
};

/* A good pattern with the mistake in this field, which alone is wrong. */
static bool
check_mistake(const char *mistake, int field)
{
	Pattern p;
	CronSchedule untouched, schedule;
	CronError error;
	int written, i;

	memset(&p, 0, sizeof(p));
	p.zone = chance(20) ? "Europe/Berlin" : NULL;
	write_prefix(&p);
	p.first = field == YEAR || field == SECOND || chance(50) ? SECOND : MINUTE;
	p.last = field == YEAR || (p.first == SECOND && chance(50)) ? YEAR : DOW;
	for (i = p.first; i <= p.last; i++)
	{
		p.count[i] = 1;
		strcpy(p.items[i][0].text, i == field ? mistake : "*");
	}
	write_fields(&p);
	memset(&schedule, 0x5a, sizeof(schedule));
	memset(&untouched, 0x5a, sizeof(untouched));
	memset(&error, 0x5a, sizeof(error));
	written = field - p.first + 1;
	if (cron_parse(p.text, &schedule, &error))
		report("accepted", &p, NULL);
	else if (memcmp(&schedule, &untouched, sizeof(schedule)) != 0)
		report("refused, but the result was touched", &p, NULL);
	else if (!is_sane_error(p.text, &error) || error.field_name == NULL)
		report("bad error", &p, NULL);
	else if (error.field != written || error.position < p.start[field] + 1 ||
			 error.position > p.end[field] + 1)
	{
		if (report("error elsewhere", &p, NULL))
			printf("#   field %d at %d: %s\n", error.field, error.position, error.message);
	}
	else
		return true;
	return false;
}

static void
test_mistakes(void)
{
	int field, i, checked = 0, wrong = 0;

	reports = 0;
	for (field = SECOND; field <= YEAR; field++)
	{
		char beyond[16];

		sprintf(beyond, "%d", field_ranges[field].max + 1);
		wrong += !check_mistake(beyond, field);
		sprintf(beyond, "*/%d", field_ranges[field].max_step + 1);
		wrong += !check_mistake(beyond, field);
		for (i = 0; i < (int) (sizeof(mistakes) / sizeof(mistakes[0])); i++)
			if ((mistakes[i].fields & IN(field)) != 0)
			{
				checked++;
				wrong += !check_mistake(mistakes[i].text, field);
			}
	}
	ok(checked > 500, "%d mistakes", checked);
	is_int(wrong, 0, "a mistake in a field is refused, and the error says where");
}

static void
test_bad_texts(void)
{
	static const char *const texts[] = {
		"", " ", "\t", "*", "* *", "* * *", "* * * *", "* * * * * * * *", "* * * * * x",
		"* * * * *\n", "\n* * * * *", "5\x01 * * * *", "*\v* * * *", "* * * * *\xc2\xa0", "@",
		"@Daily", "@DAILY", "@dailyx", "@daily x", "@daily * * * * *", "* * * * * @daily",
		"x@daily", "@fortnightly", "@every", "@every ", "@every 1h 30m x", "@every 0s",
		"@every -5s", "@every 5", "@every h", "@every 5x", "@every 5H",
		"@every 99999999999999999999s", "@every 9223372036854775807d", "@every 3654d", "0 seconds",
		"-5 seconds", "5", "5 second minutes", "5 fortnights", "5 minutes 3", "3654 days",
		"99999999999999999999 days", "5minutes x", "TZ=", "TZ= * * * * *", "TZ=UTC", "TZ=UTC ",
		"TZ * * * * *", "tz=UTC * * * * *", "TZ=UTC TZ=UTC * * * * *", "TZ=UTC,* * * * *",
		"0 0 30 2 *", "0 0 31 4,6,9,11 ?", "0 0 L-30 2 *", "0 0 L-29 2 *", "0 0 31W 4 *",
		"0 0 0 29 2 * 2100", "0 0 0 29 2 * 2023-2025/2", "0 0 1 * +2#2", "0 0 29 2 +5#4",
		"0 0 0 1 1 +MON 2199", "0 0 0 * 2 MON#5 2023", "0 0 LW * +SUN",
	};
	int i, wrong = 0;
	char longest[5000];

	for (i = 0; i < (int) (sizeof(texts) / sizeof(texts[0])); i++)
	{
		CronSchedule schedule;
		CronError error;

		memset(&error, 0x5a, sizeof(error));
		if (cron_parse(texts[i], &schedule, &error) || !is_sane_error(texts[i], &error))
		{
			printf("# \"%s\"\n", texts[i]);
			wrong++;
		}
	}
	is_int(wrong, 0, "texts that are no schedules, or can never fire, are refused");

	memset(longest, '1', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	for (i = 0; i < 5; i++)
		longest[i * 2 + 1] = ' ';
	{
		CronSchedule schedule;
		CronError error;

		ok(!cron_parse(longest, &schedule, &error) && is_sane_error(longest, &error),
		   "a text of 5000 bytes is refused");
	}
}

/* The ends of time, and what is too much to be gone through one by one. */
static void
test_limits(void)
{
	static Zone utc = {.name = "none"};
	CalZone zone = {&utc, zone_offset_at};
	int64_t days = days_before_year(CRON_LAST_YEAR + 1), seconds = days * ZONE_DAY, slot;
	CronSchedule s;
	CronError error;

	ok(cron_parse("* * * * * *", &s, &error), "every second");
	is_int(calendar_count(&s, &zone, 0, INT64_MIN, INT64_MAX, INT64_MAX), seconds, "all of them");
	is_int(calendar_count(&s, &zone, 0, -1, seconds, seconds - 1), seconds - 1, "so many, no more");
	is_int(calendar_count(&s, &zone, 0, 99, 99, 5), 0, "none in no time");
	is_int(calendar_count(&s, &zone, 0, 99, 50, 5), 0, "none backwards");
	is_int(calendar_count(&s, &zone, 0, INT64_MIN, -1, 5), 0, "none before 1970");
	ok(calendar_nth(&s, &zone, 0, 1000, 5000000000, &slot) && slot == 5000001000, "the n-th second");
	ok(calendar_nth(&s, &zone, 0, INT64_MIN, seconds, &slot) && slot == seconds - 1, "the last second");
	ok(!calendar_nth(&s, &zone, 0, INT64_MIN, seconds + 1, &slot), "none after it");
	ok(!calendar_nth(&s, &zone, 0, 0, INT64_MAX, &slot), "nor long after it");
	ok(calendar_next(&s, &zone, 0, INT64_MIN, &slot) && slot == 0, "the first second");
	ok(!calendar_next(&s, &zone, 0, seconds - 1, &slot), "none after the end");
	ok(!calendar_next(&s, &zone, 0, INT64_MAX, &slot), "none after the end of time");

	ok(cron_parse("0 0 29 2 *", &s, &error), "leap days");
	is_int(calendar_count(&s, &zone, 0, INT64_MIN, INT64_MAX, 1000), 56, "all of them");
	ok(cron_parse("0 0 1 * *", &s, &error), "months");
	is_int(calendar_count(&s, &zone, 0, INT64_MIN, INT64_MAX, 10000), 230 * 12, "all of them");
	ok(cron_parse("0 0 * * 3#5,MON#L 0", &s, &error) == false, "six fields that begin with the minute");

	ok(cron_parse("@every 1s", &s, &error), "an interval");
	ok(!calendar_next(&s, NULL, 0, INT64_MAX, &slot), "none after the end of time");
	ok(!calendar_next(&s, NULL, INT64_MAX, 0, &slot), "none if it begins then");
	ok(!calendar_nth(&s, NULL, 0, 0, INT64_MAX, &slot), "none beyond the end");
	ok(calendar_nth(&s, NULL, 0, 0, CALENDAR_END - 1, &slot) && slot == CALENDAR_END - 1, "the last");
	ok(!calendar_nth(&s, NULL, 0, 0, CALENDAR_END, &slot), "none at the end");
	is_int(calendar_count(&s, NULL, 0, 0, INT64_MAX, INT64_MAX), CALENDAR_END - 1, "all of them");
	is_int(calendar_count(&s, NULL, 0, 0, INT64_MAX, 7), 7, "as many as are asked for");

	ok(cron_parse(" @reboot\t", &s, &error) && s.kind == CRON_REBOOT, "at the start");
	ok(!calendar_next(&s, &zone, 0, 0, &slot) && !calendar_nth(&s, &zone, 0, 0, 1, &slot), "has no slot");
	is_int(calendar_count(&s, &zone, 0, INT64_MIN, INT64_MAX, 10), 0, "none at all");
}

/* The oracle's zones are worth nothing if they are wrong: compare them with the C library's. */
static void
test_zones(void)
{
	int i, wrong = 0, compared = 0;
	static Zone zone;

	for (i = 0; i < zone_count; i++)
	{
		int k;

		setenv("TZ", zones[i], 1);
		tzset();
		zone_load(&zone, zones[i]);
		for (k = 0; k < 30; k++)
		{
			int64_t t = near_change_of(&zone) + random_between(-1, 1), until;
			time_t at = t;
			struct tm tm;

			if (zone.changes > 0 && t < zone.at[0])
				continue;
			compared++;
			if (localtime_r(&at, &tm) == NULL || tm.tm_gmtoff != zone_offset_at(&zone, t, &until))
			{
				if (wrong++ < MAX_REPORTS)
					print_time(zones[i], &zone, true, t);
			}
		}
	}
	unsetenv("TZ");
	tzset();
	ok(zone_count >= 300, "%d zones in %s", zone_count, zone_directory());
	ok(compared > zone_count, "%d comparisons with the C library", compared);
	is_int(wrong, 0, "the oracle's zones are right");
}

int
main(void)
{
	random_begin();
	zone_count = all_zone_names(zones, MAX_ZONES);
	if (zone_count == 0)
	{
		printf("Bail out! no time zones in %s; TZDIR may name another directory\n", zone_directory());
		return 1;
	}
	test_schedules();
	test_mistakes();
	test_bad_texts();
	test_limits();
	test_zones();
	return done();
}
