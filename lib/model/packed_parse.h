// Fills a PackedFile from its bytes. Only packed_file.cpp includes this.
#pragma once

#include "model/byte_reader.h"
#include "model/packed_file.h"
#include "model/packed_format.h"

namespace qllm {

class PackedParser {
 public:
  /// `file` has its origin and bytes; the rest is filled by run().
  explicit PackedParser(PackedFile* file) : file_(file) {}
  /// Throws bad_format or unsupported.
  void run();

 private:
  void read_header();
  /// Bytes [at, at + count) of the file, or bad_format naming `what`.
  std::span<const std::byte> part(std::string_view what, uint64_t at, uint64_t count) const;
  void read_image();
  void read_table();
  void read_form(ByteReader& table);
  void read_tensor_checks(ByteReader& table);
  void read_linear(ByteReader& table);
  PackedRun read_run(ByteReader& table, const std::string& what, int64_t k) const;
  void read_runs(ByteReader& table, const std::string& what, uint64_t count, PackedEntry* entry,
                 std::vector<PackedRun>* runs) const;
  void check_cover(const PackedEntry& entry, const std::string& what) const;
  void place(ByteReader& table, const std::string& what, PackedEntry* entry);
  const std::byte* place_run(const PackedRun& run, const std::byte* at, size_t* check,
                             const PackedEntry& entry,
                             std::vector<std::span<const uint64_t>>* checks) const;

  PackedFile* file_;
  PackedHeader header_;
  uint64_t next_ = 0;  // where the next linear may begin
};

}  // namespace qllm
