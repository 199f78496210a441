# What lies between an instance and etcd: 200 ms more for each request; connections that a firewall forgot, to one member or to all; answers that
# do not come back while requests go out; members that refuse or do not answer to a first packet.
# timeout: 400

use strict;
use warnings;

use DschedTest;
use EtcdCluster;
use Test::More;
use Time::HiRes qw(time);

my $ttl  = 3;
my $etcd = start_etcd_cluster(timings => 'default');
my $way  = $etcd->way;
my $a    = new_instance('a', etcd => $way);
my $b    = new_instance('b', etcd => $etcd);
my @fleet = ($a, $b);
my $jobs  = 16;
my $defined = 0;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances, one of them over proxies');
as_worker($b, "SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, $jobs) i");
ok(wait_past('^j', $jobs, \@fleet, timestamp()), 'jobs run');

my $owners  = wait_fleet(\@fleet);
my $session = session();
sub session { return psql_try($a, q{SELECT session FROM dsched.nodes WHERE this_instance}) // '?' }

# The proxy through which a has its session now.
sub in_use
{
	my ($port) = status_of($a, 'etcd') =~ m{through \S+:(\d+),};
	my ($number) = grep { defined $port && $way->proxy($_)->port == $port } 0 .. 2;

	return $number;
}

# Goes on for longer than a lease, hears of a definition of the other one, publishes its own.
sub goes_on
{
	my ($what, $seconds) = @_;
	my $since = time();
	my $n     = ++$defined;

	as_worker($b, "SELECT dsched.schedule('from_b$n', '\@yearly', 'SELECT 1')");
	as_worker($a, "SELECT dsched.schedule('from_a$n', '\@yearly', 'SELECT 1')");
	ok(wait_until($a, "SELECT count(*) FROM dsched.jobs WHERE job_name = 'from_b$n'", 1, 30), "$what: hears of a definition, after "
		. sprintf('%.1f s', time() - $since));
	ok(wait_until($b, "SELECT count(*) FROM dsched.jobs WHERE job_name = 'from_a$n'", 1, 30), "$what: publishes one, after "
		. sprintf('%.1f s', time() - $since));
	ok(wait_past('^j', $jobs, \@fleet, timestamp($since + ($seconds // $ttl))), "$what: runs go on");
	is(session(), $session, "[etcd-slow] $what: in the same session");
	is(ownership($b), $owners, "$what: with the same partitions");
	return;
}

$way->tell('delay', 200);
goes_on('200 ms for each request', $ttl + 1);
$way->tell('pass');

my $held = wait_for(sub { my $n = in_use(); defined $n ? "n$n" : '' }) =~ s/n//r;
$way->proxy($held)->hold;
goes_on('connections to the member in use are forgotten');
$way->proxy($held)->pass;

$held = wait_for(sub { my $n = in_use(); defined $n ? "n$n" : '' }) =~ s/n//r;
$way->proxy($held)->hold_answers;
goes_on('answers of the member in use do not come back');
$way->proxy($held)->pass;

$way->proxy(0)->refuse;
$way->proxy(1)->drop_syn;
$way->proxy(1)->cut;
goes_on('one member refuses, one drops');
$way->proxy($_)->pass foreach 0, 1;

# All of them, shorter than the lease.
my $since = time();
$way->tell('hold');
wait_for(sub { time() > $since + 1 }, 5);
$way->tell('pass');
goes_on('everything held for a second', 1);

# Requests arrive, answers do not: a cannot prove anything, and stops in time; its lease ends, as it has sent nothing that
# would not have been answered... but the keepalives that do arrive. So b takes over only when those end, too.
my $before = time();
$way->tell('hold_answers');
ok(wait_until($a, q{SELECT state FROM dsched.status() WHERE component = 'etcd'}, 'problem'), 'no answers at all: says so');
ok(wait_for(sub { time() > $before + 2 * $ttl + 1 }, 20), 'for longer than two leases');
is(psql_try($a, "SELECT count(*) FROM dsched.run WHERE extract(epoch FROM started_at) > $before + $ttl"), 0, '[answers-black-holed] starts nothing after the end of its lease');
$way->tell('hold');
ok(wait_owners($b, ['b']), '[answers-black-holed] the other one takes over when nothing arrives any more');
ok(wait_past('^j', $jobs, [$b], timestamp()), 'and runs everything');
is(psql_try($a, "SELECT count(*) FROM dsched.run WHERE extract(epoch FROM started_at) > $before + $ttl"), 0, 'alone');
$way->tell('pass');
ok(wait_fleet(\@fleet), 'it comes back when the network does');
my $after = time();
ok(account_ok(\@fleet, may_repeat => [ { node => 'a', since => $before - 1, until => $after } ]), 'every slot has its outcome');
done_testing();
