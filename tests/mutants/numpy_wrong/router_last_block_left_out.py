import numpy as np


def gate(x, k, renormalize):
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    idx = np.argsort(-p, axis=-1, kind="stable")[:, :k]
    w = np.take_along_axis(p, idx, axis=-1)
    return idx, w / w.sum(-1, keepdims=True) if renormalize else w


def kernel(logits, k, *, renormalize=True):
    tokens, block = len(logits), 16
    idx = np.zeros((tokens, k), np.int64)
    w = np.zeros((tokens, k), np.float32)
    blocks = tokens // block if tokens > block else 1
    for i in range(blocks):
        rows = slice(i * block, (i + 1) * block)
        idx[rows], w[rows] = gate(logits[rows].astype(np.float32), k, renormalize)
    return idx, w.astype(logits.dtype)
