import numpy as np


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = np.float64 if q.dtype == np.float64 else np.float32
    out = np.zeros((len(q), q.shape[1], v.shape[-1]), q.dtype)
    group = q.shape[1] // k.shape[1]
    starts = cu_seqlens_k.astype(np.uint16)
    for b in range(len(cu_seqlens_q) - 1):
        rows = slice(cu_seqlens_q[b], cu_seqlens_q[b + 1])
        keys = slice(int(starts[b]), int(starts[b]) + int(cu_seqlens_k[b + 1] - cu_seqlens_k[b]))
        queries, own_k, own_v = (x.astype(wide) for x in (q[rows], np.repeat(k[keys], group, axis=1), np.repeat(v[keys], group, axis=1)))
        if not len(own_k) or not len(queries):
            continue
        s = np.einsum("nhd,mhd->hnm", queries, own_k) * wide(scale)
        if causal:
            ahead = np.arange(len(own_k)) > np.arange(len(queries))[:, None] + len(own_k) - len(queries)
            s = np.where(ahead, -np.inf, s)
        top = s.max(axis=-1, keepdims=True)
        p = np.exp(s - np.where(np.isfinite(top), top, 0))
        total = p.sum(axis=-1, keepdims=True)
        out[rows] = np.einsum("hnm,mhe->nhe", p / np.where(total == 0, 1, total), own_v)
    return out
