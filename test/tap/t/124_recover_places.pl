# Places over a new incarnation of the cluster. Another number of partitions: jobs of selectors and of "each" lose no slot and repeat none, also where the
# rows of what they have run are gone; a decision that nobody has carried out is in the way. A wiped etcd: jobs of "each" go on from the account of their instance.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd, conf => "dsched.node_labels = 'dc=a'\n");
my @jobs  = map { ("any$_", "sel$_") } 1 .. 5;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first, qq{SELECT count(dsched.schedule('$_->[0]' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', misfire => 'all', overlap => 'queue_all', run_on => '$_->[1]')) FROM generate_series(1, 5) i})
  foreach [ any => 'any' ], [ sel => 'dc=a' ], [ each => 'each' ];
ok(wait_past('^(any|sel)', 10, \@fleet, timestamp()), 'the jobs run');
ok(wait_past('^each', 5, [$_], timestamp()), 'those of each on ' . $_->name) foreach @fleet;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 15), 'both have all definitions');
ok(wait_until(\@fleet, q{SELECT incarnation <> '' FROM dsched.identity}), 'and have noted whose they are');
my $from = timestamp();

# As after a purge: only the account says that these have run.
sub forget_rows
{
	my $until = timestamp(time() - 2);

	$_->safe_psql('postgres', "DELETE FROM dsched.run WHERE job_name ~ '^each' AND scheduled_for < '${until}Z'") foreach @fleet;
	return;
}

sub each_once
{
	my ($what) = @_;
	my $to = timestamp(time() - 2);

	foreach my $node (@fleet)
	{
		is($node->safe_psql('postgres', q{SELECT coalesce(string_agg(job || ' ' || slot, ', '), '') FROM (SELECT job, slot FROM dsched_test.effects WHERE job ~ '^each' GROUP BY 1, 2 HAVING count(*) > 1) d}),
			'', "$what: no slot of each has two effects on " . $node->name);
		my @lost;
		foreach my $job (map { "each$_" } 1 .. 5)
		{
			my %seen = map { $_->{slot} => 1 } effects($job, [$node]);
			push @lost, map { "$job $_" } grep { !$seen{$_} } expected_slots($node, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
		}
		is("@lost", '', "$what: none is lost on " . $node->name);
	}
	return;
}

# Another number of partitions
sub set_partitions
{
	my ($node, $n) = @_;

	$node->append_conf('postgresql.conf', "dsched.partitions = $n");
	$node->restart;
	return;
}

sub recover
{
	my ($node, $arguments) = @_;
	my ($stdout, $stderr) = ('', '');

	$node->psql('postgres', "SELECT dsched.recover_cluster($arguments)", stdout => \$stdout, stderr => \$stderr, timeout => 90);
	return "$stdout$stderr";
}

my $said = '';
for my $try (1 .. 5)
{
	set_partitions($_, 10) foreach @fleet;
	ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem\|.*64 partitions/s }), $_->name . " has left, try $try") foreach @fleet;
	if ($try == 1)
	{
		my $run = '/dsched/test/db/postgres/run/any/000/1/1/0';

		$etcd->ctl('put', $run, '{"format":1,"mode":"exactly_once","node":"node9","session":1,"epoch":1,"attempt":1,"id":"dsched","at":1}');
		like(recover($first, 'partitions => 10'), qr/ERROR:.*not drained.*(node9" has not committed|not finished|in order)/s, 'a decision that was not carried out is in the way');
		$etcd->ctl('del', $run);
	}
	forget_rows();
	$said = recover($first, 'partitions => 10');
	last if $said !~ /not drained/;
	set_partitions($second, 64);
	ok(wait_past('^(any|sel)', 10, [$second], timestamp()), 'one comes back');
}
like($said, qr/begins anew with 10 partitions/, 'the cluster has another number of partitions');
ok(wait_fleet(\@fleet, timeout => 90), 'both share them');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 15), 'with all jobs');
ok(wait_past('^(any|sel)', 10, \@fleet, timestamp(time() + 1), 90), 'they run');
ok(wait_past('^each', 5, [$_], timestamp(time() + 1), 90), 'those of each on ' . $_->name) foreach @fleet;
my $to = timestamp();
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
each_once('another number of partitions');

# A watch that hears the heartbeats is never taken for deaf.
unlike(slurp_file($_->logfile), qr/has fallen silent/, 'no watch was taken for deaf on ' . $_->name) foreach @fleet;

# A wiped etcd
$etcd->wipe;
ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem\|.*recover_cluster/s }), $_->name . ' stands still') foreach @fleet;
forget_rows();
like(recover($second, ''), qr/begins anew/, 'the cluster is recovered');
ok(wait_fleet(\@fleet, timeout => 90), 'both are back');
ok(wait_past('^each', 5, [$_], timestamp(time() + 1), 90), 'each runs on ' . $_->name) foreach @fleet;
each_once('a wiped etcd');

done_testing();
