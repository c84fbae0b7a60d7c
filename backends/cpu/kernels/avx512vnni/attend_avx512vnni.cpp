// Attention on AVX-512 with VNNI: a line is one vector, an int8 unit two vpdpwssd.
#include "kernels/attend_impl.h"
#include "kernels/attend_ops512.h"

namespace qllm::cpu::avx512vnni {
namespace {

struct Own {};

using Ops = AttendOps512<Own>;
constexpr AttendTable kTable = {AttendImpl<Ops, AttendBf16>::table(),
                                AttendImpl<Ops, AttendInt8>::table()};

}  // namespace

const AttendTable& attend_table() noexcept { return kTable; }

}  // namespace qllm::cpu::avx512vnni
