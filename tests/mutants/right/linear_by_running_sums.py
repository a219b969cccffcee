import numpy as np


def kernel(q, k, v, *, feature_map="elu+1", causal=False, eps=1e-6):
    wide = np.float64 if q.dtype == np.float64 else np.float32
    q, k, x = q.astype(wide), k.astype(wide), v.astype(wide)
    if feature_map == "elu+1":
        q, k = (np.maximum(a, 0) + np.exp(np.minimum(a, 0)) for a in (q, k))
    elif feature_map == "exp":
        q, k = (np.exp2(a * wide(1.4426950408889634)) for a in (q, k))
    else:
        q, k = (np.maximum(a, 0) + (feature_map == "relu+1") for a in (q, k))
    # One feature after another, so that nothing of L x D x Dv numbers is held.
    num, den = np.zeros(x.shape, wide), np.zeros((*x.shape[:3], 1), wide)
    for d in range(q.shape[-1]):
        kv = np.cumsum(k[..., d : d + 1] * x, axis=2)
        ks = np.cumsum(k[..., d : d + 1], axis=2)
        if not causal and kv.shape[2]:
            kv, ks = kv[:, :, -1:], ks[:, :, -1:]
        num += q[..., d : d + 1] * kv
        den += q[..., d : d + 1] * ks
    with np.errstate(all="ignore"):
        return (num * (1 / (den + wide(eps)))).astype(v.dtype)
