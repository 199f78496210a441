# docs/schedules.md says what the server says.
#
# Checked is everything in the document of these forms:
#
#	| schedule | in words |			in tables that have both columns: what describe() answers, but for ", UTC", the zone here
#	| schedule | error | hint |		likewise: the message, after "invalid schedule: ", and the hint
#	=> SELECT ...;					in fenced blocks: what psql prints, errors too; settings last until the end of a block

use strict;
use warnings;

use DschedTest;
use File::Basename;
use IPC::Run;
use Test::More;

my $document = dirname(__FILE__) . '/../../docs/schedules.md';
my $node = new_instance('documented', conf => "dsched.timezone = 'UTC'\n");
create_extension($node);

# ---- the document, in parts ----

# The cells of a row of a table; a schedule stands in backquotes.
sub cells
{
	my ($line) = @_;

	return map { s/^\s+|\s+$//gr } split /\|/, $line =~ s/^\||\|\s*$//gr;
}

# Rows of tables as { column => cell, line => number }, and fenced blocks as [ line number, lines ].
sub read_document
{
	my (@rows, @blocks, @columns, $block);

	open my $file, '<', $document or die "$document: $!";
	while (my $line = <$file>)
	{
		chomp $line;
		if ($line =~ /^```/)
		{
			$block = defined $block ? undef : [$.];
			push @blocks, $block if defined $block;
		}
		elsif (defined $block)
		{
			push @$block, $line;
		}
		elsif ($line !~ /^\|/)
		{
			@columns = ();
		}
		elsif (!@columns)
		{
			@columns = cells($line);
		}
		elsif ($line !~ /^\|-/)
		{
			my %row = (line => $.);

			@row{@columns} = cells($line);
			push @rows, \%row;
		}
	}
	close $file;
	return (\@rows, \@blocks);
}

sub schedule_of
{
	my ($row) = @_;

	return $row->{schedule} =~ /^`([^`]+)`$/ ? $1 : die "line $row->{line}: no schedule in \"$row->{schedule}\"";
}

# What psql prints when it runs the statement after the settings.
sub psql_prints
{
	my ($statement, @settings) = @_;
	my ($out, $err);

	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), (map { ('-c', $_) } @settings, $statement) ],
		'>', \$out, '2>', \$err);
	return $out . $err;
}

# Without the ends of lines and the empty lines, in which editors differ.
sub trimmed
{
	my ($text) = @_;

	return join "\n", grep { $_ ne '' } map { s/\s+$//r } split /\n/, $text;
}

# ---- tables ----

my ($rows, $blocks) = read_document();
my @described = grep { exists $_->{schedule} && exists $_->{'in words'} } @$rows;
my @refused = grep { exists $_->{schedule} && exists $_->{error} } @$rows;

cmp_ok(scalar @described, '>=', 70, 'the document describes schedules');
foreach my $row (@described)
{
	my $schedule = schedule_of($row);
	my ($status, $out, $err) = $node->psql('postgres', "SELECT dsched.describe(\$s\$$schedule\$s\$)");

	is($status == 0 ? $out =~ s/, UTC$//r : $err, $row->{'in words'}, "line $row->{line}: $schedule");
}

cmp_ok(scalar @refused, '>=', 10, 'the document shows what is refused');
foreach my $row (@refused)
{
	my $schedule = schedule_of($row);
	my $printed = psql_prints("SELECT dsched.describe(\$s\$$schedule\$s\$)");
	my ($error) = $printed =~ /^ERROR:  invalid schedule: (.*)/m;
	my ($hint) = $printed =~ /^HINT:  (.*)/m;

	is($error // $printed, $row->{error}, "line $row->{line}: $schedule");
	is($hint // '', $row->{hint}, "line $row->{line}: the hint of $schedule");
}

# ---- sessions ----

my $statements = 0;

foreach my $block (@$blocks)
{
	my ($line, @lines) = @$block;
	my @settings;

	while (@lines)
	{
		my ($statement) = shift(@lines) =~ /^=> (.*;)$/ or die "block at line $line: not a statement on one line";
		my $expected = '';

		$expected .= shift(@lines) . "\n" while @lines && $lines[0] !~ /^=> /;
		is(trimmed(psql_prints($statement, @settings)), trimmed($expected), "block at line $line: $statement");
		$statements++;
		push @settings, $statement if $statement =~ /^SET /;
	}
}
cmp_ok($statements, '>=', 25, 'the document has sessions');

done_testing();
