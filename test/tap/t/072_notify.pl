# NOTIFY dsched: who listens hears of what he is to hear, and nothing more; who does not, or sits in a transaction, hinders nobody.
# The test clock stands still: runs are made by run_now(), and when the scheduler is at rest it has sent what there was to send.

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = new_instance('alone', allows_streaming => 1, conf => qq{
dsched.max_executors = 4
dsched.test_clock = on
synchronous_commit = local
fsync = off
});
create_extension($node);
$node->safe_psql(
	'postgres', q{
CREATE SCHEMA lab;
GRANT USAGE ON SCHEMA lab TO PUBLIC;
CREATE FUNCTION lab.rest() RETURNS void AS 'dsched', 'dsched_test_quiesce' LANGUAGE C;
CREATE FUNCTION lab.move(timestamptz) RETURNS void AS 'dsched', 'dsched_test_clock_set' LANGUAGE C;
CREATE ROLE nobody_much LOGIN;
SELECT lab.move('2030-01-01 12:00:00.5+00');
});

sub define_job
{
	my ($name, $command, $more) = @_;

	as_worker($node, "SELECT dsched.schedule(\$n\$$name\$n\$, '\@yearly', \$c\$$command\$c\$" . ($more // '') . ")");
	return;
}

# Makes runs of these jobs, and waits until all is done and sent.
sub run_jobs
{
	as_worker($node, "SELECT dsched.run_now(\$n\$$_\$n\$)") foreach @_;
	$node->safe_psql('postgres', 'SELECT lab.rest()');
	return;
}

# A session that listens. Its notifications come with the answer of its next query.
sub listen_as
{
	my ($role) = @_;
	my $session = $node->background_psql('postgres', extra_params => [ '-U', $role ]);

	$session->query_safe('LISTEN dsched');
	return $session;
}

# What it has heard, as hashes, sorted by job.
sub heard
{
	my ($session) = @_;
	my $json = JSON::PP->new->utf8;
	my @payloads = ($session->query('SELECT 1') . "\n" . $session->query('SELECT 1')) =~
	  /Asynchronous notification "dsched" with payload "(.*)" received from server process/g;

	return [ sort { ($a->{job} // '') cmp($b->{job} // '') } map { $json->decode($_) } @payloads ];
}

my $ears = listen_as('nobody_much');

# ---- what is sent by default ----

my $strange = qq{name "with" back\\slash, 'quotes' and \x{c3}\x{bc}};	# UTF-8
define_job('good', 'SELECT 1');
define_job('bad', q{SELECT length('secret') / 0});
define_job('slow', 'SELECT pg_sleep(600)', q{, timeout => '100ms'});	# sleep-ok: it is cancelled
define_job($strange, 'SELECT 1 / 0');
run_jobs('good', 'bad', 'slow', $strange);

my $heard = heard($ears);
is(join(' | ', map { "$_->{job}: $_->{status}" } @$heard), do { my $s = $strange; utf8::decode($s); "bad: failed | $s: failed | slow: timed_out" },
	'failures are heard of, and no success; any name comes through');
my $row = decode_json($node->safe_psql('postgres', q{SELECT row_to_json(r) FROM dsched.runs r WHERE job_name = 'bad'}));
is_deeply(
	$heard->[0],
	{
		event => 'run', job => 'bad', job_id => $row->{job_id}, username => 'worker', run_key => $row->{run_key},
		scheduled_for => '2030-01-01T12:00:00.5Z', attempt => 1, status => 'failed', will_retry => JSON::PP::false, node => 'alone'
	},
	'with all that is needed to find the row, and nothing that may be secret');

# ---- settings ----

sub set_notify
{
	my ($value) = @_;

	$node->append_conf('postgresql.conf', "dsched.notify = $value");
	$node->reload;
	# the scheduler has read it when it has been at rest after that
	ok(wait_until($node, 'SHOW dsched.notify', $value), "dsched.notify = $value");
	$node->safe_psql('postgres', 'SELECT lab.rest()');
	return;
}

set_notify('all');
run_jobs('good', 'bad');
is(join(' | ', map { "$_->{job}: $_->{status}" } @{ heard($ears) }), 'bad: failed | good: succeeded', 'all outcomes');
set_notify('off');
run_jobs('good', 'bad');
is_deeply(heard($ears), [], 'none');
set_notify('all');

# ---- somebody holds the lock that notifications are sent under ----

# A backend that notifies holds it until its commit is over, and this one waits for a standby that does not exist.
$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
ok(wait_until($node, 'SHOW synchronous_standby_names', 'nobody'), 'commits wait for a standby');
my $holder = $node->background_psql('postgres');
$holder->query_until(qr/^sent/m, "SET synchronous_commit = on; BEGIN; CREATE TABLE lab.made (a int); NOTIFY other;\n\\echo sent\nCOMMIT;\n");
ok(wait_until($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}, 1), 'a backend is in its commit');

my $made = $node->safe_psql('postgres', 'SELECT count(*) FROM dsched.run');
as_worker($node, q{SELECT dsched.run_now('good') FROM generate_series(1, 1100)});
ok(wait_until($node, 'SELECT count(*) FROM dsched.run', $made + 1100, 120), 'runs go on');
is_deeply(heard($ears), [], 'nothing is heard of them');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
$holder->quit;
$node->safe_psql('postgres', 'SELECT lab.rest()');
my $crowd = heard($ears);
is(scalar(grep { $_->{event} eq 'run' } @$crowd), 1000, 'when it is over, the first 1000 are');
is_deeply([ grep { $_->{event} ne 'run' } @$crowd ], [ { event => 'overflow', dropped => 100, node => 'alone' } ], 'and how many there were besides');

# ---- sending fails ----

# The server writes notifications to disk when there are many of them, while somebody who listens stays in a transaction; and it
# cannot.
$ears->quit;
my $idler = $node->background_psql('postgres');
$idler->query_safe('LISTEN something');
$idler->query_safe('BEGIN; SELECT 1');
my $directory = $node->data_dir . '/pg_notify';
my ($scheduler) = pids($node, 'dsched scheduler');
chmod(0400, glob("$directory/*")) && chmod(0500, $directory) or die "cannot protect $directory: $!";
as_worker($node, q{SELECT dsched.run_now('good') FROM generate_series(1, 400)});
$node->safe_psql('postgres', 'SELECT lab.rest()');
as_worker($node, q{SELECT dsched.run_now('good') FROM generate_series(1, 50)});
$node->safe_psql('postgres', 'SELECT lab.rest()');
is($node->safe_psql('postgres', 'SELECT count(*) FROM dsched.run'), $made + 1550, 'runs go on while nothing can be sent');
my @warnings = slurp_file($node->logfile) =~ /WARNING:  dsched: notifications of runs in database "postgres" are dropped: (.*)/g;
is(scalar(@warnings), 1, 'the log says once that notifications are dropped') or diag(join("\n", @warnings));
is_deeply([ pids($node, 'dsched scheduler') ], [$scheduler], 'the scheduler is the same');
$idler->quit;
chmod(0700, $directory) && chmod(0600, glob("$directory/*")) or die "cannot open $directory again: $!";
$ears = listen_as('nobody_much');
run_jobs('bad');
is(join(' | ', map { "$_->{job}: $_->{status}" } @{ heard($ears) }), 'bad: failed', 'afterwards they are heard again');
$ears->quit;
done_testing();
