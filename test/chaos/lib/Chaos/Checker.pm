# The judge of a chaos run. It knows nothing of servers: it is given a history, a plain structure, and says what is wrong with it.
# checker.t shows for each rule a history that breaks it.
#
# A history (times are microseconds since 1970):
#	jobs		{ name => { mode, schedule, sure, atomic, effect, overlap, misfire, max_attempts, each, stable } }
#		mode		at_least_once, at_most_once, exactly_once
#		schedule	{ every => seconds, anchor => time }, { cron => seconds }, a divisor of 60, or { once => time }
#		sure		[ [ from, to ], ... ]: between these moments this schedule was in force for certain: each of its slots after "from" and
#					up to "to" (left out: the end) must be accounted for; [ from, to, schedule ] if it had another one then
#		stable		it never had another schedule: what ran must be one of its slots
#		atomic		effect and row commit in one transaction
#		effect		"one": a run that succeeds leaves one effect; "none": no run can succeed; "free": not counted
#		each		a list of instances, each of which has all of the slots for itself
#	effects		[ { inst, job, slot, trigger, attempt, at, commit } ]: what was committed, on which instance, and when
#	runs		[ { inst, job, slot, last_slot, trigger, attempt, status, reason, epoch, commit } ]: rows of dsched.run
#	begins		[ { inst, job, slot, trigger, attempt } ]: of jobs that log each start outside the databases
#	requests	[ { job, trigger, dropped, slots } ]: run_now(), and backfill() with its slots, that were acknowledged
#	prepared	[ text ]: prepared transactions that are there in the end
#	open		[ { inst, job, slot } ]: what the instances still show as open
#	windows		[ { inst, from, to } ]: when an instance was dead, stood still or was cut off; inst "*": all of them. What it had committed
#				shortly before, or while it was cut off, may not have been known to the others
#	etcd_fault	[ { from, to } ]: when etcd itself ended leases that were alive
#	skewed		[ { inst, from, to } ]: when its clock was not that of the others
#	replaced	[ { inst, ended } ]: servers whose standby was promoted and took their place: what they had alone is in effects and runs under "inst",
#				and is not there any more. "ended": when they had to have stopped, by their own clock
#	until		slots up to here are judged
#
# What it proves:
#	accounted	every slot that surely existed has an outcome: a row of its own, or one that stands for a range of slots
#	lost		none of them has only attempts that were lost, where the mode makes them again
#	doubled		no slot has two effects: with at_least_once but where the instance with the first was in a window, with the
#				others never. One instance never makes a slot twice, whatever the mode
#	agreement	on each instance the effects are those of the rows that say "succeeded", one for one
#	outcome		a slot of exactly_once has one outcome in the whole fleet, and an effect only if that is "succeeded". That it was passed over may be
#				recorded besides by an instance that was in a window
#	repeated	no slot of at_most_once was begun twice, also where nothing was committed
#	token		in the order of the commits of a job its fencing tokens never shrink
#	early		nothing is done before its time, beyond the skew of clocks that dsched allows
#	policy		nothing is missed with misfire "all", nothing skipped with overlap "queue_all" and "allow"
#	second		no job is done by a server whose standby has taken its place, but those of each instance
#	phantom		no effect of a time that is no slot
#	request		an acknowledged run_now() was carried out
#	prepared, open	nothing is left over
#
# What it cannot see: slots of jobs while they are being changed (account.psql judges these), or just before that while an instance is away; whether a policy chose the right slots to pass over.

package Chaos::Checker;

use strict;
use warnings;

# Before a window: what was committed so shortly before may not have been reported. After it: until the instance has noticed, or is back.
our $SLACK = 3_000_000;

my %final = map { ($_ => 1) } qw(succeeded failed timed_out cancelled skipped missed);

# The slots of a schedule after "from" and up to "to".
sub slots
{
	my ($schedule, $from, $to) = @_;
	my @slots;

	if (defined $schedule->{once})
	{
		return $schedule->{once} > $from && $schedule->{once} <= $to ? $schedule->{once} : ();
	}
	my $period = ($schedule->{every} // $schedule->{cron}) * 1_000_000;
	my $anchor = $schedule->{anchor} // 0;		# of cron: midnight, and each minute, is a multiple
	my $n = int(($from - $anchor) / $period);

	$n = 0 if $n < 0;
	for (;; $n++)
	{
		my $slot = $anchor + $n * $period;

		next if $slot <= $from || (defined $schedule->{every} && $n == 0);
		last if $slot > $to;
		push @slots, $slot;
	}
	return @slots;
}

sub is_slot
{
	my ($schedule, $slot) = @_;

	return $slot == $schedule->{once} if defined $schedule->{once};
	return ($slot - ($schedule->{anchor} // 0)) % (($schedule->{every} // $schedule->{cron}) * 1_000_000) == 0;
}

sub stamp
{
	my ($time) = @_;
	my @t = gmtime(int($time / 1_000_000));

	return sprintf('%02d:%02d:%02d.%03d', @t[ 2, 1, 0 ], int($time % 1_000_000 / 1000));
}

# Of what a former primary has, what its promoted standby (inst) has not. A commit that is on both is the same row; a run that was prepared is committed
# by each when it can be.
sub beyond
{
	my ($inst, $former, $all) = @_;
	my $same = sub { join(' ', map { $_ // '' } @{ $_[0] }{qw(job slot trigger attempt at status epoch started)}) };
	my %there = map { ($same->($_) => 1) } grep { $_->{inst} eq $inst } @$all;

	# what was under way there is of no interest
	return grep { !$there{ $same->($_) } && (!defined $_->{status} || $final{ $_->{status} }) } map { { %$_ } } @$former;
}

# Judges; returns { violations => [ { rule, job, slot, what } ], counts => { ... } }.
sub judge
{
	my ($history) = @_;
	my $self = bless { h => $history, violations => [], counts => {} }, __PACKAGE__;

	$self->_index;
	$self->_slots;
	$self->_doubled;
	$self->_agreement;
	$self->_outcomes;
	$self->_repeated;
	$self->_tokens;
	$self->_phantoms;
	$self->_second;
	$self->_early;
	$self->_requests;
	$self->_wrong('prepared', '', undef, "a prepared transaction is left: $_") foreach @{ $history->{prepared} // [] };
	foreach my $open (grep { $_->{slot} <= $history->{until} } @{ $history->{open} // [] })
	{
		$self->_wrong('open', $open->{job}, $open->{slot}, "is still open on $open->{inst}");
	}
	return { violations => $self->{violations}, counts => $self->{counts} };
}

sub _wrong
{
	my ($self, $rule, $job, $slot, $what) = @_;

	push @{ $self->{violations} }, { rule => $rule, job => $job, slot => $slot, what => $what };
	$self->{counts}{"violations: $rule"}++;
	return;
}

sub _index
{
	my ($self) = @_;

	foreach my $run (@{ $self->{h}{runs} })
	{
		my $known = $self->{h}{jobs}{ $run->{job} } ? 1 : 0;

		$self->{counts}{"rows: $run->{status}"}++;
		next unless $known;
		if (defined $run->{last_slot} && $run->{last_slot} > $run->{slot})
		{
			push @{ $self->{ranges}{ $run->{job} } }, $run if $run->{trigger} == 0;
		}
		push @{ $self->{rows}{ $run->{job} }{ $run->{trigger} }{ $run->{slot} } }, $run;
	}
	foreach my $effect (@{ $self->{h}{effects} })
	{
		push @{ $self->{effects}{ $effect->{job} }{ $effect->{trigger} }{ $effect->{slot} } }, $effect;
	}
	return;
}

# All rows that speak of a slot of the schedule.
sub _about
{
	my ($self, $job, $slot, $inst) = @_;
	my @rows = @{ $self->{rows}{$job}{0}{$slot} // [] };

	push @rows, grep { $_->{slot} < $slot && $slot <= $_->{last_slot} } @{ $self->{ranges}{$job} // [] };
	@rows = grep { $_->{inst} eq $inst } @rows if defined $inst;
	return @rows;
}

sub _said
{
	return join(', ', map { "$_->{status} (attempt $_->{attempt}) on $_->{inst}" } sort { $a->{attempt} <=> $b->{attempt} } @_) || 'nothing';
}

# accounted, lost, policy: every slot that surely existed.
sub _slots
{
	my ($self) = @_;

	foreach my $name (sort keys %{ $self->{h}{jobs} })
	{
		my $job = $self->{h}{jobs}{$name};

		foreach my $sure (@{ $job->{sure} // [] })
		{
			my $to = defined $sure->[1] && $sure->[1] < $self->{h}{until} ? $sure->[1] : $self->{h}{until};

			foreach my $slot (slots($sure->[2] // $job->{schedule}, $sure->[0], $to))
			{
				if (defined $sure->[1] && $self->_owner_may_be_away($slot, $sure->[1]))
				{
					$self->{counts}{'slots not judged: their job was changed before their owner was back'}++;
					next;
				}
				$self->_one_slot($name, $job, $slot, $_) foreach $job->{each} ? @{ $job->{each} } : undef;
			}
		}
		foreach my $run (map { @$_ } map { values %$_ } values %{ $self->{rows}{$name} // {} })
		{
			$self->_wrong('policy', $name, $run->{slot}, "is missed, but misfire is all")
			  if $run->{status} eq 'missed' && ($job->{misfire} // '') eq 'all' && ($run->{reason} // '') eq 'late';
			$self->_wrong('policy', $name, $run->{slot}, "is skipped, but overlap is $job->{overlap}")
			  if $run->{status} eq 'skipped' && ($run->{reason} // '') eq 'overlap' && ($job->{overlap} // '') =~ /^(queue_all|allow)$/;
		}
	}
	return;
}

# A slot that came due while its owner was away, and whose job was changed before that or another one was there, has no row: a known limit.
sub _owner_may_be_away
{
	my ($self, $slot, $changed) = @_;

	return $slot > $changed - 15_000_000
	  && grep { $_->{from} - $SLACK <= $changed && ($_->{to} // 9e18) + $SLACK >= $slot } @{ $self->{h}{windows} // [] };
}

sub _one_slot
{
	my ($self, $name, $job, $slot, $inst) = @_;
	my @rows = grep { !$self->_is_replaced($_->{inst}) } $self->_about($name, $slot, $inst);
	my $where = defined $inst ? " on $inst" : '';
	my ($end) = grep { $final{ $_->{status} } } @rows;
	my $policy = join('/', $job->{overlap} // '-', $job->{misfire} // '-');

	$self->{counts}{"slots: $job->{mode}"}++;
	$self->{counts}{"slots by policy (overlap/misfire): $policy"}++;
	if (!@rows)
	{
		$self->{counts}{lost}++;
		$self->_wrong('accounted', $name, $slot, "has no outcome$where");
	}
	elsif (!$end && $job->{mode} eq 'at_least_once')
	{
		$self->{counts}{lost}++;
		$self->_wrong('lost', $name, $slot, "was not made again$where: " . _said(@rows));
	}
	elsif (!$end && grep { $_->{status} ne 'lost' } @rows)
	{
		$self->{counts}{lost}++;
		$self->_wrong('accounted', $name, $slot, "has no outcome$where: " . _said(@rows));
	}
	return;
}

# Was the instance in a window around this moment?
sub _in_window
{
	my ($self, $inst, $time, $slack) = @_;

	$slack //= $SLACK;
	return scalar grep {
		($_->{inst} eq '*' || $_->{inst} eq $inst) && $time >= $_->{from} - $slack && (!defined $_->{to} || $time <= $_->{to} + $slack)
	} @{ $self->{h}{windows} // [] };
}

# doubled: no slot has two effects, but where the mode and the faults allow it.
sub _doubled
{
	my ($self) = @_;

	foreach my $name (sort keys %{ $self->{effects} // {} })
	{
		my $job = $self->{h}{jobs}{$name} // next;

		next if ($job->{effect} // 'one') eq 'free';
		foreach my $trigger (sort keys %{ $self->{effects}{$name} })
		{
			foreach my $slot (sort keys %{ $self->{effects}{$name}{$trigger} })
			{
				my @effects = sort { $a->{commit} <=> $b->{commit} } @{ $self->{effects}{$name}{$trigger}{$slot} };
				my %on;

				push @{ $on{ $_->{inst} } }, $_ foreach @effects;
				foreach my $inst (grep { @{ $on{$_} } > 1 } sort keys %on)
				{
					$self->{counts}{'doubled, forbidden'}++;
					$self->_wrong('doubled', $name, $slot, 'was made ' . @{ $on{$inst} } . " times on $inst" . _trigger($trigger));
				}
				next if $job->{each} || keys %on < 2;
				$self->_judge_double($name, $job, $slot, $trigger, @effects);
			}
		}
	}
	return;
}

sub _trigger
{
	return $_[0] ? " (request $_[0])" : '';
}

sub _judge_double
{
	my ($self, $name, $job, $slot, $trigger, @effects) = @_;
	my $where = join(', ', map { "$_->{inst} at " . stamp($_->{commit}) } @effects);

	# all but the last must have been out of the others' sight
	if ($job->{mode} eq 'at_least_once' && !grep { !$self->_in_window($_->{inst}, $_->{commit}) } @effects[ 0 .. $#effects - 1 ])
	{
		$self->{counts}{'doubled, allowed'}++;
		return;
	}
	$self->{counts}{'doubled, forbidden'}++;
	$self->_wrong('doubled', $name, $slot, "has effects on $where" . _trigger($trigger) . " ($job->{mode})");
	return;
}

# agreement: what is recorded as succeeded is what had its effect, on each instance.
sub _agreement
{
	my ($self) = @_;
	my %balance;

	foreach my $run (grep { $_->{status} eq 'succeeded' } @{ $self->{h}{runs} })
	{
		$balance{"$run->{job} $run->{slot} $run->{trigger} $run->{attempt} $run->{inst}"}[0]++;
	}
	foreach my $effect (@{ $self->{h}{effects} })
	{
		$balance{"$effect->{job} $effect->{slot} $effect->{trigger} $effect->{attempt} $effect->{inst}"}[1]++;
	}
	foreach my $key (sort keys %balance)
	{
		my ($name, $slot, $trigger, $attempt, $inst) = split / /, $key;
		my ($rows, $effects) = map { $_ // 0 } @{ $balance{$key} }[ 0, 1 ];
		my $job = $self->{h}{jobs}{$name} // next;
		my $kind = $job->{effect} // 'one';

		next if $kind eq 'free' || ($kind eq 'one' && $rows == $effects) || ($kind eq 'one' && !$job->{atomic} && $rows <= $effects);
		$self->_wrong('agreement', $name, $slot, "attempt $attempt on $inst" . _trigger($trigger) . ": $rows rows say succeeded, $effects effects");
	}
	return;
}

# outcome: of exactly_once there is one in the fleet, and the effect belongs to it.
sub _outcomes
{
	my ($self) = @_;

	foreach my $name (grep { $self->{h}{jobs}{$_}{mode} eq 'exactly_once' && !$self->{h}{jobs}{$_}{each} } sort keys %{ $self->{h}{jobs} })
	{
		foreach my $trigger (sort keys %{ $self->{rows}{$name} // {} })
		{
			my %by_slot = %{ $self->{rows}{$name}{$trigger} };

			foreach my $slot (sort keys %by_slot)
			{
				my @rows = $trigger ? @{ $by_slot{$slot} } : $self->_about($name, $slot);
				my @done = grep { $_->{status} eq 'succeeded' } @rows;
				my @other = grep { $_->{status} =~ /^(skipped|missed|cancelled)$/ } @rows;

				# what an owner recorded while it could not report is not known to the next one
				my @unknown = grep { $self->_in_window($_->{inst}, $_->{commit}) && !grep { $_->{status} eq 'succeeded' } $self->_about($name, $slot, $_->{inst}) } @other;
				if (@done == 1 && @other && @unknown == @other && !$trigger)
				{
					$self->{counts}{'passed over by an instance that was cut off, made by another'}++;
					next;
				}
				$self->_wrong('outcome', $name, $slot, 'has several outcomes' . _trigger($trigger) . ': ' . _said(@rows))
				  if @done > 1 || (@done && @other);
			}
		}
	}
	return;
}

# repeated: at_most_once does not even begin twice. A run that failed may have another attempt, one that was lost may not.
sub _repeated
{
	my ($self) = @_;
	my %begun;

	push @{ $begun{ $_->{job} }{"$_->{slot} $_->{trigger}"} }, $_ foreach @{ $self->{h}{begins} // [] };
	foreach my $name (grep { ($self->{h}{jobs}{$_}{mode} // '') eq 'at_most_once' } sort keys %begun)
	{
		foreach my $key (sort keys %{ $begun{$name} })
		{
			my ($slot, $trigger) = split / /, $key;
			my @begins = @{ $begun{$name}{$key} };
			my $failed = grep { $_->{status} =~ /^(failed|timed_out)$/ } @{ $self->{rows}{$name}{$trigger}{$slot} // [] };

			$self->_wrong('repeated', $name, $slot,
				'was begun on ' . join(', then ', map { "$_->{inst} (attempt $_->{attempt})" } @begins) . _trigger($trigger))
			  if @begins > 1 + $failed;
		}
	}
	return;
}

# token: the commits of a job, in their order. What exactly_once has decided is committed whenever its instance is back, so there the
# moment of the effect counts.
sub _tokens
{
	my ($self) = @_;
	my (%commits, %moment);

	foreach my $effect (@{ $self->{h}{effects} })
	{
		$moment{"$effect->{job} $effect->{slot} $effect->{trigger} $effect->{attempt} $effect->{inst}"} = $effect->{at};
	}
	foreach my $run (grep { $_->{status} eq 'succeeded' && defined $_->{epoch} && $_->{epoch} > 0 } @{ $self->{h}{runs} })
	{
		my $job = $self->{h}{jobs}{ $run->{job} } // next;
		my $time = $job->{mode} eq 'exactly_once'
		  ? $moment{"$run->{job} $run->{slot} $run->{trigger} $run->{attempt} $run->{inst}"} : $run->{commit};

		next if !defined $time || $job->{each};
		next if grep { $_->{inst} eq $run->{inst} && $time >= $_->{from} - 10_000_000 && $time <= ($_->{to} // 9e18) + 10_000_000 }
		  @{ $self->{h}{skewed} // [] };
		push @{ $commits{ $run->{job} } }, [ $time, $run ];
	}
	foreach my $name (sort keys %commits)
	{
		my $before;

		foreach my $commit (sort { $a->[0] <=> $b->[0] } @{ $commits{$name} })
		{
			my ($time, $run) = @$commit;

			$self->{counts}{'commits compared by their token'}++;
			if ($before && $run->{epoch} < $before->[1]{epoch} && grep { $time >= $_->{from} && $time <= $_->{to} } @{ $self->{h}{etcd_fault} // [] })
			{
				$self->{counts}{'older tokens, by a known fault of this etcd'}++;
				next;
			}
			$self->_wrong('token', $name, $run->{slot}, "was committed on $run->{inst} at " . stamp($time) .
				" under $run->{epoch}, after a commit on $before->[1]{inst} at " . stamp($before->[0]) . " under $before->[1]{epoch}")
			  if $before && $run->{epoch} < $before->[1]{epoch};
			$before = $commit if !$before || $run->{epoch} >= $before->[1]{epoch};
		}
	}
	return;
}

sub _phantoms
{
	my ($self) = @_;

	foreach my $name (grep { $self->{h}{jobs}{$_}{stable} } sort keys %{ $self->{h}{jobs} })
	{
		foreach my $slot (sort keys %{ $self->{effects}{$name}{0} // {} })
		{
			$self->_wrong('phantom', $name, $slot, 'has an effect, but is no slot') if !is_slot($self->{h}{jobs}{$name}{schedule}, $slot);
		}
	}
	return;
}

sub _is_replaced
{
	my ($self, $inst) = @_;
	my ($replaced) = grep { $_->{inst} eq $inst } @{ $self->{h}{replaced} // [] };

	return $replaced;
}

# second: a server whose standby has its place. Jobs of each instance go on also without etcd.
sub _second
{
	my ($self) = @_;

	foreach my $effect (@{ $self->{h}{effects} })
	{
		my $replaced = $self->_is_replaced($effect->{inst}) // next;

		next if $effect->{commit} <= $replaced->{ended} || ($self->{h}{jobs}{ $effect->{job} } // { each => 1 })->{each};
		$self->_wrong('second', $effect->{job}, $effect->{slot}, "was committed on $effect->{inst} at " . stamp($effect->{commit}) . ', when another had its place');
	}
	return;
}

# early: as clocks may differ by two seconds, of which one side is known to the second.
sub _early
{
	my ($self) = @_;

	foreach my $one (grep { $_->{trigger} == 0 && $self->{h}{jobs}{ $_->{job} } } @{ $self->{h}{effects} }, @{ $self->{h}{runs} })
	{
		my $slot = $one->{last_slot} // $one->{slot};

		# of a row alone it cannot be known by which clock its time is
		next if defined $one->{status} && grep { $_->{inst} eq $one->{inst} } @{ $self->{h}{skewed} // [] };
		$self->_wrong('early', $one->{job}, $one->{slot}, 'has ' . (defined $one->{status} ? "a row ($one->{status})" : 'an effect') . " on $one->{inst} from " . stamp($one->{commit}))
		  if $one->{commit} < $slot - 3_500_000;
	}
	return;
}

sub _requests
{
	my ($self) = @_;

	foreach my $request (@{ $self->{h}{requests} // [] })
	{
		$self->{counts}{'requests'}++;
		next if $request->{dropped};
		my $by_slot = $self->{rows}{ $request->{job} }{ $request->{trigger} } // {};
		my $repeats = ($self->{h}{jobs}{ $request->{job} }{mode} // '') eq 'at_least_once';

		foreach my $slot ($request->{slots} ? @{ $request->{slots} } : undef)
		{
			my @rows = defined $slot ? @{ $by_slot->{$slot} // [] } : map { @$_ } values %$by_slot;

			push @rows, grep { $_->{slot} < $slot && $slot <= ($_->{last_slot} // 0) } map { @$_ } values %$by_slot if defined $slot;
			@rows = grep { !$self->_is_replaced($_->{inst}) } @rows;
			$self->_wrong('request', $request->{job}, $slot, "request $request->{trigger} was acknowledged and not carried out: " . _said(@rows))
			  if !grep { $final{ $_->{status} } || ($_->{status} eq 'lost' && !$repeats) } @rows;
		}
	}
	return;
}

1;
