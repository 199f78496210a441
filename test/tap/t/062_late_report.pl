# What could not be reported to etcd when it happened is reported when etcd answers again, though nothing else happens.

use strict;
use warnings;

use DschedTest;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

my $etcd = start_etcd();
# the session outlives the outage
my $node = new_instance('node1', etcd => $etcd, conf => "dsched.lease_ttl = '60s'\n");

create_extension($node);
ok(wait_fleet([$node]), 'an instance in a cluster');
my ($due, $at) = split /\|/, $node->safe_psql('postgres',
	q{SELECT extract(epoch FROM date_trunc('second', at)), to_char(at, 'SS MI HH24 * * *') FROM (SELECT now() + interval '6 s' AS at) t});
as_worker($node, "SELECT dsched.schedule('daily', '$at', 'SELECT dsched_test.effect()')");
ok(wait_until($node, 'SELECT bool_and(published) FROM dsched.jobs', 't'), 'its job is published');

sub states
{
	return map { JSON::PP->new->utf8->decode($_) } values %{ $etcd->keys('/dsched/test/db/postgres/state/') };
}

# all that came before is reported
wait_for(sub { time() > $due - 1 });
$etcd->stop('KILL');
ok(wait_until($node, q{SELECT count(*) FROM dsched_test.effects}, 1), 'it runs while etcd is away');
# until reports have failed some times, and the next is further off than a checkpoint
my $until = time() + 6;
wait_for(sub { time() > $until });
my $slot = $node->safe_psql('postgres', 'SELECT (extract(epoch FROM scheduled_for) * 1000000)::bigint FROM dsched.run');
$etcd->start;
ok(wait_for(sub { grep { ($_->{watermark} // 0) >= $slot && !@{ $_->{pending} // [] } } states() }, 20), '[reported-late] it is reported afterwards');
account_ok($node);

done_testing();
