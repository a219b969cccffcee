"""Latent attention: keys and values of all heads are read from one narrow row a token, beside a part that carries the position.

DeepSeek-AI 2024 (DeepSeek-V2), arXiv:2405.04434, eq. 9-19. The naive form expands keys and values for every head; the absorbed form
multiplies queries by the keys' projection and results by the values' instead, and never expands anything. They are the same number by
two orders of summation, and the budget admits both. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, Lq and Lk lengths, Dn width without position, Dr width with position, R width of the latent row, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import allowed_keys
from oracle.readings.features import any_order, as_matrix
from oracle.readings.ops import as_operand, number, shifted_exponentials

__all__ = ["latent_attention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


@method(
    source="DeepSeek-AI 2024, eq. 9-19, arXiv:2405.04434",
    shapes="q_nope: b h l d, q_rope: b h l r, c_kv: b s c, k_rope: b s r, w_uk: h c d, w_uv: h c e -> b h l e",
    options={"causal": "flag", "scale": "real"},
    conventions={"causal_alignment": ("bottom-right", "top-left")},
    tunables=("block_q", "block_k"),
)
def latent_attention(
    q_nope: Array,
    q_rope: Array,
    c_kv: Array,
    k_rope: Array,
    w_uk: Array,
    w_uv: Array,
    *,
    causal: bool = False,
    scale: float | None = None,
    causal_alignment: str = "bottom-right",
) -> Array:
    """Attention over a compressed cache (MLA): softmax(scale (q_nope (c_kv w_uk)^T + q_rope k_rope^T)) (c_kv w_uv).

    Args:
        q_nope: the part of the queries without position (B, H, Lq, Dn).
        q_rope: the part to which the rotary embedding has been applied (B, H, Lq, Dr).
        c_kv: the latent rows (B, Lk, R), for all heads.
        k_rope: the rotated part of the keys (B, Lk, Dr), for all heads.
        w_uk: of each head, from a latent row to its key (H, R, Dn).
        w_uv: of each head, from a latent row to its value (H, R, Dv).
        causal: key j is allowed for query i iff j <= i + Lk - Lq.
        scale: of the logits; 1 / sqrt(Dn + Dr) by default.

    Returns:
        (B, H, Lq, Dv); zeros for a row without allowed keys.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    scale = 1 / np.sqrt(number(q_nope.shape[-1] + q_rope.shape[-1], like=q_nope)) if scale is None else scale
    rows = c_kv[:, None]  # (B, 1, Lk, R)
    logits = any_order(
        np.matmul(q_nope, np.swapaxes(as_matrix(np.matmul(rows, w_uk)), -1, -2)),
        np.matmul(as_matrix(np.matmul(q_nope, np.swapaxes(w_uk, -1, -2))), np.swapaxes(rows, -1, -2)),
    )
    logits = (logits + np.matmul(q_rope, np.swapaxes(k_rope[:, None], -1, -2))) * scale
    allowed = allowed_keys(q_nope.shape[2], c_kv.shape[1], causal=causal, causal_alignment=causal_alignment)
    weights, _ = shifted_exponentials(np.where(allowed, logits, -np.inf))
    weights = as_operand(weights)
    hidden = ~allowed.any(axis=-1, keepdims=True)
    total = np.where(hidden, 1.0, np.sum(weights, axis=-1, keepdims=True))
    out = any_order(
        np.matmul(weights, as_matrix(np.matmul(rows, w_uv))) / total,
        np.matmul(as_matrix(np.matmul(weights, rows) / total), w_uv),
    )
    return np.where(hidden, 0.0, out)
