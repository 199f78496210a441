# A definition reaches the owner's timetable before its table, where somebody holds the row: times that come due meanwhile wait for the row,
# and are run as soon as it is written.

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my ($a, $b) = fleet(2, etcd => $etcd);

create_extension($a, $b);
wait_fleet([ $a, $b ]) or die 'no fleet';

# Of these some are owned by the second instance.
as_worker($a, q{SELECT dsched.schedule('job ' || i, '0 0 29 2 *', 'SELECT dsched_test.effect()') FROM generate_series(1, 20) i});
ok(wait_until([ $a, $b ], q{SELECT count(*) || ' ' || count(owner_node) FROM dsched.jobs WHERE published}, '20 20'), 'both know the jobs');
my $job = $a->safe_psql('postgres', q{SELECT min(job_name) FROM dsched.jobs WHERE owner_node = 'node2'});
ok($job, "the second instance owns $job");

my $holder = $b->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM dsched.job WHERE job_name = '$job' FOR UPDATE");
as_worker($a, "SELECT dsched.alter_job('$job', schedule => '* * * * * *')");
ok(wait_until($b, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, qr/ [1-9]\d* runs? due or running/), 'a time of it comes due, and waits for the row');
is($b->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'"), 0, '[row-locked] none is run before that is there');
$holder->query_safe('COMMIT');
ok(wait_until($b, "SELECT count(*) > 1 FROM dsched_test.effects WHERE job = '$job'", 't', 30), '[row-locked] then they are run');
$holder->quit;
account_ok([ $a, $b ]);

done_testing();
