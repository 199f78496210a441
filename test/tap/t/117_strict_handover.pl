# Runs of the strict delivery modes that are handed over alive: at_most_once is never begun again, exactly_once has its effect once, whether
# the instance that makes the run ends it in peace, is lost before the decision, or after it.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;

my $conf = "dsched.drain_timeout = '300ms'\ndsched.max_executors = 14\ndsched.max_executors_per_role = 14\n";
my $etcd = start_etcd();
my ($maker) = my @fleet = (new_instance('node1', etcd => $etcd, conf => $conf));
my %modes = (most => 'at_most_once', once => 'exactly_once');

create_extension($maker);

sub close_gate
{
	my $gate = { in => "SELECT pg_advisory_lock(1), 'closed';\n", out => '' };

	$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $maker->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
	$gate->{psql}->pump until $gate->{out} =~ /closed/;
	return $gate;
}

sub begun
{
	my ($pattern, %only) = @_;

	return grep { $_->{job} =~ /$pattern/ } append_log_lines(phase => 'begin', %only);
}

sub keys_left
{
	my ($pattern) = @_;

	return grep { m{/($pattern)/} } $etcd->keys('/dsched/test/db/postgres/');
}

my $second = new_instance('node2', etcd => $etcd, conf => $conf);
create_extension($second);
push @fleet, $second;
ok(wait_fleet(\@fleet), 'two instances');

sub hand_over
{
	my ($name) = @_;

	$second->stop('fast') if $second->{_pid};
	ok(wait_owners($maker, ['node1']), "$name: one instance owns all");
	my $gate = close_gate();
	foreach my $mode (sort keys %modes)
	{
		as_worker($maker, "SELECT count(dsched.schedule_once('$name$mode' || i, clock_timestamp(),
			'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared(1)', delivery => '$modes{$mode}')) FROM generate_series(1, 6) i");
	}
	ok(wait_for(sub { begun("^$name") >= 12 }), "$name: twelve runs have begun");
	start_instance($second);
	ok(wait_fleet(\@fleet), "$name: the partitions are shared");
	ok(wait_for(sub { keys_left('cmd') > 0 }), "$name: runs were handed over alive");
	my %theirs = map { $_ => 1 } split /\n/, $maker->safe_psql('postgres',
		"SELECT job_name FROM dsched.jobs WHERE owner_node = 'node2' AND job_name ~ '^$name'");
	note("$name: handed over: " . join ' ', sort keys %theirs);
	return ($gate, \%theirs);
}

sub outcome_of
{
	my ($job) = @_;

	return join ',', sort map { split /\n/, $_->safe_psql('postgres', "SELECT DISTINCT status FROM dsched.run WHERE job_name = '$job'") } @fleet;
}

sub effects_of
{
	my ($job) = @_;

	return scalar(my @rows = effects($job, \@fleet));
}

# ---- in peace
my ($gate, $theirs) = hand_over('peace');
$gate->{psql}->kill_kill;
ok(wait_for(sub { !grep { outcome_of($_) ne 'succeeded' } map { ("peacemost$_", "peaceonce$_") } 1 .. 6 }), 'peace: all have succeeded');
is(scalar(begun('^peace')), 12, 'peace: none was begun twice');
is_deeply([ grep { effects_of($_) != 1 } map { ("peacemost$_", "peaceonce$_") } 1 .. 6 ], [], 'peace: each had its effect once');
ok(wait_for(sub { !keys_left('cmd|outcome') }), 'peace: nothing is left of the questions') or diag(join ' ', keys_left('cmd|outcome'));

# ---- the instance is lost before any decision
($gate, $theirs) = hand_over('before');
kill9_everything($maker);
ok(wait_for(sub {
	my %done = map { $_ => 1 } split /\n/, psql_try($second, "SELECT job_name FROM dsched.run WHERE job_name ~ '^before' AND (status = 'succeeded' OR job_name ~ 'most' AND status = 'lost')") // '';
	return keys %done == 12;
}), 'before: exactly_once is made again, at_most_once is lost');
eval { $gate->{psql}->kill_kill };
start_instance($maker);
ok(wait_fleet(\@fleet), 'before: both are back');
is_deeply([ grep { my $job = $_; (scalar grep { $_->{job} eq $job } begun('^before')) != 1 } map { "beforemost$_" } 1 .. 6 ], [], '[strict-handed-over] before: at_most_once was not begun again');
is_deeply([ grep { effects_of("beforeonce$_") != 1 } 1 .. 6 ], [], 'before: exactly_once had its effect once');
is_deeply([ grep { effects_of("beforemost$_") != 0 } 1 .. 6 ], [], 'before: at_most_once none');
ok(wait_until($maker, 'SELECT count(*) FROM pg_prepared_xacts', 0), 'before: nothing is left prepared');

# ---- all of it is lost right when they decide: whatever had been decided is committed, by the instance when it is back
($gate, $theirs) = hand_over('amid');
$gate->{psql}->kill_kill;
kill9_everything($maker);
ok(wait_for(sub {
	my %done = map { $_ => 1 } split /\n/, psql_try($second, "SELECT job_name FROM dsched.jobs WHERE job_name ~ '^amid'") // 'x';
	return !%done;
}), 'amid: the owner is done with all of them');
start_instance($maker);
ok(wait_fleet(\@fleet), 'amid: both are back');
ok(wait_until($maker, 'SELECT count(*) FROM pg_prepared_xacts', 0), 'amid: nothing is left prepared');
is_deeply([ grep { effects_of("amidonce$_") != 1 } 1 .. 6 ], [], '[strict-handed-over] amid: exactly_once had its effect once');
is_deeply([ grep { effects_of("amidmost$_") > 1 } 1 .. 6 ], [], 'amid: at_most_once once at most');
is_deeply([ grep { my $job = $_; (scalar grep { $_->{job} eq $job } begun('^amid')) != 1 } map { "amidmost$_" } 1 .. 6 ], [], 'amid: and was not begun again');
ok(wait_for(sub { !keys_left('cmd|outcome') }), 'amid: nothing is left of the questions') or diag(join ' ', keys_left('cmd|outcome'));
is($_->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, $_->name . ' has nothing prepared') foreach @fleet;

done_testing();
