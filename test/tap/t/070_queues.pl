# Throttle queues between instances and etcd: what one changes arrives at the other, also while etcd is away, somebody holds a lock, or the
# instance is killed in between; who changes one queue at once with somebody else agrees with him in the end; a queue that was
# dropped does not come back; what is in etcd is judged before it is believed.
# timeout: 240

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my @fleet = my ($a, $b) = fleet(2, etcd => $etcd, conf => "log_min_messages = debug1\n");
my $prefix = '/dsched/test/db/postgres/queue/';

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances share the partitions');

sub queues
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# The limits of a queue, and whether etcd has been told
sub limits
{
	my ($name) = @_;

	return "SELECT coalesce(max_running, 0), coalesce(rate_limit, 0), coalesce(per, '0'), scope, published FROM dsched.queues WHERE name = '$name'";
}

sub everywhere
{
	my ($name, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(wait_until(\@fleet, limits($name), $expected), $what);
}

sub gone_everywhere
{
	my ($name, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(wait_until(\@fleet, "SELECT count(*) FROM dsched.queue WHERE name = '$name'", 0), $what);
	is($etcd->get($prefix . $name =~ s/ /%20/gr), undef, 'also from etcd');
	return;
}

# What the schedulers go by, which no table shows: the last that was logged of a queue since an offset of the log
sub known_as
{
	my ($node, $name, $expected, $offset) = @_;

	return wait_for(
		sub {
			my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset // 0);
			my @said = $log =~ /dsched: queue "\Q$name\E" of database "postgres" (.*)/g;

			return @said && $said[-1] =~ $expected;
		});
}

# A session with an open transaction. Returns code that ends it with a statement.
sub in_transaction
{
	my ($node, $sql) = @_;
	my ($in, $out, $err) = ("BEGIN; $sql; SELECT 'it is open';\n", '', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);

	$session->pump until $out =~ /it is open/ || $err ne '';
	return sub {
		$in .= shift . ";\n";
		$session->finish;
		return;
	};
}

# ---------------------------------------------------------------------------------------------------------------------
# In fair weather
# ---------------------------------------------------------------------------------------------------------------------

queues($a, q{SELECT dsched.create_queue('mail', 3, 10, '1 minute', 'cluster')});
everywhere('mail', '3|10|00:01:00|cluster|t', 'a queue appears everywhere');
my $value = $etcd->get_json("${prefix}mail");
delete $value->{change_id};
is_deeply($value, { format => 1, name => 'mail', max_running => 3, rate_limit => 10, per => 60000000, scope => 'cluster', node => 'node1' },
	'and stands in etcd');
ok(known_as($_, 'mail', qr/max_running 3, rate_limit 10 per 60000000 us, scope cluster/), 'the scheduler of ' . $_->name . ' knows')
  foreach @fleet;

my $revision = $etcd->get("${prefix}mail")->{mod_revision};
queues($b, q{SELECT dsched.create_queue('mail', 3, 10, '60 seconds', 'cluster')});
queues($b, q{SELECT dsched.create_queue('other', 1)});
everywhere('other', '1|0|00:00:00|instance|t', 'another one');
is($etcd->get("${prefix}mail")->{mod_revision}, $revision, 'the same again is not written');

queues($b, q{SELECT dsched.alter_queue('mail', max_running => 4, reset => '{scope}')});
everywhere('mail', '4|10|00:01:00|instance|t', 'a change by the other one appears everywhere');
ok(known_as($a, 'mail', qr/max_running 4, .* scope instance/), 'and counts');
queues($a, q{SELECT dsched.drop_queue('mail')});
gone_everywhere('mail', 'what is dropped is gone everywhere');
ok(known_as($_, 'mail', qr/is gone/), 'the scheduler of ' . $_->name . ' knows') foreach @fleet;
queues($b, q{BEGIN; SELECT dsched.drop_queue('other'); SELECT dsched.create_queue('other', 7); COMMIT});
everywhere('other', '7|0|00:00:00|instance|t', 'dropped and created in one transaction');
queues($b, q{BEGIN; SELECT dsched.create_queue('brief', 7); SELECT dsched.drop_queue('brief'); COMMIT});
gone_everywhere('brief', 'created and dropped in one transaction');

queues($a, q{SELECT dsched.create_queue('many' || i, i) FROM generate_series(1, 100) i});
ok(wait_until(\@fleet, q{SELECT count(*), sum(max_running) FROM dsched.queues WHERE name ~ '^many' AND published}, '100|5050'), 'many');
queues($b, q{SELECT dsched.drop_queue(name) FROM dsched.queues WHERE name ~ '^many'});
ok(wait_until(\@fleet, q{SELECT count(*) FROM dsched.queue WHERE name ~ '^many'}, 0), 'and they go');
is_deeply([ grep { /many/ } $etcd->keys($prefix) ], [], 'also from etcd');

my $odd = "caf\xc3\xa9 / 100% \"\xe2\x82\xac\" ../x";
queues($a, "SELECT dsched.create_queue('$odd', 2)");
everywhere($odd, '2|0|00:00:00|instance|t', 'any name');

# ---------------------------------------------------------------------------------------------------------------------
# Somebody holds a lock
# ---------------------------------------------------------------------------------------------------------------------

my $end = in_transaction($b, q{SELECT dsched.alter_queue('other', 8)});
queues($a, q{SELECT dsched.alter_queue('other', 9), dsched.create_queue('free', 1)});
everywhere('free', '1|0|00:00:00|instance|t', 'one lock holds up nothing else');
ok(known_as($b, 'other', qr/max_running 9,/), 'nor the scheduler');
is(queues($b, limits('other')), '7|0|00:00:00|instance|t', 'the locked row is as it was');
$end->('ROLLBACK');
everywhere('other', '9|0|00:00:00|instance|t', 'and follows when it is let go');

$end = in_transaction($b, q{SELECT dsched.alter_queue('other', 10)});
queues($a, q{SELECT dsched.alter_queue('other', 11)});
ok(wait_until($a, limits('other'), '11|0|00:00:00|instance|t'), 'somebody is faster');
$end->('COMMIT');
everywhere('other', '10|0|00:00:00|instance|t', 'the last one wins');

# A job that is being put into a queue keeps it from being dropped; here the lock that its definition takes.
$end = in_transaction($a, q{SELECT FROM dsched.queue WHERE name = 'free' FOR KEY SHARE});
queues($b, q{SELECT dsched.alter_queue('free', 2)});
everywhere('free', '2|0|00:00:00|instance|t', 'that lock holds up no change of limits');
queues($b, q{SELECT dsched.drop_queue('free')});
ok(wait_until($b, q{SELECT count(*) FROM dsched.queue WHERE name = 'free'}, 0), 'the queue is dropped elsewhere');
ok(known_as($a, 'free', qr/is gone/), 'the scheduler hears of it');
is(queues($a, q{SELECT count(*) FROM dsched.queue WHERE name = 'free'}), 1, 'its row waits for the transaction');
$end->('COMMIT');
gone_everywhere('free', 'and goes');

# ---------------------------------------------------------------------------------------------------------------------
# etcd is away
# ---------------------------------------------------------------------------------------------------------------------

queues($a, q{SELECT dsched.create_queue('both', 1), dsched.create_queue('drop', 1), dsched.create_queue('revive', 1)});
everywhere($_, '1|0|00:00:00|instance|t', "before: $_") foreach qw(both drop revive);
$etcd->stop('KILL');
queues($a, q{SELECT dsched.create_queue('away', 5), dsched.alter_queue('both', 20), dsched.drop_queue('drop'), dsched.drop_queue('revive')});
queues($a, q{SELECT dsched.create_queue('never', 5)});
queues($a, q{SELECT dsched.drop_queue('never')});
queues($b, q{SELECT dsched.alter_queue('both', rate_limit => 30), dsched.create_queue('twice', 1)});
queues($a, q{SELECT dsched.create_queue('twice', 2)});
is(queues($a, limits('away')), '5|0|00:00:00|instance|f', 'a queue waits');
is(queues($a, q{SELECT count(*) FROM dsched.queues WHERE name IN ('drop', 'revive', 'never')}), 0, 'for people a dropped one is gone');
ok(wait_for(sub { status_of($a, 'definitions') =~ /^waiting\|6 changes are not yet published/ }), 'status() says what waits')
  || diag(status_of($a, 'definitions'));
$a->restart;
is(queues($a, limits('away')), '5|0|00:00:00|instance|f', 'it waits after a restart');
kill9_everything($b);
start_instance($b);
queues($a, q{SELECT dsched.create_queue('revive', 6)});
$etcd->start;
everywhere('away', '5|0|00:00:00|instance|t', 'it arrives when etcd is back');
gone_everywhere('drop', 'so does a deletion');
gone_everywhere('never', 'what was never there stays away');
everywhere('revive', '6|0|00:00:00|instance|t', 'what was created again is there');
# Which of the two came last is for etcd to say; but both think the same of it.
foreach my $name (qw(both twice))
{
	my $agreed = sub {
		my %said = map { (psql_try($_, limits($name)) // 'none' => 1) } @fleet;
		my $json = $etcd->get_json($prefix . $name) // {};
		my $in_etcd = ($json->{max_running} // 0) . '|' . ($json->{rate_limit} // 0);

		return keys %said == 1 && (keys %said)[0] =~ /^\Q$in_etcd\E\|.*\|t$/ && $in_etcd;
	};
	my $what = wait_for($agreed);
	ok($what, "both agree on $name");
	like($what, $name eq 'both' ? qr/^(20\|0|1\|30)$/ : qr/^[12]\|0$/, 'one of the two has won as a whole');
	ok(known_as($_, $name, qr/max_running @{[ $what =~ m{^(\d+)} ]},/), 'the scheduler of ' . $_->name . ' too') foreach @fleet;
}

# A change that was committed before the other's, and comes to etcd after it, is neither lost nor overwritten.
queues($a, q{SELECT dsched.create_queue('late', 1), dsched.create_queue('late drop', 1), dsched.create_queue('late change', 1)});
everywhere($_, '1|0|00:00:00|instance|t', "before: $_") foreach 'late', 'late drop', 'late change';
$etcd->stop('KILL');
queues($b, q{SELECT dsched.alter_queue('late', 2), dsched.drop_queue('late drop'), dsched.alter_queue('late change', 2)});
$b->stop('fast');
$etcd->start;
queues($a, q{SELECT dsched.alter_queue('late', 3), dsched.alter_queue('late drop', 3), dsched.drop_queue('late change')});
ok(wait_until($a, q{SELECT count(*) FROM dsched.queue WHERE changed IS NOT NULL}, 0), 'somebody else is there first');
is($etcd->get_json("${prefix}late")->{max_running}, 3, 'and has published his own');
start_instance($b);
everywhere('late', '2|0|00:00:00|instance|t', 'the late change wins');
gone_everywhere('late drop', 'a late deletion, too');
everywhere('late change', '2|0|00:00:00|instance|t', 'and a late change of what was dropped');

# An instance that was down has missed nothing, deletions least of all.
$b->stop('fast');
queues($a, q{SELECT dsched.drop_queue('twice'), dsched.alter_queue('both', 40), dsched.create_queue('meanwhile', 2)});
ok(wait_until($a, q{SELECT count(*) FROM dsched.queue WHERE changed IS NOT NULL}, 0), 'changes while one is down');
my $offset = -s $b->logfile;
start_instance($b);
gone_everywhere('twice', 'a deletion that it missed');
ok(wait_until($b, 'SELECT max_running FROM dsched.queues WHERE name = \'both\'', 40), 'a change');
everywhere('meanwhile', '2|0|00:00:00|instance|t', 'a new one');
ok(known_as($b, 'meanwhile', qr/max_running 2,/, $offset), 'its scheduler knows');
ok(known_as($b, 'revive', qr/max_running 6,/, $offset), 'also what has not changed');

# ---------------------------------------------------------------------------------------------------------------------
# kill -9 between the commit and the publication, whose answer never comes
# ---------------------------------------------------------------------------------------------------------------------

$etcd->sigstop;
queues($a, q{SELECT dsched.create_queue('killed', 3), dsched.drop_queue('meanwhile')});
kill9_everything($a);
$etcd->sigcont;
start_instance($a);
everywhere('killed', '3|0|00:00:00|instance|t', 'what was committed is published after kill -9');
gone_everywhere('meanwhile', 'so is a deletion');

# Were the first put of a queue still on its way when the queue is dropped again, it would find that queuerev has moved.
my $queuerev = $etcd->get('/dsched/test/db/postgres/queuerev')->{mod_revision};
$etcd->stop('TERM');
queues($a, q{SELECT dsched.create_queue('phantom', 3)});
queues($a, q{SELECT dsched.drop_queue('phantom')});
$etcd->start;
gone_everywhere('phantom', 'a queue that etcd never had goes');
cmp_ok($etcd->get('/dsched/test/db/postgres/queuerev')->{mod_revision}, '>', $queuerev, 'and queuerev has moved');

# The first put of a queue hangs in etcd while it is dropped again: it must not bring it back.
$etcd->sigstop;
queues($a, q{SELECT dsched.create_queue('undead', 3)});
# in flight: a second round would wait for its answer
ok(wait_until($a, q{SELECT published FROM dsched.queues WHERE name = 'undead'}, 'f'), 'a queue is being published');
queues($a, q{SELECT dsched.drop_queue('undead')});
kill9_everything($a);
$etcd->sigcont;
start_instance($a);
queues($a, q{SELECT dsched.create_queue('after', 1)});
everywhere('after', '1|0|00:00:00|instance|t', 'later ones are published');
gone_everywhere('undead', 'it stays dropped');

# ---------------------------------------------------------------------------------------------------------------------
# What is in etcd
# ---------------------------------------------------------------------------------------------------------------------

sub put_value
{
	my ($key, $text) = @_;

	$etcd->ctl('put', $prefix . $key, $text);
	return;
}

put_value('after', '{"format":1,"name":"after","max_running":0,"scope":"instance","change_id":1,"node":"x"}');
ok(wait_until(\@fleet, q{SELECT max_running, problem FROM dsched.queues WHERE name = 'after'}, qr/^1\|its limits in etcd cannot be read: .*max_running/),
	'limits that make no sense: the last ones stay, and people are told');
put_value('after', '{"format":1,"name":"other","max_running":9,"scope":"instance","change_id":1,"node":"x"}');
ok(wait_until(\@fleet, q{SELECT max_running, problem FROM dsched.queues WHERE name = 'after'}, qr/^1\|its limits in etcd cannot be read: .*another name/),
	'so do those of another queue');
put_value('x' x 64, '{"format":1,"name":"' . 'x' x 64 . '","max_running":1,"scope":"instance","change_id":1,"node":"x"}');
put_value('bad%2f', 'x');
put_value('garbage', "\x01");
queues($b, q{SELECT dsched.alter_queue('after', 5)});
ok(wait_until(\@fleet, q{SELECT max_running, problem IS NULL, published FROM dsched.queues WHERE name = 'after'}, '5|t|t'), 'a change puts it right');
is(queues($_, q{SELECT count(*) FROM dsched.queues WHERE name ~ '(xxx|bad|garbage)'}), 0, 'nothing else has come of it') foreach @fleet;

put_value('newer', '{"format":1,"name":"newer","burst":[1.50,7],"max_running":9,"scope":"instance","change_id":1,"node":"x"}');
everywhere('newer', '9|0|00:00:00|instance|t', 'a queue of a newer version');
queues($b, q{SELECT dsched.alter_queue('newer', 8)});
everywhere('newer', '8|0|00:00:00|instance|t', 'is changed by this one');
like($etcd->get("${prefix}newer")->{value}, qr/"burst":\[1\.50,7\]/, 'what this one does not know stays');

# ---------------------------------------------------------------------------------------------------------------------
# Joining, and an etcd that lost everything
# ---------------------------------------------------------------------------------------------------------------------

my $c = new_instance('node3');
create_extension($c);
queues($c, q{SELECT dsched.create_queue('own', 4), dsched.create_queue('after', 77)});
ok(wait_until($c, q{SELECT count(*) FROM dsched.queues WHERE published}, 2), 'an instance alone has queues');
$c->stop('fast');
$c->append_conf('postgresql.conf', "dsched.etcd_endpoints = '" . $etcd->endpoints . "'\ndsched.lease_ttl = '3s'\n");
start_instance($c);
push @fleet, $c;
everywhere('own', '4|0|00:00:00|instance|t', 'its own queue is everywhere');
everywhere('after', '5|0|00:00:00|instance|t', 'of one that the cluster has, the limits of the cluster count');
everywhere('both', queues($a, limits('both')), 'and it has the others');

my $before = queues($a, 'SELECT name, max_running, rate_limit, per, scope FROM dsched.queues ORDER BY 1');
$etcd->wipe;
ok(wait_for(sub { status_of($_, 'etcd') =~ /^problem\|.*(replaced|wiped|restored)/s }), $_->name . ' finds an empty etcd') foreach @fleet;
$b->restart;
ok(wait_for(sub { status_of($b, 'etcd') =~ /^problem\|.*(replaced|wiped|restored)/s }), 'also after a restart');
is(queues($_, 'SELECT name, max_running, rate_limit, per, scope FROM dsched.queues ORDER BY 1'), $before, $_->name . ' has kept its queues') foreach @fleet;
queues($a, q{SELECT dsched.alter_queue('after', 50)});
is_deeply([ $etcd->keys('') ], [], 'nobody has written anything to the empty etcd');
like(queues($_, 'SELECT dsched.adopt()'), qr/^adopted/, 'adopted on ' . $_->name) foreach @fleet;
everywhere('own', '4|0|00:00:00|instance|t', 'a queue is published again');
ok(wait_until(\@fleet, 'SELECT count(*) FROM dsched.queues WHERE published', scalar(split /\n/, $before)), 'all are');

done_testing();
