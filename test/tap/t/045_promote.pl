# A standby is promoted while its primary is cut off from etcd, but lives. The primary stops by its own clock before the promoted
# server, which has the same dsched.node_name, starts anything; when its way to etcd is mended, it stays out.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(time);

my $etcd    = start_etcd();
my $relay   = start_relay($etcd);
my $ttl     = 6;
my $primary = new_instance('node1', etcd => $etcd, allows_streaming => 1,
	conf => "dsched.lease_ttl = '6s'\ndsched.etcd_endpoints = '" . $relay->endpoints . "'");

create_extension($primary);
$primary->backup('base');
my $standby = new_standby('standby', $primary, 'base', conf => "dsched.etcd_endpoints = '" . $etcd->endpoints . "'");

ok(wait_fleet([$primary]), 'the primary owns all partitions');
like(status_of($standby, 'coordinator'), qr/^waiting\|.*standby/, '[standby-waits] a standby waits');
as_worker($primary,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, 8) i});
# Runs that are open when the lease ends
as_worker($primary,
	q{SELECT count(dsched.schedule('slow' || i, '*/2 * * * * *',
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_sleep(1.2)')) -- sleep-ok: a run that lasts
	FROM generate_series(1, 2) i});
ok(wait_past('.', 10, [$primary], timestamp()), 'the jobs run');
my $from = timestamp();
ok(wait_past('.', 10, [$primary], timestamp(time() + 1)), 'for a while');

my $cut = time();
$relay->cut;
$primary->wait_for_catchup($standby, 'write', $primary->lsn('insert'));
$standby->promote;
my $promoted = time();
is($standby->safe_psql('postgres', 'SHOW dsched.node_name'), 'node1', 'the promoted server has the name of the old one');
ok(wait_until($standby, q{SELECT count(*) FROM dsched.partitions WHERE state = 'active'}, 64), 'it owns all partitions');
note(sprintf '%.1f s after the cut, a lease lives for %d s', time() - $cut, $ttl);
ok(wait_past('.', 10, [$standby], timestamp()), 'the jobs run there');
my $to = timestamp();
ok(wait_past('.', 10, [$standby], timestamp(time() + 1)), 'for a while');
like(status_of($primary, 'etcd'), qr/^problem/, 'the old one says what is wrong');

# Whoever was there first ended before the other began: by the commits of the one, and the beginnings of the other.
my @old = commits($primary, $cut);
my @new = commits($standby, $promoted);
my ($last_commit) = sort { $b <=> $a } map { $_->{finished} } @old;
my ($first_start) = sort { $a <=> $b } map { $_->{started} } @new;
ok(@old && @new, scalar(@old) . ' runs were committed by the cut-off server after the cut, ' . scalar(@new) . ' by the promoted one');
cmp_ok($last_commit, '<', $cut + $ttl, '[standby-promoted-primary-cut-off] the first stopped within its lease');
cmp_ok($last_commit, '<', $first_start, '[standby-promoted-primary-cut-off] before the second began');
note(sprintf 'it stopped %.1f s before the other began', $first_start - $last_commit);

# Each slot has run; twice only if the old one committed it between the cut and its deadline, and could not tell. Of the slow job the promoted
# one has a backlog, and what came due while that was worked off may have been skipped, as any slot that comes due while its job runs.
foreach my $kind ([ 'j', 8, '* * * * * *' ], [ 'slow', 2, '*/2 * * * * *' ])
{
	my ($name, $count, $schedule) = @$kind;
	my @wrong;
	my $repeated = 0;

	foreach my $job (map { "$name$_" } 1 .. $count)
	{
		my %by_slot;
		my @skipped = grep { $_->{status} eq 'skipped' && $_->{reason} eq 'overlap' && $_->{slot} gt timestamp($promoted) } runs($job, [$standby]);

		# What was replicated before the cut is on both.
		$by_slot{ $_->{slot} }{ $_->{finished} } = $_ foreach grep { $_->{job} eq $job } commits($primary, 0), commits($standby, 0);
		foreach my $slot (expected_slots($standby, schedule => $schedule, from => "${from}Z", to => "${to}Z"))
		{
			my @times = sort { $a <=> $b } keys %{ $by_slot{$slot} // {} };

			push @wrong, "$job $slot was not run" unless @times || grep { $_->{slot} le $slot && $slot le $_->{last_slot} } @skipped;
			next if @times < 2;
			$repeated++;
			push @wrong, "$job $slot was run at @times" if @times > 2 || $times[0] < $cut - 1 || $times[0] > $cut + $ttl;
		}
	}
	is_deeply(\@wrong, [], "each slot of $name is accounted for, $repeated were repeated that the cut-off server could not report");
}

sub commits
{
	my ($node, $since) = @_;

	return map { my %row; @row{qw(job slot started finished)} = split /\|/; \%row } split /\n/, $node->safe_psql('postgres',
		"SELECT job_name, to_char(scheduled_for AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), extract(epoch FROM started_at),
			extract(epoch FROM finished_at)
		 FROM dsched.run WHERE status = 'succeeded' AND extract(epoch FROM started_at) > $since ORDER BY finished_at");
}

# Back on the network the old one is the second of its name.
my $mended = time();
$relay->mend;
ok(wait_for(sub { status_of($primary, 'etcd') =~ /^problem\|.*"node1".*in use/ }), '[standby-promoted-primary-cut-off] the old one finds its name in use');
ok(wait_past('.', 10, [$standby], timestamp()), 'the jobs run on the promoted one');
is(scalar(commits($primary, $mended)), 0, 'and not on the old one');
is(scalar(commits($primary, $cut + $ttl)), 0, '[standby-promoted-primary-cut-off] nor ever after its lease had ended');

effects_match_runs('j1', [$_]) foreach $primary, $standby;
account_ok([ $standby, $primary ], may_repeat => [ { node => 'node1', since => $cut - 1, until => $cut + $ttl } ]);

done_testing();
