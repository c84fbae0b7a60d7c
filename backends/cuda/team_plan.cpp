#include "team_plan.h"

#include <utility>

#include "backend/batch.h"
#include "core/error.h"
#include "team_cut.h"

namespace qllm::cuda {
namespace {

class TeamPlan final : public Plan {
 public:
  TeamPlan(const std::vector<DeviceInfo>& devices, std::shared_ptr<Communicator> communicator,
           const Graph& graph, const TeamWeights& weights, const PlanLimits& limits)
      : devices_(devices),
        communicator_(std::move(communicator)),
        limits_(limits),
        shape_(step_shape(graph)),
        exchanges_(devices.size()) {
    const TeamCut cut = cut_graph(graph, static_cast<int>(devices.size()));
    for (size_t r = 0; r < devices.size(); ++r) {
      use(r);
      ranks_.push_back(
          std::make_unique<CudaPlan>(devices[r], cut.ranks[r].graph, weights.ranks()[r], limits,
                                     PlanRank{static_cast<int>(r), static_cast<int>(devices.size()),
                                              cut.gathers, cut.n_kv_heads}));
    }
  }

  const PlanLimits& limits() const override { return limits_; }
  void execute(const Batch& batch, std::span<float> logits) override;
  void set_recorder(StepRecorder* recorder) override;

 private:
  void use(size_t r) const { check(cudaSetDevice(devices_[r].index), "cudaSetDevice"); }
  void launch();
  void exchange(size_t stage);

  std::vector<DeviceInfo> devices_;
  std::shared_ptr<Communicator> communicator_;
  PlanLimits limits_;
  qllm::StepShape shape_;
  std::vector<std::unique_ptr<CudaPlan>> ranks_;
  std::vector<Communicator::Exchange> exchanges_;  // of the stage at hand
  StepRecorder* recorder_ = nullptr;
};

void TeamPlan::exchange(size_t stage) {
  for (size_t r = 0; r < ranks_.size(); ++r) {
    use(r);
    exchanges_[r] = ranks_[r]->begin_exchange(stage);
  }
  const int64_t values = ranks_.front()->exchange_values(stage);
  if (values > 0) communicator_->all_gather(exchanges_, values);
  for (size_t r = 0; r < ranks_.size(); ++r) {
    use(r);
    ranks_[r]->end_exchange(stage);
  }
}

void TeamPlan::launch() {
  const size_t stages = ranks_.front()->stages();
  for (size_t from = 0; from < stages;) {
    size_t next = from;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      use(r);
      next = ranks_[r]->launch_from(from);
    }
    if (next < stages) exchange(next++);
    from = next;
  }
}

void TeamPlan::execute(const Batch& batch, std::span<float> logits) {
  check_batch(batch, limits_, shape_, static_cast<int64_t>(logits.size()));
  reserve_room(batch);
  const std::lock_guard lock(communicator_->mutex());
  const RecordedStep recorded(recorder_, step_of(batch));
  for (size_t r = 0; r < ranks_.size(); ++r) {
    use(r);
    ranks_[r]->begin(batch, r > 0 ? ranks_.front()->entry_rows() : nullptr);
  }
  launch();
  for (size_t r = 0; r < ranks_.size(); ++r) {
    use(r);
    ranks_[r]->end(batch, r == 0 ? logits : std::span<float>{});
  }
  advance(batch);
}

void TeamPlan::set_recorder(StepRecorder* recorder) {
  recorder_ = recorder;
  std::vector<std::string> tracks;
  for (const DeviceInfo& device : devices_) tracks.push_back(fmt::format("gpu {}", device.index));
  ProfileTeam* team = nullptr;
  if (recorder != nullptr) {
    std::vector<ProfileStage> stages = ranks_.front()->stage_names();
    for (size_t r = 1; r < ranks_.size(); ++r) {
      const std::vector<ProfileStage> others = ranks_[r]->stage_names();
      for (size_t i = 0; i < stages.size(); ++i) {
        const auto& bytes = others[i].track_bytes;
        stages[i].track_bytes.insert(stages[i].track_bytes.end(), bytes.begin(), bytes.end());
      }
    }
    const auto count = static_cast<int64_t>(stages.size());
    team = &recorder->add_team(TrackKind::gpu, tracks, std::move(stages), count);
  }
  for (size_t r = 0; r < ranks_.size(); ++r) {
    use(r);
    ranks_[r]->set_track(recorder, team != nullptr ? &team->tracks[r] : nullptr);
  }
}

}  // namespace

int64_t TeamWeights::bytes() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->bytes();
  return bytes;
}

int64_t TeamWeights::bytes_per_step() const {
  int64_t bytes = 0;
  for (const auto& rank : ranks_) bytes += rank->bytes_per_step();
  return bytes;
}

std::unique_ptr<Plan> compile_team_plan(const std::vector<DeviceInfo>& devices,
                                        std::shared_ptr<Communicator> communicator,
                                        const Graph& graph, const TeamWeights& weights,
                                        const PlanLimits& limits) {
  require(weights.ranks().size() == devices.size(), ErrorCode::invalid_argument,
          "cuda: weights of {} GPUs on {}", weights.ranks().size(), devices.size());
  return std::make_unique<TeamPlan>(devices, std::move(communicator), graph, weights, limits);
}

}  // namespace qllm::cuda
