# What an executor keeps of the commands that it has run saves work, and changes nothing. One instance, alone; one executor, so that
# runs of one role follow each other in one session.
#
# How much work a run was, the server says itself: log_parser_stats and log_planner_stats write a line for every time that something
# is parsed, analysed or planned.
# timeout: 600

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = new_instance('alone', conf => qq{
dsched.max_executors = 1
dsched.executor_idle_timeout = '1h'
shared_preload_libraries = 'pg_stat_statements, dsched'
pg_stat_statements.track_planning = on
compute_query_id = on
});
create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_stat_statements;
CREATE SCHEMA lab AUTHORIZATION worker;
GRANT pg_read_all_stats TO worker;
ALTER ROLE worker SET log_parser_stats = on;
ALTER ROLE worker SET log_planner_stats = on;
SET ROLE worker;
CREATE TABLE lab.t (a int PRIMARY KEY, b int);
INSERT INTO lab.t SELECT g, 0 FROM generate_series(1, 10) g;
CREATE TABLE lab.seen (id serial, v text);
});

my $jobs = 0;

# Runs a command as a job of its own; its row, as a hash.
sub run_command
{
	my ($command, $role) = @_;
	my $name = 'job' . ++$jobs;
	my $json;

	$role //= 'worker';
	$node->safe_psql('postgres',
		"SELECT dsched.schedule_once('$name', now(), \$command\$$command\$command\$, username => '$role')");
	wait_for(
		sub {
			$json = psql_try($node, "SELECT row_to_json(r) FROM dsched.run r WHERE job_name = '$name' AND status <> 'running'");
			return $json;
		}) or diag("no outcome of $name");
	return $json ? decode_json($json) : { status => '(none)', job_name => $name };
}

# How often the executor parsed, analysed and planned since the log had this size.
sub work_since
{
	my ($size) = @_;
	my $log = substr(slurp_file($node->logfile), $size);

	return join(' ', map { my $what = $_; scalar(() = $log =~ /dsched executor LOG:  $what STATISTICS/g) } 'PARSER', 'PARSE ANALYSIS', 'PLANNER');
}

# Runs a command and compares status and SQLSTATE, what it put into lab.seen, and, where it is said, its work.
sub comes_to
{
	my ($command, $expected, $title, $work) = @_;
	my $size = -s $node->logfile;
	my $row = run_command($command);
	my $got = $row->{status} eq 'succeeded' ? 'succeeded' : "$row->{status} $row->{sqlstate}";
	my $seen = $node->safe_psql('postgres', 'WITH d AS (DELETE FROM lab.seen RETURNING *) SELECT string_agg(v, \' \' ORDER BY id) FROM d');

	$got .= ": $seen" if $seen ne '';
	is($got, $expected, $title) or diag("message: " . ($row->{message} // ''));
	is(work_since($size), $work, "$title: parsed, analysed, planned") if defined $work;
	return $row;
}

sub as_owner
{
	$node->safe_psql('postgres', $_[0]);
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# Work that is saved
# ---------------------------------------------------------------------------------------------------------------------

my $first = comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'an UPDATE', '1 1 1');
my $second = comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'another job with the same command', '0 0 0');
is($second->{pid}, $first->{pid}, 'both in one process');
is($second->{command_tag}, 'UPDATE 1', 'has the tag of its own run');
is($node->safe_psql('postgres', 'SELECT b FROM lab.t WHERE a = 5'), '2', 'both had their effect');
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5 ', 'succeeded', 'another text', '1 1 1');
is($node->safe_psql('postgres',
		"SELECT calls, plans, rows FROM pg_stat_statements WHERE query = 'UPDATE lab.t SET b = b + \$1 WHERE a = \$2'"),
	'3|2|3', 'pg_stat_statements sees each call, and the plans that were made');

my $several = 'UPDATE lab.t SET b = 0 WHERE a = 1; INSERT INTO lab.seen (v) SELECT b::text FROM lab.t WHERE a = 1';
comes_to($several, 'succeeded: 0', 'two statements', '1 2 2');
comes_to($several, 'succeeded: 0', 'again', '0 0 0');

my $with_temp = 'CREATE TEMP TABLE x (v text); INSERT INTO x VALUES (1); INSERT INTO lab.seen (v) SELECT v FROM x';
comes_to($with_temp, 'succeeded: 1', 'a temporary table that the next statements need', '1 3 2');
comes_to($with_temp, 'succeeded: 1', 'a new one', '0 3 2');

my $week = q{INSERT INTO lab.seen (v) SELECT now() - interval '7 days' < now()};
comes_to($week, 'succeeded: true', 'now() and an interval', '1 1 1');
comes_to($week, 'succeeded: true', 'again', '0 0 0');

comes_to('VACUUM lab.t', 'succeeded', "VACUUM ($_)") for 1 .. 2;
comes_to(q{DO $$ BEGIN INSERT INTO lab.seen (v) VALUES ('do'); END $$}, 'succeeded: do', "DO ($_)") for 1 .. 2;
as_owner('CREATE PROCEDURE lab.p(x int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO lab.seen (v) VALUES (x); COMMIT; END $$');
comes_to('CALL lab.p(1 + 1)', 'succeeded: 2', "CALL ($_)") for 1 .. 2;
comes_to('BEGIN; INSERT INTO lab.seen (v) VALUES (1); COMMIT', 'succeeded: 1', "a block ($_)") for 1 .. 2;
comes_to('SELECT a INTO lab.made FROM lab.t WHERE a < 3; INSERT INTO lab.seen (v) SELECT a FROM lab.made ORDER BY a; DROP TABLE lab.made',
	'succeeded: 1 2', "SELECT INTO ($_)") for 1 .. 2;

# ---------------------------------------------------------------------------------------------------------------------
# Whatever a new analysis would see is seen
# ---------------------------------------------------------------------------------------------------------------------

# Runs the command, and again after each change: comes to what stands beside it.
sub follows
{
	my ($title, $command, @steps) = @_;
	my $step = 0;

	while (my ($change, $expected) = splice(@steps, 0, 2))
	{
		as_owner($change) if $change ne '';
		# The first run after a change makes a plan, the second uses it.
		comes_to($command, $expected, "$title, step $step, run $_") for 1 .. 2;
		$step++;
	}
	return;
}

as_owner(q{SET ROLE worker; CREATE TABLE lab.src (v text); INSERT INTO lab.src VALUES ('src'); CREATE VIEW lab.v AS SELECT 'old' AS v;
	CREATE FUNCTION lab.f() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'old'; END $$;
	CREATE FUNCTION lab.s() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'old' $$;
	CREATE FUNCTION lab.g(numeric) RETURNS text LANGUAGE sql AS $$ SELECT 'numeric' $$});
follows('SELECT * into a table that gets a column',
	'INSERT INTO lab.seen (v) SELECT x::text FROM (SELECT * FROM lab.src) x',
	'' => 'succeeded: (src)',
	q{ALTER TABLE lab.src ADD w int DEFAULT 7} => 'succeeded: (src,7)',
	q{ALTER TABLE lab.src DROP w} => 'succeeded: (src)',
	q{DROP TABLE lab.src} => 'failed 42P01',
	q{SET ROLE worker; CREATE TABLE lab.src (v int); INSERT INTO lab.src VALUES (3)} => 'succeeded: (3)');
follows('a result that changes its columns', 'SELECT * FROM lab.src',
	'' => 'succeeded', 'ALTER TABLE lab.src ADD x int' => 'succeeded', 'ALTER TABLE lab.src DROP x' => 'succeeded');
follows('a view', 'INSERT INTO lab.seen (v) SELECT v FROM lab.v',
	'' => 'succeeded: old', q{CREATE OR REPLACE VIEW lab.v AS SELECT 'new' AS v} => 'succeeded: new');
follows('a function that is folded into the plan', 'INSERT INTO lab.seen (v) SELECT lab.f()',
	'' => 'succeeded: old',
	q{CREATE OR REPLACE FUNCTION lab.f() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'new'; END $$} => 'succeeded: new');
follows('one that is inlined', 'INSERT INTO lab.seen (v) SELECT lab.s()',
	'' => 'succeeded: old',
	q{CREATE OR REPLACE FUNCTION lab.s() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'new' $$} => 'succeeded: new');
follows('a function that fits better', 'INSERT INTO lab.seen (v) SELECT lab.g(1)',
	'' => 'succeeded: numeric',
	q{CREATE FUNCTION lab.g(int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'int'; END $$} => 'succeeded: int',
	q{DROP FUNCTION lab.g(int)} => 'succeeded: numeric');

as_owner(q{CREATE TABLE lab.secret (v text); INSERT INTO lab.secret VALUES ('secret'); GRANT SELECT ON lab.secret TO worker});
follows('privileges', 'INSERT INTO lab.seen (v) SELECT v FROM lab.secret',
	'' => 'succeeded: secret',
	'REVOKE SELECT ON lab.secret FROM worker' => 'failed 42501',
	'GRANT SELECT ON lab.secret TO worker' => 'succeeded: secret');

as_owner(q{CREATE ROLE auditor; CREATE TABLE lab.rows (v text); INSERT INTO lab.rows VALUES ('a'), ('b');
	GRANT SELECT ON lab.rows TO worker});
follows('row security', q{INSERT INTO lab.seen (v) SELECT string_agg(v, '') FROM lab.rows},
	'' => 'succeeded: ab',
	q{ALTER TABLE lab.rows ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON lab.rows TO worker USING (v = 'a')} => 'succeeded: a',
	q{ALTER POLICY p ON lab.rows USING (v = 'b')} => 'succeeded: b',
	q{CREATE POLICY q ON lab.rows TO auditor USING (true)} => 'succeeded: b',
	q{GRANT auditor TO worker} => 'succeeded: ab',
	q{REVOKE auditor FROM worker} => 'succeeded: b',
	q{ALTER ROLE worker BYPASSRLS} => 'succeeded: ab',
	q{ALTER ROLE worker NOBYPASSRLS} => 'succeeded: b');

as_owner(q{CREATE SCHEMA one AUTHORIZATION worker; CREATE SCHEMA two AUTHORIZATION worker; SET ROLE worker;
	CREATE TABLE two.n (v text); INSERT INTO two.n VALUES ('two')});
follows('names', 'INSERT INTO lab.seen (v) SELECT v FROM n',
	q{ALTER ROLE worker SET search_path = one, two} => 'succeeded: two',
	q{SET ROLE worker; BEGIN; CREATE TABLE one.n (v text); INSERT INTO one.n VALUES ('one'); COMMIT} => 'succeeded: one',
	q{ALTER TABLE one.n RENAME TO m} => 'succeeded: two',
	q{ALTER SCHEMA two RENAME TO three} => 'failed 42P01',
	q{ALTER SCHEMA three RENAME TO two} => 'succeeded: two',
	q{ALTER TABLE one.m RENAME TO n} => 'succeeded: one',
	q{ALTER ROLE worker SET search_path = two} => 'succeeded: two',
	q{ALTER ROLE worker RESET search_path} => 'failed 42P01');

as_owner(q{SET ROLE worker; CREATE TABLE lab.conf (temp bool, style text, path text); INSERT INTO lab.conf VALUES (false, 'MDY', 'two')});
my $shadow = q{SELECT set_config('search_path', path, false) FROM lab.conf;
	DO $$ BEGIN IF (SELECT temp FROM lab.conf) THEN CREATE TEMP TABLE n AS SELECT 'temp' AS v; END IF; END $$;
	INSERT INTO lab.seen (v) SELECT v FROM n};
follows('a temporary table that is there sometimes, and a path that comes from a table', $shadow,
	'' => 'succeeded: two',
	'UPDATE lab.conf SET temp = true' => 'succeeded: temp',
	'UPDATE lab.conf SET temp = false' => 'succeeded: two',
	'UPDATE lab.conf SET temp = true' => 'succeeded: temp',
	q{UPDATE lab.conf SET temp = false, path = 'one'} => 'succeeded: one');
follows('a setting that comes from a table',
	q{SELECT set_config('DateStyle', style, false) FROM lab.conf; INSERT INTO lab.seen (v) SELECT extract(month FROM date '01/02/2026')},
	'' => 'succeeded: 1', q{UPDATE lab.conf SET style = 'DMY'} => 'succeeded: 2', q{UPDATE lab.conf SET style = 'MDY'} => 'succeeded: 1');

follows('an enumeration', q{INSERT INTO lab.seen (v) SELECT 'x'::lab.e},
	q{CREATE TYPE lab.e AS ENUM ('x')} => 'succeeded: x',
	q{ALTER TYPE lab.e RENAME VALUE 'x' TO 'y'} => 'failed 22P02',
	q{ALTER TYPE lab.e ADD VALUE 'x'} => 'succeeded: x');

# An index is used once it is there.
as_owner(q{SET ROLE worker; CREATE TABLE lab.big AS SELECT g AS a FROM generate_series(1, 20000) g});
as_owner('ANALYZE lab.big');
comes_to('SELECT * FROM lab.big WHERE a = 77', 'succeeded', "without an index ($_)") for 1 .. 2;
as_owner('CREATE INDEX big_a ON lab.big (a)');
comes_to('SELECT * FROM lab.big WHERE a = 77', 'succeeded', 'with one');
ok(wait_until($node, q{SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'big_a'}, 1), 'which is used');

# ---------------------------------------------------------------------------------------------------------------------
# Literals that mean another time at another time
# ---------------------------------------------------------------------------------------------------------------------

as_owner(q{SET ROLE worker; CREATE TABLE lab.times (id serial, v timestamptz);
	CREATE FUNCTION lab.inlined() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT 'now'::timestamptz $$});
foreach my $expression (q{timestamptz 'now'}, q{'now'}, q{lower('[now,infinity)'::tstzrange)}, q{(ARRAY['now'::timestamptz])[1]},
	q{('{now}'::timestamptz[])[1]}, 'lab.inlined()')
{
	run_command("INSERT INTO lab.times (v) VALUES ($expression)") for 1 .. 3;
	is($node->safe_psql('postgres', 'WITH d AS (DELETE FROM lab.times RETURNING *) SELECT count(DISTINCT v) FROM d'), '3', "$expression is the time of the run");
}

# What is said to be immutable and reads a table; what is folded by the rules of a dictionary; literals that the cycle clause has.
as_owner(q{SET ROLE worker; CREATE FUNCTION lab.liar() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT style FROM lab.conf); END $$});
follows('a function that is no constant', 'INSERT INTO lab.seen (v) SELECT lab.liar()',
	'' => 'succeeded: MDY', q{UPDATE lab.conf SET style = 'YMD'} => 'succeeded: YMD', q{UPDATE lab.conf SET style = 'MDY'} => 'succeeded: MDY');
follows('a text search configuration', q{INSERT INTO lab.seen (v) SELECT to_tsvector('lab.words', 'running')},
	q{CREATE TEXT SEARCH CONFIGURATION lab.words (COPY = simple)} => q{succeeded: 'running':1},
	q{ALTER TEXT SEARCH CONFIGURATION lab.words ALTER MAPPING FOR asciiword WITH english_stem} => q{succeeded: 'run':1});
my $cycle = q{WITH RECURSIVE w(a) AS (SELECT 1 UNION ALL SELECT a FROM w) CYCLE a SET x TO 'today' DEFAULT 'b' USING p
	INSERT INTO lab.seen (v) SELECT count(*) FROM w};
comes_to($cycle, 'succeeded: 2', 'a cycle', '1 1 1');
comes_to($cycle, 'succeeded: 2', 'again', '0 1 1');

# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------

comes_to('SELECT 1 / 0', 'failed 22012', "an error in planning ($_)") for 1 .. 3;
comes_to('SELECT nothing FROM lab.t', 'failed 42703', "an error in analysis ($_)") for 1 .. 3;
comes_to('INSERT INTO lab.seen (v) VALUES (1); SELECT 1 / (b - b) FROM lab.t', 'failed 22012', "an error in the second statement ($_)") for 1 .. 3;
comes_to('COPY lab.t TO STDOUT', 'failed 0A000', "COPY to nobody ($_)") for 1 .. 2;
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'after that');

# ---------------------------------------------------------------------------------------------------------------------
# What empties it, and its bound
# ---------------------------------------------------------------------------------------------------------------------

comes_to('DISCARD PLANS', 'succeeded', "DISCARD PLANS ($_)") for 1 .. 2;
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'analyses again', '0 1 1');
comes_to('DISCARD ALL', 'succeeded', "DISCARD ALL ($_)") for 1 .. 2;
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'likewise');

# Reloads the configuration, and waits until the executor has taken it over.
sub set_cache_size
{
	my ($size) = @_;

	$node->append_conf('postgresql.conf', "dsched.plan_cache_size = '$size'");
	$node->reload;
	ok(wait_for(sub { run_command("INSERT INTO lab.seen (v) SELECT current_setting('dsched.plan_cache_size')");
			$node->safe_psql('postgres', 'WITH d AS (DELETE FROM lab.seen RETURNING *) SELECT v FROM d') eq $size }), "plan_cache_size = $size");
	return;
}

# Memory of the executor in plans, those of PL/pgSQL among them.
my $kept = q{INSERT INTO lab.seen (v) SELECT sum(total_bytes) FROM pg_backend_memory_contexts
	WHERE name IN ('CachedPlanSource', 'CachedPlanQuery', 'CachedPlan', 'dsched command')};
sub kept_bytes
{
	my $row = run_command($kept);

	is($row->{status}, 'succeeded', 'memory is counted');
	return $node->safe_psql('postgres', 'WITH d AS (DELETE FROM lab.seen RETURNING *) SELECT v FROM d');
}

# How much it grows by 40 different commands.
sub growth
{
	my ($offset) = @_;
	my $before = kept_bytes();

	run_command("SELECT a + $_ FROM lab.t WHERE b > $_") for $offset + 1 .. $offset + 40;
	return kept_bytes() - $before;
}

cmp_ok(growth(1000), '>', 320 * 1024, 'plans take memory');
set_cache_size('128kB');
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', 'after a reload', '1 1 1');
cmp_ok(growth(0), '<', 128 * 1024, 'which is bounded');
comes_to('SELECT a + 40 FROM lab.t WHERE b > 40', 'succeeded', 'what ran last is there', '0 0 0');
comes_to('SELECT a + 1 FROM lab.t WHERE b > 1', 'succeeded', 'what ran long ago is not', '1 1 1');
my $large = 'SELECT ' . join(', ', map { "a + $_" } 1 .. 1500) . ' FROM lab.t';
run_command('SELECT a + 40 FROM lab.t WHERE b > 40');
comes_to($large, 'succeeded', "a command with a large plan ($_)", '1 1 1') for 1 .. 2;
comes_to('SELECT a + 40 FROM lab.t WHERE b > 40', 'succeeded', 'does not drive out the others', '0 0 0');

set_cache_size('0');
comes_to('UPDATE lab.t SET b = b + 1 WHERE a = 5', 'succeeded', "nothing is kept ($_)", '1 1 1') for 1 .. 2;
comes_to(q{INSERT INTO lab.seen (v) SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'dsched command'}, 'succeeded: 0', 'nor is memory used');

ok(wait_until($node, q{SELECT application_name || state FROM pg_stat_activity WHERE backend_type = 'dsched executor'}, 'idle'),
	'an idle executor has no name of a job');
account_ok([$node]);
done_testing();
