/*
 * cron.c
 *	  The parser of schedules.
 *
 * The text is cut into words at white space; the number and the first letters of the words tell
 * which of the forms in cron.h it is. A field is then read from left to right by one cursor. There
 * is no backing up, no allocation and no recursion, and every loop consumes text, whose length is
 * bounded.
 *
 * People meet this code when they have made a mistake, and most mistakes are the same few ones, so
 * a good part of it is about saying what is wrong, where, and what was probably meant. Texts from
 * the user are cut where they are quoted: see shown().
 */
#include "core/cron.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* More words than any schedule has; the rest is counted, not kept. */
#define MAX_WORDS 8

/* Bytes of the user's text that a message quotes. */
#define MAX_SHOWN 40

/* Quotations in one message. */
#define MAX_QUOTES 3

/* A stretch of the text; 'start' is a 0-based offset. */
typedef struct Word
{
	int start;
	int len;
} Word;

/* What is allowed in a field. */
typedef struct FieldRule
{
	const char *name;
	int min;
	int max;
	int star_max;			  /* where "*" and a/n end, if not at max: 7 is Sunday once more */
	const char *const *names; /* of the values from min on, or NULL */
	int nnames;
	const char *range_hint;
	const char *step_hint;
} FieldRule;

typedef enum
{
	SECOND,
	MINUTE,
	HOUR,
	DOM,
	MONTH,
	DOW,
	NFIELDS
} FieldIndex;

/* What was read from one field. */
typedef struct Field
{
	uint64_t set;
	bool starred; /* begins with "*" or "?": does not restrict the day */
	bool stepped; /* has "*", "?" or a step anywhere */
} Field;

typedef struct Parser
{
	const char *text;
	CronError *err;
	Word words[MAX_WORDS];
	int nwords;				/* may be more than MAX_WORDS */
	const FieldRule *field; /* being read, or NULL */
	int field_number;		/* as written, from 1 */
	Word item;				/* of the field's list, being read */
	char quotes[MAX_QUOTES][MAX_SHOWN + 4];
	unsigned next_quote;
} Parser;

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN",
										  "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
static const char *const dow_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"};

/* In the order of FieldIndex. */
static const FieldRule field_rules[NFIELDS] = {
	{"second", 0, 59, 59, NULL, 0, "The full minute is second 0.",
	 "Steps begin anew with each minute; for a fixed distance write \"90 seconds\"."},
	{"minute", 0, 59, 59, NULL, 0, "The full hour is minute 0.",
	 "Steps begin anew with each hour; for a fixed distance write \"90 minutes\"."},
	{"hour", 0, 23, 23, NULL, 0, "Midnight is hour 0.",
	 "Steps begin anew with each day; for a fixed distance write \"36 hours\"."},
	{"day of month", 1, 31, 31, NULL, 0, "Days of the month count from 1.",
	 "Steps begin anew with each month; for a fixed distance write \"45 days\"."},
	{"month", 1, 12, 12, month_names, lengthof(month_names), "Months count from 1, or are JAN-DEC.",
	 "Steps begin anew with each year."},
	{"day of week", 0, 7, 6, dow_names, lengthof(dow_names),
	 "Weekdays are SUN-SAT or 0-7, where both 0 and 7 are Sunday.",
	 "Steps begin anew with each week; for a fixed distance write \"10 days\"."},
};

static const struct
{
	const char *name;
	const char *fields; /* NULL: at the start of the server */
} nicknames[] = {
	{"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},	  {"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"}, {"@reboot", NULL},
};

static const struct
{
	const char *word; /* singular */
	char letter;	  /* in "@every 1h30m" */
	int64_t seconds;
} units[] = {
	{"second", 's', 1},
	{"minute", 'm', 60},
	{"hour", 'h', 3600},
	{"day", 'd', 86400},
};

/* ---------------------------------------------------------------------------------------------
 * Characters and words. The ctype functions depend on the locale; a schedule must not.
 */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char
to_lower(char c)
{
	return (c >= 'A' && c <= 'Z') ? (char) (c - 'A' + 'a') : c;
}

static bool
is_letter(char c)
{
	return to_lower(c) >= 'a' && to_lower(c) <= 'z';
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
word_is(const Parser *p, Word w, const char *name)
{
	int i;

	for (i = 0; i < w.len && name[i] != '\0'; i++)
	{
		if (to_lower(p->text[w.start + i]) != to_lower(name[i]))
			return false;
	}
	return i == w.len && name[i] == '\0';
}

static bool
all_digits(const Parser *p, Word w)
{
	int i;

	for (i = 0; i < w.len && is_digit(p->text[w.start + i]); i++)
		;
	return w.len > 0 && i == w.len;
}

/* The number that a word of digits is, or 'limit' if that is less. */
static int64_t
to_number(const Parser *p, Word digits, int64_t limit)
{
	int64_t value = 0;
	int i;

	for (i = 0; i < digits.len && value < limit; i++)
		value = value * 10 + (p->text[digits.start + i] - '0');
	return value < limit ? value : limit;
}

/* Cut the text from 'start' on into words. */
static void
split_words(Parser *p, int start)
{
	const char *text = p->text;
	int at = start;

	p->nwords = 0;
	for (;;)
	{
		Word w;

		while (is_space(text[at]))
			at++;
		if (text[at] == '\0')
			return;
		w.start = at;
		while (text[at] != '\0' && !is_space(text[at]))
			at++;
		w.len = at - w.start;
		if (p->nwords < MAX_WORDS)
			p->words[p->nwords] = w;
		p->nwords++;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Errors
 */

/*
 * A copy of a piece of the user's text for a message, cut if it is long. In every encoding that a
 * server can have, the bytes of a multibyte character are all above 127, so that a cut that leaves
 * none of them at the end cannot have split a character. The copy lasts until MAX_QUOTES others.
 */
static const char *
shown(Parser *p, Word w)
{
	char *quote = p->quotes[p->next_quote++ % MAX_QUOTES];
	int len = w.len;

	if (len > MAX_SHOWN)
	{
		len = MAX_SHOWN;
		while (len > 0 && (unsigned char) p->text[w.start + len - 1] > 127)
			len--;
	}
	memcpy(quote, p->text + w.start, len);
	strcpy(quote + len, len < w.len ? "..." : "");
	return quote;
}

/* Record an error at a 0-based offset. Always false, for "return fail(...)". */
__attribute__((format(printf, 3, 4))) static bool
fail(Parser *p, int at, const char *fmt, ...)
{
	va_list args;

	memset(p->err, 0, sizeof(*p->err));
	p->err->position = at + 1;
	if (p->field != NULL)
	{
		p->err->field = p->field_number;
		p->err->field_name = p->field->name;
	}
	va_start(args, fmt);
	vsnprintf(p->err->message, sizeof(p->err->message), fmt, args);
	va_end(args);
	return false;
}

/* Add a hint to the error just recorded, in place of any that it has. Always false. */
__attribute__((format(printf, 2, 3))) static bool
hint(Parser *p, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(p->err->hint, sizeof(p->err->hint), fmt, args);
	va_end(args);
	return false;
}

/* Words after a schedule that is complete without them. */
static bool
fail_trailing(Parser *p, int word, const char *what)
{
	Word w = p->words[word];

	return fail(p, w.start, "unexpected text \"%s\" after %s", shown(p, w), what);
}

/* ---------------------------------------------------------------------------------------------
 * One field
 */

/* The rest of the item from the cursor on. */
static Word
rest_of_item(const Parser *p, int at)
{
	Word rest;

	rest.start = at;
	rest.len = p->item.start + p->item.len - at;
	return rest;
}

static bool
at_char(const Parser *p, int at, char c)
{
	return at < p->item.start + p->item.len && p->text[at] == c;
}

/* Digits and letters from the cursor on. */
static Word
alphanumeric(const Parser *p, int at)
{
	Word w = rest_of_item(p, at);
	int i;

	for (i = 0; i < w.len && (is_digit(p->text[at + i]) || is_letter(p->text[at + i])); i++)
		;
	w.len = i;
	return w;
}

/*
 * The first character of a word that other crons give a meaning that we don't: L, W, # and + and
 * $ of the Open Cron Pattern Specification and its relatives. '\0' if there is none. L and W count
 * only alone, together and after digits, so that a mistyped name is just that.
 */
static char
unsupported_char(const Parser *p, Word w)
{
	int i;

	for (i = 0; i < w.len && is_digit(p->text[w.start + i]); i++)
		;
	if (i == w.len)
		return '\0';
	if (strchr("#+$", p->text[w.start + i]) != NULL)
		return p->text[w.start + i];
	if (strchr("lw", to_lower(p->text[w.start + i])) == NULL)
		return '\0';
	if (i + 1 < w.len && is_letter(p->text[w.start + i + 1]) &&
		strchr("lw", to_lower(p->text[w.start + i + 1])) == NULL)
		return '\0';
	return p->text[w.start + i];
}

/* What stands at the cursor is no part of an item. */
static bool
fail_item(Parser *p, int at)
{
	const char *name = p->field->name;
	Word rest = rest_of_item(p, at);
	char special = unsupported_char(p, rest);

	if (special != '\0')
	{
		fail(p, at, "\"%c\" in %s \"%s\" is not supported", special, name, shown(p, p->item));
		return hint(p, "A field takes numbers, names, lists, ranges and steps.");
	}
	if (rest.len == 0)
		return fail(p, at, "%s \"%s\" is incomplete", name, shown(p, p->item));
	if (at > p->item.start)
		return fail(p, at, "unexpected text \"%s\" in %s \"%s\"", shown(p, rest), name,
					shown(p, p->item));
	if (p->field->names != NULL)
		return fail(p, at, "%s value \"%s\" is neither a number %d-%d nor a name %s-%s", name,
					shown(p, rest), p->field->min, p->field->max, p->field->names[0],
					p->field->names[p->field->nnames - 1]);
	return fail(p, at, "%s value \"%s\" is not a number %d-%d", name, shown(p, rest), p->field->min,
				p->field->max);
}

/* Look a word up among the names of the field. */
static bool
find_name(const Parser *p, Word w, int *value)
{
	int i;

	for (i = 0; i < p->field->nnames; i++)
	{
		if (word_is(p, w, p->field->names[i]))
		{
			*value = p->field->min + i;
			return true;
		}
	}
	return false;
}

/* The word begins with no value. Somebody wrote MONDAY, or FRIL? */
static bool
fail_value(Parser *p, Word w)
{
	Word start = w;
	int value;

	start.len = 3;
	if (w.len <= start.len || !find_name(p, start, &value))
		return fail_item(p, w.start);
	if (w.len == start.len + 1 && to_lower(p->text[w.start + 3]) == 'l')
		return fail_item(p, w.start + 3);
	fail_item(p, w.start);
	return hint(p, "Names have three letters: write \"%s\".",
				p->field->names[value - p->field->min]);
}

/* Read a number or a name; moves the cursor behind it. */
static bool
parse_value(Parser *p, int *at, int *value)
{
	const FieldRule *rule = p->field;
	Word w = alphanumeric(p, *at);
	Word digits = w;

	while (digits.len > 0 && !all_digits(p, digits))
		digits.len--;
	if (digits.len == 0 && find_name(p, w, value))
	{
		*at += w.len;
		return true;
	}
	if (digits.len == 0 || (digits.len < w.len && unsupported_char(p, w) == '\0'))
		return fail_value(p, w);
	*value = (int) to_number(p, digits, 1000000);
	if (*value < rule->min || *value > rule->max)
	{
		fail(p, *at, "%s value \"%s\" is out of range %d-%d", rule->name, shown(p, digits),
			 rule->min, rule->max);
		return hint(p, "%s", rule->range_hint);
	}
	*at += digits.len;
	return true;
}

/* Read the number after a slash; moves the cursor behind it. */
static bool
parse_step(Parser *p, int *at, int *step)
{
	const FieldRule *rule = p->field;
	Word w = rest_of_item(p, *at);

	if (!all_digits(p, w))
		return fail(p, *at, "%s step \"%s\" is not a number 1-%d", rule->name, shown(p, w),
					rule->max);
	*step = (int) to_number(p, w, 1000000);
	if (*step == 0)
	{
		fail(p, *at, "%s step \"%s\" is out of range 1-%d", rule->name, shown(p, w), rule->max);
		return hint(p, "A step of 1 takes every value.");
	}
	if (*step > rule->max)
	{
		fail(p, *at, "%s step \"%s\" is out of range 1-%d", rule->name, shown(p, w), rule->max);
		return hint(p, "%s", rule->step_hint);
	}
	*at += w.len;
	return true;
}

/* The second value of a range that began with 'low'. */
static bool
parse_range_end(Parser *p, int *at, int low, int *high)
{
	const FieldRule *rule = p->field;
	int start = *at;
	bool sunday;

	if (!parse_value(p, at, high))
		return false;
	if (*high >= low)
		return true;

	/* The week may end with its Sunday: FRI-SUN is 5-7. */
	sunday = rule == &field_rules[DOW] && *high == 0;
	if (sunday && is_letter(p->text[start]))
	{
		*high = 7;
		return true;
	}
	fail(p, p->item.start, "%s range \"%s\" runs backwards", rule->name, shown(p, p->item));
	if (sunday)
		return hint(p, "Sunday at the end of a range is 7: write \"%d-7\".", low);
	if (low > rule->star_max)
		return hint(p, "Sunday at the start of a range is 0: write \"0-%d\".", *high);
	return hint(p, "Write a range around the end as two: \"%d-%d,%d-%d\".", low, rule->star_max,
				rule->min, *high);
}

/* Put low, low + step, ... up to high into the set. */
static void
fill_set(const Parser *p, Field *field, int low, int high, int step)
{
	int value;

	for (value = low; value <= high; value += step)
	{
		/* The only values above star_max are the other name of the field's first. */
		int bit = value > p->field->star_max ? p->field->min : value;

		field->set |= UINT64_C(1) << bit;
	}
}

/* Read one item of a list: "*", a, a-b, each with or without a step. */
static bool
parse_item(Parser *p, Field *field)
{
	const FieldRule *rule = p->field;
	int at = p->item.start;
	int low = rule->min;
	int high = rule->star_max;
	int step = 1;
	bool single = false;

	if (p->item.len == 0)
		return fail(p, at, "%s list has an empty item", rule->name);
	if (at_char(p, at, '*') || at_char(p, at, '?'))
	{
		field->stepped = true;
		field->starred |= at == p->words[p->field_number - 1].start;
		at++;
	}
	else if (!parse_value(p, &at, &low))
		return false;
	else if (at_char(p, at, '-'))
	{
		at++;
		if (!parse_range_end(p, &at, low, &high))
			return false;
	}
	else
		single = true;

	if (at_char(p, at, '/'))
	{
		field->stepped = true;
		at++;
		if (!parse_step(p, &at, &step))
			return false;
		if (single && low > high)
			low = rule->min; /* 7/2 is what 0/2 is: both are Sunday */
	}
	else if (single)
		high = low;
	if (rest_of_item(p, at).len > 0)
		return fail_item(p, at);
	fill_set(p, field, low, high, step);
	return true;
}

/* Read the field that is word number 'number', counted from 1. */
static bool
parse_field(Parser *p, int number, FieldIndex index, Field *field)
{
	Word w = p->words[number - 1];
	int end = w.start + w.len;
	int at;

	memset(field, 0, sizeof(*field));
	p->field = &field_rules[index];
	p->field_number = number;
	p->item.start = w.start;
	for (at = w.start; at <= end; at++)
	{
		if (at < end && p->text[at] != ',')
			continue;
		p->item.len = at - p->item.start;
		if (!parse_item(p, field))
			return false;
		p->item.start = at + 1;
	}
	p->field = NULL;
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Schedules of fields
 */

/*
 * Can any day ever match? Only days of the month that none of the months has are a reason why not:
 * every date of a month falls on every weekday sooner or later.
 */
static bool
check_days(Parser *p, const CronSchedule *s, int dom_field)
{
	uint32_t months_of_31 =
		(1 << 1) | (1 << 3) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 10) | (1 << 12);
	uint32_t days = UINT32_MAX;
	Word dom = p->words[dom_field - 1];
	Word month = p->words[dom_field];

	if (!(s->months & months_of_31))
		days &= ~(UINT32_C(1) << 31);
	if (s->months == 1 << 2)
		days &= ~(UINT32_C(1) << 30);
	if (!s->dom_and_dow || (s->doms & days) != 0)
		return true;

	p->field = &field_rules[DOM];
	p->field_number = dom_field;
	fail(p, dom.start, "schedule never runs: day of month \"%s\" does not occur in month \"%s\"",
		 shown(p, dom), shown(p, month));
	return hint(p, "February has 29 days at most; April, June, September and November have 30.");
}

static bool
fail_field_count(Parser *p)
{
	Word last = p->words[(p->nwords < MAX_WORDS ? p->nwords : MAX_WORDS) - 1];

	fail(p, p->nwords > 6 ? p->words[6].start : last.start + last.len,
		 "expected 5 or 6 fields, found %d", p->nwords);
	if (p->nwords == 7)
		return hint(p, "A field for the year is not supported.");
	if (p->nwords > 7)
		return hint(p, "Write a list without spaces: \"1,2,3\".");
	if (word_is(p, p->words[0], "every") ||
		(p->nwords == 1 && is_digit(p->text[last.start]) && !all_digits(p, last)))
		return hint(p, "An interval is written \"5 minutes\" or \"@every 5m\".");
	return hint(p, "The fields are minute, hour, day of month, month, day of week; with 6 fields, "
				   "second comes first.");
}

static bool
parse_fields(Parser *p, CronSchedule *s)
{
	int skip = p->nwords == 6 ? 0 : 1;
	Field fields[NFIELDS];
	int i;

	if (p->nwords != 5 && p->nwords != 6)
		return fail_field_count(p);
	fields[SECOND].set = 1;
	for (i = skip; i < NFIELDS; i++)
	{
		if (parse_field(p, i - skip + 1, (FieldIndex) i, &fields[i]))
			continue;
		if (skip == 0 && p->err->hint[0] == '\0')
			hint(p, "With 6 fields the first is second: second, minute, hour, day of month, month, "
					"day of week.");
		return false;
	}
	s->kind = CRON_FIELDS;
	s->seconds = fields[SECOND].set;
	s->minutes = fields[MINUTE].set;
	s->hours = (uint32_t) fields[HOUR].set;
	s->doms = (uint32_t) fields[DOM].set;
	s->months = (uint32_t) fields[MONTH].set;
	s->dows = (uint8_t) fields[DOW].set;
	s->dom_and_dow = fields[DOM].starred || fields[DOW].starred;
	/* 0-23 is another way to write "*" */
	s->wall_clock = !fields[HOUR].stepped && s->hours != (1 << 24) - 1;
	return check_days(p, s, DOM - skip + 1);
}

/* ---------------------------------------------------------------------------------------------
 * Intervals
 */

static bool
set_interval(Parser *p, CronSchedule *s, Word w, int64_t seconds)
{
	if (seconds < 1 || seconds > CRON_MAX_INTERVAL)
		return fail(p, w.start, "interval \"%s\" is out of range 1 second to 10 years",
					shown(p, w));
	s->kind = CRON_INTERVAL;
	s->interval_s = seconds;
	return true;
}

/* Is the word a unit, in the singular or the plural? Its seconds, or 0. */
static int64_t
unit_of_word(const Parser *p, Word w)
{
	Word singular = w;
	int i;

	if (w.len > 1 && to_lower(p->text[w.start + w.len - 1]) == 's')
		singular.len--;
	for (i = 0; i < lengthof(units); i++)
	{
		if (word_is(p, singular, units[i].word))
			return units[i].seconds;
	}
	return 0;
}

/*
 * Was "5 minutes" meant? No field but the last two can begin with a letter, so that a number and a
 * word are an interval, unless there are enough words for fields and the second is no unit.
 */
static bool
looks_like_interval(const Parser *p)
{
	if (p->nwords < 2 || !all_digits(p, p->words[0]))
		return false;
	return unit_of_word(p, p->words[1]) != 0 ||
		   (p->nwords < 5 && is_letter(p->text[p->words[1].start]));
}

/* 30 seconds */
static bool
parse_interval(Parser *p, CronSchedule *s)
{
	int64_t unit = unit_of_word(p, p->words[1]);
	Word whole = p->words[0];

	whole.len = p->words[1].start + p->words[1].len - whole.start;
	if (unit == 0)
	{
		fail(p, p->words[1].start, "unknown unit \"%s\" of an interval", shown(p, p->words[1]));
		return hint(p, "Units are seconds, minutes, hours and days.");
	}
	if (p->nwords > 2)
	{
		fail_trailing(p, 2, "the interval");
		return hint(p, "Several units are written together: \"@every 1h30m\".");
	}
	return set_interval(p, s, whole, unit * to_number(p, p->words[0], CRON_MAX_INTERVAL + 1));
}

static int64_t
unit_of_letter(char c)
{
	int i;

	for (i = 0; i < lengthof(units); i++)
	{
		if (units[i].letter == c)
			return units[i].seconds;
	}
	return 0;
}

static bool
fail_duration(Parser *p, Word w, int at)
{
	fail(p, at, "invalid duration \"%s\"", shown(p, w));
	if (all_digits(p, w))
		return hint(p, "The number needs a unit: \"@every %sm\".", shown(p, w));
	return hint(p, "A duration is whole numbers, each with a unit d, h, m or s, as in \"1h30m\".");
}

/* 1h30m */
static bool
parse_duration(Parser *p, Word w, int64_t *seconds)
{
	int at = w.start;
	int end = w.start + w.len;

	*seconds = 0;
	while (at < end)
	{
		Word digits = {at, 0};
		int64_t unit;

		while (at < end && is_digit(p->text[at]))
			at++;
		digits.len = at - digits.start;
		unit = at < end ? unit_of_letter(p->text[at]) : 0;
		if (digits.len == 0 || unit == 0)
			return fail_duration(p, w, at);
		at++;
		if (at < end && p->text[at] == 's')
			return fail_duration(p, w, at - 1); /* "ms" */
		*seconds += unit * to_number(p, digits, CRON_MAX_INTERVAL + 1);
		if (*seconds > CRON_MAX_INTERVAL)
			*seconds = CRON_MAX_INTERVAL + 1;
	}
	return true;
}

/* @every 1h30m */
static bool
parse_every(Parser *p, CronSchedule *s)
{
	int64_t seconds;

	if (p->nwords == 1)
	{
		fail(p, p->words[0].start + p->words[0].len, "\"@every\" needs a duration");
		return hint(p, "Write, for example, \"@every 1h30m\".");
	}
	if (p->nwords > 2 && all_digits(p, p->words[1]) && unit_of_word(p, p->words[2]) != 0)
	{
		fail_duration(p, p->words[1], p->words[1].start);
		return hint(p,
					"Write \"%s %s\" without \"@every\", or a duration such as \"@every 1h30m\".",
					shown(p, p->words[1]), shown(p, p->words[2]));
	}
	if (!parse_duration(p, p->words[1], &seconds))
		return false;
	if (p->nwords > 2)
	{
		fail_trailing(p, 2, "the duration");
		return hint(p, "Several units are written together: \"@every 1h30m\".");
	}
	return set_interval(p, s, p->words[1], seconds);
}

/* ---------------------------------------------------------------------------------------------
 * Nicknames
 */

static int
min3(int a, int b, int c)
{
	int least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many letters must be inserted, deleted or replaced to make 'name' of a word (Levenshtein). */
static int
edit_distance(const Parser *p, Word w, const char *name)
{
	int row[16];
	int len = (int) strlen(name);
	int i;
	int j;

	if (len >= lengthof(row) || w.len >= lengthof(row))
		return lengthof(row);
	for (j = 0; j <= len; j++)
		row[j] = j;
	for (i = 1; i <= w.len; i++)
	{
		int diagonal = row[0];

		row[0] = i;
		for (j = 1; j <= len; j++)
		{
			int replaced = diagonal + (to_lower(p->text[w.start + i - 1]) != name[j - 1]);

			diagonal = row[j];
			row[j] = min3(replaced, row[j] + 1, row[j - 1] + 1);
		}
	}
	return row[len];
}

static bool
fail_nickname(Parser *p)
{
	const char *nearest = "@every";
	int least = edit_distance(p, p->words[0], nearest);
	int i;

	for (i = 0; i < lengthof(nicknames); i++)
	{
		int distance = edit_distance(p, p->words[0], nicknames[i].name);

		if (distance < least)
		{
			least = distance;
			nearest = nicknames[i].name;
		}
	}
	fail(p, p->words[0].start, "unknown schedule \"%s\"", shown(p, p->words[0]));
	if (least <= 2)
		return hint(p, "Perhaps you meant \"%s\".", nearest);
	return hint(p, "Known are @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, "
				   "@reboot and @every.");
}

/* A word that begins with "@", and what follows it. */
static bool
parse_nickname(Parser *p, CronSchedule *s)
{
	int i;

	if (word_is(p, p->words[0], "@every"))
		return parse_every(p, s);
	for (i = 0; i < lengthof(nicknames); i++)
	{
		Parser expanded = *p;

		if (!word_is(p, p->words[0], nicknames[i].name))
			continue;
		if (p->nwords > 1)
			return fail_trailing(p, 1, nicknames[i].name);
		if (nicknames[i].fields == NULL)
		{
			s->kind = CRON_REBOOT;
			return true;
		}
		expanded.text = nicknames[i].fields;
		split_words(&expanded, 0);
		return parse_fields(&expanded, s);
	}
	return fail_nickname(p);
}

/* ---------------------------------------------------------------------------------------------
 * The whole text
 */

/* Take a leading "TZ=zone" off the words. */
static bool
parse_zone(Parser *p, CronSchedule *s)
{
	Word w = p->words[0];
	const char *text = p->text + w.start;
	int prefix = 0;

	if (strncmp(text, "TZ=", 3) == 0)
		prefix = 3;
	else if (strncmp(text, "CRON_TZ=", 8) == 0)
		prefix = 8;
	if (prefix == 0)
		return true;

	split_words(p, w.start + w.len);
	w.start += prefix;
	w.len -= prefix;
	if (w.len == 0)
		return fail(p, w.start, "time zone is empty");
	if (w.len >= (int) sizeof(s->zone))
		return fail(p, w.start, "time zone \"%s\" is longer than %d bytes", shown(p, w),
					(int) sizeof(s->zone) - 1);
	memcpy(s->zone, p->text + w.start, w.len);
	return true;
}

static bool
fail_empty(Parser *p)
{
	fail(p, (int) strlen(p->text), "schedule is empty");
	return hint(p, "Write, for example, \"0 3 * * *\", \"@daily\" or \"5 minutes\".");
}

/* Forgot the "@"? */
static bool
hint_nickname(Parser *p)
{
	int i;

	for (i = 0; i < lengthof(nicknames); i++)
	{
		if (word_is(p, p->words[0], nicknames[i].name + 1))
			return hint(p, "Perhaps you meant \"%s\".", nicknames[i].name);
	}
	return false;
}

static bool
parse_text(Parser *p, CronSchedule *s)
{
	split_words(p, 0);
	if (p->nwords == 0)
		return fail_empty(p);
	if (!parse_zone(p, s))
		return false;
	if (p->nwords == 0)
		return fail_empty(p);
	if (p->text[p->words[0].start] == '@')
		return parse_nickname(p, s);
	if (looks_like_interval(p))
		return parse_interval(p, s);
	return parse_fields(p, s) || (p->nwords < 5 && hint_nickname(p));
}

bool
cron_parse(const char *text, CronSchedule *out, CronError *err)
{
	Parser parser;
	CronSchedule schedule;

	memset(&parser, 0, sizeof(parser));
	memset(&schedule, 0, sizeof(schedule));
	parser.text = text;
	parser.err = err;
	if (strnlen(text, CRON_MAX_TEXT + 1) > CRON_MAX_TEXT)
		return fail(&parser, CRON_MAX_TEXT, "schedule is longer than %d bytes", CRON_MAX_TEXT);
	if (!parse_text(&parser, &schedule))
		return false;
	memset(err, 0, sizeof(*err));
	*out = schedule;
	return true;
}
