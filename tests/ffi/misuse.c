// What is used wrongly is told, and does no harm.
#include "check.h"

static void handles(void) {
  tranship_engine_t *engine = NULL;
  OK(tranship_engine_open(NULL, &engine));
  tranship_region_t *region = NULL;
  OK(tranship_region_alloc(engine, 4096, NULL, &region));
  // NULL, another kind, a number that was never one, an address.
  uint8_t id[16];
  SAYS(TRANSHIP_INVALID, "not NULL", tranship_engine_id(NULL, &id));
  SAYS(TRANSHIP_BAD_HANDLE, "expected an engine, not a region",
       tranship_engine_id((tranship_engine_t *)region, &id));
  SAYS(TRANSHIP_BAD_HANDLE, "never one",
       tranship_engine_id((tranship_engine_t *)((uintptr_t)engine + 99), &id));
  IS(TRANSHIP_BAD_HANDLE, tranship_engine_id((tranship_engine_t *)&id, &id));
  IS(TRANSHIP_BAD_HANDLE, tranship_engine_id((tranship_engine_t *)UINTPTR_MAX, &id));
  IS(TRANSHIP_BAD_HANDLE, tranship_engine_close((tranship_engine_t *)malloc, 0));
  // Closed twice, used after that, also once its place has another owner.
  OK(tranship_region_close(region, LONG));
  SAYS(TRANSHIP_CLOSED, "closed before", tranship_region_close(region, LONG));
  tranship_region_t *second = NULL;
  OK(tranship_region_alloc(engine, 4096, NULL, &second));
  CHECK(second != region);
  IS(TRANSHIP_CLOSED, tranship_region_data(region, NULL, NULL));
  OK(tranship_region_close(second, LONG));
  tranship_region_t *third = NULL;
  OK(tranship_region_alloc(engine, 4096, NULL, &third));
  IS(TRANSHIP_CLOSED, tranship_region_data(second, NULL, NULL));
  OK(tranship_region_data(third, NULL, NULL));
  // An engine that is closed takes nothing on, and what it gave out can still be closed.
  OK(tranship_engine_close(engine, LONG));
  IS(TRANSHIP_CLOSED, tranship_engine_close(engine, LONG));
  IS(TRANSHIP_CLOSED, tranship_region_alloc(engine, 4096, NULL, &region));
  tranship_window_t *window = NULL;
  IS(TRANSHIP_CLOSED, tranship_window_open(third, 0, 1, TRANSHIP_ACCESS_READ, &window));
  CHECK(window == NULL);
  OK(tranship_region_close(third, LONG));
}

static void structs_and_texts(void) {
  tranship_engine_t *engine = (tranship_engine_t *)1;
  tranship_engine_options_t options = TRANSHIP_INIT(tranship_engine_options_t);
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, NULL));
  // What an uninitialised struct has in it.
  options.size = 0;
  SAYS(TRANSHIP_INVALID, "begin with TRANSHIP_INIT(tranship_engine_options_t)",
       tranship_engine_open(&options, &engine));
  CHECK(engine == NULL);
  options.size = SIZE_MAX;
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, &engine));
  // One of a newer header: taken while it asks for nothing new.
  struct {
    tranship_engine_options_t known;
    uint64_t more;
  } newer = {TRANSHIP_INIT(tranship_engine_options_t), 0};
  newer.known.size = sizeof newer;
  OK(tranship_engine_open(&newer.known, &engine));
  OK(tranship_engine_close(engine, LONG));
  newer.more = 1;
  SAYS(TRANSHIP_VERSION, "newer libtranship", tranship_engine_open(&newer.known, &engine));
  // An answer to an older header: no byte beyond it is written.
  tranship_engine_stats_t stats;
  memset(&stats, 0xab, sizeof stats);
  stats.size = 8;
  OK(tranship_engine_open(NULL, &engine));
  IS(TRANSHIP_INVALID, tranship_engine_stats(engine, &stats));
  IS(TRANSHIP_INVALID, tranship_engine_stats(engine, NULL));
  OK(tranship_engine_close(engine, LONG));

  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.fabrics = "telepathy";
  SAYS(TRANSHIP_UNSUPPORTED, "telepathy", tranship_engine_open(&options, &engine));
  options.fabrics = "shm,shm";
  SAYS(TRANSHIP_SYSTEM, "twice", tranship_engine_open(&options, &engine));
  options.fabrics = "\xff\xfe";
  SAYS(TRANSHIP_INVALID, "UTF-8", tranship_engine_open(&options, &engine));
  char *endless = malloc(100001);
  memset(endless, 'x', 100000);
  endless[100000] = 0;
  options.fabrics = endless;
  SAYS(TRANSHIP_INVALID, "longer than", tranship_engine_open(&options, &engine));
  free(endless);
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.deadline_us = UINT64_MAX;
  SAYS(TRANSHIP_INVALID, "longer than a day", tranship_engine_open(&options, &engine));
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.counters = 65536;
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, &engine));
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.polling = 9;
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, &engine));
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.drive = 9;
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, &engine));
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.reserved = 9;
  IS(TRANSHIP_INVALID, tranship_engine_open(&options, &engine));
  options = TRANSHIP_INIT(tranship_engine_options_t);
  options.shm_path = "/no/such/directory/at/all";
  IS(TRANSHIP_SYSTEM, tranship_engine_open(&options, &engine));
}

static void sizes(void) {
  tranship_engine_t *engine = NULL;
  OK(tranship_engine_open(NULL, &engine));
  tranship_region_t *region = NULL;
  IS(TRANSHIP_NO_MEMORY, tranship_region_alloc(engine, SIZE_MAX / 4, NULL, &region));
  IS(TRANSHIP_NO_MEMORY, tranship_region_alloc(engine, SIZE_MAX, NULL, &region));
  tranship_alloc_options_t alloc = TRANSHIP_INIT(tranship_alloc_options_t);
  alloc.flags = 1u << 30;
  IS(TRANSHIP_INVALID, tranship_region_alloc(engine, 4096, &alloc, &region));
  SAYS(TRANSHIP_INVALID, "NULL", tranship_region_register(engine, NULL, 8, NULL, &region));
  IS(TRANSHIP_INVALID, tranship_region_register(engine, &alloc, SIZE_MAX, NULL, &region));
  CHECK(region == NULL);
  uint64_t index = 1;
  tranship_pages_t *pages = NULL;
  SAYS(TRANSHIP_INVALID, "at most", tranship_pages_table(8, &index, SIZE_MAX, &pages));
  IS(TRANSHIP_INVALID, tranship_pages_table(8, NULL, 1, &pages));
  IS(TRANSHIP_INVALID, tranship_pages_table(UINT64_MAX, &index, 1, &pages));
  SAYS(TRANSHIP_INVALID, "aligned", tranship_pages_table(8, (uint64_t *)((char *)&index + 1), 1, &pages));
  CHECK(pages == NULL);
  OK(tranship_pages_table(8, NULL, 0, &pages));
  OK(tranship_pages_close(pages));
  tranship_barrier_t *barrier = NULL;
  IS(TRANSHIP_INVALID, tranship_barrier_open(engine, SIZE_MAX, &barrier));
  IS(TRANSHIP_FULL, tranship_barrier_open(engine, 60000, &barrier));
  tranship_remote_t *remote = NULL;
  IS(TRANSHIP_INVALID, tranship_remote_open(engine, (uint8_t *)&index, SIZE_MAX, &remote));
  IS(TRANSHIP_INVALID, tranship_remote_open(engine, NULL, 8, &remote));
  tranship_incoming_t incoming;
  IS(TRANSHIP_INVALID, tranship_recv(engine, &incoming, NULL, 8, 0));
  IS(TRANSHIP_INVALID, tranship_recv(engine, NULL, NULL, 0, 0));
  IS(TRANSHIP_INVALID, tranship_recv(engine, &incoming, NULL, 0, UINT64_MAX));
  tranship_peer_t peer;
  SAYS(TRANSHIP_INVALID, "expected FABRIC:ENDPOINT", tranship_peer_at(engine, "nonsense", &peer));
  IS(TRANSHIP_INVALID, tranship_peer_at(engine, NULL, &peer));
  IS(TRANSHIP_UNSUPPORTED, tranship_peer_at(engine, "tcp:127.0.0.1:1", &peer));
  IS(TRANSHIP_UNREACHABLE, tranship_peer_connect(engine, "shm:/nowhere/at/all", SECOND, &peer));
  OK(tranship_engine_close(engine, LONG));
}

static void clients(const char *address) {
  tranship_client_t *client = NULL;
  tranship_client_options_t options = TRANSHIP_INIT(tranship_client_options_t);
  options.timeout_us = SECOND;
  options.address = "unix:///nowhere/at/all.sock";
  SAYS(TRANSHIP_UNREACHABLE, "start one with `tranship serve`", tranship_client_connect(&options, &client));
  options.address = "tcp://127.0.0.1:1";
  IS(TRANSHIP_UNREACHABLE, tranship_client_connect(&options, &client));
  options.address = "nonsense";
  SAYS(TRANSHIP_INVALID, "expected unix:///PATH", tranship_client_connect(&options, &client));
  options.address = address;
  options.tenant = "nobody";
  IS(TRANSHIP_DENIED, tranship_client_connect(&options, &client));
  CHECK(client == NULL);
  options.tenant = NULL;
  options.timeout_us = LONG;
  OK(tranship_client_connect(&options, &client));
  tranship_identity_t identity = TRANSHIP_INIT(tranship_identity_t);
  tranship_cache_t *cache = NULL;
  SAYS(TRANSHIP_INVALID, "model of the identity is empty", tranship_cache_open(client, &identity, &cache));
  IS(TRANSHIP_INVALID, tranship_cache_open(client, NULL, &cache));
  char longest[600];
  memset(longest, 'x', sizeof longest);
  longest[599] = 0;
  identity.model = longest;
  identity.dtype = "u8";
  IS(TRANSHIP_INVALID, tranship_cache_open(client, &identity, &cache));
  identity.model = "m";
  OK(tranship_cache_open(client, &identity, &cache));
  tranship_key_t key = {{1}};
  tranship_link_t link = {.key = key, .flags = 8};
  uint64_t len = 8;
  tranship_grant_t grant;
  size_t prefix = 0;
  uint32_t result = 0;
  char bytes[8] = "abcdefg";
  tranship_span_t span = {bytes, 8};
  tranship_spans_t spans = {&span, 1};
  IS(TRANSHIP_INVALID, tranship_reserve(cache, &link, &len, 1, 0, &grant));
  IS(TRANSHIP_INVALID, tranship_lookup(cache, NULL, 1, &prefix, NULL));
  IS(TRANSHIP_INVALID, tranship_lookup(cache, &key, SIZE_MAX, &prefix, NULL));
  IS(TRANSHIP_INVALID, tranship_lookup(cache, &key, 1, NULL, NULL));
  IS(TRANSHIP_INVALID, tranship_store(cache, &link, &spans, 1, 0, &result));
  IS(TRANSHIP_INVALID, tranship_load(cache, &key, &spans, 1, UINT64_MAX, &result));
  span.data = NULL;
  IS(TRANSHIP_INVALID, tranship_load(cache, &key, &spans, 1, 0, &result));
  spans.spans = NULL;
  IS(TRANSHIP_INVALID, tranship_load(cache, &key, &spans, 1, 0, &result));
  OK(tranship_lookup(cache, NULL, 0, &prefix, NULL));
  tranship_room_t *nothing = NULL;
  IS(TRANSHIP_INVALID, tranship_commit(cache, &nothing, 1, &result));
  IS(TRANSHIP_INVALID, tranship_lease_close(NULL));
  OK(tranship_cache_close(cache));
  IS(TRANSHIP_CLOSED, tranship_pin(cache, &key, 1, NULL));
  OK(tranship_client_close(client));
}

void misuse(const char *address) {
  handles();
  structs_and_texts();
  sizes();
  clients(address);
}
