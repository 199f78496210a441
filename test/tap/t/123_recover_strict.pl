# The strict delivery modes over a recovery: whatever resume_from says, at_most_once begins nothing twice and exactly_once has no effect
# twice; and a prepared transaction, the decision about which is gone with etcd, is left to a person.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($fleet[0], qq{
	SELECT count(dsched.schedule('$_' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', misfire => 'all', delivery => '$_'))
	FROM generate_series(1, 4) i}) foreach qw(at_most_once exactly_once at_least_once);
ok(wait_past('.', 12, \@fleet, timestamp(time() + 4)), 'jobs of all modes run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 12), 'both have all definitions');
ok(wait_until(\@fleet, q{SELECT incarnation <> '' FROM dsched.identity}), 'and have noted whose they are');

# One run is decided and not committed when its instance and etcd are lost.
foreach my $node (@fleet)
{
	$node->safe_psql('postgres', q{ALTER SYSTEM SET dsched.test_stop_at = 'answered'});
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
}
my $old;
ok(wait_for(sub { ($old) = grep { my $node = $_; grep { DschedTest::_state($_) eq 'T' } pids($node, 'dsched executor') } @fleet }, 30), 'runs stop between decision and commit');
my ($other) = grep { $_ != $old } @fleet;
my $failed = time();
kill9_everything($old);
$etcd->wipe;
$other->safe_psql('postgres', q{ALTER SYSTEM RESET dsched.test_stop_at});
$other->safe_psql('postgres', 'SELECT pg_reload_conf()');
kill('CONT', grep { DschedTest::_state($_) eq 'T' } pids($other, 'dsched executor'));
$old->append_conf('postgresql.auto.conf', "dsched.test_stop_at = ''");
start_instance($old);
ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem\|.*recover_cluster/s }), $_->name . ' stands still') foreach @fleet;

my $since = timestamp(int($failed - 3)) . 'Z';
like(psql_try($other, "SELECT dsched.recover_cluster('$since')") // '', qr/begins anew/, 'the cluster is recovered from before the failure');
foreach my $node (@fleet)
{
	my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts');

	next if $left == 0 && $node != $old;
	cmp_ok($left, '>', 0, $node->name . ' has runs that were prepared');
	ok(wait_until($node, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^problem .*another cluster, or to one whose etcd was replaced/, 60),
		'status() names them');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), $left, 'nobody settles them');
	# a person who knows that they were decided
	$node->safe_psql('postgres', "COMMIT PREPARED '$_'") foreach split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
}
ok(wait_fleet(\@fleet, timeout => 90), 'both are back');
my $until = timestamp(time() + 1);
ok(wait_past('.', 12, \@fleet, $until, 90), 'jobs of all modes run again');

attempts_at_most("at_most_once$_", 1) foreach 1 .. 4;
foreach my $job (map { "exactly_once$_" } 1 .. 4)
{
	my %slots;

	$slots{ $_->{slot} }++ foreach effects($job, \@fleet);
	is_deeply([ grep { $slots{$_} > 1 } sort keys %slots ], [], "no slot of $job has two effects");
}
my @slots = expected_slots($old, schedule => '* * * * * *', from => $since, to => "${until}Z");
foreach my $job (map { "at_least_once$_" } 1 .. 4)
{
	my %slots;

	$slots{ $_->{slot} }++ foreach effects($job, \@fleet);
	is_deeply([ grep { !$slots{$_} } @slots ], [], "no slot of $job is lost from that moment on");
}

done_testing();
