// Packed model files (.qllm): a header, a table of linears as they lie packed, and a GGUF image of
// what is not packed: metadata, norms, the embedding table. docs/formats.md has the layout.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/packed_linear.h"
#include "graph/graph.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/rotation.h"
#include "quant/scheme.h"

namespace qllm {

class MappedFile;

/// What was made of the tensors, beside their bytes.
struct PackedForm {
  Scheme scheme;
  Rotations rotations;
  bool tied_lm_head = false;  // of the model that was packed
  uint64_t digest = 0;        // model_digest: whose sessions it reads
};

/// One linear of the table.
struct PackedEntry {
  int64_t n = 0;
  int64_t k = 0;
  PackedLinear linear;
  std::vector<uint64_t> checks;  // all runs', which linear.checks view
};

/// A parsed file; immutable, safe for many threads.
class PackedFile {
 public:
  /// Maps and parses. Throws not_found, io, bad_format (also for a damaged header or table),
  /// unsupported (another version or byte order).
  static std::shared_ptr<const PackedFile> open(const std::string& path);
  /// Parses bytes that the caller keeps alive, aligned to 64; `origin` begins each message.
  static std::shared_ptr<const PackedFile> parse(std::span<const std::byte> bytes,
                                                 std::string origin);
  ~PackedFile();
  PackedFile(const PackedFile&) = delete;
  PackedFile& operator=(const PackedFile&) = delete;

  const std::string& origin() const { return origin_; }
  int64_t file_bytes() const { return static_cast<int64_t>(bytes_.size()); }
  const PackedForm& form() const { return form_; }
  /// Metadata and the tensors that are not packed.
  const GgufFile& gguf() const { return *gguf_; }
  const std::map<std::string, PackedEntry>& linears() const { return linears_; }
  /// Of that name, or null.
  const PackedLinear* find(const std::string& name) const;

  /// Compares everything with its checksums; throws bad_format naming the tensor that is damaged.
  /// `linears`: the packed ones, too (a load that copies them compares the copies). Where the file
  /// is not in memory it is read ahead. Pages of the unpacked tensors are given back, those of the
  /// linears stay. Several threads may share the work: `next` is where they meet.
  struct Verification {
    std::atomic<bool> linears{true};
    bool compares = true;  // false: linears are only brought into memory and the page tables
    std::atomic<size_t> next{0};
    std::atomic<bool> stop{false};
  };
  void verify(Verification* shared) const;
  /// How many items of work that is: where `next` ends.
  size_t verify_items() const { return stretches_.size() + tensor_checks_.size(); }
  /// Gives all pages back.
  void release() const;
  /// Those of the image.
  void release_tensors() const;
  /// Asks for large pages under the linears: the file system has them where it was read or written
  /// in large pieces. Not under the embedding table, of which few rows are wanted.
  void use_large_pages() const;

 private:
  friend class PackedParser;
  PackedFile() = default;
  void verify_tensors(size_t chunk) const;
  void verify_stretch(size_t index, bool compares) const;
  void plan_verification();
  /// Rows of one run that are compared in one go.
  struct Stretch {
    const std::string* name;
    const PackedLinear* linear;
    const PackedRun* run;
    const std::byte* at;  // of the run
    std::span<const uint64_t> checks;
    int64_t begin, end;  // rows
  };

  std::string origin_;
  std::unique_ptr<MappedFile> file_;  // null where the caller owns the bytes
  std::span<const std::byte> bytes_;
  PackedForm form_;
  std::shared_ptr<const GgufFile> gguf_;
  size_t tensors_at_ = 0;                // where the image's tensor data begins
  std::vector<uint64_t> tensor_checks_;  // of each kTensorChunk bytes of it
  std::map<std::string, PackedEntry> linears_;
  std::vector<Stretch> stretches_;  // in the order of the file
};

/// Whether a file begins as a packed one; false for one that cannot be read.
bool is_packed_file(const std::string& path);

/// config_from_gguf of the image, and what only the packed file knows; the image has the vectors
/// and tables of such a model. Throws bad_format.
ModelConfig config_from_packed(const PackedFile& file);

/// The file has the linears of the graph, all of them and no others. Throws bad_format.
void check_packed(const PackedFile& file, const Graph& graph);

/// A source over the unpacked tensors that also has the packed linears.
class PackedSource final : public TensorSource {
 public:
  /// `tensors` reads file->gguf(), rotated as the file's form says.
  PackedSource(std::shared_ptr<const PackedFile> file, std::shared_ptr<const TensorSource> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}
  void read_rows(const std::string& tensor, int64_t row, int64_t count, float* out) const override {
    tensors_->read_rows(tensor, row, count, out);
    // A row brings all of its large page into the process: some words would map the whole table.
    if (++rows_ % kRowsKept == 0) file_->release_tensors();
  }
  std::optional<GroupFormat> grid(const std::string& tensor) const override {
    return tensors_->grid(tensor);
  }
  void read_grid_row(const std::string& tensor, int64_t row, GroupRow* out) const override {
    tensors_->read_grid_row(tensor, row, out);
  }
  const PackedLinear* packed(const std::string& weight) const override {
    return file_->find(weight);
  }

 private:
  static constexpr uint32_t kRowsKept = 16;
  std::shared_ptr<const PackedFile> file_;
  std::shared_ptr<const TensorSource> tensors_;
  mutable std::atomic<uint32_t> rows_{0};
};

}  // namespace qllm
