# An owner that is killed at the worst moments of its reports to etcd and comes back before its lease has ended; and a claim that arrives when its
# sender has another session.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\ndsched.lease_ttl = '30s'\nwal_writer_delay = '10s'\n") } qw(node1 node2);
my ($first, $second) = @fleet;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share two partitions');
as_worker($first, q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()') FROM generate_series(1, 12) i});
ok(wait_past('tick', 12, \@fleet, timestamp()), 'jobs run');
my $from  = timestamp();
my %owner = ownership($first);
my ($partition) = grep { $owner{$_} eq 'node1' } keys %owner;
my $state = sprintf('/dsched/test/db/postgres/state/any/%03d', $partition);
my @jobs  = map { "tick$_" } 1 .. 12;
my $mine  = join(',', map { "'$_'" } split /,/, $first->safe_psql('postgres', q{SELECT string_agg(job_name, ',') FROM dsched.jobs WHERE owner_node = 'node1'}));

sub judge
{
	my ($tag, $since) = @_;
	my $to = timestamp();

	ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), "$tag jobs run on");
	every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${since}Z", to => "${to}Z", name => "$tag each slot has one effect");
	return;
}

# ---- committed, and never reported ----

my $rule   = $gate{node1}->rule(hold => 'request', path => 'txn', text => "request_put.*$state");
my $silent = timestamp();
ok(wait_until($first, "SELECT count(*) FROM dsched_test.effects WHERE slot > '$silent' AND job IN ($mine)", sub { $_[0] > 8 }), 'runs are committed that etcd does not hear of');
kill9_everything($first);
$gate{node1}->remove;
start_instance($first);
ok(wait_fleet(\@fleet), 'it is back before its lease has ended');
judge('[killed-after-commit]', $silent);

# ---- reported at the moment at which it is killed; its commits need not wait for the disk ----

$_->safe_psql('postgres', 'ALTER ROLE worker SET synchronous_commit = off') foreach @fleet;
kill('TERM', pids($first, 'dsched executor')) if pids($first, 'dsched executor');
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 2)), 'jobs run without waiting for the disk');
# Nobody else writes its log.
kill('STOP', pids($first, 'walwriter'));
my $unflushed = timestamp();
ok(wait_until($first, "SELECT count(*) FROM dsched_test.effects WHERE slot > '$unflushed' AND job IN ($mine)", sub { $_[0] > 8 }), 'so do some more');
$rule = $gate{node1}->rule(hold => 'request', path => 'txn', text => "request_put.*$state", times => 1);
my $held = $gate{node1}->wait_held($rule);
kill9_everything($first);
$gate{node1}->release($held);
ok($gate{node1}->answer($held), 'the report is applied, its sender is dead');
start_instance($first);
ok(wait_fleet(\@fleet), 'it is back');
judge('[commit-not-flushed]', $unflushed);

# ---- a claim that is applied in the sender's next session ----

$gate{node2}->rule(hold => 'request', path => 'txn', text => 'request_put.*/owner/any/');
my $killed = time();
kill9_instance($first);
my ($claim) = grep { defined } $gate{node2}->wait_held;
ok($claim, 'the partition of an instance that is gone is claimed');
my $node_key = '/dsched/test/node/node2';
my $session  = $etcd->get($node_key);
# The one that it owned has its key still, as the lease goes on.
my ($unowned) = $claim->{text} =~ m{(/dsched/test/db/postgres/owner/any/\d+)};
kill('KILL', pids($second, 'walwriter'));
ok(wait_for(sub { my $now = $etcd->get($node_key); $now && $now->{create_revision} != $session->{create_revision} }), 'who claims it crashes, and has another session');
is($etcd->get($node_key)->{lease}, $session->{lease}, 'under the same lease');
is($etcd->get($unowned), undef, 'the partition has no owner');
$gate{node2}->release($claim);
my $answer = $gate{node2}->answer($claim);
like(join(' ', map { $_->{response_txn}{succeeded} ? 'applied' : 'refused' } @{ $answer->{responses} }), qr/^refused( refused)*$/, '[claim-of-former-session] the claim, applied now, is refused');
is($etcd->get($unowned), undef, '[claim-of-former-session] and makes no owner');
$gate{node2}->remove;
$gate{node2}->release;
ok(wait_owners($second, ['node2']), 'it owns all in its new session');
ok(wait_past('tick', 12, [$second], timestamp()), 'and runs the jobs');
start_instance($first);
ok(wait_fleet(\@fleet), 'both are there');
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'jobs run');
account_ok(\@fleet, holes => 1, may_repeat => [ map { { node => $_, since => $killed - 1, until => $killed + 5 } } qw(node1 node2) ]);

done_testing();
