/*
 * test_watch_stream.c
 *	  A watch must make the same of a stream whatever the pieces are in which the network gives it.
 *
 * The streams are those of test/fuzz/corpus/watch, most of which a real etcd has sent. Each is cut in two at every byte, given byte by byte, cut in
 * many random pieces, and broken off at every byte.
 */
/* links: src/core/base64.c src/core/backoff.c src/etcd/auth.c src/etcd/client.c src/etcd/message.c src/etcd/security.c src/etcd/watch.c test/unit/loop_standalone.c test/unit/http_replay.c */
/* libs: -lcjson */
#include "postgres.h"

#undef printf
#undef vprintf
#undef snprintf

#include <dirent.h>

#include "random.h"
#include "tap.h"
#include "watch_replay.h"

#define CORPUS "test/fuzz/corpus/watch"
#define RANDOM_CUTS 200

static EtcdClient *client;
static char recording[65536];
static size_t recording_len;

static bool
read_recording(const char *name)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), CORPUS "/%s", name);
	file = fopen(path, "rb");
	if (file == NULL)
		return false;
	recording_len = fread(recording, 1, sizeof(recording), file);
	fclose(file);
	return recording_len < sizeof(recording);
}

/* The trace of the stream up to "end", cut at all places whose byte in "cuts" is set; and the revisions to go on from. */
static char *
trace(const char *cuts, size_t end, long long *next)
{
	Replay replay;
	size_t from = 0, at;
	char *text;

	replay_open(&replay, recording, recording_len);
	end = Min(end, replay.len);
	replay_begin(&replay, client);
	for (at = 1; at < end; at++)
		if (cuts[at])
		{
			replay_piece(&replay, from, at);
			from = at;
		}
	if (end > from)
		replay_piece(&replay, from, end);
	text = replay_close(&replay);
	memcpy(next, replay.next, sizeof(replay.next));
	return text;
}

/* Does the stream in these pieces come to the same? */
static bool
same(const char *cuts, const char *whole, const long long *whole_next)
{
	long long next[REPLAY_MAX_RANGES];
	char *text = trace(cuts, SIZE_MAX, next);
	bool equal = strcmp(text, whole) == 0 && memcmp(next, whole_next, sizeof(next)) == 0;

	if (!equal)
		printf("# in pieces:\n%s# whole:\n%s", text, whole);
	free(text);
	return equal;
}

/*
 * A stream that broke off has told a part of what the whole one tells, from its beginning on, and then that it is lost; and no revision to
 * go on from is above the whole's.
 */
static bool
part_of(size_t end, const char *whole, const long long *whole_next)
{
	static const char none[sizeof(recording)];
	long long next[REPLAY_MAX_RANGES];
	char *text = trace(none, end, next);
	char *last = strstr(text, "lost ");
	bool part = last != NULL && strncmp(text, whole, (size_t) (last - text)) == 0;
	int i;

	for (i = 0; i < REPLAY_MAX_RANGES; i++)
		part &= next[i] <= whole_next[i];
	if (!part)
		printf("# broken off at %zu:\n%s# whole:\n%s", end, text, whole);
	free(text);
	return part;
}

static void
test_recording(const char *name)
{
	static char cuts[sizeof(recording)];
	long long next[REPLAY_MAX_RANGES];
	size_t len, i;
	int good = 0, parts = 0, n;
	char *whole;

	if (!ok(read_recording(name), "%s is read", name))
		return;
	len = recording_len; /* more than the stream, which begins behind the first line */
	memset(cuts, 0, sizeof(cuts));
	whole = trace(cuts, SIZE_MAX, next);
	for (i = 1; i < len; i++)
	{
		cuts[i] = 1;
		good += same(cuts, whole, next);
		cuts[i] = 0;
		parts += part_of(i, whole, next);
	}
	is_int(good, (int) len - 1, "[stream-cut-anywhere] %s, in two pieces, cut at each byte", name);
	is_int(parts, (int) len - 1, "[stream-broken-off] %s, broken off at each byte", name);
	memset(cuts, 1, sizeof(cuts));
	ok(same(cuts, whole, next), "[stream-cut-anywhere] %s, byte by byte", name);
	for (n = good = 0; n < RANDOM_CUTS; n++)
	{
		int64_t one_in = random_between(2, 200);

		for (i = 0; i < len; i++)
			cuts[i] = random_between(1, one_in) == 1;
		good += same(cuts, whole, next);
	}
	is_int(good, RANDOM_CUTS, "[stream-cut-anywhere] %s, in many pieces", name);
	free(whole);
}

/* What the recordings are about does come out of them. */
static void
test_meaning(void)
{
	long long next[REPLAY_MAX_RANGES];
	static const char none[sizeof(recording)];
	char *text;

	ok(read_recording("two-ranges-with-progress"), "a recording");
	text = trace(none, SIZE_MAX, next);
	ok(strstr(text, "started 13\n") != NULL && strstr(text, "delete 17 0 0 \"/a/2\"") != NULL &&
	   strstr(text, "put 17 17 0 \"/b/7\" two\n") != NULL && strstr(text, "progress 18\n") != NULL, "has events and progress");
	is_int(next[0], 19, "and a revision to go on from");
	free(text);
	ok(read_recording("compacted"), "another");
	text = trace(none, SIZE_MAX, next);
	ok(strstr(text, "lost 1 ") != NULL, "ends by a compaction");
	free(text);
}

int
main(void)
{
	struct dirent **entries;
	int i, count = scandir(CORPUS, &entries, NULL, alphasort);

	random_begin();
	client = etcd_client_create(NULL, "http://127.0.0.1:1");
	ok(count > 2 && client != NULL, "there are recordings");
	test_meaning();
	for (i = 0; i < count; i++)
	{
		if (entries[i]->d_name[0] != '.')
			test_recording(entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	etcd_client_destroy(client);
	return done();
}
