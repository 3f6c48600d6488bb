use strict;
use warnings;
use CGI;

my $request = CGI->new;
print $request->header('text/plain'), 'Hello, world';
