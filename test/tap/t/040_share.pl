# Three instances share 200 jobs; a fourth joins while they run. Every slot runs once, each instance does its part, all agree on who owns what.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd);
my %schedule = (a => '* * * * * *', b => '*/2 * * * * *');

create_extension(@fleet);
ok(my $owners = wait_fleet(\@fleet), 'three instances agree on the members and on the owners');

# a1..a100 run each second, b1..b100 each other second; one in ten is witnessed in the log, too.
as_worker($fleet[0],
	qq{SELECT count(dsched.schedule(k || i, CASE k WHEN 'a' THEN '$schedule{a}' ELSE '$schedule{b}' END,
		CASE WHEN i % 10 = 0 THEN 'SELECT dsched_test.log(''begin''), dsched_test.effect()' ELSE 'SELECT dsched_test.effect()' END))
	FROM unnest(array['a', 'b']) k, generate_series(1, 100) i});
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.jobs WHERE published', 200), 'all have the definitions of one');
ok(wait_past('.', 200, \@fleet, timestamp()), 'all jobs run');

my $from = timestamp();
ok(wait_past('.', 200, \@fleet, timestamp(time() + 5)), 'for some seconds');
is(wait_fleet(\@fleet), $owners, 'with the same owners');

my ($fourth) = new_instance('node4', etcd => $etcd);
create_extension($fourth);
push @fleet, $fourth;
ok(wait_fleet(\@fleet), '[instance-joins] a fourth has joined and got its share');
ok(wait_until($fourth, 'SELECT count(*) FROM dsched.jobs', 200), 'it has the definitions');

my $to = timestamp();
ok(wait_past('.', 200, \@fleet, timestamp(time() + 2)), '[instance-joins] all jobs run on');
foreach my $k (sort keys %schedule)
{
	every_slot_of_each_once([ map { "$k$_" } 1 .. 100 ], \@fleet, schedule => $schedule{$k}, from => "${from}Z", to => "${to}Z");
	attempts_at_most("${k}$_", 1) foreach 10, 20, 30;
}
cmp_ok($_->safe_psql('postgres', 'SELECT count(DISTINCT job) FROM dsched_test.effects'), '>', 20, $_->name . ' did its part')
  foreach @fleet;
is(join(' ', map { $_->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status <> 'succeeded'}) } @fleet),
	'0 0 0 0', 'all runs succeeded');
account_ok(\@fleet);

done_testing();
