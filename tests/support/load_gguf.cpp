#include "support/load_gguf.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "model/gguf_config.h"
#include "model/gguf_source.h"
#include "model/gguf_vocab.h"
#include "qllm/error.hpp"
#include "text/tokenizer.h"

namespace qllm::test {
namespace {

void read_some_rows(const std::shared_ptr<const GgufFile>& file) {
  const GgufTensorSource source(file);
  std::vector<float> row;
  for (const GgufTensor& tensor : file->tensors()) {
    if (tensor.shape.size() > 2 || tensor.row_length() > (1 << 20)) continue;
    row.resize(static_cast<size_t>(tensor.row_length()));
    const std::string name(tensor.name);
    source.read_rows(name, 0, 1, row.data());
    source.read_rows(name, tensor.rows() - 1, 1, row.data());
  }
}

void use_tokenizer(const GgufFile& file) {
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(vocab_from_gguf(file));
  const std::vector<int32_t> ids = tokenizer->encode("Hello world <|im_end|> \xC3\xA9\xFF", {});
  tokenizer->decode(ids);
}

}  // namespace

void load_everything(std::span<const std::byte> bytes) {
  const auto file = GgufFile::parse(bytes, "mem");
  std::exception_ptr first;
  const auto attempt = [&](const std::function<void()>& step) {
    try {
      step();
    } catch (const Error&) {
      if (!first) first = std::current_exception();
    }
  };
  attempt([&] { check_tensors(*file, config_from_gguf(*file)); });
  attempt([&] { use_tokenizer(*file); });
  attempt([&] { read_some_rows(file); });
  if (first) std::rethrow_exception(first);
}

}  // namespace qllm::test
