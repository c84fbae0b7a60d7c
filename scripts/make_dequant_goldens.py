#!/usr/bin/env python3
"""Writes tests/data/dequant_goldens.bin: random blocks of every quantized GGUF type and what the
Python package `gguf` (an independent implementation; 0.10 or newer) makes of them.

    pip install gguf numpy && python3 scripts/make_dequant_goldens.py tests/data/dequant_goldens.bin

Records end to end, little endian: u32 type id, u32 rows, u32 values per row, u32 bytes per row, the
rows as they stand in a file, the float32 values.
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Where the binary16 scales of a block stand.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82],
    T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
ROWS = 3


def half_patterns(rng, count):
    """binary16 values of every exponent, subnormals, zeros and infinities included, NaN not."""
    bits = rng.integers(0, 0x10000, count, dtype=np.uint32).astype(np.uint16)
    nan = ((bits & 0x7C00) == 0x7C00) & ((bits & 0x03FF) != 0)
    bits[nan] &= 0xFC00
    bits[:6] = [0x0000, 0x8000, 0x0001, 0x03FF, 0x7C00, 0x7BFF]
    return bits


def rows_of_blocks(rng, kind):
    values, size = GGML_QUANT_SIZES[kind]
    blocks_per_row = 1 if values == 256 else 3
    blocks = rng.integers(0, 256, (ROWS * blocks_per_row, size), dtype=np.uint8)
    for at in SCALES[kind]:  # finite scales: infinity times zero would be a NaN
        scale = rng.normal(0.0, 0.02, len(blocks)).astype(np.float16)
        scale[0] = np.float16(3e-7)  # a subnormal one
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, blocks_per_row * size)


def rows_of_floats(rng, kind):
    if kind == T.F32:
        return rng.normal(size=(ROWS, 32)).astype(np.float32).view(np.uint8)
    if kind == T.F16:
        return half_patterns(rng, ROWS * 64).reshape(ROWS, 64).view(np.uint8)
    floats = rng.normal(0.0, 1e3, (ROWS, 64)).astype(np.float32)
    return (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)  # BF16


def main(path):
    rng = np.random.default_rng(20240229)
    with open(path, "wb") as out:
        for kind in [T.F32, T.F16, T.BF16, *SCALES]:
            rows = rows_of_blocks(rng, kind) if kind in SCALES else rows_of_floats(rng, kind)
            values = np.ascontiguousarray(dequantize(rows, kind), dtype=np.float32)
            out.write(struct.pack("<4I", int(kind), ROWS, values.shape[1], rows.shape[1]))
            out.write(rows.tobytes())
            out.write(values.tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
