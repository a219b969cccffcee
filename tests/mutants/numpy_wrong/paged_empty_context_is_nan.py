import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None, window=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv, dv = k_cache.shape[1], k_cache.shape[2], v_cache.shape[3]
    scale = head_dim**-0.5 if scale is None else scale
    out = np.empty((batch, n_heads, dv), np.float32)
    for b in range(batch):
        lo = 0 if window is None or window[0] is None else max(int(context_lens[b]) - 1 - window[0], 0)
        t = np.arange(lo, context_lens[b])
        k, v = (c[block_table[b, t // block_size], t % block_size].astype(np.float32) for c in (k_cache, v_cache))
        s = np.einsum("grd,ngd->grn", q[b].astype(np.float32).reshape(n_kv, -1, head_dim) * scale, k)
        p = np.exp(s - s.max(-1, keepdims=True, initial=-np.inf))
        with np.errstate(invalid="ignore"):
            out[b] = (np.einsum("grn,nge->gre", p, v) / p.sum(-1, keepdims=True)).reshape(n_heads, dv)
    return out.astype(q.dtype)
