/*
 * selector.c
 *	  Labels of instances, and the selectors that say by them which instances may run a job.
 *
 *		labels		region=eu,disk=ssd
 *		selector	region=eu,disk!=hdd
 *
 * A selector is one or more terms, all of which must hold.  "key=value" holds for an instance that has this label with
 * this value; "key!=value" for every other one, also for one without such a label.  Besides its labels every instance has
 * the label "node", its name, which therefore cannot be given.
 *
 * Keys are of A-Z a-z 0-9 _ - . / and begin with a letter or a digit.  Values are of any bytes above the space but comma,
 * equals sign, exclamation mark and quotes; both keep their case.  Spaces around a term and its parts mean nothing.
 *
 * Two selectors with the same terms are one place (docs/internals.md), so they are stored in one form: terms sorted by
 * their bytes, each of them once, without spaces.  Terms that contradict each other are allowed: no instance matches.
 *
 * Everything is bounded, and nothing is allocated.
 */
#include "core/selector.h"

#include <stdio.h>
#include <string.h>

/* A selector of SELECTOR_MAX bytes has no more, and labels have fewer than 64. */
#define MAX_TERMS 64

typedef struct Term
{
	const char *key;
	size_t key_len;
	bool negated;
	const char *value;
	size_t value_len;
} Term;

/* Where a text is being read, and what it may hold. */
typedef struct Scan
{
	const char *text;
	const char *at;
	bool labels; /* only "=", and no key twice */
	SelectorError *error;
} Scan;

static bool
is_alnum(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool
is_key_byte(char c)
{
	return is_alnum(c) || c == '_' || c == '-' || c == '.' || c == '/';
}

static bool
is_value_byte(char c)
{
	unsigned char byte = (unsigned char) c;

	return byte > ' ' && byte != 0x7F && c != ',' && c != '=' && c != '!' && c != '"' && c != '\'';
}

/* All of them, from 1 to most of them. */
static bool
consists_of(const char *text, bool (*allowed)(char), size_t most)
{
	size_t len = strlen(text);
	size_t i;

	if (len == 0 || len > most)
		return false;
	for (i = 0; i < len; i++)
	{
		if (!allowed(text[i]))
			return false;
	}
	return true;
}

bool
label_key_valid(const char *key)
{
	return consists_of(key, is_key_byte, LABEL_MAX_KEY) && is_alnum(key[0]) &&
		   strcmp(key, LABEL_NODE) != 0;
}

bool
label_value_valid(const char *value)
{
	return consists_of(value, is_value_byte, LABEL_MAX_VALUE);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static bool
complain(const Scan *scan, const char *at, const char *hint, const char *message)
{
	if (scan->error != NULL)
	{
		scan->error->position = (int) (at - scan->text) + 1;
		scan->error->hint = hint;
		snprintf(scan->error->message, sizeof(scan->error->message), "%s", message);
	}
	return false;
}

static const char *
form_of(const Scan *scan)
{
	return scan->labels ? "Labels are key=value, separated by commas: region=eu,disk=ssd."
						: "A selector is key=value or key!=value, several separated by commas: "
						  "region=eu,disk!=hdd.";
}

static void
skip_spaces(Scan *scan)
{
	while (*scan->at == ' ' || *scan->at == '\t')
		scan->at++;
}

static bool
read_key(Scan *scan, Term *term)
{
	const char *begin = scan->at;

	while (is_key_byte(*scan->at))
		scan->at++;
	term->key = begin;
	term->key_len = (size_t) (scan->at - begin);
	if (term->key_len == 0)
		return complain(scan, begin, form_of(scan), "a key is expected");
	if (!is_alnum(*begin))
		return complain(scan, begin, "Keys begin with a letter or a digit.",
						"a key begins with another character");
	if (term->key_len > LABEL_MAX_KEY)
		return complain(scan, begin, "Keys have at most 63 bytes.", "a key is too long");
	if (scan->labels && term->key_len == strlen(LABEL_NODE) &&
		strncmp(begin, LABEL_NODE, term->key_len) == 0)
		return complain(scan, begin, "It is the name of the instance, dsched.node_name.",
						"the label \"node\" cannot be given");
	return true;
}

static bool
read_operator(Scan *scan, Term *term)
{
	skip_spaces(scan);
	term->negated = scan->at[0] == '!' && scan->at[1] == '=';
	if (term->negated && scan->labels)
		return complain(scan, scan->at, form_of(scan), "a label has a value, and cannot exclude one");
	if (!term->negated && scan->at[0] != '=')
		return complain(scan, scan->at, form_of(scan),
						scan->labels ? "\"=\" is expected" : "\"=\" or \"!=\" is expected");
	scan->at += term->negated ? 2 : 1;
	if (scan->at[0] == '=')
		return complain(scan, scan->at, form_of(scan), "\"=\" stands twice");
	skip_spaces(scan);
	return true;
}

static bool
read_value(Scan *scan, Term *term)
{
	const char *begin = scan->at;

	while (is_value_byte(*scan->at))
		scan->at++;
	term->value = begin;
	term->value_len = (size_t) (scan->at - begin);
	if (term->value_len == 0)
		return complain(scan, begin, form_of(scan), "a value is expected");
	if (term->value_len > LABEL_MAX_VALUE)
		return complain(scan, begin, "Values have at most 127 bytes.", "a value is too long");
	skip_spaces(scan);
	if (*scan->at != '\0' && *scan->at != ',')
		return complain(scan, scan->at, form_of(scan), "a comma or the end is expected");
	return true;
}

static bool
read_term(Scan *scan, Term *term)
{
	skip_spaces(scan);
	return read_key(scan, term) && read_operator(scan, term) && read_value(scan, term);
}

/* ---- order ------------------------------------------------------------------------------------ */

static int
compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int
compare_terms(const Term *a, const Term *b)
{
	int order = compare_bytes(a->key, a->key_len, b->key, b->key_len);

	if (order == 0)
		order = (int) a->negated - (int) b->negated;
	return order != 0 ? order : compare_bytes(a->value, a->value_len, b->value, b->value_len);
}

/* Puts a term in its place among n others; false: it is there already. */
static bool
insert_term(Term *terms, int n, const Term *term)
{
	int at = n;

	while (at > 0 && compare_terms(&terms[at - 1], term) > 0)
		at--;
	if (at > 0 && compare_terms(&terms[at - 1], term) == 0)
		return false;
	memmove(&terms[at + 1], &terms[at], sizeof(Term) * (size_t) (n - at));
	terms[at] = *term;
	return true;
}

static bool
has_key(const Term *terms, int n, const Term *like)
{
	int i;

	for (i = 0; i < n; i++)
	{
		if (compare_bytes(terms[i].key, terms[i].key_len, like->key, like->key_len) == 0)
			return true;
	}
	return false;
}

/* Writes the terms; false: they have more than max bytes. */
static bool
write_terms(const Term *terms, int n, char *out, size_t max)
{
	size_t used = 0;
	int i;

	for (i = 0; i < n; i++)
	{
		const Term *term = &terms[i];
		size_t need = term->key_len + term->value_len + (term->negated ? 2 : 1) + (i > 0 ? 1 : 0);

		if (used + need > max)
			return false;
		used += (size_t) snprintf(out + used, need + 1, "%s%.*s%s%.*s", i > 0 ? "," : "",
								  (int) term->key_len, term->key, term->negated ? "!=" : "=",
								  (int) term->value_len, term->value);
	}
	return true;
}

static bool
normalise(Scan *scan, char *out, size_t max)
{
	Term terms[MAX_TERMS + 1];
	int n = 0;

	out[0] = '\0';
	for (;;)
	{
		Term term;

		if (!read_term(scan, &term))
			return false;
		if (scan->labels && has_key(terms, n, &term))
			return complain(scan, term.key, "An instance has one value for each key.", "a key stands twice");
		if (n == MAX_TERMS)
			return complain(scan, term.key, "Use fewer terms.", "there are too many terms");
		n += insert_term(terms, n, &term);
		if (*scan->at == '\0')
			break;
		scan->at++;
	}
	if (write_terms(terms, n, out, max))
		return true;
	out[0] = '\0';
	return complain(scan, scan->text,
					scan->labels ? "Labels have at most 255 bytes." : "Selectors have at most 200 bytes.",
					scan->labels ? "the labels are too long" : "the selector is too long");
}

bool
selector_normalise(const char *text, char *out, SelectorError *error)
{
	Scan scan = {text, text, false, error};

	return normalise(&scan, out, SELECTOR_MAX);
}

bool
labels_normalise(const char *text, char *out, SelectorError *error)
{
	Scan scan = {text, text, true, error};

	skip_spaces(&scan);
	if (*scan.at == '\0')
	{
		out[0] = '\0';
		return true;
	}
	return normalise(&scan, out, LABELS_MAX);
}

/* ---- matching --------------------------------------------------------------------------------- */

/* Has the instance this label with this value? */
static bool
has_label(const Term *term, const char *labels, const char *node)
{
	Scan scan = {labels, labels, true, NULL};
	Term label;

	if (compare_bytes(term->key, term->key_len, LABEL_NODE, strlen(LABEL_NODE)) == 0)
		return compare_bytes(term->value, term->value_len, node, strlen(node)) == 0;
	while (*scan.at != '\0' && read_term(&scan, &label))
	{
		if (compare_bytes(term->key, term->key_len, label.key, label.key_len) == 0)
			return compare_bytes(term->value, term->value_len, label.value, label.value_len) == 0;
		if (*scan.at == ',')
			scan.at++;
	}
	return false;
}

bool
selector_matches(const char *selector, const char *labels, const char *node)
{
	Scan scan = {selector, selector, false, NULL};
	Term term;

	for (;;)
	{
		/* what cannot be read is matched by nobody */
		if (!read_term(&scan, &term) || has_label(&term, labels, node) == term.negated)
			return false;
		if (*scan.at == '\0')
			return true;
		scan.at++;
	}
}
