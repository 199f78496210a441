/*
 * cron_items.c
 *	  The parser of one field of a pattern: a list of items, see cron.h.
 *
 * Nothing here knows of the other fields. What an item may be depends on the field by its rule, and
 * for days by the few functions that read "L", "W" and "#".
 */
#include "core/cron_parser.h"

#include <string.h>

/* How far "L-n" may go back from the last day: to the first of a long month. */
#define MAX_FROM_END 30

/* A weekday's occurrences in a month. */
#define MAX_NTH 5

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN",
										  "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
static const char *const dow_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"};

const FieldRule cron_field_rules[NFIELDS] = {
	{"second", 0, 59, 59, 59, NULL, 0, "", "The full minute is second 0.",
	 "Steps begin anew with each minute; for a fixed distance write \"90 seconds\"."},
	{"minute", 0, 59, 59, 59, NULL, 0, "", "The full hour is minute 0.",
	 "Steps begin anew with each hour; for a fixed distance write \"90 minutes\"."},
	{"hour", 0, 23, 23, 23, NULL, 0, "", "Midnight is hour 0.",
	 "Steps begin anew with each day; for a fixed distance write \"36 hours\"."},
	{"day of month", 1, 31, 31, 31, NULL, 0, "?LW$",
	 "Days of the month count from 1; the last one is \"L\".",
	 "Steps begin anew with each month; for a fixed distance write \"45 days\"."},
	{"month", 1, 12, 12, 12, month_names, lengthof(month_names), "",
	 "Months count from 1, or are JAN-DEC.", "Steps begin anew with each year."},
	{"day of week", 0, 7, 6, 7, dow_names, lengthof(dow_names), "?L#+",
	 "Weekdays are SUN-SAT or 0-7, where both 0 and 7 are Sunday.",
	 "Steps begin anew with each week; for a fixed distance write \"10 days\"."},
	{"year", CRON_FIRST_YEAR, CRON_LAST_YEAR, CRON_LAST_YEAR, CRON_LAST_YEAR - CRON_FIRST_YEAR, NULL,
	 0, "", "Years have four digits; without the last field it is every year.",
	 "Steps begin with the first year of the range."},
};

/* ---------------------------------------------------------------------------------------------
 * The cursor
 */

/* The rest of the item from the cursor on. */
static Word
rest_of_item(const Parser *p, int at)
{
	return cron_subword(p->item, at - p->item.start);
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

	for (i = 0; i < w.len && (cron_is_digit(p->text[at + i]) || cron_is_letter(p->text[at + i])); i++)
		;
	w.len = i;
	return w;
}

/* The digits that a word begins with. */
static Word
leading_digits(const Parser *p, Word w)
{
	while (w.len > 0 && !cron_all_digits(p, w))
		w.len--;
	return w;
}

/* The item is the whole of its field. */
static bool
item_is_alone(const Parser *p)
{
	return p->item.len == p->words[p->field_number - 1].len;
}

/* ---------------------------------------------------------------------------------------------
 * Errors
 */

/*
 * The first character of a word, digits apart, if it has a meaning in some field. L and W count only
 * alone, together and after digits, so that a mistyped name is just that. '\0' if it has none.
 */
static char
special_char(const Parser *p, Word w)
{
	const char *next;
	int digits = leading_digits(p, w).len;

	if (digits == w.len)
		return '\0';
	next = p->text + w.start + digits;
	if (strchr("#+$?", next[0]) != NULL)
		return next[0];
	if (strchr("lw", cron_to_lower(next[0])) == NULL)
		return '\0';
	if (digits + 1 < w.len && cron_is_letter(next[1]) && strchr("lw", cron_to_lower(next[1])) == NULL)
		return '\0';
	return next[0];
}

/* The text at the cursor, which begins the item, is no value. */
static void
fail_no_value(Parser *p, Word rest)
{
	const FieldRule *rule = p->field;

	if (rule->names != NULL)
		cron_fail(p, rest.start, "%s value \"%s\" is neither a number %d-%d nor a name %s-%s",
				  rule->name, cron_shown(p, rest), rule->min, rule->max, rule->names[0],
				  rule->names[rule->nnames - 1]);
	else
		cron_fail(p, rest.start, "%s value \"%s\" is not a number %d-%d", rule->name,
				  cron_shown(p, rest), rule->min, rule->max);
}

/* What stands at the cursor is no part of an item. */
static bool
fail_item(Parser *p, int at)
{
	const char *name = p->field->name;
	Word rest = rest_of_item(p, at);
	char special = special_char(p, rest);
	bool lower = special == 'l' || special == 'w';

	if (rest.len == 0)
		return cron_fail(p, at, "%s \"%s\" is incomplete", name, cron_shown(p, p->item));
	if (special != '\0' && !lower && strchr(p->field->special, special) == NULL)
		cron_fail(p, at, "\"%c\" is not allowed in %s \"%s\"", special, name, cron_shown(p, p->item));
	else if (at > p->item.start)
		cron_fail(p, at, "unexpected text \"%s\" in %s \"%s\"", cron_shown(p, rest), name,
				  cron_shown(p, p->item));
	else if (special != '\0' && !lower && special == p->text[at])
		cron_fail(p, at, "\"%c\" in %s \"%s\" is out of place", special, name,
				  cron_shown(p, p->item));
	else
		fail_no_value(p, rest);
	cron_hint_item(p, at);
	return false;
}

static bool
fail_w_in_list(Parser *p)
{
	cron_fail(p, p->item.start, "\"W\" is not allowed in a list of days: \"%s\"",
			  cron_shown(p, p->words[p->field_number - 1]));
	return cron_hint(p, "An item with \"W\" is the only one of its field.");
}

/* ---------------------------------------------------------------------------------------------
 * Values, ranges and steps
 */

/* Look a word up among the names of the field. */
static bool
find_name(const Parser *p, Word w, int *value)
{
	int i;

	for (i = 0; i < p->field->nnames; i++)
	{
		if (cron_word_is(p, w, p->field->names[i]))
		{
			*value = p->field->min + i;
			return true;
		}
	}
	return false;
}

/* The word begins with no value. Somebody wrote MONDAY? */
static bool
fail_value(Parser *p, Word w)
{
	fail_item(p, w.start);
	if (p->err->hint[0] == '\0')
		cron_hint_name(p, w);
	return false;
}

/* Read a name, of which FRIL has one more letter; moves the cursor behind it. */
static bool
read_name(Parser *p, int *at, Word w, int *value)
{
	Word name = w;

	if (w.len == 4 && cron_to_lower(p->text[w.start + 3]) == 'l')
		name.len--;
	if (name.len == 0 || !find_name(p, name, value))
		return fail_value(p, w);
	*at += name.len;
	if (name.len < w.len && (p->field != &cron_field_rules[DOW] || p->text[*at] != 'L'))
		return fail_item(p, *at);
	return true;
}

/* Read a number or a name; moves the cursor behind it. */
static bool
read_value(Parser *p, int *at, int *value)
{
	const FieldRule *rule = p->field;
	Word w = alphanumeric(p, *at);
	Word digits = leading_digits(p, w);

	if (digits.len == 0)
		return read_name(p, at, w, value);
	if (digits.len < w.len && special_char(p, w) == '\0')
		return fail_value(p, w);
	*value = (int) cron_to_number(p, digits, 1000000);
	if (*value < rule->min || *value > rule->max)
	{
		cron_fail(p, *at, "%s value \"%s\" is out of range %d-%d", rule->name, cron_shown(p, digits),
				  rule->min, rule->max);
		return cron_hint(p, "%s", rule->range_hint);
	}
	*at += digits.len;
	return true;
}

/* Read the number after a slash; moves the cursor behind it. */
static bool
read_step(Parser *p, int *at, int *step)
{
	const FieldRule *rule = p->field;
	Word w = rest_of_item(p, *at);

	if (!cron_all_digits(p, w))
		return cron_fail(p, *at, "%s step \"%s\" is not a number 1-%d", rule->name, cron_shown(p, w),
						 rule->max_step);
	*step = (int) cron_to_number(p, w, 1000000);
	if (*step >= 1 && *step <= rule->max_step)
	{
		*at += w.len;
		return true;
	}
	cron_fail(p, *at, "%s step \"%s\" is out of range 1-%d", rule->name, cron_shown(p, w),
			  rule->max_step);
	return cron_hint(p, "%s", *step == 0 ? "A step of 1 takes every value." : rule->step_hint);
}

/* The second value of a range that began with 'low'. */
static bool
read_range_end(Parser *p, int *at, int low, int *high)
{
	const FieldRule *rule = p->field;
	int start = *at;
	bool sunday;

	if (!read_value(p, at, high))
		return false;
	if (*high >= low)
		return true;

	/* The week may end with its Sunday: FRI-SUN is 5-7. */
	sunday = rule == &cron_field_rules[DOW] && *high == 0;
	if (sunday && cron_is_letter(p->text[start]))
	{
		*high = 7;
		return true;
	}
	cron_fail(p, p->item.start, "%s range \"%s\" runs backwards", rule->name, cron_shown(p, p->item));
	if (sunday)
		return cron_hint(p, "Sunday at the end of a range is 7: write \"%d-7\".", low);
	if (low > rule->star_max)
		return cron_hint(p, "Sunday at the start of a range is 0: write \"0-%d\".", *high);
	if (rule == &cron_field_rules[YEAR])
		return cron_hint(p, "Write \"%d-%d\".", *high, low);
	return cron_hint(p, "Write a range around the end as two: \"%d-%d,%d-%d\".", low, rule->star_max,
					 rule->min, *high);
}

/* Put low, low + step, ... up to high into the set. */
static void
fill_set(const Parser *p, Field *field, int low, int high, int step)
{
	int first = p->field == &cron_field_rules[YEAR] ? p->field->min : 0;
	int value;

	for (value = low; value <= high; value += step)
	{
		/* The only values above star_max are the other name of the field's first. */
		int bit = value > p->field->star_max ? p->field->min : value - first;

		field->set[bit / 64] |= UINT64_C(1) << bit % 64;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Days that depend on the month
 */

/* The item ends here. */
static bool
at_end(Parser *p, int at)
{
	return rest_of_item(p, at).len == 0 || fail_item(p, at);
}

/* The n of L-n, on which the cursor stands. */
static bool
read_from_end(Parser *p, Field *field, int at)
{
	Word digits = leading_digits(p, rest_of_item(p, at));
	int64_t n = cron_to_number(p, digits, 1000);

	if (digits.len == 0)
		return fail_item(p, at);
	if (n > MAX_FROM_END)
	{
		cron_fail(p, at, "offset \"%s\" from the last day of the month is out of range 0-%d",
				  cron_shown(p, digits), MAX_FROM_END);
		return cron_hint(p, "No month has more than 31 days.");
	}
	field->from_end |= UINT32_C(1) << n;
	return at_end(p, at + digits.len);
}

/* "L", "L-3", "LW" or "$", on which the cursor stands. */
static bool
read_last_day(Parser *p, Field *field, int at)
{
	bool dollar = at_char(p, at, '$');

	at++;
	if (!dollar && at_char(p, at, '-'))
		return read_from_end(p, field, at + 1);
	if (!dollar && at_char(p, at, 'W'))
	{
		if (!item_is_alone(p))
			return fail_w_in_list(p);
		field->last_weekday = true;
		return at_end(p, at + 1);
	}
	field->from_end |= 1;
	return at_end(p, at);
}

/* "15W"; the cursor stands on the W. */
static bool
read_nearest_weekday(Parser *p, Field *field, int at, int dom)
{
	if (!item_is_alone(p))
		return fail_w_in_list(p);
	field->nearest_weekdays |= UINT32_C(1) << dom;
	return at_end(p, at + 1);
}

/* "FRI#2", "5#L" or "5L"; the cursor stands behind the day. */
static bool
read_occurrence(Parser *p, Field *field, int at, int dow)
{
	uint8_t day = (uint8_t) (1 << dow % 7);
	Word rest;
	Word digits;
	int64_t n;

	if (at_char(p, at, '#'))
		at++;
	if (at_char(p, at, 'L'))
	{
		field->last_dows |= day;
		return at_end(p, at + 1);
	}
	rest = rest_of_item(p, at);
	digits = leading_digits(p, rest);
	n = cron_to_number(p, digits, 1000);
	if (digits.len == 0)
	{
		cron_fail(p, at, "occurrence \"%s\" of a day of week is not a number 1-%d or L",
				  cron_shown(p, rest), MAX_NTH);
		return at_char(p, at, 'l') && cron_hint(p, "Write \"L\" in upper case.");
	}
	if (n < 1 || n > MAX_NTH)
	{
		cron_fail(p, at, "occurrence \"%s\" of a day of week is out of range 1-%d",
				  cron_shown(p, digits), MAX_NTH);
		return cron_hint(p, "A month has up to five of each; the last one is \"%s#L\".",
						 dow_names[dow % 7]);
	}
	field->nth_dows[n] |= day;
	return at_end(p, at + digits.len);
}

/* ---------------------------------------------------------------------------------------------
 * Items and lists
 */

/* Read one item of a list. */
static bool
read_item(Parser *p, Field *field)
{
	const FieldRule *rule = p->field;
	bool dom = rule == &cron_field_rules[DOM];
	bool dow = rule == &cron_field_rules[DOW];
	int at = p->item.start;
	int low = rule->min;
	int high = rule->star_max;
	int step = 1;
	bool single = false;

	if (dom && (at_char(p, at, 'L') || at_char(p, at, '$')))
		return read_last_day(p, field, at);
	if (at_char(p, at, '*') || ((dom || dow) && at_char(p, at, '?')))
	{
		field->stepped = true;
		at++;
	}
	else if (!read_value(p, &at, &low))
		return false;
	else if (dom && at_char(p, at, 'W'))
		return read_nearest_weekday(p, field, at, low);
	else if (dow && (at_char(p, at, '#') || at_char(p, at, 'L')))
		return read_occurrence(p, field, at, low);
	else if (at_char(p, at, '-'))
	{
		at++;
		if (!read_range_end(p, &at, low, &high))
			return false;
	}
	else
		single = true;

	if (at_char(p, at, '/'))
	{
		field->stepped = true;
		at++;
		if (!read_step(p, &at, &step))
			return false;
		if (single && low > high)
			low = rule->min; /* 7/2 is what 0/2 is: both are Sunday */
	}
	else if (single)
		high = low;
	if (!at_end(p, at))
		return false;
	fill_set(p, field, low, high, step);
	return true;
}

static bool
fail_empty_item(Parser *p, Word w)
{
	const char *name = p->field->name;

	if (w.len == 1 && p->text[w.start] == '+')
		return cron_fail(p, p->item.start, "%s \"+\" is incomplete", name);
	cron_fail(p, p->item.start, "%s list has an empty item", name);
	return p->nwords > 5 && cron_hint(p, "A list is written without spaces: \"1,2,3\".");
}

/* Read the field that is word number 'number', counted from 1. */
bool
cron_read_field(Parser *p, int number, FieldIndex index, Field *field)
{
	Word w = p->words[number - 1];
	int end = w.start + w.len;
	int at = w.start;

	memset(field, 0, sizeof(*field));
	p->field = &cron_field_rules[index];
	p->field_number = number;
	field->unrestricted = w.len == 1 && strchr("*?", p->text[at]) != NULL;
	if (index == DOW && p->text[at] == '+')
	{
		field->plus = true;
		at++;
	}
	p->item.start = at;
	for (; at <= end; at++)
	{
		if (at < end && p->text[at] != ',')
			continue;
		p->item.len = at - p->item.start;
		if (p->item.len == 0)
			return fail_empty_item(p, w);
		if (!read_item(p, field))
			return false;
		p->item.start = at + 1;
	}
	p->field = NULL;
	return true;
}
