/*
 * check.h
 *	  What must hold in a fuzz target: aborts, so that the input is kept.
 */
#ifndef DSCHED_FUZZ_CHECK_H
#define DSCHED_FUZZ_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
	do \
	{ \
		if (!(condition)) \
		{ \
			(fprintf)(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

#endif /* DSCHED_FUZZ_CHECK_H */
