# A prepared transaction that cannot be settled holds its partition up on its own server alone: another instance takes it.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my ($first, $second) = my @fleet = fleet(2, etcd => $etcd, conf => "dsched.lease_ttl = '2s'\n");

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');

my $partition = $first->safe_psql('postgres', q{SELECT min(partition) FROM dsched.partitions WHERE owner_node = 'node1'});
my $gid = sprintf('dsched:another:any:%03d:1:0:0:1:1:1:1', $partition);
my $owner = "SELECT owner_node FROM dsched.partitions WHERE place = 'any' AND partition = $partition";

$first->safe_psql('postgres', "BEGIN; CREATE TABLE held (i int); PREPARE TRANSACTION '$gid'");
$first->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^dsched scheduler'});
ok(wait_until($first, q{SELECT state || ' ' || detail FROM dsched.status() WHERE component = 'delivery'}, qr/^problem 1 prepared transaction waits to be settled: it belongs to another cluster/), 'it waits for a person');
ok(wait_until(\@fleet, $owner, 'node2', 60), '[prepared-holds-partition] the other instance has the partition');
is($first->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 1, 'it is left alone');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.partitions WHERE place = 'any' AND owner_node = 'node1'}, qr/^(?!0$)\d+$/), 'the first one keeps its others');
$first->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
ok(wait_until($first, q{SELECT state FROM dsched.status() WHERE component = 'delivery'}, 'ok'), 'and is content when it is gone');

done_testing();
