# A job with run_on => 'each' runs every slot on every instance: also on one that joins later, from then on; while etcd is away, and after a
# restart without it. A request to run it concerns the instance where it was made. @reboot runs at each start.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($fleet[0], q{SELECT count(dsched.schedule('each' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', run_on => 'each',
	misfire => 'all', overlap => 'queue_all')) FROM generate_series(1, 3) i});
as_worker($fleet[0], q{SELECT dsched.schedule('boot', '@reboot', 'SELECT dsched_test.effect()', run_on => 'each')});
as_worker($fleet[0], q{SELECT dsched.schedule('any1', '* * * * * *', 'SELECT dsched_test.effect()')});
my $begun = timestamp();
ok(wait_past('each', 3, [$_], timestamp()), $_->name . ' runs all of them') foreach @fleet;
is($fleet[0]->safe_psql('postgres', q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'each' AND owner_node IS NULL}), 3, 'they have no owner');
is($fleet[0]->safe_psql('postgres', q{SELECT place || partition || owner_node || state FROM dsched.partitions WHERE place = 'each'}), 'each0node1active', 'but a partition');
is(scalar(my @keys = grep { m{each} && !m{/job/} } $etcd->keys('/dsched/test/')), 0, 'which is not in etcd');

# One that joins begins then
my $joined = time();
my $third = new_instance('node3', etcd => $etcd);
create_extension($third);
push @fleet, $third;
ok(wait_past('each', 3, [$third], timestamp()), 'who joins later runs them, too');
is($third->safe_psql('postgres', 'SELECT count(*) FROM dsched.run WHERE job_name ~ \'each\' AND scheduled_for < \'' . timestamp($joined) . 'Z\''), 0, 'but no slot of before');
is($third->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'boot'}), 0, 'nor @reboot, before it is started again');

# A request
my %asked = map { $_->name => as_worker($_, q{SELECT dsched.run_now('each1')}) } @fleet[0, 1];
ok(wait_until($_, "SELECT count(*) FROM dsched.runs WHERE run_key = '" . $asked{ $_->name } . "' AND status = 'succeeded'", 1),
	'run_now() runs it on ' . $_->name) foreach @fleet[0, 1];
ok(wait_until($_, 'SELECT count(*) FROM dsched.outbox', 0), 'and is done with') foreach @fleet;
is($third->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE trigger_id <> 0}), 0, 'and nowhere else');

my $filled = as_worker($fleet[0], q{SELECT dsched.backfill('each3', date_trunc('minute', now()) - interval '10 min', date_trunc('minute', now()) - interval '10 min' + interval '2 s')});
$filled =~ /(\d+)$/;
ok(wait_until($fleet[0], "SELECT count(*) FROM dsched.run WHERE trigger_id = $1 AND status = 'succeeded'", 3), 'backfill() makes up for times on this instance');
as_worker($fleet[0], q{SELECT dsched.schedule('long', '0 0 1 1 *', 'SELECT pg_sleep(600)', run_on => 'each')});    # sleep-ok: to be cancelled
my $long = as_worker($fleet[0], q{SELECT dsched.run_now('long')});
ok(wait_until($fleet[0], "SELECT status FROM dsched.runs WHERE run_key = '$long'", 'running'), 'a long run');
as_worker($fleet[0], qq{SELECT dsched.cancel('$long')});
ok(wait_until($fleet[0], "SELECT status FROM dsched.runs WHERE run_key = '$long'", 'cancelled'), 'is cancelled');
ok(wait_until($_, 'SELECT count(*) FROM dsched.outbox', 0), 'all requests are done with') foreach @fleet;
is($third->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE trigger_id <> 0}), 0, 'nothing of them concerned another');

# etcd is away for longer than the leases live
my $gone = time();
$etcd->stop('KILL');
ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem/ }), $_->name . ' misses etcd') foreach @fleet;
ok(wait_past('each', 3, [$_], timestamp($gone + 8)), $_->name . ' goes on with them') foreach @fleet;
is(join(' ', map { $_->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = 'any1' AND extract(epoch FROM started_at) > $gone + 4") } @fleet),
	'0 0 0', 'nobody runs the others');
my $asked = as_worker($fleet[1], q{SELECT dsched.run_now('each2')});
ok(wait_until($fleet[1], "SELECT count(*) FROM dsched.runs WHERE run_key = '$asked' AND status = 'succeeded'", 1), 'nor does a request need etcd');
is($fleet[1]->safe_psql('postgres', q{SELECT detail FROM dsched.status() WHERE component = 'definitions'}), '', 'or wait to be published');
is($fleet[0]->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name ~ 'each' AND status <> 'succeeded'}), 0, 'none was cut off');

# Restarts without etcd: in order, and not
$fleet[0]->restart('fast');
kill9_everything($fleet[1]);
start_instance($fleet[1]);
my $restarted = timestamp();
foreach my $node (@fleet[0, 1])
{
	ok(wait_past('each', 3, [$node], $restarted), $node->name . ' goes on after a restart without etcd');
	ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'boot' AND status = 'succeeded'}, 1), 'and has run @reboot once');
}

$etcd->start;
ok(wait_fleet(\@fleet), 'etcd is back');
ok(wait_past('.', 4, \@fleet, timestamp()), 'all jobs run');
my $to = timestamp();
ok(wait_past('each', 3, [$_], timestamp(time() + 1)), 'and run on') foreach @fleet;
foreach my $node (@fleet[0, 1])
{
	every_slot_of_each_once([ map { "each$_" } 1 .. 3 ], [$node], schedule => '* * * * * *', from => "${begun}Z", to => "${to}Z",
		name => 'every slot has run once on ' . $node->name);
}
my $since = $third->safe_psql('postgres', q{SELECT to_char(max(first) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
	FROM (SELECT min(scheduled_for) AS first FROM dsched.run WHERE job_name ~ 'each' AND trigger_id = 0 GROUP BY job_id) j});
every_slot_of_each_once([ map { "each$_" } 1 .. 3 ], [$third], schedule => '* * * * * *', from => "${since}Z", to => "${to}Z",
	name => 'every slot since it has joined has run once on node3');
# what was before it joined is no slot of the third; and of @reboot the judge knows no slots
account_ok(\@fleet, excused => [ { from => '-infinity', to => "${since}Z" } ]);

done_testing();
