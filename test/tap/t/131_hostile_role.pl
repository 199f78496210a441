# Jobs of a role that means harm: whatever its commands do, their rows say what came of them, the scheduler and the jobs of others
# go on, nothing of ours runs what the role has made, and nothing of others can be read.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_instance('node1', conf => "dsched.max_executors = 6\ndsched.notify = all\ndsched.run_retention = '7d'");

create_extension($node);
$node->safe_psql('postgres', q{
	CREATE ROLE mallory LOGIN;
	CREATE ROLE victim LOGIN;
	GRANT USAGE ON SCHEMA dsched TO mallory, victim;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
});

sub as
{
	my ($role, $sql) = @_;

	return $node->safe_psql('postgres', "SET SESSION AUTHORIZATION $role; $sql");
}

sub fails
{
	my ($role, $sql) = @_;
	my ($status, $out, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION $role; $sql");

	return $status == 0 ? 'it did not fail' : $error;
}

# What mallory has first in her search path: everything of ours that called one of these would be seen, with whose rights.
as('mallory', q{
	ALTER ROLE mallory SET search_path = mallory, pg_catalog, public;
	CREATE TABLE mallory.seen (who pg_catalog.text, sess pg_catalog.text, what pg_catalog.text);
	CREATE FUNCTION mallory.see(what pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO mallory.seen VALUES (current_user::pg_catalog.text, session_user::pg_catalog.text, what);
		RETURN true;
	EXCEPTION WHEN OTHERS THEN
		RAISE LOG 'mallory % % %', current_user, what, sqlerrm;
		RETURN true;
	END $$;
	CREATE FUNCTION mallory.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT mallory.see('now'); SELECT pg_catalog.now() $$;
	CREATE FUNCTION mallory.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT mallory.see('clock_timestamp'); SELECT pg_catalog.now() $$;
	CREATE FUNCTION mallory.random() RETURNS float8 LANGUAGE sql AS $$ SELECT mallory.see('random'); SELECT 0.5::float8 $$;
	CREATE FUNCTION mallory.texteq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT mallory.see('='); SELECT true $$;
	CREATE FUNCTION mallory.inteq(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT mallory.see('=8'); SELECT true $$;
	CREATE FUNCTION mallory.mul(bigint, interval) RETURNS interval LANGUAGE sql AS $$ SELECT mallory.see('*'); SELECT interval '0' $$;
	CREATE FUNCTION mallory.count(text) RETURNS bigint LANGUAGE sql AS $$ SELECT mallory.see('count'); SELECT 0::bigint $$;
	CREATE FUNCTION mallory.int8(text) RETURNS bigint LANGUAGE sql AS $$ SELECT mallory.see('int8'); SELECT 0::bigint $$;
	CREATE OPERATOR mallory.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = mallory.texteq);
	CREATE OPERATOR mallory.= (LEFTARG = bigint, RIGHTARG = bigint, PROCEDURE = mallory.inteq);
	CREATE OPERATOR mallory.* (LEFTARG = bigint, RIGHTARG = interval, PROCEDURE = mallory.mul);
	CREATE DOMAIN mallory.text AS pg_catalog.text CHECK (mallory.see('domain'));
	CREATE DOMAIN mallory.int8 AS pg_catalog.int8 CHECK (mallory.see('domain8'));
	CREATE TABLE mallory.run (LIKE dsched.run); CREATE TABLE mallory.job (n int);
	CREATE TABLE mallory.pg_class (n int); CREATE TABLE mallory.pg_extension (n int);
	CREATE TABLE mallory.t (n int);
	CREATE FUNCTION mallory.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.see('trigger'); RETURN NEW; END $$;
	CREATE FUNCTION mallory.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.see('deferred'); RAISE EXCEPTION 'boom'; END $$;
	CREATE TABLE mallory.deferred (n int);
	CREATE TRIGGER fire BEFORE INSERT ON mallory.t FOR EACH ROW EXECUTE FUNCTION mallory.fire();
	CREATE CONSTRAINT TRIGGER boom AFTER INSERT ON mallory.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.boom();
	CREATE TABLE mallory.ruled (n int);
	CREATE RULE r AS ON INSERT TO mallory.ruled DO INSTEAD DELETE FROM mallory.t;
	CREATE PROCEDURE mallory.commits() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO mallory.t VALUES (1); COMMIT; INSERT INTO mallory.t VALUES (2); ROLLBACK; COMMIT; END $$;
	CREATE FUNCTION mallory.changing() RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE FUNCTION mallory.deep() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN mallory.deep(); END $$;
});

# The others: one job that must never stop, and one with a secret.
as('victim', q{SELECT dsched.schedule('secret', '* * * * * *', 'SELECT $$hunter2$$ AS password', payload => '{"secret": "hunter2"}', metadata => '{"m": "hunter2"}')});
as('worker', q{SELECT dsched.schedule('sentinel', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('sentinel', 1, [$node], timestamp()), 'the jobs of others run');
my $scheduler = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dsched scheduler%'});

# name => [ command, status, what its row says in sqlstate (a regular expression) ]. What is to be left behind is looked at below.
my %attack = (
	'shadowed' => [ q{SELECT count('x'), now(), clock_timestamp(), random()}, 'succeeded' ],
	'temp shadows' => [ q{CREATE TEMP TABLE run (n int); CREATE TEMP TABLE pg_class (n int); CREATE TEMP VIEW job AS SELECT 1 AS job_id}, 'succeeded' ],
	'trigger' => [ q{INSERT INTO t VALUES (1)}, 'succeeded' ],
	'deferred' => [ q{INSERT INTO deferred VALUES (1)}, 'failed', 'P0001' ],
	'rule' => [ q{INSERT INTO ruled VALUES (1)}, 'succeeded' ],
	'session authorization' => [ q{SET SESSION AUTHORIZATION postgres}, 'failed', '42501' ],
	'session authorization victim' => [ q{SET SESSION AUTHORIZATION victim}, 'failed', '42501' ],
	'set role' => [ q{SET ROLE victim}, 'failed', '42501' ],
	'set role superuser' => [ q{SET ROLE postgres}, 'failed', '42501' ],
	'reset' => [ q{RESET ROLE; RESET SESSION AUTHORIZATION; INSERT INTO seen VALUES (current_user, session_user, 'reset')}, 'succeeded' ],
	'set_config role' => [ q{SELECT set_config('role', 'victim', false)}, 'failed', '42501' ],
	'set_config authorization' => [ q{SELECT set_config('session_authorization', 'postgres', false)}, 'failed', '42501' ],
	'alter function' => [ q{SELECT changing(); CREATE OR REPLACE FUNCTION changing() RETURNS int LANGUAGE sql AS 'SELECT 2'; ALTER FUNCTION changing() SET search_path = public; SELECT changing()}, 'succeeded' ],
	'commit' => [ q{INSERT INTO t VALUES (3); COMMIT}, 'succeeded|failed' ],
	'rollback' => [ q{INSERT INTO t VALUES (3); ROLLBACK}, 'succeeded|failed' ],
	'abort and chain' => [ q{BEGIN; INSERT INTO t VALUES (3); ROLLBACK AND CHAIN; SELECT 1}, 'succeeded|failed' ],
	'begin' => [ q{BEGIN; INSERT INTO t VALUES (4)}, 'succeeded|failed' ],
	'savepoint' => [ q{SAVEPOINT a; INSERT INTO t VALUES (5); ROLLBACK TO a; RELEASE a}, 'succeeded|failed' ],
	'prepare' => [ q{PREPARE TRANSACTION 'mallory'}, 'succeeded|failed' ],
	'commit prepared' => [ q{COMMIT PREPARED 'dsched_1'}, 'failed' ],
	'begin and prepare' => [ q{BEGIN; INSERT INTO t VALUES (6); PREPARE TRANSACTION 'mallory'}, 'succeeded' ],
	'call' => [ q{CALL commits()}, 'succeeded' ],
	'do' => [ q{DO $$ BEGIN COMMIT; ROLLBACK; COMMIT; END $$}, 'succeeded' ],
	'copy out' => [ q{COPY t TO STDOUT}, 'failed' ],
	'copy in' => [ q{COPY t FROM STDIN}, 'failed' ],
	'copy program' => [ q{COPY t TO PROGRAM 'touch /tmp/never'}, 'failed', '42501' ],
	'copy file' => [ q{COPY t TO '/tmp/never'}, 'failed', '42501' ],
	'listen' => [ q{LISTEN dsched; NOTIFY dsched, '{"job": "secret"}'; UNLISTEN *}, 'succeeded|failed' ],
	'cancel itself' => [ q{SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(20)}, 'cancelled', '57014' ],   # sleep-ok: what the command does
	'terminate itself' => [ q{SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(20)}, 'lost', '57P01' ],   # sleep-ok: what the command does
	'cancel the scheduler' => [ qq{SELECT pg_cancel_backend($scheduler)}, 'failed', '42501' ],
	'terminate the scheduler' => [ qq{SELECT pg_terminate_backend($scheduler)}, 'failed', '42501' ],
	'cursor' => [ q{DECLARE c CURSOR WITH HOLD FOR SELECT see('cursor') FROM generate_series(1, 3)}, 'succeeded' ],
	'advisory locks' => [ q{SELECT pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_xact_lock(3)}, 'succeeded' ],
	'discard' => [ q{DISCARD ALL}, 'succeeded|failed' ],
	'leftovers' => [ q{PREPARE p AS SELECT 1; DEALLOCATE ALL; CLOSE ALL; RESET ALL; DISCARD PLANS; DISCARD SEQUENCES}, 'succeeded' ],
	'deep' => [ q{SELECT deep()}, 'failed', '54001' ],
	'huge' => [ q{SELECT repeat(repeat('x', 100000), 100000)}, 'failed', '54000' ],
	'huge message' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = repeat('m', 3000000), DETAIL = repeat('d', 3000000), HINT = repeat('h', 3000000), ERRCODE = 'MM001'; END $$}, 'failed', 'MM001' ],
	'formats' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = '%s %n %m %1$s %%', DETAIL = '%n%n', ERRCODE = 'MM002'; END $$}, 'failed', 'MM002' ],
	'escapes' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = E'\x1b[2J\nLOG:  forged line', ERRCODE = 'MM003'; END $$}, 'failed', 'MM003' ],
	'success as an error' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'x', ERRCODE = '57P01'; END $$}, 'failed|lost', '57P01' ],
	'serialization' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'x', ERRCODE = '40001'; END $$}, 'failed|lost', '40001' ],
	'cancelled by itself' => [ q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'x', ERRCODE = '57014'; END $$}, 'failed|cancelled', '57014' ],
	'encoding' => [ q{SELECT convert_from('\xff'::bytea, 'UTF8')}, 'failed', '22021' ],
	'nul' => [ q{SELECT chr(0)}, 'failed', '54000' ],
	'large result' => [ q{SELECT repeat('x', 1000) FROM generate_series(1, 200000)}, 'succeeded' ],
	'notices' => [ q{DO $$ BEGIN FOR i IN 1..2000 LOOP RAISE NOTICE 'n %', i; END LOOP; END $$}, 'succeeded' ],
	'temp tables' => [ q{CREATE TEMP TABLE x (n int) ON COMMIT DROP; INSERT INTO x VALUES (1)}, 'succeeded' ],
	'drop own' => [ q{DROP OWNED BY victim}, 'failed', '42501' ],
	'lock' => [ q{SELECT 1; LOCK TABLE dsched.run IN ACCESS EXCLUSIVE MODE}, 'failed', '42501' ],
	'lock shared' => [ q{SELECT 1; LOCK TABLE dsched.run IN ACCESS SHARE MODE}, 'succeeded' ],
	'drop extension' => [ q{DROP EXTENSION dsched CASCADE}, 'failed', '42501' ],
	'trigger on ours' => [ q{CREATE TRIGGER x BEFORE INSERT ON dsched.run FOR EACH ROW EXECUTE FUNCTION fire()}, 'failed', '42501' ],
	'rule on ours' => [ q{CREATE RULE x AS ON INSERT TO dsched.run DO INSTEAD NOTHING}, 'failed', '42501' ],
	'policy on ours' => [ q{CREATE POLICY x ON dsched.run USING (true)}, 'failed', '42501' ],
	'index on ours' => [ q{CREATE INDEX ON dsched.run ((see(message)))}, 'failed', '42501' ],
	'function in ours' => [ q{CREATE FUNCTION dsched.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT 1'}, 'failed', '42501' ],
	'inherits' => [ q{CREATE TABLE child () INHERITS (dsched.run)}, 'failed', '42501' ],
	'references' => [ q{CREATE TABLE child (n bigint REFERENCES dsched.job)}, 'failed', '42501' ],
	(map { ("write $_" => [ "INSERT INTO dsched.$_ SELECT * FROM dsched.$_", 'failed', '42501' ], "update $_" => [ "UPDATE dsched.$_ SET ctid = NULL", 'failed', '42501|0A000|42703' ],
		"delete $_" => [ "DELETE FROM dsched.$_", 'failed', '42501' ], "truncate $_" => [ "TRUNCATE dsched.$_", 'failed', '42501' ]) } qw(job run outbox partition_state identity queue)),
	(map { ("read $_" => [ "SELECT * FROM dsched.$_", 'failed', '42501' ]) } qw(job outbox partition_state identity queue _waiting_runs)),
	(map { ("call $_" => [ "SELECT dsched.$_", 'failed', '42501|0A000' ]) } '_created()', '_job_written()', '_queue_written()', 'sign_definitions()', q{create_queue('q', 1)}, q{drop_queue('q')}),
	'adopt' => [ q{SELECT dsched.adopt()}, 'failed', '42501' ],
	'for another' => [ q{SELECT dsched.schedule('x', '* * * * *', 'SELECT 1', username => 'victim')}, 'failed', '42501' ],
	'for a superuser' => [ q{SELECT dsched.schedule('x', '* * * * *', 'SELECT 1', username => 'postgres')}, 'failed', '42501' ],
	'alter another' => [ q{SELECT dsched.alter_job(job_id, command => 'SELECT 1') FROM dsched.run WHERE username = 'victim' LIMIT 1}, 'succeeded' ],
	'unschedule by name' => [ q{SELECT dsched.unschedule('secret', username => 'victim')}, 'failed', '42501' ],
	'fake row' => [ q{SELECT dsched._next_run(j), dsched._describe(j) FROM (SELECT NULL::dsched.job AS j) x}, 'succeeded' ],
	'session_replication_role' => [ q{SET session_replication_role = replica}, 'failed', '42501' ],
	'log_statement' => [ q{SET log_statement = 'none'}, 'failed', '42501' ],
	'temp_file_limit' => [ q{SET temp_file_limit = 1}, 'failed', '42501' ],
	'our settings' => [ q{SET dsched.run_retention = 1}, 'failed', '55P02' ],
	'reserved setting' => [ q{SET dsched.nothing = 1}, 'failed', '42602' ],
);

# Settings that could trip what comes after the command. Each also as a setting of the role (below).
my %setting = (
	row_security => 'off', statement_timeout => '200', lock_timeout => '1', idle_in_transaction_session_timeout => '1', default_transaction_read_only => 'on',
	transaction_read_only => undef, synchronous_commit => 'off', application_name => "E'x%n\\x1b[2J'", default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on', search_path => "''", datestyle => "'SQL, DMY'", timezone => "'Pacific/Apia'", intervalstyle => 'sql_standard',
	client_encoding => "'LATIN1'", client_min_messages => 'error', default_tablespace => "'pg_default'", default_table_access_method => 'heap', work_mem => "'64kB'", enable_indexscan => 'off',
	enable_seqscan => 'off', max_stack_depth => undef, plan_cache_mode => 'force_generic_plan', check_function_bodies => 'off', xmloption => 'document',
	bytea_output => 'escape', extra_float_digits => '-15', quote_all_identifiers => 'on', standard_conforming_strings => 'off', backslash_quote => 'off', array_nulls => 'off',
	transform_null_equals => 'on', lo_compat_privileges => undef, jit => 'on', jit_above_cost => '0', geqo_threshold => '2', commit_delay => undef, lc_time => "'C'", role => "'none'",
	statement_timeout_tiny => undef, debug_print_plan => 'on', tcp_keepalives_idle => '1', backend_flush_after => '1', constraint_exclusion => 'on', ignore_system_indexes => undef,
	parallel_setup_cost => '0', min_parallel_table_scan_size => '0', force_parallel_mode => 'on', local_preload_libraries => undef, dynamic_library_path => undef,
);
foreach my $name (grep { defined $setting{$_} } keys %setting)
{
	$attack{"set $name"} = [ "SET $name = $setting{$name}", 'succeeded' ];
	$attack{"set local $name"} = [ "SET LOCAL $name = $setting{$name}; SELECT 1", 'succeeded' ];
}

my $quote = sub { my ($text) = @_; return '$cmd$' . $text . '$cmd$' };
as('mallory', join(' ', map { "SELECT dsched.run_now(" . $quote->($_) . ") FROM dsched.schedule(" . $quote->($_) . ", '0 0 1 1 *', " . $quote->($attack{$_}[0]) . ", timeout => '30s', max_lost => 1);" } sort keys %attack));
ok(wait_until($node, q{SELECT count(DISTINCT job_name) FROM dsched.run WHERE username = 'mallory' AND status NOT IN ('running')}, scalar keys %attack, 90), '[hostile-role] each has an outcome')
  or diag($node->safe_psql('postgres', q{SELECT job_name, status, started_at FROM dsched.runs WHERE username = 'mallory' AND status IN ('waiting', 'queued', 'running')}));
my %row = map { my ($name, @rest) = split /\|/; $name => \@rest } split /\n/,
  $node->safe_psql('postgres', q{SELECT DISTINCT ON (job_name) job_name, status, coalesce(sqlstate, ''), left(translate(coalesce(message, ''), E'|\n', '  '), 80) FROM dsched.run WHERE username = 'mallory' ORDER BY job_name, attempt});
foreach my $name (sort keys %attack)
{
	my ($status, $sqlstate) = ($attack{$name}[1], $attack{$name}[2] // '.*');
	my $got = $row{$name} // [ 'no row', '', '' ];

	ok($got->[0] =~ /^(?:$status)$/ && $got->[1] =~ /^(?:$sqlstate)$/, "$name: $status")
	  or diag("$name: @$got");
}

# As settings of the role, one after the other.
foreach my $name (sort grep { defined $setting{$_} && $_ ne 'search_path' } keys %setting)
{
	$node->safe_psql('postgres', "ALTER ROLE mallory SET $name = " . ($name eq 'statement_timeout' ? "'1min'" : $setting{$name}));
}
as('mallory', q{SELECT dsched.run_now(j) FROM (SELECT dsched.schedule('all settings', '0 0 1 1 *', 'SELECT 1'), 'all settings' AS j) x});
ok(wait_until($node, q{SELECT status FROM dsched.run WHERE job_name = 'all settings'}, 'succeeded'), 'a run with all of these as settings of its role is recorded');
$node->safe_psql('postgres', 'ALTER ROLE mallory RESET ALL; ALTER ROLE mallory SET statement_timeout = 1');
as('mallory', q{SELECT dsched.run_now(j) FROM (SELECT dsched.schedule('tiny timeout', '0 0 1 1 *', 'SELECT pg_sleep(5)'), 'tiny timeout' AS j) x});   # sleep-ok: what the command does
ok(wait_until($node, q{SELECT status || sqlstate FROM dsched.run WHERE job_name = 'tiny timeout'}, qr/57014$/), 'and one that is cancelled by a timeout of its own');
$node->safe_psql('postgres', q{ALTER ROLE mallory RESET ALL; GRANT victim TO mallory; ALTER ROLE mallory SET role = 'victim'});
as('mallory', q{SELECT dsched.run_now(j) FROM (SELECT dsched.schedule('role setting', '0 0 1 1 *', 'SELECT 1'), 'role setting' AS j) x});
ok(wait_until($node, q{SELECT status FROM dsched.run WHERE job_name = 'role setting'}, qr/./), 'a role as a setting of the role');
$node->safe_psql('postgres', q{REVOKE victim FROM mallory; ALTER ROLE mallory RESET ALL; ALTER ROLE mallory SET search_path = mallory, pg_catalog, public});

# Nobody but her ran what she has made; nothing of hers is left behind.
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT who || '/' || sess, ',') FROM mallory.seen}), 'mallory/mallory', 'what she has put in the way was run by her alone');
ok(slurp_file($node->logfile) !~ /LOG:  mallory/, 'and by nobody who could not even write to her table');
ok(wait_until($node, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}, 0), 'no lock is left');
is($node->safe_psql('postgres', 'SELECT gid, owner FROM pg_prepared_xacts'), 'mallory|mallory', 'one prepared transaction, which is hers as if she had made it in psql');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'mallory'});
ok(!-e '/tmp/never', 'no file');
is($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dsched scheduler%'}), $scheduler, '[hostile-role] the scheduler is the same process');
ok(slurp_file($node->logfile) !~ /PANIC|terminated by signal (?!15)|server process .* was terminated/, 'nothing crashed');
is($node->safe_psql('postgres', q{SELECT max(octet_length(message) + octet_length(detail) + octet_length(hint)) < 100000 FROM dsched.run WHERE job_name = 'huge message'}), 't', 'a huge message is cut');
ok(wait_past('sentinel', 1, [$node], timestamp()), 'the others run on');

# Nothing of others can be read: functions that tell what they are given, cheap enough to be asked first.
as('mallory', q{
	CREATE FUNCTION mallory.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leak: %', $1; RETURN true; END $$;
	CREATE FUNCTION mallory.leakeq(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'leak: % %', $1, $2; RETURN true; END $$;
	CREATE OPERATOR mallory.=== (LEFTARG = text, RIGHTARG = text, PROCEDURE = mallory.leakeq);
});
foreach my $view (qw(jobs runs run _open_runs queues nodes partitions))
{
	my ($status, $out, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION mallory; SET search_path = mallory, pg_catalog; SELECT x FROM dsched.$view x WHERE leak(x) AND leak(x::text) AND x::text OPERATOR(mallory.===) 'a'");

	is($status, 0, "dsched.$view can be read") or diag($error);
	ok($out . $error !~ /hunter2/, 'and shows nothing of others');
}
foreach my $probe (
	q{SELECT * FROM dsched.runs WHERE 1 / (CASE WHEN username = 'victim' THEN 0 ELSE 1 END) = 1},
	q{SELECT * FROM dsched.jobs WHERE 1 / (CASE WHEN username = 'victim' THEN 0 ELSE 1 END) = 1},
	q{SELECT * FROM dsched.run WHERE command_tag::int > 0 AND username = 'victim'},
	q{SELECT * FROM dsched.runs r JOIN pg_roles p ON leak(r.job_name) WHERE p.rolname = 'victim'},
	q{SELECT dsched.status()})
{
	my ($status, $out, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION mallory; SET search_path = pg_catalog, mallory; $probe");

	is($status, 0, 'a probe learns nothing from an error') or diag($error);
	ok($out . $error !~ /hunter2/, 'nor from notices');
}
as('mallory', 'SET search_path = pg_catalog; SET enable_seqscan = off; SELECT count(*) FROM dsched.runs');
is(as('mallory', q{SELECT count(*) FROM pg_stats WHERE schemaname = 'dsched' AND tablename IN ('job', 'run')}), 0, 'statistics of the tables are not shown to her');

# Composite values made by hand, which the view functions take: never a crash, never of another's job.
my $columns = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'dsched.job'::regclass AND attnum > 0});
foreach my $row ('ROW(' . join(',', ('NULL') x $columns) . ')', '(NULL::dsched.job)',
	q{(jsonb_populate_record(NULL::dsched.job, '{"job_id": 1, "username": "victim", "job_name": "secret", "schedule": "* * *", "time_zone": "Nowhere", "anchor": "infinity", "slots_from": "-infinity", "gen": -1, "active": true, "jitter": "-1 year", "misfire": "?"}'))},
	q{(jsonb_populate_record(NULL::dsched.job, '{"job_id": 1, "username": "victim", "job_name": "secret", "schedule": "* * * * * *", "time_zone": "UTC", "anchor": "infinity", "slots_from": "infinity", "starts_at": "-infinity", "expires_at": "infinity", "last_slot": "-infinity", "max_runs": -1, "gen": 1, "active": true, "overlap": "x", "misfire": "y", "misfire_grace": "1 day", "max_attempts": 0, "retry_delay": "0", "retry_max_delay": "0", "priority": 1000000, "max_lost": 0}'))},
	q{(jsonb_populate_record(NULL::dsched.job, '{"job_id": 1, "username": "} . ('u' x 5000) . q{", "job_name": "} . ('n' x 5000) . q{", "schedule": "} . ('*' x 5000) . q{", "time_zone": "} . ('z' x 5000) . q{", "active": true}'))})
{
	foreach my $function (qw(_next_run _describe))
	{
		my ($status, $out, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION mallory; SELECT dsched.$function(${row}::dsched.job)");

		isnt($status, 2, "$function of a value made by hand: the session lives") or diag($error);
	}
}
foreach my $call (q{_run_key(-1, '-infinity', -1)}, q{_run_key(9223372036854775807, 'infinity', 9223372036854775807)}, q{_owner_node(repeat('x', 100000), repeat('y', 100000))},
	q{_owner_node('', '')}, q{_visible(repeat('x', 100000))}, q{_visible('')}, q{cancel(repeat(':', 100000))}, q{cancel('1:1:1')}, q{cancel(E'%n%s\n')}, q{run_now(-9223372036854775808)},
	q{preview('* * * * * *', 'UTC', 'infinity', 2147483647)}, q{preview(repeat('*', 1000000))}, q{describe(repeat('1,', 100000))}, q{schedule(repeat('x', 256), '* * * * *', 'SELECT 1')},
	q{schedule(E'a\nb', '* * * * *', 'SELECT 1')}, q{schedule(E'a\x1b[2Jb', '* * * * *', 'SELECT 1')}, q{schedule('deep', '* * * * *', 'SELECT 1', payload => (repeat('[', 5000) || repeat(']', 5000))::jsonb)},
	q{schedule('big', '* * * * *', 'SELECT 1', payload => to_jsonb(repeat('x', 300000)))}, q{schedule('big', '* * * * *', repeat('SELECT 1;', 100000))})
{
	my ($status, $out, $error) = $node->psql('postgres', "SET SESSION AUTHORIZATION mallory; SELECT dsched.$call");

	isnt($status, 2, 'the session lives after ' . substr($call, 0, 50)) or diag($error);
}

# Names that try to be something else, in the log and to those who LISTEN.
my $name = q{it's "quoted" %s %n $x$ \ {"status":"ok"} --};
$node->psql('postgres', q{SET SESSION AUTHORIZATION mallory; SELECT dsched.run_now(n) FROM (SELECT dsched.schedule(n, '0 0 1 1 *', 'SELECT 1/0'), n FROM (VALUES ($name$} . $name . q{$name$)) v (n)) x});
ok(wait_until($node, q{SELECT status FROM dsched.run WHERE job_name LIKE 'it''s%'}, 'failed'), 'a job with an odd name has its row');

# Rights that go while a job runs, and a membership that is taken away.
$node->safe_psql('postgres', 'GRANT victim TO mallory');
as('mallory', q{SELECT dsched.schedule('lent', '0 0 1 1 *', 'SELECT current_user', username => 'victim')});
$node->safe_psql('postgres', 'REVOKE victim FROM mallory');
like(fails('mallory', q{SELECT dsched.run_now('lent', username => 'victim')}), qr/permission denied/, 'what was lent is not hers any more');
is(as('victim', q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'lent'}), 1, 'it belongs to the role that it runs as');
as('mallory', q{SELECT dsched.run_now(j) FROM (SELECT dsched.schedule('long', '0 0 1 1 *', 'INSERT INTO mallory.t VALUES (77); SELECT pg_sleep(1); INSERT INTO mallory.t VALUES (78)'), 'long' AS j) x});   # sleep-ok: what the command does
ok(wait_until($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = 'mallory'}, 1), 'a run is on its way');
$node->safe_psql('postgres', 'ALTER ROLE mallory NOLOGIN; REVOKE ALL ON SCHEMA dsched FROM mallory; REVOKE ALL ON ALL TABLES IN SCHEMA mallory FROM mallory; ALTER TABLE mallory.t OWNER TO postgres; ALTER ROLE mallory SET default_transaction_read_only = on');
ok(wait_until($node, q{SELECT status || ' ' || coalesce(sqlstate, '') FROM dsched.run WHERE job_name = 'long'}, qr/^(failed 42501|succeeded )$/), 'whose rights go while it runs: its row says what came of it');
ok(wait_past('sentinel', 1, [$node], timestamp()), 'the others run on');
is($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'dsched scheduler%'}), $scheduler, 'the scheduler is still the same process');
account_ok([$node]);
done_testing();
