# The harness of dsched's TAP tests: an etcd, instances of PostgreSQL, ways to hurt both, and judges of what happened.
#
#	use DschedTest;
#	my $etcd = start_etcd();
#	my ($a, $b, $c) = fleet(3, etcd => $etcd);
#	create_extension($a, $b, $c);
#	as_worker($a, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
#	wait_until([ $a, $b, $c ], q{SELECT count(*) FROM dsched.jobs}, 1);
#	kill9_everything($b);
#	...
#	every_slot_once('tick', [ $a, $b, $c ], schedule => '* * * * * *', from => $from, to => $to);
#	account_ok([ $a, $b, $c ]);
#	done_testing();
#
# Rules for tests: wait for a state (wait_until), never for a time; instances are created by this module, so that they and
# etcd are ended with the test, however it ends.

package DschedTest;

use strict;
use warnings;

use Exporter qw(import);
use HTTP::Tiny;
use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64 qw(encode_base64 decode_base64);
use POSIX qw(:sys_wait_h);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(
  start_etcd new_instance new_standby fleet create_extension as_worker start_instance
  wait_until wait_for psql_try
  pids stop_runs_at stopped_executors kill9_instance kill9_everything sigstop_instance sigcont_instance
  append_log_lines effects runs expected_slots
  every_slot_once every_slot_accounted attempts_at_most effects_match_runs
  start_relay timestamp ownership wait_fleet wait_owners wait_past status_of every_slot_of_each_once
  install_account account_ok
);

# Every etcd, relay and instance of this test, for END.
my @etcds;
my @relays;
my @instances;

# A test that is told to end has an END block to run. (No die: some eval would catch it.)
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { exit 143 };

# Runs before the END block of PostgreSQL::Test::Cluster, which cannot stop a stopped server.
END
{
	my $exit_code = $?;

	foreach my $node (@instances)
	{
		sigcont_instance($node) if defined $node->{_pid};
	}
	$_->stop('KILL') foreach @etcds;
	$_->stop foreach @relays;
	$? = $exit_code;
}

# ---------------------------------------------------------------------------------------------------------------------
# Waiting
# ---------------------------------------------------------------------------------------------------------------------

# Calls the code until it returns true, or for $timeout seconds; returns what it returned last.
sub wait_for
{
	my ($code, $timeout) = @_;
	my $deadline = time() + ($timeout // 60);

	while (1)
	{
		my $answer = $code->();
		return $answer if $answer || time() > $deadline;
		select(undef, undef, undef, 0.05);
	}
}

# The answer of a query, or undef if the server did not give one.
sub psql_try
{
	my ($node, $sql, $database) = @_;
	my ($stdout, $stderr) = ('', '');
	my $status = eval {
		$node->psql($database // $node->{dsched_database} // 'postgres', $sql,
			stdout => \$stdout, stderr => \$stderr, timeout => 30);
	};

	return defined $status && $status == 0 ? $stdout : undef;
}

# Waits until the query gives the expected answer (a string, a regular expression or code that judges it) on the node, or on
# each of several. False, with the last answers as diagnostics, after $timeout seconds (60). A server that does not answer counts
# as one that gave another answer.
sub wait_until
{
	my ($nodes, $sql, $expected, $timeout) = @_;
	my %answer;

	$nodes = [$nodes] unless ref $nodes eq 'ARRAY';
	$expected //= 't';
	my $as_expected = wait_for(
		sub {
			foreach my $node (@$nodes)
			{
				my $one = psql_try($node, $sql);

				$answer{ $node->name } = $one // '(no answer)';
				return 0 unless defined $one && _matches($one, $expected);
			}
			return 1;
		},
		$timeout);

	return 1 if $as_expected;
	diag("gave up waiting for: $sql");
	diag("expected: $expected");
	diag("$_: $answer{$_}") foreach sort keys %answer;
	return 0;
}

sub _matches
{
	my ($got, $expected) = @_;

	return $expected->($got) if ref $expected eq 'CODE';
	return $got =~ $expected if ref $expected eq 'Regexp';
	return $got eq $expected;
}

# ---------------------------------------------------------------------------------------------------------------------
# etcd
# ---------------------------------------------------------------------------------------------------------------------

# Starts an etcd and waits until it is healthy. Options: members (1); args, a list of further arguments of the daemon.
# Elections are quick, so that a lease of one second is granted and a lost leader costs little.
sub start_etcd
{
	my (%opt) = @_;
	my $self = bless {
		number  => scalar @etcds,
		members => [],
		args    => $opt{args} // [],
	}, 'DschedTest::Etcd';

	for my $i (0 .. ($opt{members} // 1) - 1)
	{
		push @{ $self->{members} },
		  {
			name   => "etcd$self->{number}_$i",
			client => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(),
			peer   => 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(),
			data   => "$PostgreSQL::Test::Utils::tmp_check/etcd$self->{number}_$i",
			log    => "$PostgreSQL::Test::Utils::log_path/etcd$self->{number}_$i.log",
		  };
	}
	push @etcds, $self;
	$self->start;
	return $self;
}

{

	package DschedTest::Etcd;

	# The members that a call names by their numbers, else all.
	sub _members
	{
		my ($self, @numbers) = @_;

		return @numbers ? @{ $self->{members} }[@numbers] : @{ $self->{members} };
	}

	# What dsched.etcd_endpoints takes.
	sub endpoints
	{
		my ($self, @numbers) = @_;

		return join(',', map { $_->{client} } $self->_members(@numbers));
	}

	sub pid
	{
		my ($self, $number) = @_;

		return $self->{members}[ $number // 0 ]{pid};
	}

	# Starts the members that do not run, waits until they are healthy (or not: wait => 0).
	sub start
	{
		my ($self, @numbers) = @_;

		foreach my $member (grep { !defined $_->{pid} } $self->_members(@numbers))
		{
			my $pid = fork() // die "fork: $!";

			if ($pid == 0)
			{
				POSIX::setsid();
				open(STDIN, '<', '/dev/null');
				open(STDOUT, '>>', $member->{log});
				open(STDERR, '>>', $member->{log});
				# What ties or hijacks the test's own output has no say here.
				POSIX::dup2(fileno(STDOUT), 1);
				POSIX::dup2(fileno(STDERR), 2);
				{ exec $self->_command($member); }
				POSIX::_exit(127);
			}
			$member->{pid} = $pid;
		}
		$self->wait_healthy(@numbers);
		return;
	}

	sub _command
	{
		my ($self, $member) = @_;
		my $peers = join(',', map { "$_->{name}=$_->{peer}" } @{ $self->{members} });

		return (
			'etcd', '--name', $member->{name}, '--data-dir', $member->{data},
			'--listen-client-urls', $member->{client}, '--advertise-client-urls', $member->{client},
			'--listen-peer-urls', $member->{peer}, '--initial-advertise-peer-urls', $member->{peer},
			'--initial-cluster', $peers, '--initial-cluster-token', "dsched$self->{number}",
			'--heartbeat-interval', '20', '--election-timeout', '200',
			'--log-level', 'error', '--logger', 'zap', @{ $self->{args} });
	}

	sub wait_healthy
	{
		my ($self, @numbers) = @_;

		foreach my $member ($self->_members(@numbers))
		{
			my $http = HTTP::Tiny->new(timeout => 2, keep_alive => 0);

			DschedTest::wait_for(
				sub {
					my $answer = $http->get("$member->{client}/health");

					return $answer->{success} && $answer->{content} =~ /"health": *"true"/;
				},
				30)
			  or die "$member->{name} did not become healthy, see $member->{log}";
		}
		return;
	}

	# Ends members with a signal (TERM) and waits until they are gone. Data and ports stay.
	sub stop
	{
		my ($self, $signal, @numbers) = @_;

		foreach my $member (grep { defined $_->{pid} } $self->_members(@numbers))
		{
			kill($signal // 'TERM', $member->{pid});
			kill('CONT', $member->{pid});
			local $?;
			waitpid($member->{pid}, 0);
			delete $member->{pid};
		}
		return;
	}

	sub sigstop
	{
		my ($self, @numbers) = @_;

		foreach my $member ($self->_members(@numbers))
		{
			kill('STOP', $member->{pid});
			DschedTest::wait_for(sub { DschedTest::_state($member->{pid}) eq 'T' });
		}
		return;
	}

	sub sigcont
	{
		my ($self, @numbers) = @_;

		kill('CONT', map { $_->{pid} } $self->_members(@numbers));
		return;
	}

	sub restart
	{
		my ($self, @numbers) = @_;

		$self->stop('TERM', @numbers);
		$self->start(@numbers);
		return;
	}

	# An etcd that lost everything and comes back empty at the same addresses.
	sub wipe
	{
		my ($self) = @_;

		$self->stop('KILL');
		File::Path::remove_tree($_->{data}) foreach @{ $self->{members} };
		$self->start;
		return;
	}

	# A copy of all that etcd has now, in a file; restore() takes etcd back to it, at the same addresses; bring_back() undoes that.
	sub snapshot
	{
		my ($self, $name) = @_;
		my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.snapshot";

		$self->ctl('snapshot', 'save', $file);
		return $file;
	}

	sub restore
	{
		my ($self, $file) = @_;
		my $peers = join(',', map { "$_->{name}=$_->{peer}" } @{ $self->{members} });

		$self->stop('KILL');
		foreach my $member (@{ $self->{members} })
		{
			File::Path::remove_tree("$member->{data}.former");
			rename($member->{data}, "$member->{data}.former") || die "$member->{data}: $!";
			local $ENV{ETCDCTL_API} = 3;
			my $output = '';
			IPC::Run::run([ 'etcdctl', 'snapshot', 'restore', $file, '--name', $member->{name}, '--data-dir', $member->{data},
				'--initial-cluster', $peers, '--initial-cluster-token', "dsched$self->{number}",
				'--initial-advertise-peer-urls', $member->{peer} ], '>', \$output, '2>&1')
			  or die "etcdctl snapshot restore: $output";
		}
		$self->start;
		return;
	}

	sub bring_back
	{
		my ($self) = @_;

		$self->stop('KILL');
		foreach my $member (@{ $self->{members} })
		{
			File::Path::remove_tree($member->{data});
			rename("$member->{data}.former", $member->{data}) || die "$member->{data}: $!";
		}
		$self->start;
		return;
	}

	# The number of the member that leads, as the running ones say; undef while there is none. What was asked of a leader that
	# died hangs in etcd for seconds: wait for the new one first, unless that is what the test is about.
	sub leader
	{
		my ($self) = @_;

		for my $i (grep { defined $self->{members}[$_]{pid} } 0 .. $#{ $self->{members} })
		{
			my $status = eval { $self->_post_to($self->{members}[$i], '/v3/maintenance/status', {}) } // {};

			return $i if defined $status->{leader} && $status->{leader} eq $status->{header}{member_id};
		}
		return undef;
	}

	# Runs etcdctl, pointed at the members that run, and returns its output; dies if it fails.
	sub ctl
	{
		my ($self, @args) = @_;
		my ($stdout, $stderr) = ('', '');
		my $endpoints = join(',', map { $_->{client} } grep { defined $_->{pid} } @{ $self->{members} });

		local $ENV{ETCDCTL_API} = 3;
		IPC::Run::run([ 'etcdctl', '--endpoints', $endpoints, @args ], '>', \$stdout, '2>', \$stderr)
		  or die "etcdctl @args: $stderr";
		chomp $stdout;
		return $stdout;
	}

	# All keys below a prefix with their values: { key => value }, or in list context the sorted keys.
	sub keys
	{
		my ($self, $prefix) = @_;
		my $end = $prefix;

		if ($end eq '')
		{
			$prefix = $end = "\0";
		}
		else
		{
			substr($end, -1) = chr(ord(substr($end, -1)) + 1);
		}
		my %value =
		  map { ($_->{key} => $_->{value}) } $self->_range($prefix, $end);

		return wantarray ? sort(CORE::keys(%value)) : \%value;
	}

	# The value of one key, parsed; undef if there is no such key.
	sub get_json
	{
		my ($self, $key) = @_;
		my ($kv) = $self->_range($key);

		return defined $kv ? JSON::PP->new->utf8->decode($kv->{value}) : undef;
	}

	# The key with its value and revisions as etcd gives them: { key, value, mod_revision, create_revision, version, lease }
	sub get
	{
		my ($self, $key) = @_;
		my ($kv) = $self->_range($key);

		return $kv;
	}

	sub _range
	{
		my ($self, $key, $end) = @_;
		my %body = (key => MIME::Base64::encode_base64($key, ''));

		$body{range_end} = MIME::Base64::encode_base64($end, '') if defined $end;
		my $answer = $self->post('/v3/kv/range', \%body);
		my @kvs    = @{ $answer->{kvs} // [] };

		foreach my $kv (@kvs)
		{
			$kv->{$_} = MIME::Base64::decode_base64($kv->{$_} // '') foreach qw(key value);
		}
		return @kvs;
	}

	# One request of the JSON gateway to the first running member that answers; dies if none does.
	sub post
	{
		my ($self, $path, $body) = @_;

		foreach my $member (grep { defined $_->{pid} } @{ $self->{members} })
		{
			my $answer = eval { $self->_post_to($member, $path, $body) };

			return $answer if defined $answer;
		}
		die "etcd $path: " . ($@ || 'no member runs');
	}

	sub _post_to
	{
		my ($self, $member, $path, $body) = @_;
		my $answer = HTTP::Tiny->new(timeout => 10)->post("$member->{client}$path",
			{ content => JSON::PP->new->utf8->encode($body), headers => { 'Content-Type' => 'application/json' } });

		die "$member->{name} answers $answer->{status} $answer->{content}" unless $answer->{success};
		return JSON::PP->new->utf8->decode($answer->{content});
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# A way to etcd that can be cut
# ---------------------------------------------------------------------------------------------------------------------

# A process that passes TCP connections on to an etcd. An instance that has its endpoints as dsched.etcd_endpoints can be cut off
# alone: cut() makes everything that is sent disappear without an error, as a firewall does; mend() lets it through again.
sub start_relay
{
	my ($etcd) = @_;
	my ($target) = $etcd->endpoints(0) =~ m{//(.*)};
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', ReuseAddr => 1) // die "listen: $!";
	my $self = bless { port => $listener->sockport }, 'DschedTest::Relay';

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		$SIG{PIPE} = 'IGNORE';
		$SIG{TERM} = $SIG{INT} = $SIG{HUP} = 'DEFAULT';
		open(STDIN, '<', '/dev/null');
		POSIX::dup2(fileno(STDIN), $_) foreach 1, 2;
		eval { _relay($listener, $target) };
		POSIX::_exit(1);
	}
	push @relays, $self;
	return $self;
}

sub _relay
{
	my ($listener, $target) = @_;
	my $select = IO::Select->new($listener);
	my %peer;

	while (1)
	{
		foreach my $from ($select->can_read)
		{
			my $data;

			if ($from == $listener)
			{
				my $client = $listener->accept // next;
				my $server = IO::Socket::INET->new(PeerAddr => $target) // next;

				@peer{ $client, $server } = ($server, $client);
				$select->add($client, $server);
				next;
			}
			my $to = $peer{$from} // next;
			next if sysread($from, $data, 65536) && print {$to} $data and $to->flush;
			$select->remove($from, $to);
			delete @peer{ $from, $to };
			close($from);
			close($to);
		}
	}
}

{

	package DschedTest::Relay;

	sub endpoints
	{
		my ($self) = @_;

		return "http://127.0.0.1:$self->{port}";
	}

	sub cut
	{
		my ($self) = @_;

		kill('STOP', $self->{pid});
		DschedTest::wait_for(sub { DschedTest::_state($self->{pid}) eq 'T' });
		return;
	}

	sub mend
	{
		my ($self) = @_;

		kill('CONT', $self->{pid});
		return;
	}

	sub stop
	{
		my ($self) = @_;

		kill('KILL', $self->{pid});
		local $?;
		waitpid($self->{pid}, 0);
		return;
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# Instances
# ---------------------------------------------------------------------------------------------------------------------

# A running instance (PostgreSQL::Test::Cluster). Options:
#	etcd             what start_etcd gave; without it the instance is a standalone one
#	conf             more lines for postgresql.conf, after and above those made here
#	preload          0: a server without dsched
#	start            0: created only
#	cluster_name     of dsched (default "test")
#	allows_streaming, extra  as for init()
sub new_instance
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	push @instances, $node;
	$node->init(
		allows_streaming => $opt{allows_streaming} // 0,
		extra            => [ '--no-locale', '--encoding=UTF8', @{ $opt{extra} // [] } ]);
	# Unlike what init() wrote: the tests are about crashes, so the server has to be as safe as a real one, and
	# it restarts after the crash of a backend. It listens on TCP as other processes of the test may not know its socket.
	$node->append_conf(
		'postgresql.conf', qq{
fsync = on
restart_after_crash = on
wal_level = replica
shared_buffers = 16MB
min_wal_size = 32MB
max_wal_size = 128MB
max_connections = 40
max_worker_processes = 20
max_prepared_transactions = 20
autovacuum_naptime = '1d'
log_statement = 'mod'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %b %q%a '
});
	if ($opt{preload} // 1)
	{
		my $cluster_name = $opt{cluster_name} // 'test';

		$node->append_conf(
			'postgresql.conf', qq{
shared_preload_libraries = 'dsched'
dsched.node_name = '$name'
dsched.cluster_name = '$cluster_name'
});
		$node->append_conf(
			'postgresql.conf', qq{
dsched.etcd_endpoints = '} . $opt{etcd}->endpoints . qq{'
dsched.lease_ttl = '3s'
}) if $opt{etcd};
	}
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	start_instance($node) if $opt{start} // 1;
	return $node;
}

# A running streaming standby of an instance, from a backup of it ($primary->backup($backup)); it has its configuration but for what is
# given as conf.
sub new_standby
{
	my ($name, $primary, $backup, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	push @instances, $node;
	$node->init_from_backup($primary, $backup, has_streaming => 1);
	$node->{dsched_database} = $primary->{dsched_database};
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	start_instance($node);
	return $node;
}

# Several instances of one cluster: fleet(3, etcd => $etcd) are node1, node2 and node3.
sub fleet
{
	my ($count, %opt) = @_;

	return map { new_instance("node$_", %opt) } 1 .. $count;
}

# Starts an instance; if it was killed, what it left (its lock file, its shared memory while a child still ends) may be in the way
# for a moment.
sub start_instance
{
	my ($node) = @_;

	wait_for(sub { $node->start(fail_ok => 1) }, 60) or die $node->name . ' does not start';
	return;
}

# Creates the extension, the judge of slots (account_ok) that notes all definitions from here on, the means to witness runs (below) and the role "worker", which may schedule, on each node, in its database
# "postgres" or the one given as { database => 'name' }, which is created.
sub create_extension
{
	my (@nodes) = @_;
	my %opt = ref $nodes[-1] eq 'HASH' ? %{ pop @nodes } : ();
	my $database = $opt{database} // 'postgres';

	foreach my $node (@nodes)
	{
		$node->{dsched_database} = $database;
		$node->safe_psql('postgres', "CREATE DATABASE $database") if $database ne 'postgres';
		# The extension last, and in one piece: the instance may be given jobs at once.
		$node->safe_psql($database, 'CREATE ROLE worker LOGIN');
		install_witness($node, $database);
		$node->safe_psql($database, "SET log_statement = 'none'; BEGIN; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker; "
			. _account_script() . 'SELECT account.start(); COMMIT');
	}
	return;
}

# safe_psql as the role "worker": superusers' jobs do not run in a cluster without a key file.
sub as_worker
{
	my ($node, $sql) = @_;

	return $node->safe_psql($node->{dsched_database} // 'postgres', "SET SESSION AUTHORIZATION worker; $sql");
}

# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------

# The state of a process as /proc has it (R, S, D, T, Z), '' if it is gone.
sub _state
{
	my ($pid) = @_;

	open(my $stat, '<', "/proc/$pid/stat") or return '';
	my $line = <$stat> // '';
	return $line =~ /\) (\S) \d+/ ? $1 : '';
}

# All descendants of a process, by their parents.
sub _descendants
{
	my ($root) = @_;
	my (%children, @found);

	foreach my $path (glob '/proc/[0-9]*/stat')
	{
		open(my $stat, '<', $path) or next;
		my $line = <$stat> // '';
		push @{ $children{$2} }, $1 if $line =~ /^(\d+) \(.*\) [^Z] (\d+)/s;
	}
	my @open = ($root);
	while (defined(my $pid = shift @open))
	{
		push @found, @{ $children{$pid} // [] };
		push @open,  @{ $children{$pid} // [] };
	}
	return @found;
}

# The processes of an instance whose title matches: pids($node, 'dsched scheduler'), or just 'scheduler'; without a pattern
# all but the postmaster. Asks the operating system, so it works on a stopped server, too.
sub pids
{
	my ($node, $kind) = @_;
	my @found;

	foreach my $pid (_descendants($node->{_pid}))
	{
		open(my $cmdline, '<', "/proc/$pid/cmdline") or next;
		local $/;
		my $title = <$cmdline> // '';
		push @found, $pid if !defined $kind || $title =~ /\Q$kind\E/;
	}
	return @found;
}

# Executors that come to one of these points of strict delivery from now on stop there, as by SIGSTOP; '': none does. See dsched.test_stop_at.
sub stop_runs_at
{
	my ($points, @nodes) = @_;

	foreach my $node (@nodes)
	{
		$node->safe_psql('postgres', "ALTER SYSTEM SET dsched.test_stop_at = '$points'");
		$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	}
	return;
}

# Those that have.
sub stopped_executors
{
	my ($node) = @_;

	return grep { _state($_) eq 'T' } pids($node, 'dsched executor');
}

# kill -9 of the postmaster alone: its children notice and end by themselves. Returns their pids.
sub kill9_instance
{
	my ($node) = @_;
	my @children = pids($node);

	$node->kill9;
	return @children;
}

# kill -9 of every process of the instance, as when the machine is lost: none has time to do anything.
sub kill9_everything
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};

	# A stopped postmaster makes no more children.
	kill('STOP', $postmaster);
	wait_for(sub { _state($postmaster) =~ /^[TZ]?$/ });
	my @pids = (_descendants($postmaster), $postmaster);
	kill('KILL', @pids);
	wait_for(sub { !grep { _state($_) !~ /^Z?$/ } @pids }) or die 'some processes survived kill -9';
	$node->{_pid} = undef;
	return;
}

# Stops every process of the instance, as when a virtual machine is suspended (clocks go on).
sub sigstop_instance
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};

	kill('STOP', $postmaster);
	# Until no process is left that was made while the others were being stopped.
	wait_for(
		sub {
			my @running = grep { _state($_) =~ /[^TZ]/ } $postmaster, _descendants($postmaster);

			kill('STOP', @running);
			return !@running;
		}) or die 'could not stop all processes';
	return;
}

sub sigcont_instance
{
	my ($node) = @_;

	kill('CONT', _descendants($node->{_pid}), $node->{_pid});
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# A fleet: who is in it, who owns what, how far its jobs are
# ---------------------------------------------------------------------------------------------------------------------

# A moment (now, or as Perl's time() gives it) as slots are written.
sub timestamp
{
	my $time = shift // time();

	return POSIX::strftime('%Y-%m-%dT%H:%M:%S', gmtime(int $time)) . sprintf('.%06d', 1e6 * ($time - int $time));
}

# The partitions of the place any as an instance sees them: "0=node1@123 1=node3@125 ..."; in list context pairs: (0 => 'node1', ...).
sub ownership
{
	my ($node) = @_;
	my $all = psql_try(
		$node, q{
		SELECT string_agg(partition || '=' || coalesce(owner_node, '') || '@' || coalesce(epoch, 0), ' ' ORDER BY partition)
		FROM dsched.partitions WHERE place = 'any'}) // '';

	return wantarray ? map { /^(\d+)=(.*)@/ } split(/ /, $all) : $all;
}

# Waits until these instances agree that they are the members, that each partition has one of them as its owner and that each has its
# share, which it has taken over. Returns what ownership() says, or '' with diagnostics. The names of the members can be given, if they
# are others.
sub wait_fleet
{
	my ($nodes, %opt) = @_;
	my @names = sort @{ $opt{names} // [ map { $_->name } @$nodes ] };
	my ($all, %seen);

	my $settled = wait_for(
		sub {
			my %owned;

			%seen = ();
			foreach my $node (@$nodes)
			{
				my $members = psql_try($node, q{SELECT string_agg(node, ',' ORDER BY node) FROM dsched.nodes}) // '(no answer)';
				my $behind = psql_try($node,
					q{SELECT count(*) FROM dsched.partitions JOIN dsched.nodes ON node = owner_node
					  WHERE this_instance AND state IS DISTINCT FROM 'active'}) // '(no answer)';

				$seen{ $node->name } = "members $members, $behind not taken over, " . ownership($node);
				return 0 if $members ne join(',', @names) || $behind ne '0';
			}
			return 0 if grep { ownership($_) ne ownership($nodes->[0]) } @$nodes;
			my %owner = ownership($nodes->[0]);
			$owned{$_}++ foreach values %owner;
			my $share = int((keys(%owner) + $#names) / @names);
			return 0 unless %owner;
			return 0 if grep { !$owned{$_} || $owned{$_} > $share } @names;
			return 0 if keys %owned != @names;
			return $all = ownership($nodes->[0]);
		},
		$opt{timeout});

	return $all if $settled;
	diag('gave up waiting for a settled fleet of ' . join(', ', @names));
	diag("$_: $seen{$_}") foreach sort keys %seen;
	return '';
}

# Waits until, as the instance sees it, all partitions are owned by members with these names. Returns the seconds that it took.
sub wait_owners
{
	my ($node, $names, $timeout) = @_;
	my $list = join(',', map { "'$_'" } @$names);
	my $since = time();

	return wait_until($node,
		"SELECT count(*) > 0 AND bool_and(coalesce(owner_node, '') IN ($list)) FROM dsched.partitions WHERE place = 'any'", 't', $timeout)
	  && time() - $since;
}

# What dsched.status() says of one component: "problem|detail|hint".
sub status_of
{
	my ($node, $component) = @_;

	return psql_try($node, "SELECT concat_ws('|', state, detail, hint) FROM dsched.status() WHERE component = '$component'") // '';
}

# Waits until each of $count jobs whose name matches has committed the effect of a slot later than $time on one of the instances.
sub wait_past
{
	my ($pattern, $count, $nodes, $time, $timeout) = @_;
	my %past;

	my $done = wait_for(
		sub {
			%past = ();
			foreach my $node (@$nodes)
			{
				$past{$_} = 1 foreach split /\n/, psql_try($node,
					"SELECT DISTINCT job FROM dsched_test.effects WHERE job ~ '$pattern' AND trigger_id = 0 AND slot > '$time'") // '';
			}
			return keys %past >= $count;
		},
		$timeout);

	diag("gave up waiting for slots after $time of $count jobs, these have: " . join(' ', sort keys %past)) unless $done;
	return $done;
}

# ---------------------------------------------------------------------------------------------------------------------
# Witnesses of runs: what a job's command calls
# ---------------------------------------------------------------------------------------------------------------------
#
# dsched_test.log(phase)   appends a line to one file that all instances of the test share: node|job|slot|trigger|attempt|phase. It is
#                          outside every catalog and transaction: a line proves that an attempt reached this point, also of
#                          one that was rolled back or killed later. One write with O_APPEND: the order of the lines is the
#                          order of the events on this machine.
# dsched_test.effect()     inserts a row into this instance's dsched_test.effects, in the job's transaction: a row proves that
#                          an attempt's effects were committed.
#
# Neither asks dsched's tables, only dsched.current_run(). Slots are UTC, 'YYYY-MM-DDTHH:MM:SS.ffffff'.

my $slot_format = q{YYYY-MM-DD"T"HH24:MI:SS.US};

sub _log_file
{
	return "$PostgreSQL::Test::Utils::log_path/witness.log";
}

sub install_witness
{
	my ($node, $database) = @_;
	my $name = $node->name;
	my $file = _log_file();

	$node->safe_psql(
		$database, qq{
CREATE SCHEMA dsched_test;
GRANT USAGE ON SCHEMA dsched_test TO PUBLIC;
CREATE TABLE dsched_test.effects (node text, job text, slot text, trigger_id bigint, attempt int, at timestamptz);
GRANT SELECT ON dsched_test.effects TO PUBLIC;

-- The fields of the run that calls; late-bound, so that a server without dsched can have this, too.
CREATE FUNCTION dsched_test.this_run(OUT job text, OUT slot text, OUT trigger_id bigint, OUT attempt int) LANGUAGE plpgsql AS \$f\$
DECLARE
	r jsonb;
BEGIN
	EXECUTE 'SELECT to_jsonb(r) FROM dsched.current_run() r' INTO r;
	job := r->>'job_name';
	slot := to_char((r->>'scheduled_for')::timestamptz AT TIME ZONE 'UTC', '$slot_format');
	trigger_id := (r->>'trigger_id')::bigint;
	attempt := (r->>'attempt')::int;
END \$f\$;

-- The functions that write are the superuser's: COPY to a program is for superusers.
CREATE FUNCTION dsched_test.append(line text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS \$f\$
BEGIN
	EXECUTE format('COPY (SELECT %L::text) TO PROGRAM %L', line, 'cat >> $file');
END \$f\$;
CREATE FUNCTION dsched_test.insert_effect(job text, slot text, trigger_id bigint, attempt int) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS \$f\$
	INSERT INTO dsched_test.effects VALUES ('$name', job, slot, trigger_id, attempt, clock_timestamp())
\$f\$;

CREATE FUNCTION dsched_test.log(phase text DEFAULT 'run') RETURNS void LANGUAGE sql AS \$f\$
	SELECT dsched_test.append(concat_ws('|', '$name', job, slot, trigger_id, attempt, phase)) FROM dsched_test.this_run()
\$f\$;
CREATE FUNCTION dsched_test.effect() RETURNS void LANGUAGE sql AS \$f\$
	SELECT dsched_test.insert_effect(job, slot, trigger_id, attempt) FROM dsched_test.this_run()
\$f\$;
});
	return;
}

# The lines of the shared log, oldest first, as hashes; only those with the values given: append_log_lines(job => 'tick').
sub append_log_lines
{
	my (%only) = @_;
	my @lines;

	open(my $log, '<', _log_file()) or return;
	while (my $line = <$log>)
	{
		my %entry;

		chomp $line;
		@entry{qw(node job slot trigger_id attempt phase)} = split /\|/, $line, -1;
		push @lines, \%entry unless grep { $entry{$_} ne $only{$_} } keys %only;
	}
	return @lines;
}

sub _rows
{
	my ($nodes, $columns, $sql) = @_;
	my @rows;

	foreach my $node (@$nodes)
	{
		foreach my $line (split /\n/, $node->safe_psql($node->{dsched_database} // 'postgres', $sql))
		{
			my %row = (on => $node->name);

			@row{@$columns} = split /\|/, $line, -1;
			push @rows, \%row;
		}
	}
	return @rows;
}

# The committed effects of a job's scheduled runs (not of triggers) on the instances, which must be up: a killed one has to be started again first.
sub effects
{
	my ($job, $nodes) = @_;

	return _rows($nodes, [qw(node slot attempt)],
		"SELECT node, slot, attempt FROM dsched_test.effects WHERE job = '$job' AND trigger_id = 0 ORDER BY slot, attempt");
}

# What the instances recorded of a job's scheduled runs (not of triggers). A row can stand for the slots from "slot" to "last_slot".
sub runs
{
	my ($job, $nodes) = @_;

	return _rows($nodes, [qw(node slot last_slot attempt status reason epoch)],
		"SELECT node, to_char(scheduled_for AT TIME ZONE 'UTC', '$slot_format'),
		        to_char(coalesce(last_slot, scheduled_for) AT TIME ZONE 'UTC', '$slot_format'), attempt, status, reason, epoch
		 FROM dsched.run WHERE job_name = '$job' AND trigger_id = 0 ORDER BY scheduled_for, attempt");
}

# The slots of a schedule after "from" and up to and with "to", as dsched.preview computes them on this node.
# The bound of 100000 slots is far above what a test should have.
sub expected_slots
{
	my ($node, %opt) = @_;
	my $time_zone = $opt{time_zone} // 'UTC';
	my $rows = $node->safe_psql($node->{dsched_database} // 'postgres',
		"SELECT to_char(slot AT TIME ZONE 'UTC', '$slot_format')
		 FROM dsched.preview('$opt{schedule}', '$time_zone', '$opt{from}',
		        least(100000, 10 + ceil(extract(epoch FROM timestamptz '$opt{to}' - timestamptz '$opt{from}')))::int) slot
		 WHERE slot <= '$opt{to}'");

	return split /\n/, $rows;
}

# ---------------------------------------------------------------------------------------------------------------------
# Judges. Each is one test (ok or not ok) that names what is wrong. Options of those that need the expected slots:
# slots => [...], or schedule, from, to (and time_zone) for expected_slots.
# ---------------------------------------------------------------------------------------------------------------------

sub _slots
{
	my ($nodes, $opt) = @_;

	return @{ $opt->{slots} // [ expected_slots($nodes->[0], %$opt) ] };
}

sub _verdict
{
	my ($name, @wrong) = @_;

	return 1 if ok(!@wrong, $name);
	diag($_) foreach @wrong > 20 ? (@wrong[ 0 .. 19 ], '... and ' . (@wrong - 20) . ' more') : @wrong;
	return 0;
}

sub _by_slot
{
	my (%by_slot);

	push @{ $by_slot{ $_->{slot} } }, $_ foreach @_;
	return \%by_slot;
}

# Proves of committed work, for a job whose command calls dsched_test.effect() once and whose runs succeed:
#	- every expected slot has exactly one effect, counted over all the instances given;
#	- there is no effect of any other slot;
#	- every expected slot has exactly one run recorded as succeeded, on the instance that has the effect.
# It says nothing of attempts that were rolled back: see attempts_at_most. It is only as good as the list of instances: give all
# that ever ran, alive again.
sub every_slot_once
{
	my ($job, $nodes, %opt) = @_;
	my @slots     = _slots($nodes, \%opt);
	my %expected  = map { ($_ => 1) } @slots;
	my $effects   = _by_slot(effects($job, $nodes));
	my $succeeded = _by_slot(grep { $_->{status} eq 'succeeded' } runs($job, $nodes));
	my @wrong;

	push @wrong, 'no slot is expected: nothing was proved' unless @slots;
	foreach my $slot (@slots)
	{
		my @effects   = @{ $effects->{$slot}   // [] };
		my @succeeded = @{ $succeeded->{$slot} // [] };

		push @wrong, "slot $slot has " . @effects . ' effects (' . join(', ', map { $_->{on} } @effects) . ')' if @effects != 1;
		push @wrong, "slot $slot has " . @succeeded . ' succeeded runs (' . join(', ', map { $_->{on} } @succeeded) . ')'
		  if @succeeded != 1;
		push @wrong, "slot $slot was recorded by $succeeded[0]{on}, its effect is on $effects[0]{on}"
		  if @effects == 1 && @succeeded == 1 && $effects[0]{on} ne $succeeded[0]{on};
	}
	# Slots outside the window that was asked for may exist before and after it, but not between.
	foreach my $slot (sort keys %$effects)
	{
		push @wrong, "there is an effect of slot $slot, which is not in the schedule"
		  if @slots && !$expected{$slot} && $slot gt $slots[0] && $slot lt $slots[-1];
	}
	return _verdict($opt{name} // "every slot of $job ran exactly once (" . @slots . ' slots)', @wrong);
}

# Proves that nothing was missed, whatever came of it: every expected slot has at least one recorded outcome on some instance, and
# at most one that ends it for good: succeeded, or passed over by a policy (skipped, missed), where one row can stand for a
# range of slots. No attempt is recorded twice.
sub every_slot_accounted
{
	my ($job, $nodes, %opt) = @_;
	my @runs  = runs($job, $nodes);
	my @slots = _slots($nodes, \%opt);
	my @wrong;

	push @wrong, 'no slot is expected: nothing was proved' unless @slots;
	foreach my $slot (@slots)
	{
		my @its   = grep { $_->{slot} le $slot && $slot le $_->{last_slot} } @runs;
		my @final = grep { $_->{status} =~ /^(succeeded|skipped|missed)$/ } @its;
		my %attempt;

		push @wrong, "slot $slot has no outcome" unless @its;
		push @wrong, "slot $slot has several outcomes: " . join(', ', map { "$_->{status} on $_->{on}" } @final) if @final > 1;
		push @{ $attempt{ $_->{attempt} } }, $_->{on} foreach @its;
		foreach my $number (grep { @{ $attempt{$_} } > 1 } sort keys %attempt)
		{
			push @wrong, "slot $slot has attempt $number more than once: " . join(', ', @{ $attempt{$number} });
		}
	}
	return _verdict($opt{name} // "every slot of $job has one outcome (" . @slots . ' slots)', @wrong);
}

# Proves from the shared log, so also of attempts that left nothing in any table, that no slot (nor trigger) of the job was begun more often
# than $most times. The job's command must call dsched_test.log('begin') first. With $most = 1: it was never repeated, as
# at_most_once promises.
sub attempts_at_most
{
	my ($job, $most, $name) = @_;
	my (%begun, @wrong);

	push @{ $begun{"$_->{slot}, trigger $_->{trigger_id},"} }, $_ foreach append_log_lines(job => $job, phase => 'begin');

	push @wrong, "the log has no line of $job: nothing was proved" unless %begun;
	foreach my $slot (grep { @{ $begun{$_} } > $most } sort keys %begun)
	{
		push @wrong, "slot $slot was begun on " . join(', then ', map { "$_->{node} (attempt $_->{attempt})" } @{ $begun{$slot} });
	}
	return _verdict($name // "no slot of $job was begun more than $most times", @wrong);
}

# Proves that record and effect commit together: on each instance, the slots with an effect are those with a run recorded as
# succeeded there. Needs no schedule, holds at any time, also after crashes.
sub effects_match_runs
{
	my ($job, $nodes, $name) = @_;
	my (%effect, %run, @wrong);

	$effect{"$_->{on} $_->{slot}"}++ foreach effects($job, $nodes);
	$run{"$_->{on} $_->{slot}"}++ foreach grep { $_->{status} eq 'succeeded' } runs($job, $nodes);
	foreach my $key (sort keys %{ { %effect, %run } })
	{
		my ($effects, $runs) = ($effect{$key} // 0, $run{$key} // 0);

		push @wrong, "$key: $effects effects, $runs succeeded runs" if $effects != $runs;
	}
	push @wrong, 'there is neither effect nor run: nothing was proved' unless %effect || %run;
	return _verdict($name // "effects of $job and records of its runs agree", @wrong);
}

# every_slot_once for all the jobs with the names given, in a few queries; and it can allow what at_least_once allows. Options: slots,
# or schedule, from, to, as there; may_repeat, a list of { node, since, until }: what this instance committed between these moments
# (Perl's time()) may have been lost to the others, so a slot may have one more effect elsewhere, later. How many slots have is printed.
sub every_slot_of_each_once
{
	my ($jobs, $nodes, %opt) = @_;
	my @slots = _slots($nodes, \%opt);
	my (%expected, %job, %effects, %succeeded, @wrong);
	my $repeated = 0;

	@expected{@slots} = ();
	@job{@$jobs}      = ();
	push @wrong, 'no slot is expected: nothing was proved' unless @slots && @$jobs;
	foreach my $row (_rows($nodes, [qw(node job slot at)],
		'SELECT node, job, slot, extract(epoch FROM at) FROM dsched_test.effects WHERE trigger_id = 0 ORDER BY at'))
	{
		push @{ $effects{"$row->{job} $row->{slot}"} }, $row if exists $job{ $row->{job} };
	}
	foreach my $row (_rows($nodes, [qw(job slot)],
		"SELECT job_name, to_char(scheduled_for AT TIME ZONE 'UTC', '$slot_format') FROM dsched.run
		 WHERE trigger_id = 0 AND status = 'succeeded'"))
	{
		push @{ $succeeded{"$row->{job} $row->{slot}"} }, $row if exists $job{ $row->{job} };
	}
	foreach my $job (@$jobs)
	{
		foreach my $slot (@slots)
		{
			my @effects = sort { $a->{at} <=> $b->{at} } @{ $effects{"$job $slot"} // [] };
			my @succeeded = @{ $succeeded{"$job $slot"} // [] };
			my $where = join(', ', map { "$_->{on} at " . timestamp($_->{at}) } @effects);

			push @wrong, "$job $slot has no effect; recorded is: " . _recorded($job, $slot, $nodes) unless @effects;
			push @wrong, "$job $slot has effects on $where, but is recorded on " . join(', ', map { $_->{on} } @succeeded)
			  if join(' ', sort map { $_->{on} } @effects) ne join(' ', sort map { $_->{on} } @succeeded);
			next if @effects < 2;
			$repeated++;
			push @wrong, "$job $slot has effects on $where" if @effects > 2 || !_may_repeat($effects[0], $opt{may_repeat});
		}
	}
	foreach my $key (sort keys %effects)
	{
		my ($slot) = $key =~ /(\S+)$/;

		push @wrong, "there is an effect of $key, which is not in the schedule"
		  if @slots && !exists $expected{$slot} && $slot gt $slots[0] && $slot lt $slots[-1];
	}
	note("$repeated slots were repeated elsewhere, within what is allowed") if $repeated && !@wrong;
	return _verdict($opt{name} // ('every slot of ' . @$jobs . ' jobs ran exactly once (' . @slots . ' slots each)'), @wrong);
}

# All that the instances say of one slot, for diagnostics.
sub _recorded
{
	my ($job, $slot, $nodes) = @_;
	my @rows = _rows($nodes, [qw(attempt status reason started message)],
		"SELECT attempt, status, reason, started_at, message FROM dsched.run WHERE job_name = '$job' AND trigger_id = 0
		 AND '${slot}Z' BETWEEN scheduled_for AND coalesce(last_slot, scheduled_for) ORDER BY attempt");

	return join('; ', map { "attempt $_->{attempt} $_->{status} ($_->{reason}) on $_->{on} started $_->{started} $_->{message}" } @rows)
	  || 'nothing';
}

sub _may_repeat
{
	my ($effect, $windows) = @_;

	return scalar grep { $effect->{node} eq $_->{node} && $effect->{at} >= $_->{since} && $effect->{at} <= ($_->{until} // 1e99) }
	  @{ $windows // [] };
}

# ---------------------------------------------------------------------------------------------------------------------
# The judge of slots: test/regress/account.psql says at its top what it proves, and what it cannot see
# ---------------------------------------------------------------------------------------------------------------------

sub _account_script
{
	return PostgreSQL::Test::Utils::slurp_file(dirname(__FILE__) . '/../../regress/account.psql');
}

# (create_extension() does it.) For an extension that was created otherwise, or anew: notes all definitions from here on.
sub install_account
{
	my ($node, $database) = @_;

	$node->safe_psql($database // $node->{dsched_database} // 'postgres', "SET log_statement = 'none'; BEGIN; " . _account_script() . 'SELECT account.start(); COMMIT');
	return;
}

# Proves, for every job that there ever was on the instances given, that each slot that preview() gives up to now has exactly one outcome among
# the rows of all of them. Give all that ever ran: a killed one has to be started again first. It waits until what is due by now has
# had the time to end. Slots near the end of a generation are not judged in a cluster, as it takes time until an owner hears
# of a change. Options:
#	database       other than the one of create_extension()
#	may_repeat     a list of { node, since, until } as for every_slot_of_each_once()
#	excused        a list of { job, from, to }: when jobs (a pattern; all) were meant to sleep
#	grace          instead of '3 s' in a cluster, none otherwise
#	holes, repeats_ok, strict, until   as for account.violations()
#	timeout, name
sub account_ok
{
	my ($nodes, %opt) = @_;
	$nodes = [$nodes] unless ref $nodes eq 'ARRAY';
	my ($judge, @others) = @$nodes;
	my $database = $opt{database} // $judge->{dsched_database} // 'postgres';
	my %options = map { ($_ => $opt{$_}) } grep { defined $opt{$_} } qw(excused grace until);

	$options{$_} = JSON::PP::true foreach grep { $opt{$_} } qw(holes repeats_ok strict);
	$options{until} //= timestamp() . 'Z';
	$options{grace} //= $judge->safe_psql($database, 'SHOW dsched.etcd_endpoints') eq '' ? '0' : '3 s';
	$options{repeats} = [ map { {
			node => $_->{node}, since => timestamp($_->{since}) . 'Z', $_->{until} ? (until => timestamp($_->{until}) . 'Z') : () } }
		@{ $opt{may_repeat} } ] if $opt{may_repeat};
	my $json = JSON::PP->new->canonical->encode(\%options);
	my ($slots, @wrong);

	wait_for(
		sub {
			($slots, @wrong) = _judge_account($judge, \@others, $database, $json);
			# jobs that run on each instance have an outcome on each
			push @wrong, _judge_each($_, $database, { %options, each => JSON::PP::true }) foreach @others ? @$nodes : ();
			return !@wrong;
		},
		$opt{timeout} // 20);
	push @wrong, 'there is no slot: nothing was proved' unless @wrong || $slots;
	_show_account($nodes, $database, $wrong[0] =~ /^(\S+) \d{4}-/) if @wrong;
	return _verdict($opt{name} // "every slot of all jobs is accounted for ($slots slots)", @wrong);
}

# What the instances know of a job, for whoever has to find out what was wrong.
sub _show_account
{
	my ($nodes, $database, $job) = @_;

	return if !defined $job;
	foreach my $node (@$nodes)
	{
		diag($node->name . ":\n" . $node->safe_psql($database, qq{
SELECT 'version', job_id, op, at, wall, gen, xid, (SELECT at FROM account.committed c WHERE c.xid = v.xid AND c.node = v.node) AS committed_at
FROM account.version v WHERE def->>'job_name' = '$job' ORDER BY wall;
SELECT 'run', job_id, job_name, gen, scheduled_for, last_slot, slots, trigger_id, attempt, status, reason, started_at, finished_at, epoch
FROM dsched.run WHERE job_id IN (SELECT job_id FROM account.version WHERE def->>'job_name' = '$job') ORDER BY job_id, scheduled_for, attempt}));
	}
	return;
}

# What is wrong with the slots of jobs that run on each instance, on this one.
sub _judge_each
{
	my ($node, $database, $options) = @_;
	my $json = JSON::PP->new->canonical->encode($options);

	return map { $_ . ' (on ' . $node->name . ')' } split /\n/, $node->safe_psql(
		$database, qq{
SET client_min_messages = warning;
SELECT format('%s %s: %s', job_name, to_char(slot AT TIME ZONE 'UTC', '$slot_format'), what) FROM account.violations(\$json\$$json\$json\$)});
}

# How many slots there are, and what is wrong with them. Nothing is left behind.
sub _judge_account
{
	my ($judge, $others, $database, $json) = @_;
	my $load = '';
	my $n    = 0;

	foreach my $node (@$others)
	{
		my $file = "$PostgreSQL::Test::Utils::tmp_check/account." . $n++;

		open(my $out, '>', $file) || die "$file: $!";
		print $out $node->safe_psql($database, 'SELECT account.export()');
		close($out) || die "$file: $!";
		$load .= "PERFORM account.load(pg_read_file('$file')::jsonb);\n";
	}
	my @lines = split /\n/, $judge->safe_psql(
		$database, qq{
SET client_min_messages = warning;
BEGIN;
DO \$do\$ BEGIN $load END \$do\$;
SELECT format('%s %s: %s', job_name, to_char(slot AT TIME ZONE 'UTC', '$slot_format'), what) FROM account.violations(\$json\$$json\$json\$);
SELECT count(*) FROM (SELECT DISTINCT job_id, trigger_id, slot FROM pg_temp.account_slot WHERE must) s;
ROLLBACK});
	my $slots = pop @lines;

	return ($slots, @lines);
}

1;
