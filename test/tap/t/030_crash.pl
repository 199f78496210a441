# Crash safety of a standalone instance: whatever is killed and whenever, every slot of a transactional command has one effect and
# one outcome.
#
# DSCHED_SEED chooses the moments and the victims of the second part again, DSCHED_ROUNDS is how many.
#
# timeout: 900

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{DSCHED_SEED} // int(rand(2**31));
srand($seed);
diag("DSCHED_SEED=$seed");

my $node = new_instance('alone', conf => "dsched.executor_idle_timeout = '5s'\n");

create_extension($node);
as_worker($node, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
# This one lets no slot pass, however slow the machine is.
as_worker($node, q{SELECT dsched.schedule('tock', '1 second', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', overlap => 'queue_all')});
# What cannot run in a transaction block has a start row, and may be repeated.
$node->safe_psql('postgres', q{SELECT dsched.schedule('vacuum', '*/2 * * * * *', 'VACUUM dsched_test.effects')});
my $from = now_at();

# The server's time, which counts, of a server that may be just starting.
sub now_at
{
	my $now;

	wait_for(sub { $now = psql_try($node, 'SELECT clock_timestamp()') }) or die 'the server does not answer';
	return $now;
}

# Waits until slots after this moment have run.
sub runs_again
{
	my $now = now_at();

	return wait_until($node,
		"SELECT count(DISTINCT job) FROM dsched_test.effects
		 WHERE job IN ('tick', 'tock') AND slot::timestamp > timestamptz '$now' AT TIME ZONE 'UTC'", 2);
}

# A process of a kind; there may be none at the moment.
sub signal_one
{
	my ($signal, $kind) = @_;
	my @pids = pids($node, $kind);

	kill($signal, $pids[ rand @pids ]) if @pids;
	return;
}

my %hurt = (
	'executor KILL'     => sub { signal_one('KILL', 'dsched executor') },
	'executor TERM'     => sub { signal_one('TERM', 'dsched executor') },
	'scheduler KILL'    => sub { signal_one('KILL', 'dsched scheduler') },
	'scheduler TERM'    => sub { signal_one('TERM', 'dsched scheduler') },
	'coordinator KILL'  => sub { signal_one('KILL', 'dsched coordinator') },
	'coordinator TERM'  => sub { signal_one('TERM', 'dsched coordinator') },
	'checkpointer KILL' => sub { signal_one('KILL', 'checkpointer') },
	'immediate stop'    => sub { $node->stop('immediate'); start_instance($node) },
	# PostgreSQL 15 does not come to an end by itself if it is asked to while it restarts after a crash.
	'fast stop'         => sub { now_at(); $node->stop('fast'); start_instance($node) },
	'postmaster KILL'   => sub { kill9_instance($node); start_instance($node) },
	'machine lost'      => sub { kill9_everything($node); start_instance($node) });

# ---- each kind of death while a run is under way ----

foreach my $kind (sort keys %hurt)
{
	(my $job = $kind) =~ tr/ A-Z/_a-z/;

	# It waits where a lock keeps it, so it is running for sure when it is hit.
	$node->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS gate (); GRANT ALL ON gate TO worker');
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; LOCK TABLE gate');
	as_worker($node, qq{SELECT dsched.schedule_in('$job', '0 s', 'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()')});
	ok(wait_for(sub { append_log_lines(job => $job) }), "$kind: a run is under way")
	  or diag($node->safe_psql('postgres', 'SELECT * FROM dsched.status()'));
	if ($kind =~ /TERM/)
	{
		$hurt{$kind}->();
		# begun again (or, if a process other than the run's was hit, perhaps still running)
		wait_for(sub { append_log_lines(job => $job) > 1 }, 2);
	}
	else
	{
		# what keeps the lock dies with the server
		$hurt{$kind}->();
	}
	eval { $session->query('COMMIT') };
	eval { $session->quit };
	ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'", 1), "[killed-mid-run] $kind: it is made again");
	ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$kind: and then it is done");
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = '$job' AND status = 'succeeded'"), 1, "[killed-mid-run] $kind: recorded once");
	is($node->safe_psql('postgres', "SELECT coalesce(string_agg(DISTINCT status, ','), 'lost') FROM dsched.run WHERE job_name = '$job' AND status <> 'succeeded'"),
		'lost', "[killed-mid-run] $kind: what was interrupted is recorded as lost, if at all");
}

# ---- random deaths at random moments ----

my @kinds = sort keys %hurt;
foreach my $round (1 .. $ENV{DSCHED_ROUNDS} // 8)
{
	my $kind = $kinds[ rand @kinds ];

	ok(runs_again(), "before round $round");
	select(undef, undef, undef, rand(1));    # the random moment
	note("round $round: $kind");
	$hurt{$kind}->();

	# some while it is still coming back from the last
	next if rand() < 0.6;
	$kind = $kinds[ rand @kinds ];
	select(undef, undef, undef, rand(0.3));    # the random moment
	note("round $round: $kind, too");
	$hurt{$kind}->();
}
ok(runs_again(), 'after the last');

# ---- every slot ----

my $to = now_at();
ok(runs_again(), 'past the end');

# The default policy skips a slot that comes due while the run before it is running. A slow machine may come to that: the run was begun
# late, after a crash, and had not ended, and the skipped slot is no business of the judges below. A run is running from when an
# executor takes it until its transaction has committed and the session is clean; started_at and finished_at lie within, by as
# much as the machine is slow. One that was under way when the server died is made again, and ends later. A run that was begun in time
# ended almost a second before the next slot, so that a skip without a reason is found all the same.
sub slots_to_run
{
	my ($job, $schedule) = @_;
	my %skipped = map { ($_ => 1) } split /\n/, $node->safe_psql(
		'postgres', qq{
SELECT to_char(slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
FROM dsched.run s, generate_series(s.scheduled_for, coalesce(s.last_slot, s.scheduled_for), '1 s') slot
WHERE s.job_name = '$job' AND s.reason = 'overlap' AND s.status = 'skipped'
AND EXISTS (SELECT FROM dsched.run r WHERE r.job_id = s.job_id AND r.scheduled_for < slot AND r.started_at IS NOT NULL
	AND r.finished_at >= slot - interval '300 ms')});
	my @slots = expected_slots($node, schedule => $schedule, from => $from, to => $to);
	my @rest  = grep { !$skipped{$_} } @slots;

	cmp_ok(scalar @rest, '>=', @slots * 0.8, scalar(@slots) . " slots of $job, nearly all of them to run");
	return \@rest;
}

foreach my $job (qw(tick tock))
{
	# Both have a slot each second: the interval counts from a whole second.
	my $slots = slots_to_run($job, '* * * * * *');

	every_slot_once($job, [$node], slots => $slots);
	every_slot_accounted($job, [$node], slots => $slots);
	effects_match_runs($job, [$node]);
}
every_slot_accounted('vacuum', [$node], schedule => '*/2 * * * * *', from => $from, to => $to);
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'running' AND started_at < now() - interval '30 s'}), 0,
	'no start row is left without an end');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.jobs WHERE NOT active}), 0, 'no job was paused');

# ---- a command that kills its server ----

$node->safe_psql('postgres', 'CREATE TABLE deaths (); TRUNCATE dsched_test.effects');
my $before = now_at();
$node->safe_psql('postgres',
	q{SELECT dsched.schedule('poison', '* * * * * *', $$SELECT dsched_test.log('begin'); COPY (SELECT) TO PROGRAM 'kill -9 $PPID'$$)});
ok(wait_until($node, q{SELECT active FROM dsched.jobs WHERE job_name = 'poison'}, 'f', 60), '[command-kills-server] a command that kills its server is paused');
like($node->safe_psql('postgres', q{SELECT problem FROM dsched.jobs WHERE job_name = 'poison'}), qr/paused.*max_lost/, 'and says why');
attempts_at_most('poison', 4);
is($node->safe_psql('postgres', q{SELECT string_agg(attempt || ' ' || status, ', ' ORDER BY attempt) FROM dsched.run WHERE job_name = 'poison' AND status <> 'skipped'}),
	'1 lost, 2 lost, 3 lost', '[command-kills-server] with three attempts that are recorded as lost');
ok(runs_again(), '[command-kills-server] the other jobs run on');
$to = now_at();
ok(runs_again(), 'past the end');
$from = $before;
every_slot_once('tick', [$node], slots => slots_to_run('tick', '* * * * * *'), name => 'of them every slot ran exactly once, too');

# Asked for by hand it is no better.
$node->safe_psql('postgres', q{SELECT dsched.schedule('asked', '0 0 1 1 *', $$SELECT dsched_test.log('begin'); COPY (SELECT) TO PROGRAM 'kill -9 $PPID'$$); SELECT dsched.run_now('asked')});
ok(wait_until($node, q{SELECT active FROM dsched.jobs WHERE job_name = 'asked'}, 'f', 60), 'neither is it run for ever if it was asked for');
attempts_at_most('asked', 4);
account_ok($node);

done_testing();
