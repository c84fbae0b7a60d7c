// The tables behind dot.h, dispatch.h, group_dot.h, vec.h and attend.h.
#include <limits>
#include <string_view>

#include "kernels/attend.h"
#include "kernels/dispatch.h"
#include "kernels/dot.h"
#include "kernels/group_dot.h"
#include "kernels/vec.h"

namespace qllm::cpu {

#define QLLM_DOT_KERNEL(tier, variant)                            \
  namespace tier {                                                \
  void dot_u8s8s32_n64k4_##variant(const DotArgs& args) noexcept; \
  }
#include "kernels/dot_kernels.inc"
#undef QLLM_DOT_KERNEL

#define QLLM_GROUP_DOT_KERNEL(tier, variant, m_min, m_max)            \
  namespace tier {                                                    \
  void group_dot_s8_n64_##variant(const GroupDotArgs& args) noexcept; \
  }
#include "kernels/group_dot_kernels.inc"
#undef QLLM_GROUP_DOT_KERNEL

namespace scalar {
const VecKernels& vec_kernels() noexcept;
const AttendTable& attend_table() noexcept;
}  // namespace scalar
namespace avx2 {
const VecKernels& vec_kernels() noexcept;
const AttendTable& attend_table() noexcept;
}  // namespace avx2
namespace avxvnni {
const AttendTable& attend_table() noexcept;
}
namespace avx512vnni {
const VecKernels& vec_kernels() noexcept;
const AttendTable& attend_table() noexcept;
}  // namespace avx512vnni
namespace amx {
const AttendKernels& attend_bf16() noexcept;
const AttendKernels& attend_int8() noexcept;
}  // namespace amx

namespace {

constexpr int64_t kAnyM = std::numeric_limits<int64_t>::max();  // in group_dot_kernels.inc

constexpr DotKernel kDotKernels[] = {
#define QLLM_DOT_KERNEL(tier, variant)                           \
  {"dot_u8s8s32_n64k4_" #variant "_" #tier, #variant, Isa::tier, \
   &tier::dot_u8s8s32_n64k4_##variant},
#include "kernels/dot_kernels.inc"
#undef QLLM_DOT_KERNEL
};

constexpr GroupDotKernel kGroupDotKernels[] = {
#define QLLM_GROUP_DOT_KERNEL(tier, variant, m_min, m_max)          \
  {"group_dot_s8_n64_" #variant "_" #tier, Isa::tier, m_min, m_max, \
   &tier::group_dot_s8_n64_##variant},
#include "kernels/group_dot_kernels.inc"
#undef QLLM_GROUP_DOT_KERNEL
};

/// The kernel that a row of the table names; null for oneDNN. A name that its tier lacks does not
/// compile: the search leaves the array.
constexpr const DotKernel* named(Isa isa, std::string_view variant) {
  if (variant == "onednn") return nullptr;
  const DotKernel* kernel = kDotKernels;
  while (kernel->isa != isa || variant != kernel->variant) ++kernel;
  return kernel;
}

constexpr DispatchRow kDispatch[] = {
#define QLLM_DISPATCH(tier, m_from, n_from, k_from, kernel, sum_kib, note) \
  {Isa::tier, m_from, n_from, k_from, named(Isa::tier, #kernel), sum_kib, note},
#include "kernels/dispatch_table.inc"
#undef QLLM_DISPATCH
};

}  // namespace

std::span<const GroupDotKernel> group_dot_kernels() { return kGroupDotKernels; }

const GroupDotKernel& select_group_dot_kernel(Isa isa, int64_t m) {
  if (isa == Isa::amx) isa = Isa::avx512vnni;
  const GroupDotKernel* best = nullptr;
  for (const GroupDotKernel& kernel : kGroupDotKernels) {
    if (kernel.isa != isa) continue;
    if (best == nullptr || m >= kernel.m_min) best = &kernel;  // ranges ascend within a tier
  }
  return best != nullptr ? *best : kGroupDotKernels[0];
}

std::span<const DotKernel> dot_kernels() { return kDotKernels; }

std::span<const DispatchRow> dispatch_table() { return kDispatch; }

const VecKernels& vec_kernels(Isa isa) {
  switch (isa) {
    case Isa::amx:
    case Isa::avx512vnni:
      return avx512vnni::vec_kernels();
    case Isa::avxvnni:
    case Isa::avx2:
      return avx2::vec_kernels();
    case Isa::scalar:
      break;
  }
  return scalar::vec_kernels();
}

const AttendTable& attend_table(Isa isa) {
  static const AttendTable amx_table = {
      amx_bf16_available() ? amx::attend_bf16() : avx512vnni::attend_table().bf16,
      amx::attend_int8()};
  switch (isa) {
    case Isa::amx:
      return amx_table;
    case Isa::avx512vnni:
      return avx512vnni::attend_table();
    case Isa::avxvnni:
      return avxvnni::attend_table();
    case Isa::avx2:
      return avx2::attend_table();
    case Isa::scalar:
      break;
  }
  return scalar::attend_table();
}

}  // namespace qllm::cpu
