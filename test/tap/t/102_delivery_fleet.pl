# Strict delivery where the owner is stopped, cut off or lost between two steps of a run, and another instance takes its partition over, or
# etcd does not answer.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my %relay = map { $_ => start_relay($etcd) } 'node1', 'node2';
my @fleet = map { new_instance($_, etcd => $relay{$_}, conf => "dsched.lease_ttl = '2s'\n") } 'node1', 'node2';

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');

# If it began after the last account its successor makes it again under the same number; it has one effect all the same.
my @may_repeat;

sub suspend
{
	my ($node) = @_;

	push @may_repeat, { node => $node->name, since => time() - 5, until => time() + 90 };
	sigstop_instance($node);
	return;
}

# Begins a job that stops at the point, on whichever instance it is: that one, the other one, and its executor.
sub begin_job
{
	my ($job, $mode, $point) = @_;
	my $stopped;

	stop_runs_at($point, @fleet);
	as_worker($fleet[0], "SELECT dsched.schedule_in('$job', '0 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()', delivery => '$mode')");
	ok(wait_for(sub { ($stopped) = grep { stopped_executors($_) } @fleet }, 20), "$job: it stops at \"$point\"") or die;
	my ($other) = grep { $_ != $stopped } @fleet;

	stop_runs_at('', @fleet);
	return ($stopped, $other, stopped_executors($stopped));
}

sub total_effects
{
	my ($job) = @_;
	my $n = 0;

	$n += psql_try($_, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") // 0 foreach @fleet;
	return $n;
}

sub settled
{
	my ($job) = @_;

	ok(wait_until(\@fleet, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$job: nothing is left prepared");
	ok(wait_for(sub { !%{ $etcd->keys('/dsched/test/db/postgres/run/') } }, 40), "$job: no key is left") or diag(join ' ', %{ $etcd->keys('/dsched/test/db/postgres/run/') });
	ok(wait_until(\@fleet, "SELECT count(*) FROM dsched.jobs WHERE job_name = '$job'", 0), "$job: it is done");
	ok(wait_fleet(\@fleet), "$job: both have their share again");
	ok(wait_until(\@fleet, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), "$job: status() is content");
	return;
}

# ---- the owner is suspended with a prepared transaction, another makes the run, the owner goes on ----

my ($old, $other, @executors) = begin_job('suspended', 'exactly_once', 'prepared');

is($old->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 1, 'it is prepared');
is($old->safe_psql('postgres', q{SELECT owner FROM pg_prepared_xacts}), $old->safe_psql('postgres', q{SELECT extowner::regrole FROM pg_extension WHERE extname = 'dsched'}), 'and not the property of the role of the job');
{
	my $gid = $old->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	my ($rc, undef, $stderr) = $old->psql('postgres', "SET SESSION AUTHORIZATION worker; COMMIT PREPARED '$gid'");

	isnt($rc, 0, 'which cannot commit it');
	like($stderr, qr/permission denied to finish prepared transaction/, 'for want of permission');
	($rc, undef, $stderr) = $old->psql('postgres', "SET SESSION AUTHORIZATION worker; ROLLBACK PREPARED '$gid'");
	isnt($rc, 0, 'nor roll it back');
}
suspend($old);
ok(wait_until($other, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'suspended'}, 1, 40), 'its successor makes the run');
sigcont_instance($old);
settled('suspended');
is(total_effects('suspended'), 1, '[prepared-and-suspended] it has one effect');

# ---- the owner is cut off when it asks; its question arrives late or never ----

($old, $other, @executors) = begin_job('cut', 'exactly_once', 'prepared');
$relay{ $old->name }->cut;
kill('CONT', @executors);
ok(wait_until($other, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'cut'}, 1, 40), 'cut off: its successor makes the run');
ok(wait_until($old, 'SELECT count(*) FROM pg_prepared_xacts', qr/^[01]$/), 'cut off: it waits, or has taken its question back');
is($old->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'cut'}), 0, 'cut off: it commits nothing');
$relay{ $old->name }->mend;
settled('cut');
is(total_effects('cut'), 1, 'cut off: one effect');

# ---- the owner is lost after the decision ----

($old, $other) = begin_job('decided', 'exactly_once', 'answered');
kill9_everything($old);
ok(wait_owners($other, [ $other->name ]), 'decided: another owns all partitions');
ok(wait_until($other, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^waiting 1 run was decided by .*"\Q@{[$old->name]}\E"/), 'decided: it says who has to answer');
is($other->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'decided'}), 0, '[decided-and-away] decided: it does not make the run');
start_instance($old);
ok(wait_until($old, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'decided'}, 1), 'decided: the owner commits it when it is back');
is($old->safe_psql('postgres', q{SELECT status FROM dsched.run WHERE job_name = 'decided'}), 'succeeded', 'decided: and has the row');
settled('decided');
is(total_effects('decided'), 1, '[decided-and-away] decided: one effect');
is(scalar(append_log_lines(job => 'decided')), 1, 'decided: one attempt');

# ---- etcd does not answer when it is asked ----

($old, $other, @executors) = begin_job('silent', 'exactly_once', 'prepared');
$etcd->sigstop;
kill('CONT', @executors);
# the lease of both is over before etcd goes on
ok(wait_until($old, q{SELECT state <> 'ok' FROM dsched.status() WHERE component = 'etcd'}, 't'), 'silent: the session lapses');
is($old->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'silent'}), 0, '[etcd-silent-at-decision] silent: nothing is committed meanwhile');
$etcd->sigcont;
ok(wait_for(sub { total_effects('silent') == 1 }, 40), 'silent: it is committed when etcd is back, by whomever');
settled('silent');
is(total_effects('silent'), 1, '[etcd-silent-at-decision] silent: one effect');

# ---- at most once: the owner is suspended between its claim and the command ----

($old, $other) = begin_job('claimed', 'at_most_once', 'claimed');
suspend($old);
ok(wait_until($other, q{SELECT status FROM dsched.run WHERE job_name = 'claimed'}, 'lost', 40), 'claimed: its successor records it as lost');
sigcont_instance($old);
settled('claimed');
is(total_effects('claimed'), 0, '[claimed-and-lost] claimed: nobody begins it again');
is(scalar(append_log_lines(job => "claimed")), 0, "claimed: nobody begins it at all");
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
