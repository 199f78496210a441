/*
 * internal.h
 *	  What client.c and watch.c share.
 */
#ifndef DSCHED_ETCD_INTERNAL_H
#define DSCHED_ETCD_INTERNAL_H

#include "etcd/client.h"
#include "etcd/http.h"

typedef struct Endpoint
{
	char *url;
	int failures;		/* in a row */
	int64 failed_until; /* boot time; before it the endpoint is tried last */
	/* auth.c */
	EtcdClient *client;
	char *token;		 /* NULL: none */
	unsigned int serial; /* of the token */
	bool without_login;	 /* the member says that it has no users */
	EtcdTransfer *login; /* under way, or NULL */
	char *login_body;
} Endpoint;

#define ETCD_NSETTINGS 5
#define ETCD_MAX_RETIRED 8

struct EtcdClient
{
	EtcdGrave grave;
	DschedLoop *loop;
	EtcdHttp *http;
	dlist_head requests; /* of EtcdRequest.node */
	dlist_head watches;	 /* of EtcdWatch.node */
	uint64 random;
	int preferred; /* index of the endpoint that worked last */
	int nendpoints;
	Endpoint endpoints[ETCD_MAX_ENDPOINTS];
	/* security.c */
	char *settings[ETCD_NSETTINGS]; /* as in EtcdSecurity */
	bool secured;					/* what they name was good once */
	char refusal[256];				/* if not: why; all calls fail with it */
	int64 recheck_at;
	EtcdHttp *retired[ETCD_MAX_RETIRED]; /* with former certificates, until nothing is under way */
	int nretired;
	/* auth.c */
	char *user; /* NULL: none */
	char *password_file;
	char *password; /* as it was at the last reload */
	int login_failures;
	int64 login_retry_at; /* boot time, after failures */
	EtcdFault login_fault;
	char login_error[256];
};

/* The best endpoint of those whose bit in tried is not set; -1: all are. */
extern int etcd_choose_endpoint(EtcdClient *client, uint32 tried);
extern void etcd_endpoint_worked(EtcdClient *client, int endpoint);
extern void etcd_endpoint_failed(EtcdClient *client, int endpoint);

/* The address of a path at an endpoint; false: too long. */
extern bool etcd_endpoint_url(const EtcdClient *client, int endpoint, const char *path, char *url,
							  size_t size);

/* The text of a body, which is consumed; NULL, with the reason: it cannot be sent. */
extern char *etcd_body_text(cJSON *body, const char **reason);

/* To spread retries. */
extern uint64 etcd_random(EtcdClient *client);

/* What an answer that is no JSON says, for people, and whose fault it is. */
extern EtcdFault etcd_plain_answer(long status, const char *text, size_t len, char *message, size_t n);

/* ---- security.c ----------------------------------------------------------------------------- */

/* Why no call can be made; NULL: it can. */
extern const char *etcd_security_refusal(EtcdClient *client);
extern void etcd_sweep_retired(EtcdClient *client);
extern void etcd_security_free(EtcdClient *client);

/* The first line of the file; NULL, with the reason: not to be had. */
extern char *etcd_read_password(const char *path, char *reason, size_t n);
extern void etcd_free_secret(char *text);

/* ---- auth.c --------------------------------------------------------------------------------- */

/* Has a token to be had before something is sent to this endpoint? */
extern bool etcd_auth_needed(const EtcdClient *client, int endpoint);

/* Sees to it that a login is under way, whose end comes by etcd_wake_waiting(); else says why there is none. */
extern const char *etcd_auth_begin(EtcdClient *client, int endpoint, EtcdFault *fault);

/* Is a request refused for its token?  Then this forgets the token, if it is still that one. */
extern bool etcd_auth_is_refusal(int grpc_code, const char *message);
extern void etcd_auth_refused(EtcdClient *client, int endpoint, unsigned int serial);
extern void etcd_auth_forget(EtcdClient *client);

/* ---- client.c, watch.c ----------------------------------------------------------------------- */

/* Ends the waiting of all that wait for a token of the endpoint. */
extern void etcd_wake_waiting(EtcdClient *client, int endpoint, HttpOutcome outcome, const char *message, EtcdFault fault);
extern void etcd_watch_wake(dlist_node *node, int endpoint, HttpOutcome outcome, const char *message);

/* Loses a watch because the certificates are others. */
extern void etcd_watch_renew(dlist_node *node);

/* Ends a watch without a call. */
extern void etcd_watch_discard(dlist_node *node);

#endif /* DSCHED_ETCD_INTERNAL_H */
