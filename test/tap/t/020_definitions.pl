# Definitions: what is changed on one instance is the same on all, whatever happens to etcd, to the network and to locks meanwhile;
# nothing is lost, nothing comes back, and what two change at once is all kept.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($a, $b) = fleet(2, etcd => $etcd);
my $jobs  = '/dsched/test/db/postgres/job/';

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');

# The key of worker's job in etcd: with its value, parsed, as "json"; undef if there is none.
sub in_etcd
{
	my ($job) = @_;
	my ($key) = grep { m{/worker/\Q$job\E$} } $etcd->keys($jobs);
	my $kv = defined $key ? $etcd->get($key) : return undef;

	$kv->{json} = eval { JSON::PP->new->utf8->decode($kv->{value}) };
	return $kv;
}

# Waits until what the query says (of dsched.job) is the same on both, and as expected.
sub everywhere
{
	my ($sql, $expected, $name) = @_;

	return ok(wait_until(\@fleet, $sql, $expected), $name);
}

sub all_published
{
	return everywhere('SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL', 0, 'all is published ' . shift);
}

# One value of a job on a node.
sub column
{
	my ($node, $job, $column) = @_;

	return $node->safe_psql('postgres', "SELECT $column FROM dsched.job WHERE job_name = '$job'");
}

# Asks for a definition that never runs of itself in this test.
sub schedule
{
	my ($node, $job, %opt) = @_;
	my $more = join('', map { ", $_ => '$opt{$_}'" } sort grep { $_ ne 'schedule' } keys %opt);
	my $schedule = $opt{schedule} // '0 0 1 1 *';

	return as_worker($node, "SELECT dsched.schedule('$job', '$schedule', 'SELECT dsched_test.effect()'$more)");
}

# How many runs of a job have committed their effect, on both together.
sub committed
{
	my ($job) = @_;
	my $sum = 0;

	$sum += $_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") foreach @fleet;
	return $sum;
}

# A session of worker with an open transaction. Returns code that ends it with a statement.
sub in_transaction
{
	my ($node, $sql) = @_;
	my ($in, $out, $err) = ("SET SESSION AUTHORIZATION worker; BEGIN; $sql; SELECT 'it is open';\n", '', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);

	$session->pump until $out =~ /it is open/ || $err ne '';
	return sub {
		$in .= shift . ";\n";
		$session->finish;
		return;
	};
}

# ---------------------------------------------------------------------------------------------------------------------
# In fair weather
# ---------------------------------------------------------------------------------------------------------------------

my $id = schedule($a, 'one');
everywhere("SELECT job_id FROM dsched.job WHERE job_name = 'one' AND mod_revision > 0 AND changed IS NULL", $id, 'a job appears everywhere');
is(column($a, 'one', 'mod_revision'), column($b, 'one', 'mod_revision'), 'as the same version');
is(in_etcd('one')->{json}{job_id}, $id, 'and stands in etcd');
is(in_etcd('one')->{mod_revision}, column($b, 'one', 'gen_rev'), 'whose revision began its generation');

as_worker($b, q{SELECT dsched.alter_job('one', command => 'SELECT 2')});
everywhere(q{SELECT command FROM dsched.job WHERE job_name = 'one' AND changed IS NULL}, 'SELECT 2', 'a change appears everywhere');
is(column($a, 'one', 'gen_rev'), in_etcd('one')->{create_revision}, 'and leaves the generation as it was');

my $gen = column($a, 'one', 'gen');
as_worker($a, q{SELECT dsched.pause('one')});
everywhere(q{SELECT active FROM dsched.job WHERE job_name = 'one' AND changed IS NULL}, 'f', 'so does a pause');
isnt(column($b, 'one', 'gen'), $gen, 'which begins another generation');

schedule($b, 'one', active => 't');
everywhere(q{SELECT active, job_id FROM dsched.job WHERE job_name = 'one' AND changed IS NULL}, "t|$id", 'a new definition keeps the id');

as_worker($b, q{SELECT dsched.unschedule('one')});
everywhere('SELECT count(*) FROM dsched.job', 0, 'what is unscheduled is gone everywhere');

# Policies
$b->safe_psql('postgres', qq{SELECT dsched.create_queue('caf\xc3\xa9 "1"', max_running => 1)});
my $policy = q{SELECT overlap, misfire, misfire_grace, max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline, max_failures,
	max_lost, jitter, queue FROM dsched.job WHERE job_name = 'policy' AND changed IS NULL};
my @members = qw(overlap misfire misfire_grace max_attempts retry_delay retry_max_delay timeout priority deadline max_failures max_lost
	jitter queue);
my $plain = 'skip|latest|00:01:00|1|00:00:01|00:10:00||0|||3||';
schedule($a, 'policy');
everywhere($policy, $plain, 'the default policy');
is_deeply([ grep { exists in_etcd('policy')->{json}{$_} } @members ], [], 'which is not written down');
schedule($b, 'policy', overlap => 'cancel_running', misfire => 'all', misfire_grace => '1 day 1 s', max_attempts => 5, retry_delay => '0.5 s',
	retry_max_delay => '2 h', timeout => '366 days', priority => -100, deadline => '10 min', max_failures => 3, max_lost => 2, jitter => '30 s',
	queue => "caf\xc3\xa9 \"1\"");
everywhere($policy, "cancel_running|all|24:00:01|5|00:00:00.5|02:00:00|8784:00:00|-100|00:10:00|3|2|00:00:30|caf\xc3\xa9 \"1\"",
	'every option of a policy');
my $written = in_etcd('policy')->{json};
is_deeply([ map { $written->{$_} } @members ],
	[ 'cancel_running', 'all', 86401000000, 5, 500000, 7200000000, 31622400000000, -100, 600000000, 3, 2, 30000000, "caf\x{e9} \"1\"" ],
	'which stands in etcd');
$gen = column($a, 'policy', 'gen');
as_worker($a, q{SELECT dsched.alter_job('policy', timeout => '1 min', overlap => 'allow', reset => '{queue,misfire,misfire_grace,max_attempts}')});
everywhere($policy, 'allow|latest|00:01:00|1|00:00:00.5|02:00:00|00:01:00|-100|00:10:00|3|2|00:00:30|', 'some of them are changed');
is(column($b, 'policy', 'gen'), $gen, 'in the same generation');
as_worker($b, q{SELECT dsched.alter_job('policy', jitter => '31 s')});
everywhere($policy, 'allow|latest|00:01:00|1|00:00:00.5|02:00:00|00:01:00|-100|00:10:00|3|2|00:00:31|', 'the jitter is changed');
isnt(column($a, 'policy', 'gen'), $gen, 'which begins another generation');
schedule($a, 'policy');
everywhere($policy, $plain, 'all of them are taken back');
as_worker($b, q{SELECT dsched.unschedule('policy')});
everywhere('SELECT count(*) FROM dsched.job', 0, 'and so is the job');
is(in_etcd('one'), undef, 'also from etcd');

# One transaction
as_worker($a, q{SELECT dsched.schedule('three' || i, '0 0 1 1 *', 'SELECT 1') FROM generate_series(1, 3) i});
everywhere('SELECT count(*), count(DISTINCT mod_revision) FROM dsched.job WHERE changed IS NULL', '3|1',
	'[many-changes-in-one-transaction] three jobs of one transaction appear in one revision');
as_worker($a, q{BEGIN; SELECT dsched.unschedule('three1'); SELECT dsched.alter_job('three2', command => 'SELECT 2');
	SELECT dsched.schedule('four', '0 0 1 1 *', 'SELECT 1'); COMMIT});
everywhere(q{SELECT string_agg(job_name, ' ' ORDER BY job_name), count(DISTINCT mod_revision) FROM dsched.job
	WHERE changed IS NULL AND job_name <> 'three3'}, 'four three2|1',
	'a deletion, a change and a new job, too');
as_worker($a, q{SELECT count(dsched.schedule('many' || i, '0 0 1 1 *', 'SELECT 1')) FROM generate_series(1, 1000) i});
everywhere(q{SELECT count(*), count(DISTINCT mod_revision) FROM dsched.job WHERE changed IS NULL AND job_name ~ 'many'}, '1000|1',
	'[many-changes-in-one-transaction] a thousand, too');
as_worker($b, q{SELECT count(dsched.unschedule(job_name)) FROM dsched.jobs WHERE job_name ~ 'many'});
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name ~ 'many'}, 0, 'and they go');

# Unscheduled and scheduled again in one transaction: another job, and no moment without one
$id = column($b, 'four', 'job_id');
my $created = in_etcd('four')->{create_revision};
as_worker($b, q{BEGIN; SELECT dsched.unschedule('four'); SELECT dsched.schedule('four', '0 0 2 2 *', 'SELECT 4'); COMMIT});
everywhere(q{SELECT schedule, command FROM dsched.job WHERE job_name = 'four' AND changed IS NULL}, '0 0 2 2 *|SELECT 4', '[dropped-and-defined-at-once] a job is replaced');
isnt(column($_, 'four', 'job_id'), $id, 'by one with its own id on ' . $_->name) foreach @fleet;
is(in_etcd('four')->{create_revision}, $created, '[dropped-and-defined-at-once] without being absent in between');
as_worker($b, q{BEGIN; SELECT dsched.unschedule('four'); SELECT dsched.schedule('four', '0 0 3 3 *', 'SELECT 4');
	SELECT dsched.unschedule('four'); COMMIT});
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'four'}, 0, 'and unscheduled after all');

# Another role, so another key
$a->safe_psql('postgres', 'CREATE ROLE second LOGIN; GRANT second TO worker');
$b->safe_psql('postgres', 'CREATE ROLE second LOGIN; GRANT second TO worker');
$id = schedule($a, 'role');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'role' AND changed IS NULL}, 1, 'a job');
as_worker($b, q{SELECT dsched.alter_job('role', username => 'second')});
everywhere(q{SELECT username, job_id FROM dsched.job WHERE job_name = 'role' AND changed IS NULL}, "second|$id", '[job-gets-another-role] gets another role');
is(in_etcd('role'), undef, '[job-gets-another-role] and has left its key');
as_worker($a, "SELECT dsched.unschedule($id)");
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'role'}, 0, 'is gone');

# Two jobs exchange their roles in one transaction; and a job moves while another takes the name that it had.
my %was = map { ($_ => schedule($a, 'swap')) } ('worker');
$was{second} = as_worker($a, q{SELECT dsched.schedule('swap', '0 0 1 1 *', 'SELECT 1', username => 'second')});
all_published('before a job moves');
as_worker($a, qq{BEGIN; SELECT dsched.unschedule($was{second}); SELECT dsched.alter_job($was{worker}, username => 'second');
	SELECT dsched.schedule('swap', '0 0 5 5 *', 'SELECT 5'); COMMIT});
everywhere(q{SELECT string_agg(username || ' ' || schedule, ', ' ORDER BY username), count(DISTINCT job_id) FROM dsched.job
	WHERE job_name = 'swap' AND changed IS NULL}, 'second 0 0 1 1 *, worker 0 0 5 5 *|2', 'a job moves, and another takes its place');
everywhere(q{SELECT job_id FROM dsched.job WHERE job_name = 'swap' AND username = 'second'}, $was{worker}, 'with the id that it had');
everywhere(q{SELECT count(*) FROM dsched.status() WHERE component = 'jobs' AND state = 'problem'}, 0, 'and none is taken for broken');
as_worker($b, q{SELECT dsched.unschedule(job_id) FROM dsched.jobs WHERE job_name = 'swap'});
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'swap'}, 0, 'both go');

# Names of all kinds
my $odd = "caf\xc3\xa9 / 100% \"\xe2\x82\xac\" ../x";
as_worker($a, "SELECT dsched.schedule('$odd', '0 0 1 1 *', 'SELECT ''\xe2\x82\xac''', payload => '{\"\xc3\xa9\": [1.10, 1e2]}')");
everywhere(q{SELECT job_name, command, payload FROM dsched.job WHERE job_name ~ '^caf'}, "$odd|SELECT '\xe2\x82\xac'|{\"\xc3\xa9\": [1.10, 100]}",
	'any name');

# A run that is asked for on the instance that does not own the job
schedule($a, 'manual');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'manual' AND changed IS NULL}, 1, 'a job');
as_worker($_, q{SELECT dsched.run_now('manual')}) foreach @fleet;
ok(wait_for(sub { committed('manual') == 2 }), 'it runs once for each that asked');
as_worker($a, q{BEGIN; SELECT dsched.schedule('fresh', '0 0 1 1 *', 'SELECT dsched_test.effect()'); SELECT dsched.run_now('fresh'); COMMIT});
ok(wait_for(sub { committed('fresh') == 1 }), 'also when its definition is as new as the request');
schedule($a, 'asked');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'asked' AND changed IS NULL}, 1, 'a job of which more is asked');
as_worker($_, q{SELECT dsched.cancel(dsched.backfill('asked', now() - interval '2 years', now()))}) foreach @fleet;
as_worker($_, q{SELECT dsched.cancel(job_id || ':1700000000000000:0') FROM dsched.jobs WHERE job_name = 'asked'}) foreach @fleet;
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.outbox', 0), 'requests of every kind are published');
ok(wait_for(sub { !(() = $etcd->keys('/dsched/test/db/postgres/trigger/')) }), 'and nothing is left of the requests');
unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/trigger in etcd cannot be read|request for job .* cannot be published/,
	'all of which were understood') foreach @fleet;

# ---------------------------------------------------------------------------------------------------------------------
# Somebody holds a lock
# ---------------------------------------------------------------------------------------------------------------------

schedule($a, "lock$_") foreach 1 .. 2;
all_published('before a lock is held');
my $end = in_transaction($b, q{SELECT dsched.pause('lock1')});
as_worker($a, qq{SELECT dsched.alter_job('lock$_', command => 'SELECT 5')}) foreach 1 .. 2;
schedule($a, 'lock3');
schedule($b, 'lock4');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name ~ 'lock[234]' AND changed IS NULL}, 3, '[definition-locked] one lock holds up nothing else');
ok(wait_until($b, q{SELECT command FROM dsched.job WHERE job_name = 'lock2'}, 'SELECT 5'), 'changes are applied past it');
ok(wait_until($a, q{SELECT command FROM dsched.job WHERE job_name = 'lock1' AND changed IS NULL}, 'SELECT 5'), 'and published past it');
isnt(column($b, 'lock1', 'command'), 'SELECT 5', 'the locked row is as it was');
$end->('ROLLBACK');
ok(wait_until($b, q{SELECT command, active FROM dsched.job WHERE job_name = 'lock1'}, 'SELECT 5|t'), 'and follows when it is let go');

$end = in_transaction($b, q{SELECT dsched.pause('lock1')});
as_worker($a, q{SELECT dsched.alter_job('lock1', command => 'SELECT 6')});
ok(wait_until($a, q{SELECT command FROM dsched.job WHERE job_name = 'lock1' AND changed IS NULL}, 'SELECT 6'), 'somebody is faster');
$end->('COMMIT');
everywhere(q{SELECT command, active FROM dsched.job WHERE job_name = 'lock1' AND changed IS NULL}, 'SELECT 6|f', '[change-under-a-change] and both changes survive');

# A name that is being taken
$end = in_transaction($b, q{SELECT dsched.schedule('taken', '0 0 1 1 *', 'SELECT 1')});
schedule($a, 'taken', metadata => '{"by": "a"}');
schedule($a, 'after');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'after' AND changed IS NULL}, 1, 'a name that is being taken holds up nothing else');
$end->('ROLLBACK');
everywhere(q{SELECT metadata FROM dsched.job WHERE job_name = 'taken'}, '{"by": "a"}', 'and is free again');

# ---------------------------------------------------------------------------------------------------------------------
# etcd hangs: both change something on the same footing, and no answer comes
# ---------------------------------------------------------------------------------------------------------------------

schedule($a, $_) foreach qw(fields slots command spread gone moved);
all_published('before etcd hangs');
my $spread_gen = column($a, 'spread', 'gen');
my $slots_gen = column($a, 'command', 'gen');
my %logged = map { ($_->name => -s $_->logfile) } @fleet;

$etcd->sigstop;
as_worker($a, q{SELECT dsched.alter_job('fields', command => 'SELECT 7')});
as_worker($b, q{SELECT dsched.alter_job('fields', metadata => '{"of": "b"}')});
as_worker($a, q{SELECT dsched.alter_job('fields', timeout => '2 h', max_attempts => 3)});
as_worker($b, q{SELECT dsched.alter_job('fields', priority => 9, misfire => 'skip')});
as_worker($a, q{SELECT dsched.alter_job('slots', schedule => '0 0 2 2 *')});
as_worker($b, q{SELECT dsched.alter_job('slots', jitter => '1 min')});
as_worker($b, q{SELECT dsched.pause('slots')});
as_worker($a, q{SELECT dsched.alter_job('command', command => 'SELECT 8')});
as_worker($b, q{SELECT dsched.alter_job('command', payload => '8')});
as_worker($a, q{SELECT dsched.alter_job('spread', timeout => '1 h')});
as_worker($b, q{SELECT dsched.alter_job('spread', jitter => '1 h')});
as_worker($a, q{SELECT dsched.alter_job('gone', command => 'SELECT 9')});
as_worker($b, q{SELECT dsched.unschedule('gone')});
as_worker($a, q{SELECT dsched.alter_job('moved', username => 'second')});
schedule($b, 'moved', metadata => '{"of": "b"}');
schedule($a, 'ambiguous');
schedule($a, 'never');
schedule($_, 'both', metadata => '{"a": "' . $_->name . '"}') foreach @fleet;
as_worker($a, q{SELECT dsched.run_now('manual')});
ok(wait_until($a, q{SELECT detail FROM dsched.status() WHERE component = 'definitions'}, qr/^\d+ changes are not yet published/),
	'what is not published is shown');
ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($a->logfile, $logged{node1}) =~ /could not publish changes/ }), 'an answer is missed');
as_worker($a, q{SELECT dsched.unschedule('never')});
as_worker($a, q{SELECT dsched.alter_job('ambiguous', command => 'SELECT 10')});
$etcd->sigcont;

all_published('after etcd has hung');
everywhere(q{SELECT command, metadata FROM dsched.job WHERE job_name = 'fields'}, 'SELECT 7|{"of": "b"}', '[two-alter-one-job] two fields changed on two instances');
everywhere(q{SELECT timeout, max_attempts, priority, misfire FROM dsched.job WHERE job_name = 'fields'}, '02:00:00|3|9|skip',
	'and options of the policy');
everywhere(q{SELECT schedule, jitter, active FROM dsched.job WHERE job_name = 'slots'}, '0 0 2 2 *|00:01:00|f', 'fields of a generation');
is(column($a, 'slots', 'gen'), column($b, 'slots', 'gen'), 'which is the same everywhere');
is(column($a, 'slots', 'gen_rev'), column($b, 'slots', 'gen_rev'), 'since the same revision');
everywhere(q{SELECT command, payload, gen FROM dsched.job WHERE job_name = 'command'}, "SELECT 8|8|$slots_gen",
	'two fields that leave the generation as it was');
everywhere(qq{SELECT timeout, jitter, gen <> $spread_gen FROM dsched.job WHERE job_name = 'spread'}, '01:00:00|01:00:00|t',
	'two options, of which one begins a generation');
is(column($a, 'spread', 'gen'), column($b, 'spread', 'gen'), 'which is the same everywhere');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'gone'}, 0, '[two-alter-one-job] an unscheduled job is not brought back by a change');
my @ids = map { JSON::PP->new->utf8->decode($_)->{job_id} } values %{ scalar $etcd->keys($jobs) };
is(scalar(keys %{ { map { $_ => 1 } @ids } }), scalar(@ids), 'a job that is moved and redefined at once does not stand in etcd twice');
everywhere(q{SELECT count(*) > 0, count(DISTINCT job_id) = count(*) FROM dsched.job WHERE job_name = 'moved'}, 't|t', 'nor in the tables');
everywhere(q{SELECT command FROM dsched.job WHERE job_name = 'ambiguous'}, 'SELECT 10', '[publish-answer-lost] the last word counts');
cmp_ok(in_etcd('ambiguous')->{version}, '<=', 2, '[publish-answer-lost] and what is sent again is not written again');
everywhere(q{SELECT count(DISTINCT job_id) FROM dsched.job WHERE job_name = 'both'}, 1, '[two-define-one-name] a name that both have taken');
is(column($a, 'both', 'job_id'), column($b, 'both', 'job_id'), '[two-define-one-name] is one job');
is(column($a, 'both', 'metadata'), column($b, 'both', 'metadata'), 'with one definition');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'never'}, 0, '[unscheduled-unpublished] what was unscheduled before it was published');
is(in_etcd('never'), undef, 'is not there');
ok(wait_for(sub { committed('manual') >= 3 }), 'the run that was asked for is made');
schedule($a, 'later');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'later' AND changed IS NULL}, 1, 'all goes on');
is(in_etcd('never'), undef, 'and nothing comes back');
is(committed('manual'), 3, '[requested-unpublished] nor runs twice');

# ---------------------------------------------------------------------------------------------------------------------
# etcd is down, changes wait, an instance is stopped, the history is compacted
# ---------------------------------------------------------------------------------------------------------------------

schedule($a, $_) foreach qw(down1 down2 down3);
all_published('before etcd goes down');
ok(wait_until($b, q{SELECT applied_revision >= (SELECT max(mod_revision) FROM dsched.job) FROM dsched.identity}), 'what is applied is noted');
$etcd->stop('KILL');
as_worker($b, q{SELECT dsched.alter_job('down1', metadata => '{"of": "b"}')});
as_worker($b, q{SELECT dsched.schedule('from_b', '0 0 1 1 *', 'SELECT 1')});
ok(wait_until($b, q{SELECT detail FROM dsched.status() WHERE component = 'definitions'}, qr/^2 changes are not yet published/),
	'what waits is counted');
$b->stop('fast');
$etcd->start;
as_worker($a, q{SELECT dsched.alter_job('down1', command => 'SELECT 11')});
as_worker($a, q{SELECT dsched.unschedule('down2')});
as_worker($a, q{BEGIN; SELECT dsched.unschedule('down3'); SELECT dsched.schedule('down3', '0 0 3 3 *', 'SELECT 3'); COMMIT});
schedule($a, 'down4');
ok(wait_until($a, q{SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL}, 0), 'the others go on');
$etcd->ctl('compact', '--physical', $etcd->get("${jobs}none") // $etcd->post('/v3/kv/range', { key => 'AA==' })->{header}{revision});
start_instance($b);
everywhere(q{SELECT string_agg(job_name, ' ' ORDER BY job_name) FROM dsched.job WHERE job_name ~ 'down|from_b' AND changed IS NULL},
	'down1 down3 down4 from_b', '[away-while-changed] an instance that was away finds what has changed');
everywhere(q{SELECT command, metadata FROM dsched.job WHERE job_name = 'down1'}, 'SELECT 11|{"of": "b"}', 'and keeps what it had to say');
everywhere(q{SELECT schedule FROM dsched.job WHERE job_name = 'down3'}, '0 0 3 3 *', 'a job that was replaced');
is(column($a, 'down3', 'job_id'), column($b, 'down3', 'job_id'), 'is the new one');
my $all = q{SELECT string_agg(concat_ws(',', job_id, job_name, schedule, command, time_zone, active, payload, metadata, anchor, gen, slots_from,
	gen_rev, mod_revision, change_id), ';' ORDER BY job_id) FROM dsched.job};
ok(wait_for(sub { $a->safe_psql('postgres', $all) eq $b->safe_psql('postgres', $all) }), 'all definitions are the same in all they say');

# Resumed, not compared
ok(wait_until($b, q{SELECT applied_revision >= (SELECT max(mod_revision) FROM dsched.job) FROM dsched.identity}), 'what is applied is noted');
$logged{node2} = -s $b->logfile;
$b->stop('fast');
as_worker($a, q{SELECT dsched.unschedule('down4')});
schedule($a, 'down5');
start_instance($b);
ok(wait_until($b, q{SELECT string_agg(job_name, ' ' ORDER BY job_name) FROM dsched.job WHERE job_name ~ 'down'}, 'down1 down3 down5'),
	'an instance that was away goes on where it was');
unlike(PostgreSQL::Test::Utils::slurp_file($b->logfile, $logged{node2}), qr/read the definitions/, 'without reading everything again');

# ---------------------------------------------------------------------------------------------------------------------
# What others write into etcd
# ---------------------------------------------------------------------------------------------------------------------

schedule($a, $_) foreach qw(broken whole);
all_published('before something breaks');
my $good = in_etcd('broken');
my $deep = '{"format":1,"x":' . ('[' x 5000) . (']' x 5000) . '}';
foreach my $bad ('{"format":1', '', $deep, '"' . ('x' x 1200000) . '"', in_etcd('whole')->{value}, $good->{value} =~ s/"format":1/"format":7/r,
	$good->{value} =~ s/"job_name"/"overlap":"sometimes","job_name"/r, $good->{value} =~ s/"job_name"/"max_attempts":0,"job_name"/r)
{
	$etcd->post('/v3/kv/put', { map { $_->[0] => MIME::Base64::encode_base64($_->[1], '') } [ key => $good->{key} ], [ value => $bad ] });
	everywhere(q{SELECT problem FROM dsched.job WHERE job_name = 'broken'}, qr/^definition in etcd does not parse/,
		'a definition that is broken is shown: ' . substr($bad, 0, 30));
	$etcd->post('/v3/kv/put', { map { $_->[0] => MIME::Base64::encode_base64($_->[1], '') } [ key => $good->{key} ], [ value => $good->{value} ] });
	everywhere(q{SELECT problem IS NULL FROM dsched.job WHERE job_name = 'broken'}, 't', 'and mended');
}
$etcd->ctl('put', $good->{key}, 'not JSON');
$etcd->ctl('put', "${jobs}063/worker/nobody", '{}');
$etcd->ctl('put', "${jobs}elsewhere", 'x');
$etcd->ctl('put', '/dsched/test/db/postgres/trigger/000/17', '{"format":1}');
ok(wait_until($b, q{SELECT problem IS NOT NULL FROM dsched.job WHERE job_name = 'broken'}), 'a broken definition');
$b->restart;
ok(wait_until($b, q{SELECT count(*) FROM dsched.status() WHERE state = 'problem' AND component = 'jobs'}, 1), '[broken-definition] is known after a restart');
as_worker($a, q{SELECT dsched.alter_job('whole', command => 'SELECT 12')});
everywhere(q{SELECT command FROM dsched.job WHERE job_name = 'whole' AND changed IS NULL}, 'SELECT 12', 'the others live on');
as_worker($b, q{SELECT dsched.alter_job('broken', command => 'SELECT 13')});
everywhere(q{SELECT command FROM dsched.job WHERE job_name = 'broken' AND problem IS NULL AND changed IS NULL}, 'SELECT 13',
	'and who changes the job mends it');
$etcd->ctl('del', "${jobs}063/worker/nobody");
$etcd->ctl('del', '/dsched/test/db/postgres/trigger/000/17');

# Fields of a later version survive a change by this one.
my $later = in_etcd('whole');
$etcd->ctl('put', $later->{key}, $later->{value} =~ s/\}$/,"later":{"n":[1,2.50]}}/r);
ok(wait_until($b, q{SELECT extra FROM dsched.job WHERE job_name = 'whole'}, qr/later/), '[unknown-fields] fields that are not known');
as_worker($b, q{SELECT dsched.alter_job('whole', command => 'SELECT 14')});
all_published('with them');
like(in_etcd('whole')->{value}, qr/"command":"SELECT 14".*"later":\{"n":\[1,2\.50\]\}\}$/, '[unknown-fields] are kept');

# ---------------------------------------------------------------------------------------------------------------------
# etcd is restored from a backup
# ---------------------------------------------------------------------------------------------------------------------

all_published('before the backup');
$etcd->stop('TERM');
my $data = $etcd->{members}[0]{data};
system('cp', '-r', $data, "$data.backup") == 0 or die 'cannot copy the data of etcd';
$etcd->start;
schedule($a, 'since_backup');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'since_backup' AND changed IS NULL}, 1, 'a job that the backup does not have');
# by its revision an instance knows that etcd went back: it must not have come as far again before both have looked
$etcd->ctl('put', '/elsewhere', $_) foreach 1 .. 100;
schedule($a, 'behind_them');
everywhere(q{SELECT count(*) FROM dsched.job WHERE job_name = 'behind_them' AND changed IS NULL}, 1, 'and one behind much else');
my %before = map { ($_->name => $_->safe_psql('postgres', $all)) } @fleet;
$etcd->stop('KILL');
system('rm', '-rf', $data) == 0 && rename("$data.backup", $data) or die 'cannot restore the data of etcd';
$etcd->start;
foreach my $node (@fleet)
{
	ok(wait_until($node, q{SELECT string_agg(detail, ' ') FROM dsched.status() WHERE state = 'problem'}, qr/restored/),
		$node->name . ' says that etcd was restored [etcd-restored]');
	is($node->safe_psql('postgres', $all), $before{ $node->name }, '[etcd-restored] and has all that it had');
}
is(in_etcd('since_backup'), undef, 'nothing is written into it');

done_testing();
