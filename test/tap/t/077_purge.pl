# Old rows go while others are recorded, around a locked row, and again and again without the table's growing; none goes that is
# needed to know, after a crash, what has run.  And how people's questions are answered when the table is large.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('purge', conf => q{
dsched.test_clock = on
dsched.max_executors = 4
dsched.run_retention = '1d'
dsched.run_retention_per_job = 30000
autovacuum = off
});
create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION clock_set(timestamptz) RETURNS void AS 'dsched', 'dsched_test_clock_set' LANGUAGE C;
CREATE FUNCTION clock_get() RETURNS timestamptz AS 'dsched', 'dsched_test_clock_get' LANGUAGE C;
CREATE FUNCTION rest() RETURNS void AS 'dsched', 'dsched_test_quiesce' LANGUAGE C;
-- n rows of a job, up to a time, as they would be after runs
CREATE FUNCTION made(job text, newest timestamptz, n integer, step interval) RETURNS void LANGUAGE sql AS $$
	INSERT INTO dsched.run (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, started_at,
			finished_at, node, epoch)
		SELECT t, j.job_id, 0, 1, j.job_name, j.username, j.gen, 'schedule', CASE i % 100 WHEN 0 THEN 'failed' ELSE 'succeeded' END,
			1, t, t, 'n', 1
		FROM dsched.job j, generate_series(n - 1, 0, -1) i, LATERAL (SELECT newest - i * step AS t) s
		WHERE j.job_name = job
$$;
SELECT dsched.schedule('other', '0 0 1 1 *', 'SELECT 1');
});
as_worker($node, q{SELECT dsched.schedule(j, '0 0 1 1 *', 'SELECT dsched_test.effect()') FROM unnest('{old,few,asked}'::text[]) j});

# ---- questions ----

my $now = '2060-01-10 00:00+00';
$node->safe_psql('postgres', qq{SELECT clock_set('$now'); SELECT rest();
	SELECT made('old', '$now', 40000, '6 s'), made('few', '$now', 100, '1 min'), made('other', '$now', 20000, '6 s');
	ANALYZE dsched.run});

sub plan
{
	my ($role, $query) = @_;
	my $plan = $node->safe_psql('postgres', "SET ROLE $role; EXPLAIN (COSTS OFF) $query");

	note("$role: $query\n$plan");
	return $plan;
}
my $order = q{SELECT * FROM dsched.runs ORDER BY scheduled_for DESC LIMIT 20};
my $hour = qq{SELECT * FROM dsched.runs WHERE scheduled_for > timestamptz '$now' - interval '1 hour' AND status = 'failed'};
my $job = q{SELECT * FROM dsched.runs WHERE job_id = (SELECT job_id FROM dsched.jobs WHERE job_name = 'few') ORDER BY scheduled_for DESC LIMIT 5};
foreach my $role ('worker', $node->safe_psql('postgres', 'SELECT quote_ident(current_user)'))
{
	like(plan($role, $order), qr/Index Scan Backward using run_pkey on run r/, "$role: the newest are at the end of the key");
	unlike(plan($role, $order), qr/Seq Scan on run\b/, '... and nothing else is read of the table');
	like(plan($role, $hour), qr/Index Scan (using|on) run_pkey.*Index Cond: \(\(?scheduled_for > /s, "$role: failures of the last hour are found by the key");
	like(plan($role, $job), qr/run_job/, "$role: those of one job by job");
	like(plan($role, 'SELECT job_name, last_run FROM dsched.jobs'), qr/run_job on run m/, "$role: and so is the last of each");
}
is($node->safe_psql('postgres', "SET ROLE worker; SELECT DISTINCT username FROM ($order) r"), 'worker', 'a role sees its own among the newest');

# ---- a locked row, and recording meanwhile ----

my $holder = $node->background_psql('postgres');
my $kept = $node->safe_psql('postgres', q{SELECT scheduled_for FROM dsched.run WHERE job_name = 'old' ORDER BY 1 OFFSET 10 LIMIT 1});
$holder->query_safe(qq{BEGIN; SELECT FROM dsched.run WHERE job_name = 'old' AND scheduled_for = '$kept' FOR KEY SHARE});
$node->safe_psql('postgres', q{SELECT clock_set('2060-01-12 00:00')});
my $asked = 0;
do
{
	as_worker($node, q{SELECT dsched.run_now('asked')});
	$asked++;
} until ($asked > 20 && $node->safe_psql('postgres', q{SELECT count(*) < 100 FROM dsched.run WHERE scheduled_for < '2060-01-11'}) eq 't') || $asked > 3000;
$node->safe_psql('postgres', 'SELECT rest()');
is($node->safe_psql('postgres', q{SELECT job_name, count(*) FROM dsched.run WHERE job_name <> 'asked' GROUP BY 1 ORDER BY 1}),
	"few|1\nold|2\nother|1", 'all that was old went but the latest of each job, and a row that was locked');
is($node->safe_psql('postgres', q{SELECT scheduled_for FROM dsched.run WHERE job_name = 'old' ORDER BY 1 LIMIT 1}), $kept, 'which is this one');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'asked' AND status = 'succeeded'}), $asked, "$asked runs were recorded meanwhile");
$holder->quit;
as_worker($node, q{SELECT dsched.run_now('asked')});
$node->safe_psql('postgres', q{SELECT clock_set('2060-01-12 02:00'); SELECT rest()});
as_worker($node, q{SELECT dsched.run_now('asked')});
$node->safe_psql('postgres', 'SELECT rest()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'old'}), 1, 'the next round takes it');

# ---- day after day ----

my @sizes;
foreach my $day (1 .. 8)
{
	my $t = sprintf('2060-02-%02d 00:00+00', $day);

	$node->safe_psql('postgres', qq{SELECT clock_set('$t'); SELECT rest(); SELECT made('old', '$t', 20000, '4 s')});
	as_worker($node, q{SELECT dsched.run_now('asked')});
	$node->safe_psql('postgres', 'SELECT rest()');
	$node->safe_psql('postgres', 'VACUUM dsched.run');
	push @sizes, $node->safe_psql('postgres', q{SELECT pg_relation_size('dsched.run') + pg_indexes_size('dsched.run')});
}
note("sizes: @sizes");
is($node->safe_psql('postgres', q{SELECT count(*) BETWEEN 20000 AND 45000 FROM dsched.run}), 't', 'the rows are those of the last days');
cmp_ok($sizes[-1], '<=', $sizes[2] * 1.1, 'the table and its indexes do not grow from the third day to the eighth');
$node->stop('fast');

# ---- nothing goes that tells what has run ----

my $crash = new_instance('crash', conf => q{
dsched.test_clock = on
dsched.run_retention = 0
dsched.run_retention_per_job = 1
dsched.run_retention_total = 1
});
create_extension($crash);
$crash->safe_psql(
	'postgres', q{
CREATE FUNCTION clock_set(timestamptz) RETURNS void AS 'dsched', 'dsched_test_clock_set' LANGUAGE C;
CREATE FUNCTION clock_get() RETURNS timestamptz AS 'dsched', 'dsched_test_clock_get' LANGUAGE C;
CREATE FUNCTION rest() RETURNS void AS 'dsched', 'dsched_test_quiesce' LANGUAGE C;
});
as_worker($crash, q{SELECT dsched.schedule('all', '*/5 * * * *', 'SELECT dsched_test.effect()', misfire => 'all', misfire_grace => '0', overlap => 'queue_all');
	SELECT dsched.schedule('fails', '*/5 * * * *', 'SELECT dsched_test.effect(); SELECT 1/0', misfire => 'all', misfire_grace => '0', overlap => 'queue_all')});
my $from = $crash->safe_psql('postgres', q{SELECT rest(); SELECT clock_get()});
$from =~ s/^\s+//;
foreach my $hours (2, 4, 6, 8)
{
	# some in the middle of it, some right after it
	ok(wait_for(sub { defined psql_try($crash, "SELECT clock_set('$from'::timestamptz + interval '$hours hours')") }), "$hours hours on");
	$crash->safe_psql('postgres', 'SELECT rest()') if $hours % 4 == 0;
	wait_until($crash, "SELECT count(*) FROM dsched_test.effects WHERE job = 'all'", sub { $_[0] >= 12 * $hours - 12 });
	kill9_everything($crash);
	start_instance($crash);
}
ok(wait_for(sub { defined psql_try($crash, "SELECT clock_set('$from'::timestamptz + interval '10 hours')") }), 'to the end');
ok(wait_until($crash, "SELECT count(*) FROM dsched_test.effects WHERE job = 'all'", sub { $_[0] >= 120 }), 'all slots ran');
$crash->safe_psql('postgres', 'SELECT rest()');
is($crash->safe_psql('postgres', q{SELECT count(*), count(DISTINCT slot) FROM dsched_test.effects WHERE job = 'all'}), '120|120', 'each once');
cmp_ok($crash->safe_psql('postgres', q{SELECT count(*) FROM dsched.run}), '<', 200, 'although most of the rows are gone');

done_testing();
