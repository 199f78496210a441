# The frame of the benches, without a server: scripts/check static runs it. The benches themselves are no tests.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

my $bench = dirname(__FILE__);
my $dir = tempdir(CLEANUP => 1);

BEGIN { $ENV{BENCH_TMP} = $ENV{BENCH_OUT} = '/nonexistent' }
use lib dirname(__FILE__) . '/lib';
use Bench;
use Plot;

sub slurp
{
	my ($file) = @_;

	open(my $in, '<', $file) or die "$file: $!";
	local $/;
	return scalar <$in>;
}

sub write_file
{
	my ($file, $text) = @_;

	open(my $out, '>', $file) or die "$file: $!";
	print $out $text;
	close($out);
	return;
}

# Every element is closed, in order; attributes are quoted; nothing is left unescaped. Returns what is wrong.
sub xml_fault
{
	my ($xml) = @_;
	my @open;

	while ($xml =~ /\G([^<]*)(?:<(\/?)([a-z]+)((?:\s+[\w:-]+="[^"<&]*")*)\s*(\/?)>)?/gc)
	{
		my ($text, $end, $name, $empty) = ($1, $2, $3, $5);

		return "text: $text" if $text =~ />|&(?!(amp|lt|gt|quot);)/;
		last unless defined $name;
		return "text outside: $text" if !@open && $text =~ /\S/;
		if    ($end)    { return "</$name> closes <" . ($open[-1] // '') . '>' if !@open || pop(@open) ne $name }
		elsif (!$empty) { push @open, $name }
	}
	return 'no element: ' . substr($xml, pos($xml), 60) if pos($xml) < length $xml;
	return @open ? "not closed: @open" : '';
}

isnt(xml_fault($_), '', "not well-formed: $_") foreach '<a><b></a></b>', '<a>', '<a b=c/>', '<a>&</a>', '<a></a>b<c', '</a>';
is(xml_fault('<a b="1"><c/>d &amp; e</a>'), '', 'well-formed');

foreach my $file (glob("$bench/*.pl"), glob("$bench/lib/*.pm"), "$bench/report")
{
	my $output = `perl -I'$bench/lib' -wc '$file' 2>&1`;

	is($output, "$file syntax OK\n", 'compiles');
}
is(system("bash -n '$bench/run'"), 0, 'bench/run is a script');

is(median(3, 1, 2), 2, 'median of three');
is(median(4, 1, 2, 3), 2.5, 'median of four');
is(percentile(50, 1 .. 100), 50, 'p50 of a hundred');
is(percentile(99, 1 .. 100), 99, 'p99 of a hundred');
is(percentile(99.9, 1 .. 100), 100, 'p99.9 of a hundred');
is(percentile(100, 5, 7, 6), 7, 'p100 is the largest');
is(spread([ 1500, 1000, 3000.4 ]), '1,500 (1,000 - 3,000)', 'spread');
is(spread([ 1.234 ], 2), '1.23', 'spread of one');
is(digits(-1234567.891, 1), '-1,234,567.9', 'digits');
is(quote(q{it's \\}), q{E'it''s \\\\'}, 'quote');

my @growth = ([ 1000, 3.1 ], [ 100_000, 21 ], [ 1_000_000, 300 ]);
foreach my $x_log (0, 1)
{
	foreach my $y_log (0, 1)
	{
		my $svg = Plot::svg(
			title  => 'Memory & <time>',
			x      => { label => 'jobs', log => $x_log },
			y      => { label => 'MB "used"', log => $y_log },
			series => [ { name => 'a < b', points => \@growth }, { name => 'zero', points => [ [ 0, 0 ], [ 10, undef ], [ 5000, 8 ] ] } ]);
		my @points = map { split ' ' } $svg =~ / points="([^"]*)"/g;

		is(xml_fault($svg), '', "a plot is well-formed, logarithmic: $x_log $y_log");
		is(scalar @points, $x_log || $y_log ? 4 : 5, 'it has the points that can be shown');
		is(scalar(grep { my ($x, $y) = split /,/; $x < 0 || $x > 720 || $y < 0 || $y > 420 } @points), 0, 'they are inside');
	}
}
like(Plot::svg(title => 't', x => { label => 'x' }, y => { label => 'y' }, series => [ { name => 's', points => [ [ 1, 0 ] ] } ]),
	qr/<svg /, 'a plot of one point at zero');
ok(!eval { Plot::svg(title => 't', x => { label => 'x' }, y => { label => 'y' }, series => [ { name => 's', points => [] } ]); 1 },
	'a plot of nothing is refused');

mkdir "$dir/results";
write_file("$dir/doc.md", "a\n<!-- bench:x.one -->\nold\n<!-- /bench:x.one -->\nb\n<!-- bench:x.two -->\nkept\n<!-- /bench:x.two -->\n");
write_file("$dir/results/x.one.md", "new\n");
write_file("$dir/results/x.plot.svg", '<svg/>');
my $said = `perl '$bench/report' '$dir/results' '$dir/doc.md'`;
is(slurp("$dir/doc.md"), "a\n<!-- bench:x.one -->\nnew\n<!-- /bench:x.one -->\nb\n<!-- bench:x.two -->\nkept\n<!-- /bench:x.two -->\n",
	'report replaces what there is a result for');
like($said, qr/1 parts replaced.*no result: x\.two/s, 'and says what it left');
is(slurp("$dir/plots/x.plot.svg"), '<svg/>', 'and takes the plot');

done_testing();
