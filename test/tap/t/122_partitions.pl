# Another number of partitions, in a fleet that was left in order: no slot is lost, none runs twice. Refused while anything is open.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 20;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', misfire => 'all', overlap => 'queue_all')) FROM generate_series(1, 20) i;
	  SELECT dsched.schedule_once('once', now() + interval '1 day', 'SELECT dsched_test.effect()')});
ok(wait_past('.', 20, \@fleet, timestamp()), 'the jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 21), 'both have all definitions');
ok(wait_until(\@fleet, q{SELECT incarnation <> '' FROM dsched.identity}), 'and have noted whose they are');
my $from = timestamp();

sub recover
{
	my ($node, $arguments) = @_;
	my ($stdout, $stderr) = ('', '');

	$node->psql('postgres', "SELECT dsched.recover_cluster($arguments)", stdout => \$stdout, stderr => \$stderr, timeout => 90);
	return "$stdout$stderr";
}

# One after the other gets the setting; the first is refused, and the second runs on.
$first->append_conf('postgresql.conf', 'dsched.partitions = 100');
$first->restart;
ok(wait_for(sub { status_of($first, 'etcd') =~ /^problem\|.*64 partitions.*100.*\|.*recover_cluster/s }), 'the first says that the cluster has another number')
  || diag(status_of($first, 'etcd'));
ok(wait_owners($second, ['node2']), 'the second has all partitions');
like(recover($first, ''), qr/ERROR:.*64 partitions.*HINT:.*partitions => 100/s, 'it takes the number to change it');
like(recover($first, 'partitions => 100'), qr/ERROR:.*in the cluster.*node2/s, 'and nobody in the cluster');
like(recover($first, q{resume_from => now(), partitions => 100}), qr/ERROR:.*exclude/s, 'it goes on where it was left');
ok(wait_past('.', 20, [$second], timestamp()), 'the second runs on');

# A run that is not finished is in the way: it is lost with the stop, and to be made again.
as_worker($second, q{SELECT dsched.schedule('long', '0 3 1 1 *', 'SELECT pg_sleep(60)')}); # sleep-ok: it is to be running when the server stops
ok(wait_until($second, q{SELECT bool_and(published) FROM dsched.jobs}), 'a job is there');
as_worker($second, q{SELECT dsched.run_now('long')});
ok(wait_until($second, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'long' AND status = 'running'}, 1), 'it runs');
$second->append_conf('postgresql.conf', 'dsched.partitions = 100');
$second->restart;
like(recover($first, 'partitions => 100'), qr/ERROR:.*not drained.*HINT:.*dsched\.partitions = 64/s, '[partition-count-changed] a run that is not finished is in the way');

# So one goes back, finishes, and leaves again.
$second->append_conf('postgresql.conf', 'dsched.partitions = 64');
$second->restart;
ok(wait_owners($second, ['node2'], 90), 'one goes back');
ok(wait_until($second, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'long' AND status = 'running'}, 1), 'the run is made again');
as_worker($second, q{SELECT dsched.cancel(run_key) FROM dsched.runs WHERE job_name = 'long' AND status = 'running'});
ok(wait_until($second, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'long' AND status IN ('running', 'queued', 'waiting')}, 0), 'and is cancelled');
ok(wait_for(sub { !(grep { m{/trigger/} } $etcd->keys('/dsched/test/')) }), 'nothing is asked for any more');
$second->append_conf('postgresql.conf', 'dsched.partitions = 100');

# Of runs that are just being made when the server stops some may be left: then once more.
my $said = '';
for my $try (1 .. 5)
{
	$second->restart;
	ok(wait_for(sub { status_of($second, 'etcd') =~ /^problem\|.*64 partitions/s }), "it leaves, try $try");
	$said = recover($try % 2 ? $first : $second, 'partitions => 100');
	last if $said !~ /not drained/;
	$second->append_conf('postgresql.conf', 'dsched.partitions = 64');
	$second->restart;
	ok(wait_past('.', 20, [$second], timestamp()), 'and comes back');
	$second->append_conf('postgresql.conf', 'dsched.partitions = 100');
}
like($said, qr/begins anew with 100 partitions/, '[partition-count-changed] the cluster has another number of partitions');
is($etcd->get_json('/dsched/test/config')->{partitions}, 100, 'etcd has it');
ok(wait_fleet(\@fleet, timeout => 90), 'both share them');
is($first->safe_psql('postgres', 'SELECT count(*) FROM dsched.partitions'), 100, 'so many there are');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 22), 'with all jobs');
is($_->safe_psql('postgres', q{SELECT active FROM dsched.job WHERE job_name = 'once'}), 't', 'a job whose time has not come waits on, ' . $_->name) foreach @fleet;
ok(wait_past('^j', 20, \@fleet, timestamp(time() + 1), 90), 'they run');
like(recover($second, 'partitions => 100'), qr/ERROR:.*100 partitions already/, 'once is enough');

my $to = timestamp();
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
account_ok(\@fleet);

done_testing();
