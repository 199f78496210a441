/*
 * cron.h
 *	  What a schedule means: text in, sets of field values (or an interval) out.
 *
 * The text is one of
 *
 *	  minute hour day-of-month month day-of-week			5 fields
 *	  second minute hour day-of-month month day-of-week	6 fields
 *	  @yearly @annually @monthly @weekly @daily @midnight @hourly @reboot
 *	  @every 1h30m					 an interval, in units d, h, m, s
 *	  30 seconds, 5 minutes, 2 hours, 1 day				 the same in words
 *
 * and may begin with "TZ=zone " or "CRON_TZ=zone ". A field is a list of numbers, names (JAN-DEC,
 * SUN-SAT, any case), ranges a-b, "*" or "?", each with an optional step: "*" "/n", a-b/n, and a/n,
 * which goes from a to the end of the field.
 *
 * When day of month and day of week are both restricted (neither begins with "*" or "?"), a day
 * that matches either of them matches; otherwise it must match both. That is Vixie cron's rule.
 *
 * Intervals count elapsed time: "1 day" is 86400 seconds, whatever the clocks do in between.
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

	bool dom_and_dow;	/* a day must match both of the above (else either) */
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
