"""Symmetric quantisation to 8 bits."""

import ml_dtypes
import numpy as np

LIMITS = {"int8": 127, "float8_e4m3fn": 448, "float8_e5m2": 57344}


def to_codes(x, kind):
    if kind == "int8":
        return np.clip(np.rint(x), -127, 127).astype(np.int8)
    return np.clip(x, -LIMITS[kind], LIMITS[kind]).astype(getattr(ml_dtypes, kind))


def absmax(x, granularity, block_size):
    if granularity == "tensor":
        return np.abs(x).max(initial=0).reshape(1, 1, 1, 1)
    if granularity == "token":
        return np.abs(x).max(axis=3, keepdims=True, initial=0)
    if granularity == "channel":
        return np.abs(x).max(axis=2, keepdims=True, initial=0)
    count = -(-x.shape[2] // block_size)
    out = np.zeros((*x.shape[:2], count, 1), x.dtype)
    for i in range(count):
        out[:, :, i, 0] = np.abs(x[:, :, i * block_size : (i + 1) * block_size]).max(axis=(2, 3), initial=0)
    return out


def kernel(x, *, scales=None, format="int8", granularity="token", block_size=64):
    wide = x.astype(np.float32)
    if scales is None:
        scales = absmax(wide, granularity, block_size) / np.float32(LIMITS[format])
        scales = np.where(scales == 0, np.float32(1), scales).astype(np.float16).astype(np.float32)
    else:
        scales = scales.copy()
    own = np.repeat(scales, block_size, axis=2)[:, :, : x.shape[2]] if granularity == "block" else scales
    return to_codes(wide / own, format), scales
