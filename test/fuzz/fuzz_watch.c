/*
 * fuzz_watch.c
 *	  Any bytes as the stream of a watch: whatever is made of them, it is the same in whatever pieces they come.
 *
 * An input is a recording as test/unit/watch_replay.h has it. An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/base64.c src/core/backoff.c src/etcd/auth.c src/etcd/client.c src/etcd/message.c src/etcd/security.c src/etcd/watch.c test/unit/loop_standalone.c test/unit/http_replay.c */
/* libs: -lcjson */
#include "postgres.h"

#undef fprintf

#include "check.h"
#include "watch_replay.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The trace of a stream in pieces of lengths that come from a seed; 0: whole. */
static char *
trace(EtcdClient *client, const uint8_t *data, size_t size, uint64 seed, size_t longest, long long *next)
{
	Replay replay;
	size_t from = 0;
	char *text;

	replay_open(&replay, (const char *) data, size);
	replay_begin(&replay, client);
	while (from < replay.len)
	{
		size_t len = replay.len - from;

		if (longest > 0)
		{
			seed = seed * UINT64CONST(6364136223846793005) + 1;
			len = Min(len, 1 + (size_t) (seed >> 33) % longest);
		}
		replay_piece(&replay, from, from + len);
		from += len;
	}
	text = replay_close(&replay);
	CHECK(replay.lost);
	memcpy(next, replay.next, sizeof(replay.next));
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	EtcdClient *client = etcd_client_create(NULL, "http://127.0.0.1:1");
	long long next[REPLAY_MAX_RANGES], other[REPLAY_MAX_RANGES];
	static const size_t longest[] = {1, 7, 300};
	uint64 seed = size;
	char *whole, *pieces;
	size_t i;

	for (i = 0; i < size; i++)
		seed = seed * 31 + data[i];
	whole = trace(client, data, size, 0, 0, next);
	for (i = size > 600; i < lengthof(longest); i++) /* byte by byte costs by the square */
	{
		pieces = trace(client, data, size, seed, longest[i], other);
		CHECK(strcmp(whole, pieces) == 0);
		CHECK(memcmp(next, other, sizeof(next)) == 0);
		free(pieces);
	}
	free(whole);
	etcd_client_destroy(client);
	return 0;
}
