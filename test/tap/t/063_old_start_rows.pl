# Start rows that an instance finds when it comes back: of a run that another has made in the meantime, or has come to a later attempt of, and of jobs that
# are gone.
# timeout: 180

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my ($one, $two) = fleet(2, etcd => $etcd);

create_extension($one, $two);
ok(wait_fleet([ $one, $two ]), 'two instances');
$_->safe_psql('postgres', q{
CREATE TABLE gate (); GRANT ALL ON gate TO worker;
CREATE PROCEDURE pass() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dsched_test.log('begin');
	PERFORM FROM gate;
	PERFORM dsched_test.effect();
END $$}) foreach $one, $two;

# ---- the run of a procedure has a row before it starts ----

my @locks = map { $_->background_psql('postgres') } $one, $two;
$_->query_safe('BEGIN; LOCK TABLE gate') foreach @locks;
my $at = $one->safe_psql('postgres', q{SELECT to_char(now() + interval '2 s', 'SS MI HH24 * * *')});
as_worker($one, "SELECT dsched.schedule('daily', '$at', 'CALL pass()')");
ok(wait_for(sub { append_log_lines(job => 'daily') }), 'it is under way');
my ($line) = append_log_lines(job => 'daily');
my ($owner, $other) = $line->{node} eq 'node1' ? ($one, $two) : ($two, $one);
ok(wait_until($owner, q{SELECT count(*) FROM dsched.run WHERE status = 'running'}, 1), 'with a start row');
as_worker($owner, q{SELECT dsched.run_now(job_id) FROM (SELECT dsched.schedule('asked', '0 0 1 1 *', 'CALL pass()') AS job_id) j});
ok(wait_for(sub { append_log_lines(job => 'asked') }), 'another was asked for');
# when the account in etcd says that it was started
ok(wait_for(sub { grep { /"l":"?[1-9]/ } values %{ $etcd->keys('/dsched/test/db/postgres/state/') } }), 'and an account that says so');
kill9_everything($owner);
$_->query('COMMIT') foreach grep { defined } map { $owner == ($one, $two)[$_] ? undef : $locks[$_] } 0, 1;
ok(wait_until($other, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'daily'}, 1), 'its owner is killed, another makes it');

start_instance($owner);
ok(wait_fleet([ $one, $two ]), 'it is back');
$other->stop('fast');
ok(wait_owners($owner, [ $owner->name ]), 'and then the only one');
ok(wait_until($owner, q{SELECT count(*) FROM dsched.partitions WHERE state IS DISTINCT FROM 'active'}, 0), 'with all partitions');
ok(wait_until($owner, q{SELECT count(*) FROM dsched.run WHERE status = 'running'}, 0), '[start-row-found] no start row is left without an end');
ok(wait_until($owner, q{SELECT detail FROM dsched.status() WHERE component = 'scheduler'}, qr/ 0 runs due or running/), 'nothing is left to do');
is($owner->safe_psql('postgres', q{SELECT count(*) FROM dsched_test.effects WHERE job = 'daily'}), 0, '[start-row-found] it is not made again');
is($owner->safe_psql('postgres', q{SELECT string_agg(attempt || ' ' || status || ' ' || username, ', ') FROM dsched.run WHERE job_name = 'daily'}), '1 lost worker', 'its own attempt was lost');

$other->start;
# What the killed one had begun of the request has the number of the attempt that the other made.
account_ok([ $one, $two ], holes => 1);

# ---- the partition of a start row does not come back ----

my @second = map { new_instance($_, etcd => $etcd, cluster_name => 'second') } 'second1', 'second2';
create_extension(@second);
ok(wait_fleet(\@second), 'two others');
$_->safe_psql('postgres', q{
CREATE TABLE gate (); GRANT ALL ON gate TO worker;
CREATE PROCEDURE pass() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dsched_test.log('begin');
	PERFORM FROM gate;
	PERFORM dsched_test.effect();
END $$}) foreach @second;
my %lock = map { ($_->name => $_->background_psql('postgres')) } @second;
$_->query_safe('BEGIN; LOCK TABLE gate') foreach values %lock;
$at = $second[0]->safe_psql('postgres', q{SELECT to_char(now() + interval '2 s', 'SS MI HH24 * * *')});
as_worker($second[0], "SELECT dsched.schedule('held', '$at', 'CALL pass()')");
ok(wait_for(sub { append_log_lines(job => 'held') }), 'a run is under way');
($line) = append_log_lines(job => 'held');
($owner, $other) = $line->{node} eq 'second1' ? @second : reverse @second;
kill9_everything($owner);
ok(wait_for(sub { append_log_lines(job => 'held', node => $other->name) }), 'its owner is killed, another makes it, and is not done');
start_instance($owner);
ok(wait_until($owner, q{SELECT count(*) FROM dsched.partitions JOIN dsched.nodes ON node = owner_node WHERE this_instance AND state = 'active'}, qr/^[1-9]/), 'it is back, with partitions');
ok(wait_until($owner, q{SELECT string_agg(attempt || ' ' || status, ', ') FROM dsched.run WHERE job_name = 'held'}, '1 lost', 20), 'its attempt is known to be lost');
is($owner->safe_psql('postgres', q{SELECT owner_node FROM dsched.jobs WHERE job_name = 'held'}), $other->name, 'though its partition is not among these');
$lock{ $other->name }->query_safe('COMMIT');
ok(wait_until($other, q{SELECT count(*) FROM dsched_test.effects WHERE job = 'held'}, 1), 'it is made, once');
account_ok(\@second, holes => 1);

# ---- the partition comes back, with a later attempt of the run ----

$lock{$_->name}->query_safe('BEGIN; LOCK TABLE gate') foreach $other;
$lock{ $owner->name } = $owner->background_psql('postgres');
$lock{ $owner->name }->query_safe('BEGIN; LOCK TABLE gate');
$at = $other->safe_psql('postgres', q{SELECT to_char(now() + interval '2 s', 'SS MI HH24 * * *')});
as_worker($other, "SELECT dsched.schedule('again', '$at', 'CALL pass()'); SELECT dsched.run_now(dsched.schedule('again_asked', '0 0 1 1 *', 'CALL pass()'))");
ok(wait_for(sub { append_log_lines(job => 'again') && append_log_lines(job => 'again_asked') }), 'two runs are under way');
my %maker = map { my ($line) = append_log_lines(job => $_); ($_ => $line->{node}) } qw(again again_asked);
foreach my $job (qw(again again_asked))
{
	my ($maker) = grep { $_->name eq $maker{$job} } @second;
	ok(wait_until($maker, "SELECT string_agg(attempt || ' ' || status, ', ') FROM dsched.run WHERE job_name = '$job'", '1 running'), "$job: has a start row");
}
# the makers one after the other: the second to go has had the attempts of the first
my ($goes) = grep { $_->name eq $maker{again} } @second;
my ($stays) = grep { $_ != $goes } @second;
kill9_everything($goes);
ok(wait_for(sub { append_log_lines(job => 'again', node => $stays->name) }), 'its maker is killed, another has begun it again');
ok(wait_for(sub { grep { /"a":2[,}]/ } values %{ $etcd->keys('/dsched/second/db/postgres/state/') } }), 'and its account says so');
kill9_everything($stays);
start_instance($goes);
ok(wait_until($goes, q{SELECT count(*) FROM dsched_test.effects WHERE job IN ('again', 'again_asked')}, 2), 'that is killed, too, the first is back and makes it');
ok(wait_until($goes, q{SELECT count(*) FROM dsched.runs WHERE job_name ~ '^again' AND status IN ('running', 'queued', 'waiting')}, 0, 20),
	'[start-row-found] the row of its own attempt does not say for ever that it runs');
is($goes->safe_psql('postgres', q{SELECT attempt || ' ' || status FROM dsched.run WHERE job_name = 'again' ORDER BY attempt LIMIT 1}), '1 lost', 'but that it was lost');
start_instance($stays);
ok(wait_fleet(\@second), 'both are there');
account_ok(\@second, holes => 1);

# ---- jobs that are removed while they run, before a crash ----

my $alone = new_instance('alone');

create_extension($alone);
$alone->safe_psql('postgres', q{CREATE PROCEDURE stay() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); END $$});	# sleep-ok: a job that lasts
as_worker($alone, q{SELECT dsched.schedule('x', '0 0 1 1 *', 'CALL stay()'); SELECT dsched.schedule_in('y', '0 s', 'CALL stay()'); SELECT dsched.run_now('x')});
ok(wait_until($alone, q{SELECT count(*) FROM dsched.run WHERE status = 'running'}, 2), 'two runs');
as_worker($alone, q{SELECT dsched.unschedule('x'); SELECT dsched.unschedule('y')});
kill9_everything($alone);
start_instance($alone);
ok(wait_until($alone, q{SELECT string_agg(job_name || ' ' || username || ' ' || status, ', ' ORDER BY job_name) FROM dsched.run WHERE started_at IS NULL OR status = 'lost'},
	'x worker lost, y worker lost'), 'of jobs that are gone end as lost');
account_ok($alone);

done_testing();
