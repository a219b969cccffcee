"""Layers of experts in NumPy: tokens sorted by expert and multiplied in groups, chosen rows gathered and put back."""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, grouped_matmul, working_dtype

__all__ = ["attend_with_experts", "mix_depths", "mix_sorted"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _silu(x: Array) -> Array:
    tail = np.exp(-np.abs(x))
    active: Array = x * np.where(x >= 0, 1, tail) / (1 + tail)
    return active


def check_layer(indices: Array, experts: int, capacity: int | None) -> None:
    """Raise `ValueError` for what has no answer."""
    if indices.size and (indices.min() < 0 or indices.max() >= experts):
        raise ValueError(f"indices range from {indices.min()} to {indices.max()}, but should be at least 0 and below {experts}")
    if capacity is not None and capacity < 0:
        raise ValueError(f"capacity={capacity}, but should be at least 0")


def _feed_forward(x: Array, w_in: Array, w_out: Array, w_gate: Array | None, activation: str) -> Array:
    inner = x @ w_in
    pre = inner if w_gate is None else x @ w_gate
    active = np.maximum(pre, 0) if activation == "relu" else _silu(pre)
    made: Array = (active if w_gate is None else active * inner) @ w_out
    return made


@register("moe_layer", backend="numpy", name="numpy.moe_sorted", dtypes=DTYPES, tunables={"block_tokens": block_sizes},
          description="assignments sorted by expert, a product for each block of an expert's tokens")  # fmt: skip
def mix_sorted(
    hidden: Array, indices: Array, weights: Array, w_in: Array, w_out: Array, *, w_gate: Array | None = None,
    shared_in: Array | None = None, shared_out: Array | None = None, shared_gate: Array | None = None, capacity: int | None = None,
    activation: str = "silu", block_tokens: int = 32,
) -> Array:  # fmt: skip
    """As a grouped product does: where each expert's tokens begin follows from counts."""
    check_layer(indices, len(w_in), capacity)
    dtype, choices = working_dtype(hidden), indices.shape[1]
    x, out = hidden.astype(dtype), np.zeros(hidden.shape, dtype)
    order = np.argsort(indices.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(indices.ravel(), minlength=len(w_in)))
    for expert, end in enumerate(ends):
        begin = 0 if expert == 0 else ends[expert - 1]
        last = end if capacity is None else min(end, begin + capacity)
        own = [w[expert].astype(dtype) if w is not None else None for w in (w_in, w_out, w_gate)]
        for start in range(begin, last, block_tokens):
            taken = order[start : min(start + block_tokens, last)]
            made = _feed_forward(x[taken // choices], own[0], own[1], own[2], activation)  # type: ignore[arg-type]
            np.add.at(out, taken // choices, made * weights.ravel()[taken].astype(dtype)[:, None])
    if shared_in is not None and shared_out is not None:
        gate = None if shared_gate is None else shared_gate.astype(dtype)
        out += _feed_forward(x, shared_in.astype(dtype), shared_out.astype(dtype), gate, activation)
    return out.astype(hidden.dtype)


@register("mixture_of_depths", backend="numpy", name="numpy.mixture_of_depths", dtypes=DTYPES,
          description="chosen tokens gathered, processed and put back")  # fmt: skip
def mix_depths(
    hidden: Array, router: Array, w_in: Array, w_out: Array, *, capacity: int | None = None, threshold: float | None = None
) -> tuple[Array, Array]:  # fmt: skip
    """Sequence by sequence."""
    if (capacity is None) == (threshold is None) or (capacity or 0) < 0:
        raise ValueError(f"capacity={capacity} and threshold={threshold}, but one of them should be given, and at least 0 of tokens")
    dtype, out = working_dtype(hidden), hidden.copy()
    chosen = np.zeros(hidden.shape[:2], bool)
    for b, x in enumerate(hidden.astype(dtype)):
        scores = (x * router.astype(dtype)).sum(axis=1)
        rows = np.flatnonzero(scores > threshold) if capacity is None else np.sort(np.argsort(-scores, kind="stable")[:capacity])
        update = _silu(x[rows] @ w_in.astype(dtype)) @ w_out.astype(dtype)
        out[b, rows] = x[rows] + scores[rows, None] * update
        chosen[b, rows] = True
    return out, chosen


@register("grouped_query_attention_shared_experts", backend="numpy", name="numpy.gqa_experts", dtypes=DTYPES,
          description="heads of a group stacked as rows of one product, for attention and expert alike")  # fmt: skip
def attend_with_experts(
    q: Array, k: Array, v: Array, w_in: Array, w_out: Array, *, causal: bool = False, scale: float | None = None
) -> Array:  # fmt: skip
    """No key, value or expert is repeated."""
    dtype = working_dtype(q)
    queries, keys = q.shape[2], k.shape[2]
    logits = grouped_matmul(q.astype(dtype), k.astype(dtype).swapaxes(2, 3)) * dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    if causal:
        logits = np.where(np.arange(keys) <= np.arange(queries)[:, None] + keys - queries, logits, -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    attended = grouped_matmul(weights, v.astype(dtype)) / np.where(total == 0, 1, total)
    inner = _silu(grouped_matmul(attended, w_in.astype(dtype)[None].repeat(len(q), axis=0)))
    out: Array = attended + grouped_matmul(inner, w_out.astype(dtype)[None].repeat(len(q), axis=0))
    return out.astype(q.dtype)
