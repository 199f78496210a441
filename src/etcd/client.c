/*
 * client.c
 *	  A client of etcd's v3 JSON gateway: endpoints, calls, what their answers mean.
 *
 * A call is one transfer at a time, and at most one at each endpoint.  After a failure it goes to the next
 * endpoint if time is left and if that cannot do harm: reads and idempotent writes always can, other writes
 * only if no server can have seen the whole request.  An endpoint that hangs is left after its share of the
 * time, so that the others get theirs.
 *
 * Whether a failed write is ambiguous is judged by what etcd says: an error that only a request that is not
 * applied gets (a bad argument, an unknown lease, no permission, no space) is final.  "Unavailable",
 * "unknown", a deadline, half an answer or none are not: such writes have been seen applied later.
 */
#include "postgres.h"

#include <errno.h>
#include <unistd.h>

#include "clock.h"
#include "core/backoff.h"
#include "etcd/internal.h"

#define USECS_PER_MSEC 1000

/* How long an endpoint that failed is tried last. */
#define ENDPOINT_BACKOFF_MIN (500 * USECS_PER_MSEC)
#define ENDPOINT_BACKOFF_MAX (30 * 1000 * USECS_PER_MSEC)

/* Longest request deadline: what fits the eight digits of Grpc-Timeout. */
#define MAX_TIMEOUT_MS 99999999

/* How often a call that is refused for its token is sent again. */
#define MAX_LOGINS 2

#define MAX_URL 512
#define MAX_HOST 255

struct EtcdRequest
{
	EtcdGrave grave;
	dlist_node node; /* in client->requests */
	EtcdClient *client;
	EtcdTransfer *transfer;
	const char *path; /* of the caller, which gives literals */
	char *body;
	size_t body_len;
	EtcdKind kind;
	bool stream; /* the answer is a stream of objects; the first one counts */
	int64 deadline;
	uint32 tried;		/* a bit for each endpoint */
	int endpoint;		/* of the last attempt; -1: none was made */
	bool maybe_applied; /* by any attempt */
	bool waiting;		/* for a token of its endpoint */
	int64 share_end;	/* boot time until which this endpoint is given to begin */
	unsigned int serial; /* of the token that was sent */
	int logins;			/* how often its token was refused */
	EtcdFault fault;	/* of an attempt that nothing was sent for */
	EtcdCallback cb;
	void *arg;
	cJSON *answer;
	EtcdResponse response;
};

/* What is known of a request after one attempt. */
typedef enum Verdict
{
	VERDICT_OK,
	VERDICT_FINAL,	 /* not applied, and the other endpoints would say the same */
	VERDICT_REFUSED, /* not applied, by this endpoint */
	VERDICT_LOGIN,	 /* not applied, as this endpoint does not know its token */
	VERDICT_UNKNOWN	 /* if it was sent it may have been applied, or may be yet */
} Verdict;

static void call_done(void *arg, EtcdTransfer *transfer);

/* ---- endpoints ------------------------------------------------------------------------------ */

/* The length of a host: a name, an IPv4 address, or an IPv6 address in brackets; 0: none. */
static size_t
host_length(const char *text)
{
	static const char name_chars[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t n;

	if (text[0] != '[')
		return strspn(text, name_chars);
	n = 1 + strspn(text + 1, "0123456789abcdefABCDEF:.");
	return n > 1 && text[n] == ']' ? n + 1 : 0;
}

/* Is that all of "http://host:port", or the same with https? If not, says why. */
static bool
endpoint_valid(const char *text, size_t len, char *errbuf, size_t n)
{
	size_t scheme;
	size_t host;
	size_t digits;
	char copy[MAX_HOST + 32];
	char shown[80];

	etcd_clean_text(shown, sizeof(shown), text, len);
	if (len >= sizeof(copy))
	{
		snprintf(errbuf, n, "Endpoint \"%s...\" is too long.", shown);
		return false;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';

	scheme = strncmp(copy, "https://", strlen("https://")) == 0 ? strlen("https://") : strlen("http://");
	if (scheme == strlen("http://") && strncmp(copy, "http://", scheme) != 0)
	{
		snprintf(errbuf, n, "Endpoint \"%s\" does not begin with \"http://\" or \"https://\".", shown);
		return false;
	}
	host = host_length(copy + scheme);
	if (host == 0 || host > MAX_HOST || copy[scheme + host] != ':')
	{
		snprintf(errbuf, n, "Endpoint \"%s\" is not of the form \"%shost:port\".", shown,
				 scheme == strlen("https://") ? "https://" : "http://");
		return false;
	}
	digits = strspn(copy + scheme + host + 1, "0123456789");
	if (digits == 0 || digits > 5 || copy[scheme + host + 1 + digits] != '\0' ||
		atoi(copy + scheme + host + 1) < 1 || atoi(copy + scheme + host + 1) > 65535)
	{
		snprintf(errbuf, n, "Endpoint \"%s\" must end in a port number between 1 and 65535.",
				 shown);
		return false;
	}
	return true;
}

/*
 * Goes to the next endpoint of a list, without the blanks around it; false: there is none.  *list is moved
 * on, and becomes NULL behind the last one.
 */
static bool
next_endpoint(const char **list, const char **start, size_t *len)
{
	const char *comma;

	if (*list == NULL)
		return false;
	comma = strchr(*list, ',');
	*start = *list + strspn(*list, " \t");
	*len = comma != NULL ? (size_t) (Max(comma, *start) - *start) : strlen(*start);
	while (*len > 0 && ((*start)[*len - 1] == ' ' || (*start)[*len - 1] == '\t'))
		(*len)--;
	*list = comma != NULL ? comma + 1 : NULL;
	return true;
}

static bool
is_blank(const char *text)
{
	return text[strspn(text, " \t")] == '\0';
}

bool
etcd_endpoints_valid(const char *endpoints, char *errbuf, size_t n)
{
	const char *list = endpoints;
	const char *start;
	size_t len;
	int count = 0;

	if (endpoints == NULL || is_blank(endpoints))
		return true;
	while (next_endpoint(&list, &start, &len))
	{
		if (++count > ETCD_MAX_ENDPOINTS)
		{
			snprintf(errbuf, n, "There are more than %d endpoints.", ETCD_MAX_ENDPOINTS);
			return false;
		}
		if (len == 0)
		{
			snprintf(errbuf, n, "The list of endpoints has an empty element.");
			return false;
		}
		if (!endpoint_valid(start, len, errbuf, n))
			return false;
	}
	return true;
}

/* xorshift64: only to spread retries. */
uint64
etcd_random(EtcdClient *client)
{
	client->random ^= client->random << 13;
	client->random ^= client->random >> 7;
	client->random ^= client->random << 17;
	return client->random;
}

static uint32
endpoint_bit(int endpoint)
{
	return (uint32) 1 << endpoint;
}

int
etcd_choose_endpoint(EtcdClient *client, uint32 tried)
{
	int64 now = dsched_boot_now();
	int best = -1;
	int i;

	for (i = 0; i < client->nendpoints; i++)
	{
		int candidate = (client->preferred + i) % client->nendpoints;
		const Endpoint *endpoint = &client->endpoints[candidate];

		if (tried & endpoint_bit(candidate))
			continue;
		if (endpoint->failed_until <= now)
			return candidate;
		/* All have failed lately: the one whose time comes first. */
		if (best < 0 || endpoint->failed_until < client->endpoints[best].failed_until)
			best = candidate;
	}
	return best;
}

void
etcd_endpoint_worked(EtcdClient *client, int endpoint)
{
	client->endpoints[endpoint].failures = 0;
	client->endpoints[endpoint].failed_until = 0;
	client->preferred = endpoint;
}

void
etcd_endpoint_failed(EtcdClient *client, int endpoint)
{
	Endpoint *failed = &client->endpoints[endpoint];
	int64 now = dsched_boot_now();

	/* Calls that were under way together fail together; that is one failure. */
	if (failed->failed_until > now)
		return;
	failed->failures++;
	failed->failed_until = now + backoff_delay(failed->failures, ENDPOINT_BACKOFF_MIN,
											   ENDPOINT_BACKOFF_MAX, etcd_random(client));
}

bool
etcd_endpoint_url(const EtcdClient *client, int endpoint, const char *path, char *url, size_t size)
{
	return snprintf(url, size, "%s%s", client->endpoints[endpoint].url, path) < (int) size;
}

/* ---- the client ----------------------------------------------------------------------------- */

static void
free_client(EtcdGrave *self)
{
	EtcdClient *client = (EtcdClient *) self;
	int i;

	for (i = 0; i < client->nendpoints; i++)
	{
		free(client->endpoints[i].url);
		etcd_free_secret(client->endpoints[i].token);
		etcd_free_secret(client->endpoints[i].login_body);
	}
	etcd_security_free(client);
	free(client);
}

static bool
copy_endpoints(EtcdClient *client, const char *endpoints)
{
	const char *list = endpoints;
	const char *start;
	size_t len;

	if (is_blank(endpoints))
		return true;
	while (next_endpoint(&list, &start, &len))
	{
		char *url = strndup(start, len);

		if (url == NULL)
			return false;
		client->endpoints[client->nendpoints].client = client;
		client->endpoints[client->nendpoints++].url = url;
	}
	return true;
}

EtcdClient *
etcd_client_create(DschedLoop *loop, const char *endpoints)
{
	EtcdClient *client;
	char reason[200];

	if (endpoints == NULL || !etcd_endpoints_valid(endpoints, reason, sizeof(reason)))
	{
		errno = EINVAL;
		return NULL;
	}
	client = calloc(1, sizeof(EtcdClient));
	if (client == NULL)
		return NULL;
	dlist_init(&client->requests);
	dlist_init(&client->watches);
	client->loop = loop;
	client->random = ((uint64) getpid() << 32 ^ (uint64) dsched_boot_now()) | 1;
	if (!copy_endpoints(client, endpoints) || (client->http = etcd_http_create(loop, NULL)) == NULL)
	{
		free_client(&client->grave);
		return NULL;
	}
	return client;
}

static void
free_request(EtcdGrave *self)
{
	EtcdRequest *request = (EtcdRequest *) self;

	cJSON_Delete(request->answer);
	free(request->body);
	free(request);
}

void
etcd_client_destroy(EtcdClient *client)
{
	dlist_mutable_iter iter;
	int i;

	if (client == NULL)
		return;
	dlist_foreach_modify(iter, &client->requests)
	{
		etcd_cancel(dlist_container(EtcdRequest, node, iter.cur));
	}
	dlist_foreach_modify(iter, &client->watches)
	{
		etcd_watch_discard(iter.cur);
	}
	etcd_http_destroy(client->http);
	for (i = 0; i < client->nretired; i++)
		etcd_http_destroy(client->retired[i]);
	etcd_bury(&client->grave, free_client);
}

/* ---- making calls --------------------------------------------------------------------------- */

char *
etcd_body_text(cJSON *body, const char **reason)
{
	char *text;

	if (body == NULL)
	{
		*reason =
			"the request could not be built: out of memory, or a transaction without operations";
		return NULL;
	}
	text = cJSON_PrintUnformatted(body);
	cJSON_Delete(body);
	if (text == NULL)
		*reason = "out of memory";
	else if (strlen(text) > ETCD_MAX_REQUEST)
	{
		*reason = "the request is too big";
		free(text);
		text = NULL;
	}
	return text;
}

/* How many endpoints this call has not tried. */
static int
untried_endpoints(const EtcdRequest *request)
{
	int n = 0;
	int i;

	for (i = 0; i < request->client->nendpoints; i++)
		n += (request->tried & endpoint_bit(i)) == 0;
	return n;
}

/* Sends the request to its endpoint; false: no time is left, or no memory. */
static bool
send_request(EtcdRequest *request)
{
	int64 now = dsched_boot_now();
	Endpoint *endpoint = &request->client->endpoints[request->endpoint];
	char url[MAX_URL];
	HttpPost post = {0};

	post.deadline = request->kind == ETCD_WRITE ? request->deadline : request->share_end;
	if (post.deadline - now < USECS_PER_MSEC ||
		!etcd_endpoint_url(request->client, request->endpoint, request->path, url, sizeof(url)))
		return false;
	post.url = url;
	post.body = request->body;
	post.body_len = request->body_len;
	post.authorization = endpoint->token;
	post.connect_timeout_ms = (int) Max((request->share_end - now) / USECS_PER_MSEC, 1);
	/* A tenth less, so that the server gives up first and can say so. */
	post.grpc_timeout_ms = (int) Max((post.deadline - now) / USECS_PER_MSEC * 9 / 10, 1);
	post.may_resend = request->kind != ETCD_WRITE;
	post.max_buffer = ETCD_MAX_RESPONSE;
	post.done = call_done;
	post.arg = request;

	request->serial = endpoint->serial;
	request->transfer = etcd_http_post(request->client->http, &post);
	return request->transfer != NULL;
}

/* Waits for a token of its endpoint; false: no memory. */
static bool
wait_for_token(EtcdRequest *request)
{
	const char *reason = etcd_auth_begin(request->client, request->endpoint, &request->fault);
	HttpPost post = {0};

	post.deadline = request->share_end;
	post.done = call_done;
	post.arg = request;
	request->waiting = reason == NULL;
	request->transfer = reason == NULL ? etcd_http_wait(request->client->http, &post)
									   : etcd_http_fail(request->client->http, &post, reason);
	return request->transfer != NULL;
}

static bool
begin_at_endpoint(EtcdRequest *request)
{
	request->fault = ETCD_FAULT_NONE;
	if (etcd_auth_needed(request->client, request->endpoint))
		return wait_for_token(request);
	return send_request(request);
}

/*
 * Begins the attempt at the next endpoint; false: there is none, no time is left, or no memory.  Each attempt
 * but the last has half of the time that is left, so that a slow etcd is waited for, and one that hangs does
 * not use it all up.  A write that has been sent cannot be tried again, so it has all of it, and only its
 * connecting has a share.
 */
static bool
start_attempt(EtcdRequest *request)
{
	int64 now = dsched_boot_now();
	int endpoint = etcd_choose_endpoint(request->client, request->tried);

	if (endpoint < 0 || request->deadline - now < USECS_PER_MSEC)
		return false;
	request->share_end = request->deadline;
	if (untried_endpoints(request) > 1)
		request->share_end = now + (request->deadline - now) / 2;
	request->tried |= endpoint_bit(endpoint);
	request->endpoint = endpoint;
	return begin_at_endpoint(request);
}

/* A call that fails as soon as the loop comes round. */
static bool
start_failure(EtcdRequest *request, const char *reason)
{
	HttpPost post = {0};

	post.done = call_done;
	post.arg = request;
	request->endpoint = -1;
	request->transfer = etcd_http_fail(request->client->http, &post, reason);
	return request->transfer != NULL;
}

static EtcdRequest *
start_call(EtcdClient *client, const char *path, cJSON *body, EtcdKind kind, bool stream,
		   int timeout_ms, EtcdCallback cb, void *arg)
{
	EtcdRequest *request = calloc(1, sizeof(EtcdRequest));
	const char *reason = NULL;
	bool refused = false;
	bool started;

	if (request == NULL)
	{
		cJSON_Delete(body);
		return NULL;
	}
	request->client = client;
	request->path = path;
	request->kind = kind;
	request->stream = stream;
	request->cb = cb;
	request->arg = arg;
	request->deadline =
		dsched_boot_now() + (int64) Min(Max(timeout_ms, 1), MAX_TIMEOUT_MS) * USECS_PER_MSEC;
	request->body = etcd_body_text(body, &reason);
	if (request->body != NULL)
		request->body_len = strlen(request->body);
	if (client->nendpoints == 0)
		reason = "no etcd endpoints are set";
	if (reason == NULL && (reason = etcd_security_refusal(client)) != NULL)
		refused = true;
	etcd_sweep_retired(client);

	started = reason == NULL && start_attempt(request);
	if (!started &&
		!start_failure(request, reason != NULL ? reason : "the request could not be started"))
	{
		free_request(&request->grave);
		return NULL;
	}
	if (refused)
		request->fault = ETCD_FAULT_SETTINGS;
	dlist_push_tail(&client->requests, &request->node);
	return request;
}

EtcdRequest *
etcd_call(EtcdClient *client, const char *path, cJSON *body, EtcdKind kind, int timeout_ms,
		  EtcdCallback cb, void *arg)
{
	return start_call(client, path, body, kind, false, timeout_ms, cb, arg);
}

void
etcd_cancel(EtcdRequest *request)
{
	etcd_http_cancel(request->transfer);
	dlist_delete(&request->node);
	/* Its body is not needed any more, but who calls us may be one of its own frames. */
	etcd_bury(&request->grave, free_request);
}

/* ---- answers -------------------------------------------------------------------------------- */

/* Is this an error that only requests which are not applied get, and that every endpoint would give? */
static bool
code_is_final(int grpc_code)
{
	switch (grpc_code)
	{
		case ETCD_CODE_INVALID_ARGUMENT:
		case ETCD_CODE_NOT_FOUND:
		case 6: /* already exists */
		case ETCD_CODE_PERMISSION:
		case ETCD_CODE_EXHAUSTED:
		case 9: /* failed precondition */
		case ETCD_CODE_OUT_OF_RANGE:
		case 12: /* unimplemented */
		case ETCD_CODE_UNAUTHENTICATED:
			return true;
		default:
			return false;
	}
}

/* Does the server say with this status that it did nothing? (Too many requests, or a timeout, may say more.) */
static bool
status_is_refusal(long status)
{
	return status >= 400 && status < 500 && status != 408 && status != 429;
}

/* The JSON of an answer: of a stream the first line, else all of it.  NULL: it is not JSON. */
static cJSON *
parse_answer(const EtcdRequest *request, const char *text, size_t len)
{
	const char *newline = request->stream ? memchr(text, '\n', len) : NULL;

	return etcd_json_parse(text, newline != NULL ? (size_t) (newline - text) : len);
}

static void
set_message(EtcdResponse *response, const char *text)
{
	char clean[200];

	etcd_clean_text(clean, sizeof(clean), text, strlen(text));
	if (response->endpoint[0] == '\0')
		strlcpy(response->message, clean, sizeof(response->message));
	else
		snprintf(response->message, sizeof(response->message), "%.50s: %s", response->endpoint,
				 clean);
}

/* Takes what every answer's header has. */
static void
read_header(EtcdResponse *response)
{
	const cJSON *header = cJSON_GetObjectItemCaseSensitive(response->body, "header");

	response->revision = etcd_json_int64(header, "revision");
	response->raft_term = etcd_json_uint64(header, "raft_term");
	response->cluster_id = etcd_json_uint64(header, "cluster_id");
	response->member_id = etcd_json_uint64(header, "member_id");
}

EtcdFault
etcd_plain_answer(long status, const char *text, size_t len, char *message, size_t n)
{
	char clean[120];
	const char *newline = memchr(text, '\n', len);

	etcd_clean_text(clean, sizeof(clean), text, newline != NULL ? (size_t) (newline - text) : len);
	if (status == 400 && strstr(clean, "CommonName") != NULL)
	{
		strlcpy(message, "etcd has users and our client certificate a common name, which etcd does not allow over HTTP", n);
		return ETCD_FAULT_SETTINGS;
	}
	snprintf(message, n, "HTTP status %ld%s%s", status, clean[0] != '\0' ? ": " : "", clean);
	return status == 400 && strstr(clean, "HTTPS") != NULL ? ETCD_FAULT_TLS : ETCD_FAULT_NETWORK;
}

/* An error that etcd has told: what of it concerns the caller. */
static Verdict
judge_error(EtcdRequest *request, const char *error)
{
	EtcdResponse *response = &request->response;

	set_message(response, error);
	if (etcd_auth_is_refusal(response->grpc_code, error))
	{
		response->fault = ETCD_FAULT_AUTH;
		return request->client->user != NULL ? VERDICT_LOGIN : VERDICT_FINAL;
	}
	if (response->grpc_code == ETCD_CODE_PERMISSION)
		response->fault = ETCD_FAULT_PERMISSION;
	else if (strstr(error, "database space exceeded") != NULL)
		response->fault = ETCD_FAULT_SPACE;
	return code_is_final(response->grpc_code) ? VERDICT_FINAL : VERDICT_UNKNOWN;
}

/* Reads an answer that came completely. */
static Verdict
read_answer(EtcdRequest *request, EtcdTransfer *transfer)
{
	EtcdResponse *response = &request->response;
	char error[200];
	size_t len;
	const char *text = etcd_http_text(transfer, &len);

	request->answer = parse_answer(request, text, len);
	if (request->answer != NULL &&
		etcd_json_error(request->answer, &response->grpc_code, error, sizeof(error)))
		return judge_error(request, error);
	if (transfer->status != 200)
	{
		response->fault = etcd_plain_answer(transfer->status, text, len, error, sizeof(error));
		set_message(response, error);
		return status_is_refusal(transfer->status) ? VERDICT_REFUSED : VERDICT_UNKNOWN;
	}
	response->body = request->answer;
	if (request->stream)
		response->body = cJSON_GetObjectItemCaseSensitive(request->answer, "result");
	if (!cJSON_IsObject(response->body))
	{
		response->body = NULL;
		set_message(response, "the answer is not what etcd sends");
		return VERDICT_UNKNOWN;
	}
	read_header(response);
	response->grpc_code = 0;
	return VERDICT_OK;
}

/* Fills the response from an attempt. */
static Verdict
take_attempt(EtcdRequest *request, EtcdTransfer *transfer)
{
	EtcdResponse *response = &request->response;
	Verdict verdict = VERDICT_UNKNOWN;

	memset(response, 0, sizeof(*response));
	cJSON_Delete(request->answer);
	request->answer = NULL;
	response->grpc_code = -1;
	response->fault = transfer->tls_failed ? ETCD_FAULT_TLS : ETCD_FAULT_NETWORK;
	response->sent_at = transfer->sent_at;
	response->received_at = transfer->received_at;
	response->server_date = transfer->server_date;
	response->endpoint =
		request->endpoint >= 0 ? request->client->endpoints[request->endpoint].url : "";

	if (transfer->outcome == HTTP_COMPLETE)
		verdict = read_answer(request, transfer);
	else
	{
		set_message(response, transfer->message);
		/* A read that is too big is so everywhere. */
		if (transfer->outcome == HTTP_TOO_BIG && request->kind == ETCD_READ)
			verdict = VERDICT_FINAL;
		/* Nor does another endpoint know better what is wrong with our files, or our password. */
		if (request->fault != ETCD_FAULT_NONE)
		{
			response->fault = request->fault;
			if (request->fault != ETCD_FAULT_NETWORK && request->fault != ETCD_FAULT_TLS)
				verdict = VERDICT_FINAL;
		}
	}
	response->ok = verdict == VERDICT_OK;
	if (response->ok)
		response->fault = ETCD_FAULT_NONE;
	if (verdict == VERDICT_UNKNOWN && transfer->body_given)
		request->maybe_applied = true;
	return verdict;
}

/* Gives the answer to the caller, who may do anything. */
static void
finish_call(EtcdRequest *request)
{
	EtcdCallback cb = request->cb;
	void *arg = request->arg;

	request->response.ambiguous =
		!request->response.ok && request->kind != ETCD_READ && request->maybe_applied;
	dlist_delete(&request->node);
	etcd_bury(&request->grave, free_request);
	cb(arg, &request->response);
}

/* Can another endpoint be asked after this attempt, without harm? */
static bool
may_try_again(const EtcdRequest *request, Verdict verdict)
{
	if (request->endpoint < 0 || verdict == VERDICT_OK || verdict == VERDICT_FINAL)
		return false;
	return request->kind != ETCD_WRITE || !request->maybe_applied;
}

static void
call_done(void *arg, EtcdTransfer *transfer)
{
	EtcdRequest *request = arg;
	Verdict verdict;

	request->waiting = false;
	request->transfer = NULL; /* void when we return */
	if (transfer->outcome == HTTP_WOKEN && begin_at_endpoint(request))
		return;
	verdict = take_attempt(request, transfer);
	if (verdict == VERDICT_LOGIN)
	{
		etcd_auth_refused(request->client, request->endpoint, request->serial);
		if (++request->logins <= MAX_LOGINS && begin_at_endpoint(request))
			return;
		verdict = VERDICT_FINAL;
	}
	/* Of an endpoint nothing was asked of, for our own fault, nothing was learned. */
	if (request->endpoint >= 0 && (verdict != VERDICT_FINAL || transfer->outcome == HTTP_COMPLETE))
	{
		if (verdict == VERDICT_OK || verdict == VERDICT_FINAL)
			etcd_endpoint_worked(request->client, request->endpoint);
		else
			etcd_endpoint_failed(request->client, request->endpoint);
	}
	if (!may_try_again(request, verdict) || !start_attempt(request))
		finish_call(request);
}

void
etcd_wake_waiting(EtcdClient *client, int endpoint, HttpOutcome outcome, const char *message, EtcdFault fault)
{
	dlist_iter iter;

	dlist_foreach(iter, &client->requests)
	{
		EtcdRequest *request = dlist_container(EtcdRequest, node, iter.cur);

		if (!request->waiting || request->endpoint != endpoint)
			continue;
		request->waiting = false;
		request->fault = fault;
		etcd_http_end(request->transfer, outcome, message);
	}
	dlist_foreach(iter, &client->watches)
	{
		etcd_watch_wake(iter.cur, endpoint, outcome, message);
	}
}

/* ---- leases --------------------------------------------------------------------------------- */

/* {"name":"number"}; NULL: out of memory */
static cJSON *
number_object(const char *name, int64 value)
{
	cJSON *object = cJSON_CreateObject();
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long) value);
	if (object == NULL || cJSON_AddStringToObject(object, name, text) == NULL)
	{
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

/* Not idempotent: each grant makes a lease. */
EtcdRequest *
etcd_lease_grant(EtcdClient *client, int64 ttl_s, int timeout_ms, EtcdCallback cb, void *arg)
{
	return start_call(client, ETCD_PATH_LEASE_GRANT, number_object("TTL", ttl_s), ETCD_WRITE, false,
					  timeout_ms, cb, arg);
}

EtcdRequest *
etcd_lease_keepalive(EtcdClient *client, int64 lease, int timeout_ms, EtcdCallback cb, void *arg)
{
	return start_call(client, ETCD_PATH_LEASE_KEEPALIVE, number_object("ID", lease),
					  ETCD_IDEMPOTENT, true, timeout_ms, cb, arg);
}

EtcdRequest *
etcd_lease_revoke(EtcdClient *client, int64 lease, int timeout_ms, EtcdCallback cb, void *arg)
{
	return start_call(client, ETCD_PATH_LEASE_REVOKE, number_object("ID", lease), ETCD_IDEMPOTENT,
					  false, timeout_ms, cb, arg);
}

EtcdRequest *
etcd_lease_keys(EtcdClient *client, int64 lease, int timeout_ms, EtcdCallback cb, void *arg)
{
	cJSON *body = number_object("ID", lease);

	if (body != NULL && cJSON_AddTrueToObject(body, "keys") == NULL)
	{
		cJSON_Delete(body);
		body = NULL;
	}
	return start_call(client, ETCD_PATH_LEASE_TIMETOLIVE, body, ETCD_READ, false, timeout_ms, cb, arg);
}
