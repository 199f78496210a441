/*
 * watch_replay.h
 *	  What a watch makes of a stream, as text: for tests and fuzz targets that compare what came in other pieces.
 *
 * A recording begins with a line that says how many ranges the watch has and from which revision each starts ("2 0 15"). What follows is what
 * etcd sent, to the end of the stream.
 */
#ifndef DSCHED_TEST_WATCH_REPLAY_H
#define DSCHED_TEST_WATCH_REPLAY_H

#include "postgres.h"

#undef fprintf

#include "http_replay.h"

#include "etcd/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLAY_MAX_RANGES 3

typedef struct Replay
{
	int nranges;
	long long start[REPLAY_MAX_RANGES];
	const char *stream;
	size_t len;
	/* what came of it */
	EtcdWatch *watch;
	char *trace;
	size_t trace_len;
	FILE *out;
	bool lost;
	long long next[REPLAY_MAX_RANGES];
} Replay;

static void
replay_note_next(Replay *replay)
{
	for (int i = 0; i < replay->nranges; i++)
		replay->next[i] = (long long) etcd_watch_next_revision(replay->watch, i);
}

static void
replay_started(void *arg, int64 header_revision)
{
	fprintf(((Replay *) arg)->out, "started %lld\n", (long long) header_revision);
}

static void
replay_events(void *arg, int range_index, const EtcdEvent *events, int n, int64 header_revision)
{
	Replay *replay = arg;

	fprintf(replay->out, "events %d %lld\n", range_index, (long long) header_revision);
	for (int i = 0; i < n; i++)
	{
		fprintf(replay->out, "%s %lld %lld %lld \"%s\" ", events[i].is_delete ? "delete" : "put",
				   (long long) events[i].kv.mod_revision, (long long) events[i].kv.create_revision,
				   (long long) events[i].kv.lease, events[i].kv.key);
		fwrite(events[i].kv.value, 1, events[i].kv.value_len, replay->out);
		fputc('\n', replay->out);
	}
}

static void
replay_progress(void *arg, int64 header_revision)
{
	fprintf(((Replay *) arg)->out, "progress %lld\n", (long long) header_revision);
}

static void
replay_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	Replay *replay = arg;

	replay->lost = true;
	replay_note_next(replay);
	fprintf(replay->out, "lost %d %s\n", (int) why, message);
}

static const EtcdWatchHandler replay_handler = {replay_started, replay_events, replay_progress, replay_lost};

/* Takes a recording apart; whatever its first line is. */
static void
replay_open(Replay *replay, const char *data, size_t len)
{
	char line[100];
	const char *newline = len > 0 ? memchr(data, '\n', len) : NULL;
	size_t n = newline != NULL ? (size_t) (newline - data) : 0;

	memset(replay, 0, sizeof(*replay));
	replay->stream = newline != NULL ? newline + 1 : data;
	replay->len = newline != NULL ? len - n - 1 : len;
	n = n < sizeof(line) ? n : sizeof(line) - 1;
	if (n > 0)
		memcpy(line, data, n);
	line[n] = '\0';
	if (sscanf(line, "%d %lld %lld %lld", &replay->nranges, &replay->start[0], &replay->start[1], &replay->start[2]) < 1 ||
		replay->nranges < 1 || replay->nranges > REPLAY_MAX_RANGES)
		replay->nranges = 1;
}

static void
replay_begin(Replay *replay, EtcdClient *client)
{
	EtcdWatchRange ranges[REPLAY_MAX_RANGES] = {{"/a/", "/a0", 0}, {"/b/", "/b0", 0}, {"/c", NULL, 0}};

	replay->out = open_memstream(&replay->trace, &replay->trace_len);
	replay->lost = false;
	for (int i = 0; i < replay->nranges; i++)
		ranges[i].start_revision = replay->start[i];
	replay->watch = etcd_watch_start(client, ranges, replay->nranges, 0, &replay_handler, replay);
}

/* A piece of the stream; nothing, once the watch is lost. */
static void
replay_piece(Replay *replay, size_t from, size_t to)
{
	if (!replay->lost)
		replay_data(replay->stream + from, to - from);
}

/* The end of the stream, which is the end of the watch. The trace is to be freed. */
static char *
replay_close(Replay *replay)
{
	if (!replay->lost)
		replay_end(HTTP_COMPLETE, 200);
	if (!replay->lost)
		fprintf(replay->out, "lives on\n");
	fclose(replay->out);
	return replay->trace;
}

#endif /* DSCHED_TEST_WATCH_REPLAY_H */
