/*
 * pattern.h
 *	  Random schedules for unit tests: a structure, its text, and what it means by the book.
 *
 * The text goes to the parser under test. The meaning is found from the structure, item by item and
 * value by value, so that no mistake of the parser can be repeated here. The book is the Open Cron
 * Pattern Specification and, for what that leaves open, the top of core/cron.h.
 */
#ifndef DSCHED_TEST_PATTERN_H
#define DSCHED_TEST_PATTERN_H

#include "random.h"
#include "zoneinfo.h"

enum
{
	SECOND,
	MINUTE,
	HOUR,
	DOM,
	MONTH,
	DOW,
	YEAR,
	FIELDS
};

typedef enum
{
	ALL,		  /* "*" or "?" */
	VALUE,		  /* 5, or 5/10: from 5 to the end */
	RANGE,		  /* 5-10 */
	FROM_END,	  /* day of month: L or $ (0), L-3 */
	LAST_WEEKDAY, /* day of month: LW */
	NEAREST,	  /* day of month: 15W */
	NTH,		  /* day of week: 5#2 */
	LAST_DOW	  /* day of week: 5#L, 5L */
} ItemKind;

typedef struct Item
{
	ItemKind kind;
	int a, b, step; /* step: 0 if there is none */
	char text[32];
} Item;

typedef enum
{
	FIELDS_PATTERN,
	NICKNAME,
	INTERVAL
} PatternKind;

#define MAX_ITEMS 5

typedef struct Pattern
{
	PatternKind kind;
	int first, last; /* the fields that are written: SECOND or MINUTE .. DOW or YEAR */
	Item items[FIELDS][MAX_ITEMS];
	int count[FIELDS];
	bool plus; /* +MON */
	int64_t interval;
	const char *zone; /* TZ= prefix, or NULL */
	int start[FIELDS], end[FIELDS]; /* where each field stands in the text */
	char text[CRON_MAX_TEXT];
} Pattern;

typedef struct FieldRange
{
	int min, max;
	int max_step;
	const char *names; /* of three letters each, from the value 'min' on */
} FieldRange;

static const FieldRange field_ranges[FIELDS] = {
	[SECOND] = {0, 59, 59, NULL},
	[MINUTE] = {0, 59, 59, NULL},
	[HOUR] = {0, 23, 23, NULL},
	[DOM] = {1, 31, 31, NULL},
	[MONTH] = {1, 12, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"},
	[DOW] = {0, 7, 7, "SUNMONTUEWEDTHUFRISAT"},
	[YEAR] = {CRON_FIRST_YEAR, CRON_LAST_YEAR, 229, NULL},
};

static inline bool
chance(int percent)
{
	return random_between(1, 100) <= percent;
}

/*
 * Meaning
 */

static inline bool
item_has_value(int field, const Item *item, int value)
{
	int min = field_ranges[field].min;

	switch (item->kind)
	{
		case ALL:
			return item->step == 0 || (value - min) % item->step == 0;
		case VALUE:
			return value == item->a ||
				   (item->step != 0 && value > item->a && (value - item->a) % item->step == 0);
		case RANGE:
			return value >= item->a && value <= item->b &&
				   (item->step == 0 || (value - item->a) % item->step == 0);
		default:
			return false;
	}
}

/* A plain field, that is every one but those of days; a field that is not written is "0" or "*". */
static inline bool
field_has_value(const Pattern *p, int field, int value)
{
	int i;

	for (i = 0; i < p->count[field]; i++)
		if (item_has_value(field, &p->items[field][i], value))
			return true;
	return p->count[field] == 0 && (field != SECOND || value == 0);
}

typedef struct Day
{
	int64_t number; /* of days since 1970-01-01 */
	int64_t year;
	int month, dom, dow, length; /* length: of the month */
} Day;

static inline Day
day_of(int64_t number)
{
	Day day;

	day.number = number;
	date_of(number, &day.year, &day.month, &day.dom);
	day.dow = weekday_of(number);
	day.length = days_in_month(day.year, day.month);
	return day;
}

static inline bool
is_working_day(const Day *day, int dom)
{
	int dow = weekday_of(day->number - day->dom + dom);

	return dow >= 1 && dow <= 5;
}

/* The working day of the month that is nearest to this one; 0 if the month has no such day. */
static inline int
nearest_working_day(const Day *day, int dom)
{
	int distance;

	if (dom > day->length)
		return 0;
	for (distance = 0;; distance++)
	{
		if (dom - distance >= 1 && is_working_day(day, dom - distance))
			return dom - distance;
		if (dom + distance <= day->length && is_working_day(day, dom + distance))
			return dom + distance;
	}
}

static inline int
last_working_day(const Day *day)
{
	int dom = day->length;

	while (!is_working_day(day, dom))
		dom--;
	return dom;
}

static inline bool
dom_has(const Item *item, const Day *day)
{
	switch (item->kind)
	{
		case FROM_END:
			return day->dom == day->length - item->a;
		case LAST_WEEKDAY:
			return day->dom == last_working_day(day);
		case NEAREST:
			return day->dom == nearest_working_day(day, item->a);
		default:
			return item_has_value(DOM, item, day->dom);
	}
}

static inline bool
dow_has(const Item *item, const Day *day)
{
	switch (item->kind)
	{
		case NTH:
			return day->dow == item->a % 7 && (day->dom + 6) / 7 == item->b;
		case LAST_DOW:
			return day->dow == item->a % 7 && day->dom + 7 > day->length;
		case VALUE:
			if (item->step != 0 && item->a == 7) /* 7 is 0 */
				return day->dow % item->step == 0;
			if (item->step != 0) /* a/n ends with Saturday */
				return item_has_value(DOW, item, day->dow);
			/* fall through */
		default:
			return item_has_value(DOW, item, day->dow) ||
				   (day->dow == 0 && item_has_value(DOW, item, 7));
	}
}

/* Is the field more than just "*" or "?"? */
static inline bool
is_restricted(const Pattern *p, int field)
{
	return p->count[field] > 1 || p->items[field][0].kind != ALL || p->items[field][0].step != 0;
}

static inline bool
pattern_has_day(const Pattern *p, const Day *day)
{
	bool dom = false, dow = false;
	int i;

	if (!field_has_value(p, MONTH, day->month))
		return false;
	if (day->year < CRON_FIRST_YEAR || day->year > CRON_LAST_YEAR ||
		!field_has_value(p, YEAR, (int) day->year))
		return false;
	for (i = 0; i < p->count[DOM]; i++)
		dom |= dom_has(&p->items[DOM][i], day);
	for (i = 0; i < p->count[DOW]; i++)
		dow |= dow_has(&p->items[DOW][i], day);
	if (p->plus || !is_restricted(p, DOM) || !is_restricted(p, DOW))
		return dom && dow;
	return dom || dow;
}

/* Does it name wall-clock times: hours neither all nor stepped? */
static inline bool
names_wall_clock(const Pattern *p)
{
	bool all = true;
	int i;

	for (i = 0; i < p->count[HOUR]; i++)
		if (p->items[HOUR][i].step != 0)
			return false;
	for (i = 0; i < 24; i++)
		all &= field_has_value(p, HOUR, i);
	return !all;
}

/* Is there a day from CRON_FIRST_YEAR to CRON_LAST_YEAR on which it can fire? */
static inline bool
can_fire(const Pattern *p)
{
	int64_t day = 0, end = days_before_year(CRON_LAST_YEAR + 1);

	for (; day < end; day++)
	{
		Day date = day_of(day);

		if (pattern_has_day(p, &date))
			return true;
	}
	return false;
}

/*
 * Generation
 */

/* A value as it may be written: a name in any case, a leading zero. */
static inline void
write_value(char *out, int field, int value)
{
	const char *names = field_ranges[field].names;

	if (names != NULL && chance(40))
	{
		int i, index = value - field_ranges[field].min;

		if (field == DOW && index == 7)
			index = 0;
		memcpy(out, names + index * 3, 3);
		out[3] = '\0';
		for (i = 0; i < 3; i++)
			if (chance(30))
				out[i] = (char) tolower((unsigned char) out[i]);
	}
	else
		sprintf(out, field != YEAR && value < 10 && chance(10) ? "0%d" : "%d", value);
}

/* The local time that patterns are aimed at, field by field; often some fields hit it. */
static int aim[FIELDS];
static bool aimed;

static inline void
aim_at(int64_t local)
{
	int64_t number = floor_div(local, ZONE_DAY);
	int second = (int) (local - number * ZONE_DAY);
	Day day = day_of(number);

	aim[SECOND] = second % 60;
	aim[MINUTE] = second / 60 % 60;
	aim[HOUR] = second / 3600;
	aim[DOM] = day.dom;
	aim[MONTH] = day.month;
	aim[DOW] = day.dow;
	aim[YEAR] = (int) day.year;
}

static inline int
random_value(int field)
{
	const FieldRange *range = &field_ranges[field];

	if (aimed && chance(60))
	{
		int value = aim[field] + (chance(60) ? 0 : (int) random_between(-2, 2));

		if (value >= range->min && value <= range->max)
			return value;
	}
	if (field == DOM && chance(40))
		return (int) random_between(28, 31);
	if (field == YEAR && chance(80))
		return (int) random_between(1990, 2110);
	return (int) random_between(range->min, range->max);
}

static inline int
random_step(int field)
{
	return (int) random_between(1, chance(50) ? 7 : field_ranges[field].max_step);
}

static inline void
add_step(Item *item, int field)
{
	item->step = random_step(field);
	sprintf(item->text + strlen(item->text), "/%d", item->step);
}

static inline void
make_plain_item(Item *item, int field)
{
	char a[8], b[8];

	if (chance(15))
	{
		bool question = (field == DOM || field == DOW) && chance(50);

		item->kind = ALL;
		strcpy(item->text, question ? "?" : "*");
		if (chance(50))
			add_step(item, field);
		return;
	}
	item->a = random_value(field);
	write_value(a, field, item->a);
	if (chance(55))
	{
		item->kind = VALUE;
		strcpy(item->text, a);
		if (chance(20))
			add_step(item, field);
		return;
	}
	item->kind = RANGE;
	item->b = (int) random_between(item->a, field_ranges[field].max);
	if (field == YEAR && chance(70) && item->b > item->a + 20)
		item->b = item->a + 20;
	write_value(b, field, item->b);
	/* SUN is 0 at the begin of a range and 7 at its end; but from Sunday to SUN is one day. */
	if (field == DOW && item->a == 7)
		strcpy(a, "7");
	if (field == DOW && item->a == 0 && item->b == 7)
		strcpy(b, "7");
	sprintf(item->text, "%s-%s", a, b);
	if (chance(40))
		add_step(item, field);
}

static inline void
make_dom_item(Item *item, bool alone)
{
	switch (random_between(1, alone ? 6 : 3))
	{
		case 1:
			item->kind = FROM_END;
			strcpy(item->text, chance(70) ? "L" : "$");
			break;
		case 2:
			item->kind = FROM_END;
			item->a = (int) random_between(0, 30);
			sprintf(item->text, "L-%d", item->a);
			break;
		case 3:
			make_plain_item(item, DOM);
			break;
		case 4:
			item->kind = LAST_WEEKDAY;
			strcpy(item->text, "LW");
			break;
		default:
			item->kind = NEAREST;
			item->a = chance(30) ? 1 : random_value(DOM);
			sprintf(item->text, "%dW", item->a);
	}
}

static inline void
make_dow_item(Item *item)
{
	char day[8];

	item->a = (int) random_between(0, 7);
	write_value(day, DOW, item->a);
	switch (random_between(1, 4))
	{
		case 1:
			item->kind = LAST_DOW;
			sprintf(item->text, chance(50) ? "%s#L" : "%sL", day);
			break;
		case 2:
		case 3:
			item->kind = NTH;
			item->b = (int) random_between(1, 5);
			sprintf(item->text, "%s#%d", day, item->b);
			break;
		default:
			item->a = 0;
			make_plain_item(item, DOW);
	}
}

/* "free" is the chance in percent that the field is "*". */
static inline void
make_field(Pattern *p, int field, int free)
{
	int i;

	memset(p->items[field], 0, sizeof(p->items[field]));
	p->count[field] = 1;
	if (chance(free))
	{
		p->items[field][0].kind = ALL;
		strcpy(p->items[field][0].text, (field == DOM || field == DOW) && chance(20) ? "?" : "*");
		return;
	}
	if (chance(30))
		p->count[field] = (int) random_between(2, MAX_ITEMS);
	for (i = 0; i < p->count[field]; i++)
	{
		Item *item = &p->items[field][i];

		if (field == DOM && chance(40))
			make_dom_item(item, p->count[DOM] == 1); /* W stands alone */
		else if (field == DOW && chance(40))
			make_dow_item(item);
		else
			make_plain_item(item, field);
	}
	p->plus |= field == DOW && chance(20);
}

static inline void
write_space(char *out, bool needed)
{
	int n = chance(90) ? needed : (int) random_between(needed, 3);

	while (n-- > 0)
		*out++ = chance(80) ? ' ' : '\t';
	*out = '\0';
}

/* The text of what the structure says. */
static inline void
write_fields(Pattern *p)
{
	int field, i;

	for (field = p->first; field <= p->last; field++)
	{
		write_space(p->text + strlen(p->text), field > p->first);
		p->start[field] = (int) strlen(p->text);
		if (field == DOW && p->plus)
			strcat(p->text, "+");
		for (i = 0; i < p->count[field]; i++)
		{
			if (i > 0)
				strcat(p->text, ",");
			strcat(p->text, p->items[field][i].text);
		}
		p->end[field] = (int) strlen(p->text);
	}
	write_space(p->text + strlen(p->text), false);
}

static inline void
write_prefix(Pattern *p)
{
	p->text[0] = '\0';
	if (p->zone == NULL)
		return;
	sprintf(p->text, "%s%s", chance(50) ? "TZ=" : "CRON_TZ=", p->zone);
	write_space(p->text + strlen(p->text), true);
}

static inline void
make_fields(Pattern *p)
{
	/* How much of it is free: from a slot every second to none in two hundred years. */
	int free[] = {10, 40, 70, 90};
	int days = free[random_between(0, 3)], times = free[random_between(0, 3)];
	int field;

	p->kind = FIELDS_PATTERN;
	p->first = chance(50) ? MINUTE : SECOND;
	p->last = p->first == SECOND && chance(50) ? YEAR : DOW;
	for (field = p->first; field <= p->last; field++)
		make_field(p, field, field >= DOM ? days : times);
	write_fields(p);
}

/* A nickname is the fields that it stands for. */
static inline void
make_nickname(Pattern *p)
{
	static const struct
	{
		const char *name;
		int value[FIELDS]; /* MINUTE .. DOW; -1: all */
	} nicknames[] = {
		{"@yearly", {0, 0, 0, 1, 1, -1}}, {"@annually", {0, 0, 0, 1, 1, -1}},
		{"@monthly", {0, 0, 0, 1, -1, -1}}, {"@weekly", {0, 0, 0, -1, -1, 0}},
		{"@daily", {0, 0, 0, -1, -1, -1}}, {"@midnight", {0, 0, 0, -1, -1, -1}},
		{"@hourly", {0, 0, -1, -1, -1, -1}},
	};
	int i = (int) random_between(0, 6), field;

	p->kind = NICKNAME;
	p->first = MINUTE;
	p->last = DOW;
	for (field = MINUTE; field <= DOW; field++)
	{
		int value = nicknames[i].value[field];

		p->count[field] = 1;
		p->items[field][0].kind = value < 0 ? ALL : VALUE;
		p->items[field][0].a = value;
	}
	strcat(p->text, nicknames[i].name);
}

static inline void
make_interval(Pattern *p)
{
	static const char *const words[] = {"second", "minute", "hour", "day"};
	static const int length[] = {1, 60, 3600, 86400};
	int64_t amount = chance(10) ? random_between(1, 3652) : random_between(1, 90);
	int i, unit = (int) random_between(0, 3);

	p->kind = INTERVAL;
	if (chance(50))
	{
		p->interval = amount * length[unit];
		sprintf(p->text + strlen(p->text), "%d %s%s", (int) amount, words[unit],
				amount == 1 ? "" : "s");
		return;
	}
	strcat(p->text, "@every ");
	for (i = unit; i >= 0; i--)
	{
		if (i < unit && chance(50))
			continue;
		sprintf(p->text + strlen(p->text), "%d%c", (int) amount, words[i][0]);
		p->interval += amount * length[i];
		amount = random_between(1, 59);
	}
}

/* Days that come seldom or never: the end of February, a weekday that is the 29th, one year. */
static inline void
make_rare(Pattern *p)
{
	static const char *const doms[] = {"29", "30", "31", "29-31", "LW", "31W", "L-28", "1W", "15W"};
	static const ItemKind dom_kinds[] = {VALUE, VALUE, VALUE, RANGE, LAST_WEEKDAY, NEAREST, FROM_END,
										 NEAREST, NEAREST};
	static const int dom_values[] = {29, 30, 31, 29, 0, 31, 28, 1, 15};
	int i = (int) random_between(0, 8), field;

	p->kind = FIELDS_PATTERN;
	p->first = SECOND;
	p->last = chance(70) ? YEAR : DOW;
	for (field = SECOND; field <= p->last; field++)
		make_field(p, field, field == YEAR ? 20 : 60);
	p->count[DOM] = 1;
	memset(&p->items[DOM][0], 0, sizeof(Item));
	p->items[DOM][0].kind = dom_kinds[i];
	p->items[DOM][0].a = dom_values[i];
	p->items[DOM][0].b = 31;
	strcpy(p->items[DOM][0].text, doms[i]);
	if (chance(60))
	{
		p->count[MONTH] = 1;
		memset(&p->items[MONTH][0], 0, sizeof(Item));
		p->items[MONTH][0].kind = VALUE;
		p->items[MONTH][0].a = chance(60) ? 2 : 4;
		strcpy(p->items[MONTH][0].text, p->items[MONTH][0].a == 2 ? "2" : "APR");
	}
	p->plus = is_restricted(p, DOW) && chance(80);
	write_fields(p);
}

/* A schedule with a text and a meaning; 'zone' (or NULL) is for its prefix. */
static inline void
make_pattern(Pattern *p, const char *zone)
{
	memset(p, 0, sizeof(*p));
	p->zone = zone;
	write_prefix(p);
	if (chance(80))
		make_fields(p);
	else if (chance(50))
		make_rare(p);
	else if (chance(50))
		make_nickname(p);
	else
		make_interval(p);
}

#endif /* DSCHED_TEST_PATTERN_H */
