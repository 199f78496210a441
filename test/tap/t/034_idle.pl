# An idle instance makes no wake-ups: with jobs defined and nothing due, no process of dsched runs at all, as the kernel counts it.

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_instance('alone');

create_extension($node);
$node->safe_psql('postgres', q{CREATE DATABASE other});
$node->safe_psql('other',    q{CREATE EXTENSION dsched});

# Jobs of whose slots none comes due during this test, and one that has run, so that an executor is idle, too.
as_worker($node, q{SELECT dsched.schedule('yearly', '0 0 29 2 *', 'SELECT 1')});
as_worker($node, q{SELECT dsched.schedule('paused', '* * * * * *', 'SELECT 1', active => false)});
as_worker($node, q{SELECT dsched.schedule_once('later', now() + interval '1 day', 'SELECT 1')});
as_worker($node, q{SELECT dsched.schedule_in('now', '0 s', 'SELECT dsched_test.effect()')});
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects}, 1), 'a job has run');
ok(wait_for(sub { pids($node, 'dsched scheduler') == 2 }), 'two schedulers');

# How often each process of dsched gave up the processor, which it does at least once for each wake-up, and was preempted.
sub switches
{
	my %switches;

	foreach my $kind ('dsched coordinator', 'dsched scheduler', 'dsched executor')
	{
		foreach my $pid (pids($node, $kind))
		{
			my $status = slurp_file("/proc/$pid/status");

			$switches{"$kind $pid"} += $_ foreach $status =~ /ctxt_switches:\s+(\d+)/g;
		}
	}
	return \%switches;
}

# The processes that ran during so many seconds (or by then were gone, or new), in which the code was called.
sub active_during
{
	my ($seconds, $code) = @_;
	my $before = switches();
	my $until  = time() + $seconds;

	$code->() if $code;
	wait_for(sub { time() > $until }, $seconds + 1);
	my $after = switches();
	return grep { ($before->{$_} // -1) != ($after->{$_} // -1) } sort keys %{ { %$before, %$after } };
}

cmp_ok(scalar(keys %{ switches() }), '==', 4, 'coordinator, schedulers and executor are seen');

# An account is written up to five seconds after a run.
ok(wait_for(sub { !active_during(5.5) }, 30), 'they come to rest');
is_deeply([ active_during(6) ], [], 'and then no process wakes up for six seconds');

# The measure measures: one job, one wake-up of at least its scheduler and executor.
my @active = active_during(1, sub { as_worker($node, q{SELECT dsched.run_now('yearly')}) });
ok((grep { /scheduler/ } @active) && (grep { /executor/ } @active), 'what is awake is seen to be');
account_ok($node);

done_testing();
