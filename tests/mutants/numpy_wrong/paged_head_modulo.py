import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    kv_head = np.arange(n_heads) % n_kv
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    for b in range(batch):
        t = np.arange(context_lens[b])
        if t.size:
            k = k_cache[block_table[b, t // block_size], t % block_size][:, kv_head].astype(np.float32)
            v = v_cache[block_table[b, t // block_size], t % block_size][:, kv_head].astype(np.float32)
            s = (q[b].astype(np.float32) * k).sum(-1).T * scale
            p = np.exp(s - s.max(-1, keepdims=True))
            out[b] = np.einsum("hn,nhe->he", p / p.sum(-1, keepdims=True), v)
    return out.astype(q.dtype)
