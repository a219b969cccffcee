"""Attention with decay: a state of D x Dv numbers that forgets, read by one query after the other.

Gated linear attention: Yang et al. 2023, eq. 3-4, arXiv:2312.06635; retention: Sun et al. 2023, eq. 5-6, arXiv:2307.08621.
Kernels compute them token by token, or in chunks whose decays they form from cumulative sums of the gates; the budget
admits both.

Shapes: B batch, H heads, L length, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.decayed_sums import decayed_states, flushed_products
from oracle.readings.ops import number

__all__ = ["gated_linear_attention", "retention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

# All states are held at once, and their errors; and a token costs what so many numbers do, as the scan over tokens is Python's.
COST = "l * (230 + 2 * b * h * d * e)"


def _recurrence(q: Array, k: Array, v: Array, decays: Array, scale: float | None, state: Array | None) -> tuple[Array, Array]:
    """S_t = decays_t S_{t-1} + k_t^T v_t and o_t = scale q_t S_t; decays (B, H, L, D) or (B, H, L, 1)."""
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    if state is None:
        state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]))
    states = decayed_states(state, decays, k, v)
    out = np.matmul(q[:, :, :, None, :], states[:, :, 1:])[:, :, :, 0]
    return flushed_products(out, state, k, v) * scale, states[:, :, -1]


@method(
    source="Yang et al. 2023, eq. 3-4, arXiv:2312.06635",
    shapes="q: b h l d, k: b h l d, v: b h l e, g: b h l d, initial_state?: statistic b h d e -> out: b h l e, state?: statistic b h d e",
    options={"scale": "real"},
    domains={"g": "log-gate"},
    tunables=("chunk_size",),
    cost=COST,
)
def gated_linear_attention(
    q: Array, k: Array, v: Array, g: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """Linear attention whose state forgets by a gate for each key dimension.

    S_t = diag(exp g_t) S_{t-1} + k_t^T v_t, and o_t = scale q_t S_t.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        g: logarithms of the gates (B, H, L, D), at most 0.
        scale: of the outputs; 1 / sqrt(D) by default.
        initial_state: S_0 (B, H, D, Dv); zeros by default.

    Returns:
        out (B, H, L, Dv) and the final state S_L (B, H, D, Dv), which an implementation may leave out.

    Raises:
        OptionError: a gate is positive.
    """
    return _recurrence(q, k, v, np.exp(g), scale, initial_state)


@method(
    source="Sun et al. 2023, eq. 5-6, arXiv:2307.08621",
    shapes="q: b h l d, k: b h l d, v: b h l e, decay: h, initial_state?: statistic b h d e -> out: b h l e, state?: statistic b h d e",
    options={"scale": "real"},
    domains={"decay": "decay"},
    tunables=("chunk_size",),
    cost=COST,
)
def retention(
    q: Array, k: Array, v: Array, decay: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """Linear attention whose state decays at a constant rate for each head.

    S_t = decay S_{t-1} + k_t^T v_t, and o_t = scale q_t S_t: the weight of key j <= t is scale decay^(t-j) q_t . k_j.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        decay: of each head (H,), above 0 and at most 1.
        scale: of the outputs; 1 / sqrt(D) by default.
        initial_state: S_0 (B, H, D, Dv); zeros by default.

    Returns:
        out (B, H, L, Dv) and the final state S_L (B, H, D, Dv), which an implementation may leave out.

    Raises:
        OptionError: a decay lies outside its range.
    """
    decays = np.broadcast_to(decay[None, :, None, None], (*q.shape[:3], 1))
    return _recurrence(q, k, v, decays, scale, initial_state)
