/*
 * key_file.c
 *	  Reads the file of dsched.cluster_key_file.
 *
 * One key a line, as text: the bytes of the line, without white space around it, are the key, so that any tool can
 * compute with it.  Empty lines and those that begin with # say nothing.  The first key signs, a second one is accepted
 * besides, so that keys can be changed while the cluster works.
 *
 * The file must be as PostgreSQL wants that of ssl_key_file: owned by the user of the server and for him alone, or owned by
 * root and readable by the group at most.  What is looked at is what was opened.
 *
 * The schedulers read it, at their start and with each reload; the postmaster never does, so no other process has the keys.
 * Nothing here raises an error, and no message has anything of the content.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "key_file.h"

#define MAX_FILE 8192

static bool
refuse(char *problem, size_t size, const char *why)
{
	strlcpy(problem, why, size);
	return false;
}

void
key_file_wipe(KeyFile *file)
{
	explicit_bzero(file, sizeof(*file));
}

static bool
check_permissions(const struct stat *st, char *problem, size_t size)
{
	if (!S_ISREG(st->st_mode))
		return refuse(problem, size, "it is not a regular file");
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return refuse(problem, size, "it must be owned by the user of the server or by root");
	if ((st->st_uid == geteuid() && (st->st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
		return refuse(problem, size, "it has group or world access");
	return true;
}

/* The whole file into buffer, which has MAX_FILE bytes; its length, -1 after a complaint. */
static int
read_all(int fd, char *buffer, char *problem, size_t size)
{
	int			used = 0;

	while (used < MAX_FILE)
	{
		ssize_t		got = read(fd, buffer + used, MAX_FILE - used);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
		{
			snprintf(problem, size, "it cannot be read: %s", strerror(errno));
			return -1;
		}
		if (got == 0)
			return used;
		used += (int) got;
	}
	(void) refuse(problem, size, "it is too long");
	return -1;
}

/* One line, without its end. */
static bool
take_line(const char *line, int len, int number, KeyFile *out, char *problem, size_t size)
{
	FileKey    *key = &out->keys[out->nkeys];

	while (len > 0 && strchr(" \t\r", line[len - 1]) != NULL)
		len--;
	while (len > 0 && (*line == ' ' || *line == '\t'))
	{
		line++;
		len--;
	}
	if (len == 0 || *line == '#')
		return true;
	if (out->nkeys == KEY_FILE_MAX_KEYS)
		return refuse(problem, size, "it has more than two keys");
	if (len < KEY_FILE_MIN_BYTES || len > KEY_FILE_MAX_BYTES)
	{
		snprintf(problem, size, "the key in line %d is not of %d to %d bytes", number, KEY_FILE_MIN_BYTES,
				 KEY_FILE_MAX_BYTES);
		return false;
	}
	memcpy(key->bytes, line, len);
	key->len = len;
	out->nkeys++;
	return true;
}

static bool
parse(const char *text, int len, KeyFile *out, char *problem, size_t size)
{
	int			number = 0;

	if (memchr(text, '\0', len) != NULL)
		return refuse(problem, size, "it has a NUL byte");
	for (int pos = 0; pos < len;)
	{
		const char *end = memchr(text + pos, '\n', len - pos);
		int			length = end != NULL ? (int) (end - (text + pos)) : len - pos;

		if (!take_line(text + pos, length, ++number, out, problem, size))
			return false;
		pos += length + 1;
	}
	if (out->nkeys == 0)
		return refuse(problem, size, "it has no key");
	if (out->nkeys == 2 && out->keys[0].len == out->keys[1].len &&
		memcmp(out->keys[0].bytes, out->keys[1].bytes, out->keys[0].len) == 0)
		return refuse(problem, size, "both keys are the same");
	return true;
}

bool
key_file_read(const char *path, KeyFile *out, char *problem, size_t size)
{
	char		buffer[MAX_FILE];
	struct stat st;
	int			fd = BasicOpenFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	int			len = -1;
	bool		good = false;

	memset(out, 0, sizeof(*out));
	problem[0] = '\0';
	if (fd < 0)
	{
		snprintf(problem, size, "it cannot be opened: %s", strerror(errno));
		return false;
	}
	if (fstat(fd, &st) != 0)
		snprintf(problem, size, "it cannot be looked at: %s", strerror(errno));
	else if (check_permissions(&st, problem, size))
		len = read_all(fd, buffer, problem, size);
	(void) close(fd);
	if (len >= 0)
		good = parse(buffer, len, out, problem, size);
	explicit_bzero(buffer, sizeof(buffer));
	if (!good)
		key_file_wipe(out);
	return good;
}
