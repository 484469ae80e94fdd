// A transfer of NIXL's: pieces of one or many memories, and what is told to the peer once they are there.
#pragma once

#include <tranship.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "abi.hpp"
#include "memory.hpp"

// What all transfers of an engine need.
struct Terms {
  tranship_engine_t *engine = nullptr;
  // Rings when an end is to be followed by a notification.
  tranship_queue_t *queue = nullptr;
  uint64_t deadline_us = 0;
};

class Transfer {
 public:
  Transfer(Terms terms, uint64_t id, nixl_xfer_op_t op) : terms_(terms), id_(id), op_(op) {}
  ~Transfer();
  Transfer(const Transfer &) = delete;
  Transfer &operator=(const Transfer &) = delete;

  // Pairs the pieces of both sides, once for as often as it is posted: those of two memories go in one submission.
  nixl_status_t prepare(const nixl_meta_dlist_t &local, const nixl_meta_dlist_t &remote);

  // Starts all of it. With `notice`, that message goes to `peer` after the last byte is visible there.
  nixl_status_t post(const tranship_peer_t *peer, std::string notice);

  // Goes on with what has ended, and says how it stands. The one who gets its end for the first time sees `ended`.
  nixl_status_t advance(bool &ended);

  // As advance(), for who asks again and again: such a caller waits a little in the engine, which moves bytes on and
  // lets the peer have the core, and does not keep it from both by asking.
  nixl_status_t look(bool &ended);

  // Stops it, and returns once no byte moves any more or its deadlines are over: only with NIXL_SUCCESS are its
  // pages free.
  nixl_status_t stop(bool &ended);

  // How it went, or that it has not ended.
  nixl_status_t result();

  uint64_t id() const { return id_; }
  bool writes() const { return op_ == NIXL_WRITE; }
  size_t pieces() const { return pieces_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t elapsed_us() const;

 private:
  // The pieces of one memory that go into one of the peer's, in the order in which they were named.
  struct Part {
    tranship_region_t *region;
    tranship_remote_t *remote;
    std::vector<tranship_range_t> near, far;
    tranship_plan_t *plan = nullptr;
    tranship_transfer_t *transfer = nullptr;
    // Of a transfer that was lost: it is kept until that is proven.
    bool lost = false;
  };

  nixl_status_t plan(Part &part);
  nixl_status_t submit(Part &part);
  nixl_status_t notify();
  // Whether the transfer has ended; its end is taken into account.
  bool over(Part &part);
  bool over_notice();
  nixl_status_t advance_locked(bool &ended);
  // What it waits for now.
  tranship_transfer_t *under_way() const;
  void fail(nixl_status_t status);

  const Terms terms_;
  const uint64_t id_;
  const nixl_xfer_op_t op_;
  size_t pieces_ = 0;
  uint64_t bytes_ = 0;

  std::mutex mutex_;
  std::vector<Part> parts_;
  nixl_status_t status_ = NIXL_ERR_NOT_POSTED;
  // The first failure, told when nothing is under way any more.
  nixl_status_t failed_ = NIXL_SUCCESS;
  bool has_notice_ = false;
  tranship_peer_t peer_{};
  std::string notice_;
  tranship_transfer_t *notice_transfer_ = nullptr;
  std::chrono::steady_clock::time_point began_, over_at_, looked_at_;
};
