#include "status.hpp"

#include <cstdio>

namespace {

nixl_status_t of(tranship_status_t status) {
  switch (status) {
    case TRANSHIP_OK: return NIXL_SUCCESS;
    case TRANSHIP_INVALID:
    case TRANSHIP_BAD_HANDLE: return NIXL_ERR_INVALID_PARAM;
    case TRANSHIP_UNSUPPORTED: return NIXL_ERR_NOT_SUPPORTED;
    case TRANSHIP_VERSION: return NIXL_ERR_MISMATCH;
    case TRANSHIP_UNREACHABLE:
    case TRANSHIP_DISCONNECTED: return NIXL_ERR_REMOTE_DISCONNECT;
    case TRANSHIP_REFUSED:
    case TRANSHIP_DENIED: return NIXL_ERR_NOT_ALLOWED;
    default: return NIXL_ERR_BACKEND;
  }
}

nixl_status_t of_reason(uint32_t reason) {
  switch (reason) {
    case TRANSHIP_REASON_CANCELLED: return NIXL_ERR_CANCELED;
    case TRANSHIP_REASON_UNREACHABLE:
    case TRANSHIP_REASON_PEER_GONE:
    case TRANSHIP_REASON_FOREIGN:
    case TRANSHIP_REASON_UNRESOLVED: return NIXL_ERR_REMOTE_DISCONNECT;
    case TRANSHIP_REASON_STALE:
    case TRANSHIP_REASON_FORGED:
    case TRANSHIP_REASON_DENIED:
    case TRANSHIP_REASON_UNAUTHORISED: return NIXL_ERR_NOT_ALLOWED;
    case TRANSHIP_REASON_OUT_OF_BOUNDS:
    case TRANSHIP_REASON_OVERLAPPING:
    case TRANSHIP_REASON_UNEVEN:
    case TRANSHIP_REASON_TOO_LONG: return NIXL_ERR_INVALID_PARAM;
    case TRANSHIP_REASON_UNSUPPORTED: return NIXL_ERR_NOT_SUPPORTED;
    case TRANSHIP_REASON_VERSION: return NIXL_ERR_MISMATCH;
    default: return NIXL_ERR_BACKEND;
  }
}

}  // namespace

void complain(const char *what, const std::string &why) {
  std::fprintf(stderr, "TRANSHIP: %s: %s\n", what, why.c_str());
}

nixl_status_t failure(const char *what, tranship_status_t status) {
  complain(what, tranship_last_error());
  return of(status);
}

nixl_status_t failure(const char *what, const tranship_completion_t &end) {
  complain(what, tranship_reason_text(end.reason));
  return of_reason(end.reason);
}
