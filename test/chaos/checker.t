# The judge of the chaos runs finds what it is there for: for each rule a history that is right, and the same with one thing wrong.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Chaos::Checker;
use Test::More;

my $s = 1_000_000;

# A history of three jobs on two instances over ten seconds in which all is well; the caller may spoil it.
sub history
{
	my ($spoil) = @_;
	my %h = (until => 10 * $s, jobs => {}, effects => [], runs => [], begins => [], requests => [], prepared => [], open => [], windows => []);

	foreach my $mode (qw(at_least_once at_most_once exactly_once))
	{
		$h{jobs}{$mode} = { mode => $mode, schedule => { cron => 1 }, sure => [ [ 0, undef ] ], stable => 1, atomic => 1, effect => 'one',
			overlap => 'queue_all', misfire => 'all', max_attempts => 1 };
		for my $i (1 .. 10)
		{
			my ($inst, $epoch) = $i <= 5 ? ('a', 7) : ('b', 9);
			my %run = (inst => $inst, job => $mode, slot => $i * $s, trigger => 0, attempt => 1);

			push @{ $h{runs} }, { %run, status => 'succeeded', reason => 'schedule', epoch => $epoch, commit => $i * $s + 5000 };
			push @{ $h{effects} }, { %run, at => $i * $s + 3000, commit => $i * $s + 5000 };
			push @{ $h{begins} }, {%run};
		}
	}
	$spoil->(\%h) if $spoil;
	return \%h;
}

# The rules that a history breaks.
sub broken
{
	my ($spoil) = @_;
	my %rule = map { ($_->{rule} => 1) } @{ Chaos::Checker::judge(history($spoil))->{violations} };

	return join(' ', sort keys %rule);
}

# Takes out what matches, and returns it.
sub take
{
	my ($h, $what, $job, $slot) = @_;
	my @taken = grep { $_->{job} eq $job && $_->{slot} == $slot * $s } @{ $h->{$what} };

	$h->{$what} = [ grep { !($_->{job} eq $job && $_->{slot} == $slot * $s) } @{ $h->{$what} } ];
	return @taken;
}

sub row
{
	my ($h, $job, $slot) = @_;

	return grep { $_->{job} eq $job && $_->{slot} == $slot * $s } @{ $h->{runs} };
}

# The slot once more, on another instance.
sub again
{
	my ($h, $job, $slot, $inst, %other) = @_;
	my %run = (inst => $inst, job => $job, slot => $slot * $s, trigger => 0, attempt => 2, commit => ($slot + 0.2) * $s, at => ($slot + 0.2) * $s);

	push @{ $h->{runs} }, { %run, status => 'succeeded', reason => 'recovery', epoch => 9, %other };
	push @{ $h->{effects} }, {%run} if ($other{status} // 'succeeded') eq 'succeeded';
	return;
}

is(broken(), '', 'nothing is wrong');
is_deeply([ Chaos::Checker::slots({ cron => 5 }, 60 * $s, 72 * $s) ], [ 65 * $s, 70 * $s ], 'slots of a pattern: after the first moment');
is_deeply([ Chaos::Checker::slots({ every => 4, anchor => 61 * $s }, 0, 70 * $s) ], [ 65 * $s, 69 * $s ], 'of an interval: not its anchor');
is_deeply([ Chaos::Checker::slots({ every => 4, anchor => 61 * $s }, 65 * $s, 69 * $s) ], [ 69 * $s ], 'and up to the last');
is_deeply([ Chaos::Checker::slots({ once => 5 }, 4, 5), Chaos::Checker::slots({ once => 5 }, 5, 6) ], [5], 'one time');

foreach my $job (qw(at_least_once at_most_once exactly_once))
{
	is(broken(sub { take($_[0], $_, $job, 3) foreach qw(runs effects) }), 'accounted', "$job: a slot without a trace");
	is(broken(sub { take($_[0], 'effects', $job, 3) }), 'agreement', "$job: a row without its effect");
	like(broken(sub { take($_[0], 'runs', $job, 3) }), qr/accounted agreement/, "$job: an effect without its row");
	like(broken(sub { again($_[0], $job, 7, 'b') }), qr/doubled/, "$job: twice on one instance");
	like(broken(sub { push @{ $_[0]{windows} }, { inst => 'b', from => 6 * $s, to => 8 * $s }; again($_[0], $job, 7, 'b') }), qr/doubled/,
		"$job: twice on one instance, whatever happened to it");
	like(broken(sub { again($_[0], $job, 5, 'b') }), qr/doubled/, "$job: on two, without a fault");
	is(broken(sub { $_[0]{windows} = [ { inst => 'b', from => 0, to => 10 * $s } ]; again($_[0], $job, 5, 'b') }) =~ /doubled/ ? 'doubled' : '', 'doubled',
		"$job: on two, after a fault of the wrong one");
	like(broken(sub { push @{ $_[0]{effects} }, { inst => 'a', job => $job, slot => 3.5 * $s, trigger => 0, attempt => 1, at => 3.6 * $s, commit => 3.6 * $s } }),
		qr/agreement phantom/, "$job: an effect of a time that is no slot");
	like(broken(sub { ($_->{epoch}) = 8 foreach row($_[0], $job, 3) }), qr/token/, "$job: a token that shrinks");
}

is(broken(sub { $_->{epoch} = 9 foreach row($_[0], 'at_least_once', 2); $_[0]{etcd_fault} = [ { from => 3 * $s, to => 6 * $s } ] }), '', 'but for what etcd is to blame for');
is(broken(sub { $_->{epoch} = 9 foreach row($_[0], 'at_least_once', 2); $_[0]{etcd_fault} = [ { from => 4 * $s, to => 6 * $s } ] }), 'token', 'only then');

my $fault = sub { $_[0]{windows} = [ { inst => 'a', from => 5.1 * $s, to => 9 * $s } ]; again($_[0], $_[1], 5, 'b') };
is(broken(sub { $fault->($_[0], 'at_least_once') }), '', 'at_least_once may repeat what an instance committed just before it was lost');
is(Chaos::Checker::judge(history(sub { $fault->($_[0], 'at_least_once') }))->{counts}{'doubled, allowed'}, 1, 'which is counted');
like(broken(sub { $fault->($_[0], 'at_most_once') }), qr/doubled/, 'at_most_once may not');
like(broken(sub { $fault->($_[0], 'exactly_once') }), qr/doubled.* outcome/, 'nor exactly_once');
is(broken(sub { $_[0]{windows} = [ { inst => '*', from => 5.1 * $s, to => 9 * $s } ]; again($_[0], 'at_least_once', 5, 'b') }), '', 'a fault of all');
like(broken(sub { $_[0]{windows} = [ { inst => 'a', from => 9 * $s, to => 10 * $s } ]; again($_[0], 'at_least_once', 5, 'b') }), qr/doubled/,
	'a fault that came too late to be the reason');

foreach my $job (qw(at_least_once at_most_once exactly_once))
{
	my $lost = sub { take($_[0], 'effects', $job, 3); $_->{status} = 'lost' foreach row($_[0], $job, 3) };

	is(broken($lost), $job eq 'at_least_once' ? 'lost' : '', "$job: lost and not made again");
	is(broken(sub { $lost->($_[0]); $_->{status} = 'running' foreach row($_[0], $job, 3) }), $job eq 'at_least_once' ? 'lost' : 'accounted', "$job: begun, and no more is known");
}
is(broken(sub { take($_[0], 'effects', 'at_least_once', 3); $_->{status} = 'failed' foreach row($_[0], 'at_least_once', 3) }), '', 'a failed run is an outcome');
is(broken(sub { $_->{status} = 'failed' foreach row($_[0], 'exactly_once', 3) }), 'agreement', 'an effect of a run that failed');
is(broken(sub { $_->{status} = 'lost' foreach row($_[0], 'exactly_once', 3) }), 'agreement', 'an effect of a run that is lost');
is(broken(sub { again($_[0], 'exactly_once', 5, 'b', status => 'missed') }), 'outcome', 'exactly_once: missed by another');
is(broken(sub { $_[0]{windows} = [ { inst => 'b', from => 4 * $s, to => 6 * $s } ]; again($_[0], 'exactly_once', 5, 'b', status => 'missed') }), '',
	'but if it was cut off');
is(broken(sub { $_[0]{windows} = [ { inst => 'a', from => 0, to => 9 * $s } ]; again($_[0], 'exactly_once', 5, 'a', status => 'missed') }), 'outcome',
	'missed by the same, whatever happened to it');
is(broken(sub { push @{ $_[0]{begins} }, { inst => 'b', job => 'at_most_once', slot => 5 * $s, trigger => 0, attempt => 2 } }), 'repeated',
	'at_most_once: begun a second time, though nothing came of it');

like(broken(sub { $_->{commit} = 3 * $s foreach grep { $_->{job} eq 'at_least_once' && $_->{slot} == 7 * $s } @{ $_[0]{effects} } }), qr/early/, 'an effect before its time');
like(broken(sub { push @{ $_[0]{runs} }, { inst => 'a', job => 'at_least_once', slot => 11 * $s, last_slot => 99 * $s, trigger => 0, attempt => 1, status => 'missed', reason => '',
	epoch => 9, commit => 10 * $s } }), qr/early/, 'slots of the future that are missed');

is(broken(sub { $_[0]{skewed} = [ { inst => 'a', from => 9 * $s, to => 10 * $s } ]; push @{ $_[0]{runs} }, { inst => 'a', job => 'at_least_once', slot => 11 * $s, last_slot => 99 * $s,
	trigger => 0, attempt => 1, status => 'missed', reason => '', epoch => 9, commit => 10 * $s } }), '', 'but of a row by a clock that was set nothing is known');

# jobs that are changed
my $changed = sub { $_[0]{jobs}{at_least_once}{sure} = [ [ 0, 5 * $s ] ]; take($_[0], $_, 'at_least_once', 4) foreach qw(runs effects) };
is(broken($changed), 'accounted', 'a slot before a change of its job');
is(broken(sub { $changed->($_[0]); $_[0]{windows} = [ { inst => 'b', from => 3.9 * $s, to => 5 * $s } ] }), '', 'not if an instance was away then');

# ranges of slots, policies
my $range = sub {
	my ($h) = @_;

	foreach my $slot (3, 4, 5)
	{
		take($h, $_, 'at_least_once', $slot) foreach qw(runs effects);
	}
	push @{ $h->{runs} }, { inst => 'a', job => 'at_least_once', slot => 3 * $s, last_slot => 5 * $s, trigger => 0, attempt => 1, status => 'missed', reason => 'late',
		epoch => 7, commit => 6 * $s };
};
is(broken(sub { $range->($_[0]); $_[0]{jobs}{at_least_once}{misfire} = 'latest' }), '', 'a row may stand for several slots');
is(broken($range), 'policy', 'but not be there with misfire all');
is(broken(sub { $range->($_[0]); $_[0]{jobs}{at_least_once}{misfire} = 'latest'; $_->{last_slot} = 4 * $s foreach row($_[0], 'at_least_once', 3) }), 'accounted',
	'nor for fewer than there are');
is(broken(sub { take($_[0], 'effects', 'at_least_once', 3); @$_{qw(status reason)} = qw(skipped overlap) foreach row($_[0], 'at_least_once', 3) }), 'policy',
	'skipped with queue_all');

# what is asked for, what is left
is(broken(sub { push @{ $_[0]{requests} }, { job => 'at_least_once', trigger => 5 } }), 'request', 'a request that was not carried out');
is(broken(sub { push @{ $_[0]{requests} }, { job => 'at_least_once', trigger => 5, dropped => 1 } }), '', 'but of a job that is gone');
is(broken(sub { push @{ $_[0]{requests} }, { job => 'at_least_once', trigger => 5, slots => [ 2 * $s, 3 * $s ] };
	push @{ $_[0]{runs} }, { %{ $_[0]{runs}[1] }, status => 'failed', trigger => 5 } }), 'request', 'a backfill of which one slot was not made');
is(broken(sub { $_[0]{jobs}{at_least_once}{sure} = [ [ 0, undef, { every => 3, anchor => 0.5 * $s } ] ] }), 'accounted', 'a window with another schedule');
is(broken(sub { push @{ $_[0]{prepared} }, 'dsched 1' }), 'prepared', 'a prepared transaction');
is(broken(sub { push @{ $_[0]{open} }, { inst => 'a', job => 'at_least_once', slot => 4 * $s } }), 'open', 'something is open');
is(broken(sub { $_[0]{jobs}{at_least_once}{atomic} = 0; push @{ $_[0]{effects} }, { inst => 'a', job => 'at_least_once', slot => 3 * $s, trigger => 0, attempt => 2,
	at => 3.1 * $s, commit => 3.1 * $s } }), 'doubled', 'commands that commit by themselves: still not twice');

# each instance for itself
my $each = sub {
	my ($h) = @_;

	$h->{jobs}{at_least_once}{each} = [ 'a', 'b' ];
	foreach my $slot (1 .. 10)
	{
		again($h, 'at_least_once', $slot, $slot <= 5 ? 'b' : 'a');
	}
};
is(broken($each), '', 'each: two instances, two effects');
is(broken(sub { $each->($_[0]); take($_[0], $_, 'at_least_once', 4) foreach qw(runs effects) }), 'accounted', 'each: none');
like(broken(sub { $_[0]{jobs}{at_least_once}{each} = [ 'a', 'b' ] }), qr/accounted/, 'each: only one of them');

# a standby of b was promoted: b~ is what was b, up to 9 s
my $promoted = sub {
	my ($h, $job, $slot, $commit) = @_;
	my %run = (inst => 'b~', job => $job, slot => $slot * $s, trigger => 0, attempt => 1, at => $commit * $s, commit => $commit * $s);

	$h->{replaced} = [ { inst => 'b~', ended => 9 * $s } ];
	$h->{windows} = [ map { { inst => $_, from => 6.5 * $s, to => 9 * $s } } 'b', 'b~' ];
	push @{ $h->{runs} }, { %run, status => 'succeeded', reason => 'schedule', epoch => 9 };
	push @{ $h->{effects} }, {%run};
};
is(broken(sub { $promoted->($_[0], 'at_least_once', 7, 7.001) }), '', 'what a former primary did and its standby did not hear of may be done again');
is(broken(sub { $promoted->($_[0], 'at_most_once', 7, 7.001) }), 'doubled', 'not with at_most_once');
is(broken(sub { $promoted->($_[0], 'exactly_once', 7, 7.001) }), 'doubled outcome', 'nor with exactly_once');
is(broken(sub { $promoted->($_[0], 'at_least_once', 9, 9.001) }), 'second', 'it does nothing any more when its lease has ended');
is(broken(sub { $promoted->($_[0], 'at_least_once', 9, 9.001); $_[0]{jobs}{at_least_once}{each} = ['b'] }) =~ /second/ ? 'second' : '', '', 'but what each instance does for itself');
is(broken(sub { take($_[0], $_, 'at_least_once', 7) foreach qw(runs effects); $promoted->($_[0], 'at_least_once', 7, 7.001) }), 'accounted',
	'what it alone knows of is not accounted for');
is(broken(sub { $promoted->($_[0], 'at_least_once', 7, 7.001); push @{ $_[0]{requests} }, { job => 'at_least_once', trigger => 5 };
	push @{ $_[0]{runs} }, { %{ $_[0]{runs}[-1] }, status => 'failed', trigger => 5 } }), 'request', 'nor a request');
my @both = ({ inst => 'b', job => 'j', slot => 1, trigger => 0, attempt => 1, at => 5, commit => 6 }, { inst => 'b', job => 'j', slot => 1, trigger => 0, attempt => 1, status => 'succeeded', started => 4 });
my @former = map { { %$_, inst => 'b~', commit => 7 } } @both;
is(scalar Chaos::Checker::beyond('b', \@former, \@both), 0, 'what is on both is the same commit');
$_->{inst} = 'c' foreach @both;
is(scalar(my @beyond = Chaos::Checker::beyond('b', \@former, \@both)), 2, 'unless it is on yet another one');
@both = map { { %$_, inst => 'b', at => 8, started => 8 } } @both;
is(scalar(@beyond = Chaos::Checker::beyond('b', \@former, \@both)), 2, 'or is made again');

done_testing();
