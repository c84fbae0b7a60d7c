// The tables behind ceiling.h.
#include "kernels/ceiling.h"

namespace qllm::cpu {

namespace scalar {
uint32_t read_8(const ReadArgs& args) noexcept;
uint32_t read_16(const ReadArgs& args) noexcept;
void copy(const MoveArgs& args) noexcept;
void triad(const MoveArgs& args) noexcept;
uint32_t peak_int8(int64_t rounds) noexcept;
uint32_t peak_f32(int64_t rounds) noexcept;
}  // namespace scalar
namespace avx2 {
uint32_t read_32(const ReadArgs& args) noexcept;
void copy(const MoveArgs& args) noexcept;
void triad(const MoveArgs& args) noexcept;
uint32_t peak_int8(int64_t rounds) noexcept;
uint32_t peak_f32(int64_t rounds) noexcept;
}  // namespace avx2
namespace avxvnni {
uint32_t peak_int8(int64_t rounds) noexcept;
}
namespace avx512vnni {
uint32_t read_64(const ReadArgs& args) noexcept;
void copy(const MoveArgs& args) noexcept;
void triad(const MoveArgs& args) noexcept;
uint32_t peak_int8(int64_t rounds) noexcept;
uint32_t peak_f32(int64_t rounds) noexcept;
}  // namespace avx512vnni
namespace amx {
uint32_t peak_int8(int64_t rounds) noexcept;
}

namespace {

constexpr ReadKernel kRead[] = {{Isa::scalar, 8, &scalar::read_8},
                                {Isa::scalar, 16, &scalar::read_16},
                                {Isa::avx2, 32, &avx2::read_32},
                                {Isa::avx512vnni, 64, &avx512vnni::read_64}};

constexpr MoveKernel kMove[] = {{Isa::scalar, 16, &scalar::copy, &scalar::triad},
                                {Isa::avx2, 32, &avx2::copy, &avx2::triad},
                                {Isa::avx512vnni, 64, &avx512vnni::copy, &avx512vnni::triad}};

// Operations of a round: 2 x lanes of one instruction x sums (of the tier's file).
constexpr PeakKernel kPeak[] = {
    {"scalar pmaddwd+paddd", Isa::scalar, PeakType::int8, 2 * 8 * 10, &scalar::peak_int8},
    {"scalar mulps+addps", Isa::scalar, PeakType::f32, 2 * 4 * 10, &scalar::peak_f32},
    {"avx2 vpmaddwd+vpaddd", Isa::avx2, PeakType::int8, 2 * 16 * 24, &avx2::peak_int8},
    {"avx2 vfmadd", Isa::avx2, PeakType::f32, 2 * 8 * 12, &avx2::peak_f32},
    {"avxvnni vpdpbusd", Isa::avxvnni, PeakType::int8, 2 * 32 * 12, &avxvnni::peak_int8},
    {"avx512vnni vpdpbusd", Isa::avx512vnni, PeakType::int8, 2 * 64 * 24, &avx512vnni::peak_int8},
    {"avx512vnni vfmadd", Isa::avx512vnni, PeakType::f32, 2 * 16 * 24, &avx512vnni::peak_f32},
    {"amx tdpbusd", Isa::amx, PeakType::int8, 2 * 16 * 16 * 64 * 6, &amx::peak_int8}};

}  // namespace

std::span<const ReadKernel> read_kernels() { return kRead; }
std::span<const MoveKernel> move_kernels() { return kMove; }
std::span<const PeakKernel> peak_kernels() { return kPeak; }

const ReadKernel& best_read_kernel() {
  const ReadKernel* best = kRead;
  for (const ReadKernel& kernel : kRead) {
    if (isa_available(kernel.isa)) best = &kernel;
  }
  return *best;
}

}  // namespace qllm::cpu
