/*
 * codec.c
 *	  The JSON values that dsched keeps in etcd (and, for states, in its tables too).
 *
 * THE FORMATS
 *
 * Each value is one JSON object (RFC 8259) in UTF-8, written without white space, members in
 * the order given here.  [ ] marks what is left out when it has its default; on reading, null
 * is the same as absent, and the order is free.
 *
 *	int		a JSON number, an integer within +-(2^53 - 1), without fraction and exponent
 *	id		an int from 1 up
 *	num		an int from 0 up
 *	time	an int: microseconds since 1970-01-01 00:00 UTC
 *	dec		a string: an integer of 64 bits in decimal, without '+' or leading zeros
 *
 * A definition, job/<pp>/<role>/<name>:
 *
 *	{"format":1,"job_id":id,"username":"...","job_name":"...",
 *	 ["schedule":"..."|"run_at":time],"command":"...",["time_zone":"..."],
 *	 ["starts_at":time],["expires_at":time],["last_slot":time],["max_runs":num],
 *	 "active":bool,["payload":"<json>"],["metadata":"<json>"],"anchor":time,"gen":num,
 *	 "slots_from":time,"gen_rev":num,"change_id":num,"node":"...",
 *	 ["closed_reason":"..."],<others>}
 *
 * Either schedule or run_at is there.  payload and metadata are strings that hold JSON text,
 * so that their numbers keep every digit.  <others> are the members that this version does
 * not know: they are kept as text, byte by byte, and written back, so that an old version's
 * change of a job does not lose a newer version's fields.
 *
 * The state of a partition, state/any/<pp> (other members are ignored, here and in all that
 * follow):
 *
 *	{"format":1,"node":"...","epoch":num,"seq":num,"jobrev":num,"watermark":time,
 *	 "watermark_job":num,"pending":[run,...],"done":[run,...],"clean":bool}
 *
 * and each run in it:
 *
 *	{"j":id,"g":num,"s":time,["e":time],["t":id],["a":num],["n":time],["l":dec],["r":"..."]}
 *
 *	j	job_id
 *	g	gen
 *	s	slot
 *	e	slot_to, the end of a range of slots (s)
 *	t	trigger_id (0)
 *	a	attempt (0)
 *	n	not_before (none)
 *	l	session: the lease under which it runs (none)
 *	r	reason ("")
 *
 * An instance, node/<node>:
 *
 *	{"format":1,"node":"...","host":"...","port":num,["labels":{...}],"version":"...",
 *	 "server_version_num":num,"lease":dec,"system_identifier":dec,"timeline":num,
 *	 "boot_id":"...","data_dev":dec,"data_ino":dec,"wall_clock":time,"tzdata":"..."}
 *
 * The cluster, config:
 *
 *	{"format":1,"partitions":id,"incarnation":"..."}
 *
 * A trigger, trigger/<pp>/<id>:
 *
 *	{"format":1,"trigger_id":id,"job_id":id,"username":"...","job_name":"...",
 *	 "requested_at":time,"requested_by":"...","change_id":num}
 *
 * HOW THEY ARE READ
 *
 * What comes from etcd may have been written by anybody.  So a text is first looked through by
 * a scanner that allocates nothing: size; depth (cJSON has a limit of its own,
 * CJSON_NESTING_LIMIT, but that is 1000 frames of recursion and decided where cJSON is built);
 * number of items; length of numbers (it depends on cJSON's version how many digits it reads);
 * grammar (cJSON takes a good deal that is not JSON); UTF-8; and no NUL in any form (cJSON would
 * cut a string at \u0000).  Then cJSON makes a tree of it.  A name that occurs twice is refused,
 * as readers differ in which one they believe.  Types are checked while the tree is read, ranges
 * afterwards by the *_check functions, which the encoders ask too: what is written can be read.
 *
 * HOW THEY ARE WRITTEN
 *
 * By a small writer here and not by cJSON, which prints numbers with 15 digits if that is
 * equal "within epsilon": 2^53 - 1 comes out as 9.00719925474099e+15.
 */
#include "core/codec.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/keys.h"

/* Where to tell what is wrong: the first complaint stays. */
typedef struct Problem
{
	char *err;
	size_t errlen;
	bool found;
} Problem;

/* A member of the outermost object, as text: from its name's quote to the end of its value. */
typedef struct Member
{
	const char *name;
	const char *value;
	const char *end;
} Member;

typedef struct Scanner
{
	const char *pos;
	const char *end;
	const char *why;  /* what is wrong, or NULL */
	uint64_t objects; /* one bit per level, the lowest is the innermost: object, not array */
	int depth;
	int items;
	size_t longest_number; /* in bytes */
	int nmembers;		   /* as many as there are; members[] has the first CODEC_MAX_MEMBERS */
	Member members[CODEC_MAX_MEMBERS];
} Scanner;

/* A parsed object, and what to call it in complaints ("" for the outermost). */
typedef struct Reader
{
	const cJSON *object;
	char where[24];
	Problem *problem;
} Reader;

/* A text being written; once failed (memory, size), it stays so. */
typedef struct Writer
{
	char *data;
	size_t used;
	size_t capacity;
	bool failed;
} Writer;

/* What the decoder of a definition knows; everything else goes to extra. */
static const char *const job_fields[] = {
	"format",  "job_id",	"username",	 "job_name",	  "schedule",  "run_at",
	"command", "time_zone", "starts_at", "expires_at",	  "last_slot", "max_runs",
	"active",  "payload",	"metadata",	 "anchor",		  "gen",	   "slots_from",
	"gen_rev", "change_id", "node",		 "closed_reason",
};

static Problem
problem_begin(char *err, size_t errlen)
{
	Problem problem = {err, err != NULL ? errlen : 0, false};

	if (problem.errlen > 0)
		err[0] = '\0';
	return problem;
}

__attribute__((format(printf, 2, 3))) static void
complain(Problem *problem, const char *fmt, ...)
{
	va_list args;

	if (problem->found)
		return;
	problem->found = true;
	if (problem->errlen == 0)
		return;
	va_start(args, fmt);
	vsnprintf(problem->err, problem->errlen, fmt, args);
	va_end(args);
}

/*
 * THE SCANNER
 */

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
static bool
scan_text(Scanner *scan, const char *text, size_t len)
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

/*
 * READING
 */

/* No name may occur twice.  The bound keeps the comparing of each with each cheap. */
static bool
names_differ(const cJSON *object)
{
	const cJSON *a;
	const cJSON *b;
	int count = 0;

	cJSON_ArrayForEach(a, object)
	{
		if (++count > CODEC_MAX_MEMBERS)
			return false;
		for (b = a->next; b != NULL; b = b->next)
		{
			if (strcmp(a->string, b->string) == 0)
				return false;
		}
	}
	return true;
}

/*
 * Makes a tree of a text that is an object; NULL, with a complaint, if it is not or breaks a bound.
 * The i-th child of the result is scan->members[i].
 */
static cJSON *
parse_object(const char *text, size_t len, Scanner *scan, Problem *problem)
{
	cJSON *root;

	if (len > CODEC_MAX_VALUE)
	{
		complain(problem, "the value has %zu bytes, more than %d", len, CODEC_MAX_VALUE);
		return NULL;
	}
	if (!scan_text(scan, text, len))
	{
		complain(problem, "the value is not JSON: %s at byte %td", scan->why, scan->pos - text);
		return NULL;
	}
	if (scan->items > CODEC_MAX_ITEMS || scan->nmembers > CODEC_MAX_MEMBERS)
	{
		complain(problem, "the value has too many items");
		return NULL;
	}
	if (scan->longest_number > CODEC_MAX_NUMBER)
	{
		complain(problem, "the value has a number of more than %d bytes", CODEC_MAX_NUMBER);
		return NULL;
	}
	root = cJSON_ParseWithLength(text, len);
	if (root == NULL)
		complain(problem, "the value cannot be parsed: out of memory");
	else if (!cJSON_IsObject(root))
		complain(problem, "the value is not a JSON object");
	else if (!names_differ(root))
		complain(problem, "the value has two fields of the same name");
	if (problem->found)
	{
		cJSON_Delete(root);
		return NULL;
	}
	return root;
}

static Reader
reader_begin(const cJSON *object, Problem *problem)
{
	Reader reader = {object, "", problem};

	return reader;
}

/* A member, or NULL if it is not there or null. */
static const cJSON *
find(const Reader *reader, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, name);

	return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

static bool
has(const Reader *reader, const char *name)
{
	return find(reader, name) != NULL;
}

static void
complain_about(const Reader *reader, const char *name, const char *what)
{
	complain(reader->problem, "%s\"%s\" %s", reader->where, name, what);
}

/* A member that must be there. */
static const cJSON *
need(const Reader *reader, const char *name)
{
	const cJSON *item = find(reader, name);

	if (item == NULL)
		complain_about(reader, name, "is missing");
	return item;
}

/* An integer from min to max, these within what a double holds exactly; 0 after a complaint. */
static int64_t
read_range(const Reader *reader, const char *name, int64_t min, int64_t max)
{
	const cJSON *item = need(reader, name);
	double value;

	if (item == NULL)
		return 0;
	value = item->valuedouble;
	if (!cJSON_IsNumber(item))
		complain_about(reader, name, "is not a number");
	else if (!(value >= (double) min && value <= (double) max))
		complain_about(reader, name, "is out of range");
	else if (value != (double) (int64_t) value)
		complain_about(reader, name, "is not an integer");
	else
		return (int64_t) value;
	return 0;
}

static int64_t
read_int(const Reader *reader, const char *name)
{
	return read_range(reader, name, -CODEC_MAX_INT, CODEC_MAX_INT);
}

static int64_t
read_time(const Reader *reader, const char *name)
{
	return read_int(reader, name) - CODEC_EPOCH_DIFF;
}

static int
read_int32_or_0(const Reader *reader, const char *name)
{
	return has(reader, name) ? (int) read_range(reader, name, INT32_MIN, INT32_MAX) : 0;
}

static bool
read_bool(const Reader *reader, const char *name)
{
	const cJSON *item = need(reader, name);

	if (item != NULL && !cJSON_IsBool(item))
		complain_about(reader, name, "is not a boolean");
	return cJSON_IsTrue(item);
}

/* A string that must be there; "" after a complaint. */
static const char *
read_string(const Reader *reader, const char *name)
{
	const cJSON *item = need(reader, name);

	if (item == NULL)
		return "";
	if (!cJSON_IsString(item))
	{
		complain_about(reader, name, "is not a string");
		return "";
	}
	return item->valuestring;
}

static char *
copy_bytes(const char *text, size_t len, Problem *problem)
{
	char *copy = malloc(len + 1);

	if (copy == NULL)
	{
		complain(problem, "out of memory");
		return NULL;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

static char *
read_text(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);

	return copy_bytes(text, strlen(text), reader->problem);
}

static char *
read_text_or_null(const Reader *reader, const char *name)
{
	return has(reader, name) ? read_text(reader, name) : NULL;
}

/* A string that fits into a fixed array, which was zeroed before. */
static void
read_array(const Reader *reader, const char *name, char *out, size_t size)
{
	const char *text = read_string(reader, name);
	size_t len = strlen(text);

	if (len >= size)
		complain_about(reader, name, "is too long");
	else
		memcpy(out, text, len + 1);
}

static void
read_array_or_empty(const Reader *reader, const char *name, char *out, size_t size)
{
	if (has(reader, name))
		read_array(reader, name, out, size);
}

/* A decimal string.  Writing it again finds whatever strtoll() puts up with but we do not. */
static int64_t
read_decimal(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);
	int64_t value = strtoll(text, NULL, 10);
	char again[24];

	snprintf(again, sizeof(again), "%" PRId64, value);
	if (strcmp(text, again) != 0)
		complain_about(reader, name, "is not a decimal integer of 64 bits");
	return value;
}

static uint64_t
read_unsigned_decimal(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);
	uint64_t value = strtoull(text, NULL, 10);
	char again[24];

	snprintf(again, sizeof(again), "%" PRIu64, value);
	if (strcmp(text, again) != 0)
		complain_about(reader, name, "is not an unsigned decimal integer of 64 bits");
	return value;
}

static void
read_format(const Reader *reader)
{
	int64_t format = read_int(reader, "format");

	if (!reader->problem->found && format != CODEC_FORMAT)
		complain(reader->problem, "format %" PRId64 " is not known to this version", format);
}

/*
 * CHECKING
 */

static void
check_range(Problem *problem, const char *name, int64_t value, int64_t min, int64_t max)
{
	if (value < min || value > max)
		complain(problem, "\"%s\" is out of range", name);
}

static void
check_id(Problem *problem, const char *name, int64_t value)
{
	check_range(problem, name, value, 1, CODEC_MAX_INT);
}

static void
check_num(Problem *problem, const char *name, int64_t value)
{
	check_range(problem, name, value, 0, CODEC_MAX_INT);
}

static void
check_time(Problem *problem, const char *name, int64_t value)
{
	check_range(problem, name, value, CODEC_MIN_TIME, CODEC_MAX_TIME);
}

static bool
is_utf8(const char *text, size_t len)
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

static void
check_text(Problem *problem, const char *name, const char *text, size_t min, size_t max)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len < min)
		complain(problem, "\"%s\" is empty", name);
	else if (len > max)
		complain(problem, "\"%s\" has more than %zu bytes", name, max);
	else if (!is_utf8(text, len))
		complain(problem, "\"%s\" is not UTF-8", name);
}

static void
check_text_or_null(Problem *problem, const char *name, const char *text, size_t min, size_t max)
{
	if (text != NULL)
		check_text(problem, name, text, min, max);
}

/* For what must not need escaping: only letters, digits and the given others. */
static void
check_word(Problem *problem, const char *name, const char *text, const char *allowed)
{
	if (text[strspn(text, allowed)] != '\0')
		complain(problem, "\"%s\" contains a character that it must not contain", name);
}

/* NULL, or JSON text; if so asked, an object. */
static void
check_json(Problem *problem, const char *name, const char *text, size_t max, bool object)
{
	Scanner scan;

	if (text == NULL)
		return;
	check_text(problem, name, text, 1, max);
	if (problem->found)
		return;
	if (!scan_text(&scan, text, strlen(text)))
		complain(problem, "\"%s\" is not JSON: %s at byte %td", name, scan.why, scan.pos - text);
	else if (object && text[strspn(text, " \t\n\r")] != '{')
		complain(problem, "\"%s\" is not a JSON object", name);
}

/*
 * WRITING
 */

static Writer
writer_begin(void)
{
	Writer writer = {NULL, 0, 0, false};

	return writer;
}

static void
put_bytes(Writer *writer, const char *bytes, size_t len)
{
	if (writer->failed || len > CODEC_MAX_VALUE - writer->used)
	{
		writer->failed = true;
		return;
	}
	/* one byte is kept for the NUL */
	if (writer->used + len >= writer->capacity)
	{
		size_t capacity = 2 * (writer->used + len) + 512;
		char *data = realloc(writer->data, capacity);

		if (data == NULL)
		{
			writer->failed = true;
			return;
		}
		writer->data = data;
		writer->capacity = capacity;
	}
	memcpy(writer->data + writer->used, bytes, len);
	writer->used += len;
}

static void
put(Writer *writer, const char *text)
{
	put_bytes(writer, text, strlen(text));
}

/* A comma, unless this is the first in its object or array. */
static void
put_separator(Writer *writer)
{
	char last = writer->used > 0 ? writer->data[writer->used - 1] : '{';

	if (last != '{' && last != '[')
		put(writer, ",");
}

static void
put_name(Writer *writer, const char *name)
{
	put_separator(writer);
	put(writer, "\"");
	put(writer, name);
	put(writer, "\":");
}

static void
put_int(Writer *writer, const char *name, int64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%" PRId64, value);
	put_name(writer, name);
	put(writer, digits);
}

static void
put_time(Writer *writer, const char *name, int64_t value)
{
	put_int(writer, name, value + CODEC_EPOCH_DIFF);
}

static void
put_bool(Writer *writer, const char *name, bool value)
{
	put_name(writer, name);
	put(writer, value ? "true" : "false");
}

static void
put_decimal(Writer *writer, const char *name, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "\"%" PRId64 "\"", value);
	put_name(writer, name);
	put(writer, text);
}

static void
put_unsigned_decimal(Writer *writer, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "\"%" PRIu64 "\"", value);
	put_name(writer, name);
	put(writer, text);
}

/* One character that cannot stand for itself in a JSON string. */
static void
put_escaped(Writer *writer, char c)
{
	char text[8];

	switch (c)
	{
		case '"':
			put(writer, "\\\"");
			break;
		case '\\':
			put(writer, "\\\\");
			break;
		case '\n':
			put(writer, "\\n");
			break;
		case '\r':
			put(writer, "\\r");
			break;
		case '\t':
			put(writer, "\\t");
			break;
		default:
			snprintf(text, sizeof(text), "\\u%04x", (unsigned char) c);
			put(writer, text);
	}
}

static void
put_text(Writer *writer, const char *name, const char *text)
{
	const char *start;

	put_name(writer, name);
	put(writer, "\"");
	for (start = text; *text != '\0'; text++)
	{
		if ((unsigned char) *text >= 0x20 && *text != '"' && *text != '\\')
			continue;
		put_bytes(writer, start, text - start);
		put_escaped(writer, *text);
		start = text + 1;
	}
	put_bytes(writer, start, text - start);
	put(writer, "\"");
}

static void
put_text_unless_null(Writer *writer, const char *name, const char *text)
{
	if (text != NULL)
		put_text(writer, name, text);
}

/* The first member of every value. */
static void
put_head(Writer *writer)
{
	put(writer, "{");
	put_int(writer, "format", CODEC_FORMAT);
}

/* The end of every value; what the encoders return. */
static char *
put_tail(Writer *writer, size_t *len)
{
	put(writer, "}");
	if (len != NULL)
		*len = writer->failed ? 0 : writer->used;
	if (writer->failed)
	{
		free(writer->data);
		return NULL;
	}
	writer->data[writer->used] = '\0';
	return writer->data;
}

/* What an encoder returns that has nothing to write. */
static char *
refuse(size_t *len)
{
	if (len != NULL)
		*len = 0;
	return NULL;
}

/*
 * DEFINITIONS
 */

static bool
is_job_field(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(job_fields) / sizeof(job_fields[0]); i++)
	{
		if (strcmp(name, job_fields[i]) == 0)
			return true;
	}
	return false;
}

/* extra goes between our own fields, so it must be sound in itself and not say what they say. */
static void
check_extra(Problem *problem, const char *extra)
{
	Scanner scan;
	cJSON *root;
	const cJSON *item;

	if (extra == NULL || problem->found)
		return;
	root = parse_object(extra, strlen(extra), &scan, problem);
	if (root == NULL)
		return;
	cJSON_ArrayForEach(item, root)
	{
		if (is_job_field(item->string))
			complain(problem, "an extra field has the name of a known one");
	}
	if (scan.nmembers + sizeof(job_fields) / sizeof(job_fields[0]) > CODEC_MAX_MEMBERS)
		complain(problem, "there are too many extra fields");
	cJSON_Delete(root);
}

static void
check_job_times(Problem *problem, const JobDef *job)
{
	if (job->schedule == NULL)
		check_time(problem, "run_at", job->run_at);
	if (job->has_starts_at)
		check_time(problem, "starts_at", job->starts_at);
	if (job->has_expires_at)
		check_time(problem, "expires_at", job->expires_at);
	if (job->has_last_slot)
		check_time(problem, "last_slot", job->last_slot);
	check_time(problem, "anchor", job->anchor);
	check_time(problem, "slots_from", job->slots_from);
}

bool
codec_job_check(const JobDef *job, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);

	check_id(&problem, "job_id", job->job_id);
	check_text(&problem, "username", job->username, 1, CODEC_MAX_ROLE);
	check_text(&problem, "job_name", job->job_name, 1, CODEC_MAX_NAME);
	check_text_or_null(&problem, "schedule", job->schedule, 1, CODEC_MAX_SCHEDULE);
	check_text(&problem, "command", job->command, 1, CODEC_MAX_COMMAND);
	check_text_or_null(&problem, "time_zone", job->time_zone, 1, CODEC_MAX_TEXT);
	check_job_times(&problem, job);
	check_range(&problem, "max_runs", job->max_runs, 0, INT32_MAX);
	check_json(&problem, "payload", job->payload, CODEC_MAX_JSON, false);
	check_json(&problem, "metadata", job->metadata, CODEC_MAX_JSON, false);
	check_num(&problem, "gen", job->gen);
	check_num(&problem, "gen_rev", job->gen_rev);
	check_num(&problem, "change_id", job->change_id);
	check_text(&problem, "node", job->node, 1, CODEC_MAX_NAME);
	check_text_or_null(&problem, "closed_reason", job->closed_reason, 0, CODEC_MAX_TEXT);
	check_extra(&problem, job->extra);
	return !problem.found;
}

/* The members that are not ours, as one object; NULL if there are none. */
static char *
read_extra(const cJSON *root, const Scanner *scan, Problem *problem)
{
	Writer writer = writer_begin();
	const Member *member = scan->members;
	const cJSON *item;

	put(&writer, "{");
	cJSON_ArrayForEach(item, root)
	{
		if (!is_job_field(item->string))
		{
			put_separator(&writer);
			put_bytes(&writer, member->name, member->end - member->name);
		}
		member++;
	}
	if (writer.failed)
		complain(problem, "out of memory");
	else if (writer.used == 1)
		writer.failed = true; /* nothing is there: put_tail() is to give NULL */
	return put_tail(&writer, NULL);
}

/* Either a schedule or the time of a one-shot. */
static void
read_when(const Reader *reader, JobDef *out)
{
	out->schedule = read_text_or_null(reader, "schedule");
	if (out->schedule == NULL)
		out->run_at = read_time(reader, "run_at");
	else if (has(reader, "run_at"))
		complain(reader->problem, "both \"schedule\" and \"run_at\" are given");
}

static void
read_bounds(const Reader *reader, JobDef *out)
{
	out->has_starts_at = has(reader, "starts_at");
	if (out->has_starts_at)
		out->starts_at = read_time(reader, "starts_at");
	out->has_expires_at = has(reader, "expires_at");
	if (out->has_expires_at)
		out->expires_at = read_time(reader, "expires_at");
	out->has_last_slot = has(reader, "last_slot");
	if (out->has_last_slot)
		out->last_slot = read_time(reader, "last_slot");
	out->max_runs = read_int32_or_0(reader, "max_runs");
}

static void
read_job(const Reader *reader, JobDef *out)
{
	read_format(reader);
	out->job_id = read_int(reader, "job_id");
	out->username = read_text(reader, "username");
	out->job_name = read_text(reader, "job_name");
	read_when(reader, out);
	out->command = read_text(reader, "command");
	out->time_zone = read_text_or_null(reader, "time_zone");
	read_bounds(reader, out);
	out->active = read_bool(reader, "active");
	out->payload = read_text_or_null(reader, "payload");
	out->metadata = read_text_or_null(reader, "metadata");
	out->anchor = read_time(reader, "anchor");
	out->gen = read_int(reader, "gen");
	out->slots_from = read_time(reader, "slots_from");
	out->gen_rev = read_int(reader, "gen_rev");
	out->change_id = read_int(reader, "change_id");
	out->node = read_text(reader, "node");
	out->closed_reason = read_text_or_null(reader, "closed_reason");
}

bool
codec_job_decode(const char *text, size_t len, JobDef *out, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = reader_begin(root, &problem);

		read_job(&reader, out);
		out->extra = read_extra(root, &scan, &problem);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_job_check(out, err, errlen))
		return true;
	codec_job_free(out);
	return false;
}

/* The members of extra, without its braces. */
static void
put_extra(Writer *writer, const char *extra)
{
	const char *start;
	const char *end;

	if (extra == NULL)
		return;
	/* that it is an object is checked already */
	start = strchr(extra, '{') + 1;
	end = strrchr(extra, '}');
	start += strspn(start, " \t\n\r");
	if (start == end)
		return;
	put_separator(writer);
	put_bytes(writer, start, end - start);
}

static void
put_job_when(Writer *writer, const JobDef *job)
{
	if (job->schedule != NULL)
		put_text(writer, "schedule", job->schedule);
	else
		put_time(writer, "run_at", job->run_at);
}

static void
put_job_bounds(Writer *writer, const JobDef *job)
{
	if (job->has_starts_at)
		put_time(writer, "starts_at", job->starts_at);
	if (job->has_expires_at)
		put_time(writer, "expires_at", job->expires_at);
	if (job->has_last_slot)
		put_time(writer, "last_slot", job->last_slot);
	if (job->max_runs != 0)
		put_int(writer, "max_runs", job->max_runs);
}

char *
codec_job_encode(const JobDef *job, size_t *len)
{
	Writer writer = writer_begin();

	if (!codec_job_check(job, NULL, 0))
		return refuse(len);
	put_head(&writer);
	put_int(&writer, "job_id", job->job_id);
	put_text(&writer, "username", job->username);
	put_text(&writer, "job_name", job->job_name);
	put_job_when(&writer, job);
	put_text(&writer, "command", job->command);
	put_text_unless_null(&writer, "time_zone", job->time_zone);
	put_job_bounds(&writer, job);
	put_bool(&writer, "active", job->active);
	put_text_unless_null(&writer, "payload", job->payload);
	put_text_unless_null(&writer, "metadata", job->metadata);
	put_time(&writer, "anchor", job->anchor);
	put_int(&writer, "gen", job->gen);
	put_time(&writer, "slots_from", job->slots_from);
	put_int(&writer, "gen_rev", job->gen_rev);
	put_int(&writer, "change_id", job->change_id);
	put_text(&writer, "node", job->node);
	put_text_unless_null(&writer, "closed_reason", job->closed_reason);
	put_extra(&writer, job->extra);
	return put_tail(&writer, len);
}

void
codec_job_free(JobDef *job)
{
	free(job->username);
	free(job->job_name);
	free(job->schedule);
	free(job->command);
	free(job->time_zone);
	free(job->payload);
	free(job->metadata);
	free(job->node);
	free(job->closed_reason);
	free(job->extra);
	memset(job, 0, sizeof(*job));
}

/*
 * STATES
 */

static void
check_run(Problem *problem, const PendingRun *run)
{
	check_id(problem, "job_id", run->job_id);
	check_num(problem, "gen", run->gen);
	check_time(problem, "slot", run->slot);
	check_time(problem, "slot_to", run->slot_to);
	if (run->slot_to < run->slot)
		complain(problem, "a range of slots ends before it begins");
	check_num(problem, "trigger_id", run->trigger_id);
	check_range(problem, "attempt", run->attempt, 0, INT32_MAX);
	check_time(problem, "not_before", run->not_before);
	check_word(problem, "reason", run->reason, "abcdefghijklmnopqrstuvwxyz0123456789_-");
}

static void
check_runs(Problem *problem, const char *name, const PendingRun *runs, int count)
{
	int i;

	check_range(problem, name, count, 0, CODEC_MAX_ENTRIES);
	for (i = 0; !problem->found && i < count; i++)
		check_run(problem, &runs[i]);
}

bool
codec_state_check(const PartitionState *state, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);

	check_text(&problem, "node", state->node, 1, CODEC_MAX_NAME);
	check_num(&problem, "epoch", state->epoch);
	check_num(&problem, "seq", state->seq);
	check_num(&problem, "jobrev", state->jobrev);
	check_time(&problem, "watermark", state->watermark);
	check_num(&problem, "watermark_job", state->watermark_job);
	check_runs(&problem, "pending", state->pending, state->npending);
	check_runs(&problem, "done", state->done, state->ndone);
	return !problem.found;
}

static void
read_run(const Reader *reader, PendingRun *out)
{
	out->job_id = read_int(reader, "j");
	out->gen = read_int(reader, "g");
	out->slot = read_time(reader, "s");
	out->slot_to = has(reader, "e") ? read_time(reader, "e") : out->slot;
	out->trigger_id = has(reader, "t") ? read_int(reader, "t") : 0;
	out->attempt = read_int32_or_0(reader, "a");
	out->not_before = has(reader, "n") ? read_time(reader, "n") : 0;
	out->session = has(reader, "l") ? read_decimal(reader, "l") : 0;
	read_array_or_empty(reader, "r", out->reason, sizeof(out->reason));
}

/* The entries of pending or done; NULL if there are none, or after a complaint. */
static PendingRun *
read_runs(const Reader *reader, const char *name, int *count)
{
	const cJSON *list = need(reader, name);
	const cJSON *item;
	PendingRun *runs;
	PendingRun *run;

	*count = 0;
	if (list == NULL)
		return NULL;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > CODEC_MAX_ENTRIES)
	{
		complain_about(reader, name, "is not an array, or too long a one");
		return NULL;
	}
	if (list->child == NULL)
		return NULL;
	runs = calloc(cJSON_GetArraySize(list), sizeof(*runs));
	if (runs == NULL)
	{
		complain(reader->problem, "out of memory");
		return NULL;
	}
	run = runs;
	cJSON_ArrayForEach(item, list)
	{
		Reader entry = reader_begin(item, reader->problem);

		snprintf(entry.where, sizeof(entry.where), "%s[%d]: ", name, *count);
		if (!cJSON_IsObject(item) || !names_differ(item))
			complain(reader->problem, "%snot an object, or one with a name twice", entry.where);
		if (!reader->problem->found)
			read_run(&entry, run);
		run++;
		(*count)++;
	}
	return runs;
}

static void
read_state(const Reader *reader, PartitionState *out)
{
	read_format(reader);
	out->format = CODEC_FORMAT;
	read_array(reader, "node", out->node, sizeof(out->node));
	out->epoch = read_int(reader, "epoch");
	out->seq = read_int(reader, "seq");
	out->jobrev = read_int(reader, "jobrev");
	out->watermark = read_time(reader, "watermark");
	out->watermark_job = read_int(reader, "watermark_job");
	out->pending = read_runs(reader, "pending", &out->npending);
	out->done = read_runs(reader, "done", &out->ndone);
	out->clean = read_bool(reader, "clean");
}

bool
codec_state_decode(const char *text, size_t len, PartitionState *out, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = reader_begin(root, &problem);

		read_state(&reader, out);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_state_check(out, err, errlen))
		return true;
	codec_state_free(out);
	return false;
}

static void
put_run(Writer *writer, const PendingRun *run)
{
	put_separator(writer);
	put(writer, "{");
	put_int(writer, "j", run->job_id);
	put_int(writer, "g", run->gen);
	put_time(writer, "s", run->slot);
	if (run->slot_to != run->slot)
		put_time(writer, "e", run->slot_to);
	if (run->trigger_id != 0)
		put_int(writer, "t", run->trigger_id);
	if (run->attempt != 0)
		put_int(writer, "a", run->attempt);
	if (run->not_before != 0)
		put_time(writer, "n", run->not_before);
	if (run->session != 0)
		put_decimal(writer, "l", run->session);
	if (run->reason[0] != '\0')
		put_text(writer, "r", run->reason);
	put(writer, "}");
}

static void
put_runs(Writer *writer, const char *name, const PendingRun *runs, int count)
{
	int i;

	put_name(writer, name);
	put(writer, "[");
	for (i = 0; i < count; i++)
		put_run(writer, &runs[i]);
	put(writer, "]");
}

char *
codec_state_encode(const PartitionState *state, size_t *len)
{
	Writer writer = writer_begin();

	if (!codec_state_check(state, NULL, 0))
		return refuse(len);
	put_head(&writer);
	put_text(&writer, "node", state->node);
	put_int(&writer, "epoch", state->epoch);
	put_int(&writer, "seq", state->seq);
	put_int(&writer, "jobrev", state->jobrev);
	put_time(&writer, "watermark", state->watermark);
	put_int(&writer, "watermark_job", state->watermark_job);
	put_runs(&writer, "pending", state->pending, state->npending);
	put_runs(&writer, "done", state->done, state->ndone);
	put_bool(&writer, "clean", state->clean);
	return put_tail(&writer, len);
}

void
codec_state_free(PartitionState *state)
{
	free(state->pending);
	free(state->done);
	memset(state, 0, sizeof(*state));
}

/*
 * INSTANCES
 */

bool
codec_node_check(const NodeInfo *node, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);

	check_text(&problem, "node", node->node, 1, CODEC_MAX_NAME);
	check_text(&problem, "host", node->host, 0, CODEC_MAX_NAME);
	check_range(&problem, "port", node->port, 0, 65535);
	check_json(&problem, "labels", node->labels, CODEC_MAX_LABELS, true);
	check_text(&problem, "version", node->version, 0, sizeof(node->version) - 1);
	check_range(&problem, "server_version_num", node->server_version_num, 0, INT32_MAX);
	if (node->lease == 0)
		complain(&problem, "\"lease\" is 0");
	check_num(&problem, "timeline", node->timeline);
	check_text(&problem, "boot_id", node->boot_id, 1, sizeof(node->boot_id) - 1);
	check_time(&problem, "wall_clock", node->wall_clock);
	check_text(&problem, "tzdata", node->tzdata, 0, sizeof(node->tzdata) - 1);
	return !problem.found;
}

/* The text of the member labels, which check_json() finds to be an object or not. */
static char *
read_labels(const Reader *reader, const Scanner *scan)
{
	const Member *member = scan->members;
	const cJSON *labels = find(reader, "labels");
	const cJSON *item;

	if (labels == NULL)
		return NULL;
	for (item = reader->object->child; item != labels; item = item->next)
		member++;
	return copy_bytes(member->value, member->end - member->value, reader->problem);
}

static void
read_node(const Reader *reader, NodeInfo *out)
{
	read_format(reader);
	read_array(reader, "node", out->node, sizeof(out->node));
	read_array_or_empty(reader, "host", out->host, sizeof(out->host));
	out->port = read_int32_or_0(reader, "port");
	read_array_or_empty(reader, "version", out->version, sizeof(out->version));
	out->server_version_num = read_int32_or_0(reader, "server_version_num");
	out->lease = read_decimal(reader, "lease");
	out->system_identifier = read_unsigned_decimal(reader, "system_identifier");
	out->timeline = read_int(reader, "timeline");
	read_array(reader, "boot_id", out->boot_id, sizeof(out->boot_id));
	out->data_dev = read_unsigned_decimal(reader, "data_dev");
	out->data_ino = read_unsigned_decimal(reader, "data_ino");
	out->wall_clock = read_time(reader, "wall_clock");
	read_array_or_empty(reader, "tzdata", out->tzdata, sizeof(out->tzdata));
}

bool
codec_node_decode(const char *text, size_t len, NodeInfo *out, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = reader_begin(root, &problem);

		read_node(&reader, out);
		out->labels = read_labels(&reader, &scan);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_node_check(out, err, errlen))
		return true;
	codec_node_free(out);
	return false;
}

char *
codec_node_encode(const NodeInfo *node, size_t *len)
{
	Writer writer = writer_begin();

	if (!codec_node_check(node, NULL, 0))
		return refuse(len);
	put_head(&writer);
	put_text(&writer, "node", node->node);
	put_text(&writer, "host", node->host);
	put_int(&writer, "port", node->port);
	if (node->labels != NULL)
	{
		put_name(&writer, "labels");
		put(&writer, node->labels);
	}
	put_text(&writer, "version", node->version);
	put_int(&writer, "server_version_num", node->server_version_num);
	put_decimal(&writer, "lease", node->lease);
	put_unsigned_decimal(&writer, "system_identifier", node->system_identifier);
	put_int(&writer, "timeline", node->timeline);
	put_text(&writer, "boot_id", node->boot_id);
	put_unsigned_decimal(&writer, "data_dev", node->data_dev);
	put_unsigned_decimal(&writer, "data_ino", node->data_ino);
	put_time(&writer, "wall_clock", node->wall_clock);
	put_text(&writer, "tzdata", node->tzdata);
	return put_tail(&writer, len);
}

void
codec_node_free(NodeInfo *node)
{
	free(node->labels);
	memset(node, 0, sizeof(*node));
}

/*
 * THE CLUSTER
 */

bool
codec_config_check(const ConfigInfo *config, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);

	check_range(&problem, "partitions", config->partitions, 1, KEYS_MAX_PARTITIONS);
	check_text(&problem, "incarnation", config->incarnation, 1, sizeof(config->incarnation) - 1);
	check_word(&problem, "incarnation", config->incarnation,
			   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
	return !problem.found;
}

bool
codec_config_decode(const char *text, size_t len, ConfigInfo *out, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = reader_begin(root, &problem);

		read_format(&reader);
		out->format = CODEC_FORMAT;
		out->partitions = (int) read_range(&reader, "partitions", 1, KEYS_MAX_PARTITIONS);
		read_array(&reader, "incarnation", out->incarnation, sizeof(out->incarnation));
		cJSON_Delete(root);
	}
	if (!problem.found && codec_config_check(out, err, errlen))
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

char *
codec_config_encode(const ConfigInfo *config, size_t *len)
{
	Writer writer = writer_begin();

	if (!codec_config_check(config, NULL, 0))
		return refuse(len);
	put_head(&writer);
	put_int(&writer, "partitions", config->partitions);
	put_text(&writer, "incarnation", config->incarnation);
	return put_tail(&writer, len);
}

/*
 * TRIGGERS
 */

bool
codec_trigger_check(const TriggerDef *trigger, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);

	check_id(&problem, "trigger_id", trigger->trigger_id);
	check_id(&problem, "job_id", trigger->job_id);
	check_text(&problem, "username", trigger->username, 1, CODEC_MAX_ROLE);
	check_text(&problem, "job_name", trigger->job_name, 1, CODEC_MAX_NAME);
	check_time(&problem, "requested_at", trigger->requested_at);
	check_text(&problem, "requested_by", trigger->requested_by, 1, CODEC_MAX_ROLE);
	check_num(&problem, "change_id", trigger->change_id);
	return !problem.found;
}

static void
read_trigger(const Reader *reader, TriggerDef *out)
{
	read_format(reader);
	out->trigger_id = read_int(reader, "trigger_id");
	out->job_id = read_int(reader, "job_id");
	out->username = read_text(reader, "username");
	out->job_name = read_text(reader, "job_name");
	out->requested_at = read_time(reader, "requested_at");
	out->requested_by = read_text(reader, "requested_by");
	out->change_id = read_int(reader, "change_id");
}

bool
codec_trigger_decode(const char *text, size_t len, TriggerDef *out, char *err, size_t errlen)
{
	Problem problem = problem_begin(err, errlen);
	Scanner scan;
	cJSON *root;

	memset(out, 0, sizeof(*out));
	root = parse_object(text, len, &scan, &problem);
	if (root != NULL)
	{
		Reader reader = reader_begin(root, &problem);

		read_trigger(&reader, out);
		cJSON_Delete(root);
	}
	if (!problem.found && codec_trigger_check(out, err, errlen))
		return true;
	codec_trigger_free(out);
	return false;
}

char *
codec_trigger_encode(const TriggerDef *trigger, size_t *len)
{
	Writer writer = writer_begin();

	if (!codec_trigger_check(trigger, NULL, 0))
		return refuse(len);
	put_head(&writer);
	put_int(&writer, "trigger_id", trigger->trigger_id);
	put_int(&writer, "job_id", trigger->job_id);
	put_text(&writer, "username", trigger->username);
	put_text(&writer, "job_name", trigger->job_name);
	put_time(&writer, "requested_at", trigger->requested_at);
	put_text(&writer, "requested_by", trigger->requested_by);
	put_int(&writer, "change_id", trigger->change_id);
	return put_tail(&writer, len);
}

void
codec_trigger_free(TriggerDef *trigger)
{
	free(trigger->username);
	free(trigger->job_name);
	free(trigger->requested_by);
	memset(trigger, 0, sizeof(*trigger));
}
