/*
 * intake.c
 *	  What is heard from etcd: keys of definitions into the timetable, keys of triggers to open runs.
 *
 * DEFINITIONS
 *
 * A version goes into the timetable at once, and from there into the table when that can be (apply.c).  One
 * that cannot be read is logged once, counted, and holds its job: its slots are neither run nor passed over
 * until a good version comes.  The revision that is stored as applied stays below it, so that a restart meets
 * it again.
 *
 * Nothing here believes what stands in etcd: a definition must stand under its own key, sizes are bounded
 * by the decoder, and where definitions are signed (sign.c) one without a good signature is held like one that cannot be read.
 *
 * So is one that is signed but old.  A successor of the version that we know was made knowing that one: its "after" is not
 * below that one's revision.  A new definition, under a key that was not there, knows the last revision of jobrev/<pp>, which
 * everything that was published in its partition before has raised; so a definition that was deleted is not taken again either.  That
 * can be asked only of what the watch brings, as a full compare has no memory of keys that were deleted.
 *
 * TRIGGERS
 *
 * Each transaction that publishes something also puts jobrev/<pp>, which lies in the range of the definitions;
 * so when the revision of a trigger's key is reached there, the definition that it was published after is
 * known.  The watch does not order its two ranges among themselves, so a trigger waits for that.  It also waits
 * while its partition is being taken over, as it may have been put after the take-over has read the triggers.
 * Those of other instances' partitions are not ours.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "settings.h"
#include "sync/sync_internal.h"

/* A key as what it is compared by: two hashes with random seeds, as keys come from others. */
typedef struct KeyDigest
{
	uint64		a;
	uint64		b;
} KeyDigest;

/* A definition that cannot be read. */
typedef struct Broken
{
	KeyDigest	key;			/* hash key */
	int64		revision;
	int64		duplicate_of;	/* id of the job that it has the id of; 0 */
	bool		unverified;		/* for its signature */
	uint32		compare;		/* number of the full compare that saw it last */
} Broken;

/* A trigger that waits for its definition or for the take-over of its partition. */
typedef struct WaitingTrigger
{
	dlist_node	node;
	int			partition;
	int64		revision;
	TriggerDef	def;
} WaitingTrigger;

/* What one event of the definition range is about; in scratch. */
typedef struct Incoming
{
	const EtcdKv *kv;
	KeyParts	parts;
	char	   *username;		/* in the server's encoding; NULL: cannot be */
	char	   *job_name;
	JobRow		row;
	Signature	signature;
	bool		good;
	bool		unverified;
	int64		duplicate_of;	/* the id is that of another job; 0 */
	char		problem[512];
} Incoming;

static HTAB *broken = NULL;
static int	nunverified = 0;	/* of them, for their signatures */
static uint64 digest_seeds[2];
static uint32 compares = 0;		/* full compares so far */
static MemoryContext scratch = NULL;	/* reset for each key */
static int64 jobrevs[DSCHED_MAX_PARTITIONS];

/* The last two revisions of jobrev/<pp> that the watch, or a full compare, has delivered: not what we know otherwise. */
static struct
{
	int64		last;
	int64		before;
}			heard_jobrevs[DSCHED_MAX_PARTITIONS];

#define MAX_COMPLAINTS 100
#define COMPLAINT_US INT64CONST(1000000)

/* Triggers that were refused for their signature: they may be verified by other keys later. */
#define MAX_REFUSED_TRIGGERS 10000
static HTAB *refused_triggers = NULL;

static dlist_head waiting_triggers = DLIST_STATIC_INIT(waiting_triggers);

void
sync_intake_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(KeyDigest);
	ctl.entrysize = sizeof(Broken);
	ctl.hcxt = scheduler.context;
	broken = hash_create("dsched broken definitions", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (!pg_strong_random(digest_seeds, sizeof(digest_seeds)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	scratch = AllocSetContextCreate(scheduler.context, "dsched definition", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = ctl.entrysize = sizeof(int64);
	refused_triggers = hash_create("dsched refused triggers", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

int64
sync_jobrev(int partition)
{
	return jobrevs[partition];
}

/* Has the watch brought all that was published here? */
bool
sync_publications_heard(void)
{
	for (int i = 0; i < dsched_partitions; i++)
		if (jobrevs[i] > sync_revision())
			return false;
	return true;
}

void
sync_note_jobrev(int partition, int64 revision)
{
	jobrevs[partition] = Max(jobrevs[partition], revision);
}

static void
hear_jobrev(int partition, int64 revision)
{
	sync_note_jobrev(partition, revision);
	if (revision <= heard_jobrevs[partition].last)
		return;
	heard_jobrevs[partition].before = heard_jobrevs[partition].last;
	heard_jobrevs[partition].last = revision;
}

/* The revision that it had right before this one, as far as we have heard. */
static int64
jobrev_before(int partition, int64 revision)
{
	if (heard_jobrevs[partition].last < revision)
		return heard_jobrevs[partition].last;
	return heard_jobrevs[partition].before < revision ? heard_jobrevs[partition].before : 0;
}

/* ---- definitions that cannot be read ------------------------------------------------------------ */

static void
digest(const EtcdKv *kv, KeyDigest *out)
{
	out->a = keys_hash(kv->key, kv->key_len, digest_seeds[0]);
	out->b = keys_hash(kv->key, kv->key_len, digest_seeds[1]);
}

static void
show_broken(void)
{
	scheduler.slot->broken_jobs = (int) hash_get_num_entries(broken);
	scheduler.slot->unverified_jobs = nunverified;
}

static void
remove_broken(Broken *entry)
{
	nunverified -= entry->unverified ? 1 : 0;
	(void) hash_search(broken, &entry->key, HASH_REMOVE, NULL);
}

static void
not_broken(const EtcdKv *kv)
{
	KeyDigest	key;
	Broken	   *entry;

	if (hash_get_num_entries(broken) == 0)
		return;
	digest(kv, &key);
	entry = hash_search(broken, &key, HASH_FIND, NULL);
	if (entry == NULL)
		return;
	remove_broken(entry);
	show_broken();
}

/*
 * Whoever fills etcd with what cannot be read is not to fill the log with it: a hundred lines at once, and one a second
 * from then on.
 */
bool
sync_may_complain(void)
{
	static int64 full_at = 0;	/* boot time at which all of them may be written again */

	full_at = Max(full_at, scheduler.boot);
	if (full_at - scheduler.boot >= MAX_COMPLAINTS * COMPLAINT_US)
		return false;
	full_at += COMPLAINT_US;
	if (full_at - scheduler.boot >= MAX_COMPLAINTS * COMPLAINT_US)
		ereport(WARNING,
				(errmsg("dsched: what cannot be read in etcd is not logged for a while, as there is too much of it")));
	return true;
}

static void
note_broken(const Incoming *in)
{
	KeyDigest	key;
	Broken	   *entry;
	bool		found;
	char		shown[256];

	digest(in->kv, &key);
	entry = hash_search(broken, &key, HASH_ENTER, &found);
	entry->compare = compares;
	entry->duplicate_of = in->duplicate_of;
	nunverified += (in->unverified ? 1 : 0) - (found && entry->unverified ? 1 : 0);
	entry->unverified = in->unverified;
	if (found && entry->revision == in->kv->mod_revision)
		return;
	entry->revision = in->kv->mod_revision;
	show_broken();
	if (!sync_may_complain())
		return;
	etcd_clean_text(shown, sizeof(shown), in->kv->key, in->kv->key_len);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("dsched: a definition in etcd cannot be %s and its job is held: %s",
					in->unverified ? "verified" : "read", in->problem),
			 errdetail("Its key is \"%s\".", shown)));
}

/* Is there a definition of this name that could not be read or verified? */
bool
sync_is_broken(const char *username, const char *job_name)
{
	char		name[KEYS_MAX_LEN];
	EtcdKv		kv = {.key = name};
	KeyDigest	key;
	int			partition;

	if (hash_get_num_entries(broken) == 0 || !sync_job_key(username, job_name, name, &partition))
		return false;
	kv.key_len = strlen(name);
	digest(&kv, &key);
	return hash_search(broken, &key, HASH_FIND, NULL) != NULL;
}

/* The lowest revision of a definition that could not be read. */
int64
sync_lowest_broken(void)
{
	HASH_SEQ_STATUS status;
	Broken	   *entry;
	int64		lowest = PG_INT64_MAX;

	hash_seq_init(&status, broken);
	while ((entry = hash_seq_search(&status)) != NULL)
		lowest = Min(lowest, entry->revision);
	return lowest;
}

/* ---- definitions --------------------------------------------------------------------------------- */

static bool
parse_key(const EtcdKv *kv, KeyParts *parts)
{
	return strlen(kv->key) == kv->key_len && keys_parse(dsched_cluster_name, kv->key, parts) &&
		parts->partition < dsched_partitions;
}

/* Takes a key of the definition range apart, in scratch; NULL: none of ours. */
static Incoming *
begin_intake(const EtcdKv *kv)
{
	Incoming   *in;

	MemoryContextReset(scratch);
	in = palloc0(sizeof(Incoming));
	in->kv = kv;
	if (!parse_key(kv, &in->parts))
	{
		ereport(DEBUG1, (errmsg_internal("dsched: a key among the definitions in etcd is none of ours")));
		return NULL;
	}
	in->username = sync_from_utf8(in->parts.role);
	in->job_name = sync_from_utf8(in->parts.name);
	return in;
}

/* Is it a key under which a job of this database can stand? */
static bool
is_job_key(const Incoming *in)
{
	return in->username != NULL && strlen(in->username) < NAMEDATALEN &&
		in->job_name != NULL && strlen(in->job_name) <= DSCHED_MAX_JOB_NAME && keys_is_shown(in->parts.name) &&
		in->parts.partition == keys_partition(in->parts.role, in->parts.name, dsched_partitions);
}

static Job *
find_job(const Incoming *in)
{
	return is_job_key(in) ? timetable_find_name(in->username, in->job_name) : NULL;
}

/* Is it an old version that somebody has put back?  known: the version that stood there before; 0: none that is known. */
static bool
is_replayed(const Incoming *in, int64 known)
{
	return sync_sign_required() && known < in->kv->mod_revision && in->signature.after < known;
}

/* The revision that whoever put this version must have known of. */
static int64
known_before(const Incoming *in, TakeMode mode)
{
	Job		   *job = find_job(in);
	KeyDigest	key;
	Broken	   *entry;

	if (job != NULL)
		return job->mod_revision;
	digest(in->kv, &key);
	entry = hash_search(broken, &key, HASH_FIND, NULL);
	if (entry != NULL)
		return entry->revision;
	return mode == TAKE_LISTED ? 0 : jobrev_before(in->parts.partition, in->kv->mod_revision);
}

int64
sync_known_before(const char *name, int64 revision)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	EtcdKv		kv = {.key = unconstify(char *, name),.key_len = strlen(name),.mod_revision = revision};
	Incoming   *in = begin_intake(&kv);
	Job		   *job = in != NULL ? find_job(in) : NULL;
	KeyDigest	key;
	Broken	   *entry;
	int64		known = 0;

	digest(&kv, &key);
	entry = hash_search(broken, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->revision == revision)
		known = PG_INT64_MAX;
	else if (job == NULL || job->mod_revision < revision)
		known = in != NULL ? known_before(in, TAKE_EVENT) : 0;
	MemoryContextSwitchTo(old);
	return known;
}

static void
verify_definition(Incoming *in, TakeMode mode)
{
	if (!sync_verify(in->kv->key, in->kv->key_len, in->kv->value, in->kv->value_len, &in->signature, in->problem,
					 sizeof(in->problem)))
		in->unverified = true;
	else if (is_replayed(in, known_before(in, mode)))
	{
		strlcpy(in->problem, "an old version of it was put back", sizeof(in->problem));
		in->unverified = true;
	}
	in->good = !in->unverified;
}

static void
decode_definition(Incoming *in)
{
	in->good = sync_decode_row(in->kv->value, in->kv->value_len, in->kv->mod_revision, &in->row, in->problem,
							   sizeof(in->problem));
	if (in->good && (!is_job_key(in) || strcmp(in->row.username, in->username) != 0 ||
					 strcmp(in->row.job_name, in->job_name) != 0))
	{
		strlcpy(in->problem, "it stands under the key of another job", sizeof(in->problem));
		in->good = false;
	}
}

/* Its job does not run, and its slots stay open, until a version comes that can be read. */
static void
definition_broken(const Incoming *in)
{
	Job		   *job = find_job(in);

	note_broken(in);
	if (job == NULL)
		return;
	job->seen = true;
	if (job->usable)
	{
		job->usable = false;
		job_extra(job)->held_since = scheduler.now;
	}
	timetable_unplan(job);
	sync_apply_forget(in->username, in->job_name);
	sync_problem(job->job_id, psprintf("definition in etcd %s: %s", in->unverified ? "is not to be trusted" : "does not parse",
									   in->problem));
}

static void
definition_good(const Incoming *in, bool comparing)
{
	Job		   *job = timetable_find(in->row.job_id);
	bool		held = job != NULL && !job->usable;

	not_broken(in->kv);
	job = timetable_put(&in->row, false);
	job->seen = true;
	job->signed_anew = in->signature.current;
	/* if the table has this version already, as it was published here, it is not written again */
	if (held && job->usable)
		sync_problem(job->job_id, in->row.problem);
	sync_apply_put(&in->row, in->kv->value, in->kv->value_len, comparing);
}

/*
 * An id stands in etcd once: a job that moves to another key leaves the old one in the same transaction.  One
 * that stands there twice was put by somebody else; the first stays.  (A full compare may meet the new key
 * before it knows that the old one is gone.)
 */
static Job *
find_duplicate(const Incoming *in, bool comparing)
{
	Job		   *job = timetable_find(in->row.job_id);

	if (job == NULL || (comparing && !job->seen) ||
		(strcmp(job->username, in->row.username) == 0 && strcmp(job->job_name, in->row.job_name) == 0))
		return NULL;
	return job;
}

/* Is there a definition that waits for the id of this job to be free? */
static bool
has_duplicate(int64 job_id)
{
	HASH_SEQ_STATUS status;
	Broken	   *entry;
	bool		found = false;

	hash_seq_init(&status, broken);
	while ((entry = hash_seq_search(&status)) != NULL)
		found |= entry->duplicate_of == job_id;
	return found;
}

/* A job is gone from its key.  One that stood there with its id, as well, is looked at again. */
static void
remove_job(Job *job)
{
	int64		job_id = job->job_id;

	timetable_remove(job_id);
	if (has_duplicate(job_id))
		sync_compare_again();
}

/* False: its id is that of another job, perhaps only until the rest of the revision is known (TAKE_EVENT). */
static bool
take_decoded(Incoming *in, TakeMode mode)
{
	Job		   *namesake = find_job(in);
	Job		   *duplicate;

	/* whoever stood under this key does not any more */
	if (namesake != NULL && namesake->job_id != in->row.job_id)
		remove_job(namesake);
	duplicate = find_duplicate(in, mode == TAKE_LISTED);
	if (duplicate == NULL)
	{
		definition_good(in, mode == TAKE_LISTED);
		return true;
	}
	if (mode == TAKE_EVENT)
		return false;
	in->duplicate_of = duplicate->job_id;
	snprintf(in->problem, sizeof(in->problem), "it has the id of job \"%s\" of role \"%s\"", duplicate->job_name,
			 duplicate->username);
	definition_broken(in);
	return true;
}

static bool
take_definition(Incoming *in, TakeMode mode)
{
	Job		   *job = find_job(in);

	bool		known = job != NULL && (job->mod_revision > in->kv->mod_revision ||
										(job->mod_revision == in->kv->mod_revision && job->usable));

	/* a watch that was resumed may repeat what is known; a full compare finds mostly that */
	if (known && (mode != TAKE_LISTED || !sync_sign_required() || job->mod_revision > in->kv->mod_revision))
	{
		job->seen = true;
		return true;
	}
	verify_definition(in, mode);
	if (known && in->good && sync_verified())
	{
		/* there may be other keys than when it came */
		job->signed_anew = in->signature.current;
		job->seen = true;
		return true;
	}
	if (in->good)
		decode_definition(in);
	if (!in->good)
	{
		definition_broken(in);
		return true;
	}
	sync_definition_stood(in->row.change_id);
	job = timetable_find(in->row.job_id);
	if (job != NULL && job->mod_revision > in->kv->mod_revision)
		return true;			/* it has left this key since */
	return take_decoded(in, mode);
}

bool
sync_definition_put(const EtcdKv *kv, TakeMode mode)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Incoming   *in = begin_intake(kv);
	bool		taken = true;

	if (in != NULL && in->parts.kind == KEY_JOBREV)
		hear_jobrev(in->parts.partition, kv->mod_revision);
	else if (in != NULL && in->parts.kind == KEY_JOB)
		taken = take_definition(in, mode);
	MemoryContextSwitchTo(old);
	return taken;
}

static void
take_deletion(const Incoming *in)
{
	Job		   *job = find_job(in);

	not_broken(in->kv);
	/* deleted before the version that is known */
	if (job != NULL && job->mod_revision > in->kv->mod_revision)
		return;
	if (job != NULL)
		remove_job(job);
	if (is_job_key(in))
		sync_apply_delete(in->username, in->job_name, in->kv->mod_revision, false);
}

void
sync_definition_deleted(const EtcdKv *kv)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Incoming   *in = begin_intake(kv);

	if (in != NULL && in->parts.kind == KEY_JOB)
		take_deletion(in);
	MemoryContextSwitchTo(old);
}

/* ---- events of the watch -------------------------------------------------------------------------- */

/* Does a later event of these concern the same key as the i-th? */
static bool
is_superseded(const EtcdEvent *events, int n, int i)
{
	const EtcdKv *kv = &events[i].kv;

	for (int k = i + 1; k < n; k++)
		if (events[k].kv.key_len == kv->key_len && memcmp(events[k].kv.key, kv->key, kv->key_len) == 0)
			return true;
	return false;
}

/*
 * What one event cannot say without another of its revision (two jobs that exchange their roles) is taken at
 * the end.
 */
void
sync_take_definitions(const EtcdEvent *events, int n)
{
	bool	   *left = NULL;

	for (int i = 0; i < n; i++)
	{
		if (events[i].is_delete)
			sync_definition_deleted(&events[i].kv);
		else if (!sync_definition_put(&events[i].kv, TAKE_EVENT))
		{
			if (left == NULL)
				left = palloc0(sizeof(bool) * n);
			left[i] = true;
		}
	}
	if (left == NULL)
		return;
	for (int i = 0; i < n; i++)
		if (left[i] && !is_superseded(events, n, i))
			(void) sync_definition_put(&events[i].kv, TAKE_EVENT_LAST);
	pfree(left);
}

/*
 * Was this revision made by a recovery of the cluster, or by hand, which delete all keys?  A deletion of ours puts jobrev/<pp>, or
 * queuerev, in the same transaction, and nothing of ours deletes these.  What is gone in such a way is no reason to delete a row.
 */
bool
sync_is_wiped(const EtcdEvent *events, int n)
{
	for (int i = 0; i < n; i++)
	{
		KeyParts	parts;
		bool		put = false;

		if (!events[i].is_delete || !keys_parse(dsched_cluster_name, events[i].kv.key, &parts))
			continue;
		if (parts.kind == KEY_JOBREV || parts.kind == KEY_QUEUEREV)
			return true;
		if (parts.kind != KEY_QUEUE)
			continue;
		for (int k = 0; k < n && !put; k++)
			put = events[k].kv.mod_revision == events[i].kv.mod_revision && !events[k].is_delete &&
				keys_parse(dsched_cluster_name, events[k].kv.key, &parts) && parts.kind == KEY_QUEUEREV;
		if (!put)
			return true;
	}
	return false;
}

void
sync_take_queues(const EtcdEvent *events, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (events[i].is_delete)
			sync_queue_deleted(&events[i].kv);
		else
			sync_queue_put(&events[i].kv);
	}
}

/* ---- full compares ------------------------------------------------------------------------------ */

static void
clear_seen(Job *job, void *arg)
{
	job->seen = false;
}

void
sync_compare_begins(void)
{
	compares++;
	memset(heard_jobrevs, 0, sizeof(heard_jobrevs));
	timetable_each(-1, clear_seen, NULL);
}

static void
remove_unseen(Job *job, void *arg)
{
	char		username[NAMEDATALEN];
	char		job_name[DSCHED_MAX_JOB_NAME + 1];

	if (job->seen)
		return;
	strlcpy(username, job->username, sizeof(username));
	strlcpy(job_name, job->job_name, sizeof(job_name));
	timetable_remove(job->job_id);
	sync_apply_delete(username, job_name, *(int64 *) arg, true);
}

/* Broken definitions that are gone. */
static void
forget_unseen_broken(void)
{
	HASH_SEQ_STATUS status;
	Broken	   *entry;

	hash_seq_init(&status, broken);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->compare != compares)
			remove_broken(entry);
	show_broken();
}

static void
count_lost(Job *job, void *arg)
{
	char		key[KEYS_MAX_LEN];
	int			partition;

	if (!job->seen && job->mod_revision > 0 && sync_job_key(job->username, job->job_name, key, &partition) &&
		heard_jobrevs[partition].last == 0)
		(*(int *) arg)++;
}

/*
 * How many definitions are gone along with the jobrev/<pp> that was put with each of them: somebody has deleted them by hand.  Whoever
 * unschedules a job leaves that key.
 */
int
sync_compare_lost(void)
{
	int			n = 0;

	timetable_each(-1, count_lost, &n);
	return n;
}

void
sync_compare_ends(int64 revision)
{
	timetable_each(-1, remove_unseen, &revision);
	forget_unseen_broken();
}

/* ---- triggers ----------------------------------------------------------------------------------- */

/* It may be that of a key that is in the file later; then all triggers are read again. */
static void
remember_refused(int64 trigger_id)
{
	if (hash_get_num_entries(refused_triggers) < MAX_REFUSED_TRIGGERS)
		(void) hash_search(refused_triggers, &trigger_id, HASH_ENTER, NULL);
}

static bool
decode_trigger(const EtcdKv *kv, const KeyParts *parts, TriggerDef *def, char *problem, size_t size)
{
	Signature	signature;

	if (!sync_verify(kv->key, kv->key_len, kv->value, kv->value_len, &signature, problem, size))
	{
		remember_refused(parts->id);
		return false;
	}
	if (!codec_trigger_decode(kv->value, kv->value_len, def, problem, size))
		return false;
	if (def->trigger_id == parts->id &&
		parts->partition == keys_partition(def->username, def->job_name, dsched_partitions))
		return true;
	strlcpy(problem, "it stands under the key of another one", size);
	codec_trigger_free(def);
	return false;
}

bool
sync_trigger_read(const EtcdKv *kv, int *partition, TriggerDef *def)
{
	KeyParts	parts;
	char		problem[256];
	char		shown[256];

	if (!parse_key(kv, &parts) || parts.kind != KEY_TRIGGER)
		return false;
	*partition = parts.partition;
	if (decode_trigger(kv, &parts, def, problem, sizeof(problem)))
		return true;
	if (!sync_may_complain())
		return false;
	etcd_clean_text(shown, sizeof(shown), kv->key, kv->key_len);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("dsched: a trigger in etcd is left alone: %s", problem),
			 errdetail("Its key is \"%s\".", shown)));
	return false;
}

void
sync_trigger_put(const EtcdKv *kv)
{
	TriggerDef	def;
	int			partition;

	if (!sync_trigger_read(kv, &partition, &def))
		return;
	sync_trigger_seen(def.trigger_id);
	placement_note_request(def.trigger_id, partition);
	sync_add_trigger(partition, &def, kv->mod_revision);
}

void
sync_add_trigger(int partition, TriggerDef *def, int64 revision)
{
	WaitingTrigger *trigger = MemoryContextAlloc(scheduler.context, sizeof(WaitingTrigger));

	trigger->partition = partition;
	trigger->revision = revision;
	trigger->def = *def;
	dlist_push_tail(&waiting_triggers, &trigger->node);
}

/*
 * Is this trigger somebody else's to run, or has it been run?  Whoever takes over a partition reads its
 * triggers then, and what the watch brings of the time before may have been made by its former owner.
 */
static bool
is_not_ours(const WaitingTrigger *trigger)
{
	const Partition *partition = &scheduler.partitions[trigger->partition];

	/* the take-over has left it alone, as it could not be verified */
	if (partition->step == STEP_ACTIVE &&
		hash_search(refused_triggers, &trigger->def.trigger_id, HASH_FIND, NULL) != NULL)
		return false;
	return !partition_is_local(partition) &&
		(partition->step == STEP_NONE || partition->step == STEP_DRAINING || partition->step == STEP_FINAL ||
		 (partition->step != STEP_READING && trigger->revision <= partition->taken_revision));
}

void
sync_open_triggers(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &waiting_triggers)
	{
		WaitingTrigger *trigger = dlist_container(WaitingTrigger, node, iter.cur);
		Job		   *job;

		/* with the definitions up to then it is known where its job is */
		if (trigger->revision > sync_revision())
			continue;
		job = timetable_find(trigger->def.job_id);
		if (job != NULL && (trigger->revision > 0 || scheduler.etcd == NULL))
			trigger->partition = job->partition;
		if (!is_not_ours(trigger))
		{
			if (!partition_is_active(trigger->partition))
				continue;
			/* alone: its job may be among those whose turn has not come yet, or that somebody has locked */
			if (sync_to_take_in() && job == NULL)
				continue;
			(void) hash_search(refused_triggers, &trigger->def.trigger_id, HASH_REMOVE, NULL);
			open_trigger(&scheduler.partitions[trigger->partition], &trigger->def);
		}
		dlist_delete(&trigger->node);
		codec_trigger_free(&trigger->def);
		pfree(trigger);
	}
}

bool
sync_triggers_waiting(void)
{
	return !dlist_is_empty(&waiting_triggers);
}
