# Jobs with selectors run on the instances that match, and nowhere else: by labels, by name, by what an instance lacks. They follow when labels
# change by a reload, and when the owner dies, within those that match. Where nobody matches they say so, and lose nothing.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my %labels = (node1 => 'region=eu,disk=ssd', node2 => 'region = eu', node3 => 'region=us');
my @fleet = map { new_instance($_, etcd => $etcd, conf => "dsched.node_labels = '$labels{$_}'\n") } sort keys %labels;
my %node = map { $_->name => $_ } @fleet;
my %run_on = (
	eu  => 'region=eu', both => ' disk = ssd , region=eu', us => 'region!=eu', pin => 'node=node2', notpin => 'node!=node2,region=eu',
	any => 'any');
my %count = (eu => 12, any => 12);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'three instances share the partitions');
is($fleet[0]->safe_psql('postgres', q{SELECT string_agg(node || ':' || labels, ' ' ORDER BY node) FROM dsched.nodes}),
	'node1:disk=ssd,region=eu node2:region=eu node3:region=us', 'the labels are known to all, in one form');

foreach my $kind (sort keys %run_on)
{
	my $n = $count{$kind} // 4;

	as_worker($fleet[2], "SELECT count(dsched.schedule('$kind' || i, '* * * * * *', 'SELECT dsched_test.effect()', run_on => '$run_on{$kind}'))
		FROM generate_series(1, $n) i");
}
as_worker($fleet[0], q{SELECT dsched.schedule('mars', '*/2 * * * * *', 'SELECT dsched_test.effect()', run_on => 'region=mars', misfire => 'all', overlap => 'queue_all')});
my $all = 12 + 12 + 4 * 4;
ok(wait_past('^(?!mars)', $all, \@fleet, timestamp()), 'all jobs run but those that nobody matches');

# Which instances have effects of a kind of job with slots later than this
sub where
{
	my ($kind, $since) = @_;

	return join ' ', grep {
		($node{$_}->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job ~ '^$kind\\d*\$' AND slot > '$since'") || 0) > 0
	} sort keys %node;
}
is(where('eu', '-infinity'), 'node1 node2', 'region=eu on both of them');
is(where('both', '-infinity'), 'node1', 'two terms');
is(where('us', '-infinity'), 'node3', 'a term with !=');
is(where('pin', '-infinity'), 'node2', 'the name of an instance');
is(where('notpin', '-infinity'), 'node1', 'not the name of an instance');
is(where('any', '-infinity'), 'node1 node2 node3', 'any');
is(where('mars', '-infinity'), '', 'nobody');
is($fleet[1]->safe_psql('postgres', q{SELECT DISTINCT run_on FROM dsched.jobs WHERE job_name ~ 'both'}), 'disk=ssd,region=eu', 'a selector has one form');
is($fleet[0]->safe_psql('postgres', q{SELECT problem FROM dsched.jobs WHERE job_name = 'mars'}), 'no living instance matches run_on "region=mars"', '[no-instance-matches] the job says so');
like(status_of($_, 'places'), qr/^problem\|no living instance matches run_on "region=mars"\|.*misfire/, $_->name . ' says so') foreach @fleet;
is($fleet[2]->safe_psql('postgres', q{SELECT string_agg(DISTINCT place, ' ' ORDER BY place) FROM dsched.partitions}),
	'any disk=ssd,region=eu node!=node2,region=eu node=node2 region!=eu region=eu region=mars', 'the view partitions has the places');
is($fleet[2]->safe_psql('postgres', q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ '^pin' AND owner_node = 'node2'}), 4, 'the view jobs has the owner');
my @keys = $etcd->keys('/dsched/test/db/postgres/owner/region%3Deu/');
is(scalar @keys, 4, 'a selector has four partitions');

# Labels change
sub set_labels
{
	my ($name, $labels) = @_;

	$node{$name}->safe_psql('postgres', "ALTER SYSTEM SET dsched.node_labels = '$labels'");
	$node{$name}->reload;
	ok(wait_until(\@fleet, "SELECT labels FROM dsched.nodes WHERE node = '$name'", $labels), "$name is known as $labels");
	return;
}
set_labels('node2', 'region=us');
ok(wait_until(\@fleet, q{SELECT string_agg(DISTINCT owner_node, ',') FROM dsched.partitions WHERE place = 'region=eu'}, 'node1'), 'its partitions are handed over');
my $since = timestamp();
ok(wait_past('^(?!mars)', $all, \@fleet, timestamp()), 'all jobs run on');
is(where('eu', $since), 'node1', 'region=eu on the one that is left');
is(where('us', $since), 'node2 node3', 'the other has others now');
is(where('pin', $since), 'node2', 'its name is the same');
is(psql_try($fleet[1], q{SHOW dsched.node_labels}), 'region=us', 'the setting says so');
$fleet[1]->safe_psql('postgres', q{ALTER SYSTEM SET dsched.node_labels = ''});
isnt($fleet[1]->psql('postgres', q{ALTER SYSTEM SET dsched.node_labels = 'region'}), 0, 'what are no labels is refused');

# The owner dies: those that match go on
my $gone = time();
kill9_everything($node{node3});
my $dead = time();
ok(wait_until($fleet[0], q{SELECT string_agg(DISTINCT owner_node, ',') FROM dsched.partitions WHERE place = 'region!=eu'}, 'node2', 30), 'an owner is gone, one that matches follows');
$since = timestamp();
ok(wait_past('^us', 4, [ @fleet[0, 1] ], timestamp()), 'and runs the jobs');
is($fleet[0]->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job ~ '^us'"), 0, 'the other one never does');
start_instance($node{node3});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.nodes}, 3), 'the one that was gone is back');

# Somebody comes whom nobody matched: all slots since are made up for, as misfire says
set_labels('node3', 'region=mars');
ok(wait_until($node{node3}, q{SELECT count(*) > 0 AND bool_and(succeeded) FROM (
	SELECT count(r.job_id) = 1 AS succeeded FROM dsched.job j,
		generate_series(date_trunc('minute', j.slots_from) - interval '1 minute', now() - interval '3 s', interval '2 s') s
		LEFT JOIN dsched.run r ON r.scheduled_for = s AND r.status = 'succeeded'
			AND r.job_id = (SELECT job_id FROM dsched.job WHERE job_name = 'mars')
	WHERE j.job_name = 'mars' AND s > j.slots_from GROUP BY s) x}, 't'), 'who matches at last makes up for all slots');
ok(wait_until(\@fleet, q{SELECT coalesce(problem, '') FROM dsched.jobs WHERE job_name = 'mars'}, ''), 'and there is no problem any more');
ok(wait_until(\@fleet, q{SELECT state FROM dsched.status() WHERE component = 'places'}, 'ok'), 'nor does status() have one');
is($fleet[0]->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'mars'}), 0, 'nobody else ran it');

# A place without jobs goes
as_worker($fleet[0], q{SELECT dsched.unschedule('pin' || i) FROM generate_series(1, 4) i});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.partitions WHERE place = 'node=node2'}, 0), 'a place without jobs is none');
ok(wait_for(sub { !scalar(my @left = $etcd->keys('/dsched/test/db/postgres/owner/node%3Dnode2/')) }), 'nobody owns its partitions');
as_worker($fleet[0], q{SELECT dsched.schedule('pin1', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'node=node2')});
ok(wait_past('pin1', 1, [ $node{node2} ], timestamp()), 'it comes again with the next job');

account_ok(\@fleet, may_repeat => [ { node => 'node3', since => $gone - 3, until => $dead + 1 } ]);

done_testing();
