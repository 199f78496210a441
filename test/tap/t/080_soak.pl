# No process leaks: at full speed, with runs of all kinds (that succeed, fail and are tried again, time out, are cancelled, wait in
# queues, are asked for) and jobs that are redefined, created and dropped all the time, the memory of each process stays what it is.
#
# An instance alone and one in a cluster. DSCHED_SOAK_SECONDS (32) is how long: the first quarter warms up (caches, heaps that have
# their size, statistics), the most memory of the rest's first half is compared with that of its second half. What is measured is RssAnon: what the
# process has for itself, without the server's shared memory and without code.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seconds = $ENV{DSCHED_SOAK_SECONDS} || 32;
# kB. Without a leak the halves differ by blocks of malloc and of contexts: by 70 kB at most, of a scheduler, when this was written. The
# short form makes more than 15,000 runs in a half on each instance: a scheduler that leaks 35 bytes of a run is found, and an executor that
# leaks 140.
my $tolerance = 512;
my @kinds = ('dsched coordinator', 'dsched scheduler', 'dsched executor');

my $etcd = start_etcd();
my $conf = "dsched.max_executors = 4\nmax_wal_size = 1GB\nlog_statement = none\nlog_min_messages = panic\n"
  . "dsched.plan_cache_size = 256kB\n";	# full in the first quarter: what keeps growing is not kept plans
my @nodes = (new_instance('alone', conf => $conf), new_instance('member', etcd => $etcd, conf => $conf));

create_extension(@nodes);
ok(wait_owners($nodes[1], ['member']), 'the cluster has an owner');

# Who is waited for by the jobs that are to take too long.
my @gates;
foreach my $node (@nodes)
{
	my $gate = $node->background_psql('postgres');

	$gate->query_safe('SELECT pg_advisory_lock(7)');
	push @gates, $gate;
	$node->safe_psql('postgres', q{SELECT dsched.create_queue('narrow', max_running => 2)});
	$node->safe_psql('postgres', q{SELECT dsched.create_queue('slow', rate_limit => 50, per => '1 second')});
	as_worker($node, q{
		SELECT count(dsched.schedule('each' || i, '* * * * * *', 'SELECT ' || i, jitter => '1 s')) FROM generate_series(1, 60) i;
		SELECT count(dsched.schedule('narrow' || i, '* * * * * *', 'SELECT 1', queue => 'narrow')) FROM generate_series(1, 10) i;
		SELECT count(dsched.schedule('slow' || i, '* * * * * *', 'SELECT 1', queue => 'slow')) FROM generate_series(1, 10) i;
		SELECT count(dsched.schedule('fails' || i, '* * * * * *', 'SELECT 1 / 0', max_attempts => 2, retry_delay => '100 ms',
			overlap => 'queue_one')) FROM generate_series(1, 5) i;
		SELECT dsched.schedule('late', '*/2 * * * * *', 'SELECT pg_advisory_xact_lock(7)', timeout => '100 ms');
		SELECT dsched.schedule('superseded', '* * * * * *', 'SELECT pg_advisory_xact_lock(7)', overlap => 'cancel_running');
		SELECT dsched.schedule('asked', '0 0 29 2 *', 'SELECT 1', overlap => 'queue_all');
		SELECT dsched.schedule('stopped', '0 0 29 2 *', 'SELECT pg_advisory_xact_lock(7)');
		SELECT dsched.schedule('many', '* * * * * *', 'SELECT 1', overlap => 'allow', active => false)});
}

# The memory of each process of dsched, in kB.
sub memory
{
	my %memory;

	foreach my $node (@nodes)
	{
		foreach my $kind (@kinds)
		{
			foreach my $pid (pids($node, $kind))
			{
				my $status = eval { slurp_file("/proc/$pid/status") } // '';

				$memory{ $node->name . " $kind $pid" } = $1 if $status =~ /^RssAnon:\s+(\d+) kB/m;
			}
		}
	}
	return \%memory;
}

# What people do meanwhile.
sub disturb
{
	my ($node, $round) = @_;
	my $old      = $round - 5;
	my $commands = qq{
		SELECT dsched.alter_job('each' || (1 + $round % 60), command => 'SELECT $round');
		SELECT dsched.schedule('each' || (1 + $round * 7 % 60), '* * * * * *', 'SELECT -$round', jitter => '1 s');
		SELECT count(dsched.schedule('new' || $round || '_' || i, '* * * * * *', 'SELECT $round + ' || i)) FROM generate_series(1, 10) i;
		SELECT count(dsched.unschedule(job_name)) FROM dsched.jobs WHERE job_name LIKE 'new${old}\\_%';
		SELECT dsched.run_now('asked');
		SELECT dsched.cancel(run_key) FROM dsched.runs WHERE job_name = 'stopped' AND status IN ('running', 'waiting');
		SELECT dsched.run_now('stopped');
		SELECT count(dsched.cancel(run_key)) FROM dsched.runs WHERE job_name = 'superseded' AND status = 'running'};

	# full speed: there is always something to be made up for
	$commands .= qq{;
		SELECT dsched.backfill('many', '2020-01-01'::timestamptz + $round * interval '1 hour', '2020-01-01 00:59:59'::timestamptz + $round * interval '1 hour')}
	  if (psql_try($node, q{SELECT count(*) FROM dsched.runs WHERE job_name = 'many' AND status = 'waiting' AND slots > 500}) // 1) eq '0';
	as_worker($node, $commands);
	$node->safe_psql('postgres', "SELECT dsched.alter_queue('narrow', max_running => " . (2 + $round % 2) . ')');
	return;
}

my $begun = time();
my (@samples, $round);

while (time() - $begun < $seconds)
{
	$round++;
	disturb($_, $round) foreach @nodes;
	my $until = time() + 0.4;
	wait_for(sub { time() > $until }, 1);
	push @samples, [ time() - $begun, memory() ];
}

# Processes that were there all the time, after the first quarter. Executors may come and go.
my @after   = grep { $_->[0] > $seconds / 4 } @samples;
my @first   = grep { $_->[0] <= $seconds * 5 / 8 } @after;
my @second  = grep { $_->[0] > $seconds * 5 / 8 } @after;
my %watched = map { my $process = $_; (grep { !defined $_->[1]{$process} } @after) ? () : ($process => 1) } keys %{ $after[0][1] };
my %seen;

foreach my $process (sort keys %watched)
{
	my ($before) = sort { $b <=> $a } map { $_->[1]{$process} } @first;
	my ($now)    = sort { $b <=> $a } map { $_->[1]{$process} } @second;

	my ($node, $kind) = $process =~ /^(\S+) (.*) \d+$/;

	$seen{"$node $kind"}++;
	note("$process: $after[0][1]{$process} kB after the first quarter, then at most $before kB, then $now kB");
	cmp_ok($now, '<=', $before + $tolerance, "$process does not grow");
}
is_deeply([ sort keys %seen ], [ sort map { my $node = $_->name; map { "$node $_" } @kinds } @nodes ], 'each kind of process was watched');

foreach my $node (@nodes)
{
	my $ran = $node->safe_psql('postgres', q{SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM dsched.run GROUP BY status) s});

	note($node->name . ": $ran in $round rounds");
	like($ran, qr/\b$_ \d/, $node->name . " has runs that are $_") foreach qw(cancelled failed succeeded timed_out);
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE reason = 'backfill'}), '>', 100 * $seconds, 'at speed');
}
$_->quit foreach @gates;
foreach my $node (@nodes)
{
	as_worker($node, q{SELECT count(dsched.unschedule(job_id)) FROM dsched.jobs});
	account_ok($node, timeout => 60);
}
done_testing();
