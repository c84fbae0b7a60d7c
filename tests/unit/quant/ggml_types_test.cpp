#include "quant/ggml_types.h"

#include <doctest/doctest.h>

namespace qllm {

TEST_CASE("ggml types: block sizes of the format") {
  CHECK(ggml_type_info(GgmlType::q4_1).name == "Q4_1");
  CHECK(ggml_type_info(GgmlType::q4_1).block_elements == 32);
  CHECK(ggml_type_info(GgmlType::q4_1).block_bytes == 2 + 2 + 16);
  CHECK(ggml_type_info(GgmlType::q6_k).block_elements == 256);
  CHECK(ggml_type_info(GgmlType::q6_k).block_bytes == 128 + 64 + 16 + 2);
}

TEST_CASE("ggml types: ids that are not read are named where they exist elsewhere") {
  CHECK(find_ggml_type(16) == nullptr);
  CHECK(find_ggml_type(0xFFFFFFFF) == nullptr);
  CHECK(describe_ggml_type(16) == "IQ2_XXS (16)");
  CHECK(describe_ggml_type(14) == "Q6_K (14)");
  CHECK(describe_ggml_type(99) == "99");
}

}  // namespace qllm
