#!/usr/bin/env perl
#
# Three instances and their etcd on this one machine: 8,500 runs a second offered by schedules, and more until it is too much. Beside it
# the same load on one instance alone, and on three that know nothing of each other and have a third of the jobs each.
#
# The load are jobs that run each second, with a jitter of a second, which spreads them evenly; each does SELECT 1. In a window of some
# seconds every job has to have, over all instances together, exactly one row for each of its scheduled times, as dsched.preview() gives
# them, and that a succeeded one. This is looked at by another server, which gets the rows of all instances. A load counts as sustained
# if that is so, and in the last third of the window half of the runs begin within 100 ms of their due time: the queue does not grow.
#
# Lateness is from the due time, which is the scheduled time plus the jitter's delay, to the start of the command.

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);

use Bench;
use Fleet;

begin_bench('fleet');

my $target = short() ? 1000 : 8500;
my $long = short() ? 5 : 30;
my $brief = short() ? 4 : 8;
my @steps = short() ? (2000) : (12_000, 17_000, 24_000);
my (@rows, @checks, @curves, %most);

my $judge = new_instance('judge', preload => '', conf => { fsync => 'off', work_mem => '256MB', shared_buffers => '512MB' });
$judge->query(q{
	CREATE TABLE slot (slot timestamptz);
	CREATE TABLE job (job_id bigint);
	CREATE TABLE run (node text, job_id bigint, slot timestamptz, status text, reason text, started timestamptz, finished timestamptz, due timestamptz);
});

my %groups = (
	'one alone'   => { instances => 1, etcd => 0, shared => 1 },
	'three alone' => { instances => 3, etcd => 0, shared => 0 },
	'fleet'       => { instances => 3, etcd => 1, shared => 1 },
);
my $group_number = 0;

foreach my $name ('one alone', 'three alone', 'fleet')
{
	my $group = $groups{$name};
	my $etcd = $group->{etcd} ? start_etcd() : undef;
	my @nodes = fleet($group->{instances}, defined $etcd ? (etcd => $etcd) : (), prefix => 'group' . ++$group_number . '_',
		conf => { 'dsched.max_executors' => 8, 'dsched.queue_size' => 16384, 'dsched.timezone' => 'UTC', shared_buffers => '256MB' });

	foreach my $node (@nodes)
	{
		$node->query(q{CREATE FUNCTION bench_due(bigint, timestamptz, interval) RETURNS timestamptz AS '$libdir/dsched', 'dsched_test_due' LANGUAGE C STRICT});
	}
	settle(@nodes) if defined $etcd;

	my $jobs = 0;
	foreach my $load ($target, @steps)
	{
		define_jobs($group, \@nodes, $jobs, $load);
		$jobs = $load;
		settle(@nodes) if defined $etcd;
		# What came due while the jobs were being defined is over.
		select(undef, undef, undef, 5);

		my $result = observe($name, \@nodes, $load, $load == $target ? $long : $brief);
		last unless $result->{sustained};
		$most{$name} = $load;
	}
	$_->stop('immediate') foreach @nodes;
	$etcd->stop if defined $etcd;
}

# The jobs from one number to another; where the instances are strangers each gets every third.
sub define_jobs
{
	my ($group, $nodes, $have, $want) = @_;

	if ($group->{shared})
	{
		steady_jobs($nodes->[0], $have + 1, $want);
		wait_published($want, @$nodes);
		return;
	}
	foreach my $i (0 .. $#$nodes)
	{
		my ($from, $to) = map { int(($_ + $i) / @$nodes) } $have, $want;

		steady_jobs($nodes->[$i], $from + 1, $to);
		wait_published($to, $nodes->[$i]);
	}
	return;
}

# Watches a window of so many seconds.
sub observe
{
	my ($name, $nodes, $load, $seconds) = @_;
	my $from = POSIX::ceil(now()) + 1;
	my $to = $from + $seconds;
	my $dir = Bench::_tmp();

	select(undef, undef, undef, $from - time());
	my $busy = machine_cpu();
	select(undef, undef, undef, $to - time());
	my $now = machine_cpu();
	my $machine = 100 * ($now->[0] - $busy->[0]) / ($now->[1] - $busy->[1]);

	# The last slots are due up to a second after the window. An overloaded fleet gets some time to catch up.
	my $made = sub {
		my $sum = 0;

		$sum += $_->value("SELECT count(*) FROM dsched.run WHERE scheduled_for >= to_timestamp($from) AND scheduled_for < to_timestamp($to)")
		  foreach @$nodes;
		return $sum;
	};
	my $last;
	select(undef, undef, undef, 1.2);
	wait_until(sub { select(undef, undef, undef, 1); ($last = $made->()) >= $load * $seconds }, 30);

	$judge->query('TRUNCATE slot, job, run');
	my @slots = map { $_->[0] } $nodes->[0]->query("SELECT preview FROM dsched.preview('* * * * * *', 'UTC', to_timestamp($from) - interval '1 us', $seconds)");
	$judge->query('INSERT INTO slot VALUES ' . join(',', map { '(' . quote($_) . ')' } @slots));
	foreach my $node (@$nodes)
	{
		my $file = "$dir/rows";

		unlink $file;
		$node->query(qq{COPY (SELECT @{[ quote($node->name) ]}, job_id, scheduled_for, r.status, r.reason, started_at, finished_at,
				bench_due(job_id, scheduled_for, jitter)
			FROM dsched.run r JOIN dsched.job USING (job_id)
			WHERE scheduled_for >= to_timestamp($from) AND scheduled_for < to_timestamp($to)) TO '$file'});
		$judge->query("COPY run FROM '$file'");
		unlink $file;
		$node->query("COPY (SELECT job_id FROM dsched.job) TO '$file'");
		# Members of a cluster have all jobs, each of them.
		$judge->query("CREATE TEMP TABLE more (LIKE job); COPY more FROM '$file'; INSERT INTO job SELECT * FROM more EXCEPT SELECT * FROM job");
	}
	my ($row) = $judge->query(qq{
		ANALYZE slot; ANALYZE job; ANALYZE run;
		WITH account AS (
			SELECT count(run.job_id) AS n, count(*) FILTER (WHERE status = 'succeeded') AS good, min(status) AS status
			FROM job CROSS JOIN slot LEFT JOIN run USING (job_id, slot) GROUP BY job_id, slot),
		verdict AS (
			SELECT count(*) AS slots, count(*) FILTER (WHERE n = 0) AS lost, count(*) FILTER (WHERE good > 1) AS doubled,
				count(*) FILTER (WHERE n > 0 AND good = 0) AS other FROM account),
		strange AS (
			SELECT count(*) AS n FROM run WHERE NOT EXISTS (SELECT FROM job WHERE job.job_id = run.job_id)
				OR NOT EXISTS (SELECT FROM slot WHERE slot.slot = run.slot)),
		late AS (SELECT 1000 * extract(epoch FROM started - due) AS ms, slot FROM run WHERE status = 'succeeded')
		SELECT slots, lost, doubled, other, strange.n,
			(SELECT count(*) FROM run WHERE finished >= to_timestamp($from) AND finished < to_timestamp($to)) / $seconds.0,
			p[1], p[2], p[3], p[4], (SELECT min(ms) FROM late),
			(SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms) FROM late WHERE slot >= to_timestamp($to - $seconds / 3.0))
		FROM verdict, strange, (SELECT percentile_disc(ARRAY[0.5, 0.99, 0.999, 1]) WITHIN GROUP (ORDER BY ms) AS p FROM late) l});
	my ($slots, $lost, $doubled, $other, $strange, $per_second, $p50, $p99, $p999, $max, $least, $end) = @$row;

	progress('not succeeded: %s', join(', ', map { "$_->[0] ($_->[1])" }
		$judge->query("SELECT status || coalesce(' ' || reason, ''), count(*) FROM run WHERE status <> 'succeeded' GROUP BY 1"))) if $other;
	die "the judge expects $slots slots of $load jobs in $seconds s\n" if $slots != $load * $seconds;
	die "a run of $name began $least ms before it was due\n" if $least < 0;
	my $sound = !$lost && !$doubled && !$other && !$strange;
	my %result = (sustained => $sound && $end < 100);

	push @rows,
	  [
		"$name, " . whole($load) . ' offered', $seconds, whole($per_second), (map { digits($_, 2) } $p50, $p99, $p999, $max), digits($machine, 0),
		$result{sustained} ? 'yes' : 'no'
	  ];
	push @checks, [ "$name, " . whole($load) . ' offered', map { whole($_) } $slots, $lost, $doubled, $other, $strange ];
	push @{ $curves[ $group_number - 1 ] }, [ $load, $p99 ];
	progress('%s, %s runs/s offered for %d s: %s made, late %s / %s / %s / %s ms, machine busy %d %%, %s slots: lost %s, doubled %s, otherwise %s, strange %s: %s',
		$name, whole($load), $seconds, whole($per_second), (map { digits($_, 2) } $p50, $p99, $p999, $max), $machine, whole($slots), $lost, $doubled,
		$other, $strange, $result{sustained} ? 'sustained' : 'not sustained');
	return \%result;
}

table(
	name    => 'load',
	columns => [ 'runs/s', 'seconds', 'made/s', 'late, ms: p50', 'p99', 'p99.9', 'max', 'machine busy, %', 'sustained' ],
	rows    => \@rows,
	note    => 'The most that was sustained: ' . join('; ', map { "$_ " . whole($most{$_} // 0) } sort keys %groups) . " runs/s. One machine for all, etcd included.");
table(
	name    => 'account',
	columns => [ 'runs/s', 'scheduled times in the window', 'without a row', 'succeeded twice', 'not succeeded', 'rows of other times' ],
	rows    => \@checks,
	note    => 'Up to half a minute after the window, where a load was not sustained.');
plot(
	name   => 'lateness',
	title  => 'Lateness of the slowest one percent of the runs',
	x      => { label => 'runs a second offered' },
	y      => { label => 'ms', log => 1 },
	series => [ map { { name => ('one alone', 'three alone', 'fleet of three with etcd')[$_], points => $curves[$_] } } 0 .. $#curves ]);
