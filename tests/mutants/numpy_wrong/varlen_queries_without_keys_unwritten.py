import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, causal=False, scale=None, softcap=None):
    heads, kv_heads = q.shape[1], k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = np.empty((*q.shape[:2], v.shape[-1]), q.dtype)
    for i in range(len(cu_q) - 1):
        lq, lk = cu_q[i + 1] - cu_q[i], cu_k[i + 1] - cu_k[i]
        if lq == 0 or lk == 0:
            continue
        qs, ks, vs = q[cu_q[i] : cu_q[i + 1]], k[cu_k[i] : cu_k[i + 1]], v[cu_k[i] : cu_k[i + 1]]
        qs = qs.astype(np.float32).reshape(lq, kv_heads, heads // kv_heads, -1) * scale
        s = np.einsum("lgrd,sgd->grls", qs, ks.astype(np.float32))
        if softcap is not None:
            s = softcap * np.tanh(s / softcap)
        if causal:
            s = np.where(np.arange(lk) <= np.arange(lq)[:, None] + lk - lq, s, -np.inf)
        m = s.max(-1, keepdims=True)
        p = np.exp(s - np.where(np.isfinite(m), m, 0))
        l = p.sum(-1, keepdims=True)
        o = np.einsum("grls,sge->lgre", p / np.where(l == 0, 1, l), vs.astype(np.float32))
        out[cu_q[i] : cu_q[i + 1]] = o.reshape(lq, heads, -1).astype(q.dtype)
    return out
