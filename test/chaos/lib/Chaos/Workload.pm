# What runs during a chaos run: the jobs, what their commands write, and a client that changes jobs while servers die.
#
# A command calls chaos.effect(), which inserts a row into a table of the instance, in the job's transaction: a row is there if, and only if, that
# run was committed. chaos.begin() makes a file beside the databases: it is there also if the run was rolled back. Of dsched these ask
# current_run() alone.

package Chaos::Workload;

use strict;
use warnings;

use Chaos::Checker;
use Chaos::Random;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(time);

my @overlaps = qw(skip queue_one queue_all allow cancel_running);
my @misfires = qw(latest all skip);

# new(world, seed, size => 1)
sub new
{
	my ($class, $world, $seed, %opt) = @_;

	return bless { world => $world, seed => $seed, random => Chaos::Random->new($seed), jobs => {}, size => 1, %opt }, $class;
}

sub now { return int(time() * 1_000_000) }

sub micro_to_sql
{
	my ($time) = @_;

	return sprintf(q{'epoch'::timestamptz + interval '1 us' * %s}, $time);
}

# What the commands call, the extension, and the role of the jobs, on one instance.
sub install
{
	my ($self, $instance, $account) = @_;
	my $begins = "$self->{world}{dir}/begun";

	if (!-d $begins)
	{
		mkdir $begins or die "$begins: $!";
		$self->{world}->_own($begins);
	}
	$self->{world}->must($instance, qq{
CREATE ROLE worker LOGIN;
CREATE SCHEMA chaos;
GRANT USAGE ON SCHEMA chaos TO worker;
CREATE TABLE chaos.effects (n bigserial PRIMARY KEY, inst text, job text, slot bigint, trigger_id bigint, attempt int, at bigint, up bigint);
CREATE TABLE chaos.counter (n bigint);
INSERT INTO chaos.counter VALUES (0);
GRANT SELECT, UPDATE ON chaos.counter TO worker;

CREATE FUNCTION chaos.effect() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS \$f\$
BEGIN
	-- "up" is a time that nobody sets
	INSERT INTO chaos.effects (inst, job, slot, trigger_id, attempt, at, up)
	SELECT current_setting('cluster_name'), job_name, extract(epoch FROM scheduled_for) * 1000000, trigger_id, attempt,
		extract(epoch FROM clock_timestamp()) * 1000000, split_part(pg_read_file('/proc/uptime'), ' ', 1)::numeric * 1000000
	FROM dsched.current_run();
END \$f\$;

-- One file for each start: what it is called is all that counts.
CREATE FUNCTION chaos.begin() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS \$f\$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO %L', '$begins/' || (SELECT concat_ws('=', job_name, (extract(epoch FROM scheduled_for) * 1000000)::bigint,
		trigger_id, attempt, current_setting('cluster_name'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_backend_pid())
		FROM dsched.current_run()));
END \$f\$;

CREATE FUNCTION chaos.nap(shortest float8, longest float8) RETURNS void LANGUAGE sql AS \$f\$
	SELECT pg_sleep(shortest + random() * (longest - shortest))	-- sleep-ok: a run that lasts
\$f\$;

CREATE FUNCTION chaos.fail_before(attempts int) RETURNS void LANGUAGE plpgsql AS \$f\$
BEGIN
	IF (SELECT attempt FROM dsched.current_run()) < attempts THEN
		RAISE EXCEPTION 'not yet';
	END IF;
END \$f\$;

-- Three transactions, of which the second has the effect.
CREATE PROCEDURE chaos.steps() LANGUAGE plpgsql AS \$f\$
BEGIN
	UPDATE chaos.counter SET n = n + 1;
	COMMIT;
	PERFORM chaos.effect();
	COMMIT;
	PERFORM 1;
END \$f\$;
});
	$self->{world}->must($instance, "BEGIN; CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker; $account; COMMIT");
	return;
}

# Which options this version has.
sub learn
{
	my ($self, $instance) = @_;
	my $names = $self->{world}->must($instance, q{SELECT string_agg(DISTINCT a, ' ') FROM pg_proc, unnest(proargnames) a
		WHERE proname = 'schedule' AND pronamespace = 'dsched'::regnamespace});

	$self->{modes} = [ $names =~ /\bdelivery\b/ ? qw(at_least_once at_most_once exactly_once) : 'at_least_once' ];
	$self->{places} = $names =~ /\brun_on\b/;
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# The jobs
# ---------------------------------------------------------------------------------------------------------------------

# Options: command, schedule ({ cron => N } or { every => N }), and those of dsched.schedule; of the judge: effect, atomic, each.
sub _add
{
	my ($self, $name, %opt) = @_;
	my %job = (
		mode => $opt{delivery} // 'at_least_once', schedule => $opt{schedule}, overlap => $opt{overlap} // 'skip', misfire => $opt{misfire} // 'latest',
		max_attempts => $opt{max_attempts} // 1, effect => $opt{effect} // 'one', atomic => $opt{atomic} // 1, sure => [], stable => $opt{stable} // 1);

	$job{each} = $opt{each} if $opt{each};
	$job{schedule}{anchor} //= 1_000_000 * (int(time()) - 5) if $job{schedule}{every};
	$job{definition} = $self->_definition($name, $job{schedule}, %opt);
	$self->{jobs}{$name} = \%job;
	return \%job;
}

# The call of dsched.schedule().
sub _definition
{
	my ($self, $name, $schedule, %opt) = @_;
	my $times = $schedule->{never} ? '@yearly' : $schedule->{cron} ? "*/$schedule->{cron} * * * * *" : "$schedule->{every} seconds";
	my $command = $opt{command} // 'SELECT chaos.effect()';

	$command = "SELECT chaos.begin(); $command" if ($opt{delivery} // '') eq 'at_most_once';
	my $call = "SELECT dsched.schedule('$name', '$times', \$c\$$command\$c\$, max_lost => 100000";
	foreach my $option (qw(overlap misfire misfire_grace max_attempts retry_delay retry_max_delay timeout priority jitter queue run_on))
	{
		$call .= ", $option => '$opt{$option}'" if defined $opt{$option};
	}
	$call .= ", delivery => '$opt{delivery}'" if ($opt{delivery} // 'at_least_once') ne 'at_least_once';
	$call .= ', starts_at => ' . micro_to_sql($schedule->{anchor}) if $schedule->{every};
	return "$call)";
}

sub _period
{
	my ($self, @seconds) = @_;
	my $n = $self->{random}->one_of(@seconds);

	return $self->{random}->below(2) && 60 % $n == 0 ? { cron => $n } : { every => $n };
}

sub make_jobs
{
	my ($self) = @_;
	my $n = 0;

	foreach my $mode (@{ $self->{modes} })
	{
		my $short = { at_least_once => 'alo', at_most_once => 'amo', exactly_once => 'eo' }->{$mode};
		my $job = sub {
			my ($kind, %opt) = @_;

			return $self->_add(sprintf('%s_%s_%03d', $short, $kind, ++$n), delivery => $mode, %opt);
		};

		for (1 .. $self->{size})
		{
			foreach my $overlap (@overlaps)
			{
				foreach my $misfire (@misfires)
				{
					$job->('quick', schedule => $self->_period(3 .. 6), overlap => $overlap, misfire => $misfire, misfire_grace => '4 s');
				}
			}
			$job->('sharp', schedule => $self->_period(2 .. 5), overlap => 'queue_all', misfire => 'all') for 1 .. 8;
			$job->('multi', schedule => $self->_period(4 .. 6), overlap => 'queue_all', misfire => 'all',
				command => 'UPDATE chaos.counter SET n = n; SELECT chaos.effect(); SELECT count(*) FROM chaos.counter') for 1 .. 3;
			$job->('retry', schedule => $self->_period(5 .. 7), overlap => 'queue_all', misfire => 'all', max_attempts => 4, retry_delay => '300 ms',
				command => 'SELECT chaos.effect(); SELECT chaos.fail_before(2)') for 1 .. 3;
			$job->('spread', schedule => $self->_period(5 .. 6), overlap => 'queue_all', misfire => 'all', jitter => '2 s') for 1 .. 2;
		}
		$job->('fails', schedule => $self->_period(5, 6), max_attempts => 2, retry_delay => '200 ms', effect => 'none',
			command => 'SELECT chaos.effect(); SELECT chaos.fail_before(1000)');
		$job->('late', schedule => $self->_period(6), timeout => '1 s', effect => 'none', command => 'SELECT chaos.effect(); SELECT chaos.nap(60, 60)');
		$job->('slow', schedule => $self->_period(5, 6), overlap => $_, command => 'SELECT chaos.effect(); SELECT chaos.nap(0.5, 2)') foreach @overlaps;
		# longer than the lease, and than a hand-over waits
		$job->('long', schedule => $self->_period(15), overlap => 'queue_all', misfire => 'all', command => 'SELECT chaos.effect(); SELECT chaos.nap(6, 8)');
		$job->('crowd', schedule => $self->_period(2), overlap => $_, command => 'SELECT chaos.nap(2, 3); SELECT chaos.effect()') foreach qw(skip cancel_running);
		# for requests
		$job->('asked', schedule => { never => 1 }, overlap => 'queue_all') for 1 .. 2;
		$job->('filled', schedule => { cron => 10 }, overlap => 'queue_all', misfire => 'all');
		# to be changed
		$job->('moody', schedule => $self->_period(2 .. 4), overlap => 'queue_all', misfire => 'all', stable => 0) for 1 .. ($mode eq 'at_least_once' ? 6 : 3);
	}
	if ($self->{places})
	{
		my @all = map { $_->{name} } $self->{world}->instances;

		$self->_add(sprintf('alo_each_%03d', ++$n), schedule => $self->_period(4 .. 6), overlap => 'queue_all', misfire => 'all', run_on => 'each', each => \@all) for 1 .. 3;
		foreach my $mode (@{ $self->{modes} })
		{
			my $short = { at_least_once => 'alo', at_most_once => 'amo', exactly_once => 'eo' }->{$mode};

			$self->_add(sprintf('%s_half_%03d', $short, ++$n), schedule => $self->_period(3 .. 6), overlap => 'queue_all', misfire => 'all', run_on => 'half=yes', delivery => $mode)
			  for 1 .. 3;
		}
	}
	$self->_add(sprintf('alo_steps_%03d', ++$n), schedule => { cron => 5 }, overlap => 'queue_all', atomic => 0, effect => 'one', command => 'CALL chaos.steps()');
	return;
}

# Defines all jobs, on whichever instances, and waits until all know them. From then on their slots are sure.
sub define
{
	my ($self) = @_;
	my $world = $self->{world};
	my @instances = $world->instances;
	my %calls;

	foreach my $name (sort keys %{ $self->{jobs} })
	{
		push @{ $calls{ $self->{random}->below(scalar @instances) } }, $self->{jobs}{$name}{definition};
	}
	foreach my $i (sort keys %calls)
	{
		$world->must($instances[$i], 'SET SESSION AUTHORIZATION worker; ' . join('; ', @{ $calls{$i} }));
	}
	my $count = keys %{ $self->{jobs} };
	foreach my $instance (@instances)
	{
		$world->until("$instance->{name} has all jobs", 60,
			sub { ($world->ask($instance, 'SELECT count(*) FROM dsched.jobs WHERE published') // '') eq $count });
	}
	my $now = now();
	foreach my $job (grep { !$_->{schedule}{never} } values %{ $self->{jobs} })
	{
		$job->{sure} = [ [ $now, undef ] ];
	}
	return $count;
}

# ---------------------------------------------------------------------------------------------------------------------
# The client: a process that asks for things, and notes what it asked for and what it was told
# ---------------------------------------------------------------------------------------------------------------------

sub start_client
{
	my ($self) = @_;
	my $file = "$self->{world}{dir}/client.jsonl";
	my $pid = fork() // die "fork: $!";

	$self->{client_file} = $file;
	if ($pid == 0)
	{
		my $over = 0;

		open(STDIN, '<', '/dev/null');
		$SIG{TERM} = sub { $over = 1 };
		$SIG{INT} = $SIG{HUP} = 'IGNORE';
		eval { $self->_client($file, \$over) };
		print STDERR "client: $@" if $@;
		POSIX::_exit($@ ? 1 : 0);
	}
	$self->{client} = $pid;
	return;
}

# True if it has worked to the end.
sub stop_client
{
	my ($self) = @_;

	kill('TERM', $self->{client});
	local $?;
	waitpid($self->{client}, 0);
	delete $self->{client};
	return $? == 0;
}

sub _client
{
	my ($self, $file, $over) = @_;
	my $random = Chaos::Random->new($self->{seed} + 1);
	my $world = $self->{world};
	my @kinds = (qw(redefine redefine pause resume drop once once once now now backfill cancel same));
	my @moody = grep { !$self->{jobs}{$_}{stable} } sort keys %{ $self->{jobs} };
	my @asked = grep { /_asked_/ } sort keys %{ $self->{jobs} };
	my @filled = grep { /_filled_/ } sort keys %{ $self->{jobs} };
	my $n = 0;

	open(my $out, '>', $file) or die "$file: $!";
	$out->autoflush(1);
	$self->{out} = $out;
	while (!$$over)
	{
		my $kind = $random->one_of(@kinds);
		my $instance = $random->one_of($world->instances);

		if ($kind =~ /redefine|pause|resume|drop/)
		{
			$self->_change($kind, $random->one_of(@moody), $instance, $random);
		}
		elsif ($kind eq 'once')
		{
			my $at = now() + int($random->between(-1, 6) * 1_000_000);
			my $mode = $random->one_of(@{ $self->{modes} });
			my $options = $mode eq 'at_least_once' ? '' : ", delivery => '$mode'";
			my $begin = $mode eq 'at_most_once' ? 'SELECT chaos.begin(); ' : '';

			$n++;
			$self->_say('once', "once_$n", $instance, "SELECT dsched.schedule_once('once_$n', " . micro_to_sql($at) .
				", '${begin}SELECT chaos.effect()', max_lost => 100000$options)", at => $at, mode => $mode);
		}
		elsif ($kind eq 'now')
		{
			my $job = $random->one_of(@asked, @asked, @moody);
			$self->_say('now', $job, $instance, "SELECT dsched.run_now('$job')");
		}
		elsif ($kind eq 'backfill')
		{
			my $job = $random->one_of(@filled);
			my $from = 10_000_000 * int(now() / 10_000_000 - 1000 - $random->below(100_000));

			$self->_say('backfill', $job, $instance,
				"SELECT dsched.backfill('$job', " . micro_to_sql($from + 1) . ', ' . micro_to_sql($from + 50_000_000) . ')', from => $from, to => $from + 50_000_000);
		}
		elsif ($kind eq 'cancel')
		{
			$self->_say('cancel', '', $instance,
				q{SELECT dsched.cancel(run_key) FROM (SELECT run_key FROM dsched.runs WHERE job_name ~ '_(slow|quick|crowd)_' AND status IN ('running', 'waiting') LIMIT 1) r});
		}
		else
		{
			# a deploy script that says again what stands
			my $job = $random->one_of(grep { $self->{jobs}{$_}{stable} } sort keys %{ $self->{jobs} });
			$self->_say('same', $job, $instance, $self->{jobs}{$job}{definition});
		}
		select(undef, undef, undef, $random->between(0.05, 0.5));
	}
	return;
}

# Asks for something and notes it. Returns "ok", "no" (it surely was not done) or "unknown".
sub _say
{
	my ($self, $op, $job, $instance, $sql, %more) = @_;
	my $from = now();
	my ($ok, $answer, $error) = $self->{world}->sql($instance, "SET SESSION AUTHORIZATION worker; $sql", 6);
	my $outcome = $ok ? 'ok' : $error =~ /^psql: error: connection to server|ERROR:/ && $error !~ /terminating|unexpectedly/ ? 'no' : 'unknown';

	$error =~ s/\n.*//s;
	print { $self->{out} } JSON::PP->new->canonical->encode({ op => $op, job => $job, inst => $instance->{name}, from => $from, to => now(), outcome => $outcome,
		answer => $answer, ($ok ? () : (error => $error)), %more }) . "\n";
	return $outcome;
}

# A change of a job. While an instance has not published one, the next comes from the same instance: two that are under way at a time
# could end in either order.
sub _change
{
	my ($self, $kind, $name, $instance, $random) = @_;
	my $job = $self->{jobs}{$name};
	my $schedule = $job->{now} // $job->{schedule};
	my ($sql, %more);

	$instance = $job->{home} if $job->{home};
	if ($kind eq 'pause' || $kind eq 'resume')
	{
		$sql = "SELECT dsched.$kind('$name')";
	}
	elsif ($kind eq 'drop')
	{
		$sql = "SELECT dsched.unschedule('$name')";
	}
	else
	{
		$schedule = { %{ $self->_period(2 .. 5) } };
		$schedule->{anchor} = 1_000_000 * int(time()) if $schedule->{every};
		$sql = $self->_definition($name, $schedule, delivery => $job->{mode}, overlap => 'queue_all', misfire => 'all');
		$more{schedule} = $schedule;
	}
	$job->{home} = $instance;
	my $outcome = $self->_say($kind, $name, $instance, $sql, %more);
	return if $outcome ne 'ok';

	for (1 .. 10)
	{
		my $published = $self->{world}->ask($instance, "SELECT (SELECT bool_and(published) FROM dsched.jobs WHERE job_name = '$name') IS NOT FALSE
			AND NOT EXISTS (SELECT FROM dsched.outbox WHERE job_name = '$name')", 2) // '';

		if ($published eq 't')
		{
			delete $job->{home};
			$job->{now} = $kind eq 'redefine' ? $schedule : undef;
			print { $self->{out} } JSON::PP->new->canonical->encode({ op => 'published', job => $name, kind => $kind, at => now(), %more }) . "\n";
			return;
		}
		select(undef, undef, undef, 0.2);
	}
	return;
}

# ---------------------------------------------------------------------------------------------------------------------
# What became of it
# ---------------------------------------------------------------------------------------------------------------------

# Takes what the client noted into the jobs (sure windows, one-shots) and returns the requests.
sub read_client
{
	my ($self) = @_;
	my @requests;

	foreach my $job (grep { !$_->{stable} } values %{ $self->{jobs} })
	{
		$job->{sure} = [ $job->{first_sure} //= $job->{sure}[0] ];
		$job->{sure}[0] = [ @{ $job->{sure}[0] } ];
	}
	$self->{said} = {};
	open(my $in, '<', $self->{client_file}) or die "$self->{client_file}: $!";
	while (my $line = <$in>)
	{
		my $say = eval { JSON::PP->new->decode($line) } // next;
		my $job = $self->{jobs}{ $say->{job} };

		$self->{said}{"$say->{op}, $say->{outcome}"}++ if defined $say->{outcome};
		if ($say->{op} eq 'published')
		{
			push @{ $job->{sure} }, [ $say->{at}, undef, $say->{schedule} ] if $say->{kind} eq 'redefine';
		}
		elsif ($say->{op} =~ /^(redefine|pause|resume|drop)$/ && $say->{outcome} ne 'no')
		{
			# until they have heard of it the others go on with what was; how long that takes is not known
			$job->{sure}[-1][1] //= $say->{from} if @{ $job->{sure} };
		}
		elsif ($say->{op} eq 'once')
		{
			$self->{jobs}{ $say->{job} } = { mode => $say->{mode}, schedule => { once => $say->{at} }, sure => $say->{outcome} eq 'ok' ? [ [ $say->{at} - 1, undef ] ] : [],
				stable => 1, atomic => 1, effect => 'one', overlap => 'once', misfire => '-', max_attempts => 1 };
		}
		elsif ($say->{op} =~ /^(now|backfill)$/ && $say->{outcome} eq 'ok')
		{
			my ($trigger) = $say->{answer} =~ /:(\d+)$/m;

			push @requests, { job => $say->{job}, trigger => $trigger, dropped => $job->{stable} ? 0 : 1,
				$say->{op} eq 'backfill' ? (slots => [ Chaos::Checker::slots($job->{schedule}, $say->{from}, $say->{to}) ]) : () };
		}
	}
	return \@requests;
}

# What is committed on an instance, for the judge: effects, rows, what is open, prepared transactions that are not just being made. All of one snapshot.
# Of a server without dsched: effects and rows alone.
sub gather
{
	my ($self, $instance, $plain) = @_;
	my $commit = '(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint';
	my $micro = sub { "(extract(epoch FROM $_[0]) * 1000000)::bigint" };
	my %columns = (
		effect => [qw(made_on job slot trigger attempt at up commit)],
		run    => [qw(job slot last_slot trigger attempt status reason epoch commit node started)],
		open   => [qw(job slot)]);
	my %found = map { ($_ => []) } keys %columns, 'prepared';

	foreach my $line (split /\n/, $self->{world}->must($instance, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'effect', inst, job, slot, trigger_id, attempt, at, up, $commit FROM chaos.effects;"
		. "SELECT 'run', job_name, " . $micro->('scheduled_for') . ', ' . $micro->('last_slot') . ", trigger_id, attempt, status, reason, epoch, $commit, node, " . $micro->('started_at') . " FROM dsched.run;"
		. ($plain ? 'COMMIT' : "SELECT 'open', job_name, " . $micro->('scheduled_for') . " FROM dsched.runs WHERE status IN ('queued', 'waiting', 'running');"
		. "SELECT 'prepared', gid FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - interval '15 s'; COMMIT")))
	{
		my ($kind, @fields) = split /\|/, $line, -1;

		if ($kind eq 'prepared')
		{
			push @{ $found{prepared} }, "$instance->{name}: $fields[0]";
			next;
		}
		my %one = (inst => $instance->{name});
		@one{ @{ $columns{$kind} } } = @fields;
		delete @one{ grep { $one{$_} eq '' } keys %one };
		# of a slot whose job was gone before anybody came to it
		$one{job} //= '';
		push @{ $found{$kind} }, \%one;
	}
	return @found{qw(effect run open prepared)};
}

# The starts that were noted beside the databases.
sub begins
{
	my ($self) = @_;
	my @begins;

	opendir(my $dir, "$self->{world}{dir}/begun") or die "begun: $!";
	foreach my $name (grep { !/^\./ } readdir $dir)
	{
		my %begin;

		@begin{qw(job slot trigger attempt inst)} = split /=/, $name;
		push @begins, \%begin;
	}
	return \@begins;
}

1;
