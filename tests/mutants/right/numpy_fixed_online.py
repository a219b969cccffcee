"""Fixed pattern with an online softmax over the tiles of keys."""

import numpy as np


def kernel(q, k, v, *, stride, c=1, scale=None, block_k=8):
    batch, heads, length, dim = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1).astype(np.float32), np.repeat(v, group, axis=1).astype(np.float32)
    rows = q.astype(np.float32) * np.float32(dim**-0.5 if scale is None else scale)
    i = np.arange(length)[:, None]
    top = np.full((batch, heads, length, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    out = np.zeros((batch, heads, length, v.shape[-1]), np.float32)
    for start in range(0, length, block_k):
        j = np.arange(start, min(start + block_k, length))[None, :]
        visible = (j <= i) & ((i // stride == j // stride) | (j % stride >= stride - c))
        scores = np.where(visible, rows @ k[:, :, start : start + block_k].swapaxes(-1, -2), -np.inf)
        raised = np.maximum(top, scores.max(axis=-1, keepdims=True))
        shift = np.where(np.isneginf(raised), 0, raised)
        weights, decay = np.exp(scores - shift), np.exp(np.where(np.isneginf(top), -np.inf, top - shift))
        total = total * decay + weights.sum(axis=-1, keepdims=True)
        out = out * decay + weights @ v[:, :, start : start + block_k]
        top = raised
    return (out / np.where(total > 0, total, 1)).astype(q.dtype)
