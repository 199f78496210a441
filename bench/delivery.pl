#!/usr/bin/env perl
#
# What the strict delivery modes cost: runs a second out of a backlog, by mode and by the number of executors, in the same server within
# seconds of each other, and the transactions that etcd had for them.
#
# Jobs that are all due in one second; from then to the end of the last. Each updates a row of its own. A run of exactly_once waits for
# etcd, and its COMMIT PREPARED for the disk, while its executor does nothing else; so what a server can make grows with the number of executors
# until the machine is busy, and as decisions that are asked for at the same time go in one transaction, etcd's part hardly grows at all.

use strict;
use warnings;

use POSIX qw(ceil strftime);

use Bench;
use Fleet;

begin_bench('delivery');

my @modes = qw(at_least_once at_most_once exactly_once);
my @executors = short() ? (8) : (8, 32);
my $jobs = short() ? 500 : 2000;
my %result;

my $etcd = start_etcd();
my ($node) = fleet(1, etcd => $etcd, conf => {
	'dsched.max_executors' => $executors[-1], 'dsched.max_executors_per_role' => 0, 'dsched.queue_size' => 8192, 'dsched.timezone' => 'UTC',
	max_prepared_transactions => 64, max_connections => 100, max_worker_processes => 60, shared_buffers => '128MB' });

settle($node);
$node->query('CREATE TABLE counter (id integer PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);'
	. "INSERT INTO counter SELECT i, 0 FROM generate_series(1, $jobs) i; ALTER TABLE counter OWNER TO worker; VACUUM ANALYZE counter");
as_worker($node, "SELECT count(dsched.schedule(mode || ' ' || i, '0 0 0 1 1 * 2099', 'UPDATE counter SET n = n + 1 WHERE id = ' || i, delivery => mode)) "
	. "FROM generate_series(1, $jobs) i, unnest('{" . join(',', @modes) . "}'::text[]) mode");
wait_published($jobs * @modes, $node);

for my $round (1 .. rounds())
{
	foreach my $executors (@executors)
	{
		$node->query("ALTER SYSTEM SET dsched.max_executors_per_database = $executors");
		$node->query('SELECT pg_reload_conf()');
		foreach my $mode ($round % 2 ? @modes : reverse @modes)
		{
			my $due = ceil(now() + 4);
			my $pattern = strftime('%S %M %H %d %m * %Y', gmtime($due));

			as_worker($node, "SELECT count(dsched.alter_job(job_id, schedule => '$pattern')) FROM dsched.jobs WHERE job_name LIKE '$mode %'");
			wait_published($jobs * @modes, $node);
			die "the jobs were not defined in time\n" if now() > $due;
			wait_until(sub { now() > $due - 0.1 }, 20);
			my $before = etcd_counters($etcd);
			my $count = "SELECT count(*) FROM dsched.run WHERE scheduled_for = to_timestamp($due) AND status = 'succeeded'";

			$node->wait_for($count, $jobs, 120);
			my $after = etcd_counters($etcd);
			my ($rates, $seconds) = (rates($before, $after), $after->{time} - $before->{time});
			my $took = $node->value("SELECT extract(epoch FROM max(finished_at)) - $due FROM dsched.run WHERE scheduled_for = to_timestamp($due)");
			my $key = "$executors $mode";

			push @{ $result{$key}{per_second} }, $jobs / $took;
			push @{ $result{$key}{per_txn} }, $jobs / Bench::max(1, $rates->{txns} * $seconds);
			progress('round %d: %2d executors, %-13s %s runs/s, %.1f runs for each transaction of etcd', $round, $executors, $mode,
				whole($result{$key}{per_second}[-1]), $result{$key}{per_txn}[-1]);
		}
	}
}

table(
	name    => 'rates',
	columns => [ 'executors', map { ("$_, runs/s", 'runs for each transaction of etcd') } @modes ],
	rows    => [
		map {
			my $executors = $_;
			[ $executors, map { (spread($result{"$executors $_"}{per_second}), digits(median(@{ $result{"$executors $_"}{per_txn} }), 1)) } @modes ]
		} @executors
	],
	note => 'Each run updates a row of its own; fsync is on, for PostgreSQL and for etcd, on the same disk.');
