# temporary
# timeout: 600
use strict;
use warnings;
use DschedTest;
use Test::More;
use Time::HiRes qw(time);

my $seed = srand($ENV{CHAOS_SEED} || time() * 1000 % 100000);
note("seed $seed");
my $etcd = start_etcd(args => []);
my @fleet = fleet(3, etcd => $etcd);
my %down;
my @may;
create_extension(@fleet);
ok(wait_fleet(\@fleet));
as_worker($fleet[0], q{SELECT count(dsched.schedule('j' || i, '* * * * * *', 'SELECT dsched_test.effect()')) FROM generate_series(1, 20) i});
as_worker($fleet[0], q{SELECT count(dsched.schedule('slow' || i, '*/4 * * * * *', 'SELECT dsched_test.effect(), pg_sleep(0.6)')) FROM generate_series(1, 6) i}); # sleep-ok: x
ok(wait_past('.', 26, \@fleet, timestamp()));
my $from = timestamp();
my $end = time() + 150;
my @what = qw(kill9 killall stop sigstop etcdstop etcdkill worker coordinator term);
while (time() < $end)
{
	my $what = $what[rand @what];
	my $node = $fleet[rand @fleet];
	my $name = $node->name;
	my $t0 = time();
	my $for = 0.2 + rand(5);
	if ($what eq 'kill9') { kill9_instance($node); start_after($node, rand 4); }
	elsif ($what eq 'killall') { kill9_everything($node); start_after($node, rand 6); }
	elsif ($what eq 'stop') { $node->stop('fast'); start_after($node, rand 4); }
	elsif ($what eq 'sigstop') { sigstop_instance($node); pause($for); sigcont_instance($node); }
	elsif ($what eq 'etcdstop') { $etcd->sigstop; pause($for); $etcd->sigcont; $etcd->wait_healthy; }
	elsif ($what eq 'etcdkill') { $etcd->stop('KILL'); pause($for); $etcd->start; }
	elsif ($what eq 'worker') { my @p = pids($node, rand() < 0.5 ? 'dsched scheduler' : 'dsched executor'); kill('KILL', $p[0]) if @p; }
	elsif ($what eq 'coordinator') { my @p = pids($node, 'dsched coordinator'); kill('KILL', $p[0]) if @p; }
	elsif ($what eq 'term') { my @p = pids($node, (qw(scheduler coordinator executor))[rand 3]); kill('TERM', $p[0]) if @p; }
	note(sprintf '%s %s %s %.1f', timestamp($t0), $what, $name, $for);
	push @may, map { { node => $_->name, since => $t0 - 1.25, until => time() + 3 } } ($what =~ /etcd/ ? @fleet : $node);
	pause(rand 5);
}
sub pause { my $u = time() + shift; wait_for(sub { time() > $u }, 30); }
sub start_after { my ($n, $s) = @_; pause($s); start_instance($n); }
ok(wait_fleet(\@fleet));
ok(wait_past('.', 26, \@fleet, timestamp()));
my $to = timestamp();
ok(wait_past('.', 26, \@fleet, timestamp(time() + 3)));
every_slot_of_each_once([ map { "j$_" } 1 .. 20 ], \@fleet, schedule => '* * * * * *', from => "${from}Z", to => "${to}Z", may_repeat => \@may);
every_slot_of_each_once([ map { "slow$_" } 1 .. 6 ], \@fleet, schedule => '*/4 * * * * *', from => "${from}Z", to => "${to}Z", may_repeat => \@may);
note(join ' ', map { $_->name . ': ' . $_->safe_psql('postgres', q{SELECT string_agg(s, ', ') FROM (SELECT status || '/' || reason || '=' || count(*) s FROM dsched.run GROUP BY status, reason) x}) } @fleet);
done_testing();
