# etcd with users, over TLS: each instance logs in with a password from a file; tokens that lapse, members that forgot theirs, a password that is
# changed and permissions that are missing. The password itself is to be seen nowhere.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use HTTP::Tiny;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd_cluster(tls => 1, auth => 1, token_ttl => 2);
my $dir  = $etcd->directory;
my ($node, $other) = map { new_instance("node$_", etcd => $etcd, conf => $etcd->conf) } 1, 2;
my @fleet = ($node, $other);

create_extension(@fleet);

sub session { return join ' ', map { psql_try($_, q{SELECT session FROM dsched.nodes WHERE this_instance}) // '?' } @fleet }

# How many logins the members have had, by their own count (which begins anew with each start).
sub logins
{
	my $n = 0;

	foreach my $member (@{ $etcd->{members} })
	{
		my $text = HTTP::Tiny->new(timeout => 5)->get("$member->{client}/metrics")->{content};

		$n += $1 while $text =~ /^grpc_server_started_total\{grpc_method="Authenticate",[^}]*\} (\d+)/mg;
	}
	return $n;
}

sub going_on
{
	my ($what) = @_;

	return ok(wait_past('^tick', 8, \@fleet, timestamp(time() + 1), 40), $what);
}

ok(wait_fleet(\@fleet), 'two instances join with user and password');
as_worker($node, q{SELECT count(dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 8) i});
going_on('jobs run');
my $session = session();
like($session, qr/^\d+ \d+$/, 'sessions');

# Tokens live two seconds here unless they are used. The heartbeats go to one member: change it.
my $before = logins();
$etcd->sigstop(0);
going_on('without one member');
$etcd->sigcont(0);
$etcd->sigstop(1);
going_on('without another');
$etcd->sigcont(1);
going_on('with all again');
is(session(), $session, '[etcd-token-lapses] sessions outlive their tokens');
cmp_ok(logins() - $before, '<', 60, 'without a storm of logins: ' . (logins() - $before));

# Tokens are in the members' memory.
foreach my $i (0 .. 2)
{
	$etcd->restart($i);
	going_on("member $i restarted");
}
is(session(), $session, '[etcd-token-lapses] sessions outlive restarts of the members');

# The password is changed: first there, then here.
$etcd->set_password('second secret');
$etcd->restart(0);
$etcd->write_password('second secret');
going_on('after a change of the password');
is(session(), $session, 'in the same sessions');
as_worker($other, q{SELECT dsched.schedule('tick9', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'tick9'}, 1), 'watches hear of new jobs');

# A wrong one. Without etcd for longer than a lease, what was run last may be run again elsewhere.
my $wrong = time();
# (A member that is restarted may know tokens of the last moment again, from its log; a changed password ends all of its user.)
$etcd->write_password('third guess');
$etcd->set_password('fourth secret');
ok(wait_until(\@fleet, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*login as "dsched" was refused: .*authentication failed.*dsched\.etcd_password_file/s), 'a wrong password');
$before = logins();
my $since = time();
wait_for(sub { time() > $since + 5 }, 10);
cmp_ok(logins() - $before, '<', 60, 'is not tried without a pause: ' . (logins() - $before) . ' logins in 5 s');
chmod(0644, "$dir/password");
$node->reload;
ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /password file .* has group or world access/ }),
	'a password that others can read is refused');
$etcd->write_password('fourth secret');
$_->reload foreach @fleet;
going_on('the right one again');

# No user at all, which etcd calls an invalid argument: what was to be published is not given up for it.
$node->safe_psql('postgres', "ALTER SYSTEM SET dsched.etcd_$_ = ''") foreach 'user', 'password_file';
$node->reload;
ok(wait_until($node, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*user name is empty.*dsched\.etcd_user/s), 'without a user');
as_worker($node, q{SELECT dsched.schedule('tick10', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /could not publish changes[^\n]*user name is empty/ }),
	'a definition cannot be published');
$node->safe_psql('postgres', "ALTER SYSTEM RESET dsched.etcd_$_") foreach 'user', 'password_file';
$node->reload;
ok(wait_until($other, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'tick10'}, 1), 'and is, with the user again');
is(psql_try($node, q{SELECT problem FROM dsched.jobs WHERE job_name = 'tick10'}), '', 'nothing is wrong with it');

# etcd does not let a user log in over HTTP whose certificate has a common name: it answers in plain text.
$etcd->certificate('named', cn => 'dsched');
$node->safe_psql('postgres', "ALTER SYSTEM SET dsched.etcd_$_->[0] = '$dir/named.$_->[1]'") foreach [ 'cert_file', 'crt' ], [ 'key_file', 'key' ];
$node->reload;
ok(wait_until($node, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*client certificate a common name.*certificate without a common name/s), 'a certificate with a common name');
$node->safe_psql('postgres', "ALTER SYSTEM RESET dsched.etcd_$_") foreach 'cert_file', 'key_file';
$node->reload;
going_on('without it');

# What the user may.
$etcd->post('/v3/auth/role/revoke', {
	role => 'dsched', key => MIME::Base64::encode_base64('/dsched/test/', ''), range_end => MIME::Base64::encode_base64('/dsched/test0', '') });
ok(wait_until(\@fleet, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr{^problem: .*permission denied.*grant-permission.*/dsched/test/}s), 'without permission on the keys');
$etcd->ctl('role', 'grant-permission', 'dsched', '--prefix=true', 'readwrite', '/dsched/test/');
going_on('with it, by the command of the hint');
my $right = time();

# The password is no one's business.
my $seen = join '', map { psql_try($node, $_) } q{SELECT string_agg(name || setting, ',') FROM pg_settings WHERE name LIKE 'dsched.%'},
  q{SELECT string_agg(s::text, ',') FROM dsched.status() s}, q{SELECT string_agg(query, ',') FROM pg_stat_activity};
like($seen, qr/dsched\.etcd_password_file/, 'the settings name the file');
unlike($seen, qr/secret|third guess/, 'and never what is in it');
unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/(first|second|fourth) secret|third guess/, 'nor does the log of ' . $_->name) foreach @fleet;

$_->stop foreach @fleet;
ok(wait_for(sub { !grep { m{/(node|owner|member)/} } $etcd->keys('/dsched/test/') }, 20), 'nothing is left of instances that stop');
start_instance($_) foreach @fleet;
ok(wait_fleet(\@fleet), 'they join again');
ok(account_ok(\@fleet, may_repeat => [ map { { node => $_->name, since => $wrong - 1, until => $right } } @fleet ]), 'every slot has its outcome');
done_testing();
