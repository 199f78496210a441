/*
 * zones.h
 *	  Time zones for unit tests, and texts of times.
 *
 * Zones are read from the system's time zone files by a small reader of our own, which
 * test_calendar_random.c checks against the C library's.
 */
#ifndef DSCHED_TEST_ZONES_H
#define DSCHED_TEST_ZONES_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/calendar.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define ZONE_DIR "/usr/share/zoneinfo"
#define DAY INT64_C(86400)

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

static inline int32_t
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

static inline int32_t
offset_of(Zone *zone, int64_t t)
{
	int64_t until;

	return zone_offset_at(zone, t, &until);
}

static inline void
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

static inline int64_t
big_endian(const unsigned char *bytes, int len)
{
	uint64_t value = (bytes[0] & 0x80) ? UINT64_MAX : 0;

	while (len-- > 0)
		value = value << 8 | *bytes++;
	return (int64_t) value;
}

/* Unix time of midnight UTC. */
static inline int64_t
utc(int year, int month, int dom)
{
	struct tm tm = {0};

	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = dom;
	return timegm(&tm);
}

static inline void
posix_name(const char **p)
{
	if (**p == '<')
		*p = strchr(*p, '>') + 1;
	else
		*p += strspn(*p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
}

/* [+-]hh[:mm[:ss]] in seconds */
static inline int32_t
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
static inline int64_t
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
static inline void
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

static inline Counts
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
static inline bool
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
	"Africa/El_Aaiun",
	"Africa/Monrovia",
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

static inline Zone *
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

static inline CalZone
cal_zone(Zone *zone)
{
	CalZone z = {zone, zone_offset_at};

	return z;
}

/* "2024-03-31T01:00:00Z", also without the seconds */
static inline int64_t
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

static inline void
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

/* Read all of them; where one cannot be read there is no test. */
static inline bool
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

#endif /* DSCHED_TEST_ZONES_H */
