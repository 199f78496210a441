/*
 * cron_fields.c
 *	  Patterns of 5 to 7 fields.
 */
#include "core/cron_parser.h"

#include <string.h>

static void
set_days(CronSchedule *s, const Field *dom, const Field *dow)
{
	s->doms = (uint32_t) dom->set[0];
	s->doms_from_end = dom->from_end;
	s->nearest_weekdays = dom->nearest_weekdays;
	s->last_weekday = dom->last_weekday;
	s->dows = (uint8_t) dow->set[0];
	memcpy(s->nth_dows, dow->nth_dows, sizeof(s->nth_dows));
	s->last_dows = dow->last_dows;
	s->dom_and_dow = dom->unrestricted || dow->unrestricted || dow->plus;
}

/* The words are a pattern, or nothing. */
bool
cron_read_fields(Parser *p, CronSchedule *s)
{
	Field fields[NFIELDS];
	int first = p->nwords == 5 ? MINUTE : SECOND;
	int last = p->nwords == 7 ? YEAR : DOW;
	int i;

	if (!cron_check_notation(p))
		return false;
	if (p->nwords < 5 || p->nwords > 7)
		return cron_fail_field_count(p);
	for (i = first; i <= last; i++)
	{
		if (cron_read_field(p, i - first + 1, (FieldIndex) i, &fields[i]))
			continue;
		cron_hint_fields(p);
		return false;
	}
	s->kind = CRON_FIELDS;
	s->seconds = first == SECOND ? fields[SECOND].set[0] : 1;
	s->minutes = fields[MINUTE].set[0];
	s->hours = (uint32_t) fields[HOUR].set[0];
	s->months = (uint32_t) fields[MONTH].set[0];
	set_days(s, &fields[DOM], &fields[DOW]);
	if (last == YEAR)
		memcpy(s->years, fields[YEAR].set, sizeof(s->years));
	else
	{
		for (i = 0; i <= CRON_LAST_YEAR - CRON_FIRST_YEAR; i++)
			s->years[i / 64] |= UINT64_C(1) << i % 64;
	}
	/* 0-23 is another way to write "*" */
	s->wall_clock = !fields[HOUR].stepped && s->hours != (1 << 24) - 1;
	return cron_check_days(p, s);
}
