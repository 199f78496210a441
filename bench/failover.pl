#!/usr/bin/env perl
#
# How long nobody runs the jobs of an instance that is lost: from the blow to the first start, elsewhere, of a run of a job that it owned,
# and until all of its jobs have begun to run elsewhere.
#
# Three instances share an etcd and 640 jobs that run each second, spread evenly over it by their jitter, so that each of 64 partitions has a
# run every 100 ms: it is not the time to the next slot that is measured. The instances are hurt one after the other, and back with their
# share before the next try. The moments are those of one machine's clock: the blow by this program, the starts by the rows of the
# survivors.
#
#	machine      kill -9 of all processes at once: nobody can say goodbye, the lease has to run out
#	postmaster   kill -9 of the postmaster: what it leaves behind notices and gives the lease back
#	clean stop   pg_ctl stop -m fast
#	backend      kill -9 of an executor: PostgreSQL ends all of its processes, recovers and starts anew; measured are the first run of
#	             its jobs on any instance, and from "ready to accept connections" in its log to the first on itself

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);
use Time::Local qw(timegm);

use Bench;
use Fleet;

begin_bench('failover');

my $tries = short() ? 3 : 20;
my $job_count = 640;
my (@rows, @series);

# Loses the victim by the code, which returns the moment, and measures. { first, all }: seconds to the first run of its jobs on one of
# the others, and until each of its jobs has had one there.
sub one_try
{
	my ($nodes, $victim, $blow, $timeout) = @_;
	my @others = grep { $_ != $victim } @$nodes;
	my $jobs = $others[0]->value("SELECT string_agg(job_id::text, ',') FROM dsched.jobs WHERE owner_node = '" . $victim->name . "'");
	my $count = () = $jobs =~ /\d+/g;
	my $at = $blow->($victim);
	my %first;

	wait_until(
		sub {
			foreach my $node (@others)
			{
				foreach my $row ($node->query("SELECT job_id, extract(epoch FROM min(started_at)) FROM dsched.run "
					. "WHERE scheduled_for > to_timestamp($at) - interval '20 s' AND started_at > to_timestamp($at) AND job_id IN ($jobs) GROUP BY 1"))
				{
					my ($job, $start) = @$row;

					$first{$job} = $start if !exists $first{$job} || $start < $first{$job};
				}
			}
			return keys %first == $count;
		},
		$timeout)
	  or die scalar(keys %first) . " of $count jobs of " . $victim->name . " run elsewhere\n";
	my @after = map { $_ - $at } values %first;
	return { first => minimum(@after), all => maximum(@after) };
}

# The same for a crash from which the instance comes back by itself: { first } on any instance, { ready } until it accepts connections,
# { again } from there to its first run of a job that was its own.
sub one_crash
{
	my ($nodes, $victim) = @_;
	my $jobs = $victim->value("SELECT string_agg(job_id::text, ',') FROM dsched.jobs WHERE owner_node = '" . $victim->name . "'");
	my ($executor) = processes($victim, 'dsched executor') or die $victim->name . ' has no executor';
	my $seen = -s $victim->log;
	my $at = now();

	kill('KILL', $executor);
	my $ready;
	wait_until(sub { $ready = ready_since($victim, $seen) }, 60) or die $victim->name . ' does not come back';
	my $starts = sub {
		my ($node, $after) = @_;

		return $node->try("SELECT extract(epoch FROM min(started_at)) FROM dsched.run WHERE started_at > to_timestamp($after) "
			. "AND scheduled_for > to_timestamp($after) - interval '20 s' AND job_id IN ($jobs)");
	};
	# its own runs up to the blow may begin while it is delivered
	wait_until(sub { $starts->($victim, $ready - 0.001) }, 60) or die $victim->name . ' runs nothing any more';
	my $again = $starts->($victim, $ready - 0.001);
	my @elsewhere = grep { defined } map { $starts->($_, $at) } grep { $_ != $victim } @$nodes;
	return { first => minimum(map { $_ - $at } $again, @elsewhere), ready => $ready - $at, again => $again - $ready, moved => scalar(@elsewhere) };
}

# What pg_ctl stop -m fast sends.
sub order_stop
{
	my ($node) = @_;
	my @family = $node->pids;
	my $at = now();

	kill('INT', $node->{pid});
	delete $node->{pid};
	$node->{orphans} = \@family;
	return $at;
}

# The moment in the log, after so many bytes, at which the server says that it is ready; undef if it has not yet.
sub ready_since
{
	my ($node, $offset) = @_;

	open(my $log, '<', $node->log) or return undef;
	seek($log, $offset, 0);
	while (<$log>)
	{
		next unless /^(\d+)-(\d+)-(\d+) (\d+):(\d+):([\d.]+) .*database system is ready to accept connections/;
		return timegm(0, $5, $4, $3, $2 - 1, $1) + $6;
	}
	return undef;
}

sub note
{
	my ($what, $ttl, $values, $column) = @_;
	my @values = @$values;

	push @rows,
	  [
		$what, $ttl, scalar(@values), (map { digits($_, 3) } minimum(@values), median(@values), percentile(95, @values), maximum(@values)),
		defined $column ? digits(median(@$column), 3) . ' / ' . digits(maximum(@$column), 3) : '-'
	  ];
	progress('%s, lease of %d s, %d tries: %s s', $what, $ttl, scalar(@values), spread($values, 3));
	return;
}

# Share of the tries, in percent, in which the first run had begun after so many seconds.
sub distribution
{
	my ($name, @values) = @_;

	@values = sort { $a <=> $b } @values;
	push @series, { name => $name, points => [ map { [ $values[$_], 100 * ($_ + 1) / @values ] } 0 .. $#values ] };
	return;
}

sub with_lease
{
	my ($ttl, %tries) = @_;
	my $etcd = start_etcd();
	my @nodes = fleet(3, etcd => $etcd, prefix => "ttl${ttl}_",
		conf => { 'dsched.lease_ttl' => "${ttl}s", 'dsched.max_executors' => 4, 'dsched.timezone' => 'UTC', shared_buffers => '64MB' });

	settle(@nodes);
	steady_jobs($nodes[0], 1, $job_count);
	wait_published($job_count, @nodes);

	my %kinds = (
		machine    => [ sub { $_[0]->kill9 }, $tries{machine} ],
		postmaster => [ sub { $_[0]->kill9_postmaster }, $tries{postmaster} ],
		clean_stop => [ \&order_stop, $tries{clean_stop} ],
	);
	foreach my $kind (qw(clean_stop postmaster machine))
	{
		my ($blow, $count) = @{ $kinds{$kind} };
		my (@first, @all);

		for my $try (1 .. $count // 0)
		{
			settle(@nodes);
			my $victim = $nodes[ $try % 3 ];
			my $result = one_try(\@nodes, $victim, $blow, $ttl + 30);

			push @first, $result->{first};
			push @all,   $result->{all};
			$victim->wait_gone or die $victim->name . ' does not end';
			$victim->start;
		}
		next unless @first;
		my $name = $kind =~ s/_/ /r;

		note($name, $ttl, \@first, \@all);
		distribution("$name, lease of $ttl s", @first);
	}

	my (@first, @again, @ready);
	my $moved = 0;
	for my $try (1 .. $tries{backend} // 0)
	{
		settle(@nodes);
		my $result = one_crash(\@nodes, $nodes[ $try % 3 ]);

		push @first, $result->{first};
		push @again, $result->{again};
		push @ready, $result->{ready};
		$moved++ if $result->{moved};
	}
	if (@first)
	{
		note('backend: to the first run anywhere', $ttl, \@first);
		note('backend: until the server is up again', $ttl, \@ready);
		note('backend: from there to its first run', $ttl, \@again);
		distribution("backend, lease of $ttl s", @first);
		progress('in %d of %d crashes others ran some of its jobs meanwhile', $moved, scalar(@first));
	}
	settle(@nodes);
	$_->stop foreach @nodes;
	$etcd->stop;
	return;
}

# The default lease takes long to run out, so fewer machines are lost under it. It is longer than PostgreSQL needs to come back from a crash
# of a backend, so that the instance keeps what it owns; a lease of 2 s is not always.
with_lease(2,  clean_stop => $tries, postmaster => $tries, machine => $tries);
with_lease(10, backend => $tries, machine => short() ? 1 : 8);

table(
	name    => 'times',
	columns => [ 'lost', 'lease, s', 'tries', 'least, s', 'median', '95 %', 'most', 'until each of its jobs, due once a second, has run, median / most' ],
	rows    => \@rows,
	note    => 'Seconds from the blow to the first start, on another instance, of a run of a job that the lost one owned.');
plot(
	name   => 'distribution',
	title  => 'From the loss of an instance to the first run of its jobs elsewhere',
	x      => { label => 'seconds after the loss', log => 1 },
	y      => { label => '% of the tries', to => 100 },
	series => \@series);
