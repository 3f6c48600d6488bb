use strict;
use warnings;

print "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nHello, world";
