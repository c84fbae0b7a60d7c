#include "model/packed_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
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

constexpr int64_t kStretch = int64_t{4} << 20;  // bytes compared in one go
constexpr int kPopulateRead = 22;               // MADV_POPULATE_READ, Linux 5.14

/// The whole pages around [begin, end).
struct Pages {
  Pages(const std::byte* begin, const std::byte* end)
      : p(reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(begin) / kSection * kSection)),
        bytes(static_cast<size_t>(end - p)) {}
  std::byte* p;
  size_t bytes;
};

/// Whether the last of these pages is in memory. (Of files that the caller may not write the system
/// says so of all.)
bool in_memory(const Pages& pages) {
  unsigned char state = 1;
  std::byte* last = pages.p + (pages.bytes - 1) / kSection * kSection;
  return ::mincore(last, 1, &state) != 0 || (state & 1U) != 0;
}

/// Brings pages that are in memory into the page tables. A fault maps the 16 pages around it (the
/// kernel's fault-around), which costs half of what MADV_POPULATE_READ takes page by page.
void touch(const Pages& pages) {
  constexpr size_t kAround = size_t{16} * 4096;
  for (size_t i = 0; i < pages.bytes; i += kAround) {
    static_cast<void>(*static_cast<const volatile std::byte*>(pages.p + i));
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
  file->plan_verification();
  return file;
}

std::shared_ptr<const PackedFile> PackedFile::parse(std::span<const std::byte> bytes,
                                                    std::string origin) {
  std::shared_ptr<PackedFile> file(new PackedFile);
  file->origin_ = std::move(origin);
  file->bytes_ = bytes;
  PackedParser(file.get()).run();
  file->plan_verification();
  return file;
}

const PackedLinear* PackedFile::find(const std::string& name) const {
  const auto it = linears_.find(name);
  return it == linears_.end() ? nullptr : &it->second.linear;
}

void PackedFile::release() const {
  if (file_ != nullptr) file_->release();
}

void PackedFile::release_tensors() const {
  if (file_ == nullptr) return;
  const Pages pages(gguf_->bytes().data(), gguf_->bytes().data() + gguf_->bytes().size());
  ::madvise(pages.p, pages.bytes, MADV_DONTNEED);
}

void PackedFile::use_large_pages() const {
  if (file_ == nullptr || stretches_.empty()) return;
  const Stretch& first = stretches_.front();
  const std::byte* linears = from_row(*first.run, view_of(*first.run, first.at), first.begin).codes;
  auto* begin = const_cast<std::byte*>(bytes_.data());
  const auto head = static_cast<size_t>(linears - begin);  // a multiple of 4096
  ::madvise(begin, head, MADV_NOHUGEPAGE);
  ::madvise(begin + head, bytes_.size() - head, MADV_HUGEPAGE);
}

void PackedFile::plan_verification() {
  for (const auto& [name, entry] : linears_) {
    const PackedLinear& l = entry.linear;
    const auto add = [&, n = &name](const std::vector<PackedRun>& runs,
                                    const std::vector<const std::byte*>& at,
                                    const std::vector<std::span<const uint64_t>>& checks) {
      for (size_t r = 0; r < runs.size(); ++r) {
        const int64_t step = std::max<int64_t>(kStretch / runs[r].column_bytes(), 1) * kBlockN;
        for (int64_t row = runs[r].n0; row < runs[r].end(); row += step) {
          stretches_.push_back(
              {n, &l, &runs[r], at[r], checks[r], row, std::min(row + step, runs[r].end())});
        }
      }
    };
    add(l.layout.runs, l.runs, l.checks);
    add(l.layout.second_terms, l.second_terms, l.second_checks);
  }
  const auto begin = [](const Stretch& s) {
    return from_row(*s.run, view_of(*s.run, s.at), s.begin).codes;
  };
  std::sort(stretches_.begin(), stretches_.end(),
            [&](const Stretch& a, const Stretch& b) { return begin(a) < begin(b); });
}

void PackedFile::verify(Verification* shared) const {
  try {
    for (size_t i = shared->next++; i < verify_items() && !shared->stop; i = shared->next++) {
      // Linears first: they are what takes long to come from a disk.
      if (i >= stretches_.size()) {
        if (shared->compares) verify_tensors(i - stretches_.size());
      } else if (shared->linears) {
        verify_stretch(i, shared->compares);
      }
    }
  } catch (...) {
    shared->stop = true;
    throw;
  }
}

void PackedFile::verify_tensors(size_t chunk) const {
  const auto image = gguf_->bytes();
  const size_t at = tensors_at_ + chunk * kTensorChunk;
  const size_t bytes = std::min<size_t>(kTensorChunk, image.size() - at);
  const std::byte* begin = image.data() + at;
  const uint64_t found = crc_checksum({begin, bytes}, chunk);
  release_tensors();
  require(found == tensor_checks_[chunk], ErrorCode::bad_format,
          "{}: tensor {}: damaged: its bytes have the checksum {:016x}, expected {:016x}", origin_,
          tensor_at(*gguf_, begin, begin + bytes), found, tensor_checks_[chunk]);
}

/// A read that the disk or a shortened file refuses would end the process when the bytes are used;
/// populated, it is an error. Faults of a mapping that wants large pages read these, and ahead;
/// MADV_WILLNEED would fill the page cache with small ones.
void PackedFile::verify_stretch(size_t index, bool compares) const {
  const Stretch& s = stretches_[index];
  const PackedView whole = view_of(*s.run, s.at);
  const auto codes = [&](int64_t row) { return from_row(*s.run, whole, row).codes; };
  const Pages pages(codes(s.begin), codes(s.end));
  if (file_ != nullptr && !in_memory(pages)) {
    const bool failed = ::madvise(pages.p, pages.bytes, kPopulateRead) != 0 && errno == EFAULT;
    require(!failed, ErrorCode::io, "{}: tensor {}: cannot be read", origin_, *s.name);
  } else if (file_ != nullptr && !compares) {
    touch(pages);
  }
  if (!compares) return;
  for (int64_t row = s.begin; row < s.end; row += kBlockN) {
    const uint64_t expected = s.checks[static_cast<size_t>((row - s.run->n0) / kBlockN)];
    const uint64_t found =
        block_checksum(*s.run, from_row(*s.run, whole, row), row, s.linear->seed);
    require(found == expected, ErrorCode::bad_format, "{}",
            damaged_block(*s.linear, *s.name, row, found, expected));
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
  check_unpacked_tensors(file.gguf(), config);  // before anything is sized by the layers
  return config;
}

void check_packed(const PackedFile& file, const Graph& graph) {
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
