// Writes into another process's memory, and waits for the end in an event loop:
//
//   cc transport.c $(pkg-config --cflags --libs tranship) -o transport && ./transport
//
// The child opens a window into its memory and hands its descriptor over a pipe; the parent writes.
#define _DEFAULT_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tranship.h>

#define BYTES 1048576
#define SECONDS(n) ((n) * UINT64_C(1000000))

static void check(tranship_status_t status) {
  if (status == TRANSHIP_OK) return;
  fprintf(stderr, "%s\n", tranship_last_error());
  exit(1);
}

static int receive(int pipe_fd) {
  tranship_engine_t *engine = NULL;
  tranship_region_t *pages = NULL;
  tranship_window_t *window = NULL;
  tranship_counter_t *arrivals = NULL;
  check(tranship_engine_open(NULL, &engine));
  check(tranship_region_alloc(engine, BYTES, NULL, &pages));
  check(tranship_window_open(pages, 0, BYTES, TRANSHIP_ACCESS_WRITE, &window));
  check(tranship_counter_open(engine, &arrivals));

  // What the other side needs: where to write, and whom to tell.
  unsigned char descriptor[4096];
  size_t len = 0;
  uint32_t slot = 0;
  check(tranship_window_descriptor(window, descriptor, sizeof descriptor, &len));
  check(tranship_counter_slot(arrivals, &slot));
  if (write(pipe_fd, &slot, sizeof slot) < 0 || write(pipe_fd, descriptor, len) < 0) return 1;
  close(pipe_fd);

  // One arrival: its payload is visible. After the fence the pages may be used for something else.
  check(tranship_counter_wait(arrivals, 1, SECONDS(10), NULL));
  check(tranship_window_revoke(window, SECONDS(10)));
  void *data = NULL;
  check(tranship_region_data(pages, &data, NULL));
  printf("the child has got: %s\n", (const char *)data);
  check(tranship_counter_close(arrivals));
  check(tranship_region_close(pages, SECONDS(10)));
  check(tranship_engine_close(engine, SECONDS(10)));
  return 0;
}

int main(void) {
  check(tranship_require(TRANSHIP_ABI_VERSION));
  int fds[2];
  if (pipe(fds) != 0) return 1;
  pid_t child = fork();
  if (child == 0) return receive(fds[1]);
  close(fds[1]);

  uint32_t slot = 0;
  unsigned char descriptor[4096];
  size_t len = 0;
  if (read(fds[0], &slot, sizeof slot) != sizeof slot) return 1;
  for (ssize_t got; (got = read(fds[0], descriptor + len, sizeof descriptor - len)) > 0;)
    len += (size_t)got;

  tranship_engine_t *engine = NULL;
  tranship_region_t *source = NULL;
  tranship_remote_t *to = NULL;
  tranship_queue_t *queue = NULL;
  check(tranship_engine_open(NULL, &engine));
  check(tranship_region_alloc(engine, BYTES, NULL, &source));
  check(tranship_remote_open(engine, descriptor, len, &to));
  check(tranship_queue_open(engine, &queue));
  void *data = NULL;
  check(tranship_region_data(source, &data, NULL));
  strcpy(data, "hello");

  tranship_submit_options_t options = TRANSHIP_INIT(tranship_submit_options_t);
  options.queue = queue;
  options.user_data = 42;
  options.flags = TRANSHIP_SUBMIT_IMMEDIATE;
  options.slot = slot;
  options.deadline_us = SECONDS(10);
  check(tranship_write(engine, source, 0, to, 0, BYTES, &options, NULL));

  // The queue's descriptor goes into any event loop.
  struct pollfd poller = {.events = POLLIN};
  check(tranship_queue_fd(queue, &poller.fd));
  tranship_completion_t end;
  size_t count = 0;
  while (count == 0 && poll(&poller, 1, 10000) > 0) check(tranship_queue_drain(queue, &end, 1, &count));
  if (count == 0 || end.outcome != TRANSHIP_OUTCOME_DONE) {
    fprintf(stderr, "not written: %s\n", count == 0 ? "no end" : tranship_reason_text(end.reason));
    return 1;
  }
  printf("transfer %d is done\n", (int)end.user_data);

  check(tranship_queue_close(queue));
  check(tranship_remote_close(to));
  check(tranship_region_close(source, SECONDS(10)));
  check(tranship_engine_close(engine, SECONDS(10)));
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}
