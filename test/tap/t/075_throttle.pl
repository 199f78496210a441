# The limits of queues, judged by what the runs themselves say when they begin and end: never exceeded on an instance or, with scope cluster, over
# all of them, and used as far as they go; also when owners come and go and when limits change under load. And that a flood in one queue
# leaves the jobs of others alone.
#
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd();
my ($one, $two, $three) = my @fleet = fleet(3, etcd => $etcd, conf => "dsched.max_executors = 6\n");
my $begins_and_ends = q{'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect(), pg_sleep(0.2); SELECT dsched_test.log(''end'')'};	# sleep-ok: a run that lasts

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');

# The most runs at a time of jobs whose names match, from line to line (the log's) of the witness log, on each instance and in total. What an
# instance was making when it was killed ended then: gone => { node => line }.
sub most_at_once
{
	my ($pattern, $from, $to, %gone) = @_;
	my @lines = append_log_lines();
	my (%now, %most);

	$to //= $#lines;
	foreach my $i (0 .. $to)
	{
		my $line = $lines[$i];
		my $run = "$line->{job} $line->{slot} $line->{trigger_id} $line->{attempt}";

		foreach my $node (grep { $gone{$_} == $i } keys %gone)
		{
			$now{$node} = {};
		}
		next if $line->{job} !~ $pattern;
		if ($line->{phase} eq 'begin')
		{
			$now{ $line->{node} }{$run} = 1;
		}
		else
		{
			delete $now{ $line->{node} }{$run};
		}
		next if $i < $from;
		my $total = 0;
		foreach my $node (keys %now)
		{
			my $n = keys %{ $now{$node} };

			$most{$node} = $n if $n > ($most{$node} // 0);
			$total += $n;
		}
		$most{total} = $total if $total > ($most{total} // 0);
	}
	return \%most;
}

sub log_length
{
	my @lines = append_log_lines();

	return scalar @lines;
}

# The most runs of jobs that began within a window of so many seconds.
sub most_in_window
{
	my ($nodes, $pattern, $window, $since) = @_;
	my @starts = sort { $a <=> $b } map { split /\n/, $_->safe_psql('postgres',
		"SELECT extract(epoch FROM started_at) FROM dsched.run WHERE job_name ~ '$pattern' AND started_at > to_timestamp($since)") } @$nodes;
	my ($most, $first) = (0, 0);

	foreach my $i (0 .. $#starts)
	{
		$first++ while $starts[$first] <= $starts[$i] - $window;
		$most = $i - $first + 1 if $i - $first + 1 > $most;
	}
	return ($most, scalar @starts);
}

# Until so many more runs of these jobs have ended.
sub more_runs
{
	my ($pattern, $count) = @_;
	my $ended = sub { scalar grep { $_->{job} =~ $pattern && $_->{phase} eq 'end' } append_log_lines() };
	my $before = $ended->();

	return ok(wait_for(sub { $ended->() >= $before + $count }), "$count more runs of $pattern");
}

# ---- max_running ----

$one->safe_psql('postgres', q{SELECT dsched.create_queue('each', 2), dsched.create_queue('total', 4, scope => 'cluster'),
	dsched.create_queue('three', 3, scope => 'cluster')});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues WHERE published}, 3), 'queues');
as_worker($two, "SELECT count(dsched.schedule(kind || i, '* * * * * *', $begins_and_ends, queue => kind)) FROM (VALUES ('each'), ('total'), ('three')) k (kind), generate_series(1, 48) i");
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 144), 'three times 48 jobs');
more_runs(qr/^each/, 60);
more_runs(qr/^total/, 60);
more_runs(qr/^three/, 20);
my $end = log_length() - 1;
my $most = most_at_once(qr/^each/, 0, $end);
is($most->{$_}, 2, "scope instance: two at a time on $_, and no more") foreach map { $_->name } @fleet;
$most = most_at_once(qr/^total/, 0, $end);
is($most->{total}, 4, 'scope cluster: four at a time, and no more');
note(join(', ', map { "$_ $most->{$_}" } sort keys %$most));
is(join(' ', sort map { $most->{ $_->name } } @fleet), '1 1 2', 'shared by three');
$most = most_at_once(qr/^three/, 0, $end);
is(join(' ', map { $most->{$_} } 'node1', 'node2', 'node3', 'total'), '1 1 1 3', 'three are one for each');
as_worker($one, q{SELECT dsched.unschedule(job_id) FROM dsched.jobs WHERE job_name ~ '^three'});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs}, 96), 'that was that');
$one->safe_psql('postgres', q{SELECT dsched.drop_queue('three')});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues}, 2), 'its queue is dropped');

# An owner is lost: the others' shares grow.
kill9_everything($three);
my $gone = log_length();
ok(wait_owners($one, [ 'node1', 'node2' ]), 'an owner is lost');
ok(wait_until([ $one, $two ], q{SELECT count(*) FROM dsched.partitions JOIN dsched.nodes ON node = owner_node WHERE this_instance AND state IS DISTINCT FROM 'active'}, 0),
	'the others have taken over');
my $from = log_length();
more_runs(qr/^total/, 60);
$most = most_at_once(qr/^total/, $from, undef, node3 => $gone);
is($most->{$_}, 2, "$_ has two of the four now") foreach 'node1', 'node2';
is($most->{total}, 4, 'four in total');
$most = most_at_once(qr/^total/, 0, undef, node3 => $gone);
is($most->{total}, 4, 'at any time');
$most = most_at_once(qr/^each/, 0, undef, node3 => $gone);
is($most->{$_}, 2, "scope instance: still two at a time on $_") foreach map { $_->name } @fleet;

# Limits that change under load
$two->safe_psql('postgres', q{SELECT dsched.alter_queue('each', 1), dsched.alter_queue('total', 6)});
ok(wait_until([ $one, $two ], q{SELECT string_agg(max_running::text, ' ' ORDER BY name) FROM dsched.queues WHERE published}, '1 6'), 'other limits');
# what ran by the old limit has ended when all that began before has
more_runs(qr/^each/, 12);
more_runs(qr/^total/, 12);
$from = log_length();
more_runs(qr/^each/, 20);
more_runs(qr/^total/, 60);
$most = most_at_once(qr/^each/, $from, undef, node3 => $gone);
is($most->{$_}, 1, "one at a time on $_") foreach 'node1', 'node2';
$most = most_at_once(qr/^total/, $from, undef, node3 => $gone);
is($most->{total}, 6, 'six in total');

# A queue that is gone limits nobody.
as_worker($one, q{SELECT dsched.alter_job(job_id, reset => '{queue}') FROM dsched.jobs WHERE job_name ~ '^each'});
$one->safe_psql('postgres', q{SELECT dsched.drop_queue('each')});
ok(wait_until([ $one, $two ], q{SELECT count(*) FROM dsched.queues}, 1), 'a queue is dropped');
more_runs(qr/^each/, 12);
$from = log_length();
more_runs(qr/^each/, 60);
$most = most_at_once(qr/^each/, $from, undef, node3 => $gone);
cmp_ok($most->{total}, '>', 2, 'its jobs run without a limit');
start_instance($three);
ok(wait_fleet(\@fleet), 'it is back');
as_worker($one, q{SELECT dsched.unschedule(job_id) FROM dsched.jobs});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs}, 0), 'the jobs are gone');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.runs WHERE status IN ('queued', 'waiting', 'running')}, 0), 'nothing runs');

# ---- rate_limit ----

my $now = time();
$one->safe_psql('postgres', q{SELECT dsched.create_queue('rate', rate_limit => 5), dsched.create_queue('rates', rate_limit => 9, per => '1 second', scope => 'cluster')});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queues WHERE published}, 3), 'queues with a rate');
as_worker($two, "SELECT count(dsched.schedule(kind || i, '* * * * * *', 'SELECT dsched_test.effect()', queue => kind))
	FROM (VALUES ('rate'), ('rates')) k (kind), generate_series(1, 24) i");
# each of them: one that has just come back may still be taking over its partitions
foreach my $kind ('rate\d', 'rates\d')
{
	foreach my $node (@fleet)
	{
		ok(wait_for(sub { (psql_try($node, "SELECT count(*) FROM dsched_test.effects WHERE job ~ '$kind'") // 0) >= 20 }), "runs of $kind on " . $node->name);
	}
}
as_worker($two, q{SELECT dsched.unschedule(job_id) FROM dsched.jobs});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.runs WHERE status IN ('queued', 'waiting', 'running')}, 0), 'nothing runs');
# A start is counted when the run is given to an executor, and recorded when that begins with it: that moves it by some milliseconds.
foreach my $node (@fleet)
{
	my ($count, $of) = most_in_window([$node], '^rate\d', 0.9, $now);

	cmp_ok($count, '<=', 5, 'never more than five in a second on ' . $node->name . " ($of runs)");
	cmp_ok($count, '>=', 3, 'but nearly as many');
}
my ($count, $of) = most_in_window(\@fleet, '^rates\d', 0.9, $now);
cmp_ok($count, '<=', 9, "never more than nine in a second on all together ($of runs)");
cmp_ok($count, '>=', 5, 'but nearly as many');
# runs of node3 that died with it were made elsewhere
account_ok(\@fleet, holes => 1, repeats_ok => 1);
$_->stop('fast') foreach @fleet;

# ---- a flood ----

my $alone = new_instance('alone', conf => "dsched.max_executors = 3\n");
create_extension($alone);
$alone->safe_psql('postgres', q{SELECT dsched.create_queue('flood', 1), dsched.create_queue('other', 1)});
as_worker($alone, q{
SELECT dsched.schedule('free', '* * * * * *', 'SELECT dsched_test.effect()');
SELECT dsched.schedule('other', '* * * * * *', 'SELECT dsched_test.effect()', queue => 'other')});

sub lateness
{
	my ($title, $since, $until) = @_;

	note("$title: lateness of the others, ms (median, 90th percentile, most): " . $alone->safe_psql('postgres', "
		SELECT string_agg(round(extract(epoch FROM l) * 1000)::text, ', ' ORDER BY l) FROM unnest((
			SELECT percentile_disc(ARRAY[0.5, 0.9, 1]) WITHIN GROUP (ORDER BY started_at - scheduled_for)
			FROM dsched.run WHERE job_name IN ('free', 'other') AND started_at BETWEEN '${since}Z' AND '${until}Z')) l"));
	return;
}
my $begun = timestamp();
ok(wait_past('.', 2, [$alone], timestamp(time() + 4)), 'two jobs');
my $flooded = timestamp();
lateness('without a flood', $begun, $flooded);
my $lasts = q{'SELECT pg_sleep(0.001)'};	# sleep-ok: so that the flood lasts
as_worker($alone, qq{
SELECT dsched.schedule('asked', '\@yearly', $lasts, queue => 'flood');
SELECT count(dsched.schedule_in('once' || i, '0 s', $lasts, queue => 'flood')) FROM generate_series(1, 5000) i;
SELECT count(dsched.run_now('asked')) FROM generate_series(1, 2000)});
my $in_flood = timestamp();
my $flood_left = q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ '^once'};
ok(wait_past('.', 2, [$alone], timestamp(time() + 4)), 'they run on in a flood');
my $left = $alone->safe_psql('postgres', $flood_left);
my $to = timestamp();
cmp_ok($left, '>', 0, "while $left of its jobs still wait");
lateness('in a flood', $in_flood, $to);
is($alone->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name IN ('free', 'other') AND (status <> 'succeeded' OR reason <> 'schedule')}), 0,
	'none of their slots was late, missed or skipped');
every_slot_once($_, [$alone], schedule => '* * * * * *', from => "${begun}Z", to => "${to}Z") foreach 'free', 'other';
ok(wait_until($alone, $flood_left, 0), 'the flood is over');
ok(wait_until($alone, q{SELECT count(*) FROM dsched.run WHERE job_name ~ '^(once|asked)' AND status = 'succeeded'}, 7000), 'with all of its runs');
is($alone->safe_psql('postgres', q{SELECT count(*) FROM (
	SELECT started_at < lag(finished_at) OVER (ORDER BY started_at) AS too_early FROM dsched.run WHERE job_name ~ '^(once|asked)') r WHERE too_early}), 0,
	'one at a time');
account_ok($alone);

done_testing();
