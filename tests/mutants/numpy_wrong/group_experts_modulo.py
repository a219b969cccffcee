import numpy as np


def kernel(q, k, v, w_in, w_out, *, causal=False, scale=None):
    q, k, v, a, b = (x.astype(np.float32) for x in (q, k, v, w_in, w_out))
    batch, heads, n, d = q.shape
    groups, m = k.shape[1:3]
    out = np.zeros((batch, heads, n, v.shape[3]), np.float32)
    for h in range(heads):
        g, e = h // (heads // groups), h % groups
        s = q[:, h] @ k[:, g].swapaxes(1, 2) * np.float32(d**-0.5 if scale is None else scale)
        if causal:
            s = np.where(np.arange(m) <= np.arange(n)[:, None] + m - n, s, -np.inf)
        top = s.max(-1, keepdims=True, initial=-np.inf)
        w = np.exp(s - np.where(np.isfinite(top), top, 0))
        total = w.sum(-1, keepdims=True)
        y = w @ v[:, g] / np.where(total == 0, 1, total)
        z = y @ a[e]
        out[:, h] = y + z / (1 + np.exp(-z)) @ b[e]
    return out
