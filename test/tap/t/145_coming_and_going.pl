# Members come and go faster than partitions can follow: two instances stay, a third starts and stops, others appear in etcd and vanish before they have
# claimed anything, as instances that crash while they start.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd, conf => "dsched.partitions = 16\n");
my ($first, $second, $third) = @fleet;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
as_worker($first, q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()') FROM generate_series(1, 40) i});
ok(wait_past('tick', 40, \@fleet, timestamp()), 'jobs run');
my $from = timestamp();

# ---- ten within five seconds ----

my %before = ownership($first);
my $began  = time();
my $n      = 0;
foreach my $round (1 .. 5)
{
	my $grant = $etcd->post('/v3/lease/grant', { TTL => 30 });
	my $name  = "ghost$round";
	my $key   = '/dsched/test/node/' . $name;
	my $info  = $etcd->get_json('/dsched/test/node/node1');

	$info->{node} = $name;
	$etcd->ctl('put', $key, JSON::PP->new->canonical->encode($info), '--lease=' . sprintf('%x', $grant->{ID}));
	$etcd->ctl('put', "/dsched/test/db/postgres/member/$name", qq({"format":1,"node":"$name","session":1}), '--lease=' . sprintf('%x', $grant->{ID}));
	ok(wait_until($second, "SELECT count(*) FROM dsched.nodes WHERE node = '$name'", 1, 5), "$name is there");
	$etcd->ctl('lease', 'revoke', sprintf('%x', $grant->{ID}));
	ok(wait_until($second, "SELECT count(*) FROM dsched.nodes WHERE node = '$name'", 0, 5), 'and gone');
	$n += 2;
}
note(sprintf('%d in %.1f s', $n, time() - $began));
ok(wait_fleet(\@fleet), '[joins-and-leaves] the three share all partitions');
ok(wait_past('tick', 40, \@fleet, timestamp()), '[joins-and-leaves] all jobs run');

# ---- one that is real ----

foreach my $round (1 .. 3)
{
	$third->stop('fast');
	start_instance($third);
}
ok(wait_fleet(\@fleet), '[joins-and-leaves] so they do when one has started and stopped again and again');
my %after = ownership($first);
my @stayed = grep { $before{$_} eq $after{$_} && $after{$_} ne 'node3' } keys %before;
note(scalar(@stayed) . ' partitions are where they were');
my $to = timestamp();
ok(wait_past('tick', 40, \@fleet, timestamp(time() + 1)), 'all jobs run');
every_slot_of_each_once([ map { "tick$_" } 1 .. 40 ], \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z",
	name => '[joins-and-leaves] every slot ran once');
account_ok(\@fleet);

done_testing();
