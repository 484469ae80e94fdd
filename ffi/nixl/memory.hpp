// Memory that NIXL registers, and that of peers.
#pragma once

#include <tranship.h>

#include "abi.hpp"

// This agent's: a region, and the window that peers reach it through.
struct Local : nixlBackendMD {
  Local() : nixlBackendMD(true) {}

  uintptr_t base = 0;
  uint64_t len = 0;
  tranship_region_t *region = nullptr;
  tranship_window_t *window = nullptr;
  // What peers need to use the window.
  std::string descriptor;

  // Registers it. When it fails nothing is left.
  nixl_status_t open(tranship_engine_t *engine, const nixlBlobDesc &memory, uint32_t kind);

  // Ends what uses it, and returns once nothing can touch it any more. After a failure it can be asked again.
  nixl_status_t close(uint64_t timeout_us);
};

// A peer's, or this agent's own as the far side of a transfer.
struct Remote : nixlBackendMD {
  Remote() : nixlBackendMD(false) {}
  ~Remote() override;

  uintptr_t base = 0;
  uint64_t len = 0;
  tranship_remote_t *remote = nullptr;

  nixl_status_t open(tranship_engine_t *engine, uintptr_t at, uint64_t bytes, const std::string &descriptor);
};

// Where a piece starts in a memory; false when it is not inside.
template <class Memory>
bool place(const Memory &memory, const nixlBasicDesc &piece, uint64_t &offset) {
  if (piece.addr < memory.base) return false;
  offset = piece.addr - memory.base;
  return offset <= memory.len && piece.len <= memory.len - offset;
}
