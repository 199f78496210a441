# The harness itself: that etcd and servers are started, hurt and ended as the other tests rely on.

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

# etcd
my $etcd = start_etcd();

$etcd->ctl('put', '/a/one', '{"n":1}');
$etcd->ctl('put', '/a/two', '{"n":2}');
$etcd->ctl('put', '/b',     'text');
is_deeply([ $etcd->keys('/a/') ], [ '/a/one', '/a/two' ], 'keys below a prefix');
is_deeply(scalar $etcd->keys(''), { '/a/one' => '{"n":1}', '/a/two' => '{"n":2}', '/b' => 'text' }, 'all keys and values');
is($etcd->get_json('/a/two')->{n}, 2, 'a value, parsed');
is($etcd->get_json('/c'), undef, 'a key that is not there');
cmp_ok($etcd->get('/b')->{mod_revision}, '>', $etcd->get('/a/two')->{mod_revision}, 'revisions');

my $endpoints = $etcd->endpoints;
$etcd->restart;
is(scalar(() = $etcd->keys('/a/')), 2, 'data survives a restart');
$etcd->stop('KILL');
is($etcd->pid, undef, 'it is gone');
$etcd->start;
is(scalar(() = $etcd->keys('/a/')), 2, 'data survives kill -9');

$etcd->sigstop;
is(eval { $etcd->ctl('--command-timeout=1s', 'get', '/b'); 1 }, undef, 'no answer while stopped');
$etcd->sigcont;
$etcd->wait_healthy;
is($etcd->ctl('get', '--print-value-only', '/b'), 'text', 'an answer again');

$etcd->wipe;
is_deeply([ $etcd->keys('') ], [], 'empty after a wipe');
is($etcd->endpoints, $endpoints, 'at the same address');

# An etcd of three
my $three = start_etcd(members => 3);
my $leader = $three->leader;
ok(defined $leader, 'three members have a leader');
$three->stop('KILL', $leader);
ok(wait_for(sub { defined $three->leader }), 'two of three have a leader');
is($three->ctl('put', '/x', 'y'), 'OK', 'and go on');
$three->start($leader);
is($three->ctl('get', '--print-value-only', '/x'), 'y', 'the third is back');

# A server without dsched
my $node = new_instance('plain', preload => 0, conf => 'max_connections = 21');

is($node->safe_psql('postgres', 'SHOW max_connections'), '21', 'settings of the test stand above the defaults');
is($node->safe_psql('postgres', 'SHOW fsync'), 'on', 'crash-safe');
$node->safe_psql('postgres', 'CREATE TABLE t (n int)');
ok(wait_until($node, 'SELECT count(*) FROM t', 0), 'wait_until');
ok(wait_until([$node], 'SELECT count(*) FROM t', qr/^[0-9]$/), 'wait_until with a pattern, for several nodes');
ok(wait_until($node, 'SELECT count(*) FROM t', sub { $_[0] < 1 }), 'wait_until with code');
cmp_ok(scalar pids($node, 'checkpointer'), '==', 1, 'processes by their titles');

# A machine that is lost: with what was committed, without what was not
my ($in, $out, $err) = ('', '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);

$node->safe_psql('postgres', 'INSERT INTO t VALUES (1)');
$in .= "BEGIN; INSERT INTO t VALUES (2); SELECT 'inserted';\n";
$session->pump until $out =~ /inserted/;
my @processes = pids($node);
kill9_everything($node);
ok(!(grep { kill(0, $_) } @processes), 'no process is left');
$session->finish;
start_instance($node);
is($node->safe_psql('postgres', 'SELECT n FROM t'), '1', 'the committed row survived, the other did not');

# A postmaster that is killed: its children go by themselves
@processes = kill9_instance($node);
cmp_ok(scalar @processes, '>', 3, 'it had children');
ok(wait_for(sub { !grep { kill(0, $_) } @processes }), 'they go by themselves');
start_instance($node);
is($node->safe_psql('postgres', 'SELECT n FROM t'), '1', 'and it starts again');

# A machine that is suspended
sigstop_instance($node);
$out = '';
my $waiting = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT 7' ], '>', \$out, '2>', \$err);
ok(!wait_for(sub { $waiting->pump_nb; $out ne '' }, 1), 'no answer from a stopped server');
sigcont_instance($node);
$waiting->finish;
is($out, "7\n", 'the answer comes when it goes on');

# Witnesses, with a stand-in for dsched.current_run()
$node->safe_psql(
	'postgres', q{
CREATE SCHEMA dsched;
CREATE FUNCTION dsched.current_run(OUT job_name text, OUT scheduled_for timestamptz, OUT trigger_id bigint, OUT attempt int)
LANGUAGE sql AS $$ SELECT 'j', timestamptz '2030-01-01 00:00:00+01', 0::bigint, 1 $$;
GRANT USAGE ON SCHEMA dsched TO PUBLIC;
CREATE ROLE worker LOGIN;
});
DschedTest::install_witness($node, 'postgres');
$node->safe_psql('postgres', q{BEGIN; SELECT dsched_test.log('begin'), dsched_test.effect(); ROLLBACK});
$node->safe_psql('postgres', q{SET ROLE worker; SELECT dsched_test.log('begin'), dsched_test.effect()});

my $line = { node => 'plain', job => 'j', slot => '2029-12-31T23:00:00.000000', trigger_id => 0, attempt => 1, phase => 'begin' };
is_deeply([ append_log_lines(job => 'j') ], [ $line, $line ], 'the log has the attempt that was rolled back, too');
is_deeply(
	[ effects('j', [$node]) ],
	[ { on => 'plain', node => 'plain', slot => '2029-12-31T23:00:00.000000', attempt => 1 } ],
	'the effects do not');

# The judges see what is wrong. They are tests, so that a verdict of "not ok" is caught here by a builder of its own.
sub verdict
{
	my ($judge, @args) = @_;
	my $real = Test::More->builder;
	my $said = '';
	my $test = Test::Builder->create;

	$test->output(\$said);
	$test->failure_output(\$said);
	no warnings qw(redefine once);
	local *DschedTest::ok   = sub { return $test->ok(@_) };
	local *DschedTest::diag = sub { return $test->diag(@_) };
	my $verdict = $judge->(@args);
	return $verdict ? 'ok' : $said;
}

$node->safe_psql('postgres',
	q{CREATE TABLE dsched.run (node text, job_name text, scheduled_for timestamptz, last_slot timestamptz, trigger_id bigint,
		attempt int, status text, reason text, epoch bigint)});

sub run_row
{
	my ($slot, $attempt, $status, $last_slot) = @_;
	my $last = defined $last_slot ? "'${last_slot}Z'" : 'NULL';

	$node->safe_psql('postgres',
		"INSERT INTO dsched.run VALUES ('plain', 'j', '${slot}Z', $last, 0, $attempt, '$status', 'schedule', 5)");
	return;
}
my @slots = ('2029-12-31T23:00:00.000000', '2029-12-31T23:00:01.000000');

like(verdict(\&every_slot_once, 'j', [$node], slots => \@slots), qr/has 0 succeeded runs/, 'a missing record is seen');
like(verdict(\&effects_match_runs, 'j', [$node]), qr/1 effects, 0 succeeded/, 'an effect without a record is seen');
run_row($slots[0], 1, 'succeeded');
is(verdict(\&effects_match_runs, 'j', [$node]), 'ok', 'effect and record agree');
is(verdict(\&every_slot_once, 'j', [$node], slots => [ $slots[0] ]), 'ok', 'the slot ran once');
like(verdict(\&every_slot_once, 'j', [$node], slots => \@slots), qr/slot \S+01\.000000 has 0 effects/, 'a missed slot is seen');
like(verdict(\&every_slot_accounted, 'j', [$node], slots => \@slots), qr/01\.000000 has no outcome/, 'and has no outcome');
run_row($slots[1], 1, 'missed', '2029-12-31T23:00:09.000000');
is(verdict(\&every_slot_accounted, 'j', [$node], slots => [ @slots, '2029-12-31T23:00:09.000000' ]), 'ok', 'a range of missed slots is');
is(verdict(\&every_slot_accounted, 'j', [$node], slots => \@slots), 'ok', 'a slot recorded as missed is accounted for');
run_row($slots[1], 2, 'succeeded');
like(verdict(\&every_slot_accounted, 'j', [$node], slots => \@slots), qr/several outcomes/, 'two outcomes are seen');
$node->safe_psql('postgres', qq{INSERT INTO dsched_test.effects VALUES ('plain', 'j', '$slots[0]', 0, 2)});
like(verdict(\&every_slot_once, 'j', [$node], slots => [ $slots[0] ]), qr/has 2 effects/, 'a slot that ran twice is seen');
like(verdict(\&attempts_at_most, 'j', 1), qr/begun on plain \(attempt 1\), then plain/, 'a repeated attempt is seen in the log');
is(verdict(\&attempts_at_most, 'j', 2), 'ok', 'and allowed where it is');
like(verdict(\&every_slot_once, 'j', [$node], slots => []), qr/nothing was proved/, 'an empty proof is none');

done_testing();
