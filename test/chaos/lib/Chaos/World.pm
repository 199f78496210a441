# The machines of a chaos run: instances of PostgreSQL, members of an etcd, and what is between them.
#
# Each is in a network namespace of its own, on a bridge ("netns"; the caller has to be root in a network and a process namespace made for this: see
# "run"), or all are on the loopback interface, with a process between each instance and etcd that can cut and delay its connections ("loopback").
# Servers run as user postgres. Clients reach them by their sockets, which are files.
#
# Nothing here waits for a server, but for sql(): starting and stopping are begun here, and looked after by tend(), which is called often.

package Chaos::World;

use strict;
use warnings;

use Chaos::Proxy;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(time);

# new(dir, mode, bindir, log => code, instances => 3, members => 3, port => code that gives a free one, standby => 0: the second instance has one)
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, instances => [], members => [], others => [], pids => {} }, $class;

	$self->{is_root} = $> == 0;
	mkdir "$self->{dir}/$_" foreach qw(sockets logs);
	# what the commands of jobs write to, beside the servers' own logs
	open(my $begins, '>', "$self->{dir}/begins") or die "begins: $!";
	chmod 0666, "$self->{dir}/begins";
	$self->_own($self->{dir}, "$self->{dir}/sockets", "$self->{dir}/logs", "$self->{dir}/begins");
	$self->_bridge if $self->{mode} eq 'netns';
	for my $i (1 .. $opt{members})
	{
		push @{ $self->{members} }, $self->_machine("etcd$i", 20 + $i);
	}
	for my $i (1 .. $opt{instances})
	{
		push @{ $self->{instances} }, $self->_machine("node$i", 10 + $i);
	}
	# one whose clock can be stepped
	if ($opt{clock})
	{
		$self->{instances}[0]{preload} = $opt{clock};
		$self->set_clock($self->{instances}[0], 0);
	}
	# one that has a streaming standby, from create_standby() on
	if ($opt{standby})
	{
		$self->{instances}[1]{replicated} = 1;
		push @{ $self->{others} }, $self->_machine('node2s', 30);
	}
	# one that can be filled; its mount is in the namespace of this run
	$self->{instances}[-1]{small_disk} = 1 if $self->{mode} eq 'netns';
	return $self;
}

sub instances { return @{ $_[0]{instances} } }
sub members   { return @{ $_[0]{members} } }

# Servers beside the fleet: a standby, or a former primary.
sub others { return @{ $_[0]{others} } }

sub say_log
{
	my ($self, @what) = @_;

	$self->{log}->(@what);
	return;
}

sub _own
{
	my ($self, @files) = @_;

	return unless $self->{is_root};
	my ($uid, $gid) = (getpwnam('postgres'))[ 2, 3 ];
	chown $uid, $gid, @files;
	return;
}

# Runs a command and dies if it fails.
sub command
{
	my ($self, @command) = @_;

	system(@command) == 0 or die "@command: exit status " . ($? >> 8) . "\n";
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# Machines and the network between them
# ---------------------------------------------------------------------------------------------------------------------

sub _bridge
{
	my ($self) = @_;

	$self->command(qw(ip link set lo up));
	$self->command(qw(ip link add chaos0 type bridge));
	$self->command(qw(ip addr add 10.231.0.1/24 dev chaos0));
	$self->command(qw(ip link set chaos0 up));
	return;
}

sub _machine
{
	my ($self, $name, $number) = @_;
	my $machine = { name => $name, net => $name, dir => "$self->{dir}/$name", log => "$self->{dir}/logs/$name.log", want => 'down', faults => {} };

	mkdir $machine->{dir};
	$self->_own($machine->{dir});
	if ($self->{mode} eq 'netns')
	{
		$machine->{ip} = "10.231.0.$number";
		$machine->{port} = $name =~ /^etcd/ ? 2379 : 5432;
		$machine->{peer_port} = 2380;
		$self->command('ip', 'netns', 'add', $name);
		$self->command('ip', 'link', 'add', "v$name", 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $name);
		$self->command('ip', 'link', 'set', "v$name", 'master', 'chaos0', 'up');
		$self->command('ip', '-n', $name, 'link', 'set', 'lo', 'up');
		$self->command('ip', '-n', $name, 'addr', 'add', "$machine->{ip}/24", 'dev', 'eth0');
		$self->command('ip', '-n', $name, 'link', 'set', 'eth0', 'up');
	}
	else
	{
		$machine->{ip} = '127.0.0.1';
		$machine->{port} = $self->{port}->();
		$machine->{peer_port} = $self->{port}->() if $name =~ /^etcd/;
	}
	return $machine;
}

# Packets that a machine does not get or does not send: a list of { way => 'in' or 'out', peer => a machine, percent => 100 }.
# It replaces the rules that were there; an empty list takes them away.
sub filter
{
	my ($self, $machine, @rules) = @_;
	my $text = "table inet chaos\ndelete table inet chaos\n";

	if (@rules)
	{
		$text .= "table inet chaos {\n";
		foreach my $way (qw(in out))
		{
			$text .= "chain $way {\ntype filter hook ${way}put priority 0;\n";
			foreach my $rule (grep { $_->{way} eq $way } @rules)
			{
				my $random = ($rule->{percent} // 100) < 100 ? "numgen random mod 100 < $rule->{percent} " : '';

				$text .= 'ip ' . ($way eq 'in' ? 'saddr' : 'daddr') . " $rule->{peer}{ip} ${random}drop;\n";
			}
			$text .= "}\n";
		}
		$text .= "}\n";
	}
	open(my $nft, '|-', 'ip', 'netns', 'exec', $machine->{net}, 'nft', '-f', '-') or die "nft: $!";
	print $nft $text;
	close($nft) or die "nft refuses:\n$text";
	return;
}

# A slow link: so many kilobits a second, 0 for as fast as it goes.
sub throttle
{
	my ($self, $machine, $kbit) = @_;

	$self->command('tc', '-n', $machine->{net}, 'qdisc', 'del', 'dev', 'eth0', 'root') if $machine->{slow};
	$self->command('tc', '-n', $machine->{net}, 'qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', 'rate', "${kbit}kbit", 'burst', '3000', 'latency', '5s')
	  if $kbit;
	$machine->{slow} = $kbit;
	return;
}

sub link_state
{
	my ($self, $machine, $state) = @_;

	$self->command('ip', '-n', $machine->{net}, 'link', 'set', 'eth0', $state);
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------

# Starts a program of a machine, as user postgres and where it belongs.
sub _spawn
{
	my ($self, $machine, @command) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		POSIX::setsid();
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $machine->{log});
		POSIX::dup2(fileno(STDOUT), $_) foreach 1, 2;
		$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP PIPE);
		$ENV{LD_PRELOAD} = $machine->{preload} if $machine->{preload};
		$ENV{CHAOS_CLOCK} = "$self->{dir}/clock.$machine->{name}";
		unshift @command, qw(setpriv --reuid=postgres --regid=postgres --init-groups) if $self->{is_root};
		unshift @command, 'ip', 'netns', 'exec', $machine->{net} if $self->{mode} eq 'netns';
		{ exec @command; }
		POSIX::_exit(127);
	}
	$machine->{pid} = $pid;
	$machine->{since} = time();
	return;
}

# Begins what a machine was told to do and could not yet, notes which processes have ended. Called often.
sub tend
{
	my ($self) = @_;

	foreach my $machine ($self->instances, $self->members, $self->others)
	{
		if ($machine->{pid} && waitpid($machine->{pid}, WNOHANG) == $machine->{pid})
		{
			my $status = $? & 127 ? 'signal ' . ($? & 127) : 'status ' . ($? >> 8);

			$machine->{ended} = time();
			$self->say_log("$machine->{name}: has ended ($status)" . ($machine->{want} eq 'up' ? ', is started again' : ''));
			delete $machine->{pid};
		}
		# A server that was killed leaves its lock file and children for a moment, so it is tried again.
		$self->_start($machine) if !$machine->{pid} && $machine->{want} eq 'up' && time() > ($machine->{ended} // 0) + 0.3;
	}
	return;
}

sub _start
{
	my ($self, $machine) = @_;

	$machine->{ended} = time();
	return $self->_spawn($machine, 'etcd', @{ $machine->{arguments} }) if $machine->{name} =~ /^etcd/;
	return $self->_spawn($machine, "$self->{bindir}/postgres", '-D', "$machine->{dir}/data");
}

sub start
{
	my ($self, $machine) = @_;

	$machine->{want} = 'up';
	$self->tend;
	return;
}

# Ends a machine's server with a signal; it stays down until start().
sub stop
{
	my ($self, $machine, $signal) = @_;

	$machine->{want} = 'down';
	kill($signal, $machine->{pid}) if $machine->{pid};
	return;
}

# The state of a process as /proc has it (R, S, D, T, Z), '' if it is gone.
sub state_of
{
	my ($pid) = @_;

	open(my $stat, '<', "/proc/$pid/stat") or return '';
	my $line = <$stat> // '';
	return $line =~ /\) (\S) \d+/ ? $1 : '';
}

# The descendants of a machine's server; with a pattern those whose title matches.
sub processes
{
	my ($self, $machine, $pattern) = @_;
	my (%children, @found);

	return unless $machine->{pid};
	foreach my $path (glob '/proc/[0-9]*/stat')
	{
		open(my $stat, '<', $path) or next;
		my $line = <$stat> // '';
		push @{ $children{$2} }, $1 if $line =~ /^(\d+) \(.*\) [^Z] (\d+)/s;
	}
	my @open = ($machine->{pid});
	while (defined(my $pid = shift @open))
	{
		push @found, @{ $children{$pid} // [] };
		push @open,  @{ $children{$pid} // [] };
	}
	return @found unless defined $pattern;
	return grep { _title($_) =~ $pattern } @found;
}

sub _title
{
	my ($pid) = @_;

	open(my $file, '<', "/proc/$pid/cmdline") or return '';
	local $/;
	my $title = <$file> // '';
	$title =~ tr/\0/ /;
	return $title;
}

# kill -9 of all processes at once, as when the machine is lost.
sub kill_all
{
	my ($self, $machine) = @_;

	$machine->{want} = 'down';
	return unless $machine->{pid};
	kill('STOP', $machine->{pid});		# it makes no more children
	kill('KILL', $self->processes($machine), $machine->{pid});
	return;
}

# Stops every process, as when a virtual machine is suspended.
sub freeze
{
	my ($self, $machine) = @_;

	return unless $machine->{pid};
	for (1 .. 200)
	{
		my @running = grep { state_of($_) =~ /[^TZ]/ } $machine->{pid}, $self->processes($machine);

		last unless @running;
		kill('STOP', @running);
		select(undef, undef, undef, 0.005);
	}
	return;
}

sub thaw
{
	my ($self, $machine) = @_;

	kill('CONT', $self->processes($machine), $machine->{pid}) if $machine->{pid};
	return;
}

# How many microseconds the clock of an instance is ahead; see clock.c.
sub set_clock
{
	my ($self, $instance, $ahead) = @_;
	my $name = "$self->{dir}/clock.$instance->{name}";

	# in place, as it is mapped
	open(my $file, -e $name ? '+<' : '+>', $name) or die "$name: $!";
	syswrite($file, pack('q<q<', $ahead * 1000, $instance->{clock_steps}++)) == 16 or die "$name: $!";
	close($file);
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# etcd
# ---------------------------------------------------------------------------------------------------------------------

sub start_etcd
{
	my ($self) = @_;
	my $peers = join(',', map { "$_->{name}=http://$_->{ip}:$_->{peer_port}" } $self->members);

	foreach my $member ($self->members)
	{
		$member->{url} = "http://$member->{ip}:$member->{port}";
		my $peer = "http://$member->{ip}:$member->{peer_port}";
		$member->{arguments} = [
			'--name', $member->{name}, '--data-dir', "$member->{dir}/data",
			'--listen-client-urls', $member->{url}, '--advertise-client-urls', $member->{url},
			'--listen-peer-urls', $peer, '--initial-advertise-peer-urls', $peer,
			'--initial-cluster', $peers, '--initial-cluster-token', 'chaos',
			'--heartbeat-interval', '50', '--election-timeout', '500', '--log-level', 'error', '--logger', 'zap' ];
		$self->start($member);
	}
	$self->until('etcd is healthy', 30, sub { !grep { !$self->healthy($_) } $self->members });
	return;
}

sub healthy
{
	my ($self, $member) = @_;
	my $answer = HTTP::Tiny->new(timeout => 2)->get("$member->{url}/health");

	return $answer->{success} && $answer->{content} =~ /"health": *"true"/;
}

# Versions before 3.4.42, 3.5.28 and 3.6.9 have a leader that stood still end leases that are alive.
sub etcd_has_lease_fault
{
	my ($self) = @_;

	my ($major, $minor, $patch) = ($self->{etcd_version} //= `etcd --version`) =~ /Version: (\d+)\.(\d+)\.(\d+)/ or return 0;
	my %fixed = (4 => 42, 5 => 28, 6 => 9);

	return $major == 3 && $patch < ($fixed{$minor} // 0);
}

# The answer of a member's gateway; undef if it has none.
sub ask_etcd
{
	my ($self, $member, $path, $body) = @_;
	my $answer = HTTP::Tiny->new(timeout => 2)->post("$member->{url}$path",
		{ content => JSON::PP->new->utf8->encode($body), headers => { 'Content-Type' => 'application/json' } });

	return $answer->{success} ? eval { JSON::PP->new->utf8->decode($answer->{content}) } : undef;
}

# The member that leads, as those that are up and not hurt say.
sub leader
{
	my ($self) = @_;

	foreach my $member (grep { $_->{pid} && !%{ $_->{faults} } } $self->members)
	{
		my $status = $self->ask_etcd($member, '/v3/maintenance/status', {}) // next;

		return $member if ($status->{leader} // '') eq $status->{header}{member_id};
	}
	return undef;
}

# ---------------------------------------------------------------------------------------------------------------------
# Instances
# ---------------------------------------------------------------------------------------------------------------------

sub create_instance
{
	my ($self, $instance, $settings) = @_;
	my @as = $self->{is_root} ? qw(setpriv --reuid=postgres --regid=postgres --init-groups) : ();
	my $data = "$instance->{dir}/data";

	if ($instance->{small_disk})
	{
		$self->command(qw(mount -t tmpfs -o size=500m tmpfs), $instance->{dir});
		$self->_own($instance->{dir});
	}
	my $endpoints = $self->_endpoints($instance);
	my $sockets = $self->_sockets($instance);

	$self->command('sh', '-c', join(' ', @as, "$self->{bindir}/initdb", '-D', $data, '-A', 'trust', '-U', 'postgres', '--no-locale', '-E', 'UTF8', '-N', '-k',
		"> $instance->{log} 2>&1"));
	open(my $conf, '>>', "$data/postgresql.conf") or die "postgresql.conf: $!";
	print $conf <<"END";
cluster_name = '$instance->{name}'
listen_addresses = ''
unix_socket_directories = '$sockets'
port = $instance->{port}
shared_buffers = 16MB
min_wal_size = 32MB
max_wal_size = 64MB
max_connections = 30
max_worker_processes = 20
max_prepared_transactions = 30
autovacuum_naptime = '1d'
restart_after_crash = on
track_commit_timestamp = on
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %b %q%a '
shared_preload_libraries = 'dsched'
dsched.node_name = '$instance->{name}'
dsched.cluster_name = 'chaos'
dsched.etcd_endpoints = '$endpoints'
$settings
END
	print $conf "wal_keep_size = 256MB\nwal_sender_timeout = '4s'\n" if $instance->{replicated};
	if ($instance->{replicated} && $self->{mode} eq 'netns')
	{
		print $conf "listen_addresses = '$instance->{ip}'\n";
		open(my $hba, '>>', "$data/pg_hba.conf") or die "pg_hba.conf: $!";
		print $hba "host replication all 10.231.0.0/24 trust\n";
		close($hba);
	}
	close($conf);
	$self->start($instance);
	return;
}

# What an instance takes for etcd.
sub _endpoints
{
	my ($self, $instance) = @_;

	$instance->{proxy} = Chaos::Proxy->new(map { [ $_->{ip}, $_->{port} ] } $self->members) if $self->{mode} eq 'loopback';
	return join(',', $instance->{proxy} ? $instance->{proxy}->endpoints : map { $_->{url} } $self->members);
}

# The directory of a server's socket. Clients come by a link, sockets/NAME, which leads to whichever server has the name: other processes
# know of no promotion.
sub _sockets
{
	my ($self, $machine) = @_;

	$machine->{sockets} = "$self->{dir}/sockets/at.$machine->{net}";
	mkdir $machine->{sockets} or die "$machine->{sockets}: $!";
	$self->_own($machine->{sockets});
	$self->_lead_to($machine);
	return $machine->{sockets};
}

sub _lead_to
{
	my ($self, $machine) = @_;
	my $link = "$self->{dir}/sockets/$machine->{name}";

	symlink("at.$machine->{net}", "$link.new") && rename("$link.new", $link) or die "$link: $!";
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# A standby
# ---------------------------------------------------------------------------------------------------------------------

# A synchronous streaming standby of the instance that is to have one: what it has acknowledged is on both.
sub create_standby
{
	my ($self) = @_;
	my ($primary) = grep { $_->{replicated} } $self->instances;
	my ($standby) = $self->others;
	my @as = $self->{is_root} ? qw(setpriv --reuid=postgres --regid=postgres --init-groups) : ();
	my $data = "$standby->{dir}/data";

	$self->command('sh', '-c', join(' ', @as, "$self->{bindir}/pg_basebackup", '-h', $primary->{sockets}, '-p', $primary->{port}, '-U', 'postgres',
		'-D', $data, '-X', 'stream', '-c', 'fast', '-N', ">> $standby->{log} 2>&1"));
	$standby->{port} = $primary->{port};
	my $sockets = $self->_sockets($standby);
	my $endpoints = $self->_endpoints($standby);
	my $listen = $self->{mode} eq 'netns' ? $standby->{ip} : '';
	my $host = $self->{mode} eq 'netns' ? $primary->{ip} : $primary->{sockets};
	open(my $conf, '>>', "$data/postgresql.conf") or die "postgresql.conf: $!";
	print $conf <<"END";
listen_addresses = '$listen'
unix_socket_directories = '$sockets'
dsched.etcd_endpoints = '$endpoints'
primary_conninfo = 'host=$host port=$primary->{port} user=postgres application_name=standby connect_timeout=2'
wal_receiver_timeout = '4s'
wal_retrieve_retry_interval = '300ms'
END
	close($conf);
	open(my $signal, '>', "$data/standby.signal") or die "standby.signal: $!";
	close($signal);
	$self->_own("$data/standby.signal");
	$self->start($standby);
	my $streams = sub { ($self->ask($primary, "SELECT state || ' ' || sync_state FROM pg_stat_replication") // '') };
	$self->until('the standby streams', 60, sub { $streams->() =~ /^streaming/ });
	$self->must($primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby'");
	$self->must($primary, 'SELECT pg_reload_conf()');
	$self->until('the standby is synchronous', 60, sub { $streams->() eq 'streaming sync' });
	$primary->{standby} = $standby;
	return;
}

# Begins a promotion.
sub promote
{
	my ($self, $standby) = @_;

	open(my $signal, '>', "$standby->{dir}/data/promote") or die "promote: $!";
	close($signal);
	$self->_own("$standby->{dir}/data/promote");
	kill('USR1', $standby->{pid}) if $standby->{pid};
	return;
}

# From now on the standby of an instance is the instance. The other one becomes NAME~.
sub replace
{
	my ($self, $primary) = @_;
	my $standby = delete $primary->{standby};
	my $name = $primary->{name};

	@{ $self->{instances} } = map { $_ == $primary ? $standby : $_ } $self->instances;
	@{ $self->{others} } = map { $_ == $standby ? $primary : $_ } $self->others;
	$primary->{name} = "$name~";
	$standby->{name} = $name;
	$self->_lead_to($_) foreach $primary, $standby;
	return $standby;
}

# Starts a former primary as a plain server, to be asked what it has.
sub start_plain
{
	my ($self, $machine) = @_;

	open(my $conf, '>>', "$machine->{dir}/data/postgresql.auto.conf") or die "postgresql.auto.conf: $!";
	print $conf "shared_preload_libraries = ''\nsynchronous_standby_names = ''\nlisten_addresses = ''\n";
	close($conf);
	$self->start($machine);
	$self->until("$machine->{name} answers", 60, sub { defined $self->ask($machine, 'SELECT 1') });
	return;
}

# The answer of a query and whether it was given in time (seconds); the rest of the answer is what psql complained of.
sub sql
{
	my ($self, $instance, $sql, $timeout) = @_;
	my $deadline = time() + ($timeout // 10);

	pipe(my $out, my $in) or die "pipe: $!";
	pipe(my $err, my $complain) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		POSIX::dup2(fileno($in), 1);
		POSIX::dup2(fileno($complain), 2);
		$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP PIPE);
		delete $ENV{$_} foreach grep { /^PG/ } keys %ENV;
		{ exec "$self->{bindir}/psql", '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-h', "$self->{dir}/sockets/$instance->{name}", '-p', $instance->{port}, '-U', 'postgres',
			'-d', 'postgres', '-c', $sql; }
		POSIX::_exit(127);
	}
	close($in);
	close($complain);

	my %text = ($out => '', $err => '');
	my $select = IO::Select->new($out, $err);
	while ($select->count && time() < $deadline)
	{
		foreach my $handle ($select->can_read($deadline - time()))
		{
			sysread($handle, $text{$handle}, 65536, length $text{$handle}) or $select->remove($handle);
		}
	}
	kill('KILL', $pid) if $select->count;
	local $?;
	waitpid($pid, 0);
	my $ok = !$select->count && $? == 0;
	chomp $text{$out};
	return ($ok, $text{$out}, $select->count ? 'timed out' : $text{$err});
}

# The answer, or undef.
sub ask
{
	my ($self, @arguments) = @_;
	my ($ok, $out) = $self->sql(@arguments);

	return $ok ? $out : undef;
}

# The answer; dies if there is none.
sub must
{
	my ($self, $instance, $sql, $timeout) = @_;
	my ($ok, $out, $err) = $self->sql($instance, $sql, $timeout // 60);

	die "$instance->{name}: $sql\n$err" unless $ok;
	return $out;
}

# Waits for a state, and goes on tending meanwhile. Dies after so many seconds, unless it may fail.
sub until
{
	my ($self, $what, $seconds, $code, $may_fail) = @_;
	my $deadline = time() + $seconds;

	while (1)
	{
		$self->tend;
		my $answer = $code->();
		return $answer if $answer;
		last if time() > $deadline;
		select(undef, undef, undef, 0.1);
	}
	die "gave up waiting after $seconds s: $what\n" unless $may_fail;
	return 0;
}

# Ends everything that was started here.
sub end
{
	my ($self) = @_;

	foreach my $machine ($self->instances, $self->members, $self->others)
	{
		next unless $machine->{pid};
		$self->kill_all($machine);
	}
	foreach my $machine (grep { $_->{pid} } $self->instances, $self->members, $self->others)
	{
		local $?;
		waitpid($machine->{pid}, 0);
		delete $machine->{pid};
	}
	$_->{proxy}->end foreach grep { $_->{proxy} } $self->instances, $self->others;
	return;
}

1;
