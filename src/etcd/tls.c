/*
 * tls.c
 *	  TLS of the connections to etcd, in terms of libcurl.
 *
 * Nothing here reads files: see security.c.
 */
#include "postgres.h"

#include <string.h>

#include "etcd/http.h"

#define SET(option, value)                                                                         \
	do                                                                                             \
	{                                                                                              \
		if (curl_easy_setopt(easy, option, value) != CURLE_OK)                                     \
			return false;                                                                          \
	} while (0)

/*
 * One PEM text for libcurl.  It is given the path where it is too old to take a text, or was built with a
 * library that cannot; then it reads the file for each connection.
 */
#if LIBCURL_VERSION_NUM >= 0x074d00
#define SET_PEM(blob_option, path_option, pem)                                                     \
	do                                                                                             \
	{                                                                                              \
		struct curl_blob blob = {(pem)->text, (pem)->len, CURL_BLOB_NOCOPY};                       \
		if ((pem)->path != NULL && curl_easy_setopt(easy, blob_option, &blob) != CURLE_OK)         \
			SET(path_option, (pem)->path);                                                         \
	} while (0)
#else
#define SET_PEM(blob_option, path_option, pem)                                                     \
	do                                                                                             \
	{                                                                                              \
		if ((pem)->path != NULL)                                                                   \
			SET(path_option, (pem)->path);                                                         \
	} while (0)
#endif

/* A server has to prove that it has the name, or the address, by which it was called.  Nothing turns that off. */
bool
etcd_tls_apply(CURL *easy, const EtcdTls *tls)
{
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	/* A resumed TLS session would not show that a certificate has expired. */
	SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
#if LIBCURL_VERSION_NUM >= 0x075700
	SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
	/* With authorities of our own, those of the system, which libcurl would believe besides, do not count. */
	if (tls->ca.path != NULL)
		SET(CURLOPT_CAPATH, NULL);
	SET_PEM(CURLOPT_CAINFO_BLOB, CURLOPT_CAINFO, &tls->ca);
	SET_PEM(CURLOPT_SSLCERT_BLOB, CURLOPT_SSLCERT, &tls->cert);
	SET_PEM(CURLOPT_SSLKEY_BLOB, CURLOPT_SSLKEY, &tls->key);
	/* Or an encrypted key would make the library ask for its password, on a terminal that we may have. */
	SET(CURLOPT_KEYPASSWD, "");
	return true;
}

/*
 * With TLS 1.3 a server that does not like our certificate says so when we believe to be connected, by an
 * alert that is found while reading.  A connection that breaks off, also in the middle of a handshake, is no
 * matter of certificates.
 */
bool
etcd_tls_is_failure(CURLcode result, const char *message)
{
	if (strstr(message, "SSL_ERROR_SYSCALL") != NULL || strstr(message, "unexpected eof") != NULL ||
		strstr(message, "reset by peer") != NULL)
		return false;
	switch (result)
	{
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_ENGINE_NOTFOUND:
			return true;
		default:
			return strstr(message, "SSL routines") != NULL || strstr(message, "alert") != NULL;
	}
}

static void
free_pem(EtcdPem *pem)
{
	if (pem->text != NULL)
		explicit_bzero(pem->text, pem->len);
	free(pem->text);
	free(pem->path);
	memset(pem, 0, sizeof(*pem));
}

void
etcd_tls_free(EtcdTls *tls)
{
	free_pem(&tls->ca);
	free_pem(&tls->cert);
	free_pem(&tls->key);
}
