import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv, dv = k_cache.shape[1], k_cache.shape[2], v_cache.shape[3]
    scale = head_dim**-0.5 if scale is None else scale
    q = q.astype(np.float32).reshape(batch, n_kv, n_heads // n_kv, head_dim) * np.float32(scale)
    out = np.zeros((batch, n_kv, n_heads // n_kv, dv), np.float32)
    for b in range(batch):
        m = np.full(q.shape[1:3], -np.inf, np.float32)
        l, acc = np.zeros_like(m), np.zeros(out.shape[1:], np.float32)
        n_blocks = -(-int(context_lens[b]) // block_size)
        for j in range(n_blocks):
            fill = block_size if j < n_blocks - 1 else int(context_lens[b]) % block_size
            if fill == 0:
                continue
            k = k_cache[block_table[b, j], :fill].astype(np.float32)
            v = v_cache[block_table[b, j], :fill].astype(np.float32)
            s = np.einsum("grd,ngd->grn", q[b], k)
            m_new = np.maximum(m, s.max(-1))
            p, alpha = np.exp(s - m_new[..., None]), np.exp(m - m_new)
            l, m = l * alpha + p.sum(-1), m_new
            acc = acc * alpha[..., None] + np.einsum("grn,nge->gre", p, v)
        out[b] = acc / np.where(l > 0, l, 1.0)[..., None]
    return out.reshape(batch, n_heads, dv).astype(np.dtype(k_cache.dtype))
