# docs/reference.md has all that there is, and what it shows can be typed.
#
# Checked are:
#
#	functions	each has a section, and in it each of its parameters, once as a word
#	options		each parameter of schedule() with a default is in a table of options, and in an example
#	views		each has a section, whose table has exactly its columns, with their types and in their order
#	settings	the table has exactly those that there are, with their defaults, when they take effect, and all values of an enum;
#				each has an example, whose value the server takes
#	names		each status and reason that the source can write has a row in the section of dsched.runs, and an example
#	status()	each component that it reports has a row
#	examples	each SQL statement in an indented block runs, in the order of the document, in one database by the test clock;
#				what psql prints is what stands below it, if something does (numbers of ids aside)
#
# An example that cannot be run has a line "<!-- not run: why -->" above its block.

use strict;
use warnings;

use DschedTest;
use File::Basename;
use IPC::Run;
use Test::More;

my $top = dirname(__FILE__) . '/../..';

sub slurp
{
	my ($path) = @_;

	open my $file, '<', $path or die "$path: $!";
	local $/;
	return scalar <$file>;
}

my $document = slurp("$top/docs/reference.md");

# The text of the section with this heading, up to the next heading of the same or a higher level.
sub section
{
	my ($heading) = @_;
	my ($level, $rest) = $document =~ /^(#+) \Q$heading\E\n(.*)/ms or return '';
	my $depth = length $level;

	return $rest =~ /\A(.*?)(?=^#{1,$depth} )/ms ? $1 : $rest;
}

# The rows of the tables in a text, without their heads: lists of cells.
sub rows
{
	my ($text) = @_;

	return map { [ map { s/^\s+|\s+$//gr } split /(?<!\\)\|/, s/^\||\|\s*$//gr ] }
	  grep { /^\|/ && !/^\|-/ && !/^\| *(?:column|setting|option|status|reason|component|argument) *\|/ } split /\n/, $text;
}

# What stands in backquotes in the first cell.
sub names_of
{
	my ($row) = @_;

	return $row->[0] =~ /`([^`]+)`/g;
}

my $node = new_instance('reference', conf => "dsched.test_clock = on\ndsched.timezone = 'UTC'\n");

create_extension($node);
$node->safe_psql('postgres', q{
	CREATE FUNCTION clock_set(timestamptz) RETURNS void AS '$libdir/dsched', 'dsched_test_clock_set' LANGUAGE C;
	CREATE FUNCTION quiet() RETURNS void AS '$libdir/dsched', 'dsched_test_quiesce' LANGUAGE C;
	CREATE ROLE reporting LOGIN;
	CREATE ROLE operations LOGIN;
	CREATE MATERIALIZED VIEW report AS SELECT 1;
	SELECT clock_set('2026-12-10 12:00+00')});

sub ask
{
	return map { [ split /\t/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', $_[0], extra_params => [ '-F', "\t" ]);
}

# ---- functions ----

my %section_of = ('dsched.pause' => 'dsched.pause, dsched.resume', 'dsched.resume' => 'dsched.pause, dsched.resume');

foreach (ask(q{SELECT proname, string_agg(DISTINCT arg, ' ') FROM pg_proc LEFT JOIN LATERAL unnest(proargnames) arg ON true
	WHERE pronamespace = 'dsched'::regnamespace AND proname !~ '^_' GROUP BY 1 ORDER BY 1}))
{
	my ($function, $arguments) = @$_;
	my $text = section($section_of{"dsched.$function"} // "dsched.$function");
	# what several functions share is told at the first of them
	$text .= section('dsched.schedule_once') if $function eq 'schedule_in';
	my @missing = grep { $text !~ /\b\Q$_\E\b/ } split / /, $arguments;

	isnt($text, '', "dsched.$function has a section");
	like($text, qr/^    .*\bdsched\.$function\(/m, "dsched.$function has an example or a signature");
	is("@missing", '', "all parameters of dsched.$function are told");
}

my $options = join ' ', map { names_of($_) } rows(section('Options'));

foreach (ask(q{SELECT arg FROM pg_proc, unnest(proargnames) WITH ORDINALITY AS a(arg, n)
	WHERE oid = (SELECT max(oid) FROM pg_proc WHERE proname = 'schedule' AND pronargs > 2) AND n > pronargs - pronargdefaults}))
{
	like($options, qr/\b$_->[0] \w+/, "option $_->[0] is in a table");
	like($document, qr/^    .*\b$_->[0] => /m, "option $_->[0] has an example");
}

# ---- views ----

foreach (ask(q{SELECT c.relname, string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'dsched'::regnamespace AND c.relkind = 'v' AND c.relname !~ '^_' GROUP BY 1 ORDER BY 1}))
{
	my ($view, $columns) = @$_;
	my $text = section("dsched.$view");
	my ($table) = $text =~ /(^\| column .*?\n)(?!\|)/ms;

	is(join(', ', map { (names_of($_))[0] . " $_->[1]" } rows($table // '')), $columns, "the columns of dsched.$view");
	like($text, qr/^    SELECT .* dsched\.$view\b/m, "dsched.$view has an example");
}

# ---- settings ----

my %unit = (ms => 1, s => 1000, min => 60_000, h => 3_600_000, d => 86_400_000);

# A duration in milliseconds, anything else as it is.
sub canonical
{
	my ($value, $unit) = @_;

	$value .= $unit if defined $unit && $unit ne '';
	return $value =~ /^(-?\d+)(ms|s|min|h|d)$/ ? $1 * $unit{$2} : $value eq '' ? 'empty' : $value;
}

my %documented = map { (names_of($_))[0] => $_ } grep { $_->[0] =~ /^`dsched\./ } rows(section('Settings'));
my @settings = ask(q{SELECT name, boot_val, unit, context, array_to_string(enumvals, ' ') FROM pg_settings WHERE name LIKE 'dsched.%' ORDER BY 1});

is(join(' ', sort keys %documented), join(' ', map { $_->[0] } @settings), 'the settings');
foreach (@settings)
{
	my ($name, $default, $unit, $context, $values) = @$_;
	my $row = $documented{$name} or next;
	my @missing = grep { $row->[3] !~ /`$_`/ } split / /, $values;

	is(canonical($row->[1] =~ s/`//gr), canonical($default, $unit), "the default of $name");
	is($row->[2], { postmaster => 'restart', sighup => 'reload' }->{$context}, "when $name takes effect");
	is("@missing", '', "all values of $name are told");
}

foreach my $line (grep { /^    dsched\./ } split /\n/, section('Settings'))
{
	my ($name, $value) = $line =~ /^    (dsched\.\w+) = '?([^'\s]*)'?\s*(?:#.*)?$/ or die "no setting: $line";
	my ($status, undef, $error) = $node->psql('postgres', "ALTER SYSTEM SET $name = '$value'");

	is($status, 0, "example of $name") or diag($error);
	$node->safe_psql('postgres', "ALTER SYSTEM RESET $name");
	delete $documented{$name};
}
is(join(' ', sort keys %documented), '', 'each setting has an example');

# ---- names ----

my %told = map { map { $_ => 1 } names_of($_) } rows(section('dsched.runs'));
my $source = slurp("$top/src/queue.c");
my %names = (waiting => 1, queued => 1);

foreach my $array ('status_names', 'reason_names')
{
	my ($list) = $source =~ /\b$array\[\] = \{(.*?)\}/s or die "no $array";
	$names{$_} = 1 foreach grep { $_ ne 'unknown' } $list =~ /"(\w+)"/g;
}
foreach my $file (glob "$top/src/schedule/*.c")
{
	foreach (split /\n/, slurp($file))
	{
		next unless /\breason_text = |\bclose_skipped\(|\brange_close\(|\bend_generation\(/;
		$names{$_} = 1 foreach /"(\w+)"/g;
	}
}
cmp_ok(scalar keys %names, '>=', 20, 'statuses and reasons are found in the source');
is(join(' ', grep { !$told{$_} } sort keys %names), '', 'all statuses and reasons are told');

my ($shown) = section('dsched.runs') =~ /^(     job_name \| .*?)^(?!    )/ms;

is(join(' ', grep { ($shown // '') !~ /\| $_ +\|/ } sort keys %names), '', 'all statuses and reasons are in an example');

my %components = map { map { $_ => 1 } names_of($_) } rows(section('dsched.status'));

is(join(' ', grep { !$components{$_} } map { $_->[0] } ask('SELECT component FROM dsched.status()')), '', 'all components of status() are told');

# ---- examples ----

# What psql prints, with all that may differ made alike: ids, and the widths of columns.
sub alike
{
	my ($text) = @_;

	return join "\n", grep { $_ ne '' } map { s/\d{9,}/N/gr } map { s/^-+$/-/r } map { s/\s+/ /gr } map { s/^\s+|\s+$//gr } split /\n/, $text;
}

# What the examples cancel must not be over.
$node->safe_psql('postgres', q{
	BEGIN;
	ALTER MATERIALIZED VIEW report SET (autovacuum_enabled = off);
	PREPARE TRANSACTION 'holds up the report'});
my $held_up = 1;

sub let_go
{
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'holds up the report'}) if $held_up;
	$held_up = 0;
	return;
}

my $not_run;
my $statements = 0;
my @lines = split /\n/, $document;

while (@lines)
{
	my $line = shift @lines;

	$not_run = 1 if $line =~ /^<!-- not run: \S/;
	$not_run = 0 if $line =~ /^[^ <]/;
	next if $not_run || $line !~ /^    (?:SELECT|GRANT|ALTER|LISTEN|INSERT|CREATE|DELETE|UPDATE)\b/;

	my $statement = $line;
	my ($expected, $printed) = ('', '');

	$statement .= "\n" . shift @lines while $statement !~ /;(?:\s*--.*)?$/ && @lines && $lines[0] =~ /^    /;
	$expected .= shift(@lines) . "\n" while @lines && $lines[0] =~ /^    / && $lines[0] !~ /^    [A-Z]+\b.*/;
	# it would wait for the one that waits
	let_go() if $statement =~ /CONCURRENTLY/;
	IPC::Run::run([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-P', 'footer=off', '-d', $node->connstr('postgres'), '-c', $statement ],
		'>', \$printed, '2>&1');
	$statement =~ s/\s+/ /g;
	ok($? == 0, "runs:$statement") or diag($printed);
	is(alike($printed), alike($expected), "prints what is shown:$statement") if $expected ne '';
	$statements++;
}
cmp_ok($statements, '>=', 50, 'the document has examples');

let_go();
# an hour in which its jobs run, or fail
$node->safe_psql('postgres', q{SELECT clock_set('2026-12-10 13:00+00')});
$node->safe_psql('postgres', 'SELECT quiet()');
account_ok([$node], until => '2026-12-10 13:00:00Z');

done_testing();
