#include "cuda_weights.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/math.h"
#include "upload.h"

namespace qllm::cuda {
namespace {

int64_t run_bytes(const PackedRun& run) {
  const int64_t scales = run.in_groups() ? 0 : run.n * static_cast<int64_t>(sizeof(float));
  return run.code_bytes() + scales;
}

/// The codes and scales of a run on the device.
struct Placed {
  std::byte* codes;
  float* scale;
};

/// Uploads the shares of one list of runs; returns where each lies.
std::vector<Placed> place_runs(const Weight& weight, const std::vector<PackedRun>& runs,
                               const std::vector<SharedRun>& shared, int term,
                               const PackedLinear* packed, const TensorSource& source,
                               Uploader* uploader, std::vector<DeviceBuffer>* memory) {
  std::vector<Placed> placed;
  for (const SharedRun& share : shared) {
    const PackedRun& run = share.run;
    const DeviceBuffer& buffer = memory->emplace_back(run_bytes(run), "weights");
    auto* const scale = reinterpret_cast<float*>(buffer.data() + run.code_bytes());
    int64_t row = 0;
    for (const RunPiece& piece : share.pieces) {
      uploader->send(weight, packed, source, runs, piece, term,
                     buffer.data() + row / kBlockN * run.column_bytes(),
                     run.in_groups() ? nullptr : scale + row);
      row += piece.n;
    }
    placed.push_back({buffer.data(), scale});
  }
  return placed;
}

std::vector<PackedRun> runs_of(const std::vector<SharedRun>& shared) {
  std::vector<PackedRun> runs;
  for (const SharedRun& share : shared) runs.push_back(share.run);
  return runs;
}

/// Points a part of a linear at its rows of the run that it is a part of.
void point_into(const std::vector<PackedRun>& runs, const std::vector<Placed>& placed,
                Int8Run* part) {
  if (part->n == 0) return;
  size_t r = 0;
  while (runs[r].end() <= part->n0) ++r;
  const int64_t row = part->n0 - runs[r].n0;
  part->w = reinterpret_cast<const int8_t*>(placed[r].codes) + row * runs[r].k_padded;
  part->scale = placed[r].scale + row;
}

DeviceLinear load_linear(const Weight& weight, const RowShare& share, const Scheme& scheme,
                         const TensorSource& source, Uploader* uploader) {
  const PackedLinear* packed = source.packed(weight.name);
  const PackedLayout whole =
      packed != nullptr ? packed->layout : packed_layout(scheme, weight, source);
  const RowShare rows = share.empty() ? RowShare{{0, weight.n}} : share;
  const std::vector<SharedRun> firsts = share_runs(whole.runs, rows);
  const std::vector<SharedRun> seconds = share_runs(whole.second_terms, rows);
  const PackedLayout layout{runs_of(firsts), runs_of(seconds), whole.group, whole.k_padded};
  DeviceLinear out;
  out.n = rows_in(rows);
  out.group = layout.group;
  out.k_padded = layout.k_padded;
  const auto first =
      place_runs(weight, whole.runs, firsts, 1, packed, source, uploader, &out.memory);
  const auto second =
      place_runs(weight, whole.second_terms, seconds, 2, packed, source, uploader, &out.memory);
  if (layout.group == 0) {
    out.int8 = pair_terms(layout);
    for (Int8Linear& part : out.int8) {
      point_into(layout.runs, first, &part.first);
      point_into(layout.second_terms, second, &part.second);
    }
    return out;
  }
  for (size_t r = 0; r < layout.runs.size(); ++r) {
    const PackedRun& run = layout.runs[r];
    out.groups.push_back(
        {first[r].codes, run.format.groups, run.n0, run.n, run.k_padded, run.column_bytes()});
  }
  return out;
}

DeviceBuffer load_vector(const Weight& weight, const RowShare& share, const TensorSource& source,
                         const Stream& stream) {
  std::vector<float> whole(static_cast<size_t>(weight.k));
  read_weight_vector(source, weight, whole.data());
  std::vector<float> values;
  for (const RowRange& range : share.empty() ? RowShare{{0, weight.k}} : share) {
    values.insert(values.end(), whole.begin() + range.begin, whole.begin() + range.end);
  }
  values.resize(static_cast<size_t>(round_up(static_cast<int64_t>(values.size()), kBlockN)));
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  DeviceBuffer out(bytes, "vectors");
  copy_to_device(out.data(), values.data(), bytes, stream);
  stream.synchronize();  // the values go
  return out;
}

}  // namespace

int64_t device_bytes(const PackedLayout& layout) {
  int64_t bytes = 0;
  for (const PackedRun& run : layout.runs) bytes += run_bytes(run);
  for (const PackedRun& run : layout.second_terms) bytes += run_bytes(run);
  return bytes;
}

std::vector<Int8Linear> pair_terms(const PackedLayout& layout) {
  std::vector<Int8Linear> parts;
  for (const PackedRun& run : layout.runs) {
    int64_t begin = run.n0;
    const auto add = [&](int64_t end) -> Int8Linear& {
      Int8Linear& part = parts.emplace_back();
      part.first.n0 = std::exchange(begin, end);
      part.first.n = end - part.first.n0;
      part.first.ld = run.k_padded;
      return part;
    };
    for (const PackedRun& term : layout.second_terms) {
      const int64_t from = std::max(term.n0, run.n0), to = std::min(term.end(), run.end());
      if (from >= to) continue;
      Int8Run& second = add(to).second;
      second.n0 = from;
      second.n = to - from;
      second.ld = term.k_padded;
    }
    if (begin < run.end()) add(run.end());
  }
  return parts;
}

CudaWeights::CudaWeights(const Graph& graph, const Scheme& scheme,
                         std::shared_ptr<const TensorSource> source, const Stream& stream,
                         const ProgressFn& progress, const std::vector<RowShare>& shares)
    : source_(std::move(source)) {
  linears_.resize(graph.weights.size());
  vectors_.resize(graph.weights.size());
  Uploader uploader(stream);
  for (size_t i = 0; i < graph.weights.size(); ++i) {
    const Weight& weight = graph.weights[i];
    const RowShare share = shares.empty() ? RowShare{} : shares[i];
    if (weight.role == WeightRole::linear) {
      linears_[i] = load_linear(weight, share, scheme, *source_, &uploader);
      for (const DeviceBuffer& buffer : linears_[i].memory) bytes_ += buffer.bytes();
    } else if (weight.role == WeightRole::vector) {
      vectors_[i] = load_vector(weight, share, *source_, stream);
      bytes_ += weight.k * static_cast<int64_t>(sizeof(float));
    } else {
      gathered_bytes_ += weight.k * static_cast<int64_t>(sizeof(float));
    }
    const double done = static_cast<double>(i + 1) / static_cast<double>(graph.weights.size());
    require(!progress || progress("loading", done), ErrorCode::cancelled, "loading: cancelled");
  }
  uploader.finish();
}

}  // namespace qllm::cuda
