# Definitions and triggers signed with dsched.cluster_key_file: what is signed and how, what is refused, keys that change.
# timeout: 200

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $etcd = start_etcd();
my $begun = timestamp();
my @key  = ('first key: ' . 'a1' x 20, 'second key: ' . 'b2' x 20, 'a key of somebody else: ' . 'c3' x 20);

sub key_path { return $_[0]->basedir . '/cluster_key' }

# The file as it has to be, and the setting; what is in force is asked of status().
sub write_keys
{
	my ($node, @lines) = @_;
	my $path = key_path($node);

	unlink($path);
	append_to_file($path, join('', map { "$_\n" } @lines));
	chmod(0600, $path);
	chown((getpwnam('postgres'))[ 2, 3 ], $path) if $> == 0;
	return $path;
}

sub id_of { return substr(hmac_sha256_hex('dsched key id', $_[0]), 0, 8) }
sub use_keys { my ($node, @lines) = @_; write_keys($node, @lines); $node->reload; return }

sub signs_with
{
	my ($nodes, $first, $second) = @_;
	my $expected = 'key ' . id_of($first) . ' signs' . (defined $second ? ', ' . id_of($second) . ' is accepted' : '');

	return wait_until($nodes, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'signatures'}, "ok $expected");
}

# The value with its signature taken off, and one made as the documentation says.
sub unsigned { my ($value) = @_; $value =~ s/,"after":\d+,"mac":"[^"]*"\}$/}/; return $value }

sub sign
{
	my ($key, $value, $after, $secret) = @_;
	(my $text = $value) =~ s/\}$/,"after":$after/;
	return $text . ',"mac":"' . id_of($secret) . ':' . hmac_sha256_hex("$key\n$text", $secret) . '"}';
}

my @fleet = my ($n1, $n2) = fleet(2, etcd => $etcd);
my $free;
create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
is((split /\|/, status_of($n1, 'signatures'))[1], 'definitions are not signed', 'without a file nothing is signed');
as_worker($n1, q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 8) i});
ok(wait_past('^j', 8, \@fleet, timestamp()), 'unsigned jobs run');
my ($status, $out, $error) = $n1->psql('postgres', q{SELECT dsched.schedule('root', '* * * * * *', 'SELECT 1')});
like($error, qr/jobs of superusers are not allowed here.*HINT:.*dsched\.cluster_key_file/s, 'no job of a superuser without a file');

# A superuser's definition that somebody has written into etcd: it is in the table, and fails.
my ($j1_key) = grep { m{/worker/j1$} } $etcd->keys('/dsched/test/db/postgres/job/');
my $superuser = $n1->safe_psql('postgres', 'SELECT current_user');
my $cluster_partition = sub {
	my ($name) = @_;
	# which partition a name is in is what an instance says: it holds a definition that stands elsewhere
	foreach my $pp (0 .. 63)
	{
		my $k = sprintf('/dsched/test/db/postgres/job/%03d/%s/%s', $pp, $superuser, $name);
		(my $value = $etcd->get($j1_key)->{value}) =~ s/"username":"worker","job_name":"j1"/"username":"$superuser","job_name":"$name"/;
		$value =~ s/"job_id":\d+/'"job_id":' . (1000 + $pp)/e;
		$value =~ s/"command":"[^"]*"/"command":"CREATE TABLE IF NOT EXISTS public.owned (n int)"/;
		$etcd->ctl('put', $k, $value);
	}
	return;
};
$cluster_partition->('evil');
ok(wait_for(sub { grep { (psql_try($_, q{SELECT count(*) FROM dsched.run WHERE job_name = 'evil' AND sqlstate = '42501'}) // 0) > 0 } @fleet }),
	'a definition of a superuser from elsewhere does not run');

# The key comes into use. Nothing is signed yet, so all is held, the planted one as well.
write_keys($_, '# the cluster\'s key', '', "  $key[0]  ") foreach @fleet;
$_->append_conf('postgresql.conf', "dsched.cluster_key_file = '" . key_path($_) . "'") foreach @fleet;
$_->reload foreach @fleet;
ok(signs_with(\@fleet, $key[0]), 'the key is in force on both');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE problem ~ 'is not to be trusted: it is not signed'}, 9), 'what is not signed is held, and says so')
  or diag($n1->safe_psql('postgres', 'SELECT job_name, problem FROM dsched.jobs'));
like(status_of($n2, 'definitions'), qr/^problem\|\d+ definitions in etcd cannot be .*verified.*\|.*sign_definitions/, 'as does status()');
my $switched = timestamp();
$etcd->ctl('del', '--prefix', "/dsched/test/db/postgres/job/$_") foreach map { sprintf('%03d/%s/', $_, $superuser) } 0 .. 63;
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'evil'}, 0), 'the planted one is removed');
($status, $out, $error) = $n1->psql('postgres', q{SET ROLE worker; SELECT dsched.sign_definitions()});
like($error, qr/permission denied/, 'not everybody vouches for the table');
is($n1->safe_psql('postgres', q{SELECT dsched.sign_definitions()}), 8, 'sign_definitions() takes them all');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE problem IS NULL AND published}, 8), 'signed, they are trusted on both');
ok(wait_past('^j', 8, \@fleet, timestamp()), 'and run');
ok(wait_for(sub { status_of($_, 'definitions') =~ /^ok/ }), 'status() on ' . $_->name . ' says so') foreach @fleet;
is($n1->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 'owned'}), 0, '[hostile-definition] the superuser\'s command never ran');

# As the documentation has it.
my $value = $etcd->get($j1_key)->{value};
my ($text, $id, $mac) = $value =~ /^(.*),"mac":"([0-9a-f]{8}):([0-9a-f]{64})"\}$/s;
is($id, id_of($key[0]), 'a value says which key has signed it');
is($mac, hmac_sha256_hex("$j1_key\n$text", $key[0]), 'the HMAC is over the key in etcd and the bytes before it');

# Superusers may have jobs now.
$n2->safe_psql('postgres', q{SELECT dsched.schedule('root', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('^root$', 1, \@fleet, timestamp()), 'jobs of superusers run where definitions are signed');

# Tampering: with each of these in its place j1 is held, the table's definition stays, and the good value heals it.
my $good = $etcd->get($j1_key);
my ($j2_key) = grep { m{/worker/j2$} } $etcd->keys('/dsched/test/db/postgres/job/');
my %tampered = (
	'without a signature' => unsigned($value),
	'another command' => $value =~ s/dsched_test\.effect\(\)/1/r,
	'a field that this version does not know' => $value =~ s/^\{/{"future":1,/r,
	'of another job' => $etcd->get($j2_key)->{value},
	'white space at the end' => "$value ",
	'white space at the beginning' => " $value",
	'the mac not last' => $value =~ s/\}$/,"x":1}/r,
	'a wrong digit' => $value =~ s/(.)"\}$/($1 eq '0' ? '1' : '0') . '"}'/er,
	'another key' => sign($j1_key, unsigned($value), $good->{mod_revision}, $key[2]),
	'upper-case digits' => $value =~ s/([0-9a-f]{64})"\}$/uc($1) . '"}'/er,
	'cut off' => substr($value, 0, -1),
	'empty' => '{}',
);
my $revision = $good->{mod_revision};
foreach my $what (sort keys %tampered)
{
	$etcd->ctl('put', $j1_key, $tampered{$what});
	ok(wait_until(\@fleet, q{SELECT problem FROM dsched.jobs WHERE job_name = 'j1'}, qr/is not to be trusted: it/), "held: $what");
	is($n1->safe_psql('postgres', q{SELECT command FROM dsched.jobs WHERE job_name = 'j1'}), 'SELECT dsched_test.effect()', 'and the table has what it had');
	my $now = $etcd->get($j1_key)->{mod_revision};
	$etcd->ctl('put', $j1_key, sign($j1_key, unsigned($value), $now, $key[0]));
	ok(wait_until(\@fleet, q{SELECT problem IS NULL FROM dsched.jobs WHERE job_name = 'j1'}, 't'), 'a signed one heals it');
}

# Replay: an old version that was signed.
my $old = $etcd->get($j1_key)->{value};
as_worker($n2, q{SELECT dsched.alter_job('j1', command => 'SELECT dsched_test.effect() /* new */')});
ok(wait_until(\@fleet, q{SELECT command FROM dsched.jobs WHERE job_name = 'j1'}, qr/new/), 'a job gets another command');
$etcd->ctl('put', $j1_key, $old);
ok(wait_until(\@fleet, q{SELECT problem FROM dsched.jobs WHERE job_name = 'j1'}, qr/old version/), '[hostile-definition] the old one put back is held');
as_worker($n1, q{SELECT dsched.alter_job('j1', priority => 3)});
ok(wait_until(\@fleet, q{SELECT command || priority || (problem IS NULL) FROM dsched.jobs WHERE job_name = 'j1'}, 'SELECT dsched_test.effect() /* new */3true'),
	'a change is not laid over it: what the table has is published');
my $gone = $etcd->get($j2_key)->{value};
as_worker($n1, q{SELECT dsched.unschedule('j2')});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'j2'}, 0), 'a job is unscheduled');
$etcd->ctl('put', $j2_key, $gone);
ok(wait_for(sub { status_of($_, 'definitions') =~ /^problem\|1 definition in etcd cannot be verified/ }), 'put back, it is not taken by ' . $_->name) foreach @fleet;
as_worker($n1, q{SELECT dsched.schedule('j2', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('^j2$', 1, \@fleet, timestamp()), 'another job of its name comes in its place');
ok(wait_for(sub { status_of($_, 'definitions') =~ /^ok/ }), 'all is well on ' . $_->name) foreach @fleet;

# Triggers
my $j3 = $n1->safe_psql('postgres', q{SELECT job_id FROM dsched.jobs WHERE job_name = 'j3'});
my ($j3_key) = grep { m{/worker/j3$} } $etcd->keys('/dsched/test/db/postgres/job/');
my ($pp) = $j3_key =~ m{/job/(\d+)/};
my $trigger = sub { my ($n) = @_; return qq({"format":1,"trigger_id":$n,"job_id":$j3,"username":"worker","job_name":"j3","requested_at":1795241309000000,"requested_by":"worker","change_id":$n}) };
$etcd->ctl('put', "/dsched/test/db/postgres/trigger/$pp/77", $trigger->(77));
$etcd->ctl('put', "/dsched/test/db/postgres/trigger/$pp/78", sign("/dsched/test/db/postgres/trigger/$pp/78", $trigger->(78), 0, $key[0]));
# whoever publishes a request touches this too, so that it is known what came before
$etcd->ctl('put', "/dsched/test/db/postgres/jobrev/$pp", '{"format":1,"change":1}');
ok(wait_for(sub { grep { (psql_try($_, 'SELECT count(*) FROM dsched.run WHERE trigger_id = 78') // 0) == 1 } @fleet }), 'a signed request is carried out');
ok(wait_for(sub { grep { slurp_file($_->logfile) =~ /a trigger in etcd is left alone: it is not signed/ } @fleet }), 'one that is not is left alone');
as_worker($n1, q{SELECT dsched.run_now('j3')});
ok(wait_for(sub { grep { (psql_try($_, 'SELECT count(*) FROM dsched.run WHERE trigger_id NOT IN (0, 77, 78)') // 0) == 1 } @fleet }), 'run_now() signs');
is(join('', map { $_->safe_psql('postgres', 'SELECT count(*) FROM dsched.run WHERE trigger_id = 77') } @fleet), '00', 'the other is still left alone');
$etcd->ctl('del', "/dsched/test/db/postgres/trigger/$pp/77");

# Other keys, without a stop: added as the second, made the first, the old one removed.
my $rotated = timestamp();
use_keys($_, $key[0], $key[1]) foreach @fleet;
ok(signs_with(\@fleet, @key[ 0, 1 ]), 'a second key is accepted');
use_keys($_, $key[1], $key[0]) foreach @fleet;
ok(signs_with(\@fleet, @key[ 1, 0 ]), 'it becomes the first');
as_worker($n1, q{SELECT dsched.alter_job('j4', priority => 1)});
my $signed_by = sub { my ($secret) = @_; return scalar grep { $etcd->get($_)->{value} =~ /"mac":"\Q@{[id_of($secret)]}\E:/ } grep { m{/job/} } $etcd->keys('/dsched/test/db/postgres/job/') };
ok(wait_for(sub { $signed_by->($key[1]) == 1 }), 'what changes is signed with it');
is($n2->safe_psql('postgres', 'SELECT dsched.sign_definitions()'), 9, 'the rest is signed anew when somebody says so');
ok(wait_for(sub { $signed_by->($key[1]) == 9 }), 'all are signed with the new key');
my $j4_key = (grep { m{/worker/j4$} } $etcd->keys('/dsched/test/db/postgres/job/'))[0];
my $j4 = $etcd->get($j4_key)->{mod_revision};
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 9), 'and published');
is($n1->safe_psql('postgres', 'SELECT dsched.sign_definitions()'), 9, 'once more');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 9), 'there is nothing to do');
is($etcd->get($j4_key)->{mod_revision}, $j4, 'and nothing was written');
use_keys($_, $key[1]) foreach @fleet;
ok(signs_with(\@fleet, $key[1]), 'the old key is gone');
ok(wait_past('^(j|root)', 9, \@fleet, timestamp()), 'all jobs run');
ok(wait_for(sub { status_of($_, 'definitions') =~ /^ok/ }), 'nothing is held on ' . $_->name) foreach @fleet;

# One instance with a wrong key: it trusts nobody, nobody trusts it, and both say so.
use_keys($n2, $key[2]);
ok(signs_with($n2, $key[2]), 'one instance has a wrong key');
ok(wait_until($n2, q{SELECT count(*) FROM dsched.jobs WHERE problem ~ 'signed with key [0-9a-f]{8}, which is not in dsched.cluster_key_file here'}, 9), 'it holds all jobs');
as_worker($n2, q{SELECT dsched.alter_job('j5', priority => 2)});
ok(wait_until($n1, q{SELECT problem FROM dsched.jobs WHERE job_name = 'j5'}, qr/signed with key @{[id_of($key[2])]}/), 'what it publishes is held by the other');
use_keys($n2, $key[1]);
ok(signs_with($n2, $key[1]), 'it gets the right key');
ok(wait_until($n2, q{SELECT string_agg(job_name, ',') FROM dsched.jobs WHERE problem IS NOT NULL}, 'j5'), 'and trusts the rest again');
$n2->safe_psql('postgres', 'SELECT dsched.sign_definitions()');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE problem IS NULL}, 9), 'what it had published is signed again');

# A file that cannot be used: what was read stays in force; at the start nothing does.
chmod(0644, key_path($n2));
$n2->reload;
ok(wait_for(sub { status_of($n2, 'signatures') =~ /^problem\|.*group or world access; the keys that were read before stay in force/ }), 'a file that others can read is refused');
as_worker($n2, q{SELECT dsched.alter_job('j6', priority => 2)});
ok(wait_until(\@fleet, q{SELECT priority || (problem IS NULL)::text FROM dsched.jobs WHERE job_name = 'j6'}, '2true'), 'the former key still signs');
$n2->restart;
ok(wait_for(sub { status_of($n2, 'signatures') =~ /^problem\|.*no definition in etcd counts/ }), 'after a restart there is none');
ok(wait_until($n2, q{SELECT count(*) FROM dsched.jobs WHERE problem ~ 'not to be trusted'}, 9), 'nothing counts');
chmod(0600, key_path($n2));
$n2->reload;
ok(signs_with($n2, $key[1]), 'until the file is as it should be');
ok(wait_until($n2, q{SELECT count(*) FROM dsched.jobs WHERE problem IS NULL}, 9), 'then everything does');
ok(wait_fleet(\@fleet), 'both take part');
my %bad = ('is not of 32 to 1024 bytes' => ['short'], 'it has no key' => ['# none'], 'more than two keys' => [@key], 'both keys are the same' => [ @key[ 0, 0 ] ], 'NUL' => ["\0" x 40],
	'too long' => [('x' x 1000) x 9]);
foreach my $why (sort keys %bad)
{
	use_keys($n1, @{ $bad{$why} });
	ok(wait_for(sub { status_of($n1, 'signatures') =~ /^problem\|.*$why/ }), "refused: $why");
}
unlink(key_path($n1));
$n1->reload;
ok(wait_for(sub { status_of($n1, 'signatures') =~ /^problem\|.*cannot be opened/ }), 'a file that is not there');
use_keys($n1, $key[1]);
ok(signs_with(\@fleet, $key[1]), 'the right one again');

# A restart with the right key does not read everything anew.
my $read = () = slurp_file($n2->logfile) =~ /read the definitions of database "postgres"/g;
ok(wait_until($n2, q{SELECT key_ids FROM dsched.identity}, id_of($key[1])), 'the table is known to be verified');
$n2->restart;
ok(wait_fleet(\@fleet), 'after a restart');
is(scalar(() = slurp_file($n2->logfile) =~ /read the definitions of database "postgres"/g), $read, 'the definitions are not read anew');
ok(wait_past('^(j|root)', 9, \@fleet, timestamp()), 'all jobs run');

# No key anywhere.
foreach my $node (@fleet)
{
	my $shown = $node->safe_psql('postgres', 'SELECT string_agg(name || setting, chr(10)) FROM pg_settings') . $node->safe_psql('postgres', q{SELECT string_agg(s::text, '') FROM dsched.status() s});
	my $log = slurp_file($node->logfile);
	my $table = $node->safe_psql('postgres', 'SELECT string_agg(j::text, chr(10)) FROM dsched.job j') . $node->safe_psql('postgres', 'SELECT i::text FROM dsched.identity i');

	unlike($shown . $log . $table, qr/\Q$_\E/, 'no key in settings, log, tables of ' . $node->name) foreach @key;
	($status, $out, $error) = $node->psql('postgres', 'SET ROLE worker; SHOW dsched.cluster_key_file');
	like($error, qr/must be|permission denied/, 'nor the name of the file, for others than superusers');
}
my $dump = $etcd->ctl('get', '--prefix', '/dsched/');
unlike($dump, qr/\Q$_\E/, 'nor in etcd') foreach @key;
# the request that was made by hand is one that nobody asked for
$_->safe_psql('postgres', 'DELETE FROM dsched.run WHERE trigger_id = 78') foreach @fleet;
# what was planted was held, and is gone
account_ok(\@fleet, excused => [ { job => '^evil$', from => "${begun}Z", to => timestamp() . 'Z' } ]);
done_testing();
