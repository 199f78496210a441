# etcd loses everything, and dsched.recover_cluster() on one instance brings the whole fleet back: all databases of all instances, also of one
# that was down meanwhile. Nothing of the time before runs again, no definition is lost, none that was deleted comes back.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second, $third) = fleet(3, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 12;

create_extension(@fleet);
foreach my $node (@fleet)
{
	$node->safe_psql('postgres', 'CREATE DATABASE shop');
	$node->safe_psql('shop',
		'CREATE EXTENSION dsched; GRANT USAGE ON SCHEMA dsched TO worker; CREATE TABLE sold (at timestamptz DEFAULT clock_timestamp()); GRANT INSERT ON sold TO worker');
}
ok(wait_fleet(\@fleet), 'three instances share the partitions');
as_worker($first,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.log(''begin''), dsched_test.effect()')) FROM generate_series(1, 12) i;
	  SELECT dsched.schedule('kept', '0 3 1 1 *', 'SELECT 1'), dsched.schedule('gone', '0 3 1 1 *', 'SELECT 1');
	  SELECT dsched.schedule_once('once', '2100-01-01', 'SELECT dsched_test.effect()')});
$second->safe_psql('shop', q{SET SESSION AUTHORIZATION worker; SELECT dsched.schedule('sale', '* * * * * *', 'INSERT INTO sold DEFAULT VALUES')});
ok(wait_past('j', 12, \@fleet, timestamp()), 'the jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 15), 'all have all definitions');
ok(wait_for(sub { !grep { (psql_try($_, 'SELECT count(*) FROM dsched.job WHERE changed IS NULL', 'shop') // '') ne '1' } @fleet }), 'of both databases');
ok(wait_until(\@fleet, q{SELECT incarnation <> '' AND max_revision > 0 FROM dsched.identity}), 'and have noted whose they are');

sub recover
{
	my ($node, $arguments) = @_;
	my ($stdout, $stderr) = ('', '');

	$node->psql('postgres', "SELECT dsched.recover_cluster($arguments)", stdout => \$stdout, stderr => \$stderr, timeout => 90);
	return "$stdout$stderr";
}

like(recover($first, ''), qr/ERROR:.*nothing to recover/, 'while all is well there is nothing to recover');
like(recover($first, 'partitions => 64'), qr/ERROR:.*64 partitions already/, 'nor to change');
like(recover($first, 'partitions => 32'), qr/ERROR:.*dsched\.partitions is 64.*HINT:.*dsched\.partitions = 32/s, 'without the setting');
like(recover($first, q{'2100-01-01'}), qr/ERROR:.*"resume_from"/, 'it does not resume in the future');
like(psql_try($first, q{DO $$ BEGIN SET LOCAL ROLE worker; PERFORM dsched.recover_cluster(); EXCEPTION WHEN insufficient_privilege THEN SET LOCAL client_min_messages = error; END $$; SELECT 'denied'}),
	qr/denied/, 'not everybody may');

# One is away while a job is deleted and another one defined, and through all that follows.
$third->stop('immediate');
ok(wait_fleet([ $first, $second ], timeout => 90), 'one instance is away, the others have its partitions');
as_worker($first, q{SELECT dsched.unschedule('gone'), dsched.schedule('made', '0 3 1 1 *', 'SELECT 2'), dsched.alter_job('kept', command => 'SELECT 2'),
	dsched.schedule_once('missed', now() + interval '8 s', 'SELECT dsched_test.effect()')});
ok(wait_until([ $first, $second ], q{SELECT count(*) FILTER (WHERE command = 'SELECT 2') || ' ' || count(*) FROM dsched.job WHERE changed IS NULL}, '2 16'),
	'a job is deleted, two are defined and one is changed');
ok(wait_until([ $first, $second ], q{SELECT applied_revision >= (SELECT max(mod_revision) FROM dsched.job) FROM dsched.identity}), 'and that is noted');

my $wiped = time();
$etcd->wipe;
foreach my $node ($first, $second)
{
	ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem\|.*(replaced|wiped|restored).*\|.*recover_cluster/s }), $node->name . ' says what to do')
	  || diag(status_of($node, 'etcd'));
}
as_worker($second, q{SELECT dsched.schedule('late', '* * * * * *', 'SELECT dsched_test.effect()')});
is_deeply([ $etcd->keys('') ], [], 'nobody writes to the empty etcd');

ok(wait_until($first, q{SELECT now() > run_at FROM dsched.job WHERE job_name = 'missed'}), 'the time of a job that runs once passes');

# Two administrators at once: one wins, and the other hears of it.
my $asked = timestamp();
my %answer;
my @callers;
foreach my $node ($first, $second)
{
	pipe(my $read, my $write);
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		print $write recover($node, '');
		close($write);
		POSIX::_exit(0);
	}
	close($write);
	push @callers, [ $node, $pid, $read ];
}
foreach my $caller (@callers)
{
	my ($node, $pid, $read) = @$caller;
	$answer{ $node->name } = join('', <$read>);
	local $?;
	waitpid($pid, 0);
}
my $recovered = time();
is((grep { /begins anew; slots after/ } values %answer), 1, '[etcd-wiped-recovered] of two callers one recovers the cluster');
is((grep { /ERROR:.*recovered/ } values %answer), 1, 'and the other is told') || diag(join("\n", values %answer));
my $config = $etcd->get_json('/dsched/test/config');
is(scalar @{ $config->{previous} }, 1, 'config names the former incarnation');

my $owners = wait_fleet([ $first, $second ], timeout => 90);
ok($owners, 'both are back by themselves');
ok(wait_until([ $first, $second ], 'SELECT count(*) FROM dsched.jobs WHERE published', 17), 'with all definitions, each once');
is($_->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE job_name = 'gone') || ' ' || count(*) FILTER (WHERE command = 'SELECT 2') FROM dsched.job}),
	'0 2', $_->name . ' has them as they were') foreach ($first, $second);
ok(wait_past('^j', 12, [ $first, $second ], timestamp(time() + 1), 90), 'the jobs run');
my $from = timestamp();
ok(wait_for(sub { grep { (psql_try($_, "SELECT count(*) FROM sold WHERE at > '$from'", 'shop') // 0) > 0 } ($first, $second) }), 'in the other database, too');
cmp_ok($first->safe_psql('postgres', q{SELECT count(*) FROM dsched.runs WHERE job_name = 'once'}), '==', 0, 'a job whose time has not come waits on');
is($_->safe_psql('postgres', q{SELECT active FROM dsched.job WHERE job_name = 'missed'}), 'f', 'one whose time has passed is paused, ' . $_->name) foreach ($first, $second);
ok(wait_for(sub { defined $etcd->get('/dsched/test/former/postgres') }), 'what has been carried over is noted for those who come later');

# The third comes back: it knows the deleted job, and not the new ones.
start_instance($third);
ok(wait_fleet(\@fleet, timeout => 90), 'the third follows by itself');
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.jobs WHERE published', 17), '[etcd-wiped-recovered] the deleted job does not come back with it');
is($_->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE job_name = 'gone') || ' ' || count(*) FILTER (WHERE command = 'SELECT 2') FROM dsched.job}),
	'0 2', $_->name . ' has all as it is') foreach @fleet;
ok(wait_past('^j', 12, \@fleet, timestamp(time() + 1)), 'the jobs run on');

# Slots of the time that was given up did not run; all others did, once. What the third had run when it was killed may have been repeated.
my $to = timestamp();
every_slot_of_each_once(\@jobs, \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z");
is($_->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE slot > '" . timestamp($wiped + 3) . "' AND slot <= '$asked'"),
	0, 'no slot of the time between ran on ' . $_->name) foreach @fleet;
is($_->safe_psql('postgres', "SELECT max(epoch) FILTER (WHERE started_at < '" . timestamp($wiped) . "Z') < min(epoch) FILTER (WHERE started_at > '${asked}Z') FROM dsched.run WHERE job_name LIKE 'j%'"),
	't', 'epochs have grown, though revisions began anew, on ' . $_->name) foreach ($first, $second);
attempts_at_most('j1', 2);
like(recover($third, ''), qr/ERROR:.*nothing to recover/, 'all is well again');
account_ok(\@fleet, excused => [ { from => timestamp($wiped - 15) . 'Z', to => "${from}Z" } ], repeats_ok => 1);

done_testing();
