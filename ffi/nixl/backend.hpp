// NIXL's view of a Tranship engine.
#pragma once

#include <tranship.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "abi.hpp"
#include "settings.hpp"
#include "trace.hpp"
#include "transfer.hpp"

// Not in a namespace: its name is of one piece, as those of the wheel's own engines.
class nixlTranshipEngine : public nixlBackendEngine {
 public:
  explicit nixlTranshipEngine(const nixlBackendInitParams *from);
  ~nixlTranshipEngine() override;

  bool supportsRemote() const override { return true; }
  bool supportsLocal() const override { return true; }
  bool supportsNotif() const override { return true; }
  nixl_mem_list_t getSupportedMems() const override;

  nixl_status_t registerMem(const nixlBlobDesc &memory, const nixl_mem_t &kind, nixlBackendMD *&out) override;
  nixl_status_t deregisterMem(nixlBackendMD *memory) override;
  nixl_status_t connect(const std::string &agent) override;
  nixl_status_t disconnect(const std::string &agent) override;
  nixl_status_t unloadMD(nixlBackendMD *memory) override;

  nixl_status_t prepXfer(const nixl_xfer_op_t &op, const nixl_meta_dlist_t &local, const nixl_meta_dlist_t &remote,
                         const std::string &agent, nixlBackendReqH *&handle,
                         const nixlBackendOptionalArgs *options) const override;
  nixl_status_t postXfer(const nixl_xfer_op_t &op, const nixl_meta_dlist_t &local, const nixl_meta_dlist_t &remote,
                         const std::string &agent, nixlBackendReqH *&handle,
                         const nixlBackendOptionalArgs *options) const override;
  nixl_status_t checkXfer(nixlBackendReqH *handle) const override;
  nixl_status_t releaseReqH(nixlBackendReqH *handle) const override;

  nixl_status_t getPublicData(const nixlBackendMD *memory, std::string &out) const override;
  nixl_status_t getConnInfo(std::string &out) const override;
  nixl_status_t loadRemoteConnInfo(const std::string &agent, const std::string &info) override;
  nixl_status_t loadRemoteMD(const nixlBlobDesc &memory, const nixl_mem_t &kind, const std::string &agent,
                             nixlBackendMD *&out) override;
  nixl_status_t loadLocalMD(nixlBackendMD *memory, nixlBackendMD *&out) override;

  nixl_status_t getNotifs(notif_list_t &out) override;
  nixl_status_t genNotif(const std::string &agent, const std::string &message) const override;

 private:
  nixl_status_t peer(const std::string &agent, tranship_peer_t &out) const;
  nixl_status_t frame(const std::string &message, std::string &out) const;
  // How a transfer stands; that it has ended is traced.
  nixl_status_t ask(nixl_status_t (Transfer::*how)(bool &), Transfer &transfer, const std::string &agent) const;
  // Follows the ends of transfers that a notification comes after, so that nobody has to ask for it to be sent.
  void follow();

  Settings settings_;
  Terms terms_;
  std::string address_;
  size_t message_bytes_max_ = 0;
  mutable Trace trace_;

  mutable std::mutex peers_mutex_;
  std::unordered_map<std::string, std::string> peers_;

  struct Live {
    std::shared_ptr<Transfer> transfer;
    std::string agent;
  };
  // Never held while a transfer is advanced.
  mutable std::mutex live_mutex_;
  mutable std::unordered_map<uint64_t, Live> live_;
  mutable std::atomic<uint64_t> next_id_{1};

  std::mutex incoming_mutex_;
  std::string incoming_;

  // Whose threads and handles these are: a forked child has none of them.
  const int pid_;
  int stop_fd_ = -1;
  std::thread follower_;
};
