import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, causal=False, scale=None):
    (lq, heads, d), (lk, kv_heads, _) = q.shape, k.shape
    scale = d**-0.5 if scale is None else scale
    seq_q = np.searchsorted(cu_q, np.arange(lq), side="right")
    seq_k = np.searchsorted(cu_k, np.arange(lk), side="right")
    mask = seq_q[:, None] == seq_k[None]
    own = np.isin(seq_k, seq_q)[:, None, None]
    k, v = np.where(own, k, 0).astype(np.float32), np.where(own, v, 0).astype(np.float32)
    if causal:
        mask &= np.arange(lq)[:, None] >= np.arange(lk)[None]
    k, v = (np.repeat(x, heads // kv_heads, axis=1) for x in (k, v))
    s = np.where(mask, np.einsum("lhd,shd->hls", q.astype(np.float32) * scale, k), -np.inf)
    m = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(m), m, 0))
    l = p.sum(-1, keepdims=True)
    return np.einsum("hls,she->lhe", p / np.where(l == 0, 1, l), v).astype(q.dtype)
