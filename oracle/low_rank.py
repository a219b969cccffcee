"""Low-rank attention: keys and values are projected along the sequence before a softmax over the projected ones.

Wang et al. 2020, Linformer, arXiv:2006.04768, eq. 7. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, Lq and Lk lengths, Lp projected length, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.features import any_order, as_matrix
from oracle.readings.ops import as_operand, number, shifted_exponentials

__all__ = ["linformer_attention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


@method(
    source="Wang et al. 2020, eq. 7, arXiv:2006.04768",
    shapes="q: b h l d, k: b h s d, v: b h s w, e: p s, f: p s -> b h l w",
    where={"p > 0": "there must be a projected key"},
    options={"scale": "real"},
    tunables=("block_q",),
    cost="b * h * (l * s + l * p)",
)
def linformer_attention(q: Array, k: Array, v: Array, e: Array, f: Array, *, scale: float | None = None) -> Array:
    """Softmax attention over keys and values that are projected along the sequence: softmax(scale * q (e k)^T) (f v).

    Args:
        q: queries (B, H, Lq, D).
        k: keys (B, H, Lk, D).
        v: values (B, H, Lk, Dv).
        e: projection of the keys (Lp, Lk), the same for all heads.
        f: projection of the values (Lp, Lk).
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, H, Lq, Dv); zeros where there are no keys to project.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    scale = 1 / np.sqrt(number(max(q.shape[-1], 1), like=q)) if scale is None else scale
    keys, values = as_matrix(np.matmul(e, k)), as_matrix(np.matmul(f, v))  # (B, H, Lp, D), (B, H, Lp, Dv)
    logits = np.matmul(q, np.swapaxes(keys, -1, -2))
    # The logits of the keys themselves may be projected as well.
    logits = any_order(logits, np.matmul(np.matmul(q, np.swapaxes(k, -1, -2)), np.swapaxes(e, 0, 1))) * scale
    weights, _ = shifted_exponentials(logits)
    weights = as_operand(weights)
    return np.matmul(weights, values) / np.sum(weights, axis=-1, keepdims=True)
