#!/usr/bin/env perl
#
# Many jobs of which few are due: what a defined job costs in memory and processor time, and what it costs the others.
#
# One server, to which jobs are added up to each size: yearly, monthly and daily ones with names and commands as they are in use, none of
# which comes due while this runs, and one that runs each second. pg_cron stands beside it, in a server of its own, with the same
# schedules, names and commands as far as it is reasonable to go. Debian's knows no seconds: it has a job that runs each minute, and
# one that runs when it starts.
#
# What is measured at each size, and how:
#
#	memory      anonymous memory of the scheduler after a restart, less that at no job, by the number of jobs. Of pg_cron, of its launcher
#	idle        processor time of scheduler and coordinator over some seconds in which no job is due, in % of one core
#	first run   from the call of pg_ctl start to the start of the first run; the job that runs each second has slots to catch up
#	            (dsched), or there is one for the start (pg_cron)
#	lateness    of the job that runs each second, or minute, from its time to its start
#	schedule()  one call with its commit, and one in a longer transaction; 100,000 in one transaction, and until the scheduler knows them

use strict;
use warnings;

use Time::HiRes qw(time);

use Bench;
use Fleet;

begin_bench('scale');

my @sizes = short() ? (1000, 10_000) : (1000, 10_000, 100_000, 1_000_000);
my @cron_sizes = short() ? (1000, 10_000) : (1000, 100_000);
my $idle_seconds = short() ? 3 : 10;
my $tick_seconds = short() ? 4 : 10;
my $calls = 200;
my $most_at_once = 100_000;
my %result;

# The i-th job. The hour is one that is over or far away: hour 0 stands for three hours from now.
my $hour0 = (gmtime)[2] + 3;
my $name_of = q{'billing: roll up customer ' || to_char(i, 'FM0000000')};
my $command_of = q{'CALL billing.roll_up(customer => ' || i || ')'};
my $schedule_of = qq{
	CASE WHEN i % 100 < 2 THEN format('%s %s * * *', i % 60, ($hour0 + i / 60 % 18) % 24)
		WHEN i % 100 < 5 THEN format('%s %s * * 1-5', i % 60, ($hour0 + i / 60 % 18) % 24)
		WHEN i % 100 < 35 THEN format('%s %s %s * *', i % 60, ($hour0 + i / 60 % 18) % 24, 1 + i / 1080 % 28)
		ELSE format('%s %s %s %s *', i % 60, ($hour0 + i / 60 % 18) % 24, 1 + i / 1080 % 28, 1 + i / 30240 % 12) END};

# What differs between the two. now_known: all definitions have reached the scheduler.
my %dsched = (
	name      => 'dsched',
	schema    => 'dsched',
	processes => [ 'dsched scheduler', 'dsched coordinator' ],
	memory    => ['dsched scheduler'],
	tick      => q{SELECT dsched.schedule('each second', '* * * * * *', 'SELECT 1')},
	quiet     => q{SELECT dsched.pause('each second')},
	loud      => q{SELECT dsched.resume('each second')},
	known     => q{SELECT NOT EXISTS (SELECT FROM dsched.job WHERE changed IS NOT NULL)},
	starts    => q{SELECT scheduled_for, started_at FROM dsched.run WHERE status = 'succeeded'},
	wait      => sub { select(undef, undef, undef, $tick_seconds) },
	command   => 'dsched.job',
	conf      => { 'dsched.max_executors' => 4, 'dsched.timezone' => 'UTC' },
);
my %cron = (
	name      => 'pg_cron',
	schema    => 'cron',
	processes => ['pg_cron'],
	memory    => ['pg_cron'],
	tick      => q{SELECT cron.schedule('each minute', '* * * * *', 'SELECT 1'), cron.schedule('start', '@reboot', 'SELECT 1')},
	quiet     => q{SELECT true},
	loud      => q{SELECT true},
	known     => q{SELECT true},
	starts    => q{SELECT CASE WHEN jobname = 'each minute' THEN date_trunc('minute', start_time) END AS scheduled_for,
		start_time AS started_at FROM cron.job_run_details JOIN cron.job USING (jobid) WHERE status = 'succeeded'},
	wait      => sub { select(undef, undef, undef, 63 - (time() - 60 * int(time() / 60))) unless short() },
	command   => 'cron.job',
	conf      => { 'cron.database_name' => 'bench', 'cron.use_background_workers' => 'on' },
);

# So many jobs are added, the largest transaction being $most_at_once; returns, of the last one of that size, the seconds to commit it, and
# from there until the scheduler knows them all.
sub define
{
	my ($pg, $kind, $first, $last) = @_;
	my ($committed, $known);

	for (my $from = $first; $from <= $last; $from += $most_at_once)
	{
		my $to = $from + $most_at_once - 1 < $last ? $from + $most_at_once - 1 : $last;
		my $began = time();

		$pg->query("SELECT count($kind->{schema}.schedule($name_of, $schedule_of, $command_of)) FROM generate_series($from, $to) i");
		my $done = time();
		$pg->wait_for($kind->{known}, 't', 600);
		($committed, $known) = ($done - $began, time() - $done) if $to - $from + 1 == $most_at_once;
	}
	return ($committed, $known);
}

# In microseconds, the median: one call with its commit, and a call within a transaction (which is rolled back).
sub cost_of_schedule
{
	my ($pg, $kind) = @_;
	my $loop = sub {
		my ($end) = @_;

		return ($pg->query(qq{
			CREATE TEMP TABLE took (us float8);
			DO \$\$
			DECLARE
				began timestamptz;
			BEGIN
				FOR i IN 1 .. $calls LOOP
					began := clock_timestamp();
					PERFORM $kind->{schema}.schedule('single ' || i, '7 7 7 7 *', 'SELECT 7');
					$end->[0]
					INSERT INTO took VALUES (extract(epoch FROM clock_timestamp() - began) * 1e6);
				END LOOP;
			END \$\$;
			SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) FROM took;
			$end->[1]}))[0][0];
	};
	my $alone = $loop->([ 'COMMIT;', "SELECT count($kind->{schema}.unschedule('single ' || i)) FROM generate_series(1, $calls) i" ]);
	my $within = $loop->([ '', '' ]);

	$pg->query("SELECT count($kind->{schema}.unschedule('single ' || i)) FROM generate_series(1, $calls) i");
	$pg->wait_for($kind->{known}, 't', 600);
	return ($alone, $within);
}

sub percent_of_core
{
	my ($pg, $kind, $seconds) = @_;
	my @pids = map { processes($pg, $_) } @{ $kind->{processes} };
	my ($before, $began) = (cpu_of_process(@pids), time());

	select(undef, undef, undef, $seconds);
	return 100 * (cpu_of_process(@pids) - $before) / (time() - $began);
}

# Seconds from the call of pg_ctl to the start of the first run.
sub start_to_first_run
{
	my ($pg, $kind) = @_;

	$pg->stop;
	my $called = now();
	$pg->start;
	return $pg->wait_for(
		"SELECT extract(epoch FROM min(started_at)) - $called FROM ($kind->{starts}) s WHERE started_at > to_timestamp($called)",
		qr/\d/, 300);
}

# [ median, largest ] in ms: how late the runs that began since were.
sub lateness
{
	my ($pg, $kind, $from) = @_;
	my @late = map { $_->[0] } $pg->query(
		"SELECT 1000 * extract(epoch FROM started_at - scheduled_for) FROM ($kind->{starts}) s "
		  . "WHERE scheduled_for >= to_timestamp($from)");

	return [ median(@late), maximum(@late) ];
}

sub measure
{
	my ($pg, $kind, $size, $empty) = @_;
	my %m = (size => $size);

	foreach my $round (1 .. rounds())
	{
		push @{ $m{first} }, start_to_first_run($pg, $kind);
		push @{ $m{memory} }, memory_of_process(map { processes($pg, $_) } @{ $kind->{memory} });
	}
	my $from = now();
	$kind->{wait}->();
	$m{late} = lateness($pg, $kind, $from);

	# An account may be written up to five seconds after the last run.
	$pg->query($kind->{quiet});
	select(undef, undef, undef, 6);
	push @{ $m{idle} }, percent_of_core($pg, $kind, $idle_seconds) foreach 1 .. (rounds() > 2 ? 3 : 1);
	foreach my $round (1 .. rounds())
	{
		my ($alone, $within) = cost_of_schedule($pg, $kind);

		push @{ $m{alone} },  $alone;
		push @{ $m{within} }, $within;
	}
	$pg->query($kind->{loud});
	$m{bytes} = $empty ? (median(@{ $m{memory} }) - $empty) / $size : undef;
	$m{text} = $pg->value("SELECT avg(octet_length(command)) FROM $kind->{command}");
	return \%m;
}

sub climb
{
	my ($kind, @sizes) = @_;
	my $pg = new_instance($kind->{name}, preload => $kind->{name} eq 'dsched' ? 'dsched' : 'pg_cron', conf => $kind->{conf});
	my $empty;

	$pg->query("CREATE EXTENSION $kind->{name}");
	$pg->query($kind->{tick});
	foreach my $i (0 .. $#sizes + 1)
	{
		my $size = $i ? $sizes[ $i - 1 ] : 0;
		my $from = now();
		my ($committed, $known) = $i ? define($pg, $kind, ($i > 1 ? $sizes[ $i - 2 ] : 0) + 1, $size) : ();
		my $meanwhile = lateness($pg, $kind, $from);

		# As autovacuum would, at a moment of our choice.
		$pg->query('VACUUM ANALYZE ' . $kind->{command});
		my $m = measure($pg, $kind, $size, $empty);
		$empty //= median(@{ $m->{memory} });
		@$m{qw(committed known meanwhile)} = ($committed, $known, $meanwhile->[1]);
		push @{ $result{ $kind->{name} } }, $m;
		progress(
			'%s, %s jobs: %s bytes each, idle %s %%, first run %s s, a job each second (minute) %s / %s ms late, '
			  . 'schedule() %s µs, within a transaction %s µs, 100,000 in %s s, known %s s later, the job meanwhile at worst %s ms late',
			$kind->{name}, whole($size), whole($m->{bytes}), spread($m->{idle}, 3), spread($m->{first}, 2),
			digits($m->{late}[0], 2), digits($m->{late}[1], 2),
			spread($m->{alone}), spread($m->{within}), digits($committed, 1), digits($known, 1), digits($m->{meanwhile}, 1));
	}
	$pg->stop;
	return;
}

climb(\%cron, @cron_sizes);
climb(\%dsched, @sizes);

# ---------------------------------------------------------------------------------------------------------------------

my @rows;
foreach my $name ('dsched', 'pg_cron')
{
	foreach my $m (@{ $result{$name} })
	{
		push @rows,
		  [
			"$name, " . whole($m->{size}) . ' jobs', whole($m->{bytes}), whole($m->{text}), digits(median(@{ $m->{idle} }), 3),
			spread($m->{first}, 2), digits($m->{late}[0], 2) . ' / ' . digits($m->{late}[1], 2),
		  ];
	}
}
table(
	name    => 'jobs',
	columns => [
		'', 'memory for each job, bytes', 'of its command, bytes', 'idle, % of a core', 'start to first run, s',
		'job each second late, ms, median / max'
	],
	rows => \@rows,
	note => 'pg_cron runs a job each minute at most; its lateness is that of one run.');

@rows = ();
foreach my $name ('dsched', 'pg_cron')
{
	push @rows,
	  [
		"$name, " . whole($_->{size}) . ' jobs', spread($_->{alone}), spread($_->{within}), digits($_->{committed}, 1), digits($_->{known}, 1),
		whole($_->{meanwhile})
	  ]
	  foreach @{ $result{$name} };
}
table(
	name    => 'definitions',
	columns => [
		'', 'schedule() and commit, µs', 'in a transaction, µs', 'the last 100,000 in one transaction, s', 'until the scheduler knows them, s',
		'job each second late meanwhile, at worst, ms'
	],
	rows => \@rows);

sub curve
{
	my ($name, $title, $label, $log, $value) = @_;

	plot(
		name   => $name,
		title  => $title,
		x      => { label => 'jobs defined', log => 1 },
		y      => { label => $label, $log ? (log => 1) : () },
		series => [
			map { my $who = $_; { name => $who, points => [ map { [ $_->{size}, $value->($_) ] } grep { $_->{size} } @{ $result{$who} } ] } }
			  'dsched', 'pg_cron'
		]);
	return;
}

curve('memory', 'Memory of the scheduler for each defined job', 'bytes', 0, sub { $_[0]{bytes} });
curve('idle', 'Processor time while nothing is due', '% of one core', 0, sub { median(@{ $_[0]{idle} }) });
curve('start', 'From the start of the server to the first run', 'seconds', 1, sub { median(@{ $_[0]{first} }) });
curve('schedule', 'One call of schedule(), without its commit', 'µs', 1, sub { median(@{ $_[0]{within} }) });
curve('late', 'A job that runs each second (pg_cron: each minute): lateness, median', 'ms', 1, sub { $_[0]{late}[0] });
