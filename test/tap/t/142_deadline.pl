# How far the right of an instance reaches: by what it counts from, by what it is proved, and how soon it ends when etcd says so. Only what was
# committed before a moment counts, so the judge is the time of effects, against the times at which requests came by on their way to etcd.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $ttl    = 6;
my $margin = $ttl / 10;
my $etcd   = start_etcd();
my $gate   = EtcdGate->start($etcd);
my $node   = new_instance('node1', etcd => $gate, conf => "dsched.partitions = 2\ndsched.lease_ttl = '${ttl}s'\n");

create_extension($node);
ok(wait_fleet([$node]), 'an instance in a cluster');
# At any moment one of them is about to commit.
as_worker($node, q{SELECT dsched.schedule('tick' || i, '* * * * * *', 'SELECT dsched_test.effect()', jitter => '1 s') FROM generate_series(1, 20) i});
ok(wait_past('tick', 20, [$node], timestamp()), 'jobs run');

# The newest effect, as a time of Perl's; every effect was committed before the deadline that it had.
sub newest
{
	return $node->safe_psql('postgres', 'SELECT extract(epoch FROM max(at)) FROM dsched_test.effects');
}

# The newest heartbeat that came through up to a moment: when its keepalive came by, of which the proof came by, too.
sub last_beat
{
	my ($until) = @_;
	my ($keepalive, $last);

	foreach my $request (grep { $_->{at} < $until } $gate->log)
	{
		$keepalive = $request->{at} if $request->{path} =~ /keepalive/;
		($last, $keepalive) = ($keepalive, undef) if defined $keepalive && $request->{text} =~ m{request_put.*/node/node1};
	}
	return $last;
}

sub runs_again
{
	return wait_past('tick', 20, [$node], timestamp(), 30);
}

# ---- the lease is renewed, but nothing proves that whoever renewed it is the leader ----

my $session = $etcd->get('/dsched/test/node/node1')->{create_revision};
my $rule    = $gate->rule(lose => 'request', path => 'txn');
my $since   = time();
my $bound   = last_beat($since) + $ttl - $margin;
ok(wait_for(sub { time() > $bound + 3 }), 'for longer than a deadline, keepalives are answered and nothing else is');
ok((grep { $_->{at} > $since && $_->{path} =~ /keepalive/ } $gate->log), 'there were some');
cmp_ok(newest(), '<', $bound, '[keepalive-proves-nothing] what runs has stopped when the last proof said');
is($etcd->get('/dsched/test/node/node1')->{create_revision}, $session, 'while the lease lives in etcd');
$gate->remove;
ok(runs_again(), 'with proofs again, it goes on');
is($etcd->get('/dsched/test/node/node1')->{create_revision}, $session, 'in the same session');

# ---- the answer of the keepalive is late ----

$rule = $gate->rule(delay => 0.15 * $ttl, path => 'keepalive');
ok( wait_for(
		sub {
			my @log = $gate->log;
			my ($first) = grep { ($_->{rule} // 0) == $rule } @log;

			return $first && grep { $_->{at} >= $first->{at} + 0.15 * $ttl && $_->{text} =~ m{request_put.*/node/node1} } @log;
		}),
	'a keepalive is answered late, and the proof comes after it');
# Not in the middle of another heartbeat.
ok(wait_for(sub { last_beat(time()) > ((grep { $_->{path} =~ /keepalive/ } $gate->log)[-1]{at} - 0.001) }), 'a heartbeat is complete');
$gate->rule(lose => 'request');
$bound = last_beat(time()) + $ttl - $margin;
ok(wait_for(sub { time() > $bound + 2 }), 'nothing comes through any more');
cmp_ok(newest(), '<', $bound, '[keepalive-answer-late] the deadline counts from when the keepalive was sent');
cmp_ok(newest(), '>', $bound - 2, 'it ran nearly until then');
$gate->remove;
ok(runs_again(), 'it goes on');

# ---- the lease is gone; the only one to say so is the keepalive, in an answer without a TTL ----

my $epochs = ownership($node);
$gate->rule(hold => 'answer', path => 'watch', streams => 1);
my $lease = $etcd->get('/dsched/test/node/node1')->{lease};
my $ended = sub { () = slurp_file($node->logfile) =~ /session with etcd has ended/g };
my $count = $ended->();
$etcd->ctl('lease', 'revoke', sprintf('%x', $lease));
my $revoked = time();
ok(wait_for(sub { $ended->() > $count }), 'the session ends');
cmp_ok(time() - $revoked, '<', $ttl / 3 + 1.5, '[keepalive-without-ttl] with the next heartbeat, not at the deadline');
$gate->remove;
$gate->release;
ok(runs_again(), 'it has another session');
my %old = map { /=(\S+)@(\d+)/ ? ($2 => 1) : () } split / /, $epochs;
my @new = map { /@(\d+)/ ? $1 : () } split / /, scalar ownership($node);
is_deeply([ grep { $old{$_} } @new ], [], '[keepalive-without-ttl] and other epochs');
account_ok($node, holes => 1);

done_testing();
