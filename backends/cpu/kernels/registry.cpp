// The tables behind dot.h, group_dot.h and vec.h.
#include <algorithm>
#include <limits>

#include "kernels/dot.h"
#include "kernels/group_dot.h"
#include "kernels/vec.h"

namespace qllm::cpu {

#define QLLM_DOT_KERNEL(tier, variant, m_min, m_max)              \
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
}
namespace avx2 {
const VecKernels& vec_kernels() noexcept;
}
namespace avx512vnni {
const VecKernels& vec_kernels() noexcept;
}

namespace {

constexpr int64_t kAnyM = std::numeric_limits<int64_t>::max();

constexpr DotKernel kDotKernels[] = {
#define QLLM_DOT_KERNEL(tier, variant, m_min, m_max)                 \
  {"dot_u8s8s32_n64k4_" #variant "_" #tier, Isa::tier, m_min, m_max, \
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

const DotKernel& select_dot_kernel(Isa isa, int64_t m) {
  const DotKernel* best = nullptr;
  for (const DotKernel& kernel : kDotKernels) {
    if (kernel.isa != isa) continue;
    if (best == nullptr || m >= kernel.m_min) best = &kernel;  // ranges ascend within a tier
  }
  return best != nullptr ? *best : kDotKernels[0];
}

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

}  // namespace qllm::cpu
