#include "model/packed_parse.h"

#include <algorithm>
#include <utility>

#include "core/math.h"

namespace qllm {
namespace {

constexpr uint64_t kMaxSize = uint64_t{1} << 30;  // of n and k: no product of them overflows
constexpr uint64_t kMaxNameBytes = 256;
// The least that one entry takes in the table: bounds a count before anything is sized by it.
constexpr uint64_t kLeastLinear = 8 + 1 + 5 * 8;
constexpr uint64_t kRunBytes = 6 * 8;

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
}

bool is_format(uint64_t kind, uint64_t bits, uint64_t group, uint64_t scales) {
  if (kind == static_cast<uint64_t>(WeightFormat::Kind::row_int8)) return true;
  if (kind != static_cast<uint64_t>(WeightFormat::Kind::groups)) return false;
  if (bits == 8) return group == 32 && scales == static_cast<uint64_t>(GroupScales::f16);
  if (bits != 4 || scales > static_cast<uint64_t>(GroupScales::k_quant)) return false;
  if (scales == static_cast<uint64_t>(GroupScales::k_quant)) return group == 32;
  return group == 32 || group == 64 || group == 128;
}

}  // namespace

void PackedParser::run() {
  read_header();
  read_image();
  read_table();
}

void PackedParser::read_header() {
  const std::string& origin = file_->origin_;
  const auto bytes = file_->bytes_;
  constexpr auto kBad = ErrorCode::bad_format;
  require(bytes.size() >= sizeof(header_), kBad, "{}: no packed model: {} bytes, a header has {}",
          origin, bytes.size(), sizeof(header_));
  std::memcpy(&header_, bytes.data(), sizeof(header_));
  const std::string_view magic(header_.magic.data(), header_.magic.size());
  require(magic == kPackedMagic, kBad, "{}: no packed model: it does not begin with \"qllm-md\"",
          origin);
  require(header_.byte_order == kByteOrder, ErrorCode::unsupported,
          "{}: packed on a machine of another byte order", origin);
  require(header_.version == kPackedVersion, ErrorCode::unsupported,
          "{}: packed model of version {}, this library reads {}: pack it again", origin,
          header_.version, kPackedVersion);
  require(header_.header_bytes == sizeof(header_), kBad, "{}: header: expected {} bytes, found {}",
          origin, sizeof(header_), header_.header_bytes);
  require(header_.check == check_of(header_), kBad, "{}: the header is damaged (checksum)", origin);
  require(header_.file_bytes == bytes.size(), kBad, "{}: expected {} bytes, found {}", origin,
          header_.file_bytes, bytes.size());
}

std::span<const std::byte> PackedParser::part(std::string_view what, uint64_t at,
                                              uint64_t count) const {
  const uint64_t size = file_->bytes_.size();
  require(at <= size && count <= size - at, ErrorCode::bad_format,
          "{}: {}: {} bytes at offset {}, but the file ends after {}", file_->origin_, what, count,
          at, size);
  return file_->bytes_.subspan(at, count);
}

void PackedParser::read_image() {
  const auto image = part("model data", header_.gguf_at, header_.gguf_bytes);
  require(header_.gguf_head_bytes <= image.size(), ErrorCode::bad_format,
          "{}: metadata: {} bytes of {}", file_->origin_, header_.gguf_head_bytes, image.size());
  require(checksum(image.first(header_.gguf_head_bytes)) == header_.gguf_head_check,
          ErrorCode::bad_format, "{}: the metadata is damaged (checksum)", file_->origin_);
  file_->gguf_ = GgufFile::parse(image, file_->origin_);
  file_->tensors_at_ = header_.gguf_head_bytes;
}

void PackedParser::read_table() {
  const auto bytes = part("table", header_.table_at, header_.table_bytes);
  require(checksum(bytes) == header_.table_check, ErrorCode::bad_format,
          "{}: the table is damaged (checksum)", file_->origin_);
  ByteReader table(bytes, file_->origin_);
  read_form(table);
  read_tensor_checks(table);
  const auto count = table.read<uint64_t>("count of packed tensors");
  require(count <= table.left() / kLeastLinear, ErrorCode::bad_format,
          "{}: {} packed tensors do not fit into the {} bytes that follow", file_->origin_, count,
          table.left());
  for (uint64_t i = 0; i < count; ++i) read_linear(table);
  require(table.left() == 0, ErrorCode::bad_format, "{}: {} bytes too many in the table",
          file_->origin_, table.left());
}

void PackedParser::read_form(ByteReader& table) {
  const std::string_view scheme = table.read_string("scheme");
  try {
    file_->form_.scheme = parse_scheme(scheme);
  } catch (const Error&) {
    fail(ErrorCode::bad_format, "{}: scheme: unknown: {}", file_->origin_, printable(scheme));
  }
  require(file_->form_.scheme.kind != SchemeKind::fp32, ErrorCode::bad_format,
          "{}: scheme: fp32 is not packed", file_->origin_);
  const auto bits = table.read<uint64_t>("form");
  constexpr uint64_t kKnown = kRotatedResidual | kRotatedHeads | kRotatedFfn | kTiedHead;
  require((bits & ~kKnown) == 0, ErrorCode::bad_format, "{}: form: unknown bits {:x}",
          file_->origin_, bits & ~kKnown);
  file_->form_.rotations = {(bits & kRotatedResidual) != 0, (bits & kRotatedHeads) != 0,
                            (bits & kRotatedFfn) != 0};
  file_->form_.tied_lm_head = (bits & kTiedHead) != 0;
  file_->form_.digest = table.read<uint64_t>("digest");
}

void PackedParser::read_tensor_checks(ByteReader& table) {
  const uint64_t data = header_.gguf_bytes - header_.gguf_head_bytes;
  const auto count = table.read<uint64_t>("count of checksums");
  require(count == data / kTensorChunk + (data % kTensorChunk != 0), ErrorCode::bad_format,
          "{}: {} checksums for {} bytes of unpacked tensors", file_->origin_, count, data);
  const auto checks = table.take(count * sizeof(uint64_t), "checksums");
  file_->tensor_checks_.resize(count);
  std::memcpy(file_->tensor_checks_.data(), checks.data(), checks.size());
}

void PackedParser::read_linear(ByteReader& table) {
  const std::string_view name = table.read_string("tensor name");
  require(!name.empty() && name.size() <= kMaxNameBytes && is_printable(name),
          ErrorCode::bad_format, "{}: tensor name: expected 1 to {} printable bytes: {}",
          file_->origin_, kMaxNameBytes, printable(name));
  const std::string what = "tensor " + std::string(name);
  PackedEntry entry;
  const auto n = table.read<uint64_t>(what), k = table.read<uint64_t>(what);
  require(n > 0 && k > 0 && n <= kMaxSize && k <= kMaxSize, ErrorCode::bad_format,
          "{}: {}: sizes [{}, {}] are not in [1, {}]", file_->origin_, what, n, k, kMaxSize);
  entry.n = static_cast<int64_t>(n);
  entry.k = static_cast<int64_t>(k);
  const auto runs = table.read<uint64_t>(what);
  const auto second_terms = table.read<uint64_t>(what);
  PackedLayout& layout = entry.linear.layout;
  read_runs(table, what, runs, &entry, &layout.runs);
  read_runs(table, what, second_terms, &entry, &layout.second_terms);
  check_cover(entry, what);
  const bool in_groups = layout.runs.front().in_groups();
  layout.group = in_groups ? layout.runs.front().format.groups.group : 0;
  place(table, what, &entry);
  entry.linear.seed = packed_seed(name);
  entry.linear.in_file = file_->file_ != nullptr;
  entry.linear.origin = file_->origin_;
  // Moved as a whole: the spans of its checksums stay.
  require(file_->linears_.emplace(std::string(name), std::move(entry)).second,
          ErrorCode::bad_format, "{}: {}: appears twice", file_->origin_, what);
}

PackedRun PackedParser::read_run(ByteReader& table, const std::string& what, int64_t k) const {
  const auto kind = table.read<uint64_t>(what), bits = table.read<uint64_t>(what);
  const auto group = table.read<uint64_t>(what), scales = table.read<uint64_t>(what);
  const auto n0 = table.read<uint64_t>(what), n = table.read<uint64_t>(what);
  require(is_format(kind, bits, group, scales), ErrorCode::bad_format,
          "{}: {}: unknown format {} of {} bits in groups of {}, scales {}", file_->origin_, what,
          kind, bits, group, scales);
  require(n0 <= kMaxSize && n > 0 && n <= kMaxSize && n0 % kBlockN == 0 && n % kBlockN == 0,
          ErrorCode::bad_format, "{}: {}: {} rows from row {} on are no blocks of {}",
          file_->origin_, what, n, n0, kBlockN);
  PackedRun run;
  run.n0 = static_cast<int64_t>(n0);
  run.n = static_cast<int64_t>(n);
  run.format.kind = static_cast<WeightFormat::Kind>(kind);
  run.k_padded = round_up(k, kBlockK);
  if (run.in_groups()) {
    run.format.groups = {static_cast<int>(bits), static_cast<int>(group),
                         static_cast<GroupScales>(scales)};
    run.k_padded = run.format.groups.padded_k(k);
  }
  return run;
}

void PackedParser::read_runs(ByteReader& table, const std::string& what, uint64_t count,
                             PackedEntry* entry, std::vector<PackedRun>* runs) const {
  require(count <= table.left() / kRunBytes, ErrorCode::bad_format,
          "{}: {}: {} runs do not fit into the {} bytes that follow", file_->origin_, what, count,
          table.left());
  PackedLayout& layout = entry->linear.layout;
  for (uint64_t i = 0; i < count; ++i) {
    runs->push_back(read_run(table, what, entry->k));
    layout.k_padded = std::max(layout.k_padded, runs->back().k_padded);
  }
}

/// Runs cover the rows, second terms lie in order among them.
void PackedParser::check_cover(const PackedEntry& entry, const std::string& what) const {
  const PackedLayout& layout = entry.linear.layout;
  const int64_t rows = round_up(entry.n, kBlockN);
  int64_t next = 0;
  for (const PackedRun& run : layout.runs) {
    require(run.n0 == next, ErrorCode::bad_format, "{}: {}: a run begins at row {}, expected {}",
            file_->origin_, what, run.n0, next);
    require(run.in_groups() == layout.runs.front().in_groups() &&
                (!run.in_groups() ||
                 run.format.groups.group == layout.runs.front().format.groups.group),
            ErrorCode::bad_format, "{}: {}: its runs want different activations", file_->origin_,
            what);
    next = run.end();
  }
  require(next == rows, ErrorCode::bad_format, "{}: {}: runs of {} rows, expected {}",
          file_->origin_, what, next, rows);
  next = 0;
  for (const PackedRun& run : layout.second_terms) {
    require(
        !run.in_groups() && !layout.runs.front().in_groups() && run.n0 >= next && run.end() <= rows,
        ErrorCode::bad_format, "{}: {}: {} rows from row {} on are no second term", file_->origin_,
        what, run.n, run.n0);
    next = run.end();
  }
}

void PackedParser::place(ByteReader& table, const std::string& what, PackedEntry* entry) {
  PackedLinear& linear = entry->linear;
  const auto at = table.read<uint64_t>(what);
  const auto bytes = static_cast<uint64_t>(linear.layout.bytes());
  require(at % kSection == 0 && at >= next_, ErrorCode::bad_format,
          "{}: {}: offset {} is no multiple of {} behind what lies before", file_->origin_, what,
          at, kSection);
  const std::byte* next = part(what, at, bytes).data();
  next_ = at + bytes;
  uint64_t blocks = 0;
  for (const PackedRun& run : linear.layout.runs) blocks += static_cast<uint64_t>(run.n / kBlockN);
  for (const PackedRun& run : linear.layout.second_terms) {
    blocks += static_cast<uint64_t>(run.n / kBlockN);
  }
  const auto checks = table.take(blocks * sizeof(uint64_t), what);
  entry->checks.resize(blocks);
  std::memcpy(entry->checks.data(), checks.data(), checks.size());
  size_t check = 0;
  for (const PackedRun& run : linear.layout.runs) {
    linear.runs.push_back(next);
    next = place_run(run, next, &check, *entry, &linear.checks);
  }
  for (const PackedRun& run : linear.layout.second_terms) {
    linear.second_terms.push_back(next);
    next = place_run(run, next, &check, *entry, &linear.second_checks);
  }
}

const std::byte* PackedParser::place_run(const PackedRun& run, const std::byte* at, size_t* check,
                                         const PackedEntry& entry,
                                         std::vector<std::span<const uint64_t>>* checks) const {
  const auto blocks = static_cast<size_t>(run.n / kBlockN);
  checks->push_back(std::span(entry.checks).subspan(*check, blocks));
  *check += blocks;
  return at + run.bytes();
}

}  // namespace qllm
