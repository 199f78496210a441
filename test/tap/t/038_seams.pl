# Where queues, definitions and the pool meet: jobs get another queue, role or overlap policy while runs of them wait; requests come before the
# definitions that they are for; a role with a limit shares its executors among databases; no executor is started and left over and over.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_instance('seams', conf => "dsched.max_executors = 4\ndsched.queue_size = 64\n");
create_extension($node);
$node->safe_psql('postgres', q{CREATE TABLE gate (); CREATE ROLE a LOGIN; CREATE ROLE b LOGIN; CREATE ROLE c LOGIN; GRANT USAGE ON SCHEMA dsched TO PUBLIC; GRANT ALL ON gate TO PUBLIC});

my $gate = $node->background_psql('postgres');
my $at_gate = q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass};

# ---- requests for jobs that are defined in the same transaction, and more of these than are taken in at once ----

$node->safe_psql('postgres', q{BEGIN;
	SELECT count(dsched.schedule('asked_' || n, '0 0 29 2 *', 'SELECT 1')) FROM generate_series(1, 1000) n;
	SELECT count(dsched.run_now('asked_' || n)) FROM generate_series(1, 1000) n;
	COMMIT});
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name ~ '^asked'}, 1000, 30), 'each request has its outcome');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT status, ',') FROM dsched.run WHERE job_name ~ '^asked'}), 'succeeded', 'each is made');

# ---- another overlap policy, and another queue, while runs wait in a queue ----

$gate->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('postgres', q{SELECT dsched.create_queue('one', max_running => 1)});
$node->safe_psql('postgres', q{SELECT dsched.create_queue('two', max_running => 2)});
$node->safe_psql('postgres', q{SELECT dsched.schedule('first', '0 0 29 2 *', 'TABLE gate', queue => 'one', overlap => 'allow')});
$node->safe_psql('postgres', q{SELECT dsched.run_now('first') FROM generate_series(1, 6)});
ok(wait_until($node, $at_gate, 1), 'one run of a queue with one place, others wait');
$node->safe_psql('postgres', q{SELECT dsched.alter_job('first', overlap => 'queue_all'); SELECT dsched.alter_queue('one', max_running => 4)});
$node->safe_psql('postgres', q{SELECT dsched.schedule('marker', '0 0 29 2 *', 'SELECT 1', queue => 'one', username => 'c'); SELECT dsched.run_now('marker', 'c')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'marker'}, 1), 'the queue has more places now');
is($node->safe_psql('postgres', $at_gate), 1, 'but runs of a job that are not to overlap any more do not');
$node->safe_psql('postgres', q{SELECT dsched.alter_job('first', overlap => 'allow', queue => 'two')});
ok(wait_until($node, $at_gate, 3), 'in another queue there are as many as that allows, and the one from before');
$node->safe_psql('postgres', q{SELECT dsched.run_now('marker', 'c')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'marker'}, 2), 'places of the first queue are free');
is($node->safe_psql('postgres', $at_gate), 3, 'no more are started in the queue that they were in');
$gate->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FILTER (WHERE status = 'succeeded') FROM dsched.run WHERE job_name = 'first'}, 6), 'all of them are made');

# ---- one role, two databases, a limit ----

sub set_limit
{
	my ($setting, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	ok(wait_until($node, "SHOW $setting", $value), "$setting = $value");
	return;
}

set_limit('dsched.max_executors_per_role', 1);
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO PUBLIC; CREATE TABLE gate (); GRANT ALL ON gate TO PUBLIC});
my $other_gate = $node->background_psql('other');
$other_gate->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('other', q{SELECT dsched.schedule_in('holds', '0 s', 'TABLE gate', username => 'b')});
ok(wait_for(sub { (psql_try($node, $at_gate, 'other') // '') eq '1' }), 'the other database holds an executor for another role');
$node->safe_psql('postgres', q{SELECT dsched.schedule('flood_' || n, '* * * * * *', 'SELECT pg_sleep(0.02)', username => 'a') FROM generate_series(1, 100) n});	# sleep-ok: it is to keep its executor
ok(wait_until($node, q{SELECT count(*) > 20 FROM dsched.run WHERE job_name ~ '^flood'}, 't'), 'a role has more to do than one executor can');
$node->safe_psql('other', q{SELECT dsched.schedule_in('waits', '0 s', 'SELECT 1', username => 'a')});
ok(wait_for(sub { (psql_try($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'waits'}, 'other') // '') eq '1' }, 30), 'it is made in the other database, too');
$node->safe_psql('postgres', q{SELECT dsched.unschedule('flood_' || n, 'a') FROM generate_series(1, 100) n});
$other_gate->query_safe('COMMIT');
account_ok($node);
$gate->quit;
$other_gate->quit;
$node->stop;

# ---- one executor: a role that has had much, and whose next run came due long ago ----

$node = new_instance('single', conf => "dsched.max_executors = 1\n");
create_extension($node);
$node->safe_psql('postgres', q{CREATE ROLE a LOGIN; CREATE ROLE b LOGIN; GRANT USAGE ON SCHEMA dsched TO PUBLIC; CREATE TABLE log (job text, pid integer DEFAULT pg_backend_pid());
	CREATE TABLE gate (); GRANT ALL ON log, gate TO PUBLIC});
$gate = $node->background_psql('postgres');
$gate->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('long', '0 s', 'TABLE gate', username => 'a')});
ok(wait_until($node, $at_gate, 1), 'a long run has the executor');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('a_' || n, '0 s', 'INSERT INTO log (job) SELECT job_name FROM dsched.current_run()', username => 'a') FROM generate_series(1, 5) n});
ok(wait_until($node, q{SELECT clock_timestamp() > max(created_at) + interval '4 s' FROM dsched.job}, 't'), 'for a time');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('b_' || n, '0 s', 'INSERT INTO log (job) SELECT job_name FROM dsched.current_run(), pg_sleep(0.01)', username => 'b') } .	# sleep-ok: executor time
	q{FROM generate_series(1, 200) n});
$gate->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FROM log}, 205), 'all are made');
my $executors = $node->safe_psql('postgres', 'SELECT count(DISTINCT pid) FROM log');
cmp_ok($executors, '<', 15, "by $executors executors, one after the other");
account_ok($node);

done_testing();
