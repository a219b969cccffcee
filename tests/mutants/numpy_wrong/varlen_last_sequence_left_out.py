import numpy as np


def kernel(q, k, v, cu_q, cu_k, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    out = np.zeros((*q.shape[:2], v.shape[-1]), q.dtype)
    for i in range(len(cu_q) - 2):
        sl_q, sl_k = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        if sl_k.start == sl_k.stop:
            continue
        ks, vs = (np.repeat(x[sl_k].astype(np.float32), group, axis=1) for x in (k, v))
        s = np.einsum("lhd,shd->hls", q[sl_q].astype(np.float32) * scale, ks)
        p = np.exp(s - s.max(-1, keepdims=True))
        out[sl_q] = np.einsum("hls,she->lhe", p / p.sum(-1, keepdims=True), vs).astype(q.dtype)
    return out
