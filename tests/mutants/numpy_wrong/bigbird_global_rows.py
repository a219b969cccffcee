"""BigBird: a set of key blocks for every query block."""

import numpy as np


def softmax_rows(scores, visible):
    scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def kernel(q, k, v, *, block_size, window_blocks, global_blocks, random_blocks, scale=None):
    batch, heads, length, dim = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1).astype(np.float32), np.repeat(v, group, axis=1).astype(np.float32)
    scale = np.float32(dim**-0.5 if scale is None else scale)
    count = (length + block_size - 1) // block_size
    half = (window_blocks - 1) // 2
    out = np.zeros((batch, heads, length, v.shape[-1]), dtype=np.float32)
    for block in range(count):
        rows = slice(block * block_size, min((block + 1) * block_size, length))
        if block < global_blocks - 1:
            chosen = list(range(count))
        else:
            chosen = set(range(min(global_blocks, count)))
            chosen |= {other for other in range(block - half, block + half + 1) if 0 <= other < count}
            chosen |= set(random_blocks[block].tolist())
            chosen = sorted(chosen)
        keys = np.concatenate([np.arange(other * block_size, min((other + 1) * block_size, length)) for other in chosen])
        scores = q[:, :, rows].astype(np.float32) @ k[:, :, keys].swapaxes(-1, -2) * scale
        out[:, :, rows] = softmax_rows(scores, True) @ v[:, :, keys]
    return out.astype(q.dtype)
