// The header and the library from C++: all.cpp ADDRESS OF A DAEMON
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tranship.h"

namespace {

constexpr std::uint64_t kLong = 60'000'000;

void ok(tranship_status_t status) {
  if (status != TRANSHIP_OK) throw std::runtime_error(tranship_last_error());
}

// A handle that closes itself.
template <typename T, tranship_status_t (*Close)(T *)>
struct Closer {
  void operator()(T *handle) const { ok(Close(handle)); }
};
template <typename T, tranship_status_t (*Close)(T *)>
using Handle = std::unique_ptr<T, Closer<T, Close>>;

tranship_status_t close_engine(tranship_engine_t *engine) {
  return tranship_engine_close(engine, kLong);
}
tranship_status_t close_region(tranship_region_t *region) {
  return tranship_region_close(region, kLong);
}
tranship_status_t revoke(tranship_window_t *window) {
  return tranship_window_revoke(window, kLong);
}

using Engine = Handle<tranship_engine_t, close_engine>;
using Region = Handle<tranship_region_t, close_region>;
using Window = Handle<tranship_window_t, revoke>;
using Remote = Handle<tranship_remote_t, tranship_remote_close>;
using Queue = Handle<tranship_queue_t, tranship_queue_close>;
using Client = Handle<tranship_client_t, tranship_client_close>;
using Cache = Handle<tranship_cache_t, tranship_cache_close>;
using Lease = Handle<tranship_lease_t, tranship_lease_close>;

// Opens something, whatever else the call wants.
template <typename H, typename Open, typename... Args>
H open(Open call, Args... args) {
  typename H::pointer handle = nullptr;
  ok(call(args..., &handle));
  return H(handle);
}

void transport() {
  auto engine = open<Engine>(tranship_engine_open, nullptr);
  auto region = open<Region>(tranship_region_alloc, engine.get(), std::size_t{1} << 16, nullptr);
  auto window = open<Window>(tranship_window_open, region.get(), 32768, 32768,
                             TRANSHIP_ACCESS_WRITE | TRANSHIP_ACCESS_READ);
  std::vector<std::uint8_t> descriptor(4096);
  std::size_t len = 0;
  ok(tranship_window_descriptor(window.get(), descriptor.data(), descriptor.size(), &len));
  auto sender = open<Engine>(tranship_engine_open, nullptr);
  auto source = open<Region>(tranship_region_alloc, sender.get(), std::size_t{32768}, nullptr);
  auto remote = open<Remote>(tranship_remote_open, sender.get(), descriptor.data(), len);
  auto queue = open<Queue>(tranship_queue_open, sender.get());
  void *from = nullptr, *to = nullptr;
  ok(tranship_region_data(source.get(), &from, nullptr));
  ok(tranship_region_data(region.get(), &to, nullptr));
  auto options = TRANSHIP_INIT(tranship_submit_options_t);
  options.queue = queue.get();
  // Four threads submit, this one drains.
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      auto *bytes = static_cast<std::uint8_t *>(from) + t * 8192;
      for (std::size_t i = 0; i < 8192; i++) bytes[i] = static_cast<std::uint8_t>(i * 3 + t);
      auto mine = options;
      for (std::uint64_t i = 0; i < 64; i++) {
        mine.user_data = t * 64 + i;
        ok(tranship_write(sender.get(), source.get(), t * 8192 + i * 128, remote.get(),
                          t * 8192 + i * 128, 128, &mine, nullptr));
      }
    });
  }
  std::vector<bool> seen(256);
  for (std::size_t ended = 0; ended < seen.size();) {
    tranship_completion_t some[16];
    std::size_t count = 0;
    ok(tranship_queue_wait(queue.get(), some, 16, kLong, &count));
    for (std::size_t i = 0; i < count; i++) {
      if (some[i].outcome != TRANSHIP_OUTCOME_DONE || seen.at(some[i].user_data))
        throw std::runtime_error(tranship_reason_text(some[i].reason));
      seen.at(some[i].user_data) = true;
    }
    ended += count;
  }
  for (auto &thread : threads) thread.join();
  if (std::memcmp(from, static_cast<std::uint8_t *>(to) + 32768, 32768) != 0)
    throw std::runtime_error("other bytes arrived");
}

void cache(const char *address) {
  auto options = TRANSHIP_INIT(tranship_client_options_t);
  options.address = address;
  options.timeout_us = kLong;
  auto client = open<Client>(tranship_client_connect, &options);
  auto identity = TRANSHIP_INIT(tranship_identity_t);
  identity.model = "model";
  identity.salt = "c++";
  identity.dtype = "u8";
  auto cache = open<Cache>(tranship_cache_open, client.get(), &identity);
  std::string name = "a block", bytes(5000, 'x');
  tranship_link_t link{};
  ok(tranship_key_of_name(nullptr, 0, reinterpret_cast<const std::uint8_t *>(name.data()),
                          name.size(), &link.key));
  tranship_span_t span{bytes.data(), bytes.size()};
  tranship_spans_t spans{&span, 1};
  std::uint32_t result = 99;
  ok(tranship_store(cache.get(), &link, &spans, 1, 0, &result));
  if (result != TRANSHIP_STORE_STORED) throw std::runtime_error(tranship_last_reason(0));
  auto lease = open<Lease>(tranship_lease_open, cache.get(), &link.key, std::size_t{1}, kLong, kLong,
                           nullptr);
  const void *data = nullptr;
  std::size_t len = 0;
  ok(tranship_lease_view(lease.get(), 0, &data, &len));
  if (std::string(static_cast<const char *>(data), len) != bytes)
    throw std::runtime_error("other bytes came back");
  lease.reset();
  ok(tranship_remove(cache.get(), &link.key, 1, nullptr));
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  try {
    ok(tranship_require(TRANSHIP_ABI_VERSION));
    transport();
    cache(argv[1]);
    std::size_t handles = 1;
    ok(tranship_open_handles(&handles));
    if (handles != 0) throw std::runtime_error("handles are open");
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::puts("done");
}
