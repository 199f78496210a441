/*
 * json_scan.c
 *	  Is a text JSON?  A scanner that allocates nothing and does not recurse.
 *
 * A text from etcd may have been written by anybody, and this is what sees it first: it looks through the whole with
 * a fixed amount of memory, one bit per level of nesting, so that nothing in the text can do harm.  It is stricter than
 * cJSON, which comes after it: the grammar is that of RFC 8259, strings are UTF-8, and there is no NUL in any form.
 *
 * On the way it counts what json_parse_object() puts bounds to (items, the length of numbers), and notes where each
 * member of the outermost object begins and ends, so that a member can be kept byte by byte.
 *
 * The first thing that is wrong ends the scan: why and pos of the Scanner then say what it is, and where.
 */
#include "core/json.h"

#include <string.h>

/* The length of a UTF-8 sequence; 0: cut off, overlong, a surrogate, or beyond U+10FFFF. */
static int
utf8_length(const char *text, const char *end)
{
	const unsigned char *p = (const unsigned char *) text;
	unsigned char low = 0x80;
	unsigned char high = 0xBF;
	int len;
	int i;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
	if (end - text < len)
		return 0;
	if (p[0] == 0xE0)
		low = 0xA0;
	else if (p[0] == 0xED)
		high = 0x9F;
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F;
	if (p[1] < low || p[1] > high)
		return 0;
	for (i = 2; i < len; i++)
	{
		if (p[i] < 0x80 || p[i] > 0xBF)
			return 0;
	}
	return len;
}

bool
json_is_utf8(const char *text, size_t len)
{
	const char *end = text + len;

	while (text < end)
	{
		int step = utf8_length(text, end);

		if (step == 0)
			return false;
		text += step;
	}
	return true;
}

static bool
scan_fail(Scanner *scan, const char *why)
{
	if (scan->why == NULL)
		scan->why = why;
	return false;
}

static void
scan_space(Scanner *scan)
{
	while (scan->pos < scan->end &&
		   (*scan->pos == ' ' || *scan->pos == '\t' || *scan->pos == '\n' || *scan->pos == '\r'))
		scan->pos++;
}

/* Moves past c, if that comes next. */
static bool
scan_char(Scanner *scan, char c)
{
	if (scan->pos >= scan->end || *scan->pos != c)
		return false;
	scan->pos++;
	return true;
}

/* Moves past digits and tells if there were any. */
static bool
scan_digits(Scanner *scan)
{
	const char *start = scan->pos;

	while (scan->pos < scan->end && *scan->pos >= '0' && *scan->pos <= '9')
		scan->pos++;
	return scan->pos > start;
}

static bool
scan_number(Scanner *scan)
{
	const char *start = scan->pos;

	scan_char(scan, '-');
	if (!scan_char(scan, '0') && !scan_digits(scan))
		return scan_fail(scan, "malformed value");
	if (scan_char(scan, '.') && !scan_digits(scan))
		return scan_fail(scan, "malformed number");
	if (scan_char(scan, 'e') || scan_char(scan, 'E'))
	{
		if (!scan_char(scan, '+'))
			scan_char(scan, '-');
		if (!scan_digits(scan))
			return scan_fail(scan, "malformed number");
	}
	if ((size_t) (scan->pos - start) > scan->longest_number)
		scan->longest_number = (size_t) (scan->pos - start);
	return true;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Four hexadecimal digits; -1 if they are not. */
static int
scan_hex(Scanner *scan)
{
	int value = 0;
	int i;

	if (scan->end - scan->pos < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		int digit = hex_value(*scan->pos++);

		if (digit < 0)
			return -1;
		value = value * 16 + digit;
	}
	return value;
}

/* What follows a backslash. */
static bool
scan_escape(Scanner *scan)
{
	int unit;

	if (scan->pos >= scan->end)
		return scan_fail(scan, "unterminated string");
	if (*scan->pos != 'u')
	{
		/* not strchr() alone, which finds NUL */
		if (*scan->pos == '\0' || strchr("\"\\/bfnrt", *scan->pos) == NULL)
			return scan_fail(scan, "malformed escape sequence");
		scan->pos++;
		return true;
	}
	scan->pos++;
	unit = scan_hex(scan);
	if (unit >= 0xD800 && unit <= 0xDBFF)
	{
		int low = scan_char(scan, '\\') && scan_char(scan, 'u') ? scan_hex(scan) : -1;

		if (low < 0xDC00 || low > 0xDFFF)
			return scan_fail(scan, "malformed surrogate pair");
	}
	else if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
		return scan_fail(scan, "malformed or NUL \\u sequence");
	return true;
}

static bool
scan_string(Scanner *scan)
{
	if (!scan_char(scan, '"'))
		return scan_fail(scan, "string expected");
	while (scan->pos < scan->end)
	{
		int len;

		if (scan_char(scan, '"'))
			return true;
		if (scan_char(scan, '\\'))
		{
			if (!scan_escape(scan))
				return false;
			continue;
		}
		if ((unsigned char) *scan->pos < 0x20)
			return scan_fail(scan, "control character in a string");
		len = utf8_length(scan->pos, scan->end);
		if (len == 0)
			return scan_fail(scan, "invalid UTF-8");
		scan->pos += len;
	}
	return scan_fail(scan, "unterminated string");
}

static bool
scan_word(Scanner *scan, const char *word)
{
	size_t len = strlen(word);

	if ((size_t) (scan->end - scan->pos) < len || memcmp(scan->pos, word, len) != 0)
		return false;
	scan->pos += len;
	return true;
}

static bool
in_object(const Scanner *scan)
{
	return scan->depth > 0 && (scan->objects & 1) != 0;
}

/* A member's name and colon, and the white space after it. */
static bool
scan_name(Scanner *scan)
{
	Member *member = NULL;

	scan_space(scan);
	if (scan->depth == 1)
	{
		if (scan->nmembers < CODEC_MAX_MEMBERS)
		{
			member = &scan->members[scan->nmembers];
			member->name = scan->pos;
		}
		scan->nmembers++;
	}
	if (!scan_string(scan))
		return false;
	scan_space(scan);
	if (!scan_char(scan, ':'))
		return scan_fail(scan, "':' expected");
	scan_space(scan);
	if (member != NULL)
		member->value = scan->pos;
	return true;
}

static bool
scan_enter(Scanner *scan, bool object)
{
	if (scan->depth >= CODEC_MAX_DEPTH)
		return scan_fail(scan, "nested too deeply");
	scan->depth++;
	scan->objects = scan->objects << 1 | (object ? 1 : 0);
	return true;
}

/* A value at this level ends; with it a member, if this is the outermost object. */
static void
scan_value_ends(Scanner *scan)
{
	if (scan->depth == 1 && in_object(scan) && scan->nmembers <= CODEC_MAX_MEMBERS)
		scan->members[scan->nmembers - 1].end = scan->pos;
}

/* Moves past all that closes here. */
static bool
scan_closing(Scanner *scan)
{
	scan_value_ends(scan);
	for (;;)
	{
		scan_space(scan);
		if (scan->depth == 0 || !scan_char(scan, in_object(scan) ? '}' : ']'))
			return true;
		scan->depth--;
		scan->objects >>= 1;
		scan_value_ends(scan);
	}
}

/*
 * A scalar, or the beginning of an array or object up to where its first value is to stand.  Sets
 * *complete if a whole value has been passed.
 */
static bool
scan_value_begins(Scanner *scan, bool *complete)
{
	bool object;

	scan->items++;
	*complete = true;
	if (scan->pos >= scan->end)
		return scan_fail(scan, "unexpected end");
	if (*scan->pos == '"')
		return scan_string(scan);
	if (scan_word(scan, "true") || scan_word(scan, "false") || scan_word(scan, "null"))
		return true;
	object = *scan->pos == '{';
	if (!object && *scan->pos != '[')
		return scan_number(scan);

	scan->pos++;
	scan_space(scan);
	if (scan_char(scan, object ? '}' : ']'))
		return scan->depth < CODEC_MAX_DEPTH ? true : scan_fail(scan, "nested too deeply");
	*complete = false;
	return scan_enter(scan, object) && (!object || scan_name(scan));
}

/* Looks through a whole text.  On true it is JSON within CODEC_MAX_DEPTH. */
bool
json_scan(Scanner *scan, const char *text, size_t len)
{
	bool complete;

	scan->pos = text;
	scan->end = text + len;
	scan->why = NULL;
	scan->objects = 0;
	scan->depth = 0;
	scan->items = 0;
	scan->longest_number = 0;
	scan->nmembers = 0;
	for (;;)
	{
		scan_space(scan);
		if (!scan_value_begins(scan, &complete))
			return false;
		if (!complete)
			continue;
		if (!scan_closing(scan))
			return false;
		if (scan->depth == 0)
			break;
		if (!scan_char(scan, ','))
			return scan_fail(scan, "',' or closing bracket expected");
		if (in_object(scan) && !scan_name(scan))
			return false;
	}
	return scan->pos == scan->end || scan_fail(scan, "garbage after the end");
}
