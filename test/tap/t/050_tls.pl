# etcd with TLS: instances show a certificate and believe no other authority; certificates are rotated by a reload; what does not fit is
# told clearly, in status() and once in the log.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use Test::More;

my $etcd = start_etcd_cluster(tls => 1, proxy => 1);
my $dir  = $etcd->directory;
my $node = new_instance('node1', etcd => $etcd, conf => $etcd->conf);

create_extension($node);

# How often the log says something.
sub said
{
	my ($pattern) = @_;

	return scalar(() = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /$pattern/g);
}

sub session { return psql_try($node, q{SELECT session FROM dsched.nodes WHERE this_instance}) }

sub connections
{
	my $n = 0;

	$n += $etcd->proxy($_)->connections foreach 0 .. 2;
	return $n;
}

sub reload_with
{
	my (%setting) = @_;

	$node->append_conf('postgresql.conf', "dsched.etcd_$_ = '$setting{$_}'") foreach keys %setting;
	$node->reload;
	return;
}

# What becomes of the instance when all connections have to be made anew.
sub cut_all { $etcd->proxy($_)->cut foreach 0 .. 2 }

ok(wait_fleet([$node]), 'an instance joins over TLS');
as_worker($node, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('tick', 1, [$node], timestamp()), 'and runs a job');
like(status_of($node, 'etcd'), qr{^ok\|session \d+ through https://}, 'status() names the endpoint');

# A new certificate is taken by a reload, without an end of the session.
my ($session, $before) = (session(), connections());
$etcd->certificate('client');
$node->reload;
ok(wait_for(sub { connections() > $before }), '[certificate-replaced] a reload makes new connections for another certificate');
ok(wait_past('tick', 1, [$node], timestamp(time() + 3)), 'jobs go on');
$before = connections();
like($session, qr{^\d+$}, "a session");
is(session(), $session, '[certificate-replaced] in the same session');

# One that cannot be used leaves the former one in use.
chmod(0644, "$dir/client.key");
$node->reload;
ok(wait_for(sub { said('could not take over the settings for etcd: key file .* has group or world access') }),
	'a key that others can read is refused');
cut_all();
ok(wait_past('tick', 1, [$node], timestamp(time() + 3)), 'what was in use before goes on, for new connections, too');
is(session(), $session, 'still in the same session');
chmod(0600, "$dir/client.key");

# The certificate of an authority that etcd does not know.
$etcd->certificate('stranger', ca => 'other');
reload_with(cert_file => "$dir/stranger.crt", key_file => "$dir/stranger.key");
ok(wait_until($node, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*(certificate|alert|unknown ca|SSL).*dsched\.etcd_ca_file/s), 'a certificate that etcd does not believe');
reload_with(cert_file => "$dir/client.crt", key_file => "$dir/client.key");
ok(wait_until($node, q{SELECT state FROM dsched.status() WHERE component = 'etcd'}, 'ok'), '[certificate-unfit] the right one again');

# etcd's own, of an authority that we do not know.
reload_with(ca_file => "$dir/other.crt");
ok(wait_until($node, q{SELECT state || ': ' || detail FROM dsched.status() WHERE component = 'etcd'}, qr/^problem: .*certificate/s),
	'etcd is not believed, if its certificate is signed by somebody else');
my $tries = connections();
my $since = Time::HiRes::time();
wait_for(sub { Time::HiRes::time() > $since + 4 }, 10);
cmp_ok(connections() - $tries, '<', 80, 'and is not called without a pause: ' . (connections() - $tries) . ' connections in 4 s');
is(said('WARNING:  dsched: no usable answer from etcd: [^\n]*certificate'), 2, '[certificate-unfit] the log says it once for each problem')
  or diag(join "\n", grep { /no usable answer/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile));
reload_with(ca_file => "$dir/ca.crt");
ok(wait_past('tick', 1, [$node], timestamp(time() + 1)), 'with the right authority all goes on');

# etcd's certificate expires; it reads the file for each connection.
$etcd->certificate('server', server => 1, days => -1);
cut_all();
ok(wait_until($node, q{SELECT state || ': ' || detail FROM dsched.status() WHERE component = 'etcd'}, qr/^problem: .*certificate has expired/s),
	'a certificate of etcd that has expired');
$etcd->certificate('server', server => 1);
ok(wait_past('tick', 1, [$node], timestamp(time() + 1)), 'a new one is taken without a reload here');

# One for another name.
$etcd->certificate('server', server => 1, san => 'DNS:elsewhere');
cut_all();
ok(wait_until($node, q{SELECT state || ': ' || detail FROM dsched.status() WHERE component = 'etcd'}, qr/^problem: .*(subject name|does not match)/s),
	'a certificate for another address');
$etcd->certificate('server', server => 1);
ok(wait_past('tick', 1, [$node], timestamp(time() + 1)), 'and the right one');

# Members that die are no matter of certificates.
$etcd->stop('KILL');
ok(wait_until($node, q{SELECT state || ': ' || hint FROM dsched.status() WHERE component = 'etcd'}, qr/^problem: Check that etcd runs/),
	'no etcd at all, and no word of certificates');
$etcd->start;
ok(wait_past('tick', 1, [$node], timestamp(time() + 1)), 'and again');

# No files at all: seen when they are there, without a reload.
$node->stop;
rename("$dir/ca.crt", "$dir/ca.away");
start_instance($node);
ok(wait_until($node, q{SELECT state || ': ' || detail || ' ' || coalesce(hint, '') FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*authorities .*ca\.crt" cannot be opened: No such file/s), 'a missing file at the start');
rename("$dir/ca.away", "$dir/ca.crt");
ok(wait_past('tick', 1, [$node], timestamp(time() + 1)), 'is found when it comes');

ok(account_ok([$node]), 'every slot has its outcome');
done_testing();
