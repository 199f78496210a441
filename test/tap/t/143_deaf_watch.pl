# A watch on the definitions that has fallen silent without an error, as when a firewall has forgotten the connection: a living owner finds out
# and reads anew; and whoever takes a partition over starts nothing before it knows the definitions that the owner before knew.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\n") } qw(node1 node2);
my ($first, $second) = @fleet;

create_extension(@fleet);
$_->safe_psql('postgres', q{
CREATE TABLE versions (job text, version int, slot text, at timestamptz DEFAULT clock_timestamp()); GRANT ALL ON versions TO worker;
CREATE FUNCTION ran(version int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO versions SELECT job, version, slot FROM dsched_test.this_run(); SELECT dsched_test.effect() $$}) foreach @fleet;
ok(wait_fleet(\@fleet), 'two instances share two partitions');
as_worker($first, q{SELECT dsched.schedule('job' || i, '* * * * * *', 'SELECT ran(1)') FROM generate_series(1, 12) i});
ok(wait_past('job', 12, \@fleet, timestamp()), 'jobs run');
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.jobs WHERE published AND owner_node IS NOT NULL', 12), 'both know them all');
my %of = map { my $node = $_; ($node->name => [ split /,/, $first->safe_psql('postgres', "SELECT string_agg(job_name, ',') FROM dsched.jobs WHERE owner_node = '" . $node->name . "'") ]) } @fleet;

# ---- the owner is alive ----

my $job = $of{node2}[0];
$gate{node2}->rule(hold => 'answer', path => 'watch', text => '/job/', streams => 1, times => 0);
is(scalar $gate{node2}->held, 1, "the watch of the owner of $job is silent");
as_worker($first, "SELECT dsched.alter_job('$job', command => 'SELECT ran(2)')");
my $altered = time();
ok(wait_until($second, "SELECT count(*) > 0 FROM versions WHERE job = '$job' AND version = 2", 't', 30), '[watch-deaf] it runs the new version nevertheless');
note(sprintf('after %.1f s', time() - $altered));
$gate{node2}->remove;
$gate{node2}->release;

# ---- the owner is lost, and its heir has not heard of its last changes ----

my ($changed, $dropped) = @{ $of{node1} };
$gate{node2}->rule(hold => 'answer', path => 'watch', text => '/job/', streams => 1);
$gate{node2}->rule(hold => 'request', path => 'range', text => '/job/');
as_worker($first, "SELECT dsched.alter_job('$changed', command => 'SELECT ran(2)'); SELECT dsched.unschedule('$dropped')");
ok(wait_until($first, "SELECT count(*) = 0 AND bool_and(published) IS NOT FALSE FROM dsched.jobs WHERE job_name = '$dropped'", 't'), 'the owner has dropped a job');
ok(wait_until($first, "SELECT count(*) > 0 FROM versions WHERE job = '$changed' AND version = 2", 't'), 'and runs another as it was changed');
ok(wait_for(sub { !grep { m{/$dropped$} } $etcd->keys('/dsched/test/db/postgres/job/') }), 'both is in etcd');
my $killed = time();
kill9_instance($first);
ok(wait_owners($second, ['node2']), 'the other instance owns all');
ok(wait_for(sub { time() > $killed + 5 }), 'for some slots');
my $list = join(',', map { "'$_'" } @{ $of{node1} });
is($second->safe_psql('postgres', "SELECT count(*) FROM versions WHERE job IN ($list)"), 0, '[take-over-behind] it runs nothing of the partition while it is behind');
my $others = join(',', map { "'$_'" } @{ $of{node2} });
cmp_ok($second->safe_psql('postgres', "SELECT count(*) FROM versions WHERE job IN ($others) AND at > to_timestamp($killed + 1)"), '>', 0, 'the jobs of its own run on');
$gate{node2}->remove;
$gate{node2}->release;
ok(wait_past('job', 11, [$second], timestamp(), 60), 'when it is not, all run');
is($second->safe_psql('postgres', "SELECT string_agg(DISTINCT version::text, ' ') FROM versions WHERE job = '$changed'"), '2', '[take-over-behind] the changed one as it was changed');
is($second->safe_psql('postgres', "SELECT count(*) FROM versions WHERE job = '$dropped'"), 0, '[take-over-behind] the dropped one not at all');
start_instance($first);
ok(wait_fleet(\@fleet), 'it is back');
ok(wait_past('job', 11, \@fleet, timestamp(time() + 1)), 'jobs run');
account_ok(\@fleet, may_repeat => [ { node => 'node1', since => $killed - 1, until => $killed + 0.5 } ]);

done_testing();
