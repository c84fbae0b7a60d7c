#include "engine/model_packer.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "engine/loaded_model.h"
#include "engine/model_digest.h"
#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/gguf_vocab.h"
#include "model/llama.h"

namespace qllm {
namespace {

constexpr unsigned kMode = 0666;  // less the umask: a model is no secret

std::string format_name(const PackedLayout& layout) {
  std::string name;
  for (const PackedRun& run : layout.runs) {
    const GroupFormat& g = run.format.groups;
    constexpr const char* kScales[] = {"", " with minimum", " of super-blocks"};
    const std::string one = run.in_groups() ? fmt::format("int{} groups of {}{}", g.bits, g.group,
                                                          kScales[static_cast<size_t>(g.scales)])
                                            : "int8 rows";
    if (name.find(one) == std::string::npos) name += (name.empty() ? "" : ", ") + one;
  }
  if (layout.second_terms.empty()) return name;
  int64_t rows = 0;
  for (const PackedRun& run : layout.second_terms) rows += run.n;
  return name + fmt::format(", {} of them in two terms", rows);
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first = {};
  struct stat second = {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

ModelPacker::ModelPacker(std::shared_ptr<const GgufFile> file, const OpenOptions& options)
    : file_(std::move(file)), options_(options), config_(config_from_gguf(*file_)) {
  check_tensors(*file_, config_);
  vocab_from_gguf(*file_);  // what cannot be run is not worth packing
  PackedForm form;
  form.scheme = choose_scheme(options);
  form.rotations = choose_rotations(config_, options);
  form.tied_lm_head = config_.tied_lm_head;
  const auto tensors = std::make_shared<GgufTensorSource>(file_);
  form.digest =
      model_digest(build_llama(config_), digest_form(form.scheme, form.rotations), *tensors);
  graph_ = build_llama(config_, form.rotations);
  source_ = rotate_llama(config_, form.rotations, tensors);
  backend_ = make_backend(options.device, backend_options(options));
  writer_ = std::make_unique<PackedWriter>(*file_, graph_, *source_, form);
  file_->release();
}

void ModelPacker::write(PartFile& out) {
  writer_->write(out, *backend_, [&](int64_t done) {
    const double fraction = static_cast<double>(done) / static_cast<double>(file_bytes());
    require(!options_.progress || options_.progress("packing", fraction), ErrorCode::cancelled,
            "packing: cancelled");
  });
  out.commit();
}

QuantizeResult quantize_model(const std::string& path, const std::string& out,
                              const OpenOptions& options) {
  require(!is_packed_file(path), ErrorCode::invalid_argument, "{}: is packed already", path);
  require(!same_file(path, out), ErrorCode::invalid_argument,
          "{}: would be overwritten by what is made of it", path);
  ModelPacker packer(GgufFile::open(path), options);
  PartFile file(out, kMode);
  packer.write(file);
  QuantizeResult result;
  result.bytes = packer.file_bytes();
  for (const PackedWriter::Linear& linear : packer.linears()) {
    result.layers.push_back({linear.weight->name,
                             format_name(linear.layout),
                             {linear.weight->n, linear.weight->k},
                             linear.layout.bytes()});
  }
  return result;
}

}  // namespace qllm
