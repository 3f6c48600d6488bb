/* A CGI program that costs next to nothing. */
#include <stdio.h>

int main(void) { return puts("Content-Type: text/plain\r\n\r\nHello, world") < 0; }
