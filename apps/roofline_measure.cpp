#include "roofline_measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "bench_plan.h"
#include "interrupt.h"
#include "roofline_local.h"
#include "roofline_stages.h"

namespace qllm::app {
namespace {

// A round is short: what the machine gives changes within tenths of a second, and both ceilings
// must be those of the steps between them.
constexpr double kRoundSeconds = 0.15;
constexpr int kMostSteps = 8;
constexpr int64_t kStepTokens = 512;  // of prefill: OpenOptions::max_batch_tokens

MachineCeilings middle(const MachineCeilings& a, const MachineCeilings& b) {
  MachineCeilings m = a;
  for (double MachineCeilings::*figure :
       {&MachineCeilings::read_gbps, &MachineCeilings::int8_tops, &MachineCeilings::fp16_tflops,
        &MachineCeilings::fp32_tflops, &MachineCeilings::host_gbps}) {
    m.*figure = (a.*figure + b.*figure) / 2;
  }
  for (size_t i = 0; i < std::min(m.kernels.size(), b.kernels.size()); ++i) {
    m.kernels[i].tops = (a.kernels[i].tops + b.kernels[i].tops) / 2;
  }
  return m;
}

/// Median of each figure.
rl::Device median_device(const std::vector<rl::Device>& rounds) {
  rl::Device d = rounds.front();
  const auto median = [&](const auto& figure) {
    std::vector<double> values;
    values.reserve(rounds.size());
    for (const rl::Device& r : rounds) values.push_back(figure(r));
    return spread_of(values).median;
  };
  d.read_gbps = median([](const rl::Device& r) { return r.read_gbps; });
  d.int8_tops = median([](const rl::Device& r) { return r.int8_tops; });
  d.fp16_tflops = median([](const rl::Device& r) { return r.fp16_tflops; });
  d.fp32_tflops = median([](const rl::Device& r) { return r.fp32_tflops; });
  for (size_t i = 0; i < d.kernels.size(); ++i) {
    d.kernels[i].tops = median([i](const rl::Device& r) { return r.kernels[i].tops; });
  }
  return d;
}

/// One case on one device.
class CaseRun {
 public:
  CaseRun(const Model& model, StepTimer& timer, const RooflineRun& run, RooflineCell& cell)
      : model_(model),
        timer_(timer),
        cell_(cell),
        shape_(run.shape),
        name_(run.devices[cell.device].id),
        machine_(model.machine()),
        what_(cell.what),
        prompt_(fixed_ids(what_.context - 1, model.info().vocab_size)) {
    for (int64_t i = 0; i < what_.batch; ++i) sessions_.emplace_back(model, what_.context);
    for (Session& session : sessions_) together_.push_back(&session);
    ids_.assign(sessions_.size(), prompt_.empty() ? 0 : prompt_.front());
    logits_.resize(sessions_.size() * static_cast<size_t>(model.info().vocab_size));
    question_.schemes = {"int8"};
    if (what_.scheme.starts_with("int4")) question_.schemes.push_back(what_.scheme);
    question_.tokens = {what_.batch};
    const int64_t prefill = std::min(kStepTokens, what_.batch * (what_.context - 1));
    if (prefill > 0 && prefill != what_.batch) question_.tokens.push_back(prefill);
  }

  /// What decode stands behind.
  void prefill() {
    if (!prompt_.empty()) {
      timer_.take();
      const MachineCeilings before = model_.measure_ceilings(question_);
      for (Session& session : sessions_) {
        session.prefill(prompt_);
        throw_if_interrupted();
      }
      cell_.measured_prefill = compare({finish(before, rl::Phase::prefill, what_.context - 1, 1)});
    }
    timer_.take();
    step();  // touches what the rounds will use
    const std::vector<TimedStep> warm = timer_.take();
    const double took = warm.empty() ? 0 : static_cast<double>(warm.front().ns) * 1e-9;
    steps_ = took * kMostSteps > kRoundSeconds ? std::max(1, static_cast<int>(kRoundSeconds / took))
                                               : kMostSteps;
  }

  /// Behind prefill().
  void decode() {
    const MachineCeilings before = model_.measure_ceilings(question_);
    step();  // the ceilings have put the workers to sleep and the model's buffers out of the caches
    timer_.take();
    for (int i = 0; i < steps_; ++i) step();
    rounds_.push_back(finish(before, rl::Phase::decode, what_.context, steps_));
    devices_.push_back(device_);
  }

  /// Into the cell. Behind the last round.
  void conclude() {
    cell_.measured_decode = compare(rounds_);
    const rl::Device now = median_device(devices_);
    for (rl::Estimate* e : {&cell_.prefill, &cell_.decode}) {
      *e = rl::estimate(shape_, e->workload, now);
    }
    cell_.ceilings = now;
  }

 private:
  void step() {
    Session::decode_together(together_, ids_, logits_);
    for (Session& session : sessions_) session.truncate(what_.context - 1);
    throw_if_interrupted();
  }

  MeasuredRound finish(const MachineCeilings& before, rl::Phase phase, int64_t context, int count) {
    const std::vector<TimedStep> steps = timer_.take();
    device_ = local_device(name_, machine_, middle(before, model_.measure_ceilings(question_)));
    MeasuredRound round = add_up(steps, count);
    round.bound =
        rl::estimate(shape_, {phase, what_.batch, context, what_.scheme, what_.kv, 0}, device_);
    return round;
  }

  const Model& model_;
  StepTimer& timer_;
  RooflineCell& cell_;
  const rl::Shape& shape_;
  std::string name_;
  MachineInfo machine_;
  RooflineCase what_;
  std::vector<int32_t> prompt_;
  std::deque<Session> sessions_;
  std::vector<Session*> together_;
  std::vector<int32_t> ids_;
  std::vector<float> logits_;
  KernelQuestion question_;
  rl::Device device_;
  int steps_ = 1;                      // of a round
  std::vector<MeasuredRound> rounds_;  // of decode
  std::vector<rl::Device> devices_;    // of those
};

bool is_alike(const RooflineCell& a, const RooflineCell& b) {
  return a.device == b.device && a.what.scheme == b.what.scheme && a.what.kv == b.what.kv;
}

}  // namespace

MeasuredRound add_up(const std::vector<TimedStep>& steps, double count) {
  MeasuredRound round;
  round.stage_seconds.resize(roofline_stages().size());
  for (const TimedStep& step : steps) {
    double rest = static_cast<double>(step.ns);
    for (const TimedStep::Stage& stage : step.stages) {
      const auto ns = static_cast<double>(stage.ns);
      round.stage_seconds[stage_of_timer(stage.label, stage.kind)] += ns / count * 1e-9;
      rest -= ns;
    }
    round.stage_seconds.back() += rest / count * 1e-9;
    round.waited += static_cast<double>(step.waited_ns) / count * 1e-9;
    round.seconds += static_cast<double>(step.ns) / count * 1e-9;
  }
  return round;
}

MeasuredPhase compare(const std::vector<MeasuredRound>& rounds) {
  const size_t stages = roofline_stages().size();
  std::vector<double> seconds;
  std::vector<double> bounds;
  std::vector<double> ratios;
  std::vector<double> waits;
  std::vector<std::vector<double>> stage_seconds(stages);
  std::vector<std::vector<double>> stage_bounds(stages);
  for (const MeasuredRound& round : rounds) {
    std::vector<double> parts(stages);
    for (const rl::OpEstimate& op : round.bound.ops) {
      parts[stage_of_op(op.cost.name)] += op.min_time_s;
    }
    double bound = 0;
    for (size_t i = 0; i < stages; ++i) {
      if (round.stage_seconds[i] > 0) bound += parts[i];
      stage_seconds[i].push_back(round.stage_seconds[i]);
      stage_bounds[i].push_back(parts[i]);
    }
    seconds.push_back(round.seconds);
    bounds.push_back(bound);
    waits.push_back(round.seconds > 0 ? round.waited / round.seconds : 0);
    ratios.push_back(bound > 0 ? round.seconds / bound : 0);
  }
  MeasuredPhase phase;
  phase.step_s = spread_of(seconds);
  phase.bound_s = spread_of(bounds);
  phase.ratio = spread_of(ratios);
  phase.waiting_share = spread_of(waits);
  for (size_t i = 0; i < stages; ++i) {
    phase.stages.push_back({spread_of(stage_seconds[i]), spread_of(stage_bounds[i]).median});
  }
  return phase;
}

void measure_cells(RooflineRun& run, const OpenFn& open, int rounds) {
  const InterruptScope scope;
  for (size_t first = 0; first < run.cells.size();) {
    const RooflineCell& head = run.cells[first];
    size_t end = first;
    while (end < run.cells.size() && is_alike(head, run.cells[end])) ++end;
    if (run.devices[head.device].measured) {
      const Model model = open(run.devices[head.device].id, head.what);
      StepTimer timer(model);
      std::deque<CaseRun> cases;  // by turns: all meet the machine at its best and its worst
      for (size_t i = first; i < end; ++i) cases.emplace_back(model, timer, run, run.cells[i]);
      for (CaseRun& one : cases) one.prefill();
      for (int round = 0; round < rounds; ++round) {
        for (CaseRun& one : cases) one.decode();
      }
      for (CaseRun& one : cases) one.conclude();
    }
    first = end;
  }
}

}  // namespace qllm::app
