import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    order = np.argsort(-context_lens, kind="stable")  # longest first, for balance
    q_s, table, ctx = q[order], block_table[order], context_lens[order]
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    for b in range(batch):
        if ctx[b] == 0:
            break
        t = np.arange(ctx[b])
        k, v = (c[table[b, t // block_size], t % block_size].astype(np.float32) for c in (k_cache, v_cache))
        s = np.einsum("grd,ngd->grn", q_s[b].astype(np.float32).reshape(n_kv, n_heads // n_kv, head_dim) * scale, k)
        p = np.exp(s - s.max(-1, keepdims=True))
        out[b] = (np.einsum("grn,nge->gre", p, v) / p.sum(-1, keepdims=True)).reshape(n_heads, -1)
    return out[order].astype(q.dtype)
