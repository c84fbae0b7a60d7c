#include "model/packed_file.h"

#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "cpu_weights.h"
#include "kernels/dispatch.h"
#include "support/errors.h"
#include "support/packed_model.h"

namespace {

using namespace qllm;
using namespace qllm::test;

TinyLlamaOptions model(GgmlType type = GgmlType::q8_0) {
  TinyLlamaOptions options;
  options.type = type;
  return options;
}

/// Weights of a source on the cpu, in `threads` shards.
class Loaded {
 public:
  Loaded(const Graph& graph, const Scheme& scheme, std::shared_ptr<const TensorSource> source,
         MemoryMode memory, int threads)
      : topology_(cpu::Topology::detect({threads, {}, {}})),
        pool_(*topology_),
        weights_(graph, scheme, std::move(source),
                 {&pool_, topology_.get(), &cpu::vec_kernels(cpu::Isa::scalar), memory, {}}, {}) {}
  const cpu::CpuWeights& operator*() const { return weights_; }

 private:
  std::unique_ptr<cpu::Topology> topology_;
  cpu::WorkerPool pool_;
  cpu::CpuWeights weights_;
};

void check_equal(const std::vector<cpu::Piece>& a, const std::vector<cpu::Piece>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].format == b[i].format);
    REQUIRE(a[i].n0 == b[i].n0);
    REQUIRE(a[i].n == b[i].n);
    REQUIRE(a[i].k_padded == b[i].k_padded);
    const auto rows = static_cast<size_t>(a[i].n);
    CHECK(std::memcmp(a[i].w, b[i].w, static_cast<size_t>(a[i].code_bytes())) == 0);
    if (a[i].in_groups()) continue;
    CHECK(std::memcmp(a[i].scale, b[i].scale, rows * sizeof(float)) == 0);
    CHECK(std::memcmp(a[i].sum, b[i].sum, rows * sizeof(int32_t)) == 0);
  }
}

void check_equal(const Graph& graph, const cpu::CpuWeights& a, const cpu::CpuWeights& b) {
  CHECK(a.bytes() == b.bytes());
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const auto id = static_cast<WeightId>(i);
    const cpu::ShardedLinear& x = a.linear(id);
    const cpu::ShardedLinear& y = b.linear(id);
    REQUIRE(x.shards.size() == y.shards.size());
    CHECK(x.group == y.group);
    CHECK(x.k_padded == y.k_padded);
    for (size_t w = 0; w < x.shards.size(); ++w) {
      check_equal(x.shards[w].pieces, y.shards[w].pieces);
      check_equal(x.shards[w].second_terms, y.shards[w].second_terms);
    }
  }
}

struct Case {
  const char* scheme;
  GgmlType type;
  bool rotates;
};

void verify(const PackedFile& file) {
  PackedFile::Verification all;
  file.verify(&all);
}

PackedHeader header_of(const AlignedBytes& bytes) {
  PackedHeader header;
  std::memcpy(&header, bytes.span().data(), sizeof(header));
  return header;
}

}  // namespace

TEST_CASE("packed file: the weights are those of a direct load, for every scheme and worker") {
  const Case cases[] = {{"int8", GgmlType::f32, true},       {"int8", GgmlType::q8_0, false},
                        {"int4-g32", GgmlType::f32, false},  {"int4-g64-sym", GgmlType::f32, false},
                        {"int4-g128", GgmlType::f32, false}, {"keep", GgmlType::q4_1, false},
                        {"keep", GgmlType::q4_0, false},     {"keep", GgmlType::q8_0, false},
                        {"keep", GgmlType::f16, false}};
  for (const Case& c : cases) {
    CAPTURE(c.scheme);
    const Scheme scheme = parse_scheme(c.scheme);
    TinyLlamaOptions options = model(c.type);
    options.tied_lm_head = c.type != GgmlType::q8_0;
    options.attention_bias = c.type == GgmlType::f32;
    const AlignedBytes bytes(build_packed(options, scheme, c.rotates, 2));
    const auto packed = PackedFile::parse(bytes.span(), "m.qllm");
    CHECK(packed->form().scheme == scheme);
    CHECK(packed->form().tied_lm_head == options.tied_lm_head);
    CHECK(packed->form().digest == 42);
    verify(*packed);

    const std::vector<std::byte> original = build_tiny_llama_gguf(options);
    const auto gguf = GgufFile::parse(original, "tiny.gguf");
    const ModelConfig config = config_from_packed(*packed);
    const Rotations rotations = packed->form().rotations;
    CHECK(rotations.any() == c.rotates);
    const Graph graph = build_llama(config, rotations);
    check_packed(*packed, graph);
    const auto direct = rotate_llama(config, rotations, std::make_shared<GgufTensorSource>(gguf));
    const std::shared_ptr<const GgufFile> image(packed, &packed->gguf());
    const auto source = std::make_shared<PackedSource>(
        packed, rotate_llama(config, rotations, std::make_shared<GgufTensorSource>(image)));
    for (const int threads : {1, 2, 3}) {
      const Loaded a(graph, scheme, direct, MemoryMode::copy, threads);
      CHECK((*a).memory() == "copy");
      for (const MemoryMode memory : {MemoryMode::map, MemoryMode::copy}) {
        const Loaded b(graph, scheme, source, memory, threads);
        CHECK((*b).memory() == to_string(memory));
        check_equal(graph, *a, *b);
      }
    }
    std::vector<float> expected(static_cast<size_t>(config.d_model));
    std::vector<float> found(expected.size());
    direct->read_rows("token_embd.weight", 7, 1, expected.data());
    source->read_rows("token_embd.weight", 7, 1, found.data());
    CHECK(expected == found);
  }
}

TEST_CASE("packed file: every flipped bit of header, table, metadata and weights is found") {
  const AlignedBytes whole(build_packed(model(), {SchemeKind::int8}, true));
  load_packed(whole.span());
  const PackedHeader header = header_of(whole);
  size_t missed = 0;
  for (size_t at = 0; at < whole.span().size(); at += 61) {
    AlignedBytes bytes(whole.span());
    bytes.data()[at] ^= std::byte{1};
    try {
      load_packed(bytes.span());
      // Only padding between the parts is not under a checksum; it is zero.
      CHECK(whole.span()[at] == std::byte{0});
      CHECK_FALSE((at >= header.table_at && at < header.table_at + header.table_bytes));
      CHECK_FALSE((at >= header.gguf_at && at < header.gguf_at + header.gguf_bytes));
      ++missed;
    } catch (const Error& e) {
      CHECK((e.code() == ErrorCode::bad_format || e.code() == ErrorCode::unsupported));
      CHECK(std::string(e.what()).find("m.qllm: ") == 0);
    }
  }
  CHECK(missed * 61 < 3 * kSection + header.table_at + 64 * kSection);
}

TEST_CASE("packed file: damage is named") {
  const AlignedBytes whole(build_packed(model(), {SchemeKind::int8}, true));
  const auto packed = PackedFile::parse(whole.span(), "m.qllm");
  const auto damaged = [&](const std::byte* at) {
    AlignedBytes bytes(whole.span());
    bytes.data()[at - whole.span().data()] ^= std::byte{0x40};
    return bytes;
  };
  for (const auto& [name, entry] : packed->linears()) {
    const AlignedBytes bytes = damaged(entry.linear.runs.front() + 5);
    check_error(ErrorCode::bad_format, "m.qllm: tensor " + name + ": damaged",
                [&] { verify(*PackedFile::parse(bytes.span(), "m.qllm")); });
  }
  const AlignedBytes table = damaged(packed->gguf().tensor("token_embd.weight").data.data() + 9);
  check_error(ErrorCode::bad_format, "m.qllm: tensor token_embd.weight: damaged",
              [&] { verify(*PackedFile::parse(table.span(), "m.qllm")); });
  // A load that copies finds it, too.
  const AlignedBytes head = damaged(packed->find("lm_head")->runs.front());
  const auto broken = PackedFile::parse(head.span(), "m.qllm");
  const ModelConfig config = config_from_packed(*broken);
  const Graph graph = build_llama(config, broken->form().rotations);
  const std::shared_ptr<const GgufFile> image(broken, &broken->gguf());
  const auto source = std::make_shared<PackedSource>(
      broken,
      rotate_llama(config, broken->form().rotations, std::make_shared<GgufTensorSource>(image)));
  check_error(ErrorCode::bad_format, "tensor lm_head: damaged: rows 0 to 63",
              [&] { Loaded(graph, {SchemeKind::int8}, source, MemoryMode::copy, 2); });
}

TEST_CASE("packed file: forged headers and tables are refused") {
  const AlignedBytes whole(build_packed(model(), {SchemeKind::int8}, true));
  const PackedHeader header = header_of(whole);
  const auto forged = [&](uint64_t at, uint64_t value, const char* message,
                          ErrorCode code = ErrorCode::bad_format) {
    CAPTURE(at);
    AlignedBytes bytes(whole.span());
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    repair_packed(bytes.data(), bytes.span().size(), 0xB);
    check_error(code, message, [&] { load_packed(bytes.span()); });
  };
  forged(8, uint64_t{kByteOrder} << 32 | 2, "version 2", ErrorCode::unsupported);
  forged(8, uint64_t{0x04030201} << 32 | 1, "byte order", ErrorCode::unsupported);
  forged(16, 105, "header: expected 104 bytes");
  forged(24, 1, "expected 1 bytes");
  constexpr uint64_t kHuge = ~uint64_t{0} - 8;
  forged(offsetof(PackedHeader, table_at), kHuge, "table: ");
  forged(offsetof(PackedHeader, table_bytes), kHuge, "table: ");
  forged(offsetof(PackedHeader, gguf_at), kHuge, "model data: ");
  forged(offsetof(PackedHeader, gguf_bytes), kHuge, "model data: ");
  forged(offsetof(PackedHeader, gguf_head_bytes), kHuge, "metadata: ");
  // The table: scheme, form, digest, checksums of tensors, then linears by name.
  const uint64_t t = header.table_at;
  forged(t, kHuge, "scheme");
  forged(t + 8 + 4, 1U << 20, "unknown bits");
  const uint64_t checks =
      (header.gguf_bytes - header.gguf_head_bytes + kTensorChunk - 1) / kTensorChunk;
  forged(t + 12 + 16, kHuge, "checksums for");
  const uint64_t count_at = t + 12 + 16 + 8 + 8 * checks;
  forged(count_at, kHuge, "do not fit");
  forged(count_at, 1, "bytes too many");
  const uint64_t name_at = count_at + 8;
  forged(name_at, kHuge, "tensor name");
  uint64_t length = 0;
  std::memcpy(&length, whole.span().data() + name_at, sizeof(length));
  const uint64_t n_at = name_at + 8 + length;
  forged(n_at, 0, "sizes");
  forged(n_at, kHuge, "sizes");
  forged(n_at + 8, uint64_t{1} << 31, "sizes");
  forged(n_at, 64, "expected");  // fewer rows than its run has
  forged(n_at + 16, 0, "");      // no runs
  forged(n_at + 16, kHuge, "runs do not fit");
  forged(n_at + 24, kHuge, "runs do not fit");
  const uint64_t run_at = n_at + 32;
  forged(run_at, 0, "unknown format");  // float32 is not packed
  forged(run_at, 9, "unknown format");
  forged(run_at + 32, 64, "begins at row 64");
  forged(run_at + 32, 63, "no blocks");
  forged(run_at + 40, 0, "no blocks");
  forged(run_at + 40, uint64_t{1} << 30, "expected");
}

TEST_CASE("packed file: what it lacks or has too much of is named") {
  const AlignedBytes bytes(build_packed(model(), {SchemeKind::int8}, true));
  const auto packed = PackedFile::parse(bytes.span(), "m.qllm");
  const ModelConfig config = config_from_packed(*packed);
  Graph graph = build_llama(config, packed->form().rotations);
  for (Weight& weight : graph.weights) {
    if (weight.name == "lm_head") weight.k += 64;
  }
  check_error(ErrorCode::bad_format, "tensor lm_head: expected",
              [&] { check_packed(*packed, graph); });
  ModelConfig deeper = config;
  deeper.n_layers += 1;
  check_error(ErrorCode::bad_format, "tensor blk.2.attn_qkv: missing",
              [&] { check_packed(*packed, build_llama(deeper, packed->form().rotations)); });
}
