// Uses all of the interface, and misuses it: main ADDRESS OF A DAEMON
#include "check.h"

int main(int argc, char **argv) {
  CHECK(argc == 2);
  OK(tranship_require(TRANSHIP_ABI_VERSION));
  CHECK(tranship_abi_version() == TRANSHIP_ABI_VERSION);
  CHECK(strlen(tranship_release()) > 0);
  SAYS(TRANSHIP_VERSION, "install a newer libtranship", tranship_require(TRANSHIP_ABI_VERSION + 1));
  IS(TRANSHIP_VERSION, tranship_require(0));
  forked(argv[1]);
  transport("shm");
  transport("tcp");
  cache(argv[1]);
  misuse(argv[1]);
  size_t open = 1;
  OK(tranship_open_handles(&open));
  if (open != 0) FAIL("%zu handles are open", open);
  puts("done");
  return 0;
}
