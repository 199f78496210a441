# etcd comes back as it was a while ago: definitions are newer on the instances, accounts are older in etcd, owners and nodes of sessions that
# are over stand there again, and its revision grows past the one that the instances had seen. dsched.recover_cluster() begins anew
# with what the instances know, open from a moment in the past; a server that is killed right then follows later.
# timeout: 200

use strict;
use warnings;

use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my @fleet = my ($first, $second) = fleet(2, etcd => $etcd);
my @jobs  = map { "j$_" } 1 .. 12;

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');
as_worker($first,
	q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()', misfire => 'all')) FROM generate_series(1, 12) i;
	  SELECT dsched.schedule('kept', '0 3 1 1 *', 'SELECT 1'), dsched.schedule('gone', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('.', 13, \@fleet, timestamp()), 'the jobs run');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL}, 14), 'both have all definitions');
my $snapshot = $etcd->snapshot('before');

as_worker($second, q{SELECT dsched.unschedule('gone'), dsched.alter_job('kept', command => 'SELECT 2'), dsched.schedule('made', '0 3 1 1 *', 'SELECT 1');
	SELECT dsched.schedule_once('once', '2100-01-01', 'SELECT dsched_test.effect()')});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.job WHERE changed IS NULL AND job_name <> 'gone'}, 15), 'a job is deleted, two are defined, one is changed');
ok(wait_past('^j', 12, \@fleet, timestamp(time() + 1)), 'time passes');
ok(wait_until(\@fleet, q{SELECT applied_revision >= (SELECT max(mod_revision) FROM dsched.job) FROM dsched.identity}), 'and that is noted');
# Once only for a while: all stand still, and go on when the right etcd is back.
my $mistaken = time();
$etcd->restore($snapshot);
ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem\|.*recover_cluster/s && status_of($_, 'scheduler') =~ /^problem/ }), $_->name . ' stands still') foreach @fleet;
$etcd->bring_back;
ok(wait_fleet(\@fleet, timeout => 90), 'the former etcd is brought back, and all goes on by itself')
  || diag(map { $_->safe_psql('postgres', 'SELECT * FROM dsched.status()') } @fleet);
ok(wait_past('^j', 12, \@fleet, timestamp(time() + 1)), 'the jobs run');
ok(wait_until(\@fleet, q{SELECT NOT replaced FROM dsched.identity}), 'no doubt is left');

my $restored = time();
$etcd->restore($snapshot);
ok($etcd->get('/dsched/test/config'), 'etcd is restored');
foreach my $node (@fleet)
{
	ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem\|.*(replaced|wiped|restored).*\|.*recover_cluster/s }), $node->name . ' says what to do')
	  || diag(status_of($node, 'etcd'));
}
my %former = %{ $etcd->keys('/dsched/test/') };
ok((grep { m{/gone$} } keys %former), 'what was deleted stands there again');

# The coordinator dies, and with it all that only its memory had; meanwhile the restored etcd's revision has grown past the former one.
$etcd->ctl('put', '/elsewhere', $_) foreach 1 .. 200;
my $coordinator = sub { psql_try($first, q{SELECT substring(detail FROM 'process (\d+)') FROM dsched.status() WHERE component = 'coordinator'}) // '' };
my $killed      = $coordinator->();
kill('KILL', $killed);
ok(wait_for(sub { $coordinator->() =~ /^\d+$/ && $coordinator->() ne $killed }), 'the coordinator is another one');
ok(wait_for(sub { status_of($first, 'etcd') =~ /^problem\|.*recover_cluster/s }), 'that stands still as well') || diag(status_of($first, 'etcd'));
my $since = timestamp(int($restored - 2)) . 'Z';
like(psql_try($first, "SELECT dsched.recover_cluster('$since')") // '', qr/begins anew; slots after/, 'the cluster is recovered from a moment in the past');
kill9_everything($first);
start_instance($first);
ok(wait_fleet(\@fleet, timeout => 90), 'both are back, also the one that was killed right then');
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.jobs WHERE published}, 15), 'with all definitions that there were')
  || diag(map { $_->safe_psql('postgres', 'SELECT job_name, changed, gen_rev, mod_revision FROM dsched.job') } @fleet);
is($_->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE job_name = 'gone') || ' ' || count(*) FILTER (WHERE command = 'SELECT 2') || ' ' || count(*) FILTER (WHERE job_name = 'made') FROM dsched.job}),
	'0 1 1', $_->name . ' has them as they were last') foreach @fleet;
ok(!(grep { /gone/ } $etcd->keys('/dsched/test/')), '[etcd-restored-recovered] the deleted job is not in etcd');
ok(wait_past('^j', 12, \@fleet, timestamp(time() + 1), 90), 'the jobs run');

# From the moment on every slot has its outcome: also what came due while all stood still. Slots between that moment and the failure
# may have been made by both.
my $to = timestamp();
my %effects;
my @slots = expected_slots($first, schedule => '* * * * * *', from => $since, to => "${to}Z");
foreach my $job (@jobs)
{
	$effects{$job}{ $_->{slot} }++ foreach effects($job, \@fleet);
}
is_deeply([ map { my $job = $_; grep { !$effects{$job}{$_} } @slots } @jobs ], [], '[etcd-restored-recovered] from that moment on no slot is lost');
my $sure = timestamp(int($restored + 3));
is_deeply([ map { my $job = $_; map { "$job $_" } grep { $effects{$job}{$_} > 1 && $_ gt $sure } keys %{ $effects{$job} } } @jobs ],
	[], 'what came due later ran once');
# But for what was committed and not yet reported when etcd went away for the first time.
my ($unsure, $again) = map { timestamp(int($mistaken) + $_) } -1, 2;
is_deeply([ map { my $job = $_; map { "$job $_" } grep { $effects{$job}{$_} > 1 && $_ le $since && !($_ ge $unsure && $_ lt $again) } keys %{ $effects{$job} } } @jobs ],
	[], 'what was due before ran once');
my @doubled = map { my $job = $_; map { [ $job, $_ ] } grep { $effects{$job}{$_} > 1 } keys %{ $effects{$job} } } @jobs;
note(scalar(@doubled) . ' slots were made by two instances');
is_deeply([ grep { my ($job, $slot) = @$_; my %on; $on{ $_->{on} }++ foreach grep { $_->{slot} eq $slot } effects($job, \@fleet); grep { $_ > 1 } values %on } @doubled ],
	[], 'no instance made one twice: its own rows tell');
account_ok(\@fleet, repeats_ok => 1, excused => [ { job => 'gone', from => timestamp($restored - 20) . 'Z', to => "${to}Z" } ]);

done_testing();
