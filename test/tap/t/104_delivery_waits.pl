# What can happen to a run with exactly_once while etcd owes it the decision: it is cancelled, it takes too long, its process or the scheduler
# is told to end, the server is stopped. In each case it has its one effect in the end.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
# the session outlives the silence; a server that cannot give it back at its stop finds its own partitions taken for so long
my $node = new_instance('node1', etcd => $etcd, conf => "dsched.lease_ttl = '12s'\ndsched.cancel_grace = '1s'\n");

create_extension($node);
ok(wait_fleet([$node]), 'an instance in a cluster');

sub executor_of
{
	my ($job) = @_;

	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = 'dsched: $job'");
}

sub run_as_superuser
{
	my ($sql) = @_;

	return sub { $node->safe_psql('postgres', $sql =~ s/\$EXECUTOR/executor_of($_[0])/er) };
}

my $scheduler = q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^dsched scheduler'};
my @cases = (
	[ cancelled => '', run_as_superuser('SELECT pg_cancel_backend($EXECUTOR)') ],
	[ timed_out => ", timeout => '1 s'", sub { } ],
	[ terminated => '', run_as_superuser('SELECT pg_terminate_backend($EXECUTOR)') ],
	[ scheduler => '', run_as_superuser($scheduler) ],
	[ stopped => '', sub { $node->stop('fast'); start_instance($node) } ],
	[ immediate => '', sub { $node->stop('immediate'); start_instance($node) } ],
);

foreach my $case (@cases)
{
	my ($job, $options, $hurt) = @$case;
	my $from_sent = $job =~ /timed_out|cancelled|terminated/;

	stop_runs_at('prepared', $node);
	as_worker($node, "SELECT dsched.schedule_in('$job', '0 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => 'exactly_once'$options)");
	ok(wait_for(sub { grep { DschedTest::_state($_) eq 'T' } pids($node, 'dsched executor') }, 20), "$job: it is prepared") or last;
	my @executors = grep { DschedTest::_state($_) eq 'T' } pids($node, 'dsched executor');

	stop_runs_at('', $node);
	$etcd->sigstop;
	kill('CONT', @executors);
	# its question is on its way
	ok(wait_until($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dsched: $job' AND wait_event = 'Extension'", 1), "$job: it waits for the decision");
	$hurt->($job);
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'"), 0, "$job: nothing is committed without it");
	# it gives up waiting, and nobody takes that for the end of the run
	ok(wait_until($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dsched: $job'", 0), "$job: its executor does not wait for ever") if $from_sent;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 1, "$job: it is left prepared") if $from_sent;
	is($node->safe_psql('postgres', "SELECT state FROM dsched.status() WHERE component = 'delivery'"), 'problem', "$job: status() says so")
	  if $from_sent && wait_until($node, "SELECT detail FROM dsched.status() WHERE component = 'delivery'", qr/etcd does not answer/);
	$etcd->sigcont;
	ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'", 1), "$job: it is committed in the end");
	ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$job: and done");
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'"), 1, "$job: once");
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = '$job' AND status = 'succeeded'"), 1, "$job: with one row that says so");
	is(scalar(append_log_lines(job => $job)), 1, "$job: by its first attempt") if $from_sent;
	ok(wait_until($node, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$job: nothing is left prepared");
	ok(wait_for(sub { !%{ $etcd->keys('/dsched/test/db/postgres/run/') } }), "$job: nor in run/");
}
is(status_of($node, 'delivery'), 'ok', 'status() is content');
account_ok($node);

done_testing();
