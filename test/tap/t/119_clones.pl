# A copy of a data directory is started beside the original: the same system identifier, the same machine, the same dsched.node_name. The
# directory is another one, so the original may live, and does: the copy stays out and says why. When the original is lost the copy takes its
# place, goes on with its account, and then it is the original that stays out.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(time);

my $etcd     = start_etcd();
my $original = new_instance('node1', etcd => $etcd, allows_streaming => 1);

create_extension($original);
ok(wait_fleet([$original]), 'the original owns all partitions');
as_worker($original, q{SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, 4) i});
as_worker($original, q{SELECT dsched.schedule('each', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'each')});
ok(wait_past('tick|each', 5, [$original], timestamp()), 'jobs run');
$original->backup('base');

my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($original, 'base');
$clone->append_conf('postgresql.conf', "log_line_prefix = '%m [%p] %b %q%a '");
my $started = time();
start_instance($clone);
is($clone->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'),
	$original->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'), 'a copy has the system identifier of the original');
ok(wait_for(sub { status_of($clone, 'etcd') =~ /^problem\|.*"node1".*in use.*dsched\.node_name/s }), 'it finds the name in use, and says what to do')
	or diag(status_of($clone, 'etcd'));
my $copied = $clone->safe_psql('postgres', 'SELECT max(started_at) FROM dsched.run');
ok(wait_past('tick', 4, [$original], timestamp(time() + 2)), 'the original goes on');
is($clone->safe_psql('postgres', 'SELECT max(started_at) FROM dsched.run'), $copied, '[copy-started] the copy has run nothing');
is($clone->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE started_at > to_timestamp($started)"), 0,
	'nor before it knew, not even what runs on each instance');

my $killed = time();
kill9_everything($original);
ok(wait_until($clone, q{SELECT count(*) FROM dsched.partitions WHERE place = 'any' AND state = 'active'}, 64), 'the original is lost: the copy owns all partitions');
cmp_ok(time() - $killed, '>', 1.9, 'but not before its lease has ended');
ok(wait_past('tick|each', 5, [$clone], timestamp()), 'and runs the jobs');

$started = time();
start_instance($original);
ok(wait_for(sub { status_of($original, 'etcd') =~ /^problem\|.*"node1".*in use/s }), 'the original is back, and is the second now')
	or diag(status_of($original, 'etcd'));
ok(wait_past('tick|each', 5, [$clone], timestamp(time() + 1)), 'the copy goes on');
is($original->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE started_at > to_timestamp($started)"), 0, 'alone');
my $since = timestamp();

# What was reported before the end is not made again; the witness log knows of both.
my %begun;
$begun{"$_->{job} $_->{slot}"}++ foreach append_log_lines(phase => 'begin');
my @twice = grep { $begun{$_} > 1 } sort keys %begun;
my $limit = timestamp($killed - 1);
is_deeply([ grep { (split / /)[1] lt $limit } @twice ], [], 'nothing that the original had reported was run again');
is(scalar(grep { $_ > 2 } values %begun), 0, 'and nothing three times');
$clone->stop('fast');
ok(wait_until($original, q{SELECT count(*) FROM dsched.partitions WHERE place = 'any' AND state = 'active'}, 64), 'the copy is stopped: the original owns all');

done_testing();
