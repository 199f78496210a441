# What a job costs in the scheduler: below 300 bytes, whatever its command is; and what a burst of runs has taken is given back.
#
# Judged by the anonymous resident memory of the process, as the kernel counts it, after a start in either case. The judge of slots would
# compute the times of 50,000 jobs that never come due; that each of those that do has run is counted here.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $few  = 1_000;
my $many = 50_000;
my $node = new_instance('alone', conf => "shared_buffers = 64MB\nmax_wal_size = 1GB\n");

$node->safe_psql('postgres', 'CREATE ROLE worker LOGIN; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker');

sub scheduler_memory
{
	my ($pid) = pids($node, 'dsched scheduler');

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? 1024 * $1 : die 'no RssAnon';
}

# Names of 20 to 30 characters, a few hundred schedules, and commands that would be seen if they were kept.
sub define
{
	my ($from, $to) = @_;

	as_worker($node, qq{
		SELECT count(dsched.schedule(format('nightly report number %s', i), format('%s %s 29 2 *', i % 60, i % 7),
			'SELECT ' || quote_literal(repeat('x', 2000))))
		FROM generate_series($from, $to) i});
	ok(wait_until($node, q{SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL}, 0), 'they are taken in');
}

# Starts the server, and has a job run, so that all there is to be done at a start is done.
sub memory_after_start
{
	my ($name) = @_;

	$node->restart;
	as_worker($node, qq{SELECT dsched.schedule_in('$name', '0 s', 'SELECT 1')});
	ok(wait_until($node, qq{SELECT status FROM dsched.runs WHERE job_name = '$name'}, 'succeeded'), "a job ran: $name");
	return scheduler_memory();
}

define(1, $few);
my $base = memory_after_start('with few');

define($few + 1, $many);
my $grown = scheduler_memory();
my $full  = memory_after_start('with many');
my $bytes = sprintf('%.0f', ($full - $base) / ($many - $few));

note "$base bytes with $few jobs, $full with $many: $bytes each; $grown when they were taken in";
cmp_ok($bytes, '>', 100, 'jobs are seen in the memory of the process');
cmp_ok($bytes, '<', 300, 'a job costs less than 300 bytes');
cmp_ok($grown, '<', $full + 4_000_000, 'and not much more if it comes while the server runs');

# A name is found by an index, however many jobs there are.
$node->safe_psql('postgres', 'ANALYZE dsched.job');
like($node->safe_psql('postgres', q{EXPLAIN SELECT * FROM dsched.jobs WHERE job_name = 'nightly report number 7'}),
	qr/Index Scan using job_job_name_username_key/, 'a name is looked up');

# Many come due in one second: as many open runs as an account can list, and then none.
my $burst = 20_000;
as_worker($node, qq{
	SELECT count(dsched.schedule(format('nightly report number %s', i), to_char(now() + interval '20 s', 'SS MI HH24 DD MM *'), 'SELECT 1'))
	FROM generate_series(1, $burst) i});
my $ran = q{SELECT count(*) || ' ' || count(DISTINCT r.job_id) FROM dsched.run r JOIN dsched.job j ON j.job_id = r.job_id WHERE r.status = 'succeeded'};
ok(wait_until($node, $ran, "$burst $burst", 180), 'a burst: each of them ran once');
ok(wait_for(sub { scheduler_memory() < $full + 4_000_000 }, 30), 'it leaves the memory as it was')
	or diag scheduler_memory() . " bytes now, $full before";

done_testing();
