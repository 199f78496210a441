# A clock that is off, and time zones that are not the same. What an instance judges its clock by is the time that etcd's answers give; here that is
# moved for one instance, which is the same to it as if its own were.
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
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\n") } qw(node1 node2);
my ($first, $second) = @fleet;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share two partitions');
as_worker($first, q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()') FROM generate_series(1, 12) i});
ok(wait_past('tick', 12, \@fleet, timestamp()), 'jobs run');

# ---- time zones ----

my $info = $etcd->get_json('/dsched/test/node/node1');
SKIP:
{
	skip 'this machine does not say which release its time zones have', 3 if ($info->{tzdata} // '') eq '';
	like(status_of($_, 'time zones'), qr/^ok\|release /, 'the time zones of ' . $_->name . ' are those of the other') foreach @fleet;
	$etcd->ctl('put', '/dsched/test/node/ghost', JSON::PP->new->canonical->encode({ %$info, node => 'ghost', tzdata => '1999x' }));
	ok(wait_for(sub { status_of($_, 'time zones') =~ /^problem\|.*"ghost" has 1999x/ }), '[tzdata-differs] ' . $_->name . ' says that another one has other time zones') foreach @fleet;
	$etcd->ctl('del', '/dsched/test/node/ghost');
	ok(wait_for(sub { status_of($first, 'time zones') =~ /^ok/ }), 'until it has not');
}

# ---- the clock of one is an hour ahead, for long ----

sub off
{
	my ($node, $shift, $tag) = @_;
	my ($other) = grep { $_ != $node } @fleet;

	$gate{ $node->name }->rule(shift => $shift, path => '^');
	ok(wait_for(sub { status_of($node, 'clock') =~ /^problem\|.*not to be trusted/ }), "$tag it says so");
	# What had begun may end.
	ok(wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE status = 'running'}, 0), "$tag what runs ends");
	return (time(), $other);
}

sub started_since
{
	my ($node, $since) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE started_at > to_timestamp($since)");
}

my ($since, $other) = off($first, -3600, '[clock-ahead-in-fleet]');
ok(wait_owners($second, ['node2'], 60), '[clock-ahead-in-fleet] it gives its partitions away when it stays so');
ok(wait_past('tick', 12, [$second], timestamp()), '[clock-ahead-in-fleet] all jobs run elsewhere');
is(started_since($first, $since), 0, '[clock-ahead-in-fleet] it has started nothing since');
$gate{node1}->remove;
ok(wait_for(sub { status_of($first, 'clock') =~ /^ok/ }), 'it is right again');
ok(wait_fleet(\@fleet), 'and has its share');

# ---- the clock of one is an hour behind, for a moment ----

($since, $other) = off($second, 3600, '[clock-behind-in-fleet]');
my $waited = time();
ok(wait_for(sub { time() > $waited + 3 }), 'for a moment');
is(started_since($second, $since), 0, '[clock-behind-in-fleet] it starts nothing');
$gate{node2}->remove;
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'then all jobs run');
account_ok(\@fleet);

done_testing();
