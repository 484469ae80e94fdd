// Everything a client does.
#include "check.h"

#include <poll.h>
#include <pthread.h>

#define BLOCKS 40
#define LEN 10000

static unsigned char blocks[BLOCKS][LEN], back[BLOCKS][LEN];

static tranship_identity_t identity_of(const char *salt) {
  tranship_identity_t identity = TRANSHIP_INIT(tranship_identity_t);
  identity.model = "model";
  identity.revision = "r1";
  identity.dtype = "bf16";
  identity.salt = salt;
  identity.layers = 2;
  identity.block_tokens = 16;
  return identity;
}

static tranship_client_t *connect_to(const char *address) {
  tranship_client_options_t options = TRANSHIP_INIT(tranship_client_options_t);
  options.address = address;
  options.name = "a test in C";
  options.timeout_us = LONG;
  tranship_client_t *client = NULL;
  OK(tranship_client_connect(&options, &client));
  return client;
}

static void identities(void) {
  tranship_identity_t a = identity_of("x"), b = identity_of("y");
  b.dtype = "fp8";
  char told[256];
  size_t len = 0;
  OK(tranship_identity_explain(&a, &b, told, sizeof told, &len));
  CHECK(strcmp(told, "dtype: \"bf16\" here, \"fp8\" there; salt differs") == 0 && len == strlen(told));
  OK(tranship_identity_explain(&a, &a, told, sizeof told, NULL));
  CHECK(strlen(told) == 0);
  uint8_t ids[3][16];
  OK(tranship_identity_id(&a, NULL, &ids[0]));
  OK(tranship_identity_id(&a, "default", &ids[1]));
  OK(tranship_identity_id(&a, "another", &ids[2]));
  CHECK(memcmp(ids[0], ids[1], 16) == 0 && memcmp(ids[0], ids[2], 16) != 0);
}

static void names(tranship_cache_t *cache, tranship_link_t *links) {
  uint32_t tokens[BLOCKS * 16 + 5];
  for (size_t i = 0; i < BLOCKS * 16 + 5; i++) tokens[i] = (uint32_t)i;
  size_t count = 0;
  IS(TRANSHIP_TOO_SMALL, tranship_links_of_tokens(cache, tokens, BLOCKS * 16 + 5, NULL, NULL, 0, &count));
  CHECK(count == BLOCKS);
  OK(tranship_links_of_tokens(cache, tokens, BLOCKS * 16 + 5, NULL, links, BLOCKS, &count));
  CHECK(links[0].flags == 0 && links[1].flags == TRANSHIP_LINK_PARENT && links[7].position == 7);
  CHECK(memcmp(&links[7].parent, &links[6].key, 16) == 0);
  // Going on after a block is the same chain.
  tranship_link_t more[BLOCKS];
  OK(tranship_links_of_tokens(cache, tokens + 10 * 16, 30 * 16, &links[9], more, 30, &count));
  CHECK(count == 30 && memcmp(more, links + 10, sizeof *more * 30) == 0);
  const uint8_t hashes[3][32] = {{1}, {2}, {3}};
  tranship_link_t all[3], last;
  OK(tranship_links_of_hashes((const uint8_t *)"sha256", 6, hashes[0], 32, 3, NULL, all));
  OK(tranship_links_of_hashes((const uint8_t *)"sha256", 6, hashes[2], 32, 1, &all[1], &last));
  CHECK(memcmp(&last, &all[2], sizeof last) == 0 && last.position == 2);
  IS(TRANSHIP_INVALID, tranship_links_of_hashes(NULL, 0, hashes[0], 0, 3, NULL, all));
  tranship_key_t one, two;
  OK(tranship_key_of_name(NULL, 0, (const uint8_t *)"weights/7", 9, &one));
  OK(tranship_key_of_name((const uint8_t *)"x", 1, (const uint8_t *)"weights/7", 9, &two));
  CHECK(memcmp(&one, &two, 16) != 0);
}

// Two spans a block, as in two layers.
static void spans_of(unsigned char memory[BLOCKS][LEN], tranship_span_t (*spans)[2],
                     tranship_spans_t *lists) {
  for (size_t i = 0; i < BLOCKS; i++) {
    spans[i][0] = (tranship_span_t){memory[i], LEN / 3};
    spans[i][1] = (tranship_span_t){memory[i] + LEN / 3, LEN - LEN / 3};
    lists[i] = (tranship_spans_t){spans[i], 2};
  }
}

static void stored_and_loaded(tranship_cache_t *cache, const tranship_link_t *links,
                              const tranship_key_t *keys) {
  tranship_span_t from[BLOCKS][2], to[BLOCKS][2];
  tranship_spans_t sources[BLOCKS], targets[BLOCKS];
  spans_of(blocks, from, sources);
  spans_of(back, to, targets);
  uint32_t results[BLOCKS];
  OK(tranship_store(cache, links, sources, 20, 0, results));
  for (size_t i = 0; i < 20; i++) CHECK(results[i] == TRANSHIP_STORE_STORED);
  OK(tranship_store(cache, links, sources, 20, 0, results));
  for (size_t i = 0; i < 20; i++) CHECK(results[i] == TRANSHIP_STORE_EXISTS);
  CHECK(strcmp(tranship_last_reason(0), "") == 0 && strcmp(tranship_last_reason(9999), "") == 0);
  size_t prefix = 0;
  uint8_t presence[BLOCKS];
  OK(tranship_lookup(cache, keys, BLOCKS, &prefix, presence));
  CHECK(prefix == 20 && presence[0] == TRANSHIP_PRESENCE_DRAM);
  CHECK(presence[20] == TRANSHIP_PRESENCE_ABSENT);
  OK(tranship_load(cache, keys, targets, 21, 0, results));
  for (size_t i = 0; i < 20; i++) CHECK(results[i] == TRANSHIP_BLOCK_READY);
  CHECK(results[20] == TRANSHIP_BLOCK_GONE && memcmp(blocks, back, 20 * LEN) == 0);
  targets[3].count = 1;  // too short
  OK(tranship_load(cache, keys, targets, 4, 0, results));
  CHECK(results[2] == TRANSHIP_BLOCK_READY && results[3] == TRANSHIP_BLOCK_FAILED);
}

static void leased(tranship_cache_t *cache, const tranship_key_t *keys) {
  tranship_lease_t *lease = NULL;
  tranship_leased_t results[21];
  OK(tranship_lease_open(cache, keys, 21, 0, LONG, results, &lease));
  CHECK(results[19].result == TRANSHIP_BLOCK_READY && results[19].len == LEN);
  CHECK(results[20].result == TRANSHIP_BLOCK_GONE);
  memset(back, 0, sizeof back);
  OK(tranship_lease_read(lease, 7, back[7], LEN));
  CHECK(memcmp(back[7], blocks[7], LEN) == 0);
  const void *data = NULL;
  size_t len = 0;
  OK(tranship_lease_view(lease, 8, &data, &len));
  CHECK(len == LEN && memcmp(data, blocks[8], LEN) == 0);
  IS(TRANSHIP_NOT_READY, tranship_lease_read(lease, 20, back[0], LEN));
  IS(TRANSHIP_NOT_READY, tranship_lease_view(lease, 9999, &data, &len));
  SAYS(TRANSHIP_INVALID, "has 10000 bytes", tranship_lease_read(lease, 7, back[7], LEN - 1));
  OK(tranship_lease_close(lease));
  OK(tranship_lease_open(cache, keys, 1, 0, 0, NULL, &lease));
  OK(tranship_lease_close(lease));
}

static void rooms_are_filled(tranship_cache_t *cache, const tranship_link_t *links,
                             const tranship_key_t *keys) {
  uint64_t lens[5] = {LEN, LEN, LEN, LEN, UINT64_MAX};
  tranship_grant_t grants[5];
  OK(tranship_reserve(cache, links + 19, lens, 5, LONG, grants));
  CHECK(grants[0].result == TRANSHIP_STORE_EXISTS && grants[0].room == NULL);
  CHECK(grants[1].result == TRANSHIP_STORE_STORED && grants[1].room != NULL);
  CHECK(grants[4].result == TRANSHIP_STORE_REFUSED && grants[4].room == NULL);
  CHECK(strstr(tranship_last_reason(4), "too large") != NULL);
  tranship_grant_t again;
  OK(tranship_reserve(cache, links + 20, lens, 1, 0, &again));
  CHECK(again.result == TRANSHIP_STORE_IN_FLIGHT && again.room == NULL);
  uint8_t presence;
  size_t prefix;
  OK(tranship_lookup(cache, keys + 20, 1, &prefix, &presence));
  CHECK(prefix == 0 && presence == TRANSHIP_PRESENCE_IN_FLIGHT);
  // One in place, one by a copy, one given back.
  void *space = NULL;
  size_t len = 0;
  OK(tranship_room_space(grants[1].room, &space, &len));
  CHECK(len == LEN);
  memcpy(space, blocks[20], LEN);
  IS(TRANSHIP_INVALID, tranship_room_write(grants[2].room, blocks[21], LEN - 1));
  OK(tranship_room_write(grants[2].room, blocks[21], LEN));
  IS(TRANSHIP_INVALID, tranship_room_write(grants[2].room, blocks[21], LEN));
  IS(TRANSHIP_INVALID, tranship_room_space(grants[2].room, &space, &len));
  OK(tranship_room_close(grants[3].room));
  tranship_room_t *rooms[3] = {grants[1].room, grants[2].room, grants[1].room};
  uint32_t results[3];
  SAYS(TRANSHIP_INVALID, "twice", tranship_commit(cache, rooms, 3, results));
  OK(tranship_commit(cache, rooms, 2, results));
  CHECK(results[0] == TRANSHIP_STORE_STORED && results[1] == TRANSHIP_STORE_STORED);
  IS(TRANSHIP_CLOSED, tranship_commit(cache, rooms, 2, results));
  IS(TRANSHIP_CLOSED, tranship_room_space(rooms[0], &space, &len));
  OK(tranship_lookup(cache, keys, BLOCKS, &prefix, NULL));
  CHECK(prefix == 22);
}

static void jobs_are_drained(tranship_cache_t *cache, const tranship_link_t *links,
                             const tranship_key_t *keys) {
  tranship_jobs_t *jobs = NULL;
  OK(tranship_jobs_open(3, &jobs));
  int fd = -1;
  OK(tranship_jobs_fd(jobs, &fd));
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  CHECK(poll(&poller, 1, 0) == 0);
  tranship_span_t from[BLOCKS][2], to[BLOCKS][2];
  tranship_spans_t sources[BLOCKS], targets[BLOCKS];
  spans_of(blocks, from, sources);
  spans_of(back, to, targets);
  uint32_t stored[BLOCKS], loaded[BLOCKS];
  memset(stored, 0xff, sizeof stored);
  OK(tranship_jobs_store(jobs, cache, links, sources, BLOCKS, 0, 5, stored));
  memset(sources, 0, sizeof sources);  // the lists are the caller's again
  CHECK(poll(&poller, 1, 60000) == 1);
  tranship_done_t done[4];
  size_t count = 0;
  OK(tranship_jobs_drain(jobs, done, 4, &count));
  CHECK(count == 1 && done[0].user_data == 5 && done[0].status == TRANSHIP_OK);
  for (size_t i = 0; i < BLOCKS; i++)
    CHECK(stored[i] == (i < 22 ? TRANSHIP_STORE_EXISTS : TRANSHIP_STORE_STORED));
  CHECK(done[0].bytes == 18 * LEN && done[0].elapsed_ns > 0);
  memset(back, 0, sizeof back);
  for (uint64_t i = 0; i < BLOCKS; i++)
    OK(tranship_jobs_load(jobs, cache, keys + i, targets + i, 1, 0, i, loaded + i));
  // Fewer at a time than there are: the descriptor tells of the rest.
  for (size_t seen = 0; seen < BLOCKS; seen += count) {
    OK(tranship_jobs_wait(jobs, done, 2, LONG, &count));
    CHECK(count >= 1 && count <= 2);
    for (size_t i = 0; i < count; i++)
      CHECK(done[i].status == TRANSHIP_OK && loaded[done[i].user_data] == TRANSHIP_BLOCK_READY);
  }
  CHECK(memcmp(back, blocks, sizeof back) == 0);
  OK(tranship_jobs_drain(jobs, done, 4, &count));
  CHECK(count == 0 && poll(&poller, 1, 0) == 0);
  IS(TRANSHIP_TIMEOUT, tranship_jobs_wait(jobs, done, 1, 1000, &count));
  OK(tranship_jobs_load(jobs, cache, keys, targets, BLOCKS, 0, 1, loaded));
  OK(tranship_jobs_close(jobs));  // with one under way
  IS(TRANSHIP_INVALID, tranship_jobs_open(1000000, &jobs));
}

static void the_rest(tranship_client_t *client, tranship_cache_t *cache,
                     const tranship_key_t *keys) {
  uint64_t count = 0;
  OK(tranship_pin(cache, keys, 5, &count));
  CHECK(count == 5);
  OK(tranship_unpin(cache, keys, 5, &count));
  CHECK(count == 5);
  OK(tranship_prefetch(cache, keys, 5, NULL));
  uint8_t safe[2] = {0, 0};
  OK(tranship_persist(cache, keys, 2, LONG, safe));
  CHECK(safe[0] == 1 && safe[1] == 1);
  uint64_t us = 0;
  OK(tranship_client_ping(client, &us));
  uint32_t mapped = 0;
  OK(tranship_client_is_mapped(client, &mapped));
  CHECK(mapped == 1);
  size_t len = 0;
  OK(tranship_client_stats(client, NULL, 0, &len));
  char *stats = malloc(len + 4096);
  OK(tranship_client_stats(client, stats, len + 4096, NULL));
  CHECK(stats[0] == '{');
  free(stats);
  OK(tranship_remove(cache, keys + 30, 10, &count));
  CHECK(count == 10);
}

static void events_come(tranship_cache_t *cache, tranship_events_t *events, const tranship_key_t *keys) {
  uint8_t id[16];
  tranship_identity_t identity = identity_of("c");
  OK(tranship_identity_id(&identity, NULL, &id));
  tranship_event_t event;
  OK(tranship_events_next(events, LONG, &event));
  CHECK(event.kind == TRANSHIP_EVENT_STORED && memcmp(&event.key, &keys[0], 16) == 0);
  CHECK(event.len == LEN && event.has_parent == 0 && event.tier == TRANSHIP_PRESENCE_DRAM);
  CHECK(memcmp(event.identity, id, 16) == 0 && event.sequence == event.sequence_last);
  do OK(tranship_events_next(events, LONG, &event));
  while (event.kind != TRANSHIP_EVENT_REMOVED);
  tranship_status_t status;
  do status = tranship_events_next(events, SECOND / 20, &event);
  while (status == TRANSHIP_OK);
  if (status != TRANSHIP_TIMEOUT) FAIL("%d", (int)status);
  OK(tranship_events_close(events));
  (void)cache;
}

// A handle may be closed while others use it.
static void *reads(void *lease) {
  static unsigned char into[8][LEN];
  static int next = 0;
  unsigned char *mine = into[__atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)];
  for (size_t i = 0;; i++) {
    tranship_status_t status = tranship_lease_read(lease, i % 20, mine, LEN);
    if (status == TRANSHIP_CLOSED) return NULL;
    if (status != TRANSHIP_OK || memcmp(mine, blocks[i % 20], LEN) != 0) FAIL("%d", (int)status);
  }
}

static void closed_under_others(tranship_cache_t *cache, const tranship_key_t *keys) {
  tranship_lease_t *lease = NULL;
  OK(tranship_lease_open(cache, keys, 20, 0, LONG, NULL, &lease));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, reads, lease) == 0);
  for (int i = 0; i < 100; i++) OK(tranship_lease_read(lease, 3, back[3], LEN));
  OK(tranship_lease_close(lease));
  for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

void cache(const char *address) {
  for (size_t i = 0; i < BLOCKS; i++)
    for (size_t j = 0; j < LEN; j++) blocks[i][j] = (unsigned char)(i * 31 + j + (j >> 8));
  identities();
  tranship_client_t *client = connect_to(address);
  tranship_identity_t identity = identity_of("c");
  tranship_cache_t *cache = NULL;
  OK(tranship_cache_open(client, &identity, &cache));
  tranship_link_t links[BLOCKS];
  tranship_key_t keys[BLOCKS];
  names(cache, links);
  for (size_t i = 0; i < BLOCKS; i++) keys[i] = links[i].key;
  tranship_events_t *events = NULL;
  OK(tranship_events_open(cache, TRANSHIP_EVENTS_NOW, &events));
  stored_and_loaded(cache, links, keys);
  leased(cache, keys);
  rooms_are_filled(cache, links, keys);
  jobs_are_drained(cache, links, keys);
  closed_under_others(cache, keys);
  the_rest(client, cache, keys);
  events_come(cache, events, keys);
  OK(tranship_remove(cache, keys, BLOCKS, NULL));
  OK(tranship_client_close(client));
  // The cache keeps the connection.
  size_t prefix = 1;
  OK(tranship_lookup(cache, keys, BLOCKS, &prefix, NULL));
  CHECK(prefix == 0);
  OK(tranship_cache_close(cache));
}
