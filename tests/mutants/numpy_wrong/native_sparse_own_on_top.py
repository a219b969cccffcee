"""NSA; the query's own block is read besides the chosen ones."""

import numpy as np


def softmax(x):
    w = np.exp(x - x.max(-1, keepdims=True))
    return w / w.sum(-1, keepdims=True)


def block_scores(probs, n_blocks, per_block, per_stride):
    scores = np.zeros((*probs.shape[:-1], n_blocks), np.float32)
    for j in range(n_blocks):
        for m in range(per_block):
            for n in range(per_stride):
                i = j * per_block + m - n
                if 0 <= i < probs.shape[-1]:
                    scores[..., j] += probs[..., i]
    return scores


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, compress_weights=None, scale=None):
    batch, heads, length, dim = q.shape
    kv_heads, size = k.shape[1], v.shape[-1]
    group = heads // kv_heads
    scale = dim**-0.5 if scale is None else scale
    w = np.full(compress_block, 1 / compress_block) if compress_weights is None else compress_weights
    w = w.astype(np.float32)
    out = np.zeros((batch, heads, length, size), np.float32)
    starts = range(0, length - compress_block + 1, compress_stride)
    for b in range(batch):
        for g in range(kv_heads):
            keys, values = k[b, g].astype(np.float32), v[b, g].astype(np.float32)
            ck = np.array([w @ keys[s : s + compress_block] for s in starts], np.float32).reshape(-1, dim)
            cv = np.array([w @ values[s : s + compress_block] for s in starts], np.float32).reshape(-1, size)
            own = slice(g * group, (g + 1) * group)
            for t in range(length):
                query = q[b, own, t].astype(np.float32) * scale
                gate = gates[b, own, t].astype(np.float32)
                seen = sum(s + compress_block <= t + 1 for s in starts)
                blocks = t // select_block + 1
                importance = np.zeros(blocks, np.float32)
                compressed = 0.0
                if seen:
                    probs = softmax(query @ ck[:seen].T)
                    compressed = probs @ cv[:seen]
                    importance = block_scores(probs.sum(0), blocks, select_block // compress_stride, compress_block // compress_stride)
                chosen = np.sort(np.argsort(-importance, kind="stable")[:select_count])
                chosen = np.union1d(chosen, [blocks - 1])
                tokens = (chosen[:, None] * select_block + np.arange(select_block)).ravel()
                tokens = tokens[tokens <= t]
                picked = softmax(query @ keys[tokens].T) @ values[tokens]
                low = max(0, t - window + 1)
                near = softmax(query @ keys[low : t + 1].T) @ values[low : t + 1]
                out[b, own, t] = gate[:, :1] * compressed + gate[:, 1:2] * picked + gate[:, 2:] * near
    return out.astype(q.dtype)
