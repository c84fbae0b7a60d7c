// A packed file compared with its checksums by threads beside the one that opens it.
#pragma once

#include <future>
#include <system_error>
#include <vector>

#include "model/packed_file.h"
#include "qllm/qllm.hpp"

namespace qllm {

/// Runs `work` on a thread of its own, or, where the system gives none, when the result is wanted.
template <typename Work>
std::future<void> in_background(const Work& work) {
  try {
    return std::async(std::launch::async, work);
  } catch (const std::system_error&) {
    return std::async(std::launch::deferred, work);
  }
}

class PackedVerifier {
 public:
  /// Begins; as many threads as the options give workers, a few at most. Both outlive this.
  /// `known_good`: the file is only brought into memory.
  PackedVerifier(const PackedFile& file, const OpenOptions& options, bool known_good);
  /// Stops.
  ~PackedVerifier();
  PackedVerifier(const PackedVerifier&) = delete;
  PackedVerifier& operator=(const PackedVerifier&) = delete;

  /// Somebody else compares the packed linears.
  void leave_linears() { shared_.linears = false; }
  /// Waits, with progress. Throws bad_format naming the damaged tensor, io, cancelled.
  void finish();

 private:
  const PackedFile& file_;
  const OpenOptions& options_;
  PackedFile::Verification shared_;
  std::vector<std::future<void>> threads_;
};

}  // namespace qllm
