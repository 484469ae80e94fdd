// A child that was forked while its parent's threads were in the middle of calls: nothing of the parent's is
// touched, nothing hangs, and the child can open everything anew. Once, no other thread is there.
#define _DEFAULT_SOURCE
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static tranship_cache_t *shared;
static int stop;

// Keeps the library's locks busy.
static void *keeps_busy(void *unused) {
  (void)unused;
  while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
    tranship_engine_t *engine = NULL;
    size_t prefix = 0;
    tranship_key_t key = {{7}};
    OK(tranship_engine_open(NULL, &engine));
    OK(tranship_lookup(shared, &key, 1, &prefix, NULL));
    OK(tranship_engine_close(engine, LONG));
  }
  return NULL;
}

static tranship_cache_t *open_cache(const char *address, tranship_client_t **client) {
  tranship_client_options_t options = TRANSHIP_INIT(tranship_client_options_t);
  options.address = address;
  options.timeout_us = LONG;
  OK(tranship_client_connect(&options, client));
  tranship_identity_t identity = TRANSHIP_INIT(tranship_identity_t);
  identity.model = "forked";
  identity.dtype = "u8";
  tranship_cache_t *cache = NULL;
  OK(tranship_cache_open(*client, &identity, &cache));
  return cache;
}

static void child(const char *address, tranship_client_t *client, tranship_region_t *region, int told) {
  alarm(120);
  size_t prefix = 0, open = 1;
  tranship_key_t key = {{7}};
  SAYS(TRANSHIP_FORKED, "forked from", tranship_lookup(shared, &key, 1, &prefix, NULL));
  IS(TRANSHIP_FORKED, tranship_cache_close(shared));
  IS(TRANSHIP_FORKED, tranship_client_close(client));
  IS(TRANSHIP_FORKED, tranship_region_data(region, NULL, NULL));
  IS(TRANSHIP_FORKED, tranship_region_close(region, LONG));
  // The kind is told first.
  IS(TRANSHIP_BAD_HANDLE, tranship_engine_close((tranship_engine_t *)region, 0));
  OK(tranship_open_handles(&open));
  CHECK(open == 0);
  tranship_client_t *mine = NULL;
  tranship_cache_t *cache = open_cache(address, &mine);
  OK(tranship_lookup(cache, &key, 1, &prefix, NULL));
  CHECK(cache != shared);
  OK(tranship_cache_close(cache));
  OK(tranship_client_close(mine));
  IS(TRANSHIP_FORKED, tranship_cache_close(shared));
  OK(tranship_open_handles(&open));
  CHECK(open == 0);
  // Those who count what is lost at an exit would count what the parent's threads were in the middle of.
  CHECK(write(told, "", 1) == 1);
  kill(getpid(), SIGKILL);
}

void forked(const char *address, int times) {
  tranship_client_t *client = NULL;
  shared = open_cache(address, &client);
  tranship_engine_t *engine = NULL;
  tranship_region_t *region = NULL;
  OK(tranship_engine_open(NULL, &engine));
  OK(tranship_region_alloc(engine, 4096, NULL, &region));
  pthread_t thread;
  if (times > 1) CHECK(pthread_create(&thread, NULL, keeps_busy, NULL) == 0);
  for (int i = 0; i < times; i++) {
    int fds[2], status = -1;
    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) child(address, client, region, fds[1]);
    close(fds[1]);
    char well = 1;
    ssize_t got = read(fds[0], &well, 1);
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (got != 1 || well != 0) FAIL("child %d: status %#x", i, (unsigned)status);
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
  if (times > 1) CHECK(pthread_join(thread, NULL) == 0);
  // The parent goes on.
  OK(tranship_region_close(region, LONG));
  OK(tranship_engine_close(engine, LONG));
  OK(tranship_cache_close(shared));
  OK(tranship_client_close(client));
}
