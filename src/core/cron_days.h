/*
 * cron_days.h
 *	  Dates of the Gregorian calendar, and the days of a month that a schedule names.
 */
#ifndef DSCHED_CRON_DAYS_H
#define DSCHED_CRON_DAYS_H

#include "core/cron.h"

/* Days since 1970-01-01 of a date. */
extern int64_t cron_days_from_date(int64_t year, int month, int dom);

/* The reverse. */
extern void cron_date_from_days(int64_t days, int64_t *year, int *month, int *dom);

/* The first year from 'year' on that a schedule allows, or false if there is none. */
extern bool cron_next_year(const CronSchedule *s, int64_t *year);

/*
 * The days of a month that match day of month and day of week: bits 1..31. Whether the schedule
 * allows the month and the year is not asked. 'first_day' is the month's first day since 1970-01-01.
 */
extern uint32_t cron_days_of_month(const CronSchedule *s, int64_t year, int month, int64_t first_day);

#endif /* DSCHED_CRON_DAYS_H */
