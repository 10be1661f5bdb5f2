# Records in hashes, split and joined lines, sorted keys. The argument says how many.
use strict;
use warnings;

my $count = shift;
my @lines = map { join(",", $_, "name " . ($_ * 7919 % $count), $_ % 97, "x" x ($_ % 40)) } 1 .. $count;
my (%records, %groups);
for my $line (@lines) {
    my ($id, $name, $group, $rest) = split /,/, $line, -1;
    $records{$name} = { id => $id, group => $group, rest => $rest };
    push @{ $groups{$group} }, $name;
}
for my $round (1 .. 2) {
    for my $group (sort keys %groups) {
        my @kept = grep { $records{$_}{id} % 3 != $round } @{ $groups{$group} };
        $groups{$group} = [ reverse @kept ];
        $records{$_}{rest} .= "-" . $_ for @kept;
    }
}
my $letters = 0;
for my $name (sort keys %records) {
    (my $text = $records{$name}{rest}) =~ s/x+-/y/g;
    $letters += length $text;
}
my $kept = 0;
$kept += @{$_} for values %groups;
print scalar(keys %records), " $kept $letters\n";
