#include "quant/scheme.h"

#include <doctest/doctest.h>

#include <string>

#include "support/errors.h"

namespace qllm {

TEST_CASE("scheme: every name is read and written back") {
  for (const char* name : {"fp32", "int8", "int4-g32", "int4-g64", "int4-g128", "int4-g32-sym",
                           "int4-g64-sym", "int4-g128-sym", "keep"}) {
    CHECK(to_string(parse_scheme(name)) == name);
  }
  CHECK(parse_scheme("int4-g64-sym") == Scheme{SchemeKind::int4, 64, false});
  CHECK(parse_scheme("int4-g32") == Scheme{SchemeKind::int4, 32, true});
}

TEST_CASE("scheme: unknown names are refused, naming what there is") {
  for (const char* name : {"", "int4", "INT8", "int4-g16", "int8-sym", "keep "}) {
    test::check_error(ErrorCode::invalid_argument, "int4-g128", [&] { parse_scheme(name); });
  }
}

}  // namespace qllm
