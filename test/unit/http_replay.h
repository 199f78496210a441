/*
 * http_replay.h
 *	  src/etcd/http.h without a network: a test says what came, and in which pieces.
 *
 * For tests and fuzz targets that link the client and the watches of src/etcd/ and want to be sure of each byte. What is said is given on as
 * http.c does it: in a buffer that has a NUL behind its end and not a byte more.
 */
#ifndef DSCHED_TEST_HTTP_REPLAY_H
#define DSCHED_TEST_HTTP_REPLAY_H

#include "etcd/http.h"

/* The transfer that was begun last; NULL: none, or it has ended. */
extern EtcdTransfer *replay_transfer(void);

/* More of its answer has come. */
extern void replay_data(const void *data, size_t len);

/* It ends. */
extern void replay_end(HttpOutcome outcome, long status);

#endif /* DSCHED_TEST_HTTP_REPLAY_H */
