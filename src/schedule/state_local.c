/*
 * state_local.c
 *	  The account of the partitions in dsched.partition_state.
 *
 * Standalone it is the truth: with it and the rows of dsched.run a scheduler knows after a crash which slots are
 * open.  The rows are exact, so the state only bounds how far back they are looked at, and it is
 * written every few seconds, without waiting for the disk.  Two writes do wait for it: the last of a scheduler that stops in
 * order, which says so, and the first after a start, which takes that back before a run begins: or a command that takes the
 * server down at once would never be seen to have done so.  In a cluster it is a copy of what etcd has.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/guc.h"

#include "clock.h"
#include "compat.h"
#include "places.h"
#include "schedule/scheduler.h"
#include "settings.h"

/* A quiet partition's watermark is written too when it is older than this, so that little is looked back at. */
#define QUIET_STATE_AGE_US INT64CONST(60000000)

typedef struct WriteArgs
{
	bool		clean;
	bool		durable;
} WriteArgs;

static void read_state(void *arg);
static void write_states(void *arg);

static void
read_state(void *arg)
{
	Partition  *partition = arg;
	char	   *text = state_read(partition_place(partition->number), place_number(partition->number));
	char		problem[256];

	memset(&partition->taken, 0, sizeof(partition->taken));
	partition->taken.watermark = CODEC_MIN_TIME;
	partition->taken.clean = true;
	if (text == NULL)
	{
		/* one that has joined a cluster begins now; as far as it knows which slots there are */
		if (scheduler.etcd != NULL)
		{
			partition->stateless = true;
			partition->taken.watermark = scheduler.now;
			partition->taken.watermark_job = KEYS_MAX_ID;
			partition->taken.jobrev = sync_revision();
		}
		return;
	}
	if (codec_state_decode(text, strlen(text), &partition->taken, problem, sizeof(problem)))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the stored state of partition %d cannot be read: %s", partition->number, problem),
			 errdetail("Slots before now are taken as done.")));
	partition->taken.watermark = scheduler.now;
	partition->taken.clean = true;
}

bool
state_local_take_over(Partition *partition)
{
	/* without it all slots would seem open, also those whose rows were purged */
	if (!scheduler_transaction(read_state, partition, "reading a partition's state"))
		return false;
	if (partition->stateless && !scheduler.ready)
		return false;
	partition->stateless = false;
	if (!partition->taken.clean)
		scheduler.unclean = true;
	partition->seq = partition->taken.seq;
	return true;
}

static void
write_states(void *arg)
{
	bool		clean = ((WriteArgs *) arg)->clean;
	bool		durable = ((WriteArgs *) arg)->durable;

	(void) set_config_option("synchronous_commit", durable ? "local" : "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
	for (int i = 0; i < places_all(); i++)
	{
		Partition  *partition = &scheduler.partitions[i];
		PartitionState state;
		char	   *text;
		size_t		length;

		if (partition->step != STEP_ACTIVE && partition->step != STEP_DRAINING && partition->step != STEP_FINAL)
			continue;
		if (partition->step == STEP_ACTIVE && !partition->behind && partition_is_local(partition) && watermark_may_move() &&
			partition->watermark < scheduler.now)
		{
			/* all that is due was opened in this turn */
			partition->watermark = scheduler.now;
			partition->watermark_job = KEYS_MAX_ID;
		}
		if (!partition->local_dirty && !clean && partition->watermark - partition->local_watermark < QUIET_STATE_AGE_US)
			continue;
		if (partition_is_local(partition))
		{
			partition->seq++;
			partition->jobrev = sync_table_revision();
		}
		partition_describe(partition, clean, &state);
		text = codec_state_encode(&state, &length);
		if (text == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not encode a partition's state")));
		state_write(partition_place(i), place_number(i), text);
		if (partition_is_local(partition))
			purge_account_taken(partition);
		free(text);
		partition->local_watermark = partition->watermark;
	}
	sync_save_revisions();
}

bool
state_local_write(bool clean, bool durable)
{
	WriteArgs	args = {clean, durable};

	if (!scheduler_transaction(write_states, &args, "writing the partitions' states"))
	{
		/* also those that are written for their age alone: nothing of what was noted about them has become true */
		for (int i = 0; i < places_all(); i++)
			scheduler.partitions[i].local_dirty = true;
		return false;
	}
	for (int i = 0; i < places_all(); i++)
	{
		scheduler.partitions[i].local_dirty = false;
		scheduler.partitions[i].shown = scheduler.partitions[i].nshown > 0;
		if (partition_is_local(&scheduler.partitions[i]))
		{
			scheduler.partitions[i].dirty = false;
			purge_account_written(&scheduler.partitions[i]);
		}
	}
	return true;
}
