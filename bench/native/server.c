/*
 * The floor of the socket benchmarks: one thread, one epoll, a `write` for each event and connection.
 *
 * Use     server; it prints its port. Commands, a line each on stdin:
 *           p COUNT   publishes events, each on its own
 *           b COUNT   publishes them together, as one write for each connection
 *           c         prints how many connections are served
 *         It ends when stdin does.
 * Slow    Events are kept in one ring; a connection has a place in it, goes on from there when it takes bytes again,
 *         and is closed if the ring overtakes it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RING (64u << 20)
#define PAYLOAD 200

struct conn {
  int fd;
  uint32_t at; /* in the list of those that are served */
  bool served, blocked;
  uint64_t place;
};

static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n:ok\n\n";

static int epoll_fd, listener;
static struct conn **served;
static uint32_t count, capacity;
static char *ring;
static uint64_t written;
static unsigned long long seq;

static void watch(int fd, void *about, uint32_t what, int how) {
  struct epoll_event want = {.events = what, .data.ptr = about};
  epoll_ctl(epoll_fd, how, fd, &want);
}

static void drop(struct conn *c) {
  if (c->served) {
    served[c->at] = served[--count];
    served[c->at]->at = c->at;
  }
  close(c->fd);
  free(c);
}

/* False: the connection is gone. */
static bool send_rest(struct conn *c) {
  if (written - c->place > RING) return drop(c), false;
  while (c->place < written) {
    uint64_t at = c->place % RING, size = written - c->place;
    if (size > RING - at) size = RING - at;
    ssize_t n = send(c->fd, ring + at, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      if (!c->blocked) watch(c->fd, c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
      c->blocked = true;
      return true;
    }
    if (n < 0) return drop(c), false;
    c->place += (uint64_t)n;
  }
  if (c->blocked) watch(c->fd, c, EPOLLIN, EPOLL_CTL_MOD);
  c->blocked = false;
  return true;
}

static void send_all(void) {
  for (uint32_t n = 0; n < count;) {
    struct conn *c = served[n];
    if (c->blocked || send_rest(c)) n++;
  }
}

static void append(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  unsigned long long us = (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000;
  char event[PAYLOAD + 64];
  int size = sprintf(event, "id: %llu\ndata: ", ++seq);
  int start = size;
  size += sprintf(event + size, "{\"m\":\"~~%010llu.%016llu~\",\"pad\":\"", seq, us);
  while (size - start < PAYLOAD - 2) event[size++] = 'x';
  size += sprintf(event + size, "\"}\n\n");
  for (int n = 0; n < size; n++) ring[written++ % RING] = event[n];
}

static void command(const char *line) {
  unsigned events = (unsigned)atoi(line + 1);
  if (*line == 'c') {
    printf("%u\n", count);
  } else {
    for (unsigned n = 0; n < events; n++) {
      append();
      if (*line == 'p') send_all();
    }
    if (*line == 'b') send_all();
  }
}

static bool read_commands(void) {
  static char text[65536];
  static size_t have;
  ssize_t n = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
  if (n <= 0) return false;
  have += (size_t)n;
  text[have] = 0;
  char *line = text, *end;
  while ((end = strchr(line, '\n'))) {
    *end = 0;
    command(line);
    line = end + 1;
  }
  have -= (size_t)(line - text);
  memmove(text, line, have);
  return true;
}

static void welcome(void) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0) return;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct conn *c = calloc(1, sizeof *c);
  c->fd = fd;
  watch(fd, c, EPOLLIN, EPOLL_CTL_ADD);
}

static void hear(struct conn *c, uint32_t what) {
  char request[4096];
  if (what & EPOLLOUT && !send_rest(c)) return;
  if (!(what & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  ssize_t n = recv(c->fd, request, sizeof request, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return drop(c);
  /* A request comes whole: it is one small write of a program on this machine. */
  if (c->served || send(c->fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) return;
  if (count == capacity) served = realloc(served, sizeof *served * (capacity = capacity ? capacity * 2 : 1024));
  c->served = true;
  c->place = written;
  c->at = count;
  served[count++] = c;
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  ring = malloc(RING);
  epoll_fd = epoll_create1(0);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in at = {.sin_family = AF_INET};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 511) < 0) return 1;
  socklen_t size = sizeof at;
  getsockname(listener, (struct sockaddr *)&at, &size);
  printf("%u\n", ntohs(at.sin_port));
  watch(STDIN_FILENO, NULL, EPOLLIN, EPOLL_CTL_ADD);
  watch(listener, &listener, EPOLLIN, EPOLL_CTL_ADD);
  static struct epoll_event found[512];
  while (true) {
    int n = epoll_wait(epoll_fd, found, 512, -1);
    for (int i = 0; i < n; i++) {
      void *about = found[i].data.ptr;
      if (about == &listener) {
        welcome();
      } else if (about) {
        hear(about, found[i].events);
      } else {
        if (!read_commands()) return 0;
        break; /* It may have dropped those that the other events are about; what is left comes again. */
      }
    }
  }
}
