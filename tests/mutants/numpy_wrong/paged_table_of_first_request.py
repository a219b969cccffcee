import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1], k_cache.shape[2]
    scale = 1.0 / np.sqrt(head_dim) if scale is None else scale
    out = np.zeros((batch, n_heads, v_cache.shape[3]), q.dtype)
    for b in range(batch):
        pos = np.arange(context_lens[b])
        if not len(pos):
            continue
        blocks = block_table[0, pos // block_size]
        k, v = (np.repeat(c[blocks, pos % block_size], n_heads // n_kv, axis=1).astype(np.float32) for c in (k_cache, v_cache))
        s = np.einsum("hd,nhd->hn", q[b].astype(np.float32), k) * scale
        p = np.exp(s - s.max(axis=1, keepdims=True))
        out[b] = (np.einsum("hn,nhe->he", p, v) / p.sum(axis=1, keepdims=True)).astype(q.dtype)
    return out
