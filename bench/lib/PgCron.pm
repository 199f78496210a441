# pg_cron from Debian's package (postgresql-15-cron), to compare with: a burst of jobs that are due at one moment.
#
#	my $cron = PgCron->new(jobs => 1000) or ...;     # undef where it is not installed
#	my $burst = $cron->burst(background => 1, jobs => 300, synchronous_commit => 'on', command => 'SELECT 1');
#	# { succeeded, failed, per_second, seconds, cpu, late => [ seconds... ] }
#
# That version knows minutes only, so its server has a clock which a full minute reaches when the bench is ready (shift_clock.c). What
# counts is its own record, cron.job_run_details: start_time is when its launcher gave the command to a session or worker,
# end_time when it heard of the end.
#
# Its settings are those with which it does most here: as many runs at a time as are asked for, no log line per statement.

package PgCron;

use strict;
use warnings;

use Bench;
use File::Basename qw(dirname);
use Time::HiRes qw(time);

# Runs that it may make at a time. More do not make it faster.
our $max_running = 300;

sub installed
{
	chomp(my $libraries = `"$ENV{PG_CONFIG}" --pkglibdir`);
	return -e "$libraries/pg_cron.so";
}

sub new
{
	my ($class, %opt) = @_;

	return undef unless installed();
	my $self = bless { jobs => $opt{jobs}, library => "$ENV{BENCH_TMP}/shift_clock.so" }, $class;
	my $source = dirname(__FILE__) . '/shift_clock.c';

	system("gcc -O2 -shared -fPIC -o '$self->{library}' '$source' -ldl") == 0 or die "$source does not compile\n";
	$self->{pg} = new_instance(
		'cron',
		preload => 'pg_cron',
		conf    => {
			'cron.database_name'    => 'bench',
			'cron.log_statement'    => 'off',
			'cron.max_running_jobs' => $max_running,
			max_connections         => $max_running + 100,
			max_worker_processes    => $max_running + 20,
			max_files_per_process   => 2000,
		});
	my $pg = $self->{pg};

	$pg->query(
		q{CREATE EXTENSION pg_cron;
		CREATE ROLE bench LOGIN;
		CREATE TABLE counter (id integer PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);
		INSERT INTO counter SELECT i, 0 FROM generate_series(1, 1000) i;
		ALTER TABLE counter OWNER TO bench});
	$pg->query(
		sprintf(
			q{INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username, active)
			SELECT '* * * * *', 'SELECT 1', %s, %d, 'bench', 'bench', false FROM generate_series(1, %d)},
			quote($pg->socket), $pg->port, $self->{jobs}));
	$pg->stop;
	return $self;
}

sub burst
{
	my ($self, %opt) = @_;
	my $pg = $self->{pg};

	$pg->configure(
		'cron.use_background_workers' => $opt{background} ? 'on' : 'off',
		synchronous_commit            => $opt{synchronous_commit} // 'on');

	my $minute = $self->_start_before_a_minute($opt{jobs}, $opt{command} // 'SELECT 1');
	my $cpu = $pg->cpu;

	# A run is counted when it has an end. Those that it never makes are missing from the count.
	my $session = $pg->session;
	wait_until(
		sub {
			select(undef, undef, undef, 0.25);
			return $session->value("SELECT count(*) FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')") >= $opt{jobs};
		},
		$minute - $self->{shift} - now() + 40);
	my ($row) = $session->query(
		"SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status <> 'succeeded'),
			extract(epoch FROM max(end_time) FILTER (WHERE status = 'succeeded')) - $minute
		FROM cron.job_run_details");
	my @late = map { $_->[0] } $session->query(
		"SELECT extract(epoch FROM start_time) - $minute FROM cron.job_run_details WHERE status = 'succeeded' ORDER BY 1");
	$session->close;
	$cpu = $pg->cpu - $cpu;
	$pg->stop('immediate');

	my ($succeeded, $failed, $seconds) = @$row;
	return {
		succeeded  => $succeeded,
		failed     => $failed,
		seconds    => $seconds,
		per_second => $succeeded ? $succeeded / $seconds : 0,
		cpu        => $cpu,
		late       => \@late,
	};
}

# Starts the server with a clock that reaches a full minute some seconds later, and gives it its jobs before that. Returns the minute, by
# that clock. On a slow machine it takes more than one try.
sub _start_before_a_minute
{
	my ($self, $jobs, $command) = @_;
	my $pg = $self->{pg};

	foreach my $lead (3, 6, 12)
	{
		# The clock is ahead by whole seconds, so the minute is full in $lead seconds or up to one more.
		my $full = int(time()) + 1 + $lead;

		$self->{shift} = 60 - $full % 60;
		$pg->{env} = { LD_PRELOAD => $self->{library}, SHIFT_CLOCK => $self->{shift} };
		$pg->start;
		$pg->query("TRUNCATE cron.job_run_details;
			UPDATE cron.job SET active = jobid <= $jobs, command = " . quote($command));
		return $full + $self->{shift} if time() < $full - 0.5;
		$pg->stop('immediate');
	}
	die "pg_cron's server was not ready in time\n";
}

1;
