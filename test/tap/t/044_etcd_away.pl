# etcd is away for longer than the leases live: nobody starts anything, nobody takes over, the servers serve and say what is wrong; then the
# same owners go on, run what was missed and publish what was defined. The same when etcd is suspended, which ends all
# leases as soon as it goes on. And a server starts without etcd.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 24;
my $ttl   = 3;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
as_worker($fleet[0],
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, 24) i});
ok(wait_past('.', 24, \@fleet, timestamp()), 'the jobs run');
my $from   = timestamp();
my $owners = wait_fleet(\@fleet);

# Runs that were started between two moments
sub started
{
	my ($since, $until) = @_;

	return join ' ', map {
		$_->safe_psql('postgres',
			"SELECT count(*) FROM dsched.run WHERE extract(epoch FROM started_at) BETWEEN $since AND $until")
	} @fleet;
}

# What all instances have to do and to say while etcd does not answer since $since; ends $more seconds after the last deadline.
sub check_absence
{
	my ($since, $more, $new_job) = @_;

	foreach my $node (@fleet)
	{
		ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem/ }), $node->name . ' says that there is a problem');
		like(status_of($node, 'etcd'), qr/^problem\|.*etcd.*\|.*dsched\.etcd_endpoints/s, 'and what to do');
	}
	as_worker($fleet[1], "SELECT dsched.schedule('$new_job', '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()')");
	is($fleet[1]->safe_psql('postgres', "SELECT published FROM dsched.jobs WHERE job_name = '$new_job'"), 'f', '[changed-while-etcd-away] a definition waits');
	ok(wait_for(sub { time() > $since + $ttl + $more }), 'longer than any lease');
	is($fleet[1]->safe_psql('postgres', "SELECT published FROM dsched.jobs WHERE job_name = '$new_job'"), 'f', 'it still does');
	like(status_of($fleet[1], 'definitions'), qr/^waiting\|1 change is not yet published/, 'as status() says');
	is($fleet[0]->safe_psql('postgres', "SELECT count(*) FROM dsched.jobs WHERE job_name = '$new_job'"), 0, '[changed-while-etcd-away] the others do not have it');
	is(started($since + $ttl, time()), '0 0 0', '[etcd-away] nobody starts anything without a lease');
	return;
}

my $gone = time();
my @may_repeat;
$etcd->stop('KILL');
check_absence($gone, 3, 'new1');
is(ownership($fleet[0]), $owners, '[etcd-away] nobody has taken over');
$etcd->start;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'new1' AND published}, 1), 'the definition is everywhere');
ok(wait_past('.', 25, \@fleet, timestamp()), 'all jobs run, the new one, too');
is(wait_fleet(\@fleet), $owners, '[etcd-away] the same owners have gone on, under the same epochs');
like(status_of($_, 'etcd'), qr/^ok/, $_->name . ' is content') foreach @fleet;

# All slots of the time without etcd have been run, all of them once.
my $to = timestamp();
ok(wait_past('.', 25, \@fleet, timestamp(time() + 1)), 'all jobs run on');
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z",
	may_repeat => []);

# A suspended etcd finds that all leases have ended as soon as it goes on.
$gone = time();
$from = timestamp();
$etcd->sigstop;
check_absence($gone, 1, 'new2');
$etcd->sigcont;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'new2' AND published}, 1), 'the definition is everywhere');
ok(wait_fleet(\@fleet), '[etcd-suspended] each partition has its owner again');
$to = timestamp();
ok(wait_past('.', 26, \@fleet, timestamp(time() + 1)), 'all jobs run');
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z",
	may_repeat => [ @may_repeat = map { { node => $_->name, since => $gone - 1, until => $gone + $ttl } } @fleet ]);

# Servers start without etcd.
$_->stop('fast') foreach @fleet;
$etcd->stop;
start_instance($_) foreach @fleet;
foreach my $node (@fleet)
{
	ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem\|.*etcd.*\|.*dsched\.etcd_endpoints/s }), $node->name . ' serves, and says what is wrong');
}
my $started = timestamp();
$etcd->start;
ok(wait_fleet(\@fleet), 'each partition has its owner');
ok(wait_past('.', 26, \@fleet, $started), 'all jobs run');
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
