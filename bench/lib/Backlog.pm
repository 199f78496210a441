# What throughput is measured with: a server with dsched, jobs that come due together, pgbench doing the same work.
#
# Commands are given with {k} for a number from 1 to 1000 that is the job's own: the row of table counter that it touches, so that
# no two of 1000 wait for each other. pgbench draws it.

package Backlog;

use strict;
use warnings;

use Bench;
use POSIX qw(ceil strftime);

our %commands = (
	'SELECT 1'  => 'SELECT 1',
	'UPDATE'    => 'UPDATE counter SET n = n + 1 WHERE id = {k}',
	'aggregate' => 'SELECT count(*), sum(n) FROM counter WHERE id BETWEEN {k} AND {k} + 9',
);

sub new
{
	my ($class, %opt) = @_;
	my $self = bless {}, $class;

	my $pg = $self->{pg} = new_instance('pg',
		conf => { 'dsched.max_executors' => $opt{executors}, 'dsched.queue_size' => $opt{queue_size} // 16384 });
	$pg->query(
		q{CREATE EXTENSION dsched;
		CREATE ROLE bench LOGIN;
		CREATE TABLE counter (id integer PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50);
		INSERT INTO counter SELECT i, 0 FROM generate_series(1, 1010) i;
		CREATE TABLE run_copy (LIKE dsched.run INCLUDING ALL);
		ALTER TABLE counter OWNER TO bench;
		ALTER TABLE run_copy OWNER TO bench;
		VACUUM ANALYZE counter});
	return $self;
}

# SQL for the text of the command of job i.
sub _command_of
{
	my ($command, $i) = @_;
	my $text = quote($commands{$command});

	$text =~ s/\{k\}/' || $i % 1000 + 1 || '/g;
	return $text;
}

# Makes a set of jobs, which lie still until distinct_jobs() gives them a time. Options: jobs; command; roles, names of which the jobs are
# shared out to.
sub define
{
	my ($self, $set, %opt) = @_;
	my @roles = @{ $opt{roles} // ['bench'] };
	my $roles = 'ARRAY[' . join(', ', map { quote($_) } @roles) . ']';

	$self->{sets}{$set} = { jobs => $opt{jobs}, seconds_to_alter => 1 };
	$self->{pg}->query(
		"SELECT count(dsched.schedule('$set ' || i, '0 0 0 1 1 * 2099', " . _command_of($opt{command}, 'i')
		  . ", time_zone => 'UTC', username => ($roles)[i % @{[ scalar @roles ]} + 1])) FROM generate_series(1, $opt{jobs}) i");
	return;
}

# The jobs of a set, all due in one second. Returns runs a second, from when they were due to the end of the last. $before is called when
# they have been given their time and it has not come.
sub distinct_jobs
{
	my ($self, $set, $before) = @_;
	my $pg = $self->{pg};
	my $jobs = $self->{sets}{$set}{jobs};

	# The moment has to be after all of them are known to the scheduler, which takes longer on a slow machine.
	for my $attempt (1 .. 4)
	{
		my $from = now();
		my $due = ceil($from + 1 + 1.5 * $attempt * $self->{sets}{$set}{seconds_to_alter});
		my $pattern = strftime('%S %M %H %d %m * %Y', gmtime($due));

		$pg->query("SELECT count(dsched.alter_job(job_id, schedule => '$pattern')) FROM dsched.job WHERE job_name LIKE '$set %'");
		wait_until(sub { !$pg->value('SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL') || now() > $due });
		$self->{sets}{$set}{seconds_to_alter} = now() - $from;
		next if now() > $due - 0.2;
		$before->() if defined $before;
		return $self->_measure("scheduled_for = to_timestamp($due)", $due, $jobs);
	}
	die "$jobs jobs could not be given a time quickly enough\n";
}

# One job, whose backlog is the slots of a backfill: all may run side by side, 50 at a time at most.
sub one_job
{
	my ($self, %opt) = @_;
	my $pg = $self->{pg};

	# Paused: it has no other runs than the backfill's.
	$self->{one}{ $opt{command} } //= $pg->value(
		"SELECT dsched.schedule('one ' || " . quote($opt{command}) . ", '* * * * * *', " . _command_of($opt{command}, '1')
		  . ", time_zone => 'UTC', username => 'bench', overlap => 'allow', active => false)");
	my $job = $self->{one}{ $opt{command} };
	my $first = int(now()) - 300 * 86400 + 100_000 * $self->{backfills}++;
	my $last = $first + $opt{jobs} - 1;

	$pg->wait_for("SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL", 0);
	my $from = now();
	$pg->query("SELECT dsched.backfill($job, to_timestamp($first), to_timestamp($last))");
	return $self->_measure("job_id = $job AND scheduled_for BETWEEN to_timestamp($first) AND to_timestamp($last)", $from, $opt{jobs});
}

sub _measure
{
	my ($self, $which, $from, $jobs) = @_;
	my $session = $self->{pg}->session;
	my $left = $from - now();
	my $cpu = $self->{pg}->cpu;

	select(undef, undef, undef, $left) if $left > 0;
	my $count = 0;
	wait_until(
		sub {
			select(undef, undef, undef, 0.2);
			return ($count = $session->value("SELECT count(*) FROM dsched.run WHERE $which")) >= $jobs;
		},
		120);
	my ($row) = $session->query(
		"SELECT count(*), count(*) FILTER (WHERE status = 'succeeded'), extract(epoch FROM max(finished_at)) - $from,
			count(DISTINCT pid) FROM dsched.run WHERE $which");
	$session->close;
	my ($rows, $succeeded, $seconds, $processes) = @$row;

	die "$rows rows and $succeeded successful runs of $jobs: $which\n" if $rows != $jobs || $succeeded != $jobs;
	return { per_second => $jobs / $seconds, seconds => $seconds, processes => $processes, which => $which, cpu => $self->{pg}->cpu - $cpu };
}

# Is what dsched and pgbench are timed with the same work? One run of each, with the server noting when each transaction committed: how
# many transactions there were, of which size in WAL, how often WAL was flushed, and how long after finished_at (which is written into the row) the
# row was committed and visible.
sub same_work
{
	my ($self, %opt) = @_;
	my $pg = $self->{pg};
	my $one_run = sub {
		my ($table, $code) = @_;
		my $counters = 'SELECT pg_current_wal_insert_lsn() - $$0/0$$::pg_lsn, wal_sync FROM pg_stat_wal';
		my $before;
		my $condition = $code->(sub { ($before) = $pg->query($counters) });
		my $runs = $pg->value("SELECT count(*) FROM $table WHERE $condition");
		# What processes count, those that have become idle report after ten seconds.
		select(undef, undef, undef, 11);
		my ($after) = $pg->query($counters);
		my ($row) = $pg->query(
			"SELECT count(DISTINCT xmin::text), percentile_disc(0.5) WITHIN GROUP (ORDER BY lag), percentile_disc(0.99) WITHIN GROUP (ORDER BY lag)
			FROM (SELECT xmin, extract(epoch FROM pg_xact_commit_timestamp(xmin) - finished_at) * 1000 AS lag FROM $table WHERE $condition) r");

		return {
			runs         => $runs,
			transactions => $row->[0],
			wal_bytes    => ($after->[0] - $before->[0]) / $runs,
			wal_syncs    => ($after->[1] - $before->[1]) / $runs,
			lag_p50      => $row->[1],
			lag_p99      => $row->[2],
		};
	};

	$pg->configure(track_commit_timestamp => 'on', 'dsched.max_executors' => $opt{executors}, synchronous_commit => 'on');
	$pg->restart;
	$pg->wait_for("SELECT bool_and(state = 'ok') FROM dsched.status() WHERE component = 'scheduler'");
	my $dsched = $one_run->('dsched.run', sub { $self->distinct_jobs($opt{command}, $_[0])->{which} });
	my $since = $pg->value('SELECT now()');
	my $pgbench = $one_run->(
		'run_copy',
		sub {
			$_[0]->();
			$self->pgbench(command => $opt{command}, clients => $opt{executors}, seconds => 2, pipeline => 1);
			return "started_at >= '$since'";
		});
	return ($dsched, $pgbench);
}

# The row that dsched writes, with the values that it would have; runs of a backlog share their scheduled time.
my $insert = <<'END' =~ s/\s+/ /gr;
INSERT INTO run_copy (scheduled_for, job_id, trigger_id, attempt, job_name, username, gen, reason, status, slots, started_at,
finished_at, node, epoch, pid, rows, command_tag)
VALUES (:due, :job, 0, 1, 'job12345', 'bench', 1234567890123456, 'schedule', 'succeeded', 1, now(), clock_timestamp(), 'node1', 1,
pg_backend_pid(), 1, 'SELECT')
END

# The same statement and that row in one transaction. Pipelined, all four messages of a transaction go in one round trip.
sub pgbench
{
	my ($self, %opt) = @_;
	my $due = sprintf("'%s+00'::timestamptz", strftime('%Y-%m-%d %H:%M:%S', gmtime));
	my $row = $insert =~ s/:due/$due/r;
	my $statement = $commands{ $opt{command} } =~ s/\{k\}/:k/gr;
	my $script = "\\set job random(1, 9007199254740991)\n\\set k random(1, 1000)\n"
	  . ($opt{pipeline} ? "\\startpipeline\n" : '')
	  . "BEGIN;\n$statement;\n$row;\nCOMMIT;\n"
	  . ($opt{pipeline} ? "\\endpipeline\n" : '');

	return $self->{pg}->pgbench($script, clients => $opt{clients}, seconds => $opt{seconds}, user => 'bench')->{tps};
}

1;
