# An instance claims all partitions, as it is alone, and another one joins before etcd has carried that out: what it has got by it is shared all the same.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use Test::More;

my $etcd = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my %join  = map { ($_ => $gate{$_}->rule(hold => 'request', path => 'txn', text => "request_put.*/member/$_")) } qw(node1 node2);
my %claim = map { ($_ => $gate{$_}->rule(hold => 'request', path => 'txn', text => 'request_put.*/owner/any/')) } qw(node1 node2);
my $conf  = "dsched.partitions = 4\ndsched.lease_ttl = 15s\n";

# The second is about to become a member, the first is one and claims; then both requests arrive, one right after the other.
my $second = new_instance('node2', etcd => $gate{node2}, conf => $conf);
create_extension($second);
my ($joining) = $gate{node2}->wait_held($join{node2});
my $first = new_instance('node1', etcd => $gate{node1}, conf => $conf);
create_extension($first);
my @fleet = ($first, $second);
$gate{node1}->remove($join{node1});
my ($claiming) = $gate{node1}->wait_held($claim{node1});
$gate{node2}->release($joining);
ok(wait_for(sub { grep { m{/member/node2$} } $etcd->keys('/dsched/test/db/') }), 'the second is a member');
my $looks = 0;
wait_for(sub { return ++$looks > 4 });    # the first hears of that, long before it gives up the claim
$gate{node1}->release($claiming);
# of the four it may have given two away again by then
ok(wait_for(sub { 2 <= grep { m{/owner/any/} } $etcd->keys('/dsched/test/db/') }), 'the claim of the first arrives');
$gate{$_}->remove($claim{$_}) foreach qw(node1 node2);
$gate{node2}->remove($join{node2});
ok(wait_fleet(\@fleet), 'both share the partitions');

done_testing();
