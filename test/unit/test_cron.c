/*
 * test_cron.c
 *	  Unit tests of the schedules: the parser (core/cron) and the slots (core/calendar).
 *
 * Three kinds of test. Tables say what a text means, or why it is refused, and which slots follow a
 * moment; they were written by hand, from the history of the zones. Random patterns are compared
 * with an oracle that knows nothing of fields, months and spans: it steps through every minute (or
 * second) around a change of a zone's offset and keeps a mark for each local time that the clock
 * has shown. Random texts must never upset the parser.
 *
 * DSCHED_SEED repeats a run of the random tests; the seed of each run is printed.
 *
 * Zones are read from the system's time zone files by a small reader of our own, which is checked
 * against the C library's.
 */
/* links: src/core/cron.c src/core/calendar.c */
#include <stdlib.h>
#include <time.h>

#include "core/calendar.h"
#include "core/cron.h"
#include "random.h"
#include "tap.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define ZONE_DIR "/usr/share/zoneinfo"
#define DAY INT64_C(86400)

/* ---------------------------------------------------------------------------------------------
 * Time zones
 */

#define MAX_CHANGES 1500

typedef struct Zone
{
	const char *name;
	int32_t first_offset;
	int nchanges;
	struct
	{
		int64_t at;
		int32_t offset;
	} changes[MAX_CHANGES];
	int calls; /* of zone_offset_at */
} Zone;

static int32_t
zone_offset_at(void *arg, int64_t t, int64_t *until)
{
	Zone *zone = (Zone *) arg;
	int low = 0;
	int high = zone->nchanges;

	zone->calls++;
	while (low < high)
	{
		int middle = (low + high) / 2;

		if (zone->changes[middle].at <= t)
			low = middle + 1;
		else
			high = middle;
	}
	*until = low < zone->nchanges ? zone->changes[low].at : INT64_MAX;
	return low == 0 ? zone->first_offset : zone->changes[low - 1].offset;
}

static int32_t
offset_of(Zone *zone, int64_t t)
{
	int64_t until;

	return zone_offset_at(zone, t, &until);
}

static void
add_change(Zone *zone, int64_t at, int32_t offset)
{
	if (zone->nchanges == MAX_CHANGES)
	{
		printf("Bail out! too many changes in zone %s\n", zone->name);
		exit(1);
	}
	zone->changes[zone->nchanges].at = at;
	zone->changes[zone->nchanges].offset = offset;
	zone->nchanges++;
}

static int64_t
big_endian(const unsigned char *bytes, int len)
{
	uint64_t value = (bytes[0] & 0x80) ? UINT64_MAX : 0;

	while (len-- > 0)
		value = value << 8 | *bytes++;
	return (int64_t) value;
}

/* Unix time of midnight UTC. */
static int64_t
utc(int year, int month, int dom)
{
	struct tm tm = {0};

	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = dom;
	return timegm(&tm);
}

static void
posix_name(const char **p)
{
	if (**p == '<')
		*p = strchr(*p, '>') + 1;
	else
		*p += strspn(*p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
}

/* [+-]hh[:mm[:ss]] in seconds */
static int32_t
posix_time(const char **p)
{
	int sign = **p == '-' ? -1 : 1;
	int32_t seconds = 0;
	int unit;
	char *end;

	if (**p == '-' || **p == '+')
		(*p)++;
	for (unit = 3600; unit > 0; unit /= 60)
	{
		seconds += (int32_t) strtol(*p, &end, 10) * unit;
		*p = end;
		if (**p != ':')
			break;
		(*p)++;
	}
	return sign * seconds;
}

/* ,Mm.w.d[/time]: local time of the change in a year, as if local time were UTC */
static int64_t
posix_rule(const char **p, int year)
{
	int month;
	int week;
	int dow;
	int len;
	int64_t first;
	int64_t day;

	if (sscanf(*p, ",M%d.%d.%d%n", &month, &week, &dow, &len) != 3)
	{
		printf("Bail out! cannot read the rule \"%s\"\n", *p);
		exit(1);
	}
	*p += len;
	first = utc(year, month, 1) / DAY;
	day = first + (dow - (first + 4) % 7 + 7) % 7 + (week - 1) * 7;
	while (day >= (month == 12 ? utc(year + 1, 1, 1) : utc(year, month + 1, 1)) / DAY)
		day -= 7;
	if (**p != '/')
		return day * DAY + 7200;
	(*p)++;
	return day * DAY + posix_time(p);
}

/* The changes that the footer of a file tells, after those in its table. */
static void
add_posix_changes(Zone *zone, const char *footer)
{
	int64_t last = zone->nchanges > 0 ? zone->changes[zone->nchanges - 1].at : utc(1970, 1, 1);
	int32_t standard;
	int32_t daylight;
	int year;

	posix_name(&footer);
	standard = -posix_time(&footer);
	if (*footer == '\0')
		return;
	posix_name(&footer);
	daylight = *footer == ',' ? standard + 3600 : -posix_time(&footer);
	for (year = 1970; year <= 2200; year++)
	{
		const char *rules = footer;
		int64_t to_daylight = posix_rule(&rules, year) - standard;
		int64_t to_standard = posix_rule(&rules, year) - daylight;

		if (to_daylight < to_standard && to_daylight > last)
			add_change(zone, to_daylight, daylight);
		if (to_standard > last)
			add_change(zone, to_standard, standard);
		if (to_daylight > to_standard && to_daylight > last)
			add_change(zone, to_daylight, daylight);
	}
}

typedef struct Counts
{
	int64_t isut, isstd, leap, time, type, chars;
} Counts;

static Counts
tzif_counts(const unsigned char *header)
{
	Counts c;

	c.isut = big_endian(header + 20, 4);
	c.isstd = big_endian(header + 24, 4);
	c.leap = big_endian(header + 28, 4);
	c.time = big_endian(header + 32, 4);
	c.type = big_endian(header + 36, 4);
	c.chars = big_endian(header + 40, 4);
	return c;
}

/* Read the 64-bit part of a time zone file (RFC 8536). */
static bool
zone_load(Zone *zone, const char *name)
{
	static unsigned char data[65536];
	char path[256];
	char footer[128] = "";
	FILE *file;
	size_t size;
	Counts c;
	const unsigned char *at = data + 44;
	const unsigned char *kinds;
	const unsigned char *types;
	int i;

	memset(zone, 0, sizeof(*zone));
	zone->name = name;
	snprintf(path, sizeof(path), "%s/%s", ZONE_DIR, name);
	file = fopen(path, "rb");
	if (file == NULL)
		return false;
	size = fread(data, 1, sizeof(data) - 1, file);
	fclose(file);
	data[size] = '\0';
	if (size < 88 || memcmp(data, "TZif", 4) != 0 || data[4] < '2')
		return false;

	c = tzif_counts(data);
	at += c.time * 5 + c.type * 6 + c.chars + c.leap * 8 + c.isstd + c.isut;
	c = tzif_counts(at);
	at += 44;
	kinds = at + c.time * 8;
	types = kinds + c.time;
	zone->first_offset = (int32_t) big_endian(types, 4);
	for (i = 0; i < c.time; i++)
		add_change(zone, big_endian(at + i * 8, 8), (int32_t) big_endian(types + kinds[i] * 6, 4));
	at = types + c.type * 6 + c.chars + c.leap * 12 + c.isstd + c.isut;
	sscanf((const char *) at, "\n%127[^\n]", footer);
	if (footer[0] != '\0')
		add_posix_changes(zone, footer);
	return true;
}

static const char *const zone_names[] = {
	"UTC",
	"Europe/Berlin",
	"Europe/Dublin",
	"America/New_York",
	"America/St_Johns",
	"America/Sao_Paulo",
	"America/Caracas",
	"America/Scoresbysund",
	"Africa/Cairo",
	"Africa/Casablanca",
	"Antarctica/Casey",
	"Antarctica/Troll",
	"Asia/Beirut",
	"Asia/Gaza",
	"Asia/Kathmandu",
	"Asia/Manila",
	"Asia/Pyongyang",
	"Asia/Tehran",
	"Australia/Lord_Howe",
	"Pacific/Apia",
	"Pacific/Chatham",
	"Pacific/Kwajalein",
};

static Zone zones[lengthof(zone_names)];

static Zone *
find_zone(const char *name)
{
	int i;

	for (i = 0; i < lengthof(zones); i++)
	{
		if (strcmp(zone_names[i], name) == 0)
			return &zones[i];
	}
	printf("Bail out! no zone %s in the list\n", name);
	exit(1);
}

static CalZone
cal_zone(Zone *zone)
{
	CalZone z = {zone, zone_offset_at};

	return z;
}

/* ---------------------------------------------------------------------------------------------
 * Chance, and texts of times
 */

static bool
one_in(int n)
{
	return random_between(1, n) == 1;
}

/* "2024-03-31T01:00:00Z", also without the seconds */
static int64_t
from_iso(const char *text)
{
	int year, month, dom, hour, minute, second = 0;

	if (sscanf(text, "%d-%d-%dT%d:%d:%d", &year, &month, &dom, &hour, &minute, &second) < 5)
	{
		printf("Bail out! not a time: %s\n", text);
		exit(1);
	}
	return utc(year, month, dom) + hour * 3600 + minute * 60 + second;
}

static void
append_iso(char *buf, size_t size, int64_t t)
{
	time_t time = (time_t) t;
	struct tm tm;
	size_t len = strlen(buf);

	gmtime_r(&time, &tm);
	snprintf(buf + len, size - len, "%s%04d-%02d-%02dT%02d:%02d", len > 0 ? " " : "",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min);
	len = strlen(buf);
	if (tm.tm_sec != 0)
		snprintf(buf + len, size - len, ":%02d", tm.tm_sec);
}

static int64_t
milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
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
		append_set(buf, size, s->doms, 1, 31);
		append_set(buf, size, s->months, 1, 12);
		append_set(buf, size, s->dows, 0, 6);
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
	{"? ? ? ? ?", "0 * * * * * and elapsed"},
	{"* * * * * *", "* * * * * * and elapsed"},
	{"0 3 * * *", "0 0 3 * * * and wall"},
	{" \t0\t3  * * *\n", "0 0 3 * * * and wall"},
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
	{"0 0 */2 * MON", "0 0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1 and wall"},
	{"0 0 1 * */2", "0 0 0 1 * 0,2,4,6 and wall"},
	{"0 0 1-31 * MON", "0 0 0 * * 1 or wall"},
	{"0 0 1,* * MON", "0 0 0 * * 1 or wall"},
	{"0 0 12 * * ?", "0 0 12 * * * and wall"},
	{"@yearly", "0 0 0 1 1 * and wall"},
	{"@annually", "0 0 0 1 1 * and wall"},
	{"@monthly", "0 0 0 1 * * and wall"},
	{"@weekly", "0 0 0 * * 0 and wall"},
	{"@daily", "0 0 0 * * * and wall"},
	{"@Midnight", "0 0 0 * * * and wall"},
	{" @HOURLY ", "0 0 * * * * and elapsed"},
	{"@reboot", "reboot"},
	{"@every 1h30m", "5400 s"},
	{"@every 90s", "90 s"},
	{"@Every 1d2h3m4s", "93784 s"},
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
	{"* * * *", 0, NULL, 8, "expected 5 or 6 fields, found 4", "The fields are minute, hour"},
	{"0", 0, NULL, 2, "expected 5 or 6 fields, found 1", NULL},
	{"0 0 12 * * ? 2026", 0, NULL, 14, "expected 5 or 6 fields, found 7", "year is not supported"},
	{"1, 2, 3 * * * * *", 0, NULL, 15, "expected 5 or 6 fields, found 8", "without spaces"},
	{"* * * * * * * * * * *", 0, NULL, 13, "expected 5 or 6 fields, found 11", NULL},
	{"5m", 0, NULL, 3, "expected 5 or 6 fields, found 1", "\"5 minutes\" or \"@every 5m\""},
	{"every 5 minutes", 0, NULL, 16, "expected 5 or 6 fields, found 3", "\"@every 5m\""},
	{"daily", 0, NULL, 6, "expected 5 or 6 fields, found 1", "\"@daily\""},

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
	{"1.5 * * * *", 1, "minute", 2, "unexpected text \".5\" in minute \"1.5\"", ""},
	{"*5 * * * *", 1, "minute", 2, "unexpected text \"5\" in minute \"*5\"", ""},
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
	 "day of week value \"MO\" is neither a number 0-7 nor a name SUN-SAT", ""},
	{"0 0 MON * *", 3, "day of month", 5, "day of month value \"MON\" is not a number 1-31", ""},
	{"0 5 * * * root", 6, "day of week", 11,
	 "day of week value \"root\" is neither a number 0-7 nor a name SUN-SAT", "With 6 fields"},
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
	{"/5 * * * *", 1, "minute", 1, "minute value \"/5\" is not a number 0-59", ""},
	{"5-1 * * * *", 1, "minute", 1, "minute range \"5-1\" runs backwards", "\"5-59,0-1\""},
	{"0 0 25-5 * *", 3, "day of month", 5, "day of month range \"25-5\" runs backwards",
	 "\"25-31,1-5\""},
	{"0 0 * * FRI-MON", 5, "day of week", 9, "day of week range \"FRI-MON\" runs backwards",
	 "\"5-6,0-1\""},
	{"0 0 * * 5-0", 5, "day of week", 9, "day of week range \"5-0\" runs backwards", "\"5-7\""},
	{"0 0 * * 7-2", 5, "day of week", 9, "day of week range \"7-2\" runs backwards", "\"0-2\""},

	{"0 0 L * *", 3, "day of month", 5, "\"L\" in day of month \"L\" is not supported", NULL},
	{"0 0 LW * *", 3, "day of month", 5, "\"L\" in day of month \"LW\" is not supported", NULL},
	{"0 0 L-3 * *", 3, "day of month", 5, "\"L\" in day of month \"L-3\" is not supported", NULL},
	{"0 0 1,15W * *", 3, "day of month", 9, "\"W\" in day of month \"15W\" is not supported", NULL},
	{"0 0 $ * *", 3, "day of month", 5, "\"$\" in day of month \"$\" is not supported", NULL},
	{"0 0 * * FRI#2", 5, "day of week", 12, "\"#\" in day of week \"FRI#2\" is not supported",
	 NULL},
	{"0 0 * * 5L", 5, "day of week", 10, "\"L\" in day of week \"5L\" is not supported", NULL},
	{"0 0 * * friL", 5, "day of week", 12, "\"L\" in day of week \"friL\" is not supported", NULL},
	{"0 0 1 * +MON", 5, "day of week", 9, "\"+\" in day of week \"+MON\" is not supported", NULL},

	{"0 0 30 2 *", 3, "day of month", 5,
	 "schedule never runs: day of month \"30\" does not occur in month \"2\"", "February"},
	{"0 0 30,31 FEB ?", 3, "day of month", 5,
	 "schedule never runs: day of month \"30,31\" does not occur in month \"FEB\"", NULL},
	{"0 0 0 31 2,4,6,9,11 *", 4, "day of month", 7,
	 "schedule never runs: day of month \"31\" does not occur in month \"2,4,6,9,11\"", NULL},
	{"0 0 31 4 */2", 3, "day of month", 5,
	 "schedule never runs: day of month \"31\" does not occur in month \"4\"", NULL},

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
	{"2 months", 0, NULL, 3, "unknown unit \"months\" of an interval", "Units are"},
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
 * Slots, from tables. All times are UTC.
 */

static const struct
{
	const char *what;
	const char *schedule;
	const char *zone;
	const char *after;
	const char *slots; /* "none": and no more */
} slot_tests[] = {
	{"strictly after", "0 0 * * *", "UTC", "2024-01-01T00:00", "2024-01-02T00:00 2024-01-03T00:00"},
	{"a second before", "0 0 * * *", "UTC", "2023-12-31T23:59:59", "2024-01-01T00:00"},
	{"seconds", "*/20 * * * * *", "UTC", "2024-01-01T00:00:05",
	 "2024-01-01T00:00:20 2024-01-01T00:00:40 2024-01-01T00:01"},
	{"carry over everything", "59 59 23 31 12 *", "UTC", "2024-12-31T23:59:59",
	 "2025-12-31T23:59:59"},
	{"short months are skipped", "0 0 31 * *", "UTC", "2024-01-31T00:00",
	 "2024-03-31T00:00 2024-05-31T00:00 2024-07-31T00:00 2024-08-31T00:00"},
	{"either day of month or weekday", "0 0 13 * FRI", "UTC", "2024-09-01T00:00",
	 "2024-09-06T00:00 2024-09-13T00:00 2024-09-20T00:00 2024-09-27T00:00 2024-10-04T00:00 "
	 "2024-10-11T00:00 2024-10-13T00:00"},
	{"both, as the weekday begins with a star", "0 0 13 * */5", "UTC", "2024-09-01T00:00",
	 "2024-09-13T00:00 2024-10-13T00:00 2024-12-13T00:00"},
	{"leap days", "0 0 29 2 *", "UTC", "2024-02-29T00:00", "2028-02-29T00:00 2032-02-29T00:00"},
	{"no leap day in 2100", "0 0 29 2 *", "UTC", "2096-02-29T00:00", "2104-02-29T00:00"},
	{"a leap day in 2000", "0 0 29 2 *", "UTC", "1996-02-29T00:00", "2000-02-29T00:00"},
	{"leap days on Sunday: 28 and 40 years", "0 0 29 2 */7", "UTC", "2024-02-29T00:00",
	 "2032-02-29T00:00 2060-02-29T00:00 2088-02-29T00:00 2128-02-29T00:00 2156-02-29T00:00 "
	 "2184-02-29T00:00 none"},
	{"leap days on Sunday, with daylight saving", "0 0 29 2 */7", "Europe/Berlin",
	 "2088-03-01T00:00", "2128-02-28T23:00"},
	{"the calendar ends", "0 0 1 1 *", "UTC", "2197-06-01T00:00",
	 "2198-01-01T00:00 2199-01-01T00:00 none"},
	{"long ago", "0 12 1 3 *", "UTC", "1895-06-01T00:00",
	 "1896-03-01T12:00 1897-03-01T12:00 1898-03-01T12:00"},
	{"an odd offset", "0 9 * * 1-5", "Asia/Kathmandu", "2024-01-05T12:00",
	 "2024-01-08T03:15 2024-01-09T03:15"},

	{"gap", "30 2 * * *", "Europe/Berlin", "2024-03-30T00:00",
	 "2024-03-30T01:30 2024-03-31T01:00 2024-04-01T00:30"},
	{"gap, from its last second", "30 2 * * *", "Europe/Berlin", "2024-03-31T00:59:59",
	 "2024-03-31T01:00 2024-04-01T00:30"},
	{"gap, from its end", "30 2 * * *", "Europe/Berlin", "2024-03-31T01:00", "2024-04-01T00:30"},
	{"gap: several slots are one", "0,15,30 2 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-04-01T00:00 2024-04-01T00:15"},
	{"gap: one with a slot at its end", "0,30 2,3 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-03-31T01:30 2024-04-01T00:00"},
	{"gap: a slot at its end only", "0 3 * * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-04-01T01:00"},
	{"gap: not on this date", "30 2 1 * *", "Europe/Berlin", "2024-03-30T12:00",
	 "2024-04-01T00:30"},
	{"gap, elapsed: every hour", "30 * * * *", "Europe/Berlin", "2024-03-31T00:00",
	 "2024-03-31T00:30 2024-03-31T01:30 2024-03-31T02:30"},
	{"gap, elapsed: every other hour", "0 */2 * * *", "Europe/Berlin", "2024-03-30T22:30",
	 "2024-03-30T23:00 2024-03-31T02:00 2024-03-31T04:00"},
	{"overlap", "30 2 * * *", "Europe/Berlin", "2024-10-26T12:00",
	 "2024-10-27T00:30 2024-10-28T01:30"},
	{"overlap, between the two", "30 2 * * *", "Europe/Berlin", "2024-10-27T00:45",
	 "2024-10-28T01:30"},
	{"overlap, from its start", "0 2,3 * * *", "Europe/Berlin", "2024-10-26T12:00",
	 "2024-10-27T00:00 2024-10-27T02:00 2024-10-28T01:00"},
	{"overlap, elapsed: every hour", "30 * * * *", "Europe/Berlin", "2024-10-27T00:00",
	 "2024-10-27T00:30 2024-10-27T01:30 2024-10-27T02:30"},
	{"overlap, elapsed: every other hour", "0 */2 * * *", "Europe/Berlin", "2024-10-26T22:30",
	 "2024-10-27T00:00 2024-10-27T01:00 2024-10-27T03:00"},
	{"overlap, elapsed: all hours as a range", "30 0-23 * * *", "Europe/Berlin", "2024-10-27T00:00",
	 "2024-10-27T00:30 2024-10-27T01:30"},

	{"half an hour's gap", "15 2 * * *", "Australia/Lord_Howe", "2024-10-05T00:00",
	 "2024-10-05T15:30 2024-10-06T15:15"},
	{"half an hour's overlap", "45 1 * * *", "Australia/Lord_Howe", "2024-04-06T00:00",
	 "2024-04-06T14:45 2024-04-07T15:15"},
	{"half an hour's overlap, elapsed", "45 * * * *", "Australia/Lord_Howe", "2024-04-06T14:00",
	 "2024-04-06T14:45 2024-04-06T15:15 2024-04-06T16:15"},
	{"midnight in a gap", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00",
	 "2018-11-04T03:00 2018-11-05T02:00"},
	{"midnight in a gap, @daily", "@daily", "Asia/Beirut", "2024-03-30T12:00",
	 "2024-03-30T22:00 2024-03-31T21:00"},
	{"midnight in a gap, by weekday", "30 0 * * SUN", "America/Sao_Paulo", "2018-11-03T12:00",
	 "2018-11-04T03:00 2018-11-11T02:30"},
	{"midnight ends an overlap", "0 0 * * *", "America/Sao_Paulo", "2018-02-17T12:00",
	 "2018-02-18T03:00 2018-02-19T03:00"},
	{"the hour before midnight twice", "30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00",
	 "2018-02-18T01:30 2018-02-19T02:30"},
	{"a day skipped", "0 10 * * *", "Pacific/Apia", "2011-12-29T00:00",
	 "2011-12-29T20:00 2011-12-30T10:00 2011-12-30T20:00 2011-12-31T20:00"},
	{"a day skipped, that date only", "0 10 30 12 *", "Pacific/Apia", "2011-12-01T00:00",
	 "2011-12-30T10:00 2012-12-29T20:00"},
	{"a day skipped, elapsed", "0 */6 30 12 *", "Pacific/Apia", "2011-12-01T00:00",
	 "2012-12-29T10:00 2012-12-29T16:00"},
	{"most of a day twice", "0 12 * * *", "Pacific/Kwajalein", "1969-09-29T12:00",
	 "1969-09-30T01:00 1969-10-02T00:00"},
	{"two hours' gap", "15,45 1,2 * * *", "Antarctica/Troll", "2024-03-30T12:00",
	 "2024-03-31T01:00 2024-03-31T23:15"},
	{"two hours' overlap", "30 1,2 * * *", "Antarctica/Troll", "2024-10-26T12:00",
	 "2024-10-26T23:30 2024-10-27T00:30 2024-10-28T01:30"},
	{"an offset goes up for good", "45 23 * * *", "Asia/Pyongyang", "2018-05-04T00:00",
	 "2018-05-04T15:00 2018-05-05T14:45"},
	{"an offset goes down for good", "45 23 * * *", "Asia/Pyongyang", "2015-08-14T00:00",
	 "2015-08-14T14:45 2015-08-15T15:15"},
	{"Caracas 2016", "45 2 * * *", "America/Caracas", "2016-05-01T00:00",
	 "2016-05-01T07:00 2016-05-02T06:45"},
	{"from local mean time", "0 0 * * *", "Europe/Berlin", "1893-03-31T12:00",
	 "1893-03-31T23:06:32 1893-04-01T23:00"},
};

static void
test_slots(void)
{
	int i;

	for (i = 0; i < lengthof(slot_tests); i++)
	{
		Zone *zone = find_zone(slot_tests[i].zone);
		CalZone z = cal_zone(zone);
		int64_t t = from_iso(slot_tests[i].after);
		size_t want_len = strlen(slot_tests[i].slots);
		char got[512] = "";
		CronSchedule s;
		CronError err;

		if (!cron_parse(slot_tests[i].schedule, &s, &err))
			snprintf(got, sizeof(got), "%s", err.message);
		while (strlen(got) < want_len)
		{
			if (!calendar_next(&s, &z, 0, t, &t))
			{
				strcat(got, got[0] ? " none" : "none");
				break;
			}
			append_iso(got, sizeof(got), t);
		}
		is_str(got, slot_tests[i].slots, "%s: \"%s\" in %s", slot_tests[i].what,
			   slot_tests[i].schedule, zone->name);
	}
}

/* The slots up to 'end', relative to 'base', in minutes. */
static void
minutes_of_slots(const char *schedule, Zone *zone, int64_t base, int64_t after, int64_t end,
				 char *buf, size_t size)
{
	CalZone z = cal_zone(zone);
	CronSchedule s;
	CronError err;
	int64_t t = after;

	buf[0] = '\0';
	if (!cron_parse(schedule, &s, &err))
		return;
	while (strlen(buf) + 32 < size && calendar_next(&s, &z, 0, t, &t) && t <= end)
	{
		size_t len = strlen(buf);

		snprintf(buf + len, size - len, "%s%" PRId64, len > 0 ? " " : "", (t - base) / 60);
	}
}

/* Zones as no government has made them yet. */
static void
test_odd_zones(void)
{
	int64_t base = utc(2030, 1, 10);
	static Zone zone;
	char got[512];

	/* Back an hour from 01:00, ten minutes later forward two, to 02:10. */
	zone.name = "odd";
	zone.first_offset = 3600;
	add_change(&zone, base, 0);
	add_change(&zone, base + 600, 7200);
	minutes_of_slots("0,5,30 0-2 * * *", &zone, base, base - 3601, base + 7200, got, sizeof(got));
	is_str(got, "-60 -55 -30 10 30", "an overlap that ends in a gap, wall clock");
	minutes_of_slots("0,5,30 * * * *", &zone, base, base - 3601, base + 3600, got, sizeof(got));
	is_str(got, "-60 -55 -30 0 5 30 60", "an overlap that ends in a gap, elapsed");

	/* Back an hour twice within it: 01:00 to 00:00, and 00:30 to 23:30. */
	zone.nchanges = 0;
	add_change(&zone, base, 0);
	add_change(&zone, base + 1800, -3600);
	minutes_of_slots("0,45 0,1,23 * * *", &zone, base, base - 3600, base + 9000, got, sizeof(got));
	is_str(got, "-15 120", "an overlap within an overlap");

	/* Back from the largest offset that a file can have to nearly the smallest: two days. */
	zone.nchanges = 0;
	zone.first_offset = 93540;
	add_change(&zone, base, -89940);
	minutes_of_slots("30 1 * * *", &zone, base, base + 50 * 3600, base + 80 * 3600, got,
					 sizeof(got));
	is_str(got, "4469", "an overlap of two days");
	zone.first_offset = 3600;

	/* Changes that change nothing. */
	zone.nchanges = 0;
	add_change(&zone, base, 3600);
	add_change(&zone, base + 60, 3600);
	minutes_of_slots("*/30 0-2 * * *", &zone, base, base - 1, base + 3600, got, sizeof(got));
	is_str(got, "0 30 60", "changes of rule without a change of offset");
}

/* A zone that breaks its promise must not hang the server. */
static int32_t
broken_offset_at(void *arg, int64_t t, int64_t *until)
{
	(void) arg;
	*until = t;
	return 0;
}

static void
test_bounds(void)
{
	CalZone broken = {NULL, broken_offset_at};
	Zone *berlin = find_zone("Europe/Berlin");
	CalZone z = cal_zone(berlin);
	CronSchedule s;
	CronError err;
	int64_t slot;

	cron_parse("0 0 * * *", &s, &err);
	ok(!calendar_next(&s, &broken, 0, 0, &slot), "a zone whose rules never end");
	ok(!calendar_next(&s, &z, 0, INT64_MAX, &slot), "nothing after the end of time");
	ok(!calendar_next(&s, &z, 0, CALENDAR_END - 1, &slot), "nothing after the end of the calendar");
	ok(calendar_next(&s, &z, 0, INT64_MIN, &slot) && slot >= CALENDAR_BEGIN, "the first slot ever");
	ok(!calendar_nth(&s, &z, 0, 0, 0, &slot), "there is no slot number 0");
	ok(!calendar_nth(&s, &z, 0, 0, INT64_MAX, &slot), "nor one number INT64_MAX");

	cron_parse("0 0 29 2 */7", &s, &err);
	berlin->calls = 0;
	ok(calendar_next(&s, &z, 0, from_iso("2088-03-01T00:00"), &slot) && berlin->calls <= 100,
	   "40 years ask for the offset %d times", berlin->calls);
	memset(&s, 0, sizeof(s));
	ok(!calendar_next(&s, &z, 0, 0, &slot), "no slot of empty sets");
	cron_parse("@reboot", &s, &err);
	ok(!calendar_next(&s, &z, 0, 0, &slot), "no slot for @reboot");
}

static void
test_intervals(void)
{
	CronSchedule s;
	CronError err;
	int64_t slot = 0;

	cron_parse("30 seconds", &s, &err);
	ok(calendar_next(&s, NULL, 1000, 0, &slot), "an interval before its anchor");
	is_int(slot, 1030, "begins one interval after the anchor");
	ok(calendar_next(&s, NULL, 1000, 1000, &slot), "an interval at its anchor");
	is_int(slot, 1030, "begins one interval after it");
	calendar_next(&s, NULL, 1000, 1029, &slot);
	is_int(slot, 1030, "a second before");
	calendar_next(&s, NULL, 1000, 1030, &slot);
	is_int(slot, 1060, "strictly after");
	calendar_next(&s, NULL, -1000, -985, &slot);
	is_int(slot, -970, "before 1970");
	calendar_nth(&s, NULL, 1000, 1031, 1000000, &slot);
	is_int(slot, 1030 + 30000000, "the millionth");
	ok(!calendar_nth(&s, NULL, 1000, 1031, INT64_MAX, &slot), "there is a last one");
	ok(!calendar_next(&s, NULL, INT64_MIN, 0, &slot), "an anchor before all time");
	ok(!calendar_next(&s, NULL, INT64_MAX, 0, &slot), "an anchor after all time");
	ok(calendar_next(&s, NULL, 0, CALENDAR_END - 31, &slot), "the last slot of the calendar");
	is_int(slot, CALENDAR_END - 30, "is before its end");
	ok(!calendar_next(&s, NULL, 0, CALENDAR_END - 30, &slot), "and is the last");
}

static void
test_far_slots(void)
{
	int64_t start = from_iso("2024-01-01T00:00");
	CalZone z = cal_zone(find_zone("Europe/Berlin"));
	CronSchedule s;
	CronError err;
	int64_t slot = 0;
	int64_t t = start;
	int64_t began = milliseconds();
	int i;

	cron_parse("* * * * * *", &s, &err);
	ok(calendar_nth(&s, &z, 0, start, INT64_C(5000000000), &slot),
	   "slot 5000000000 of every second");
	is_int(slot, start + INT64_C(5000000000), "is that many seconds away, over all changes");
	ok(milliseconds() - began < 1000, "and was not counted one by one");

	cron_parse("0,30 2,3 * * *", &s, &err);
	for (i = 1; i <= 2000 && calendar_next(&s, &z, 0, t, &t); i++)
	{
		if (!calendar_nth(&s, &z, 0, start, i, &slot) || slot != t)
			break;
	}
	is_int(i, 2001, "the n-th slot is n times the next");
}

/* ---------------------------------------------------------------------------------------------
 * Random patterns and the oracle
 */

/* A pattern made at random: its text, and what it allows, known from the making. */
typedef struct Pattern
{
	char text[512];
	bool allowed[6][64];
	bool starred[6];
	bool stepped[6];
	bool with_seconds;
} Pattern;

static const int field_min[6] = {0, 0, 0, 1, 1, 0};
static const int field_max[6] = {59, 59, 23, 31, 12, 6};

static void
append_value(char *text, int field, int value)
{
	static const char *const months[] = {"Jan", "feb", "MAR", "apr", "MAY", "jun",
										 "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
	static const char *const dows[] = {"SUN", "mon", "TUE", "Wed", "THU", "FRI", "sat"};

	if (field == 4 && one_in(2))
		strcat(text, months[value - 1]);
	else if (field == 5 && one_in(2))
		strcat(text, dows[value]);
	else
		sprintf(text + strlen(text), "%d", value);
}

/* Add "*", a, a-b, "*" "/n", a/n or a-b/n. */
static void
random_item(Pattern *p, int field, bool first)
{
	int min = field_min[field];
	int max = field_max[field];
	int low = (int) random_between(min, max);
	int high = (int) random_between(low, max);
	int step = 1;
	int form = (int) random_between(0, 9);
	int value;

	/* Hours about midnight are where the changes are. */
	if (field == 2 && one_in(2))
		low = (int) random_between(0, 3), high = (int) random_between(low, 4);
	if (form == 0)
	{
		strcat(p->text, one_in(2) ? "*" : "?");
		p->stepped[field] = true;
		p->starred[field] |= first;
		low = min;
		high = max;
	}
	else
	{
		append_value(p->text, field, low);
		if (form <= 5)
			high = low;
		else if (form <= 7)
		{
			strcat(p->text, "-");
			append_value(p->text, field, high);
		}
		else
			high = max;
	}
	if (form >= 8 || (form != 1 && form <= 5 ? form == 0 && one_in(2) : one_in(4) && form > 5))
	{
		step = (int) random_between(1, max);
		sprintf(p->text + strlen(p->text), "/%d", step);
		p->stepped[field] = true;
	}
	for (value = low; value <= high; value += step)
		p->allowed[field][value] = true;
}

static void
random_field(Pattern *p, int field, int star_of_ten)
{
	int items = one_in(2) ? 1 : (int) random_between(1, 4);
	int i;

	if (p->text[0] != '\0')
		strcat(p->text, " ");
	if (random_between(1, 10) <= star_of_ten)
	{
		strcat(p->text, "*");
		p->starred[field] = p->stepped[field] = true;
		memset(p->allowed[field], true, sizeof(p->allowed[field]));
		return;
	}
	for (i = 0; i < items; i++)
	{
		if (i > 0)
			strcat(p->text, ",");
		random_item(p, field, i == 0);
	}
}

static void
random_pattern(Pattern *p, bool with_seconds, bool any_day)
{
	memset(p, 0, sizeof(*p));
	p->with_seconds = with_seconds;
	if (with_seconds)
		random_field(p, 0, 1);
	else
		p->allowed[0][0] = true;
	random_field(p, 1, 3);
	random_field(p, 2, 3);
	random_field(p, 3, any_day ? 9 : 4);
	random_field(p, 4, any_day ? 10 : 4);
	random_field(p, 5, any_day ? 8 : 4);
}

static bool
day_matches(const Pattern *p, int dom, int month, int dow)
{
	bool by_dom = p->allowed[3][dom];
	bool by_dow = p->allowed[5][dow];

	if (!p->allowed[4][month])
		return false;
	if (p->starred[3] || p->starred[5])
		return by_dom && by_dow;
	return by_dom || by_dow;
}

static bool
local_matches(const Pattern *p, int64_t local)
{
	time_t time = (time_t) local;
	struct tm tm;

	int64_t second = (local % 60 + 60) % 60;
	int64_t minute = ((local - second) / 60 % 60 + 60) % 60;

	if (!p->allowed[0][second] || !p->allowed[1][minute])
		return false;
	gmtime_r(&time, &tm);
	return p->allowed[2][tm.tm_hour] && day_matches(p, tm.tm_mday, tm.tm_mon + 1, tm.tm_wday);
}

static bool
names_wall_clock(const Pattern *p)
{
	int hours = 0;
	int i;

	for (i = 0; i < 24; i++)
		hours += p->allowed[2][i];
	return !p->stepped[2] && hours < 24;
}

#define WARM_UP (4 * DAY)	  /* what the oracle watches before it answers */
#define WINDOW (60 * 3600)	  /* what it answers for */
#define SLACK (2 * 26 * 3600) /* how far offsets can move local time in between */
#define MAX_SLOTS (WINDOW + 1)

static int64_t oracle_slots[MAX_SLOTS];

/*
 * All slots in start .. start + WINDOW - 1, by walking there. 'seen' has a mark for each local time
 * that the wall clock has shown, or has skipped and made up for.
 */
static int
oracle(const Pattern *p, Zone *zone, int64_t start, int step)
{
	static bool seen[WARM_UP + WINDOW + 2 * SLACK];
	bool wall_clock = names_wall_clock(p);
	int64_t first = start - WARM_UP;
	int64_t before = first - step + offset_of(zone, first - step);
	int64_t t;
	int64_t x;
	int count = 0;

	memset(seen, 0, sizeof(seen));
	for (t = first; t < start + WINDOW; t += step)
	{
		int64_t local = t + offset_of(zone, t);
		bool fires = false;

		for (x = wall_clock && before + step < local ? before + step : local; x <= local; x += step)
		{
			bool *mark = &seen[x - first + SLACK];

			if (t >= start && !fires && !(wall_clock && *mark))
				fires = local_matches(p, x);
			*mark = true;
		}
		if (fires)
			oracle_slots[count++] = t;
		before = local;
	}
	return count;
}

/* May the oracle step by minutes here? */
static bool
whole_minutes(Zone *zone, int64_t from, int64_t to)
{
	int64_t t = from;
	int64_t until;

	while (t < to)
	{
		if (zone_offset_at(zone, t, &until) % 60 != 0 || (until < to && until % 60 != 0))
			return false;
		t = until;
	}
	return true;
}

static bool
complain(const Pattern *p, Zone *zone, int64_t after, const char *what, int64_t got, int64_t want)
{
	char text[256] = "";

	append_iso(text, sizeof(text), after);
	append_iso(text, sizeof(text), got);
	append_iso(text, sizeof(text), want);
	printf("# \"%s\" in %s, %s: after, got, want: %s\n", p->text, zone->name, what, text);
	return false;
}

/* Compare the slots of a window with the oracle's: one after another, from anywhere, and the n-th.
 */
static bool
compare_window(const Pattern *p, const CronSchedule *s, Zone *zone, int64_t start, int count)
{
	CalZone z = cal_zone(zone);
	int64_t end = start + WINDOW;
	int64_t t = start - 1;
	int64_t slot;
	int i;

	for (i = 0; i <= count && i < 3000; i++)
	{
		int64_t want = i < count ? oracle_slots[i] : end;

		if (!calendar_next(s, &z, 0, t, &slot) || slot > end)
			slot = end;
		if (slot != want)
			return complain(p, zone, t, "next", slot, want);
		t = slot;
	}
	for (i = 0; i < 10 && count > 0; i++)
	{
		int n = (int) random_between(1, count);
		int64_t low = n == 1 ? start - 1 : oracle_slots[n - 2];
		int64_t after = random_between(low, oracle_slots[n - 1] - 1);

		if (!calendar_next(s, &z, 0, after, &slot) || slot != oracle_slots[n - 1])
			return complain(p, zone, after, "next from within", slot, oracle_slots[n - 1]);
		if (!calendar_nth(s, &z, 0, start - 1, n, &slot) || slot != oracle_slots[n - 1])
			return complain(p, zone, start - 1, "n-th", slot, oracle_slots[n - 1]);
	}
	return true;
}

static bool
same_sets(const Pattern *p, const CronSchedule *s)
{
	uint64_t sets[6] = {s->seconds, s->minutes, s->hours, s->doms, s->months, s->dows};
	int field;
	int value;

	for (field = 0; field < 6; field++)
	{
		for (value = field_min[field]; value <= field_max[field]; value++)
		{
			if ((sets[field] >> value & 1) != p->allowed[field][value])
				return false;
		}
	}
	return s->dom_and_dow == (p->starred[3] || p->starred[5]) &&
		   s->wall_clock == names_wall_clock(p);
}

/* Parse a pattern and compare the sets with those it was made from. */
static bool
parse_pattern(const Pattern *p, CronSchedule *s)
{
	CronError err;

	if (!cron_parse(p->text, s, &err))
		printf("# \"%s\": %s\n", p->text, err.message);
	else if (!same_sets(p, s))
		printf("# \"%s\" was read differently\n", p->text);
	else
		return true;
	return false;
}

/* A random pattern around a random change of a random zone. */
static bool
random_window(void)
{
	Zone *zone = &zones[random_between(0, lengthof(zones) - 1)];
	int64_t middle = random_between(utc(1890, 1, 1), utc(2195, 1, 1));
	int64_t start;
	bool with_seconds = one_in(50);
	int step;
	Pattern p;
	CronSchedule s;

	if (zone->nchanges > 0 && !one_in(10))
		middle = zone->changes[random_between(0, zone->nchanges - 1)].at;
	if (middle < utc(1800, 1, 1) || middle > utc(2199, 1, 1))
		return true;
	start = middle - random_between(0, WINDOW);
	start -= (start % 60 + 60) % 60;
	random_pattern(&p, with_seconds, true);
	if (!parse_pattern(&p, &s))
		return false;
	step = !with_seconds && whole_minutes(zone, start - WARM_UP - 60, start + WINDOW) ? 60 : 1;
	return compare_window(&p, &s, zone, start, oracle(&p, zone, start, step));
}

static void
test_random_windows(int64_t for_ms)
{
	int64_t began = milliseconds();
	int windows = 0;
	bool same = true;

	while (same && milliseconds() - began < for_ms)
	{
		same = random_window();
		windows++;
	}
	ok(same, "random patterns around changes of offset agree with the oracle");
	printf("# %d windows\n", windows);
}

/* A random pattern of days over decades: each day is asked. */
static bool
random_days(void)
{
	CalZone z = cal_zone(find_zone("UTC"));
	int64_t day = utc((int) random_between(1900, 2140), 1, 1) / DAY + random_between(0, 365);
	int64_t last = day + 20000;
	int64_t after = day * DAY - 1;
	int64_t slot;
	Pattern p;
	CronSchedule s;
	CronError err;

	random_pattern(&p, false, false);
	if (!cron_parse(p.text, &s, &err))
		return strstr(err.message, "never runs") != NULL;
	s.minutes = s.hours = 1;
	for (; day < last; day++)
	{
		time_t time = (time_t) (day * DAY);
		struct tm tm;

		gmtime_r(&time, &tm);
		if (!day_matches(&p, tm.tm_mday, tm.tm_mon + 1, tm.tm_wday))
			continue;
		if (!calendar_next(&s, &z, 0, after, &slot) || slot != day * DAY)
			return complain(&p, &zones[0], after, "days", slot, day * DAY);
		after = slot;
	}
	return true;
}

static void
test_random_days(void)
{
	bool same = true;
	int i;

	for (i = 0; same && i < 60; i++)
		same = random_days();
	ok(same, "random patterns of days agree with asking each day");
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
		   (err->field == 0) == (err->field_name == NULL) && err->field <= 6;
}

static void
test_random_texts(void)
{
	CalZone z = cal_zone(find_zone("UTC"));
	int64_t now = utc(2026, 1, 1);
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
			good = calendar_next(&s, &z, now, now, &slot) && slot > now;
		accepted += good && err.message[0] == '\0';
		if (!good)
			printf("# text \"%s\": position %d, \"%s\", \"%s\"\n", text, err.position, err.message,
				   err.hint);
	}
	ok(good, "random texts: what is accepted has a slot, what is refused has a good message");
	printf("# %d of %d accepted\n", accepted, i);
}

/* ---------------------------------------------------------------------------------------------
 * The whole
 */

/* Is our reading of the zone files that of the C library? */
static void
test_zone_reader(void)
{
	int i;
	int j;

	for (i = 0; i < lengthof(zones); i++)
	{
		bool same = true;

		setenv("TZ", zone_names[i], 1);
		tzset();
		for (j = 0; same && j < 300; j++)
		{
			time_t t = (time_t) random_between(utc(1901, 12, 15), utc(2195, 1, 1));
			struct tm tm;

			if (zones[i].nchanges > 0 && one_in(2))
				t = (time_t) zones[i].changes[random_between(0, zones[i].nchanges - 1)].at +
					random_between(-2, 2);
			if (t < utc(1901, 12, 15))
				continue;
			localtime_r(&t, &tm);
			same = tm.tm_gmtoff == offset_of(&zones[i], t);
		}
		ok(same, "offsets of %s are the C library's", zone_names[i]);
	}
	unsetenv("TZ");
	tzset();
}

static bool
load_zones(void)
{
	int i;

	for (i = 0; i < lengthof(zones); i++)
	{
		if (!zone_load(&zones[i], zone_names[i]))
		{
			printf("Bail out! cannot read zone %s in %s\n", zone_names[i], ZONE_DIR);
			return false;
		}
	}
	return true;
}

int
main(void)
{
	random_begin();
	if (!load_zones())
		return 1;
	test_zone_reader();
	test_good_texts();
	test_bad_texts();
	test_text_length();
	test_slots();
	test_odd_zones();
	test_bounds();
	test_intervals();
	test_far_slots();
	test_random_days();
	test_random_texts();
	test_random_windows(3000);
	return done();
}
