# A run that takes several lives of a lease; and a scheduler that hangs while the coordinator keeps the lease.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $ttl   = 3;
my $etcd  = start_etcd();
my @fleet = fleet(2, etcd => $etcd, conf => "dsched.partitions = 2\n");

create_extension(@fleet);
$_->safe_psql('postgres', 'CREATE TABLE gate (); GRANT ALL ON gate TO worker') foreach @fleet;
ok(wait_fleet(\@fleet), 'two instances share two partitions');
my %gate = map { ($_->name => $_->background_psql('postgres')) } @fleet;
$_->query_safe('BEGIN; LOCK TABLE gate') foreach values %gate;
as_worker($fleet[0], q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()') FROM generate_series(1, 12) i});
as_worker($fleet[0], q{SELECT dsched.schedule_in('long', '0 s', 'SELECT dsched_test.log(''begin''), dsched_test.effect(); TABLE gate')});
ok(wait_for(sub { append_log_lines(job => 'long') }), 'a long run is under way');
ok(wait_past('tick', 12, \@fleet, timestamp()), 'jobs run');
my $from = timestamp();

# ---- a long run ----

my ($owner) = grep { $_->name eq (append_log_lines(job => 'long'))[0]{node} } @fleet;
my ($other) = grep { $_ != $owner } @fleet;
my $begun   = time();
my $epochs  = ownership($owner);
ok(wait_for(sub { time() > $begun + 3 * $ttl }), 'for longer than three leases');
is(scalar(append_log_lines(job => 'long')), 1, '[run-longer-than-lease] nobody else has begun it');
is(ownership($owner), $epochs, '[run-longer-than-lease] the owners are the same');
$_->query_safe('COMMIT') foreach values %gate;
ok(wait_until($owner, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'long'}, 1), '[run-longer-than-lease] it commits');
$_->quit foreach values %gate;

# ---- a scheduler that hangs ----

my ($scheduler) = pids($owner, 'dsched scheduler');
my $stopped = time();
kill('STOP', $scheduler);
ok(wait_owners($other, [ $other->name ]), '[scheduler-stopped] the other instance owns all partitions');
my $taken = time();
ok(wait_past('tick', 12, [$other], timestamp()), '[scheduler-stopped] and runs all jobs');
my $continued = time();
kill('CONT', $scheduler);
ok(wait_fleet(\@fleet), 'it goes on, and has its share again');
my $to = timestamp();
ok(wait_past('tick', 12, \@fleet, timestamp(time() + 1)), 'all jobs run');
my @may_repeat = ({ node => $owner->name, since => $stopped - 1, until => $taken });
every_slot_of_each_once([ map { "tick$_" } 1 .. 12 ], \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z", may_repeat => \@may_repeat,
	name => '[scheduler-stopped] each slot ran, once but for what had not been reported');
is($owner->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE at > to_timestamp($taken) AND at < to_timestamp($continued)"),
	0, '[scheduler-stopped] its executors committed nothing after the other was owner');
account_ok(\@fleet, may_repeat => \@may_repeat);

done_testing();
