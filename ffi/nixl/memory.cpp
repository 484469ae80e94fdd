#include "memory.hpp"

#include "status.hpp"

nixl_status_t Local::open(tranship_engine_t *engine, const nixlBlobDesc &memory, uint32_t kind) {
  base = memory.addr;
  len = memory.len;
  auto options = TRANSHIP_INIT(tranship_register_options_t);
  options.kind = kind;
  options.device = kind == TRANSHIP_MEMORY_HOST ? 0 : static_cast<uint32_t>(memory.devId);
  auto status = tranship_region_register(engine, reinterpret_cast<void *>(base), len, &options, &region);
  if (status != TRANSHIP_OK) return failure("registering memory", status);
  status = tranship_window_open(region, 0, len, TRANSHIP_ACCESS_READ | TRANSHIP_ACCESS_WRITE, &window);
  size_t bytes = 0;
  if (status == TRANSHIP_OK) status = tranship_window_descriptor(window, nullptr, 0, &bytes);
  if (status == TRANSHIP_OK) {
    descriptor.resize(bytes);
    auto *to = reinterpret_cast<uint8_t *>(descriptor.data());
    status = tranship_window_descriptor(window, to, bytes, &bytes);
  }
  if (status == TRANSHIP_OK) return NIXL_SUCCESS;
  auto told = failure("opening memory to peers", status);
  // Nobody has been told of it: nothing is under way.
  if (window != nullptr) (void)tranship_window_revoke(window, 0);
  (void)tranship_region_close(region, 0);
  return told;
}

nixl_status_t Local::close(uint64_t timeout_us) {
  if (window != nullptr) {
    auto status = tranship_window_revoke(window, timeout_us);
    if (status != TRANSHIP_OK) return failure("taking memory back from peers", status);
    window = nullptr;
  }
  auto status = tranship_region_close(region, timeout_us);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("taking memory back", status);
}

nixl_status_t Remote::open(tranship_engine_t *engine, uintptr_t at, uint64_t bytes, const std::string &descriptor) {
  base = at;
  len = bytes;
  const auto *from = reinterpret_cast<const uint8_t *>(descriptor.data());
  auto status = tranship_remote_open(engine, from, descriptor.size(), &remote);
  if (status != TRANSHIP_OK) return failure("loading what a peer says of its memory", status);
  uint64_t has = 0;
  status = tranship_remote_len(remote, &has);
  if (status != TRANSHIP_OK) return failure("loading what a peer says of its memory", status);
  if (has == len) return NIXL_SUCCESS;
  complain("loading what a peer says of its memory",
           "it has " + std::to_string(has) + " bytes, not " + std::to_string(len) + ": register and exchange it anew");
  return NIXL_ERR_MISMATCH;
}

Remote::~Remote() {
  if (remote != nullptr) (void)tranship_remote_close(remote);
}
