# etcd with users: each instance logs in with a password from a file; tokens that lapse, members that forgot theirs, a password that is
# changed and permissions that are missing. The password itself is to be seen nowhere.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use HTTP::Tiny;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd_cluster(auth => 1, token_ttl => 2);
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
is(session(), $session, 'sessions outlive their tokens');
cmp_ok(logins() - $before, '<', 60, 'without a storm of logins: ' . (logins() - $before));

# Tokens are in the members' memory.
foreach my $i (0 .. 2)
{
	$etcd->restart($i);
	going_on("member $i restarted");
}
is(session(), $session, 'sessions outlive restarts of the members');

# The password is changed: first there, then here.
$etcd->set_password('second secret');
$etcd->restart(0);
$etcd->write_password('second secret');
going_on('after a change of the password');
is(session(), $session, 'in the same sessions');
as_worker($other, q{SELECT dsched.schedule('tick9', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'tick9'}, 1), 'watches hear of new jobs');

# A wrong one.
$etcd->write_password('third guess');
$etcd->restart;
ok(wait_until(\@fleet, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr/^problem: .*login as "dsched" was refused: .*authentication failed.*dsched\.etcd_password_file/s), 'a wrong password');
$before = logins();
my $since = time();
wait_for(sub { time() > $since + 8 }, 10);
cmp_ok(logins() - $before, '<', 60, 'is not tried without a pause: ' . (logins() - $before) . ' logins in 8 s');
chmod(0644, "$dir/password");
$node->reload;
ok(wait_for(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /password file .* has group or world access/ }),
	'a password that others can read is refused');
$etcd->write_password('second secret');
$_->reload foreach @fleet;
going_on('the right one again');

# What the user may.
$etcd->post('/v3/auth/role/revoke', {
	role => 'dsched', key => MIME::Base64::encode_base64('/dsched/test/', ''), range_end => MIME::Base64::encode_base64('/dsched/test0', '') });
ok(wait_until(\@fleet, q{SELECT state || ': ' || detail || ' ' || hint FROM dsched.status() WHERE component = 'etcd'},
		qr{^problem: .*permission denied.*grant-permission.*/dsched/test/}s), 'without permission on the keys');
$etcd->ctl('role', 'grant-permission', 'dsched', '--prefix=true', 'readwrite', '/dsched/test/');
going_on('with it, by the command of the hint');

# The password is no one's business.
my $seen = join '', map { psql_try($node, $_) } q{SELECT string_agg(name || setting, ',') FROM pg_settings WHERE name LIKE 'dsched.%'},
  q{SELECT string_agg(s::text, ',') FROM dsched.status() s}, q{SELECT string_agg(query, ',') FROM pg_stat_activity};
like($seen, qr/dsched\.etcd_password_file/, 'the settings name the file');
unlike($seen, qr/secret|third guess/, 'and never what is in it');
unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/second secret|first secret|third guess/, 'nor does the log of ' . $_->name) foreach @fleet;

$_->stop foreach @fleet;
ok(!(grep { m{/(node|owner|member)/} } $etcd->keys('/dsched/test/')), 'instances that stop give up their lease');
start_instance($_) foreach @fleet;
ok(wait_fleet(\@fleet), 'they join again');
ok(account_ok(\@fleet), 'every slot has its outcome');
done_testing();
