// The bytes of a .qllm file that reader and writer share; docs/formats.md explains them.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "core/checksum.h"

namespace qllm {

inline constexpr std::string_view kPackedMagic = "qllm-md\n";
inline constexpr uint32_t kPackedVersion = 1;
inline constexpr uint32_t kByteOrder = 0x01020304;
inline constexpr uint64_t kSection = 4096;                   // what parts are aligned to
inline constexpr uint64_t kTensorChunk = uint64_t{1} << 20;  // bytes under one checksum

/// What stands at the begin of a file, in this order, without padding.
struct PackedHeader {
  std::array<char, 8> magic = {};
  uint32_t version = kPackedVersion;
  uint32_t byte_order = kByteOrder;
  uint64_t header_bytes = 0;
  uint64_t file_bytes = 0;
  uint64_t table_at = 0, table_bytes = 0, table_check = 0;
  uint64_t gguf_at = 0, gguf_bytes = 0;
  uint64_t gguf_head_bytes = 0, gguf_head_check = 0;  // metadata and tensor table of the image
  uint64_t reserved = 0;
  uint64_t check = 0;  // of all before
};
static_assert(sizeof(PackedHeader) == 104);

inline uint64_t check_of(const PackedHeader& header) {
  return checksum(std::as_bytes(std::span(&header, 1)).first(sizeof(header) - sizeof(uint64_t)));
}

/// Seeds a linear's checksums: blocks that change places with those of another are damage too.
inline uint64_t packed_seed(std::string_view name) {
  return checksum(std::as_bytes(std::span(name.data(), name.size())), kPackedVersion);
}

// Bits of the table's form.
inline constexpr uint64_t kRotatedResidual = 1, kRotatedHeads = 2, kRotatedFfn = 4, kTiedHead = 8;

}  // namespace qllm
