/*
 * test_ocps.c
 *	  Conformance to the Open Cron Pattern Specification, versions 1.0 to 1.4: its rules and examples,
 *	  in its order, by version and section.
 *
 * A rule is shown by the slots of a pattern in UTC, by a pattern that means the same, or by one that is
 * refused. Where we deviate on purpose (see core/cron.h) the test shows what we do and says so.
 */
#include <stdlib.h>

#include "core/calendar.h"
#include "core/cron.h"
#include "tap.h"
#include "zones.h"

/* How a rule is shown. */
typedef enum
{
	SLOTS,	 /* these follow 2024-01-01T00:00 (a Monday) in UTC, as from_iso() reads them */
	SAME,	 /* the pattern means what another one does */
	REFUSED, /* the message has this in it */
} Shown;

static const struct
{
	const char *rule;
	const char *pattern;
	Shown how;
	const char *what;
} rules[] = {
	/*
	 * 1.0, 4.1: five fields, separated by any white space, which may also begin and end the text; other
	 * characters are refused.
	 */
	{"1.0 4.1 five fields", "30 12 * * *", SLOTS, "2024-01-01T12:30 2024-01-02T12:30"},
	{"1.0 4.1 not fewer", "30 12 * *", REFUSED, "found 4"},
	{"1.0 4.1 not one", "*", REFUSED, "found 1"},
	{"1.0 4.1 not more", "0 30 12 * * * * *", REFUSED, "found 8"},
	{"1.0 4.1 nothing", "", REFUSED, "empty"},
	{"1.0 4.1 space around", "  30 12 * * *\t ", SAME, "30 12 * * *"},
	{"1.0 4.1 more space between", "30 \t 12\t*   * *", SAME, "30 12 * * *"},
	{"1.0 4.1 other characters", "30 12 * * %", REFUSED, "day of week"},
	{"1.0 4.1 other characters", "30! 12 * * *", REFUSED, "minute"},
	{"1.0 4.1 other characters", "30 12 * * (1)", REFUSED, "day of week"},

	/* 1.0, 4.2: the ranges of the fields, and names in any case. */
	{"1.0 4.2 minute 0-59", "0,59 0 * * *", SLOTS, "2024-01-01T00:59 2024-01-02T00:00"},
	{"1.0 4.2 hour 0-23", "0 0,23 * * *", SLOTS, "2024-01-01T23:00 2024-01-02T00:00"},
	{"1.0 4.2 day of month 1-31", "0 0 1,31 * *", SLOTS, "2024-01-31T00:00 2024-02-01T00:00"},
	{"1.0 4.2 month 1-12", "0 0 2 1,12 *", SLOTS, "2024-01-02T00:00 2024-12-02T00:00"},
	{"1.0 4.2 day of week 0-7", "0 0 * * 0,6", SLOTS, "2024-01-06T00:00 2024-01-07T00:00"},
	{"1.0 4.2 Sunday is 0", "0 0 * * 0", SLOTS, "2024-01-07T00:00 2024-01-14T00:00"},
	{"1.0 4.2 Sunday is 7", "0 0 * * 7", SAME, "0 0 * * 0"},
	{"1.0 4.2 Sunday is 7 in a range", "0 0 * * 6-7", SAME, "0 0 * * 0,6"},
	{"1.0 4.2 all days", "0 0 3 * 0-7", SAME, "0 0 3 * 0-6"},
	{"1.0 4.2 months", "0 0 1 JAN,FEB,MAR,APR,MAY,JUN *", SAME, "0 0 1 1,2,3,4,5,6 *"},
	{"1.0 4.2 months", "0 0 1 JUL,AUG,SEP,OCT,NOV,DEC *", SAME, "0 0 1 7,8,9,10,11,12 *"},
	{"1.0 4.2 months, any case", "0 0 1 jan,Feb,mAr *", SAME, "0 0 1 1,2,3 *"},
	{"1.0 4.2 weekdays", "0 0 * * SUN,MON,TUE,WED", SAME, "0 0 * * 0,1,2,3"},
	{"1.0 4.2 weekdays", "0 0 * * THU,FRI,SAT", SAME, "0 0 * * 4,5,6"},
	{"1.0 4.2 weekdays, any case", "0 0 * * mon,Tue,wED", SAME, "0 0 * * 1,2,3"},
	{"1.0 4.2 SUN is 7, too", "0 0 * * FRI-SUN", SAME, "0 0 * * 0,5,6"},
	{"1.0 4.2 names in ranges", "0 0 1 MAR-MAY MON-FRI", SAME, "0 0 1 3-5 1-5"},

	/* 1.0, 4.3: white space is space and tab. */
	{"1.0 4.3 a line break", "30 12 * * *\n", REFUSED, "0x0a"},
	{"1.0 4.3 a line break", "30\n12 * * *", REFUSED, "0x0a"},
	{"1.0 4.3 a form feed", "30\f12 * * *", REFUSED, "0x0c"},

	/* 1.0, 5: the special characters, by their examples. */
	{"1.0 5 wildcard", "* * * * *", SLOTS, "2024-01-01T00:01 2024-01-01T00:02"},
	{"1.0 5 list", "0,15,30,45 * * * *", SLOTS,
	 "2024-01-01T00:15 2024-01-01T00:30 2024-01-01T00:45 2024-01-01T01:00"},
	{"1.0 5 range", "0 9-17 * * *", SAME, "0 9,10,11,12,13,14,15,16,17 * * *"},
	{"1.0 5 step", "5-59/15 * * * *", SAME, "5,20,35,50 * * * *"},

	/* 1.0, 5.1: a list of ranges with steps; a step begins with the first of its range. */
	{"1.0 5.1 lists of all", "1,10-20,40-59/10 * * * *", SAME,
	 "1,10,11,12,13,14,15,16,17,18,19,20,40,50 * * * *"},
	{"1.0 5.1 a list is a union", "1-5,3-7,5 * * * *", SAME, "1-7 * * * *"},
	{"1.0 5.1 a wildcard is the range", "*/20 * * * *", SAME, "0-59/20 * * * *"},
	{"1.0 5.1 of days, from 1", "0 0 */10 * *", SAME, "0 0 1-31/10 * *"},
	{"1.0 5.1 of months, from 1", "0 0 1 */5 *", SAME, "0 0 1 1,6,11 *"},
	{"1.0 5.1 of weekdays, from 0", "0 0 1 * */3", SAME, "0 0 1 * 0,3,6"},
	{"1.0 5.1 of weekdays, 7 is Sunday", "0 0 1 * */7", SAME, "0 0 1 * 0"},
	{"1.0 5.1 steps end with the range", "10-29/10 * * * *", SAME, "10,20 * * * *"},
	{"1.0 5.1 a step as long as the range", "10-20/10 * * * *", SAME, "10,20 * * * *"},
	{"1.0 5.1 a step longer than the range", "10-15/10 * * * *", SAME, "10 * * * *"},

	/* 1.0, 6.1: where both are restricted, that is not "*", either. */
	{"1.0 6.1 either", "0 12 1 * MON", SLOTS,
	 "2024-01-01T12:00 2024-01-08T12:00 2024-01-15T12:00 2024-01-22T12:00 2024-01-29T12:00 "
	 "2024-02-01T12:00 2024-02-05T12:00"},
	{"1.0 6.1 day of month alone", "0 12 1 * *", SLOTS, "2024-01-01T12:00 2024-02-01T12:00"},
	{"1.0 6.1 day of week alone", "0 12 * * MON", SLOTS, "2024-01-01T12:00 2024-01-08T12:00"},
	{"1.0 6.1 a stepped wildcard is not \"*\"", "0 0 */16 * WED", SLOTS,
	 "2024-01-03T00:00 2024-01-10T00:00 2024-01-17T00:00 2024-01-24T00:00 2024-01-31T00:00 "
	 "2024-02-01T00:00"},
	{"1.0 6.1 a full range is not \"*\"", "0 0 1-31 * MON", SLOTS, "2024-01-02T00:00 2024-01-03T00:00"},

	/* 1.0, 6.2: out of range. */
	{"1.0 6.2 minute 60", "60 * * * *", REFUSED, "\"60\" is out of range 0-59"},
	{"1.0 6.2 hour 24", "0 24 * * *", REFUSED, "\"24\" is out of range 0-23"},
	{"1.0 6.2 day 32", "0 0 32 * *", REFUSED, "\"32\" is out of range 1-31"},
	{"1.0 6.2 day 0", "0 0 0 * *", REFUSED, "\"0\" is out of range 1-31"},
	{"1.0 6.2 month 13", "0 0 1 13 *", REFUSED, "\"13\" is out of range 1-12"},
	{"1.0 6.2 month 0", "0 0 1 0 *", REFUSED, "\"0\" is out of range 1-12"},
	{"1.0 6.2 weekday 8", "0 0 * * 8", REFUSED, "\"8\" is out of range 0-7"},
	{"1.0 6.2 in a list", "0,60 * * * *", REFUSED, "\"60\" is out of range"},
	{"1.0 6.2 in a range", "50-60 * * * *", REFUSED, "\"60\" is out of range"},
	{"1.0 6.2 as a step", "*/60 * * * *", REFUSED, "\"60\" is out of range"},
	{"1.0 6.2 negative", "-1 * * * *", REFUSED, "minute"},
	/* 1.0, 6.2: ranges that run backwards. */
	{"1.0 6.2 backwards", "30-10 * * * *", REFUSED, "runs backwards"},
	{"1.0 6.2 backwards", "0 0 * NOV-FEB *", REFUSED, "runs backwards"},
	{"1.0 6.2 backwards", "0 0 * * FRI-MON", REFUSED, "runs backwards"},
	{"1.0 6.2 backwards", "0 0 * * 7-1", REFUSED, "runs backwards"},
	{"1.0 6.2 a range of one", "10-10 * * * *", SAME, "10 * * * *"},
	/* 1.0, 6.2: steps. */
	{"1.0 6.2 step 0", "*/0 * * * *", REFUSED, "step \"0\""},
	{"1.0 6.2 step 0 of a range", "10-50/0 * * * *", REFUSED, "step \"0\""},
	{"1.0 6.2 step of nothing", "/30 * * * *", REFUSED, "\"/30\""},
	{"1.0 6.2 no step", "*/ * * * *", REFUSED, "step \"\""},
	{"1.0 6.2 step after a wildcard", "*/30 * * * *", SAME, "0,30 * * * *"},
	{"1.0 6.2 step after a range", "10-50/10 * * * *", SAME, "10,20,30,40,50 * * * *"},
	/* Deviation, as Quartz and others have it: value/step is an error there. */
	{"1.0 6.2 (addition) value/step", "0/15 * * * *", SAME, "0,15,30,45 * * * *"},
	{"1.0 6.2 (addition) value/step", "10/10 * * * *", SAME, "10,20,30,40,50 * * * *"},
	/*
	 * Deviation: a date that does not exist is no error of syntax there, but has to fail when its times
	 * are asked for; here it fails at once.
	 */
	{"1.0 6.2 (at once) February 31", "* * 31 2 *", REFUSED, "never runs"},
	{"1.0 6.2 other months have it", "0 0 31 2,3 *", SLOTS, "2024-03-31T00:00 2025-03-31T00:00"},

	/* 1.1, 4.1: nicknames, case-sensitive, and alone. */
	{"1.1 4.1 @yearly", "@yearly", SAME, "0 0 1 1 *"},
	{"1.1 4.1 @annually", "@annually", SAME, "0 0 1 1 *"},
	{"1.1 4.1 @monthly", "@monthly", SAME, "0 0 1 * *"},
	{"1.1 4.1 @weekly", "@weekly", SAME, "0 0 * * 0"},
	{"1.1 4.1 @daily", "@daily", SAME, "0 0 * * *"},
	{"1.1 4.1 @midnight", "@midnight", SAME, "0 0 * * *"},
	{"1.1 4.1 @hourly", "@hourly", SAME, "0 * * * *"},
	{"1.1 4.1 upper case", "@DAILY", REFUSED, "unknown schedule"},
	{"1.1 4.1 mixed case", "@Yearly", REFUSED, "unknown schedule"},
	{"1.1 4.1 with fields", "@daily 0 0 * * *", REFUSED, "after @daily"},
	{"1.1 4.1 with fields", "0 0 * * @daily", REFUSED, "day of week"},
	{"1.1 4.1 unknown", "@minutely", REFUSED, "unknown schedule"},
	/* 1.1, 4.2: @reboot is valid; it has no time. */
	{"1.1 4.2 @reboot", "@reboot", SLOTS, "none"},
	{"1.1 4.2 @reboot, case", "@Reboot", REFUSED, "unknown schedule"},

	/* 1.2, 4.1: a field for the second, first. */
	{"1.2 4.1 six fields", "30 15 10 * * *", SLOTS, "2024-01-01T10:15:30 2024-01-02T10:15:30"},
	{"1.2 4.1 every second", "* * * * * *", SLOTS, "2024-01-01T00:00:01 2024-01-01T00:00:02"},
	{"1.2 4.1 second 0 where there is none", "15 10 * * *", SAME, "0 15 10 * * *"},
	{"1.2 4.1 nicknames at second 0", "@hourly", SAME, "0 0 * * * *"},
	{"1.2 4.1 expressions", "0-10/5,59 * * * * *", SLOTS,
	 "2024-01-01T00:00:05 2024-01-01T00:00:10 2024-01-01T00:00:59 2024-01-01T00:01"},
	{"1.2 4.1 second 60", "60 * * * * *", REFUSED, "second value \"60\" is out of range 0-59"},

	/* 1.2, 4.2: a field for the year, last, with seven fields only. */
	{"1.2 4.2 one year", "0 15 10 * * * 2025", SLOTS, "2025-01-01T10:15 2025-01-02T10:15"},
	{"1.2 4.2 years", "0 0 12 1 1 * 2025-2030", SLOTS,
	 "2025-01-01T12:00 2026-01-01T12:00 2027-01-01T12:00 2028-01-01T12:00 2029-01-01T12:00 "
	 "2030-01-01T12:00 none"},
	{"1.2 4.2 even years", "0 0 0 1 1 * */2", SLOTS, "2026-01-01T00:00 2028-01-01T00:00"},
	{"1.2 4.2 even years", "0 0 0 1 1 * */2", SAME, "0 0 0 1 1 * 1970-2199/2"},
	{"1.2 4.2 odd years", "0 0 0 1 1 * 1971-2199/2", SLOTS, "2025-01-01T00:00 2027-01-01T00:00"},
	{"1.2 4.2 a list of years", "0 0 0 2 1 * 2025,2027", SLOTS,
	 "2025-01-02T00:00 2027-01-02T00:00 none"},
	{"1.2 4.2 every year", "0 0 0 1 1 * *", SAME, "0 0 0 1 1 *"},
	{"1.2 4.2 every year", "0 0 0 1 1 * 1970-2199", SAME, "0 0 1 1 *"},
	{"1.2 4.2 year 1969", "0 0 0 1 1 * 1969", REFUSED, "\"1969\" is out of range 1970-2199"},
	{"1.2 4.2 year 2200", "0 0 0 1 1 * 2200", REFUSED, "\"2200\" is out of range 1970-2199"},
	{"1.2 4.2 no year in six fields", "0 0 1 1 * 2025", REFUSED, "day of week value \"2025\""},
	{"1.2 4.2 six fields begin with the second", "1 2 3 4 5 6", SAME, "1 2 3 4 5 6 *"},
	{"1.2 4.3 the rules of fields", "0 0 0 1 1 * 2030-2025", REFUSED, "runs backwards"},
	{"1.2 4.3 the rules of fields", "0 0 0 1 1 * 2025-2030/0", REFUSED, "step \"0\""},

	/* 1.3, 4.1: L, the last day of the month, or the last of a weekday. Upper case only. */
	{"1.3 4.1 last day", "0 0 L * *", SLOTS,
	 "2024-01-31T00:00 2024-02-29T00:00 2024-03-31T00:00 2024-04-30T00:00"},
	{"1.3 4.1 last Friday", "0 0 * * 5L", SLOTS, "2024-01-26T00:00 2024-02-23T00:00 2024-03-29T00:00"},
	{"1.3 4.1 last Friday", "0 0 * * 5#L", SAME, "0 0 * * 5L"},
	{"1.3 4.1 last Friday", "0 0 * * FRI#L", SAME, "0 0 * * 5L"},
	{"1.3 4.1 last Sunday", "0 0 * * 7L", SAME, "0 0 * * SUN#L"},
	{"1.3 4.1 in a list", "0 0 15,L * *", SLOTS, "2024-01-15T00:00 2024-01-31T00:00 2024-02-15T00:00"},
	{"1.3 4 lower case", "0 0 l * *", REFUSED, "\"l\""},
	{"1.3 4 lower case", "0 0 * * 5l", REFUSED, "\"l\""},
	{"1.3 4 lower case", "0 0 * * FRI#l", REFUSED, "\"l\""},
	{"1.3 4.1 no other field", "L 0 * * *", REFUSED, "not allowed in minute"},
	{"1.3 4.1 no other field", "0 L * * *", REFUSED, "not allowed in hour"},
	{"1.3 4.1 no other field", "0 0 1 L *", REFUSED, "not allowed in month"},
	{"1.3 4.1 no other field", "L 0 0 1 * *", REFUSED, "not allowed in second"},
	{"1.3 4.1 no other field", "0 0 0 1 1 * L", REFUSED, "not allowed in year"},
	/* 1.3, 4.2: #, the n-th of a weekday. */
	{"1.3 4.2 third Tuesday", "0 0 * * 2#3", SLOTS, "2024-01-16T00:00 2024-02-20T00:00"},
	{"1.3 4.2 first Monday", "0 0 * * MON#1", SLOTS, "2024-02-05T00:00 2024-03-04T00:00"},
	{"1.3 4.2 fifth, where there is one", "0 0 * * MON#5", SLOTS,
	 "2024-01-29T00:00 2024-04-29T00:00 2024-07-29T00:00"},
	{"1.3 4.2 Sunday is 7", "0 0 * * 7#2", SAME, "0 0 * * 0#2"},
	{"1.3 4.2 n is 1-5", "0 0 * * 2#0", REFUSED, "out of range 1-5"},
	{"1.3 4.2 n is 1-5", "0 0 * * 2#6", REFUSED, "out of range 1-5"},
	{"1.3 4.2 D is 0-7", "0 0 * * 8#1", REFUSED, "out of range 0-7"},
	{"1.3 4.2 not in day of month", "0 0 2#3 * *", REFUSED, "not allowed in day of month"},
	{"1.3 4.2 in a list", "0 0 * * MON#1,FRI#L", SLOTS, "2024-01-26T00:00 2024-02-05T00:00"},
	/* 1.3, 4.3: W, the nearest weekday in the same month. */
	{"1.3 4.3 15W", "0 12 15W * *", SLOTS, "2024-01-15T12:00 2024-02-15T12:00 2024-03-15T12:00"},
	{"1.3 4.3 on a Wednesday", "0 0 12 15W 5 * 2024", SLOTS, "2024-05-15T12:00 none"},
	{"1.3 4.3 on a Saturday", "0 0 12 15W 6 * 2024", SLOTS, "2024-06-14T12:00 none"},
	{"1.3 4.3 on a Sunday", "0 0 12 15W 9 * 2024", SLOTS, "2024-09-16T12:00 none"},
	{"1.3 4.3 the 1st on a Saturday", "0 0 12 1W 6 * 2024", SLOTS, "2024-06-03T12:00 none"},
	{"1.3 4.3 the 1st on a Sunday", "0 0 12 1W 9 * 2024", SLOTS, "2024-09-02T12:00 none"},
	{"1.3 4.3 the last on a Sunday", "0 0 12 31W 3 * 2024", SLOTS, "2024-03-29T12:00 none"},
	{"1.3 4.3 the last on a Saturday", "0 0 12 31W 8 * 2024", SLOTS, "2024-08-30T12:00 none"},
	{"1.3 4.3 no range", "0 12 1-15W * *", REFUSED, "\"W\""},
	{"1.3 4.3 no list", "0 12 1,15W * *", REFUSED, "\"W\""},
	{"1.3 4.3 no list", "0 12 1W,15 * *", REFUSED, "\"W\""},
	{"1.3 4.3 lower case", "0 12 15w * *", REFUSED, "\"w\""},
	{"1.3 4.3 not in day of week", "0 12 * * 1W", REFUSED, "not allowed in day of week"},

	/* 1.4, 4.1: either by default, both with a plus, which begins day of week. */
	{"1.4 4.1.1 either", "0 12 1 * MON", SLOTS, "2024-01-01T12:00 2024-01-08T12:00"},
	{"1.4 4.1.1 either, of the new kinds", "0 0 L * FRI#L", SLOTS, "2024-01-26T00:00 2024-01-31T00:00"},
	{"1.4 4.1.2 both", "0 12 1 * +MON", SLOTS, "2024-01-01T12:00 2024-04-01T12:00 2024-07-01T12:00"},
	{"1.4 4.1.2 both, a list", "0 12 1 * +MON,THU", SLOTS,
	 "2024-01-01T12:00 2024-02-01T12:00 2024-04-01T12:00 2024-07-01T12:00"},
	{"1.4 4.1.2 both, one of them all", "0 12 * * +MON", SAME, "0 12 * * MON"},
	{"1.4 4.1.2 only first", "0 12 1 * MON+", REFUSED, "\"+\""},
	{"1.4 4.1.2 only first", "0 12 1 * MON,+TUE", REFUSED, "\"+\""},
	{"1.4 4.1.2 only in day of week", "0 12 +1 * MON", REFUSED, "\"+\""},
	{"1.4 4.1.2 only in day of week", "+0 12 1 * MON", REFUSED, "\"+\""},
	{"1.4 4.1.2 only in day of week", "0 12 1 +1 MON", REFUSED, "\"+\""},
	/* 1.4, 4.2: the question mark is a wildcard, in the fields of days. */
	{"1.4 4.2 day of month", "0 12 ? * MON", SAME, "0 12 * * MON"},
	{"1.4 4.2 day of week", "0 12 1 * ?", SAME, "0 12 1 * *"},
	{"1.4 4.2 both", "0 12 ? * ?", SAME, "0 12 * * *"},
	{"1.4 4.2 no other field", "? 12 * * *", REFUSED, "not allowed in minute"},
	{"1.4 4.2 no other field", "0 ? * * *", REFUSED, "not allowed in hour"},
	{"1.4 4.2 no other field", "0 0 1 ? *", REFUSED, "not allowed in month"},
	{"1.4 4.2 no other field", "? 0 0 1 1 *", REFUSED, "not allowed in second"},
	{"1.4 4.2 no other field", "0 0 0 1 1 * ?", REFUSED, "not allowed in year"},
	/* 1.4, 4.3.2: the Gregorian calendar, from 1970 to 2199. */
	{"1.4 4.3.2 leap years", "0 0 0 29 2 * 2096-2104", SLOTS, "2096-02-29T00:00 2104-02-29T00:00 none"},
	{"1.4 4.3.2 steps of years", "0 0 0 1 2 * 2000-2100/5", SLOTS,
	 "2025-02-01T00:00 2030-02-01T00:00 2035-02-01T00:00"},
	{"1.4 4.3.2 no end but this", "0 0 1 1 * ", SLOTS, "2025-01-01T00:00 2026-01-01T00:00"},
	{"1.4 4.3.2 the last year", "0 0 0 1 1 * 2198/1", SLOTS, "2198-01-01T00:00 2199-01-01T00:00 none"},
};

/* As many slots from 'after' on as 'want' has, as a text. */
static void
slots_of(const CronSchedule *s, CalZone z, int64_t after, const char *want, char *buf, size_t size)
{
	size_t len = strlen(want);

	buf[0] = '\0';
	while (strlen(buf) < len && strlen(buf) + 32 < size)
	{
		if (!calendar_next(s, &z, 0, after, &after))
		{
			strcat(buf, buf[0] != '\0' ? " none" : "none");
			break;
		}
		append_iso(buf, size, after);
	}
}

static void
test_rule(int i)
{
	const char *pattern = rules[i].pattern;
	const char *what = rules[i].what;
	CalZone utc_zone = cal_zone(find_zone("UTC"));
	CronSchedule s;
	CronSchedule other;
	CronError err;
	bool accepted;
	char got[512];

	memset(&s, 0, sizeof(s));
	memset(&other, 0, sizeof(other));
	accepted = cron_parse(pattern, &s, &err);
	switch (rules[i].how)
	{
		case SLOTS:
			snprintf(got, sizeof(got), "%s", err.message);
			if (accepted)
				slots_of(&s, utc_zone, from_iso("2024-01-01T00:00"), what, got, sizeof(got));
			is_str(got, what, "%s: \"%s\"", rules[i].rule, pattern);
			break;
		case SAME:
			ok(accepted && cron_parse(what, &other, &err) && memcmp(&s, &other, sizeof(s)) == 0,
			   "%s: \"%s\" is \"%s\"", rules[i].rule, pattern, what);
			break;
		case REFUSED:
			ok(!accepted && strstr(err.message, what) != NULL, "%s: \"%s\" is refused: %s",
			   rules[i].rule, pattern, accepted ? "(it is not)" : err.message);
			break;
	}
}

/*
 * 1.4, 4.3.1 recommends: a time in a gap is skipped, a time in an overlap runs once, at the first of the
 * two. The first we do not follow: a job whose time the clock skips runs at the end of the gap, because
 * a job that does not run at all is worse.
 */
static void
test_daylight_saving(void)
{
	CalZone z = cal_zone(find_zone("Europe/Berlin"));
	CronSchedule s;
	CronError err;
	char got[512];

	cron_parse("30 2 * * *", &s, &err);
	slots_of(&s, z, from_iso("2024-03-30T12:00"), "2024-03-31T01:00 2024-04-01T00:30", got,
			 sizeof(got));
	is_str(got, "2024-03-31T01:00 2024-04-01T00:30", "1.4 4.3.1 (deviation) a gap");
	slots_of(&s, z, from_iso("2024-10-26T12:00"), "2024-10-27T00:30 2024-10-28T01:30", got,
			 sizeof(got));
	is_str(got, "2024-10-27T00:30 2024-10-28T01:30", "1.4 4.3.1 an overlap");
}

int
main(void)
{
	int i;

	if (!load_zones())
		return 1;
	for (i = 0; i < lengthof(rules); i++)
		test_rule(i);
	test_daylight_saving();
	return done();
}
