# etcd keeps all that ever was, until somebody discards it: one of the instances does, also while another one's watches are cut off, and
# its successor goes on. Where nobody does, etcd reaches its quota and takes no more writes: the instances go on with what they have, none
# can join, status() says so, and it ends by itself.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use HTTP::Tiny;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd_cluster(quota => 24 * 1024 * 1024);
my $way  = $etcd->way;
my $conf = $etcd->conf . "log_min_messages = 'debug1'\ndsched.etcd_compaction = '4s'\n";
my $a    = new_instance('a', etcd => $etcd, conf => $conf);
my $b    = new_instance('b', etcd => $way, conf => $conf);
my @fleet = ($a, $b);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances');
as_worker($a, q{SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 16) i});
ok(wait_past('^tick', 16, \@fleet, timestamp()), 'jobs run');

# The lowest revision that can still be asked for is above this one.
sub is_compacted
{
	my ($revision) = @_;
	my $answer = HTTP::Tiny->new(timeout => 5)->post("$etcd->{members}[0]{client}/v3/kv/range",
		{ content => qq({"key":"YQ==","revision":"$revision"}), headers => { 'Content-Type' => 'application/json' } });

	return $answer->{content} =~ /has been compacted/;
}

sub revision { return $etcd->post('/v3/maintenance/status', {})->{header}{revision} }

sub said
{
	my ($node, $pattern) = @_;

	return scalar(() = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /$pattern/g);
}

# -- the history
my $revision = revision();
my $since    = time();
ok(wait_for(sub { is_compacted($revision) }, 60), 'history is discarded');
cmp_ok(time() - $since, '>=', 4, 'after the time that it is kept for');
is(said($b, 'compacted etcd'), 0, 'by one instance');
ok(!is_compacted(revision() - 5), 'what is new is kept');

# The revisions that the watches of one that is cut off would go on from disappear, and definitions change meanwhile.
$way->tell('hold');
as_worker($a, q{SELECT dsched.unschedule('tick16'); SELECT dsched.schedule('tick17', '* * * * * *', 'SELECT dsched_test.effect()')});
$revision = revision();
ok(wait_for(sub { is_compacted($revision) }, 60), '[history-discarded] the history goes on without the one that is cut off');
$way->tell('pass');
ok(wait_until($b, q{SELECT string_agg(job_name, ' ') FROM dsched.jobs WHERE job_name IN ('tick16', 'tick17')}, 'tick17'),
	'which reads all anew');
ok(wait_fleet(\@fleet), '[history-discarded] both have their share again');

$a->stop;
$revision = revision();
ok(wait_for(sub { is_compacted($revision) }, 60), 'another one goes on with it');
cmp_ok(said($b, 'compacted etcd'), '>', 0, 'as it says');
start_instance($a);
ok(wait_fleet(\@fleet), 'two again');
like(status_of($b, 'etcd'), qr/^ok\|session .*; its database has \d+\.\d MB, \d+\.\d in use/, 'status() says how big it is');

# -- the quota
sub fill
{
	my $value = MIME::Base64::encode_base64('x' x 500_000, '');
	my $n     = 0;

	while ($n++ < 200)
	{
		my $key = MIME::Base64::encode_base64("/junk/$n", '');
		return 1 unless eval { $etcd->post('/v3/kv/put', { key => $key, value => $value }); 1 };
	}
	return 0;
}

my $owners = ownership($a);
ok(fill(), 'somebody fills etcd');
ok(wait_until(\@fleet, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: etcd takes no more writes: .*space exceeded.*alarm disarm/s), 'all instances say so, and what to do');
$since = time();
ok(wait_past('^tick', 16, \@fleet, timestamp($since + 4)), 'jobs go on, for longer than a lease');
is(ownership($a), $owners, '[etcd-full] nothing was lost');
is(said($_, 'no longer a problem: etcd takes no more writes'), 0, 'nor does ' . $_->name . ' change its mind') foreach @fleet;
as_worker($a, q{SELECT dsched.schedule('later', '* * * * * *', 'SELECT dsched_test.effect()')});
my $killed = time();
ok(wait_until($a, q{SELECT published FROM dsched.jobs WHERE job_name = 'later'}), 'definitions are still published');
kill9_everything($b);
ok(wait_for(sub { !grep { m{/owner/} && $etcd->get_json($_)->{node} eq 'b' } $etcd->keys('/dsched/test/') }, 30), 'leases end as ever');
ok(wait_owners($a, ['a']), 'what it had is taken over, if etcd lets it');
start_instance($b);
ok(wait_until($b, q{SELECT state || ': ' || detail FROM dsched.status() WHERE component = 'etcd'}, qr/^problem: .*space exceeded/s),
	'nobody can join');
cmp_ok(said($b, 'space exceeded'), '<', 10, 'as is said once');

$etcd->post('/v3/kv/deleterange',
	{ key => MIME::Base64::encode_base64('/junk/', ''), range_end => MIME::Base64::encode_base64('/junk0', '') });
$etcd->post('/v3/kv/compaction', { revision => revision(), physical => JSON::PP::true });
$etcd->ctl('defrag');
$etcd->ctl('alarm', 'disarm');
ok(wait_until(\@fleet, q{SELECT state FROM dsched.status() WHERE component = 'etcd'}, 'ok'), '[etcd-full] there is room again');
ok(wait_past('^(tick|later)', 17, \@fleet, timestamp()), 'all jobs run');
ok(wait_fleet(\@fleet), 'the other one is back');
ok(account_ok(\@fleet, may_repeat => [ { node => 'b', since => $since - 60, until => $killed } ]), 'every slot has its outcome');
done_testing();
