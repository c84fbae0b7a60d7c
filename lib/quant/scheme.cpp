#include "quant/scheme.h"

#include <array>

#include "core/error.h"

namespace qllm {
namespace {

struct NamedScheme {
  std::string_view name;
  Scheme scheme;
};

constexpr std::array<NamedScheme, 9> kSchemes = {{
    {"fp32", {SchemeKind::fp32, 128, true}},
    {"int8", {SchemeKind::int8, 128, true}},
    {"int4-g32", {SchemeKind::int4, 32, true}},
    {"int4-g64", {SchemeKind::int4, 64, true}},
    {"int4-g128", {SchemeKind::int4, 128, true}},
    {"int4-g32-sym", {SchemeKind::int4, 32, false}},
    {"int4-g64-sym", {SchemeKind::int4, 64, false}},
    {"int4-g128-sym", {SchemeKind::int4, 128, false}},
    {"keep", {SchemeKind::keep, 128, true}},
}};

}  // namespace

Scheme parse_scheme(std::string_view name) {
  for (const NamedScheme& known : kSchemes) {
    if (known.name == name) return known.scheme;
  }
  fail(ErrorCode::invalid_argument,
       "scheme {}: expected fp32, int8, int4-g32, int4-g64, int4-g128 (each also with -sym) or "
       "keep",
       name);
}

std::string to_string(const Scheme& scheme) {
  switch (scheme.kind) {
    case SchemeKind::fp32:
      return "fp32";
    case SchemeKind::int8:
      return "int8";
    case SchemeKind::int4:
      return fmt::format("int4-g{}{}", scheme.group, scheme.has_min ? "" : "-sym");
    case SchemeKind::keep:
      return "keep";
  }
  fail(ErrorCode::internal, "scheme {}: unknown", static_cast<int>(scheme.kind));
}

}  // namespace qllm
