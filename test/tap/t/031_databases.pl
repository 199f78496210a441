# Several databases of one standalone instance: schedulers come and go with the extension, copies do not come alive, and
# commands that need a database without connections work.

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# One place less than there will be databases with the extension.
my $node = new_instance('alone', conf => "dsched.max_databases = 2\n");

create_extension($node, { database => 'shop' });
$node->safe_psql('shop', 'GRANT USAGE ON SCHEMA dsched TO PUBLIC');
$node->safe_psql('postgres', 'CREATE DATABASE depot');
$node->safe_psql('depot',    'CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO PUBLIC');
DschedTest::install_witness($node, 'depot');

sub in_database
{
	my ($database, $code) = @_;

	local $node->{dsched_database} = $database;
	return $code->();
}

sub now_at
{
	return $node->safe_psql('postgres', 'SELECT clock_timestamp()');
}

sub schedule_tick
{
	my ($database) = @_;

	$node->safe_psql($database, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()', username => 'worker')});
	return now_at();
}

# Waits until the job's slots run again: until one after this moment has its effect.
sub ticks
{
	my ($database, $after) = @_;

	$after //= now_at();
	return in_database(
		$database,
		sub {
			wait_until($node, "SELECT count(*) > 0 FROM dsched_test.effects WHERE job = 'tick' AND slot::timestamp > timestamptz '$after' AT TIME ZONE 'UTC'");
		});
}

# The scheduler has looked at the database and keeps its jobs asleep.
sub sleeps_because
{
	my ($database, $why) = @_;

	return in_database(
		$database,
		sub { wait_until($node, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, $why) });
}

# A statement that must work "at once", meaning: not wait for a timeout of the workers' leaving (10 s).
sub works_at_once
{
	my ($sql, $name) = @_;
	my $begun = time();
	my ($ret, $stdout, $stderr) = $node->psql('postgres', $sql);

	is($ret, 0, $name) or diag($stderr);
	cmp_ok(time() - $begun, '<', 9, "$name, at once");
	return;
}

sub session
{
	my ($database) = @_;
	my $io = { in => '', out => '', err => '' };

	$io->{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($database) ], '<', \$io->{in}, '>', \$io->{out}, '2>', \$io->{err});
	$io->{in} .= "SELECT 'connected';\n";
	$io->{run}->pump until $io->{out} =~ /connected/;
	return $io;
}

# ---- two databases side by side ----

my %from = map { ($_ => schedule_tick($_)) } qw(shop depot);

ok(ticks('shop'),  'jobs of one database run');
ok(ticks('depot'), 'jobs of the other run');
is(scalar pids($node, 'dsched scheduler'), 2, 'by two schedulers');

# ---- the extension goes and comes ----

my %to = (depot => now_at());
ok(ticks('depot'), 'past the end of the first stretch');
in_database('depot', sub { every_slot_once('tick', [$node], schedule => '* * * * * *', from => $from{depot}, to => $to{depot}) });

$node->safe_psql('depot', 'DROP EXTENSION dsched');
ok(wait_for(sub { pids($node, 'dsched scheduler') == 1 }), 'DROP EXTENSION ends its scheduler');
$node->safe_psql('depot', 'TRUNCATE dsched_test.effects; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO PUBLIC');
schedule_tick('depot');
ok(ticks('depot'), 'CREATE EXTENSION starts another');
$node->safe_psql('depot', 'BEGIN; DROP EXTENSION dsched; ROLLBACK');
ok(ticks('depot'), 'DROP EXTENSION that is rolled back changes nothing');
my ($ret, $stdout, $stderr) = $node->psql('depot', 'BEGIN; DROP EXTENSION dsched; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO PUBLIC; COMMIT', on_error_stop => 1);
schedule_tick('depot');
ok(ticks('depot'), 'the extension replaced in one transaction');

# ---- one database too many ----

$node->safe_psql('postgres', 'CREATE DATABASE attic');
($ret, $stdout, $stderr) = $node->psql('attic', 'CREATE EXTENSION dsched');
is($ret, 0, 'CREATE EXTENSION where there is no room for a scheduler');
like($stderr, qr/WARNING: .*"attic" do not run: no room.*Raise dsched\.max_databases/s, 'says that its jobs will not run, and what to do');
like($node->safe_psql('attic', q{SELECT hint FROM dsched.status() WHERE component = 'scheduler' AND state = 'problem'}),
	qr/dsched\.max_databases \(now 2\)/, 'as status() does');
ok(ticks($_), "$_ runs on") foreach qw(shop depot);

$node->safe_psql('attic', q{SELECT dsched.schedule('hello', '* * * * * *', 'SELECT 1')});
$node->safe_psql('depot', 'DROP EXTENSION dsched');
in_database('attic', sub { ok(wait_until($node, q{SELECT count(*) > 0 FROM dsched.run WHERE status = 'succeeded'}), 'its jobs run as soon as another leaves its place') });
works_at_once('DROP DATABASE attic', 'DROP DATABASE of a database with jobs');
works_at_once('DROP DATABASE depot', 'and of one whose extension was dropped');

# ---- a copy ----

my $before_copy = now_at();
works_at_once('CREATE DATABASE copy TEMPLATE shop', 'CREATE DATABASE with a template that has jobs');
ok(sleeps_because('copy', qr/copy of another one/), "[database-copied] the copy's jobs sleep");
ok(ticks('shop'), 'the jobs of the template run on');
my $copied = $node->safe_psql('copy', 'SELECT count(*), max(slot) FROM dsched_test.effects');
cmp_ok((split /\|/, $copied)[0], '>', 0, 'the copy has what was there');

$node->restart;
ok(sleeps_because('copy', qr/copy of another one/), "the copy's jobs still sleep after a restart of the server");
ok(ticks('shop'), "the template's run");
is($node->safe_psql('copy', 'SELECT count(*), max(slot) FROM dsched_test.effects'), $copied, 'no job of the copy has run');

my $adopted = now_at();
like($node->safe_psql('copy', 'SELECT dsched.adopt()'), qr/adopted 1 job/, 'adopt()');
my $copied_from = now_at();
ok(ticks('copy'), "wakes the copy's jobs");
my $copied_until = now_at();
ok(ticks('copy'), 'for good');
is($node->safe_psql('copy',
		"SELECT count(*) FROM dsched_test.effects
		 WHERE slot::timestamp <= timestamptz '$adopted' AT TIME ZONE 'UTC' AND slot > '" . (split /\|/, $copied)[1] . "'"),
	0, '[database-copied] no slot from before it has run');
is($node->safe_psql('copy', "SELECT count(*) FROM dsched.run WHERE status = 'missed'"), 0, 'nor is one recorded as missed');
in_database('copy', sub { every_slot_once('tick', [$node], schedule => '* * * * * *', from => $copied_from, to => $copied_until) });

account_ok($node, database => 'copy', excused => [ { from => $before_copy, to => $copied_from } ]);

# ---- commands that need the database ----

# A job that is meant to last: it is running while the database is dropped.
sub run_long_job
{
	my ($database) = @_;

	$node->safe_psql($database, q{SELECT dsched.schedule_in('long', '0 s', 'SELECT pg_sleep(600)')});    # sleep-ok: a job that lasts
	return in_database($database, sub { wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'long' AND status = 'running'}, 1) });
}

my $session = session('copy');
ok(run_long_job('copy'), 'a job runs');
($ret, $stdout, $stderr) = $node->psql('postgres', 'DROP DATABASE copy');
like($stderr, qr/is being accessed by other users.*There is 1 other session/s, 'DROP DATABASE fails for the session of a user, and no other');
ok(ticks('copy'), 'and the jobs of the database run again');
in_database('copy', sub { ok(wait_until($node, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'long' AND status = 'running'}, 1), 'also the one that it interrupted') });
$session->{in} .= "\\q\n";
$session->{run}->finish;
works_at_once('DROP DATABASE copy', 'DROP DATABASE with a running job');

ok(ticks('shop'), 'jobs of the database to be renamed run');
my $before_renaming = now_at();
ok(run_long_job('shop'), 'one of them is running');
works_at_once('ALTER DATABASE shop RENAME TO store', 'ALTER DATABASE RENAME');
my $renamed = now_at();
ok(sleeps_because('store', qr/was renamed/), '[database-renamed] holds the jobs');
my $asleep = $node->safe_psql('store', 'SELECT count(*) FROM dsched_test.effects');
$node->safe_psql('store', q{SELECT dsched.unschedule('long')});
is($node->safe_psql('store', 'SELECT count(*) FROM dsched_test.effects'), $asleep, 'none of them runs');
like($node->safe_psql('store', 'SELECT dsched.adopt()'), qr/adopted/, 'until adopt()');
ok(ticks('store'), 'which wakes them');
works_at_once('ALTER DATABASE store RENAME TO shop', 'renamed again');
ok(sleeps_because('shop', qr/was renamed/), 'they sleep again');
works_at_once('ALTER DATABASE shop RENAME TO store', 'renamed back');
ok(ticks('store'), 'they run');
my $awake = now_at();

# What was running all the time, through copies, restarts and a renaming: from the start to the first renaming.
$node->{dsched_database} = 'store';
every_slot_accounted('tick', [$node], schedule => '* * * * * *', from => $from{shop}, to => $before_copy);
effects_match_runs('tick', [$node]);
unlike(slurp_file($node->logfile), qr/PANIC|server process .* was terminated/, 'nothing crashed');
account_ok($node, excused => [ { from => $before_renaming, to => $awake } ]);

done_testing();
