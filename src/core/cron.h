/*
 * cron.h
 *	  What a schedule means: text in, sets of field values (or an interval) out.
 *
 * The language is the Open Cron Pattern Specification (OCPS), versions 1.0 to 1.4, with additions.
 * A text is one of
 *
 *	  minute hour day-of-month month day-of-week				 5 fields, at second 0
 *	  second minute hour day-of-month month day-of-week			 6 fields
 *	  second minute hour day-of-month month day-of-week year	 7 fields
 *	  @yearly @annually @monthly @weekly @daily @midnight @hourly
 *	  @reboot						 when the server starts
 *	  @every 1h30m					 an interval, in units d, h, m, s			(addition)
 *	  30 seconds, 5 minutes, 2 hours, 1 day		the same in words			(addition)
 *
 * and may begin with "TZ=zone " or "CRON_TZ=zone " (addition). Words are separated by spaces or
 * tabs, which may also begin and end the text; nothing else may follow. Nicknames, "@every" and its
 * units, "TZ=", L and W are case-sensitive; names and the units in words are not.
 *
 * Fields
 *
 *	  second 0-59, minute 0-59, hour 0-23, day of month 1-31, month 1-12 or JAN-DEC,
 *	  day of week 0-7 or SUN-SAT (0 and 7 are Sunday), year 1970-2199
 *
 *	  field	   = [ "+" ] item { "," item }	the union of the items; "+" in day of week only
 *	  item	   = "*" [ "/" step ]			all values; "?" is the same in day of month and of week
 *				 value
 *				 value "-" value [ "/" step ]	both included, the first not after the second
 *				 value "/" step				from the value to the end of the field	(addition)
 *	  in day of month also
 *				 "L" or "$"					the last day of the month				($: addition)
 *				 "L-" n						n days (0-30) before the last, where there is such a day
 *																					(addition)
 *				 day "W"					the weekday (Monday to Friday) nearest to that day and
 *											in the same month; nothing in months without the day
 *				 "LW"						the last weekday of the month			(addition)
 *	  in day of week also
 *				 value "#" n				its n-th (1-5) in the month; nothing where there is none
 *				 value "#L", value "L"		its last in the month
 *
 * Numbers are decimal; zeros may lead. A step goes from the first value of its range on; it is 1 or
 * more, and not more than the largest value of its field (a year's: not more than 229). A range of
 * days of the week may end with Sunday, as 7 or SUN; otherwise nothing wraps around: FRI-MON is an
 * error. In day of week value/step ends at SAT (6), and 7/step is 0/step. An item with W is the only
 * one of its field.
 *
 * A day of month or day of week that is just "*" or "?" does not restrict the days. Where both are
 * restricted, a day matches that matches either of them, or with "+" a day that matches both. Only
 * "*" and "?" alone count, as OCPS says: a stepped star restricts, unlike in Vixie cron.
 *
 * A pattern names times of the wall clock unless its hour field has a "*" or a step in it or is all
 * hours; what that is good for at changes of daylight saving is said in calendar.h.
 *
 * Dates are those of the Gregorian calendar from 1970 to 2199; where the year is not given it is
 * any of these. Intervals count elapsed time: "1 day" is 86400 seconds, whatever the clocks do.
 *
 * Every schedule that is accepted can fire: texts that name no day from 1970 to 2199, such as
 * "0 0 30 2 *", are refused. (Whether all its times lie in the past is not asked here.)
 *
 * Where this is not what OCPS says, on purpose: value/step is an error there (1.0, 6.2); a pattern
 * without any day is well-formed there and fails when its times are asked for (1.0, 6.2), here it
 * fails at once, which is when somebody can put it right; and it recommends to leave out a time that
 * the clock skips (1.4, 4.3.1), which here runs at the end of the gap.
 */
#ifndef DSCHED_CRON_H
#define DSCHED_CRON_H

#include <stdbool.h>
#include <stdint.h>

#define CRON_MAX_TEXT 1024
#define CRON_MAX_INTERVAL (INT64_C(3653) * 86400) /* ten years at their longest */

typedef enum
{
	CRON_FIELDS,   /* calendar fields: the sets below */
	CRON_INTERVAL, /* every interval_s seconds, whatever the calendar */
	CRON_REBOOT	   /* when the server starts: no slot on any calendar */
} CronKind;

#define CRON_FIRST_YEAR 1970
#define CRON_LAST_YEAR 2199

/* A parsed schedule. Of the fixed-size members only those that the kind names mean something. */
typedef struct CronSchedule
{
	CronKind kind;
	uint64_t seconds; /* bit n: value n is in the set */
	uint64_t minutes;
	uint32_t hours;
	uint32_t months;   /* bits 1..12 */
	uint64_t years[4]; /* bit n (of years[n / 64], n % 64): CRON_FIRST_YEAR + n; all, if none is given */

	/* Days of the month: a day is one of them if any of these names it. */
	uint32_t doms;			   /* bits 1..31 */
	uint32_t doms_from_end;	   /* bit n: the day that is n days before the last; bit 0: L, $ */
	uint32_t nearest_weekdays; /* bits 1..31: nW, the weekday nearest to day n in the month */
	bool last_weekday;		   /* LW: the last day of the month from Monday to Friday */

	/* Days of the week, bit 0 = Sunday .. bit 6 = Saturday: likewise. */
	uint8_t dows;		 /* each of the month */
	uint8_t nth_dows[6]; /* [n], n = 1..5: its nth (#n) */
	uint8_t last_dows;	 /* its last (#L, 5L) */

	bool dom_and_dow;	/* a day must match both of the above (else either); so where one is all */
	bool wall_clock;	/* names wall-clock times: hours neither all nor stepped (see calendar.h) */
	int64_t interval_s; /* CRON_INTERVAL: 1 .. CRON_MAX_INTERVAL */
	char zone[64];		/* from the TZ= prefix, or ""; not checked to be a zone's name */
} CronSchedule;

/* Why a text is no schedule: what PostgreSQL calls message and hint, and where. */
typedef struct CronError
{
	int field;				/* 0: none; 1..: as written */
	const char *field_name; /* "minute" etc., or NULL */
	int position;			/* 1-based byte offset in the text */
	char message[160];
	char hint[200]; /* "" if there is none */
} CronError;

/* On success *out is set; on failure *err is, and *out is left alone. */
extern bool cron_parse(const char *text, CronSchedule *out, CronError *err);

#endif /* DSCHED_CRON_H */
