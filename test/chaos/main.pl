# What "run" calls, in namespaces of its own or not: perl main.pl DIRECTORY MODE BINDIR ACCOUNT.PSQL

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";

use Chaos;
use IO::Socket::INET;

my ($dir, $mode, $bindir, $account_file) = @ARGV;
my %ports;

$| = 1;
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 143 };

# A port that nobody listens to now, and that was not given out before.
sub port
{
	for (1 .. 1000)
	{
		my $port = 23500 + int(rand(500));

		next if $ports{$port}++;
		my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port) // next;
		close($socket);
		return $port;
	}
	die "no port is free\n";
}

open(my $in, '<', $account_file) or die "$account_file: $!";
my $account = do { local $/; <$in> };
my @faults = split /; */, $ENV{CHAOS_FAULTS} // '';

my $result = Chaos::run(
	dir => $dir, mode => $mode, bindir => $bindir, account => $account, port => \&port, say => sub { print "$_[0]\n" },
	seed => $ENV{CHAOS_SEED}, seconds => $ENV{CHAOS_SECONDS}, instances => $ENV{CHAOS_INSTANCES}, members => 3, size => $ENV{CHAOS_SIZE} // 2,
	gap => $ENV{CHAOS_GAP} // 2, standby => $ENV{CHAOS_STANDBY} // 1, clock => -e "$dir/../clock.so" ? "$dir/../clock.so" : undef, @faults ? (faults => \@faults) : ());

# all of it is in the file
my @lines = split /\n/, $result->{report};
print "\n", map { "$_\n" } @lines > 150 ? (@lines[ 0 .. 149 ], '...') : @lines;
exit(@{ $result->{violations} } ? 1 : 0);
