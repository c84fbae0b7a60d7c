#include "model/packed_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"
#include "model/gguf_config.h"
#include "model/llama.h"
#include "model/packed_format.h"
#include "model/packed_parse.h"

namespace qllm {
namespace {

/// The tensor that holds bytes [begin, end) of the image's data or a part of them.
std::string tensor_at(const GgufFile& gguf, const std::byte* begin, const std::byte* end) {
  for (const GgufTensor& tensor : gguf.tensors()) {
    const std::byte* data = tensor.data.data();
    if (data < end && data + tensor.data.size() > begin) return std::string(tensor.name);
  }
  return "(padding)";
}

void verify_runs(const PackedLinear& linear, const std::string& name,
                 const std::vector<PackedRun>& runs, const std::vector<const std::byte*>& at,
                 const std::vector<std::span<const uint64_t>>& checks) {
  for (size_t r = 0; r < runs.size(); ++r) {
    const PackedView whole = view_of(runs[r], at[r]);
    for (int64_t row = runs[r].n0; row < runs[r].end(); row += kBlockN) {
      const PackedView block = from_row(runs[r], whole, row);
      const uint64_t expected = checks[r][static_cast<size_t>((row - runs[r].n0) / kBlockN)];
      require(block_checksum(runs[r], block, row, linear.seed) == expected, ErrorCode::bad_format,
              "{}: tensor {}: damaged: the checksum of rows {} to {} differs", linear.origin, name,
              row, row + kBlockN - 1);
    }
  }
}

}  // namespace

PackedFile::~PackedFile() = default;

std::shared_ptr<const PackedFile> PackedFile::open(const std::string& path) {
  auto mapped = std::make_unique<MappedFile>(path);
  std::shared_ptr<PackedFile> file(new PackedFile);
  file->origin_ = path;
  file->bytes_ = mapped->bytes();
  file->file_ = std::move(mapped);
  PackedParser(file.get()).run();
  return file;
}

std::shared_ptr<const PackedFile> PackedFile::parse(std::span<const std::byte> bytes,
                                                    std::string origin) {
  std::shared_ptr<PackedFile> file(new PackedFile);
  file->origin_ = std::move(origin);
  file->bytes_ = bytes;
  PackedParser(file.get()).run();
  return file;
}

const PackedLinear* PackedFile::find(const std::string& name) const {
  const auto it = linears_.find(name);
  return it == linears_.end() ? nullptr : &it->second.linear;
}

/// Pages of a mapped file count as this process's memory no more; reading them again is fine.
void PackedFile::release(size_t begin, size_t bytes) const {
  if (file_ == nullptr) return;
  const size_t first = begin / kSection * kSection;
  ::madvise(const_cast<std::byte*>(bytes_.data()) + first, begin + bytes - first, MADV_DONTNEED);
}

void PackedFile::verify_tensors() const {
  const std::byte* data = gguf_->bytes().data();
  size_t at = tensors_at_;
  for (size_t i = 0; i < tensor_checks_.size(); ++i, at += kTensorChunk) {
    const size_t bytes = std::min<size_t>(kTensorChunk, gguf_->bytes().size() - at);
    const uint64_t found = crc_checksum(gguf_->bytes().subspan(at, bytes), i);
    release(static_cast<size_t>(data - bytes_.data()) + at, bytes);
    require(found == tensor_checks_[i], ErrorCode::bad_format,
            "{}: tensor {}: damaged: its bytes have the checksum {:016x}, expected {:016x}",
            origin_, tensor_at(*gguf_, data + at, data + at + bytes), found, tensor_checks_[i]);
  }
}

void PackedFile::verify_linears() const {
  for (const auto& [name, entry] : linears_) {
    const PackedLinear& l = entry.linear;
    verify_runs(l, name, l.layout.runs, l.runs, l.checks);
    verify_runs(l, name, l.layout.second_terms, l.second_terms, l.second_checks);
    release(static_cast<size_t>(l.runs.front() - bytes_.data()),
            static_cast<size_t>(l.layout.bytes()));
  }
}

bool is_packed_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic(kPackedMagic.size(), '\0');
  return file.read(magic.data(), static_cast<std::streamsize>(magic.size())) &&
         magic == kPackedMagic;
}

ModelConfig config_from_packed(const PackedFile& file) {
  ModelConfig config = config_from_gguf(file.gguf());
  config.tied_lm_head = file.form().tied_lm_head;
  const Rotations& has = file.form().rotations;
  const Rotations may = llama_rotations(config);
  require((may.residual || !has.residual) && (may.heads || !has.heads) && (may.ffn || !has.ffn),
          ErrorCode::bad_format, "{}: form: rotations that the sizes of the model do not allow",
          file.origin());
  return config;
}

void check_packed(const PackedFile& file, const ModelConfig& config, const Graph& graph) {
  check_unpacked_tensors(file.gguf(), config);
  size_t known = 0;
  for (const Weight& weight : graph.weights) {
    if (weight.role != WeightRole::linear) continue;
    const auto it = file.linears().find(weight.name);
    require(it != file.linears().end(), ErrorCode::bad_format, "{}: tensor {}: missing",
            file.origin(), weight.name);
    require(it->second.n == weight.n && it->second.k == weight.k, ErrorCode::bad_format,
            "{}: tensor {}: expected [{}, {}], found [{}, {}]", file.origin(), weight.name,
            weight.n, weight.k, it->second.n, it->second.k);
    ++known;
  }
  require(known == file.linears().size(), ErrorCode::bad_format,
          "{}: expected {} packed tensors, found {}", file.origin(), known, file.linears().size());
}

}  // namespace qllm
