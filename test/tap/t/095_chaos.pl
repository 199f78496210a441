# A short chaos run: three instances, three members of etcd, all on the loopback interface, and each of the faults that need no namespaces, in an
# order that depends on the seed. "make chaos" is the long form, with the rest of the faults; test/chaos/lib/Chaos/Checker.pm says what is judged.
#
# timeout: 240

use strict;
use warnings;

use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/../../chaos/lib';

use Chaos;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{DSCHED_SEED} // int(rand(1e9));
my $dir = PostgreSQL::Test::Utils::tempdir_short();

chomp(my $bindir = `pg_config --bindir`);
$SIG{TERM} = $SIG{INT} = $SIG{HUP} = sub { exit 143 };
note("seed $seed: DSCHED_SEED=$seed repeats it");

my $result = Chaos::run(
	dir => $dir, mode => 'loopback', bindir => $bindir, seed => $seed, seconds => $ENV{DSCHED_CHAOS_SECONDS} // 45, instances => 3, members => 3, size => 1,
	account => PostgreSQL::Test::Utils::slurp_file(dirname(__FILE__) . '/../../regress/account.psql'),
	port => sub { PostgreSQL::Test::Cluster::get_free_port() }, say => sub { note($_[0]) }, patience => 45,
	faults => [
		'kill -9 of the postmaster', 'kill -9 of everything', 'kill -9 of any process', 'kill -9 of the coordinator', 'end of the scheduler',
		'instance stands still, for longer', 'a process stands still', 'restart, fast', 'restart, smart', 'instance cut off', 'instance is not heard',
		'instance is slow to etcd', 'etcd leader killed', 'etcd member stands still', 'etcd without a quorum, briefly', 'etcd is compacted' ]);

note($_) foreach split /\n/, $result->{report};
if (@{ $result->{violations} })
{
	diag($_) foreach @{ $result->{violations} };
	system('cp', '-r', "$dir/logs", "$dir/history.json", "$dir/client.jsonl", $PostgreSQL::Test::Utils::log_path);
}
is(scalar @{ $result->{violations} }, 0, "[chaos-run] nothing lost, nothing doubled, nothing left over (seed $seed)");
done_testing();
