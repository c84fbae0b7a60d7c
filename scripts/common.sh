# Shared by quickstart, test, scripts/setup and .ci/run; sourced, never run.
# shellcheck shell=bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MODEL_FILE="$ROOT/.models/SmolLM2-135M-Instruct.Q4_1.gguf"
PROSE_FILE="$ROOT/.models/prose.txt"
: "${LOG:=}"
# ccache would otherwise pass over what uses a precompiled header.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros}
_step_number=0

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# step TITLE COMMAND...: one numbered line with the time it took; output goes to $LOG, and its tail
# to the terminal when the command fails.
step() {
  local title=$1 start=$SECONDS status=0
  shift
  _step_number=$((_step_number + 1))
  printf '[%d] %s ...' "$_step_number" "$title" >&2
  printf '\n== %s: %s\n' "$title" "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    printf ' failed after %d s\n\n' $((SECONDS - start)) >&2
    tail -n 40 "$LOG" | sed 's/^/    /' >&2
    say ""
    say "error: $title failed (exit status $status). The whole log: $LOG"
    exit "$status"
  fi
  printf ' %d s\n' $((SECONDS - start)) >&2
}

# begin_log FILE: an empty log, and words for the one who presses Ctrl-C.
begin_log() {
  LOG=$1
  mkdir -p "$(dirname "$LOG")"
  : >"$LOG"
  trap 'printf "\n" >&2; say "interrupted; run it again to go on from here"; exit 130' INT TERM
}

# The C++ compiler to use: the user's choice, or g++ where it is 12 or newer, or g++-12.
find_cxx() {
  if [ -n "${CXX:-}" ]; then printf '%s\n' "$CXX"; return; fi
  local candidate version
  for candidate in g++ g++-14 g++-13 g++-12; do
    have "$candidate" || continue
    version=$("$candidate" -dumpversion)
    if [ "${version%%.*}" -ge 12 ]; then printf '%s\n' "$candidate"; return; fi
  done
  return 1
}

find_clang() {
  local candidate
  for candidate in clang++-16 clang++-19 clang++-18 clang++-17 clang++; do
    have "$candidate" || continue
    if [ "$("$candidate" -dumpversion | cut -d. -f1)" -ge 16 ]; then echo "$candidate"; return; fi
  done
  return 1
}

# configure BUILD_DIR [cmake options...]: does nothing where the same was configured before. CMake
# itself notices changed lists; sources are globbed with CONFIGURE_DEPENDS.
configure() {
  local build=$1 cxx args
  shift
  cxx=$(find_cxx) || die "no C++ compiler of GCC 12 or newer was found"
  args=(-G Ninja "-DCMAKE_CXX_COMPILER=$cxx" "-DCMAKE_C_COMPILER=$(c_compiler_of "$cxx")")
  have ccache && args+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  [ -n "${QLLM_ONEDNN_ROOT:-}" ] && args+=("-DQLLM_ONEDNN_ROOT=$QLLM_ONEDNN_ROOT")
  args+=("$@")
  local key
  key=$(printf '%s\n' "$ROOT" "${args[@]}")
  if [ -f "$build/build.ninja" ] && [ -f "$build/.configured-with" ] &&
     [ "$(cat "$build/.configured-with")" = "$key" ]; then
    echo "already configured"
    return
  fi
  cmake -S "$ROOT" -B "$build" "${args[@]}"
  printf '%s\n' "$key" >"$build/.configured-with"
}

c_compiler_of() {
  local c
  case $1 in
    *clang++*) c=${1/clang++/clang} ;;
    *g++*) c=${1/g++/gcc} ;;
    *) c=cc ;;
  esac
  printf '%s\n' "$c"
}
