# Runs a second out of a backlog, against what PostgreSQL does for clients (pgbench) and against pg_cron.
#
# All that is compared runs within seconds in the same server (pg_cron in one with the same settings), each round anew:
#
#	dsched                 jobs that are all due in one second, or one job's slots; from when they are due to the end of the last
#	pgbench                as many clients as executors, -M prepared: BEGIN, the same statement, an INSERT of the same row into a
#	                       copy of dsched.run with its indexes, COMMIT; each a message of its own, waiting for the answer
#	pgbench, pipelined     the same four messages sent at once
#	pg_cron                jobs that are all due in one minute; from then to the end of the last that succeeded

use strict;
use warnings;

use Bench;
use Backlog;
use PgCron;

begin_bench('throughput');

my $jobs = short() ? 3000 : 20000;
my $cron_jobs = short() ? 100 : 400;
my $pgbench_seconds = short() ? 1 : 2; # pgbench takes whole ones

# What is measured against pgbench: executors, synchronous_commit, command, shape.
my @cases = (
	[ 8,  'on',  'SELECT 1',  'distinct' ],
	[ 8,  'on',  'UPDATE',    'distinct' ],
	[ 8,  'on',  'aggregate', 'distinct' ],
	[ 8,  'on',  'SELECT 1',  'one' ],
	[ 8,  'on',  'SELECT 1',  'roles' ],
	[ 8,  'off', 'SELECT 1',  'distinct' ],
	[ 8,  'off', 'UPDATE',    'distinct' ],
	[ 8,  'off', 'aggregate', 'distinct' ],
	[ 8,  'off', 'SELECT 1',  'one' ],
	[ 8,  'off', 'SELECT 1',  'roles' ],
	[ 4,  'on',  'SELECT 1',  'distinct' ],
	[ 16, 'on',  'SELECT 1',  'distinct' ],
);
my %shape = (distinct => 'distinct jobs', one => 'one job', roles => 'distinct jobs of 100 roles');

# pg_cron: background workers or sessions through libpq, synchronous_commit.
my @cron_cases = ([ 1, 'on' ], [ 0, 'on' ], [ 1, 'off' ], [ 0, 'off' ]);

my $backlog = Backlog->new(executors => 8);
my $pg = $backlog->{pg};
my $cron = PgCron->new(jobs => $cron_jobs);
my (%result, %cron_result);

# The state that every round begins with.
my @roles = map { "role$_" } 1 .. 100;
$pg->query(join('; ', map { "CREATE ROLE $_" . ' LOGIN' } @roles));
$backlog->define($_, jobs => $jobs, command => $_) foreach sort keys %Backlog::commands;
$backlog->define('roles', jobs => $jobs, command => 'SELECT 1', roles => \@roles);
my $settings = join(', ', map { join(' = ', @$_) } $pg->query(
	q{SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'wal_sync_method', 'shared_buffers',
		'max_wal_size', 'checkpoint_timeout', 'autovacuum') ORDER BY name}));

for my $round (1 .. rounds())
{
	my ($executors, $synchronous_commit) = (8, 'on');

	foreach my $case (@cases)
	{
		my ($want_executors, $want_sync, $command, $shape) = @$case;

		if ($executors != $want_executors || $synchronous_commit ne $want_sync || $round > 1 && $case == $cases[0])
		{
			($executors, $synchronous_commit) = ($want_executors, $want_sync);
			$pg->configure('dsched.max_executors' => $executors, synchronous_commit => $synchronous_commit);
			$pg->restart;
			$pg->wait_for("SELECT bool_and(state = 'ok') FROM dsched.status() WHERE component = 'scheduler'");
		}

		# Each goes first in every second round.
		my $result = $result{"@$case"} //= {};
		my @order = (
			sub {
				foreach my $pipeline (0, 1)
				{
					push @{ $result->{ $pipeline ? 'pipelined' : 'plain' } },
					  $backlog->pgbench(
						command => $command, clients => $executors, seconds => $pgbench_seconds, pipeline => $pipeline);
				}
			},
			sub {
				my $run =
				    $shape eq 'one' ? $backlog->one_job(jobs => $jobs, command => $command)
				  : $backlog->distinct_jobs($shape eq 'roles' ? 'roles' : $command);
				push @{ $result->{dsched} }, $run->{per_second};
				push @{ $result->{processes} }, $run->{processes};
				push @{ $result->{cpu} }, $run->{cpu} / $jobs * 1e6;
			});
		$_->() foreach $round % 2 ? @order : reverse @order;
		push @{ $result->{to_plain} }, $result->{dsched}[-1] / $result->{plain}[-1];
		push @{ $result->{to_pipelined} }, $result->{dsched}[-1] / $result->{pipelined}[-1];
		progress('round %d: %2d executors, synchronous_commit %-3s %-9s %-26s dsched %s/s, pgbench %s, pipelined %s (%d processes)',
			$round, $executors, $synchronous_commit, $command, $shape{$shape}, whole($result->{dsched}[-1]),
			whole($result->{plain}[-1]), whole($result->{pipelined}[-1]), $result->{processes}[-1]);
	}

	foreach my $case (defined $cron ? @cron_cases : ())
	{
		my ($background, $sync) = @$case;
		my $burst = $cron->burst(background => $background, jobs => $cron_jobs, synchronous_commit => $sync);
		my $result = $cron_result{"@$case"} //= {};

		push @{ $result->{per_second} }, $burst->{per_second};
		push @{ $result->{failed} }, $cron_jobs - $burst->{succeeded};
		push @{ $result->{cpu} }, $burst->{cpu} / $cron_jobs * 1e6;
		push @{ $result->{ratio} }, $result{"8 $sync SELECT 1 distinct"}{dsched}[-1] / $burst->{per_second} if $burst->{per_second};
		progress('round %d: pg_cron, %s, synchronous_commit %-3s %s/s, %d did not succeed',
			$round, $background ? 'background workers' : 'libpq', $sync, whole($burst->{per_second}), $result->{failed}[-1]);
	}
}

my ($dsched_work, $pgbench_work) = $backlog->same_work(command => 'SELECT 1', executors => 8);

text('settings', "Servers: $settings.");
table(
	name    => 'same_work',
	title   => 'Is it the same work? One run of each with `track_commit_timestamp`, `SELECT 1`, 8 executors or clients, synchronous_commit on',
	columns => [ 'per run', 'dsched', 'pgbench, pipelined' ],
	rows    => [
		map {
			my ($name, $key, $digits) = @$_;
			[ $name, digits($dsched_work->{$key}, $digits), digits($pgbench_work->{$key}, $digits) ]
		} (
			[ 'runs (rows)', 'runs', 0 ], [ 'transactions that made them', 'transactions', 0 ], [ 'bytes of WAL per run', 'wal_bytes', 0 ],
			[ 'flushes of WAL per run', 'wal_syncs', 3 ], [ 'from finished_at to the commit, p50, ms', 'lag_p50', 3 ],
			[ 'from finished_at to the commit, p99, ms', 'lag_p99', 3 ])
	]);

table(
	name    => 'pgbench',
	title   => "@{[ whole($jobs) ]} runs that are due at once, against pgbench with as many clients: runs/s, median (least - most)",
	columns => [
		'what', 'executors', 'synchronous_commit', 'dsched', 'pgbench', 'pgbench, pipelined', 'ratio to pgbench',
		'ratio to pipelined', 'CPU per run, µs'
	],
	rows => [
		map {
			my $result = $result{"@$_"};
			[
				"`$_->[2]`, $shape{$_->[3]}" =~ s/`(UPDATE|aggregate)`/$1/r, $_->[0], $_->[1], spread($result->{dsched}), spread($result->{plain}),
				spread($result->{pipelined}), spread($result->{to_plain}, 2), spread($result->{to_pipelined}, 2),
				whole(median(@{ $result->{cpu} }))
			]
		} @cases
	]);

table(
	name    => 'roles',
	title   => 'What a change of role costs: 8 executors, `SELECT 1`',
	columns => [ 'synchronous_commit', 'roles', 'runs/s', 'processes that made runs', 'runs per process' ],
	rows    => [
		map {
			my ($sync, $shape) = @$_;
			my $result = $result{"8 $sync SELECT 1 $shape"};
			[
				$sync, $shape eq 'roles' ? 100 : 1, spread($result->{dsched}), spread($result->{processes}),
				whole($jobs / median(@{ $result->{processes} }))
			]
		} ([ 'on', 'distinct' ], [ 'on', 'roles' ], [ 'off', 'distinct' ], [ 'off', 'roles' ])
	]);

if (defined $cron)
{
	table(
		name    => 'pg_cron',
		title   => "@{[ whole($cron_jobs) ]} jobs `SELECT 1` that are due at once, by pg_cron, and dsched's rate (8 executors) over it",
		columns => [ 'pg_cron runs its jobs in', 'synchronous_commit', 'pg_cron, runs/s', 'not made or failed', 'CPU per run, µs', 'dsched over pg_cron' ],
		rows    => [
			map {
				my $result = $cron_result{"@$_"};
				[
					$_->[0] ? 'background workers' : 'sessions (libpq)', $_->[1], spread($result->{per_second}),
					spread($result->{failed}), whole(median(@{ $result->{cpu} })), spread($result->{ratio}, 0)
				]
			} @cron_cases
		]);
}
else
{
	text('pg_cron', 'pg_cron is not installed for this PostgreSQL (package postgresql-15-cron): not compared.');
}
