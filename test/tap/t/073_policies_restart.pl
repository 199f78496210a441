# The policies of a job on a server that runs alone and is stopped, crashes, or loses its scheduler: retries keep their number and their time,
# failures and deaths are counted on, what waits is run once and in order, and requests are carried out.
#
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('alone', conf => "dsched.executor_idle_timeout = '5s'\n");

create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE TABLE gate ();
GRANT ALL ON gate TO worker;
CREATE FUNCTION ended(job text) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$
	SELECT count(*) FROM dsched.run WHERE job_name = job AND status IN ('succeeded', 'failed')
$$;
-- The n-th run of a job does as the n-th letter says: f, it fails.
CREATE FUNCTION scripted(script text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF substr(script, (SELECT ended(job)::int FROM dsched_test.this_run()) + 1, 1) = 'f' THEN
		RAISE EXCEPTION 'as scripted';
	END IF;
END $$;
});

sub scalar_of
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub signal_process
{
	my ($signal, $kind) = @_;
	my ($pid) = pids($node, $kind);

	ok(defined $pid, "there is a $kind");
	kill($signal, $pid);
	# by then it is gone, with or without the others
	ok(wait_for(sub { !grep { $_ == $pid } pids($node, $kind) }), '... which is gone');
	return;
}

my @deaths = (
	[ 'restart',         sub { $node->restart } ],
	[ 'immediate stop',  sub { $node->stop('immediate'); start_instance($node) } ],
	[ 'scheduler KILL',  sub { signal_process('KILL', 'dsched scheduler') } ],
	[ 'scheduler TERM',  sub { signal_process('TERM', 'dsched scheduler') } ],
	[ 'postmaster KILL', sub { kill9_instance($node); start_instance($node) } ],
	[ 'machine lost',    sub { kill9_everything($node); start_instance($node) } ]);

sub attempts_of
{
	my ($job, $more) = @_;

	return psql_try($node, "SELECT coalesce(string_agg(attempt || ' ' || status, ', ' ORDER BY attempt), '') FROM dsched.run WHERE job_name = '$job' "
		. ($more // '')) // '';
}

# ---- retries, and failures in a row ----

# Retries of each origin that are far away
as_worker($node, q{
SELECT dsched.schedule('far_slot', '* * * * * *', 'SELECT 1 / 0', max_runs => 1, max_attempts => 3, retry_delay => '1 hour', retry_max_delay => '2 hours');
SELECT dsched.schedule_in('far_once', '0 s', 'SELECT 1 / 0', max_attempts => 3, retry_delay => '1 hour', retry_max_delay => '2 hours');
SELECT dsched.schedule('far_asked', '@yearly', 'SELECT 1 / 0', max_attempts => 3, retry_delay => '1 hour', retry_max_delay => '2 hours');
SELECT dsched.schedule('far_back', '@yearly', 'SELECT 1 / 0', overlap => 'allow', max_attempts => 3, retry_delay => '1 hour', retry_max_delay => '2 hours');
SELECT dsched.run_now('far_asked');
SELECT dsched.backfill('far_back', '2020-01-01', '2024-12-31');
});
my $waiting = q{
SELECT string_agg(concat_ws(' ', job_name, run_key, attempt, status, extract(epoch FROM not_before)), E'\n' ORDER BY job_name, run_key)
FROM dsched.runs WHERE job_name ~ '^far' AND not_before > now() + interval '10 min'};
ok(wait_until($node, "SELECT count(*) FROM ($waiting) w WHERE string_agg ~ '(.*\n){7}'", 1), 'retries of slots, requests and a backfill wait');
my $retries = scalar_of($waiting);
is(scalar(grep { / 2 waiting / } split /\n/, $retries), 8, 'eight second attempts');
note($retries);
# each is computed from the row that failed
is(scalar_of(q{SELECT count(*) FROM dsched.runs w JOIN dsched.run r ON (r.job_id, r.scheduled_for, r.trigger_id) = (w.job_id, w.scheduled_for, w.trigger_id)
	WHERE w.not_before BETWEEN r.finished_at + interval '30 min' AND r.finished_at + interval '1 hour' AND r.status = 'failed' AND r.attempt = 1}), 8,
	'in half to all of their delay after the failure');

my $all_fail = 'f' x 60;
my $resets = ('ffs' x 6) . 'fff' . ('s' x 9);
as_worker($node, qq{
SELECT dsched.schedule('in_a_row', '* * * * * *', 'SELECT scripted(''$all_fail''), dsched_test.effect()', max_failures => 20);
SELECT dsched.schedule('reset', '* * * * * *', 'SELECT scripted(''$resets''), dsched_test.effect()', max_failures => 3);
SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()');
});

my %not_before;
foreach my $death (@deaths)
{
	my ($kind, $hurt) = @$death;
	(my $job = "near $kind") =~ tr/ A-Z/_a-z/;

	as_worker($node, qq{SELECT dsched.schedule_in('$job', '0 s', 'SELECT dsched_test.log(''begin''), 1 / 0', max_attempts => 3,
		retry_delay => '4 s', retry_max_delay => '4 s')});
	ok(wait_until($node, "SELECT attempt FROM dsched.runs WHERE job_name = '$job' AND status = 'waiting'", 2), "$kind: a retry waits");
	$not_before{$job} = scalar_of("SELECT max(not_before) FROM dsched.runs WHERE job_name = '$job'");
	$hurt->();
	ok(wait_until($node, $waiting, $retries), "[retry-over-restart] $kind: the far retries have their numbers and times");
	is(scalar_of(q{SELECT count(*) FROM dsched.run WHERE job_name ~ '^far' AND attempt > 1}), 0, "$kind: none was made");
}
foreach my $job (sort keys %not_before)
{
	ok(wait_until($node, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$job is done with");
	is(attempts_of($job, q{AND status <> 'lost'}) =~ s/^\d+ |, \d+ / /gr, ' failed failed failed', "$job: three attempts have failed, and no more");
	is(scalar_of("SELECT count(*) FROM dsched.run WHERE job_name = '$job' AND attempt = 2 AND started_at < '$not_before{$job}'"), 0,
		"$job: the second one not before its time");
	is(scalar_of("SELECT max(attempt) = count(*) FROM dsched.run WHERE job_name = '$job'"), 't', "$job: numbered from 1");
}

foreach my $job ('in_a_row', 'reset')
{
	ok(wait_until($node, "SELECT active FROM dsched.jobs WHERE job_name = '$job'", 'f'), "$job is paused");
}
is(scalar_of(q{SELECT problem FROM dsched.jobs WHERE job_name = 'in_a_row'}), 'paused: 20 runs in a row failed (max_failures)', 'after as many failures as said');
is(scalar_of(q{SELECT count(*) FROM dsched.run WHERE job_name = 'in_a_row' AND status = 'failed'}), 20, 'and no more');
is(scalar_of(q{SELECT string_agg(left(status, 1), '' ORDER BY scheduled_for, attempt) FROM dsched.run WHERE job_name = 'reset' AND status IN ('failed', 'succeeded')}),
	('ffs' x 6) . 'fff', 'a success in between begins the count anew');
account_ok($node);

# ---- deaths ----

my $ears = $node->background_psql('postgres');
$ears->query_safe('LISTEN dsched');
my $keeper = $node->background_psql('postgres');
$keeper->query_safe('BEGIN; LOCK TABLE gate');
as_worker($node, q{
SELECT dsched.schedule('fragile', '@yearly', 'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()', max_lost => 1);
SELECT dsched.run_now('fragile')});
ok(wait_until($node, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dsched: fragile' AND wait_event = 'relation'}, 1), 'a run is under way');
scalar_of(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dsched: fragile'});
ok(wait_until($node, q{SELECT active FROM dsched.jobs WHERE job_name = 'fragile'}, 'f'), 'max_lost of 1: its process ends, the job is paused');
my $heard = '';
ok(wait_for(sub { $heard .= $ears->query('SELECT 1'); $heard =~ /"event":"paused","job":"fragile"/ }), 'who listens hears of it') or diag($heard);
like($heard, qr/"event":"paused","job":"fragile".*max_lost/, 'with the reason');
attempts_at_most('fragile', 1);
is(attempts_of('fragile'), '1 lost', 'one attempt');
$ears->quit;
$keeper->quit;

$node->safe_psql('postgres', q{SELECT dsched.schedule('killer', '* * * * * *',
	$$SELECT dsched_test.log('begin'); COPY (SELECT) TO PROGRAM 'kill -9 $PPID'$$, max_lost => 1)});
ok(wait_until($node, q{SELECT active FROM dsched.jobs WHERE job_name = 'killer'}, 'f'), 'one that kills the server is paused');
attempts_at_most('killer', 2);    # a first one without a start row that the crash undid, perhaps
is(attempts_of('killer', q{AND status NOT IN ('skipped')}), '1 lost', 'with one attempt that was lost');

# ---- backfills ----

foreach my $overlap ('allow', 'skip')
{
	as_worker($node, qq{
	SELECT dsched.schedule('back_$overlap', '0 * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', overlap => '$overlap');
	SELECT dsched.backfill('back_$overlap', '2026-01-01 00:00+00', '2026-01-13 11:00+00')});
}
sub backfilled
{
	my ($overlap) = @_;

	return psql_try($node, "SELECT count(*) FROM dsched_test.effects WHERE job = 'back_$overlap'") // 0;
}
foreach my $part (60, 120, 180)
{
	ok(wait_for(sub { backfilled('allow') >= $part && backfilled('skip') >= $part }), "$part slots of two backfills are made");
	kill9_everything($node) if $part < 180;
	signal_process('KILL', 'dsched scheduler') if $part == 180;
	start_instance($node) if $part < 180;
}
foreach my $overlap ('allow', 'skip')
{
	ok(wait_until($node, "SELECT count(*) FROM dsched.outbox o JOIN dsched.job USING (job_id) WHERE job.job_name = 'back_$overlap'", 0), "$overlap: the request is done");
	is(scalar_of("SELECT count(*), count(DISTINCT slot), min(slot), max(slot) FROM dsched_test.effects WHERE job = 'back_$overlap'"),
		'300|300|2026-01-01T00:00:00.000000|2026-01-13T11:00:00.000000', "$overlap: each slot was run once");
	is(scalar_of("SELECT count(*) FROM dsched.run WHERE job_name = 'back_$overlap' AND status = 'succeeded' AND reason = 'backfill'"), 300, "$overlap: so it is recorded");
	is(scalar_of("SELECT count(*) FROM dsched.run WHERE job_name = 'back_$overlap' AND status NOT IN ('succeeded', 'lost')"), 0, "$overlap: nothing else is");
	is(scalar_of("SELECT count(*) FROM dsched.runs WHERE job_name = 'back_$overlap' AND status IN ('queued', 'waiting', 'running')"), 0, "$overlap: nothing is left");
}
is(scalar_of(q{SELECT count(*) FROM (SELECT slot < lag(slot) OVER (ORDER BY at) AS back FROM dsched_test.effects WHERE job = 'back_skip') s WHERE back}), 0,
	'skip: in order');
account_ok($node);

# ---- requests to cancel, right before a crash ----

$keeper = $node->background_psql('postgres');
$keeper->query_safe('BEGIN; LOCK TABLE gate');
my $passes = q{'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()'};
as_worker($node, qq{
SELECT dsched.schedule('cancel_asked', '\@yearly', $passes);
SELECT dsched.schedule('cancel_back', '0 * * * *', $passes);
SELECT dsched.backfill('cancel_back', '2026-01-01 00:00+00', '2026-01-13 11:00+00')});
my @keys = split /\n/, as_worker($node, q{SELECT dsched.run_now('cancel_asked') FROM generate_series(1, 3)});
ok(wait_until($node, q{SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'dsched: cancel' AND wait_event = 'relation'}, 2), 'two runs are under way');
my ($scheduler) = pids($node, 'dsched scheduler');
kill('STOP', $scheduler);
push @keys, split /\n/, scalar_of(q{SELECT run_key FROM dsched.runs WHERE job_name ~ '^far' AND status IN ('queued', 'waiting', 'running')
	UNION SELECT concat_ws(':', job_id, '*', outbox_id) FROM dsched.outbox WHERE kind = 'backfill'
		AND job_id = (SELECT job_id FROM dsched.job WHERE job_name = 'cancel_back')});
is(scalar(@keys), 12, 'all that is to be cancelled') or diag(join("\n", @keys));
as_worker($node, join('; ', map { "SELECT dsched.cancel('$_')" } @keys));
kill9_everything($node);
start_instance($node);
ok(wait_until($node, q{SELECT count(*) FROM dsched.outbox}, 0), '[cancel-then-crash] requests to cancel are carried out after a crash');
is(scalar_of(q{SELECT count(*) FROM dsched.runs WHERE job_name ~ '^far|^cancel' AND status IN ('queued', 'waiting', 'running')}), 0, 'nothing is left to run');
is(scalar_of(q{SELECT count(*) FROM dsched_test.effects WHERE job ~ '^cancel'}), 0, 'nothing was run');
is(scalar_of(q{SELECT count(*), count(*) FILTER (WHERE status = 'cancelled') FROM (
	SELECT DISTINCT ON (job_id, scheduled_for, trigger_id) * FROM dsched.run WHERE job_name ~ '^far|cancel_asked' ORDER BY job_id, scheduled_for, trigger_id, attempt DESC) r}),
	'11|11', 'each run ended as cancelled');
is(scalar_of(q{SELECT sum(slots) FROM dsched.run WHERE job_name = 'cancel_back' AND status = 'cancelled'}), 300, 'and all slots of the backfill');
account_ok($node);

# ---- a timeout, and a scheduler that is killed ----

as_worker($node, q{SELECT dsched.schedule('too_long', '@yearly', 'SELECT dsched_test.log(''begin''), pg_sleep(600)', timeout => '2 s', max_attempts => 2, retry_delay => '100 ms');	-- sleep-ok: it is ended
SELECT dsched.run_now('too_long')});
ok(wait_for(sub { append_log_lines(job => 'too_long') }), 'a run that is too long is under way');
signal_process('KILL', 'dsched scheduler');
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'too_long' AND status = 'timed_out'}, 2), 'it is ended twice, as the crash is no attempt of its own');
ok(wait_until($node, q{SELECT count(*) FROM dsched.outbox}, 0), 'and done with');
is(attempts_of('too_long'), '1 lost, 2 timed_out, 3 timed_out', 'its attempts');

ok(wait_past('tick', 1, [$node], timestamp()), 'all the while there was another job');
is(scalar_of(q{SELECT count(*) FROM dsched.run WHERE job_name = 'tick' AND status NOT IN ('succeeded', 'lost') AND reason <> 'overlap'}), 0, 'which ran at all its times');
effects_match_runs('tick', [$node]);
account_ok($node);
$node->stop('fast');

# ---- thousands of slots that wait, by a clock that is moved; a restart sets it back ----

my $still = new_instance('still', conf => "dsched.test_clock = on\ndsched.max_executors = 2\n");
create_extension($still);
$still->safe_psql(
	'postgres', q{
CREATE FUNCTION clock_set(timestamptz) RETURNS void AS 'dsched', 'dsched_test_clock_set' LANGUAGE C;
CREATE FUNCTION clock_get() RETURNS timestamptz AS 'dsched', 'dsched_test_clock_get' LANGUAGE C;
CREATE FUNCTION rest() RETURNS void AS 'dsched', 'dsched_test_quiesce' LANGUAGE C;
});
as_worker($still, q{SELECT dsched.schedule('backlog', '* * * * * *', 'SELECT dsched_test.effect()', overlap => 'queue_all', misfire_grace => '2 hours');
	SELECT dsched.schedule('misfired', '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'all', misfire_grace => '0')});
my $late = $still->safe_psql('postgres', q{SELECT rest(); SELECT date_trunc('second', clock_get()) + interval '30 min 100 ms'});
$late =~ s/^\s+//;
my $made = q{SELECT count(*) FROM dsched_test.effects WHERE job = 'backlog'};
my @hits = (
	[ 300,  sub { kill9_everything($still); start_instance($still) } ],
	[ 600,  sub { $still->restart } ],
	[ 900,  sub { $still->stop('immediate'); start_instance($still) } ],
	[ 1200, sub { my ($pid) = pids($still, 'dsched scheduler'); kill('TERM', $pid) } ]);
$still->safe_psql('postgres', "SELECT clock_set('$late')");
foreach my $hit (@hits)
{
	ok(wait_until($still, $made, sub { $_[0] >= $hit->[0] }), "$hit->[0] slots of a backlog are made");
	$hit->[1]->();
	ok(wait_for(sub { defined psql_try($still, "SELECT clock_set('$late')") }), '... a death, and on');
}
ok(wait_until($still, "SELECT count(*) FROM dsched_test.effects", sub { $_[0] >= 3600 }), 'all are made');
ok(wait_until($still, q{SELECT count(*) FROM dsched.runs WHERE status IN ('queued', 'waiting', 'running')}, 0), 'nothing is left');
foreach my $job ('backlog', 'misfired')
{
	like($still->safe_psql('postgres', "SELECT count(*), count(DISTINCT slot), extract(epoch FROM max(slot::timestamp) - min(slot::timestamp))::int + 1 - count(*)
		FROM dsched_test.effects WHERE job = '$job'"), qr/^(18\d\d)\|\1\|0$/, "$job: each slot ran once, none is missing");
	is($still->safe_psql('postgres', "SELECT count(*) FROM (SELECT slot < lag(slot) OVER (ORDER BY at) AS back FROM dsched_test.effects WHERE job = '$job') s WHERE back"), 0,
		"$job: in order");
	is($still->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = '$job' AND status NOT IN ('succeeded', 'lost')"), 0, "$job: none was passed over");
}
account_ok($still, until => $late);

# ---- jitter: the delay of a time is the same after a restart ----

# The same times come twice, as the clock is set back and the job defined anew in between.
my ($start, $stop) = split /\|/, $still->safe_psql('postgres',
	"SELECT t, t + interval '100 s' FROM (SELECT date_trunc('minute', timestamptz '$late') + interval '1 min') m (t)");
sub delays
{
	$still->safe_psql('postgres', join(' ', map { "SELECT clock_set('$start'::timestamptz + interval '$_ s'); SELECT rest();" } 0 .. 100));
	return $still->safe_psql('postgres', q{SELECT string_agg(scheduled_for || ' ' || started_at, E'\n' ORDER BY scheduled_for) FROM dsched.run WHERE job_name = 'spread'});
}
$still->safe_psql('postgres', "SELECT clock_set('$start')");
as_worker($still, q{SELECT dsched.unschedule('backlog'); SELECT dsched.unschedule('misfired');
	SELECT dsched.schedule('spread', '*/10 * * * * *', 'SELECT dsched_test.effect()', jitter => '10 s')});
my $first = delays();
cmp_ok(scalar(split /\n/, $first), '>=', 9, 'times with a jitter');
$still->safe_psql('postgres', q{DELETE FROM dsched.run WHERE job_name = 'spread'});
$still->safe_psql('postgres', "SELECT clock_set('$start'); SELECT account.forget('spread')");
as_worker($still, q{SELECT dsched.alter_job('spread', reset => '{jitter}')});
as_worker($still, q{SELECT dsched.alter_job('spread', jitter => '10 s')});
$still->safe_psql('postgres', 'SELECT rest()');
$still->restart;
is(delays(), $first, 'are delayed in the same way after a restart');
note($first);
account_ok($still, until => $stop);

done_testing();
