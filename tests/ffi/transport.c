// Engines, regions, windows, transfers.
#define _GNU_SOURCE
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BYTES (1 << 20)

static tranship_engine_t *sender, *receiver;

static void fill(unsigned char *data, size_t len, unsigned seed) {
  for (size_t i = 0; i < len; i++) data[i] = (unsigned char)(seed + i * 7 + (i >> 9));
}

static unsigned char *bytes_of(tranship_region_t *region, size_t expected) {
  void *data = NULL;
  size_t len = 0;
  OK(tranship_region_data(region, &data, &len));
  CHECK(data != NULL && len == expected);
  return data;
}

static tranship_remote_t *open_window(tranship_window_t *window, uint64_t expected) {
  unsigned char descriptor[4096];
  size_t len = 0, asked = 0;
  OK(tranship_window_descriptor(window, NULL, 0, &asked));
  IS(TRANSHIP_TOO_SMALL, tranship_window_descriptor(window, descriptor, asked - 1, NULL));
  OK(tranship_window_descriptor(window, descriptor, sizeof descriptor, &len));
  CHECK(len == asked);
  tranship_remote_t *remote = NULL;
  OK(tranship_remote_open(sender, descriptor, len, &remote));
  uint64_t bytes = 0;
  OK(tranship_remote_len(remote, &bytes));
  CHECK(bytes == expected);
  char address[128];
  OK(tranship_remote_address(remote, address, sizeof address, NULL));
  CHECK(strchr(address, ':') != NULL);
  return remote;
}

static void waits_for_its_end(tranship_region_t *source, tranship_remote_t *to, unsigned char *there) {
  tranship_counter_t *arrivals = NULL;
  OK(tranship_counter_open(receiver, &arrivals));
  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.flags = TRANSHIP_SUBMIT_IMMEDIATE;
  OK(tranship_counter_slot(arrivals, &options.slot));
  unsigned char *here = bytes_of(source, BYTES);
  fill(here, BYTES, 1);
  OK(tranship_write(sender, source, 100, to, 200, 5000, &options, NULL));
  uint64_t count = 0;
  OK(tranship_counter_wait(arrivals, 1, LONG, &count));
  CHECK(count == 1 && memcmp(there + 200, here + 100, 5000) == 0);
  SAYS(TRANSHIP_TIMEOUT, "1 of 2 arrivals", tranship_counter_wait(arrivals, 2, 0, &count));
  OK(tranship_read(sender, to, 200, source, 0, 5000, NULL, NULL));
  CHECK(memcmp(here, there + 200, 5000) == 0);
  // An immediate alone, and none for an owner that is gone.
  char address[128];
  OK(tranship_engine_address(receiver, 0, address, sizeof address, NULL));
  tranship_peer_t peer;
  OK(tranship_peer_connect(sender, address, LONG, &peer));
  OK(tranship_signal(sender, peer, options.slot, NULL, NULL));
  OK(tranship_counter_wait(arrivals, 2, LONG, NULL));
  OK(tranship_counter_count(arrivals, &count));
  CHECK(count == 2);
  OK(tranship_counter_close(arrivals));
  IS(TRANSHIP_INVALID, tranship_write(sender, source, 0, to, BYTES - 1, 2, NULL, NULL));
  IS(TRANSHIP_INVALID, tranship_write(sender, source, UINT64_MAX, to, 0, 2, NULL, NULL));
}

// Drains until so many have ended, each once, all well.
static void drain(tranship_queue_t *queue, size_t expected) {
  unsigned char seen[256] = {0};
  size_t ended = 0;
  while (ended < expected) {
    tranship_completion_t some[7];
    size_t count = 0;
    OK(tranship_queue_wait(queue, some, 7, LONG, &count));
    for (size_t i = 0; i < count; i++) {
      CHECK(some[i].kind == TRANSHIP_COMPLETION_TRANSFER && some[i].user_data < expected);
      CHECK(some[i].outcome == TRANSHIP_OUTCOME_DONE && some[i].reason == TRANSHIP_REASON_NONE);
      CHECK(some[i].pages_free == 1 && !seen[some[i].user_data]++);
    }
    ended += count;
  }
  tranship_completion_t none;
  size_t count = 1;
  OK(tranship_queue_drain(queue, &none, 1, &count));
  CHECK(count == 0);
  IS(TRANSHIP_TIMEOUT, tranship_queue_wait(queue, &none, 1, 0, &count));
}

static void ends_in_a_queue(tranship_region_t *source, tranship_remote_t *to, unsigned char *there) {
  tranship_queue_t *queue = NULL;
  OK(tranship_queue_open(sender, &queue));
  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.queue = queue;
  options.deadline_us = LONG;
  unsigned char *here = bytes_of(source, BYTES);
  fill(here, BYTES, 2);
  for (uint64_t i = 0; i < 200; i++) {
    options.user_data = i;
    options.lane = i % 2 ? TRANSHIP_LANE_LATENCY : TRANSHIP_LANE_BULK;
    options.priority = i % 3 ? TRANSHIP_PRIORITY_HIGH : TRANSHIP_PRIORITY_LOW;
    OK(tranship_write(sender, source, i * 4096, to, i * 4096, 4096, &options, NULL));
  }
  drain(queue, 200);
  CHECK(memcmp(here, there, 200 * 4096) == 0);

  // The descriptor tells, as an event loop sees it.
  int fd = -1;
  OK(tranship_queue_fd(queue, &fd));
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  CHECK(poll(&poller, 1, 0) == 0);
  tranship_transfer_t *transfer = NULL;
  options.user_data = 0;
  OK(tranship_read(sender, to, 0, source, 0, BYTES, &options, &transfer));
  CHECK(poll(&poller, 1, 60000) == 1);
  drain(queue, 1);
  CHECK(poll(&poller, 1, 0) == 0);
  tranship_completion_t end;
  uint32_t fenced = 0;
  OK(tranship_transfer_poll(transfer, &end));
  OK(tranship_transfer_wait(transfer, &end));
  OK(tranship_transfer_wait_for(transfer, 0, &end));
  OK(tranship_transfer_fenced(transfer, &fenced));
  CHECK(end.outcome == TRANSHIP_OUTCOME_DONE && fenced == 1);
  OK(tranship_transfer_cancel(transfer));  // too late, and harmless
  OK(tranship_transfer_close(transfer));

  // All parts of a scatter, each with its own user data and slot.
  tranship_counter_t *arrivals = NULL;
  OK(tranship_counter_open(receiver, &arrivals));
  tranship_target_t targets[16];
  memset(targets, 0, sizeof targets);
  memset(there, 0, BYTES);
  for (size_t i = 0; i < 16; i++) {
    targets[i] = (tranship_target_t){.remote = to,
                                     .remote_offset = i * 1000,
                                     .local_offset = (15 - i) * 1000,
                                     .len = 1000,
                                     .user_data = i,
                                     .flags = TRANSHIP_SUBMIT_IMMEDIATE};
    OK(tranship_counter_slot(arrivals, &targets[i].slot));
  }
  OK(tranship_scatter(sender, source, targets, 16, &options, NULL));
  drain(queue, 16);
  OK(tranship_counter_wait(arrivals, 16, LONG, NULL));
  for (size_t i = 0; i < 16; i++) CHECK(memcmp(there + i * 1000, here + (15 - i) * 1000, 1000) == 0);
  OK(tranship_scatter(sender, source, targets, 16, NULL, NULL));
  tranship_transfer_t *each[16];
  OK(tranship_scatter(sender, source, targets, 16, NULL, each));
  for (size_t i = 0; i < 16; i++) {
    OK(tranship_transfer_wait(each[i], &end));
    CHECK(end.outcome == TRANSHIP_OUTCOME_DONE && end.user_data == i);
    OK(tranship_transfer_close(each[i]));
  }
  OK(tranship_counter_close(arrivals));
  // A queue that is closed loses no transfer.
  options.user_data = 7;
  OK(tranship_write(sender, source, 0, to, 0, BYTES, &options, &transfer));
  OK(tranship_queue_close(queue));
  OK(tranship_transfer_wait(transfer, &end));
  CHECK(end.outcome == TRANSHIP_OUTCOME_DONE);
  OK(tranship_transfer_close(transfer));
}

static int waiter;

// Waits for one end, which must not come late.
static void *waits(void *queue) {
  tranship_completion_t end;
  size_t count = 0;
  struct timespec began, ended;
  clock_gettime(CLOCK_MONOTONIC, &began);
  __atomic_store_n(&waiter, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
  OK(tranship_queue_wait(queue, &end, 1, LONG, &count));
  clock_gettime(CLOCK_MONOTONIC, &ended);
  CHECK(count == 1 && end.outcome == TRANSHIP_OUTCOME_DONE);
  if (ended.tv_sec - began.tv_sec > 30) FAIL("the end came by the deadline of the wait alone");
  return NULL;
}

// Whether a thread sleeps, as proc(5) tells.
static int sleeps(int thread) {
  char path[64], line[256] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  FILE *file = fopen(path, "r");
  if (file == NULL) return 1;
  CHECK(fgets(line, sizeof line, file) != NULL);
  fclose(file);
  const char *behind_name = strrchr(line, ')');
  return behind_name != NULL && behind_name[2] == 'S';
}

// A transfer that ends inside of the call that submits it wakes who sleeps in a wait for it.
static void wakes_who_sleeps(tranship_region_t *source, tranship_remote_t *to) {
  tranship_queue_t *queue = NULL;
  OK(tranship_queue_open(sender, &queue));
  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.queue = queue;
  for (int round = 0; round < 20; round++) {
    __atomic_store_n(&waiter, 0, __ATOMIC_RELEASE);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, waits, queue) == 0);
    int id;
    while ((id = __atomic_load_n(&waiter, __ATOMIC_ACQUIRE)) == 0 || !sleeps(id)) sched_yield();
    OK(tranship_write(sender, source, 0, to, 0, 64, &options, NULL));
    CHECK(pthread_join(thread, NULL) == 0);
  }
  OK(tranship_queue_close(queue));
}

static void pages_travel(tranship_region_t *source, tranship_remote_t *to, unsigned char *there) {
  unsigned char *here = bytes_of(source, BYTES);
  fill(here, BYTES, 3);
  memset(there, 0, BYTES);
  // 4 pages of a table, in each of 3 layers, to stretches at a stride.
  const uint64_t table[] = {5, 6, 9, 2}, starts[] = {0, 100000, 200000};
  tranship_pages_t *layer = NULL, *local = NULL, *remote = NULL;
  OK(tranship_pages_table(512, table, 4, &layer));
  OK(tranship_pages_layers(layer, starts, 3, &local));
  const tranship_run_t run = {.offset = 1024, .bytes = 512, .stride = 2048, .count = 12};
  OK(tranship_pages_runs(&run, 1, &remote));
  uint64_t bytes = 0, end = 0;
  OK(tranship_pages_extent(local, &bytes, &end));
  CHECK(bytes == 12 * 512 && end == 200000 + 10 * 512);
  tranship_plan_t *plan = NULL;
  OK(tranship_plan_open(local, remote, &plan));
  SAYS(TRANSHIP_INVALID, "both must be equal", tranship_plan_open(layer, remote, &(tranship_plan_t *){0}));
  OK(tranship_pages_close(layer));
  OK(tranship_pages_close(local));
  OK(tranship_pages_close(remote));
  OK(tranship_write_paged(sender, source, to, plan, NULL, NULL));
  for (size_t l = 0; l < 3; l++)
    for (size_t p = 0; p < 4; p++)
      CHECK(memcmp(there + 1024 + (l * 4 + p) * 2048, here + starts[l] + table[p] * 512, 512) == 0);
  fill(here, BYTES, 4);
  OK(tranship_read_paged(sender, to, source, plan, NULL, NULL));
  for (size_t l = 0; l < 3; l++)
    for (size_t p = 0; p < 4; p++)
      CHECK(memcmp(there + 1024 + (l * 4 + p) * 2048, here + starts[l] + table[p] * 512, 512) == 0);
  OK(tranship_plan_close(plan));
  const tranship_range_t ranges[] = {{0, 3}, {10, 5}};
  OK(tranship_pages_ranges(ranges, 2, &local));
  OK(tranship_pages_extent(local, &bytes, NULL));
  CHECK(bytes == 8);
  OK(tranship_pages_close(local));
  const tranship_range_t beyond = {UINT64_MAX, 2};
  IS(TRANSHIP_INVALID, tranship_pages_ranges(&beyond, 1, &local));
  const tranship_run_t reserved = {.bytes = 1, .count = 1, .reserved = 1};
  IS(TRANSHIP_INVALID, tranship_pages_runs(&reserved, 1, &local));
  CHECK(local == NULL);
}

static void messages_arrive(void) {
  char address[128];
  OK(tranship_engine_address(receiver, 0, address, sizeof address, NULL));
  IS(TRANSHIP_NOT_READY, tranship_engine_address(receiver, 1, address, sizeof address, NULL));
  tranship_peer_t peer;
  OK(tranship_peer_at(sender, address, &peer));
  size_t max = 0;
  OK(tranship_engine_message_bytes_max(sender, &max));
  CHECK(max >= 1024);
  OK(tranship_send(sender, peer, (const unsigned char *)"hello", 5, NULL, NULL));
  tranship_incoming_t incoming;
  unsigned char buffer[16];
  for (;;) {
    tranship_status_t status = tranship_recv(receiver, &incoming, buffer, 2, LONG);
    if (status == TRANSHIP_TOO_SMALL) break;
    if (status != TRANSHIP_OK) FAIL("recv is %d", (int)status);
    CHECK(incoming.kind == TRANSHIP_INCOMING_CONNECTED ||
          incoming.kind == TRANSHIP_INCOMING_DISCONNECTED);
  }
  CHECK(incoming.kind == TRANSHIP_INCOMING_MESSAGE && incoming.len == 5);
  OK(tranship_recv(receiver, &incoming, buffer, sizeof buffer, 0));
  CHECK(incoming.len == 5 && memcmp(buffer, "hello", 5) == 0);
  // The answer.
  OK(tranship_send(receiver, incoming.from, (const unsigned char *)"", 0, NULL, NULL));
  do OK(tranship_recv(sender, &incoming, buffer, sizeof buffer, LONG));
  while (incoming.kind != TRANSHIP_INCOMING_MESSAGE);
  CHECK(incoming.len == 0);
  OK(tranship_peer_disconnect(sender, peer));
  do OK(tranship_recv(receiver, &incoming, buffer, sizeof buffer, LONG));
  while (incoming.kind != TRANSHIP_INCOMING_DISCONNECTED);
  CHECK(incoming.reason != TRANSHIP_REASON_NONE);
  CHECK(strlen(tranship_reason_text(incoming.reason)) > 0);
  CHECK(strcmp(tranship_reason_text(0), "none") == 0);
  CHECK(strcmp(tranship_reason_text(9999), "unknown") == 0);
  IS(TRANSHIP_TIMEOUT, tranship_recv(receiver, &incoming, NULL, 0, 0));
  tranship_peer_t nobody = {{UINT64_MAX, UINT64_MAX}};
  IS(TRANSHIP_REJECTED, tranship_send(sender, nobody, (const unsigned char *)"x", 1, NULL, NULL));
  IS(TRANSHIP_REJECTED, tranship_signal(sender, nobody, 1, NULL, NULL));
  OK(tranship_peer_disconnect(sender, nobody));
  SAYS(TRANSHIP_INVALID, "at most", tranship_send(sender, peer, buffer, max + 1, NULL, NULL));
}

static void words_are_watched(tranship_region_t *region) {
  tranship_watcher_t *watcher = NULL;
  OK(tranship_watcher_open(receiver, region, 64, &watcher));
  IS(TRANSHIP_INVALID, tranship_watcher_open(receiver, region, 65, &(tranship_watcher_t *){0}));
  tranship_queue_t *queue = NULL;
  OK(tranship_queue_open(receiver, &queue));
  uint64_t before = 0, value = 0;
  OK(tranship_watcher_value(watcher, &before));
  IS(TRANSHIP_TIMEOUT, tranship_watcher_wait(watcher, before, 0, &value));
  OK(tranship_watcher_notify(watcher, queue, 99));
  for (int i = 0; i < 3; i++) OK(tranship_watcher_bump(watcher, &value));
  CHECK(value == before + 3);
  OK(tranship_watcher_wait(watcher, before, LONG, &value));
  tranship_completion_t change = {0};
  do {
    size_t count = 0;
    OK(tranship_queue_wait(queue, &change, 1, LONG, &count));
    CHECK(count == 1 && change.kind == TRANSHIP_COMPLETION_WATCH && change.user_data == 99);
  } while (change.value != before + 3);
  // A queue of another engine is not taken.
  tranship_queue_t *other = NULL;
  OK(tranship_queue_open(sender, &other));
  SAYS(TRANSHIP_INVALID, "another engine", tranship_watcher_notify(watcher, other, 0));
  OK(tranship_queue_close(other));
  OK(tranship_watcher_close(watcher));
  OK(tranship_queue_close(queue));
}

static void barriers_meet(void) {
  tranship_barrier_t *barriers[2] = {NULL, NULL};
  tranship_engine_t *engines[2] = {sender, receiver};
  unsigned char invitations[2][4096];
  size_t lens[2];
  for (int i = 0; i < 2; i++) {
    OK(tranship_barrier_open(engines[i], 1, &barriers[i]));
    OK(tranship_barrier_invitation(barriers[i], invitations[i], sizeof invitations[i], &lens[i]));
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) OK(tranship_barrier_join(barriers[i], invitations[j], lens[j]));
  for (int round = 0; round < 3; round++) {
    IS(TRANSHIP_TIMEOUT, tranship_barrier_wait(barriers[0], SECOND / 50));
    OK(tranship_barrier_wait(barriers[1], LONG));
    OK(tranship_barrier_wait(barriers[0], LONG));
  }
  IS(TRANSHIP_INVALID, tranship_barrier_join(barriers[0], (const unsigned char *)"{}", 2));
  for (int i = 0; i < 2; i++) OK(tranship_barrier_close(barriers[i]));
}

// What was revoked is fenced; what was cancelled or cannot arrive says so.
static void ends_are_told(tranship_region_t *source, tranship_region_t *target) {
  tranship_window_t *window = NULL;
  OK(tranship_window_open(target, 0, 4096, TRANSHIP_ACCESS_WRITE, &window));
  tranship_remote_t *to = open_window(window, 4096);
  OK(tranship_write(sender, source, 0, to, 0, 4096, NULL, NULL));
  IS(TRANSHIP_REJECTED, tranship_read(sender, to, 0, source, 0, 4096, NULL, NULL));
  OK(tranship_window_revoke(window, LONG));
  SAYS(TRANSHIP_REJECTED, "revoked", tranship_write(sender, source, 0, to, 0, 4096, NULL, NULL));
  IS(TRANSHIP_CLOSED, tranship_window_revoke(window, 0));
  OK(tranship_remote_close(to));
  IS(TRANSHIP_INVALID, tranship_window_open(target, 0, 2 * BYTES, TRANSHIP_ACCESS_WRITE, &window));
  IS(TRANSHIP_INVALID, tranship_window_open(target, 0, 1, 8, &window));
  // Nobody is there: it ends by its deadline, or is cancelled before.
  const char *nowhere = "{\"engine\":1,\"window\":{\"slot\":0,\"generation\":0},\"len\":64,"
                        "\"access\":1,\"routes\":[{\"address\":\"shm:/nowhere/at/all\",\"key\":1,\"base\":0},"
                        "{\"address\":\"tcp:127.0.0.1:1\",\"key\":1,\"base\":0}]}";
  OK(tranship_remote_open(sender, (const unsigned char *)nowhere, strlen(nowhere), &to));
  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.deadline_us = 5 * SECOND;
  tranship_transfer_t *transfer = NULL;
  OK(tranship_write(sender, source, 0, to, 0, 64, &options, &transfer));
  OK(tranship_transfer_cancel(transfer));
  tranship_completion_t end;
  OK(tranship_transfer_wait(transfer, &end));
  CHECK(end.outcome == TRANSHIP_OUTCOME_REJECTED && end.pages_free == 1);
  CHECK(end.reason == TRANSHIP_REASON_CANCELLED || end.reason == TRANSHIP_REASON_UNREACHABLE);
  OK(tranship_transfer_close(transfer));
  OK(tranship_remote_close(to));
  SAYS(TRANSHIP_INVALID, "no descriptor",
       tranship_remote_open(sender, (const unsigned char *)"{}", 2, &to));
}

// Somebody is there, and says nothing: a wait for the end is over when its time is.
static void a_wait_has_an_end(tranship_region_t *source) {
  tranship_remote_t *to = NULL;
  int silent = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t at_len = sizeof at;
  CHECK(bind(silent, (struct sockaddr *)&at, sizeof at) == 0 && listen(silent, 8) == 0);
  CHECK(getsockname(silent, (struct sockaddr *)&at, &at_len) == 0);
  char there_text[256];
  snprintf(there_text, sizeof there_text,
           "{\"engine\":1,\"window\":{\"slot\":0,\"generation\":0},\"len\":64,"
           "\"access\":1,\"routes\":[{\"address\":\"tcp:127.0.0.1:%d\",\"key\":1,\"base\":0}]}",
           ntohs(at.sin_port));
  OK(tranship_remote_open(sender, (const unsigned char *)there_text, strlen(there_text), &to));
  tranship_transfer_t *transfer = NULL;
  tranship_completion_t end;
  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.deadline_us = 60 * SECOND;
  OK(tranship_write(sender, source, 0, to, 0, 64, &options, &transfer));
  SAYS(TRANSHIP_TIMEOUT, "not ended within 2ms", tranship_transfer_wait_for(transfer, 2000, &end));
  OK(tranship_transfer_cancel(transfer));
  OK(tranship_transfer_wait_for(transfer, LONG, &end));
  CHECK(end.outcome == TRANSHIP_OUTCOME_REJECTED && end.reason == TRANSHIP_REASON_CANCELLED);
  OK(tranship_transfer_close(transfer));
  OK(tranship_remote_close(to));
  close(silent);
}

void transport(const char *fabric) {
  tranship_engine_options_t options = TRANSHIP_INIT(tranship_engine_options_t);
  options.fabrics = fabric;
  options.deadline_us = LONG;
  options.watch_every_us = 100;
  options.counters = 64;
  OK(tranship_engine_open(&options, &sender));
  OK(tranship_engine_open(&options, &receiver));
  uint8_t ids[2][16];
  OK(tranship_engine_id(sender, &ids[0]));
  OK(tranship_engine_id(receiver, &ids[1]));
  CHECK(memcmp(ids[0], ids[1], 16) != 0);

  // One region of the library's memory, one of the caller's.
  tranship_alloc_options_t alloc = TRANSHIP_INIT(tranship_alloc_options_t);
  alloc.name = "pages";
  alloc.flags = TRANSHIP_ALLOC_PREFAULT;
  tranship_region_t *target = NULL, *source = NULL;
  OK(tranship_region_alloc(receiver, BYTES, &alloc, &target));
  char backing[256];
  OK(tranship_region_backing(target, backing, sizeof backing, NULL));
  CHECK(strstr(backing, "pages") != NULL);
  void *own = malloc(BYTES);
  OK(tranship_region_register(sender, own, BYTES, NULL, &source));
  unsigned char *there = bytes_of(target, BYTES);
  tranship_window_t *window = NULL;
  OK(tranship_window_open(target, 0, BYTES, TRANSHIP_ACCESS_WRITE | TRANSHIP_ACCESS_READ, &window));
  tranship_remote_t *to = open_window(window, BYTES);

  waits_for_its_end(source, to, there);
  ends_in_a_queue(source, to, there);
  wakes_who_sleeps(source, to);
  pages_travel(source, to, there);
  ends_are_told(source, target);
  if (strcmp(fabric, "tcp") == 0) a_wait_has_an_end(source);
  words_are_watched(target);
  barriers_meet();
  messages_arrive();

  tranship_register_options_t device = TRANSHIP_INIT(tranship_register_options_t);
  device.kind = TRANSHIP_MEMORY_CUDA;
  tranship_region_t *none = NULL;
  SAYS(TRANSHIP_UNSUPPORTED, "CUDA", tranship_region_register(sender, own, BYTES, &device, &none));
  CHECK(none == NULL);

  tranship_engine_stats_t stats = TRANSHIP_INIT(tranship_engine_stats_t);
  OK(tranship_engine_stats(sender, &stats));
  CHECK(stats.done > 200 && stats.submitted == stats.done + stats.rejected + stats.fenced + stats.lost);
  uint32_t worked = 2;
  OK(tranship_engine_progress(sender, &worked));
  CHECK(worked <= 1);

  OK(tranship_remote_close(to));
  OK(tranship_window_revoke(window, LONG));
  OK(tranship_region_close(source, LONG));
  free(own);
  OK(tranship_region_close(target, LONG));
  OK(tranship_engine_close(sender, LONG));
  OK(tranship_engine_close(receiver, LONG));
}
