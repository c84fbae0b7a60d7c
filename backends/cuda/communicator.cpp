#include "communicator.h"

#include "core/error.h"

namespace qllm::cuda {

Communicator::Communicator(const NcclLibrary& nccl, const std::vector<int>& devices)
    : nccl_(nccl), communicators_(devices.size()) {
  check(nccl_.init_all(communicators_.data(), static_cast<int>(devices.size()), devices.data()),
        "ncclCommInitAll");
}

Communicator::~Communicator() {
  for (NcclCommunicator communicator : communicators_) nccl_.destroy(communicator);
}

void Communicator::check(NcclResult result, const char* what) const {
  require(result == kNcclSuccess, ErrorCode::internal, "cuda: {}: {}", what,
          nccl_.error_string(result));
}

void Communicator::all_gather(std::span<const Exchange> ranks, int64_t count) const {
  check(nccl_.group_start(), "ncclGroupStart");
  // A group that was begun is ended, whatever goes wrong in it.
  NcclResult result = kNcclSuccess;
  for (size_t r = 0; r < ranks.size() && result == kNcclSuccess; ++r) {
    result = nccl_.all_gather(ranks[r].send, ranks[r].receive, static_cast<size_t>(count),
                              kNcclFloat32, communicators_[r], ranks[r].stream);
  }
  const NcclResult ended = nccl_.group_end();
  check(result, "ncclAllGather");
  check(ended, "ncclGroupEnd");
}

}  // namespace qllm::cuda
