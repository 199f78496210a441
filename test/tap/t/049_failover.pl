# Taking over without waiting for a lease to end: after a clean stop, after kill -9 of a postmaster, and, on the same instance, after
# the crash of a process. The lease is so long that a take-over which needed its end would exceed each wait. And, with a lease of
# a second, after the loss of a whole instance. In between no slot is lost or doubled, and no job runs its slots out of order.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd, conf => "dsched.lease_ttl = '60s'");
my @jobs  = map { "j$_" } 1 .. 24;
my @may_repeat;
my $reported = 1.5;    # dsched.checkpoint_interval and the report's way to etcd, on a busy machine

# "partition=owner@epoch ..." of one owner.
sub owned_by
{
	my ($node) = @_;
	my $name = $node->name;

	return join(' ', grep { /=\Q$name\E@/ } split(/ /, ownership($node)));
}

sub runs_everywhere
{
	my ($nodes, $what) = @_;

	ok(wait_past('.', 24, $nodes, timestamp(), 30), "all jobs run $what");
}

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
as_worker($fleet[0], q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()', overlap => 'queue_all'))
	FROM generate_series(1, 24) i});
runs_everywhere(\@fleet, 'on three instances');
my $from = timestamp();

# ---- a clean stop ----

my $since = time();
$fleet[0]->stop('fast');
ok(wait_owners($fleet[1], [ 'node2', 'node3' ], 30), 'after a clean stop the others own all partitions, before the lease can have ended');
note(sprintf 'after %.2f s', time() - $since);
runs_everywhere([ @fleet[ 1, 2 ] ], 'on two instances');
start_instance($fleet[0]);
ok(wait_fleet(\@fleet), 'it is back and has its share');

# ---- kill -9 of the postmaster ----

$since = time();
kill9_instance($fleet[1]);
ok(wait_owners($fleet[0], [ 'node1', 'node3' ], 30), 'after kill -9 of a postmaster the others own all, before the lease can have ended');
note(sprintf 'after %.2f s', time() - $since);
push @may_repeat, { node => 'node2', since => $since - $reported, until => time() };
runs_everywhere([ @fleet[ 0, 2 ] ], 'on two instances');
start_instance($fleet[1]);
ok(wait_fleet(\@fleet), 'it is back and has its share');
runs_everywhere(\@fleet, 'on three instances');

# ---- the crash of a process: PostgreSQL restarts itself ----

my $session = sub { ($etcd->get('/dsched/test/node/node3') // { create_revision => 0 })->{create_revision} };
my $lease   = sub { ($etcd->get('/dsched/test/node/node3') // { lease => 0 })->{lease} };
my ($before, $old_session, $old_lease) = (owned_by($fleet[2]), $session->(), $lease->());
my $mine = join(',', map { "'$_'" } split /\n/,
	$fleet[2]->safe_psql('postgres', q{SELECT job_name FROM dsched.jobs WHERE owner_node = 'node3'}));

$since = time();
my ($victim) = pids($fleet[2], 'walwriter');
kill('KILL', $victim);
ok(wait_for(sub { my $now = $session->(); $now && $now != $old_session }, 60), '[restarted-under-its-lease] after the crash of a process there is another session');
is($lease->(), $old_lease, '[restarted-under-its-lease] under the lease of the one before');
my $now = timestamp();
ok(wait_until($fleet[2], "SELECT count(DISTINCT job) = (SELECT count(*) FROM dsched.jobs WHERE job_name IN ($mine))
	FROM dsched_test.effects WHERE slot > '$now' AND job IN ($mine)", 't', 30), 'its jobs run on, on the same instance');
note(sprintf 'after %.2f s', time() - $since);
is(owned_by($fleet[2]), $before, '[restarted-under-its-lease] it owns what it did, under the same epochs');
is($fleet[0]->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job IN ($mine) AND at > to_timestamp($since)"), '0',
	'another instance has not run them meanwhile');
ok(wait_fleet(\@fleet), 'nothing has moved');

# A database that is gone when the server is back is not kept: its partitions are for the others.
$fleet[2]->safe_psql('postgres', 'CREATE DATABASE two');
$fleet[2]->safe_psql('two', 'CREATE EXTENSION dsched');
ok(wait_until($fleet[2], q{SELECT count(*) > 0 FROM dsched.partitions WHERE owner_node = 'node3'}, 't', 30), 'another database takes part');
ok(wait_for(sub { scalar grep { m{/db/two/owner/} } $etcd->keys('/dsched/test/db/two/') }, 30), 'and owns its partitions');

# The server is killed at once after the drop, so that nobody is left to give anything up.
$fleet[2]->psql('postgres', 'DROP DATABASE two WITH (FORCE)');
kill9_everything($fleet[2]);
push @may_repeat, { node => 'node3', since => $since - $reported, until => time() };
start_instance($fleet[2]);
ok(wait_for(sub { !grep { m{/db/two/(owner|member)/} } $etcd->keys('/dsched/test/db/two/') }, 30),
	'the keys of a database that is no more are given up, long before the end of the lease');
ok(wait_fleet(\@fleet), 'all else is shared');
runs_everywhere(\@fleet, 'on three instances');

# ---- everything at once ----

foreach my $node (@fleet)
{
	$node->append_conf('postgresql.conf', "dsched.lease_ttl = '1s'\n");
	$node->restart;
}
ok(wait_fleet(\@fleet), 'with a lease of a second');
runs_everywhere(\@fleet, 'on three instances');
$since = time();
kill9_everything($fleet[0]);
ok(wait_owners($fleet[1], [ 'node2', 'node3' ], 30), 'the others own all partitions of an instance that is gone');
note(sprintf 'after %.2f s', time() - $since);
push @may_repeat, { node => 'node1', since => $since - $reported, until => time() };
runs_everywhere([ @fleet[ 1, 2 ] ], 'on two instances');
start_instance($fleet[0]);
ok(wait_fleet(\@fleet), 'it is back and has its share');
my $to = timestamp();
ok(wait_past('.', 24, \@fleet, timestamp(time() + 1)), 'all jobs run to the end');

# A slot that may have two effects may be second to a later one; all others are in order on each instance, by the time of their effects.
my $disorder = 0;
foreach my $node (@fleet)
{
	my $windows = join(' OR ', map { "at BETWEEN to_timestamp($_->{since}) AND to_timestamp($_->{until} + 30)" } @may_repeat);

	$disorder += $node->safe_psql('postgres', "SELECT count(*) FROM (SELECT at, slot < lag(slot) OVER (PARTITION BY job ORDER BY at) AS back
		FROM dsched_test.effects) e WHERE back AND NOT ($windows)");
}
is($disorder, 0, '[owner-killed] no job ran its slots out of order');
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
