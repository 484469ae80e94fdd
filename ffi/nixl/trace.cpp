#include "trace.hpp"

#include <unistd.h>

namespace {

// Names of agents are text of any kind.
std::string quoted(const std::string &text) {
  std::string all = "\"";
  for (unsigned char byte : text) {
    char escaped[8];
    if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
      all += static_cast<char>(byte);
    } else {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      all += escaped;
    }
  }
  return all + '"';
}

}  // namespace

Trace::~Trace() {
  if (file_ != nullptr) std::fclose(file_);
}

bool Trace::open(const std::string &path) {
  file_ = std::fopen(path.c_str(), "ae");
  return file_ != nullptr;
}

void Trace::add(const std::string &agent, const std::string &peer, bool write, size_t pieces, uint64_t bytes,
                int status, uint64_t us) {
  if (file_ == nullptr) return;
  std::string line = "{\"pid\":" + std::to_string(getpid()) + ",\"agent\":" + quoted(agent) + ",\"peer\":" +
                     quoted(peer) + ",\"op\":" + (write ? "\"write\"" : "\"read\"") +
                     ",\"pieces\":" + std::to_string(pieces) + ",\"bytes\":" + std::to_string(bytes) +
                     ",\"status\":" + std::to_string(status) + ",\"us\":" + std::to_string(us) + "}\n";
  // One write of a file that is appended to: lines of several processes do not mix.
  std::fwrite(line.data(), 1, line.size(), file_);
  std::fflush(file_);
}
