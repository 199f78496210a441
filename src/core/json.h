/*
 * json.h
 *	  JSON that nobody has to be trusted for: what the files codec*.c share, and no others use.
 *
 *	  json_scan.c	 is a text JSON?
 *	  json.c		 reading, checking and writing the fields of an object
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
 * By a small writer and not by cJSON, which prints numbers with 15 digits if that is
 * equal "within epsilon": 2^53 - 1 comes out as 9.00719925474099e+15.
 */
#ifndef DSCHED_CORE_JSON_H
#define DSCHED_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/codec.h" /* the bounds */

/* ---- json_scan.c ----------------------------------------------------------------------------- */

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

/* Looks through a whole text.  On true it is JSON within CODEC_MAX_DEPTH. */
extern bool json_scan(Scanner *scan, const char *text, size_t len);
extern bool json_is_utf8(const char *text, size_t len);

/* ---- json.c: complaints ---------------------------------------------------------------------- */

/* Where to tell what is wrong: the first complaint stays. */
typedef struct Problem
{
	char *err;
	size_t errlen;
	bool found;
} Problem;

/* Sets err to "", if there is one. */
extern Problem json_problem_begin(char *err, size_t errlen);
extern void json_complain(Problem *problem, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- json.c: reading ------------------------------------------------------------------------- */

/* A parsed object, and what to call it in complaints ("" for the outermost). */
typedef struct Reader
{
	const cJSON *object;
	char where[24];
	Problem *problem;
} Reader;

/*
 * Makes a tree of a text that is an object; NULL, with a complaint, if it is not or breaks a bound.
 * The i-th child of the result is scan->members[i].
 */
extern cJSON *json_parse_object(const char *text, size_t len, Scanner *scan, Problem *problem);

/*
 * Parses a text that is an object and has its members read into out.  False, with a complaint in err, if either fails; whether what
 * was read makes sense is for the caller to check.  scan is for those that need members as they stand in the text.
 */
typedef void (*JsonRead)(const Reader *reader, const Scanner *scan, void *out);
extern bool json_decode(const char *text, size_t len, JsonRead read, void *out, char *err, size_t errlen);

/* No name may occur twice: json_parse_object() has asked that of the outermost object only. */
extern bool json_names_differ(const cJSON *object);

extern Reader json_reader_begin(const cJSON *object, Problem *problem);

/* A member, or NULL if it is not there or null; json_need() complains of that. */
extern const cJSON *json_find(const Reader *reader, const char *name);
extern const cJSON *json_need(const Reader *reader, const char *name);
extern bool json_has(const Reader *reader, const char *name);
extern void json_complain_about(const Reader *reader, const char *name, const char *what);

/* Members that must be there, unless the name says what they are else; 0, false, "" or NULL after a complaint. */
extern int64_t json_read_range(const Reader *reader, const char *name, int64_t min, int64_t max);
extern int64_t json_read_int(const Reader *reader, const char *name);
extern int64_t json_read_time(const Reader *reader, const char *name);
extern int json_read_int32_or_0(const Reader *reader, const char *name);
extern bool json_read_bool(const Reader *reader, const char *name);
extern int64_t json_read_decimal(const Reader *reader, const char *name);
extern uint64_t json_read_unsigned_decimal(const Reader *reader, const char *name);

/* Strings: malloc'd, or into a fixed array, which was zeroed before. */
extern char *json_read_text(const Reader *reader, const char *name);
extern char *json_read_text_or_null(const Reader *reader, const char *name);
extern void json_read_array(const Reader *reader, const char *name, char *out, size_t size);
extern void
json_read_array_or_empty(const Reader *reader, const char *name, char *out, size_t size);
extern char *json_copy_bytes(const char *text, size_t len, Problem *problem);

/* Complains if the value is of a format that this version does not know. */
extern void json_read_format(const Reader *reader);

/*
 * The members of an outermost object whose names are not known, as the text of an object; NULL if there are none,
 * or after a complaint.
 */
extern char *json_read_extra(const cJSON *root, const Scanner *scan, bool (*known)(const char *name),
							 Problem *problem);

/* ---- json.c: checking ------------------------------------------------------------------------ */

extern void
json_check_range(Problem *problem, const char *name, int64_t value, int64_t min, int64_t max);
extern void json_check_id(Problem *problem, const char *name, int64_t value);
extern void json_check_num(Problem *problem, const char *name, int64_t value);
extern void json_check_time(Problem *problem, const char *name, int64_t value);

/* UTF-8 of min to max bytes. */
extern void
json_check_text(Problem *problem, const char *name, const char *text, size_t min, size_t max);
extern void json_check_text_or_null(Problem *problem, const char *name, const char *text, size_t min,
									size_t max);

/* For what must not need escaping: only letters, digits and the given others. */
extern void
json_check_word(Problem *problem, const char *name, const char *text, const char *allowed);

/* NULL, or JSON text; if so asked, an object. */
extern void
json_check_json(Problem *problem, const char *name, const char *text, size_t max, bool object);

/* NULL, or an object that can go between the n known members: within the bounds, without a name of theirs. */
extern void
json_check_extra(Problem *problem, const char *extra, bool (*known)(const char *name), size_t n);

/* ---- json.c: writing ------------------------------------------------------------------------- */

/* A text being written; once failed (memory, size), it stays so. */
typedef struct Writer
{
	char *data;
	size_t used;
	size_t capacity;
	bool failed;
} Writer;

extern Writer json_writer_begin(void);

/* Text as it is; a comma, unless this is the first in its object or array; a member's name and what precedes it. */
extern void json_put_bytes(Writer *writer, const char *bytes, size_t len);
extern void json_put(Writer *writer, const char *text);
extern void json_put_separator(Writer *writer);
extern void json_put_name(Writer *writer, const char *name);

/* Whole members. */
extern void json_put_int(Writer *writer, const char *name, int64_t value);
extern void json_put_time(Writer *writer, const char *name, int64_t value);
extern void json_put_bool(Writer *writer, const char *name, bool value);
extern void json_put_decimal(Writer *writer, const char *name, int64_t value);
extern void json_put_unsigned_decimal(Writer *writer, const char *name, uint64_t value);
extern void json_put_text(Writer *writer, const char *name, const char *text);
extern void json_put_text_unless_null(Writer *writer, const char *name, const char *text);

/* The members of an object that was checked, without its braces; none if it is NULL. */
extern void json_put_extra(Writer *writer, const char *extra);

/* The first member of every value; the end of every value, and what the encoders return: NULL after a failure. */
extern void json_put_head(Writer *writer);
extern char *json_put_tail(Writer *writer, size_t *len);

/* What an encoder returns that has nothing to write. */
extern char *json_refuse(size_t *len);

#endif /* DSCHED_CORE_JSON_H */
