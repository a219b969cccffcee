import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    heads, kv_heads = q.shape[1], k.shape[1]
    doc_q = np.searchsorted(cu_q[1:], np.arange(len(q)))
    doc_k = np.searchsorted(cu_k[1:], np.arange(len(k)))
    own = np.isin(doc_k, doc_q)[:, None, None]
    k, v = (np.repeat(np.where(own, x, 0).astype(np.float32), heads // kv_heads, axis=1) for x in (k, v))
    s = np.einsum("lhd,shd->hls", q.astype(np.float32), k) * scale
    s = np.where(doc_q[:, None] == doc_k, s, -np.inf)
    m = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isfinite(m), m, 0))
    l = p.sum(-1, keepdims=True)
    return np.einsum("hls,she->lhe", p / np.where(l == 0, 1, l), v).astype(q.dtype)
