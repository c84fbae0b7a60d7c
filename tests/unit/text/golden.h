// The vocabularies and expected ids that scripts/make_tokenizer_goldens.py wrote.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/vocab.h"

namespace qllm::test {

inline nlohmann::json read_golden(const std::string& name) {
  std::ifstream file(std::string(QLLM_TEST_DATA) + "/" + name);
  return nlohmann::json::parse(file);
}

inline Vocab golden_bpe_vocab(const nlohmann::json& entry) {
  Vocab vocab;
  vocab.pre = entry.at("pre");
  vocab.tokens = entry.at("tokens").get<std::vector<std::string>>();
  vocab.merges = entry.at("merges").get<std::vector<std::string>>();
  vocab.types.assign(vocab.tokens.size(), TokenType::normal);
  for (const std::string token : entry.at("control")) {
    vocab.tokens.push_back(token);
    vocab.types.push_back(TokenType::control);
  }
  return vocab;
}

inline Vocab golden_spm_vocab(const nlohmann::json& data) {
  Vocab vocab;
  vocab.kind = TokenizerKind::spm;
  vocab.tokens = data.at("tokens").get<std::vector<std::string>>();
  vocab.scores = data.at("scores").get<std::vector<float>>();
  for (const int type : data.at("types")) vocab.types.push_back(static_cast<TokenType>(type));
  vocab.unk = 0;
  vocab.bos = 1;
  vocab.eos = 2;
  return vocab;
}

}  // namespace qllm::test
