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
from oracle.readings.bounded import Bounded
from oracle.readings.ops import number
from oracle.readings.recurrences import as_state

__all__ = ["gated_linear_attention", "retention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

# A cumulative sum of gates spans so many tokens at most: no kernel's chunk is longer.
LONGEST_CHUNK = 512

# Queries, keys, their products and the state are each fed to a matrix product once.
CHUNK_OPERANDS = 4

# exp(G_i - G_j) from two cumulative sums: every addition from j to i rounds relative to the sum, however small what it adds is;
# a scan that adds in a tree rounds the two sums apart.
CUMULATIVE_ROUNDINGS = 4

# Below this a decay is 0 in every format.
LARGEST_GATE = -2000.0

# A token costs the oracle as much as so many elements of a product.
COST = "600 * l"


def _recurrence(q: Array, k: Array, v: Array, decays: Array, scale: float | None, state: Array | None) -> tuple[Array, Array]:
    """S_t = decays_t S_{t-1} + k_t^T v_t and o_t = scale q_t S_t; decays (B, H, L, D) or (B, H, L, 1)."""
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    if state is None:
        state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]))
    rows = []
    for t in range(q.shape[2]):
        state = as_state(state * decays[:, :, t, :, None] + k[:, :, t, :, None] * v[:, :, t, None, :])
        rows.append(np.matmul(q[:, :, t, None, :], state)[:, :, 0] * scale)
    return (np.stack(rows, axis=2) if rows else np.zeros((*q.shape[:3], v.shape[3]))), state


def _in_chunks(
    outputs: tuple[Array, Array], q: Array, k: Array, v: Array, gates: Array | None, scale: float | None, state: Array | None
) -> tuple[Array, Array]:
    """Widen the bounds of the two outputs by what a chunked kernel rounds besides; nothing in other readings.

    Its weights q_i exp(G_i - G_j) k_j come from cumulative gates G, whose rounding is relative to their own size, and its
    products take operands in the storage format. They are inner products of D terms, and it adds up those of a chunk for
    every output, while here terms may cancel in the state before a query reads them. What is as small as a decayed key may
    be flushed to zero, and then stands before a large value.
    """
    out, final = outputs
    if gates is None or not isinstance(out, Bounded) or not isinstance(final, Bounded):
        return outputs
    contract, plain = out.contract, gates.value if isinstance(gates, Bounded) else gates
    gates = np.broadcast_to(plain, (*q.shape[:3], q.shape[3]))
    queries, keys, values = (np.abs(x.value) for x in (q, k, v))
    factor = abs(q.shape[-1] ** -0.5 if scale is None else scale)
    magnitude = np.zeros(final.shape) if state is None else np.abs(state.value)
    total = np.cumsum(np.minimum(-gates, -LARGEST_GATE), axis=2)
    reach = total - np.pad(total, ((0, 0), (0, 0), (LONGEST_CHUNK, 0), (0, 0)))[:, :, : total.shape[2]]
    unit, operand = CUMULATIVE_ROUNDINGS * contract.unit_roundoff, CHUNK_OPERANDS * contract.operand
    rounded = operand + contract.gamma(q.shape[3] + np.minimum(np.arange(q.shape[2]) + 1, LONGEST_CHUNK))
    flushed, undecayed = contract.flush + contract.operand_spacing, magnitude
    wrong, error, extra = np.zeros(final.shape), np.zeros(final.shape), np.zeros(out.shape)
    for t in range(q.shape[2]):
        key, row, query = keys[:, :, t, :, None], values[:, :, t, None, :], queries[:, :, t, None]
        decay = np.exp(gates[:, :, t, :, None])
        magnitude = magnitude * decay
        error = error * decay + unit * reach[:, :, t, :, None] * magnitude
        magnitude = magnitude + key * row
        undecayed = undecayed + (1 + key) * row
        wrong = error + rounded[t] * magnitude
        extra[:, :, t] = factor * (np.matmul(query, wrong) + flushed * np.matmul(query + 1, undecayed))[:, :, 0]
    return (
        Bounded(out.value, out.full_error + extra, contract),
        Bounded(final.value, final.full_error + wrong + flushed * undecayed, contract),
    )


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
    outputs = _recurrence(q, k, v, np.exp(g), scale, initial_state)
    return _in_chunks(outputs, q, k, v, g, scale, initial_state)


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
    outputs = _recurrence(q, k, v, decays, scale, initial_state)
    gates = np.log(decays.value) if isinstance(decays, Bounded) else None
    return _in_chunks(outputs, q, k, v, gates, scale, initial_state)
