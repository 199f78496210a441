# Whoever can write to etcd puts there what he likes: the instances live, the jobs run on, status() says what is wrong, and
# memory stays bounded.  (The judge of slots has no say here: whoever writes accounts may skip and repeat slots, as docs/security.md has it.)
# timeout: 200

use strict;
use warnings;

use DschedTest;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $etcd  = start_etcd(args => [ '--max-request-bytes', '20000000', '--quota-backend-bytes', '2000000000' ]);
my @fleet = my ($n1, $n2) = fleet(2, etcd => $etcd);
my $base  = '/dsched/test/db/postgres';

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($n1, q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 8) i});
ok(wait_past('^j', 8, \@fleet, timestamp()), 'the jobs run');

# Bytes as they are, under any key.
sub put { my ($key, $value) = @_; $etcd->post('/v3/kv/put', { key => encode_base64($key, ''), value => encode_base64($value, '') }); return }
sub del { my ($key) = @_; $etcd->post('/v3/kv/deleterange', { key => encode_base64($key, '') }); return }

sub processes { my ($node) = @_; return $node->safe_psql('postgres', q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type LIKE 'dsched sched%'}) . ' ' . join(' ', pids($node, 'coordinator')) }

sub memory
{
	my ($node) = @_;
	my $most = 0;

	foreach my $pid (pids($node, 'dsched'))
	{
		open(my $status, '<', "/proc/$pid/status") or next;
		my ($kb) = join('', <$status>) =~ /^RssAnon:\s+(\d+)/m;
		$most = $kb if defined $kb && $kb > $most;
	}
	return $most;
}

my %alive = map { $_->name => processes($_) } @fleet;
my ($j1_key) = grep { m{/worker/j1$} } $etcd->keys("$base/job/");
my $good = $etcd->get($j1_key)->{value};
my ($pp) = $j1_key =~ m{/job/(\d+)/};

sub live
{
	my ($what, $pattern, $count) = @_;

	ok(wait_past($pattern, $count, \@fleet, timestamp()), "[hostile-values] $what: the jobs run on");
	is(processes($_), $alive{ $_->name }, $_->name . ' has the same processes') foreach @fleet;
	return;
}

# Values of one definition, each of which holds that job alone.
my %value = (
	'deep arrays' => '{"format":1,"x":' . '[' x 100000 . ']' x 100000 . '}',
	'deep objects' => '{"a":' x 50000 . '1' . '}' x 50000,
	'unterminated' => '{"format":1,"x":' . '[' x 500000,
	'1e999' => $good =~ s/"job_id":\d+/"job_id":1e999/r,
	'2^63' => $good =~ s/"gen":\d+/"gen":9223372036854775808/r,
	'2^53' => $good =~ s/"gen":\d+/"gen":9007199254740992/r,
	'negative' => $good =~ s/"job_id":\d+/"job_id":-1/r,
	'zero id' => $good =~ s/"job_id":\d+/"job_id":0/r,
	'float' => $good =~ s/"gen":(\d+)/"gen":1.5/r,
	'a number of 100000 digits' => $good =~ s/"gen":(\d+)/'"gen":' . '9' x 100000/er,
	'duplicate members' => $good =~ s/^\{/{"command":"SELECT 1",/r,
	'duplicate by escape' => $good =~ s/^\{/{"comm\\u0061nd":"SELECT 1",/r,
	'invalid UTF-8' => $good =~ s/dsched_test/\xff\xfe/r,
	'overlong UTF-8' => $good =~ s/dsched_test/\xc0\xaf/r,
	'surrogates' => $good =~ s/dsched_test/\\ud800/r,
	'NUL' => $good =~ s/dsched_test/\\u0000/r,
	'a NUL byte' => $good =~ s/dsched_test/\0/r,
	'a NUL at the end' => "$good\0",
	'a byte order mark' => "\xef\xbb\xbf$good",
	'an array' => "[$good]",
	'a string' => '"x"',
	'a number' => '1',
	'null' => 'null',
	'nothing' => '',
	'spaces' => ' ' x 1000000,
	'wrong types' => $good =~ s/"active":true/"active":"yes"/r,
	'format 2' => $good =~ s/"format":1/"format":2/r,
	'no format' => $good =~ s/"format":1,//r,
	'100000 members' => $good =~ s/\}$/join('', map { ",\"x$_\":$_" } 1 .. 100000) . '}'/er,
	'1.4 MB' => $good =~ s/"command":"/'"command":"' . 'x' x 1400000/er,
	'10 MB' => $good =~ s/"command":"/'"command":"' . 'x' x 10000000/er,
	'10 MB of an unknown member' => $good =~ s/\}$/',"x":"' . 'y' x 10000000 . '"}'/er,
	'a command of 300 kB' => $good =~ s/"command":"/'"command":"--' . 'x' x 300000/er,
	'another name' => $good =~ s/"job_name":"j1"/"job_name":"j2"/r,
	'another role' => $good =~ s/"username":"worker"/"username":"postgres"/r,
	'an unknown policy' => $good =~ s/\}$/,"overlap":"explode"}/r,
	'a time beyond all' => $good =~ s/"slots_from":\d+/"slots_from":9007199254740991/r,
	'escapes in a name' => $good =~ s/"job_name":"j1"/"job_name":"j1\\u001b[2J\\nLOG: forged"/r,
);
my $most = 0;
foreach my $what (sort keys %value)
{
	put($j1_key, $value{$what});
	my $seen = $etcd->get($j1_key)->{mod_revision};
	if ($what eq 'a time beyond all')
	{
		# readable, and without a slot
		ok(wait_until(\@fleet, qq{SELECT mod_revision = $seen OR problem IS NOT NULL FROM dsched.job WHERE job_name = 'j1'}), "taken or held: $what");
	}
	else
	{
		ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'j1' AND problem ~ 'does not parse'}, 1), "held: $what");
	}
	put($j1_key, $good);
	ok(wait_until(\@fleet, q{SELECT problem IS NULL FROM dsched.jobs WHERE job_name = 'j1'}), 'a good one heals it');
}
live('bad definitions', '^j', 8);

# Keys that are not in the scheme, below the prefix.
my $long = 'x' x 3000;
foreach my $key (
	'/dsched/test/', '/dsched/test/nonsense', '/dsched/test/db', '/dsched/test/db/', '/dsched/test/node/', '/dsched/test/node/%', '/dsched/test/node/%zz', '/dsched/test/node/a%00b', "/dsched/test/node/$long",
	"$base/", "$base/member/", "$base/member/%", "$base/member/$long", "$base/unknown/001", "$base/job/", "$base/job/999/worker/x", "$base/job/064/worker/x", "$base/job/1/worker/x", "$base/job/001/worker/", "$base/job/001//x",
	"$base/job/001/worker/x/", "$base/job/001/worker/x/y", "$base/job/001/worker/%6a1", "$base/job/001/worker/%4", "$base/job/001/worker/\xff", "$base/job/001/worker/a\0b", "$base/job/001/worker/" . 'n' x 300, "$base/job/001/" . 'r' x 100 . '/x',
	"$base/job/001/worker/$long", "$base/jobrev/", "$base/jobrev/999", "$base/jobrev/x", "$base/owner/any/", "$base/owner/any/999", "$base/owner/any/064", "$base/owner/any/-01", "$base/owner/nowhere/001", "$base/owner/$long/001", "$base/state/any/999", "$base/state/nowhere/001",
	"$base/trigger/999/1", "$base/trigger/001/0", "$base/trigger/001/-1", "$base/trigger/001/99999999999999999999", "$base/trigger/001/x", "$base/trigger/$pp/7", "$base/queue/", "$base/queue/%", "$base/queue/$long", "$base/queue/q", "$base/queuerev",
	"$base/run/any/001/1", "$base/run/$long", '/dsched/test/db/nowhere/job/001/worker/x', '/dsched/test/db/%/job/001/worker/x', "/dsched/test/db/$long/job/001/worker/x")
{
	foreach my $value ('junk', "\xff\0\x1b[2J\n", '{"format":1}', $good, '[' x 10000)
	{
		put($key, $value);
	}
}
live('keys that are not in the scheme', '^j', 8);
like($etcd->get_json('/dsched/test/config')->{incarnation} // '', qr/^[0-9a-f]+$/, 'config is what it was');

# Accounts of partitions: those who own them say who has written over them, and whoever takes over meets what stands there.
my ($owner, $other) = ownership($n1) =~ /\b0*\Q${\($pp + 0)}\E=node1@/ ? ($n1, $n2) : ($n2, $n1);
my $state = $etcd->get("$base/state/any/$pp")->{value};
foreach my $absurd ('junk', '{"format":1}', $state =~ s/"watermark":\d+/"watermark":9007199254740991/r, $state =~ s/"watermark":\d+/"watermark":-9007199254740991/r,
	$state =~ s/"epoch":\d+/"epoch":9007199254740991/r, $state =~ s/"jobrev":\d+/"jobrev":9007199254740991/r,
	$state =~ s/"pending":\[.*?\]/'"pending":[' . join(',', map { qq({"j":$_,"g":1,"s":$_,"a":1,"r":"schedule"}) } 1 .. 2000) . ']'/er,
	$state =~ s/"pending":\[.*?\]/'"pending":[' . join(',', map { qq({"j":1,"g":1,"s":$_,"a":1,"r":"schedule"}) } 1 .. 3000) . ']'/er)
{
	put("$base/state/any/$pp", $absurd);
}
del("$base/state/any/$pp");
put("$base/state/any/$pp", $state);
ok(wait_fleet(\@fleet), 'accounts that somebody has written over: all partitions have owners');

# An owner's key of a stranger, without a lease; a member that is none; an instance whose labels and names are hostile.
put("$base/member/ghost", '{"format":1,"node":"ghost","session":1}');
put("/dsched/test/node/evil", qq({"format":1,"node":"evil\\u001b[2J\\n","host":"\\u001b]0;x\\u0007","port":5432,"labels":{"a":"\\u001b[31m\\nLOG:  forged"},"version":"1.0","server_version_num":150000,"lease":"1","system_identifier":"1","timeline":1,"boot_id":"b","data_dev":"1","data_ino":"1","wall_clock":1795241311607214,"tzdata":"x"}));
put("/dsched/test/node/evil2", qq({"format":1,"node":"evil2","host":"h","port":5432,"labels":{"a":"\\u001b[31m\\nLOG:  forged","b":[[[[1]]]],"c":") . 'x' x 4000 . qq("},"version":"1.0","server_version_num":150000,"lease":"1","system_identifier":"1","timeline":1,"boot_id":"b","data_dev":"1","data_ino":"1","wall_clock":1795241311607214,"tzdata":"x"}));
ok(wait_past('^j', 1, \@fleet, timestamp()), 'a member that is none: jobs of the partitions that it does not get run');
foreach my $node (@fleet)
{
	my $shown = $node->safe_psql('postgres', q{SELECT string_agg(n::text, ' ') FROM dsched.nodes n}) . $node->safe_psql('postgres', q{SELECT string_agg(s::text, ' ') FROM dsched.status() s});

	ok($shown !~ /[\x00-\x09\x0b-\x1f\x7f]/, 'no control character of others is shown by ' . $node->name);
	ok(slurp_file($node->logfile) !~ /^LOG:  forged|[\x00-\x08\x0b-\x1f]/m, 'nor in its log');
}
del("$base/member/ghost");
del("/dsched/test/node/$_") foreach qw(evil evil2);
put("$base/owner/any/$pp", '{"format":1,"node":"stranger","session":1}');
ok(wait_until(\@fleet, qq{SELECT owner_node FROM dsched.partitions WHERE partition = $pp}, 'stranger'), 'a partition that a stranger has is shown as his');
del("$base/owner/any/$pp");
ok(wait_fleet(\@fleet), 'without that key it is claimed again');
live('keys of others', '^j', 8);

# A great many keys. Instances start with them, too.
my $before = memory($n1);
sub flood
{
	my ($count, $key, $value) = @_;

	for (my $i = 0; $i < $count; $i += 120)
	{
		$etcd->post('/v3/kv/txn', { success => [ map { { requestPut => { key => encode_base64($key->($_), ''), value => encode_base64($value, '') } } } $i .. $i + 119 ] });
	}
	return;
}
flood(30000, sub { sprintf('%s/job/%03d/worker/junk%d', $base, $_[0] % 64, $_[0]) }, '{"format":1,"x":1}');
flood(20000, sub { sprintf('%s/trigger/%03d/%d', $base, $_[0] % 64, $_[0] + 100000) }, '{"format":1,"x":1}');
flood(3000, sub { sprintf('%s/queue/junk%d', $base, $_[0]) }, 'x');
flood(5000, sub { sprintf('%s/owner/any/%d', $base, $_[0] + 1000) }, 'x');
flood(2000, sub { sprintf('/dsched/test/node/junk%d', $_[0]) }, 'x');
flood(2000, sub { sprintf('%s/member/junk%d', $base, $_[0]) }, 'x');
ok(wait_until(\@fleet, q{SELECT detail FROM dsched.status() WHERE component = 'definitions'}, qr/^\d{5,} definitions in etcd cannot be/, 90), 'status() counts what cannot be read');
diag('most memory of a process: ' . memory($n1) . " kB, before $before kB; log " . int((-s $n1->logfile) / 1024) . ' kB');
cmp_ok(memory($n1), '<', $before + 150000, '[hostile-values] memory is bounded');
cmp_ok(-s $n1->logfile, '<', 1_000_000, 'and so is the log');
$n2->restart;
ok(wait_until($n2, q{SELECT state FROM dsched.status() WHERE component = 'etcd'}, 'ok', 90), 'an instance starts with all of it');
ok(wait_past('^j', 1, \@fleet, timestamp()), 'jobs run');
$etcd->ctl('del', '--prefix', $_) foreach "$base/trigger/", "$base/queue/", "$base/member/junk", '/dsched/test/node/junk';
$etcd->ctl('del', "$base/owner/any/1000", "$base/owner/any/999999");
$etcd->ctl('del', '--prefix', sprintf('%s/job/%03d/worker/junk', $base, $_)) foreach 0 .. 63;
ok(wait_fleet(\@fleet), 'when it is gone all is as it was');
ok(wait_past('^j', 8, \@fleet, timestamp()), 'all jobs run');
done_testing();
