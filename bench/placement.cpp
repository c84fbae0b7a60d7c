// Decode under each policy of --numa on a machine that one need not have: predicted from a topology
// and bandwidths, or checked against this one.
#include <fmt/format.h>

#include <iostream>

#include "model/weight_bytes.h"
#include "placement_model.h"
#include "step_cost.h"

namespace {

using namespace qllm;

constexpr NumaPolicy kPolicies[] = {NumaPolicy::split, NumaPolicy::interleave, NumaPolicy::local,
                                    NumaPolicy::replicate};
// Counted by bench/barrier --step (where attention is cut between workers, six a layer).
constexpr double kBarriersOfLayer = 5;
constexpr double kOtherBarriers = 3;

struct Options {
  std::string topology;
  std::string machine;
  std::string model;
  std::string scheme = "int8";
  std::string kv_format = "bf16";
  int64_t depth = 0;
  int64_t check_bytes = int64_t{512} << 20;
  bool check = false;
  bench::Bandwidths bandwidths;
  bench::CommonFlags flags;
};

int64_t kv_bytes_of_token(const ModelConfig& c, KvFormat format) {
  const int64_t values = 2 * c.n_layers * c.n_kv_heads;
  return values * (format == KvFormat::int8 ? c.head_dim + 4 : 2 * c.head_dim);
}

double weight_bytes_of_step(const ModelConfig& config, const std::string& scheme) {
  const Graph graph = build_llama(config);
  const SyntheticSource source(graph, 1);
  return static_cast<double>(weight_bytes(graph, parse_scheme(scheme), source).per_step);
}

void take_known_machine(Options* o) {
  for (const bench::KnownMachine& m : bench::known_machines()) {
    if (m.name != o->machine) continue;
    o->topology = m.topology;
    o->bandwidths.node = m.socket_gbps / m.nodes_of_socket * bench::kMemoryEfficiency;
    o->bandwidths.link = m.link_gbps * bench::kLinkEfficiency;
    o->bandwidths.barrier_ns = bench::kLargeBarrierNs;
    o->bandwidths.dispatch_ns = bench::kLargeBarrierNs;
    return;
  }
  fail(ErrorCode::invalid_argument, "machine {}: not known; see docs/placement.md", o->machine);
}

std::unique_ptr<cpu::Topology> detect(const Options& o, NumaPolicy policy, int node) {
  cpu::TopologyOptions t;
  t.threads = o.flags.threads;
  t.synthetic = o.topology;
  t.numa = policy;
  t.node = node;
  return cpu::Topology::detect(t);
}

bench::Prediction predict(const Options& o, NumaPolicy policy, const bench::StepWork& work) {
  const auto whole = detect(o, policy, -1);
  if (policy != NumaPolicy::replicate) return predict(*whole, policy, work, o.bandwidths);
  std::vector<int> nodes;
  for (const cpu::WorkerSlot& slot : whole->workers()) {
    if (nodes.empty() || nodes.back() != slot.numa_node) nodes.push_back(slot.numa_node);
  }
  bench::Prediction p = predict(*detect(o, policy, nodes.front()), policy, work, o.bandwidths);
  p.teams = static_cast<int>(nodes.size());
  return p;
}

nlohmann::json to_json(const bench::Prediction& p) {
  return {{"policy", to_string(p.policy)},
          {"workers", p.workers},
          {"teams", p.teams},
          {"ms", p.seconds * 1e3},
          {"tokens_per_s", p.tokens_per_s()},
          {"tokens_per_s_of_all_teams", p.tokens_per_s_of_all()},
          {"bound", p.bound},
          {"remote_bytes_per_step", p.remote_bytes}};
}

void print(const Options& o, const bench::StepWork& work) {
  std::vector<bench::Prediction> all;
  for (const NumaPolicy policy : kPolicies) all.push_back(predict(o, policy, work));
  const auto topology = detect(o, NumaPolicy::split, -1);
  if (o.flags.json) {
    nlohmann::json document = {{"topology", o.topology},
                               {"nodes", topology->numa_nodes()},
                               {"packages", topology->packages()},
                               {"bytes_per_step", work.bytes},
                               {"barriers_per_step", work.barriers},
                               {"node_gbps", o.bandwidths.node},
                               {"link_gbps", o.bandwidths.link}};
    for (const auto& p : all) document["predictions"].push_back(to_json(p));
    std::cout << document.dump(2) << "\n";
    return;
  }
  fmt::print("{} package(s), {} node(s) of {:.0f} GB/s, links of {:.0f} GB/s; {:.1f} MB a step\n",
             topology->packages(), topology->numa_nodes(), o.bandwidths.node, o.bandwidths.link,
             work.bytes / 1e6);
  fmt::print("{:<11}  {:>7}  {:>8}  {:>9}  {:>11}  {:>9}  {}\n", "policy", "workers", "ms/step",
             "tokens/s", "all teams/s", "remote MB", "bound by");
  for (const auto& p : all) {
    fmt::print("{:<11}  {:>7}  {:>8.2f}  {:>9.1f}  {:>11.1f}  {:>9.1f}  {}\n", to_string(p.policy),
               p.workers, p.seconds * 1e3, p.tokens_per_s(), p.tokens_per_s_of_all(),
               p.remote_bytes / 1e6, p.bound);
  }
}

/// One measurement beside what the bandwidth around it predicts.
struct Check {
  double gbps = 0;
  bench::StepWork work;
  double predicted = 0;  // tokens/s
  double measured = 0;
};

Check check_once(Options o, const ModelConfig& config, bench::StepBench& step) {
  Check c;
  const double before = step.read_gbps(o.check_bytes);
  const bench::StepCost cost = step.measure(1);
  c.gbps = (before + step.read_gbps(o.check_bytes)) / 2;
  const auto topology = detect(o, NumaPolicy::split, -1);
  o.bandwidths = {};
  o.bandwidths.node = c.gbps / topology->numa_nodes();
  o.bandwidths.barrier_ns = cost.barrier.median;
  o.bandwidths.dispatch_ns = cost.dispatch.median;
  const double kv = cost.depth * static_cast<double>(kv_bytes_of_token(config, KvFormat::bf16));
  c.work = {weight_bytes_of_step(config, o.scheme) + kv, cost.barriers};
  c.predicted = predict(*topology, NumaPolicy::split, c.work, o.bandwidths).tokens_per_s();
  c.measured = 1e9 / cost.step.median;
  return c;
}

void check(const Options& o, const ModelConfig& config) {
  BackendOptions backend;
  backend.threads = o.flags.threads;
  backend.scheme = parse_scheme(o.scheme);
  bench::StepBench step(config, backend);
  std::vector<double> gbps, predicted, measured, ratio;
  Check last;
  for (int i = 0; i < o.flags.repeat; ++i) {
    last = check_once(o, config, step);
    gbps.push_back(last.gbps);
    predicted.push_back(last.predicted);
    measured.push_back(last.measured);
    ratio.push_back(last.measured / last.predicted);
  }
  const bench::Summary part = bench::summarize(ratio);
  if (o.flags.json) {
    const nlohmann::json document = {
        {"read_gbps", bench::to_json(bench::summarize(gbps))},
        {"bytes_per_step", last.work.bytes},
        {"barriers_per_step", last.work.barriers},
        {"predicted_tokens_per_s", bench::to_json(bench::summarize(predicted))},
        {"measured_tokens_per_s", bench::to_json(bench::summarize(measured))},
        {"measured_over_predicted", bench::to_json(part)}};
    std::cout << document.dump(2) << "\n";
    return;
  }
  fmt::print("this machine: {:.1f} GB/s read, {:.1f} MB and {:.0f} barriers a step\n",
             bench::summarize(gbps).median, last.work.bytes / 1e6, last.work.barriers);
  fmt::print(
      "decode, split: {:.1f} tokens/s predicted, {:.1f} measured: {:.0f} % of it ({:.0f} to "
      "{:.0f})\n",
      bench::summarize(predicted).median, bench::summarize(measured).median, 100 * part.median,
      100 * part.min, 100 * part.max);
}

void add_options(CLI::App& app, Options& o) {
  o.flags.add_to(app);
  const auto gbps = [&](const char* name, double& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::Range(0.0, 1e6))->type_name("GB/s");
  };
  auto* known = app.add_option("--machine", o.machine, "one of docs/placement.md, by name");
  app.add_option("--topology", o.topology,
                 "an XML file of lstopo or an hwloc description; default: this machine")
      ->excludes(known);
  gbps("--node-gbps", o.bandwidths.node, "what one memory node gives");
  gbps("--link-gbps", o.bandwidths.link, "from package to package, one direction; 0: no limit");
  gbps("--within-gbps", o.bandwidths.within, "from node to node of one package; 0: no limit");
  gbps("--core-gbps", o.bandwidths.core, "what one core takes; 0: no limit");
  app.add_option("--barrier-ns", o.bandwidths.barrier_ns, "cost of one barrier");
  app.add_option("--synthetic", o.model, "the model, as in qllm bench; default: a 1.0 B shape")
      ->type_name("KEY=N,...");
  app.add_option("--scheme", o.scheme, "how weights are held")->capture_default_str();
  app.add_option("--kv-format", o.kv_format, "bf16 or int8")->capture_default_str();
  app.add_option("--depth", o.depth, "tokens in the cache")->check(CLI::Range(0, 1 << 30));
  app.add_flag("--check", o.check,
               "measure bandwidth and a decode on this machine, beside what is predicted of it");
  app.add_option("--check-bytes", o.check_bytes, "read for the bandwidth")
      ->transform(CLI::AsSizeValue(false));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Decode under each policy for memory nodes, predicted from topology and bandwidths.");
  Options o;
  add_options(app, o);
  CLI11_PARSE(app, argc, argv);
  try {
    if (!o.machine.empty()) take_known_machine(&o);
    const ModelConfig config = bench::parse_model(o.model);
    if (o.check) {
      check(o, config);
      return 0;
    }
    require(o.bandwidths.node > 0, ErrorCode::invalid_argument,
            "placement: give --machine or --node-gbps, or --check");
    const double kv =
        static_cast<double>(o.depth * kv_bytes_of_token(config, parse_kv_format(o.kv_format)));
    print(o, {weight_bytes_of_step(config, o.scheme) + kv,
              kBarriersOfLayer * static_cast<double>(config.n_layers) + kOtherBarriers});
  } catch (const std::exception& e) {
    std::cerr << "placement: error: " << e.what() << "\n";
    return 1;
  }
}
