/*
 * slots.c
 *	  The slots of a job: the calendar joined to the server's time zones and to the bounds of a job.
 *
 * The calendar of src/core counts whole Unix seconds and knows zones only as a function; here TimestampTz
 * is turned into such seconds and back, pg_tz is made such a function, and the bounds of a job are kept:
 * slots_from (exclusive), starts_at (inclusive), expires_at (exclusive) and last_slot (inclusive).
 *
 * Failure cases: a schedule that this version cannot read and a zone that this server does not have are
 * reported as a sentence, never as an ERROR, because a definition may come from another instance.  A
 * schedule with no slot left gives 0.
 */
#include "postgres.h"

#include "core/calendar.h"
#include "core/codec.h"
#include "core/keys.h"
#include "core/selector.h"
#include "lib/stringinfo.h"
#include "schedule/slots.h"
#include "utils/timestamp.h"

/* Unix time of TimestampTz 0, in seconds. */
#define EPOCH_SHIFT ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* A zone whose next change the server does not tell is asked again after this time. */
#define UNKNOWN_CHANGE_S (30 * SECS_PER_DAY)

/* The Unix second that a moment lies in. */
static int64
to_unix(TimestampTz at)
{
	int64		seconds = at / USECS_PER_SEC;

	if (at % USECS_PER_SEC < 0)
		seconds--;
	return seconds + EPOCH_SHIFT;
}

static TimestampTz
from_unix(int64 seconds)
{
	return (seconds - EPOCH_SHIFT) * USECS_PER_SEC;
}

/*
 * CalZone.offset_at for a pg_tz.  The offset comes from pg_localtime(), which also decides what people see;
 * pg_next_dst_boundary() only says how long it lasts: before a zone's first rule the two can differ.
 */
static int32_t
zone_offset_at(void *arg, int64_t t, int64_t *until)
{
	pg_tz	   *tz = arg;
	pg_time_t	at = t;
	pg_time_t	boundary = 0;
	long int	before_offset,
				after_offset;
	int			before_dst,
				after_dst;
	int			changes;
	struct pg_tm *tm = pg_localtime(&at, tz);

	changes = pg_next_dst_boundary(&at, &before_offset, &before_dst, &boundary,
								   &after_offset, &after_dst, tz);
	if (changes == 0)
		*until = PG_INT64_MAX;
	else if (changes > 0 && boundary > t)
		*until = boundary;
	else
		*until = t + UNKNOWN_CHANGE_S;

	return tm == NULL ? 0 : (int32_t) tm->tm_gmtoff;
}

static CalZone
zone_of(const SlotRule *rule)
{
	CalZone		zone;

	zone.arg = rule->tz;
	zone.offset_at = zone_offset_at;
	return zone;
}

/* Is a slot before the end of the rule? */
static bool
before_end(const SlotRule *rule, TimestampTz slot)
{
	return (rule->expires_at == 0 || slot < rule->expires_at) &&
		(rule->last_slot == 0 || slot <= rule->last_slot);
}

/* The latest moment up to which no slot counts. */
static TimestampTz
lower_bound(const SlotRule *rule, TimestampTz after)
{
	if (after < rule->slots_from)
		after = rule->slots_from;
	if (rule->starts_at != 0 && after < rule->starts_at - 1)
		after = rule->starts_at - 1;
	return after;
}

/* A row that was restored or written by hand may say anything. */
static bool
policy_fits(const JobRow *row, char **problem)
{
	char		why[100];

	if (!policy_check(&row->policy, why, sizeof(why)))
		*problem = psprintf("policy is out of range: %s", why);
	else if (row->queue != NULL && strlen(row->queue) > POLICY_MAX_QUEUE)
		*problem = psprintf("policy is out of range: the name of its queue is longer than %d bytes", POLICY_MAX_QUEUE);
	else
		return true;
	return false;
}

/* Of a row that was written by hand, or restored from elsewhere. */
static bool
place_fits(const JobRow *row, char **problem)
{
	char		normal[SELECTOR_MAX + 1];

	if (row->run_on == NULL || (strcmp(row->run_on, "each") == 0 && row->schedule != NULL) ||
		(selector_normalise(row->run_on, normal, NULL) && strcmp(row->run_on, normal) == 0))
		return true;
	*problem = psprintf("run_on \"%s\" is no place of this job", row->run_on);
	return false;
}

bool
slot_rule_make(const JobRow *row, SlotRule *rule, char **problem)
{
	const char *zone = row->time_zone;
	CronSchedule *cron;
	CronError	error;

	memset(rule, 0, sizeof(*rule));
	rule->one_shot = row->schedule == NULL;
	rule->run_at = row->run_at;
	rule->anchor = row->anchor;
	rule->slots_from = row->slots_from;
	rule->starts_at = row->starts_at;
	rule->expires_at = row->expires_at;
	rule->last_slot = row->last_slot;
	rule->job_id = row->job_id;
	rule->jitter = row->policy.jitter;
	if (!policy_fits(row, problem) || !place_fits(row, problem))
		return false;
	if (rule->one_shot)
		return true;

	rule->cron = cron = palloc0(sizeof(CronSchedule));
	if (!cron_parse(row->schedule, cron, &error))
	{
		*problem = psprintf("schedule \"%s\" cannot be read: %s", row->schedule, error.message);
		return false;
	}
	if (rule->cron->zone[0] != '\0')
		zone = rule->cron->zone;
	rule->tz = pg_tzset(zone);
	if (rule->tz == NULL || !pg_tz_acceptable(rule->tz))
	{
		*problem = psprintf("time zone \"%s\" is not known to this server", zone);
		return false;
	}
	return true;
}

SlotRule *
slot_rule_copy(MemoryContext context, const SlotRule *rule)
{
	struct
	{
		SlotRule	rule;
		CronSchedule cron;
	}		   *copy = MemoryContextAlloc(context, sizeof(*copy));

	copy->rule = *rule;
	if (rule->cron != NULL)
	{
		copy->cron = *rule->cron;
		copy->rule.cron = &copy->cron;
	}
	return &copy->rule;
}

void
slot_rule_narrow(SlotRule *rule, TimestampTz first, TimestampTz last)
{
	int64		anchor = to_unix(rule->anchor);
	int64		from = to_unix(first);

	rule->slots_from = first - 1;
	rule->last_slot = last == 0 ? 1 : last; /* 0 is none; no slot lies between the two */
	rule->starts_at = rule->expires_at = 0;
	rule->jitter = 0;
	/* the anchor itself is no slot */
	if (!rule->one_shot && rule->cron->kind == CRON_INTERVAL && anchor >= from)
		rule->anchor = from_unix(anchor - ((anchor - from) / rule->cron->interval_s + 1) * rule->cron->interval_s);
}

bool
slot_rule_for_range(const JobRow *row, TimestampTz first, TimestampTz last, SlotRule *out, char **problem)
{
	if (!slot_rule_make(row, out, problem))
		return false;
	if (out->one_shot || out->cron->kind == CRON_REBOOT)
	{
		*problem = pstrdup(out->one_shot ? "it runs once" : "@reboot names no times");
		return false;
	}
	slot_rule_narrow(out, first, last);
	return true;
}

/* What is hashed, in an order of bytes that is the same everywhere. */
static void
put_number(StringInfo out, uint64 number)
{
	for (int i = 0; i < 8; i++)
		appendStringInfoChar(out, (char) (number >> (8 * i)));
}

static void
put_days(StringInfo out, const CronSchedule *cron)
{
	put_number(out, cron->doms);
	put_number(out, cron->doms_from_end);
	put_number(out, cron->nearest_weekdays);
	put_number(out, cron->last_weekday);
	put_number(out, cron->dows);
	for (size_t i = 0; i < lengthof(cron->nth_dows); i++)
		put_number(out, cron->nth_dows[i]);
	put_number(out, cron->last_dows);
	put_number(out, cron->dom_and_dow);
}

static void
put_fields(StringInfo out, const CronSchedule *cron)
{
	put_number(out, cron->seconds);
	put_number(out, cron->minutes);
	put_number(out, cron->hours);
	put_number(out, cron->months);
	for (size_t i = 0; i < lengthof(cron->years); i++)
		put_number(out, cron->years[i]);
	put_days(out, cron);
	put_number(out, cron->wall_clock);
}

uint64
slot_rule_hash(const SlotRule *rule)
{
	const CronSchedule *cron = rule->cron;
	StringInfoData bytes;
	int64		phase;
	uint64		hash;

	initStringInfo(&bytes);
	put_number(&bytes, rule->one_shot);
	put_number(&bytes, rule->one_shot ? CRON_FIELDS : cron->kind);
	if (rule->one_shot)
		put_number(&bytes, (uint64) rule->run_at);
	else if (cron->kind == CRON_INTERVAL)
	{
		phase = to_unix(rule->anchor) % cron->interval_s;
		put_number(&bytes, (uint64) cron->interval_s);
		put_number(&bytes, (uint64) (phase < 0 ? phase + cron->interval_s : phase));
	}
	else
	{
		put_fields(&bytes, cron);
		appendStringInfoString(&bytes, pg_get_timezone_name(rule->tz));
	}
	hash = keys_hash(bytes.data, bytes.len, 0);
	pfree(bytes.data);
	return hash;
}

TimestampTz
slot_next(const SlotRule *rule, TimestampTz after)
{
	CalZone		zone = zone_of(rule);
	TimestampTz slot;
	int64_t		seconds;

	/* A one-shot's time is its own: neither the definition's time nor any bound moves it. */
	if (rule->one_shot)
		return rule->run_at > after ? rule->run_at : 0;

	after = lower_bound(rule, after);
	if (rule->cron->kind == CRON_REBOOT)
		slot = PgStartTime > after ? PgStartTime : 0;
	else if (calendar_next(rule->cron, &zone, to_unix(rule->anchor), to_unix(after), &seconds))
		slot = from_unix(seconds);
	else
		slot = 0;
	return slot != 0 && before_end(rule, slot) ? slot : 0;
}

TimestampTz
slot_nth(const SlotRule *rule, int32 n)
{
	CalZone		zone = zone_of(rule);
	TimestampTz from = lower_bound(rule, rule->slots_from);
	TimestampTz slot;
	int64_t		seconds;

	if (rule->one_shot)
		return n == 1 ? rule->run_at : 0;
	if (rule->cron->kind == CRON_REBOOT ||
		!calendar_nth(rule->cron, &zone, to_unix(rule->anchor), to_unix(from), n, &seconds))
		return 0;
	slot = from_unix(seconds);
	return before_end(rule, slot) ? slot : 0;
}

/* ---- when slots are due ---------------------------------------------------------------------------- */

TimestampTz
slot_due(const SlotRule *rule, TimestampTz slot)
{
	int64		bound = rule->jitter;
	TimestampTz next;

	if (bound == 0 || rule->one_shot || rule->cron->kind == CRON_REBOOT)
		return slot;
	next = slot_next(rule, slot);
	if (next != 0)
		bound = Min(bound, next - slot);
	return slot + policy_jitter(rule->job_id, slot, bound);
}

TimestampTz
slot_next_due(const SlotRule *rule, TimestampTz after)
{
	TimestampTz newest;

	/* each slot is due before the next one is: only the last of those before may still be to come */
	if (rule->jitter > 0 && !rule->one_shot && after > CODEC_MIN_TIME &&
		slot_count(rule, after - rule->jitter, after, &newest, NULL) > 0 && slot_due(rule, newest) > after)
		return newest;
	return slot_next(rule, after);
}

/* ---- many slots ------------------------------------------------------------------------------------ */

int64
slot_count(const SlotRule *rule, TimestampTz first, TimestampTz last, TimestampTz *newest, TimestampTz *before)
{
	CalZone		zone = zone_of(rule);
	TimestampTz after;
	int64		n;
	int64_t		seconds;

	*newest = 0;
	if (before != NULL)
		*before = 0;
	if (rule->one_shot || rule->cron->kind == CRON_REBOOT)
	{
		TimestampTz slot = slot_next(rule, first - 1);

		if (slot == 0 || slot > last)
			return 0;
		*newest = slot;
		return 1;
	}
	after = lower_bound(rule, first - 1);
	if (rule->expires_at != 0)
		last = Min(last, rule->expires_at - 1);
	if (rule->last_slot != 0)
		last = Min(last, rule->last_slot);
	if (last <= after)
		return 0;
	n = calendar_count(rule->cron, &zone, to_unix(rule->anchor), to_unix(after), to_unix(last), PG_INT64_MAX);
	if (n > 0 && calendar_nth(rule->cron, &zone, to_unix(rule->anchor), to_unix(after), n, &seconds))
		*newest = from_unix(seconds);
	if (n > 1 && before != NULL &&
		calendar_nth(rule->cron, &zone, to_unix(rule->anchor), to_unix(after), n - 1, &seconds))
		*before = from_unix(seconds);
	return n;
}
