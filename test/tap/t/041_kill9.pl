# kill -9 of an owner: of its postmaster alone, and of all its processes at once. The others take over, it comes back, no slot is lost.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd   = start_etcd();
my @fleet  = fleet(3, etcd => $etcd, conf => "dsched.lease_ttl = '8s'");
my @jobs   = map { "j$_" } 1 .. 24;
my $reported = 0.25 + 1.25;    # dsched.checkpoint_interval and the report's way to etcd, on a busy machine

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
# A run that could not begin before its slot was almost over may still be running when the next comes due, which is passed over by default.
as_worker($fleet[0],
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', overlap => 'queue_all'))
	FROM generate_series(1, 24) i});
ok(wait_past('.', 24, \@fleet, timestamp()), 'the jobs run');

my $from = timestamp();
my @may_repeat;

# The coordinator outlives the postmaster for as long as it takes to end what could commit, and then gives its lease back.
my $killed = time();
kill9_instance($fleet[0]);
my $took = wait_owners($fleet[1], [ 'node2', 'node3' ]);
ok($took, 'the others own all partitions of an instance whose postmaster was killed');
note(sprintf 'owned after %.2f s, the lease lives for 8 s', time() - $killed);
cmp_ok(time() - $killed, '<', 6, '[postmaster-killed] without waiting for the end of its lease');
push @may_repeat, { node => 'node1', since => $killed - $reported, until => time() };
ok(wait_past('.', 24, [ @fleet[ 1, 2 ] ], timestamp()), 'all jobs run on two instances');
note(sprintf 'all jobs ran again after %.2f s', time() - $killed);

start_instance($fleet[0]);
ok(wait_fleet(\@fleet), 'it is back and has its share');
ok(wait_past('.', 24, \@fleet, timestamp()), 'all jobs run on three instances');

# Nobody is left to say goodbye.
$killed = time();
kill9_everything($fleet[2]);
ok(wait_owners($fleet[0], [ 'node1', 'node2' ]), '[owner-killed] the others own all partitions of an instance that is gone');
note(sprintf 'owned after %.2f s, the lease lives for 8 s', time() - $killed);
cmp_ok(time() - $killed, '>', 3, '[owner-killed] not before its lease can have ended');
push @may_repeat, { node => 'node3', since => $killed - $reported };
ok(wait_past('.', 24, [ @fleet[ 0, 1 ] ], timestamp()), 'all jobs run on two instances');

start_instance($fleet[2]);
ok(wait_fleet(\@fleet), 'it is back and has its share');
my $to = timestamp();
ok(wait_past('.', 24, \@fleet, timestamp(time() + 1)), 'all jobs run on three instances');

every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z", may_repeat => \@may_repeat);
# An attempt that died with its instance is made again; nothing is begun a third time.
attempts_at_most($_, 2) foreach @jobs[ 0 .. 3 ];
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
