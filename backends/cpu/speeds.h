// Shares by speed, for machines whose cores differ.
#pragma once

#include <cstdint>
#include <vector>

#include "topology.h"
#include "worker_pool.h"

namespace qllm::cpu {

/// Where each worker's share of `units` begins, and the end behind the last: [workers + 1]. A share
/// is as large as the worker is fast, to one unit. Speeds are positive, in any unit.
std::vector<int64_t> share_out(int64_t units, const std::vector<double>& speeds);

/// What each worker reads a second of its own memory while all read (what decode does), relative to
/// the mean. About 30 ms. Throws out_of_memory.
std::vector<double> measure_speeds(WorkerPool& pool, const Topology& topology);

}  // namespace qllm::cpu
