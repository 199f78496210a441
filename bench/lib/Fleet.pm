# What the benches of scale, etcd, failover and fleets need beyond Bench.pm: instances that share an etcd, who owns what, what etcd
# counts, and what single processes cost.
#
#	my $etcd = start_etcd();
#	my @nodes = fleet(3, etcd => $etcd, conf => { 'dsched.max_executors' => 8 });
#	as_worker($nodes[0], q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT 1')});
#	wait_published(1, @nodes);
#	my $owner = settle(@nodes);                      # { partition => name }
#	my $before = etcd_counters($etcd);
#	my $rates = rates($before, etcd_counters($etcd));
#
# An instance alone is fleet(1, ...) without etcd; the same calls work.

package Fleet;

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use Time::HiRes qw(time);

use Bench;

our @EXPORT = qw(
  fleet as_worker wait_published settle etcd_counters rates processes cpu_of_process memory_of_process
  steady_jobs machine_cpu
);

# So many instances with the extension, in the database "bench" of each, and a role "worker" that may own jobs (a superuser's do not run
# in a cluster). Options as of new_instance.
sub fleet
{
	my ($count, %opt) = @_;
	my $prefix = delete $opt{prefix} // 'node';
	my @nodes = map { new_instance("$prefix$_", %opt) } 1 .. $count;

	$_->query('CREATE ROLE worker LOGIN; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker') foreach @nodes;
	return @nodes;
}

sub as_worker
{
	my ($node, $sql) = @_;

	return $node->query("SET SESSION AUTHORIZATION worker; $sql");
}

# Defines jobs "PREFIX 000001 ..." that run each second, each with a jitter of a second, so that their runs spread evenly. Two times of a job
# can be due within a millisecond, so what comes while a run is under way waits, or it would be skipped. One transaction for each 5,000.
sub steady_jobs
{
	my ($node, $first, $last, %opt) = @_;
	my $prefix = $opt{prefix} // 'job';
	my $command = quote($opt{command} // 'SELECT 1');
	my $jitter = $opt{jitter} // '1 second';

	for (my $from = $first; $from <= $last; $from += 5000)
	{
		my $to = Bench::min($from + 4999, $last);

		as_worker($node, "SELECT count(dsched.schedule('$prefix ' || to_char(i, 'FM000000'), '* * * * * *', $command, "
			. "jitter => '$jitter', overlap => 'queue_all')) FROM generate_series($from, $to) i");
	}
	return;
}

# Until each of the nodes has so many jobs and has told etcd, or its scheduler, of all changes.
sub wait_published
{
	my ($count, @nodes) = @_;

	$_->wait_for('SELECT count(*) || \' \' || count(changed) FROM dsched.job', "$count 0", 180) foreach @nodes;
	return;
}

# Waits until these nodes are the members, every partition has an owner among them that has taken it over, all of them agree, and each has
# its share. Returns { partition => name of its owner }; dies after the given seconds.
sub settle
{
	my @nodes = grep { ref } @_;
	my ($seconds) = grep { !ref } @_;
	my $names = join(',', sort map { $_->name } @nodes);
	my ($owners, $seen);

	wait_until(
		sub {
			my $agreed;

			foreach my $node (@nodes)
			{
				my $row = eval {
					($node->query(q{
						SELECT (SELECT string_agg(node, ',' ORDER BY node) FROM dsched.nodes),
							string_agg(partition || '=' || coalesce(owner_node, '?'), ' ' ORDER BY partition),
							count(*) FILTER (WHERE state = 'active') FROM dsched.partitions}))[0];
				};
				my ($members, $all, $active) = map { $_ // '' } @{ $row // [] }[ 0 .. 2 ];
				my $mine = () = $all =~ /=\Q@{[ $node->name ]}\E(?= |$)/g;
				my $partitions = () = $all =~ /=/g;

				$seen = $node->name . ": members $members, $active active, $all";
				return if $members ne $names || $all =~ /\?/ || ($agreed // $all) ne $all;
				return if !$mine || $mine != $active || $mine > POSIX::ceil($partitions / @nodes);
				$agreed = $all;
			}
			return $owners = { $agreed =~ /(\d+)=(\S+)/g };
		},
		$seconds // 120)
	  or die "the fleet did not settle: $seen\n";
	return $owners;
}

# ---------------------------------------------------------------------------------------------------------------------
# etcd's own counters
# ---------------------------------------------------------------------------------------------------------------------

my %counters = (
	txns    => qr/^grpc_server_handled_total\{grpc_code="OK",grpc_method="Txn",grpc_service="etcdserverpb.KV"/,
	ranges  => qr/^grpc_server_handled_total\{grpc_code="OK",grpc_method="Range"/,
	alives  => qr/^grpc_server_msg_received_total\{grpc_method="LeaseKeepAlive"/,
	writes  => qr/^etcd_server_proposals_committed_total$/,
	puts    => qr/^etcd_(?:debugging_)?mvcc_put_total$/,
	fsyncs  => qr/^etcd_disk_wal_fsync_duration_seconds_count$/,
	in      => qr/^etcd_network_client_grpc_received_bytes_total/,
	out     => qr/^etcd_network_client_grpc_sent_bytes_total/,
);

# What etcd has counted up to now, the processor time that it has used, and the time. The members count proposals and puts alike, each of
# them all, so the first one's are taken; requests and bytes of clients are the sum.
sub etcd_counters
{
	my ($etcd) = @_;
	my %now = (time => time(), cpu => cpu_of_process($etcd->pids), map { $_ => 0 } keys %counters);

	foreach my $member (0 .. scalar($etcd->pids) - 1)
	{
		my $metrics = $etcd->metrics($member);

		foreach my $name (keys %counters)
		{
			next if $member > 0 && $name =~ /^(?:writes|puts|fsyncs)$/;
			my %seen = map { $_ => 1 } grep { $_ =~ $counters{$name} } keys %$metrics;

			# older versions have it under "debugging" too
			delete $seen{etcd_debugging_mvcc_put_total} if $seen{etcd_mvcc_put_total};
			$now{$name} += $metrics->{$_} foreach keys %seen;
		}
	}
	return \%now;
}

# Per second, of two readings.
sub rates
{
	my ($before, $after) = @_;
	my $seconds = $after->{time} - $before->{time};

	return { map { $_ => ($after->{$_} - $before->{$_}) / $seconds } grep { $_ ne 'time' } keys %$after };
}

# ---------------------------------------------------------------------------------------------------------------------
# Single processes, from outside
# ---------------------------------------------------------------------------------------------------------------------

# The processes of an instance whose title contains the text, e.g. "dsched scheduler".
sub processes
{
	my ($node, $text) = @_;

	return grep { index(Bench::_slurp("/proc/$_/cmdline"), $text) >= 0 } $node->pids;
}

# Processor time of these processes in seconds: in nanoseconds as the kernel's scheduler counts, as ticks are coarser than what an idle
# process uses.
sub cpu_of_process
{
	my $nanoseconds = 0;

	foreach my $file (map { glob("/proc/$_/task/*/schedstat") } @_)
	{
		$nanoseconds += (split(' ', Bench::_slurp($file)))[0] // 0;
	}
	return $nanoseconds / 1e9;
}

# Bytes of memory that these processes have for themselves: anonymous, shared after a fork by share. Not the server's shared memory,
# which they only look at, and no files.
sub memory_of_process
{
	my $kb = 0;

	$kb += (Bench::_slurp("/proc/$_/smaps_rollup") =~ /^Pss_Anon:\s+(\d+)/m)[0] // 0 foreach @_;
	return $kb * 1024;
}

# Seconds of processor time of all cores so far: [ busy, all ].
sub machine_cpu
{
	my @field = split(' ', Bench::_slurp('/proc/stat') =~ /^cpu +(.*)$/m ? $1 : '');
	my $hz = POSIX::sysconf(POSIX::_SC_CLK_TCK());
	my $all = 0;

	$all += $_ foreach @field[ 0 .. 7 ];
	return [ ($all - $field[3] - $field[4]) / $hz, $all / $hz ];
}

1;
