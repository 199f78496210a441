/*
 * security.c
 *	  Who we are for etcd, and how we know it: the files of certificates, key and password.
 *
 * The files are read when the settings are made or reloaded, like those of the server's own TLS: new ones
 * that cannot be used leave the former ones in use.  Where there are none that were good all calls fail with
 * the reason, and the files are looked at again every few seconds.  Only the password is read for each login,
 * so that a rotated one is found when the old one is refused.
 *
 * A key and a password have to be ours (or root's) alone, by the rules for the server's own key.
 *
 * Calls that are under way when certificates change end over the connections that they have.  Watches are
 * ended, as they would stay for ever; their users start them again where they were.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "etcd/internal.h"

/* A bundle of all certificate authorities has some 250 kB. */
#define MAX_PEM_BYTES (4 * 1024 * 1024)
#define MAX_PASSWORD_BYTES 1024

#define RECHECK_US INT64CONST(5000000)

/* ---- files ---------------------------------------------------------------------------------- */

/* May its content be secret? The rules for the server's own key. */
static bool
is_private(const struct stat *info)
{
	if (info->st_uid == geteuid())
		return (info->st_mode & (S_IRWXG | S_IRWXO)) == 0;
	return info->st_uid == 0 && (info->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) == 0;
}

/* Reads all of an open file of that size; NULL: it cannot be, or changes. */
static char *
read_open_file(int fd, size_t size)
{
	char *text = malloc(size + 1);
	size_t len = 0;

	while (text != NULL && len < size)
	{
		ssize_t n = read(fd, text + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			free(text);
			return NULL;
		}
		len += n;
	}
	if (text != NULL)
		text[size] = '\0';
	return text;
}

/* The content of a regular file, with a NUL behind it; NULL, with the reason: not to be had. */
static char *
read_file(const char *what, const char *path, bool secret, size_t max, size_t *len, char *reason, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat info;
	char *text = NULL;

	if (fd < 0)
	{
		snprintf(reason, n, "%s \"%s\" cannot be opened: %s", what, path, strerror(errno));
		return NULL;
	}
	if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
		snprintf(reason, n, "%s \"%s\" is not a regular file", what, path);
	else if (secret && !is_private(&info))
		snprintf(reason, n, "%s \"%s\" has group or world access", what, path);
	else if (info.st_size == 0 || (size_t) info.st_size > max)
		snprintf(reason, n, "%s \"%s\" is %s", what, path, info.st_size == 0 ? "empty" : "too big");
	else if ((text = read_open_file(fd, info.st_size)) == NULL)
		snprintf(reason, n, "%s \"%s\" cannot be read", what, path);
	else
		*len = info.st_size;
	close(fd);
	return text;
}

static bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* Reads one file of certificates or keys; an unset path is fine. */
static bool
read_pem(EtcdPem *pem, const char *what, const char *path, bool secret, char *reason, size_t n)
{
	if (!is_set(path))
		return true;
	pem->text = read_file(what, path, secret, MAX_PEM_BYTES, &pem->len, reason, n);
	if (pem->text == NULL)
		return false;
	if (strstr(pem->text, "-----BEGIN ") == NULL)
	{
		snprintf(reason, n, "%s \"%s\" is not in PEM format", what, path);
		return false;
	}
	pem->path = strdup(path);
	if (pem->path == NULL)
		strlcpy(reason, "out of memory", n);
	return pem->path != NULL;
}

char *
etcd_read_password(const char *path, char *reason, size_t n)
{
	size_t len;
	char *text = read_file("password file", path, true, MAX_PASSWORD_BYTES, &len, reason, n);

	if (text == NULL)
		return NULL;
	text[strcspn(text, "\r\n")] = '\0';
	if (text[0] != '\0')
		return text;
	snprintf(reason, n, "password file \"%s\" has no password in its first line", path);
	free(text);
	return NULL;
}

void
etcd_free_secret(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	free(text);
}

/* ---- the settings --------------------------------------------------------------------------- */

/* Reads what the settings name; false, with the reason: it cannot be used. */
static bool
read_settings(const EtcdSecurity *settings, EtcdTls *tls, char **password, char *reason, size_t n)
{
	if (is_set(settings->cert_file) != is_set(settings->key_file))
	{
		strlcpy(reason, "a client certificate and its key have to be set both, or none of them", n);
		return false;
	}
	if (is_set(settings->user) != is_set(settings->password_file))
	{
		strlcpy(reason, "a user and a password file have to be set both, or none of them", n);
		return false;
	}
	if (!read_pem(&tls->ca, "file of certificate authorities", settings->ca_file, false, reason, n) ||
		!read_pem(&tls->cert, "certificate file", settings->cert_file, false, reason, n) ||
		!read_pem(&tls->key, "key file", settings->key_file, true, reason, n))
		return false;
	if (!is_set(settings->password_file))
		return true;
	*password = etcd_read_password(settings->password_file, reason, n);
	return *password != NULL;
}

static bool
same_pem(const EtcdPem *a, const EtcdPem *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->text, b->text, a->len) == 0);
}

static bool
same_tls(const EtcdTls *a, const EtcdTls *b)
{
	return same_pem(&a->ca, &b->ca) && same_pem(&a->cert, &b->cert) && same_pem(&a->key, &b->key);
}

void
etcd_sweep_retired(EtcdClient *client)
{
	int kept = 0;
	int i;

	for (i = 0; i < client->nretired; i++)
	{
		if (etcd_http_idle(client->retired[i]))
			etcd_http_destroy(client->retired[i]);
		else
			client->retired[kept++] = client->retired[i];
	}
	client->nretired = kept;
}

/* New connections with other certificates; takes what is in *tls. */
static bool
renew_connections(EtcdClient *client, EtcdTls *tls)
{
	EtcdHttp *http;
	dlist_mutable_iter iter;

	etcd_sweep_retired(client);
	if (client->nretired == ETCD_MAX_RETIRED)
		return false;
	http = etcd_http_create(client->loop, tls);
	if (http == NULL)
		return false;
	/* logins of the former certificates; who waits for one begins anew */
	etcd_auth_forget(client);
	client->retired[client->nretired++] = client->http;
	client->http = http;
	dlist_foreach_modify(iter, &client->watches)
	{
		etcd_watch_renew(iter.cur);
	}
	return true;
}

static bool
same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Takes over user and password; what was known with others is forgotten.  false: out of memory. */
static bool
take_user(EtcdClient *client, const EtcdSecurity *settings, const char *password)
{
	char *user = is_set(settings->user) ? strdup(settings->user) : NULL;
	char *file = is_set(settings->password_file) ? strdup(settings->password_file) : NULL;
	char *copy = password != NULL ? strdup(password) : NULL;

	if ((is_set(settings->user) && user == NULL) || (is_set(settings->password_file) && file == NULL) ||
		(password != NULL && copy == NULL))
	{
		free(user);
		free(file);
		etcd_free_secret(copy);
		return false;
	}
	if (!same_text(user, client->user) || !same_text(password, client->password))
		etcd_auth_forget(client);
	free(client->user);
	free(client->password_file);
	etcd_free_secret(client->password);
	client->user = user;
	client->password_file = file;
	client->password = copy;
	client->login_failures = 0;
	client->login_retry_at = 0;
	return true;
}

/* Everything or nothing. */
static bool
apply_settings(EtcdClient *client, const EtcdSecurity *settings, char *reason, size_t n)
{
	EtcdTls tls = {{0}};
	char *password = NULL;
	bool good = read_settings(settings, &tls, &password, reason, n);

	if (good && ((!same_tls(&tls, etcd_http_tls(client->http)) && !renew_connections(client, &tls)) ||
				 !take_user(client, settings, password)))
	{
		strlcpy(reason, "out of memory or file descriptors", n);
		good = false;
	}
	etcd_tls_free(&tls);
	etcd_free_secret(password);
	return good;
}

static void
free_settings(EtcdClient *client)
{
	int i;

	for (i = 0; i < ETCD_NSETTINGS; i++)
	{
		free(client->settings[i]);
		client->settings[i] = NULL;
	}
}

/* Keeps the settings, to look at the files again. */
static bool
keep_settings(EtcdClient *client, const EtcdSecurity *settings)
{
	const char *texts[ETCD_NSETTINGS] = {settings->ca_file, settings->cert_file, settings->key_file, settings->user,
										 settings->password_file};
	int i;

	free_settings(client);
	for (i = 0; i < ETCD_NSETTINGS; i++)
	{
		client->settings[i] = strdup(texts[i] ? texts[i] : "");
		if (client->settings[i] == NULL)
			return false;
	}
	return true;
}

bool
etcd_client_secure(EtcdClient *client, const EtcdSecurity *settings, char *reason, size_t n)
{
	char why[sizeof(client->refusal)] = "out of memory";

	if (keep_settings(client, settings) && apply_settings(client, settings, why, sizeof(why)))
	{
		client->secured = true;
		client->refusal[0] = '\0';
		return true;
	}
	if (!client->secured)
	{
		strlcpy(client->refusal, why, sizeof(client->refusal));
		client->recheck_at = dsched_boot_now() + RECHECK_US;
	}
	strlcpy(reason, why, n);
	return false;
}

const char *
etcd_security_refusal(EtcdClient *client)
{
	if (client->refusal[0] != '\0' && dsched_boot_now() >= client->recheck_at && client->settings[4] != NULL)
	{
		EtcdSecurity settings = {client->settings[0], client->settings[1], client->settings[2], client->settings[3],
								 client->settings[4]};
		char why[sizeof(client->refusal)];

		client->recheck_at = dsched_boot_now() + RECHECK_US;
		client->secured = apply_settings(client, &settings, why, sizeof(why));
		strlcpy(client->refusal, client->secured ? "" : why, sizeof(client->refusal));
	}
	return client->refusal[0] != '\0' ? client->refusal : NULL;
}

void
etcd_security_free(EtcdClient *client)
{
	free_settings(client);
	free(client->user);
	free(client->password_file);
	etcd_free_secret(client->password);
}
