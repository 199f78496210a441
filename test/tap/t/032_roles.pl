# Roles that change under their jobs: dropped, renamed, no longer allowed to log in. The jobs of such a role fail, with the
# reason, and are marked; all others run on; and they recover when the role does.

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_instance('alone');

create_extension($node);
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA dsched TO PUBLIC');

my @roles = qw(dropped renamed nologin unconnected);
foreach my $role (@roles, 'bystander')
{
	$node->safe_psql('postgres',
		qq{CREATE ROLE $role LOGIN; SELECT dsched.schedule('job_$role', '* * * * * *', 'SELECT dsched_test.effect()', username => '$role')});
}
my $from = now_at();

sub now_at
{
	return $node->safe_psql('postgres', 'SELECT clock_timestamp()');
}

# Slots after this moment end with this status.
sub ends
{
	my ($job, $status, $more) = @_;
	my $now = now_at();

	$more //= 'true';
	return wait_until($node,
		"SELECT count(*) > 0 FROM dsched.run WHERE job_name = '$job' AND scheduled_for > '$now' AND status = '$status' AND $more");
}

sub problem
{
	my ($job, $problem, $name) = @_;

	ok(wait_until($node, "SELECT coalesce(problem, 'none') FROM dsched.jobs WHERE job_name = '$job'", $problem), $name);
	return;
}

ok(ends("job_$_", 'succeeded'), "the job of $_ runs") foreach @roles, 'bystander';

# ---- they break, all at once ----

$node->safe_psql(
	'postgres', q{
DROP ROLE dropped;
ALTER ROLE renamed RENAME TO was_renamed;
ALTER ROLE nologin NOLOGIN;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO bystander, nologin, was_renamed, worker;
});

ok(ends('job_dropped', 'failed', q{sqlstate = '42704' AND message LIKE '%"dropped" does not exist'}), '[role-lost] runs of a role that was dropped fail, with the reason');
problem('job_dropped', qr/role "dropped" does not exist/, 'the job is marked');
ok(ends('job_renamed', 'failed', q{sqlstate = '42704' AND message LIKE '%"renamed" does not exist'}), 'runs of a role that was renamed fail');
problem('job_renamed', qr/role "renamed" does not exist/, 'the job is marked');
ok(ends('job_nologin', 'failed', q{sqlstate = '28000' AND message LIKE '%"nologin" is not permitted to log in'}), 'runs of a role that may not log in fail');
problem('job_nologin', qr/"nologin" is not permitted to log in/, 'the job is marked');
ok(ends('job_unconnected', 'failed', q{sqlstate = '42501' AND message LIKE 'permission denied for database%'}), 'runs of a role that may not connect fail');
problem('job_unconnected', qr/permission denied for database/, 'the job is marked');
ok(ends('job_bystander', 'succeeded'), '[role-lost] others run on');

like($node->safe_psql('postgres', q{SELECT detail FROM dsched.status() WHERE component = 'jobs' AND state = 'problem'}), qr/^4 cannot run.*job_nologin/, 'status() counts them');
my $bystander_log = () = slurp_file($node->logfile) =~ /is not permitted to log in/g;
cmp_ok($bystander_log, '<', 60, 'the log is not flooded');

# ---- they recover ----

$node->safe_psql(
	'postgres', q{
CREATE ROLE dropped LOGIN;
ALTER ROLE was_renamed RENAME TO renamed;
ALTER ROLE nologin LOGIN;
GRANT CONNECT ON DATABASE postgres TO PUBLIC;
});
foreach my $role (@roles)
{
	ok(ends("job_$role", 'succeeded'), "the job of $role runs again");
	problem("job_$role", 'none', 'and its mark is gone');
}
is($node->safe_psql('postgres', q{SELECT state FROM dsched.status() WHERE component = 'jobs'}), 'ok', 'status() knows of nothing any more');

# A role that breaks and recovers while nobody looks, and while its run is under way.
$node->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO PUBLIC');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; LOCK TABLE gate');
$node->safe_psql('postgres', q{SELECT dsched.schedule_in('under_way', '0 s', 'TABLE gate; SELECT dsched_test.effect()', username => 'renamed')});
ok(wait_until($node, q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass}, 1), 'a run is under way');
$node->safe_psql('postgres', 'ALTER ROLE renamed RENAME TO was_renamed');
$session->query_safe('COMMIT');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'under_way'}, 1), 'it ends well');
$node->safe_psql('postgres', 'ALTER ROLE was_renamed RENAME TO renamed');
ok(ends('job_renamed', 'succeeded'), 'and the job of the role goes on');
$session->quit;

# ---- in all this no slot was lost, and nobody else was disturbed ----

my $to = now_at();
ok(ends('job_bystander', 'succeeded'), 'past the end');
every_slot_once('job_bystander', [$node], schedule => '* * * * * *', from => $from, to => $to);
foreach my $role (@roles)
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE job_name = 'job_$role' AND status NOT IN ('succeeded', 'failed')"), 0,
		"the runs of $role succeeded or failed");
	my %recorded;
	$recorded{ $_->{slot} }++ foreach runs("job_$role", [$node]);
	my @wrong = grep { ($recorded{$_} // 0) != 1 } expected_slots($node, schedule => '* * * * * *', from => $from, to => $to);
	is("@wrong", '', "each of its slots has one outcome");
	effects_match_runs("job_$role", [$node]);
}
account_ok($node);

done_testing();
