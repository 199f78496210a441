# A chaos run: servers, jobs, faults, the judges, and a report. "run" and test/tap/t/095_chaos.pl start it.
#
#	my $result = Chaos::run(dir => ..., mode => 'netns' or 'loopback', bindir => ..., seed => 1, seconds => 60, instances => 3, members => 3,
#		port => sub { ... }, account => text of account.psql, standby => 1 (one of the instances has a streaming standby), faults => [ kinds ] (all), size => 1, say => sub { ... });
#	$result: { violations => [ text ], report => text }
#
# It leaves no process behind, if it is left by the end, by die or by exit; more than that is for who started it (test/reap.c, namespaces).

package Chaos;

use strict;
use warnings;

use Chaos::Checker;
use Chaos::Nemesis;
use Chaos::Workload;
use Chaos::World;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(time);

my $world;
my $watcher;
my $client;
my $owner = $$;

END
{
	my $status = $?;

	_end() if $$ == $owner;
	$? = $status;
}

sub _end
{
	local $?;
	foreach my $pid (grep { defined } $watcher, $client && $client->{client})
	{
		kill('KILL', $pid);
		waitpid($pid, 0);
	}
	($watcher, $client) = ();
	$world->end if $world;
	$world = undef;
	return;
}

sub run
{
	my (%opt) = @_;
	my $begun = time();
	my $lease = $opt{lease} // 3;
	my $log = '';
	my $say = sub {
		my ($text) = @_;
		my $line = sprintf("%s %7.2f  %s", _clock(), time() - $begun, $text);

		$log .= "$line\n";
		$opt{say}->($line);
	};

	$world = Chaos::World->new(dir => $opt{dir}, mode => $opt{mode}, bindir => $opt{bindir}, instances => $opt{instances}, members => $opt{members},
		port => $opt{port}, clock => $opt{clock}, standby => $opt{standby}, log => $say);
	my $workload = $client = Chaos::Workload->new($world, $opt{seed}, size => $opt{size} // 1);
	my $nemesis = Chaos::Nemesis->new($world, $opt{seed}, lease => $lease);
	my @instances = $world->instances;

	$say->("$opt{instances} instances, $opt{members} members of etcd, $opt{mode}");
	$world->start_etcd;
	foreach my $instance (@instances)
	{
		$world->create_instance($instance, "dsched.lease_ttl = '${lease}s'\ndsched.drain_timeout = '2s'\ndsched.max_executors = 8\n"
			. ($instance->{name} =~ /[12]$/ ? "dsched.node_labels = 'half=yes'\n" : '') . "dsched.cancel_grace = '3s'\ndsched.executor_idle_timeout = '5s'\ndsched.notify = off\n");
	}
	$world->until("$_->{name} answers", 60, sub { defined $world->ask($_, 'SELECT 1') }) foreach @instances;
	$workload->install($_, $opt{account} ? "$opt{account}; SELECT account.start()" : 'SELECT 1') foreach @instances;
	_settled($world, 60) or die "the fleet does not come up\n";
	$world->create_standby if $opt{standby};
	$workload->learn($instances[0]);
	$workload->make_jobs;
	my $jobs = $workload->define;
	$say->("$jobs jobs (" . join(', ', @{ $workload->{modes} }) . ')');

	# ---- the faults ----
	my ($possible, $impossible) = $nemesis->kinds;
	my @kinds = $opt{faults} ? grep { my $kind = $_; grep { $_ eq $kind } @$possible } @{ $opt{faults} } : ();
	$say->('not to be had here: ' . join('; ', @$impossible)) if @$impossible;
	$nemesis->plan($opt{seconds}, $opt{faults} ? (kinds => \@kinds) : (gap => $opt{gap} // 2));
	$watcher = _watch_machine("$opt{dir}/stalls");
	$workload->start_client;
	my $faults_from = time();
	$nemesis->start;
	while (!$nemesis->over && time() < $faults_from + $opt{seconds} + 10)
	{
		$nemesis->tick;
		$world->tend;
		select(undef, undef, undef, 0.02);
	}
	$nemesis->heal;
	my $faults_to = time();
	$say->('all is mended');

	# ---- the account ----
	my @wrong;
	push @wrong, 'the client failed' unless $workload->stop_client;
	push @wrong, @{ $nemesis->{wrong} };
	my $settled = _settled($world, $opt{patience} // 90);
	push @wrong, 'the fleet has not recovered: ' . _seen($world) unless $settled;
	$say->(sprintf('the fleet has recovered after %.1f s', time() - $faults_to)) if $settled;
	my $until = int(time() * 1_000_000);
	my ($history, $verdict);
	my $deadline = time() + ($opt{patience} // 90);
	while (1)
	{
		$history = _history($workload, $nemesis, $until, "$opt{dir}/stalls");
		$workload->{judged} = $history;
		$verdict = Chaos::Checker::judge($history);
		last if !grep { $_->{rule} =~ /accounted|lost|request|prepared|open/ } @{ $verdict->{violations} } or time() > $deadline;
		$world->until('the last runs have ended', 1, sub { 0 }, 1);
	}
	$say->(sprintf('judged %.1f s after that', time() - $faults_to));
	push @wrong, map { "$_->{rule}: $_->{job}" . (defined $_->{slot} ? ' ' . Chaos::Checker::stamp($_->{slot}) : '') . " $_->{what}" } @{ $verdict->{violations} };
	my ($account_slots, @account) = $opt{account} ? _account($world, $history, $until) : 0;
	push @wrong, map { "account: $_" } @account;

	my %result = (violations => \@wrong,
		report => _report(\%opt, $workload, $nemesis, $verdict, $account_slots, $faults_to - $faults_from, $impossible, \@wrong));
	_write("$opt{dir}/history.json", JSON::PP->new->canonical->encode($history));
	_write("$opt{dir}/nemesis.log", $log);
	_write("$opt{dir}/report", $result{report});
	kill('KILL', $watcher);
	_end();
	return \%result;
}

sub _write
{
	my ($file, $text) = @_;

	open(my $out, '>', $file) or die "$file: $!";
	print $out $text;
	close($out) or die "$file: $!";
	return;
}

sub _clock
{
	my $now = time();

	return POSIX::strftime('%H:%M:%S', gmtime($now)) . sprintf('.%03d', 1000 * ($now - int $now));
}

# Waits until all instances see each other and every partition is owned and taken over.
sub _settled
{
	my ($world, $seconds) = @_;
	my $count = $world->instances;

	return $world->until('the fleet is settled', $seconds, sub { !grep { _one_seen($world, $_) ne "$count members, 0 partitions astray" } $world->instances }, 1);
}

sub _one_seen
{
	my ($world, $instance) = @_;

	return $world->ask($instance, q{SELECT (SELECT count(*) FROM dsched.nodes) || ' members, ' || (SELECT count(*) FROM dsched.partitions p
		LEFT JOIN dsched.nodes n ON node = owner_node WHERE owner_node IS NULL OR node IS NULL OR (this_instance AND state IS DISTINCT FROM 'active')) || ' partitions astray'}, 5)
	  // 'no answer';
}

sub _seen
{
	my ($world) = @_;

	return join('; ', map { "$_->{name}: " . _one_seen($world, $_) . ' ' .
		($world->ask($_, q{SELECT string_agg(component || ': ' || detail, ', ') FROM dsched.status() WHERE state <> 'ok'}, 5) // '') } $world->instances);
}

# A process that only sleeps, and notes when it was not woken in time: then nobody else was, either.
sub _watch_machine
{
	my ($file) = @_;

	open(my $out, '>', $file) or die "$file: $!";
	my $pid = fork() // die "fork: $!";
	return $pid if $pid;
	$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP);
	$out->autoflush(1);
	my $last = time();
	while (getppid() != 1)
	{
		select(undef, undef, undef, 0.1);
		my $now = time();
		printf $out "%d %d\n", $last * 1_000_000, $now * 1_000_000 if $now - $last > 0.8;
		$last = $now;
	}
	POSIX::_exit(0);
}

sub _history
{
	my ($workload, $nemesis, $until, $stalls) = @_;
	my %history = (until => $until, windows => [ @{ $nemesis->{windows} } ], effects => [], runs => [], open => [], prepared => []);

	$history{requests} = $workload->read_client;
	$history{jobs} = { map { ($_ => { %{ $workload->{jobs}{$_} } }) } keys %{ $workload->{jobs} } };
	delete @$_{qw(definition home now first_sure)} foreach values %{ $history{jobs} };
	# before the rows: a start that is not recorded yet has a row later
	$history{begins} = $workload->begins;
	foreach my $instance ($workload->{world}->instances)
	{
		my @gathered = $workload->gather($instance);

		push @{ $history{ (qw(effects runs open prepared))[$_] } }, @{ $gathered[$_] } foreach 0 .. 3;
	}
	_add_replaced(\%history, $workload, $nemesis);
	$history{skewed} = $nemesis->{skewed};
	_set_right(\%history);
	# In versions before 3.4.42, 3.5.28 and 3.6.9 a leader that stood still ends leases when it goes on that were renewed meanwhile
	# (docs/etcd-keys.md): an owner hears of it, but not before it is so.
	if ($nemesis->{world}->etcd_has_lease_fault)
	{
		$history{etcd_fault} = [ map { { from => $_->{to}, to => $_->{to} + 1_000_000 * ($nemesis->{lease} + 1) } }
			grep { defined $_->{to} && $_->{kind} =~ /^etcd (leader|member) stands still|^etcd without a quorum, briefly/ } @{ $nemesis->{windows} } ];
	}
	open(my $in, '<', $stalls) or die "$stalls: $!";
	while (<$in>)
	{
		push @{ $history{windows} }, { inst => '*', from => $1, to => $2, kind => 'the machine had no time' } if /^(\d+) (\d+)/;
	}
	return \%history;
}

# What a former primary had committed and its standby had not, when that was promoted: it is gone with it, but was done. The rest is the same commits.
sub _add_replaced
{
	my ($history, $workload, $nemesis) = @_;

	foreach my $former (grep { $nemesis->{replaced}{ $_->{name} } } $workload->{world}->others)
	{
		my $replaced = $nemesis->{replaced}{ $former->{name} };

		if (!$replaced->{effects})
		{
			$workload->{world}->start_plain($former);
			@$replaced{qw(effects runs)} = $workload->gather($former, 1);
		}
		push @{ $history->{replaced} }, { inst => $former->{name}, ended => $replaced->{ended} };
		push @{ $history->{windows} }, map { { %$_, inst => $former->{name}, to => $replaced->{ended} } }
			grep { $_->{inst} eq $replaced->{name} && $_->{kind} eq 'standby promoted' } @{ $nemesis->{windows} };
		foreach my $what (qw(effects runs))
		{
			push @{ $history->{$what} }, Chaos::Checker::beyond($replaced->{name}, $replaced->{$what}, $history->{$what});
		}
	}
	return;
}

# Times that an instance noted while its clock was wrong: by how much, the time since the start of the machine says.
sub _set_right
{
	my ($history) = @_;
	my ($up) = split / /, _slurp('/proc/uptime');
	my $start = int(1_000_000 * (time() - $up));
	my %off;

	foreach my $effect (@{ $history->{effects} })
	{
		my $off = $effect->{at} - ($start + $effect->{up});

		if (abs($off) < 500_000)
		{
			# set between the command and its commit
			my ($skew) = grep { $_->{inst} eq $effect->{inst} && abs($_->{ahead}) > 10_000_000
				&& abs($effect->{commit} - $effect->{at} - $_->{ahead}) < abs($_->{ahead}) / 4 } @{ $history->{skewed} };

			next unless $skew;
			$off{"$effect->{inst} $effect->{job} $effect->{slot} $effect->{trigger} $effect->{attempt}"} = $skew->{ahead};
			$effect->{commit} -= $skew->{ahead};
			next;
		}
		$off{"$effect->{inst} $effect->{job} $effect->{slot} $effect->{trigger} $effect->{attempt}"} = $off;
		$effect->{$_} -= $off foreach qw(at commit);
	}
	foreach my $run (@{ $history->{runs} })
	{
		$run->{commit} -= $off{"$run->{inst} $run->{job} $run->{slot} $run->{trigger} $run->{attempt}"} // 0;
	}
	return;
}

sub _slurp
{
	my ($file) = @_;

	open(my $in, '<', $file) or die "$file: $!";
	local $/;
	return scalar <$in>;
}

# The judge of slots of the regression tests, which also knows of jobs that are being changed.
sub _account
{
	my ($world, $history, $until) = @_;
	my ($judge, @others) = $world->instances;
	my $time = sub { Chaos::Workload::micro_to_sql($_[0]) };
	my $load = '';
	my @repeats;

	foreach my $window (@{ $history->{windows} })
	{
		foreach my $inst ($window->{inst} eq '*' ? map { $_->{name} } $world->instances : $window->{inst})
		{
			push @repeats, { node => $inst, since => _iso($window->{from} - $Chaos::Checker::SLACK), until => _iso(($window->{to} // $until) + $Chaos::Checker::SLACK) };
		}
	}
	foreach my $other (@others)
	{
		my $file = "$world->{dir}/account.$other->{name}";

		_write($file, $world->must($other, 'SELECT account.export()', 120));
		$load .= "PERFORM account.load(pg_read_file('$file')::jsonb);\n";
	}
	my $options = JSON::PP->new->canonical->encode({ grace => '20 s', holes => JSON::PP::true, until => _iso($until), repeats => \@repeats });
	my $file = "$world->{dir}/account.options";
	_write($file, $options);
	my @lines = split /\n/, $world->must($judge, "
SET client_min_messages = warning;
BEGIN;
DO \$do\$ BEGIN $load END \$do\$;
SELECT format('%s %s: %s', job_name, to_char(slot AT TIME ZONE 'UTC', 'HH24:MI:SS.MS'), what)
	FROM account.violations(pg_read_file('$file')::jsonb) WHERE slot <= '" . _iso($until) . "';
SELECT count(*) FROM (SELECT DISTINCT job_id, trigger_id, slot FROM pg_temp.account_slot WHERE must) s;
ROLLBACK", 300);
	my $slots = pop @lines;

	# By this judge versions follow each other in the order of the clocks, and nothing begins before its time by the clock that was shown.
	@lines = grep { !/_moody_|began before/ } @lines if @{ $history->{skewed} };
	return ($slots, @lines);
}

sub _iso
{
	my ($time) = @_;

	return POSIX::strftime('%Y-%m-%dT%H:%M:%S', gmtime(int($time / 1_000_000))) . sprintf('.%06dZ', $time % 1_000_000);
}

sub _report
{
	my ($opt, $workload, $nemesis, $verdict, $account_slots, $seconds, $impossible, $wrong) = @_;
	my %count = %{ $verdict->{counts} };
	my $faults = 0;
	my $text = "seed $opt->{seed}: $opt->{instances} instances, $opt->{members} members of etcd ($opt->{mode}), " . sprintf('%.0f s of faults', $seconds) . "\n";
	my $list = sub {
		my ($title, $of) = @_;

		$text .= "$title\n" . join('', map { sprintf("  %6d  %s\n", $of->{$_}, $_) } sort keys %$of) if %$of;
	};

	# what is in brackets came of one
	$faults += $nemesis->{counts}{$_} foreach grep { !/^\(/ } keys %{ $nemesis->{counts} };
	$list->("faults injected: $faults", $nemesis->{counts});
	$text .= 'of a former primary alone: ' . (grep { $_->{inst} =~ /~/ } @{ $workload->{judged}{effects} }) . " effects\n" if %{ $nemesis->{replaced} };
	$list->('faults left out as nothing to hit was whole', $nemesis->{skipped});
	$text .= 'faults not to be had here: ' . join('; ', @$impossible) . "\n" if @$impossible;
	$list->('what the client asked for', $workload->{said});
	$list->('jobs', do { my %n; $n{ $_->{mode} }++ foreach values %{ $workload->{jobs} }; \%n });
	$list->('slots judged', { map { /^slots: (.*)/ ? ($1 => $count{$_}) : () } keys %count });
	$list->('by policy (overlap/misfire)', { map { /^slots by policy \S+ (.*)/ ? ($1 => $count{$_}) : () } keys %count });
	$list->('rows', { map { /^rows: (.*)/ ? ($1 => $count{$_}) : () } keys %count });
	$list->('judged', { map { ($_ => $count{$_} // 0) } 'lost', 'doubled, allowed', 'doubled, forbidden', 'older tokens, by a known fault of this etcd', 'commits compared by their token', 'requests',
		'passed over by an instance that was cut off, made by another', 'slots not judged: their job was changed before their owner was back' });
	$text .= "slots judged by account.psql: $account_slots\n" if $opt->{account};
	$text .= 'violations: ' . @$wrong . "\n" . join('', map { "  $_\n" } @$wrong);
	return $text;
}

1;
