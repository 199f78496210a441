# Who gets an executor: by rank over roles and databases, also when all are busy and when the queue is full. The order by
# each policy is shown in test/regress/sql/order.sql.

use strict;
use warnings;

use DschedTest;
use Test::More;

my $logs = q{INSERT INTO log (job) SELECT job_name FROM dsched.current_run()};

sub prepare
{
	my ($node, $database) = @_;

	$node->safe_psql($database,
		q{GRANT USAGE ON SCHEMA dsched TO PUBLIC; CREATE TABLE log (n serial, job text, pid integer DEFAULT pg_backend_pid()); CREATE TABLE gate ();
		GRANT ALL ON log, log_n_seq, gate TO PUBLIC});
	return;
}

# Holds the gate; the jobs that read it wait in their executors until it is let go.
sub hold_gate
{
	my ($node) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe('BEGIN; LOCK TABLE gate');
	return $session;
}

sub at_the_gate
{
	my ($node, $n) = @_;

	ok(wait_until($node, q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass}, $n), "$n at the gate");
	return;
}

# ---- a role whose only executor is in a long run, and another that always has work ----

my $node = new_instance('three', conf => "dsched.max_executors = 3\n");
create_extension($node);
prepare($node, 'postgres');
$node->safe_psql('postgres', 'CREATE ROLE a LOGIN; CREATE ROLE b LOGIN');
my $gate = hold_gate($node);
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('long', '0 s', 'TABLE gate', username => 'a')});
at_the_gate($node, 1);
# More work than time: 40 runs of 300 ms, one every 100 ms, for two executors.
$node->safe_psql('postgres',
	qq{SELECT dsched.schedule_once('busy_' || n, now() + n * interval '0.1 s', \$\$SELECT pg_sleep(0.3); $logs\$\$, username => 'b') FROM generate_series(1, 40) n;} . # sleep-ok: it is to keep its executor
	qq{SELECT dsched.schedule_once('short', now() + interval '1 s', '$logs', username => 'a')});
ok(wait_until($node, q{SELECT count(*) FROM log WHERE job LIKE 'busy%'}, 40), 'the busy role has done its work');
my $nth = $node->safe_psql('postgres', q{SELECT n FROM log WHERE job = 'short'});
ok($nth ne '' && $nth < 30, "the other role got a second executor for its short run meanwhile: it was number $nth of 41");
at_the_gate($node, 1);
$gate->query_safe('COMMIT');
$gate->quit;
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all done');
$node->stop;

# ---- one executor, a queue of 16 places, two databases ----

$node = new_instance('one', conf => "dsched.max_executors = 1\ndsched.queue_size = 16\n");
create_extension($node);
prepare($node, 'postgres');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION dsched');
prepare($node, 'other');
$node->safe_psql('postgres', 'CREATE ROLE a LOGIN; CREATE ROLE b LOGIN');

$gate = hold_gate($node);
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('blocker', '0 s', 'TABLE gate')});
at_the_gate($node, 1);
$node->safe_psql('postgres', qq{SELECT dsched.schedule_in('flood_' || n, '0 s', '$logs', priority => -10) FROM generate_series(1, 200) n});
ok(wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE status = 'queued'}, 14), 'a flood fills the queue, but for the place that is kept');
like($node->safe_psql('postgres', q{SELECT detail FROM dsched.status() WHERE component = 'queue'}), qr/the queue is full/, 'status() says so');
$node->safe_psql('postgres', qq{SELECT dsched.schedule_in('urgent', '0 s', '$logs', priority => 10)});
ok(wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE status = 'queued' AND job_name = 'urgent'}, 1), 'one of high priority takes the place of one of them');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.runs WHERE status = 'queued'}), 14, 'there are no more places than before');
$node->safe_psql('other', qq{SELECT dsched.schedule_in('elsewhere', '0 s', '$logs', priority => 9)});
ok( wait_for(sub { (psql_try($node, q{SELECT count(*) FROM dsched.runs WHERE status = 'queued'}, 'other') // '') eq '1' }),
	'the flood has left a place for another database');
$gate->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FROM log}, 201), 'everything ran');
is($node->safe_psql('postgres', q{SELECT job FROM log ORDER BY n LIMIT 1}), 'urgent', 'the urgent one before the flood');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT job) FROM log}), 201, 'each once, also those that had to give up their places');
my $elsewhere = $node->safe_psql('other', q{SELECT finished_at FROM dsched.runs WHERE job_name = 'elsewhere'});
is($node->safe_psql('postgres', qq{SELECT count(*) < 5 FROM dsched.runs WHERE job_name LIKE 'flood%' AND started_at < timestamptz '$elsewhere'}),
	't', 'so was that of the other database');

# ---- two roles that have work all the time share an executor without a process for every run ----

$node->safe_psql('postgres', 'TRUNCATE log');
$gate->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('blocker', '0 s', 'TABLE gate')});
at_the_gate($node, 1);
$node->safe_psql('postgres',
	qq{SELECT dsched.schedule_once('turns_' || n, now() + n * interval '5 ms', '$logs', username => (ARRAY['a', 'b'])[n % 2 + 1]) FROM generate_series(1, 200) n});
ok(wait_until($node, q{SELECT now() > max(run_at) FROM dsched.jobs WHERE job_name LIKE 'turns%'}), 'all are due');
$gate->query_safe('COMMIT');
$gate->quit;
ok(wait_until($node, q{SELECT count(*) FROM log}, 200), '200 runs of two roles');
my $starts = $node->safe_psql('postgres', 'SELECT count(DISTINCT pid) FROM log');
cmp_ok($starts, '>', 1, "they take turns: $starts executors");
cmp_ok($starts, '<', 50, 'but not after each run');

account_ok($node);
done_testing();
