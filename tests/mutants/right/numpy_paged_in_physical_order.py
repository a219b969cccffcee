import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None, softcap=None):
    batch, n_heads, head_dim = q.shape
    n_blocks, block_size, n_kv, _ = k_cache.shape
    work = np.float64 if q.dtype == np.float64 else np.float32
    qg = q.astype(work).reshape(batch, n_kv, n_heads // n_kv, head_dim) * work(head_dim**-0.5 if scale is None else scale)
    m = np.full(qg.shape[:3], -np.inf, work)
    l, acc = np.zeros_like(m), np.zeros((*m.shape, v_cache.shape[3]), work)
    used = np.arange(block_table.shape[1]) * block_size < context_lens[:, None]
    for block in range(n_blocks):
        for b, j in zip(*np.nonzero(used & (block_table == block))):
            fill = min(block_size, context_lens[b] - j * block_size)
            k, v = (c[block, :fill].astype(work) for c in (k_cache, v_cache))
            s = np.einsum("grd,ngd->grn", qg[b], k)
            if softcap is not None:
                s = softcap * np.tanh(s / softcap)
            new = np.maximum(m[b], s.max(-1))
            p, alpha = np.exp(s - new[..., None]), np.exp(m[b] - new)
            l[b], m[b] = l[b] * alpha + p.sum(-1), new
            acc[b] = acc[b] * alpha[..., None] + np.einsum("grn,nge->gre", p, v)
    return (acc / np.where(l == 0, 1, l)[..., None]).reshape(batch, n_heads, v_cache.shape[3]).astype(q.dtype)
