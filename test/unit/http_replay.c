/*
 * http_replay.c
 *	  See http_replay.h.
 */
#include "postgres.h"

#undef snprintf

#include "http_replay.h"

struct EtcdHttp
{
	DschedLoop *loop;
	EtcdTls tls;
};

static EtcdTransfer *current = NULL;
static EtcdGrave *graves = NULL;
static int depth = 0; /* callbacks on the stack */

void
etcd_bury(EtcdGrave *grave, void (*free)(EtcdGrave *self))
{
	grave->free = free;
	grave->next = graves;
	graves = grave;
	while (depth == 0 && graves != NULL)
	{
		grave = graves;
		graves = grave->next;
		grave->free(grave);
	}
}

static void
free_nothing(EtcdGrave *self)
{
	free(self);
}

static void
call(void (*callback)(void *arg, EtcdTransfer *transfer), EtcdTransfer *transfer)
{
	depth++;
	callback(transfer->post.arg, transfer);
	depth--;
	etcd_bury(calloc(1, sizeof(EtcdGrave)), free_nothing); /* the others with it */
}

static void
free_pem(EtcdPem *pem)
{
	free(pem->path);
	free(pem->text);
	memset(pem, 0, sizeof(*pem));
}

void
etcd_tls_free(EtcdTls *tls)
{
	free_pem(&tls->ca);
	free_pem(&tls->cert);
	free_pem(&tls->key);
}

EtcdHttp *
etcd_http_create(DschedLoop *loop, EtcdTls *tls)
{
	EtcdHttp *http = calloc(1, sizeof(EtcdHttp));

	http->loop = loop;
	if (tls != NULL)
	{
		http->tls = *tls;
		memset(tls, 0, sizeof(*tls));
	}
	return http;
}

const EtcdTls *
etcd_http_tls(const EtcdHttp *http)
{
	return &http->tls;
}

bool
etcd_http_idle(EtcdHttp *http)
{
	return current == NULL;
}

void
etcd_http_destroy(EtcdHttp *http)
{
	etcd_tls_free(&http->tls);
	free(http);
}

static void
free_transfer(EtcdGrave *self)
{
	EtcdTransfer *transfer = (EtcdTransfer *) self;

	free(transfer->buffer);
	free(transfer);
}

EtcdTransfer *
etcd_http_post(EtcdHttp *http, const HttpPost *post)
{
	EtcdTransfer *transfer = calloc(1, sizeof(EtcdTransfer));

	transfer->http = http;
	transfer->post = *post;
	transfer->body_given = true;
	transfer->sent_at = 1;
	current = transfer;
	return transfer;
}

EtcdTransfer *
etcd_http_fail(EtcdHttp *http, const HttpPost *post, const char *message)
{
	EtcdTransfer *transfer = etcd_http_post(http, post);

	transfer->body_given = false;
	transfer->sent_at = 0;
	snprintf(transfer->message, sizeof(transfer->message), "%s", message);
	return transfer;
}

EtcdTransfer *
etcd_http_wait(EtcdHttp *http, const HttpPost *post)
{
	return etcd_http_fail(http, post, "waits");
}

void
etcd_http_end(EtcdTransfer *transfer, HttpOutcome outcome, const char *message)
{
	transfer->outcome = outcome;
	snprintf(transfer->message, sizeof(transfer->message), "%s", message);
}

void
etcd_http_cancel(EtcdTransfer *transfer)
{
	if (current == transfer)
		current = NULL;
	etcd_bury(&transfer->grave, free_transfer);
}

void
etcd_http_set_deadline(EtcdTransfer *transfer, int64 deadline)
{
	transfer->post.deadline = deadline;
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
}

EtcdTransfer *
replay_transfer(void)
{
	return current;
}

void
replay_data(const void *data, size_t len)
{
	EtcdTransfer *transfer = current;
	size_t kept = transfer->end - transfer->start;
	char *buffer = malloc(kept + len + 1); /* a new one each time, so that a pointer into the old one is found out */

	if (kept > 0)
		memcpy(buffer, transfer->buffer + transfer->start, kept);
	if (len > 0)
		memcpy(buffer + kept, data, len);
	buffer[kept + len] = '\0';
	free(transfer->buffer);
	transfer->buffer = buffer;
	transfer->start = 0;
	transfer->end = transfer->size = kept + len;
	if (transfer->post.stream)
		call(transfer->post.data, transfer);
}

void
replay_end(HttpOutcome outcome, long status)
{
	EtcdTransfer *transfer = current;

	transfer->outcome = outcome;
	transfer->status = status;
	transfer->received_at = 2;
	current = NULL;
	call(transfer->post.done, transfer);
	free_transfer(&transfer->grave);
}
