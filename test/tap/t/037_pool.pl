# The pool: executors are shared fairly between roles and databases, whatever each has to do and however long its runs take; no process is
# started for every run; a burst of one role holds up no other.
# timeout: 280

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
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

# Holds the gate of a database; the jobs that read it are long runs, until it is let go.
sub hold_gate
{
	my ($node, $database) = @_;
	my $session = $node->background_psql($database // 'postgres');

	$session->query_safe('BEGIN; LOCK TABLE gate');
	return $session;
}

my $at_gate = q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass};
my $at_gate_by_role = q{SELECT string_agg(usename || ' ' || n, ', ' ORDER BY usename) FROM (SELECT usename, count(*) AS n
	FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND relation = 'gate'::regclass GROUP BY usename) t};

sub set_limit
{
	my ($node, $setting, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	ok(wait_until($node, "SHOW $setting", $value), "$setting = $value");
	return;
}

my $node = new_instance('shared', conf => "dsched.max_executors = 4\n");
create_extension($node);
prepare($node, 'postgres');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION dsched');
prepare($node, 'other');
$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") foreach qw(a b c);
$node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('CREATE ROLE r%s LOGIN', i); END LOOP; END $$});

sub no_executors
{
	ok(wait_until($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'dsched executor'}, 0), 'executors without work leave');
	return;
}

# ---- long runs of one role leave a place ----

my $gate = hold_gate($node);
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('long_' || n, '0 s', 'TABLE gate', username => 'a') FROM generate_series(1, 8) n});
ok(wait_until($node, $at_gate, 3), 'long runs of one role have three of four executors');
ok(wait_until($node, q{SELECT state FROM dsched.status() WHERE component = 'executors'}, 'waiting'), 'status() says that more wait');
like($node->safe_psql('postgres', q{SELECT detail FROM dsched.status() WHERE component = 'executors'}), qr/^role "a" has the 3 that one role may have, and 5 runs wait/, 'for which role');
$node->safe_psql('postgres', qq{SELECT dsched.schedule_in('short_' || n, '0 s', '$logs', username => (ARRAY['b', 'c'])[n % 2 + 1]) FROM generate_series(1, 10) n});
ok(wait_until($node, q{SELECT count(*) FROM log}, 10), 'the short runs of two other roles are made meanwhile');
$node->safe_psql('other', qq{SELECT dsched.schedule_in('elsewhere', '0 s', '$logs')});
ok(wait_for(sub { (psql_try($node, 'SELECT count(*) FROM log', 'other') // '') eq '1' }), 'so is that of another database');
is($node->safe_psql('postgres', $at_gate), 3, 'while the long ones are all there, and no more of them');
set_limit($node, 'dsched.max_executors_per_role', 0);
$node->safe_psql('postgres', qq{SELECT dsched.schedule_in('one more', '0 s', '$logs', username => 'a')});
ok(wait_until($node, $at_gate, 4), 'without the limit they have all four');
set_limit($node, 'dsched.max_executors_per_role', 2);
$gate->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all of them end');

# ---- shares of roles within a limit of their database ----

set_limit($node, 'dsched.max_executors_per_role', -1);
set_limit($node, 'dsched.executor_idle_timeout', '100ms');
no_executors();
set_limit($node, 'dsched.max_executors_per_database', 2);
$gate->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('held_' || n, '0 s', 'TABLE gate', username => (ARRAY['a', 'b'])[n % 2 + 1]) FROM generate_series(1, 8) n});
ok(wait_until($node, $at_gate_by_role, 'a 1, b 1'), 'two roles share the two executors that their database may have');
my $other_gate = hold_gate($node, 'other');
$node->safe_psql('other', q{SELECT dsched.schedule_in('held_' || n, '0 s', 'TABLE gate') FROM generate_series(1, 4) n});
ok(wait_for(sub { (psql_try($node, $at_gate, 'other') // '') eq '2' }), 'the other database has the other two');
is($node->safe_psql('postgres', $at_gate_by_role), 'a 1, b 1', 'and no more are started');
$gate->query_safe('COMMIT');
$other_gate->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all of them end');
ok(wait_for(sub { (psql_try($node, 'SELECT count(*) FROM dsched.jobs', 'other') // '') eq '0' }), 'in the other database, too');
set_limit($node, 'dsched.max_executors_per_database', 0);

# ---- work that does not end, of three roles ----

$node->safe_psql('postgres', 'TRUNCATE log');
$node->safe_psql('postgres',
	qq{SELECT count(dsched.schedule_once(r || n, now() + interval '2 s', 'SELECT pg_sleep(0.03); $logs', username => r)) } .	# sleep-ok: it is to keep its executor
	q{FROM (VALUES ('a', 240), ('b', 60), ('c', 60)) v (r, most), generate_series(1, most) n});
ok(wait_until($node, q{SELECT count(*) FROM log}, 360), 'the work of three roles');
is($node->safe_psql('postgres', q{SELECT count(*) > 60 FROM log WHERE job ~ '^a' AND n > (SELECT max(n) FROM log WHERE job ~ '^b')}),
	't', 'who has much is not done before another with less');
is($node->safe_psql('postgres', q{SELECT count(*) >= 20 FROM log WHERE job ~ '^c' AND n < (SELECT max(n) FROM log WHERE job ~ '^b')}), 't', 'those with the same have it done together');
is($node->safe_psql('postgres', q{SELECT max(running) FROM (SELECT (SELECT count(*) FROM dsched.run o
	WHERE o.job_name ~ '^a\d' AND o.started_at <= r.started_at AND o.finished_at > r.started_at) AS running FROM dsched.run r WHERE r.job_name ~ '^a\d') t}),
	3, 'at no time did one have all executors');
my $starts = $node->safe_psql('postgres', 'SELECT count(DISTINCT pid) FROM log');
cmp_ok($starts, '<', 120, "with $starts executors for 360 runs");

# ---- many roles ----

$node->safe_psql('postgres', 'TRUNCATE log');
$node->safe_psql('postgres', qq{SELECT count(dsched.schedule_once('many_' || r || '_' || n, now() + interval '2 s', '$logs', username => 'r' || r))
	FROM generate_series(1, 40) n, generate_series(1, 40) r});
ok(wait_until($node, q{SELECT count(*) FROM log}, 1600, 120), 'the work of forty roles, more than the queue holds');
$starts = $node->safe_psql('postgres', 'SELECT count(DISTINCT pid) FROM log');
cmp_ok($starts, '>=', 40, 'each has executors of its own');
cmp_ok($starts, '<', 400, "but each of these makes many runs: $starts executors for 1,600");

no_executors();

# ---- a burst ----

my $scheduler = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dsched scheduler%' AND datname = 'postgres'});
my $rss = sub { my ($kb) = slurp_file("/proc/$scheduler/status") =~ /^VmRSS:\s+(\d+)/m; return $kb; };
my $burst = 20_000;

$node->safe_psql('postgres', q{SELECT dsched.schedule('beside_' || n, '* * * * * *', 'SELECT 1', username => 'b') FROM generate_series(1, 5) n});
$node->safe_psql('other', q{SELECT dsched.schedule('beside_' || n, '* * * * * *', 'SELECT 1', username => 'b') FROM generate_series(1, 5) n});
my $at = $node->safe_psql('postgres', q{SELECT date_trunc('second', now() + interval '12 s')});
$node->safe_psql('postgres', qq{SELECT count(dsched.schedule_once('burst_' || n, '$at', 'SELECT 1', username => 'a')) FROM generate_series(1, $burst) n});
my $before = $rss->();
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name ~ '^burst'}, $burst, 120), 'a burst of one role has run');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT job_id), count(*) FILTER (WHERE status <> 'succeeded') FROM dsched.run WHERE job_name ~ '^burst'}), "$burst|0", 'each once');
cmp_ok($rss->(), '<', 2 * $before + 65536, "the scheduler's memory is bounded");
my $during = qq{scheduled_for >= '$at' AND scheduled_for < (SELECT max(started_at) FROM dsched.run WHERE job_name ~ '^burst') AND job_name ~ '^beside'};
my @places = map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', qq{
	SELECT r.scheduled_for, (SELECT count(*) FROM dsched.run f WHERE f.job_name ~ '^burst' AND f.started_at >= r.scheduled_for AND f.started_at < r.started_at)
	FROM dsched.run r WHERE $during AND status = 'succeeded'});
cmp_ok(scalar @places, '>=', 5, 'jobs of another role came due meanwhile');
is_deeply([ grep { $_->[1] > $burst / 4 } @places ], [], 'and were made among the first, not after it');
my ($first, $last) = split /\|/, $node->safe_psql('postgres', q{SELECT min(started_at), max(started_at) FROM dsched.run WHERE job_name ~ '^burst'});
is($node->safe_psql('other', qq{SELECT count(*) FROM dsched.run WHERE scheduled_for = '$at' AND started_at > timestamptz '$first' + (timestamptz '$last' - '$first') / 2}), 0,
	'so were those of another database');
$node->safe_psql('other', q{SELECT dsched.unschedule('beside_' || n, 'b') FROM generate_series(1, 5) n});
account_ok($node);
$gate->quit;
$other_gate->quit;
$node->stop;

# ---- fewer background workers than executors ----

$node = new_instance('few', conf => "max_worker_processes = 6\ndsched.max_executors = 8\n");
create_extension($node);
my $hint = 'Raise max_worker_processes \(now 6\) to at least 11, or lower dsched.max_executors \(now 8\)';
ok(wait_until($node, q{SELECT hint FROM dsched.status() WHERE component = 'worker slots' AND state = 'problem'}, qr/$hint/), 'status() has the numbers');
$node->restart;
ok(wait_for(sub { slurp_file($node->logfile) =~ /too few background workers.*up to 11.*HINT:  $hint|Up to 11 background workers.*HINT:  $hint/s }), 'so has the log, at start');
prepare($node, 'postgres');
$gate = hold_gate($node);
as_worker($node, q{SELECT dsched.schedule_in('long_' || n, '0 s', 'TABLE gate') FROM generate_series(1, 8) n});
ok(wait_until($node, $at_gate, 3), 'as many executors as can be had');
ok(wait_until($node, q{SELECT substring(detail FROM '\d+')::integer > 3 FROM dsched.status() WHERE component = 'worker slots'}, 't'), 'more are tried again and again');
$gate->query_safe('COMMIT');
$gate->quit;
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all runs are made');
my @said = slurp_file($node->logfile) =~ /could not start an executor: no free background worker slot/g;
is(scalar @said, 1, 'the log says it once');
account_ok($node);

done_testing();
