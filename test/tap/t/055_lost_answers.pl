# Requests arrive at etcd and are done, and their answers are lost; or they arrive late, when those who sent them have given them up: over and over
# again, at random moments, while definitions change, runs are asked for, accounts are written and partitions are handed over. What was
# asked has happened once, and both instances and etcd agree on it.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{DSCHED_SEED} // int(rand(1 << 30));
srand($seed);
diag("DSCHED_SEED=$seed");

my $etcd  = start_etcd_cluster();
my @ways  = map { $etcd->way } 1, 2;
# Nobody's lease is to end.
my @fleet = map { new_instance('node' . ($_ + 1), etcd => $ways[$_], conf => "dsched.lease_ttl = '20s'\n") } 0, 1;
my ($jobs, $rounds) = (16, $ENV{DSCHED_ROUNDS} // 8);
my %last;
my ($asked, $lost) = (0, 0);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances over proxies');
my $witnessed = q{'SELECT dsched_test.log(''begin''), dsched_test.effect()'};
as_worker($fleet[0], "SELECT count(dsched.schedule('j' || i, '* * * * * *', $witnessed)) FROM generate_series(1, $jobs) i");
as_worker($fleet[0], "SELECT count(dsched.schedule('asked' || i, '\@yearly', $witnessed, overlap => 'queue_all')) FROM generate_series(1, 4) i");
ok(wait_past('^j', $jobs, \@fleet, timestamp()), 'jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, $jobs + 4), 'all is known everywhere');
my $since = time();

# Of each four times once requests are late: by more than the two seconds that accounts have, or the three of the session's requests. Else
# answers are lost for half a second.
sub disturb
{
	my ($way, $code) = @_;
	my $late = $lost++ % 4 == 3;
	my ($for, $pause) = ($late ? 2.2 + rand(1.3) : 0.1 + rand(0.5), 0.4 + rand(0.4));
	my $started = time();

	$way->tell($late ? 'hold_requests' : 'swallow');
	$code->();
	wait_for(sub { time() > $started + $for }, 5);
	$way->tell('pass');
	$started = time();
	wait_for(sub { time() > $started + $pause }, 5);
	return;
}

foreach my $round (1 .. $rounds)
{
	my $who  = int(rand(2));
	my $node = $fleet[$who];

	disturb(
		$ways[$who],
		sub {
			my $name = 'd' . int(rand(6));

			as_worker($node, "SELECT dsched.schedule('$name', '\@yearly', 'SELECT 1', payload => '{\"n\": $round}')");
			$last{$name} = $round;
			as_worker($node, "SELECT dsched.run_now('asked' || i) FROM generate_series(1, 4) i");
			$asked += 4;
			if (rand() < 0.3)
			{
				as_worker($node, "SELECT dsched.unschedule('$name')");
				delete $last{$name};
			}
		});
}
my $calm = time();
my $expected = join ' ', map { "$_=$last{$_}" } sort keys %last;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE NOT published}, 0), 'everything is published');
ok(wait_until(\@fleet, q{SELECT coalesce(string_agg(job_name || '=' || (payload->>'n'), ' ' ORDER BY job_name), '') FROM dsched.jobs WHERE job_name ~ '^d\d'},
		$expected), "both have the last definitions: $expected");
ok(wait_for(sub { append_log_lines() && scalar(grep { $_->{job} =~ /^asked/ } append_log_lines()) >= $asked }), "all of $asked that were asked for have run");
ok(wait_for(sub { !grep { m{/trigger/} } $etcd->keys('/dsched/test/') }), 'no request is left in etcd');
my %runs;
$runs{"$_->{job} $_->{trigger_id}"}++ foreach grep { $_->{job} =~ /^asked/ } append_log_lines();
is(scalar(keys %runs), $asked, 'each once:');
is(join(' ', grep { $runs{$_} != 1 } sort keys %runs), '', '[answers-lost] none twice');
is(wait_fleet(\@fleet), ownership($fleet[0]), 'the partitions have owners');

# Partitions are handed over while answers are lost: an instance leaves and comes back, the answers of the other one disappear.
foreach my $round (1 .. 2)
{
	$fleet[1]->stop;
	disturb($ways[0], sub { start_instance($fleet[1]) });
	disturb($ways[0], sub { });
	ok(wait_fleet(\@fleet), 'all partitions have one owner after a hand-over');
}
my %owner = ownership($fleet[0]);
my %in_etcd = map { $_ => $etcd->get_json($_)->{node} } grep { m{/owner/} } $etcd->keys('/dsched/test/');
is(scalar(keys %in_etcd), scalar(keys %owner), '[answers-lost] as many owner keys as partitions');
is(scalar(grep { $_ eq 'node1' } values %in_etcd), scalar(grep { $_ eq 'node1' } values %owner), 'with the owners that the instances know');

ok(wait_past('^j', $jobs, \@fleet, timestamp()), 'jobs run');
ok(account_ok(\@fleet), '[answers-lost] every slot has one outcome');
my @connections = map { my $way = $_; map { $way->proxy($_)->connections } 0 .. 2 } @ways;
note("connections made: @connections");
done_testing();
