import numpy as np


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None, softcap=None):
    batch, n_heads, head_dim = q.shape
    _, block_size, n_kv, _ = k_cache.shape
    scale = head_dim**-0.5 if scale is None else scale
    tables = np.maximum(block_tables, 0)
    k = k_cache[tables].reshape(batch, -1, n_kv, head_dim).astype(np.float32)
    v = v_cache[tables].reshape(batch, -1, n_kv, v_cache.shape[3]).astype(np.float32)
    group = n_heads // n_kv
    s = np.einsum("bgrd,bngd->bgrn", q.reshape(batch, n_kv, group, head_dim).astype(np.float32) * scale, k)
    if softcap is not None:
        s = softcap * np.tanh(s / softcap)
    valid = (np.arange(s.shape[-1]) < context_lens[:, None])[:, None, None]
    s = np.where(valid, s, -np.inf)
    m = s.max(axis=-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(m), m, 0.0))
    l = p.sum(axis=-1, keepdims=True)
    p = p / np.where(l > 0, l, 1.0)
    return np.einsum("bgrn,bnge->bgre", p, v).reshape(batch, n_heads, v.shape[-1]).astype(q.dtype)
