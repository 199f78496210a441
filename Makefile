# dsched: builds with PGXS. "make help" lists what a person would call.

MODULE_big = dsched
EXTENSION  = dsched
DATA       = $(sort $(wildcard sql/dsched--*.sql))
OBJS       = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

PG_CONFIG ?= pg_config
# The server's headers are given as system headers, so that the strict warnings speak of this source alone.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server) -Isrc
PG_CFLAGS   = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers
# librt: timer_create() is there before glibc 2.34
SHLIB_LINK  = -lcurl -lcjson -lrt
EXTRA_CLEAN = .deps build tmp_check

all:

# These goals build nothing themselves: they work on a machine that has no PostgreSQL yet.
OWN_GOALS = help setup check unit fuzz mutants layers format-check demo demo-stop bench bench-report chaos
ifneq ($(filter-out $(OWN_GOALS),$(or $(MAKECMDGOALS),all)),)

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error $(PG_CONFIG) knows of no PGXS: run scripts/setup, or set PG_CONFIG to that of a PostgreSQL with its development files)
endif
# No bitcode for JIT: nothing here is worth inlining, and clang is not needed then.
ifneq ($(origin with_llvm),command line)
override with_llvm = no
endif
include $(PGXS)

# Each object file depends on the headers that it read.
src/%.o: src/%.c
	@mkdir -p .deps/$(dir $*)
	$(COMPILE.c) -MMD -MP -MF .deps/$*.d -o $@ $<
$(OBJS): Makefile
-include $(patsubst src/%.o,.deps/%.d,$(OBJS))

endif

JOBS ?= $(shell nproc)
# Installing may be a matter of root, building is not.
AS_ROOT = $(shell test -w "$$($(PG_CONFIG) --pkglibdir)" || echo sudo)

help:
	@echo 'make                build the extension'
	@echo 'make install        install it into the PostgreSQL that PG_CONFIG names (default: pg_config)'
	@echo 'make check          on a bare Debian 12 too: install what is needed, build, install, run all tests'
	@echo '     TESTS=pattern    only the tests whose name matches, e.g. TESTS=003_kill9'
	@echo 'make demo           as above, then three servers and an etcd, one of the servers killed; about a minute'
	@echo 'make demo-stop      stop what the demo left running, remove its data'
	@echo 'make bench          as above, then the benches, which take long and want the machine for themselves; see docs/performance.md'
	@echo '     BENCH=names      only these, e.g. BENCH="throughput lateness"; BENCH_SHORT=1: small sizes, a few minutes'
	@echo 'make chaos          as above, then a fleet in network namespaces, where everything breaks; a few minutes; root, or without namespaces'
	@echo '     CHAOS_SEED= CHAOS_SECONDS= CHAOS_INSTANCES=   see test/chaos/run'
	@echo 'make bench-report   take the results of the last benches into docs/performance.md'
	@echo 'make unit           only the tests that need no server'
	@echo 'make fuzz           fuzzing with libFuzzer, which comes with clang: ten minutes for each target; FUZZ_SECONDS=60: one'
	@echo 'make mutants        show that the tests can fail: take one check at a time out of the source; about a minute for each'
	@echo 'make layers         check which part of the source includes which'
	@echo 'make format-check   report lines that clang-format would change'
	@echo 'make setup          only install the Debian packages that are needed'
	@echo 'make clean          remove everything that was built'

setup:
	@scripts/setup

# PGXS has a rule for "check" that refuses.
ifneq ($(filter check demo,$(MAKECMDGOALS)),)
check demo: setup
	@echo 'building and installing dsched'
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(AS_ROOT) $(MAKE) --no-print-directory -s install PG_CONFIG='$(PG_CONFIG)'
	@PG_CONFIG='$(PG_CONFIG)' TESTS='$(TESTS)' scripts/$@
endif

demo-stop:
	@scripts/demo stop

ifneq ($(filter bench,$(MAKECMDGOALS)),)
bench:
	@scripts/setup bench
	@echo 'building and installing dsched'
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(AS_ROOT) $(MAKE) --no-print-directory -s install PG_CONFIG='$(PG_CONFIG)'
	@PG_CONFIG='$(PG_CONFIG)' BENCH='$(BENCH)' bench/run
endif

bench-report:
	@bench/report

ifneq ($(filter chaos,$(MAKECMDGOALS)),)
chaos:
	@scripts/setup chaos
	@echo 'building and installing dsched'
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(AS_ROOT) $(MAKE) --no-print-directory -s install PG_CONFIG='$(PG_CONFIG)'
	@PG_CONFIG='$(PG_CONFIG)' test/chaos/run
endif

unit:
	@TESTS='$(TESTS)' scripts/check unit

fuzz:
	@scripts/fuzz

mutants:
	@PG_CONFIG='$(PG_CONFIG)' scripts/mutants $(MUTANTS)

layers:
	@scripts/check-layers

format-check:
	@clang-format --dry-run --Werror $$(git ls-files 'src/*.[ch]' 'test/*.[ch]')

.PHONY: all help setup check unit fuzz mutants layers format-check demo demo-stop bench bench-report chaos
