/*
 * base64.h
 *	  Base64 (RFC 4648, standard alphabet, padded), as etcd's gateway wants bytes.
 */
#ifndef DSCHED_CORE_BASE64_H
#define DSCHED_CORE_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Characters of the encoding of n bytes, without a NUL. */
#define BASE64_ENCODED_LEN(n) (((n) + 2) / 3 * 4)

/* Bytes of room that the decoding of n characters needs at most. */
#define BASE64_DECODED_MAX(n) ((n) / 4 * 3)

/* Writes BASE64_ENCODED_LEN(len) characters and a NUL. */
extern void base64_encode(const void *src, size_t len, char *dst);

/* false, with *dst_len undefined: not base64.  White space and other alphabets are not accepted. */
extern bool base64_decode(const char *src, size_t len, void *dst, size_t *dst_len);

#endif /* DSCHED_CORE_BASE64_H */
