# An instance alone: any, each and selectors all run there; a selector that does not match says so, loses nothing, and is made up for when the
# labels change; and back. There is room for 16 selectors; the 17th is refused, and where it came in all the same it waits for a place.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('alone', conf => "dsched.node_labels = 'region=eu'\n");

create_extension($node);
as_worker($node, q{SELECT dsched.schedule('eu', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'region=eu')});
as_worker($node, q{SELECT dsched.schedule('each', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'each')});
as_worker($node, q{SELECT dsched.schedule('us', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'region=us', misfire => 'all', overlap => 'queue_all')});
as_worker($node, q{SELECT dsched.schedule('me', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'node=alone')});
as_worker($node, q{SELECT dsched.schedule('boot', '@reboot', 'SELECT dsched_test.effect()', run_on => 'each')});
ok(wait_past('^(eu|each|me)$', 3, [$node], timestamp()), 'jobs run that this instance matches');
is($node->safe_psql('postgres', q{SELECT string_agg(job_name || ':' || coalesce(problem, ''), ' ' ORDER BY job_name) FROM dsched.jobs WHERE run_on ~ '='}),
	'eu: me: us:no living instance matches run_on "region=us"', 'one that it does not match says so');
like(status_of($node, 'places'), qr/^problem\|no living instance matches run_on "region=us"/, 'so does status()');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'us'}), 0, 'it does not run');

$node->safe_psql('postgres', q{ALTER SYSTEM SET dsched.node_labels = 'region=us'});
$node->reload;
ok(wait_past('us', 1, [$node], timestamp()), 'with other labels it does');
ok(wait_until($node, q{SELECT coalesce(problem, '') FROM dsched.jobs WHERE job_name = 'us'}, ''), 'and has no problem');
is($node->safe_psql('postgres', q{SELECT problem FROM dsched.jobs WHERE job_name = 'eu'}), 'no living instance matches run_on "region=eu"', 'another one has');
kill9_everything($node);
start_instance($node);
ok(wait_past('^(us|each|me)$', 3, [$node], timestamp()), 'the same after a crash');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'boot'}, 1), 'and @reboot has run');
my $unmatched = timestamp() . 'Z';
$node->safe_psql('postgres', q{ALTER SYSTEM SET dsched.node_labels = 'region=eu'});
$node->reload;
ok(wait_past('eu', 1, [$node], timestamp()), 'back again');
$node->restart;
ok(wait_past('^(eu|each|me)$', 3, [$node], timestamp()), 'the same after a stop in order');

# Room
as_worker($node, q{SELECT count(dsched.schedule('r' || i, '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'rack!=' || i)) FROM generate_series(1, 13) i});
ok(wait_past('^r', 13, [$node], timestamp()), 'sixteen selectors');
my ($status, $stdout, $stderr) = $node->psql('postgres', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('more', '* * * * * *', 'SELECT 1', run_on => 'rack!=99')});
isnt($status, 0, 'another one is refused');
like($stderr, qr/there are jobs with 16 different selectors already.*label that several of these can share/s, 'with a hint');
as_worker($node, q{SELECT dsched.schedule('same', '* * * * * *', 'SELECT dsched_test.effect()', run_on => ' rack != 7 ')});
ok(wait_past('same', 1, [$node], timestamp()), 'one that is there is not');
# two in one transaction find room for one
as_worker($node, q{SELECT dsched.unschedule('r13')});
ok(wait_until($node, q{SELECT count(DISTINCT place) FROM dsched.partitions WHERE place ~ '='}, 15), 'a place is free');
as_worker($node, q{SELECT dsched.schedule('two' || i, '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'shelf!=' || i, misfire => 'all', overlap => 'queue_all') FROM generate_series(1, 2) i});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'two' AND problem ~ '16 other selectors'}, 1), 'of two that came together one waits, and says so');
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.status() WHERE component = 'places' AND detail ~ '1 jobs are not run, as there are jobs with 16 other selectors'}), 1, 'as does status()');
# one that waits so and is dropped, with another that gets its place
as_worker($node, q{SELECT dsched.alter_job(job_name, command => 'SELECT 2') FROM dsched.jobs WHERE job_name ~ 'two' AND problem ~ '16 other selectors'});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'two' AND problem ~ '16 other selectors' AND command = 'SELECT 2'}, 1), 'it can be changed');
as_worker($node, q{SELECT dsched.unschedule(job_name) FROM dsched.jobs WHERE job_name ~ 'two' AND problem ~ '16 other selectors'});
ok(wait_until($node, q{SELECT count(*) FROM dsched.status() WHERE detail ~ '1 jobs are not run'}, 0), 'it is dropped');
my $dropped = timestamp();
as_worker($node, q{SELECT dsched.unschedule('r11')});
ok(wait_until($node, q{SELECT count(DISTINCT place) FROM dsched.partitions WHERE place ~ '='}, 15), 'a place is free again');
as_worker($node, q{SELECT dsched.schedule('new' || i, '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'box!=' || i, misfire => 'all', overlap => 'queue_all') FROM generate_series(1, 2) i});
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'new' AND problem ~ '16 other selectors'}, 1), 'one waits again');
as_worker($node, q{SELECT dsched.unschedule('r12')});
ok(wait_past('new', 2, [$node], timestamp()), 'with a place it runs');
ok(wait_until($node, q{SELECT count(*) FROM dsched.jobs WHERE job_name ~ 'new' AND problem IS NULL}, 2), 'and has no problem any more');
# what this instance does not match at last is open; what had no place when it was dropped has no row
account_ok($node, excused => [ { job => '^us$', from => $unmatched }, { job => '^two', from => '-infinity', to => "${dropped}Z" } ]);

done_testing();
