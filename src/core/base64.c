/*
 * base64.c
 *	  Base64 (RFC 4648, standard alphabet, padded), as etcd's gateway wants bytes.
 *
 * The decoder is strict, as its input comes from a peer: whole groups of four, padding only at the end, and
 * no bits set that the padding cuts off, so that each string of bytes has one encoding.
 */
#include "core/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
base64_encode(const void *src, size_t len, char *dst)
{
	const unsigned char *in = src;

	for (; len >= 3; in += 3, len -= 3)
	{
		*dst++ = alphabet[in[0] >> 2];
		*dst++ = alphabet[(in[0] & 0x03) << 4 | in[1] >> 4];
		*dst++ = alphabet[(in[1] & 0x0f) << 2 | in[2] >> 6];
		*dst++ = alphabet[in[2] & 0x3f];
	}
	if (len > 0)
	{
		unsigned char second = len > 1 ? in[1] : 0;

		*dst++ = alphabet[in[0] >> 2];
		*dst++ = alphabet[(in[0] & 0x03) << 4 | second >> 4];
		*dst++ = len > 1 ? alphabet[(second & 0x0f) << 2] : '=';
		*dst++ = '=';
	}
	*dst = '\0';
}

/* The six bits of a character; above 63 if it is none of the alphabet. */
static uint32_t
six_bits(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	if (c == '/')
		return 63;
	return 64;
}

/* How many characters of padding end the text. */
static size_t
padding(const char *src, size_t len)
{
	if (len == 0 || src[len - 1] != '=')
		return 0;
	return src[len - 2] == '=' ? 2 : 1;
}

bool
base64_decode(const char *src, size_t len, void *dst, size_t *dst_len)
{
	unsigned char *out = dst;
	size_t pad;
	size_t i;

	if (len % 4 != 0)
		return false;
	pad = padding(src, len);

	for (i = 0; i < len; i += 4)
	{
		size_t cut = i + 4 == len ? pad : 0;
		uint32_t a = six_bits((unsigned char) src[i]);
		uint32_t b = six_bits((unsigned char) src[i + 1]);
		uint32_t c = cut == 2 ? 0 : six_bits((unsigned char) src[i + 2]);
		uint32_t d = cut >= 1 ? 0 : six_bits((unsigned char) src[i + 3]);
		uint32_t group = a << 18 | b << 12 | c << 6 | d;

		if (a > 63 || b > 63 || c > 63 || d > 63)
			return false;
		if ((cut == 2 && (b & 0x0f) != 0) || (cut == 1 && (c & 0x03) != 0))
			return false;
		*out++ = (unsigned char) (group >> 16);
		if (cut < 2)
			*out++ = (unsigned char) (group >> 8);
		if (cut < 1)
			*out++ = (unsigned char) group;
	}
	*dst_len = (size_t) (out - (unsigned char *) dst);
	return true;
}
