#include "transfer.hpp"

#include "status.hpp"

namespace {

// Two looks closer together than this are of a caller that does nothing else.
constexpr std::chrono::microseconds CIRCLE(50);
// How long such a caller waits.
constexpr uint64_t LOOK_US = 200;

}  // namespace

Transfer::~Transfer() {
  for (auto &part : parts_) {
    if (part.transfer != nullptr) (void)tranship_transfer_close(part.transfer);
    if (part.plan != nullptr) (void)tranship_plan_close(part.plan);
  }
  if (notice_transfer_ != nullptr) (void)tranship_transfer_close(notice_transfer_);
}

nixl_status_t Transfer::prepare(const nixl_meta_dlist_t &local, const nixl_meta_dlist_t &remote) {
  if (local.size() != remote.size()) {
    complain("preparing a transfer", std::to_string(local.size()) + " descriptors on this side and " +
                                         std::to_string(remote.size()) + " on the other: give as many");
    return NIXL_ERR_INVALID_PARAM;
  }
  for (size_t i = 0; i < local.size(); i++) {
    const auto *ours = dynamic_cast<const Local *>(local[i].metadataP);
    const auto *theirs = dynamic_cast<const Remote *>(remote[i].metadataP);
    uint64_t near = 0, far = 0;
    if (ours == nullptr || theirs == nullptr || !place(*ours, local[i], near) || !place(*theirs, remote[i], far) ||
        local[i].len != remote[i].len) {
      complain("preparing a transfer", "descriptor " + std::to_string(i) +
                                           " is of memory that is not registered, or of two lengths: name pieces of "
                                           "registered memory, as long on both sides");
      return NIXL_ERR_INVALID_PARAM;
    }
    pieces_ += 1;
    bytes_ += local[i].len;
    if (local[i].len == 0) continue;
    // Descriptors mostly come memory by memory: the last part, else an earlier one, else a new one.
    Part *part = nullptr;
    for (auto one = parts_.rbegin(); one != parts_.rend() && part == nullptr; ++one)
      if (one->region == ours->region && one->remote == theirs->remote) part = &*one;
    if (part == nullptr) part = &parts_.emplace_back(Part{ours->region, theirs->remote, {}, {}});
    part->near.push_back({near, local[i].len});
    part->far.push_back({far, remote[i].len});
  }
  for (auto &part : parts_)
    if (auto status = plan(part); status != NIXL_SUCCESS) return status;
  return NIXL_SUCCESS;
}

nixl_status_t Transfer::plan(Part &part) {
  if (part.near.size() == 1) return NIXL_SUCCESS;
  tranship_pages_t *near = nullptr, *far = nullptr;
  auto status = tranship_pages_ranges(part.near.data(), part.near.size(), &near);
  if (status == TRANSHIP_OK) status = tranship_pages_ranges(part.far.data(), part.far.size(), &far);
  if (status == TRANSHIP_OK) status = tranship_plan_open(near, far, &part.plan);
  auto told = status == TRANSHIP_OK ? NIXL_SUCCESS : failure("preparing a transfer", status);
  if (near != nullptr) (void)tranship_pages_close(near);
  if (far != nullptr) (void)tranship_pages_close(far);
  return told;
}

nixl_status_t Transfer::submit(Part &part) {
  auto options = TRANSHIP_INIT(tranship_submit_options_t);
  options.deadline_us = terms_.deadline_us;
  options.user_data = id_;
  if (has_notice_) options.queue = terms_.queue;
  auto *engine = terms_.engine;
  const auto &near = part.near[0], &far = part.far[0];
  tranship_status_t status;
  if (op_ == NIXL_WRITE && part.plan != nullptr)
    status = tranship_write_paged(engine, part.region, part.remote, part.plan, &options, &part.transfer);
  else if (op_ == NIXL_WRITE)
    status = tranship_write(engine, part.region, near.offset, part.remote, far.offset, near.len, &options,
                            &part.transfer);
  else if (part.plan != nullptr)
    status = tranship_read_paged(engine, part.remote, part.region, part.plan, &options, &part.transfer);
  else
    status = tranship_read(engine, part.remote, far.offset, part.region, near.offset, near.len, &options,
                           &part.transfer);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("starting a transfer", status);
}

nixl_status_t Transfer::post(const tranship_peer_t *peer, std::string notice) {
  std::lock_guard lock(mutex_);
  if (status_ == NIXL_IN_PROG) return NIXL_ERR_REPOST_ACTIVE;
  for (const auto &part : parts_)
    if (part.lost) return NIXL_ERR_REPOST_ACTIVE;
  has_notice_ = peer != nullptr;
  if (has_notice_) peer_ = *peer;
  notice_ = std::move(notice);
  failed_ = NIXL_SUCCESS;
  status_ = NIXL_IN_PROG;
  began_ = std::chrono::steady_clock::now();
  for (auto &part : parts_) {
    if (auto status = submit(part); status != NIXL_SUCCESS) {
      // What was started is stopped; its end is waited for as any other.
      fail(status);
      break;
    }
  }
  return NIXL_IN_PROG;
}

void Transfer::fail(nixl_status_t status) {
  if (failed_ != NIXL_SUCCESS) return;
  failed_ = status;
  // Not all of it can arrive: what is under way is in the way.
  for (auto &part : parts_)
    if (part.transfer != nullptr && !part.lost) (void)tranship_transfer_cancel(part.transfer);
}

bool Transfer::over(Part &part) {
  if (part.transfer == nullptr || part.lost) return true;
  tranship_completion_t end{};
  auto status = tranship_transfer_poll(part.transfer, &end);
  if (status == TRANSHIP_NOT_READY) return false;
  if (status != TRANSHIP_OK) {
    fail(failure("a transfer", status));
    part.transfer = nullptr;
    return true;
  }
  part.lost = end.outcome == TRANSHIP_OUTCOME_LOST && end.pages_free == 0;
  if (!part.lost) {
    (void)tranship_transfer_close(part.transfer);
    part.transfer = nullptr;
  }
  if (end.outcome != TRANSHIP_OUTCOME_DONE) {
    auto told = failed_ == NIXL_SUCCESS ? failure("a transfer", end) : failed_;
    fail(told);
  }
  return true;
}

nixl_status_t Transfer::notify() {
  auto options = TRANSHIP_INIT(tranship_submit_options_t);
  options.deadline_us = terms_.deadline_us;
  options.user_data = id_;
  options.queue = terms_.queue;
  const auto *bytes = reinterpret_cast<const uint8_t *>(notice_.data());
  auto status = tranship_send(terms_.engine, peer_, bytes, notice_.size(), &options, &notice_transfer_);
  return status == TRANSHIP_OK ? NIXL_SUCCESS : failure("notifying a peer", status);
}

bool Transfer::over_notice() {
  if (!has_notice_) return true;
  if (notice_transfer_ == nullptr) {
    // All bytes are visible at the peer: a write ends well after that, not before.
    if (auto status = notify(); status != NIXL_SUCCESS) {
      fail(status);
      return true;
    }
  }
  tranship_completion_t end{};
  auto status = tranship_transfer_poll(notice_transfer_, &end);
  if (status == TRANSHIP_NOT_READY) return false;
  (void)tranship_transfer_close(notice_transfer_);
  notice_transfer_ = nullptr;
  has_notice_ = false;
  if (status != TRANSHIP_OK)
    fail(failure("notifying a peer", status));
  else if (end.outcome != TRANSHIP_OUTCOME_DONE) fail(failure("notifying a peer", end));
  return true;
}

nixl_status_t Transfer::advance(bool &ended) {
  std::lock_guard lock(mutex_);
  return advance_locked(ended);
}

tranship_transfer_t *Transfer::under_way() const {
  for (const auto &part : parts_)
    if (part.transfer != nullptr && !part.lost) return part.transfer;
  return notice_transfer_;
}

nixl_status_t Transfer::look(bool &ended) {
  std::lock_guard lock(mutex_);
  auto status = advance_locked(ended);
  if (status != NIXL_IN_PROG) return status;
  if (std::chrono::steady_clock::now() - looked_at_ < CIRCLE) {
    tranship_completion_t end;
    auto *transfer = under_way();
    if (transfer != nullptr) (void)tranship_transfer_wait_for(transfer, LOOK_US, &end);
    status = advance_locked(ended);
  }
  looked_at_ = std::chrono::steady_clock::now();
  return status;
}

nixl_status_t Transfer::advance_locked(bool &ended) {
  ended = false;
  if (status_ != NIXL_IN_PROG) return status_;
  bool all = true;
  for (auto &part : parts_) all &= over(part);
  if (!all) return NIXL_IN_PROG;
  if (failed_ == NIXL_SUCCESS && !over_notice()) return NIXL_IN_PROG;
  over_at_ = std::chrono::steady_clock::now();
  ended = true;
  return status_ = failed_;
}

nixl_status_t Transfer::result() {
  std::lock_guard lock(mutex_);
  return status_;
}

nixl_status_t Transfer::stop(bool &ended) {
  std::lock_guard lock(mutex_);
  ended = status_ == NIXL_IN_PROG;
  if (ended) {
    fail(NIXL_ERR_CANCELED);
    if (notice_transfer_ != nullptr) (void)tranship_transfer_cancel(notice_transfer_);
    tranship_completion_t end;
    for (auto &part : parts_) {
      if (part.transfer != nullptr && !part.lost) (void)tranship_transfer_wait(part.transfer, &end);
      (void)over(part);
    }
    if (notice_transfer_ != nullptr) {
      (void)tranship_transfer_wait(notice_transfer_, &end);
      (void)tranship_transfer_close(notice_transfer_);
      notice_transfer_ = nullptr;
    }
    over_at_ = std::chrono::steady_clock::now();
    status_ = failed_;
  }
  for (auto &part : parts_) {
    uint32_t fenced = 0;
    if (!part.lost || tranship_transfer_fenced(part.transfer, &fenced) != TRANSHIP_OK) continue;
    // Bytes may still move: whoever gives its memory another use now may find them there.
    if (fenced == 0) return NIXL_ERR_NOT_ALLOWED;
    part.lost = false;
  }
  return NIXL_SUCCESS;
}

uint64_t Transfer::elapsed_us() const {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(over_at_ - began_).count());
}
