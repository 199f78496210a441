# What a job's command can be, what becomes of it, and what it leaves behind. One instance, alone; one executor at a time, so
# that runs of one role follow each other in one session.

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = new_instance('alone', conf => qq{
dsched.max_executors = 1
log_min_messages = log
});
create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE SCHEMA lab AUTHORIZATION worker;
GRANT CREATE ON SCHEMA public TO worker;
CREATE TABLE lab.t (a int PRIMARY KEY, b text);
CREATE TABLE lab.child (a int REFERENCES lab.t DEFERRABLE INITIALLY DEFERRED);
CREATE PROCEDURE lab.commits(n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO lab.t VALUES (n);
	COMMIT;
	INSERT INTO lab.t VALUES (n + 1);
END $$;
CREATE PROCEDURE lab.commits_and_fails(n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO lab.t VALUES (n);
	COMMIT;
	INSERT INTO lab.t VALUES (n + 1);
	RAISE EXCEPTION 'no further' USING ERRCODE = 'P0042', DETAIL = 'the detail', HINT = 'the hint';
END $$;
CREATE PROCEDURE lab.inserts(n int) LANGUAGE sql AS 'INSERT INTO lab.t VALUES (n)';
ALTER TABLE lab.t OWNER TO worker;
ALTER TABLE lab.child OWNER TO worker;
});

my $jobs = 0;

# Starts a command as a one-shot job that is due at once; returns its name.
sub start_command
{
	my ($command, $role) = @_;
	my $name = 'job' . ++$jobs;

	$role //= 'worker';
	$node->safe_psql('postgres',
		"SELECT dsched.schedule_once('$name', now(), \$command\$$command\$command\$, username => '$role')");
	return $name;
}

# The row of a run that is over, as a hash.
sub outcome
{
	my ($name) = @_;
	my $json;

	wait_for(
		sub {
			$json = psql_try($node,
				"SELECT row_to_json(r) FROM dsched.run r WHERE job_name = '$name' AND status <> 'running' ORDER BY attempt LIMIT 1");
			return $json;
		}) or diag("no outcome of $name");
	return $json ? decode_json($json) : { status => '(none)' };
}

sub run_command
{
	return outcome(start_command(@_));
}

# Compares the fields that are named; patterns match.
sub comes_to
{
	my ($row, $expected, $title) = @_;
	my @wrong;

	foreach my $field (sort keys %$expected)
	{
		my ($got, $want) = ($row->{$field}, $expected->{$field});

		next if !defined $want && !defined $got;
		next if defined $want && defined $got && (ref $want eq 'Regexp' ? $got =~ $want : $got eq $want);
		push @wrong, sprintf('%s: got %s, expected %s', $field, $got // 'null', $want // 'null');
	}
	ok(!@wrong, $title) or diag(join("\n", @wrong, "row: " . JSON::PP->new->canonical->encode($row)));
	return;
}

sub rows
{
	my ($first, $last) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(a::text, ' ' ORDER BY a), '') FROM lab.t WHERE a BETWEEN $first AND $last");
}

# Was this run's row written by the transaction that inserted this row of lab.t?
sub one_transaction
{
	my ($row, $a) = @_;

	return $node->safe_psql('postgres',
		"SELECT t.xmin = r.xmin FROM lab.t t, dsched.run r WHERE t.a = $a AND r.job_name = '$row->{job_name}'");
}

my $row;

# ---------------------------------------------------------------------------------------------------------------------
# Statements, one and several
# ---------------------------------------------------------------------------------------------------------------------

$row = run_command('INSERT INTO lab.t SELECT g FROM generate_series(1, 3) g');
comes_to(
	$row,
	{
		status => 'succeeded', command_tag => 'INSERT 0 3', rows => 3, attempt => 1, reason => 'schedule', username => 'worker',
		node => 'alone', sqlstate => undef, message => undef, pid => qr/^\d+$/, started_at => qr/./, finished_at => qr/./
	},
	'one statement');
is(one_transaction($row, 2), 't', 'its row and its effects are of one transaction');

$row = run_command('CREATE TABLE lab.made (a int); INSERT INTO lab.t VALUES (10); SELECT * FROM lab.t');
comes_to($row, { status => 'succeeded', command_tag => 'SELECT 4', rows => 4 }, 'several statements; the last one counts');
is(one_transaction($row, 10), 't', 'of one transaction');

comes_to(run_command('INSERT INTO lab.t VALUES (11); INSERT INTO lab.t VALUES (12); SELECT 1 / 0'),
	{ status => 'failed', sqlstate => '22012', message => 'division by zero', command_tag => undef, rows => undef },
	'several statements, the last of which fails');
is(rows(11, 12), '', 'leave nothing');

comes_to(run_command('CREATE TEMP TABLE x (a int); INSERT INTO x VALUES (1); DROP TABLE x'),
	{ status => 'succeeded', command_tag => 'DROP TABLE' }, 'a statement that needs what the one before made');
comes_to(run_command('EXPLAIN ANALYZE SELECT 1'), { status => 'succeeded', command_tag => 'EXPLAIN' }, 'EXPLAIN');
comes_to(run_command('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM lab.t'),
	{ status => 'succeeded' }, 'SET TRANSACTION can come first');
comes_to(run_command('SELECT dsched_test.effect()'), { status => 'succeeded' }, 'dsched.current_run()');
is($node->safe_psql('postgres', 'SELECT count(*), min(attempt) FROM dsched_test.effects'), '1|1', 'knows the run');

# ---------------------------------------------------------------------------------------------------------------------
# What cannot be one transaction
# ---------------------------------------------------------------------------------------------------------------------

comes_to(run_command('VACUUM (ANALYZE) lab.t'), { status => 'succeeded', command_tag => 'VACUUM' }, 'VACUUM');
comes_to(run_command('CREATE INDEX CONCURRENTLY t_b ON lab.t (b)'),
	{ status => 'succeeded', command_tag => 'CREATE INDEX' }, 'CREATE INDEX CONCURRENTLY');
is($node->safe_psql('postgres', q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'lab.t_b'::regclass}), 't', 'makes a valid index');
comes_to(run_command('CREATE DATABASE made_by_job', 'postgres'),
	{ status => 'succeeded', command_tag => 'CREATE DATABASE' }, 'CREATE DATABASE');
comes_to(run_command('INSERT INTO lab.t VALUES (20); VACUUM lab.t; INSERT INTO lab.t VALUES (21); SELECT 1 / 0'),
	{ status => 'failed', sqlstate => '22012' }, 'VACUUM among others, and a failure');
is(rows(20, 21), '20 21', 'each statement is its own transaction');

$row = run_command('CALL lab.inserts(30)');
comes_to($row, { status => 'succeeded', command_tag => 'CALL' }, 'CALL');
is(one_transaction($row, 30), 't', 'of a procedure that does not commit: one transaction with the row');
$row = run_command('CALL lab.commits(31)');
comes_to($row, { status => 'succeeded' }, 'CALL of a procedure that commits');
is(one_transaction($row, 32), 't', 'its last transaction has the row');
comes_to(
	run_command('CALL lab.commits_and_fails(33)'),
	{
		status => 'failed', sqlstate => 'P0042', message => 'no further', detail => 'the detail', hint => 'the hint',
		context => qr/PL\/pgSQL function lab\.commits_and_fails\(integer\) line 6 at RAISE/
	},
	'CALL of a procedure that commits and fails: all fields of the error');
is(rows(30, 39), '30 31 32 33', 'what was committed stays');

$row = run_command('DO $d$ BEGIN INSERT INTO lab.t VALUES (40); END $d$');
comes_to($row, { status => 'succeeded', command_tag => 'DO' }, 'DO');
is(one_transaction($row, 40), 't', 'is atomic with its row');
comes_to(run_command('DO $d$ BEGIN INSERT INTO lab.t VALUES (41); COMMIT; INSERT INTO lab.t VALUES (41); END $d$'),
	{ status => 'failed', sqlstate => '23505', message => qr/"t_pkey"/ }, 'DO that commits, then violates a key that is not ours');
is(rows(40, 41), '40 41', 'what it committed stays');

$row = run_command('BEGIN; INSERT INTO lab.t VALUES (50); SAVEPOINT s; INSERT INTO lab.t VALUES (51); ROLLBACK TO s; COMMIT');
comes_to($row, { status => 'succeeded', command_tag => 'COMMIT' }, 'BEGIN ... COMMIT');
is(rows(50, 51), '50', 'with a savepoint');
$row = run_command('BEGIN; INSERT INTO lab.t VALUES (55); COMMIT');
is(one_transaction($row, 55), 't', 'is atomic with its row');
comes_to(run_command('INSERT INTO lab.t VALUES (52); BEGIN; INSERT INTO lab.t VALUES (53); ROLLBACK'),
	{ status => 'succeeded', command_tag => 'ROLLBACK' }, 'ROLLBACK at the end');
comes_to(run_command('BEGIN; INSERT INTO lab.t VALUES (54)'),
	{ status => 'failed', sqlstate => '25001', message => 'the command ended inside a transaction block' }, 'a block left open');
is(rows(52, 54), '52', 'is rolled back');

# ---------------------------------------------------------------------------------------------------------------------
# Failures
# ---------------------------------------------------------------------------------------------------------------------

comes_to(run_command("SELECT 1;\n  SELECT nothing FROM lab.t"),
	{ status => 'failed', sqlstate => '42703', context => 'LINE 2, CHARACTER 10:   SELECT nothing FROM lab.t' },
	'an error has its place in the command');
comes_to(run_command(q{DO $d$ BEGIN EXECUTE 'SELEC 1'; END $d$}),
	{ status => 'failed', sqlstate => '42601', context => qr/^PL\/pgSQL function .*\nQUERY: SELEC 1\nLINE 1, CHARACTER 1: SELEC 1$/s },
	'or in a query inside');
comes_to(run_command('INSERT INTO lab.child VALUES (999)'),
	{ status => 'failed', sqlstate => '23503', detail => 'Key (a)=(999) is not present in table "t".' }, 'a deferred constraint');
comes_to(run_command('BEGIN; INSERT INTO lab.child VALUES (999); COMMIT'),
	{ status => 'failed', sqlstate => '23503' }, 'a deferred constraint in a block');
comes_to(run_command('COPY lab.t FROM STDIN'), { status => 'failed', sqlstate => '0A000', hint => qr/file/ }, 'COPY FROM STDIN');
comes_to(run_command('LISTEN x'), { status => 'failed', sqlstate => '0A000' }, 'LISTEN');
comes_to(run_command(q{DO $d$ BEGIN RAISE EXCEPTION '%', repeat(chr(228), 20000); END $d$}),
	{ status => 'failed', message => qr/^\x{e4}{4096}$/ }, 'a long message is cut between characters');

# ---------------------------------------------------------------------------------------------------------------------
# What a run leaves behind
# ---------------------------------------------------------------------------------------------------------------------

my $as_new = q{DO $d$ BEGIN
	ASSERT current_user = 'worker' AND session_user = 'worker' AND current_setting('role') = 'none', 'role';
	ASSERT current_setting('search_path') = '"$user", public', 'search_path';
	ASSERT current_setting('transaction_read_only') = 'off', 'read only';
	ASSERT current_setting('transaction_isolation') = 'read committed', 'isolation';
	ASSERT current_setting('session_replication_role') = 'origin', 'replication role';
	ASSERT current_setting('statement_timeout') = '0' AND current_setting('lock_timeout') = '0', 'timeouts';
	ASSERT current_setting('application_name') LIKE 'dsched: job%', 'application_name';
	ASSERT to_regclass('pg_temp.left_behind') IS NULL, 'temporary table';
	ASSERT NOT EXISTS (SELECT FROM pg_prepared_statements), 'prepared statement';
	ASSERT NOT EXISTS (SELECT FROM pg_cursors), 'cursor';
	ASSERT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'), 'advisory lock';
END $d$};

sub leaves_nothing
{
	my ($command, $title) = @_;
	my $left = run_command($command);

	comes_to($left, { status => 'succeeded' }, "$title: recorded");
	my $next = run_command($as_new);
	comes_to($next, { status => 'succeeded', pid => $left->{pid} }, "$title: not found by the next run of the session");
	return;
}

comes_to(run_command($as_new), { status => 'succeeded' }, 'a session as it should be');
$node->safe_psql('postgres', 'CREATE ROLE other; GRANT other TO worker');
leaves_nothing('SET TRANSACTION READ ONLY; SELECT 1', 'a read-only transaction');
leaves_nothing('SET default_transaction_read_only = on; SET default_transaction_isolation = serializable', 'read-only transactions by default');
leaves_nothing('SET default_transaction_read_only = on; SET default_transaction_deferrable = on; SET default_transaction_isolation = serializable; VACUUM lab.t',
	'the same for a command that writes its row separately');
leaves_nothing('SET ROLE other', 'SET ROLE');
leaves_nothing('SET search_path = lab; SET statement_timeout = 100; SET lock_timeout = 1; SET application_name = x', 'settings');
leaves_nothing('CREATE TEMP TABLE left_behind (a int); CREATE TEMP TABLE run (a int); CREATE TEMP TABLE job (a int)', 'temporary tables');
leaves_nothing('PREPARE p AS SELECT 1; SELECT pg_advisory_lock(1)', 'prepared statements and locks');
leaves_nothing('DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (3 - g) FROM generate_series(1, 5) g', 'a cursor that would fail at commit');

comes_to(run_command('SET session_replication_role = replica; SET SESSION AUTHORIZATION worker', 'postgres'), { status => 'succeeded' },
	'a superuser becomes another');
comes_to(run_command(q{DO $d$ BEGIN ASSERT session_user = 'postgres' AND current_setting('is_superuser') = 'on'
	AND current_setting('session_replication_role') = 'origin'; END $d$}, 'postgres'), { status => 'succeeded' }, 'and itself again');

# Settings of a role count from the next run on.
$node->safe_psql('postgres', q{ALTER ROLE worker SET statement_timeout = '50ms'});
comes_to(run_command('SELECT pg_sleep(600)'),	# sleep-ok: it is cancelled
	{ status => 'timed_out', sqlstate => '57014' }, 'statement_timeout of the role');
$node->safe_psql('postgres', 'ALTER ROLE worker RESET statement_timeout');
comes_to(run_command($as_new), { status => 'succeeded' }, 'is gone when it is reset');
comes_to(run_command('SET statement_timeout = 50; SELECT pg_sleep(600)'),	# sleep-ok: it is cancelled
	{ status => 'timed_out', sqlstate => '57014' }, 'statement_timeout of the command');

$node->safe_psql('postgres',
	q{ALTER ROLE worker SET session_preload_libraries = 'auto_explain'; ALTER ROLE worker SET auto_explain.log_min_duration = 0;
	  ALTER ROLE worker SET log_min_duration_statement = 0});
comes_to(run_command(q{SELECT 'explain this'}), { status => 'succeeded' }, 'a run that is logged');
my $log = slurp_file($node->logfile);
ok($log =~ /duration: [0-9.]+ ms  plan:\n\s*Query Text: SELECT 'explain this'/, 'auto_explain from session_preload_libraries');
ok($log =~ /duration: [0-9.]+ ms  statement: SELECT 'explain this'/, 'log_min_duration_statement');
$node->safe_psql('postgres', 'ALTER ROLE worker RESET ALL');

# ---------------------------------------------------------------------------------------------------------------------
# Attacks on the row
# ---------------------------------------------------------------------------------------------------------------------

$node->safe_psql(
	'postgres', q{
SET ROLE worker;
CREATE FUNCTION lab.hijack(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
CREATE OPERATOR lab.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = lab.hijack);
CREATE FUNCTION lab.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
CREATE FUNCTION lab.trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$;
CREATE TABLE lab.run (a int);
CREATE TABLE lab.job (a int);
});
comes_to(run_command('SET search_path = lab, pg_catalog; SELECT 1'), { status => 'succeeded' }, 'a search path with traps');
comes_to(run_command('SET search_path = lab, pg_catalog; CALL inserts(60)'), { status => 'succeeded' }, 'the same with a start row');
comes_to(run_command('CREATE TRIGGER x BEFORE INSERT ON dsched.run FOR EACH ROW EXECUTE FUNCTION lab.trigger()'),
	{ status => 'failed', sqlstate => '42501' }, 'no trigger on dsched.run for a user');
comes_to(run_command('UPDATE dsched.run SET status = NULL'), { status => 'failed', sqlstate => '42501' }, 'nor an update');
$node->safe_psql('postgres', 'CREATE TRIGGER x BEFORE INSERT OR UPDATE ON dsched.run FOR EACH ROW EXECUTE FUNCTION lab.trigger()');
comes_to(run_command('VACUUM lab.t'), { status => 'succeeded' }, "the owner's trigger does not see the row of a run");
$node->safe_psql('postgres', 'DROP TRIGGER x ON dsched.run');
$node->safe_psql('postgres', q{CREATE INDEX extra ON dsched.run (lower(message)) WHERE status = 'failed'});
comes_to(run_command('SELECT 1 / 0'), { status => 'failed' }, "with an index of the owner's");
is($node->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*) > 0 FROM dsched.run WHERE lower(message) = 'division by zero' AND status = 'failed'}),
	't', 'which has the row');

# The table is gone when the row is to be written.
comes_to(run_command('ALTER TABLE dsched.run RENAME TO away', 'postgres'),
	{ status => 'failed', sqlstate => '42704' }, 'a command that takes the table away');
is($node->safe_psql('postgres', q{SELECT to_regclass('dsched.away') IS NULL}), 't', 'did not happen');

# ---------------------------------------------------------------------------------------------------------------------
# Runs that are ended
# ---------------------------------------------------------------------------------------------------------------------

my $name = start_command('SELECT pg_sleep(600)');	# sleep-ok: it is cancelled
my $running = "FROM pg_stat_activity WHERE application_name = 'dsched: $name' AND state = 'active' AND wait_event = 'PgSleep'";
ok(wait_until($node, "SELECT query $running", 'SELECT pg_sleep(600)'), 'pg_stat_activity shows a run');	# sleep-ok: no wait
is($node->safe_psql('postgres', "SELECT usename $running"), 'worker', 'of its role');
is($node->safe_psql('postgres', "SELECT status FROM dsched.runs WHERE job_name = '$name'"), 'running', 'so does dsched.runs');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $running");
comes_to(outcome($name), { status => 'cancelled', sqlstate => '57014' }, 'pg_cancel_backend');

# A cancel between runs does no harm.
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dsched executor'});
comes_to(run_command('SELECT 1'), { status => 'succeeded' }, 'after a cancel that met nothing');

$name = start_command('SELECT pg_terminate_backend(pg_backend_pid())');
comes_to(outcome($name), { status => 'lost', sqlstate => '57P01', message => qr/^terminating background worker/ }, 'a command that ends its process');
ok(wait_until($node, "SELECT active FROM dsched.jobs WHERE job_name = '$name'", 'f'), 'is paused');
is($node->safe_psql('postgres', "SELECT count(*), min(status), max(status) FROM dsched.run WHERE job_name = '$name'"), '3|lost|lost',
	'after three attempts');
comes_to(run_command('SELECT 1'), { status => 'succeeded' }, 'others go on');

# The session cannot begin.
$node->safe_psql('postgres', 'CREATE ROLE guest LOGIN');
comes_to(run_command('SELECT 1', 'guest'), { status => 'succeeded' }, 'a role that may log in');
$name = 'job' . ++$jobs;
$node->safe_psql('postgres', "SELECT dsched.schedule_in('$name', '1 second', 'SELECT 1', username => 'guest')");
$node->safe_psql('postgres', 'ALTER ROLE guest NOLOGIN');
comes_to(outcome($name), { status => 'failed', sqlstate => '28000', message => 'role "guest" is not permitted to log in' }, 'and no longer');
comes_to(run_command('SELECT 1'), { status => 'succeeded' }, 'others go on');

# A superuser's job that was defined while they were allowed.
$node->safe_psql('postgres', q{SELECT dsched.schedule('forbidden', '@yearly', 'SELECT 1')});
$node->append_conf('postgresql.conf', 'dsched.allow_superuser_jobs = off');
$node->reload;
ok(wait_until($node, 'SHOW dsched.allow_superuser_jobs', 'off'), 'superuser jobs are forbidden');
# The new setting reaches an executor between two runs; make a new one.
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'dsched executor'});
$node->safe_psql('postgres', q{SELECT dsched.run_now('forbidden')});
comes_to(outcome('forbidden'), { status => 'failed', sqlstate => '42501', reason => 'manual', hint => qr/dsched\.allow_superuser_jobs/ },
	'and do not run');

is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'running'}), '0', 'no start row is left');
done_testing();
