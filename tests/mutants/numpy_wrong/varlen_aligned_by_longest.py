import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, causal=False, window=None, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    heads, kv_heads = q.shape[1], k.shape[1]
    max_q, max_k = (int(np.diff(cu).max(initial=0)) for cu in (cu_q, cu_k))
    left, right = window or (None, None)
    out = np.zeros((*q.shape[:2], v.shape[-1]), q.dtype)
    for a, b, c, d in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:]):
        if a == b or c == d:
            continue
        s = np.einsum("lgrd,sgd->grls", q[a:b].astype(np.float32).reshape(b - a, kv_heads, heads // kv_heads, -1) * scale, k[c:d].astype(np.float32))
        off = np.arange(d - c) - (np.arange(b - a)[:, None] + max_k - max_q)
        ok = np.ones(off.shape, bool)
        if causal:
            ok &= off <= 0
        if left is not None:
            ok &= off >= -left
        if right is not None:
            ok &= off <= right
        s = np.where(ok, s, -np.inf)
        m = s.max(-1, keepdims=True)
        p = np.exp(s - np.where(np.isfinite(m), m, 0))
        l = p.sum(-1, keepdims=True)
        o = np.einsum("grls,sge->lgre", p / np.where(l == 0, 1, l), v[c:d].astype(np.float32))
        out[a:b] = o.reshape(b - a, heads, -1).astype(q.dtype)
    return out
