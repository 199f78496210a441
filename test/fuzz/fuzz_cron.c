/*
 * fuzz_cron.c
 *	  Any bytes as a schedule: what must hold whatever the parser makes of them.
 *
 * An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/cron*.c src/core/calendar*.c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/calendar.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOTS 3

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

static int32_t
utc_offset_at(void *arg, int64_t t, int64_t *until)
{
	*until = INT64_MAX;
	return 0;
}

/* A zone of many changes: every few weeks, by up to a day, at odd seconds. */
static int32_t
restless_offset_at(void *arg, int64_t t, int64_t *until)
{
	int64_t length = 2000003;
	int64_t n = t / length - (t % length < 0);

	*until = (n + 1) * length;
	return (int32_t) (((n * 7919) % 100 + 100) % 100 - 50) * 900;
}

/* Three slots, one after the other, are those that are asked for at once. */
static void
check_slots(const CronSchedule *schedule, const CalZone *zone, int64_t after, bool at_least_one)
{
	int64_t slots[SLOTS], at = after, nth;
	int i, found = 0;

	while (found < SLOTS && calendar_next(schedule, zone, 0, at, &slots[found]))
	{
		CHECK(slots[found] > at && slots[found] < CALENDAR_END);
		at = slots[found++];
	}
	CHECK(found > 0 || !at_least_one);
	for (i = 0; i < found; i++)
	{
		CHECK(calendar_nth(schedule, zone, 0, after, i + 1, &nth) && nth == slots[i]);
		CHECK(calendar_count(schedule, zone, 0, after, slots[i], SLOTS + 1) == i + 1);
		CHECK(calendar_count(schedule, zone, 0, after, slots[i] - 1, SLOTS + 1) == i);
		CHECK(calendar_count(schedule, zone, 0, after, slots[i], 1) == 1);
	}
	if (found < SLOTS)
		CHECK(!calendar_nth(schedule, zone, 0, after, found + 1, &nth) &&
			  calendar_count(schedule, zone, 0, after, INT64_MAX, SLOTS) == found);
}

static void
check_schedule(const CronSchedule *s, const char *text)
{
	CalZone utc = {NULL, utc_offset_at}, restless = {NULL, restless_offset_at};
	int64_t slot, after = 0;

	CHECK(memchr(s->zone, '\0', sizeof(s->zone)) != NULL);
	switch (s->kind)
	{
		case CRON_REBOOT:
			CHECK(!calendar_next(s, &utc, 0, -1, &slot));
			CHECK(calendar_count(s, &utc, 0, -1, INT64_MAX, 1) == 0);
			return;
		case CRON_INTERVAL:
			CHECK(s->interval_s >= 1 && s->interval_s <= CRON_MAX_INTERVAL);
			break;
		case CRON_FIELDS:
			CHECK(s->seconds != 0 && s->minutes != 0 && s->hours != 0 && s->months != 0);
			CHECK((s->seconds | s->minutes) >> 60 == 0 && s->hours >> 24 == 0 && s->months >> 13 == 0);
			break;
		default:
			CHECK(!"a kind that there is");
	}
	check_slots(s, &utc, -1, true);
	while (*text != '\0') /* some moment, the same for the same text */
		after = (after * 31 + (unsigned char) *text++) % CALENDAR_END;
	check_slots(s, &utc, after, false);
	check_slots(s, &restless, after, false);
}

/* Whole characters only: a message goes to clients as it is. */
static bool
is_utf8(const char *text)
{
	const unsigned char *p = (const unsigned char *) text;

	while (*p != '\0')
	{
		int more = *p < 0x80 ? 0 : *p < 0xc2 ? -1 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf5 ? 3 : -1;

		if (more < 0)
			return false;
		for (p++; more > 0; more--, p++)
			if ((*p & 0xc0) != 0x80)
				return false;
	}
	return true;
}

static void
check_error(const CronError *error, const char *text)
{
	size_t length = strlen(text);

	CHECK(memchr(error->message, '\0', sizeof(error->message)) != NULL && error->message[0] != '\0');
	CHECK(memchr(error->hint, '\0', sizeof(error->hint)) != NULL);
	CHECK(error->position >= 1 && (size_t) error->position <= length + 1);
	CHECK(error->field >= 0 && error->field <= 7);
	CHECK(error->field_name == NULL || error->field_name[0] != '\0');
	CHECK(!is_utf8(text) || (is_utf8(error->message) && is_utf8(error->hint)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* so that reading beyond the end is seen */
	CronSchedule schedule, untouched;
	CronError error;

	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	memset(&schedule, 0x5a, sizeof(schedule));
	memset(&untouched, 0x5a, sizeof(untouched));
	memset(&error, 0x5a, sizeof(error));
	if (cron_parse(text, &schedule, &error))
		check_schedule(&schedule, text);
	else
	{
		check_error(&error, text);
		CHECK(memcmp(&schedule, &untouched, sizeof(schedule)) == 0);
	}
	free(text);
	return 0;
}
