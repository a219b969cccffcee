import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, causal=False, scale=None):
    heads, kv_heads = q.shape[1], k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = np.zeros((*q.shape[:2], v.shape[-1]), q.dtype)
    for a, b, c, d in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:]):
        if a == b or c == d:
            continue
        ks, vs = (np.repeat(x[c:d], heads // kv_heads, axis=1).astype(np.float32) for x in (k, v))
        s = np.einsum("lhd,shd->hls", q[a:b].astype(np.float32) * scale, ks)
        if causal:
            s = np.where(np.tri(b - a, d - c, dtype=bool), s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        out[a:b] = np.einsum("hls,she->lhe", p / p.sum(-1, keepdims=True), vs).astype(q.dtype)
    return out
