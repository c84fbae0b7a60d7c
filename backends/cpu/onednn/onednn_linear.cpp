#include "onednn/onednn_linear.h"

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace qllm::cpu {
namespace {

/// oneDNN plans for the threads it sees when a primitive is made; a shard has one. Ends with its
/// scope, and concerns the calling thread only.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const OnednnShape& shape,
                                      int64_t m) {
  using dnnl::memory;
  const memory::desc x({m, shape.k}, memory::data_type::u8, memory::dims{shape.ldx, 1});
  const memory::desc w({shape.k, shape.n}, memory::data_type::s8, memory::format_tag::BA16a64b4a);
  const memory::desc acc({m, shape.n}, memory::data_type::s32, memory::dims{shape.ldacc, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return {engine, x, w, acc, attr};
}

void check(const OnednnShape& s, std::span<const int64_t> token_counts) {
  require(s.n > 0 && s.k > 0 && s.n % 64 == 0 && s.k % 64 == 0, ErrorCode::invalid_argument,
          "onednn: expected n and k in multiples of 64, found n = {}, k = {}", s.n, s.k);
  require(s.ldx >= s.k && s.ldacc >= s.n, ErrorCode::invalid_argument,
          "onednn: expected strides of at least {} and {}, found {} and {}", s.k, s.n, s.ldx,
          s.ldacc);
  int64_t last = 0;
  for (const int64_t m : token_counts) {
    require(m > last, ErrorCode::invalid_argument,
            "onednn: expected ascending token counts, found {} after {}", m, last);
    last = m;
  }
}

}  // namespace

/// One prepared token count: the primitive and the handles that a call points at its data.
struct Prepared {
  int64_t m;
  dnnl::matmul primitive;
  dnnl::memory x, w, acc, scratch;
  std::string implementation;
};

struct OnednnLinear::Impl {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<Prepared> prepared;
  dnnl::memory scratch;  // one for all: its size is that of the largest need

  void prepare(const OnednnShape& shape, std::span<const int64_t> token_counts) {
    const OneThread one_thread;
    dnnl::memory::desc largest;
    for (const int64_t m : token_counts) {
      const auto pd = describe(engine, shape, m);
      const auto need = pd.scratchpad_desc();
      if (need.get_size() > largest.get_size()) largest = need;
      prepared.push_back({m, dnnl::matmul(pd), dnnl::memory(pd.src_desc(), engine, nullptr),
                          dnnl::memory(pd.weights_desc(), engine, nullptr),
                          dnnl::memory(pd.dst_desc(), engine, nullptr),
                          dnnl::memory(need, engine, nullptr), pd.impl_info_str()});
    }
    if (largest.get_size() == 0) return;
    scratch = dnnl::memory(largest, engine);
    for (Prepared& p : prepared) {
      if (p.scratch.get_desc().get_size() > 0) p.scratch.set_data_handle(scratch.get_data_handle());
    }
  }
};

OnednnLinear::OnednnLinear(const OnednnShape& shape, std::span<const int64_t> token_counts) {
  check(shape, token_counts);
  try {
    impl_ = std::make_unique<Impl>();
    impl_->prepare(shape, token_counts);
  } catch (const dnnl::error& e) {
    fail(e.status == dnnl_out_of_memory ? ErrorCode::out_of_memory : ErrorCode::internal,
         "onednn: matmul of [m, {}] by [{}, {}]: {} (status {})", shape.k, shape.n, shape.k,
         e.what(), static_cast<int>(e.status));
  }
}

OnednnLinear::~OnednnLinear() = default;
OnednnLinear::OnednnLinear(OnednnLinear&&) noexcept = default;
OnednnLinear& OnednnLinear::operator=(OnednnLinear&&) noexcept = default;

int64_t OnednnLinear::rows(int64_t m) const noexcept {
  for (const Prepared& p : impl_->prepared) {
    if (p.m >= m) return p.m;
  }
  return 0;
}

bool OnednnLinear::run(const DotArgs& args) noexcept {
  for (Prepared& p : impl_->prepared) {
    if (p.m < args.m) continue;
    // The C interface: the C++ one throws and allocates. Sources are not written to.
    const dnnl_exec_arg_t handles[] = {{DNNL_ARG_SRC, p.x.get()},
                                       {DNNL_ARG_WEIGHTS, p.w.get()},
                                       {DNNL_ARG_DST, p.acc.get()},
                                       {DNNL_ARG_SCRATCHPAD, p.scratch.get()}};
    const bool bound =
        dnnl_memory_set_data_handle(p.x.get(), const_cast<uint8_t*>(args.x)) == dnnl_success &&
        dnnl_memory_set_data_handle(p.w.get(), const_cast<int8_t*>(args.w)) == dnnl_success &&
        dnnl_memory_set_data_handle(p.acc.get(), args.acc) == dnnl_success;
    return bound && dnnl_primitive_execute(p.primitive.get(), impl_->stream.get(), 4, handles) ==
                        dnnl_success;
  }
  return false;
}

std::string OnednnLinear::implementation(int64_t m) const {
  for (const Prepared& p : impl_->prepared) {
    if (p.m >= m) return p.implementation;
  }
  return "none";
}

bool onednn_accepts(Isa isa) {
  if (isa == Isa::scalar || isa == Isa::avx2) return false;
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const OneThread one_thread;
    const auto pd = describe(engine, {256, 256, 256, 256}, 64);
    return std::string_view(pd.impl_info_str()).find("ref") == std::string_view::npos;
  } catch (const dnnl::error&) {
    return false;
  }
}

}  // namespace qllm::cpu
