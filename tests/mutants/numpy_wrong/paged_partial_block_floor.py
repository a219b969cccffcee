import numpy as np


def kernel(q, k_cache, v_cache, block_tables, seq_lens, *, scale=None):
    n_heads, head_dim = q.shape[1:]
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    out = np.zeros((*q.shape[:2], v_cache.shape[3]), np.float32)
    for i, (row, n) in enumerate(zip(block_tables, seq_lens)):
        blocks = row[: n // block_size]
        if len(blocks) == 0:
            continue
        k = k_cache[blocks].reshape(-1, n_kv, head_dim).astype(np.float32)
        v = v_cache[blocks].reshape(-1, n_kv, v_cache.shape[3]).astype(np.float32)
        k, v = (np.repeat(x, n_heads // n_kv, axis=1) for x in (k, v))
        s = np.einsum("hd,nhd->hn", q[i].astype(np.float32) * scale, k)
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        out[i] = np.einsum("hn,nhe->he", p / p.sum(axis=-1, keepdims=True), v)
    return out.astype(q.dtype)
