/*
 * fuzz_keys.c
 *	  Any bytes as a key of etcd, and as the name of a prepared transaction: one that is understood is exactly the one that would be made of its parts.
 *	  And any bytes as a name in a key.
 *
 * An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/keys.c src/core/gid.c */
#include <stdbool.h>
#include <string.h>

#include "check.h"

#include "core/gid.h"
#include "core/keys.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CLUSTER "main"
#define ODD_CLUSTER "a b/\xc3\xa9%"

static bool
build(char *out, const char *cluster, const KeyParts *parts)
{
	switch (parts->kind)
	{
		case KEY_CONFIG:
			return keys_config(out, cluster);
		case KEY_NODE:
			return keys_node(out, cluster, parts->node);
		case KEY_MEMBER:
			return keys_member(out, cluster, parts->database, parts->node);
		case KEY_JOB:
			return keys_job(out, cluster, parts->database, parts->partition, parts->role, parts->name);
		case KEY_JOBREV:
			return keys_jobrev(out, cluster, parts->database, parts->partition);
		case KEY_TRIGGER:
			return keys_trigger(out, cluster, parts->database, parts->partition, parts->id);
		case KEY_OWNER:
			return keys_owner(out, cluster, parts->database, parts->place, parts->partition);
		case KEY_STATE:
			return keys_state(out, cluster, parts->database, parts->place, parts->partition);
		case KEY_QUEUE:
			return keys_queue(out, cluster, parts->database, parts->name);
		case KEY_QUEUEREV:
			return keys_queuerev(out, cluster, parts->database);
		case KEY_RECOVERY:
			return keys_recovery(out, cluster);
		case KEY_FORMER:
			return keys_former(out, cluster, parts->database);
		case KEY_COMMAND:
			return keys_command(out, cluster, parts->database, &parts->run);
		case KEY_OUTCOME:
			return keys_outcome(out, cluster, parts->database, &parts->run);
		case KEY_RUN:
			return keys_run(out, cluster, parts->database, &parts->run);
		case KEY_DECIDED:
			return keys_decided(out, cluster, parts->database, &parts->run);
	}
	return false;
}

static void
check_parse(const char *cluster, const char *key)
{
	KeyParts parts;
	char built[KEYS_MAX_LEN], end[KEYS_MAX_LEN];

	memset(&parts, 0x5a, sizeof(parts));
	if (!keys_parse(cluster, key, &parts))
	{
		CHECK(parts.database[0] == '\0' && parts.node[0] == '\0' && parts.role[0] == '\0' && parts.name[0] == '\0');
		CHECK(parts.id == 0);
		return;
	}
	CHECK(parts.partition >= -1 && parts.partition < KEYS_MAX_PARTITIONS);
	CHECK(parts.id >= 0 && parts.id <= KEYS_MAX_ID);
	CHECK(build(built, cluster, &parts));
	CHECK(strcmp(built, key) == 0);
	CHECK(keys_prefix_end(built, end));
	CHECK(strcmp(end, built) > 0);
}

static void
check_gid(const char *text)
{
	RunGid gid;
	char again[GID_MAX];

	if (!gid_read(text, &gid))
		return;
	CHECK(gid_write(again, &gid));
	CHECK(strcmp(again, text) == 0);
}

static void
check_name(const char *name)
{
	char encoded[KEYS_MAX_ENCODED + 1], decoded[KEYS_MAX_NAME + 1], key[KEYS_MAX_LEN], longer[3 * 4096 + 1];
	KeyParts parts;

	if (keys_decode(name, longer, sizeof(longer)))
	{
		char again[3 * 4096 + 1];

		CHECK(keys_encode(longer, again, sizeof(again)));
		CHECK(strcmp(again, name) == 0);
	}
	if (!keys_encode(name, encoded, sizeof(encoded)))
	{
		CHECK(encoded[0] == '\0' && strlen(name) * 3 > KEYS_MAX_ENCODED);
		return;
	}
	CHECK(strchr(encoded, '/') == NULL);
	if (strlen(name) > KEYS_MAX_NAME)
		return;
	CHECK(keys_decode(encoded, decoded, sizeof(decoded)));
	CHECK(strcmp(decoded, name) == 0);
	/* Any name but the empty one can be a job's, and comes out of its key again. */
	if (name[0] == '\0')
		return;
	CHECK(keys_job(key, CLUSTER, name, keys_partition(name, name, 64), name, name));
	CHECK(keys_parse(CLUSTER, key, &parts));
	CHECK(parts.kind == KEY_JOB && strcmp(parts.name, name) == 0 && strcmp(parts.role, name) == 0 &&
		  strcmp(parts.database, name) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	check_parse(CLUSTER, text);
	check_parse(ODD_CLUSTER, text);
	check_gid(text);
	if (strlen(text) <= 4096)
		check_name(text);
	free(text);
	return 0;
}
