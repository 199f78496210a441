/*
 * selector.h
 *	  Labels of instances, and the selectors that say by them which instances may run a job.
 */
#ifndef DSCHED_CORE_SELECTOR_H
#define DSCHED_CORE_SELECTOR_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a selector and of an instance's labels, normalised, without the NUL. */
#define SELECTOR_MAX 200
#define LABELS_MAX 255

#define LABEL_MAX_KEY 63
#define LABEL_MAX_VALUE 127

/* The label that every instance has: its name. */
#define LABEL_NODE "node"

/* What is wrong with a text, and where: position counts bytes, from 1. */
typedef struct SelectorError
{
	int position;
	char message[120];
	const char *hint; /* a constant */
} SelectorError;

/*
 * Brings a selector into the one form that all that mean the same terms have: terms sorted, each once, without spaces.
 * out has SELECTOR_MAX + 1 bytes.  False: *error says why, and out is "".
 */
extern bool selector_normalise(const char *text, char *out, SelectorError *error);

/* Likewise the labels of an instance, key=value; each key once.  out has LABELS_MAX + 1 bytes. */
extern bool labels_normalise(const char *text, char *out, SelectorError *error);

/* May an instance of this name, with these (normalised) labels, run what has this (normalised) selector? */
extern bool selector_matches(const char *selector, const char *labels, const char *node);

/* Can a label have this key, and this value? */
extern bool label_key_valid(const char *key);
extern bool label_value_valid(const char *value);

#endif /* DSCHED_CORE_SELECTOR_H */
