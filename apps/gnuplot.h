// Plots drawn by gnuplot, which is found at run time.
#pragma once

#include <string>

namespace qllm::app {

/// Throws Error (not_found) with what to install where there is no gnuplot.
void require_gnuplot();

/// What gnuplot writes to its standard output for a script, which must not hold text of strangers:
/// a script may run programs. Throws Error (io) with gnuplot's message.
std::string run_gnuplot(const std::string& script);

/// Letters, digits and harmless punctuation; all else becomes a blank. For titles in scripts.
std::string plot_text(const std::string& text);

}  // namespace qllm::app
