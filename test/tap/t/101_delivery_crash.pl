# Strict delivery where a process, or the whole machine, ends between two steps of a run: before PREPARE TRANSACTION, between that and the
# decision, between the decision and COMMIT PREPARED, after that; after the claim of at_most_once, and within its command.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my $node = new_instance('node1', etcd => $etcd, conf => "dsched.lease_ttl = '2s'\n");
my $serial = 0;

create_extension($node);
$node->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker');
ok(wait_fleet([$node]), 'an instance in a cluster');

my %kill = (
	executor => sub { kill('KILL', @_); return },
	machine  => sub { kill9_everything($node); start_instance($node); return },
);

# What is to come of it: attempts that begin, of exactly_once and of at_most_once.
my @windows = (
	[ 'before prepare', 'claimed', 2, 0 ],
	[ 'prepared', 'before command', 2, 1 ],
	[ 'answered', '', 1, undef ],
	[ 'finished', '', 1, undef ],
);

foreach my $window (@windows)
{
	my ($exact_point, $most_point, $exact_attempts, $most_attempts) = @$window;

	foreach my $kind (sort keys %kill)
	{
		my $exact = 'exact_' . ++$serial;
		my $most = "most_$serial";
		my $name = "$kind at \"$exact_point\"";
		# the gate holds a command that has begun
		my $gate = $node->background_psql('postgres');

		$gate->query_safe('BEGIN; LOCK TABLE gate');
		stop_runs_at("$exact_point, $most_point", $node);
		as_worker($node, qq{SELECT dsched.schedule_in('$exact', '0 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => 'exactly_once')});
		as_worker($node, qq{SELECT dsched.schedule_in('$most', '0 s', 'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()', delivery => 'at_most_once')})
		  if defined $most_attempts;
		ok(wait_for(sub { stopped_executors($node) == 1 + ($most_point eq 'claimed' ? 1 : 0) }, 20), "$name: it stops there");
		ok(wait_for(sub { append_log_lines(job => $most) }), "$name: and the other has begun") if $most_attempts;
		my @stopped = stopped_executors($node);
		stop_runs_at('', $node);
		$kill{$kind}->(@stopped, $most_attempts ? grep { DschedTest::_state($_) ne 'T' } pids($node, 'dsched executor') : ());
		eval { $gate->query('COMMIT') };
		eval { $gate->quit };

		ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job = '$exact'", 1, 20), "$name: its effect is there") or last;
		ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name IN ('$exact', '$most')", 0, 20), "$name: both are done");
		is(scalar(append_log_lines(job => $exact, phase => 'begin')), $exact_attempts, "$name: made as often as it has to be");
		is($node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$exact'"), 1, "[killed-in-a-decision] $name: with one effect");
		is($node->safe_psql('postgres', "SELECT string_agg(status, ',') FROM dsched.run WHERE job_name = '$exact' AND status <> 'lost'"), 'succeeded', "$name: and one row of success");
		if (defined $most_attempts)
		{
			is(scalar(append_log_lines(job => $most)), $most_attempts, "[killed-in-a-claim] $name: at most once is not begun again");
			is($node->safe_psql('postgres', "SELECT string_agg(status, ',') FROM dsched.run WHERE job_name = '$most'"), 'lost', "$name: and is lost");
		}
		ok(wait_until($node, 'SELECT count(*) FROM pg_prepared_xacts', 0), "[killed-in-a-decision] $name: nothing is left prepared");
		ok(wait_for(sub { !%{ $etcd->keys('/dsched/test/db/postgres/run/') } }), "$name: nor claimed") or diag(join ' ', %{ $etcd->keys('/dsched/test/db/postgres/run/') });
	}
}
is(status_of($node, 'delivery'), 'ok', 'status() says so');
account_ok($node);

done_testing();
