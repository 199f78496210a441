# A role that owns jobs is missing on one instance: the others run its jobs, and none of them fails; the instance has its share of the
# rest. When the role is created there it takes part. When nobody has the role the runs fail, and say why. An instance that can start no
# executor at all leaves its share to others.
# timeout: 150

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd  = start_etcd();
my @fleet = fleet(3, etcd => $etcd);

create_extension(@fleet);
$_->safe_psql('postgres', 'CREATE ROLE special LOGIN') foreach @fleet[0, 1];
ok(wait_fleet(\@fleet), 'three instances share the partitions');

# jobs of the role in a few partitions, of another in all
$fleet[0]->safe_psql('postgres', q{SELECT count(dsched.schedule('s' || i, '* * * * * *', 'SELECT 1', username => 'special')) FROM generate_series(1, 12) i});
$fleet[0]->safe_psql('postgres', q{SELECT dsched.schedule('pinned', '* * * * * *', 'SELECT 1', username => 'special', run_on => 'node=node3')});
as_worker($fleet[0], q{SELECT count(dsched.schedule('w' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 60) i});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 73), 'all know the jobs');
ok(wait_until([ @fleet[0, 1] ], q{SELECT count(*) FROM dsched.jobs WHERE username = 'special' AND owner_node = 'node3' AND run_on = 'any'}, 0),
	'the instance without the role owns no job of it');
ok(wait_until($fleet[0], q{SELECT count(*) > 0 FROM dsched.partitions WHERE owner_node = 'node3'}, 't'), 'but others');
my $now = $fleet[0]->safe_psql('postgres', 'SELECT now()');
ok(wait_for(sub {
	my %done = map { $_ => 1 } map { split /\n/, $_->safe_psql('postgres',
		"SELECT DISTINCT job_name FROM dsched.run WHERE username = 'special' AND status = 'succeeded' AND scheduled_for > '$now'") } @fleet;
	return keys %done == 12;
}), 'all jobs of the role run');
is(join(' ', map { $_->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'failed' AND job_name <> 'pinned'}) } @fleet), '0 0 0', 'none has failed');
my $owned = wait_for(sub { $fleet[2]->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects}) > 0 });
ok($owned, 'the instance does its part of the rest');

# who else could run it?
ok(wait_until($fleet[2], q{SELECT DISTINCT sqlstate FROM dsched.run WHERE job_name = 'pinned' AND status = 'failed'}, '42704'), 'where nobody who may run it has the role it fails');

$fleet[2]->safe_psql('postgres', 'CREATE ROLE special LOGIN');
ok(wait_until($fleet[0], q{SELECT count(*) > 0 FROM dsched.jobs WHERE username = 'special' AND owner_node = 'node3' AND run_on = 'any'}, 't'), 'with the role it takes part');
ok(wait_until($fleet[2], q{SELECT count(*) > 0 FROM dsched.run WHERE username = 'special' AND status = 'succeeded'}, 't'), 'and runs its jobs');

$_->safe_psql('postgres', 'DROP ROLE special') foreach @fleet;
ok(wait_for(sub { grep { ($_->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 's1' AND sqlstate = '42704'}) || 0) > 0 } @fleet }),
	'nobody has the role: the runs fail, and say so');
ok(wait_past('^w', 60, \@fleet, timestamp()), 'the others run on');

# An instance without a worker to spare leaves its share to the others
my $poor = new_instance('poor', etcd => $etcd, conf => "max_worker_processes = 3\n");
create_extension($poor);
push @fleet, $poor;
ok(wait_until($fleet[0], q{SELECT count(*) > 0 FROM dsched.partitions WHERE owner_node = 'poor'}, 't'), 'an instance that can start no executor gets its share');
ok(wait_until($fleet[0], q{SELECT count(*) FROM dsched.partitions WHERE owner_node = 'poor'}, 0), 'but gives it back');
ok(wait_past('^w', 60, \@fleet, timestamp()), 'to those that can run the jobs');
is($poor->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE status = 'succeeded'}), 0, 'it has run nothing');
account_ok(\@fleet);

# They are gone: nobody but the poor one could be given a worker, and it does not let a minute pass before it tries
$_->stop('fast') foreach grep { $_ != $poor } @fleet;
ok(wait_until($poor, q{SELECT count(*) FROM dsched.partitions WHERE place = 'any' AND owner_node = 'poor'}, 64, 30), 'alone it has all partitions at once');

done_testing();
