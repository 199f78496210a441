# Numbers that depend on a seed alone, whatever the version of Perl.

package Chaos::Random;

use strict;
use warnings;

sub new
{
	my ($class, $seed) = @_;
	my $self = bless { state => ($seed * 2654435761 + 88675123) % 4294967296 || 1 }, $class;

	$self->below(2) for 1 .. 10;
	return $self;
}

# From 0 to below n (xorshift).
sub below
{
	my ($self, $n) = @_;
	my $x = $self->{state};

	$x ^= ($x << 13) & 0xffffffff;
	$x ^= $x >> 17;
	$x ^= ($x << 5) & 0xffffffff;
	$self->{state} = $x;
	return ($x >> 4) % $n;
}

sub between
{
	my ($self, $least, $most) = @_;

	return $least + ($most - $least) * $self->below(10000) / 10000;
}

sub one_of
{
	my ($self, @list) = @_;

	return $list[ $self->below(scalar @list) ];
}

sub shuffled
{
	my ($self, @list) = @_;

	for (my $i = $#list; $i > 0; $i--)
	{
		my $j = $self->below($i + 1);

		@list[ $i, $j ] = @list[ $j, $i ];
	}
	return @list;
}

1;
