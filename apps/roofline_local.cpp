#include "roofline_local.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace qllm::app {
namespace {

constexpr int64_t kLastTokens = 512;  // measured in powers of two, and the batches asked for

}  // namespace

bool is_local(const std::string& device) { return device == "cpu" || device == "cuda"; }

KernelQuestion kernel_question(const std::vector<RooflineCase>& cases) {
  std::set<std::string> schemes = {"int8", "int4-g128"};
  std::set<int64_t> tokens;
  for (int64_t n = 1; n <= kLastTokens; n *= 2) tokens.insert(n);
  for (const RooflineCase& c : cases) {
    if (c.scheme.starts_with("int4")) schemes.insert(c.scheme);
    if (c.batch <= kLastTokens) tokens.insert(c.batch);
  }
  return {{schemes.begin(), schemes.end()}, {tokens.begin(), tokens.end()}};
}

rl::Device local_device(const std::string& name, const MachineInfo& machine,
                        const MachineCeilings& ceilings) {
  rl::Device d;
  d.id = name;
  d.title = machine.device;
  d.is_gpu = name != "cpu";
  d.measured = true;
  d.read_gbps = ceilings.read_gbps;
  d.int8_tops = ceilings.int8_tops;
  d.fp16_tflops = ceilings.fp16_tflops;
  d.fp32_tflops = ceilings.fp32_tflops;
  d.kernels = ceilings.kernels;
  d.pcie_gbps = ceilings.host_gbps;
  d.memory_gb = static_cast<double>(machine.device_memory_bytes) / 1e9;
  d.source = d.is_gpu ? "measured now"
                      : fmt::format("measured now: {} workers, tier {}", machine.workers,
                                    machine.isa_used);
  return d;
}

rl::Device measure_local(const std::string& name, const OpenOptions& options,
                         const KernelQuestion& kernels) {
  OpenOptions open = options;
  open.device = name;
  const MachineInfo machine = inspect_machine(open);
  const MachineCeilings ceilings = measure_machine(open, kernels);
  if (ceilings.read_gbps <= 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("device {}: its memory bandwidth cannot be measured", name));
  }
  return local_device(name, machine, ceilings);
}

}  // namespace qllm::app
