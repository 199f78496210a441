# A command that takes no notice of its cancel, on an instance that has lost its right meanwhile: the last check, right before the commit, is all
# that is left between its effects and those of the next owner. The right is lost in three ways: the instance is cut off from etcd; its coordinator, which would tell
# the others of its processes, does not run; and the instance is suspended, and gets a new session before the command has ended.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use EtcdGate;
use Test::More;
use Time::HiRes qw(time);

my $etcd  = start_etcd();
my %gate  = map { ($_ => EtcdGate->start($etcd)) } qw(node1 node2);
my @fleet = map { new_instance($_, etcd => $gate{$_}, conf => "dsched.partitions = 2\ndsched.cancel_grace = '120s'\n") } qw(node1 node2);

create_extension(@fleet);
# It has its effect first; then it waits for a gate that is a table which is locked, and if it is cancelled, it waits again.
$_->safe_psql('postgres', q{
CREATE TABLE closed (); GRANT ALL ON closed TO worker;
CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dsched_test.log('begin');
	PERFORM dsched_test.effect();
	LOOP
		BEGIN
			LOCK TABLE closed IN ACCESS SHARE MODE;
			PERFORM dsched_test.log('end');
			RETURN;
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END $$}) foreach @fleet;
ok(wait_fleet(\@fleet), 'two instances share two partitions');

# Starts a stubborn run at some instance, takes away its right, waits until the other instance has made it, and lets it end.
sub loses_its_right
{
	my ($tag, $lose, $give_back) = @_;
	my ($name) = $tag =~ /([a-z-]+)/;
	my %lock = map { ($_->name => $_->background_psql('postgres')) } @fleet;

	$_->query_safe('BEGIN; LOCK TABLE closed') foreach values %lock;
	as_worker($fleet[0], "SELECT dsched.schedule_in('$name', '0 s', 'SELECT stubborn()')");
	ok(wait_for(sub { append_log_lines(job => $name, phase => 'begin') }), "$name: under way");
	my ($loser) = grep { $_->name eq (append_log_lines(job => $name))[0]{node} } @fleet;
	my ($other) = grep { $_ != $loser } @fleet;

	$lock{ $other->name }->query_safe('COMMIT');
	$lose->($loser);
	ok(wait_until($other, "SELECT count(*) FROM dsched_test.effects WHERE job = '$name'", 1), "$name: the other instance has made it");
	$give_back->($loser);
	$lock{ $loser->name }->query_safe('COMMIT');
	ok(wait_for(sub { append_log_lines(job => $name, phase => 'end', node => $loser->name) }), "$name: then the first comes to its end");
	ok(wait_until($loser, "SELECT count(*) FROM dsched.run WHERE job_name = '$name' AND status = 'lost'", 1), "$name: which is recorded as lost");
	is($loser->safe_psql('postgres', "SELECT count(*) FROM dsched_test.effects WHERE job = '$name'"), 0, "$tag and commits nothing");
	return ($loser, $lock{ $loser->name }, $lock{ $other->name });
}

sub back
{
	my ($loser, @locks) = @_;

	$_->quit foreach @locks;
	ok(wait_fleet(\@fleet), 'both share the partitions');
	return;
}

my ($loser, @locks) = loses_its_right('[run-goes-on-cut-off]', sub { $gate{ $_[0]->name }->rule(lose => 'request') }, sub { });
$_->remove foreach values %gate;
back($loser, @locks);

# Nobody clears what the executors look at, nobody cancels them: session and epoch are as they were, and only the time tells.
my $coordinator;
($loser, @locks) = loses_its_right(
	'[run-goes-on-coordinator-stopped]',
	sub { ($coordinator) = pids($_[0], 'dsched coordinator'); kill('STOP', $coordinator) },
	sub { });
kill('CONT', $coordinator);
back($loser, @locks);

# By then the deadline is a new one, ahead: the token names a session that is over.
back(loses_its_right(
	'[run-goes-on-new-session]',
	sub { sigstop_instance($_[0]) },
	sub {
		my ($node) = @_;

		sigcont_instance($node);
		ok(wait_fleet(\@fleet), 'it has a new session, and its share');
	}));

account_ok(\@fleet, holes => 1);

done_testing();
