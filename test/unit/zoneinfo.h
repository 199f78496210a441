/*
 * zoneinfo.h
 *	  Time zones for unit tests, without the server: a reader of TZif files (RFC 8536).
 *
 * It reads the 64-bit part of a file and, for the time after the last change that is listed, the
 * POSIX rule at its end. TZDIR in the environment names another directory than
 * /usr/share/zoneinfo.
 */
#ifndef DSCHED_TEST_ZONEINFO_H
#define DSCHED_TEST_ZONEINFO_H

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/calendar.h"

#define ZONE_MAX_CHANGES 2048
#define ZONE_DAY INT64_C(86400)

/* The day of a rule's change: Mm.w.d, Jn or n, and the second of that day on the clock until then. */
typedef struct ZoneRuleDay
{
	char kind; /* 'M', 'J' or '0' */
	int month, week, day;
	int seconds;
} ZoneRuleDay;

typedef struct Zone
{
	char name[64];
	int changes;
	int64_t at[ZONE_MAX_CHANGES];
	int32_t offset[ZONE_MAX_CHANGES + 1]; /* [n]: before at[n], and since at[n - 1] */
	bool has_dst_rule;
	int32_t rule_std, rule_dst;
	ZoneRuleDay to_dst, to_std;
	int64_t chop; /* if not 0, "until" is told no further than to its next multiple */
} Zone;

static inline int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

/* Days since 1970-01-01 of a day of the proleptic Gregorian calendar: counted, not derived. */
static inline bool
is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static inline int
days_in_month(int64_t year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

static inline int64_t
days_before_year(int64_t year)
{
	int64_t past = year - 1;

	return past * 365 + floor_div(past, 4) - floor_div(past, 100) + floor_div(past, 400) -
		   INT64_C(719162);
}

static inline void
date_of(int64_t day, int64_t *year, int *month, int *dom)
{
	int64_t y = 1970 + floor_div(day, 366);
	int m = 1;

	while (days_before_year(y + 1) <= day)
		y++;
	while (days_before_year(y) > day)
		y--;
	day -= days_before_year(y);
	while (day >= days_in_month(y, m))
		day -= days_in_month(y, m++);
	*year = y;
	*month = m;
	*dom = (int) day + 1;
}

static inline int
weekday_of(int64_t day)
{
	return (int) (((day + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
}

/* The moment of a rule's change in a year; the clock is 'offset' ahead of UTC until then. */
static inline int64_t
rule_change(const ZoneRuleDay *rule, int64_t year, int32_t offset)
{
	int64_t day = days_before_year(year);

	if (rule->kind == 'M')
	{
		int64_t first = day;
		int dom, m;

		for (m = 1; m < rule->month; m++)
			first += days_in_month(year, m);
		dom = 1 + (rule->day - weekday_of(first) + 7) % 7 + (rule->week - 1) * 7;
		while (dom > days_in_month(year, rule->month))
			dom -= 7;
		day = first + dom - 1;
	}
	else if (rule->kind == 'J')
		day += rule->day - 1 + (is_leap(year) && rule->day >= 60 ? 1 : 0);
	else
		day += rule->day;
	return day * ZONE_DAY + rule->seconds - offset;
}

/* The offset at t by the rule alone, and when it next changes. */
static inline int32_t
rule_offset_at(const Zone *zone, int64_t t, int64_t *until)
{
	int64_t year, y, latest = INT64_MIN;
	int month, dom;
	int32_t offset = zone->rule_std;

	*until = INT64_MAX;
	if (!zone->has_dst_rule)
		return offset;
	date_of(floor_div(t, ZONE_DAY), &year, &month, &dom);
	for (y = year - 1; y <= year + 1; y++)
	{
		int64_t change[2];
		int32_t since[2] = {zone->rule_dst, zone->rule_std};
		int i;

		change[0] = rule_change(&zone->to_dst, y, zone->rule_std);
		change[1] = rule_change(&zone->to_std, y, zone->rule_dst);
		for (i = 0; i < 2; i++)
		{
			if (change[i] > t && change[i] < *until)
				*until = change[i];
			if (change[i] <= t && change[i] > latest)
			{
				latest = change[i];
				offset = since[i];
			}
		}
	}
	return offset;
}

/* CalZone.offset_at */
static int32_t
zone_offset_at(void *arg, int64_t t, int64_t *until)
{
	const Zone *zone = arg;
	int low = 0, high = zone->changes; /* the changes up to 'low' are past */
	int32_t offset;

	while (low < high)
	{
		int middle = (low + high) / 2;

		if (zone->at[middle] <= t)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < zone->changes)
	{
		*until = zone->at[low];
		offset = zone->offset[low];
	}
	else
		offset = rule_offset_at(zone, t, until);
	if (zone->chop != 0)
	{
		int64_t next = (floor_div(t, zone->chop) + 1) * zone->chop;

		if (next < *until)
			*until = next;
	}
	return offset;
}

static inline int64_t
big_endian(const unsigned char *p, int bytes)
{
	uint64_t value = 0;
	int i;

	for (i = 0; i < bytes; i++)
		value = value << 8 | p[i];
	if (bytes == 4)
		return (int32_t) (uint32_t) value;
	return (int64_t) value;
}

/* [+-]h[h[h]][:mm[:ss]] */
static inline int
rule_time(const char **p)
{
	int sign = 1, seconds = 0, unit;

	if (**p == '+' || **p == '-')
		sign = *(*p)++ == '-' ? -1 : 1;
	for (unit = 3600; unit > 0; unit /= 60)
	{
		seconds += (int) strtol(*p, (char **) p, 10) * unit;
		if (**p != ':')
			break;
		(*p)++;
	}
	return sign * seconds;
}

static inline void
rule_name(const char **p)
{
	if (**p == '<')
		*p = strchr(*p, '>') + 1;
	else
		while (isalpha((unsigned char) **p))
			(*p)++;
}

static inline ZoneRuleDay
rule_day(const char **p)
{
	ZoneRuleDay rule = {'0', 0, 0, 0, 7200};

	if (**p == 'M' || **p == 'J')
		rule.kind = *(*p)++;
	rule.day = (int) strtol(*p, (char **) p, 10);
	if (rule.kind == 'M')
	{
		rule.month = rule.day;
		(*p)++;
		rule.week = (int) strtol(*p, (char **) p, 10);
		(*p)++;
		rule.day = (int) strtol(*p, (char **) p, 10);
	}
	if (**p == '/')
	{
		(*p)++;
		rule.seconds = rule_time(p);
	}
	return rule;
}

/* CET-1CEST,M3.5.0,M10.5.0/3: the signs are the other way round than ours. */
static inline void
zone_read_rule(Zone *zone, const char *p)
{
	rule_name(&p);
	zone->rule_std = -rule_time(&p);
	zone->has_dst_rule = *p != '\0';
	if (!zone->has_dst_rule)
		return;
	rule_name(&p);
	zone->rule_dst = zone->rule_std + 3600;
	if (*p != ',')
		zone->rule_dst = -rule_time(&p);
	p++;
	zone->to_dst = rule_day(&p);
	p++;
	zone->to_std = rule_day(&p);
}

static inline size_t
zone_block_size(const unsigned char *header, int bytes)
{
	int64_t isutc = big_endian(header + 20, 4), isstd = big_endian(header + 24, 4),
			leap = big_endian(header + 28, 4), times = big_endian(header + 32, 4),
			types = big_endian(header + 36, 4), chars = big_endian(header + 40, 4);

	return (size_t) (times * bytes + times + types * 6 + chars + leap * (bytes + 4) + isstd + isutc);
}

/* From the content of a file, that ends with a NUL: false if it is not one that we read. */
static inline bool
zone_read(Zone *zone, unsigned char *data, size_t size)
{
	unsigned char *header, *body, *types;
	int64_t times;
	size_t skip;
	char *rule, *end;
	int i;

	if (size < 88 || memcmp(data, "TZif", 4) != 0 || data[4] < '2')
		return false;
	skip = 44 + zone_block_size(data, 4);
	header = data + skip;
	body = header + 44;
	if (skip + 44 > size || skip + 44 + zone_block_size(header, 8) + 2 > size)
		return false;
	times = big_endian(header + 32, 4);
	if (times > ZONE_MAX_CHANGES || big_endian(header + 28, 4) != 0)
		return false;
	types = body + times * 9;
	zone->offset[0] = (int32_t) big_endian(types, 4);
	zone->changes = (int) times;
	for (i = 0; i < times; i++)
	{
		zone->at[i] = big_endian(body + i * 8, 8);
		zone->offset[i + 1] = (int32_t) big_endian(types + body[times * 8 + i] * 6, 4);
	}
	rule = (char *) body + zone_block_size(header, 8) + 1;
	end = strchr(rule, '\n');
	if (end == NULL)
		return false;
	*end = '\0';
	if (*rule != '\0')
		zone_read_rule(zone, rule);
	else
		zone->rule_std = zone->offset[times];
	return true;
}

static inline const char *
zone_directory(void)
{
	const char *dir = getenv("TZDIR");

	return dir != NULL ? dir : "/usr/share/zoneinfo";
}

/* Reads the zone of this name; false if there is none. */
static inline bool
zone_load(Zone *zone, const char *name)
{
	static unsigned char data[65536];
	char path[512];
	size_t size;
	FILE *file;

	memset(zone, 0, sizeof(*zone));
	snprintf(zone->name, sizeof(zone->name), "%.63s", name);
	snprintf(path, sizeof(path), "%s/%s", zone_directory(), name);
	file = fopen(path, "rb");
	if (file == NULL)
		return false;
	size = fread(data, 1, sizeof(data) - 1, file);
	fclose(file);
	data[size] = '\0';
	return zone_read(zone, data, size);
}

/* The names of all zones, "" below the directory; as many as fit. Returns how many there are now. */
static inline int
zone_names(const char *below, char (*names)[64], int count, int max)
{
	char path[512];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%s", zone_directory(), below);
	dir = opendir(path);
	if (dir == NULL)
		return count;
	while ((entry = readdir(dir)) != NULL && count < max)
	{
		static Zone probe;
		struct stat st;
		char name[sizeof(entry->d_name) + 64];

		if (!isupper((unsigned char) entry->d_name[0])) /* not posix/, right/, tables */
			continue;
		snprintf(name, sizeof(name), "%s%s%s", below, *below != '\0' ? "/" : "", entry->d_name);
		snprintf(path, sizeof(path), "%s/%s", zone_directory(), name);
		if (strlen(name) >= sizeof(names[0]) || stat(path, &st) != 0)
			continue;
		if (S_ISDIR(st.st_mode))
			count = zone_names(name, names, count, max);
		else if (zone_load(&probe, name))
			strcpy(names[count++], name);
	}
	closedir(dir);
	return count;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* All of them in one order on every machine, whatever readdir() says. */
static inline int
all_zone_names(char (*names)[64], int max)
{
	int count = zone_names("", names, 0, max);

	qsort(names, (size_t) count, sizeof(names[0]), compare_names);
	return count;
}

#endif /* DSCHED_TEST_ZONEINFO_H */
