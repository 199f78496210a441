/*
 * http.c
 *	  HTTP requests on libcurl, joined to the event loop.  Only for the etcd client and its watches.
 *
 * Runs in background workers, one instance per client, all in one thread.  libcurl tells which sockets it
 * waits for and when it wants to be called; the sockets go into the loop, the time into a timerfd of our
 * own, together with the transfers' deadlines.  Those are kept here, in boot time, and not by libcurl,
 * whose clock stands still while a machine is suspended.
 *
 * An ereport() must never go through libcurl's frames.  So nothing that libcurl calls can raise an error:
 * those functions use malloc, take notes, and may remove a descriptor from the loop, which cannot fail.
 * Everything else (adding descriptors, calling our users) is done when libcurl has returned.  Users may leave by an
 * error from their calls: the state is consistent before each of them, what is left to do brings the
 * timer back at once, and memory that is in use up the stack is freed at the next event ("graves").
 *
 * libcurl sends a POST a second time by itself if a connection that it had kept is found dead before any
 * answer came.  The first one may have been applied, and a transaction that is done twice says of itself that
 * it failed.  So the body is given by a callback that can refuse to start anew; by the same means we know whether
 * it was given away completely.  An incomplete one is no JSON, so no server can have acted on it.
 *
 * Names are resolved by threads of libcurl's, started with all signals blocked, as the server's handlers
 * must run in the main thread only.  They are not waited for when a transfer is given up (QUICK_EXIT; releases
 * of libcurl before 7.87 do wait, as long as the resolver takes).
 */
#include "postgres.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"
#include "etcd/http.h"

#define USECS_PER_MSEC 1000

/* Bound of an answer's headers; etcd's have some 300 bytes. */
#define MAX_HEADER_BYTES (64 * 1024)

/* Idle connections kept for reuse, streams in use counted with them. */
#define MAX_KEPT_CONNECTIONS 32

/* A stream's peer that is gone without a word is found after 10 + 3 * 3 seconds. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 3
#define KEEPALIVE_PROBES 3
#define UNACKNOWLEDGED_MS 15000

/* What libcurl wants to know of a socket; noted in its callback, brought to the loop later. */
typedef struct SocketNote
{
	dlist_node node;
	int fd;
	uint32 events;
	bool changed;
} SocketNote;

struct EtcdHttp
{
	EtcdGrave grave;
	DschedLoop *loop;
	CURLM *multi;
	EtcdTls tls;
	bool closed;
	int timer_fd;
	int64 armed;   /* what the timer is set to; 0: nothing */
	int64 curl_at; /* when libcurl wants to be called; 0: not */
	dlist_head sockets;
	dlist_head transfers;
	dlist_head ready; /* transfers with something to tell */
};

static void http_handler(void *arg, int fd, uint32 events);

/* ---- graves --------------------------------------------------------------------------------- */

static EtcdGrave *graves = NULL;

/* A handler of ours runs; stays set when one is left by an error, until the next begins. */
static bool in_dispatch = false;

static void
empty_graves(void)
{
	while (graves != NULL)
	{
		EtcdGrave *grave = graves;

		graves = grave->next;
		grave->free(grave);
	}
}

void
etcd_bury(EtcdGrave *grave, void (*free)(EtcdGrave *self))
{
	grave->free = free;
	grave->next = graves;
	graves = grave;
	if (!in_dispatch)
		empty_graves();
}

/* ---- what libcurl calls: no errors, no memory contexts ------------------------------------------ */

static int
note_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	EtcdHttp *http = arg;
	SocketNote *note = socket_arg;

	(void) easy;
	if (what == CURL_POLL_REMOVE)
	{
		/* At once, as the number can come back as another socket before libcurl returns. */
		loop_remove_fd(http->loop, fd);
		if (note != NULL)
		{
			dlist_delete(&note->node);
			free(note);
		}
		curl_multi_assign(http->multi, fd, NULL);
		return 0;
	}
	if (note == NULL)
	{
		/* Without a note the transfer hears nothing and runs into its deadline; an error would end them all. */
		note = malloc(sizeof(SocketNote));
		if (note == NULL)
			return 0;
		note->fd = fd;
		dlist_push_tail(&http->sockets, &note->node);
		curl_multi_assign(http->multi, fd, note);
	}
	note->events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	note->changed = true;
	return 0;
}

static int
note_timer(CURLM *multi, long timeout_ms, void *arg)
{
	EtcdHttp *http = arg;

	(void) multi;
	http->curl_at = timeout_ms < 0 ? 0 : dsched_boot_now() + timeout_ms * USECS_PER_MSEC;
	return 0;
}

static size_t
give_body(char *dst, size_t size, size_t n, void *arg)
{
	EtcdTransfer *transfer = arg;
	size_t left = transfer->post.body_len - transfer->body_sent;
	size_t given = Min(left, size * n);

	/* libcurl knows the length; that it asks again means that it has begun anew. */
	if (left == 0)
	{
		transfer->refused_rewind = true;
		return CURL_READFUNC_ABORT;
	}
	memcpy(dst, transfer->post.body + transfer->body_sent, given);
	transfer->body_sent += given;
	if (transfer->body_sent == transfer->post.body_len)
		transfer->body_given = true;
	return given;
}

/* libcurl wants to send the body again. */
static int
rewind_body(void *arg, curl_off_t offset, int origin)
{
	EtcdTransfer *transfer = arg;

	/* What was not given away completely can be sent again in any case. */
	if (origin != SEEK_SET || offset != 0 || (transfer->body_given && !transfer->post.may_resend))
	{
		transfer->refused_rewind = true;
		return CURL_SEEKFUNC_FAIL;
	}
	transfer->body_sent = 0;
	return CURL_SEEKFUNC_OK;
}

/* Makes room for n more bytes and a NUL. */
static bool
reserve(EtcdTransfer *transfer, size_t n)
{
	size_t len = transfer->end - transfer->start;
	size_t size = transfer->size;
	char *larger;

	if (transfer->end + n < transfer->size)
		return true;
	if (transfer->start > 0)
	{
		memmove(transfer->buffer, transfer->buffer + transfer->start, len);
		transfer->start = 0;
		transfer->end = len;
	}
	while (size <= len + n)
		size = size == 0 ? 4096 : size * 2;
	if (size == transfer->size)
		return true;
	larger = realloc(transfer->buffer, size);
	if (larger == NULL)
		return false;
	transfer->buffer = larger;
	transfer->size = size;
	return true;
}

static void
make_ready(EtcdTransfer *transfer)
{
	if (transfer->is_ready)
		return;
	transfer->is_ready = true;
	dlist_push_tail(&transfer->http->ready, &transfer->ready_node);
}

static size_t
take_data(char *data, size_t size, size_t n, void *arg)
{
	EtcdTransfer *transfer = arg;
	size_t len = size * n;

	if (transfer->end - transfer->start + len > transfer->post.max_buffer)
	{
		transfer->outcome = HTTP_TOO_BIG;
		return 0;
	}
	if (!reserve(transfer, len))
		return 0;
	memcpy(transfer->buffer + transfer->end, data, len);
	transfer->end += len;
	transfer->buffer[transfer->end] = '\0';
	if (transfer->post.stream)
		make_ready(transfer);
	return len;
}

static size_t
take_header(char *data, size_t size, size_t n, void *arg)
{
	EtcdTransfer *transfer = arg;
	size_t len = size * n;
	char value[64];

	transfer->header_bytes += len;
	if (transfer->header_bytes > MAX_HEADER_BYTES)
	{
		transfer->outcome = HTTP_TOO_BIG;
		return 0;
	}
	if (len > 5 && len - 5 < sizeof(value) && strncasecmp(data, "Date:", 5) == 0)
	{
		time_t date;

		memcpy(value, data + 5, len - 5);
		value[len - 5] = '\0';
		date = curl_getdate(value, NULL);
		transfer->server_date = date > 0 ? (int64) date : 0;
	}
	return len;
}

/* Lets the kernel find a peer that vanished; what it does not know of is left at its defaults. */
static int
prepare_stream_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	int probes = KEEPALIVE_PROBES;
	int unacknowledged = UNACKNOWLEDGED_MS;

	(void) arg;
	(void) purpose;
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof(unacknowledged));
	return CURL_SOCKOPT_OK;
}

/* ---- the timer ------------------------------------------------------------------------------ */

static int64
earlier(int64 a, int64 b)
{
	if (a == 0 || b == 0)
		return a + b;
	return Min(a, b);
}

/* Sets the timer to the next thing that is due; a past time fires at once. */
static void
arm_timer(EtcdHttp *http)
{
	struct itimerspec spec = {{0, 0}, {0, 0}};
	int64 at = http->curl_at;
	dlist_iter iter;

	if (http->closed)
		return;
	dlist_foreach(iter, &http->transfers)
	{
		EtcdTransfer *transfer = dlist_container(EtcdTransfer, node, iter.cur);

		if (!transfer->ended)
			at = earlier(at, transfer->post.deadline);
	}
	if (!dlist_is_empty(&http->ready))
		at = 1;
	if (at == http->armed)
		return;

	spec.it_value.tv_sec = at / USECS_PER_SEC;
	spec.it_value.tv_nsec = at % USECS_PER_SEC * 1000;
	/* Cannot fail: the descriptor is ours and the values are in range. */
	(void) timerfd_settime(http->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
	http->armed = at;
}

/* ---- transfers ------------------------------------------------------------------------------ */

static void
set_message(EtcdTransfer *transfer, const char *message)
{
	strlcpy(transfer->message, message, sizeof(transfer->message));
}

/* Takes a transfer from libcurl; it has ended, well or not. */
static void
end_transfer(EtcdTransfer *transfer)
{
	EtcdHttp *http = transfer->http;

	if (transfer->easy != NULL)
	{
		curl_multi_remove_handle(http->multi, transfer->easy);
		curl_easy_cleanup(transfer->easy);
		transfer->easy = NULL;
	}
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	transfer->received_at = dsched_boot_now();
	transfer->ended = true;
}

static void
free_transfer(EtcdGrave *self)
{
	EtcdTransfer *transfer = (EtcdTransfer *) self;

	free(transfer->buffer);
	free(transfer);
}

/* Takes a transfer out of all lists; its memory stays until nobody can be looking at it. */
static void
discard_transfer(EtcdTransfer *transfer)
{
	if (!transfer->ended)
		end_transfer(transfer);
	if (transfer->is_ready)
		dlist_delete(&transfer->ready_node);
	transfer->is_ready = false;
	dlist_delete(&transfer->node);
	etcd_bury(&transfer->grave, free_transfer);
}

static EtcdTransfer *
new_transfer(EtcdHttp *http, const HttpPost *post)
{
	EtcdTransfer *transfer = calloc(1, sizeof(EtcdTransfer));

	if (transfer == NULL)
		return NULL;
	transfer->http = http;
	transfer->post = *post;
	transfer->post.url = NULL; /* only libcurl's copy stays */
	transfer->sent_at = dsched_boot_now();
	dlist_push_tail(&http->transfers, &transfer->node);
	return transfer;
}

static bool
add_header(EtcdTransfer *transfer, const char *header)
{
	struct curl_slist *longer = curl_slist_append(transfer->headers, header);

	if (longer != NULL)
		transfer->headers = longer;
	return longer != NULL;
}

/* The token as it is: etcd before 3.5 takes no "Bearer" before it. */
static bool
add_authorization(EtcdTransfer *transfer)
{
	const char *token = transfer->post.authorization;
	size_t size;
	char *header;
	bool added;

	if (token == NULL)
		return true;
	size = strlen(token) + sizeof("Authorization: ");
	header = malloc(size);
	if (header == NULL)
		return false;
	snprintf(header, size, "Authorization: %s", token);
	added = add_header(transfer, header);
	explicit_bzero(header, size);
	free(header);
	return added;
}

static bool
make_headers(EtcdTransfer *transfer)
{
	char timeout[64];

	/* The empty "Expect" keeps libcurl from waiting for a permission that the gateway never gives. */
	if (!add_header(transfer, "Content-Type: application/json") ||
		!add_header(transfer, "Expect:") || !add_header(transfer, "Grpc-Metadata-Hasleader: true"))
		return false;
	/*
	 * Go's server throws away what it has not read of a body when it begins to answer, unless the connection is not to
	 * be used again.  The gateway reads a stream's requests one by one while it answers the first, and loses the rest
	 * of them if it is slow: the first 512 bytes are safe.
	 */
	if (transfer->post.stream && !add_header(transfer, "Connection: close"))
		return false;
	if (!add_authorization(transfer))
		return false;
	if (transfer->post.grpc_timeout_ms <= 0)
		return true;
	snprintf(timeout, sizeof(timeout), "Grpc-Timeout: %dm", transfer->post.grpc_timeout_ms);
	return add_header(transfer, timeout);
}

#define SET(option, value)                                                                         \
	do                                                                                             \
	{                                                                                              \
		if (curl_easy_setopt(easy, option, value) != CURLE_OK)                                     \
			return false;                                                                          \
	} while (0)

/* HTTP/1.1 to just that host: the gateway speaks nothing newer without TLS, and with it we need nothing newer. */
static bool
set_connection_options(CURL *easy, const HttpPost *post)
{
	SET(CURLOPT_URL, post->url);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) post->connect_timeout_ms);
	if (post->stream)
	{
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_FORBID_REUSE, 1L);
		SET(CURLOPT_TCP_KEEPALIVE, 1L);
		SET(CURLOPT_TCP_KEEPIDLE, (long) KEEPALIVE_IDLE_S);
		SET(CURLOPT_TCP_KEEPINTVL, (long) KEEPALIVE_INTERVAL_S);
		SET(CURLOPT_SOCKOPTFUNCTION, prepare_stream_socket);
	}
	return true;
}

static bool
set_request_options(CURL *easy, EtcdTransfer *transfer)
{
	SET(CURLOPT_PRIVATE, transfer);
	SET(CURLOPT_ERRORBUFFER, transfer->message);
	SET(CURLOPT_HTTPHEADER, transfer->headers);
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) transfer->post.body_len);
	SET(CURLOPT_READFUNCTION, give_body);
	SET(CURLOPT_READDATA, transfer);
	SET(CURLOPT_SEEKFUNCTION, rewind_body);
	SET(CURLOPT_SEEKDATA, transfer);
	SET(CURLOPT_WRITEFUNCTION, take_data);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, transfer);
	return true;
}

/* Fails before anything was sent; told when the loop comes round. */
static void
fail_transfer(EtcdTransfer *transfer, const char *message)
{
	end_transfer(transfer);
	transfer->outcome = HTTP_FAILED;
	set_message(transfer, message);
	make_ready(transfer);
}

EtcdTransfer *
etcd_http_post(EtcdHttp *http, const HttpPost *post)
{
	EtcdTransfer *transfer = new_transfer(http, post);

	if (transfer == NULL)
		return NULL;
	transfer->easy = curl_easy_init();
	if (transfer->easy == NULL || !make_headers(transfer) ||
		!set_connection_options(transfer->easy, post) ||
		!etcd_tls_apply(transfer->easy, &http->tls) ||
		!set_request_options(transfer->easy, transfer) ||
		curl_multi_add_handle(http->multi, transfer->easy) != CURLM_OK)
		fail_transfer(transfer, "could not set up an HTTP request");
	transfer->post.authorization = NULL; /* as is this */
	arm_timer(http);
	return transfer;
}

EtcdTransfer *
etcd_http_wait(EtcdHttp *http, const HttpPost *post)
{
	EtcdTransfer *transfer = new_transfer(http, post);

	if (transfer != NULL)
		arm_timer(http);
	return transfer;
}

void
etcd_http_end(EtcdTransfer *transfer, HttpOutcome outcome, const char *message)
{
	if (transfer->ended)
		return;
	end_transfer(transfer);
	transfer->outcome = outcome;
	set_message(transfer, message);
	make_ready(transfer);
	arm_timer(transfer->http);
}

EtcdTransfer *
etcd_http_fail(EtcdHttp *http, const HttpPost *post, const char *message)
{
	EtcdTransfer *transfer = new_transfer(http, post);

	if (transfer == NULL)
		return NULL;
	transfer->sent_at = 0;
	fail_transfer(transfer, message);
	arm_timer(http);
	return transfer;
}

void
etcd_http_cancel(EtcdTransfer *transfer)
{
	discard_transfer(transfer);
}

void
etcd_http_set_deadline(EtcdTransfer *transfer, int64 deadline)
{
	transfer->post.deadline = deadline;
	arm_timer(transfer->http);
}

const char *
etcd_http_text(EtcdTransfer *transfer, size_t *len)
{
	*len = transfer->end - transfer->start;
	return transfer->buffer == NULL ? "" : transfer->buffer + transfer->start;
}

void
etcd_http_consume(EtcdTransfer *transfer, size_t n)
{
	transfer->start += n;
	if (transfer->start == transfer->end)
		transfer->start = transfer->end = 0;
}

/* ---- dispatch ------------------------------------------------------------------------------- */

static void
block_signals(sigset_t *former)
{
	sigset_t all;

	sigfillset(&all);
	/* Those that an instruction raises cannot be put off. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGTRAP);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_BLOCK, &all, former);
}

/* Lets libcurl work. A thread that it starts inherits the blocked signals. */
static void
run_curl(EtcdHttp *http, curl_socket_t fd, int mask)
{
	sigset_t former;
	int running;

	block_signals(&former);
	curl_multi_socket_action(http->multi, fd, mask, &running);
	pthread_sigmask(SIG_SETMASK, &former, NULL);
}

/* Takes the transfers that libcurl has finished with. */
static void
collect_finished(EtcdHttp *http)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		EtcdTransfer *transfer = NULL;
		CURLcode result = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &transfer);
		curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &transfer->status);

		if (transfer->outcome == HTTP_TOO_BIG)
			set_message(transfer, "the answer is too big");
		else if (result == CURLE_OK)
			transfer->outcome = HTTP_COMPLETE;
		else
		{
			transfer->outcome = HTTP_FAILED;
			transfer->tls_failed = etcd_tls_is_failure(result, transfer->message);
			if (transfer->refused_rewind)
				set_message(transfer, "the connection broke after the request was sent");
			else if (transfer->message[0] == '\0')
				set_message(transfer, curl_easy_strerror(result));
		}
		end_transfer(transfer); /* message is void from here on */
		make_ready(transfer);
	}
}

/* Ends the transfers whose deadline has passed. */
static void
expire_transfers(EtcdHttp *http)
{
	int64 now = dsched_boot_now();
	dlist_iter iter;

	dlist_foreach(iter, &http->transfers)
	{
		EtcdTransfer *transfer = dlist_container(EtcdTransfer, node, iter.cur);

		if (transfer->ended || transfer->post.deadline == 0 || transfer->post.deadline > now)
			continue;
		end_transfer(transfer);
		transfer->outcome = HTTP_TIMEOUT;
		set_message(transfer, "no answer in time");
		make_ready(transfer);
	}
}

/* Brings what libcurl wants of its sockets to the loop; this can be left by an error. */
static void
apply_sockets(EtcdHttp *http)
{
	dlist_iter iter;

	dlist_foreach(iter, &http->sockets)
	{
		SocketNote *note = dlist_container(SocketNote, node, iter.cur);

		if (!note->changed)
			continue;
		loop_set_fd(http->loop, note->fd, note->events, http_handler, http);
		note->changed = false;
	}
}

/* Tells what happened to transfers; each call may do anything, destroying the client included. */
static void
deliver_ready(EtcdHttp *http)
{
	while (!http->closed && !dlist_is_empty(&http->ready))
	{
		EtcdTransfer *transfer =
			dlist_container(EtcdTransfer, ready_node, dlist_pop_head_node(&http->ready));
		HttpPost post = transfer->post;
		bool ended = transfer->ended;

		transfer->is_ready = false;
		if (ended)
			discard_transfer(transfer);
		else if (transfer->end == transfer->start)
			continue;
		arm_timer(http); /* an error leaves the rest to the next event */
		if (ended)
			post.done(post.arg, transfer);
		else
			post.data(post.arg, transfer);
	}
}

static void
http_handler(void *arg, int fd, uint32 events)
{
	EtcdHttp *http = arg;

	empty_graves();
	in_dispatch = true;
	if (fd == http->timer_fd)
	{
		uint64 expirations;

		if (read(fd, &expirations, sizeof(expirations)) == sizeof(expirations))
			http->armed = 0;
		if (http->curl_at != 0 && http->curl_at <= dsched_boot_now())
		{
			long timeout_ms = -1;

			http->curl_at = 0;
			run_curl(http, CURL_SOCKET_TIMEOUT, 0);
			/* It says nothing if it wants the time that it had said before. */
			if (http->curl_at == 0 && curl_multi_timeout(http->multi, &timeout_ms) == CURLM_OK)
				note_timer(http->multi, timeout_ms, http);
		}
	}
	else
		run_curl(http, fd,
				 (events & EPOLLIN ? CURL_CSELECT_IN : 0) |
					 (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
					 (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
	collect_finished(http);
	expire_transfers(http);
	apply_sockets(http);
	deliver_ready(http);
	arm_timer(http);
	in_dispatch = false;
	empty_graves();
}

/* ---- creation ------------------------------------------------------------------------------- */

/* Once in each process that needs it; never in the postmaster, as libraries could start threads. */
static bool
init_curl(void)
{
	static bool done = false;

	if (!done)
		done = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	return done;
}

static bool
set_multi_options(EtcdHttp *http)
{
	return curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, note_socket) == CURLM_OK &&
		   curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http) == CURLM_OK &&
		   curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, note_timer) == CURLM_OK &&
		   curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http) == CURLM_OK &&
		   curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING) ==
			   CURLM_OK &&
		   curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long) MAX_KEPT_CONNECTIONS) ==
			   CURLM_OK;
}

static void
free_http(EtcdGrave *self)
{
	EtcdHttp *http = (EtcdHttp *) self;

	etcd_tls_free(&http->tls);
	free(http);
}

EtcdHttp *
etcd_http_create(DschedLoop *loop, EtcdTls *tls)
{
	EtcdHttp *http = init_curl() ? calloc(1, sizeof(EtcdHttp)) : NULL;

	if (http == NULL)
	{
		if (tls != NULL)
			etcd_tls_free(tls);
		return NULL;
	}
	if (tls != NULL)
	{
		http->tls = *tls;
		memset(tls, 0, sizeof(*tls));
	}
	http->loop = loop;
	dlist_init(&http->sockets);
	dlist_init(&http->transfers);
	dlist_init(&http->ready);
	http->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	http->multi = curl_multi_init();
	if (http->timer_fd < 0 || http->multi == NULL || !set_multi_options(http))
	{
		etcd_http_destroy(http);
		return NULL;
	}
	loop_set_fd(loop, http->timer_fd, EPOLLIN, http_handler, http);
	return http;
}

bool
etcd_http_idle(EtcdHttp *http)
{
	return dlist_is_empty(&http->transfers);
}

const EtcdTls *
etcd_http_tls(const EtcdHttp *http)
{
	return &http->tls;
}

void
etcd_http_destroy(EtcdHttp *http)
{
	dlist_mutable_iter iter;

	http->closed = true;
	dlist_foreach_modify(iter, &http->transfers)
	{
		discard_transfer(dlist_container(EtcdTransfer, node, iter.cur));
	}
	if (http->multi != NULL)
		curl_multi_cleanup(http->multi);
	http->multi = NULL;
	dlist_foreach_modify(iter, &http->sockets)
	{
		SocketNote *note = dlist_container(SocketNote, node, iter.cur);

		loop_remove_fd(http->loop, note->fd);
		dlist_delete(&note->node);
		free(note);
	}
	if (http->timer_fd >= 0)
	{
		loop_remove_fd(http->loop, http->timer_fd);
		close(http->timer_fd);
	}
	etcd_bury(&http->grave, free_http);
}
