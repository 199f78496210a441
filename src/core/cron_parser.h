/*
 * cron_parser.h
 *	  What the parts of the parser of schedules share; nobody else includes it.
 *
 *	  cron.c		the whole text: time zone, nicknames, intervals
 *	  cron_fields.c	patterns of 5 to 7 fields
 *	  cron_items.c	one field
 *	  cron_slips.c	what people write who come from other schedulers
 *	  cron_check.c	can it ever fire?
 *	  cron_text.c	characters, words, errors
 *
 * The text is cut into words at white space; the number and the first letters of the words tell
 * which of the forms in cron.h it is. A field is then read from left to right by one cursor. There
 * is no backing up, no allocation and no recursion, and every loop consumes text, whose length is
 * bounded.
 *
 * People meet this code when they have made a mistake, and most mistakes are the same few ones, so
 * a good part of it is about saying what is wrong, where, and what was probably meant. Functions
 * that return bool return false after they have recorded an error.
 */
#ifndef DSCHED_CRON_PARSER_H
#define DSCHED_CRON_PARSER_H

#include "core/cron.h"

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

/* In the order of a pattern of 7 fields. */
typedef enum
{
	SECOND,
	MINUTE,
	HOUR,
	DOM,
	MONTH,
	DOW,
	YEAR,
	NFIELDS
} FieldIndex;

/* What is allowed in a field. */
typedef struct FieldRule
{
	const char *name;
	int min;
	int max;
	int star_max;			  /* where "*" and a/n end, if not at max: 7 is Sunday once more */
	int max_step;			  /* larger steps take the first value only, and are not meant */
	const char *const *names; /* of the values from min on, or NULL */
	int nnames;
	const char *special;	  /* characters with a meaning here and not in every field */
	const char *range_hint;
	const char *step_hint;
} FieldRule;

/* In the order of FieldIndex. */
extern const FieldRule cron_field_rules[NFIELDS];

/* What was read from one field: values, and the kinds of days of CronSchedule. */
typedef struct Field
{
	uint64_t set[4]; /* bit n: value n, or of years CRON_FIRST_YEAR + n */
	bool unrestricted; /* "*" or "?" and nothing else */
	bool stepped;	   /* has "*", "?" or a step anywhere */
	bool plus;		   /* begins with "+" */
	uint32_t from_end;
	uint32_t nearest_weekdays;
	bool last_weekday;
	uint8_t nth_dows[6];
	uint8_t last_dows;
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

/* cron_text.c */
extern bool cron_is_digit(char c);
extern bool cron_is_letter(char c);
extern char cron_to_lower(char c);
extern void cron_split_words(Parser *p, int start);
extern Word cron_subword(Word w, int from);
extern bool cron_word_is(const Parser *p, Word w, const char *name);
extern bool cron_word_is_exactly(const Parser *p, Word w, const char *name);
extern bool cron_all_digits(const Parser *p, Word w);
extern int64_t cron_to_number(const Parser *p, Word digits, int64_t limit);
extern int cron_edit_distance(const Parser *p, Word w, const char *name);
extern const char *cron_shown(Parser *p, Word w);
extern bool cron_fail(Parser *p, int at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
extern bool cron_hint(Parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
extern bool cron_fail_trailing(Parser *p, int word, const char *what);

/* cron.c */
extern int64_t cron_unit_of_word(const Parser *p, Word w);

/* cron_fields.c */
extern bool cron_read_fields(Parser *p, CronSchedule *s);

/* cron_items.c */
extern bool cron_read_field(Parser *p, int number, FieldIndex index, Field *field);

/* cron_slips.c */
extern bool cron_check_notation(Parser *p);
extern bool cron_hint_zone(Parser *p, Word w);
extern bool cron_fail_field_count(Parser *p);
extern void cron_hint_fields(Parser *p);
extern void cron_hint_item(Parser *p, int at);
extern void cron_hint_name(Parser *p, Word w);

/* cron_check.c */
extern bool cron_check_days(Parser *p, const CronSchedule *s);

#endif /* DSCHED_CRON_PARSER_H */
