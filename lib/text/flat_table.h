// Hash tables that are filled once and then only read: open addressing, no node per entry. Making a
// tokenizer is two hundred thousand look-ups, and each is one miss of the cache instead of three.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qllm {

/// Texts that are held elsewhere, by number.
class TextIndex {
 public:
  /// `texts` outlives the index and keeps its strings where they are.
  explicit TextIndex(const std::vector<std::string>& texts)
      : texts_(texts), slots_(std::bit_ceil(2 * texts.size() + 2)) {}

  /// Number `id` may be found by its text, unless that is there already.
  void add(int32_t id) {
    const uint64_t hash = hash_of(texts_[static_cast<size_t>(id)]);
    Slot& slot = slots_[place(texts_[static_cast<size_t>(id)], hash)];
    if (slot.id < 0) slot = {static_cast<uint32_t>(hash >> 32), id};
  }
  /// -1: not there.
  int32_t find(std::string_view text) const { return slots_[place(text, hash_of(text))].id; }

 private:
  struct Slot {
    uint32_t tag = 0;  // the hash's upper half
    int32_t id = -1;   // -1: free
  };
  static uint64_t hash_of(std::string_view text) {
    return std::hash<std::string_view>()(text) * 0x9E3779B97F4A7C15U;
  }
  /// Where the text is, or would be put.
  size_t place(std::string_view text, uint64_t hash) const {
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash >> 8 & (slots_.size() - 1);
    while (slots_[i].id >= 0 &&
           (slots_[i].tag != tag || texts_[static_cast<size_t>(slots_[i].id)] != text)) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return i;
  }

  const std::vector<std::string>& texts_;
  std::vector<Slot> slots_;  // a power of two, at most half of them taken
};

/// Values by number; a Value is small and trivial.
template <typename Value>
class NumberTable {
 public:
  /// For at most `count` entries; forgets what there was.
  void reset(size_t count) { slots_.assign(std::bit_ceil(2 * count + 2), {}); }
  /// Unless the key is there already. Precondition: the key is not ~0.
  void add(uint64_t key, const Value& value) {
    Slot& slot = slots_[place(key)];
    if (slot.key == kFree) slot = {key, value};
  }
  /// Null: not there.
  const Value* find(uint64_t key) const {
    const Slot& slot = slots_[place(key)];
    return slot.key == kFree ? nullptr : &slot.value;
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Value value{};
  };
  size_t place(uint64_t key) const {
    const uint64_t hash = (key ^ key >> 29) * 0x9E3779B97F4A7C15U;
    size_t i = hash >> 20 & (slots_.size() - 1);
    while (slots_[i].key != kFree && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  std::vector<Slot> slots_ = std::vector<Slot>(2);
};

}  // namespace qllm
