import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, group = k_cache.shape[1], n_heads // k_cache.shape[2]
    work = np.float64 if q.dtype == np.float64 else np.float32
    scale = work(head_dim**-0.5 if scale is None else scale)
    out = np.zeros((batch, n_heads, v_cache.shape[3]), work)
    for b in range(batch):
        lse = np.full(n_heads, -np.inf, work)
        for t in range(context_lens[b]):
            where = block_table[b, t // block_size], t % block_size
            k, v = (np.repeat(c[where].astype(work), group, axis=0) for c in (k_cache, v_cache))
            s = (q[b].astype(work) * k).sum(-1) * scale
            new = np.logaddexp(lse, s)
            out[b] = out[b] * np.exp(lse - new)[:, None] + v * np.exp(s - new)[:, None]
            lse = new
    return out.astype(q.dtype)
