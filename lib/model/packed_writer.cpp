#include "model/packed_writer.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/math.h"
#include "model/chunked_output.h"

namespace qllm {
namespace {

/// Little-endian numbers and strings, end to end.
class ByteWriter {
 public:
  template <typename T>
  void add(T value) {
    add_bytes(std::as_bytes(std::span(&value, 1)));
  }
  void add_number(uint64_t value) { add(value); }
  void add_string(std::string_view text) {
    add_number(text.size());
    add_bytes(std::as_bytes(std::span(text.data(), text.size())));
  }
  void add_bytes(std::span<const std::byte> bytes) {
    const size_t at = bytes_.size();
    bytes_.resize(at + bytes.size());
    if (!bytes.empty()) std::memcpy(bytes_.data() + at, bytes.data(), bytes.size());
  }
  void pad(uint64_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
  }
  size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

uint64_t aligned(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// Tensors that something else than a linear reads.
std::set<std::string_view> gathered_tensors(const Graph& graph) {
  std::set<std::string_view> names;
  for (const Weight& weight : graph.weights) {
    if (weight.role == WeightRole::linear) continue;
    for (const RowSpan& span : weight.rows) names.insert(span.tensor);
  }
  return names;
}

int64_t blocks_of(const std::vector<PackedRun>& runs) {
  int64_t blocks = 0;
  for (const PackedRun& run : runs) blocks += run.n / kBlockN;
  return blocks;
}

uint64_t form_bits(const PackedForm& form) {
  uint64_t bits = 0;
  if (form.rotations.residual) bits |= kRotatedResidual;
  if (form.rotations.heads) bits |= kRotatedHeads;
  if (form.rotations.ffn) bits |= kRotatedFfn;
  if (form.tied_lm_head) bits |= kTiedHead;
  return bits;
}

void add_runs(const std::vector<PackedRun>& runs, ByteWriter* table) {
  for (const PackedRun& run : runs) {
    table->add_number(static_cast<uint64_t>(run.format.kind));
    table->add_number(static_cast<uint64_t>(run.format.groups.bits));
    table->add_number(static_cast<uint64_t>(run.format.groups.group));
    table->add_number(static_cast<uint64_t>(run.format.groups.scales));
    table->add_number(static_cast<uint64_t>(run.n0));
    table->add_number(static_cast<uint64_t>(run.n));
  }
}

/// The list of runs of one linear: where they lie, and their scales and sums until all are there.
class RunWriter {
 public:
  RunWriter(const std::vector<PackedRun>& runs, uint64_t at, uint64_t seed, uint64_t* checks)
      : runs_(runs), seed_(seed), checks_(checks) {
    for (const PackedRun& run : runs) {
      at_.push_back(at);
      first_.push_back(blocks_);
      blocks_ += run.n / kBlockN;
      const size_t rows = run.in_groups() ? 0 : static_cast<size_t>(run.n);
      scales_.emplace_back(rows);
      sums_.emplace_back(rows);
      at += static_cast<uint64_t>(run.bytes());
    }
    end_ = at;
  }

  uint64_t end() const { return end_; }
  int64_t blocks() const { return blocks_; }

  /// From several threads, each block once.
  void take(ChunkedOutput& file, const PackedBlock& block) {
    const PackedRun& run = runs_[block.run];
    const int64_t rows = block.row - run.n0;
    const int64_t bytes = run.column_bytes();
    checks_[first_[block.run] + rows / kBlockN] = block_checksum(run, block.view, block.row, seed_);
    file.write(static_cast<int64_t>(at_[block.run]) + rows / kBlockN * bytes,
               {block.view.codes, static_cast<size_t>(bytes)});
    if (run.in_groups()) return;
    std::copy_n(block.view.scale, kBlockN, scales_[block.run].data() + rows);
    std::copy_n(block.view.sum, kBlockN, sums_[block.run].data() + rows);
  }

  void finish(ChunkedOutput& file) const {
    for (size_t r = 0; r < runs_.size(); ++r) {
      if (runs_[r].in_groups()) continue;
      const auto at = static_cast<int64_t>(at_[r]) + runs_[r].code_bytes();
      const auto scales = std::as_bytes(std::span(scales_[r]));
      file.write(at, scales);
      file.write(at + static_cast<int64_t>(scales.size()), std::as_bytes(std::span(sums_[r])));
    }
  }

 private:
  const std::vector<PackedRun>& runs_;
  uint64_t seed_;
  uint64_t* checks_;
  std::vector<uint64_t> at_;    // of each run in the file
  std::vector<int64_t> first_;  // block of each run
  std::vector<std::vector<float>> scales_;
  std::vector<std::vector<int32_t>> sums_;
  int64_t blocks_ = 0;
  uint64_t end_ = 0;
};

}  // namespace

PackedWriter::PackedWriter(const GgufFile& gguf, const Graph& graph, const TensorSource& source,
                           const PackedForm& form)
    : gguf_(gguf), graph_(graph), source_(source), form_(form) {
  std::copy(kPackedMagic.begin(), kPackedMagic.end(), header_.magic.begin());
  header_.header_bytes = sizeof(header_);
  for (const Weight& weight : graph.weights) {
    if (weight.role != WeightRole::linear) continue;
    Linear linear;
    linear.weight = &weight;
    linear.layout = packed_layout(form.scheme, weight, source);
    linear.checks.resize(
        static_cast<size_t>(blocks_of(linear.layout.runs) + blocks_of(linear.layout.second_terms)));
    linears_.push_back(std::move(linear));
  }
  plan_image();
  plan_linears();
}

/// A GGUF file of the same metadata with the tensors that are not packed.
void PackedWriter::plan_image() {
  const std::set<std::string_view> gathered = gathered_tensors(graph_);
  for (const GgufTensor& tensor : gguf_.tensors()) {
    // All vectors, also those whose values are folded into matrices: they are a part of the model.
    if (tensor.shape.size() == 1 || gathered.contains(tensor.name)) kept_.push_back(&tensor);
  }
  const uint64_t alignment = gguf_.alignment();
  ByteWriter head;
  head.add(uint32_t{0x46554747});  // "GGUF"
  head.add(gguf_.version());
  head.add_number(kept_.size());
  head.add_number(gguf_.keys().size());
  head.add_bytes(gguf_.metadata());
  uint64_t at = 0;
  for (const GgufTensor* tensor : kept_) {
    head.add_string(tensor->name);
    head.add(static_cast<uint32_t>(tensor->shape.size()));
    for (size_t i = tensor->shape.size(); i > 0; --i) {
      head.add_number(static_cast<uint64_t>(tensor->shape[i - 1]));
    }
    head.add(static_cast<uint32_t>(tensor->type));
    head.add_number(at);
    kept_at_.push_back(at);
    at = aligned(at + tensor->data.size(), alignment);
  }
  head.pad(alignment);
  image_head_ = head.take();
  header_.gguf_head_bytes = image_head_.size();
  header_.gguf_head_check = checksum(image_head_);
  header_.gguf_bytes = image_head_.size() + at;
  tensor_checks_.resize(ceil_div(static_cast<int64_t>(at), kTensorChunk));
}

void PackedWriter::plan_linears() {
  header_.table_at = kSection;
  header_.table_bytes = table().size();  // numbers have fixed sizes: it stays
  header_.gguf_at = aligned(header_.table_at + header_.table_bytes, kSection);
  uint64_t at = header_.gguf_at + header_.gguf_bytes;
  for (Linear& linear : linears_) {
    linear.at = aligned(at, kSection);
    at = linear.at + static_cast<uint64_t>(linear.layout.bytes());
  }
  header_.file_bytes = at;
}

std::vector<std::byte> PackedWriter::table() const {
  ByteWriter table;
  table.add_string(to_string(form_.scheme));
  table.add_number(form_bits(form_));
  table.add_number(form_.digest);
  table.add_number(tensor_checks_.size());
  table.add_bytes(std::as_bytes(std::span(tensor_checks_)));
  table.add_number(linears_.size());
  for (const Linear& linear : linears_) {
    table.add_string(linear.weight->name);
    table.add_number(static_cast<uint64_t>(linear.weight->n));
    table.add_number(static_cast<uint64_t>(linear.weight->k));
    table.add_number(linear.layout.runs.size());
    table.add_number(linear.layout.second_terms.size());
    add_runs(linear.layout.runs, &table);
    add_runs(linear.layout.second_terms, &table);
    table.add_number(linear.at);
    table.add_bytes(std::as_bytes(std::span(linear.checks)));
  }
  return table.take();
}

void PackedWriter::write(PartFile& file, Backend& backend,
                         const std::function<void(int64_t)>& done) {
  file.reserve(file_bytes());
  done(static_cast<int64_t>(header_.gguf_at + header_.gguf_bytes));
  ChunkedOutput out(file);
  for (Linear& linear : linears_) {
    write_linear(out, backend, done, &linear);
    out.flush(static_cast<int64_t>(linear.at) + linear.layout.bytes());
    gguf_.release();
    file.start_writing_back();
  }
  // The first chunk may hold the end of what was written before the linears.
  out.finish(file_bytes());
  write_image(file);
  write_header(file);
}

/// The tensors in pieces of one checksum each, padding included.
void PackedWriter::write_image(PartFile& file) {
  const auto image = static_cast<int64_t>(header_.gguf_at);
  file.write_at(image, image_head_);
  std::vector<std::byte> chunk(kTensorChunk);
  const uint64_t data = header_.gguf_bytes - header_.gguf_head_bytes;
  size_t tensor = 0;
  for (uint64_t i = 0; i < tensor_checks_.size(); ++i) {
    const uint64_t begin = i * kTensorChunk;
    const uint64_t end = std::min(begin + kTensorChunk, data);
    std::fill(chunk.begin(), chunk.end(), std::byte{0});
    while (tensor < kept_.size() && kept_at_[tensor] + kept_[tensor]->data.size() <= begin) {
      ++tensor;
    }
    for (size_t t = tensor; t < kept_.size() && kept_at_[t] < end; ++t) {
      const uint64_t from = std::max(begin, kept_at_[t]);
      const uint64_t to = std::min(end, kept_at_[t] + kept_[t]->data.size());
      if (from >= to) continue;
      std::memcpy(chunk.data() + (from - begin), kept_[t]->data.data() + (from - kept_at_[t]),
                  to - from);
    }
    const auto bytes = std::span<const std::byte>(chunk).first(end - begin);
    tensor_checks_[i] = crc_checksum(bytes, i);
    file.write_at(image + static_cast<int64_t>(header_.gguf_head_bytes + begin), bytes);
    gguf_.release();
  }
}

void PackedWriter::write_linear(ChunkedOutput& file, Backend& backend,
                                const std::function<void(int64_t)>& done, Linear* linear) {
  std::atomic<int64_t> written{static_cast<int64_t>(linear->at)};
  std::mutex one_at_a_time;
  const uint64_t seed = packed_seed(linear->weight->name);
  RunWriter first(linear->layout.runs, linear->at, seed, linear->checks.data());
  RunWriter second(linear->layout.second_terms, first.end(), seed,
                   linear->checks.data() + first.blocks());
  backend.pack(*linear->weight, linear->layout, source_, [&](const PackedBlock& block) {
    (block.second_term ? second : first).take(file, block);
    const auto& runs = block.second_term ? linear->layout.second_terms : linear->layout.runs;
    const int64_t now = written += runs[block.run].column_bytes();
    const std::unique_lock lock(one_at_a_time, std::try_to_lock);
    if (lock) done(now);
  });
  first.finish(file);
  second.finish(file);
}

void PackedWriter::write_header(PartFile& file) {
  const std::vector<std::byte> bytes = table();
  header_.table_check = checksum(bytes);
  header_.check = check_of(header_);
  file.write_at(static_cast<int64_t>(header_.table_at), bytes);
  file.write_at(0, std::as_bytes(std::span(&header_, 1)));
}

}  // namespace qllm
