/*
 * test_cron.c
 *	  Unit tests of the parser of schedules (core/cron).
 *
 * Tables say what a text means, or why it is refused. Random texts must never upset the parser; the
 * seed of each run is printed, and DSCHED_SEED repeats it.
 */
#include <stdlib.h>

#include "core/calendar.h"
#include "core/cron.h"
#include "random.h"
#include "tap.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

static bool
one_in(int n)
{
	return random_between(1, n) == 1;
}

/* ---------------------------------------------------------------------------------------------
 * The parser: what is accepted
 */

/* Describe a set as a cron field does, ranges joined. */
static void
append_set(char *buf, size_t size, uint64_t set, int min, int max)
{
	size_t len = strlen(buf);
	int count = 0;
	int a;
	int b;

	for (a = min; a <= max; a++)
		count += (set >> a & 1) != 0;
	if (count == max - min + 1)
	{
		snprintf(buf + len, size - len, "* ");
		return;
	}
	for (a = min; a <= max; a = b + 1)
	{
		b = a;
		if (!(set >> a & 1))
			continue;
		while (b < max && (set >> (b + 1) & 1))
			b++;
		len = strlen(buf);
		snprintf(buf + len, size - len, a == b ? "%d," : "%d-%d,", a, b);
	}
	len = strlen(buf);
	snprintf(buf + len - 1, size - len + 1, " ");
}

/* Sets with a letter before them, joined by a bar; "-" if there is none. */
static void
append_named_set(char *buf, size_t size, const char *name, uint64_t set, int min, int max)
{
	size_t len = strlen(buf);

	if (set == 0)
		return;
	if (len > 0 && buf[len - 1] != ' ')
		strcat(buf, "|");
	strcat(buf, name);
	append_set(buf, size, set, min, max);
	buf[strlen(buf) - 1] = '\0';
}

static void
append_doms(char *buf, size_t size, const CronSchedule *s)
{
	append_named_set(buf, size, "", s->doms, 1, 31);
	append_named_set(buf, size, "L", s->doms_from_end, 0, 30);
	append_named_set(buf, size, "W", s->nearest_weekdays, 1, 31);
	append_named_set(buf, size, "LW", s->last_weekday ? 1 : 0, 0, 1);
	strcat(buf, " ");
}

static void
append_dows(char *buf, size_t size, const CronSchedule *s)
{
	char name[4] = "#n:";
	int n;

	append_named_set(buf, size, "", s->dows, 0, 6);
	for (n = 1; n <= 5; n++)
	{
		name[1] = (char) ('0' + n);
		append_named_set(buf, size, name, s->nth_dows[n], 0, 6);
	}
	append_named_set(buf, size, "#L:", s->last_dows, 0, 6);
	strcat(buf, " ");
}

/* The years, unless it is all of them: count, first and last. */
static void
append_years(char *buf, size_t size, const CronSchedule *s)
{
	int count = 0;
	int first = 0;
	int last = 0;
	size_t len = strlen(buf);
	int i;

	for (i = 0; i < 256; i++)
	{
		if (!(s->years[i / 64] >> i % 64 & 1))
			continue;
		count++;
		first = first > 0 ? first : CRON_FIRST_YEAR + i;
		last = CRON_FIRST_YEAR + i;
	}
	if (count != 230)
		snprintf(buf + len, size - len, "%d:%d-%d ", count, first, last);
}

static void
describe(const CronSchedule *s, char *buf, size_t size)
{
	size_t len;

	buf[0] = '\0';
	if (s->kind == CRON_REBOOT)
		snprintf(buf, size, "reboot ");
	else if (s->kind == CRON_INTERVAL)
		snprintf(buf, size, "%" PRId64 " s ", s->interval_s);
	else
	{
		append_set(buf, size, s->seconds, 0, 59);
		append_set(buf, size, s->minutes, 0, 59);
		append_set(buf, size, s->hours, 0, 23);
		append_doms(buf, size, s);
		append_set(buf, size, s->months, 1, 12);
		append_dows(buf, size, s);
		append_years(buf, size, s);
		len = strlen(buf);
		snprintf(buf + len, size - len, "%s %s ", s->dom_and_dow ? "and" : "or",
				 s->wall_clock ? "wall" : "elapsed");
	}
	len = strlen(buf);
	snprintf(buf + len - 1, size - len + 1, "%s%s", s->zone[0] ? " " : "", s->zone);
}

static const struct
{
	const char *text;
	const char *means; /* as describe() says it */
} good_texts[] = {
	{"* * * * *", "0 * * * * * and elapsed"},
	{"* * ? * ?", "0 * * * * * and elapsed"},
	{"* * * * * *", "* * * * * * and elapsed"},
	{"0 3 * * *", "0 0 3 * * * and wall"},
	{" \t0\t3  * * *\t ", "0 0 3 * * * and wall"},
	{"5 0 3 * * *", "5 0 3 * * * and wall"},
	{"*/15 * * * *", "0 0,15,30,45 * * * * and elapsed"},
	{"5/20 * * * *", "0 5,25,45 * * * * and elapsed"},
	{"10-30/10 * * * *", "0 10,20,30 * * * * and elapsed"},
	{"10-10 * * * *", "0 10 * * * * and elapsed"},
	{"1,2,3,5-7,40/15 * * * *", "0 1-3,5-7,40,55 * * * * and elapsed"},
	{"007 * * * *", "0 7 * * * * and elapsed"},
	{"*/59 * * * *", "0 0,59 * * * * and elapsed"},
	{"0 */6 * * *", "0 0 0,6,12,18 * * * and elapsed"},
	{"0 8/4 * * *", "0 0 8,12,16,20 * * * and elapsed"},
	{"0 9-17/2 * * *", "0 0 9,11,13,15,17 * * * and elapsed"},
	{"0 3,*/12 * * *", "0 0 0,3,12 * * * and elapsed"},
	{"0 9-17 * * *", "0 0 9-17 * * * and wall"},
	{"0 0-23 * * *", "0 0 * * * * and elapsed"},
	{"0 0 1,15 * *", "0 0 0 1,15 * * and wall"},
	{"0 0 31 * *", "0 0 0 31 * * and wall"},
	{"0 0 29 2 *", "0 0 0 29 2 * and wall"},
	{"0 0 29-31 2 *", "0 0 0 29-31 2 * and wall"},
	{"0 0 30 4,2 ?", "0 0 0 30 2,4 * and wall"},
	{"0 0 30 2 MON", "0 0 0 30 2 1 or wall"},
	{"0 0 1 jan-Mar,DEC *", "0 0 0 1 1-3,12 * and wall"},
	{"0 0 * JUL WED", "0 0 0 * 7 3 and wall"},
	{"0 0 * * 0", "0 0 0 * * 0 and wall"},
	{"0 0 * * 7", "0 0 0 * * 0 and wall"},
	{"0 0 * * 0-7", "0 0 0 * * * and wall"},
	{"0 0 * * 5-7", "0 0 0 * * 0,5-6 and wall"},
	{"0 0 * * 7-7", "0 0 0 * * 0 and wall"},
	{"0 0 * * 1/2", "0 0 0 * * 1,3,5 and wall"},
	{"0 0 * * 7/2", "0 0 0 * * 0,2,4,6 and wall"},
	{"0 0 * * 1-7/3", "0 0 0 * * 0-1,4 and wall"},
	{"0 0 * * */7", "0 0 0 * * 0 and wall"},
	{"0 0 * * mon-FRI", "0 0 0 * * 1-5 and wall"},
	{"0 0 * * FRI-SUN", "0 0 0 * * 0,5-6 and wall"},
	{"0 0 * * SUN-TUE", "0 0 0 * * 0-2 and wall"},
	{"0 0 * * MON-5", "0 0 0 * * 1-5 and wall"},
	{"0 0 13 * FRI", "0 0 0 13 * 5 or wall"},
	{"0 0 */2 * MON", "0 0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1 or wall"},
	{"0 0 1 * */2", "0 0 0 1 * 0,2,4,6 or wall"},
	{"0 0 31 4 */2", "0 0 0 31 4 0,2,4,6 or wall"},
	{"0 0 ?/2 * ?", "0 0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * * and wall"},
	{"0 0 1-31 * MON", "0 0 0 * * 1 or wall"},
	{"0 0 1,* * MON", "0 0 0 * * 1 or wall"},
	{"0 0 12 * * ?", "0 0 12 * * * and wall"},
	{"0 0 0 1 1 * *", "0 0 0 1 1 * and wall"},
	{"0 0 0 1 1 * 2025", "0 0 0 1 1 * 1:2025-2025 and wall"},
	{"0 0 0 1 1 * 1970,2199", "0 0 0 1 1 * 2:1970-2199 and wall"},
	{"0 0 0 1 1 ? 2025-2030", "0 0 0 1 1 * 6:2025-2030 and wall"},
	{"0 0 0 1 1 * */2", "0 0 0 1 1 * 115:1970-2198 and wall"},
	{"0 0 0 1 1 * */229", "0 0 0 1 1 * 2:1970-2199 and wall"},
	{"0 0 0 1 1 * 1971-2199/2", "0 0 0 1 1 * 115:1971-2199 and wall"},
	{"0 0 0 1 1 * 2024/100", "0 0 0 1 1 * 2:2024-2124 and wall"},
	{"0 0 0 29 2 * 2100-2104", "0 0 0 29 2 * 5:2100-2104 and wall"},
	{"0 0 L * *", "0 0 0 L0 * * and wall"},
	{"0 0 $ * *", "0 0 0 L0 * * and wall"},
	{"0 0 L-3 * *", "0 0 0 L3 * * and wall"},
	{"0 0 L-0 * *", "0 0 0 L0 * * and wall"},
	{"0 0 L-30 * *", "0 0 0 L30 * * and wall"},
	{"0 0 1,15,L * *", "0 0 0 1,15|L0 * * and wall"},
	{"0 0 $,L-1,10-12/2 * *", "0 0 0 10,12|L0-1 * * and wall"},
	{"0 0 LW * *", "0 0 0 LW0 * * and wall"},
	{"0 0 15W * *", "0 0 0 W15 * * and wall"},
	{"0 0 1W 2 *", "0 0 0 W1 2 * and wall"},
	{"0 0 31W 1 MON#1", "0 0 0 W31 1 #1:1 or wall"},
	{"0 0 * * FRI#2", "0 0 0 * * #2:5 and wall"},
	{"0 0 * * fri#2", "0 0 0 * * #2:5 and wall"},
	{"0 0 * * 7#5", "0 0 0 * * #5:0 and wall"},
	{"0 0 * * 0#1,MON#1,2#3,SAT", "0 0 0 * * 6|#1:0-1|#3:2 and wall"},
	{"0 0 * * 5L", "0 0 0 * * #L:5 and wall"},
	{"0 0 * * 5#L", "0 0 0 * * #L:5 and wall"},
	{"0 0 * * FRI#L", "0 0 0 * * #L:5 and wall"},
	{"0 0 * * friL", "0 0 0 * * #L:5 and wall"},
	{"0 0 * * 0L,7L,SUN#5", "0 0 0 * * #5:0|#L:0 and wall"},
	{"0 0 1 * +MON", "0 0 0 1 * 1 and wall"},
	{"0 0 1-7 * +MON,TUE#L", "0 0 0 1-7 * 1|#L:2 and wall"},
	{"0 0 1 * +*", "0 0 0 1 * * and wall"},
	{"0 0 * * +1-5", "0 0 0 * * 1-5 and wall"},
	{"0 0 13 * +?", "0 0 0 13 * * and wall"},
	{"0 0 29 2 +MON", "0 0 0 29 2 1 and wall"},
	{"0 0 L 2 +SUN#5", "0 0 0 L0 2 #5:0 and wall"},
	{"0 0 LW 2 +FRI", "0 0 0 LW0 2 5 and wall"},
	{"0 0 30 2 MON#5", "0 0 0 30 2 #5:1 or wall"},
	{"0 0 L-28 2 *", "0 0 0 L28 2 * and wall"},
	{"0 0 30 12 +MON", "0 0 0 30 12 1 and wall"},
	{"@yearly", "0 0 0 1 1 * and wall"},
	{"@annually", "0 0 0 1 1 * and wall"},
	{"@monthly", "0 0 0 1 * * and wall"},
	{"@weekly", "0 0 0 * * 0 and wall"},
	{"@daily", "0 0 0 * * * and wall"},
	{"@midnight", "0 0 0 * * * and wall"},
	{" @hourly ", "0 0 * * * * and elapsed"},
	{"@reboot", "reboot"},
	{"@every 1h30m", "5400 s"},
	{"@every 90s", "90 s"},
	{"@every 1d2h3m4s", "93784 s"},
	{"@every 30m1h", "5400 s"},
	{"@every 3653d", "315619200 s"},
	{"30 seconds", "30 s"},
	{"1 second", "1 s"},
	{"5 minutes", "300 s"},
	{"5 Minute", "300 s"},
	{"2 HOURS", "7200 s"},
	{"1 day", "86400 s"},
	{" 10  days ", "864000 s"},
	{"TZ=Europe/Berlin 0 3 * * *", "0 0 3 * * * and wall Europe/Berlin"},
	{"CRON_TZ=UTC @daily", "0 0 0 * * * and wall UTC"},
	{"  TZ=UTC  5 minutes", "300 s UTC"},
	{"TZ=EST5EDT,M3.2.0,M11.1.0 @reboot", "reboot EST5EDT,M3.2.0,M11.1.0"},
};

static void
test_good_texts(void)
{
	int i;

	for (i = 0; i < lengthof(good_texts); i++)
	{
		CronSchedule s;
		CronError err;
		char got[512];

		if (cron_parse(good_texts[i].text, &s, &err))
			describe(&s, got, sizeof(got));
		else
			snprintf(got, sizeof(got), "error: %s", err.message);
		is_str(got, good_texts[i].means, "parse \"%s\"", good_texts[i].text);
	}
}

/* ---------------------------------------------------------------------------------------------
 * The parser: what is refused
 */

static const struct
{
	const char *text;
	int field;
	const char *field_name;
	int position;
	const char *message;
	const char *hint; /* a part of it, "" for none, NULL for whatever it is */
} bad_texts[] = {
	{"", 0, NULL, 1, "schedule is empty", "Write, for example"},
	{"  ", 0, NULL, 3, "schedule is empty", NULL},
	{"TZ=UTC ", 0, NULL, 8, "schedule is empty", NULL},
	{"TZ= 0 3 * * *", 0, NULL, 4, "time zone is empty", ""},
	{"TZ=Abcdefghijklmnopqrstuvwxyz/Abcdefghijklmnopqrstuvwxyz/Abcdefghij * * * * *", 0, NULL, 4,
	 "time zone \"Abcdefghijklmnopqrstuvwxyz/Abcdefghijklm...\" is longer than 63 bytes", ""},
	{"* * * *", 0, NULL, 8, "expected 5, 6 or 7 fields, found 4", "The fields are minute, hour"},
	{"0", 0, NULL, 2, "expected 5, 6 or 7 fields, found 1", NULL},
	{"1, 2, 3 * * * * *", 0, NULL, 17, "expected 5, 6 or 7 fields, found 8", "without spaces"},
	{"* * * * * * * * * * *", 0, NULL, 15, "expected 5, 6 or 7 fields, found 11", NULL},
	{"5m", 0, NULL, 3, "expected 5, 6 or 7 fields, found 1", "\"5 minutes\" or \"@every 5m\""},
	{"every 5 minutes", 0, NULL, 16, "expected 5, 6 or 7 fields, found 3",
	 "Write \"5 minutes\"."},
	{"daily", 0, NULL, 6, "expected 5, 6 or 7 fields, found 1", "\"@daily\""},

	{"61 * * * *", 1, "minute", 1, "minute value \"61\" is out of range 0-59", NULL},
	{"60 * * * *", 1, "minute", 1, "minute value \"60\" is out of range 0-59", "minute 0"},
	{"99999999999999999999 * * * *", 1, "minute", 1,
	 "minute value \"99999999999999999999\" is out of range 0-59", NULL},
	{"0 24 * * *", 2, "hour", 3, "hour value \"24\" is out of range 0-23", "Midnight is hour 0"},
	{"0 0 0 * *", 3, "day of month", 5, "day of month value \"0\" is out of range 1-31", "from 1"},
	{"0 0 32 * *", 3, "day of month", 5, "day of month value \"32\" is out of range 1-31", NULL},
	{"0 0 1 13 *", 4, "month", 7, "month value \"13\" is out of range 1-12", NULL},
	{"0 0 1 0 *", 4, "month", 7, "month value \"0\" is out of range 1-12", NULL},
	{"0 0 * * 8", 5, "day of week", 9, "day of week value \"8\" is out of range 0-7",
	 "0 and 7 are Sunday"},
	{"60 0 0 * * *", 1, "second", 1, "second value \"60\" is out of range 0-59", NULL},
	{"0 0 24 * * *", 3, "hour", 5, "hour value \"24\" is out of range 0-23", NULL},
	{"TZ=UTC 0 24 * * *", 2, "hour", 10, "hour value \"24\" is out of range 0-23", NULL},
	{"1,2,61 * * * *", 1, "minute", 5, "minute value \"61\" is out of range 0-59", NULL},
	{"10-70 * * * *", 1, "minute", 4, "minute value \"70\" is out of range 0-59", NULL},

	{"x * * * *", 1, "minute", 1, "minute value \"x\" is not a number 0-59", ""},
	{"-5 * * * *", 1, "minute", 1, "minute value \"-5\" is not a number 0-59", ""},
	{"5x * * * *", 1, "minute", 1, "minute value \"5x\" is not a number 0-59", ""},
	{"1.5 * * * *", 1, "minute", 2, "unexpected text \".5\" in minute \"1.5\"", "whole numbers"},
	{"*5 * * * *", 1, "minute", 2, "unexpected text \"5\" in minute \"*5\"", "\"*/5\""},
	{"*-5 * * * *", 1, "minute", 2, "unexpected text \"-5\" in minute \"*-5\"", ""},
	{"1-5-7 * * * *", 1, "minute", 4, "unexpected text \"-7\" in minute \"1-5-7\"", ""},
	{"1- * * * *", 1, "minute", 3, "minute \"1-\" is incomplete", ""},
	{"1,,2 * * * *", 1, "minute", 3, "minute list has an empty item", ""},
	{",1 * * * *", 1, "minute", 1, "minute list has an empty item", ""},
	{"1, * * * *", 1, "minute", 3, "minute list has an empty item", ""},
	{"0 0 1 FOO *", 4, "month", 7,
	 "month value \"FOO\" is neither a number 1-12 nor a name JAN-DEC", ""},
	{"0 0 1 JANUARY *", 4, "month", 7,
	 "month value \"JANUARY\" is neither a number 1-12 nor a name JAN-DEC", "write \"JAN\""},
	{"0 0 * * MO", 5, "day of week", 9,
	 "day of week value \"MO\" is neither a number 0-7 nor a name SUN-SAT",
	 "Names have three letters: write \"MON\"."},
	{"0 0 MON * *", 3, "day of month", 5, "day of month value \"MON\" is not a number 1-31",
	 "\"MON\" is a day of week, which is field 5 of 5."},
	{"0 5 * * * root", 6, "day of week", 11,
	 "day of week value \"root\" is neither a number 0-7 nor a name SUN-SAT",
	 "A schedule has no user and no command"},
	{"\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244"
	 "\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244\303\244 * * * *",
	 1, "minute", 1, "minute value \"...\" is not a number 0-59", ""},

	{"*/0 * * * *", 1, "minute", 3, "minute step \"0\" is out of range 1-59", NULL},
	{"*/60 * * * *", 1, "minute", 3, "minute step \"60\" is out of range 1-59", "90 minutes"},
	{"0 */24 * * *", 2, "hour", 5, "hour step \"24\" is out of range 1-23", NULL},
	{"0 0 * * */8", 5, "day of week", 11, "day of week step \"8\" is out of range 1-7", NULL},
	{"*/ * * * *", 1, "minute", 3, "minute step \"\" is not a number 1-59", ""},
	{"*/x * * * *", 1, "minute", 3, "minute step \"x\" is not a number 1-59", ""},
	{"*/-5 * * * *", 1, "minute", 3, "minute step \"-5\" is not a number 1-59", ""},
	{"*/5/5 * * * *", 1, "minute", 3, "minute step \"5/5\" is not a number 1-59", ""},
	{"/5 * * * *", 1, "minute", 1, "minute value \"/5\" is not a number 0-59", "Write \"*/5\"."},
	{"5-1 * * * *", 1, "minute", 1, "minute range \"5-1\" runs backwards", "\"5-59,0-1\""},
	{"0 0 25-5 * *", 3, "day of month", 5, "day of month range \"25-5\" runs backwards",
	 "\"25-31,1-5\""},
	{"0 0 * * FRI-MON", 5, "day of week", 9, "day of week range \"FRI-MON\" runs backwards",
	 "\"5-6,0-1\""},
	{"0 0 * * 5-0", 5, "day of week", 9, "day of week range \"5-0\" runs backwards", "\"5-7\""},
	{"0 0 * * 7-2", 5, "day of week", 9, "day of week range \"7-2\" runs backwards", "\"0-2\""},

	{"L * * * *", 1, "minute", 1, "\"L\" is not allowed in minute \"L\"",
	 "\"L\", the last, is for day of month and day of week."},
	{"0 5L * * *", 2, "hour", 4, "\"L\" is not allowed in hour \"5L\"", "the last, is for"},
	{"0 0 1 L *", 4, "month", 7, "\"L\" is not allowed in month \"L\"", NULL},
	{"0 0 0 1 1 * L", 7, "year", 13, "\"L\" is not allowed in year \"L\"", NULL},
	{"0 0 l * *", 3, "day of month", 5, "day of month value \"l\" is not a number 1-31",
	 "Write \"L\" in upper case."},
	{"0 0 Lw * *", 3, "day of month", 6, "unexpected text \"w\" in day of month \"Lw\"",
	 "Write \"W\" in upper case."},
	{"0 0 15w * *", 3, "day of month", 7, "unexpected text \"w\" in day of month \"15w\"",
	 "Write \"W\" in upper case."},
	{"0 0 * * 5l", 5, "day of week", 10, "unexpected text \"l\" in day of week \"5l\"",
	 "Write \"L\" in upper case."},
	{"0 0 * * fril", 5, "day of week", 12, "unexpected text \"l\" in day of week \"fril\"",
	 "Write \"L\" in upper case."},
	{"0 0 * * FRI#l", 5, "day of week", 13,
	 "occurrence \"l\" of a day of week is not a number 1-5 or L", "Write \"L\" in upper case."},
	{"0 0 5L * *", 3, "day of month", 6, "unexpected text \"L\" in day of month \"5L\"",
	 "The last day of the month is \"L\"; \"5L\", the last Friday, is a day of week."},
	{"0 0 20-L * *", 3, "day of month", 8, "unexpected text \"L\" in day of month \"20-L\"",
	 "A range to the end of the month ends with 31."},
	{"0 0 L/2 * *", 3, "day of month", 6, "unexpected text \"/2\" in day of month \"L/2\"",
	 "A step follows"},
	{"0 0 L- * *", 3, "day of month", 7, "day of month \"L-\" is incomplete", ""},
	{"0 0 L-x * *", 3, "day of month", 7, "unexpected text \"x\" in day of month \"L-x\"", ""},
	{"0 0 L-31 * *", 3, "day of month", 7,
	 "offset \"31\" from the last day of the month is out of range 0-30",
	 "No month has more than 31 days."},
	{"0 0 L-3W * *", 3, "day of month", 8, "unexpected text \"W\" in day of month \"L-3W\"",
	 "\"W\" follows a single day or \"L\""},
	{"0 0 LL * *", 3, "day of month", 6, "unexpected text \"L\" in day of month \"LL\"", NULL},
	{"0 0 1-15W * *", 3, "day of month", 9, "unexpected text \"W\" in day of month \"1-15W\"",
	 "it takes no list, range or step."},
	{"0 0 15W-20 * *", 3, "day of month", 8, "unexpected text \"-20\" in day of month \"15W-20\"",
	 ""},
	{"0 0 15W/2 * *", 3, "day of month", 8, "unexpected text \"/2\" in day of month \"15W/2\"",
	 NULL},
	{"0 0 1,15W * *", 3, "day of month", 7, "\"W\" is not allowed in a list of days: \"1,15W\"",
	 "An item with \"W\" is the only one of its field."},
	{"0 0 LW,1 * *", 3, "day of month", 5, "\"W\" is not allowed in a list of days: \"LW,1\"",
	 NULL},
	{"0 0 W * *", 3, "day of month", 5, "\"W\" in day of month \"W\" is out of place", NULL},
	{"0 0 0W * *", 3, "day of month", 5, "day of month value \"0\" is out of range 1-31", NULL},
	{"0 0 32W * *", 3, "day of month", 5, "day of month value \"32\" is out of range 1-31", NULL},
	{"0 0 * * 1W", 5, "day of week", 10, "\"W\" is not allowed in day of week \"1W\"",
	 "\"MON-FRI\" in day of week."},
	{"0 $ * * *", 2, "hour", 3, "\"$\" is not allowed in hour \"$\"", "the last day of the month"},
	{"0 0 $W * *", 3, "day of month", 6, "unexpected text \"W\" in day of month \"$W\"", NULL},
	{"0 0 * * $", 5, "day of week", 9, "\"$\" is not allowed in day of week \"$\"", NULL},
	{"0 0 MON#1 * *", 3, "day of month", 5, "day of month value \"MON#1\" is not a number 1-31",
	 "\"MON\" is a day of week"},
	{"0 0 1#1 * *", 3, "day of month", 6, "\"#\" is not allowed in day of month \"1#1\"",
	 "is for day of week: \"MON#2\"."},
	{"0 0 * * FRI#6", 5, "day of week", 13, "occurrence \"6\" of a day of week is out of range 1-5",
	 "the last one is \"FRI#L\"."},
	{"0 0 * * 7#0", 5, "day of week", 11, "occurrence \"0\" of a day of week is out of range 1-5",
	 "\"SUN#L\""},
	{"0 0 * * 5#", 5, "day of week", 11,
	 "occurrence \"\" of a day of week is not a number 1-5 or L", ""},
	{"0 0 * * 5#-1", 5, "day of week", 11,
	 "occurrence \"-1\" of a day of week is not a number 1-5 or L", ""},
	{"0 0 * * 5#1#2", 5, "day of week", 12, "unexpected text \"#2\" in day of week \"5#1#2\"",
	 NULL},
	{"0 0 * * 5#1L", 5, "day of week", 12, "unexpected text \"L\" in day of week \"5#1L\"", NULL},
	{"0 0 * * 5#L/2", 5, "day of week", 12, "unexpected text \"/2\" in day of week \"5#L/2\"",
	 "A step follows"},
	{"0 0 * * MON-FRI#2", 5, "day of week", 16,
	 "unexpected text \"#2\" in day of week \"MON-FRI#2\"",
	 "\"#\" follows a single day: \"MON#2,TUE#2\"."},
	{"0 0 * * 1-5L", 5, "day of week", 12, "unexpected text \"L\" in day of week \"1-5L\"",
	 "\"L\" follows a single day"},
	{"0 0 * * *#1", 5, "day of week", 10, "unexpected text \"#1\" in day of week \"*#1\"", NULL},
	{"0 0 * * *L", 5, "day of week", 10, "unexpected text \"L\" in day of week \"*L\"", NULL},
	{"0 0 * * #2", 5, "day of week", 9, "\"#\" in day of week \"#2\" is out of place", NULL},
	{"0 0 * * L", 5, "day of week", 9, "\"L\" in day of week \"L\" is out of place",
	 "The last Friday of the month is \"FRI#L\"; Quartz's \"L\", Saturday, is \"SAT\"."},
	{"0 0 * * 8L", 5, "day of week", 9, "day of week value \"8\" is out of range 0-7", NULL},
	{"0 0 * * LW", 5, "day of week", 9, "\"L\" in day of week \"LW\" is out of place", NULL},
	{"0 0 +1 * MON", 3, "day of month", 5, "\"+\" is not allowed in day of month \"+1\"",
	 "the first character of day of week."},
	{"0 0 1 * MON,+TUE", 5, "day of week", 13, "\"+\" in day of week \"+TUE\" is out of place",
	 "the first character of day of week."},
	{"0 0 1 * MON+", 5, "day of week", 12, "unexpected text \"+\" in day of week \"MON+\"", NULL},
	{"0 0 1 * ++MON", 5, "day of week", 10, "\"+\" in day of week \"+MON\" is out of place", NULL},
	{"0 0 1 * +", 5, "day of week", 10, "day of week \"+\" is incomplete", ""},
	{"0 0 1 * +,MON", 5, "day of week", 10, "day of week list has an empty item", ""},
	{"? * * * *", 1, "minute", 1, "\"?\" is not allowed in minute \"?\"",
	 "is for day of month and day of week"},
	{"0 0 1 ? *", 4, "month", 7, "\"?\" is not allowed in month \"?\"", NULL},
	{"0 0 0 1 1 ? ?", 7, "year", 13, "\"?\" is not allowed in year \"?\"", NULL},
	{"0 0 1? * *", 3, "day of month", 6, "unexpected text \"?\" in day of month \"1?\"", NULL},

	{"0 0 0 1 1 * 1969", 7, "year", 13, "year value \"1969\" is out of range 1970-2199",
	 "four digits"},
	{"0 0 0 1 1 * 2200", 7, "year", 13, "year value \"2200\" is out of range 1970-2199", NULL},
	{"0 0 0 1 1 * 27", 7, "year", 13, "year value \"27\" is out of range 1970-2199", NULL},
	{"0 0 0 1 1 * 2030-2025", 7, "year", 13, "year range \"2030-2025\" runs backwards",
	 "Write \"2025-2030\"."},
	{"0 0 0 1 1 * */230", 7, "year", 15, "year step \"230\" is out of range 1-229", NULL},
	{"0 0 0 1 1 * */0", 7, "year", 15, "year step \"0\" is out of range 1-229", NULL},
	{"0 0 1 1 * 2027", 6, "day of week", 11, "day of week value \"2027\" is out of range 0-7",
	 "a year takes all 7 fields"},

	{"0 0 30 2 *", 3, "day of month", 5,
	 "schedule never runs: day of month \"30\" does not occur in month \"2\"", "February"},
	{"0 0 30,31 FEB ?", 3, "day of month", 5,
	 "schedule never runs: day of month \"30,31\" does not occur in month \"FEB\"", NULL},
	{"0 0 0 31 2,4,6,9,11 *", 4, "day of month", 7,
	 "schedule never runs: day of month \"31\" does not occur in month \"2,4,6,9,11\"", NULL},
	{"0 0 31 4 +MON", 3, "day of month", 5,
	 "schedule never runs: day of month \"31\" does not occur in month \"4\"", NULL},
	{"0 0 31W 4 *", 3, "day of month", 5,
	 "schedule never runs: day of month \"31W\" does not occur in month \"4\"", NULL},
	{"0 0 L-29 2 *", 3, "day of month", 5,
	 "schedule never runs: day of month \"L-29\" does not occur in month \"2\"", NULL},
	{"0 0 1-7 * +MON#2", 5, "day of week", 11,
	 "schedule never runs: day of month \"1-7\" is never day of week \"+MON#2\"",
	 "With \"+\" a day must match both; without it, either."},
	{"0 0 LW * +SUN", 5, "day of week", 10,
	 "schedule never runs: day of month \"LW\" is never day of week \"+SUN\"", NULL},
	{"0 0 28 2 +MON#5", 5, "day of week", 10,
	 "schedule never runs: day of month \"28\" is never day of week \"+MON#5\"", NULL},
	{"0 0 0 29 2 * 2100", 7, "year", 14,
	 "schedule never runs: year \"2100\" has none of its days", "not 2100"},
	{"0 0 0 29 2 * 2025-2027,2029", 7, "year", 14,
	 "schedule never runs: year \"2025-2027,2029\" has none of its days", NULL},
	{"0 0 0 29 2 +MON 2024-2040", 7, "year", 17,
	 "schedule never runs: year \"2024-2040\" has none of its days", NULL},
	{"0 0 0 ? 2 MON#5 2025", 7, "year", 17,
	 "schedule never runs: year \"2025\" has none of its days", NULL},
	{"0 0 0 1 1 +MON 2025", 7, "year", 16,
	 "schedule never runs: year \"2025\" has none of its days", NULL},

	{"@dayly", 0, NULL, 1, "unknown schedule \"@dayly\"", "Perhaps you meant \"@daily\"."},
	{"@Mothly", 0, NULL, 1, "unknown schedule \"@Mothly\"", "\"@monthly\""},
	{"@fortnightly", 0, NULL, 1, "unknown schedule \"@fortnightly\"", "Known are @yearly"},
	{"@daily foo", 0, NULL, 8, "unexpected text \"foo\" after @daily", ""},
	{"@reboot 5", 0, NULL, 9, "unexpected text \"5\" after @reboot", ""},
	{"@every", 0, NULL, 7, "\"@every\" needs a duration", "@every 1h30m"},
	{"@every 5", 0, NULL, 9, "invalid duration \"5\"", "\"@every 5m\""},
	{"@every 5 minutes", 0, NULL, 8, "invalid duration \"5\"", "Write \"5 minutes\" without"},
	{"@every 1h 30m", 0, NULL, 11, "unexpected text \"30m\" after the duration", "together"},
	{"@every 1.5h", 0, NULL, 9, "invalid duration \"1.5h\"", "whole numbers"},
	{"@every 500ms", 0, NULL, 11, "invalid duration \"500ms\"", NULL},
	{"@every h", 0, NULL, 8, "invalid duration \"h\"", NULL},
	{"@every 1w", 0, NULL, 9, "invalid duration \"1w\"", NULL},
	{"@every -5m", 0, NULL, 8, "invalid duration \"-5m\"", NULL},
	{"@every 0s", 0, NULL, 8, "interval \"0s\" is out of range 1 second to 10 years", ""},
	{"@every 3653d1s", 0, NULL, 8, "interval \"3653d1s\" is out of range 1 second to 10 years", ""},
	{"@every 99999999999999999999d99999999999999999999d", 0, NULL, 8,
	 "interval \"99999999999999999999d9999999999999999999...\" is out of range 1 second to 10 "
	 "years",
	 ""},
	{"0 seconds", 0, NULL, 1, "interval \"0 seconds\" is out of range 1 second to 10 years", ""},
	{"4000 days", 0, NULL, 1, "interval \"4000 days\" is out of range 1 second to 10 years", ""},
	{"5 minutes ago", 0, NULL, 11, "unexpected text \"ago\" after the interval", NULL},
	{"1 hour 30 minutes", 0, NULL, 8, "unexpected text \"30\" after the interval", "@every 1h30m"},
	{"2 months", 0, NULL, 3, "unknown unit \"months\" of an interval", "0 0 1 */2 *"},
	{"1 week", 0, NULL, 3, "unknown unit \"week\" of an interval", "\"7 days\""},
	{"5 min", 0, NULL, 3, "unknown unit \"min\" of an interval",
	 "Units are seconds, minutes, hours and days."},

	/* White space other than OCPS has. */
	{"0 3 * * *\n", 0, NULL, 10, "schedule contains the control character 0x0a", "is one line"},
	{"0\r3 * * *", 0, NULL, 2, "schedule contains the control character 0x0d", NULL},
	{"0 3 * *\v*", 0, NULL, 8, "schedule contains the control character 0x0b", NULL},
	{"0 3 * *\302\240*", 0, NULL, 8, "schedule contains a non-breaking space", "is one line"},

	/* Upper and lower case. */
	{"@Daily", 0, NULL, 1, "unknown schedule \"@Daily\"", "in lower case: \"@daily\""},
	{"@EVERY 5m", 0, NULL, 1, "unknown schedule \"@EVERY\"", "in lower case: \"@every\""},
	{"@every 5M", 0, NULL, 9, "invalid duration \"5M\"", NULL},

	/* Names. */
	{"0 0 * * TUES", 5, "day of week", 9,
	 "day of week value \"TUES\" is neither a number 0-7 nor a name SUN-SAT",
	 "Names have three letters: write \"TUE\"."},
	{"0 0 * * FIR", 5, "day of week", 9,
	 "day of week value \"FIR\" is neither a number 0-7 nor a name SUN-SAT", ""},
	{"0 0 * * SIN", 5, "day of week", 9,
	 "day of week value \"SIN\" is neither a number 0-7 nor a name SUN-SAT",
	 "Perhaps you meant \"SUN\"."},
	{"0 0 1 OKT *", 4, "month", 7, "month value \"OKT\" is neither a number 1-12 nor a name JAN-DEC",
	 "Perhaps you meant \"OCT\"."},
	{"0 0 1 MAI *", 4, "month", 7, "month value \"MAI\" is neither a number 1-12 nor a name JAN-DEC",
	 ""},
	{"0 0 * * JAN", 5, "day of week", 9,
	 "day of week value \"JAN\" is neither a number 0-7 nor a name SUN-SAT",
	 "\"JAN\" is a month, which is field 4 of 5."},
	{"0 0 1 1 SUN *", 5, "month", 9, "month value \"SUN\" is neither a number 1-12 nor a name JAN-DEC",
	 "\"SUN\" is a day of week, which is field 6 of 6."},

	/* Other schedulers. */
	{"30 4 * * MON root /bin/vacuum", 5, "month", 10,
	 "month value \"MON\" is neither a number 1-12 nor a name JAN-DEC", "no user and no command"},
	{"0 3 * * * VACUUM", 6, "day of week", 11,
	 "day of week value \"VACUUM\" is neither a number 0-7 nor a name SUN-SAT",
	 "no user and no command"},
	{"0 3 * * * /usr/bin/vacuumdb -a -z", 0, NULL, 32, "expected 5, 6 or 7 fields, found 8",
	 "no user and no command"},
	{"0 0 12 ? * WEB", 6, "day of week", 12,
	 "day of week value \"WEB\" is neither a number 0-7 nor a name SUN-SAT", "\"WED\""},
	{"0 0 12 ? * 1.", 6, "day of week", 13, "unexpected text \".\" in day of week \"1.\"", NULL},
	{"0 0 12 ? * 2-", 6, "day of week", 14, "day of week \"2-\" is incomplete",
	 "Quartz counts from SUN = 1."},
	{"0 0 12 1 * 2-", 6, "day of week", 14, "day of week \"2-\" is incomplete",
	 "With 6 fields the first is second"},
	{"H * * * *", 1, "minute", 1, "minute value \"H\" is not a number 0-59", "Jenkins' \"H\""},
	{"H/15 * * * *", 1, "minute", 1, "minute value \"H/15\" is not a number 0-59", "Jenkins"},
	{"0 H(0-7) * * *", 2, "hour", 3, "hour value \"H(0-7)\" is not a number 0-23", "Jenkins"},
	{"0~30 * * * *", 1, "minute", 2, "unexpected text \"~30\" in minute \"0~30\"", "a jitter"},
	{"cron(0 12 * * ? *)", 0, NULL, 1, "notation \"cron(...)\" is not supported", "is the year"},
	{"rate(5 minutes)", 0, NULL, 1, "notation \"rate(...)\" is not supported",
	 "Write \"5 minutes\"."},
	{"rate()", 0, NULL, 1, "notation \"rate(...)\" is not supported", "\"@every 5m\""},
	{"Mon *-*-* 00:00", 0, NULL, 5, "\"*-*-*\" is not a field of a cron pattern",
	 "\"30 4 * * MON\""},
	{"*-*-01 04:00:00", 0, NULL, 1, "\"*-*-01\" is not a field of a cron pattern", "systemd"},
	{"Mon..Fri 09:00", 0, NULL, 1, "\"Mon..Fri\" is not a field of a cron pattern", "systemd"},
	{"2026-01-31 10:00", 0, NULL, 1, "\"2026-01-31\" is not a field of a cron pattern", NULL},
	{"04:30", 0, NULL, 1, "\"04:30\" is not a field of a cron pattern",
	 "\"30 4 * * *\" is every day at 4:30."},
	{"daily at 3:05", 0, NULL, 10, "\"3:05\" is not a field of a cron pattern", "\"5 3 * * *\""},
	{"00:05:00", 0, NULL, 1, "\"00:05:00\" is not a field of a cron pattern", NULL},
	{"every day", 0, NULL, 10, "expected 5, 6 or 7 fields, found 2", "Write \"@daily\""},
	{"every 5m", 0, NULL, 9, "expected 5, 6 or 7 fields, found 2", "Write \"@every 5m\""},
	{"every monday", 0, NULL, 13, "expected 5, 6 or 7 fields, found 2", "0 3 * * MON"},
	{"0 9 - 17 * * * *", 0, NULL, 16, "expected 5, 6 or 7 fields, found 8", "without spaces"},
	{"1, 2 * * * *", 1, "second", 3, "second list has an empty item", "without spaces"},
	{"*/5", 0, NULL, 4, "expected 5, 6 or 7 fields, found 1", "The fields are minute, hour"},
};

static void
test_bad_texts(void)
{
	int i;

	for (i = 0; i < lengthof(bad_texts); i++)
	{
		const char *text = bad_texts[i].text;
		const char *want_hint = bad_texts[i].hint;
		CronSchedule s;
		CronError err;

		if (!ok(!cron_parse(text, &s, &err), "refuse \"%s\"", text))
			continue;
		is_str(err.message, bad_texts[i].message, "message for \"%s\"", text);
		is_int(err.field, bad_texts[i].field, "field for \"%s\"", text);
		is_str(err.field_name, bad_texts[i].field_name, "field name for \"%s\"", text);
		is_int(err.position, bad_texts[i].position, "position for \"%s\"", text);
		if (want_hint == NULL || want_hint[0] == '\0')
			ok(want_hint == NULL || err.hint[0] == '\0', "hint for \"%s\": %s", text, err.hint);
		else
			ok(strstr(err.hint, want_hint) != NULL, "hint for \"%s\": %s", text, err.hint);
	}
}

static void
test_text_length(void)
{
	char text[CRON_MAX_TEXT + 2];
	CronSchedule s;
	CronError err;

	memset(text, ' ', sizeof(text));
	memcpy(text, "0 3 * * *", 9);
	text[CRON_MAX_TEXT] = '\0';
	ok(cron_parse(text, &s, &err), "a text of %d bytes", CRON_MAX_TEXT);
	text[CRON_MAX_TEXT] = ' ';
	text[CRON_MAX_TEXT + 1] = '\0';
	ok(!cron_parse(text, &s, &err), "no text of %d bytes", CRON_MAX_TEXT + 1);
	is_str(err.message, "schedule is longer than 1024 bytes", "the message says so");
}

/* ---------------------------------------------------------------------------------------------
 * Random texts
 */

/* A text from the tables, spoiled a little, or just pieces in any order. */
static void
random_text(char *text, size_t size)
{
	static const char pieces[] = "0123456789 0123456789 ***??,,--//LW#+$@ adhmsJANMONsun\t\377.=";
	int changes = (int) random_between(0, 4);
	size_t len;

	text[0] = '\0';
	if (one_in(2))
		snprintf(text, size, "%s", good_texts[random_between(0, lengthof(good_texts) - 1)].text);
	else if (one_in(2))
		snprintf(text, size, "%s", bad_texts[random_between(0, lengthof(bad_texts) - 1)].text);
	else
		changes = (int) random_between(0, 60);
	for (; changes > 0; changes--)
	{
		size_t at = (size_t) random_between(0, (int64_t) strlen(text));

		len = strlen(text);
		if (one_in(3) && at < len)
			memmove(text + at, text + at + 1, len - at);
		else if (len + 2 < size)
		{
			memmove(text + at + 1, text + at, len - at + 1);
			text[at] = pieces[random_between(0, (int64_t) sizeof(pieces) - 2)];
		}
	}
}

/* An error must be fit to be shown. */
static bool
good_error(const char *text, const CronError *err)
{
	size_t message = strlen(err->message);
	size_t hint = strlen(err->hint);

	return message > 0 && message < sizeof(err->message) - 1 && err->message[message - 1] != '.' &&
		   hint < sizeof(err->hint) - 1 && (hint == 0 || err->hint[hint - 1] == '.') &&
		   err->position >= 1 && err->position <= (int) strlen(text) + 1 &&
		   (err->field == 0) == (err->field_name == NULL) && err->field <= 7;
}

/* UTC */
static int32_t
no_offset(void *arg, int64_t t, int64_t *until)
{
	*until = INT64_MAX;
	return 0;
}

static void
test_random_texts(void)
{
	CalZone z = {NULL, no_offset};
	int64_t begin = CALENDAR_BEGIN;
	int accepted = 0;
	bool good = true;
	int i;

	for (i = 0; good && i < 50000; i++)
	{
		char text[256];
		CronSchedule s;
		CronError err;
		int64_t slot;

		random_text(text, sizeof(text));
		if (!cron_parse(text, &s, &err))
			good = good_error(text, &err);
		else if (s.kind != CRON_REBOOT)
			good = calendar_next(&s, &z, begin, begin, &slot) && slot > begin;
		accepted += good && err.message[0] == '\0';
		if (!good)
			printf("# text \"%s\": position %d, \"%s\", \"%s\"\n", text, err.position, err.message,
				   err.hint);
	}
	ok(good, "random texts: what is accepted has a slot, what is refused has a good message");
	printf("# %d of %d accepted\n", accepted, i);
}

int
main(void)
{
	random_begin();
	test_good_texts();
	test_bad_texts();
	test_text_length();
	test_random_texts();
	return done();
}
