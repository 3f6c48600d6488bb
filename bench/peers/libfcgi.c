/* libfcgi, the library of the specification's authors: serves one connection at a time, one request at a time. */
#include <arpa/inet.h>
#include <fcgiapp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

extern char **environ;

static char chunk[65536];

/* Listens on loopback only, unlike FCGX_OpenSocket(). */
static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (void *)&address, sizeof address) < 0 || listen(fd, 1024) < 0) exit(1);
  return fd;
}

static void answer_headers(FCGX_Request *r) {
  size_t length = 0;
  for (char **p = r->envp; *p; p++)
    if (strncmp(*p, "HTTP_", 5) == 0) length += strlen(*p) - 6;
  FCGX_PutS("Content-Type: text/plain\r\n", r->out);
  for (int i = 1; i <= 19; i++) FCGX_FPrintF(r->out, "X-Field-%d: the value of header %d\r\n", i, i);
  for (int i = 1; i <= 3; i++) FCGX_FPrintF(r->out, "Set-Cookie: c%d=0123456789abcdef; Path=/\r\n", i);
  FCGX_FPrintF(r->out, "\r\n%s", length > 900 ? "true" : "false");
}

static void answer(FCGX_Request *r) {
  const char *uri = FCGX_GetParam("REQUEST_URI", r->envp);
  if (strcmp(uri, "/headers") == 0) {
    answer_headers(r);
    return;
  }
  FCGX_PutS("Content-Type: text/plain\r\n\r\n", r->out);
  if (strcmp(uri, "/echo") == 0) {
    for (int n; (n = FCGX_GetStr(chunk, sizeof chunk, r->in)) > 0;) FCGX_PutStr(chunk, n, r->out);
  } else if (strcmp(uri, "/upload") == 0) {
    long length = 0;
    for (int n; (n = FCGX_GetStr(chunk, sizeof chunk, r->in)) > 0;) length += n;
    FCGX_FPrintF(r->out, "%ld", length);
  } else if (strncmp(uri, "/download?bytes=", 16) == 0) {
    for (long left = atol(uri + 16); left > 0; left -= sizeof chunk)
      FCGX_PutStr(chunk, left < (long)sizeof chunk ? left : (long)sizeof chunk, r->out);
  } else {
    FCGX_PutS("Hello, world", r->out);
  }
}

int main(int argc, char **argv) {
  FCGX_Request request;
  FCGX_Init();
  FCGX_InitRequest(&request, listen_on(atoi(argv[argc - 1])), 0);
  while (FCGX_Accept_r(&request) == 0) {
    answer(&request);
    FCGX_Finish_r(&request);
  }
}
