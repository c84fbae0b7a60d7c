// NCCL among emulated devices: calls are collected until their group ends, then carried out, as the
// real one may do it no earlier. What would hang there (a rank that does not take part, counts that
// differ) is an error here, and so is memory of another device.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "cuda_host/devices.h"
#include "nccl_library.h"

struct qllm::cuda::NcclRank {
  int rank = 0;
  int ranks = 0;
  int device = 0;
  int64_t team = 0;
};

namespace qllm::cuda_host {
namespace {

using cuda::NcclCommunicator;
using cuda::NcclResult;
constexpr NcclResult kInvalidUsage = 5;

struct Call {
  const std::byte* send;
  std::byte* receive;
  size_t bytes;
  NcclCommunicator communicator;
  cudaStream_t stream;
};

struct State {
  bool installed = true;
  int depth = 0;
  std::vector<Call> calls;
  std::atomic<int64_t> gathers = 0, communicators = 0, teams = 0;
};
State& state() {
  static State s;
  return s;
}

NcclResult init_all(NcclCommunicator* out, int count, const int* devices) {
  const int64_t team = ++state().teams;
  for (int r = 0; r < count; ++r) out[r] = new cuda::NcclRank{r, count, devices[r], team};
  state().communicators += count;
  return cuda::kNcclSuccess;
}

NcclResult destroy(NcclCommunicator communicator) {
  delete communicator;
  --state().communicators;
  return cuda::kNcclSuccess;
}

NcclResult all_gather(const void* send, void* receive, size_t count, int type,
                      NcclCommunicator communicator, cudaStream_t stream) {
  if (type != cuda::kNcclFloat32 || state().depth == 0) return kInvalidUsage;
  state().calls.push_back({static_cast<const std::byte*>(send), static_cast<std::byte*>(receive),
                           count * sizeof(float), communicator, stream});
  return cuda::kNcclSuccess;
}

bool own_memory(const Call& call) {
  const int device = call.communicator->device;
  const std::byte* const last =
      call.receive + call.bytes * static_cast<size_t>(call.communicator->ranks) - 1;
  return device_of(call.stream) == device && owner_of(call.send) == device &&
         owner_of(call.send + call.bytes - 1) == device && owner_of(call.receive) == device &&
         owner_of(last) == device;
}

/// The calls of one communicator's ranks, one each.
NcclResult run(std::vector<Call> calls) {
  std::sort(calls.begin(), calls.end(), [](const Call& a, const Call& b) {
    return a.communicator->rank < b.communicator->rank;
  });
  const Call& first = calls.front();
  if (static_cast<int>(calls.size()) != first.communicator->ranks) return kInvalidUsage;
  for (size_t r = 0; r < calls.size(); ++r) {
    const Call& call = calls[r];
    if (call.communicator->rank != static_cast<int>(r) || call.bytes != first.bytes ||
        !own_memory(call)) {
      return kInvalidUsage;
    }
  }
  std::vector<std::byte> all;
  for (const Call& call : calls) all.insert(all.end(), call.send, call.send + call.bytes);
  for (const Call& call : calls) std::memcpy(call.receive, all.data(), all.size());
  ++state().gathers;
  return cuda::kNcclSuccess;
}

NcclResult group_start() {
  ++state().depth;
  return cuda::kNcclSuccess;
}

NcclResult group_end() {
  if (state().depth == 0) return kInvalidUsage;
  if (--state().depth > 0) return cuda::kNcclSuccess;
  std::map<int64_t, std::vector<Call>> teams;
  for (const Call& call : state().calls) teams[call.communicator->team].push_back(call);
  state().calls.clear();
  for (auto& [team, calls] : teams) {
    if (const NcclResult result = run(std::move(calls)); result != cuda::kNcclSuccess) {
      return result;
    }
  }
  return cuda::kNcclSuccess;
}

const char* error_string(NcclResult result) {
  return result == kInvalidUsage ? "invalid usage" : "no error";
}

}  // namespace

void install_nccl(bool installed) { state().installed = installed; }
int64_t gathers() { return state().gathers; }
int64_t communicators() { return state().communicators; }

}  // namespace qllm::cuda_host

namespace qllm::cuda {

const NcclLibrary* load_nccl() {
  static const NcclLibrary library{cuda_host::init_all,   cuda_host::destroy,
                                   cuda_host::all_gather, cuda_host::group_start,
                                   cuda_host::group_end,  cuda_host::error_string};
  return cuda_host::state().installed ? &library : nullptr;
}

}  // namespace qllm::cuda
