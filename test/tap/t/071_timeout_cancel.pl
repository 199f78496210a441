# What ends a run before its command does: its timeout, or a request to cancel it; and what it comes to when the command does not
# let itself be cancelled, or cannot be any more. One executor, so that what is meant for one run would hit the next one.
# The test clock stands still: nothing here is due but by run_now(). Timeouts go by the kernel's clock all the same.

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(time);

# The grace period is long where a cancelled query has to do, so that no slow machine turns to the other means.
my $node = new_instance('alone', allows_streaming => 1, conf => qq{
dsched.max_executors = 1
dsched.test_clock = on
dsched.cancel_grace = '5min'
synchronous_commit = local
});
create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE SCHEMA lab AUTHORIZATION worker;
CREATE FUNCTION lab.cancel(job_id bigint) RETURNS boolean AS 'dsched', 'dsched_test_cancel' LANGUAGE C;
CREATE TABLE lab.t (a int PRIMARY KEY, b text);
ALTER TABLE lab.t OWNER TO worker;
CREATE PROCEDURE lab.commits_for_ever(n int) LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		INSERT INTO lab.t VALUES (n);
		COMMIT;
		n := n + 1;
		PERFORM pg_sleep(0.01);		-- sleep-ok: a job that takes long
	END LOOP;
END $$;
CREATE PROCEDURE lab.commits(n int) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO lab.t VALUES (n);
	COMMIT;
	PERFORM count(*) FROM lab.t;
	INSERT INTO lab.t VALUES (n + 1);
END $$;
CREATE PROCEDURE lab.swallows() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(600);			-- sleep-ok: it is cancelled
EXCEPTION WHEN query_canceled THEN
	NULL;
END $$;
});

my $endless = 'SELECT pg_sleep(600)';	# sleep-ok: it is cancelled
my $stubborn = q{DO $d$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $d$};	# sleep-ok: it is ended
my $jobs = 0;

sub define_job
{
	my ($command, %opt) = @_;
	my $name = 'job' . ++$jobs;
	my $role = $opt{role} // 'worker';

	my $timeout = defined $opt{timeout} ? "'$opt{timeout}'" : 'NULL';

	$node->safe_psql('postgres',
		"SELECT dsched.schedule('$name', '\@yearly', \$command\$$command\$command\$, username => '$role', timeout => $timeout)");
	return $name;
}

sub start_command
{
	my $name = define_job(@_);

	$node->safe_psql('postgres', "SELECT dsched.run_now(job_id) FROM dsched.jobs WHERE job_name = '$name'");
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

my %timed_out = (status => 'timed_out', sqlstate => '57014', message => 'canceling job due to timeout', attempt => 1,
	detail => qr/^The job's timeout is [0-9.]+ s\.$/, command_tag => undef, rows => undef);
my %cancelled = (status => 'cancelled', sqlstate => '57014', message => 'canceling job due to request', attempt => 1);

sub rows
{
	my ($first, $last) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(a::text, ' ' ORDER BY a), '') FROM lab.t WHERE a BETWEEN $first AND $last");
}

sub waits_for
{
	my ($name, $event) = @_;

	return ok(wait_until($node, "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'dsched: $name' AND state = 'active'", $event),
		"... it runs ($event)");
}

sub cancel
{
	my ($name) = @_;

	return $node->safe_psql('postgres', "SELECT lab.cancel(job_id) FROM dsched.jobs WHERE job_name = '$name'");
}

# ---------------------------------------------------------------------------------------------------------------------
# Timeouts that a cancelled query is enough for
# ---------------------------------------------------------------------------------------------------------------------

comes_to(run_command($endless, timeout => '200ms'), { %timed_out, detail => q{The job's timeout is 0.200 s.} }, 'a statement that takes too long');
ok(slurp_file($node->logfile) =~ /ERROR:  canceling job due to timeout/, 'the log has the reason, too');
my $before = run_command('SELECT 1', timeout => '300ms');
comes_to($before, { status => 'succeeded' }, 'one that does not');
comes_to(run_command('SELECT pg_sleep(1)'), { status => 'succeeded', pid => $before->{pid} },	# sleep-ok: longer than the timer of the run before
	'its timer does not reach the next run of the session');
comes_to(run_command('SELECT 1', timeout => '366 days'), { status => 'succeeded' }, 'a timeout of a year');
comes_to(run_command('INSERT INTO lab.t VALUES (1);' . 'SELECT pg_sleep(0.2);' x 30, timeout => '1s'), {%timed_out},	# sleep-ok: jobs that take long
	'all statements of one transaction have it together');
is(rows(1, 1), '', 'nothing is kept');
comes_to(run_command('INSERT INTO lab.t VALUES (2); VACUUM lab.t;' . 'SELECT pg_sleep(0.2);' x 30, timeout => '1s'), {%timed_out},	# sleep-ok: jobs that take long
	'and so have those at top level');
is(rows(2, 2), '2', 'what was committed before is kept');
comes_to(run_command('CALL lab.commits_for_ever(1000)', timeout => '500ms'), {%timed_out}, 'a procedure that commits');
ok($node->safe_psql('postgres', 'SELECT count(*) > 1 FROM lab.t WHERE a >= 1000') eq 't', 'what it committed is kept');
comes_to(run_command("BEGIN; INSERT INTO lab.t VALUES (3); $endless; COMMIT", timeout => '200ms'), {%timed_out}, 'BEGIN ... COMMIT');
is(rows(3, 3), '', 'nothing is kept of it');
comes_to(run_command("SET statement_timeout = 0; SET lock_timeout = 0; $endless", timeout => '200ms'), {%timed_out},
	'a command that sets its own timeouts higher');
comes_to(run_command("SET statement_timeout = 50; $endless", timeout => '1 hour'),
	{ status => 'timed_out', sqlstate => '57014', message => 'canceling statement due to statement timeout' }, 'or lower, which counts, too');

# What waits for locks or other transactions.
my $other = $node->background_psql('postgres');
$other->query_safe('BEGIN; LOCK TABLE lab.t IN ACCESS EXCLUSIVE MODE');
comes_to(run_command('VACUUM lab.t', timeout => '200ms'), {%timed_out}, 'VACUUM');
comes_to(run_command('INSERT INTO lab.t VALUES (4)', timeout => '200ms'), {%timed_out}, 'a wait for a lock');
$other->query_safe('ROLLBACK; BEGIN; INSERT INTO lab.t VALUES (5)');
comes_to(run_command('CREATE INDEX CONCURRENTLY half ON lab.t (b)', timeout => '500ms'), {%timed_out}, 'CREATE INDEX CONCURRENTLY');
is($node->safe_psql('postgres', q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'lab.half'::regclass}), 'f', 'leaves an invalid index, as by hand');
$other->query_safe('COMMIT');
$node->safe_psql('postgres', 'DROP INDEX lab.half');

# What catches the cancel gets no further than its commit, or the next statement.
comes_to(run_command(q{DO $d$ BEGIN BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END;	-- sleep-ok: it is cancelled
	INSERT INTO lab.t VALUES (10); END $d$}, timeout => '200ms'), {%timed_out}, 'a block that swallows the cancel');
is(rows(10, 10), '', 'commits nothing');
comes_to(run_command('CALL lab.swallows(); INSERT INTO lab.t VALUES (11); VACUUM lab.t', timeout => '200ms'), {%timed_out}, 'a procedure that swallows it');
is(rows(11, 11), '', 'is not followed by the next statement');
comes_to(
	run_command(q{DO $d$ BEGIN BEGIN BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN RAISE EXCEPTION 'inner'; END;	-- sleep-ok: it is cancelled
	EXCEPTION WHEN raise_exception THEN RAISE EXCEPTION 'outer' USING ERRCODE = 'P0042'; END; END $d$}, timeout => '200ms'),
	{ %timed_out, detail => q{The job's timeout is 0.200 s. Then the command failed: outer} }, 'blocks that make another error of it');

# A program that the command calls hears of it, too.
comes_to(run_command(q{COPY lab.t (a) FROM PROGRAM 'exec sleep 600'}, timeout => '300ms', role => 'postgres'),	# sleep-ok: it is ended
	{%timed_out, detail => qr/^The job's timeout is 0\.300 s\./ }, 'COPY FROM PROGRAM');

# A process that is stopped meanwhile.
my $name = start_command($endless, timeout => '1s');
waits_for($name, 'PgSleep');
my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = 'dsched: $name'");
kill 'STOP', $pid;
my $until = time() + 2;
ok(wait_for(sub { time() > $until }), 'its process is stopped for longer than the timeout');
is($node->safe_psql('postgres', "SELECT status FROM dsched.runs WHERE job_name = '$name'"), 'running', 'and nothing is recorded');
kill 'CONT', $pid;
comes_to(outcome($name), {%timed_out}, 'when it goes on, it ends');

# ---------------------------------------------------------------------------------------------------------------------
# Commits that have begun
# ---------------------------------------------------------------------------------------------------------------------

# They wait for a standby that does not exist until it is no longer asked for.
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
ok(wait_until($node, 'SHOW synchronous_standby_names', 'nobody'), 'commits wait for a standby');
my $late = start_command('SET synchronous_commit = on; INSERT INTO lab.t VALUES (20)', timeout => '500ms');
waits_for($late, 'SyncRep');
$until = time() + 1;
ok(wait_for(sub { time() > $until }), '... past its timeout');
is(cancel($late), 't', '... and is cancelled then');
waits_for($late, 'SyncRep');
my $procedure = define_job('SET synchronous_commit = on; CALL lab.commits(21)');
$node->safe_psql('postgres', "SELECT dsched.run_now(job_id) FROM dsched.jobs WHERE job_name = '$procedure'");
$node->safe_psql('postgres', q{ALTER SYSTEM RESET synchronous_standby_names});
$node->reload;
comes_to(outcome($late), { status => 'succeeded' }, 'a commit that has begun is not disturbed');
is(rows(20, 20), '20', 'and has its effect');
comes_to(outcome($procedure), { status => 'succeeded' }, 'the next run is not met');
ok(slurp_file($node->logfile) !~ /canceling wait for synchronous replication/, 'no wait for a standby was cut short');

$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
ok(wait_until($node, 'SHOW synchronous_standby_names', 'nobody'), 'commits wait for a standby');
# the setting is made inside, so that the commit of SET and that of the start row do not wait
$late = start_command(q{DO $d$ BEGIN PERFORM set_config('synchronous_commit', 'on', true); INSERT INTO lab.t VALUES (31); COMMIT;
	PERFORM count(*) FROM lab.t; INSERT INTO lab.t VALUES (32); END $d$}, timeout => '500ms');
waits_for($late, 'SyncRep');
$until = time() + 1;
ok(wait_for(sub { time() > $until }), '... past its timeout');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET synchronous_standby_names});
$node->reload;
comes_to(outcome($late), {%timed_out}, 'a block that commits in between ends after that commit');
is(rows(31, 32), '31', 'and does nothing further');

# ---------------------------------------------------------------------------------------------------------------------
# Cancelling one run
# ---------------------------------------------------------------------------------------------------------------------

$name = start_command($endless);
waits_for($name, 'PgSleep');
is(cancel($name), 't', 'a cancel that meets a run');
comes_to(outcome($name), { %cancelled, detail => 'dsched was asked to end this run.' }, 'is recorded');
comes_to(run_command('SELECT 1'), { status => 'succeeded' }, 'the next run is not met');
is(cancel($name), 'f', 'a cancel of a run that is over');
$name = start_command("INSERT INTO lab.t VALUES (40); CALL lab.swallows(); INSERT INTO lab.t VALUES (41)");
waits_for($name, 'PgSleep');
is(cancel($name), 't', 'a cancel of a command that swallows it');
comes_to(outcome($name), {%cancelled}, 'counts at the next statement');
is(rows(40, 41), '40', 'which is not made');

# While it waits to write its row.
$other->quit;
$other = $node->background_psql('postgres');
$other->query_safe('BEGIN; LOCK TABLE dsched.run IN ACCESS EXCLUSIVE MODE');
$name = define_job('INSERT INTO lab.t VALUES (50)');
my $id = $node->safe_psql('postgres', "SELECT job_id FROM dsched.job WHERE job_name = '$name'");
$node->safe_psql('postgres', "SELECT dsched.run_now($id)");
waits_for($name, 'relation');
is($node->safe_psql('postgres', "SELECT lab.cancel($id)"), 't', 'a cancel of a run that waits to be recorded');
ok(wait_until($node, "SELECT count(*) FROM pg_locks WHERE pid = (SELECT pid FROM pg_stat_activity WHERE application_name = 'dsched: $name'"
		. ") AND relation = 'lab.t'::regclass", 0), 'takes back what it did');
$other->query_safe('ROLLBACK');
comes_to(outcome($name), {%cancelled}, 'and is recorded');
is(rows(50, 50), '', 'nothing is kept');

# Before it has begun: it waits to read its job.
$name = start_command($endless);
waits_for($name, 'PgSleep');
my $next = start_command('INSERT INTO lab.t VALUES (51)');
$id = $node->safe_psql('postgres', "SELECT job_id FROM dsched.job WHERE job_name = '$next'");
ok(wait_until($node, "SELECT status FROM dsched.runs WHERE job_name = '$next'", 'queued'), 'a run that is queued');
is($node->safe_psql('postgres', "SELECT lab.cancel($id)"), 'f', 'is none that runs');
$other->query_safe('BEGIN; LOCK TABLE dsched.job IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'dsched: $name'");
ok(wait_until($node, "SELECT lab.cancel($id)", 't'), 'a cancel of a run that has not read its job yet');
comes_to(outcome($next), {%cancelled}, 'is recorded');
$other->query_safe('ROLLBACK');
comes_to(outcome($name), { status => 'cancelled', message => 'canceling statement due to user request' }, 'the other was cancelled by hand');
is(rows(51, 51), '', 'it did not start');

# At any moment: cancels rain on one of two jobs that take turns in one session. What they hit ends as one of the two, once; the
# other job is never met.
my $hit = define_job('INSERT INTO lab.t SELECT 100; SELECT count(*) FROM lab.t; DELETE FROM lab.t WHERE a = 100');
my $spared = define_job('SELECT count(*) FROM lab.t');
$node->safe_psql('postgres', "SELECT dsched.run_now('$hit', 'worker'), dsched.run_now('$spared', 'worker') FROM generate_series(1, 100)");
$node->safe_psql(
	'postgres', qq{
DO \$d\$
DECLARE
	id bigint := job_id FROM dsched.job WHERE job_name = '$hit';
	give_up timestamptz := clock_timestamp() + '60 s';
BEGIN
	WHILE clock_timestamp() < give_up AND (SELECT count(*) FROM dsched.run WHERE job_name IN ('$hit', '$spared') AND status <> 'running') < 200 LOOP
		FOR i IN 1 .. (random() * 50)::int LOOP
			PERFORM lab.cancel(id);
		END LOOP;
	END LOOP;
END \$d\$});
is($node->safe_psql('postgres', "SELECT count(*), string_agg(DISTINCT status, ' ') FROM dsched.run WHERE job_name = '$spared'"),
	'100|succeeded', 'cancels of one job never meet the other');
like($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT trigger_id), string_agg(DISTINCT status, ' ' ORDER BY status) FROM dsched.run WHERE job_name = '$hit'"),
	qr/^100\|100\|cancelled( succeeded)?$/, 'what they hit is cancelled or done, and recorded once');

# ---------------------------------------------------------------------------------------------------------------------
# What does not let itself be cancelled loses its process
# ---------------------------------------------------------------------------------------------------------------------

$node->append_conf('postgresql.conf', q{dsched.cancel_grace = '300ms'});
$node->reload;
ok(wait_until($node, 'SHOW dsched.cancel_grace', '300ms'), 'a short grace period');
# the new setting reaches an executor between two runs: make a new one
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'dsched executor'});

my $ended = start_command($stubborn, timeout => '200ms');
comes_to(outcome($ended), { %timed_out, detail => undef }, 'a command that catches every cancel and goes on');
$name = start_command($stubborn);
waits_for($name, 'PgSleep');
is(cancel($name), 't', 'the same, cancelled');
comes_to(outcome($name), {%cancelled}, 'is recorded as cancelled');
my $program = start_command(q{COPY lab.t (a) FROM PROGRAM 'trap "" INT; sleep 600'}, timeout => '200ms', role => 'postgres');	# sleep-ok: it is ended
comes_to(outcome($program), { %timed_out, detail => qr/^(The job's timeout is 0\.200 s\.|$)/ }, 'a program that ignores the interrupt');
comes_to(run_command('SELECT 1'), { status => 'succeeded' }, 'others go on');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT job_name) FROM dsched.run WHERE job_name IN ('$ended', '$name', '$program')"), '3|3',
	'none of them was taken for a death of its process');
is($node->safe_psql('postgres', "SELECT count(*) FROM dsched.jobs WHERE NOT active"), '0', 'no job was paused');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status IN ('running', 'lost')}), '0', 'no start row is left, and nothing is lost');
$other->quit;
account_ok($node);
done_testing();
