/*
 * watch.c
 *	  Following ranges of etcd's keys: one connection for a set of ranges.
 *
 * One POST carries a create request for each range; the answer is a stream of JSON objects, one a line, that
 * is cut anywhere by the network and ends, in case of an error, in an object without a newline.  Each create request
 * is answered by a "created", in their order, with the id by which events name the range; 0 is left out.
 *
 * What goes wrong, and how it shows:
 *	  history compacted, no permission		"canceled"; the connection stays open and silent
 *	  member shut down, quorum lost			an error object, then the end of the stream
 *	  member killed, network reset			the end of the stream
 *	  peer vanished							TCP keepalive, as etcd sends nothing by itself for ten minutes
 *	  etcd restored from a backup			the "created" header's revision is below our start; else silence
 * Each ends the watch; its user knows better than we do what to read anew, and when to try again.
 */
#include "postgres.h"

#include "clock.h"
#include "etcd/internal.h"
#include "etcd/watch.h"

#define PATH_WATCH "/v3/watch"

/* A watch that is not created in this time is lost. */
#define START_TIMEOUT_US INT64CONST(3000000)

/* How often it is sent again when it is refused for its token. */
#define MAX_LOGINS 2

#define MAX_URL 512

typedef struct WatchedRange
{
	int64 watch_id;
	int64 start; /* 0: from now on */
	int64 next;	 /* all events before it have been delivered; 0: not known */
} WatchedRange;

struct EtcdWatch
{
	EtcdGrave grave;
	dlist_node node; /* in client->watches */
	EtcdClient *client;
	EtcdTransfer *transfer; /* NULL: ended */
	int endpoint;			/* -1: none was had */
	bool waiting;			/* for a token of that endpoint */
	bool renewing;			/* lost because the certificates are others */
	bool again;				/* refused for its token: to be sent again, with another */
	unsigned int serial;	/* of the token that was sent */
	int logins;				/* how often it was refused */
	char *body;
	const EtcdWatchHandler *handler;
	void *arg;
	bool stopped;
	size_t scanned;			   /* bytes of the unfinished line that have no newline in them */
	int64 created_at_revision; /* the lowest of the "created" headers */
	int64 progress;			   /* told last */
	cJSON *object;			   /* the line that is being told */
	EtcdEvent *events;		   /* and its events */
	int nevents;
	int ncreated;
	int nranges;
	WatchedRange ranges[FLEXIBLE_ARRAY_MEMBER];
};

static void watch_data(void *arg, EtcdTransfer *transfer);
static void watch_done(void *arg, EtcdTransfer *transfer);

/* ---- starting and stopping ------------------------------------------------------------------ */

/* {"create_request":{...}} as text; NULL: out of memory */
static char *
create_request_text(const EtcdWatchRange *range, int64 start)
{
	/* A range request has the same three members, under the same names but for the revision. */
	cJSON *create = etcd_range(range->key, range->range_end, 0, false);
	cJSON *message = cJSON_CreateObject();
	char revision[32];
	char *text = NULL;

	snprintf(revision, sizeof(revision), "%lld", (long long) start);
	if (create != NULL && message != NULL &&
		(start == 0 || cJSON_AddStringToObject(create, "start_revision", revision) != NULL) &&
		cJSON_AddTrueToObject(create, "progress_notify") != NULL &&
		cJSON_AddItemToObject(message, "create_request", create))
	{
		create = NULL;
		text = cJSON_PrintUnformatted(message);
	}
	cJSON_Delete(create);
	cJSON_Delete(message);
	return text;
}

/* The create requests of all ranges, one a line; NULL: out of memory. */
static char *
watch_body(const EtcdWatch *watch, const EtcdWatchRange *ranges)
{
	char *body = calloc(1, 1);
	size_t len = 0;
	int i;

	for (i = 0; i < watch->nranges && body != NULL; i++)
	{
		char *text = create_request_text(&ranges[i], watch->ranges[i].start);
		size_t text_len = text == NULL ? 0 : strlen(text);
		char *longer = text == NULL ? NULL : realloc(body, len + text_len + 2);

		if (longer == NULL)
		{
			free(text);
			free(body);
			return NULL;
		}
		body = longer;
		memcpy(body + len, text, text_len);
		len += text_len;
		body[len++] = '\n';
		body[len] = '\0';
		free(text);
	}
	return body;
}

/* Sends it to its endpoint, or waits for a token of that. */
static EtcdTransfer *
begin_at_endpoint(EtcdWatch *watch)
{
	HttpPost post = {0};
	char url[MAX_URL];
	int64 now = dsched_boot_now();

	post.done = watch_done;
	post.data = watch_data;
	post.arg = watch;
	post.deadline = now + START_TIMEOUT_US;
	if (etcd_auth_needed(watch->client, watch->endpoint))
	{
		EtcdFault fault;
		const char *reason = etcd_auth_begin(watch->client, watch->endpoint, &fault);

		watch->waiting = reason == NULL;
		return reason == NULL ? etcd_http_wait(watch->client->http, &post)
							  : etcd_http_fail(watch->client->http, &post, reason);
	}
	if (!etcd_endpoint_url(watch->client, watch->endpoint, PATH_WATCH, url, sizeof(url)))
		return etcd_http_fail(watch->client->http, &post, "the endpoint is too long");

	watch->serial = watch->client->endpoints[watch->endpoint].serial;
	post.authorization = watch->client->endpoints[watch->endpoint].token;
	post.url = url;
	post.body = watch->body;
	post.body_len = strlen(watch->body);
	post.connect_timeout_ms = START_TIMEOUT_US / 1000;
	post.may_resend = true;
	post.stream = true;
	post.max_buffer = ETCD_MAX_RESPONSE;
	return etcd_http_post(watch->client->http, &post);
}

static EtcdTransfer *
start_transfer(EtcdWatch *watch)
{
	const char *reason = etcd_security_refusal(watch->client);
	HttpPost post = {0};

	post.done = watch_done;
	post.arg = watch;
	watch->endpoint = etcd_choose_endpoint(watch->client, 0);
	if (watch->endpoint < 0)
		reason = "no etcd endpoints are set";
	if (reason == NULL)
		return begin_at_endpoint(watch);
	watch->endpoint = -1;
	return etcd_http_fail(watch->client->http, &post, reason);
}

void
etcd_watch_wake(dlist_node *node, int endpoint, HttpOutcome outcome, const char *message)
{
	EtcdWatch *watch = dlist_container(EtcdWatch, node, node);

	if (!watch->waiting || watch->endpoint != endpoint)
		return;
	watch->waiting = false;
	etcd_http_end(watch->transfer, outcome, message);
}

void
etcd_watch_renew(dlist_node *node)
{
	EtcdWatch *watch = dlist_container(EtcdWatch, node, node);

	watch->renewing = true;
	if (watch->transfer != NULL)
		etcd_http_end(watch->transfer, HTTP_FAILED, "other certificates are in use now");
}

static void
free_events(EtcdWatch *watch)
{
	int i;

	for (i = 0; i < watch->nevents; i++)
		etcd_kv_free(&watch->events[i].kv);
	free(watch->events);
	watch->events = NULL;
	watch->nevents = 0;
}

static void
free_watch(EtcdGrave *self)
{
	EtcdWatch *watch = (EtcdWatch *) self;

	free_events(watch);
	cJSON_Delete(watch->object);
	free(watch->body);
	free(watch);
}

EtcdWatch *
etcd_watch_start(EtcdClient *client, const EtcdWatchRange *ranges, int n, int64 start_revision,
				 const EtcdWatchHandler *handler, void *arg)
{
	EtcdWatch *watch = calloc(1, offsetof(EtcdWatch, ranges) + n * sizeof(WatchedRange));
	int i;

	if (watch == NULL)
		return NULL;
	watch->client = client;
	watch->handler = handler;
	watch->arg = arg;
	watch->nranges = n;
	for (i = 0; i < n; i++)
	{
		watch->ranges[i].start =
			ranges[i].start_revision != 0 ? ranges[i].start_revision : start_revision;
		watch->ranges[i].next = watch->ranges[i].start;
	}
	watch->body = watch_body(watch, ranges);
	if (watch->body == NULL || (watch->transfer = start_transfer(watch)) == NULL)
	{
		free_watch(&watch->grave);
		return NULL;
	}
	dlist_push_tail(&client->watches, &watch->node);
	return watch;
}

void
etcd_watch_stop(EtcdWatch *watch)
{
	watch->stopped = true;
	if (watch->transfer != NULL)
		etcd_http_cancel(watch->transfer);
	watch->transfer = NULL;
	dlist_delete(&watch->node);
	etcd_bury(&watch->grave, free_watch);
}

void
etcd_watch_give_up(EtcdWatch *watch)
{
	if (watch->endpoint >= 0)
		etcd_endpoint_failed(watch->client, watch->endpoint);
	etcd_watch_stop(watch);
}

void
etcd_watch_discard(dlist_node *node)
{
	etcd_watch_stop(dlist_container(EtcdWatch, node, node));
}

int64
etcd_watch_next_revision(const EtcdWatch *watch, int range_index)
{
	return watch->ranges[range_index].next;
}

/* Ends the watch and says why. The last thing that is done with it. */
static void
lose(EtcdWatch *watch, EtcdWatchLoss why, const char *message)
{
	char clean[256];
	char text[256];

	etcd_clean_text(clean, sizeof(clean), message, strlen(message));
	if (watch->endpoint >= 0)
		snprintf(text, sizeof(text), "%.50s: %.190s", watch->client->endpoints[watch->endpoint].url,
				 clean);
	else
		strlcpy(text, clean, sizeof(text));

	/* What is asked next should ask another member, unless this one has answered for all. */
	if (watch->endpoint >= 0 && why != ETCD_WATCH_COMPACTED && why != ETCD_WATCH_REFUSED && !watch->renewing)
		etcd_endpoint_failed(watch->client, watch->endpoint);
	etcd_watch_stop(watch);
	if (watch->handler->lost != NULL)
		watch->handler->lost(watch->arg, why, text);
}

/* ---- one answer of the stream --------------------------------------------------------------- */

/* Refused for its token, which is forgotten: is it to be tried with another one? */
static bool
wants_login(EtcdWatch *watch, int grpc_code, const char *message)
{
	if (watch->client->user == NULL || watch->ncreated > 0 || !etcd_auth_is_refusal(grpc_code, message))
		return false;
	etcd_auth_refused(watch->client, watch->endpoint, watch->serial);
	watch->again = ++watch->logins <= MAX_LOGINS;
	return watch->again;
}

/* The refused one has ended, or is to be; all of its answers are void. */
static void
send_again(EtcdWatch *watch)
{
	watch->again = false;
	if (watch->transfer != NULL)
		etcd_http_cancel(watch->transfer);
	watch->scanned = 0;
	watch->ncreated = 0;
	watch->transfer = begin_at_endpoint(watch);
	if (watch->transfer == NULL)
		lose(watch, ETCD_WATCH_PROTOCOL, "out of memory");
}

/* An error object ends the stream. */
static void
handle_error(EtcdWatch *watch, int grpc_code, const char *message)
{
	EtcdWatchLoss why = ETCD_WATCH_DISCONNECTED;

	if (wants_login(watch, grpc_code, message))
		return;

	if (grpc_code == ETCD_CODE_OUT_OF_RANGE)
		why = ETCD_WATCH_COMPACTED;
	else if (grpc_code == ETCD_CODE_INVALID_ARGUMENT || grpc_code == 7 ||
			 grpc_code == ETCD_CODE_UNAUTHENTICATED)
		why = ETCD_WATCH_REFUSED;
	lose(watch, why, message);
}

static void
handle_canceled(EtcdWatch *watch, const cJSON *result)
{
	const char *reason =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(result, "cancel_reason"));
	int64 compacted = etcd_json_int64(result, "compact_revision");
	char message[256];

	if (reason == NULL)
		reason = "canceled";
	if (compacted > 0 || strstr(reason, "has been compacted") != NULL)
	{
		snprintf(message, sizeof(message), "history was compacted up to revision %lld",
				 (long long) compacted);
		lose(watch, ETCD_WATCH_COMPACTED, message);
	}
	else if (wants_login(watch, -1, reason))
		return;
	else if (strstr(reason, "Unavailable") != NULL || strstr(reason, "no leader") != NULL)
		lose(watch, ETCD_WATCH_DISCONNECTED, reason);
	else
		lose(watch, ETCD_WATCH_REFUSED, reason);
}

static void
handle_created(EtcdWatch *watch, int64 watch_id, int64 revision)
{
	WatchedRange *range;

	if (watch->ncreated == watch->nranges)
	{
		lose(watch, ETCD_WATCH_PROTOCOL, "more watches were created than asked for");
		return;
	}
	range = &watch->ranges[watch->ncreated];
	/* etcd waits in silence for a revision of the future. Being just before it is no news. */
	if (range->start > revision + 1)
	{
		char message[128];

		snprintf(message, sizeof(message), "revision %lld is behind the watch's start %lld",
				 (long long) revision, (long long) range->start);
		lose(watch, ETCD_WATCH_BEHIND, message);
		return;
	}
	range->watch_id = watch_id;
	if (range->start == 0)
		range->next = revision + 1;
	if (watch->ncreated == 0 || revision < watch->created_at_revision)
		watch->created_at_revision = revision;
	if (++watch->ncreated < watch->nranges)
		return;

	if (watch->transfer != NULL)
		etcd_http_set_deadline(watch->transfer, 0);
	etcd_endpoint_worked(watch->client, watch->endpoint);
	if (watch->handler->started != NULL)
		watch->handler->started(watch->arg, watch->created_at_revision);
}

/* A watch_id with a revision and nothing else: nothing happened in that range up to there. */
static void
handle_progress(EtcdWatch *watch, WatchedRange *range, int64 revision)
{
	int64 complete;
	int i;

	range->next = Max(range->next, revision + 1);
	complete = watch->ranges[0].next;
	for (i = 1; i < watch->nranges; i++)
		complete = Min(complete, watch->ranges[i].next);
	complete--;
	if (watch->ncreated < watch->nranges || complete <= watch->progress)
		return;
	watch->progress = complete;
	if (watch->handler->progress != NULL)
		watch->handler->progress(watch->arg, complete);
}

static bool
read_event(const cJSON *item, EtcdEvent *event)
{
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "type"));

	event->is_delete = type != NULL && strcmp(type, "DELETE") == 0;
	if (type != NULL && !event->is_delete && strcmp(type, "PUT") != 0)
		return false;
	return etcd_kv_read(cJSON_GetObjectItemCaseSensitive(item, "kv"), &event->kv) &&
		   event->kv.mod_revision > 0;
}

/* Reads the events into watch->events; false: malformed, or out of memory. */
static bool
read_events(EtcdWatch *watch, const cJSON *list)
{
	const cJSON *item;

	free_events(watch); /* those of a call that was left by an error */
	watch->events = calloc(cJSON_GetArraySize(list), sizeof(EtcdEvent));
	if (watch->events == NULL)
		return false;
	cJSON_ArrayForEach(item, list)
	{
		if (!read_event(item, &watch->events[watch->nevents++]))
			return false;
	}
	return true;
}

static void
handle_events(EtcdWatch *watch, WatchedRange *range, const cJSON *list, int64 revision)
{
	int64 last;

	if (!read_events(watch, list))
	{
		lose(watch, ETCD_WATCH_PROTOCOL, "malformed events, or out of memory");
		return;
	}
	last = watch->events[watch->nevents - 1].kv.mod_revision;
	range->next = Max(range->next, last + 1);
	if (watch->handler->events != NULL)
		watch->handler->events(watch->arg, (int) (range - watch->ranges), watch->events,
							   watch->nevents, revision);
	free_events(watch);
}

static WatchedRange *
find_range(EtcdWatch *watch, int64 watch_id)
{
	int i;

	for (i = 0; i < watch->ncreated; i++)
	{
		if (watch->ranges[i].watch_id == watch_id)
			return &watch->ranges[i];
	}
	return NULL;
}

static void
handle_result(EtcdWatch *watch, const cJSON *result)
{
	const cJSON *header = cJSON_GetObjectItemCaseSensitive(result, "header");
	const cJSON *events = cJSON_GetObjectItemCaseSensitive(result, "events");
	int64 revision = etcd_json_int64(header, "revision");
	int64 watch_id = etcd_json_int64(result, "watch_id");
	WatchedRange *range;

	/* A refused watch is both created and canceled. */
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, "canceled")) ||
		etcd_json_int64(result, "compact_revision") > 0)
	{
		handle_canceled(watch, result);
		return;
	}
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(result, "created")))
	{
		handle_created(watch, watch_id, revision);
		return;
	}
	range = find_range(watch, watch_id);
	if (range == NULL || revision <= 0)
		lose(watch, ETCD_WATCH_PROTOCOL, "an answer for no watch of ours");
	else if (cJSON_IsArray(events) && events->child != NULL)
		handle_events(watch, range, events, revision);
	else
		handle_progress(watch, range, revision);
}

/* Consumes the object, which is kept by the watch as the user's calls may be left by an error. */
static void
handle_object(EtcdWatch *watch, cJSON *object)
{
	const cJSON *result = cJSON_GetObjectItemCaseSensitive(object, "result");
	char message[200];
	int grpc_code;

	cJSON_Delete(watch->object);
	watch->object = object;
	if (etcd_json_error(object, &grpc_code, message, sizeof(message)))
		handle_error(watch, grpc_code, message);
	else if (cJSON_IsObject(result))
		handle_result(watch, result);
	else
		lose(watch, ETCD_WATCH_PROTOCOL, "an answer that is not what etcd sends");
}

/* ---- the stream ----------------------------------------------------------------------------- */

/* Takes the next line, if it is complete; *object is NULL if it is not JSON. */
static bool
next_object(EtcdWatch *watch, EtcdTransfer *transfer, cJSON **object)
{
	size_t len;
	const char *text = etcd_http_text(transfer, &len);
	const char *newline = memchr(text + watch->scanned, '\n', len - watch->scanned);

	if (newline == NULL)
	{
		watch->scanned = len;
		return false;
	}
	len = (size_t) (newline - text);
	*object = etcd_json_parse(text, len);
	etcd_http_consume(transfer, len + 1);
	watch->scanned = 0;
	return true;
}

static void
handle_lines(EtcdWatch *watch, EtcdTransfer *transfer)
{
	cJSON *object;

	while (!watch->stopped && !watch->again && next_object(watch, transfer, &object))
	{
		if (object == NULL)
			lose(watch, ETCD_WATCH_PROTOCOL, "a line that is not JSON within the bounds");
		else
			handle_object(watch, object);
	}
}

static void
watch_data(void *arg, EtcdTransfer *transfer)
{
	EtcdWatch *watch = arg;

	handle_lines(watch, transfer);
	if (!watch->stopped && watch->again)
		send_again(watch);
}

static void
watch_done(void *arg, EtcdTransfer *transfer)
{
	EtcdWatch *watch = arg;
	const char *ending = transfer->message;
	char status[64];
	cJSON *object;
	const char *text;
	size_t len;

	watch->transfer = NULL; /* void when we return */
	watch->waiting = false;
	if (transfer->outcome == HTTP_WOKEN)
		watch->again = true;
	else
		handle_lines(watch, transfer);
	if (watch->stopped)
		return;
	if (watch->again)
	{
		send_again(watch);
		return;
	}

	if (transfer->outcome == HTTP_TOO_BIG)
	{
		lose(watch, ETCD_WATCH_TOO_BIG, transfer->message);
		return;
	}
	/* The last object has no newline behind it; half a one is no news. */
	text = etcd_http_text(transfer, &len);
	object = etcd_json_parse(text, len);
	if (object != NULL)
		handle_object(watch, object);
	if (watch->stopped)
		return;
	if (watch->again)
	{
		send_again(watch);
		return;
	}

	snprintf(status, sizeof(status), "the stream has ended, with HTTP status %ld",
			 transfer->status);
	if (transfer->outcome == HTTP_COMPLETE)
		ending = transfer->status == 200 ? "the stream has ended" : status;
	lose(watch, ETCD_WATCH_DISCONNECTED, ending);
}
