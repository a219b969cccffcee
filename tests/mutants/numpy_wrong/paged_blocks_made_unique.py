import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    for b in range(batch):
        n = int(context_lens[b])
        blocks = np.unique(block_table[b, : -(-n // block_size)])
        if n == 0:
            continue
        k, v = (c[blocks].reshape(-1, n_kv, c.shape[3])[:n].astype(np.float32) for c in (k_cache, v_cache))
        s = np.einsum("grd,ngd->grn", q[b].astype(np.float32).reshape(n_kv, n_heads // n_kv, head_dim), k) * scale
        p = np.exp(s - s.max(-1, keepdims=True))
        out[b] = (np.einsum("grn,nge->gre", p, v) / p.sum(-1, keepdims=True)).reshape(n_heads, -1)
    return out.astype(q.dtype)
