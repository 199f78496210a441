/*
 * cron_text.c
 *	  Characters, words and error messages of the parser of schedules.
 *
 * The ctype functions depend on the locale; a schedule must not.
 */
#include "core/cron_parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool
cron_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

char
cron_to_lower(char c)
{
	return (c >= 'A' && c <= 'Z') ? (char) (c - 'A' + 'a') : c;
}

bool
cron_is_letter(char c)
{
	return cron_to_lower(c) >= 'a' && cron_to_lower(c) <= 'z';
}

/* OCPS allows no other white space. */
static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* Cut the text from 'start' on into words. */
void
cron_split_words(Parser *p, int start)
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

/* The word without its first 'from' characters. */
Word
cron_subword(Word w, int from)
{
	w.start += from;
	w.len -= from;
	return w;
}

/* Is the word this name, in whatever case? */
bool
cron_word_is(const Parser *p, Word w, const char *name)
{
	int i;

	for (i = 0; i < w.len && name[i] != '\0'; i++)
	{
		if (cron_to_lower(p->text[w.start + i]) != cron_to_lower(name[i]))
			return false;
	}
	return i == w.len && name[i] == '\0';
}

bool
cron_word_is_exactly(const Parser *p, Word w, const char *name)
{
	return (size_t) w.len == strlen(name) && strncmp(p->text + w.start, name, w.len) == 0;
}

bool
cron_all_digits(const Parser *p, Word w)
{
	int i;

	for (i = 0; i < w.len && cron_is_digit(p->text[w.start + i]); i++)
		;
	return w.len > 0 && i == w.len;
}

/* The number that a word of digits is, or 'limit' if that is less. */
int64_t
cron_to_number(const Parser *p, Word digits, int64_t limit)
{
	int64_t value = 0;
	int i;

	for (i = 0; i < digits.len && value < limit; i++)
		value = value * 10 + (p->text[digits.start + i] - '0');
	return value < limit ? value : limit;
}

static int
min3(int a, int b, int c)
{
	int least = a < b ? a : b;

	return least < c ? least : c;
}

/*
 * How many letters must be inserted, deleted or replaced to make 'name' of a word, in whatever case
 * (Levenshtein).
 */
int
cron_edit_distance(const Parser *p, Word w, const char *name)
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
			bool same = cron_to_lower(p->text[w.start + i - 1]) == cron_to_lower(name[j - 1]);
			int replaced = diagonal + (same ? 0 : 1);

			diagonal = row[j];
			row[j] = min3(replaced, row[j] + 1, row[j - 1] + 1);
		}
	}
	return row[len];
}

/*
 * A copy of a piece of the user's text for a message, cut if it is long. In every encoding that a
 * server can have, the bytes of a multibyte character are all above 127, so that a cut that leaves
 * none of them at the end cannot have split a character. The copy lasts until MAX_QUOTES others.
 */
const char *
cron_shown(Parser *p, Word w)
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

/* Record an error at a 0-based offset. Always false, for "return cron_fail(...)". */
bool
cron_fail(Parser *p, int at, const char *fmt, ...)
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
bool
cron_hint(Parser *p, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(p->err->hint, sizeof(p->err->hint), fmt, args);
	va_end(args);
	return false;
}

/* Words after a schedule that is complete without them. */
bool
cron_fail_trailing(Parser *p, int word, const char *what)
{
	Word w = p->words[word];

	return cron_fail(p, w.start, "unexpected text \"%s\" after %s", cron_shown(p, w), what);
}
