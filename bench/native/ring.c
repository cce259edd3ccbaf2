/*
 * The twin of the shared ring in C11: what the protocol of packages/spillway/src/shared/layout.ts costs without
 * JavaScript. Pages, table, claim, validation, publishing and the wait flag are the same; positions have 64 bits where
 * that is simpler, and the bytes of a record are read while they may be written, as there, and thrown away then.
 *
 * Use     ring stream RING READERS BATCH AHEAD THOROUGH RECORDS WARMUP MS SIZE...
 *           One writer, READERS readers, a ring of RING bytes, published per BATCH records or 32 KiB. AHEAD: how many
 *           records the writer may be before the slowest reader, 0: any. RECORDS 0: for WARMUP + MS milliseconds.
 *         ring wake COUNT SIZE
 *           A record each millisecond to a reader that sleeps: microseconds until it has it.
 *         Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOG_PAGE 14
#define SPAN 65536u
#define MAX_PENDING_BYTES 32768u
#define MAX_READERS 16
#define MAX_SIZES 8
/* Looks before it sleeps: 2x at 64 bytes with one reader, and what a reader without JavaScript would do. */
#define SPIN 1000

enum { BATCH_RECORD, PAD_RECORD, CLOSED_RECORD };

struct header {
  uint32_t length, type;
  uint64_t seq, index;
  uint32_t key, events;
};

struct entry {
  uint64_t position, seq, index, unused;
};

static struct {
  _Alignas(128) _Atomic uint32_t tail; /* in units of 8 bytes */
  uint64_t newest, newest_index;
  _Alignas(128) _Atomic uint32_t wait;
  _Alignas(128) _Atomic uint64_t intent; /* how many pages were ever claimed */
} cells;

static struct {
  _Alignas(128) _Atomic uint64_t records;
} progress[MAX_READERS];

static uint8_t *data;
static struct entry *table;
static uint64_t capacity, pages, largest;

static uint8_t *payloads[MAX_SIZES];
static uint32_t sizes[MAX_SIZES];
static uint64_t mask;
static bool thorough;
static double *times; /* of each record, for wake */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void rest(long nanoseconds) {
  nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static uint64_t record_bytes(uint64_t length) { return sizeof(struct header) + ((length + 7) & ~7ull); }

static void make(uint64_t bytes) {
  capacity = bytes;
  pages = bytes >> LOG_PAGE;
  largest = bytes / 8;
  data = aligned_alloc(4096, capacity);
  table = calloc(pages, sizeof *table);
  memset(data, 0, capacity);
}

static void make_payloads(int count, char **texts) {
  if (count < 1 || count > MAX_SIZES || (count & (count - 1))) exit(2);
  mask = count - 1;
  for (int k = 0; k < count; k++) {
    sizes[k] = atoi(texts[k]);
    payloads[k] = malloc(sizes[k] + 1);
    for (uint32_t i = 0; i < sizes[k]; i++) payloads[k][i] = i ? 'a' + (k * 31 + i * 7) % 26 : '0' + k;
  }
}

/* The writer. */

static struct {
  uint64_t position, claimed, filled, seq, index;
  uint32_t pending, pending_bytes, batch;
} writer;

static void publish(void) {
  if (!writer.pending) return;
  writer.pending = writer.pending_bytes = 0;
  cells.newest = writer.seq - 1;
  cells.newest_index = writer.index;
  uint32_t awaited = atomic_load(&cells.wait);
  if (awaited) atomic_store(&cells.wait, 0);
  atomic_store(&cells.tail, (uint32_t)(writer.position / 8));
  if (awaited || atomic_load(&cells.wait)) {
    syscall(SYS_futex, &cells.tail, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  }
}

static void claim(uint64_t size, uint64_t seq, uint64_t index) {
  uint64_t upto = ((writer.position + size - 1) >> LOG_PAGE) + 1;
  if (upto > writer.claimed) {
    atomic_fetch_add(&cells.intent, upto - writer.claimed);
    writer.claimed = upto;
  }
  for (; writer.filled < upto; writer.filled++) {
    struct entry *entry = &table[writer.filled % pages];
    if (writer.filled << LOG_PAGE == writer.position) {
      *entry = (struct entry){writer.position, writer.seq, writer.index, 0};
    } else {
      *entry = (struct entry){writer.position + size, seq, index, 0};
    }
  }
}

static void moved(uint64_t size) {
  writer.position += size;
  writer.pending_bytes += size;
}

static void append(const uint8_t *payload, uint32_t length, uint64_t index, uint32_t type) {
  uint64_t size = record_bytes(length), room = capacity - (writer.position & (capacity - 1));
  if (size > largest) abort();
  if (size > room) {
    claim(room, writer.seq, writer.index);
    uint32_t *pad = (uint32_t *)(data + (writer.position & (capacity - 1)));
    pad[0] = room;
    pad[1] = PAD_RECORD;
    moved(room);
  }
  uint64_t next = writer.seq + (type == BATCH_RECORD);
  claim(size, next, index);
  uint8_t *at = data + (writer.position & (capacity - 1));
  *(struct header *)at = (struct header){length, type | 1 << 16, writer.seq, index, 1, 1};
  memcpy(at + sizeof(struct header), payload, length);
  writer.seq = next;
  writer.index = index;
  moved(size);
  if (++writer.pending >= writer.batch || writer.pending_bytes >= MAX_PENDING_BYTES) publish();
}

/* A reader. */

struct reader {
  pthread_t thread;
  int number;
  uint64_t position, seq, got, lost, wrong;
  uint8_t *span;
};

static bool gone(uint64_t page, uint64_t intent) { return (int64_t)(intent - page) > (int64_t)pages; }

/* To the oldest place that is kept, and some pages further: the writer is at its heels. */
static void jump(struct reader *r) {
  for (uint64_t slack = pages / 8;; slack += pages / 8) {
    uint32_t tail = atomic_load(&cells.tail);
    uint64_t intent = atomic_load(&cells.intent), claimed_end = intent << LOG_PAGE;
    uint64_t end = claimed_end - (uint64_t)(uint32_t)((uint32_t)(claimed_end / 8) - tail) * 8;
    uint64_t newest = ((end + (1 << LOG_PAGE) - 1) >> LOG_PAGE) - 1, oldest = intent - pages + slack;
    if (oldest > newest) oldest = newest;
    struct entry entry = table[oldest % pages];
    if (gone(oldest, atomic_fetch_add(&cells.intent, 0))) continue;
    r->lost += entry.seq - r->seq;
    r->position = entry.position;
    r->seq = entry.seq;
    return;
  }
}

static bool is_right(const struct reader *r, const struct header *h) {
  const uint8_t *payload = (const uint8_t *)(h + 1);
  uint64_t k = h->seq & mask;
  if (h->seq != r->got + r->lost || h->length != sizes[k] || payload[0] != '0' + k) return false;
  return !thorough || memcmp(payload, payloads[k], sizes[k]) == 0;
}

/* Reads all there is; answers whether that was the end. */
static bool drain(struct reader *r) {
  for (;;) {
    uint64_t ahead = (uint64_t)(uint32_t)(atomic_load(&cells.tail) - (uint32_t)(r->position / 8)) * 8;
    if (!ahead) {
      if (!gone(r->position >> LOG_PAGE, atomic_load(&cells.intent))) return false;
      jump(r);
      continue;
    }
    uint64_t offset = r->position & (capacity - 1), available = capacity - offset, end = 0;
    if (available > ahead) available = ahead;
    for (uint64_t most = SPAN; !end; most = largest) {
      uint64_t length = available < most ? available : most;
      memcpy(r->span, data + offset, length);
      if (gone(r->position >> LOG_PAGE, atomic_fetch_add(&cells.intent, 0))) break;
      while (end < length) {
        const struct header *h = (const struct header *)(r->span + end);
        uint64_t size = (h->type & 0xff) == PAD_RECORD ? h->length : record_bytes(h->length);
        if (end + size > length) break;
        if ((h->type & 0xff) == CLOSED_RECORD) return true;
        if ((h->type & 0xff) == BATCH_RECORD) {
          if (times) times[r->got] = now() - times[r->got];
          if (!is_right(r, h)) r->wrong++;
          r->got++;
          r->seq = h->seq + 1;
        }
        end += size;
      }
    }
    if (!end) jump(r);
    r->position += end;
    atomic_store_explicit(&progress[r->number].records, r->got + r->lost, memory_order_release);
  }
}

static void *read_all(void *about) {
  struct reader *r = about;
  while (!drain(r)) {
    uint32_t seen = r->position / 8;
    bool moved = false;
    for (int n = 0; n < SPIN && !moved; n++) {
      relax();
      moved = atomic_load_explicit(&cells.tail, memory_order_relaxed) != seen;
    }
    if (moved) continue;
    atomic_store(&cells.wait, 1);
    syscall(SYS_futex, &cells.tail, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  }
  atomic_store(&progress[r->number].records, r->got + r->lost);
  return NULL;
}

static struct reader readers[MAX_READERS];

static void start(int count) {
  for (int n = 0; n < count; n++) {
    readers[n].number = n;
    readers[n].span = malloc(largest > SPAN ? largest : SPAN);
    pthread_create(&readers[n].thread, NULL, read_all, &readers[n]);
  }
}

static void finish(int count) {
  append((const uint8_t *)"", 0, writer.index, CLOSED_RECORD);
  publish();
  for (int n = 0; n < count; n++) pthread_join(readers[n].thread, NULL);
}

static uint64_t slowest(int count) {
  uint64_t least = UINT64_MAX;
  for (int n = 0; n < count; n++) {
    uint64_t one = atomic_load(&progress[n].records);
    if (one < least) least = one;
  }
  return least;
}

/* As src/threads/pacer.ts does: looks for 20 us, then sleeps 50 us at a time. */
static void pace(uint64_t upto, uint64_t ahead, int count) {
  static uint64_t known;
  if (upto - known < ahead) return;
  known = slowest(count);
  double started = now();
  while (upto - known >= ahead) {
    if (now() - started > 20) rest(50000);
    known = slowest(count);
  }
}

static int stream(char **args, int count) {
  if (count < 9) return 2;
  make(strtoull(args[0], NULL, 10));
  int reading = atoi(args[1]);
  if (reading < 1 || reading > MAX_READERS) return 2;
  writer.batch = atoi(args[2]);
  uint64_t ahead = strtoull(args[3], NULL, 10), records = strtoull(args[5], NULL, 10), written = 0, before = 0;
  thorough = atoi(args[4]);
  double warmup = atof(args[6]) * 1e3, ms = atof(args[7]) * 1e3;
  make_payloads(count - 8, args + 8);
  start(reading);
  uint64_t step = ahead && ahead / 4 < 64 ? ahead / 4 : 64;
  if (!step) step = 1;
  double started = now(), warm_at = started + warmup, end = warm_at + ms;
  bool warm = false;
  while (!records || written < records) {
    if (ahead) pace(written + step, ahead, reading);
    uint64_t upto = written + step;
    if (records && upto > records) upto = records;
    for (; written < upto; written++) {
      uint64_t k = written & mask;
      append(payloads[k], sizes[k], written + 1, BATCH_RECORD);
    }
    double time = now();
    if (!records && time >= end) break;
    if (!warm && time >= warm_at) {
      warm = true;
      started = time;
      before = slowest(reading);
    }
  }
  finish(reading);
  double seconds = (now() - started) / 1e6;
  printf("{\"records\":%llu,\"rate\":%.1f,\"accounts\":[", (unsigned long long)written, (written - before) / seconds);
  for (int n = 0; n < reading; n++) {
    printf("%s{\"got\":%llu,\"lost\":%llu,\"wrong\":%llu}", n ? "," : "", (unsigned long long)readers[n].got,
           (unsigned long long)readers[n].lost, (unsigned long long)readers[n].wrong);
  }
  puts("]}");
  return 0;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int wake(char **args, int count) {
  if (count < 2) return 2;
  int records = atoi(args[0]), skipped = records / 4, left = records - skipped;
  make(1 << 22);
  writer.batch = 1;
  make_payloads(1, args + 1);
  times = calloc(records, sizeof *times);
  start(1);
  for (int n = 0; n < records; n++) {
    rest(1000000);
    times[n] = now();
    append(payloads[0], sizes[0], n + 1, BATCH_RECORD);
  }
  finish(1);
  if (readers[0].got != (uint64_t)records || readers[0].wrong) return 1;
  qsort(times + skipped, left, sizeof *times, by_size);
  printf("{\"p50\":%.3f,\"p99\":%.3f}\n", times[skipped + left / 2], times[skipped + left * 99 / 100]);
  return 0;
}

int main(int count, char **args) {
  if (count > 2 && !strcmp(args[1], "stream")) return stream(args + 2, count - 2);
  if (count > 2 && !strcmp(args[1], "wake")) return wake(args + 2, count - 2);
  return 2;
}
