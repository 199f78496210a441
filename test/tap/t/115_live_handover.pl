# Runs that outlast dsched.drain_timeout are handed over alive: the partition moves, the run goes on where it is, the new owner counts
# it as running, hears how it ended, and does what follows: retries, a cancel, the next slot. The partition may come back meanwhile.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $conf = "dsched.drain_timeout = '500ms'\ndsched.max_executors = 12\ndsched.max_executors_per_role = 12\n";
my $etcd = start_etcd();
my @fleet = my ($node1) = (new_instance('node1', etcd => $etcd, conf => $conf));

create_extension($node1);

# A gate: a session that holds a lock, which the jobs wait for on that instance.
sub close_gate
{
	my ($node, $number) = @_;
	my $gate = { in => "SELECT pg_advisory_lock($number), 'closed';\n", out => '' };

	$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
	$gate->{psql}->pump until $gate->{out} =~ /closed/;
	return $gate;
}

sub gated
{
	my ($number, $more) = @_;

	return "SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared($number)" . ($more // '');
}

sub begun
{
	my ($pattern, %only) = @_;

	return grep { $_->{job} =~ /$pattern/ } append_log_lines(phase => 'begin', %only);
}

sub keys_left
{
	return grep { m{/(cmd|outcome)/} } $etcd->keys('/dsched/test/db/postgres/');
}

# Which of these jobs' partitions are the instance's
sub owned_by
{
	my ($node, $pattern) = @_;

	return split /\n/, $node->safe_psql('postgres',
		"SELECT job_name FROM dsched.jobs WHERE owner_node = '" . $node->name . "' AND job_name ~ '$pattern' ORDER BY job_name");
}

ok(wait_fleet([$node1]), 'one instance owns all partitions');
my $gate = close_gate($node1, 1);
as_worker($node1, "SELECT count(dsched.schedule('long' || i, '* * * * * *', '" . gated(1) . "')) FROM generate_series(1, 6) i");
as_worker($node1, "SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 8) i");
as_worker($node1, "SELECT count(dsched.schedule_once('fails' || i, clock_timestamp(), '" . gated(2, ', 1 / (random() * 0)::int')
	. "', max_attempts => 2, retry_delay => '0.5 s')) FROM generate_series(1, 2) i");
my $second_gate = close_gate($node1, 2);
ok(wait_for(sub { begun('long') >= 6 && begun('fails') >= 2 }), 'long runs have begun');
ok(wait_past('tick', 8, [$node1], timestamp()), 'and others run');

# ---- a second instance joins

my $node2 = new_instance('node2', etcd => $etcd, conf => $conf);
push @fleet, $node2;
create_extension($node2);
my $joined = time();
ok(wait_fleet(\@fleet), 'a second instance has its share although runs of it go on');
my @moved = owned_by($node2, 'long');
note("moved: @moved");
ok(@moved, 'partitions with long runs are among it') or BAIL_OUT('the hash of partitions has changed');
my $since = timestamp();
ok(wait_past('tick', 8, \@fleet, $since), 'all other jobs run');
ok(wait_until($node2, "SELECT count(DISTINCT job_name) FROM dsched.run WHERE status = 'skipped' AND reason = 'overlap' AND job_name ~ 'long' AND node = 'node2'",
	scalar @moved), 'the new owner skips the slots that come due: the job is running');
is(scalar(begun('long')), 6, '[handed-over-alive] no run was made a second time');
is($node1->safe_psql('postgres', "SELECT count(*) FROM dsched.runs WHERE status = 'running' AND job_name ~ 'long'"), 6, '[handed-over-alive] all of them go on');
my @commands = keys_left();
cmp_ok(scalar(@commands), '>=', scalar(@moved), 'the new owner has asked for their outcomes') or diag("@commands");

$gate->{psql}->kill_kill;
ok(wait_past('long', 6, \@fleet, timestamp()), 'they end, and the next slots run');
my %where = map { $_->{job} => $_->{node} } begun('long');
is_deeply([ grep { $where{$_} ne 'node2' } @moved ], [], 'those of the moved jobs on the new owner');
is($node1->safe_psql('postgres', "SELECT string_agg(DISTINCT status || attempt, ',') FROM dsched.run WHERE job_name ~ 'long' AND status <> 'skipped'"),
	'succeeded1', 'each succeeded where it was, at its first attempt');

# ---- one that fails is tried again by whoever owns it then

$second_gate->{psql}->kill_kill;
ok(wait_for(sub { begun('fails') >= 4 }), 'those that fail get their second attempt');
is_deeply([ sort map { "$_->{job} $_->{attempt}" } begun('fails') ], [ map { ("fails$_ 1", "fails$_ 2") } 1 .. 2 ], 'and no other');
ok(wait_for(sub { !keys_left() }), 'nothing of it is left in etcd') or diag(join ' ', keys_left());

# ---- a cancel reaches the instance that makes the run; a partition that comes back finds its run

sub move_to
{
	my ($node, $away) = @_;

	$away->stop('fast');
	ok(wait_owners($node, [ $node->name ]), $node->name . ' owns all');
	return;
}

move_to($node2, $node1);
$gate = close_gate($node2, 3);
as_worker($node2, "SELECT count(dsched.schedule('cancel' || i, '* * * * * *', '" . gated(3) . "')) FROM generate_series(1, 6) i");
as_worker($node2, "SELECT count(dsched.schedule('newest' || i, '*/4 * * * * *', '" . gated(3) . "', overlap => 'cancel_running')) FROM generate_series(1, 3) i");
ok(wait_for(sub { begun('cancel', node => 'node2') >= 6 }), 'long runs have begun on the second instance');
start_instance($node1);
ok(wait_fleet(\@fleet), 'the first has its share again');
@moved = owned_by($node1, 'cancel');
note("moved: @moved");
ok(@moved, 'with long runs among it');
my %was = map { $_->{job} => $_->{slot} } begun('cancel', node => 'node2');
as_worker($node2, "SELECT dsched.cancel(run_key) FROM dsched.runs WHERE job_name = '$moved[0]' AND scheduled_for = '$was{$moved[0]}Z'");
ok(wait_until($node2, "SELECT status FROM dsched.run WHERE job_name = '$moved[0]' AND scheduled_for = '$was{$moved[0]}Z'", 'cancelled'),
	'a cancel ends the run where it is made');
ok(wait_until($node1, "SELECT count(*) > 0 FROM dsched.run WHERE job_name = '$moved[0]' AND status = 'succeeded' AND scheduled_for > '$was{$moved[0]}Z'", 't'),
	'and the next slot runs on the owner');
my @newest = owned_by($node1, 'newest');
ok(wait_until($node1, "SELECT count(DISTINCT job_name) FROM dsched.run WHERE job_name ~ 'newest' AND status = 'succeeded'", scalar @newest),
	'a newer slot has ended the runs of those with cancel_running') if @newest;

# back to where they are made
my @again = @moved[1 .. $#moved];
note("come back: @again");
move_to($node2, $node1);
is_deeply([ map { $_->{job} } grep { $_->{attempt} > 1 } begun('cancel') ], [], 'runs whose partition has come back go on');
$gate->{psql}->kill_kill;
ok(wait_past('cancel', 6, [$node2], timestamp()), 'they end, and the next slots run');
is_deeply([ grep { $node2->safe_psql('postgres', "SELECT status || attempt FROM dsched.run WHERE job_name = '$_' AND scheduled_for = '$was{$_}Z'") ne 'succeeded1' } @again ],
	[], 'each at its first attempt');
ok(wait_for(sub { !keys_left() }), 'nothing of it is left in etcd') or diag(join ' ', keys_left());

start_instance($node1);
ok(wait_fleet(\@fleet), 'both are back');
effects_match_runs($_, \@fleet) foreach 'long1', $moved[0];
account_ok(\@fleet);

done_testing();
