#!/usr/bin/env perl
#
# What a fleet costs its etcd: at rest, at 100 runs a second, and at as many as are offered in bench/fleet.pl, with one instance and with
# three. The counters are etcd's own, read before and after windows of some seconds.
#
# The cost must follow the number of partitions and of instances, not the number of runs. An account of a partition is sent when something
# in it has changed, at most once in dsched.checkpoint_interval (250 ms), all partitions of an instance that have changed in few
# transactions; so the transactions of an instance have a ceiling, which is reached as soon as every partition has a run in each interval.

use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;
use Fleet;

begin_bench('etcd');

my @loads = (0, 100, short() ? 1000 : 8500);
my $seconds = short() ? 4 : 6;
my @rows;
my %curve;

foreach my $instances (1, 3)
{
	my $etcd = start_etcd();
	my @nodes = fleet($instances, etcd => $etcd, prefix => "etcd${instances}_",
		conf => { 'dsched.max_executors' => 8, 'dsched.queue_size' => 8192, 'dsched.timezone' => 'UTC', shared_buffers => '128MB' });
	my $jobs = 0;

	settle(@nodes);
	foreach my $load (@loads)
	{
		steady_jobs($nodes[0], $jobs + 1, $load) if $load > $jobs;
		$jobs = $load;
		wait_published($jobs, @nodes);
		settle(@nodes);
		# The definitions' own traffic is over, and the load has begun.
		select(undef, undef, undef, 6);

		my (@windows, @done, @late);
		for (1 .. rounds())
		{
			my $runs = runs(@nodes);
			my $before = etcd_counters($etcd);
			my $busy = machine_cpu();

			select(undef, undef, undef, $seconds);
			my $rates = rates($before, etcd_counters($etcd));
			my $now = machine_cpu();
			push @windows, { %$rates, busy => 100 * ($now->[0] - $busy->[0]) / ($now->[1] - $busy->[1]) };
			push @done, (runs(@nodes) - $runs) / (time() - $before->{time});
		}
		my $of = sub { my ($name) = @_; return [ map { $_->{$name} } @windows ] };

		push @rows,
		  [
			"$instances instance" . ($instances > 1 ? 's' : '') . ', ' . whole($load) . ' runs/s offered', spread(\@done), spread($of->('txns'), 1),
			spread($of->('alives'), 1), spread($of->('writes'), 1), spread($of->('puts'), 1), spread($of->('fsyncs'), 1),
			digits(median(@{ $of->('in') }) / 1000, 1) . ' / ' . digits(median(@{ $of->('out') }) / 1000, 1),
			digits(100 * median(@{ $of->('cpu') }), 1), digits(median(@{ $of->('busy') }), 0),
		  ];
		push @{ $curve{$instances} }, [ $load || 1, median(@{ $of->('txns') }), (median(@{ $of->('in') }) + median(@{ $of->('out') })) / 1000 ];
		progress('%d instances, %s runs/s: %s done, transactions %s, keepalives %s, writes %s, %.1f kB/s', $instances, whole($load),
			spread(\@done), spread($of->('txns'), 1), spread($of->('alives'), 1), spread($of->('writes'), 1), $curve{$instances}[-1][2]);
	}
	$_->stop foreach @nodes;
	$etcd->stop;
}

# Rows of runs, over all instances.
sub runs
{
	my $sum = 0;

	$sum += $_->value('SELECT count(*) FROM dsched.run') foreach @_;
	return $sum;
}

table(
	name    => 'load',
	columns => [
		'', 'runs/s made', 'transactions/s', 'keepalives/s', 'raft proposals/s', 'puts/s', 'WAL flushes/s',
		'kB/s in / out', 'etcd, % of a core', 'machine busy, %'
	],
	rows => \@rows,
	note => 'Raft proposals are what is replicated and flushed: transactions, keepalives and compactions. Bytes are those of clients.');
foreach my $what ([ 'transactions', 'etcd transactions a second', 1 ], [ 'bytes', 'kB a second between etcd and its clients', 2 ])
{
	plot(
		name   => $what->[0],
		title  => "$what->[1] by the number of runs",
		x      => { label => 'runs a second (1 stands for none)', log => 1 },
		y      => { label => $what->[1] },
		series => [
			map { my $i = $_; { name => $i . ($i > 1 ? ' instances' : ' instance'), points => [ map { [ $_->[0], $_->[ $what->[2] ] ] } @{ $curve{$i} } ] } }
			  sort keys %curve
		]);
}
