# The clock of an instance is set while etcd is away. By less than dsched.max_clock_skew: what runs on each instance goes on. By more: it
# stops, and nothing of the future is run, until etcd has confirmed the time. The clock is that of the chaos suite, which steps for the
# processes of one server.
# timeout: 90

use strict;
use warnings;

use DschedTest;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $source = abs_path(dirname(__FILE__)) . '/../../chaos/clock.c';
my $dir    = PostgreSQL::Test::Utils::tempdir();
my $steps  = 0;

plan skip_all => "there is no $source" unless -f $source;
plan skip_all => 'there is no compiler' if system_log($ENV{CC} || 'gcc', qw(-O1 -fPIC -shared -o), "$dir/clock.so", $source, '-ldl') != 0;

sub set_clock
{
	my ($ahead) = @_;

	open my $file, $steps > 0 ? '+<' : '>', "$dir/clock" or die "$dir/clock: $!";
	syswrite($file, pack('q<q<', $ahead * 1e9, $steps++)) == 16 or die "$dir/clock: $!";
	close $file;
	return;
}

set_clock(0);
my $etcd = start_etcd();
my $node;
{
	local $ENV{LD_PRELOAD}  = "$dir/clock.so";
	local $ENV{CHAOS_CLOCK} = "$dir/clock";
	$node = new_instance('node1', etcd => $etcd);
}
create_extension($node);
ok(wait_fleet([$node]), 'an instance whose clock can be stepped');
as_worker($node, q{SELECT dsched.schedule('each', '* * * * * *', 'SELECT dsched_test.effect()', run_on => 'each')});
ok(wait_past('each', 1, [$node], timestamp()), 'its job runs');

$etcd->stop('KILL');
ok(wait_for(sub { status_of($node, 'etcd') =~ /^problem/ }), 'etcd is away');
ok(wait_past('each', 1, [$node], timestamp()), 'the job runs on');
set_clock(0.7);
ok(wait_past('each', 1, [$node], timestamp(time() + 3)), '[clock-set-a-little] the clock was set by less than it may be off: it runs on');
set_clock(-0.7);
ok(wait_past('each', 1, [$node], timestamp(time() + 3)), 'and in the other direction');
like(status_of($node, 'clock'), qr/^(?!problem)/, 'the clock is no problem');

set_clock(3600);
my $set = time();
ok(wait_for(sub { status_of($node, 'clock') =~ /^problem/ }), 'it was set by an hour: that is one');
ok(wait_for(sub { time() > $set + 3 }), 'for a moment');
is($node->safe_psql('postgres', "SELECT count(*) FROM dsched.run WHERE scheduled_for > to_timestamp($set + 2)"), 0, '[clock-set-a-little] nothing of the future has run');
my ($coordinator) = status_of($node, 'coordinator') =~ /process (\d+)/;
kill TERM => $coordinator;
ok(wait_for(sub { status_of($node, 'coordinator') =~ /process (\d+)/ && $1 != $coordinator }), 'another coordinator');
my $there = time();
ok(wait_for(sub { time() > $there + 2 }), 'for a moment');
like(status_of($node, 'clock'), qr/^problem/, 'knows it, too');
set_clock(0);
$etcd->start;
ok(wait_past('each', 1, [$node], timestamp(time() + 1)), 'etcd is back and confirms it: the job runs');

done_testing();
