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
} Endpoint;

struct EtcdClient
{
	EtcdGrave grave;
	EtcdHttp *http;
	dlist_head requests; /* of EtcdRequest.node */
	dlist_head watches;	 /* of EtcdWatch.node */
	uint64 random;
	int preferred; /* index of the endpoint that worked last */
	int nendpoints;
	Endpoint endpoints[ETCD_MAX_ENDPOINTS];
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

/* Ends a watch without a call. */
extern void etcd_watch_discard(dlist_node *node);

#endif /* DSCHED_ETCD_INTERNAL_H */
