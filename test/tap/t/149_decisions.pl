# exactly_once, with decisions that are held on their way to etcd: until another instance has made the run; until whoever prepared it has given up
# waiting; until the partition has another owner and its keys are gone.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\n") } qw(node1 node2);
my ($first, $second) = @fleet;
my $run_put = 'request_put.*/run/';

create_extension(@fleet);
$_->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker') foreach @fleet;
ok(wait_fleet(\@fleet), 'two instances share two partitions');

sub prepared
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts');
}

# A job that the given instance runs: some of many names are in a partition of its.
my $serial = 0;
sub job_of
{
	my ($node) = @_;
	my $names = 'n' . ++$serial;

	as_worker($first, "SELECT dsched.schedule('$names' || i, '0 0 29 2 *', 'TABLE gate; SELECT dsched_test.effect()', delivery => 'exactly_once') FROM generate_series(1, 12) i");
	wait_until(\@fleet, "SELECT count(*) FROM dsched.jobs WHERE job_name ~ '^$names' AND published AND owner_node IS NOT NULL", 12);
	return $first->safe_psql('postgres', "SELECT min(job_name) FROM dsched.jobs WHERE job_name ~ '^$names' AND owner_node = '" . $node->name . "'");
}

# Where the effect is, of a job that has run once by request.
sub has_effect_once
{
	my ($job, $tag) = @_;

	ok(wait_for(sub { grep { (psql_try($_, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") // 0) > 0 } @fleet }, 30), "$tag it is made");
	ok(wait_until(\@fleet, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$tag nothing is left prepared");
	is(join(' ', map { $_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") } @fleet) =~ tr/1-9//, 1, "$tag on one instance");
	is(join('+', map { $_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") } @fleet) =~ /^(1\+0|0\+1)$/ ? 1 : 0, 1, "$tag and once");
	return;
}

# ---- the instance is cut off while its run is under way, and asks for the decision in vain ----

my $job = job_of($first);
my %lock = map { ($_->name => $_->background_psql('postgres')) } @fleet;
$_->query_safe('BEGIN; LOCK TABLE gate') foreach values %lock;
as_worker($first, "SELECT dsched.run_now('$job')");
ok(wait_until($first, q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass}, 1), 'a run is under way');
$gate{node1}->rule(lose => 'request');
$lock{node1}->query_safe('COMMIT');
ok(wait_for(sub { prepared($first) == 1 || $first->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'") }), 'it comes to its end where nobody can be asked');
$lock{node2}->query_safe('COMMIT');
ok(wait_until($second, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'", 1), 'another instance makes it');
$gate{node1}->remove;
has_effect_once($job, '[decision-cut-off]');
ok(wait_fleet(\@fleet), 'both share the partitions');

# ---- the decision is on its way; who asked for it has given up ----

$job = job_of($first);
$gate{node1}->rule(hold => 'request', path => 'txn', text => $run_put);
as_worker($first, "SELECT dsched.run_now('$job')");
my $held = $gate{node1}->wait_held;
ok($held && prepared($first) == 1, 'a decision is held');
my ($executor) = pids($first, 'dsched executor');
kill('TERM', pids($first, 'dsched executor'));
ok(wait_for(sub { !grep { $_ == $executor } pids($first, 'dsched executor') }), 'its executor is told to go');
# Whatever follows: the question is asked again, or the transaction is finished.
my $asked = $gate{node1}->held;
ok(wait_for(sub { $gate{node1}->held > $asked || prepared($first) == 0 }, 30), 'it is to be settled');
$gate{node1}->release($held);
like(join(' ', map { $_->{response_txn}{succeeded} ? 'granted' : 'refused' } @{ $gate{node1}->answer($held)->{responses} }), qr/granted/, 'and now decided');
$gate{node1}->remove;
$gate{node1}->release;
has_effect_once($job, '[decision-late]');

# (What follows is beyond the judge of slots: keys are deleted by hand.)
account_ok(\@fleet, holes => 1);

# ---- the partition goes to another owner, whose run is decided, reported and forgotten, while the session of the first one lives ----

$job = job_of($first);
my %owner = ownership($first);
my ($partition) = grep { $owner{$_} eq 'node1' } keys %owner;
my $old = { %{ $etcd->get(sprintf('/dsched/test/db/postgres/owner/any/%03d', $partition)) } };
$gate{node1}->rule(hold => 'request', path => 'txn', text => $run_put);
as_worker($first, "SELECT dsched.run_now('$job')");
$held = $gate{node1}->wait_held;
ok($held, 'a decision is held');
# It does not hear that the partition is not its own any more, nor do its accounts arrive; its heartbeats do.
$gate{node1}->rule(hold => 'answer', path => 'watch', streams => 1);
$gate{node1}->rule(hold => 'request', path => 'txn', text => 'request_put.*/(state|owner|member)/');
my $session = $etcd->get('/dsched/test/node/node1')->{create_revision};
$etcd->ctl('del', '/dsched/test/db/postgres/member/node1');
$etcd->ctl('del', $old->{key});
ok(wait_until($second, "SELECT count(*) FROM dsched_test.effects WHERE job = '$job'", 1), 'another owner makes the run');
ok(wait_for(sub { !grep { m{/run/} } $etcd->keys('/dsched/test/db/postgres/') }), 'and has done with its key');
is($etcd->get('/dsched/test/node/node1')->{create_revision}, $session, 'the first one has its session still');
$gate{node1}->release($held);
is(join(' ', map { $_->{response_txn}{succeeded} ? 'granted' : 'refused' } @{ $gate{node1}->answer($held)->{responses} }), 'refused', '[decision-of-former-owner] what it had asked, arriving now, is refused');
$gate{node1}->remove;
$gate{node1}->release;
has_effect_once($job, '[decision-of-former-owner]');
ok(wait_fleet(\@fleet), 'both share the partitions');
$_->quit foreach values %lock;

done_testing();
