# Jobs that have run for a while are altered, paused and resumed, right before their owner is killed: nothing of the past runs again, no slot of
# the pause runs, none after it is lost. The owner reports rarely, so that it dies without having told of the change.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $interval = 2;    # seconds between two reports, as good as never for what happens here
my $etcd = start_etcd();
my ($owner, $heir) = my @fleet = fleet(2, etcd => $etcd, conf => "dsched.checkpoint_interval = '${interval}s'");
my %count = (altered => 8, paused => 8, command => 8, once => 8);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
foreach my $kind (grep { $_ ne 'once' } sort keys %count)
{
	as_worker($heir, "SELECT count(dsched.schedule('$kind' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
		FROM generate_series(1, $count{$kind}) i");
}
as_worker($heir, "SELECT count(dsched.schedule_once('once' || i, clock_timestamp() + '1 hour', 'SELECT dsched_test.effect()'))
	FROM generate_series(1, $count{once}) i");
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.jobs WHERE published', 32), 'the jobs are everywhere');
my $from = timestamp();

# An old job: it has run for longer than anything below looks back.
ok(wait_past('.', 24, \@fleet, timestamp(time() + 6), 60), 'they have run for a while');
my $owned = $heir->safe_psql('postgres', q{SELECT count(DISTINCT left(job_name, 4)) FROM dsched.jobs WHERE owner_node = 'node1'});
is($owned, 4, 'the one to be killed owns some of each kind');

sub for_all
{
	my ($kind, $call) = @_;

	as_worker($heir, "SELECT count($call) FROM (SELECT '$kind' || generate_series(1, $count{$kind})) j (job)");
	return;
}
my $before_pause = timestamp(time() - 2);
for_all('paused', 'dsched.pause(job)');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published AND NOT active}, 8), 'some are paused');
my $paused = timestamp();
ok(wait_past('altered', 8, \@fleet, timestamp(time() + 2)), 'for some slots');

for_all('once',    q{dsched.alter_job(job, metadata => '{"a": 1}')});
for_all('command', q{dsched.alter_job(job, command => 'SELECT dsched_test.log(''begin''), dsched_test.effect(), 2')});
for_all('altered', q{dsched.alter_job(job, metadata => '{"a": 1}')});
for_all('paused',  'dsched.resume(job)');
ok(wait_until($heir, q{SELECT count(*) FROM dsched.jobs WHERE published}, 32), 'all is published');
my $killed = time();
kill9_everything($owner);

my %resumed = map { split /\|/ } split /\n/, $heir->safe_psql('postgres',
	q{SELECT job_name, to_char(slots_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') FROM dsched.job WHERE job_name ~ 'paused'});
ok(wait_owners($heir, ['node2']), 'the other owns all');
ok(wait_past('.', 24, [$heir], timestamp()), 'all jobs run there');
start_instance($owner);
ok(wait_fleet(\@fleet), 'the killed one is back');
my $to = timestamp();
ok(wait_past('.', 24, \@fleet, timestamp(time() + 1)), 'all jobs run');

my @may_repeat = ({ node => 'node1', since => $killed - $interval - 1 });
foreach my $kind ('altered', 'command')
{
	every_slot_of_each_once([ map { "$kind$_" } 1 .. 8 ], \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z",
		may_repeat => \@may_repeat);
}

# The pause
foreach my $job (sort keys %resumed)
{
	my @slots = expected_slots($heir, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
	my @in_between = grep { $_->{slot} gt $paused && $_->{slot} le $resumed{$job} } effects($job, \@fleet);

	is_deeply(\@in_between, [], "[paused-resumed-then-killed] no slot of the pause of $job ran");
	every_slot_of_each_once([$job], \@fleet, slots => [ grep { $_ gt $resumed{$job} } @slots ], may_repeat => \@may_repeat,
		name => "every slot of $job after it ran once");
	every_slot_of_each_once([$job], \@fleet, slots => [ grep { $_ lt $before_pause } @slots ], name => "so did every slot before it");
}
is($_->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'missed' OR reason = 'catch_up'}),
	0, 'no past was made up for on ' . $_->name) foreach @fleet;
is($_->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job ~ 'once'}), 0, '[altered-then-killed] no run before its time') foreach @fleet;
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
