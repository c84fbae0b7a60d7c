// Attention on AVX-VNNI: as AVX2, with vpdpwssd for vpmaddwd and vpaddd.
#include "kernels/attend_impl.h"
#include "kernels/attend_ops256.h"

namespace qllm::cpu::avxvnni {
namespace {

struct Own {
  static __m256i dot(__m256i sum, __m256i pairs, __m256i words) {
    return _mm256_dpwssd_avx_epi32(sum, pairs, words);
  }
};

using Ops = AttendOps256<Own>;
constexpr AttendTable kTable = {AttendImpl<Ops, AttendBf16>::table(),
                                AttendImpl<Ops, AttendInt8>::table()};

}  // namespace

const AttendTable& attend_table() noexcept { return kTable; }

}  // namespace qllm::cpu::avxvnni
