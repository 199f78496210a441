# Line plots as SVG, drawn by hand: no library, no fonts or scripts from elsewhere.
#
#	Plot::svg(
#		title  => 'Memory of the scheduler',
#		x      => { label => 'jobs', log => 1 },             # axis label, with its unit
#		y      => { label => 'MB', log => 1, from => 1 },    # from, to: bounds, if those of the data will not do
#		series => [ { name => 'dsched', points => [ [ 1000, 3.1 ], [ 100_000, 21 ] ] }, ... ],
#	)
#
# returns the text of an SVG of 720 by 420, with a background of its own, so that it can be read on a light and on a dark page.
# Points that an axis cannot show (zero or less on a logarithmic one, undefined ones) are left out.

package Plot;

use strict;
use warnings;

use List::Util qw(min max);
use POSIX qw(floor ceil);

my ($width, $height) = (720, 420);
my ($left, $right, $top, $bottom) = (76, 24, 48, 60);

# Told apart by people who see few colours, and in grey by their markers.
my @colours = ('#0060a8', '#c84b00', '#1b7a3d', '#8a3fa0', '#7a6a00', '#b0184c');
my @markers = (
	sub { sprintf('<circle cx="%.1f" cy="%.1f" r="3.5"/>', @_) },
	sub { sprintf('<rect x="%.1f" y="%.1f" width="7" height="7"/>', $_[0] - 3.5, $_[1] - 3.5) },
	sub { my ($x, $y) = @_; sprintf('<path d="M%.1f %.1fl4.5 8h-9z"/>', $x, $y - 5) },
	sub { my ($x, $y) = @_; sprintf('<path d="M%.1f %.1fl5 5l-5 5l-5 -5z"/>', $x, $y - 5) },
);

sub svg
{
	my (%opt) = @_;
	my @series = map { { name => $_->{name}, points => [ grep { _can_show($_, \%opt) } @{ $_->{points} } ] } } @{ $opt{series} };
	my @points = map { @{ $_->{points} } } @series;

	die "a plot without points: $opt{title}\n" unless @points;
	my $x = _axis($opt{x}, map { $_->[0] } @points);
	my $y = _axis($opt{y}, map { $_->[1] } @points);
	my $at_x = sub { $left + ($width - $left - $right) * _position($x, $_[0]) };
	my $at_y = sub { $height - $bottom - ($height - $top - $bottom) * _position($y, $_[0]) };

	my $svg = <<"END";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" height="$height" role="img" font-family="sans-serif" font-size="12">
<title>@{[ _escape($opt{title}) ]}</title>
<rect width="$width" height="$height" fill="#ffffff"/>
<text x="$left" y="26" font-size="15" font-weight="bold" fill="#1a1a1a">@{[ _escape($opt{title}) ]}</text>
END
	$svg .= _grid($x, $y, $at_x, $at_y, \%opt);
	$svg .= _line($series[$_], $_, $at_x, $at_y) foreach 0 .. $#series;
	$svg .= _legend(\@series, $at_x, $at_y);
	return "$svg</svg>\n";
}

sub _can_show
{
	my ($point, $opt) = @_;

	return
		 defined $point->[0]
	  && defined $point->[1]
	  && !($opt->{x}{log} && $point->[0] <= 0)
	  && !($opt->{y}{log} && $point->[1] <= 0);
}

# Bounds and ticks. Logarithmic: whole decades, with ticks at 2 and 5 where there are few. Linear: from zero, in round steps.
sub _axis
{
	my ($opt, @values) = @_;
	my ($from, $to) = ($opt->{from} // min(@values), $opt->{to} // max(@values));
	my @ticks;

	if ($opt->{log})
	{
		my ($first, $last) = (floor(_log10($from) + 1e-9), ceil(_log10($to) - 1e-9));

		$last++ if $last == $first;
		my @steps = $last - $first > 3 ? (1) : (1, 2, 5);
		@ticks = grep { $_ <= 10**$last * 1.000001 } map { my $decade = $_; map { $_ * 10**$decade } @steps } $first .. $last;
		($from, $to) = (10**$first, 10**$last);
	}
	else
	{
		$from = 0 if !defined $opt->{from} && $from > 0;
		$to = $from + 1 if $to <= $from;
		my $step = 10**floor(_log10(($to - $from) / 4));
		($step) = grep { ($to - $from) / $_ <= 6 } map { $_ * $step } 1, 2, 5, 10;
		$from = floor($from / $step + 1e-9) * $step;
		$to = ceil($to / $step - 1e-9) * $step;
		@ticks = map { $from + $_ * $step } 0 .. floor(($to - $from) / $step + 0.5);
	}
	return { %$opt, from => $from, to => $to, ticks => \@ticks };
}

sub _log10 { return log($_[0]) / log(10) }

sub _position
{
	my ($axis, $value) = @_;

	$value = min(max($value, $axis->{from}), $axis->{to});
	return ($value - $axis->{from}) / ($axis->{to} - $axis->{from}) unless $axis->{log};
	return (log($value) - log($axis->{from})) / (log($axis->{to}) - log($axis->{from}));
}

sub _grid
{
	my ($x, $y, $at_x, $at_y, $opt) = @_;
	my ($x0, $x1, $y0, $y1) = ($left, $width - $right, $height - $bottom, $top);
	my $svg = qq{<g stroke="#dddddd" stroke-width="1">\n};

	$svg .= sprintf(qq{<line x1="%.1f" y1="$y0" x2="%.1f" y2="$y1"/>\n}, ($at_x->($_)) x 2) foreach @{ $x->{ticks} };
	$svg .= sprintf(qq{<line x1="$x0" y1="%.1f" x2="$x1" y2="%.1f"/>\n}, ($at_y->($_)) x 2) foreach @{ $y->{ticks} };
	$svg .= qq{</g>\n<path d="M$x0 $y1 V$y0 H$x1" fill="none" stroke="#555555"/>\n<g fill="#333333">\n};
	$svg .= sprintf(qq{<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>\n}, $at_x->($_), $y0 + 17, _number($_))
	  foreach @{ $x->{ticks} };
	$svg .= sprintf(qq{<text x="%.1f" y="%.1f" text-anchor="end">%s</text>\n}, $x0 - 7, $at_y->($_) + 4, _number($_))
	  foreach @{ $y->{ticks} };
	$svg .= sprintf(qq{<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>\n},
		($x0 + $x1) / 2, $height - 16, _escape($opt->{x}{label}));
	$svg .= sprintf(qq{<text transform="translate(18 %.1f) rotate(-90)" text-anchor="middle">%s</text>\n},
		($y0 + $y1) / 2, _escape($opt->{y}{label}));
	return "$svg</g>\n";
}

sub _line
{
	my ($series, $number, $at_x, $at_y) = @_;
	my $colour = $colours[ $number % @colours ];
	my @points = map { [ $at_x->($_->[0]), $at_y->($_->[1]) ] } sort { $a->[0] <=> $b->[0] } @{ $series->{points} };

	return '' unless @points;
	return
		sprintf(qq{<polyline fill="none" stroke="$colour" stroke-width="2" points="%s"/>\n},
		join(' ', map { sprintf('%.1f,%.1f', @$_) } @points))
	  . qq{<g fill="$colour">} . join('', map { $markers[ $number % @markers ]->(@$_) } @points) . "</g>\n";
}

# In the corner where the fewest points are.
sub _legend
{
	my ($series, $at_x, $at_y) = @_;
	my $wide = 40 + 7 * max(map { length $_->{name} } @$series);
	my $high = 10 + 18 * @$series;
	my @points = map { map { [ $at_x->($_->[0]), $at_y->($_->[1]) ] } @{ $_->{points} } } @$series;
	my @corners = sort { $a->[2] <=> $b->[2] } map {
		my ($x, $y) = @$_;
		[ $x, $y, scalar grep { $_->[0] > $x - 10 && $_->[0] < $x + $wide + 10 && $_->[1] > $y - 10 && $_->[1] < $y + $high + 10 } @points ]
	} (
		[ $left + 10, $top + 6 ],
		[ $width - $right - $wide - 6, $top + 6 ],
		[ $width - $right - $wide - 6, $height - $bottom - $high - 8 ],
		[ $left + 10, $height - $bottom - $high - 8 ]);
	my ($x, $y) = @{ $corners[0] };
	my $svg = qq{<rect x="$x" y="$y" width="$wide" height="$high" fill="#ffffff" fill-opacity="0.9" stroke="#cccccc"/>\n};

	foreach my $i (0 .. $#$series)
	{
		my $colour = $colours[ $i % @colours ];
		my $middle = $y + 14 + 18 * $i;

		$svg .= sprintf(qq{<path d="M%.1f %.1fh20" stroke="$colour" stroke-width="2"/><g fill="$colour">%s</g>},
			$x + 6, $middle, $markers[ $i % @markers ]->($x + 16, $middle));
		$svg .= sprintf(qq{<text x="%.1f" y="%.1f" fill="#1a1a1a">%s</text>\n}, $x + 32, $middle + 4, _escape($series->[$i]{name}));
	}
	return $svg;
}

sub _number
{
	my ($n) = @_;

	return sprintf('%g', $n / 1e6) . 'M' if abs($n) >= 1e6;
	my $text = sprintf('%.6g', $n);
	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $text;
}

sub _escape
{
	my ($text) = @_;
	my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');

	return $text =~ s/([&<>"])/$entity{$1}/gr;
}

1;
