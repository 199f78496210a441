# A one-shot whose publication could not be noted where it was scheduled, as the disk was full there: it is not published again after it was run.
# timeout: 120

use strict;
use warnings;

use DschedTest;
use Test::More;

my $etcd = start_etcd();
my ($one, $two) = my @fleet = fleet(2, etcd => $etcd);

create_extension(@fleet);
ok(wait_fleet(\@fleet), 'two instances');

# What the scheduler notes in dsched.job fails there, as with a full disk; that another has run the job, too.
$one->safe_psql('postgres', q{
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF session_user <> 'worker' THEN
		RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';
	END IF;
	RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER full_disk BEFORE UPDATE OR DELETE ON dsched.job FOR EACH ROW EXECUTE FUNCTION full_disk();
ALTER TABLE dsched.job ENABLE ALWAYS TRIGGER full_disk});
as_worker($one, q{SELECT count(dsched.schedule_in('once' || i, '0 s', 'SELECT dsched_test.log(''begin''); SELECT dsched_test.effect()')) FROM generate_series(1, 12) i});
# Those of which the other is the owner are run, and deleted.
ok(wait_for(sub {
	my %run = map { ($_->{job} => 1) } append_log_lines();
	my $left = grep { m{/once} } $etcd->keys('/dsched/test/db/postgres/job/');

	keys %run && keys(%run) + $left == 12 }), 'one-shots are published, and run elsewhere');
is($one->safe_psql('postgres', q{SELECT count(*) FROM dsched.job WHERE changed IS NOT NULL}), 12, 'where they were scheduled this cannot be noted');
as_worker($two, q{SELECT dsched.schedule('tick', '* * * * * *', 'SELECT dsched_test.effect()')});
ok(wait_past('^tick', 1, [$two], timestamp(time() + 3)), 'some seconds go by');
$one->safe_psql('postgres', q{DROP TRIGGER full_disk ON dsched.job});
ok(wait_until($one, q{SELECT count(*) FROM dsched.job WHERE job_name ~ '^once'}, 0, 30), 'when it can be noted they are gone there, too');
ok(wait_past('^tick', 1, [$two], timestamp(time() + 1)), 'a moment later');
my %begun;
$begun{ $_->{job} }++ foreach grep { $_->{job} =~ /^once/ } append_log_lines();
is(scalar keys %begun, 12, 'all have run');
is(join(' ', map { "$_ $begun{$_}" } grep { $begun{$_} != 1 } sort keys %begun), '', 'none was begun twice');
$_->stop('fast') foreach @fleet;
done_testing();
