# Definitions that come late, from a server whose clock is off, or from one that ran alone: no slot from before the fleet knew of them is run. And a
# server of a fleet that is told by mistake that it is alone.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my $gate  = EtcdGate->start($etcd);
my @fleet = map { new_instance($_->[0], etcd => $_->[1], conf => "dsched.partitions = 2\n") } [ 'node1', $gate ], [ 'node2', $etcd ];
my ($first, $second) = @fleet;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share two partitions');

# The first slot of a job that has run on any of them.
sub first_slot
{
	my ($job, @nodes) = @_;
	my @slots = sort grep { $_ ne '' } map { psql_try($_, "SELECT min(slot) FROM dsched_test.effects WHERE job = '$job'") // '' } @nodes;

	return $slots[0] // '';
}

sub in_etcd
{
	my ($job) = @_;

	return scalar grep { m{/$job$} } $etcd->keys('/dsched/test/db/postgres/job/');
}

# ---- it waits for etcd ----

my $rule = $gate->rule(hold => 'request', path => 'txn', text => 'request_put.*/job/');
as_worker($first, q{SELECT dsched.schedule('late', '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'all')});
my $defined = time();
ok(wait_for(sub { time() > $defined + 5 }), 'a definition waits for some of its slots');
my $published = timestamp();
$gate->remove;
ok(wait_past('late', 1, \@fleet, timestamp()), 'it is published, and runs');
cmp_ok(first_slot('late', @fleet), 'gt', $published, '[published-late] no slot from before that has run');
# What was held has been sent again by then; now it arrives as well.
my @held = $gate->held;
my $sent = $etcd->get((grep { m{/late$} } $etcd->keys('/dsched/test/db/postgres/job/'))[0]);
$gate->release;
$gate->answer($_) foreach @held;
is($etcd->get($sent->{key})->{mod_revision}, $sent->{mod_revision}, '[published-late] what arrives after it was sent again changes nothing');

# ---- the clock of the server on which it is made is not to be trusted ----

$gate->rule(shift => 60);
ok(wait_for(sub { status_of($first, 'clock') =~ /^problem/ }), 'the clock of one is a minute behind');
as_worker($first, q{SELECT dsched.schedule('behind', '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'all')});
ok(wait_until($first, q{SELECT detail FROM dsched.status() WHERE component = 'definitions'}, qr/^1 change/), 'what is defined there waits');
my $since = time();
ok(wait_for(sub { time() > $since + 3 }), 'for some slots');
ok(!in_etcd('behind'), '[definer-clock-behind] it is not published with a time that is another one elsewhere');
$published = timestamp();
$gate->remove;
ok(wait_past('behind', 1, \@fleet, timestamp()), 'when the clock is right, it is');
cmp_ok(first_slot('behind', @fleet), 'gt', $published, '[definer-clock-behind] and runs from then on');

# ---- a server that ran alone joins ----

my $alone = new_instance('node3', conf => "dsched.partitions = 2\ndsched.etcd_endpoints = ''\ndsched.lease_ttl = '3s'\n");

create_extension($alone);
as_worker($alone, q{SELECT dsched.schedule('brought', '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'all')});
ok(wait_until($alone, q{SELECT count(*) > 2 FROM dsched_test.effects}), 'a server alone runs a job');
$alone->stop('fast');
$alone->append_conf('postgresql.conf', "dsched.etcd_endpoints = '" . $etcd->endpoints . "'\n");
my $joined = timestamp();
start_instance($alone);
# It may have to be told that its jobs belong there.
ok(wait_for(sub { status_of($alone, 'scheduler') =~ /adopt/ || status_of($alone, 'database') =~ /adopt/ || in_etcd('brought') }), 'it joins a fleet');
$alone->safe_psql('postgres', 'SELECT dsched.adopt()') unless in_etcd('brought');
ok(wait_until($first, q{SELECT string_agg(node, ',' ORDER BY node) FROM dsched.nodes}, 'node1,node2,node3'), 'three instances');
ok(wait_past('brought', 1, [ @fleet, $alone ], timestamp()), 'its job runs');
my @slots = map { split /\n/, psql_try($_, q{SELECT slot FROM dsched_test.effects WHERE job = 'brought'}) // '' } @fleet, $alone;
my %count;
$count{$_}++ foreach @slots;
is_deeply([ grep { $count{$_} > 1 } keys %count ], [], '[joins-with-jobs] no slot has run twice');
my $stop = $alone->safe_psql('postgres', "SELECT max(slot) FROM dsched_test.effects WHERE job = 'brought' AND slot < '$joined'");
cmp_ok(scalar(grep { $_ gt $stop && $_ lt $joined } @slots), '==', 0, '[joins-with-jobs] none from before it joined is made up');

# ---- the setting is gone ----

$alone->stop('fast');
$alone->append_conf('postgresql.conf', "dsched.etcd_endpoints = ''\n");
my $emptied = timestamp();
start_instance($alone);
ok(wait_for(sub { "$_" =~ /adopt/ && return 1 foreach status_of($alone, 'database'), status_of($alone, 'scheduler'); 0 }), '[endpoints-emptied] it says that its jobs are those of a cluster');
ok(wait_past('.', 3, \@fleet, timestamp(time() + 2)), 'the others run all jobs');
is($alone->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE slot > '$emptied'"), 0, '[endpoints-emptied] it has run nothing');
# (The judge of slots goes by when a job was defined. From when it was published on, all is as ever.)
every_slot_of_each_once([qw(late behind)], [ @fleet, $alone ], schedule => '* * * * * *', from => timestamp($since + 6) . 'Z', to => timestamp(time() - 3) . 'Z');

done_testing();
