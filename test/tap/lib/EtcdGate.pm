# A way to etcd on which single requests and answers can be held, lost or late.
#
#	use EtcdGate;
#	my $gate = EtcdGate->start($etcd);                     # $gate->endpoints is what dsched.etcd_endpoints takes
#	my $rule = $gate->rule(hold => 'request', path => 'txn', text => 'state/any/007');
#	my ($held) = $gate->wait_held($rule);                  # the first request that it caught
#	$gate->remove($rule);                                  # others pass; what is held stays so
#	$gate->release($held);                                 # it is sent on now, also if who had asked has gone
#	my $answer = $gate->answer($held);                     # what etcd said to it, parsed
#
# Every request that comes by is read as a whole; its text is the body with all that is base64 decoded, so that patterns can name keys. The first
# rule whose patterns match decides:
#
#	hold => 'request'   it is not sent on until release()
#	hold => 'answer'    it is sent on; nothing of the answer (or of the stream, for a watch) comes back until release()
#	lose => 'request'   it is never sent on, and nobody hears of it
#	lose => 'answer'    it is sent on; when it is answered, the connection breaks instead
#	delay => SECONDS    its answer comes so much later
#	shift => SECONDS    the answer says that it is so much later (in its header "Date", by which clocks are judged)
#
# A rule can have times => N: it is spent after N requests. `streams => 1`: it also holds the streams that it matches and that are open already.
# One process, without dsched or a test framework in it; it ends with the test.

package EtcdGate;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Socket;
use Time::Local ();
use Time::HiRes qw(time);

my @gates;

END
{
	my $exit_code = $?;

	$_->stop foreach @gates;
	$? = $exit_code;
}

sub start
{
	my ($class, $etcd, $member) = @_;
	my ($target) = $etcd->endpoints($member // 0) =~ m{//(.*)};
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', ReuseAddr => 1) // die "listen: $!";

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) || die "socketpair: $!";
	my $self = bless { port => $listener->sockport, control => $ours, etcd => $etcd }, $class;
	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		close($ours);
		$SIG{PIPE} = 'IGNORE';
		$SIG{TERM} = $SIG{INT} = $SIG{HUP} = 'DEFAULT';
		open(STDIN, '<', '/dev/null');
		POSIX::dup2(fileno(STDIN), 1);
		eval { EtcdGate::Server->new($listener, $target, $theirs)->run };
		print STDERR "EtcdGate: $@" if $@;
		POSIX::_exit(1);
	}
	close($theirs);
	push @gates, $self;
	return $self;
}

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

sub endpoints
{
	my ($self) = @_;

	return "http://127.0.0.1:$self->{port}";
}

# A command to the process, and what it answers.
sub _ask
{
	my ($self, %command) = @_;
	my ($answer, $part) = ('');
	my $line = JSON::PP->new->utf8->encode(\%command) . "\n";

	syswrite($self->{control}, $line) == length $line or die "EtcdGate: $!";
	while ($answer !~ /\n/)
	{
		sysread($self->{control}, $part, 65536) or die 'EtcdGate: the process has ended';
		$answer .= $part;
	}
	return JSON::PP->new->utf8->decode($answer);
}

# Adds a rule; returns its number. Later rules come before earlier ones.
sub rule
{
	my ($self, %rule) = @_;

	return $self->_ask(do => 'rule', rule => { path => '^', text => '^', %rule })->{rule};
}

# Without a number: all rules go. What is held stays held.
sub remove
{
	my ($self, @rules) = @_;

	$self->_ask(do => 'remove', rules => \@rules);
	return;
}

# What a rule (or any) holds: { id, rule, path, text, at }.
sub held
{
	my ($self, $rule) = @_;

	return grep { !defined $rule || $_->{rule} == $rule } @{ $self->_ask(do => 'held')->{held} };
}

# Waits until a rule holds something; returns it.
sub wait_held
{
	my ($self, $rule, $timeout) = @_;

	DschedTest::wait_for(sub { scalar $self->held($rule) }, $timeout);
	return ($self->held($rule))[0];
}

# Sends on what was held, or lets the answers come; without an argument all.
sub release
{
	my ($self, @held) = @_;

	@held = $self->held unless @held;
	$self->_ask(do => 'release', ids => [ map { $_->{id} } @held ]);
	return;
}

# What etcd answered to a request that had been held, parsed; undef if it has not (within $timeout).
sub answer
{
	my ($self, $held, $timeout) = @_;
	my $answer;

	DschedTest::wait_for(
		sub {
			my ($body) = ($self->_ask(do => 'answer', id => $held->{id})->{answer} // '') =~ /\r\n\r\n.*?(\{.*\})/s;

			$answer = eval { JSON::PP->new->decode($body) } if defined $body;
			return defined $answer;
		},
		$timeout // 10);
	return $answer;
}

# All requests that came by since the start, or since a moment: { at, path, text, rule }, at most the last 5000.
sub log
{
	my ($self, $since) = @_;

	return grep { $_->{at} >= ($since // 0) } @{ $self->_ask(do => 'log')->{log} };
}

# ---------------------------------------------------------------------------------------------------------------------
# The process
# ---------------------------------------------------------------------------------------------------------------------

package EtcdGate::Server;

use Time::HiRes qw(time);

# A tunnel is a client's connection with its own to etcd. One request is under way on it at a time, as HTTP/1.1 without pipelining has it:
#	in        bytes of the client that are not a whole request yet
#	request   the one under way: { id, rule, path, text, raw, state }; state: held, sent, muted, lost
#	out       bytes of etcd that wait until the rule is released, or due
#	due       when they may go
# What etcd answers to a request that a rule has caught is kept with the request as well, for a client that has gone.
sub new
{
	my ($class, $listener, $target, $control) = @_;

	return bless {
		listener => $listener,
		target   => $target,
		control  => $control,
		select   => IO::Select->new($listener, $control),
		tunnel   => {},
		rules    => [],
		next     => 1,
		commands => '',
		log      => [],
		caught   => {},    # tunnel and request, by the number of the request
	}, $class;
}

sub run
{
	my ($self) = @_;

	while (1)
	{
		my $now = time();
		my ($due) = sort { $a <=> $b } map { $_->{due} // () } values %{ $self->{tunnel} };

		foreach my $fh ($self->{select}->can_read(defined $due ? ($due > $now ? $due - $now : 0) : undef))
		{
			if    ($fh == $self->{listener}) { $self->accept_client }
			elsif ($fh == $self->{control})  { $self->read_commands }
			elsif (my $tunnel = $self->{tunnel}{$fh})
			{
				$fh == ($tunnel->{client} // 0) ? $self->from_client($tunnel) : $self->from_etcd($tunnel);
			}
		}
		foreach my $tunnel (grep { defined $_->{due} && $_->{due} <= time() } values %{ $self->{tunnel} })
		{
			delete $tunnel->{due};
			$self->flush($tunnel);
		}
	}
}

sub accept_client
{
	my ($self) = @_;
	my $client = $self->{listener}->accept // return;
	my $etcd   = IO::Socket::INET->new(PeerAddr => $self->{target}, Timeout => 2);

	return close($client) unless defined $etcd;
	my $tunnel = { client => $client, etcd => $etcd, in => '', out => '' };
	$self->{tunnel}{$_} = $tunnel foreach $client, $etcd;
	$self->{select}->add($client, $etcd);
	return;
}

sub write_all
{
	my ($fh, $data) = @_;
	my $done = 0;

	while ($done < length $data)
	{
		my $n = syswrite($fh, $data, length($data) - $done, $done);
		return 0 unless defined $n;
		$done += $n;
	}
	return 1;
}

sub drop_end
{
	my ($self, $tunnel, $end) = @_;
	my $fh = delete $tunnel->{$end} // return;

	$self->{select}->remove($fh);
	delete $self->{tunnel}{$fh};
	close($fh);
	return;
}

sub from_client
{
	my ($self, $tunnel) = @_;
	my $n = sysread($tunnel->{client}, $tunnel->{in}, 65536, length $tunnel->{in});

	if (!$n)
	{
		# What is held can still be sent on later; the answer to it is kept for whoever asks.
		$self->drop_end($tunnel, 'client');
		$self->drop_end($tunnel, 'etcd') unless ($tunnel->{request}{state} // '') eq 'held';
		return;
	}
	return unless $tunnel->{in} =~ /^(\S+) (\S+) .*?\r\n\r\n/s;
	my ($path, $head) = ($2, $&);
	my $length = $head =~ /^content-length: *(\d+)/mi ? $1 : 0;
	return if length $tunnel->{in} < length($head) + $length;
	my $raw = substr($tunnel->{in}, 0, length($head) + $length, '');
	$self->take_request($tunnel, $path, $raw, substr($raw, length $head));
	return;
}

# A date as HTTP has it, moved.
sub later
{
	my ($date, $seconds) = @_;
	my ($day, $month, $year, $hour, $minute, $second) = $date =~ /(\d+) (\w+) (\d+) (\d+):(\d+):(\d+)/;
	my %month = map { (qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec))[$_], $_ } 0 .. 11;
	my $time = Time::Local::timegm($second, $minute, $hour, $day, $month{$month}, $year) + $seconds;

	return POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime $time);
}

sub decoded
{
	my ($word) = @_;
	my $text = MIME::Base64::decode_base64($word);

	return $text =~ /^[\x00\x20-\x7e]+$/ ? $text =~ s/\x00/\\0/gr : $word;
}

sub take_request
{
	my ($self, $tunnel, $path, $raw, $body) = @_;
	my $text = $body =~ s{"([A-Za-z0-9+/]{3,}={0,2})"}{length($1) % 4 ? "\"$1\"" : '"' . decoded($1) . '"'}ger;
	my $request = { id => $self->{next}++, path => $path, text => $text, raw => $raw, at => time(), state => 'sent' };
	my ($rule) = grep { $path =~ /$_->{path}/ && $text =~ /$_->{text}/ && ($_->{times} // 1) > 0 } @{ $self->{rules} };

	push @{ $self->{log} }, $request;
	shift @{ $self->{log} } if @{ $self->{log} } > 5000;
	$tunnel->{request} = $request;
	delete @$tunnel{qw(lose shift)};
	if (defined $rule)
	{
		$request->{rule} = $rule->{number};
		$rule->{times}-- if defined $rule->{times};
		if (($rule->{hold} // $rule->{lose} // '') eq 'request')
		{
			$request->{state} = defined $rule->{hold} ? 'held' : 'lost';
			$self->catch($tunnel) if $request->{state} eq 'held';
			return;
		}
		if (($rule->{hold} // '') eq 'answer')
		{
			$request->{state} = 'muted';
			$self->catch($tunnel);
		}
		$tunnel->{lose} = 1 if ($rule->{lose} // '') eq 'answer';
		$tunnel->{wait} = $rule->{delay} if defined $rule->{delay};
		$tunnel->{shift} = $rule->{shift} if defined $rule->{shift};
	}
	write_all($tunnel->{etcd}, $raw);
	return;
}

sub catch
{
	my ($self, $tunnel) = @_;

	$self->{caught}{ $tunnel->{request}{id} } = { tunnel => $tunnel, request => $tunnel->{request} };
	return;
}

sub from_etcd
{
	my ($self, $tunnel) = @_;
	my $n = sysread($tunnel->{etcd}, my $data, 65536);

	if (!$n)
	{
		$self->drop_end($tunnel, 'etcd');
		return if defined $tunnel->{due} || ($tunnel->{request}{state} // '') =~ /held|muted/;
		$self->drop_end($tunnel, 'client');
		return;
	}
	$tunnel->{request}{answer} .= $data if exists $self->{caught}{ $tunnel->{request}{id} // 0 };
	return unless defined $tunnel->{client};
	if (delete $tunnel->{lose})
	{
		$self->drop_end($tunnel, $_) foreach 'client', 'etcd';
		return;
	}
	$data =~ s/^(Date: )([^\r]*)/$1 . later($2, $tunnel->{shift})/mie if defined $tunnel->{shift};
	$tunnel->{out} .= $data;
	$tunnel->{due} = time() + delete $tunnel->{wait} if defined $tunnel->{wait};
	$self->flush($tunnel);
	return;
}

# What may go to the client goes.
sub flush
{
	my ($self, $tunnel) = @_;

	return if defined $tunnel->{due} || ($tunnel->{request}{state} // '') eq 'muted' || !defined $tunnel->{client};
	write_all($tunnel->{client}, $tunnel->{out}) if $tunnel->{out} ne '';
	$tunnel->{out} = '';
	return;
}

sub read_commands
{
	my ($self) = @_;

	sysread($self->{control}, $self->{commands}, 65536, length $self->{commands}) or POSIX::_exit(0);
	while ($self->{commands} =~ s/^(.*)\n//)
	{
		my $command = JSON::PP->new->utf8->decode($1);
		my $do      = "do_$command->{do}";

		write_all($self->{control}, JSON::PP->new->utf8->encode($self->$do($command)) . "\n");
	}
	return;
}

sub do_rule
{
	my ($self, $command) = @_;
	my $rule = $command->{rule};

	$rule->{number} = $self->{next}++;
	unshift @{ $self->{rules} }, $rule;
	my %seen;
	foreach my $tunnel (grep { $rule->{streams} && !$seen{$_}++ } values %{ $self->{tunnel} })
	{
		my $request = $tunnel->{request} // next;

		next unless $request->{path} =~ /$rule->{path}/ && $request->{text} =~ /$rule->{text}/ && $request->{state} eq 'sent';
		@$request{qw(state rule)} = ('muted', $rule->{number});
		$self->catch($tunnel);
	}
	return { rule => $rule->{number} };
}

sub do_remove
{
	my ($self, $command) = @_;
	my %gone = map { ($_ => 1) } @{ $command->{rules} };

	$self->{rules} = [ %gone ? grep { !$gone{ $_->{number} } } @{ $self->{rules} } : () ];
	return {};
}

sub describe
{
	my ($request) = @_;

	return { map { ($_ => $request->{$_}) } qw(id rule path text at) };
}

# In their order.
sub do_held
{
	my ($self) = @_;
	my @caught = map { $self->{caught}{$_}{request} } sort { $a <=> $b } keys %{ $self->{caught} };

	return { held => [ map { describe($_) } grep { $_->{state} =~ /held|muted/ } @caught ] };
}

sub do_release
{
	my ($self, $command) = @_;

	foreach my $caught (map { $self->{caught}{$_} // () } @{ $command->{ids} })
	{
		my ($tunnel, $request) = @$caught{qw(tunnel request)};
		my $state = $request->{state};

		$request->{state} = 'sent';
		write_all($tunnel->{etcd}, $request->{raw}) if $state eq 'held' && defined $tunnel->{etcd};
		$self->flush($tunnel) if $state eq 'muted';
		$self->drop_end($tunnel, 'client') if $state eq 'muted' && !defined $tunnel->{etcd};
	}
	return {};
}

sub do_answer
{
	my ($self, $command) = @_;
	return { answer => $self->{caught}{ $command->{id} }{request}{answer} };
}

sub do_log
{
	my ($self) = @_;

	return { log => [ map { describe($_) } @{ $self->{log} } ] };
}

1;
