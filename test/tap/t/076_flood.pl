# A flood of one queue in a partition that holds all jobs: more slots are due than an account can hold. The jobs beside it go on, through
# a kill -9 of the owner too, and each slot of either runs once.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $flood  = 1600;
my $etcd   = start_etcd();
my @fleet  = fleet(2, etcd => $etcd, conf => "dsched.partitions = 1\ndsched.lease_ttl = '3s'\ndsched.run_retention = -1");
my $reported = 0.25 + 1.25;    # dsched.checkpoint_interval and the report's way to etcd, on a busy machine
my %gate;

create_extension(@fleet);
ok(wait_fleet_of_one(), 'one of two instances owns the only partition');
foreach my $node (@fleet)
{
	$gate{ $node->name } = $node->background_psql('postgres');
	$gate{ $node->name }->query_safe('SELECT pg_advisory_lock(7)');
}
$fleet[0]->safe_psql('postgres', q{SELECT dsched.create_queue('bulk', max_running => 1)});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues}, 1), 'both know the queue');
as_worker($fleet[0], q{SELECT count(dsched.schedule('t' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 3) i});
ok(wait_past('^t', 3, \@fleet, timestamp()), 'three jobs run each second');
my $from = timestamp();

as_worker($fleet[0], qq{
	SELECT count(dsched.schedule_once('f' || i, now(),
		'SELECT pg_advisory_xact_lock_shared(7), dsched_test.log(''begin''), dsched_test.effect()', queue => 'bulk'))
	FROM generate_series(1, $flood) i});
ok(wait_until($fleet[0], q{SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL}, 0), 'the flood is published');
ok(wait_for(sub { my $state = account_in_etcd(); @{ $state->{pending} // [] } >= 400 && @{ $state->{done} // [] } >= 3 }),
	'the account holds as much of it as it may, and says that the other jobs are ahead');
ok(wait_past('^t', 3, \@fleet, timestamp()), 'which they are: they run on');
my $state = account_in_etcd();
cmp_ok(scalar @{ $state->{pending} }, '<', 600, 'with a bounded account');

# The heir knows from the account where each job is.
my ($owner) = grep { $_->name eq owner() } @fleet;
my ($heir)  = grep { $_->name ne $owner->name } @fleet;
my $killed  = time();
delete $gate{ $owner->name };
kill9_everything($owner);
ok(wait_owners($heir, [ $heir->name ]), 'the heir owns the partition');
my @may_repeat = ({ node => $owner->name, since => $killed - $reported, until => time() });
ok(wait_past('^t', 3, [$heir], timestamp()), 'the jobs beside the flood run there');
is($heir->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job ~ '^f'}), 0, 'while the flood waits');
ok(wait_for(sub { my $state = account_in_etcd(); @{ $state->{pending} // [] } >= 400 && @{ $state->{done} // [] } >= 3 }),
	'in an account like the one before');

# A clean stop, with the flood as it is.
start_instance($owner);
$gate{ $owner->name } = $owner->background_psql('postgres');
$gate{ $owner->name }->query_safe('SELECT pg_advisory_lock(7)');
ok(wait_until($heir, q{SELECT count(*) FROM dsched.nodes}, 2), 'the owner of before is back');
(delete $gate{ $heir->name })->quit;
$heir->stop('fast');
ok(wait_owners($owner, [ $owner->name ]), 'and owns the partition again');
start_instance($heir);
ok(wait_past('^t', 3, [$owner], timestamp()), 'the jobs beside the flood run there');
my $to = timestamp();

# The gates open.
$_->quit foreach values %gate;
ok(wait_until($owner, q{SELECT count(*) FROM dsched.job WHERE job_name ~ '^f'}, 0, 120), 'the flood has run off');
ok(wait_until($heir, q{SELECT count(*) FROM dsched.job WHERE job_name ~ '^f'}, 0), 'and its definitions are gone');
my %ran;
foreach my $node (@fleet)
{
	$ran{$_}++ foreach split /\n/, $node->safe_psql('postgres', q{SELECT job FROM dsched_test.effects WHERE job ~ '^f'});
}
is(scalar keys %ran, $flood, 'all of it ran');
is_deeply([ grep { $ran{$_} != 1 } keys %ran ], [], 'once each');
every_slot_of_each_once([ 't1', 't2', 't3' ], \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z", may_repeat => \@may_repeat);
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();

# ---------------------------------------------------------------------------------------------------------------------

sub owner
{
	return psql_try($fleet[0], 'SELECT owner_node FROM dsched.partitions') // psql_try($fleet[1], 'SELECT owner_node FROM dsched.partitions') // '';
}

sub wait_fleet_of_one
{
	return wait_until(\@fleet, q{SELECT count(*) FROM dsched.nodes}, 2)
	  && wait_until(\@fleet, q{SELECT count(*) FROM dsched.partitions WHERE owner_node IS NOT NULL}, 1);
}

sub account_in_etcd
{
	my $text = $etcd->ctl('get', '--print-value-only', '--prefix', '/dsched/test/db/postgres/state/');

	return eval { decode_json($text) } // {};
}
