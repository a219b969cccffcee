"""Kernels that return codes: in the dtypes of ml_dtypes, as bit patterns, wrongly packed, one quantum off, two quanta off."""

import ml_dtypes
import numpy as np


def float8(x):
    scales = np.abs(x).max(axis=3, keepdims=True, initial=0).astype(np.float32) / np.float32(448)
    scales = np.where(scales == 0, np.float32(1), scales)
    return (x.astype(np.float32) / scales).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn), scales


def as_numbers(x, *, format="float8_e4m3fn"):
    return float8(x)


def as_bits(x, *, format="float8_e4m3fn"):
    codes, scales = float8(x)
    return codes.view(np.uint8), scales


def as_int16(x, *, format="float8_e4m3fn"):
    codes, scales = float8(x)
    return codes.view(np.uint8).astype(np.int16), scales


def with_nan(x, *, format="float8_e4m3fn"):
    codes, scales = float8(x)
    bits = codes.view(np.uint8).copy()
    bits[..., :1] |= 0x7F
    return bits, scales


def integers(x, off):
    scales = np.abs(x).max(axis=3, keepdims=True, initial=0).astype(np.float32) / np.float32(127)
    scales = np.where(scales == 0, np.float32(1), scales)
    codes = np.rint(x.astype(np.float32) / scales)
    return (codes + off * np.where(codes > 0, -1, 1)).astype(np.int8), scales


def right(x):
    return integers(x, 0)


def one_quantum_off(x):
    return integers(x, 1)


NUMBERS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(x, first, second):
    count = -(-x.shape[3] // 32)
    blocks = np.zeros((*x.shape[:3], count * 32), np.float32)
    blocks[..., : x.shape[3]] = x
    blocks = blocks.reshape(*x.shape[:3], count, 32)
    power = np.frexp(np.abs(blocks).max(axis=-1, initial=0))[1] - 3
    power = np.where(np.abs(blocks).max(axis=-1, initial=0) == 0, -127, power.clip(-127, 127))
    numbers = (blocks / np.exp2(power.astype(np.float64))[..., None]).clip(-6, 6).astype(ml_dtypes.float4_e2m1fn)
    bits = numbers.view(np.uint8).reshape(*x.shape[:3], count * 32)[..., : x.shape[3]]
    return bits[..., first::2] | bits[..., second::2] << 4, (power + 127).astype(np.uint8)


def low_nibble_first(x, *, format="mxfp4"):
    return mxfp4(x, 0, 1)


def high_nibble_first(x, *, format="mxfp4"):
    return mxfp4(x, 1, 0)


def not_packed(x, *, format="mxfp4"):
    codes, scales = mxfp4(x, 0, 1)
    return np.stack([codes & 15, codes >> 4], axis=-1).reshape(x.shape), scales
