import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, causal=False, window=None, softcap=None, scale=None):
    work = np.float64 if q.dtype == np.float64 else np.float32
    heads, kv = q.shape[1], k.shape[1]
    doc_q, doc_k = (np.repeat(np.arange(len(cu) - 1), np.diff(cu)) for cu in (cu_q, cu_k))
    shift = (cu_k[1:] - cu_q[1:])[doc_q]
    off = np.arange(len(k)) - (np.arange(len(q)) + shift)[:, None]
    ok = doc_q[:, None] == doc_k
    used = np.isin(doc_k, doc_q)[:, None, None]
    k, v = (np.where(used, x, 0).astype(work) for x in (k, v))
    left, right = window or (None, None)
    ok &= (off <= 0) | (not causal)
    if left is not None:
        ok &= off >= -left
    if right is not None:
        ok &= off <= right
    qg = q.astype(work).reshape(len(q), kv, heads // kv, -1) if q.size else np.zeros((len(q), kv, heads // kv, q.shape[2]), work)
    s = np.einsum("lgrd,sgd->grls", qg, k) * work(q.shape[2] ** -0.5 if scale is None else scale)
    if softcap is not None:
        s = np.tanh(s / work(softcap)) * work(softcap)
    s = np.where(ok, s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = p.sum(-1, keepdims=True)
    o = np.einsum("grls,sge->lgre", p / np.where(total == 0, 1, total), v)
    return o.reshape(len(q), heads, v.shape[2]).astype(q.dtype)
