/*
 * key_file.h
 *	  The file of dsched.cluster_key_file: the keys that sign what a cluster keeps in etcd.
 */
#ifndef DSCHED_KEY_FILE_H
#define DSCHED_KEY_FILE_H

#define KEY_FILE_MAX_KEYS 2		/* the first signs, both verify */
#define KEY_FILE_MIN_BYTES 32
#define KEY_FILE_MAX_BYTES 1024

typedef struct FileKey
{
	int			len;
	uint8		bytes[KEY_FILE_MAX_BYTES];
} FileKey;

typedef struct KeyFile
{
	int			nkeys;
	FileKey		keys[KEY_FILE_MAX_KEYS];
} KeyFile;

/*
 * Reads the file.  False: it cannot be used, and problem says why, without a word of its content or its name; out
 * is empty then.  The caller wipes out with key_file_wipe().
 */
extern bool key_file_read(const char *path, KeyFile *out, char *problem, size_t size);
extern void key_file_wipe(KeyFile *file);

#endif							/* DSCHED_KEY_FILE_H */
