/*
 * test_etcd.c
 *	  The etcd client against an etcd of its own, and against servers that lie, hang and break off.
 *
 * Starts the binary "etcd" on free ports of the loopback interface, with its data in a temporary directory; it
 * and the false servers die with this program, however that ends.  Waits only in the event loop, for a state and with
 * a bound.
 */
/* links: src/core/base64.c src/core/backoff.c src/etcd/auth.c src/etcd/client.c src/etcd/http.c src/etcd/message.c src/etcd/security.c src/etcd/tls.c src/etcd/watch.c test/unit/loop_standalone.c */
/* libs: -lcurl -lcjson */
#define _GNU_SOURCE
#include "postgres.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef printf
#undef vprintf
#undef snprintf
#undef vsnprintf
#undef sprintf
#undef strerror

#include "clock.h"
#include "core/base64.h"
#include "etcd/client.h"
#include "etcd/watch.h"
#include "tap.h"

#define BOUND_MS 20000
#define CALL_MS 5000

static DschedLoop *loop;
static char directory[] = "/tmp/test_etcd.XXXXXX";
static pid_t etcd_pid = 0;
static int etcd_port, etcd_peer_port;
static char etcd_url[64];
static pid_t main_pid;

/* Runs the loop until the condition holds or the bound is reached; whether it holds. */
#define RUN_UNTIL(condition, ms)                                                                   \
	({                                                                                             \
		int64 until_ = dsched_boot_now() + (int64) (ms) *1000;                                     \
		while (!(condition) && dsched_boot_now() < until_)                                         \
		{                                                                                          \
			loop_set_boot_alarm(loop, until_);                                                     \
			loop_wait(loop);                                                                       \
		}                                                                                          \
		(condition);                                                                               \
	})

static void
fatal(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- etcd ----------------------------------------------------------------------------------- */

/* A listening socket on a free port. */
static int
listen_free(int *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(fd, 16) != 0 || getsockname(fd, (struct sockaddr *) &address, &len) != 0)
		fatal("listen");
	*port = ntohs(address.sin_port);
	return fd;
}

static int
free_port(void)
{
	int port;

	close(listen_free(&port));
	return port;
}

static void
kill_process(pid_t *pid, int sig)
{
	if (*pid <= 0)
		return;
	kill(*pid, sig);
	kill(*pid, SIGCONT);
	waitpid(*pid, NULL, 0);
	*pid = 0;
}

static void
clean_up(void)
{
	char command[128];

	if (getpid() != main_pid)
		return;
	kill_process(&etcd_pid, SIGKILL);
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	if (system(command) != 0)
		printf("# could not remove %s\n", directory);
}

static void
start_etcd(void)
{
	char data[128], client[64], peer[64], cluster[80], log[128];

	snprintf(data, sizeof(data), "%s/data", directory);
	snprintf(log, sizeof(log), "%s/log", directory);
	snprintf(client, sizeof(client), "http://127.0.0.1:%d", etcd_port);
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%d", etcd_peer_port);
	snprintf(cluster, sizeof(cluster), "default=%s", peer);
	strcpy(etcd_url, client);

	etcd_pid = fork();
	if (etcd_pid < 0)
		fatal("fork");
	if (etcd_pid == 0)
	{
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, 1);
		dup2(fd, 2);
		execlp("etcd", "etcd", "--data-dir", data, "--listen-client-urls", client,
			   "--advertise-client-urls", client, "--listen-peer-urls", peer,
			   "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, (char *) NULL);
		_exit(127);
	}
}

/* ---- calls ---------------------------------------------------------------------------------- */

typedef struct Result
{
	int count;
	EtcdResponse r;
	cJSON *body;
	char endpoint[64];
} Result;

static void
keep_result(void *arg, const EtcdResponse *r)
{
	Result *result = arg;

	cJSON_Delete(result->body);
	result->count++;
	result->r = *r;
	result->body = r->body ? cJSON_Duplicate(r->body, true) : NULL;
	strlcpy(result->endpoint, r->endpoint, sizeof(result->endpoint));
}

/* One result at a time: the former one's body goes. */
static Result *
new_result(void)
{
	static Result result;

	cJSON_Delete(result.body);
	memset(&result, 0, sizeof(result));
	return &result;
}

static Result *
call(EtcdClient *client, const char *path, cJSON *body, EtcdKind kind, int timeout_ms)
{
	Result *result = new_result();

	etcd_call(client, path, body, kind, timeout_ms, keep_result, result);
	if (result->count != 0)
		printf("# called back at once\n");
	RUN_UNTIL(result->count > 0, timeout_ms + BOUND_MS);
	return result;
}

static Result *
get(EtcdClient *client, const char *key, const char *range_end)
{
	return call(client, ETCD_PATH_RANGE, etcd_range(key, range_end, 0, false), ETCD_READ, CALL_MS);
}

static Result *
end_txn(EtcdClient *client, EtcdTxn *txn)
{
	return call(client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_WRITE, CALL_MS);
}

static Result *
put(EtcdClient *client, const char *key, const char *value, int64 lease)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_put(txn, key, value, strlen(value), lease);
	return end_txn(client, txn);
}

/* The value of a key, "" if there is none. */
static const char *
value_of(EtcdClient *client, const char *key)
{
	static char value[256];
	EtcdKv kv;

	value[0] = '\0';
	if (etcd_kv_at(get(client, key, NULL)->body, 0, &kv))
	{
		strlcpy(value, kv.value, sizeof(value));
		etcd_kv_free(&kv);
	}
	return value;
}

/* Asks until etcd answers. */
static bool
etcd_answers(EtcdClient *client)
{
	int64 until = dsched_boot_now() + BOUND_MS * 1000;

	while (dsched_boot_now() < until)
	{
		if (get(client, "x", NULL)->r.ok)
			return true;
		RUN_UNTIL(false, 50); /* refused: not in a tight loop */
	}
	return false;
}

/* ---- watches -------------------------------------------------------------------------------- */

#define MAX_SEEN 64

typedef struct Seen
{
	int started;
	int64 started_at;
	int64 progress;
	int lines;
	int n;
	struct
	{
		int range;
		bool is_delete;
		char key[64];
		size_t value_len;
		char value[64];
		int64 mod_revision;
	} events[MAX_SEEN];
	int lost;
	EtcdWatchLoss why;
	char message[256];
	EtcdWatch *watch;
	int64 next[4];
	int nranges;
	bool stop_in_events;
} Seen;

static void
see_started(void *arg, int64 revision)
{
	Seen *seen = arg;

	seen->started++;
	seen->started_at = revision;
}

static void
see_events(void *arg, int range, const EtcdEvent *events, int n, int64 revision)
{
	Seen *seen = arg;
	int i;

	(void) revision;
	seen->lines++;
	for (i = 0; i < n && seen->n < MAX_SEEN; i++, seen->n++)
	{
		seen->events[seen->n].range = range;
		seen->events[seen->n].is_delete = events[i].is_delete;
		strlcpy(seen->events[seen->n].key, events[i].kv.key, 64);
		strlcpy(seen->events[seen->n].value, events[i].kv.value, 64);
		seen->events[seen->n].value_len = events[i].kv.value_len;
		seen->events[seen->n].mod_revision = events[i].kv.mod_revision;
	}
	if (seen->stop_in_events)
	{
		etcd_watch_stop(seen->watch);
		seen->watch = NULL;
	}
}

static void
see_progress(void *arg, int64 revision)
{
	((Seen *) arg)->progress = revision;
}

static void
see_lost(void *arg, EtcdWatchLoss why, const char *message)
{
	Seen *seen = arg;
	int i;

	seen->lost++;
	seen->why = why;
	strlcpy(seen->message, message, sizeof(seen->message));
	for (i = 0; i < seen->nranges; i++)
		seen->next[i] = etcd_watch_next_revision(seen->watch, i);
	seen->watch = NULL;
}

static const EtcdWatchHandler see = {see_started, see_events, see_progress, see_lost};

static void
watch(EtcdClient *client, Seen *seen, const EtcdWatchRange *ranges, int n, int64 start)
{
	memset(seen, 0, sizeof(*seen));
	seen->nranges = n;
	seen->watch = etcd_watch_start(client, ranges, n, start, &see, seen);
}

/* ---- false servers -------------------------------------------------------------------------- */

/* What a false server does with each request, in turn; the last one goes on. */
typedef struct Script
{
	const char *answer; /* raw; NULL: none */
	size_t len;			/* 0: strlen(answer) */
	size_t repeat;		/* send the answer so often */
	bool bytewise;
	bool hold; /* leave the connection open, for another request */
} Script;

typedef struct FalseServer
{
	pid_t pid;
	int port;
	char url[64];
	volatile int *requests; /* complete ones that it got */
} FalseServer;

/* Reads one request with its body; false: the connection ended before. */
static bool
read_request(int fd)
{
	static char buffer[8 * 1024 * 1024];
	size_t len = 0;

	for (;;)
	{
		ssize_t n = read(fd, buffer + len, sizeof(buffer) - len - 1);
		char *body;
		char *length;

		if (n <= 0)
			return false;
		len += n;
		buffer[len] = '\0';
		body = strstr(buffer, "\r\n\r\n");
		length = strcasestr(buffer, "Content-Length:");
		if (body != NULL && length != NULL &&
			(size_t) (buffer + len - (body + 4)) >= (size_t) atol(length + 15))
			return true;
	}
}

static bool
write_all(int fd, const char *data, size_t len, bool bytewise)
{
	while (len > 0)
	{
		ssize_t n = write(fd, data, bytewise ? 1 : len);

		if (n <= 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

static void
serve(int listener, const Script *script, int n, volatile int *requests)
{
	int i = 0;

	for (;;)
	{
		int fd = accept(listener, NULL, NULL);
		int one = 1;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (read_request(fd))
		{
			const Script *step = &script[Min(i, n - 1)];
			size_t times = Max(step->repeat, 1);

			i++;
			(*requests)++;
			while (step->answer != NULL && times-- > 0)
			{
				if (!write_all(fd, step->answer, step->len ? step->len : strlen(step->answer),
							   step->bytewise))
					break;
			}
			if (!step->hold)
				break;
		}
		close(fd);
	}
}

static FalseServer
start_server(const Script *script, int n)
{
	FalseServer server;
	int listener = listen_free(&server.port);

	server.requests =
		mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(server.url, sizeof(server.url), "http://127.0.0.1:%d", server.port);
	server.pid = fork();
	if (server.pid < 0)
		fatal("fork");
	if (server.pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		serve(listener, script, n, server.requests);
		_exit(0);
	}
	close(listener);
	return server;
}

static void
stop_server(FalseServer *server)
{
	kill_process(&server->pid, SIGKILL);
	munmap((void *) server->requests, sizeof(int));
}

/* ---- tests: pure ---------------------------------------------------------------------------- */

static void
test_base64(void)
{
	static const char *const pairs[][2] = {
		{"", ""},		 {"f", "Zg=="},		   {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfb", "//77"}};
	static const char *const bad[] = {"A",	  "AA",	  "AAA",  "A===",	  "====", "AA=A",
									  "Zh==", "Zm9=", "-_-_", "Zg==Zg==", "Z g=", "Zg=\n"};
	unsigned char all[256], back[256];
	char text[BASE64_ENCODED_LEN(256) + 1];
	size_t len;
	size_t i;

	for (i = 0; i < lengthof(pairs); i++)
	{
		base64_encode(pairs[i][0], strlen(pairs[i][0]), text);
		is_str(text, pairs[i][1], "base64 of \"%s\"", pairs[i][1]);
	}
	for (i = 0; i < lengthof(bad); i++)
		ok(!base64_decode(bad[i], strlen(bad[i]), back, &len), "not base64: %zu", i);
	for (i = 0; i < 256; i++)
		all[i] = (unsigned char) i;
	for (i = 0; i <= 256; i++)
	{
		base64_encode(all, i, text);
		if (!base64_decode(text, strlen(text), back, &len) || len != i || memcmp(all, back, i) != 0)
			break;
	}
	is_int(i, 257, "all lengths there and back");
}

static void
test_endpoints(void)
{
	static const struct
	{
		const char *text;
		const char *error; /* NULL: valid */
	} cases[] = {
		{"", NULL},
		{"  ", NULL},
		{"http://a:1", NULL},
		{"http://127.0.0.1:2379,http://etcd-2.x_y.example:65535", NULL},
		{" http://a:1 , http://[::1]:2379 ", NULL},
		{"https://a", "is not of the form \"https://host:port\""},
		{"a:1", "does not begin with"},
		{"ftp://a:1", "does not begin with"},
		{"http://a", "not of the form"},
		{"http://:1", "not of the form"},
		{"http://[::1:1", "not of the form"},
		{"http://u:p@a:1", "port number"},
		{"http://a:0", "port number"},
		{"http://a:65536", "port number"},
		{"http://a:123456", "port number"},
		{"http://a:1/", "port number"},
		{"http://a:1/v3", "port number"},
		{"http://a:1,", "empty element"},
		{",http://a:1", "empty element"},
		{"http://a:1,,http://b:1", "empty element"},
		{"http://a:1 http://b:1", "port number"},
		{"http://a\n:1", "not of the form"},
	};
	char many[2000] = "";
	char reason[200];
	size_t i;

	for (i = 0; i < lengthof(cases); i++)
	{
		bool valid;

		reason[0] = '\0';
		valid = etcd_endpoints_valid(cases[i].text, reason, sizeof(reason));
		ok(valid == (cases[i].error == NULL) && (valid || strstr(reason, cases[i].error) != NULL),
		   "endpoints case %zu %s", i, reason);
	}
	for (i = 0; i < ETCD_MAX_ENDPOINTS + 1; i++)
		sprintf(many + strlen(many), "%shttp://a:1", i > 0 ? "," : "");
	ok(!etcd_endpoints_valid(many, reason, sizeof(reason)) && strstr(reason, "more than 32"),
	   "too many endpoints");
	ok(etcd_client_create(loop, "nonsense") == NULL, "no client of invalid endpoints");
}

static void
test_json(void)
{
	static const struct
	{
		const char *text;
		int code; /* -2: no error */
		const char *message;
	} errors[] = {
		{"{\"error\":\"e: x\",\"message\":\"e: x\",\"code\":5}", 5, "e: x"},
		{"{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"m\"}}", 14, "m"},
		{"{\"error\":{\"code\":14,\"message\":\"m\"}}", 14, "m"},
		{"{\"code\":8,\"message\":\"m\\u0007\",\"details\":[]}", 8, "m?"},
		{"{\"error\":\"only\"}", -1, "only"},
		{"{\"error\":{}}", -1, "unknown error"},
		{"{\"header\":{},\"kvs\":[]}", -2, NULL},
		{"{\"code\":8}", -2, NULL},
		{"[]", -2, NULL},
		{"7", -2, NULL},
	};
	static const char *const numbers =
		"{\"a\":\"-9223372036854775808\",\"b\":7,\"c\":\"x\",\"d\":1e300,"
		"\"e\":\"18446744073709551615\",\"f\":[],\"g\":\"9223372036854775808\"}";
	static const char *const bad_kvs =
		"{\"kvs\":[{\"key\":\"!\"},{\"key\":7},{\"value\":\"YQ==\"},7,{\"key\":\"YQBi\"}]}";
	char deep[400];
	char message[64];
	cJSON *object;
	EtcdKv kv;
	size_t i;
	int code;

	for (i = 0; i < lengthof(errors); i++)
	{
		object = etcd_json_parse(errors[i].text, strlen(errors[i].text));
		code = -2;
		message[0] = '\0';
		if (etcd_json_error(object, &code, message, sizeof(message)) != (errors[i].code != -2))
			code = 99;
		is_int(code, errors[i].code, "error shape %zu", i);
		if (errors[i].message)
			is_str(message, errors[i].message, "its message");
		cJSON_Delete(object);
	}

	memset(deep, '[', 200);
	memset(deep + 200, ']', 200);
	ok(etcd_json_parse(deep, 399) == NULL, "JSON too deep");
	ok(etcd_json_parse("{}x", 3) == NULL && etcd_json_parse("", 0) == NULL,
	   "JSON with something behind, and none");
	ok(etcd_json_parse("{\"1\":1,", 7) == NULL, "cut JSON");
	ok(etcd_json_parse("\"a\0b\"", 5) == NULL, "JSON with a NUL");
	object = etcd_json_parse("{\"a\":[\"]]][[[\\\"{\"]} \n", 21);
	ok(object != NULL, "brackets in strings do not count");
	cJSON_Delete(object);

	object = etcd_json_parse(numbers, strlen(numbers));
	ok(object != NULL, "numbers parse");
	ok(etcd_json_int64(object, "a") == PG_INT64_MIN, "smallest int64");
	is_int(etcd_json_int64(object, "b"), 7, "a number");
	is_int(etcd_json_int64(object, "c"), 0, "no number");
	is_int(etcd_json_int64(object, "d"), 0, "a number beyond");
	ok(etcd_json_uint64(object, "e") == PG_UINT64_MAX, "largest uint64");
	is_int(etcd_json_int64(object, "f"), 0, "an array");
	is_int(etcd_json_int64(object, "g"), 0, "a string beyond");
	is_int(etcd_json_int64(NULL, "g"), 0, "nothing");
	cJSON_Delete(object);

	object = etcd_json_parse(bad_kvs, strlen(bad_kvs));
	is_int(etcd_kv_count(object), 5, "five bad ones");
	for (i = 0; i < 4; i++)
		ok(!etcd_kv_at(object, i, &kv) && kv.key == NULL, "a malformed key-value");
	ok(etcd_kv_at(object, 4, &kv) && kv.key_len == 3 && kv.value_len == 0 && kv.value[0] == '\0',
	   "a key with a NUL, no value");
	etcd_kv_free(&kv);
	ok(!etcd_kv_at(object, 5, &kv) && !etcd_kv_at(NULL, 0, &kv), "none");
	cJSON_Delete(object);
	ok(etcd_txn_response(NULL, 0) == NULL && !etcd_txn_succeeded(NULL), "readers take NULL");
}

static void
test_prefix_end(void)
{
	static const char *const cases[][2] = {{"/a/", "/a0"}, {"a", "b"}, {"a\xff\xff", "b"}};
	size_t i;

	for (i = 0; i < lengthof(cases); i++)
	{
		char *end = etcd_prefix_end(cases[i][0]);

		is_str(end, cases[i][1], "prefix end");
		free(end);
	}
	ok(etcd_prefix_end("") == NULL && etcd_prefix_end("\xff") == NULL, "prefixes without an end");
}

/* ---- tests: etcd's requests ----------------------------------------------------------------- */

static void
test_range(EtcdClient *client)
{
	Result *result;
	EtcdKv kv;
	int64 revision;

	result = put(client, "/r/a", "one", 0);
	ok(result->r.ok && etcd_txn_succeeded(result->body), "put: %s", result->r.message);
	is_int(result->r.grpc_code, 0, "code of a good answer");
	ok(result->r.revision > 0 && result->r.raft_term > 0 && result->r.cluster_id != 0 &&
		   result->r.member_id != 0,
	   "header");
	ok(result->r.sent_at > 0 && result->r.received_at >= result->r.sent_at &&
		   result->r.received_at <= dsched_boot_now(),
	   "times of sending and receiving");
	ok(labs((long) (result->r.server_date - time(NULL))) <= 2, "server date");
	is_str(result->endpoint, etcd_url, "endpoint");
	revision = result->r.revision;
	put(client, "/r/b", "", 0);
	put(client, "/r/c", "\xff", 0);
	put(client, "/s", "outside", 0);

	result = get(client, "/r/a", NULL);
	is_int(etcd_kv_count(result->body), 1, "range over a key");
	ok(etcd_kv_at(result->body, 0, &kv), "its key-value");
	is_str(kv.key, "/r/a", "key");
	is_str(kv.value, "one", "value");
	is_int(kv.create_revision, revision, "create revision");
	is_int(kv.mod_revision, revision, "mod revision");
	is_int(kv.version, 1, "version");
	is_int(kv.lease, 0, "lease");
	etcd_kv_free(&kv);

	result = get(client, "/r/", "/r0");
	is_int(etcd_kv_count(result->body), 3, "range over a prefix");
	ok(etcd_kv_at(result->body, 1, &kv) && kv.value_len == 0, "an empty value");
	etcd_kv_free(&kv);
	ok(etcd_kv_at(result->body, 2, &kv) && kv.value_len == 1 && kv.value[0] == '\xff', "a byte");
	etcd_kv_free(&kv);
	is_int(etcd_kv_count(get(client, "/none", NULL)->body), 0, "range over nothing");

	result = call(client, ETCD_PATH_RANGE, etcd_range("/r/", "/r0", 2, true), ETCD_READ, CALL_MS);
	is_int(etcd_kv_count(result->body), 2, "limit");
	ok(etcd_range_more(result->body), "more");
	ok(etcd_kv_at(result->body, 0, &kv) && kv.value_len == 0, "keys only");
	etcd_kv_free(&kv);
	result = call(client, ETCD_PATH_RANGE, etcd_range_at("/r/", "/r0", 0, false, revision),
				  ETCD_READ, CALL_MS);
	is_int(etcd_kv_count(result->body), 1, "as of a revision");
	ok(!etcd_range_more(result->body), "no more");
	result = call(client, ETCD_PATH_RANGE,
				  etcd_range_at("/r/", "/r0", 0, false, revision + 1000000), ETCD_READ, CALL_MS);
	is_int(result->r.grpc_code, ETCD_CODE_OUT_OF_RANGE, "a future revision: %s", result->r.message);
	ok(!result->r.ok && result->r.body == NULL && !result->r.ambiguous, "an error is not ok");
}

/* A transaction of one condition on /t; did it hold? */
static bool
holds(EtcdClient *client, void (*condition)(EtcdTxn *, const char *, int64), const char *key,
	  int64 n)
{
	EtcdTxn *txn = etcd_txn_begin();
	Result *result;

	condition(txn, key, n);
	etcd_txn_put(txn, "/t-held", "x", 1, 0);
	result = end_txn(client, txn);
	if (!result->r.ok)
		printf("# %s\n", result->r.message);
	return result->r.ok && etcd_txn_succeeded(result->body);
}

static bool
value_holds(EtcdClient *client, const char *key, const char *value)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_if_value(txn, key, value, strlen(value));
	etcd_txn_put(txn, "/t-held", "x", 1, 0);
	return etcd_txn_succeeded(end_txn(client, txn)->body);
}

static bool
exists_holds(EtcdClient *client, const char *key)
{
	EtcdTxn *txn = etcd_txn_begin();

	etcd_txn_if_exists(txn, key);
	etcd_txn_put(txn, "/t-held", "x", 1, 0);
	return etcd_txn_succeeded(end_txn(client, txn)->body);
}

static void
test_compares(EtcdClient *client)
{
	int64 created = put(client, "/t", "one", 0)->r.revision;
	int64 modified = put(client, "/t", "two", 0)->r.revision;

	ok(holds(client, etcd_txn_if_create, "/t", created), "create_revision equals");
	ok(!holds(client, etcd_txn_if_create, "/t", modified), "create_revision differs");
	ok(!holds(client, etcd_txn_if_create, "/t", 0), "not absent");
	ok(holds(client, etcd_txn_if_create, "/t-none", 0), "absent");
	ok(!holds(client, etcd_txn_if_create, "/t-none", 1), "absent is not 1");
	ok(holds(client, etcd_txn_if_mod, "/t", modified), "mod_revision equals");
	ok(!holds(client, etcd_txn_if_mod, "/t", created), "mod_revision differs");
	ok(!holds(client, etcd_txn_if_mod, "/t", 0), "not unmodified");
	ok(holds(client, etcd_txn_if_mod, "/t-none", 0), "never modified");
	ok(exists_holds(client, "/t"), "exists");
	ok(!exists_holds(client, "/t-none"), "does not exist");
	ok(value_holds(client, "/t", "two"), "value equals");
	ok(!value_holds(client, "/t", "one"), "value differs");
	ok(!value_holds(client, "/t", ""), "value is not empty");
	ok(!value_holds(client, "/t-none", ""), "no value of what is not there");
}

static void
test_txn(EtcdClient *client)
{
	EtcdTxn *txn = etcd_txn_begin();
	EtcdTxn *nested = etcd_txn_begin();
	EtcdTxn *other = etcd_txn_begin();
	const cJSON *inner;
	Result *result;
	EtcdKv kv;
	int64 start = put(client, "/x/a", "a", 0)->r.revision;

	put(client, "/x/b", "b", 0);
	etcd_txn_if_create(txn, "/x/a", start);
	etcd_txn_put(txn, "/x/c", "c", 1, 0);
	etcd_txn_delete(txn, "/x/b");
	etcd_txn_get(txn, "/x/", "/x0");
	etcd_txn_if_create(nested, "/x/a", start);
	etcd_txn_put(nested, "/x/d", "d", 1, 0);
	etcd_txn_get(nested, "/x/d", NULL);
	etcd_txn_nest(txn, nested);
	etcd_txn_if_create(other, "/x/a", 1);
	etcd_txn_put(other, "/x/e", "e", 1, 0);
	etcd_txn_else_get(other, "/x/a", NULL);
	etcd_txn_nest(txn, other);
	etcd_txn_else_get(txn, "/x/a", NULL);
	is_int(etcd_txn_ops(txn), 7, "ops: five of the outer, two of the larger inner");
	result = end_txn(client, txn);

	ok(result->r.ok && etcd_txn_succeeded(result->body), "transaction: %s", result->r.message);
	is_int(etcd_kv_count(etcd_txn_response(result->body, 2)), 2, "its range sees its writes");
	inner = etcd_txn_response(result->body, 3);
	ok(etcd_txn_succeeded(inner), "the nested one succeeded");
	ok(etcd_kv_at(etcd_txn_response(inner, 1), 0, &kv) && strcmp(kv.value, "d") == 0, "its range");
	is_int(kv.mod_revision, result->r.revision, "one revision for all");
	etcd_kv_free(&kv);
	inner = etcd_txn_response(result->body, 4);
	ok(inner != NULL && !etcd_txn_succeeded(inner), "the other one failed");
	is_int(etcd_kv_count(etcd_txn_response(inner, 0)), 1, "and answers from its failure branch");
	ok(etcd_txn_response(result->body, 5) == NULL, "no more responses");
	is_str(value_of(client, "/x/d"), "d", "nested put");
	is_str(value_of(client, "/x/e"), "", "no put of a failed one");
	is_str(value_of(client, "/x/b"), "", "deleted");

	txn = etcd_txn_begin();
	etcd_txn_if_mod(txn, "/x/a", 1);
	etcd_txn_put(txn, "/x/a", "changed", 7, 0);
	etcd_txn_else_get(txn, "/x/", "/x0");
	result = end_txn(client, txn);
	ok(result->r.ok && !etcd_txn_succeeded(result->body), "failure branch");
	is_int(etcd_kv_count(etcd_txn_response(result->body, 0)), 3, "its range");

	txn = etcd_txn_begin();
	etcd_txn_delete_range(txn, "/x/", "/x0");
	ok(etcd_txn_succeeded(end_txn(client, txn)->body), "delete a range");
	is_int(etcd_kv_count(get(client, "/x/", "/x0")->body), 0, "it is gone");

	txn = etcd_txn_begin();
	etcd_txn_if_mod(txn, "/x/a", 0);
	result = end_txn(client, txn);
	ok(!result->r.ok && !result->r.ambiguous &&
		   strstr(result->r.message, "without operations") != NULL,
	   "conditions alone are refused: %s", result->r.message);
	txn = etcd_txn_begin();
	etcd_txn_free(txn);
	is_int(etcd_txn_ops(NULL), 0, "no transaction");
}

static EtcdTxn *
txn_of_puts(const char *prefix, int n)
{
	EtcdTxn *txn = etcd_txn_begin();
	char key[64];
	int i;

	for (i = 0; i < n; i++)
	{
		snprintf(key, sizeof(key), "%s/%d", prefix, i);
		etcd_txn_put(txn, key, "v", 1, 0);
	}
	return txn;
}

/* What the bounds of message.h promise. */
static void
test_txn_bounds(EtcdClient *client)
{
	char *big = malloc(ETCD_TXN_MAX_BYTES + 1);
	EtcdTxn *txn;
	Result *result;
	char prefix[64];
	int i;

	result = end_txn(client, txn_of_puts("/n", ETCD_TXN_MAX_OPS));
	ok(result->r.ok, "as many operations as promised: %s", result->r.message);
	result = end_txn(client, txn_of_puts("/n", ETCD_TXN_MAX_OPS + 1));
	is_int(result->r.grpc_code, ETCD_CODE_INVALID_ARGUMENT, "one more");
	ok(!result->r.ambiguous, "which is not ambiguous");

	txn = etcd_txn_begin();
	for (i = 0; i < 64; i++)
	{
		snprintf(prefix, sizeof(prefix), "/n%d", i);
		etcd_txn_nest(txn, txn_of_puts(prefix, 64));
	}
	is_int(etcd_txn_ops(txn), 128, "64 times 64 operations");
	result = end_txn(client, txn);
	ok(result->r.ok, "4096 puts at once: %s", result->r.message);

	memset(big, 'x', ETCD_TXN_MAX_BYTES);
	txn = etcd_txn_begin();
	etcd_txn_put(txn, "/big", big, ETCD_TXN_MAX_BYTES - 2 * 64 - 4, 0);
	is_int(etcd_txn_bytes(txn), ETCD_TXN_MAX_BYTES, "as many bytes as promised");
	result = end_txn(client, txn);
	ok(result->r.ok, "are taken: %s", result->r.message);
	txn = etcd_txn_begin();
	etcd_txn_put(txn, "/big", big, ETCD_TXN_MAX_BYTES, 0);
	result = end_txn(client, txn);
	ok(!result->r.ok && !result->r.ambiguous, "too many are refused: %d %s", result->r.grpc_code,
	   result->r.message);
	free(big);

	/* Many small ones are where an estimate could be wrong. */
	txn = etcd_txn_begin();
	for (i = 0; etcd_txn_bytes(txn) < ETCD_TXN_MAX_BYTES - 9000 && i < 64; i++)
	{
		snprintf(prefix, sizeof(prefix), "/m%d", i);
		etcd_txn_nest(txn, txn_of_puts(prefix, 64));
	}
	ok(end_txn(client, txn)->r.ok, "a full transaction of small puts");

	result = call(client, ETCD_PATH_TXN, cJSON_CreateStringArray((const char *const[]){"x"}, 1),
				  ETCD_WRITE, CALL_MS);
	ok(!result->r.ok && !result->r.ambiguous && result->r.grpc_code == ETCD_CODE_INVALID_ARGUMENT,
	   "nonsense is refused: %d %s", result->r.grpc_code, result->r.message);
	result = call(client, "/v3/none", cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
	ok(!result->r.ok && !result->r.ambiguous, "an unknown path is refused: %s", result->r.message);
}

static void
test_too_big(EtcdClient *client)
{
	char *text = malloc(ETCD_MAX_REQUEST + 2);
	cJSON *body = cJSON_CreateObject();
	Result *result;

	memset(text, 'x', ETCD_MAX_REQUEST + 1);
	text[ETCD_MAX_REQUEST + 1] = '\0';
	cJSON_AddStringToObject(body, "key", text);
	free(text);
	result = call(client, ETCD_PATH_RANGE, body, ETCD_WRITE, CALL_MS);
	ok(!result->r.ok && !result->r.ambiguous && result->r.sent_at == 0,
	   "a request too big is not sent: %s", result->r.message);
	is_str(result->r.message, "the request is too big", "and says so");
	result = call(client, ETCD_PATH_RANGE, NULL, ETCD_READ, CALL_MS);
	ok(!result->r.ok && strstr(result->r.message, "could not be built") != NULL, "no body");
}

static void
test_leases(EtcdClient *client)
{
	Result *result = new_result();
	int64 lease;
	EtcdKv kv;

	etcd_lease_grant(client, 30, CALL_MS, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	ok(result->r.ok, "grant: %s", result->r.message);
	lease = etcd_json_int64(result->body, "ID");
	ok(lease != 0, "lease id");
	is_int(etcd_json_int64(result->body, "TTL"), 30, "its TTL");

	put(client, "/l", "leased", lease);
	ok(etcd_kv_at(get(client, "/l", NULL)->body, 0, &kv) && kv.lease == lease, "a leased key");
	etcd_kv_free(&kv);

	result = new_result();
	etcd_lease_keepalive(client, lease, CALL_MS, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	ok(result->r.ok, "keepalive: %s", result->r.message);
	is_int(etcd_json_int64(result->body, "TTL"), 30, "its TTL");
	ok(result->r.raft_term > 0 && result->r.revision > 0, "its header");

	result = new_result();
	etcd_lease_revoke(client, lease, CALL_MS, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	ok(result->r.ok, "revoke: %s", result->r.message);
	is_str(value_of(client, "/l"), "", "the key went with its lease");

	result = new_result();
	etcd_lease_keepalive(client, lease, CALL_MS, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	ok(result->r.ok && etcd_json_int64(result->body, "TTL") == 0,
	   "keepalive of a lease that is gone");

	result = new_result();
	etcd_lease_revoke(client, lease, CALL_MS, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	is_int(result->r.grpc_code, ETCD_CODE_NOT_FOUND, "revoke of a lease that is gone");
	ok(!result->r.ambiguous, "is not ambiguous");
	result = put(client, "/l", "x", lease);
	is_int(result->r.grpc_code, ETCD_CODE_NOT_FOUND, "put with a lease that is gone");
	ok(!result->r.ok && !result->r.ambiguous, "is not ambiguous");
}

static void
test_large(EtcdClient *client)
{
	size_t size = 1024 * 1024;
	char *value = malloc(size + 1);
	EtcdWatchRange range = {"/large/", "/large0", 0};
	Seen seen;
	Result *result;
	EtcdKv kv;
	char key[32];
	int i;

	watch(client, &seen, &range, 1, 0);
	ok(RUN_UNTIL(seen.started, BOUND_MS), "watch of large values");
	value[size] = '\0';
	for (i = 0; i < 5; i++)
	{
		memset(value, 'a' + i, size);
		snprintf(key, sizeof(key), "/large/%d", i);
		put(client, key, value, 0);
	}
	result = get(client, "/large/", "/large0");
	is_int(etcd_kv_count(result->body), 5, "five large values");
	for (i = 0; i < 5; i++)
	{
		memset(value, 'a' + i, size);
		ok(etcd_kv_at(result->body, i, &kv) && kv.value_len == size &&
			   memcmp(kv.value, value, size) == 0,
		   "large value %d", i);
		etcd_kv_free(&kv);
	}
	ok(RUN_UNTIL(seen.n == 5, BOUND_MS), "five large events");
	is_int(seen.events[4].value_len, size, "of their size");
	etcd_watch_stop(seen.watch);
	free(value);
}

/* ---- tests: watches ------------------------------------------------------------------------- */

static void
test_watch(EtcdClient *client)
{
	EtcdWatchRange ranges[] = {{"/w/a/", "/w/a0", 0}, {"/w/b", NULL, 0}};
	EtcdTxn *txn;
	Seen seen;
	int64 revision;
	int64 next[2];

	watch(client, &seen, ranges, 2, 0);
	ok(RUN_UNTIL(seen.started, BOUND_MS), "watch started");
	revision = put(client, "/w/c", "outside", 0)->r.revision;
	is_int(seen.started_at, revision - 1, "at the revision before");
	is_int(etcd_watch_next_revision(seen.watch, 0), revision, "next revision");

	put(client, "/w/a/1", "one", 0);
	put(client, "/w/b", "two", 0);
	txn = etcd_txn_begin();
	etcd_txn_put(txn, "/w/a/2", "2", 1, 0);
	etcd_txn_put(txn, "/w/a/3", "", 0, 0);
	etcd_txn_delete(txn, "/w/a/1");
	revision = end_txn(client, txn)->r.revision;
	ok(RUN_UNTIL(seen.n == 5, BOUND_MS), "five events");
	is_int(seen.lines, 3, "three answers: a transaction's events come together");
	is_int(seen.events[0].range, 0, "first range");
	is_str(seen.events[0].key, "/w/a/1", "first key");
	is_str(seen.events[0].value, "one", "first value");
	is_int(seen.events[1].range, 1, "second range");
	is_str(seen.events[1].value, "two", "second value");
	is_str(seen.events[2].key, "/w/a/2", "third key");
	is_int(seen.events[3].value_len, 0, "an empty value");
	ok(seen.events[4].is_delete && !seen.events[3].is_delete, "a deletion");
	is_str(seen.events[4].key, "/w/a/1", "of which key");
	is_int(seen.events[4].mod_revision, revision, "at which revision");
	next[0] = etcd_watch_next_revision(seen.watch, 0);
	next[1] = etcd_watch_next_revision(seen.watch, 1);
	is_int(next[0], revision + 1, "next revision of the first range");
	is_int(next[1], revision, "and of the second");
	etcd_watch_stop(seen.watch);

	/* What happens meanwhile comes when the watch goes on. */
	put(client, "/w/a/4", "four", 0);
	revision = put(client, "/w/b", "five", 0)->r.revision;
	ranges[0].start_revision = next[0];
	ranges[1].start_revision = next[1];
	watch(client, &seen, ranges, 2, 0);
	ok(RUN_UNTIL(seen.n == 2, BOUND_MS), "resumed watch: two events");
	ok(seen.started == 1 && seen.started_at == revision, "started once");
	ok(RUN_UNTIL(seen.started, BOUND_MS) && seen.lost == 0, "no loss");
	seen.stop_in_events = true;
	put(client, "/w/a/6", "six", 0);
	ok(RUN_UNTIL(seen.watch == NULL, BOUND_MS), "stopped by its own handler");
	put(client, "/w/a/6", "seven", 0);
	is_int(seen.n, 3, "hears no more");

	/* The first revision that does not exist yet is not behind; later ones are. */
	watch(client, &seen, ranges, 0, 0);
	etcd_watch_stop(seen.watch);
	ranges[0].start_revision = ranges[1].start_revision = 0;
	revision = get(client, "x", NULL)->r.revision;
	watch(client, &seen, ranges, 2, revision + 1);
	ok(RUN_UNTIL(seen.started, BOUND_MS) && !seen.lost, "start right after the present");
	etcd_watch_stop(seen.watch);
	watch(client, &seen, ranges, 2, revision + 2);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "start in the future");
	is_int(seen.why, ETCD_WATCH_BEHIND, "etcd is behind: %s", seen.message);
	is_int(seen.started, 0, "never started");

	/* An end before the beginning is a range that etcd refuses. */
	ranges[0].key = "b";
	ranges[0].range_end = "a";
	watch(client, &seen, ranges, 1, 0);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "a refused range");
	is_int(seen.why, ETCD_WATCH_REFUSED, "why: %s", seen.message);
}

static void
test_compaction(EtcdClient *client)
{
	EtcdWatchRange range = {"/c", NULL, 0};
	Seen seen;
	int64 first = put(client, "/c", "1", 0)->r.revision;
	int64 last;
	Result *result;

	put(client, "/c", "2", 0);
	last = put(client, "/c", "3", 0)->r.revision;
	result = call(client, ETCD_PATH_COMPACTION, etcd_compaction(last), ETCD_IDEMPOTENT, CALL_MS);
	ok(result->r.ok, "compaction: %s", result->r.message);
	watch(client, &seen, &range, 1, first);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "watch from a compacted revision is lost");
	is_int(seen.why, ETCD_WATCH_COMPACTED, "why: %s", seen.message);
	is_int(seen.next[0], first, "nothing was delivered");
	result = call(client, ETCD_PATH_RANGE, etcd_range_at("/c", NULL, 0, false, first), ETCD_READ,
				  CALL_MS);
	is_int(result->r.grpc_code, ETCD_CODE_OUT_OF_RANGE, "range as of it: %s", result->r.message);
	result = call(client, ETCD_PATH_COMPACTION, etcd_compaction(last), ETCD_IDEMPOTENT, CALL_MS);
	is_int(result->r.grpc_code, ETCD_CODE_OUT_OF_RANGE, "a second compaction");
	watch(client, &seen, &range, 1, last);
	ok(RUN_UNTIL(seen.n == 1, BOUND_MS) && seen.lost == 0, "watch from the revision kept");
	etcd_watch_stop(seen.watch);
}

static void
test_restart(EtcdClient *client, int sig)
{
	EtcdWatchRange range = {"/d", NULL, 0};
	Seen seen;
	int64 next;

	watch(client, &seen, &range, 1, 0);
	ok(RUN_UNTIL(seen.started, BOUND_MS), "watch before the restart by signal %d", sig);
	put(client, "/d", "before", 0);
	ok(RUN_UNTIL(seen.n == 1, BOUND_MS), "an event");
	kill_process(&etcd_pid, sig);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "lost with its server");
	is_int(seen.why, ETCD_WATCH_DISCONNECTED, "why: %s", seen.message);
	next = seen.next[0];

	watch(client, &seen, &range, 1, next);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "lost without a server");
	is_int(seen.why, ETCD_WATCH_DISCONNECTED, "why: %s", seen.message);
	ok(!put(client, "/d", "no", 0)->r.ok, "a put without a server");
	start_etcd();
	ok(etcd_answers(client), "etcd is back");
	put(client, "/d", "after", 0);
	watch(client, &seen, &range, 1, next);
	ok(RUN_UNTIL(seen.n == 1, BOUND_MS), "the watch goes on");
	is_str(seen.events[0].value, "after", "without a gap");
	etcd_watch_stop(seen.watch);
}

/* ---- tests: trouble ------------------------------------------------------------------------- */

static void
test_failover(void)
{
	char endpoints[300];
	int hole_port;
	int hole = listen_free(&hole_port);
	EtcdClient *client;
	Result *result;
	int64 start;

	snprintf(endpoints, sizeof(endpoints), "http://127.0.0.1:%d,http://127.0.0.1:%d,%s",
			 free_port(), hole_port, etcd_url);
	client = etcd_client_create(loop, endpoints);
	start = dsched_boot_now();
	result = call(client, ETCD_PATH_RANGE, etcd_range("x", NULL, 0, false), ETCD_READ, 1500);
	ok(result->r.ok, "a read finds the third endpoint: %s", result->r.message);
	is_str(result->endpoint, etcd_url, "which it is");
	ok(result->r.sent_at - start >= 500000, "sent_at is that of the attempt that was answered");
	start = dsched_boot_now();
	ok(put(client, "/f", "v", 0)->r.ok && dsched_boot_now() - start < 500000,
	   "then it is used at once");
	etcd_client_destroy(client);

	snprintf(endpoints, sizeof(endpoints), "http://127.0.0.1:%d,%s", free_port(), etcd_url);
	client = etcd_client_create(loop, endpoints);
	result = put(client, "/f", "v2", 0);
	ok(result->r.ok, "a write goes on after a refused connection: %s", result->r.message);
	etcd_client_destroy(client);

	snprintf(endpoints, sizeof(endpoints), "http://127.0.0.1:%d,%s", hole_port, etcd_url);
	client = etcd_client_create(loop, endpoints);
	{
		EtcdTxn *txn = etcd_txn_begin();

		etcd_txn_put(txn, "/f", "v3", 2, 0);
		result = call(client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_WRITE, 300);
	}
	ok(!result->r.ok && result->r.ambiguous, "a write into the black hole is ambiguous: %s",
	   result->r.message);
	is_int(result->r.grpc_code, -1, "without a code");
	is_str(value_of(client, "/f"), "v2", "the next call leaves that endpoint out");
	etcd_client_destroy(client);

	client = etcd_client_create(loop, endpoints);
	result = new_result();
	etcd_lease_keepalive(client, 1, 1000, keep_result, result);
	RUN_UNTIL(result->count > 0, BOUND_MS);
	ok(result->r.ok, "an idempotent write goes on after the black hole: %s", result->r.message);
	etcd_client_destroy(client);
	close(hole);

	client = etcd_client_create(loop, "");
	result = get(client, "x", NULL);
	is_str(result->r.message, "no etcd endpoints are set", "no endpoints");
	{
		EtcdWatchRange range = {"x", NULL, 0};
		Seen seen;

		watch(client, &seen, &range, 1, 0);
		ok(RUN_UNTIL(seen.lost, BOUND_MS) && seen.why == ETCD_WATCH_DISCONNECTED,
		   "nor for a watch: %s", seen.message);
	}
	etcd_client_destroy(client);
}

/* Names are resolved by threads, which are not waited for. */
static void
test_names(void)
{
	char endpoints[300];
	EtcdClient *client;
	Result *result;
	int64 start = dsched_boot_now();

	snprintf(endpoints, sizeof(endpoints), "http://localhost:%d", etcd_port);
	client = etcd_client_create(loop, endpoints);
	result = get(client, "x", NULL);
	ok(result->r.ok, "an endpoint by name: %s", result->r.message);
	etcd_client_destroy(client);

	client = etcd_client_create(loop, "http://none.invalid:1");
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, 300);
	ok(!result->r.ok && !result->r.ambiguous, "a name that is not there: %s", result->r.message);
	ok(dsched_boot_now() - start < 2000000, "does not hold us up");
	etcd_client_destroy(client);
}

static void
test_stopped_etcd(EtcdClient *client)
{
	EtcdTxn *txn = etcd_txn_begin();
	Result *result;
	int64 start = dsched_boot_now();
	const char *value;

	put(client, "/p", "before", 0);
	kill(etcd_pid, SIGSTOP);
	etcd_txn_put(txn, "/p", "during", 6, 0);
	result = call(client, ETCD_PATH_TXN, etcd_txn_end(txn), ETCD_WRITE, 300);
	ok(!result->r.ok && result->r.ambiguous, "a write to a stopped etcd is ambiguous: %s",
	   result->r.message);
	result = call(client, ETCD_PATH_RANGE, etcd_range("/p", NULL, 0, false), ETCD_READ, 300);
	ok(!result->r.ok && !result->r.ambiguous, "a read is not: %s", result->r.message);
	ok(dsched_boot_now() - start < 5000000, "deadlines are kept");
	kill(etcd_pid, SIGCONT);
	ok(etcd_answers(client), "etcd goes on");
	value = value_of(client, "/p");
	ok(strcmp(value, "before") == 0 || strcmp(value, "during") == 0, "the write: %s", value);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
#define OK_ANSWER OK_HEAD "Content-Length: 31\r\n\r\n{\"header\":{\"revision\":\"5\"}}    "

static void
test_hostile_answers(void)
{
	static char deep[300000];
	static char header[100000];
	static const char *names[] = {
		"garbage",		"nothing",		  "cut short",		 "not JSON",
		"an array",		"too deep",		  "a plain 500",	 "a plain 404",
		"huge headers", "half an object", "an empty answer", "an error of a later gateway"};
	static const char *const answers[] = {
		"SSH-2.0-OpenSSH_9.2\r\n",
		NULL,
		OK_HEAD "Content-Length: 1000\r\n\r\n{\"header\":{}}",
		OK_HEAD "\r\nhello",
		OK_HEAD "\r\n[]",
		deep,
		"HTTP/1.1 500 Oops\r\n\r\nfirst line\nsecond",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
		header,
		OK_HEAD "\r\n{\"header\":{\"revision\":\"5\"}",
		OK_HEAD "Content-Length: 0\r\n\r\n",
		"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"code\":14,\"message\":\"etcdserver: no "
		"leader\"}",
	};
	size_t i;

	strcpy(deep, OK_HEAD "\r\n");
	memset(deep + strlen(deep), '[', 200000);
	strcpy(header, OK_HEAD "X: ");
	memset(header + strlen(header), 'x', 90000);
	strcat(header, "\r\n\r\n{}");
	for (i = 0; i < lengthof(answers); i++)
	{
		Script script = {answers[i], 0, 1, false, false};
		FalseServer server = start_server(&script, 1);
		EtcdClient *client = etcd_client_create(loop, server.url);
		Result *result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
		bool refused = answers[i] != NULL && strstr(answers[i], " 404 ") != NULL;

		ok(!result->r.ok && result->r.ambiguous == !refused, "%s: %s", names[i], result->r.message);
		is_int(*server.requests, 1, "sent once");
		ok(strpbrk(result->r.message, "\n\r") == NULL, "message is fit for a log");
		if (i == 11)
			is_int(result->r.grpc_code, ETCD_CODE_UNAVAILABLE, "code");
		etcd_client_destroy(client);
		stop_server(&server);
	}
}

/* ---- users and certificates ------------------------------------------------------------------ */

#define TOKEN_ANSWER OK_HEAD "\r\n{\"token\":\"T.123\"}"
#define REFUSED_TOKEN                                                                              \
	"HTTP/1.1 401 Unauthorized\r\n\r\n"                                     \
	"{\"error\":\"etcdserver: invalid auth token\",\"code\":16}       "
#define REFUSED_LOGIN                                                                              \
	"HTTP/1.1 400 Bad Request\r\n\r\n"                                      \
	"{\"error\":\"etcdserver: authentication failed, invalid user ID or password\",\"code\":3}  "

/* A file with that text and mode; its path. */
static const char *
make_file(const char *name, const char *text, mode_t mode)
{
	static char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t) strlen(text) || fchmod(fd, mode) != 0)
		fatal(path);
	close(fd);
	return path;
}

/* A client of that server as user "u" with a password. */
static EtcdClient *
user_client(const FalseServer *server)
{
	EtcdClient *client = etcd_client_create(loop, server->url);
	EtcdSecurity security = {.user = "u", .password_file = make_file("password", "hush-hush\n", 0600)};
	char reason[256];

	ok(etcd_client_secure(client, &security, reason, sizeof(reason)), "user and password");
	return client;
}

static void
test_hostile_logins(void)
{
	static char long_token[100000];
	static const char *const names[] = {"a line end", "an empty token", "a number", "none", "not JSON", "too long", "too big"};
	const char *answers[] = {OK_HEAD "\r\n{\"token\":\"a\\r\\nX-Evil: 1\"}",
							 OK_HEAD "\r\n{\"token\":\"\"}",
							 OK_HEAD "\r\n{\"token\":5}",
							 OK_HEAD "\r\n{}",
							 OK_HEAD "\r\nhello",
							 NULL,
							 long_token};
	static char medium[20000];
	size_t i;

	strcpy(long_token, OK_HEAD "\r\n{\"token\":\"");
	memset(long_token + strlen(long_token), 'x', 80000);
	strcat(long_token, "\"}");
	strcpy(medium, OK_HEAD "\r\n{\"token\":\"");
	memset(medium + strlen(medium), 'x', 10000);
	strcat(medium, "\"}");
	answers[5] = medium;
	for (i = 0; i < lengthof(answers); i++)
	{
		Script script = {answers[i], 0, 1, false, false};
		FalseServer server = start_server(&script, 1);
		EtcdClient *client = user_client(&server);
		Result *result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);

		ok(!result->r.ok && !result->r.ambiguous, "a login answered by %s: %s", names[i], result->r.message);
		is_int(*server.requests, 1, "nothing but the login was sent");
		ok(strstr(result->r.message, "hush") == NULL, "no secrets in the message");
		etcd_client_destroy(client);
		stop_server(&server);
	}
}

static void
test_tokens(void)
{
	Script renewed[] = {{TOKEN_ANSWER}, {REFUSED_TOKEN}, {TOKEN_ANSWER}, {OK_ANSWER}};
	Script never[] = {{TOKEN_ANSWER}, {REFUSED_TOKEN}, {TOKEN_ANSWER}, {REFUSED_TOKEN},
					  {TOKEN_ANSWER}, {REFUSED_TOKEN}, {TOKEN_ANSWER}, {REFUSED_TOKEN}};
	Script wrong = {REFUSED_LOGIN};
	FalseServer server = start_server(renewed, lengthof(renewed));
	EtcdClient *client = user_client(&server);
	Result *result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
	int i;

	ok(result->r.ok, "a write that is refused for its token is sent again: %s", result->r.message);
	is_int(*server.requests, 4, "after one more login");
	etcd_client_destroy(client);
	stop_server(&server);

	server = start_server(never, lengthof(never));
	client = user_client(&server);
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
	ok(!result->r.ok && !result->r.ambiguous && result->r.fault == ETCD_FAULT_AUTH, "not for ever: %s",
	   result->r.message);
	is_int(*server.requests, 6, "two more tries");
	etcd_client_destroy(client);
	stop_server(&server);

	server = start_server(&wrong, 1);
	client = user_client(&server);
	for (i = 0; i < 20; i++)
	{
		result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
		if (result->r.ok || result->r.fault != ETCD_FAULT_AUTH || strstr(result->r.message, "hush") != NULL)
			break;
	}
	is_int(i, 20, "a wrong password fails all calls: %s", result->r.message);
	ok(*server.requests <= 3, "and is not tried for each: %d times", *server.requests);
	etcd_client_destroy(client);
	stop_server(&server);
}

static void
test_secret_files(void)
{
	Script script = {OK_ANSWER};
	FalseServer server = start_server(&script, 1);
	EtcdClient *client = etcd_client_create(loop, server.url);
	EtcdSecurity security = {.user = "u", .password_file = make_file("open", "hush-hush\n", 0640)};
	EtcdSecurity none = {0};
	char reason[256] = "";
	Result *result;

	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)) && strstr(reason, "group or world") != NULL,
	   "a password that others can read: %s", reason);
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_READ, CALL_MS);
	ok(!result->r.ok && result->r.fault == ETCD_FAULT_SETTINGS, "calls fail: %s", result->r.message);
	is_int(*server.requests, 0, "and are not sent");
	security.password_file = make_file("empty", "\n", 0600);
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)), "no password: %s", reason);
	security.password_file = directory;
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)), "a directory: %s", reason);
	security.password_file = NULL;
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)), "a user alone: %s", reason);
	security.user = NULL;
	security.cert_file = make_file("cert", "-----BEGIN CERTIFICATE-----\n", 0644);
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)), "a certificate alone: %s", reason);
	security.cert_file = NULL;
	security.ca_file = make_file("ca", "hello\n", 0644);
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)) && strstr(reason, "PEM") != NULL, "no PEM: %s",
	   reason);
	ok(etcd_client_secure(client, &none, reason, sizeof(reason)), "none at all");
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_READ, CALL_MS);
	ok(result->r.ok, "and calls are sent: %s", result->r.message);

	/* what was good stays in use */
	ok(!etcd_client_secure(client, &security, reason, sizeof(reason)), "bad ones later: %s", reason);
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_READ, CALL_MS);
	ok(result->r.ok, "change nothing: %s", result->r.message);
	etcd_client_destroy(client);
	stop_server(&server);
}

static void
test_huge_answer(void)
{
	static char block[1024 * 1024 + 1];
	Script script = {block, 0, 100, false, false};
	FalseServer server;
	EtcdClient *client;
	Result *result;
	EtcdWatchRange range = {"x", NULL, 0};
	Seen seen;

	/* A megabyte without an end, a hundred times; the first one has the headers in it. */
	memset(block, ' ', sizeof(block) - 1);
	memcpy(block, OK_HEAD "\r\n", strlen(OK_HEAD "\r\n"));
	server = start_server(&script, 1);
	client = etcd_client_create(loop, server.url);
	result = call(client, ETCD_PATH_RANGE, cJSON_CreateObject(), ETCD_READ, CALL_MS * 4);
	ok(!result->r.ok && strstr(result->r.message, "too big") != NULL, "a huge answer: %s",
	   result->r.message);

	watch(client, &seen, &range, 1, 0);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "a huge line");
	ok(seen.why == ETCD_WATCH_TOO_BIG || seen.why == ETCD_WATCH_PROTOCOL, "why: %s", seen.message);
	etcd_client_destroy(client);
	stop_server(&server);
}

/* libcurl repeats a POST by itself when a kept connection breaks; a write must not be. */
static void
test_silent_repeat(void)
{
	Script scripts[] = {
		{OK_ANSWER, 0, 1, false, true}, {NULL, 0, 1, false, false}, {OK_ANSWER, 0, 1, false, true}};
	FalseServer server = start_server(scripts, 3);
	EtcdClient *client = etcd_client_create(loop, server.url);
	Result *result;

	ok(call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS)->r.ok, "first write");
	result = call(client, ETCD_PATH_TXN, cJSON_CreateObject(), ETCD_WRITE, CALL_MS);
	ok(!result->r.ok && result->r.ambiguous, "second write, on a connection that breaks: %s",
	   result->r.message);
	is_int(*server.requests, 2, "was not sent again");
	etcd_client_destroy(client);
	stop_server(&server);

	server = start_server(scripts, 3);
	client = etcd_client_create(loop, server.url);
	ok(call(client, ETCD_PATH_RANGE, cJSON_CreateObject(), ETCD_READ, CALL_MS)->r.ok, "first read");
	result = call(client, ETCD_PATH_RANGE, cJSON_CreateObject(), ETCD_READ, CALL_MS);
	ok(result->r.ok, "second read, on a connection that breaks: %s", result->r.message);
	is_int(*server.requests, 3, "was sent again");
	is_int(result->r.revision, 5, "and answered");
	etcd_client_destroy(client);
	stop_server(&server);
}

#define CREATED(id) "{\"result\":{\"header\":{\"revision\":\"7\"}," id "\"created\":true}}\n"
#define EVENT(id)                                                                                  \
	"{\"result\":{\"header\":{\"revision\":\"8\"}," id                                             \
	"\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"8\",\"value\":\"Yg==\"}}]}}\n"

static void
test_hostile_watches(void)
{
	static const struct
	{
		const char *name;
		const char *stream;
		EtcdWatchLoss why;
		int started;
		int n;
	} cases[] = {
		{"the end of the stream",
		 CREATED("") CREATED("\"watch_id\":\"1\",") EVENT("") EVENT("\"watch_id\":\"1\","),
		 ETCD_WATCH_DISCONNECTED, 1, 2},
		{"an error without a newline",
		 CREATED("") "{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}",
		 ETCD_WATCH_DISCONNECTED, 0, 0},
		{"a later gateway's error", "{\"error\":{\"code\":11,\"message\":\"compacted\"}}",
		 ETCD_WATCH_COMPACTED, 0, 0},
		{"a unary error", "{\"error\":\"x\",\"code\":7,\"message\":\"permission denied\"}",
		 ETCD_WATCH_REFUSED, 0, 0},
		{"canceled",
		 CREATED("") CREATED("\"watch_id\":\"1\",") "{\"result\":{\"watch_id\":\"1\",\"canceled\":"
													"true,\"compact_revision\":\"3\"}}\n",
		 ETCD_WATCH_COMPACTED, 1, 0},
		{"no permission",
		 "{\"result\":{\"watch_id\":\"-1\",\"created\":true,\"canceled\":true,\"cancel_reason\":"
		 "\"rpc error: code = PermissionDenied\"}}\n",
		 ETCD_WATCH_REFUSED, 0, 0},
		{"an event of no watch",
		 CREATED("") CREATED("\"watch_id\":\"1\",") EVENT("\"watch_id\":\"9\","),
		 ETCD_WATCH_PROTOCOL, 1, 0},
		{"too many created",
		 CREATED("") CREATED("\"watch_id\":\"1\",") CREATED("\"watch_id\":\"2\","),
		 ETCD_WATCH_PROTOCOL, 1, 0},
		{"not JSON", CREATED("") "xyz\n" EVENT(""), ETCD_WATCH_PROTOCOL, 0, 0},
		{"half an object", CREATED("") "{\"result\":{\"header\":", ETCD_WATCH_DISCONNECTED, 0, 0},
		{"an event without a key",
		 CREATED("") "{\"result\":{\"header\":{\"revision\":\"8\"},\"events\":[{\"kv\":{}}]}}\n",
		 ETCD_WATCH_PROTOCOL, 0, 0},
		{"an event of a wrong type",
		 CREATED("") "{\"result\":{\"header\":{\"revision\":\"8\"},\"events\":[7]}}\n",
		 ETCD_WATCH_PROTOCOL, 0, 0},
		{"neither result nor error", "{\"x\":1}\n", ETCD_WATCH_PROTOCOL, 0, 0},
	};
	size_t i;

	for (i = 0; i < lengthof(cases); i++)
	{
		EtcdWatchRange ranges[] = {{"a", NULL, 0}, {"b", NULL, 0}};
		char answer[2000];
		Script script = {answer, 0, 1, true, false};
		FalseServer server;
		EtcdClient *client;
		Seen seen;

		snprintf(answer, sizeof(answer), "%s\r\n%s", OK_HEAD, cases[i].stream);
		server = start_server(&script, 1);
		client = etcd_client_create(loop, server.url);
		watch(client, &seen, ranges, 2, 0);
		ok(RUN_UNTIL(seen.lost, BOUND_MS), "watch, %s: %s", cases[i].name, seen.message);
		is_int(seen.why, cases[i].why, "why");
		is_int(seen.started, cases[i].started, "started");
		is_int(seen.n, cases[i].n, "events");
		etcd_client_destroy(client);
		stop_server(&server);
	}
}

static void
test_watch_progress(void)
{
	static const char *answer = OK_HEAD "\r\n" CREATED("") CREATED("\"watch_id\":\"1\",")
		EVENT("") "{\"result\":{\"header\":{\"revision\":\"20\"}}}\n"
				  "{\"result\":{\"header\":{\"revision\":\"15\"},\"watch_id\":\"1\"}}\n";
	Script script = {answer, 0, 1, false, true};
	FalseServer server = start_server(&script, 1);
	EtcdClient *client = etcd_client_create(loop, server.url);
	EtcdWatchRange ranges[] = {{"a", NULL, 0}, {"b", NULL, 0}};
	Seen seen;

	watch(client, &seen, ranges, 2, 0);
	ok(RUN_UNTIL(seen.progress == 15, BOUND_MS), "progress is that of the slower range");
	is_int(etcd_watch_next_revision(seen.watch, 0), 21, "next of the first range");
	is_int(etcd_watch_next_revision(seen.watch, 1), 16, "next of the second range");
	etcd_client_destroy(client);
	is_int(seen.lost, 0, "destroying is no loss");
	stop_server(&server);
}

/* A watch whose server takes the connection and never answers. */
static void
test_silent_watch(void)
{
	EtcdWatchRange range = {"a", NULL, 0};
	char url[64];
	int port;
	int hole = listen_free(&port);
	EtcdClient *client;
	Seen seen;

	snprintf(url, sizeof(url), "http://127.0.0.1:%d", port);
	client = etcd_client_create(loop, url);
	watch(client, &seen, &range, 1, 0);
	ok(RUN_UNTIL(seen.lost, BOUND_MS), "a watch that is never created: %s", seen.message);
	is_int(seen.why, ETCD_WATCH_DISCONNECTED, "why");
	etcd_client_destroy(client);
	close(hole);
}

/* ---- tests: what callbacks may do ----------------------------------------------------------- */

typedef struct Chain
{
	EtcdClient *client;
	EtcdRequest *other; /* canceled by the callback */
	int canceled;
	struct Chain *canceler; /* whose other is this one's call */
	int called;
	int left;
	bool destroy;
	jmp_buf *escape;
} Chain;

static void
chain_called(void *arg, const EtcdResponse *r)
{
	Chain *chain = arg;

	(void) r;
	chain->called++;
	if (chain->canceler != NULL)
		chain->canceler->other = NULL; /* it came first */
	if (chain->other != NULL)
	{
		etcd_cancel(chain->other);
		chain->canceled++;
	}
	chain->other = NULL;
	if (chain->destroy)
	{
		etcd_client_destroy(chain->client);
		chain->client = NULL;
	}
	else if (chain->left-- > 0)
		etcd_call(chain->client, ETCD_PATH_RANGE, etcd_range("x", NULL, 0, false), ETCD_READ,
				  CALL_MS, chain_called, chain);
	if (chain->escape != NULL)
		longjmp(*chain->escape, 1);
}

static EtcdRequest *
start_chain(Chain *chain)
{
	return etcd_call(chain->client, ETCD_PATH_RANGE, etcd_range("x", NULL, 0, false), ETCD_READ,
					 CALL_MS, chain_called, chain);
}

static void
test_callbacks(void)
{
	Chain chain = {0};
	Chain victim = {0};
	volatile int escapes = 0;
	jmp_buf escape;
	uint64 wakeups;
	int i;

	chain.client = victim.client = etcd_client_create(loop, etcd_url);
	chain.left = 20;
	start_chain(&chain);
	ok(RUN_UNTIL(chain.called == 21, BOUND_MS), "calls made by callbacks");

	/* Both answers may be in before the first callback; the second call is canceled by it. */
	memset(&chain, 0, sizeof(chain));
	chain.client = victim.client;
	victim.canceler = &chain;
	for (i = 0; i < 50; i++)
	{
		start_chain(&chain);
		chain.other = start_chain(&victim);
		RUN_UNTIL(chain.called == i + 1, BOUND_MS);
	}
	ok(chain.canceled > 0, "%d calls were canceled", chain.canceled);
	etcd_cancel(start_chain(&victim));
	start_chain(&chain);
	RUN_UNTIL(chain.called == 51, BOUND_MS);
	is_int(victim.called + chain.canceled, 50, "canceled calls are not answered");

	/* As by ereport(): out of the callback, out of loop_wait(); what is left comes with the next turn. */
	memset(&chain, 0, sizeof(chain));
	chain.client = victim.client;
	chain.escape = &escape;
	for (i = 0; i < 5; i++)
		start_chain(&chain);
	if (setjmp(escape) != 0)
		escapes++;
	ok(RUN_UNTIL(chain.called == 5, BOUND_MS) && escapes == 5,
	   "callbacks that are left by an error");
	chain.escape = NULL;
	start_chain(&chain);
	ok(RUN_UNTIL(chain.called == 6, BOUND_MS), "the client goes on");

	chain.escape = &escape;
	chain.destroy = true;
	escapes = 0;
	start_chain(&victim);
	start_chain(&chain);
	if (setjmp(escape) != 0)
		escapes++;
	ok(RUN_UNTIL(escapes == 1, BOUND_MS), "destroyed in a callback, and left by an error");

	memset(&chain, 0, sizeof(chain));
	chain.client = etcd_client_create(loop, etcd_url);
	chain.destroy = true;
	start_chain(&chain);
	start_chain(&chain);
	ok(RUN_UNTIL(chain.client == NULL, BOUND_MS), "destroyed in a callback");
	is_int(chain.called, 1, "no callback after that");

	chain.client = etcd_client_create(loop, etcd_url);
	chain.destroy = false;
	chain.called = 0;
	start_chain(&chain);
	RUN_UNTIL(chain.called == 1, BOUND_MS);
	wakeups = loop_wakeups(loop);
	RUN_UNTIL(false, 300);
	is_int(loop_wakeups(loop) - wakeups, 1, "an idle client wakes nobody (once was our alarm)");
	for (i = 0; i < 100; i++)
	{
		start_chain(&chain);
	}
	ok(RUN_UNTIL(chain.called == 101, BOUND_MS), "a hundred calls at once");
	etcd_client_destroy(chain.client);
}

int
main(void)
{
	EtcdClient *client;

	main_pid = getpid();
	signal(SIGPIPE, SIG_IGN);
	if (mkdtemp(directory) == NULL)
		fatal("mkdtemp");
	atexit(clean_up);
	etcd_port = free_port();
	etcd_peer_port = free_port();
	start_etcd();
	loop = loop_create(false);

	test_base64();
	test_endpoints();
	test_json();
	test_prefix_end();

	client = etcd_client_create(loop, etcd_url);
	if (!ok(etcd_answers(client), "etcd answers"))
		return done();
	test_range(client);
	test_compares(client);
	test_txn(client);
	test_txn_bounds(client);
	test_too_big(client);
	test_leases(client);
	test_large(client);
	test_watch(client);
	test_compaction(client);
	test_restart(client, SIGTERM);
	test_restart(client, SIGKILL);
	test_failover();
	test_names();
	test_stopped_etcd(client);
	test_callbacks();
	test_hostile_answers();
	test_hostile_logins();
	test_tokens();
	test_secret_files();
	test_huge_answer();
	test_silent_repeat();
	test_hostile_watches();
	test_watch_progress();
	test_silent_watch();
	etcd_client_destroy(client);
	new_result();
	return done();
}
