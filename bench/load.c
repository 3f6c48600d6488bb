/* The load generator: sends the same request over and over, on one core, without an allocation per request.
 *
 *   load PROTOCOL PORT CONNECTIONS SECONDS MOST KEEP HOLD FILE HEAD BODY TIMES
 *
 * PROTOCOL  fastcgi, scgi or http: how to find the end of a response
 * SECONDS   how long to send requests
 * MOST      if not 0, how many responses end the run earlier
 * KEEP      1: a connection carries many requests; 0: each request has a new connection
 * HOLD      1: each connection carries one request and stays open; prints "open" when each has got a part of a
 *           response, and begins to count then
 * FILE      the request: HEAD bytes, then BODY bytes that are sent TIMES times, then the rest
 *
 * Prints its measurements as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FASTCGI, SCGI, HTTP };
enum { END_REQUEST = 3, STDOUT = 6 };
enum { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER };
enum { DIALED_AT_ONCE = 256, MOST_LATENCIES = 1 << 22 };

typedef struct {
  int fd, watched, open, pending, responses;
  size_t sent;
  uint64_t began;
  /* The response: received content, and content left in this record, chunk or body. */
  size_t got, left;
  int fault;
  unsigned char header[8];
  int header_length, padding;
  char line[128];
  size_t line_length;
  int state, lines, chunked;
} connection;

static int protocol, keep, hold, poller;
static struct sockaddr_in address = {.sin_family = AF_INET};
static char *request;
static size_t head, body, times, size;

static connection *connections;
static size_t count, dialed, opened;
static uint64_t requests, errors, reopened, content, events;
static size_t expected;
static uint32_t latencies[MOST_LATENCIES];
static size_t measured;

static uint64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/* Waits for the socket to be writable only while a part of the request is unsent. */
static void watch(connection *c, int writing) {
  if (c->watched == writing) return;
  struct epoll_event event = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
  if (epoll_ctl(poller, c->watched < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &event) < 0) fail("epoll_ctl");
  c->watched = writing;
}

static void send_request(connection *c) {
  const size_t end = size + body * times - body;
  while (c->sent < end) {
    size_t from, to;
    const size_t repeated = head + body * times;
    if (c->sent < head) from = c->sent, to = head;
    else if (c->sent < repeated) from = head + (c->sent - head) % body, to = head + body;
    else from = c->sent - repeated + head + body, to = size;
    const ssize_t n = send(c->fd, request + from, to - from, MSG_NOSIGNAL);
    if (n <= 0) break;
    c->sent += n;
  }
  watch(c, c->sent < end);
}

static void begin(connection *c) {
  c->sent = c->got = c->left = c->line_length = 0;
  c->fault = c->header_length = c->padding = c->state = c->lines = c->chunked = 0;
  c->pending = 1;
  send_request(c);
}

static void request_once(connection *c) {
  c->began = now(CLOCK_MONOTONIC);
  begin(c);
}

static void dial(connection *c) {
  const int on = 1;
  c->responses = 0;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(c->fd, (void *)&address, sizeof address) < 0 && errno != EINPROGRESS) fail("connect");
  c->watched = -1;
  begin(c);
}

static void dial_anew(connection *c) {
  c->began = now(CLOCK_MONOTONIC);
  dial(c);
}

static void receive_content(connection *c, const unsigned char *bytes, size_t length) {
  c->got += length;
  if (!hold) return;
  if (!c->open) {
    c->open = 1;
    if (dialed < count) dial_anew(&connections[dialed++]);
    if (++opened == count) puts("open"), fflush(stdout);
  }
  const unsigned char *end = bytes + length;
  while ((bytes = memchr(bytes, '~', end - bytes)) != NULL) bytes++, events += opened == count;
}

/* These functions decode bytes of a response and return whether it is complete: 2 if the server asks to close the
 * connection, by bytes that follow, as it does with nginx. */
static int receive_fastcgi(connection *c, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    if (c->header_length < 8) {
      c->header[c->header_length++] = *bytes++, length--;
      if (c->header_length < 8) continue;
      c->left = c->header[4] << 8 | c->header[5];
      c->padding = c->header[6];
    }
    size_t n = length < c->left ? length : c->left;
    if (c->header[1] == STDOUT) receive_content(c, bytes, n);
    /* The first five bytes are the status: zero if the request succeeded. */
    if (c->header[1] == END_REQUEST)
      for (size_t i = 0; i < n; i++) c->fault |= c->left - i > 3 && bytes[i] != 0;
    c->left -= n, bytes += n, length -= n;
    n = length < (size_t)c->padding ? length : (size_t)c->padding;
    c->padding -= n, bytes += n, length -= n;
    if (c->left > 0 || c->padding > 0) return 0;
    c->header_length = 0;
    if (c->header[1] == END_REQUEST) return length > 0 ? 2 : 1;
  }
  return 0;
}

static int receive_line(connection *c) {
  const char *line = c->line;
  switch (c->state) {
    case HEAD:
      if (c->lines++ == 0) c->fault |= strncmp(line, "HTTP/1.1 200", 12) != 0;
      else if (strncasecmp(line, "content-length:", 15) == 0) c->left = strtoul(line + 15, NULL, 10);
      else if (strncasecmp(line, "transfer-encoding:", 18) == 0) c->chunked = 1;
      else if (*line == '\0') c->state = c->chunked ? CHUNK_SIZE : BODY;
      return c->state == BODY && c->left == 0;
    case CHUNK_SIZE:
      c->left = strtoul(line, NULL, 16);
      c->state = c->left > 0 ? CHUNK : TRAILER;
      return 0;
    case CHUNK_END:
      c->state = CHUNK_SIZE;
      return 0;
    default:
      return *line == '\0';
  }
}

static int receive_http(connection *c, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    if (c->state == BODY || c->state == CHUNK) {
      const size_t n = length < c->left ? length : c->left;
      receive_content(c, bytes, n);
      c->left -= n, bytes += n, length -= n;
      if (c->left > 0) return 0;
      if (c->state == BODY) return 1;
      c->state = CHUNK_END;
      continue;
    }
    const char byte = *bytes++;
    length--;
    if (byte != '\n') {
      if (byte != '\r' && c->line_length < sizeof c->line - 1) c->line[c->line_length++] = byte;
      continue;
    }
    c->line[c->line_length] = '\0';
    c->line_length = 0;
    if (receive_line(c)) return 1;
  }
  return 0;
}

/* An SCGI response ends with its connection. */
static int receive_scgi(connection *c, const unsigned char *bytes, size_t length) {
  receive_content(c, bytes, length);
  return 0;
}

static void finish(connection *c, int closed) {
  if (expected == 0) expected = c->got;
  if (c->fault || c->got == 0 || (!hold && c->got != expected)) errors++;
  else {
    requests++;
    if (measured < MOST_LATENCIES) latencies[measured++] = now(CLOCK_MONOTONIC) - c->began;
  }
  content += c->got;
  c->pending = 0;
  c->responses++;
  if (hold) return;
  if (keep && !closed) {
    request_once(c);
    return;
  }
  close(c->fd);
  dial_anew(c);
}

static void receive(connection *c) {
  static unsigned char bytes[262144];
  const ssize_t n = read(c->fd, bytes, sizeof bytes);
  if (n < 0 && errno == EAGAIN) return;
  if (n > 0) {
    const int whole = protocol == FASTCGI ? receive_fastcgi(c, bytes, n)
                    : protocol == HTTP    ? receive_http(c, bytes, n)
                                          : receive_scgi(c, bytes, n);
    if (whole) finish(c, whole == 2);
    return;
  }
  if (protocol == SCGI && n == 0 && c->got > 0) {
    finish(c, 1);
    return;
  }
  if (hold) fail("Cannot keep a connection open: the server closed it");
  /* Some servers close kept connections: the request is then sent again. */
  if (c->responses > 0 && c->got == 0 && c->header_length == 0 && c->lines == 0) reopened++;
  else errors++;
  close(c->fd);
  dial(c);
}

static int by_size(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static uint32_t percentile(double share) {
  return measured == 0 ? 0 : latencies[(size_t)((measured - 1) * share)];
}

static void read_request(const char *path) {
  struct stat info;
  const int fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &info) < 0) fail(path);
  size = info.st_size;
  request = malloc(size);
  for (size_t at = 0; at < size;) {
    const ssize_t n = read(fd, request + at, size - at);
    if (n <= 0) fail(path);
    at += n;
  }
  close(fd);
}

int main(int argc, char **argv) {
  if (argc != 12) {
    fputs("usage: load PROTOCOL PORT CONNECTIONS SECONDS MOST KEEP HOLD FILE HEAD BODY TIMES\n", stderr);
    return 2;
  }
  protocol = *argv[1] == 'f' ? FASTCGI : *argv[1] == 's' ? SCGI : HTTP;
  address.sin_port = htons(atoi(argv[2]));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  count = atol(argv[3]);
  const uint64_t duration = atof(argv[4]) * 1e6, most = atol(argv[5]);
  keep = atoi(argv[6]), hold = atoi(argv[7]);
  read_request(argv[8]);
  head = atol(argv[9]), body = atol(argv[10]), times = atol(argv[11]);

  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  connections = calloc(count, sizeof *connections);
  poller = epoll_create1(0);
  uint64_t began = now(CLOCK_MONOTONIC), busy = now(CLOCK_PROCESS_CPUTIME_ID);
  while (dialed < count && dialed < DIALED_AT_ONCE) dial_anew(&connections[dialed++]);

  int counting = !hold;
  while (most == 0 || requests + errors < most) {
    struct epoll_event ready[256];
    const int n = epoll_wait(poller, ready, 256, 100);
    for (int i = 0; i < n; i++) {
      connection *c = ready[i].data.ptr;
      if (c->pending && ready[i].events & EPOLLOUT) send_request(c);
      if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
    }
    const uint64_t time = now(CLOCK_MONOTONIC);
    if (!counting && opened == count) counting = 1, began = time, busy = now(CLOCK_PROCESS_CPUTIME_ID);
    if (counting && time - began >= duration) break;
  }

  const double seconds = (now(CLOCK_MONOTONIC) - began) / 1e6;
  busy = now(CLOCK_PROCESS_CPUTIME_ID) - busy;
  qsort(latencies, measured, sizeof *latencies, by_size);
  printf("{\"requests\":%lu,\"errors\":%lu,\"reopened\":%lu,\"seconds\":%.6f,", requests, errors, reopened, seconds);
  printf("\"content\":%lu,\"events\":%lu,", content, events);
  printf("\"p50\":%u,\"p99\":%u,\"busy\":%.3f}\n", percentile(.5), percentile(.99), busy / 1e6 / seconds);
  return 0;
}
