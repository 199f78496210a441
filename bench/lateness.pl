# From the moment at which a run is due to the start of its command, under a steady load.
#
#	spread   jobs '* * * * * *' with jitter => '1 s': due at moments that are spread evenly over the second
#	burst    the same jobs without jitter: all due at the full second, so that the last has to wait for all before it
#	pg_cron  jobs that are all due at the full minute, which is all that Debian's version knows
#
# started_at is when an executor begins a run: after it was taken out of the queue, before its command is looked at. A window of some
# seconds is measured, all slots of which must have run, each once.

use strict;
use warnings;

use Bench;
use PgCron;

begin_bench('lateness');

my $executors = 8;
my $seconds = short() ? 2 : 3;
my @rates = (10, 100, 1000, 5000, 8500);
my @cron_sizes = short() ? (10) : (10, 100, 300);

my $pg = new_instance('pg', conf => { 'dsched.max_executors' => $executors });
$pg->query(
	q{CREATE EXTENSION dsched;
	CREATE ROLE bench LOGIN;
	CREATE FUNCTION dsched_test_due(job_id bigint, slot timestamptz, jitter interval) RETURNS timestamptz
		AS '$libdir/dsched' LANGUAGE C STRICT IMMUTABLE});
my $session = $pg->session;

# All jobs once, paused. The rate is the number of those that are not.
my $most = maximum(@rates);
foreach my $shape ('spread', 'burst')
{
	my $jitter = $shape eq 'spread' ? ", jitter => '1 s'" : '';

	$pg->query("SELECT count(dsched.schedule('$shape ' || i, '* * * * * *', 'SELECT 1', time_zone => 'UTC', username => 'bench',
		overlap => 'allow', active => false$jitter)) FROM generate_series(1, $most) i");
}
my $cron = PgCron->new(jobs => maximum(@cron_sizes));

sub set_rate
{
	my ($shape, $rate) = @_;

	$session->query("SELECT count(dsched.pause(job_id)) FROM dsched.job WHERE active");
	$session->query("SELECT count(dsched.resume(job_id)) FROM dsched.job
		WHERE job_name LIKE '$shape %' AND substring(job_name from '[0-9]+')::int <= $rate")
	  if $rate;
	wait_until(sub { !$session->value('SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL') }) or die "jobs are not taken in\n";
	return;
}

# Lateness in ms of every run whose slot is in the window, sorted; CPU in percent of a core while it lasted.
sub measure
{
	my ($shape, $rate) = @_;
	my $first = int(now()) + 2;

	select(undef, undef, undef, $first - now());
	my ($from, $cpu) = (now(), $pg->cpu);
	select(undef, undef, undef, $first + $seconds - now());
	my $percent = 100 * ($pg->cpu - $cpu) / (now() - $from);
	select(undef, undef, undef, 1.1);    # the last slot of the window is due up to a second later

	my $jitter = $shape eq 'spread' ? '1 s' : '0';
	my $window = "scheduled_for >= to_timestamp($first) AND scheduled_for < to_timestamp($first + $seconds)";
	wait_until(sub { $session->value("SELECT count(*) FROM dsched.run WHERE $window") >= $rate * $seconds }, 30);
	my ($row) = $session->query("SELECT count(*), count(*) FILTER (WHERE status = 'succeeded') FROM dsched.run WHERE $window");
	die "$row->[0] rows and $row->[1] successful runs of @{[ $rate * $seconds ]}\n"
	  if $row->[0] != $rate * $seconds || $row->[1] != $rate * $seconds;
	my @late = map { $_->[0] } $session->query(
		"SELECT extract(epoch FROM started_at - dsched_test_due(job_id, scheduled_for, '$jitter')) * 1000 FROM dsched.run WHERE $window");
	return { late => [ sort { $a <=> $b } @late ], cpu => $percent };
}

# ---------------------------------------------------------------------------------------------------------------------

my %result;

sub keep
{
	my ($what, $late, $cpu) = @_;
	my $result = $result{$what} //= {};

	push @{ $result->{p50} }, percentile(50, @$late);
	push @{ $result->{p99} }, percentile(99, @$late);
	push @{ $result->{p999} }, @$late >= 1000 ? percentile(99.9, @$late) : undef;
	push @{ $result->{max} }, $late->[-1];
	push @{ $result->{cpu} }, $cpu;
	return $result;
}

for my $round (1 .. rounds())
{
	foreach my $shape ('spread', 'burst')
	{
		foreach my $rate (@rates)
		{
			set_rate($shape, $rate);
			my $measured = measure($shape, $rate);
			my $result = keep("$shape $rate", $measured->{late}, $measured->{cpu});

			# How fast the burst was worked off: as many as there are, in the time after which all but a hundredth of them had begun.
			push @{ $result->{per_second} }, $rate / ($result->{p99}[-1] / 1000) if $shape eq 'burst';
			progress('round %d: %s %4d runs/s: p50 %.2f ms, p99 %.2f ms, p99.9 %s ms, max %.2f ms; CPU %.1f %% of a core', $round, $shape, $rate,
				map({ $result->{$_}[-1] } qw(p50 p99)), digits($result->{p999}[-1], 2), map({ $result->{$_}[-1] } qw(max cpu)));
		}
		set_rate($shape, 0);
	}
	foreach my $size (defined $cron ? @cron_sizes : ())
	{
		foreach my $background (1, 0)
		{
			my $burst = $cron->burst(background => $background, jobs => $size);
			my @late = map { $_ * 1000 } @{ $burst->{late} };
			my $result = keep("cron $background $size", \@late, 100 * $burst->{cpu} / $size);

			push @{ $result->{missing} }, $size - $burst->{succeeded};
			progress('round %d: pg_cron, %s, %d jobs: p50 %.0f ms, p99 %.0f ms, max %.0f ms', $round,
				$background ? 'background workers' : 'libpq', $size, map { $result->{$_}[-1] } qw(p50 p99 max));
		}
	}
}
$session->close;

# Median of the rounds; the worst of all runs.
sub columns
{
	my ($what, $digits) = @_;
	my $result = $result{$what};

	return (
		spread($result->{p50}, $digits), spread($result->{p99}, $digits), spread($result->{p999}, $digits),
		digits(maximum(@{ $result->{max} }), $digits));
}

table(
	name    => 'spread',
	title   => "Lateness of runs that are due at moments spread over the second, $executors executors, synchronous_commit on: ms, median of the "
	  . 'rounds (least - most)',
	columns => [ 'runs/s', 'p50', 'p99', 'p99.9', 'max of all rounds', 'CPU, % of a core' ],
	rows    => [ map { [ whole($_), columns("spread $_", 2), spread($result{"spread $_"}{cpu}, 1) ] } @rates ],
);
table(
	name    => 'burst',
	title   => "Lateness of runs that are all due at the full second, every second: ms",
	columns => [ 'runs at once', 'p50', 'p99', 'p99.9', 'max of all rounds', 'so started, runs/s', 'CPU, % of a core' ],
	rows    => [
		map {
			[
				whole($_), columns("burst $_", 2), whole(median(@{ $result{"burst $_"}{per_second} })),
				spread($result{"burst $_"}{cpu}, 1)
			]
		} @rates
	],
);
if (defined $cron)
{
	table(
		name    => 'pg_cron',
		title   => 'Lateness of jobs of pg_cron that are all due at the full minute, and of as many of dsched at the full second: ms',
		columns => [ 'jobs at once', 'pg_cron runs them in', 'p50', 'p99', 'max of all rounds', 'not made', 'dsched p50', 'dsched p99', 'ratio of p99' ],
		rows    => [
			map {
				my $size = $_;
				map {
					my $result = $result{"cron $_ $size"};
					my $ours = $result{"burst $size"};
					[
						$size, $_ ? 'background workers' : 'sessions (libpq)', spread($result->{p50}), spread($result->{p99}),
						whole(maximum(@{ $result->{max} })), spread($result->{missing}),
						$ours ? (
							spread($ours->{p50}, 2), spread($ours->{p99}, 2),
							whole(median(@{ $result->{p99} }) / median(@{ $ours->{p99} })))
						: ('-', '-', '-')
					]
				} (1, 0)
			} @cron_sizes
		]);
}
else
{
	text('pg_cron', 'pg_cron is not installed for this PostgreSQL (package postgresql-15-cron): not compared.');
}
plot(
	name   => 'percentiles',
	title  => "Lateness of the start of a run, $executors executors",
	x      => { label => 'runs per second, spread over the second', log => 1 },
	y      => { label => 'lateness, ms', log => 1 },
	series => [
		map {
			my ($name, $key) = @$_;
			{ name => $name, points => [ map { [ $_, median(@{ $result{"spread $_"}{$key} }) ] } @rates ] }
		} ([ 'p50', 'p50' ], [ 'p99', 'p99' ], [ 'p99.9', 'p999' ], [ 'max', 'max' ])
	]);
