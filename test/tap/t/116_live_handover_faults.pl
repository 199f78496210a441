# Whatever happens while a run that was handed over alive goes on: the instance that makes it is lost, stopped in order or suspended, its
# scheduler is restarted, the owner is lost and a third one takes over. Each run is made once, but where its instance died with it.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $conf = "dsched.drain_timeout = '300ms'\ndsched.max_executors = 12\ndsched.max_executors_per_role = 12\n";
my $etcd = start_etcd();
my ($maker) = my @fleet = (new_instance('node1', etcd => $etcd, conf => $conf));
my @may_repeat;

create_extension($maker);

sub close_gate
{
	my ($node) = @_;
	my $gate = { in => "SELECT pg_advisory_lock(1), 'closed';\n", out => '' };

	$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
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
	return grep { m{/(cmd|outcome)/} } $etcd->keys('/dsched/test/db/postgres/');
}

sub owned_by
{
	my ($see, $node, $pattern) = @_;

	return split /\n/, $see->safe_psql('postgres',
		"SELECT job_name FROM dsched.jobs WHERE owner_node = '" . $node->name . "' AND job_name ~ '$pattern' ORDER BY job_name");
}

# One-shots that wait for the gate on node1, where they begin as it is alone; then the others come and have their share.
sub hand_over
{
	my ($name, @others) = @_;

	$_->stop('fast') foreach grep { $_->{_pid} } @others;
	ok(wait_owners($maker, ['node1']), "$name: one instance owns all");
	my $gate = close_gate($maker);
	as_worker($maker, "SELECT count(dsched.schedule_once('$name' || i, clock_timestamp(),
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared(1)')) FROM generate_series(1, 8) i");
	ok(wait_for(sub { begun($name) >= 8 }), "$name: eight runs have begun");
	start_instance($_) foreach @others;
	ok(wait_fleet([ $maker, @others ]), "$name: the partitions are shared");
	ok(wait_for(sub { keys_left() > 0 }), "$name: runs were handed over alive");
	return $gate;
}

# How often each has begun. (Not by its number: one that began after the last account is made again under the same.)
sub attempts
{
	my ($name) = @_;
	my %begun;

	$begun{ $_->{job} }++ foreach begun($name);
	return map { $begun{"$name$_"} // 0 } 1 .. 8;
}

sub all_done
{
	my ($name, @nodes) = @_;

	ok(wait_for(sub {
		my %done;
		$done{$_}++ foreach map { split /\n/, psql_try($_, "SELECT job_name FROM dsched.run WHERE job_name ~ '^$name' AND status = 'succeeded'") // '' } @nodes;
		return keys %done == 8;
	}), "$name: all have ended well");
	ok(wait_for(sub { !keys_left() }), "$name: nothing is left in etcd") or diag(join ' ', keys_left());
	return;
}

my ($second, $third) = map { new_instance("node$_", etcd => $etcd, conf => $conf) } 2, 3;
create_extension($second, $third);
push @fleet, $second, $third;
ok(wait_fleet(\@fleet), 'three instances');

# ---- the owner is lost, and another takes over
my $gate = hand_over('owner', $second, $third);
my @of_second = owned_by($maker, $second, 'owner');
note("of the second: @of_second");
kill9_everything($second);
ok(wait_owners($maker, [ 'node1', 'node3' ]), 'owner: the other two own what it had');
is(join(' ', attempts('owner')), '1 1 1 1 1 1 1 1', '[handed-over-owner-lost] owner: no run was made again');
$gate->{psql}->kill_kill;
start_instance($second);
all_done('owner', @fleet);
is(join(' ', attempts('owner')), '1 1 1 1 1 1 1 1', '[handed-over-owner-lost] owner: nor later');

# ---- the scheduler of the instance that makes them is terminated: it ends its runs first, and says so
$gate = hand_over('scheduler', $second, $third);
my @theirs = map { owned_by($maker, $_, 'scheduler') } $second, $third;
my ($pid) = pids($maker, 'dsched scheduler');
kill 'TERM', $pid;
ok(wait_for(sub { my %second = map { $_->{job} => 1 } grep { $_->{attempt} == 2 } begun('scheduler'); return !grep { !$second{$_} } @theirs }),
	'scheduler: what it ended is made again');
$gate->{psql}->kill_kill;
all_done('scheduler', @fleet);
is($maker->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name IN (" . join(', ', map { "'$_'" } @theirs) . ") AND status = 'lost'"),
	scalar @theirs, 'scheduler: the first attempts are recorded as lost');

# ---- it is stopped in order
$gate = hand_over('stop', $second, $third);
$maker->stop('fast');
eval { $gate->{psql}->kill_kill };
start_instance($maker);
all_done('stop', @fleet);
# The gate ends with the server, too: who is through before it is told to end has ended well there.
my %well = map { $_ => 1 } split /\n/, $maker->safe_psql('postgres', "SELECT job_name FROM dsched.run WHERE job_name ~ '^stop' AND status = 'succeeded'");
my %begun;
$begun{ $_->{job} }++ foreach begun('stop');
is(join(' ', grep { !$well{$_} && $begun{$_} != 2 } map { "stop$_" } 1 .. 8), '', '[handed-over-maker-lost] stop: each was made again');

# ---- a process of it is killed: PostgreSQL restarts itself, under another session
$gate = hand_over('crash', $second, $third);
($pid) = pids($maker, 'checkpointer');
kill 'KILL', $pid;
# not before that: those that wait would commit in their last moment
all_done('crash', @fleet);
eval { $gate->{psql}->kill_kill };
is(join(' ', attempts('crash')), '2 2 2 2 2 2 2 2', '[handed-over-maker-lost] crash: each was made again');
ok(wait_fleet(\@fleet), 'crash: all are back');

# ---- it is lost
$gate = hand_over('lost', $second, $third);
kill9_everything($maker);
all_done('lost', $second, $third);
eval { $gate->{psql}->kill_kill };
start_instance($maker);
is(join(' ', attempts('lost')), '2 2 2 2 2 2 2 2', '[handed-over-maker-lost] lost: each was made again');

# ---- it is suspended for longer than its lease: what it had begun does not commit when it goes on
$gate = hand_over('suspended', $second, $third);
my $suspended = time();
sigstop_instance($maker);
all_done('suspended', $second, $third);
sigcont_instance($maker);
eval { $gate->{psql}->kill_kill };
ok(wait_fleet(\@fleet), 'suspended: it is back');
# Of a run that had begun since its account was written the others know that it was to be made: they make its first attempt again.
my @may_repeat = ({ node => 'node1', since => $suspended - 2, until => time() });
is($maker->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job ~ '^suspended' AND attempt = 1"), 0,
	'suspended: it has committed nothing of what it had begun');

# ---- the owner is suspended instead: a third takes over, the run ends, the owner that was sees nothing of it
$gate = hand_over('sleeper', $second, $third);
sigstop_instance($second);
ok(wait_owners($maker, [ 'node1', 'node3' ]), 'sleeper: the others own what it had');
$gate->{psql}->kill_kill;
ok(wait_for(sub { $maker->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name ~ '^sleeper' AND status = 'succeeded'") == 8 }),
	'sleeper: all end where they were');
sigcont_instance($second);
all_done('sleeper', @fleet);
is(join(' ', attempts('sleeper')), '1 1 1 1 1 1 1 1', 'sleeper: none was made again');

ok(wait_fleet(\@fleet), 'all are there');
foreach my $name (qw(owner scheduler stop crash lost suspended sleeper))
{
	my %effects;

	$effects{ $_->{job} }++ foreach map { my $job = $_; map { { job => $job } } effects($job, \@fleet) } map { "$name$_" } 1 .. 8;
	is_deeply([ grep { ($effects{"$name$_"} // 0) != 1 } 1 .. 8 ], [], "$name: each had its effect once");
}
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
