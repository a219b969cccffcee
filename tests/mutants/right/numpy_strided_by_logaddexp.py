"""Near and strided keys apart, each with its own softmax; the two are merged through their logsumexp."""

import numpy as np


def part(scores, v, chosen):
    scores = np.where(chosen, scores, -np.inf)
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(scores - shift)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return weights @ v / np.where(total == 0, 1, total), np.log(total) + shift


def kernel(q, k, v, *, stride, scale=None):
    if q.shape[1] != k.shape[1]:
        raise NotImplementedError("grouped heads")
    work = np.float64 if q.dtype == np.float64 else np.float32
    q, k, v, out_dtype = q.astype(work), k.astype(work), v.astype(work), q.dtype
    behind = np.subtract.outer(np.arange(q.shape[2]), np.arange(k.shape[2]))
    scores = q @ k.swapaxes(2, 3) * work(q.shape[-1] ** -0.5 if scale is None else scale)
    near, near_lse = part(scores, v, (behind >= 0) & (behind < stride))
    far, far_lse = part(scores, v, (behind >= stride) & (behind % stride == 0))
    both = np.logaddexp(near_lse, far_lse)
    return (near * np.exp(near_lse - both) + far * np.exp(far_lse - both)).astype(out_dtype)
