// Attention on AVX2: an int8 unit is a shift to s16 pairs, vpmaddwd and vpaddd.
#include "kernels/attend_impl.h"
#include "kernels/attend_ops256.h"

namespace qllm::cpu::avx2 {
namespace {

struct Own {
  static __m256i dot(__m256i sum, __m256i pairs, __m256i words) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, words));
    pin(sum);
    return sum;
  }
};

using Ops = AttendOps256<Own>;
constexpr AttendTable kTable = {AttendImpl<Ops, AttendBf16>::table(),
                                AttendImpl<Ops, AttendInt8>::table()};

}  // namespace

const AttendTable& attend_table() noexcept { return kTable; }

}  // namespace qllm::cpu::avx2
