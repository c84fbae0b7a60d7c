// qllm quantize: a GGUF file packed, so that it is mapped as it lies.
#include <fmt/format.h>

#include "command.h"
#include "input.h"
#include "interrupt.h"
#include "options.h"
#include "report.h"

namespace qllm::app {
namespace {

struct QuantizeOptions {
  std::string model;
  std::string out;
  bool json = false;
  CommonOptions common;

  void add_to(CLI::App& command) {
    add_model(command, model)->required();
    command.add_option("-o,--output", out, "the packed file, such as model.qllm")
        ->required()
        ->type_name("FILE");
    command.add_flag("--json", json, "one JSON document");
    common.add_to(command);
  }
};

int execute(const QuantizeOptions& options) {
  QuantizeResult result;
  {
    const InterruptScope scope;
    const auto bar = std::make_shared<ProgressBar>(!options.common.quiet);
    result = quantize_model(options.model, options.out, options.common.open_options(bar));
    bar->clear();
  }
  if (options.json) {
    Json json;
    json["bytes"] = result.bytes;
    Json& layers = json["layers"] = Json::array();
    for (const TensorInfo& layer : result.layers) {
      layers.push_back({{"name", layer.name},
                        {"shape", layer.shape},
                        {"format", layer.type},
                        {"bytes", layer.bytes}});
    }
    print_json(json);
  } else if (!options.common.quiet) {
    write_stderr(fmt::format("qllm: {}: {}, {} tensors packed\n", options.out,
                             human_bytes(result.bytes), result.layers.size()));
  }
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  add_command<QuantizeOptions>(app, action, "quantize",
                               "Pack a model into a file that is mapped as it lies", execute);
}

}  // namespace qllm::app
