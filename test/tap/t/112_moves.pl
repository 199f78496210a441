# Jobs move from one set of instances to another, while slots are open: each slot runs once or is recorded as skipped, on the old or the new
# owner. So for jobs that run all the time, that wait behind a long run, that have requests waiting, and that run once.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd, conf => "dsched.max_clock_skew = '500ms'\n");

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
as_worker($fleet[0], q{SELECT count(dsched.schedule('m' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', overlap => 'queue_all'))
	FROM generate_series(1, 30) i});
my $long = 'SELECT dsched_test.effect(), pg_sleep(2.5)';    # sleep-ok: the job is to be slow
as_worker($fleet[0], "SELECT count(dsched.schedule('slow' || i, '* * * * * *', '$long', overlap => 'queue_all')) FROM generate_series(1, 3) i");
as_worker($fleet[0], q{SELECT count(dsched.schedule_once('later' || i, now() + interval '1 hour', 'SELECT dsched_test.effect()')) FROM generate_series(1, 4) i});
as_worker($fleet[0], "SELECT count(dsched.schedule('quiet' || i, '0 0 1 1 *', '$long')) FROM generate_series(1, 4) i");
ok(wait_past('^m', 30, \@fleet, timestamp()), 'the jobs run');

# Round and round, while they run: to an instance each, to a set, back to any
foreach my $round (1 .. 1)
{
	foreach my $where ('node=node2', 'node!=node2', 'node=node3', 'any')
	{
		as_worker($fleet[ $round % 3 ], "SELECT count(dsched.alter_job('m' || i, run_on => '$where')) FROM generate_series(1, 30) i");
		ok(wait_past('^m', 30, \@fleet, timestamp(), 40), "round $round: they run on $where");
	}
}
as_worker($fleet[1], q{SELECT count(dsched.alter_job('slow' || i, run_on => 'node=node2')) FROM generate_series(1, 3) i});
as_worker($fleet[1], q{SELECT count(dsched.alter_job('later' || i, run_on => 'node=node1')) FROM generate_series(1, 4) i});
ok(wait_past('slow', 3, [ $fleet[1] ], timestamp()), 'slow ones run at their new place');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'later' AND run_on = 'node=node1' AND published}, 4), 'so will those that run once');
as_worker($fleet[2], q{SELECT count(dsched.alter_job('later' || i, run_at => now() + interval '3 s')) FROM generate_series(1, 4) i});
ok(wait_past('later', 4, [ $fleet[0] ], '-infinity'), 'they run there');
is($fleet[$_]->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job ~ 'later'}), 0, 'and nowhere else') foreach 1, 2;

# Too late to move
as_worker($fleet[0], q{SELECT dsched.schedule_once('now', now() + interval '500 ms', 'SELECT dsched_test.effect()')});
my ($status, $stdout, $stderr) = $fleet[0]->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.alter_job('now', run_on => 'node=node2')});
isnt($status, 0, 'a job that runs once cannot move when it may be running');
like($stderr, qr/cannot be changed any more.*it may be running by now.*unschedule it/s, 'and says so');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE job_name = 'now'}, 0), 'it runs where it was');

# Requests
my $first = as_worker($fleet[0], q{SELECT dsched.run_now('quiet1')});
my ($job) = $first =~ /^(\d+):/;
ok(wait_until(\@fleet, "SELECT string_agg(status, ',') IN ('running', 'succeeded') FROM dsched.runs WHERE job_id = $job", qr/^t?$/), 'a request is taken up');
as_worker($fleet[0], q{SELECT dsched.run_now('quiet1')});
as_worker($fleet[0], q{SELECT dsched.alter_job('quiet1', run_on => 'node=node3')});
my $third = as_worker($fleet[0], q{SELECT dsched.run_now('quiet1')});
ok(wait_until($fleet[2], "SELECT count(*) FROM dsched.runs WHERE run_key = '$third' AND status = 'succeeded'", 1), 'one that is made after the job has moved runs at its new place');
ok(wait_for(sub { !scalar(my @left = $etcd->keys('/dsched/test/db/postgres/trigger/')) }), 'all requests are done with');

# what waits behind long runs would never be over
as_worker($fleet[0], q{SELECT count(dsched.unschedule('slow' || i)) FROM generate_series(1, 3) i});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.runs WHERE job_name ~ 'slow' AND status IN ('waiting', 'queued', 'running')}, 0), 'the slow ones are gone');
account_ok(\@fleet, grace => '5 s');

# Two instances must not have begun the same slot
my %begun;
foreach my $node (@fleet)
{
	$begun{$_}++ foreach split /\n/, $node->safe_psql('postgres',
		q{SELECT DISTINCT job || ' ' || slot FROM dsched_test.effects WHERE trigger_id = 0});
}
is(join(', ', sort grep { $begun{$_} > 1 } keys %begun), '', '[job-moves] no slot ran at two places');
cmp_ok(scalar(keys %begun), '>', 300, 'of many');
is(join('', map { $_->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status NOT IN ('succeeded', 'skipped')}) } @fleet), '000', 'all succeeded or were skipped');

done_testing();
