/*
 * fuzz_selector.c
 *	  Any bytes as a selector, as labels, and as an instance's name: what is accepted has one form, which means the same; what is refused says
 *	  where and why.
 *
 * The lines of an input are the selector, the labels and the name. An entry for libFuzzer, and for test/fuzz/driver.c where there is no clang.
 */
/* links: src/core/selector.c */
#include <stdint.h>
#include <string.h>

#include "check.h"

#include "core/selector.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_refusal(const SelectorError *error, const char *text, const char *out)
{
	CHECK(out[0] == '\0');
	CHECK(memchr(error->message, '\0', sizeof(error->message)) != NULL && error->message[0] != '\0');
	CHECK(error->position >= 1 && (size_t) error->position <= strlen(text) + 1);
}

/* The next line, in memory of its own. */
static char *
line_of(const uint8_t **data, size_t *size)
{
	const uint8_t *newline = *size > 0 ? memchr(*data, '\n', *size) : NULL;
	size_t len = newline != NULL ? (size_t) (newline - *data) : *size;
	char *line = malloc(len + 1);

	CHECK(line != NULL);
	if (len > 0)
		memcpy(line, *data, len);
	line[len] = '\0';
	*data += len + (newline != NULL);
	*size -= len + (newline != NULL);
	return line;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *selector = line_of(&data, &size);
	char *labels = line_of(&data, &size);
	char *node = line_of(&data, &size);
	char form[SELECTOR_MAX + 1], again[SELECTOR_MAX + 1];
	char labels_form[LABELS_MAX + 1], labels_again[LABELS_MAX + 1];
	SelectorError error;
	bool good, labels_good;

	memset(&error, 0x5a, sizeof(error));
	good = selector_normalise(selector, form, &error);
	if (good)
	{
		CHECK(form[0] != '\0' && strpbrk(form, " \t\n") == NULL);
		CHECK(selector_normalise(form, again, &error) && strcmp(form, again) == 0);
	}
	else
		check_refusal(&error, selector, form);

	memset(&error, 0x5a, sizeof(error));
	labels_good = labels_normalise(labels, labels_form, &error);
	if (labels_good)
		CHECK(labels_normalise(labels_form, labels_again, &error) && strcmp(labels_form, labels_again) == 0);
	else
		check_refusal(&error, labels, labels_form);

	if (good && labels_good)
	{
		/* a selector of the name itself */
		char pinned[SELECTOR_MAX + 1], text[2 * SELECTOR_MAX];

		(void) selector_matches(form, labels_form, node);
		if (strlen(node) < SELECTOR_MAX && snprintf(text, sizeof(text), LABEL_NODE "=%s", node) > 0 &&
			label_value_valid(node) && selector_normalise(text, pinned, &error))
			CHECK(selector_matches(pinned, labels_form, node));
	}
	free(selector);
	free(labels);
	free(node);
	return 0;
}
