// What a machine can do at best, measured.
#include <algorithm>

#include "core/error.h"
#include "engine/loaded_model.h"
#include "qllm/qllm.hpp"

namespace qllm {
namespace {

constexpr int64_t kStreamBytes = int64_t{512} << 20;

WeightFormat format_of(const std::string& name) {
  const Scheme scheme = parse_scheme(name);
  switch (scheme.kind) {
    case SchemeKind::int8:
      return {};
    case SchemeKind::int4:
      return {WeightFormat::Kind::groups,
              {4, scheme.group, scheme.has_min ? GroupScales::f16_min : GroupScales::f16}};
    default:
      return {WeightFormat::Kind::f32, {}};  // a file's formats may be mixed: nothing to measure
  }
}

std::vector<MachineCeilings::Kernel> measure_kernels(Backend& backend,
                                                     const KernelQuestion& asked) {
  std::vector<MachineCeilings::Kernel> list;
  for (const std::string& scheme : asked.schemes) {
    for (const int64_t tokens : asked.tokens) {
      const double tops = backend.measure_kernel_tops(format_of(scheme), tokens);
      if (tops > 0) list.push_back({scheme, tokens, tops});
    }
  }
  return list;
}

MachineCeilings measure(Backend& backend, const KernelQuestion& kernels) {
  MachineCeilings c;
  c.read_gbps = backend.measure_read_gbps(kStreamBytes);
  c.int8_tops = backend.measure_peak_tops();
  c.fp16_tflops = backend.measure_peak_f16_tflops();
  c.fp32_tflops = backend.measure_peak_f32_tflops();
  c.host_gbps = backend.measure_host_gbps();
  c.kernels = measure_kernels(backend, kernels);
  return c;
}

/// Puts `with` (of two figures) in place of each of `a`; both have the same kernels.
template <typename With>
void combine(MachineCeilings* a, const MachineCeilings& b, const With& with) {
  for (double MachineCeilings::*figure :
       {&MachineCeilings::read_gbps, &MachineCeilings::int8_tops, &MachineCeilings::fp16_tflops,
        &MachineCeilings::fp32_tflops, &MachineCeilings::host_gbps}) {
    a->*figure = with(a->*figure, b.*figure);
  }
  for (size_t i = 0; i < std::min(a->kernels.size(), b.kernels.size()); ++i) {
    a->kernels[i].tops = with(a->kernels[i].tops, b.kernels[i].tops);
  }
}

}  // namespace

double Model::measure_read_gbps(int64_t bytes) const {
  double sum = 0;  // each team has memory of its own
  for (Replica& replica : impl_->replicas) sum += replica.backend->measure_read_gbps(bytes);
  return sum;
}

std::vector<double> Model::measure_parts_gbps(int64_t bytes) const {
  std::vector<double> gbps;
  for (Backend* part : impl_->replicas.front().backend->parts()) {
    gbps.push_back(part->measure_read_gbps(bytes));
  }
  return gbps;
}

double Model::measure_peak_tops() const {
  double sum = 0;
  for (Replica& replica : impl_->replicas) sum += replica.backend->measure_peak_tops();
  return sum;
}

MachineCeilings Model::measure_ceilings(const KernelQuestion& kernels) const {
  MachineCeilings all;
  for (size_t i = 0; i < impl_->replicas.size(); ++i) {
    const MachineCeilings one = measure(*impl_->replicas[i].backend, kernels);
    if (i == 0) {
      all = one;
    } else {
      combine(&all, one, [](double a, double b) { return a + b; });
    }
  }
  return all;
}

MachineCeilings measure_machine(const OpenOptions& options, const KernelQuestion& kernels) {
  constexpr int kRuns = 3;
  const auto backend = make_backend(options.device, backend_options(options));
  MachineCeilings best;
  for (int i = 0; i < kRuns; ++i) {
    const double done = static_cast<double>(i) / kRuns;
    require(!options.progress || options.progress("measuring", done), ErrorCode::cancelled,
            "measuring: cancelled");
    const MachineCeilings once = measure(*backend, kernels);
    if (i == 0) {
      best = once;
    } else {
      combine(&best, once, [](double a, double b) { return std::max(a, b); });
    }
  }
  return best;
}

}  // namespace qllm
