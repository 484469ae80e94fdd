// What the programs here have in common.
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tranship.h"

#define SECOND UINT64_C(1000000)
// For what must come, however slow the machine is.
#define LONG (60 * SECOND)

#define FAIL(...)                                              \
  do {                                                         \
    fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);            \
    fprintf(stderr, __VA_ARGS__);                              \
    fprintf(stderr, "\n  last error: %s\n", tranship_last_error()); \
    exit(1);                                                   \
  } while (0)

#define CHECK(condition)                 \
  do {                                   \
    if (!(condition)) FAIL("%s", #condition); \
  } while (0)

// The call answers with this status.
#define IS(status, call)                                                          \
  do {                                                                            \
    tranship_status_t answer_ = (call);                                           \
    if (answer_ != (status)) FAIL("%s is %d, not " #status, #call, (int)answer_); \
  } while (0)

#define OK(call) IS(TRANSHIP_OK, call)

// The call fails with this status, and its text says this.
#define SAYS(status, text, call)                                            \
  do {                                                                      \
    IS(status, call);                                                       \
    if (strstr(tranship_last_error(), text) == NULL) FAIL("no %s", text);   \
  } while (0)

void transport(const char *fabric);
void cache(const char *address);
void misuse(const char *address);
void forked(const char *address, int times);

#endif
