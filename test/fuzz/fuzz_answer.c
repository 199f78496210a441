/*
 * fuzz_answer.c
 *	  Any bytes as the answer of a member of etcd to a request: its status in the first line, then its body.
 *
 * The client must call back once, not take an error for an answer, and give numbers and keys as they were sent. What a caller does with an answer (to walk through
 * the parts of a transaction and the pairs of a range) is done here with each. An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/base64.c src/core/backoff.c src/etcd/auth.c src/etcd/client.c src/etcd/message.c src/etcd/security.c src/etcd/watch.c test/unit/loop_standalone.c test/unit/http_replay.c */
/* libs: -lcjson */
#include "postgres.h"

#undef fprintf

#include <stdlib.h>

#include "check.h"
#include "http_replay.h"

#include "etcd/client.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int answers;
static long http_status;

static void
walk_range(const cJSON *range)
{
	const cJSON *item;
	int n = 0;

	CHECK(etcd_kv_count(range) >= 0);
	(void) etcd_range_more(range);
	cJSON_ArrayForEach(item, etcd_kvs(range))
	{
		EtcdKv kv, again;

		if (etcd_kv_read(item, &kv))
		{
			CHECK(kv.key != NULL && (kv.value != NULL || kv.value_len == 0));
			CHECK(kv.value == NULL || kv.value[kv.value_len] == '\0');
			CHECK(etcd_kv_at(range, n, &again));
			CHECK(strcmp(kv.key, again.key) == 0 && kv.value_len == again.value_len &&
				  kv.mod_revision == again.mod_revision);
			etcd_kv_free(&again);
		}
		etcd_kv_free(&kv);
		n++;
	}
	CHECK(n == etcd_kv_count(range));
}

static void
walk_txn(const cJSON *txn, int depth)
{
	int i;

	(void) etcd_txn_succeeded(txn);
	for (i = 0; i < 8; i++)
	{
		const cJSON *part = etcd_txn_response(txn, i);

		if (part == NULL)
			continue;
		walk_range(part);
		if (depth > 0)
			walk_txn(part, depth - 1);
	}
}

static void
answered(void *arg, const EtcdResponse *r)
{
	answers++;
	CHECK(r->message != NULL && r->endpoint != NULL);
	CHECK(!r->ok || http_status == 200);
	CHECK(!r->ok || r->body != NULL);
	CHECK(r->ok || r->message[0] != '\0');
	/* What the peer says is fit for a log. */
	for (const char *c = r->message; *c != '\0'; c++)
		CHECK(*c >= ' ' && *c < 127);
	if (r->body == NULL)
		return;
	(void) etcd_json_int64(r->body, "TTL");
	(void) etcd_json_uint64(r->body, "ID");
	walk_range(r->body);
	walk_txn(r->body, 2);
}

/* One request whose every attempt is answered like this. */
static void
ask(EtcdClient *client, EtcdKind kind, bool lease, const char *body, size_t len, long status)
{
	answers = 0;
	http_status = status;
	if (lease)
		CHECK(etcd_lease_keepalive(client, 7, 1000, answered, NULL) != NULL);
	else
		CHECK(etcd_call(client, "/v3/kv/range", etcd_range("/a/", "/a0", 0, false), kind, 1000, answered, NULL) != NULL);
	while (replay_transfer() != NULL)
	{
		CHECK(answers == 0);
		replay_data(body, len);
		replay_end(HTTP_COMPLETE, status);
	}
	CHECK(answers == 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	EtcdClient *client = etcd_client_create(NULL, "http://127.0.0.1:1,http://127.0.0.1:2");
	const char *body = (const char *) data;
	const char *newline = size > 0 ? memchr(data, '\n', size) : NULL;
	char line[8] = "";
	long status = 200;

	if (newline != NULL && newline - body < (ptrdiff_t) sizeof(line))
	{
		memcpy(line, body, (size_t) (newline - body));
		status = strtol(line, NULL, 10);
		body = newline + 1;
		size -= (size_t) (body - (const char *) data);
	}
	ask(client, ETCD_READ, false, body, size, status);
	ask(client, ETCD_WRITE, false, body, size, status);
	ask(client, ETCD_IDEMPOTENT, true, body, size, status);
	etcd_client_destroy(client);
	return 0;
}
