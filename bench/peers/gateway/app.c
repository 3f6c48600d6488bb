/* What is behind the gateways: a FastCGI or SCGI application that costs next to nothing, with a thread per connection.
 *
 *   app fastcgi|scgi PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BEGIN = 1, END = 3, PARAMS = 4, STDIN = 5, STDOUT = 6, MOST = 32768 };

typedef struct {
  int fd;
  size_t at, end;
  unsigned char bytes[65536];
} input;

/* Makes at least one byte available. */
static int fill(input *in) {
  if (in->at < in->end) return 1;
  const ssize_t n = read(in->fd, in->bytes, sizeof in->bytes);
  in->at = 0, in->end = n > 0 ? n : 0;
  return n > 0;
}

/* Takes `length` bytes, and keeps them unless `to` is NULL. */
static int take(input *in, unsigned char *to, size_t length) {
  while (length > 0) {
    if (!fill(in)) return 0;
    const size_t n = length < in->end - in->at ? length : in->end - in->at;
    if (to != NULL) memcpy(to, in->bytes + in->at, n), to += n;
    in->at += n, length -= n;
  }
  return 1;
}

static int put(int fd, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    const ssize_t n = write(fd, bytes, length);
    if (n <= 0) return 0;
    bytes += n, length -= n;
  }
  return 1;
}

static size_t record(unsigned char *at, int type, const unsigned char *id, const char *content, size_t length) {
  const unsigned char header[8] = {1, type, id[0], id[1], length >> 8, length & 255};
  memcpy(at, header, 8);
  if (length > 0) memcpy(at + 8, content, length);
  return 8 + length;
}

static int answer(int fd, const unsigned char *id, const char *uri, long body) {
  unsigned char out[MOST + 64];
  char text[MOST];
  size_t length = sprintf(text, "Content-Type: text/plain\r\n\r\n");
  const int download = strncmp(uri, "/download?bytes=", 16) == 0;
  if (body > 0) length += sprintf(text + length, "%ld", body);
  else if (!download) length += sprintf(text + length, "Hello, world");
  size_t end = record(out, STDOUT, id, text, length);
  memset(text, 'x', sizeof text);
  for (long left = download ? atol(uri + 16) : 0; left > 0; left -= MOST) {
    if (!put(fd, out, end)) return 0;
    end = record(out, STDOUT, id, text, left < MOST ? left : MOST);
  }
  end += record(out + end, STDOUT, id, NULL, 0);
  end += record(out + end, END, id, "\0\0\0\0\0\0\0", 8);
  return put(fd, out, end);
}

static void serve_fastcgi(input *in) {
  unsigned char header[8], begin[8] = {0}, params[65536];
  char uri[64] = "";
  long body = 0;
  while (take(in, header, 8)) {
    const size_t length = header[4] << 8 | header[5], padding = header[6];
    const int type = header[1];
    if (!take(in, type == BEGIN ? begin : type == PARAMS ? params : NULL, length)) return;
    if (!take(in, NULL, padding)) return;
    if (type == BEGIN) body = 0;
    if (type == PARAMS && length > 0) {
      const unsigned char *found = memmem(params, length, "REQUEST_URI", 11);
      const size_t n = found == NULL ? 0 : found[-1] < sizeof uri ? found[-1] : sizeof uri - 1;
      if (n > 0) memcpy(uri, found + 11, n);
      uri[n] = '\0';
    }
    if (type != STDIN) continue;
    body += length;
    if (length > 0) continue;
    if (!answer(in->fd, header + 2, uri, body) || !(begin[2] & 1)) return;
  }
}

static void serve_scgi(input *in) {
  static const char text[] = "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nHello, world";
  unsigned char byte = 0;
  size_t length = 0;
  while (take(in, &byte, 1) && byte != ':') length = length * 10 + byte - '0';
  if (take(in, NULL, length + 1)) put(in->fd, (const unsigned char *)text, sizeof text - 1);
}

static void (*serve)(input *);

static void *run(void *given) {
  input *in = given;
  serve(in);
  close(in->fd);
  free(in);
  return NULL;
}

int main(int argc, char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
  const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  serve = *argv[1] == 'f' ? serve_fastcgi : serve_scgi;
  signal(SIGPIPE, SIG_IGN);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (void *)&address, sizeof address) < 0 || listen(fd, 1024) < 0) return 1;
  for (;;) {
    pthread_t thread;
    input *in = malloc(sizeof *in);
    in->fd = accept(fd, NULL, NULL), in->at = in->end = 0;
    if (in->fd < 0) return 1;
    setsockopt(in->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_create(&thread, NULL, run, in);
    pthread_detach(thread);
  }
}
