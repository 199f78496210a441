# An instance that stood still for longer than its lease finds slots late that another has run meanwhile: that they were missed is not for it to say.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my ($one, $two) = my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances');
as_worker($one, q{SELECT count(dsched.schedule('late' || i, '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'skip', misfire_grace => '1 s'))
	FROM generate_series(1, 20) i});
ok(wait_past('^late', 20, \@fleet, timestamp()), 'jobs of each second that are not run late');

# What it made right before, and has not reported, is passed over by the other: that is not what this is about.
my $stopped = time();
sigstop_instance($one);
ok(wait_owners($two, ['node2']), 'one stands still until the other has taken over');
ok(wait_past('^late', 20, [$two], timestamp()), 'and has run all jobs');
my @may_repeat = ({ node => 'node1', since => $stopped - 2, until => $stopped + 2 }, { node => 'node2', since => $stopped, until => time() });
# Its coordinator is the last to wake: nobody tells the scheduler that the session is over.
my ($coordinator) = pids($one, 'dsched coordinator');
my @others = grep { $_ != $coordinator } pids($one);
kill('CONT', $one->{_pid}, @others);
ok(wait_past('^late', 20, [$two], timestamp()), 'it goes on, but for its coordinator');
ok(wait_past('^late', 20, [$two], timestamp()), 'for some seconds');
kill('CONT', $coordinator);
ok(wait_fleet(\@fleet), 'it is back');

# What the other has made meanwhile is not passed over: a slot with an effect there has no row here that says that it was missed or skipped.
my %effect = map { $_ => 1 } split /\n/, $two->safe_psql('postgres', 'SELECT job || slot FROM dsched_test.effects');
my @wrong = grep { $effect{$_} } split /\n/, $one->safe_psql('postgres', q{
	SELECT job_name || to_char(slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
	FROM dsched.run, generate_series(scheduled_for, coalesce(last_slot, scheduled_for), '1 s') slot WHERE status IN ('missed', 'skipped')});
ok(%effect, 'the other has made some');
is(join("\n", @wrong), '', '[owner-late-with-verdicts] no slot has two outcomes');
account_ok(\@fleet, holes => 1, may_repeat => \@may_repeat);
done_testing();
