# Strict delivery in the places of selectors: the owner is suspended, lost, or hands a run over alive, and another instance that matches takes
# its partitions.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;

my $etcd = start_etcd();
my @fleet = map { new_instance($_, etcd => $etcd, conf => "dsched.lease_ttl = '2s'\ndsched.node_labels = 'disk=ssd'\ndsched.drain_timeout = '300ms'\ndsched.max_executors = 14\ndsched.max_executors_per_role = 14\n") } 'node1', 'node2';
my %modes = (most => 'at_most_once', once => 'exactly_once');

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($fleet[0], q{SELECT dsched.schedule('keep', '0 0 1 1 *', 'SELECT 1', run_on => 'disk=ssd')});

# If it began after the last account its successor makes it again under the same number; it has one effect all the same.
my @may_repeat;

sub suspend
{
	my ($node) = @_;

	push @may_repeat, { node => $node->name, since => time() - 5, until => time() + 90 };
	sigstop_instance($node);
	return;
}

# Begins a job that stops at the point, on whichever instance it is: that one, and the other one.
sub begin_job
{
	my ($job, $mode, $point) = @_;
	my $stopped;

	stop_runs_at($point, @fleet);
	as_worker($fleet[0], "SELECT dsched.schedule_in('$job', '0 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => '$mode', run_on => 'disk=ssd')");
	ok(wait_for(sub { ($stopped) = grep { stopped_executors($_) } @fleet }, 20), "$job: it stops at \"$point\"") or die;
	my ($other) = grep { $_ != $stopped } @fleet;

	stop_runs_at('', @fleet);
	return ($stopped, $other);
}

sub effects_of
{
	my ($job) = @_;
	my $n = 0;

	$n += psql_try($_, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") // 0 foreach @fleet;
	return $n;
}

sub no_key_is_left
{
	my ($job) = @_;

	ok(wait_for(sub { !%{ $etcd->keys('/dsched/test/db/postgres/run/') } }, 45), "$job: no key is left") or diag(join ' ', %{ $etcd->keys('/dsched/test/db/postgres/run/') });
	return;
}

sub settled
{
	my ($job) = @_;

	ok(wait_until(\@fleet, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$job: nothing is left prepared");
	no_key_is_left($job);
	ok(wait_until(\@fleet, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$job: it is done");
	ok(wait_fleet(\@fleet), "$job: both have their share again");
	ok(wait_until(\@fleet, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), "$job: status() is content");
	return;
}

# ---- the owner is suspended with a prepared transaction, another that matches makes the run, the owner goes on

my ($old, $other) = begin_job('suspended', 'exactly_once', 'prepared');

like($old->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'), qr/^dsched:[^:]+:s[0-9a-f]{16}:00[0-3]:/, 'the name of the transaction has the place');
suspend($old);
ok(wait_until($other, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'suspended'}, 1, 40), 'suspended: its successor makes the run');
sigcont_instance($old);
settled('suspended');
is(effects_of('suspended'), 1, '[strict-in-a-place] suspended: one effect');

# ---- the owner is lost after the decision

($old, $other) = begin_job('decided', 'exactly_once', 'answered');
kill9_everything($old);
ok(wait_until($other, q{SELECT count(*) FROM dsched.partitions WHERE place = 'disk=ssd' AND owner_node = '} . $other->name . q{'}, 4), 'decided: the other owns all partitions of the place');
ok(wait_until($other, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^waiting 1 run was decided by .*"\Q@{[$old->name]}\E"/), 'decided: it says who has to answer');
is($other->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'decided'}), 0, 'decided: it does not make the run');
start_instance($old);
ok(wait_until($old, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'decided'}, 1), 'decided: the owner commits it when it is back');
settled('decided');
is(effects_of('decided'), 1, 'decided: one effect');

# ---- the owner is lost, or suspended, between its claim and the command

($old, $other) = begin_job('lost', 'at_most_once', 'claimed');
kill9_everything($old);
ok(wait_until($other, q{SELECT status FROM dsched.run WHERE job_name = 'lost'}, 'lost', 40), 'lost: its successor records it as lost');
start_instance($old);
settled('lost');
is(effects_of('lost'), 0, 'lost: nobody begins it again');
($old, $other) = begin_job('stopped', 'at_most_once', 'claimed');
suspend($old);
ok(wait_until($other, q{SELECT status FROM dsched.run WHERE job_name = 'stopped'}, 'lost', 40), 'stopped: its successor records it as lost');
sigcont_instance($old);
settled('stopped');
is(scalar(append_log_lines(job => 'stopped')), 0, 'stopped: nobody begins it at all');

# ---- runs are handed over alive

my ($maker, $second) = @fleet;
my $gate = { in => "SELECT pg_advisory_lock(1), 'closed';\n", out => '' };

$second->stop('fast');
ok(wait_owners($maker, ['node1']), 'handed over: one instance owns all');
$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $maker->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
$gate->{psql}->pump until $gate->{out} =~ /closed/;
foreach my $mode (sort keys %modes)
{
	as_worker($maker, "SELECT count(dsched.schedule_once('over$mode' || i, clock_timestamp(),
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared(1)', delivery => '$modes{$mode}', run_on => 'disk=ssd')) FROM generate_series(1, 6) i");
}
ok(wait_for(sub { (my @begun = grep { $_->{job} =~ /^over/ } append_log_lines(phase => 'begin')) >= 12 }), 'handed over: twelve runs have begun');
start_instance($second);
ok(wait_for(sub { grep { m{/cmd/s[0-9a-f]{16}/} } keys %{ $etcd->keys('/dsched/test/db/postgres/') } }), 'handed over: they are asked for, by the place');
$gate->{psql}->kill_kill;
ok(wait_for(sub {
	my %done = map { $_ => 1 } map { split /\n/, $_->safe_psql('postgres', "SELECT job_name FROM dsched.run WHERE job_name ~ '^over' AND status = 'succeeded'") } @fleet;
	return keys %done == 12;
}), 'handed over: all have succeeded');
is_deeply([ grep { effects_of($_) != 1 } map { ("overmost$_", "overonce$_") } 1 .. 6 ], [], '[strict-in-a-place] handed over: each had its effect once');
is(scalar(my @begun = grep { $_->{job} =~ /^over/ } append_log_lines(phase => 'begin')), 12, 'handed over: none was begun twice');
ok(wait_for(sub { !grep { m{/(cmd|outcome)/} } keys %{ $etcd->keys('/dsched/test/db/postgres/') } }), 'handed over: nothing is left of the questions');
no_key_is_left('handed over');
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
