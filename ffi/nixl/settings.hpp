// What the backend can be told: by its parameters, or by variables of the environment, because engines pass none on.
#pragma once

#include <cstdint>
#include <string>

#include "abi.hpp"

struct Settings {
  // HOST:PORT to listen at, and what peers are told to dial; as usual the library's.
  std::string listen, advertise;
  // The secret that both sides prove to know; as usual TRANSHIP_TOKEN of the environment, if that is set.
  std::string secret;
  // How long a transfer, a connection or a notification may take.
  uint64_t deadline_us = 30'000'000;
  // A file to which each transfer that has ended adds a line.
  std::string trace;

  // Their names, each with the value that means "as usual".
  static nixl_b_params_t names();

  // Reads them; tells in `wrong` what cannot be.
  static Settings read(const nixl_b_params_t &given, std::string &wrong);
};
