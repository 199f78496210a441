/*
 * calendar.h
 *	  When a schedule falls due: the slots that follow a given moment.
 *
 * A slot is a whole second of Unix time. The same schedule, zone, anchor and moment give the same
 * slots on every instance; nothing here asks for the time.
 *
 * Daylight saving, and every other change of a zone's offset:
 *
 *	- A schedule that names wall-clock times (CronSchedule.wall_clock) has its slot for local time x
 *	  at the first instant at which the wall clock shows x or more. So a time that the clock skips
 *	  runs at the first instant after the gap, once, however many of the schedule's times the gap
 *	  swallowed; a time that the clock shows twice runs at the first of the two.
 *	- Other schedules of fields follow elapsed time: every instant whose local time matches is a
 *	  slot, so both passes of an overlap have theirs and a gap has none.
 *	- Intervals do not see the wall clock.
 *
 * Only local dates of the years 1970 to 2199 match fields (CRON_FIRST_YEAR, CRON_LAST_YEAR).
 */
#ifndef DSCHED_CALENDAR_H
#define DSCHED_CALENDAR_H

#include "core/cron.h"

/* No slot lies at or after this: 2200-01-03 00:00 UTC, when 2199 is over everywhere. */
#define CALENDAR_END INT64_C(7258291200)
/* Earlier moments are taken for this one: 0001-01-01 00:00 UTC. */
#define CALENDAR_BEGIN (-INT64_C(62135596800))

/* A time zone, as the calendar needs it. */
typedef struct CalZone
{
	void *arg;

	/*
	 * Seconds east of UTC in force at Unix time t. *until is the first Unix time > t at which
	 * another local-time rule begins (INT64_MAX: never); a rule with the same offset does no harm.
	 */
	int32_t (*offset_at)(void *arg, int64_t t, int64_t *until);
} CalZone;

/*
 * The first slot strictly after 'after' (Unix seconds), or false if there is none before
 * CALENDAR_END.
 *
 * 'anchor' is the Unix time that an interval counts from: its slots are anchor + k * interval for
 * k = 1, 2, ... The anchor itself is no slot: a job "every 30 seconds" first falls due 30 seconds
 * after its anchor. Fields need no anchor, intervals no zone (it may be NULL). CRON_REBOOT has no
 * slot.
 */
extern bool calendar_next(const CronSchedule *s, const CalZone *z, int64_t anchor, int64_t after,
						  int64_t *slot);

/*
 * The n-th slot after 'after' (n >= 1; calendar_next is n = 1). The cost grows with the months that
 * have a matching day and with the changes of the zone's offset in them, not with n, and for an
 * interval with neither.
 */
extern bool calendar_nth(const CronSchedule *s, const CalZone *z, int64_t anchor, int64_t after,
						 int64_t n, int64_t *slot);

/*
 * The number of slots after 'after' up to and including 'until', or 'limit' if there are more. It
 * is calculated like the n-th slot, at the same cost; a small limit makes it cheaper still.
 */
extern int64_t calendar_count(const CronSchedule *s, const CalZone *z, int64_t anchor,
							  int64_t after, int64_t until, int64_t limit);

#endif /* DSCHED_CALENDAR_H */
