"""int8 by counting the boundaries below a number; float8 by looking up the nearest of all its numbers."""

import ml_dtypes
import numpy as np

BOUNDARIES = np.arange(-126.5, 127.0)
EVEN_ABOVE = np.arange(-126, 128) % 2 == 0


def int8(x):
    below = np.searchsorted(BOUNDARIES, x, side="left")
    at = np.minimum(below, len(BOUNDARIES) - 1)
    return (below + ((BOUNDARIES[at] == x) & EVEN_ABOVE[at]) - 127).astype(np.int8)


def float8(x, kind):
    bits = np.arange(256, dtype=np.uint8)
    numbers = bits.view(getattr(ml_dtypes, kind)).astype(np.float64)
    kept = np.isfinite(numbers) & ~((numbers == 0) & np.signbit(numbers))
    order = np.argsort(numbers[kept])
    numbers, codes = numbers[kept][order], bits[kept][order]
    at = np.clip(np.searchsorted(numbers, x), 1, len(numbers) - 1)
    low, high = x - numbers[at - 1], numbers[at] - x
    up = (high < low) | ((high == low) & (codes[at] % 2 == 0))
    return np.where(up, codes[at], codes[at - 1])


def kernel(x, *, scales=None, format="int8", granularity="token", block_size=64):
    wide = x.astype(np.float64)
    limit = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}[format]
    axes = {"tensor": (0, 1, 2, 3), "token": (3,), "channel": (2,), "block": (3,)}[granularity]
    if scales is None:
        amax = np.abs(wide).max(axis=axes, keepdims=True, initial=0)
        if granularity == "block":
            starts = np.arange(0, x.shape[2], block_size)
            amax = np.maximum.reduceat(amax, starts, axis=2) if len(starts) else amax
        scales = np.where(amax == 0, 1, amax / limit).astype(np.float64 if x.dtype == np.float64 else np.float32)
    own = scales[:, :, np.arange(x.shape[2]) // block_size] if granularity == "block" else scales
    ratio = wide / own.astype(np.float64)
    return int8(ratio) if format == "int8" else float8(ratio, format), scales.copy()
