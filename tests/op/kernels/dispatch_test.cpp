// The table that chooses a kernel: whole, in order, and read as dispatch.h says.
#include "kernels/dispatch.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <string_view>

using namespace qllm;  // NOLINT

namespace {

constexpr cpu::Isa kTiers[] = {cpu::Isa::scalar, cpu::Isa::avx2, cpu::Isa::avxvnni,
                               cpu::Isa::avx512vnni, cpu::Isa::amx};
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

}  // namespace

TEST_CASE("choose_dot: every tier has a kernel of its own for every M, N and K") {
  for (const cpu::Isa isa : kTiers) {
    for (const int64_t m : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{700}, kMost}) {
      for (const int64_t nk : {int64_t{64}, int64_t{4096}, kMost}) {
        for (const bool onednn : {false, true}) {
          const cpu::DotChoice choice = cpu::choose_dot(isa, m, nk, nk, onednn);
          REQUIRE(choice.kernel != nullptr);
          REQUIRE(choice.kernel->isa == isa);
          REQUIRE((onednn || !choice.onednn));
          REQUIRE(choice.sum_bytes >= 64 * 1024);
          REQUIRE(choice.sum_bytes <= cpu::most_sum_bytes(isa));
          REQUIRE(&cpu::select_dot_kernel(isa, m, nk, nk) ==
                  cpu::choose_dot(isa, m, nk, nk, false).kernel);
        }
      }
    }
  }
}

TEST_CASE("choose_dot: the last row whose minimums are met holds") {
  for (const cpu::DispatchRow& row : cpu::dispatch_table()) {
    const cpu::DotChoice at = cpu::choose_dot(row.isa, row.m_from, row.n_from, row.k_from, true);
    const auto* next = &row + 1;
    const auto table = cpu::dispatch_table();
    bool overruled = false;
    for (; next != table.data() + table.size(); ++next) {
      overruled = overruled || (next->isa == row.isa && next->m_from <= row.m_from &&
                                next->n_from <= row.n_from && next->k_from <= row.k_from);
    }
    CHECK_FALSE(overruled);  // it would never be read
    CHECK(at.onednn == (row.kernel == nullptr));
    if (row.kernel != nullptr) CHECK(at.kernel == row.kernel);
    CHECK(at.sum_bytes == row.sum_kib * 1024);
  }
}

TEST_CASE("dispatch table: every row says where it comes from") {
  for (const cpu::DispatchRow& row : cpu::dispatch_table()) {
    const std::string note(row.note);
    CAPTURE(note);
    CHECK((note.rfind("measured: ", 0) == 0 || note.rfind("reasoned: ", 0) == 0));
    CHECK(row.m_from >= 1);
    CHECK(row.n_from % 64 == 0);
    CHECK(row.k_from % 64 == 0);
    CHECK((row.kernel == nullptr || row.kernel->isa == row.isa));
  }
}

TEST_CASE("onednn_tokens_from: never on tiers without an instruction for it") {
  CHECK(cpu::onednn_tokens_from(cpu::Isa::scalar) == kMost);
  CHECK(cpu::onednn_tokens_from(cpu::Isa::avx2) == kMost);
  for (const cpu::DispatchRow& row : cpu::dispatch_table()) {
    if (row.kernel == nullptr) CHECK(cpu::onednn_tokens_from(row.isa) <= row.m_from);
  }
}
