# A process between an instance and a member of etcd, through which the real bytes go, and which can be told to misbehave. For
# dsched's TAP tests.
#
#	use EtcdProxy;
#	my $proxy = start_proxy($port);       # of the member, on 127.0.0.1
#	"http://127.0.0.1:" . $proxy->port    # for dsched.etcd_endpoints
#
# What it can be told, each until the next; connections stay as they are but where it says otherwise:
#	pass           all goes through at once
#	delay($ms)     each direction is late by half of it, so a request takes that much longer
#	hold           nothing goes through in either direction, nothing is closed, new connections are taken and held, too: a firewall
#	               that drops. What was sent meanwhile goes on when pass() is called, as TCP would send it again
#	hold_answers   requests go on, answers are held: the one-way loss
#	hold_requests  the other way round
#	swallow        requests go on, answers disappear for good: at the next pass() these connections break. What was asked has
#	               been done, and nobody heard of it
#	cut            closes all connections, with a reset; new ones go through
#	refuse         closes all, and refuses new ones
#	drop_syn       closes nothing, but new connections get no answer at all
# And
#	port           where it listens
#	bytes          [ to the member, from it ], since the start
#	connections    how many were accepted since the start
#	stop

package EtcdProxy;

use strict;
use warnings;

use Exporter qw(import);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER SO_REUSEADDR);
use Time::HiRes qw(time);

our @EXPORT = qw(start_proxy);

my @proxies;

END
{
	my $exit_code = $?;

	$_->stop foreach @proxies;
	$? = $exit_code;
}

sub start_proxy
{
	my ($target) = @_;
	my $listener = _listen(0, 64);
	my $self = bless { port => $listener->sockport }, 'EtcdProxy';

	socketpair(my $ours, my $theirs, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die "socketpair: $!";
	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		close($ours);
		$SIG{PIPE} = 'IGNORE';
		$SIG{TERM} = $SIG{INT} = $SIG{HUP} = 'DEFAULT';
		open(STDIN, '<', '/dev/null');
		POSIX::dup2(fileno(STDIN), $_) foreach 1, 2;
		eval { EtcdProxy::Process->new($listener, $target, $theirs)->run };
		POSIX::_exit(1);
	}
	close($theirs);
	close($listener);
	$ours->autoflush(1);
	$self->{control} = $ours;
	push @proxies, $self;
	return $self;
}

sub _listen
{
	my ($port, $backlog) = @_;

	return IO::Socket::INET->new(Listen => $backlog, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1)
	  // die "listen: $!";
}

# Tells the process something, and waits until it is so.
sub _tell
{
	my ($self, $line) = @_;

	print { $self->{control} } "$line\n";
	my $answer = readline($self->{control}) // die 'the proxy has died';
	chomp $answer;
	return $answer;
}

sub port          { return $_[0]{port} }
sub pass          { return $_[0]->_tell('mode pass') }
sub delay         { return $_[0]->_tell("mode delay $_[1]") }
sub hold          { return $_[0]->_tell('mode hold') }
sub hold_answers  { return $_[0]->_tell('mode hold_answers') }
sub hold_requests { return $_[0]->_tell('mode hold_requests') }
sub swallow       { return $_[0]->_tell('mode swallow') }
sub cut           { return $_[0]->_tell('cut') }
sub refuse        { return $_[0]->_tell('mode refuse') }
sub drop_syn      { return $_[0]->_tell('mode drop_syn') }
sub bytes         { return [ split / /, $_[0]->_tell('bytes') ] }
sub connections   { return $_[0]->_tell('connections') }

sub stop
{
	my ($self) = @_;

	return unless defined $self->{pid};
	kill('KILL', $self->{pid});
	local $?;
	waitpid($self->{pid}, 0);
	delete $self->{pid};
	return;
}

# The process. A connection is { client, server }, and for each direction (0: to the member, 1: from it) a list of [ when, bytes ] to be
# sent, and whether its sender has ended.
{

	package EtcdProxy::Process;

	use constant MAX_QUEUED => 64 * 1024 * 1024;

	sub new
	{
		my ($class, $listener, $target, $control) = @_;

		return bless {
			listener => $listener,
			port     => $listener->sockport,
			target   => $target,
			control  => $control,
			mode     => 'pass',
			delay    => 0,
			peers    => {},
			bytes    => [ 0, 0 ],
			accepted => 0,
			fillers  => [],
		}, $class;
	}

	sub _nonblocking
	{
		my ($handle) = @_;

		fcntl($handle, Fcntl::F_SETFL(), fcntl($handle, Fcntl::F_GETFL(), 0) | Fcntl::O_NONBLOCK());
		return;
	}

	sub run
	{
		my ($self) = @_;

		while (1)
		{
			my ($read, $write) = (IO::Select->new($self->{control}), IO::Select->new());
			my $now     = Time::HiRes::time();
			my $timeout = undef;
			my %by_handle;

			$read->add($self->{listener}) if defined $self->{listener} && $self->{mode} ne 'drop_syn';
			foreach my $connection ($self->_connections)
			{
				for my $direction (0, 1)
				{
					my ($from, $to) = @{ $connection->{ends} }[ $direction, 1 - $direction ];

					$by_handle{$from} = [ $connection, $direction ];
					$read->add($from) unless $connection->{ended}[$direction];
					next if $self->_is_held($direction) || !@{ $connection->{queue}[$direction] };
					my $due = $connection->{queue}[$direction][0][0] - $now;
					if ($due <= 0)
					{
						$write->add($to);
					}
					elsif (!defined $timeout || $due < $timeout)
					{
						$timeout = $due;
					}
				}
			}
			my ($readable, $writable) = IO::Select->select($read, $write, undef, $timeout);
			foreach my $handle (@{ $readable // [] })
			{
				if ($handle == $self->{control})
				{
					$self->_command;
					last;
				}
				if (defined $self->{listener} && $handle == $self->{listener})
				{
					$self->_accept;
					next;
				}
				$self->_read(@{ $by_handle{$handle} }) if $by_handle{$handle};
			}
			$self->_write($_) foreach $self->_connections;
		}
	}

	sub _connections
	{
		my ($self) = @_;

		return values %{ $self->{peers} };
	}

	sub _is_held
	{
		my ($self, $direction) = @_;

		return 1 if $self->{mode} eq 'hold';
		return $direction == 0 if $self->{mode} eq 'hold_requests';
		return $direction == 1 if $self->{mode} eq 'hold_answers';
		return 0;
	}

	sub _accept
	{
		my ($self) = @_;
		my $client = $self->{listener}->accept // return;

		$self->{accepted}++;
		my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{target});
		if (!defined $server)
		{
			close($client);
			return;
		}
		_nonblocking($_) foreach $client, $server;
		my $connection = { ends => [ $client, $server ], queue => [ [], [] ], ended => [ 0, 0 ], broken => 0 };

		$self->{peers}{$connection} = $connection;
		return;
	}

	sub _read
	{
		my ($self, $connection, $direction) = @_;
		my $from = $connection->{ends}[$direction];
		my $n    = sysread($from, my $data, 65536);

		return if !defined $n && $!{EAGAIN};
		if (!$n)
		{
			$connection->{ended}[$direction] = 1;
			return;
		}
		$self->{bytes}[$direction] += $n;
		if ($self->{mode} eq 'swallow' && $direction == 1)
		{
			$connection->{broken} = 1;
			return;
		}
		push @{ $connection->{queue}[$direction] }, [ Time::HiRes::time() + $self->{delay} / 2000, $data ];
		return;
	}

	# Sends what is due, and hands on the end of what has ended.
	sub _write
	{
		my ($self, $connection) = @_;
		my $now = Time::HiRes::time();

		for my $direction (0, 1)
		{
			my $to    = $connection->{ends}[ 1 - $direction ];
			my $queue = $connection->{queue}[$direction];

			next if $self->_is_held($direction);
			while (@$queue && $queue->[0][0] <= $now)
			{
				my $n = syswrite($to, $queue->[0][1]);

				if (!defined $n)
				{
					last if $!{EAGAIN};
					return $self->_close($connection, 0);
				}
				substr($queue->[0][1], 0, $n) = '';
				last if length $queue->[0][1];
				shift @$queue;
			}
			if (!@$queue && $connection->{ended}[$direction] == 1)
			{
				$connection->{ended}[$direction] = 2;
				shutdown($to, 1);
			}
		}
		$self->_close($connection, 0) if $connection->{ended}[0] == 2 && $connection->{ended}[1] == 2;
		return;
	}

	sub _close
	{
		my ($self, $connection, $reset) = @_;

		foreach my $end (@{ $connection->{ends} })
		{
			setsockopt($end, Socket::SOL_SOCKET(), Socket::SO_LINGER(), pack('ii', 1, 0)) if $reset;
			close($end);
		}
		delete $self->{peers}{$connection};
		return;
	}

	sub _command
	{
		my ($self) = @_;
		my $line = readline($self->{control}) // POSIX::_exit(0);
		my $answer = 'ok';

		chomp $line;
		my ($verb, @words) = split / /, $line;
		$self->_set_mode(@words)                           if $verb eq 'mode';
		map { $self->_close($_, 1) } $self->_connections  if $verb eq 'cut';
		$answer = join(' ', @{ $self->{bytes} })           if $verb eq 'bytes';
		$answer = $self->{accepted}                        if $verb eq 'connections';
		syswrite($self->{control}, "$answer\n");
		return;
	}

	sub _set_mode
	{
		my ($self, $mode, $delay) = @_;

		$self->{mode}  = $mode;
		$self->{delay} = $delay // 0;
		map { $self->_close($_, 1) } grep { $mode eq 'refuse' || $_->{broken} && $mode ne 'swallow' } $self->_connections;
		if ($mode eq 'refuse' || $mode eq 'drop_syn')
		{
			close($self->{listener}) if defined $self->{listener};
			$self->{listener} = undef;
		}
		close($_) foreach splice @{ $self->{fillers} };
		if ($mode eq 'drop_syn')
		{
			# The kernel takes connections up to the backlog and one more, and drops the first packet of all others.
			$self->{listener} = EtcdProxy::_listen($self->{port}, 1);
			for (1 .. 4)
			{
				my $filler = IO::Socket::INET->new(Proto => 'tcp', Blocking => 0, PeerAddr => '127.0.0.1', PeerPort => $self->{port});
				push @{ $self->{fillers} }, $filler if defined $filler;
			}
		}
		elsif ($mode ne 'refuse' && (!defined $self->{listener} || $self->{was_dropping}))
		{
			close($self->{listener}) if defined $self->{listener};
			$self->{listener} = EtcdProxy::_listen($self->{port}, 64);
		}
		$self->{was_dropping} = $mode eq 'drop_syn';
		return;
	}
}

1;
