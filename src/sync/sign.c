/*
 * sign.c
 *	  Signatures of definitions and triggers in etcd, with the keys of dsched.cluster_key_file.
 *
 * Whoever can write to etcd must not thereby run SQL as any role of the servers.  With a key file, what this instance puts there
 * carries an HMAC, and what is read from there counts only if it has one.
 *
 * WHAT IS SIGNED
 *
 * The value ends with two members that are added to it when it is sent:
 *
 *	  <value without its last brace>,"after":N,"mac":"KKKKKKKK:HH..HH"}
 *
 * The HMAC-SHA-256 (HH..HH, 64 digits) is over the key in etcd, a line feed, and the value's bytes up to the comma before
 * "mac".  The key says the cluster, the database, what it is, the partition, the role and the name (or the trigger's id); the
 * value has the id, the generation, the change id and everything that is interpreted, with fields that only a newer version
 * knows.  As bytes are signed, not what they mean, every version verifies what any other has signed.  KKKKKKKK says by
 * which key: the first digits of the HMAC of "dsched key id" under it.
 *
 * WHAT IS NOT REPLAYED
 *
 * A signed version that was replaced can be put back by whoever writes to etcd.  So "after" is a revision that the signer had
 * proof of: that of the version which this one replaces, or, for a new one, that of jobrev/<pp>; both are compared in the
 * transaction that puts it.  A successor of a version that we know therefore has an "after" not below its revision, and
 * everything older has one below (intake.c).
 *
 * WHO HAS THE KEYS
 *
 * The scheduler alone, in this file.  slot->keys says what people may see: the ids.  A reload reads the file again; a file
 * that cannot be used then leaves the former keys in force.  At the start there are none in that case: then nothing that
 * stands in etcd counts, and nothing is published.
 *
 * Rows of dsched.job count as verified if dsched.identity says that they were, by keys that are all still there.  Else all
 * definitions are read anew (a full compare, follow.c), and each is verified.
 */
#include "postgres.h"

#include "common/hmac.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "key_file.h"
#include "settings.h"
#include "sync/sync_internal.h"

#define ID_LEN 8
#define MAC_BYTES 32
#define MAC_DIGITS (2 * MAC_BYTES)

/* The end of a signed value: ,"mac":"<id>:<digits>"} */
static const char mac_begin[] = ",\"mac\":\"";
static const char mac_end[] = "\"}";
static const char after_begin[] = ",\"after\":";

#define MAC_TAIL (sizeof(mac_begin) - 1 + ID_LEN + 1 + MAC_DIGITS + sizeof(mac_end) - 1)

typedef struct SigningKey
{
	char		id[ID_LEN + 1];
	pg_hmac_ctx *hmac;
	FileKey		key;
} SigningKey;

static struct
{
	bool		started;
	bool		required;		/* a file is named */
	int			nkeys;
	SigningKey	keys[KEY_FILE_MAX_KEYS];
} signing;

/* ---- HMAC ---------------------------------------------------------------------------------------- */

/*
 * A context of the server belongs to a resource owner; these live as long as the process, and are made outside of
 * transactions.
 */
static pg_hmac_ctx *
create_context(void)
{
	static ResourceOwner owner = NULL;
	ResourceOwner before = CurrentResourceOwner;
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
	pg_hmac_ctx *hmac;

	if (owner == NULL)
		owner = ResourceOwnerCreate(NULL, "dsched signatures");
	CurrentResourceOwner = owner;
	hmac = pg_hmac_create(PG_SHA256);
	CurrentResourceOwner = before;
	MemoryContextSwitchTo(context);
	if (hmac == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return hmac;
}

/* Of two texts with a line feed between them; the first may be NULL. */
static void
compute(const SigningKey *key, const char *name, size_t name_len, const char *text, size_t len, uint8 *out)
{
	if (pg_hmac_init(key->hmac, key->key.bytes, key->key.len) < 0 ||
		(name != NULL &&
		 (pg_hmac_update(key->hmac, (const uint8 *) name, name_len) < 0 ||
		  pg_hmac_update(key->hmac, (const uint8 *) "\n", 1) < 0)) ||
		pg_hmac_update(key->hmac, (const uint8 *) text, len) < 0 ||
		pg_hmac_final(key->hmac, out, MAC_BYTES) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a signature: %s", pg_hmac_error(key->hmac))));
}

static void
to_digits(const uint8 *bytes, int n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < n; i++)
	{
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
}

/* In a time that says nothing about where they differ. */
static bool
same_digits(const char *a, const char *b)
{
	unsigned char different = 0;

	for (int i = 0; i < MAC_DIGITS; i++)
		different |= (unsigned char) (a[i] ^ b[i]);
	return different == 0;
}

/* ---- the keys ------------------------------------------------------------------------------------ */

static void
adopt_key(const FileKey *from, SigningKey *to)
{
	static const char what[] = "dsched key id";
	uint8		mac[MAC_BYTES];

	to->key = *from;
	to->hmac = create_context();
	compute(to, NULL, 0, what, strlen(what), mac);
	to_digits(mac, ID_LEN / 2, to->id);
	to->id[ID_LEN] = '\0';
}

static void
drop_keys(void)
{
	for (int i = 0; i < signing.nkeys; i++)
		pg_hmac_free(signing.keys[i].hmac);
	explicit_bzero(signing.keys, sizeof(signing.keys));
	signing.nkeys = 0;
}

/* Their ids, for people and for dsched.identity. */
static void
list_ids(char *out, size_t size)
{
	out[0] = '\0';
	for (int i = 0; i < signing.nkeys; i++)
	{
		if (i > 0)
			strlcat(out, " ", size);
		strlcat(out, signing.keys[i].id, size);
	}
}

static SigningKey *
find_key(const char *id)
{
	for (int i = 0; i < signing.nkeys; i++)
		if (memcmp(signing.keys[i].id, id, ID_LEN) == 0)
			return &signing.keys[i];
	return NULL;
}

/* What people see of it in status(). */
static void
show_keys(const char *problem)
{
	LWLockAcquire(dsched_shared->control_lock, LW_EXCLUSIVE);
	list_ids(scheduler.slot->key_ids, sizeof(scheduler.slot->key_ids));
	strlcpy(scheduler.slot->key_problem, problem, sizeof(scheduler.slot->key_problem));
	LWLockRelease(dsched_shared->control_lock);
}

static void
set_verified(bool verified)
{
	scheduler.slot->verified = verified;
}

/* Reads the file; true: there are other keys now than before. */
static bool
load_keys(void)
{
	KeyFile		file;
	char		before[sizeof(scheduler.slot->key_ids)];
	char		ids[sizeof(scheduler.slot->key_ids)];
	char		problem[DSCHED_PROBLEM_LEN] = "";

	list_ids(before, sizeof(before));
	signing.required = scheduler.etcd != NULL && dsched_cluster_key_file[0] != '\0';
	if (!signing.required)
		drop_keys();
	else if (key_file_read(dsched_cluster_key_file, &file, problem, sizeof(problem)))
	{
		drop_keys();
		for (int i = 0; i < file.nkeys; i++)
		{
			adopt_key(&file.keys[i], &signing.keys[i]);
			signing.nkeys++;
		}
		key_file_wipe(&file);
	}
	else
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("dsched: the cluster's key file \"%s\" cannot be used: %s", dsched_cluster_key_file, problem),
				 signing.nkeys > 0 ? errdetail("The keys that were read before stay in force.") :
				 errdetail("No definition in etcd counts, and none is published, until it can be read.")));
	show_keys(problem);
	list_ids(ids, sizeof(ids));
	if (strcmp(before, ids) != 0 && signing.nkeys > 0)
		ereport(LOG,
				(errmsg("dsched: definitions of database \"%s\" are signed with key %s%s%s", scheduler.dbname,
						signing.keys[0].id, signing.nkeys > 1 ? "; also accepted: " : "",
						signing.nkeys > 1 ? signing.keys[1].id : "")));
	return strcmp(before, ids) != 0;
}

/* Is all that these keys have verified verified by ours?  ids as list_ids() writes them. */
static bool
covers(const char *ids)
{
	if (!signing.required)
		return true;
	if (ids[0] == '\0')
		return false;
	for (; *ids != '\0'; ids += strspn(ids, " "))
	{
		if (strlen(ids) < ID_LEN || find_key(ids) == NULL)
			return false;
		ids += ID_LEN;
	}
	return true;
}

static void
clear_ids(void *arg)
{
	Identity	identity;

	identity_read(&identity);
	identity.key_ids[0] = '\0';
	if (identity.found)
		identity_write(&identity);
}

/* From here on rows come that nobody verifies: that the others were says nothing any more, whatever happens to us. */
static void
forget_verified(void)
{
	if (signing.required || scheduler.identity.key_ids[0] == '\0')
		return;
	if (!scheduler_transaction(clear_ids, NULL, "noting that definitions are not signed"))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("dsched: it could not be noted that definitions are not signed any more")));
	scheduler.identity.key_ids[0] = '\0';
}

/* ---- asked by others ----------------------------------------------------------------------------- */

bool
sync_sign_start(void)
{
	signing.started = true;
	(void) load_keys();
	forget_verified();
	set_verified(covers(scheduler.identity.key_ids));
	return scheduler.slot->verified;
}

void
sync_sign_reload(void)
{
	bool		was_required = signing.required;
	char		before[sizeof(scheduler.slot->key_ids)];

	if (!signing.started || scheduler.etcd == NULL)
		return;
	list_ids(before, sizeof(before));
	if (!load_keys() && was_required == signing.required)
		return;
	forget_verified();
	set_verified(!signing.required || (scheduler.slot->verified && covers(was_required ? before : "")));
	/* what is held may verify now, and what stands in the table may not */
	sync_compare_again();
	sync_publish_changes();
}

bool
sync_sign_required(void)
{
	return signing.required;
}

bool
sync_can_sign(void)
{
	return !signing.required || signing.nkeys > 0;
}

bool
sync_verified(void)
{
	return scheduler.slot->verified;
}

/* A full compare has verified all; what is held is not usable. */
void
sync_now_verified(void)
{
	if (sync_can_sign())
		set_verified(true);
}

/* To be stored once all rows of dsched.job are versions that were verified; "": not so. */
void
sync_verified_ids(char *out, size_t size)
{
	out[0] = '\0';
	if (signing.required && scheduler.slot->verified)
		list_ids(out, size);
}

char *
sync_sign(const char *key, const char *value, int64 after, size_t *len)
{
	size_t		used = strlen(value);
	char	   *result;
	uint8		mac[MAC_BYTES];
	char	   *p;

	if (!signing.required || signing.nkeys == 0)
	{
		*len = used;
		return pstrdup(value);
	}
	Assert(used > 2 && value[used - 1] == '}');
	result = palloc(used + SYNC_SIGNATURE_MAX + 1);
	memcpy(result, value, used - 1);
	p = result + used - 1;
	p += sprintf(p, "%s" INT64_FORMAT, after_begin, after);
	compute(&signing.keys[0], key, strlen(key), result, p - result, mac);
	p += sprintf(p, "%s%s:", mac_begin, signing.keys[0].id);
	to_digits(mac, MAC_BYTES, p);
	strcpy(p + MAC_DIGITS, mac_end);
	*len = p + MAC_DIGITS + strlen(mac_end) - result;
	return result;
}

/* The number in ,"after":N at the end of a text; -1: there is none. */
static int64
read_after(const char *text, size_t len)
{
	size_t		start = len;
	int64		after = 0;

	while (start > 0 && len - start < 17 && text[start - 1] >= '0' && text[start - 1] <= '9')
		start--;
	if (start == len || len - start > 16 || start < sizeof(after_begin) - 1 ||
		memcmp(text + start - (sizeof(after_begin) - 1), after_begin, sizeof(after_begin) - 1) != 0)
		return -1;
	for (; start < len; start++)
		after = after * 10 + (text[start] - '0');
	return after;
}

bool
sync_verify(const char *key, size_t key_len, const char *value, size_t len, Signature *out, char *problem, size_t size)
{
	const char *tail = len > MAC_TAIL ? value + len - MAC_TAIL : NULL;
	const char *id;
	const SigningKey *by;
	uint8		mac[MAC_BYTES];
	char		digits[MAC_DIGITS];

	memset(out, 0, sizeof(*out));
	if (!signing.required)
		return true;
	if (tail == NULL || memcmp(tail, mac_begin, sizeof(mac_begin) - 1) != 0 ||
		tail[sizeof(mac_begin) - 1 + ID_LEN] != ':' ||
		memcmp(value + len - (sizeof(mac_end) - 1), mac_end, sizeof(mac_end) - 1) != 0 ||
		(out->after = read_after(value, tail - value)) < 0)
	{
		strlcpy(problem, "it is not signed", size);
		return false;
	}
	id = tail + sizeof(mac_begin) - 1;
	by = find_key(id);
	if (by == NULL)
	{
		bool		shown = strspn(id, "0123456789abcdef") >= ID_LEN;

		snprintf(problem, size, "it is signed with key %.8s, which is not in dsched.cluster_key_file here", shown ? id : "?");
		return false;
	}
	compute(by, key, key_len, value, tail - value, mac);
	to_digits(mac, MAC_BYTES, digits);
	if (!same_digits(digits, id + ID_LEN + 1))
	{
		strlcpy(problem, "its signature is wrong", size);
		return false;
	}
	out->current = by == &signing.keys[0];
	return true;
}
