# Many at once: more open slots in one partition than its account holds, through a crash; a role that always has more work than
# there are executors, beside one that has a little.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

# ---- a role with too much work keeps nobody out ----

my $busy = new_instance('busy', conf => "dsched.max_executors = 2\n");

create_extension($busy);
$busy->safe_psql('postgres', 'CREATE ROLE little LOGIN; GRANT USAGE ON SCHEMA dsched TO little');
as_worker($busy, q{SELECT count(dsched.schedule('much_' || n, '* * * * * *', 'SELECT pg_sleep(0.3)')) FROM generate_series(1, 60) n});	# sleep-ok: jobs that last
ok(wait_until($busy, q{SELECT count(*) > 4 FROM dsched.run WHERE job_name LIKE 'much%'}, 't'), 'a role with too much work');
$busy->safe_psql('postgres', q{SELECT dsched.schedule_in('little_' || n, '0 s', 'SELECT 1', username => 'little') FROM generate_series(1, 3) n});
# at their turn by age, while of the others there is no end
ok(wait_until($busy, q{SELECT count(*) FROM dsched.run WHERE job_name LIKE 'little%'}, 3, 30), 'the runs of another come to their turn');
cmp_ok($busy->safe_psql('postgres', q{SELECT count(DISTINCT pid)::float8 / count(*) FROM dsched.run WHERE status = 'succeeded'}), '<', 0.3, 'executors make many runs each');
$busy->stop('immediate');

# ---- more slots in a partition than its account has room for, crashes while they are worked off ----

my $jobs = 2300;
my $node = new_instance('full', conf => "dsched.partitions = 1\ndsched.checkpoint_interval = '10ms'\n");

create_extension($node);
my ($due, $cron) = split /\|/, $node->safe_psql('postgres',
	q{SELECT extract(epoch FROM date_trunc('second', at)), to_char(at, 'SS MI HH24 * * *') FROM (SELECT now() + interval '8 s' AS at) t});
as_worker($node, "SELECT count(dsched.schedule('j' || n, '$cron', 'SELECT dsched_test.effect()')) FROM generate_series(1, $jobs) n");
ok(wait_until($node, q{SELECT count(*) > 0 FROM dsched.jobs WHERE next_run IS NOT NULL}, 't'), 'jobs are defined');
$node->stop('fast');
wait_for(sub { time() > $due + 1 });
start_instance($node);
foreach my $count (1, 700)
{
	ok(wait_until($node, "SELECT count(*) >= $count FROM dsched_test.effects", 't'), "$count of them have run");
	cmp_ok($node->safe_psql('postgres', q{SELECT coalesce(max(json_array_length(state::json->'pending')), 0) FROM dsched.partition_state}), '<=', 600,
		'the account stays small');
	kill9_everything($node);
	start_instance($node);
}
ok(wait_until($node, 'SELECT count(*) FROM dsched_test.effects', $jobs, 90), 'all slots that came due have run');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT (job, slot)) FROM dsched_test.effects'), $jobs, '[crowd-of-jobs] each once');
account_ok($node);

done_testing();
