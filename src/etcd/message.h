/*
 * message.h
 *	  etcd's requests and answers as JSON: builders, readers, and the parser that bounds hostile input.
 *
 * Nothing here talks to anybody or reads a clock.  Memory comes from malloc.  A builder that runs out of
 * memory returns NULL (a transaction remembers it and etcd_txn_end() returns NULL), and etcd_call()
 * turns a NULL body into a failed answer, so callers need not check in between.
 *
 * In etcd's JSON bytes are base64, 64-bit integers are strings, and zero values are left out of answers:
 * a missing "succeeded" is false, a missing "kvs" is no keys, a missing "TTL" is a lease that is gone.
 * Unknown fields of a request are ignored by etcd without a word, so each builder is tested against one.
 */
#ifndef DSCHED_ETCD_MESSAGE_H
#define DSCHED_ETCD_MESSAGE_H

#include <cjson/cJSON.h>

/* Bounds of parsed JSON; a page of 100,000 keys has some 700,000 nodes. */
#define ETCD_JSON_MAX_DEPTH 64
#define ETCD_JSON_MAX_NODES (4 * 1024 * 1024)

/*
 * What etcd takes with its default settings.  A transaction counts, at each level, the longest of its
 * three lists, and a nested one may use what its parents left: see etcd_txn_ops().
 */
#define ETCD_TXN_MAX_OPS 128
#define ETCD_TXN_MAX_BYTES (1536 * 1024)

/* A key and its value. Both have a NUL behind them that is not counted; a foreign key may hold NULs. */
typedef struct EtcdKv
{
	char *key;
	size_t key_len;
	char *value;
	size_t value_len;
	int64 create_revision;
	int64 mod_revision;
	int64 version;
	int64 lease;
} EtcdKv;

/* Requests. range_end NULL: the one key.  All reads are linearizable. */
extern cJSON *etcd_range(const char *key, const char *range_end, int64 limit, bool keys_only);

/* The same as of a revision (0: now), to read further pages of one picture. */
extern cJSON *etcd_range_at(const char *key, const char *range_end, int64 limit, bool keys_only,
							int64 revision);
extern cJSON *etcd_compaction(int64 revision);

/*
 * The end of the range of all keys that begin with the prefix; to be freed with free().  NULL if there is
 * no such end (an empty prefix, or 0xff only) or out of memory.
 */
extern char *etcd_prefix_end(const char *prefix);

/*
 * Transactions.  All conditions hold: the operations of the success branch are done; else those of the
 * failure branch.  One with conditions and no operations is refused by etcd_txn_end(), as etcd answers it
 * from the local, possibly stale, data of one member.
 */
typedef struct EtcdTxn EtcdTxn;

extern EtcdTxn *etcd_txn_begin(void);
extern void etcd_txn_if_create(EtcdTxn *txn, const char *key, int64 create_revision); /* 0: absent */
extern void etcd_txn_if_mod(EtcdTxn *txn, const char *key, int64 mod_revision);		  /* 0: absent */
extern void etcd_txn_if_none(EtcdTxn *txn, const char *key, const char *range_end);	  /* no key in the range */
extern void etcd_txn_if_exists(EtcdTxn *txn, const char *key);
extern void etcd_txn_if_value(EtcdTxn *txn, const char *key, const char *value, size_t len);
extern void etcd_txn_put(EtcdTxn *txn, const char *key, const char *value, size_t len, int64 lease);
extern void etcd_txn_delete(EtcdTxn *txn, const char *key);
extern void etcd_txn_delete_range(EtcdTxn *txn, const char *key, const char *range_end);
extern void etcd_txn_get(EtcdTxn *txn, const char *key, const char *range_end);
/* Of a range, the key that was written last. */
extern void etcd_txn_get_newest(EtcdTxn *txn, const char *key, const char *range_end);
extern void etcd_txn_else_get(EtcdTxn *txn, const char *key, const char *range_end);
extern void etcd_txn_nest(EtcdTxn *txn, EtcdTxn *nested); /* success branch; consumes nested */
extern cJSON *etcd_txn_end(EtcdTxn *txn);				  /* consumes txn */
extern void etcd_txn_free(EtcdTxn *txn);				  /* gives one up that was not ended */

/* Size so far: to be kept within ETCD_TXN_MAX_OPS and ETCD_TXN_MAX_BYTES (an upper estimate). */
extern int etcd_txn_ops(const EtcdTxn *txn);
extern size_t etcd_txn_bytes(const EtcdTxn *txn);

/*
 * Answers.  All readers take NULL and objects of a wrong shape, as empty ones.  etcd_txn_response() gives
 * the inner object of the i-th operation of the branch taken: a range answer, or a nested transaction's,
 * on which etcd_txn_succeeded() and etcd_txn_response() work again.
 */
extern bool etcd_txn_succeeded(const cJSON *body);
extern const cJSON *etcd_txn_response(const cJSON *body, int i);
extern int64 etcd_json_int64(const cJSON *object, const char *name);   /* string or number; 0: absent */
extern uint64 etcd_json_uint64(const cJSON *object, const char *name); /* the same */

/*
 * Key-values of a range answer.  etcd_kv_count() counts those in this answer, not those that a limit left
 * out: etcd_range_more().  etcd_kv_at() walks a list: for many, go through etcd_kvs() with cJSON_ArrayForEach
 * and etcd_kv_read().  false: malformed, or out of memory; *kv is then empty.
 */
extern int etcd_kv_count(const cJSON *range_response);
extern bool etcd_range_more(const cJSON *range_response);
extern const cJSON *etcd_kvs(const cJSON *range_response);
extern bool etcd_kv_at(const cJSON *range_response, int i, EtcdKv *kv);
extern bool etcd_kv_read(const cJSON *item, EtcdKv *kv);
extern void etcd_kv_free(EtcdKv *kv);

/*
 * Parses exactly one JSON value within the bounds above; NULL if it is not one, or out of memory.  One more byte
 * must be readable behind the text: releases of cJSON before 1.7.18 look at it.
 */
extern cJSON *etcd_json_parse(const char *text, size_t len);

/*
 * Whether the object is one of the shapes in which the gateway reports errors; then its gRPC code (-1: none
 * given) and its message, made fit for a log.
 */
extern bool etcd_json_error(const cJSON *object, int *grpc_code, char *message, size_t size);

/* Copies text from a peer for people to read: printable ASCII only, cut to fit. */
extern void etcd_clean_text(char *dst, size_t size, const char *src, size_t len);

#endif /* DSCHED_ETCD_MESSAGE_H */
