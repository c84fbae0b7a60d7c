// The intrinsics of the dot kernels. The tests put another header of this name before this one,
// which emulates the tiers that a machine lacks (tests/support/emulated).
#pragma once

#include <immintrin.h>
