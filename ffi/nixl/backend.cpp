#include "backend.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "status.hpp"

namespace {

// What a notification begins with: its version, then the length of the sender's name, which the message follows.
constexpr char NOTICE[] = {'T', 'N', 'X', '1'};
constexpr size_t HEAD_BYTES = sizeof NOTICE + sizeof(uint32_t);
// What the address in the connection's information begins with.
const std::string HELLO = "tranship-nixl/1 ";

struct Handle : nixlBackendReqH {
  Handle(std::shared_ptr<Transfer> of, std::string to) : transfer(std::move(of)), agent(std::move(to)) {}
  std::shared_ptr<Transfer> transfer;
  std::string agent;
};

uint32_t memory_kind(nixl_mem_t kind) { return kind == VRAM_SEG ? TRANSHIP_MEMORY_CUDA : TRANSHIP_MEMORY_HOST; }

const char *given(const std::string &text) { return text.empty() ? nullptr : text.c_str(); }

void check(const char *what, tranship_status_t status) {
  if (status != TRANSHIP_OK) throw std::runtime_error(std::string(what) + ": " + tranship_last_error());
}

}  // namespace

nixlTranshipEngine::nixlTranshipEngine(const nixlBackendInitParams *from)
    : nixlBackendEngine(from), pid_(getpid()) {
  std::string wrong;
  settings_ = Settings::read(*from->customParams, wrong);
  if (!wrong.empty()) throw std::runtime_error(wrong);
  check("the library", tranship_require(TRANSHIP_ABI_VERSION));
  auto options = TRANSHIP_INIT(tranship_engine_options_t);
  // NIXL brings memory of its own, which shm cannot map into peers.
  options.fabrics = "tcp";
  options.tcp_listen = given(settings_.listen);
  options.tcp_advertise = given(settings_.advertise);
  options.tcp_secret = given(settings_.secret);
  options.deadline_us = settings_.deadline_us;
  check("opening an engine", tranship_engine_open(&options, &terms_.engine));
  terms_.deadline_us = settings_.deadline_us;
  try {
    check("opening a queue", tranship_queue_open(terms_.engine, &terms_.queue));
    char address[512];
    check("its address", tranship_engine_address(terms_.engine, 0, address, sizeof address, nullptr));
    address_ = address;
    check("its limits", tranship_engine_message_bytes_max(terms_.engine, &message_bytes_max_));
    incoming_.resize(message_bytes_max_);
    if (!settings_.trace.empty() && !trace_.open(settings_.trace))
      throw std::runtime_error("trace " + settings_.trace + " cannot be opened: " + std::strerror(errno));
    stop_fd_ = eventfd(0, EFD_CLOEXEC);
    if (stop_fd_ < 0) throw std::runtime_error(std::string("eventfd: ") + std::strerror(errno));
    follower_ = std::thread([this] { follow(); });
  } catch (...) {
    if (stop_fd_ >= 0) ::close(stop_fd_);
    if (terms_.queue != nullptr) (void)tranship_queue_close(terms_.queue);
    (void)tranship_engine_close(terms_.engine, settings_.deadline_us);
    throw;
  }
  peers_[localAgent] = address_;
}

nixlTranshipEngine::~nixlTranshipEngine() {
  if (getpid() != pid_) {
    follower_.detach();
    return;
  }
  const uint64_t one = 1;
  (void)!::write(stop_fd_, &one, sizeof one);
  follower_.join();
  ::close(stop_fd_);
  live_.clear();
  (void)tranship_queue_close(terms_.queue);
  if (auto status = tranship_engine_close(terms_.engine, settings_.deadline_us); status != TRANSHIP_OK)
    failure("closing the engine", status);
}

nixl_mem_list_t nixlTranshipEngine::getSupportedMems() const {
  // Whether there is a way to memory of devices is the library's to say: host memory stands for it in the question.
  uint64_t word = 0;
  auto options = TRANSHIP_INIT(tranship_register_options_t);
  options.kind = TRANSHIP_MEMORY_CUDA;
  tranship_region_t *region = nullptr;
  auto status = tranship_region_register(terms_.engine, &word, sizeof word, &options, &region);
  if (region != nullptr) (void)tranship_region_close(region, settings_.deadline_us);
  if (status == TRANSHIP_UNSUPPORTED) return {DRAM_SEG};
  return {DRAM_SEG, VRAM_SEG};
}

nixl_status_t nixlTranshipEngine::registerMem(const nixlBlobDesc &memory, const nixl_mem_t &kind,
                                              nixlBackendMD *&out) {
  if (kind != DRAM_SEG && kind != VRAM_SEG) return NIXL_ERR_NOT_SUPPORTED;
  auto local = std::make_unique<Local>();
  auto status = local->open(terms_.engine, memory, memory_kind(kind));
  if (status == NIXL_SUCCESS) out = local.release();
  return status;
}

nixl_status_t nixlTranshipEngine::deregisterMem(nixlBackendMD *memory) {
  auto *local = dynamic_cast<Local *>(memory);
  if (local == nullptr) return NIXL_ERR_INVALID_PARAM;
  auto status = local->close(settings_.deadline_us);
  // Else the caller has to leave the memory alone, and may ask again.
  if (status == NIXL_SUCCESS) delete local;
  return status;
}

nixl_status_t nixlTranshipEngine::connect(const std::string &agent) {
  std::string address;
  {
    std::lock_guard lock(peers_mutex_);
    auto found = peers_.find(agent);
    if (found == peers_.end()) return NIXL_ERR_NOT_FOUND;
    address = found->second;
  }
  if (agent == localAgent) return NIXL_SUCCESS;
  tranship_peer_t peer;
  auto status = tranship_peer_connect(terms_.engine, address.c_str(), settings_.deadline_us, &peer);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("connecting", status);
}

nixl_status_t nixlTranshipEngine::disconnect(const std::string &agent) {
  if (agent == localAgent) return NIXL_SUCCESS;
  tranship_peer_t to;
  if (auto status = peer(agent, to); status != NIXL_SUCCESS) return status;
  (void)tranship_peer_disconnect(terms_.engine, to);
  std::lock_guard lock(peers_mutex_);
  peers_.erase(agent);
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::unloadMD(nixlBackendMD *memory) {
  delete dynamic_cast<Remote *>(memory);
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::prepXfer(const nixl_xfer_op_t &op, const nixl_meta_dlist_t &local,
                                           const nixl_meta_dlist_t &remote, const std::string &agent,
                                           nixlBackendReqH *&handle, const nixlBackendOptionalArgs *) const {
  auto transfer = std::make_shared<Transfer>(terms_, next_id_.fetch_add(1), op);
  if (auto status = transfer->prepare(local, remote); status != NIXL_SUCCESS) return status;
  {
    std::lock_guard lock(live_mutex_);
    live_.emplace(transfer->id(), Live{transfer, agent});
  }
  handle = new Handle(std::move(transfer), agent);
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::postXfer(const nixl_xfer_op_t &, const nixl_meta_dlist_t &,
                                           const nixl_meta_dlist_t &, const std::string &agent,
                                           nixlBackendReqH *&handle, const nixlBackendOptionalArgs *options) const {
  auto &transfer = *static_cast<Handle *>(handle)->transfer;
  tranship_peer_t to;
  std::string notice;
  bool has_notice = options != nullptr && options->hasNotif;
  if (has_notice) {
    if (auto status = peer(agent, to); status != NIXL_SUCCESS) return status;
    if (auto status = frame(options->notifMsg, notice); status != NIXL_SUCCESS) return status;
  }
  auto status = transfer.post(has_notice ? &to : nullptr, std::move(notice));
  return status == NIXL_IN_PROG ? ask(&Transfer::advance, transfer, agent) : status;
}

nixl_status_t nixlTranshipEngine::ask(nixl_status_t (Transfer::*how)(bool &), Transfer &transfer,
                                      const std::string &agent) const {
  bool ended = false;
  auto status = (transfer.*how)(ended);
  if (ended) {
    trace_.add(localAgent, agent, transfer.writes(), transfer.pieces(), transfer.bytes(), transfer.result(),
               transfer.elapsed_us());
  }
  return status;
}

nixl_status_t nixlTranshipEngine::checkXfer(nixlBackendReqH *handle) const {
  auto *of = static_cast<Handle *>(handle);
  // Moved on before it is asked, so that one look now and then is enough.
  (void)tranship_engine_progress(terms_.engine, nullptr);
  return ask(&Transfer::look, *of->transfer, of->agent);
}

nixl_status_t nixlTranshipEngine::releaseReqH(nixlBackendReqH *handle) const {
  auto *of = static_cast<Handle *>(handle);
  if (auto status = ask(&Transfer::stop, *of->transfer, of->agent); status != NIXL_SUCCESS) return status;
  {
    std::lock_guard lock(live_mutex_);
    live_.erase(of->transfer->id());
  }
  delete of;
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::getPublicData(const nixlBackendMD *memory, std::string &out) const {
  const auto *local = dynamic_cast<const Local *>(memory);
  if (local == nullptr) return NIXL_ERR_INVALID_PARAM;
  out = local->descriptor;
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::getConnInfo(std::string &out) const {
  out = HELLO + address_;
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::loadRemoteConnInfo(const std::string &agent, const std::string &info) {
  if (!info.starts_with(HELLO)) {
    complain("a peer's address", "it is of another version of this plug-in: use one version on both sides");
    return NIXL_ERR_MISMATCH;
  }
  std::lock_guard lock(peers_mutex_);
  peers_[agent] = info.substr(HELLO.size());
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::loadRemoteMD(const nixlBlobDesc &memory, const nixl_mem_t &kind,
                                               const std::string &, nixlBackendMD *&out) {
  if (kind != DRAM_SEG && kind != VRAM_SEG) return NIXL_ERR_NOT_SUPPORTED;
  auto remote = std::make_unique<Remote>();
  auto status = remote->open(terms_.engine, memory.addr, memory.len, memory.metaInfo);
  if (status == NIXL_SUCCESS) out = remote.release();
  return status;
}

nixl_status_t nixlTranshipEngine::loadLocalMD(nixlBackendMD *memory, nixlBackendMD *&out) {
  const auto *local = dynamic_cast<const Local *>(memory);
  if (local == nullptr) return NIXL_ERR_INVALID_PARAM;
  auto remote = std::make_unique<Remote>();
  auto status = remote->open(terms_.engine, local->base, local->len, local->descriptor);
  if (status == NIXL_SUCCESS) out = remote.release();
  return status;
}

nixl_status_t nixlTranshipEngine::peer(const std::string &agent, tranship_peer_t &out) const {
  std::string address;
  {
    std::lock_guard lock(peers_mutex_);
    auto found = peers_.find(agent);
    if (found == peers_.end()) return NIXL_ERR_NOT_FOUND;
    address = found->second;
  }
  auto status = tranship_peer_at(terms_.engine, address.c_str(), &out);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("naming a peer", status);
}

nixl_status_t nixlTranshipEngine::frame(const std::string &message, std::string &out) const {
  size_t bytes = HEAD_BYTES + localAgent.size() + message.size();
  if (bytes > message_bytes_max_) {
    complain("notifying a peer", std::to_string(message.size()) + " bytes; at most " +
                                     std::to_string(message_bytes_max_ - HEAD_BYTES - localAgent.size()) +
                                     " go with one notification: move more as a transfer");
    return NIXL_ERR_INVALID_PARAM;
  }
  auto name_bytes = static_cast<uint32_t>(localAgent.size());
  out.reserve(bytes);
  out.append(NOTICE, sizeof NOTICE);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(name_bytes >> shift);
  out += localAgent;
  out += message;
  return NIXL_SUCCESS;
}

nixl_status_t nixlTranshipEngine::genNotif(const std::string &agent, const std::string &message) const {
  tranship_peer_t to;
  std::string notice;
  if (auto status = peer(agent, to); status != NIXL_SUCCESS) return status;
  if (auto status = frame(message, notice); status != NIXL_SUCCESS) return status;
  const auto *bytes = reinterpret_cast<const uint8_t *>(notice.data());
  auto status = tranship_send(terms_.engine, to, bytes, notice.size(), nullptr, nullptr);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("notifying a peer", status);
}

nixl_status_t nixlTranshipEngine::getNotifs(notif_list_t &out) {
  std::lock_guard lock(incoming_mutex_);
  for (;;) {
    tranship_incoming_t incoming;
    auto *buffer = reinterpret_cast<uint8_t *>(incoming_.data());
    auto status = tranship_recv(terms_.engine, &incoming, buffer, incoming_.size(), 0);
    if (status == TRANSHIP_TIMEOUT) return NIXL_SUCCESS;
    if (status != TRANSHIP_OK) return failure("asking for notifications", status);
    if (incoming.kind != TRANSHIP_INCOMING_MESSAGE) continue;
    // Anybody who may connect may send: what is no notification is left out.
    if (incoming.len < HEAD_BYTES || std::memcmp(buffer, NOTICE, sizeof NOTICE) != 0) continue;
    uint32_t name_bytes = 0;
    for (int i = 0; i < 4; i++) name_bytes |= static_cast<uint32_t>(buffer[sizeof NOTICE + i]) << (8 * i);
    if (name_bytes > incoming.len - HEAD_BYTES) continue;
    const char *name = incoming_.data() + HEAD_BYTES;
    out.emplace_back(std::string(name, name_bytes),
                     std::string(name + name_bytes, incoming.len - HEAD_BYTES - name_bytes));
  }
}

void nixlTranshipEngine::follow() {
  pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {-1, POLLIN, 0}};
  if (tranship_queue_fd(terms_.queue, &fds[1].fd) != TRANSHIP_OK) return;
  while (fds[0].revents == 0) {
    if (poll(fds, 2, -1) < 0) continue;
    tranship_completion_t ends[64];
    size_t count = 0;
    if (tranship_queue_drain(terms_.queue, ends, 64, &count) != TRANSHIP_OK) return;
    for (size_t i = 0; i < count; i++) {
      Live live;
      {
        std::lock_guard lock(live_mutex_);
        auto found = live_.find(ends[i].user_data);
        if (found == live_.end()) continue;
        live = found->second;
      }
      (void)ask(&Transfer::advance, *live.transfer, live.agent);
    }
  }
}
