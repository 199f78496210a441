/*
 * keys.c
 *	  The keys that dsched uses in etcd, and the hash that puts jobs into partitions.
 *
 * THE SCHEME
 *
 *		/dsched/<cluster>/config
 *		/dsched/<cluster>/node/<node>
 *		/dsched/<cluster>/db/<database>/member/<node>
 *		/dsched/<cluster>/db/<database>/job/<pp>/<role>/<name>
 *		/dsched/<cluster>/db/<database>/jobrev/<pp>
 *		/dsched/<cluster>/db/<database>/trigger/<pp>/<id>
 *		/dsched/<cluster>/db/<database>/owner/<place>/<pp>
 *		/dsched/<cluster>/db/<database>/state/<place>/<pp>
 *		/dsched/<cluster>/db/<database>/cmd/<place>/<pp>/<job>/<slot>/<trigger>/<attempt>
 *		/dsched/<cluster>/db/<database>/outcome/<place>/<pp>/<job>/<slot>/<trigger>/<attempt>
 *		/dsched/<cluster>/db/<database>/queue/<name>
 *		/dsched/<cluster>/db/<database>/queuerev
 *
 * <pp> is the partition's number in decimal with exactly three digits.  <place> is "any" or a selector in its one form
 * (selector.c), which always has an equals sign.  <id>, <job> and <attempt>
 * are decimal numbers from 1 without leading zeros, <trigger> from 0, and <slot> may be negative; none is
 * beyond 2^53-1.  Every other <part> is a name of 1 to 255 bytes,
 * percent-encoded: the bytes A-Z a-z 0-9 - _ . ~ stand for themselves, each other byte is '%'
 * and two upper-case hexadecimal digits.  A name therefore never contains '/', and a key and
 * its parts determine each other: two keys that differ cannot mean the same thing.  NUL
 * cannot occur.  Names are bytes to this file; that they are valid text is for those to check
 * who use them as text.
 *
 * THE PARTITION OF A JOB
 *
 * It must be the same on every server of a cluster, whatever its version, byte order and
 * encoding tables are, and for as long as the cluster's data live.  So it is a function of
 * ours and never changes:
 *
 *		h = 14695981039346656037 xor seed			(FNV-1a, 64 bits; arithmetic modulo 2^64)
 *		for each byte b:  h = (h xor b) * 1099511628211
 *		h = h xor (h >> 33);  h = h * 0xff51afd7ed558ccd		(the finalizer of MurmurHash3)
 *		h = h xor (h >> 33);  h = h * 0xc4ceb9fe1a85ec53
 *		h = h xor (h >> 33)
 *
 * over the bytes of the role, one NUL byte, and the bytes of the job's name (both as they
 * are, not encoded), with seed 0; the partition is h modulo the number of partitions.  FNV
 * alone is weak in its upper and lower bits for short and similar names, hence the finalizer.
 * test/unit/test_keys.c pins examples.
 */
#include "core/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FNV_OFFSET UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

/* A key being written into a buffer of KEYS_MAX_LEN; once not ok, it stays so. */
typedef struct KeyWriter
{
	char *out;
	size_t used;
	bool ok;
} KeyWriter;

static uint64_t
fnv_add(uint64_t hash, const void *data, size_t len)
{
	const unsigned char *byte = data;
	size_t i;

	for (i = 0; i < len; i++)
		hash = (hash ^ byte[i]) * FNV_PRIME;
	return hash;
}

static uint64_t
finalize(uint64_t hash)
{
	hash ^= hash >> 33;
	hash *= UINT64_C(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	hash *= UINT64_C(0xc4ceb9fe1a85ec53);
	hash ^= hash >> 33;
	return hash;
}

uint64_t
keys_hash(const void *data, size_t len, uint64_t seed)
{
	return finalize(fnv_add(FNV_OFFSET ^ seed, data, len));
}

int
keys_partition(const char *role, const char *name, int partitions)
{
	uint64_t hash = FNV_OFFSET;

	/* strlen + 1: the role's NUL is the separator, so that ("a", "bc") is not ("ab", "c") */
	hash = fnv_add(hash, role, strlen(role) + 1);
	hash = fnv_add(hash, name, strlen(name));
	return partitions > 0 ? (int) (finalize(hash) % (uint64_t) partitions) : 0;
}

/* Not isalnum(), which depends on the locale. */
static bool
is_unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
		   c == '_' || c == '.' || c == '~';
}

bool
keys_encode(const char *in, char *out, size_t outlen)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t used = 0;

	if (outlen == 0)
		return false;
	for (; *in != '\0'; in++)
	{
		unsigned char c = (unsigned char) *in;
		size_t need = is_unreserved(c) ? 1 : 3;

		if (outlen - used <= need)
		{
			out[0] = '\0';
			return false;
		}
		if (need == 1)
			out[used++] = (char) c;
		else
		{
			out[used++] = '%';
			out[used++] = digits[c >> 4];
			out[used++] = digits[c & 15];
		}
	}
	out[used] = '\0';
	return true;
}

/* -1 for what keys_encode() does not write, lower case among it. */
static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Reads one byte of an encoded name and moves on; -1 if it is not encoded as it must be. */
static int
decode_byte(const char **in)
{
	const char *p = *in;
	int high;
	int low;
	int c;

	if (*p != '%')
	{
		*in = p + 1;
		return is_unreserved((unsigned char) *p) ? (unsigned char) *p : -1;
	}
	high = hex_value(p[1]);
	if (high < 0)
		return -1;
	low = hex_value(p[2]);
	if (low < 0)
		return -1;
	c = high * 16 + low;
	*in = p + 3;
	return c == 0 || is_unreserved((unsigned char) c) ? -1 : c;
}

bool
keys_decode(const char *in, char *out, size_t outlen)
{
	size_t used = 0;

	if (outlen == 0)
		return false;
	while (*in != '\0')
	{
		int c = decode_byte(&in);

		if (c < 0 || outlen - used <= 1)
		{
			out[0] = '\0';
			return false;
		}
		out[used++] = (char) c;
	}
	out[used] = '\0';
	return true;
}

static KeyWriter
key_begin(char *out)
{
	KeyWriter key = {out, 0, true};

	out[0] = '\0';
	return key;
}

static bool
key_end(const KeyWriter *key)
{
	if (!key->ok)
		key->out[0] = '\0';
	return key->ok;
}

static void
put_literal(KeyWriter *key, const char *text)
{
	size_t len = strlen(text);

	if (!key->ok || KEYS_MAX_LEN - key->used <= len)
	{
		key->ok = false;
		return;
	}
	memcpy(key->out + key->used, text, len + 1);
	key->used += len;
}

static void
put_name(KeyWriter *key, const char *name)
{
	size_t len = strlen(name);

	key->ok = key->ok && len >= 1 && len <= KEYS_MAX_NAME &&
			  keys_encode(name, key->out + key->used, KEYS_MAX_LEN - key->used);
	if (key->ok)
		key->used += strlen(key->out + key->used);
}

static void
put_partition(KeyWriter *key, int partition)
{
	char digits[4];

	if (partition < 0 || partition >= KEYS_MAX_PARTITIONS)
	{
		key->ok = false;
		return;
	}
	digits[0] = (char) ('0' + partition / 100);
	digits[1] = (char) ('0' + partition / 10 % 10);
	digits[2] = (char) ('0' + partition % 10);
	digits[3] = '\0';
	put_literal(key, digits);
}

static void
put_id(KeyWriter *key, int64_t id)
{
	char digits[24];
	char *p = digits + sizeof(digits) - 1;

	if (id < 1 || id > KEYS_MAX_ID)
	{
		key->ok = false;
		return;
	}
	*p = '\0';
	for (; id > 0; id /= 10)
		*--p = (char) ('0' + id % 10);
	put_literal(key, p);
}

/* /dsched/<cluster>/ and a literal */
static KeyWriter
begin_cluster(char *out, const char *cluster, const char *literal)
{
	KeyWriter key = key_begin(out);

	put_literal(&key, "/dsched/");
	put_name(&key, cluster);
	put_literal(&key, "/");
	put_literal(&key, literal);
	return key;
}

/* /dsched/<cluster>/db/<database>/ and a literal */
static KeyWriter
begin_database(char *out, const char *cluster, const char *database, const char *literal)
{
	KeyWriter key = begin_cluster(out, cluster, "db/");

	put_name(&key, database);
	put_literal(&key, "/");
	put_literal(&key, literal);
	return key;
}

/* Most keys and prefixes of a database: with a partition's number, if one is given, and an end. */
static bool
database_key(char *out, const char *cluster, const char *database, const char *literal,
			 int partition, const char *end)
{
	KeyWriter key = begin_database(out, cluster, database, literal);

	put_partition(&key, partition);
	put_literal(&key, end);
	return key_end(&key);
}

/* A key of a partition of a place. */
static bool
place_key(char *out, const char *cluster, const char *database, const char *literal,
		  const char *place, int partition)
{
	KeyWriter key = begin_database(out, cluster, database, literal);

	put_name(&key, place);
	put_literal(&key, "/");
	put_partition(&key, partition);
	return key_end(&key);
}

static bool
database_prefix(char *out, const char *cluster, const char *database, const char *literal)
{
	KeyWriter key = begin_database(out, cluster, database, literal);

	return key_end(&key);
}

bool
keys_config(char *out, const char *cluster)
{
	KeyWriter key = begin_cluster(out, cluster, "config");

	return key_end(&key);
}

bool
keys_recovery(char *out, const char *cluster)
{
	KeyWriter key = begin_cluster(out, cluster, "recovery");

	return key_end(&key);
}

bool
keys_former(char *out, const char *cluster, const char *database)
{
	KeyWriter key = begin_cluster(out, cluster, "former/");

	put_name(&key, database);
	return key_end(&key);
}

bool
keys_databases_prefix(char *out, const char *cluster)
{
	KeyWriter key = begin_cluster(out, cluster, "db/");

	return key_end(&key);
}

bool
keys_node(char *out, const char *cluster, const char *node)
{
	KeyWriter key = begin_cluster(out, cluster, "node/");

	put_name(&key, node);
	return key_end(&key);
}

bool
keys_member(char *out, const char *cluster, const char *database, const char *node)
{
	KeyWriter key = begin_database(out, cluster, database, "member/");

	put_name(&key, node);
	return key_end(&key);
}

bool
keys_job(char *out, const char *cluster, const char *database, int partition, const char *role,
		 const char *name)
{
	KeyWriter key = begin_database(out, cluster, database, "job/");

	put_partition(&key, partition);
	put_literal(&key, "/");
	put_name(&key, role);
	put_literal(&key, "/");
	put_name(&key, name);
	return key_end(&key);
}

bool
keys_jobrev(char *out, const char *cluster, const char *database, int partition)
{
	return database_key(out, cluster, database, "jobrev/", partition, "");
}

bool
keys_trigger(char *out, const char *cluster, const char *database, int partition, int64_t id)
{
	KeyWriter key = begin_database(out, cluster, database, "trigger/");

	put_partition(&key, partition);
	put_literal(&key, "/");
	put_id(&key, id);
	return key_end(&key);
}

void
keys_short_place(const char *place, char *out)
{
	if (strcmp(place, KEYS_PLACE_ANY) == 0)
		snprintf(out, KEYS_SHORT_PLACE, "%s", place);
	else
		snprintf(out, KEYS_SHORT_PLACE, "s%016" PRIx64, keys_hash(place, strlen(place), 0));
}

bool
keys_owner(char *out, const char *cluster, const char *database, const char *place, int partition)
{
	return place_key(out, cluster, database, "owner/", place, partition);
}

bool
keys_state(char *out, const char *cluster, const char *database, const char *place, int partition)
{
	return place_key(out, cluster, database, "state/", place, partition);
}

bool
keys_queue(char *out, const char *cluster, const char *database, const char *name)
{
	KeyWriter key = begin_database(out, cluster, database, "queue/");

	put_name(&key, name);
	return key_end(&key);
}

bool
keys_queuerev(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "queuerev");
}

/* Any decimal number that is exact in JSON, for what has no id: 0, and times before 1970. */
static void
put_number(KeyWriter *key, int64_t number)
{
	if (number < 0)
	{
		put_literal(key, "-");
		put_id(key, -number);
	}
	else if (number == 0)
		put_literal(key, "0");
	else
		put_id(key, number);
}

/* <place>/<pp>/<job>/<slot>/<trigger> */
static void
put_run(KeyWriter *key, const RunName *run)
{
	put_name(key, run->place);
	put_literal(key, "/");
	put_partition(key, run->partition);
	put_literal(key, "/");
	put_id(key, run->job_id);
	put_literal(key, "/");
	put_number(key, run->slot);
	put_literal(key, "/");
	if (run->trigger_id < 0)
		key->ok = false;
	put_number(key, run->trigger_id);
}

bool
keys_run(char *out, const char *cluster, const char *database, const RunName *run)
{
	KeyWriter key = begin_database(out, cluster, database, "run/");

	put_run(&key, run);
	if (run->attempt != 0)
	{
		put_literal(&key, "/");
		put_id(&key, run->attempt);
	}
	return key_end(&key);
}

static bool
attempt_key(char *out, const char *cluster, const char *database, const char *literal, const RunName *run)
{
	KeyWriter key = begin_database(out, cluster, database, literal);

	put_run(&key, run);
	put_literal(&key, "/");
	put_id(&key, run->attempt);
	return key_end(&key);
}

bool
keys_command(char *out, const char *cluster, const char *database, const RunName *run)
{
	return attempt_key(out, cluster, database, "cmd/", run);
}

bool
keys_outcome(char *out, const char *cluster, const char *database, const RunName *run)
{
	return attempt_key(out, cluster, database, "outcome/", run);
}

bool
keys_run_attempts_prefix(char *out, const char *cluster, const char *database, const RunName *run)
{
	KeyWriter key = begin_database(out, cluster, database, "run/");

	put_run(&key, run);
	put_literal(&key, "/");
	return key_end(&key);
}

bool
keys_decided(char *out, const char *cluster, const char *database, const RunName *run)
{
	KeyWriter key = begin_database(out, cluster, database, "decided/");

	put_run(&key, run);
	return key_end(&key);
}

bool
keys_run_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "run/");
}

bool
keys_run_partition_prefix(char *out, const char *cluster, const char *database, const char *place,
						  int partition)
{
	KeyWriter key = begin_database(out, cluster, database, "run/");

	put_name(&key, place);
	put_literal(&key, "/");
	put_partition(&key, partition);
	put_literal(&key, "/");
	return key_end(&key);
}

bool
keys_node_prefix(char *out, const char *cluster)
{
	KeyWriter key = begin_cluster(out, cluster, "node/");

	return key_end(&key);
}

bool
keys_member_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "member/");
}

bool
keys_jobrev_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "jobrev/");
}

bool
keys_job_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "job/");
}

bool
keys_job_partition_prefix(char *out, const char *cluster, const char *database, int partition)
{
	return database_key(out, cluster, database, "job/", partition, "/");
}

bool
keys_trigger_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "trigger/");
}

bool
keys_trigger_partition_prefix(char *out, const char *cluster, const char *database, int partition)
{
	return database_key(out, cluster, database, "trigger/", partition, "/");
}

bool
keys_owner_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "owner/");
}

bool
keys_state_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "state/");
}

bool
keys_command_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "cmd/");
}

bool
keys_outcome_prefix(char *out, const char *cluster, const char *database)
{
	return database_prefix(out, cluster, database, "outcome/");
}

bool
keys_prefix_end(const char *prefix, char *end)
{
	size_t len = strlen(prefix);

	end[0] = '\0';
	/* Bytes of 0xFF have no successor; our prefixes end in '/', so the loop is for strangers'. */
	while (len > 0 && (unsigned char) prefix[len - 1] == 0xFF)
		len--;
	if (len == 0 || len >= KEYS_MAX_LEN)
		return false;
	memcpy(end, prefix, len);
	end[len - 1] = (char) ((unsigned char) end[len - 1] + 1);
	end[len] = '\0';
	return true;
}

bool
keys_definition_range(char *start, char *end, const char *cluster, const char *database)
{
	/* '0' is the byte after '/', and no other key of ours lies between job/ and jobrev/. */
	return database_prefix(start, cluster, database, "job/") &&
		   database_prefix(end, cluster, database, "jobrev0");
}

bool
keys_queue_range(char *start, char *end, const char *cluster, const char *database)
{
	/* the end is the key after queuerev, which no key of ours is */
	return database_prefix(start, cluster, database, "queue/") &&
		   database_prefix(end, cluster, database, "queuerev0");
}

static bool
take_literal(const char **key, const char *literal)
{
	size_t len = strlen(literal);

	if (strncmp(*key, literal, len) != 0)
		return false;
	*key += len;
	return true;
}

/* Reads one part of a key, up to the next '/' or the end, into out of KEYS_MAX_NAME + 1 bytes. */
static bool
take_name(const char **key, char *out)
{
	char encoded[KEYS_MAX_ENCODED + 1];
	size_t len = 0;

	while ((*key)[len] != '\0' && (*key)[len] != '/')
	{
		if (len >= KEYS_MAX_ENCODED)
			return false;
		encoded[len] = (*key)[len];
		len++;
	}
	encoded[len] = '\0';
	*key += len;
	return len > 0 && keys_decode(encoded, out, KEYS_MAX_NAME + 1);
}

bool
keys_is_shown(const char *name)
{
	const unsigned char *p = (const unsigned char *) name;

	for (; *p != '\0'; p++)
	{
		if (*p < 0x20 || *p == 0x7F || (p[0] == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F))
			return false;
	}
	return true;
}

/* The name of an instance, which is shown to people and logged. */
static bool
take_node(const char **key, char *out)
{
	return take_name(key, out) && keys_is_shown(out);
}

static bool
take_partition(const char **key, int *partition)
{
	int i;

	*partition = 0;
	for (i = 0; i < 3; i++)
	{
		char c = (*key)[i];

		if (c < '0' || c > '9')
			return false;
		*partition = *partition * 10 + (c - '0');
	}
	*key += 3;
	return true;
}

static bool
take_id(const char **key, int64_t *id)
{
	*id = 0;
	if (**key == '0')
		return false;
	for (; **key >= '0' && **key <= '9'; (*key)++)
	{
		*id = *id * 10 + (**key - '0');
		if (*id > KEYS_MAX_ID)
			return false;
	}
	return *id > 0;
}

/* What put_number() writes, and nothing else. */
static bool
take_number(const char **key, int64_t *number)
{
	bool negative = take_literal(key, "-");

	if (!negative && take_literal(key, "0"))
	{
		*number = 0;
		return true;
	}
	if (!take_id(key, number))
		return false;
	if (negative)
		*number = -*number;
	return true;
}

static bool
take_run(const char **key, RunName *run, bool attempts)
{
	int64_t attempt = 0;

	if (!take_name(key, run->place) || !take_literal(key, "/") || !take_partition(key, &run->partition) ||
		!take_literal(key, "/") || !take_id(key, &run->job_id) || !take_literal(key, "/") ||
		!take_number(key, &run->slot) || !take_literal(key, "/") || !take_number(key, &run->trigger_id) ||
		run->trigger_id < 0)
		return false;
	if (attempts && take_literal(key, "/") && (!take_id(key, &attempt) || attempt > INT32_MAX))
		return false;
	run->attempt = (int32_t) attempt;
	return true;
}

/* What follows /dsched/<cluster>/db/<database>/, but for the check that nothing is left over. */
static bool
take_database_key(const char **key, KeyParts *out)
{
	if (take_literal(key, "member/"))
	{
		out->kind = KEY_MEMBER;
		return take_node(key, out->node);
	}
	if (take_literal(key, "job/"))
	{
		out->kind = KEY_JOB;
		return take_partition(key, &out->partition) && take_literal(key, "/") &&
			   take_name(key, out->role) && take_literal(key, "/") && take_name(key, out->name);
	}
	if (take_literal(key, "trigger/"))
	{
		out->kind = KEY_TRIGGER;
		return take_partition(key, &out->partition) && take_literal(key, "/") &&
			   take_id(key, &out->id);
	}
	if (take_literal(key, "cmd/"))
	{
		out->kind = KEY_COMMAND;
		return take_run(key, &out->run, true) && out->run.attempt > 0;
	}
	if (take_literal(key, "outcome/"))
	{
		out->kind = KEY_OUTCOME;
		return take_run(key, &out->run, true) && out->run.attempt > 0;
	}
	if (take_literal(key, "queue/"))
	{
		out->kind = KEY_QUEUE;
		return take_name(key, out->name);
	}
	if (take_literal(key, "queuerev"))
	{
		out->kind = KEY_QUEUEREV;
		return true;
	}
	if (take_literal(key, "run/"))
	{
		out->kind = KEY_RUN;
		return take_run(key, &out->run, true);
	}
	if (take_literal(key, "decided/"))
	{
		out->kind = KEY_DECIDED;
		return take_run(key, &out->run, false);
	}
	if (take_literal(key, "jobrev/"))
	{
		out->kind = KEY_JOBREV;
		return take_partition(key, &out->partition);
	}
	if (take_literal(key, "owner/"))
		out->kind = KEY_OWNER;
	else if (take_literal(key, "state/"))
		out->kind = KEY_STATE;
	else
		return false;
	return take_name(key, out->place) && take_literal(key, "/") && take_partition(key, &out->partition);
}

/* What follows /dsched/. */
static bool
take_key(const char *cluster, const char *key, KeyParts *out)
{
	char name[KEYS_MAX_NAME + 1];

	if (!take_name(&key, name) || strcmp(name, cluster) != 0 || !take_literal(&key, "/"))
		return false;
	if (take_literal(&key, "config"))
		out->kind = KEY_CONFIG;
	else if (take_literal(&key, "recovery"))
		out->kind = KEY_RECOVERY;
	else if (take_literal(&key, "former/"))
	{
		out->kind = KEY_FORMER;
		if (!take_name(&key, out->database))
			return false;
	}
	else if (take_literal(&key, "node/"))
	{
		out->kind = KEY_NODE;
		if (!take_node(&key, out->node))
			return false;
	}
	else if (!take_literal(&key, "db/") || !take_name(&key, out->database) ||
			 !take_literal(&key, "/") || !take_database_key(&key, out))
		return false;
	return *key == '\0';
}

static void
clear_parts(KeyParts *parts)
{
	memset(parts, 0, sizeof(*parts));
	parts->partition = -1;
}

bool
keys_parse(const char *cluster, const char *key, KeyParts *out)
{
	clear_parts(out);
	if (take_literal(&key, "/dsched/") && take_key(cluster, key, out))
		return true;
	clear_parts(out);
	return false;
}
