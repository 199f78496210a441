# The frame of dsched's benches: servers with settings that are said and durable, an etcd, numbers, tables.
#
#	use Bench;
#	begin_bench('throughput');                     # first of all: name of the bench and of its results
#	my $pg = new_instance('pg', conf => { 'dsched.max_executors' => 8, max_worker_processes => 20 });
#	$pg->query('CREATE EXTENSION dsched');
#	...
#	table(name => 'backlog', columns => [ 'executors', 'runs/s' ], rows => [ [ 8, whole(21500) ] ]);
#	plot(name => 'growth', title => ..., series => [...]);      # of Plot.pm, which says what it takes
#
# What there is:
#
#	begin_bench(NAME)              results are named NAME.*; also writes NAME.machine.md
#	rounds(), short()              how often to repeat; whether small sizes are wanted (BENCH_ROUNDS, BENCH_SHORT)
#	progress(FORMAT, ...)          a line on the terminal, with the time
#
#	new_instance(NAME, %opt)       initdb, start; ended with the bench. Options:
#	    conf => {...}                further settings, or another value of one of %DEFAULT_CONF
#	    etcd => $etcd                a member of a cluster of that etcd; node name NAME
#	    preload => 'dsched'          shared_preload_libraries ('' for none)
#	    database => 'bench'          made here and used by query() and session(); 'postgres' is there anyway
#	    start => 1                   0: not yet
#	    env => {...}                 environment of the server
#	  $pg->start, stop(MODE), kill9, kill9_postmaster, restart
#	  $pg->kill9                     as if the machine were lost: all processes at once
#	  $pg->configure(NAME => VALUE)  appends to the configuration; effective after reload or restart
#	  $pg->reload
#	  $pg->query(SQL, @values)       rows as a list of array references; dies on an error. Values for $1, $2... are not there: use quote()
#	  $pg->value(SQL)                first column of the first row
#	  $pg->try(SQL)                  as value(), undef if the server did not answer
#	  $pg->session                   a psql that stays: ->query, ->value, ->close
#	  $pg->wait_for(SQL, EXPECTED, SECONDS)   until value() is this (a string, regular expression or code), else dies
#	  $pg->pgbench(SCRIPT, %opt)     clients, threads, seconds, protocol, database; returns { tps, transactions, failed }
#	  $pg->pids                      postmaster and all that descends from it
#	  $pg->cpu                       seconds of processor time that they have used so far, ended ones included
#	  $pg->memory                    { pid => { name, rss_kb, private_kb } }
#	  $pg->dir, port, socket, database, log
#
#	start_etcd(%opt)               members (1), heartbeat_ms (50), election_ms (500), args => []
#	  $etcd->endpoints, pids, cpu, metrics (of member N), stop(SIGNAL, N...), start(N...), leader
#
#	median, mean, minimum, maximum, percentile(P, @values), spread(@values) -> "median (min - max)"
#	whole(N) -> "21,500", digits(N, D), ratio(N) -> "1.62"
#	quote(TEXT)                    as an SQL literal
#	wait_until(CODE, SECONDS)      calls the code every 20 ms until it is true; returns what it said last
#	now()                          seconds since 1970, with a fraction
#	table(name, title, columns, rows, note)   Markdown, to the terminal and to NAME.<name>.md
#	text(name, MARKDOWN)           the same for anything else
#
# Rules for benches: what is compared is measured in the same round, one after the other; a figure is the median of rounds(), with the
# smallest and the largest; servers are durable (fsync on) unless the column says otherwise; a run counts when its row is committed.

package Bench;

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Open2 qw(open2);
use JSON::PP;
use List::Util qw(sum max min);
use POSIX qw(:sys_wait_h floor strftime);
use Time::HiRes qw(time);

our @EXPORT = qw(
  begin_bench rounds short progress new_instance start_etcd
  median mean minimum maximum percentile spread whole digits ratio quote wait_until now table text plot
);

# What every server has unless a bench says otherwise. Nothing here makes it less durable than PostgreSQL's own defaults; checkpoints
# and autovacuum are left on, at sizes at which they don't fall into one measurement and not into the next.
our %DEFAULT_CONF = (
	fsync                    => 'on',
	full_page_writes         => 'on',
	synchronous_commit       => 'on',
	shared_buffers           => '256MB',
	max_wal_size             => '8GB',
	min_wal_size             => '1GB',
	checkpoint_timeout       => '15min',
	autovacuum               => 'on',
	max_connections          => 100,
	max_worker_processes     => 40,
	listen_addresses         => '',
	log_line_prefix          => '%m [%p] %b ',
	log_checkpoints          => 'off',
	timezone                 => 'UTC',
	jit                      => 'off',
);

my ($bench, $machine, @processors);
my (@instances, @etcds);
my $next_port = 57100;
my $owner = $$;

# A bench that is told to end has an END block to run.
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { exit 143 };

END
{
	my $exit_code = $?;

	if ($$ == $owner)
	{
		$_->_end foreach @instances;
		$_->stop('KILL') foreach @etcds;
		_finish() if defined $bench && $exit_code == 0;
	}
	$? = $exit_code;
}

# ---------------------------------------------------------------------------------------------------------------------
# The bench itself
# ---------------------------------------------------------------------------------------------------------------------

sub begin_bench
{
	($bench) = @_;
	$| = 1;
	make_path(_tmp(), _out());
	unlink glob(_out() . "/$bench.*.md"), glob(_out() . "/$bench.*.svg");
	@processors = _processors();
	select(undef, undef, undef, 2);
	my $busy = _share(idle => 1);
	$machine = _machine() . sprintf(', processors %.0f %% busy with other things before it began', 100 - $busy);
	text('machine', $machine);
	progress('NOTE: others use this machine (%.0f %% busy): the figures will be worse than they are', 100 - $busy) if $busy < 95;
	@processors = _processors();
	return;
}

# At the end it is known how much of the machine others had.
sub _finish
{
	text('machine', sprintf("%s; %.1f %% of the processor time was taken by other virtual machines.", $machine, _share(steal => 1)));
	return;
}

# The kernel's account of processor time: user, nice, system, idle, iowait, irq, softirq, steal.
sub _processors
{
	return _slurp('/proc/stat') =~ /^cpu +([\d ]+)/ ? split(' ', $1) : ();
}

# Of the time since @processors was taken, in percent: what nobody used, or what the hypervisor took.
sub _share
{
	my (%what) = @_;
	my @now = _processors();
	my @used = map { $now[$_] - $processors[$_] } 0 .. 7;
	my $all = sum(@used) || 1;

	return 100 * ($what{idle} ? $used[3] + $used[4] : $used[7]) / $all;
}

sub _tmp { return $ENV{BENCH_TMP} // die "BENCH_TMP is not set: benches are started by bench/run\n" }
sub _out { return $ENV{BENCH_OUT} // die "BENCH_OUT is not set: benches are started by bench/run\n" }

sub short { return $ENV{BENCH_SHORT} ? 1 : 0 }
sub rounds { return $ENV{BENCH_ROUNDS} || (short() ? 1 : 5) }
sub now { return time() }

sub progress
{
	my ($format, @values) = @_;

	printf("%s  $format\n", strftime('%H:%M:%S', gmtime), @values);
	return;
}

sub _slurp
{
	my ($file) = @_;

	open(my $in, '<', $file) or return '';
	local $/;
	my $text = <$in>;
	return $text // '';
}

# What the figures depend on. O_DSYNC on a file that has its size already is what a commit does to the WAL.
sub _machine
{
	my ($model) = _slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)$/m;
	my $cores = () = _slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
	my ($memory) = _slurp('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;
	my $kernel = (POSIX::uname())[2];
	my $version = (split(' ', `postgres --version`))[2];
	my $file = _tmp() . '/sync_speed';
	my $type = `stat -f -c %T \Q@{[ _tmp() ]}\E`;
	my @micros;
	chomp $type;

	system("dd if=/dev/zero of=\Q$file\E bs=8k count=1000 conv=fsync 2>/dev/null");
	for (1 .. 3)
	{
		my $from = time();
		system("dd if=/dev/zero of=\Q$file\E bs=8k count=500 oflag=dsync conv=notrunc 2>/dev/null");
		push @micros, (time() - $from) / 500 * 1e6;
	}
	unlink $file;
	return sprintf(
		"%d cores (%s), %.0f GB of memory, Linux %s, PostgreSQL %s, file system %s, 8 kB written and flushed in %.0f µs; "
		  . "%d round%s, %s%s",
		$cores, $model // 'unknown model', $memory / 1024 / 1024, $kernel, $version, $type, median(@micros),
		rounds(), rounds() == 1 ? '' : 's', strftime('%Y-%m-%d', gmtime),
		$ENV{BENCH_COMMIT} ? ", dsched $ENV{BENCH_COMMIT}" : '')
	  . (short() ? ' (SHORT: small sizes, figures mean little)' : '');
}

# ---------------------------------------------------------------------------------------------------------------------
# Numbers and results
# ---------------------------------------------------------------------------------------------------------------------

# The value that a share P (in percent) of the values do not exceed.
sub percentile
{
	my ($p, @values) = @_;

	return undef unless @values;
	@values = sort { $a <=> $b } @values;
	my $index = POSIX::ceil($p / 100 * @values) - 1;
	return $values[ $index < 0 ? 0 : $index ];
}

sub median
{
	my @values = sort { $a <=> $b } grep { defined } @_;

	return undef unless @values;
	return @values % 2 ? $values[ $#values / 2 ] : ($values[ @values / 2 - 1 ] + $values[ @values / 2 ]) / 2;
}

sub mean { return @_ ? sum(@_) / @_ : undef }
sub minimum { return min(grep { defined } @_) }
sub maximum { return max(grep { defined } @_) }

sub digits
{
	my ($n, $digits) = @_;

	return '-' unless defined $n;
	my $text = sprintf('%.*f', $digits, $n);
	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $text;
}

sub whole { return digits($_[0], 0) }
sub ratio { return digits($_[0], defined $_[0] && $_[0] >= 10 ? 0 : 2) }

# "median (smallest - largest)", with as many digits as are asked for.
sub spread
{
	my ($values, $digits) = @_;
	my @values = grep { defined } @{ $values // [] };

	return '-' unless @values;
	$digits //= 0;
	return digits($values[0], $digits) if @values == 1;
	return digits(median(@values), $digits) . ' (' . digits(min(@values), $digits) . ' - ' . digits(max(@values), $digits) . ')';
}

sub quote
{
	my ($text) = @_;

	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return $text =~ /\\/ ? "E'" . ($text =~ s/\\/\\\\/gr) . "'" : "'$text'";
}

sub wait_until
{
	my ($code, $seconds) = @_;
	my $deadline = time() + ($seconds // 60);

	while (1)
	{
		my $answer = $code->();
		return $answer if $answer || time() > $deadline;
		select(undef, undef, undef, 0.02);
	}
}

sub _write
{
	my ($file, $content) = @_;

	open(my $out, '>:raw', $file) or die "$file: $!";
	print $out $content;
	close($out) or die "$file: $!";
	return;
}

sub text
{
	my ($name, $markdown) = @_;

	$markdown .= "\n" unless $markdown =~ /\n\z/;
	print "\n$markdown\n";
	_write(_out() . "/$bench.$name.md", $markdown);
	return;
}

# Columns after the first are numbers: aligned to the right.
sub table
{
	my (%opt) = @_;
	my @columns = @{ $opt{columns} };
	my $markdown = '';

	$markdown .= "**$opt{title}**\n\n" if defined $opt{title};
	$markdown .= '| ' . join(' | ', @columns) . " |\n";
	$markdown .= '|' . join('|', map { $_ == 0 ? '---' : '---:' } 0 .. $#columns) . "|\n";
	$markdown .= '| ' . join(' | ', map { $_ // '-' } @$_) . " |\n" foreach @{ $opt{rows} };
	$markdown .= "\n$opt{note}\n" if defined $opt{note};
	text($opt{name}, $markdown);
	return;
}

# A plot of Plot.pm, as NAME.<name>.svg.
sub plot
{
	my (%opt) = @_;
	my $name = delete $opt{name};

	require Plot;
	_write(_out() . "/$bench.$name.svg", Plot::svg(%opt));
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------

# Fields of /proc/PID/stat after the name: 0 is the state, 1 the parent.
sub _stat
{
	my ($pid) = @_;

	return _slurp("/proc/$pid/stat") =~ /\) (.*)$/s ? split(' ', $1) : ();
}

# The process and all that descends from it.
sub _family
{
	my ($root) = @_;
	my %children;

	opendir(my $proc, '/proc') or die "/proc: $!";
	foreach my $pid (grep { /^\d+$/ } readdir($proc))
	{
		my @stat = _stat($pid);

		push @{ $children{ $stat[1] } }, $pid if @stat && $stat[0] ne 'Z';
	}
	closedir($proc);

	my @family = ($root);
	for (my $i = 0; $i < @family; $i++)
	{
		push @family, @{ $children{ $family[$i] } // [] };
	}
	return @family;
}

# Processor time of these, and of the children that they have waited for. Of those that live the scheduler's own count is taken: the
# other is in hundredths of a second for each process, which is coarse where there are many.
sub _cpu_of
{
	my $seconds = 0;

	foreach my $pid (@_)
	{
		my @stat = _stat($pid) or next;
		my ($ns) = _slurp("/proc/$pid/schedstat") =~ /^(\d+)/;

		$seconds += defined $ns ? $ns / 1e9 : ($stat[11] + $stat[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
		$seconds += ($stat[13] + $stat[14]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
	}
	return $seconds;
}

# Runs a command that has no say on the terminal; dies with its output if it fails.
sub _run
{
	my ($what, $log, @command) = @_;
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $log);
		open(STDERR, '>>', $log);
		{ exec @command; }
		POSIX::_exit(127);
	}
	waitpid($pid, 0);
	die "$what failed:\n" . join('', (split(/^/, _slurp($log)))[ -20 .. -1 ] // '') . _slurp($log) if $? != 0;
	return;
}

# A port on which nobody listens now. Those that were given out are not given out again.
sub _free_port
{
	while (1)
	{
		my $port = $next_port++;
		my $socket = IO::Socket::INET->new(
			LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1, ReuseAddr => 1);

		return $port if $socket;
		die 'no free port' if $next_port > 60000;
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------------------------------------------------

sub new_instance
{
	my ($name, %opt) = @_;
	my $dir = _tmp() . "/$name";
	my $self = bless {
		name     => $name,
		dir      => $dir,
		data     => "$dir/data",
		log      => "$dir/log",
		port     => _free_port(),
		database => $opt{database} // 'bench',
		env      => $opt{env} // {},
	}, 'Bench::Instance';

	remove_tree($dir);
	make_path($dir);
	_run("initdb of $name", "$dir/initdb.log",
		'initdb', '-D', $self->{data}, '-U', 'postgres', '-A', 'trust', '--locale=C', '--encoding=UTF8', '--no-sync');
	my %conf = (
		%DEFAULT_CONF,
		shared_preload_libraries => $opt{preload} // 'dsched',
		unix_socket_directories  => $dir,
		port                     => $self->{port});
	# as many at a time as pgbench has clients: there are no other roles, for which an executor would be kept
	$conf{'dsched.max_executors_per_role'} = 0 if $conf{shared_preload_libraries} eq 'dsched';
	if (defined $opt{etcd})
	{
		$conf{'dsched.etcd_endpoints'} = $opt{etcd}->endpoints;
		$conf{'dsched.node_name'} = $name;
	}
	%conf = (%conf, %{ $opt{conf} // {} });
	$self->configure(%conf);
	push @instances, $self;
	if ($opt{start} // 1)
	{
		$self->start;
		$self->_psql('postgres', "CREATE DATABASE $self->{database}") if $self->{database} ne 'postgres';
	}
	return $self;
}

{

	package Bench::Instance;

	use Time::HiRes qw(time);

	sub name { return $_[0]{name} }
	sub dir { return $_[0]{dir} }
	sub data { return $_[0]{data} }
	sub socket { return $_[0]{dir} }
	sub port { return $_[0]{port} }
	sub database { return $_[0]{database} }
	sub log { return $_[0]{log} }

	sub configure
	{
		my ($self, %conf) = @_;

		open(my $out, '>>', "$self->{data}/postgresql.conf") or die "postgresql.conf: $!";
		print $out "$_ = '" . ($conf{$_} =~ s/'/''/gr) . "'\n" foreach sort keys %conf;
		close($out);
		return;
	}

	sub start
	{
		my ($self) = @_;

		local %ENV = (%ENV, %{ $self->{env} });
		Bench::_run("start of $self->{name} ($self->{log})", "$self->{dir}/pg_ctl.log",
			'pg_ctl', '-D', $self->{data}, '-l', $self->{log}, '-t', 120, '-w', 'start');
		($self->{pid}) = Bench::_slurp("$self->{data}/postmaster.pid") =~ /^(\d+)/;
		return;
	}

	# smart, fast (default) or immediate
	sub stop
	{
		my ($self, $mode) = @_;

		return unless defined $self->{pid};
		Bench::_run("stop of $self->{name} ($self->{log})", "$self->{dir}/pg_ctl.log",
			'pg_ctl', '-D', $self->{data}, '-m', $mode // 'fast', '-t', 120, '-w', 'stop');
		delete $self->{pid};
		return;
	}

	sub restart
	{
		my ($self) = @_;

		$self->stop;
		$self->start;
		return;
	}

	sub reload
	{
		my ($self) = @_;

		kill('HUP', $self->{pid});
		return;
	}

	# The postmaster alone; what it started has to end by itself. Returns when it has.
	sub kill9_postmaster
	{
		my ($self) = @_;
		my @family = $self->pids;
		my $killed_at = time();

		kill('KILL', $self->{pid});
		delete $self->{pid};
		$self->{orphans} = \@family;
		return $killed_at;
	}

	# All processes. The postmaster is stopped first, so that it makes no more.
	sub kill9
	{
		my ($self) = @_;

		kill('STOP', $self->{pid});
		my @family = $self->pids;
		my $killed_at = time();

		kill('KILL', @family);
		delete $self->{pid};
		$self->{orphans} = \@family;
		return $killed_at;
	}

	# Until all that was killed, or orphaned, is gone.
	sub wait_gone
	{
		my ($self, $seconds) = @_;

		return Bench::wait_until(
			sub {
				return !grep { my @stat = Bench::_stat($_); @stat && $stat[0] ne 'Z' } @{ $self->{orphans} // [] };
			},
			$seconds // 30);
	}

	sub _end
	{
		my ($self) = @_;

		if (defined $self->{pid})
		{
			kill('STOP', $self->{pid});
			kill('KILL', $self->pids);
			delete $self->{pid};
		}
		return;
	}

	sub pids
	{
		my ($self) = @_;

		return defined $self->{pid} ? Bench::_family($self->{pid}) : ();
	}

	sub cpu
	{
		my ($self) = @_;

		return Bench::_cpu_of($self->pids);
	}

	# By process: its title without "postgres: ", resident and private memory.
	sub memory
	{
		my ($self) = @_;
		my %memory;

		foreach my $pid ($self->pids)
		{
			my $rollup = Bench::_slurp("/proc/$pid/smaps_rollup") or next;
			my ($name) = Bench::_slurp("/proc/$pid/cmdline") =~ /^(?:postgres: )?([^\0]*?)\s*(?:\0|$)/;
			my %kb = $rollup =~ /^(\w+):\s+(\d+) kB/mg;

			$memory{$pid} = {
				name       => $name,
				rss_kb     => $kb{Rss},
				private_kb => $kb{Private_Clean} + $kb{Private_Dirty},
			};
		}
		return \%memory;
	}

	sub _psql_command
	{
		my ($self, $database) = @_;

		return ('psql', '-X', '-q', '-A', '-t', '-F', "\x1f", '-P', 'null=\\N', '-v', 'ON_ERROR_STOP=1',
			'-h', $self->{dir}, '-p', $self->{port}, '-U', 'postgres', '-d', $database);
	}

	# Output and exit status of psql, which reads the statements from its standard input.
	sub _psql
	{
		my ($self, $database, $sql) = @_;
		local $SIG{PIPE} = 'IGNORE';
		my $pid = IPC::Open2::open2(my $out, my $in, 'sh', '-c', 'exec "$@" 2>&1', 'sh', $self->_psql_command($database));

		print $in $sql;
		close($in);
		my $text = do { local $/; <$out> } // '';
		waitpid($pid, 0);
		die "psql: $text\nin: " . substr($sql, 0, 2000) . "\n" if $? != 0;
		return $text;
	}

	sub _rows
	{
		my ($text) = @_;

		return map { [ map { $_ eq '\\N' ? undef : $_ } split(/\x1f/, $_, -1) ] } split(/\n/, $text);
	}

	sub query
	{
		my ($self, $sql, $database) = @_;

		return _rows($self->_psql($database // $self->{database}, $sql));
	}

	sub value
	{
		my ($self, $sql, $database) = @_;
		my ($row) = $self->query($sql, $database);

		return $row ? $row->[0] : undef;
	}

	sub try
	{
		my ($self, $sql, $database) = @_;

		return eval { $self->value($sql, $database) };
	}

	sub wait_for
	{
		my ($self, $sql, $expected, $seconds) = @_;
		my $answer;

		$expected //= 't';
		Bench::wait_until(
			sub {
				$answer = $self->try($sql);
				return 0 unless defined $answer;
				return
					ref $expected eq 'CODE'   ? $expected->($answer)
				  : ref $expected eq 'Regexp' ? $answer =~ $expected
				  :                             $answer eq $expected;
			},
			$seconds // 60)
		  or die "gave up waiting for: $sql\nlast answer: " . ($answer // '(none)') . "\n";
		return $answer;
	}

	sub session
	{
		my ($self, $database) = @_;

		return Bench::Session->new($self, $database // $self->{database});
	}

	# Runs pgbench with a script given as text. Dies if a transaction failed.
	sub pgbench
	{
		my ($self, $script, %opt) = @_;
		my $file = "$self->{dir}/pgbench.sql";
		my $clients = $opt{clients} // 8;
		my $database = $opt{database} // $self->{database};

		Bench::_write($file, $script);
		my @command = (
			'pgbench', '-n', '-M', $opt{protocol} // 'prepared', '-c', $clients, '-j', $opt{threads} // 2,
			$opt{transactions} ? ('-t', $opt{transactions}) : ('-T', $opt{seconds} // 5),
			'-f', $file, '-h', $self->{dir}, '-p', $self->{port}, '-U', $opt{user} // 'postgres', $database);
		my $pid = IPC::Open2::open2(my $out, my $in, 'sh', '-c', 'exec "$@" 2>&1', 'sh', @command);
		close($in);
		my $text = do { local $/; <$out> } // '';
		waitpid($pid, 0);
		die "pgbench: $text" if $? != 0;
		my ($tps) = $text =~ /^tps = ([\d.]+)/m;
		my ($transactions) = $text =~ /^number of transactions actually processed: (\d+)/m;
		my ($failed) = $text =~ /^number of failed transactions: (\d+)/m;
		die "pgbench: $text" if !$tps || $failed;
		return { tps => $tps, transactions => $transactions };
	}
}

{
	# A psql that stays connected: a query costs a round trip instead of a process and a connection.
	package Bench::Session;

	my $number = 0;

	sub new
	{
		my ($class, $instance, $database) = @_;
		my $self = bless {}, $class;

		$self->{pid} = IPC::Open2::open2($self->{out}, $self->{in}, 'sh', '-c', 'exec "$@" 2>&1', 'sh',
			$instance->_psql_command($database));
		$self->{in}->autoflush(1);
		return $self;
	}

	sub query
	{
		my ($self, $sql) = @_;
		local $SIG{PIPE} = 'IGNORE';
		my $mark = '-- done ' . ++$number;
		my ($text, $line, $out) = ('', undef, $self->{out});

		print { $self->{in} } "$sql\n;\n\\echo '$mark'\n";
		while (defined($line = <$out>))
		{
			return Bench::Instance::_rows($text) if $line eq "$mark\n";
			$text .= $line;
		}
		die "psql: $text\nin: " . substr($sql, 0, 2000) . "\n";
	}

	sub value
	{
		my ($self, $sql) = @_;
		my ($row) = $self->query($sql);

		return $row ? $row->[0] : undef;
	}

	sub close
	{
		my ($self) = @_;

		CORE::close($self->{in});
		CORE::close($self->{out});
		local $?;
		waitpid($self->{pid}, 0);
		return;
	}
}

# ---------------------------------------------------------------------------------------------------------------------
# etcd
# ---------------------------------------------------------------------------------------------------------------------

sub start_etcd
{
	my (%opt) = @_;
	my $self = bless { opt => \%opt, number => scalar @etcds, members => [] }, 'Bench::Etcd';

	for my $i (0 .. ($opt{members} // 1) - 1)
	{
		push @{ $self->{members} },
		  {
			name   => "etcd$self->{number}_$i",
			client => 'http://127.0.0.1:' . _free_port(),
			peer   => 'http://127.0.0.1:' . _free_port(),
			data   => _tmp() . "/etcd$self->{number}_$i",
			log    => _tmp() . "/etcd$self->{number}_$i.log",
		  };
	}
	push @etcds, $self;
	$self->start;
	return $self;
}

{

	package Bench::Etcd;

	sub _members
	{
		my ($self, @numbers) = @_;

		return @numbers ? @{ $self->{members} }[@numbers] : @{ $self->{members} };
	}

	sub endpoints
	{
		my ($self, @numbers) = @_;

		return join(',', map { $_->{client} } $self->_members(@numbers));
	}

	sub pids
	{
		my ($self) = @_;

		return grep { defined } map { $_->{pid} } $self->_members;
	}

	sub cpu
	{
		my ($self) = @_;

		return Bench::_cpu_of($self->pids);
	}

	sub start
	{
		my ($self, @numbers) = @_;
		my $peers = join(',', map { "$_->{name}=$_->{peer}" } @{ $self->{members} });

		foreach my $member (grep { !defined $_->{pid} } $self->_members(@numbers))
		{
			my $pid = fork() // die "fork: $!";

			if ($pid == 0)
			{
				POSIX::setsid();
				open(STDIN, '<', '/dev/null');
				open(STDOUT, '>>', $member->{log});
				open(STDERR, '>>', $member->{log});
				{
					exec(
						'etcd', '--name', $member->{name}, '--data-dir', $member->{data},
						'--listen-client-urls', $member->{client}, '--advertise-client-urls', $member->{client},
						'--listen-peer-urls', $member->{peer}, '--initial-advertise-peer-urls', $member->{peer},
						'--initial-cluster', $peers, '--initial-cluster-token', "bench$self->{number}",
						'--heartbeat-interval', $self->{opt}{heartbeat_ms} // 50,
						'--election-timeout', $self->{opt}{election_ms} // 500,
						'--log-level', 'error', '--logger', 'zap', @{ $self->{opt}{args} // [] });
				}
				POSIX::_exit(127);
			}
			$member->{pid} = $pid;
		}
		foreach my $member ($self->_members(@numbers))
		{
			my $http = HTTP::Tiny->new(timeout => 2, keep_alive => 0);

			Bench::wait_until(sub { my $answer = $http->get("$member->{client}/health");
					$answer->{success} && $answer->{content} =~ /"health": *"true"/ }, 30)
			  or die "$member->{name} did not become healthy:\n" . Bench::_slurp($member->{log});
		}
		return;
	}

	sub stop
	{
		my ($self, $signal, @numbers) = @_;

		foreach my $member (grep { defined $_->{pid} } $self->_members(@numbers))
		{
			kill($signal // 'TERM', $member->{pid});
			local $?;
			waitpid($member->{pid}, 0);
			delete $member->{pid};
		}
		return;
	}

	# What a member counts: name (with labels, as it prints them) to value.
	sub metrics
	{
		my ($self, $number) = @_;
		my $answer = HTTP::Tiny->new(timeout => 5)->get($self->{members}[ $number // 0 ]{client} . '/metrics');

		die "no metrics from etcd: $answer->{status}" unless $answer->{success};
		return { $answer->{content} =~ /^(\w+(?:\{.*\})?) (\S+)$/mg };
	}

	# The number of the member that leads; undef while there is none.
	sub leader
	{
		my ($self) = @_;

		foreach my $i (grep { defined $self->{members}[$_]{pid} } 0 .. $#{ $self->{members} })
		{
			my $answer = HTTP::Tiny->new(timeout => 2)->post($self->{members}[$i]{client} . '/v3/maintenance/status',
				{ content => '{}' });
			my $status = eval { JSON::PP::decode_json($answer->{content}) } // {};

			return $i if defined $status->{leader} && $status->{leader} eq $status->{header}{member_id};
		}
		return undef;
	}
}

1;
