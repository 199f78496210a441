# The wall clock of one instance is set an hour ahead, and its schedulers look at it before the coordinator has: that stands still meanwhile. They go by
# the time that was confirmed last and take no slot of the future for due. The clock is that of the chaos runs, test/chaos/clock.c.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dir   = PostgreSQL::Test::Utils::tempdir();
my $steps = 0;

# How many seconds the clock is ahead; in place, as the file is mapped.
sub set_clock
{
	my ($ahead) = @_;

	open(my $file, -e "$dir/clock" ? '+<' : '+>', "$dir/clock") or die "$dir/clock: $!";
	syswrite($file, pack('q<q<', $ahead * 1_000_000_000, $steps++)) == 16 or die "$dir/clock: $!";
	close($file);
	return;
}

sub off { return status_of($_[0], 'clock') }

# What stands for times that have not come: rows, effects, runs that are put off.
sub of_the_future
{
	my ($node) = @_;
	my $soon = timestamp(time() + 5) . 'Z';

	return $node->safe_psql('postgres', "SELECT 'row', job_name, scheduled_for, last_slot, status FROM dsched.run WHERE greatest(scheduled_for, last_slot) > '$soon'
		UNION ALL SELECT 'open', job_name, scheduled_for, NULL, status FROM dsched.runs WHERE scheduled_for > '$soon' AND status IN ('queued', 'waiting', 'running')
		UNION ALL SELECT 'effect', job, slot::timestamptz, NULL, '' FROM dsched_test.effects WHERE trigger_id = 0 AND slot || 'Z' > '$soon'");
}

my $clock = dirname(__FILE__) . '/../../chaos/clock.c';
system($ENV{CC} // 'gcc', '-O1', '-fPIC', '-shared', '-o', "$dir/clock.so", $clock, '-ldl') == 0 or die "$clock cannot be compiled";
set_clock(0);

my $etcd  = start_etcd();
my $first = new_instance('node1', etcd => $etcd, conf => "dsched.partitions = 2\ndsched.lease_ttl = '20s'\n");
my $second = new_instance('node2', etcd => $etcd, conf => "dsched.partitions = 2\ndsched.lease_ttl = '20s'\n", start => 0);
{
	local @ENV{qw(LD_PRELOAD CHAOS_CLOCK)} = ("$dir/clock.so", "$dir/clock");
	start_instance($second);
}
my @fleet = ($first, $second);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share two partitions');
as_worker($first, q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'latest') FROM generate_series(1, 6) i;
	SELECT dsched.schedule('hour' || i, '0 * * * *', 'SELECT dsched_test.effect()') FROM generate_series(1, 6) i});
ok(wait_past('tick', 6, \@fleet, timestamp()), 'jobs run');
my $there = $second->safe_psql('postgres', q{SELECT count(DISTINCT job) FROM dsched_test.effects WHERE job ~ 'tick'});
cmp_ok($there, '>', 0, "$there of them where the clock will be set");

my ($coordinator) = pids($second, 'dsched coordinator');
kill('STOP', $coordinator);
my $from = time();
set_clock(3600);
cmp_ok($second->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())'), '>', $from + 3590, 'the clock of one is an hour ahead');
# That they go on shows that they have looked at the clock since, and that the session lives.
ok(wait_past('tick', $there, [$second], timestamp($from + 2), 15), '[clock-set-forward] its schedulers go on by the time that was confirmed');
is(of_the_future($second), '', '[clock-set-forward] and take no slot of the future for due');
kill('CONT', $coordinator);
ok(wait_for(sub { off($second) =~ /^problem/ }), 'then the clock is suspect');
is(of_the_future($second), '', '[clock-set-forward] nor then');

set_clock(0);
ok(wait_for(sub { off($second) =~ /^ok/ }), 'it is right again');
ok(wait_past('tick', 6, \@fleet, timestamp()), 'all jobs run');
account_ok(\@fleet);

done_testing();
