#include "engine/packed_verifier.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"

namespace qllm {
namespace {

constexpr unsigned kMostThreads = 8;  // more do not read faster
constexpr auto kLook = std::chrono::milliseconds(50);

}  // namespace

PackedVerifier::PackedVerifier(const PackedFile& file, const OpenOptions& options, bool known_good)
    : file_(file), options_(options) {
  shared_.compares = !known_good;
  unsigned threads = std::max(std::thread::hardware_concurrency(), 1U);
  if (options.threads > 0) threads = std::min(threads, static_cast<unsigned>(options.threads));
  for (unsigned i = 0; i < std::min(threads, kMostThreads); ++i) {
    threads_.push_back(in_background([this] { file_.verify(&shared_); }));
  }
}

PackedVerifier::~PackedVerifier() {
  shared_.stop = true;
  threads_.clear();  // waits
}

void PackedVerifier::finish() {
  for (std::future<void>& thread : threads_) {
    while (thread.wait_for(kLook) == std::future_status::timeout) {
      const double done = static_cast<double>(shared_.next) /
                          static_cast<double>(std::max<size_t>(file_.verify_items(), 1));
      require(!options_.progress || options_.progress("loading", std::min(done, 1.0)),
              ErrorCode::cancelled, "loading: cancelled");
    }
    thread.get();
  }
}

}  // namespace qllm
