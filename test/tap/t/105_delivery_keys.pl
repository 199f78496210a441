# What an owner makes of the keys of runs that it finds when it takes partitions over; and how long decisions are kept.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;

my $etcd = start_etcd();
my $node = new_instance('node1', etcd => $etcd, conf => "dsched.lease_ttl = '2s'\ndsched.decision_retention = 0\n");

create_extension($node);
ok(wait_fleet([$node]), 'an instance in a cluster');

sub keys_below
{
	my ($prefix) = @_;

	return %{ $etcd->keys("/dsched/test/db/postgres/$prefix/") };
}

sub number_below
{
	my %keys = keys_below(@_);

	return scalar keys %keys;
}

# ---- how long ----

as_worker($node, q{SELECT dsched.schedule_in('unkept', '0 s', 'SELECT dsched_test.effect()', delivery => 'exactly_once')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'a run');
ok(wait_for(sub { !keys_below('run') }), 'its decision goes');
is(number_below('decided'), 0, 'and with a retention of 0 it is not kept');
$node->safe_psql('postgres', q{ALTER SYSTEM SET dsched.decision_retention = '1h'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
ok(wait_until($node, 'SHOW dsched.decision_retention', '1h'), 'a retention of an hour');
as_worker($node, q{SELECT dsched.schedule_in('kept', '0 s', 'SELECT dsched_test.effect()', delivery => 'exactly_once')});
ok(wait_for(sub { number_below('decided') == 1 }), 'it is kept');
my ($kept) = keys_below('decided');
my $lease = $etcd->ctl('get', $kept, '-w', 'json');
my ($id) = map { $_->{lease} } @{ decode_json($lease)->{kvs} };
my ($granted) = $etcd->ctl('lease', 'timetolive', sprintf('%x', $id)) =~ /granted with TTL\((\d+)s\)/;
cmp_ok($granted, '>=', 3600, 'with a lease that lives at least so long');
cmp_ok($granted, '<=', 4300, 'and not much longer');

# ---- what is found ----

my @jobs = qw(elsewhere forgotten unreadable claimed mine);
my %mode = (claimed => 'at_most_once');

as_worker($node, "SELECT dsched.schedule_once('$_', now() + '2 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => '@{[ $mode{$_} // 'exactly_once' ]}')") foreach @jobs;
ok(wait_until($node, q{SELECT bool_and(published) FROM dsched.jobs}, 't'), 'jobs for later');
my %jobs = keys_below('job');
my %base;

foreach my $key (keys %jobs)
{
	my $job = decode_json($jobs{$key});
	my ($pp) = $key =~ m{/job/(\d+)/};

	$base{ $job->{job_name} } = "/dsched/test/db/postgres/run/any/$pp/$job->{job_id}/$job->{run_at}/0";
}
$node->stop('fast');

sub mark
{
	my ($mode, $by, $id) = @_;

	return qq({"format":1,"mode":"$mode","node":"$by","session":3,"epoch":6,"attempt":1,"id":"$id","at":1795241309000000});
}

$etcd->ctl('put', $base{elsewhere}, mark('exactly_once', 'node2', 'dsched:x'));
$etcd->ctl('put', $base{forgotten}, mark('exactly_once', 'node1', 'dsched:x'));
$etcd->ctl('put', $base{unreadable}, '{"format":7}');
$etcd->ctl('put', "$base{claimed}/1", mark('at_most_once', 'node2', '3:1'));
my $until = time() + 3;
wait_for(sub { time() > $until });
start_instance($node);

ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'mine'}, 1), 'a job without a key runs');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all are done with');
is(scalar(append_log_lines()), 1, 'and no other was begun');
is($node->safe_psql('postgres', q{SELECT status FROM dsched.run WHERE job_name = 'claimed'}), 'lost', 'one that another had begun at most once is lost');
is($node->safe_psql('postgres', q{SELECT status || ' ' || message FROM dsched.run WHERE job_name = 'forgotten'}),
	'lost it was committed, but this server does not have it any more: it is a standby that was promoted, or was restored', 'one that we had committed, and do not have, too');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name IN ('elsewhere', 'unreadable')}), 0, 'what others have committed is theirs to record');
like($node->safe_psql('postgres', q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}), qr/^waiting 2 runs were decided by/, 'status() has what they owe');
ok(wait_for(sub { number_below('run') == 2 }), 'their keys stay, others go') or diag(explain { keys_below('run') });
$etcd->ctl('del', $base{$_}) foreach 'elsewhere', 'unreadable';
ok(wait_until($node, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), 'and when they have gone, status() notices');

done_testing();
