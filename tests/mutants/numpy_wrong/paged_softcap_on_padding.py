import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None, softcap=None):
    batch, n_heads, head_dim = q.shape
    _, block_size, n_kv, dv = v_cache.shape
    scale = head_dim**-0.5 if scale is None else scale
    pos = np.arange(block_table.shape[1] * block_size)
    ok = pos < context_lens[:, None]
    blocks = np.where(ok, block_table[:, pos // block_size], 0)
    k = np.where(ok[..., None, None], k_cache[blocks, pos % block_size], 0).astype(np.float32)
    v = np.where(ok[..., None, None], v_cache[blocks, pos % block_size], 0).astype(np.float32)
    qg = q.astype(np.float32).reshape(batch, n_kv, n_heads // n_kv, head_dim) * scale
    s = np.where(ok[:, None, None], np.einsum("bgrd,bngd->bgrn", qg, k), -np.inf)
    if softcap is not None:
        s = np.tanh(s / softcap) * softcap
    m = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isneginf(m), 0, m))
    l = p.sum(-1, keepdims=True)
    o = np.einsum("bgrn,bnge->bgre", p, v) / np.where(l == 0, 1, l)
    o[context_lens == 0] = 0
    return o.reshape(batch, n_heads, dv).astype(q.dtype)
