"""NSA with all exponentials in base two; weights by way of the logsumexp, importance head by head. Near ties fall as they may."""

import numpy as np

LOG2E = np.float32(1.4426950408889634)


def attend(q, k, mask):
    s = np.where(mask, q @ k.swapaxes(-1, -2), -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    total = np.exp2(s - top).sum(-1, keepdims=True)
    lse = np.where(total > 0, top + np.log2(np.where(total > 0, total, 1)), np.inf)
    return np.exp2(s - lse)


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, compress_weights=None, scale=None):
    b, hq, n, d = q.shape
    hkv, r = k.shape[1], hq // k.shape[1]
    q = q.astype(np.float32) * (np.float32(d**-0.5 if scale is None else scale) * LOG2E)
    dtype, k, v, gates = gates.dtype, k.astype(np.float32), v.astype(np.float32), gates.astype(np.float32)
    t, out = np.arange(n)[:, None], np.zeros((b, hq, n, v.shape[-1]), np.float32)
    starts = np.arange(0, max(n - compress_block + 1, 0), compress_stride)
    pool = np.zeros((len(starts), n), np.float32)
    for offset in range(compress_block):
        pool[np.arange(len(starts)), starts + offset] = 1 if compress_weights is None else compress_weights[offset]
    ck, cv = pool @ k, pool @ v
    if compress_weights is None:
        ck, cv = ck / compress_block, cv / compress_block
    blocks = (n + select_block - 1) // select_block
    strides = -(-blocks * select_block // compress_stride)
    cover = (np.arange(strides) >= starts[:, None] // compress_stride) & (np.arange(strides) * compress_stride < starts[:, None] + compress_block)
    begun = np.arange(blocks) * select_block <= t
    for g in range(hkv):
        own = range(g * r, (g + 1) * r)
        probs = {h: attend(q[:, h], ck[:, g], starts + compress_block - 1 <= t) for h in own}
        importance = np.zeros((b, n, blocks), np.float32)
        for h in reversed(own):
            importance += (probs[h] @ cover.astype(np.float32)).reshape(b, n, blocks, select_block // compress_stride).sum(-1)
        rank = np.argsort(np.argsort(-np.where(begun, importance, -1), axis=-1, kind="stable"), axis=-1)
        chosen = (rank < select_count) & begun
        tokens = np.repeat(chosen, select_block, axis=-1)[..., :n] & (t.T <= t)
        for h in own:
            gate = gates[:, h]
            out[:, h] += gate[..., :1] * (probs[h] @ cv[:, g])
            out[:, h] += gate[..., 1:2] * (attend(q[:, h], k[:, g], tokens) @ v[:, g])
            out[:, h] += gate[..., 2:] * (attend(q[:, h], k[:, g], (t.T <= t) & (t - t.T < window)) @ v[:, g])
    return out.astype(dtype)
