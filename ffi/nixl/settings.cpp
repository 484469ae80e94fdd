#include "settings.hpp"

#include <charconv>
#include <cstdlib>

nixl_b_params_t Settings::names() {
  return {{"listen", ""}, {"advertise", ""}, {"secret", ""}, {"deadline_ms", ""}, {"trace", ""}};
}

namespace {

std::string environment(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A parameter, else its variable.
std::string value(const nixl_b_params_t &given, const char *name, const char *variable) {
  auto found = given.find(name);
  return found == given.end() || found->second.empty() ? environment(variable) : found->second;
}

}  // namespace

Settings Settings::read(const nixl_b_params_t &given, std::string &wrong) {
  for (const auto &[name, _] : given)
    if (!names().contains(name))
      wrong = "no parameter is called " + name + "; there are listen, advertise, secret, deadline_ms and trace";
  Settings all;
  all.listen = value(given, "listen", "TRANSHIP_NIXL_LISTEN");
  all.advertise = value(given, "advertise", "TRANSHIP_NIXL_ADVERTISE");
  all.secret = value(given, "secret", "TRANSHIP_TOKEN");
  all.trace = value(given, "trace", "TRANSHIP_NIXL_TRACE");
  std::string deadline = value(given, "deadline_ms", "TRANSHIP_NIXL_DEADLINE_MS");
  if (!deadline.empty()) {
    constexpr uint64_t DAY_MS = 86'400'000;
    uint64_t ms = 0;
    auto [end, error] = std::from_chars(deadline.data(), deadline.data() + deadline.size(), ms);
    if (error != std::errc() || end != deadline.data() + deadline.size() || ms == 0 || ms > DAY_MS)
      wrong = "deadline_ms is " + deadline + ": give milliseconds, from 1 to 86400000";
    all.deadline_us = ms * 1000;
  }
  return all;
}
