# The policies of a job in a fleet: what waits, is counted or was asked for on one instance goes on at the heir when the owner is killed or
# stopped, and requests made on any instance are carried out by the owner.
#
# timeout: 240

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd();
my ($one, $two, $three) = my @fleet = fleet(3, etcd => $etcd);
my %node = map { ($_->name => $_) } @fleet;
my $reported = 0.25 + 1.25;    # dsched.checkpoint_interval and the report's way to etcd, on a busy machine
my @may_repeat;

create_extension(@fleet);
$_->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker') foreach @fleet;
ok(wait_fleet(\@fleet), 'three instances share the partitions');

my $begin  = q{'SELECT dsched_test.log(''begin''), dsched_test.effect()'};
my $passes = q{'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()'};

# A name for a job of this kind that the instance owns.
sub name_on
{
	my ($node, $kind) = @_;
	my $name = $node->name;

	return $node->safe_psql('postgres',
		"SELECT job FROM (SELECT '$kind' || i AS job FROM generate_series(1, 200) i) j WHERE dsched._owner_node('worker', job) = '$name' LIMIT 1");
}

# The rows of these instances, as "attempt status node".
sub attempts_of
{
	my ($job, @on) = @_;
	my @rows;

	foreach my $node (@on ? @on : @fleet)
	{
		push @rows, split /\n/, psql_try($node, "SELECT attempt || ' ' || status || ' ' || node FROM dsched.run WHERE job_name = '$job'") // '';
	}
	return join(', ', sort @rows);
}

sub effects_of
{
	my ($job, @on) = @_;
	my %on;

	foreach my $node (@on ? @on : @fleet)
	{
		push @{ $on{$_} }, $node->name foreach split /\n/, psql_try($node, "SELECT slot FROM dsched_test.effects WHERE job = '$job'") // '';
	}
	return \%on;
}

# Each of these slots has an effect, none has two but where that is allowed.
sub each_once
{
	my ($job, $count, $from, $name, $repeats_on) = @_;
	my $effects = effects_of($job);
	my @slots = sort keys %$effects;
	my @twice = grep { @{ $effects->{$_} } > 1 } @slots;
	my @wrong = grep { !defined $repeats_on || @{ $effects->{$_} } > 2 || !grep { $_ eq $repeats_on } @{ $effects->{$_} } } @twice;

	is(scalar(@slots), $count, "$name: every slot was run") if defined $count;
	is_deeply(\@wrong, [], "$name: none was repeated but what was not reported yet");
	note("$name: " . @slots . ' slots, ' . @twice . ' of them repeated');
	# how many fit between two reports is a matter of the machine; what had been reported is not repeated
	cmp_ok(scalar(@twice), '<', scalar(@slots), "$name: not all were") if defined $repeats_on;
	return;
}

my %locks;

sub lock_gate
{
	my ($node) = @_;

	$locks{ $node->name } = $node->background_psql('postgres');
	$locks{ $node->name }->query_safe('BEGIN; LOCK TABLE gate');
	return;
}

sub open_gate
{
	my ($node) = @_;
	my $session = delete $locks{ $node->name } // return;

	eval { $session->query('COMMIT') };
	eval { $session->quit };
	return;
}

sub waits_at_gate
{
	my ($node, $job) = @_;

	return ok(wait_until($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dsched: $job' AND wait_event = 'relation'", 1),
		"$job runs on " . $node->name);
}

# Jobs are known everywhere when they are published.
sub define_job
{
	my ($on, $job, $schedule, $command, $options) = @_;

	as_worker($on, "SELECT dsched.schedule('$job', '$schedule', $command" . ($options ? ", $options" : '') . ')');
	ok(wait_until(\@fleet, "SELECT published FROM dsched.jobs WHERE job_name = '$job'", 't'), "$job is everywhere");
	return;
}

# ---- requests made on another instance ----

my $asked = name_on($one, 'asked');
define_job($two, $asked, '0 * * * *', $begin, q{max_attempts => 1});
as_worker($two,   "SELECT dsched.run_now('$asked')");
as_worker($three, "SELECT dsched.backfill('$asked', '2026-01-01 00:00+00', '2026-01-01 09:00+00')");
ok(wait_until($one, "SELECT count(*) FROM dsched_test.effects WHERE job = '$asked'", 11), 'run_now() and backfill() called elsewhere run at the owner');
is(scalar(keys %{ effects_of($asked, $two, $three) }), 0, 'and nowhere else');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.outbox}, 0), 'the requests are done');

# Changed policies
my $altered = name_on($one, 'altered');
define_job($one, $altered, '@yearly', q{'SELECT dsched_test.log(''begin''), 1 / 0'});
as_worker($one, "SELECT dsched.run_now('$altered')");
ok(wait_for(sub { attempts_of($altered) eq '1 failed node1' }), 'a job with one attempt');
as_worker($three, "SELECT dsched.alter_job('$altered', max_attempts => 3, retry_delay => '50 ms')");
ok(wait_until(\@fleet, "SELECT max_attempts, retry_delay, published FROM dsched.jobs WHERE job_name = '$altered'", '3|00:00:00.05|t'), 'is altered on another instance');
as_worker($two, "SELECT dsched.run_now('$altered')");
ok(wait_for(sub { attempts_of($altered) eq '1 failed node1, 1 failed node1, 2 failed node1, 3 failed node1' }), 'it has three now')
  or diag(attempts_of($altered));

# Cancelled from elsewhere: what runs, what is queued behind it, what waits for its next attempt, what is left of a backfill
my ($stopped, $retried, $back) = (name_on($one, 'stopped'), name_on($one, 'retried'), name_on($one, 'back'));
lock_gate($one);
define_job($two, $stopped, '@yearly',   $passes);
define_job($two, $back,    '0 * * * *', $passes);
define_job($two, $retried, '@yearly', q{'SELECT 1 / 0'}, q{max_attempts => 2, retry_delay => '10 min'});
my @keys = split /\n/, as_worker($two, "SELECT dsched.run_now('$stopped') FROM generate_series(1, 3)");
push @keys, as_worker($two, "SELECT dsched.run_now('$retried')");
push @keys, as_worker($two, "SELECT dsched.backfill('$back', '2026-01-01 00:00+00', '2026-01-02 23:00+00')");
waits_at_gate($one, $stopped);
waits_at_gate($one, $back);
ok(wait_until($one, "SELECT attempt FROM dsched.runs WHERE job_name = '$retried' AND status = 'waiting'", 2), 'a retry waits');
as_worker($three, join('; ', map { "SELECT dsched.cancel('$_')" } @keys));
ok(wait_until($one, "SELECT count(*) FROM dsched.runs WHERE job_name IN ('$stopped', '$back', '$retried') AND status IN ('queued', 'waiting', 'running')", 0),
	'all of it is cancelled from another instance');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.outbox}, 0), 'the requests are done');
ok(wait_for(sub { my @keys = $etcd->keys('/dsched/test/db/postgres/trigger/'); !@keys }), 'in etcd, too');
open_gate($one);
is(attempts_of($stopped), '1 cancelled node1, 1 cancelled node1, 1 cancelled node1', 'three runs');
is(attempts_of($retried), '1 failed node1, 2 cancelled node1', 'a retry');
is($one->safe_psql('postgres', "SELECT sum(slots), count(*) > 1 FROM dsched.run WHERE job_name = '$back' AND status = 'cancelled'"), '48|t', 'a backfill');
is(scalar(keys %{ effects_of($_) }), 0, "$_: without an effect") foreach $stopped, $back;
account_ok(\@fleet);

# ---- the owner is killed ----

sub options_of
{
	my ($node, $job) = @_;

	return psql_try($node, qq{SELECT to_jsonb(j) - '{next_run,last_run,last_status,last_finished,owner_node}'::text[] FROM dsched.jobs j WHERE job_name = '$job'})
	  // '';
}

my %on_one = map { ($_ => name_on($one, $_)) } qw(far near failing bf queue_all replaced options unlimited);
define_job($two, $on_one{options}, '0 0 1 1 *', $begin, q{overlap => 'queue_one', misfire => 'all', misfire_grace => '5 min', max_attempts => 4,
	retry_delay => '3 s', retry_max_delay => '5 min', timeout => '1 hour', priority => -7, deadline => '2 min', max_failures => 9, max_lost => 4,
	jitter => '30 s', queue => 'narrow', payload => '{"a": [1, 2.50]}', metadata => '{"b": "x"}', starts_at => '2027-01-01', expires_at => '2037-01-01', max_runs => 7})
  if as_superuser_queue();
my $options = options_of($one, $on_one{options});
is(options_of($_, $on_one{options}), $options, 'options on ' . $_->name) foreach $two, $three;

sub as_superuser_queue
{
	$two->safe_psql('postgres', q{SELECT dsched.create_queue('narrow', 1), dsched.create_queue('gone', 1)});
	return ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues WHERE published}, 2), 'queues');
}

define_job($two, $on_one{far},  '@yearly', q{'SELECT 1 / 0'}, q{max_attempts => 3, retry_delay => '1 hour', retry_max_delay => '1 hour'});
define_job($two, $on_one{near}, '@yearly', q{'SELECT dsched_test.log(''begin''), 1 / 0'}, q{max_attempts => 3, retry_delay => '12 s', retry_max_delay => '12 s'});
define_job($two, $on_one{bf}, '0 * * * *', $begin);
define_job($two, $on_one{unlimited}, '* * * * * *', $begin, q{queue => 'gone', overlap => 'queue_all'});
lock_gate($one);
define_job($two, $on_one{queue_all}, '* * * * * *', $passes, q{overlap => 'queue_all'});
define_job($two, $on_one{replaced}, '* * * * * *', q{'SELECT dsched_test.log(''begin''), pg_sleep(600)'}, q{overlap => 'cancel_running'});	# sleep-ok: it is cancelled
define_job($two, $on_one{failing}, '* * * * * *', q{'SELECT dsched_test.log(''begin''), 1 / 0'}, q{max_failures => 10});
# With its key the queue is gone everywhere, while a job is in it.
$etcd->ctl('del', '/dsched/test/db/postgres/queue/gone');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues}, 1), 'a queue is lost');
as_worker($two, "SELECT dsched.run_now('$on_one{far}'); SELECT dsched.run_now('$on_one{near}')");

my $waiting = "SELECT string_agg(concat_ws(' ', job_name, run_key, attempt, status, extract(epoch FROM not_before)), E'\n' ORDER BY job_name)
	FROM dsched.runs WHERE job_name IN ('$on_one{far}', '$on_one{near}') AND status = 'waiting'";
ok(wait_until($one, $waiting, qr/ 2 waiting .*\n.* 2 waiting /), 'two retries wait');
my $retries = $one->safe_psql('postgres', $waiting);
my ($near_at) = $retries =~ /^near.* (\S+)$/m;
# with another scale: microseconds since 1970
ok(wait_for(sub {
	my $states = join(' ', values %{ $etcd->keys('/dsched/test/db/postgres/state/') });
	return 2 == grep { my $micros = sprintf('%.0f', $_ * 1e6); $states =~ /"n":$micros\b/ } $retries =~ / (\S+)$/mg;
}), 'etcd has their times') or diag($retries);
ok(wait_until($one, "SELECT count(*) FROM dsched.run WHERE job_name = '$on_one{failing}' AND status = 'failed'", sub { $_[0] >= 3 }), 'some runs have failed');
ok(wait_until($one, "SELECT slots FROM dsched.runs WHERE job_name = '$on_one{queue_all}' AND status = 'waiting'", sub { $_[0] =~ /^\d+$/ && $_[0] >= 3 }), 'slots wait');
ok(wait_until($one, "SELECT count(*) FROM dsched.run WHERE job_name = '$on_one{replaced}' AND status = 'cancelled'", sub { $_[0] >= 3 }), 'runs were replaced');
my $failed_before = $one->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = '$on_one{failing}' AND status = 'failed'");
as_worker($three, "SELECT dsched.backfill('$on_one{bf}', '2026-01-01 00:00+00', '2026-01-13 11:00+00')");
ok(wait_until($one, "SELECT count(*) FROM dsched_test.effects WHERE job = '$on_one{bf}'", sub { $_[0] >= 30 }), 'a backfill is under way');

my $killed = time();
kill9_everything($one);
delete $locks{node1};
push @may_repeat, { node => 'node1', since => $killed - $reported };
ok(wait_owners($two, [ 'node2', 'node3' ]), 'the owner is killed, the others take over');

my ($heir) = map { $node{ $two->safe_psql('postgres', "SELECT dsched._owner_node('worker', '$_')") } } $on_one{far};
my ($far) = grep { /^far/ } split /\n/, $retries;
ok(wait_until($heir, "SELECT concat_ws(' ', job_name, run_key, attempt, status, extract(epoch FROM not_before)) FROM dsched.runs
	WHERE job_name = '$on_one{far}' AND status = 'waiting'", $far), 'the retry waits at the heir, with its number and time');
ok(wait_for(sub { attempts_of($on_one{near}, $two, $three) =~ /^2 failed/ }), 'the next attempt is made by the heir') or diag(attempts_of($on_one{near}, $two, $three));
cmp_ok(($two->safe_psql('postgres', "SELECT extract(epoch FROM min(started_at)) FROM dsched.run WHERE job_name = '$on_one{near}'")
		|| $three->safe_psql('postgres', "SELECT extract(epoch FROM min(started_at)) FROM dsched.run WHERE job_name = '$on_one{near}'")),
	'>=', $near_at, 'not before its time');
ok(wait_for(sub { keys %{ effects_of($on_one{bf}, $two, $three) } >= 200 }), '[backfill-at-take-over] the backfill goes on');
ok(wait_until([ $two, $three ], "SELECT active FROM dsched.jobs WHERE job_name = '$on_one{failing}'", 'f'), '[counters-at-take-over] failures are counted on: the job is paused');
like($two->safe_psql('postgres', "SELECT problem FROM dsched.jobs WHERE job_name = '$on_one{failing}'")
	. $three->safe_psql('postgres', "SELECT problem FROM dsched.jobs WHERE job_name = '$on_one{failing}'"), qr/paused: 10 runs in a row failed/, 'after ten');
my $cancelled = sub {
	my $sum = 0;

	$sum += psql_try($_, "SELECT count(*) FROM dsched.run WHERE job_name = '$on_one{replaced}' AND status = 'cancelled'") // 0 foreach @_;
	return $sum;
};
ok(wait_for(sub { $cancelled->($two, $three) >= 3 }), 'runs are replaced by newer ones at the heir');
ok(wait_past($on_one{$_}, 1, [ $two, $three ], timestamp()), "$_ runs at the heir") foreach 'queue_all', 'unlimited';
is(options_of($_, $on_one{options}), $options, 'options stay on ' . $_->name) foreach $two, $three;

start_instance($one);
ok(wait_fleet(\@fleet), 'it is back and has its share');
ok(wait_until($one, "SELECT active FROM dsched.jobs WHERE job_name = '$on_one{failing}'", 'f'), 'it knows that the job is paused');
is(options_of($one, $on_one{options}), $options, 'and the options');
my $failed = () = attempts_of($on_one{failing}) =~ /failed/g;
cmp_ok($failed, '>=', 10, 'ten runs have failed');
cmp_ok($failed, '<=', 12, 'or a few more, which had not been reported');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.outbox WHERE kind = 'backfill'}, 0), 'the backfill is done with');
# all but that of the retry that still waits
ok(wait_for(sub { my @keys = $etcd->keys('/dsched/test/db/postgres/trigger/'); @keys == 1 }), 'in etcd, too');
each_once($on_one{bf}, 300, undef, 'a backfill whose owner was killed', 'node1');
each_once($on_one{queue_all}, undef, undef, 'slots that waited, of an owner that was killed', 'node1');
account_ok(\@fleet, may_repeat => \@may_repeat, holes => 1);
as_worker($two, "SELECT dsched.unschedule(job_id) FROM dsched.jobs WHERE job_name IN ('$on_one{replaced}', '$on_one{unlimited}', '$on_one{queue_all}')");

# ---- the owner is stopped ----

my %on_two = map { ($_ => name_on($two, $_)) } qw(again wait counted);
define_job($three, $on_two{again},   '0 * * * *',   $begin);
define_job($three, $on_two{counted}, '* * * * * *', q{'SELECT dsched_test.log(''begin''), 1 / 0'}, q{max_failures => 6});
lock_gate($two);
define_job($three, $on_two{wait}, '* * * * * *', $passes, q{overlap => 'queue_all'});
ok(wait_until($two, "SELECT slots FROM dsched.runs WHERE job_name = '$on_two{wait}' AND status = 'waiting'", sub { $_[0] =~ /^\d+$/ && $_[0] >= 3 }), 'slots wait');
as_worker($three, "SELECT dsched.backfill('$on_two{again}', '2026-01-01 00:00+00', '2026-01-13 11:00+00')");
ok(wait_until($two, "SELECT count(*) FROM dsched_test.effects WHERE job = '$on_two{again}'", sub { $_[0] >= 30 }), 'a backfill is under way');
$two->stop('fast');
delete $locks{node2};
ok(wait_owners($one, [ 'node1', 'node3' ]), 'the others take over');
ok(wait_past($on_two{wait}, 1, [ $one, $three ], timestamp()), 'they run what waited');
ok(wait_for(sub { keys %{ effects_of($on_two{again}, $one, $three) } >= 200 }), 'and the backfill');
ok(wait_until([ $one, $three ], "SELECT active FROM dsched.jobs WHERE job_name = '$on_two{counted}'", 'f'), 'failures are counted on');
start_instance($two);
ok(wait_fleet(\@fleet), 'it is back');
each_once($on_two{again}, 300, undef, 'a backfill whose owner was stopped');
each_once($on_two{wait}, undef, undef, 'slots that waited, of an owner that was stopped');
my $counted = () = attempts_of($on_two{counted}) =~ /failed/g;
is($counted, 6, 'as many runs as were to fail');
account_ok(\@fleet, may_repeat => \@may_repeat, holes => 1);

done_testing();
