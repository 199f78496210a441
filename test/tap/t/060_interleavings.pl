# What happens between two steps of a process: a change of a job while its run is on its way to an executor, an extension that is dropped
# and created again in one moment, a lock on what has to be looked up, a procedure that goes on when its right is gone.

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('alone', conf => "dsched.max_executors = 1\ndsched.checkpoint_interval = '10ms'\n");

create_extension($node);
$node->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker; CREATE TABLE dues (n int); GRANT ALL ON dues TO worker');

sub open_runs
{
	return "SELECT count(*) FROM dsched.runs WHERE status IN ('queued', 'running')";
}

# Waits until a job has run in a slot after now.
sub runs_again
{
	my ($job) = @_;
	my $now = timestamp();

	return wait_until($node, "SELECT count(*) > 0 FROM dsched_test.effects WHERE job = '$job' AND slot > '$now'", 't', 30);
}

# ---- changed after it was queued, taken by an executor before the scheduler hears of it ----

my $lock = $node->background_psql('postgres');
my ($scheduler) = pids($node, 'dsched scheduler');

as_worker($node, q{
SELECT dsched.schedule('blocker', '0 0 1 1 *', 'TABLE gate');
SELECT dsched.schedule('altered', '*/5 * * * * *', 'SELECT dsched_test.effect()');
SELECT dsched.schedule('paused', '*/5 * * * * *', 'SELECT dsched_test.effect()');
SELECT dsched.schedule('gone', '*/5 * * * * *', 'SELECT dsched_test.effect()')});
$lock->query_safe('BEGIN; LOCK TABLE gate');
as_worker($node, q{SELECT dsched.run_now('blocker')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'blocker' AND status = 'running'}, 1), 'the only executor is busy');
ok(wait_until($node, q{SELECT count(DISTINCT job_name) FROM dsched.runs WHERE status = 'queued'}, 3), 'three runs wait');
kill('STOP', $scheduler);
as_worker($node, q{
SELECT dsched.alter_job('altered', schedule => '1-59/2 * * * * *');
SELECT dsched.pause('paused');
SELECT dsched.unschedule('gone')});
$lock->query_safe('COMMIT');
ok(wait_until($node, open_runs(), 0), 'the executor has had them');
kill('CONT', $scheduler);
ok(runs_again('altered'), 'a job that was redefined runs on');
ok(wait_until($node, q{SELECT string_agg(DISTINCT job_name || ' ' || reason, ', ' ORDER BY job_name || ' ' || reason) FROM dsched.run WHERE status = 'skipped'
	AND job_name IN ('altered', 'paused', 'gone') AND reason <> 'overlap'}, 'altered redefined, gone unscheduled, paused paused'), '[redefined-on-its-way] each slot has an outcome that names its job');
as_worker($node, q{SELECT dsched.unschedule('altered')});
ok(wait_until($node, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, qr/ 0 runs due or running/), 'nothing is left over');

# ---- a lock on pg_authid ----

as_worker($node, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(runs_again('tick'), 'it runs');
$lock->query_safe('ALTER ROLE worker CONNECTION LIMIT 100');
$lock->query_safe('BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE; INSERT INTO dues VALUES (1)');
$lock->query_safe('SELECT pg_sleep(2.5)');	# sleep-ok: the lock is held for longer than the lock timeout
$lock->query_safe('COMMIT');
ok(runs_again('tick'), 'it runs after a lock on pg_authid');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'failed'}), 0, '[catalog-locked] no role was missing');
as_worker($node, q{SELECT dsched.unschedule('tick')});

# ---- a procedure that rolls back, loses its right, takes no notice of the cancel, and commits ----

$node->safe_psql('postgres', q{
CREATE PROCEDURE stubborn(roll_back bool) LANGUAGE plpgsql AS $$
BEGIN
	IF roll_back THEN
		ROLLBACK;
	END IF;
	BEGIN
		PERFORM dsched_test.log('begin');
		PERFORM FROM gate;
	EXCEPTION WHEN query_canceled THEN
	END;
	PERFORM dsched_test.effect();
	COMMIT;
END $$});
foreach my $roll_back ('false', 'true')
{
	my $job = "roll_back_$roll_back";

	$lock->query_safe('BEGIN; LOCK TABLE gate');
	as_worker($node, qq{SELECT dsched.schedule_in('$job', '0 s', 'CALL stubborn($roll_back)')});
	ok(wait_for(sub { append_log_lines(job => $job) }), "$job: under way");
	kill('TERM', pids($node, 'dsched coordinator'));
	ok(wait_until($node, "SELECT status FROM dsched.run WHERE job_name = '$job' AND attempt = 1", 'lost'), "$job: lost with its right");
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job' AND attempt = 1"), 0, "[procedure-goes-on] $job: and commits nothing");
	$lock->query_safe('COMMIT');
	ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'", 1), "$job: it is made again");
	ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$job: and then it is done");
}

account_ok($node);

# ---- the extension is replaced by another ----

as_worker($node, q{SELECT dsched.schedule('old', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(runs_again('old'), 'a job runs');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION dsched; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker; COMMIT');
as_worker($node, q{SELECT dsched.schedule('new', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(runs_again('new'), '[extension-replaced] another runs in the extension that was created in the same transaction');
my $now = timestamp();
ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job = 'new' AND slot > '$now'", sub { $_[0] >= 3 }), 'and again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.runs WHERE job_name NOT LIKE 'new'}), 0, 'nothing is left of the one before it');

$lock->quit;
install_account($node);

# ---- a run that is interrupted by many restarts in order ----

as_worker($node, q{SELECT dsched.schedule_in('long', '0 s', 'SELECT dsched_test.log(''begin''), pg_sleep(CASE WHEN (dsched.current_run()).attempt < 5 THEN 600 ELSE 0 END), dsched_test.effect()')});	# sleep-ok: a job that lasts
foreach my $attempt (1 .. 4)
{
	ok(wait_for(sub { append_log_lines(job => 'long', attempt => $attempt) }), "attempt $attempt is under way");
	$node->stop('fast');
	start_instance($node);
}
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'long'}, 1), '[restarted-over-and-over] a run that was interrupted by four restarts is made in the end');
account_ok($node);

done_testing();
