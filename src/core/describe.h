/*
 * describe.h
 *	  What a schedule means, as a sentence in English.
 *
 * The sentence is made from the sets of a parsed schedule, not from its text, so that it says what
 * will happen and not what was written. It is exact: schedules of fields that can differ in a slot
 * have different sentences, however long these become. Two texts that mean the same have the same.
 *
 * Words that the sentences rely on: a weekday is a day from Monday to Friday. "At 02:00", "from
 * 09:00 to 17:59" are times on the wall clock (CronSchedule.wall_clock); "every 2nd hour", "hours 9
 * to 17" are hours that follow elapsed time where the clocks are changed (see calendar.h).
 */
#ifndef DSCHED_DESCRIBE_H
#define DSCHED_DESCRIBE_H

#include <stddef.h>

#include "core/cron.h"

/* No sentence is as long as this, its end included, with a zone and an anchor of up to 255 bytes. */
#define DESCRIBE_MAX 4096

/*
 * Write the sentence to out, cut to size - 1 bytes and always ended by '\0' (if size is not 0).
 * Returns its full length, as snprintf does.
 *
 * zone: appended where the slots depend on it; NULL: not mentioned. anchor: what an interval counts
 * from, such as a time; NULL: "its definition".
 */
extern size_t describe_schedule(const CronSchedule *s, const char *zone, const char *anchor,
								char *out, size_t size);

#endif /* DSCHED_DESCRIBE_H */
