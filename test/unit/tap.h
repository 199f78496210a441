/*
 * tap.h
 *	  The whole test framework of the unit tests: checks that print TAP lines.
 *
 * A test is a standalone program: it calls ok(), is_int() and is_str() as often as it likes and
 * ends with "return done();". A failed check prints where it stands and what it got, and the
 * program goes on, so that one run shows every failure.
 */
#ifndef DSCHED_TAP_H
#define DSCHED_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int tap_run;
static int tap_failed;

/* Checks are macros so that a failure names the line that made it; each is true if it passed. */
#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, ...) tap_is_int((got), (want), __FILE__, __LINE__, __VA_ARGS__)
#define is_str(got, want, ...) tap_is_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)

static inline bool
tap_report(bool passed, const char *file, int line, const char *fmt, va_list args)
{
	printf("%sok %d - ", passed ? "" : "not ", ++tap_run);
	vprintf(fmt, args);
	printf("\n");
	if (!passed)
	{
		tap_failed++;
		printf("#   at %s:%d\n", file, line);
	}
	fflush(stdout);
	return passed;
}

__attribute__((format(printf, 4, 5))) static inline bool
tap_ok(bool passed, const char *file, int line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	tap_report(passed, file, line, fmt, args);
	va_end(args);
	return passed;
}

__attribute__((format(printf, 5, 6))) static inline bool
tap_is_int(int64_t got, int64_t want, const char *file, int line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	tap_report(got == want, file, line, fmt, args);
	va_end(args);
	if (got != want)
		printf("#   got:  %" PRId64 "\n#   want: %" PRId64 "\n", got, want);
	return got == want;
}

__attribute__((format(printf, 5, 6))) static inline bool
tap_is_str(const char *got, const char *want, const char *file, int line, const char *fmt, ...)
{
	bool same = (got != NULL && want != NULL) ? strcmp(got, want) == 0 : got == want;
	va_list args;

	va_start(args, fmt);
	tap_report(same, file, line, fmt, args);
	va_end(args);
	if (!same)
		printf("#   got:  %s\n#   want: %s\n", got ? got : "(null)", want ? want : "(null)");
	return same;
}

/* Print the plan; the exit code of the program. */
static inline int
done(void)
{
	printf("1..%d\n", tap_run);
	return tap_failed == 0 ? 0 : 1;
}

#endif /* DSCHED_TAP_H */
