# A standby is promoted that lacks the last seconds of its primary's history, which the primary has reported to etcd: the times that it has
# no record of are run again, of at_least_once jobs; at_most_once is not begun again.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd    = start_etcd();
my $primary = new_instance('node1', etcd => $etcd, allows_streaming => 1);

create_extension($primary);
$primary->backup('base');
my $standby = new_standby('standby', $primary, 'base');
ok(wait_fleet([$primary]), 'the primary owns all partitions');
as_worker($primary, q{SELECT count(dsched.schedule('least' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, 4) i});
as_worker($primary, q{SELECT count(dsched.schedule('most' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()',
	delivery => 'at_most_once')) FROM generate_series(1, 2) i});
ok(wait_past('.', 6, [$primary], timestamp()), 'the jobs run');
my $from = timestamp();
ok(wait_past('.', 6, [$primary], timestamp(time() + 7)), 'for a while, so that the copy of the account is in the table');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

# From here on the standby hears nothing; the primary goes on, and tells etcd.
$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
$standby->reload;
ok(wait_until($standby, 'SELECT count(*) FROM pg_stat_wal_receiver', 0), 'the standby is cut off');
my $cut = timestamp();
ok(wait_past('.', 6, [$primary], timestamp(time() + 4)), 'the primary goes on');
my $lost = timestamp();
ok(wait_past('.', 6, [$primary], timestamp(time() + 1)), 'and has told etcd');
kill9_everything($primary);
$standby->promote;
ok(wait_until($standby, q{SELECT count(*) FROM dsched.partitions WHERE state = 'active'}, 64), 'the promoted standby owns all partitions');
ok(wait_past('.', 6, [$standby], timestamp()), 'the jobs run there');

my @slots = expected_slots($standby, schedule => '* * * * * *', from => "${from}Z", to => "${lost}Z");
my @gap   = grep { $_ gt $cut } @slots;
cmp_ok(scalar(@gap), '>', 2, scalar(@gap) . ' slots are between the cut and the end');
foreach my $job (map { "least$_" } 1 .. 4)
{
	my %effects;

	$effects{ $_->{slot} }++ foreach effects($job, [$standby]);
	is_deeply([ grep { ($effects{$_} // 0) != 1 } @slots ], [], "$job: the promoted server has the effect of each slot, once");
}
foreach my $job (map { "most$_" } 1 .. 2)
{
	my %begun;

	$begun{ $_->{slot} }++ foreach append_log_lines(job => $job, phase => 'begin');
	is_deeply([ grep { $begun{$_} > 1 } sort keys %begun ], [], "$job: none was begun twice");
}
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_prepared_xacts}), 0, 'nothing is prepared');

# Once: the account is its own now.
$standby->restart;
ok(wait_past('.', 6, [$standby], timestamp()), 'after a restart the jobs run');
foreach my $job (map { "least$_" } 1 .. 4)
{
	my %effects;

	$effects{ $_->{slot} }++ foreach effects($job, [$standby]);
	is_deeply([ grep { $effects{$_} > 1 } keys %effects ], [], "$job: and nothing was run again");
}

done_testing();
