// Which tiers this machine and its operating system allow: raw CPUID and XGETBV, because what the
// compiler's runtime knows of AVX-VNNI differs from version to version.
//
// Bits: Intel SDM volume 2A, table "Information Returned by CPUID Instruction"; XCR0: volume
// 1, 13.3. The tiles of AMX also need the kernel's permission, per process: Linux,
// Documentation/arch/x86/xstate.rst.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/dot.h"

namespace qllm::cpu {
namespace {

struct Leaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(uint32_t leaf, uint32_t subleaf) {
  Leaf r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // zeros where it is absent
  return r;
}

uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr bool all_bits(uint64_t value, uint64_t mask) { return (value & mask) == mask; }

constexpr uint32_t bit(int i) { return uint32_t{1} << i; }

struct Tiers {
  bool avx2 = false;
  bool avxvnni = false;
  bool avx512vnni = false;
  bool amx = false;
  bool amx_bf16 = false;
};

/// The eight tiles of 16 rows x 64 bytes that the kernels are written for (leaf 0x1D, palette 1).
bool has_palette_1() {
  const Leaf palette = cpuid(0x1D, 1);
  return cpuid(0x1D, 0).eax >= 1 && (palette.ebx & 0xffff) == 64 && palette.ebx >> 16 == 8 &&
         (palette.ecx & 0xffff) == 16;
}

/// Without it the first tile instruction raises SIGILL. Refused where the kernel is older than
/// 5.16, by a seccomp filter, or where an alternate signal stack is too small for the tiles.
bool tiles_permitted() {
  constexpr long kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM, which older headers lack
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

Tiers detect() {
  Tiers tiers;
  const Leaf l1 = cpuid(1, 0);
  const uint32_t l1_ecx = bit(0) | bit(9) | bit(12) | bit(19) | bit(20) | bit(22) | bit(23) |
                          bit(27) | bit(28) | bit(29);
  // SSE3, SSSE3, FMA, SSE4.1, SSE4.2, MOVBE, POPCNT, OSXSAVE, AVX, F16C
  if (!all_bits(l1.ecx, l1_ecx)) return tiers;
  const uint64_t xcr0 = read_xcr0();
  if (!all_bits(xcr0, 0x06)) return tiers;  // SSE and AVX state
  const Leaf l7 = cpuid(7, 0);
  const Leaf ext = cpuid(0x80000001U, 0);
  tiers.avx2 = all_bits(l7.ebx, bit(3) | bit(5) | bit(8)) && (ext.ecx & bit(5)) != 0;
  // BMI1, AVX2, BMI2; LZCNT
  tiers.avxvnni = tiers.avx2 && (cpuid(7, 1).eax & bit(4)) != 0;
  const uint32_t avx512 = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);  // F, DQ, CD, BW, VL
  tiers.avx512vnni = tiers.avx2 && all_bits(l7.ebx, avx512) && (l7.ecx & bit(11)) != 0 &&
                     all_bits(xcr0, 0xE6);  // + opmask, upper halves of ZMM0-15, ZMM16-31
  tiers.amx = tiers.avx512vnni && all_bits(l7.edx, bit(24) | bit(25)) &&  // AMX-TILE, AMX-INT8
              all_bits(xcr0, 0x60000) && has_palette_1() && tiles_permitted();
  tiers.amx_bf16 = tiers.amx && (l7.edx & bit(22)) != 0;
  return tiers;
}

const Tiers& tiers() {
  static const Tiers found = detect();
  return found;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avxvnni:
      return "avxvnni";
    case Isa::avx512vnni:
      return "avx512vnni";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return tiers().avx2;
    case Isa::avxvnni:
      return tiers().avxvnni;
    case Isa::avx512vnni:
      return tiers().avx512vnni;
    case Isa::amx:
      return tiers().amx;
  }
  return false;
}

bool amx_bf16_available() { return tiers().amx_bf16; }

Isa best_isa() {
  for (const Isa isa : {Isa::amx, Isa::avx512vnni, Isa::avxvnni, Isa::avx2}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::scalar;
}

}  // namespace qllm::cpu
