# etcd loses everything under a running fleet: nothing runs, nothing is deleted, nothing is written to the empty etcd, each instance says
# what has happened. dsched.adopt() on the instances is the way back, and runs nothing of the past.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 12;
my $ttl   = 3;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', metadata => '{"a": 1}'))
	FROM generate_series(1, 12) i});
as_worker($first, q{SELECT dsched.schedule('each', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'each')});
ok(wait_past('.', 13, \@fleet, timestamp()), 'the jobs run');
ok(wait_past('each', 1, [$_], timestamp()), 'one of them on ' . $_->name) foreach @fleet;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 13), 'both have all definitions');
# Each knows what it has joined, also after a restart.
ok(wait_until(\@fleet, q{SELECT incarnation <> '' AND max_revision > 0 FROM dsched.identity}), 'and have noted whose they are');

sub definitions
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT job_id, job_name, schedule, command, active, metadata FROM dsched.jobs ORDER BY job_id');
}

sub says_replaced
{
	my ($node, $when) = @_;

	return ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem\|.*(replaced|wiped|restored).*\|.+/s }),
		$node->name . " says that etcd was replaced, and what to do, $when")
	  || diag(status_of($node, 'etcd'));
}

my $before = definitions($first);
is(definitions($second), $before, 'the same on both');
my $wiped = time();
$etcd->wipe;
says_replaced($_, 'while it runs') foreach @fleet;
$second->restart;
my $restarted = time();
says_replaced($second, 'after a restart');
ok(wait_for(sub { time() > $restarted + 2 * $ttl }), 'for longer than any lease lives');
says_replaced($_, 'still') foreach @fleet;
is(definitions($_), $before, $_->name . ' has kept all definitions') foreach @fleet;
is_deeply([ $etcd->keys('') ], [], '[etcd-wiped] nobody has written anything to the empty etcd');
is( $_->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE extract(epoch FROM started_at) > $wiped + $ttl"),
	0, $_->name . ' has run nothing') foreach @fleet;
as_worker($second, q{SELECT dsched.schedule('new', '* * * * * *', 'SELECT dsched_test.effect()')});

# The way back
my $adopted = timestamp();
like($first->safe_psql('postgres', 'SELECT dsched.adopt()'), qr/^adopted 13 jobs for cluster "test"/, 'the jobs are adopted on one');
ok(wait_owners($first, ['node1']), 'which owns all partitions');
ok(wait_past('j', 12, [$first], timestamp()), 'and runs the jobs');
ok(wait_for(sub { status_of($second, 'scheduler') =~ /^problem\|.*etcd.*\|.*adopt/ }), 'the other one still says that it waits')
  || diag(status_of($second, 'scheduler'));
is($second->safe_psql('postgres', q{SELECT count(*) FROM dsched.jobs WHERE job_name <> 'new'}), 13, 'and keeps what it has');

like($second->safe_psql('postgres', 'SELECT dsched.adopt()'), qr/^adopted 14 jobs for cluster "test"/, 'the jobs are adopted on the other');
ok(wait_fleet(\@fleet), 'both share the partitions again');
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.jobs WHERE published', 14), 'both have all definitions, each once');
my $from = timestamp();
ok(wait_past('.', 14, \@fleet, timestamp(time() + 2)), 'the jobs run');
my $to = timestamp();
ok(wait_past('.', 14, \@fleet, timestamp(time() + 1)), 'and run on');
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
my $asleep = timestamp($wiped + $ttl);
is($_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE slot > '$asleep' AND slot < '$adopted'"),
	0, 'no slot of the time between ran on ' . $_->name) foreach @fleet;
account_ok(\@fleet, excused => [ { from => timestamp($wiped - 1) . 'Z', to => "${from}Z" } ]);

done_testing();
