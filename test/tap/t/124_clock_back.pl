# Alone, with a clock that was set back: the account says that it has been later, so slots up to then are opened before they are due. A definition that
# changes while nobody is there to see it ends them: they are those of its new set of times, and must not be recorded as skipped.
# timeout: 100

use strict;
use warnings;

use DschedTest;
use Test::More;

my $node = new_instance('alone', conf => "dsched.test_clock = on\ndsched.timezone = 'UTC'\n");

create_extension($node);
$node->safe_psql('postgres', q{CREATE FUNCTION clock_set(timestamptz) RETURNS void AS '$libdir/dsched', 'dsched_test_clock_set' LANGUAGE C});

sub set_clock { my ($time) = @_; $node->safe_psql('postgres', "SELECT clock_set('$time')"); return }

# What a partition has opened once it has seen a time is accounted for up to then. Its name puts the job there.
set_clock('2041-01-01 00:00:30Z');
as_worker($node, q{SELECT dsched.schedule('ahead', '* * * * *', 'SELECT dsched_test.effect()')});
set_clock('2041-01-01 00:01:00Z');
ok(wait_until($node, q{SELECT count(*) FROM dsched.run WHERE status = 'succeeded'}, 1), 'a job runs');
as_worker($node, q{SELECT dsched.unschedule('ahead')});
set_clock('2040-12-01 00:00:30Z');
as_worker($node, q{SELECT dsched.schedule('ahead', '0 3 * * *', 'SELECT dsched_test.effect()')});
ok(wait_until($node, q{SELECT count(*) FROM dsched.partition_state WHERE state ~ '"c":30,'}, 1), 'slots of the time that is already accounted for are open')
  or diag($node->safe_psql('postgres', q{SELECT state FROM dsched.partition_state WHERE state ~ 'pending":\[\{'}));

# The change is committed, and everything dies before it is taken in.
kill('STOP', pids($node, 'dsched scheduler'));
as_worker($node, q{SELECT dsched.alter_job('ahead', schedule => '0 3 * * *', time_zone => 'Europe/Berlin')});
kill9_everything($node);
start_instance($node);
set_clock('2040-12-01 00:00:40Z');
ok(wait_until($node, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 1), 'the new definition is taken in');
ok(wait_until($node, q{SELECT count(*) FROM dsched.partition_state WHERE state ~ '"c":30,'}, 0), 'what was open of the former one is over');
is($node->safe_psql('postgres', q{SELECT coalesce(string_agg(status || ' ' || scheduled_for || ' to ' || coalesce(last_slot::text, '-'), ', '), '') FROM dsched.run WHERE status <> 'succeeded'}),
	'', 'and is not said to be skipped');

done_testing();
