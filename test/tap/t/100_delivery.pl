# The strict delivery modes where nothing fails: what is in etcd before, during and after a run; what is refused; who may finish a
# prepared transaction.

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;

my $etcd = start_etcd();
my $node = new_instance('node1', etcd => $etcd, conf => "max_prepared_transactions = 10\n");

create_extension($node);
$node->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO worker');
ok(wait_fleet([$node]), 'an instance in a cluster');

sub keys_below
{
	my ($prefix) = @_;

	return %{ $etcd->keys("/dsched/test/db/postgres/$prefix/") };
}

sub run_rows
{
	my ($job) = @_;

	return $node->safe_psql('postgres', "SELECT string_agg(status || ' ' || attempt || coalesce(' ' || message, ''), ', ' ORDER BY scheduled_for, attempt) FROM dsched.run WHERE job_name = '$job'");
}

sub prepared
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts');
}

# ---- exactly once ----

as_worker($node, q{SELECT dsched.schedule('exact', '* * * * * *', $$SELECT dsched_test.log('begin'); SELECT dsched_test.effect()$$, delivery => 'exactly_once')});
ok(wait_until($node, q{SELECT count(*) >= 3 FROM dsched_test.effects}, 't'), 'it runs');
is($node->safe_psql('postgres', q{SELECT DISTINCT delivery FROM dsched.jobs}), 'exactly_once', 'the view says how');
as_worker($node, q{SELECT dsched.pause('exact')});
effects_match_runs('exact', [$node]);
attempts_at_most('exact', 1);
ok(wait_until($node, q{SELECT count(*) FROM pg_prepared_xacts}, 0), 'nothing is left prepared');
ok(wait_for(sub { !keys_below('run') }), 'what the account knows is not in run/ any more');
my %decided = keys_below('decided');
my ($value) = map { decode_json($_) } values %decided;
like($value->{id}, qr/^dsched:/, 'the decisions are kept for a time');
is($value->{mode}, 'exactly_once', 'as what they are');

as_worker($node, q{CREATE TABLE mine (x int); SELECT dsched.schedule('once', '0 0 29 2 *', 'INSERT INTO mine VALUES (1)', delivery => 'exactly_once')});
as_worker($node, q{SELECT dsched.run_now('once')});
ok(wait_until($node, q{SELECT count(*) FROM mine}, 1), 'a request is made, too');
ok(wait_for(sub { !keys_below('trigger') }), 'and is done with');

# ---- at most once ----

as_worker($node, q{SELECT dsched.schedule('most', '* * * * * *', $$SELECT dsched_test.log('begin'); SELECT dsched_test.effect()$$, delivery => 'at_most_once')});
ok(wait_until($node, q{SELECT count(*) >= 3 FROM dsched.run WHERE job_name = 'most' AND status = 'succeeded'}, 't'), 'it runs');
as_worker($node, q{SELECT dsched.pause('most')});
attempts_at_most('most', 1);
ok(wait_for(sub { !keys_below('run') }), 'claims go when the account knows');
as_worker($node, q{SELECT dsched.schedule('fails', '0 0 29 2 *', 'SELECT 1/0', delivery => 'at_most_once', max_attempts => 2, retry_delay => '1 ms')});
as_worker($node, q{SELECT dsched.run_now('fails')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'fails' AND status = 'failed'}, 2), 'an attempt that failed cleanly is followed by another');
ok(wait_for(sub { !keys_below('run') }), 'and their claims go');

# ---- refused ----

sub refused
{
	my ($command, $expected) = @_;
	my ($rc, undef, $stderr) = $node->psql('postgres', "SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('refused', '* * * * *', \$\$$command\$\$, delivery => 'exactly_once')");

	isnt($rc, 0, "refused: $command");
	like($stderr, $expected, 'with the reason');
	return;
}

refused('VACUUM', qr/VACUUM cannot be delivered exactly once/);
refused('BEGIN; SELECT 1; COMMIT', qr/BEGIN cannot be delivered exactly once.*controls transactions/s);
refused('CREATE TEMP TABLE t (x int)', qr/makes a temporary object/);
refused('NOTIFY x', qr/NOTIFY cannot be delivered/);

my %fails = (
	commits => [ q{DO $do$BEGIN COMMIT; END$do$}, qr/failed 1 invalid transaction termination/ ],
	temporary => [ q{SELECT make_temp()}, qr/failed 1 cannot PREPARE a transaction that has operated on temporary objects/ ],
);
as_worker($node, q{CREATE FUNCTION make_temp() RETURNS int LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE t (x int); RETURN 1; END$$});
for my $name (sort keys %fails)
{
	as_worker($node, "SELECT dsched.schedule('$name', '0 0 29 2 *', \$job\$$fails{$name}[0]\$job\$, delivery => 'exactly_once'); SELECT dsched.run_now('$name')");
	ok(wait_until($node, "SELECT count(*) FROM dsched.run WHERE job_name = '$name'", 1), "$name: it ends");
	like(run_rows($name), $fails{$name}[1], 'with the reason in its row');
}
is(prepared(), 0, 'nothing is left prepared');
account_ok($node);

done_testing();
