/*
 * auth.c
 *	  Logging in to etcd with a user and a password: the tokens that requests carry.
 *
 * A token is got from a member by its name and password, and sent with each request to it.  etcd's simple
 * tokens live in the members' memory and lapse five minutes after their last use at that member, so each
 * endpoint has one of its own, and a member that was restarted knows none.  Whatever needs a token while
 * there is none waits for the one login of its endpoint that is under way; a login costs etcd a tenth of a
 * second of computing.
 *
 * A request that is refused for its token was not applied.  It makes the endpoint forget that token (not one
 * that came meanwhile), waits for the next and is sent again: once or twice, then the refusal is the answer.
 *
 * A password that is refused is refused by all members.  Nobody tries again before a delay has passed, which
 * grows to half a minute; a reload ends it.  The password is read from its file for each login, so that one
 * that was changed is found.
 */
#include "postgres.h"

#include <string.h>

#include "clock.h"
#include "core/backoff.h"
#include "etcd/internal.h"

#define PATH_AUTHENTICATE "/v3/auth/authenticate"
#define LOGIN_TIMEOUT_US INT64CONST(5000000)
#define LOGIN_BACKOFF_MIN INT64CONST(500000)
#define LOGIN_BACKOFF_MAX INT64CONST(30000000)
#define MAX_TOKEN_BYTES 8192
#define MAX_ANSWER_BYTES 65536
#define MAX_URL 512

static void login_done(void *arg, EtcdTransfer *transfer);

bool
etcd_auth_needed(const EtcdClient *client, int endpoint)
{
	const Endpoint *at = &client->endpoints[endpoint];

	return client->user != NULL && at->token == NULL && !at->without_login;
}

bool
etcd_auth_is_refusal(int grpc_code, const char *message)
{
	return grpc_code == ETCD_CODE_UNAUTHENTICATED || strstr(message, "Unauthenticated") != NULL ||
		   strstr(message, "invalid auth token") != NULL || strstr(message, "user name is empty") != NULL ||
		   strstr(message, "revision of auth store is old") != NULL;
}

static void
forget_token(Endpoint *at)
{
	etcd_free_secret(at->token);
	at->token = NULL;
	at->without_login = false;
}

void
etcd_auth_refused(EtcdClient *client, int endpoint, unsigned int serial)
{
	Endpoint *at = &client->endpoints[endpoint];

	if (at->serial == serial)
		forget_token(at);
}

void
etcd_auth_forget(EtcdClient *client)
{
	int i;

	for (i = 0; i < client->nendpoints; i++)
	{
		Endpoint *at = &client->endpoints[i];

		forget_token(at);
		at->serial++;
		if (at->login == NULL)
			continue;
		etcd_http_cancel(at->login);
		at->login = NULL;
		etcd_free_secret(at->login_body);
		at->login_body = NULL;
		/* they find out that there is no token, and ask for one again */
		etcd_wake_waiting(client, i, HTTP_WOKEN, "", ETCD_FAULT_NONE);
	}
}

/* {"name":...,"password":...} as text; NULL: out of memory. */
static char *
login_text(const char *user, const char *password)
{
	cJSON *body = cJSON_CreateObject();
	char *text = NULL;

	if (body != NULL && cJSON_AddStringToObject(body, "name", user) != NULL &&
		cJSON_AddStringToObject(body, "password", password) != NULL)
		text = cJSON_PrintUnformatted(body);
	cJSON_Delete(body);
	return text;
}

/* Sends the login; false, with the reason: it cannot be. */
static bool
send_login(EtcdClient *client, int endpoint, char *reason, size_t n)
{
	Endpoint *at = &client->endpoints[endpoint];
	char *password = etcd_read_password(client->password_file, reason, n);
	HttpPost post = {0};
	char url[MAX_URL];

	if (password == NULL)
		return false;
	at->login_body = login_text(client->user, password);
	etcd_free_secret(password);
	strlcpy(reason, "a login could not be started", n);
	if (at->login_body == NULL || !etcd_endpoint_url(client, endpoint, PATH_AUTHENTICATE, url, sizeof(url)))
		return false;
	post.url = url;
	post.body = at->login_body;
	post.body_len = strlen(at->login_body);
	post.deadline = dsched_boot_now() + LOGIN_TIMEOUT_US;
	post.connect_timeout_ms = LOGIN_TIMEOUT_US / 1000;
	post.grpc_timeout_ms = LOGIN_TIMEOUT_US / 1000 * 9 / 10;
	post.may_resend = true;
	post.max_buffer = MAX_ANSWER_BYTES;
	post.done = login_done;
	post.arg = at;
	at->login = etcd_http_post(client->http, &post);
	return at->login != NULL;
}

/* Nobody is to try before a while has passed. */
static void
put_off(EtcdClient *client, const char *why, EtcdFault fault)
{
	client->login_failures++;
	client->login_retry_at =
		dsched_boot_now() + backoff_delay(client->login_failures, LOGIN_BACKOFF_MIN, LOGIN_BACKOFF_MAX, etcd_random(client));
	client->login_fault = fault;
	strlcpy(client->login_error, why, sizeof(client->login_error));
}

const char *
etcd_auth_begin(EtcdClient *client, int endpoint, EtcdFault *fault)
{
	Endpoint *at = &client->endpoints[endpoint];
	char reason[sizeof(client->login_error)];

	if (at->login != NULL)
		return NULL;
	if (client->login_failures == 0 || client->login_retry_at <= dsched_boot_now())
	{
		if (send_login(client, endpoint, reason, sizeof(reason)))
			return NULL;
		etcd_free_secret(at->login_body);
		at->login_body = NULL;
		put_off(client, reason, ETCD_FAULT_SETTINGS);
	}
	*fault = client->login_fault;
	return client->login_error;
}

/* Takes the token of an answer; false, with the message: there is none. */
static bool
take_token(Endpoint *at, const cJSON *answer, int *grpc_code, char *message, size_t n)
{
	const char *token = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "token"));

	*grpc_code = -1;
	if (etcd_json_error(answer, grpc_code, message, n))
	{
		/* etcd runs without users: it takes us as everybody */
		at->without_login = *grpc_code == 9 && strstr(message, "not enabled") != NULL;
		return at->without_login;
	}
	strlcpy(message, "the answer to a login is not what etcd sends", n);
	/* it goes into a header: nothing that could end one */
	if (token == NULL || token[0] == '\0' || strlen(token) > MAX_TOKEN_BYTES ||
		strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=") != strlen(token))
		return false;
	etcd_free_secret(at->token);
	at->token = strdup(token);
	if (at->token == NULL)
		strlcpy(message, "out of memory", n);
	return at->token != NULL;
}

static void
login_done(void *arg, EtcdTransfer *transfer)
{
	Endpoint *at = arg;
	EtcdClient *client = at->client;
	int endpoint = (int) (at - client->endpoints);
	int grpc_code = -1;
	char message[160];
	char error[200];
	bool got = false;
	EtcdFault fault = transfer->tls_failed ? ETCD_FAULT_TLS : ETCD_FAULT_NETWORK;

	at->login = NULL;
	etcd_free_secret(at->login_body);
	at->login_body = NULL;
	etcd_clean_text(message, sizeof(message), transfer->message, strlen(transfer->message));
	if (transfer->outcome == HTTP_COMPLETE)
	{
		size_t len;
		const char *text = etcd_http_text(transfer, &len);
		cJSON *answer = etcd_json_parse(text, len);

		if (answer == NULL)
			fault = etcd_plain_answer(transfer->status, text, len, message, sizeof(message));
		else
			got = take_token(at, answer, &grpc_code, message, sizeof(message));
		cJSON_Delete(answer);
	}
	if (got)
	{
		at->serial++;
		client->login_failures = 0;
		etcd_wake_waiting(client, endpoint, HTTP_WOKEN, "", ETCD_FAULT_NONE);
		return;
	}
	if (grpc_code == ETCD_CODE_INVALID_ARGUMENT || grpc_code == 7 || grpc_code == ETCD_CODE_UNAUTHENTICATED ||
		fault == ETCD_FAULT_SETTINGS)
	{
		if (fault != ETCD_FAULT_SETTINGS)
			fault = ETCD_FAULT_AUTH;
		snprintf(error, sizeof(error), "login as \"%.60s\" was refused: %.120s", client->user, message);
		put_off(client, error, fault);
		etcd_wake_waiting(client, endpoint, HTTP_FAILED, error, fault);
		return;
	}
	etcd_wake_waiting(client, endpoint, HTTP_FAILED, message, fault);
}
