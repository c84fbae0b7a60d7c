// qllm info: what this machine is to qllm, and what a model file holds.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "bench_plan.h"
#include "command.h"
#include "input.h"
#include "options.h"
#include "report.h"

namespace qllm::app {
namespace {

struct InfoOptions {
  std::string model;
  bool kernels = false;
  bool tensors = false;
  bool verify = false;
  std::string synthetic;
  bool placement = false;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    auto* m = add_model(command, model);
    command.add_flag("--kernels", kernels, "also which kernel computes int8 matmuls of which size");
    command.add_flag("--tensors", tensors, "list every tensor instead of a summary by type");
    command.add_flag("--verify", verify, "compare all of a .qllm file with its checksums");
    command.add_flag("--placement", placement,
                     "load the weights and ask the kernel on which memory nodes they lie");
    command
        .add_option("--synthetic", synthetic,
                    "--placement of a model of random weights instead, as in bench")
        ->type_name("KEY=N,...")
        ->excludes(m);
    command.add_flag("--json", json, "one JSON document");
    common.add_to(command);
  }
};

Json machine_json(const MachineInfo& machine) {
  Json json;
  json["cpu"] = machine.cpu;
  json["isa"] = machine.isa;
  json["isa_used"] = machine.isa_used;
  Json& kernels = json["kernels"] = Json::array();
  for (const KernelChoice& choice : machine.kernels) {
    kernels.push_back({{"tokens_from", choice.tokens_from},
                       {"outputs_from", choice.outputs_from},
                       {"inputs_from", choice.inputs_from},
                       {"kernel", choice.kernel},
                       {"note", choice.note}});
  }
  json["packages"] = machine.packages;
  json["numa_nodes"] = machine.numa_nodes;
  json["cores"] = machine.cores;
  json["workers"] = machine.workers;
  json["cpus"] = machine.cpus;
  json["memory_bytes"] = machine.memory_bytes;
  json["notes"] = machine.notes;
  return json;
}

Json model_json(const ModelInfo& model) {
  Json json;
  json["architecture"] = model.architecture;
  json["name"] = model.name;
  json["parameters"] = model.parameters;
  json["file_bytes"] = model.file_bytes;
  json["scheme"] = model.scheme;
  json["weight_bytes"] = model.weight_bytes;
  json["bytes_per_token"] = model.bytes_per_token;
  json["kv_bytes_per_token"] = model.kv_bytes_per_token;
  json["vocab_size"] = model.vocab_size;
  json["d_model"] = model.d_model;
  json["d_ff"] = model.d_ff;
  json["n_layers"] = model.n_layers;
  json["n_heads"] = model.n_heads;
  json["n_kv_heads"] = model.n_kv_heads;
  json["head_dim"] = model.head_dim;
  json["rotary_dim"] = model.rotary_dim;
  json["context_length"] = model.context_length;
  json["rms_norm_eps"] = model.rms_norm_eps;
  json["rope_base"] = model.rope_base;
  json["tied_lm_head"] = model.tied_lm_head;
  json["rotated"] = model.rotated;
  json["packed"] = !model.packed_file.empty();
  json["memory"] = model.memory;
  json["tokenizer"] = model.tokenizer;
  json["has_chat_template"] = model.has_chat_template;
  Json& tensors = json["tensors"] = Json::array();
  for (const TensorInfo& tensor : model.tensors) {
    Json& entry = tensors.emplace_back();
    entry["name"] = tensor.name;
    entry["type"] = tensor.type;
    entry["shape"] = tensor.shape;
    entry["bytes"] = tensor.bytes;
  }
  return json;
}

std::string kernels_text(const MachineInfo& machine) {
  Table table;
  table.row({"tokens", "outputs", "inputs", "int8 kernel, until a later line holds too", ""});
  for (const KernelChoice& c : machine.kernels) {
    table.row({fmt::format("{}+", c.tokens_from), fmt::format("{}+", c.outputs_from),
               fmt::format("{}+", c.inputs_from), c.kernel, c.note});
  }
  return table.text();
}

std::string machine_text(const MachineInfo& machine, bool kernels) {
  Table table;
  table.row({"machine", machine.cpu});
  table.row({"kernel tiers",
             fmt::format("{} (using {})", fmt::join(machine.isa, ", "), machine.isa_used)});
  table.row({"topology", fmt::format("{} package(s), {} NUMA node(s), {} core(s)", machine.packages,
                                     machine.numa_nodes, machine.cores)});
  table.row(
      {"workers", fmt::format("{} on CPUs {}", machine.workers, fmt::join(machine.cpus, ","))});
  table.row({"memory", human_bytes(machine.memory_bytes)});
  for (const std::string& note : machine.notes) table.row({"note", note});
  return kernels ? table.text() + "\n" + kernels_text(machine) : table.text();
}

// One line per element type, and each tensor below where asked.
std::string tensors_text(const ModelInfo& model, bool all) {
  struct Group {
    int64_t count = 0, bytes = 0;
  };
  std::map<std::string, Group> groups;
  Table list;
  for (const TensorInfo& tensor : model.tensors) {
    Group& group = groups[tensor.type];
    group.count += 1;
    group.bytes += tensor.bytes;
    list.row(
        {"  " + tensor.name, tensor.type, shape_text(tensor.shape), human_bytes(tensor.bytes)});
  }
  std::string out;
  for (const auto& [type, group] : groups) {
    out += fmt::format("  {} x {}, {}\n", group.count, type, human_bytes(group.bytes));
  }
  return all ? out + list.text() : out;
}

std::string model_text(const ModelInfo& model, bool all_tensors) {
  Table table;
  table.row({"model", model.name.empty() ? "(unnamed)" : model.name});
  table.row({"architecture", fmt::format("{}, {} parameters, {} layers", model.architecture,
                                         human_count(model.parameters), model.n_layers)});
  table.row(
      {"width", fmt::format("d_model {}, d_ff {}, vocabulary {}{}", model.d_model, model.d_ff,
                            model.vocab_size, model.tied_lm_head ? " (tied to the LM head)" : "")});
  table.row({"attention", fmt::format("{} heads, {} KV heads, head_dim {}", model.n_heads,
                                      model.n_kv_heads, model.head_dim)});
  table.row({"positions", fmt::format("rotary {} of base {}, context {}", model.rotary_dim,
                                      model.rope_base, model.context_length)});
  table.row({"norm", fmt::format("RMS, eps {:g}", model.rms_norm_eps)});
  table.row({"tokenizer", fmt::format("{}{}", model.tokenizer.empty() ? "none" : model.tokenizer,
                                      model.has_chat_template ? ", chat template" : "")});
  table.row({"file", human_bytes(model.file_bytes)});
  table.row({"weights", human_bytes(model.weight_bytes) + " in memory, " + model.scheme +
                            (model.rotated ? ", rotated" : "")});
  table.row({"memory", model.memory});
  table.row({"read per token",
             fmt::format("{} + {} per token of context", human_bytes(model.bytes_per_token),
                         human_bytes(model.kv_bytes_per_token))});
  table.row({"tensors", fmt::format("{}", model.tensors.size())});
  return table.text() + tensors_text(model, all_tensors);
}

/// Where the weights would lie.
std::string memory_of(const ModelInfo& model, const OpenOptions& options,
                      const MachineInfo& machine) {
  const bool packed = !model.packed_file.empty() || !options.cache_folder.empty();
  if (options.memory == "hugetlb") return options.memory;
  const bool maps =
      options.memory == "map" || (options.memory == "auto" && machine.numa_nodes <= 1);
  return packed && maps ? "map" : "copy";
}

PlacementInfo find_placement(const InfoOptions& options) {
  const Model model = options.synthetic.empty()
                          ? open_model(options.model, options.common)
                          : open_synthetic(parse_shape(options.synthetic), options.common);
  return model.placement();
}

int execute(const InfoOptions& options) {
  if (options.placement && options.model.empty() && options.synthetic.empty()) {
    throw UsageError{"--placement: give a MODEL or --synthetic KEY=N,..."};
  }
  // The model first: a wrong path should not hide behind a page about the machine.
  ModelInfo model;
  const bool has_model = !options.model.empty();
  const auto bar = std::make_shared<ProgressBar>(!options.common.quiet);
  const OpenOptions open = options.common.open_options(bar);
  if (has_model) model = inspect_model(options.model, open);
  if (options.verify) verify_packed(options.model);
  const MachineInfo machine = inspect_machine(open);
  model.memory = memory_of(model, open, machine);
  PlacementInfo placement;
  if (options.placement) placement = find_placement(options);
  if (options.json) {
    Json json;
    json["machine"] = machine_json(machine);
    if (has_model) json["model"] = model_json(model);
    if (options.placement) json["placement"] = placement_json(placement);
    print_json(json);
    return 0;
  }
  write_stdout(machine_text(machine, options.kernels));
  if (has_model) write_stdout(fmt::format("\n{}", model_text(model, options.tensors)));
  if (options.placement) write_stdout("\n" + placement_text(placement));
  return 0;
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
  add_command<InfoOptions>(app, action, "info", "Show the machine, and a model", execute);
}

}  // namespace qllm::app
