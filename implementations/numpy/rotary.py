"""Rotary position embeddings in NumPy: as products of complex numbers, and from tables of the positions that occur.

Shapes: x (B, H, L, D), positions (B or 1, L) -> (B, H, L, D). Angles are formed in float32 (in float64 for float64).
"""

from __future__ import annotations

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.caches import check_positions, pairs_of
from implementations.numpy.logits import Array, working_dtype
from implementations.tiling import tiles

__all__ = ["rotary_complex", "rotary_tables"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _frequencies(half: int, base: float, dtype: np.dtype) -> Array:
    exponents = np.arange(half, dtype=dtype) / dtype.type(max(half, 1))
    return (1 / dtype.type(base) ** exponents).astype(dtype)


@register(
    "rotary_embedding",
    backend="numpy",
    name="numpy.rotary_complex",
    dtypes=DTYPES,
    tunables={"block_q": block_sizes},
    description="each pair of columns as a complex number, times exp(i angle), a chunk of tokens at a time",
)
def rotary_complex(
    x: Array, positions: Array, *, base: float = 10000.0, interleaved: bool = False, rotary_width: int | None = None, block_q: int = 64
) -> Array:  # fmt: skip
    """RoFormer's rotation as a multiplication (Su et al. 2021, eq. 12, arXiv:2104.09864)."""
    check_positions(positions.ravel().tolist())
    half, dtype = pairs_of(x.shape[3], rotary_width), working_dtype(x)
    out, frequencies = x.copy(), _frequencies(half, base, dtype)
    first, second = (np.s_[..., : 2 * half : 2], np.s_[..., 1 : 2 * half : 2]) if interleaved else (
        np.s_[..., :half], np.s_[..., half : 2 * half]
    )  # fmt: skip
    for rows in tiles(slice(0, x.shape[2]), block_q):
        tokens = x[:, :, rows].astype(dtype)
        angle = positions[:, None, rows, None].astype(dtype) * frequencies
        turned = (tokens[first] + 1j * tokens[second]) * np.exp(1j * angle)
        out[:, :, rows][first], out[:, :, rows][second] = turned.real.astype(x.dtype), turned.imag.astype(x.dtype)
    return out


@register(
    "rotary_embedding",
    backend="numpy",
    name="numpy.rotary_tables",
    dtypes=DTYPES,
    description="sines and cosines of the positions that occur, looked up, and a 2 by 2 matrix for each pair",
)
def rotary_tables(
    x: Array, positions: Array, *, base: float = 10000.0, interleaved: bool = False, rotary_width: int | None = None
) -> Array:  # fmt: skip
    """Tables of the different positions; the pairs are brought side by side and turned by matrices."""
    check_positions(positions.ravel().tolist())
    half, dtype = pairs_of(x.shape[3], rotary_width), working_dtype(x)
    known, index = np.unique(positions, return_inverse=True)
    angle = known.astype(dtype)[:, None] * _frequencies(half, base, dtype)
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)  # (n, half, 2, 2)
    columns = np.arange(2 * half).reshape(half, 2) if interleaved else np.arange(2 * half).reshape(2, half).T
    turning = matrices[index.reshape(positions.shape)][:, None]
    out = x.copy()
    out[..., columns] = (turning @ x[..., columns].astype(dtype)[..., None])[..., 0].astype(x.dtype)
    return out
