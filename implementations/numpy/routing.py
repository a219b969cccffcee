"""Routers in NumPy: by a partition that finds the candidates before they are sorted, and by repeated maxima.

Both work on blocks of tokens in float32 and know of one router no more than its logits: the affinities of experts that nobody
chooses are never normalised.
"""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["route_by_maxima", "route_by_sort"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
EVERY = {"block_tokens": block_sizes}


def check_router(logits: Array, k: int, groups: int, top_groups: int) -> None:
    """Raise `ValueError` for what has no answer."""
    experts = logits.shape[1]
    if not 1 <= k <= experts:
        raise ValueError(f"k={k}, but should be at least 1 and at most the number of experts {experts}")
    if experts % groups or not 1 <= top_groups <= groups or k > experts // groups * top_groups:
        raise ValueError(f"groups={groups} and top_groups={top_groups} do not fit {experts} experts of which {k} are chosen")
    if not np.isfinite(logits.astype(np.float32)).all():
        raise ValueError("some logit is NaN or infinite, which has no rank")


def _affinities(logits: Array, scoring: str) -> Array:
    if scoring == "sigmoid":
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1, small) / (1 + small)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _hide_groups(scores: Array, groups: int, top_groups: int) -> Array:
    """Scores with -inf for the experts of groups that do not take part."""
    if top_groups == groups:
        return scores
    split = scores.reshape(len(scores), groups, -1)
    best = np.sort(split, axis=2)[:, :, -2:].sum(axis=2)
    kept = np.argsort(-best, axis=1, kind="stable")[:, :top_groups]
    part = (np.arange(groups) == kept[..., None]).any(axis=1)
    return np.where(part[..., None], split, -np.inf).reshape(scores.shape)


def _finish(affinities: Array, chosen: Array, renormalize: bool) -> Array:
    weights = np.take_along_axis(affinities, chosen, axis=1)
    return weights / weights.sum(axis=1, keepdims=True) if renormalize else weights


@register("moe_topk_gating", backend="numpy", name="numpy.route_by_sort", dtypes=DTYPES, tunables=EVERY,
          description="fused over blocks of tokens, chosen by a stable sort")  # fmt: skip
def route_by_sort(
    logits: Array, k: int, *, renormalize: bool = True, scoring: str = "softmax", correction: Array | None = None, groups: int = 1,
    top_groups: int = 1, block_tokens: int = 64,
) -> tuple[Array, Array]:  # fmt: skip
    """Sort the negated scores of a block of tokens at a time."""
    check_router(logits, k, groups, top_groups)
    dtype = working_dtype(logits)
    indices, weights = np.empty((len(logits), k), np.int64), np.empty((len(logits), k), logits.dtype)
    for start in range(0, len(logits), block_tokens):
        part = slice(start, start + block_tokens)
        affinities = _affinities(logits[part].astype(dtype), scoring)
        scores = affinities if correction is None else affinities + correction.astype(dtype)
        chosen = np.argsort(-_hide_groups(scores, groups, top_groups), axis=1, kind="stable")[:, :k]
        indices[part], weights[part] = chosen, _finish(affinities, chosen, renormalize)
    return indices, weights


@register("moe_topk_gating", backend="numpy", name="numpy.route_by_maxima", dtypes=DTYPES, tunables=EVERY,
          description="one expert after the other, as a warp does: the largest, which is then struck out")  # fmt: skip
def route_by_maxima(
    logits: Array, k: int, *, renormalize: bool = True, scoring: str = "softmax", correction: Array | None = None, groups: int = 1,
    top_groups: int = 1, block_tokens: int = 32,
) -> tuple[Array, Array]:  # fmt: skip
    """k times the first of the largest scores; 32-bit indices, as kernels return them."""
    check_router(logits, k, groups, top_groups)
    dtype = working_dtype(logits)
    indices, weights = np.empty((len(logits), k), np.int32), np.empty((len(logits), k), logits.dtype)
    for start in range(0, len(logits), block_tokens):
        part = slice(start, start + block_tokens)
        affinities = _affinities(logits[part].astype(dtype), scoring)
        left = affinities.copy() if correction is None else affinities + correction.astype(dtype)
        left = _hide_groups(left, groups, top_groups).copy()
        chosen = np.empty((len(left), k), np.int32)
        for place in range(k):
            chosen[:, place] = left.argmax(axis=1)
            np.put_along_axis(left, chosen[:, place, None], -np.inf, axis=1)
        indices[part], weights[part] = chosen, _finish(affinities, chosen, renormalize)
    return indices, weights
