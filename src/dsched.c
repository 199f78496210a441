/*
 * dsched.c
 *	  Entry point of the library.
 *
 * In shared_preload_libraries it defines the settings, asks for shared memory, installs the hooks and registers
 * the coordinator.  Loaded later (pg_upgrade, pg_restore, LOAD) it does none of this, silently; its SQL
 * functions then say what is missing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"

#include "compat.h"
#include "hooks.h"
#include "mutant.h"
#include "settings.h"
#include "shared.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress)
		return;

#ifdef MUTANT_NAME
	ereport(WARNING, (errmsg("dsched was compiled with the fault %s, for tests of its tests", MUTANT_NAME)));
#endif
	dsched_define_settings();
	dsched_shared_init();
	dsched_install_hooks();

	/* pg_upgrade starts servers whose jobs must not run */
	if (IsBinaryUpgrade)
		return;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "dsched", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dsched_coordinator_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "dsched coordinator", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "dsched coordinator", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
