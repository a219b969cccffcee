import numpy as np


def pad(x, cu):
    lens = np.diff(cu)
    out = np.zeros((len(lens), lens.max(initial=0), *x.shape[1:]), np.float32)
    for i, n in enumerate(lens):
        out[i, :n] = x[cu[i] : cu[i + 1]]
    return out


def kernel(q, k, v, cu_q, cu_k, *, causal=False, scale=None):
    heads, kv_heads = q.shape[1], k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    qp, kp, vp = pad(q, cu_q) * scale, pad(k, cu_k), pad(v, cu_k)
    lq, lk = np.diff(cu_q), np.diff(cu_k)
    kp, vp = (np.repeat(x, heads // kv_heads, axis=2) for x in (kp, vp))
    s = np.einsum("blhd,bshd->bhls", qp, kp)
    if causal:
        i, j = np.arange(qp.shape[1])[:, None], np.arange(kp.shape[1])
        s = np.where((j <= i + (lk - lq)[:, None, None])[:, None], s, -np.inf)
    s = np.where((lk > 0)[:, None, None, None], s, -np.inf)
    m = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(m), m, 0))
    l = p.sum(-1, keepdims=True)
    o = np.einsum("bhls,bshe->blhe", p / np.where(l == 0, 1, l), vp)
    rows = [o[i, :n] for i, n in enumerate(lq)]
    return np.concatenate(rows).astype(q.dtype) if rows else np.zeros((0, heads, v.shape[-1]), q.dtype)
