// Fills a GgufFile from its bytes. Only gguf.cpp includes this.
#pragma once

#include "model/byte_reader.h"
#include "model/gguf.h"

namespace qllm {

class GgufParser {
 public:
  /// `file` has its origin and bytes; the rest is filled by run().
  explicit GgufParser(GgufFile* file) : file_(file), reader_(file->bytes_, file->origin_) {}
  /// Throws bad_format or unsupported.
  void run();

 private:
  struct Extent {  // where a tensor's data lies, relative to the data section
    uint64_t offset;
    uint64_t bytes;
  };

  void read_magic_and_version();
  void read_metadata(uint64_t count);
  void read_tensors(uint64_t count);
  void read_alignment();
  void refuse_splits() const;
  GgufValue read_value(std::string_view key);
  GgufValue read_array(std::string_view key);
  GgufTensor read_tensor(Extent* extent);
  std::vector<int64_t> read_shape(std::string_view tensor);
  uint64_t tensor_bytes(const GgufTensor& tensor) const;
  void place_tensors(const std::vector<Extent>& extents);
  void refuse_overlaps(const std::vector<Extent>& extents) const;
  std::string_view read_name(std::string_view what, uint64_t limit);

  GgufFile* file_;
  ByteReader reader_;
};

}  // namespace qllm
