/*
 * The load client of the socket benchmarks: any number of connections to one port of this machine, one thread, one epoll.
 *
 * Events  carry a marker, `~~` 10 digits `.` 16 digits `~`: a sequence number and the microsecond (CLOCK_MONOTONIC) at
 *         which they were published. Each stream must see the numbers follow each other: what is skipped counts as lost,
 *         what is not above the last one as repeated. A marker may be cut anywhere, between reads and between chunks.
 * Use     load PORT http|raw|h2 STREAMS REQUEST-HEX READY-HEX; then a command a line on stdin, an answer a line on stdout:
 *           open COUNT BASE MS      opens connections whose next event is BASE + 1, within MS milliseconds
 *           stall COUNT BASE MS     the same; once they are ready they read nothing more
 *           wait SEQ MS             until every stream that reads has seen event SEQ
 *           stats                   what was received since the last time
 *           close                   closes all
 *         It ends when stdin does.
 * Modes   http: a response with status 200, chunked or not. raw: events come after the READY bytes. h2: HTTP/2 with
 *         STREAMS streams on each connection, opened by the REQUEST bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

#define MARKER 30
#define HEAD_MAX 8192
#define IN_FLIGHT 128

enum mode { HTTP, RAW, H2 };
enum phase { CONNECTING, HEAD, BODY, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, FRAME_HEAD, FRAME_DATA, CLOSED };

struct stream {
  uint32_t last;
  uint8_t carried;
  bool ready;
  char carry[MARKER];
};

struct conn {
  int fd;
  enum phase phase;
  bool stalled;
  bool ready;
  uint32_t sent;
  uint32_t left;       /* bytes of this chunk or frame still to come */
  uint32_t stream;     /* of the frame at hand */
  uint32_t streams_ready;
  uint8_t frame[9];
  uint8_t frame_have;
  char *head;
  uint32_t head_have;
  struct stream *streams;
};

static enum mode mode;
static int port, epoll_fd;
static uint32_t per_conn;
static uint8_t *request, *ready_mark;
static size_t request_size, ready_size;

static struct conn **conns;
static uint32_t count, capacity;

/* The command at work. */
static enum { NOTHING, OPENING, WAITING } task;
static uint64_t deadline;
static uint32_t to_open, opening, opened, open_base;
static bool open_stalled;
static uint32_t wait_seq, wait_short;
static char failure[160];

/* What was received. */
static uint64_t events, bytes, lost, repeated, gone, latest;
static uint64_t buckets[64 * 32];
static uint64_t now_us;

static char input[1 << 18];

static uint64_t clock_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* 32 buckets for each power of two: 3 % apart. */
static unsigned bucket_of(uint64_t us) {
  if (us < 32) return (unsigned)us;
  unsigned power = 63 - (unsigned)__builtin_clzll(us);
  return (power - 4) * 32 + (unsigned)((us >> (power - 5)) & 31);
}

static uint64_t bucket_value(unsigned bucket) {
  if (bucket < 32) return bucket;
  unsigned power = bucket / 32 + 4;
  return (1ull << power) + ((uint64_t)(bucket % 32) << (power - 5));
}

static uint64_t percentile(double share) {
  uint64_t wanted = (uint64_t)((double)events * share), seen = 0;
  for (unsigned n = 0; n < sizeof buckets / sizeof *buckets; n++) {
    seen += buckets[n];
    if (seen > wanted) return bucket_value(n);
  }
  return latest;
}

static void saw(struct conn *c, struct stream *s, uint32_t seq, uint64_t sent_us) {
  uint64_t us = now_us > sent_us ? now_us - sent_us : 0;
  events++;
  buckets[bucket_of(us)]++;
  if (us > latest) latest = us;
  if (seq <= s->last) {
    repeated++;
    return;
  }
  lost += seq - s->last - 1;
  if (task == WAITING && !c->stalled && s->last < wait_seq && seq >= wait_seq) wait_short--;
  s->last = seq;
}

static bool parse_marker(const char *p, uint32_t *seq, uint64_t *us) {
  if (p[0] != '~' || p[1] != '~' || p[12] != '.' || p[29] != '~') return false;
  uint64_t n = 0;
  for (int i = 2; i < 12; i++) {
    if (p[i] < '0' || p[i] > '9') return false;
    n = n * 10 + (uint64_t)(p[i] - '0');
  }
  *seq = (uint32_t)n;
  n = 0;
  for (int i = 13; i < 29; i++) {
    if (p[i] < '0' || p[i] > '9') return false;
    n = n * 10 + (uint64_t)(p[i] - '0');
  }
  *us = n;
  return true;
}

static void scan(struct conn *c, struct stream *s, const char *p, size_t size) {
  uint32_t seq;
  uint64_t us;
  while (s->carried > 0 && size > 0) {
    size_t take = MARKER - s->carried;
    if (take > size) take = size;
    memcpy(s->carry + s->carried, p, take);
    if (s->carried + take < MARKER) {
      s->carried += (uint8_t)take;
      return;
    }
    if (parse_marker(s->carry, &seq, &us)) {
      saw(c, s, seq, us);
      s->carried = 0;
      p += take;
      size -= take;
      break;
    }
    /* Not a marker after all: the next one may begin within what was carried. */
    char *next = memchr(s->carry + 1, '~', s->carried - 1u);
    if (!next) {
      s->carried = 0;
      break;
    }
    s->carried -= (uint8_t)(next - s->carry);
    memmove(s->carry, next, s->carried);
  }
  const char *end = p + size;
  while (p < end) {
    p = memchr(p, '~', (size_t)(end - p));
    if (!p) return;
    if (end - p < MARKER) {
      s->carried = (uint8_t)(end - p);
      memcpy(s->carry, p, s->carried);
      return;
    }
    if (parse_marker(p, &seq, &us)) {
      saw(c, s, seq, us);
      p += MARKER;
    } else {
      p++;
    }
  }
}

static void stop_reading(struct conn *c) { epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL); }

static void is_ready(struct conn *c) {
  c->ready = true;
  opening--;
  opened++;
  free(c->head);
  c->head = NULL;
  if (c->stalled) stop_reading(c);
}

/* Closes a connection; the kernel forgets it at once, so that ports do not run out. */
static void drop(struct conn *c) {
  if (c->phase == CLOSED) return;
  struct linger hard = {1, 0};
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close(c->fd);
  c->phase = CLOSED;
}

static void broke(struct conn *c, const char *why) {
  if (c->phase == CLOSED) return;
  if (!failure[0]) snprintf(failure, sizeof failure, "%s", why);
  if (!c->ready) opening--;
  gone++;
  if (task == WAITING && !c->stalled)
    for (uint32_t n = 0; n < per_conn; n++) wait_short -= c->streams[n].last < wait_seq;
  drop(c);
}

static size_t read_head(struct conn *c, const char *p, size_t size) {
  if (!c->head) c->head = malloc(HEAD_MAX + 1);
  size_t before = c->head_have, take = size;
  if (before + take > HEAD_MAX) take = HEAD_MAX - before;
  memcpy(c->head + before, p, take);
  c->head_have += (uint32_t)take;
  char *mark = memmem(c->head, c->head_have, ready_mark, ready_size);
  if (!mark) {
    if (c->head_have == HEAD_MAX) broke(c, "the answer had no end of its head");
    return take;
  }
  size_t used = (size_t)(mark - c->head) + ready_size - before;
  *mark = 0;
  c->phase = BODY;
  if (mode == HTTP) {
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0) {
      char *line = strchr(c->head, '\r');
      if (line) *line = 0;
      char why[120];
      snprintf(why, sizeof why, "answered %.90s", c->head);
      for (char *at = why; *at; at++)
        if (*at == '"' || *at == '\\' || *at < ' ') *at = ' ';
      broke(c, why);
      return size;
    }
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) c->phase = CHUNK_SIZE;
  }
  is_ready(c);
  return used;
}

static int hex(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  digit |= 32;
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static void reply(struct conn *c, const void *frame, size_t size) {
  if (send(c->fd, frame, size, MSG_NOSIGNAL) != (ssize_t)size) broke(c, "took no control frame");
}

static void read_frame_head(struct conn *c) {
  const uint8_t *f = c->frame;
  c->left = (uint32_t)f[0] << 16 | (uint32_t)f[1] << 8 | f[2];
  c->stream = ((uint32_t)(f[5] & 127) << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8]) / 2;
  c->frame_have = 0;
  uint8_t type = f[3], flags = f[4];
  if (type == 4 && !(flags & 1)) {
    static const uint8_t ack[9] = {0, 0, 0, 4, 1};
    reply(c, ack, sizeof ack);
  }
  if (c->phase == CLOSED) return;
  if (type == 3 || type == 7) return broke(c, type == 3 ? "a stream was reset" : "the peer said GOAWAY");
  if (c->stream >= per_conn) return broke(c, "a frame names an unknown stream");
  if ((type == 0 || type == 1) && flags & 1) return broke(c, "a stream was ended");
  if (type == 0 && c->left > 0 && !c->streams[c->stream].ready) {
    c->streams[c->stream].ready = true;
    if (++c->streams_ready == per_conn) is_ready(c);
  }
  if (c->left > 0 && c->phase != CLOSED) c->phase = FRAME_DATA;
}

static void take(struct conn *c, const char *p, size_t size) {
  const char *end = p + size;
  while (p < end && c->phase != CLOSED) {
    size_t rest = (size_t)(end - p), part;
    switch (c->phase) {
    case HEAD:
      p += read_head(c, p, rest);
      break;
    case BODY:
      scan(c, c->streams, p, rest);
      return;
    case CHUNK_SIZE:
      if (hex(*p) >= 0) {
        if (c->left >> 27) return broke(c, "a chunk is too large");
        c->left = c->left * 16 + (uint32_t)hex(*p++);
      } else {
        c->phase = CHUNK_EXTENSION;
      }
      break;
    case CHUNK_EXTENSION:
      if (*p++ != '\n') break;
      if (c->left == 0) return broke(c, "the response ended");
      c->phase = CHUNK_DATA;
      break;
    case CHUNK_DATA:
      part = rest < c->left ? rest : c->left;
      scan(c, c->streams, p, part);
      p += part;
      c->left -= (uint32_t)part;
      if (c->left == 0) c->phase = CHUNK_END;
      break;
    case CHUNK_END:
      if (*p == '\n') c->phase = CHUNK_SIZE;
      else if (*p != '\r') return broke(c, "a chunk is longer than it says");
      p++;
      break;
    case FRAME_HEAD:
      c->frame[c->frame_have++] = (uint8_t)*p++;
      if (c->frame_have == 9) read_frame_head(c);
      break;
    case FRAME_DATA:
      part = rest < c->left ? rest : c->left;
      if (c->frame[3] == 0) scan(c, &c->streams[c->stream], p, part);
      p += part;
      c->left -= (uint32_t)part;
      if (c->left == 0) c->phase = FRAME_HEAD;
      break;
    default:
      return;
    }
  }
}

static void send_request(struct conn *c) {
  while (c->sent < request_size) {
    ssize_t n = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) return broke(c, strerror(errno));
    c->sent += (uint32_t)n;
  }
  struct epoll_event want = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &want);
  c->phase = mode == H2 ? FRAME_HEAD : HEAD;
}

static void open_one(void) {
  if (count == capacity) conns = realloc(conns, sizeof *conns * (capacity = capacity ? capacity * 2 : 1024));
  struct conn *c = calloc(1, sizeof *c);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  to_open--;
  if (c->fd < 0) {
    snprintf(failure, sizeof failure, "socket: %s", strerror(errno));
    to_open = 0;
    free(c);
    return;
  }
  c->streams = calloc(per_conn, sizeof *c->streams);
  for (uint32_t n = 0; n < per_conn; n++) c->streams[n].last = open_base;
  c->stalled = open_stalled;
  conns[count++] = c;
  opening++;
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (c->stalled) {
    /* Loopback's segments of 64 kB let the kernel keep megabytes for a socket; those of a real network do not. */
    int segment = 1460, window = 4096;
    setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
  }
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct epoll_event want = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &want);
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) broke(c, strerror(errno));
}

static void ready_event(struct conn *c, uint32_t what) {
  if (c->phase == CLOSED) return;
  if (c->phase == CONNECTING) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) return broke(c, strerror(error));
    if (what & EPOLLOUT) send_request(c);
    return;
  }
  ssize_t n = recv(c->fd, input, sizeof input, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) return broke(c, strerror(errno));
  if (n == 0) return broke(c, "the connection was closed");
  bytes += (uint64_t)n;
  now_us = clock_us();
  take(c, input, (size_t)n);
}

static void answer_open(void) {
  printf("{\"open\":%u,\"missing\":%u,\"gone\":%llu,\"failure\":\"%s\"}\n", opened, to_open + opening,
         (unsigned long long)gone, failure);
}

static void answer_wait(void) {
  printf("{\"short\":%u,\"lost\":%llu,\"repeated\":%llu,\"gone\":%llu,\"failure\":\"%s\"}\n", wait_short,
         (unsigned long long)lost, (unsigned long long)repeated, (unsigned long long)gone, failure);
}

static void answer_stats(void) {
  printf("{\"events\":%llu,\"bytes\":%llu,\"p50\":%llu,\"p99\":%llu,\"max\":%llu,\"lost\":%llu,\"repeated\":%llu,"
         "\"gone\":%llu,\"failure\":\"%s\"}\n",
         (unsigned long long)events, (unsigned long long)bytes, (unsigned long long)percentile(0.5),
         (unsigned long long)percentile(0.99), (unsigned long long)latest, (unsigned long long)lost,
         (unsigned long long)repeated, (unsigned long long)gone, failure);
  events = bytes = latest = 0;
  memset(buckets, 0, sizeof buckets);
}

static void close_all(void) {
  for (uint32_t n = 0; n < count; n++) {
    drop(conns[n]);
    free(conns[n]->head);
    free(conns[n]->streams);
    free(conns[n]);
  }
  count = opened = 0;
  puts("{}");
}

static void command(const char *line) {
  unsigned a = 0, b = 0, ms = 0;
  if (sscanf(line, "open %u %u %u", &a, &b, &ms) == 3 || sscanf(line, "stall %u %u %u", &a, &b, &ms) == 3) {
    task = OPENING;
    to_open = a;
    open_base = b;
    open_stalled = *line == 's';
  } else if (sscanf(line, "wait %u %u", &a, &ms) == 2) {
    task = WAITING;
    wait_seq = a;
    wait_short = 0;
    for (uint32_t n = 0; n < count; n++) {
      if (conns[n]->stalled || conns[n]->phase == CLOSED) continue;
      for (uint32_t m = 0; m < per_conn; m++) wait_short += conns[n]->streams[m].last < wait_seq;
    }
  } else if (strcmp(line, "stats") == 0) {
    answer_stats();
  } else if (strcmp(line, "close") == 0) {
    close_all();
  } else {
    printf("{\"failure\":\"unknown command\"}\n");
  }
  deadline = clock_us() + (uint64_t)ms * 1000;
}

static void go_on(void) {
  if (task == OPENING) {
    while (to_open > 0 && opening < IN_FLIGHT) open_one();
    if (to_open + opening > 0 && clock_us() < deadline && !failure[0]) return;
    answer_open();
    task = NOTHING;
  } else if (task == WAITING) {
    if (wait_short > 0 && clock_us() < deadline) return;
    answer_wait();
    task = NOTHING;
  }
}

/* The whole of stdin that there is; a command is worked at when the one before it was answered. */
static bool read_commands(void) {
  static char text[4096];
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

static uint8_t *unhex(const char *text, size_t *size) {
  *size = strlen(text) / 2;
  uint8_t *out = malloc(*size + 1);
  for (size_t n = 0; n < *size; n++) out[n] = (uint8_t)(hex(text[2 * n]) << 4 | hex(text[2 * n + 1]));
  return out;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "use: load PORT http|raw|h2 STREAMS REQUEST-HEX READY-HEX\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  port = atoi(argv[1]);
  mode = strcmp(argv[2], "http") == 0 ? HTTP : strcmp(argv[2], "raw") == 0 ? RAW : H2;
  per_conn = (uint32_t)atoi(argv[3]);
  request = unhex(argv[4], &request_size);
  ready_mark = unhex(argv[5], &ready_size);
  epoll_fd = epoll_create1(0);
  struct epoll_event want = {.events = EPOLLIN};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &want);
  static struct epoll_event found[512];
  while (true) {
    int n = epoll_wait(epoll_fd, found, 512, task == NOTHING ? -1 : 20);
    for (int i = 0; i < n; i++) {
      if (found[i].data.ptr) {
        ready_event(found[i].data.ptr, found[i].events);
        continue;
      }
      if (!read_commands()) return 0;
      break; /* It may have closed those that the other events are about; what is left comes again. */
    }
    go_on();
  }
}
