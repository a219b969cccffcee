"""Attention of one head, computed in the many ways that correct kernels compute it, and in three that are wrong.

All take q (Lq, D), k (Lk, D), v (Lk, Dv) in a storage dtype and return (Lq, Dv) in it. Everything between is float32,
rounded after every operation; sums run one term at a time where the name says so, as they do in a scalar loop.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

FLOAT = np.float32
LOG2E = FLOAT(np.log2(np.e))


def matmul(a, b, sequential=False):
    """a @ b in float32; sequential: one term after another, the product rounded before it is added."""
    a, b = a.astype(FLOAT), b.astype(FLOAT)
    if not sequential:
        return a @ b
    total = np.zeros((a.shape[0], b.shape[1]), FLOAT)
    for index in range(a.shape[1]):
        total += a[:, index : index + 1] * b[index]
    return total


def row_sum(weights, sequential=False):
    """Sum over the last axis, kept; sequential: a running sum."""
    return np.cumsum(weights, axis=-1, dtype=FLOAT)[:, -1:] if sequential else weights.sum(-1, keepdims=True, dtype=FLOAT)


def logits_of(q, k, scaled="logits", base=np.e, sequential=False):
    """The logits, with the scale (and log2 e for a softmax in base 2) folded in where a kernel may fold it."""
    scale = FLOAT(q.shape[-1] ** -0.5)
    if base == 2:
        scale = scale * LOG2E
    q, k = q.astype(FLOAT), k.astype(FLOAT)
    if scaled == "q":
        return matmul(q * scale, k.T, sequential)
    if scaled == "k":
        return matmul(q, (k * scale).T, sequential)
    if scaled == "both":
        return matmul(q * np.sqrt(scale), (k * np.sqrt(scale)).T, sequential)
    return matmul(q, k.T, sequential) * scale


def exponential(x, base):
    return np.exp2(x) if base == 2 else np.exp(x)


def softmax(q, k, v, *, scaled="logits", base=np.e, sequential=False, normalise="after", cast=False, total="before"):
    """Three passes: maximum, weights, product.

    Args:
        normalise: the weights before the product, or the product after it.
        cast: round the weights to the storage dtype before the product.
        total: take the sum before that rounding, or after.
    """
    logits = logits_of(q, k, scaled, base, sequential)
    weights = exponential(logits - logits.max(-1, keepdims=True), base)
    summed = row_sum(weights, sequential)
    if normalise == "before":
        weights = weights / summed
    if cast:
        weights = weights.astype(q.dtype).astype(FLOAT)
        if total == "after" and normalise == "after":
            summed = row_sum(weights, sequential)
    out = matmul(weights, v, sequential)
    return (out if normalise == "before" else out / summed).astype(q.dtype)


def partial(q, k, v, tile, *, backwards=False, scaled="q", base=np.e, cast=False, sequential=False):
    """Online softmax: the output in float32 and the logsumexp, in the logarithm of the base."""
    logits = logits_of(q, k, scaled, base, sequential)
    maximum = np.full((len(q), 1), -np.inf, FLOAT)
    total, weighted = np.zeros((len(q), 1), FLOAT), np.zeros((len(q), v.shape[1]), FLOAT)
    starts = range(0, len(k), tile)
    for start in reversed(starts) if backwards else starts:
        part = slice(start, start + tile)
        highest = np.maximum(maximum, logits[:, part].max(-1, keepdims=True))
        weights = exponential(logits[:, part] - highest, base)
        rescale = exponential(maximum - highest, base)
        total = total * rescale + row_sum(weights, sequential)
        if cast:
            weights = weights.astype(q.dtype).astype(FLOAT)
        weighted = weighted * rescale + matmul(weights, v[part], sequential)
        maximum = highest
    log = np.log2 if base == 2 else np.log
    return weighted / total, (maximum + log(total))[:, 0]


def online(q, k, v, **how):
    return partial(q, k, v, **how)[0].astype(q.dtype)


def split(q, k, v, parts, **how):
    """Split over the keys; the parts are merged through their logsumexp, all at once."""
    base = how.get("base", np.e)
    pieces = [partial(q, k[part], v[part], 64, **how) for part in np.array_split(np.arange(len(k)), min(parts, len(k)))]
    lses = np.stack([lse for _, lse in pieces])
    weights = exponential(lses - lses.max(0), base)
    outs = np.stack([out for out, _ in pieces])
    return ((weights[..., None] * outs).sum(0) / weights.sum(0)[:, None]).astype(q.dtype)


def ring(q, k, v, parts, **how):
    """The same parts, merged as they arrive: the running output is normalised after every part."""
    out, lse = None, None
    for part in np.array_split(np.arange(len(k)), min(parts, len(k))):
        piece, own = partial(q, k[part], v[part], 64, **how)
        if out is None:
            out, lse = piece, own
            continue
        highest = np.maximum(lse, own)
        old, new = np.exp(lse - highest), np.exp(own - highest)
        out = (out * old[:, None] + piece * new[:, None]) / (old + new)[:, None]
        lse = highest + np.log(old + new)
    return out.astype(q.dtype)


def softmax_in_bfloat16(q, k, v):
    """Wrong: every step of the softmax is rounded to bfloat16."""
    bf = ml_dtypes.bfloat16
    logits = logits_of(q, k).astype(bf)
    weights = np.exp((logits - logits.max(-1, keepdims=True)).astype(FLOAT)).astype(bf)
    total = row_sum(weights.astype(FLOAT)).astype(bf)
    return matmul((weights / total).astype(bf), v).astype(q.dtype)


def logits_in_bfloat16(q, k, v):
    """Wrong: the logits are stored in bfloat16 on their way to a softmax that is right."""
    logits = logits_of(q, k).astype(ml_dtypes.bfloat16).astype(FLOAT)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (matmul(weights, v) / row_sum(weights)).astype(q.dtype)


def truncated(x):
    """What a matrix unit reads of a float32 in TF32 mode: ten explicit bits of the mantissa, the others ignored."""
    return (np.ascontiguousarray(x, FLOAT).view(np.uint32) & np.uint32(0xFFFFE000)).view(FLOAT)


def products_in_tf32(q, k, v):
    """Wrong under float32: both products read their operands in TF32."""
    logits = matmul(truncated(q), truncated(k).T) * FLOAT(q.shape[-1] ** -0.5)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (matmul(truncated(weights), truncated(v)) / row_sum(weights)).astype(q.dtype)
