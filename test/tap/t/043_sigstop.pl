# An instance is suspended for longer than its lease lives, with transactions of jobs open. The others run their slots; when it goes on,
# it commits nothing of what it had begun, starts nothing before it has a new session, and then does its part again.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd);
my @ticks = map { "tick$_" } 1 .. 12;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');

# A gate on each instance: a session that holds a lock, which the job "gate" waits for.
my %gate;

foreach my $node (@fleet)
{
	my $gate = $gate{ $node->name } = { in => "SELECT pg_advisory_lock(1), 'closed';\n", out => '' };

	$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
	$gate->{psql}->pump until $gate->{out} =~ /closed/;
}

sub open_gate
{
	my ($node) = @_;

	$gate{ $node->name }{psql}->kill_kill;
	return;
}

as_worker($fleet[0],
	q{SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, 12) i});
ok(wait_past('tick', 12, \@fleet, timestamp()), 'jobs run');
my $from = timestamp();

# What is over while the instance is stopped goes straight to its commit when it goes on; what waits is cancelled. Both must fail.
as_worker($fleet[0],
	q{SELECT dsched.schedule_once('gate', clock_timestamp() + '0.2 s',
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared(1)')});
ok(wait_for(sub { append_log_lines(job => 'gate', phase => 'begin') }), 'the gated job has begun');
my ($owner) = grep { $_->name eq (append_log_lines(job => 'gate'))[0]{node} } @fleet;
my @others = grep { $_ != $owner } @fleet;

# Jobs of the same instance that will have slept enough when it goes on.
as_worker($owner,
	q{SELECT count(dsched.schedule_once('sleep' || i, clock_timestamp(),
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_sleep(2)')) -- sleep-ok: a run that lasts
	FROM generate_series(1, 8) i});
ok(wait_for(sub { grep { $_->{node} eq $owner->name && $_->{job} =~ /sleep/ } append_log_lines(phase => 'begin') }), 'so has one that sleeps');

my $stopped = time();
sigstop_instance($owner);
my @begun = map { $_->{job} } grep { $_->{node} eq $owner->name && $_->{job} =~ /sleep/ } append_log_lines(phase => 'begin');
my $epochs = join ',', map { /^\d+=(\S+)@(\d+)$/ && $1 eq $owner->name ? $2 : () } split / /, scalar ownership($others[0]);
open_gate($_) foreach @others;

ok(wait_owners($others[0], [ map { $_->name } @others ]), 'the others own its partitions');
ok(wait_past("^gate\$", 1, \@others, ''), 'they run the slot that it has open');
ok(wait_past("^($_)\$", 1, \@others, ''), "and that of $_") foreach @begun;
ok(wait_past('tick', 12, \@others, timestamp()), 'all jobs run on two instances');

my $continued = time();
sigcont_instance($owner);
open_gate($owner);
ok(wait_until($owner, q{SELECT status FROM dsched.run WHERE job_name = 'gate'}, 'lost'), '[instance-stopped-and-continued] the gated run is recorded as lost');
ok(wait_until($owner, "SELECT status FROM dsched.run WHERE job_name = '$_'", 'lost'), "so is $_") foreach @begun;
is($owner->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$_'"), 0, "no effect of $_")
  foreach 'gate', @begun;

ok(wait_fleet(\@fleet), 'it is back and has its share');
my $to = timestamp();
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'jobs run');
every_slot_of_each_once(\@ticks, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z",
	may_repeat => [ { node => $owner->name, since => $stopped - 1, until => $stopped + 0.1 } ]);
foreach my $job ('gate', map { "sleep$_" } 1 .. 8)
{
	my @effects = effects($job, \@fleet);

	is(scalar @effects, 1, "$job had its effect once");
}

# Nothing was started under an epoch of the old session after it went on, nor a slot that came due while it was stopped.
is( $owner->safe_psql('postgres',
		"SELECT count(*) FROM dsched.run WHERE epoch IN ($epochs) AND extract(epoch FROM started_at) > $continued"),
	0, '[instance-stopped-and-continued] it started nothing by right of its old session');
my ($first, $last) = (timestamp($stopped + 0.1), timestamp($continued));
is_deeply(
	[ grep { $_->{node} eq $owner->name && $_->{slot} gt $first && $_->{slot} lt $last } append_log_lines(phase => 'begin') ],
	[], '[instance-stopped-and-continued] nor anything that came due while it was stopped');
# The others could not know that the runs which it lost had begun.
account_ok(\@fleet, holes => 1, may_repeat => [ { node => $owner->name, since => $stopped - 1, until => $stopped + 0.1 } ]);

done_testing();
