// The contract of every int8 kernel, and the registry that feeds dispatch, tests and benches.
//
//   acc[m * ldacc + n] = sum_{k < K} x[m * ldx + k] * w[packed_offset(n, k, K)]       0 <= m < M, 0
//   <= n < N
//
// x u8, w s8, acc exact int32 (quant/packing.h has the layout; K and N are multiples of 64; x, w
// and acc are 64-byte aligned, ldx and ldacc multiples of 64). |sum| <= K * 255 * 128 < 2^31 for K
// <= 65,792.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace qllm::cpu {

/// Instruction-set tiers, worst first. A tier implies those before it, except that avxvnni and
/// avx512vnni do not imply each other. amx is AMX-INT8 with the float kernels of avx512vnni.
enum class Isa : uint8_t { scalar, avx2, avxvnni, avx512vnni, amx };

std::string_view isa_name(Isa isa);

struct DotArgs {
  const uint8_t* x = nullptr;  // [m, ldx]
  const int8_t* w = nullptr;   // packed [n/64][k/64][4096]
  int32_t* acc = nullptr;      // [m, ldacc]
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t ldx = 0;
  int64_t ldacc = 0;
};

struct DotKernel {
  const char* name;     // op, types, layout, ISA: "dot_u8s8s32_n64k4_avx2"
  const char* variant;  // "stream", "panel", ...: what it is called within its tier
  Isa isa;
  void (*run)(const DotArgs& args) noexcept;
};

/// All kernels that were built, whether or not this machine can run them.
std::span<const DotKernel> dot_kernels();

/// True where CPUID *and* the operating system (XCR0) allow the tier. For amx the first call asks
/// the kernel, once, for permission to use the tiles in this process (arch_prctl).
bool isa_available(Isa isa);

/// Whether the tier amx, if available, has AMX-BF16 besides.
bool amx_bf16_available();

/// The best available tier.
Isa best_isa();

/// Ours of a tier for m tokens, n outputs and k inputs, by the table of dispatch.h.
const DotKernel& select_dot_kernel(Isa isa, int64_t m, int64_t n = 4096, int64_t k = 4096);

}  // namespace qllm::cpu
