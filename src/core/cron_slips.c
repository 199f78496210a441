/*
 * cron_slips.c
 *	  What people write who come from other schedulers, and what to tell them.
 *
 * Nothing here accepts anything. Some notations are recognized before a text is read as fields,
 * because the error that the fields would give would be about their characters; the rest adds a hint
 * to an error.
 */
#include "core/cron_parser.h"

#include <string.h>

/* The last word that was kept. */
static Word
last_word(const Parser *p)
{
	return p->words[(p->nwords < MAX_WORDS ? p->nwords : MAX_WORDS) - 1];
}

/* Where a word has this text, as a 0-based offset in the whole text, or -1. */
static int
find_in_word(const Parser *p, Word w, const char *piece)
{
	int len = (int) strlen(piece);
	int i;

	for (i = 0; i + len <= w.len; i++)
	{
		if (strncmp(p->text + w.start + i, piece, len) == 0)
			return w.start + i;
	}
	return -1;
}

/* ---------------------------------------------------------------------------------------------
 * Other notations
 */

/* Does the text begin with this, and an opening parenthesis? */
static bool
is_call(const Parser *p, const char *name)
{
	Word w = p->words[0];
	int len = (int) strlen(name);

	if (w.len <= len || p->text[w.start + len] != '(')
		return false;
	w.len = len;
	return cron_word_is(p, w, name);
}

/* "rate(5 minutes)" and "cron(0 3 * * ? *)" of Amazon EventBridge. */
static bool
fail_aws(Parser *p)
{
	Word first = p->words[0];
	Word number = cron_subword(first, 5);
	Word unit = last_word(p);

	if (is_call(p, "cron"))
	{
		cron_fail(p, first.start, "notation \"cron(...)\" is not supported");
		return cron_hint(p, "Leave out \"cron(\" and \")\"; the sixth field there is the year: "
						 "drop it, or begin with a field for the second. Weekdays count from SUN = 0.");
	}
	cron_fail(p, first.start, "notation \"rate(...)\" is not supported");
	unit.len--;
	if (p->nwords == 2 && cron_all_digits(p, number) && cron_unit_of_word(p, unit) != 0)
		return cron_hint(p, "Write \"%s %s\".", cron_shown(p, number), cron_shown(p, unit));
	return cron_hint(p, "An interval is written \"5 minutes\" or \"@every 5m\".");
}

/* Read "4:30", alone or at the start of a word. */
static bool
read_clock_time(const Parser *p, Word w, int *hour, int *minute)
{
	int colon = find_in_word(p, w, ":");
	Word hours = w;
	Word minutes;

	if (colon < 0)
		return false;
	hours.len = colon - w.start;
	minutes = cron_subword(w, hours.len + 1);
	minutes.len = minutes.len < 2 ? minutes.len : 2;
	if (hours.len > 2 || !cron_all_digits(p, hours) || minutes.len < 2 ||
		!cron_all_digits(p, minutes))
		return false;
	*hour = (int) cron_to_number(p, hours, 1000);
	*minute = (int) cron_to_number(p, minutes, 1000);
	return *hour <= 23 && *minute <= 59;
}

/* A word of a systemd timer's OnCalendar, or another with a time of day or a date. */
static bool
fail_calendar_time(Parser *p, Word w)
{
	int hour;
	int minute;

	cron_fail(p, w.start, "\"%s\" is not a field of a cron pattern", cron_shown(p, w));
	if (read_clock_time(p, w, &hour, &minute))
		return cron_hint(p, "A time of day is written minute first: \"%d %d * * *\" is every day "
						 "at %d:%02d.",
						 minute, hour, hour, minute);
	return cron_hint(p, "The \"Mon *-*-* 04:30\" of a systemd timer is written \"30 4 * * MON\": "
					 "minute, hour, day of month, month, day of week.");
}

/* "*-*-*", "2026-01-31": of two dashes, which no pattern has without a comma. */
static bool
is_date(const Parser *p, Word w)
{
	int dash = find_in_word(p, w, "-");
	Word year = w;
	Word rest;

	if (dash < 0)
		return false;
	year.len = dash - w.start;
	rest = cron_subword(w, year.len + 1);
	return find_in_word(p, rest, "-") >= 0 && find_in_word(p, w, ",") < 0 &&
		   (find_in_word(p, w, "*-") >= 0 || (year.len == 4 && cron_all_digits(p, year)));
}

/* Is the text in the notation of another scheduler? */
bool
cron_check_notation(Parser *p)
{
	int words = p->nwords < MAX_WORDS ? p->nwords : MAX_WORDS;
	int i;

	if (is_call(p, "cron") || is_call(p, "rate"))
		return fail_aws(p);
	for (i = 0; i < words && i < 5; i++)
	{
		Word w = p->words[i];

		if (find_in_word(p, w, ":") >= 0 || find_in_word(p, w, "..") >= 0 || is_date(p, w))
			return fail_calendar_time(p, w);
	}
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * The number of fields
 */

/* A word that belongs to a command rather than to a pattern: the user or the path of a crontab. */
static bool
is_command(const Parser *p, Word w)
{
	char first = p->text[w.start];
	Word letters = w;
	int i;

	if (strchr("/.~\"'", first) != NULL)
		return true;
	for (i = 0; i < w.len && cron_is_letter(p->text[w.start + i]); i++)
		;
	letters.len = i;
	if (i < 4)
		return false;
	letters.len = 3;
	for (i = 0; i < cron_field_rules[DOW].nnames; i++)
	{
		if (cron_word_is(p, letters, cron_field_rules[DOW].names[i]))
			return false;
	}
	return true;
}

static bool
has_command(const Parser *p)
{
	return (p->nwords > 5 && is_command(p, p->words[5])) ||
		   (p->nwords > 6 && is_command(p, p->words[6]));
}

static bool
hint_command(Parser *p)
{
	return cron_hint(p, "A schedule has no user and no command: it ends after day of week, or "
					 "with 7 fields after year. With 6 or 7 fields the first is second.");
}

/* A list or a range with spaces in it? */
static bool
has_loose_list(const Parser *p)
{
	int words = p->nwords < MAX_WORDS ? p->nwords : MAX_WORDS;
	int i;

	for (i = 0; i < words; i++)
	{
		Word w = p->words[i];

		if (strchr(",-/", p->text[w.start]) != NULL ||
			strchr(",-/", p->text[w.start + w.len - 1]) != NULL)
			return true;
	}
	return false;
}

/* "5m", "5min": digits and then letters. */
static bool
is_duration(const Parser *p, Word w)
{
	int i;

	for (i = 0; i < w.len && cron_is_digit(p->text[w.start + i]); i++)
		;
	return i > 0 && i < w.len && cron_is_letter(p->text[w.start + i]);
}

/* "every 5 minutes" and the like. */
static bool
hint_every(Parser *p)
{
	if (p->nwords == 3 && cron_all_digits(p, p->words[1]) && cron_unit_of_word(p, p->words[2]) != 0)
		return cron_hint(p, "Write \"%s %s\".", cron_shown(p, p->words[1]),
						 cron_shown(p, p->words[2]));
	if (p->nwords == 2 && is_duration(p, p->words[1]))
		return cron_hint(p, "Write \"@every %s\", in units d, h, m and s.",
						 cron_shown(p, p->words[1]));
	if (p->nwords == 2 && cron_word_is(p, p->words[1], "day"))
		return cron_hint(p, "Write \"@daily\", or \"30 4 * * *\" for another time than midnight.");
	if (p->nwords == 2 && cron_word_is(p, p->words[1], "hour"))
		return cron_hint(p, "Write \"@hourly\", or \"30 * * * *\" for another minute than 0.");
	if (p->nwords == 2 && cron_word_is(p, p->words[1], "minute"))
		return cron_hint(p, "Write \"* * * * *\".");
	return cron_hint(p, "An interval is written \"5 minutes\" or \"@every 5m\", a time of the "
					 "calendar as a pattern: \"0 3 * * MON\".");
}

bool
cron_fail_field_count(Parser *p)
{
	Word first = p->words[0];
	Word last = last_word(p);

	cron_fail(p, p->nwords > 7 ? p->words[7].start : last.start + last.len,
			  "expected 5, 6 or 7 fields, found %d", p->nwords);
	if (cron_word_is(p, first, "every"))
		return hint_every(p);
	if (p->nwords == 1 && is_duration(p, first))
		return cron_hint(p, "An interval is written \"5 minutes\" or \"@every 5m\".");
	if (has_command(p))
		return hint_command(p);
	if (has_loose_list(p))
		return cron_hint(p, "Lists, ranges and steps are written without spaces: \"1,2,3\".");
	return cron_hint(p, "The fields are minute, hour, day of month, month, day of week; with 6 "
					 "fields, second comes first; with 7, year comes last.");
}

/* ---------------------------------------------------------------------------------------------
 * Hints for errors in a field
 */

/* What "L" and its like are for, by the field that they are in. */
static bool
hint_special(Parser *p, int at, char special)
{
	bool dow = p->field == &cron_field_rules[DOW];
	bool follows_dash = at > p->item.start && p->text[at - 1] == '-';

	switch (special)
	{
		case 'L':
			if (dow && at == p->item.start)
				return cron_hint(p, "The last Friday of the month is \"FRI#L\"; Quartz's \"L\", "
								 "Saturday, is \"SAT\".");
			if (dow)
				return cron_hint(p, "\"L\" follows a single day: \"MON#L,TUE#L\".");
			if (p->field != &cron_field_rules[DOM])
				return cron_hint(p, "\"L\", the last, is for day of month and day of week.");
			if (follows_dash)
				return cron_hint(p, "A range to the end of the month ends with 31.");
			return cron_hint(p, "The last day of the month is \"L\"; \"5L\", the last Friday, is "
							 "a day of week.");
		case 'W':
			if (p->field == &cron_field_rules[DOM])
				return cron_hint(p, "\"W\" follows a single day or \"L\": it takes no list, range "
								 "or step.");
			return cron_hint(p, "\"W\", the nearest weekday, is for day of month; Monday to "
							 "Friday are \"MON-FRI\" in day of week.");
		case '#':
			if (dow)
				return cron_hint(p, "\"#\" follows a single day: \"MON#2,TUE#2\".");
			return cron_hint(p, "\"#\", the n-th of the month, is for day of week: \"MON#2\".");
		case '+':
			return cron_hint(p, "\"+\", a day that matches both, is the first character of day of "
							 "week.");
		case '$':
			return cron_hint(p, "\"$\", the last day of the month, stands alone in day of month.");
		default:
			return cron_hint(p, "\"?\" is for day of month and day of week, and means \"*\" "
							 "there.");
	}
}

/* A hint for what stands at 'at' and is no part of an item, if it can be known what was meant. */
void
cron_hint_item(Parser *p, int at)
{
	Word rest = cron_subword(p->item, at - p->item.start);
	char c = p->text[at];
	char next = rest.len > 1 ? p->text[at + 1] : '\0';
	int i;

	for (i = 0; i < rest.len && cron_is_digit(p->text[at + i]); i++)
		;
	if (i > 0 && i < rest.len && strchr("lw", cron_to_lower(p->text[at + i])) != NULL)
		c = p->text[at + i];
	if ((c == 'l' || c == 'w') && strchr(p->field->special, c - 'a' + 'A') != NULL &&
		(rest.len == i + 1 || !cron_is_letter(p->text[at + i + 1])))
		cron_hint(p, "Write \"%c\" in upper case.", c - 'a' + 'A');
	else if (strchr("LW#+$?", c) != NULL && !(i == 0 && cron_is_letter(c) && cron_is_letter(next)))
		hint_special(p, at, c);
	else if ((c == 'H' && !cron_is_letter(next)) || c == '~')
		cron_hint(p, "A value chosen by the scheduler, as with Jenkins' \"H\", is not known: "
				  "choose one, or give the job a jitter.");
	else if (c == '/' && at == p->item.start)
		cron_hint(p, "Write \"*%s\".", cron_shown(p, rest));
	else if (c == '/')
		cron_hint(p, "A step follows \"*\", a value or a range.");
	else if (at == p->item.start + 1 && p->text[at - 1] == '*' && cron_all_digits(p, rest))
		cron_hint(p, "Every so many is written with a slash: \"*/%s\".", cron_shown(p, rest));
	else if (c == '.')
		cron_hint(p, "Values are whole numbers.");
}

/* Name of a value in another field than the one being read? */
static bool
hint_other_field(Parser *p, Word w)
{
	int i;
	int j;

	for (i = 0; i < NFIELDS; i++)
	{
		const FieldRule *rule = &cron_field_rules[i];

		for (j = 0; rule != p->field && j < rule->nnames; j++)
		{
			if (!cron_word_is(p, w, rule->names[j]))
				continue;
			cron_hint(p, "\"%s\" is a %s, which is field %d of %d.", cron_shown(p, w), rule->name,
					  i + (p->nwords == 5 ? 0 : 1), p->nwords);
			return true;
		}
	}
	return false;
}

/*
 * The names of the field that a word comes near to: begins with three letters of, is the first two
 * letters of, or has one letter wrong. NULL if there is none or more than one.
 */
static const char *
nearest_name(const Parser *p, Word w)
{
	const char *found = NULL;
	Word three = w;
	int i;

	three.len = w.len > 3 ? 3 : w.len;
	for (i = 0; i < p->field->nnames; i++)
	{
		const char *name = p->field->names[i];
		bool begins = w.len == 2 &&
					  cron_to_lower(p->text[w.start]) == cron_to_lower(name[0]) &&
					  cron_to_lower(p->text[w.start + 1]) == cron_to_lower(name[1]);

		if (w.len >= 3 && cron_word_is(p, three, name))
			return name;
		if (!begins && (w.len < 3 || w.len > 4 || cron_edit_distance(p, w, name) > 1))
			continue;
		if (found != NULL)
			return NULL;
		found = name;
	}
	return found;
}

/* The word, of letters and digits, is neither a number nor a name of the field. */
void
cron_hint_name(Parser *p, Word w)
{
	const char *name;
	int i;

	for (i = 0; i < w.len && cron_is_letter(p->text[w.start + i]); i++)
		;
	if (i == 0 || i < w.len || hint_other_field(p, w))
		return;
	name = nearest_name(p, w);
	if (name == NULL)
		return;
	if (w.len == 3)
		cron_hint(p, "Perhaps you meant \"%s\".", name);
	else
		cron_hint(p, "Names have three letters: write \"%s\".", name);
}

/* Has anything in the text the look of Quartz? */
static bool
has_question_mark(const Parser *p)
{
	int i;

	for (i = 0; i < p->nwords && i < MAX_WORDS; i++)
	{
		if (cron_word_is(p, p->words[i], "?"))
			return true;
	}
	return false;
}

/* A field is wrong; perhaps it is another field than the user thinks. */
void
cron_hint_fields(Parser *p)
{
	bool dow = p->field == &cron_field_rules[DOW];

	if (has_command(p))
		hint_command(p);
	else if (p->nwords == 6 && dow && p->words[5].len == 4 && cron_all_digits(p, p->words[5]))
		cron_hint(p, "With 6 fields the first is second and the last day of week; a year takes "
				  "all 7 fields.");
	else if (p->err->hint[0] != '\0')
		;
	else if (dow && has_question_mark(p))
		cron_hint(p, "Weekdays are SUN-SAT, or 0-7 from Sunday; Quartz counts from SUN = 1.");
	else if (p->nwords == 6)
		cron_hint(p, "With 6 fields the first is second: second, minute, hour, day of month, "
				  "month, day of week.");
}
