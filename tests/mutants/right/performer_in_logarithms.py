import numpy as np


def kernel(q, k, v, projection, *, causal=False, eps=1e-6):
    stored = q.dtype
    wide = np.float64 if stored == np.float64 else np.float32
    q, k, v, w = (x.astype(wide) for x in (q, k, v, projection))
    n, m = q.shape[2], len(w)
    if n == 0:
        return np.zeros(v.shape, stored)
    logs = []
    for x in (q, k):
        x = x * wide(x.shape[-1] ** -0.25)
        logs.append(x @ w.T - np.square(x).sum(-1, keepdims=True) / 2)
    a, b = logs
    # log of the kernel itself, for all pairs, one feature after another; then a softmax with one logit more, that of eps.
    kernel_log = np.full((*q.shape[:2], n, n), -np.inf, wide)
    for feature in range(m):
        kernel_log = np.logaddexp(kernel_log, a[..., feature, None] + b[..., None, :, feature])
    kernel_log -= wide(np.log(m))
    if causal:
        kernel_log = np.where(np.tri(n, dtype=bool), kernel_log, -np.inf)
    with np.errstate(divide="ignore"):
        guard = wide(np.log(eps))
    top = np.maximum(kernel_log.max(-1, keepdims=True), guard)
    weights = np.exp(kernel_log - top)
    return (weights @ v / (weights.sum(-1, keepdims=True) + np.exp(guard - top))).astype(stored)
