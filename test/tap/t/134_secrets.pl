# The cluster's key and etcd's password are nowhere but in their files and in the processes that need them.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $etcd = start_etcd_cluster(members => 1, tls => 1, auth => 1);
my $password = 'correct horse battery staple';
my $key  = 'the key of the cluster: ' . join('', map { chr(ord('a') + int(rand(26))) } 1 .. 40);
my $node = new_instance('node1', etcd => $etcd, conf => $etcd->conf);
my $path = $node->basedir . '/cluster_key';

append_to_file($path, "$key\n");
chmod(0600, $path);
$etcd->set_password($password);
$etcd->write_password($password);
$node->append_conf('postgresql.conf', "dsched.cluster_key_file = '$path'\nlog_statement = 'all'\nlog_min_messages = debug1\n");
$node->restart;
create_extension($node);
ok(wait_fleet([$node]), 'an instance with a key and a password');
as_worker($node, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
$node->safe_psql('postgres', q{SELECT dsched.schedule('root', '* * * * * *', 'SELECT 1')});
ok(wait_past('^tick', 1, [$node], timestamp()), 'jobs run, signed');

# What goes wrong is said without them.
$etcd->write_password("$password wrong");
append_to_file($path, "$key\n");
$node->reload;
ok(wait_for(sub { status_of($node, 'signatures') =~ /^problem\|.*both keys are the same/ }), 'a file that cannot be used');
append_to_file($path, "$key$key\nthird $key\n");
$node->reload;
ok(wait_for(sub { status_of($node, 'signatures') =~ /^problem\|.*more than two/ }), 'another one');
my $said = join('', map { $node->safe_psql('postgres', $_) } q{SELECT string_agg(s::text, ',') FROM dsched.status() s}, q{SELECT string_agg(a::text, ',') FROM pg_stat_activity a});
$etcd->write_password($password);
unlink($path);
append_to_file($path, "$key\n");
chmod(0600, $path);
$node->reload;
ok(wait_for(sub { status_of($node, 'signatures') =~ /^ok\|/ }), 'all is well again');

my %where = (
	'what was said meanwhile' => $said,
	'settings' => $node->safe_psql('postgres', 'SELECT string_agg(s::text, chr(10)) FROM pg_settings s') . $node->safe_psql('postgres', 'SHOW ALL') . $node->safe_psql('postgres', 'SELECT string_agg(f::text, chr(10)) FROM pg_file_settings f'),
	'status and activity' => $node->safe_psql('postgres', q{SELECT string_agg(s::text, ',') FROM dsched.status() s}) . $node->safe_psql('postgres', 'SELECT string_agg(a::text, chr(10)) FROM pg_stat_activity a'),
	'the log' => slurp_file($node->logfile),
	'the tables' => join('', map { $node->safe_psql('postgres', "SELECT string_agg(t::text, chr(10)) FROM dsched.$_ t") } qw(job run outbox partition_state identity queue)),
	'etcd' => join("\n", %{ scalar $etcd->keys('/dsched/') }),
	'command lines and environments' => join('', map { my $pid = $_; map { -r "/proc/$pid/$_" ? slurp_file("/proc/$pid/$_") : '' } qw(cmdline environ) } pids($node)),
);
foreach my $place (sort keys %where)
{
	cmp_ok(length($where{$place}), '>', 50, "there is something in $place") unless $place eq 'command lines and environments';
	ok(index($where{$place}, $key) < 0 && index($where{$place}, $password) < 0, "neither is in $place");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM dsched.run WHERE job_name = 'tick' AND status = 'succeeded'}) > 0, 1, 'there were runs');

# The key is in the memory of the scheduler alone: none of the processes in which SQL of others runs has it.
sub has_key
{
	my ($pid) = @_;
	my $found = 0;

	open(my $maps, '<', "/proc/$pid/maps") or return undef;
	open(my $mem, '<:raw', "/proc/$pid/mem") or return undef;
	while (my $line = <$maps>)
	{
		my ($from, $to, $rights, $file) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)$/ or next;

		next unless $rights =~ /^rw/ && $file !~ m{^/dev/|^\[v|^/SYSV|PostgreSQL};
		my ($start, $length) = (hex($from), hex($to) - hex($from));
		next if $length > 100_000_000;
		sysseek($mem, $start, 0) or next;
		sysread($mem, my $bytes, $length) or next;
		$found = 1 if index($bytes, $key) >= 0;
	}
	return $found;
}

SKIP:
{
	my ($scheduler) = pids($node, 'dsched scheduler');
	my $there = has_key($scheduler);

	skip 'this machine does not let us read the memory of a process', 2 unless defined $there;
	is($there, 1, 'the scheduler has the key');
	is(join(' ', grep { has_key($_) } grep { $_ != $scheduler } pids($node)), '', 'no other process has it');
}
done_testing();
