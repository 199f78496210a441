# Strict delivery without etcd, settings that it needs, and prepared transactions that nobody may settle without knowing.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('alone', conf => "max_prepared_transactions = 0\n");

create_extension($node);
$node->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker');

my ($rc, undef, $stderr) = $node->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('exact', '* * * * * *', 'SELECT dsched_test.effect()', delivery => 'exactly_once')});
is($rc, 0, 'without etcd nothing has to be prepared');
like($stderr, qr/NOTICE:  delivery "exactly_once" needs prepared transactions/, 'but somebody may join a cluster later');
ok(wait_until($node, q{SELECT count(*) >= 2 FROM dsched_test.effects WHERE job = 'exact'}, 't'), 'it runs');
as_worker($node, q{SELECT dsched.unschedule('exact')});
effects_match_runs('exact', [$node]);
($rc, undef, $stderr) = $node->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('v', '@daily', 'VACUUM', delivery => 'exactly_once')});
isnt($rc, 0, 'what could not be prepared is refused all the same');
as_worker($node, q{SELECT dsched.schedule_in('commits', '0 s', 'DO $$BEGIN COMMIT; END$$', delivery => 'exactly_once')});
ok(wait_until($node, q{SELECT status FROM dsched.run WHERE job_name = 'commits'}, 'failed'), 'and what commits by itself fails');

# ---- a crash in the command ----

my $gate = $node->background_psql('postgres');
$gate->query_safe('BEGIN; LOCK TABLE gate');
as_worker($node, qq{SELECT dsched.schedule_in('once_$_', '0 s', 'SELECT dsched_test.log(''begin''); TABLE gate; SELECT dsched_test.effect()', delivery => '$_', max_attempts => 3)}) foreach 'at_most_once', 'exactly_once';
ok(wait_for(sub { append_log_lines(phase => 'begin') == 2 }), 'runs have begun');
kill9_everything($node);
eval { $gate->quit };
start_instance($node);
ok(wait_until($node, q{SELECT status FROM dsched.run WHERE job_name = 'once_at_most_once'}, 'lost'), 'at_most_once: lost');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'once_exactly_once'}, 1), 'exactly_once: made again');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'all is done');
attempts_at_most('once_at_most_once', 1);
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job LIKE 'once%'}), 1, 'with one effect');

# an orderly stop within a run of at_most_once; a lock of another session would be gone before the run is
as_worker($node, q{SELECT dsched.schedule_in('stopped', '0 s', 'SELECT dsched_test.log(''begin''); SELECT pg_sleep(600)', delivery => 'at_most_once', max_attempts => 3)});    # sleep-ok: to be ended
ok(wait_for(sub { append_log_lines(job => 'stopped') }), 'a run has begun');
$node->stop('fast');
start_instance($node);
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs}, 0), 'it is done with');
is($node->safe_psql('postgres', q{SELECT status FROM dsched.run WHERE job_name = 'stopped'}), 'lost', 'and lost');
attempts_at_most('stopped', 1);

# ---- prepared transactions of a cluster that this server was in once ----

$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\n");
$node->restart;
my $gid = 'dsched:0123456789abcdef0123456789abcdef:any:007:5:1795241309000000:0:1:3:2:1';
$node->safe_psql('postgres', "BEGIN; INSERT INTO dsched_test.effects (job) VALUES ('old'); PREPARE TRANSACTION '$gid'");
# one by name alone is nobody's business: its owner may be anybody
$node->safe_psql('postgres', "CREATE TABLE mine (x int); GRANT ALL ON mine TO worker; SET SESSION AUTHORIZATION worker; BEGIN; INSERT INTO mine VALUES (1); PREPARE TRANSACTION 'dsched:mine'");
$node->restart;
ok(wait_until($node, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^problem 1 prepared transaction waits to be settled: this instance runs without etcd/), 'it is told to a person');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 2, '[prepared-of-others] and nothing is done about it');
as_worker($node, q{SELECT dsched.schedule_in('other', '0 s', 'SELECT 1') FROM generate_series(1, 1)});
$node->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
ok(wait_until($node, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), 'who has decided is noticed');
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE job_name = 'other'}, 1), 'and all partitions go on');
is($node->safe_psql('postgres', 'SELECT string_agg(gid, $$,$$) FROM pg_prepared_xacts'), 'dsched:mine', '[prepared-of-others] the one of somebody else is untouched');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'dsched:mine'");
account_ok($node);
$node->stop;

# ---- in a cluster ----

my $etcd = start_etcd();
my $member = new_instance('member', etcd => $etcd, conf => "max_prepared_transactions = 0\n");

create_extension($member);
ok(wait_fleet([$member]), 'an instance in a cluster');
($rc, undef, $stderr) = $member->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('exact', '@daily', 'SELECT 1', delivery => 'exactly_once')});
isnt($rc, 0, 'it needs prepared transactions');
like($stderr, qr/ERROR:  delivery "exactly_once" needs prepared transactions.*HINT:  Set max_prepared_transactions/s, 'and says so');
as_worker($member, q{SELECT dsched.schedule('own', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'each', delivery => 'exactly_once')});
ok(wait_past('own', 1, [$member], timestamp()), 'but not if it runs on each instance');
($rc, undef, $stderr) = $member->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.alter_job('own', run_on => 'any')});
isnt($rc, 0, 'so it cannot run on one of them');
like($stderr, qr/ERROR:  delivery "exactly_once" needs prepared transactions/, 'and says so');

# ---- one of another cluster that holds a start row ----

my $former = new_instance('former', etcd => $etcd, cluster_name => 'former', conf => "max_prepared_transactions = 5\n");

create_extension($former);
ok(wait_fleet([$former]), 'an instance in another cluster');
# of a job that is gone by now
$former->safe_psql('postgres', q{INSERT INTO dsched.run (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, node, epoch)
	VALUES (timestamptz 'epoch' + interval '1 us' * 1795241309000000, 5, 0, 1, 'old', 'worker', 1, 'schedule', 'running', 1, 'former', 3)});
$former->safe_psql('postgres', "BEGIN; UPDATE dsched.run SET status = 'succeeded' WHERE job_id = 5; PREPARE TRANSACTION '$gid'");
kill9_everything($former);
start_instance($former);
ok(wait_until($former, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^problem 1 prepared transaction.*another cluster/), 'it is told to a person');
as_worker($former, q{SELECT count(dsched.schedule_in('meanwhile' || i, '0 s', 'SELECT 1')) FROM generate_series(1, 9) i});
# all but the partition that it names
ok(wait_until($former, q{SELECT count(*) > 3 FROM dsched.run WHERE job_name ~ 'meanwhile'}, 't', 20), '[prepared-of-others] other partitions do not wait for it');
$former->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
ok(wait_until($former, q{SELECT count(*) FROM dsched.run WHERE job_name ~ 'meanwhile'}, 9), 'nor that, when somebody has decided');
ok(wait_until($former, q{SELECT status FROM dsched.run WHERE job_name = 'old'}, 'lost'), 'and the start row has its end');

done_testing();
