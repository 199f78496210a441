/*
 * message.c
 *	  etcd's requests and answers as JSON: builders, readers, and the parser that bounds hostile input.
 *
 * What comes from a peer is counted before cJSON sees it: cJSON recurses for each level and allocates
 * some twenty times the size of an empty array, so that depth and number of values are bounded first.
 * After that nothing is taken for granted either: each reader checks the type of what it reads.
 *
 * What fails: out of memory (NULL, or false), and answers of a wrong shape, which read as empty ones or false.
 */
#include "postgres.h"

#include <errno.h>

#include "core/base64.h"
#include "etcd/message.h"

/* What a transaction's operation or condition takes besides its keys and values, at most. */
#define OP_OVERHEAD 64

struct EtcdTxn
{
	cJSON *compare;
	cJSON *success;
	cJSON *failure;
	int ncompare;
	int nsuccess;
	int nfailure;
	int nested_ops; /* the largest count of a nested transaction */
	size_t bytes;
	bool failed; /* out of memory */
};

/* ---- building ------------------------------------------------------------------------------- */

static bool
add_bytes(cJSON *object, const char *name, const void *data, size_t len)
{
	char *text = malloc(BASE64_ENCODED_LEN(len) + 1);
	bool added;

	if (text == NULL)
		return false;
	base64_encode(data, len, text);
	added = cJSON_AddStringToObject(object, name, text) != NULL;
	free(text);
	return added;
}

static bool
add_text(cJSON *object, const char *name, const char *text)
{
	return add_bytes(object, name, text, strlen(text));
}

/* As a string: cJSON's numbers are doubles, which end at 2^53. */
static bool
add_int64(cJSON *object, const char *name, int64 value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long) value);
	return cJSON_AddStringToObject(object, name, text) != NULL;
}

/* An object with a key, and the end of a range if it is one; NULL: out of memory. */
static cJSON *
key_object(const char *key, const char *range_end)
{
	cJSON *object = cJSON_CreateObject();

	if (object == NULL || !add_text(object, "key", key) ||
		(range_end != NULL && !add_text(object, "range_end", range_end)))
	{
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

cJSON *
etcd_range(const char *key, const char *range_end, int64 limit, bool keys_only)
{
	return etcd_range_at(key, range_end, limit, keys_only, 0);
}

cJSON *
etcd_range_at(const char *key, const char *range_end, int64 limit, bool keys_only, int64 revision)
{
	cJSON *range = key_object(key, range_end);

	if (range == NULL || (limit > 0 && !add_int64(range, "limit", limit)) ||
		(revision > 0 && !add_int64(range, "revision", revision)) ||
		(keys_only && cJSON_AddTrueToObject(range, "keys_only") == NULL))
	{
		cJSON_Delete(range);
		return NULL;
	}
	return range;
}

cJSON *
etcd_compaction(int64 revision)
{
	cJSON *body = cJSON_CreateObject();

	if (body == NULL || !add_int64(body, "revision", revision))
	{
		cJSON_Delete(body);
		return NULL;
	}
	return body;
}

char *
etcd_prefix_end(const char *prefix)
{
	size_t len = strlen(prefix);
	char *end;

	/* A byte 0xff has no successor; the one before it has. */
	while (len > 0 && (unsigned char) prefix[len - 1] == 0xff)
		len--;
	if (len == 0)
		return NULL;
	end = malloc(len + 1);
	if (end == NULL)
		return NULL;
	memcpy(end, prefix, len);
	end[len - 1]++;
	end[len] = '\0';
	return end;
}

/* ---- transactions --------------------------------------------------------------------------- */

EtcdTxn *
etcd_txn_begin(void)
{
	EtcdTxn *txn = calloc(1, sizeof(EtcdTxn));

	if (txn == NULL)
		return NULL;
	txn->compare = cJSON_CreateArray();
	txn->success = cJSON_CreateArray();
	txn->failure = cJSON_CreateArray();
	txn->failed = txn->compare == NULL || txn->success == NULL || txn->failure == NULL;
	txn->bytes = OP_OVERHEAD;
	return txn;
}

void
etcd_txn_free(EtcdTxn *txn)
{
	if (txn == NULL)
		return;
	cJSON_Delete(txn->compare);
	cJSON_Delete(txn->success);
	cJSON_Delete(txn->failure);
	free(txn);
}

/* A condition with a key, to which the caller adds what is compared with; it is freed with the transaction. */
static cJSON *
add_range_compare(EtcdTxn *txn, const char *key, const char *range_end, const char *target, const char *result)
{
	cJSON *compare;

	if (txn == NULL || txn->failed)
		return NULL;
	txn->ncompare++;
	txn->bytes += strlen(key) + (range_end != NULL ? strlen(range_end) : 0) + OP_OVERHEAD;

	compare = key_object(key, range_end);
	if (compare == NULL || cJSON_AddStringToObject(compare, "target", target) == NULL ||
		cJSON_AddStringToObject(compare, "result", result) == NULL ||
		!cJSON_AddItemToArray(txn->compare, compare))
	{
		cJSON_Delete(compare);
		txn->failed = true;
		return NULL;
	}
	return compare;
}

static cJSON *
add_compare(EtcdTxn *txn, const char *key, const char *target, const char *result)
{
	return add_range_compare(txn, key, NULL, target, result);
}

void
etcd_txn_if_create(EtcdTxn *txn, const char *key, int64 create_revision)
{
	cJSON *compare = add_compare(txn, key, "CREATE", "EQUAL");

	if (compare != NULL && !add_int64(compare, "create_revision", create_revision))
		txn->failed = true;
}

void
etcd_txn_if_mod(EtcdTxn *txn, const char *key, int64 mod_revision)
{
	cJSON *compare = add_compare(txn, key, "MOD", "EQUAL");

	if (compare != NULL && !add_int64(compare, "mod_revision", mod_revision))
		txn->failed = true;
}

/* A range is compared key by key; one without keys is compared as a key that is absent. */
void
etcd_txn_if_none(EtcdTxn *txn, const char *key, const char *range_end)
{
	cJSON *compare = add_range_compare(txn, key, range_end, "CREATE", "EQUAL");

	if (compare != NULL && !add_int64(compare, "create_revision", 0))
		txn->failed = true;
}

void
etcd_txn_if_exists(EtcdTxn *txn, const char *key)
{
	cJSON *compare = add_compare(txn, key, "CREATE", "GREATER");

	if (compare != NULL && !add_int64(compare, "create_revision", 0))
		txn->failed = true;
}

void
etcd_txn_if_value(EtcdTxn *txn, const char *key, const char *value, size_t len)
{
	cJSON *compare = add_compare(txn, key, "VALUE", "EQUAL");

	if (compare == NULL)
		return;
	txn->bytes += len;
	if (!add_bytes(compare, "value", value, len))
		txn->failed = true;
}

/* Puts an operation into a branch. It is consumed; NULL: it could not be made. */
static void
add_op(EtcdTxn *txn, bool success, const char *kind, cJSON *request)
{
	cJSON *op = cJSON_CreateObject();

	/* What is freed here is only what no array or object has taken. */
	if (op == NULL || request == NULL || !cJSON_AddItemToObject(op, kind, request))
	{
		cJSON_Delete(request);
		cJSON_Delete(op);
		txn->failed = true;
		return;
	}
	if (!cJSON_AddItemToArray(success ? txn->success : txn->failure, op))
	{
		cJSON_Delete(op);
		txn->failed = true;
		return;
	}
	if (success)
		txn->nsuccess++;
	else
		txn->nfailure++;
}

void
etcd_txn_put(EtcdTxn *txn, const char *key, const char *value, size_t len, int64 lease)
{
	cJSON *put;

	if (txn == NULL || txn->failed)
		return;
	txn->bytes += strlen(key) + len + OP_OVERHEAD;
	put = key_object(key, NULL);
	if (put != NULL &&
		(!add_bytes(put, "value", value, len) || (lease != 0 && !add_int64(put, "lease", lease))))
	{
		cJSON_Delete(put);
		put = NULL;
	}
	add_op(txn, true, "request_put", put);
}

void
etcd_txn_delete(EtcdTxn *txn, const char *key)
{
	etcd_txn_delete_range(txn, key, NULL);
}

void
etcd_txn_delete_range(EtcdTxn *txn, const char *key, const char *range_end)
{
	if (txn == NULL || txn->failed)
		return;
	txn->bytes += strlen(key) + (range_end ? strlen(range_end) : 0) + OP_OVERHEAD;
	add_op(txn, true, "request_delete_range", key_object(key, range_end));
}

static void
add_get(EtcdTxn *txn, bool success, const char *key, const char *range_end)
{
	if (txn == NULL || txn->failed)
		return;
	txn->bytes += strlen(key) + (range_end ? strlen(range_end) : 0) + OP_OVERHEAD;
	add_op(txn, success, "request_range", key_object(key, range_end));
}

void
etcd_txn_get(EtcdTxn *txn, const char *key, const char *range_end)
{
	add_get(txn, true, key, range_end);
}

void
etcd_txn_get_newest(EtcdTxn *txn, const char *key, const char *range_end)
{
	cJSON *range;

	if (txn == NULL || txn->failed)
		return;
	txn->bytes += strlen(key) + strlen(range_end) + OP_OVERHEAD;
	range = key_object(key, range_end);
	if (range != NULL &&
		(!add_int64(range, "limit", 1) || cJSON_AddStringToObject(range, "sort_order", "DESCEND") == NULL ||
		 cJSON_AddStringToObject(range, "sort_target", "MOD") == NULL))
	{
		cJSON_Delete(range);
		range = NULL;
	}
	add_op(txn, true, "request_range", range);
}

void
etcd_txn_else_get(EtcdTxn *txn, const char *key, const char *range_end)
{
	add_get(txn, false, key, range_end);
}

/* The request's JSON; empties txn of its lists. NULL: out of memory. */
static cJSON *
txn_object(EtcdTxn *txn)
{
	cJSON *object = cJSON_CreateObject();

	if (object == NULL)
		return NULL;
	if (cJSON_AddItemToObject(object, "compare", txn->compare))
		txn->compare = NULL;
	if (cJSON_AddItemToObject(object, "success", txn->success))
		txn->success = NULL;
	if (cJSON_AddItemToObject(object, "failure", txn->failure))
		txn->failure = NULL;
	if (txn->compare != NULL || txn->success != NULL || txn->failure != NULL)
	{
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

void
etcd_txn_nest(EtcdTxn *txn, EtcdTxn *nested)
{
	if (txn == NULL || nested == NULL || txn->failed || nested->failed)
	{
		if (txn != NULL)
			txn->failed = true;
		etcd_txn_free(nested);
		return;
	}
	txn->nested_ops = Max(txn->nested_ops, etcd_txn_ops(nested));
	txn->bytes += nested->bytes + OP_OVERHEAD;
	add_op(txn, true, "request_txn", txn_object(nested));
	etcd_txn_free(nested);
}

cJSON *
etcd_txn_end(EtcdTxn *txn)
{
	cJSON *object = NULL;

	/* Without an operation etcd would compare with what one member happens to have: see message.h. */
	if (txn != NULL && !txn->failed && txn->nsuccess + txn->nfailure > 0)
		object = txn_object(txn);
	etcd_txn_free(txn);
	return object;
}

int
etcd_txn_ops(const EtcdTxn *txn)
{
	if (txn == NULL)
		return 0;
	return Max(txn->ncompare, Max(txn->nsuccess, txn->nfailure)) + txn->nested_ops;
}

size_t
etcd_txn_bytes(const EtcdTxn *txn)
{
	return txn == NULL ? 0 : txn->bytes;
}

/* ---- parsing -------------------------------------------------------------------------------- */

/* Counts depth and values of JSON that need not be valid, so that the parser is safe with it. */
static bool
within_bounds(const char *text, size_t len)
{
	const char *end = text + len;
	bool in_string = false;
	int depth = 0;
	int nodes = 0;

	for (; text < end; text++)
	{
		switch (*text)
		{
			case '\0':
				return false;
			case '"':
				in_string = !in_string;
				break;
			case '\\':
				if (in_string)
					text++;
				break;
			case '{':
			case '[':
				if (!in_string && (++depth > ETCD_JSON_MAX_DEPTH || ++nodes > ETCD_JSON_MAX_NODES))
					return false;
				break;
			case '}':
			case ']':
				if (!in_string)
					depth--;
				break;
			case ',':
				if (!in_string && ++nodes > ETCD_JSON_MAX_NODES)
					return false;
				break;
			default:
				break;
		}
	}
	return true;
}

cJSON *
etcd_json_parse(const char *text, size_t len)
{
	const char *end = NULL;
	cJSON *value;

	if (!within_bounds(text, len))
		return NULL;
	value = cJSON_ParseWithLengthOpts(text, len, &end, false);
	if (value == NULL)
		return NULL;
	for (; end < text + len; end++)
	{
		if (*end != ' ' && *end != '\n' && *end != '\r' && *end != '\t')
		{
			cJSON_Delete(value);
			return NULL;
		}
	}
	return value;
}

void
etcd_clean_text(char *dst, size_t size, const char *src, size_t len)
{
	size_t i;

	if (size == 0)
		return;
	for (i = 0; i < len && i < size - 1; i++)
		dst[i] = src[i] >= 0x20 && src[i] < 0x7f ? src[i] : '?';
	dst[i] = '\0';
}

/* The text of a member that is a string, else NULL. */
static const char *
string_member(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

bool
etcd_json_error(const cJSON *object, int *grpc_code, char *message, size_t size)
{
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(object, "error");
	const cJSON *code;
	const char *text;

	/* {"error":"text","message":"text","code":N}, {"error":{...}} of a stream, and {"code":N,"message":"text"} */
	if (cJSON_IsObject(error))
		object = error;
	else if (!cJSON_IsString(error) &&
			 (!cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(object, "code")) ||
			  string_member(object, "message") == NULL))
		return false;

	code = cJSON_GetObjectItemCaseSensitive(object, "grpc_code");
	if (!cJSON_IsNumber(code))
		code = cJSON_GetObjectItemCaseSensitive(object, "code");
	*grpc_code = cJSON_IsNumber(code) && code->valueint >= 0 ? code->valueint : -1;

	text = string_member(object, "message");
	if (text == NULL)
		text = cJSON_GetStringValue(error);
	if (text == NULL)
		text = "unknown error";
	etcd_clean_text(message, size, text, strlen(text));
	return true;
}

/* ---- reading -------------------------------------------------------------------------------- */

int64
etcd_json_int64(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	char *end;
	long long value;

	if (cJSON_IsNumber(item))
	{
		/* A double beyond these is no int64, and converting it is undefined. */
		if (item->valuedouble >= -9.2e18 && item->valuedouble <= 9.2e18)
			return (int64) item->valuedouble;
		return 0;
	}
	if (!cJSON_IsString(item))
		return 0;
	errno = 0;
	value = strtoll(item->valuestring, &end, 10);
	return errno == 0 && *end == '\0' ? (int64) value : 0;
}

uint64
etcd_json_uint64(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	char *end;
	unsigned long long value;

	if (cJSON_IsNumber(item))
	{
		if (item->valuedouble >= 0 && item->valuedouble <= 1.8e19)
			return (uint64) item->valuedouble;
		return 0;
	}
	if (!cJSON_IsString(item))
		return 0;
	errno = 0;
	value = strtoull(item->valuestring, &end, 10);
	return errno == 0 && *end == '\0' ? (uint64) value : 0;
}

bool
etcd_txn_succeeded(const cJSON *body)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "succeeded"));
}

const cJSON *
etcd_txn_response(const cJSON *body, int i)
{
	const cJSON *responses = cJSON_GetObjectItemCaseSensitive(body, "responses");
	const cJSON *op = cJSON_IsArray(responses) ? cJSON_GetArrayItem(responses, i) : NULL;

	/* {"response_range":{...}} and the like: there is just one member. */
	return cJSON_IsObject(op) && cJSON_IsObject(op->child) ? op->child : NULL;
}

const cJSON *
etcd_kvs(const cJSON *range_response)
{
	const cJSON *kvs = cJSON_GetObjectItemCaseSensitive(range_response, "kvs");

	return cJSON_IsArray(kvs) ? kvs : NULL;
}

int
etcd_kv_count(const cJSON *range_response)
{
	const cJSON *kvs = etcd_kvs(range_response);

	return kvs == NULL ? 0 : cJSON_GetArraySize(kvs);
}

bool
etcd_range_more(const cJSON *range_response)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(range_response, "more"));
}

bool
etcd_kv_at(const cJSON *range_response, int i, EtcdKv *kv)
{
	const cJSON *kvs = etcd_kvs(range_response);

	return etcd_kv_read(kvs == NULL ? NULL : cJSON_GetArrayItem(kvs, i), kv);
}

/* The bytes of a member, with a NUL behind them; a missing one is an empty one. NULL: malformed, or no memory. */
static char *
bytes_member(const cJSON *object, const char *name, size_t *len)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	const char *text = "";
	size_t text_len;
	char *bytes;

	if (item != NULL)
		text = cJSON_GetStringValue(item);
	if (text == NULL)
		return NULL;
	text_len = strlen(text);
	bytes = malloc(BASE64_DECODED_MAX(text_len) + 1);
	if (bytes != NULL && !base64_decode(text, text_len, bytes, len))
	{
		free(bytes);
		return NULL;
	}
	if (bytes != NULL)
		bytes[*len] = '\0';
	return bytes;
}

bool
etcd_kv_read(const cJSON *item, EtcdKv *kv)
{
	memset(kv, 0, sizeof(*kv));
	if (!cJSON_IsObject(item))
		return false;
	kv->key = bytes_member(item, "key", &kv->key_len);
	kv->value = bytes_member(item, "value", &kv->value_len);
	if (kv->key == NULL || kv->value == NULL || kv->key_len == 0)
	{
		etcd_kv_free(kv);
		return false;
	}
	kv->create_revision = etcd_json_int64(item, "create_revision");
	kv->mod_revision = etcd_json_int64(item, "mod_revision");
	kv->version = etcd_json_int64(item, "version");
	kv->lease = etcd_json_int64(item, "lease");
	return true;
}

void
etcd_kv_free(EtcdKv *kv)
{
	free(kv->key);
	free(kv->value);
	memset(kv, 0, sizeof(*kv));
}
