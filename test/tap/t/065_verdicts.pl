# An instance that stood still for longer than its lease finds slots late that another has run meanwhile: that they were missed is not for it to say.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd();
my ($one, $two) = my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances');
as_worker($one, q{SELECT count(dsched.schedule('late' || i, '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'skip', misfire_grace => '1 s'))
	FROM generate_series(1, 20) i});
ok(wait_past('^late', 20, \@fleet, timestamp()), 'jobs of each second that are not run late');

# What it has run and not yet reported would be passed over by the other, which cannot know: it stops when all is reported of this second.
my $second = 1_000_000 * int(time());
ok(wait_for(sub {
	!grep { /"node":"node1"/ && /"watermark":(\d+)/ && $1 > $second - 3_000_000 && $1 < $second } values %{ $etcd->keys('/dsched/test/db/postgres/state/') }
}), 'and all is reported');
sigstop_instance($one);
ok(wait_owners($two, ['node2']), 'one stands still until the other has taken over');
ok(wait_past('^late', 20, [$two], timestamp()), 'and has run all jobs');
# Its coordinator is the last to wake: nobody tells the scheduler that the session is over.
my ($coordinator) = pids($one, 'dsched coordinator');
my @others = grep { $_ != $coordinator } pids($one);
kill('CONT', $one->{_pid}, @others);
ok(wait_past('^late', 20, [$two], timestamp()), 'it goes on, but for its coordinator');
ok(wait_past('^late', 20, [$two], timestamp()), 'for some seconds');
kill('CONT', $coordinator);
ok(wait_fleet(\@fleet), 'it is back');

# What was passed over belongs to nobody else: a slot with an effect has no row that says that it was missed or skipped.
my %effect;
foreach my $node (@fleet)
{
	$effect{$_} = $node->name foreach split /\n/, $node->safe_psql('postgres', 'SELECT job || slot FROM dsched_test.effects');
}
my @wrong;
foreach my $node (@fleet)
{
	push @wrong, map { "$_ was made on $effect{$_}, and is passed over on " . $node->name } grep { $effect{$_} } split /\n/, $node->safe_psql('postgres', q{
		SELECT job_name || to_char(slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
		FROM dsched.run, generate_series(scheduled_for, coalesce(last_slot, scheduled_for), '1 s') slot WHERE status IN ('missed', 'skipped')});
}
is(join("\n", @wrong), '', '[owner-late-with-verdicts] no slot has two outcomes');
account_ok(\@fleet, holes => 1);
done_testing();
