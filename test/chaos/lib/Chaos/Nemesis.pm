# Breaks things, in an order that depends on a seed, and mends them again. A fault hits one machine; several machines are hit at a time.
#
# plan() says beforehand what is to happen when. tick() is called often: it begins what is due and mends what has lasted long enough; nothing in
# it waits for a server. heal() mends all. What it did is in the log, with times; "windows" are the times at which an instance was dead, stood
# still or was cut off, for the judge.

package Chaos::Nemesis;

use strict;
use warnings;

use Chaos::Random;
use JSON::PP;
use Time::HiRes qw(time);

# For each kind: what it hits (instance, member, fleet); where it can be had (netns; any); how long it lasts, in seconds, least and most, where
# "lease" stands for the lease; whether the instance loses sight of the others (cut), or all do (all); whether it can be had once only (once); begin and mend.
my %kinds = (
	'kill -9 of the postmaster' => {
		hits => 'instance', lasts => [ 0.2, 4 ], cut => 1,
		begin => sub { $_[0]{world}->stop($_[1], 'KILL') }, mend => sub { $_[0]{world}->start($_[1]) } },
	'kill -9 of everything' => {
		hits => 'instance', lasts => [ 1, 7 ], cut => 1,
		begin => sub { $_[0]{world}->kill_all($_[1]) }, mend => sub { $_[0]{world}->start($_[1]) } },
	'kill -9 of an executor' => { hits => 'instance', lasts => [ 0.5, 0.5 ], cut => 1, begin => sub { $_[0]->_signal_one('KILL', $_[1], qr/dsched executor/) } },
	'kill -9 of the scheduler' => { hits => 'instance', lasts => [ 0.5, 0.5 ], cut => 1, begin => sub { $_[0]->_signal_one('KILL', $_[1], qr/dsched scheduler/) } },
	'kill -9 of the coordinator' => { hits => 'instance', lasts => [ 0.5, 0.5 ], cut => 1, begin => sub { $_[0]->_signal_one('KILL', $_[1], qr/dsched coordinator/) } },
	'kill -9 of any process' => { hits => 'instance', lasts => [ 0.5, 0.5 ], cut => 1, begin => sub { $_[0]->_signal_one('KILL', $_[1], qr/./) } },
	'end of an executor' => { hits => 'instance', lasts => [ 0.5, 0.5 ], begin => sub { $_[0]->_signal_one('TERM', $_[1], qr/dsched executor/) } },
	'end of the scheduler' => { hits => 'instance', lasts => [ 0.5, 0.5 ], begin => sub { $_[0]->_signal_one('TERM', $_[1], qr/dsched scheduler/) } },
	'end of the coordinator' => { hits => 'instance', lasts => [ 0.5, 0.5 ], cut => 1, begin => sub { $_[0]->_signal_one('TERM', $_[1], qr/dsched coordinator/) } },
	'instance stands still, for less than the lease' => {
		hits => 'instance', lasts => [ 0.3, 2 ], cut => 1, begin => sub { $_[0]{world}->freeze($_[1]) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'instance stands still, for longer' => {
		hits => 'instance', lasts => [ 'lease', 'lease + 4' ], cut => 1, begin => sub { $_[0]{world}->freeze($_[1]) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'a process stands still' => {
		hits => 'instance', lasts => [ 0.5, 'lease + 3' ], cut => 1,
		begin => sub { $_[0]->_signal_one('STOP', $_[1], qr/dsched (executor|scheduler|coordinator)/) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'the coordinator stands still' => {
		hits => 'instance', lasts => [ 'lease', 'lease + 3' ], cut => 1,
		begin => sub { $_[0]->_signal_one('STOP', $_[1], qr/dsched coordinator/) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'restart, smart'     => { hits => 'instance', lasts => [ 1, 3 ], begin => sub { $_[0]{world}->stop($_[1], 'TERM') }, mend => sub { $_[0]->_restart($_[1]) } },
	'restart, fast'      => { hits => 'instance', lasts => [ 1, 3 ], begin => sub { $_[0]{world}->stop($_[1], 'INT') }, mend => sub { $_[0]->_restart($_[1]) } },
	'restart, immediate' => { hits => 'instance', lasts => [ 1, 3 ], cut => 1, begin => sub { $_[0]{world}->stop($_[1], 'QUIT') }, mend => sub { $_[0]->_restart($_[1]) } },
	'instance cut off' => { hits => 'instance', lasts => [ 1, 'lease + 4' ], cut => 1, begin => sub { $_[0]->_cut($_[1], 'cut') }, mend => sub { $_[0]->_cut($_[1], 'open') } },
	'instance hears nothing' => { hits => 'instance', lasts => [ 1, 'lease + 4' ], cut => 1, begin => sub { $_[0]->_cut($_[1], 'in') }, mend => sub { $_[0]->_cut($_[1], 'open') } },
	'instance is not heard'  => { hits => 'instance', lasts => [ 1, 'lease + 4' ], cut => 1, begin => sub { $_[0]->_cut($_[1], 'out') }, mend => sub { $_[0]->_cut($_[1], 'open') } },
	'instance is slow to etcd' => {
		hits => 'instance', lasts => [ 2, 'lease + 4' ], cut => 1, begin => sub { $_[0]->_slow($_[1], 1) }, mend => sub { $_[0]->_slow($_[1], 0) } },
	'packets are lost' => {
		hits => 'instance', where => 'netns', lasts => [ 2, 'lease + 4' ], cut => 1,
		begin => sub { $_[0]->_cut($_[1], 'both', $_[0]{random}->one_of(10, 30, 60)) }, mend => sub { $_[0]->_cut($_[1], 'open') } },
	'link down' => {
		hits => 'instance', where => 'netns', lasts => [ 1, 'lease + 3' ], cut => 1,
		begin => sub { $_[0]{world}->link_state($_[1], 'down') }, mend => sub { $_[0]{world}->link_state($_[1], 'up') } },
	'disk full' => {
		hits => 'instance', where => 'netns', lasts => [ 2, 'lease + 4' ], cut => 1, only => sub { $_[1]{small_disk} },
		begin => sub { $_[0]->_fill($_[1]) }, mend => sub { unlink "$_[1]{dir}/data/filler" } },
	'clock steps' => {
		hits => 'instance', lasts => [ 2, 'lease + 6' ], cut => 1, only => sub { $_[1]{preload} },
		begin => sub { $_[0]->_step($_[1], $_[0]{random}->one_of(-3600, -30, -1.2, 0.9, 1.4, 6, 40, 3600)) }, mend => sub { $_[0]->_step($_[1], 0) } },
	'standby promoted' => {
		hits => 'instance', lasts => [ 0, 'lease + 2' ], cut => 1, once => 1, only => sub { $_[1]{standby} },
		begin => sub { $_[0]->_lose_primary($_[1], $_[2]) }, mend => sub { $_[0]->_promotion($_[2]) } },

	'etcd member killed' => { hits => 'member', lasts => [ 1, 5 ], begin => sub { $_[0]{world}->stop($_[1], 'KILL') }, mend => sub { $_[0]{world}->start($_[1]) } },
	'etcd leader killed' => { hits => 'leader', lasts => [ 1, 5 ], all => 1, begin => sub { $_[0]{world}->stop($_[1], 'KILL') }, mend => sub { $_[0]{world}->start($_[1]) } },
	'etcd member restarted' => { hits => 'member', lasts => [ 0.5, 1 ], all => 1, begin => sub { $_[0]{world}->stop($_[1], 'TERM') }, mend => sub { $_[0]->_restart($_[1]) } },
	'etcd member stands still' => { hits => 'member', lasts => [ 0.5, 6 ], all => 1, begin => sub { $_[0]{world}->freeze($_[1]) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'etcd leader stands still' => { hits => 'leader', lasts => [ 0.5, 6 ], all => 1, begin => sub { $_[0]{world}->freeze($_[1]) }, mend => sub { $_[0]{world}->thaw($_[1]) } },
	'etcd without a quorum, briefly' => { hits => 'quorum', lasts => [ 0.5, 1.5 ], all => 1, begin => sub { $_[0]->_each_of($_[1], 'freeze') }, mend => sub { $_[0]->_each_of($_[1], 'thaw') } },
	'etcd without a quorum, longer than the lease' => {
		hits => 'quorum', lasts => [ 'lease + 1', 'lease + 5' ], all => 1,
		begin => sub { $_[0]->_each_of($_[1], 'stop', 'KILL') }, mend => sub { $_[0]->_each_of($_[1], 'start') } },
	'etcd member cut off from its peers' => {
		hits => 'member', where => 'netns', lasts => [ 1, 6 ], all => 1, begin => sub { $_[0]->_from_peers($_[1], 'in', 'out') }, mend => sub { $_[0]->_from_peers($_[1]) } },
	'etcd member hears nothing from its peers' => {
		hits => 'member', where => 'netns', lasts => [ 1, 6 ], all => 1, begin => sub { $_[0]->_from_peers($_[1], 'in') }, mend => sub { $_[0]->_from_peers($_[1]) } },
	'etcd member is not heard by its peers' => {
		hits => 'member', where => 'netns', lasts => [ 1, 6 ], all => 1, begin => sub { $_[0]->_from_peers($_[1], 'out') }, mend => sub { $_[0]->_from_peers($_[1]) } },
	'etcd is compacted' => { hits => 'etcd', lasts => [ 0, 0 ], begin => sub { $_[0]->_compact } },
	'etcd is defragmented' => { hits => 'etcd', lasts => [ 0, 0 ], all => 1, begin => sub { $_[0]{world}->ask_etcd($_, '/v3/maintenance/defragment', {}) foreach $_[0]->_sound_members } },
);

# new(world, seed, lease => 3)
sub new
{
	my ($class, $world, $seed, %opt) = @_;

	return bless { world => $world, random => Chaos::Random->new($seed + 2), lease => 3, log => [], windows => [], skewed => [], counts => {}, skipped => {}, active => [], replaced => {}, wrong => [], %opt },
	  $class;
}

# The kinds that can be had here, and those that cannot.
sub kinds
{
	my ($self) = @_;
	my @possible = grep { ($kinds{$_}{where} // 'any') eq 'any' || $kinds{$_}{where} eq $self->{world}{mode} } sort keys %kinds;

	# one that can be lost without losing the quorum is needed
	@possible = grep { $kinds{$_}{hits} ne 'quorum' } @possible if $self->{world}->members < 3;
	@possible = grep { my $kind = $kinds{$_}; !$kind->{only} || grep { $kind->{only}->($self, $_) } $self->{world}->instances } @possible;
	my %possible = map { ($_ => 1) } @possible;
	return (\@possible, [ grep { !$possible{$_} } sort keys %kinds ]);
}

# What is to happen within so many seconds: each kind once in a random order, and again; or the given kinds, once.
sub plan
{
	my ($self, $seconds, %opt) = @_;
	my ($possible) = $self->kinds;
	my @given = $opt{kinds} ? @{ $opt{kinds} } : ();
	my @deck = @given ? $self->{random}->shuffled(@given) : ();
	my $gap = @given ? $seconds / (@given + 1) : $opt{gap} // 2;
	my $at = $gap / 2;

	$self->{plan} = [];
	while ($at < $seconds)
	{
		if (!@deck)
		{
			last if @given;
			@deck = $self->{random}->shuffled(grep { !$self->{planned}{$_} } @$possible);
			# soon enough that much happens afterwards
			foreach my $once (grep { $kinds{$_}{once} } @deck)
			{
				my $soon = int(@deck < $seconds / $gap ? @deck / 2 : $seconds / $gap / 2);

				@deck = grep { $_ ne $once } @deck;
				splice(@deck, $self->{random}->below($soon + 1), 0, $once);
				$self->{planned}{$once} = 1;
			}
		}
		my $kind = shift @deck;
		my ($least, $most) = map { $_ =~ /lease(?: \+ (\d+))?/ ? $self->{lease} + ($1 // 0) : $_ } @{ $kinds{$kind}{lasts} };

		push @{ $self->{plan} }, { at => $at, kind => $kind, lasts => $self->{random}->between($least, $most), target => $self->{random}->below(1000) };
		$at += $gap * $self->{random}->between(0.3, 1.7);
	}
	return @{ $self->{plan} };
}

sub start
{
	my ($self) = @_;

	$self->{begun} = time();
	return;
}

sub over
{
	my ($self) = @_;

	return !@{ $self->{plan} } && !@{ $self->{active} };
}

sub _note
{
	my ($self, $what) = @_;

	$self->{world}->say_log($what);
	return;
}

sub tick
{
	my ($self) = @_;
	my $now = time();

	foreach my $fault (grep { $_->{until} <= $now } @{ $self->{active} })
	{
		$self->_mend($fault);
	}
	$self->{active} = [ grep { !$_->{mended} } @{ $self->{active} } ];
	while (@{ $self->{plan} } && $self->{begun} + $self->{plan}[0]{at} <= $now)
	{
		$self->_begin(shift @{ $self->{plan} });
	}
	return;
}

# The machine, or machines, that a fault of this kind can hit now: those that are whole.
sub _targets
{
	my ($self, $kind, $number) = @_;
	my $world = $self->{world};

	return [undef] if $kind->{hits} eq 'etcd';
	if ($kind->{hits} eq 'leader')
	{
		my $leader = $world->leader;

		return $leader && !%{ $leader->{faults} } ? [$leader] : undef;
	}
	my @whole = grep { !%{ $_->{faults} } && $_->{pid} } $kind->{hits} eq 'instance' ? $world->instances : $world->members;
	@whole = grep { $kind->{only}->($self, $_) } @whole if $kind->{only};
	return undef unless @whole;
	@whole = @whole[ map { ($_ + $number) % @whole } 0 .. $#whole ];
	if ($kind->{hits} eq 'quorum')
	{
		my $needed = int($world->members / 2) + 1;

		return @whole >= $needed ? [ @whole[ 0 .. $needed - 1 ] ] : undef;
	}
	return [ $whole[0] ];
}

sub _begin
{
	my ($self, $planned) = @_;
	my $kind = $kinds{ $planned->{kind} };
	my $targets = $self->_targets($kind, $planned->{target});

	if (!$targets && $kind->{once} && $planned->{tries}++ < 20)
	{
		$planned->{at} = time() - $self->{begun} + 1;
		$self->{plan} = [ sort { $a->{at} <=> $b->{at} } $planned, @{ $self->{plan} } ];
		return;
	}
	if (!$targets)
	{
		$self->{skipped}{ $planned->{kind} }++;
		return $self->_note("$planned->{kind}: left out, nothing to hit is whole");
	}
	my @names = map { $_->{name} } grep { defined } @$targets;
	my $fault = { kind => $planned->{kind}, targets => $targets, until => time() + $planned->{lasts}, windows => [] };

	$self->_note(sprintf('%s%s, for %.1f s', join(' ', $planned->{kind}, @names ? '(' . join(', ', @names) . ')' : ()), '', $planned->{lasts}));
	my $from = int(time() * 1_000_000);
	foreach my $inst ($kind->{all} ? '*' : $kind->{cut} ? @names : ())
	{
		push @{ $fault->{windows} }, { inst => $inst, from => $from, kind => $planned->{kind} };
	}
	push @{ $self->{windows} }, @{ $fault->{windows} };
	$_->{faults}{ $planned->{kind} } = 1 foreach grep { defined } @$targets;
	$self->{counts}{ $planned->{kind} }++;
	push @{ $self->{active} }, $fault;
	$kind->{begin}->($self, $kind->{hits} eq 'quorum' ? $targets : $targets->[0], $fault);
	return;
}

sub _mend
{
	my ($self, $fault) = @_;
	my $kind = $kinds{ $fault->{kind} };

	if ($kind->{mend})
	{
		my $done = $kind->{mend}->($self, $kind->{hits} eq 'quorum' ? $fault->{targets} : $fault->{targets}[0], $fault);

		# a server that is told to stop, or promoted, takes its time
		return $fault->{until} = time() + 0.3 if defined $done && $done eq 'later';
		$self->_note("mended: $fault->{kind}");
	}
	$_->{to} = int(time() * 1_000_000) foreach @{ $fault->{windows} };
	delete $_->{faults}{ $fault->{kind} } foreach grep { defined } @{ $fault->{targets} };
	$fault->{mended} = 1;
	return;
}

# Mends all that is broken, at once.
sub heal
{
	my ($self) = @_;

	$self->{plan} = [];
	while (@{ $self->{active} })
	{
		$self->_mend($_) foreach @{ $self->{active} };
		$self->{active} = [ grep { !$_->{mended} } @{ $self->{active} } ];
		$self->{world}->tend;
		select(undef, undef, undef, 0.1);
	}
	$self->{world}->start($_) foreach $self->{world}->members, $self->{world}->instances;
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# How
# ---------------------------------------------------------------------------------------------------------------------

sub _signal_one
{
	my ($self, $signal, $machine, $pattern) = @_;
	my @pids = $self->{world}->processes($machine, $pattern);

	return $self->_note("$machine->{name}: there is no such process") unless @pids;
	my $pid = $self->{random}->one_of(@pids);
	my $title = Chaos::World::_title($pid);
	$self->_note("$machine->{name}: $signal to $pid ($title)");
	kill($signal, $pid);
	return;
}

# Starts a server that was told to stop, when it has. One that does not is stopped harder.
sub _restart
{
	my ($self, $machine) = @_;

	if ($machine->{pid})
	{
		$machine->{stopping} //= time();
		if (time() > $machine->{stopping} + 25 && !$machine->{forced})
		{
			$machine->{forced} = 1;
			$self->_note("$machine->{name}: does not stop, is killed");
			push @{ $self->{windows} }, { inst => $machine->{name}, from => int($machine->{stopping} * 1_000_000), to => int(time() * 1_000_000), kind => 'does not stop' };
			$self->{counts}{'(servers that did not stop within 25 s)'}++ if $machine->{name} !~ /^etcd/;
			$self->{world}->kill_all($machine);
		}
		return 'later';
	}
	delete @$machine{qw(stopping forced)};
	$self->{world}->start($machine);
	return;
}

# What gets through between an instance and etcd: cut (nothing), in, out (what is blocked), both (with a percentage lost), open; alone: as cut,
# and nothing between it and its standby.
sub _cut
{
	my ($self, $machine, $what, $percent) = @_;

	return $machine->{proxy}->set($what eq 'alone' ? 'cut' : $what) if $machine->{proxy};
	my @ways = $what eq 'open' ? () : $what =~ /^(in|out)$/ ? $what : qw(in out);
	my @peers = ($self->{world}->members, $what eq 'alone' ? $self->{world}->others : ());
	$self->{world}->filter($machine, map { my $way = $_; map { { way => $way, peer => $_, percent => $percent // 100 } } @peers } @ways);
	return;
}

sub _slow
{
	my ($self, $machine, $slow) = @_;

	if ($machine->{proxy})
	{
		return $machine->{proxy}->set($slow ? 'delay ' . $self->{random}->one_of(50, 200, 500, 1500) : 'open');
	}
	return $self->{world}->throttle($machine, $slow ? $self->{random}->one_of(32, 64, 128, 512) : 0);
}

sub _from_peers
{
	my ($self, $member, @ways) = @_;

	$self->{world}->filter($member,
		map { my $way = $_; map { { way => $way, peer => $_ } } grep { $_ != $member } $self->{world}->members } @ways);
	return;
}

sub _each_of
{
	my ($self, $machines, $what, @arguments) = @_;

	$self->{world}->$what($_, @arguments) foreach @$machines;
	return;
}

sub _fill
{
	my ($self, $machine) = @_;
	my $block = 'x' x 65536;

	open(my $file, '>', "$machine->{dir}/data/filler") or return $self->_note("$machine->{name}: no file can be made: $!");
	1 while syswrite($file, $block);
	close($file);
	return;
}

# Sets the clock of an instance so many seconds ahead, and keeps in mind when it was how much.
sub _step
{
	my ($self, $machine, $ahead) = @_;
	my $now = int(time() * 1_000_000);

	foreach my $skew (grep { !defined $_->{to} } @{ $self->{skewed} })
	{
		$skew->{to} = $now;
	}
	push @{ $self->{skewed} }, { inst => $machine->{name}, from => $now, ahead => $ahead * 1_000_000 } if $ahead;
	$self->_note("$machine->{name}: its clock is $ahead s ahead");
	$self->{world}->set_clock($machine, $ahead * 1_000_000);
	return;
}

# The primary is lost to the others: dead, or alive and cut off.
sub _lose_primary
{
	my ($self, $primary, $fault) = @_;

	$fault->{primary} = $primary;
	$fault->{standby} = $primary->{standby};
	$fault->{how} = $self->{random}->one_of('killed', 'cut off', 'cut off');
	$fault->{returns} = $self->{random}->below(3) > 0;
	$self->_note("$primary->{name}: $fault->{how}, and " . ($fault->{returns} ? 'comes back later' : 'does not come back'));
	$fault->{how} eq 'killed' ? $self->{world}->kill_all($primary) : $self->_cut($primary, 'alone');
	return;
}

# Its standby is promoted and has its name; then the former primary comes back and has to stay out; in the end it is stopped for good. One step
# at a time, as each takes a while.
sub _promotion
{
	my ($self, $fault) = @_;
	my $world = $self->{world};
	my ($primary, $standby) = @$fault{qw(primary standby)};
	my $step = $fault->{step} // 'promote';
	my $next = sub { $fault->{step} = $_[0]; $fault->{since} = time(); return 'later' };

	if ($step eq 'promote')
	{
		$self->_note("$standby->{name}: is promoted");
		$world->promote($standby);
		return $next->('wait');
	}
	if ($step eq 'wait')
	{
		return $self->_gone_wrong($fault, 'the standby was not promoted') if time() > $fault->{since} + 60;
		return 'later' if ($world->ask($standby, 'SELECT pg_is_in_recovery()', 2) // '') ne 'f';
		$standby->{faults} = $primary->{faults};
		$world->replace($primary);
		# by its own clock it stopped within the lease
		$self->{replaced}{ $primary->{name} } = { name => $standby->{name}, ended => $fault->{windows}[0]{from} + 1_000_000 * ($self->{lease} + 1) };
		$self->_note("$standby->{name}: is the one that was promoted");
		return $next->('back');
	}
	# not before the name is the other's
	if ($step eq 'back')
	{
		my $taken = $world->ask($standby, "SELECT state FROM dsched.status() WHERE component = 'etcd'", 2) // '';

		return $self->_gone_wrong($fault, 'the promoted standby does not become a member') if time() > $fault->{since} + 60;
		return 'later' if $taken ne 'ok';
		return $next->('end') if !$fault->{returns};
		$self->_note("$primary->{name}: is back");
		$fault->{how} eq 'killed' ? $world->start($primary) : $self->_cut($primary, 'open');
		return $next->('refused');
	}
	if ($step eq 'refused')
	{
		my $says = $world->ask($primary, "SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'etcd'", 2) // '';

		return $self->_gone_wrong($fault, "the former primary was not refused: $says") if time() > $fault->{since} + 60;
		return 'later' if $says !~ /^problem.*in use/s;
		$self->_note("$primary->{name}: $says");
		$self->{counts}{'(former primaries that came back and were refused)'}++;
		return $next->('end');
	}
	$world->kill_all($primary);
	$self->_cut($primary, 'open');
	$fault->{windows}[0]{to} = int(time() * 1_000_000);
	$self->_note("$primary->{name}: is stopped for good");
	return;
}

# Ends a promotion at any rate.
sub _gone_wrong
{
	my ($self, $fault, $what) = @_;

	$self->_note($what);
	push @{ $self->{wrong} }, $what;
	$fault->{step} = 'end';
	return 'later';
}

sub _sound_members
{
	my ($self) = @_;

	return grep { $_->{pid} && !%{ $_->{faults} } } $self->{world}->members;
}

# Throws away etcd's history up to now, also what watches have not seen.
sub _compact
{
	my ($self) = @_;
	my ($member) = $self->_sound_members;
	my $status = $member && $self->{world}->ask_etcd($member, '/v3/maintenance/status', {});

	$self->{world}->ask_etcd($member, '/v3/kv/compaction', { revision => $status->{header}{revision}, physical => JSON::PP::true }) if $status;
	return;
}

1;
