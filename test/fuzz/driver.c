/*
 * driver.c
 *	  Runs a libFuzzer entry without clang: driver [-dict=FILE] [-seconds=N] FILE|DIRECTORY ...
 *
 * It gives the target every file, then mutations of them for some seconds. An input that reaches
 * code that none before it reached joins those that are mutated: the target is compiled with gcc's
 * -fsanitize-coverage=trace-pc, which calls into here at every branch; this file is not. All that is
 * random comes from one seed, that is printed; DSCHED_SEED repeats it, and DSCHED_ROUNDS gives the
 * number of mutations instead of a time, so that a repetition is exact.
 *
 * An input on which the target fails, or takes over 10 seconds, is printed and written to
 * crash-input in the working directory. The target can be run on that file alone.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

#include "random.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern void __sanitizer_cov_trace_pc(void);

#define INPUT_BYTES 4096
#define INPUTS 20000
#define MAX_WORDS 500
#define MAP_SIZE 65536
#define LIMIT_S 10

typedef struct Input
{
	size_t size;
	uint8_t data[INPUT_BYTES];
} Input;

static Input *inputs[INPUTS];
static int input_count;
static char *words[MAX_WORDS];
static int word_count;

static uint8_t reached[MAP_SIZE]; /* by hash of the address */
static bool reached_new;

static Input current;

/*
 * Failures
 */

static void
save_current(void)
{
	static bool saved;
	FILE *file;
	size_t i;

	if (saved)
		return;
	saved = true;
	fprintf(stderr, "failed on %zu bytes: \"", current.size);
	for (i = 0; i < current.size; i++)
	{
		uint8_t c = current.data[i];

		if (c >= ' ' && c < 127 && c != '"' && c != '\\')
			fputc(c, stderr);
		else
			fprintf(stderr, "\\x%02x", c);
	}
	fprintf(stderr, "\"\n");
	file = fopen("crash-input", "wb");
	if (file != NULL)
	{
		fwrite(current.data, 1, current.size, file);
		fclose(file);
	}
}

/* So that what the sanitizer of undefined behaviour reports comes by here too. */
extern const char *__ubsan_default_options(void);

const char *
__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

/* The process ends here whatever happens, so what a handler may not call does no harm. */
static void
fail_by_signal(int sig)
{
	if (sig == SIGALRM)
		fprintf(stderr, "takes over %d s\n", LIMIT_S);
	save_current();
	_exit(1);
}

/*
 * Running the target
 */

void
__sanitizer_cov_trace_pc(void)
{
	uintptr_t pc = (uintptr_t) __builtin_return_address(0);
	uint8_t *place = &reached[(pc ^ (pc >> 16)) % MAP_SIZE];

	if (*place == 0)
	{
		*place = 1;
		reached_new = true;
	}
}

static void
run_current(void)
{
	reached_new = false;
	alarm(LIMIT_S);
	LLVMFuzzerTestOneInput(current.data, current.size);
	alarm(0);
}

static void
keep_current(void)
{
	if (input_count == INPUTS)
		return;
	inputs[input_count] = malloc(sizeof(Input));
	if (inputs[input_count] != NULL)
		*inputs[input_count++] = current;
}

/*
 * Files
 */

static bool
run_file(const char *path)
{
	FILE *file = fopen(path, "rb");

	if (file == NULL)
	{
		perror(path);
		return false;
	}
	current.size = fread(current.data, 1, sizeof(current.data), file);
	fclose(file);
	run_current();
	keep_current();
	return true;
}

/* A file, or those of a directory, in the order of their names: a seed means the same everywhere. */
static bool
run_path(const char *path)
{
	struct dirent **entries;
	struct stat st;
	bool good = true;
	int i, count;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return run_file(path);
	count = scandir(path, &entries, NULL, alphasort);
	for (i = 0; i < count; i++)
	{
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			good &= run_file(file);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return good && count >= 0;
}

/* libFuzzer's format, of which we use lines with a word in quotation marks and \xNN. */
static bool
read_words(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256];

	if (file == NULL)
	{
		perror(path);
		return false;
	}
	while (fgets(line, sizeof(line), file) != NULL && word_count < MAX_WORDS)
	{
		char *from = strchr(line, '"'), *to = strrchr(line, '"'), *out = line;
		unsigned int code;

		if (line[0] == '#' || from == NULL || to == from)
			continue;
		*to = '\0';
		for (from++; *from != '\0'; from++)
		{
			if (sscanf(from, "\\x%2x", &code) == 1)
			{
				*out++ = (char) code;
				from += 3;
			}
			else
				*out++ = *from;
		}
		*out = '\0';
		words[word_count++] = strdup(line);
	}
	fclose(file);
	return true;
}

/*
 * Mutations
 */

static size_t
random_place(void)
{
	return (size_t) random_between(0, (int64_t) current.size);
}

static void
cut(size_t from, size_t length)
{
	if (length > current.size - from)
		length = current.size - from;
	memmove(current.data + from, current.data + from + length, current.size - from - length);
	current.size -= length;
}

static void
paste(size_t at, const void *data, size_t length)
{
	uint8_t copy[INPUT_BYTES];

	if (length > INPUT_BYTES - current.size)
		length = INPUT_BYTES - current.size;
	memcpy(copy, data, length);
	memmove(current.data + at + length, current.data + at, current.size - at);
	memcpy(current.data + at, copy, length);
	current.size += length;
}

static void
change_number(void)
{
	size_t from = random_place(), length = 0;
	char number[32];

	while (from < current.size && (current.data[from] < '0' || current.data[from] > '9'))
		from++;
	while (from + length < current.size && current.data[from + length] >= '0' &&
		   current.data[from + length] <= '9')
		length++;
	cut(from, length);
	snprintf(number, sizeof(number), "%" PRId64,
			 random_between(0, random_between(0, 9) == 0 ? INT64_MAX : 70));
	paste(from, number, strlen(number));
}

static void
mutate(void)
{
	const Input *other = inputs[random_between(0, input_count - 1)];
	size_t from = random_place();
	uint8_t byte = (uint8_t) random_bits();

	switch (random_between(0, 7))
	{
		case 0:
			cut(from, 1);
			break;
		case 1:
			cut(from, (size_t) random_between(1, 10));
			break;
		case 2:
			paste(from, &byte, 1);
			break;
		case 3:
			if (from < current.size)
				current.data[from] ^= (uint8_t) (1 << random_between(0, 7));
			break;
		case 4:
			change_number();
			break;
		case 5: /* a piece of another, or of itself */
			if (other->size > 0)
			{
				size_t begin = (size_t) random_between(0, (int64_t) other->size - 1);

				paste(from, other->data + begin,
					  (size_t) random_between(1, (int64_t) (other->size - begin)));
			}
			break;
		default:
			if (word_count > 0)
			{
				const char *word = words[random_between(0, word_count - 1)];

				if (random_between(0, 1) == 0)
					cut(from, (size_t) random_between(1, 4));
				paste(from, word, strlen(word));
			}
	}
}

/* For this many seconds, or rounds where DSCHED_ROUNDS says so. Returns how many it ran. */
static int64_t
run_mutations(int seconds)
{
	const char *rounds = getenv("DSCHED_ROUNDS");
	int64_t limit = rounds != NULL ? atoll(rounds) : INT64_MAX, i;
	time_t end = time(NULL) + seconds;

	for (i = 0; i < limit; i++)
	{
		int64_t n = random_between(1, 6);

		if (rounds == NULL && i % 256 == 0 && time(NULL) >= end)
			break;
		current = *inputs[random_between(0, input_count - 1)];
		while (n-- > 0)
			mutate();
		run_current();
		if (reached_new)
			keep_current();
	}
	return i;
}

int
main(int argc, char **argv)
{
	int seconds = 0, i, files;
	bool good = true;

	signal(SIGABRT, fail_by_signal);
	signal(SIGALRM, fail_by_signal);
	__sanitizer_set_death_callback(save_current);
	for (i = 1; i < argc; i++)
	{
		if (strncmp(argv[i], "-seconds=", 9) == 0)
			seconds = atoi(argv[i] + 9);
		else if (strncmp(argv[i], "-dict=", 6) == 0)
			good &= read_words(argv[i] + 6);
		else
			good &= run_path(argv[i]);
	}
	files = input_count;
	printf("%s 1 - %d files\n", good && files > 0 ? "ok" : "not ok", files);
	if (seconds > 0 && files > 0)
	{
		random_begin();
		fflush(stdout);
		printf("ok 2 - %" PRId64 " mutations", run_mutations(seconds));
		printf(", of which %d reached something new\n", input_count - files);
	}
	while (input_count > 0)
		free(inputs[--input_count]);
	while (word_count > 0)
		free(words[--word_count]);
	return good && files > 0 ? 0 : 1;
}
