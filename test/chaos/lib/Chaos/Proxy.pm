# A process between one instance and the members of an etcd, where there are no network namespaces. It passes connections on, and can
#	cut		pass on nothing, in both ways, nor say so
#	in		let nothing through to the instance
#	out		let nothing through to etcd
#	delay MS	keep everything back for so long
#	open	do nothing of this
# What was held up goes through when it may again, as what TCP sends again would.

package Chaos::Proxy;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);
use Time::HiRes qw(time);

# new([ ip, port ], ...): one listener for each
sub new
{
	my ($class, @targets) = @_;
	my @listeners = map { IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1') // die "listen: $!" } @targets;

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		close($ours);
		$SIG{PIPE} = 'IGNORE';
		$SIG{$_} = 'DEFAULT' foreach qw(TERM INT HUP);
		open(STDIN, '<', '/dev/null');
		eval { _serve($theirs, \@listeners, \@targets) };
		warn $@ if $@;
		POSIX::_exit(1);
	}
	close($theirs);
	my $self = bless { pid => $pid, control => $ours, endpoints => [ map { 'http://127.0.0.1:' . $_->sockport } @listeners ] }, $class;
	close($_) foreach @listeners;
	return $self;
}

sub endpoints { return @{ $_[0]{endpoints} } }

sub set
{
	my ($self, $mode) = @_;

	syswrite($self->{control}, "$mode\n");
	return;
}

sub end
{
	my ($self) = @_;

	kill('KILL', $self->{pid});
	local $?;
	waitpid($self->{pid}, 0);
	return;
}

# Each connection has two ends; "held" is what came from it and is not passed on yet: [ when it may, data ].
sub _serve
{
	my ($control, $listeners, $targets) = @_;
	my $mode = 'open';
	my $delay = 0;
	my %target = map { ($listeners->[$_] => $targets->[$_]) } 0 .. $#$listeners;
	my %end;
	my $drop = sub {
		foreach my $end (map { $_->{other} // (), $_ } @_)
		{
			delete $end{ $end->{socket} };
			close($end->{socket});
		}
	};

	while (1)
	{
		my @read = ($control, @$listeners);
		my $next;

		foreach my $end (values %end)
		{
			push @read, $end->{socket} if !_blocked($mode, $end->{way}) && !$end->{ended} && @{ $end->{held} } < 1000;
			$next = $end->{held}[0][0] if @{ $end->{held} } && !_blocked($mode, $end->{way}) && (!defined $next || $end->{held}[0][0] < $next);
		}
		my $wait = defined $next ? $next - time() : undef;
		$wait = 0 if defined $wait && $wait < 0;
		foreach my $ready (IO::Select->new(@read)->can_read($wait))
		{
			if ($ready == $control)
			{
				sysread($control, my $line, 4096) or return;
				($mode) = $line =~ /(\w[^\n]*)\n\z/ or next;
				$delay = $mode =~ /^delay (\d+)/ ? $1 / 1000 : 0;
			}
			elsif ($target{$ready})
			{
				my $client = $ready->accept // next;
				my $server = IO::Socket::INET->new(PeerAddr => $target{$ready}[0], PeerPort => $target{$ready}[1], Timeout => 1);

				if (!$server)
				{
					close($client);
					next;
				}
				$end{$client} = { socket => $client, way => 'out', held => [] };
				$end{$server} = { socket => $server, way => 'in', held => [], other => $end{$client} };
				$end{$client}{other} = $end{$server};
			}
			elsif (my $end = $end{$ready})
			{
				if (sysread($ready, my $data, 65536))
				{
					push @{ $end->{held} }, [ time() + $delay, $data ];
				}
				else
				{
					# what it said before goes first
					push @{ $end->{held} }, [ time() + $delay, undef ];
					$end->{ended} = 1;
				}
			}
		}
		my @ends = values %end;		# some may go meanwhile
		foreach my $end (@ends)
		{
			next if _blocked($mode, $end->{way}) || !$end{ $end->{socket} };
			while (@{ $end->{held} } && $end->{held}[0][0] <= time())
			{
				my $data = (shift @{ $end->{held} })->[1];
				my $written = defined $data ? syswrite($end->{other}{socket}, $data) : undef;

				if (!defined $written)
				{
					$drop->($end);
					last;
				}
				unshift @{ $end->{held} }, [ 0, substr($data, $written) ] if $written < length $data;
			}
		}
	}
	return;
}

sub _blocked
{
	my ($mode, $way) = @_;

	return $mode eq 'cut' || $mode eq $way;
}

1;
