# Writes of an account that are held on their way to etcd and applied later: after a newer one of the same owner, and when the partition has
# another owner. Neither may change anything.

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\n") } qw(node1 node2);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share two partitions');
as_worker($fleet[0], q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()') FROM generate_series(1, 12) i});
ok(wait_past('tick', 12, \@fleet, timestamp()), 'jobs run');

my %owner = ownership($fleet[0]);
my ($partition) = grep { $owner{$_} eq 'node1' } keys %owner;
my $key = sprintf('/dsched/test/db/postgres/state/any/%03d', $partition);
my ($first, $second) = @fleet;

# The account in etcd as it is, with the revision at which it was written.
sub account
{
	my $kv = $etcd->get($key);

	return (JSON::PP->new->utf8->decode($kv->{value}), $kv->{mod_revision});
}

# Whether a held account was written by etcd in the end. Several partitions can be in one request, each in a transaction of its own.
sub was_applied
{
	my ($gate, $held) = @_;
	my $answer = $gate->answer($held) // return 'no answer';

	return join(' ', map { $_->{response_txn}{succeeded} ? 'applied' : 'refused' } @{ $answer->{responses} });
}

# ---- a write of the same owner that was overtaken by a newer one ----

my $rule = $gate{node1}->rule(hold => 'request', path => 'txn', text => "request_put.*$key", times => 1);
my $held = $gate{node1}->wait_held($rule);
my ($seq) = $held->{text} =~ /"seq":(\d+)/;

ok($seq, 'an account is held on its way');
ok(wait_for(sub { (account())[0]{seq} > $seq }), 'its sender gives up waiting, and writes a newer one');
my ($before) = account();
$gate{node1}->release($held);
is(was_applied($gate{node1}, $held), 'refused', '[account-reordered] the older one, applied now, is refused');
my ($after) = account();
cmp_ok($after->{seq}, '>=', $before->{seq}, '[account-reordered] no number of an account comes back');
cmp_ok($after->{watermark}, '>=', $before->{watermark}, '[account-reordered] the watermark does not go back');
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'jobs run on');

# ---- the answer to a write is lost ----

$rule = $gate{node1}->rule(lose => 'answer', path => 'txn', text => "request_put.*$key", times => 1);
ok(wait_for(sub { grep { ($_->{rule} // 0) == $rule } $gate{node1}->log }), 'the answer to an account is lost');
($before) = account();
ok(wait_for(sub { (account())[0]{seq} > $before->{seq} }), '[account-answer-lost] the owner finds out that it was applied, and writes on');
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), '[account-answer-lost] jobs run on');

# ---- a write of the owner before ----

$rule = $gate{node1}->rule(hold => 'request', path => 'txn', text => "request_put.*$key", times => 1);
$held = $gate{node1}->wait_held($rule);
# The claim of the next owner is held, too: from its take-over to its first account nothing but the comparison of the owner keeps the other out.
my $claim = $gate{node2}->rule(hold => 'request', path => 'txn', text => "request_put.*$key", times => 1);
my $killed = time();
kill9_instance($first);
my $claimed = $gate{node2}->wait_held($claim);
ok($claimed, 'another owner has read the account and is about to write its first');
my ($state, $revision) = account();
$gate{node1}->release($held);
is(was_applied($gate{node1}, $held), 'refused', '[account-of-former-owner] what the owner before had sent is refused');
is((account())[1], $revision, '[account-of-former-owner] the account is as it was');
$gate{node2}->release($claimed);
ok(wait_past('tick', 12, [$second], timestamp()), 'the other one runs the jobs');
start_instance($first);
ok(wait_fleet(\@fleet), 'it is back');
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'jobs run on');
account_ok(\@fleet, may_repeat => [ { node => 'node1', since => $killed - 4, until => $killed + 0.5 } ]);

done_testing();
