// The string literals of a Jinja template: enough of Jinja to read a default message out of one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qllm {

/// The literals inside {{ … }} and {% … %}, escapes resolved, in order; comments are passed over.
/// Never throws for a malformed template: what cannot be read is left out.
std::vector<std::string> jinja_literals(std::string_view jinja_template);

}  // namespace qllm
