# Servers without the library, and definitions that travel by pg_dump: into such a server and back, and into another database.

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dump = "$PostgreSQL::Test::Utils::tmp_check/shop.dump";
my $sql  = "$PostgreSQL::Test::Utils::tmp_check/shop.sql";

# ---- jobs on a server as it should be ----

my $node = new_instance('alone');

create_extension($node, { database => 'shop' });
as_worker($node, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()', payload => '{"a": [1, "ü"]}',
	overlap => 'queue_one', misfire => 'skip', misfire_grace => '2 min', max_attempts => 3, retry_delay => '0.25 s', retry_max_delay => '1 h',
	timeout => '90 min', priority => 7, deadline => '1 min', max_failures => 1000000, max_lost => 1000000, jitter => '1 us')});
as_worker($node, q{SELECT dsched.schedule_once('past', now() + interval '1 s', 'SELECT dsched_test.effect()', active => false)});
as_worker($node, q{SELECT dsched.schedule_once('future', now() + interval '1 year', 'SELECT 1')});
my $definitions = q{SELECT job_id, username, job_name, schedule, run_at, command, time_zone, payload, overlap, misfire, misfire_grace,
	max_attempts, retry_delay, retry_max_delay, timeout, priority, deadline, max_failures, max_lost, jitter FROM dsched.jobs ORDER BY job_name};
my $defined = $node->safe_psql('shop', $definitions);
like($defined, qr/\|queue_one\|skip\|00:02:00\|3\|00:00:00\.25\|01:00:00\|01:30:00\|7\|00:01:00\|1000000\|1000000\|00:00:00\.000001$/m, 'jobs, one with a policy');
ok(wait_until($node, q{SELECT count(*) > 1 FROM dsched_test.effects}), 'a job runs');

$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('shop') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '-f', $sql, $dump ], 'as SQL');
my $script = slurp_file($sql);
like($script, qr/^COPY dsched\.job /m, 'it has the definitions');
unlike($script, qr/^COPY dsched\.(run|outbox|partition_state|identity) /m, 'and nothing of what this server did with them');

# ---- into another database ----

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('other'), $dump ], 'pg_restore into another database');
is($node->safe_psql('other', $definitions), $defined, 'it has the same definitions');
$node->{dsched_database} = 'other';
ok(wait_until($node, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, qr/restored/), 'which sleep');
my $dumped = $node->safe_psql('other', 'SELECT count(*) FROM dsched_test.effects');
# Its scheduler has had the time to run some of them.
$node->{dsched_database} = 'shop';
my $now = $node->safe_psql('shop', 'SELECT clock_timestamp()');
ok(wait_until($node, qq{SELECT count(*) > 1 FROM dsched_test.effects WHERE slot::timestamp > timestamptz '$now' AT TIME ZONE 'UTC'}), 'the original runs on');
$node->{dsched_database} = 'other';
is($node->safe_psql('other', 'SELECT count(*) FROM dsched_test.effects'), $dumped, '[database-restored] and no copy of a job has run');
like($node->safe_psql('other', 'SELECT dsched.adopt()'), qr/adopted 3 jobs/, 'adopt()');
ok(wait_until($node, qq{SELECT count(*) > $dumped FROM dsched_test.effects}), 'wakes them');

# ---- a server without the library ----

my $bare = new_instance('bare', preload => 0);

$bare->safe_psql('postgres', 'CREATE ROLE worker LOGIN');
my ($ret, $stdout, $stderr) = $bare->psql('postgres', 'CREATE EXTENSION dsched');
is("$ret $stderr", '0 ', 'CREATE EXTENSION, quietly');
($ret, $stdout, $stderr) = $bare->psql('postgres', q{SELECT dsched.schedule('tick', '* * * * *', 'SELECT 1')});
like($stderr, qr/ERROR: +dsched must be loaded by shared_preload_libraries.*HINT: .*restart the server/s, 'a function says what is missing');
like($bare->safe_psql('postgres', 'SELECT * FROM dsched.status()'), qr/problem.*without dsched.*shared_preload_libraries/, 'as does status()');
$bare->safe_psql('postgres', 'CREATE DATABASE shop');
$bare->command_ok([ 'pg_restore', '--exit-on-error', '-d', $bare->connstr('shop'), $dump ], 'pg_restore');
is($bare->safe_psql('shop', $definitions), $defined, 'it has the definitions');
$bare->command_ok([ 'pg_dump', '-f', $sql, '-d', $bare->connstr('shop') ], 'pg_dump');

# It gets the library.
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'dsched'\ndsched.node_name = 'bare'");
$bare->restart;
$bare->{dsched_database} = 'shop';
ok(wait_until($bare, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, qr/restored/), 'with the library the restored jobs sleep');
$dumped = $bare->safe_psql('shop', 'SELECT count(*) FROM dsched_test.effects');
like($bare->safe_psql('shop', 'SELECT dsched.adopt()'), qr/adopted 3 jobs/, 'until adopt()');
ok(wait_until($bare, "SELECT count(*) > $dumped FROM dsched_test.effects"), 'which wakes them');
is($bare->safe_psql('shop', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'past'}), 0, 'but not the one whose only time has passed');

# ---- and loses it ----

$bare->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$bare->restart;
is($bare->safe_psql('shop', 'SELECT count(*) FROM dsched.jobs'), 3, 'without the library again, the definitions can be read');
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'dsched'");
$bare->restart;
$now = $bare->safe_psql('shop', 'SELECT clock_timestamp()');
ok(wait_until($bare, qq{SELECT count(*) > 0 FROM dsched_test.effects WHERE slot::timestamp > timestamptz '$now' AT TIME ZONE 'UTC'}), 'and with it they run at once, as they belong here');

# ---- a dump by somebody who is no superuser ----

$node->{dsched_database} = 'shop';
$node->safe_psql('shop', q{CREATE ROLE shopkeeper LOGIN; CREATE SCHEMA goods AUTHORIZATION shopkeeper; CREATE TABLE goods.t AS SELECT 1 AS n; ALTER TABLE goods.t OWNER TO shopkeeper});
account_ok($node);
$node->safe_psql('shop', 'DROP SCHEMA dsched_test CASCADE; DROP SCHEMA account CASCADE');
$node->command_ok([ 'pg_dump', '-U', 'shopkeeper', '-n', 'goods', '-f', $sql, '-d', $node->connstr('shop') ], 'who owns a schema can dump it');
$node->command_ok([ 'pg_dump', '-U', 'shopkeeper', '-N', 'dsched', '-f', $sql, '-d', $node->connstr('shop') ], 'or all but the schema of the jobs');
like(slurp_file($sql), qr/^COPY goods\.t /m, 'which has what is theirs');
$node->command_fails_like([ 'pg_dump', '-U', 'shopkeeper', '-f', $sql, '-d', $node->connstr('shop') ],
	qr/permission denied for (schema dsched|table job)/, 'the definitions of all roles are for those who may read them all');

done_testing();
