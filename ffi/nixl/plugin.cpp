// What NIXL looks for in `libplugin_TRANSHIP.so`.
#include <exception>

#include "backend.hpp"
#include "status.hpp"

namespace {

nixlBackendEngine *create(const nixlBackendInitParams *from) {
  try {
    return new nixlTranshipEngine(from);
  } catch (const std::exception &error) {
    complain("the backend cannot be made", error.what());
    return nullptr;
  }
}

nixlBackendPlugin PLUGIN = {
    NIXL_PLUGIN_VERSION,
    create,
    [](nixlBackendEngine *engine) { delete engine; },
    [] { return "TRANSHIP"; },
    [] { return tranship_release(); },
    Settings::names,
    // Before there is an engine to ask; see getSupportedMems().
    [] { return nixl_mem_list_t{DRAM_SEG}; },
};

}  // namespace

extern "C" __attribute__((visibility("default"))) nixlBackendPlugin *nixl_plugin_init() { return &PLUGIN; }
extern "C" __attribute__((visibility("default"))) void nixl_plugin_fini() {}
// For `check`: the release of NIXL whose interface this was made for.
extern "C" __attribute__((visibility("default"))) const char *tranship_nixl_release() { return NIXL_RELEASE; }
