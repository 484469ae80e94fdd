// Uses all of the interface, and misuses it: main ADDRESS OF A DAEMON, HOW OFTEN TO FORK
#include "check.h"

int main(int argc, char **argv) {
  CHECK(argc == 3);
  OK(tranship_require(TRANSHIP_ABI_VERSION));
  CHECK(tranship_abi_version() == TRANSHIP_ABI_VERSION);
  CHECK(strlen(tranship_release()) > 0);
  SAYS(TRANSHIP_VERSION, "install a newer libtranship", tranship_require(TRANSHIP_ABI_VERSION + 1));
  IS(TRANSHIP_VERSION, tranship_require(0));
  CHECK(strlen(tranship_last_error()) > 0);
  forked(argv[1], atoi(argv[2]));
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
