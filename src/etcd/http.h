/*
 * http.h
 *	  HTTP requests on libcurl, joined to the event loop.  Only for the etcd client and its watches.
 *
 * A transfer is one POST of JSON.  Its buffer fills while libcurl runs, and what happened is told
 * afterwards, when no code of libcurl is on the stack: data() for a stream that got more, done() once at the
 * end.  The transfer is void when done() returns.
 *
 * TLS: what verifies the servers and shows who we are belongs to the EtcdHttp, for its whole life.  Other certificates
 * take another EtcdHttp, so that no connection and no TLS session of the former ones is used on.
 */
#ifndef DSCHED_ETCD_HTTP_H
#define DSCHED_ETCD_HTTP_H

#include <curl/curl.h>

#include "lib/ilist.h"
#include "loop.h"

typedef struct EtcdHttp EtcdHttp;
typedef struct EtcdTransfer EtcdTransfer;

/*
 * Memory that may still be looked at by a caller up the stack: what is buried is freed when no callback runs
 * any more.  To be the first member of a structure.
 */
typedef struct EtcdGrave
{
	struct EtcdGrave *next;
	void (*free) (struct EtcdGrave *self);
} EtcdGrave;

extern void etcd_bury(EtcdGrave *grave, void (*free) (EtcdGrave *self));

typedef enum HttpOutcome
{
	HTTP_COMPLETE,	/* an answer came, with whatever status, to its end */
	HTTP_FAILED,	/* anything else, said in message */
	HTTP_TIMEOUT,	/* the deadline passed */
	HTTP_TOO_BIG,	/* the answer was beyond the bound */
	HTTP_WOKEN		/* of etcd_http_wait(): what was waited for is there */
} HttpOutcome;

/* Files of certificates and keys, in PEM; a NULL path: none.  The texts are what they had when they were read. */
typedef struct EtcdPem
{
	char *path;
	char *text;
	size_t len;
} EtcdPem;

typedef struct EtcdTls
{
	EtcdPem ca; /* none: the system's */
	EtcdPem cert;
	EtcdPem key;
} EtcdTls;

extern void etcd_tls_free(EtcdTls *tls);

/* For http.c: sets up a request that is sent over these; was it TLS that it failed for? */
extern bool etcd_tls_apply(CURL *easy, const EtcdTls *tls);
extern bool etcd_tls_is_failure(CURLcode result, const char *message);

/* What to send. All is copied but body, which must stay until done() or the cancellation. */
typedef struct HttpPost
{
	const char *url;
	const char *body;
	size_t body_len;
	const char *authorization; /* a token, or NULL */
	int64 deadline;			/* boot time; 0: none */
	int connect_timeout_ms; /* > 0 */
	int grpc_timeout_ms;	/* for the server to obey; 0: not told */
	bool may_resend;		/* may libcurl send it again when a kept connection turns out to be dead? */
	bool stream;			/* own connection, checked by TCP keepalive; data() is called */
	size_t max_buffer;
	void (*data) (void *arg, EtcdTransfer *transfer);
	void (*done) (void *arg, EtcdTransfer *transfer);
	void *arg;
} HttpPost;

struct EtcdTransfer
{
	EtcdGrave grave;
	/* for the user to read */
	HttpOutcome outcome; /* in done() */
	long status;		 /* of HTTP; 0: none came */
	bool body_given;	 /* the whole body was handed to libcurl: the server may have seen it */
	int64 sent_at;		 /* boot time before libcurl had the request */
	int64 received_at;	 /* boot time when its end was found */
	int64 server_date;	 /* Unix seconds; 0: none */
	bool tls_failed;	 /* it failed for TLS */
	char message[CURL_ERROR_SIZE];
	/* private to http.c */
	EtcdHttp *http;
	HttpPost post;
	CURL *easy; /* NULL: ended */
	struct curl_slist *headers;
	dlist_node node;	   /* in http->transfers */
	dlist_node ready_node; /* in http->ready, if is_ready */
	bool is_ready;
	bool ended;
	bool refused_rewind; /* the connection broke after the request was sent */
	size_t body_sent;
	size_t header_bytes;
	char *buffer; /* a NUL stands behind the end */
	size_t start; /* what is before has been consumed */
	size_t end;
	size_t size;
};

/* Takes what is in *tls (NULL: nothing) also if it fails.  NULL: out of memory or descriptors. */
extern EtcdHttp *etcd_http_create(DschedLoop *loop, EtcdTls *tls);

/* Is nothing under way? */
extern bool etcd_http_idle(EtcdHttp *http);

extern const EtcdTls *etcd_http_tls(const EtcdHttp *http);

/* Transfers end without a call. */
extern void etcd_http_destroy(EtcdHttp *http);

/* Neither calls done() at once. NULL: out of memory, and no call will come. */
extern EtcdTransfer *etcd_http_post(EtcdHttp *http, const HttpPost *post);

/* A transfer that fails with this message without anything being sent. */
extern EtcdTransfer *etcd_http_fail(EtcdHttp *http, const HttpPost *post, const char *message);

/* Sends nothing: only waits for its deadline, or until it is ended. */
extern EtcdTransfer *etcd_http_wait(EtcdHttp *http, const HttpPost *post);

/* Ends a transfer whose done() was not called, which will be when the loop comes round. */
extern void etcd_http_end(EtcdTransfer *transfer, HttpOutcome outcome, const char *message);

/* No more calls. */
extern void etcd_http_cancel(EtcdTransfer *transfer);

/* Another deadline (0: none); not from within done(). */
extern void etcd_http_set_deadline(EtcdTransfer *transfer, int64 deadline);

/* What has come and is not consumed; there is a NUL behind it. Valid until the next call of anything here. */
extern const char *etcd_http_text(EtcdTransfer *transfer, size_t *len);
extern void etcd_http_consume(EtcdTransfer *transfer, size_t n);

#endif /* DSCHED_ETCD_HTTP_H */
