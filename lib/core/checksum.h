// A 64-bit checksum against damage (not against an adversary), some bytes a cycle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace qllm {

/// Of all bytes and their number. A change within one aligned 8-byte word always changes it: each
/// step is a bijection of the word and of the state. Others are missed with a chance of 2^-64.
uint64_t checksum(std::span<const std::byte> bytes, uint64_t seed = 0) noexcept;

/// The same against damage of large data, as fast as memory is read: four CRC-32C (polynomial
/// 0x1EDC6F41, RFC 3720) over every fourth word of 8 bytes, put together by checksum(). Any change
/// within 32 bits of such a word changes it; others are missed with a chance of 2^-32.
uint64_t crc_checksum(std::span<const std::byte> bytes, uint64_t seed = 0) noexcept;

}  // namespace qllm
