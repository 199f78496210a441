# Three members of etcd with its default timings, hurt one after the other while jobs run: killed and restarted, the leader killed, the
# leader suspended, and two of three gone for longer than the leases. Nobody loses a partition, no slot is lost or run twice, and while
# there is no quorum nobody starts anything after the end of its lease.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use Test::More;
use Time::HiRes qw(time);

my $ttl   = 3;
my $jobs  = 24;
my $etcd  = start_etcd_cluster(timings => 'default');
my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($fleet[0], "SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()'))
	FROM generate_series(1, $jobs) i");
ok(wait_past('^j', $jobs, \@fleet, timestamp()), 'the jobs run');
my $owners  = wait_fleet(\@fleet);
my $from    = timestamp();
my $session = session();

sub session { return join ' ', map { psql_try($_, q{SELECT session FROM dsched.nodes WHERE this_instance}) // '?' } @fleet }

sub unchanged
{
	my ($what) = @_;

	is(wait_fleet(\@fleet), $owners, "$what: each has what it had");
	is(session(), $session, "$what: in the same session");
	return;
}

# The latest start of a run that came due between two moments, in milliseconds; in list context also how many there were.
sub lateness
{
	my ($since, $until) = @_;
	my ($worst, $count) = (0, 0);

	foreach my $node (@fleet)
	{
		my ($late, $n) = split /\|/, psql_try($node,
			"SELECT coalesce(max(extract(epoch FROM started_at - scheduled_for) * 1000), 0)::int, count(*) FROM dsched.run
			 WHERE extract(epoch FROM scheduled_for) BETWEEN $since AND $until");

		$worst = $late if $late > $worst;
		$count += $n;
	}
	return wantarray ? ($worst, $count) : $worst;
}

# One by one, in whatever order they lead.
foreach my $i (0 .. 2)
{
	$etcd->stop('KILL', $i);
	ok(wait_past('^j', $jobs, \@fleet, timestamp()), "[member-of-etcd-killed] jobs run without member $i");
	$etcd->start($i);
}
unchanged('members killed and restarted one by one');

# The leader, for which the others have to elect another one, after one to two seconds.
my $since  = time();
my $before = lateness($since - 5, $since - 1);
my $leader = $etcd->fresh_leader;
$etcd->stop('KILL', $leader);
my $killed = time();
ok(wait_past('^j', $jobs, \@fleet, timestamp($killed + 4)), '[etcd-leader-killed] jobs run after the loss of the leader');
my ($after, $count) = lateness($killed, $killed + 4);
note("latest start of a run: $before ms before, $after ms in the 4 s after kill -9 of etcd's leader ($count runs)");
cmp_ok($count, '>=', 3 * $jobs, 'all of them');
$etcd->start($leader);
unchanged('leader killed');

$leader = $etcd->fresh_leader;
$etcd->sigstop($leader);
my $stopped = time();
ok(wait_past('^j', $jobs, \@fleet, timestamp($stopped + $ttl + 1)), '[etcd-leader-suspended] jobs run while the leader is suspended, for longer than a lease');
($after, $count) = lateness($stopped, $stopped + $ttl + 1);
note("latest start of a run: $after ms while etcd's leader is suspended ($count runs)");
is(session(), $session, 'in the same sessions');
# An etcd before 3.4.42 and 3.5.28 may then end leases that live: the resumed leader takes them for expired, as it has not heard of their
# renewals, and what it asks for is done by the new one. Instances lose their sessions, and begin others.
my $resumed = time();
$etcd->sigcont($leader);
ok(wait_past('^j', $jobs, \@fleet, timestamp($resumed + 1)), 'jobs run when it is back');
$owners  = wait_fleet(\@fleet);
$session = session();

# No quorum.
my @gone = grep { $_ != $etcd->fresh_leader } 0 .. 2;
$etcd->stop('KILL', @gone);
my $lost = time();
ok(wait_for(sub { !grep { status_of($_, 'etcd') !~ /^problem/ } @fleet }, 20), '[etcd-quorum-lost] without a quorum all say that there is a problem');
wait_for(sub { time() > $lost + 3 * $ttl }, 20);
my $until = time();
is(join(' ', map { psql_try($_, "SELECT count(*) FROM dsched.run WHERE extract(epoch FROM started_at) BETWEEN $lost + $ttl AND $until") } @fleet),
	'0 0', '[etcd-quorum-lost] and start nothing after the end of their leases');
$etcd->start(@gone);
my $back = time();
ok(wait_past('^j', $jobs, \@fleet, timestamp($back)), 'all goes on when the members are back');
unchanged('quorum lost');

my $to = timestamp();
ok(account_ok(\@fleet, may_repeat => [ map { { node => $_->name, since => $resumed - 1, until => $back } } @fleet ]), 'every slot has its outcome');
my @twice = split /\n/, join '', map { psql_try($_, "SELECT job || ' ' || slot FROM dsched_test.effects
	WHERE slot < '" . timestamp($resumed - 1) . "' GROUP BY job, slot HAVING count(*) > 1") // '?' } @fleet;
is("@twice", '', 'and no effect came twice');
done_testing();
