# Strict delivery in a selector's place, and with run_on "each", on one instance: the place goes while a run of it is under way, the session
# lapses between the decision and the commit, the server is lost.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;

my $etcd = start_etcd();
my $relay = start_relay($etcd);
my $node = new_instance('node1', etcd => $relay, conf => "dsched.lease_ttl = '2s'\ndsched.node_labels = 'disk=ssd'\n");

create_extension($node);
ok(wait_fleet([$node]), 'an instance in a cluster');

sub begin_job
{
	my ($job, $mode, $point, $run_on) = @_;

	stop_runs_at($point, $node);
	as_worker($node, "SELECT dsched.schedule_once('$job', clock_timestamp(), 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => '$mode', run_on => '$run_on')");
	ok(wait_for(sub { stopped_executors($node) }, 30), "$job: it stops at \"$point\"") or die;
	stop_runs_at('', $node);
	return stopped_executors($node);
}

sub effects_of
{
	my ($job) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'");
}

sub settled
{
	my ($job) = @_;

	ok(wait_until($node, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$job: nothing is left prepared");
	ok(wait_for(sub { !%{ $etcd->keys('/dsched/test/db/postgres/run/') } }, 45), "$job: no key is left") or diag(join ' ', %{ $etcd->keys('/dsched/test/db/postgres/run/') });
	ok(wait_until($node, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), "$job: status() is content");
	return;
}

# ---- the last job of a selector is removed while its run is about to ask

my $scheduler = q{SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^dsched scheduler'};
my $before = $node->safe_psql('postgres', $scheduler);
my @executors = begin_job('removed', 'exactly_once', 'prepared', 'disk=ssd');

like($node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'), qr/^dsched:[^:]+:s[0-9a-f]{16}:00[0-3]:/, 'removed: the name of the transaction has the place');
as_worker($node, "SELECT dsched.unschedule('removed')");
ok(wait_until($node, q{SELECT count(*) FROM dsched.job WHERE job_name = 'removed'}, 0), 'removed: the job is gone');
kill('CONT', @executors);
ok(wait_for(sub { effects_of('removed') == 1 }, 30), '[place-gone-at-decision] removed: its run ends all the same, with its effect');
is($node->safe_psql('postgres', $scheduler), $before, 'removed: the scheduler lives');
is($node->safe_psql('postgres', q{SELECT string_agg(status, ',') FROM dsched.run WHERE job_name = 'removed'}), 'succeeded', 'removed: it has its row');
settled('removed');

# ---- the session lapses between the decision and the commit: the decision is true, and its key goes in the end

as_worker($node, q{SELECT dsched.schedule('keep', '0 0 1 1 *', 'SELECT 1', run_on => 'node=node1')});
my %run_on = (decided => 'node=node1');
foreach my $job (sort keys %run_on)
{
	@executors = begin_job($job, 'exactly_once', 'answered', $run_on{$job});
	$relay->cut;
	ok(wait_until($node, q{SELECT state <> 'ok' FROM dsched.status() WHERE component = 'etcd'}, 't'), "$job: the session lapses");
	ok(wait_for(sub { !scalar(my @owners = $etcd->keys('/dsched/test/db/postgres/owner/')) }), "$job: nobody owns a partition");
	$relay->mend;
	ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name = '} . $job . q{'}, 0), "$job: its partition is taken again, and closes it");
	kill('CONT', @executors);
	ok(wait_for(sub { effects_of($job) == 1 }, 30), "$job: it is committed");
	settled($job);
	is(effects_of($job), 1, "[lapse-after-decision] $job: once");
}

# ---- "each": the rows of the instance are all there is, and no key is asked for

my $gate = { in => "SELECT pg_advisory_lock(1), 'closed';\n", out => '' };

$gate->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$gate->{in}, '>', \$gate->{out});
$gate->{psql}->pump until $gate->{out} =~ /closed/;
foreach my $mode (qw(at_most_once exactly_once))
{
	as_worker($node, "SELECT dsched.schedule('each_$mode', '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_advisory_xact_lock_shared(1)',
		delivery => '$mode', run_on => 'each', overlap => 'queue_all', misfire => 'all')");
	ok(wait_for(sub { scalar(my @begun = append_log_lines(job => "each_$mode", phase => 'begin')) }), "each, $mode: a run has begun");
}
is(scalar(my @none = $etcd->keys('/dsched/test/db/postgres/run/')), 0, 'each: without a key');
my %first = map { $_ => (append_log_lines(job => "each_$_", phase => 'begin'))[0]{slot} } qw(at_most_once exactly_once);
kill9_everything($node);
eval { $gate->{psql}->kill_kill };
start_instance($node);
ok(wait_past('^each', 2, [$node], timestamp()), 'each: both run again after the loss of the server');
is($node->safe_psql('postgres', q{SELECT string_agg(status, ',') FROM dsched.run WHERE job_name = 'each_at_most_once' AND scheduled_for = '} . $first{at_most_once} . q{Z'}), 'lost', 'each, at_most_once: what had begun is lost');
is(scalar(my @once = append_log_lines(job => 'each_at_most_once', phase => 'begin', slot => $first{at_most_once})), 1, 'each, at_most_once: and not begun again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'each_exactly_once' AND slot = '} . $first{exactly_once} . q{'}), 1, 'each, exactly_once: what had begun is made again, with one effect');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT FROM dsched_test.effects WHERE job ~ '^each' GROUP BY job, slot HAVING count(*) > 1) t}), 0, 'each: no effect twice');
is(scalar(@none = $etcd->keys('/dsched/test/db/postgres/run/')), 0, 'each: still without a key');

# ---- slots that wait when their job moves to another place are recorded as skipped, by the place that it leaves

my $moved = { in => "SELECT pg_advisory_lock(2), 'closed';\n", out => '' };

$moved->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$moved->{in}, '>', \$moved->{out});
$moved->{psql}->pump until $moved->{out} =~ /closed/;
as_worker($node, q{SELECT dsched.schedule('moved', '* * * * * *', 'SELECT pg_advisory_xact_lock_shared(2)', overlap => 'queue_all', misfire => 'all')});
ok(wait_until($node, q{SELECT coalesce(sum(slots), 0) >= 2 FROM dsched.runs WHERE job_name = 'moved' AND status = 'waiting'}, 't'), 'moved: slots wait');
as_worker($node, q{SELECT dsched.alter_job('moved', run_on => 'disk=ssd')});
eval { $moved->{psql}->kill_kill };
ok(wait_until($node, q{SELECT coalesce(sum(slots), 0) >= 2 FROM dsched.run WHERE job_name = 'moved' AND status = 'skipped'}, 't', 10), 'moved: those that waited are recorded');
account_ok([$node]);

done_testing();
