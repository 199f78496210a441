# Following a recovered cluster with a definition in etcd that cannot be read: it stays, and so does the row. With definitions that were never verified, where
# a key file is named: they are not signed on the way.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first, q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 4) i});
ok(wait_past('^j', 4, \@fleet, timestamp()), 'jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 4), 'both have all definitions');
ok(wait_until(\@fleet, q{SELECT incarnation <> '' AND applied_revision > 0 FROM dsched.identity}), 'and have noted whose they are');
my $seen = $second->safe_psql('postgres', 'SELECT max(mod_revision) FROM dsched.job');
ok(wait_until(\@fleet, "SELECT applied_revision >= $seen FROM dsched.identity"), 'and up to where');

# One is away while the other recovers the cluster, and somebody newer publishes one of the jobs.
$second->stop('fast');
$etcd->wipe;
ok(wait_for(sub { status_of($first, 'etcd') =~ /^problem\|.*recover_cluster/s }), 'the first stands still');
like(psql_try($first, 'SELECT dsched.recover_cluster()') // '', qr/begins anew/, 'and recovers the cluster');
ok(wait_for(sub { ($etcd->get_json('/dsched/test/former/postgres') // {})->{revision} }, 60), 'it has published all that it knew');
my ($key) = grep { m{/worker/j1$} } $etcd->keys('/dsched/test/db/postgres/job/');
my $good  = $etcd->get($key)->{value};
(my $newer = $good) =~ s/"format":1/"format":2/;
$etcd->ctl('put', $key, $newer);
ok(wait_until($first, q{SELECT count(*) FROM dsched.jobs WHERE job_name = 'j1' AND problem ~ 'does not parse'}, 1), 'the first holds it');
start_instance($second);
my $incarnation = $etcd->get_json('/dsched/test/config')->{incarnation};
ok(wait_until($second, "SELECT incarnation FROM dsched.identity", $incarnation, 60), 'the second follows');
ok(wait_until($second, q{SELECT problem FROM dsched.jobs WHERE job_name = 'j1'}, qr/cannot be read/), 'its row of that job stays, and says what is wrong');
ok(wait_until($second, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 4), 'nothing waits to be published');
is($etcd->get($key)->{value}, $newer, 'it does not put its own over what it cannot read');
$etcd->ctl('put', $key, $good);
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE problem IS NULL}, 4), 'with a version that can be read nothing is wrong any more');
ok(wait_past('^j', 4, \@fleet, timestamp(time() + 1)), 'all jobs run');

# Somebody deletes what the database has in etcd, and leaves the cluster's config: that is no reason to drop a job.
$etcd->ctl('del', '--prefix', '/dsched/test/db/');
ok(wait_for(sub { status_of($_, 'scheduler') =~ /^problem\|.*lost 4 definitions.*recover_cluster/s }), $_->name . ' says that definitions were lost') foreach @fleet;
is($_->safe_psql('postgres', 'SELECT count(*) FROM dsched.job'), 4, $_->name . ' has them') foreach @fleet;
like(psql_try($first, 'SELECT dsched.recover_cluster()') // '', qr/begins anew/, 'that, too, can be recovered from');
ok(wait_fleet(\@fleet, timeout => 60), 'both are back');
ok(wait_past('^j', 4, \@fleet, timestamp(time() + 1)), 'all jobs run');
($key) = grep { m{/jobrev/} } $etcd->keys('/dsched/test/db/postgres/jobrev/');
$etcd->ctl('del', $key);
ok(wait_past('^j', 4, \@fleet, timestamp(time() + 1)), 'without one jobrev alone they run on');
like(status_of($first, 'scheduler'), qr/^ok/, 'and nothing is wrong');

# etcd is wiped, and from then on definitions are to be signed.
$second->stop('fast');
$etcd->wipe;
ok(wait_for(sub { status_of($first, 'etcd') =~ /^problem\|.*recover_cluster/s }), 'the first stands still again');
my $path = $first->basedir . '/cluster_key';
append_to_file($path, 'a key: ' . 'a1' x 20 . "\n");
chmod(0600, $path);
chown((getpwnam('postgres'))[ 2, 3 ], $path) if $> == 0;
$first->append_conf('postgresql.conf', "dsched.cluster_key_file = '$path'");
$first->restart;
ok(wait_for(sub { (psql_try($first, 'SELECT dsched.recover_cluster()') // '') =~ /begins anew/ }), 'it recovers the cluster');
ok(wait_for(sub { status_of($first, 'scheduler') =~ /^problem\|.*were not verified/s }), 'what was never verified is not carried over, and it says so')
  or diag($first->safe_psql('postgres', 'SELECT * FROM dsched.status()'));
is(scalar(my @there = $etcd->keys('/dsched/test/db/postgres/job/')), 0, 'nothing is signed');
like(psql_try($first, 'SELECT dsched.adopt()') // '', qr/adopted 4 jobs/, 'until somebody vouches for it');
ok(wait_past('^j', 4, [$first], timestamp(time() + 1), 60), 'then they run');
is(scalar(grep { $_ =~ /"mac":/ } values %{ $etcd->keys('/dsched/test/db/postgres/job/') }), 4, 'signed');

done_testing();
