/*
 * json.c
 *	  Reading, checking and writing the fields of a JSON object: what the codecs are made of.
 *
 * Reading takes a tree that json_parse_object() has made, field by field, and complains of types.  Checking looks at
 * C values, and complains of ranges; decoders and encoders ask the same checks, so what is written can be read.
 * Writing appends to a text.
 *
 * Once there is a tree, no step has to be looked at.  A Problem keeps the first complaint and a Writer that has
 * failed stays so: a codec names all its fields in a row and looks at the end.  A field that was complained of is 0,
 * empty or NULL.
 */
#include "core/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/codec.h"

/*
 * COMPLAINTS
 */

Problem
json_problem_begin(char *err, size_t errlen)
{
	Problem problem = {err, err != NULL ? errlen : 0, false};

	if (problem.errlen > 0)
		err[0] = '\0';
	return problem;
}

void
json_complain(Problem *problem, const char *fmt, ...)
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
 * READING
 */

/* No name may occur twice.  The bound keeps the comparing of each with each cheap. */
bool
json_names_differ(const cJSON *object)
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
cJSON *
json_parse_object(const char *text, size_t len, Scanner *scan, Problem *problem)
{
	cJSON *root;

	if (len > CODEC_MAX_VALUE)
	{
		json_complain(problem, "the value has %zu bytes, more than %d", len, CODEC_MAX_VALUE);
		return NULL;
	}
	if (!json_scan(scan, text, len))
	{
		json_complain(problem, "the value is not JSON: %s at byte %td", scan->why, scan->pos - text);
		return NULL;
	}
	if (scan->items > CODEC_MAX_ITEMS || scan->nmembers > CODEC_MAX_MEMBERS)
	{
		json_complain(problem, "the value has too many items");
		return NULL;
	}
	if (scan->longest_number > CODEC_MAX_NUMBER)
	{
		json_complain(problem, "the value has a number of more than %d bytes", CODEC_MAX_NUMBER);
		return NULL;
	}
	root = cJSON_ParseWithLength(text, len);
	if (root == NULL)
		json_complain(problem, "the value cannot be parsed: out of memory");
	else if (!cJSON_IsObject(root))
		json_complain(problem, "the value is not a JSON object");
	else if (!json_names_differ(root))
		json_complain(problem, "the value has two fields of the same name");
	if (problem->found)
	{
		cJSON_Delete(root);
		return NULL;
	}
	return root;
}

Reader
json_reader_begin(const cJSON *object, Problem *problem)
{
	Reader reader = {object, "", problem};

	return reader;
}

bool
json_decode(const char *text, size_t len, JsonRead read, void *out, char *err, size_t errlen)
{
	Problem problem = json_problem_begin(err, errlen);
	Scanner scan;
	cJSON *root = json_parse_object(text, len, &scan, &problem);

	if (root != NULL)
	{
		Reader reader = json_reader_begin(root, &problem);

		read(&reader, &scan, out);
		cJSON_Delete(root);
	}
	return !problem.found;
}

/* A member, or NULL if it is not there or null. */
const cJSON *
json_find(const Reader *reader, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->object, name);

	return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

bool
json_has(const Reader *reader, const char *name)
{
	return json_find(reader, name) != NULL;
}

void
json_complain_about(const Reader *reader, const char *name, const char *what)
{
	json_complain(reader->problem, "%s\"%s\" %s", reader->where, name, what);
}

/* A member that must be there. */
const cJSON *
json_need(const Reader *reader, const char *name)
{
	const cJSON *item = json_find(reader, name);

	if (item == NULL)
		json_complain_about(reader, name, "is missing");
	return item;
}

/* An integer from min to max, these within what a double holds exactly; 0 after a complaint. */
int64_t
json_read_range(const Reader *reader, const char *name, int64_t min, int64_t max)
{
	const cJSON *item = json_need(reader, name);
	double value;

	if (item == NULL)
		return 0;
	value = item->valuedouble;
	if (!cJSON_IsNumber(item))
		json_complain_about(reader, name, "is not a number");
	else if (!(value >= (double) min && value <= (double) max))
		json_complain_about(reader, name, "is out of range");
	else if (value != (double) (int64_t) value)
		json_complain_about(reader, name, "is not an integer");
	else
		return (int64_t) value;
	return 0;
}

int64_t
json_read_int(const Reader *reader, const char *name)
{
	return json_read_range(reader, name, -CODEC_MAX_INT, CODEC_MAX_INT);
}

int64_t
json_read_time(const Reader *reader, const char *name)
{
	return json_read_int(reader, name) - CODEC_EPOCH_DIFF;
}

int
json_read_int32_or_0(const Reader *reader, const char *name)
{
	return json_has(reader, name) ? (int) json_read_range(reader, name, INT32_MIN, INT32_MAX) : 0;
}

bool
json_read_bool(const Reader *reader, const char *name)
{
	const cJSON *item = json_need(reader, name);

	if (item != NULL && !cJSON_IsBool(item))
		json_complain_about(reader, name, "is not a boolean");
	return cJSON_IsTrue(item);
}

/* A string that must be there; "" after a complaint. */
static const char *
read_string(const Reader *reader, const char *name)
{
	const cJSON *item = json_need(reader, name);

	if (item == NULL)
		return "";
	if (!cJSON_IsString(item))
	{
		json_complain_about(reader, name, "is not a string");
		return "";
	}
	return item->valuestring;
}

char *
json_copy_bytes(const char *text, size_t len, Problem *problem)
{
	char *copy = malloc(len + 1);

	if (copy == NULL)
	{
		json_complain(problem, "out of memory");
		return NULL;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

char *
json_read_text(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);

	return json_copy_bytes(text, strlen(text), reader->problem);
}

char *
json_read_text_or_null(const Reader *reader, const char *name)
{
	return json_has(reader, name) ? json_read_text(reader, name) : NULL;
}

/* A string that fits into a fixed array, which was zeroed before. */
void
json_read_array(const Reader *reader, const char *name, char *out, size_t size)
{
	const char *text = read_string(reader, name);
	size_t len = strlen(text);

	if (len >= size)
		json_complain_about(reader, name, "is too long");
	else
		memcpy(out, text, len + 1);
}

void
json_read_array_or_empty(const Reader *reader, const char *name, char *out, size_t size)
{
	if (json_has(reader, name))
		json_read_array(reader, name, out, size);
}

/* A decimal string.  Writing it again finds whatever strtoll() puts up with but we do not. */
int64_t
json_read_decimal(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);
	int64_t value = strtoll(text, NULL, 10);
	char again[24];

	snprintf(again, sizeof(again), "%" PRId64, value);
	if (strcmp(text, again) != 0)
		json_complain_about(reader, name, "is not a decimal integer of 64 bits");
	return value;
}

uint64_t
json_read_unsigned_decimal(const Reader *reader, const char *name)
{
	const char *text = read_string(reader, name);
	uint64_t value = strtoull(text, NULL, 10);
	char again[24];

	snprintf(again, sizeof(again), "%" PRIu64, value);
	if (strcmp(text, again) != 0)
		json_complain_about(reader, name, "is not an unsigned decimal integer of 64 bits");
	return value;
}

void
json_read_format(const Reader *reader)
{
	int64_t format = json_read_int(reader, "format");

	if (!reader->problem->found && format != CODEC_FORMAT)
		json_complain(reader->problem, "format %" PRId64 " is not known to this version", format);
}

/*
 * CHECKING
 */

void
json_check_range(Problem *problem, const char *name, int64_t value, int64_t min, int64_t max)
{
	if (value < min || value > max)
		json_complain(problem, "\"%s\" is out of range", name);
}

void
json_check_id(Problem *problem, const char *name, int64_t value)
{
	json_check_range(problem, name, value, 1, CODEC_MAX_INT);
}

void
json_check_num(Problem *problem, const char *name, int64_t value)
{
	json_check_range(problem, name, value, 0, CODEC_MAX_INT);
}

void
json_check_time(Problem *problem, const char *name, int64_t value)
{
	json_check_range(problem, name, value, CODEC_MIN_TIME, CODEC_MAX_TIME);
}

void
json_check_text(Problem *problem, const char *name, const char *text, size_t min, size_t max)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len < min)
		json_complain(problem, "\"%s\" is empty", name);
	else if (len > max)
		json_complain(problem, "\"%s\" has more than %zu bytes", name, max);
	else if (!json_is_utf8(text, len))
		json_complain(problem, "\"%s\" is not UTF-8", name);
}

void
json_check_text_or_null(Problem *problem, const char *name, const char *text, size_t min, size_t max)
{
	if (text != NULL)
		json_check_text(problem, name, text, min, max);
}

/* For what must not need escaping: only letters, digits and the given others. */
void
json_check_word(Problem *problem, const char *name, const char *text, const char *allowed)
{
	if (text[strspn(text, allowed)] != '\0')
		json_complain(problem, "\"%s\" contains a character that it must not contain", name);
}

/* NULL, or JSON text; if so asked, an object. */
void
json_check_json(Problem *problem, const char *name, const char *text, size_t max, bool object)
{
	Scanner scan;

	if (text == NULL)
		return;
	json_check_text(problem, name, text, 1, max);
	if (problem->found)
		return;
	if (!json_scan(&scan, text, strlen(text)))
		json_complain(problem, "\"%s\" is not JSON: %s at byte %td", name, scan.why, scan.pos - text);
	else if (object && text[strspn(text, " \t\n\r")] != '{')
		json_complain(problem, "\"%s\" is not a JSON object", name);
}

/*
 * WRITING
 */

Writer
json_writer_begin(void)
{
	Writer writer = {NULL, 0, 0, false};

	return writer;
}

void
json_put_bytes(Writer *writer, const char *bytes, size_t len)
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

void
json_put(Writer *writer, const char *text)
{
	json_put_bytes(writer, text, strlen(text));
}

/* A comma, unless this is the first in its object or array. */
void
json_put_separator(Writer *writer)
{
	char last = writer->used > 0 ? writer->data[writer->used - 1] : '{';

	if (last != '{' && last != '[')
		json_put(writer, ",");
}

void
json_put_name(Writer *writer, const char *name)
{
	json_put_separator(writer);
	json_put(writer, "\"");
	json_put(writer, name);
	json_put(writer, "\":");
}

void
json_put_int(Writer *writer, const char *name, int64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%" PRId64, value);
	json_put_name(writer, name);
	json_put(writer, digits);
}

void
json_put_time(Writer *writer, const char *name, int64_t value)
{
	json_put_int(writer, name, value + CODEC_EPOCH_DIFF);
}

void
json_put_bool(Writer *writer, const char *name, bool value)
{
	json_put_name(writer, name);
	json_put(writer, value ? "true" : "false");
}

void
json_put_decimal(Writer *writer, const char *name, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "\"%" PRId64 "\"", value);
	json_put_name(writer, name);
	json_put(writer, text);
}

void
json_put_unsigned_decimal(Writer *writer, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "\"%" PRIu64 "\"", value);
	json_put_name(writer, name);
	json_put(writer, text);
}

/* One character that cannot stand for itself in a JSON string. */
static void
put_escaped(Writer *writer, char c)
{
	char text[8];

	switch (c)
	{
		case '"':
			json_put(writer, "\\\"");
			break;
		case '\\':
			json_put(writer, "\\\\");
			break;
		case '\n':
			json_put(writer, "\\n");
			break;
		case '\r':
			json_put(writer, "\\r");
			break;
		case '\t':
			json_put(writer, "\\t");
			break;
		default:
			snprintf(text, sizeof(text), "\\u%04x", (unsigned char) c);
			json_put(writer, text);
	}
}

void
json_put_text(Writer *writer, const char *name, const char *text)
{
	const char *start;

	json_put_name(writer, name);
	json_put(writer, "\"");
	for (start = text; *text != '\0'; text++)
	{
		if ((unsigned char) *text >= 0x20 && *text != '"' && *text != '\\')
			continue;
		json_put_bytes(writer, start, text - start);
		put_escaped(writer, *text);
		start = text + 1;
	}
	json_put_bytes(writer, start, text - start);
	json_put(writer, "\"");
}

void
json_put_text_unless_null(Writer *writer, const char *name, const char *text)
{
	if (text != NULL)
		json_put_text(writer, name, text);
}

/* The first member of every value. */
void
json_put_head(Writer *writer)
{
	json_put(writer, "{");
	json_put_int(writer, "format", CODEC_FORMAT);
}

/* The end of every value; what the encoders return. */
char *
json_put_tail(Writer *writer, size_t *len)
{
	json_put(writer, "}");
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
char *
json_refuse(size_t *len)
{
	if (len != NULL)
		*len = 0;
	return NULL;
}
