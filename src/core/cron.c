/*
 * cron.c
 *	  The parser of schedules: the whole text, nicknames and intervals.
 *
 * How the parser works is said in cron_parser.h.
 */
#include "core/cron_parser.h"

#include <string.h>

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
 * Intervals
 */

static bool
set_interval(Parser *p, CronSchedule *s, Word w, int64_t seconds)
{
	if (seconds < 1 || seconds > CRON_MAX_INTERVAL)
		return cron_fail(p, w.start, "interval \"%s\" is out of range 1 second to 10 years",
					cron_shown(p, w));
	s->kind = CRON_INTERVAL;
	s->interval_s = seconds;
	return true;
}

/* Is the word a unit, in the singular or the plural? Its seconds, or 0. */
int64_t
cron_unit_of_word(const Parser *p, Word w)
{
	Word singular = w;
	int i;

	if (w.len > 1 && cron_to_lower(p->text[w.start + w.len - 1]) == 's')
		singular.len--;
	for (i = 0; i < lengthof(units); i++)
	{
		if (cron_word_is(p, singular, units[i].word))
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
	if (p->nwords < 2 || !cron_all_digits(p, p->words[0]))
		return false;
	return cron_unit_of_word(p, p->words[1]) != 0 ||
		   (p->nwords < 5 && cron_is_letter(p->text[p->words[1].start]));
}

/* Somebody wrote "2 weeks"? */
static bool
hint_unit(Parser *p, Word w)
{
	if (cron_word_is(p, w, "week") || cron_word_is(p, w, "weeks"))
		return cron_hint(p, "Write days: \"7 days\"; or a pattern such as \"0 0 * * MON\".");
	if (cron_word_is(p, w, "month") || cron_word_is(p, w, "months") || cron_word_is(p, w, "year") ||
		cron_word_is(p, w, "years"))
		return cron_hint(p, "Months and years differ in length: write a pattern such as \"0 0 1 "
						 "*/2 *\".");
	return cron_hint(p, "Units are seconds, minutes, hours and days.");
}

/* 30 seconds */
static bool
parse_interval(Parser *p, CronSchedule *s)
{
	int64_t unit = cron_unit_of_word(p, p->words[1]);
	Word whole = p->words[0];

	whole.len = p->words[1].start + p->words[1].len - whole.start;
	if (unit == 0)
	{
		cron_fail(p, p->words[1].start, "unknown unit \"%s\" of an interval",
				  cron_shown(p, p->words[1]));
		return hint_unit(p, p->words[1]);
	}
	if (p->nwords > 2)
	{
		cron_fail_trailing(p, 2, "the interval");
		return cron_hint(p, "Several units are written together: \"@every 1h30m\".");
	}
	return set_interval(p, s, whole, unit * cron_to_number(p, p->words[0], CRON_MAX_INTERVAL + 1));
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
	cron_fail(p, at, "invalid duration \"%s\"", cron_shown(p, w));
	if (cron_all_digits(p, w))
		return cron_hint(p, "The number needs a unit: \"@every %sm\".", cron_shown(p, w));
	return cron_hint(p, "A duration is whole numbers, each with a unit d, h, m or s, as in "
					 "\"1h30m\".");
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

		while (at < end && cron_is_digit(p->text[at]))
			at++;
		digits.len = at - digits.start;
		unit = at < end ? unit_of_letter(p->text[at]) : 0;
		if (digits.len == 0 || unit == 0)
			return fail_duration(p, w, at);
		at++;
		if (at < end && p->text[at] == 's')
			return fail_duration(p, w, at - 1); /* "ms" */
		*seconds += unit * cron_to_number(p, digits, CRON_MAX_INTERVAL + 1);
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
		cron_fail(p, p->words[0].start + p->words[0].len, "\"@every\" needs a duration");
		return cron_hint(p, "Write, for example, \"@every 1h30m\".");
	}
	if (p->nwords > 2 && cron_all_digits(p, p->words[1]) && cron_unit_of_word(p, p->words[2]) != 0)
	{
		fail_duration(p, p->words[1], p->words[1].start);
		return cron_hint(p,
					"Write \"%s %s\" without \"@every\", or a duration such as \"@every 1h30m\".",
					cron_shown(p, p->words[1]), cron_shown(p, p->words[2]));
	}
	if (!parse_duration(p, p->words[1], &seconds))
		return false;
	if (p->nwords > 2)
	{
		cron_fail_trailing(p, 2, "the duration");
		return cron_hint(p, "Several units are written together: \"@every 1h30m\".");
	}
	return set_interval(p, s, p->words[1], seconds);
}

/* ---------------------------------------------------------------------------------------------
 * Nicknames
 */

static bool
fail_nickname(Parser *p)
{
	const char *nearest = "@every";
	int least = cron_edit_distance(p, p->words[0], nearest);
	int i;

	for (i = 0; i < lengthof(nicknames); i++)
	{
		int distance = cron_edit_distance(p, p->words[0], nicknames[i].name);

		if (distance < least)
		{
			least = distance;
			nearest = nicknames[i].name;
		}
	}
	cron_fail(p, p->words[0].start, "unknown schedule \"%s\"", cron_shown(p, p->words[0]));
	if (least == 0)
		return cron_hint(p, "Nicknames are in lower case: \"%s\".", nearest);
	if (least <= 2)
		return cron_hint(p, "Perhaps you meant \"%s\".", nearest);
	return cron_hint(p, "Known are @yearly, @annually, @monthly, @weekly, @daily, @midnight, "
					 "@hourly, @reboot and @every.");
}

/* A word that begins with "@", and what follows it. */
static bool
parse_nickname(Parser *p, CronSchedule *s)
{
	int i;

	if (cron_word_is_exactly(p, p->words[0], "@every"))
		return parse_every(p, s);
	for (i = 0; i < lengthof(nicknames); i++)
	{
		Parser expanded = *p;

		if (!cron_word_is_exactly(p, p->words[0], nicknames[i].name))
			continue;
		if (p->nwords > 1)
			return cron_fail_trailing(p, 1, nicknames[i].name);
		if (nicknames[i].fields == NULL)
		{
			s->kind = CRON_REBOOT;
			return true;
		}
		expanded.text = nicknames[i].fields;
		cron_split_words(&expanded, 0);
		return cron_read_fields(&expanded, s);
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

	cron_split_words(p, w.start + w.len);
	w.start += prefix;
	w.len -= prefix;
	if (w.len == 0)
		return cron_fail(p, w.start, "time zone is empty");
	if (w.len >= (int) sizeof(s->zone))
		return cron_fail(p, w.start, "time zone \"%s\" is longer than %d bytes", cron_shown(p, w),
					(int) sizeof(s->zone) - 1);
	memcpy(s->zone, p->text + w.start, w.len);
	return true;
}

/* A line break, or what is copied from a page: spaces and tabs are the only white space. */
static bool
fail_white_space(Parser *p, int at)
{
	unsigned char c = (unsigned char) p->text[at];

	if (c > 0x7f)
		cron_fail(p, at, "schedule contains a non-breaking space");
	else
		cron_fail(p, at, "schedule contains the control character 0x%02x", c);
	return cron_hint(p, "A schedule is one line, its words separated by spaces or tabs.");
}

static bool
check_characters(Parser *p)
{
	int at;

	for (at = 0; p->text[at] != '\0'; at++)
	{
		unsigned char c = (unsigned char) p->text[at];

		if ((c < ' ' && c != '\t') || c == 0x7f || strncmp(p->text + at, "\302\240", 2) == 0)
			return fail_white_space(p, at);
	}
	return true;
}

static bool
fail_empty(Parser *p)
{
	cron_fail(p, (int) strlen(p->text), "schedule is empty");
	return cron_hint(p, "Write, for example, \"0 3 * * *\", \"@daily\" or \"5 minutes\".");
}

/* Forgot the "@"? */
static bool
hint_nickname(Parser *p)
{
	int i;

	for (i = 0; i < lengthof(nicknames); i++)
	{
		if (cron_word_is(p, p->words[0], nicknames[i].name + 1))
			cron_hint(p, "Perhaps you meant \"%s\".", nicknames[i].name);
	}
	return false;
}

static bool
parse_text(Parser *p, CronSchedule *s)
{
	if (!check_characters(p))
		return false;
	cron_split_words(p, 0);
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
	return cron_read_fields(p, s) || (p->nwords == 1 && hint_nickname(p));
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
		return cron_fail(&parser, CRON_MAX_TEXT, "schedule is longer than %d bytes", CRON_MAX_TEXT);
	if (!parse_text(&parser, &schedule))
		return false;
	memset(err, 0, sizeof(*err));
	*out = schedule;
	return true;
}
