import numpy as np


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    _, block_size, n_kv, _ = k_cache.shape
    scale = head_dim**-0.5 if scale is None else scale
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    bias = np.where(np.arange(block_tables.shape[1] * block_size) < context_lens[:, None], 0.0, -np.inf)
    for b in range(batch):
        used = -(-context_lens[b] // block_size)
        if used == 0:
            continue
        k, v = (c[block_tables[b, :used]].reshape(used * block_size, n_kv, -1).astype(np.float32) for c in (k_cache, v_cache))
        v[context_lens[b] :] = 0.0
        for h in range(n_heads):
            g = h // (n_heads // n_kv)
            s = k[:, g] @ q[b, h].astype(np.float32) * scale + bias[b, : used * block_size]
            p = np.exp(s - s.max())
            out[b, h] = p @ v[:, g] / p.sum()
    return out.astype(q.dtype)
