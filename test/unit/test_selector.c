/*
 * test_selector.c
 *	  Labels and selectors: the one form of each, what matches, and what is refused, where.
 */
#include "core/selector.h"
#include "random.h"
#include "tap.h"

static void
same(const char *text, const char *expected)
{
	char out[SELECTOR_MAX + 1];
	SelectorError error = {0};

	ok(selector_normalise(text, out, &error), text);
	is_str(out, expected, "in its one form");
	ok(selector_normalise(expected, out, &error) && strcmp(out, expected) == 0, "which stays as it is");
}

static void
refused(const char *text, int position, const char *message)
{
	char out[SELECTOR_MAX + 1];
	SelectorError error = {0};

	ok(!selector_normalise(text, out, &error) && out[0] == '\0', text);
	is_int(error.position, position, "where");
	is_str(error.message, message, "why");
	ok(error.hint != NULL && error.hint[0] != '\0', "with a hint");
}

static void
test_forms(void)
{
	same("region=eu", "region=eu");
	same("  region = eu ,\tdisk !=  hdd ", "disk!=hdd,region=eu");
	same("b=1,a=1,b=1,a=1", "a=1,b=1");
	same("a!=1,a=1", "a=1,a!=1");
	same("a=2,a=10,ab=1", "a=10,a=2,ab=1");
	same("A=x,a=X", "A=x,a=X");
	same("node=db1:5432", "node=db1:5432");
	same("topology.k8s.io/zone=eu-west-1a", "topology.k8s.io/zone=eu-west-1a");
	same("stadt=K\xc3\xb6ln", "stadt=K\xc3\xb6ln");
}

static void
test_refused(void)
{
	refused("", 1, "a key is expected");
	refused("   ", 4, "a key is expected");
	refused("any", 4, "\"=\" or \"!=\" is expected");
	refused("=eu", 1, "a key is expected");
	refused("region=", 8, "a value is expected");
	refused("region=eu,", 11, "a key is expected");
	refused(",region=eu", 1, "a key is expected");
	refused("region==eu", 8, "\"=\" stands twice");
	refused("region!eu", 7, "\"=\" or \"!=\" is expected");
	refused("region=eu us", 11, "a comma or the end is expected");
	refused("region='eu'", 8, "a value is expected");
	refused("-a=1", 1, "a key begins with another character");
	refused("a=1,b=2;c=3", 10, "a comma or the end is expected");
	refused("a in (b)", 3, "\"=\" or \"!=\" is expected");
	refused("a=\x7f", 3, "a value is expected");
}

/* What is just short enough, and a byte more. */
static void
test_bounds(void)
{
	char text[1000];
	char out[SELECTOR_MAX + 1];
	SelectorError error;
	int i;

	memset(text, 'k', 63);
	strcpy(text + 63, "=v");
	ok(selector_normalise(text, out, &error), "a key of 63 bytes");
	memset(text, 'k', 64);
	strcpy(text + 64, "=v");
	ok(!selector_normalise(text, out, &error) && error.position == 1, "not of 64");
	strcpy(text, "k=");
	memset(text + 2, 'v', 127);
	text[129] = '\0';
	ok(selector_normalise(text, out, &error), "a value of 127 bytes");
	strcpy(text + 129, "v");
	ok(!selector_normalise(text, out, &error) && error.position == 3, "not of 128");

	/* 40 terms of 4 bytes and 39 commas are 199 bytes */
	text[0] = '\0';
	for (i = 0; i < 40; i++)
		snprintf(text + strlen(text), 8, "%s%c%c=v", i > 0 ? "," : "", 'a' + i / 20, 'a' + i % 20);
	ok(selector_normalise(text, out, &error) && strlen(out) == 199, "199 bytes");
	strcat(text, ",z=1");
	ok(!selector_normalise(text, out, &error) && out[0] == '\0', "not 203");
	text[0] = '\0';
	for (i = 0; i < 150; i++)
		strcat(text, i > 0 ? " , a=1" : "a=1");
	ok(selector_normalise(text, out, &error), "one term 150 times");
	is_str(out, "a=1", "is one");
	text[0] = '\0';
	for (i = 0; i < 70; i++)
		snprintf(text + strlen(text), 8, "%s%c%c=v", i > 0 ? "," : "", 'a' + i / 20, 'a' + i % 20);
	ok(!selector_normalise(text, out, &error), "not 70 terms");
	is_str(error.message, "there are too many terms", "too many");
}

static void
test_labels(void)
{
	char out[LABELS_MAX + 1];
	SelectorError error;

	ok(labels_normalise("", out, &error) && out[0] == '\0', "no labels");
	ok(labels_normalise("  ", out, &error) && out[0] == '\0', "nothing but spaces");
	ok(labels_normalise(" region = eu, disk=ssd", out, &error), "two labels");
	is_str(out, "disk=ssd,region=eu", "sorted");
	ok(!labels_normalise("a=1,a=2", out, &error) && error.position == 5, "a key twice");
	ok(!labels_normalise("a=1,a=1", out, &error) && error.position == 5, "also with one value");
	ok(!labels_normalise("a!=1", out, &error) && error.position == 2, "a label excludes nothing");
	ok(!labels_normalise("a", out, &error) && error.position == 2, "a key alone");
	ok(!labels_normalise("x=1,node=n1", out, &error) && error.position == 5, "node is no label of one's own");
	ok(labels_normalise("nodes=n1", out, &error), "but nodes is");
	ok(label_key_valid("a.b/c-d_e") && !label_key_valid("node") && !label_key_valid("") && !label_key_valid("a b"), "keys");
	ok(label_value_valid("a:b") && !label_value_valid("a,b") && !label_value_valid("") && !label_value_valid("a b"), "values");
}

static void
test_matching(void)
{
	const char *labels = "disk=ssd,region=eu";

	ok(selector_matches("region=eu", labels, "n1"), "a label");
	ok(!selector_matches("region=us", labels, "n1"), "another value");
	ok(!selector_matches("regio=eu", labels, "n1") && !selector_matches("regions=eu", labels, "n1"), "another key");
	ok(!selector_matches("region=e", labels, "n1") && !selector_matches("region=eur", labels, "n1"), "a part of the value");
	ok(selector_matches("disk=ssd,region=eu", labels, "n1"), "all of several");
	ok(!selector_matches("disk=hdd,region=eu", labels, "n1"), "not all of several");
	ok(selector_matches("region!=us", labels, "n1"), "not another value");
	ok(!selector_matches("region!=eu", labels, "n1"), "not this value");
	ok(selector_matches("gpu!=yes", labels, "n1"), "without such a label");
	ok(!selector_matches("gpu=yes", labels, "n1"), "without it, no value");
	ok(selector_matches("gpu!=yes", "", "n1") && !selector_matches("gpu=yes", "", "n1"), "without labels");
	ok(selector_matches("node=n1", labels, "n1") && !selector_matches("node=n1", labels, "n2"), "the name");
	ok(selector_matches("node!=n1", labels, "n2") && !selector_matches("node!=n1", labels, "n1"), "not the name");
	ok(!selector_matches("node=n1", "node=n1", "n2"), "which no label can take");
	ok(!selector_matches("a=1,a!=1", "a=1", "n1") && !selector_matches("a=1,a!=1", "", "n1"), "a contradiction");
	ok(!selector_matches("a=1,a=2", "a=1", "n1"), "two values");
	ok(!selector_matches("", labels, "n1") && !selector_matches("nonsense", labels, "n1"), "what cannot be read");
}

/* Whatever bytes: no crash, and what is accepted has one form that says the same. */
static void
test_random(void)
{
	static const char pool[] = "ab=!, ,\t=1n\xc3'";
	int accepted = 0;
	int wrong = 0;
	int i;

	for (i = 0; i < 200000; i++)
	{
		char text[24];
		char once[SELECTOR_MAX + 1];
		char twice[SELECTOR_MAX + 1];
		int len = (int) random_between(0, 16);
		int k;

		for (k = 0; k < len; k++)
			text[k] = pool[random_between(0, sizeof(pool) - 2)];
		text[len] = '\0';
		if (!selector_normalise(text, once, NULL))
			continue;
		accepted++;
		wrong += !selector_normalise(once, twice, NULL) || strcmp(once, twice) != 0 ||
				 selector_matches(text, "a=1,b=a", "n") != selector_matches(once, "a=1,b=a", "n");
	}
	ok(accepted > 100, "some of the random texts are selectors");
	is_int(wrong, 0, "each has one form that matches the same");
}

int
main(void)
{
	random_begin();
	test_forms();
	test_refused();
	test_bounds();
	test_labels();
	test_matching();
	test_random();
	return done();
}
