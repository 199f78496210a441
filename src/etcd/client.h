/*
 * client.h
 *	  A client of etcd's v3 JSON gateway, over one event loop.
 *
 * Everything is asynchronous: a call returns at once and its callback is made later, from within
 * loop_wait().  A callback may start and cancel calls and watches, destroy the client, and leave by
 * ereport(); it may not call loop_wait().  Nothing here reports errors to the server or
 * uses its memory contexts: what fails is told in the answer.
 *
 * Several endpoints: the first that works is kept until it fails, and one that failed is tried last for a
 * while.  A call makes at most one attempt at each endpoint, but for one that was refused for its token.
 */
#ifndef DSCHED_ETCD_CLIENT_H
#define DSCHED_ETCD_CLIENT_H

#include "loop.h"
#include "etcd/message.h"

/* Bounds: an answer, a request as JSON (which is more than etcd takes), endpoints in a list. */
#define ETCD_MAX_RESPONSE (64 * 1024 * 1024)
#define ETCD_MAX_REQUEST (4 * 1024 * 1024)
#define ETCD_MAX_ENDPOINTS 32

/* The requests' paths. */
#define ETCD_PATH_RANGE "/v3/kv/range"
#define ETCD_PATH_TXN "/v3/kv/txn"
#define ETCD_PATH_COMPACTION "/v3/kv/compaction"
#define ETCD_PATH_LEASE_GRANT "/v3/lease/grant"
#define ETCD_PATH_LEASE_KEEPALIVE "/v3/lease/keepalive"
#define ETCD_PATH_LEASE_REVOKE "/v3/lease/revoke"
#define ETCD_PATH_LEASE_TIMETOLIVE "/v3/lease/timetolive"
#define ETCD_PATH_STATUS "/v3/maintenance/status"

typedef struct EtcdClient EtcdClient;
typedef struct EtcdRequest EtcdRequest;

/* gRPC codes that callers look at. */
#define ETCD_CODE_INVALID_ARGUMENT 3
#define ETCD_CODE_DEADLINE 4
#define ETCD_CODE_NOT_FOUND 5		/* an unknown lease */
#define ETCD_CODE_PERMISSION 7
#define ETCD_CODE_EXHAUSTED 8		/* etcd's space quota, or too many requests */
#define ETCD_CODE_OUT_OF_RANGE 11	/* a compacted or a future revision */
#define ETCD_CODE_UNAVAILABLE 14	/* no leader */
#define ETCD_CODE_UNAUTHENTICATED 16

/* What is wrong when a call fails, as far as people can do something about it. */
typedef enum EtcdFault
{
	ETCD_FAULT_NONE,
	ETCD_FAULT_NETWORK,	   /* nobody there, no answer in time, no leader, or anything that is none of the following */
	ETCD_FAULT_TLS,		   /* the certificates, ours or theirs */
	ETCD_FAULT_SETTINGS,   /* files that cannot be used, settings that do not fit etcd's */
	ETCD_FAULT_AUTH,	   /* a user is needed, or its password is refused */
	ETCD_FAULT_PERMISSION, /* the user may not */
	ETCD_FAULT_SPACE	   /* etcd's database has reached its quota */
} EtcdFault;

typedef struct EtcdResponse
{
	bool ok;			 /* HTTP 200, no error object, body parsed */
	bool ambiguous;		 /* not ok, and a write may have been or may yet be applied */
	int grpc_code;		 /* -1: none (a transport error); 0: ok */
	EtcdFault fault;	 /* if not ok */
	char message[256];	 /* if not ok: for people; printable ASCII, no secrets */
	int64 revision;		 /* header.revision, 0 if none */
	uint64 raft_term;	 /* these three: 0 if none */
	uint64 cluster_id;
	uint64 member_id;
	const cJSON *body;	 /* if ok: the answer (of a keepalive its "result"); valid in the callback only */
	int64 sent_at;		 /* dsched_boot_now() right before the attempt that was answered; 0: none made */
	int64 received_at;	 /* dsched_boot_now() when the end of the answer had come */
	int64 server_date;	 /* Unix seconds of the HTTP Date header, 0 if none */
	const char *endpoint; /* the last one tried, "" if none; valid in the callback only */
} EtcdResponse;

typedef void (*EtcdCallback) (void *arg, const EtcdResponse *r);

/*
 * How a call may be repeated.  A read, and a write that is marked as idempotent, go on to the next endpoint
 * after a failure, within the deadline.  A write does so only if it is certain that it cannot have been applied.
 */
typedef enum EtcdKind
{
	ETCD_READ,
	ETCD_WRITE,
	ETCD_IDEMPOTENT
} EtcdKind;

/* Whether the text is a list of "http://host:port" or https, separated by commas; if not, why. Empty is valid. */
extern bool etcd_endpoints_valid(const char *endpoints, char *errbuf, size_t n);

/* NULL: the endpoints are not valid, or out of memory or file descriptors (errno tells). */
extern EtcdClient *etcd_client_create(DschedLoop *loop, const char *endpoints);

/* How to talk to etcd safely: files in PEM format and one with a password; NULL or "": none. */
typedef struct EtcdSecurity
{
	const char *ca_file; /* whom to believe; none: the system's authorities */
	const char *cert_file;
	const char *key_file;
	const char *user;
	const char *password_file;
} EtcdSecurity;

/*
 * Takes these settings, or what their files have now.  false, with the reason: they cannot be used; those that were in use go
 * on to be.  If there are none, all calls fail with ETCD_FAULT_SETTINGS until the files are better.  No memory and no descriptors
 * are such a reason, too.  May lose watches (ETCD_WATCH_DISCONNECTED); calls none of the callbacks itself.
 */
extern bool etcd_client_secure(EtcdClient *client, const EtcdSecurity *settings, char *reason, size_t n);

/* No callbacks are made any more; calls and watches are gone, their handles too. NULL is fine. */
extern void etcd_client_destroy(EtcdClient *client);

/*
 * Starts one call.  The body is consumed (NULL: answered as an error).  timeout_ms bounds the whole call, over
 * all endpoints.  Exactly one callback, never from within etcd_call(); the handle is void when it begins.
 * NULL: out of memory, and there will be no callback.
 */
extern EtcdRequest *etcd_call(EtcdClient *client, const char *path, cJSON *body, EtcdKind kind,
							  int timeout_ms, EtcdCallback cb, void *arg);

/* The callback is not made.  A write may be applied all the same. */
extern void etcd_cancel(EtcdRequest *request);

/*
 * Leases.  A grant answers "ID" and "TTL" (which may be more than asked for); a lost answer leaves a lease behind that
 * runs out by itself.  A keepalive that answers without "TTL" says that the lease is gone; one that answers with it
 * proves nothing by itself.  Revoking a lease that is gone answers ETCD_CODE_NOT_FOUND.
 */
extern EtcdRequest *etcd_lease_grant(EtcdClient *client, int64 ttl_s, int timeout_ms,
									 EtcdCallback cb, void *arg);
extern EtcdRequest *etcd_lease_keepalive(EtcdClient *client, int64 lease, int timeout_ms,
										 EtcdCallback cb, void *arg);
extern EtcdRequest *etcd_lease_revoke(EtcdClient *client, int64 lease, int timeout_ms,
									  EtcdCallback cb, void *arg);

/* "TTL" (what is left; -1: there is no such lease), "grantedTTL", and "keys", each in base64. */
extern EtcdRequest *etcd_lease_keys(EtcdClient *client, int64 lease, int timeout_ms, EtcdCallback cb, void *arg);

#endif /* DSCHED_ETCD_CLIENT_H */
