# What a newer version may write, found by an older one: members that it does not know are no matter anywhere; a format that it does not know
# costs what it is about, and no more. An account of a newer format is left to those who can read it.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);
my $db    = '/dsched/test/db/postgres';

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances');
as_worker($first, q{SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 12) i});
ok(wait_past('tick', 12, \@fleet, timestamp()), 'the jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 12), 'both have all definitions');
$_->stop('fast') foreach @fleet;

# Everything that stays gets members that nobody knows.
foreach my $key ($etcd->keys('/dsched/test/'))
{
	my $kv = $etcd->get($key);
	my $value = $kv->{value};

	next if $key =~ m{/jobrev/};
	# 0 means "this very version", and it is to be the same generation
	$value =~ s/"gen_rev":0/"gen_rev":$kv->{mod_revision}/;
	$value =~ s/^\{"format":1,/{"future":{"a":[1,{"b":null}]},"format":1,/ or die "$key: $value";
	$value =~ s/("pending":\[\{)/$1"z":[1],/;
	$etcd->ctl('put', $key, $value);
}
my ($pp) = map { m{/job/(\d+)/worker/tick1$} ? $1 : () } $etcd->keys("$db/job/");
my ($state, $newer);
my %there = map { m{/job/$pp/worker/(\w+)$} ? ($1 => 1) : () } $etcd->keys("$db/job/");
my $others = 12 - keys %there;
note('in that partition: ', join ' ', sort keys %there);

start_instance($first);
ok(wait_past('tick', 12, [$first], timestamp()), 'members that are not known: all jobs run');
like($etcd->get((grep { m{/tick2$} } $etcd->keys("$db/job/"))[0])->{value}, qr/"future"/, '[newer-formats] a definition has kept them');
as_worker($first, q{SELECT dsched.alter_job('tick2', priority => 5)});
ok(wait_until($first, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 12), 'it is changed here');
like($etcd->get((grep { m{/tick2$} } $etcd->keys("$db/job/"))[0])->{value}, qr/"future".*\}$/, 'and has them still');
$first->stop('fast');

# An account of a newer format
$state = $etcd->get("$db/state/any/$pp")->{value};
($newer = $state) =~ s/"format":1/"format":2/;
$etcd->ctl('put', "$db/state/any/$pp", $newer);
start_instance($first);
my $others_run = join '|', grep { !$there{$_} } map { "tick$_" } 1 .. 12;
ok(wait_past("^($others_run)\$", $others, [$first], timestamp()), 'an account of a newer format: all others run');
ok(wait_for(sub { status_of($first, 'scheduler') =~ /account that a newer version has written.*Upgrade dsched/s }), 'status() says so')
	or diag(status_of($first, 'scheduler'));
ok(wait_for(sub { slurp_file($first->logfile) =~ /partition \d+ of database "postgres" is left to other instances/ }), 'the log says so');
ok(wait_for(sub { !grep { /$pp$/ } $etcd->keys("$db/owner/any/") }), '[member-declines] it has no owner');
is($etcd->get("$db/state/any/$pp")->{value}, $newer, '[member-declines] and is as it was');

# Whoever can read it takes it, also one that it is not meant for; so would be a member of a newer version that we cannot read.
$etcd->ctl('put', "/dsched/test/node/newer", '{"format":2,"node":"newer","what":[1]}');
my ($lease) = $etcd->ctl('lease', 'grant', 600) =~ /lease ([0-9a-f]+) granted/;
$etcd->ctl('put', '--lease', $lease, "$db/member/newer", '{"format":2,"whatever":true}');
$etcd->ctl('put', "$db/state/any/$pp", $state);
start_instance($second);
ok(wait_past('tick', 12, \@fleet, timestamp()), 'all jobs run: what one cannot read, and what a member leaves that does nothing, others take')
	or diag(join ' ', ownership($first));

# They keep it, whatever else is looked at, until the members change.
ok(wait_until($first, q{SELECT count(*) FROM dsched.partitions WHERE place = 'any' AND owner_node IS NOT NULL}, 64), 'all partitions have an owner');
my $owners = ownership($first);
$second->append_conf('postgresql.conf', "dsched.node_labels = 'rack=7'\n");
$second->reload;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.nodes WHERE labels = 'rack=7'}, 1), 'labels have changed, advice is looked at again');
my $looked = time();
ok(wait_for(sub { time() > $looked + 2 }), 'for a moment');
is(scalar ownership($first), $owners, '[member-declines] nothing that was taken in another\'s place is given back for that');
my @declined = map { my @lines = slurp_file($_->logfile) =~ /is left to other instances/g; scalar @lines } @fleet;
cmp_ok($declined[0] + $declined[1], '<=', 3, "nobody has claimed it again and again (@declined)");
$etcd->ctl('lease', 'revoke', $lease);
$etcd->ctl('del', '/dsched/test/node/newer');
ok(wait_fleet(\@fleet), 'without it the two share the partitions');

# A definition, a queue, a trigger, a command and an outcome
my ($key) = grep { m{/tick3$} } $etcd->keys("$db/job/");
my $good = $etcd->get($key)->{value};
(my $bad = $good) =~ s/"format":1/"format":2/;
$etcd->ctl('put', $key, $bad);
$etcd->ctl('put', "$db/queue/newer", '{"format":2,"name":"newer"}');
$etcd->ctl('put', "$db/trigger/$pp/77", '{"format":2}');
$etcd->ctl('put', "$db/cmd/any/$pp/1/1/0/1", '{"format":2}');
$etcd->ctl('put', "$db/outcome/any/$pp/1/1/0/1", '{"format":2}');
ok(wait_until(\@fleet, q{SELECT problem FROM dsched.jobs WHERE job_name = 'tick3'}, qr/format 2 is not known/), 'a definition of a newer format: both say so');
ok(wait_past('^tick([124-9]|1.)$', 11, \@fleet, timestamp()), '[newer-formats] all others run');
$etcd->ctl('put', $key, $good);
$etcd->ctl('del', $_) foreach "$db/queue/newer", "$db/trigger/$pp/77", "$db/cmd/any/$pp/1/1/0/1", "$db/outcome/any/$pp/1/1/0/1";
ok(wait_past('tick', 12, \@fleet, timestamp()), 'with one that can be read again it runs, too');
account_ok(\@fleet);

# The configuration of the cluster
my $config = $etcd->get('/dsched/test/config')->{value};
($bad = $config) =~ s/"format":1/"format":2/;
$etcd->ctl('put', '/dsched/test/config', $bad);
$second->restart;
ok(wait_for(sub { status_of($second, 'etcd') =~ /^problem\|.*format 2/s }), 'a configuration of a newer format: the instance stays out and says so')
	or diag(status_of($second, 'etcd'));
$etcd->ctl('put', '/dsched/test/config', $config);
ok(wait_fleet(\@fleet), 'with one that it knows it is back');

# A library that is newer than the extension's objects, between a restart and ALTER EXTENSION dsched UPDATE
sub set_version
{
	$second->safe_psql('postgres', "SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '$_[0]' WHERE extname = 'dsched'");
	return;
}

set_version('0.9');
$second->restart;
ok(wait_for(sub { status_of($second, 'scheduler') =~ /version 0\.9.*\|.*ALTER EXTENSION dsched UPDATE/s }), 'objects of another version: status() says what to do')
	or diag(status_of($second, 'scheduler'));
ok(wait_owners($first, ['node1']), 'the other instance has all partitions');
ok(wait_past('tick', 12, [$first], timestamp()), 'and runs all jobs');
set_version('1.0');
ok(wait_fleet(\@fleet), 'after the update both have their share');

done_testing();
