// The loops of ceiling.h over memory, written once and instantiated by each tier with a class
// `Tier` from its own anonymous namespace, so that no instantiation is shared:
//   V                           the widest vector of integers; F of floats
//   static V load(const char*)  static V add(V, V)  static V zero()  static uint32_t total(V)
//   static F load_floats(const float*)  static F triad(F b, F c): b + 3 c
//   static void store(float*, F)  static void store_past_caches(float*, F)
#pragma once

#include "kernels/ceiling.h"

namespace qllm::cpu {

template <class Tier>
struct ReadImpl {
  using V = typename Tier::V;
  static constexpr int kWidth = static_cast<int>(sizeof(V));
  static constexpr int kRun = 256;                                     // bytes of a stream by turns
  static constexpr int kSums = kRun / kWidth < 8 ? kRun / kWidth : 8;  // chains of additions

  template <int kHint>
  static void prefetch_run(const char* p) {
#pragma GCC unroll 4
    for (int i = 0; i < kRun; i += 64) {
      if constexpr (kHint == 1) __builtin_prefetch(p + i, 0, 3);
      if constexpr (kHint == 2) __builtin_prefetch(p + i, 0, 0);
    }
  }

  static void add_run(const char* p, V* sum) {
#pragma GCC unroll 32
    for (int i = 0; i < kRun / kWidth; ++i) {
      sum[i % kSums] = Tier::add(sum[i % kSums], Tier::load(p + i * kWidth));
    }
  }

  template <int kStreams, int kHint>
  static uint32_t read_streams(const ReadArgs& args) {
    const char* p = static_cast<const char*>(args.p);
    const int64_t part = args.bytes / kRun / kStreams * kRun;  // bytes of a stream
    V sum[kSums];
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) sum[i] = Tier::zero();
    for (int64_t i = 0; i < part; i += kRun) {
#pragma GCC unroll 8
      for (int s = 0; s < kStreams; ++s) {
        const char* run = p + s * part + i;
        prefetch_run<kHint>(run + args.ahead);
        add_run(run, sum);
      }
    }
    for (int64_t i = kStreams * part; i < args.bytes; i += kRun) add_run(p + i, sum);
#pragma GCC unroll 8
    for (int i = 1; i < kSums; ++i) sum[0] = Tier::add(sum[0], sum[i]);
    return Tier::total(sum[0]);
  }

  template <int kStreams>
  static uint32_t read_hinted(const ReadArgs& args) {
    switch (args.prefetch) {
      case Prefetch::t0:
        return read_streams<kStreams, 1>(args);
      case Prefetch::nta:
        return read_streams<kStreams, 2>(args);
      case Prefetch::none:
        break;
    }
    return read_streams<kStreams, 0>(args);
  }

  static uint32_t read(const ReadArgs& args) noexcept {
    switch (args.streams) {
      case 8:
        return read_hinted<8>(args);
      case 4:
        return read_hinted<4>(args);
      case 2:
        return read_hinted<2>(args);
      default:
        return read_hinted<1>(args);
    }
  }
};

template <class Tier>
struct MoveImpl {
  using F = typename Tier::F;
  static constexpr int64_t kFloats = static_cast<int64_t>(sizeof(F) / sizeof(float));

  template <bool kNonTemporal>
  static void put(float* a, F v) {
    if constexpr (kNonTemporal) {
      Tier::store_past_caches(a, v);
    } else {
      Tier::store(a, v);
    }
  }

  template <bool kNonTemporal>
  static void copy_all(const MoveArgs& args) {
    const int64_t n = args.bytes / static_cast<int64_t>(sizeof(float));
    for (int64_t i = 0; i < n; i += kFloats) {
      put<kNonTemporal>(args.a + i, Tier::load_floats(args.b + i));
    }
  }

  template <bool kNonTemporal>
  static void triad_all(const MoveArgs& args) {
    const int64_t n = args.bytes / static_cast<int64_t>(sizeof(float));
    for (int64_t i = 0; i < n; i += kFloats) {
      put<kNonTemporal>(args.a + i,
                        Tier::triad(Tier::load_floats(args.b + i), Tier::load_floats(args.c + i)));
    }
  }

  static void copy(const MoveArgs& args) noexcept {
    args.non_temporal ? copy_all<true>(args) : copy_all<false>(args);
  }

  static void triad(const MoveArgs& args) noexcept {
    args.non_temporal ? triad_all<true>(args) : triad_all<false>(args);
  }
};

}  // namespace qllm::cpu
