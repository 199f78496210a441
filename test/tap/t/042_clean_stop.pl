# pg_ctl stop -m fast: the others take over at once, long before the lease would end, and no slot is lost or doubled.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd, conf => "dsched.lease_ttl = '15s'");

# The first revision after $from, at which it is there, that does not have the key, or has another of that name; so it is at $to.
sub gone_at
{
	my ($key, $from, $to) = @_;
	my $since = $from;

	while ($to - $from > 1)
	{
		my $middle = int(($from + $to) / 2);
		my $answer = $etcd->post('/v3/kv/range', { key => encode_base64($key, ''), revision => $middle });

		if ($answer->{count} && $answer->{kvs}[0]{create_revision} <= $since)
		{
			$from = $middle;
		}
		else
		{
			$to = $middle;
		}
	}
	return $to;
}
my @quick = map { "quick$_" } 1 .. 24;
my @slow  = map { "slow$_" } 1 .. 6;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
# A run that could not begin before its slot was almost over may still be running when the next comes due, which is passed over by default.
as_worker($fleet[0],
	q{SELECT count(dsched.schedule('quick' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()', overlap => 'queue_all'))
	FROM generate_series(1, 24) i});
# Some runs are being made when the instance stops.
as_worker($fleet[0],
	q{SELECT count(dsched.schedule('slow' || i, '*/3 * * * * *',
		'SELECT dsched_test.log(''begin''), dsched_test.effect(), pg_sleep(0.7)')) -- sleep-ok: a run that lasts
	FROM generate_series(1, 6) i});
ok(wait_past('.', 30, \@fleet, timestamp()), 'the jobs run');
my $from = timestamp();

# An instance with a long run under way
my ($owner) = grep { my $node = $_; grep { $_ =~ /slow/ } split /\n/,
	  $node->safe_psql('postgres', 'SELECT job_name FROM dsched.jobs WHERE owner_node = current_setting(\'dsched.node_name\')') } @fleet;
my @others = grep { $_ != $owner } @fleet;
my %owner_of = ownership($owner);
my ($partition) = grep { $owner_of{$_} eq $owner->name } sort keys %owner_of;
my ($node_key, $owner_key) = ('/dsched/test/node/' . $owner->name, sprintf('/dsched/test/db/postgres/owner/any/%03d', $partition));
my $before = $etcd->post('/v3/kv/range', { key => encode_base64('x', '') })->{header}{revision};
ok($etcd->get($node_key) && $etcd->get($owner_key), "$owner_key is there, and the node key of its owner");
ok(wait_until($owner, q{SELECT count(*) > 0 FROM dsched.runs WHERE status = 'running' AND job_name ~ 'slow'}), 'a long run is under way');

my $stopped = time();
$owner->stop('fast');
my $stop_took = time() - $stopped;
ok(wait_owners($others[0], [ map { $_->name } @others ]), '[stopped-in-order] the others own all partitions');
note(sprintf 'the stop took %.2f s, the others own all after %.2f s; the lease lives for 15 s', $stop_took, time() - $stopped);
cmp_ok(time() - $stopped, '<', 5, '[stopped-in-order] long before the lease would have ended');

# A revocation of the lease whose answer was not waited for could be applied late. Whoever comes after goes on under a lease only if
# a node key names it, so that key must be gone before.
my $after = $etcd->post('/v3/kv/range', { key => encode_base64('x', '') })->{header}{revision};
my ($node_gone, $owner_gone) = map { gone_at($_, $before, $after) } $node_key, $owner_key;
cmp_ok($node_gone, '<', $owner_gone, '[stopped-in-order] the node key was deleted before the lease was revoked');
ok(wait_past('quick', 24, \@others, timestamp()), 'all jobs run on two instances');
note(sprintf 'all jobs ran again after %.2f s', time() - $stopped);

start_instance($owner);
ok(wait_fleet(\@fleet), 'it is back and has its share');
my $to = timestamp();
ok(wait_past('.', 30, \@fleet, timestamp(time() + 1)), 'all jobs run on three instances');
every_slot_of_each_once(\@quick, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
every_slot_of_each_once(\@slow, \@fleet, schedule => '*/3 * * * * *', from => "${from}Z", to => "${to}Z");
attempts_at_most($_, 2) foreach @quick[ 0 .. 3 ], @slow;
account_ok(\@fleet);

done_testing();
