# What a job costs in the scheduler: below 300 bytes, whatever its command is; and what a burst of runs has taken is given back.
#
# Judged by the anonymous resident memory of the process, as the kernel counts it, after a start in either case.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $few  = 1_000;
my $many = 50_000;
my $node = new_instance('alone', conf => "shared_buffers = 64MB\nmax_wal_size = 1GB\n");

create_extension($node);

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
	as_worker($node, qq{SELECT dsched.schedule_in('$name', '0 s', 'SELECT dsched_test.effect()')});
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

# All of them at once: as many open runs as an account can list, and then none.
my $runs = 20_000;
as_worker($node, qq{
	SELECT count(dsched.run_now(format('nightly report number %s', i))) FROM generate_series(1, $runs) i});
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE trigger_id <> 0}, $runs, 180), 'a burst of runs');
ok(wait_for(sub { scheduler_memory() < $full + 6_000_000 }, 30), 'leaves the memory as it was')
	or diag scheduler_memory() . " bytes now, $full before";

account_ok($node);
done_testing();
