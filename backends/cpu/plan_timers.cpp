#include "plan_timers.h"

#include <string>
#include <utility>

namespace qllm::cpu {

void PlanTimers::set(StepRecorder* recorder, int workers, std::vector<ProfileStage> stages,
                     ProfileStage entry) {
  std::vector<std::string> names;
  names.reserve(static_cast<size_t>(workers));
  for (int w = 0; w < workers; ++w) names.push_back("cpu worker " + std::to_string(w));
  int64_t spans = 0;
  for (const ProfileStage& stage : stages) {
    spans += stage.kind == "attention" ? 2 : 1;  // its workers may meet within
  }
  const std::string host = "cpu host";
  std::vector<ProfileStage> host_stages = {
      {"prepare", "prepare"}, std::move(entry), {"copy_out", "copy"}};
  workers_ = &recorder->add_team(TrackKind::cpu, names, std::move(stages), spans);
  host_ = &recorder->add_team(TrackKind::cpu, {&host, 1}, std::move(host_stages), 3).tracks.front();
  recorder_ = recorder;
}

}  // namespace qllm::cpu
