// A file with a line of JSON for each transfer that has ended.
#pragma once

#include <cstdio>
#include <string>

class Trace {
 public:
  ~Trace();

  // Adds to a file, which several processes may share.
  bool open(const std::string &path);

  // Does nothing when no file was opened.
  void add(const std::string &agent, const std::string &peer, bool write, size_t pieces, uint64_t bytes, int status,
           uint64_t us);

 private:
  std::FILE *file_ = nullptr;
};
