# What does not fit into the cluster: each is said clearly on the instance that it is about, and disturbs nothing else.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 12;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 12) i});
ok(wait_past('.', 12, \@fleet, timestamp()), 'the jobs run');
my $from   = timestamp();
my $owners = wait_fleet(\@fleet);

# Another number of partitions
my $odd = new_instance('odd', etcd => $etcd, conf => 'dsched.partitions = 32');
create_extension($odd);
ok(wait_for(sub { status_of($odd, 'etcd') =~ /^problem\|.*64 partitions.*32.*\|.*dsched\.partitions = 64/s }),
	'another number of partitions: status() has both numbers, and what to set')
  || diag(status_of($odd, 'etcd'));

# A name that is in use
my $twin = new_instance('twin', etcd => $etcd, conf => "dsched.node_name = 'node1'");
create_extension($twin);
ok(wait_for(sub { status_of($twin, 'etcd') =~ /^problem\|.*"node1".*in use.*\|.*dsched\.node_name/s }),
	'a name in use: status() says so, and what to do')
  || diag(status_of($twin, 'etcd'));

# A bad list of endpoints
my ($status, $out, $error) = $second->psql('postgres', q{ALTER SYSTEM SET dsched.etcd_endpoints = 'http://a b:1,nonsense:x'});
isnt($status, 0, 'a bad list of endpoints is refused');
like($error, qr/invalid value for parameter "dsched.etcd_endpoints".*DETAIL:.*HINT:.*https?:/s, 'with the reason and an example');
$second->append_conf('postgresql.conf', "dsched.etcd_endpoints = 'nonsense:x'");
$second->reload;
ok(wait_for(sub { slurp_file($second->logfile) =~ /invalid value for parameter "dsched.etcd_endpoints": "nonsense:x"/ }),
	'a reload refuses it, too');
is($second->safe_psql('postgres', 'SHOW dsched.etcd_endpoints'), $etcd->endpoints, 'and keeps the old one');
$second->append_conf('postgresql.conf', "dsched.etcd_endpoints = '" . $etcd->endpoints . "'");
$second->reload;

# Definitions that do not parse: one of nobody, one in the place of a job.
my ($key) = grep { m{/j1$} } $etcd->keys('/dsched/test/db/postgres/job/');
my $good = $etcd->get($key)->{value};
(my $other_key = $key) =~ s/j1$/garbage/;
$etcd->ctl('put', $key, '{"format":1,"nonsense":');
$etcd->ctl('put', $other_key, 'nonsense');
ok(wait_until(\@fleet, q{SELECT problem FROM dsched.jobs WHERE job_name = 'j1'}, qr/does not parse/), '[broken-definition] a definition that does not parse is marked');
ok(wait_for(sub { status_of($_, 'jobs') =~ /^problem\|.*"j1"/ }), 'status() on ' . $_->name . ' names it') foreach @fleet;
my $broken = timestamp();
ok(wait_past('^j([2-9]|1.)$', 11, \@fleet, timestamp(time() + 2)), '[broken-definition] all other jobs run on');
is(join(' ', map { $_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = 'j1' AND slot > '$broken'") } @fleet),
	'0 0', 'and that one does not');
$etcd->ctl('put', $key, $good);
$etcd->ctl('del', $other_key);
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE problem IS NULL}, 12), 'with a good one again all is well');
ok(wait_past('.', 12, \@fleet, timestamp()), 'it runs, too');
ok(wait_for(sub { status_of($_, 'jobs') =~ /^ok/ }), 'status() on ' . $_->name . ' says so') foreach @fleet;

# A database that one instance lacks
$first->safe_psql('postgres', 'CREATE DATABASE only_here');
$first->safe_psql('only_here', 'CREATE EXTENSION dsched; CREATE TABLE t (n int); GRANT INSERT ON t TO worker; GRANT USAGE ON SCHEMA dsched TO worker');
$first->safe_psql('only_here', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('here', '* * * * * *', 'INSERT INTO t VALUES (1)')});
ok(wait_for(sub { (psql_try($first, 'SELECT count(*) FROM t', 'only_here') // 0) > 1 }), 'jobs of a database that one instance has run there');
like(psql_try($first, q{SELECT string_agg(DISTINCT owner_node, ',') FROM dsched.partitions}, 'only_here'), qr/^node1$/, 'it owns all its partitions');

# While the rows of both are there.
account_ok(\@fleet);

# The extension is dropped on one instance: the others go on with all of it.
$second->safe_psql('postgres', 'DROP EXTENSION dsched CASCADE');
ok(wait_owners($first, ['node1']), '[extension-dropped-on-one] the extension is dropped: the other one owns all partitions');
ok(wait_past('.', 12, [$first], timestamp()), 'and runs all jobs');
is($first->safe_psql('postgres', 'SELECT count(*) FROM dsched.jobs'), 12, 'no definition went with it');
my $to = timestamp();
ok(wait_past('.', 12, [$first], timestamp(time() + 1)), 'all jobs run on');

# The rows of the one are gone with its extension, its effects are not; j1 was held for a while, and runs late what it can.
my %effects;
$effects{"$_->{job} $_->{slot}"}++ foreach map { my $job = $_; map { { %$_, job => $job } } effects($job, \@fleet) } @jobs;
is_deeply(
	[ grep { ($effects{$_} // 0) != 1 } map { my $job = $_; map { "$job $_" }
		expected_slots($first, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z") } @jobs ],
	[], 'every slot of all jobs ran once, whatever was wrong elsewhere');
is($odd->safe_psql('postgres', 'SELECT count(*) FROM dsched.run'), 0, '[other-partition-count] the instance with other partitions ran nothing');
is($twin->safe_psql('postgres', 'SELECT count(*) FROM dsched.run'), 0, '[name-in-use] nor did the one with a name in use');

done_testing();
