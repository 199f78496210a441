# Too few of everything: background workers, executors, places in the queue, locks. It delays runs and loses none.

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

sub now_at
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT clock_timestamp()');
}

sub create_roles
{
	my ($node, @roles) = @_;

	$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA dsched TO PUBLIC');
	$node->safe_psql('postgres', join(';', map { "CREATE ROLE $_ LOGIN" } @roles));
	return;
}

# Every due one-shot of this name pattern has one effect, by its first attempt, and is gone.
sub all_ran_once
{
	my ($node, $pattern, $count, $name, $timeout) = @_;

	ok(wait_until($node, "SELECT count(*) FROM dsched_test.effects WHERE job LIKE '$pattern'", $count, $timeout), "$name: all $count ran");
	ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name LIKE '$pattern'", 0), "$name: and are done");
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT job), max(attempt) FROM dsched_test.effects WHERE job LIKE '$pattern'"),
		"$count|$count|1", "$name: each once, by its first attempt");
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT job_id), string_agg(DISTINCT status, ' ') FROM dsched.run WHERE job_name LIKE '$pattern'"),
		"$count|$count|succeeded", "$name: each recorded once");
	return;
}

# ---- the queue is smaller than the backlog, the pool smaller than the number of roles ----

my $node = new_instance('small', conf => "dsched.queue_size = 16\ndsched.max_executors = 5\n");
my @roles = map { "r$_" } 1 .. 20;

create_extension($node);
create_roles($node, @roles);

# More roles than executors, and than lanes in the queue; more runs than places.
$node->safe_psql('postgres',
	q{SELECT dsched.schedule_in('due_' || n, '0 s', 'SELECT dsched_test.effect()', username => 'r' || n % 20 + 1) FROM generate_series(1, 200) n});
all_ran_once($node, 'due\_%', 200, '200 due jobs of 20 roles');
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ') FROM dsched.status() WHERE component IN ('queue', 'executors', 'worker slots')}),
	'ok ok ok', 'status() finds nothing wrong');

# Roles that always have work do not keep others out.
$node->safe_psql('postgres',
	q{SELECT dsched.schedule('busy_' || n, '* * * * * *', 'SELECT dsched_test.effect()', username => 'r' || n) FROM generate_series(1, 8) n});
my $from = now_at($node);
ok(wait_until($node, q{SELECT count(*) FROM (SELECT job FROM dsched_test.effects WHERE job LIKE 'busy%' GROUP BY job HAVING count(*) >= 4) b}, 8), 'eight busy roles, five executors');
my $to = now_at($node);
# what came due until now has run as soon as each has run once more
ok(wait_until($node, qq{SELECT count(DISTINCT job) FROM dsched_test.effects WHERE job LIKE 'busy%' AND slot::timestamp > timestamptz '$to' AT TIME ZONE 'UTC'}, 8), 'past the end');
every_slot_once("busy_$_", [$node], schedule => '* * * * * *', from => $from, to => $to) foreach 1 .. 8;
$node->safe_psql('postgres', q{SELECT dsched.unschedule('busy_' || n, 'r' || n) FROM generate_series(1, 8) n});

# ---- locks that somebody holds ----

my $lock = $node->background_psql('postgres');

# The run's row cannot be written, by anybody, nor read.
$node->safe_psql('postgres', q{ALTER ROLE r1 SET lock_timeout = '100ms'; ALTER ROLE r6 SET lock_timeout = '100ms'; ALTER ROLE r2 SET statement_timeout = '300ms'});
$node->safe_psql('postgres', q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()', username => 'r4')});
$from = now_at($node);
$lock->query_safe('BEGIN; LOCK TABLE dsched.run');
$node->safe_psql('postgres', q{
SELECT dsched.schedule_in('locked_1', '0 s', 'SELECT dsched_test.effect()', username => 'r1');
SELECT dsched.schedule_in('locked_2', '0 s', 'SELECT dsched_test.effect()', username => 'r2');
SELECT dsched.schedule_in('vacuum', '0 s', 'VACUUM dsched_test.effects', username => 'r6');
SELECT dsched.schedule('asked', '0 0 1 1 *', 'SELECT dsched_test.effect()', username => 'r5');
SELECT dsched.run_now('asked', 'r5')});
ok(wait_until($node, q{SELECT count(*) >= 5 FROM pg_locks WHERE NOT granted AND relation = 'dsched.run'::regclass}), 'dsched.run is locked, runs wait for it');
# Attempts to record that give up, if there are any, have had the time to: until two more slots have come due.
my $until = time() + 3;
wait_for(sub { time() > $until }, 4);
$lock->query_safe('COMMIT');
all_ran_once($node, 'locked\_%', 2, 'dsched.run locked');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'asked'}, 1), 'what was asked for meanwhile ran');
is($node->safe_psql('postgres', q{SELECT string_agg(attempt || ' ' || status, ', ') FROM dsched.run WHERE job_name = 'asked'}), '1 succeeded', 'by its first attempt');
ok(wait_until($node, q{SELECT string_agg(attempt || ' ' || status, ', ') FROM dsched.run WHERE job_name = 'vacuum'}, '1 succeeded'), 'so did what cannot run in a transaction');
$to = now_at($node);
ok(wait_until($node, qq{SELECT count(*) > 0 FROM dsched_test.effects WHERE job = 'tick' AND slot::timestamp > timestamptz '$to' AT TIME ZONE 'UTC'}), 'a job that came due all the while goes on');
every_slot_accounted('tick', [$node], schedule => '* * * * * *', from => $from, to => $to);
effects_match_runs('tick', [$node]);
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status NOT IN ('succeeded', 'skipped')}), 0, '[table-of-runs-locked] nothing failed or was lost');

# A session that is idle in its transaction has changed a job, and another looks closely at one that is done meanwhile.
$node->safe_psql('postgres', q{SELECT dsched.schedule_once('watched', now() + interval '1 s', 'SELECT dsched_test.effect()', username => 'r1')});
$from = now_at($node);
$lock->query_safe(q{BEGIN; SELECT dsched.pause('tick', 'r4'); SELECT FROM dsched.job WHERE job_name = 'watched' FOR UPDATE});
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('beside_' || n, '0 s', 'SELECT dsched_test.effect()', username => 'r' || n) FROM generate_series(1, 6) n});
all_ran_once($node, 'beside\_%', 6, 'rows of dsched.job locked');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'watched'}, 1), 'the one that is looked at ran');
ok(wait_until($node, qq{SELECT count(*) > 2 FROM dsched_test.effects WHERE job = 'tick' AND slot::timestamp > timestamptz '$from' AT TIME ZONE 'UTC'}), 'the one with an uncommitted change goes on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'watched'}), 1, 'its definition waits for the lock');
$lock->query_safe('ROLLBACK');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'watched'}, 0), 'and goes when it is gone');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'watched'}), 1, 'having run once');
$to = now_at($node);
ok(wait_until($node, qq{SELECT count(*) > 0 FROM dsched_test.effects WHERE job = 'tick' AND slot::timestamp > timestamptz '$to' AT TIME ZONE 'UTC'}), 'past the end');
every_slot_once('tick', [$node], schedule => '* * * * * *', from => $from, to => $to);
account_ok($node);
$lock->quit;
$node->stop;

# ---- hardly any background workers ----

# Coordinator, PostgreSQL's own logical replication launcher, scheduler: one is left for executors.
$node = new_instance('starved', conf => "max_worker_processes = 4\n");
create_extension($node);
create_roles($node, qw(a b c));
$node->safe_psql('postgres', q{SELECT dsched.schedule('one_' || r, '* * * * * *', 'SELECT dsched_test.effect()', username => r) FROM unnest('{a,b,c}'::text[]) r});
$from = now_at($node);
ok(wait_until($node, q{SELECT count(*) FROM (SELECT job FROM dsched_test.effects GROUP BY job HAVING count(*) >= 5) b}, 3, 30), 'three roles share the only executor that can be had');
$to = now_at($node);
ok(wait_until($node, qq{SELECT count(DISTINCT job) FROM dsched_test.effects WHERE slot::timestamp > timestamptz '$to' AT TIME ZONE 'UTC'}, 3), 'past the end');
every_slot_once("one_$_", [$node], schedule => '* * * * * *', from => $from, to => $to) foreach qw(a b c);
like($node->safe_psql('postgres', q{SELECT hint FROM dsched.status() WHERE component = 'worker slots' AND state = 'problem'}),
	qr/max_worker_processes \(now 4\)/, 'status() says which setting to raise');

# None at all: the coordinator and the scheduler take what there is.
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');
$node->restart;
$from = now_at($node);
ok(wait_until($node, q{SELECT count(*) FROM dsched.status() WHERE component = 'worker slots' AND state = 'problem'}, 1), 'no executor can be had');
ok(wait_until($node, "SELECT clock_timestamp() > timestamptz '$from' + interval '2.5 s'"), 'some slots come due');
$to = now_at($node);
is($node->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE slot::timestamp > timestamptz '$from' AT TIME ZONE 'UTC'"), 0, '[worker-slots-exhausted] nothing runs');
$node->append_conf('postgresql.conf', 'max_worker_processes = 20');
$node->restart;
ok(wait_until($node, qq{SELECT count(DISTINCT job) FROM dsched_test.effects WHERE slot::timestamp > timestamptz '$to' AT TIME ZONE 'UTC'}, 3), 'it runs with enough of them');
every_slot_once("one_$_", [$node], schedule => '* * * * * *', from => $from, to => $to, name => "[worker-slots-exhausted] and what came due before was only delayed ($_)") foreach qw(a b c);
is($node->safe_psql('postgres', q{SELECT state FROM dsched.status() WHERE component = 'worker slots'}), 'ok', 'status() has nothing to say any more');
account_ok($node);

done_testing();
