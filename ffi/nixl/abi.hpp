// What a backend plug-in and NIXL agree on: names, orders and layouts, as NIXL 1.5.1 has them (interface version 1).
//
// NIXL's wheels carry no headers, so these declarations are our own, with only what crosses the border. Names are
// NIXL's because the names of types are part of the names of functions, by which `check` compares every virtual
// slot with those of the installed wheel's plug-ins; the asserts at the end pin the layouts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

// The release whose interface this is; `check` names it beside the installed one.
inline constexpr const char NIXL_RELEASE[] = "1.5.1";
inline constexpr int NIXL_PLUGIN_VERSION = 1;

enum nixl_mem_t { DRAM_SEG, VRAM_SEG, BLK_SEG, OBJ_SEG, FILE_SEG };
enum nixl_xfer_op_t { NIXL_READ, NIXL_WRITE };
enum nixl_status_t {
  NIXL_IN_PROG = 1,
  NIXL_SUCCESS = 0,
  NIXL_ERR_NOT_POSTED = -1,
  NIXL_ERR_INVALID_PARAM = -2,
  NIXL_ERR_BACKEND = -3,
  NIXL_ERR_NOT_FOUND = -4,
  NIXL_ERR_MISMATCH = -5,
  NIXL_ERR_NOT_ALLOWED = -6,
  NIXL_ERR_REPOST_ACTIVE = -7,
  NIXL_ERR_UNKNOWN = -8,
  NIXL_ERR_NOT_SUPPORTED = -9,
  NIXL_ERR_REMOTE_DISCONNECT = -10,
  NIXL_ERR_CANCELED = -11,
};
enum class nixl_thread_sync_t : int;
enum class nixl_cost_t : int;

// A name, a setting's value, a message: bytes of any kind.
using nixl_mem_list_t = std::vector<nixl_mem_t>;
using nixl_b_params_t = std::unordered_map<std::string, std::string>;
using nixl_query_resp_t = std::optional<nixl_b_params_t>;
using notif_list_t = std::vector<std::pair<std::string, std::string>>;

// Of interest by name alone.
struct nixlAgentOptionalArgs;
class nixlRemoteMetaDesc;

// Memory registered with a backend, this agent's or a peer's; a backend derives its own.
class nixlBackendMD {
 public:
  explicit nixlBackendMD(bool is_private) : isPrivateMD(is_private) {}
  virtual ~nixlBackendMD() = default;

 protected:
  bool isPrivateMD;
};

// A transfer; a backend derives its own.
class nixlBackendReqH {
 public:
  nixlBackendReqH() = default;
  virtual ~nixlBackendReqH() = default;
};

struct nixlBasicDesc {
  uintptr_t addr;
  size_t len;
  uint64_t devId;
};

struct nixlMetaDesc : nixlBasicDesc {
  nixlBackendMD *metadataP;
};

struct nixlBlobDesc : nixlBasicDesc {
  std::string metaInfo;
};

// A list that NIXL makes and a backend reads.
template <class T>
class nixlDescList {
 public:
  virtual ~nixlDescList() = default;
  nixl_mem_t getType() const { return type; }
  size_t size() const { return descs.size(); }
  const T &operator[](size_t index) const { return descs[index]; }

 protected:
  nixl_mem_t type;
  std::vector<T> descs;
};

using nixl_meta_dlist_t = nixlDescList<nixlMetaDesc>;
using nixl_remote_meta_dlist_t = nixlDescList<nixlRemoteMetaDesc>;
using nixl_reg_dlist_t = nixlDescList<nixlBlobDesc>;

struct nixlBackendOptionalArgs {
  std::string notifMsg;
  bool hasNotif;
  std::string customParam;
};

struct nixlBackendInitParams {
  std::string localAgent;
  std::string type;
  nixl_b_params_t *customParams;
  bool enableProgTh;
  uint64_t pthrDelay;
  nixl_thread_sync_t syncMode;
  bool enableTelemetry;
};

// NIXL reads the fields below through functions that were compiled into it: their places are part of the interface.
class nixlBackendEngine {
  std::string backendType;
  nixl_b_params_t customParams;
  // NIXL's telemetry events, of which this backend adds none.
  struct Event;
  std::vector<Event *> telemetryEvents;
  std::mutex telemetryEventsMutex;

 protected:
  bool initErr = false;
  const std::string localAgent;
  const bool enableTelemetry;

  explicit nixlBackendEngine(const nixlBackendInitParams *from)
      : backendType(from->type),
        customParams(*from->customParams),
        localAgent(from->localAgent),
        enableTelemetry(from->enableTelemetry) {}

 public:
  nixlBackendEngine(const nixlBackendEngine &) = delete;
  nixlBackendEngine &operator=(const nixlBackendEngine &) = delete;

  // The order of what follows is the order of the slots. What is not abstract need not be had.
  virtual ~nixlBackendEngine() = default;
  virtual bool supportsRemote() const = 0;
  virtual bool supportsLocal() const = 0;
  virtual bool supportsNotif() const = 0;
  virtual nixl_mem_list_t getSupportedMems() const = 0;
  virtual nixl_status_t registerMem(const nixlBlobDesc &, const nixl_mem_t &, nixlBackendMD *&) = 0;
  virtual nixl_status_t deregisterMem(nixlBackendMD *) = 0;
  virtual nixl_status_t connect(const std::string &) = 0;
  virtual nixl_status_t disconnect(const std::string &) = 0;
  virtual nixl_status_t unloadMD(nixlBackendMD *) = 0;
  virtual nixl_status_t prepXfer(const nixl_xfer_op_t &, const nixl_meta_dlist_t &, const nixl_meta_dlist_t &,
                                 const std::string &, nixlBackendReqH *&,
                                 const nixlBackendOptionalArgs * = nullptr) const = 0;
  virtual nixl_status_t postXfer(const nixl_xfer_op_t &, const nixl_meta_dlist_t &, const nixl_meta_dlist_t &,
                                 const std::string &, nixlBackendReqH *&,
                                 const nixlBackendOptionalArgs * = nullptr) const = 0;
  virtual nixl_status_t checkXfer(nixlBackendReqH *) const = 0;
  virtual nixl_status_t releaseReqH(nixlBackendReqH *) const = 0;
  virtual nixl_status_t prepMemView(const nixl_remote_meta_dlist_t &, void *&,
                                    const nixlBackendOptionalArgs * = nullptr) const {
    return NIXL_ERR_NOT_SUPPORTED;
  }
  virtual nixl_status_t prepMemView(const nixl_meta_dlist_t &, void *&,
                                    const nixlBackendOptionalArgs * = nullptr) const {
    return NIXL_ERR_NOT_SUPPORTED;
  }
  virtual void releaseMemView(void *) const {}
  virtual nixl_status_t getPublicData(const nixlBackendMD *, std::string &) const { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t getConnInfo(std::string &) const { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t loadRemoteConnInfo(const std::string &, const std::string &) { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t loadRemoteMD(const nixlBlobDesc &, const nixl_mem_t &, const std::string &, nixlBackendMD *&) {
    return NIXL_ERR_BACKEND;
  }
  virtual nixl_status_t loadLocalMD(nixlBackendMD *, nixlBackendMD *&) { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t getNotifs(notif_list_t &) { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t genNotif(const std::string &, const std::string &) const { return NIXL_ERR_BACKEND; }
  virtual nixl_status_t queryMem(const nixl_reg_dlist_t &, std::vector<nixl_query_resp_t> &) const {
    return NIXL_ERR_NOT_SUPPORTED;
  }
  virtual nixl_status_t estimateXferCost(const nixl_xfer_op_t &, const nixl_meta_dlist_t &, const nixl_meta_dlist_t &,
                                         const std::string &, nixlBackendReqH *const &, std::chrono::microseconds &,
                                         std::chrono::microseconds &, nixl_cost_t &,
                                         const nixlAgentOptionalArgs * = nullptr) const {
    return NIXL_ERR_NOT_SUPPORTED;
  }

  // Never called: the places of what NIXL reads, as the constructors of the wheel's own plug-ins fill them.
  static void layout();
};

inline void nixlBackendEngine::layout() {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
  static_assert(offsetof(nixlBackendEngine, backendType) == 0x08);
  static_assert(offsetof(nixlBackendEngine, customParams) == 0x28);
  static_assert(offsetof(nixlBackendEngine, telemetryEvents) == 0x60);
  static_assert(offsetof(nixlBackendEngine, telemetryEventsMutex) == 0x78);
  static_assert(offsetof(nixlBackendEngine, initErr) == 0xa0);
  static_assert(offsetof(nixlBackendEngine, localAgent) == 0xa8);
  static_assert(offsetof(nixlBackendEngine, enableTelemetry) == 0xc8);
  static_assert(offsetof(nixlBackendInitParams, type) == 0x20);
  static_assert(offsetof(nixlBackendInitParams, customParams) == 0x40);
  static_assert(offsetof(nixlBackendInitParams, enableTelemetry) == 0x5c);
  static_assert(offsetof(nixlMetaDesc, metadataP) == 0x18 && sizeof(nixlMetaDesc) == 0x20);
  static_assert(offsetof(nixlBlobDesc, metaInfo) == 0x18);
  static_assert(offsetof(nixlBackendOptionalArgs, hasNotif) == 0x20);
#pragma GCC diagnostic pop
}

// What `nixl_plugin_init` answers with.
struct nixlBackendPlugin {
  int api_version;
  nixlBackendEngine *(*create_engine)(const nixlBackendInitParams *);
  void (*destroy_engine)(nixlBackendEngine *);
  const char *(*get_plugin_name)();
  const char *(*get_plugin_version)();
  nixl_b_params_t (*get_backend_options)();
  nixl_mem_list_t (*get_backend_mems)();
};
